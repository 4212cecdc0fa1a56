"""Published values beside ours. published.json holds them by the name of the study (`run.name` of its input).

An entry says what it is (`what`), how it is known (`how`), of which runs it is (`where`: keys of the input, for members of
sweeps), and the value: a number, several, or a `range`. Of a run it names a `quantity` of metrics.h5 ("group/name") and
selects by coordinates (`select`; a step that is left out is the last one). Of a sweep it names a `figure` of collect.py and
says at which values (`at`) of the horizontal axis.
"""
from dataclasses import dataclass, field
import json
from pathlib import Path
import re

import numpy as np

from style import PINK, last_measured

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

    def values(self):
        return np.atleast_1d(np.mean(self.range) if self.range else self.value).astype(float)

    def text(self):
        if self.range:
            return f"{self.range[0]:g} … {self.range[1]:g}"
        return " ".join(f"{value:.12g}" for value in self.values())


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


def compared(entry, values):
    """Ours as text, in the form of the published value."""
    values = values[np.isfinite(values)]
    if not values.size:
        return "–"
    if values.size == entry.values().size and not entry.range:
        return " ".join(f"{value:.12g}" if entry.how == "theorem" else f"{value:.4g}" for value in values)
    return f"{values.min():.12g}" if np.ptp(values) < 1e-11 * abs(values).max() else f"{values.min():.4g} … {values.max():.4g}"


def print_table(rows):
    """Rows of (what, how it is known, published, ours), below a head."""
    if not rows:
        return
    rows = [("", "known by", "published", "ours"), *rows]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip())


def print_run(run):
    print_table([(entry.what, entry.how, entry.text(), compared(entry, ours(run, entry))) for entry in entries_of_run(run)])


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
