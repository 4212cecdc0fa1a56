"""Training invariances: the shipped studies of inputs/invariances against published and independently computed numbers. What is
compared is made of the weights in snapshots; the probe `balance` has tests of its own."""
from pathlib import Path
import subprocess
import sys

import h5py
import numpy as np
import pytest
import yaml

from oracle import merged
from same import assert_same

INPUTS = Path(__file__).resolve().parent.parent / "inputs" / "invariances"
SLOW = pytest.mark.slow
MANY = pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=SLOW)])


def check(finished):
    assert finished.returncode == 0, finished.stderr
    return finished


class Study:
    """A run of a shipped input, without its probes; weights every so many steps."""

    def __init__(self, folder):
        with h5py.File(folder / "metrics.h5") as file:
            self.step, self.loss = file["train/step"][()], file["train/loss"][()]
            self.time, self.lr, self.budget = (file[f"train/{name}"][()] for name in ("time", "learning_rate", "step_budget"))
            self.accuracy = dict(zip(file["train/evaluated_step"][()], file["train/train_accuracy"][()]))
        self.weights, self.biases = {}, {}
        for path in sorted((folder / "snapshots").glob("step_*.h5")):
            with h5py.File(path) as file:
                step, layers = int(path.stem.removeprefix("step_")), sum(name[0] == "W" for name in file if name[1:].isdigit())
                self.weights[step] = [file[f"W{l}"][()] for l in range(1, layers + 1)]
                self.biases[step] = [file[f"b{l}"][()] if f"b{l}" in file else None for l in range(1, layers + 1)]

    def values(self, step):
        """Singular values of every layer."""
        return [np.linalg.svd(W, compute_uv=False) for W in self.weights[step]]

    def ratio(self, step):
        return [s[0] / np.linalg.norm(s) for s in self.values(step)]

    def defect(self, step):
        return [np.sum(s[1:] ** 2) for s in self.values(step)]

    def alignment(self, step):
        svd = [np.linalg.svd(W) for W in self.weights[step]]
        return [float(upper[2][0] @ lower[0][:, 0]) ** 2 for lower, upper in zip(svd, svd[1:])]

    def invariant(self, step):
        """S_k of every interface."""
        W, b = self.weights[step], self.biases[step]
        return [W[k + 1].T @ W[k + 1] - W[k] @ W[k].T - (0 if b[k] is None else b[k] @ b[k].T) for k in range(len(W) - 1)]

    def drift(self, step):
        return [S - start for S, start in zip(self.invariant(step), self.invariant(0))]


def rank_constants(W):
    """D and D_k of a linear network or head."""
    T = [lower @ lower.T - upper.T @ upper for lower, upper in zip(W, W[1:])]
    norms = [np.linalg.norm(A) ** 2 for A in W]
    D = max(norms) - norms[-1] + sum(np.linalg.norm(A, 2) for A in T)
    return D, [sum(np.linalg.norm(A, 2) + np.trace(A) for A in T[k:]) for k in range(len(W))]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The folder with what reference.py writes."""
    folder = tmp_path_factory.mktemp("reference")
    subprocess.run([sys.executable, INPUTS / "reference.py"], cwd=folder, check=True)
    return folder / "invariances"


@pytest.fixture
def study(run, files):
    """study(name, snapshots, ranks=1, **sections): runs inputs/invariances/NAME.yaml with other sections."""
    def start(name, snapshots, ranks=1, **sections):
        spec = yaml.safe_load((INPUTS / f"{name}.yaml").read_text(encoding="utf-8"))
        spec.pop("sweep", None)
        spec.pop("probes")
        spec = merged(spec, {"snapshot": {"every": snapshots}, "checkpoint": {"end": False}}, sections)
        if "file" in spec["data"]:
            spec["data"]["file"] = spec["model"]["init"]["file"] = str(files / Path(spec["data"]["file"]).name)
        return Study(check(run(yaml.safe_dump(spec), ranks=ranks)).dir)
    return start


def close(found, expected, rtol, atol=0.0):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol)


# ---------------------------------------------------------------- linear networks
FLOW = {  # step: risk, δ, ratio, alignment
    500: (0.10680677, (2.931152, 1.602505), (0.7411366, 0.8078006), (0.980448, 0.983776)),
    5500: (8.432015e-4, (2.980217, 1.604138), (0.8509886, 0.9055595), (0.996523, 0.997229)),
    25500: (4.313006e-5, (2.983977, 1.604343), (0.8779046, 0.9250756), (0.997941, 0.998362)),
}


@pytest.mark.parametrize("steps, ranks", [(5500, 1), (500, 2), pytest.param(25500, 1, marks=SLOW),
                                          pytest.param(5500, 2, marks=SLOW), pytest.param(500, 4, marks=SLOW),
                                          pytest.param(500, 6, marks=SLOW)])
def test_linear_flow(study, steps, ranks):
    """Rank 1 and alignment in the limit; what is conserved, and the bounds that follow from it."""
    done = study("linear_flow", 500, ranks, train={"steps": steps}, grid={"block": 2})
    D, bounds = rank_constants(done.weights[0])
    close([D, *bounds[:2]], [5.2726002, 5.2726002, 2.2983238], 1e-7)
    for step in filter(lambda step: step <= steps, FLOW):
        risk, defect, ratio, alignment = FLOW[step]
        close(done.loss[step], risk, 1e-6)
        close(done.defect(step), [*defect, 0], 1e-6)
        close(done.ratio(step), [*ratio, 1], 1e-6)
        close(done.alignment(step), alignment, 2e-6)
    start = done.values(0)
    for step in done.weights:
        assert max(np.abs(T).max() for T in done.drift(step)) < 1e-10
        assert all(d <= bound + 1e-10 for d, bound in zip(done.defect(step), rank_constants(done.weights[step])[1]))
        assert all(d <= D + 1e-8 for d in done.defect(step))
        for k, aligned in enumerate(done.alignment(step)):
            assert aligned >= 1 - (D + start[k + 1][0] ** 2 + start[k][0] ** 2) / done.values(step)[k + 1][0] ** 2 - 1e-8
    assert np.all(np.diff(done.loss) < 0)
    close(done.time[-1], {500: 10, 5500: 110, 25500: 1110}[steps], 1e-11)


def test_adaptive_steps(study):
    """The same flow with steps by a tolerance, a hundred times as far apart as those of rk4."""
    done = study("linear_flow", 5, train={"steps": 5, "lr": 2, "integrator": "adaptive", "integrator_tolerance": 1e-12})
    close(done.loss[5], FLOW[500][0], 1e-7)
    close(done.ratio(5)[:2], FLOW[500][2], 1e-6)


@SLOW
def test_linear_small_init(study):
    done = study("linear_small_init", 4000)
    close(done.loss[4000], 5.814372e-4, 1e-6)
    close(done.ratio(4000), [0.9961444, 0.9978879, 1], 1e-6)
    close(done.ratio(20000), [0.9968715, 0.9982874, 1], 1e-6)
    assert min(done.alignment(20000)) > 0.999999


def test_linear_gd(study):
    """The laws drift in first order of the rate, by no more than the steps allow."""
    drift = []
    for lr, steps in ((0.05, 2200), (0.025, 4400)):
        done = study("linear_gd", steps, train={"lr": lr, "steps": steps})
        drift.append([np.abs(T).max() for T in done.drift(steps)])
        assert all(np.linalg.norm(T) <= done.budget[-1] for T in done.drift(steps))
    close(np.divide(*drift), 2, 0, 0.1)
    close([max(each) for each in drift], [2.13e-3, 1.07e-3], 5e-3)


def direction_cosine(weights):
    product = np.linalg.multi_dot(weights[::-1]) if len(weights) > 1 else weights[0]
    return (product @ [np.cos(0.5), np.sin(0.5)]).item() / np.linalg.norm(product)


@pytest.mark.parametrize("widths, expected, ratio", [pytest.param([2, 1], 0.999685, [1], marks=SLOW),
                                                     ([2, 8, 8, 8, 1], 0.999742, [0.96988, 0.87731, 0.88830, 1])])
def test_margin_2d(study, widths, expected, ratio):
    """Shallow or deep: the predictor of the widest margin."""
    file = {"file": f"margin_2d_{len(widths) - 1}.h5"}
    done = study("margin_2d", 10000, data=file, model={"widths": widths})
    close(direction_cosine(done.weights[10000]), expected, 0, 1e-5)
    close(done.ratio(10000), ratio, 0, 1e-5)


@MANY
def test_margin_2d_jt(study, ranks):
    """The rate that theory allows: the risk never increases, the squared steps add up to less than twice the first."""
    done = study("margin_2d_jt", 10000, ranks)
    close([done.time[-1], done.loss[-1], done.budget[-1]], [5.399, 0.1007571, 3.39279e-4], 1e-3)
    assert np.all(np.diff(done.loss) <= 1e-14 * done.loss[:-1]) and done.budget[-1] <= 2 * done.loss[0]
    radius = max(np.linalg.norm(W) for W in done.weights[10000])
    assert np.all(np.diff(done.lr) <= 0) and done.lr[-1] <= 1 / (2 * 16 * radius**6 * 1.25)


def test_jt_resumes_with_the_same_bits(run, files, tmp_path):
    """Its radius is in the checkpoint."""
    text = (INPUTS / "margin_2d_jt.yaml").read_text(encoding="utf-8").replace("invariances/", f"{files}/")
    text = "\n".join(line for line in text.splitlines() if "kind: balance" not in line)
    args = ["--set", "checkpoint.every=50", "--set", "train.evaluate_every=40", "--out"]
    check(run(text, args=[*args, "whole", "--set", "train.steps=200"]))
    check(run(text, args=[*args, "parts", "--set", "train.steps=120"]))
    check(run(text, args=[*args, "parts", "--set", "train.steps=200", "--resume"]))
    assert_same(tmp_path / "whole", tmp_path / "parts")


def norm_spread(done, step):
    change = [np.linalg.norm(W) ** 2 - np.linalg.norm(start) ** 2 for W, start in zip(done.weights[step], done.weights[0])]
    return max(change) - min(change)


@pytest.mark.parametrize("lr, expected", [(0.05, 5.710e-3), pytest.param(0.025, 2.855e-3, marks=SLOW)])
def test_equal_norm(study, lr, expected):
    steps = round(500 / lr)
    done = study("equal_norm", steps, train={"lr": lr, "steps": steps})
    close(rank_constants(done.weights[0])[0], 1.226472, 1e-6)
    close(norm_spread(done, steps), expected, 0.01)
    close(done.ratio(steps), [0.9618, 0.9624, 1], 1e-4)


@SLOW
def test_equal_norm_under_the_flow(study):
    done = study("equal_norm", 1000, train={"optimizer": "gradient_flow", "steps": 1000})
    assert norm_spread(done, 1000) < 1e-9


ONE_EXAMPLE = [(2, "exponential", 2.623241008252), (3, "exponential", 3.690051402088), (4, "exponential", 4.516527533717),
               (2, "logistic", 2.193910017233), (3, "logistic", 3.293769308272), (4, "logistic", 4.206086883516)]


@pytest.mark.parametrize("layers, loss, expected", [pytest.param(*row, marks=[SLOW] * (i not in (1, 5)))
                                                    for i, row in enumerate(ONE_EXAMPLE)])
def test_one_example(study, layers, loss, expected):
    """The margin of the exact solution; the layers stay of rank 1."""
    widths = {2: [5, 4, 1], 3: [5, 4, 3, 1], 4: [5, 4, 3, 6, 1]}[layers]
    done = study("one_example", 1000, 2 if layers == 3 else 1, data={"file": f"one_example_{layers}.h5"}, model={"widths": widths},
                 loss={"kind": loss}, grid={"block": 2})
    margin = {"exponential": lambda risk: -np.log(risk), "logistic": lambda risk: -np.log(np.expm1(risk))}[loss]
    close(margin(done.loss[[0, -1]]), [0.3, expected], 0, 1e-9)
    assert max(done.defect(1000)) < 1e-12


# ---------------------------------------------------------------- networks with ReLUs
def gates(done, step, X, trunk):
    """Of every ReLU layer, neurons × samples."""
    result = []
    for W, b in list(zip(done.weights[step], done.biases[step]))[:trunk]:
        Z = W @ X + (0 if b is None else b)
        result.append(Z > 0)
        X = np.maximum(Z, 0)
    return result


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=SLOW), pytest.param(6, marks=SLOW)])
def test_relu_head(study, ranks):
    """The head of linear layers obeys their laws; of the ReLU layers only the diagonals do, to first order in the rate."""
    done = study("relu_head", 1000, ranks, train={"steps": 1000}, grid={"block": 3})
    close(done.loss[1000], 7.232279e-4, 1e-5)
    close(done.defect(1000)[2:], [10.03223, 5.580508, 0], 1e-5, 1e-14)
    close(done.ratio(1000)[2:], [0.5973106, 0.7306015, 1], 1e-5)
    close(rank_constants(done.weights[0][2:])[0], 16.07436, 1e-6)
    drift = done.drift(1000)
    close([np.abs(S).max() for S in drift[2:]], [6.334e-4, 1.4195e-3], 0.01)
    close([np.abs(S).max() for S in drift[:2]], [0.437418, 0.782517], 0.01)
    close([np.abs(np.diag(S)).max() for S in drift[:2]], [9.338e-4, 1.4665e-3], 0.01)


@pytest.mark.parametrize("name, drift, loss", [("relu_stable", 0.25352892, 0.3209384232), ("relu_stable_bias", 0.24339085, None)])
def test_relu_stable(study, files, name, drift, loss):
    """Between stable neurons, and between those with the same gates, nothing drifts; elsewhere it does."""
    done = study(name, 4000)
    with h5py.File(files / "relu_stable.h5") as file:
        X = file["X"][()]
    patterns = [gates(done, step, X, 1)[0] for step in done.weights]
    assert all(np.array_equal(pattern, patterns[0]) for pattern in patterns)
    S = np.abs(done.drift(20000)[0])
    close(S.max(), drift, 0, 1e-7)
    stable = np.flatnonzero(patterns[0].all(axis=1) | ~patterns[0].any(axis=1))
    same = (patterns[0][:, None] == patterns[0][None]).all(axis=2)
    assert S[np.ix_(stable, stable)][same[np.ix_(stable, stable)]].max() < 1e-12 and S[same].max() < 1e-12
    if loss:
        close(done.loss[[0, -1]], [6.560846346, loss], 0, 1e-8)
        assert np.flatnonzero(patterns[0].all(axis=1)).tolist() == [0, 1, 4, 5]
        assert np.flatnonzero(~patterns[0].any(axis=1)).tolist() == [2]
        assert same[3, 6] and np.flatnonzero(~patterns[0][3]).tolist() == [3]


@pytest.mark.parametrize("file, risk, always", [("relu_positive", 3.785774e-4, [2, 0]), pytest.param("relu_centred", 3.418458e-4, [0, 0], marks=SLOW)])
def test_relu_positive(study, files, file, risk, always):
    done = study("relu_positive", 250, data={"file": f"{file}.h5"}, train={"steps": 1000})
    close(done.loss[1000], risk, 1e-4)
    with h5py.File(files / f"{file}.h5") as data:
        patterns = [gates(done, step, data["X"][()], 2) for step in done.weights]
    for layer in range(2):
        assert np.count_nonzero(np.all([each[layer].all(axis=1) for each in patterns], axis=0)) >= always[layer]


@pytest.mark.parametrize("lr, drift", [(0.02, 3.0528e-2), pytest.param(0.01, 1.2995e-2, marks=SLOW),
                                       pytest.param(0.005, 6.186e-3, marks=SLOW)])
def test_residual_stream(study, lr, drift):
    """What a pair, the stream of all and neighbours across a skip conserve."""
    steps = round(2 / lr)
    done = study("residual_stream", steps, 2 if lr == 0.01 else 1, train={"lr": lr, "steps": steps}, grid={"block": 2})

    def stream(W):
        inner = sum(W[k + 1] @ W[k + 1].T - W[k].T @ W[k] for k in (1, 3))
        return W[0] @ W[0].T + inner - W[5].T @ W[5]
    close(np.abs(stream(done.weights[steps]) - stream(done.weights[0])).max(), drift, 0.01)
    across = [W[3].T @ W[3] - W[2] @ W[2].T for W in (done.weights[0], done.weights[steps])]
    assert np.abs(across[1] - across[0]).max() > 0.1
    if lr == 0.02:
        close(done.loss[[0, -1]], [4.596501773, 0.1203589], 1e-6)


@MANY
def test_fashion_two_classes(study, ranks):
    """100 steps on real images."""
    if not Path("/usr/share/datasets/fashion-mnist").exists():
        pytest.skip("no Fashion-MNIST images: Debian's package dataset-fashion-mnist")
    done = study("fashion_two_classes", 100, ranks, train={"steps": 100, "evaluate_every": 100})
    close(done.loss[100], 0.0784484, 1e-4)
    close(done.accuracy[100], 0.97, 1e-12)


@SLOW
def test_fashion_two_classes_to_the_end(study):
    done = study("fashion_two_classes", 4000)
    close(done.loss[4000], 4.89e-5, 2e-3)
    close(done.ratio(4000)[2:], [0.502, 0.622, 1], 2e-3)
    close(rank_constants(done.weights[4000][2:])[1], [35.95, 17.14, 0], 1e-3, 1e-12)
    drift = done.drift(4000)[:2]
    close([np.abs(S).max() for S in drift], [0.22, 0.37], 0.03)
    close([np.abs(np.diag(S)).max() for S in drift], [3.6e-3, 9.6e-4], 0.02)
