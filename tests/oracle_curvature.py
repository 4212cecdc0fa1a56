"""Dense curvature matrices of small networks in NumPy, for tests only: the Hessian by complex-step differentiation of a
gradient that is written for complex numbers, Gauss-Newton and second moments from their definitions. Shares nothing
with the program. Parameters are ordered W_1 by rows, b_1, W_2, ...; the loss is that of oracle.py."""
import numpy as np

import oracle

STEP = 1e-30  # no cancellation: exact to rounding


def slope(kind, z):
    """Derivative of an activation at complex z; the side of a kink is that of the real part."""
    positive = z.real > 0
    if kind in ("linear", "relu", "leaky_relu"):
        return np.where(positive, 1.0, {"linear": 1.0, "relu": 0.0, "leaky_relu": 0.01}[kind]) + 0.0 * z
    if kind == "elu":
        return np.where(positive, 1.0, np.exp(np.where(positive, 0.0, z)))
    return oracle.ACTIVATIONS[kind][1](z)


def loss_derivative(kind, F, samples):
    """Derivative of the sum-loss by complex outputs."""
    if kind == "cross_entropy":
        e = np.exp(F - F.real.max(axis=0))
        return e / e.sum(axis=0) * samples.Y.sum(axis=0) - samples.Y
    if kind == "logistic":
        return 1.0 / (1.0 + np.exp(-F)) - np.clip(samples.Y, 0.0, 1.0)
    return oracle.loss_derivative(kind, F, samples)


def pack(W, b):
    return np.concatenate([np.concatenate([w.ravel(), c.ravel()]) if b else w.ravel()
                           for w, c in zip(W, b or W)])


def unpack(theta, layers, bias):
    W, b, at = [], [], 0
    for layer in layers:
        W.append(theta[at:at + layer.n_out * layer.n_in].reshape(layer.n_out, layer.n_in))
        at += W[-1].size
        if bias:
            b.append(theta[at:at + layer.n_out].reshape(-1, 1))
            at += layer.n_out
    return oracle.Parameters(W, b if bias else None)


def per_sample(layers, parameters, a, z, by_output):
    """Gradients of every sample as columns, from the derivatives by a_L."""
    by_a, columns = [np.zeros_like(x) for x in a], [None] * len(layers)
    by_a[-1] = by_output
    for l in reversed(range(len(layers))):
        layer = layers[l]
        if layer.skip is not None:
            by_a[layer.skip] = by_a[layer.skip] + by_a[l + 1]
        by_z = layer.scale * slope(layer.activation, z[l]) * by_a[l + 1]
        by_a[l] = by_a[l] + parameters.W[l].T @ by_z
        parts = [np.einsum("is,js->ijs", by_z, a[l]).reshape(-1, by_z.shape[1])] + ([by_z] if parameters.b else [])
        columns[l] = float(layer.trainable) * np.concatenate(parts)
    return np.concatenate(columns)


def sample_gradients(loss, layers, parameters, samples):
    """Columns add up to the gradient of the loss."""
    loss = oracle.Loss(*loss)
    a, z = oracle.forward(layers, parameters, samples.X)
    D = loss_derivative(loss.kind, loss.output_scale * a[-1], samples)
    return per_sample(layers, parameters, a, z, loss.output_scale * oracle.loss_scale(loss, samples) * D)


def dense_hessian(loss, layers, parameters, samples):
    theta, bias = pack(parameters.W, parameters.b), parameters.b is not None
    H = np.empty((theta.size, theta.size))
    for j in range(theta.size):
        moved = theta.astype(complex)
        moved[j] += 1j * STEP
        H[:, j] = sample_gradients(loss, layers, unpack(moved, layers, bias), samples).sum(axis=1).imag / STEP
    trained = np.repeat([layer.trainable for layer in layers],
                        [layer.n_out * (layer.n_in + bias) for layer in layers])
    return H * np.outer(trained, trained)


def dense_ggn(loss, layers, parameters, samples):
    """J^T B J; B from complex steps of the loss derivative."""
    loss = oracle.Loss(*loss)
    a, z = oracle.forward(layers, parameters, samples.X)
    F, K = loss.output_scale * a[-1], a[-1].shape[0]
    J = []
    for c in range(K):
        unit = np.zeros_like(F)
        unit[c] = loss.output_scale
        J.append(per_sample(layers, parameters, a, z, unit))
    J = np.stack(J, axis=2).reshape(J[0].shape[0], -1).T  # row s·K + c: output c of sample s
    B = np.empty((F.size, F.size))
    for i in range(F.size):
        moved = F.T.ravel().astype(complex)
        moved[i] += 1j * STEP
        B[:, i] = loss_derivative(loss.kind, moved.reshape(-1, K).T, samples).T.ravel().imag / STEP
    return oracle.loss_scale(loss, samples) * J.T @ B @ J


def dense_g(loss, layers, parameters, samples, centred=False):
    """Second moment (or covariance) of the per-sample gradients whose mean is the gradient."""
    g = samples.X.shape[1] * sample_gradients(loss, layers, parameters, samples)
    if centred:
        g = g - g.mean(axis=1, keepdims=True)
    return g @ g.T / g.shape[1]
