"""Whole spectra over the training, seen at once: a heat map of how far each singular value has moved, and a waterfall."""
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
import numpy as np

from style import colours, headline, identity, label_outer, layer_note, matrix_name, panels, plt, shown

FEWEST_VALUES, FEWEST_STEPS = 8, 5  # below, lines show as much
MOST_CURVES = 24
LONG = 40  # from here on the index is on a log axis: what moves is at its beginning


def is_wide(group):
    """Whether there is enough for a picture of the whole."""
    return len(group["step"]) >= FEWEST_STEPS and counted(group) >= FEWEST_VALUES


def counted(group):
    return int(np.isfinite(group["singular_value"]).any(axis=(0, 1)).sum())


def draw_map(run, group, message):
    """Step to the right, index downwards, colour: change since the first measurement."""
    layers, count = group["layer"], counted(group)
    positions = shown(len(layers))
    values = group["singular_value"][:, :, :count]
    change = values - values[:1]
    largest = float(np.nanmax(abs(change[:, positions]), initial=0)) or 1.0
    figure, axes = panels(len(positions))
    for axis, position in zip(axes, positions):
        mesh = axis.pcolormesh(group["step"], np.arange(1, count + 1), change[:, position].T, cmap="RdBu_r", vmin=-largest,
                               vmax=largest, shading="nearest", rasterized=True)
        axis.grid(False)
        axis.set_facecolor("#e4e4e4")
        axis.set_title(matrix_name(group, layers[position]))
    axes[0].set_yscale("log" if count >= LONG else "linear")
    axes[0].set_ylim(count + 0.5, 0.7)  # shared: the leading one on top in all
    axes[0].yaxis.set_major_formatter("{x:.0f}")
    label_outer(axes, group.label("step"), "index, the leading one on top")
    bar = figure.colorbar(mesh, ax=list(axes), label="change of the singular value", pad=0.02, aspect=30)
    bar.outline.set_visible(False)
    headline(figure, message, identity(run), layer_note(layers, positions) + "White: has not moved since the first measurement; grey: no such value.")
    return figure


def draw_waterfall(run, group, message):
    """One curve a step, the later the higher: singular values against their index."""
    layers, steps, count = group["layer"], group["step"], counted(group)
    positions, rows = shown(len(layers)), shown(len(steps), MOST_CURVES)
    values = group["singular_value"][:, :, :count]
    height = float(np.nanmax(values[:, positions], initial=0)) or 1.0
    norm = Normalize(steps[rows[0]], steps[rows[-1]])
    figure, axes = panels(len(positions), height=3.2)
    for axis, position in zip(axes, positions):
        # The first step lies in front, at the bottom.
        for row, place, colour in list(zip(rows, np.arange(len(rows)) / 8, colours(len(rows))))[::-1]:
            curve = values[row, position] / height
            there = np.isfinite(curve)
            axis.fill_between(np.arange(1, count + 1)[there], place, place + curve[there], color="white")
            axis.plot(np.arange(1, count + 1)[there], place + curve[there], color=colour, linewidth=0.9)
        axis.set_xlim(1, count)
        axis.set_xscale("log" if count >= LONG else "linear")
        axis.xaxis.set_major_formatter("{x:.0f}")
        axis.set_ylim(-0.02, len(rows) / 8 + 1)
        axis.set_yticks([])
        axis.grid(False)
        axis.set_title(matrix_name(group, layers[position]))
    label_outer(axes, "index", f"singular value, shifted by step (highest: {height:.3g})")
    cmap = plt.get_cmap("viridis")
    bar = figure.colorbar(ScalarMappable(norm, cmap), ax=list(axes), label=group.label("step"), pad=0.02, aspect=30)
    bar.outline.set_visible(False)
    headline(figure, message, identity(run), layer_note(layers, positions) + f"{len(rows)} of {len(steps)} measurements.")
    return figure
