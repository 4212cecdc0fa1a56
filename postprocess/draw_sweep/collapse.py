"""Compression against layer, all members in one figure: the form of the paper on progressive collapse (arXiv 2306.01154)."""
import numpy as np

from draw_sweep import draws_sweep
from published import LOOK, mark
from style import MOST_PANELS, colours, headline, last_measured, panels, positive

MOST_MEMBERS = 36


@draws_sweep
def draw_compression(sweep, runs, axis):
    members = [(member, run) for member, run in zip(sweep.members, runs) if run is not None and "collapse" in run.groups
               and run.groups["collapse"].measured("compression")]
    if len(members) < 2 or len(members) > MOST_MEMBERS:
        return
    split = panel_key(sweep, axis)
    titles = list(dict.fromkeys(member.parameters.get(split) for member, _ in members))[:MOST_PANELS]
    figure, axes = panels(len(titles), width=3.9, height=3.4)
    slopes = []
    for panel, title in zip(axes, titles):
        chosen = [(member, run) for member, run in members if member.parameters.get(split) == title]
        slopes += draw_members(panel, sweep, split, chosen)
        if split:
            panel.set_title(f"{split.rpartition('.')[2]} {title}")
    axes[0].set_yscale("log")
    axes[0].set_ylabel("compression")
    for panel in axes:
        panel.set_xlabel("layer $l$ of the features")
        panel.tick_params(labelbottom=True)
        panel.legend(loc="best", fontsize=7)
    headline(figure, f"The classes contract by a factor {min(slopes):.2g} to {max(slopes):.2g} a layer" if slopes else
             "Compression of the features, layer by layer", f"{sweep.name}. Points: the last step; lines: fits; dashed: closed form.")
    yield "compression", figure


def panel_key(sweep, axis):
    """What the panels tell apart: the second parameter that has several values."""
    keys = [key for key in sweep.keys if key != axis.key and len({member.parameters[key] for member in sweep.members}) > 1]
    return keys[0] if keys else None


def draw_members(panel, sweep, split, chosen):
    slopes, marked = [], False
    for (member, run), colour in zip(chosen, colours(len(chosen))):
        group = run.groups["collapse"]
        row, layers = last_measured(group["compression"]), group["features"] - 1
        label = ", ".join(f"{key.rpartition('.')[2]} {text}" for key, text in member.parameters.items() if key != split)
        panel.plot(layers, positive(group["compression"][row]), "o", markersize=4, color=colour, label=label)
        slope, intercept = group["compression_fit"][row]
        if np.isfinite(slope):
            panel.plot(layers, np.exp(intercept + slope * layers), color=colour, linewidth=1.0)
            slopes.append(np.exp(slope))
        if group.measured("compression_theory"):
            panel.plot(layers, group["compression_theory"][row], color=colour, linestyle=(0, (4, 3)), linewidth=1.0)
        marked |= mark(panel, run, "collapse/compression", along="features", offset=-1)
    if marked:
        panel.plot([], [], label="published", **LOOK)
    return slopes
