"""The benchmark's own tools: comparing two runs of it, and counting messages. Nothing here is timed."""
import fcntl
import json
from pathlib import Path
import subprocess
import sys

import pytest

from run import child_environment, execute

ROOT = Path(__file__).resolve().parent.parent


def row(metric, ratio, demanded=None, study="step"):
    return {"study": study, "metric": metric, "ours": 1, "limit": None, "peer": None, "ratio": ratio, "demanded": demanded}


@pytest.fixture
def compare(tmp_path):
    """compare(old rows, new rows): exit code and lines of tests/bench/compare.py."""
    def start(old, new):
        paths = [tmp_path / "old.json", tmp_path / "new.json"]
        for path, rows in zip(paths, (old, new)):
            path.write_text(json.dumps(rows))
        done = subprocess.run([sys.executable, ROOT / "tests" / "bench" / "compare.py", *paths], capture_output=True, text=True,
                              check=False)
        return done.returncode, done.stdout.splitlines()
    return start


def test_nothing_changed(compare):
    rows = [row("rate", 0.9, ">= 0.85"), row("no ratio", None)]
    assert compare(rows, rows) == (0, ["2 rows compared, 0 ratios changed by more than a tenth"])


@pytest.mark.parametrize("demanded, before, after, word", [
    (">= 0.7", 0.9, 0.75, "slower, or worse"), (">= 0.7", 0.8, 0.95, "faster, or better"), ("<= 2", 1.2, 1.5, "slower, or worse"),
    ("< 2", 1.5, 1.2, "faster, or better"), ("0.7 to 1.3", 0.8, 1.2, "changed"), (None, 1, 1.2, "changed"),
    (">= 10 (paper)", 12, 20, "faster, or better"), (">= 0.7", 0.9, 0.85, None)])
def test_changes_are_said(demanded, before, after, word, compare):
    code, lines = compare([row("rate", before, demanded)], [row("rate", after, demanded)])
    assert code == 0
    assert lines[:-1] == ([f"{word}: step: rate: ratio {before} -> {after}"] if word else [])


@pytest.mark.parametrize("demands, ratios, code", [
    ((">= 0.85", ">= 0.85"), (0.86, 0.84), 1), ((">= 0.85", ">= 0.85"), (0.84, 0.80), 0), ((">= 0.7", ">= 0.85"), (0.8, 0.8), 0),
    ((">= 0.85", None), (0.9, 0.8), 1), ((None, "<= 1.1"), (1.0, 1.2), 1), (("0.7 to 1.3", "0.7 to 1.3"), (1, 1.4), 1)])
def test_a_demand_that_held_and_fails(demands, ratios, code, compare):
    assert compare([row("rate", ratios[0], demands[0])], [row("rate", ratios[1], demands[1])])[0] == code


def test_counts_in_a_metric_may_differ(compare):
    code, lines = compare([row("seconds (184 products)", 2, ">= 1"), row("gone", 1)], [row("seconds (190 products)", 0.5, ">= 1"),
                                                                                      row("added", 1)])
    assert code == 1
    assert lines == ["slower, or worse: step: seconds (190 products): ratio 2 -> 0.5; >= 1 held and does not hold any more",
                     "not measured any more: step: gone", "new: step: added", "1 rows compared, 1 ratios changed by more than a tenth"]
    rates = [row("products (rate 0.1)", 2), row("products (rate 0.01)", 3)]
    assert compare(rates, rates[::-1])[1] == ["2 rows compared, 0 ratios changed by more than a tenth"]


def test_make_target(tmp_path):
    (tmp_path / "bench.json").write_text(json.dumps([row("rate", 0.9, ">= 0.8")]))
    (tmp_path / "old.json").write_text(json.dumps([row("rate", 1.2, ">= 0.8")]))
    for words in ([f"OLD={tmp_path}/old.json"], [f"{tmp_path}/old.json"]):
        done = subprocess.run(["make", "-C", str(ROOT), "INSTALL=0", "bench-compare", f"BUILD={tmp_path}", *words],
                              capture_output=True, text=True, check=False)
        assert done.returncode == 0 and "rate: ratio 1.2 -> 0.9" in done.stdout, done.stdout + done.stderr


# Held layers with biases and a softmax over the ranks; layers whose columns are sent around, and minibatches.
HELD = """data: {kind: gaussian, features: 60, outputs: 10, train: 3000, targets: classes}
model: {width: 50, depth: 3, activation: tanh, bias: true}
loss: {kind: cross_entropy}
train: {lr: 1e-6, steps: 3}
"""
SENT = """data: {kind: gaussian, features: 300, outputs: 200, train: 1000}
model: {width: 400, depth: 2, activation: relu}
train: {optimizer: sgd, batch: 128, lr: 1e-6, steps: 3}
"""


@pytest.fixture(scope="session")
def bench_messages(eigentrain):
    """The program that counts messages; built here, as `make check` does not, by one worker of pytest-xdist at a time."""
    build = eigentrain.parent.absolute()
    program = build / "tests" / "bench_messages"
    with open(build / "bench.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(["make", "-C", str(ROOT), "INSTALL=0", f"BUILD={build}", str(program)], capture_output=True, text=True,
                              check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return program


@pytest.mark.parametrize("name, ranks, changes", [
    ("held", 1, []), ("held", 2, []), ("held", 6, []), ("held", 4, ["grid.rows=2", "grid.block=16"]),
    ("sent", 2, ["grid.rows=1"]), ("sent", 4, ["grid.rows=2"]), ("sent", 6, ["grid.rows=6", "grid.block=32"])])
def test_counted_messages_are_those_of_plan(name, ranks, changes, bench_messages, mpirun, tmp_path):
    """Messages exactly, bytes within a tenth: the model's shares are even ones."""
    (tmp_path / "input.yaml").write_text({"held": HELD, "sent": SENT}[name])
    words = [*mpirun, "-n", str(ranks), str(bench_messages), "input.yaml", *changes]
    done = execute(words, 60, cwd=tmp_path, env=child_environment())
    assert done.returncode == 0, done.stderr
    counted = json.loads(done.stdout)
    assert counted["ranks"] == ranks
    assert counted["messages"] == counted["modelled_messages"], counted
    assert counted["bytes"] == pytest.approx(counted["modelled_bytes"], rel=0.1), counted
    assert (counted["bytes"] > 0) == (ranks > 1)
