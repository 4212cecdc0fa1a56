"""make bench: our speed beside the limit of this machine and beside other programs, measured in one run.

Prints one table and writes build/bench.json: rows of study, metric, ours, limit, peer, ratio. A peer that is not installed is
named and left out. Nothing else should run on the machine meanwhile.
"""
import argparse
import json
import os
from pathlib import Path
import re
import shlex
import subprocess
import sys
import tempfile

import h5py
import numpy as np

from scaling import scaling
import studies

HERE = Path(__file__).resolve().parent
INPUTS = HERE.parent.parent / "inputs"
RANKS = 2
# Runs of some seconds that spend their time differently: name, input, changes.
PLANNED = (
    ("full batch, full spectra", INPUTS / "quickstart.yaml", ("train.steps=100",)),
    ("batches of 64", INPUTS / "quickstart.yaml",
     ("train.optimizer=sgd", "train.batch=64", "train.steps=2000", "train.evaluate_every=500")),
    ("width 1024, snapshots", HERE / "svd.yaml", ("train.steps=80", "snapshot.every=20")),
)

# Of the descent between the snapshots along which eigenpairs are tracked.
TRACKING_RATES = (0.01, 0.1)


class Bench:
    def __init__(self, build, mpirun, scratch):
        self.build, self.mpirun, self.scratch = build, shlex.split(mpirun), scratch
        self.rows = []
        self.kernel = None

    def row(self, study, metric, ours, limit=None, peer=None, ratio=None, demanded=None):
        self.rows.append({"study": study, "metric": metric, "ours": ours, "limit": limit, "peer": peer, "ratio": ratio,
                          "demanded": demanded})

    def ours(self, program, *arguments, ranks=RANKS, oversubscribe=False, threads=None):
        """What a program of ours prints; `ranks` None: without mpirun; `oversubscribe`: on more ranks than cores; `threads`: of
        BLAS, if not all there are."""
        folder = self.build if program == "eigentrain" else self.build / "tests"
        more = ["--oversubscribe"] if oversubscribe and "--oversubscribe" not in self.mpirun else []
        launch = [*self.mpirun, *more, "-n", str(ranks)] if ranks else []
        command = [*launch, str(folder / program), *map(str, arguments)]
        environment = {**os.environ, **({"OPENBLAS_NUM_THREADS": str(threads)} if threads else {})}
        return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, env=environment).stdout

    @staticmethod
    def say(text):
        say(text)

    def peer(self, script, *arguments, fast=True):
        """A peer's answer, with the BLAS kernel that we use or with the one that it takes by itself; None if it can't run."""
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": str(RANKS), "OMP_NUM_THREADS": str(RANKS)}
        environment.pop("OPENBLAS_CORETYPE", None)
        if fast:
            environment["OPENBLAS_CORETYPE"] = self.kernel
        done = subprocess.run([sys.executable, HERE / script, *map(str, arguments)], env=environment, text=True,
                              capture_output=True)
        if done.returncode == 0:
            return json.loads(done.stdout)
        lines = done.stderr.strip().splitlines()
        print(f"left out: {script}: {lines[-1] if lines else 'failed'}")
        return None


def say(text):
    print(text, flush=True)


def read_kernel(bench):
    for line in bench.ours("eigentrain", "info").splitlines():
        if line.startswith("blas kernel "):
            return line.removeprefix("blas kernel ").strip()
    raise SystemExit("eigentrain info does not name the BLAS kernel")


def training_steps(bench):
    for width, demanded in ((1024, 0.85), (2048, 0.90)):
        say(f"training step, width {width} …")
        training_step(bench, width, demanded)


def training_step(bench, width, demanded):
    """Rates in GFLOP/s of a GELU step, depth 4, width = batch."""
    study = f"training step, width {width}"
    ours = json.loads(bench.ours("bench_step", width))
    bench.row(study, "GFLOP/s beside two local DGEMMs of the same shapes", ours["gflops"], limit=ours["local_gflops"],
              ratio=ours["ratio"], demanded=f">= {demanded}")
    for fast, name, least in ((True, "PyTorch, same BLAS kernel", 1.25), (False, "PyTorch as it comes", 2.5)):
        peer = bench.peer("peer_torch.py", width, 9 if fast else 3, fast=fast)
        if peer:
            bench.row(study, f"seconds a step beside {name} ({peer['kernel']})", ours["step_seconds"],
                      peer=peer["step_seconds"], ratio=peer["step_seconds"] / ours["step_seconds"], demanded=f">= {least}")
    grown, count = ours["peak"] - ours["peak_before"], ours["count"]
    bench.row(study, "MiB a rank: weights, gradient, data, activations, by count", grown / 2**20, limit=count / 2**20,
              ratio=grown / count, demanded="<= 1.2")


def singular_values(bench, rank=20, tolerance=1e-10):
    run = bench.scratch / "svd"
    say("training a network for the singular values …")
    bench.ours("eigentrain", "run", HERE / "svd.yaml", "--out", run, "--quiet")
    snapshot = {step: run / f"snapshots/step_{step:09d}.h5" for step in (1000, 2000, 2001)}
    study = f"{rank} leading triplets of a trained 1024 x 1024 layer at {tolerance:g}"
    end = json.loads(bench.ours("bench_svd", snapshot[2000], snapshot[2001], "W2", rank, tolerance))
    for exact, name in ((True, f"SciPy svds, tol = {tolerance:g}"), (False, "SciPy svds, fastest with such a residual")):
        peer = bench.peer("peer_svds.py", snapshot[2001], "W2", rank, tolerance, *(["exact"] if exact else []))
        if peer:
            bench.row(study, f"seconds beside {name} ({end['cold_products']} products against {peer['products']})",
                      end["cold_seconds"], peer=peer["seconds"], ratio=peer["seconds"] / end["cold_seconds"],
                      demanded=">= 1.0" if exact else None)
    bench.row(study, "products, warm start from the step before, against cold", end["warm_products"],
              peer=end["cold_products"], ratio=end["cold_products"] / end["warm_products"], demanded=">= 2.0")
    apart = json.loads(bench.ours("bench_svd", snapshot[1000], snapshot[2000], "W2", rank, tolerance))
    bench.row(study, "products, warm start from 1000 steps before, against cold", apart["warm_products"],
              peer=apart["cold_products"], ratio=apart["cold_products"] / apart["warm_products"])


def twin_steps(bench):
    """Seconds a step of the twin and of the network beside it, in one run; and the steps."""
    run = bench.scratch / "twin"
    bench.ours("eigentrain", "run", HERE / "twin.yaml", "--out", run, "--overwrite", "--quiet")
    with h5py.File(run / "metrics.h5") as file:
        steps = file["timing/twin_steps"][0]
        return file["timing/twin_seconds"][0] / steps, file["timing/network_seconds"][0] / steps, steps


def twins(bench):
    """A step of a large linear network beside its compressed twin's: of three turns that with the ratio in the middle."""
    say("a deep linear network and its compressed twin …")
    study = "deep linear network, d = 1000, L = 3, target of rank 10"
    turns = sorted((twin_steps(bench) for _ in range(3)), key=lambda turn: turn[1] / turn[0])
    bench.row(study, "seconds a step of the compressed twin beside the network's", turns[1][0], peer=turns[1][1],
              ratio=turns[1][1] / turns[1][0], demanded=">= 10 (paper)")
    beside_numpy(bench, study)
    probe_cost(bench, study, "invariant")


def network_step(bench, ranks, steps):
    """Seconds a step of that network alone."""
    run = bench.scratch / "network"
    bench.ours("eigentrain", "run", HERE / "twin.yaml", "--set", "twins=[]", "--set", f"train.steps={steps}", "--out", run,
               "--overwrite", "--quiet", ranks=ranks)
    with h5py.File(run / "metrics.h5") as file:
        seconds = dict(zip(file["timing/name"].asstr()[()], file["timing/seconds"][()]))
    return seconds["gradient"] / (steps + 1) + seconds["update"] / steps


def beside_numpy(bench, study, turns=21, steps=15):
    """A step of the same network beside the same step in NumPy, by turns: as NumPy has it, in one process with all cores as
    threads, and on one rank a core, which send what NumPy finds in its own memory. The ratios are those in the middle."""
    rounds = []
    for _ in range(turns):
        peer = bench.peer("peer_dln.py", 1000, steps + 1)
        if not peer:
            return
        rounds.append((network_step(bench, None, steps), network_step(bench, RANKS, steps), peer["step_seconds"]))
    ways = (f"in one process, {RANKS} threads", ">= 1.0"), (f"on {RANKS} ranks", None)
    for way, (name, demanded) in enumerate(ways):
        turn = sorted(rounds, key=lambda seconds: seconds[2] / seconds[way])[turns // 2]
        bench.row(study, f"seconds a step of the network {name}, beside NumPy's with {RANKS} ({peer['kernel']})", turn[way],
                  peer=turn[2], ratio=turn[2] / turn[way], demanded=demanded)


def probe_cost(bench, study, name):
    """A measurement of a probe beside a step of training in the same run."""
    run = bench.scratch / name
    bench.ours("eigentrain", "run", HERE / f"{name}.yaml", "--out", run, "--quiet")
    with h5py.File(run / "metrics.h5") as file:
        seconds = dict(zip(file["timing/name"].asstr()[()], file["timing/seconds"][()]))
        gradients, measured = len(file["train/step"]), len(file[f"{name}/step"])
    probe, step = seconds["probes"] / measured, seconds["gradient"] / gradients + seconds["update"] / (gradients - 1)
    bench.row(study, f"seconds a measurement of the probe {name}, beside a step", probe, limit=step, ratio=probe / step,
              demanded="< 2")


def laws(bench):
    """The probe of conservation laws, and the reduced dynamics beside a large linear network."""
    say("the probe balance …")
    probe_cost(bench, "ReLU network 784-1024-1024-1024-10, 4096 images", "balance")
    say("a deep linear network and its reduced dynamics …")
    write_balanced(bench.scratch / "balanced.h5", 1000, 10, 3)
    for optimizer, demanded in (("gradient_flow", "< 0.1"), ("gd", None)):
        run = bench.scratch / f"intrinsic-{optimizer}"
        bench.ours("eigentrain", "run", HERE / "intrinsic.yaml", "--set", f"data.file={bench.scratch}/balanced.h5", "--set",
                   f"model.init.file={bench.scratch}/balanced.h5", "--set", f"train.optimizer={optimizer}", "--out", run, "--quiet")
        with h5py.File(run / "metrics.h5") as file:
            twin, network = file["timing/twin_seconds"][0], file["timing/network_seconds"][0]
        bench.row("deep linear network, d = 1000, L = 3, balanced start of rank 10",
                  f"seconds of the twin intrinsic beside the network's, {optimizer}", twin, limit=network, ratio=twin / network,
                  demanded=demanded)


def write_balanced(path, d, rank, depth):
    """Layers Q_k diag(s) Q_{k-1}^T of that rank, and a target of the same rank."""
    generator = np.random.default_rng(1)
    Q = [np.linalg.qr(generator.standard_normal((d, rank)))[0] for _ in range(depth + 1)]
    s = np.linspace(1, 0.1, rank)
    with h5py.File(path, "w") as file:
        for k in range(depth):
            file[f"W{k + 1}"] = (Q[k + 1] * s) @ Q[k].T
        file["Y"] = (Q[depth] * np.linspace(2, 1, rank)) @ Q[0].T


def hessian(bench):
    """Hessian products and eigenpairs beside PyTorch with SciPy, on the same weights; short turns are taken thrice."""
    for width, turns, demanded in ((256, 3, 1.4), (1024, 1, 2.5)):
        study = f"Hessian of 784-{width}-{width}-10, 2000 images, 10 pairs at 1e-8"
        say(f"{study} …")
        run = bench.scratch / f"hessian-{width}"
        bench.ours("eigentrain", "run", HERE / "hessian.yaml", "--set", f"model.widths=[784, {width}, {width}, 10]",
                   "--out", run, "--quiet")
        start = run / "snapshots" / "step_000000100.h5"
        pairs = [(json.loads(bench.ours("bench_hessian", width, start)), bench.peer("peer_hessian.py", start, 10, 1e-8))
                 for _ in range(turns)]
        hessian_rows(bench, study, pairs, demanded)
        if pairs[0][1]:
            power_row(bench, study, middle(pairs, "solve_seconds")[0],
                      bench.peer("peer_hessian.py", start, 10, 1e-3, "power"))
        if width == 256:
            tracking_rows(bench, study, start)


def middle(pairs, key):
    """Of pairs of ours and a peer's the one whose ratio is in the middle."""
    return sorted(pairs, key=lambda pair: pair[1][key] / pair[0][key])[len(pairs) // 2]


def hessian_rows(bench, study, pairs, demanded):
    ours, peer = sorted(pairs, key=lambda pair: pair[0]["ratio"])[len(pairs) // 2]
    bench.row(study, "seconds of a product, beside a gradient", ours["product_seconds"],
              limit=ours["gradient_seconds"], ratio=ours["ratio"], demanded="<= 1.9")
    vectors = (ours["basis"] + 4) * ours["vector_bytes"]
    bench.row(study, "MiB a rank of a solve with its results, and (basis + 4) vectors", ours["solve_bytes"] / 2**20,
              limit=vectors / 2**20, ratio=ours["solve_bytes"] / vectors, demanded="<= 1.2")
    assert all(run["residual"] <= 1e-8 for run, _ in pairs), pairs
    if not peer:
        return
    assert abs(ours["lambda_10"] - peer["lambda_10"]) < 1e-6 * ours["lambda_1"], (ours, peer)
    ours, peer = middle(pairs, "product_seconds")
    bench.row(study, f"seconds of a product, beside PyTorch's double backward ({peer['kernel']})",
              ours["product_seconds"], peer=peer["product_seconds"], ratio=peer["product_seconds"] / ours["product_seconds"], demanded=">= 1.0")
    ours, peer = middle(pairs, "solve_seconds")
    bench.row(study, f"seconds of a solve beside SciPy eigsh ({ours['products']} products against {peer['products']})",
              ours["solve_seconds"], peer=peer["solve_seconds"], ratio=peer["solve_seconds"] / ours["solve_seconds"],
              demanded=f">= {demanded}")


def power_row(bench, study, ours, peer):
    bench.row(study, f"the same beside power iteration at 1e-3 ({peer['products']} products)", ours["solve_seconds"],
              peer=peer["solve_seconds"], ratio=peer["solve_seconds"] / ours["solve_seconds"], demanded=">= 4.0")


def tracking_rows(bench, study, start):
    """At a rate of smooth training, and at that of hessian.yaml, past the edge of stability (2/0.1 < lambda_1)."""
    for rate in TRACKING_RATES:
        ours = json.loads(bench.ours("bench_hessian", 256, start, rate))
        assert ours["apart"] < 1e-6, ours
        bench.row(study, f"products of solves tracked through 10 snapshots, beside cold ones (rate {rate})",
                  ours["tracked_products"], limit=ours["cold_products"],
                  ratio=ours["cold_products"] / ours["tracked_products"], demanded=">= 2.0")


def training(bench, name, *changes):
    """A training step of an input beside local DGEMMs of its shapes."""
    return json.loads(bench.ours("bench_train", HERE / name, *changes).splitlines()[-1])


def low_rank(bench):
    """A step of a low-rank network of inner width 2K, and of 4K, beside the full one's; each with its fastest microbatch."""
    for rank, demanded in ((20, ">= 0.5"), (40, None)):
        low_rank_rows(bench, rank, demanded)


def low_rank_rows(bench, rank, demanded, turns=3):
    """By turns; the ratio is that in the middle."""
    study = f"low-rank network, inner width {rank}, beside 784-1024-1024-1024-10, 8192 images"
    say(f"{study} …")
    full_network, small_network = ("model.subspace=none", "train.microbatch=4096"), (f"model.rank={rank}",)
    pairs = [[training(bench, "low_rank.yaml", *changes) for changes in (full_network, small_network)] for _ in range(turns)]
    full, small = sorted(pairs, key=lambda pair: pair[0]["step_seconds"] / pair[1]["step_seconds"])[turns // 2]
    flops, time = (full[key] / small[key] for key in ("flops", "step_seconds"))
    limit = flops * small["local_gflops"] / full["local_gflops"]  # both at the speed of local DGEMMs of their shapes
    bench.row(study, "GFLOP a step beside the full network's", small["flops"] / 1e9, peer=full["flops"] / 1e9, ratio=flops)
    bench.row(study, "seconds a step beside the full network's", small["step_seconds"], peer=full["step_seconds"], ratio=time)
    bench.row(study, "ratio of the times beside that of local DGEMMs of the same shapes", time, limit=limit, ratio=time / limit)
    bench.row(study, "ratio of the times beside that of the flops", time, limit=flops, ratio=time / flops, demanded=demanded)


def full_batch(bench):
    """A step on all images of Fashion-MNIST: its rate, and that memory is bounded by the chunk and not by the images."""
    study = "full-batch step, 784-1024-1024-10, 60000 images"
    say(f"{study} …")
    ours = training(bench, "full_batch.yaml")
    bench.row(study, f"GFLOP/s beside two local DGEMMs of the same shapes, {ours['columns']} images at a time", ours["gflops"],
              limit=ours["local_gflops"], ratio=ours["ratio"], demanded=">= 0.80")
    grown, count = ours["peak"] - ours["peak_before"], ours["count"]
    bench.row(study, "MiB a rank: weights, gradient, data, activations of a chunk, by count", grown / 2**20, limit=count / 2**20,
              ratio=grown / count, demanded="<= 1.2")


def predicted(bench, ranks, *arguments):
    """Seconds and MiB that `plan` says."""
    text = bench.ours("eigentrain", "plan", *arguments, ranks=ranks)
    amount, unit = re.search(r"largest share: ([\d.]+) (MiB|GiB)", text).groups()
    return float(re.search(r"predicted time: ([\d.e+-]+) s", text)[1]), float(amount) * {"MiB": 1, "GiB": 1024}[unit]


def taken(bench, ranks, *arguments):
    """Seconds and MiB that the run took."""
    run = bench.scratch / "planned"
    bench.ours("eigentrain", "run", *arguments, "--out", run, "--overwrite", "--quiet", ranks=ranks)
    with h5py.File(run / "metrics.h5") as file:
        return float(file["timing/seconds"][()].sum()), file["timing"].attrs["peak_memory_bytes"] / 2**20


def plan(bench):
    """What `plan` predicts beside what the run takes, alternating; of three pairs the one with the ratio in the middle."""
    for name, path, changes in PLANNED:
        arguments = [path, *(word for change in changes for word in ("--set", change))]
        for ranks in (1, RANKS):
            say(f"plan beside run: {name}, {ranks} rank{'s' if ranks > 1 else ''} …")
            pairs = [(predicted(bench, ranks, *arguments), taken(bench, ranks, *arguments)) for _ in range(3)]
            for i, unit, demanded in ((0, "seconds", "0.7 to 1.3"), (1, "MiB", "0.9 to 1.1")):
                said, was = sorted(((said[i], was[i]) for said, was in pairs), key=lambda pair: pair[0] / pair[1])[1]
                bench.row("plan", f"{unit} predicted beside measured: {name}, ranks: {ranks}", said, limit=was,
                          ratio=said / was, demanded=demanded)


def table(rows):
    def number(value):
        return "" if value is None else f"{value:.4g}"

    head = ("study", "metric", "ours", "limit", "peer", "ratio", "demanded")
    lines = [head] + [(r["study"], r["metric"], *(number(r[k]) for k in ("ours", "limit", "peer", "ratio")),
                       r["demanded"] or "") for r in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip())


STUDIES = {"step": training_steps, "svd": singular_values, "twins": twins, "hessian": hessian, "laws": laws, "low_rank": low_rank,
           "full_batch": full_batch, "overhead": studies.overhead, "grids": studies.grids, "messages": studies.messages,
           "scaling": scaling, "plan": plan, "large": studies.large}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path, default=Path("build"))
    parser.add_argument("--mpirun", default="mpirun --oversubscribe")
    parser.add_argument("--studies", nargs="*", choices=STUDIES, default=[], help="only these")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="et-") as scratch:
        bench = Bench(arguments.build.resolve(), arguments.mpirun, Path(scratch))
        bench.kernel = read_kernel(bench)
        say(f"BLAS kernel {bench.kernel}, {RANKS} ranks")
        path = arguments.build / "bench.json"
        for study in arguments.studies or STUDIES:
            STUDIES[study](bench)
            path.write_text(json.dumps(bench.rows, indent=1) + "\n")  # stays if a later study fails
    table(bench.rows)
    print(f"written: {path}")


if __name__ == "__main__":
    main()
