#!/usr/bin/env python3
"""Draws what a run measured: plot.py DIR… [--format png|pdf] [--only NAME]

Figures go to DIR/figures. Each kind of probe has one drawing function, registered by `@draws(kind)`; it gets the run
and the probe's group and yields (name, figure). Exit code 2 if a directory cannot be drawn.
"""
import argparse
import os
from pathlib import Path
import sys

import h5py
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402 (the backend must be chosen first)
from matplotlib.cm import ScalarMappable  # noqa: E402
from matplotlib.colors import Normalize  # noqa: E402
from matplotlib.lines import Line2D  # noqa: E402
from matplotlib.ticker import MaxNLocator  # noqa: E402
import numpy as np  # noqa: E402

from runs import RunError, open_run  # noqa: E402

# Okabe and Ito's colours: told apart with every kind of colour vision.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
STYLE = {
    "figure.dpi": 130,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "figure.constrained_layout.use": True,
}
NOT_DRAWN = {"provenance", "checks", "timing"}
MOST_PANELS = 12
# A singular value "moves" if it changes by more than this fraction of the largest change in its matrix.
MOVING = 0.1

DRAWERS = {}


def draws(kind):
    """Registers the drawing function of a kind of probe."""
    def register(function):
        DRAWERS[kind] = function
        return function
    return register


# ---------------------------------------------------------------- what figures share
def colours(count):
    """Viridis without its palest end, which vanishes on white."""
    return plt.get_cmap("viridis")(np.linspace(0, 0.92, max(count, 2)))[:count]


def shown(count, most=MOST_PANELS):
    """At most `most` positions among `count`, evenly spread, first and last included."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def panels(count, width=2.9, height=2.5, most_columns=4):
    """A figure of small multiples that share their axes; returns it and the axes that are used."""
    columns = min(count, most_columns)
    rows = -(-count // columns)
    # One lone panel still needs the width that its title takes.
    size = (max(columns * width, 6.0) + 0.8, rows * height + 0.9)
    figure, axes = plt.subplots(rows, columns, figsize=size, sharex=True, sharey=True, squeeze=False)
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    for column, axis in enumerate(axes.flat[:count]):
        # Where the panel below is missing, this one carries the labels of the shared axis.
        axis.tick_params(labelbottom=column + columns >= count)
    return figure, axes.flat[:count]


def label_outer(axes, xlabel, ylabel):
    """Axis labels on the left column and on the lowest panel of each column only."""
    columns = axes[0].get_subplotspec().get_gridspec().ncols
    for position, axis in enumerate(axes):
        if position % columns == 0:
            axis.set_ylabel(ylabel)
        if position + columns >= len(axes):
            axis.set_xlabel(xlabel)


def headline(figure, title, *notes):
    """What the figure says, in bold, and below it in small what the reader must know."""
    figure.suptitle(title, fontsize=11, fontweight="bold")
    # supxlabel keeps its own room in a constrained layout, below the panels.
    figure.supxlabel("\n".join(note for note in notes if note), fontsize=7.5, color=GREY)


def sentence(message):
    return message[:1].upper() + message[1:]


def identity(run):
    return f"{run.name}: {describe_network(run)}".replace("$", r"\$")


def describe_network(run):
    """`784–256–256–10, gelu, trained on fashion_mnist`, as far as the run tells."""
    widths = run.widths()
    if widths:
        shape = "–".join(map(str, widths)) if len(widths) <= 8 else \
            f"{widths[0]}–{widths[1]}–…–{widths[-1]} ({len(widths) - 1} layers)"
    else:
        parts = [f"{key} {run.setting('model.' + key)}" for key in ("width", "depth") if run.setting("model." + key)]
        shape = ", ".join(parts) or "network of unknown widths"
    activation = run.setting("model.activation")
    data = run.setting("data.kind")
    return ", ".join(filter(None, [shape, activation, f"trained on {data}" if data else None]))


def line_style(steps, values=None):
    """Few measurements are shown one by one, and so are those between gaps, where no line leads to them."""
    few = len(steps) <= 15
    return {"marker": "o", "markersize": 2.5} if few or (values is not None and has_isolated(values)) else {}


def has_isolated(values):
    """Whether there is a number between two NaN along the first axis."""
    there = np.isfinite(values)
    return bool((there[1:-1] & ~there[:-2] & ~there[2:]).any())


def index_colourbar(figure, axes, count, label):
    if count < 2:
        return
    norm = Normalize(0.5, count + 0.5)
    cmap = matplotlib.colors.ListedColormap(colours(count))
    bar = figure.colorbar(ScalarMappable(norm, cmap), ax=list(axes), label=label, pad=0.02, aspect=30)
    bar.ax.yaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    bar.ax.invert_yaxis()  # the leading one on top, as in the panels
    bar.outline.set_visible(False)


def matrix_name(group, layer):
    return {"weights": f"$W_{{{layer}}}$", "gradient": f"gradient by $W_{{{layer}}}$",
            "update": f"update of $W_{{{layer}}}$", "product": "product of all layers"}.get(
                str(group.attributes.get("of", "weights")), f"layer {layer}")


def what(group):
    """What the singular values are of, for a headline; nothing for weights, the usual case."""
    return {"gradient": " of the gradient", "update": " of the update", "product": " of the end-to-end product"}.get(
        str(group.attributes.get("of", "weights")), "")


def layer_note(layers, positions):
    return f"{len(positions)} of {len(layers)} layers shown. " if len(positions) < len(layers) else ""


# ---------------------------------------------------------------- training
@draws("train")
def draw_training(run, group):
    rows = [row for row in (loss_panel, gradient_panel, accuracy_panel) if row(group, None)]
    if not rows:
        return
    figure, axes = plt.subplots(len(rows), 1, figsize=(6.4, 1.0 + 1.9 * len(rows)), sharex=True, squeeze=False)
    for row, axis in zip(rows, axes.flat):
        row(group, axis)
    axes.flat[-1].set_xlabel(group.label("step"))
    headline(figure, identity(run), sentence(training_message(group)))
    yield "training", figure


def training_message(group):
    loss = group["loss"][np.isfinite(group["loss"])] if "loss" in group else []
    if len(loss) < 2:
        return "training"
    text = f"the training loss goes from {loss[0]:.3g} to {loss[-1]:.3g}"
    if group.measured("test_accuracy"):
        accuracy = group["test_accuracy"]
        text += f", test accuracy {100 * accuracy[np.isfinite(accuracy)][-1]:.1f} %"
    return text


def loss_panel(group, axis):
    """Each panel function says whether it has anything to draw, and draws it if given an axis."""
    return curves(group, axis, {"loss": (BLUE, "training"), "test_loss": (ORANGE, "test")}, "loss", log=True)


def gradient_panel(group, axis):
    return curves(group, axis, {"gradient_norm": (GREEN, None)}, "gradient norm", log=True)


def accuracy_panel(group, axis):
    drawn = curves(group, axis, {"train_accuracy": (BLUE, "training"), "test_accuracy": (ORANGE, "test")}, "accuracy")
    if drawn and axis is not None:
        axis.set_ylim(None, 1.0)
    return drawn


def curves(group, axis, lines, ylabel, log=False):
    lines = {name: look for name, look in lines.items() if group.measured(name)}
    for name, (colour, label) in lines.items() if axis is not None else ():
        variable = group.variable(name)
        coordinate = variable.dims[0] if variable.dims and variable.dims[0] in group else "step"
        there = np.isfinite(variable.values)
        steps = group[coordinate][there]
        axis.plot(steps, variable.values[there], color=colour, label=label, **line_style(steps))
    if lines and axis is not None:
        units = group.variable(next(iter(lines))).attributes.get("units", "1")
        axis.set_ylabel(ylabel if units in ("", "1") else f"{ylabel} ({units})")
        axis.set_yscale("log" if log else "linear")
        if any(label for _, label in lines.values()):
            axis.legend(loc="best")
    return bool(lines)


# ---------------------------------------------------------------- spectrum
@draws("spectrum")
def draw_spectrum(run, group):
    if group.measured("singular_value"):
        yield group.name, draw_singular_values(run, group)
    if any(group.measured(name) for name in RANKS):
        yield f"{group.name}_rank", draw_ranks(run, group)


def draw_singular_values(run, group):
    values, layers, steps = group["singular_value"], group["layer"], group["step"]
    positions = shown(len(layers))
    count = int(np.isfinite(values).any(axis=(0, 1)).sum())
    figure, axes = panels(len(positions))
    for axis, position in zip(axes, positions):
        axis.set_prop_cycle(color=colours(count))
        # A zero has no place on a log axis.
        positive = np.where(values[:, position, :count] > 0, values[:, position, :count], np.nan)
        axis.plot(steps, positive, linewidth=1.0, **line_style(steps, positive))
        axis.set_yscale("log")
        axis.set_title(matrix_name(group, layers[position]))
    label_outer(axes, group.label("step"), group.label("singular_value"))
    index_colourbar(figure, axes, count, group.label("index") if "index" in group else "index")
    meaning = f"“Move”: change by more than {MOVING:.0%} of the largest change in the same matrix."
    headline(figure, sentence(spectrum_message(run, group)), identity(run), layer_note(layers, positions) +
             unconverged_note(group), meaning if len(steps) > 1 else "")
    return figure


def spectrum_message(run, group):
    """What the picture shows, in one line: how many singular values move."""
    values = group["singular_value"]
    subject = f"singular values{what(group)}"
    if len(values) < 2:
        return subject
    measured = np.isfinite(values).any(axis=0).sum(axis=-1)
    known = np.flatnonzero(measured)  # the layers of which there is anything to say
    moves = [moving(values[:, position]) for position in known]
    numbers = [int(flags.sum()) for flags in moves]
    if max(numbers) == 0:
        return f"the {subject} do not move"
    measured = measured[known].tolist()
    ranks = matrix_ranks(run, group)
    totals = [ranks[position] for position in known] if ranks else measured
    if numbers == measured:
        return f"all {subject} move" if measured == totals else f"all measured {subject} move"
    leading = "the leading " if all(flags[:number].all() for flags, number in zip(moves, numbers)) else ""
    return f"{leading}{span(numbers)} of {'up to ' * (len(set(totals)) > 1)}{max(totals)} {subject} move"


def span(numbers):
    return str(max(numbers)) if len(set(numbers)) == 1 else f"{min(numbers)}–{max(numbers)}"


def moving(values):
    """Which of the singular values (step, index) move."""
    there = np.isfinite(values)
    high = np.where(there, values, -np.inf).max(axis=0)
    low = np.where(there, values, np.inf).min(axis=0)
    change = np.where(there.any(axis=0), high - low, 0.0)
    # Rounding is no movement.
    floor = 1e-9 * np.max(high, initial=0.0, where=np.isfinite(high))
    return change > max(MOVING * change.max(initial=0.0), floor)


def matrix_ranks(run, group):
    """min(m, n) of each measured matrix, or None if the widths are not known."""
    widths = run.widths()
    if not widths:
        return None
    if str(group.attributes.get("of")) == "product":
        return [min(widths)]
    if max(group["layer"]) >= len(widths):
        return None
    return [min(widths[layer - 1], widths[layer]) for layer in group["layer"]]


def unconverged_note(group):
    if "converged" not in group:
        return ""
    # What no solve has found is not known to exist (padding), but a first singular value always does.
    wanted = np.maximum(np.isfinite(group["singular_value"]).any(axis=0).sum(axis=-1), 1)
    missing = int((group["converged"] < wanted).sum())
    return f"{missing} of {group['converged'].size} solves did not converge fully (gaps). " if missing else ""


RANKS = ("stable_rank", "effective_rank", "numerical_rank")


def draw_ranks(run, group):
    names = [name for name in RANKS if group.measured(name)]
    layers, steps = group["layer"], group["step"]
    figure, axes = panels(len(names), width=3.2, height=2.8)
    for axis, name in zip(axes, names):
        for position, colour in enumerate(colours(len(layers))):
            label = matrix_name(group, layers[position]) if position in shown(len(layers), 6) else None
            values = group[name][:, position]
            axis.plot(steps, values, color=colour, label=label, **line_style(steps, values))
        axis.set_title(name.replace("_", " "))
    axes[0].set_ylim(bottom=0)  # shared; earlier it would end the automatic choice of the upper end
    label_outer(axes, group.label("step"), "rank")
    axes[-1].legend(loc="best")
    headline(figure, sentence(rank_message(group, names[0])), identity(run))
    return figure


def rank_message(group, name):
    values = group[name]
    finite = values[np.isfinite(values).all(axis=1)]
    text = name.replace("_", " ")
    if len(finite) < 2:
        return text + what(group)
    first, last = np.median(finite[0]), np.median(finite[-1])
    return f"the median {text}{what(group)} goes from {first:.3g} to {last:.3g}"


# ---------------------------------------------------------------- subspace
@draws("subspace")
def draw_subspace(run, group):
    if group.measured("angle_left") or group.measured("angle_right"):
        yield group.name, draw_angles(run, group)
    if group.measured("alignment"):
        yield f"{group.name}_alignment", draw_alignment(run, group)


SIDES = {"angle_left": "-", "angle_right": "--"}


def draw_angles(run, group):
    sides = {name: style for name, style in SIDES.items() if group.measured(name)}
    layers, steps = group["layer"], group["step"]
    count = group[next(iter(sides))].shape[-1]
    positions = shown(len(layers))
    figure, axes = panels(len(positions))
    for axis, position in zip(axes, positions):
        for name, style in sides.items():
            axis.set_prop_cycle(color=colours(count))
            degrees = np.degrees(group[name][:, position])
            axis.plot(steps, degrees, linestyle=style, **line_style(steps, degrees))
        axis.set_title(matrix_name(group, layers[position]))
        mark_reference(axis, group)
    axes[0].set_ylim(bottom=0)
    label_outer(axes, group.label("step"), "principal angle (degrees)")
    axes[0].legend(handles=[Line2D([], [], color=GREY, linestyle=style, label=name.removeprefix("angle_"))
                            for name, style in sides.items()], loc="best")
    index_colourbar(figure, axes, count, "principal angle, smallest first")
    headline(figure, sentence(angle_message(group, sides)), identity(run), layer_note(layers, positions) + flag_note(group))
    return figure


def angle_message(group, sides):
    count = group[next(iter(sides))].shape[-1]
    largest = np.nanmax(np.stack([group[name] for name in sides]), axis=(0, 1, 3), initial=-1.0)
    position = int(np.argmax(largest))
    return (f"the leading {count}-dimensional singular subspaces{what(group)} turn by up to "
            f"{np.degrees(largest[position]):.3g}° (layer {group['layer'][position]})")


def mark_reference(axis, group):
    step = np.atleast_1d(group.attributes.get("reference_step", -1))
    if step.size == 1 and step[0] > 0:
        axis.axvline(step[0], color=GREY, linewidth=0.8, linestyle=":")


FLAGS = {1: "before the reference", 2: "gap closed", 3: "not converged"}


def flag_note(group):
    """Why there are gaps in the curves."""
    if "flag" not in group:
        return ""
    counts = {reason: int((group["flag"] == flag).sum()) for flag, reason in FLAGS.items()}
    reasons = ", ".join(f"{reason}: {count}" for reason, count in counts.items() if count)
    return f"Left out, of {group['flag'].size} measurements: {reasons}." if reasons else ""


def draw_alignment(run, group):
    values, steps = group["alignment"], group["step"]
    interfaces = group["interface"] if "interface" in group else np.arange(1, values.shape[1] + 1)
    positions = shown(len(interfaces), 6)
    count = min(values.shape[2:])
    figure, axes = plt.subplots(2, len(positions), figsize=(max(2.4 * len(positions), 6.0) + 1.0, 5.6), squeeze=False,
                                sharey="row", height_ratios=(1.15, 1))
    for column, position in enumerate(positions):
        image = heat_map(axes[0, column], values[:, position], steps, interfaces[position])
        axis = axes[1, column]
        axis.set_prop_cycle(color=colours(count))
        axis.plot(steps, np.diagonal(values[:, position], axis1=1, axis2=2), **line_style(steps))
        axis.set_ylim(0, 1.02)
        axis.set_xlabel(group.label("step"))
    axes[0, 0].set_ylabel("left vector of the lower layer, $i$")
    axes[1, 0].set_ylabel("$|\\langle u_i, v_i\\rangle|$")
    bar = figure.colorbar(image, ax=list(axes[0]), label="$|\\langle u_i, v_j\\rangle|$", pad=0.02,
                          panchor=False)
    bar.outline.set_visible(False)
    index_colourbar(figure, axes[1], count, "index $i$")
    note = f"{len(positions)} of {len(interfaces)} interfaces shown." if len(positions) < len(interfaces) else ""
    headline(figure, sentence(alignment_message(values, steps)), identity(run), note)
    return figure


def last_measured(values):
    """Row of the last step at which anything was measured; the last row if nothing was."""
    rows = np.flatnonzero(np.isfinite(values).reshape(len(values), -1).any(axis=1))
    return rows[-1] if rows.size else len(values) - 1


def heat_map(axis, values, steps, interface):
    row = last_measured(values)
    left, right = values.shape[1:]
    image = axis.imshow(values[row], vmin=0, vmax=1, cmap="Blues", extent=(0.5, right + 0.5, left + 0.5, 0.5))
    axis.grid(False)
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axis.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axis.set_xlabel("right vector of the upper layer, $j$")
    axis.set_title(f"$W_{{{interface}}} \\to W_{{{interface + 1}}}$, step {steps[row]}")
    return image


def alignment_message(values, steps):
    row = last_measured(values)
    mean = np.nanmean(np.diagonal(values[row], axis1=1, axis2=2)) if np.isfinite(values[row]).any() else np.nan
    return f"singular vectors of neighbouring layers: mean alignment {mean:.2f} at step {steps[row]}"


# ---------------------------------------------------------------- law of parsimony
@draws("invariant")
def draw_invariant(run, group):
    if group.measured("rho"):
        yield group.name, draw_scalars(run, group)
        yield f"{group.name}_residual", draw_residuals(run, group)
    if group.measured("angle_right"):
        yield f"{group.name}_angles", draw_turns(run, group)


def draw_scalars(run, group):
    """The paper's figure: the singular values of the moving block leave, all others stay one: rho, as the theorem says."""
    layers, steps, blocks = group["layer"], group["step"], group["block_singular_value"]
    positions = shown(len(layers))
    figure, axes = panels(len(positions))
    theory = group.measured("rho_theory")
    for axis, position in zip(axes, positions):
        axis.plot(steps, blocks[:, position], color=GREY, linewidth=0.9)
        axis.plot(steps, group["rho"][:, position], color=BLUE, linewidth=2.4)
        if theory:
            axis.plot(steps, group["rho_theory"][:, position], color=ORANGE, linestyle=(0, (3, 3)))
        axis.set_title(f"$W_{{{layers[position]}}}$")
    handles = [Line2D([], [], color=BLUE, linewidth=2.4, label="all others: ρ"),
               Line2D([], [], color=GREY, linewidth=0.9, label="of the moving block")]
    if theory:
        handles.insert(1, Line2D([], [], color=ORANGE, linestyle=(0, (3, 3)), label="ρ by the theorem"))
    axes[0].legend(handles=handles, loc="best", fontsize=7)
    label_outer(axes, group.label("step"), "singular value")
    headline(figure, invariant_message(run, group), identity(run), layer_note(layers, positions) +
             "Each layer is a small moving block, and ρ times a fixed orthogonal map on the rest (arXiv 2306.01154).")
    return figure


def invariant_message(run, group):
    order = int(np.max(group["block_order"], initial=0))
    widths = run.widths()
    rest = f"{min(widths) - order} of {min(widths)}" if widths else "all other"
    if not group.measured("rho_theory"):
        return f"A block of order {order} moves; no exact theory for the rest"
    error = np.nanmax(np.abs(group["rho"] - group["rho_theory"]))
    return f"Only {order} singular values of a layer move on their own;\n{rest} are the theorem's ρ to {error:.0e}"


def draw_residuals(run, group):
    layers, steps = group["layer"], group["step"]
    figure, axes = panels(2, width=3.6, height=2.7)
    for axis, name, title in zip(axes, ("residual", "leakage"), ("neither block nor ρ (largest entry)",
                                                                 "from the block into the rest (norm)")):
        for position, colour in zip(shown(len(layers)), colours(len(shown(len(layers))))):
            axis.plot(steps, np.maximum(group[name][:, position], 1e-18), color=colour, label=f"$W_{{{layers[position]}}}$")
        axis.set_yscale("log")
        axis.set_title(title)
    axes[0].legend(loc="best", fontsize=7)
    label_outer(axes, group.label("step"), "what the law leaves out")
    largest = np.nanmax(group["residual"])
    exact = "by the theorem it is zero" if group.measured("rho_theory") else "the theorem does not promise zero here"
    headline(figure, f"What the law of parsimony leaves out of a layer: at most {largest:.1e}", identity(run), sentence(exact))
    return figure


def draw_turns(run, group):
    """Angles of all singular vectors to those after the first step; one line an index, coloured by it."""
    layers, steps = group["layer"], group["step"]
    positions = shown(len(layers), 4)
    figure, axes = panels(2 * len(positions), most_columns=len(positions))
    count = group["angle_right"].shape[-1]
    for row, side in enumerate(("left", "right")):
        for axis, position in zip(axes[row * len(positions):], positions):
            axis.set_prop_cycle(color=colours(count))
            axis.plot(steps, np.degrees(group[f"angle_{side}"][:, position]), linewidth=0.9)
            axis.set_title(f"{side} vectors of $W_{{{layers[position]}}}$")
    label_outer(axes, group.label("step"), "angle (degrees)")
    index_colourbar(figure, axes, count, group.label("value"))
    still = int((np.nanmax(group["angle_right"], axis=(0, 1)) < 1e-6).sum())
    headline(figure, f"{still} of {count} singular directions do not turn at all", identity(run),
             "Angle to the vectors after the first step; in the middle group the largest principal angle, once for all.")
    return figure


# ---------------------------------------------------------------- collapse
@draws("collapse")
def draw_collapse(run, group):
    if group.measured("compression"):
        yield group.name, draw_compression(run, group)
    if any(group.measured(name) for name in MEASURES):
        yield f"{group.name}_measures", draw_measures(run, group)


def draw_compression(run, group):
    """The paper's figure, compression against layer at the last step, and how it came about."""
    figure, (across, along) = plt.subplots(1, 2, figsize=(8.6, 3.7))
    compression_by_layer(group, across)
    compression_by_step(group, along)
    headline(figure, compression_message(group), identity(run),
             "Compression: variance within the classes over variance between them, of the features $a_l$; $a_0$ is the input.")
    return figure


def positive(values):
    """Zeros have no place on a log axis."""
    return np.where(values > 0, values, np.nan)


def compression_by_layer(group, axis):
    row = last_measured(group["compression"])
    layers = group["features"] - 1
    axis.plot(layers, positive(group["compression"][row]), "o", color=BLUE, markersize=5, label="measured")
    if group.measured("compression_fit"):
        slope, intercept = group["compression_fit"][row]
        axis.plot(layers, np.exp(intercept + slope * layers), color=BLUE, linewidth=1.0,
                  label=f"line fit: × {np.exp(slope):.3g} a layer")
    if group.measured("compression_theory"):
        theory = group["compression_theory"][row]
        axis.plot(layers, theory, color=ORANGE, linestyle=(0, (4, 3)),
                  label=f"closed form: × {theory[1] / theory[0]:.3g} a layer")
    axis.set_yscale("log")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("layer $l$ of the features")
    axis.set_ylabel("compression")
    axis.set_title(f"step {group['step'][row]}")
    axis.legend(loc="best", fontsize=7.5)


def compression_by_step(group, axis):
    steps, values = group["step"], positive(group["compression"])
    for position, colour in enumerate(colours(values.shape[1])):
        axis.plot(steps, values[:, position], color=colour, label=feature_name(group, position, values.shape[1]),
                  **line_style(steps, values[:, position]))
    axis.set_yscale("log")
    axis.set_xlabel(group.label("step"))
    axis.set_title("while training")
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7.5)


def feature_name(group, position, count):
    """The label of a line; of many layers only some have one."""
    return f"$a_{{{group['features'][position] - 1}}}$" if position in shown(count, 8) else None


def compression_message(group):
    row = last_measured(group["compression"])
    values = group["compression"][row]
    slope = group["compression_fit"][row, 0] if group.measured("compression_fit") else np.nan
    if not np.isfinite(slope):
        return "Compression of the features, layer by layer"
    text = f"The classes contract by a factor {np.exp(slope):.3g} a layer, in all to {values[-1] / values[0]:.2g}" if slope < 0 \
        else f"The classes spread by a factor {np.exp(slope):.3g} a layer"
    if not group.measured("compression_theory"):
        return text
    ratio = (values / group["compression_theory"][row])[1:]
    return f"{text};\n{ratio.min():.2f}–{ratio.max():.2f} of the closed form"


# On a log axis, nothing that is only rounding.
ROUNDING = 1e-13
# name: (title of its panel, whether it shrinks over orders of magnitude)
MEASURES = {
    "nc1": ("NC1: $\\mathrm{Tr}\\,\\Sigma_W\\Sigma_B^+/K$", True),
    "nc2_equinorm": ("NC2: spread of the norms", True),
    "nc2_equiangular": ("NC2: angles off the simplex", True),
    "nc3": ("NC3: last layer off the means", True),
    "nc4": ("NC4: nearest mean ≠ output", False),
    "discrimination": ("discrimination", False),
    "balancedness": ("imbalance of neighbours", True),
    "mid_sv_range": ("range of middle singular values", True),
    "min_norm_residual": ("off the minimum-norm solution", True),
}


def draw_measures(run, group):
    """One panel a quantity, one line a layer, or a single one."""
    names = [name for name in MEASURES if group.measured(name)]
    columns = 3 if len(names) in (3, 5, 6, 9) else min(len(names), 4)
    rows = -(-len(names) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(max(2.7 * columns, 6.0) + 0.9, 2.3 * rows + 0.9), sharex=True,
                                squeeze=False)
    for axis in axes.flat[len(names):]:
        axis.set_visible(False)
    for column, (axis, name) in enumerate(zip(axes.flat, names)):
        measure_panel(group, axis, name)
        axis.tick_params(labelbottom=column + columns >= len(names))
        if column + columns >= len(names):
            axis.set_xlabel(group.label("step"))
    layers = len(group["features"])
    handles = [Line2D([], [], color=colour, label=feature_name(group, position, layers))
               for position, colour in enumerate(colours(layers)) if feature_name(group, position, layers)]
    axes[0, columns - 1].legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7.5)
    headline(figure, measures_message(group), identity(run), "NC1–NC4: Papyan, Han and Donoho, PNAS 117 (2020). Lines of "
             "weights (imbalance, range) have the colour of the features that enter them; black: one number.",
             f"Values below {ROUNDING:.0e} are rounding and left out of log axes.")
    return figure


def measure_panel(group, axis, name):
    title, shrinks = MEASURES[name]
    steps, values = group["step"], group[name]
    log = shrinks and spans_decades(values)
    values = np.where(values > ROUNDING, values, np.nan) if log else values
    if values.ndim == 1:
        axis.plot(steps, values, color="black", **line_style(steps, values))
    for position in range(values.shape[1] if values.ndim == 2 else 0):
        axis.plot(steps, values[:, position], color=colours(len(group["features"]))[position], linewidth=1.0,
                  **line_style(steps, values[:, position]))
    axis.set_yscale("log" if log else "linear")
    axis.set_title(title)


def spans_decades(values):
    """Whether there is more to see on a log axis, without what is only rounding."""
    seen = values[values > ROUNDING]
    return bool(seen.size) and seen.max() > 10 * seen.min()


def measures_message(group):
    def last(name):
        values = group[name] if name in group else np.array([np.nan])
        number = values[last_measured(values)] if len(values) else np.nan
        return float(np.ravel(number)[-1])
    return f"Neural collapse of the last features: NC1 {last('nc1'):.2g}, NC4 {100 * last('nc4'):.3g} % at the last step"


# ---------------------------------------------------------------- twins
@draws("twin")
def draw_twin(run, group):
    twins = [other for other in run.groups.values() if other.kind == "twin" and len(other["step"])]
    if group.name == twins[0].name:
        yield "twins", draw_side_by_side(run, twins)
    if group.measured("comp_gap_sq"):
        yield group.name, draw_comparison(run, group)
        yield from (("twins_trajectory", figure) for figure in draw_trajectories(run, group))


def draw_side_by_side(run, twins):
    """Loss, and recovery error if there is one, of the network and its twins: against steps and against seconds."""
    seconds = seconds_a_step(run)
    rows = ["loss"] + ["recovery_error"] * any(twin.measured("recovery_error") for twin in twins)
    columns = 1 + bool(seconds)
    figure, axes = plt.subplots(len(rows), columns, figsize=(1.0 + 3.7 * columns, 0.9 + 2.6 * len(rows)), squeeze=False, sharey="row",
                                sharex="col")
    for row, name in enumerate(rows):
        for label, look, steps, values in trajectories_of(run, twins, name):
            faster = f" (step {seconds['large network'] / seconds[label]:.3g} × as fast)" if label in seconds and row == 0 else ""
            axes[row, 0].plot(steps, values, label=label + faster * (label != "large network"), **look)
            if label in seconds:
                axes[row, 1].plot(steps * seconds[label], values, **look)
        axes[row, 0].set_yscale("log")
        axes[row, 0].set_ylabel(name.replace("_", " "))
    axes[0, 0].legend(loc="best", fontsize=7.5)
    axes[-1, 0].set_xlabel("step")
    if seconds:
        axes[-1, 1].set_xlabel("seconds of gradients and updates")
    headline(figure, side_by_side_message(twins, seconds), identity(run))
    return figure


def seconds_a_step(run):
    """{"large network" or name of a twin: mean seconds}, once the run has ended."""
    timing = run.groups.get("timing")
    if timing is None or "twin_name" not in timing:
        return {}
    steps = np.maximum(timing["twin_steps"], 1)
    seconds = {str(name): mean for name, mean in zip(timing["twin_name"], timing["twin_seconds"] / steps)}
    return {"large network": float(np.max(timing["network_seconds"] / steps)), **seconds}


def trajectories_of(run, twins, name):
    """Yields (label, look, steps, values) as long as each was trained, zeros left out."""
    large = run.groups.get("train")
    if large is not None and large.measured(name):
        variable = large.variable(name)
        yield "large network", {"color": GREY, "linewidth": 2.6}, large[variable.dims[0]], positive(variable.values)
    for twin, colour in zip(twins, colours(len(twins))):
        if twin.measured(name):
            there = np.isfinite(twin[name]) & ~(twin["step"] > twin["its_to_tol"][-1])
            yield twin.name, {"color": colour}, twin["step"][there], positive(twin[name][there])


def side_by_side_message(twins, seconds):
    if not seconds:
        return "The network and its twins"
    names = [twin.name for twin in twins if twin.name in seconds]
    fastest = min(names, key=seconds.get)
    return f"A step of twin {fastest} is {seconds['large network'] / seconds[fastest]:.3g} times as fast as the large network's"


def draw_comparison(run, group):
    """What is compared with the large network, and what the theorem says."""
    figure, axes = plt.subplots(1, 3, figsize=(10.6, 3.2))
    there = np.isfinite(group["comp_gap_sq"])  # other rows are without comparison
    steps = group["step"][there]
    for layer, error, colour in zip(group["layer"], group["block_error"][there].T, colours(len(group["layer"]))):
        axes[0].plot(steps, np.maximum(error, 1e-18), label=f"$W_{{{layer}}}$", color=colour, **line_style(steps))
    axes[0].set_title("blocks of the network − layers of the twin")
    axes[0].set_yscale("log")
    for axis, name, title in ((axes[1], "comp_gap_sq", "$|W_{L:1} - f_C|_F^2$"),
                              (axes[2], "loss_difference", "|loss of the network − the twin's|")):
        values = np.abs(group[name][there])
        axis.plot(steps, positive(values), color=BLUE, linewidth=2.4, label="measured", **line_style(steps))
        if group.measured(f"{name}_pred"):
            axis.plot(steps, positive(group[f"{name}_pred"][there]), color=ORANGE, linestyle=(0, (3, 3)), label="theorem")
        axis.set_title(title)
        axis.set_yscale("log" if spans_decades(values) else "linear")
    for axis in axes:
        axis.set_xlabel("step")
        axis.legend(loc="best", fontsize=7)
    worst = f"{np.nanmax(group['block_error']):.0e}"
    exact = group.measured("comp_gap_sq_pred")
    headline(figure, f"The layers of twin {group.name} are the blocks of the large network's to {worst}" if exact else
             f"No theorem here: twin {group.name} and the large network's blocks differ by up to {worst}", identity(run))
    return figure


def draw_trajectories(run, group, most=10):
    """The paper's figure: the last saved end-to-end matrices of both networks, as vectors, on the last three left singular
    vectors of the large one's trajectory matrix (of those that are above rounding)."""
    pairs = [pair for pair in (end_to_end(path, group.name) for _, path in run.snapshots()[-most:]) if pair]
    if len(pairs) < 4:
        return
    large, small = (np.stack([pair[side].ravel() for pair in pairs], axis=1) for side in (0, 1))
    U, sigma, _ = np.linalg.svd(large, full_matrices=False)
    rank = int((sigma > 1e-8 * sigma[0]).sum())  # what is below is rounding: networks that stand still
    if rank < 3:
        return
    basis = U[:, rank - 3:rank]
    figure, axes = plt.subplots(1, 2, figsize=(7.4, 3.4))
    numbers = np.arange(rank - 2, rank + 1)
    for axis, (i, j) in zip(axes, ((0, 1), (1, 2))):
        axis.plot(*(basis.T @ large)[[i, j]], "o-", color=GREY, markersize=7, linewidth=2.4, label="large network")
        axis.plot(*(basis.T @ small)[[i, j]], ".--", color=ORANGE, label=group.name)
        axis.set_xlabel(f"along singular vector {numbers[i]}")
        axis.set_ylabel(f"along singular vector {numbers[j]}")
    axes[0].legend(loc="best", fontsize=7.5)
    apart = np.linalg.norm(large - small) / np.linalg.norm(large)
    headline(figure, f"End-to-end matrices of both networks are {apart:.1e} apart", identity(run),
             f"The last {len(pairs)} snapshots; singular vectors of the matrix of the large network's.")
    yield figure


def end_to_end(path, name):
    """W_L … W_1 of the network and of its twin in a snapshot; None if it does not hold both."""
    with h5py.File(path, "r") as file:
        if name not in file or "W1" not in file:
            return None
        return [product_of_layers(group) for group in (file, file[name])]


def product_of_layers(group):
    product, layer = group["W1"][()], 2
    while f"W{layer}" in group:
        product = group[f"W{layer}"][()] @ product
        layer += 1
    return product


# ---------------------------------------------------------------- the program
def save(figure, path):
    """Under its final name a figure is complete."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        figure.savefig(temporary, format=path.suffix[1:])
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def draw_run(run, extension, only):
    """Draws all figures of a run, or those whose group or name is `only`; returns how many."""
    folder = run.path / "figures"
    folder.mkdir(exist_ok=True)
    drawn = 0
    for name, figure in figures_of_run(run, only):
        path = folder / f"{name}.{extension}"
        save(figure, path)
        print(path, flush=True)
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
    parser.add_argument("--format", choices=("png", "pdf"), default="png")
    parser.add_argument("--only", metavar="NAME", help="only this figure, or the figures of this probe")
    return parser.parse_args()


def main():
    options = arguments()
    failed = False
    for directory in options.directories:
        try:
            run = open_run(directory)
            with plt.rc_context(STYLE):
                drawn = draw_run(run, options.format, options.only)
            if options.only and not drawn:
                raise RunError(f"{directory}: no figure or probe '{options.only}' (it has: {', '.join(run.groups)})")
        except (RunError, OSError) as error:
            print(f"plot.py: {error}", file=sys.stderr)
            failed = True
    return 2 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
