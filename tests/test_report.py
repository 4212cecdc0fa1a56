"""Pages and comparisons of real runs: report.py, compare.py, reproduce.py."""
from html.parser import HTMLParser
import json
import os
from pathlib import Path
import re
import shlex
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from run import child_environment, execute

ROOT = Path(__file__).resolve().parent.parent
POSTPROCESS = ROOT / "postprocess"
sys.path.insert(0, str(POSTPROCESS))
import published  # noqa: E402
INPUT = (ROOT / "inputs" / "parsimony" / "dln_thm.yaml").read_text(encoding="utf-8")


def script(name, *arguments, cwd=None):
    return subprocess.run([sys.executable, str(POSTPROCESS / name), *map(str, arguments)], capture_output=True, text=True, timeout=600,
                          cwd=cwd, check=False, env={**os.environ, "PYTHONUTF8": "1"})


class Page(HTMLParser):
    """What stands in a page, and whether it needs anything from outside."""

    def __init__(self, path):
        super().__init__()
        self.images, self.words, self.outside, self.ids, self.links = [], [], [], set(), []
        text = path.read_text(encoding="utf-8")
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "img":
            self.images.append(attrs)
        if tag in ("img", "script", "link") and not attrs.get("src", "data:").startswith("data:"):
            self.outside.append(attrs)
        if tag == "link" or (tag == "script" and "src" in attrs):
            self.outside.append(attrs)
        if "id" in attrs:
            self.ids.add(attrs["id"])
        if attrs.get("href", "").startswith("#"):
            self.links.append(attrs["href"][1:])

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def finished(eigentrain, mpirun, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "thm"
    path = folder.with_suffix(".yaml")
    path.write_text(INPUT, encoding="utf-8")
    done = execute([*mpirun, "-n", "1", str(eigentrain), "run", str(path), "--out", str(folder)], 120, env=child_environment())
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def copy(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "copy"))


# ---------------------------------------------------------------- report.py
def test_report_of_a_run(copy):
    done = script("report.py", copy)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(copy / "report.html")
    page = Page(copy / "report.html")
    assert not page.outside
    assert len(page.images) == len(list((copy / "figures").glob("*.png"))) >= 4
    for image in page.images:
        assert image["src"].startswith("data:image/png;base64,") and len(image["alt"]) > 30, image["alt"]
    for words in ("dln_thm", "Theory checks", "6 of 6 hold", "scalar on the complement is that of the recursion", "0.95096112211",
                  "State: done, step 50 of 50", "All parameters, with defaults", "blas_kernel", "gradient"):
        assert words in page.text, words
    assert "bottom singular values" in page.text and "✗ does not" in page.text  # another draw than the paper's


def test_report_of_a_run_that_failed(copy):
    """A page all the same, with the reason."""
    status = json.loads((copy / "status.json").read_text())
    (copy / "status.json").write_text(json.dumps({**status, "state": "diverged", "reason": "the loss is not finite", "step": 7}))
    assert script("report.py", copy, "--keep-figures").returncode == 0
    page = Page(copy / "report.html")
    assert "State: diverged, step 7 of 50" in page.text and "the loss is not finite" in page.text
    assert "Nothing was measured yet" in page.text and not page.images


def test_report_escapes_what_users_write(copy):
    resolved = copy / "resolved.yaml"
    resolved.write_text(resolved.read_text().replace("name: dln_thm", 'name: "<b>x</b>&"'), encoding="utf-8")
    assert script("report.py", copy, "--keep-figures").returncode == 0
    assert "&lt;b&gt;x&lt;/b&gt;&amp;" in (copy / "report.html").read_text(encoding="utf-8")


def test_report_of_a_sweep(command, tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(INPUT.replace("rank: 3}", "rank: 3}\nsweep: {run.seed: [1, 2], train.lr: [0.5, 1]}", 1), encoding="utf-8")
    done = command("sweep", path, "--out", tmp_path / "s")
    assert done.returncode == 0, done.stderr
    done = script("report.py", tmp_path / "s")
    assert done.returncode == 0, done.stderr
    page = Page(tmp_path / "s" / "report.html")
    assert "4 members: 4 done" in page.text and "seed=1_lr=0.5" in page.text
    assert page.images and all(image["alt"] for image in page.images) and not page.outside


@pytest.mark.parametrize("name, message", [("absent", "no such directory"), ("empty", "not a run directory")])
def test_report_of_nothing(tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    done = script("report.py", tmp_path / name)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_figures_as_png_and_pdf(copy):
    assert script("plot.py", copy, "--format", "png", "pdf", "--only", "invariant").returncode == 0
    assert {path.suffix for path in (copy / "figures").iterdir()} == {".png", ".pdf"}


# ---------------------------------------------------------------- compare.py
def test_compare_equal_runs(copy, finished):
    done = script("compare.py", finished, copy)
    assert done.returncode == 0, done.stderr
    assert "0 settings differ" in done.stdout and "are equal to the last bit" in done.stdout


def test_compare_different_runs(command, finished, tmp_path):
    path = tmp_path / "other.yaml"
    path.write_text(INPUT, encoding="utf-8")
    assert command("run", path, "--out", tmp_path / "other", "--set", "train.lr=0.5").returncode == 0
    done = script("compare.py", finished, tmp_path / "other", "--figure", tmp_path / "both.png")
    assert done.returncode == 1, done.stderr
    assert "train.lr: 1 | 0.5" in done.stdout
    loss = next(line for line in done.stdout.splitlines() if line.split()[:1] == ["train/loss"])
    assert loss.split()[-1] == "1"  # the start is the same
    assert (tmp_path / "both.png").stat().st_size > 5000


def test_compare_nothing(finished, tmp_path):
    for arguments in ((finished, tmp_path), (finished, finished, "--figure", tmp_path / "a.txt")):
        done = script("compare.py", *arguments)
        assert done.returncode == 2 and "compare.py:" in done.stderr and "Traceback" not in done.stderr


# ---------------------------------------------------------------- published.py
class Series:
    """A group of metrics.h5: series over steps, and coordinates."""

    def __init__(self, coordinates, **series):
        self.coordinates, self.series = {"step": np.arange(3), **coordinates}, series

    def __getitem__(self, name):
        return np.asarray(self.coordinates[name])

    def measured(self, name):
        return name in self.series

    def variable(self, name):
        dims, values = self.series[name]
        return SimpleNamespace(dims=("step", *dims), values=np.asarray(values))


def made_up(scale, kind, factor):
    """Three steps of three rows: the last are `factor` times 1, 2, 3."""
    rows = np.outer([1, 2, 4], [1, 2, 3]) * factor
    group = Series({"row": [1, 2, 3]}, value=(["row"], rows), half=(["row"], rows / 2), count=([], [1, 2, 3]))
    settings = {"model.init.scale": [str(scale)], "kind": kind}
    return SimpleNamespace(groups={"g": group}, setting=settings.get)


@pytest.mark.parametrize("entry, expected", [
    ({}, [4, 8, 12]),
    ({"select": {"row": [1, 3]}}, [4, 12]),
    ({"select": {"step": 1, "row": 2}}, [4]),
    ({"select": {"row": "sum"}}, [24]),
    ({"select": {"row": "squares"}}, [224]),
    ({"select": {"row": {"mean": [2, 3]}}}, [10]),
    ({"select": {"row": "modulus"}}, [12]),
    ({"select": {"row": 1, "step": {"median": [1, 2]}}}, [3]),
    ({"only": {"quantity": "g/half", "above": 3}}, [np.nan, 8, 12]),
    ({"select": {"row": 1}, "only": {"quantity": "g/half", "above": 3}}, [np.nan]),
    ({"per": {"quantity": "g/half"}}, [2, 2, 2]),
    ({"select": {"step": 2, "row": 1}, "per": {"quantity": "g/value", "select": {"step": 0, "row": 1}}}, [4]),
])
def test_numbers_of_a_run(entry, expected):
    np.testing.assert_allclose(published.ours(made_up(1, "a", 1), published.Published("", quantity="g/value", value=0, **entry)), expected)


def test_numbers_of_several_members():
    runs = [made_up(scale, kind, scale**2 * (3 if kind == "b" else 1)) for scale in (1, 10, 100) for kind in "ab"]

    def found(**entry):
        return published.together(runs, published.Published("", quantity="g/value", value=0, select={"row": 1}, **entry))
    np.testing.assert_allclose(found(where={"kind": "a"}, members="slope", against="model.init.scale"), [2])
    some = {"kind": "b", "model.init.scale": {"any": [1, 10]}}
    np.testing.assert_allclose(found(where=some, members="mean"), [606])
    np.testing.assert_allclose(found(where=some, members="mean", over={"kind": "a"}), [3])
    np.testing.assert_allclose([found(where=some, members="least"), found(where=some, members="most")], [[12], [1200]])
    np.testing.assert_allclose(found(where=some, members="share", equals=12), [0.5])
    assert np.isnan(found(where={"kind": "c"}, members="mean")).all()


# ---------------------------------------------------------------- tour.py
def test_tour(eigentrain, mpirun, tmp_path):
    (tmp_path / "eigentrain").symlink_to(eigentrain)
    done = script("tour.py", "--build", tmp_path, "--out", tmp_path / "tour", "--mpirun", shlex.join(mpirun), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    tour = Page(tmp_path / "tour" / "tour.html")
    assert len(tour.images) == 4 and not tour.outside
    equal, everything = map(int, re.search(r"(\d+) of (\d+) series are equal to the last bit", tour.text).groups())
    assert equal == everything > 30


# ---------------------------------------------------------------- reproduce.py
def studies():
    papers = yaml.safe_load((POSTPROCESS / "papers.yaml").read_text(encoding="utf-8"))
    return [study for paper in papers for claim in paper["claims"] for study in claim["studies"]]


def test_papers_name_shipped_inputs():
    for study in studies():
        for path in [study["input"], *([study["small"]] if isinstance(study.get("small"), str) else [])]:
            assert (ROOT / "inputs" / f"{path}.yaml").is_file(), path


def test_every_shipped_study_is_reproduced():
    """But the one whose data the user must bring."""
    named = {path for study in studies() for path in (study["input"], study.get("small")) if isinstance(path, str)}
    shipped = {f"{file.parent.name}/{file.stem}" for file in (ROOT / "inputs").glob("*/*.yaml")}
    assert shipped - named == {"smooth/smooth_lowrank_cifar"}


def test_reproduce_counts_laws(eigentrain, mpirun, tmp_path):
    (tmp_path / "eigentrain").symlink_to(eigentrain)
    done = script("reproduce.py", "--build", tmp_path, "--out", tmp_path / "out", "--mpirun", shlex.join(mpirun), "--only", "law_counts_sizes",
                  "residual_laws", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {row["quantity"]: row for row in json.loads((tmp_path / "reproduce.json").read_text())["rows"]}
    assert all(row["passed"] for row in rows.values()), rows
    assert rows["relu networks with just the laws that theory knows"]["measured"] == "24 of 24"
    assert rows["path_rank, relu network 1-1-3-1-3-1-1 with skip connections"]["measured"] == "2"


def test_reproduce(eigentrain, mpirun, tmp_path):
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "eigentrain").symlink_to(eigentrain)
    arguments = ["--build", tmp_path / "build", "--out", tmp_path / "out", "--mpirun", shlex.join(mpirun), "--only", "dln_diag", "smooth_eps_scan"]
    done = script("reproduce.py", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    table = json.loads((tmp_path / "build" / "reproduce.json").read_text())
    assert {row["study"] for row in table["rows"]} == {"dln_diag", "smooth_eps_scan"}
    assert all(set(row) == {"study", "quantity", "published", "expected", "measured", "tolerance", "passed"} for row in table["rows"])
    held, judged = (sum(row["passed"] in kinds for row in table["rows"]) for kinds in ((True,), (True, False)))
    assert judged >= 20 and done.stdout.splitlines()[-1] == f"{held} of {judged} hold"
    missed = [row["quantity"] for row in table["rows"] if row["passed"] is False]
    assert all(quantity.startswith("sigma_(K+1) at epsilon = 0.01") for quantity in missed)  # ranges of single draws, left by others
    assert done.stdout.count("does not hold: ") == len(missed) == judged - held
    page = Page(tmp_path / "out" / "reproduce.html")
    assert not page.outside and len(page.images) >= 3 and all(len(image["alt"]) > 30 for image in page.images)
    assert set(page.links) <= page.ids and f"{held} of {judged} statements hold" in page.text
    first = (tmp_path / "out" / "runs" / "dln_diag" / "metrics.h5").stat().st_mtime_ns
    assert script("reproduce.py", *arguments, cwd=tmp_path).returncode == 0  # nothing is computed again
    assert (tmp_path / "out" / "runs" / "dln_diag" / "metrics.h5").stat().st_mtime_ns == first


def test_reproduce_says_what_failed(mpirun, tmp_path):
    """A program that ends with an error: the page says so, and the exit code."""
    program = tmp_path / "eigentrain"
    program.write_text("#!/bin/sh\n[ \"$1\" = info ] && echo 'version 0.0' && exit\nexit 70\n")
    program.chmod(0o755)
    done = script("reproduce.py", "--build", tmp_path, "--out", tmp_path / "out", "--mpirun", shlex.join(mpirun), "--only", "dln_diag", cwd=tmp_path)
    assert done.returncode == 1 and "0 of 1 hold" in done.stdout
    page = Page(tmp_path / "out" / "reproduce.html")
    assert "did not run to its end (exit code 70)" in page.text and "✗ does not" in page.text


def test_reproduce_unknown_study(eigentrain, tmp_path):
    (tmp_path / "eigentrain").symlink_to(eigentrain)
    done = script("reproduce.py", "--build", tmp_path, "--out", tmp_path / "out", "--only", "dln_nothing", cwd=tmp_path)
    assert done.returncode == 2 and "dln_nothing" in done.stderr
