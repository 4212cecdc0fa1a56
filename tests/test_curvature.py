"""The probe `curvature`: the reference cases of the specification of curvature operators (curv_ref, kgmm_exact, xor_exact), dense
matrices in NumPy for every activation, loss and block, other grids, and what is refused."""
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml

import formula
import oracle
import oracle_curvature
from test_oracle_curvature import ref_unit

INPUTS = Path(__file__).resolve().parent.parent / "inputs" / "hessian"
MATRICES = {"hessian": oracle_curvature.dense_hessian, "ggn": oracle_curvature.dense_ggn, "g": oracle_curvature.dense_g,
            "g_centred": lambda *case: oracle_curvature.dense_g(*case, centred=True)}


def check(finished, code=0):
    assert finished.returncode == code, finished.stdout + finished.stderr
    return finished


def series(finished):
    """{group: {quantity: values}} of the probes."""
    with h5py.File(finished.dir / "metrics.h5") as file:
        return {name: {key: item[()] for key, item in group.items() if isinstance(item, h5py.Dataset)}
                for name, group in file.items() if group.attrs.get("kind") in (b"curvature", "curvature")}


def vectors(finished, step, group, end="largest"):
    with h5py.File(finished.dir / "snapshots" / f"step_{step:09d}.h5") as file:
        return file[f"{group}/curvature_eigenvector_{end}"][()]


def probe(name, **keys):
    words = ", ".join(f"{key}: {value}" for key, value in keys.items())
    return f"  - {{kind: curvature, name: {name}, tolerance: 1e-12, {words}}}"


# ---------------------------------------------------------------- the reference case
WIDTHS = [6, 5, 4, 3]
CLASSES = np.arange(24) % 3


def curv_ref(tmp_path, probes, more="", activation="tanh", loss="kind: cross_entropy"):
    """Input of curv_ref; `more` are lines that go on."""
    X = ref_unit(601, 6, 24) + ref_unit(602, 6, 3)[:, CLASSES]
    formula.write_data(tmp_path / "data.h5", np.eye(3)[:, CLASSES], X)
    with h5py.File(tmp_path / "start.h5", "w") as file:
        for l in range(1, 4):
            file[f"W{l}"] = ref_unit(610 + l, WIDTHS[l], WIDTHS[l - 1]) / np.sqrt(WIDTHS[l - 1])
            file[f"b{l}"] = 0.1 * ref_unit(630 + l, WIDTHS[l], 1)
    lines = [
        f"data: {{kind: hdf5, file: {tmp_path / 'data.h5'}, targets: classes}}",
        f"model: {{widths: {WIDTHS}, activation: {activation}, bias: true, "
        f"init: {{kind: file, file: {tmp_path / 'start.h5'}}}}}",
        f"loss: {{{loss}}}", "train: {steps: 0}", "snapshot: {every: end}", more, "probes:", *probes, ""]
    return "\n".join(lines)


# name: keys of the probe, leading values
REFERENCE = {
    "hessian": ({"which": "both", "rank": 4},
                [1.735207202339, 1.571289092730, 1.223003606262, 1.000880224015, -1.456893232946, -1.202824051894]),
    "magnitude": ({"which": "magnitude", "rank": 3}, [1.735207202339, 1.571289092730, -1.456893232946]),
    "smallest": ({"which": "smallest", "rank": 2}, [-1.456893232946, -1.202824051894]),
    "ggn": ({"operator": "ggn", "rank": 4}, [1.547644638427, 1.240530744946, 0.680295915725, 0.573363026834]),
    "g": ({"operator": "g", "rank": 4}, [2.996183511017, 2.387465675988, 0.766755479670, 0.653126785016]),
    "g_centred": ({"operator": "g_centred", "rank": 3}, [2.394470095880, 1.244688956583, 0.737021822804]),
    "h11": ({"block": 1, "rank": 2}, [1.263754059154, 0.791577766231]),
    "h22": ({"block": "[2, 2]", "rank": 2}, [0.488986258977, 0.305565485340]),
    "h33": ({"block": 3, "rank": 2}, [0.496394620866, 0.421394170322]),
    "h21": ({"block": "[2, 1]", "rank": 2}, [0.991307116353, 0.694851163925]),
    "h31": ({"block": "[3, 1]", "rank": 2}, [0.678712167658, 0.494936822898]),
    "h32": ({"block": "[3, 2]", "rank": 2}, [1.141477550387, 0.670192498250]),
    "ggn11": ({"operator": "ggn", "block": 1, "rank": 2}, [0.920658408043, 0.701052303533]),
    "ggn21": ({"operator": "ggn", "block": "[2, 1]", "rank": 2}, [0.468935987867, 0.414763783613]),
    "g11": ({"operator": "g", "block": 1, "rank": 2}, [1.627898364538, 0.923422130291]),
    "g32": ({"operator": "g", "block": "[3, 2]", "rank": 2}, [1.189329648573, 0.572002607888]),
    "remainder": ({"operator": "remainder", "which": "both", "rank": 2}, [1.26781496, 1.01808988, -1.80105193, -1.34044198]),
    "unit": ({"block": 1, "unit": 1, "biases": "false", "rank": 2}, [0.1116364, 0.0063608]),
    "units": ({"block": 1, "unit": "[1, 2]", "biases": "false", "rank": 2}, [0.17700353, 0.12888414]),
}


def values(group):
    return group["block_singular_value" if "block_singular_value" in group else "curvature_eigenvalue"]


def reference_probes():
    return [probe(name, **keys) for name, (keys, _) in REFERENCE.items()]


def test_reference_case(run, tmp_path):
    done = check(run(curv_ref(tmp_path, reference_probes())))
    found = series(done)
    for name, (keys, expected) in REFERENCE.items():
        tolerance = 1e-7 if name in ("unit", "units", "remainder") else 1e-9
        assert np.allclose(values(found[name])[0][:len(expected)], expected, rtol=0, atol=tolerance), name
        assert np.all(found[name]["curvature_residual"] <= 1e-10), name
        assert found[name]["eigen_converged"][0] == values(found[name]).shape[1], name
    full = found["hessian"]
    assert np.isclose(full["loss"][0], 1.46905559801968, rtol=0, atol=1e-13)
    assert np.isclose(full["rayleigh_gradient"][0], 1.1862997234755, rtol=0, atol=1e-9)
    assert full["eigen_orthogonality"][0] <= 1e-10
    assert np.isclose(found["g"]["trace_exact"][0], 8.822048280563, rtol=0, atol=1e-11)
    assert np.isclose(found["g_centred"]["trace_exact"][0], 6.583724287926, rtol=0, atol=1e-11)


def spectrum(tmp_path, run, ranks=1, **case):
    """{matrix: all 74 eigenvalues, descending} of curv_ref or of its variants, and the loss."""
    probes = [probe(name, operator=name, rank=74) for name in MATRICES]
    found = series(check(run(curv_ref(tmp_path, probes, **case), ranks=ranks)))
    return {name: group["curvature_eigenvalue"][0] for name, group in found.items()}, found["hessian"]["loss"][0]


def test_traces_and_norms_of_the_reference_case(run, tmp_path):
    """From all eigenvalues."""
    value, _ = spectrum(tmp_path, run)
    for name, trace, squares in (("hessian", -0.331569882456, 20.2877163687182), ("ggn", 5.982602560356, 5.26338788667358),
                                 ("g", 8.822048280563, 16.3974825329366), ("g_centred", 6.583724287926, None)):
        assert np.isclose(value[name].sum(), trace, rtol=0, atol=1e-9), name
        assert squares is None or np.isclose(value[name] @ value[name], squares, rtol=1e-9), name


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_reference_case_with_relu(run, tmp_path, ranks):
    """Piecewise linear: no diagonal block of the remainder."""
    value, loss = spectrum(tmp_path, run, ranks, activation="relu")
    assert np.isclose(loss, 1.31866995798592, rtol=0, atol=1e-13)
    assert np.allclose(value["hessian"][:2], [2.333041775618, 2.141837403193], rtol=0, atol=1e-9)
    for name in ("hessian", "ggn"):
        assert np.isclose(value[name].sum(), 5.95859580032337, rtol=0, atol=1e-9)


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_reference_case_with_squared_error(run, tmp_path, ranks):
    value, loss = spectrum(tmp_path, run, ranks, loss="kind: mse, reduction: samples")
    assert np.isclose(loss, 1.42955677732092, rtol=0, atol=1e-13)
    for name, largest in (("hessian", 4.887931429752), ("ggn", 5.311227222301), ("g", 9.450202794999)):
        assert np.isclose(value[name][0], largest, rtol=0, atol=1e-9), name


@pytest.mark.parametrize("ranks, block", [(2, 2), (2, 64), pytest.param(4, 2, marks=pytest.mark.slow),
                                          pytest.param(6, 2, marks=pytest.mark.slow),
                                          pytest.param(6, 3, marks=pytest.mark.slow)])
def test_any_grid_has_the_same_numbers(run, tmp_path, ranks, block):
    whole = series(check(run(curv_ref(tmp_path, reference_probes()))))
    other = series(check(run(curv_ref(tmp_path, reference_probes()), ranks=ranks,
                             args=["--set", f"grid.block={block}"])))
    assert whole.keys() == other.keys()
    for name, group in whole.items():
        for key in group.keys() - {"curvature_residual", "eigen_orthogonality", "curvature_products", "eigen_gap"}:
            assert np.allclose(group[key], other[name][key], rtol=1e-10, atol=1e-11, equal_nan=True), (name, key)


def test_shipped_reference_case(run):
    """`curvature_ref`: the same numbers without files."""
    done = check(run(INPUTS / "curvature_ref.yaml", ranks=2))
    found = series(done)
    for mine, theirs in {"hessian": "hessian", "ggn": "ggn", "g": "g", "g_centred": "g_centred", "remainder": "remainder",
                         "h11": "layer_1", "h22": "layer_2", "h33": "layer_3", "h21": "between_2_1", "h31": "between_3_1",
                         "h32": "between_3_2"}.items():
        expected = REFERENCE[mine][1]
        measured = values(found[theirs])[0]
        assert np.allclose(measured[:len(expected)], expected, rtol=0, atol=1e-7 if mine == "remainder" else 1e-9), theirs
    assert np.isclose(found["hessian"]["loss"][0], 1.46905559801968, rtol=0, atol=1e-13)
    with h5py.File(done.dir / "metrics.h5") as file:
        for name, trace, squares in (("hessian", -0.331569882456, 20.2877163687182), ("ggn", 5.982602560356, 5.26338788667358),
                                     ("g", 8.822048280563, 16.3974825329366)):
            assert np.isclose(file[f"trace_{name}/trace_estimate"][0], trace, rtol=0, atol=1e-11), name
            assert np.isclose(file[f"trace_{name}/frobenius_estimate"][0], squares, rtol=1e-12), name
        assert np.isclose(file["classes/class_trace_share"][0], 0.559339929469, rtol=0, atol=1e-9)
        assert np.allclose(file["spectrum/effective_rank"][0], [3.93924276147, 3.22454035047, 2.52127178807], rtol=1e-10)


# ---------------------------------------------------------------- dense matrices
NETWORKS = {
    "gelu": ("widths: [4, 5, 7, 3], activation: gelu, bias: true", "kind: mse"),
    "tanh": ("widths: [4, 5, 3], activation: tanh, linear_head: 1", "kind: cross_entropy"),
    "silu": ("widths: [4, 6, 6, 6, 3], activation: silu, residual: pairs", "kind: mse, reduction: sum"),
    "elu": ("widths: [4, 4, 4, 3], activation: elu, residual: scaled, trainable: [2, 3]", "kind: mse"),
    "linear": ("widths: [4, 3], activation: linear", "kind: mse, reduction: samples"),
    "deep": ("widths: [4, 5, 3], activation: linear", "kind: mse, reduction: samples"),
    "relu": ("widths: [4, 6, 5, 3], activation: relu, bias: true", "kind: logistic"),
    "exponential": ("widths: [4, 6, 5, 3], activation: tanh, bias: true", "kind: exponential, reduction: samples"),
    "leaky": ("widths: [4, 5, 5, 3], activation: leaky_relu, output_scale: 3", "kind: cross_entropy"),
    "masked": ("widths: [4, 5, 3], activation: tanh, bias: true", "kind: masked_mse, reduction: observed"),
}
SAMPLES, RIDGE = 12, 0.25


def network(tmp_path, name):
    """Lines of the input without probes; and (loss, layers, parameters, samples) of the oracle, with the ridge."""
    model, loss = NETWORKS[name]
    classes = "mse" not in loss
    Y = np.eye(3)[:, np.arange(SAMPLES) % 3] if classes else ref_unit(702, 3, SAMPLES)
    mask = {"M": (ref_unit(703, 3, SAMPLES) > -0.5).astype(float)} if "masked" in loss else {}
    formula.write_data(tmp_path / "data.h5", Y, ref_unit(701, 4, SAMPLES), **mask)
    text = "\n".join([
        f"data: {{kind: hdf5, file: {tmp_path / 'data.h5'}, targets: {'classes' if classes else 'values'}}}",
        f"model: {{{model}, init: {{kind: file, file: {tmp_path / 'start.h5'}}}}}", f"loss: {{{loss}}}",
        f"train: {{steps: 0, weight_decay: {RIDGE}}}", ""])
    spec = yaml.safe_load(text)
    layers = oracle.build_network(spec, 4, 3)
    with h5py.File(tmp_path / "start.h5", "w") as file:
        for l, layer in enumerate(layers, 1):
            file[f"W{l}"] = ref_unit(710 + l, layer.n_out, layer.n_in) / np.sqrt(layer.n_in)
            file[f"b{l}"] = 0.2 * ref_unit(730 + l, layer.n_out, 1)
    return text, (oracle.loss_of(spec), layers, oracle.initial_parameters(spec, layers), oracle.load_data(spec).train)


def positions(layers, bias, layer=0, unit=0):
    """Where the elements of a part stand among all parameters."""
    number, found = np.arange(sum(layer.n_out * (layer.n_in + bias) for layer in layers)), []
    for l, size in enumerate(layers, 1):
        mine, number = np.split(number, [size.n_out * (size.n_in + bias)])
        W, b = mine[:size.n_out * size.n_in].reshape(size.n_out, size.n_in), mine[size.n_out * size.n_in:]
        if unit:
            W, b = W[unit - 1], b[unit - 1:unit]
        if layer in (0, l):
            found += [*W.ravel(), *b]
    return np.array(found)


def blocks(layers):
    """(row, column) of each block that is measured, as (layer, unit) with 0 for all of them."""
    trained = [l for l, layer in enumerate(layers, 1) if layer.trainable]
    first, last = trained[0], trained[-1]
    return [((0, 0), (0, 0)), *(((l, 0), (l, 0)) for l in trained), *(((l, m), (l, m)) for l in trained for m in (2,)),
            *[((last, 0), (first, 0)), ((last, 1), (first, 3))][:2 * (first != last)], ((first, 1), (first, 2))]


def test_identities_of_blocks(run, tmp_path):
    """Seed-free: what of the Hessian is exactly of Gauss-Newton."""
    def blocks_of(text, pairs):
        probes = [probe(f"{matrix}_{l}_{m}", operator=matrix, rank=2, block=l if l == m else f"[{l}, {m}]")
                  for l, m in pairs for matrix in ("hessian", "ggn")]
        text = text.replace(f"weight_decay: {RIDGE}", "weight_decay: 0")
        found = series(check(run("\n".join([text + "probes:", *probes, ""]))))
        return [(values(found[f"hessian_{l}_{m}"])[0], values(found[f"ggn_{l}_{m}"])[0]) for l, m in pairs]
    for name, pairs in (("gelu", [(3, 3)]), ("relu", [(1, 1), (2, 2), (3, 3)]), ("linear", [(1, 1)]),
                        ("deep", [(1, 1), (2, 2)])):
        for H, G in blocks_of(network(tmp_path, name)[0], pairs):
            assert np.allclose(H, G, rtol=1e-12, atol=1e-12 * G[0]), name
    for name in ("relu", "deep"):  # off the diagonal the residual counts
        (H, G), = blocks_of(network(tmp_path, name)[0], [(2, 1)])
        assert not np.allclose(H, G, rtol=1e-3), name


def keys_of(row, column):
    """At both ends; a null space of many dimensions is there what is smallest."""
    if row == (0, 0):
        return {"which": "both", "rank": 4}
    keys = {"block": row[0] if row[0] == column[0] else f"[{row[0]}, {column[0]}]", "rank": 2}
    if row[1]:
        keys["unit"] = row[1] if row[1] == column[1] else f"[{row[1]}, {column[1]}]"
    return keys


def check_block(found, B, row, column):
    """Zeros with tiny eigenvalues close by may be given up, as NaN; nothing else may, and no value may be wrong."""
    theta = np.linalg.eigvalsh(B)[::-1] if row == column else np.linalg.svd(B)[1]
    measured = values(found)[0]
    expected = np.concatenate([theta[:4], theta[:-5:-1]])[:measured.size] if row == (0, 0) else theta[:2]
    given_up = np.isnan(measured) & (np.abs(expected) < 1e-9 * np.abs(theta).max())
    measured = np.where(given_up, expected, measured)
    return np.allclose(measured, expected, rtol=0, atol=1e-9 * max(1, np.abs(theta).max()))


@pytest.mark.parametrize("name", NETWORKS)
def test_against_dense_matrices(run, tmp_path, name):
    text, case = network(tmp_path, name)
    layers, bias = case[1], case[2].b is not None
    wanted = {f"{matrix}_{i}": (matrix, *parts) for matrix in MATRICES for i, parts in enumerate(blocks(layers))}
    probes = [probe(group, operator=matrix, **keys_of(row, column)) for group, (matrix, row, column) in wanted.items()]
    found = series(check(run("\n".join([text + "probes:", *probes, ""]))))
    dense = {matrix: of(*case) for matrix, of in MATRICES.items()}
    trained = np.repeat([layer.trainable for layer in layers], [layer.n_out * (layer.n_in + bias) for layer in layers])
    dense["hessian"] = dense["hessian"] + RIDGE * np.diag(trained.astype(float))
    for group, (matrix, row, column) in wanted.items():
        B = dense[matrix][np.ix_(positions(layers, bias, *row), positions(layers, bias, *column))]
        assert check_block(found[group], B, row, column), (group, matrix, row, column)


# ---------------------------------------------------------------- exact multiplicities
RANKS = [1, 2, pytest.param(4, marks=pytest.mark.slow), pytest.param(6, marks=pytest.mark.slow)]


@pytest.mark.parametrize("ranks", RANKS)
def test_noise_free_classifier(run, ranks):
    """`kgmm_exact`: every eigenvalue with all its copies, and null vectors."""
    done = check(run("""
data:  {kind: gaussian_mixture, features: 6, classes: 4, lambda: infinite, counts: equal, train: 4}
model: {widths: [6, 4], init: {kind: identity, scale: 1.5}}
loss:  {kind: cross_entropy}
train: {steps: 0}
probes:
""" + "\n".join([probe("full", rank=13), probe("block", block=1, unit=1, rank=4), probe("g", operator="g", rank=4),
                 probe("g_block", operator="g", block=1, unit=1, rank=4),
                 probe("g_centred", operator="g_centred", rank=4)]) + "\n", ranks=ranks))
    found = {name: group["curvature_eigenvalue"][0] for name, group in series(done).items()}
    full = 4 * [0.0800649454063] + 8 * [0.0334149144197] + [0]
    assert np.allclose(found["full"], full, rtol=0, atol=1e-12), found["full"]
    assert np.allclose(found["block"], [0.0600487090548, *3 * [0.0289486883970]], rtol=0, atol=1e-12)
    assert np.allclose(found["g"], 4 * [0.0535947122724], rtol=0, atol=1e-12)
    assert np.allclose(found["g_centred"], [*3 * [0.0535947122724], 0], rtol=0, atol=1e-12)
    assert np.allclose(found["g_block"], [0.0401960342043, *3 * [0.0044662260227]], rtol=0, atol=1e-12)
    group = series(done)["block"]
    assert np.allclose(group["outlier_projection"][0], 1, rtol=0, atol=1e-12)


def xor_exact(tmp_path, alpha, probes, steps=0):
    C = np.log((1 - 4 * alpha) / (4 * alpha))
    W = np.zeros((4, 6))
    W[[0, 1, 2, 3], [0, 0, 1, 1]] = np.sqrt(C) * np.array([1, -1, 1, -1])
    formula.write_weights(tmp_path / "start.h5", [W, np.sqrt(C) * np.array([[1, 1, -1, -1]])])
    return "\n".join([
        "data: {kind: xor_mixture, features: 6, lambda: infinite, counts: equal, train: 4}",
        f"model: {{widths: [6, 4, 1], activation: relu, init: {{kind: file, file: {tmp_path / 'start.h5'}}}}}",
        "loss: {kind: logistic}", f"train: {{weight_decay: {alpha}, steps: {steps}}}", "probes:", *probes, ""])


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("alpha, hessian, g", [
    (0.05, [*4 * [0.1109035488896], *4 * [0.1], *20 * [0.05]], 0.0277258872224),
    (0.1, [*4 * [0.2], *20 * [0.1], *4 * [0.0486558129730]], 0.0324372086487)])
def test_exact_point_of_xor(run, tmp_path, alpha, hessian, g, ranks):
    found = series(check(run(xor_exact(tmp_path, alpha, [
        probe("hessian", rank=28), probe("g", operator="g", rank=5), probe("centred", operator="g_centred", rank=4),
        probe("ggn", operator="ggn", rank=4), probe("last", block=2, rank=4),
        probe("last_g", operator="g", block=2, rank=4)]), ranks=ranks)))
    full = found["hessian"]
    assert np.allclose(full["curvature_eigenvalue"][0], hessian, rtol=0, atol=1e-12)
    assert full["eigen_orthogonality"][0] <= 1e-10 and np.all(full["curvature_residual"] <= 1e-10)
    assert np.allclose(found["g"]["curvature_eigenvalue"][0], [*4 * [g], 0], rtol=0, atol=1e-12)
    assert np.allclose(found["centred"]["curvature_eigenvalue"][0], [*3 * [g], 0], rtol=0, atol=1e-12)
    if alpha == 0.05:
        for name, expected in (("ggn", 0.1109035488896), ("last", 0.105451774445), ("last_g", 0.0138629436112)):
            assert np.allclose(found[name]["curvature_eigenvalue"][0], expected, rtol=0, atol=1e-12), name


# ---------------------------------------------------------------- what cannot be
def test_a_sequence_has_three_seeds(run):
    done = check(run("data: {kind: gaussian, features: 3, outputs: 2, train: 4, targets: clusters, sequence: [1, 2]}\n"
                     "model: {widths: [3, 2]}\n"), 2)
    assert "data.sequence: three seeds: of the offset, the class means and the noise" in done.stderr


def test_what_the_probe_refuses(run):
    text = "data: {kind: gaussian, features: 3, outputs: 2, train: 4}\nmodel: {widths: [3, 4, 2], trainable: [2]}\nprobes:\n"
    done = check(run(text + "\n".join([
        probe("a", block=3), probe("b", block=1), probe("c", unit=1), probe("d", block=2, unit=3), probe("e", rank=99),
        probe("f", of="test"), probe("g", block="[1, 2, 3]"), probe("h", rank=4, basis=4)]) + "\n"), 2)
    for words in ("probes[0].block: there is no layer 3: the network has 2", "probes[1].block: layer 1 is frozen",
                  "probes[2].unit: a unit of which layer? give `block`, too", "probes[3].unit: there is no unit 3 in layer 2",
                  "probes[4].rank: is 99, but the matrix has only 20", "probes[5].of: there is no test set",
                  "probes[6].block: one layer, or two", "probes[7].basis: is 4, but 4 vectors are wanted"):
        assert words in done.stderr, words + "\n" + done.stderr
