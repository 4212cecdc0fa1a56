"""Training in the dominant subspace of the Hessian or in the bulk: the loss, and shares of the gradients in the subspace."""
import numpy as np

from draw import draws
from style import BLUE, GREY, ORANGE, PINK, headline, identity, line_style, plt

LINES = {"chi_k_full": (BLUE, "-", "full gradient"), "chi_k_average": (GREY, ":", "its exponential average"),
         "chi_k_batch": (ORANGE, "-", "gradient of the batch"), "removed_share": (PINK, (0, (4, 3)), "left out of it")}


@draws("project")
def draw_project(run, group):
    lines = {name: look for name, look in LINES.items() if group.measured(name)}
    if not lines:
        return
    figure, (above, below) = plt.subplots(2, 1, figsize=(6.8, 5.4))
    draw_loss(run, group, above)
    for name, (colour, style, label) in lines.items():
        below.plot(group["step"], group[name], color=colour, linestyle=style, label=label, linewidth=1.0,
                   **line_style(group["step"]))
    below.set_ylim(0, 1.02)
    below.set_xlabel(group.label("step"))
    below.set_ylabel("share of the gradient's norm\nin the subspace")
    below.legend(loc="lower left", fontsize=7.5, ncols=2)
    headline(figure, project_message(run, group), identity(run), f"Subspace of the {group['curvature_eigenvalue'].shape[1]} "
             "leading eigenvectors of the training loss's Hessian, found anew as training goes on.")
    yield "project", figure


def draw_loss(run, group, axis):
    """From a fifth of the way to the switch on: what was before is steep."""
    steps, loss = evaluated(run)
    switch = switch_of(group)
    shown = steps >= (switch / 5 if switch >= 0 else 0)
    axis.plot(steps[shown], loss[shown], color=BLUE, **line_style(steps[shown]))
    axis.set_yscale("log")
    axis.set_ylabel("training loss")
    if switch >= 0:
        axis.axvline(switch, color=GREY, linestyle="--", linewidth=1.0)
        axis.text(switch, 0.97, f" {part_of(group)} only", transform=axis.get_xaxis_transform(), va="top", fontsize=8, color=GREY)


def evaluated(run):
    train = run.groups["train"]
    there = np.isfinite(train["train_loss"])
    return train["evaluated_step"][there], train["train_loss"][there]


def switch_of(group):
    return int(group["switch_step"][-1])


def part_of(group):
    return "bulk" if "bulk" in str(group.attributes.get("long_name", "")) else "dominant part"


def project_message(run, group):
    switch, (steps, loss) = switch_of(group), evaluated(run)
    if switch < 0:
        return "No switch yet: the gradients are whole"
    before = loss[steps <= switch]
    if not before.size or steps[-1] <= switch:
        return f"Only the {part_of(group)} of the gradients from step {switch} on"
    return f"With the {part_of(group)} of the gradients alone the loss goes to {loss[-1] / before[-1]:.3f} of itself\n" \
           f"in {steps[-1] - switch} steps"
