"""The one reader of run directories; every other script here goes through it.

    run = open_run("runs/quickstart")
    spectrum = run.groups["spectrum"]
    spectrum["singular_value"]                 # NumPy array, (step, layer, index)
    spectrum.label("singular_value")           # "singular value (…)" for an axis
    run.setting("model.activation")            # from resolved.yaml

Series are scalars and small arrays, so a run is read whole and the file is closed again: a script can keep many runs
open while they are still being written.
"""
from dataclasses import dataclass, field
import json
from pathlib import Path
import re
import sys

import h5py
import numpy as np

SNAPSHOT_NAME = re.compile(r"step_(\d+)\.h5")


class RunError(Exception):
    """Something is wrong with what the user pointed at; the text is one line for the user."""


def for_each(program, directories, work):
    """Calls work(directory); what is wrong with one holds up no other. Returns the program's exit code."""
    failed = False
    for directory in directories:
        try:
            work(directory)
        except (RunError, OSError) as error:
            print(f"{program}: {error}", file=sys.stderr)
            failed = True
    return 2 if failed else 0


@dataclass
class Variable:
    values: np.ndarray
    dims: tuple
    attributes: dict

    def label(self, default):
        """`long_name (units)` for an axis; pure numbers (units "1") have no units to show."""
        text = str(self.attributes.get("long_name", default))
        units = str(self.attributes.get("units", "1"))
        # A dollar would start mathtext in Matplotlib.
        return (text if units in ("", "1") else f"{text} ({units})").replace("$", r"\$")


@dataclass
class Group:
    name: str
    attributes: dict
    variables: dict = field(default_factory=dict)

    @property
    def kind(self):
        """What sort of probe wrote this group; the name can be the user's own."""
        return str(self.attributes.get("kind", self.name))

    def __contains__(self, name):
        return name in self.variables

    def variable(self, name):
        try:
            return self.variables[name]
        except KeyError:
            raise RunError(f"group {self.name} has no quantity {name}") from None

    def __getitem__(self, name):
        return self.variable(name).values

    def label(self, name):
        return self.variable(name).label(name.replace("_", " "))

    def measured(self, name):
        """Whether the quantity is there and holds at least one number."""
        return name in self and bool(np.isfinite(self[name]).any())


@dataclass
class Run:
    path: Path
    status: dict          # status.json; empty if there is none
    input: str            # input.yaml as given; "" if there is none
    settings: dict        # resolved.yaml: dotted key → text, or list of texts
    attributes: dict      # root attributes of metrics.h5
    groups: dict          # name → Group, provenance among them (its facts are attributes)

    @property
    def name(self):
        return self.setting("run.name") or self.path.resolve().name

    def setting(self, key, default=None):
        return self.settings.get(key, default)

    def snapshots(self):
        """[(step, path)] in the order of training."""
        found = ((SNAPSHOT_NAME.fullmatch(path.name), path) for path in self.path.glob("snapshots/*.h5"))
        return sorted((int(match[1]), path) for match, path in found if match)

    def widths(self):
        """All widths n_0 … n_L, or None where neither the input nor a snapshot tells them."""
        written = self.setting("model.widths")
        if isinstance(written, list):
            return [int(width) for width in written]
        for _, path in self.snapshots():
            return _snapshot_widths(path)
        return None


def open_run(directory):
    """Reads a run directory; RunError, in words for the user, if that is not possible."""
    path = Path(directory)
    if not path.is_dir():
        raise RunError(f"{directory}: no such directory")
    status = _read_status(path / "status.json")
    # Parts stand beside a metrics.h5 only while a finished run is prolonged: they are then what is newer.
    parts = sorted(path.glob("metrics/part-*.h5"), key=lambda part: (len(part.name), part.name))
    files = parts or list(path.glob("metrics.h5"))
    if not files:
        raise RunError(_why_no_metrics(directory, path, status))
    attributes, groups = _read_metrics(files[0])
    for file in files[1:]:
        _append(groups, _read_metrics(file)[1])
    return Run(path, status, _read_text(path / "input.yaml"), flat_settings(_read_text(path / "resolved.yaml")),
               attributes, groups)


def flat_settings(text):
    """resolved.yaml as {dotted key: text or list of texts}.

    The program writes it in one plain style (nested maps, one `key: value` a line, short lists in brackets), so that
    figures need no YAML library. Lists of maps (probes) are left out: their results carry their own attributes.
    """
    settings, parents, list_indent = {}, [], None
    for line in text.splitlines():
        body = line.strip()
        indent = len(line) - len(line.lstrip())
        if body.startswith("- "):
            list_indent = indent
        if list_indent is not None and (body.startswith("- ") or indent > list_indent):
            continue
        list_indent = None
        match = re.fullmatch(r"([A-Za-z_]\w*):(?:\s+([^#\s].*?))?(?:\s+#.*)?", body)
        if not match:
            continue
        while parents and parents[-1][0] >= indent:
            parents.pop()
        parents.append((indent, match[1]))
        if match[2]:
            settings[".".join(name for _, name in parents)] = _yaml_value(match[2])
    return settings


def _yaml_value(text):
    if text.startswith("[") and text.endswith("]"):
        return [_unquoted(item) for item in text[1:-1].split(",") if item.strip()]
    return _unquoted(text)


def _unquoted(text):
    """The program quotes texts as JSON does."""
    text = text.strip()
    try:
        return json.loads(text) if text.startswith('"') else text
    except json.JSONDecodeError:
        return text


def _read_text(path):
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _read_status(path):
    try:
        status = json.loads(_read_text(path) or "{}")
    except json.JSONDecodeError:
        return {}
    return status if isinstance(status, dict) else {}


def _why_no_metrics(directory, path, status):
    if status:
        where = f" at step {status['step']}" if "step" in status else ""
        reason = f" ({status['reason']})" if status.get("reason") else ""
        return f"{directory}: no metrics yet; the run is in state '{status.get('state', 'unknown')}'{where}{reason}"
    if (path / "input.yaml").exists():
        return f"{directory}: no metrics.h5 and no status.json: the run was never started or was cut off at its start"
    return f"{directory}: not a run directory (it has no metrics.h5, status.json or input.yaml)"


def _read_metrics(path):
    try:
        with h5py.File(path, "r") as file:
            groups = {name: _read_group(name, item) for name, item in file.items() if isinstance(item, h5py.Group)}
            return _attributes(file), groups
    except (OSError, RuntimeError, KeyError) as error:
        raise RunError(f"{path}: cannot be read as HDF5 ({str(error).splitlines()[0]})") from error


def _append(groups, later):
    """Adds the rows of a later part. Parts can overlap after a kill: the rows that are there already stay."""
    for name, group in later.items():
        if name not in groups:
            groups[name] = group
            continue
        known = groups[name].variables
        new = {axis: group[axis] > known[axis].values[-1] for axis in group.variables
               if axis.endswith("step") and axis in known and len(known[axis].values)}
        for key, variable in group.variables.items():
            if key not in known:
                known[key] = variable
            elif variable.dims and variable.dims[0] in new:
                rows = variable.values[new[variable.dims[0]]]
                known[key].values = np.concatenate([known[key].values, rows])


def _read_group(name, h5_group):
    group = Group(name, _attributes(h5_group))
    for key, dataset in h5_group.items():
        if isinstance(dataset, h5py.Dataset) and dataset.shape is not None:
            group.variables[key] = Variable(_values(dataset), _dims(dataset), _attributes(dataset))
    return group


def _values(dataset):
    if h5py.check_string_dtype(dataset.dtype):
        return dataset.asstr(errors="replace")[()]
    return dataset[()]


def _dims(dataset):
    """Names of the dimension scales, "" where there is none; a coordinate is its own dimension."""
    if h5py.h5ds.is_scale(dataset.id):
        return (dataset.name.rsplit("/", 1)[1],)
    try:
        scales = [list(dim.values()) for dim in dataset.dims]
    except RuntimeError:  # a scale was removed from the file
        scales = [[]] * dataset.ndim
    return tuple(scale[0].name.rsplit("/", 1)[1] if scale else "" for scale in scales)


def _attributes(h5_object):
    """Attributes as Python values, without the references that netCDF-4 and HDF5 keep for themselves."""
    attributes = {}
    for name in h5_object.attrs:
        if name in ("DIMENSION_LIST", "REFERENCE_LIST", "CLASS", "NAME") or name.startswith("_"):
            continue
        value = h5_object.attrs[name]
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        attributes[name] = value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
    return attributes


def _snapshot_widths(path):
    try:
        with h5py.File(path, "r") as file:
            layers = sorted((name for name in file if re.fullmatch(r"W\d+", name)), key=lambda name: int(name[1:]))
            shapes = [file[name].shape for name in layers]
    except OSError:
        return None
    return [shapes[0][1]] + [shape[0] for shape in shapes] if shapes else None
