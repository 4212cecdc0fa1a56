"""Quantities of the probe `spectrum` that the specification of curvature operators adds: counts and alignment of layers."""
from pathlib import Path
import sys

import h5py
import numpy as np
import pytest
import yaml

import formula
import oracle
from test_density import check, reference_case, series

POSTPROCESS = Path(__file__).resolve().parent.parent / "postprocess"
sys.path.insert(0, str(POSTPROCESS))
from draw.pruning import final_agreement  # noqa: E402
from drawing import draw_here  # noqa: E402
from runs import open_run  # noqa: E402


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


# ---------------------------------------------------------------- half of the singular triplets
@pytest.mark.parametrize("ranks", [1, 4])
def test_pruning(run, ranks):
    """Losses and accuracies of NumPy with the upper and the lower half of every layer's triplets."""
    text = """
grid: {block: 3}
data: {kind: gaussian, features: 7, outputs: 3, train: 20, test: 8, targets: classes}
model: {widths: [7, 9, 5, 3], activation: tanh, bias: true, init: {kind: gaussian}}
loss: {kind: cross_entropy}
train: {lr: 0.3, steps: 4}
probes: [{kind: pruning, every: 4}]
snapshot: {every: 4}
"""
    done = run(text, ranks=ranks)
    check(done)
    spec = yaml.safe_load(text)
    data, layers, found = oracle.load_data(spec), oracle.build_network(spec, 7, 3), series(done, "pruning")
    for row, step in enumerate((0, 4)):
        with h5py.File(done.dir / f"snapshots/step_{step:09d}.h5") as file:
            W, b = [file[f"W{l}"][()] for l in (1, 2, 3)], [file[f"b{l}"][()].reshape(-1, 1) for l in (1, 2, 3)]
        for half in (0, 1):
            parameters = oracle.Parameters([pruned(w, half) for w in W], b)
            for samples, prefix in ((data.train, "pruned_"), (data.test, "pruned_test_")):
                F = oracle.forward(layers, parameters, samples.X)[0][-1]
                log_share = F - F.max(axis=0) - np.log(np.exp(F - F.max(axis=0)).sum(axis=0))
                np.testing.assert_allclose(found[prefix + "loss"][row, half], -np.mean(np.sum(samples.Y * log_share, axis=0)),
                                           rtol=1e-10)
                right = np.mean(F.argmax(axis=0) == samples.Y.argmax(axis=0))
                np.testing.assert_allclose(found[prefix + "accuracy"][row, half], right, rtol=1e-12)


def pruned(W, half):
    U, s, Vt = np.linalg.svd(W, full_matrices=False)
    middle = (len(s) + 1) // 2
    keep = slice(0, middle) if half == 0 else slice(middle, None)
    return (U[:, keep] * s[keep]) @ Vt[keep]


def test_agreement_with_the_end(run, tmp_path):
    """Of the triplets in the snapshots, by the postprocessing: 1 at the end, and NumPy's diagonal before; it is drawn, too."""
    done = run("""
data: {kind: gaussian, features: 7, outputs: 3, train: 20, targets: classes}
model: {widths: [7, 6, 3], init: {kind: gaussian}}
loss: {kind: cross_entropy}
train: {lr: 0.5, steps: 30}
probes: [{kind: pruning, every: 10}]
snapshot: {every: 10}
""", ranks=2)
    check(done)
    steps, layers = final_agreement(open_run(done.dir))
    assert steps == [0, 10, 20, 30] and [values.shape for values in layers] == [(4, 6), (4, 3)]
    for l, values in enumerate(layers, 1):
        W = []
        for step in (10, 30):
            with h5py.File(done.dir / f"snapshots/step_{step:09d}.h5") as file:
                W.append(np.linalg.svd(file[f"W{l}"][()], full_matrices=False))
        (U, _, Vt), (U_end, _, Vt_end) = W
        np.testing.assert_allclose(values[1], np.abs(np.diag((U.T @ U_end) * (Vt @ Vt_end.T))), atol=1e-10)
        np.testing.assert_allclose(values[-1], 1, atol=1e-12)
    drawn = draw_here("plot", done.dir)
    assert "final_agreement.png" in drawn.stdout and "pruning.png" in drawn.stdout, drawn.stdout + drawn.stderr
