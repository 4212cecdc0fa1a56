"""What the Python tests share: the program under test, ways to run it, and the marker `slow`."""
from dataclasses import dataclass
import os
from pathlib import Path
import re
import shlex
import sys
import tempfile

import pytest

from run import child_environment, execute, line_of

ROOT = Path(__file__).resolve().parent.parent
# A file at a time goes to the process that is free: those that take longest first, so that both end together.
LONGEST = ["test_restart.py", "test_oracle.py", "test_plan.py", "test_slurm.py", "test_report.py", "test_sweep.py",
           "test_bad_inputs.py", "test_smooth.py", "test_parsimony_inputs.py", "test_project.py", "test_inputs.py",
           "test_postprocess.py", "test_intrinsic.py"]


@dataclass
class Finished:
    """A run of eigentrain that has ended; `returncode` is None if it had to be killed at its timeout."""

    returncode: int
    stdout: str
    stderr: str
    dir: Path


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the tests marked slow, too")


def pytest_configure(config):
    """A process of pytest-xdist has a temporary folder of its own: runs of Open MPI that share one disturb each other
    when they tidy it up."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker:
        folder = Path(tempfile.gettempdir()) / worker
        folder.mkdir(exist_ok=True)
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    config.addinivalue_line("markers", "slow: takes more than a few seconds; runs only with --slow")


def pytest_collection_modifyitems(config, items):
    """The longest first. Slow tests are left out, not skipped: skipped is what could not run."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))
    if config.getoption("--slow"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


def pytest_runtest_logreport(report):
    """One line a test, for tests/run.py, which gives its standard output as our standard error."""
    ended_early = report.when != "call" and report.outcome != "passed" and not (
        report.when == "teardown" and report.skipped)
    if os.environ.get("EIGENTRAIN_PROGRESS") and "PYTEST_XDIST_WORKER" not in os.environ and (report.when == "call" or ended_early):
        name = report.nodeid.removeprefix("tests/")
        print(line_of(name, report.outcome, report.duration), file=sys.stderr, flush=True)


@pytest.fixture(scope="session")
def eigentrain():
    """The program under test."""
    program = Path(os.environ.get("EIGENTRAIN", ROOT / "build" / "eigentrain"))
    if not program.exists():
        pytest.fail(f"{program} is not built")
    # The BLAS kernel that the program would choose itself, and then begin again with: a third of the time of a start.
    told = re.search(r"(?m)^blas kernel +(\S+)", execute([str(program), "info"], 60, env=child_environment()).stdout)
    if told:
        os.environ.setdefault("OPENBLAS_CORETYPE", told[1])
    return program


@pytest.fixture(scope="session")
def mpirun():
    """The MPI launcher, as a list of words that `-n RANKS` follows."""
    return shlex.split(os.environ.get("EIGENTRAIN_MPIRUN", "mpirun --oversubscribe"))


@pytest.fixture
def command(eigentrain, mpirun, tmp_path):
    """command(*args, ranks=1, timeout=120): any command of eigentrain, `command("keys", "train.lr")`.

    One rank runs without mpirun, which is faster.
    """
    def start(*args, ranks=1, timeout=120, **environment):
        launcher = [*mpirun, "-n", str(ranks)] if ranks > 1 else []
        words = [*launcher, str(eigentrain), *map(str, args)]
        done = execute(words, timeout, cwd=tmp_path, env=child_environment(**environment))
        return Finished(done.returncode, done.stdout, done.stderr, tmp_path)
    return start


@pytest.fixture
def run(command, tmp_path):
    """run(input, ranks=1, args=(), timeout=120): trains; `input` is YAML text, or the Path of an input file.

    Each call has a run directory of its own, `dir` of the result, unless `args` has another --out.
    """
    calls = 0

    def start(given, ranks=1, args=(), timeout=120):
        nonlocal calls
        calls += 1
        args = list(map(str, args))
        path = given
        if not isinstance(given, Path):
            path = tmp_path / f"input-{calls}.yaml"
            path.write_text(given, encoding="utf-8")
        if "--out" not in args:
            args += ["--out", str(tmp_path / f"run-{calls}")]
        finished = command("run", path.resolve(), *args, ranks=ranks, timeout=timeout)
        finished.dir = tmp_path / args[args.index("--out") + 1]
        return finished
    return start
