"""Weight changes in the subspaces of the first gradient (arXiv 2602.06208): what leaves them, and the paper's view of all singular
values over time."""
import numpy as np

from draw import draws
from style import (BLUE, GREEN, GREY, ORANGE, PINK, ROUNDING, colours, headline, identity, label_outer, last_measured, line_style,
                   panels, plt, positive, shown)

BLOCKS = [((0, 0), "moving to moving", BLUE), ((0, 1), "quiet input", ORANGE), ((1, 0), "quiet output", GREEN),
          ((1, 1), "quiet to quiet", PINK)]


@draws("blocks")
def draw_blocks(run, group):
    if group.measured("outside_energy"):
        yield group.name, draw_outside(run, group)
    if group.measured("block_change"):
        yield f"{group.name}_change", draw_change(run, group)
    if group.measured("singular_value") and len(group["step"]) > 2:
        yield f"{group.name}_singular_values", draw_landscape(run, group)


def draw_outside(run, group):
    """What has left, the tails of change and gradient, and how far the gradient's subspaces turn."""
    steps, layers = group["step"], group["layer"]
    positions = shown(len(layers), 4)
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.4))
    for position, colour in zip(positions, colours(len(positions))):
        name = f"$W_{{{layers[position]}}}$"
        axes[0].plot(steps, positive(group["outside_energy"][:, position]), color=colour, label=name)
        axes[1].plot(steps, positive(group["grad_tail"][:, position]), color=colour, label=f"gradient of {name}")
        axes[2].plot(steps, group["subspace_angle_left"][:, position], color=colour, label=f"left, {name}")
        axes[2].plot(steps, group["subspace_angle_right"][:, position], color=colour, linestyle="--", label=f"right, {name}")
    if group.measured("linearisation_error"):
        axes[0].plot(steps, positive(group["linearisation_error"]), color=GREY, linestyle=":", label="from its linearisation")
    for axis, title in zip(axes, ("part outside of the moving block", r"$\sigma_{K+1}$ of the gradient",
                                  "turn since the start (degrees)")):
        axis.set_title(title)
        axis.set_xlabel(group.label("step"))
        axis.legend(loc="best", fontsize=7)
    for axis in axes[:2]:
        axis.set_yscale("log")
    last = last_measured(group["outside_energy"])
    headline(figure, f"{group['outside_energy'][last, 0]:.2g} of the change of $W_1$ is outside of a block of order "
             f"{int(group['block_dim'].max())}", identity(run), "Subspaces of the first gradient (arXiv 2602.06208).")
    return figure


def draw_change(run, group):
    steps, layers = group["step"], group["layer"]
    positions = shown(len(layers), 4)
    figure, axes = panels(len(positions))
    for axis, position in zip(axes, positions):
        for (i, j), name, colour in BLOCKS:
            values = group["block_change"][:, position, i, j]
            axis.plot(steps, positive(values), color=colour, label=name, **line_style(steps, values))
        axis.set_yscale("log")
        axis.set_title(f"$W_{{{layers[position]}}}$")
    axes[0].legend(loc="best", fontsize=7)
    label_outer(axes, group.label("step"), "change of a block over η")
    first = group["block_change"][1:, 0] if len(steps) > 1 else group["block_change"][:, 0]
    others = np.nanmax(first.reshape(len(first), 4)[:, 1:]) / max(np.nanmax(first[:, 0, 0]), ROUNDING)
    headline(figure, f"Three of four blocks of $W_1$ change by at most {others:.2g} of the first", identity(run))
    return figure


def draw_landscape(run, group):
    """The paper's figure: all singular values of W_1 over index and step, in three dimensions."""
    steps, values = group["step"], group["singular_value"][:, 0]
    values = values[:, np.isfinite(values).any(axis=0)]
    index = np.arange(1, values.shape[1] + 1)
    figure = plt.figure(figsize=(6.6, 5.0))
    axis = figure.add_subplot(projection="3d")
    grid = np.meshgrid(index, steps)
    axis.plot_surface(*grid, values, cmap="viridis", rcount=80, ccount=min(80, len(index)), linewidth=0, antialiased=True)
    axis.set_xlabel("index $i$")
    axis.set_ylabel("step")
    axis.set_zlabel(r"$\sigma_i(W_1)/\varepsilon$")
    axis.view_init(elev=24, azim=-52)
    moved = int((np.abs(values[-1] - values[0]) > 0.05 * np.nanmax(np.abs(values[-1] - values[0]))).sum())
    headline(figure, f"{moved} of {len(index)} singular values of $W_1$ move", identity(run),
             "Counted: those that move by more than 5 % of the one that moves most.")
    return figure
