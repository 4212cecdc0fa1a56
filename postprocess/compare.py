#!/usr/bin/env python3
"""Where two runs differ: compare.py A B [--figure FILE]

Prints the settings that differ and, for every quantity that both runs measured, the largest difference at steps that both
have, and the first such step. Same bits on the same grid and rounding on others is what two runs of one input should show.
Draws losses, and the quantities of one number a step that differ most, of both. Exit code 0 if all are equal, 1 if some
differ, 2 if there is nothing to compare.
"""
import argparse
from dataclasses import dataclass
from pathlib import Path
import sys

import numpy as np

from plot import NOT_DRAWN
from runs import RunError, open_run
from style import BLUE, ORANGE, STYLE, headline, plt, save, spans_decades

MOST_LINES, MOST_PANELS = 30, 6


@dataclass
class Difference:
    group: str
    quantity: str
    largest: float   # absolute
    relative: float  # to the largest value of either
    first: int       # step; None if equal

    @property
    def name(self):
        return f"{self.group}/{self.quantity}"


def settings_that_differ(a, b):
    """[(key, value of a, value of b)]; names of runs and files may differ."""
    keys = [*a.settings, *(key for key in b.settings if key not in a.settings)]
    return [(key, a.setting(key, "–"), b.setting(key, "–")) for key in keys if a.setting(key) != b.setting(key)]


def common(a, b):
    """Yields (group of a, group of b, name, axis, rows of a, rows of b) of quantities with steps that both have."""
    for group in a.groups.values():
        other = b.groups.get(group.name)
        if other is None or group.name in NOT_DRAWN:
            continue
        for name, variable in group.variables.items():
            axis = variable.dims[0] if variable.dims else ""
            if name in other and axis.endswith("step") and name != axis and not name.endswith("time"):
                _, rows, others = np.intersect1d(group[axis], other[axis], return_indices=True)
                if len(rows) and variable.values.shape[1:] == other[name].shape[1:]:
                    yield group, other, name, axis, rows, others


def differences(a, b):
    found = []
    for group, other, name, axis, rows, others in common(a, b):
        x, y = group[name][rows].astype(float), other[name][others].astype(float)
        apart = np.where(np.isnan(x) & np.isnan(y), 0, np.where(np.isnan(x) | np.isnan(y), np.inf, abs(x - y)))
        apart = apart.reshape(len(rows), -1).max(axis=1)
        size = np.nanmax(abs(np.concatenate([np.ravel(x), np.ravel(y)])), initial=0)
        where = np.flatnonzero(apart)
        found.append(Difference(group.name, name, apart.max(), apart.max() / size if size else apart.max(),
                                int(group[axis][rows[where[0]]]) if where.size else None))
    return found


def print_differences(a, b, found):
    settings = settings_that_differ(a, b)
    print(f"{len(settings)} settings differ" + (":" if settings else ""))
    for key, left, right in settings:
        print(f"  {key}: {left} | {right}")
    apart = sorted((each for each in found if each.first is not None), key=lambda each: -each.relative)
    print(f"{len(found) - len(apart)} of {len(found)} quantities are equal to the last bit" + (":" if apart else ""))
    if apart:
        print(f"  {'quantity':40} {'largest':>10} {'relative':>10}  first at step")
    for each in apart[:MOST_LINES]:
        print(f"  {each.name:40} {each.largest:10.3g} {each.relative:10.3g}  {each.first}")
    if len(apart) > MOST_LINES:
        print(f"  … and {len(apart) - MOST_LINES} more that differ less")
    return apart


def draw(a, b, apart):
    """Panels of what is one number a step: the loss, then what differs most."""
    single = [each for each in apart if a.groups[each.group].variable(each.quantity).values.ndim == 1]
    names = list(dict.fromkeys([("train", "loss"), *((each.group, each.quantity) for each in single)]))
    names = [(group, name) for group, name in names if all(group in run.groups and run.groups[group].measured(name)
                                                           for run in (a, b))][:MOST_PANELS]
    if not names:
        return None
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3.4 * columns + 0.8, 2.6 * rows + 0.9), squeeze=False)
    for axis in axes.flat[len(names):]:
        axis.set_visible(False)
    for axis, (group, name) in zip(axes.flat, names):
        for run, look in ((a, {"color": BLUE}), (b, {"color": ORANGE, "linestyle": "--"})):
            values = run.groups[group].variable(name)
            axis.plot(run.groups[group][values.dims[0]], values.values, label=str(run.path), **look)
        axis.set_xlabel("step")
        axis.set_title(f"{group}/{name}")
        if spans_decades(a.groups[group][name].astype(float)):
            axis.set_yscale("log")
    axes.flat[0].legend(fontsize=7)
    worst = max(apart, key=lambda each: each.relative, default=None)
    headline(figure, f"{worst.name} differs most: by {worst.relative:.2g} of its size" if worst else "No number differs",
             f"{a.path} and {b.path}")
    return figure


def arguments():
    parser = argparse.ArgumentParser(description="Where two runs differ: settings, and every measured quantity.")
    parser.add_argument("a", metavar="A", type=Path, help="directory of a run")
    parser.add_argument("b", metavar="B", type=Path, help="directory of another run")
    parser.add_argument("--figure", metavar="FILE", type=Path, help="draws both into this PNG or PDF file")
    return parser.parse_args()


def main():
    options = arguments()
    try:
        a, b = open_run(options.a), open_run(options.b)
        found = differences(a, b)
        if not found:
            raise RunError("the two runs have no quantity and step in common")
        apart = print_differences(a, b, found)
        if options.figure:
            if options.figure.suffix not in (".png", ".pdf"):
                raise RunError(f"{options.figure}: the figure is a .png or a .pdf")
            with plt.rc_context(STYLE):
                figure = draw(a, b, apart)
                if figure is None:
                    raise RunError("no quantity of both runs is one number a step: nothing to draw")
                save(figure, options.figure)
            print(options.figure)
    except (RunError, OSError) as error:
        print(f"compare.py: {error}", file=sys.stderr)
        return 2
    return 1 if apart else 0


if __name__ == "__main__":
    sys.exit(main())
