#!/usr/bin/env python3
"""Writes the starts and targets of these studies, HDF5 files in a folder `intrinsic` where you are: python3 reference.py [NAME…].

No random numbers: all entries come from the generator splitmix64 (inputs/invariances/reference.py), so
that another program gets the same digits. Each file holds W1 … WL for `model.init: {kind: file}` and Y (with X, or weights M)
for `data: {kind: hdf5}`.
"""
from pathlib import Path
import sys

import h5py
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from invariances.reference import ref_fill, ref_unit  # noqa: E402


# ---------------------------------------------------------------- reference matrices
def ref_orth(seed, n):
    """A product of three reflections."""
    Q = np.eye(n)
    for v in ref_fill(seed, n, 3).T:
        Q = Q @ (np.eye(n) - 2 * np.outer(v, v) / (v @ v))
    return Q


def place(values, m, n):
    """m × n with these values on the diagonal."""
    D = np.zeros((m, n))
    np.fill_diagonal(D, np.resize(np.append(values, np.zeros(min(m, n))), min(m, n)))
    return D


# ---------------------------------------------------------------- starts
def relaxed(seed, sigma, n_out, n_in, h, lam):
    """W_1, W_2 with W_2ᵀW_2 − W_1W_1ᵀ = λI."""
    p = min(n_out, n_in, h)
    s = sigma * (p - np.arange(p)) / p
    q = np.sqrt(lam ** 2 + 4 * s ** 2)
    rest = np.ones(h - p)
    D2 = place(np.append(np.sqrt((q + lam) / 2), np.sqrt(max(lam, 0)) * rest), n_out, h)
    D1 = place(np.append(np.sqrt((q - lam) / 2), np.sqrt(max(-lam, 0)) * rest), h, n_in)
    a, b, c = ref_orth(seed, n_out), ref_orth(seed + 1, n_in), ref_orth(seed + 2, h)
    return [c @ D1 @ b.T, a @ D2 @ c.T]


def chained(seed, widths, diagonals):
    Q = [ref_orth(seed + 10 + k, d) for k, d in enumerate(widths)]
    return [Q[k] @ place(diagonals[k - 1], widths[k], widths[k - 1]) @ Q[k - 1].T for k in range(1, len(widths))]


def balanced(seed, sigma, widths):
    p = min(widths)
    return chained(seed, widths, [sigma * (p - np.arange(p)) / p] * (len(widths) - 1))


def relaxed_deep(seed, sigma, n, lambdas):
    """Square layers with S_k = λ_k I."""
    e = np.concatenate([[0], np.cumsum(lambdas)])
    x = max(0, -e.min()) + 0.2 + sigma * (n - np.arange(n)) / n
    return chained(seed, [n] * (len(e) + 1), [np.sqrt(x + step) for step in e])


def exponential(A):
    """e^A of a small matrix, by its Taylor series."""
    term = total = np.eye(len(A))
    for k in range(1, 40):
        term = term @ A / k
        total = total + term
    return total


def residual(A0, layers, lam):
    """A_1 … A_L of I + A_k/L, from a relaxed balanced A(s)."""
    symmetric, skew = A0 + A0.T, A0 - A0.T
    s = (np.arange(layers) + 0.5) / layers
    turn = [exponential(t * skew) for t in s]
    return [0.5 * (T @ symmetric @ T.T + lam * t * np.eye(len(A0))) + skew for T, t in zip(turn, s)]


# ---------------------------------------------------------------- the studies: {name: (weights, data)}
def weighted_target(n_out, n_in):
    return {"Y": ref_unit(21, n_out, n_in), "M": 1 + 0.5 * ref_fill(22, n_out, n_in)}


TWO_LAYERS = [(4, 3, 4, 0.7), (3, 5, 5, -0.9), (4, 4, 4, 1.3), (4, 4, 4, -1.3), (4, 4, 4, 0), (5, 4, 3, 0.6)]
MATRIX = [(3, 3, 3, 0), (3, 3, 3, 2), (3, 3, 3, -2), (5, 3, 5, 1), (4, 6, 6, -1.2), (3, 5, 3, 0)]


def two_layer_ode():
    for i, (n_out, n_in, h, lam) in enumerate(TWO_LAYERS, 1):
        yield f"two_layer_ode_{i}", relaxed(21, 0.9, n_out, n_in, h, lam), weighted_target(n_out, n_in)
    yield "excluded", relaxed(21, 0.9, 6, 3, 5, 0.6), weighted_target(6, 3)  # section 7: not intrinsic


def deep_ode():
    yield "deep_ode_1", balanced(21, 0.9, [4, 3, 5, 3]), weighted_target(3, 4)
    yield "deep_ode_2", relaxed_deep(21, 0.9, 3, [0.3, -0.2]), weighted_target(3, 3)
    yield "deep_ode_3", relaxed_deep(21, 0.9, 3, [0.3, -0.4, 0.2]), weighted_target(3, 3)


def infinite_depth():
    A0, C = 0.3 * ref_unit(32, 3, 3), np.eye(3) + 0.5 * ref_unit(31, 3, 3)
    for lam in (0, 1.5):
        for layers in (8, 16, 32, 64):
            yield f"infinite_depth_{lam:g}_{layers}", residual(A0, layers, lam), {"Y": C}


def modes():
    for lam in (0, 0.01, 0.5, -0.5, 4):
        q = np.sqrt(lam ** 2 + 4 * 0.05 ** 2)
        yield f"modes_{lam:g}", [np.array([[np.sqrt((q - lam) / 2)]]), np.array([[np.sqrt((q + lam) / 2)]])], {"Y": [[1.3]]}


def matrix_solution():
    for i, (n_out, n_in, h, lam) in enumerate(MATRIX, 1):
        yield f"matrix_solution_{i}", relaxed(11, 0.6, n_out, n_in, h, lam), {"Y": ref_unit(14, n_out, n_in)}


def lambda_sweep():
    for n in (3, 5, 10, 20):
        yield f"lambda_sweep_{n}", [], {"Y": ref_unit(14, n, n)}


def single_neuron():
    """f = a w·x, a‖w‖ = 1, w along (−1, 0), β* = (0, 1)."""
    for delta in (-4, -2, -1, 0, 1, 2, 4):
        a = np.sqrt((delta + np.sqrt(delta ** 2 + 4)) / 2)
        yield f"single_neuron_{delta}", [np.array([[-1 / a, 0]]), np.array([[a]])], {"Y": [[0.0, 1.0]]}


def one_hot(labels, classes):
    return np.eye(classes)[:, labels]


def fan_in(seed, widths):
    """W_k = ref_unit(seed + k)/√d_{k−1}."""
    return [ref_unit(seed + k, widths[k], widths[k - 1]) / np.sqrt(widths[k - 1]) for k in range(1, len(widths))]


def ledger():
    i = np.arange(20)
    yield "ledger", fan_in(41, [4, 5, 6, 3]), {"X": ref_unit(41, 4, 20), "Y": one_hot((3 * i + i // 4) % 3, 3)}
    yield "ledger_squared", fan_in(41, [3, 5, 4]), {"X": ref_unit(41, 3, 6), "Y": ref_unit(91, 4, 6)}


def relu_ledger():
    i, widths = np.arange(40), [8, 12, 6, 4]
    biases = [0.1 * ref_unit(131 + k, widths[k], 1) for k in (1, 2, 3)]  # relu_ledger takes two
    yield "relu_ledger", fan_in(111, widths), {"X": ref_unit(111, 8, 40), "Y": one_hot((3 * i + i // 4) % 4, 4), "b": biases}


STUDIES = {study.__name__: study for study in (two_layer_ode, deep_ode, infinite_depth, modes, matrix_solution, lambda_sweep,
                                               single_neuron, ledger, relu_ledger)}


def write(folder, name, weights, data):
    with h5py.File(folder / f"{name}.h5", "w") as file:
        for k, W in enumerate(weights, 1):
            file[f"W{k}"] = W
        for k, b in enumerate(data.pop("b", []), 1):
            file[f"b{k}"] = b
        for key, values in data.items():
            file[key] = np.asarray(values, float)


def main(names):
    folder = Path("intrinsic")
    folder.mkdir(exist_ok=True)
    for name in names or STUDIES:
        if name not in STUDIES:
            sys.exit(f"there is no study {name}: {', '.join(STUDIES)}")
        for case in STUDIES[name]():
            write(folder, *case)


if __name__ == "__main__":
    main(sys.argv[1:])
