"""The program against the oracle: weights, losses, gradients, evaluations and probes of whole short runs.

Every case is an input, given to both. A case runs 20 updates and is compared at 1e-11 (Frobenius-relative for matrices,
relative to max(1, .) for scalars). The cases cover the factors of the product singly and in pairs, not the product.
Texts "@name" in an input stand for files that the fixture `files` makes."""
import functools
import gzip
import itertools

import h5py
import numpy as np
import pytest
import yaml

import oracle
from oracle import get, merged

TOLERANCE = 1e-11

# ---------------------------------------------------------------------------------------------------------------------
# Inputs

GAUSSIAN = {"kind": "gaussian", "features": 7, "outputs": 3, "train": 20, "test": 9}
CLASSES = {**GAUSSIAN, "targets": "classes"}
MATRIX = {"kind": "low_rank_matrix", "rows": 6, "cols": 9, "rank": 2}
COMPLETION = {**MATRIX, "kind": "matrix_completion", "observed": 0.6}
SENSING = {**MATRIX, "kind": "matrix_sensing", "cols": 5, "measurements": 20}
ORTHOGONAL = {"kind": "orthogonal_classes", "features": 13, "classes": 3, "per_class": 4}
FASHION = {"kind": "fashion_mnist", "train": 200, "test": 100}
HDF5 = {"kind": "hdf5", "file": "@data.h5"}
CROSS_ENTROPY = {"kind": "cross_entropy", "reduction": "samples"}
SUM = {"kind": "mse", "reduction": "sum"}


def case(data=GAUSSIAN, model=None, init=None, loss=None, train=None, **more):
    """An input from the parts in which it differs from a small GELU network on Gaussian data."""
    model = dict(model or {})
    if "widths" not in model:
        model = {"width": 8, "depth": 3, **model}
    return {"run": {"seed": 5}, "data": dict(data), "model": {**model, "init": init or {"kind": "gaussian"}},
            "loss": loss or {"kind": "mse", "reduction": "samples"},
            "train": {"lr": 0.1, "steps": 20, "evaluate_every": 5, **(train or {})},
            "snapshot": {"every": 10}, **more}


def masked(reduction):
    return {"kind": "masked_mse", "reduction": reduction}


def sensing(reduction):
    return {"kind": "sensing", "reduction": reduction}


def linear(data, **more):
    return case(data, {"activation": "linear", **more.pop("model", {})}, **more)


CASES = {
    # optimizers
    "gd": case(),
    "gd-decay": case(train={"weight_decay": 0.05}),
    "sgd": case(train={"optimizer": "sgd", "batch": 6}),
    "sgd-decay-classes": case(CLASSES, loss=CROSS_ENTROPY, train={"optimizer": "sgd", "batch": 7, "weight_decay": 0.1}),
    "flow": case(train={"optimizer": "gradient_flow", "lr": 0.4}),
    "flow-options": case(CLASSES, {"bias": True, "trainable": [1, 3], "lr_multiplier": [1.0, 2.0, 0.5]},
                         loss=CROSS_ENTROPY, grid={"block": 2},
                         train={"optimizer": "gradient_flow", "lr": 0.5, "weight_decay": 0.1, "microbatch": 6,
                                "schedule": {"kind": "cosine", "warmup": 4, "length": 15}}),
    "flow-compressed": linear({**GAUSSIAN, "train": 40}, train={"optimizer": "gradient_flow", "lr": 0.3}),
    "flow-matrix": linear(MATRIX, loss=SUM, init={"kind": "orthogonal"},
                          train={"optimizer": "gradient_flow", "lr": 0.05}),
    "momentum": case(train={"optimizer": "momentum"}),
    "momentum-options": case(train={"optimizer": "momentum", "momentum": 0.5, "weight_decay": 0.05, "lr": 0.3}),
    "momentum-batch": case(train={"optimizer": "momentum", "batch": 4, "lr": 0.02}),
    "nesterov": case(train={"optimizer": "nesterov", "momentum": 0.5, "weight_decay": 0.05, "lr": 0.2}),
    "adam": case(train={"optimizer": "adam", "lr": 0.01}),
    "adam-options": case(CLASSES, {"bias": True}, loss=CROSS_ENTROPY,
                         train={"optimizer": "adam", "lr": 0.02, "beta1": 0.8, "beta2": 0.95, "epsilon": 1e-3,
                                "weight_decay": 0.1}),
    "adam-batch": case(train={"optimizer": "adam", "lr": 0.01, "batch": 8}),
    "rmsprop": case(train={"optimizer": "rmsprop", "lr": 0.001}),
    "rmsprop-options": case(model={"bias": True},
                            train={"optimizer": "rmsprop", "lr": 0.01, "beta2": 0.9, "epsilon": 1e-2,
                                   "weight_decay": 0.1, "batch": 10}),
    # starts
    "init-orthogonal": case(model={"widths": [7, 12, 12, 4, 9, 3]}, init={"kind": "orthogonal", "scale": 0.8}),
    "init-orthogonal-scales": case(init={"kind": "orthogonal", "scale": [0.5, 1.5, 1.0]}),
    "init-gaussian-none": case(init={"kind": "gaussian", "gain": "none", "scale": 0.3}),
    "init-gaussian-fan_in": case(init={"kind": "gaussian", "gain": "fan_in", "scale": [1.2, 0.9, 0.4]}),
    "init-gaussian-orthogonal": case(model={"widths": [7, 5, 11, 3]}, init={"kind": "gaussian", "gain": "orthogonal"}),
    "init-uniform-none": case(init={"kind": "uniform", "gain": "none", "scale": 0.3}),
    "init-uniform-fan_in": case(model={"widths": [7, 5, 11, 3]}, init={"kind": "uniform", "gain": "fan_in"}),
    "init-uniform-orthogonal": case(init={"kind": "uniform", "gain": "orthogonal", "scale": [1.0, 2.0, 0.5]}),
    "init-file": case(model={"widths": [7, 8, 3], "bias": True}, init={"kind": "file", "file": "@start.h5"}),
    # schedules
    "schedule-step": case(train={"lr": 0.2, "schedule": {"kind": "step", "milestones": [3, 10, 11], "factor": 0.4}}),
    "schedule-cosine": case(train={"schedule": {"kind": "cosine"}}),
    "schedule-cosine-final": case(train={"schedule": {"kind": "cosine", "final": 0.02, "length": 12}}),
    "schedule-cosine-warmup": case(train={"schedule": {"kind": "cosine", "warmup": 5, "final": 0.01},
                                          "optimizer": "momentum"}),
    # architecture
    "pairs": case(model={"width": 6, "depth": 6, "residual": "pairs", "activation": "tanh"}),
    "pairs-bias-classes": case(CLASSES, {"widths": [7, 5, 5, 5, 3], "residual": "pairs", "activation": "silu",
                                         "bias": True}, loss=CROSS_ENTROPY),
    "scaled": case(model={"depth": 5, "residual": "scaled", "activation": "elu"}),
    "scaled-square-ends": case({**GAUSSIAN, "features": 6, "outputs": 6},
                               {"width": 6, "depth": 4, "residual": "scaled", "activation": "silu", "bias": True}),
    "linear_head": case(model={"depth": 5, "linear_head": 3, "activation": "tanh"}),
    "linear_head-one": case(model={"linear_head": 1, "activation": "elu"}),
    "bias": case(model={"bias": True, "activation": "leaky_relu"}),
    "frozen": case(model={"depth": 4, "trainable": [1, 3], "bias": True}, train={"weight_decay": 0.1}),
    "frozen-adam": case(model={"trainable": [2]}, train={"optimizer": "adam", "lr": 0.02, "weight_decay": 0.1}),
    "multiplier-one": case(model={"lr_multiplier": 0.5}),
    "multipliers": case(model={"lr_multiplier": [2.0, 0.0, 0.5], "bias": True},
                        train={"optimizer": "momentum", "weight_decay": 0.1}),
    "depth-one": case(model={"widths": [7, 3]}),
    "depth-one-bias-classes": case(CLASSES, {"widths": [7, 3], "bias": True}, loss=CROSS_ENTROPY),
    "width-one": case({**GAUSSIAN, "features": 1, "outputs": 1}, {"width": 1, "activation": "tanh"}, train={"lr": 0.3}),
    "widths-two": case({**GAUSSIAN, "features": 2, "outputs": 2}, {"width": 2}),
    "widths-ten": case({**GAUSSIAN, "features": 10, "outputs": 10}, {"width": 10}),
    "widths-prime": case({**GAUSSIAN, "features": 13, "outputs": 5}, {"widths": [13, 17, 11, 23, 5]}),
    "one-sample": case({**GAUSSIAN, "train": 1, "test": 1}),
    # batches
    "batch-one": case(train={"optimizer": "sgd", "batch": 1, "lr": 0.02}),
    "batch-all": case(train={"optimizer": "sgd", "batch": 20}),
    "microbatch": case(model={"bias": True}, train={"microbatch": 3}, grid={"block": 2}),
    "microbatch-batch": case(CLASSES, loss=CROSS_ENTROPY, grid={"block": 2},
                             train={"optimizer": "sgd", "batch": 9, "microbatch": 4}),
    # compression of linear networks, and where it does not apply
    "linear-compressed": linear({**GAUSSIAN, "train": 40}, train={"compress": True}),
    "linear-uncompressed": linear({**GAUSSIAN, "train": 40}, train={"compress": False}),
    "linear-compressed-classes": linear({**CLASSES, "train": 40}, loss=SUM, model={"residual": "scaled"},
                                        train={"lr": 0.005, "optimizer": "momentum"}),
    "linear-few-samples": linear({**GAUSSIAN, "train": 4}),
    "linear-bias": linear({**GAUSSIAN, "train": 40}, model={"bias": True}),
    "linear-cross_entropy": linear({**CLASSES, "train": 40}, loss=CROSS_ENTROPY),
    "linear-batch": linear({**GAUSSIAN, "train": 40}, train={"optimizer": "sgd", "batch": 16}),
    # identity input
    "matrix": linear(MATRIX, loss=SUM, init={"kind": "orthogonal"}, train={"lr": 0.02, "weight_decay": 0.01}),
    "matrix-tall": linear({**MATRIX, "rows": 11, "cols": 5, "rank": 5}, loss=SUM, train={"lr": 0.01}),
    "matrix-gelu-bias": case(MATRIX, {"bias": True}, loss=SUM, train={"lr": 0.05}),
    "matrix-batch": case(MATRIX, {"activation": "tanh"}, train={"optimizer": "sgd", "batch": 4}),
    "matrix-depth-one": linear(MATRIX, loss=SUM, model={"widths": [9, 6]}),
    "matrix-spread": linear({**MATRIX, "spectrum": "spread", "rank": 3}, loss=SUM, train={"lr": 0.02}),
    # a mask
    "completion-sum": linear(COMPLETION, loss=masked("sum"), init={"kind": "orthogonal"}, train={"lr": 0.02}),
    "completion-mean": linear(COMPLETION, loss=masked("mean"), train={"lr": 0.5, "optimizer": "momentum"}),
    "completion-samples": linear({**COMPLETION, "spectrum": "spread"}, loss=masked("samples"),
                                 train={"lr": 0.05, "weight_decay": 0.1}),
    "completion-observed": case(COMPLETION, {"bias": True}, loss=masked("observed"), train={"lr": 0.5}),
    "completion-all": linear({**COMPLETION, "observed": 1}, loss=masked("observed"), train={"lr": 0.5}),
    "completion-batch": case(COMPLETION, loss=masked("observed"), train={"optimizer": "sgd", "batch": 4, "lr": 0.2}),
    "completion-microbatch": case(COMPLETION, loss=masked("sum"), grid={"block": 2},
                                  train={"microbatch": 3, "lr": 0.02}),
    "completion-output_scale": linear(COMPLETION, loss=masked("mean"), model={"output_scale": 3.0}, train={"lr": 0.1}),
    "hdf5-masked": case({**HDF5, "file": "@masked.h5"}, loss=masked("mean")),
    "hdf5-masked-identity": linear({**HDF5, "file": "@masked-identity.h5"}, loss=masked("sum"),
                                   train={"lr": 0.05}),
    # measurements
    "sensing-sum": linear(SENSING, loss=sensing("sum"), init={"kind": "orthogonal"}, train={"lr": 0.001}),
    "sensing-mean": linear({**SENSING, "rank": 3, "spectrum": "spread", "cols": 9}, loss=sensing("mean"),
                           train={"lr": 0.02, "optimizer": "momentum"}),
    "sensing-gelu": case(SENSING, {"bias": True, "output_scale": 0.5, "residual": "scaled"}, loss=sensing("mean"),
                         train={"lr": 0.05}),
    # factors of outputs and inputs
    "output_scale": case(model={"output_scale": 2.5}, train={"lr": 0.02}),
    "output_scale-classes": case(CLASSES, {"output_scale": 4.0, "bias": True, "residual": "scaled"},
                                 loss=CROSS_ENTROPY, train={"lr": 0.01}),
    "output_scale-compressed": linear({**GAUSSIAN, "train": 40}, model={"output_scale": 0.5}),
    "scale": case({**GAUSSIAN, "scale": 0.4, "centre": True}),
    "scale-whitened": linear({**GAUSSIAN, "scale": 3, "whiten": True}, loss=SUM, train={"lr": 0.02}),
    # losses of two classes an output, by any names; values between them
    "logistic": case(CLASSES, {"bias": True}, loss={"kind": "logistic"}, train={"lr": 1}),
    "logistic-signs": case({**HDF5, "file": "@signs.h5"}, {"activation": "tanh"},
                           loss={"kind": "logistic", "reduction": "samples"}),
    "logistic-values": case({**HDF5, "file": "@weighted.h5"}, loss={"kind": "logistic", "reduction": "sum"},
                            train={"lr": 0.02}),
    "exponential": case(CLASSES, {"bias": True}, loss={"kind": "exponential"}, train={"lr": 0.2}),
    "exponential-signs": case({**HDF5, "file": "@signs.h5"}, {"activation": "relu"},
                              loss={"kind": "exponential", "reduction": "samples"},
                              train={"optimizer": "gradient_flow", "lr": 0.1}),
    # data
    "orthogonal_classes": linear(ORTHOGONAL, init={"kind": "orthogonal"}, loss={"kind": "mse", "reduction": "mean"},
                                 train={"lr": 1}),
    "orthogonal_classes-noise": case({**ORTHOGONAL, "noise": 0.6}, loss=CROSS_ENTROPY, train={"lr": 1}),
    "classes-mse": case(CLASSES),
    "centred": case({**GAUSSIAN, "centre": True}),
    "whitened": case({**GAUSSIAN, "whiten": True, "centre": True}, loss=SUM),
    "whitened-few-samples": case({**GAUSSIAN, "train": 5, "whiten": True}, loss=SUM),
    "whitened-floor": linear({**GAUSSIAN, "whiten": True, "whiten_floor": 0.5}, loss=SUM),
    "hdf5": case(HDF5),
    "hdf5-whitened": case({**HDF5, "whiten": True, "centre": True}, loss=SUM),
    "hdf5-classes": case({**HDF5, "file": "@classes.h5", "targets": "classes"}, loss=CROSS_ENTROPY),
    "hdf5-identity": case({**HDF5, "file": "@identity.h5"}, loss=SUM),
    "hdf5-weighted-classes": case({**HDF5, "file": "@weighted.h5"}, loss={**CROSS_ENTROPY, "reduction": "mean"}),
    "idx": case({"kind": "idx", "train_images": "@images", "train_labels": "@labels", "test_images": "@images.gz",
                 "test_labels": "@labels.gz", "classes": 4, "train": 15, "test": 6}, loss=CROSS_ENTROPY),
    "idx-some-classes": case({"kind": "idx", "train_images": "@images", "train_labels": "@labels",
                              "test_images": "@images.gz", "test_labels": "@labels.gz", "classes": 4, "only": [3, 0, 1],
                              "per_class": 2}, loss=CROSS_ENTROPY),
    "idx-signs": case({"kind": "idx", "train_images": "@images", "train_labels": "@labels", "test_images": "@images.gz",
                       "test_labels": "@labels.gz", "classes": 4, "only": [2, 0], "targets": "signs",
                       "normalise": "longest"}, loss={"kind": "logistic"}, train={"lr": 1}),
    "symmetric": case({**GAUSSIAN, "normalise": "symmetric", "centre": True}, train={"lr": 0.1}),
    "biases": case(model={"bias": True}, init={"kind": "uniform", "bias": 0.3}),
    "biases-as-weights": case(model={"bias": True}, init={"kind": "uniform", "scale": 0.7, "bias": "fan_in"}),
    "normalised": case({**GAUSSIAN, "centre": True, "normalise": "longest"}, train={"lr": 0.5}),
    # lengths
    "no-steps": case(train={"steps": 0}),
    "tolerance": case(train={"tolerance": 1.2, "lr": 0.2}),
}

# The real images; 200 and more of them, a few steps, on two ranks
FASHION_CASES = {
    "classes": case(FASHION, {"width": 32, "bias": True}, loss=CROSS_ENTROPY,
                    train={"steps": 5, "evaluate_every": 1, "lr": 0.05}),
    "centred-batch": case({**FASHION, "centre": True}, {"width": 20, "activation": "relu"},
                          train={"steps": 5, "evaluate_every": 5, "lr": 0.01, "optimizer": "sgd", "batch": 64}),
    "whitened": case({**FASHION, "whiten": True, "whiten_floor": 0.1}, {"width": 16, "activation": "tanh"}, loss=SUM,
                     train={"steps": 5, "evaluate_every": 5, "lr": 0.02}),
    "linear-compressed": linear({**FASHION, "train": 900}, model={"width": 16},
                                init={"kind": "orthogonal", "scale": 0.3},
                                train={"steps": 5, "evaluate_every": 5, "lr": 0.01}),
}

PROBES = [
    {"kind": "spectrum", "name": "full", "rank": "full", "every": 4},
    {"kind": "spectrum", "name": "leading", "rank": 3, "every": 4},
    {"kind": "subspace", "name": "frames", "rank": 2, "every": 4, "tolerance": 1e-12},
]

# Where layouts matter: chunks, batches, biases, skips, compression, the identity, matrices of several blocks of 64
COMMON_CASES = {
    "deep": case({**CLASSES, "features": 11, "outputs": 7}, {"widths": [11, 13, 5, 7], "bias": True},
                 loss=CROSS_ENTROPY, train={"optimizer": "adam", "lr": 0.01, "batch": 17, "microbatch": 5},
                 probes=PROBES),
    "wide": linear({**GAUSSIAN, "features": 70, "outputs": 5, "train": 150, "centre": True, "whiten": True}, loss=SUM,
                   model={"widths": [70, 130, 66, 5]}, init={"kind": "orthogonal", "scale": [0.7, 0.8, 0.9]},
                   train={"optimizer": "momentum", "lr": 0.02},
                   probes=[{**PROBES[1], "name": "product", "of": "product", "rank": 5}, *PROBES[:2],
                           {**PROBES[2], "of": "gradient"}]),
    "matrix": case({**MATRIX, "rows": 10, "cols": 67}, {"width": 67, "residual": "scaled", "activation": "elu"},
                   loss=SUM, train={"lr": 0.02, "schedule": {"kind": "cosine"}},
                   probes=[{**PROBES[0], "name": "update", "of": "update"}, PROBES[1], PROBES[2]]),
    "pairs": case(GAUSSIAN, {"width": 6, "depth": 4, "residual": "pairs", "activation": "silu", "bias": True,
                             "trainable": [1, 2, 3], "lr_multiplier": [1.0, 0.5, 2.0, 1.0]},
                  train={"optimizer": "sgd", "batch": 6, "weight_decay": 0.1}, probes=PROBES),
}
MATRIX_CASES = {
    "completion": linear({**COMPLETION, "rows": 67, "cols": 70, "rank": 4}, loss=masked("observed"),
                         model={"width": 66}, init={"kind": "orthogonal", "scale": 0.7}, train={"lr": 5}),
    "sensing": linear({**SENSING, "rows": 10, "cols": 7}, loss=sensing("sum"), model={"output_scale": 2.0},
                      init={"kind": "orthogonal", "scale": 0.6}, train={"lr": 0.0002}),
    "orthogonal": case({**ORTHOGONAL, "features": 70, "per_class": 23, "noise": 0.3}, {"widths": [70, 66, 65, 3]},
                       loss=SUM, train={"lr": 0.05}),
}
LAYOUT_CASES = {**COMMON_CASES, **MATRIX_CASES}

GRIDS = [(1, 1), (1, 2), (2, 1), (2, 2), (1, 4), (2, 3), (3, 2), (6, 1)]
BLOCKS = [1, 3, 64]
ROUTES = ["panel", "pdgemm"]

# Every grid with every block; every pair of these with a route, and of case with block and route; a grid with 3 cases
LAYOUTS = [(grid, block, ROUTES[(j + i // 2) % 2], list(COMMON_CASES)[(i + j) % 4])
           for (i, grid), (j, block) in itertools.product(enumerate(GRIDS), enumerate(BLOCKS))]
LAYOUTS += [(grid, block, ROUTES[i % 2], list(MATRIX_CASES)[(i + j) % 3])
            for (i, grid), (j, block) in itertools.product(enumerate(GRIDS[1:5]), enumerate(BLOCKS))]

# Fresh samples at every step; more of them than the training set has, in chunks, as classes
ONLINE_CASES = {
    "values": case({**GAUSSIAN, "features": 11}, train={"optimizer": "sgd", "batch": 6, "online": True, "lr": 0.05}),
    "classes": case(CLASSES, {"bias": True}, loss=CROSS_ENTROPY, grid={"block": 2},
                    train={"optimizer": "adam", "lr": 0.01, "batch": 33, "microbatch": 7, "online": True},
                    probes=PROBES[:2]),
    "scaled": case({**GAUSSIAN, "scale": 0.3}, train={"optimizer": "sgd", "batch": 6, "online": True}),
}

PROBE_CASES = {
    "weights": case(CLASSES, {"bias": True}, loss=CROSS_ENTROPY, train={"lr": 0.3}, probes=PROBES),
    "matrices": case(model={"widths": [7, 9, 6, 3]}, train={"optimizer": "momentum"}, probes=[
        {"kind": "spectrum", "name": f"{of}_{rank}", "of": of, "rank": rank, "every": 3}
        for of, rank in [*itertools.product(("weights", "gradient", "update"), ("full", 3)), ("product", 3)]]),
    "batch-gradient": case(train={"optimizer": "sgd", "batch": 6}, probes=[
        {"kind": "spectrum", "name": "gradient", "of": "gradient", "rank": "full", "every": 1}]),
    "late-reference": case(model={"widths": [7, 12, 10, 3]}, train={"optimizer": "momentum"},
                           probes=[{**PROBES[2], "name": name, "reference": reference, "every": 3, "rank": rank}
                                   for name, reference, rank in [("four", 4, 2), ("six", 6, 3)]]),
    "subspaces-gradient": case(probes=[{**PROBES[2], "of": "gradient", "name": "gradient"}]),
}

ALL_CASES = {**CASES, **{f"fashion-{name}": spec for name, spec in FASHION_CASES.items()},
             **{f"layout-{name}": spec for name, spec in LAYOUT_CASES.items()},
             **{f"online-{name}": spec for name, spec in ONLINE_CASES.items()},
             **{f"probe-{name}": spec for name, spec in PROBE_CASES.items()}}


def write_h5(path, **datasets):
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file[name] = values


def write_idx(path, values, pack=bytes):
    path.write_bytes(pack(bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes() + values.tobytes()))


def random_start(widths, rng, gain=1.0):
    """Datasets of an init file: weights of a sensible size and biases that are not zero."""
    start = {}
    for l, (n_in, n_out) in enumerate(zip(widths, widths[1:]), 1):
        start[f"W{l}"] = rng.standard_normal((n_out, n_in)) * gain / np.sqrt(n_in)
        start[f"b{l}"] = 0.3 * rng.standard_normal((n_out, 1))
    return start


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("files"), np.random.default_rng(11)
    normal = rng.standard_normal
    write_h5(folder / "data.h5", X=normal((7, 20)) + 0.5, Y=normal((3, 20)),
             X_test=normal((7, 6)), Y_test=normal((3, 6)))
    write_h5(folder / "classes.h5", X=normal((7, 20)), Y=np.eye(3)[rng.integers(3, size=20)].T,
             X_test=normal((7, 6)), Y_test=np.eye(3)[rng.integers(3, size=6)].T)
    write_h5(folder / "identity.h5", Y=normal((3, 7)))
    write_h5(folder / "weighted.h5", X=normal((7, 20)), Y=rng.random((3, 20)))
    write_h5(folder / "signs.h5", X=normal((7, 20)), Y=rng.choice([-1.0, 1.0], size=(1, 20)),
             X_test=normal((7, 6)), Y_test=rng.choice([-1.0, 1.0], size=(1, 6)))
    write_h5(folder / "masked.h5", X=normal((7, 20)), Y=normal((3, 20)), M=rng.integers(2, size=(3, 20)),
             X_test=normal((7, 6)), Y_test=normal((3, 6)), M_test=rng.integers(2, size=(3, 6)))
    write_h5(folder / "masked-identity.h5", Y=normal((3, 7)), M=(rng.random((3, 7)) < 0.5).astype(np.uint8))
    write_h5(folder / "start.h5", **random_start([7, 8, 3], rng))
    images, labels = rng.integers(256, size=(18, 3, 5), dtype=np.uint8), rng.integers(4, size=18, dtype=np.uint8)
    for name, values in [("images", images), ("labels", labels)]:
        write_idx(folder / name, values)
        write_idx(folder / f"{name}.gz", values[::-1], gzip.compress)
    return folder


def located(spec, folder):
    """The input with "@name" replaced by the path of the file."""
    if isinstance(spec, dict):
        return {key: located(value, folder) for key, value in spec.items()}
    return str(folder / spec[1:]) if isinstance(spec, str) and spec.startswith("@") else spec


@functools.cache
def _layout_trajectory(name):
    return oracle.train(LAYOUT_CASES[name])


# ---------------------------------------------------------------------------------------------------------------------
# What a run wrote

class Output:
    """Every dataset of a run directory that is compared, in memory: metrics["group/name"], snapshots[step]["name"]."""

    def __init__(self, folder):
        self.resolved = (folder / "resolved.yaml").read_text()
        self.metrics = read_h5(folder / "metrics.h5")
        self.snapshots = {int(path.stem.removeprefix("step_")): read_h5(path)
                          for path in sorted((folder / "snapshots").glob("step_*.h5"))}

    def __getitem__(self, name):
        return self.metrics[name]

    def parameters(self, step):
        snapshot, depth = self.snapshots[step], 1
        while f"W{depth + 1}" in snapshot:
            depth += 1
        layers = range(1, depth + 1)
        return oracle.Parameters([snapshot[f"W{l}"] for l in layers],
                                 [snapshot[f"b{l}"] for l in layers] if "b1" in snapshot else None)


def read_h5(path):
    """All datasets but those that tell of clocks and machines."""
    content = {}

    def keep(name, item):
        if isinstance(item, h5py.Dataset) and name.split("/")[0] not in ("timing", "provenance"):
            content[name] = item[()]

    with h5py.File(path, "r") as file:
        file.visititems(keep)
    return content


def simulate(run, spec, ranks=1):
    """Runs the input (a dictionary, or YAML text) to its end."""
    result = run(spec if isinstance(spec, str) else yaml.safe_dump(spec, sort_keys=False), ranks=ranks)
    assert result.returncode == 0, f"exit code {result.returncode}\n{result.stdout}\n{result.stderr}"
    return Output(result.dir)


# ---------------------------------------------------------------------------------------------------------------------
# Comparisons

def assert_scalars(ours, expected, what, tolerance=TOLERANCE):
    ours, expected = np.asarray(ours, dtype=float), np.asarray(expected, dtype=float)
    assert ours.shape == expected.shape, f"{what}: shape {ours.shape} for {expected.shape}"
    assert np.array_equal(np.isnan(ours), np.isnan(expected)), f"{what}: NaN in {ours} for {expected}"
    error = abs(ours - expected) / np.maximum(1.0, abs(expected))
    assert not np.any(error > tolerance), f"{what}: error {np.nanmax(error):.2e} at row {np.nanargmax(error)}"


def assert_matrix(ours, expected, what, tolerance=TOLERANCE):
    assert ours.shape == expected.shape, f"{what}: shape {ours.shape} for {expected.shape}"
    error, size = np.linalg.norm(ours - expected), np.linalg.norm(expected)
    assert error <= tolerance * size, f"{what}: error {error:.2e} of {size:.2e}"


def assert_parameters(ours, expected, what, tolerance=TOLERANCE):
    assert len(ours.W) == len(expected.W) and (ours.b is None) == (expected.b is None), f"{what}: other parameters"
    for (l, a), (_, b) in zip(ours.arrays(), expected.arrays()):
        assert_matrix(a, b, f"{what}: {'W' if a is ours.W[l] else 'b'}{l + 1}", tolerance)


def due(every, last):
    return sorted({*range(0, last + 1, every), last})


def assert_training(output, trajectory):
    """Group `train` of metrics.h5, and the weights in the snapshots."""
    last, spec, data = trajectory.last, trajectory.spec, trajectory.data
    assert output["train/step"].tolist() == list(range(last + 1))
    assert_scalars(output["train/loss"], trajectory.loss, "loss")
    assert_scalars(output["train/gradient_norm"], trajectory.gradient_norm, "gradient norm")
    assert_scalars(output["train/learning_rate"][:last], trajectory.learning_rate[:last], "learning rate", 1e-14)

    evaluated = output["train/evaluated_step"].tolist()
    assert evaluated == due(get(spec, "train.evaluate_every", None), last)
    assert_scalars(output["train/train_loss"], [trajectory.train_loss(t) for t in evaluated], "train loss")
    assert_scalars(output["train/train_accuracy"], [trajectory.train_accuracy(t) for t in evaluated], "train accuracy")
    missing = np.full(len(evaluated), np.nan)
    hides = data.train.M is not None or data.train.A is not None
    assert_scalars(output["train/recovery_error"] if hides else output.metrics.get("train/recovery_error", missing),
                   [trajectory.recovery_error(t) for t in evaluated], "recovery error")
    if data.test:
        assert_scalars(output["train/test_loss"], [trajectory.test_loss(t) for t in evaluated], "test loss")
        assert_scalars(output["train/test_accuracy"], [trajectory.test_accuracy(t) for t in evaluated], "test accuracy")
    else:
        for name in ("test_loss", "test_accuracy"):
            assert_scalars(output.metrics.get(f"train/{name}", missing), missing, name)

    assert list(output.snapshots) == due(get(spec, "snapshot.every", None), last)
    for step in output.snapshots:
        assert_parameters(output.parameters(step), trajectory.parameters[step], f"step {step}")


def assert_spectrum(output, probe, trajectory):
    """singular_value (step, layer, index): descending, NaN where a matrix has fewer than the widest."""
    steps = due(probe["every"], trajectory.last)
    assert output[f"{probe['name']}/step"].tolist() == steps
    ours, of = output[f"{probe['name']}/singular_value"], get(probe, "of", "weights")
    ours = ours.reshape(len(steps), -1, ours.shape[-1])
    for row, step in zip(ours, steps):
        if of == "update" and step == 0:
            assert np.all(np.isnan(row)), "there is no update before the first"
            continue
        matrices = trajectory.matrices(of, step)
        assert len(row) == len(matrices)
        for l, (values, matrix) in enumerate(zip(row, matrices), 1):
            expected = np.linalg.svd(matrix, compute_uv=False)
            if probe["rank"] != "full":
                expected = expected[:probe["rank"]]
            what = f"{probe['name']}: step {step}, layer {l}: {values} for {expected}"
            assert len(values) >= len(expected) and np.all(np.isnan(values[len(expected):])), what
            assert np.max(abs(values[:len(expected)] - expected)) <= 1e-10 * expected[0], what


def frames(matrix, k):
    """Leading left and right singular vectors."""
    U, _, Vt = np.linalg.svd(matrix, full_matrices=False)
    return U[:, :k], Vt[:k].T


def assert_subspaces(output, probe, trajectory):
    """Principal angles to the subspaces of the reference step, and alignments between neighbouring layers."""
    k, of, name = probe["rank"], get(probe, "of", "weights"), probe["name"]
    steps = due(probe["every"], trajectory.last)
    assert output[f"{name}/step"].tolist() == steps
    at = {step: [frames(matrix, k) for matrix in trajectory.matrices(of, step)] for step in steps}
    reference = next(step for step in steps if step >= get(probe, "reference", 0))
    angles = output[f"{name}/angle_left"], output[f"{name}/angle_right"]
    layers = len(at[0])
    assert all(side.shape == (len(steps), layers, k) for side in angles)
    assert output[f"{name}/alignment"].shape == (len(steps), layers - 1, k, k)
    for i, step in enumerate(steps):
        for l, now in enumerate(at[step]):
            for side in (0, 1) if step >= reference else ():
                expected = oracle.principal_angles(now[side], at[reference][l][side])
                error = abs(angles[side][i, l] - expected)
                assert np.all(error <= 1e-8), f"{name}: step {step}, layer {l + 1}, side {side}: {error}"
            if l + 1 < layers:
                expected = abs(now[0].T @ at[step][l + 1][1])
                error = abs(output[f"{name}/alignment"][i, l] - expected)
                assert np.all(error <= 1e-8), f"{name}: step {step}, interface {l + 1}: {error}"


def assert_run(output, trajectory):
    assert_training(output, trajectory)
    for probe in get(trajectory.spec, "probes", []):
        (assert_spectrum if probe["kind"] == "spectrum" else assert_subspaces)(output, probe, trajectory)


def assert_same_bits(one, other):
    assert list(one.snapshots) == list(other.snapshots) and set(one.metrics) == set(other.metrics)
    pairs = [(name, values, other[name]) for name, values in one.metrics.items()]
    pairs += [(f"step {step}: {name}", values, other.snapshots[step][name])
              for step, snapshot in one.snapshots.items() for name, values in snapshot.items()]
    for name, a, b in pairs:
        same = a.tolist() == b.tolist() if a.dtype == object else a.tobytes() == b.tobytes()
        assert a.shape == b.shape and same, f"{name} differs"


# ---------------------------------------------------------------------------------------------------------------------
# The cases themselves: a comparison at 1e-11 says something only if the weights move and rounding does not grow

@pytest.mark.parametrize("name", ALL_CASES)
def test_case_is_sound(name, files, monkeypatch):
    spec = located(ALL_CASES[name], files)
    trajectory, rng, start = oracle.train(spec), np.random.default_rng(1), oracle.initial_parameters

    def perturbed(*args):
        parameters = start(*args)
        for _, a in parameters.arrays():
            a *= 1.0 + 1e-13 * rng.standard_normal(a.shape)
        return parameters

    monkeypatch.setattr(oracle, "initial_parameters", perturbed)
    other = oracle.train(spec)
    assert np.all(np.isfinite(trajectory.loss)) and trajectory.loss[-1] <= max(trajectory.loss[:5])
    assert other.last == trajectory.last
    for l, (a, b, c) in enumerate(zip(trajectory.parameters[0].W, trajectory.parameters[-1].W, other.parameters[-1].W)):
        layer = trajectory.layers[l]
        moved = np.linalg.norm(b - a) / np.linalg.norm(a)
        moves = trajectory.last > 0 and layer.trainable and layer.multiplier > 0
        assert moved > 1e-3 if moves else moved == 0, f"W{l + 1} moves by {moved}"
        assert np.linalg.norm(c - b) < 2e-12 * np.linalg.norm(b), f"W{l + 1} is ill-conditioned"
    for probe in get(spec, "probes", []):
        for step in due(probe["every"], trajectory.last) if probe["kind"] == "subspace" else ():
            for matrix in trajectory.matrices(get(probe, "of", "weights"), step):
                values = np.append(np.linalg.svd(matrix, compute_uv=False), 0.0)[:probe["rank"] + 1]
                assert np.all(-np.diff(values) > 2e-3 * values[0]), f"step {step}: singular values too close"


def assert_covers(rows, pairs):
    for a, b in pairs:
        seen = {(row[a], row[b]) for row in rows}
        assert seen == set(itertools.product(*map(set, zip(*seen))))


def test_layouts_cover_pairs():
    assert_covers(LAYOUTS, [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)])


# ---------------------------------------------------------------------------------------------------------------------
# The program

@pytest.mark.parametrize("name", CASES)
def test_trajectory(name, run, files):
    spec = located(CASES[name], files)
    assert_run(simulate(run, spec), oracle.train(spec))


KINDS, REDUCTIONS = ["mse", "cross_entropy"], ["sum", "mean", "samples"]
RESIDUALS = {"none": [5, 6, 4, 3], "pairs": [5, 4, 4, 4, 3], "scaled": [5, 5, 6, 6, 3]}

# Every activation with every kind of loss, reduction and residual; every kind of loss with every reduction and residual
GRADIENTS = [(activation, KINDS[j % 2], REDUCTIONS[(2 * i + j) % 3], list(RESIDUALS)[(i + j) % 3], (4 * i + j) % 5 != 3)
             for (i, activation), j in itertools.product(enumerate(oracle.ACTIVATIONS), range(4))]


def test_gradients_cover_pairs():
    assert_covers(GRADIENTS, [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3), (1, 4), (3, 4)])


@pytest.mark.parametrize("activation, kind, reduction, residual, bias", GRADIENTS,
                         ids=["-".join(row[:4]) + "-bias" * row[4] for row in GRADIENTS])
def test_gradient(activation, kind, reduction, residual, bias, run, tmp_path):
    """(W_0 - W_1)/lr of one gradient descent step from given weights is the gradient, layer by layer."""
    index = GRADIENTS.index((activation, kind, reduction, residual, bias))
    widths, ranks = RESIDUALS[residual], 1 + index // 2 % 2
    write_h5(tmp_path / "start.h5", **random_start(widths, np.random.default_rng(index), gain=1.5))
    spec = case({**(CLASSES if kind == "cross_entropy" else GAUSSIAN), "features": 5, "train": 12, "test": 0},
                {"widths": widths, "activation": activation, "residual": residual, "bias": bias},
                {"kind": "file", "file": str(tmp_path / "start.h5")}, {"kind": kind, "reduction": reduction},
                {"steps": 1, "microbatch": 4 if index % 5 == 0 else "all"}, grid={"block": 2})
    spec["snapshot"]["every"] = 1
    expected = oracle.train(spec)
    size = np.sqrt(sum(np.sum(W * W) for W in expected.parameters[0].W))
    spec["train"]["lr"] = lr = float(2.0 ** np.round(np.log2(size / expected.gradient_norm[0])))  # both digits survive

    output = simulate(run, spec, ranks=ranks)
    before, after = output.parameters(0), output.parameters(1)
    assert_parameters(before, expected.parameters[0], "start", 0)
    assert_scalars(output["train/loss"][:1], expected.loss[:1], "loss")
    assert_scalars(output["train/gradient_norm"][:1], expected.gradient_norm[:1], "gradient norm")
    for (l, a), (_, b), (_, G) in zip(before.arrays(), after.arrays(), expected.gradient[0].arrays()):
        error = np.linalg.norm((a - b) / lr - G)
        rounding = 2 * np.finfo(float).eps * (np.linalg.norm(a) + np.linalg.norm(b)) / lr
        assert error <= TOLERANCE * np.linalg.norm(G) + rounding, f"layer {l + 1}: gradient is off by {error:.2e}"


_reference = {}  # of each layout case: what one rank wrote


@pytest.mark.parametrize("grid, block, route, name", LAYOUTS,
                         ids=[f"{name}-{m}x{n}-nb{block}-{route}" for (m, n), block, route, name in LAYOUTS])
def test_layout(grid, block, route, name, run):
    """Every layout gives the oracle's numbers, and those of one rank."""
    spec, (rows, cols) = LAYOUT_CASES[name], grid
    layout = {"rows": rows, "cols": cols, "block": block, "gemm": route}
    if name not in _reference:
        _reference[name] = simulate(run, spec)
    output = simulate(run, merged(spec, {"grid": layout}), ranks=rows * cols)
    assert_run(output, _layout_trajectory(name))
    one = _reference[name]
    assert set(output.metrics) == set(one.metrics) and list(output.snapshots) == list(one.snapshots)
    for what in ("loss", "gradient_norm", "learning_rate", "train_accuracy", "test_loss", "recovery_error"):
        if f"train/{what}" in one.metrics:
            assert_scalars(output[f"train/{what}"], one[f"train/{what}"], what)
    for step in one.snapshots:
        assert_parameters(output.parameters(step), one.parameters(step), f"step {step}")


def first_step(run, tmp_path, data, loss, ranks, block):
    """What one step of length 1 makes of a single matrix that is zero."""
    rows, cols = data.get("rows", data.get("classes")), data.get("cols", data.get("features"))
    write_h5(tmp_path / "zero.h5", W1=np.zeros((rows, cols)))
    spec = linear(data, model={"widths": [cols, rows]}, loss=loss, grid={"block": block},
                  init={"kind": "file", "file": str(tmp_path / "zero.h5")}, train={"lr": 1.0, "steps": 1})
    return simulate(run, merged(spec, {"snapshot": {"every": 1}}), ranks=ranks).parameters(1).W[0]


GENERATED = {  # the step is M o Y, the sum of y_k A_k, and X transposed (of classes of one sample each)
    "low-rank": ({**MATRIX, "rows": 31, "cols": 23, "rank": 5}, SUM),
    "spread": ({**MATRIX, "rows": 22, "cols": 31, "rank": 5, "spectrum": "spread"}, SUM),
    "mask": ({**COMPLETION, "rows": 31, "cols": 23, "observed": 0.3}, masked("sum")),
    "measurements": ({**SENSING, "rows": 11, "cols": 9}, sensing("sum")),
    "orthonormal": ({**ORTHOGONAL, "features": 29, "classes": 17, "per_class": 1}, SUM),
}


@pytest.mark.parametrize("name", GENERATED)
def test_generated_data(name, run, tmp_path):
    """Rank, number of observed entries, orthonormality; the same on every grid."""
    data, loss = GENERATED[name]
    step, other = (first_step(run, tmp_path, data, loss, *layout) for layout in [(1, 64), (4, 3)])
    assert_matrix(other, step, "another grid", 1e-13)
    assert np.array_equal(other == 0, step == 0)
    values = np.linalg.svd(step, compute_uv=False)
    if name in ("low-rank", "spread"):
        assert np.all(values[5:] < 1e-13 * values[0]) and values[4] > 0.1 * values[0]
    if name == "mask":
        assert np.count_nonzero(step) == round(0.3 * 31 * 23) == 214
    if name == "orthonormal":
        assert np.max(abs(values - 1)) < 1e-14
    train = oracle.load_data({"run": {"seed": 5}, "data": data}).train
    F = np.zeros_like(train.Y)
    assert_matrix(step, -oracle.loss_derivative(loss["kind"], F, train) @ train.X.T, "the oracle's", 1e-12)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("name", PROBE_CASES)
def test_probes(name, ranks, run):
    assert_run(simulate(run, PROBE_CASES[name], ranks=ranks), oracle.train(PROBE_CASES[name]))


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("name", ONLINE_CASES)
def test_online(name, ranks, run):
    assert_run(simulate(run, ONLINE_CASES[name], ranks=ranks), oracle.train(ONLINE_CASES[name]))


@pytest.mark.parametrize("name", FASHION_CASES)
def test_fashion_mnist(name, run):
    assert_run(simulate(run, FASHION_CASES[name], ranks=2), oracle.train(FASHION_CASES[name]))


def test_repeated_run_has_the_same_bits(run):
    spec = merged(LAYOUT_CASES["deep"], {"grid": {"rows": 2, "cols": 2, "block": 3}})
    assert_same_bits(simulate(run, spec, ranks=4), simulate(run, spec, ranks=4))


@pytest.mark.parametrize("name", ["deep", "wide"])
def test_resolved_input_has_the_same_bits(name, run):
    first = simulate(run, LAYOUT_CASES[name], ranks=2)
    assert get(yaml.safe_load(first.resolved), "train.weight_decay", None) == 0  # complete: defaults are written out
    assert_same_bits(first, simulate(run, first.resolved, ranks=2))


def test_probes_do_not_disturb(run):
    """Two runs that differ only in their probes have the same trajectory, bit for bit."""
    spec = LAYOUT_CASES["deep"]
    without = {key: value for key, value in spec.items() if key != "probes"}
    one, other = simulate(run, spec, ranks=2), simulate(run, without, ranks=2)
    for output in (one, other):
        output.metrics = {name: values for name, values in output.metrics.items() if name.startswith("train/")}
        output.snapshots = {step: {name: values for name, values in snapshot.items() if "/" not in name and "dim" not in name}
                            for step, snapshot in output.snapshots.items()}
    assert_same_bits(one, other)
