"""Loss and accuracy with half of every matrix's singular triplets; agreement of the triplets with those of the end."""
import re

import h5py
import numpy as np

from draw import draws
from style import BLUE, ORANGE, headline, identity, last_measured, line_style, plt

HALVES = ((0, BLUE, "upper half"), (1, ORANGE, "lower half"))


@draws("pruning")
def draw_pruning(run, group):
    if not group.measured("pruned_loss"):
        return
    accuracy = next((name for name in ("pruned_test_accuracy", "pruned_accuracy") if group.measured(name)), None)
    figure, axes = plt.subplots(1, 2 if accuracy else 1, figsize=(8.4 if accuracy else 5, 3.6), squeeze=False)
    train, steps = run.groups["train"], group["step"]
    panels = [("pruned_loss", "train_loss", "training loss")]
    if accuracy:
        panels.append((accuracy, accuracy.replace("pruned_", "") if "test" in accuracy else "train_accuracy",
                       "test accuracy" if "test" in accuracy else "training accuracy"))
    for axis, (name, whole, label) in zip(axes.flat, panels):
        for half, colour, text in HALVES:
            axis.plot(steps, group[name][:, half], color=colour, label=text, **line_style(steps))
        if whole in train and train.measured(whole):
            axis.plot(train["evaluated_step"], train[whole], color="black", linestyle=":", label="whole network")
        axis.set_ylabel(label)
        axis.set_xlabel(group.label("step"))
    axes[0, 0].set_yscale("log")
    axes[0, 0].legend(loc="best", fontsize=7.5)
    row = last_measured(group["pruned_loss"])
    upper, lower = group["pruned_loss"][row]
    headline(figure, f"Half of the singular triplets: loss {upper:.3g} with the upper half, {lower:.3g} with the lower",
             identity(run), "Yunis et al. (arXiv 2408.11804). All layers at once.")
    yield group.name, figure
    agreement = draw_agreement(run)
    if agreement is not None:
        yield "final_agreement", agreement


# ---------------------------------------------------------------- agreement with the end
def final_agreement(run):
    """(steps, [per layer: (step, index)]): |<u_i(t), u_i(T)> <v_i(t), v_i(T)>| of the weights in the snapshots, T the last one."""
    steps, found = [], []
    for step, path in run.snapshots():
        with h5py.File(path, "r") as file:
            layers = [np.asarray(file[name]) for name in sorted((name for name in file if re.fullmatch(r"W\d+", name)),
                                                                key=lambda name: int(name[1:]))]
        if layers:
            steps.append(step)
            found.append([np.linalg.svd(W, full_matrices=False) for W in layers])
    if len(steps) < 2:
        return steps, []
    last = found[-1]
    return steps, [np.array([agreement(now[l], last[l]) for now in found]) for l in range(len(last))]


def agreement(now, last):
    return np.abs(np.einsum("ij,ij->j", now[0], last[0]) * np.einsum("ji,ji->j", now[2], last[2]))


def draw_agreement(run):
    """One panel a layer: steps across, singular triplets down."""
    steps, layers = final_agreement(run)
    if not layers:
        return None
    figure, axes = plt.subplots(1, len(layers), figsize=(3.4 * len(layers) + 1, 3.6), squeeze=False)
    for number, (axis, values) in enumerate(zip(axes.flat, layers), 1):
        image = axis.imshow(values.T, aspect="auto", vmin=0, vmax=1, cmap="viridis", interpolation="nearest")
        ticks = np.unique(np.linspace(0, len(steps) - 1, 4).round().astype(int))
        axis.set_xticks(ticks, [steps[tick] for tick in ticks])
        axis.set_title(f"$W_{{{number}}}$")
        axis.set_xlabel("step")
        axis.grid(False)
    axes[0, 0].set_ylabel("singular triplet (1st on top)")
    figure.colorbar(image, ax=list(axes.flat), label="agreement with the last step")
    half = ", ".join(f"{values[len(steps) // 2, :10].mean():.2f}" for values in layers)
    headline(figure, f"The first ten triplets agree with their end by {half} at step {steps[len(steps) // 2]}", identity(run),
             "|<u(t), u(T)> <v(t), v(T)>| from the weights in the snapshots. Yunis et al. (arXiv 2408.11804).")
    return figure
