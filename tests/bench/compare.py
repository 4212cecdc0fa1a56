"""make bench-compare OLD=old.json: what became slower or faster since an older build/bench.json.

Rows are matched by study and metric. Said is where the ratio changed by more than a tenth; what is demanded of it tells which
way is better. The exit code is 1 if a demand that held before no longer holds.
"""
import argparse
import json
from pathlib import Path
import re

NOTABLE = 0.1


def holds(demanded, ratio):
    """Whether a ratio is as demanded: `>= 0.85`, `< 2`, `0.7 to 1.3`; words may follow."""
    between = re.match(r"([\d.]+) to ([\d.]+)", demanded)
    if between:
        return float(between[1]) <= ratio <= float(between[2])
    sign, bound = re.match(r"(>=|<=|<|>) *([\d.]+)", demanded).groups()
    bound = float(bound)
    return {">=": ratio >= bound, "<=": ratio <= bound, "<": ratio < bound, ">": ratio > bound}[sign]


def without_counts(metric):
    """A metric without what stands in brackets, such as numbers of products, which may differ from run to run."""
    return re.sub(r" *\([^()]*\)", "", metric)


def once(rows, name):
    """Rows by study and what `name` makes of the metric, those that share it left out."""
    keys = [(row["study"], name(row["metric"])) for row in rows]
    return {key: row for key, row in zip(keys, rows) if keys.count(key) == 1}


def matched(old, new):
    """Pairs of rows, and the old and new ones that are alone: matched by the whole metric, the rest without counts."""
    pairs, old, new = [], list(old), list(new)
    for name in (str, without_counts):
        before, after = once(old, name), once(new, name)
        pairs += [(before[key], after[key]) for key in after if key in before]
        old = [row for row in old if not any(row is pair[0] for pair in pairs)]
        new = [row for row in new if not any(row is pair[1] for pair in pairs)]
    return pairs, old, new


def broken(before, after):
    """The demand of either file that held and does not hold any more, or None."""
    demands = {row["demanded"] for row in (before, after) if row["demanded"]}
    failed = [demand for demand in sorted(demands) if holds(demand, before["ratio"]) and not holds(demand, after["ratio"])]
    return failed[0] if failed else None


def judgement(before, after):
    """What became of the ratio; None if it changed by less than a tenth. Without a demand nobody knows what is better."""
    change = after["ratio"] / before["ratio"] if before["ratio"] else 1
    if 1 / (1 + NOTABLE) <= change <= 1 + NOTABLE:
        return None
    demanded = after["demanded"] or before["demanded"] or ""
    if demanded[:1] not in ("<", ">"):
        return "changed"
    return "faster, or better" if (change > 1) == demanded.startswith(">") else "slower, or worse"


def compare(old, new):
    """Lines to print, and whether a demand that held does not hold any more."""
    pairs, gone, added = matched(old, new)
    lines, any_broken, changed = [], False, 0
    for before, after in pairs:
        if before["ratio"] is None or after["ratio"] is None:
            continue
        demand, word = broken(before, after), judgement(before, after)
        any_broken = any_broken or demand is not None
        changed += word is not None
        if demand or word:
            lines.append(f"{word or 'as before'}: {after['study']}: {after['metric']}: ratio {before['ratio']:.4g} -> "
                         f"{after['ratio']:.4g}" + (f"; {demand} held and does not hold any more" if demand else ""))
    lines += [f"not measured any more: {row['study']}: {row['metric']}" for row in gone]
    lines += [f"new: {row['study']}: {row['metric']}" for row in added]
    lines.append(f"{len(pairs)} rows compared, {changed} ratios changed by more than a tenth")
    return lines, any_broken


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path, nargs="?", default=Path("build/bench.json"))
    arguments = parser.parse_args()
    missing = [str(path) for path in (arguments.old, arguments.new) if not path.is_file()]
    if missing:
        parser.error(f"no such file: {', '.join(missing)} (make bench writes build/bench.json)")
    lines, any_broken = compare(*(json.loads(path.read_text()) for path in (arguments.old, arguments.new)))
    print("\n".join(lines))
    return 1 if any_broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
