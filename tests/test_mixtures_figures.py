"""Figures of Gaussian mixtures, of small runs and sweeps: that they are drawn, with all that was measured."""
import pytest

from drawing import draw_here
from test_mixtures import check, kgmm, xor

BLOCKS = """  - {kind: curvature, name: hessian_1, block: 1, unit: 1, rank: 2, every: 20}
  - {kind: curvature, name: gradient_1, operator: g, block: 1, unit: 1, rank: 2, every: 20}
snapshot:"""


def drawn(program, folder):
    """Names of the figures of mixtures that a program draws without a word of complaint."""
    done = draw_here(program, folder)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return sorted(path.stem for path in (folder / "figures").glob("mixture*.png") if path.stat().st_size > 5000)


@pytest.mark.parametrize("text, figures", [
    (kgmm().replace("snapshot:", BLOCKS), ["mixture_alignment", "mixture_course", "mixture_spectra"]),
    (kgmm(), ["mixture_course"]),
    (xor(), ["mixture_last_layer", "mixture_planes"]),
    (xor(kind="binary_mixture").replace("snapshot:", BLOCKS), ["mixture_last_layer", "mixture_planes"])],
    ids=["blocks", "course", "xor", "binary"])
def test_runs(run, text, figures):
    assert drawn("plot", check(run(text)).dir) == figures


@pytest.mark.parametrize("text, keys, figures", [
    (xor(), "run.seed: [1, 2, 3]", ["mixture_ensemble"]),
    (xor(kind="binary_mixture"), "run.seed: [1, 2, 3]", ["mixture_ensemble"]),
    (kgmm(), "run.seed: [1, 2]", ["mixture_courses"]),
    (kgmm().replace("snapshot:", BLOCKS), "data.train: [30, 60]", ["mixture_alignments"])],
    ids=["xor", "binary", "courses", "alignments"])
def test_sweeps(command, tmp_path, text, keys, figures):
    path = tmp_path / "input.yaml"
    path.write_text(f"{text}sweep: {{{keys}}}\n", encoding="utf-8")
    check(command("sweep", path, "--out", tmp_path / "out"))
    assert drawn("collect", tmp_path / "out") == figures
