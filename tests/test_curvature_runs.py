"""The probe `curvature` in runs: the edge of stability, eigenpairs that are tracked, resumed and killed runs, what lies in the
eigenspace by NumPy, and the theory of mixtures beside the measurement."""
import signal
import time

import h5py
import numpy as np
import pytest
import yaml

import formula
import oracle
import oracle_curvature
from run import descendants, send
from same import assert_same
from test_curvature import INPUTS, MATRICES, check, probe, series, vectors
from test_restart import Process


# ---------------------------------------------------------------- edge of stability
@pytest.mark.parametrize("lr, losses, sharpness, last", [
    (0.25, [0.125, 0.0432363769531, 0.0174772214579], [6.25, 6.76359090774, 6.25057746622], 6.38111372412),
    (0.35, [0.125], [6.25], 4.49690369019)])
def test_scalar_at_the_edge_of_stability(run, tmp_path, lr, losses, sharpness, last):
    formula.write_data(tmp_path / "data.h5", np.ones((1, 1)), np.ones((1, 1)))
    formula.write_weights(tmp_path / "start.h5", [np.full((1, 1), 0.2), np.full((1, 1), 2.5)])
    done = check(run(f"""
data:  {{kind: hdf5, file: {tmp_path / "data.h5"}}}
model: {{widths: [1, 1, 1], activation: linear, init: {{kind: file, file: {tmp_path / "start.h5"}}}}}
train: {{lr: {lr}, steps: 200, compress: false}}
probes:
{probe("curvature", every=1, rank=1)}
"""))
    found = series(done)["curvature"]
    assert np.allclose(found["sharpness"][:len(sharpness)], sharpness, rtol=0, atol=1e-10)
    assert np.isclose(found["sharpness"][-1], last, rtol=0, atol=1e-9)
    assert np.allclose(found["loss"][:len(losses)], losses, rtol=0, atol=1e-10 if lr == 0.25 else 1)
    assert np.allclose(found["stability_threshold"], 2 / lr) and np.allclose(found["stability_ratio"], found["sharpness"] * lr / 2)
    assert (found["loss"][1] > found["loss"][0]) == (lr == 0.35)


def eos_tanh(lr, steps, every):
    """A member of the sweep `eos_tanh`."""
    text = (INPUTS / "eos_tanh.yaml").read_text().partition("\nsweep:")[0]
    assert "lr: 0.1, steps: 6000" in text and "every: 50" in text
    return text.replace("lr: 0.1, steps: 6000", f"lr: {lr}, steps: {steps}").replace("every: 50", f"every: {every}") + "\n"


def test_first_steps_at_the_edge_of_stability(run):
    done = check(run(eos_tanh(0.3, 100, 50), ranks=2))
    with h5py.File(done.dir / "metrics.h5") as file:
        loss = file["train/loss"][()]
    assert np.allclose(loss[[0, 1, 100]], [2.06402315764, 0.658468739385, 0.0436059122014], rtol=0, atol=1e-9)
    assert np.isclose(series(done)["curvature"]["sharpness"][0], 9.0403, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("lr, median", [(0.1, None), (0.2, 0.9999), (0.3, 1.0005)])
def test_edge_of_stability(run, lr, median):
    """`eos_tanh`: no edge at the smallest rate, where the loss is monotone; else the threshold itself."""
    done = check(run(eos_tanh(lr, 6000, 10), ranks=2, timeout=600))
    found = series(done)["curvature"]
    late = found["step"] >= 3000
    if median:
        assert np.isclose(np.median(found["stability_ratio"][late]), median, atol=0.01)
        assert np.nanmean(found["loss_increase_share"][late]) > 0.2
        return
    assert np.isclose(found["sharpness"][-1], 10.6252, rtol=0, atol=1e-4)
    assert np.isclose(found["stability_ratio"][-1], 0.531, atol=5e-4)
    assert np.nanmax(found["loss_increase_share"]) == 0
    with h5py.File(done.dir / "metrics.h5") as file:
        assert np.all(np.diff(file["train/loss"][()]) < 0)


# ---------------------------------------------------------------- one layer
@pytest.mark.parametrize("share, diverges", [(0.99, False), (1.01, True)])
@pytest.mark.parametrize("rule, limit", [("gd", 2), ("momentum, momentum: 0.5", 3), ("nesterov, momentum: 0.5", 1.5)])
def test_one_linear_layer_diverges_beyond_the_threshold(run, rule, limit, share, diverges):
    """Any data: exactly where η λ_max > 2; 2(1 + μ) with the heavy ball, 2(1 + μ)/(1 + 2μ) with Nesterov's momentum."""
    text = """
data:  {kind: gaussian, features: 5, outputs: 2, train: 30}
model: {widths: [5, 2], activation: linear, init: {kind: gaussian}}
loss:  {kind: mse, reduction: samples}
train: {lr: LR, steps: STEPS, optimizer: RULE}
probes: [{kind: curvature, rank: 1, tolerance: 1e-12, every: 500}]
""".replace("RULE", rule)
    first = series(check(run(text.replace("LR", "0.1").replace("STEPS", "0"))))["curvature"]
    lr = share * limit / first["sharpness"][0]
    found = series(check(run(text.replace("LR", repr(lr)).replace("STEPS", "500"))))["curvature"]
    assert np.isclose(found["stability_ratio"][0], share, rtol=1e-9)
    assert (found["loss"][1] > 10 * found["loss"][0]) == diverges
    assert diverges or found["loss"][1] < found["loss"][0]


# ---------------------------------------------------------------- a tracked run
def tracked(every=5, more="", only=None):
    """Batches, momentum and weight decay; eigenpairs every few steps, by all of the probes or by a few."""
    return "\n".join([
        "run: {seed: 3}", "data: {kind: gaussian, features: 8, outputs: 3, targets: classes, train: 30, test: 12}",
        "model: {widths: [8, 6, 3], activation: tanh, bias: true}", "loss: {kind: cross_entropy}",
        "train: {optimizer: momentum, lr: 0.05, momentum: 0.5, batch: 10, steps: 40, evaluate_every: 8, weight_decay: 0.01}",
        "snapshot: {every: 20}", "probes:",
        *(probe(name, every=every, **keys) for name, keys in {
            "hessian": {"rank": 3, "which": "both", "reference": 7}, "test": {"of": "test", "rank": 2, "operator": "ggn"},
            "batch": {"of": "batch", "rank": 2, "operator": "g"}, "magnitude": {"rank": 3, "which": "magnitude"},
            "cross": {"block": "[2, 1]", "rank": 2}, "layer": {"block": 1, "rank": 2, "start": 10},
            "unit": {"block": 2, "unit": 2, "rank": 2}}.items()
          if only is None or name in only), more, ""])


def test_resumed_runs_have_the_same_bits(run, tmp_path):
    check(run(tracked(), args=["--out", "whole"]))
    for steps in (13, 20, 40):
        check(run(tracked(), args=["--out", "pieces", "--resume", "--set", f"train.steps={steps}"]))
    assert_same(tmp_path / "whole", tmp_path / "pieces")


def parameters(finished, step):
    with h5py.File(finished.dir / "snapshots" / f"step_{step:09d}.h5") as file:
        return oracle.Parameters([file[f"W{l}"][()] for l in (1, 2)], [file[f"b{l}"][()].reshape(-1, 1) for l in (1, 2)])


def alignment(V, x):
    return np.linalg.norm(V.T @ x) / np.linalg.norm(x)


def test_shares_are_those_of_numpy(run):
    text = tracked()
    done = check(run(text))
    found, spec = series(done), yaml.safe_load(text)
    data, layers = oracle.load_data(spec), oracle.build_network(yaml.safe_load(text), 8, 3)
    p = parameters(done, 40)
    theta = oracle_curvature.pack(p.W, p.b)
    case = oracle.loss_of(spec), layers, p, data.train
    H = MATRICES["hessian"](*case) + 0.01 * np.eye(theta.size)
    values_, V = np.linalg.eigh(H)
    V = V[:, :-4:-1]
    last = {name: values[-1] for name, values in found["hessian"].items()}
    assert np.allclose(last["curvature_eigenvalue"], [*values_[:-4:-1], *values_[:3]], rtol=0, atol=1e-10)
    g = oracle_curvature.sample_gradients(*case).sum(axis=1) + 0.01 * theta
    assert np.isclose(last["chi_k_full"], alignment(V, g), rtol=1e-7)
    assert np.isclose(last["gradient_top_share"], alignment(V, g)**2, rtol=1e-7)
    assert np.isclose(last["rayleigh_gradient"], g @ H @ g / (g @ g), rtol=1e-9)
    batch = oracle.batch_of(spec, data.train, 40)
    g = oracle_curvature.sample_gradients(*case[:3], batch).sum(axis=1) + 0.01 * theta
    assert np.isclose(last["chi_k_batch"], alignment(V, g), rtol=1e-7)
    assert np.isclose(last["stability_threshold"], (2 - 0.05 * 0.01) * 1.5 / 0.05 + 0.01)
    weights = [np.zeros(theta.size), np.zeros(theta.size)]
    weights[0][:48], weights[1][54:72] = p.W[0].ravel(), p.W[1].ravel()
    assert np.allclose(last["alignment_layer"], [alignment(V, w) for w in weights], rtol=1e-7)
    assert np.isclose(last["alignment_weights"], alignment(V, weights[0] + weights[1]), rtol=1e-7)
    before = vectors(done, 20, "hessian")
    assert np.isclose(alignment(V, vectors(done, 40, "hessian")[:, 0]), 1, atol=1e-10)
    assert found["hessian"]["step"][4] == 20 and np.isnan(found["hessian"]["subspace_overlap"][0])
    reference = series(check(run(tracked(more="checkpoint: {end: false}"), args=["--set", "train.steps=10"])))
    assert np.isnan(found["hessian"]["reference_overlap"][:2]).all()
    assert np.isclose(found["hessian"]["reference_overlap"][2], 1, rtol=0, atol=1e-12)
    assert np.allclose(reference["hessian"]["curvature_eigenvalue"][:3], found["hessian"]["curvature_eigenvalue"][:3])
    assert before.shape == (theta.size, 3)
    check_layer({name: values[-1] for name, values in found["layer"].items()}, H[:54, :54], p)
    check_unit({name: values[-1] for name, values in found["unit"].items()}, H[54:, 54:], p)
    hidden = np.tanh(p.W[0] @ data.train.X + p.b[0])
    check_means({name: values[-1] for name, values in found["layer"].items()}, H[:54, :54], data.train.X, data.train.Y, 6)
    at = 54 + np.array([*range(6, 12), 19])
    check_means({name: values[-1] for name, values in found["unit"].items()}, H[np.ix_(at, at)], hidden, data.train.Y, 1)
    assert np.array_equal(found["layer"]["step"], range(10, 41, 5))


def check_layer(last, B, p):
    V = np.linalg.eigh(B)[1][:, :-3:-1]
    W, alone = p.W[0], np.zeros((6, 8))
    for a in range(6):
        row = alone.copy()
        row[a] = W[a]
        assert np.isclose(last["alignment_row"][a], alignment(V[:48], row.ravel()), rtol=1e-7)
    for b in range(8):
        column = alone.copy()
        column[:, b] = W[:, b]
        assert np.isclose(last["alignment_column"][b], alignment(V[:48], column.ravel()), rtol=1e-7)
    assert np.isclose(last["alignment_weights"], alignment(V[:48], W.ravel()), rtol=1e-7)


def check_unit(last, B, p):
    at = [*range(6, 12), 19]
    V = np.linalg.eigh(B[np.ix_(at, at)])[1][:-1, :-3:-1]
    for a, row in enumerate(p.W[1]):
        assert np.allclose(last["alignment_outlier"][a], [alignment(V[:, :1], row), alignment(V, row)], rtol=1e-7)
    assert np.isclose(last["alignment_weights"], np.linalg.norm(p.W[1] @ V) / np.linalg.norm(p.W[1]), rtol=1e-7)


def check_means(last, B, features, Y, rows):
    """Class means of what a layer gets, by numpy; the eigenvectors as matrices of `rows` rows."""
    n, M = features.shape[0], features @ Y.T / Y.sum(axis=1)
    V = [v[:rows * n].reshape(rows, n) for v in np.linalg.eigh(B)[1][:, :-3:-1].T]
    Q = np.linalg.qr(M)[0]
    assert np.allclose(last["class_mean_share"], [np.sum((v @ Q)**2) for v in V], rtol=1e-7)
    m = M / np.linalg.norm(M, axis=0)
    along = sum(np.sum((v @ m)**2, axis=0) for v in V)
    assert np.allclose(last["alignment_class_mean"], np.sqrt(along / min(2, rows)), rtol=1e-7)
    assert np.isclose(last["class_mean_random"], 3 / n)


def test_how_often_the_loss_rose(run):
    """Against the losses that the trainer recorded; whatever the intervals, and the same after a restart."""
    text = tracked(every=7)
    done = check(run(text))
    with h5py.File(done.dir / "metrics.h5") as file:
        loss = file["train/loss"][()]
    group = series(done)["hessian"]
    steps, rose = group["step"], np.diff(loss) > 0
    assert np.isnan(group["loss_increase_share"][0])
    expected = [rose[first:last].mean() for first, last in zip(steps, steps[1:])]
    assert 0 < np.mean(expected) < 1 and np.allclose(group["loss_increase_share"][1:], expected, rtol=1e-14)


# ---------------------------------------------------------------- killed in the middle
def killed_in_the_middle(mpirun, eigentrain, folder, text):
    """A run on two ranks without an end, all of whose processes get SIGKILL after its second checkpoint. Returns the step of its
    last checkpoint."""
    (folder / "input.yaml").write_text(text)
    words = [*mpirun, "-n", 2, eigentrain, "run", "input.yaml", "--out", "killed", "--set", "train.steps=100000000"]
    with Process(words, folder) as process:
        while len(list(folder.glob("killed/checkpoints/step*.h5"))) < 2:
            assert process.child.poll() is None, process.end(0)
            time.sleep(0.01)
        send(signal.SIGKILL, descendants(process.child.pid) | {process.child.pid})
        code, said = process.end(30)
    assert code not in (0, 2, 3, 4, 70), said
    return max(int(path.stem[5:]) for path in (folder / "killed/checkpoints").glob("step*.h5"))


def test_killed_runs_have_the_same_eigenvalues(run, mpirun, eigentrain, tmp_path):
    """SIGKILL in the middle of a tracked run: what it gives in the end is that of an unbroken run, bit for bit."""
    text = tracked(every=3, more="checkpoint: {every: 4}", only=("hessian", "cross", "magnitude"))
    text = text.replace("snapshot: {every: 20}", "snapshot: {every: 6}")
    text = text.replace("checkpoint: {every: 4}", "checkpoint: {every: 28}")
    there = killed_in_the_middle(mpirun, eigentrain, tmp_path, text)
    assert there >= 56 and not (tmp_path / "killed/metrics.h5").exists()
    end = ["--set", f"train.steps={there + 10}"]
    resumed = check(run(text, ranks=2, args=["--out", "killed", "--resume", *end]))
    assert f"resumes from the checkpoint of step {there}, bit for bit" in resumed.stdout
    whole = check(run(text, ranks=2, args=["--out", "whole", *end]))
    one, other = series(whole), series(resumed)
    assert one["hessian"]["step"][-1] == there + 10 and len(one) == 3
    for name, group in one.items():
        for key, measured in group.items():
            assert measured.tobytes() == other[name][key].tobytes(), (name, key)
    assert_same(tmp_path / "whole", tmp_path / "killed")


# ---------------------------------------------------------------- theory beside the measurement
def test_outliers_of_a_mixture(run, tmp_path):
    """`kgmm_static` at W = 0, d = 400: the closed form, and the four outliers around it."""
    formula.write_weights(tmp_path / "start.h5", [np.zeros((4, 400))])
    done = check(run(f"""
data:  {{kind: gaussian_mixture, features: 400, classes: 4, lambda: 10, counts: equal, train: 1600}}
model: {{widths: [400, 4], init: {{kind: file, file: {tmp_path / "start.h5"}}}}}
loss:  {{kind: cross_entropy}}
train: {{steps: 0}}
probes:
{probe("h", block=1, unit=1, rank=5)}
{probe("g", operator="g", block=1, unit=1, rank=2)}
"""))
    found = series(done)
    h, g = ({name: values[0] for name, values in found[key].items()} for key in "hg")
    assert np.isclose(h["bulk_edge_theory"], 0.0421875, rtol=1e-6) and h["outlier_count"] == 4
    assert np.allclose(h["outlier_theory"][:4], 0.0721875, rtol=1e-6) and np.isnan(h["outlier_theory"][4])
    assert np.allclose(h["outlier_projection_theory"][:4, 0], 0.872727, atol=1e-4)
    assert np.isclose(h["curvature_eigenvalue"][:4].mean(), 0.07219, rtol=0.04)
    assert np.isclose(h["outlier_projection"][:4, 0].mean(), 0.873, atol=0.03)
    assert 0.95 < h["curvature_eigenvalue"][4] / 0.0421875 < 1.02
    assert np.isclose(g["outlier_theory"][0], 0.17489158, rtol=1e-5) and g["outlier_count"] == 1
    assert np.isclose(g["curvature_eigenvalue"][0], 0.17489, rtol=0.07)
    assert np.isclose(g["outlier_projection"][0, 0], 0.900, atol=0.03)
