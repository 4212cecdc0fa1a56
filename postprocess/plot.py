#!/usr/bin/env python3
"""Draws what a run measured: plot.py DIR… [--format png|pdf] [--only NAME]

Figures go to DIR/figures. Each kind of probe has one drawing function, registered by `@draws(kind)`; it gets the run
and the probe's group and yields (name, figure). Exit code 2 if a directory cannot be drawn.
"""
import argparse
import os
from pathlib import Path
import sys

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
