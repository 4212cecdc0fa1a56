"""A network and the small ones beside it: loss and recovery against steps and seconds, and what the theorem says."""
import h5py
import numpy as np

from draw import draws
from draw.intrinsic import draw_reduced
from published import LOOK, mark
from style import BLUE, GREY, ORANGE, colours, headline, identity, line_style, plt, positive, spans_decades


@draws("twin")
def draw_twin(run, group):
    twins = [other for other in run.groups.values() if other.kind == "twin" and len(other["step"])]
    if group.name == twins[0].name:
        yield "twins", draw_side_by_side(run, twins)
    if group.measured("intrinsic_error"):
        yield f"{group.name}_modes", draw_reduced(run, group)
    if group.measured("comp_gap_sq"):
        yield group.name, draw_comparison(run, group)
        yield from (("twins_trajectory", figure) for figure in draw_trajectories(run, group))


def draw_side_by_side(run, twins):
    """Loss, and recovery error if there is one, of the network and its twins: against steps and against seconds."""
    seconds = seconds_a_step(run)
    rows = ["loss"] + ["recovery_error"] * any(twin.measured("recovery_error") for twin in twins)
    columns = 1 + bool(seconds)
    figure, axes = plt.subplots(len(rows), columns, figsize=(1.0 + 3.7 * columns, 0.9 + 2.6 * len(rows)), squeeze=False, sharey="row",
                                sharex="col")
    for row, name in enumerate(rows):
        for label, look, steps, values in trajectories_of(run, twins, name):
            faster = f" (step {seconds['large network'] / seconds[label]:.3g} × as fast)" if label in seconds and row == 0 else ""
            axes[row, 0].plot(steps, values, label=label + faster * (label != "large network"), **look)
            if label in seconds:
                axes[row, 1].plot(steps * seconds[label], values, **look)
        if mark_published(run, twins, name, axes[row, 0]):
            axes[0, 0].plot([], [], label="published", **LOOK)
        axes[row, 0].set_yscale("log")
        axes[row, 0].set_ylabel(name.replace("_", " "))
    axes[0, 0].legend(loc="best", fontsize=7.5)
    axes[-1, 0].set_xlabel("step")
    if seconds:
        axes[-1, 1].set_xlabel("seconds of gradients and updates")
    headline(figure, side_by_side_message(twins, seconds), identity(run))
    return figure


def mark_published(run, twins, name, axis):
    along = {"train": "evaluated_step" if name == "recovery_error" else "step", **{twin.name: "step" for twin in twins}}
    return any([mark(axis, run, f"{group}/{name}", along=step) for group, step in along.items()])


def seconds_a_step(run):
    """{"large network" or name of a twin: mean seconds}, once the run has ended."""
    timing = run.groups.get("timing")
    if timing is None or "twin_name" not in timing:
        return {}
    steps = np.maximum(timing["twin_steps"], 1)
    seconds = {str(name): mean for name, mean in zip(timing["twin_name"], timing["twin_seconds"] / steps)}
    return {"large network": float(np.max(timing["network_seconds"] / steps)), **seconds}


def trajectories_of(run, twins, name):
    """Yields (label, look, steps, values) as long as each was trained, zeros left out."""
    large = run.groups.get("train")
    if large is not None and large.measured(name):
        variable = large.variable(name)
        yield "large network", {"color": GREY, "linewidth": 2.6}, large[variable.dims[0]], positive(variable.values)
    for twin, colour in zip(twins, colours(len(twins))):
        if twin.measured(name):
            there = np.isfinite(twin[name]) & ~(twin["step"] > twin["its_to_tol"][-1])
            yield twin.name, {"color": colour}, twin["step"][there], positive(twin[name][there])


def side_by_side_message(twins, seconds):
    if not seconds:
        return "The network and its twins"
    names = [twin.name for twin in twins if twin.name in seconds]
    fastest = min(names, key=seconds.get)
    return f"A step of twin {fastest} is {seconds['large network'] / seconds[fastest]:.3g} times as fast as the large network's"


def draw_comparison(run, group):
    """What is compared with the large network, and what the theorem says."""
    figure, axes = plt.subplots(1, 3, figsize=(10.6, 3.2))
    there = np.isfinite(group["comp_gap_sq"])  # other rows are without comparison
    steps = group["step"][there]
    for layer, error, colour in zip(group["layer"], group["block_error"][there].T, colours(len(group["layer"]))):
        axes[0].plot(steps, np.maximum(error, 1e-18), label=f"$W_{{{layer}}}$", color=colour, **line_style(steps))
    axes[0].set_title("blocks of the network − layers of the twin")
    axes[0].set_yscale("log")
    for axis, name, title in ((axes[1], "comp_gap_sq", "$|W_{L:1} - f_C|_F^2$"),
                              (axes[2], "loss_difference", "|loss of the network − the twin's|")):
        values = np.abs(group[name][there])
        axis.plot(steps, positive(values), color=BLUE, linewidth=2.4, label="measured", **line_style(steps))
        mark(axis, run, f"{group.name}/{name}")
        if group.measured(f"{name}_pred"):
            axis.plot(steps, positive(group[f"{name}_pred"][there]), color=ORANGE, linestyle=(0, (3, 3)), label="theorem")
        axis.set_title(title)
        axis.set_yscale("log" if spans_decades(values) else "linear")
    for axis in axes:
        axis.set_xlabel("step")
        axis.legend(loc="best", fontsize=7)
    worst = f"{np.nanmax(group['block_error']):.0e}"
    exact = group.measured("comp_gap_sq_pred")
    headline(figure, f"The layers of twin {group.name} are the blocks of the large network's to {worst}" if exact else
             f"No theorem here: twin {group.name} and the large network's blocks differ by up to {worst}", identity(run))
    return figure


STILL = 1e-6  # relative change between two snapshots
WEAK = 1e-3   # of the leading singular value


def draw_trajectories(run, group, most=10):
    """The paper's figure: the last saved end-to-end matrices of both networks, as vectors, on the last three left singular
    vectors of the large one's trajectory matrix. Directions in which the whole course is no longer than what the theorem
    leaves between the networks would show that difference alone."""
    pairs = last_moving(run, group.name, most)
    if len(pairs) < 4:
        return
    large, small = (np.stack([pair[side].ravel() for pair in pairs], axis=1) for side in (0, 1))
    U, sigma, _ = np.linalg.svd(large, full_matrices=False)
    rank = int((sigma > WEAK * sigma[0]).sum())
    if rank < 3:
        return
    basis = U[:, rank - 3:rank]
    figure, axes = plt.subplots(1, 2, figsize=(7.4, 3.4))
    numbers = np.arange(rank - 2, rank + 1)
    for axis, (i, j) in zip(axes, ((0, 1), (1, 2))):
        axis.plot(*(basis.T @ large)[[i, j]], "o-", color=GREY, markersize=7, linewidth=2.4, label="large network")
        axis.plot(*(basis.T @ small)[[i, j]], ".--", color=ORANGE, label=group.name)
        axis.set_xlabel(f"along singular vector {numbers[i]}")
        axis.set_ylabel(f"along singular vector {numbers[j]}")
    axes[0].legend(loc="best", fontsize=7.5)
    apart = np.linalg.norm(large - small) / np.linalg.norm(large)
    headline(figure, f"End-to-end matrices of both networks are {apart:.1e} apart", identity(run),
             f"The last {len(pairs)} snapshots while they moved; singular vectors of the matrix of the large network's.")
    yield figure


def last_moving(run, name, most):
    """Pairs of end-to-end matrices in the order of training: the last ones, without those at the end that stand still."""
    pairs = []
    for _, path in reversed(run.snapshots()):
        pair = end_to_end(path, name)
        if pair and pairs and len(pairs) < 2 and np.linalg.norm(pair[0] - pairs[-1][0]) < STILL * np.linalg.norm(pair[0]):
            pairs.pop()
        if pair:
            pairs.append(pair)
        if len(pairs) == most:
            break
    return pairs[::-1]


def end_to_end(path, name):
    """W_L … W_1 of the network and of its twin in a snapshot; None if it does not hold both."""
    with h5py.File(path, "r") as file:
        if name not in file or "W1" not in file:
            return None
        return [product_of_layers(group) for group in (file, file[name])]


def product_of_layers(group):
    product, layer = group["W1"][()], 2
    while f"W{layer}" in group:
        product = group[f"W{layer}"][()] @ product
        layer += 1
    return product
