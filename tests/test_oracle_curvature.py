"""Is the oracle of curvature matrices right? The reference case of the specification. Needs no program and no MPI."""
import numpy as np
import pytest

import oracle
import oracle_curvature


def ref_unit(seed, m, n):
    """splitmix64 started at `seed`, to uniform numbers of unit variance, by rows."""
    mask, values = (1 << 64) - 1, []
    for e in range(m * n):
        x = (seed + (e + 1) * 0x9E3779B97F4A7C15) & mask
        x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ x >> 27) * 0x94D049BB133111EB) & mask
        values.append(np.sqrt(3.0) * (2 * ((x ^ x >> 31) >> 11) * 2.0**-53 - 1))
    return np.array(values).reshape(m, n)


class Samples:
    M = A = None

    def __init__(self):
        classes = np.arange(24) % 3
        self.X = ref_unit(601, 6, 24) + ref_unit(602, 6, 3)[:, classes]
        self.Y = np.eye(3)[:, classes]


@pytest.mark.parametrize("activation, loss, hessian, ggn, g", [
    ("tanh", "cross_entropy", [1.735207202339, 1.571289092730], [1.547644638427, 1.240530744946],
     [2.996183511017, 2.387465675988]),
    ("relu", "cross_entropy", [2.333041775618, 2.141837403193], [], []),
    ("tanh", "mse", [4.887931429752], [5.311227222301], [9.450202794999]),
])
def test_reference_case(activation, loss, hessian, ggn, g):
    width = [6, 5, 4, 3]
    layers = [oracle.Layer(width[l], width[l + 1], activation if l < 2 else "linear", None, 1.0, True, 1.0)
              for l in range(3)]
    parameters = oracle.Parameters([ref_unit(611 + l, width[l + 1], width[l]) / np.sqrt(width[l]) for l in range(3)],
                                   [0.1 * ref_unit(631 + l, width[l + 1], 1) for l in range(3)])
    case = (loss, "samples", 1.0), layers, parameters, Samples()
    for matrix, expected in ((oracle_curvature.dense_hessian, hessian), (oracle_curvature.dense_ggn, ggn),
                             (oracle_curvature.dense_g, g)):
        values = np.linalg.eigvalsh(matrix(*case))[::-1]
        assert np.allclose(values[:len(expected)], expected, rtol=0, atol=1e-9)
