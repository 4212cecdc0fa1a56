"""What a sweep is drawn of: numbers, one a member, from members.csv and from the members' own metrics."""
from dataclasses import dataclass

import numpy as np

from draw.spectrum import moving
from style import last_measured
from sweeps import number

@dataclass
class Quantity:
    name: str       # of the figure's file
    label: str      # of its axis
    values: list    # one a member, NaN where there is none
    note: str = ""  # what a reader must know
    log: bool = False


# Final scalars that are drawn unasked.
USUAL = {"train/test_accuracy": "test accuracy", "train/test_loss": "test loss", "train/loss": "training loss",
         "train/recovery_error": "recovery error", "collapse/min_norm_residual": "distance from the solution of minimum norm"}
LOG = ("loss", "error", "residual")


def column(sweep, name, label=None):
    texts = [member.row[name] for member in sweep.members]
    values = [number(text) if text else None for text in texts]
    values = [np.nan if value is None else value for value in values]
    words = label or name.replace("_", " ")
    return Quantity(name.replace("/", "_"), f"{words} at the end", values, log=any(word in name for word in LOG))


def per_run(runs, measure):
    return [np.nan if run is None else measure(run) for run in runs]


def steps_to_loss(runs):
    """Steps until the training loss is for the first time below one that every member reaches."""
    losses = [run.groups["train"]["loss"] for run in runs if run is not None and "train" in run.groups]
    losses = [loss for loss in losses if np.isfinite(loss).any()]
    if not losses:
        return None
    target = float(f"{max(np.nanmin(loss) for loss in losses) * 1.02:.3g}")
    if min(loss[0] for loss in losses) <= target:  # some begin below it
        return None

    def first_step(run):
        below = np.flatnonzero(run.groups["train"]["loss"] <= target)
        return run.groups["train"]["step"][below[0]] if below.size else np.nan
    return Quantity("steps_to_loss", f"steps until the training loss is {target:g}", per_run(runs, first_step),
                    "The loss is one that every finished member reaches.")


def groups_of_kind(runs, kind):
    """Names of the groups of that kind that follow the weights, in any of the runs."""
    names = {}
    for run in filter(None, runs):
        for group in run.groups.values():
            if group.kind == kind and str(group.attributes.get("of", "weights")) == "weights":
                names[group.name] = None
    return list(names)


def moving_values(runs, name):
    def count(run):
        group = run.groups.get(name)
        if group is None or not group.measured("singular_value") or len(group["step"]) < 2:
            return np.nan
        values = group["singular_value"]
        return np.median([moving(values[:, layer]).sum() for layer in range(values.shape[1])])
    return Quantity(f"{name}_moving", "singular values that move (median over the layers)", per_run(runs, count),
                    "“Move”: change by more than 10 % of the largest change in the same matrix.")


def turning(runs, name):
    def angle(run):
        group = run.groups.get(name)
        if group is None or not group.measured("angle_left"):
            return np.nan
        sides = np.stack([group["angle_left"], group["angle_right"]]).max(axis=(0, 3))  # (step, layer)
        last = [layer[np.isfinite(layer)][-1] for layer in sides.T if np.isfinite(layer).any()]
        return np.degrees(np.median(last)) if last else np.nan
    return Quantity(f"{name}_turn", "turn of the leading singular subspaces (degrees, median over the layers)",
                    per_run(runs, angle), "The largest principal angle between the last and the reference subspaces.")


def steps_to_tolerance(sweep):
    """For sweeps whose members stop at a loss of their own."""
    reached = [number(member.row["step"]) if "train.tolerance" in member.row["reason"] else np.nan for member in sweep.members]
    if not np.isfinite(reached).any():
        return None
    return Quantity("steps_to_tolerance", "steps until the loss is below train.tolerance", reached, log=True)


def last_largest(runs, group, name, label):
    """The largest over the layers of what was measured last."""
    def largest(run):
        found = run.groups.get(group)
        if found is None or not found.measured(name):
            return np.nan
        return np.nanmax(found[name][last_measured(found[name])])
    return Quantity(f"{group}_{name}", f"{label} (largest of all layers)", per_run(runs, largest), log=True)


OFF_BULK = 1e-3


def off_bulk(runs, name):
    """In how many directions the most mobile square layer moves."""
    def count(run):
        group = run.groups.get(name)
        if group is None or not group.measured("singular_value"):
            return np.nan
        values = group["singular_value"][-1]
        bulk = np.nanmedian(values, axis=-1, keepdims=True)
        return (np.abs(values - bulk) > OFF_BULK * bulk)[np.isfinite(group["rho"][-1])].sum(axis=-1).max()
    return Quantity(f"{name}_off_bulk", "singular values off the bulk (most of all layers)", per_run(runs, count),
                    f"Off the bulk: more than {OFF_BULK:g} of the median away from it. By the law, twice the rank.")


# kind of group: [(quantity, what it is)]
LARGEST = {
    "collapse": [("balancedness", "imbalance of neighbouring layers"), ("mid_sv_range", "range of the middle singular values")],
    "invariant": [("residual", "largest entry that is neither block nor scalar")],
}


def quantities(sweep, runs, only):
    """Yields what is to be drawn."""
    if only in sweep.columns:
        yield column(sweep, only, USUAL.get(only))
        return
    for name, label in USUAL.items():
        if name in sweep.columns:
            yield column(sweep, name, label)
    yield from filter(None, (steps_to_loss(runs), steps_to_tolerance(sweep)))
    for name in groups_of_kind(runs, "spectrum"):
        yield moving_values(runs, name)
    for name in groups_of_kind(runs, "subspace"):
        yield turning(runs, name)
    for name in groups_of_kind(runs, "invariant"):
        yield off_bulk(runs, name)
    for kind, wanted in LARGEST.items():
        for name in groups_of_kind(runs, kind):
            yield from (last_largest(runs, name, *each) for each in wanted)
