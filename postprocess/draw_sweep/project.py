"""Training in the dominant subspace or in the bulk beside whole gradients; the edge of stability for some learning rates."""
import numpy as np

from draw_sweep import draws_sweep
from style import BLUE, GREEN, GREY, ORANGE, colours, headline, line_style, plt

LOOK = {"whole": ("black", "whole gradients (SGD)"), "dominant": (ORANGE, "dominant part alone"), "bulk": (BLUE, "bulk alone")}


@draws_sweep
def draw_parts(sweep, runs, axis):
    """The loss from the switch on, over that at the switch."""
    projected = [run for run in runs if run is not None and "project" in run.groups]
    if "train.project.kind" not in sweep.keys or not projected:
        return
    switch = max(int(run.groups["project"]["switch_step"][-1]) for run in projected)
    figure, axis = plt.subplots(figsize=(6.8, 3.9))
    ends = {}
    for member, run in zip(sweep.members, runs):
        if run is None:
            continue
        steps, loss = losses(run)
        whole = "project" not in run.groups or int(run.groups["project"]["switch_step"][-1]) < 0
        part = "whole" if whole else member.parameters["train.project.kind"]
        after = steps >= switch
        ends[part] = loss[after][-1] / loss[after][0]
        axis.plot(steps[after], loss[after] / loss[after][0], color=LOOK[part][0], label=LOOK[part][1], **line_style(steps[after]))
    axis.axhline(1, color=GREY, linewidth=0.8, linestyle=":")
    axis.set_xlabel("step")
    axis.set_ylabel(f"training loss over that at step {switch}")
    axis.legend(loc="best")
    said = {"whole": "SGD", "dominant": "its dominant part", "bulk": "its bulk"}
    headline(figure, "The loss goes to " + ", ".join(f"{ends[part]:.3f} ({said[part]})" for part in LOOK if part in ends),
             f"{sweep.name}. Song, Ahn and Yun, ICLR 2025 (arXiv 2405.16002).")
    yield "parts", figure


def losses(run):
    train = run.groups["train"]
    there = np.isfinite(train["train_loss"])
    return train["evaluated_step"][there], train["train_loss"][there]


@draws_sweep
def draw_edge(sweep, runs, axis):
    """Sharpness over the threshold of stability for each learning rate, and the loss."""
    found = [(member, run, group) for member, run in zip(sweep.members, runs) if run is not None
             for group in run.groups.values() if "stability_ratio" in group and group.measured("stability_ratio")]
    if sweep.keys != ["train.lr"] or not found:
        return
    figure, (above, below) = plt.subplots(2, 1, figsize=(6.8, 5.4), sharex=True)
    medians = []
    for (member, run, group), colour in zip(found, (BLUE, GREEN, ORANGE) if len(found) <= 3 else colours(len(found))):
        ratio, rate = group["stability_ratio"], member.parameters["train.lr"]
        above.plot(run.groups["train"]["step"], run.groups["train"]["loss"], color=colour, linewidth=0.8)
        below.plot(group["step"], ratio, color=colour, label=f"learning rate {rate}", linewidth=1.0)
        medians.append(f"{np.nanmedian(ratio[len(ratio) // 2:]):.3f} at {rate}")
    above.set_yscale("log")
    above.set_ylabel("training loss")
    below.axhline(1, color="black", linestyle="--", linewidth=1.2)
    below.text(0.01, 1.02, "edge of stability", transform=below.get_yaxis_transform(), fontsize=8, va="bottom")
    below.set_ylim(0, 1.15 * max(1, max(np.nanmax(group["stability_ratio"]) for _, _, group in found)))
    below.set_ylabel("sharpness over the threshold")
    below.set_xlabel("step")
    below.legend(loc="lower right")
    headline(figure, "Sharpness over the threshold of stability:\n" + ", ".join(medians),
             f"{sweep.name}. Medians of the second half. Cohen et al., ICLR 2021 (arXiv 2103.00065).")
    yield "edge", figure
