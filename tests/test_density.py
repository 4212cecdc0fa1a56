"""The probe `density`: a spectrum that is known exactly, and small networks against dense matrices in NumPy (acceptance tables of
the specification of curvature operators)."""
from pathlib import Path
import subprocess
import sys

import h5py
import numpy as np
import pytest

import formula
import oracle
import oracle_curvature
from test_oracle_curvature import Samples, ref_unit

INPUTS = Path(__file__).resolve().parent.parent / "inputs" / "hessian"
sys.path.insert(0, str(INPUTS))
from density_known import known_spectrum  # noqa: E402

SLOW = pytest.mark.slow
TABLE = {0.3: 0.62989843, 0.5: 0.83878027, 1: 0.61461090, 1.5: 0.40971801, 2: 0.20975398, 3: 0.01784187}


def check(finished, code=0):
    assert finished.returncode == code, finished.stdout + finished.stderr


def series(finished, group="density"):
    with h5py.File(finished.dir / "metrics.h5") as file:
        return {name: item[()] for name, item in file[group].items()}


# ---------------------------------------------------------------- a known spectrum
def density_known(folder, probes, more=""):
    """Regression whose Hessian is diag(s)."""
    s = known_spectrum()
    formula.write_data(folder / "data.h5", np.zeros((1, 1003)), np.sqrt(1003) * np.diag(np.sqrt(s)))
    return s, f"""
run: {{seed: 7}}
data: {{kind: hdf5, file: {folder}/data.h5}}
model: {{widths: [1003, 1], activation: linear, init: {{kind: gaussian}}}}
loss: {{kind: mse, reduction: samples}}
train: {{steps: 0}}
probes: [{", ".join("{kind: density, " + probe + "}" for probe in probes)}]
{more}"""


def exact_density(x, s, sigma):
    return np.exp(-0.5 * ((x[:, None] - s) / sigma) ** 2).sum(axis=1) / (len(s) * sigma * np.sqrt(2 * np.pi))


def test_the_spectrum_itself():
    s = known_spectrum()
    np.testing.assert_allclose(s[3:][[0, 249, 499, 749, 999]],
                               [0.2535345372, 0.5760160669, 0.9152410207, 1.3644015087, 2.2348160399], atol=1e-10)
    np.testing.assert_allclose([s.sum(), (s**2).sum()], [1011.99893683, 1299.99394426], rtol=1e-10)
    x = np.array(list(TABLE))
    np.testing.assert_allclose(exact_density(x, s, 0.02229300940), list(TABLE.values()), atol=1e-8)


@pytest.mark.parametrize("ranks", [1, pytest.param(4, marks=SLOW)])
def test_known_density(run, tmp_path, ranks):
    s, text = density_known(tmp_path, ["name: ten, kernel: kappa", "name: one, kernel: kappa, vectors: 1",
                                       "name: flat, vector: hadamard, vectors: 1, steps: 20",
                                       "name: signs, vector: rademacher, steps: 2"])
    done = run(text, ranks=ranks)
    check(done)
    check_moments(series(done, "flat"), s)
    flat = series(done, "flat")
    np.testing.assert_allclose(flat["density_node"][0, 0, -3:], [3, 4, 5], rtol=0, atol=1e-9)
    np.testing.assert_allclose(flat["density_weight"][0, 0, -3:], 9.9701e-4, rtol=0, atol=1e-8)
    for group, bound in (("ten", 0.08), ("one", 0.25)):
        check_smooth(series(done, group), s, bound)
    ten = series(done, "ten")
    assert abs(ten["trace_estimate"][0] / s.sum() - 1) < 4 * 0.0074
    assert abs(ten["frobenius_estimate"][0] / (s**2).sum() - 1) < 0.1
    assert ten["negative_mass"][0] == 0 and ten["products"][0] == 800 and np.isnan(ten["trace_exact"][0])
    # A diagonal matrix has no error with random signs.
    np.testing.assert_allclose(series(done, "signs")["trace_estimate"][0], s.sum(), rtol=1e-12)


def check_moments(found, s):
    """For v = 1/√P, up to the degree 2m − 1 that is exact."""
    node, weight = found["density_node"][0, 0], found["density_weight"][0, 0]
    for q in range(2 * len(node)):
        np.testing.assert_allclose(weight @ node**q, np.mean(s**q), rtol=1e-11, err_msg=str(q))


def check_smooth(found, s, bound):
    grid, density, sigma = found["density_grid"][0], found["density"][0], found["density_sigma"][0]
    node, weight = found["density_node"][0], found["density_weight"][0]
    np.testing.assert_allclose(sigma, 0.02229300940, rtol=1e-3)  # the ends of the spectrum are estimates, too
    width = node.max() - node.min()
    np.testing.assert_allclose([grid[0], grid[-1]], [node.min() - 0.05 * width, node.max() + 0.05 * width], rtol=1e-12)
    np.testing.assert_allclose(sigma, 1.1 * width / (79 * np.sqrt(8 * np.log(3))), rtol=1e-12)
    smooth = (weight[:, :, None] * np.exp(-0.5 * ((grid - node[:, :, None]) / sigma)**2)).sum(axis=1).mean(axis=0)
    np.testing.assert_allclose(density, smooth / (sigma * np.sqrt(2 * np.pi)), rtol=1e-10, atol=1e-14)
    distance = np.sum(np.abs(density - exact_density(grid, s, sigma))) * (grid[1] - grid[0])
    assert distance < bound


@SLOW
def test_smoothing_of_the_whole_spectrum(run, tmp_path):
    """All 1003 steps from v = 1/√P find every eigenvalue with the same weight."""
    s, text = density_known(tmp_path, ["vector: hadamard, vectors: 1, steps: 1003, sigma: 0.02229300940, points: 20001"])
    done = run(text, ranks=2)
    check(done)
    found = series(done)
    np.testing.assert_allclose(found["density_node"][0, 0], np.sort(s), atol=1e-9)
    values = np.interp(list(TABLE), found["density_grid"][0], found["density"][0])
    np.testing.assert_allclose(values, list(TABLE.values()), atol=1e-6)
    np.testing.assert_allclose(found["density"][0], exact_density(found["density_grid"][0], s, 0.02229300940), atol=1e-7)


@SLOW
def test_data_of_the_shipped_input(run, tmp_path):
    """`density_known` with the data that its script writes."""
    subprocess.run([sys.executable, INPUTS / "density_known.py"], cwd=tmp_path, check=True)
    with h5py.File(tmp_path / "density_known.h5") as file:
        np.testing.assert_allclose(file["X"][()], np.sqrt(1003) * np.diag(np.sqrt(known_spectrum())), rtol=1e-12)
    done = run((INPUTS / "density_known.yaml").read_text().replace("kernel: kappa}", "kernel: kappa, vectors: 2}"), ranks=2)
    check(done)
    np.testing.assert_allclose(series(done, "curvature")["curvature_eigenvalue"][0, :3], [5, 4, 3], rtol=1e-9)
    np.testing.assert_allclose(series(done, "flat_vector")["density_node"][0, 0, -3:], [3, 4, 5], rtol=0, atol=1e-9)


def test_variance_rule(run, tmp_path):
    _, text = density_known(tmp_path, ["steps: 10, vectors: 2", "name: wide, steps: 10, vectors: 2, sigma: 0.3, points: 50"])
    done = run(text)
    check(done)
    found, wide = series(done), series(done, "wide")
    node = found["density_node"][0]
    np.testing.assert_allclose(found["density_sigma"][0], np.sqrt(1e-5 * (node.max() - node.min())), rtol=1e-12)
    np.testing.assert_allclose(found["density_grid"][0, [0, -1]], [node.min() - 0.01, node.max() + 0.01], rtol=1e-12)
    assert found["density"].shape == (1, 10000) and wide["density"].shape == (1, 50) and wide["density_sigma"][0] == 0.3


# ---------------------------------------------------------------- small networks against dense matrices
def reference_case(folder):
    """curv_ref; returns the oracle's case and the sections of the input."""
    width, samples = [6, 5, 4, 3], Samples()
    W = [ref_unit(611 + l, width[l + 1], width[l]) / np.sqrt(width[l]) for l in range(3)]
    b = [0.1 * ref_unit(631 + l, width[l + 1], 1) for l in range(3)]
    formula.write_data(folder / "data.h5", samples.Y, samples.X)
    with h5py.File(folder / "init.h5", "w") as file:
        for l in range(3):
            file[f"W{l + 1}"], file[f"b{l + 1}"] = W[l], b[l]
    layers = [oracle.Layer(width[l], width[l + 1], "tanh" if l < 2 else "linear", None, 1.0, True, 1.0)
              for l in range(3)]
    text = f"""
data: {{kind: hdf5, file: {folder}/data.h5, targets: classes}}
model: {{widths: [6, 5, 4, 3], activation: tanh, bias: true, init: {{kind: file, file: {folder}/init.h5}}}}
loss: {{kind: cross_entropy}}
"""
    return (("cross_entropy", "samples", 1.0), layers, oracle.Parameters(W, b), samples), text


def matrices(case):
    g = oracle_curvature.dense_g
    return {"hessian": oracle_curvature.dense_hessian(*case), "ggn": oracle_curvature.dense_ggn(*case),
            "g": g(*case), "g_centred": g(*case, centred=True)}


@pytest.mark.parametrize("ranks", [2, pytest.param(1, marks=SLOW), pytest.param(4, marks=SLOW), pytest.param(6, marks=SLOW)])
def test_traces_of_the_reference_case(run, tmp_path, ranks):
    case, text = reference_case(tmp_path)
    dense = matrices(case)
    probes = [f"{{kind: density, name: {name}_{vector}, operator: {name}, vector: {vector}, vectors: {count}, steps: {steps}}}"
              for name in dense
              for vector, count, steps in (("rademacher", 20, 2), ("gaussian", 20, 74), ("hadamard", 128, 1))]
    done = run(f"grid: {{block: 2}}\n{text}train: {{steps: 0}}\nprobes: [{', '.join(probes)}]", ranks=ranks)
    check(done)
    for name, B in dense.items():
        trace, squares = np.trace(B), np.sum(B**2)
        found = series(done, f"{name}_hadamard")
        np.testing.assert_allclose(found["trace_estimate"][0], trace, rtol=1e-12, atol=1e-12)
        if name != "hessian":
            np.testing.assert_allclose(found["trace_exact"][0], trace, rtol=1e-12)
        if name == "hessian":  # all columns of a Hadamard matrix: the norms are exact, too
            share = np.linalg.norm(B - dense["ggn"]) / np.linalg.norm(B)
            np.testing.assert_allclose(found["remainder_share"][0], share, rtol=1e-11)
        else:
            assert "remainder_share" not in found
        found = series(done, f"{name}_rademacher")
        error = np.sqrt(2 * (squares - np.sum(np.diag(B)**2)) / 20)
        assert abs(found["trace_estimate"][0] - trace) < 4 * error
        assert 0.3 * error < found["trace_std_error"][0] < 3 * error
        check_quadrature(series(done, f"{name}_gaussian"), B)


def check_quadrature(found, B):
    """All of the Krylov space: nodes are eigenvalues, and the negative mass is their weight."""
    node, weight, steps = found["density_node"][0], found["density_weight"][0], found["lanczos_steps"][0]
    values = np.linalg.eigvalsh(B)
    for k, count in enumerate(steps):
        assert np.isnan(node[k, count:]).all() and np.isfinite(node[k, :count]).all()
        heavy = node[k, :count][weight[k, :count] > 1e-6]
        assert np.abs(heavy[:, None] - values).min(axis=1).max() < 1e-7
        np.testing.assert_allclose(np.nansum(weight[k]), 1, rtol=1e-12)
    assert steps.max() <= np.linalg.matrix_rank(B, 1e-9) + 2
    negative = np.nansum(np.where(node < -1e-8 * np.nanmax(node), weight, 0)) / len(steps)
    np.testing.assert_allclose(found["negative_mass"][0], negative, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("loss, activation", [("{kind: mse, reduction: samples}", "gelu"), ("{kind: logistic}", "tanh"),
                                              pytest.param("{kind: masked_mse}", "relu", marks=SLOW)])
def test_exact_traces_of_other_losses(run, tmp_path, loss, activation):
    """With a residual sum, a frozen layer, chunks and a scaled output, against all columns of a Hadamard matrix."""
    rng = np.random.default_rng(2)
    mask = {"M": (rng.random((3, 11)) < 0.6).astype(float)} if "masked" in loss else {}
    formula.write_data(tmp_path / "data.h5", (rng.random((3, 11)) < 0.5).astype(float), rng.standard_normal((5, 11)), **mask)
    done = run(f"""
grid: {{block: 2}}
data: {{kind: hdf5, file: {tmp_path}/data.h5}}
model: {{widths: [5, 4, 4, 3], activation: {activation}, bias: true, residual: scaled, output_scale: 1.5, trainable: [2, 3]}}
loss: {loss}
train: {{steps: 2, microbatch: 4}}
probes:
  - {{kind: density, name: ggn, operator: ggn, vector: hadamard, vectors: 64, steps: 1}}
  - {{kind: density, name: g, operator: g, vector: hadamard, vectors: 64, steps: 1}}
  - {{kind: density, name: g_centred, operator: g_centred, vector: hadamard, vectors: 64, steps: 1}}
""", ranks=2)
    check(done)
    for name in ("ggn", "g", "g_centred"):
        found = series(done, name)
        np.testing.assert_allclose(found["trace_exact"], found["trace_estimate"], rtol=1e-11)


# ---------------------------------------------------------------- grids, resume, input errors
PROBES = "[{kind: density, every: 2, steps: 12, vectors: 3}, {kind: density, of: test, operator: ggn, every: 3, steps: 5}]"
TRAINING = """
data: {kind: gaussian, features: 6, outputs: 3, train: 30, test: 12, targets: classes}
model: {widths: [6, 5, 3], activation: tanh, bias: true}
loss: {kind: cross_entropy}
train: {lr: 0.3, weight_decay: 0.01}
probes: """ + PROBES + "\n"


def test_ranks_and_grids_agree(run):
    """Start vectors do not depend on the grid."""
    reference = run(TRAINING, args=["--set", "train.steps=4"])
    check(reference)
    for rows, cols, block in ((1, 2, 3), (2, 2, 2)):
        done = run(f"grid: {{rows: {rows}, cols: {cols}, block: {block}}}\n{TRAINING}", ranks=rows * cols,
                   args=["--set", "train.steps=4"])
        check(done)
        for group in ("density", "density_test"):
            one, other = series(done, group), series(reference, group)
            for name in ("density_node", "density_weight", "trace_estimate", "density_sigma", "frobenius_estimate"):
                np.testing.assert_allclose(one[name], other[name], rtol=1e-9, atol=1e-11, err_msg=name)


def test_resume_has_the_same_bits(run, tmp_path):
    whole = run(TRAINING, ranks=2, args=["--set", "train.steps=6"])
    check(whole)
    check(run(TRAINING, ranks=2, args=["--set", "train.steps=3", "--out", tmp_path / "parts"]))
    parts = run(TRAINING, ranks=2, args=["--set", "train.steps=6", "--resume", "--out", tmp_path / "parts"])
    check(parts)
    one, other = series(whole), series(parts)
    assert list(one["step"]) == [0, 2, 4, 6]
    rows = np.isin(other["step"], one["step"])  # step 3 was the last of the first part
    for name, values in one.items():
        if values.shape[:1] == one["step"].shape:
            assert values.tobytes() == other[name][rows].tobytes(), name


@pytest.mark.parametrize("probe, message", [
    ("of: test", "no held-out samples"),
    ("vector: hadamard, vectors: 40", "has only 32 columns"),
])
def test_input_errors(run, probe, message):
    done = run(f"data: {{kind: gaussian, features: 6, outputs: 3, train: 30}}\nmodel: {{widths: [6, 3]}}\n"
               f"probes: [{{kind: density, {probe}}}]\n", ranks=2)
    check(done, 2)
    assert message in done.stderr and "probes[0]" in done.stderr


def test_no_samples_no_second_moment(run):
    done = run("data: {kind: matrix_sensing, rows: 4, cols: 5, rank: 1, measurements: 9}\nmodel: {width: 4, depth: 2}\n"
               "loss: {kind: sensing}\nprobes: [{kind: density, operator: g}]\n")
    check(done, 2)
    assert "gradients of samples" in done.stderr


def test_plan(command, tmp_path):
    """Without data, weights or a loss."""
    text = TRAINING.replace(PROBES, PROBES[:-1] + ", {kind: classes}]")
    (tmp_path / "input.yaml").write_text(text, encoding="utf-8")
    done = command("plan", tmp_path / "input.yaml", "--ranks", "4")
    check(done)
    assert "probes" in done.stdout
