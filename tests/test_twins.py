"""Twins: small networks in lockstep with the large one, against the theorem and against an independent computation."""
from pathlib import Path

import h5py
import numpy as np
import pytest

import formula
from drawing import draw_here
from same import assert_same, file_differences

RANKS = [1, 2, 4]
SQUARE = """
data: {{kind: low_rank_matrix, rows: 30, cols: 30, rank: 3}}
model: {{width: 30, depth: 3, activation: linear}}
train: {{{train}}}
twins: [{{kind: compressed, every: {every}}}]
"""


def check(finished, code=0):
    assert finished.returncode == code, finished.stdout + finished.stderr


def series(finished, name):
    """A quantity by its path, "compressed/loss"."""
    with h5py.File(finished.dir / "metrics.h5") as file:
        return file[name][()]


def assert_checks_hold(finished, count):
    with h5py.File(finished.dir / "metrics.h5") as file:
        passed = file["checks/passed"][()]
    assert len(passed) == count and passed.all(), finished.stdout


# ---------------------------------------------------------------- acceptance table
@pytest.mark.parametrize("ranks", RANKS)
def test_theorem(run, ranks):
    """dln_thm: gap and difference of the losses are those of the recursion at all steps."""
    done = run(SQUARE.format(train="lr: 1, steps: 50", every=1), ranks=ranks)
    check(done)
    gap = series(done, "compressed/comp_gap_sq")
    np.testing.assert_allclose(gap[-1], 17.74956911, rtol=1e-8)
    np.testing.assert_allclose(gap, series(done, "compressed/comp_gap_sq_pred"), rtol=1e-10)
    assert np.nanmax(series(done, "compressed/block_error")) < 1e-12
    rho = np.empty(51)
    rho[0] = 1
    for t in range(50):
        rho[t + 1] = rho[t] - rho[t] ** 5 / 900
    difference = series(done, "train/loss") - series(done, "compressed/loss")
    np.testing.assert_allclose(difference, 24 * rho ** 6 / 1800, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(difference, series(done, "compressed/loss_difference"))
    np.testing.assert_allclose(series(done, "compressed/loss_difference_pred"), 24 * rho ** 6 / 1800, rtol=1e-12)
    assert (series(done, "compressed/block_dim") == 6).all()
    assert_checks_hold(done, 3)


@pytest.mark.parametrize("train,expected", [
    ("lr: 1, weight_decay: 1e-3, steps: 500", 0.4333240745),
    ("lr: 1, optimizer: momentum, momentum: 0.9, steps: 50", 3.813576929),
], ids=["decay", "momentum"])
def test_decay_and_momentum(run, train, expected):
    done = run(SQUARE.format(train=train, every=10), ranks=2)
    check(done)
    np.testing.assert_allclose(series(done, "compressed/comp_gap_sq")[-1], expected, rtol=1e-8)
    assert np.nanmax(series(done, "compressed/block_error")) < 1e-12
    assert_checks_hold(done, 3)


@pytest.mark.parametrize("ranks,steps", [(1, 300), (2, 800), (4, 300), pytest.param(2, 2000, marks=pytest.mark.slow)])
def test_few_outputs(run, tmp_path, ranks, steps):
    """dln_few_outputs: both networks are the same map."""
    rng = np.random.default_rng(5)
    X = np.linalg.qr(rng.standard_normal((300, 300)))[0][:30]
    formula.write_data(tmp_path / "data.h5", rng.standard_normal((3, 300)), X)
    done = run(f"""
data: {{kind: hdf5, file: {tmp_path}/data.h5}}
model: {{width: 30, depth: 3, activation: linear}}
loss: {{reduction: sum}}
train: {{lr: 0.02, weight_decay: 0.01, steps: {steps}}}
twins: [{{kind: compressed, every: 20}}]
""", ranks=ranks)
    check(done)
    with h5py.File(done.dir / "metrics.h5") as file:
        assert file["compressed"].attrs["case"] in ("outputs", b"outputs")
        assert np.nanmax(file["compressed/comp_gap_max"]) < 1e-11
        assert np.nanmax(file["compressed/block_error"]) < 1e-12
    difference = series(done, "compressed/loss_difference")
    assert np.nanmax(abs(difference)) < 1e-11
    assert_checks_hold(done, 3)


@pytest.mark.parametrize("ranks", RANKS)
def test_diagonal(run, tmp_path, ranks):
    """dln_diag: left and right spaces of the target meet, three directions move."""
    formula.write_weights(tmp_path / "init.h5", [0.5 * np.eye(8)] * 3)
    formula.write_data(tmp_path / "data.h5", np.diag([3.0, 2, 1, 0, 0, 0, 0, 0]))
    done = run(f"""
data: {{kind: hdf5, file: {tmp_path}/data.h5}}
model: {{width: 8, depth: 3, activation: linear, init: {{kind: file, file: {tmp_path}/init.h5}}}}
loss: {{reduction: sum}}
train: {{lr: 0.01, steps: 100}}
twins: [{{kind: compressed, rank: 3, every: 50}}]
""", ranks=ranks)
    check(done)
    np.testing.assert_allclose(series(done, "train/loss")[-1], 0.1692646647225, rtol=1e-9)
    np.testing.assert_allclose(series(done, "compressed/comp_gap_sq")[-1], 5.587826967e-2, rtol=1e-9)
    assert series(done, "compressed/block_dim")[-1] == 3
    assert_checks_hold(done, 3)


@pytest.mark.slow
def test_small_start(run):
    """dln_equiv_small: the loss of the large network ends where the scalars hold it, that of the small one does not."""
    done = run("""
data: {kind: low_rank_matrix, rows: 100, cols: 100, rank: 5}
model: {width: 100, depth: 3, activation: linear, init: {scale: 0.01}}
train: {lr: 50, steps: 6000}
twins: [{kind: compressed, every: 100}]
""")
    check(done)
    np.testing.assert_allclose(series(done, "compressed/comp_gap_sq")[-1], 8.99998380e-11, rtol=1e-7)
    np.testing.assert_allclose(series(done, "train/loss")[-1], 8.99998380e-11 / 2e4, rtol=0.05)
    assert series(done, "compressed/loss")[-1] < 5e-16
    assert_checks_hold(done, 3)


@pytest.mark.slow
def test_nothing_is_gathered(run):
    """Width 4096 on 2 ranks: with a twin a rank holds less than 2 whole layers more, all of it its half of some matrix."""
    text = """
data: {kind: low_rank_matrix, rows: 4096, cols: 4096, rank: 10, spectrum: given, singular_values: [9, 9, 8, 8, 7, 7, 6, 6, 5, 5]}
model: {width: 4096, depth: 2, activation: linear, init: {kind: householder}}
loss: {reduction: sum}
train: {lr: 1e-3, steps: 1, evaluate_every: 1000}
checkpoint: {end: false}
"""
    alone, beside = run(text, ranks=2, timeout=600), run(text + "twins: [{kind: compressed}]\n", ranks=2, timeout=600)
    check(alone)
    check(beside)
    assert_checks_hold(beside, 3)
    peaks = []
    for done in (alone, beside):
        with h5py.File(done.dir / "metrics.h5") as file:
            peaks.append(file["timing"].attrs["peak_memory_bytes"])
    assert peaks[1] - peaks[0] < 2 * 8 * 4096 ** 2, peaks


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_completion_needs_moving_outer_factors(run, seed):
    """dln_mc_small: the frozen compressed network stalls, with γ = 0.1 it recovers the target."""
    done = run(f"""
run: {{seed: {seed}}}
data: {{kind: matrix_completion, rows: 100, cols: 100, rank: 5, observed: 0.3}}
model: {{width: 100, depth: 3, activation: linear, init: {{scale: 0.01}}}}
loss: {{kind: masked_mse}}
train: {{lr: 50, steps: 9000}}
twins:
  - {{kind: compressed, name: frozen, every: 9000}}
  - {{kind: compressed, name: moving, every: 9000, outer_lr: 0.1, tolerance: 1e-11}}
""")
    check(done)
    assert series(done, "frozen/recovery_error")[-1] > 1e-2
    assert series(done, "moving/recovery_error")[-1] < 1e-8
    assert 4500 < series(done, "moving/network_its_to_tol")[-1] < series(done, "moving/its_to_tol")[-1]


@pytest.mark.slow
def test_bases_of_the_target_save_steps(run):
    """cdln_mc: a network between the leading singular vectors of what is observed learns faster than the large one."""
    done = run("""
data: {kind: matrix_completion, rows: 100, cols: 100, rank: 5, observed: 0.3, spectrum: spread}
model: {width: 100, depth: 3, activation: linear, init: {scale: 0.01}}
loss: {kind: masked_mse, reduction: observed}
train: {lr: 10, steps: 16000, tolerance: 1e-11}
twins: [{kind: compressed, basis: target, outer_lr: 5, every: 16000}]
""")
    check(done)
    assert series(done, "compressed/its_to_tol")[-1] < 0.6 * series(done, "compressed/network_its_to_tol")[-1]


# ---------------------------------------------------------------- formula inputs: all digits, and an independent program
def write_square(folder, scale=1.0):
    """The start and the target of dln_formula_sq, scaled."""
    weights = [scale * formula.orth(30, 30, layer) for layer in (1, 2, 3)]
    target = formula.target(30, [3, 2, 1])
    formula.write_weights(folder / "init.h5", weights)
    formula.write_data(folder / "data.h5", target)
    return weights, target


def square_input(folder, twins, train="lr: 0.02, steps: 50", more=""):
    return f"""
data: {{kind: hdf5, file: {folder}/data.h5}}
model: {{width: 30, depth: 3, activation: linear, init: {{kind: file, file: {folder}/init.h5}}{more}}}
loss: {{reduction: sum}}
train: {{{train}}}
snapshot: {{every: end}}
twins: [{twins}]
"""


def descend(weights, rates, target, lr, steps, alpha=1.0):
    """Plain gradient descent of a deep linear network on ½‖α W_L … W_1 − Φ‖²: the losses of all steps, and the weights."""
    weights = [W.copy() for W in weights]
    losses = []
    for _ in range(steps + 1):
        below = [np.eye(target.shape[1])]
        for W in weights:
            below.append(W @ below[-1])
        error = alpha * below[-1] - target
        losses.append(0.5 * (error ** 2).sum())
        if len(losses) > steps:
            break
        gradients, D = [], alpha * error
        for W, a in zip(weights[::-1], below[-2::-1]):
            gradients.append(D @ a.T)
            D = W.T @ D
        weights = [W - lr * rate * G for W, G, rate in zip(weights, gradients[::-1], rates)]
    return np.array(losses), weights


def law(weights, target, rank, gradient=False):
    """Bases of the law, by the specification's construction."""
    epsilon = [np.linalg.norm(W) / np.sqrt(min(W.shape)) for W in weights]
    if gradient:
        rest = np.linalg.multi_dot(weights[::-1]) - target
        U, _, Vt = np.linalg.svd(np.linalg.multi_dot(weights[:0:-1]).T @ rest)
        back = weights[0].T @ U[:, :rank] / epsilon[0]
    else:
        U, _, Vt = np.linalg.svd(target)
        back = np.linalg.multi_dot(weights[::-1]).T @ U[:, :rank] / np.prod(epsilon)
    left, sigma, _ = np.linalg.svd(np.hstack([Vt[:rank].T, back]), full_matrices=False)
    V = [left[:, sigma > 1e-8]]
    for W, scale in zip(weights, epsilon):
        V.append(W @ V[-1] / scale)
    return V, epsilon


@pytest.mark.parametrize("ranks", RANKS)
def test_formula(run, tmp_path, ranks):
    weights, target = write_square(tmp_path)
    done = run(square_input(tmp_path, "{kind: compressed, rank: 3}"), ranks=ranks)
    check(done)
    loss = series(done, "compressed/loss")
    np.testing.assert_allclose(loss[50], 0.2273708364512, rtol=1e-8)
    V, epsilon = law(weights, target, 3)
    small = [V[0].T, *(scale * np.eye(6) for scale in epsilon), V[3]]
    np.testing.assert_allclose(loss, descend(small, [0, 1, 1, 1, 0], target, 0.02, 50)[0], rtol=1e-10)
    assert_checks_hold(done, 3)


@pytest.mark.parametrize("case", ["square", "gradient"])
def test_trained_outer_factors(run, tmp_path, case):
    """γ > 0, from the target or from the first gradient: a trajectory of its own, that of an independent computation."""
    weights, target = write_square(tmp_path, 0.5)
    done = run(square_input(tmp_path, f"{{kind: compressed, rank: 3, case: {case}, outer_lr: 0.25}}"), ranks=2)
    check(done)
    V, epsilon = law(weights, target, 3, gradient=case == "gradient")
    losses, _ = descend([V[0].T, *(scale * np.eye(6) for scale in epsilon), V[3]], [0.25, 1, 1, 1, 0.25], target, 0.02, 50)
    np.testing.assert_allclose(series(done, "compressed/loss"), losses, rtol=1e-9)
    assert np.isnan(series(done, "compressed/comp_gap_sq_pred")).all()  # no theorem, no check
    with h5py.File(done.dir / "metrics.h5") as file:
        assert "checks" not in file


def test_gradient_case_is_the_same_space(run, tmp_path):
    """With the whole target the first gradient shows the same subspaces: the twins of both cases agree."""
    write_square(tmp_path)
    done = run(square_input(tmp_path, "{kind: compressed, rank: 3, case: square, name: a},"
                                      "{kind: compressed, rank: 3, case: gradient, name: b}"), ranks=2)
    check(done)
    np.testing.assert_allclose(series(done, "a/loss"), series(done, "b/loss"), rtol=1e-10)
    assert series(done, "b/block_error").max() < 1e-11


def test_scale_of_the_output(run, tmp_path):
    """f = α W_L … W_1 X: gap and losses follow the recursion with α²/s."""
    weights, target = write_square(tmp_path)
    done = run(square_input(tmp_path, "{kind: compressed, rank: 3}", train="lr: 0.01, steps: 40", more=", output_scale: 1.5"))
    check(done)
    losses, _ = descend(weights, [1, 1, 1], target, 0.01, 40, alpha=1.5)
    np.testing.assert_allclose(series(done, "train/loss"), losses, rtol=1e-10)
    assert_checks_hold(done, 3)


def test_layers_of_unequal_rates(run, tmp_path):
    """Frozen layers and multipliers of the learning rate apply to the blocks as to the layers."""
    weights, target = write_square(tmp_path)
    done = run(square_input(tmp_path, "{kind: compressed, rank: 3}", more=", lr_multiplier: [1, 0.5, 2], trainable: [1, 3]"))
    check(done)
    np.testing.assert_allclose(series(done, "train/loss"), descend(weights, [1, 0, 2], target, 0.02, 50)[0], rtol=1e-10)
    assert_checks_hold(done, 3)


def test_basis_of_the_target(run, tmp_path):
    """The small network starts from leading singular vectors of the target and has an outer step of its own."""
    weights, target = write_square(tmp_path, 0.5)
    target = target + 0.1 * formula.target(30, [1, 1, 1, 0.8, 0.6, 0.4])
    formula.write_data(tmp_path / "data.h5", target)
    done = run(square_input(tmp_path, "{kind: compressed, rank: 3, basis: target, outer_lr: 1.5}"), ranks=2)
    check(done)
    U, _, Vt = np.linalg.svd(target)
    losses, _ = descend([0.5 * Vt[:6], 0.5 * np.eye(6), 0.5 * U[:, :6]], [1.5, 1, 1.5], target, 0.02, 50)
    np.testing.assert_allclose(series(done, "compressed/loss"), losses, rtol=1e-9)


# ---------------------------------------------------------------- narrow networks
NARROW = """
run: {{seed: {seed}}}
data: {{kind: hdf5, file: {folder}/data.h5}}
model: {{widths: [30, 40, 40, 30], activation: linear, init: {{scale: 0.5}}}}
train: {{lr: 3, steps: 8}}
twins: [{{kind: narrow, width: 5}}, {{kind: narrow, name: second, rank: 2}}]
snapshot: {{every: 8}}
"""


def test_narrow(run, tmp_path):
    """Random orthogonal layers of their own, the same on every grid; then gradient descent."""
    _, target = write_square(tmp_path)
    runs = {ranks: run(NARROW.format(seed=3, folder=tmp_path), ranks=ranks) for ranks in RANKS}
    other = run(NARROW.format(seed=4, folder=tmp_path))
    for done in (*runs.values(), other):
        check(done)
    for ranks in RANKS:
        np.testing.assert_allclose(series(runs[ranks], "narrow/loss"), series(runs[1], "narrow/loss"), rtol=1e-11)
    assert series(other, "narrow/loss")[0] != series(runs[1], "narrow/loss")[0]
    with h5py.File(runs[2].dir / "snapshots/step_000000000.h5") as file:
        weights = [file[f"narrow/W{layer}"][()] for layer in (1, 2, 3)]
        assert [file[f"second/W{layer}"].shape for layer in (1, 2, 3)] == [(4, 30), (4, 4), (30, 4)]
        assert not np.allclose(file["W1"][:5], weights[0])
    np.testing.assert_allclose(weights[0] @ weights[0].T, 0.25 * np.eye(5), atol=1e-14)
    np.testing.assert_allclose(weights[2].T @ weights[2], 0.25 * np.eye(5), atol=1e-14)
    losses, after = descend(weights, [1, 1, 1], target, 3 / target.size, 8)
    np.testing.assert_allclose(series(runs[2], "narrow/loss"), losses / target.size, rtol=1e-11)
    with h5py.File(runs[2].dir / "snapshots/step_000000008.h5") as file:
        for layer in (1, 2, 3):
            np.testing.assert_allclose(file[f"narrow/W{layer}"], after[layer - 1], atol=1e-12)


# ---------------------------------------------------------------- lockstep
CURVED = """
data: {{kind: gaussian, features: 13, outputs: 4, train: 60, targets: classes}}
model: {{width: 17, depth: 4, bias: true, activation: tanh, residual: pairs}}
loss: {{kind: cross_entropy}}
train: {{optimizer: adam, lr: 0.01, batch: 16, steps: 23, evaluate_every: 5}}
probes: [{{kind: spectrum, every: 4, rank: full}}]
snapshot: {{every: 8}}
checkpoint: {{every: 6}}
{twins}
"""
CURVED_TWINS = "twins: [{kind: narrow, width: 6, every: 4}, {kind: narrow, width: 3, name: thin}]"
LINEAR = """
data: {{kind: low_rank_matrix, rows: 20, cols: 20, rank: 2}}
model: {{width: 20, depth: 3, activation: linear, init: {{scale: 0.5}}}}
train: {{optimizer: momentum, lr: 0.5, steps: 23, evaluate_every: 5}}
snapshot: {{every: 8}}
checkpoint: {{every: 6}}
{twins}
"""
LINEAR_TWINS = """twins:
  - {kind: compressed, every: 4}
  - {kind: compressed, name: slow, outer_lr: 0.1, case: gradient, tolerance: 0.1}
  - {kind: compressed, name: target, basis: target, outer_lr: 2}
  - {kind: narrow, width: 5}
"""
CASES = [(CURVED, CURVED_TWINS, 1), (LINEAR, LINEAR_TWINS, 2), (CURVED, CURVED_TWINS, 2), (LINEAR, LINEAR_TWINS, 1)]


@pytest.mark.parametrize("text,twins,ranks", [pytest.param(*case, id=f"{name}-{case[2]}", marks=marks) for case, name, marks in zip(
    CASES, ["curved", "linear"] * 2, [(), (), pytest.mark.slow, pytest.mark.slow])])
def test_lockstep(run, tmp_path, text, twins, ranks):
    """The large network does not feel the twins, and a run that is interrupted goes on with the same bits of both."""
    check(run(text.format(twins=twins), ranks=ranks, args=["--out", "whole"]))
    check(run(text.format(twins=""), ranks=ranks, args=["--out", "alone"]))
    for name in ("metrics.h5", "snapshots/step_000000023.h5"):
        different = file_differences(tmp_path / "alone" / name, tmp_path / "whole" / name)
        assert not [each for each in different if each.split("/")[0] in ("train", "spectrum", "W1", "W2", "W3", "W4")]
    for stop in (6, 15, 23):  # at a checkpoint, elsewhere, the end
        sets = ["--set", f"train.steps={stop}"] if stop < 23 else []
        check(run(text.format(twins=twins), ranks=ranks, args=["--out", "pieces", "--resume", *sets]))
    assert_same(tmp_path / "whole", tmp_path / "pieces")


def test_rows(run):
    """A row at every `every` steps, at evaluations, where only the comparison is left out, and at the end."""
    done = run(LINEAR.format(twins="twins: [{kind: compressed, every: 8}]"))
    check(done)
    step = series(done, "compressed/step")
    assert step.tolist() == [0, 5, 8, 10, 15, 16, 20, 23]
    compared = np.isfinite(series(done, "compressed/comp_gap_sq"))
    assert step[compared].tolist() == [0, 8, 16, 23]
    assert np.isfinite(series(done, "compressed/loss")).all()


def test_tolerance(run):
    """A twin below its tolerance stays as it is; when the large network gets there is noted as well."""
    done = run("""
data: {kind: low_rank_matrix, rows: 20, cols: 20, rank: 2}
model: {width: 20, depth: 3, activation: linear, init: {scale: 0.5}}
train: {lr: 8, steps: 60}
twins: [{kind: compressed, tolerance: 1e-3}, {kind: compressed, name: free}]
""", ranks=2)
    check(done)
    free, large, stopped = (series(done, f"{name}/loss") for name in ("free", "train", "compressed"))
    reached = int(np.argmax(free < 1e-3))
    assert 0 < reached < 60
    np.testing.assert_array_equal(stopped, free[np.minimum(np.arange(61), reached)])
    step = series(done, "compressed/its_to_tol")
    assert np.isnan(step[:reached]).all() and (step[reached:] == reached).all()
    assert series(done, "compressed/network_its_to_tol")[-1] == np.argmax(large < 1e-3)
    assert np.isfinite(series(done, "compressed/comp_gap_sq")).sum() == reached + 1  # a moving target is no comparison
    assert np.isnan(series(done, "free/its_to_tol")).all()
    assert series(done, "timing/twin_steps").tolist() == [reached, 60]
    for name in ("twin_time_to_tol", "network_time_to_tol"):
        assert np.isfinite(series(done, f"timing/{name}")).tolist() == [True, False]
    for name in ("twin", "network"):
        assert 0 < series(done, f"timing/{name}_time_to_tol")[0]
    assert series(done, "timing/twin_time_to_tol")[0] == series(done, "timing/twin_seconds")[0]
    assert_checks_hold(done, 6)


def test_a_twin_that_diverges(run):
    """It is left behind with a warning; the run goes on."""
    done = run(LINEAR.format(twins="twins: [{kind: compressed, outer_lr: 1e9}]"))
    check(done)
    assert "twin compressed has diverged at step" in done.stderr
    assert np.isfinite(series(done, "train/loss")).all() and not np.isfinite(series(done, "compressed/loss")[-1])


def test_recovery_and_figures(run):
    """Matrix completion: the error of what is not observed, and all that is drawn of it."""
    done = run("""
data: {kind: matrix_completion, rows: 20, cols: 20, rank: 2, observed: 0.5}
model: {width: 20, depth: 3, activation: linear, init: {scale: 0.1}}
loss: {kind: masked_mse}
train: {lr: 10, steps: 40, evaluate_every: 10}
twins: [{kind: compressed, outer_lr: 0.1, every: 20}, {kind: narrow}, {kind: compressed, name: target, basis: target, outer_lr: 5}]
snapshot: {every: 8}
""", ranks=2)
    check(done)
    for name in ("compressed", "narrow", "target"):
        error = series(done, f"{name}/recovery_error")
        assert np.isfinite(error).all() and error[-1] < error[0]
    with h5py.File(done.dir / "metrics.h5") as file:
        assert file["compressed"].attrs["case"] in ("gradient", b"gradient")
    drawn = draw_here("plot", done.dir)
    assert (drawn.returncode, drawn.stderr) == (0, "")
    assert sorted(Path(line).stem for line in drawn.stdout.splitlines()) == ["compressed", "training", "twins", "twins_trajectory"]


# ---------------------------------------------------------------- inputs that cannot be
BAD = {
    "{kind: compressed}": "twins[0].rank: give the rank r of the target",
    "{kind: compressed, rank: 3, case: square, name: a}": "twins[1].case: 'square' needs layers of equal width",
    "{kind: compressed, rank: 10, case: gradient, name: b}": "twins[2].rank: is 10, but 2r must be smaller than the width, 20",
    "{kind: compressed, rank: 3, case: gradient, name: c}": "twins[3].case: 'gradient' needs widths that don't decrease, but n_3 = 20 "
                                                          "is followed by n_4 = 12",
    "{kind: narrow, name: d}": "twins[4].rank: give it: it does not follow from the data",
    "{kind: narrow, width: 3, name: spectrum}": "twins[5].name: 'spectrum' is taken or not allowed",
    "{kind: narrow, width: 3, name: a}": "twins[6].name: 'a' is taken or not allowed",
    "{kind: compressed, rank: 7, basis: target, name: e}": "twins[7].rank: is 7, but the target has only 12 singular vectors, not 2r",
}


def test_bad_inputs(run):
    """All of them at once."""
    done = run(f"""
data: {{kind: gaussian, features: 20, outputs: 12, train: 30}}
model: {{width: 20, depth: 4, activation: linear}}
train: {{steps: 2}}
probes: [{{kind: spectrum}}]
twins: [{", ".join(BAD)}]
""")
    check(done, 2)
    for message in BAD.values():
        assert done.stderr.count(message) == 1, done.stderr


@pytest.mark.parametrize("model", ["activation: tanh", "activation: linear, residual: scaled"])
def test_only_linear_networks_can_be_compressed(run, model):
    done = run(f"""
data: {{kind: low_rank_matrix, rows: 9, cols: 9, rank: 1}}
model: {{width: 9, depth: 3, {model}}}
twins: [{{kind: compressed}}, {{kind: compressed, basis: target, name: b}}]
""")
    check(done, 2)
    assert done.stderr.count("without bias and residual connections can be compressed") == 2, done.stderr


# ---------------------------------------------------------------- leading vectors
@pytest.mark.parametrize("ranks", RANKS)
def test_top_alignment(run, tmp_path, ranks):
    """Of both networks, from their weights; NaN at the start, where all singular values of a layer are equal."""
    target = formula.target(30, [3, 2, 1])
    formula.write_data(tmp_path / "data.h5", target)
    done = run(f"""
data: {{kind: hdf5, file: {tmp_path}/data.h5}}
model: {{width: 30, depth: 3, activation: linear, init: {{scale: 0.1}}}}
train: {{lr: 5, steps: 80}}
twins: [{{kind: compressed, basis: target, rank: 3, outer_lr: 0.5, every: 80}}]
snapshot: {{every: end}}
""", ranks=ranks)
    check(done)
    U, _, Vt = np.linalg.svd(target)
    with h5py.File(done.dir / "snapshots/step_000000080.h5") as file:
        weights = {name: [file[f"{group}W{l}"][()] for l in (1, 3)]
                   for name, group in (("top_alignment", "compressed/"), ("network_top_alignment", ""))}
    for name, (first, last) in weights.items():
        expected = [abs(np.linalg.svd(last)[0][:, 0] @ U[:, 0]), abs(np.linalg.svd(first)[2][0] @ Vt[0])]
        values = series(done, f"compressed/{name}")
        assert np.isnan(values[0]).all()
        np.testing.assert_allclose(values[-1], expected, rtol=1e-8)
