"""Gaussian mixtures: the course of one-pass descent with its effective dynamics, bulk and outliers of the first layer's blocks,
what the last layer has learned of the clusters, and how its weights move."""
import h5py
import numpy as np

from draw import draws
from published import entries_of_run
from style import (BLUE, GREEN, GREY, ORANGE, PINK, colours, headline, identity, index_colourbar, last_measured, line_style,
                   plt)

THEORY = {"color": "#222222", "linestyle": (0, (4, 2)), "linewidth": 0.9, "zorder": 4}
EDGE = {**THEORY, "linestyle": ":", "linewidth": 1.4}
TIME = "time $t$ = steps × learning rate"
MATRIX = {"hessian": "Hessian", "ggn": "Gauss–Newton matrix", "g": "second moment of the gradients",
          "g_centred": "covariance of the gradients"}


@draws("mixture")
def draw_mixture(run, group):
    if group.measured("class_residual_gram") and len(group["step"]) > 1:
        yield f"{group.name}_course", draw_course(run, group)
    blocks = blocks_of(run)
    if blocks:
        yield f"{group.name}_spectra", draw_spectra(run, blocks)
    if aligned(run) and group.measured("class_residual_gram") and group["time"][-1] > 0:
        yield f"{group.name}_alignment", draw_alignment(run, group)
    if group.measured("last_layer_gradient") and len(group["step"]) > 2:
        yield f"{group.name}_last_layer", draw_last_layer(run, group)
        yield f"{group.name}_planes", draw_planes(run, group)


def curvatures(run):
    """Groups with eigenvalues, those of the Hessian first, of whole matrices before blocks."""
    found = [group for group in run.groups.values() if group.kind == "curvature" and group.measured("curvature_eigenvalue")]
    order = list(MATRIX)
    return sorted(found, key=lambda group: ("alignment_outlier" in group, order.index(str(group.attributes.get("operator"))),
                                            group.name))


# ---------------------------------------------------------------- the course of a classifier
def draw_course(run, group):
    """m, R, rho and loss over t; dashed: the effective dynamics from the same start."""
    figure, axes = plt.subplots(2, 2, figsize=(8.4, 5.4), sharex=True)
    t = group["time"]
    draw_entries(axes[0, 0], group, "class_overlap", "effective_m", "overlap $m_{ac} = x^a · μ_c$", ("own class", "other classes"))
    draw_entries(axes[0, 1], group, "class_residual_gram", "effective_R", "$R_{ab}$ off the means", ("$a = b$", "$a ≠ b$"))
    axes[1, 0].plot(t, group["alignment_class_span"], color=BLUE, linewidth=0.8)
    plot_theory(axes[1, 0], group, "effective_alignment")
    axes[1, 0].axhline(float(group.attributes.get("random_baseline", 0)), color=GREY, linestyle=":", label="a random row")
    axes[1, 0].set_ylim(0, 1.02)
    axes[1, 0].set_ylabel("share of a row in span(μ)")
    axes[1, 0].legend(loc="lower right", fontsize=7.5)
    draw_loss(axes[1, 1], run, group)
    for axis in axes[1]:
        axis.set_xlabel(TIME)
    headline(figure, course_message(group), identity(run),
             "Coloured: every class of this run; dashed: effective dynamics (dimension to infinity) from the same start.")
    return figure


def draw_entries(axis, group, name, theory, label, names):
    values, t = group[name], group["time"]
    diagonal = np.eye(values.shape[1], dtype=bool)
    for chosen, colour, text in ((diagonal, BLUE, names[0]), (~diagonal, ORANGE, names[1])):
        lines = axis.plot(t, values[:, chosen], color=colour, linewidth=0.7, alpha=0.8)
        lines[0].set_label(text)
        if group.measured(theory):
            axis.plot(t, group[theory][:, chosen].mean(axis=1), **THEORY)
    axis.set_ylabel(label)
    axis.legend(loc="best", fontsize=7.5)


def plot_theory(axis, group, name):
    if group.measured(name):
        values = group[name]
        axis.plot(group["time"], values if values.ndim == 1 else values.mean(axis=1), label="effective dynamics", **THEORY)


def draw_loss(axis, run, group):
    train = run.groups["train"]
    for name, colour, label in (("train_loss", BLUE, "fresh samples"), ("test_loss", GREEN, "test samples")):
        if train.measured(name):
            axis.plot(train["evaluated_time"], train[name], color=colour, label=label, **line_style(train["evaluated_step"]))
    plot_theory(axis, group, "effective_loss")
    axis.set_ylabel("loss")
    axis.set_ylim(bottom=0)
    axis.legend(loc="best", fontsize=7.5)


def course_message(group):
    measured = group["alignment_class_span"][-1].mean()
    text = f"At t = {group['time'][-1]:.3g} the rows lie in the span of the class means by {measured:.3f}"
    return f"{text}, in theory {group['effective_alignment'][-1].mean():.3f}" if group.measured("effective_alignment") else text


# ---------------------------------------------------------------- spectra
def blocks_of(run):
    """Blocks with a theory at the last measurement, one of each matrix; without noise all matrices."""
    with_edge = [group for group in curvatures(run) if group.measured("bulk_edge_theory")]
    if not with_edge:
        return curvatures(run) if str(run.setting("data.lambda")) == "infinite" else []
    first = {}
    for group in with_edge:
        first.setdefault(group.attributes.get("operator"), group)
    return list(first.values())


def draw_spectra(run, groups):
    """Histograms of the last measurement; a few eigenvalues that were measured often, over t."""
    columns = min(len(groups), 3)
    rows = -(-len(groups) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(max(4.1 * columns, 6.5), 3.3 * rows + 0.5), squeeze=False)
    for axis in axes.flat[len(groups):]:
        axis.set_visible(False)
    for axis, group in zip(axes.flat, groups):
        axis.set_title(title_of(group))
        if over_time(group):
            draw_values(axis, group)
        else:
            draw_spectrum(axis, run, group)
    for row in axes:
        row[0].set_ylabel("leading eigenvalues" if over_time(groups[0]) else "number of eigenvalues")
    if axes.flat[0].get_legend_handles_labels()[0]:
        axes.flat[0].legend(loc="best", fontsize=7.5)
    headline(figure, spectra_message(groups), identity(run), spectra_note(groups))
    return figure


def over_time(group):
    return group.measured("bulk_edge_theory") and len(group["step"]) > 2 and group["curvature_eigenvalue"].shape[1] < 20


def title_of(group):
    name, tail = MATRIX.get(str(group.attributes.get("operator")), group.name), group.name.rpartition("_")[2]
    part = f", block of class {tail}" if tail.isdigit() else ", last layer" if group.name.startswith("last") else ""
    return name[:1].upper() + name[1:] + part


def draw_values(axis, group):
    t, values = group["time"], group["curvature_eigenvalue"]
    outside = values > group["bulk_edge_theory"][:, None] * (1 + 2 * dimension(group) ** (-2 / 3))
    for chosen, colour, label in ((outside, ORANGE, "outliers"), (~outside, BLUE, "bulk")):
        lines = axis.plot(t, np.where(chosen, values, np.nan), "o", markersize=3.5, color=colour)
        lines[0].set_label(label)
    axis.plot(t, group["bulk_edge_theory"], label="edge in theory", **EDGE)
    lines = axis.plot(t, group["outlier_theory"], **THEORY)
    lines[0].set_label("outliers in theory")
    axis.set_ylim(bottom=0)
    axis.set_xlabel(TIME)


def draw_spectrum(axis, run, group):
    """The histogram of the last measurement, with what the theory says of edge and outliers; exact ones as steps."""
    row = last_measured(group["curvature_eigenvalue"])
    values = group["curvature_eigenvalue"][row]
    values = values[np.isfinite(values)]
    axis.set_xlabel("eigenvalue")
    axis.set_axisbelow(True)
    if not group.measured("bulk_edge_theory"):
        draw_multiplicities(axis, values, theorems(run, group))
        return
    edge = group["bulk_edge_theory"][row]
    bins = np.linspace(min(values.min(), edge), max(values.max(), edge) * 1.02, 61)
    outside = values > edge * (1 + 2 * dimension(group) ** (-2 / 3))
    axis.hist(values[~outside], bins, color=BLUE, label="bulk")
    axis.hist(values[outside], bins, color=ORANGE, label="outliers")
    axis.axvline(edge, label="edge in theory", **EDGE)
    outliers = np.unique(group["outlier_theory"][row][np.isfinite(group["outlier_theory"][row])].round(9))
    for number, value in enumerate(outliers):
        axis.axvline(value, label=None if number else "outliers in theory", **THEORY)
    axis.set_yscale("symlog", linthresh=4)


def dimension(group):
    return float(group.attributes.get("samples", 1)) / float(group.attributes.get("phi", 1))


def theorems(run, group):
    """Eigenvalues that are known in closed form."""
    return [value for entry in entries_of_run(run) if entry.quantity == f"{group.name}/curvature_eigenvalue"
            for value in entry.values()]


def draw_multiplicities(axis, values, known):
    """Distinct eigenvalues with their numbers of copies, and lines where they are known to be."""
    scale = np.abs(values).max()
    distinct = np.unique(np.round(values / scale, 9)) * scale
    counts = [int(np.sum(np.abs(values - value) < 1e-8 * scale)) for value in distinct]
    axis.bar(distinct, counts, width=0.03 * scale, color=BLUE, alpha=0.5 if known else 1, label="measured")
    for number, value in enumerate(known):
        axis.axvline(value, ymax=0.95, label=None if number else "theorem", **THEORY)
    for value, count in zip(distinct, counts):
        axis.annotate(f"{count} × {value:.5g}" if value > 1e-12 else f"{count} × 0", (value, count), rotation=90, ha="center",
                      va="bottom", fontsize=7, xytext=(7 if known else 0, 3), textcoords="offset points")
    axis.set_ylim(0, 1.9 * max(counts))
    axis.set_xlim(min(0, values.min()) - 0.08 * scale, 1.15 * scale)
    axis.locator_params(axis="x", nbins=6)


def spectra_message(groups):
    if not groups[0].measured("bulk_edge_theory"):
        return "Without noise every eigenvalue comes in its exact number of copies"
    parts = []
    for group in groups:
        row = last_measured(group["curvature_eigenvalue"])
        expected = int(np.isfinite(group["outlier_theory"][row]).sum())
        parts.append(f"{MATRIX[str(group.attributes['operator'])]} {group['outlier_count'][row]} ({expected})")
    return f"Outliers (theory): {', '.join(parts)}"


def spectra_note(groups):
    if not groups[0].measured("bulk_edge_theory"):
        return ""
    shown = len(groups[0]["curvature_eigenvalue"][0])
    return (f"At t = {groups[0]['time'][-1]:.3g}; {shown} leading eigenvalues of {dimension(groups[0]):.0f}, "
            f"φ = {float(groups[0].attributes.get('phi', np.nan)):.3g} samples a dimension. "
            "Outliers count from 2 d^(−2/3) above the edge on.")


# ---------------------------------------------------------------- alignment with the outliers' space
def aligned(run):
    """{operator: {class: group}} of blocks whose rows were projected."""
    found = {}
    for group in curvatures(run):
        tail = group.name.rpartition("_")[2]
        if group.measured("alignment_outlier") and tail.isdigit():
            found.setdefault(str(group.attributes.get("operator")), {})[int(tail)] = group
    return found


def draw_alignment(run, mixture):
    """rho of x^a with E_1 and E_k of its own block over t, beside the span of the means; and a map of the last eigenvectors."""
    found = aligned(run)
    maps = [last_overlaps(run, next(iter(groups.values()))) for groups in found.values()]
    width = 1 if any(each is None for each in maps) else 2
    figure, axes = plt.subplots(1, width * len(found), figsize=(3.5 * width * len(found) + 1.5, 3.7), squeeze=False,
                                width_ratios=[1.35, 1][:width] * len(found))
    for position, ((operator, groups), overlaps) in enumerate(zip(found.items(), maps)):
        draw_shares(axes[0, width * position], mixture, groups)
        axes[0, width * position].set_title(MATRIX.get(operator, operator))
        if width == 2:
            draw_map(figure, axes[0, 2 * position + 1], overlaps, next(iter(groups)))
    axes[0, 0].set_ylabel("share of the row $x^a$")
    axes[0, 0].legend(loc="lower right", fontsize=7)
    first = next(iter(next(iter(found.values())).values()))
    headline(figure, alignment_message(found), identity(run),
             f"Block (a, a), φ = {float(first.attributes.get('phi', np.nan)):.3g}. Circles: every class; black: theory for the same "
             "weights and fresh samples.")
    return figure


def draw_shares(axis, mixture, groups):
    axis.plot(mixture["time"], mixture["alignment_class_span"].mean(axis=1), color=GREY, label="span of the means")
    count = next(iter(groups.values()))["curvature_eigenvalue"].shape[1]
    for number, (place, colour, label) in enumerate(((1, BLUE, f"all {count} eigenvectors"), (0, ORANGE, "first eigenvector"))):
        for position, (a, group) in enumerate(groups.items()):
            axis.plot(group["time"], group["alignment_outlier"][:, a - 1, place], "o", markersize=4, color=colour, alpha=0.7,
                      markerfacecolor="none", label=None if position else label)
        theory = mean_theory(groups, place)
        if np.isfinite(theory).any():
            few = {"linestyle": "none", "marker": "_", "markersize": 14} if len(theory) <= 8 else {}
            axis.plot(group["time"], theory, label=None if number else "theory, mean", **{**THEORY, **few})
    axis.set_ylim(0, 1.02)
    axis.set_xlabel(TIME)


def mean_theory(groups, place):
    """Over the classes whose theory has enough outliers."""
    series = np.array([group["alignment_outlier_theory"][:, a - 1, place] for a, group in groups.items()
                       if group.measured("alignment_outlier_theory")])
    return np.ma.masked_invalid(series).mean(axis=0).filled(np.nan) if series.size else np.zeros(0)


def draw_map(figure, axis, overlaps, a):
    """|x^b · v_i| / |x^b| of the last snapshot, v_i of the block of class a."""
    image = axis.imshow(overlaps, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    axis.set_xticks(range(overlaps.shape[1]), range(1, overlaps.shape[1] + 1))
    axis.set_yticks(range(overlaps.shape[0]), range(1, overlaps.shape[0] + 1))
    axis.grid(False)
    axis.set_xlabel(f"eigenvector of block ({a}, {a})")
    axis.set_ylabel("row (class)")
    figure.colorbar(image, ax=axis, label="share of the row", fraction=0.08)


def last_overlaps(run, group):
    """The rows' shares in single eigenvectors; None without a snapshot of both."""
    for _, path in reversed(run.snapshots()):
        with h5py.File(path, "r") as file:
            name = f"{group.name}/curvature_eigenvector_largest"
            if name in file and "W1" in file:
                W, V = file["W1"][()], file[name][()]
                return np.abs(W @ V) / np.linalg.norm(W, axis=1, keepdims=True)
    return None


def alignment_message(found):
    parts = []
    for operator, groups in found.items():
        values = [group["alignment_outlier"][-1, a - 1, 1] for a, group in groups.items()]
        parts.append(f"{MATRIX.get(operator, operator)} {np.mean(values):.4f}")
    return f"Alignment of the rows with their leading eigenspaces: {', '.join(parts)}"


# ---------------------------------------------------------------- two layers
def draw_last_layer(run, group):
    """Eigenvalues of both matrices of the last layer with their theory for the clusters learned; alignment and counts."""
    rows = rows_of(run, group)
    figure, axes = plt.subplots(1, 3 + bool(rows), figsize=(3.5 * (3 + bool(rows)), 3.7))
    t = group["time"]
    for axis, name, title in ((axes[0], "last_layer_gradient", "second moment $G_{vv}$"),
                              (axes[1], "last_layer_hessian", "Hessian $H_{vv}$")):
        axis.set_prop_cycle(color=colours(group[name].shape[1]))
        axis.plot(t, group[name], **line_style(group["step"]))
        end = group[f"{name}_theory"][-1] if group.measured(f"{name}_theory") else np.zeros(0)
        for number, value in enumerate(np.unique(end[end > 0].round(10))):
            axis.axhline(value, label=None if number else "theory at the end", **THEORY)
        axis.set_title(title)
        axis.set_ylabel("eigenvalue without weight decay")
        axis.set_ylim(0, 2.2 * np.nanmax([*end, *group[name][-1]]))
        axis.legend(loc="upper right", fontsize=7.5)
    draw_head(axes[2], group)
    if rows:
        draw_rows(axes[3], group, rows)
    for axis in axes:
        axis.set_xlabel(TIME)
    rank, learned = group["outlier_rank"][-1], group["learned"][-1]
    headline(figure, f"{learned} of {group['cluster_logit'].shape[1]} clusters learned; the last layer's outlier rank is {rank}",
             identity(run), "Large eigenvalues of the first steps are cut off.")
    return figure


def draw_head(axis, group):
    t = group["time"]
    for number, (colour, label) in enumerate(((BLUE, "$v$ in $E_r(G_{vv})$"), (GREEN, "$v$ in $E_r(H_{vv})$"))):
        axis.plot(t, group["alignment_last_layer"][:, number], color=colour, label=label)
    axis.set_ylim(0, 1.02)
    axis.set_ylabel("share of the last layer's weights")
    counts = axis.twinx()
    counts.step(t, group["learned"], where="post", color=ORANGE, label="clusters learned")
    counts.step(t, group["outlier_rank"], where="post", **{**THEORY, "color": PINK}, label="outlier rank")
    most = int(max(group["cluster_logit"].shape[1], group["outlier_rank"].max()))
    counts.set_ylim(0, 1.02 * (most + 1))
    counts.set_yticks(range(most + 1))
    counts.grid(False)
    counts.spines["right"].set_visible(True)
    counts.set_ylabel("number")
    handles, labels = (a + b for a, b in zip(axis.get_legend_handles_labels(), counts.get_legend_handles_labels()))
    axis.legend(handles, labels, loc="lower right", fontsize=7)


def rows_of(run, group):
    """Alignment of unit i with the leading space of its own block, over time, for live units."""
    units = aligned(run).get("hessian", {})
    alive = np.abs(group["last_weight"][-1].ravel()) > 0.1 * np.abs(group["last_weight"][-1]).max()
    return {i: each for i, each in units.items() if len(each["step"]) > 2 and alive[i - 1]}


def draw_rows(axis, group, rows):
    for number, (i, each) in enumerate(rows.items()):
        axis.plot(each["time"], each["alignment_outlier"][:, i - 1, 1], color=BLUE, linewidth=0.9,
                  label=None if number else "in $E_2$ of its block")
        axis.plot(group["time"], group["alignment_class_span"][:, i - 1], color=ORANGE, linewidth=0.9,
                  label=None if number else "in span(μ, ν)")
    axis.axhline(float(group.attributes.get("random_baseline", 0)), color=GREY, linestyle=":", label="a random row")
    axis.set_ylim(0, 1.02)
    axis.set_title("first layer")
    axis.set_ylabel("share of a live unit's row $W_i$")
    axis.legend(loc="lower right", fontsize=7.5)


def draw_planes(run, group):
    """(W_i·μ, v_i) and (W_i·ν, v_i): paths from the start (open circle) to the end (dot)."""
    overlap, v = group["class_overlap"], group["last_weight"].reshape(len(group["step"]), -1)
    count = overlap.shape[2]
    figure, axes = plt.subplots(1, count, figsize=(max(3.9 * count, 5) + 0.8, 3.9), sharey=True, squeeze=False)
    for axis, letter, c in zip(axes[0], "μν", range(count)):
        for unit, colour in enumerate(colours(v.shape[1])):
            axis.plot(overlap[:, unit, c], v[:, unit], color=colour, linewidth=0.9)
            axis.plot(overlap[0, unit, c], v[0, unit], "o", color=colour, markerfacecolor="none", markersize=5)
            axis.plot(overlap[-1, unit, c], v[-1, unit], "o", color=colour, markersize=6)
        draw_rays(axis, np.abs(v).max(), 1 if c == 0 else -1, binary=count == 1)
        axis.set_xlabel(f"$W_i · {letter}$")
    axes[0, 0].set_ylabel("weight $v_i$ of the last layer")
    axes[0, 0].legend(loc="best", fontsize=7.5)
    index_colourbar(figure, axes[0], v.shape[1], "hidden unit")
    headline(figure, f"{group['learned'][-1]} of {group['cluster_logit'].shape[1]} clusters learned: units end on a cluster's "
             "ray or at 0", identity(run), "Open circles: start; dots: end; dashed: where the fixed points lie.")
    return figure


def draw_rays(axis, size, sign, binary=False):
    """Fixed points: v = |W·μ|, v = −|W·ν|; of the binary mixture v = W·μ."""
    x = np.array([-size, 0, size])
    axis.plot(x, x if binary else sign * np.abs(x), label="fixed points", **THEORY)
