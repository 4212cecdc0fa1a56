"""Spectral densities of curvature matrices: bulk and outliers, and what the quadrature says of traces."""
import numpy as np

from draw import draws
from style import (BLUE, GREY, ORANGE, headline, identity, label_outer, last_measured, line_style, panels, plt, sentence,
                   shown)

OPERATORS = {"hessian": "Hessian", "ggn": "Gauss–Newton matrix", "g": "second moment of the gradients",
             "g_centred": "covariance of the gradients"}

# Below this the smoothed density is no part of the spectrum.
FLOOR = 1e-6


@draws("density")
def draw_density(run, group):
    if group.measured("density"):
        yield group.name, draw_curves(run, group)
    if len(group["step"]) > 1 and group.measured("trace_estimate"):
        yield f"{group.name}_trace", draw_traces(run, group)


def name_of(group):
    operator = str(group.attributes.get("operator", "matrix"))
    return OPERATORS.get(operator, operator)


def draw_curves(run, group):
    """One panel a step: the smoothed density, and above it the eigenvalues that were found one by one."""
    rows = shown(len(group["step"]), 4)
    figure, axes = panels(len(rows), width=3.6, height=2.8, most_columns=2)
    drawn = False
    for axis, row in zip(axes, rows):
        grid, density = group["density_grid"][row], group["density"][row]
        axis.fill_between(grid, FLOOR / 10, np.maximum(density, FLOOR / 10), color=BLUE, alpha=0.35, linewidth=0)
        axis.plot(grid, np.where(density > FLOOR / 10, density, np.nan), color=BLUE, linewidth=0.9)
        found = outliers(run, group, row)
        for value in found:
            axis.axvline(value, color=ORANGE, linewidth=0.7, linestyle=(0, (4, 3)))
        axis.plot(found, np.full(len(found), 0.93), linestyle="none", marker="v", markersize=5, color=ORANGE,
                  transform=axis.get_xaxis_transform())
        drawn = drawn or len(found) > 0
        axis.set_yscale("log")
        if crowded(group):
            axis.set_xscale("symlog", linthresh=linear_part(group))
        axis.set_xlim(grid[0], grid[-1] if not len(found) else max(grid[-1], 1.05 * np.max(found)))
        axis.set_ylim(bottom=FLOOR)
        axis.set_title(f"step {group['step'][row]}")
    label_outer(axes, "eigenvalue", "density")
    steps, vectors = group["density_node"].shape[2], group["density_node"].shape[1]
    note = "Orange: eigenvalues found one by one (probe curvature). " if drawn else ""
    scale = f"Abscissa linear within ±{linear_part(group):.1g}." if crowded(group) else ""
    headline(figure, sentence(curve_message(group)), identity(run),
             f"Stochastic Lanczos quadrature, {vectors} start vector{'s' * (vectors > 1)} of {steps} steps; kernel of width "
             f"{group['density_sigma'][rows[-1]]:.2g}.",
             f"{note}Weight of negative nodes: {group['negative_mass'][rows[-1]]:.2g}. {scale}")
    return figure


def crowded(group):
    """Whether there is much at zero; else a linear abscissa shows more."""
    return np.nanmin(group["density_node"]) < linear_part(group)


def linear_part(group):
    """Most of a spectrum crowds at zero."""
    return float(f"{max(np.nanmax(np.abs(group['density_node'])) / 100, 1e-12):.0e}")


def outliers(run, group, row):
    """Leading eigenvalues of the same matrix at the same step, from a probe of the whole matrix on the same data."""
    for other in run.groups.values():
        alike = all(str(other.attributes.get(key)) == str(group.attributes.get(key)) for key in ("operator", "ridge_shift"))
        whole = str(other.attributes.get("block", "full")) == "full"
        same_data = str(other.attributes.get("of", "train"))[:4] == str(group.attributes.get("of", "train"))[:4]
        if other.kind == "curvature" and alike and whole and same_data and "curvature_eigenvalue" in other:
            found = np.flatnonzero(other["step"] == group["step"][row])
            if found.size:
                values = np.ravel(other["curvature_eigenvalue"][found[0]])
                return values[np.isfinite(values)]
    return []


def curve_message(group):
    row = last_measured(group["trace_estimate"])
    nodes, weights = group["density_node"][row], group["density_weight"][row]
    text = f"spectral density of the {name_of(group)}: from {np.nanmin(nodes):.3g} to {np.nanmax(nodes):.3g}"
    if not crowded(group):
        return text
    small = np.nansum(np.where(np.abs(nodes) < 0.01 * np.nanmax(nodes), weights, 0)) / np.nansum(weights)
    return f"{text},\n{100 * small:.2f} % of it within 1 % of the largest"


def draw_traces(run, group):
    """Estimate with its standard error, the exact value where there is one, and the negative part."""
    steps, trace, error = group["step"], group["trace_estimate"], group["trace_std_error"]
    figure, axes = plt.subplots(1, 2, figsize=(7.6, 3.2))
    band = np.nan_to_num(error)
    axes[0].fill_between(steps, trace - 2 * band, trace + 2 * band, color=BLUE, alpha=0.2, linewidth=0)
    axes[0].plot(steps, trace, color=BLUE, label="estimate ± 2 standard errors", **line_style(steps, trace))
    if group.measured("trace_exact"):
        axes[0].plot(steps, group["trace_exact"], color=ORANGE, linestyle="--", label="exact")
    axes[0].set_title("trace")
    axes[0].legend(loc="best", fontsize=7.5)
    axes[1].plot(steps, np.sqrt(group["frobenius_estimate"]), color=BLUE, label="Frobenius norm",
                 **line_style(steps, trace))
    share = axes[1].twinx()
    share.plot(steps, 100 * group["negative_mass"], color=GREY, linestyle=":")
    share.set_ylabel("negative part of the spectrum (%, dotted)", color=GREY)
    share.grid(False)
    axes[1].set_title("Frobenius norm, estimate")
    for axis in axes:
        axis.set_xlabel(group.label("step"))
    headline(figure, sentence(trace_message(group)), identity(run), f"Matrix: {name_of(group)}.")
    return figure


def trace_message(group):
    if not group.measured("trace_exact"):
        row = last_measured(group["trace_estimate"])
        return f"trace of the {name_of(group)}: {group['trace_estimate'][row]:.3g} at the end"
    with np.errstate(divide="ignore", invalid="ignore"):
        off = np.abs(group["trace_estimate"] - group["trace_exact"]) / group["trace_std_error"]
    if not np.isfinite(off).any():
        return f"trace of the {name_of(group)}, estimated and exact"
    return f"the trace of the {name_of(group)} is estimated to within {np.nanmax(off):.1f} standard errors"
