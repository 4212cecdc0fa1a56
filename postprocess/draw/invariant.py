"""The law of parsimony: moving blocks, the scalars of the rest, and what the law leaves out."""
from matplotlib.lines import Line2D
import numpy as np

from draw import draws
from published import LOOK, mark
from style import (BLUE, GREY, ORANGE, colours, headline, identity, index_colourbar, label_outer, layer_note, panels, sentence,
                   shown)


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
        marked = mark(axis, run, f"{group.name}/block_singular_value", layer=layers[position])
        axis.set_title(f"$W_{{{layers[position]}}}$")
    handles = [Line2D([], [], color=BLUE, linewidth=2.4, label="all others: ρ"),
               Line2D([], [], color=GREY, linewidth=0.9, label="of the moving block")]
    if theory:
        handles.insert(1, Line2D([], [], color=ORANGE, linestyle=(0, (3, 3)), label="ρ by the theorem"))
    if marked:
        handles.append(Line2D([], [], label="published", **LOOK))
    axes[0].legend(handles=handles, loc="best", fontsize=7)
    label_outer(axes, group.label("step"), "singular value")
    headline(figure, invariant_message(run, group), identity(run), layer_note(layers, positions) +
             "Each layer is a small moving block, and ρ times a fixed orthogonal map on the rest (arXiv 2306.01154).")
    return figure


def invariant_message(run, group):
    order = int(np.max(group["block_order"], initial=0))
    width = min(run.widths() or [len(group["value"]) if "value" in group else 0])
    rest = f"the other {width - order} of {width}" if width else "all others"
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
    if group.measured("leak_last"):
        axes[1].plot(steps, np.maximum(group["leak_last"], 1e-18), color=ORANGE, linestyle="--", label="last layer, off the block")
    axes[1].legend(loc="best", fontsize=7)
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
