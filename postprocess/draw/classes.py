"""Class structure of Gauss-Newton: eigenvalues of the class matrices beside those of the whole, and their part in the Hessian."""
import numpy as np

from draw import draws
from style import BLUE, GREEN, GREY, ORANGE, PINK, headline, identity, last_measured, line_style, plt, positive, sentence

# Position in the series, name, colour, marker; G12 = G0 + G1 + G2.
MATRICES = ((1, "$G_1$: class means", ORANGE, "o"), (0, "$G_0$: the class itself", GREEN, "^"),
            (2, "$G_2$: cross-class", PINK, "s"))

# Eigenvalues below this share of the largest are the zeros of a matrix of low rank.
ZERO = 1e-10


@draws("classes")
def draw_classes(run, group):
    if group.measured("class_eigenvalue"):
        yield group.name, draw_eigenvalues(run, group)
        yield f"{group.name}_share", draw_shares(run, group)


def draw_eigenvalues(run, group):
    """A scatter: one column a step and matrix, the whole matrices' leading eigenvalues at its left."""
    figure, axis = plt.subplots(figsize=(8.2, 4.2))
    steps = group["step"]
    gap = np.min(np.diff(steps)) if len(steps) > 1 else 1
    columns = []
    for values, label in whole_matrices(run, group):
        columns.append((values, label, GREY if "Gauss" in label else BLUE, "_"))
    for position, label, colour, marker in MATRICES:
        columns.append((nonzero(group["class_eigenvalue"][:, position]), label, colour, marker))
    for column, (values, label, colour, marker) in enumerate(columns):
        x = np.broadcast_to((steps + gap * 0.7 * ((column + 0.5) / len(columns) - 0.5))[:, None], values.shape)
        axis.scatter(x, positive(values), s=5 if marker != "_" else 14, c=colour, marker=marker, label=label,
                     linewidths=1.0 if marker == "_" else 0)
    axis.set_yscale("log")
    axis.set_xlabel(group.label("step"))
    axis.set_ylabel("eigenvalue")
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7.5)
    headline(figure, sentence(message(group)), identity(run),
             "Papyan, ICML 2019 (arXiv 1901.08244). Each step has one column for each matrix, side by side; zeros are left out.")
    return figure


def nonzero(values):
    largest = np.nanmax(values, axis=1, keepdims=True)
    return np.where(values > ZERO * largest, values, np.nan)


def whole_matrices(run, group):
    """(values (step, index), label) of the Hessian and, if a probe followed it, of Gauss-Newton; at the same steps."""
    found = []
    if "hessian_eigenvalue" in group:
        found.append((group["hessian_eigenvalue"], "Hessian, leading"))
    for other in run.groups.values():
        same = other.kind == "curvature" and str(other.attributes.get("operator")) == "ggn" and \
            "curvature_eigenvalue" in other and np.array_equal(other["step"], group["step"])
        if same:
            values = other["curvature_eigenvalue"]
            found.append((values.reshape(len(values), -1), "Gauss–Newton, leading"))
            break
    return found


def message(group):
    row = last_measured(group["class_trace_share"])
    ranks = group["class_rank"][row]
    classes = int(round(np.sqrt(group["class_eigenvalue"].shape[2])))
    return f"{classes} classes: ranks of $G_0$, $G_1$, $G_2$ are {ranks[0]}, {ranks[1]}, {ranks[2]};\n" \
        f"class means carry {100 * group['class_trace_share'][row]:.3g} % of the Gauss–Newton trace"


def draw_shares(run, group):
    steps = group["step"]
    figure, axes = plt.subplots(1, 2, figsize=(7.6, 3.2))
    for position, label, colour, _ in MATRICES:
        values = group["class_trace"][:, position] / group["ggn_trace"]
        axes[0].plot(steps, values, color=colour, label=label, **line_style(steps, values))
    axes[0].plot(steps, group["class_trace_share"], color="black", label="all of them", **line_style(steps))
    axes[0].set_title("share of the Gauss–Newton trace")
    axes[0].legend(loc="best", fontsize=7.5)
    if group.measured("class_alignment"):
        for space, (label, colour) in enumerate((("range of $G_1$", ORANGE), ("range of $G_{12}$", BLUE))):
            values = group["class_alignment"][:, space]
            axes[1].plot(steps, values, color=colour, label=label, **line_style(steps, values))
        axes[1].set_title(f"part in the Hessian's leading {group['hessian_eigenvalue'].shape[1]}")
        axes[1].legend(loc="best", fontsize=7.5)
    else:
        axes[1].set_visible(False)
    for axis in axes:
        axis.set_xlabel(group.label("step"))
        axis.set_ylim(0, None)
    headline(figure, sentence(share_message(group)), identity(run))
    return figure


def share_message(group):
    if not group.measured("class_alignment"):
        return "how much of Gauss–Newton the class means carry"
    row = last_measured(group["class_alignment"])
    part = group["class_alignment"][row, 0]
    return f"{100 * part:.3g} % of the range of $G_1$ lies in the Hessian's leading eigenspace at the end"
