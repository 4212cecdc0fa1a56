"""The shipped inputs of outlier eigenspaces against theory: the acceptance table of their specification, row by row. What has
hundreds of runs is slow; every check takes members of a sweep, wherever they were run."""
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.stats import chisquare

import oracle
from test_mixtures import check, fresh, softmax

INPUTS = Path(__file__).resolve().parent.parent / "inputs" / "outliers"


def groups_of(folder):
    """{group: {quantity: values}} of a run."""
    with h5py.File(folder / "metrics.h5") as file:
        return {name: {key: item[()] for key, item in group.items() if isinstance(item, h5py.Dataset)}
                for name, group in file.items()}


def members_of(folder):
    """Groups of all members that are done, in the order of their names; each with its own name."""
    found = sorted(path.parent for path in folder.glob("*/metrics.h5"))
    return [{"name": path.name, **groups_of(path)} for path in found]


@pytest.fixture
def shipped(command, tmp_path):
    """shipped(name, *args): members of a shipped sweep, or the one run of an input without."""
    def start(name, *args, timeout=3000):
        kind = "sweep" if "\nsweep:" in (INPUTS / f"{name}.yaml").read_text(encoding="utf-8") else "run"
        check(command(kind, INPUTS / f"{name}.yaml", "--out", tmp_path / name, *args, timeout=timeout))
        return members_of(tmp_path / name) if kind == "sweep" else groups_of(tmp_path / name)
    return start


def named(members, *words):
    """Members with these words in their names."""
    return [member for member in members if all(word in member["name"].split("_") for word in words)]


def last(member, group, quantity):
    return member[group][quantity][-1]


def leading(*numbers, basis=True):
    """A few eigenvalues in place of all of them."""
    return [word for number in numbers for word in (
        "--set", f"probes[{number}].rank=8", *(("--set", f"probes[{number}].basis=auto") if basis else ()))]


# ---------------------------------------------------------------- without noise
def test_kgmm_exact(shipped):
    found = {name: group["curvature_eigenvalue"][0] for name, group in shipped("kgmm_exact").items()
             if "curvature_eigenvalue" in group}
    expected = {"hessian": 4 * [0.0800649454063] + 8 * [0.0334149144197] + 12 * [0],
                "hessian_1": [0.0600487090548] + 3 * [0.0289486883970],
                "gradient": 4 * [0.0535947122724] + [0], "centred": 3 * [0.0535947122724] + [0],
                "gradient_1": [0.0401960342043] + 3 * [0.0044662260227]}
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert np.allclose(found[name], values, rtol=0, atol=1e-12), name


def test_xor_exact(shipped, tmp_path):
    """The gradient with weight decay vanishes: a step changes nothing."""
    members = shipped("xor_exact")
    expected = {"decay=0.05": {"hessian": 4 * [0.1109035488896] + 4 * [0.1] + 20 * [0.05], "ggn": 4 * [0.1109035488896] + [0],
                               "gradient": 4 * [0.0277258872224] + [0], "centred": 3 * [0.0277258872224] + [0],
                               "last_hessian": 4 * [0.105451774445], "last_gradient": 4 * [0.0138629436112]},
                "decay=0.1": {"hessian": 4 * [0.2] + 20 * [0.1] + 4 * [0.0486558129730], "gradient": 4 * [0.0324372086487] + [0],
                              "last_gradient": 4 * [0.0162186043243]}}
    for alpha, wanted in expected.items():
        member, = named(members, alpha)
        for name, values in wanted.items():
            for row in (0, 1):
                assert np.allclose(member[name]["curvature_eigenvalue"][row], values, rtol=0, atol=1e-12), (alpha, name)
        assert list(member["mixture"]["learned"]) == list(member["mixture"]["outlier_rank"]) == [4, 4]
        root = np.sqrt(np.log((1 - 4 * float(alpha[6:])) / (4 * float(alpha[6:]))))
        with h5py.File(tmp_path / "xor_exact" / member["name"] / "snapshots" / "step_000000001.h5") as file:
            W, v = np.zeros((4, 6)), root * np.array([[1, 1, -1, -1]])
            W[[0, 1, 2, 3], [0, 0, 1, 1]] = root * np.array([1, -1, 1, -1])
            assert np.allclose(file["W1"], W, rtol=0, atol=1e-15) and np.allclose(file["W2"], v, rtol=0, atol=1e-15)


def test_start_at_the_clusters_needs_them(run):
    done = check(run("data: {kind: gaussian, features: 3, outputs: 2, train: 4}\n"
                     "model: {widths: [3, 4, 2], init: {kind: clusters}}\n"), 2)
    assert "model.init.kind: 'clusters' is a start of two layers on clusters" in done.stderr


# ---------------------------------------------------------------- fixed weights
def test_multiplicity_at_zero(run):
    """Full Hessian at W = 0: every eigenvalue of (1/(kn)) Y Yᵀ comes k − 1 times, and d zeros."""
    k, d, n = 3, 8, 20
    done = check(run(f"""
run:   {{seed: 5}}
data:  {{kind: gaussian_mixture, features: {d}, classes: {k}, lambda: 4, train: {n}}}
model: {{widths: [{d}, {k}], init: {{kind: identity, scale: 1e-300}}}}
loss:  {{kind: cross_entropy}}
train: {{steps: 0}}
probes: [{{kind: curvature, rank: {k * d}, tolerance: 1e-13}}]
"""))
    Y, _ = fresh([(b, 1) for b in range(k)], d, 4, 0, n, oracle.RANDOM_DATA)
    theta = np.linalg.eigvalsh(Y @ Y.T / (k * n))[::-1]
    found = groups_of(done.dir)["curvature"]["curvature_eigenvalue"][0]
    assert np.allclose(found[:(k - 1) * d], np.repeat(theta, k - 1), rtol=1e-10, atol=0)
    assert np.allclose(found[(k - 1) * d:], 0, rtol=0, atol=1e-12 * theta[0])


def check_static(members):
    zero, middle, large = ({name: {key: member[name][key][-1] for key in ("curvature_eigenvalue", "outlier_projection",
                                                                          "bulk_edge_theory", "outlier_count")}
                            for name in ("hessian_1", "gradient_1")} for member in (
        named(members, f"scale={r}")[0] for r in ("1e-12", "1.5", "3")))

    def values(case, name, count):
        return case[name]["curvature_eigenvalue"][:count], case[name]["outlier_projection"][:count, 0]
    theta, along = values(zero, "hessian_1", 5)
    assert np.isclose(theta[:4].mean(), 0.07219, rtol=0.04) and np.isclose(along[:4].mean(), 0.873, atol=0.03)
    assert np.allclose(theta[:4], 0.07219, rtol=0.09) and 0.95 < theta[4] / 0.0421875 < 1.02
    assert np.isclose(zero["hessian_1"]["bulk_edge_theory"], 0.0421875, rtol=1e-9) and zero["hessian_1"]["outlier_count"] == 4
    theta, along = values(zero, "gradient_1", 1)
    assert np.isclose(theta, 0.17489, rtol=0.07) and np.isclose(along, 0.900, atol=0.03)
    theta, along = values(middle, "hessian_1", 4)
    assert np.allclose(theta, [0.0768, 0.0461, 0.0461, 0.0424], rtol=0.08)
    assert np.allclose(along, [0.890, 0.797, 0.797, 0.754], atol=0.06)
    assert np.isclose(middle["hessian_1"]["bulk_edge_theory"], 0.0353, atol=1e-4)
    theta, along = values(middle, "gradient_1", 1)
    assert np.isclose(theta, 0.0495, rtol=0.07) and np.isclose(along, 0.848, atol=0.04)
    assert zero["gradient_1"]["outlier_count"] == middle["gradient_1"]["outlier_count"] == 1
    theta, along = values(large, "hessian_1", 3)
    assert np.allclose(theta, [0.0421, 0.0241, 0.0241], rtol=0.08) and np.isclose(along[0], 0.849, atol=0.06)
    assert np.isclose(large["hessian_1"]["bulk_edge_theory"], 0.0230, atol=1e-4)
    assert large["gradient_1"]["outlier_count"] == 0


def test_kgmm_static(shipped):
    check_static(shipped("kgmm_static", *leading(1, 2)))


@pytest.mark.slow
def test_kgmm_static_of_a_cluster(shipped):
    """d = 4096: outliers at W = 0 within 1.5 %, their projections within 0.01; of the second moment 2.5 % and 0.01."""
    member, = named(shipped("kgmm_static", "--set", "data.features=4096", "--set", "data.train=16384", "--set",
                            "model.widths=[4096, 4]", *leading(1, 2)), "scale=1e-12")
    for name, count, value, along in (("hessian_1", 4, 0.07219, 0.873), ("gradient_1", 1, 0.17489, 0.900)):
        assert np.isclose(last(member, name, "curvature_eigenvalue")[:count].mean(), value, rtol=0.015 if count == 4 else 0.025)
        assert np.isclose(last(member, name, "outlier_projection")[:count, 0].mean(), along, atol=0.01)


def test_kgmm_below(shipped):
    found = shipped("kgmm_below", *leading(1, 2))
    assert last(found, "hessian_1", "outlier_count") == 0 and last(found, "gradient_1", "outlier_count") == 1
    assert np.isnan(last(found, "hessian_1", "outlier_theory")).all()
    assert np.isclose(last(found, "gradient_1", "curvature_eigenvalue")[0], 0.26866, rtol=0.06)
    assert np.isclose(last(found, "gradient_1", "outlier_projection")[0, 0], 0.4745, atol=0.06)


# ---------------------------------------------------------------- descent
def test_training_samples_are_drawn_once_more(run):
    """data.stream: online: the training set is what the first steps have seen."""
    done = check(run("""
run:   {seed: 5}
data:  {kind: gaussian_mixture, features: 6, classes: 3, lambda: 4, train: 10, stream: online}
model: {widths: [6, 3], init: {kind: identity}}
loss:  {kind: cross_entropy}
train: {steps: 0}
"""))
    X, label = fresh([(b, 1) for b in range(3)], 6, 4, 0, 10)
    loss = -np.log(softmax(X[:3])[label, np.arange(10)]).mean()
    assert np.isclose(groups_of(done.dir)["train"]["loss"][0], loss, rtol=1e-14)
    done = check(run("data: {kind: gaussian_mixture, features: 6, classes: 3, lambda: 4, train: 9, stream: online, "
                     "counts: equal}\nmodel: {depth: 1}\nloss: {kind: cross_entropy}\n"), 2)
    assert "data.counts: fresh samples (data.stream: online) are of random clusters" in done.stderr


def own_rows(members, operator, row=-1, quantity="alignment_outlier", count=4):
    """rho(x^a, E_k of block a) of all members and classes."""
    return np.array([[member[f"{operator}_{a}"][quantity][row, a - 1, 1] for a in range(1, count + 1)] for member in members])


def check_sgd(members):
    """Means over six seeds follow the effective dynamics from the same starts; the table of the specification at t = 20."""
    for measured, theory in (("class_overlap", "effective_m"), ("class_residual_gram", "effective_R")):
        difference = np.mean([np.trace(member["mixture"][measured] - member["mixture"][theory], axis1=1, axis2=2) / 4
                              for member in members], axis=0)
        assert np.max(np.abs(difference)) < 0.01, (measured, difference)
    rho = np.mean([last(member, "mixture", "alignment_class_span") for member in members])
    assert np.isclose(rho, 0.9402, atol=0.01)
    loss = np.mean([member["train"]["test_loss"][-1] for member in members])
    assert np.isclose(loss, 0.3947, rtol=0.03)


def check_align(members):
    """rho of `kgmm_align`, four seeds: within 0.003 at t = 40, and 0.01 before."""
    table = {1: (0.8976, 0.8908, 0.8943, 0.8847, 0.8891), 2: (0.9738, 0.9678, 0.9716, 0.9647, 0.9697),
             4: (0.9965, 0.9911, 0.9951, 0.9892, 0.9945)}
    for row, expected in table.items():
        found = [np.mean([member["mixture"]["alignment_class_span"][10 * row] for member in members])]
        found += [own_rows(named(members, f"train={n}"), operator, row).mean() for operator in ("hessian", "gradient")
                  for n in (1600, 6400)]
        assert np.allclose(found, expected, rtol=0, atol=0.003 if row == 4 else 0.01), (row, found)
    first = np.mean([member["hessian_1"]["alignment_outlier"][-1, 0, 0] for member in members])
    assert np.isclose(first, 0.8446, atol=0.02)


def check_phi(members):
    """Measured minus predicted rho(x, E_4(H)) where there are four outliers, and the numbers of the limit."""
    for n, expected in ((1600, 0.751), (6400, 0.870), (25600, 0.895)):
        chosen = named(members, f"train={n}")
        measured, theory = (own_rows(chosen, "hessian", quantity=f"alignment_outlier{end}", count=1) for end in ("", "_theory"))
        assert abs(np.mean(measured - theory)) < 0.03 and np.isclose(measured.mean(), expected, atol=0.03), n
    for member in named(members, "train=400") + named(members, "train=800"):
        assert np.isfinite(last(member, "hessian_1", "outlier_theory")).sum() < 4


def check_train(members):
    assert np.isclose(own_rows(named(members, "stream=online"), "hessian", count=2).mean(), 0.9971, atol=0.001)
    assert np.isclose(own_rows(named(members, "stream=own"), "hessian", count=2).mean(), 0.9959, atol=0.001)


def check_ten(found):
    """Each outlier goes with the count of its own class in the sample, which is random here (sd 3 %): divided out."""
    counts = np.bincount(np.floor(oracle.random_uniform(1, oracle.RANDOM_DATA + 1, np.arange(10000)) * 10).astype(int))
    expected = np.array([0.0253, *9 * [0.0054]]) * [counts[0], *sorted(counts[1:], reverse=True)] / 1000
    theta = last(found, "hessian_1", "curvature_eigenvalue") - 0.02
    assert np.allclose(theta, expected, rtol=0.04) and np.isclose(theta[1:].mean(), 0.0054, rtol=0.02), theta / expected
    assert np.isclose(last(found, "hessian_1", "bulk_edge_theory") - 0.02, 0.0015, atol=1e-4)
    assert last(found, "hessian_1", "outlier_count") == 10
    assert np.isclose(last(found, "hessian_1", "alignment_outlier")[0, 1], 0.992, atol=0.003)


CHECKS = {"kgmm_sgd": check_sgd, "kgmm_align": check_align, "kgmm_phi": check_phi, "kgmm_train": check_train, "kgmm_ten": check_ten}


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKS)
def test_descent(shipped, name):
    CHECKS[name](shipped(name))


# ---------------------------------------------------------------- two layers
def own_cluster(member):
    """Cluster of each live unit (+μ, −μ, +ν, −ν), −1 of the others."""
    v, overlap = np.ravel(last(member, "mixture", "last_weight")), last(member, "mixture", "class_overlap")
    cluster = np.where(v > 0, np.where(overlap[:, 0] > 0, 0, 1), np.where(overlap[:, 1] > 0, 2, 3))
    return v, cluster


def misalignment(alpha, logits, cluster, lam=1000):
    """1 − rho(W_i, span{μ, ν})² of 3.7."""
    constant = np.log((1 - 4 * alpha) / (4 * alpha))
    error = np.where(logits * np.array([1, 1, -1, -1]) > constant / 2, 4 * alpha, 0.5)
    plus, minus = error[2:] if cluster < 2 else error[:2]
    return (4 * alpha**2 + plus * minus / 4) / (2 * alpha) / lam


def check_xor(members, alpha, expected, counted):
    """All that is said of the ends of an ensemble. `expected`: runs with 4, 3, and fewer clusters, or None."""
    constant = np.log((1 - 4 * alpha) / (4 * alpha))
    learned = np.array([last(member, "mixture", "learned") for member in members])
    if expected:
        found = [np.sum(learned == 4), np.sum(learned == 3), np.sum(learned < 3)]
        assert len(members) == counted
        assert chisquare(found, counted * np.array(expected) / sum(expected)).pvalue > 0.01, found
    ratios = []
    for member in members:
        mixture = member["mixture"]
        assert mixture["outlier_rank"][-1] == mixture["learned"][-1]
        assert np.allclose(mixture["alignment_last_layer"][-1], 1, atol=1e-3)
        v, cluster = own_cluster(member)
        for i in np.flatnonzero(np.abs(v) > 0.25 * np.sqrt(constant)):
            assert mixture["alignment_class_span"][-1, i] >= 0.999
            assert member[f"hessian_{i + 1}"]["alignment_outlier"][-1, i, 1] >= 0.999
            ratios.append((1 - mixture["alignment_class_span"][-1, i]**2) /
                          misalignment(alpha, mixture["cluster_logit"][-1], cluster[i]))
    assert np.isclose(np.mean(ratios), 1, atol=0.15), np.mean(ratios)
    for name in ("gradient", "hessian"):
        ratio = [last(member, "mixture", f"last_layer_{name}").sum() / last(member, "mixture", f"last_layer_{name}_theory").sum()
                 for member in members]
        assert np.isclose(np.mean(ratio), 1, atol=0.03), (name, np.mean(ratio))


def check_binary(members):
    """Both clusters learned in half of the runs, Σv² = C on a learned one."""
    both = [member for member in members if last(member, "mixture", "learned") == 2]
    assert chisquare([len(both), len(members) - len(both)]).pvalue > 0.01, len(both)
    strength = [np.sum(np.ravel(last(member, "mixture", "last_weight"))**2) / 2 for member in both]
    assert np.isclose(np.mean(strength), np.log(4), rtol=0.03), np.mean(strength)


def check_eight(members):
    """Four clusters with probability 0.623; with eight units the outlier space is half of the whole."""
    four = np.sum([last(member, "mixture", "learned") == 4 for member in members])
    assert chisquare([four, len(members) - four], len(members) * np.array([0.62292, 0.37708])).pvalue > 0.01, four
    check_xor(members, 0.05, None, len(members))


def check_evolution(members):
    """One start learns all four clusters, the other does not; the rank says so at the end."""
    learned = sorted(last(member, "mixture", "learned") for member in members)
    assert learned[1] == 4 and learned[0] < 4
    check_xor(members, 0.05, None, 2)


ENSEMBLES = {"xor_ensemble": lambda members: check_xor(members, 0.05, [24, 144, 88], 200),
             "xor_hdl": lambda members: check_xor(members, 0.1, [24, 144, 88], 200), "xor_eight": check_eight,
             "xor_evolution": check_evolution, "binary_sgd": check_binary}


@pytest.mark.slow
@pytest.mark.parametrize("name", ENSEMBLES)
def test_ensemble(shipped, name):
    ENSEMBLES[name](shipped(name))
