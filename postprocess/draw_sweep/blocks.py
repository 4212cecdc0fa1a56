"""Smooth and other activations side by side (arXiv 2602.06208): what leaves the subspaces of the first gradient over time, and the
tail of the first gradient against the size of the start."""
import numpy as np

from draw_sweep import draws_sweep
from published import entries, same
from style import BLUE, GREEN, GREY, ORANGE, PINK, colours, headline, last_measured, panels, plt, positive

MOST_LINES = 12
FLOOR = 1e-8  # what is below is rounding, of linear networks
LOOK = {"linear": (GREY, "-"), "tanh": (BLUE, "-"), "elu": (GREEN, "-"), "silu": (ORANGE, "-"), "gelu": (PINK, "-"),
        "relu": ("black", "--"), "leaky_relu": ("black", ":")}
NAME = {"tanh": "tanh", "elu": "ELU", "silu": "SiLU", "gelu": "GELU", "relu": "ReLU", "leaky_relu": "leaky ReLU"}
KINKED = ("relu", "leaky_relu")
EXPECTED_SLOPE = {"tanh": 2, "elu": 1, "silu": 1, "gelu": 1, "relu": 0, "leaky_relu": 0}


def varied(sweep):
    return [key for key in sweep.keys if len({member.parameters[key] for member in sweep.members}) > 1]


def measured_blocks(sweep, runs):
    """(member, run, group) of those that have something to show."""
    there = [(member, run, run.groups["blocks"]) for member, run in zip(sweep.members, runs)
             if run is not None and "blocks" in run.groups]
    return [each for each in there if each[2].measured("outside_energy")]


def at_end(group, name, layer):
    values = group[name][:, layer]
    return values[last_measured(values)]


@draws_sweep
def draw_outside(sweep, runs, axis):
    """One line a member, a panel for each layer."""
    members = measured_blocks(sweep, runs)
    if not 2 <= len(members) <= MOST_LINES:
        return
    layers = max(group["outside_energy"].shape[1] for _, _, group in members)
    figure, axes = panels(layers, width=3.9, height=3.3)
    keys, expected = varied(sweep), False
    for (member, run, group), colour in zip(members, colours(len(members))):
        label = ", ".join(short(key, member) for key in keys)
        tint, line = LOOK.get(label, (colour, "-"))
        for layer, panel in enumerate(axes):
            panel.plot(group["step"], positive(group["outside_energy"][:, layer]), color=tint, linestyle=line,
                       label=NAME.get(label, label))
            expected |= mark_expected(panel, sweep, member, group["step"][-1], layer + 1, tint)
    low = min(np.nanmin(positive(group["outside_energy"])) for _, _, group in members)
    for layer, panel in enumerate(axes):
        panel.set_title(f"layer {layer + 1}")
        panel.set_xlabel("step")
        panel.set_yscale("log")
        if low < FLOOR:
            panel.set_ylim(FLOOR, 2)
    axes[0].set_ylabel("part of the change outside of the block")
    axes[-1].legend(loc="lower right", fontsize=7, ncols=2)
    headline(figure, outside_message(members), f"{sweep.name}. Squared norm, relative to that of the whole change W(t) − W(0)."
             + (" Linear: below the panel." if low < FLOOR else ""),
             "Bars at the end: range of the specification's draws." if expected else "")
    yield "outside_energy", figure


def mark_expected(panel, sweep, member, step, layer, colour):
    """The range over other draws, beside the end of the line."""
    drawn = False
    for entry in entries(sweep.study):
        fits = all(same(member.parameters.get(key), value) for key, value in entry.where.items())
        if entry.quantity != "blocks/outside_energy" or not fits or not entry.range or entry.select.get("layer") != layer \
                or entry.range[0] < FLOOR:
            continue
        panel.plot([1.03 * step] * 2, entry.range, color=colour, linewidth=4, solid_capstyle="butt", alpha=0.6)
        drawn = True
    return drawn


def outside_message(members):
    """Of the first layer: smooth, kinked, and linear ones."""
    groups = {"smooth": [], "kinked": [], "linear": []}
    for member, run, group in members:
        kind = run.setting("model.activation")
        kind = "kinked" if kind in KINKED else "linear" if kind == "linear" else "smooth"
        groups[kind].append(at_end(group, "outside_energy", 0))
    parts = [f"{name} {spread(values)}" for name, values in groups.items() if values]
    return f"Outside of the first gradient's block at the end, layer 1:\n{', '.join(parts)}"


def spread(values):
    low, high = f"{min(values):.2g}", f"{max(values):.2g}"
    return low if low == high else f"{low} … {high}"


def short(key, member):
    text = member.parameters[key]
    return text if key in ("model.activation", "train.optimizer", "loss.kind") else f"{key.rpartition('.')[2]} {text}"


@draws_sweep
def draw_tail(sweep, runs, axis):
    """The K + 1 st singular value of the first gradient against epsilon, with its slope: of starts that are not trained."""
    lines = {}
    for member, run in zip(sweep.members, runs):
        if run is None or "blocks" not in run.groups or "model.init.scale" not in member.parameters:
            continue
        group, scale = run.groups["blocks"], float(member.parameters["model.init.scale"])
        row = [scale] + [group[name][0, 0] for name in ("grad_first", "grad_kth", "grad_tail")]
        lines.setdefault(member.parameters.get("model.activation", ""), {})[scale] = row
    lines = {name: np.array(sorted(rows.values())) for name, rows in lines.items() if len(rows) > 1}
    if not lines or measured_blocks(sweep, runs):
        return
    figure, panel = plt.subplots(figsize=(7.2, 4.6))
    slopes = {name: draw_tail_line(panel, name, rows) for name, rows in lines.items()}
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlabel("size of the start ε")
    panel.set_ylabel(r"$\sigma_{K+1}$ of the first gradient")
    panel.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8)
    found = "; ".join(f"{NAME.get(name, name)} {slope:.2f}" for name, slope in slopes.items() if np.isfinite(slope))
    headline(figure, "Smooth activations leave a tail that vanishes with ε,\nkinks one that stays",
             f"{sweep.name}. Points: $\\sigma_{{K+1}}$; thin lines: $\\sigma_K$. Slopes found: {found}.", ratio_note(lines))
    yield "gradient_tail", figure


def draw_tail_line(panel, name, rows):
    """Returns the slope, of epsilon up to 0.01; NaN where there is only rounding."""
    small = rows[:, 0] <= 1.0001e-2
    small = small if small.sum() > 1 else slice(None)
    tail, (colour, line) = rows[:, 3], LOOK.get(name, (GREY, "-"))
    slope = np.nan
    label = f"{NAME.get(name, name)}: rounding"
    if (tail > 1e-14 * rows[:, 1]).all():
        slope = np.round(np.polyfit(np.log(rows[small, 0]), np.log(tail[small]), 1)[0], 2) + 0  # no "-0.00"
        label = f"{NAME.get(name, name)}: slope {slope:.2f} (theory {EXPECTED_SLOPE.get(name, '?')})"
    panel.plot(rows[:, 0], positive(tail), "o", linestyle=line, markersize=4, color=colour, label=label)
    panel.plot(rows[:, 0], rows[:, 2], color=colour, linewidth=0.6, linestyle=line)
    return slope


def ratio_note(lines):
    if not {"gelu", "silu"} <= set(lines):
        return ""
    ratio = lines["gelu"][0, 3] / lines["silu"][0, 3]
    return f"GELU over SiLU at the smallest ε: {ratio:.7g}; theory: 2√(2/π) = 1.595769."
