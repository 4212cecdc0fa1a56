#!/usr/bin/env python3
"""What the members of a sweep came to, over the swept parameters: collect.py SWEEPDIR… [--format png pdf] [--only NAME]

Prints a table and draws one figure a quantity into SWEEPDIR/figures: the final scalars that matter most, how many steps
the members took to a loss that all of them reach, how many singular values moved, how far the leading subspaces turned.
The first swept parameter is the horizontal axis, the second one tells the lines apart, a third one the panels; seeds
and what is beyond are averaged, with bars for the standard deviation. NAME is one of the figures or any column of
members.csv, such as train/gradient_norm. Exit code 2 if a directory cannot be collected.
"""
import argparse
import itertools
from pathlib import Path
import sys

import numpy as np

from draw_sweep import DRAWERS
from published import Compared, compared_members, compared_run, draw_values, entries, print_table, same
from quantities import quantities
from runs import RunError, for_each
from style import GREY, STYLE, colours, headline, plt, save, sentence
from sweeps import axes_of, open_sweep, runs_of

MOST_PANELS, MOST_LINES, MOST_CELLS = 8, 12, 144


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
    cells = len(axes) > 1 and mean.size <= MOST_CELLS
    figure, panels, maps = places_of(count, cells, bool(spare))
    for position in range(count):
        inside = (..., position) if spare else ...
        draw_lines(panels[position], quantity, mean[inside], deviation[inside], axes[:2])
        if spare:
            panels[position].set_title(f"{spare[0].label} {spare[0].values[position]}")
        if cells:
            draw_cells(figure, maps[position], quantity, mean[inside], axes)
    panels[0].set_ylabel(wrapped(quantity.label))
    if len(axes) > 1:
        panels[count - 1].legend(title=axes[1].label.replace("_", " "), loc="best", fontsize=8, title_fontsize=8)
    if not spare:
        mark_published(panels[0], sweep, quantity, axes)
    shown = f"{count} of {len(spare[0].values)} values of {spare[0].label} shown." if spare and \
        count < len(spare[0].values) else ""
    headline(figure, message(quantity, mean, axes), " ".join(filter(None, [f"{sweep.name}.", influence(mean, axes)])),
             " ".join(filter(None, [averaging(averaged, deviation), omitted(sweep), shown])), quantity.note)
    return figure


def places_of(count, cells, spare):
    """Lines, and for each panel a heat map: beside a lone one, below several."""
    rows, columns = (1 + cells, count) if spare else (1, 1 + cells)
    figure, axes = plt.subplots(rows, columns, figsize=(max(3.4 * columns, 6.0) + 0.8, 0.7 + 3.2 * rows), squeeze=False,
                                sharey="row" if spare else False)
    return figure, axes[0], axes[-1][-count:]


def mark_published(axis, sweep, quantity, axes):
    """Diamonds, in the colour of the line to which they belong."""
    tints = dict(zip(axes[1].values, colours(len(axes[1].values)))) if len(axes) > 1 else {}
    for entry in entries(sweep.study):
        if entry.figure == quantity.name:
            wanted = entry.where.get(axes[1].key) if len(axes) > 1 else None
            tint = {"color": colour for text, colour in tints.items() if same(text, wanted)}
            draw_values(axis, entry, entry.at, label=f"{entry.what}: published", **tint)
            axis.legend(loc="best", fontsize=7)


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
        there = np.isfinite(lines[:, line])
        axis.errorbar(axes[0].positions()[there], lines[there, line], bars[there, line], color=colour, label=label, marker="o",
                      linestyle="-" if axes[0].connects() else "none", markersize=3.5, capsize=2.5, elinewidth=0.9)
    axes[0].prepare(axis)
    finite = lines[np.isfinite(lines)]
    if quantity.log and finite.size and finite.min() > 0 and finite.max() > 10 * finite.min():
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
def print_members(sweep, drawn, axes):
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
def collect(directory, extensions=("png",), only=None):
    """Returns published values beside ours."""
    sweep = open_sweep(directory)
    print(f"{directory}: {len(sweep.members)} members over {', '.join(sweep.keys)}. {omitted(sweep)}".rstrip())
    if not sweep.done():
        raise RunError(f"{directory}: no member is done yet")
    axes, averaged = axes_of(sweep)
    runs = [] if only in sweep.columns else runs_of(sweep)
    chosen = [quantity for quantity in quantities(sweep, runs, only)
              if only in (None, quantity.name) or only in sweep.columns]
    special = special_figures(sweep, runs, axes, only)
    if only and not chosen and not special:
        raise RunError(f"{directory}: no figure or column '{only}' (columns: {', '.join(sweep.columns)})")
    print_members(sweep, [quantity for quantity in chosen if np.isfinite(quantity.values).any()], axes)
    compared = [] if only else compared_sweep(sweep, runs, chosen)
    print_table(compared)
    (sweep.path / "figures").mkdir(exist_ok=True)
    for name, figure in [*((quantity.name, draw(sweep, quantity, axes, averaged)) for quantity in chosen), *special]:
        if figure is not None:
            for extension in extensions:
                save(figure, sweep.path / "figures" / f"{name}.{extension}")
                print(sweep.path / "figures" / f"{name}.{extension}", flush=True)
            plt.close(figure)
    return compared


def special_figures(sweep, runs, axes, only):
    """Figures of more than one number a member."""
    return [(name, figure) for drawer in DRAWERS if axes for name, figure in drawer(sweep, runs, axes[0]) if only in (None, name)]


def compared_sweep(sweep, runs, chosen):
    """Published values beside ours: means of members, and of the members' own series."""
    rows = []
    for entry in entries(sweep.study):
        quantity = next((each for each in chosen if each.name == entry.figure), None)
        if quantity is None:
            continue
        known = [(member, value) for member, value in zip(sweep.members, quantity.values) if np.isfinite(value)
                 and all(same(member.parameters.get(key), wanted) for key, wanted in entry.where.items())]
        key = sweep.keys[0]
        ours = [[value for member, value in known if same(member.parameters[key], place)] for place in entry.at]
        rows.append(Compared(entry, np.array([np.mean(values) if values else np.nan for values in ours])))
    rows += compared_members(sweep.study, runs)
    for member, run in zip(sweep.members, runs):
        rows += compared_run(run, member.name) if run else []
    return rows


def arguments():
    parser = argparse.ArgumentParser(description="Tables and figures of sweeps, into SWEEPDIR/figures.")
    parser.add_argument("directories", metavar="SWEEPDIR", nargs="+", type=Path, help="directory of a sweep")
    parser.add_argument("--format", choices=("png", "pdf"), nargs="+", default=["png"], help="png (default), pdf, or both")
    parser.add_argument("--only", metavar="NAME", help="only this figure, or this column of members.csv")
    return parser.parse_args()


def main():
    options = arguments()
    with plt.rc_context(STYLE):
        return for_each("collect.py", options.directories, lambda directory: collect(directory, options.format, options.only))


if __name__ == "__main__":
    sys.exit(main())
