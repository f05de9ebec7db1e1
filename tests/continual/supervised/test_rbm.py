"""A restricted Boltzmann machine: a gradient worked by hand, its dense twin, and learning."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from support.fits import CONFIG

from sparserl.continual.supervised.rbm import RBMLearner
from sparserl.continual.supervised.tables import Table, table_sequence
from sparserl.errors import ConfigError
from sparserl.seeding import stream
from sparserl.topology.config import TopologyConfig

HALF = TopologyConfig(method="set", density=0.5, output_layer="sparse", update_interval=6)
STAYS = TopologyConfig(method="static", density=0.5, output_layer="sparse")
ALL = TopologyConfig(method="dense")


def stripes(n: int = 60, width: int = 8) -> Table:
    """Pictures of two stripes that are each on or off, with a little grey."""
    rng = np.random.default_rng(0)
    on = rng.integers(0, 2, (n, 2))
    x = np.repeat(on, width // 2, axis=1) * 0.9 + 0.05
    return Table("stripes", x.astype(np.float32), on[:, 0].astype(np.int64), ("off", "on"))


def rbm(table: Table | None = None, topology: TopologyConfig = HALF, **changes: Any) -> RBMLearner:
    own = {"hidden": (5,), "optimizer": "sgd", "learning_rate": 0.1, "epochs": 4, "batch_size": 8}
    config = dataclasses.replace(CONFIG, **{**own, **changes})
    sequence = table_sequence(table or stripes(), scaling="none", validation_share=0.2, seed=0)
    return RBMLearner(sequence, config, topology, seed=0)


V0, H0 = [[1, 0, 1], [0, 1, 1]], [[1, 0], [1, 1]]
V1, H1 = [[0.9, 0.2, 0.6], [0.3, 0.7, 0.8]], [[1, 0], [0, 1]]
# <v0 h0> - <v1 h1>, visible by hidden: a mean over both samples.
WEIGHTS = [[0.05, -0.15], [0.4, 0.15], [0.7, 0.1]]


@pytest.mark.parametrize("topology", [HALF, ALL])
def test_the_divergence_worked_by_hand(topology: TopologyConfig) -> None:
    x = np.tile(np.array(V0, np.float32), (10, 1))
    learner = rbm(Table("t", x, np.arange(20) % 2, ("a", "b")), topology, hidden=(2,))
    v0, h0, v1, h1 = (np.array(one, np.float32) for one in (V0, H0, V1, H1))
    _, first = learner._hidden(v0)
    _, last = learner._hidden(v1)
    learner.set_gradients(v0, h0, first, v1, h1, last)
    layer: Any = learner.network[0]
    expected = torch.tensor(WEIGHTS).T.flatten()
    weight = layer.values if topology is HALF else layer.weight
    slots = torch.from_numpy(layer.topology.flat) if topology is HALF else slice(None)
    torch.testing.assert_close(weight.grad.flatten(), -expected[slots])
    torch.testing.assert_close(layer.bias.grad, -torch.tensor([0.5, 0.0]))
    torch.testing.assert_close(learner._visible_bias.grad, -torch.tensor([-0.1, 0.05, 0.3]))


@pytest.mark.parametrize("steps", [1, 3])
def test_a_step_is_that_of_the_dense_twin(steps: int) -> None:
    learner = rbm(topology=STAYS, gibbs_steps=steps, constant_decay=0.01)
    learner._visible_bias.data = torch.linspace(-1, 1, 8)
    layer: Any = learner.network[0]
    w = np.zeros((5, 8), np.float32)
    w.ravel()[layer.topology.flat] = layer.values.detach().numpy()
    c, b = layer.bias.detach().numpy().copy(), learner._visible_bias.detach().numpy().copy()
    exists = np.isin(np.arange(40), layer.topology.flat).reshape(5, 8)
    draws = stream(0, "gibbs", "0", "0")
    batch = learner._batch(np.arange(8))
    v0 = batch.x.numpy()

    def sigmoid(z: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-z))

    def drawn(v: np.ndarray) -> np.ndarray:
        return (draws.random((8, 5), dtype=np.float32) < sigmoid(v @ w.T + c)).astype(np.float32)

    h0 = h = drawn(v0)
    for _ in range(steps):
        v = sigmoid(h @ w + b)
        h = drawn(v)
    loss = learner._step(batch)
    assert loss == pytest.approx(np.square(v0 - v).mean(), rel=1e-5)
    moved = 0.99 * w + 0.1 * exists * (h0.T @ v0 - h.T @ v) / 8
    np.testing.assert_allclose(layer.values.detach().numpy(), moved.ravel()[layer.topology.flat], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(layer.bias.detach(), 0.99 * c + 0.1 * (h0 - h).mean(axis=0), rtol=1e-4, atol=1e-6)
    visible = 0.99 * b + 0.1 * (v0 - v).mean(axis=0)
    np.testing.assert_allclose(learner._visible_bias.detach(), visible, rtol=1e-4, atol=1e-6)


def test_it_learns_and_moves_its_connections() -> None:
    learner = rbm(epochs=40, learning_rate=0.3)
    test = learner.only_task.test
    before = learner.network[0].topology.flat.tolist()  # type: ignore[union-attr, operator]
    untrained = learner.evaluate(test).loss
    for _ in learner.train():
        pass
    assert learner.evaluate(test).loss < 0.7 * untrained
    assert learner.evaluate(test).accuracy is None
    assert learner.network[0].nnz == 20  # type: ignore[union-attr]
    assert learner.network[0].topology.flat.tolist() != before  # type: ignore[union-attr, operator]


def test_it_goes_on_as_if_it_had_not_been_stored() -> None:
    whole, cut, other = rbm(), rbm(), rbm()
    losses = [step.loss for step in whole.train()]
    steps = cut.train()
    first = [next(steps).loss for _ in range(8)]
    other.load_state_dict(cut.state_dict())
    assert first + [step.loss for step in other.train()] == losses
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(other.network.state_dict()[name], tensor)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"hidden": (5, 5)},
            r"an RBM has one layer of hidden units, .* --learner.hidden 200 --scaling range, got hidden 5 5",
        ),
        ({"activation": "tanh"}, "learner.activation tanh has no effect on an RBM; leave it relu"),
        ({"noise": 0.2}, r"learner.noise 0.2 has no effect on an RBM; leave it 0.0"),
    ],
)
def test_what_an_rbm_does_not_have_is_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        rbm(**changes)


def test_features_must_be_probabilities() -> None:
    table = dataclasses.replace(stripes(), x=stripes().x * 2)
    with pytest.raises(ConfigError, match=r"an RBM needs features in \[0, 1\], and one is .*: give --scaling range"):
        rbm(table)
