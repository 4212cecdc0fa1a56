"""Leading singular subspaces: how far they turn, and how those of neighbouring layers lie."""
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
import numpy as np

from draw import draws
from style import (GREY, colours, headline, identity, index_colourbar, label_outer, last_measured, layer_note, line_style,
                   matrix_name, panels, plt, sentence, shown, what)


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
