"""A Slurm of one node for the tests: needs root and the packages slurm-wlm and munge, but no systemd.

    with one_node_slurm() as slurm:
        job = slurm.submit("run.sbatch", "input.yaml", "out", cwd=folder)
        assert slurm.wait(job) == "COMPLETED"

Everything that it needs or writes lies in a scratch folder, and its ports are free ones: a Slurm that belongs to the
machine is not disturbed. The daemons are children of a keeper (this file, run as a program), and so are all processes
of all jobs, since the keeper adopts orphans. It ends them all and removes the folder when its standard input closes:
however the tests end, nothing is left.
"""
from contextlib import contextmanager
import ctypes
import os
from pathlib import Path
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from run import child_environment, descendants, execute, send

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "scontrol", "sinfo", "squeue")
START_TIMEOUT = 60  # seconds until the node takes jobs
MUNGE_TIMEOUT = 10  # seconds until munged listens; then the others say what they lack
COMMAND_TIMEOUT = 30  # seconds for sbatch, squeue, …
PR_SET_CHILD_SUBREAPER = 36
DAEMON_ENDED = "ended.log"  # in the scratch folder: a daemon has ended that should not have
ENDED = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT"}

# cred_expire: a requeued job has to wait until its old credential has expired. config_overrides: the node has as many
# CPUs as is said here, so that the tests see the same everywhere. TmpFS: PMIx leaves folders there that are named by
# the number of the job, and a later Slurm begins at 1 again. Accounting, cgroups and mail are off.
CONFIG = """\
ClusterName=eigentrain
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire={cred_expire}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0
MpiDefault=pmix
MailProg=/bin/true
ReturnToService=2
JobRequeue=1
OverTimeLimit=0
KillWait={kill_wait}
MinJobAge=3600
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
TmpFS={folder}/tmp
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def why_not():
    """Why no Slurm can be started here, or None."""
    missing = [program for program in PROGRAMS if not which(program)]
    if missing:
        return f"no {', '.join(missing)} (packages slurm-wlm and munge)"
    return None if os.geteuid() == 0 else "only root can start a Slurm"


def which(program):
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def outside_of_jobs():
    """The environment without what it says about a job of another Slurm, in which the tests may run."""
    return {name: value for name, value in child_environment().items()
            if not name.startswith(("SLURM", "SBATCH", "SRUN", "PMI"))}


class SlurmFailed(Exception):
    """The Slurm did not start or did not answer; the text holds the ends of its logs."""


@contextmanager
def one_node_slurm(cpus=2, cred_expire=5, kill_wait=4):
    """Starts it, gives the `Slurm`, and stops it."""
    # The path of a socket must be short.
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir=None if len(tempfile.gettempdir()) < 60 else "/tmp"))
    configure(folder, cpus, cred_expire, kill_wait)
    keeper = subprocess.Popen([sys.executable, __file__, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                              env={**outside_of_jobs(), "SLURM_CONF": str(folder / "slurm.conf")},
                              start_new_session=True)
    slurm = Slurm(folder)
    try:
        slurm.wait_until_ready()
        yield slurm
    finally:
        keeper.stdin.close()
        keeper.wait()


def configure(folder, cpus, cred_expire, kill_wait):
    for name in "state", "spool", "tmp":
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    controller_port, node_port = free_ports(2)
    (folder / "slurm.conf").write_text(CONFIG.format(
        host=socket.gethostname().partition(".")[0], folder=folder, controller_port=controller_port,
        node_port=node_port, cpus=cpus, cred_expire=cred_expire, kill_wait=kill_wait), encoding="utf-8")
    # Nothing here uses cgroups, but slurmd looks for them unless it is told which kind it would be.
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n", encoding="utf-8")


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


class Slurm:
    """A running Slurm; jobs are named by their number as text, tasks of an array like `12_3`."""

    def __init__(self, folder):
        self.folder = folder
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf"),
                            # As many ranks as a test wants, wherever there is time for them; who waits gives way.
                            "OMPI_MCA_rmaps_base_oversubscribe": "1", "OMPI_MCA_hwloc_base_binding_policy": "none",
                            "OMPI_MCA_mpi_yield_when_idle": "1"}

    def logs(self, lines=20):
        """The ends of what the daemons wrote."""
        text = ""
        early = (path for path in self.folder.glob("*.output") if not path.with_suffix(".log").exists())
        for path in sorted([*self.folder.glob("*.log"), *early]):
            end = path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
            text += "\n".join([f"---- {path.name}", *end, ""])
        return text

    def wait_until_ready(self):
        self.wait_for(lambda: self.command("sinfo", "-h", "-o", "%T", check=False).strip() == "idle",
                      "Slurm was not ready", START_TIMEOUT)

    def command(self, *words, check=True, cwd=None, **environment):
        """The standard output of a command of Slurm."""
        done = execute([which(words[0]) or words[0], *map(str, words[1:])], COMMAND_TIMEOUT, cwd=cwd,
                       env={**outside_of_jobs(), **self.environment, **environment})
        if check and done.returncode != 0:
            raise SlurmFailed(f"{' '.join(map(str, words))}: exit code {done.returncode}\n"
                              f"{done.stdout}{done.stderr}{self.logs()}")
        return done.stdout

    def submit(self, *words, cwd, **environment):
        """sbatch with these options, script and arguments; the job's number."""
        return self.command("sbatch", "--parsable", *words, cwd=cwd, **environment).strip().partition(";")[0]

    def job(self, job):
        """{name: value} of one job, as scontrol tells."""
        text = self.command("scontrol", "show", "job", "-o", job)
        return dict(word.split("=", 1) for word in text.split() if "=" in word)

    def state(self, job):
        return self.job(job)["JobState"]

    def exit_code(self, job):
        """Exit code of a batch script that ended by itself."""
        return int(self.job(job)["ExitCode"].partition(":")[0])

    def wait(self, job, timeout=120):
        """The state in which it ended, or a failure that shows where it stands."""
        self.wait_for(lambda: self.state(job) in ENDED, f"job {job} has not ended", timeout)
        return self.state(job)

    def wait_for(self, condition, otherwise, timeout=60):
        end = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > end or (self.folder / DAEMON_ENDED).exists():
                queue = self.command("squeue", "-o", "%i %T %r %M %S", check=False)
                raise SlurmFailed(f"{otherwise} (waited up to {timeout} s)\n{queue}{self.logs()}")
            time.sleep(0.2)


# ---------------------------------------------------------------- the keeper
def keep(folder):
    """Starts the daemons, lets them live until standard input closes, and ends everything."""
    if ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        sys.exit("this kernel cannot adopt orphans (prctl PR_SET_CHILD_SUBREAPER)")
    for number in signal.SIGTERM, signal.SIGINT, signal.SIGHUP:
        signal.signal(number, lambda *_: sys.exit())
    try:
        daemons = start_daemons(folder)
        while not select.select([sys.stdin], [], [], 0.2)[0]:
            for pid in daemons.keys() & reaped():
                with open(folder / DAEMON_ENDED, "a", encoding="utf-8") as file:
                    file.write(f"{daemons[pid]} has ended\n")
    finally:
        for number in signal.SIGTERM, signal.SIGINT, signal.SIGHUP:
            signal.signal(number, signal.SIG_IGN)
        end_all()
        shutil.rmtree(folder, ignore_errors=True)


def start_daemons(folder):
    """{process id: name}. munged runs as root, which it does not like (--force), so that no other user is needed."""
    munge = [which("munged"), "--foreground", "--force", "--origin=127.0.0.1", f"--key-file={folder}/munge.key",
             f"--socket={folder}/munge.socket", f"--pid-file={folder}/munge.pid", f"--seed-file={folder}/munge.seed"]
    daemons = {start(munge, folder / "munged.log"): "munged"}
    end = time.monotonic() + MUNGE_TIMEOUT
    while not (folder / "munge.socket").exists() and time.monotonic() < end:
        time.sleep(0.02)
    for name in "slurmctld", "slurmd":
        daemons[start([which(name), "-D"], folder / f"{name}.output")] = name
    return daemons


def start(command, log):
    """The process id. No Popen: it would reap its child itself, out of sight of `reaped`."""
    files = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
             (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT, 0o600), (os.POSIX_SPAWN_DUP2, 1, 2)]
    return os.posix_spawn(command[0], command, os.environ, file_actions=files)


def reaped():
    """Process ids of the children that have ended since the last call."""
    ended = set()
    try:
        while (pid := os.waitpid(-1, os.WNOHANG)[0]) != 0:
            ended.add(pid)
    except ChildProcessError:
        pass
    return ended


def end_all():
    while family := descendants(os.getpid()):
        send(signal.SIGKILL, family)
        reaped()
        time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(keep(Path(sys.argv[1])))
