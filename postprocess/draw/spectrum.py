"""Singular values: which move, and how many count."""
import numpy as np

from draw import draws
from draw.spectrum_maps import draw_map, draw_waterfall, is_wide
from published import mark
from style import (colours, headline, identity, index_colourbar, label_outer, layer_note, line_style, matrix_name, panels,
                   sentence, shown, what)

# A singular value "moves" if it changes by more than this fraction of the largest change in its matrix.
MOVING = 0.1


@draws("spectrum")
def draw_spectrum(run, group):
    if group.measured("singular_value"):
        yield group.name, draw_singular_values(run, group)
        if is_wide(group):
            message = sentence(spectrum_message(run, group))
            yield f"{group.name}_map", draw_map(run, group, message)
            yield f"{group.name}_waterfall", draw_waterfall(run, group, message)
    if any(group.measured(name) for name in RANKS):
        yield f"{group.name}_rank", draw_ranks(run, group)


def draw_singular_values(run, group):
    values, layers, steps = group["singular_value"], group["layer"], group["step"]
    positions, note = shown(len(layers)), ""
    count = int(np.isfinite(values).any(axis=(0, 1)).sum())
    figure, axes = panels(len(positions))
    for axis, position in zip(axes, positions):
        axis.set_prop_cycle(color=colours(count))
        # A zero has no place on a log axis.
        positive = np.where(values[:, position, :count] > 0, values[:, position, :count], np.nan)
        axis.plot(steps, positive, linewidth=1.0, **line_style(steps, positive))
        axis.set_yscale("log")
        if mark(axis, run, f"{group.name}/singular_value", layer=layers[position]):
            note = "Pink: published. "
        axis.set_title(matrix_name(group, layers[position]))
    label_outer(axes, group.label("step"), group.label("singular_value"))
    index_colourbar(figure, axes, count, group.label("index") if "index" in group else "index")
    meaning = f"“Move”: change by more than {MOVING:.0%} of the largest change in the same matrix."
    headline(figure, sentence(spectrum_message(run, group)), identity(run), note + layer_note(layers, positions) +
             unconverged_note(group), meaning if len(steps) > 1 else "")
    return figure


def spectrum_message(run, group):
    """What the picture shows, in one line: how many singular values move."""
    values = group["singular_value"]
    subject = f"singular values{what(group)}"
    if len(values) < 2:
        return subject
    measured = np.isfinite(values).any(axis=0).sum(axis=-1)
    known = np.flatnonzero(measured)  # the layers of which there is anything to say
    moves = [moving(values[:, position]) for position in known]
    numbers = [int(flags.sum()) for flags in moves]
    if max(numbers) == 0:
        return f"the {subject} do not move"
    measured = measured[known].tolist()
    ranks = matrix_ranks(run, group)
    totals = [ranks[position] for position in known] if ranks else measured
    if numbers == measured:
        return f"all {subject} move" if measured == totals else f"all measured {subject} move"
    leading = "the leading " if all(flags[:number].all() for flags, number in zip(moves, numbers)) else ""
    return f"{leading}{span(numbers)} of {'up to ' * (len(set(totals)) > 1)}{max(totals)} {subject} move"


def span(numbers):
    return str(max(numbers)) if len(set(numbers)) == 1 else f"{min(numbers)}–{max(numbers)}"


def moving(values):
    """Which of the singular values (step, index) move."""
    there = np.isfinite(values)
    high = np.where(there, values, -np.inf).max(axis=0)
    low = np.where(there, values, np.inf).min(axis=0)
    change = np.where(there.any(axis=0), high - low, 0.0)
    # Rounding is no movement.
    floor = 1e-9 * np.max(high, initial=0.0, where=np.isfinite(high))
    return change > max(MOVING * change.max(initial=0.0), floor)


def matrix_ranks(run, group):
    """min(m, n) of each measured matrix, or None if the widths are not known."""
    widths = run.widths()
    if not widths:
        return None
    if str(group.attributes.get("of")) == "product":
        return [min(widths)]
    if max(group["layer"]) >= len(widths):
        return None
    return [min(widths[layer - 1], widths[layer]) for layer in group["layer"]]


def unconverged_note(group):
    if "converged" not in group:
        return ""
    # What no solve has found is not known to exist (padding), but a first singular value always does.
    wanted = np.maximum(np.isfinite(group["singular_value"]).any(axis=0).sum(axis=-1), 1)
    missing = int((group["converged"] < wanted).sum())
    return f"{missing} of {group['converged'].size} solves did not converge fully (gaps). " if missing else ""


RANKS = ("stable_rank", "effective_rank", "numerical_rank")


def draw_ranks(run, group):
    names = [name for name in RANKS if group.measured(name)]
    layers, steps = group["layer"], group["step"]
    figure, axes = panels(len(names), width=3.2, height=2.8)
    for axis, name in zip(axes, names):
        for position, colour in enumerate(colours(len(layers))):
            label = matrix_name(group, layers[position]) if position in shown(len(layers), 6) else None
            values = group[name][:, position]
            axis.plot(steps, values, color=colour, label=label, **line_style(steps, values))
        axis.set_title(name.replace("_", " "))
    axes[0].set_ylim(bottom=0)  # shared; earlier it would end the automatic choice of the upper end
    label_outer(axes, group.label("step"), "rank")
    axes[-1].legend(loc="best")
    headline(figure, sentence(rank_message(group, names[0])), identity(run))
    return figure


def rank_message(group, name):
    values = group[name]
    finite = values[np.isfinite(values).all(axis=1)]
    text = name.replace("_", " ")
    if len(finite) < 2:
        return text + what(group)
    first, last = np.median(finite[0]), np.median(finite[-1])
    return f"the median {text}{what(group)} goes from {first:.3g} to {last:.3g}"
