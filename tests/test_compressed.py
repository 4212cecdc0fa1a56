"""model.parametrization: compressed: the small network in place of the large one says all that the large one would."""
from pathlib import Path

import h5py
import numpy as np
import pytest

import oracle
from same import assert_same

INPUTS = Path(__file__).resolve().parent.parent / "inputs" / "parsimony"
SQUARE = """
data: {{kind: low_rank_matrix, rows: {d}, cols: {d}, rank: 3, spectrum: given, singular_values: [9, 7, 6]}}
model: {{width: {d}, depth: {depth}, activation: linear, init: {{kind: householder, scale: {scale}}}{model}}}
loss: {{reduction: {reduction}}}
train: {{steps: 60, {train}}}
snapshot: {{every: 20}}
{more}
"""
PROBES = """
probes: [{kind: invariant, every: 10}, {kind: spectrum, every: 10, rank: full},
         {kind: spectrum, name: product, of: product, every: 10, rank: 50}]
twins: [{kind: compressed, name: twin, every: 10}]
"""
COMPRESSED = ("--set", "model.parametrization=compressed", "--set", "train.evaluate_every=10")


def check(finished, code=0):
    assert finished.returncode == code, finished.stdout + finished.stderr


def series(finished, name):
    """A quantity by its path, "train/loss"."""
    with h5py.File(finished.dir / "metrics.h5") as file:
        return file[name][()]


def assert_checks_hold(finished, count):
    with h5py.File(finished.dir / "metrics.h5") as file:
        passed = file["checks/passed"][()]
    assert len(passed) == count and passed.all(), finished.stdout


def square(d=60, depth=3, scale=1, reduction="sum", train="lr: 0.004", model="", more=""):
    return SQUARE.format(d=d, depth=depth, scale=scale, reduction=reduction, train=train, model=model, more=more)


def probed(text):
    """The input with all that the large network can be asked for."""
    return text.replace("{steps: 60,", "{steps: 60, evaluate_every: 10,") + PROBES


# ---------------------------------------------------------------- agreement with the large network
def merged(block, rho, order):
    """The spectrum of a layer from the singular values of its block and the copies of rho."""
    return np.sort(np.concatenate([block[np.isfinite(block)], np.full(order, rho)]))[::-1]


def assert_agree(full, small):
    """Everything that the compressed run says is what the large network is, to 1e-12."""
    for name in ("train/loss", "train/gradient_norm", "train/train_loss", "train/learning_rate"):
        np.testing.assert_allclose(series(small, name), series(full, name), rtol=1e-12)
    np.testing.assert_array_equal(series(small, "compressed/step"), series(full, "invariant/step"))
    np.testing.assert_allclose(series(small, "compressed/loss_comp"), series(full, "twin/loss"), rtol=1e-11, atol=1e-12)
    rho = series(small, "compressed/rho")
    measured = series(full, "invariant/rho")
    np.testing.assert_allclose(rho[:, :measured.shape[1]], measured, rtol=1e-12)
    gap = series(full, "twin/comp_gap_sq")
    np.testing.assert_allclose(series(small, "compressed/comp_gap_sq"), gap, rtol=1e-10, atol=1e-20)
    sigma, block = series(full, "spectrum/singular_value"), series(small, "compressed/block_singular_value")
    d, q = sigma.shape[2], block.shape[2]
    for row, layer in np.ndindex(rho.shape):
        if rho[row, layer] == 0:
            found = sigma[row, layer][np.isfinite(sigma[row, layer])]
            np.testing.assert_allclose(block[row, layer][:len(found)], found, rtol=1e-12)
        else:
            np.testing.assert_allclose(merged(block[row, layer], rho[row, layer], d - q), sigma[row, layer], rtol=1e-12)


@pytest.mark.parametrize("ranks", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(4, marks=pytest.mark.slow)])
def test_agreement(run, ranks):
    """Weight decay, unequal scales, a slow and a frozen layer."""
    text = square(scale="[1, 0.9, 0.8, 1.1]", depth=4, train="lr: 0.004, weight_decay: 0.01",
                  model=", lr_multiplier: [1, 0.5, 1, 2], trainable: [1, 2, 4], output_scale: 1.5")
    full, small = run(probed(text), ranks=ranks), run(text, ranks=ranks, args=COMPRESSED)
    check(full)
    check(small)
    assert_agree(full, small)
    assert_checks_hold(small, 2)
    product = merged(series(small, "compressed/product_singular_value")[-1], series(small, "compressed/product_rho")[-1], 54)
    np.testing.assert_allclose(series(full, "product/singular_value")[-1].ravel(), product[:50], rtol=1e-9)
    np.testing.assert_array_equal(series(small, "compressed/block_dim"), series(full, "twin/block_dim"))


@pytest.mark.slow
@pytest.mark.parametrize("start", ["orthogonal", "householder"])
def test_momentum(run, start):
    text = square(reduction="mean", train="lr: 5, optimizer: momentum, momentum: 0.9").replace("householder", start)
    full, small = run(probed(text), ranks=2), run(text, ranks=2, args=COMPRESSED)
    check(full)
    check(small)
    assert_agree(full, small)


@pytest.mark.parametrize("data", ["gaussian, features: 30, outputs: 3, train: 90, whiten: true",
                                  pytest.param("low_rank_matrix, rows: 3, cols: 30, rank: 2, spectrum: given, singular_values: [4, 3]",
                                               marks=pytest.mark.slow)])
def test_few_outputs(run, data):
    """Whitened samples, of which the targets are not all reached; or a flat target, of less than full rank."""
    text = f"""
data: {{kind: {data}}}
model: {{width: 30, depth: 3, activation: linear, init: {{kind: householder, scale: 0.8}}}}
loss: {{reduction: sum}}
train: {{steps: 60, lr: 0.02, weight_decay: 0.01}}
snapshot: {{every: 20}}
"""
    full = run(probed(text).replace("every: 10, rank: 50", "every: 10, rank: 3"), ranks=2)
    small = run(text, ranks=2, args=COMPRESSED)
    check(full)
    check(small)
    assert_agree(full, small)
    assert (series(small, "compressed/product_rho") == 0).all()
    np.testing.assert_allclose(series(small, "compressed/product_singular_value")[-1, :3],
                               series(full, "product/singular_value")[-1].ravel(), rtol=1e-9)


def test_weights_of_the_large_network(run):
    """They follow from blocks, bases, scalars and the start; so does how balanced the layers are."""
    text = square(scale="[1, 0.9, 0.8]", train="lr: 0.004, weight_decay: 0.01")
    full, small = run(text, ranks=2), run(text, ranks=2, args=COMPRESSED)
    check(full)
    check(small)
    with h5py.File(full.dir / "snapshots/step_000000000.h5") as file:
        start = [file[f"W{layer}"][()] for layer in (1, 2, 3)]
    with h5py.File(full.dir / "snapshots/step_000000060.h5") as file:
        end = [file[f"W{layer}"][()] for layer in (1, 2, 3)]
    for W, scale in zip(start, (1, 0.9, 0.8)):
        np.testing.assert_allclose(W @ W.T, scale ** 2 * np.eye(60), atol=1e-13)
        assert np.linalg.norm(W - scale * np.eye(60)) > 5  # nothing like the identity
    with h5py.File(small.dir / "snapshots/step_000000060.h5") as file:
        group = file["compressed"]
        for layer, (before, after, scale) in enumerate(zip(start, end, (1, 0.9, 0.8)), 1):
            V, U, block = (group[name][()] for name in (f"V{layer}", f"V{layer + 1}", f"block{layer}"))
            rebuilt = U @ block @ V.T + group.attrs[f"rho{layer}"] * (before / scale - U @ V.T)
            np.testing.assert_allclose(rebuilt, after, atol=1e-12)
    unbalanced = [np.linalg.norm(W @ W.T - up.T @ up) for W, up in zip(end, end[1:])]
    np.testing.assert_allclose(series(small, "compressed/balancedness")[-1], unbalanced, rtol=1e-11)


# ---------------------------------------------------------------- the start, and the target in factors
def reflections(n, count, seed, stream):
    """D_0 H_1 D_1 … H_k D_k, from the generator's definition."""
    signs = [1.0 - 2.0 * (oracle.random_bits(seed, stream, np.arange(n, dtype=np.uint64) + np.uint64(i * n)) & np.uint64(1))
             for i in range(count + 1)]
    Q = np.diag(signs[0])
    for i in range(1, count + 1):
        v = oracle.random_normal(seed, stream, np.arange(n, dtype=np.uint64) + np.uint64((count + i) * n))
        Q = Q @ (np.eye(n) - 2 * np.outer(v, v) / (v @ v)) @ np.diag(signs[i])
    return Q


@pytest.mark.parametrize("ranks", [1, 4])
def test_start_and_target(run, ranks):
    """Square and rectangular layers, entry by entry; the loss shows the target's singular values."""
    done = run("""
run: {seed: 7}
grid: {block: 3}
data: {kind: low_rank_matrix, rows: 6, cols: 9, rank: 2, spectrum: given, singular_values: [5, 2]}
model: {widths: [9, 13, 13, 6], activation: linear, init: {kind: householder, scale: [1, 2, 1e-9], reflections: 5}}
loss: {reduction: sum}
train: {steps: 0}
snapshot: {every: end}
""", ranks=ranks)
    check(done)
    Q = [reflections(13, 5, 7, oracle.RANDOM_WEIGHTS + layer) for layer in (1, 2, 3)]
    with h5py.File(done.dir / "snapshots/step_000000000.h5") as file:
        for name, W in (("W1", Q[0][:, :9]), ("W2", 2 * Q[1]), ("W3", 1e-9 * Q[2][:6])):
            np.testing.assert_allclose(file[name], W, atol=1e-14)
    np.testing.assert_allclose(series(done, "train/loss")[0], 29 / 2, rtol=1e-8)


# ---------------------------------------------------------------- acceptance table of the specification
@pytest.mark.slow
@pytest.mark.parametrize("train,rho,gap", [
    ("lr: 1, steps: 50", 0.950961122110, 17.74956911),
    ("lr: 1, weight_decay: 1e-3, steps: 500", 0.512192949623, 0.4333240745),
    ("lr: 1, optimizer: momentum, steps: 50", 0.735958871806, 3.813576929),
], ids=["dln_thm", "dln_thm_decay", "dln_momentum"])
def test_theorem(run, train, rho, gap):
    done = run(f"""
data: {{kind: low_rank_matrix, rows: 30, cols: 30, rank: 3}}
model: {{width: 30, depth: 3, activation: linear, parametrization: compressed}}
train: {{{train}}}
""", ranks=2)
    check(done)
    np.testing.assert_allclose(series(done, "compressed/rho")[-1], rho, atol=1e-10)
    np.testing.assert_allclose(series(done, "compressed/comp_gap_sq")[-1], gap, rtol=1e-8)
    assert (series(done, "compressed/rho_multiplicity")[-1] == 24).all()


@pytest.mark.parametrize("ranks", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_diagonal(run, ranks):
    """dln_diag: the spaces of the target meet, three directions move."""
    done = run("""
data: {kind: low_rank_matrix, rows: 8, cols: 8, rank: 3, spectrum: diagonal}
model: {width: 8, depth: 3, activation: linear, parametrization: compressed, init: {kind: identity, scale: 0.5}}
loss: {reduction: sum}
train: {lr: 0.01, steps: 100}
""", ranks=ranks)
    check(done)
    np.testing.assert_allclose(series(done, "train/loss")[-1], 0.1692646647225, rtol=1e-9)
    np.testing.assert_allclose(series(done, "compressed/comp_gap_sq")[-1], 5.587826967e-2, rtol=1e-9)
    assert series(done, "compressed/block_dim")[-1] == 3
    middle = series(done, "compressed/step").tolist().index(50)
    np.testing.assert_allclose(series(done, "compressed/block_singular_value")[middle],
                               np.tile([1.218749133406, 0.862370004706, 0.628648621144], (3, 1)), atol=1e-10)
    np.testing.assert_allclose(series(done, "compressed/rho")[middle], 0.485471873387, atol=1e-10)
    assert (series(done, "compressed/rho_multiplicity") == [[8] * 3] + [[5] * 3] * (len(series(done, "compressed/step")) - 1)).all()


# ---------------------------------------------------------------- restart
def test_resume(run, tmp_path):
    """On the same grid bit for bit; on another the bases are those of the checkpoint, not new ones."""
    text = square(d=40, train="lr: 0.004, optimizer: momentum", more="checkpoint: {every: 10}").replace("steps: 60", "steps: 30")
    check(run(text, ranks=2, args=[*COMPRESSED, "--out", "whole"]))
    for out, ranks in (("pieces", 2), ("other", 4)):
        check(run(text, ranks=2, args=[*COMPRESSED, "--out", out, "--set", "train.steps=13"]))
        check(run(text, ranks=ranks, args=[*COMPRESSED, "--out", out, "--resume"]))
    assert_same(tmp_path / "whole", tmp_path / "pieces")
    with h5py.File(tmp_path / "whole/metrics.h5") as whole, h5py.File(tmp_path / "other/metrics.h5") as other:
        for name in ("train/loss", "train/gradient_norm", "compressed/rho", "compressed/block_singular_value"):
            np.testing.assert_allclose(other[name], whole[name], rtol=1e-11)


# ---------------------------------------------------------------- shipped studies
@pytest.mark.slow
def test_shipped_agreement(command, tmp_path):
    """Full and compressed members of the study are the same network."""
    check(command("sweep", INPUTS / "compressed-agreement.yaml", "--out", tmp_path / "sweep", ranks=2, timeout=600))
    members = {}
    for path in (tmp_path / "sweep").glob("*/metrics.h5"):
        with h5py.File(path) as file:
            text = path.with_name("resolved.yaml").read_text(encoding="utf-8")
            width = next(line.split()[-1] for line in text.splitlines() if line.strip().startswith("width:"))
            members[width, "compressed" in file] = {name: file[f"train/{name}"][()] for name in ("loss", "gradient_norm")}
    assert len(members) == 8
    for (width, compressed), values in members.items():
        for name in values if compressed else ():
            np.testing.assert_allclose(values[name], members[width, False][name], rtol=1e-12, err_msg=f"width {width}")


@pytest.mark.slow
def test_shipped_width_of_100000(run):
    """Nothing of the size of a layer is formed: a layer alone would take 80 GB."""
    done = run(INPUTS / "compressed-100000.yaml", ranks=2, timeout=600)
    check(done)
    assert_checks_hold(done, 2)
    assert series(done, "compressed/rho_multiplicity")[-1].tolist() == [99980] * 3
    assert series(done, "compressed/loss_comp")[-1] < 1e-3 * series(done, "compressed/loss_comp")[0]
    with h5py.File(done.dir / "metrics.h5") as file:
        assert file["timing"].attrs["peak_memory_bytes"] < 500e6


# ---------------------------------------------------------------- inputs that cannot be
def test_bad_settings(run):
    """All of them at once."""
    done = run("""
data: {kind: low_rank_matrix, rows: 20, cols: 20, rank: 2}
model: {width: 20, depth: 3, activation: tanh, bias: true, residual: scaled, parametrization: compressed, init: {kind: gaussian}}
loss: {kind: cross_entropy}
train: {optimizer: adam, batch: 5}
probes: [{kind: spectrum}]
twins: [{kind: narrow}]
""", ranks=2)
    check(done, 2)
    for key, needed in (("model.activation", "linear"), ("model.residual", "none"), ("loss.kind", "mse"),
                        ("model.init.kind", "orthogonal or householder or identity"), ("train.optimizer", "gd or momentum"),
                        ("train.batch", "full")):
        assert f"{key}: is not possible with model.parametrization: compressed, which needs {needed}" in done.stderr
    for text in ("model.bias: a network with biases cannot be compressed", "probes[0].kind: probes look at whole weight matrices",
                 "twins[0].kind: twins are compared with a large network"):
        assert text in done.stderr


@pytest.mark.parametrize("change,message", [
    ("data.singular_values=[1, 2]", "data.singular_values=[1, 2]: has 2 values for a target of rank 3"),
    pytest.param("model.rank=2", "model.rank=2: is 2, but data.rank is 3: leave it out", marks=pytest.mark.slow),
    ("model.width=19", "compressed needs inputs, hidden layers and outputs of equal width"),
    pytest.param("data.rows=90", "here n_0, n_1 and n_3 are 20, 20 and 90", marks=pytest.mark.slow),
    pytest.param("data.cols=6", "here n_0, n_1 and n_3 are 6, 20 and 20", marks=pytest.mark.slow),
])
def test_bad_matrices(run, change, message):
    done = run(square(d=20), args=["--set", "model.parametrization=compressed", "--set", change])
    check(done, 2)
    assert message in done.stderr


@pytest.mark.parametrize("data,message", [
    pytest.param("outputs: 3, train: 60, test: 5, whiten: true", "a compressed run has no test set", marks=pytest.mark.slow),
    ("outputs: 3, train: 60", "compressed needs whitened inputs"),
    ("outputs: 20, train: 60, whiten: true", "model.rank: give the rank r of the target"),
])
def test_bad_samples(run, data, message):
    done = run(f"""
data: {{kind: gaussian, features: 20, {data}}}
model: {{width: 20, depth: 3, activation: linear, parametrization: compressed}}
""")
    check(done, 2)
    assert message in done.stderr


@pytest.mark.parametrize("rank,message", [(3, "model.rank: is 3, but the rank of the target is larger"),
                                          (10, "model.rank: is 10, but 2r must be smaller than the width, 20")])
def test_bad_ranks(run, rank, message):
    done = run(f"""
data: {{kind: gaussian, features: 20, outputs: 20, train: 60, whiten: true}}
model: {{width: 20, depth: 3, activation: linear, parametrization: compressed, rank: {rank}}}
""")
    check(done, 2)
    assert message in done.stderr
