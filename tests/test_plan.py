"""plan: what it says, its memory beside that of real runs, and what it refuses. Times are compared in bench/bench.py."""
import json
import re

import h5py
import numpy as np
import pytest

from test_bad_inputs import IDX, idx_files

DATA = "data: {kind: gaussian, features: 600, outputs: 400, train: 1500, test: 300}\n"
FULL = DATA + """model: {width: 500, depth: 4, activation: gelu, bias: true}
train: {optimizer: adam, lr: 1e-3, steps: 3}
probes:
  - {kind: spectrum, every: 2, rank: full}
  - {kind: subspace, of: update, every: 2, rank: 6}
snapshot: {every: end}
"""
# Where the memory is: activations and full spectra; whitening; batches of a deep network with the moments of Adam; the
# bases of a network that is never formed.
PEAKS = {
    "activations": FULL,
    "whitening": """data: {kind: gaussian, features: 500, outputs: 10, train: 4000, whiten: true}
model: {width: 100, depth: 3, activation: linear}
train: {steps: 2}
""",
    "weights": """data: {kind: gaussian, features: 300, outputs: 300, train: 800}
model: {width: 600, depth: 8, activation: relu}
train: {optimizer: adam, batch: 32, lr: 1e-4, steps: 4, evaluate_every: 4}
probes: [{kind: spectrum, every: 4, rank: 5}]
checkpoint: {every: 2}
""",
    "flow": """data: {kind: gaussian, features: 400, outputs: 300, train: 500}
model: {width: 600, depth: 5, activation: relu}
train: {optimizer: gradient_flow, integrator: adaptive, lr: 1e-3, steps: 2, evaluate_every: 2}
""",
    "compressed": """data: {kind: low_rank_matrix, rows: 30000, cols: 30000, rank: 10, spectrum: given, singular_values: [300, 290, 280, 270, 260, 250, 240, 230, 220, 210]}
model: {width: 30000, depth: 3, activation: linear, parametrization: compressed, init: {kind: householder}}
train: {lr: 1e-4, steps: 4}
""",
    "curvature": """data: {kind: gaussian, features: 400, outputs: 10, targets: classes, train: 2000}
model: {widths: [400, 500, 500, 10], activation: tanh}
loss: {kind: cross_entropy}
train: {lr: 0.01, steps: 2, evaluate_every: 2}
probes: [{kind: curvature, every: 2, rank: 10, tolerance: 1e-6}]
""",
    "classes": """data: {kind: gaussian, features: 300, outputs: 8, targets: classes, train: 1500}
model: {widths: [300, 400, 400, 8], activation: gelu}
loss: {kind: cross_entropy}
train: {lr: 0.01, steps: 1}
probes: [{kind: classes, every: 1, rank: 3, tolerance: 1e-2}, {kind: density, every: 1, steps: 20, vectors: 1}]
""",
}
UNIT = {"MiB": 1, "GiB": 1024}


@pytest.fixture
def plan(command, tmp_path):
    """plan(input, *args, ranks=1): the command's answer for an input text."""
    def start(text, *args, ranks=1):
        (tmp_path / "input.yaml").write_text(text, encoding="utf-8")
        return command("plan", "input.yaml", *args, ranks=ranks)
    return start


def number(text, label):
    """The number behind a label of the answer; memory in MiB."""
    found = re.search(rf"^ *{label}:? +([\d.e+-]+) ?([kMGTP]?)(\w*)", text, re.M)
    assert found, f"no {label} in\n{text}"
    value = float(found[1]) * UNIT.get(found[2] + found[3], 1)
    return value if found[2] + found[3] in UNIT else value * 1000 ** " kMGTP".index(found[2] or " ")


def peak(text):
    amount, unit = re.search(r"largest share: ([\d.]+) (MiB|GiB)", text).groups()
    return float(amount) * UNIT[unit]


def test_all_parts_are_there_and_nothing_is_written(plan, tmp_path):
    done = plan(FULL)
    assert done.returncode == 0, done.stderr
    out = done.stdout
    assert out.startswith("plan of input.yaml: run, 1 rank as 1 × 1, block 64\n")
    assert "600 inputs, 400 outputs, depth 4, 1001900 parameters; 1500 training samples" in out
    for label in ("program and libraries", "data", "weights, gradient, optimizer", "activations", "probes and series"):
        assert number(out, label) > 0, label
    # weights, gradient, two moments, the weights before: five arrays of 8 bytes a parameter
    assert number(out, "weights, gradient, optimizer") == pytest.approx(5 * 8 * 1003400 / 2**20, rel=0.01)
    sizes = [600, 500, 500, 500, 400]
    weights = sum(m * n for m, n in zip(sizes, sizes[1:]))
    flops = 1500 * 2 * (3 * weights - sizes[0] * sizes[1])  # no derivative by the input
    assert number(out, "products") == pytest.approx(flops, rel=0.01)
    assert re.search(r"^  spectrum +[\d.]+ \wflop; 3 times$", out, re.M)
    assert re.search(r"^  subspace_update .* an estimate of \d+ Krylov products \(\d+ to \d+\); 3 times$", out, re.M)
    assert re.search(r"^  snapshots .*\(1 of [\d.]+ MiB\)$", out, re.M)
    assert re.search(r"^  checkpoints .*\(1 written, 1 of [\d.]+ MiB stay\)$", out, re.M)
    parts = sum(number(out, part) for part in ("setup", "gradient", "update", "evaluate", "probes", "output"))
    assert parts == pytest.approx(number(out, "predicted time"), rel=0.01) and parts > 0
    assert "measured here: products of a step" in out and "BLAS thread" in out
    assert [path.name for path in tmp_path.iterdir()] == ["input.yaml"]


@pytest.mark.parametrize("ranks", (1, 2))
@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "curvature")) for name in PEAKS])
def test_memory_is_that_of_the_run(name, ranks, plan, run):
    done = plan(PEAKS[name], ranks=ranks)
    assert done.returncode == 0, done.stderr
    finished = run(PEAKS[name], ranks=ranks, timeout=400)
    assert finished.returncode == 0, finished.stderr
    with h5py.File(finished.dir / "metrics.h5") as file:
        measured = file["timing"].attrs["peak_memory_bytes"] / 2**20
        sanitized = "-fsanitize" in str(file["provenance"].attrs["flags"])
    if not sanitized:  # the sanitizers have a shadow of all memory, and keep what is freed
        assert peak(done.stdout) == pytest.approx(measured, rel=0.1)
    on_disk = sum(path.stat().st_size for path in finished.dir.rglob("*") if path.is_file()) / 2**20
    assert number(done.stdout, "on disk at the end") == pytest.approx(on_disk, rel=0.05)


def test_ranks_of_the_answer_need_not_be_there(plan):
    here, many = plan(FULL), plan(FULL, "--ranks", "1024")
    assert many.returncode == 0, many.stderr
    assert "1024 ranks as " in many.stdout
    # Blocks of 64: of 500 × 600 weights and 1500 samples a rank of 1024 has a block or two.
    assert number(many.stdout, "activations") < number(here.stdout, "activations") / 20
    assert number(many.stdout, "products") == pytest.approx(number(here.stdout, "products"), rel=1e-3)
    messages = re.search(r"communication +([\d.]+) (\w?) messages, [\d.]+ \w?B", many.stdout)
    assert float(messages[1]) > 0
    assert "communication                            0  messages" in here.stdout
    assert "assumed" in many.stdout


def test_two_ranks_planned_by_one(plan):
    """Memory is a matter of arithmetic: who asks makes no difference but for the program's own."""
    alone, together = plan(FULL, "--ranks", "2"), plan(FULL, ranks=2)
    assert alone.returncode == 0 and together.returncode == 0
    for label in ("data", "weights, gradient, optimizer", "activations", "panels of products"):
        assert number(alone.stdout, label) == number(together.stdout, label)
    assert peak(alone.stdout) == pytest.approx(peak(together.stdout), rel=0.1)


def test_a_given_network_between_the_nodes(plan):
    """Latency and bandwidth take the place of measured ones; one process plans thousands of ranks."""
    done = plan(FULL, "--ranks", "4096", "--latency", "2e-6", "--bandwidth", "1e10")
    assert done.returncode == 0, done.stderr
    assert "messages: 2 us and 10 GB/s, both given" in done.stdout
    efficiency = re.search(r"predicted efficiency of a step: ([\d.]+) % of 4096 ranks \(([\d.e-]+) s, one rank .* ([\d.e-]+) s;",
                           done.stdout)
    best = re.search(r"best grid under this model: (\d+) × (\d+), block \d+: ([\d.]+) % \(([\d.e-]+) s\)", done.stdout)
    assert 0 < float(efficiency[1]) <= float(best[3]) < 20  # 1500 samples are too few for so many
    assert float(efficiency[3]) / float(efficiency[2]) / 4096 == pytest.approx(float(efficiency[1]) / 100, abs=1e-3)
    assert int(best[1]) * int(best[2]) == 4096
    assert "efficiency" not in plan(FULL, "--ranks", "4").stdout
    assert "the first assumed, as in shared memory, the second given" in plan(FULL, "--ranks", "4", "--bandwidth", "1e9").stdout


def test_shapes_for_programs(plan):
    """--json: every shape of 1, 2, 4, … ranks; a slower network is never better, and the best shape is the least time."""
    words = ["--ranks", "6", "--flops", "1e10", "--json", "--latency", "1e-6"]
    fast, slow = (json.loads(plan(FULL, *words, "--bandwidth", rate).stdout) for rate in ("1e10", "1e7"))
    shapes = [(shape["ranks"], shape["rows"]) for shape in fast["shapes"]]
    assert shapes == [(1, 1), (2, 1), (2, 2), (4, 1), (4, 2), (4, 4), (6, 1), (6, 2), (6, 3), (6, 6)]
    assert fast["flops"] == 1e10 and fast["latency"] == 1e-6 and slow["bandwidth"] == pytest.approx(1e7)
    assert fast["planned"]["ranks"] == 6 and fast["memory"] > 0 and fast["seconds"] > 0
    assert fast["shapes"][0]["efficiency"] == 1 and fast["shapes"][0]["messages"] == 0
    for quick, late in zip(fast["shapes"][1:], slow["shapes"][1:]):
        assert quick["messages"] == late["messages"] > 0 and quick["efficiency"] > late["efficiency"] > 0


@pytest.mark.parametrize("words, message", [
    (["--latency", "fast"], "--latency: expected seconds of a message, a number above 0, found 'fast'"),
    (["--bandwidth", "0"], "--bandwidth: expected bytes per second to one rank, a number above 0, found '0'"),
    (["--ranks", "0"], "--ranks: expected a number of ranks, found '0'"),
    (["--ranks", "two"], "--ranks: expected a number of ranks, found 'two'"),
    (["--ranks"], "--ranks needs a value"),
    (["--rank", "4"], "there is no option --rank (did you mean --ranks?)"),
    (["--ranks", "6", "--set", "grid.rows=4"], "--set grid.rows=4: 4 does not divide the number of ranks, 6"),
    (["--ranks", "6", "--set", "grid.rows=2", "--set", "grid.cols=2"], "2 × 2 is not the number of ranks, 6"),
    (["--set", "probes[0].rank=1000"], "is 1000, but no matrix has more than"),
    (["--set", "train.batch=5000"], "is 5000, but there are only 1500 training samples"),
    (["--set", "model.widths=[600, 50]"], "give either the list of widths, or width and depth, not both"),
    (["other.yaml"], "one input file at a time"),
])
def test_refuses(words, message, plan):
    done = plan(FULL, *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stdout == ""


def test_too_large_for_32_bits(plan):
    done = plan("data: {kind: gaussian, features: 100000, outputs: 10, train: 100000}\nmodel: {width: 100, depth: 2}\n")
    assert done.returncode == 2
    assert "one rank of 1 would hold a matrix of 10000000000 numbers" in done.stderr and "take more ranks" in done.stderr


def test_a_sweep_is_planned_member_by_member(plan):
    text = FULL + "sweep:\n  model.width: [100, 200]\n  run.seed: [1, 2, 3]\n"
    done = plan(text)
    assert done.returncode == 2
    assert "is a sweep of 6 members: plan one of them, for example with --set model.width=100 --set run.seed=1" in done.stderr
    assert plan(text, "--set", "model.width=200", "--set", "run.seed=3").returncode == 0


def test_only_the_heads_of_files_are_read(plan, tmp_path):
    """HDF5 whose values are not numbers to train on, and images that are cut off, have a shape all the same."""
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["X"], file["Y"] = np.full((30, 80), np.nan), np.full((5, 80), np.nan)
    done = plan("data: {kind: hdf5, file: data.h5}\nmodel: {width: 20, depth: 2}\ntrain: {steps: 2}\n")
    assert done.returncode == 0, done.stderr
    assert "30 inputs, 5 outputs" in done.stdout and "80 training samples" in done.stdout
    missing = plan("data: {kind: hdf5, file: other.h5}\nmodel: {width: 20, depth: 2}\n")
    assert missing.returncode == 2 and "other.h5: no such file" in missing.stderr
    idx_files()(tmp_path)
    labels = (tmp_path / "labels").read_bytes()
    (tmp_path / "labels").write_bytes(labels[:-1])
    done = plan(f"{IDX % ''}\nmodel: {{width: 20, depth: 2}}\ntrain: {{steps: 2}}\n")
    assert done.returncode == 0, done.stderr
    assert "6 inputs, 4 outputs" in done.stdout and "20 training samples" in done.stdout
