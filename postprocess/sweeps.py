"""The one reader of the directories of sweeps: members, and the parameters that they were swept over."""
import csv
from dataclasses import dataclass
from pathlib import Path
import sys

import numpy as np

from published import study
from runs import RunError, open_run

FIRST_COLUMNS = ["member", "name"]
STATE_COLUMNS = ["state", "reason", "step", "steps", "seconds"]


@dataclass
class Member:
    name: str
    parameters: dict  # dotted key → text
    state: str
    row: dict         # all columns of members.csv


@dataclass
class Sweep:
    path: Path
    keys: list     # swept parameters in the order of the input
    columns: list  # final scalars, "train/loss"
    members: list

    @property
    def name(self):
        return self.path.resolve().name

    @property
    def study(self):
        """`run.name` of the input, which every member keeps."""
        inputs = (self.path / member.name / "input.yaml" for member in self.members)
        return next((study(path.read_text(encoding="utf-8")) for path in inputs if path.is_file()), "")

    def done(self):
        return [member for member in self.members if member.state == "done"]


def open_sweep(directory):
    """Reads members.csv; RunError, in words for the user, if that is not possible."""
    path = Path(directory)
    table = path / "members.csv"
    if not path.is_dir():
        raise RunError(f"{directory}: no such directory")
    if not table.is_file():
        raise RunError(f"{directory}: not the directory of a sweep (it has no members.csv)")
    with open(table, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        names, rows = list(reader.fieldnames or []), list(reader)
    if names[:2] != FIRST_COLUMNS or not set(STATE_COLUMNS) <= set(names) or not rows:
        raise RunError(f"{table}: not the table of a sweep")
    first = names.index("state")
    keys = names[2:first]
    members = [Member(row["name"], {key: row[key] for key in keys}, row["state"], row) for row in rows]
    return Sweep(path, keys, names[first + len(STATE_COLUMNS):], members)


def number(text):
    """The number that a text is, or None."""
    try:
        return float(text)
    except ValueError:
        return None


# ---------------------------------------------------------------- axes
class Axis:
    """A swept parameter and the values with which members are done, sorted if they are numbers."""

    def __init__(self, sweep, key):
        self.key = key
        values = list(dict.fromkeys(member.parameters[key] for member in sweep.done()))
        numbers = [number(value) for value in values]
        self.numeric = None not in numbers
        self.values = [value for _, value in sorted(zip(numbers, values))] if self.numeric else values
        leaves = [other.rpartition(".")[2] for other in sweep.keys]
        leaf = key.rpartition(".")[2]
        self.label = leaf if leaves.count(leaf) == 1 else key

    def positions(self):
        """Where the values are on a plot: at their numbers, or one beside the other."""
        return np.array([number(value) for value in self.values]) if self.numeric else np.arange(len(self.values))

    def scale(self):
        """Logarithmic if the values are as far apart as those of a geometric series."""
        positions = self.positions()
        if not self.numeric or positions[0] <= 0 or len(positions) < 2 or positions[-1] < 4 * positions[0]:
            return "linear"
        steps = np.diff(np.log(positions))
        return "log" if steps.max() < 1.5 * steps.min() else "linear"

    def connects(self):
        """Whether a line between two values means something."""
        return self.numeric and not is_seed(self.key)

    def prepare(self, axis):
        """Ticks at the values and nowhere else."""
        axis.set_xscale(self.scale())
        axis.set_xticks(self.positions(), self.values)
        axis.set_xticks([], minor=True)
        axis.set_xlabel(self.label.replace("_", " "))


def is_seed(key):
    return key.endswith("seed")


def is_function(sweep, key, of):
    """Whether every value of `of` goes with one value of `key` and the other way round: a zip of both."""
    pairs = {(member.parameters[of], member.parameters[key]) for member in sweep.done()}
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def axes_of(sweep):
    """(drawn, averaged): lists of axes. What only repeats another axis, or has one value, is neither."""
    axes = []
    for key in sweep.keys:
        axis = Axis(sweep, key)
        if len(axis.values) > 1 and not any(is_function(sweep, key, other.key) for other in axes):
            axes.append(axis)
    seeds = [axis for axis in axes if is_seed(axis.key)]
    drawn = [axis for axis in axes if axis not in seeds] or seeds
    return drawn[:3], drawn[3:] + (seeds if drawn is not seeds else [])


def runs_of(sweep):
    """The run of each member that is done; None for the others and for what cannot be read."""
    runs = []
    for member in sweep.members:
        try:
            runs.append(open_run(sweep.path / member.name) if member.state == "done" else None)
        except RunError as error:
            print(f"collect.py: {error}; left out", file=sys.stderr)
            runs.append(None)
    return runs
