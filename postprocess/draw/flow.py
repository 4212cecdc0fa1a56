"""Distance of descent from the gradient flow of the same start, and the sharpness along both."""
from draw import draws
from style import BLUE, GREEN, ORANGE, headline, identity, last_measured, line_style, plt


@draws("flow")
def draw_flow(run, group):
    if not group.measured("flow_distance"):
        return
    figure, axes = plt.subplots(1, 3, figsize=(10.4, 3.5))
    steps = group["step"]
    axes[0].plot(steps, group["flow_distance"], color=BLUE, **line_style(steps))
    axes[0].set_title("distance over the flow's length")
    train = run.groups["train"]
    axes[1].plot(train["step"], train["loss"], color=BLUE, linewidth=0.9, label="descent")
    axes[1].plot(steps, group["flow_loss"], color=GREEN, linestyle="--", label="gradient flow")
    axes[1].set_yscale("log")
    axes[1].set_title("training loss")
    for other in run.groups.values():
        if "sharpness" in other and other.measured("sharpness"):
            axes[2].plot(other["step"], other["sharpness"], color=BLUE, label="descent", linewidth=1.0)
            if other.measured("stability_threshold"):
                axes[2].plot(other["step"], other["stability_threshold"], color=ORANGE, linestyle=":", label="threshold")
            break
    axes[2].plot(steps, group["flow_sharpness"], color=GREEN, linestyle="--", label="gradient flow")
    axes[2].set_title("sharpness")
    for axis in axes:
        axis.set_xlabel(group.label("step"))
    for axis in axes[1:]:
        axis.legend(loc="best", fontsize=7.5)
    row = last_measured(group["flow_distance"])
    headline(figure, f"Descent is {group['flow_distance'][row]:.3f} of the flow's length away from it at step {steps[row]}",
             identity(run), "Both at equal times, the sums of the learning rates.")
    yield group.name, figure
