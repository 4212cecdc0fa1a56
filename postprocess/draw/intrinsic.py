"""A linear network beside the reduced dynamics of its end-to-end matrix, and beside the closed solution where there is one.
Called for the twins that are of this kind (draw/twins.py)."""
import numpy as np

from style import BLUE, GREEN, GREY, ORANGE, colours, headline, identity, last_measured, line_style, plt, positive

MOST_MODES = 12
NETWORK = {"color": GREY, "linewidth": 3.0, "alpha": 0.55}
THEORY = {"linestyle": (0, (4, 2)), "linewidth": 1.2}


def draw_reduced(run, group):
    """σ_i(t), ν(t) if the network is a neuron, and the differences."""
    there = np.isfinite(group["intrinsic_error"])
    time = group["time"][there]
    neuron = group.measured("nu")
    figure, axes = plt.subplots(1, 2 + neuron, figsize=(1.0 + 3.8 * (2 + neuron), 3.5))
    draw_modes(axes[0], time, group["mode_strength"][there], group["mode_strength_ode"][there])
    if neuron:
        draw_neuron(axes[1], time, group["nu"][there], group["nu_closed"][there])
    draw_differences(axes[-1], group, there, time)
    for axis in axes:
        axis.set_xlabel("time")
        axis.legend(loc="best", fontsize=7.5)
    row = last_measured(group["intrinsic_error"])
    headline(figure, f"Network and reduced dynamics differ by {group['intrinsic_error'][row]:.1e} at the end", identity(run), note(group))
    return figure


def note(group):
    lam, defect = (group[name][last_measured(group[name])] for name in ("lambda", "relaxed_defect"))
    values = ", ".join(f"{value:.4g}" for value in lam[:6]) + ", …" * (len(lam) > 6)
    return f"{group.attributes.get('dynamics', '')}; λ = {values}; the start is {np.max(defect):.1e} off λ I"


def draw_modes(axis, time, network, ode):
    shown = network.shape[1] if network.shape[1] <= MOST_MODES else MOST_MODES
    for i, colour in enumerate(colours(shown)):
        axis.plot(time, network[:, i], label="network" if i == 0 else None, **NETWORK)
        axis.plot(time, ode[:, i], color=colour, label="reduced dynamics" if i == 0 else None, **THEORY)
    axis.set_title("singular values of the end-to-end matrix")


def draw_neuron(axis, time, nu, closed):
    axis.plot(time, nu, label="network", **NETWORK)
    axis.plot(time, closed, color=ORANGE, label="closed form", **THEORY)
    axis.set_title(r"$\nu = w\cdot\beta/a$")


def draw_differences(axis, group, there, time):
    for name, colour, label in (("intrinsic_error", BLUE, "end-to-end matrix − reduced dynamics"),
                                ("closed_form_error", GREEN, "$QQ^T$ − closed solution")):
        if group.measured(name):
            axis.plot(time, positive(group[name][there]), color=colour, label=label, **line_style(time))
    axis.set_yscale("log")
    axis.set_title("largest difference of entries")
