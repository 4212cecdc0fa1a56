"""Low-rank networks beside the full one (arXiv 2602.06208): loss and accuracy against the step, a line for each start, a band over
seeds; and what is lost when the subspace is turned."""
import numpy as np

from draw_sweep import draws_sweep
from draw_sweep.blocks import LOOK, NAME as ACTIVATION
from style import BLUE, GREEN, GREY, ORANGE, PINK, headline, plt

COLOUR = {"none": "black", "gradient": BLUE, "random": ORANGE, "orthogonal_to_gradient": PINK, "rotated": GREEN}
NAME = {"none": "full network", "gradient": "first gradient", "orthogonal_to_gradient": "orthogonal to it"}
ORDER = list(COLOUR)


@draws_sweep
def draw_low_rank(sweep, runs, axis):
    """A column for each activation and arrangement of factors; the full network is in all of them."""
    if "model.subspace" not in sweep.keys or not any(runs):
        return
    members = [(member, run) for member, run in zip(sweep.members, runs) if run is not None]
    titles = sorted({panel_of(member) for member, _ in members})
    figure, axes = plt.subplots(2, len(titles), figsize=(3.6 * len(titles) + 1, 6), sharex=True, sharey="row", squeeze=False)
    for title, (above, below) in zip(titles, axes.T):
        lines = {}
        for member, run in members:
            if belongs(member, title):
                lines.setdefault(line_of(member), []).append(run)
        draw_lines(above, below, lines)
        above.set_title(title)
        below.set_xlabel("step")
    axes[0, 0].set_yscale("log")
    axes[0, 0].set_ylabel("training loss")
    axes[1, 0].set_ylabel("test accuracy" if measured(runs, "test_accuracy") else "training accuracy")
    axes[1, -1].legend(loc="lower right", fontsize=7)
    headline(figure, message(members, titles[0]), f"{sweep.name}. Median over seeds, band: their range.")
    yield "low_rank", figure


def draw_lines(above, below, lines):
    for subspace, rank in sorted(lines, key=lambda line: (ORDER.index(line[0]), line[1])):
        ranks = sorted({other for name, other in lines if name == subspace}, key=str)
        label = NAME.get(subspace, subspace) + (f", width {rank}" if rank else "")
        look = {"color": COLOUR.get(subspace, GREEN), "linestyle": ("-", "--", ":")[min(ranks.index(rank), 2)], "label": label}
        chosen = lines[subspace, rank]
        band(above, [(run.groups["train"]["step"], run.groups["train"]["loss"]) for run in chosen], **look)
        band(below, [accuracy(run) for run in chosen], **look)


def panel_of(member):
    return ", ".join(member.parameters[key] for key in ("model.activation", "model.factors") if key in member.parameters)


def belongs(member, title):
    """The full network has no factors: it stands in every panel of its activation."""
    if member.parameters["model.subspace"] == "none":
        return member.parameters.get("model.activation", "") in title
    return panel_of(member) == title


def line_of(member):
    subspace = member.parameters["model.subspace"]
    return subspace, "" if subspace == "none" else member.parameters.get("model.rank", "")


def measured(runs, name):
    return any(run is not None and run.groups["train"].measured(name) for run in runs)


def accuracy(run):
    train = run.groups["train"]
    return train["evaluated_step"], train["test_accuracy" if train.measured("test_accuracy") else "train_accuracy"]


def band(panel, series, **look):
    count = min(len(values) for _, values in series)
    steps, values = series[0][0][:count], np.array([values[:count] for _, values in series], float)
    panel.plot(steps, np.median(values, axis=0), **look)
    panel.fill_between(steps, values.min(axis=0), values.max(axis=0), color=look["color"], alpha=0.15, linewidth=0)


def message(members, title):
    """Accuracy of the starts at a third of the way, where they differ most, in one of the panels."""
    found = {}
    for member, run in members:
        steps, values = accuracy(run)
        at = len(steps) // 3
        key = "merged" if "merged" in {each.parameters.get("model.factors") for each, _ in members} else None
        if key in (None, member.parameters.get("model.factors")):
            found.setdefault(member.parameters["model.subspace"], []).append(values[at])
    parts = ", ".join(f"{NAME.get(name, name)} {np.median(found[name]):.2f}" for name in ORDER if name in found)
    return f"Accuracy by the subspace of the start, at step {int(steps[at])}:\n{parts}"


# ---------------------------------------------------------------- the subspace turned by an angle
@draws_sweep
def draw_angle(sweep, runs, axis):
    """Loss and accuracy at the end against the angle."""
    if "model.angle" not in sweep.keys or not any(runs):
        return
    points = {}
    for member, run in zip(sweep.members, runs):
        if run is not None:
            by_angle = points.setdefault(member.parameters.get("model.activation", ""), {})
            by_angle.setdefault(float(member.parameters["model.angle"]), []).append((run.groups["train"]["loss"][-1], accuracy(run)[1][-1]))
            steps = run.groups["train"]["step"][-1]
    figure, axes = plt.subplots(1, 2, figsize=(8.4, 3.8))
    for name, by_angle in points.items():
        angles = sorted(by_angle)
        look = {"color": LOOK.get(name, (GREY,))[0], "label": ACTIVATION.get(name, name)}
        for panel, which in zip(axes, (0, 1)):
            values = [[pair[which] for pair in by_angle[angle]] for angle in angles]
            panel.plot(angles, [np.median(each) for each in values], "o-", markersize=4, **look)
            low, high = [min(each) for each in values], [max(each) for each in values]
            panel.fill_between(angles, low, high, color=look["color"], alpha=0.15, linewidth=0)
            panel.set_xticks(angles)
            panel.set_xlabel("angle to the first gradient's subspace (degrees)")
    axes[0].set_yscale("log")
    axes[0].set_ylabel(f"training loss at step {int(steps)}")
    axes[1].set_ylabel("test accuracy" if measured(runs, "test_accuracy") else "training accuracy")
    axes[0].legend(loc="best")
    headline(figure, angle_message(points), f"{sweep.name}. Median over seeds, band: their range.")
    yield "angle", figure


def angle_message(points):
    """The first angle at which the median loss is twice that of the gradient's own subspace."""
    parts = []
    for name, by_angle in points.items():
        losses = {angle: np.median([pair[0] for pair in by_angle[angle]]) for angle in sorted(by_angle)}
        beyond = [angle for angle, loss in losses.items() if loss > 2 * losses[min(losses)]]
        parts.append(f"{ACTIVATION.get(name, name)} {beyond[0]:g}°" if beyond else f"{ACTIVATION.get(name, name)} none")
    return f"The loss doubles from this angle on: {', '.join(parts)}"
