#!/usr/bin/env python3
"""What mlp_momentum.yaml should come to, without eigentrain: the same training in NumPy from random starts of its own.

    python3 mlp_momentum.py [DRAWS]

prints, for each member, mean and standard deviation over the draws (five) of the loss at T = 10 and of the largest drift of
|out|² − |in|² − b² over the neurons of the first and of the second hidden layer.
Single precision is enough for that.
"""
import gzip
from pathlib import Path
import sys

import numpy as np

IMAGES = 300
WIDTHS = [784, 512, 256, 10]
FOLDER = Path("/usr/share/datasets/fashion-mnist")
T = 10
# (μ, δ); descent by δ itself where μ = 0
MEMBERS = [(0, 0.02), (0.5, 0.02), (2.5, 0.02), (5, 0.02), *((0, 10 / 150 * share) for share in (0.25, 0.5, 1, 1.25))]


def images():
    """Inputs between −1 and 1, one a column, and their classes."""
    file, = FOLDER.glob("train-images*")
    labels, = FOLDER.glob("train-labels*")
    with gzip.open(file) as stream:
        X = np.frombuffer(stream.read(16 + 784 * IMAGES)[16:], np.uint8).reshape(IMAGES, 784).T / np.float32(127.5) - 1
    with gzip.open(labels) as stream:
        return X, np.frombuffer(stream.read(8 + IMAGES)[8:], np.uint8)


def start(random):
    """Weights and biases uniform in ±1/√fan_in, a bias as one more column."""
    return [(random.uniform(-1, 1, (m, n + 1)) / np.sqrt(n)).astype(np.float32) for n, m in zip(WIDTHS, WIDTHS[1:])]


def with_ones(A):
    return np.vstack([A, np.ones(A.shape[1], A.dtype)])


def gradient(W, X, classes):
    """Mean cross-entropy and its gradients."""
    inputs = [with_ones(X)]
    for V in W[:-1]:
        inputs.append(with_ones(np.maximum(V @ inputs[-1], 0)))
    F = W[-1] @ inputs[-1]
    F -= F.max(axis=0)
    share = np.exp(F) / np.exp(F).sum(axis=0)
    loss = -np.log(share[classes, np.arange(len(classes))]).mean()
    share[classes, np.arange(len(classes))] -= 1
    D, gradients = share / np.float32(len(classes)), []
    for V, A in zip(W[::-1], inputs[::-1]):
        gradients.append(D @ A.T)
        D = (V[:, :-1].T @ D) * (A[:-1] > 0)
    return loss, gradients[::-1]


def laws(W):
    """|out|² − |in|² − b² of each hidden neuron."""
    W = [V.astype(float) for V in W]
    return [(V[:, :-1] ** 2).sum(axis=0) - (U ** 2).sum(axis=1) for U, V in zip(W, W[1:])]


def train(W, X, classes, mu, delta):
    """m ← βm + (1 − β)g, θ ← θ − δm, β = μ/(δ + μ). Returns the loss at the end and the drifts."""
    beta, first = mu / (delta + mu), laws(W)
    m = [np.zeros_like(V) for V in W]
    for _ in range(round(T / delta)):
        _, g = gradient(W, X, classes)
        m = [np.float32(beta) * old + np.float32(1 - beta) * new for old, new in zip(m, g)]
        W = [V - np.float32(delta) * step for V, step in zip(W, m)]
    return [gradient(W, X, classes)[0], *(abs(now - then).max() for now, then in zip(laws(W), first))]


def main():
    draws = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    X, classes = images()
    for mu, delta in MEMBERS:
        ends = np.array([train(start(np.random.default_rng(draw)), X, classes, mu, delta) for draw in range(draws)])
        deviations = ends.std(axis=0, ddof=min(1, draws - 1))
        numbers = "   ".join(f"{mean:.4g} ± {deviation:.2g}" for mean, deviation in zip(ends.mean(axis=0), deviations))
        print(f"μ = {mu:<4g} δ = {delta:<9.4g} loss, drift of layer 1, of layer 2:   {numbers}", flush=True)


if __name__ == "__main__":
    main()
