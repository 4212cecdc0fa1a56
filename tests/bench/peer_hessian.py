"""The Hessian of bench_hessian in PyTorch: a gradient, a product by double backward with the graph kept, and SciPy's
eigsh on such products; or power iteration with deflation.

    python3 peer_hessian.py START.h5 RANK TOLERANCE [power]     prints one JSON object
"""
import gzip
import json
from pathlib import Path
import statistics
import sys
import time

import h5py
import numpy as np
from scipy.sparse.linalg import LinearOperator, eigsh
import torch

from peer_torch import kernel

IMAGES = Path("/usr/share/datasets/fashion-mnist")
SAMPLES = 2000


def read(name, head, size):
    with gzip.open(IMAGES / name) as file:
        return np.frombuffer(file.read(head + SAMPLES * size), np.uint8, offset=head)


def load(path):
    """Inputs as rows, labels, weights."""
    x = torch.tensor(read("train-images-idx3-ubyte.gz", 16, 784).reshape(SAMPLES, 784) / 255.0)
    y = torch.tensor(read("train-labels-idx1-ubyte.gz", 8, 1).astype(np.int64))
    with h5py.File(path) as file:
        weights = [torch.tensor(file[f"W{l}"][()]).requires_grad_() for l in (1, 2, 3)]
    return x, y, weights


class Hessian:
    """Products with the graph of the gradient kept between them."""

    def __init__(self, path):
        self.x, self.y, self.weights = load(path)
        self.sizes = [w.numel() for w in self.weights]
        gradient = torch.autograd.grad(self.loss(), self.weights, create_graph=True)
        self.gradient = torch.cat([g.reshape(-1) for g in gradient])
        self.products = 0

    def loss(self):
        a = self.x
        for w in self.weights[:-1]:
            a = torch.tanh(a @ w.T)
        return torch.nn.functional.cross_entropy(a @ self.weights[-1].T, self.y)

    def take_gradient(self):
        torch.autograd.grad(self.loss(), self.weights)

    def multiply(self, v):
        self.products += 1
        parts = torch.autograd.grad(self.gradient, self.weights, torch.as_tensor(v), retain_graph=True)
        return torch.cat([p.reshape(-1) for p in parts])


def median_seconds(work, repeats=7):
    work()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def lanczos(hessian, rank, tolerance):
    """Seconds, products and eigenvalues."""
    n = sum(hessian.sizes)
    operator = LinearOperator((n, n), matvec=lambda v: hessian.multiply(v.ravel()).numpy(), dtype=float)
    hessian.products, start = 0, time.perf_counter()
    values = eigsh(operator, rank, which="LA", tol=tolerance, v0=np.random.default_rng(1).standard_normal(n))[0]
    return time.perf_counter() - start, hessian.products, np.sort(values)[::-1]


def power(hessian, rank, tolerance, most=100):
    """Power iteration with deflation as common tools have it: by the change of the value; largest in magnitude."""
    n, found = sum(hessian.sizes), []
    hessian.products, start = 0, time.perf_counter()
    for i in range(rank):
        v = torch.tensor(np.random.default_rng(i).standard_normal(n))
        value = None
        for _ in range(most):
            for u in found:
                v = v - (u @ v) * u
            v = v / v.norm()
            w = hessian.multiply(v)
            last, value = value, float(v @ w)
            if last is not None and abs(value - last) <= tolerance * abs(value):
                break
            v = w
        found.append(v / v.norm())
    return time.perf_counter() - start, hessian.products


def main(path, rank, tolerance, with_power):
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(2)
    hessian = Hessian(path)
    if with_power:
        seconds, products = power(hessian, rank, tolerance)
        print(json.dumps({"solve_seconds": seconds, "products": products}))
        return
    v = torch.randn(sum(hessian.sizes))
    answer = {"gradient_seconds": median_seconds(hessian.take_gradient),
              "product_seconds": median_seconds(lambda: hessian.multiply(v)), "kernel": kernel()}
    seconds, products, values = lanczos(hessian, rank, tolerance)
    print(json.dumps(answer | {"solve_seconds": seconds, "products": products, "lambda_1": values[0],
                               "lambda_10": values[-1]}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), "power" in sys.argv[4:])
