"""The training step of bench_step in PyTorch: GELU, depth 4, width = batch, squared loss, float64, gradient descent.

    python3 peer_torch.py WIDTH [REPEATS]     prints one JSON object
"""
import ctypes
import json
import statistics
import sys
import time

import torch


def main(width, repeats):
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(2)
    torch.manual_seed(1)
    x, y = torch.randn(width, width), torch.randn(width, width)
    weights = [torch.nn.init.orthogonal_(torch.empty(width, width)).requires_grad_() for _ in range(4)]

    def step():
        a = x
        for w in weights[:-1]:
            a = torch.nn.functional.gelu(w @ a)
        loss = 0.5 * ((weights[-1] @ a - y) ** 2).mean()
        loss.backward()
        with torch.no_grad():
            for w in weights:
                w -= 1e-6 * w.grad
                w.grad = None
        return loss

    step()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    print(json.dumps({"width": width, "step_seconds": statistics.median(seconds), "kernel": kernel(),
                      "version": torch.__version__}))


def kernel():
    """The OpenBLAS kernel in this process, if there is one."""
    try:
        name = ctypes.CDLL("libopenblas.so.0").openblas_get_corename
    except (OSError, AttributeError):
        return "unknown"
    name.restype = ctypes.c_char_p
    return name().decode()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 9)
