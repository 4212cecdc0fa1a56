"""The examples of the READMEs, followed to the letter in a copy of the project: a probe, an activation, a data source, a figure, a
study."""
import os
from pathlib import Path
import re
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest

from run import child_environment, execute

ROOT = Path(__file__).resolve().parent.parent
FILE = re.compile(r"`([\w./]+)`:\n\n```(?:c|python|yaml)\n(.*?)```", re.DOTALL)
EDIT = re.compile(r"^- in `(.+?)`, (behind|in front of) `(.+?)`: `(.+?)`$", re.MULTILINE)


def follow(readme, tree):
    """Writes the files that a README shows and makes its edits; returns how many of each."""
    text = (tree / readme).read_text(encoding="utf-8")
    files, edits = FILE.findall(text), EDIT.findall(text)
    for path, content in files:
        (tree / path).write_text(content, encoding="utf-8")
    for path, where, anchor, added in edits:
        before, found, after = (tree / path).read_text(encoding="utf-8").partition(anchor)
        assert found, f"{readme}: {path} has no {anchor}"
        changed = found + added if where == "behind" else f"{added}\n{found}"
        (tree / path).write_text(before + changed + after, encoding="utf-8")
    return [path for path, _ in files], len(edits)


@pytest.mark.slow
def test_examples_of_the_readmes(mpirun, tmp_path):
    tree = tmp_path / "copy"
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".git", "build", "runs", "__pycache__", ".hypothesis"))
    assert follow("src/README.md", tree) == (["src/probes/norms.c", "src/net/spirals.c", "inputs/spirals.yaml"], 23)
    assert follow("postprocess/README.md", tree) == (["postprocess/draw/norms.py"], 0)
    assert follow("inputs/README.md", tree) == (["inputs/growth.yaml"], 0)
    done = subprocess.run(["make", "-C", str(tree), "-j2", "INSTALL=0", "BUILD=build", "all"], capture_output=True, text=True, timeout=600,
                          check=False, env={name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS")})
    assert done.returncode == 0, done.stdout + done.stderr
    program = str(tree / "build" / "eigentrain")
    done = execute([*mpirun, "-n", "2", program, "run", "inputs/growth.yaml", "--out", "out"], 120, cwd=tree, env=child_environment())
    assert done.returncode == 0, done.stderr
    with h5py.File(tree / "out" / "metrics.h5") as metrics, h5py.File(tree / "out" / "snapshots" / "step_000000040.h5") as snapshot:
        expected = [np.linalg.norm(snapshot[name][()]) for name in ("W1", "W2")]
        np.testing.assert_allclose(metrics["norms/norm"][-1], expected, rtol=1e-13)
        assert metrics["train/loss"][-1] < 0.5 * metrics["train/loss"][0]
    done = execute([program, "plan", "inputs/growth.yaml", "--ranks", "4"], 120, cwd=tree, env=child_environment())
    assert done.returncode == 0, done.stderr
    done = execute([sys.executable, "postprocess/plot.py", "out", "--only", "norms"], 120, cwd=tree)
    assert done.returncode == 0 and (tree / "out" / "figures" / "norms.png").stat().st_size > 5000, done.stderr
    check_data_source(mpirun, program, tree)


def check_data_source(mpirun, program, tree):
    """The same samples on any number of ranks, and a network that learns them; `plan` knows the source, too."""
    ends = []
    for ranks in (1, 2, 4):
        out = f"spirals{ranks}"
        done = execute([*mpirun, "-n", str(ranks), program, "run", "inputs/spirals.yaml", "--out", out], 120, cwd=tree, env=child_environment())
        assert done.returncode == 0, done.stderr
        with h5py.File(tree / out / "metrics.h5") as metrics:
            ends.append([metrics[f"train/{name}"][-1] for name in ("loss", "train_accuracy", "test_accuracy")])
    np.testing.assert_allclose(ends, [ends[0]] * 3, rtol=1e-8)
    assert min(ends[0][1:]) > 0.9 and ends[0][0] < 0.3, ends[0]
    done = execute([program, "plan", "inputs/spirals.yaml", "--ranks", "4"], 120, cwd=tree, env=child_environment())
    assert done.returncode == 0, done.stderr
    done = execute([program, "run", "inputs/spirals.yaml", "--out", "no", "--set", "data.turns=-1"], 120, cwd=tree, env=child_environment())
    assert done.returncode != 0 and "data.turns" in done.stderr
