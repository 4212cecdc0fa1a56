"""The probe `flow`: distance from the gradient flow, against the same steps in NumPy, and what is refused."""
import numpy as np
import pytest
import yaml

import oracle
import oracle_curvature
from same import assert_same
from test_density import check, series

TEXT = """
grid:  {{block: 2}}
data:  {{kind: gaussian, features: 6, outputs: 3, train: 24}}
model: {{widths: [6, 5, 3], activation: tanh, bias: true, trainable: {trainable}}}
loss:  {{kind: mse, reduction: samples}}
train: {{optimizer: {optimizer}, lr: 0.2, steps: 20, weight_decay: {decay}}}
probes: [{{kind: flow, every: 5, max_step: {most}}}]
snapshot: {{every: 5}}
checkpoint: {{every: 5}}
"""


def text(**keys):
    return TEXT.format(**{"optimizer": "gd", "decay": 0.05, "most": 0.01, "trainable": "all", **keys})


def by_numpy(given):
    """Distances, losses and sharpness of the flow, by the same method with a hundredth of the unit of time a step."""
    spec = yaml.safe_load(given)
    data, layers = oracle.load_data(spec), oracle.build_network(spec, 6, 3)
    start = oracle.initial_parameters(spec, layers)
    loss, decay = oracle.loss_of(spec), spec["train"]["weight_decay"]
    flow = descent = oracle_curvature.pack(start.W, start.b)

    def slope(theta):
        parameters = oracle_curvature.unpack(theta, layers, True)
        return -oracle_curvature.sample_gradients(loss, layers, parameters, data.train).sum(axis=1) - decay * theta

    rows = []
    for step in range(21):
        if step % 5 == 0:
            H = oracle_curvature.dense_hessian(loss, layers, oracle_curvature.unpack(flow, layers, True), data.train)
            rows.append([np.linalg.norm(descent - flow) / np.linalg.norm(flow),
                         np.linalg.eigvalsh(H)[-1] + decay])
        descent = descent + 0.2 * slope(descent)
        for _ in range(20):
            h = 0.01
            a = slope(flow)
            b = slope(flow + h / 2 * a)
            c = slope(flow + h / 2 * b)
            flow = flow + h / 6 * (a + 2 * b + 2 * c + slope(flow + h * c))
    return np.array(rows)


@pytest.mark.parametrize("ranks", [1, 4])
def test_flow_is_that_of_numpy(run, ranks):
    done = run(text(), ranks=ranks)
    check(done)
    found, expected = series(done, "flow"), by_numpy(text())
    assert list(found["step"]) == [0, 5, 10, 15, 20] and list(found["flow_steps"]) == [0, 100, 100, 100, 100]
    np.testing.assert_allclose(found["flow_distance"], expected[:, 0], rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(found["flow_sharpness"], expected[:, 1], rtol=1e-6)
    assert found["flow_distance"][0] == 0 and np.all(np.diff(found["flow_loss"]) < 0)


def test_steps_follow_the_sharpness(run):
    """No longer than 1/sharpness."""
    found = run(text(most=100))
    check(found)
    found = series(found, "flow")
    expected = np.ceil(1.0 * found["flow_sharpness"][:-1])
    assert np.array_equal(found["flow_steps"][1:], expected)


def test_resumed_runs_have_the_same_bits(run, tmp_path):
    given = text(most=100, trainable="[2]")
    check(run(given, ranks=2, args=["--out", "whole"]))
    for stop in (7, 20):
        check(run(given, ranks=2, args=["--out", "pieces", "--resume", "--set", f"train.steps={stop}"]))
    assert_same(tmp_path / "whole", tmp_path / "pieces")


def test_other_rules_have_other_flows(run):
    done = run(text(optimizer="adam"))
    check(done, 2)
    assert "probes[0].kind: the gradient flow is the limit of gd and sgd" in done.stderr
