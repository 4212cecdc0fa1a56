"""Projected training: how much of the gradients lies in the dominant subspace, and what is left out."""
from draw import draws
from style import BLUE, GREY, ORANGE, PINK, headline, identity, line_style, plt, sentence

LINES = {"chi_k_full": (BLUE, "full gradient"), "chi_k_average": (GREY, "its exponential average"),
         "chi_k_batch": (ORANGE, "gradient of the batch"), "removed_share": (PINK, "left out of it")}


@draws("project")
def draw_project(run, group):
    lines = {name: look for name, look in LINES.items() if group.measured(name)}
    if not lines:
        return
    figure, axis = plt.subplots(figsize=(6.4, 3.4))
    for name, (colour, label) in lines.items():
        axis.plot(group["step"], group[name], color=colour, label=label, **line_style(group["step"]))
    axis.set_ylim(0, 1.02)
    axis.set_xlabel(group.label("step"))
    axis.set_ylabel("share of the gradient's norm")
    axis.legend(loc="best")
    headline(figure, identity(run), sentence(project_message(group)))
    yield "project", figure


def project_message(group):
    switch = int(group["switch_step"][-1])
    part = group.attributes.get("long_name", "projected training")
    return f"no switch yet to {part}" if switch < 0 else f"{part} from step {switch} on"
