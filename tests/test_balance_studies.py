"""The probe `balance` in the shipped studies of training invariances, run to their end (acceptance table of the specification), and
its figures."""
from pathlib import Path
import subprocess
import sys

import numpy as np
import pytest
import yaml

from test_balance import DIAGONAL, FULL, STABLE, all_hold, relu_case, relu_text
from test_density import check, series

INPUTS = Path(__file__).resolve().parent.parent / "inputs" / "invariances"


@pytest.fixture
def shipped(run, tmp_path):
    """shipped(name, ranks=1, **settings): the first member of inputs/invariances/NAME.yaml."""
    def start(name, ranks=1, **settings):
        subprocess.run([sys.executable, INPUTS / "reference.py"], cwd=tmp_path, check=True)
        spec = yaml.safe_load((INPUTS / f"{name}.yaml").read_text(encoding="utf-8"))
        spec.pop("sweep", None)
        spec["probes"] = [probe for probe in spec["probes"] if probe["kind"] == "balance"]
        sets = [word for key, value in settings.items() for word in ("--set", f"{key.replace('__', '.')}={value}")]
        done = run(yaml.safe_dump(spec), ranks=ranks, args=sets, timeout=300)
        check(done)
        all_hold(done)
        return series(done, "balance"), series(done, "train")["loss"]
    return start


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_linear_flow_to_the_end(shipped, ranks):
    """To t = 1110: published and derived bounds, at every record."""
    found, loss = shipped("linear_flow", ranks=ranks)
    assert found["time"][-1] == pytest.approx(1110) and loss[-1] == pytest.approx(4.313006e-5, rel=1e-6)
    np.testing.assert_allclose(found["rank_defect"][-1], [2.983977, 1.604343, 0], rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(found["spectral_ratio"][-1], [0.8779046, 0.9250756, 1], rtol=1e-6)
    np.testing.assert_allclose(found["alignment"][-1], [0.997941, 0.998362], rtol=1e-6)
    np.testing.assert_allclose(found["alignment_bound_flow"][-1], [0.225659, 0.311647], rtol=1e-5)
    assert found["invariance_drift"].max() < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("lr, expected", [(0.05, 5.710e-3), (0.025, 2.855e-3)])
def test_norm_spread(shipped, lr, expected):
    found, _ = shipped("equal_norm", train__lr=lr, train__steps=round(500 / lr))
    assert found["norm_spread"][-1] == pytest.approx(expected, rel=1e-2)
    assert found["jt_constant"][-1] == pytest.approx(1.226472, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("file, always", [("relu_positive", [2, 0]), ("relu_centred", [0, 0])])
def test_always_on(shipped, file, always):
    """Neurons that are open at every one of 20 000 steps; the stable set of centred data is empty."""
    path = f"invariances/{file}.h5"
    found, loss = shipped("relu_positive", data__file=path, model__init__file=path)
    assert loss[1000] == pytest.approx(3.785774e-4 if always[0] else 3.418458e-4, rel=1e-4)
    assert list(found["always_on"][-1, :2, 1]) == always
    empty = np.array(always) == 0
    assert np.array_equal(np.isnan(found["invariance_drift"][-1, :2, STABLE]), empty)
    assert np.array_equal(found["interface_flag"][-1, :2] & 4 > 0, empty)
    stable = found["stable_block_ratio"][-1, :2]
    assert np.isnan(stable[1]) and np.isnan(stable[0]) == empty[0]


@pytest.mark.slow
def test_fashion_two_classes(shipped):
    found, loss = shipped("fashion_two_classes")
    assert loss[-1] == pytest.approx(4.89e-5, rel=2e-3)
    np.testing.assert_allclose(found["spectral_ratio"][-1, 2:], [0.502, 0.622, 1], atol=1e-3)
    np.testing.assert_allclose(found["rank_defect_bound"][-1, 2:], [35.95, 17.14, 0], atol=1e-2)
    np.testing.assert_allclose(found["invariance_drift"][-1, :2, FULL], [0.22, 0.37], atol=5e-3)
    np.testing.assert_allclose(found["invariance_drift"][-1, :2, DIAGONAL], [3.6e-3, 9.6e-4], rtol=2e-2)
    assert list(found["always_on"][-1, :2, 1]) == [3, 1]


def test_figures(run, tmp_path):
    """One of each kind, of a network with gates."""
    relu_case(tmp_path)
    done = run(relu_text(steps=60, every=10))
    check(done)
    plotted = subprocess.run([sys.executable, INPUTS.parent.parent / "postprocess" / "plot.py", done.dir], capture_output=True, text=True)
    assert plotted.returncode == 0, plotted.stderr
    names = {path.stem for path in (done.dir / "figures").glob("balance*.png")}
    assert names == {"balance", "balance_rank", "balance_alignment", "balance_gates", "balance_matrix"}
