"""Low-rank networks beside the full one (arXiv 2602.06208): loss and accuracy against the step, a line for each start, a band over
seeds."""
import numpy as np

from draw_sweep import draws_sweep
from style import BLUE, GREEN, GREY, ORANGE, PINK, headline, plt, positive

COLOUR = {"none": GREY, "gradient": BLUE, "random": ORANGE, "orthogonal_to_gradient": PINK, "rotated": GREEN}
NAME = {"none": "full network", "gradient": "first gradient", "orthogonal_to_gradient": "orthogonal to it"}


@draws_sweep
def draw_low_rank(sweep, runs, axis):
    if "model.subspace" not in sweep.keys or not any(runs):
        return
    lines = {}
    for member, run in zip(sweep.members, runs):
        if run is not None:
            lines.setdefault(panel_of(member), {}).setdefault(line_of(member), []).append(run)
    columns = len(lines)
    figure, axes = plt.subplots(2, columns, figsize=(3.6 * columns + 1, 6), sharex=True, sharey="row", squeeze=False)
    for (title, group), (above, below) in zip(sorted(lines.items()), axes.T):
        for (subspace, rank), chosen in sorted(group.items()):
            ranks = sorted({other for name, other in group if name == subspace}, key=str)
            style = ("-", "--", ":")[min(ranks.index(rank), 2)]
            label = NAME.get(subspace, subspace) + (f", width {rank}" if rank and subspace != "none" else "")
            look = {"color": COLOUR.get(subspace, GREEN), "linestyle": style}
            band(above, [(run.groups["train"]["step"], run.groups["train"]["loss"]) for run in chosen], label=label, **look)
            band(below, [accuracy(run) for run in chosen], **look)
        above.set_title(title)
        above.set_yscale("log")
        below.set_xlabel("step")
    axes[0, 0].set_ylabel("training loss")
    axes[1, 0].set_ylabel("test accuracy" if measured(runs, "test_accuracy") else "training accuracy")
    max(axes[0], key=lambda panel: len(panel.lines)).legend(loc="best", fontsize=7)
    headline(figure, "Low-rank networks by the subspace that they start in", f"{sweep.name}. Mean over seeds, band: their range.")
    yield "low_rank", figure


def panel_of(member):
    return ", ".join(member.parameters[key] for key in ("model.activation", "model.factors") if key in member.parameters)


def line_of(member):
    return member.parameters["model.subspace"], member.parameters.get("model.rank", "")


def measured(runs, name):
    return any(run is not None and run.groups["train"].measured(name) for run in runs)


def accuracy(run):
    train = run.groups["train"]
    return train["evaluated_step"], train["test_accuracy" if train.measured("test_accuracy") else "train_accuracy"]


def band(panel, series, **look):
    count = min(len(values) for _, values in series)
    steps, values = series[0][0][:count], np.array([values[:count] for _, values in series], float)
    panel.plot(steps, values.mean(axis=0), **look)
    panel.fill_between(steps, values.min(axis=0), values.max(axis=0), color=look["color"], alpha=0.15, linewidth=0)
