"""Is the oracle right? Its gradient against complex-step differentiation of its own forward pass, its random numbers
against the published vectors of Random123 and against NumPy, closed forms for the rest. Needs no program and no MPI."""
import itertools

import numpy as np
import pytest

import oracle

SMOOTH_STEP = 1e-30  # complex step: no cancellation, so the derivative is exact to rounding


@pytest.mark.parametrize("counter, key, words", [
    ("0000000000000000 0000000000000000 0000000000000000 0000000000000000", "0000000000000000 0000000000000000",
     "16554d9eca36314c db20fe9d672d0fdc d7e772cee186176b 7e68b68aec7ba23b"),
    ("ffffffffffffffff ffffffffffffffff ffffffffffffffff ffffffffffffffff", "ffffffffffffffff ffffffffffffffff",
     "87b092c3013fe90b 438c3c67be8d0224 9cc7d7c69cd777b6 a09caebf594f0ba0"),
    ("243f6a8885a308d3 13198a2e03707344 a4093822299f31d0 082efa98ec4e6c89", "452821e638d01377 be5466cf34e90c6c",
     "a528f45403e61d95 38c72dbd566e9788 a5a1610e72fd18b5 57bd43b5e52b7fe6"),
], ids=["zeros", "ones", "pi"])
def test_philox_known_answers(counter, key, words):
    """kat_vectors of Random123, philox4x64 with 10 rounds."""
    counter, key = ([int(word, 16) for word in text.split()] for text in (counter, key))
    assert " ".join(f"{int(word):016x}" for word in oracle.philox(counter, key)) == words


def test_philox_against_numpy():
    """numpy.random.Philox counts up before its first block."""
    for seed, stream, index in [(1, 0x10001, 1), (2**53, 0x20000, 12345), (7, 0x40000, 2**40)]:
        theirs = np.random.Philox(key=seed + (stream << 64), counter=index - 1).random_raw(4)
        assert [int(word) for word in oracle.random_words(seed, stream, index)] == [int(word) for word in theirs]


def test_random_distributions():
    index = np.arange(200000)
    u, z = oracle.random_uniform(3, 5, index), oracle.random_normal(3, 5, index)
    assert u.min() >= 0 and u.max() < 1 and abs(u.mean() - 0.5) < 3e-3 and abs(u.var() - 1 / 12) < 1e-3
    assert abs(z.mean()) < 1e-2 and abs(z.var() - 1) < 2e-2 and abs(np.mean(z**4) - 3) < 0.1
    counts = np.bincount(oracle.random_below(3, 5, index, 7), minlength=7)
    assert len(counts) == 7 and np.all(abs(counts - len(index) / 7) < 5 * np.sqrt(len(index) / 7))


def test_random_below_is_the_high_word():
    bits = int(oracle.random_bits(1, 2, 3))
    for n in [1, 2, 10, 2**33 + 1, 2**62]:
        assert int(oracle.random_below(1, 2, 3, n)) == (bits * n) >> 64


def test_permutations():
    seen = {tuple(oracle.random_permutation(3, 1, oracle.RANDOM_BATCHES, epoch)) for epoch in range(200)}
    assert seen == set(itertools.permutations(range(3)))
    assert oracle.random_permutation(1, 1, oracle.RANDOM_BATCHES, 0).tolist() == [0]
    p, q = (oracle.random_permutation(101, 1, oracle.RANDOM_BATCHES, epoch) for epoch in (0, 1))
    assert sorted(p) == list(range(101)) and p.tolist() != q.tolist()


def test_orthogonal_start():
    for n_out, n_in in [(7, 4), (4, 7), (5, 5), (1, 3), (1, 1)]:
        W = oracle.initial_matrix("orthogonal", None, n_out, n_in, 1, 2)
        small = W.T @ W if n_out >= n_in else W @ W.T
        assert W.shape == (n_out, n_in) and np.allclose(small, np.eye(len(small)), atol=1e-14)
    G = oracle.normal_matrix(7, 4, 1, 2)
    assert np.all(np.diag(oracle.initial_matrix("orthogonal", None, 7, 4, 1, 2).T @ G) > 0)


def test_whitening():
    spec = {"data": {"kind": "gaussian", "features": 6, "outputs": 2, "train": 20, "test": 5}}
    raw = oracle.load_data(spec)
    white = oracle.load_data(oracle.merged(spec, {"data": {"centre": True, "whiten": True}}))
    X = white.train.X
    assert np.allclose(X @ X.T, np.eye(6), atol=1e-14) and np.allclose(X.sum(axis=1), 0, atol=1e-14)
    mean = raw.train.X.mean(axis=1, keepdims=True)
    map_ = X @ np.linalg.pinv(raw.train.X - mean)
    assert np.allclose(map_, map_.T, atol=1e-13)
    assert np.allclose(white.test.X, map_ @ (raw.test.X - mean), atol=1e-13)


def matrix_data(**problem):
    return oracle.load_data({"run": {"seed": 3}, "data": {"rows": 12, "cols": 17, "rank": 3, **problem}}).train


def test_low_rank_targets():
    gaussian = np.linalg.svd(oracle.normal_matrix(12, 17, 3, oracle.RANDOM_DATA + 1), compute_uv=False)
    for spectrum, taken in [("leading", [0, 1, 2]), ("spread", [0, 2, 4])]:
        data = matrix_data(kind="low_rank_matrix", spectrum=spectrum)
        values = np.linalg.svd(data.Y, compute_uv=False)
        assert np.allclose(values[:3], gaussian[taken], rtol=1e-13) and values[3] < 1e-13
        assert np.array_equal(data.X, np.eye(17)) and data.M is None and data.A is None
    assert np.linalg.norm(oracle.low_rank_target(9, 9, 3, "leading", 3)
                          - oracle.low_rank_target(9, 9, 3, "spread", 3)) > 1  # number 0, 9/6, 18/6: 0, 1, 3


def test_masks():
    for fraction, count in [(0.2, 41), (1.0, 204), (0.01, 2), (0.0025, 1)]:
        M = matrix_data(kind="matrix_completion", observed=fraction).M
        assert set(np.unique(M)) <= {0.0, 1.0} and M.sum() == count
    half = sum(oracle.random_mask(12, 17, 0.5, seed) for seed in range(400)) / 400
    assert abs(half.mean() - 0.5) < 1e-15 and np.max(abs(half - 0.5)) < 0.12  # 4.8 standard deviations
    less, more = (oracle.random_mask(12, 17, fraction, 1) for fraction in (0.3, 0.6))
    assert np.all(more[less == 1] == 1)  # the same keys
    assert oracle.random_mask(1, 1, 1.0, 1).tolist() == [[1.0]]


def test_measurements():
    data = matrix_data(kind="matrix_sensing", measurements=300)
    A = data.A.reshape(300, -1)
    assert data.A.shape == (300, 12, 17) and abs(A.mean()) < 0.02 and abs(A.var() - 1) < 0.03
    assert np.max(abs(np.corrcoef(A) - np.eye(300))) < 0.4
    scale = 0.5 / 300
    assert np.isclose(oracle.loss_scale(oracle.Loss("sensing", "mean"), data), 2 * scale)
    F = np.ones_like(data.Y)
    assert np.isclose(oracle.loss_value("sensing", F, data), 0.5 * np.sum((A @ (F - data.Y).ravel()) ** 2))


def test_orthogonal_classes():
    spec = {"data": {"kind": "orthogonal_classes", "features": 13, "classes": 4, "per_class": 3}}
    data = oracle.load_data(spec)
    assert np.allclose(data.train.X.T @ data.train.X, np.eye(12), atol=1e-14) and data.classification
    assert data.train.Y.argmax(axis=0).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    noisy = oracle.load_data(oracle.merged(spec, {"data": {"noise": 0.7}}))
    assert np.isclose(np.linalg.norm(noisy.train.X - data.train.X), 0.7, rtol=1e-14)


def test_scaled_inputs():
    spec = {"data": {"kind": "gaussian", "features": 4, "outputs": 2, "train": 9, "test": 3, "whiten": True}}
    one, scaled = oracle.load_data(spec), oracle.load_data(oracle.merged(spec, {"data": {"scale": 0.25}}))
    assert np.array_equal(scaled.train.X, one.train.X / 4) and np.array_equal(scaled.test.X, one.test.X / 4)
    assert np.array_equal(scaled.train.Y, one.train.Y)


def test_recovery_error():
    """Of a network that is a single matrix."""
    layers = [oracle.Layer(17, 12, "linear", None, 1.0, True, 1.0)]
    parameters = oracle.Parameters([np.zeros((12, 17))], None)
    masked, measured = matrix_data(kind="matrix_completion", observed=0.5), matrix_data(kind="matrix_sensing",
                                                                                       measurements=2)
    hidden = masked.Y[masked.M == 0]
    assert np.isclose(oracle.recovery_error(("masked_mse", "sum"), layers, parameters, masked),
                      np.sum(hidden**2) / (2 * 12 * 17), rtol=1e-14)
    assert np.isclose(oracle.recovery_error(("sensing", "sum"), layers, parameters, measured),
                      np.sum(measured.Y**2) / (2 * 12 * 17), rtol=1e-14)
    assert np.isnan(oracle.recovery_error(("mse", "sum"), layers, parameters, matrix_data(kind="low_rank_matrix")))
    parameters.W[0] = masked.Y / 3
    assert oracle.recovery_error(("masked_mse", "sum", 3.0), layers, parameters, masked) < 1e-30


def test_fashion_mnist():
    data = oracle.load_data({"data": {"kind": "fashion_mnist", "train": 100, "test": 10}})
    assert data.train.X.shape == (784, 100) and data.test.Y.shape == (10, 10) and data.train.X.max() == 1.0
    assert data.train.Y[:, 0].argmax() == 9 and data.test.Y[:, 0].argmax() == 9  # ankle boots
    assert np.all(data.train.Y.sum(axis=0) == 1)


def test_schedules():
    cosine = {"train": {"lr": 2.0, "steps": 10, "schedule": {"kind": "cosine", "final": 1.0}}}
    assert oracle.schedule_rate(cosine, 0) == 2.0 and oracle.schedule_rate(cosine, 10) == 1.0
    assert np.isclose(oracle.schedule_rate(cosine, 5), 1.5, rtol=1e-15)
    warm = oracle.merged(cosine, {"train": {"schedule": {"warmup": 4}}})
    assert [oracle.schedule_rate(warm, t) for t in range(4)] == [0.5, 1.0, 1.5, 2.0]
    assert all(oracle.schedule_rate(warm, t) == oracle.schedule_rate(cosine, t) for t in range(4, 12))
    assert oracle.schedule_rate(cosine, 99) == 1.0
    step = {"train": {"lr": 1.0, "schedule": {"kind": "step", "milestones": [3, 5], "factor": 0.5}}}
    assert [oracle.schedule_rate(step, t) for t in (0, 2, 3, 4, 5, 9)] == [1, 1, 0.5, 0.5, 0.25, 0.25]


@pytest.mark.parametrize("name", oracle.ACTIVATIONS)
def test_activation_derivatives(name):
    value, derivative = oracle.ACTIVATIONS[name]
    z = np.array([-40.0, -3.7, -1.0, -1e-3, -1e-12, 1e-12, 0.02, 0.6, 2.5, 40.0])
    exact = np.imag(value(z + 1j * SMOOTH_STEP)) / SMOOTH_STEP
    assert np.allclose(derivative(z), exact, rtol=1e-13, atol=1e-15)
    assert value(np.zeros(1))[0] == 0.0


@pytest.mark.parametrize("residual", ["none", "pairs", "scaled"])
@pytest.mark.parametrize("kind, reduction", itertools.product(["mse", "cross_entropy"], ["sum", "mean", "samples"]))
@pytest.mark.parametrize("activation", oracle.ACTIVATIONS)
def test_gradient(activation, kind, reduction, residual):
    """Every derivative of a small network with biases, by complex steps."""
    spec = {"run": {"seed": 4},
            "data": {"kind": "gaussian", "features": 3, "outputs": 2, "train": 5},
            "model": {"widths": [3, 4, 4, 4, 4, 4, 2], "activation": activation, "bias": True, "residual": residual,
                      "init": {"kind": "gaussian", "gain": "none", "scale": 0.6}}}
    loss, data = (kind, reduction), oracle.load_data(spec).train
    if kind == "cross_entropy":
        data.Y = np.abs(data.Y)  # any non-negative targets: the formula does not need them to sum to 1
    check_gradient(loss, spec, data)


MATRIX_LOSSES = [(kind, reduction) for kind, reductions in [
    ("mse", ["mean"]), ("masked_mse", ["sum", "mean", "samples", "observed"]), ("sensing", ["sum", "mean"]),
    ("cross_entropy", ["samples"])] for reduction in reductions]


@pytest.mark.parametrize("output_scale", [1.0, 3.0])
@pytest.mark.parametrize("kind, reduction", MATRIX_LOSSES)
def test_gradient_of_matrix_losses(kind, reduction, output_scale):
    problem = {"masked_mse": {"kind": "matrix_completion", "observed": 0.4},
               "sensing": {"kind": "matrix_sensing", "measurements": 7}}.get(kind, {"kind": "low_rank_matrix"})
    spec = {"data": {**problem, "rows": 2, "cols": 3, "rank": 2},
            "model": {"widths": [3, 4, 4, 2], "activation": "silu", "bias": True, "residual": "scaled",
                      "init": {"kind": "gaussian", "gain": "none", "scale": 0.6}}}
    data = oracle.load_data(spec).train
    if kind == "cross_entropy":
        data.Y = np.abs(data.Y)
    check_gradient((kind, reduction, output_scale), spec, data)


def check_gradient(loss, spec, data):
    layers = oracle.build_network(spec, 3, 2)
    parameters = oracle.initial_parameters(spec, layers)
    for l, b in enumerate(parameters.b):
        b[...] = 0.3 * oracle.normal_matrix(*b.shape, 9, l)
    value, gradient = oracle.loss_and_gradient(loss, layers, parameters, data)
    assert value == oracle.evaluate_loss(loss, layers, parameters, data)
    for (which, l), G in [((which, l), getattr(gradient, which)[l]) for which in "Wb" for l in range(len(layers))]:
        for entry in np.ndindex(G.shape):
            moved = parameters.copy()
            array = getattr(moved, which)
            array[l] = array[l].astype(complex)
            array[l][entry] += 1j * SMOOTH_STEP
            exact = np.imag(oracle.evaluate_loss(loss, layers, moved, data)) / SMOOTH_STEP
            assert abs(G[entry] - exact) <= 1e-12 * max(1.0, np.linalg.norm(G)), f"{which}{l + 1}{entry}"


def test_residual_structure():
    """pairs and scaled written out by hand."""
    widths = [3, 4, 4, 4, 2]
    rng = np.random.default_rng(0)
    W = [rng.standard_normal((m, n)) for n, m in zip(widths, widths[1:])]
    X, phi = rng.standard_normal((3, 6)), np.tanh
    spec = {"model": {"widths": widths, "activation": "tanh", "residual": "pairs"}}
    x = W[0] @ X
    x = x + W[2] @ phi(W[1] @ x)
    F = oracle.forward(oracle.build_network(spec, 3, 2), oracle.Parameters(W, None), X)[0][-1]
    assert np.allclose(F, W[3] @ x, rtol=1e-14)
    spec["model"]["residual"] = "scaled"
    x = phi(W[0] @ X)
    x = x + phi(W[1] @ x) / 4
    x = x + phi(W[2] @ x) / 4
    F = oracle.forward(oracle.build_network(spec, 3, 2), oracle.Parameters(W, None), X)[0][-1]
    assert np.allclose(F, W[3] @ x, rtol=1e-14)


def test_gradient_descent_invariant():
    """The table of science/1, input dln_diag."""
    spec = {"model": {"widths": [8] * 4, "activation": "linear"}}
    data = oracle.Samples(np.eye(8), np.diag([3.0, 2, 1, 0, 0, 0, 0, 0]))
    layers = oracle.build_network(spec, 8, 8)
    parameters = oracle.Parameters([0.5 * np.eye(8) for _ in range(3)], None)
    optimizer = oracle.Optimizer(spec, parameters)
    for _ in range(50):
        optimizer.step(layers, parameters, oracle.loss_and_gradient(("mse", "sum"), layers, parameters, data)[1], 0.01)
    expected = [1.218749133406, 0.862370004706, 0.628648621144] + [0.485471873387] * 5
    for W in parameters.W:
        assert np.allclose(np.linalg.svd(W, compute_uv=False), expected, rtol=0, atol=1e-10)
    for _ in range(50):
        optimizer.step(layers, parameters, oracle.loss_and_gradient(("mse", "sum"), layers, parameters, data)[1], 0.01)
    loss = oracle.loss_and_gradient(("mse", "sum"), layers, parameters, data)[0]
    assert abs(loss / 0.1692646647225 - 1) < 1e-9


def test_orthogonal_start_rho():
    """science/1, inputs dln_thm and dln_momentum: 24 singular values of every layer follow the closed recursion."""
    base = {"data": {"kind": "low_rank_matrix", "rows": 30, "cols": 30, "rank": 3},
            "model": {"width": 30, "depth": 3, "activation": "linear"}, "train": {"lr": 1.0, "steps": 50}}
    for more, rho in [({}, 0.950961122110), ({"optimizer": "momentum"}, 0.735958871806)]:
        run = oracle.train(oracle.merged(base, {"train": more}))
        for W in run.parameters[50].W:
            assert np.sum(abs(np.linalg.svd(W, compute_uv=False) - rho) < 1e-10) == 24
    spec = oracle.merged(base, {"train": {"weight_decay": 1e-3, "steps": 500}})
    for W in oracle.train(spec).parameters[500].W:
        assert np.sum(abs(np.linalg.svd(W, compute_uv=False) - 0.512192949623) < 1e-10) == 24


def test_principal_angles():
    expected = np.array([0.0, 1e-12, 1e-5, 0.5, 1.2, np.pi / 2])
    k, Q = len(expected), oracle.orthonormal(oracle.normal_matrix(20, 12, 1, 2))
    A, B = Q[:, :k], Q[:, :k] * np.cos(expected) + Q[:, k:] * np.sin(expected)
    turn = oracle.orthonormal(oracle.normal_matrix(k, k, 1, 3))
    assert np.allclose(oracle.principal_angles(A, B @ turn), expected, rtol=0, atol=1e-14)


def test_optimizers_scalar():
    """One parameter, constant gradient g: closed forms of the first two updates."""
    layers = [oracle.Layer(1, 1, "linear", None, 1.0, True, 2.0)]
    g, lr, decay = 0.3, 0.01, 0.1
    for kind, directions in [("gd", (g, g)), ("sgd", (g, g)), ("momentum", (g, 1.9 * g)), ("nesterov", (1.9 * g, 2.71 * g)),
                             ("adam", (g / (g + 1e-8),) * 2),
                             ("rmsprop", tuple(g / (np.sqrt(v) * g + 1e-8) for v in (0.001, 0.001999)))]:
        parameters = oracle.Parameters([np.ones((1, 1))], None)
        optimizer = oracle.Optimizer({"train": {"optimizer": kind, "weight_decay": decay}}, parameters)
        expected = 1.0
        for direction in directions:
            optimizer.step(layers, parameters, oracle.Parameters([np.full((1, 1), g)], None), lr)
            expected = (1 - 2 * lr * decay) * expected - 2 * lr * direction
            assert abs(parameters.W[0][0, 0] - expected) < 1e-13, kind
    layers[0].trainable = False
    parameters, gradient = (oracle.Parameters([np.ones((1, 1))], None) for _ in range(2))
    oracle.Optimizer({"train": {"weight_decay": 1.0}}, parameters).step(layers, parameters, gradient, 0.1)
    assert parameters.W[0][0, 0] == 1.0


def test_batches():
    """An epoch visits N // batch disjoint batches; the next epoch has another order."""
    spec = {"data": {"kind": "gaussian", "features": 1, "outputs": 1, "train": 11}, "train": {"batch": 3}}
    samples = oracle.load_data(spec).train
    seen = [oracle.batch_of(spec, samples, t).X[0].tolist() for t in range(6)]
    epochs = [sum(seen[:3], []), sum(seen[3:], [])]
    assert all(len(set(epoch)) == 9 and set(epoch) <= set(samples.X[0]) for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_fresh_samples():
    """Online batches follow one another in a stream that never repeats and is not that of the training or test set."""
    spec = {"data": {"kind": "gaussian", "features": 2, "outputs": 1, "train": 11, "test": 11},
            "train": {"batch": 3, "online": True}}
    data = oracle.load_data(spec)
    batches = [oracle.batch_of(spec, data.train, t) for t in range(4)]
    seen = np.hstack([batch.X for batch in batches])
    assert np.array_equal(seen, oracle.fresh_samples(spec, 0, 12).X)
    assert len({*seen.ravel(), *data.train.X.ravel(), *data.test.X.ravel()}) == 24 + 22 + 22
