"""The study `scaling` of make bench: parallel efficiency, predicted by plan's model up to 4096 ranks, measured on 1 and 2.

    python3 scaling.py build/scaling.json FIGURE.png     draws what the study has found once more
"""
import json
from pathlib import Path
import sys

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "postprocess"))

import style  # noqa: E402 (lives beside the other figures)

INPUT = HERE / "scaling.yaml"
WIDTHS, RANKS = (1024, 4096, 16384), 4096
SAMPLES = 4  # times the width
# Of a usual cluster: seconds of a message, bytes per second to each rank.
LATENCY, BANDWIDTH = 2e-6, 2e9
SHAPES = (("1 × P", style.BLUE, "o"), ("square", style.ORANGE, "s"), ("P × 1", style.GREEN, "^"))


def changes(width, samples):
    return [f"model.width={width}", f"data.train={samples}"]


def plan(bench, width, ranks, *words, processes=1):
    sets = [word for change in changes(width, SAMPLES * width) for word in ("--set", change)]
    return json.loads(bench.ours("eigentrain", "plan", INPUT, "--json", "--ranks", ranks, *sets, *words, ranks=processes))


def seconds(bench, ranks, samples, width=WIDTHS[0]):
    """Of a step, one BLAS thread a rank."""
    return json.loads(bench.ours("bench_train", INPUT, *changes(width, samples), ranks=ranks, threads=1))["step_seconds"]


def measure(bench):
    """Strong and weak efficiency of 2 ranks, from medians of five steps each."""
    samples = SAMPLES * WIDTHS[0]
    one, two, double = seconds(bench, 1, samples), seconds(bench, 2, samples), seconds(bench, 2, 2 * samples)
    return {"strong": one / (2 * two), "weak": one / double}


def scaling(bench):
    """Measured points, and a figure of what the model says, with the rates of this machine and a given network."""
    bench.say("strong and weak scaling, 1 and 2 ranks …")
    measured = measure(bench)
    here = plan(bench, WIDTHS[0], 2, processes=2)
    study = f"scaling, 784-{WIDTHS[0]}-{WIDTHS[0]}-{WIDTHS[0]}-10, {SAMPLES * WIDTHS[0]} samples"
    bench.row(study, "measured efficiency, 2 ranks, the same samples, beside plan's", measured["strong"],
              limit=here["planned"]["efficiency"], ratio=measured["strong"] / here["planned"]["efficiency"], demanded="0.8 to 1.2")
    bench.row(study, "measured efficiency, 2 ranks, twice the samples", measured["weak"], limit=1, ratio=measured["weak"])
    found = {"measured": measured, "flops": here["flops"], "latency": LATENCY, "bandwidth": BANDWIDTH, "widths": {}}
    for width in WIDTHS:
        bench.say(f"predicted efficiency up to {RANKS} ranks, width {width} …")
        said = plan(bench, width, RANKS, "--latency", LATENCY, "--bandwidth", BANDWIDTH, "--flops", here["flops"])
        found["widths"][str(width)] = said["shapes"]
        best = best_of(said["shapes"], RANKS)
        bench.row("scaling, predicted", f"efficiency on {RANKS} ranks as {best['rows']} x {best['cols']}, width {width}",
                  best["efficiency"], limit=1, ratio=best["efficiency"])
    (bench.build / "scaling.json").write_text(json.dumps(found, indent=1) + "\n")
    draw(found, bench.build / "scaling.png")
    bench.say(f"drawn: {bench.build / 'scaling.png'}")


# ---------------------------------------------------------------- the figure
def best_of(shapes, ranks):
    return min((shape for shape in shapes if shape["ranks"] == ranks), key=lambda shape: shape["seconds"])


def is_of(name, shape):
    if name == "square":
        return shape["rows"] in (shape["cols"], shape["cols"] / 2)
    return shape["rows" if name == "1 × P" else "cols"] == 1


def best_name(shape):
    """The kind of a shape: a row, a column, or two-dimensional."""
    return "1 × P" if shape["rows"] == 1 else "P × 1" if shape["cols"] == 1 else "P × Q"


def crossings(shapes):
    """Where the fastest grid is of another kind than with half as many ranks: [(ranks, kind before, kind now)]."""
    ranks = sorted({shape["ranks"] for shape in shapes} - {1})
    kinds = [best_name(best_of(shapes, count)) for count in ranks]
    return [(now, kinds[i], kinds[i + 1]) for i, now in enumerate(ranks[1:]) if kinds[i] != kinds[i + 1]]


def draw_width(axis, width, shapes, measured):
    for name, colour, marker in SHAPES:
        line = sorted((shape["ranks"], shape["efficiency"]) for shape in shapes if is_of(name, shape))
        axis.plot(*zip(*line), color=colour, marker=marker, markersize=3.5, label=f"predicted, {name}")
    ranks = sorted({shape["ranks"] for shape in shapes})
    axis.plot(ranks, [best_of(shapes, count)["efficiency"] for count in ranks], color="black", linestyle="--", linewidth=0.9,
              label="predicted, best of all shapes", zorder=3)
    for count, before, now in crossings(shapes):
        axis.axvline(count / 2**0.5, color=style.GREY, linewidth=0.8, linestyle=":")
        axis.text(count / 2**0.5, 0.03, f" {before} | {now}", fontsize=7, color=style.GREY, ha="center", backgroundcolor="white")
    if width == WIDTHS[0]:
        for name, marker in (("strong", "D"), ("weak", "*")):
            axis.plot([1, 2], [1, measured[name]], color=style.PINK, marker=marker, markersize=7, linestyle="none",
                      label=f"measured, {name} scaling", zorder=4)
    axis.set_title(f"width {width}, {SAMPLES * width} samples")
    axis.set_xscale("log", base=2)
    axis.set_xticks([4**i for i in range(7)], [str(4**i) for i in range(7)])
    axis.set_ylim(0, 1.1)


def draw(found, path):
    with style.plt.rc_context(style.STYLE):
        figure, axes = style.panels(len(WIDTHS), width=3.3, height=3)
        for axis, width in zip(axes, WIDTHS):
            draw_width(axis, width, found["widths"][str(width)], found["measured"])
        style.label_outer(axes, "ranks P", "parallel efficiency of a step")
        axes[-1].legend(*axes[0].get_legend_handles_labels(), loc="lower left", bbox_to_anchor=(0, 0.08), fontsize=7, frameon=True,
                        edgecolor="none")
        style.headline(
            figure, "Predicted parallel efficiency of a training step, 784-w-w-w-10, GELU, fp64",
            f"Lines are predictions of eigentrain plan: every rank at the rates measured on one core here ({found['flops'] / 1e9:.0f} "
            f"GFLOP/s in products), a network of {found['latency'] * 1e6:g} µs and {found['bandwidth'] / 1e9:g} GB/s to each rank.",
            "Pink points are measured, on 1 and 2 ranks of one node; strong: the same samples, weak: twice as many on 2 ranks. "
            "Dotted: where another kind of grid becomes the fastest.")
        style.save(figure, path)
        style.plt.close(figure)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
