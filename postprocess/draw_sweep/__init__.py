"""Figures of sweeps beyond one number a member. A drawing function, registered by `@draws_sweep`, gets the sweep, the runs of its
members (None for those that are not done) and its first axis, and yields (name, figure). Modules put into this folder are found
by themselves."""
import importlib
import pkgutil

DRAWERS = []


def draws_sweep(function):
    DRAWERS.append(function)
    return function


for module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{module.name}")
