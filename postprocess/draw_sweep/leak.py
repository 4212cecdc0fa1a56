"""How the leak out of the first gradient's subspaces grows with the size of the start, the learning rate, width, the number of
outputs, and the curvature of the activation (arXiv 2602.06208)."""
import numpy as np

from draw_sweep import draws_sweep
from draw_sweep.blocks import LOOK, NAME, at_end, measured_blocks, varied
from style import BLUE, colours, headline, plt
from sweeps import number

SCALES = {"model.init.scale": "size of the start ε", "train.lr": "learning rate η (same time η·t)", "model.width": "width m",
          "data.outputs": "outputs K"}
# phi''(0) / phi'(0), for ELU the mean of both sides; tanh has none
CURVATURE = {"elu": 0.5, "silu": 1.0, "gelu": 2 * np.sqrt(2 / np.pi)}


LOWEST = 1e-10  # of the axis: first gradients of tanh networks go on below


@draws_sweep
def draw_leak(sweep, runs, axis):
    """A row for each layer, a column for each swept size and one for the curvature."""
    members = measured_blocks(sweep, runs)
    sizes = [key for key in varied(sweep) if key in SCALES]
    lines = "model.activation" if "model.activation" in varied(sweep) else sizes[1] if len(sizes) == 2 else None
    if not members or not sizes or lines is None or "train.optimizer" in sweep.keys:
        return
    layers = max(group["outside_energy"].shape[1] for _, _, group in members)
    bent = lines == "model.activation" and len({member.parameters[lines] for member, _, _ in members} & set(CURVATURE)) > 1
    columns = len(sizes) + bent
    figure, axes = plt.subplots(layers, columns, figsize=(3.5 * columns + 0.6, 2.9 * layers + 1), sharex="col", sharey="row",
                                squeeze=False)
    slopes = {}
    for layer, row in enumerate(axes):
        for key, panel in zip(sizes, row):
            other = lines if lines != key else sizes[0]
            slopes.setdefault(key, []).append(draw_size(panel, members, key, other, middle(members, sizes, {key, other}), layer))
        if bent:
            slopes.setdefault("curvature", []).append([draw_curvature(row[-1], members, middle(members, sizes, set()), layer)])
    for layer, row in enumerate(axes):
        finish(row, sizes, bent, layer, layers)
    headline(figure, leak_message(slopes), f"{sweep.name}. Part of the squared change W(end) − W(0) that is outside of the moving block.",
             "Dashed: the same part of the first gradient alone. Slopes: of ε below 0.5." if "model.init.scale" in sizes else "")
    yield "leak", figure


def finish(row, sizes, bent, layer, layers):
    for panel, key in zip(row, [*sizes, "curvature"]):
        panel.set_yscale("log")
        panel.set_ylim(bottom=max(panel.get_ylim()[0], LOWEST))
        panel.legend(loc="best", fontsize=6.5)
        if layer == layers - 1:
            panel.set_xlabel(SCALES.get(key, "curvature |φ''(0)/φ'(0)|"))
    row[0].set_ylabel(f"outside at the end, layer {layer + 1}")


def middle(members, sizes, free):
    """What the other sizes are held at: the value in the middle of each."""
    held = {}
    for key in sizes:
        values = sorted({member.parameters[key] for member, _, _ in members}, key=number)
        if key not in free:
            held[key] = values[len(values) // 2]
    return held


def chosen(members, held, **more):
    return [each for each in members if all(each[0].parameters.get(key) == value for key, value in held.items())]


def draw_size(panel, members, key, other, held, layer):
    """One line for each value of `other`; returns the slopes of a log-log fit."""
    values = list(dict.fromkeys(member.parameters[other] for member, _, _ in members))
    slopes = []
    for value, colour in zip(values, colours(len(values))):
        rows = sorted((number(member.parameters[key]), at_end(group, "outside_energy", layer), group["outside_gradient"][0, layer])
                      for member, _, group in chosen(members, {**held, other: value}))
        x, leak, first = np.array(rows).T
        small = x < 0.5 if key == "model.init.scale" else x > 0  # a start of order 1 is no small one
        slope = np.polyfit(np.log(x[small]), np.log(leak[small]), 1)[0]
        slopes.append(slope)
        tint, line = LOOK.get(value, (colour, "-"))
        name = NAME.get(value, f"{other.rpartition('.')[2]} {value}" if other != "data.outputs" else f"K = {value}")
        panel.plot(x, leak, "o", linestyle=line, markersize=4, color=tint, label=f"{name}: slope {slope:.2f}".replace("-0.00", "0.00"))
        if key == "model.init.scale":
            panel.plot(x, first, color=tint, linewidth=0.9, linestyle="--")
    texts = sorted({member.parameters[key] for member, _, _ in members}, key=number)
    panel.set_xscale("log")
    panel.set_xticks([number(text) for text in texts], texts)
    panel.set_xticks([], minor=True)
    return slopes


def draw_curvature(panel, members, held, layer):
    rows = []
    for member, _, group in chosen(members, held):
        name, leak = member.parameters["model.activation"], at_end(group, "outside_energy", layer)
        tint = LOOK.get(name, (BLUE, "-"))[0]
        if name in CURVATURE:
            rows.append((CURVATURE[name], leak))
            panel.plot(*rows[-1], "o", markersize=6, color=tint, label=NAME[name])
        elif name == "tanh":
            panel.axhline(leak, color=tint, linestyle=":", label="tanh: no curvature at 0")
    x, leak = np.array(sorted(rows)).T
    slope, start = np.polyfit(np.log(x), np.log(leak), 1)
    panel.plot(x, np.exp(start) * x ** slope, color="black", linewidth=0.7, zorder=0, label=f"slope {slope:.2f}")
    panel.set_xscale("log")
    panel.set_xticks(x, [f"{value:.2g}" for value in x])
    panel.set_xticks([], minor=True)
    return slope


WORD = {"model.init.scale": "ε", "train.lr": "η", "model.width": "width", "data.outputs": "K", "curvature": "curvature"}


def leak_message(slopes):
    """Powers by which the leak goes, for each layer."""
    parts = [f"{WORD[key]} to the power {', '.join(map(spread, found))}" for key, found in slopes.items()]
    layers = len(next(iter(slopes.values())))
    if layers == 1:
        return "After training the leak goes as\n" + ", ".join(parts)
    return f"After training the leak of layers 1, …, {layers} goes as\n" + ",\n".join(parts)


def spread(found):
    low, high = (f"{value:.1f}".replace("-0.0", "0.0") for value in (min(found), max(found)))
    return low if low == high else f"{low} … {high}"
