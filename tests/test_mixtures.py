"""Gaussian mixtures: whole runs of one-pass stochastic gradient descent against plain NumPy, and the probe `mixture` against
the definitions and the closed forms (acceptance table of the specification of outlier eigenspaces)."""
import h5py
import numpy as np
import pytest

import formula
import oracle
from same import assert_same

SEED = 5
KGMM = """
run:   {{seed: {seed}}}
data:  {{kind: gaussian_mixture, features: {d}, classes: {k}, lambda: {lam}, train: {n}{more}}}
model: {{widths: [{d}, {k}], init: {{kind: gaussian, gain: fan_in}}}}
loss:  {{kind: cross_entropy}}
train: {{optimizer: sgd, lr: {lr}, weight_decay: {beta}, batch: {batch}, online: true, steps: {steps}, evaluate_every: 100000}}
probes:
  - {{kind: mixture, every: {every}}}
snapshot: {{every: end}}
"""
XOR = """
run:   {{seed: {seed}}}
data:  {{kind: {kind}, features: {d}, lambda: {lam}, train: {n}}}
model: {{widths: [{d}, {units}, 1], activation: relu, init: {{kind: gaussian, gain: fan_in, scale: [1, {scale}]}}}}
loss:  {{kind: logistic}}
train: {{optimizer: sgd, lr: {lr}, weight_decay: {alpha}, batch: {batch}, online: true, steps: {steps}, evaluate_every: 1000000}}
probes:
  - {{kind: mixture, every: {every}}}
snapshot: {{every: end}}
"""
CENTRES = {"xor_mixture": [(0, 1, 1), (0, -1, 1), (1, 1, 0), (1, -1, 0)], "binary_mixture": [(0, 1, 1), (0, -1, 0)]}


def kgmm(**more):
    return KGMM.format(**{"seed": SEED, "d": 20, "k": 3, "lam": 4, "n": 30, "lr": 0.05, "beta": 0.02, "batch": 4, "steps": 60,
                          "every": 20, "more": "", **more})


def xor(**more):
    return XOR.format(**{"seed": SEED, "kind": "xor_mixture", "d": 12, "lam": 50, "n": 40, "units": 5, "scale": 5**0.5,
                         "lr": 0.08, "alpha": 0.05, "batch": 3, "steps": 60, "every": 20, **more})


def check(finished, code=0):
    assert finished.returncode == code, finished.stdout + finished.stderr
    return finished


def series(finished, group="mixture"):
    with h5py.File(finished.dir / "metrics.h5") as file:
        return {name: item[()] for name, item in file[group].items() if isinstance(item, h5py.Dataset)}


def weights(finished, steps):
    with h5py.File(finished.dir / "snapshots" / f"step_{steps:09d}.h5") as file:
        return [file[name][()] for name in ("W1", "W2") if name in file]


# ---------------------------------------------------------------- the definitions in NumPy
def fresh(centres, d, lam, first, count, stream=oracle.RANDOM_ONLINE):
    """Samples `first` … of a stream: X, and the cluster of each; equally likely clusters."""
    j = np.arange(first, first + count)
    cluster = np.floor(oracle.random_uniform(SEED, stream + 1, j) * len(centres)).astype(int)
    X = oracle.random_normal(SEED, stream, np.arange(d)[:, None] + j * d) / np.sqrt(lam)
    for column, b in enumerate(cluster):
        X[centres[b][0], column] += centres[b][1]
    return X, cluster


def start(shapes, scales):
    """`gaussian` weights with the gain fan_in."""
    return [scale * oracle.normal_matrix(m, n, SEED, oracle.RANDOM_WEIGHTS + layer) / np.sqrt(n)
            for layer, ((m, n), scale) in enumerate(zip(shapes, scales), 1)]


def softmax(s):
    p = np.exp(s - s.max(axis=0))
    return p / p.sum(axis=0)


def classifier_by_numpy(steps, d=20, k=3, lam=4, lr=0.05, beta=0.02, batch=4):
    """W ← (1 − δβ) W + δ mean (y − π) Yᵀ."""
    W, = start([(k, d)], [1])
    for step in range(steps):
        X, label = fresh([(b, 1) for b in range(k)], d, lam, step * batch, batch)
        W = (1 - lr * beta) * W + lr * (np.eye(k)[:, label] - softmax(W @ X)) @ X.T / batch
    return W


def two_layers_by_numpy(kind, steps, d=12, units=5, lam=50, lr=0.08, alpha=0.05, batch=3):
    W, v = start([(units, d), (1, units)], [1, 5**0.5])
    for step in range(steps):
        X, cluster = fresh(CENTRES[kind], d, lam, step * batch, batch)
        y = np.array([CENTRES[kind][b][2] for b in cluster])
        h = np.maximum(W @ X, 0)
        e = 1 / (1 + np.exp(-v @ h)) - y
        dW, dv = (v.T * e * (W @ X > 0)) @ X.T / batch, e @ h.T / batch
        W, v = (1 - lr * alpha) * W - lr * dW, (1 - lr * alpha) * v - lr * dv
    return W, v


# ---------------------------------------------------------------- whole runs
def test_classifier_is_that_of_numpy(run):
    done = check(run(kgmm()))
    W, = weights(done, 60)
    assert np.allclose(W, classifier_by_numpy(60), rtol=0, atol=1e-13)
    probe = series(done)
    assert np.allclose(probe["class_overlap"][-1], W[:, :3], rtol=0, atol=1e-15)
    assert np.allclose(probe["class_residual_gram"][-1], W[:, 3:] @ W[:, 3:].T, rtol=0, atol=1e-14)
    assert np.allclose(probe["alignment_class_span"][-1], np.linalg.norm(W[:, :3], axis=1) / np.linalg.norm(W, axis=1))
    for name in ("m", "R"):  # the theory starts where the weights do
        measured = probe["class_overlap" if name == "m" else "class_residual_gram"]
        assert np.array_equal(probe[f"effective_{name}"][0], measured[0])


@pytest.mark.parametrize("kind", CENTRES)
def test_two_layers_are_those_of_numpy(run, kind):
    done = check(run(xor(kind=kind)))
    W, v = weights(done, 60)
    expected = two_layers_by_numpy(kind, 60)
    assert np.allclose(W, expected[0], rtol=0, atol=1e-13)
    assert np.allclose(v, expected[1], rtol=0, atol=1e-13)
    check_last_layer(series(done), kind, W, v)


def check_last_layer(probe, kind, W, v):
    """The matrices of the last layer on the training set, and what follows from them."""
    centres = CENTRES[kind]
    X, cluster = fresh(centres, 12, 50, 0, 40, oracle.RANDOM_DATA)
    h = np.maximum(W @ X, 0)
    share = 1 / (1 + np.exp(-v @ h))
    e = share - np.array([centres[b][2] for b in cluster])
    logit = [(v @ np.maximum(sign * W[:, axis], 0)).item() for axis, sign, _ in centres]
    assert np.allclose(probe["cluster_logit"][-1], logit, rtol=0, atol=1e-14)
    assert np.allclose(probe["last_weight"][-1], v, rtol=0, atol=1e-15)
    for number, (name, weight) in enumerate((("gradient", e**2), ("hessian", share * (1 - share)))):
        theta, vectors = np.linalg.eigh((h * weight) @ h.T / 40)
        assert np.allclose(probe[f"last_layer_{name}"][-1], theta[::-1], rtol=0, atol=1e-14)
        j = min(5, len(centres), np.sum(theta > 1e-10 * theta[-1]))
        along = np.linalg.norm(vectors[:, ::-1][:, :j].T @ v[0]) / np.linalg.norm(v)
        assert np.isclose(probe["alignment_last_layer"][-1, number], along, rtol=1e-10)
        if name == "gradient":
            assert probe["outlier_rank"][-1] == np.sum(theta > 1e-2 * theta[-1])


BLOCKS = """  - {kind: curvature, name: h, block: 1, unit: 1, rank: 3, every: 30, tolerance: 1e-13}
  - {kind: curvature, name: g, operator: g, rank: 3, every: 30, tolerance: 1e-13}
snapshot:"""


@pytest.mark.parametrize("text", [kgmm(), xor()], ids=["kgmm", "xor"])
def test_any_grid_has_the_same_numbers(run, text):
    text = text.replace("snapshot:", BLOCKS)
    whole = check(run(text))
    for ranks, block in ((2, 3), (4, 64), (6, 4)):
        other = check(run(text, ranks=ranks, args=["--set", f"grid.block={block}"]))
        for a, b in zip(weights(whole, 60), weights(other, 60)):
            assert np.allclose(a, b, rtol=1e-11, atol=1e-14)
        left, right = series(whole), series(other)
        assert left.keys() == right.keys()
        for name in left:
            assert np.allclose(left[name], right[name], rtol=1e-10, atol=1e-12, equal_nan=True), name
        for group in "hg":
            a, b = (series(finished, group)["curvature_eigenvalue"] for finished in (whole, other))
            assert np.allclose(a, b, rtol=1e-11, atol=1e-14), group


@pytest.mark.parametrize("text", [kgmm(), xor()], ids=["kgmm", "xor"])
def test_resumed_runs_have_the_same_bits(run, tmp_path, text):
    check(run(text, args=["--out", "whole"]))
    for steps in (17, 60):
        check(run(text, args=["--out", "pieces", "--resume", "--set", f"train.steps={steps}"]))
    assert_same(tmp_path / "whole", tmp_path / "pieces")


# ---------------------------------------------------------------- closed forms
def test_noise_free_classifier(run):
    """W = r [I 0] on the means themselves: the loss is −log p."""
    text = """
data:  {kind: gaussian_mixture, features: 6, classes: 4, lambda: infinite, counts: equal, train: 4}
model: {widths: [6, 4], init: {kind: identity, scale: 1.5}}
loss:  {kind: cross_entropy}
train: {steps: 0}
"""
    done = check(run(text))
    with h5py.File(done.dir / "metrics.h5") as file:
        assert np.isclose(file["train/loss"][0], np.log(1 + 3 * np.exp(-1.5)), rtol=1e-15)


@pytest.mark.parametrize("alpha, gradient, hessian", [(0.05, 0.0138629436112, 0.055451774445),
                                                      (0.1, 0.0162186043243, 0.0243279064865)])
def test_exact_point_of_xor(run, tmp_path, alpha, gradient, hessian):
    """One unit a cluster, v_i = ±√C: the gradient with the ridge vanishes, so that a step changes nothing."""
    C = np.log((1 - 4 * alpha) / (4 * alpha))
    W = np.zeros((4, 6))
    W[[0, 1, 2, 3], [0, 0, 1, 1]] = np.sqrt(C) * np.array([1, -1, 1, -1])
    v = np.sqrt(C) * np.array([[1, 1, -1, -1]])
    formula.write_weights(tmp_path / "start.h5", [W, v])
    done = check(run(f"""
data:  {{kind: xor_mixture, features: 6, lambda: infinite, counts: equal, train: 4}}
model: {{widths: [6, 4, 1], activation: relu, init: {{kind: file, file: {tmp_path / "start.h5"}}}}}
loss:  {{kind: logistic}}
train: {{optimizer: gd, lr: 1, weight_decay: {alpha}, steps: 1}}
probes:
  - {{kind: mixture, every: 1}}
snapshot: {{every: end}}
"""))
    for before, after in zip([W, v], weights(done, 1)):
        assert np.allclose(before, after, rtol=0, atol=1e-15)
    probe = series(done)
    for step in (0, 1):
        assert np.allclose(probe["last_layer_gradient"][step], gradient, rtol=0, atol=1e-12)
        assert np.allclose(probe["last_layer_hessian"][step], hessian, rtol=0, atol=1e-12)
        assert np.allclose(probe["last_layer_gradient_theory"][step], gradient, rtol=0, atol=1e-12)
        assert np.allclose(probe["last_layer_hessian_theory"][step], hessian, rtol=0, atol=1e-12)
        assert probe["learned"][step] == probe["outlier_rank"][step] == 4
        assert np.allclose(probe["alignment_class_span"][step], 1, rtol=0, atol=1e-15)


def check_course(probe, tolerance):
    """m, R and rho against the effective dynamics of the same start; entries of a class scatter, their means do less."""
    k = probe["class_overlap"].shape[1]
    for measured, theory in (("class_overlap", "effective_m"), ("class_residual_gram", "effective_R")):
        difference = probe[measured] - probe[theory]
        diagonal = np.abs(np.trace(difference, axis1=1, axis2=2)) / k
        assert np.max(diagonal) < tolerance, (measured, diagonal)
        assert np.max(np.abs(difference)) < 4 * tolerance, measured
    assert np.max(np.abs(np.mean(probe["alignment_class_span"] - probe["effective_alignment"], axis=1))) < tolerance


def test_descent_follows_the_effective_dynamics(run):
    """`kgmm_sgd` to t = 5 at d = 500: fluctuations of a single run are about 0.01."""
    done = check(run(kgmm(d=500, k=4, lam=10, n=2000, lr=0.002, beta=0.01, batch=1, steps=2500, every=500)))
    probe = series(done)
    assert np.allclose(probe["time"], np.arange(6))
    check_course(probe, 0.02)
    with h5py.File(done.dir / "metrics.h5") as file:
        assert np.isclose(file["train/train_loss"][-1], probe["effective_loss"][-1], rtol=0.03)
        assert np.isclose(file["train/train_accuracy"][-1], probe["effective_accuracy"][-1], rtol=0.03)


def test_batches_have_less_noise(run):
    """The same time and batches of 8: the noise of the equations is an eighth."""
    done = check(run(kgmm(d=400, k=3, lam=2, n=8, lr=0.02, beta=0.1, batch=8, steps=1000, every=200)))
    check_course(series(done), 0.03)


def test_last_layer_finds_the_learned_clusters(run):
    """`xor_ensemble` at α = 0.05: one run to the end."""
    done = check(run(xor(d=250, lam=1000, n=4000, units=4, scale=2, lr=0.004, batch=1, steps=37500, every=18750)))
    check_end({name: values[-1] for name, values in series(done).items()}, 0.05)


def check_end(probe, alpha):
    C = np.log((1 - 4 * alpha) / (4 * alpha))
    assert probe["outlier_rank"] == probe["learned"]
    assert np.allclose(probe["alignment_last_layer"], 1, atol=1e-3)
    alive = np.abs(probe["last_weight"]) > 0.25 * np.sqrt(C)
    assert np.all(probe["alignment_class_span"][alive] >= 0.999)


# ---------------------------------------------------------------- the table
@pytest.mark.slow
def test_table_of_the_descent(run):
    """m and R of four runs at d = 4096 against the table: within 0.01 and 1 %."""
    table = {1: (0.1786, -0.0595, 0.9627, 0.0058), 2: (0.3401, -0.1134, 0.9259, 0.0116),
             5: (0.7341, -0.2447, 0.8224, 0.0275), 10: (1.1776, -0.3925, 0.6806, 0.0460),
             20: (1.6714, -0.5571, 0.4890, 0.0604)}
    runs = [series(check(run(kgmm(seed=seed, d=4096, k=4, lam=10, n=8, lr=1 / 4096, beta=0.01, batch=1, steps=81920,
                                  every=4096), timeout=600))) for seed in range(1, 5)]
    m, R = (np.mean([probe[name] for probe in runs], axis=0) for name in ("class_overlap", "class_residual_gram"))
    off = ~np.eye(4, dtype=bool)
    for t, expected in table.items():
        found = [np.trace(m[t]) / 4, m[t][off].mean(), np.trace(R[t]) / 4, R[t][off].mean()]
        assert np.allclose(found, expected, rtol=0.01, atol=0.01), t


# ---------------------------------------------------------------- what cannot be
def test_what_the_mixtures_refuse(run):
    done = check(run(kgmm(k=25, more=", weights: [1, 2], counts: equal")), 2)
    assert "data.features: is 20, too few for 25 orthonormal means" in done.stderr
    assert "data.weights: has 2 values for 25 classes (data.classes)" in done.stderr
    assert "data.counts: equal counts leave nothing to data.weights" in done.stderr
    done = check(run("data: {kind: gaussian, features: 3, outputs: 2, train: 4}\nmodel: {depth: 1}\n"
                     "probes: [{kind: mixture}]\n"), 2)
    assert "probes[0].kind: 'mixture' needs the means of a mixture" in done.stderr
