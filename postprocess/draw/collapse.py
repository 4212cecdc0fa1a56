"""Collapse of the classes: compression layer by layer, and the measures of neural collapse."""
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
import numpy as np

from draw import draws
from published import LOOK, mark
from style import (BLUE, ORANGE, ROUNDING, colours, headline, identity, last_measured, line_style, plt, positive, shown,
                   spans_decades)


@draws("collapse")
def draw_collapse(run, group):
    if group.measured("compression"):
        yield group.name, draw_compression(run, group)
    if any(group.measured(name) for name in MEASURES):
        yield f"{group.name}_measures", draw_measures(run, group)


def draw_compression(run, group):
    """The paper's figure, compression against layer at the last step, and how it came about."""
    figure, (across, separation, along) = plt.subplots(1, 3, figsize=(11.2, 3.7))
    compression_by_layer(run, group, across)
    discrimination_by_layer(run, group, separation)
    compression_by_step(group, along)
    headline(figure, compression_message(group), identity(run),
             "Compression: variance within the classes over variance between them, of the features $a_l$; $a_0$ is the input. "
             "Discrimination: 1 − the largest cosine between two class means.")
    return figure


def compression_by_layer(run, group, axis):
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
    if mark(axis, run, f"{group.name}/compression", along="features", offset=-1):
        axis.plot([], [], label="published", **LOOK)
    axis.set_yscale("log")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("layer $l$ of the features")
    axis.set_ylabel("compression")
    axis.set_title(f"step {group['step'][row]}")
    axis.legend(loc="best", fontsize=7.5)


def discrimination_by_layer(run, group, axis):
    row = last_measured(group["discrimination"])
    axis.plot(group["features"] - 1, group["discrimination"][row], "o-", color=BLUE, markersize=5, linewidth=1.0)
    mark(axis, run, f"{group.name}/discrimination", along="features", offset=-1)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("layer $l$ of the features")
    axis.set_ylabel("discrimination")
    axis.set_title(f"step {group['step'][row]}")


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


# name: (title of its panel, whether it shrinks over orders of magnitude)
MEASURES = {
    "nc1": ("NC1: $\\mathrm{Tr}\\,\\Sigma_W\\Sigma_B^+/K$", True),
    "nc2_equinorm": ("NC2: spread of the norms", True),
    "nc2_equiangular": ("NC2: angles off the simplex", True),
    "nc3": ("NC3: $WM$ off the simplex", True),
    "nc3_dual": ("NC3: last layer off the means", True),
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


def measures_message(group):
    def last(name):
        values = group[name] if name in group else np.array([np.nan])
        number = values[last_measured(values)] if len(values) else np.nan
        return float(np.ravel(number)[-1])
    return f"Neural collapse of the last features: NC1 {last('nc1'):.2g}, NC4 {100 * last('nc4'):.3g} % at the last step"
