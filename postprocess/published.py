"""Published values beside ours. published.json holds them by the name of the study (`run.name` of its input).

An entry says what it is (`what`), how it is known (`how`), of which runs it is (`where`: keys of the input, for members of
sweeps), and the value: a number, several, or a `range`. Of a run it names a `quantity` of metrics.h5 ("group/name") and
selects by coordinates (`select`; a step that is left out is the last one). Of a sweep it names a `figure` of collect.py and
says at which values (`at`) of the horizontal axis. Ours holds if it is in the range, or differs from the value by no more than
`tolerance` (relative; absolute where the value is 0); what is known about a difference stands in `note`.
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
    """What is published of this run and was measured in it."""
    return [entry for entry in entries(study(run.input)) if entry.quantity and known(run, entry)
            and all(same(run.setting(key), value) for key, value in entry.where.items())]


def known(run, entry):
    group, _, name = entry.quantity.partition("/")
    return group in run.groups and run.groups[group].measured(name)


def same(text, value):
    """A list of one is its element: for each layer the same, say."""
    if isinstance(text, (list, tuple)) and len(text) == 1:
        text = text[0]
    try:
        return float(text) == float(value)
    except (TypeError, ValueError):
        return str(text) == str(value)


def ours(run, entry):
    """The numbers of the run where the entry has its own; NaN where there are none."""
    group, _, name = entry.quantity.partition("/")
    variable = run.groups[group].variable(name)
    values = variable.values.astype(float)
    for axis, dim in reversed(list(enumerate(variable.dims))):
        if dim in entry.select:
            wanted = np.atleast_1d(entry.select[dim])
            coordinates = run.groups[group][dim].tolist()
            positions = [coordinates.index(each) if each in coordinates else -1 for each in wanted]
            values = np.take(values, positions, axis)
            values[(slice(None),) * axis + (np.array(positions) < 0,)] = np.nan
    if "step" not in entry.select and variable.dims[0].endswith("step"):
        values = values[last_measured(values)]
    return np.ravel(values)


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
        axis.errorbar(places, values, [values - low, high - values], elinewidth=2.2, capsize=3, clip_on=False,
                      **{**LOOK, "marker": "none", **look})
    else:
        axis.plot(places, values, clip_on=False, **{**LOOK, **look})
