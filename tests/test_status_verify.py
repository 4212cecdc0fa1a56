"""status and verify: what they say of whole runs and sweeps, of killed and live ones, and of every kind of damage."""
import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import time

import h5py
import numpy as np
import pytest

from run import child_environment, execute, wait

INPUT = """
data: {kind: gaussian, features: 6, outputs: 3, train: 30, test: 5}
model: {widths: [6, 8, 3]}
train: {steps: 20, lr: 0.05, evaluate_every: 5}  # twenty
probes: [{kind: spectrum, every: 3, rank: 3}]
snapshot: {every: 5}
checkpoint: {every: 4}
"""
LONG = INPUT.replace("steps: 20", "steps: 100000000").replace("snapshot: {every: 5}", "")
SWEEP = INPUT + "sweep: {train.lr: [0.05, 1.0e+300], model.widths: [[6, 8, 3], [6, 8, 4]]}\n"


@pytest.fixture(scope="module")
def call(eigentrain):
    """call(folder, *words): the program alone, without mpirun."""
    def start(folder, *words):
        scratch = tempfile.mkdtemp(prefix="et-")
        try:
            return execute([str(eigentrain), *map(str, words)], 60, cwd=folder, env=child_environment(TMPDIR=scratch))
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return start


def made(call, folder, text, *words, code=0):
    (folder / "input.yaml").write_text(text)
    done = call(folder, *words)
    assert done.returncode == code, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def finished(call, tmp_path_factory):
    """A folder with the finished run `run`."""
    return made(call, tmp_path_factory.mktemp("finished"), INPUT, "run", "input.yaml", "--out", "run", "--quiet")


@pytest.fixture(scope="module")
def swept(call, tmp_path_factory):
    """A folder with the sweep `sweep`: one member is done, one diverged, two are impossible."""
    return made(call, tmp_path_factory.mktemp("swept"), SWEEP, "sweep", "input.yaml", "--out", "sweep", "--quiet")


@contextlib.contextmanager
def at_work(eigentrain, folder):
    """A long run in `folder`/run, in the background, that has written two checkpoints; killed -9 at the end."""
    (folder / "input.yaml").write_text(LONG)
    scratch = tempfile.mkdtemp(prefix="et-")
    process = subprocess.Popen([str(eigentrain), "run", "input.yaml", "--out", "run", "--quiet"], cwd=folder,
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               start_new_session=True, env=child_environment(TMPDIR=scratch))
    try:
        until = time.monotonic() + 60
        while len(list(folder.glob("run/checkpoints/step_*.h5"))) < 2:
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.02)
        yield process
    finally:
        process.kill()
        wait(process, 10)
        shutil.rmtree(scratch, ignore_errors=True)


@pytest.fixture(scope="module")
def killed(eigentrain, tmp_path_factory):
    """A folder with the run `run`, killed between or in checkpoints."""
    folder = tmp_path_factory.mktemp("killed")
    with at_work(eigentrain, folder):
        pass
    return folder


@pytest.fixture
def copy(tmp_path):
    """copy(folder): a copy of a folder to spoil."""
    def make(folder):
        return shutil.copytree(folder, tmp_path / "copy", symlinks=True)
    return make


def verified(call, folder, name="run"):
    """Exit code, the lines about files, and the closing line of verify."""
    done = call(folder, "verify", name)
    assert not done.stderr, done.stderr
    *lines, last = done.stdout.splitlines()
    assert re.fullmatch(r"\d+ files, \d+ broken", last), done.stdout
    assert done.returncode == (0 if last.endswith(" 0 broken") else 3)
    return done.returncode, lines, last


def assert_names(call, folder, path, words="", name="run"):
    """verify finds one broken file, this one."""
    code, lines, last = verified(call, folder, name)
    lines = [line for line in lines if not line.endswith(": harmless")]
    assert code == 3 and last.endswith(", 1 broken") and len(lines) == 1, lines
    assert re.match(re.escape(f"{name}/{path}") + r"\b", lines[0]) and words in lines[0], lines


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


# ---------------------------------------------------------------- verify: whole
def test_whole_runs(call, command, finished, tmp_path):
    assert verified(call, finished) == (0, [], "11 files, 0 broken")
    shutil.copytree(finished / "run", tmp_path / "run")
    parallel = command("verify", "run", ranks=3)
    assert parallel.returncode == 0 and parallel.stdout == "11 files, 0 broken\n", parallel.stdout + parallel.stderr


def test_damage_is_found_on_several_ranks(command, finished, tmp_path):
    shutil.copytree(finished / "run", tmp_path / "run")
    flip(tmp_path / "run/metrics.h5", -200)
    parallel = command("verify", "run", ranks=3)
    assert parallel.returncode == 3
    assert parallel.stdout == ("run/metrics.h5 is damaged: its bytes are not those that were written\n"
                               "11 files, 1 broken\n")


def test_runs_that_went_on(call, tmp_path):
    """Prolonged, with other intervals, and asked again when there was nothing to do."""
    made(call, tmp_path, INPUT, "run", "input.yaml", "--out", "run", "--set", "train.steps=7")
    for words in (["--set", "train.steps=13", "--set", "snapshot.every=2"], [], ["--set", "train.steps=5"]):
        made(call, tmp_path, INPUT, "run", "input.yaml", "--out", "run", "--resume", *words)
        assert verified(call, tmp_path)[0] == 0
    made(call, tmp_path, INPUT.replace("twenty", "20"), "run", "input.yaml", "--out", "run", "--resume")
    assert verified(call, tmp_path)[0] == 0


def test_runs_that_failed(call, tmp_path):
    text = INPUT.replace("lr: 0.05", "lr: 1.0e+300")
    made(call, tmp_path, text, "run", "input.yaml", "--out", "run", code=4)
    assert verified(call, tmp_path)[0] == 0
    assert re.match(r"run: diverged at step \d+ of 20 \(the loss is", call(tmp_path, "status", "run").stdout)


def test_a_killed_run(call, killed, copy):
    folder = copy(killed)
    (folder / "run/checkpoints/.step_000000004.h5.partial").write_bytes(b"x")
    (folder / "run/.status.json.partial").write_bytes(b"{")
    code, lines, _ = verified(call, folder)
    assert code == 0, lines
    for name in ("checkpoints/.step_000000004.h5.partial", ".status.json.partial"):
        assert f"run/{name} is what a killed run left of a file: harmless" in lines


def test_a_live_run(call, eigentrain, tmp_path):
    with at_work(eigentrain, tmp_path):
        for _ in range(3):
            code, lines, _ = verified(call, tmp_path)
            assert code == 0 and lines == ["run: a process is at work: what is missing is not looked for"]
            said = call(tmp_path, "status", "run").stdout
            assert re.match(r"run: running at step \d+ of 100000000, loss \d", said), said
    assert call(tmp_path, "status", "run").stdout.startswith("run: interrupted (killed) at step ")


# ---------------------------------------------------------------- verify: damage
H5 = ["metrics.h5", "checkpoints/step_000000016.h5", "checkpoints/step_000000020.h5", "snapshots/step_000000010.h5"]
TEXTS = ["input.yaml", "resolved.yaml", "status.json"]


def assert_each_is_named(call, finished, tmp_path, cases):
    """cases: (name, spoil) where spoil(path) damages that file of a copy of the run. One call looks at all copies."""
    for number, (name, spoil) in enumerate(cases):
        folder = tmp_path / f"case-{number}"
        shutil.copytree(finished / "run", folder)
        spoil(folder / name)
    done = call(tmp_path, "verify", *(f"case-{number}" for number in range(len(cases))))
    *lines, last = done.stdout.splitlines()
    assert done.returncode == 3 and last == f"{11 * len(cases)} files, {len(cases)} broken", done.stdout + done.stderr
    assert [re.split(r" |: ", line)[0] for line in lines] == [f"case-{i}/{name}" for i, (name, _) in enumerate(cases)]
    return lines


@pytest.mark.parametrize("name", H5)
def test_flipped_bytes(call, finished, tmp_path, name):
    size, rng = (finished / "run" / name).stat().st_size, np.random.default_rng(len(name))
    places = [0, 5, *rng.integers(size, size=5), size - 100, size - 60, size - 1]
    assert_each_is_named(call, finished, tmp_path, [(name, lambda path, at=at: flip(path, at)) for at in places])


def replacing(old, new):
    def spoil(path):
        content = path.read_bytes()
        assert old in content
        path.write_bytes(content.replace(old, new, 1))
    return spoil


def test_flipped_bytes_of_texts(call, finished, tmp_path):
    changes = {
        "input.yaml": [(b"lr: 0.05", b"lr: 0.04"), (b"model: {", b"mndel: {"), (b"\n", b"\0"), (b"{", b"z"),
                       (b"[6, 8, 3]", b"\xb66, 8, 3]"), (b": 20", b"; 20")],
        "resolved.yaml": [(b"lr: 0.05", b"lr: 0.04"), (b"steps: 20", b"steps:\t20"), (b"\n", b"J"),
                          (b"widths", b"widtis"), (b": 30", b": 31")],
        "status.json": [(b'"', b"#"), (b"done", b"dond"), (b"step", b"stup"), (b": 20", b": 21"), (b"}\n", b"|\n"),
                        (b'"loss": 0.', b'"loss": 1.'), (b'"host"', b'"hnst"'), (b'"job_id"', b'"jnb_id"')]}
    assert_each_is_named(call, finished, tmp_path, [(name, replacing(*change))
                                                    for name, all_changes in changes.items() for change in all_changes])


@pytest.mark.parametrize("name", H5 + TEXTS)
def test_cut_off_files(call, finished, tmp_path, name):
    size = (finished / "run" / name).stat().st_size
    cases = [(name, lambda path, length=length: os.truncate(path, length)) for length in (0, 1, size // 2, size - 2)]
    if name not in ("status.json", "input.yaml"):  # where an empty line more means nothing
        cases.append((name, lambda path: path.write_bytes(path.read_bytes() + b"\n")))
    assert_each_is_named(call, finished, tmp_path, cases)


def test_deleted_files(call, finished, tmp_path):
    names = ["metrics.h5", "checkpoints/step_000000020.h5", *TEXTS,
             *(f"snapshots/step_{step:09d}.h5" for step in (5, 10, 15, 20))]
    lines = assert_each_is_named(call, finished, tmp_path, [(name, os.unlink) for name in names])
    assert all(" is missing" in line for line in lines)


@pytest.mark.parametrize("name, other, words", [
    ("checkpoints/step_000000020.h5", "checkpoints/step_000000024.h5", "holds step 20: it has the wrong name"),
    ("snapshots/step_000000010.h5", "snapshots/step_000000012.h5", "holds step 10: it has the wrong name"),
    ("snapshots/step_000000010.h5", "snapshots/step_10.h5", "has no name that eigentrain gives"),
    ("checkpoints/step_000000020.h5", "checkpoints/step_000000020 (copy).h5", "has no name that eigentrain gives"),
    ("snapshots/step_000000010.h5", "checkpoints/step_000000010.h5",
     "is an 'eigentrain snapshot' file, not an 'eigentrain checkpoint' file"),
])
def test_copies_under_other_names(call, finished, copy, name, other, words):
    folder = copy(finished)
    shutil.copy(folder / "run" / name, folder / "run" / other)
    assert_names(call, folder, other, words)


def test_files_of_others_are_passed_over(call, finished, copy):
    folder = copy(finished)
    for name in ("mine.h5", "snapshots/notes.txt", "figures", ".lock"):
        (folder / "run" / name).write_text("x")
    assert verified(call, folder) == (0, [], "11 files, 0 broken")


def test_all_damage_is_named(call, finished, copy):
    folder = copy(finished)
    for name in H5:
        flip(folder / "run" / name, 1000)
    (folder / "run/status.json").unlink()
    code, lines, last = verified(call, folder)
    assert code == 3 and last == "11 files, 5 broken" and len({line.split()[0] for line in lines}) == 5


def seal(path):
    """Writes the seal of src/dist/h5_seal.c anew behind what a file holds now."""
    def mix(x):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))
    content = re.sub(rb"\neigentrain seal.{63}\n$", b"", path.read_bytes())  # h5py cuts it off when it writes
    words = np.frombuffer(content + bytes(-len(content) % 8), dtype="<u8")
    index = np.arange(len(words), dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    total = int(mix(words + mix(index)).sum(dtype=np.uint64))
    line = f"\neigentrain seal 1: {len(content)} bytes, sum {total:016x}".ljust(79) + "\n"
    path.write_bytes(content + line.encode())


@pytest.mark.parametrize("series, row, value, words", [
    ("train/step", 7, 6, "train/step is not in order: step 6 follows step 6"),
    ("train/step", 20, 21, "train/step is not in order: step 21 follows step 19"),
    ("train/step", 0, -1, "train/step is not in order: step 1 follows step -1"),
    ("train/evaluated_step", 2, 4, "train/evaluated_step is not in order: step 4 follows step 5"),
    ("spectrum/step", 1, 7, "spectrum/step is not in order: step 6 follows step 7"),
])
def test_series_out_of_order(call, finished, copy, series, row, value, words):
    """A whole file with steps that are not what they should be."""
    folder = copy(finished)
    path = folder / "run/metrics.h5"
    with h5py.File(path, "r+") as file:
        file[series][row] = value
    seal(path)
    assert_names(call, folder, "metrics.h5", words)


def test_the_seal_of_the_test_is_that_of_the_program(finished, copy):
    path = copy(finished) / "run/metrics.h5"
    whole = path.read_bytes()
    seal(path)
    assert path.read_bytes() == whole


def test_parts_of_the_metrics(call, killed, copy):
    folder = copy(killed)
    parts = sorted(folder.glob("run/metrics/part-*.h5"))
    for part in parts:
        whole = part.read_bytes()
        flip(part, 3000)
        assert_names(call, folder, f"metrics/{part.name}")
        part.write_bytes(whole)
    shutil.copy(parts[-1], folder / "run/metrics/part-0001 (copy).h5")
    assert_names(call, folder, "metrics/part-0001 (copy).h5", "has no name that eigentrain gives")
    shutil.rmtree(folder / "run/metrics")
    assert_names(call, folder, "metrics/part", "is missing: steps 0 to ")


def test_lost_checkpoints(call, killed, copy):
    folder = copy(killed)
    shutil.rmtree(folder / "run/checkpoints")
    step = json.loads((folder / "run/status.json").read_text())["checkpoint"]
    assert_names(call, folder, f"checkpoints/step_{step:09d}.h5", "is missing: status.json tells of it")


# ---------------------------------------------------------------- sweeps
def test_sweeps(call, swept):
    code, lines, last = verified(call, swept, "sweep")
    assert (code, lines) == (0, []) and int(last.split()[0]) > 10
    said = call(swept, "status", "sweep").stdout.splitlines()
    assert said[0] == "sweep: 4 members: 1 done, 1 diverged, 2 invalid"
    assert len(said) == 4 and all(line.startswith("    ") for line in said[1:]), said
    assert sum(" diverged at step " in line for line in said) == 1 and sum(": invalid (" in line for line in said) == 2


def test_sweeps_that_wait(call, swept, copy):
    folder = copy(swept)
    shutil.rmtree(next(path.parent for path in folder.glob("sweep/*/metrics.h5")))
    table = (folder / "sweep/members.csv").read_text().replace(",done,", ",waiting,").replace(",diverged,", ",waiting,")
    (folder / "sweep/members.csv").write_text(table)
    assert verified(call, folder, "sweep")[0] == 0
    said = call(folder, "status", "sweep").stdout
    assert " 1 waiting, " in said and re.search(r"\n    waiting: \S+\n", said), said


@pytest.mark.parametrize("name, words", [("members.csv", ""), ("sweep.h5", ""), ("members.csv", "missing"),
                                         ("sweep.h5", ""), ("*/metrics.h5", ""), ("*/status.json", "")])
def test_damaged_sweeps(call, swept, copy, name, words):
    folder = copy(swept)
    path = sorted(folder.glob(f"sweep/{name}"))[0]
    if words:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-90])
    assert_names(call, folder, path.relative_to(folder / "sweep"), words, name="sweep")


def test_a_lost_member(call, swept, copy):
    folder = copy(swept)
    lost = next(folder.glob("sweep/*/metrics.h5")).parent
    shutil.rmtree(lost)
    assert_names(call, folder, "members.csv", f"says that {lost.name} is ", name="sweep")


# ---------------------------------------------------------------- status
def test_status_of_a_finished_run(call, finished):
    said = call(finished, "status", "run/").stdout.splitlines()
    assert re.fullmatch(r"run/: done at step 20 of 20, loss 0\.\d+", said[0])
    assert said[1] == "    last checkpoint at step 20" and re.fullmatch(r"    time spent \d+ s", said[2])
    assert re.fullmatch(r"    last update \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ, (\d+ min )?\d+ s ago", said[3])
    assert re.fullmatch(r"    started \S+ on \S+, 1 rank(, job .*)?", said[4]) and len(said) == 5


def test_status_of_a_killed_run(call, killed):
    step = json.loads((killed / "run/status.json").read_text())["checkpoint"]
    said = call(killed, "status", "run").stdout.splitlines()
    assert said[0].startswith("run: interrupted (killed) at step ")
    assert said[1] == f"    resume with --resume from step {step}"


def with_status(folder, **values):
    """A run that says this of itself."""
    whole = {"state": "stopped", "reason": None, "step": 12, "steps": 100, "loss": 0.25, "seconds": 12.4,
             "seconds_left": None, "checkpoint": 12, "started": "2025-01-01T00:00:00Z",
             "updated": "2025-01-01T01:00:00Z", "job_id": "77", "host": "node1", "ranks": 4, **values}
    folder.mkdir()
    (folder / "status.json").write_text(json.dumps(whole))
    return folder


@pytest.mark.parametrize("values, lines", [
    ({"reason": "time limit"}, ["stopped at step 12 of 100 (time limit), loss 0.25",
                                "    resume with --resume from step 12", "    time spent 12 s"]),
    ({"state": "failed", "reason": "failed: no space", "checkpoint": None, "loss": None},
     ["failed at step 12 of 100 (no space)", "    no checkpoint yet: --resume starts from step 0"]),
    ({"state": "diverged", "reason": "diverged: the loss is nan", "checkpoint": None, "loss": None, "seconds": 3725},
     ["diverged at step 12 of 100 (the loss is nan)", "    time spent 1 h 2 min"]),
    ({"state": "running", "seconds": 90061, "checkpoint": 8, "seconds_left": 50},
     ["interrupted (killed) at step 12 of 100, loss 0.25", "    resume with --resume from step 8",
      "    time spent 1 d 1 h"]),
    ({"state": "done", "seconds": 200}, ["done at step 12 of 100, loss 0.25", "    last checkpoint at step 12",
                                         "    time spent 3 min 20 s"]),
    ({"state": "nonsense"}, ["its status.json cannot be read (see eigentrain verify) at step 12 of 100, loss 0.25"]),
])
def test_status_lines(call, tmp_path, values, lines):
    with_status(tmp_path / "run", **values)
    said = call(tmp_path, "status", "run").stdout.splitlines()
    assert [said[0].removeprefix("run: "), *said[1:len(lines)]] == lines
    assert said[-1] == "    started 2025-01-01T00:00:00Z on node1, 4 ranks, job 77"


def test_status_of_several(call, finished, tmp_path):
    shutil.copytree(finished / "run", tmp_path / "a")
    with_status(tmp_path / "b")
    (tmp_path / "empty").mkdir()
    done = call(tmp_path, "status", "a", "nowhere", "empty", "b")
    assert done.returncode == 2 and [line[:2] for line in done.stdout.splitlines() if line[0] != " "] == ["a:", "b:"]
    assert done.stderr == ("eigentrain: nowhere: No such file or directory\n"
                           "eigentrain: empty holds neither a run nor a sweep\n")


def test_status_before_the_first_step(call, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/input.yaml").write_text(INPUT)
    done = call(tmp_path, "status", "run")
    assert (done.returncode, done.stdout) == (0, "run: not begun\n")
    assert verified(call, tmp_path) == (0, [], "1 files, 0 broken")


def test_only_reading(call, killed, swept):
    """Nothing is changed, not even a time, and no file is made."""
    def everything(folder):
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}
    for folder, name in ((killed, "run"), (swept, "sweep")):
        before = everything(folder)
        for command in ("status", "verify"):
            assert call(folder, command, name).returncode == 0
        assert everything(folder) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_the_run_of_somebody_else(call, eigentrain, tmp_path):
    """Who may not write there sees, too, that a process is at work."""
    with at_work(eigentrain, tmp_path):
        for path in (tmp_path, *tmp_path.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        for parent in tmp_path.parents[:-2]:
            parent.chmod(parent.stat().st_mode | 0o055)
        done = subprocess.run([str(eigentrain), "status", str(tmp_path / "run")], user=65534, group=65534,
                              extra_groups=[], cwd="/", capture_output=True, text=True, timeout=60, check=False,
                              env=child_environment(TMPDIR="/tmp", HOME="/tmp"))
    assert ": running at step " in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("words, message", [
    (["status"], "status needs the directory of a run or of a sweep: eigentrain status DIR…"),
    (["verify"], "verify needs the directory of a run or of a sweep: eigentrain verify DIR…"),
    (["verify", "--all"], "there is no option --all"),
    (["verify", "nowhere"], "nowhere: No such file or directory"),
    (["verify", "."], ". holds neither a run nor a sweep"),
])
def test_bad_commands(call, tmp_path, words, message):
    done = call(tmp_path, *words)
    assert done.returncode == 2 and message in done.stderr and not done.stdout
