"""The law of parsimony: the acceptance table of its specification."""
import h5py
import numpy as np
import pytest

import formula

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
