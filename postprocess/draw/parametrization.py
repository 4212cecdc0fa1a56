"""A small network in the place of a large one: what the large one's layers look like by the law of parsimony."""
import numpy as np

from draw import draws
from style import (BLUE, GREY, headline, identity, label_outer, layer_note, line_style, matrix_name, panels, positive, shown,
                   spans_decades)


@draws("parametrization")
def draw_parametrization(run, group):
    if not group.measured("block_singular_value"):
        return
    layers, steps = group["layer"], group["step"]
    positions = shown(len(layers))
    figure, axes = panels(len(positions))
    for axis, position in zip(axes, positions):
        block = positive(group["block_singular_value"][:, position])
        axis.plot(steps, block, color=GREY, linewidth=0.9, label=["of the block"] + [None] * (block.shape[1] - 1), **line_style(steps))
        rho = positive(group["rho"][:, position])
        axis.plot(steps, rho, color=BLUE, linewidth=2, label=r"all others, $\rho$", **line_style(steps))
        axis.set_title(matrix_name(group, layers[position]))
        axis.set_yscale("log" if spans_decades(group["block_singular_value"]) else "linear")
    axes[0].legend(loc="best")
    label_outer(axes, group.label("step"), "singular value")
    order = int(np.nanmax(group["block_dim"]))
    width = run.setting("model.width", "")
    headline(figure, f"{order} singular values of each layer{f' of width {width}' if width.isdigit() else ''} are its own, all others one "
             "scalar", identity(run), layer_note(layers, positions) + "Computed from layers of the block's size alone.")
    yield group.name, figure
