"""Training in the dominant subspace of the Hessian or in the bulk: against dense NumPy matrices, the table of the
specification of Hessian neighbours (section 7), restarts, and what is refused."""
from pathlib import Path

import h5py
import numpy as np
import pytest

import formula
import oracle
import oracle_curvature
from same import assert_same
from test_oracle_curvature import ref_unit

SMALL = """
data:  {{kind: hdf5, file: {folder}/data.h5, targets: classes}}
model: {{widths: [6, 5, 4, 3], activation: tanh, bias: true, init: {{kind: file, file: {folder}/start.h5}}}}
loss:  {{kind: cross_entropy}}
train:
  {{optimizer: sgd, lr: 0.1, batch: 10, order: sequential, weight_decay: {decay}, steps: {steps}, evaluate_every: 100,
   project: {{kind: {kind}, rank: 3, {switch}}}}}
snapshot: {{every: end}}
checkpoint: {{every: 7}}
"""
SONG = """
data:  {{kind: hdf5, file: {folder}/data.h5, targets: classes}}
model: {{widths: [30, 64, 64, 10], activation: tanh, init: {{kind: file, file: {start}}}}}
loss:  {{kind: mse, reduction: samples}}
train: {{{rule}, lr: 0.05, steps: {steps}, evaluate_every: 200{project}}}
snapshot: {{every: end}}
"""
SGD = "optimizer: sgd, batch: 50, order: sequential"


def check(finished, code=0):
    assert finished.returncode == code, finished.stdout + finished.stderr
    return finished


def series(finished):
    with h5py.File(finished.dir / "metrics.h5") as file:
        return {name: item[()] for name, item in file["project"].items()}


def evaluated(finished):
    with h5py.File(finished.dir / "metrics.h5") as file:
        return dict(zip(file["train/evaluated_step"][()], file["train/train_loss"][()]))


# ---------------------------------------------------------------- a small network
class Samples:
    M = A = None

    def __init__(self, X, Y):
        self.X, self.Y = X, Y


WIDTHS = [6, 5, 4, 3]
LAYERS = [oracle.Layer(WIDTHS[l], WIDTHS[l + 1], "tanh" if l < 2 else "linear", None, 1.0, True, 1.0) for l in range(3)]
LOSS = ("cross_entropy", "mean", 1.0)


@pytest.fixture
def small(tmp_path):
    """curv_ref: its samples and start, written to files."""
    classes = np.arange(24) % 3
    samples = Samples(ref_unit(601, 6, 24) + ref_unit(602, 6, 3)[:, classes], np.eye(3)[:, classes])
    W = [ref_unit(611 + l, WIDTHS[l + 1], WIDTHS[l]) / np.sqrt(WIDTHS[l]) for l in range(3)]
    b = [0.1 * ref_unit(631 + l, WIDTHS[l + 1], 1) for l in range(3)]
    formula.write_data(tmp_path / "data.h5", samples.Y, samples.X)
    with h5py.File(tmp_path / "start.h5", "w") as file:
        for l in range(3):
            file[f"W{l + 1}"], file[f"b{l + 1}"] = W[l], b[l]
    return samples, oracle_curvature.pack(W, b)


def small_input(folder, **more):
    return SMALL.format(folder=folder, **{"kind": "dominant", "decay": 0, "steps": 15, "switch": "step: 4", **more})


def by_numpy(small, kind, steps, switch, decay):
    """Parameters at the end, chi of the full and of the batch gradient from the switch on."""
    samples, theta = small
    chi = []
    for step in range(steps + 1):
        parameters = oracle_curvature.unpack(theta, LAYERS, True)
        columns = (10 * step + np.arange(10)) % 24
        batch = Samples(samples.X[:, columns], samples.Y[:, columns])
        g, full = (oracle_curvature.sample_gradients(LOSS, LAYERS, parameters, s).sum(axis=1) + decay * theta
                   for s in (batch, samples))
        if step >= switch:
            V = np.linalg.eigh(oracle_curvature.dense_hessian(LOSS, LAYERS, parameters, samples))[1][:, -3:]
            chi.append([np.linalg.norm(V.T @ x) / np.linalg.norm(x) for x in (full, g)])
            g = V @ (V.T @ g) if kind == "dominant" else g - V @ (V.T @ g)
        if step < steps:
            theta = theta - 0.1 * g
    return theta, np.array(chi)


@pytest.mark.parametrize("kind, decay, ranks", [("dominant", 0, 1), ("dominant", 0.05, 2), ("bulk", 0, 2), ("bulk", 0.05, 1)])
def test_small_network_is_that_of_numpy(run, tmp_path, small, kind, decay, ranks):
    done = check(run(small_input(tmp_path, kind=kind, decay=decay), ranks=ranks))
    theta, chi = by_numpy(small, kind, 15, 4, decay)
    with h5py.File(done.dir / "snapshots/step_000000015.h5") as file:
        end = oracle_curvature.pack(*([file[f"{name}{l}"][()].reshape(-1, 1) if name == "b" else file[f"{name}{l}"][()]
                                       for l in (1, 2, 3)] for name in "Wb"))
    assert np.allclose(end, theta, rtol=0, atol=1e-8)
    probe = series(done)
    assert np.array_equal(probe["step"], np.arange(4, 16)) and np.all(probe["switch_step"] == 4)
    assert np.all(probe["eigen_converged"] == 3)
    assert np.allclose(probe["chi_k_full"], chi[:, 0], atol=1e-7) and np.allclose(probe["chi_k_batch"], chi[:, 1], atol=1e-7)
    removed = np.sqrt(1 - chi[:, 1]**2) if kind == "dominant" else chi[:, 1]
    assert np.allclose(probe["removed_share"], removed, atol=1e-6)
    average = chi[0, 0]
    for value, found in zip(chi[1:, 0], probe["chi_k_average"][1:]):
        average = 0.9 * average + 0.1 * value
        assert np.isclose(found, average, atol=1e-7)


def test_the_average_decides(run, tmp_path, small):
    """The first step whose average exceeds the threshold; nothing is left out before."""
    plain = series(check(run(small_input(tmp_path, switch="switch: alignment, threshold: 1"))))
    assert np.all(plain["switch_step"] == -1) and np.all(plain["removed_share"] == 0)
    threshold = 0.5 * (plain["chi_k_average"][:7].max() + plain["chi_k_average"].max())
    probe = series(check(run(small_input(tmp_path, switch=f"switch: alignment, threshold: {threshold}"))))
    above = np.flatnonzero(probe["chi_k_average"] > threshold)
    expected = np.where(np.arange(16) < above[0], -1, above[0])
    assert len(above) and np.array_equal(probe["switch_step"], expected)
    assert np.array_equal(probe["removed_share"] > 0, expected >= 0)


@pytest.mark.parametrize("switch", ["step: 3, every: 2", "switch: alignment, threshold: 0.3"])
def test_interrupted_runs_end_with_the_same_bits(run, tmp_path, small, switch):
    text = small_input(tmp_path, switch=switch)
    check(run(text, ranks=2, args=["--out", "whole"]))
    for stop in (5, 11):
        check(run(text, ranks=2, args=["--out", "pieces", "--resume", "--set", f"train.steps={stop}"]))
    check(run(text, ranks=2, args=["--out", "pieces", "--resume"]))
    assert_same(tmp_path / "whole", tmp_path / "pieces")


def test_what_is_refused(run, tmp_path, small):
    text = small_input(tmp_path)
    for change, message in [
            (("optimizer: sgd", "optimizer: adam"), "train.optimizer: train.project projects gradients: take gd or sgd"),
            (("bias: true", "bias: true, lr_multiplier: [1, 2, 1]"), "model.lr_multiplier: train.project needs the same"),
            (("rank: 3", "rank: 75"), "train.project.rank: is 75, but only 74 parameters are trained"),
            (("optimizer: sgd, lr: 0.1, batch: 10", "optimizer: gd, lr: 0.1"), "train.order: sequential is an order of batches")]:
        done = check(run(text.replace(*change)), 2)
        assert message in done.stderr, done.stderr


# ---------------------------------------------------------------- song_synthetic
@pytest.fixture
def song(run, tmp_path):
    """song(steps, rule, project, start): a run of tanh_ref(520; 1, 0.5, 0.3, 1000)."""
    classes, d = np.arange(1000) % 10, [30, 64, 64, 10]
    X = ref_unit(521, 30, 1) + 0.5 * ref_unit(522, 30, 10)[:, classes] + 0.3 * ref_unit(523, 30, 1000)
    formula.write_data(tmp_path / "data.h5", np.eye(10)[:, classes], X)
    formula.write_weights(tmp_path / "start.h5", [ref_unit(530 + l, d[l], d[l - 1]) / np.sqrt(d[l - 1]) for l in (1, 2, 3)])

    def start(steps, rule=SGD, project=None, start=tmp_path / "start.h5", ranks=1):
        project = f", project: {project}" if project else ""
        return check(run(SONG.format(folder=tmp_path, start=start, rule=rule, steps=steps, project=project), ranks=ranks,
                         timeout=1200))
    return start


def test_table_to_the_alignment(song):
    """The first 200 steps of SGD, and chi_10 there."""
    done = song(200, project="{kind: bulk, step: 200}")
    loss, probe = evaluated(done), series(done)
    assert np.isclose(loss[0], 2.6658923, rtol=1e-6) and np.isclose(loss[200], 0.060732579, rtol=1e-6)
    assert probe["step"] == [200] and np.isclose(probe["chi_k_full"][0], 0.9937, atol=1e-4)


@pytest.mark.slow
def test_the_eigenspace_stays(run):
    """The sweep `song_synthetic` as it is shipped, here its member of plain SGD: how much of E_10 of step 1000 is kept."""
    text = (Path(__file__).resolve().parent.parent / "inputs/hessian/song_synthetic.yaml").read_text()
    plain = text.partition("\nsweep:")[0].replace("kind: dominant, rank: 10, step: 1000", "kind: none") + "\n"
    done = check(run(plain, timeout=600))
    loss = evaluated(done)
    assert np.isclose(loss[0], 2.6658923, rtol=1e-6) and np.isclose(loss[200], 0.060732579, rtol=1e-6)
    assert np.isclose(loss[1000], 0.029771372, rtol=1e-6) and np.isclose(loss[1400] / loss[1000], 0.8385, atol=1e-3)
    with h5py.File(done.dir / "metrics.h5") as file:
        overlap = file["curvature/reference_overlap"][()]
        assert list(file["curvature/step"]) == [1000, 1100, 1200, 1300, 1400]
    assert np.allclose(overlap, [1, 0.99968, 0.99880, 0.99747, 0.99579], rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_batches_and_data(run, seed):
    """The same sizes with random numbers: what the dominant part and the bulk do to the loss does not depend on them."""
    text = (Path(__file__).resolve().parent.parent / "inputs/hessian/song_synthetic.yaml").read_text().partition("\nsweep:")[0]
    for fixed, free in ((",\n   sequence: [521, 522, 523]", ""), (", sequence: 531", ""), (", order: sequential", ""),
                        ("\nprobes:\n  - {kind: curvature, rank: 10, start: 1000, every: 100, reference: 1000}", "")):
        assert fixed in text
        text = text.replace(fixed, free)
    for kind, lowest, highest in (("none", 0, 0.90), ("dominant", 0.97, 1.05), ("bulk", 0, 0.90)):
        project = "kind: none" if kind == "none" else f"kind: {kind}, rank: 10, step: 1000"
        member = text.replace("kind: dominant, rank: 10, step: 1000", project) + "\n"
        loss = evaluated(check(run(member, args=["--set", f"run.seed={seed}"], timeout=600)))
        assert lowest <= loss[1400] / loss[1000] <= highest, kind


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_table_of_projected_training(song, ranks):
    first = song(1000, project="{kind: bulk, rank: 11, step: 1000}", ranks=ranks)
    there, before = first.dir / "snapshots/step_000001000.h5", evaluated(first)[1000]
    assert np.isclose(before, 0.029771372, rtol=1e-6)
    value = series(first)["curvature_eigenvalue"][0]
    assert np.allclose(value[[0, 9, 10]], [33.5898, 19.0847, 3.1719], rtol=1e-4)
    ratio, chi = {}, {}
    for kind in ("sgd", "dominant", "bulk"):  # step 1000 begins an epoch, so that the order of the samples goes on
        done = song(400, start=there, project=None if kind == "sgd" else f"{{kind: {kind}}}", ranks=ranks)
        ratio[kind] = evaluated(done)[400] / before
        chi[kind] = series(done) if kind != "sgd" else None
    assert np.isclose(ratio["sgd"], 0.8385, atol=1e-3)
    assert np.isclose(ratio["dominant"], 0.9996, atol=3e-3)
    assert np.isclose(ratio["bulk"], 0.8475, atol=1e-3)
    for kind, mean in (("dominant", 0.900), ("bulk", 0.899)):
        assert np.isclose(chi[kind]["chi_k_full"][0], 0.9959, atol=1e-4)
        assert np.isclose(np.mean(chi[kind]["chi_k_batch"][:400]), mean, atol=0.005)
    descent = song(400, rule="optimizer: gd", start=there, ranks=ranks)
    assert np.isclose(evaluated(descent)[400], 0.024183, atol=1e-5)
    after = song(50, rule="optimizer: gd", start=there, project="{kind: bulk, step: 50}", ranks=ranks)
    assert series(after)["chi_k_full"][0] < 0.01
