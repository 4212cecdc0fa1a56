#!/usr/bin/env python3
"""Writes density_known.h5, the data of density_known.yaml: X = √N diag(√s), so that the Hessian of the regression is diag(s)."""
import h5py
import numpy as np


def share_above(phi):
    """Share of the law of Marchenko and Pastur of ratio 1/4 and scale 1 above 1.25 + cos(phi)."""
    a = 1.25
    inner = np.arctan2(np.sqrt((a - 1) / (a + 1)) * np.sin(phi / 2), np.cos(phi / 2))
    return 2 / np.pi * (a * phi - np.sin(phi) - 2 * np.sqrt(a * a - 1) * inner)


def known_spectrum():
    """5, 4, 3 and the quantiles (i + 1/2)/1000."""
    low, high, wanted = np.zeros(1000), np.full(1000, np.pi), 1 - (np.arange(1000) + 0.5) / 1000
    for _ in range(60):
        middle = (low + high) / 2
        above = share_above(middle) > wanted
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return np.concatenate([[5, 4, 3], 1.25 + np.cos(low)])


def main():
    s = known_spectrum()
    with h5py.File("density_known.h5", "w") as file:
        file["X"] = np.sqrt(len(s)) * np.diag(np.sqrt(s))
        file["Y"] = np.zeros((1, len(s)))


if __name__ == "__main__":
    main()
