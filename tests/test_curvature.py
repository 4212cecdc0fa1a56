"""The probe `curvature`: the reference cases of the specification of curvature operators (curv_ref, kgmm_exact, xor_exact,
eos_scalar), dense matrices in NumPy for every activation, loss and block, resumed runs, other grids, and what is refused."""
import h5py
import numpy as np
import pytest
import yaml

import formula
import oracle
import oracle_curvature
from same import assert_same
from test_oracle_curvature import ref_unit

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


def curv_ref(tmp_path, probes, more=""):
    """Input of curv_ref; `more` are lines that go on."""
    X = ref_unit(601, 6, 24) + ref_unit(602, 6, 3)[:, CLASSES]
    formula.write_data(tmp_path / "data.h5", np.eye(3)[:, CLASSES], X)
    with h5py.File(tmp_path / "start.h5", "w") as file:
        for l in range(1, 4):
            file[f"W{l}"] = ref_unit(610 + l, WIDTHS[l], WIDTHS[l - 1]) / np.sqrt(WIDTHS[l - 1])
            file[f"b{l}"] = 0.1 * ref_unit(630 + l, WIDTHS[l], 1)
    lines = [
        f"data: {{kind: hdf5, file: {tmp_path / 'data.h5'}, targets: classes}}",
        f"model: {{widths: {WIDTHS}, activation: tanh, bias: true, init: {{kind: file, file: {tmp_path / 'start.h5'}}}}}",
        "loss: {kind: cross_entropy}", "train: {steps: 0}", "snapshot: {every: end}", more, "probes:", *probes, ""]
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
        tolerance = 1e-7 if name.startswith("unit") else 1e-9
        assert np.allclose(values(found[name])[0][:len(expected)], expected, rtol=0, atol=tolerance), name
        assert np.all(found[name]["curvature_residual"] <= 1e-10), name
        assert found[name]["eigen_converged"][0] == values(found[name]).shape[1], name
    full = found["hessian"]
    assert np.isclose(full["loss"][0], 1.46905559801968, rtol=0, atol=1e-13)
    assert np.isclose(full["rayleigh_gradient"][0], 1.1862997234755, rtol=0, atol=1e-9)
    assert full["eigen_orthogonality"][0] <= 1e-10
    assert np.isclose(found["g"]["trace_exact"][0], 8.822048280563, rtol=0, atol=1e-11)
    assert np.isclose(found["g_centred"]["trace_exact"][0], 6.583724287926, rtol=0, atol=1e-11)


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


# ---------------------------------------------------------------- dense matrices
NETWORKS = {
    "gelu": ("widths: [4, 5, 7, 3], activation: gelu, bias: true", "kind: mse"),
    "tanh": ("widths: [4, 5, 3], activation: tanh, linear_head: 1", "kind: cross_entropy"),
    "silu": ("widths: [4, 6, 6, 6, 3], activation: silu, residual: pairs", "kind: mse, reduction: sum"),
    "elu": ("widths: [4, 4, 4, 3], activation: elu, residual: scaled, trainable: [2, 3]", "kind: mse"),
    "linear": ("widths: [4, 3], activation: linear", "kind: mse, reduction: samples"),
    "relu": ("widths: [4, 6, 5, 3], activation: relu, bias: true", "kind: logistic"),
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
def test_noise_free_classifier(run):
    """`kgmm_exact`: every eigenvalue with all its copies, and null vectors."""
    done = check(run("""
data:  {kind: gaussian_mixture, features: 6, classes: 4, lambda: infinite, counts: equal, train: 4}
model: {widths: [6, 4], init: {kind: identity, scale: 1.5}}
loss:  {kind: cross_entropy}
train: {steps: 0}
probes:
""" + "\n".join([probe("full", rank=13), probe("block", block=1, unit=1, rank=4), probe("g", operator="g", rank=4),
                 probe("g_block", operator="g", block=1, unit=1, rank=4),
                 probe("g_centred", operator="g_centred", rank=4)]) + "\n"))
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


@pytest.mark.parametrize("alpha, hessian, g", [
    (0.05, [*4 * [0.1109035488896], *4 * [0.1], *20 * [0.05]], 0.0277258872224),
    (0.1, [*4 * [0.2], *20 * [0.1], *4 * [0.0486558129730]], 0.0324372086487)])
def test_exact_point_of_xor(run, tmp_path, alpha, hessian, g):
    found = series(check(run(xor_exact(tmp_path, alpha, [
        probe("hessian", rank=28), probe("g", operator="g", rank=5), probe("centred", operator="g_centred", rank=4),
        probe("ggn", operator="ggn", rank=4), probe("last", block=2, rank=4),
        probe("last_g", operator="g", block=2, rank=4)]))))
    full = found["hessian"]
    assert np.allclose(full["curvature_eigenvalue"][0], hessian, rtol=0, atol=1e-12)
    assert full["eigen_orthogonality"][0] <= 1e-10 and np.all(full["curvature_residual"] <= 1e-10)
    assert np.allclose(found["g"]["curvature_eigenvalue"][0], [*4 * [g], 0], rtol=0, atol=1e-12)
    assert np.allclose(found["centred"]["curvature_eigenvalue"][0], [*3 * [g], 0], rtol=0, atol=1e-12)
    if alpha == 0.05:
        for name, expected in (("ggn", 0.1109035488896), ("last", 0.105451774445), ("last_g", 0.0138629436112)):
            assert np.allclose(found[name]["curvature_eigenvalue"][0], expected, rtol=0, atol=1e-12), name


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


# ---------------------------------------------------------------- a tracked run
def tracked(every=5, more=""):
    """Batches, momentum and weight decay; eigenpairs every few steps."""
    return "\n".join([
        "run: {seed: 3}", "data: {kind: gaussian, features: 8, outputs: 3, targets: classes, train: 30, test: 12}",
        "model: {widths: [8, 6, 3], activation: tanh, bias: true}", "loss: {kind: cross_entropy}",
        "train: {optimizer: momentum, lr: 0.05, momentum: 0.5, batch: 10, steps: 40, weight_decay: 0.01}",
        "snapshot: {every: 20}", "probes:",
        *(probe(name, every=every, **keys) for name, keys in {
            "hessian": {"rank": 3, "which": "both", "reference": 7}, "test": {"of": "test", "rank": 2, "operator": "ggn"},
            "batch": {"of": "batch", "rank": 2, "operator": "g"}, "magnitude": {"rank": 3, "which": "magnitude"},
            "cross": {"block": "[2, 1]", "rank": 2}, "layer": {"block": 1, "rank": 2, "start": 10},
            "unit": {"block": 2, "unit": 2, "rank": 2}}.items()), more, ""])


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


# ---------------------------------------------------------------- what cannot be
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
