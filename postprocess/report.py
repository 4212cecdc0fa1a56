#!/usr/bin/env python3
"""One page about a run or a sweep, DIR/report.html: report.py DIR… [--keep-figures]

It holds the figures (drawn anew into DIR/figures unless --keep-figures), the theory checks, published values beside ours, times,
parameters and provenance, and needs no network. A run that has not ended, or that failed, has one, too. Exit code 2 if a
directory has nothing to report.
"""
import argparse
from pathlib import Path
import sys

import numpy as np

from collect import collect, compared_sweep
import page
from plot import draw_run
from published import compared_run
from quantities import quantities
from runs import for_each, open_run
from style import STYLE, describe_network, plt
from sweeps import open_sweep, runs_of

LOG_LINES = 60


# ---------------------------------------------------------------- a run
def run_page(directory, draw):
    run = open_run(directory)
    if draw:
        with plt.rc_context(STYLE):
            draw_run(run)
    provenance = run.groups["provenance"].attributes if "provenance" in run.groups else {}
    return {"kind": "run", "name": run.name, "about": f"{describe_network(run)}. {question(run.input)}".strip(),
            "state": state_of(run), "good": run.status.get("state", "done") in ("done", "running", "stopped"),
            "facts": facts(run, provenance), "checks": page.check_rows(run.name, run),
            "rows": [page.compared_row(run.name, row) for row in compared_run(run)], "members": [],
            "pictures": pictures(run.path), "times": times(run), "command": command(run, "run"), "input": run.input,
            "resolved": text_of(run.path / "resolved.yaml"), "log": tail(run.path / "run.log"),
            "provenance": [(key, value) for key, value in provenance.items() if key not in ("input", "resolved")]}


def question(text):
    """The first words of an input's opening comment: studies say there what they ask."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#") or not line.strip("# "):
            break
        lines.append(line.lstrip("# ").strip())
    return " ".join(lines)


def state_of(run):
    state = run.status.get("state", "unknown")
    words = [f"State: {state}"]
    if "step" in run.status:
        words.append(f"step {run.status['step']} of {run.status.get('steps', '?')}")
    if run.status.get("seconds") is not None:
        words.append(f"{run.status['seconds']:.3g} s")
    if run.status.get("reason"):
        words.append(str(run.status["reason"]))
    return ", ".join(words)


def facts(run, provenance):
    """What a reader asks first."""
    keys = (("network", describe_network(run)), ("loss", run.setting("loss.kind")),
            ("training", " ".join(filter(None, [run.setting("train.optimizer"), f"η = {run.setting('train.lr')}",
                                                f"batch {run.setting('train.batch')}" if run.setting("train.batch") else ""]))),
            ("seed", run.setting("run.seed")),
            ("machine", ", ".join(f"{provenance[key]} {key}" for key in ("ranks", "host") if key in provenance)),
            ("code", " ".join(str(provenance[key]) for key in ("version", "git") if key in provenance)),
            ("started", provenance.get("start")))
    return [(key, value) for key, value in keys if value]


def times(run):
    group = run.groups.get("timing")
    if group is None or "seconds" not in group or not np.sum(group["seconds"]):
        return []
    total = np.sum(group["seconds"])
    return [(name, f"{seconds:.2f}", f"{seconds / total:.0%}") for name, seconds in zip(group["name"], group["seconds"])]


def command(directory, verb):
    path = directory.path
    return f"mpirun -n 2 eigentrain {verb} {path / 'input.yaml'} --out NEW\npython3 postprocess/report.py NEW"


# ---------------------------------------------------------------- a sweep
def sweep_page(directory, draw):
    sweep = open_sweep(directory)
    runs = runs_of(sweep)
    if draw and sweep.done():
        with plt.rc_context(STYLE):
            compared = collect(directory)
    else:
        compared = compared_sweep(sweep, runs, quantities(sweep, runs, None)) if sweep.done() else []
    text = text_of(sweep.path / "input.yaml") or next((run.input for run in runs if run), "")
    name = sweep.name
    return {"kind": "sweep", "name": name, "about": question(text), "state": members_state(sweep),
            "good": len(sweep.done()) == len(sweep.members), "facts": [],
            "checks": [row for member, run in zip(sweep.members, runs) if run
                       for row in page.check_rows(name, run, member.name)],
            "rows": [page.compared_row(name, row) for row in compared],
            "members": [("member", "state", "step", "seconds", "loss", "reason"), *map(member_row, sweep.members)],
            "pictures": pictures(sweep.path), "times": [], "command": command(sweep, "sweep"), "input": text, "resolved": "",
            "log": "", "provenance": []}


def members_state(sweep):
    states = [member.state for member in sweep.members]
    return f"{len(states)} members: " + ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))


def member_row(member):
    return [member.name, member.state, member.row.get("step", ""), member.row.get("seconds", ""),
            member.row.get("train/loss", ""), member.row.get("reason", "")]


# ---------------------------------------------------------------- both
def pictures(path):
    return [page.picture(file) for file in sorted((path / "figures").glob("*.png"), key=training_last)]


def training_last(file):
    """What the probes saw first; losses are in every run."""
    return file.stem.startswith("train"), file.name


def text_of(path):
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def tail(path):
    return "\n".join(text_of(path).splitlines()[-LOG_LINES:])


def report(directory, draw):
    path = Path(directory)
    content = (sweep_page if (path / "members.csv").is_file() else run_page)(path, draw)
    page.write(path / "report.html", "run.html", **content)
    return path / "report.html"


def arguments():
    parser = argparse.ArgumentParser(description="Writes DIR/report.html: one self-contained page about a run or a sweep.")
    parser.add_argument("directories", metavar="DIR", nargs="+", type=Path, help="directory of a run or of a sweep")
    parser.add_argument("--keep-figures", action="store_true", help="show the figures that are there, draw none")
    return parser.parse_args()


def main():
    options = arguments()
    return for_each("report.py", options.directories, lambda directory: print(report(directory, not options.keep_figures)))


if __name__ == "__main__":
    sys.exit(main())
