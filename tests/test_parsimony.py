"""The law of parsimony: the acceptance table of its specification."""
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


# ---------------------------------------------------------------- the theorem along the training
THEOREM = """
data: {{kind: low_rank_matrix, rows: 30, cols: 30, rank: 3}}
run: {{seed: {seed}}}
model: {{width: 30, depth: 3, activation: linear, init: {{kind: orthogonal, scale: 1}}}}
train: {{lr: 1, {train}}}
probes: [{{kind: invariant, every: {every}, full: true}}]
"""
OUTPUTS = """
data: {kind: gaussian, features: 30, outputs: 3, train: 300, whiten: true}
model: {width: 30, depth: 3, activation: linear, init: {kind: orthogonal, scale: 1}}
loss: {reduction: sum}
train: {lr: 0.02, weight_decay: 0.01, steps: 2000}
probes: [{kind: invariant, every: 100, full: true}]
"""
# The specification's values of rho at the end: they depend on no draw.
CASES = {
    "dln_thm": (THEOREM.format(seed=3, train="steps: 50", every=1), 0.950961122110, 3),
    "dln_thm_decay": (THEOREM.format(seed=1, train="steps: 500, weight_decay: 1e-3", every=20), 0.512192949623, 3),
    "dln_momentum": (THEOREM.format(seed=2, train="steps: 50, optimizer: momentum", every=5), 0.735958871806, 3),
    "dln_few_outputs": (OUTPUTS, 0.670293230195, 2),
}


def checks(finished):
    """{what is checked: passed} of the theory checks."""
    with h5py.File(finished.dir / "metrics.h5") as file:
        return dict(zip(file["checks/name"].asstr()[()], file["checks/passed"][()]))


@pytest.mark.parametrize("ranks, block", [(1, 64), (2, 7), (4, 3)])
@pytest.mark.parametrize("case", CASES)
def test_the_theorem(run, case, ranks, block):
    text, rho, layers = CASES[case]
    done = run(text + f"grid: {{block: {block}}}\n", ranks=ranks)
    check(done)
    measured = series(done, "invariant/rho")
    np.testing.assert_allclose(measured[-1], np.full(layers, rho), rtol=0, atol=1e-10)
    np.testing.assert_allclose(measured, series(done, "invariant/rho_theory"), rtol=0, atol=1e-12)
    assert series(done, "invariant/residual").max() < 1e-12
    assert (series(done, "invariant/multiplicity")[1:] == 24).all()
    assert (series(done, "invariant/block_order") == 6).all()
    # With many steps the moving values may come near the others, and then the vectors mix by rounding over distance.
    assert series(done, "invariant/angle_moving")[1:].max() < 1e-7
    if case == "dln_few_outputs":
        assert series(done, "invariant/leak_last").max() < 1e-12
    found = checks(done)
    assert len(found) == (4 if case == "dln_few_outputs" else 3) and all(found.values()), found


def test_rectangular_is_not_square(run):
    done = run(CASES["dln_thm"][0].replace("rows: 30", "rows: 20").replace("full: true", "case: square"))
    check(done, 2)
    assert "probes[0].case: 'square' needs layers of equal width, inputs and outputs too" in done.stderr


def test_inexact_cases_have_no_theory(run):
    """Adam and inputs that are not white: the blocks are measured, nothing is claimed."""
    for text in (CASES["dln_thm"][0].replace("steps: 50", "optimizer: adam, steps: 5").replace("lr: 1,", "lr: 1e-2,"),
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
        text = CASES["dln_momentum"][0].replace("every: 5", f"every: 5, case: {case}")
        check(run(text, ranks=2, args=["--out", f"whole-{case}"]))
        check(run(text, ranks=2, args=["--out", f"pieces-{case}", "--set", "train.steps=13"]))
        check(run(text, ranks=2, args=["--out", f"pieces-{case}", "--resume"]))
        assert_same(tmp_path / f"whole-{case}", tmp_path / f"pieces-{case}")
