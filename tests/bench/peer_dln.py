"""A step of gradient descent on a deep linear network of three layers in NumPy: ½‖W_3 W_2 W_1 − Φ‖²/d², float64.

    python3 peer_dln.py WIDTH [REPEATS]     prints one JSON object

Six products of square matrices, as in our step: two forward, four backward; all results go to memory that is there
already, and transposed factors are not copied.
"""
import ctypes
import json
import statistics
import sys
import time

import numpy as np


def main(width, repeats):
    rng = np.random.default_rng(1)
    first, second, third = (np.linalg.qr(rng.standard_normal((width, width)))[0] for _ in range(3))
    target = rng.standard_normal((width, width))
    lower, error, by_third, behind_third, by_second, by_first, work = (np.empty((width, width)) for _ in range(7))
    scale, rate = 1 / width**2, 1e-3

    def descend(W, gradient):
        np.multiply(gradient, rate, out=work)
        np.subtract(W, work, out=W)

    def step():
        np.matmul(second, first, out=lower)
        np.matmul(third, lower, out=error)
        np.subtract(error, target, out=error)
        loss = 0.5 * scale * np.vdot(error, error)
        np.multiply(error, scale, out=error)
        np.matmul(error, lower.T, out=by_third)
        np.matmul(third.T, error, out=behind_third)
        np.matmul(behind_third, first.T, out=by_second)
        np.matmul(second.T, behind_third, out=by_first)
        for W, gradient in ((first, by_first), (second, by_second), (third, by_third)):
            descend(W, gradient)
        return loss

    seconds = []  # the first step counts, as it does in ours
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    print(json.dumps({"width": width, "step_seconds": statistics.mean(seconds), "kernel": kernel()}))


def kernel():
    """The OpenBLAS kernel in this process, if there is one."""
    try:
        name = ctypes.CDLL("libopenblas.so.0").openblas_get_corename
    except (OSError, AttributeError):
        return "unknown"
    name.restype = ctypes.c_char_p
    return name().decode()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 60)
