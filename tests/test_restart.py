"""Restart: a run that was interrupted in any way ends with the same bits as one that was not."""
import json
import os
from pathlib import Path
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import h5py
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "postprocess"))
from runs import open_run  # noqa: E402
from run import child_environment, descendants, send, wait
from same import assert_same, datasets

INPUT = """
data: {{kind: gaussian, features: 13, outputs: 4, train: 60, test: 20, targets: classes}}
model: {{widths: [13, 17, 11, 4], bias: true, activation: tanh}}
loss: {{kind: cross_entropy}}
train: {{{train}, steps: 23, evaluate_every: 5}}
probes:
  - {{kind: spectrum, every: 3, rank: 4}}
  - {{kind: spectrum, of: update, every: 4, rank: 3}}
  - {{kind: spectrum, of: product, every: 5, rank: 3}}
  - {{kind: spectrum, of: gradient, name: all, every: 7, rank: full}}
  - {{kind: subspace, every: 2, rank: 3, reference: 6}}
snapshot: {{every: 4}}
checkpoint: {{every: 6}}
"""
RULES = {
    "gd": "optimizer: gd, lr: 0.5",
    "sgd": "optimizer: sgd, lr: 0.5, batch: 7",
    "momentum": "optimizer: momentum, lr: 0.1, batch: 16, weight_decay: 0.01",
    "adam": "optimizer: adam, lr: 0.01, schedule: {kind: cosine, length: 20, warmup: 3}",
    "rmsprop": "optimizer: rmsprop, lr: 0.01, batch: 9, schedule: {kind: step, milestones: [5, 11]}",
    "flow": "optimizer: gradient_flow, lr: 0.5, integrator: adaptive, schedule: {kind: step, milestones: [9]}",
    "online": "optimizer: momentum, lr: 0.1, batch: 8, online: true",
}


def status(folder):
    return json.loads((folder / "status.json").read_text())


def check(finished, code=0):
    assert finished.returncode == code, finished.stdout + finished.stderr


# ---------------------------------------------------------------- the same bits
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("rule", RULES)
def test_interrupted_runs_end_with_the_same_bits(run, tmp_path, rule, ranks):
    """Interrupted again and again: at a checkpoint and elsewhere, twice in a row, before the first and at the last step.

    A bit that one of these changed would be another one at the end, too; so one run bears them all.
    """
    text, stops = INPUT.format(train=RULES[rule]), [1, 6, 7, 10, 22, 23] if ranks == 1 else [4, 13, 23]
    check(run(text, ranks=ranks, args=["--out", "whole"]))
    for before, stop in zip([0, *stops], stops):
        done = run(text, ranks=ranks, args=["--out", "pieces", "--resume", "--set", f"train.steps={stop}"])
        check(done)
        if before:
            assert f"resumes from the checkpoint of step {before}, bit for bit" in done.stdout
            assert f"changed: train.steps: {stop} was {before}" in done.stdout
    if ranks == 1:  # a last time, when there is nothing to do
        check(run(text, args=["--out", "pieces", "--resume"]))
    assert_same(tmp_path / "whole", tmp_path / "pieces")
    assert not (tmp_path / "pieces" / "metrics").exists()  # metrics.h5 has it all


def test_another_grid(run, tmp_path):
    """The state is restored bit for bit, the numbers that follow are equal to rounding, and the log says why."""
    text = INPUT.format(train=RULES["adam"])
    check(run(text, ranks=2, args=["--out", "two", "--set", "train.steps=12"]))
    check(run(text, ranks=2, args=["--out", "whole"]))
    for name, ranks, grid, words in [
            ("one", 1, {"block": 64}, "1 ranks, was 2; the grid is 1 x 1, was 1 x 2"),
            ("four", 4, {"rows": 2, "cols": 2, "block": 3}, "4 ranks, was 2; the grid is 2 x 2, was 1 x 2; the block is 3, was 64"),
            ("pdgemm", 2, {"gemm": "pdgemm"}, "grid.gemm is pdgemm, was panel")]:
        shutil.copytree(tmp_path / "two", tmp_path / name)
        sets = [word for key, value in grid.items() for word in ("--set", f"grid.{key}={value}")]
        done = run(text, ranks=ranks, args=["--out", name, "--resume", *sets])
        check(done)
        assert re.search(r"resumes from the checkpoint of step 12; not bit-exact because (.*; )?" + re.escape(words),
                         done.stdout), done.stdout
        weights = [datasets(tmp_path / run_name / "snapshots/step_000000012.h5") for run_name in ("two", name)]
        assert all(weights[0][key] == weights[1][key] for key in weights[0] if key[0] in "Wb")
        with h5py.File(tmp_path / "whole/metrics.h5") as a, h5py.File(tmp_path / name / "metrics.h5") as b:
            assert np.array_equal(a["train/step"], b["train/step"])
            np.testing.assert_allclose(b["train/loss"], a["train/loss"], rtol=1e-11)
            np.testing.assert_allclose(b["spectrum/singular_value"], a["spectrum/singular_value"], rtol=1e-9)


# ---------------------------------------------------------------- what is resumed, and what is not
def test_resume_starts_where_there_is_nothing(run, tmp_path):
    text = INPUT.format(train=RULES["gd"])
    check(run(text, args=["--out", "new", "--resume"]))
    again = run(text, args=["--out", "new", "--resume"])
    check(again)
    assert "finished already, at step 23; nothing to do" in again.stdout
    check(run(text, args=["--out", "whole"]))
    assert_same(tmp_path / "whole", tmp_path / "new")
    lost = tmp_path / "new"
    shutil.rmtree(lost / "checkpoints")
    (lost / "status.json").write_text("{}")
    anew = run(text, args=["--out", "new", "--resume"])
    check(anew)
    assert "no checkpoint in new: starts from step 0" in anew.stdout
    assert_same(tmp_path / "whole", lost)


def test_the_tolerance_ends_a_run_for_good(run):
    text = INPUT.format(train=RULES["gd"] + ", tolerance: 100")
    check(run(text, args=["--out", "out"]))
    again = run(text, args=["--out", "out", "--resume", "--set", "train.steps=50"])
    check(again)
    assert "finished already, at step 0 (the loss is below train.tolerance); nothing to do" in again.stdout


def test_physics_cannot_change(run, tmp_path):
    text = INPUT.format(train=RULES["gd"])
    check(run(text, args=["--out", "out", "--set", "train.steps=5"]))
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    done = run(text, args=["--out", "out", "--resume", "--set", "train.lr=0.25", "--set", "probes[0].every=9"])
    check(done, 2)
    assert "train.lr=0.25: 0.25, was 0.5" in done.stderr and "probes[0].every=9: 9, was 3" in done.stderr
    assert "this run cannot go on with another input" in done.stderr
    done = run(text, args=["--out", "out", "--resume", "--set", "train.steps=4"])
    check(done)  # it has made more steps than that
    done = run(text, args=["--out", "out", "--resume", "--overwrite"])
    check(done, 2)
    after = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    for path in before:
        if path.name not in ("input.yaml", "resolved.yaml"):  # of the last request
            assert before[path] == after[path], path


def test_a_directory_of_something_else(run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("x")
    done = run(INPUT.format(train=RULES["gd"]), args=["--out", "mine", "--resume"])
    check(done, 2)
    assert "holds no run to go on with" in done.stderr
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_a_diverged_run_is_not_resumed(run):
    text = INPUT.format(train="optimizer: gd, lr: 1e300, weight_decay: 1e10")
    check(run(text, args=["--out", "out"]), 4)
    again = run(text, args=["--out", "out", "--resume"])
    check(again, 4)
    assert "has diverged at step" in again.stderr


@pytest.mark.parametrize("words, message", [
    (["--wall", "2h"], "--wall 2h: expected a time HH:MM:SS, like 01:30:00"),
    (["--wall", "00:61:00"], "--wall 00:61:00: expected a time"),
    (["--stop-at", "tomorrow"], "--stop-at tomorrow: expected seconds since 1970 or a local time"),
    (["--wall", "1:00:00", "--stop-at", "2000000000"], "--wall and --stop-at both set the end"),
    (["--resume=now"], "--resume takes no value"),
    (["--resume", "--out", "a", "--out", "b"], "--out is given twice"),
])
def test_bad_options(command, tmp_path, words, message):
    (tmp_path / "input.yaml").write_text(INPUT.format(train=RULES["gd"]))
    done = command("run", "input.yaml", *words)
    check(done, 2)
    assert message in done.stderr


# ---------------------------------------------------------------- stopping
LONG = """
data: {kind: gaussian, features: 5, outputs: 2, train: 12}
model: {widths: [5, 6, 2], activation: tanh}
train: {optimizer: momentum, lr: 0.01, steps: 100000000, evaluate_every: 1000}
probes: [{kind: spectrum, every: 100, rank: 2}]
"""


class Process:
    """A run in the background; whatever happens, nothing of it is left."""

    def __init__(self, words, folder, **options):
        self.scratch = tempfile.mkdtemp(prefix="et-")
        self.log = open(Path(self.scratch) / "log", "w+b")
        self.child = subprocess.Popen([str(word) for word in words], cwd=folder, stdin=subprocess.DEVNULL,
                                      stdout=self.log, stderr=self.log, start_new_session=True,
                                      env=child_environment(TMPDIR=self.scratch), **options)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.end(0)
        self.log.close()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def ranks(self):
        """Process ids of the program, without the launcher."""
        pids = {self.child.pid} | descendants(self.child.pid)
        return sorted(pid for pid in pids if Path(f"/proc/{pid}/exe").exists()
                      and os.readlink(f"/proc/{pid}/exe").endswith("/eigentrain"))

    def end(self, timeout):
        """Exit code and output; None for a code if it had to be killed."""
        code = wait(self.child, timeout)
        self.log.seek(0)
        return code, self.log.read().decode()


@pytest.fixture
def background(eigentrain, mpirun, tmp_path):
    """background(text, *args, ranks=1): a run in the background that has made its first steps."""
    def start(text, *args, ranks=1, **options):
        (tmp_path / "input.yaml").write_text(text)
        return Process([*mpirun, "-n", ranks, eigentrain, "run", "input.yaml", *args], tmp_path, **options)
    return start


def wait_for_steps(folder, process):
    """Until status.json says that the run goes on."""
    until = time.monotonic() + 60
    while not (folder / "status.json").exists():
        assert process.child.poll() is None and time.monotonic() < until, process.end(0)
        time.sleep(0.02)
    time.sleep(0.2)


def compare_with_uninterrupted(run, tmp_path, ranks, steps=40):
    """Goes on for some steps from where it stopped, and compares with a run that never did."""
    stopped = status(tmp_path / "out")
    assert stopped["state"] == "stopped" and stopped["checkpoint"] == stopped["step"] > 0
    end = f"train.steps={stopped['step'] + steps}"
    resumed = run(LONG, ranks=ranks, args=["--out", "out", "--resume", "--set", end])
    check(resumed)
    check(run(LONG, ranks=ranks, args=["--out", "whole", "--set", end]))
    assert_same(tmp_path / "whole", tmp_path / "out")
    return resumed


@pytest.mark.parametrize("number, everybody", [("SIGUSR1", True), ("SIGUSR2", True), ("SIGTERM", False)])
def test_signals(run, background, tmp_path, number, everybody):
    """USR1 and USR2 to mpirun, which passes them on; TERM to one rank, and all ranks stop at the same step."""
    with background(LONG, "--out", "out", ranks=2) as process:
        wait_for_steps(tmp_path / "out", process)
        os.kill(process.child.pid if everybody else process.ranks()[-1], getattr(signal, number))
        code, said = process.end(60)
    assert code == 85, said
    assert status(tmp_path / "out")["reason"] in (number, "a signal to another rank")
    assert re.search(r"stopped at step \d+ \(.*\); checkpoint of step \d+; go on with --resume", said)
    compare_with_uninterrupted(run, tmp_path, 2)


@pytest.mark.parametrize("how", ["wall", "epoch", "date"])
def test_limits(run, tmp_path, how):
    end = time.time() + 4
    words = {"wall": ["--wall", "00:00:04"], "epoch": ["--stop-at", f"{end:.0f}"],
             "date": ["--stop-at", time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(end))]}[how]
    # So many checkpoints that few steps are made: those that go on and those without a stop need no such time then.
    done = run(LONG, args=["--out", "out", "--set", "checkpoint.every=50", *words])
    check(done, 85)
    assert status(tmp_path / "out")["reason"] == "time limit"
    compare_with_uninterrupted(run, tmp_path, 1)


def test_the_stop_file(run, background, tmp_path):
    with background(LONG, "--out", "out") as process:
        wait_for_steps(tmp_path / "out", process)
        (tmp_path / "out/stop").touch()
        code, said = process.end(60)
    assert code == 85, said
    assert status(tmp_path / "out")["reason"] == "stop file" and (tmp_path / "out/stop").exists()
    assert "out/stop removed: the run goes on" in compare_with_uninterrupted(run, tmp_path, 1).stdout
    assert not (tmp_path / "out/stop").exists()


def test_a_second_process_is_refused(run, background, tmp_path):
    with background(LONG, "--out", "out") as process:
        wait_for_steps(tmp_path / "out", process)
        for word in "--resume", "--overwrite":
            second = run(LONG, args=["--out", "out", word])
            check(second, 3)
            assert re.search(r"out is in use by process \d+ on .*: wait until it has ended", second.stderr)
        os.kill(process.child.pid, signal.SIGUSR1)
        code, said = process.end(60)
    assert code == 85, said
    compare_with_uninterrupted(run, tmp_path, 1)


# ---------------------------------------------------------------- kill -9
KILLED = """
data: {kind: gaussian, features: 7, outputs: 3, train: 20}
model: {widths: [7, 9, 3], bias: true, activation: tanh}
train: {optimizer: adam, lr: 0.01, batch: 6, steps: 150}
probes: [{kind: spectrum, every: 2, rank: 2}, {kind: subspace, every: 3, rank: 1}]
snapshot: {every: 10}
checkpoint: {every: 2}
"""


def kill_at_random(process, dice):
    """One rank, the launcher, or everything, at a moment between the start of the program and two seconds later."""
    time.sleep(dice.uniform(0.2, 2.2))
    ranks, family = process.ranks(), descendants(process.child.pid) | {process.child.pid}
    victims = dice.choice([[dice.choice(ranks or [process.child.pid])], [process.child.pid], sorted(family)])
    send(signal.SIGKILL, victims)
    send(signal.SIGKILL, family)
    return process.end(30)


def kill_until_done(background, dice, out, ranks):
    """Returns how often the run was killed before it came to its end."""
    kills = 0
    while True:
        with background(KILLED, "--out", out, "--resume", "--quiet", ranks=ranks) as process:
            code, said = kill_at_random(process, dice)
        if code == 0:
            return kills
        assert code not in (2, 3, 4, 70), said
        kills += 1


def kill_runs(run, command, background, tmp_path, kills):
    dice, done = random.Random(20260101 + kills), 0
    for number in range(1, 1000):
        ranks, out = 1 + number % 4, f"killed-{number}"
        whole = tmp_path / f"whole-{ranks}"
        if not whole.exists():
            check(run(KILLED, ranks=ranks, args=["--out", whole.name]))
        done += kill_until_done(background, dice, out, ranks)
        verified = command("verify", out)
        check(verified)
        assert_same(whole, tmp_path / out)
        shutil.rmtree(tmp_path / out)
        if done >= kills:
            return


def test_some_kills(run, command, background, tmp_path):
    kill_runs(run, command, background, tmp_path, 6)


@pytest.mark.slow
def test_a_hundred_kills(run, command, background, tmp_path):
    kill_runs(run, command, background, tmp_path, 100)


# ---------------------------------------------------------------- damaged files
def truncate(path, share):
    os.truncate(path, int(share * path.stat().st_size))


def flip(path, at):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


def data_offset(path):
    """Where the weights of the first layer lie in a checkpoint."""
    with h5py.File(path, "r") as file:
        return file["weights/W1"].id.get_offset()


DAMAGES = {
    "empty": lambda path: truncate(path, 0),
    "1 %": lambda path: truncate(path, 0.01),
    "half": lambda path: truncate(path, 0.5),
    "99 %": lambda path: truncate(path, 0.99),
    "data": lambda path: flip(path, data_offset(path) + 3),
    "metadata": lambda path: flip(path, 60),
    "missing part": lambda path: sorted(path.parent.parent.glob("metrics/*.h5"))[-1].unlink(),
    "damaged part": lambda path: flip(sorted(path.parent.parent.glob("metrics/*.h5"))[-1], 5000),
}


@pytest.fixture(scope="module")
def stopped(eigentrain, mpirun, tmp_path_factory):
    """(folder, step): a run on two ranks that was stopped at that step, with two checkpoints and parts of the metrics, beside
    `whole`, which goes 20 steps further without a stop."""
    folder = tmp_path_factory.mktemp("stopped")
    (folder / "input.yaml").write_text(LONG + "checkpoint: {every: 400}\n")
    words = [*mpirun, "-n", 2, eigentrain, "run", "input.yaml"]
    with Process([*words, "--out", "out"], folder) as process:
        while len(list(folder.glob("out/checkpoints/step*.h5"))) < 2:
            assert process.child.poll() is None, process.end(0)
            time.sleep(0.02)
        os.kill(process.child.pid, signal.SIGUSR1)
        code, said = process.end(60)
    assert code == 85, said
    step = status(folder / "out")["step"]
    with Process([*words, "--out", "whole", "--set", f"train.steps={step + 20}"], folder) as process:
        assert process.end(120)[0] == 0
    return folder, step


def resume_copy(run, stopped, tmp_path, damage):
    folder, step = stopped
    shutil.copytree(folder / "out", tmp_path / "out")
    checkpoints = sorted((tmp_path / "out/checkpoints").glob("step*.h5"))
    damage(checkpoints)
    done = run(LONG + "checkpoint: {every: 400}\n", ranks=2,
               args=["--out", "out", "--resume", "--set", f"train.steps={step + 20}"])
    return done, [int(path.stem[5:]) for path in checkpoints]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_bad_checkpoint_is_passed_over(run, stopped, tmp_path, damage):
    """The bad one is found out and said, the one before is used, and the end is the same."""
    done, steps = resume_copy(run, stopped, tmp_path, lambda checkpoints: DAMAGES[damage](checkpoints[-1]))
    check(done)
    assert f"warning: the checkpoint of step {steps[-1]} is not used: " in done.stderr
    assert f"resumes from the checkpoint of step {steps[-2]}, bit for bit" in done.stdout
    assert_same(stopped[0] / "whole", tmp_path / "out")


def test_figures_of_a_run_that_is_not_done(stopped):
    """The reader of the postprocessing puts the parts together."""
    groups, whole = (open_run(stopped[0] / name).groups for name in ("out", "whole"))
    assert 2 <= len(list((stopped[0] / "out/metrics").iterdir())) <= 2 + np.log2(stopped[1] / 400)
    for name, quantity in (("train", "loss"), ("train", "test_loss"), ("spectrum", "singular_value")):
        there = groups[name][quantity]
        np.testing.assert_array_equal(there, whole[name][quantity][:len(there)])
    np.testing.assert_array_equal(groups["train"]["step"], np.arange(stopped[1]))


def test_no_good_checkpoint_is_no_start_from_zero(run, stopped, tmp_path):
    def damage(checkpoints):
        truncate(checkpoints[0], 0.5)
        flip(checkpoints[1], 700)
    done, steps = resume_copy(run, stopped, tmp_path, damage)
    check(done, 3)
    for step, words in zip(steps, ("is cut off", "is damaged")):
        assert re.search(rf"step_0*{step}.h5 {words}", done.stderr), done.stderr
    assert "none of its checkpoints can be used; --overwrite moves the run aside and starts anew" in done.stderr
    assert status(tmp_path / "out") == status(stopped[0] / "out")


# ---------------------------------------------------------------- no space
WIDE = """
data: {kind: gaussian, features: 100, outputs: 10, train: 50}
model: {widths: [100, 200, 10], activation: tanh}
train: {optimizer: adam, lr: 0.001, steps: 40}
checkpoint: {every: 5}
snapshot: {every: 20}
"""


def set_limit(process, bytes_or_none):
    """The largest size of a file for all ranks: what `ulimit -f` sets, but after MPI has made its own files."""
    for pid in process.ranks():
        hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard if bytes_or_none is None else bytes_or_none, hard))


def wait_for_words(process, words, count=1):
    """Until the run has said them so often."""
    until = time.monotonic() + 60
    while Path(process.log.name).read_text(errors="replace").count(words) < count:
        assert process.child.poll() is None and time.monotonic() < until, process.end(0)
        time.sleep(0.02)


def test_a_limit_on_the_size_of_files(run, background, tmp_path):
    """The run goes on without checkpoints, the last one stays, and when there is room again nothing has been lost."""
    text = WIDE.replace("steps: 40", "steps: 100000000, evaluate_every: 1000").replace("snapshot: {every: 20}", "")
    with background(text, "--out", "out", ranks=2) as process:
        checkpoints = tmp_path / "out/checkpoints"
        while not list(checkpoints.glob("step*.h5")):
            assert process.child.poll() is None, process.end(0)
            time.sleep(0.02)
        set_limit(process, 120000)  # below a checkpoint, above the metrics
        wait_for_words(process, "warning: no checkpoint of step ", 3)
        assert list(checkpoints.glob("step*.h5"))
        set_limit(process, None)
        os.kill(process.child.pid, signal.SIGUSR1)
        code, said = process.end(60)
    assert code == 85, said
    assert re.search(r"warning: no checkpoint of step \d+: .*: File too large; the run goes on", said)
    step = status(tmp_path / "out")["step"]
    assert status(tmp_path / "out")["checkpoint"] == step
    end = ["--set", f"train.steps={step + 20}"]
    check(run(text, ranks=2, args=["--out", "out", "--resume", *end]))
    check(run(text, ranks=2, args=["--out", "whole", "--set", "checkpoint.every=never", *end]))
    assert_same(tmp_path / "whole", tmp_path / "out")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1400 KiB, below a long path."""
    folder = tmp_path / ("disk" * 50)
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1400k", "tmpfs", str(folder)], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no small file system can be mounted: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk(run, small_disk, tmp_path):
    """All steps are made and measured, the checkpoint from before the disk was full is whole; resumed with room again, the run
    ends as if nothing had happened."""
    check(run(WIDE, ranks=2, args=["--out", "whole"]))
    out = small_disk / "out"
    check(run(WIDE, ranks=2, args=["--out", out, "--set", "train.steps=10", "--set", "checkpoint.keep=1",
                                   "--set", "snapshot.every=never"]))
    fill(small_disk / "filler", leave=170_000)  # a checkpoint and a snapshot take more, the metrics less
    done = run(WIDE, ranks=2, args=["--out", out, "--resume"])
    check(done, 3)
    assert re.search("warning: no checkpoint of step 15: .*: No space left on device; the run goes on", done.stderr)
    assert "2 snapshots could not be written (see the warnings)" in done.stderr
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step_000000010.h5"]
    assert not list(out.rglob(".*partial"))
    with h5py.File(out / "metrics.h5") as file:
        assert np.array_equal(file["train/step"], np.arange(41))
    assert status(out)["state"] == "failed" and status(out)["step"] == 40
    (small_disk / "filler").unlink()
    shutil.copytree(out, tmp_path / "out")
    check(run(WIDE, ranks=2, args=["--out", "out", "--resume"]))
    (tmp_path / "whole/snapshots/step_000000000.h5").unlink()  # the run without room began without snapshots
    assert_same(tmp_path / "whole", tmp_path / "out")


def fill(path, leave):
    """Takes all space of the file system but so many bytes."""
    about = os.statvfs(path.parent)
    with open(path, "wb") as file:
        file.write(bytes(max(0, about.f_bavail * about.f_frsize - leave)))
