#!/usr/bin/env python3
"""What the members of a sweep came to, over the swept parameters: collect.py SWEEPDIR… [--format png|pdf] [--only NAME]

Prints a table and draws one figure a quantity into SWEEPDIR/figures: the final scalars that matter most, how many steps
the members took to a loss that all of them reach, how many singular values moved, how far the leading subspaces turned.
The first swept parameter is the horizontal axis, the second one tells the lines apart, a third one the panels; seeds
and what is beyond are averaged, with bars for the standard deviation. NAME is one of the figures or any column of
members.csv, such as train/gradient_norm. Exit code 2 if a directory cannot be collected.
"""
import argparse
import csv
from dataclasses import dataclass
import itertools
from pathlib import Path
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402 (the backend must be chosen first)
import numpy as np  # noqa: E402

from plot import GREY, STYLE, colours, headline, moving, save, sentence  # noqa: E402
from runs import RunError, open_run  # noqa: E402

FIRST_COLUMNS = ["member", "name"]
STATE_COLUMNS = ["state", "reason", "step", "steps", "seconds"]
MOST_PANELS, MOST_LINES, MOST_CELLS = 8, 12, 144


# ---------------------------------------------------------------- the sweep
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


# ---------------------------------------------------------------- quantities
@dataclass
class Quantity:
    name: str       # of the figure's file
    label: str      # of its axis
    values: list    # one a member, NaN where there is none
    note: str = ""  # what a reader must know
    log: bool = False


# Final scalars that are drawn unasked.
USUAL = {"train/test_accuracy": "test accuracy", "train/test_loss": "test loss", "train/loss": "training loss"}


def column(sweep, name, label=None):
    texts = [member.row[name] for member in sweep.members]
    values = [number(text) if text else None for text in texts]
    values = [np.nan if value is None else value for value in values]
    words = label or name.replace("_", " ")
    return Quantity(name.replace("/", "_"), f"{words} at the end", values, log="loss" in name)


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


def per_run(runs, measure):
    return [np.nan if run is None else measure(run) for run in runs]


def steps_to_loss(runs):
    """Steps until the training loss is for the first time below one that every member reaches."""
    losses = [run.groups["train"]["loss"] for run in runs if run is not None and "train" in run.groups]
    losses = [loss for loss in losses if np.isfinite(loss).any()]
    if not losses:
        return None
    target = float(f"{max(np.nanmin(loss) for loss in losses) * 1.02:.3g}")
    if min(loss[0] for loss in losses) <= target:  # some begin below it
        return None

    def first_step(run):
        below = np.flatnonzero(run.groups["train"]["loss"] <= target)
        return run.groups["train"]["step"][below[0]] if below.size else np.nan
    return Quantity("steps_to_loss", f"steps until the training loss is {target:g}", per_run(runs, first_step),
                    "The loss is one that every finished member reaches.")


def groups_of_kind(runs, kind):
    """Names of the groups of that kind that follow the weights, in any of the runs."""
    names = {}
    for run in filter(None, runs):
        for group in run.groups.values():
            if group.kind == kind and str(group.attributes.get("of", "weights")) == "weights":
                names[group.name] = None
    return list(names)


def moving_values(runs, name):
    def count(run):
        group = run.groups.get(name)
        if group is None or not group.measured("singular_value") or len(group["step"]) < 2:
            return np.nan
        values = group["singular_value"]
        return np.median([moving(values[:, layer]).sum() for layer in range(values.shape[1])])
    return Quantity(f"{name}_moving", "singular values that move (median over the layers)", per_run(runs, count),
                    "“Move”: change by more than 10 % of the largest change in the same matrix.")


def turning(runs, name):
    def angle(run):
        group = run.groups.get(name)
        if group is None or not group.measured("angle_left"):
            return np.nan
        sides = np.stack([group["angle_left"], group["angle_right"]]).max(axis=(0, 3))  # (step, layer)
        last = [layer[np.isfinite(layer)][-1] for layer in sides.T if np.isfinite(layer).any()]
        return np.degrees(np.median(last)) if last else np.nan
    return Quantity(f"{name}_turn", "turn of the leading singular subspaces (degrees, median over the layers)",
                    per_run(runs, angle), "The largest principal angle between the last and the reference subspaces.")


def quantities(sweep, only):
    """Yields what is to be drawn; reads the runs only if they are needed."""
    if only in sweep.columns:
        yield column(sweep, only, USUAL.get(only))
        return
    for name, label in USUAL.items():
        if name in sweep.columns:
            yield column(sweep, name, label)
    runs = runs_of(sweep)
    steps = steps_to_loss(runs)
    if steps:
        yield steps
    for name in groups_of_kind(runs, "spectrum"):
        yield moving_values(runs, name)
    for name in groups_of_kind(runs, "subspace"):
        yield turning(runs, name)


# ---------------------------------------------------------------- statistics
def gather(sweep, quantity, axes):
    """(mean, deviation, count) over all members with the same values of `axes`, as arrays over the axes."""
    shape = tuple(len(axis.values) for axis in axes)
    cells = {place: [] for place in itertools.product(*map(range, shape))}
    for member, value in zip(sweep.members, quantity.values):
        if member.state == "done" and np.isfinite(value):
            cells[tuple(axis.values.index(member.parameters[axis.key]) for axis in axes)].append(value)
    mean, deviation, count = np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape, dtype=int)
    for place, values in cells.items():
        count[place] = len(values)
        if values:
            mean[place] = np.mean(values)
            deviation[place] = np.std(values, ddof=1) if len(values) > 1 else 0.0
    return mean, deviation, count


def where(axes, place):
    return ", ".join(f"{axis.label} {axis.values[index]}" for axis, index in zip(axes, place))


def short(value):
    return f"{value:.3g}"


def message(quantity, mean, axes):
    """What the figure says: the range, and which parameter matters more."""
    subject = sentence(quantity.label.split(" (")[0])
    if not axes or np.isfinite(mean).sum() < 2:
        return subject
    low, high = (np.unravel_index(choose(mean), mean.shape) for choose in (np.nanargmin, np.nanargmax))
    if short(mean[low]) == short(mean[high]):
        return f"{subject}: {short(mean[low])} throughout"
    text = f"{short(mean[low])} ({where(axes, low)}) to {short(mean[high])} ({where(axes, high)})"
    return f"{subject}:{' ' if len(subject + text) < 60 else chr(10)}{text}"


def influence(mean, axes):
    """How far the mean moves along each axis, the others averaged; only for complete arrays."""
    if len(axes) < 2 or not np.isfinite(mean).all():
        return ""
    spans = [np.ptp(mean.mean(axis=tuple(other for other in range(len(axes)) if other != this)))
             for this in range(len(axes))]
    parts = [f"{short(span)} over {axis.label}" for span, axis in sorted(zip(spans, axes), key=lambda pair: -pair[0])]
    return f"Along one axis, averaged over the other{'s' * (len(axes) > 2)}, the mean moves by {', '.join(parts)}."


def omitted(sweep):
    counts = {}
    for member in sweep.members:
        if member.state != "done":
            counts[member.state] = counts.get(member.state, 0) + 1
    left = ", ".join(f"{count} {state}" for state, count in counts.items())
    return f"Left out, of {len(sweep.members)} members: {left}." if left else ""


def averaging(averaged, deviation):
    if not averaged:
        return ""
    names = " and ".join(f"{axis.label} ({len(axis.values)} values)" for axis in averaged)
    bars = "; bars: standard deviation" if np.nanmax(deviation, initial=0) > 0 else ""
    return f"Averaged over {names}{bars}."


# ---------------------------------------------------------------- figures
def draw(sweep, quantity, axes, averaged):
    """Lines for each panel, and beside one panel of two axes its heat map. None if there is nothing to draw."""
    mean, deviation, _ = gather(sweep, quantity, axes)
    if not axes or not np.isfinite(mean).any():
        return None
    spare = [axes[2]] if len(axes) > 2 else []
    count = min(len(spare[0].values), MOST_PANELS) if spare else 1
    cells = len(axes) == 2 and mean.size <= MOST_CELLS
    figure, panels = plt.subplots(1, count + cells, figsize=(max(3.4 * (count + cells), 6.0) + 0.8, 3.9), squeeze=False,
                                  sharey=bool(spare))
    panels = panels[0]
    for position in range(count):
        inside = (..., position) if spare else ...
        draw_lines(panels[position], quantity, mean[inside], deviation[inside], axes[:2])
        if spare:
            panels[position].set_title(f"{spare[0].label} {spare[0].values[position]}")
    panels[0].set_ylabel(wrapped(quantity.label))
    if len(axes) > 1:
        panels[count - 1].legend(title=axes[1].label.replace("_", " "), loc="best", fontsize=8, title_fontsize=8)
    if cells:
        draw_cells(figure, panels[-1], quantity, mean, axes)
    shown = f"{count} of {len(spare[0].values)} values of {spare[0].label} shown." if spare and \
        count < len(spare[0].values) else ""
    headline(figure, message(quantity, mean, axes), " ".join(filter(None, [f"{sweep.name}.", influence(mean, axes)])),
             " ".join(filter(None, [averaging(averaged, deviation), omitted(sweep), shown])), quantity.note)
    return figure


def wrapped(label):
    """Two lines where one would be longer than the axis."""
    if len(label) < 40 or " (" not in label:
        return label
    return label.replace(" (", "\n(", 1)


def draw_lines(axis, quantity, mean, deviation, axes):
    """One line, or one for each value of the second axis."""
    lines = mean[:, None] if len(axes) == 1 else mean
    bars = deviation[:, None] if len(axes) == 1 else deviation
    chosen = np.unique(np.linspace(0, lines.shape[1] - 1, min(lines.shape[1], MOST_LINES)).round().astype(int))
    for line, colour in zip(chosen, colours(len(chosen))):
        label = axes[1].values[line] if len(axes) > 1 else None
        axis.errorbar(axes[0].positions(), lines[:, line], bars[:, line], color=colour, label=label, marker="o",
                      linestyle="-" if axes[0].connects() else "none", markersize=3.5, capsize=2.5, elinewidth=0.9)
    axes[0].prepare(axis)
    finite = lines[np.isfinite(lines)]
    if quantity.log and finite.min() > 0 and finite.max() > 10 * finite.min():
        axis.set_yscale("log")


def draw_cells(figure, axis, quantity, mean, axes):
    """A heat map with the number in each cell."""
    image = axis.imshow(mean.T, origin="lower", aspect="auto", cmap="viridis")
    axis.grid(False)
    axis.set_xticks(range(len(axes[0].values)), axes[0].values)
    axis.set_yticks(range(len(axes[1].values)), axes[1].values)
    axis.set_xlabel(axes[0].label.replace("_", " "))
    axis.set_ylabel(axes[1].label.replace("_", " "))
    for place, value in np.ndenumerate(mean):
        text, dark = (short(value), image.norm(value) < 0.55) if np.isfinite(value) else ("–", False)
        axis.text(*place, text, ha="center", va="center", fontsize=8, color="white" if dark else "black")
    bar = figure.colorbar(image, ax=axis, pad=0.02, aspect=30)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelcolor=GREY)


# ---------------------------------------------------------------- the table
def print_table(sweep, drawn, axes):
    """One line for each combination of the axes that are drawn; means, with ± the deviation where there is one."""
    gathered = [gather(sweep, quantity, axes) for quantity in drawn]
    head = [axis.label for axis in axes] + ["members"] + [quantity.name for quantity in drawn]
    lines = [head]
    for place in itertools.product(*(range(len(axis.values)) for axis in axes)):
        if not any(count[place] for _, _, count in gathered):
            continue
        line = [axis.values[index] for axis, index in zip(axes, place)]
        line.append(str(max((count[place] for _, _, count in gathered), default=0)))
        for mean, deviation, _ in gathered:
            text = short(mean[place]) if np.isfinite(mean[place]) else "–"
            line.append(text + (f" ± {deviation[place]:.2g}" if deviation[place] > 0 else ""))
        lines.append(line)
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        print("  ".join(text.rjust(width) for text, width in zip(line, widths)))


# ---------------------------------------------------------------- the program
def collect(directory, extension, only):
    sweep = open_sweep(directory)
    print(f"{directory}: {len(sweep.members)} members over {', '.join(sweep.keys)}. {omitted(sweep)}".rstrip())
    if not sweep.done():
        raise RunError(f"{directory}: no member is done yet")
    axes, averaged = axes_of(sweep)
    chosen = [quantity for quantity in quantities(sweep, only)
              if only in (None, quantity.name) or only in sweep.columns]
    if only and not chosen:
        raise RunError(f"{directory}: no figure or column '{only}' (columns: {', '.join(sweep.columns)})")
    print_table(sweep, chosen, axes)
    (sweep.path / "figures").mkdir(exist_ok=True)
    for quantity in chosen:
        figure = draw(sweep, quantity, axes, averaged)
        if figure is not None:
            path = sweep.path / "figures" / f"{quantity.name}.{extension}"
            save(figure, path)
            plt.close(figure)
            print(path, flush=True)


def arguments():
    parser = argparse.ArgumentParser(description="Tables and figures of sweeps, into SWEEPDIR/figures.")
    parser.add_argument("directories", metavar="SWEEPDIR", nargs="+", type=Path, help="directory of a sweep")
    parser.add_argument("--format", choices=("png", "pdf"), default="png")
    parser.add_argument("--only", metavar="NAME", help="only this figure, or this column of members.csv")
    return parser.parse_args()


def main():
    options = arguments()
    failed = False
    for directory in options.directories:
        try:
            with plt.rc_context(STYLE):
                collect(directory, options.format, options.only)
        except (RunError, OSError) as error:
            print(f"collect.py: {error}", file=sys.stderr)
            failed = True
    return 2 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
