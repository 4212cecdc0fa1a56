#!/usr/bin/env python3
"""Runs the studies of papers.yaml and writes one page about what holds: reproduce.py [--full] [--only STUDY…]

`make reproduce` calls it. Runs go to OUT/runs (what is done there for the same input and code is not run again), the page to
OUT/reproduce.html, its tables to BUILD/reproduce.json. Exit code 1 if a study did not run to its end; a statement that does
not hold is a result, not a failure of the program.
"""
import argparse
from dataclasses import dataclass, field
import datetime
import json
import os
from pathlib import Path
import re
import shlex
import subprocess
import sys
import time

import yaml

from collect import collect
import laws
import page
from plot import draw_run
from published import compared_run
from report import question, report
from runs import RunError, open_run
from style import STYLE, plt
from sweeps import open_sweep, runs_of

ROOT = Path(__file__).resolve().parent.parent
INPUTS = ROOT / "inputs"
MOST_PICTURES = 6
LIMIT = 4 * 3600  # seconds that a study of small size may take before it is ended


@dataclass
class Study:
    name: str
    input: Path
    sets: dict = field(default_factory=dict)
    laws: list = None
    pictures: list = field(default_factory=list)
    rows: list = field(default_factory=list)
    seconds: float = 0
    command: str = ""
    failure: str = ""

    @property
    def is_sweep(self):
        return "\nsweep:" in self.input.read_text(encoding="utf-8")

    @property
    def question(self):
        return question(self.input.read_text(encoding="utf-8"))

    @property
    def headline(self):
        """Up to the first question mark or full stop."""
        return re.split(r"(?<=[?.:])\s", self.question, maxsplit=1)[0]

    @property
    def about(self):
        return self.question[len(self.headline):].strip()


def study_of(entry, full):
    """From an entry of papers.yaml."""
    small = None if full else entry.get("small")
    path = small if isinstance(small, str) else entry["input"]
    return Study(path.rpartition("/")[2], INPUTS / f"{path}.yaml", small if isinstance(small, dict) else {}, entry.get("laws"))


# ---------------------------------------------------------------- running
def code_of(program):
    """Version and commit, as the program says them itself."""
    told = subprocess.run([program, "info"], capture_output=True, text=True, check=True).stdout
    facts = dict(line.split(None, 1) for line in told.splitlines() if len(line.split(None, 1)) == 2)
    return f"{facts['version'].strip()} {facts.get('git', '').strip()}".strip()


def run_study(study, options):
    """Runs it, or goes on with what is there of it. Returns its directory."""
    out = options.out / "runs" / study.name
    prepare(study, out, options)
    where = options.out / "runs"
    words = [*shlex.split(options.mpirun), "-n", str(options.ranks), os.path.relpath(options.program, where),
             "sweep" if study.is_sweep else "run", os.path.relpath(study.input, where), "--out", study.name]
    words += ["--groups", str(options.ranks)] if study.is_sweep else ["--resume"]
    for key, value in study.sets.items():
        words += ["--set", f"{key}={value}"]
    study.command = f"cd {os.path.relpath(where)} && {shlex.join(words)}"
    start = time.monotonic()
    with open(options.out / "runs" / f"{study.name}.log", "w", encoding="utf-8") as log:
        try:
            code = subprocess.run(words, cwd=where, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=None if options.full else LIMIT,
                                  check=False).returncode
        except subprocess.TimeoutExpired:
            code = f"none after {LIMIT} s"
    study.seconds = round(time.monotonic() - start, 1)
    if code != 0:
        study.failure = f"The study did not run to its end (exit code {code}); its log: {log.name}"
    return out


def count_laws(study, options):
    """Runs the command `laws` in place of a training."""
    where, start = options.out / "runs", time.monotonic()
    with open(where / f"{study.name}.log", "w", encoding="utf-8") as log:
        try:
            program = [*shlex.split(options.mpirun), "-n", "1", os.path.relpath(options.program, where)]
            study.rows += laws.counted(study, program, os.path.relpath(study.input, where), where, log)
        except RuntimeError as error:
            study.failure = str(error)
    study.seconds = round(time.monotonic() - start, 1)


def prepare(study, out, options):
    """Moves away what other code or another input has left; makes the files that some inputs read."""
    stamp = out.with_suffix(".stamp")
    made = json.dumps([options.code, study.input.read_text(encoding="utf-8"), study.sets])
    if out.exists() and (not stamp.is_file() or stamp.read_text(encoding="utf-8") != made):
        old = out.with_name(f"{out.name}.old-{time.strftime('%Y%m%d-%H%M%S')}")
        out.rename(old)
    stamp.write_text(made, encoding="utf-8")
    if "kind: hdf5" in study.input.read_text(encoding="utf-8"):
        own, common = study.input.with_suffix(".py"), study.input.with_name("reference.py")
        subprocess.run([sys.executable, (own if own.is_file() else common).resolve()], cwd=out.parent, check=True)


# ---------------------------------------------------------------- looking
def look(study, out, formats):
    """Draws the study's figures and compares its numbers."""
    with plt.rc_context(STYLE):
        if study.is_sweep:
            compared, sweep = collect(out, formats), open_sweep(out)
            for member, run in zip(sweep.members, runs_of(sweep)):
                study.rows += page.check_rows(study.name, run, member.name) if run else []
        else:
            run = open_run(out)
            draw_run(run, formats)
            compared = compared_run(run)
            study.rows += page.check_rows(study.name, run)
    study.rows = [page.compared_row(study.name, row) for row in compared] + study.rows
    study.pictures = [page.picture(file) for file in chosen(out)]
    report(out, draw=False)


def chosen(out):
    """The figures of a study for the page: what its probes saw; the course of the training if there is nothing else."""
    files = sorted((out / "figures").glob("*.png"))
    seen = [file for file in files if not file.stem.startswith(("train", "twins"))]
    return (seen or files)[:MOST_PICTURES]


def look_aside(study, out, log_file, formats):
    """Looks at a study; what that prints goes to its log."""
    with open(log_file, "a", encoding="utf-8") as log:
        screen, sys.stdout = sys.stdout, log
        try:
            look(study, out, formats)
        except (RunError, OSError) as error:
            study.failure = study.failure or f"Nothing to look at: {error}"
        finally:
            sys.stdout = screen


def judge(study, options):
    """Runs a study and looks at it. Its end is one of the statements."""
    print(f"{study.name} …", flush=True)
    if study.laws is not None:
        count_laws(study, options)
    else:
        look_aside(study, run_study(study, options), options.out / "runs" / f"{study.name}.log",
                   ("png", "pdf") if options.full else ("png",))
    study.rows.append({"study": study.name, "quantity": "the study runs to its end", "known_by": "", "published": "",
                       "expected": "", "measured": study.failure or "done", "tolerance": "", "passed": not study.failure,
                       "note": ""})
    if study.sets:  # fewer steps than those for which a value is known
        study.rows = [row for row in study.rows if row["passed"] is not None]
    held = [row["passed"] for row in study.rows]
    print(f"  {held.count(True)} of {len(held) - held.count(None)} hold, {study.seconds:.0f} s", flush=True)


# ---------------------------------------------------------------- the page
def count(rows):
    return {"held": sum(row["passed"] is True for row in rows), "judged": sum(row["passed"] is not None for row in rows)}


def write(papers, options, seconds):
    rows = [row for paper in papers for claim in paper["claims"] for study in claim["studies"] for row in study.rows]
    for paper in papers:
        studies = [study for claim in paper["claims"] for study in claim["studies"]]
        paper.update(studies=len(studies), **count([row for study in studies for row in study.rows]))
    path = options.out / "reproduce.html"
    page.write(path, "reproduce.html", papers=papers, failed=[row for row in rows if row["passed"] is False],
               open=sum(row["passed"] is None for row in rows), full=options.full, ranks=options.ranks, version=options.code,
               date=datetime.date.today().isoformat(), minutes=round(seconds / 60, 1),
               command="make reproduce" + (" FULL=1" if options.full else ""), **count(rows))
    columns = ("study", "quantity", "published", "expected", "measured", "tolerance", "passed")
    table = options.build / "reproduce.json"
    temporary = table.with_suffix(".tmp")
    temporary.write_text(json.dumps({"code": options.code, "full": options.full,
                                     "rows": [{key: row[key] for key in columns} for row in rows]}, indent=1), encoding="utf-8")
    temporary.replace(table)


def say(studies, options):
    rows = [row for study in studies for row in study.rows]
    for row in rows:
        if row["passed"] is False:
            print(f"does not hold: {row['study']}: {row['quantity']}: {row['measured']}, "
                  f"{row['published'] or row['expected']} wanted{'; ' + row['note'] if row['note'] else ''}")
    print(f"{options.out / 'reproduce.html'}\n{count(rows)['held']} of {count(rows)['judged']} hold")


def arguments():
    parser = argparse.ArgumentParser(description="Runs all studies and writes one page: what holds of five papers.")
    parser.add_argument("--full", action="store_true", help="at the published sizes (days)")
    parser.add_argument("--only", metavar="STUDY", nargs="+", help="names of inputs, or keys of papers")
    parser.add_argument("--build", type=Path, default=Path("build"))
    parser.add_argument("--out", type=Path, default=Path("runs/reproduce"))
    parser.add_argument("--mpirun", default="mpirun")
    parser.add_argument("--ranks", type=int, default=2)
    options = parser.parse_args()
    options.program = (options.build / "eigentrain").absolute()
    options.out = options.out.absolute()
    return options


def main():
    options = arguments()
    papers = yaml.safe_load(Path(__file__).with_name("papers.yaml").read_text(encoding="utf-8"))
    options.code = code_of(options.program)
    (options.out / "runs").mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    for paper in papers:
        for claim in paper["claims"]:
            studies = [study_of(entry, options.full) for entry in claim["studies"]]
            claim["studies"] = [study for study in studies if not options.only or study.name in options.only
                                or paper["key"] in options.only]
        paper["claims"] = [claim for claim in paper["claims"] if claim["studies"]]
    papers = [paper for paper in papers if paper["claims"]]
    if not papers:
        print(f"reproduce.py: nothing is named {' or '.join(options.only)}; papers.yaml has the names", file=sys.stderr)
        return 2
    studies = [study for paper in papers for claim in paper["claims"] for study in claim["studies"]]
    for study in studies:
        judge(study, options)
        write(papers, options, time.monotonic() - start)
    say(studies, options)
    return int(any(study.failure for study in studies))


if __name__ == "__main__":
    sys.exit(main())
