"""Quantities of the probe `spectrum` that the specification of curvature operators adds: counts and alignment of layers."""
import h5py
import numpy as np
import pytest

import formula
from test_density import check, reference_case, series


@pytest.mark.parametrize("ranks", [1, 4])
def test_reference_case(run, tmp_path, ranks):
    done = run(f"grid: {{block: 2}}\n{reference_case(tmp_path)[1]}train: {{steps: 0}}\nprobes:\n"
               "  - {kind: spectrum, rank: 5}\n  - {kind: spectrum, name: all, rank: full}\n", ranks=ranks)
    check(done)
    found, full = series(done, "spectrum"), series(done, "all")
    # By NumPy; the specification has 0.476151197998 for the second, a digit off.
    np.testing.assert_allclose(found["layer_alignment"][0], [0.437049580170, 0.476151398004], rtol=0, atol=1e-9)
    for values in (found, full):
        np.testing.assert_allclose(values["effective_rank"][0], [3.93924276147, 3.22454035047, 2.52127178807], rtol=1e-10)
        np.testing.assert_allclose(values["effective_rank_share"][0], values["effective_rank"][0] / [5, 4, 3], rtol=1e-14)
    assert "layer_alignment" not in full


def test_given_values(run, tmp_path):
    """sigma = (4, 2, 1, 1): the count is decided by the value that passes nine tenths."""
    Q = formula.cosines(4)
    formula.write_weights(tmp_path / "init.h5", [Q @ np.diag([4, 2, 1, 1]) @ formula.hartley(4), formula.orth(3, 4, 1)])
    done = run(f"""
data: {{kind: gaussian, features: 4, outputs: 3, train: 8}}
model: {{widths: [4, 4, 3], init: {{kind: file, file: {tmp_path}/init.h5}}}}
train: {{steps: 0}}
probes: [{{kind: spectrum, rank: full}}]
""", ranks=2)
    check(done)
    found = series(done, "spectrum")
    np.testing.assert_allclose(found["effective_rank"][0], [2**1.75, 3], rtol=1e-12)
    assert list(found["sv_count"][0]) == [4, 3]
    np.testing.assert_allclose(found["stable_rank"][0], [1.375, 3], rtol=1e-12)


@pytest.mark.parametrize("ranks", [1, 3])
def test_alignment_of_ten(run, ranks):
    """Against NumPy, of the first ten vectors where there are more, and nothing where fewer are measured."""
    done = run("""
data: {kind: gaussian, features: 14, outputs: 12, train: 8}
model: {widths: [14, 13, 15, 12], init: {kind: gaussian}}
train: {steps: 0}
probes: [{kind: spectrum, rank: 11}, {kind: spectrum, name: few, rank: 9}]
snapshot: {every: end}
""", ranks=ranks)
    check(done)
    with h5py.File(done.dir / "snapshots/step_000000000.h5") as file:
        svd = [np.linalg.svd(file[f"W{l}"][()]) for l in (1, 2, 3)]
    wanted = [np.abs(np.einsum("in,ni->i", above[2][:10], below[0][:, :10])).mean() for below, above in zip(svd, svd[1:])]
    np.testing.assert_allclose(series(done, "spectrum")["layer_alignment"][0], wanted, rtol=1e-7)
    assert np.isnan(series(done, "few")["layer_alignment"]).all() and np.isnan(series(done, "few")["sv_count"]).all()
