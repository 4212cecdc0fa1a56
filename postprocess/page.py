"""Self-contained HTML: pictures inside the page, templates in `pages`."""
import base64
import os
from pathlib import Path

from PIL import Image  # Matplotlib brings it
import jinja2

from published import IN_A_PAPER

ENVIRONMENT = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).with_name("pages")), autoescape=True,
                                 trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)


def picture(path):
    """A PNG of ours as what the templates show: style.save has put its words into it."""
    with Image.open(path) as image:
        words = dict(image.text)
    encoded = base64.b64encode(path.read_bytes()).decode("ascii")
    title = words.get("Title") or path.stem.replace("_", " ")
    return {"name": path.name, "source": f"data:image/png;base64,{encoded}", "title": title,
            "description": words.get("Description") or title}


def compared_row(study, row):
    """A row of published.py."""
    known = row.entry.how in IN_A_PAPER
    return {"study": study, "quantity": row.entry.what + (f", {row.run}" if row.run else ""), "known_by": row.entry.how,
            "published": row.entry.text() if known else "", "expected": "" if known else row.entry.text(),
            "measured": row.measured(), "tolerance": row.entry.tolerance_text(), "passed": row.passed(),
            "note": row.entry.note}


def check_rows(study, run, member=""):
    """The theory checks that a run has made of itself."""
    group = run.groups.get("checks")
    if group is None or "name" not in group:
        return []
    columns = zip(*(group[name] for name in ("name", "reference", "measured", "bound", "passed")))
    return [{"study": study, "quantity": name + (f", {member}" if member else ""), "known_by": reference, "published": "",
             "expected": f"bound {bound:.3g}", "measured": f"{measured:.3g}", "tolerance": "",
             "passed": bool(passed), "note": ""} for name, reference, measured, bound, passed in columns]


def write(path, template, **content):
    """Under its final name a page is complete."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(ENVIRONMENT.get_template(template).render(**content), encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
