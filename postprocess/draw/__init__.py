"""One module for each kind of group in metrics.h5. A drawing function, registered by `@draws(kind)`, gets the run and the
group and yields (name, figure). Modules put into this folder are found by themselves."""
import importlib
import pkgutil

DRAWERS = {}


def draws(kind):
    """Registers the drawing function of a kind of probe."""
    def register(function):
        DRAWERS[kind] = function
        return function
    return register


for module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{module.name}")
