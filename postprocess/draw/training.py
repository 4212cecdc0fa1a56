"""Training: loss, gradient and accuracy against the step."""
import numpy as np

from draw import draws
from style import BLUE, GREEN, ORANGE, headline, identity, line_style, plt, sentence


@draws("train")
def draw_training(run, group):
    rows = [row for row in (loss_panel, gradient_panel, accuracy_panel) if row(group, None)]
    if not rows:
        return
    figure, axes = plt.subplots(len(rows), 1, figsize=(6.4, 1.0 + 1.9 * len(rows)), sharex=True, squeeze=False)
    for row, axis in zip(rows, axes.flat):
        row(group, axis)
    axes.flat[-1].set_xlabel(group.label("step"))
    headline(figure, identity(run), sentence(training_message(group)))
    yield "training", figure


def training_message(group):
    loss = group["loss"][np.isfinite(group["loss"])] if "loss" in group else []
    if len(loss) < 2:
        return "training"
    text = f"the training loss goes from {loss[0]:.3g} to {loss[-1]:.3g}"
    if group.measured("test_accuracy"):
        accuracy = group["test_accuracy"]
        text += f", test accuracy {100 * accuracy[np.isfinite(accuracy)][-1]:.1f} %"
    return text


def loss_panel(group, axis):
    """Each panel function says whether it has anything to draw, and draws it if given an axis."""
    return curves(group, axis, {"loss": (BLUE, "training"), "test_loss": (ORANGE, "test")}, "loss", log=True)


def gradient_panel(group, axis):
    return curves(group, axis, {"gradient_norm": (GREEN, None)}, "gradient norm", log=True)


def accuracy_panel(group, axis):
    drawn = curves(group, axis, {"train_accuracy": (BLUE, "training"), "test_accuracy": (ORANGE, "test")}, "accuracy")
    if drawn and axis is not None:
        axis.set_ylim(None, 1.0)
    return drawn


def curves(group, axis, lines, ylabel, log=False):
    lines = {name: look for name, look in lines.items() if group.measured(name)}
    for name, (colour, label) in lines.items() if axis is not None else ():
        variable = group.variable(name)
        coordinate = variable.dims[0] if variable.dims and variable.dims[0] in group else "step"
        there = np.isfinite(variable.values)
        steps = group[coordinate][there]
        axis.plot(steps, variable.values[there], color=colour, label=label, **line_style(steps))
    if lines and axis is not None:
        units = group.variable(next(iter(lines))).attributes.get("units", "1")
        axis.set_ylabel(ylabel if units in ("", "1") else f"{ylabel} ({units})")
        axis.set_yscale("log" if log else "linear")
        if any(label for _, label in lines.values()):
            axis.legend(loc="best")
    return bool(lines)
