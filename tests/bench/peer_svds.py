"""SciPy's svds on a matrix of a snapshot.

    python3 peer_svds.py SNAPSHOT.h5 NAME RANK TOLERANCE [exact]     prints one JSON object

svds takes its tolerance as a relative error of the eigenvalues of AᵀA, so that its residuals are far below it. With `exact` it
gets TOLERANCE as it is; otherwise the loosest power of ten whose residuals, measured as ours are, are below TOLERANCE.
"""
import json
import sys
import time

import h5py
import numpy as np
from scipy.sparse.linalg import LinearOperator, svds


def residual(matrix, u, s, vt):
    return max(np.hypot(np.linalg.norm(matrix @ v - sigma * w), np.linalg.norm(matrix.T @ w - sigma * v))
               for w, sigma, v in zip(u.T, s, vt)) / s.max()


def main(path, name, rank, tolerance, exact):
    with h5py.File(path) as file:
        matrix = np.asfortranarray(file[name][()])
    products = 0

    def counted(operator):
        def apply(x):
            nonlocal products
            products += 1
            return operator @ x.reshape(-1)
        return apply

    start_vector = np.random.default_rng(1).standard_normal(min(matrix.shape))
    for tol in [tolerance] if exact else [10.0**-e for e in range(1, 16)]:
        if residual(matrix, *svds(matrix, k=rank, tol=tol, v0=start_vector)) <= tolerance:
            break
    best = np.inf
    for _ in range(3):
        start = time.perf_counter()
        u, s, vt = svds(matrix, k=rank, tol=tol, v0=start_vector)
        best = min(best, time.perf_counter() - start)
    operator = LinearOperator(matrix.shape, matvec=counted(matrix), rmatvec=counted(matrix.T), dtype=float)
    svds(operator, k=rank, tol=tol, v0=start_vector)
    print(json.dumps({"seconds": best, "products": products, "tolerance": tol, "residual": residual(matrix, u, s, vt),
                      "sigma_1": s.max(), "sigma_last": s.min()}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), len(sys.argv) > 5)
