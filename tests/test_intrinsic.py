"""Reduced dynamics of linear networks and conservation laws: the shipped inputs against the numbers of an independent
computation (shared specification of intrinsic dynamics, section 6), what is refused, and the command `laws`."""
from pathlib import Path
import re
import subprocess
import sys

import h5py
import numpy as np
import pytest
import yaml

from same import assert_same

ROOT = Path(__file__).resolve().parent.parent
INPUTS = ROOT / "inputs" / "intrinsic"
sys.path.insert(0, str(INPUTS))
import reference  # noqa: E402

slow = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the script has put starts and targets."""
    path = tmp_path_factory.mktemp("reference")
    subprocess.run([sys.executable, INPUTS / "reference.py"], cwd=path, check=True)
    return path


def put(spec, key, value):
    *parents, last = key.split(".")
    for parent in parents:
        name, _, number = parent.rstrip("]").partition("[")
        spec = spec[name][int(number)] if number else spec[name]
    spec[last] = value


def study(folder, name, member=0, **more):
    """A member of a shipped study as text, its files in `folder`; `more` as {"train__lr": 1}."""
    spec = yaml.safe_load((INPUTS / f"{name}.yaml").read_text(encoding="utf-8"))
    for key, values in spec.pop("sweep", {"zip": {}}).get("zip", {}).items():
        put(spec, key, values[member])
    for key, value in more.items():
        put(spec, key.replace("__", "."), value)
    return yaml.safe_dump(spec, default_flow_style=None).replace("intrinsic/", f"{folder}/intrinsic/")


def check(finished, code=0):
    assert finished.returncode == code, finished.stdout + finished.stderr
    return finished


def series(finished, name):
    with h5py.File(finished.dir / "metrics.h5") as file:
        return file[name][()]


def worst(finished, name):
    """Rows that were not due for a comparison are NaN."""
    return np.nanmax(series(finished, name))


def norm_of(finished):
    """‖Z‖_F at the end."""
    return np.linalg.norm(series(finished, "intrinsic/mode_strength")[-1])


def assert_checks_hold(finished, count):
    with h5py.File(finished.dir / "metrics.h5") as file:
        passed = file["checks/passed"][()]
    assert len(passed) == count and passed.all(), finished.stdout


# ---------------------------------------------------------------- the reduced dynamics beside the network
TWO_LAYERS = [3.107248446, 3.279578665, 3.361055998, 3.361055998, 3.069178629, 3.002118633]
DEEP = [3.117804118, 3.069644957, 3.275681508]
ODES = [("two_layer_ode", i, norm) for i, norm in enumerate(TWO_LAYERS)] + [("deep_ode", i, norm) for i, norm in enumerate(DEEP)]
QUICK = {("two_layer_ode", 0): 1, ("two_layer_ode", 5): 2, ("deep_ode", 2): 1}


@pytest.mark.parametrize("name,member,norm,ranks", [
    *(pytest.param(name, i, norm, QUICK.get((name, i), 1), marks=[] if (name, i) in QUICK else [slow]) for name, i, norm in ODES),
    *(pytest.param(name, i, norm, 2, marks=[slow]) for name, i, norm in ODES)])
def test_network_follows_its_ode(run, folder, name, member, norm, ranks):
    done = check(run(study(folder, name, member), ranks=ranks))
    assert worst(done, "intrinsic/intrinsic_error") < 1e-9
    np.testing.assert_allclose(norm_of(done), norm, rtol=0, atol=1e-8)
    np.testing.assert_allclose(series(done, "intrinsic/mode_strength_ode"), series(done, "intrinsic/mode_strength"), rtol=0, atol=1e-9)
    assert worst(done, "intrinsic/relaxed_defect") < 1e-14
    assert_checks_hold(done, 1)


@pytest.mark.parametrize("ranks,block", [(2, 1), pytest.param(4, 2, marks=slow), pytest.param(6, 1, marks=slow), pytest.param(4, 1, marks=slow)])
def test_any_grid(run, folder, ranks, block):
    """Whole, and by factors: equal to rounding on other grids."""
    with h5py.File(folder / "thin.h5", "w") as file:
        file.update({f"W{k}": W for k, W in enumerate(reference.balanced(21, 0.9, [6, 2, 7]), 1)})
        file["Y"] = reference.ref_unit(21, 7, 6)
    text = {"whole": study(folder, "deep_ode", 1, train__steps=40, train__lr=0.01),
            "thin": f"data: {{kind: hdf5, file: {folder}/thin.h5}}\n"
                    f"model: {{widths: [6, 2, 7], activation: linear, init: {{kind: file, file: {folder}/thin.h5}}}}\n"
                    "loss: {reduction: sum}\ntrain: {optimizer: gradient_flow, lr: 0.01, steps: 40}\n"
                    "twins: [{kind: intrinsic, every: 10}]\n"}
    for name, given in text.items():
        one, many = check(run(given)), check(run(given, ranks=ranks, args=["--set", f"grid.block={block}"]))
        for quantity in "mode_strength", "mode_strength_ode", "loss":
            np.testing.assert_allclose(series(many, f"intrinsic/{quantity}"), series(one, f"intrinsic/{quantity}"), rtol=1e-11, atol=1e-13)
        assert ("by factors" in one.stdout) == (name == "thin")
        assert worst(many, "intrinsic/intrinsic_error") < 1e-6


def test_descent_is_of_first_order(run, folder):
    """ODE against gd: the error halves with η; and the weighted loss is what it should be."""
    errors = []
    for lr in 4e-3, 2e-3:
        done = check(run(study(folder, "two_layer_ode", 5, train__optimizer="gd", train__lr=lr, train__steps=round(0.5 / lr))))
        errors.append(series(done, "intrinsic/intrinsic_error")[-1])
    np.testing.assert_allclose(errors[0] / errors[1], 2, atol=0.1)
    assert errors[0] > 1e-4
    W1, W2 = reference.relaxed(21, 0.9, *reference.TWO_LAYERS[5])
    data = reference.weighted_target(5, 4)
    np.testing.assert_allclose(series(done, "train/loss")[0], 0.5 * np.sum(data["M"] * (W2 @ W1 - data["Y"]) ** 2), rtol=1e-13)


INFINITE = {0: [8.5708e-3, 4.1931e-3, 2.0712e-3, 1.0289e-3], 1.5: [2.8561e-2, 1.5188e-2, 7.8156e-3, 3.9623e-3]}


@pytest.mark.parametrize("member", [5, *(pytest.param(i, marks=slow) for i in (0, 1, 2, 3, 4, 6, 7))])
def test_infinite_depth(run, folder, member):
    done = check(run(study(folder, "infinite_depth", member), ranks=1 + member % 2))
    expected = [*INFINITE[0], *INFINITE[1.5]][member]
    np.testing.assert_allclose(series(done, "intrinsic/intrinsic_error")[-1], expected, rtol=1e-3)


MODES = {"0": (0.534601241530, -2.8415e-4), "0.01": (0.535439916376, -2.8367e-4), "0.5": (0.928557101919, 9.957e-5),
         "-0.5": (0.928557101919, 9.957e-5), "4": (1.291551121874, 9.282e-5)}


@pytest.mark.parametrize("name", ["-0.5", *(pytest.param(other, marks=slow) for other in ("0", "0.01", "0.5", "4"))])
def test_modes(run, folder, name):
    w, error = MODES[name]
    start = {"model__init__file": f"intrinsic/modes_{name}.h5"}
    done = check(run(study(folder, "modes", **start)))
    np.testing.assert_allclose(norm_of(done), w, rtol=0, atol=1e-10)
    assert_checks_hold(done, 2)
    found = {}
    for steps in 1100, 2200:
        done = check(run(study(folder, "modes", train__optimizer="gd", train__lr=1.1 / steps, train__steps=steps, **start)))
        found[steps] = norm_of(done) - w
    np.testing.assert_allclose(found[1100], error, rtol=0.01)
    np.testing.assert_allclose(found[1100] / found[2200], 2, atol=0.02)


MATRIX = [(0.5903899440, 4.921280747, 4.921280747), (1.276294285e-4, 3.830498490, 9.830498490),
          (1.276294285e-4, 9.830498490, 3.830498490), (9.468067455e-4, 5.645274154, 10.645274154),
          (1.487472637e-3, 14.11085092, 6.910850919), (0.3248606944, 6.111195341, 6.111195341)]


@pytest.mark.parametrize("member", [pytest.param(i, marks=[slow] * (i != 4)) for i in range(6)])
def test_matrix_solution(run, folder, member):
    done = check(run(study(folder, "matrix_solution", member), args=["--set", "snapshot.every=end"], ranks=1 + member % 2))
    loss, first, second = MATRIX[member]
    assert worst(done, "intrinsic/closed_form_error") < 1e-11
    np.testing.assert_allclose(series(done, "train/loss")[-1], loss, rtol=0, atol=1e-9)
    with h5py.File(done.dir / "snapshots/step_000001700.h5") as file:
        norms = [np.sum(file[W][()] ** 2) for W in ("W1", "W2")]
    np.testing.assert_allclose(norms, [first, second], rtol=0, atol=1e-8)
    assert_checks_hold(done, 2)


NEURON = {-4: 3.475323745, -2: 1.689498392, -1: 1.129153409, 0: 0.761594156, 1: 0.530329757, 2: 0.385818596, 4: 0.233222935}


@pytest.mark.parametrize("delta", [-4, *(pytest.param(delta, marks=slow) for delta in (-2, -1, 0, 1, 2, 4))])
def test_single_neuron(run, folder, delta):
    done = check(run(study(folder, "single_neuron", model__init__file=f"intrinsic/single_neuron_{delta}.h5", train__lr=2e-3,
                           train__steps=500)))
    np.testing.assert_allclose([series(done, f"intrinsic/{name}")[-1] for name in ("nu", "nu_closed")], NEURON[delta], rtol=0, atol=1e-9)
    assert series(done, "intrinsic/nu")[0] == 0


def test_white_inputs_and_other_scales(run, folder):
    """X Xᵀ = c I, an output scale and a mean reduction move only the clock of the closed solution."""
    rng = np.random.default_rng(2)
    X = 1.7 * np.linalg.qr(rng.standard_normal((9, 9)))[0][:3]
    W = reference.relaxed(11, 0.6, 4, 3, 4, 0.7)
    with h5py.File(folder / "white.h5", "w") as file:
        file.update({"X": X, "Y": rng.standard_normal((4, 9)), "W1": W[0], "W2": W[1]})
    done = check(run(f"data: {{kind: hdf5, file: {folder}/white.h5}}\n"
                     f"model: {{widths: [3, 4, 4], activation: linear, output_scale: 1.3, lr_multiplier: 2,"
                     f" init: {{kind: file, file: {folder}/white.h5}}}}\n"
                     "train: {optimizer: gradient_flow, lr: 0.05, steps: 60}\ntwins: [{kind: intrinsic, substeps: 2}]\n", ranks=2))
    assert worst(done, "intrinsic/closed_form_error") < 1e-7
    assert worst(done, "intrinsic/intrinsic_error") < 1e-7


# ---------------------------------------------------------------- restart
@pytest.mark.parametrize("name", ["deep_ode", pytest.param("thin", marks=slow)])
def test_resume_is_bit_identical(run, folder, name, tmp_path):
    more = ["--set", "train.steps=24", "--set", "checkpoint.every=8", "--set", "train.lr=0.01"]
    text = study(folder, "deep_ode", 1)
    if name == "thin":
        text = study(folder, "deep_ode", 0).replace("widths: [4, 3, 5, 3]", "widths: [4, 2, 5, 3]")
        with h5py.File(folder / "narrow.h5", "w") as file:
            file.update({f"W{k}": W for k, W in enumerate(reference.balanced(21, 0.9, [4, 2, 5, 3]), 1)})
        text = re.sub(r"init: \{file: [^,]*", f"init: {{file: {folder}/narrow.h5", text)
    whole = check(run(text, ranks=2, args=more))
    part = ["--out", str(tmp_path / "parts")]
    check(run(text, ranks=2, args=[*more, "--set", "train.steps=13", *part]))
    check(run(text, ranks=2, args=[*more, "--resume", *part]))
    assert_same(whole.dir, tmp_path / "parts")


# ---------------------------------------------------------------- what is refused
def refused(run, text, *words):
    done = run(text, ranks=1)
    assert done.returncode == 2, done.stdout + done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


def test_excluded_width_is_refused(run, folder):
    """λ ≠ 0 and min < h < max: S = λI, and yet not intrinsic."""
    text = study(folder, "two_layer_ode", 5).replace("two_layer_ode_6", "excluded").replace("[4, 3, 5]", "[3, 5, 6]")
    refused(run, text, "twins[0].kind", "lambda = 0.6", "hidden width of 5 between", "no reduced dynamics")


def test_unbalanced_start_is_refused(run):
    base = """
data: {kind: gaussian, features: 4, outputs: 3, train: 20}
model: {widths: [4, 5, 3], activation: linear, init: {kind: gaussian}}
train: {optimizer: gradient_flow, lr: 0.01, steps: 3}
twins: [{kind: intrinsic}]
"""
    refused(run, base, "not (relaxed) balanced", "between layers 1 and 2", "|S - lambda I|_F is", "max_defect")
    check(run(base.replace("kind: intrinsic", "kind: intrinsic, max_defect: 10")))


def test_what_has_no_reduced_dynamics(run):
    base = """
data: {{kind: gaussian, features: 3, outputs: 3, train: 20}}
model: {{widths: [3, 3, 3], {model}}}
train: {{steps: 3, {train}}}
twins: [{{kind: intrinsic}}]
"""
    refused(run, base.format(model="activation: relu, trainable: [1]", train="optimizer: momentum, weight_decay: 0.1"),
            "only a linear network", "all layers must be trained", "momentum has no reduced dynamics", "weight decay")
    refused(run, base.format(model="activation: linear, bias: true", train="optimizer: sgd, batch: 5"), "only a linear network",
            "train.batch: full")


# ---------------------------------------------------------------- momentum, on the network of relu_ledger
# End loss and drift of |out|² − |in|² − b² by a computation in NumPy; the specification has the same digits, but 1.00459 for the second.
MOMENTUM = [(0.9509772991187, 2.633986818583e-4), (1.0045845387799, 1.096483652957e-2), (1.1555629853072, 4.525443471505e-2),
            (1.2302232907790, 3.375797402546e-2), (0.9505910936848, 1.746335961120e-5), (0.9511772140215, 2.178317044439e-4)]


@pytest.mark.parametrize("member", [pytest.param(i, marks=[slow] * (i != 2)) for i in range(len(MOMENTUM))])
def test_mlp_momentum_small(run, folder, member):
    loss, drift = MOMENTUM[member]
    done = check(run(study(folder, "mlp_momentum_small", member)))
    np.testing.assert_allclose(series(done, "train/loss")[-1], loss, rtol=0, atol=1e-9)
    law = series(done, "balance/law_bias_neuron")[:, 0, :12]  # of the first hidden layer, the others are NaN
    np.testing.assert_allclose(np.abs(law[-1] - law[0]).max() / np.abs(law[0]).max(), drift, rtol=1e-6)


@pytest.mark.parametrize("name", ["mlp_momentum", "mlp_momentum_full"])
def test_mlp_momentum_runs(run, folder, name):
    """Three steps, on 300 images."""
    done = check(run(study(folder, name, 1, data__train=300, train__steps=3), ranks=2))
    drift, law = series(done, "balance/invariance_drift")[-1], series(done, "balance/law_bias_neuron")
    assert series(done, "train/loss")[-1] < 2.5 and drift[:, 1].max() < 1e-3, drift
    np.testing.assert_allclose(np.nanmax(np.abs(law[-1] - law[0]), axis=-1), drift[:, 1], rtol=1e-6)


@slow
def test_lambda_sweep_is_of_first_order(run, folder):
    """Size 3, λ = 0.01: descent against the closed solution."""
    errors = [series(check(run(study(folder, "lambda_sweep", 0, train__lr=lr, train__steps=round(1 / lr)))),
                     "intrinsic/closed_form_error")[-1] for lr in (2e-4, 1e-4)]
    np.testing.assert_allclose(errors[0] / errors[1], 2, atol=0.05)


# ---------------------------------------------------------------- the command `laws`
NAMES = ("parameters", "path_rank", "law_count", "stacked_rank", "theory_count", "lie_dimension", "kernel_criterion")


def laws(command, path, *args, ranks=1):
    done = command("laws", path, *args, ranks=ranks)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {name: re.search(rf"^  {name} +(\S+)", done.stdout, re.M) for name in NAMES}
    return {name: float(value[1]) for name, value in found.items() if value}, done.stdout


def with_widths(widths, *more):
    return ["--point", "random", "--set", f"model.widths={list(widths)}", "--set", f"data.features={widths[0]}", "--set",
            f"data.outputs={widths[-1]}", *(word for key in more for word in ("--set", key))]


@pytest.mark.parametrize("widths,more,expected", [
    ((4, 4, 4), [], (32, 16, 10, 26, 10, 22)),
    ((2, 3, 3, 2), [], (21, 4, 12, 16)),
    ((3, 2, 3, 2, 1), ["model.activation=relu"], (20, 13, 7, 20, 7)),
    ((2, 3, 2), ["model.activation=relu", "model.bias=true"], (17, 14, 3, 17, 3, 14)),
])
def test_law_counts(command, widths, more, expected):
    found, said = laws(command, INPUTS / "law_counts.yaml", *with_widths(widths, *more), ranks=2 if len(widths) == 3 else 1)
    names = [name for name in NAMES[:6] if name in found]
    assert tuple(found[name] for name in names) == expected, said
    assert ("intrinsic: yes" in said) == bool(more) and ("no metric property" in said) != bool(more)
    assert (found["kernel_criterion"] > 1e-2) != bool(more)


def test_residual_laws(command):
    found, said = laws(command, INPUTS / "residual_laws.yaml", "--point", "random")
    assert (found["parameters"], found["path_rank"], found["law_count"]) == (64, 56, 8) and "complete" in said
    found, said = laws(command, INPUTS / "residual_laws.yaml", *with_widths((1, 1, 3, 1, 3, 1, 1)))
    assert (found["path_rank"], found["law_count"]) == (2, 6) and "there may be more" in said


@pytest.mark.parametrize("n_out,n_in,h,lam", [pytest.param(3, 3, 3, 0.7, marks=slow), (3, 2, 3, 0),
                                              pytest.param(4, 4, 2, 0.7, marks=slow), (6, 3, 5, 0.6)])
def test_kernel_criterion(command, tmp_path, n_out, n_in, h, lam):
    """0 at relaxed balanced starts, but for the widths that are excluded."""
    with h5py.File(tmp_path / "start.h5", "w") as file:
        file["W1"], file["W2"] = reference.relaxed(21, 0.9, n_out, n_in, h, lam)
    path = tmp_path / "laws.yaml"
    path.write_text(f"data: {{kind: gaussian, features: {n_in}, outputs: {n_out}, train: 2}}\n"
                    f"model: {{widths: [{n_in}, {h}, {n_out}], activation: linear, init: {{kind: file, file: {tmp_path}/start.h5}}}}\n")
    found, said = laws(command, path)
    if h == 5:
        assert found["kernel_criterion"] > 1e-2 and "no metric property" in said
    else:
        assert found["kernel_criterion"] < 1e-12 and "intrinsic: yes" in said
    assert f"lambda = {lam:g}" in said


@pytest.mark.parametrize("args,words", [
    (["--set", "model.widths=[4, 400, 4]"], ["too many to count laws"]),
    (["--set", "model.activation=tanh", "--set", "model.trainable=[1]"], ["laws are known for linear and relu", "must be trained"]),
    pytest.param(["--set", "model.bias=true"], ["without biases"], marks=slow),
    (["--point", "up", "--pont"], ["--point: expected start or random", "did you mean --point"]),
])
def test_laws_refuses(command, args, words):
    done = command("laws", INPUTS / "law_counts.yaml", *args)
    assert done.returncode == 2 and not done.stdout, done.stdout + done.stderr
    assert all(word in done.stderr for word in words), done.stderr


def test_laws_of_many_sizes(command):
    """A line for each network: nothing is conserved that theory does not know."""
    done = command("laws", INPUTS / "law_counts_sizes.yaml", "--point", "random", ranks=2)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith(("linear", "relu"))]
    assert len(rows) == 48
    for kind, widths, *counts in rows:
        theta, path, laws, stacked, theory, lie = (None if count == "-" else int(count) for count in counts)
        n = list(map(int, widths.split("-")))
        assert theta == sum(a * b for a, b in zip(n, n[1:])) and stacked <= theta
        if kind == "relu":
            assert laws == theory == sum(n[1:-1]) and path == theta - laws and stacked == theta, widths
        elif len(n) == 3:
            q = min(n[1], n[0] + n[2])
            assert laws == theory == theta - lie == q * (2 * n[1] + 1 - q) // 2, widths
        else:
            assert theory is lie is None and laws >= sum(n[1:-1])
    assert "of 48 networks 33 have just the laws that theory knows, and of 15" in done.stdout


def test_laws_of_nothing(command):
    done = command("laws", INPUTS / "law_counts_sizes.yaml", "--set", "model.bias=true")
    assert done.returncode == 2 and "without biases" in done.stderr
    done = command("laws")
    assert done.returncode == 2 and "laws needs an input file" in done.stderr


# ---------------------------------------------------------------- figures
@slow
def test_figures(command, folder, tmp_path):
    """Of a run, and of sweeps: over the depth, and of a neuron."""
    for name, expected in ("infinite_depth", {"intrinsic_depth.png", "intrinsic_courses.png"}), ("single_neuron", {"intrinsic_courses.png"}):
        text = (INPUTS / f"{name}.yaml").read_text(encoding="utf-8").replace("intrinsic/", f"{folder}/intrinsic/")
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
        check(command("sweep", tmp_path / f"{name}.yaml", "--out", tmp_path / name, "--set", "train.steps=20"))
        subprocess.run([sys.executable, ROOT / "postprocess" / "collect.py", tmp_path / name], check=True)
        assert expected <= {path.name for path in (tmp_path / name / "figures").iterdir()}
    member = next(path for path in (tmp_path / "single_neuron").iterdir() if (path / "metrics.h5").exists())
    subprocess.run([sys.executable, ROOT / "postprocess" / "plot.py", member], check=True)
    assert (member / "figures" / "intrinsic_modes.png").exists()


# ---------------------------------------------------------------- the weights of the loss
@pytest.mark.parametrize("value,words", [(-1.0, "weights of at least 0 at row 1, column 2"), (0.5, None)])
def test_weights_of_the_loss(run, tmp_path, value, words):
    M = np.ones((3, 4))
    M[1, 2] = value
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file.update({"Y": np.ones((3, 4)), "M": M})
    text = (f"data: {{kind: hdf5, file: {tmp_path}/data.h5, mask: weights}}\nmodel: {{widths: [4, 3], activation: linear}}\n"
            "loss: {kind: masked_mse, reduction: sum}\ntrain: {steps: 40, lr: 0.5}\n")
    done = run(text)
    if words:
        assert done.returncode == 2 and words in done.stderr
    else:  # each entry on its own: 1 − f shrinks by 1 − η w
        check(done)
        loss = series(done, "train/loss")
        np.testing.assert_allclose(loss[40] / loss[39], 0.75 ** 2, rtol=1e-9)
