"""What all figures share: colours, panels, headlines, and how series are shown on an axis."""
import os

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402 (the backend must be chosen first)
from matplotlib.cm import ScalarMappable  # noqa: E402
from matplotlib.colors import Normalize  # noqa: E402
from matplotlib.ticker import MaxNLocator  # noqa: E402
import numpy as np  # noqa: E402

# Okabe and Ito's colours: told apart with every kind of colour vision.
BLUE, ORANGE, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#666666"
STYLE = {
    "figure.dpi": 130,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "figure.constrained_layout.use": True,
}
MOST_PANELS = 12
# On a log axis, nothing that is only rounding.
ROUNDING = 1e-13


def colours(count):
    """Viridis without its palest end, which vanishes on white."""
    return plt.get_cmap("viridis")(np.linspace(0, 0.92, max(count, 2)))[:count]


def shown(count, most=MOST_PANELS):
    """At most `most` positions among `count`, evenly spread, first and last included."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def panels(count, width=2.9, height=2.5, most_columns=4):
    """A figure of small multiples that share their axes; returns it and the axes that are used."""
    columns = min(count, most_columns)
    rows = -(-count // columns)
    # One lone panel still needs the width that its title takes.
    size = (max(columns * width, 6.0) + 0.8, rows * height + 0.9)
    figure, axes = plt.subplots(rows, columns, figsize=size, sharex=True, sharey=True, squeeze=False)
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    for column, axis in enumerate(axes.flat[:count]):
        # Where the panel below is missing, this one carries the labels of the shared axis.
        axis.tick_params(labelbottom=column + columns >= count)
    return figure, axes.flat[:count]


def label_outer(axes, xlabel, ylabel):
    """Axis labels on the left column and on the lowest panel of each column only."""
    columns = axes[0].get_subplotspec().get_gridspec().ncols
    for position, axis in enumerate(axes):
        if position % columns == 0:
            axis.set_ylabel(ylabel)
        if position + columns >= len(axes):
            axis.set_xlabel(xlabel)


def headline(figure, title, *notes):
    """What the figure says, in bold, and below it in small what the reader must know."""
    figure.suptitle(title, fontsize=11, fontweight="bold")
    # supxlabel keeps its own room in a constrained layout, below the panels.
    figure.supxlabel("\n".join(note for note in notes if note), fontsize=7.5, color=GREY)


def sentence(message):
    return message[:1].upper() + message[1:]


def identity(run):
    return f"{run.name}: {describe_network(run)}".replace("$", r"\$")


def describe_network(run):
    """`784–256–256–10, gelu, trained on fashion_mnist`, as far as the run tells."""
    widths = run.widths()
    if widths:
        shape = "–".join(map(str, widths)) if len(widths) <= 8 else \
            f"{widths[0]}–{widths[1]}–…–{widths[-1]} ({len(widths) - 1} layers)"
    else:
        parts = [f"{key} {run.setting('model.' + key)}" for key in ("width", "depth") if run.setting("model." + key)]
        shape = ", ".join(parts) or "network of unknown widths"
    activation = run.setting("model.activation")
    data = run.setting("data.kind")
    return ", ".join(filter(None, [shape, activation, f"trained on {data}" if data else None]))


def line_style(steps, values=None):
    """Few measurements are shown one by one, and so are those between gaps, where no line leads to them."""
    few = len(steps) <= 15
    return {"marker": "o", "markersize": 2.5} if few or (values is not None and has_isolated(values)) else {}


def has_isolated(values):
    """Whether there is a number between two NaN along the first axis."""
    there = np.isfinite(values)
    return bool((there[1:-1] & ~there[:-2] & ~there[2:]).any())


def index_colourbar(figure, axes, count, label):
    if count < 2:
        return
    norm = Normalize(0.5, count + 0.5)
    cmap = matplotlib.colors.ListedColormap(colours(count))
    bar = figure.colorbar(ScalarMappable(norm, cmap), ax=list(axes), label=label, pad=0.02, aspect=30)
    bar.ax.yaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    bar.ax.invert_yaxis()  # the leading one on top, as in the panels
    bar.outline.set_visible(False)


def matrix_name(group, layer):
    return {"weights": f"$W_{{{layer}}}$", "gradient": f"gradient by $W_{{{layer}}}$",
            "update": f"update of $W_{{{layer}}}$", "product": "product of all layers"}.get(
                str(group.attributes.get("of", "weights")), f"layer {layer}")


def what(group):
    """What the singular values are of, for a headline; nothing for weights, the usual case."""
    return {"gradient": " of the gradient", "update": " of the update", "product": " of the end-to-end product"}.get(
        str(group.attributes.get("of", "weights")), "")


def layer_note(layers, positions):
    return f"{len(positions)} of {len(layers)} layers shown. " if len(positions) < len(layers) else ""


def last_measured(values):
    """Row of the last step at which anything was measured; the last row if nothing was."""
    rows = np.flatnonzero(np.isfinite(values).reshape(len(values), -1).any(axis=1))
    return rows[-1] if rows.size else len(values) - 1


def positive(values):
    """Zeros have no place on a log axis."""
    return np.where(values > 0, values, np.nan)


def spans_decades(values):
    """Whether there is more to see on a log axis, without what is only rounding."""
    seen = values[values > ROUNDING]
    return bool(seen.size) and seen.max() > 10 * seen.min()


def save(figure, path):
    """Under its final name a figure is complete; it carries its message and its words, for those who cannot see it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    words = "Subject" if path.suffix == ".pdf" else "Description"
    try:
        figure.savefig(temporary, format=path.suffix[1:], metadata={"Title": title_of(figure), words: description(figure)})
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def title_of(figure):
    return plain(figure._suptitle.get_text() if figure._suptitle else "")


def description(figure):
    """What the axes show, and the notes below them."""
    shown_by = []
    for axis in filter(lambda axis: axis.get_visible(), figure.axes):
        named = [text for text in (axis.get_title(), axis.get_ylabel() and f"{axis.get_ylabel()} against {axis.get_xlabel()}")
                 if text]
        shown_by += [text for text in named if text not in shown_by]
    notes = figure._supxlabel.get_text() if figure._supxlabel else ""
    return plain("; ".join(filter(None, [title_of(figure), *shown_by, notes])))


def plain(text):
    return " ".join(text.replace("$", "").replace("\\", "").split())
