"""Sweeps: members and their names, groups, what goes wrong, running again, tables, and figures over the axes."""
import csv
import json
import os
from pathlib import Path
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings

import h5py
import numpy as np
import pytest
import xarray

from conftest import Finished
from drawing import draw_here
from run import child_environment, execute, wait
from same import assert_same

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = [path for path in sorted((ROOT / "inputs").rglob("*.yaml")) if re.search("(?m)^sweep:", path.read_text())
           and "kind: cifar10" not in path.read_text()  # tests/test_smooth.py makes the files
           and not re.search("file: (intrinsic|invariances)/", path.read_text())  # tests/test_intrinsic.py, _invariances.py do
           and not path.name.startswith("mlp_momentum")]  # they sweep the steps: tests/test_intrinsic.py
SLOW = {"kgmm_align.yaml", "kgmm_static.yaml", "kgmm_train.yaml",  # a measurement takes ten seconds
        "smooth_lowrank_fmnist.yaml"}  # all images; smooth_lowrank_fmnist_small runs always
COLLECT = ROOT / "postprocess" / "collect.py"

BASE = """\
run: {name: tiny}
data: {kind: gaussian, features: 12, outputs: 4, train: 40, test: 20, targets: classes}
model: {width: 8, depth: 2}
train: {steps: 30, lr: 0.1}
probes:
  - {kind: spectrum, every: 10, rank: 3}
  - {kind: subspace, every: 10, rank: 2}
checkpoint: {every: 10}
"""
INPUT = BASE + """\
sweep:
  model.width: [8, 12]
  zip: {run.seed: [1, 2], train.lr: [0.1, 5e-2]}
  model.depth: [2, 3]
"""
NAMES = [f"width={width}_{pair}_depth={depth}" for width in (8, 12) for pair in ("seed=1_lr=0.1", "seed=2_lr=5e-2")
         for depth in (2, 3)]
# Beside a good member one that diverges, two that are impossible (for the reader, for the network), one more good one.
MIXED = BASE + """\
sweep:
  zip:
    run.seed: [1, 2, 3, 4, 5]
    train.lr: [0.1, 1e200, -1, 0.1, 0.1]
    model.widths: [auto, auto, auto, [12, 8, 4], auto]
"""


@pytest.fixture
def sweep(eigentrain, mpirun, tmp_path):
    """sweep(text or Path, *args, ranks=1): `eigentrain sweep`, into the folder `out` unless args have --out.

    One rank runs without mpirun, which is faster.
    """
    def start(given, *args, ranks=1):
        path = given
        if not isinstance(given, Path):
            path = tmp_path / "input.yaml"
            path.write_text(given, encoding="utf-8")
        words = [eigentrain, "sweep", path, *([] if "--out" in args else ["--out", "out"]), *args]
        launcher = [*mpirun, "-n", ranks] if ranks > 1 else []
        with tempfile.TemporaryDirectory(prefix="et-", dir="/tmp") as scratch:
            done = execute([str(word) for word in [*launcher, *words]], 120, cwd=tmp_path,
                           env=child_environment(TMPDIR=scratch))
        return Finished(done.returncode, done.stdout, done.stderr, tmp_path)
    return start


def check(finished, code=0):
    assert finished.returncode == code, finished.stdout + finished.stderr
    return finished


def messages(finished):
    return re.findall("(?m)^eigentrain: (.*)$", finished.stderr)


def rows(folder):
    with open(folder / "members.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def states(folder):
    return [row["state"] for row in rows(folder)]


def state_of(member):
    status = member / "status.json"
    return json.loads(status.read_text())["state"] if status.exists() else None


def begun(finished):
    """Numbers of the members that a pass has begun."""
    return sorted(int(number) for number in re.findall(r"^\[(\d+)/\d+\] \S+: begins$", finished.stdout, re.M))


# ---------------------------------------------------------------- members
def test_list_of_product_and_zip(sweep, tmp_path):
    finished = check(sweep(INPUT, "--list"))
    assert [line.split() for line in finished.stdout.splitlines()] == [
        [str(i + 1), name, "waiting"] for i, name in enumerate(NAMES)]
    assert not (tmp_path / "out").exists()


def test_names_are_safe_and_distinct(sweep):
    """Odd characters, values that look the same without them, long values, two keys with one last name."""
    paths = ["/a b", "/ab", "a;b$(c)", "ü", "x" * 200, "x" * 201]
    text = BASE.replace(re.search("data: .*", BASE)[0], "data: {kind: fashion_mnist}") + \
        f"sweep:\n  data.path: {json.dumps(paths, ensure_ascii=False)}\n  probes[0].rank: [3, full]\n" \
        "  probes[1].rank: [2]\n  model.widths: [[784, 8, 10]]\n"
    finished = check(sweep(text, "--list", "--set", "model.width=auto", "--set", "model.depth=auto"))
    names = [line.split()[1] for line in finished.stdout.splitlines()]
    assert len(set(names)) == 12 and all(re.fullmatch(r"[A-Za-z0-9._=+-]{1,150}", name) for name in names)
    rest = "_probes0.rank=3_probes1.rank=2_widths=784-8-10"
    assert names[0].startswith(f"path=-ab{rest}_") and names[2].startswith(f"path=-ab{rest}_")  # told apart by a hash
    assert names[1].startswith("path=-ab_probes0.rank=full_") and names[4] == f"path=a-b--c-{rest}"


@pytest.mark.parametrize("section, args, expected", [
    ("", (), ["input.yaml holds no section `sweep`: use eigentrain run"]),
    ("sweep: {model.widht: [1], train.lr: 3}", (), [
        "input.yaml:9: sweep: model.widht: unknown key (did you mean model.width?)",
        "input.yaml:9: sweep: train.lr: expected a list of values, found a single value"]),
    ("modle: {}\nsweep: {train.lr: [1, 2]}", (), ["input.yaml:9: modle: unknown key (did you mean model?)"]),
    ("sweep: {train.lr: [-1, -2]}", (), [
        "--set train.lr=-1: expected a number, found '-1' (it must be above 0)",
        "input.yaml: the parameters of all 2 members are impossible (these are the first's)"]),
    ("sweep: {train.lr: [1, 2]", (), [
        "input.yaml:10: not YAML: did not find expected ',' or '}' "
        "(while parsing a flow mapping that begins in line 9)"]),
    ("sweep: {train.lr: [1, 2]}", ("--set", "train.lr=3"), [
        "--set train.lr=3: the sweep gives train.lr its values; change them there"]),
    ("sweep: {train.lr: [1, 2]}", ("--member", "3"), ["there is no member 3: they are numbered from 1 to 2"]),
    ("sweep: {train.lr: [1, 2]}", ("--member", "0"), ["--member: expected a number from 1 on, found '0'"]),
    ("sweep: {train.lr: [1, 2]}", ("--groups", "two"), ["--groups: expected a number from 1 on, found 'two'"]),
    ("sweep: {train.lr: [1, 2]}", ("--groups", "2"), ["1 rank cannot be split into 2 equal groups"]),
    ("sweep: {train.lr: [1, 2]}", ("--grops=2",), ["there is no option --grops=2 (did you mean --groups=2?)"]),
    ("sweep: {train.lr: [1, 2]}", ("--out", "input.yaml"), [
        "input.yaml exists and is not a directory: choose another --out"]),
])
def test_bad_inputs(sweep, tmp_path, section, args, expected):
    finished = check(sweep(BASE + section + "\n", *args), 2)
    assert [line.replace(f"{tmp_path}/", "") for line in messages(finished)] == expected
    assert [path.name for path in tmp_path.iterdir()] == ["input.yaml"]


def test_run_refuses_a_sweep(run):
    finished = check(run(INPUT), 2)
    assert "sweep" in finished.stderr and not finished.dir.exists()


# ---------------------------------------------------------------- groups
@pytest.mark.parametrize("ranks, groups", [(1, 1), (2, 1), (2, 2), (4, 2)])
def test_members_are_single_runs_bit_for_bit(sweep, run, tmp_path, ranks, groups):
    text = BASE + "sweep: {run.seed: [1, 2], model.depth: [2, 3]}\n"
    finished = check(sweep(text, "--groups", groups, ranks=ranks))
    assert begun(finished) == [1, 2, 3, 4] and "sweep out: 4 done" in finished.stdout
    for seed, depth in (1, 3), (2, 2):
        alone = run(BASE, ranks=ranks // groups, args=["--set", f"run.seed={seed}", "--set", f"model.depth={depth}"])
        check(alone)
        member = tmp_path / "out" / f"seed={seed}_depth={depth}"
        assert_same(alone.dir, member)
        assert (member / "input.yaml").read_text() == text
        resolved = (member / "resolved.yaml").read_text().replace(f"seed={seed}_depth={depth}", "tiny")
        assert resolved.replace('"tiny"', "tiny") == (alone.dir / "resolved.yaml").read_text()


def test_the_longest_first(sweep):
    finished = check(sweep(BASE + "sweep: {train.steps: [10, 30, 20], model.depth: [2, 4]}\n"))
    order = re.findall(r"steps=(\d+)_depth=(\d+): begins", finished.stdout)
    assert order == [("30", "4"), ("20", "4"), ("30", "2"), ("10", "4"), ("20", "2"), ("10", "2")]


# ---------------------------------------------------------------- what goes wrong
def test_bad_members_do_not_stop_the_others(sweep, tmp_path):
    out = tmp_path / "out"
    blocked = out / "seed=5_lr=0.1_widths=auto"
    out.mkdir()
    blocked.write_text("in the way of a folder")
    for repeat in range(2):
        finished = check(sweep(MIXED, "--groups", 2, ranks=2), 3)
        assert begun(finished) == ([1, 2, 3, 4, 5] if repeat == 0 else [3, 4, 5])
        assert "sweep out: 1 done, 1 diverged, 1 failed, 2 invalid" in finished.stdout
        table = rows(out)
        assert [row["state"] for row in table] == ["done", "diverged", "invalid", "invalid", "failed"]
        assert "the loss is" in table[1]["reason"] and table[1]["train/loss"] == ""
        assert table[2]["reason"] == "--set train.lr=-1: expected a number, found '-1' (it must be above 0)"
        assert "give either the list of widths, or width and depth, not both" in table[3]["reason"]
        assert "exists and is not a directory" in table[4]["reason"]
        for row in table[2:4]:  # where the commands that look at runs will find it
            status = json.loads((out / row["name"] / "status.json").read_text())
            assert (status["state"], status["reason"]) == ("invalid", row["reason"])
            assert [path.name for path in (out / row["name"]).iterdir()] == ["status.json"]
    blocked.unlink()
    finished = check(sweep(MIXED, "--groups", 2, ranks=2))
    assert begun(finished) == [3, 4, 5] and states(out) == ["done", "diverged", "invalid", "invalid", "done"]
    with xarray.open_dataset(out / "sweep.h5", group="members", engine="h5netcdf") as members:
        assert members.state.attrs["flag_meanings"].split()[4] == "diverged"
        assert members.state.values.tolist() == [3, 4, 6, 6, 3]


def test_nothing_is_possible(sweep, tmp_path):
    text = BASE + "sweep: {model.widths: [[12, 3, 4], [12, 4]]}\n"  # together with width and depth
    finished = check(sweep(text), 2)
    assert "sweep out: 2 invalid" in finished.stdout and states(tmp_path / "out") == ["invalid", "invalid"]


def test_other_runs_in_the_directory(sweep, run, tmp_path):
    """Members of another sweep are refused before anything is computed, a run's directory is no sweep's."""
    out = tmp_path / "out"
    check(sweep(INPUT, "--set", "train.weight_decay=0.1"))
    before = sorted(out.rglob("*"))
    finished = check(sweep(INPUT), 2)
    assert len(messages(finished)) == 6 and messages(finished)[5].startswith("… and 3 more members")
    assert messages(finished)[0].startswith(f"out/{NAMES[0]}: holds another run (")
    assert messages(finished)[0].endswith("train.weight_decay: 0, was 0.1): choose another --out, or --overwrite")
    assert sorted(out.rglob("*")) == before
    check(sweep(INPUT, "--overwrite", "--quiet"))
    assert (out / f"{NAMES[0]}.old-1" / "metrics.h5").exists() and states(out) == ["done"] * 8
    finished = check(sweep(INPUT, "--out", f"out/{NAMES[0]}"), 2)
    assert messages(finished) == [f"out/{NAMES[0]} holds a run, not a sweep: choose another --out"]


# ---------------------------------------------------------------- again
def test_running_again_runs_what_is_unfinished(sweep, tmp_path):
    out = tmp_path / "out"
    check(sweep(INPUT, "--out", "whole"))
    check(sweep(INPUT, "--set", "train.steps=20"))
    finished = check(sweep(INPUT))  # all have more steps to make
    assert begun(finished) == list(range(1, 9))
    assert "resumes from the checkpoint of step 20, bit for bit" in (out / NAMES[0] / "run.log").read_text()
    for name in NAMES[:2]:
        assert_same(tmp_path / "whole" / name, out / name)
    shutil.rmtree(out / NAMES[4])
    status = json.loads((out / NAMES[6] / "status.json").read_text())
    (out / NAMES[6] / "status.json").write_text(json.dumps({**status, "state": "running"}))  # as if it had been killed
    listed = check(sweep(INPUT, "--list")).stdout.splitlines()
    assert [line.split()[2] for line in listed] == ["done"] * 4 + ["waiting", "done", "stopped", "done"]
    assert begun(check(sweep(INPUT))) == [5, 7] and states(out) == ["done"] * 8
    finished = check(sweep(INPUT, "--groups", 2, ranks=2))
    assert begun(finished) == [] and "8 members, 0 of them to run" in finished.stdout


@pytest.fixture
def started(eigentrain, tmp_path):
    """started(*words): a process without mpirun that goes on while the test does; nothing of it is left at the end."""
    processes, scratches = [], []

    def start(*words):
        scratches.append(tempfile.mkdtemp(prefix="et-", dir="/tmp"))
        processes.append(subprocess.Popen(
            [str(eigentrain), *map(str, words)], cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True, env=child_environment(TMPDIR=scratches[-1])))
        return processes[-1]
    yield start
    for process in processes:
        wait(process, 0)
    for scratch in scratches:
        shutil.rmtree(scratch, ignore_errors=True)


def test_a_stop_file_and_a_signal_stop_a_sweep(started, sweep, tmp_path):
    text = BASE + "sweep: {run.seed: [1, 2]}\n"
    (tmp_path / "input.yaml").write_text(text)
    out = tmp_path / "out"
    endless = ["--set", "train.steps=10000000", "--set", "checkpoint.every=never"]
    for way in "file", "signal":
        process = started("sweep", "input.yaml", "--out", "out", *endless)
        until = time.monotonic() + 60
        while state_of(out / "seed=1") != "running" and time.monotonic() < until:
            time.sleep(0.05)
        assert not (out / "stop").exists()  # of the last time
        if way == "file":
            (out / "stop").touch()
        else:
            process.send_signal(signal.SIGUSR1)
        assert wait(process, 60) == 85
        assert states(out) == ["stopped", "waiting"]
        if way == "file":  # it holds back single members, and a pass over all takes it away
            finished = check(sweep(text, "--member", 2), 85)
            assert "no new member is begun: stop file" in finished.stdout and not (out / "seed=2").exists()
    assert "resumes from the checkpoint" in (out / "seed=1" / "run.log").read_text()
    made = json.loads((out / "seed=1" / "status.json").read_text())["step"]
    finished = check(sweep(text, "--set", f"train.steps={made - 1}"), 2)
    assert messages(finished) == [f"out/seed=1: is at step {made} already, beyond train.steps: {made - 1}"]


def test_two_processes_share_the_work(started, sweep, tmp_path):
    text = BASE + "sweep: {run.seed: [1, 2, 3, 4, 5, 6]}\n"
    (tmp_path / "input.yaml").write_text(text)
    longer = ["--set", "train.steps=3000", "--set", "checkpoint.every=never"]
    words = ["sweep", "input.yaml", "--out", "out", *longer]
    processes = [started(*words) for _ in range(2)]
    assert {wait(process, 120) for process in processes} <= {0, 3}  # 3: the other one was still at its last member
    check(sweep(text, *longer))
    assert states(tmp_path / "out") == ["done"] * 6
    for seed in range(1, 7):
        log = (tmp_path / "out" / f"seed={seed}" / "run.log").read_text()
        assert log.count("done: 3000 steps") == 1 and "resumes" not in log


# ---------------------------------------------------------------- one member
def test_one_member_at_a_time(sweep, tmp_path):
    out = tmp_path / "out"
    alone = check(sweep(MIXED, "--member", 1, ranks=2))
    assert "accuracy" in alone.stdout and states(out) == ["done"] + ["waiting"] * 4
    again = check(sweep(MIXED, "--member", 1))
    assert "finished already" in again.stdout
    for member, code, state, words in [(2, 4, "diverged", "the loss is"), (3, 2, "invalid", "it must be above 0"),
                                       (4, 2, "invalid", "not both"), (2, 4, "diverged", "has diverged at step 1")]:
        finished = check(sweep(MIXED, "--member", member), code)
        assert words in finished.stderr and states(out)[member - 1] == state
    check(sweep(MIXED, "--member", 1, "--overwrite"))
    assert (out / "seed=1_lr=0.1_widths=auto.old-1").exists()
    assert begun(check(sweep(MIXED))) == [3, 4, 5]


# ---------------------------------------------------------------- tables
def test_tables(sweep, tmp_path):
    """members.csv and sweep.h5 hold what the members' status.json and metrics.h5 say."""
    out = tmp_path / "out"
    check(sweep(INPUT, "--groups", 2, ranks=2))
    table = rows(out)
    assert list(table[0])[:11] == ["member", "name", "model.width", "run.seed", "train.lr", "model.depth", "state",
                                   "reason", "step", "steps", "seconds"]
    assert [row["name"] for row in table] == NAMES and [row["member"] for row in table] == list("12345678")
    for row in table:
        final = json.loads((out / row["name"] / "status.json").read_text())["final"]
        assert list(row)[11:] == list(final)
        for name, value in final.items():
            assert float(row[name]) == value
        with h5py.File(out / row["name"] / "metrics.h5") as file:
            assert float(row["train/loss"]) == file["train/loss"][-1]
        width, pair, depth = row["model.width"], int(row["run.seed"]), row["model.depth"]
        with xarray.open_dataset(out / "sweep.h5", group="train", engine="h5netcdf") as train:
            assert train.loss.sel(width=int(width), zip=pair, depth=int(depth)) == float(row["train/loss"])


def test_netcdf(sweep, tmp_path):
    """Every group opens without a warning; coordinates are numbers or texts as the values are."""
    text = BASE + "sweep: {train.lr: [0.1, 0.2], model.activation: [tanh, relu], model.bias: [true, false],\n" \
        "  zip: {run.seed: [1, 2], train.steps: [10, 12]}}\n"
    check(sweep(text))
    with h5py.File(tmp_path / "out/sweep.h5") as file:
        assert file.attrs["format"] == "eigentrain sweep"
        assert file["provenance"].attrs["input"] == text and file["provenance"].attrs["version"]
        groups = [name for name in file if name != "provenance"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for group in groups:
            with xarray.open_dataset(tmp_path / "out/sweep.h5", group=group, engine="h5netcdf") as data:
                assert dict(data.sizes) == {"lr": 2, "activation": 2, "bias": 2, "zip": 2}
                assert data.lr.values.tolist() == [0.1, 0.2] and data.activation.values.tolist() == ["tanh", "relu"]
                assert data.bias.values.tolist() == ["true", "false"] and data.seed.values.tolist() == [1, 2]
                assert data["train.steps"].values.tolist() == [10, 12]  # `steps` is taken in the group of members
                assert data.lr.attrs["long_name"] == "train.lr"
                assert all(variable.attrs["long_name"] for variable in data.data_vars.values())
                assert np.isfinite(np.array([v.values for v in data.data_vars.values() if v.ndim == 4])).all()


# ---------------------------------------------------------------- shipped inputs
@pytest.mark.parametrize("path", [pytest.param(path, marks=[pytest.mark.slow] * (path.name in SLOW)) for path in SHIPPED],
                         ids=lambda path: str(path.relative_to(ROOT / "inputs")))
def test_shipped_sweep_runs(path, sweep, tmp_path):
    check(sweep(path, "--list"))
    sweeps_steps = "train.steps" in path.read_text(encoding="utf-8").partition("\nsweep:")[2]
    check(sweep(path, "--member", 1, *([] if sweeps_steps else ["--set", "train.steps=3"]), ranks=2))
    assert "done" in states(tmp_path / "out")


# ---------------------------------------------------------------- figures
def collect(*arguments):
    return execute([sys.executable, str(COLLECT), *map(str, arguments)], 120,
                   env={**os.environ, "MPLBACKEND": "Agg", "PYTHONUTF8": "1"})


def collect_here(*arguments):
    return draw_here("collect", *arguments)


def figures(folder):
    return sorted(path.name for path in (folder / "figures").iterdir())


FIGURES = ["spectrum_moving.png", "steps_to_loss.png", "subspace_turn.png", "train_loss.png", "train_test_accuracy.png",
           "train_test_loss.png"]


@pytest.mark.parametrize("axes", [
    "{run.seed: [1, 2]}",
    "{train.lr: [0.1, 0.2, 0.4], run.seed: [1, 2]}",
    "{model.depth: [2, 3], model.width: [6, 8], train.lr: [0.1, 0.2], model.bias: [true, false]}",
    "{zip: {model.depth: [2, 3], train.lr: [0.1, 0.2]}, model.width: [6, 8]}"])
def test_figures_over_any_axes(sweep, tmp_path, axes):
    check(sweep(BASE + f"sweep: {axes}\n", "--set", "train.steps=40"))
    result = collect_here(tmp_path / "out")
    assert (result.returncode, result.stderr) == (0, "")
    assert set(figures(tmp_path / "out")) | {"steps_to_loss.png"} == set(FIGURES)
    for name in figures(tmp_path / "out"):
        assert (tmp_path / "out/figures" / name).read_bytes().startswith(b"\x89PNG")


def test_figures_leave_out_what_went_wrong(sweep, tmp_path):
    out = tmp_path / "out"
    check(sweep(MIXED))
    result = collect(out)
    assert (result.returncode, result.stderr) == (0, "")
    assert "Left out, of 5 members: 1 diverged, 2 invalid." in result.stdout
    (out / "seed=5_lr=0.1_widths=auto/metrics.h5").write_bytes(b"damaged")
    result = collect(out)
    assert result.returncode == 0 and "cannot be read as HDF5" in result.stderr
    assert collect_here(out, "--only", "train/gradient_norm", "--format", "pdf").returncode == 0
    assert "train_gradient_norm.pdf" in figures(out)
    result = collect(out, "--only", "pressure")
    assert result.returncode == 2 and "no figure or column 'pressure'" in result.stderr


def test_one_member_makes_a_table_and_no_figure(sweep, tmp_path):
    check(sweep(BASE + "sweep: {run.seed: [3]}\n"))
    result = collect_here(tmp_path / "out")
    assert (result.returncode, result.stderr) == (0, "") and "train_loss" in result.stdout
    assert figures(tmp_path / "out") == []


def test_what_is_no_sweep(sweep, tmp_path):
    for name, words in ("nix", "no such directory"), ("empty", "not the directory of a sweep"):
        if name == "empty":
            (tmp_path / name).mkdir()
        result = collect_here(tmp_path / name)
        assert result.returncode == 2 and words in result.stderr and len(result.stderr.splitlines()) == 1
    check(sweep(BASE + "sweep: {model.widths: [[12, 3, 4], [12, 4]]}\n"), 2)
    result = collect_here(tmp_path / "out")
    assert result.returncode == 2 and "no member is done yet" in result.stderr
