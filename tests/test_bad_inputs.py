"""Bad inputs: what each must say, with which exit code, and that it leaves nothing behind.

A row is an input and the complete list of messages that it must give, in their order, each exactly once and without its
"eigentrain: " at the head. A `*` in a message stands for anything: lists that grow, words of libraries. The program
runs in an empty folder that holds `input.yaml` and what `setup` makes there; inputs name files relative to it.
Most rows run alone without mpirun, which is fast; those with `ranks` on several ranks, too: every rank meets the same
error, and one of them tells.
"""
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
import gzip
import hashlib
import json
import os
import re
import struct
import tempfile

import h5py
import numpy as np
import pytest

from run import child_environment, execute

TIMEOUT = 30  # seconds; nearly all rows need less than one
AT_A_TIME = 4
INPUT, ENVIRONMENT, DIVERGED = 2, 3, 4

# A network that trains in no time. The lines of `text(...)` are its first three, in this order.
DATA = "data: {kind: gaussian, features: 6, outputs: 3, train: 12}"
MODEL = "model: {width: 4, depth: 2}"
TRAIN = "train: {steps: 3}"


def text(data=DATA, model=MODEL, train=TRAIN, more=""):
    return f"{data}\n{model}\n{train}\n{more}"


def model(keys):
    """An input with other keys of the model: line 2."""
    return text(model=f"model: {{{keys}}}")


def train(keys):
    """An input with other keys of the training: line 3."""
    return text(train=f"train: {{{keys}}}")


def probes(*each, network=MODEL):
    """An input with probes: lines 4, 5, …"""
    return text(model=network, more="".join(f"{'probes:' if i == 0 else '       '} {'[' if i == 0 else ' '}{{{probe}}}"
                                            f"{']' if i == len(each) - 1 else ','}\n" for i, probe in enumerate(each)))


@dataclass
class Row:
    name: str
    input: str | bytes | None  # of input.yaml; None: there is none
    messages: list
    code: int = INPUT
    args: tuple = ()
    setup: callable = None  # setup(folder) makes files
    words: tuple | None = None  # the whole command line instead of: run input.yaml --out out ARGS
    ranks: tuple = (1,)
    usage: bool = False  # the usage follows on standard error


# ---------------------------------------------------------------- what stands in the folder
def idx_images(images):
    return struct.pack(">IIII", 0x803, *images.shape) + images.tobytes()


def idx_labels(labels):
    return struct.pack(">II", 0x801, len(labels)) + labels.tobytes()


IMAGES = np.random.default_rng(1).integers(0, 256, (20, 3, 2), dtype=np.uint8)
LABELS = (np.arange(20) % 4).astype(np.uint8)
IDX = "data: {kind: idx, train_images: images, train_labels: labels, classes: 4%s}"


def idx_input(more="", **changes):
    return text(data=IDX % more, **changes)


def idx_files(images=None, labels=None):
    """The two files of IDX."""
    def setup(folder):
        (folder / "images").write_bytes(idx_images(IMAGES) if images is None else images)
        (folder / "labels").write_bytes(idx_labels(LABELS) if labels is None else labels)
    return setup


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1:]


def squeezed(data, level=9):
    return gzip.compress(data, level, mtime=0)


LARGE_IMAGES = squeezed(idx_images(np.random.default_rng(2).integers(0, 32, (1000, 28, 28), dtype=np.uint8)))
LARGE_LABELS = idx_labels(np.zeros(1000, dtype=np.uint8))


def fashion(missing):
    """A folder `fashion` with the four files but one."""
    def setup(folder):
        (folder / "fashion").mkdir()
        for part in "train", "t10k":
            for kind, content in ("images-idx3", idx_images(IMAGES)), ("labels-idx1", idx_labels(LABELS)):
                name = f"{part}-{kind}-ubyte.gz"
                if name != missing:
                    (folder / "fashion" / name).write_bytes(squeezed(content))
    return setup


X, Y = np.random.default_rng(3).normal(size=(6, 12)), np.random.default_rng(4).normal(size=(3, 12))
MASK = np.random.default_rng(5).integers(2, size=(3, 12)).astype(float)
HDF5 = "data: {kind: hdf5, file: data.h5%s}"


def hdf5_input(more="", **changes):
    return text(data=HDF5 % more, **changes)


def masked_input():
    return hdf5_input(more="") + "loss: {kind: masked_mse}\n"


def hdf5_file(name="data.h5", **datasets):
    def setup(folder):
        with h5py.File(folder / name, "w") as file:
            for key, value in datasets.items():
                file[key] = value
    return setup


def with_value(matrix, row, col, value):
    changed = matrix.copy()
    changed[row, col] = value
    return changed


def written(name, content):
    def setup(folder):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return setup


def folder_called(name):
    return lambda folder: (folder / name).mkdir()


def unreadable(folder):
    (folder / "input.yaml").chmod(0)


# ---------------------------------------------------------------- the rows
KEYS = [
    Row("section misspelt", text(train="trian: {steps: 3}"),
        ["input.yaml:3: trian: unknown key (did you mean train?)"], ranks=(1, 2, 3)),
    Row("section unknown", text(more="zzzzzz: {a: 1}\n"),
        ["input.yaml:4: zzzzzz: unknown key (`eigentrain keys` lists those there are)"]),
    Row("key misspelt", train("stpes: 3"), ["input.yaml:3: train.stpes: unknown key (did you mean train.steps?)"]),
    Row("key unknown", train("zzzzzz: 3"),
        ["input.yaml:3: train.zzzzzz: unknown key (`eigentrain keys train` lists those there are)"]),
    Row("key of another section", model("width: 4, depth: 2, lr: 0.1"),
        ["input.yaml:2: model.lr: unknown key (did you mean train.lr?)"]),
    Row("key of the third level misspelt", model("width: 4, depth: 2, init: {sacle: 1}"),
        ["input.yaml:2: model.init.sacle: unknown key (did you mean model.init.scale?)"]),
    Row("section of the second level misspelt", model("width: 4, depth: 2, inti: {scale: 1}"),
        ["input.yaml:2: model.inti: unknown key (did you mean model.init?)"]),
    Row("key of a probe misspelt", probes("kind: spectrum, evry: 1"),
        ["input.yaml:4: probes[0].evry: unknown key (did you mean probes[0].every?)"]),
    Row("upper case", train("Steps: 3"), ["input.yaml:3: train.Steps: unknown key (did you mean train.steps?)"]),
    Row("dotted key in the file", text(more="train.lr: 1\n"),
        ["input.yaml:4: train.lr: unknown key (in the file, write sections as nested maps)"]),
    Row("empty key", text(more='"": 1\n'), ["input.yaml:4: a key must be a word"]),
    Row("key that is a list", text(more="? [train, lr]\n: 1\n"), ["input.yaml:4: a key must be a word"]),
    Row("duplicate key", text(train="train:\n  steps: 3\n  lr: 0.1\n  steps: 4"),
        ["input.yaml:6: train.steps: given twice (first in line 4)"], ranks=(1, 2)),
    Row("duplicate section", text(more="train: {lr: 0.1}\n"),
        ["input.yaml:4: train: given twice (first in line 3)"]),
    Row("data.kind missing", text(data="data: {}"), ["input.yaml:1: data.kind: missing (one of *fashion_mnist*)"]),
    Row("data missing", f"{MODEL}\n{TRAIN}\n", ["input.yaml:1: data.kind: missing (one of *fashion_mnist*)"]),
    Row("required keys of the kind missing", text(data="data: {kind: gaussian, train: 12}"),
        ["input.yaml:1: data.features: missing; data.kind: gaussian needs it (an integer)",
         "input.yaml:1: data.outputs: missing; data.kind: gaussian needs it (an integer)"]),
    Row("kind of a probe missing", probes("every: 2"), ["input.yaml:4: probes[0].kind: missing (one of *spectrum*)"]),
    Row("key without meaning for the kind of data", text(data=DATA[:-1] + ", rank: 3}"),
        ["input.yaml:1: data.rank: has no meaning with data.kind: gaussian; it applies to *: *low_rank_matrix*"]),
    Row("key without meaning for the optimizer", train("optimizer: gd, beta1: 0.9"),
        ["input.yaml:3: train.beta1: has no meaning with train.optimizer: gd; it applies to train.optimizer: adam*"]),
    Row("several errors at once", text(data=DATA[:-1] + ", test: -1}", model="model: {widht: 4, depth: two}",
                                       train="train:\n  lr: 0\n  optimizer: sdg"),
        ["input.yaml:1: data.test: expected an integer, found '-1' (it must be between 0 and *)",
         "input.yaml:2: model.widht: unknown key (did you mean model.width?)",
         "input.yaml:2: model.depth: expected an integer or auto, found 'two'",
         "input.yaml:4: train.lr: expected a number, found '0' (it must be above 0)",
         "input.yaml:5: train.optimizer: expected one of *, found 'sdg' (did you mean sgd?)"], ranks=(1, 2)),
    Row("errors of the file and of the command line", train("stesp: 3"),
        ["input.yaml:3: train.stesp: unknown key (did you mean train.steps?)",
         "--set train.lr=fast: expected a number, found 'fast'"], args=("--set", "train.lr=fast")),
    Row("several errors of the training", text(train="train: {optimizer: sgd}",
        more="probes: [{kind: spectrum, rank: 9}]"),
        ["input.yaml:3: train.batch: missing: sgd needs a batch size (the full batch is train.optimizer: gd)",
         "input.yaml:4: probes[0].rank: is 9, but no matrix has more than 4 singular values"], ranks=(1, 2)),
]

VALUES = [
    Row("text for an integer", train("steps: many"),
        ["input.yaml:3: train.steps: expected an integer, found 'many'"]),
    Row("text for a number", train("lr: fast"), ["input.yaml:3: train.lr: expected a number, found 'fast'"]),
    Row("number in quotes", train("lr: '0.1'"), ["input.yaml:3: train.lr: expected a number, found '0.1' in quotes"]),
    Row("fraction for an integer", train("steps: 1.5"),
        ["input.yaml:3: train.steps: expected an integer, found '1.5'"]),
    Row("unit behind a number", train("lr: 0.1s"), ["input.yaml:3: train.lr: expected a number, found '0.1s'"]),
    Row("decimal comma", text(train="train:\n  lr: 0,1"), ["input.yaml:4: train.lr: expected a number, found '0,1'"]),
    Row("nan", train("lr: nan"), ["input.yaml:3: train.lr: expected a number, found 'nan'"]),
    Row("infinity", train("lr: .inf"), ["input.yaml:3: train.lr: expected a number, found '.inf'"]),
    Row("number too large for a double", train("lr: 1e999"),
        ["input.yaml:3: train.lr: expected a number, found '1e999' (too large for double precision)"]),
    Row("integer too large for 64 bits", train("steps: 99999999999999999999"),
        ["input.yaml:3: train.steps: expected an integer, found '99999999999999999999' (too large for 64 bits)"]),
    Row("yes for true", model("width: 4, depth: 2, bias: yes"),
        ["input.yaml:2: model.bias: expected true or false, found 'yes' (write true or false)"]),
    Row("number for true", model("width: 4, depth: 2, bias: 1"),
        ["input.yaml:2: model.bias: expected true or false, found '1'*"]),
    Row("list for a value", train("lr: [0.1, 0.2]"),
        ["input.yaml:3: train.lr: expected a single value, found a list"]),
    Row("map for a value", train("lr: {start: 0.1}"), ["input.yaml:3: train.lr: expected a value, found a map"]),
    Row("value for a section", text(train="train: fast"),
        ["input.yaml:3: train: expected a map of keys and values, found a single value"]),
    Row("list for a section", text(train="train:\n- lr: 0.1"),
        ["input.yaml:3: train: expected a map of keys and values, found a list"]),
    Row("value for a section of the second level", model("width: 4, depth: 2, init: orthogonal"),
        ["input.yaml:2: model.init: expected a map of keys and values, found a single value"]),
    Row("map for a list of maps", text(more="probes: {kind: spectrum}\n"),
        ["input.yaml:4: probes: expected a list of maps, found a map (begin each map with \"- \")"]),
    Row("values in a list of maps", text(more="probes: [spectrum]\n"),
        ["input.yaml:4: probes[0]: expected a map of keys and values, found a single value"]),
    Row("list in a list", model("widths: [6, [4, 4], 3]"),
        ["input.yaml:2: model.widths: expected a value, found a list in a list"]),
    Row("word in a list of integers", model("widths: [6, wide, 3]"),
        ["input.yaml:2: model.widths: entry 2: expected an integer or auto, found 'wide'"]),
    Row("empty list", model("widths: []"), ["input.yaml:2: model.widths: the list is empty"]),
    Row("no value", text(train="train:\n  lr:"), ["input.yaml:4: train.lr: has no value"]),
    Row("zero", train("lr: 0"), ["input.yaml:3: train.lr: expected a number, found '0' (it must be above 0)"]),
    Row("negative", train("steps: -1"),
        ["input.yaml:3: train.steps: expected an integer, found '-1' (it must be at least 0)"]),
    Row("above the bound", text(more="grid: {block: 4097}\n"),
        ["input.yaml:4: grid.block: expected an integer or auto, found '4097' (it must be between 1 and 4096)"]),
    Row("depth zero", model("width: 4, depth: 0"),
        ["input.yaml:2: model.depth: expected an integer or auto, found '0' (it must be between 1 and *)"]),
    Row("beta of one", train("optimizer: adam, beta1: 1"),
        ["input.yaml:3: train.beta1: expected a number, found '1' (it must be between 0 and *)"]),
    Row("optimizer misspelt", train("optimizer: adma"),
        ["input.yaml:3: train.optimizer: expected one of *, found 'adma' (did you mean adam?)"], ranks=(1, 3)),
    Row("activation misspelt", model("width: 4, depth: 2, activation: rellu"),
        ["input.yaml:2: model.activation: expected one of *, found 'rellu' (did you mean relu?)"]),
    Row("activation that is none", model("width: 4, depth: 2, activation: zzzzzz"),
        ["input.yaml:2: model.activation: expected one of linear, relu, *, found 'zzzzzz'"]),
    Row("kind of data misspelt", text(data="data: {kind: fashion-mnist}"),
        ["input.yaml:1: data.kind: expected one of *, found 'fashion-mnist' (did you mean fashion_mnist?)"]),
    Row("word of another key", train("batch: all"),
        ["input.yaml:3: train.batch: expected an integer or full, found 'all'"]),
]

FILES = [
    Row("empty file", "", ["input.yaml:1: the file is empty"], ranks=(1, 2)),
    Row("only comments", "# train: {lr: 0.1}\n\n# nothing\n", ["input.yaml:1: the file is empty"]),
    Row("only a word", "train\n", ["input.yaml:1: expected a map of keys and values, found a single value"]),
    Row("only a list", "- train\n", ["input.yaml:1: expected a map of keys and values, found a list"]),
    Row("missing file", None, ["input.yaml: No such file or directory"], ranks=(1, 2, 3)),
    Row("file below a file", text(), ["input.yaml/more.yaml: Not a directory"], words=("run", "input.yaml/more.yaml")),
    Row("folder as input", None, ["input.yaml: Is a directory"], setup=folder_called("input.yaml"), ranks=(1, 2)),
    Row("file that cannot be read", None, ["/proc/self/mem: Input/output error"], words=("run", "/proc/self/mem")),
    Row("binary garbage", bytes(range(256)) * 16, ["input.yaml:1: not readable as UTF-8 text: *"]),
    Row("an image as input", b"\x89PNG\r\n\x1a\n" + bytes(100), ["input.yaml:1: not readable as UTF-8 text: *"]),
    Row("NUL characters", b"train: {lr: 0.1}\n" + bytes(100), ["input.yaml:2: not readable as UTF-8 text: *"]),
    Row("Latin-1", "# a\nrun: {name: größe}\n".encode("latin-1"), ["input.yaml:2: not readable as UTF-8 text: *"]),
    Row("tab before a key", "train:\n\tsteps: 3\n", ["input.yaml:2: indented by a tab; YAML wants spaces"]),
    Row("unclosed bracket", "model:\n  widths: [6, 4\ntrain: {steps: 3}\n", ["input.yaml:3: not YAML: * line 2*"]),
    Row("unclosed brace", "train: {steps: 3\n", ["input.yaml:*: not YAML: *"]),
    Row("unclosed quotes", "run: {name: 'abc}\n", ["input.yaml:*: not YAML: *"]),
    Row("wrong indentation", "train:\n    lr: 0.1\n  steps: 3\n", ["input.yaml:3: not YAML: *"]),
    Row("unknown alias", "train: *fast\n", ["input.yaml:1: not YAML: *"]),
    Row("several documents", f"{text()}---\n{text()}",
        ["input.yaml:5: a second YAML document begins; there may be only one"], ranks=(1, 2)),
    Row("file of 17 MiB", b"# " + b"x" * (17 << 20), ["input.yaml: larger than 16 MiB: not an input file"]),
    Row("endless file", None, ["/dev/zero: larger than 16 MiB: not an input file"], words=("run", "/dev/zero")),
    Row("deep nesting", "[" * 20000, ["input.yaml:*"]),
    Row("aliases that multiply", text(more="a: &a [x, x]\n" + "".join(
        f"{c}: &{c} [*{p}, *{p}, *{p}]\n" for p, c in zip("abcdefghijkl", "bcdefghijklm"))),
        [f"input.yaml:{i}: {c}: unknown key *" for i, c in enumerate("abcdefghijklm", 4)]),
]

if os.geteuid() != 0:  # root may read every file
    FILES.append(Row("no permission to read", text(), ["input.yaml: Permission denied"], setup=unreadable))

ARGUMENTS = [
    Row("--set with an unknown key", text(), ["--set train.lrr=1: unknown key (did you mean train.lr?)"],
        args=("--set", "train.lrr=1"), ranks=(1, 2)),
    Row("--set with a wrong value", text(), ["--set train.steps=x: expected an integer, found 'x'"],
        args=("--set", "train.steps=x")),
    Row("--set out of range", text(), ["--set train.lr=-1: expected a number, found '-1' (it must be above 0)"],
        args=("--set", "train.lr=-1")),
    Row("--set without a value behind it", text(), ["--set train.lr=: has no value"], args=("--set", "train.lr=")),
    Row("--set without =", text(), ["--set train.lr: expected KEY=VALUE"], args=("--set", "train.lr")),
    Row("--set without a key", text(), ["--set =1: expected KEY=VALUE"], args=("--set", "=1")),
    Row("--set without anything", text(), ["--set needs a value"], args=("--set",)),
    Row("--set with broken YAML", text(), ["--set model.widths=[6, 4: not YAML: *"],
        args=("--set", "model.widths=[6, 4")),
    Row("--set with an index too large", probes("kind: spectrum"),
        ["--set probes[2].rank=3: there is no probes[2]; probes has 1 entry"], args=("--set", "probes[2].rank=3")),
    Row("--set without an index", probes("kind: spectrum"),
        ["--set probes.rank=3: unknown key (did you mean probes[0].rank?)"],
        args=("--set", "probes.rank=3")),
    Row("--set with an empty index", probes("kind: spectrum"),
        ["--set probes[].rank=3: which one? write probes[0].rank"], args=("--set", "probes[].rank=3")),
    Row("--set with a negative index", probes("kind: spectrum"), ["--set probes[-1].rank=3: unknown key *"],
        args=("--set", "probes[-1].rank=3")),
    Row("--set with an enormous index", probes("kind: spectrum"),
        ["--set probes[99999999999999999999].rank=3: there is no probes[*]; probes has 1 entry"],
        args=("--set", "probes[99999999999999999999].rank=3")),
    Row("unknown option", text(), ["there is no option --ouput (did you mean --out?)"],
        words=("run", "input.yaml", "--ouput", "x"), ranks=(1, 2)),
    Row("option with = and a slip", text(), ["there is no option --ouput=x (did you mean --out=x?)"],
        words=("run", "input.yaml", "--ouput=x")),
    Row("option of one dash", text(), ["there is no option -o (`eigentrain help` lists those there are)"],
        args=("-o",)),
    Row("--out without a folder", text(), ["--out needs a value"], words=("run", "input.yaml", "--out")),
    Row("--out with an empty text", text(), ["--out needs a value"], words=("run", "input.yaml", "--out", "")),
    Row("two inputs", text(), ["one input file at a time, not both input.yaml and other.yaml"], args=("other.yaml",)),
    Row("no input", None, ["run needs an input file: eigentrain run INPUT.yaml"], words=("run",), ranks=(1, 2)),
    Row("several wrong options", text(), ["there is no option --fast*", "there is no option --slow*",
        "--set needs a value"],
        args=("--fast", "--slow", "--set")),
    Row("unknown command", text(), ["there is no command 'rnu' (did you mean 'run'?)"], words=("rnu", "input.yaml"),
        usage=True, ranks=(1, 2)),
    Row("no command", None, [], words=(), usage=True, ranks=(1, 2)),
    Row("help of an unknown command", None, ["there is no command 'pland' (did you mean 'plan'?)"], words=("help", "pland"), usage=True),
    Row("unknown key of keys", None, ["train.lrr: unknown key (did you mean train.lr?)"], words=("keys", "train.lrr"),
        ranks=(1, 2)),
    Row("two keys of keys", None, ["keys takes at most one key"], words=("keys", "train.lr", "train.batch")),
]

HINT = "(the images come with Debian's package dataset-fashion-mnist; data.path names the folder)"
FASHION = text(data="data: {kind: fashion_mnist, path: fashion}")
IMAGES_MISSING = f"fashion/train-images-idx3-ubyte.gz: No such file or directory {HINT}"
LABELS_MISSING = f"fashion/train-labels-idx1-ubyte.gz: No such file or directory {HINT}"

IMAGE_FILES = [
    Row("no folder of images", FASHION, [IMAGES_MISSING, LABELS_MISSING], ENVIRONMENT, ranks=(1, 2, 3)),
    Row("one file of images missing", FASHION, [LABELS_MISSING], ENVIRONMENT,
        setup=fashion("train-labels-idx1-ubyte.gz")),
    Row("test images missing", FASHION, [f"fashion/t10k-images-idx3-ubyte.gz: No such file or directory {HINT}"],
        ENVIRONMENT, setup=fashion("t10k-images-idx3-ubyte.gz")),
    Row("idx files missing", idx_input(), ["images: No such file or directory", "labels: No such file or directory"],
        ranks=(1, 2)),
    Row("idx file is a folder", idx_input(), ["images: Is a directory", "labels: No such file or directory"],
        setup=folder_called("images")),
    Row("idx file is empty", idx_input(), ["images: the file ends too early (truncated?)"], setup=idx_files(b"")),
    Row("test labels missing", idx_input(", test_images: images"),
        ["input.yaml:1: data.test_labels: missing; data.test_images needs it (a text)"], setup=idx_files()),
    Row("test images not given", idx_input(", test_labels: labels"),
        ["input.yaml:1: data.test_images: missing; data.test_labels needs it (a text)"], setup=idx_files()),
    Row("images and labels exchanged", idx_input(),
        ["images: not an IDX file of images: it begins with 0x00000801 instead of 0x00000803",
         "labels: not an IDX file of labels: it begins with 0x00000803 instead of 0x00000801"],
        setup=idx_files(idx_labels(LABELS), idx_images(IMAGES))),
    Row("text instead of images", idx_input(),
        ["images: not an IDX file of images: it begins with 0x68656c6c instead of 0x00000803"],
        setup=idx_files(b"hello world")),
    Row("other numbers of images and labels", idx_input(), ["images has 20 images, but labels has 19 labels"],
        setup=idx_files(labels=idx_labels(LABELS[:-1])), ranks=(1, 2)),
    Row("no images", idx_input(), ["images: 0 images of 3 × 2 pixels: no images that can be used"],
        setup=idx_files(idx_images(IMAGES[:0]), idx_labels(LABELS[:0]))),
    Row("images truncated", idx_input(), ["images: the file ends too early (truncated?)"],
        setup=idx_files(idx_images(IMAGES)[:-1]), ranks=(1, 2)),
    Row("labels truncated", idx_input(), ["labels: the file ends too early (truncated?)"],
        setup=idx_files(labels=idx_labels(LABELS)[:-1])),
    Row("images longer than they say", idx_input(),
        ["images: there is more in the file than the 20 samples that it announces"],
        setup=idx_files(idx_images(IMAGES) + b"x")),
    Row("more images announced than can be", idx_input(),
        ["images: too small for the 4294967295 images of 28 × 28 pixels it announces (truncated?)"],
        setup=idx_files(struct.pack(">IIII", 0x803, 0xffffffff, 28, 28) + bytes(100),
                        struct.pack(">II", 0x801, 0xffffffff) + bytes(100))),
    Row("gzip truncated", idx_input(), ["images: the file ends too early (truncated?)"],
        setup=idx_files(LARGE_IMAGES[:len(LARGE_IMAGES) // 2], LARGE_LABELS), ranks=(1, 2)),
    Row("gzip without its checksum", idx_input(), ["images: the file ends too early (truncated?)"],
        setup=idx_files(LARGE_IMAGES[:-8], LARGE_LABELS)),
    Row("gzip with a flipped bit", idx_input(), ["images: damaged: *"],
        setup=idx_files(flipped(LARGE_IMAGES, len(LARGE_IMAGES) // 2), LARGE_LABELS), ranks=(1, 2)),
    Row("gzip with a flipped pixel", idx_input(), ["images: damaged: *"],
        setup=idx_files(flipped(squeezed(idx_images(IMAGES), 0), 100))),
    Row("label out of range", idx_input(", train: 10", train="train: {steps: 3}").replace("classes: 4", "classes: 3"),
        ["labels: label 3 of sample 3 is not below data.classes = 3"], setup=idx_files(), ranks=(1, 2)),
    Row("more samples than the file has", idx_input(", train: 21"),
        ["input.yaml:1: data.train: asks for 21 samples, but the file has 20"], setup=idx_files(), ranks=(1, 2)),
    Row("many more samples than the file has", idx_input(", train: 9000000000000000000"),
        ["input.yaml:1: data.train: asks for 9000000000000000000 samples, but the file has 20"], setup=idx_files()),
]

HDF5_FILES = [
    Row("hdf5 file missing", hdf5_input(), ["data.h5: no such file"], ranks=(1, 2, 3)),
    Row("hdf5 file is a folder", hdf5_input(), ["data.h5: *"], setup=folder_called("data.h5")),
    Row("hdf5 file is a text", hdf5_input(), ["data.h5: not an HDF5 file"], setup=written("data.h5", b"1 2 3\n" * 999),
        ranks=(1, 2)),
    Row("hdf5 file is empty", hdf5_input(), ["data.h5: not an HDF5 file"], setup=written("data.h5", b"")),
    Row("dataset Y missing", hdf5_input(), ["data.h5: no dataset Y (*); the file holds X, y"],
        setup=hdf5_file(X=X, y=Y), ranks=(1, 2)),
    Row("no datasets", hdf5_input(), ["data.h5: no dataset Y; the file holds no datasets at all"], setup=hdf5_file()),
    Row("other numbers of samples", hdf5_input(), ["data.h5: X has 12 columns (samples), but Y has 11"],
        setup=hdf5_file(X=X, Y=Y[:, 1:]), ranks=(1, 2)),
    Row("samples in rows", hdf5_input(), ["data.h5: X has 6 columns (samples), but Y has 3*"],
        setup=hdf5_file(X=X.T, Y=Y.T)),
    Row("nan in X", hdf5_input(), ["data.h5: dataset X holds nan or inf at row 2, column 5 (counted from 0)"],
        setup=hdf5_file(X=with_value(X, 2, 5, np.nan), Y=Y), ranks=(1, 2, 3)),
    Row("infinity in Y", hdf5_input(), ["data.h5: dataset Y holds nan or inf at row 0, column 11 (counted from 0)"],
        setup=hdf5_file(X=X, Y=with_value(Y, 0, 11, -np.inf))),
    Row("nan in X_test", hdf5_input(), ["data.h5: dataset X_test holds nan or inf at row 0, column 0 (counted from 0)"],
        setup=hdf5_file(X=X, Y=Y, X_test=with_value(X, 0, 0, np.nan), Y_test=Y)),
    Row("X of three dimensions", hdf5_input(), ["data.h5: dataset X has 3 dimensions; a matrix has 2, a vector 1"],
        setup=hdf5_file(X=np.zeros((6, 4, 3)), Y=Y), ranks=(1, 2)),
    Row("X that is one number", hdf5_input(), ["data.h5: dataset X has 0 dimensions; a matrix has 2, a vector 1"],
        setup=hdf5_file(X=1.5, Y=Y)),
    Row("X of texts", hdf5_input(), ["data.h5: dataset X does not hold numbers"], setup=hdf5_file(X=[b"a", b"b"], Y=Y)),
    Row("X without samples", hdf5_input(), ["data.h5: X or Y is empty"],
        setup=hdf5_file(X=np.zeros((6, 0)), Y=np.zeros((3, 0))), ranks=(1, 2)),
    Row("test samples of another size", hdf5_input(),
        ["training and test samples differ in size: 6 and 5 features, 3 and 3 outputs"],
        setup=hdf5_file(X=X, Y=Y, X_test=X[:5], Y_test=Y)),
    Row("Y_test without X_test", hdf5_input(), ["data.h5: no dataset X_test*"], setup=hdf5_file(X=X, Y=Y, Y_test=Y)),
    Row("X_test without Y_test", hdf5_input(), ["data.h5: no dataset Y_test*"], setup=hdf5_file(X=X, Y=Y, X_test=X)),
    Row("classes that are none", hdf5_input(", targets: classes"),
        ["data.h5: column 0 of Y (counted from 0) is not one-hot, *data.targets: values takes all numbers"],
        setup=hdf5_file(X=X, Y=Y),
        ranks=(1, 2)),
    Row("whitening without X", hdf5_input(", whiten: true"),
        ["input.yaml:1: data.whiten: the input is the identity: there is nothing to centre or to whiten"],
        setup=hdf5_file(Y=Y)),
    Row("mask of another shape", masked_input(), ["data.h5: the mask M is 3 × 11, but the targets are 3 × 12"],
        setup=hdf5_file(X=X, Y=Y, M=MASK[:, 1:]), ranks=(1, 2)),
    Row("mask with other numbers", masked_input(),
        ["data.h5: dataset M holds something other than 0 and 1 at row 2, column 7 (counted from 0)"],
        setup=hdf5_file(X=X, Y=Y, M=with_value(MASK, 2, 7, 0.5)), ranks=(1, 2, 3)),
    Row("mask with nan", masked_input(),
        ["data.h5: dataset M holds nan or inf at row 0, column 0 (counted from 0)"],
        setup=hdf5_file(X=X, Y=Y, M=with_value(MASK, 0, 0, np.nan))),
    Row("mask of zeros", masked_input(), ["data.h5: the mask M is zero everywhere: nothing is observed"],
        setup=hdf5_file(X=X, Y=Y, M=0 * MASK)),
    Row("mask of the test samples alone", masked_input(),
        ["input.yaml:4: loss.kind: masked_mse needs a mask: data.kind: matrix_completion, or a dataset M in the file of "
         "data.kind: hdf5"],
        setup=hdf5_file(X=X, Y=Y, X_test=X, Y_test=Y, M_test=MASK)),
    Row("mask of the test samples and another loss", hdf5_input(),
        ["data.h5: there is a mask M_test of the test samples, but no M"],
        setup=hdf5_file(X=X, Y=Y, X_test=X, Y_test=Y, M_test=MASK)),
    Row("mask and mse", hdf5_input(),
        ["input.yaml:1: loss.kind: is mse, but the data has a mask: take masked_mse"],
        setup=hdf5_file(X=X, Y=Y, M=MASK), ranks=(1, 2)),
]

COMPLETION = "data: {kind: matrix_completion, rows: 6, cols: 5, rank: 2, observed: 0.5%s}"
SENSING = "data: {kind: matrix_sensing, rows: 6, cols: 5, rank: 2, measurements: 9}"
ORTHOGONAL = "data: {kind: orthogonal_classes, features: 8, classes: 3, per_class: 3}"


def loss(keys, data=DATA, **changes):
    """An input with a loss: line 4."""
    return text(data=data, more=f"loss: {{{keys}}}\n", **changes)


MATRICES = [
    Row("rank of the target too large", text(data="data: {kind: low_rank_matrix, rows: 5, cols: 4, rank: 5}"),
        ["input.yaml:1: data.rank: is 5, larger than the 5 × 4 matrix allows"]),
    Row("rank too large for a spread spectrum",
        text(data="data: {kind: low_rank_matrix, rows: 9, cols: 8, rank: 5, spectrum: spread}"),
        ["input.yaml:1: data.rank: is 5, but spread over the larger half of 8 singular values there are at most 4"],
        ranks=(1, 2)),
    Row("nothing observed", loss("kind: masked_mse", COMPLETION.replace("0.5", "0.01") % ""),
        ["input.yaml:1: data.observed: is 0.01, less than half an entry of a 6 × 5 matrix"], ranks=(1, 2)),
    Row("observed fraction zero", loss("kind: masked_mse", COMPLETION.replace("0.5", "0") % ""),
        ["input.yaml:1: data.observed: expected a number, found '0' (it must be above 0 and at most 1)"]),
    Row("more than all observed", loss("kind: masked_mse", COMPLETION.replace("0.5", "1.5") % ""),
        ["input.yaml:1: data.observed: expected a number, found '1.5' (it must be above 0 and at most 1)"]),
    Row("observed fraction missing", loss("kind: masked_mse", COMPLETION.replace(", observed: 0.5", "") % ""),
        ["input.yaml:1: data.observed: missing; data.kind: matrix_completion needs it (a number)"]),
    Row("completion with mse", text(data=COMPLETION % ""),
        ["input.yaml:1: loss.kind: is mse, but the data has a mask: take masked_mse"], ranks=(1, 2)),
    Row("completion with cross-entropy", loss("kind: cross_entropy", COMPLETION % ""),
        ["input.yaml:4: loss.kind: is cross_entropy, but the data has a mask: take masked_mse"]),
    Row("masked loss without a mask", loss("kind: masked_mse"),
        ["input.yaml:4: loss.kind: masked_mse needs a mask: data.kind: matrix_completion, or a dataset M in the file of "
         "data.kind: hdf5"], ranks=(1, 2)),
    Row("observed entries of a loss without mask", loss("reduction: observed"),
        ["input.yaml:4: loss.reduction: expected one of sum, mean*, found 'observed'*"]),
    Row("measurements and mse", text(data=SENSING),
        ["input.yaml:1: loss.kind: is mse, but data.kind: matrix_sensing gives measurements of the target: take sensing"],
        ranks=(1, 2)),
    Row("sensing without measurements", loss("kind: sensing"),
        ["input.yaml:4: loss.kind: sensing needs the measurements of data.kind: matrix_sensing"]),
    Row("sensing by samples", loss("kind: sensing, reduction: samples", SENSING),
        ["input.yaml:4: loss.reduction: expected one of sum or mean, found 'samples'"]),
    Row("batches of measurements",
        loss("kind: sensing", SENSING, train="train: {optimizer: sgd, batch: 2, microbatch: 2}"),
        ["input.yaml:3: train.batch: data.kind: matrix_sensing has no samples to take a batch of: leave it to `full`",
         "input.yaml:3: train.microbatch: data.kind: matrix_sensing measures the whole output at once: leave it to "
         "`all`"], ranks=(1, 2)),
    Row("more orthonormal samples than features", text(data=ORTHOGONAL),
        ["input.yaml:1: data.features: is 8, too few for 3 × 3 orthonormal samples (data.classes × data.per_class)"],
        ranks=(1, 2)),
    Row("scale of other data", text(data=ORTHOGONAL[:-1] + ", scale: 2}"),
        ["input.yaml:1: data.scale: has no meaning with data.kind: orthogonal_classes; it applies to data.kind: gaussian"
         ]),
    Row("output scale zero", model("width: 4, depth: 2, output_scale: 0"),
        ["input.yaml:2: model.output_scale: expected a number, found '0' (it must be above 0)"]),
]

INIT = "width: 4, depth: 2, init: {kind: file, file: start.h5}"
PAIRS = "input.yaml:2: model.residual: pairs need"

NETWORKS = [
    Row("first width", model("widths: [5, 4, 3]"),
        ["input.yaml:2: model.widths: the first width is 5, but the data has 6 features"], ranks=(1, 2)),
    Row("last width", model("widths: [6, 4, 2]"),
        ["input.yaml:2: model.widths: the last width is 2, but the data has 3 outputs"]),
    Row("both widths", model("widths: [5, 4, 2]"),
        ["input.yaml:2: model.widths: the first width is 5, but the data has 6 features",
         "input.yaml:2: model.widths: the last width is 2, but the data has 3 outputs"]),
    Row("one width", model("widths: [6]"),
        ["input.yaml:2: model.widths: needs at least the input and the output width"]),
    Row("widths and depth", model("widths: [6, 4, 3], depth: 2"),
        ["input.yaml:2: model.widths: give either the list of widths, or width and depth, not both"]),
    Row("depth without width", model("depth: 2"),
        ["input.yaml:2: model.width: missing: the width of the hidden layers"]),
    Row("width without depth", model("width: 4"),
        ["input.yaml:2: model.depth: missing: give model.depth and model.width, or model.widths"]),
    Row("no model", f"{DATA}\n{TRAIN}\n",
        ["input.yaml:1: model.depth: missing: give model.depth and model.width, or model.widths"]),
    Row("pairs of odd depth", model("width: 4, depth: 5, residual: pairs"),
        [f"{PAIRS} an even depth (first layer, pairs, last layer), not 5"]),
    Row("pairs of unequal widths", model("widths: [6, 4, 5, 7, 3], residual: pairs"),
        [f"{PAIRS} equal widths n_1 and n_3, not 4 and 7"], ranks=(1, 2)),
    Row("pairs with a linear head", model("width: 4, depth: 4, residual: pairs, linear_head: 2"),
        ["input.yaml:2: model.linear_head: has no meaning with model.residual: pairs"]),
    Row("linear head larger than the depth", model("width: 4, depth: 2, linear_head: 3"),
        ["input.yaml:2: model.linear_head: is 3, but the depth is 2"]),
    Row("trainable layer that is none", model("width: 4, depth: 2, trainable: [1, 3]"),
        ["input.yaml:2: model.trainable: there is no layer 3, the depth is 2"]),
    Row("trainable layer zero", model("width: 4, depth: 2, trainable: [0]"),
        ["input.yaml:2: model.trainable: entry 1: expected an integer or all, found '0' (it must be between 1 and *)"]),
    Row("multipliers of another number", model("width: 4, depth: 3, lr_multiplier: [1, 2]"),
        ["input.yaml:2: model.lr_multiplier: has 2 values for 3 layers"]),
    Row("scales of another number", model("width: 4, depth: 2, init: {scale: [1, 2, 3]}"),
        ["input.yaml:2: model.init.scale: has 3 values for 2 layers"], ranks=(1, 2)),
    Row("several errors of the network",
        model("width: 4, depth: 2, linear_head: 3, lr_multiplier: [1, 2, 3], init: {scale: [1, 2, 3]}"),
        ["input.yaml:2: model.init.scale: has 3 values for 2 layers",
         "input.yaml:2: model.linear_head: is 3, but the depth is 2",
         "input.yaml:2: model.lr_multiplier: has 3 values for 2 layers"]),
    Row("init file missing", model(INIT), ["start.h5: no such file"], ranks=(1, 2)),
    Row("init file without a layer", model(INIT), ["start.h5: no dataset W2 (did you mean W1?); the file holds W1"],
        setup=hdf5_file("start.h5", W1=np.ones((4, 6)))),
    Row("init file of another shape", model(INIT), ["start.h5: W1 is 6 × 4, but the network needs 4 × 6",
                                                    "start.h5: W2 is 4 × 3, but the network needs 3 × 4"],
        setup=hdf5_file("start.h5", W1=np.ones((6, 4)), W2=np.ones((4, 3))), ranks=(1, 2)),
    Row("init file without bias", model(INIT + ", bias: true"),
        ["start.h5: no dataset b1*; the file holds W1, W2"],
        setup=hdf5_file("start.h5", W1=np.ones((4, 6)), W2=np.ones((3, 4)))),
    Row("init file not named", model("width: 4, depth: 2, init: {kind: file}"),
        ["input.yaml:2: model.init.file: missing; model.init.kind: file needs it (a text)"]),
    Row("width far too large", model("width: 2147483647, depth: 3"),
        ["rank 0: out of memory: *take more ranks or nodes, or a smaller problem"], ENVIRONMENT),
    Row("more memory than there is",
        text(data="data: {kind: gaussian, features: 10000000, outputs: 3, train: 10000000}"),
        ["rank 0: 100000000000000 does not fit in the 32 bits *; take more ranks or a smaller problem"]),
]

TRAINING = [
    Row("gd with a batch", train("optimizer: gd, batch: 4"),
        ["input.yaml:3: train.batch: gd takes the full batch; use train.optimizer: sgd"], ranks=(1, 2)),
    Row("sgd without a batch", train("optimizer: sgd"),
        ["input.yaml:3: train.batch: missing: sgd needs a batch size (the full batch is train.optimizer: gd)"]),
    Row("online without a batch", train("online: true"),
        ["input.yaml:3: train.online: fresh samples come in batches: give their size, train.batch, and another "
         "optimizer than gd"], ranks=(1, 2)),
    Row("online adam without a batch", train("online: true, optimizer: adam"),
        ["input.yaml:3: train.online: fresh samples come in batches: give their size, train.batch"]),
    Row("online sgd without a batch", train("online: true, optimizer: sgd"),
        ["input.yaml:3: train.batch: missing: sgd needs a batch size (the full batch is train.optimizer: gd)"]),
    Row("online gd", train("online: true, batch: 100"),
        ["input.yaml:3: train.batch: gd takes the full batch; use train.optimizer: sgd"]),
    Row("online from files", text("data: {kind: fashion_mnist, train: 12, test: 0, whiten: true}",
                                  train="train: {optimizer: sgd, batch: 4, online: true}"),
        ["input.yaml:3: train.online: data.kind: fashion_mnist has no generator of fresh samples; it applies to "
         "data.kind: gaussian and the mixtures"], ranks=(1, 2)),
    Row("online and whitened", text(f"{DATA[:-1]}, centre: true, whiten: true}}",
                                    train="train: {optimizer: sgd, batch: 4, online: true}"),
        ["input.yaml:1: data.centre: fresh samples (train.online) are used as drawn, not centred",
         "input.yaml:1: data.whiten: fresh samples (train.online) are used as drawn, not whitened"]),
    Row("batch larger than the data", train("optimizer: sgd, batch: 13"),
        ["input.yaml:3: train.batch: is 13, but there are only 12 training samples"], ranks=(1, 2)),
    Row("a flow of batches", train("optimizer: gradient_flow, batch: 4"),
        ["input.yaml:3: train.batch: gradient_flow takes the full batch; use train.optimizer: sgd"], ranks=(1, 2)),
    Row("a flow of fresh samples", train("optimizer: gradient_flow, online: true"),
        ["input.yaml:3: train.online: fresh samples come in batches: give their size, train.batch, and another optimizer "
         "than gradient_flow"]),
    Row("an integrator of gd", train("integrator: adaptive"),
        ["input.yaml:3: train.integrator: has no meaning with train.optimizer: gd; it applies to train.optimizer: "
         "gradient_flow"]),
    Row("a twin under the flow", text(model="model: {width: 6, depth: 2, activation: linear}",
                                      train="train: {optimizer: gradient_flow}", more="twins: [{kind: narrow, rank: 1}]\n"),
        ["input.yaml:4: twins[0].kind: narrow is trained by gradient steps only: take train.optimizer: gd"], ranks=(1, 2)),
    Row("the rate of a theorem", train("schedule: {kind: jt}, weight_decay: 0.1"),
        ["input.yaml:3: train.schedule.kind: jt is for linear networks with one output, without biases and skips, all layers "
         "trained at the same rate and no model.output_scale",
         "input.yaml:3: train.schedule.kind: jt is for the mean of the logistic loss: loss: {kind: logistic}",
         "input.yaml:3: train.schedule.kind: jt is a rate of plain gradient descent: train.optimizer: gd, without weight "
         "decay and train.project",
         "input.yaml:3: train.schedule.kind: jt is for samples of length at most 1, but there is one of length *: scale the "
         "inputs"], ranks=(1, 2)),
    Row("no balanced start", model("widths: [6, 7, 3], init: {kind: relaxed_balanced, lambda: 0.1}"),
        ["input.yaml:2: model.init.lambda: no start of these widths has S_k = lambda_k I: singular value 4 of layer 1 (7 x 6) "
         "would have the square -0.1. A lambda above 0 needs layers behind it that are at least as wide, one below 0 layers "
         "before it"], ranks=(1, 2)),
    Row("balanced by one scale", model("widths: [6, 7, 3], init: {kind: balanced, scale: [1, 2]}"),
        ["input.yaml:2: model.init.scale: a balanced start has one scale for all layers"]),
    Row("milestones missing", train("schedule: {kind: step}"),
        ["input.yaml:3: train.schedule.milestones: missing; train.schedule.kind: step needs it (an integer)"]),
    Row("probe rank too large", probes("kind: spectrum, rank: 5"),
        ["input.yaml:4: probes[0].rank: is 5, but no matrix has more than 4 singular values"], ranks=(1, 2)),
    Row("subspace rank too large", probes("kind: spectrum, rank: 2", "kind: subspace, rank: 5"),
        ["input.yaml:5: probes[1].rank: is 5, but no matrix has more than 4 singular vectors"]),
    Row("probe rank enormous", probes("kind: spectrum, rank: 9223372036854775807"),
        ["input.yaml:4: probes[0].rank: is 9223372036854775807, but no matrix has more than 4 singular values"]),
    Row("probes of one name", probes("kind: spectrum, rank: 2, name: a", "kind: subspace, rank: 2, name: a"),
        ["input.yaml:5: probes[1].name: 'a' is taken or not allowed: give each probe a name of its own, of letters, digits, _ and -"], ranks=(1, 2)),
    Row("probes of one name by default", probes("kind: spectrum, rank: 2", "kind: spectrum, rank: 3"),
        ["input.yaml:5: probes[1].name: 'spectrum' is taken or not allowed: give each probe a name of its own, of letters, digits, _ and -"]),
    Row("reserved name of a probe", probes("kind: spectrum, rank: 2, name: train"),
        ["input.yaml:4: probes[0].name: 'train' is taken or not allowed: give each probe a name of its own, of letters, digits, _ and -"]),
    Row("slash in the name of a probe", probes("kind: spectrum, rank: 2, name: a/b"),
        ["input.yaml:4: probes[0].name: 'a/b' is taken or not allowed: give each probe a name of its own, of letters, digits, _ and -"]),
    Row("dot as the name of a probe", probes("kind: spectrum, rank: 2, name: ."),
        ["input.yaml:4: probes[0].name: '.' is taken or not allowed: give each probe a name of its own, of letters, digits, _ and -"]),
    Row("full spectrum of the product", probes("kind: spectrum, of: product, rank: full"),
        ["input.yaml:4: probes[0].rank: the product is never formed: give a number (at most 3)"], ranks=(1, 2)),
    Row("kind of probe misspelt", probes("kind: spectrm"),
        ["input.yaml:4: probes[0].kind: expected one of *, found 'spectrm' (did you mean spectrum?)"]),
    Row("subspace of the product", probes("kind: subspace, of: product, rank: 2"),
        ["input.yaml:4: probes[0].of: expected one of *, found 'product'*"]),
    Row("rows that do not divide the ranks", text(more="grid: {rows: 3}\n"),
        ["input.yaml:4: grid.rows: 3 does not divide the number of ranks, *"], ranks=(1, 2)),
    Row("cols that do not divide the ranks", text(more="grid: {cols: 4}\n"),
        ["input.yaml:4: grid.cols: 4 does not divide the number of ranks, *"], ranks=(1, 3)),
    Row("rows and cols that are not the ranks", text(more="grid: {rows: 2, cols: 3}\n"),
        ["input.yaml:4: grid.rows: 2 × 3 is not the number of ranks, *"], ranks=(1, 2)),
]

LONG = "n" * 300


def filled(folder):
    (folder / "out").mkdir()
    (folder / "out" / "precious.txt").write_text("mine")


OUTPUT = [
    Row("out not empty", text(), ["out is not empty: choose another --out, --resume to go on with the run in it, or --overwrite to move it aside"],
        setup=filled, ranks=(1, 2, 3)),
    Row("out is a file", text(), ["out exists and is not a directory: choose another --out"],
        setup=written("out", b"mine"), ranks=(1, 2)),
    Row("out is a file, overwritten", text(), ["out exists and is not a directory: choose another --out"],
        setup=written("out", b"mine"), args=("--overwrite",)),
    Row("out below a file", text(), ["file/a/b: cannot be created: Not a directory"], ENVIRONMENT,
        setup=written("file", b"mine"), words=("run", "input.yaml", "--out", "file/a/b"), ranks=(1, 2)),
    Row("out where nobody may write", text(), ["/proc/eigentrain: cannot be created: *"], ENVIRONMENT,
        words=("run", "input.yaml", "--out", "/proc/eigentrain"), ranks=(1, 2)),
    Row("out with a name too long", text(), [f"{LONG}: cannot be created: File name too long"], ENVIRONMENT,
        words=("run", "input.yaml", "--out", LONG)),
    Row("out with a name too long below a new folder", text(), [f"a/{LONG}: cannot be created: File name too long"],
        ENVIRONMENT, words=("run", "input.yaml", "--out", f"a/{LONG}")),
    Row("default out not empty", text(),
        ["runs/run is not empty: choose another --out, --resume to go on with the run in it, or --overwrite to move it "
         "aside"],
        setup=written("runs/run/precious.txt", b"mine"), words=("run", "input.yaml")),
    Row("name of the run empty", text(more="run: {name: ''}\n"),
        ["input.yaml:4: run.name: '' cannot be the name of a folder: give a word without slashes"],
        words=("run", "input.yaml"), ranks=(1, 2)),
    Row("name of the run outside", text(more="run: {name: ../../elsewhere}\n"),
        ["input.yaml:4: run.name: '../../elsewhere' cannot be the name of a folder: give a word without slashes"],
        words=("run", "input.yaml")),
]

ROWS = [*KEYS, *VALUES, *FILES, *ARGUMENTS, *IMAGE_FILES, *HDF5_FILES, *MATRICES, *NETWORKS, *TRAINING, *OUTPUT]


# ---------------------------------------------------------------- the tests
def digest(path):
    if path.is_dir():
        return "folder"
    return hashlib.sha256(path.read_bytes()).hexdigest() if os.access(path, os.R_OK) else "unreadable"


def contents(folder):
    """Every path below the folder with what it holds."""
    return {str(path.relative_to(folder)): digest(path)
            for path in folder.rglob("*")}


def start(row, eigentrain, mpirun, folder, ranks=1, environment=None):
    """Runs a row in a folder; returns what has finished and the messages of eigentrain in their order."""
    if isinstance(row.input, str):
        (folder / "input.yaml").write_text(row.input, encoding="utf-8")
    elif row.input is not None:
        (folder / "input.yaml").write_bytes(row.input)
    if row.setup:
        row.setup(folder)
    before = contents(folder)
    words = row.words if row.words is not None else ("run", "input.yaml", "--out", "out", *row.args)
    launcher = [*mpirun, "-n", str(ranks)] if ranks > 1 else []
    with tempfile.TemporaryDirectory(prefix="r") as own:  # mpiruns that start at the same time quarrel over one
        done = execute([*launcher, str(eigentrain), *words], TIMEOUT, cwd=folder,
                       env={**(environment or child_environment()), "TMPDIR": own})
    assert done.returncode is not None, f"still running after {TIMEOUT} s\n{done.stdout}{done.stderr}"
    head = "eigentrain: "
    messages = [line.removeprefix(head) for line in done.stderr.splitlines() if line.startswith(head)]
    return done, messages, before


def agrees(message, pattern):
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), message) is not None


def each_on_its_ranks(rows):
    return [pytest.param(row, ranks, id=f"{row.name}-{ranks}".replace(" ", "_"))
            for row in rows for ranks in row.ranks]


@pytest.fixture(scope="session")
def started(request, eigentrain, mpirun, tmp_path_factory):
    """All selected rows, some at a time, for most of a start is waiting: started[name, ranks] is (future, folder)."""
    environment = child_environment()  # once: pytest writes into its own between tests
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        found = {}
        for item in request.session.items:
            if item.function.__name__ == "test_bad_input" and item.module.__name__ == __name__:
                row, ranks = item.callspec.params["row"], item.callspec.params["ranks"]
                folder = tmp_path_factory.mktemp("row")
                found[row.name, ranks] = pool.submit(start, row, eigentrain, mpirun, folder, ranks, environment), folder
        yield found
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("row, ranks", each_on_its_ranks(ROWS))
def test_bad_input(row, ranks, started):
    future, folder = started[row.name, ranks]
    done, messages, before = future.result()
    report = f"exit code {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
    assert done.returncode == row.code, report
    assert len(messages) == len(row.messages), report
    for message, pattern in zip(messages, row.messages):
        assert agrees(message, pattern), f"expected {pattern}\nfound    {message}"
    assert done.stderr.count("usage:") == row.usage, report
    aborted = "MPI_ABORT" in done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("[hwloc/")]  # a container without /sys
    assert row.usage or ranks > 1 or aborted or len(lines) == len(messages), report
    assert contents(folder) == before


def test_names_of_rows_are_unique():
    assert len({row.name for row in ROWS}) == len(ROWS) >= 60


# ---------------------------------------------------------------- divergence
DIVERGING = [
    ("lr huge", train("steps: 50, lr: 1e30"), ()),
    ("weights overflow", train("steps: 50, lr: 1e308"), ()),
    ("adam", train("steps: 50, optimizer: adam, lr: 1e200"), ()),
    ("at the first step", model("width: 4, depth: 2, init: {scale: 1e200}"), ()),
    ("with probes and snapshots", text(train="train: {steps: 50, lr: 1e30}",
                                       more="probes: [{kind: spectrum, every: 1, rank: 2}, "
                                            "{kind: subspace, every: 1, rank: 2}]\nsnapshot: {every: 1}\n"),
                                            ("snapshots",)),
]


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("given, folders", [pytest.param(*row[1:], id=row[0].replace(" ", "_")) for row in DIVERGING])
def test_divergence(given, folders, ranks, eigentrain, mpirun, tmp_path):
    row = Row("diverging", given, [])
    done, messages, before = start(row, eigentrain, mpirun, tmp_path, ranks)
    assert done.returncode == DIVERGED, done.stderr
    assert len(messages) == 1 and agrees(messages[0],
        "diverged: the loss is * at step *; try a smaller train.lr"), messages
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {"input.yaml", "resolved.yaml", "run.log", "status.json",
                                                     "metrics.h5", *folders}
    assert not [path for path in contents(tmp_path) if path.split("/")[0] not in ("out", *before)]
    status = json.loads((out / "status.json").read_text())
    assert status["state"] == "diverged" and status["reason"] == messages[0] and status["loss"] is None
    with h5py.File(out / "metrics.h5") as file:
        loss = file["train/loss"][:]
        assert len(loss) == len(file["train/step"]) == status["step"] + 1
        assert np.isfinite(loss[:-1]).all()
    for path in out.glob("snapshots/*"):
        assert path.suffix == ".h5"
        with h5py.File(path) as file:
            assert np.isfinite(file["W1"][:]).all()


# ---------------------------------------------------------------- help
@pytest.mark.parametrize("words", [("plan", "--help"), ("plan", "input.yaml", "-h"), ("help", "plan")])
@pytest.mark.parametrize("ranks", [1, 2])
def test_help_of_one_command(command, words, ranks):
    done = command(*words, ranks=ranks)
    assert done.returncode == 0 and not done.stderr
    assert done.stdout.count("  plan INPUT.yaml") == 1 and "verify" not in done.stdout


# ---------------------------------------------------------------- overwriting
@pytest.mark.parametrize("ranks", [1, 2])
def test_overwrite_moves_aside(ranks, eigentrain, mpirun, tmp_path):
    row = Row("overwriting", text(), [], 0, args=("--overwrite",), setup=filled)
    for old in "out.old-1", "out.old-2":
        done, messages, before = start(row, eigentrain, mpirun, tmp_path, ranks)
        assert done.returncode == 0 and not messages, done.stderr
        assert (tmp_path / old / "precious.txt").read_text() == "mine"
        assert json.loads((tmp_path / "out" / "status.json").read_text())["state"] == "done"
        assert set(contents(tmp_path)) > set(before) - {"out/precious.txt"}
        (tmp_path / "out").rename(tmp_path / f"done-before-{old}")


def test_rejected_overwrite_touches_nothing(eigentrain, mpirun, tmp_path):
    row = Row("", train("optimizer: sgd"), [], args=("--overwrite",), setup=filled)
    done, _, before = start(row, eigentrain, mpirun, tmp_path)
    assert done.returncode == INPUT and contents(tmp_path) == before
