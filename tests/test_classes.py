"""The probe `classes`: the class matrices of Gauss-Newton against their definition in dense NumPy and against the tables of the
specification of curvature operators."""
import h5py
import numpy as np
import pytest

import formula
import oracle
import oracle_curvature
from test_density import check, reference_case, series

SLOW = pytest.mark.slow
EXPECTED = {0: [0.665926596035, 0.347142487319, 0.165895083725],
            1: [0.221889210912, 0.097373311577, 0.071134873598],
            2: [0.949967793338, 0.488850172517, 0.338128965129],
            3: [1.273716937574, 0.909041100065, 0.398951491226, 0.395801514141]}


# ---------------------------------------------------------------- the definition
def class_matrices(loss, layers, parameters, samples):
    """G0, G1, G2, G12, from the vectors of every sample."""
    a, z = oracle.forward(layers, parameters, samples.X)
    F = loss[2] * a[-1]
    labels, (C, N) = samples.Y.argmax(axis=0), samples.Y.shape
    share = np.exp(F - F.max(axis=0))
    share /= share.sum(axis=0)
    delta = np.array([oracle_curvature.per_sample(layers, parameters, a, z,
                                                  loss[2] * np.sqrt(share[k]) * (np.eye(C)[:, [k]] - share))
                      for k in range(C)])  # class, parameter, sample
    w = np.bincount(labels, minlength=C) / N
    mean = np.array([delta[:, :, labels == c].mean(axis=2) if w[c] else 0 * delta[:, :, 0] for c in range(C)])
    others = np.array([np.delete(mean[c], c, axis=0).mean(axis=0) for c in range(C)])
    outer = lambda x: np.outer(x, x)
    G0 = sum(w[c] * outer(mean[c, c]) for c in range(C))
    G1 = (C - 1) * sum(w[c] * outer(others[c]) for c in range(C))
    G2 = sum(w[c] * outer(mean[c, k] - others[c]) for c in range(C) for k in range(C) if k != c)
    return G0, G1, G2, sum(w[c] * outer(mean[c, k]) for c in range(C) for k in range(C))


def compare(found, row, case, pairs, atol=1e-12):
    """A measured row against dense matrices; `pairs` leading eigenvectors of the Hessian, weight decay aside."""
    G = class_matrices(*case)
    ggn, hessian = oracle_curvature.dense_ggn(*case), oracle_curvature.dense_hessian(*case)
    np.testing.assert_allclose(G[3], G[0] + G[1] + G[2], rtol=0, atol=1e-13 * max(1, np.abs(G[3]).max()))
    C = case[3].Y.shape[0]
    for matrix, count in enumerate((C, C, C * (C - 1), C * C)):
        values = np.linalg.eigvalsh(G[matrix])[::-1][:count]
        values = np.append(values, np.zeros(count - len(values)))
        np.testing.assert_allclose(found["class_eigenvalue"][row, matrix, :count], values, rtol=0, atol=atol)
        assert np.isnan(found["class_eigenvalue"][row, matrix, count:]).all()
    np.testing.assert_allclose(found["class_trace"][row], [np.trace(g) for g in G], rtol=1e-11)
    np.testing.assert_allclose(found["ggn_trace"][row], np.trace(ggn), rtol=1e-11)
    np.testing.assert_allclose(found["class_trace_share"][row], np.trace(G[3]) / np.trace(ggn), rtol=1e-11)
    E = np.linalg.eigh(hessian)[1][:, ::-1][:, :pairs]
    for space, matrix in enumerate((1, 3)):
        values, Q = np.linalg.eigh(G[matrix])
        Q = Q[:, values > 1e-10 * values[-1]]
        np.testing.assert_allclose(found["class_alignment"][row, space], np.sum((E.T @ Q)**2) / Q.shape[1], atol=1e-7)


@pytest.mark.parametrize("ranks", [2, pytest.param(1, marks=SLOW), pytest.param(4, marks=SLOW), pytest.param(6, marks=SLOW)])
def test_reference_case(run, tmp_path, ranks):
    case, text = reference_case(tmp_path)
    done = run(f"grid: {{block: 2}}\n{text}train: {{steps: 0}}\nprobes: [{{kind: classes, tolerance: 1e-10}}]", ranks=ranks)
    check(done)
    found = series(done, "classes")
    for matrix, values in EXPECTED.items():
        np.testing.assert_allclose(found["class_eigenvalue"][0, matrix, :len(values)], values, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found["class_trace_share"][0], 0.559339929469, rtol=0, atol=1e-9)
    assert list(found["class_rank"][0]) == [3, 3, 3, 9]
    np.testing.assert_allclose(found["hessian_eigenvalue"][0], [1.735207202339, 1.571289092730, 1.223003606262], atol=1e-9)
    compare(found, 0, case, 3)


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=SLOW)])
def test_mixture_without_noise(run, ranks):
    """kgmm_exact: closed forms, with all copies, and the Hessian is the sum of the three."""
    done = run("""
data:  {kind: gaussian_mixture, features: 6, classes: 4, lambda: infinite, counts: equal, train: 4}
model: {widths: [6, 4], init: {kind: identity, scale: 1.5}}
loss:  {kind: cross_entropy}
train: {steps: 0}
probes: [{kind: classes, rank: 12}]
""", ranks=ranks)
    check(done)
    found = series(done, "classes")
    values = found["class_eigenvalue"][0]
    np.testing.assert_allclose(values[0, :4], 0.0321043595852, rtol=0, atol=1e-12)
    np.testing.assert_allclose(values[1, :4], 0.0479605858211, rtol=0, atol=1e-12)
    np.testing.assert_allclose(values[2, :12], [0.0334149144197] * 8 + [0] * 4, rtol=0, atol=1e-12)
    np.testing.assert_allclose(values[3, :12], [0.0800649454063] * 4 + [0.0334149144197] * 8, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found["hessian_eigenvalue"][0], values[3, :12], rtol=0, atol=1e-9)
    np.testing.assert_allclose(found["class_trace_share"][0], 1, rtol=0, atol=1e-13)
    np.testing.assert_allclose(found["class_alignment"][0], [1, 1], rtol=0, atol=1e-9)
    assert list(found["class_rank"][0]) == [4, 4, 8, 12]


# ---------------------------------------------------------------- other networks
class Samples:
    A = M = None

    def __init__(self, X, Y):
        self.X, self.Y = X, Y


NETWORKS = {
    "unequal-chunks": (7, [9, 4, 6], "widths: [7, 6, 5, 3], bias: true", "grid: {block: 2}", ", microbatch: 3", "tanh"),
    "residual-frozen": (5, [6, 5], "widths: [5, 5, 5, 2], residual: scaled, trainable: [2, 3]", "", "", "gelu"),
    "identity": (None, [3, 4, 4], "widths: [11, 5, 3], output_scale: 1.5", "grid: {block: 1}", "", "tanh"),
    "empty-class": (4, [5, 0, 6], "widths: [4, 6, 3]", "", "", "silu"),
}


def oracle_layers(widths, model, phi):
    """The oracle's layers for a model of the input."""
    depth, residual = len(widths) - 1, "residual" in model
    layers = []
    for l in range(depth):
        skips = residual and widths[l] == widths[l + 1]
        layers.append(oracle.Layer(widths[l], widths[l + 1], phi if l < depth - 1 else "linear", l if skips else None,
                                   1 / depth if skips else 1.0, "trainable" not in model or l > 0, 1.0))
    return layers


@pytest.mark.parametrize("name, ranks", [("unequal-chunks", 4), ("residual-frozen", 2), pytest.param("identity", 3, marks=SLOW),
                                         pytest.param("empty-class", 2, marks=SLOW)])
def test_definitions(run, tmp_path, name, ranks):
    d, counts, model, grid, micro, phi = NETWORKS[name]
    rng = np.random.default_rng(len(name))
    labels = np.repeat(np.arange(len(counts)), counts)
    rng.shuffle(labels)
    Y = np.eye(len(counts))[:, labels]
    X = rng.standard_normal((d, len(labels))) if d else None
    formula.write_data(tmp_path / "data.h5", Y, X)
    done = run(f"""
{grid}
data: {{kind: hdf5, file: {tmp_path}/data.h5, targets: classes}}
model: {{{model}, activation: {phi}, init: {{kind: gaussian}}}}
loss: {{kind: cross_entropy, reduction: sum}}
train: {{lr: 0.01, steps: 4{micro}}}
probes: [{{kind: classes, every: 2, rank: 2, tolerance: 1e-11}}]
snapshot: {{every: 2}}
""", ranks=ranks)
    check(done)
    found = series(done, "classes")
    assert list(found["step"]) == [0, 2, 4]
    widths = [int(n) for n in model[model.index("[") + 1:model.index("]")].split(",")]
    layers = oracle_layers(widths, model, phi)
    for row, step in enumerate(found["step"]):
        with h5py.File(done.dir / f"snapshots/step_{step:09d}.h5") as file:
            W = [file[f"W{l + 1}"][()] for l in range(len(layers))]
            b = [file[f"b{l + 1}"][()].reshape(-1, 1) for l in range(len(layers))] if "bias" in model else None
        case = (("cross_entropy", "sum", 1.5 if "output_scale" in model else 1.0), layers, oracle.Parameters(W, b),
                Samples(np.eye(len(labels)) if X is None else X, Y))
        compare_scaled(found, row, case)


def compare_scaled(found, row, case):
    """The sum over samples is N times the mean."""
    N = case[3].Y.shape[1]
    mean = dict(found)
    for name in ("class_eigenvalue", "class_trace", "ggn_trace"):
        mean[name] = found[name] / N
    compare(mean, row, (("cross_entropy", "samples", case[0][2]), *case[1:]), 2, 1e-11)


# ---------------------------------------------------------------- grids, resume, input errors
TRAINING = """
data: {kind: gaussian, features: 6, outputs: 3, train: 30, targets: classes}
model: {widths: [6, 8, 3], activation: tanh, bias: true}
loss: {kind: cross_entropy}
train: {lr: 0.3, weight_decay: 0.01}
probes: [{kind: classes, every: 2}]
"""
SERIES = ("class_eigenvalue", "class_trace", "class_trace_share", "class_alignment", "hessian_eigenvalue", "hessian_gap")


def test_ranks_and_grids_agree(run):
    reference = run(TRAINING, args=["--set", "train.steps=4"])
    check(reference)
    for rows, cols, block in ((2, 2, 2),):
        done = run(f"grid: {{rows: {rows}, cols: {cols}, block: {block}}}\n{TRAINING}", ranks=rows * cols,
                   args=["--set", "train.steps=4"])
        check(done)
        one, other = series(done, "classes"), series(reference, "classes")
        for name in SERIES:
            np.testing.assert_allclose(one[name], other[name], rtol=1e-6 if name == "hessian_gap" else 1e-10, atol=1e-12,
                                       err_msg=name)


def test_resume_has_the_same_bits(run, tmp_path):
    """The eigenvectors of the Hessian are warm starts: they are in the checkpoint."""
    whole = run(TRAINING, ranks=2, args=["--set", "train.steps=8", "--set", "checkpoint.every=4"])
    check(whole)
    check(run(TRAINING, ranks=2, args=["--set", "train.steps=4", "--out", tmp_path / "parts"]))
    parts = run(TRAINING, ranks=2, args=["--set", "train.steps=8", "--resume", "--out", tmp_path / "parts"])
    check(parts)
    one, other = series(whole, "classes"), series(parts, "classes")
    for name, values in one.items():
        assert values.tobytes() == other[name].tobytes(), name


def test_without_the_hessian(run):
    done = run(TRAINING.replace("every: 2", "every: 2, rank: none"), args=["--set", "train.steps=2"])
    check(done)
    found = series(done, "classes")
    assert "class_alignment" not in found and np.isfinite(found["class_trace"]).all()


@pytest.mark.parametrize("change, message", [
    (("loss: {kind: cross_entropy}", "loss: {kind: mse}"), "cross_entropy"),
    (("outputs: 3", "outputs: 21"), "2 to 20 classes"),
    (("every: 2", "rank: 900"), "has only"),
])
def test_input_errors(run, change, message):
    text = TRAINING.replace(*change)
    done = run(text.replace("8, 3]", "8, 21]") if "21" in change[1] else text, ranks=2)
    check(done, 2)
    assert message in done.stderr and "probes[0]" in done.stderr
