"""Smooth and other activations side by side (arXiv 2602.06208): what leaves the subspaces of the first gradient over time, and the
tail of the first gradient against the size of the start."""
import numpy as np

from draw_sweep import draws_sweep
from style import colours, headline, panels, plt, positive

MOST_LINES = 12


@draws_sweep
def draw_outside(sweep, runs, axis):
    """One line a member, a panel for each layer."""
    members = [(member, run) for member, run in zip(sweep.members, runs) if run is not None and "blocks" in run.groups
               and run.groups["blocks"].measured("outside_energy")]
    if not 2 <= len(members) <= 3 * MOST_LINES:
        return
    layers = max(run.groups["blocks"]["outside_energy"].shape[1] for _, run in members)
    figure, axes = panels(layers, width=3.9, height=3.3)
    varied = [key for key in sweep.keys if len({member.parameters[key] for member in sweep.members}) > 1]
    for (member, run), colour in zip(members, colours(len(members))):
        group = run.groups["blocks"]
        label = ", ".join(short(key, member) for key in varied)
        for layer, panel in enumerate(axes):
            panel.plot(group["step"], positive(group["outside_energy"][:, layer]), color=colour, label=label)
    for layer, panel in enumerate(axes):
        panel.set_title(f"layer {layer + 1}")
        panel.set_xlabel("step")
    axes[0].set_yscale("log")
    axes[0].set_ylabel("part of the change outside of the block")
    axes[-1].legend(loc="best", fontsize=6, ncols=1 + (len(members) > 8))
    last = [run.groups["blocks"]["outside_energy"][-1, 0] for _, run in members]
    headline(figure, f"Outside of the first gradient's subspaces at the end: {np.nanmin(last):.2g} to {np.nanmax(last):.2g}",
             f"{sweep.name}. Squared norm, relative to that of the whole change W(t) − W(0).")
    yield "outside_energy", figure


def short(key, member):
    text = member.parameters[key]
    return text if key in ("model.activation", "train.optimizer", "loss.kind") else f"{key.rpartition('.')[2]} {text}"


@draws_sweep
def draw_tail(sweep, runs, axis):
    """The K + 1 st singular value of the first gradient against epsilon, with its slope."""
    lines = {}
    for member, run in zip(sweep.members, runs):
        if run is None or "blocks" not in run.groups or "model.init.scale" not in member.parameters:
            continue
        group, scale = run.groups["blocks"], float(member.parameters["model.init.scale"])
        row = [scale] + [group[name][0, 0] for name in ("grad_first", "grad_kth", "grad_tail")]
        lines.setdefault(member.parameters.get("model.activation", ""), {})[scale] = row
    lines = {name: np.array(sorted(rows.values())) for name, rows in lines.items() if len(rows) > 1}
    if not lines:
        return
    figure, panel = plt.subplots(figsize=(6.2, 4.2))
    slopes = {}
    for (name, rows), colour in zip(lines.items(), colours(len(lines))):
        small = (rows[:, 0] <= 1.0001e-2) if (rows[:, 0] <= 1.0001e-2).sum() > 1 else slice(None)
        tail = rows[:, 3]
        label = name
        if (tail > 1e-14 * rows[:, 1]).all():
            slopes[name] = np.polyfit(np.log(rows[small, 0]), np.log(tail[small]), 1)[0]
            label = f"{name}: slope {slopes[name]:.2f}".replace("-0.00", "0.00")
        panel.plot(rows[:, 0], positive(tail), "o-", markersize=4, color=colour, label=label)
        panel.plot(rows[:, 0], rows[:, 1], color=colour, linewidth=0.7, linestyle=":")
        panel.plot(rows[:, 0], rows[:, 2], color=colour, linewidth=0.7, linestyle="--")
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlabel("size of the start ε")
    panel.set_ylabel("singular value of the first gradient")
    panel.legend(loc="best", fontsize=7)
    headline(figure, "Smooth activations leave a tail that vanishes with ε,\nkinks one that stays" if slopes else
             "Singular values of the first gradient", f"{sweep.name}. Points: $\\sigma_{{K+1}}$; dashed: $\\sigma_K$; dotted: $\\sigma_1$.")
    yield "gradient_tail", figure
