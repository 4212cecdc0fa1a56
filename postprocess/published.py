"""Published values beside ours. published.json holds them by the name of the study (`run.name` of its input).

An entry says what it is (`what`), how it is known (`how`), of which runs it is (`where`: keys of the input, for members of
sweeps), and the value: a number, several, or a `range`. Of a run it names a `quantity` of metrics.h5 ("group/name") and
selects by coordinates (`select`; a step that is left out is the last one). Of a sweep it names a `figure` of collect.py and
says at which values (`at`) of the horizontal axis. Ours holds if it is in the range, or differs from the value by no more than
`tolerance` (relative; absolute where the value is 0); what is known about a difference stands in `note`.

In `select` a coordinate, or several, chooses; "sum", "mean", "squares" (their sum), "largest", "modulus" (the largest one)
or "median" takes all of that dimension together, {"median": [from, to]} those between. `only` masks by another quantity:
{"quantity": …, "above": modulus}.
`per` divides by another quantity of the same run: {"quantity": …, "select": …}. With `members` an entry is of all members of a
sweep that `where` chooses ({"any": […]}: one of several values): "mean", "least", "most", "share" of those that have the value
`equals`, or "slope", the power of the swept key `against`; `over` divides by the same of other members, which differ from the
first in these keys.
"""
from dataclasses import dataclass, field
import json
from pathlib import Path
import re

import numpy as np

from style import PINK, last_measured

# How well a value is known says how close ours must come, unless the entry says it.
TOLERANCE = {"theorem": 1e-8, "given": 1e-8, "computed": 1e-6, "printed": 0.05, "read off the figure": 0.2}
IN_A_PAPER = ("published", "printed", "read off the figure")
FILE = Path(__file__).with_name("published.json")
LOOK = {"color": PINK, "marker": "D", "markerfacecolor": "none", "markersize": 5.5, "linestyle": "none", "zorder": 5}


@dataclass
class Published:
    what: str
    how: str = "published"
    quantity: str = ""
    figure: str = ""
    where: dict = field(default_factory=dict)
    select: dict = field(default_factory=dict)
    only: dict = field(default_factory=dict)
    per: dict = field(default_factory=dict)
    members: str = ""
    equals: float = None
    against: str = ""
    over: dict = field(default_factory=dict)
    at: list = field(default_factory=list)
    value: object = None
    range: list = None
    tolerance: float = None
    note: str = ""

    def __post_init__(self):
        if self.tolerance is None:
            self.tolerance = TOLERANCE.get(self.how, 0.0)

    def values(self):
        return np.atleast_1d(np.mean(self.range) if self.range else self.value).astype(float)

    def text(self):
        if self.range:
            return f"{self.range[0]:g} … {self.range[1]:g}"
        return " ".join(f"{value:.12g}" for value in self.values())

    def tolerance_text(self):
        return "" if self.range else f"{self.tolerance:g}"


def study(text):
    """`run.name` in an input: members of sweeps have names of their own, but keep the input."""
    section = re.search(r"^run:([^\n]*(?:\n[ \t][^\n]*)*)", text, re.MULTILINE)
    name = section and re.search(r"\bname:\s*[\"']?([\w.-]+)", section[1])
    return name[1] if name else ""


def entries(name):
    found = json.loads(FILE.read_text(encoding="utf-8")).get(name, [])
    return [Published(**entry) for entry in found]


def entries_of_run(run):
    """What is published of this run by itself and was measured in it."""
    return [entry for entry in entries(study(run.input)) if entry.quantity and not entry.members and known(run, entry)
            and chosen(run, entry.where)]


def chosen(run, where):
    """Whether the run has these settings; {"any": […]}: one of several values."""
    return all(any(same(run.setting(key), each) for each in (value["any"] if isinstance(value, dict) else [value]))
               for key, value in where.items())


def known(run, entry):
    """Whether everything was measured that the entry names."""
    names = [each for each in (entry.quantity, entry.only.get("quantity"), entry.per.get("quantity")) if each]
    groups = [(run.groups.get(group), name) for group, _, name in (each.partition("/") for each in names)]
    return all(group is not None and group.measured(name) for group, name in groups)


def single(text):
    """A list of one is its element: for each layer the same, say."""
    return text[0] if isinstance(text, (list, tuple)) and len(text) == 1 else text


def same(text, value):
    text = single(text)
    try:
        return float(text) == float(value)
    except (TypeError, ValueError):
        return str(text) == str(value)


# ---------------------------------------------------------------- the numbers of a run
TOGETHER = {"sum": np.nansum, "mean": np.nanmean, "squares": lambda values, axis: np.nansum(values**2, axis), "largest": np.nanmax,
            "median": np.nanmedian, "modulus": lambda values, axis: np.nanmax(np.abs(values), axis)}
OF_MEMBERS = {"mean": lambda values: np.nanmean(values, axis=0), "least": np.nanmin, "most": np.nanmax}


def ours(run, entry):
    """The numbers of the run where the entry has its own; NaN where there are none."""
    values = read(run, entry.quantity, entry.select, entry.only)
    if entry.per:
        below = read(run, entry.per["quantity"], entry.per.get("select", {}))
        values = np.divide(values, below, out=np.full(np.broadcast_shapes(values.shape, below.shape), np.nan), where=below != 0)
    return values


def read(run, quantity, select, only=None):
    group, _, name = quantity.partition("/")
    variable = run.groups[group].variable(name)
    values = variable.values.astype(float)
    if only:
        large = np.abs(read(run, only["quantity"], select)) > only["above"]
        values = np.where(large, values, np.nan) if large.size > 1 else values if large else np.full_like(values, np.nan)
    for axis, dim in reversed(list(enumerate(variable.dims))):
        if dim in select:
            values = take(values, axis, run.groups[group][dim], select[dim])
    if variable.dims[0].endswith("step") and variable.dims[0] not in select:
        values = values[last_measured(values)]
    return np.ravel(values)


def take(values, axis, coordinates, wanted):
    """The chosen coordinates of a dimension, or what stands for all of them."""
    if isinstance(wanted, dict):
        (wanted, (first, last)), = wanted.items()
        values = np.compress((coordinates >= first) & (coordinates <= last), values, axis)
    if isinstance(wanted, str):
        return np.expand_dims(TOGETHER[wanted](values, axis=axis), axis)
    wanted, coordinates = np.atleast_1d(wanted), coordinates.tolist()
    positions = [coordinates.index(each) if each in coordinates else -1 for each in wanted]
    values = np.take(values, positions, axis)
    values[(slice(None),) * axis + (np.array(positions) < 0,)] = np.nan
    return values


@dataclass
class Compared:
    """An entry beside what a run, or a sweep, has of it."""
    entry: Published
    ours: np.ndarray
    run: str = ""

    def measured(self):
        """Ours as text, in the form of the published value."""
        values = self.ours[np.isfinite(self.ours)]
        if not values.size:
            return "–"
        digits = ".12g" if self.entry.tolerance < 1e-3 and not self.entry.range else ".4g"
        if values.size == self.entry.values().size and not self.entry.range:
            return " ".join(f"{value:{digits}}" for value in values)
        if np.ptp(values) < 1e-11 * abs(values).max():
            return f"{values.min():{digits}}"
        return f"{values.min():.4g} … {values.max():.4g}"

    def passed(self):
        """None if nothing was measured."""
        finite = np.isfinite(self.ours)
        if not finite.any():
            return None
        if self.entry.range:
            low, high = self.entry.range
            return bool(((self.ours >= low) & (self.ours <= high))[finite].all())
        expected = np.broadcast_to(self.entry.values(), self.ours.shape)[finite]
        allowed = self.entry.tolerance * np.where(expected == 0, 1, abs(expected))
        return bool((abs(self.ours[finite] - expected) <= allowed).all())


def compared_run(run, name=""):
    return [Compared(entry, ours(run, entry), name) for entry in entries_of_run(run)]


# ---------------------------------------------------------------- the members of a sweep together
def compared_members(name, runs):
    """Of the study with that name: what is said of several members at once."""
    runs = [run for run in runs if run is not None]
    rows = []
    for entry in entries(name):
        there = [run for run in runs if entry.members and known(run, entry)]
        if there:
            rows.append(Compared(entry, together(there, entry)))
    return rows


def together(runs, entry):
    found = [run for run in runs if chosen(run, entry.where)]
    if not found:
        return np.full(1, np.nan)
    values = summary(found, entry)
    if entry.over:
        below = [run for run in runs if chosen(run, {**entry.where, **entry.over})]
        values = values / summary(below, entry) if below else np.full(1, np.nan)
    return values


def summary(runs, entry):
    values = np.array([ours(run, entry) for run in runs])
    if entry.members == "share":
        return np.atleast_1d(np.mean(values == entry.equals))
    if entry.members == "slope":
        places = np.log([float(single(run.setting(entry.against))) for run in runs])
        return np.atleast_1d(np.polyfit(places, np.log(values[:, 0]), 1)[0])
    if not np.isfinite(values).any():
        return np.full(1, np.nan)
    return np.atleast_1d(OF_MEMBERS[entry.members](values))


def print_table(rows):
    """Of Compared, below a head."""
    if not rows:
        return
    verdicts = {None: "not measured", True: "holds", False: "differs"}
    lines = [("", "known by", "published", "ours", "")]
    lines += [(row.entry.what, row.entry.how, row.entry.text(), row.measured(), verdicts[row.passed()]) for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip())


def mark(axis, run, quantity, along="step", offset=0, log=False, **panel):
    """Draws what is published of a quantity, in the panel that shows the given coordinates. Returns whether there was any."""
    drawn = False
    for entry in entries_of_run(run):
        if entry.quantity != quantity or any(entry.select.get(dim, value) != value for dim, value in panel.items()):
            continue
        group = run.groups[quantity.partition("/")[0]]
        places = np.atleast_1d(entry.select.get(along, group[along][-1])).astype(float) + offset
        draw_values(axis, entry, places)
        drawn = True
    return drawn


def draw_values(axis, entry, places, **look):
    values, places = np.broadcast_arrays(entry.values(), places)
    if entry.range:
        low, high = entry.range
        if axis.get_yscale() == "log":  # from zero: from the lower end of the axis
            low = max(low, axis.get_ylim()[0])
        axis.errorbar(places, values, [values - low, high - values], elinewidth=2.2, capsize=3, clip_on=False,
                      **{**LOOK, "marker": "none", **look})
    else:
        axis.plot(places, values, clip_on=False, **{**LOOK, **look})
