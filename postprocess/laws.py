"""The command `laws` as a study of papers.yaml: what it counts beside what is known.

An entry `laws` lists networks by their widths, with keys that are changed (`keys`) and the counts that are known (`counts`). Of an
input with a sweep nothing need be listed: the command's table has the theory's counts.
"""
import os
import re
import shlex
import subprocess


def command_of(network, program, source):
    """`program`: the words that start it."""
    widths, words = network.get("widths"), [*program, "laws", source, "--point", "random"]
    keys = {"model.widths": widths, "data.features": widths[0], "data.outputs": widths[-1]} if widths else {}
    for key, value in {**keys, **network.get("keys", {})}.items():
        words += ["--set", f"{key}={value}"]
    return words


def said(words, where, log):
    """What the command prints; it goes to the log, too."""
    log.write(f"{shlex.join(words)}\n")
    log.flush()
    done = subprocess.run(words, cwd=where, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True, check=False)
    log.write(done.stdout)
    if done.returncode != 0:
        raise RuntimeError(f"the command `laws` ended with exit code {done.returncode}; its log: {log.name}")
    return done.stdout


def counted(study, program, source, where, log):
    """Runs the command for every network, in `where`; rows of what it counts. Sets the study's command, that of the first."""
    networks, rows = study.laws or [{}], []
    for network in networks:
        words = command_of(network, program, source)
        study.command = study.command or f"cd {os.path.relpath(where)} && {shlex.join(words)}"
        text = said(words, where, log)
        if study.is_sweep:
            rows += of_table(study, text)
        else:
            rows += [row(study, f"{name}, {network_name(text)}", str(value), found(text, name), value)
                     for name, value in network.get("counts", {}).items()]
    return rows


def network_name(text):
    """As the command's first line says it."""
    return re.search(r": (.*) at a random point", text)[1]


def found(text, name):
    match = re.search(rf"^  {name} +(\S+)", text, re.M)
    return int(match[1]) if match else None


def of_table(study, text):
    """Networks with as many laws as theory has, and with no other law; of each kind, where theory has a count."""
    lines, rows = [line.split() for line in text.splitlines() if line.startswith(("linear", "relu"))], []
    for kind in ("linear", "relu"):
        known = [[None if count == "-" else int(count) for count in line[2:]] for line in lines if line[0] == kind and line[6] != "-"]
        alike = sum(laws == theory and (lie is None or parameters - lie == laws) for parameters, _, laws, _, theory, lie in known)
        rows.append(row(study, f"{kind} networks with just the laws that theory knows", f"{len(known)} of {len(known)}",
                        f"{alike} of {len(known)}", f"{len(known)} of {len(known)}"))
    return rows


def row(study, quantity, expected, measured, wanted):
    return {"study": study.name, "quantity": quantity, "known_by": "computed", "published": "", "expected": expected,
            "measured": str(measured), "tolerance": "", "passed": measured == wanted, "note": ""}
