"""SciPy's svds on a matrix of a snapshot.

    python3 peer_svds.py SNAPSHOT.h5 NAME RANK TOLERANCE     prints one JSON object
"""
import json
import sys
import time

import h5py
import numpy as np
from scipy.sparse.linalg import LinearOperator, svds


def main(path, name, rank, tolerance):
    with h5py.File(path) as file:
        matrix = np.asfortranarray(file[name][()])
    products = 0

    def counted(operator):
        def apply(x):
            nonlocal products
            products += 1
            return operator @ x.reshape(-1)
        return apply

    operator = LinearOperator(matrix.shape, matvec=counted(matrix), rmatvec=counted(matrix.T), dtype=float)
    start_vector = np.random.default_rng(1).standard_normal(min(matrix.shape))
    best = np.inf
    for _ in range(3):
        start = time.perf_counter()
        u, s, vt = svds(matrix, k=rank, tol=tolerance, v0=start_vector)
        best = min(best, time.perf_counter() - start)
    svds(operator, k=rank, tol=tolerance, v0=start_vector)
    residual = max(np.hypot(np.linalg.norm(matrix @ vt[i] - s[i] * u[:, i]), np.linalg.norm(matrix.T @ u[:, i] - s[i] * vt[i]))
                   for i in range(rank)) / s.max()
    print(json.dumps({"seconds": best, "products": products, "residual": residual, "sigma_1": s.max(), "sigma_last": s.min()}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
