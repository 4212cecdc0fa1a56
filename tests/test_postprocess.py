"""Figures from synthetic runs: written here with h5py in the layout of metrics.h5, so that they need no simulation."""
import json
import os
from pathlib import Path
import subprocess
import sys

import h5py
import numpy as np
import pytest

POSTPROCESS = Path(__file__).resolve().parent.parent / "postprocess"
sys.path.insert(0, str(POSTPROCESS))

import runs  # noqa: E402
from drawing import draw_here  # noqa: E402

RESOLVED = """\
run:
  name: "synthetic \\u2116 1"
  seed: 1
data:
  kind: fashion_mnist    # ten classes
model:
  widths: [{widths}]
  activation: gelu
  init:
    kind: orthogonal
probes:
  - kind: spectrum
    every: 10
  - kind: subspace
train:
  lr: 0.1
"""


class Writer:
    """A group of metrics.h5 with netCDF-4 dimension scales."""

    def __init__(self, file, name, **attributes):
        self.group = file.create_group(name)
        self.group.attrs.update(attributes)

    def dimension(self, name, values, long_name=None):
        scale = self.group.create_dataset(name, data=np.asarray(values))
        scale.make_scale(name)
        self.about(scale, long_name or name, "1")

    def quantity(self, name, values, *dims, units="1", long_name=None):
        dataset = self.group.create_dataset(name, data=np.asarray(values))
        for position, dim in enumerate(dims):
            dataset.dims[position].attach_scale(self.group[dim])
        self.about(dataset, long_name or name.replace("_", " "), units)

    @staticmethod
    def about(dataset, long_name, units):
        dataset.attrs["long_name"] = long_name
        dataset.attrs["units"] = units


def write_train(file, steps, accuracy=True):
    train = Writer(file, "train")
    progress = steps / max(steps[-1], 1)
    train.dimension("step", steps)
    train.quantity("time", 0.1 * steps, "step")
    train.quantity("loss", 0.5 * np.exp(-9 * progress) + 1e-4, "step", long_name="training loss")
    train.quantity("gradient_norm", np.exp(-5 * progress), "step", long_name="Frobenius norm of the gradient")
    train.quantity("learning_rate", np.full(len(steps), 0.1), "step")
    evaluated = steps[::25]
    train.dimension("evaluated_step", evaluated, "step")
    late = evaluated / max(steps[-1], 1)
    train.quantity("test_loss", 0.5 * np.exp(-5 * late) + 0.01, "evaluated_step")
    for name, best in (("train_accuracy", 0.97), ("test_accuracy", 0.88)):
        values = best - 0.8 * np.exp(-8 * late) if accuracy else np.full(len(evaluated), np.nan)
        train.quantity(name, values, "evaluated_step")


def write_spectrum(file, steps, layers, rank, moving, **attributes):
    group = Writer(file, attributes.pop("name", "spectrum"), kind="spectrum",
                   **{"of": "weights", **attributes})
    group.dimension("step", steps)
    group.dimension("layer", np.arange(1, layers + 1))
    group.dimension("index", np.arange(1, rank + 1))
    progress = 1 / (1 + np.exp(-12 * (steps / max(steps[-1], 1) - 0.3)))
    values = np.full((len(steps), layers, rank), 0.1)
    for index in range(moving):
        values[:, :, index] += (1.5 * 0.8 ** index * progress[:, None] * (1 + 0.1 * np.arange(layers)))
    group.quantity("singular_value", values, "step", "layer", "index", long_name="singular value")
    group.quantity("residual", np.full(values.shape, 1e-12), "step", "layer", "index")
    group.quantity("converged", np.full(values.shape[:2], rank, dtype=np.int64), "step", "layer")
    group.quantity("products", np.full(values.shape[:2], 120, dtype=np.int64), "step", "layer")
    squares = values ** 2
    group.quantity("frobenius_norm", np.sqrt(squares.sum(-1)), "step", "layer")
    group.quantity("stable_rank", squares.sum(-1) / squares.max(-1), "step", "layer")
    shares = values / values.sum(-1, keepdims=True)
    group.quantity("effective_rank", np.exp(-(shares * np.log(shares)).sum(-1)), "step", "layer")
    group.quantity("numerical_rank", np.full(values.shape[:2], np.nan), "step", "layer")
    return group.group


def write_subspace(file, steps, layers, rank):
    group = Writer(file, "subspace", kind="subspace", of="weights", reference_step=int(steps[len(steps) // 10]))
    group.dimension("step", steps)
    group.dimension("layer", np.arange(1, layers + 1))
    group.dimension("index", np.arange(1, rank + 1))
    group.dimension("interface", np.arange(1, layers))
    group.dimension("left_index", np.arange(1, rank + 1))
    group.dimension("right_index", np.arange(1, rank + 1))
    progress = steps / max(steps[-1], 1)
    tilt = progress[:, None, None] * np.linspace(0.1, 1, rank) * np.linspace(1, 0.3, layers)[:, None]
    group.quantity("angle_left", tilt, "step", "layer", "index", units="rad")
    group.quantity("angle_right", 0.7 * tilt, "step", "layer", "index", units="rad")
    identity = np.eye(rank)
    noise = np.random.default_rng(1).uniform(0, 0.3, (len(steps), layers - 1, rank, rank))
    ramp = progress[:, None, None, None]
    group.quantity("alignment", ramp * identity + (1 - ramp) * noise, "step", "interface", "left_index",
                   "right_index")
    group.quantity("gap", np.full((len(steps), layers), 0.5), "step", "layer")
    group.quantity("flag", np.zeros((len(steps), layers), dtype=np.int64), "step", "layer")
    return group.group


def write_collapse(file, steps, layers, theory=True):
    group = Writer(file, "collapse", kind="collapse")
    group.dimension("step", steps)
    for name, size in (("features", layers), ("coefficient", 2), ("interface", layers - 1), ("layer", layers)):
        group.dimension(name, np.arange(1, size + 1))
    progress = (steps / max(steps[-1], 1))[:, None]
    fall = np.log(0.2) * np.arange(layers)
    group.quantity("compression", 11.25 * np.exp(progress * fall) * (1 - 0.01 * np.arange(layers)), "step", "features")
    group.quantity("compression_fit", np.hstack([np.log(0.2) * progress, np.full_like(progress, np.log(11.25))]), "step",
                   "coefficient")
    if theory:
        group.quantity("compression_theory", np.tile(11.25 * np.exp(fall), (len(steps), 1)), "step", "features")
    for name in ("discrimination", "nc1", "nc2_equinorm", "nc2_equiangular"):
        group.quantity(name, np.exp(-9 * progress * np.linspace(0, 1, layers)), "step", "features")
    group.quantity("balancedness", 1e-3 * progress * np.arange(1, layers), "step", "interface")
    group.quantity("mid_sv_range", np.full((len(steps), layers), 1e-15), "step", "layer")
    for name in ("nc3", "nc4", "min_norm_residual"):
        group.quantity(name, np.exp(-5 * progress[:, 0]), "step")
    return group.group


def alone(file):
    """Without the groups that other tests draw."""
    for name in ("train", "spectrum", "subspace"):
        del file[name]


def write_surroundings(path, widths):
    (path / "input.yaml").write_text("run: {name: synthetic}\n", encoding="utf-8")
    (path / "resolved.yaml").write_text(RESOLVED.format(widths=", ".join(map(str, widths))), encoding="utf-8")
    (path / "status.json").write_text(json.dumps({"state": "done", "step": 500, "reason": ""}), encoding="utf-8")


def write_run(path, widths=(784, 256, 256, 256, 10), last=500, rank=20, moving=10):
    """A run of a network with all groups that the program knows; returns its directory."""
    layers = len(widths) - 1
    path.mkdir(parents=True)
    write_surroundings(path, widths)
    with h5py.File(path / "metrics.h5", "w") as file:
        file.attrs.update({"format": "eigentrain metrics", "format_version": 1})
        file.create_group("provenance").attrs["version"] = "0.1.0"
        write_train(file, np.arange(last + 1))
        steps = np.arange(0, last + 1, 10)
        spectrum = write_spectrum(file, steps, layers, rank, moving)
        spectrum["singular_value"][:, -1, widths[-1]:] = np.nan  # the last layer has no more
        write_subspace(file, steps, layers, rank=5)
        timing = file.create_group("timing")
        timing["gradient"] = 1.25
    return path


@pytest.fixture
def run_directory(tmp_path):
    return write_run(tmp_path / "run")


def plot(*arguments):
    return draw_here("plot", *arguments)


def plot_command(*arguments):
    """plot.py as a process, as users start it."""
    return subprocess.run([sys.executable, POSTPROCESS / "plot.py", *arguments], capture_output=True, text=True,
                          timeout=120, check=False, env={**os.environ, "MPLBACKEND": "Agg"})


def figures(directory):
    return sorted(path.name for path in (directory / "figures").iterdir())


ALL = ["spectrum.png", "spectrum_map.png", "spectrum_rank.png", "spectrum_waterfall.png", "subspace.png", "subspace_alignment.png", "training.png"]


def test_all_figures(run_directory):
    result = plot_command(run_directory)
    assert (result.returncode, result.stderr) == (0, "")
    assert figures(run_directory) == ALL
    assert sorted(Path(line).name for line in result.stdout.splitlines()) == ALL
    assert all((run_directory / "figures" / name).read_bytes().startswith(b"\x89PNG") for name in ALL)


def test_format_and_selection(run_directory):
    assert plot(run_directory, "--format", "pdf", "--only", "training").returncode == 0
    assert figures(run_directory) == ["training.pdf"]
    assert plot(run_directory, "--only", "subspace").returncode == 0
    assert figures(run_directory) == ["subspace.png", "subspace_alignment.png", "training.pdf"]


def test_unknown_selection(run_directory):
    result = plot_command(run_directory, "--only", "curvature")
    assert result.returncode == 2
    assert "no figure or probe 'curvature'" in result.stderr and "spectrum" in result.stderr


def test_missing_values(run_directory):
    with h5py.File(run_directory / "metrics.h5", "r+") as file:
        file["spectrum/singular_value"][::3] = np.nan
        file["spectrum/singular_value"][:, 1] = np.nan
        file["spectrum/converged"][:, 1] = 0
        for name in ("train_accuracy", "test_accuracy", "test_loss"):
            file["train"][name][:] = np.nan
        file["train/loss"][400:] = np.nan
        file["subspace/angle_left"][:, 0] = np.nan
        file["subspace/flag"][:, 0] = 2
        file["subspace/alignment"][-3:] = np.nan
    result = plot(run_directory)
    assert (result.returncode, result.stderr) == (0, "")
    assert figures(run_directory) == ALL


def test_nothing_finite(run_directory):
    with h5py.File(run_directory / "metrics.h5", "r+") as file:
        for group in ("train", "spectrum", "subspace"):
            for dataset in file[group].values():
                if dataset.dtype.kind == "f":
                    dataset[...] = np.nan
    result = plot(run_directory)
    assert (result.returncode, result.stderr) == (0, "")
    assert figures(run_directory) == []


def test_absent_and_unknown_groups(run_directory):
    with h5py.File(run_directory / "metrics.h5", "r+") as file:
        del file["spectrum"]
        del file["subspace/step"]
        unheard_of = Writer(file, "unheard_of", kind="unheard_of")
        unheard_of.dimension("step", [0, 10])
    result = plot(run_directory)
    assert result.returncode == 0
    assert figures(run_directory) == ["training.png"]
    assert "nothing here draws probes of kind 'unheard_of'" in result.stderr
    assert "group subspace has no quantity step" in result.stderr


def test_single_measurement_and_two_layers(tmp_path):
    directory = write_run(tmp_path / "short", widths=(12, 8, 8), last=0, rank=8, moving=2)
    result = plot(directory)
    assert (result.returncode, result.stderr) == (0, "")
    assert figures(directory) == [name for name in ALL if name not in ("spectrum_map.png", "spectrum_waterfall.png")]


def test_many_layers_and_other_matrices(tmp_path):
    directory = write_run(tmp_path / "deep", widths=[12] * 15, last=100, rank=12, moving=12)  # more than panels
    with h5py.File(directory / "metrics.h5", "r+") as file:
        del file["subspace"], file["train"]
        write_spectrum(file, np.arange(0, 100, 10), 2, 4, 2, name="spectrum_gradient", of="gradient")
        write_spectrum(file, np.arange(0, 100, 10), 1, 4, 2, name="spectrum_product", of="product")
    result = plot(directory)
    assert (result.returncode, result.stderr) == (0, "")
    assert {"spectrum.png", "spectrum_gradient_rank.png", "spectrum_product.png"} <= set(figures(directory))


@pytest.mark.parametrize("layers, last, theory", [(8, 500, True), (30, 500, False), (2, 0, False)])
def test_collapse(tmp_path, layers, last, theory):
    directory = write_run(tmp_path / "collapse", widths=(50,) * layers + (5,), last=last, rank=5, moving=5)
    with h5py.File(directory / "metrics.h5", "r+") as file:
        alone(file)
        group = write_collapse(file, np.arange(0, last + 1, 10), layers, theory)
        if layers == 30:  # what is not defined, of some layers and at the last steps
            group["nc1"][:, 3:9] = np.nan
            group["compression"][:, 3] = 0
            group["compression"][-4:] = np.nan
            group["compression_fit"][...] = np.nan
            group["nc4"][...] = np.nan
    result = plot(directory, "--only", "collapse")
    assert (result.returncode, result.stderr) == (0, "")
    assert figures(directory) == ["collapse.png", "collapse_measures.png"]


def test_collapse_in_words(tmp_path):
    from draw import collapse
    directory = write_run(tmp_path / "collapse", widths=(50,) * 6 + (5,))
    with h5py.File(directory / "metrics.h5", "r+") as file:
        write_collapse(file, np.arange(0, 500, 10), 6)
    text = collapse.compression_message(runs.open_run(directory).groups["collapse"])
    assert text == "The classes contract by a factor 0.2 a layer, in all to 0.0003;\n0.95–0.99 of the closed form"


# ---------------------------------------------------------------- published values
def test_published_beside_ours(tmp_path):
    """By the name in the input; what the run has not measured is left out."""
    directory = write_run(tmp_path / "run", widths=(50,) * 6 + (5,))
    (directory / "input.yaml").write_text("# a comment\nrun:\n  seed: 3\n  name: dln_pnc  # the study\ndata: {}\n", encoding="utf-8")
    with h5py.File(directory / "metrics.h5", "r+") as file:
        alone(file)
        write_collapse(file, np.arange(0, 500, 10), 6)
        compression = file["collapse/compression"][-1]
    done = plot(directory)
    assert (done.returncode, done.stderr) == (0, "")
    row = next(line for line in done.stdout.splitlines() if line.startswith("compression"))
    assert "13.3326 3.86902" in row and row.endswith("differs")
    assert " ".join(f"{value:.4g}" for value in compression) in row
    with h5py.File(directory / "metrics.h5", "r+") as file:
        del file["collapse"]
    assert "13.3326" not in plot(directory).stdout


def test_entries_are_of_shipped_studies():
    import published
    inputs = {path.stem: path for path in (POSTPROCESS.parent / "inputs").rglob("*.yaml")}
    for name in json.loads(published.FILE.read_text(encoding="utf-8")):
        text = inputs[name].read_text(encoding="utf-8")
        assert published.study(text) == name
        for entry in published.entries(name):
            assert bool(entry.quantity) != bool(entry.figure) and (entry.value is None) == bool(entry.range), entry.what
            assert not entry.figure or len(entry.at) == len(entry.values()), entry.what


@pytest.mark.parametrize("text, name", [("run: {seed: 1, name: a-1}", "a-1"), ("run:\n  name: \"b\"\nx: {name: c}", "b"),
                                        ("run: {seed: 1}\nx: {name: c}", ""), ("", "")])
def test_name_of_a_study(text, name):
    import published
    assert published.study(text) == name


def test_compression_of_a_sweep(tmp_path):
    """All members in one figure, whose published values are found by their parameters."""
    lines = ["member,name,model.depth,model.activation,state,reason,step,steps,seconds,train/loss"]
    for number, (depth, activation) in enumerate([(6, "linear"), (8, "linear"), (6, "relu"), (8, "relu")], 1):
        directory = write_run(tmp_path / f"m{number}", widths=(50,) * depth + (5,), last=100)
        (directory / "input.yaml").write_text("run: {name: dln_collapse_grid}\n", encoding="utf-8")
        with open(directory / "resolved.yaml", "a", encoding="utf-8") as file:
            file.write(f"model:\n  depth: {depth}\n  activation: {activation}\n")
        with h5py.File(directory / "metrics.h5", "r+") as file:
            write_collapse(file, np.arange(0, 101, 10), depth, activation == "linear")
        lines.append(f"{number},m{number},{depth},{activation},done,,100,100,1,0.1")
    (tmp_path / "members.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    done = draw_here("collect", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert {"compression.png", "collapse_balancedness.png", "collapse_mid_sv_range.png"} <= set(figures(tmp_path))
    table = [line for line in done.stdout.splitlines() if line.startswith("last compression")]
    assert len(table) == 2 and "linear" in table[0] and "0.0015" in table[0]


@pytest.mark.parametrize("prepare, message", [
    (lambda path: None, "no such directory"),
    (lambda path: path.mkdir(), "not a run directory"),
    (lambda path: (path.mkdir(), (path / "input.yaml").touch()), "never started"),
    (lambda path: (path.mkdir(), (path / "status.json").write_text('{"state": "running", "step": 7}')),
     "the run is in state 'running' at step 7"),
    (lambda path: (path.mkdir(), (path / "metrics.h5").write_bytes(b"no HDF5")), "cannot be read as HDF5"),
], ids=["absent", "empty", "not started", "unfinished", "damaged"])
def test_bad_directories(tmp_path, prepare, message):
    prepare(tmp_path / "bad")
    result = plot(tmp_path / "bad")
    assert result.returncode == 2
    assert message in result.stderr and len(result.stderr.splitlines()) == 1


def test_bad_directory_among_good_ones(run_directory, tmp_path):
    assert plot_command(tmp_path / "absent", run_directory, "--only", "training").returncode == 2
    assert figures(run_directory) == ["training.png"]


def test_reader(run_directory):
    (run_directory / "snapshots").mkdir()
    for step in (100, 20):
        with h5py.File(run_directory / "snapshots" / f"step_{step:09d}.h5", "w") as file:
            file["W1"], file["W2"] = np.zeros((4, 3)), np.zeros((2, 4))
    run = runs.open_run(run_directory)
    assert run.name == "synthetic № 1" and run.status["state"] == "done"
    assert run.setting("data.kind") == "fashion_mnist" and run.setting("model.init.kind") == "orthogonal"
    assert run.setting("train.lr") == "0.1" and run.setting("probes.every") is None
    assert [step for step, _ in run.snapshots()] == [20, 100]
    assert run.widths() == [784, 256, 256, 256, 10]
    del run.settings["model.widths"]
    assert run.widths() == [3, 4, 2]
    group = run.groups["spectrum"]
    assert group.variables["singular_value"].dims == ("step", "layer", "index")
    assert group.label("singular_value") == "singular value"
    assert run.groups["subspace"].label("angle_left") == "angle left (rad)"
    assert run.groups["provenance"].attributes == {"version": "0.1.0"}


def test_message_counts_what_moves(run_directory):
    from draw import spectrum
    run = runs.open_run(run_directory)
    assert spectrum.spectrum_message(run, run.groups["spectrum"]) == "the leading 10 of up to 256 singular values move"


# ---------------------------------------------------------------- how close is close enough
@pytest.mark.parametrize("entry, ours, passed", [
    ({"value": 2.0, "tolerance": 0.1}, [2.19, np.nan], True), ({"value": 2.0, "tolerance": 0.1}, [2.21], False),
    ({"value": [1, 2], "tolerance": 0}, [1, 2], True), ({"value": [1, 2], "tolerance": 0}, [2, 1], False),
    ({"value": 0, "tolerance": 1e-3}, [9e-4], True), ({"value": 0, "tolerance": 1e-3}, [-2e-3], False),
    ({"range": [0.5, 1]}, [0.5, 1], True), ({"range": [0.5, 1]}, [0.7, 1.01], False),
    ({"value": 1, "how": "printed"}, [1.04], True), ({"value": 1, "how": "theorem"}, [1.0001], False),
    ({"value": 1.0}, [np.nan], None)])
def test_judgement(entry, ours, passed):
    import published
    assert published.Compared(published.Published("x", **entry), np.array(ours, dtype=float)).passed() is passed
