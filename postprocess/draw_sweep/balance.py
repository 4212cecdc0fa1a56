"""Momentum and the conservation laws of the gradient flow ("Keep the momentum", ICML 2024): loss and drift of the members of a sweep
over the share of their time."""
import numpy as np

from draw_sweep import draws_sweep
from style import colours, headline, plt, positive
from sweeps import number

MOST_LINES = 12


@draws_sweep
def draw_momentum(sweep, runs, axis):
    """One line a member: the loss; the largest change of what the flow keeps of a hidden neuron; the same without the biases."""
    members = [(member, run, run.groups["balance"]) for member, run in zip(sweep.members, runs)
               if run is not None and "balance" in run.groups]
    members = [each for each in members if each[2].measured("law_bias_neuron")]
    if "train.momentum" not in sweep.keys or not 2 <= len(members) <= MOST_LINES:
        return
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13.2, 3.9))
    for (member, run, group), colour in zip(members, colours(len(members))):
        train, look = run.groups["train"], {"color": colour, "linestyle": "--" if momentum_of(member) else "-", "label": label_of(member)}
        left.plot(train["step"] / train["step"][-1], train["loss"], **look)
        for panel, name in ((middle, "law_bias_neuron"), (right, "law_neuron")):
            panel.plot(group["step"] / group["step"][-1], positive(drift(group, name)), **look)
    for panel, title in ((left, "training loss"), (middle, "change of $|out|^2 - |in|^2 - b^2$"), (right, "change of $|out|^2 - |in|^2$")):
        panel.set_title(title)
        panel.set_xlabel("share of the time, $t/T$")
    left.set_ylabel("loss")
    middle.set_ylabel("largest of the neurons,\nover the largest value at the start")
    for panel in (middle, right):
        panel.set_yscale("log")
    right.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=7)
    headline(figure, message(members), f"{sweep.name}. Dashed: with momentum.",
             "η: what a step is worth in time, lr/(1 − momentum). The gradient flow keeps the first difference of every hidden neuron;\n"
             "without the bias it is no law.")
    yield "momentum", figure


def drift(group, name):
    """Largest change over the neurons of the first hidden layer, relative."""
    law = group[name][:, 0]
    return np.nanmax(np.abs(law - law[0]), axis=1) / np.nanmax(np.abs(law[0]))


def momentum_of(member):
    return number(member.parameters["train.momentum"]) or 0.0


def step_of(member):
    """δ: what a step is worth in time; None if the rate was not swept."""
    rate = number(member.parameters.get("train.lr", ""))
    return None if rate is None else rate / (1 - momentum_of(member))


def label_of(member):
    step = step_of(member)
    return f"momentum {momentum_of(member):.3g}" + (f", η = {step:.3g}" if step is not None else "")


def message(members):
    """The largest drift at the end with and without momentum."""
    ends = {}
    for member, _, group in members:
        end = drift(group, "law_bias_neuron")[-1]
        kind = momentum_of(member) > 0
        ends[kind] = max(ends.get(kind, 0), end)
    if len(ends) == 2:
        return f"The law of a neuron changes by up to {ends[True]:.2g} with momentum, by up to {ends[False]:.2g} without"
    return f"The law of a neuron changes by up to {max(ends.values()):.2g}"
