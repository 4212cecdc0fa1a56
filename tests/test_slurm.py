"""The job scripts and the program in a real Slurm (slurm.py): requeues, arrays, packed sweeps, scancel, launchers."""
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import time

import pytest

from conftest import ROOT
from same import assert_same
from slurm import ENDED, one_node_slurm, why_not

SCRIPTS = ROOT / "jobscripts"
ENVIRONMENT, DIVERGED, STOPPED = 3, 4, 85

# All that a checkpoint has to carry: optimizer, batches, warm starts, series. STEPS is for the fixture `steps`.
LONG = """\
data:  {kind: gaussian, features: 24, outputs: 8, train: 256}
model: {width: 48, depth: 4, activation: gelu}
train: {optimizer: adam, lr: 0.003, batch: 64, steps: STEPS}
probes:
  - {kind: spectrum, every: 500, rank: full}
  - {kind: subspace, every: 500, rank: 3}
snapshot: {every: end}
checkpoint: {every: 1000}
"""
LONG_SECONDS = 6
SHORT = """\
data:  {kind: gaussian, features: 6, outputs: 3, train: 12}
model: {width: 4, depth: 2}
train: {steps: 3}
"""
BAD_MEMBER = 3
SWEEP = """\
data:  {kind: gaussian, features: 24, outputs: 8, train: 256}
model: {width: 48, depth: 4}
train: {optimizer: sgd, lr: 0.01, batch: 64, steps: STEPS}
sweep: {train.lr: [0.01, 0.02, 1e9, 0.03]}
"""


@pytest.fixture(scope="module")
def slurm():
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with one_node_slurm() as running:
        yield running


@pytest.fixture(scope="module")
def steps(slurm, eigentrain, tmp_path_factory):
    """As many steps as LONG makes here in LONG_SECONDS: time enough to be interrupted, on fast and on slow machines."""
    folder, few = tmp_path_factory.mktemp("steps"), 500
    text = LONG.partition("probes:")[0].replace("STEPS", str(few))
    submit_in(folder, slurm, eigentrain, "run.sbatch", text, "out")
    slurm.wait_for(lambda: status(folder / "out")["state"] == "done", "no end of the first run")
    return max(few, int(LONG_SECONDS * few / status(folder / "out")["seconds"]))


@pytest.fixture(scope="module")
def long(steps):
    """The input of a run of some seconds."""
    return LONG.replace("STEPS", str(steps))


@pytest.fixture(scope="module")
def sweep(steps):
    """A sweep of four members, of which the third diverges. One rank alone makes its steps several times faster."""
    return SWEEP.replace("STEPS", str(2 * steps))


@pytest.fixture(scope="module")
def reference(slurm, eigentrain, long, tmp_path_factory):
    """The directory of the long run without an interruption."""
    folder = tmp_path_factory.mktemp("reference")
    assert slurm.wait(submit_in(folder, slurm, eigentrain, "run.sbatch", long, "out")) == "COMPLETED", output(folder)
    return folder / "out"


@pytest.fixture
def submit(slurm, eigentrain, tmp_path):
    """submit(script, input, dir, *sbatch_options, **edits): a job of one of our scripts, its site's lines edited."""
    def start(*args, **edits):
        return submit_in(tmp_path, slurm, eigentrain, *args, **edits)
    return start


def submit_in(folder, slurm, eigentrain, script, text, directory, *options, **edits):
    (folder / "input.yaml").write_text(text, encoding="utf-8")
    return slurm.submit(*options, edited(folder, script, **edits), "input.yaml", directory, cwd=folder,
                        EIGENTRAIN=str(eigentrain))


def edited(folder, script, **edits):
    """A copy of a job script with other values in the lines that a site edits."""
    text = (SCRIPTS / script).read_text(encoding="utf-8")
    for name, value in {"startup": 1, **edits}.items():
        text, count = re.subn(rf"^{name}=(\([^)]*\)|\S+)", f"{name}={value}", text, flags=re.M)
        assert count == 1, f"{script} has no line {name}="
    path = folder / script
    path.write_text(text, encoding="utf-8")
    return path


def output(folder):
    """What the jobs that were submitted in a folder have written."""
    return "\n".join(f"---- {path.name}\n{path.read_text(errors='replace')}" for path in sorted(folder.glob("*.out")))


def status(directory):
    try:
        return json.loads((directory / "status.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {"state": "waiting"}


def members(directory):
    """{name: row} of a sweep's table."""
    with open(directory / "members.csv", newline="", encoding="utf-8") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def wait_until_running(slurm, job, *directories):
    """Until the job is within its first steps in all of these directories."""
    def are_running():
        assert slurm.state(job) not in ENDED, output(directories[0].parent)
        return all(status(each)["state"] == "running" for each in directories)
    slurm.wait_for(are_running, f"{directories} do not run")
    time.sleep(0.3)


def stop(slurm, job):
    """What Slurm does some time before the limit, because of #SBATCH --signal=B:USR1@…"""
    if "_" not in job:
        slurm.command("scancel", "--signal=USR1", "--batch", job)
        return
    # For a task of an array scancel takes the signal that it has sent for lost, and sends it again later.
    lines = slurm.command("scontrol", "listpids", slurm.job(job)["JobId"]).splitlines()
    script = next(line.split()[0] for line in lines if line.split()[2:] == ["batch", "0", "0"])
    os.kill(int(script), signal.SIGUSR1)


def assert_same_run(directory, reference):
    """It is done, and metrics and the weights at the end are the same, bit for bit."""
    assert status(directory)["state"] == "done" and list(directory.glob("snapshots/*.h5"))
    assert_same(directory, reference)


# ---------------------------------------------------------------- one run
def test_goes_on_through_requeues(slurm, submit, long, reference, tmp_path):
    """A run that is stopped twice, each time soon after its start."""
    job = submit("run.sbatch", long, "out")
    for restart in range(2):
        slurm.wait_for(lambda: int(slurm.job(job)["Restarts"]) == restart, f"job {job} was not requeued")
        wait_until_running(slurm, job, tmp_path / "out")
        stop(slurm, job)
        slurm.wait_for(lambda: status(tmp_path / "out")["state"] != "running", f"job {job} does not stop")
    assert slurm.wait(job) == "COMPLETED", output(tmp_path)
    assert slurm.job(job)["Restarts"] == "2", output(tmp_path)
    assert_same_run(tmp_path / "out", reference)


def test_cancelled_is_not_requeued(slurm, submit, long, reference, tmp_path):
    job = submit("run.sbatch", long, "out")
    wait_until_running(slurm, job, tmp_path / "out")
    slurm.command("scancel", job)
    slurm.wait_for(lambda: slurm.command("squeue", "-h", "-j", job, check=False) == "", f"job {job} stays")
    assert slurm.state(job) == "CANCELLED" and slurm.job(job)["Restarts"] == "0", output(tmp_path)
    assert status(tmp_path / "out")["state"] != "done"
    assert slurm.wait(submit("run.sbatch", long, "out")) == "COMPLETED", output(tmp_path)
    assert_same_run(tmp_path / "out", reference)


def test_stop_file_is_not_requeued(slurm, submit, long, tmp_path):
    job = submit("run.sbatch", long, "out")
    wait_until_running(slurm, job, tmp_path / "out")
    (tmp_path / "out" / "stop").touch()
    assert (slurm.wait(job), slurm.exit_code(job)) == ("FAILED", STOPPED), output(tmp_path)
    assert status(tmp_path / "out")["state"] == "stopped" and "remove it and submit again" in output(tmp_path)


def test_chain(slurm, eigentrain, long, reference, tmp_path):
    """Three jobs: the first is stopped, the second finishes, the third finds nothing to do."""
    (tmp_path / "input.yaml").write_text(long, encoding="utf-8")
    edited(tmp_path, "run.sbatch")
    shutil.copy(SCRIPTS / "chain.sh", tmp_path)
    jobs = slurm.command(tmp_path / "chain.sh", "input.yaml", "out", 3, "--time=00:10:00", cwd=tmp_path,
                         EIGENTRAIN=str(eigentrain)).split()
    wait_until_running(slurm, jobs[0], tmp_path / "out")
    stop(slurm, jobs[0])
    ends = [(slurm.wait(job), slurm.exit_code(job)) for job in jobs]
    assert ends == [("FAILED", STOPPED), ("COMPLETED", 0), ("COMPLETED", 0)], output(tmp_path)
    assert_same_run(tmp_path / "out", reference)


@pytest.mark.parametrize("launcher", ["(srun --mpi=pmix)", "(mpirun)"])
def test_launchers(slurm, submit, tmp_path, launcher):
    job = submit("run.sbatch", SHORT, "out", launcher=launcher)
    assert slurm.wait(job) == "COMPLETED", output(tmp_path)
    assert status(tmp_path / "out")["ranks"] == 2 and status(tmp_path / "out")["job_id"] == job


def test_requeues_only_what_gets_further(slurm, submit, tmp_path):
    """Launchers that do nothing, or seem to make progress for ever, or fail."""
    progress = r"""(bash -c 'mkdir -p "$4" && echo "\"checkpoint\": $RANDOM" > "$4/status.json" && exit 85')"""
    jobs = {submit("run.sbatch", SHORT, f"out-{name}", launcher=launcher, restarts=1): end
            for name, launcher, end in (("stuck", "(bash -c 'exit 85')", (STOPPED, "0", "it got no further")),
                                        ("ever", progress, (STOPPED, "1", "this was restart 1 of 1")),
                                        ("silent", "(true)", (ENVIRONMENT, "0", "nothing is done")),
                                        ("crash", "(bash -c 'exit 70')", (70, "0", "ended with code 70")))}
    for job, (code, restarts, words) in jobs.items():
        assert slurm.wait(job) == "FAILED"
        said = (tmp_path / f"eigentrain-{job}.out").read_text(encoding="utf-8")
        assert (slurm.exit_code(job), slurm.job(job)["Restarts"]) == (code, restarts) and words in said, said


def test_refuses_tasks_that_do_not_know_of_each_other(slurm, eigentrain, tmp_path):
    """srun without PMIx; but mpirun on fewer ranks than tasks, or no launcher at all, is as legitimate as ever."""
    (tmp_path / "input.yaml").write_text(SHORT, encoding="utf-8")
    starts = {"srun -n 2 --mpi=none": ENVIRONMENT, "srun -n 2 --mpi=none env -u SLURM_STEP_ID": ENVIRONMENT,
              "srun -n 1 --mpi=none": 0, "srun -n 1 --mpi=pmix": 0, "mpirun -n 1": 0, "": 0}
    lines = [f"{start} {eigentrain} run input.yaml --out out-{i} > said-{i} 2>&1; echo $?"
             for i, start in enumerate(starts)]
    (tmp_path / "job.sh").write_text("\n".join(["#!/bin/bash", *lines, ""]), encoding="utf-8")
    assert slurm.wait(slurm.submit("-n", 2, "-o", "job.out", "job.sh", cwd=tmp_path)) == "COMPLETED"
    said = [(tmp_path / f"said-{i}").read_text(encoding="utf-8") for i in range(len(starts))]
    codes = map(int, (tmp_path / "job.out").read_text(encoding="utf-8").split())
    assert dict(zip(starts, codes)) == starts, "\n".join(said)
    for i, code in enumerate(starts.values()):
        assert said[i].count("srun --mpi=pmix") == (code == ENVIRONMENT), said[i]
        assert (tmp_path / f"out-{i}").exists() == (code == 0)


# ---------------------------------------------------------------- sweeps
def assert_sweep_complete(directory):
    """All members but the bad one are done, and the table says so."""
    rows = members(directory)
    states = {name: row["state"] for name, row in rows.items()}
    assert states == {"lr=0.01": "done", "lr=0.02": "done", "lr=1e9": "diverged", "lr=0.03": "done"}
    assert all(float(row["train/loss"]) < 1 for row in rows.values() if row["state"] == "done")
    assert "try a smaller train.lr" in rows["lr=1e9"]["reason"]


def test_array(slurm, submit, sweep, tmp_path):
    """One task a member; one member diverges, and one is stopped and requeued on its own."""
    job = submit("sweep-array.sbatch", sweep, "out", "--array=1-4", "--ntasks=1")
    wait_until_running(slurm, f"{job}_2", tmp_path / "out" / "lr=0.02")
    stop(slurm, f"{job}_2")
    ends = {task: (slurm.wait(f"{job}_{task}"), slurm.exit_code(f"{job}_{task}")) for task in range(1, 5)}
    assert ends.pop(BAD_MEMBER) == ("FAILED", DIVERGED), output(tmp_path)
    assert set(ends.values()) == {("COMPLETED", 0)}, output(tmp_path)
    restarts = [slurm.job(f"{job}_{task}")["Restarts"] for task in range(1, 5)]
    assert restarts == ["0", "1", "0", "0"], output(tmp_path)
    assert_sweep_complete(tmp_path / "out")


def test_packed(slurm, submit, sweep, tmp_path):
    """Two groups of one rank; both are stopped within their first members."""
    job = submit("sweep-pack.sbatch", sweep, "out")
    wait_until_running(slurm, job, tmp_path / "out" / "lr=0.01", tmp_path / "out" / "lr=0.02")
    stop(slurm, job)
    assert slurm.wait(job) == "COMPLETED", output(tmp_path)
    assert slurm.job(job)["Restarts"] == "1", output(tmp_path)
    assert_sweep_complete(tmp_path / "out")


# ---------------------------------------------------------------- Slurm's own clock
@pytest.mark.slow
@pytest.mark.parametrize("signal_option", ["B:USR1@60", "B:CONT@1"])
def test_time_limit(slurm, submit, steps, tmp_path, signal_option):
    """A limit of one minute for a longer run: with Slurm's signal, and with the program's own look at the clock."""
    job = submit("run.sbatch", LONG.replace("STEPS", str(100 * steps // LONG_SECONDS)), "out", "--time=1",
                 f"--signal={signal_option}")
    assert slurm.wait(job, timeout=1200) == "COMPLETED", output(tmp_path)
    assert int(slurm.job(job)["Restarts"]) > 0 and "TIME LIMIT" not in output(tmp_path), output(tmp_path)
    assert status(tmp_path / "out")["state"] == "done"


# ---------------------------------------------------------------- the scripts as texts
def test_common_part_is_the_same():
    """Each script is complete in one file; what they share must not drift apart."""
    parts = {path.read_text(encoding="utf-8").partition("# ---- From here on the same in ")[2]
             for path in SCRIPTS.glob("*.sbatch")}
    assert len(parts) == 1 and len(parts.pop()) > 1000


@pytest.mark.parametrize("script", sorted(path.name for path in SCRIPTS.iterdir() if path.suffix in (".sbatch", ".sh")))
def test_syntax(script):
    subprocess.run(["bash", "-n", str(SCRIPTS / script)], check=True)
