"""Matrices without random numbers, by which two independent programs can be compared digit by digit (specification of the law
of parsimony): indices count from 0, layers from 1."""
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import h5py
import numpy as np


def cosines(n):
    """F(n): symmetric and orthogonal (the type-IV discrete cosine transform)."""
    i = np.arange(n)
    return np.sqrt(2 / n) * np.cos(np.pi * np.outer(i + 0.5, i + 0.5) / n)


def hartley(n):
    """H(n): symmetric and orthogonal."""
    angle = 2 * np.pi * np.outer(np.arange(n), np.arange(n)) / n
    return (np.cos(angle) + np.sin(angle)) / np.sqrt(n)


def signs(n, layer):
    j = np.arange(n)
    return np.where((j * j + (2 * layer + 1) * j) % 11 < 6, 1.0, -1.0)


def orth(m, n, layer):
    """formula_orth(m, n, l): the first m rows and n columns of F(max(m, n)) diag(s_l)."""
    size = max(m, n)
    return (cosines(size) * signs(size, layer))[:m, :n]


def target(d, sigma):
    """formula_target(d; σ): Σ_k σ_k F[:, k] H[:, k + 1]ᵀ."""
    r = len(sigma)
    return (cosines(d)[:, :r] * np.asarray(sigma, float)) @ hartley(d)[:, 1:r + 1].T


def classes(d, samples, outputs):
    """formula_data(d, N, K): X with X Xᵀ = I, contiguous classes one-hot."""
    label = np.arange(samples) * outputs // samples
    return cosines(samples)[:d], np.eye(outputs)[:, label]


def write_weights(path, weights):
    """W1 … WL for init: {kind: file}."""
    with h5py.File(path, "w") as file:
        for layer, W in enumerate(weights, 1):
            file[f"W{layer}"] = W


def write_data(path, Y, X=None, **more):
    """X, Y (and a mask M) for data: {kind: hdf5}."""
    with h5py.File(path, "w") as file:
        file["Y"] = Y
        if X is not None:
            file["X"] = X
        for name, values in more.items():
            file[name] = values


# ---------------------------------------------------------------- from splitmix64, as the shipped studies make them
def load_module(path):
    """A Python file as a module, whatever its name."""
    spec = spec_from_file_location(path.parent.name, path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


invariances = load_module(Path(__file__).resolve().parent.parent / "inputs" / "invariances" / "reference.py")
ref_fill, ref_unit, ref_data, ref_weights = (getattr(invariances, name) for name in ("ref_fill", "ref_unit", "ref_data", "ref_weights"))
