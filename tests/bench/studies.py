"""Studies of make bench about scale: messages, overhead of small networks, shapes of the grid, a large run."""
import json
from pathlib import Path
import re

import h5py

HERE = Path(__file__).resolve().parent
INPUTS = HERE.parent.parent / "inputs"

# Inputs whose messages are counted: name, changes to the quickstart.
COUNTED = (("784-256-256-256-10, full batch", ()),
           ("784-1024-1024-1024-10, full batch", ("model.width=1024",)),
           ("784-512-512-512-10, batches of 256", ("model.width=512", "train.optimizer=sgd", "train.batch=256")))
COUNTED_ON = (1, 2, 4, 6, 9, 16, 36)


def relation(part, whole):
    return part / whole if whole else float(part == whole)


def messages(bench):
    """What a rank receives in a step, counted call by call, beside what `plan` says."""
    for name, changes in COUNTED:
        for ranks in COUNTED_ON:
            bench.say(f"messages of a step: {name}, ranks: {ranks} …")
            counted = json.loads(bench.ours("bench_messages", INPUTS / "quickstart.yaml", *changes, ranks=ranks, oversubscribe=True))
            for what, unit in (("messages", 1), ("bytes", 2**20)):
                bench.row("messages", f"{'MiB' if unit > 1 else what} received in a step by plan's model, beside counted: {name}, "
                          f"ranks: {ranks} as {counted['grid']}", counted[f"modelled_{what}"] / unit, limit=counted[what] / unit,
                          ratio=relation(counted[f"modelled_{what}"], counted[what]), demanded="0.8 to 1.2")


def overhead(bench):
    """A step of a small network on one rank beside the same arithmetic in plain BLAS and loops."""
    for width in (64, 128, 256):
        bench.say(f"overhead of a step, width {width} …")
        ours = json.loads(bench.ours("bench_overhead", width, ranks=1))
        bench.row(f"small network, width {width}, one rank", "microseconds a step beside plain BLAS and loops",
                  1e6 * ours["step_seconds"], limit=1e6 * ours["plain_seconds"], ratio=ours["ratio"], demanded="<= 1.3")


GRIDS = (("784-256-256-256-10, 2000 images", ()),
         ("784-1024-1024-1024-10, 1000 images", ("model.width=1024", "data.train=1000")))


def grids(bench):
    """The grid and block that `auto` chooses, beside all shapes and blocks, by turns."""
    for name, changes in GRIDS:
        for ranks in (1, 2, 4):
            bench.say(f"grids: {name}, ranks: {ranks} …")
            found = json.loads(bench.ours("bench_grids", INPUTS / "quickstart.yaml", *changes, ranks=ranks, oversubscribe=True))
            bench.row("grids", f"ms a step of auto, {found['auto']}, beside the best of all, {found['best']}: {name}, ranks: {ranks}",
                      1e3 * found["auto_seconds"], limit=1e3 * found["best_seconds"], ratio=found["ratio"], demanded="<= 1.1")


def large(bench):
    """The largest run of two cores and 24 GiB: its memory beside what `plan` says."""
    arguments = [HERE / "large.yaml"]
    bench.say("width 16384, depth 2, one step and 10 singular triplets …")
    text = bench.ours("eigentrain", "plan", *arguments)
    amount, unit = re.search(r"largest share: ([\d.]+) (MiB|GiB)", text).groups()
    said = float(amount) * {"MiB": 1 / 1024, "GiB": 1}[unit]
    run = bench.scratch / "large"
    bench.ours("eigentrain", "run", *arguments, "--out", run, "--quiet")
    with h5py.File(run / "metrics.h5") as file:
        was, seconds = file["timing"].attrs["peak_memory_bytes"] / 2**30, float(file["timing/seconds"][()].sum())
    study = "width 16384, depth 2, one step and 10 singular triplets"
    bench.row(study, "GiB of a rank predicted beside measured", said, limit=was, ratio=said / was, demanded="0.9 to 1.1")
    predicted = float(re.search(r"predicted time: ([\d.]+) s", text).group(1))
    bench.row(study, "seconds of the run predicted beside measured", predicted, limit=seconds, ratio=predicted / seconds)
