#!/usr/bin/env python3
"""A tour: one small study from its question to its figures, with a word about every quantity. Half a minute on two cores.

    python3 postprocess/tour.py                 # writes runs/tour/tour.html
    python3 postprocess/tour.py --out DIR --build build --mpirun 'mpirun --oversubscribe'

Read it from top to bottom, or open it in an editor that knows "# %%" cells and run it piece by piece. Exit code 2 if the study
could not be run.
"""
# %% What the script needs: the reader of run directories, and NumPy and Matplotlib.
import argparse
from pathlib import Path
import shlex
import subprocess
import sys

import numpy as np

import page
from runs import RunError, open_run
from style import BLUE, GREY, ORANGE, STYLE, colours, headline, plt, save

# %% The question, as an input. A network of three layers learns ten classes of clothes from 1000 images. Which directions of
# its weights does the training use, and what has the curvature of the loss to do with them?
INPUT = """\
run:   {name: tour, seed: 1}
data:  {kind: fashion_mnist, train: 1000, test: 500, centre: true}
model: {widths: [784, 64, 64, 10], activation: tanh, init: {kind: orthogonal, scale: 0.7}}
loss:  {kind: cross_entropy}
train: {optimizer: gd, lr: 0.2, steps: 300}
probes:
  - {kind: spectrum, every: 10, rank: full}
  - {kind: subspace, every: 10, rank: 9, reference: 50}
  - {kind: curvature, every: 50, rank: 12}
checkpoint: {every: 100}
"""


# %% Running it. Everything that the run says goes to run.log; everything that it measures to metrics.h5.
def train(options, out, *more):
    path = options.out / "tour.yaml"
    path.write_text(INPUT, encoding="utf-8")
    words = [*shlex.split(options.mpirun), "-n", "2", str(options.build / "eigentrain"), "run", str(path), "--out", str(out), *more]
    print(f"$ {shlex.join(words)}", flush=True)
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 85):  # 85: stopped early, and can be resumed
        raise RunError(f"the run ended with exit code {done.returncode}:\n{done.stderr}")


# %% 1. Does it learn? `train` holds the loss at every step, accuracies at some.
def learning(run):
    train_ = run.groups["train"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3))
    left.plot(train_["step"], train_["loss"], color=BLUE)
    left.set(xlabel="step", ylabel="training loss")
    for name, colour in (("train_accuracy", BLUE), ("test_accuracy", ORANGE)):
        right.plot(train_["evaluated_step"], train_[name], color=colour, label=name.replace("_", " "))
    right.set(xlabel="step", ylabel="accuracy", ylim=(0, 1))
    right.legend()
    headline(figure, f"It learns: loss {train_['loss'][0]:.2f} to {train_['loss'][-1]:.2f}")
    return figure, """The loss is the mean cross-entropy of the training images. Every series of metrics.h5 has a coordinate beside it:
    loss lies along <code>step</code>, accuracies along <code>evaluated_step</code>, because they are measured less often."""


# %% 2. Singular values: W = Σ σ_i u_i v_iᵀ. At the start all σ_i of a layer are equal; those that leave the bulk are the
# directions that the training uses.
def singular_values(run):
    spectrum = run.groups["spectrum"]
    values = spectrum["singular_value"][:, 1]
    count = int(np.isfinite(values).any(axis=0).sum())
    figure, axis = plt.subplots(figsize=(6.4, 3.4))
    for index, colour in zip(range(count), colours(count)):
        axis.plot(spectrum["step"], values[:, index], color=colour, linewidth=0.9)
    axis.set(xlabel="step", ylabel="singular values of $W_2$")
    change = abs(values[-1, :count] - values[0, :count])
    moved = int((change > 0.1 * change.max()).sum())
    headline(figure, f"{moved} of {count} singular values of the second layer move")
    return figure, f"""Ten classes, and about as many singular values of the 64 move by more than a tenth of the largest movement
    ({moved}). The rest of the layer stays what it was at the start. <code>spectrum/residual</code> says how exactly each triplet
    is known; here all values of small matrices are computed."""


# %% 3. Subspaces. A singular value says how much; the vectors say where. Principal angles compare the leading subspaces with
# those of a reference step: 0° the same, 90° some direction is entirely new.
def subspaces(run):
    subspace = run.groups["subspace"]
    figure, axis = plt.subplots(figsize=(6.4, 3.4))
    for position, colour in enumerate(colours(len(subspace["layer"]))):
        axis.plot(subspace["step"], np.degrees(subspace["angle_left"][:, position].max(axis=-1)), color=colour, marker="o", markersize=2.5,
                  label=f"$W_{position + 1}$")
    axis.set(xlabel="step", ylabel="largest principal angle (degrees)", ylim=(0, 95))
    axis.axvline(50, color=GREY, linestyle=":", linewidth=0.8)
    axis.legend()
    headline(figure, "The leading left subspaces turn away from those of step 50")
    return figure, """Nine dimensions are followed (ten classes, less their mean). A large angle is not yet news: where two singular
    values are nearly equal, their vectors are not defined one by one. <code>subspace/flag</code> says where the gap is closed, and
    the angle is then left out rather than invented."""


# %% 4. Curvature. A few eigenvalues of the Hessian stand far above the others; how much of the gradient lies in their
# eigenspace?
def curvature(run):
    probe = run.groups["curvature"]
    steps = probe["step"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.2))
    for index, colour in zip(range(probe["curvature_eigenvalue"].shape[1]), colours(probe["curvature_eigenvalue"].shape[1])):
        left.plot(steps, probe["curvature_eigenvalue"][:, index], color=colour, marker="o", markersize=3)
    left.set(xlabel="step", ylabel="leading eigenvalues of the Hessian", yscale="log")
    right.plot(steps, probe["gradient_top_share"], color=ORANGE, marker="o", markersize=3)
    right.set(xlabel="step", ylabel="share of $|g|^2$ in the eigenspace", ylim=(0, 1))
    share = probe["gradient_top_share"][np.isfinite(probe["gradient_top_share"])]
    headline(figure, f"The gradient leaves the sharpest directions: {share[0]:.2g} of it, then {share[-1]:.2g}")
    widths = run.widths()
    rows = sum(m * n for m, n in zip(widths[1:], widths))
    return figure, f"""Twelve eigenpairs of a matrix of {rows} rows that is never formed: each product with it is one more sweep
    through the network. Descent with all images soon has nothing left to gain in the steepest directions, so the gradient lies
    almost wholly in the others. <code>curvature_residual</code> is |H v − λ v|, measured after the solve; what did not converge
    is NaN."""


# %% 5. Can it be trusted? The same study, stopped at step 150 and resumed, has the same bits.
def restart(options, run):
    out = options.out / "stopped"
    train(options, out, "--overwrite", "--stop-at", "150")
    train(options, out, "--resume")
    again = open_run(out)
    names = [(group, name) for group in ("train", "spectrum", "subspace", "curvature") for name in run.groups[group].variables
             if np.issubdtype(run.groups[group][name].dtype, np.number)]
    equal = sum(np.array_equal(run.groups[group][name], again.groups[group][name], equal_nan=True) for group, name in names)
    return f"""Stopped and resumed, {equal} of {len(names)} series are equal to the last bit (<code>postprocess/compare.py
    {run.path} {out}</code>). On another number of ranks they are equal to rounding."""


# %% The page.
def main():
    parser = argparse.ArgumentParser(description="Runs a small study and explains each quantity with a figure.")
    parser.add_argument("--out", type=Path, default=Path("runs/tour"))
    parser.add_argument("--build", type=Path, default=Path("build"))
    parser.add_argument("--mpirun", default="mpirun")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        train(options, options.out / "run", "--overwrite")
        run = open_run(options.out / "run")
        stops = [("Does it learn?", learning), ("Singular values", singular_values), ("Subspaces", subspaces), ("Curvature", curvature)]
        sections = []
        with plt.rc_context(STYLE):
            for number, (title, look) in enumerate(stops, 1):
                figure, words = look(run)
                path = options.out / f"{number}-{look.__name__}.png"
                save(figure, path)
                plt.close(figure)
                sections.append({"title": f"{number}. {title}", "words": words, "picture": page.picture(path)})
        sections.append({"title": "5. Can it be trusted?", "words": restart(options, run), "picture": None})
        page.write(options.out / "tour.html", "tour.html", input=INPUT, sections=sections)
    except (RunError, OSError) as error:
        print(f"tour.py: {error}", file=sys.stderr)
        return 2
    print(options.out / "tour.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
