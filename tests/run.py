#!/usr/bin/env python3
"""Runs all tests: python tests/run.py --build build --mpirun 'mpirun --oversubscribe' [--all] [-k WORD]

First the lint as one test, and beside it each unit test on each number of ranks that the first line of its source
declares; then the Python tests. Two at a time, one line a test as it ends, the output of failures at the end, then
`N passed, N failed`. Exit code 1 on a failure or if nothing ran. With CI=true nothing may be skipped.
"""
import argparse
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
import functools
import os
from pathlib import Path
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree

TESTS = Path(__file__).resolve().parent
LINT_TIMEOUT = 600
UNIT_TIMEOUT = 300
PYTEST_TIMEOUT = {False: 3600, True: 4 * 3600}  # with --all; a single test has its own, shorter one
PROCESSES = 2  # tests at a time; most have one or two ranks
GRACE = 5  # seconds between asking and killing
SKIPPED = 77  # exit code by which a unit test says that the machine lacks what it needs
NO_TESTS_COLLECTED = 5  # pytest's exit code


@dataclass
class Result:
    name: str
    outcome: str  # passed, failed, skipped
    seconds: float
    output: str = ""


# ---------------------------------------------------------------- processes
def child_environment(**more):
    """What every child gets: no locale assumed, root allowed to run Open MPI."""
    return {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "LC_ALL": "C",
            "PYTHONUTF8": "1",
            # Two tests run at a time: ranks are not tied to cores, where they would meet on the first, nor threaded,
            # and who waits for a message leaves the core to who computes.
            "OMPI_MCA_hwloc_base_binding_policy": "none", "OMPI_MCA_mpi_yield_when_idle": "1",
            # mpirun sleeps so many seconds, twice, after an exit code that is not 0; all ranks have ended MPI by then.
            "OMPI_MCA_odls_base_sigkill_timeout": "0",
            "OMPI_MCA_ess_singleton_isolated": "1",  # one rank without mpirun starts no daemon for itself
            "OPENBLAS_NUM_THREADS": os.environ.get("OPENBLAS_NUM_THREADS", "1"),
            # Open MPI and PETSc do not free everything at their end; memory errors are what SAN=1 is after.
            "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "detect_leaks=0"), **more}


def execute(command, timeout, cwd=None, env=None):
    """Like subprocess.run with captured text, but a timeout ends everything that the command started.

    The return code is then None. Output goes to files, not pipes: a process that outlives its parent could keep a pipe
    open for ever.
    """
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, cwd=cwd,
                                   env=env or child_environment(), start_new_session=True)
        code = wait(process, timeout)
        return subprocess.CompletedProcess(command, code, text_of(stdout), text_of(stderr))


def text_of(file):
    file.seek(0)
    return file.read().decode("utf-8", "replace")


def wait(process, timeout):
    """Exit code, or None after a timeout. Whatever happens, nothing of the process is left running."""
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            end_tree(process)


def end_tree(process):
    """Ends a process and all its descendants: first by asking, so that mpirun can clean up, then by killing.

    A process group is not enough, since Open MPI puts every rank into a group of its own.
    """
    family = descendants(process.pid)
    send(signal.SIGINT, [process.pid])
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        family |= descendants(process.pid)
    send(signal.SIGKILL, family | {process.pid})
    process.wait()


def send(number, pids):
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def descendants(pid):
    """All processes below `pid`, from /proc."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The second field, a name in parentheses, may hold anything.
            parents[int(stat.parent.name)] = int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            continue
    found, waiting = set(), {pid}
    while waiting:
        waiting = {child for child, parent in parents.items() if parent in waiting} - found
        found |= waiting
    return found


# ---------------------------------------------------------------- the three kinds of tests
def run_lint(build):
    """The Makefile leaves its compiler and flags in build/flags."""
    flags = build / "flags"
    given = ["--flags", flags.read_text(encoding="utf-8").strip()] if flags.exists() else []
    return timed("lint", [sys.executable, str(TESTS / "lint.py"), *given], LINT_TIMEOUT, cwd=TESTS.parent)


def unit_tests(build, mpirun, word):
    """Yields functions that run one each."""
    for source in sorted((TESTS / "unit").glob("test_*.c")):
        first = source.read_text(encoding="utf-8").partition("\n")[0]
        declared = re.fullmatch(r"/\* ranks: ([\d ]+)\*/", first.strip())
        binary = build / "tests" / source.stem
        for ranks in declared[1].split() if declared else ["?"]:
            name = f"unit {source.stem} -n {ranks}"
            if word in name:
                yield functools.partial(run_unit, name, source, binary, mpirun, ranks)


def run_unit(name, source, binary, mpirun, ranks):
    if ranks == "?":
        return Result(name, "failed", 0.0, f"{source}: the first line must be like /* ranks: 1 2 4 */")
    if not binary.exists():
        return Result(name, "failed", 0.0, f"{binary} is not built (make unit)")
    return timed(name, [*mpirun, "-n", ranks, str(binary.resolve())], UNIT_TIMEOUT, cwd=TESTS.parent)


def timed(name, command, timeout, cwd):
    start = time.monotonic()
    # Runs of Open MPI that share a temporary folder disturb each other when they tidy it up.
    with tempfile.TemporaryDirectory(prefix="u", ignore_cleanup_errors=True) as own:
        done = execute(command, timeout, cwd=cwd, env=child_environment(TMPDIR=own))
    outcome = {0: "passed", SKIPPED: "skipped"}.get(done.returncode, "failed")
    ending = f"no end within {timeout} s" if done.returncode is None else f"exit code {done.returncode}"
    return Result(name, outcome, time.monotonic() - start,
                  f"$ {shlex.join(command)}\n{done.stdout}{done.stderr}[{ending}]\n")


def side_by_side(functions):
    """Yields the results of functions as they end, PROCESSES at a time. An interruption ends what they have started."""
    pool = ThreadPoolExecutor(PROCESSES)
    try:
        for future in as_completed([pool.submit(function) for function in functions]):
            yield future.result()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        send(signal.SIGKILL, descendants(os.getpid()))
        raise
    finally:
        pool.shutdown()


def run_pytest(build, mpirun, word, everything, scratch):
    """All Python tests, a file at a time in each of two processes; their lines are printed as they come
    (tests/conftest.py). Returns their results."""
    report = scratch / "pytest.xml"
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "--color=no", "-p", "no:cacheprovider",
               "--continue-on-collection-errors", f"--junitxml={report}", "-n", str(PROCESSES), "--dist", "loadfile",
               *(["--slow"] if everything else []), *(["-k", word] if word else []), str(TESTS)]
    environment = child_environment(EIGENTRAIN=str((build / "eigentrain").resolve()),
                                    EIGENTRAIN_MPIRUN=shlex.join(mpirun), EIGENTRAIN_PROGRESS="1")
    with open(scratch / "pytest.log", "w+b") as log:
        # Its standard error, where the lines go, is our standard output: they come in order, at once.
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=sys.stdout, cwd=TESTS.parent,
                                   env=environment, start_new_session=True)
        code = wait(process, PYTEST_TIMEOUT[everything])
        output = text_of(log)
    results = read_junit(report)
    failed = any(result.outcome == "failed" for result in results)
    if code not in (0, NO_TESTS_COLLECTED) and not failed:
        results.append(Result("pytest", "failed", 0.0, f"{output}[exit code {code}; None means no end in time]\n"))
        print_line(results[-1])
    return results


def read_junit(path):
    if not path.exists():
        return []
    results = {}
    for case in ElementTree.parse(path).iter("testcase"):
        name = f"{case.get('classname', '')}::{case.get('name')}".lstrip(":")
        bad = [child for child in case if child.tag in ("failure", "error")]
        outcome = "failed" if bad else "skipped" if case.find("skipped") is not None else "passed"
        result = Result(name, outcome, float(case.get("time", 0)), "\n".join(child.text or "" for child in bad))
        # A test that fails and then fails again in its teardown is there twice, and is one failure.
        if name not in results or outcome == "failed":
            results[name] = result
    return list(results.values())


# ---------------------------------------------------------------- what is said
def line_of(name, outcome, seconds):
    word = {"passed": "ok", "failed": "FAILED", "skipped": "skipped"}[outcome]
    return f"{word:<8}{seconds:7.1f} s  {name}"


def print_line(result):
    print(line_of(result.name, result.outcome, result.seconds), flush=True)


def conclude(results):
    """Prints the failures and the closing line; the exit code."""
    strict = os.environ.get("CI") == "true"
    failed = [result for result in results if result.outcome == "failed"]
    skipped = [result for result in results if result.outcome == "skipped"]
    passed = len(results) - len(failed) - len(skipped)
    for result in failed:
        print(f"\n---------------- {result.name}\n{result.output.rstrip()}")
    if strict and skipped:
        print("\nskipped, which counts as failed here (CI=true):", *(result.name for result in skipped), sep="\n    ")
        failed, skipped = failed + skipped, []
    print(f"{passed} passed, {len(failed)} failed" + (f", {len(skipped)} skipped" if skipped else ""), flush=True)
    return 1 if failed or not results else 0


def run_all(options, scratch):
    results = []
    lint = [functools.partial(run_lint, options.build)] if options.k in "lint" else []
    for result in side_by_side([*lint, *unit_tests(options.build, options.mpirun, options.k)]):
        print_line(result)
        results.append(result)
    return results + run_pytest(options.build, options.mpirun, options.k, options.all, scratch)


def main():
    parser = argparse.ArgumentParser(description="Runs all tests.")
    parser.add_argument("--build", type=Path, default=Path("build"))
    parser.add_argument("--mpirun", type=shlex.split, default=["mpirun", "--oversubscribe"])
    parser.add_argument("--all", action="store_true", help="the slow tests too")
    parser.add_argument("-k", metavar="WORD", default="", help="only tests with this word in their name")
    options = parser.parse_args()
    # A SIGTERM must pass through the cleaning up, too.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    # Open MPI keeps its sockets below TMPDIR, and the path of a socket must be short.
    scratch = Path(tempfile.mkdtemp(prefix="et-", dir="/tmp"))
    os.environ["TMPDIR"] = tempfile.tempdir = str(scratch)
    try:
        return conclude(run_all(options, scratch))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
