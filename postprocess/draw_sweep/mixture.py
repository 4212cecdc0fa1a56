"""Gaussian mixtures over many starts: how many clusters were learned, where the units ended, the last layer's eigenvalues; the
course of descent over seeds; alignment with outlier spaces over a swept parameter; spectra side by side."""
from math import comb

import numpy as np

from draw.mixture import (MATRIX, THEORY, TIME, aligned, blocks_of, draw_rays, draw_spectrum, spectra_message,
                          title_of)
from draw_sweep import draws_sweep
from style import BLUE, GREEN, GREY, ORANGE, PINK, headline, plt

COLOUR = {0: GREY, 1: PINK, 2: ORANGE, 3: GREEN, 4: BLUE}


def members_of(runs):
    return [run for run in runs if run is not None and any(group.kind == "mixture" for group in run.groups.values())]


def mixture_of(run):
    return next(group for group in run.groups.values() if group.kind == "mixture")


# ---------------------------------------------------------------- ensembles of two-layer networks
@draws_sweep
def draw_ensemble(sweep, runs, axis):
    groups = [mixture_of(run) for run in members_of(runs)]
    groups = [group for group in groups if group.measured("last_layer_gradient")]
    if len(groups) < 3:
        return
    count = groups[0]["class_overlap"].shape[2]
    figure, axes = plt.subplots(2, 2, figsize=(8.6, 7)) if count == 2 else plt.subplots(1, 3, figsize=(11.2, 3.6))
    axes = axes.flat
    learned = np.array([int(group["learned"][-1]) for group in groups])
    draw_counts(axes[0], groups[0], learned)
    draw_eigenvalues(axes[1], groups)
    for c, letter in enumerate("μν"[:count]):
        draw_plane(axes[2 + c], groups, c, letter)
    K, clusters = groups[0]["class_overlap"].shape[1], groups[0]["cluster_logit"].shape[1]
    headline(figure, f"{np.sum(learned == clusters)} of {len(groups)} starts learn all {clusters} clusters "
             f"(theory {len(groups) * chances(K, clusters)[-1]:.4g})",
             f"{sweep.name}, {K} hidden units, to t = {groups[0]['time'][-1]:.4g}.")
    yield "mixture_ensemble", figure


def chances(units, clusters):
    """Probability that 1 … `clusters` clusters are learned, where each unit picks one of them."""
    def onto(count):
        return sum((-1)**left * comb(count, left) * ((count - left) / clusters)**units for left in range(count + 1))
    return [comb(clusters, count) * onto(count) for count in range(1, clusters + 1)]


def draw_counts(axis, group, learned):
    clusters, units = group["cluster_logit"].shape[1], group["class_overlap"].shape[1]
    numbers = np.arange(clusters + 1)
    found = [np.sum(learned == number) for number in numbers]
    expected = len(learned) * np.array([0, *chances(units, clusters)])
    error = np.sqrt(expected * (1 - expected / len(learned)))
    axis.bar(numbers, found, color=[COLOUR[number] for number in numbers], width=0.7)
    axis.errorbar(numbers[1:], expected[1:], error[1:], fmt="_", color="#222222", markersize=22, capsize=4, linewidth=1,
                  label="theory, with its standard deviation")
    for number, value in zip(numbers, found):
        axis.annotate(str(value), (number, value), ha="center", va="bottom", fontsize=8, xytext=(-17, 0),
                      textcoords="offset points")
    axis.set_xticks(numbers)
    axis.set_xlabel("clusters learned")
    axis.set_ylabel(f"runs of {len(learned)}")
    axis.set_axisbelow(True)
    axis.set_ylim(0, 1.2 * max(*found, *(expected + error)))
    axis.legend(loc="best", fontsize=7.5)


def draw_eigenvalues(axis, groups):
    """All eigenvalues of the last layer's second moment at the end, a column for each number of clusters learned."""
    spread = np.random.default_rng(0)
    known = {}
    for group in groups:
        values = np.sort(group["last_layer_gradient"][-1])[::-1]
        learned = int(group["learned"][-1])
        place = learned + 0.3 * (spread.random() - 0.5)
        axis.plot(np.full(len(values), place), values, "o", markersize=2.5, color=COLOUR[learned], alpha=0.6, markeredgewidth=0)
        theory = group["last_layer_gradient_theory"][-1]
        known.setdefault(learned, set()).update(theory[theory > 0].round(7))
    for number, (learned, values) in enumerate(known.items()):
        axis.hlines(sorted(values), learned - 0.3, learned + 0.3, color="#222222", linewidth=1, zorder=4,
                    label=None if number else "theory")
    axis.set_xticks(range(groups[0]["cluster_logit"].shape[1] + 1))
    axis.set_xlabel("clusters learned")
    axis.set_ylabel("eigenvalues of $G_{vv}$ at the end")
    axis.legend(loc="best", fontsize=7.5)


def draw_plane(axis, groups, c, letter):
    largest = 0
    for group in groups:
        x, v = group["class_overlap"][-1][:, c], np.ravel(group["last_weight"][-1])
        axis.plot(x, v, "o", markersize=3, color=COLOUR[int(group["learned"][-1])], alpha=0.6, markeredgewidth=0)
        largest = max(largest, np.abs(v).max())
    draw_rays(axis, largest, 1 if c == 0 else -1, binary=groups[0]["class_overlap"].shape[2] == 1)
    axis.set_xlabel(f"$W_i · {letter}$ at the end")
    axis.set_ylabel("weight $v_i$ of the last layer")
    axis.legend(loc="best", fontsize=7.5)


# ---------------------------------------------------------------- classifiers over seeds
@draws_sweep
def draw_courses(sweep, runs, axis):
    """Means over classes: a thin line for each start, their mean, and the effective dynamics from the same starts."""
    groups = [mixture_of(run) for run in members_of(runs)]
    groups = [group for group in groups if group.measured("effective_m") and len(group["step"]) > 2]
    if len(groups) < 2 or not all(key.endswith("seed") for key in sweep.keys):
        return
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.6))
    diagonal = np.eye(groups[0]["class_overlap"].shape[1], dtype=bool)
    for panel, name, theory, chosen, label in (
            (axes[0], "class_overlap", "effective_m", diagonal, "overlap $m_{aa} = x^a · μ_a$"),
            (axes[1], "class_residual_gram", "effective_R", diagonal, "$R_{aa}$ off the means"),
            (axes[2], "alignment_class_span", "effective_alignment", ..., "share of the rows in span(μ)")):
        measured, expected = (np.array([group[each][:, chosen].reshape(len(group["step"]), -1).mean(axis=1) for group in groups])
                              for each in (name, theory))
        t = groups[0]["time"]
        panel.plot(t, measured.T, color=BLUE, linewidth=0.6, alpha=0.5)
        panel.plot(t, measured.mean(axis=0), color=BLUE, linewidth=1.8, label=f"mean of {len(groups)} starts")
        panel.plot(t, expected.mean(axis=0), label="effective dynamics", **THEORY)
        panel.set_xlabel(TIME)
        panel.set_ylabel(label)
        panel.legend(loc="best", fontsize=7.5)
        worst = np.abs(measured.mean(axis=0) - expected.mean(axis=0)).max()
        panel.set_title(f"largest difference of the means {worst:.2g}")
    headline(figure, f"{len(groups)} runs of descent follow the effective dynamics",
             f"{sweep.name}. Thin: every start, mean over classes.")
    yield "mixture_courses", figure


# ---------------------------------------------------------------- alignment over a parameter
@draws_sweep
def draw_alignments(sweep, runs, axis):
    """Share of the rows in the k leading eigenvectors of their block, over the swept parameter."""
    members = [(member, run) for member, run in zip(sweep.members, runs) if is_aligned(run)]
    if axis.key.endswith("seed") or len(axis.values) < 2 or not members:
        return
    operators = list(aligned(members[0][1]))
    figure, axes = plt.subplots(1, len(operators), figsize=(4.6 * len(operators), 3.8), sharey=True, squeeze=False)
    means = []
    for panel, operator in zip(axes[0], operators):
        measured, theory, span, counts = collect(members, axis, operator)
        places = axis.positions()
        panel.plot(places, [np.mean(each) for each in span], color=GREY, linestyle=":", marker="o", markersize=3,
                   label="span of the means")
        panel.errorbar(places, [np.mean(each) for each in measured], [np.std(each) for each in measured], color=BLUE, marker="o",
                       markersize=4, capsize=3, linestyle="-" if axis.connects() else "none", label="outlier space, measured")
        panel.plot(places, [mean(each) for each in theory], marker="_", markersize=14, label="theory", **THEORY)
        axis.prepare(panel)
        panel.set_title(MATRIX.get(operator, operator))
        if len(counts) == len(places):
            panel.set_xticks(places, [f"{value}\n{count:.3g} outliers" for value, count in zip(axis.values, counts)])
        panel.legend(loc="best", fontsize=7.5)
        means.append(f"{np.mean(measured[0]):.4f} … {np.mean(measured[-1]):.4f}")
    axes[0, 0].set_ylabel("share of the row $x^a$")
    headline(figure, f"Alignment with the leading space of the {MATRIX.get(operators[0], operators[0])}: {means[0]}",
             f"{sweep.name}. Bars: standard deviation over classes and seeds. Theory: the same weights and fresh samples, where "
             "there are enough outliers.")
    yield "mixture_alignments", figure


def mean(values):
    """Of those that there are."""
    known = np.array(values)[np.isfinite(values)]
    return known.mean() if known.size else np.nan


def is_aligned(run):
    """Whether it is a trained classifier whose rows were projected."""
    if run is None or not members_of([run]) or not aligned(run):
        return False
    mixture = mixture_of(run)
    return mixture.measured("class_residual_gram") and mixture["time"][-1] > 0


def collect(members, axis, operator):
    """Last measurements, one list for each value of the axis: measured, theory, span of the means; mean numbers of outliers."""
    lists = {value: ([], [], [], []) for value in axis.values}
    for member, run in members:
        measured, theory, span, counts = lists[member.parameters[axis.key]]
        for a, group in aligned(run)[operator].items():
            measured.append(group["alignment_outlier"][-1, a - 1, 1])
            theory.append(group["alignment_outlier_theory"][-1, a - 1, 1])
            span.append(mixture_of(run)["alignment_class_span"][-1, a - 1])
            counts.append(group["outlier_count"][-1])
    measured, theory, span, counts = zip(*lists.values())
    return measured, theory, span, [np.mean(each) for each in counts]


# ---------------------------------------------------------------- spectra side by side
@draws_sweep
def draw_all_spectra(sweep, runs, axis):
    members = [(member, run, blocks_of(run)) for member, run in zip(sweep.members, runs) if run in members_of(runs)]
    members = [each for each in members if each[2] and len(each[2][0]["curvature_eigenvalue"][-1]) >= 20]
    if axis.key.endswith("seed") or not 2 <= len(members) <= 6:
        return
    rows = len(members[0][2])
    figure, axes = plt.subplots(rows, len(members), figsize=(3.7 * len(members), 2.9 * rows + 0.6), squeeze=False)
    for column, (member, run, groups) in enumerate(members):
        for row, group in enumerate(groups):
            draw_spectrum(axes[row, column], run, group)
            axes[row, column].set_title(f"{title_of(group)},\n{axis.label} {member.parameters[axis.key]}", fontsize=9)
    for row in axes:
        row[0].set_ylabel("number of eigenvalues")
    axes[0, 0].legend(loc="best", fontsize=7.5)
    exact = not members[0][2][0].measured("bulk_edge_theory")
    headline(figure, spectra_message(members[0][2]) if exact else "Outliers and edge of the bulk are where theory has them", sweep.name)
    yield "mixture_spectra", figure
