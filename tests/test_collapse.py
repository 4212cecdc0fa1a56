"""The probe `collapse`: whole runs against the definitions in plain NumPy, from the weights in snapshots; and the progressive
collapse of the law of parsimony (acceptance table of its specification)."""
from itertools import combinations

import h5py
import numpy as np
import pytest
from scipy.special import erf

import formula
from test_density import reference_case

RANKS = [1, 2, 4]


def check(finished, code=0):
    assert finished.returncode == code, finished.stdout + finished.stderr


def series(finished, group="collapse"):
    """{name: values} of a group."""
    with h5py.File(finished.dir / "metrics.h5") as file:
        return {name: item[()] for name, item in file[group].items()}


def checks(finished):
    """[(name, measured, bound, passed)] of the theory checks."""
    with h5py.File(finished.dir / "metrics.h5") as file:
        if "checks" not in file:
            return []
        group = file["checks"]
        return list(zip(group["name"].asstr()[()], group["measured"][()], group["bound"][()], group["passed"][()]))


# ---------------------------------------------------------------- the definitions
PHI = {"linear": lambda z: z, "relu": lambda z: np.maximum(z, 0), "tanh": np.tanh,
       "gelu": lambda z: z * 0.5 * (1 + erf(z / np.sqrt(2)))}


def activations(X, weights, biases, phi, scaled=False):
    """a_0 … a_L; `scaled`: residual square layers x + φ(W x)/L."""
    a = [X]
    for layer, (W, b) in enumerate(zip(weights, biases), 1):
        z = W @ a[-1] + b
        z = z if layer == len(weights) else phi(z)
        a.append(a[-1] + z / len(weights) if scaled and W.shape[0] == W.shape[1] else z)
    return a


def cosine(u, v):
    return u @ v / (np.linalg.norm(u) * np.linalg.norm(v))


def one_minus_cosine(u, v):
    """Without cancellation."""
    return np.sum((u / np.linalg.norm(u) - v / np.linalg.norm(v)) ** 2) / 2


def class_means(H, labels, K):
    return np.stack([H[:, labels == k].mean(axis=1) for k in range(K)], axis=1)


def expected_layer(H, labels, K):
    """The quantities of one layer's features."""
    means = class_means(H, labels, K)
    centred = means - H.mean(axis=1, keepdims=True)
    D = H - means[:, labels]
    within, between = D @ D.T / len(labels), centred @ centred.T / K
    norms = np.linalg.norm(centred, axis=0)
    pairs = list(combinations(range(K), 2))
    return {"compression": np.sum(D**2) / len(labels) / (np.sum(centred**2) / K),
            "discrimination": min(one_minus_cosine(means[:, i], means[:, j]) for i, j in pairs),
            "nc1": np.trace(within @ np.linalg.pinv(between, rcond=1e-11)) / K,
            "nc2_equinorm": norms.std() / norms.mean(),
            "nc2_equiangular": np.mean([abs(cosine(centred[:, i], centred[:, j]) + 1 / (K - 1)) for i, j in pairs])}


def unit(A):
    return A / np.linalg.norm(A)


def expected_head(H, W, labels, K):
    """The quantities of the last features and the last layer; the class means from their own mean."""
    means = class_means(H, labels, K)
    M, norms = means - means.mean(axis=1, keepdims=True), np.linalg.norm(means - means.mean(axis=1, keepdims=True), axis=0)
    E = (np.eye(K) - 1 / K) / np.sqrt(K - 1)
    values = np.linalg.svd(M, compute_uv=False)
    if len(values) < K - 1 or values[K - 2] ** 2 <= 1e-12 * values[0] ** 2:
        return dict.fromkeys(("nc1_quotient", "nc2_norm_cv", "nc2_etf", "nc3", "nc3_dual"), np.nan)
    return {"nc1_quotient": np.sum((H - means[:, labels]) ** 2) / len(labels) / (np.sum(M ** 2) / K),
            "nc2_norm_cv": norms.std() / norms.mean(),
            "nc2_etf": np.linalg.norm(unit(M.T @ M) - E),
            "nc3": np.linalg.norm(unit(W @ M) - E),
            "nc3_dual": np.linalg.norm(unit(W.T) - unit(M))}


def nearest_class(H, labels, K):
    means = class_means(H, labels, K)
    return np.argmin(np.linalg.norm(H[:, :, None] - means[:, None, :], axis=0), axis=1)


def expected(X, Y, weights, biases, phi, scaled=False):
    labels, K = Y.argmax(axis=0), len(Y)
    a = activations(X, weights, biases, phi, scaled)
    found = [expected_layer(H, labels, K) for H in a[:-1]]
    result = {name: np.array([numbers[name] for numbers in found]) for name in found[0]}
    if len(found) > 1:
        result["compression_fit"] = np.polyfit(np.arange(len(found)), np.log(result["compression"]), 1)
    H, W = a[-2], weights[-1]
    result.update(expected_head(H, W, labels, K))
    result["nc4"] = np.mean(nearest_class(H, labels, K) != a[-1].argmax(axis=0))
    result["nc4_agreement"] = 1 - result["nc4"]
    if len(weights) > 1:
        result["balancedness"] = np.array([np.linalg.norm(W @ W.T - V.T @ V) for W, V in zip(weights, weights[1:])])
    return result


def expected_full(X, Y, weights, scale):
    """The optional quantities; of linear networks all of them."""
    K, ranges = len(Y), []
    for W in weights:
        sigma, d = np.linalg.svd(W, compute_uv=False), min(W.shape)
        ranges.append(sigma[K] - sigma[d - K - 1] if d > 2 * K else np.nan)
    product = np.linalg.multi_dot(weights[::-1]) if len(weights) > 1 else weights[0]
    return {"mid_sv_range": np.array(ranges), "min_norm_residual": np.linalg.norm(scale * product - Y @ np.linalg.pinv(X))}


# ---------------------------------------------------------------- whole runs
def parameters(path, layers):
    with h5py.File(path) as file:
        weights = [file[f"W{layer}"][()] for layer in range(1, layers + 1)]
        biases = [file[f"b{layer}"][()] if f"b{layer}" in file else np.zeros((len(W), 1))
                  for layer, W in enumerate(weights, 1)]
    return weights, biases


def clustered(rng, d, counts, spread=0.3):
    """Classes of unequal size around random centres."""
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    X = rng.standard_normal((d, len(counts)))[:, labels] + spread * rng.standard_normal((d, len(labels)))
    return X, np.eye(len(counts))[:, labels]


# name: (features, class sizes, model, more input, activation)
CASES = {
    "linear": (7, [9, 9, 9], "widths: [7, 8, 9, 3]", "", "linear"),
    "relu-unequal-bias": (6, [11, 4, 7], "widths: [6, 9, 10, 8, 3], bias: true", "", "relu"),
    "tanh-few-units": (5, [4, 5, 6, 3, 7, 4], "widths: [5, 4, 3, 6]", "", "tanh"),
    "gelu-microbatch": (5, [8, 15, 8], "widths: [5, 12, 7, 3]", "grid: {block: 2}\n", "gelu"),
    "scaled-residual": (6, [7, 7], "widths: [6, 6, 6, 2], residual: scaled", "", "tanh"),
    "identity": (None, [3, 4, 3], "widths: [10, 8, 3]", "", "tanh"),
    "one-layer": (6, [5, 6, 7], "widths: [6, 3]", "", "linear"),
    "more-features-than-samples": (16, [6, 5], "widths: [16, 7, 7, 2], output_scale: 1.5", "", "linear"),
}


def compare(found, wanted, row):
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name][row], values, rtol=1e-9, atol=1e-13, err_msg=name)


@pytest.mark.parametrize("name, ranks", [(name, ranks) for i, name in enumerate(CASES) for ranks in ((1, 4), (2, 6))[i % 2]])
def test_definitions(run, tmp_path, name, ranks):
    d, counts, model, more, phi = CASES[name]
    rng = np.random.default_rng(len(name))
    X, Y = clustered(rng, d or 1, counts)
    X[-1] = X[0]  # X⁺ is not unique in floating point without a floor
    formula.write_data(tmp_path / "data.h5", Y, X if d else None)
    micro = ", microbatch: 5" if "microbatch" in name else ""
    full = ", full: true" if phi == "linear" else ""
    done = run(f"""
{more}data: {{kind: hdf5, file: {tmp_path}/data.h5, targets: classes}}
model: {{{model}, activation: {phi}, init: {{kind: gaussian}}}}
train: {{lr: 0.05, steps: 12{micro}}}
probes: [{{kind: collapse, every: 6{full}}}]
snapshot: {{every: 6}}
""", ranks=ranks)
    check(done)
    found = series(done)
    assert list(found["step"]) == [0, 6, 12]
    X = X if d else np.eye(Y.shape[1])
    layers = model.split("]")[0].count(",")
    for row, step in enumerate(found["step"]):
        weights, biases = parameters(done.dir / f"snapshots/step_{step:09d}.h5", layers)
        compare(found, expected(X, Y, weights, biases, PHI[phi], "residual" in name), row)
        if full:
            compare(found, expected_full(X, Y, weights, 1.5 if "output_scale" in model else 1), row)


@pytest.mark.parametrize("ranks", [1, 4])
def test_reference_case(run, tmp_path, ranks):
    """The network of the specification of curvature operators."""
    done = run(f"grid: {{block: 2}}\n{reference_case(tmp_path)[1]}train: {{steps: 0}}\nprobes: [{{kind: collapse}}]", ranks=ranks)
    check(done)
    found = series(done)
    expected_numbers = {"nc1_quotient": 0.513105136360, "nc2_norm_cv": 0.398866612858, "nc2_etf": 0.704908451578,
                        "nc3": 1.67264421826, "nc3_dual": 1.54201246171, "nc4_agreement": 0.125}
    for name, value in expected_numbers.items():
        np.testing.assert_allclose(found[name], [value], rtol=0, atol=1e-9, err_msg=name)
    np.testing.assert_allclose(found["nc1"][0, -1], 1.01721087142, rtol=0, atol=1e-9)


def test_one_hot_features(run, tmp_path):
    """Collapsed, but for the layer that is not proportional to the centred means."""
    formula.write_data(tmp_path / "data.h5", np.tile(np.eye(4), 3), np.tile(np.eye(4), 3))
    formula.write_weights(tmp_path / "init.h5", [np.eye(4)])
    done = run(f"""
data: {{kind: hdf5, file: {tmp_path}/data.h5, targets: classes}}
model: {{widths: [4, 4], activation: linear, init: {{kind: file, file: {tmp_path}/init.h5}}}}
train: {{steps: 0}}
probes: [{{kind: collapse}}]
""", ranks=2)
    check(done)
    found = series(done)
    for name in ("nc1", "nc1_quotient", "nc2_norm_cv", "nc2_etf", "nc3", "nc4"):
        np.testing.assert_allclose(found[name].ravel(), [0], rtol=0, atol=1e-14, err_msg=name)
    np.testing.assert_allclose(found["nc3_dual"], [0.5176380902050], rtol=0, atol=1e-12)


@pytest.mark.parametrize("ranks", [1, 4])
def test_digits_of_small_deviations(run, tmp_path, ranks):
    """Within-class deviations of 1e-6 beside means of 1 and classes 1e-3 apart keep eight digits in the squares."""
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(4), 6)
    means = 1 + rng.standard_normal((10, 1)) + 1e-3 * rng.standard_normal((10, 4))
    X = means[:, labels] + 1e-6 * rng.standard_normal((10, 24))
    Y = np.eye(4)[:, labels]
    formula.write_data(tmp_path / "data.h5", Y, X)
    formula.write_weights(tmp_path / "init.h5", [formula.orth(10, 10, 1), formula.orth(4, 10, 2)])
    done = run(f"""
data: {{kind: hdf5, file: {tmp_path}/data.h5, targets: classes}}
model: {{widths: [10, 10, 4], activation: linear, init: {{kind: file, file: {tmp_path}/init.h5}}}}
train: {{steps: 0}}
probes: [{{kind: collapse}}]
""", ranks=ranks)
    check(done)
    found = series(done)
    wanted = expected_layer(X, labels, 4)
    for layer in (0, 1):  # an orthogonal layer changes nothing
        for name in ("compression", "discrimination", "nc1", "nc2_equinorm"):
            np.testing.assert_allclose(found[name][0, layer], wanted[name], rtol=1e-8, err_msg=f"{name} {layer}")
    assert found["compression"][0, 0] < 1e-5


@pytest.mark.parametrize("ranks", [1, 3])
def test_what_is_not_defined(run, tmp_path, ranks):
    """A dead ReLU layer: no class means, and nothing that is infinite."""
    X, Y = clustered(np.random.default_rng(5), 6, [5, 5, 5])
    formula.write_data(tmp_path / "data.h5", Y, np.abs(X))
    formula.write_weights(tmp_path / "init.h5", [-np.abs(formula.orth(6, 6, 1)), formula.orth(3, 6, 2)])
    done = run(f"""
data: {{kind: hdf5, file: {tmp_path}/data.h5, targets: classes}}
model: {{widths: [6, 6, 3], activation: relu, init: {{kind: file, file: {tmp_path}/init.h5}}}}
train: {{steps: 0}}
probes: [{{kind: collapse, full: true}}]
""", ranks=ranks)
    check(done)
    found = series(done)
    for name in ("compression", "discrimination", "nc1", "nc2_equinorm", "nc2_equiangular"):
        assert np.isfinite(found[name][0, 0]) and np.isnan(found[name][0, 1]), name
    for name in ("compression_fit", "nc1_quotient", "nc2_norm_cv", "nc2_etf", "nc3", "nc3_dual", "mid_sv_range"):
        assert np.isnan(found[name]).all(), name
    assert "min_norm_residual" not in found and checks(done) == []
    assert not any(np.isinf(values).any() for values in found.values() if values.dtype.kind == "f")


def test_equal_means_up_to_rounding(run, tmp_path):
    """The classes are copies of one another in another order: their means differ by rounding alone."""
    part = np.random.default_rng(6).standard_normal((4, 9))
    X = np.concatenate([part, part[:, ::-1], part[:, [2, 0, 1, 8, 7, 3, 4, 6, 5]]], axis=1)
    formula.write_data(tmp_path / "data.h5", np.kron(np.eye(3), np.ones(9)), X)
    done = run(f"""
data: {{kind: hdf5, file: {tmp_path}/data.h5, targets: classes}}
model: {{widths: [4, 5, 3], activation: linear}}
train: {{steps: 0}}
probes: [{{kind: collapse}}]
""", ranks=2)
    check(done)
    found = series(done)
    for name in ("compression", "nc1", "nc2_equinorm", "nc2_equiangular"):
        assert np.isnan(found[name]).all(), name


def test_features_too_large_to_be_squared(run, tmp_path):
    """Of a network whose output is of ordinary size."""
    X, Y = clustered(np.random.default_rng(7), 6, [5, 5, 5])
    formula.write_data(tmp_path / "data.h5", Y, X)
    sizes = [1, 1e180, 1e-180]
    formula.write_weights(tmp_path / "init.h5", [size * formula.orth(*shape, layer) for layer, (size, shape) in
                                                 enumerate(zip(sizes, [(6, 6), (6, 6), (3, 6)]), 1)])
    done = run(f"""
data: {{kind: hdf5, file: {tmp_path}/data.h5, targets: classes}}
model: {{widths: [6, 6, 6, 3], activation: linear, trainable: [1], init: {{kind: file, file: {tmp_path}/init.h5}}}}
train: {{steps: 0}}
probes: [{{kind: collapse}}]
""", ranks=2)
    check(done)
    found = series(done)
    for name in ("compression", "discrimination", "nc1", "nc2_equinorm", "nc2_equiangular"):
        assert np.isfinite(found[name][0, :2]).all() and np.isnan(found[name][0, 2]), name
    assert np.isnan(found["nc3_dual"]).all() and np.isnan(found["nc4"]).all()


# ---------------------------------------------------------------- input errors
@pytest.mark.parametrize("data, message", [
    ("{kind: gaussian, features: 6, outputs: 3, train: 20}", "one-hot"),
    ("{kind: low_rank_matrix, rows: 5, cols: 6, rank: 2}", "one-hot"),
    ("{kind: gaussian, features: 6, outputs: 1, train: 20, targets: classes}", "at least two classes"),
    ("{kind: gaussian, features: 6, outputs: 9, train: 4, targets: classes}", "has none"),
])
def test_data_without_classes(run, data, message):
    done = run(f"data: {data}\nmodel: {{width: 5, depth: 2}}\nprobes: [{{kind: collapse}}]\n", ranks=2)
    check(done, 2)
    assert message in done.stderr and "probes[0].kind" in done.stderr and ":3:" in done.stderr
    assert not (done.dir / "metrics.h5").exists()


# ---------------------------------------------------------------- the law of parsimony
LAST = {6: 1.490891e-3, 8: 8.428907e-5, 10: 4.980409e-6}  # compression of the last features
SLOW = pytest.mark.slow


def collapse_run(run, tmp_path, depth, ranks, tolerance=1e-16, steps=20000, decay=0, **model):
    X, Y = formula.classes(50, 50, 5)
    formula.write_data(tmp_path / "data.h5", Y, X)
    shapes = [(50, 50)] * (depth - 1) + [(5, 50)]
    formula.write_weights(tmp_path / "init.h5",
                          [0.5 * formula.orth(*shape, layer) for layer, shape in enumerate(shapes, 1)])
    options = "".join(f", {key}: {value}" for key, value in {"activation": "linear", **model}.items())
    return run(f"""
data: {{kind: hdf5, file: {tmp_path}/data.h5, targets: classes}}
model: {{width: 50, depth: {depth}{options}, init: {{kind: file, file: {tmp_path}/init.h5}}}}
train: {{lr: 1, steps: {steps}, tolerance: {tolerance}, weight_decay: {decay}, evaluate_every: 20000}}
probes: [{{kind: collapse, every: 100, full: true}}]
checkpoint: {{minutes: never, end: false}}
""", ranks=ranks, timeout=600)


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("depth", [6, pytest.param(8, marks=SLOW), pytest.param(10, marks=SLOW)])
def test_progressive_collapse(run, tmp_path, depth, ranks):
    done = collapse_run(run, tmp_path, depth, ranks)
    check(done)
    found = series(done)
    np.testing.assert_allclose(found["compression"][:, 0], 11.25, rtol=0, atol=1e-10)
    np.testing.assert_allclose(found["compression"][-1, -1], LAST[depth], rtol=1e-4)
    layer = np.arange(depth)
    closed = 11.25 * (0.25 / 10 ** (1 / depth)) ** layer
    np.testing.assert_allclose(found["compression_theory"][-1], closed, rtol=1e-12)
    ratio = found["compression"][-1, 1:] / closed[1:]
    assert 0.88 <= ratio.min() and ratio.max() <= 1
    np.testing.assert_allclose(found["compression_fit"][-1], np.polyfit(layer, np.log(found["compression"][-1]), 1),
                               rtol=1e-10)
    assert found["nc4"][-1] == 0 and found["min_norm_residual"][-1] < 1e-6
    held = checks(done)
    assert len(held) == 3 and all(passed for *_, passed in held)
    assert held[0][2] == 1e-10
    np.testing.assert_allclose([held[1][1], held[2][1]], [ratio.min(), ratio.max()], rtol=1e-12)
    np.testing.assert_allclose([held[1][2], held[2][2]], [0.88, 1], rtol=1e-12)


@pytest.mark.parametrize("change", [
    {"tolerance": 1e-6},  # not converged
    {"activation": "relu", "steps": 5},
    {"decay": 1e-5, "steps": 5},
], ids=str)
def test_only_the_inputs_have_a_theory(run, tmp_path, change):
    done = collapse_run(run, tmp_path, 4, 1, **change)
    check(done)
    held = checks(done)
    assert len(held) == 1 and held[0][3] and "inputs" in held[0][0]


@pytest.mark.parametrize("ranks", [1, 2])
def test_scaled_output(run, ranks):
    """Fewer orthonormal samples than features, and α W_L … W_1 X instead of W_L … W_1 X."""
    done = run("""
data: {kind: orthogonal_classes, features: 60, classes: 3, per_class: 12}
model: {width: 60, depth: 4, activation: linear, output_scale: 2, init: {kind: orthogonal, scale: 0.3}}
train: {lr: 5, steps: 5000, tolerance: 1e-16, evaluate_every: 5000}
probes: [{kind: collapse, every: 1000}]
""", ranks=ranks)
    check(done)
    found = series(done)
    closed = 33 / 2 * (0.09 / (np.sqrt(12) / 2) ** 0.5) ** np.arange(4)
    np.testing.assert_allclose(found["compression_theory"][-1], closed, rtol=1e-12)
    held = checks(done)
    assert len(held) == 3 and all(passed for *_, passed in held)
    np.testing.assert_allclose(held[1][2], 0.99 * 30 / 33, rtol=1e-12)


def test_ranks_and_grids_agree(run, tmp_path):
    """All series are the same to rounding, whatever the grid and the block."""
    X, Y = clustered(np.random.default_rng(8), 9, [7, 12, 5, 8])
    formula.write_data(tmp_path / "data.h5", Y, X)
    text = f"""
data: {{kind: hdf5, file: {tmp_path}/data.h5, targets: classes}}
model: {{widths: [9, 11, 10, 4], activation: gelu, bias: true}}
train: {{lr: 0.2, steps: 20}}
probes: [{{kind: collapse, every: 5, full: true}}]
"""
    reference = series(run(text))
    for rows, cols, block in ((1, 2, 3), (2, 1, 1), (2, 2, 2), (3, 2, 4), (1, 4, 64)):
        done = run(f"grid: {{rows: {rows}, cols: {cols}, block: {block}}}\n{text}", ranks=rows * cols)
        check(done)
        for name, values in series(done).items():
            np.testing.assert_allclose(values, reference[name], rtol=1e-10, atol=1e-14, err_msg=name)


def test_resume_has_the_same_bits(run, tmp_path):
    """Nothing that is measured later depends on what was measured before."""
    X, Y = formula.classes(30, 30, 3)
    formula.write_data(tmp_path / "data.h5", Y, X)
    text = f"""
data: {{kind: hdf5, file: {tmp_path}/data.h5, targets: classes}}
model: {{width: 30, depth: 3, activation: linear, init: {{kind: orthogonal, scale: 0.4}}}}
train: {{lr: 1}}
probes: [{{kind: collapse, every: 3, full: true}}]
"""
    whole = run(text + "", ranks=2, args=["--set", "train.steps=12"])
    check(whole)
    check(run(text, ranks=2, args=["--set", "train.steps=6", "--out", tmp_path / "parts"]))
    parts = run(text, ranks=2, args=["--set", "train.steps=12", "--resume", "--out", tmp_path / "parts"])
    check(parts)
    one, other = series(whole), series(parts)
    for name, values in one.items():
        assert values.tobytes() == other[name].tobytes(), name
    assert checks(whole) == checks(parts) != []
