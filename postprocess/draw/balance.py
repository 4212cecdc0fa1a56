"""What training conserves between layers (arXiv 2201.11968), and the low rank and the alignment that follow from it (arXiv
1810.02032)."""
from matplotlib.colors import LogNorm
import numpy as np

from draw import draws
from style import (BLUE, GREEN, GREY, ORANGE, PINK, headline, identity, label_outer, last_measured, layer_note, line_style, panels, plt,
                   positive, shown)

SETS = [("all entries", ORANGE, "-"), ("diagonal", BLUE, "--"), ("both always open", GREEN, "-"), ("pairs with equal gates", PINK, "--")]
TIME = r"time $t = \Sigma\,\eta$"
LAYERS = [BLUE, ORANGE, GREEN, PINK, GREY]


@draws("balance")
def draw_balance(run, group):
    if group.measured("invariance_drift"):
        yield group.name, draw_drift(run, group)
    if group.measured("spectral_ratio"):
        yield f"{group.name}_rank", draw_rank(run, group)
    if group.measured("alignment"):
        yield f"{group.name}_alignment", draw_alignment(run, group)
    if group.measured("always_on"):
        yield f"{group.name}_gates", draw_gates(run, group)
    if group.measured("drift_matrix"):
        yield f"{group.name}_matrix", draw_matrix(run, group)


def legend_beside(axes):
    """One legend for a row of panels, right of it."""
    entries = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels())}
    axes[-1].legend(entries.values(), entries.keys(), loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=7.5)


def place(group, position):
    """Name of an interface."""
    last = len(group["interface"]) - 1
    if position == last and str(group.attributes.get("stream")) == "true":
        return "residual stream"
    return f"layers {position + 1} and {position + 2}"


def draw_drift(run, group):
    time, laws = group["time"], group["law"][-1]
    known = np.flatnonzero(laws > 0) if (laws > 0).any() else np.arange(len(laws))
    positions = known[shown(len(known), 8)]
    figure, axes = panels(len(positions))
    for axis, position in zip(axes, positions):
        for index, (name, colour, style) in enumerate(SETS):
            # In a linear layer all entries are of every kind.
            values = positive(group["invariance_drift"][:, position, index])
            if np.isfinite(values).any() and (laws[position] == 2 or index < (1 if laws[position] == 3 else 2)):
                axis.plot(time, values, color=colour, linestyle=style, label=name, **line_style(time, values))
        for name, label in (("drift_bound", r"bound $\Sigma\eta^2\Vert g\Vert^2$"), ("ledger_residual", "difference from the ledger")):
            values = positive(group[name][:, position])
            if np.isfinite(values).any():
                axis.plot(time, values, color=GREY, linestyle=":" if name == "drift_bound" else "-", linewidth=0.9, label=label)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_title(place(group, position))
    legend_beside(axes[:4])
    label_outer(axes, TIME, r"$\max\,|S(t) - S(0)|$")
    headline(figure, drift_message(group, laws), identity(run),
             r"$S_k = W_{k+1}^TW_{k+1} - W_kW_k^T - b_kb_k^T$ (arXiv 2201.11968). The gradient flow conserves it whole in linear "
             "layers,\non the diagonal and between neurons with equal gates in ReLU layers.")
    return figure


def drift_message(group, laws):
    last = group["invariance_drift"][-1]
    gated = np.flatnonzero(laws == 2)
    if gated.size:
        full, diagonal = np.nanmax(last[gated, 0]), np.nanmax(last[gated, 1])
        return f"ReLU layers: S has drifted by {full:.2g}, its diagonal by {diagonal:.2g}"
    return f"S has drifted by at most {np.nanmax(last[laws > 0 if (laws > 0).any() else slice(None), 0]):.2g}"


def draw_rank(run, group):
    """Against time and against the loss, as in the papers' figures; and defects with their bounds."""
    time, layers = group["time"], group["layer"]
    positions = shown(len(layers), len(LAYERS))
    figure, axes = plt.subplots(1, 3, figsize=(11.2, 3.7))
    loss = loss_at(run, group)
    for colour, position in zip(LAYERS, positions):
        name, ratio = f"$W_{{{layers[position]}}}$", group["spectral_ratio"][:, position]
        axes[0].plot(time, ratio, color=colour, label=name, **line_style(time, ratio))
        axes[1].plot(loss, ratio, color=colour, **line_style(time, ratio))
        defect, bound = group["rank_defect"][:, position], group["rank_defect_bound"][:, position]
        if np.nanmax(defect) > 1e-12 * np.nanmax(group["frobenius_norm"][:, position])**2:
            axes[2].plot(time, defect, color=colour, **line_style(time, defect))
            axes[2].plot(time, bound, color=colour, linestyle=":", linewidth=1.8)
    axes[1].invert_xaxis()
    for axis, title in zip(axes, (r"spectral ratio $\sigma_1/\Vert W\Vert_F$", "the same against the loss",
                                  r"rank defect $\delta$; dotted: its bound $D_k$")):
        axis.set_title(title)
        axis.set_xscale("log")
        axis.set_xlabel("training loss" if axis is axes[1] else TIME)
    axes[2].set_ylim(bottom=0)
    axes[0].legend(loc="best", fontsize=7.5)
    ratios = group["spectral_ratio"][last_measured(group["spectral_ratio"])]
    wide = np.nanmax(group["rank_defect"], axis=0) > 1e-12
    wide = wide if wide.any() else slice(None)
    headline(figure, f"Spectral ratios end between {np.nanmin(ratios[wide]):.3f} and {np.nanmax(ratios[wide]):.3f}", identity(run),
             layer_note(layers, positions) + "1 is a matrix of rank one (arXiv 1810.02032). Bounds only in a linear head.")
    return figure


def loss_at(run, group):
    """The training loss at the group's steps."""
    train = run.groups["train"]
    rows = np.searchsorted(train["step"], group["step"])
    return train["loss"][np.minimum(rows, len(train["loss"]) - 1)]


def draw_alignment(run, group):
    time, values = group["time"], group["alignment"]
    known = np.flatnonzero(np.isfinite(values).any(axis=0))
    positions = known[shown(len(known), 8)]
    figure, axes = panels(len(positions))
    for axis, position in zip(axes, positions):
        axis.plot(time, values[:, position], color=BLUE, label=r"$\langle v_{k+1}, u_k\rangle^2$", **line_style(time, values[:, position]))
        for name, colour, style, label in (("alignment_bound", ORANGE, "--", "bound for any weights"),
                                           ("alignment_bound_flow", GREEN, ":", "bound under the gradient flow")):
            bound = group[name][:, position]
            if np.isfinite(bound).any():
                axis.plot(time, np.where(bound > -0.05, bound, np.nan), color=colour, linestyle=style, label=label)
        axis.set_xscale("log")
        axis.set_ylim(-0.05, 1.05)
        axis.set_title(place(group, position))
    legend_beside(axes[:4])
    label_outer(axes, TIME, "alignment")
    last = values[last_measured(values)]
    headline(figure, f"Neighbouring layers end aligned by {np.nanmin(last):.3f} to {np.nanmax(last):.3f}", identity(run),
             "1: the leading singular vectors agree. Bounds below 0 say nothing and are left out (arXiv 1810.02032).")
    return figure


def draw_gates(run, group):
    steps = group["step"]
    gated = np.flatnonzero(np.isfinite(group["always_on"][:, :, 0]).any(axis=0))
    positions = gated[shown(len(gated), 6)]
    figure, axes = plt.subplots(2, len(positions), figsize=(max(6.0, 3.1 * len(positions)) + 1, 4.6), sharex=True, squeeze=False)
    for column, position in enumerate(positions):
        top, bottom = axes[0, column], axes[1, column]
        for name, colour, label in (("always_on", BLUE, "open on all samples"), ("always_off", ORANGE, "closed on all samples")):
            top.plot(steps, group[name][:, position, 0], color=colour, label=f"{label}, now")
            top.plot(steps, group[name][:, position, 1], color=colour, linestyle="--", label=f"{label}, so far")
        bottom.plot(steps, group["all_gate_flips"][:, position], color=GREEN, **line_style(steps))
        top.set_title(f"layer {group['layer'][position]}")
        top.set_ylim(-0.3, 1.1 * max(5, np.nanmax(group["always_on"][:, position]), np.nanmax(group["always_off"][:, position])))
        bottom.set_xlabel(group.label("step"))
    axes[0, 0].set_ylabel("neurons")
    axes[1, 0].set_ylabel("gate flips so far")
    legend_beside(axes[0])
    count, flips = int(group["always_on"][-1, gated, 1].sum()), int(group["all_gate_flips"][-1, gated].sum())
    headline(figure, f"{count} neuron{'s' * (count != 1)} open on all samples all along, {flips} gate flips", identity(run),
             "A gate is open where the activation's argument is positive; all training samples. “So far”: at every look.")
    return figure


def draw_matrix(run, group):
    """The change of S entry by entry, neurons sorted by their gate class."""
    laws = group["law"][-1]
    chosen = np.flatnonzero(laws == 2)
    chosen = chosen if chosen.size else np.flatnonzero(laws > 0)
    chosen = chosen[shown(len(chosen), 4)] if chosen.size else np.arange(1)
    figure, axes = plt.subplots(1, len(chosen), figsize=(max(6.6, 3.6 * len(chosen) + 1.4), 3.9), squeeze=False)
    widths = run.widths() or []
    moved = np.abs(group["drift_matrix"][-1][chosen])
    largest = max(np.nanmax(moved), 1e-15)
    smallest = max(np.nanmin(positive(moved), initial=largest / 1e3, where=moved > 0), largest * 1e-14, 1e-16)
    for axis, position in zip(axes[0], chosen):
        D = np.abs(group["drift_matrix"][-1, position])
        n = np.isfinite(D).any(axis=0).sum() if len(widths) <= position + 1 else widths[min(position + 1, len(widths) - 1)]
        stream = place(group, position) == "residual stream"
        n = np.isfinite(D).any(axis=0).sum() if stream else n
        labels = group["gate_class"][-1, position, :n] if not stream else np.full(n, np.nan)
        order = np.argsort(np.where(np.isfinite(labels), labels, 0), kind="stable")
        shade = axis.imshow(np.maximum(D[:n, :n][np.ix_(order, order)], smallest), cmap="viridis",
                            norm=LogNorm(smallest, largest))
        mark_classes(axis, labels[order])
        axis.set_title(place(group, position))
        axis.grid(False)
        axis.set_xlabel("neuron, sorted by gates")
    axes[0, 0].set_ylabel("neuron, sorted by gates")
    figure.colorbar(shade, ax=list(axes[0]), label=r"$|S(t) - S(0)|$", pad=0.02)
    headline(figure, matrix_message(group, chosen), identity(run),
             "White lines part the classes: always open (+), never open (−), and neurons with equal gates at every look (=).\n"
             "Inside a class, and on the diagonal, the gradient flow conserves S (arXiv 2201.11968).")
    return figure


def mark_classes(axis, labels):
    """Lines between classes, and their signs where they have more than one neuron."""
    axis.set_xticks([])
    axis.set_yticks([])
    known = np.where(np.isfinite(labels), labels, -1)
    edges = np.flatnonzero(np.diff(known)) + 0.5
    for edge in edges:
        axis.axhline(edge, color="white", linewidth=0.6)
        axis.axvline(edge, color="white", linewidth=0.6)
    starts, ends = np.r_[-0.5, edges], np.r_[edges, len(labels) - 0.5]
    ticks = [((a + b) / 2, {0: "+", 1: "−"}.get(int(known[int(a + 0.5)]), "=")) for a, b in zip(starts, ends)
             if known[int(a + 0.5)] in (0, 1) or (b - a > 1 and known[int(a + 0.5)] >= 0)]
    if ticks:
        axis.set_yticks([tick[0] for tick in ticks], [tick[1] for tick in ticks])


def matrix_message(group, chosen):
    last = group["invariance_drift"][-1, chosen]
    kept = np.nanmax(last[:, 1:])
    return f"S has moved by {np.nanmax(last[:, 0]):.2g}; where it should be conserved, by at most {kept:.2g}"
