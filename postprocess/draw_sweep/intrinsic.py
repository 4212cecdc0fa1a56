"""Reduced dynamics over a sweep: the error of finite depth against the depth, and the courses of all members."""
import numpy as np

from draw_sweep import draws_sweep
from style import GREY, ORANGE, colours, headline, plt

MOST_LINES = 12


@draws_sweep
def draw_reduced_dynamics(sweep, runs, axis):
    found = [(member, run, group) for member, run in zip(sweep.members, runs) if run is not None
             for group in run.groups.values() if group.kind == "twin" and group.measured("intrinsic_error")]
    depths = {depth_of(run) for _, run, _ in found}
    if len(depths) > 1 and all(group.attributes.get("dynamics") == "infinite depth" for _, _, group in found):
        yield "intrinsic_depth", draw_depth(sweep, found)
    if 1 < len(found) <= MOST_LINES:
        yield "intrinsic_courses", draw_courses(sweep, found)


def depth_of(run):
    widths = run.widths()
    return len(widths) - 1 if widths else int(run.setting("model.depth", 0))


def rate_of(group):
    """λ(s), the same for all interfaces up to 1/L: to the nearest half."""
    return round(2 * float(np.nanmean(group["lambda"][0]))) / 2


def draw_depth(sweep, found):
    """Largest difference at the end against L, with a line of slope −1."""
    figure, axis = plt.subplots(figsize=(5.6, 3.7))
    rates = sorted({rate_of(group) for _, _, group in found})
    ratios = []
    for rate, colour in zip(rates, colours(len(rates))):
        points = sorted((depth_of(run), group["intrinsic_error"][-1]) for _, run, group in found if rate_of(group) == rate)
        depth, error = np.array(points).T
        axis.plot(depth, error, "o-", color=colour, markersize=4, label=f"λ ≈ {rate + 0:g}")
        axis.plot(depth, error[-1] * depth[-1] / depth, color=GREY, linestyle=":", linewidth=1)
        ratios += list(error[-2:-1] / error[-1:])
    axis.plot([], [], color=GREY, linestyle=":", label="1/L")
    axis.set(xscale="log", yscale="log", xlabel="number of layers L", ylabel="largest difference of entries")
    axis.set_xticks(sorted({depth_of(run) for _, run, _ in found}), [str(d) for d in sorted({depth_of(run) for _, run, _ in found})])
    axis.set_xticks([], minor=True)
    axis.legend(loc="best", fontsize=8)
    headline(figure, "A network of L layers is 1/L away from infinite depth",
             f"{sweep.name}. The last doubling of L divides the error by {', '.join(f'{ratio:.3f}' for ratio in ratios)}.")
    return figure


def draw_courses(sweep, found):
    """The leading singular value of all members, network over theory; ν where it is measured."""
    neuron = any(group.measured("nu") for _, _, group in found)
    figure, panels = plt.subplots(1, 1 + neuron, figsize=(5.4 + 3.6 * neuron, 4.0), squeeze=False)
    for (member, run, group), colour in zip(found, colours(len(found))):
        there = np.isfinite(group["intrinsic_error"])
        time = group["time"][there]
        panels[0, 0].plot(time, group["mode_strength"][there][:, 0], color=colour, linewidth=2.6, alpha=0.5, label=label_of(sweep, member))
        panels[0, 0].plot(time, group["mode_strength_ode"][there][:, 0], color=ORANGE, linewidth=0.8, linestyle=(0, (4, 3)))
        if group.measured("nu"):
            panels[0, 1].plot(time, group["nu"][there], color=colour, linewidth=2.6, alpha=0.5)
            panels[0, 1].plot(time, group["nu_closed"][there], color=ORANGE, linewidth=0.8, linestyle=(0, (4, 3)))
            panels[0, 1].set_title(r"$\nu = w\cdot\beta/a$ and its closed form")
    for panel in panels[0]:
        panel.set_xlabel("time")
    panels[0, 0].set_title("largest singular value; dashed: reduced dynamics")
    panels[0, 0].legend(loc="best", fontsize=6.5)
    worst = max(np.nanmax(group["intrinsic_error"]) for _, _, group in found)
    headline(figure, f"Networks and reduced dynamics differ by {worst:.1e} at most", sweep.name)
    return figure


def label_of(sweep, member):
    """Its parameters without folders and endings, each text once."""
    texts = [member.parameters[key].strip('"').rpartition("/")[2].removesuffix(".h5") for key in sweep.keys]
    return ", ".join(dict.fromkeys(texts))
