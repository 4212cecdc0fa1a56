"""Steps and seconds to the tolerance of a network and its twins, over the swept parameter: mean and standard deviation."""
import numpy as np

from draw_sweep import draws_sweep
from published import draw_values, entries, same
from style import GREY, colours, headline, plt


@draws_sweep
def draw_twins(sweep, runs, axis):
    names = sorted({group.name for run in filter(None, runs) for group in run.groups.values() if group.kind == "twin"})
    lines = {"large network": GREY, **dict(zip(names, colours(len(names))))} if names else {}
    steps = {name: [steps_of(run, names[0], name) for run in runs] for name in lines}
    if not any(np.isfinite(values).any() for values in steps.values()):
        return
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.2, 3.5))
    known = [entry for entry in entries(sweep.study) if entry.figure == "twins_steps"]
    for name, colour in lines.items():
        draw_line(left, sweep, axis, steps[name], color=colour, label=name)
        draw_line(right, sweep, axis, [seconds_of(run, names[0], name) for run in runs], color=colour)
        for entry in known:
            if same(name, entry.where.get("twin")):
                draw_values(left, entry, entry.at, color=colour)
    for panel, label in ((left, "steps to the tolerance"), (right, "seconds to the tolerance")):
        axis.prepare(panel)
        panel.set_ylabel(label)
        panel.set_ylim(bottom=0)
    left.legend(loc="best", fontsize=7.5)
    headline(figure, message(steps, names), f"{sweep.name}. Mean and standard deviation of all seeds" + "; diamonds: published." * bool(known))
    yield "twins_steps", figure


def steps_of(run, first, name):
    """The last word of the series; the large network's is that of the first twin's tolerance."""
    if run is None or (name if name in run.groups else first) not in run.groups:
        return np.nan
    return run.groups[name]["its_to_tol"][-1] if name in run.groups else run.groups[first]["network_its_to_tol"][-1]


def seconds_of(run, first, name):
    timing = run.groups.get("timing") if run is not None else None
    if timing is None or "twin_name" not in timing:
        return np.nan
    names = [str(each) for each in timing["twin_name"]]
    if name in names:
        return timing["twin_time_to_tol"][names.index(name)]
    return timing["network_time_to_tol"][names.index(first)]


def draw_line(panel, sweep, axis, values, **look):
    found = {}
    for member, value in zip(sweep.members, values):
        if np.isfinite(value):
            found.setdefault(member.parameters[axis.key], []).append(value)
    places = [(place, found[text]) for place, text in zip(axis.positions(), axis.values) if text in found]
    if places:
        panel.errorbar([place for place, _ in places], [np.mean(group) for _, group in places],
                       [np.std(group, ddof=1) if len(group) > 1 else 0 for _, group in places], marker="o", markersize=3.5,
                       capsize=2.5, **look)


def message(steps, names):
    """How the first twin compares with the others."""
    means = {name: np.nanmean(values) for name, values in steps.items() if np.isfinite(values).any()}
    if len(names) < 2 or not all(name in means for name in names[:2]):
        return "Steps to the tolerance"
    few, many = sorted(names[:2], key=means.get)
    ratio = np.asarray(steps[many]) / np.asarray(steps[few])
    return f"Twin {few} needs {np.nanmin(ratio):.2g} to {np.nanmax(ratio):.2g} times fewer steps than {many}"
