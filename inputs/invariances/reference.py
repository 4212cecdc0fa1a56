#!/usr/bin/env python3
"""Writes data and starts of these studies, HDF5 files in a folder `invariances` where you are: python3 reference.py [NAME…].

No random numbers: all entries come from the generator splitmix64, so that another program gets the same digits. A file holds X and
Y for `data: {kind: hdf5}` and W1 … WL (b1 … bL) for `model.init: {kind: file}`.
"""
from pathlib import Path
import sys

import h5py
import numpy as np


# ---------------------------------------------------------------- reference matrices
def ref_fill(seed, m, n):
    """Entries in [−1, 1), row by row."""
    with np.errstate(over="ignore"):
        x = np.uint64(seed) + np.arange(1, m * n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return 2 * ((x ^ (x >> np.uint64(31))) >> np.uint64(11)).astype(float).reshape(m, n) * 2.0**-53 - 1


def ref_unit(seed, m, n):
    """The same with variance 1."""
    return np.sqrt(3) * ref_fill(seed, m, n)


def ref_data(seed, d, samples):
    """Separable inputs (columns), the longest of length 1, and their labels ±1."""
    X, w = ref_unit(seed, d, samples), ref_fill(seed + 90, d, 1)
    y = np.sign(w.T @ X)
    X = X + 0.5 * y * w / np.linalg.norm(w)
    return X / np.linalg.norm(X, axis=0).max(), y


def ref_weights(seed, widths, scale):
    return [scale * ref_unit(seed + k, widths[k], widths[k - 1]) / np.sqrt(widths[k - 1]) for k in range(1, len(widths))]


# ---------------------------------------------------------------- a start with a risk of at most that of a network of zeros
def logistic_risk(X, y, weights, trunk):
    """The first `trunk` layers have ReLUs."""
    for k, W in enumerate(weights):
        X = W @ X if k >= trunk else np.maximum(W @ X, 0)
    return np.mean(np.logaddexp(0, -y * X))


def below_zero_network(X, y, weights, trunk=0):
    """The sign rule: turns the last layer if the risk is larger than ln 2."""
    if logistic_risk(X, y, weights, trunk) > np.log(2):
        weights[-1] = -weights[-1]
    return weights


def separable(data, weights, widths, scale, trunk=0):
    X, y = ref_data(data[0], widths[0], data[1])
    return {"X": X, "Y": y, "W": below_zero_network(X, y, ref_weights(weights, widths, scale), trunk)}


# ---------------------------------------------------------------- the studies
def equal_norm():
    X, y = ref_data(141, 8, 24)
    weights = [W / np.linalg.norm(W) for W in ref_weights(141, [8, 12, 12, 1], 1)]
    return {"X": X, "Y": y, "W": below_zero_network(X, y, weights)}


def margin_2d(widths):
    """20 points of margin 1/4 around the direction (cos ½, sin ½), two of them support vectors."""
    u, q = np.array([[np.cos(0.5)], [np.sin(0.5)]]), np.array([[-np.sin(0.5)], [np.cos(0.5)]])
    U = ref_fill(201, 2, 18)
    z = np.hstack([0.25 * u + 0.5 * q, 0.25 * u - 0.3 * q, (0.55 + 0.25 * U[:1]) * u + 0.5 * U[1:] * q])
    y = np.where(np.arange(20) % 2, -1.0, 1.0)[None]
    return {"X": y * z, "Y": y, "W": below_zero_network(y * z, y, ref_weights(211, widths, 0.5))}


def one_example(widths):
    """W_k = a u_k u_{k−1}ᵀ and one sample 0.8 u_0 of label 1, so that the margin is 0.3."""
    L = len(widths) - 1
    u = [ref_fill(500 + k, n, 1) for k, n in enumerate(widths)]
    u = [v / np.linalg.norm(v) for v in u[:-1]] + [np.ones((1, 1))]
    a = (0.3 / 0.8) ** (1 / L)
    return {"X": 0.8 * u[0], "Y": np.ones((1, 1)), "W": [a * u[k] @ u[k - 1].T for k in range(1, L + 1)]}


def relu_stable():
    X, W = ref_unit(71, 4, 5), [0.3 * ref_unit(73, 7, 4), 0.3 * ref_unit(74, 2, 7)]
    X[0] += 3
    for j in range(7):
        if j % 4 in (0, 1):
            W[0][j, 0] += 1
        elif j % 4 == 2:
            W[0][j, 0] -= 2
        else:
            W[0][j, 0] = 0
            W[0][j] *= 3
    W[0][6] = 0.5 * W[0][3]
    return {"X": X, "Y": ref_unit(72, 2, 5), "W": W, "b": [0.1 * ref_unit(75, 7, 1), np.zeros((2, 1))]}


def relu_positive(shift):
    X, w = ref_fill(301, 12, 64), ref_fill(391, 12, 1)
    w = w - w.mean()
    w = w / np.linalg.norm(w)
    y = np.sign(w.T @ X)
    X = X + 0.5 * y * w + shift
    X = X / np.linalg.norm(X, axis=0).max()
    return {"X": X, "Y": y, "W": below_zero_network(X, y, ref_weights(301, [12, 24, 24, 16, 8, 1], 1), 2)}


def residual_stream():
    shapes = [(0.6, 3, 4), (0.5, 5, 3), (0.5, 3, 5), (0.5, 5, 3), (0.5, 3, 5), (0.6, 2, 3)]
    return {"X": ref_unit(101, 4, 7), "Y": ref_unit(102, 2, 7),
            "W": [scale * ref_unit(103 + k, m, n) for k, (scale, m, n) in enumerate(shapes)]}


STUDIES = {
    "linear_flow": lambda: separable((61, 20), 61, [5, 7, 6, 1], 0.7),
    "linear_small_init": lambda: separable((61, 20), 61, [5, 7, 6, 1], 0.1),
    "margin_2d_1": lambda: margin_2d([2, 1]),
    "margin_2d_4": lambda: margin_2d([2, 8, 8, 8, 1]),
    "equal_norm": equal_norm,
    "one_example_2": lambda: one_example([5, 4, 1]),
    "one_example_3": lambda: one_example([5, 4, 3, 1]),
    "one_example_4": lambda: one_example([5, 4, 3, 6, 1]),
    "relu_head": lambda: separable((61, 40), 61, [10, 16, 16, 12, 8, 1], 1, 2),
    "relu_stable": relu_stable,
    "relu_positive": lambda: relu_positive(1.5),
    "relu_centred": lambda: relu_positive(0),
    "residual_stream": residual_stream,
}


def write(folder, name):
    content = STUDIES[name]()
    with h5py.File(folder / f"{name}.h5", "w") as file:
        for letter in "XY":
            file[letter] = content[letter]
        for letter in "Wb":
            for layer, matrix in enumerate(content.get(letter, []), 1):
                file[f"{letter}{layer}"] = matrix


def main(names):
    folder = Path("invariances")
    folder.mkdir(exist_ok=True)
    for name in names or STUDIES:
        if name not in STUDIES:
            sys.exit(f"no study '{name}'; there are {', '.join(STUDIES)}")
        write(folder, name)


if __name__ == "__main__":
    main(sys.argv[1:])
