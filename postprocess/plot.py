#!/usr/bin/env python3
"""Draws what a run measured, with published values where there are some: plot.py DIR… [--format png pdf] [--only NAME]

Figures go to DIR/figures. Each kind of probe has a module in `draw`. Exit code 2 if a directory cannot be drawn.
"""
import argparse
from pathlib import Path
import sys

from draw import DRAWERS
from published import compared_run, print_table
from runs import RunError, for_each, open_run
from style import STYLE, plt, save

NOT_DRAWN = {"provenance", "checks", "timing"}


def draw_run(run, extensions=("png",), only=None):
    """Draws all figures of a run, or those whose group or name is `only`; returns how many."""
    folder = run.path / "figures"
    folder.mkdir(exist_ok=True)
    drawn = 0
    for name, figure in figures_of_run(run, only):
        for extension in extensions:
            save(figure, folder / f"{name}.{extension}")
            print(folder / f"{name}.{extension}", flush=True)
        drawn += 1
    return drawn


def figures_of_run(run, only):
    """Yields (name, figure). A probe that cannot be drawn is skipped with a note: the others still can."""
    for group in run.groups.values():
        if group.name in NOT_DRAWN:
            continue
        try:
            for name, figure in figures_of_group(run, group):
                if only in (None, name, group.name):
                    yield name, figure
                plt.close(figure)
        except RunError as error:
            print(f"plot.py: {run.path}: {error}; skipped", file=sys.stderr)


def figures_of_group(run, group):
    draw = DRAWERS.get(group.kind)
    if draw is None:
        raise RunError(f"group {group.name}: nothing here draws probes of kind '{group.kind}'")
    if not len(group["step"]):
        raise RunError(f"group {group.name} holds no measurement yet")
    yield from draw(run, group)


def arguments():
    parser = argparse.ArgumentParser(description="Draws what runs measured into DIR/figures.")
    parser.add_argument("directories", metavar="DIR", nargs="+", type=Path, help="directory of a run")
    parser.add_argument("--format", choices=("png", "pdf"), nargs="+", default=["png"], help="png (default), pdf, or both")
    parser.add_argument("--only", metavar="NAME", help="only this figure, or the figures of this probe")
    return parser.parse_args()


def plot(directory, options):
    run = open_run(directory)
    with plt.rc_context(STYLE):
        drawn = draw_run(run, options.format, options.only)
    if not options.only:
        print_table(compared_run(run))
    if options.only and not drawn:
        raise RunError(f"{directory}: no figure or probe '{options.only}' (it has: {', '.join(run.groups)})")


def main():
    options = arguments()
    return for_each("plot.py", options.directories, lambda directory: plot(directory, options))


if __name__ == "__main__":
    sys.exit(main())
