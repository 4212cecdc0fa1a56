"""Eigenvalues of curvature matrices, with theory and the threshold of stability; what lies in their leading eigenspace."""
import numpy as np

from draw import draws
from style import (BLUE, GREY, ORANGE, colours, headline, identity, index_colourbar, last_measured, line_style, plt, sentence)

NAMES = {"hessian": "Hessian", "ggn": "Gauss–Newton matrix", "g": "second moment of the gradients",
         "g_centred": "covariance of the gradients", "remainder": "Hessian less Gauss–Newton matrix"}
SHARES = {"chi_k_full": "gradient of all data", "chi_k_batch": "gradient of the batch", "chi_k_update": "last update",
          "alignment_weights": "weights"}
OVERLAPS = {"subspace_overlap": "with the one before", "reference_overlap": "with the reference"}


@draws("curvature")
def draw_curvature(run, group):
    name = "curvature_eigenvalue" if "curvature_eigenvalue" in group else "block_singular_value"
    if group.measured(name):
        yield group.name, draw_values(run, group, name)
    if has(group, "stability_ratio") and len(group["step"]) > 2:
        yield f"{group.name}_edge", draw_edge(run, group)
    if any(name in group and group.measured(name) for name in (*SHARES, *OVERLAPS)):
        yield f"{group.name}_shares", draw_shares(run, group)
    if "alignment_outlier" in group and group.measured("alignment_outlier"):
        yield f"{group.name}_alignment", draw_alignment(run, group)
    if has(group, "class_mean_share"):
        yield f"{group.name}_means", draw_means(run, group)


def matrix(group):
    return NAMES.get(str(group.attributes.get("operator", "")), "curvature matrix")


def has(group, name):
    return name in group and group.measured(name)


def draw_values(run, group, name):
    """All values over the steps; the theory's outliers and edge, and the threshold, over them."""
    values, steps = group[name], group["step"]
    figure, axis = plt.subplots(figsize=(6.6, 4.0))
    axis.set_prop_cycle(color=colours(values.shape[1]))
    axis.plot(steps, values, **(line_style(steps, values) or {"linewidth": 1.2}))
    theory = theory_lines(axis, group)
    axis.set_xlabel(group.label("step"))
    axis.set_ylabel("singular value" if name == "block_singular_value" else "eigenvalue")
    if theory:
        axis.legend(loc="best", fontsize=7.5)
    index_colourbar(figure, [axis], values.shape[1], "number")
    headline(figure, sentence(values_message(group, name)), identity(run), flag_note(group))
    return figure


def draw_edge(run, group):
    """The loss, and below it the sharpness beside the threshold of stability."""
    figure, (above, below) = plt.subplots(2, 1, figsize=(6.6, 5.2), sharex=True)
    train = run.groups.get("train")
    if train is not None and train.measured("loss"):
        above.plot(train["step"], train["loss"], color=BLUE, linewidth=0.8)
        above.set_yscale("log")
        above.set_ylabel("training loss")
    threshold, sharpness = group["stability_threshold"], group["sharpness"]
    below.plot(group["step"], sharpness, color=BLUE, label="sharpness", **line_style(group["step"], sharpness))
    below.plot(group["step"], threshold, color=ORANGE, linestyle="--", linewidth=1.4,
               label=f"threshold of stability, {threshold[last_measured(threshold)]:.4g} at the end")
    below.set_ylim(0, 1.15 * np.nanmax([np.nanmax(sharpness), np.nanmax(threshold)]))
    below.set_ylabel("sharpness")
    below.set_xlabel(group.label("step"))
    below.legend(loc="lower right")
    headline(figure, edge_message(group), identity(run), flag_note(group))
    return figure


def edge_message(group):
    """Of the second half, so that single oscillations say nothing."""
    ratio = group["stability_ratio"]
    late = ratio[len(ratio) // 2:]
    middle = np.nanmedian(late)
    where = "at" if abs(middle - 1) < 0.05 else "below" if middle < 1 else "above"
    text = f"The sharpness is {where} the threshold of stability: {middle:.3f} of it"
    if has(group, "loss_increase_share"):
        text += f",\nthe loss rises in {100 * np.nanmean(group['loss_increase_share'][len(ratio) // 2:]):.0f} % of the steps"
    return text


def draw_means(run, group):
    """How much of each eigenvector is along class means, and of each class mean in the eigenspace."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.8, 3.7), sharey=True)
    for axis, name, what in ((left, "class_mean_share", "eigenvector"), (right, "alignment_class_mean", "class")):
        if not has(group, name):
            continue
        axis.set_prop_cycle(color=colours(group[name].shape[1]))
        axis.plot(group["step"], group[name], **line_style(group["step"], group[name]))
        index_colourbar(figure, [axis], group[name].shape[1], what)
        axis.set_xlabel(group.label("step"))
    left.axhline(np.nanmean(group["class_mean_random"]), color=GREY, linestyle=":", label="random vector")
    left.legend(loc="best", fontsize=7.5)
    left.set_title("squared share of eigenvectors\nin the span of the class means")
    right.set_title("share of class means\nin the eigenspace, of what fits")
    left.set_ylim(0, 1.02)
    row = last_measured(group["class_mean_share"])
    share = group["class_mean_share"][row]
    headline(figure, f"{np.nanmean(share):.2f} of the eigenvectors is along the class means at step {group['step'][row]}, "
             f"{group['class_mean_random'][row]:.2f} at random", identity(run),
             f"Class means of what the layer gets. Matrix: {matrix(group)}. " + flag_note(group))
    return figure


def theory_lines(axis, group):
    drawn = False
    steps = group["step"]
    look = {"color": ORANGE, "linestyle": (0, (4, 3)), "linewidth": 1.2}
    if has(group, "outlier_theory"):
        lines = axis.plot(steps, group["outlier_theory"], marker="x" if len(steps) <= 15 else None, **look)
        lines[0].set_label("outliers in theory")
        drawn = True
    for name, label, style in (("bulk_edge_theory", "edge of the bulk in theory", ":"),
                               ("stability_threshold", "threshold of stability", "--")):
        if has(group, name) and worth_showing(group, name):
            marker = {"marker": "_", "markersize": 12} if len(steps) == 1 else {}
            axis.plot(steps, group[name], color=ORANGE if name == "stability_threshold" else GREY, linestyle=style, linewidth=1.4,
                      label=label, **marker)
            drawn = True
    return drawn


def worth_showing(group, name):
    """A threshold far above all eigenvalues would flatten them."""
    return name != "stability_threshold" or np.nanmax(group["sharpness"] / group[name], initial=0) > 0.3


def values_message(group, name):
    row = last_measured(group[name])
    values, step = group[name][row], group["step"][row]
    if has(group, "stability_ratio"):
        ratio = group["stability_ratio"][last_measured(group["stability_ratio"])]
        return f"sharpness {values[0]:.4g} at step {step}, {ratio:.3g} of the threshold of stability"
    if "outlier_count" in group:
        return f"{matrix(group)}: {group['outlier_count'][row]} outliers above the bulk at step {step}"
    return f"{matrix(group)}: largest {'singular value' if name.startswith('block') else 'eigenvalue'} {values[0]:.4g} at step {step}"


def flag_note(group):
    flags = np.asarray(group["flag"]) if "flag" in group else np.zeros(0)
    reasons = [f"{text}: {np.sum(flags == flag)}" for flag, text in ((1, "no gap"), (2, "not converged")) if np.any(flags == flag)]
    return f"Of {flags.size} measurements, {', '.join(reasons)}." if reasons else ""


def draw_shares(run, group):
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.8, 3.7), sharey=True)
    for axis, names, title in ((left, SHARES, "share in the eigenspace"), (right, OVERLAPS, "overlap of the eigenspace")):
        for name, colour in zip(names, colours(len(names))):
            if has(group, name):
                axis.plot(group["step"], group[name], color=colour, label=names[name], **line_style(group["step"], group[name]))
        axis.set_title(title)
        axis.set_xlabel(group.label("step"))
        axis.set_ylim(0, 1.02)
        if axis.lines:
            axis.legend(loc="best", fontsize=7.5)
    baseline = float(group.attributes.get("random_share", 0))
    left.axhline(np.sqrt(baseline), color=GREY, linestyle=":", linewidth=0.8)
    headline(figure, sentence(shares_message(group)), identity(run),
             "Share: |P x| / |x|; dotted: a random vector. Overlap: mean squared cosine of the principal angles. " + flag_note(group))
    return figure


def shares_message(group):
    for name in SHARES:
        if has(group, name):
            row = last_measured(group[name])
            return f"{group[name][row]:.3f} of the {SHARES[name]} is in the leading eigenspace at step {group['step'][row]}"
    row = last_measured(group["subspace_overlap"])
    return f"the leading eigenspace keeps {group['subspace_overlap'][row]:.3f} of itself between measurements"


def draw_alignment(run, group):
    """Every row of the layer's matrix with the first eigenvector and with all k of them."""
    steps, values = group["step"], group["alignment_outlier"]
    figure, axes = plt.subplots(1, 2, figsize=(8.8, 3.7), sharey=True)
    for position, (axis, title) in enumerate(zip(axes, ("first eigenvector", "all eigenvectors"))):
        axis.set_prop_cycle(color=colours(values.shape[1]))
        axis.plot(steps, values[:, :, position], **line_style(steps, values[:, :, position]))
        if has(group, "alignment_outlier_theory"):
            theory = axis.plot(steps, group["alignment_outlier_theory"][:, :, position], color=ORANGE, linestyle=(0, (4, 3)),
                               linewidth=1.0, marker="x" if len(steps) <= 15 else None)
            theory[0].set_label("theory")
            axis.legend(loc="best", fontsize=7.5)
        axis.set_title(title)
        axis.set_xlabel(group.label("step"))
        axis.set_ylim(0, 1.02)
    axes[0].set_ylabel("share of a row")
    index_colourbar(figure, axes, values.shape[1], "row")
    row = last_measured(values)
    headline(figure, f"Rows lie in the leading eigenspace by {np.nanmin(values[row, :, 1]):.3f} or more at step {steps[row]}",
             identity(run), f"Of {group.attributes.get('samples', '?')} samples, phi = {group.attributes.get('phi', '?')}.")
    return figure
