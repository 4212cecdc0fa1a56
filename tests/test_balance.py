"""The probe `balance`: what training conserves, its ledgers, gates, ranks and alignment, against plain NumPy and against the acceptance
tables of the specifications of training invariances and of intrinsic dynamics."""
from dataclasses import dataclass

import h5py
import numpy as np
import pytest

from formula import ref_data, ref_fill, ref_unit, ref_weights, write_data
from same import assert_same
from test_collapse import checks
from test_density import check, series

SLOW = pytest.mark.slow
GRIDS = [(1, 64), (2, 2), pytest.param(1, 3, marks=SLOW), pytest.param(4, 3, marks=SLOW), pytest.param(6, 2, marks=SLOW)]
FULL, DIAGONAL, STABLE, PAIRS = range(4)


# ---------------------------------------------------------------- the same network in NumPy
@dataclass
class Network:
    """Layers 1 … L, ReLU but for the last `head` ones; b holds None where there is no bias."""

    W: list
    b: list
    head: int = 1
    loss: str = "mse"

    def forward(self, X):
        """z_1 … z_L and a_0 … a_L."""
        z, a = [], [X]
        for k, (W, b) in enumerate(zip(self.W, self.b)):
            z.append(W @ a[-1] + (0 if b is None else b))
            a.append(z[-1] if k >= len(self.W) - self.head else np.maximum(z[-1], 0))
        return z, a

    def backward(self, X, Y):
        """Loss, gradients, and per layer (Δ, z, open gates)."""
        z, a = self.forward(X)
        N, f = X.shape[1], a[-1]
        if self.loss == "mse":
            value, E = np.sum((f - Y)**2) / (2 * N), (f - Y) / N
        elif self.loss == "logistic":
            value, E = np.mean(np.log1p(np.exp(-Y * f))), -Y / (1 + np.exp(Y * f)) / N
        else:
            p = np.exp(f - f.max(axis=0))
            p /= p.sum(axis=0)
            value, E = -np.mean(np.log(np.sum(p * Y, axis=0))), (p - Y) / N
        gW, gb, parts = [None] * len(self.W), [None] * len(self.W), [None] * len(self.W)
        for k in reversed(range(len(self.W))):
            gates = np.ones_like(E) if k >= len(self.W) - self.head else (z[k] > 0) * 1.0
            parts[k] = (E, z[k], gates)
            D = gates * E
            gW[k], gb[k] = D @ a[k].T, None if self.b[k] is None else D.sum(axis=1, keepdims=True)
            E = self.W[k].T @ D
        return value, gW, gb, parts

    def step(self, gW, gb, lr, decay=0.0):
        for k in range(len(self.W)):
            self.W[k] = (1 - lr * decay) * self.W[k] - lr * gW[k]
            if self.b[k] is not None:
                self.b[k] = (1 - lr * decay) * self.b[k] - lr * gb[k]


def law(W, b, k):
    """S_k between layers k + 1 and k + 2, k from 0."""
    S = W[k + 1].T @ W[k + 1] - W[k] @ W[k].T
    return S if b[k] is None else S - b[k] @ b[k].T


def gate_rate(part):
    """M = Δ (G∘Z)ᵀ − (G∘Δ) Zᵀ."""
    E, z, gates = part
    return E @ (gates * z).T - (gates * E) @ z.T


def sets_of(history):
    """Masks of the four sets of entries from the gates (n × N) of all steps so far."""
    n = len(history[0])
    rows = np.concatenate(history, axis=1)
    stable = rows.all(axis=1)
    equal = (rows[:, None, :] == rows[None, :, :]).all(axis=2) & ~np.eye(n, dtype=bool)
    return np.ones((n, n), bool), np.eye(n, dtype=bool), np.outer(stable, stable), equal


def leading(W):
    U, sigma, Vt = np.linalg.svd(W)
    return sigma, U[:, 0], Vt[0]


def expected_layers(net):
    sigmas = [leading(W)[0] for W in net.W]
    return {"spectral_ratio": [s[0] / np.linalg.norm(s) for s in sigmas], "rank_defect": [np.sum(s[1:]**2) for s in sigmas],
            "spectral_gap": [s[1] / s[0] if len(s) > 1 else 0 for s in sigmas],
            "stable_rank": [np.sum(s**2) / s[0]**2 for s in sigmas],
            "rank1_distance": [np.sqrt(max(0, 2 - 2 * s[0] / np.linalg.norm(s))) for s in sigmas],
            "frobenius_norm": [np.linalg.norm(s) for s in sigmas]}


def alignments(net):
    return [(leading(above)[2] @ leading(below)[1])**2 for below, above in zip(net.W, net.W[1:])]


def by_numpy(net, X, Y, lr, steps, every, decay=0.0):
    """{name: rows} of what the probe should record of gd with gates looked at before every step."""
    start = [law(net.W, net.b, k) for k in range(len(net.W) - 1)]
    history, rows, flips = [[] for _ in net.W], [], np.zeros(len(net.W))
    for step in range(steps + 1):
        value, gW, gb, parts = net.backward(X, Y)
        for k, part in enumerate(parts):
            if history[k]:
                flips[k] += np.sum(history[k][-1] != (part[2] > 0))
            history[k].append(part[2] > 0)
        if step % every == 0 or step == steps:
            drift = [law(net.W, net.b, k) - start[k] for k in range(len(start))]
            masks = [sets_of(history[k]) for k in range(len(start))]
            rows.append({"loss": value, **expected_layers(net), "alignment": alignments(net), "all_gate_flips": flips.copy(),
                         "invariance_drift": [[np.abs(D[m]).max() if m.any() else np.nan for m in mask]
                                              for D, mask in zip(drift, masks)],
                         "invariance_drift_norm": [[np.linalg.norm(D[m]) if m.any() else np.nan for m in mask]
                                                   for D, mask in zip(drift, masks)],
                         "invariance_rate": [np.abs(gate_rate(p) + gate_rate(p).T).max() for p in parts[:-1]],
                         "always_on": [[h[-1].all(axis=1).sum(), np.all(h, axis=(0, 2)).sum()] for h in history],
                         "always_off": [[(~h[-1]).all(axis=1).sum(), (~np.any(h, axis=(0, 2))).sum()] for h in history],
                         "drift_matrix": drift})
        net.step(gW, gb, lr, decay)
    return {name: [row[name] for row in rows] for name in rows[0]}


# ---------------------------------------------------------------- runs of the program
def write_case(folder, X, Y, W, b=None):
    write_data(folder / "data.h5", Y, X)
    with h5py.File(folder / "start.h5", "w") as file:
        for k, matrix in enumerate(W, 1):
            file[f"W{k}"] = matrix
        for k, vector in enumerate(b or [], 1):
            if vector is not None:
                file[f"b{k}"] = vector


def text(widths, *, model="", loss="{kind: mse, reduction: samples}", train="", probe="", block=64, targets="values", more=""):
    return f"""
grid: {{block: {block}}}
data: {{kind: hdf5, file: data.h5, targets: {targets}}}
model: {{widths: {list(widths)}, init: {{kind: file, file: start.h5}}{model}}}
loss: {loss}
train: {{{train}}}
probes: [{{kind: balance{probe}}}]
{more}
"""


def classes(X, count):
    i = np.arange(X.shape[1])
    return np.eye(count)[:, (3 * i + i // 4) % count]


def relu_case(folder):
    """`relu_ledger`: 8-12-6-4, biases in the hidden layers."""
    shapes = [(12, 8), (6, 12), (4, 6)]
    W = [ref_unit(111 + k, m, n) / np.sqrt(n) for k, (m, n) in enumerate(shapes, 1)]
    b = [0.1 * ref_unit(131 + k, m, 1) for k, (m, _) in enumerate(shapes[:2], 1)] + [None]
    X = ref_unit(111, 8, 40)
    Y = classes(X, 4)
    write_case(folder, X, Y, W, b)
    return X, Y, Network(W, b, loss="cross_entropy")


def relu_text(steps=500, every=50, **keys):
    probe = keys.pop("probe", "")
    return text([8, 12, 6, 4], model=", activation: relu, bias: true, head_bias: false", loss="{kind: cross_entropy}",
                targets="classes", train=f"lr: 0.1, steps: {steps}" + keys.pop("train", ""),
                probe=f", every: {every}" + probe, **keys)


def linear_case(folder):
    """`ledger`: 4-5-6-3 with cross-entropy."""
    shapes = [(5, 4), (6, 5), (3, 6)]
    W = [ref_unit(41 + k, m, n) / np.sqrt(n) for k, (m, n) in enumerate(shapes, 1)]
    X = ref_unit(41, 4, 20)
    write_case(folder, X, classes(X, 3), W)


def linear_text(**keys):
    return text([4, 5, 6, 3], model=", activation: linear", loss="{kind: cross_entropy}", targets="classes", **keys)


def all_hold(finished):
    found = checks(finished)
    assert found and all(row[3] for row in found), found
    return {row[0].split(": ")[1]: row[1] for row in found}


# ---------------------------------------------------------------- ReLU networks
@pytest.mark.parametrize("ranks, block", GRIDS)
def test_relu_ledger(run, tmp_path, ranks, block):
    """Every quantity of a network whose gates flip thousands of times; the ledger is exact whichever way it is kept."""
    X, Y, net = relu_case(tmp_path)
    done = run(relu_text(block=block, probe=", ledger: samples}, {kind: balance, name: cheap, every: 50"), ranks=ranks)
    check(done)
    all_hold(done)
    found, expected = series(done, "balance"), by_numpy(net, X, Y, 0.1, 500, 50)
    loss = series(done, "train")["loss"]
    assert loss[0] == pytest.approx(1.411954580867, abs=1e-12) and loss[-1] == pytest.approx(0.1666681, abs=1e-7)
    assert np.nansum(found["all_gate_flips"][-1]) == 6612
    for name in ("ledger_residual", "rate_residual"):
        assert found[name].max() < 2e-14
    assert series(done, "cheap")["ledger_residual"].max() < 2e-14
    for name, values in expected.items():
        values = np.array(values) if name != "drift_matrix" else values
        if name == "loss":
            np.testing.assert_allclose(loss[::50], values, rtol=1e-10)
        elif name == "drift_matrix":
            for row, matrices in zip(found[name], values):
                for k, D in enumerate(matrices):
                    np.testing.assert_allclose(row[k, :len(D), :len(D)], D, atol=1e-11)
        elif name in ("always_on", "always_off", "all_gate_flips"):
            assert np.array_equal(found[name][:, :2], values[:, :2]) and np.isnan(found[name][:, 2]).all()
        else:
            np.testing.assert_allclose(found[name], values, rtol=1e-9, atol=1e-12)


def test_minibatches_and_microbatches(run, tmp_path):
    """Gates over all samples, the ledger over those of the step; chunks make no difference but rounding."""
    relu_case(tmp_path)
    given = relu_text(steps=40, every=8, block=2, train=", optimizer: sgd, batch: 10", probe=", ledger: samples, gates: step")
    whole, chunks = run(given, ranks=2), run(given.replace("steps: 40", "steps: 40, microbatch: 4"), ranks=2)
    for done in (whole, chunks):
        check(done)
        all_hold(done)
    a, b = series(whole, "balance"), series(chunks, "balance")
    assert a["ledger_residual"].max() < 1e-14 and a["always_on"].shape == (6, 3, 2)
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-9, atol=1e-13, err_msg=name)
    seldom = run(given.replace("gates: step", "gates: measurement"), ranks=1)
    found = series(seldom, "balance")
    assert np.array_equal(found["always_on"][:, :2, 0], a["always_on"][:, :2, 0])
    assert np.nansum(found["all_gate_flips"][-1]) < np.nansum(a["all_gate_flips"][-1])


@pytest.mark.parametrize("ranks", [pytest.param(1, marks=SLOW), 2])
def test_resumed_runs_have_the_same_bits(run, tmp_path, ranks):
    relu_case(tmp_path)
    given = relu_text(steps=30, every=7, block=3, probe=", ledger: samples",
                      more="snapshot: {every: 10}\ncheckpoint: {every: 5}")
    check(run(given, ranks=ranks, args=["--out", "whole"]))
    for stop in (12, 21, 30):
        check(run(given, ranks=ranks, args=["--out", "pieces", "--resume", "--set", f"train.steps={stop}"]))
    assert_same(tmp_path / "whole", tmp_path / "pieces")
    if ranks > 1:  # on another grid: the same gates, and numbers to rounding
        check(run(given, ranks=ranks, args=["--out", "other", "--set", "train.steps=12"]))
        done = run(given, ranks=1, args=["--out", "other", "--resume", "--set", "grid.block=2"])
        check(done)
        done.dir = tmp_path / "whole"
        whole = series(done, "balance")
        done.dir = tmp_path / "other"
        for name, values in series(done, "balance").items():
            np.testing.assert_allclose(values, whole[name], rtol=1e-9, atol=1e-13, err_msg=name)


# ---------------------------------------------------------------- linear networks
@pytest.mark.parametrize("ranks, block", GRIDS)
def test_linear_ledger(run, tmp_path, ranks, block):
    """`ledger`, cross-entropy: drift of first order in the step, exact ledgers, conserved column sums."""
    linear_case(tmp_path)
    done = run(linear_text(train="lr: 0.02, steps: 50", probe=", every: 10", block=block), ranks=ranks)
    check(done)
    all_hold(done)
    found, loss = series(done, "balance"), series(done, "train")["loss"]
    assert loss[0] == pytest.approx(1.326188654186, abs=1e-9) and loss[-1] == pytest.approx(0.9315584930, abs=1e-9)
    np.testing.assert_allclose(found["invariance_drift_norm"][-1, :, FULL], [2.418960829e-3, 4.173531194e-3], rtol=1e-7)
    assert found["ledger_residual"].max() < 1e-14 and found["column_sum_drift"].max() < 1e-14
    assert np.array_equal(found["law"][0], [3, 3]) and found["rate_residual"].max() < 1e-15
    np.testing.assert_array_equal(found["invariance_drift"][..., STABLE], found["invariance_drift"][..., FULL])
    assert np.all(found["invariance_drift_norm"][..., FULL] <= found["drift_bound"] + 1e-15)
    assert np.all(found["rank_defect"] <= found["rank_defect_bound"] + 1e-10)


def test_squared_loss_ledger(run, tmp_path):
    X = ref_unit(41, 3, 6)
    write_case(tmp_path, X, ref_unit(91, 4, 6), [ref_unit(42, 5, 3) / np.sqrt(3), ref_unit(43, 4, 5) / np.sqrt(5)])
    done = run(text([3, 5, 4], model=", activation: linear", train="lr: 0.02, steps: 50"), ranks=2)
    check(done)
    all_hold(done)
    found, loss = series(done, "balance"), series(done, "train")["loss"]
    assert loss[0] == pytest.approx(4.326807540461, abs=1e-9) and loss[-1] == pytest.approx(0.9593644699, abs=1e-9)
    assert found["invariance_drift_norm"][-1, 0, FULL] == pytest.approx(4.067554693e-2, rel=1e-7)


def test_order_of_the_drift(run, tmp_path):
    """Of one step: η²; at a fixed time: η."""
    linear_case(tmp_path)
    one, fixed = [], []
    for lr, steps in ((0.02, 50), (0.01, 100)):
        done = run(linear_text(train=f"lr: {lr}, steps: {steps}", probe=", every: 1"))
        drift = series(done, "balance")["invariance_drift"][:, :, FULL]
        one.append(drift[1])
        fixed.append(drift[-1])
    np.testing.assert_allclose(one[0] / one[1], 4, atol=0.01)
    np.testing.assert_allclose(fixed[0] / fixed[1], 2.01, atol=0.1)


@pytest.mark.parametrize("train", ["lr: 0.02, steps: 60, weight_decay: 0.03", "lr: 0.05, steps: 60, optimizer: sgd, batch: 5",
                                   "lr: 0.05, steps: 60, optimizer: sgd, batch: 7, weight_decay: 0.1"])
def test_ledgers_with_decay_and_batches(run, tmp_path, train):
    linear_case(tmp_path)
    done = run(linear_text(train=train, block=2), ranks=2)
    check(done)
    held = all_hold(done)
    found = series(done, "balance")
    assert found["ledger_residual"].max() < 1e-14 and held["matrices S equal their ledgers"] < 1e-14
    decays = "decay" in train
    assert np.isnan(found["drift_bound"]).all() == decays and np.isnan(found["column_sum_drift"]).all() == decays
    assert np.all((found["flag"] & 16 > 0) == decays)


@pytest.mark.parametrize("ranks", [1, pytest.param(4, marks=SLOW)])
def test_momentum_law(run, tmp_path, ranks):
    """S drifts, A stays at zero, column sums stay; no ledger."""
    linear_case(tmp_path)
    done = run(linear_text(train="optimizer: momentum, momentum: 0.8, lr: 0.02, steps: 60, weight_decay: 0.0", block=2), ranks=ranks)
    check(done)
    held = all_hold(done)
    found = series(done, "balance")
    assert held["momentum keeps A at zero"] < 1e-15 and found["momentum_law_residual"].max() < 1e-15
    assert found["invariance_drift"][-1, :, FULL].min() > 1e-3 and np.isnan(found["ledger_residual"]).all()
    assert np.all(found["interface_flag"] & 1) and not np.any(found["interface_flag"] & 16)
    assert found["column_sum_drift"].max() < 1e-13


def test_other_rules_have_no_laws(run, tmp_path):
    linear_case(tmp_path)
    done = run(linear_text(train="optimizer: adam, lr: 0.01, steps: 20"))
    check(done)
    found = series(done, "balance")
    for name in ("ledger_residual", "momentum_law_residual", "column_sum_drift", "drift_bound"):
        assert np.isnan(found[name]).all(), name
    assert np.all(found["interface_flag"] & 17 == 17) and np.all(found["flag"] & 16)


# ---------------------------------------------------------------- heads, margins, directions
def separable_case(folder, widths, samples, data, weights, scale, head):
    """ref_data and ref_weights, with the sign of the last layer that makes the risk at the start at most that of f = 0."""
    X, y = ref_data(data, widths[0], samples)
    W = ref_weights(weights, widths, scale)
    net = Network(W, [None] * len(W), head=head, loss="logistic")
    if net.backward(X, y)[0] > np.log(2):
        W[-1] = -W[-1]
    write_case(folder, X, (y + 1) / 2, W)
    return X, y, net


def logistic_text(widths, **keys):
    return text(widths, loss="{kind: logistic}", **keys)


def margin(net, X, y):
    return (y * net.forward(X)[1][-1]).min() / np.prod([np.linalg.norm(W) for W in net.W])


@pytest.mark.parametrize("ranks, block", [(1, 64), pytest.param(4, 3, marks=SLOW)])
def test_relu_head(run, tmp_path, ranks, block):
    """`relu_head`: 1000 steps of its 20 000."""
    widths = [10, 16, 16, 12, 8, 1]
    X, y, net = separable_case(tmp_path, widths, 40, 61, 61, 1, head=3)
    done = run(logistic_text(widths, model=", activation: relu, linear_head: 3", train="lr: 0.05, steps: 1000",
                             probe=", every: 100", block=block), ranks=ranks)
    check(done)
    all_hold(done)
    found, loss = series(done, "balance"), series(done, "train")["loss"]
    assert loss[-1] == pytest.approx(7.232279e-4, rel=1e-5)
    np.testing.assert_allclose(found["rank_defect"][-1, 2:], [10.03223, 5.580508, 0], rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(found["spectral_ratio"][-1, 2:], [0.5973106, 0.7306015, 1], rtol=1e-5)
    assert found["jt_constant"][-1] == pytest.approx(16.07436, rel=1e-5)
    drift = found["invariance_drift"][-1]
    np.testing.assert_allclose(drift[2:, FULL], [6.334e-4, 1.4195e-3], rtol=1e-2)
    np.testing.assert_allclose(drift[:2, FULL], [0.437418, 0.782517], rtol=1e-2)
    np.testing.assert_allclose(drift[:2, DIAGONAL], [9.338e-4, 1.4665e-3], rtol=1e-2)
    assert found["ledger_residual"].max() < 1e-13
    assert np.array_equal(found["law"][-1], [2, 2, 3, 3]) and np.array_equal(found["layer_flag"][-1] & 4, [4, 4, 0, 0, 0])
    for _ in range(1000):
        _, gW, gb, _ = net.backward(X, y)
        net.step(gW, gb, 0.05)
    assert found["margin_normalised"][-1] == pytest.approx(margin(net, X, y), rel=1e-9)
    np.testing.assert_allclose(found["alignment"][-1], alignments(net), rtol=1e-9)


# ---------------------------------------------------------------- gradient flow
@pytest.mark.parametrize("ranks, block", [(1, 64), pytest.param(4, 2, marks=SLOW)])
def test_linear_flow(run, tmp_path, ranks, block):
    """`linear_flow` to t = 10: nothing drifts, and the published bounds hold."""
    widths = [5, 7, 6, 1]
    X, y, net = separable_case(tmp_path, widths, 20, 61, 61, 0.7, head=4)
    done = run(logistic_text(widths, model=", activation: linear", train="optimizer: gradient_flow, lr: 0.02, steps: 500",
                             probe=", every: 50", block=block), ranks=ranks)
    check(done)
    held = all_hold(done)
    assert {"rank defects below D, under the flow", "alignments above the bounds under the flow",
            "S is constant but for weight decay, under the flow"} <= held.keys()
    found, loss = series(done, "balance"), series(done, "train")["loss"]
    assert found["jt_constant"][0] == pytest.approx(5.2726002, rel=1e-7)
    np.testing.assert_allclose(found["rank_defect_bound"], np.tile([5.2726002, 2.2983238, 0], (11, 1)), rtol=1e-7, atol=1e-12)
    assert loss[-1] == pytest.approx(0.10680677, rel=1e-6)
    np.testing.assert_allclose(found["rank_defect"][-1], [2.931152, 1.602505, 0], rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(found["spectral_ratio"][-1], [0.7411366, 0.8078006, 1], rtol=1e-6)
    np.testing.assert_allclose(found["alignment"][-1], [0.980448, 0.983776], rtol=1e-6)
    assert found["invariance_drift"].max() < 1e-11 and found["norm_spread"].max() < 1e-11
    assert np.isnan(found["ledger_residual"]).all() and np.isnan(found["alignment_bound"]).sum() == 0


def test_decay_under_the_flow(run, tmp_path):
    """S(t) = e^(−2ωt) S(0)."""
    linear_case(tmp_path)
    done = run(linear_text(train="optimizer: gradient_flow, lr: 0.005, steps: 200, weight_decay: 0.3", probe=", every: 40"))
    check(done)
    all_hold(done)
    found = series(done, "balance")
    assert found["decayed_drift"].max() < 1e-10 and found["invariance_drift"][-1, :, FULL].min() > 0.1


def stable_case(folder, bias):
    """`relu_stable`: neurons 0, 1, 4, 5 are always open, 2 never, 3 and 6 are open on the same samples."""
    X, Y = ref_unit(71, 4, 5), ref_unit(72, 2, 5)
    X[0] += 3
    W = [0.3 * ref_unit(73, 7, 4), 0.3 * ref_unit(74, 2, 7)]
    W[0][[0, 1, 4, 5], 0] += 1
    W[0][2::4, 0] -= 2
    W[0][3::4, 0] = 0
    W[0][3::4] *= 3
    W[0][6] = 0.5 * W[0][3]
    b = [0.1 * ref_unit(75, 7, 1), None] if bias else [None, None]
    write_case(folder, X, Y, W, b)


@pytest.mark.parametrize("ranks, bias", [(1, False), (1, True),
                                         pytest.param(4, True, marks=SLOW)])
def test_relu_stable(run, tmp_path, ranks, bias):
    """Conserved where gates are equal, and nowhere else."""
    stable_case(tmp_path, bias)
    steps = 20000 if ranks > 1 or bias else 2000
    done = run(text([4, 7, 2], model=", activation: relu" + (", bias: true, head_bias: false" if bias else ""),
                    train=f"optimizer: gradient_flow, lr: {0.5 / steps}, steps: {steps}", block=2,
                    probe=f", every: {steps // 10}, gates: measurement"), ranks=ranks)
    check(done)
    found, loss = series(done, "balance"), series(done, "train")["loss"]
    assert np.array_equal(found["always_on"][:, 0], np.full((11, 2), 4)) and np.array_equal(found["always_off"][:, 0], np.full((11, 2), 1))
    assert list(found["gate_class"][-1, 0, :7]) == [0, 0, 1, 2, 0, 0, 2] and found["all_gate_flips"][-1, 0] == 0
    small = found["invariance_drift"][:, 0, DIAGONAL:].max()
    assert small < (1e-12 if steps == 20000 else 1e-10)
    assert found["invariance_drift"][-1, 0, FULL] == pytest.approx(0.24339085 if bias else 0.25352892, abs=1e-7)
    if not bias:
        assert loss[0] == pytest.approx(6.560846346, abs=1e-8) and loss[-1] == pytest.approx(0.3209384232, abs=1e-8)
    if bias:
        assert np.ptp(found["law_bias_neuron"][:, 0, :7], axis=0).max() < 1e-12 < 1e-3 < np.ptp(
            found["law_neuron"][:, 0, :7], axis=0).max()


# ---------------------------------------------------------------- residual networks
def stream_case(folder):
    shapes = [(3, 4), (5, 3), (3, 5), (5, 3), (3, 5), (2, 3)]
    scales = [0.6, 0.5, 0.5, 0.5, 0.5, 0.6]
    write_case(folder, ref_unit(101, 4, 7), ref_unit(102, 2, 7),
               [c * ref_unit(103 + k, m, n) for k, (c, (m, n)) in enumerate(zip(scales, shapes))])


@pytest.mark.parametrize("ranks, block", GRIDS)
def test_residual_stream(run, tmp_path, ranks, block):
    """`residual_stream`: laws within blocks and along the stream, none across the skip."""
    stream_case(tmp_path)
    drifts = {}
    for lr, steps in ((0.02, 100), (0.01, 200), (0.005, 400))[:3 if ranks == 1 else 1]:
        done = run(text([4, 3, 5, 3, 5, 3, 2], model=", activation: relu, residual: pairs", train=f"lr: {lr}, steps: {steps}",
                        probe=", every: 20, ledger: samples", block=block), ranks=ranks)
        check(done)
        all_hold(done)
        found, loss = series(done, "balance"), series(done, "train")["loss"]
        assert list(found["law"][0]) == [0, 2, 0, 2, 0, 3]
        exact = found["law"][0] > 0
        assert found["ledger_residual"][:, exact].max() < 1e-14 and np.isnan(found["ledger_residual"][:, ~exact]).all()
        drifts[lr] = found["invariance_drift"][-1, :, FULL]
    assert drifts[0.02][5] == pytest.approx(3.0528e-2, rel=1e-2) and drifts[0.02][2] > 0.2
    if ranks == 1:
        assert drifts[0.01][5] == pytest.approx(1.2995e-2, rel=1e-2) and drifts[0.005][5] == pytest.approx(6.186e-3, rel=1e-2)
        first = run(text([4, 3, 5, 3, 5, 3, 2], model=", activation: relu, residual: pairs", train="lr: 0.02, steps: 100"))
        loss = series(first, "train")["loss"]
        assert loss[0] == pytest.approx(4.596501773, abs=1e-9) and loss[-1] == pytest.approx(0.1203589, abs=1e-7)


def test_stream_with_biases(run, tmp_path):
    """The stream's law counts the biases of the first layer and of the blocks' last ones."""
    stream_case(tmp_path)
    with h5py.File(tmp_path / "start.h5", "a") as file:
        for k, n in enumerate([3, 5, 3, 5, 3, 2], 1):
            file[f"b{k}"] = 0.2 * ref_unit(200 + k, n, 1)
    done = run(text([4, 3, 5, 3, 5, 3, 2], model=", activation: relu, residual: pairs, bias: true", train="lr: 0.02, steps: 100",
                    probe=", every: 20, ledger: samples", block=2), ranks=2)
    check(done)
    all_hold(done)
    assert series(done, "balance")["ledger_residual"][:, [1, 3, 5]].max() < 1e-14


# ---------------------------------------------------------------- what must not matter, and what is refused
def test_relabelled_neurons(run, tmp_path):
    """Neurons in another order, and singular vectors with other signs: the same numbers."""
    X, Y, net = relu_case(tmp_path)
    found = [series(run(relu_text(steps=20, every=5)), "balance")]
    order = [np.random.default_rng(1).permutation(len(W)) for W in net.W[:-1]]
    W = [net.W[0][order[0]], net.W[1][order[1]][:, order[0]], net.W[2][:, order[1]]]
    write_case(tmp_path, X, Y, W, [net.b[0][order[0]], net.b[1][order[1]], None])
    found.append(series(run(relu_text(steps=20, every=5)), "balance"))
    listed = {"drift_matrix", "law_bias_neuron", "law_neuron", "gate_class", "rate_residual", "ledger_residual", "direction_change"}
    for name in found[0].keys() - listed:
        np.testing.assert_allclose(found[0][name], found[1][name], rtol=1e-11, atol=1e-12, err_msg=name)


def test_direction(run, tmp_path):
    """`margin_2d`, the single layer: towards the hard-margin direction."""
    u, q = np.array([np.cos(0.5), np.sin(0.5)]), np.array([-np.sin(0.5), np.cos(0.5)])
    U = ref_fill(201, 2, 18)
    z = [0.25 * u + 0.5 * q, 0.25 * u - 0.3 * q, *((0.55 + 0.25 * a) * u + 0.5 * b * q for a, b in U.T)]
    y = np.resize([1.0, -1.0], 20)
    write_case(tmp_path, (np.array(z) * y[:, None]).T, (y[None] + 1) / 2, [-0.5 * ref_unit(212, 1, 2) / np.sqrt(2)])
    given = logistic_text([2, 1], model=", activation: linear", train="lr: 0.1, steps: 10000",
                          probe=f", every: 1000, direction: [{u[0]}, {u[1]}]")
    done = run(given)
    check(done)
    found = series(done, "balance")
    assert 1 - found["direction_error"][-1] == pytest.approx(0.999685, abs=1e-5)
    np.testing.assert_allclose(found["vector_direction_error"][1:], found["direction_error"][1:], rtol=1e-6)
    assert found["margin_normalised"][-1] < 0.25 and np.all(np.diff(found["margin_normalised"][2:]) > 0)
    bad = run(given.replace("direction: [", "direction: [1, "))
    check(bad, 2)
    assert "probes[0].direction: has 3 entries: a network with one output and 2 inputs needs 2" in bad.stderr


def test_zero_and_tied_layers(run, tmp_path):
    """What is not defined is NaN, with a reason."""
    write_case(tmp_path, ref_unit(1, 4, 9), ref_unit(2, 3, 9), [np.zeros((4, 4)), np.eye(4), ref_unit(3, 3, 4)])
    done = run(text([4, 4, 4, 3], model=", activation: linear", train="lr: 0.01, steps: 0"))
    check(done)
    found = series(done, "balance")
    assert list(found["layer_flag"][0] & 3) == [1, 2, 0] and np.all(found["interface_flag"][0] & 64)
    assert np.isnan(found["spectral_ratio"][0, 0]) and np.isnan(found["rank1_distance"][0, :2]).all()
    assert found["spectral_gap"][0, 1] == 1 and found["rank_defect"][0, 0] == 0 and np.isnan(found["alignment"][0]).all()


@SLOW
def test_large_layers(run, tmp_path):
    """Sides above 128: Krylov iteration, warm-started, and gates in more than one word."""
    X, y, net = separable_case(tmp_path, [140, 150, 140, 1], 150, 61, 61, 1, head=2)
    given = logistic_text([140, 150, 140, 1], model=", activation: relu, linear_head: 2", train="lr: 0.5, steps: 9",
                          probe=", every: 4", more="checkpoint: {every: 3}", block=16)
    for ranks in (1, 4):
        done = run(given, ranks=ranks, args=["--out", f"whole-{ranks}"])
        check(done)
        all_hold(done)
        expected = by_numpy(Network(list(net.W), net.b, head=2, loss="logistic"), X, y, 0.5, 9, 4)
        found = series(done, "balance")
        for name in ("spectral_ratio", "spectral_gap", "rank_defect", "alignment", "invariance_drift", "always_on"):
            gated = name == "always_on"
            values = np.array(expected[name])[:, :1] if gated else expected[name]
            np.testing.assert_allclose(found[name][:, :1] if gated else found[name], values, rtol=1e-7, atol=1e-12, err_msg=name)
        assert "drift_matrix" not in found and np.all(found["rank_defect"][:, 1] <= found["rank_defect_bound"][:, 1] + 1e-10)
    check(run(given, ranks=4, args=["--out", "pieces", "--set", "train.steps=5"]))
    check(run(given, ranks=4, args=["--out", "pieces", "--resume"]))
    assert_same(tmp_path / "whole-4", tmp_path / "pieces")


def test_plan_counts_the_probe(command, tmp_path):
    relu_case(tmp_path)
    (tmp_path / "input.yaml").write_text(relu_text(probe=", ledger: samples"))
    done = command("plan", "input.yaml", "--ranks", 4)
    assert done.returncode == 0, done.stdout + done.stderr
    line = next(line for line in done.stdout.splitlines() if line.split()[:1] == ["balance"])
    assert "11 times" in line and not line.split()[1].startswith("0")
