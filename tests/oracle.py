"""An independent implementation of eigentrain's mathematics in plain float64 NumPy, for tests only.

It is written from the formulas in the headers (include/net, include/train, include/dist/random.h) and from the
specifications, not from the C code, and shares nothing with it: one process, whole matrices, no chunks, no compression.
It takes the same input as the program, as nested dictionaries:

    trajectory = train({"data": {...}, "model": {...}, "train": {...}})
    trajectory.loss[t], trajectory.parameters[t].W[l], ...

Conventions: columns are samples; layers are counted from 1 in comments and from 0 in lists; W[l] is n_{l+1} x n_l and
b[l] a column. The forward pass also works on complex numbers, which is how test_oracle_self.py differentiates it.
"""
import copy
import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from scipy.special import erf

# ---------------------------------------------------------------------------------------------------------------------
# Random numbers: Philox4x64-10 (Salmon et al., SC11; Random123), a pure function of (seed, stream, index)

RANDOM_WEIGHTS, RANDOM_BATCHES, RANDOM_DATA, RANDOM_ONLINE = 0x10000, 0x20000, 0x40000, 0x50000
RANDOM_CLUSTERS, RANDOM_SUBSPACE = RANDOM_DATA + 10, 0x60000
RANDOM_NOISE, RANDOM_MASK, RANDOM_SENSING = RANDOM_DATA + 5, RANDOM_DATA + 6, RANDOM_DATA + 7

_MULTIPLIER = np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157)
_WEYL = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B
_WORD = (1 << 64) - 1


def multiply(a, b):
    """High and low 64 bits of the 128-bit products of two uint64 arrays."""
    a, b = np.asarray(a, dtype=np.uint64), np.asarray(b, dtype=np.uint64)
    half, mask = np.uint64(32), np.uint64(0xFFFFFFFF)
    a1, a0, b1, b0 = a >> half, a & mask, b >> half, b & mask
    with np.errstate(over="ignore"):
        middle = a1 * b0 + ((a0 * b0) >> half)
        other = a0 * b1 + (middle & mask)
        return a1 * b1 + (middle >> half) + (other >> half), a * b


def philox(counter, key):
    """The four words of Philox4x64-10; `counter` is four uint64 arrays (or numbers), `key` two Python integers."""
    c0, c1, c2, c3 = np.broadcast_arrays(*(np.asarray(c, dtype=np.uint64) for c in counter))
    k0, k1 = key
    for _ in range(10):
        high0, low0 = multiply(_MULTIPLIER[0], c0)
        high1, low1 = multiply(_MULTIPLIER[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ np.uint64(k0), low1, high0 ^ c3 ^ np.uint64(k1), low0
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return c0, c1, c2, c3


def random_words(seed, stream, index):
    return philox((index, 0, 0, 0), (seed, stream))


def random_bits(seed, stream, index):
    return random_words(seed, stream, index)[0]


def random_uniform(seed, stream, index):
    """Uniform in [0, 1)."""
    return (random_bits(seed, stream, index) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def random_normal(seed, stream, index):
    """Box-Muller from the first two words of one counter block."""
    first, second = random_words(seed, stream, index)[:2]
    u1 = ((first >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    u2 = (second >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return np.sqrt(-2.0 * np.log(u1)) * np.cos(2.0 * np.pi * u2)


def random_below(seed, stream, index, n):
    """Uniform integers in [0, n)."""
    return multiply(random_bits(seed, stream, index), n)[0].astype(np.int64)


def random_permutation(n, seed, stream, epoch):
    i = np.arange(n - 1, 0, -1)
    chosen = random_below(seed, stream, epoch * n + i, i + 1)
    p = np.arange(n)
    for a, b in zip(i, chosen):
        p[a], p[b] = p[b], p[a]
    return p


def _indices(m, n):
    return np.arange(m * n).reshape(m, n, order="F")


def normal_matrix(m, n, seed, stream):
    return random_normal(seed, stream, _indices(m, n))


def uniform_matrix(m, n, seed, stream):
    """Uniform in [-1, 1)."""
    return 2.0 * random_uniform(seed, stream, _indices(m, n)) - 1.0


# ---------------------------------------------------------------------------------------------------------------------
# Input

def get(spec, key, default):
    """The value of a dotted key, or the default of the parameter table."""
    for part in key.split("."):
        if not isinstance(spec, dict) or part not in spec:
            return default
        spec = spec[part]
    return spec


def merged(*specs):
    """A deep union of inputs; later ones win, maps are joined."""
    result = {}
    for spec in specs:
        for key, value in spec.items():
            both = isinstance(result.get(key), dict) and isinstance(value, dict)
            result[key] = merged(result[key], value) if both else copy.deepcopy(value)
    return result


# ---------------------------------------------------------------------------------------------------------------------
# Data

@dataclass
class Samples:
    X: np.ndarray  # d x N
    Y: np.ndarray  # K x N
    M: np.ndarray | None = None  # K x N, zeros and ones: where Y is observed; None: everywhere
    A: np.ndarray | None = None  # m x K x N: Y is known by its inner products with these; None: by its entries


@dataclass
class Data:
    train: Samples
    test: Samples | None
    classification: bool


def read_idx(path):
    """An array of unsigned bytes in the IDX format, plain or gzipped."""
    content = Path(path).read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    assert content[:3] == b"\x00\x00\x08", f"{path} is no IDX file of unsigned bytes"
    dims = np.frombuffer(content, dtype=">u4", offset=4, count=content[3]).astype(int)
    return np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * len(dims)).reshape(dims)


def one_hot(labels, classes):
    Y = np.zeros((classes, len(labels)))
    Y[labels, np.arange(len(labels))] = 1.0
    return Y


def _read_images(images, labels, count, spec, per_class="all"):
    """Of the classes that are wanted, numbered anew, so many each in file order; of these the first `count`."""
    pixels, labels, classes = read_idx(images), read_idx(labels), get(spec, "data.classes", 10)
    only = get(spec, "data.only", "all")
    only = list(range(classes)) if only == "all" else only
    most = len(labels) if per_class == "all" else per_class
    taken = np.sort(np.concatenate([np.flatnonzero(labels == c)[:most] for c in only]))
    taken = taken[:len(taken) if count == "all" else count]
    X, Y = pixels[taken].reshape(len(taken), -1).T / 255.0, one_hot([only.index(c) for c in labels[taken]], len(only))
    return Samples(X, Y[:1] - Y[1:] if get(spec, "data.targets", "classes") == "signs" else Y)


def _image_data(spec):
    if get(spec, "data.kind", None) == "fashion_mnist":
        folder = Path(get(spec, "data.path", "/usr/share/datasets/fashion-mnist"))
        names = [folder / f"{part}-{what}-ubyte.gz" for part in ("train", "t10k")
                 for what in ("images-idx3", "labels-idx1")]
    else:
        names = [get(spec, f"data.{part}_{what}", None) for part in ("train", "test") for what in ("images", "labels")]
    test_count = get(spec, "data.test", "all")
    train = _read_images(names[0], names[1], get(spec, "data.train", "all"), spec, get(spec, "data.per_class", "all"))
    test = None if names[2] is None or test_count == 0 else _read_images(names[2], names[3], test_count, spec)
    return Data(train, test, get(spec, "data.targets", "classes") == "classes")


def _hdf5_data(spec):
    with h5py.File(get(spec, "data.file", None), "r") as file:
        content = {name: file[name][()] for name in ("X", "Y", "M", "X_test", "Y_test", "M_test") if name in file}
    Y = content["Y"]
    train = Samples(content.get("X", np.eye(Y.shape[1])), Y, content.get("M"))
    test = None
    if "X_test" in content:
        test = Samples(content["X_test"], content["Y_test"], content.get("M_test"))
    return Data(train, test, get(spec, "data.targets", "values") == "classes")


def _gaussian_data(spec):
    seed, d, K = get(spec, "run.seed", 1), get(spec, "data.features", None), get(spec, "data.outputs", None)
    classes = get(spec, "data.targets", "values") == "classes"

    def draw(N, stream):
        X = normal_matrix(d, N, seed, stream)
        if get(spec, "data.targets", "values") == "clusters":
            means, label = normal_matrix(d, K, seed, RANDOM_CLUSTERS), np.arange(N) % K
            return Samples(X + get(spec, "data.separation", 1.0) * means[:, label], one_hot(label, K))
        if classes:
            return Samples(X, one_hot(random_below(seed, stream + 1, np.arange(N), K), K))
        return Samples(X, normal_matrix(K, N, seed, stream + 1))

    train, test = get(spec, "data.train", None), get(spec, "data.test", 0)
    return Data(draw(train, RANDOM_DATA), draw(test, RANDOM_DATA + 2) if test else None,
                get(spec, "data.targets", "values") != "values")


def fresh_samples(spec, first, count):
    """Samples first ... first + count - 1 of the stream that online training draws from."""
    data, seed, end = spec["data"], get(spec, "run.seed", 1), first + count
    X = get(spec, "data.scale", 1.0) * normal_matrix(data["features"], end, seed, RANDOM_ONLINE)[:, first:]
    if get(spec, "data.targets", "values") == "classes":
        labels = random_below(seed, RANDOM_ONLINE + 1, np.arange(end), data["outputs"])
        return Samples(X, one_hot(labels[first:], data["outputs"]))
    return Samples(X, normal_matrix(data["outputs"], end, seed, RANDOM_ONLINE + 1)[:, first:])


def low_rank_target(rows, cols, rank, spectrum, seed):
    """So many singular triplets of a standard Gaussian matrix: the leading ones, or spread over the larger half."""
    U, s, Vt = np.linalg.svd(normal_matrix(rows, cols, seed, RANDOM_DATA + 1), full_matrices=False)
    taken = np.arange(rank) if spectrum == "leading" else np.arange(rank) * len(s) // (2 * rank)
    return (U[:, taken] * s[taken]) @ Vt[taken]


def random_mask(rows, cols, fraction, seed):
    """The entries with the smallest random keys; the low bits of a key are the entry's index, so that no two agree."""
    index = _indices(rows, cols).astype(np.uint64)
    low = np.uint64(2 ** int(rows * cols - 1).bit_length() - 1)
    key = random_bits(seed, RANDOM_MASK, index) & ~low | index
    count = int(np.floor(fraction * (rows * cols) + 0.5))
    return (key <= np.sort(key, axis=None)[count - 1]).astype(np.float64)


def sensing_matrices(rows, cols, count, seed):
    """A[k] for k = 0 ... count - 1, standard normal."""
    return np.array([random_normal(seed, RANDOM_SENSING, _indices(rows, cols) + k * rows * cols)
                     for k in range(count)])


def _matrix_data(spec):
    rows, cols, rank = (get(spec, f"data.{key}", None) for key in ("rows", "cols", "rank"))
    seed, kind = get(spec, "run.seed", 1), get(spec, "data.kind", None)
    train = Samples(np.eye(cols), low_rank_target(rows, cols, rank, get(spec, "data.spectrum", "leading"), seed))
    if kind == "matrix_completion":
        train.M = random_mask(rows, cols, get(spec, "data.observed", None), seed)
    if kind == "matrix_sensing":
        train.A = sensing_matrices(rows, cols, get(spec, "data.measurements", None), seed)
    return Data(train, None, False)


def _orthogonal_class_data(spec):
    d, K, n, seed = (get(spec, key, 1) for key in ("data.features", "data.classes", "data.per_class", "run.seed"))
    X = orthonormal(normal_matrix(d, K * n, seed, RANDOM_DATA))
    noise = normal_matrix(d, K * n, seed, RANDOM_NOISE)
    X = X + get(spec, "data.noise", 0.0) * noise / np.linalg.norm(noise)
    return Data(Samples(X, one_hot(np.arange(K * n) // n, K)), None, True)


def load_data(spec):
    """The data that the input describes, centred and whitened if it says so."""
    source = {"fashion_mnist": _image_data, "idx": _image_data, "hdf5": _hdf5_data, "gaussian": _gaussian_data,
              "orthogonal_classes": _orthogonal_class_data,
              **dict.fromkeys(["low_rank_matrix", "matrix_completion", "matrix_sensing"], _matrix_data)}
    data = source[get(spec, "data.kind", None)](spec)
    if get(spec, "data.normalise", "none") == "symmetric":
        for samples in filter(None, (data.train, data.test)):
            samples.X = 2 * samples.X - 1
    if get(spec, "data.centre", False):
        mean = data.train.X.mean(axis=1, keepdims=True)
        data.train.X = data.train.X - mean
        if data.test:
            data.test.X = data.test.X - mean
    if get(spec, "data.whiten", False):
        U, s, Vt = np.linalg.svd(data.train.X, full_matrices=False)
        kept = s >= get(spec, "data.whiten_floor", 1e-5) * s[0]
        U, s, Vt = U[:, kept], s[kept], Vt[kept]
        data.train.X = U @ Vt
        if data.test:
            data.test.X = (U / s) @ (U.T @ data.test.X)
    scale = get(spec, "data.scale", 1.0)
    if get(spec, "data.normalise", "none") == "longest":
        scale /= np.linalg.norm(data.train.X, axis=0).max()
    for samples in filter(None, (data.train, data.test)):
        samples.X = scale * samples.X
    return data


# ---------------------------------------------------------------------------------------------------------------------
# Network

def _logistic(z):
    return 1.0 / (1.0 + np.exp(-z))


def _normal_cdf(z):
    return 0.5 * (1.0 + erf(z / np.sqrt(2.0)))


# name: (value, derivative); the sign is that of the real part, so that values can be complex
ACTIVATIONS = {
    "linear": (lambda z: z, lambda z: np.ones_like(z)),
    "relu": (lambda z: np.where(z.real > 0, z, 0.0), lambda z: np.where(z > 0, 1.0, 0.0)),
    "leaky_relu": (lambda z: np.where(z.real > 0, z, 0.01 * z), lambda z: np.where(z > 0, 1.0, 0.01)),
    "tanh": (np.tanh, lambda z: 1.0 - np.tanh(z) ** 2),
    "elu": (lambda z: np.where(z.real > 0, z, np.expm1(np.where(z.real > 0, 0.0, z))),
            lambda z: np.where(z > 0, 1.0, np.exp(np.minimum(z, 0.0)))),
    "gelu": (lambda z: z * _normal_cdf(z),
             lambda z: _normal_cdf(z) + z * np.exp(-0.5 * z**2) / np.sqrt(2.0 * np.pi)),
    "silu": (lambda z: z * _logistic(z), lambda z: _logistic(z) * (1.0 + z * (1.0 - _logistic(z)))),
}


@dataclass
class Layer:
    n_in: int
    n_out: int
    activation: str
    skip: int | None  # index of the activation that is added
    scale: float
    trainable: bool
    multiplier: float  # of the learning rate


@dataclass
class Parameters:
    W: list
    b: list | None

    def arrays(self):
        """(layer, array) of every parameter array."""
        yield from enumerate(self.W)
        yield from enumerate(self.b or [])

    def copy(self):
        return copy.deepcopy(self)

    def norm(self):
        return np.sqrt(sum(np.sum(a * a) for _, a in self.arrays()))


def per_layer(value, depth):
    values = value if isinstance(value, list) else [value]
    return values * depth if len(values) == 1 else values


def build_network(spec, features, outputs):
    """The layers that the input describes."""
    widths = get(spec, "model.widths", "auto")
    if widths == "auto":
        depth = get(spec, "model.depth", None)
        widths = [features] + [get(spec, "model.width", None)] * (depth - 1) + [outputs]
    L = len(widths) - 1
    assert widths[0] == features and widths[-1] == outputs
    phi, head = get(spec, "model.activation", "gelu"), max(1, get(spec, "model.linear_head", 0))
    residual, trainable = get(spec, "model.residual", "none"), get(spec, "model.trainable", "all")
    trained = range(1, L + 1) if trainable == "all" else trainable
    multiplier = per_layer(get(spec, "model.lr_multiplier", 1.0), L)
    layers = []
    for l in range(1, L + 1):
        active, skip, scale = l <= L - head, None, 1.0
        if residual == "pairs":
            active = active and l % 2 == 0  # A of a pair (A, B); the first layer, every B and the last are linear
            if l % 2 == 1 and 1 < l < L:
                skip = l - 2
        elif residual == "scaled" and widths[l] == widths[l - 1]:
            skip, scale = l - 1, 1.0 / L
        layers.append(Layer(widths[l - 1], widths[l], phi if active else "linear", skip, scale, l in trained,
                            multiplier[l - 1]))
    return layers


def orthonormal(G):
    """The Q of the thin QR factorisation with diag(R) > 0."""
    Q, R = np.linalg.qr(G)
    return Q * np.sign(np.diag(R))


def initial_matrix(kind, gain, n_out, n_in, seed, stream):
    """The start of one layer at scale 1."""
    if kind == "orthogonal":
        if n_out >= n_in:
            return orthonormal(normal_matrix(n_out, n_in, seed, stream))
        return orthonormal(normal_matrix(n_in, n_out, seed, stream)).T
    factor = {"none": 1.0, "fan_in": 1.0 / np.sqrt(n_in),
              "orthogonal": np.sqrt(min(n_out, n_in) / (n_out * n_in))}[gain]
    if kind == "gaussian":
        return normal_matrix(n_out, n_in, seed, stream) * factor
    return uniform_matrix(n_out, n_in, seed, stream) * (np.sqrt(3.0) * factor)


def initial_parameters(spec, layers):
    kind, bias = get(spec, "model.init.kind", "orthogonal"), get(spec, "model.bias", False)
    if kind == "file":
        with h5py.File(get(spec, "model.init.file", None), "r") as file:
            W = [file[f"W{l}"][()] for l in range(1, len(layers) + 1)]
            b = [file[f"b{l}"][()].reshape(-1, 1) for l in range(1, len(layers) + 1)] if bias else None
        return Parameters(W, b)
    gain, seed = get(spec, "model.init.gain", "fan_in"), get(spec, "run.seed", 1)
    scale = list(per_layer(get(spec, "model.init.scale", 1.0), len(layers)))
    kinds = [kind] * len(layers)
    if get(spec, "model.init.head", "same") != "same":
        kinds[-1], scale[-1] = get(spec, "model.init.head", "same"), get(spec, "model.init.head_scale", 1.0)
    W = [scale[l] * initial_matrix(kinds[l], gain, layer.n_out, layer.n_in, seed, RANDOM_WEIGHTS + l + 1)
         for l, layer in enumerate(layers)]
    start = get(spec, "model.init.bias", 0) if kind == "uniform" else 0
    size = [scale[l] / np.sqrt(layer.n_in) if start == "fan_in" else start for l, layer in enumerate(layers)]
    b = [size[l] * np.sqrt(3.0) * uniform_matrix(layer.n_out, 1, seed, RANDOM_WEIGHTS + 0x8000 + l + 1)
         for l, layer in enumerate(layers)]
    return Parameters(W, b if bias else None)


def forward(layers, parameters, X):
    """Activations a_0 ... a_L and pre-activations z_1 ... z_L."""
    a, z = [X], []
    for l, layer in enumerate(layers):
        z.append(parameters.W[l] @ a[l] + (parameters.b[l] if parameters.b else 0.0))
        value = layer.scale * ACTIVATIONS[layer.activation][0](z[l])
        a.append(value if layer.skip is None else a[layer.skip] + value)
    return a, z


class Loss(NamedTuple):
    """`output_scale` is alpha in f = alpha a_L."""

    kind: str
    reduction: str
    output_scale: float = 1.0


def loss_of(spec):
    return Loss(get(spec, "loss.kind", "mse"), get(spec, "loss.reduction", "mean"), get(spec, "model.output_scale", 1.0))


def loss_scale(loss, samples):
    """1/s."""
    count = {"cross_entropy": samples.Y.shape[1], "sensing": 0 if samples.A is None else len(samples.A)}
    terms = count.get(loss.kind, samples.Y.size)
    observed = samples.Y.size if samples.M is None else np.count_nonzero(samples.M)
    return 1.0 / {"sum": 1, "mean": terms, "samples": samples.Y.shape[1], "observed": observed}[loss.reduction]


def residual(kind, F, samples):
    """What the squared losses are the squares of."""
    if kind == "sensing":
        return np.array([np.sum(A * (F - samples.Y)) for A in samples.A])
    return F - samples.Y if samples.M is None else samples.M * (F - samples.Y)


def signs(samples):
    """1 where a target is positive, else -1."""
    return np.where(samples.Y > 0, 1.0, -1.0)


def loss_value(kind, F, samples):
    """Sum-loss."""
    if kind == "logistic":
        y = np.clip(samples.Y, 0.0, 1.0)
        return np.sum(np.log1p(np.exp(np.where(F.real > 0, -F, F))) + np.where(F.real > 0, F, 0.0) - y * F)
    if kind == "exponential":
        return np.sum(np.exp(-signs(samples) * F))
    if kind != "cross_entropy":
        return 0.5 * np.sum(residual(kind, F, samples) ** 2)
    shifted = F - F.real.max(axis=0)
    return np.sum(samples.Y * (np.log(np.sum(np.exp(shifted), axis=0)) - shifted))


def loss_derivative(kind, F, samples):
    """Derivative of the sum-loss by the outputs."""
    if kind == "sensing":
        return np.tensordot(residual(kind, F, samples), samples.A, axes=1)
    if kind == "logistic":
        return _logistic(F) - np.clip(samples.Y, 0.0, 1.0)
    if kind == "exponential":
        return -signs(samples) * np.exp(-signs(samples) * F)
    if kind != "cross_entropy":
        return residual(kind, F, samples)
    e = np.exp(F - F.max(axis=0))
    return e / e.sum(axis=0) * samples.Y.sum(axis=0) - samples.Y


def outputs(loss, layers, parameters, samples):
    return loss.output_scale * forward(layers, parameters, samples.X)[0][-1]


def evaluate_loss(loss, layers, parameters, samples):
    loss = Loss(*loss)
    return loss_scale(loss, samples) * loss_value(loss.kind, outputs(loss, layers, parameters, samples), samples)


def recovery_error(loss, layers, parameters, samples):
    """Mean of half the squared error over what the loss does not show; NaN if it shows all."""
    if samples.M is None and samples.A is None:
        return np.nan
    hidden = 1.0 if samples.M is None else 1.0 - samples.M
    return 0.5 * np.mean((hidden * (outputs(Loss(*loss), layers, parameters, samples) - samples.Y)) ** 2)


def of_signs(loss, samples):
    return loss.kind in ("logistic", "exponential") and len(samples.Y) == 1


def accuracy(loss, layers, parameters, samples):
    """Largest outputs in their places; of a single output of the losses that know signs, signs."""
    F = forward(layers, parameters, samples.X)[0][-1]
    if of_signs(loss, samples):
        return np.mean((F > 0) == (samples.Y > 0))
    return np.mean(F.argmax(axis=0) == samples.Y.argmax(axis=0))


def loss_and_gradient(loss, layers, parameters, samples):
    """Loss and its gradient by every parameter; frozen layers get zeros."""
    loss = Loss(*loss)
    a, z = forward(layers, parameters, samples.X)
    scale, F = loss_scale(loss, samples), loss.output_scale * a[-1]
    by_a = [np.zeros_like(x) for x in a]  # derivative of the loss by each activation, over all paths
    by_a[-1] = loss.output_scale * scale * loss_derivative(loss.kind, F, samples)
    W, b = [None] * len(layers), [None] * len(layers)
    for l in reversed(range(len(layers))):
        layer = layers[l]
        if layer.skip is not None:
            by_a[layer.skip] += by_a[l + 1]
        by_z = layer.scale * ACTIVATIONS[layer.activation][1](z[l]) * by_a[l + 1]
        W[l], b[l] = by_z @ a[l].T, by_z.sum(axis=1, keepdims=True)
        by_a[l] += parameters.W[l].T @ by_z
        if not layer.trainable:
            W[l], b[l] = np.zeros_like(W[l]), np.zeros_like(b[l])
    return scale * loss_value(loss.kind, F, samples), Parameters(W, b if parameters.b else None)


# ---------------------------------------------------------------------------------------------------------------------
# Subspaces

def principal_angles(A, B):
    """Angles between the spans of two matrices with orthonormal columns, ascending, accurate at 0 and at pi/2. (Not
    scipy.linalg.subspace_angles: its choice between arcsin and arccos goes by the wrong angle when some lie below pi/4
    and some above, which costs half the digits of the small ones.)"""
    product = A.T @ B
    cosines = np.linalg.svd(product, compute_uv=False)
    sines = np.linalg.svd(B - A @ product, compute_uv=False)[::-1]
    return np.arctan2(sines, cosines)


# ---------------------------------------------------------------------------------------------------------------------
# Training

def schedule_rate(spec, step):
    """Learning rate of the update that leads from `step` to step + 1."""
    lr, kind = get(spec, "train.lr", 0.1), get(spec, "train.schedule.kind", "constant")
    if kind == "step":
        passed = sum(milestone <= step for milestone in get(spec, "train.schedule.milestones", None))
        return lr * get(spec, "train.schedule.factor", 0.1) ** passed
    if kind == "cosine":
        length = get(spec, "train.schedule.length", "steps")
        length = get(spec, "train.steps", 100) if length == "steps" else length
        final, warmup = get(spec, "train.schedule.final", 0.0), get(spec, "train.schedule.warmup", 0)
        if step < warmup:
            return lr * (step + 1) / warmup
        return final + (lr - final) * 0.5 * (1.0 + np.cos(np.pi * min(1.0, step / length)))
    return lr


class Optimizer:
    """The update rules of train/optimizer.h, with decoupled weight decay."""

    def __init__(self, spec, parameters):
        self.kind = get(spec, "train.optimizer", "gd")
        self.decay = get(spec, "train.weight_decay", 0.0)
        self.momentum, self.beta1 = get(spec, "train.momentum", 0.9), get(spec, "train.beta1", 0.9)
        self.beta2, self.epsilon = get(spec, "train.beta2", 0.999), get(spec, "train.epsilon", 1e-8)
        self.m = [np.zeros_like(a) for _, a in parameters.arrays()]
        self.v = [np.zeros_like(a) for _, a in parameters.arrays()]
        self.count = 0

    def _direction(self, i, g):
        if self.kind == "momentum":
            self.v[i] = self.momentum * self.v[i] + g
            return self.v[i]
        if self.kind == "nesterov":
            self.v[i] = self.momentum * self.v[i] + g
            return g + self.momentum * self.v[i]
        if self.kind == "rmsprop":
            self.v[i] = self.beta2 * self.v[i] + (1.0 - self.beta2) * g**2
            return g / (np.sqrt(self.v[i]) + self.epsilon)
        if self.kind == "adam":
            self.m[i] = self.beta1 * self.m[i] + (1.0 - self.beta1) * g
            self.v[i] = self.beta2 * self.v[i] + (1.0 - self.beta2) * g**2
            m, v = self.m[i] / (1.0 - self.beta1**self.count), self.v[i] / (1.0 - self.beta2**self.count)
            return m / (np.sqrt(v) + self.epsilon)
        return g

    def step(self, layers, parameters, gradient, lr):
        """Updates `parameters` in place."""
        self.count += 1
        for i, ((l, a), (_, g)) in enumerate(zip(parameters.arrays(), gradient.arrays())):
            if layers[l].trainable:
                rate = lr * layers[l].multiplier
                a[...] = (1.0 - rate * self.decay) * a - rate * self._direction(i, g)


def flow_rate(spec, layers, parameters, samples):
    """The velocity of every array under the gradient flow."""
    gradient = loss_and_gradient(loss_of(spec), layers, parameters, samples)[1]
    decay = get(spec, "train.weight_decay", 0.0)
    return [-(layers[l].multiplier if layers[l].trainable else 0.0) * (g + decay * a)
            for (l, a), (_, g) in zip(parameters.arrays(), gradient.arrays())]


def flow_step(spec, layers, parameters, samples, h):
    """Moves `parameters` by the classical method of Runge and Kutta."""
    def moved(factor, rates):
        there = parameters.copy()
        for (_, a), rate in zip(there.arrays(), rates):
            a += factor * rate
        return there
    k1 = flow_rate(spec, layers, parameters, samples)
    k2 = flow_rate(spec, layers, moved(0.5 * h, k1), samples)
    k3 = flow_rate(spec, layers, moved(0.5 * h, k2), samples)
    k4 = flow_rate(spec, layers, moved(h, k3), samples)
    for (_, a), *k in zip(parameters.arrays(), k1, k2, k3, k4):
        a += h / 6.0 * (k[0] + 2.0 * k[1] + 2.0 * k[2] + k[3])


def batch_of(spec, samples, step):
    """The samples that the gradient of `step` is taken on."""
    N, batch = samples.X.shape[1], get(spec, "train.batch", "full")
    if batch == "full":
        return samples
    if get(spec, "train.online", False):
        return fresh_samples(spec, step * batch, batch)
    epoch, k = divmod(step, N // batch)
    columns = random_permutation(N, get(spec, "run.seed", 1), RANDOM_BATCHES, epoch)[k * batch:(k + 1) * batch]
    return Samples(samples.X[:, columns], samples.Y[:, columns], None if samples.M is None else samples.M[:, columns])


@dataclass
class Trajectory:
    spec: dict
    data: Data
    layers: list
    loss: list  # [t], as the lists below, of the samples that the gradient is taken on
    gradient_norm: list
    learning_rate: list
    parameters: list
    gradient: list

    @property
    def last(self):
        return len(self.loss) - 1

    def train_loss(self, t):
        return evaluate_loss(loss_of(self.spec), self.layers, self.parameters[t], self.data.train)

    def accuracy(self, t, samples):
        loss = loss_of(self.spec)
        if not self.data.classification and not of_signs(loss, samples):
            return np.nan
        return accuracy(loss, self.layers, self.parameters[t], samples)

    def recovery_error(self, t):
        return recovery_error(loss_of(self.spec), self.layers, self.parameters[t], self.data.train)

    def train_accuracy(self, t):
        return self.accuracy(t, self.data.train)

    def test_loss(self, t):
        return evaluate_loss(loss_of(self.spec), self.layers, self.parameters[t], self.data.test)

    def test_accuracy(self, t):
        return self.accuracy(t, self.data.test)

    def matrices(self, of, t):
        """The matrices that a probe `of: ...` sees at step t."""
        if of == "gradient":
            return self.gradient[t].W
        if of == "update":
            return [new - old for new, old in zip(self.parameters[t].W, self.parameters[t - 1].W)]
        if of == "product":
            product = np.eye(self.layers[0].n_in)
            for W in self.parameters[t].W:
                product = W @ product
            return [product]
        return self.parameters[t].W


def gradient_subspace(W, G, rank):
    """Leading right singular vectors of the first gradient, and left ones through W^T; an orthonormal basis of them."""
    L, _, Rt = np.linalg.svd(G, full_matrices=False)
    half = (rank + 1) // 2
    B = np.hstack([Rt[:half].T, W.T @ L[:, :half] / relative_scale(W)])
    return np.linalg.svd(B, full_matrices=False)[0][:, :rank]


def relative_scale(W):
    return np.linalg.norm(W) / np.sqrt(min(W.shape))


def low_rank_inputs(spec, data, layers, full, rank):
    """The subspace V of the inputs (include/train/low_rank.h)."""
    seed, kind = get(spec, "run.seed", 1), get(spec, "model.subspace", "gradient")
    random = normal_matrix(data.train.X.shape[0], rank, seed, RANDOM_SUBSPACE)
    if kind == "random":
        return orthonormal(random)
    gradient = loss_and_gradient(loss_of(spec), layers, full, data.train)[1]
    span = gradient_subspace(full.W[0], gradient.W[0], rank)
    V = orthonormal(span @ (span.T @ normal_matrix(*random.shape, seed, RANDOM_SUBSPACE + 1)))
    if kind == "gradient":
        return V
    beside = orthonormal(random - V @ (V.T @ random))
    angle = np.radians(get(spec, "model.angle", 90.0))
    return np.sin(angle) * beside + np.cos(angle) * V if kind == "rotated" else beside


def low_rank_network(spec, data):
    """Layers and start of model.parametrization: low_rank."""
    d, K = data.train.X.shape[0], data.train.Y.shape[0]
    layers = build_network(spec, d, K)
    full = initial_parameters(spec, layers)
    rank = get(spec, "model.rank", 2 * K)
    V, scales = low_rank_inputs(spec, data, layers, full, rank), [relative_scale(W) for W in full.W[:-1]]
    outer = V
    for W, scale in zip(full.W, scales):
        outer = W @ outer / scale
    if get(spec, "model.factors", "merged") == "merged":
        W = [scales[0] * V.T, *(scale * np.eye(rank) for scale in scales[1:-1]), scales[-1] * outer, full.W[-1]]
    else:
        W = [V.T, *(scale * np.eye(rank) for scale in scales), outer, full.W[-1]]
    shape = {"widths": [d] + [each.shape[0] for each in W]}
    return build_network(merged(spec, {"model": shape}), d, K), Parameters(W, None)


def train(spec):
    """The whole run that the input describes: everything at every step, t = 0 ... steps (or where it stops)."""
    data = load_data(spec)
    if get(spec, "model.parametrization", "full") == "low_rank":
        layers, parameters = low_rank_network(spec, data)
    else:
        layers = build_network(spec, data.train.X.shape[0], data.train.Y.shape[0])
        parameters = initial_parameters(spec, layers)
    optimizer = Optimizer(spec, parameters)
    steps, tolerance = get(spec, "train.steps", 100), get(spec, "train.tolerance", 0.0)
    result = Trajectory(spec, data, layers, [], [], [], [], [])
    for t in range(steps + 1):
        loss, gradient = loss_and_gradient(loss_of(spec), layers, parameters, batch_of(spec, data.train, t))
        lr = schedule_rate(spec, t)
        result.loss.append(loss)
        result.gradient_norm.append(gradient.norm())
        result.learning_rate.append(lr)
        result.parameters.append(parameters.copy())
        result.gradient.append(gradient)
        if loss < tolerance:
            break
        if optimizer.kind == "gradient_flow":
            flow_step(spec, layers, parameters, data.train, lr)
        else:
            optimizer.step(layers, parameters, gradient, lr)
    return result
