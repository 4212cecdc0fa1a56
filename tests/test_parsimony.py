"""The law of parsimony: matrices without random numbers, what has no theory, restart. The acceptance table of its specification
that needs the shipped inputs is in test_parsimony_inputs.py."""
import h5py
import numpy as np
import pytest

import formula
from same import assert_same

RANKS = [1, 2, 4]


def check(finished, code=0):
    assert finished.returncode == code, finished.stdout + finished.stderr


def series(finished, name):
    """A quantity by its path, "train/loss"."""
    with h5py.File(finished.dir / "metrics.h5") as file:
        return file[name][()]


# ---------------------------------------------------------------- formula inputs: all digits
@pytest.mark.parametrize("ranks", RANKS)
def test_formula_square(run, tmp_path, ranks):
    formula.write_weights(tmp_path / "init.h5", [formula.orth(30, 30, layer) for layer in (1, 2, 3)])
    formula.write_data(tmp_path / "data.h5", formula.target(30, [3, 2, 1]))
    done = run(f"""
data: {{kind: hdf5, file: {tmp_path}/data.h5}}
model: {{width: 30, depth: 3, activation: linear, init: {{kind: file, file: {tmp_path}/init.h5}}}}
loss: {{reduction: sum}}
train: {{lr: 0.02, steps: 50}}
probes: [{{kind: spectrum, every: 50, rank: full}}]
""", ranks=ranks)
    check(done)
    np.testing.assert_allclose(series(done, "train/loss")[[10, 50]], [8.318519060467, 1.274640806055], rtol=1e-8)
    sigma = series(done, "spectrum/singular_value")[-1, 0]
    np.testing.assert_allclose(sigma[:3], [1.4422373816, 1.2505580218, 0.9278340213], rtol=1e-8)
    np.testing.assert_allclose(sigma[-3:], [0.6448629255, 0.6147546364, 0.5754127888], rtol=1e-8)


@pytest.mark.parametrize("ranks", RANKS)
def test_formula_outputs(run, tmp_path, ranks):
    X, Y = formula.classes(30, 300, 3)
    shapes = [(30, 30), (30, 30), (3, 30)]
    formula.write_weights(tmp_path / "init.h5", [0.5 * formula.orth(*shape, layer) for layer, shape in enumerate(shapes, 1)])
    formula.write_data(tmp_path / "data.h5", Y, X)
    done = run(f"""
data: {{kind: hdf5, file: {tmp_path}/data.h5}}
model: {{width: 30, depth: 3, activation: linear, init: {{kind: file, file: {tmp_path}/init.h5}}}}
loss: {{reduction: sum}}
train: {{lr: 0.01, weight_decay: 0.01, steps: 300}}
probes: [{{kind: spectrum, every: 300, rank: full}}]
""", ranks=ranks)
    check(done)
    np.testing.assert_allclose(series(done, "train/loss")[[10, 100]], [139.834170048938, 3.008568548224], rtol=1e-8)
    sigma = series(done, "spectrum/singular_value")[-1]
    np.testing.assert_allclose(sigma[0, :3], [2.1603180380, 2.1532625786, 2.1447200601], rtol=1e-8)
    np.testing.assert_allclose(sigma[0, 27:], [0.4429557987, 0.4206582610, 0.3877359981], rtol=1e-8)
    np.testing.assert_allclose(sigma[2, :3], [2.1435435167, 2.1355261822, 2.1327992232], rtol=1e-8)


# ---------------------------------------------------------------- the probe beside the theorem
SQUARE = """
data: {kind: low_rank_matrix, rows: 30, cols: 30, rank: 3}
model: {width: 30, depth: 3, activation: linear, init: {kind: orthogonal, scale: 1}}
train: {lr: 1, steps: 50}
probes: [{kind: invariant, every: 5, full: true}]
"""
MOMENTUM = SQUARE.replace("steps: 50", "steps: 50, optimizer: momentum")
OUTPUTS = """
data: {kind: gaussian, features: 30, outputs: 3, train: 300, whiten: true}
model: {width: 30, depth: 3, activation: linear, init: {kind: orthogonal, scale: 1}}
loss: {reduction: sum}
train: {lr: 0.02, weight_decay: 0.01, steps: 2000}
probes: [{kind: invariant, every: 100, full: true}]
"""


def test_rectangular_is_not_square(run):
    done = run(SQUARE.replace("rows: 30", "rows: 20").replace("full: true", "case: square"))
    check(done, 2)
    assert "probes[0].case: 'square' needs layers of equal width, inputs and outputs too" in done.stderr


def test_inexact_cases_have_no_theory(run):
    """Adam and inputs that are not white: the blocks are measured, nothing is claimed."""
    for text in (SQUARE.replace("lr: 1, steps: 50", "lr: 1e-2, optimizer: adam, steps: 5"),
                 OUTPUTS.replace("whiten: true", "whiten: false").replace("2000", "5").replace("lr: 0.02", "lr: 1e-4")):
        done = run(text)
        check(done)
        assert np.isnan(series(done, "invariant/rho_theory")).all()
        assert np.isfinite(series(done, "invariant/rho")[0]).all()
        with h5py.File(done.dir / "metrics.h5") as file:
            assert "checks" not in file and file["invariant"].attrs["exact"] == "false"


def test_restart(run, tmp_path):
    """Subspaces, scalars and reference vectors survive: the gradient's subspace is known at the start only."""
    for case in ("auto", "gradient"):
        text = MOMENTUM.replace("every: 5", f"every: 5, case: {case}")
        check(run(text, ranks=2, args=["--out", f"whole-{case}"]))
        check(run(text, ranks=2, args=["--out", f"pieces-{case}", "--set", "train.steps=13"]))
        check(run(text, ranks=2, args=["--out", f"pieces-{case}", "--resume"]))
        assert_same(tmp_path / f"whole-{case}", tmp_path / f"pieces-{case}")
