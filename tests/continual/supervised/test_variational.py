"""Variational dropout: divergence and log alpha by hand, a step of a masked dense twin, what goes, and exact resume."""

from __future__ import annotations

import dataclasses
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracle.dense_topology import mask_of
from support.fits import CONFIG, table
from support.trees import assert_equal_trees

from sparserl.continual.supervised.connections import DENSE
from sparserl.continual.supervised.tables import read_table, table_sequence
from sparserl.continual.supervised.variational import VariationalLearner, divergence, drowned, log_alpha
from sparserl.errors import ConfigError
from sparserl.layers.convert import to_dense
from sparserl.seeding import stream
from sparserl.topology.config import TopologyConfig

STATIC = TopologyConfig(method="static", density=0.6)


def learner(topology: TopologyConfig = DENSE, **changes: Any) -> VariationalLearner:
    own = {"regularizer": "variational_dropout", "kl_after": 1, "kl_full": 3, "epochs": 6, **changes}
    sequence = table_sequence(table(), validation_share=0.2, seed=0)
    return VariationalLearner(sequence, dataclasses.replace(CONFIG, **own), topology, seed=0)


def test_divergence_is_as_worked_by_hand() -> None:
    values = divergence(torch.tensor([-8.0, -3.0, 0.0, 3.0, 8.0]))
    np.testing.assert_allclose(values, [4.6359, 2.1156, 0.4312, 0.0254, 0.0002], atol=6e-5)


def test_log_alpha_is_as_worked_by_hand() -> None:
    weights = torch.tensor([0.1, -0.1, 0.00151, 0.00149, 0.0, 100.0])
    found = log_alpha(weights, torch.tensor(-10.0))
    np.testing.assert_allclose(found[[0, 1, 4, 5]], [-5.39, -5.39, 8.0, -8.0], atol=6e-3)
    assert drowned(found.numpy()).tolist() == [3, 4]


def test_a_weight_of_zero_has_a_gradient() -> None:
    weights = torch.zeros(2, requires_grad=True)
    divergence(log_alpha(weights, torch.tensor([-10.0, -25.0]))).sum().backward()
    assert torch.isfinite(weights.grad).all()  # type: ignore[arg-type]


def test_a_layer_keeps_its_best_connection() -> None:
    assert drowned(np.array([3.0, 4.0, 3.0, 8.0])).tolist() == [1, 2, 3]


def test_the_divergence_counts_along_a_line() -> None:
    own = learner(epochs=40, kl_after=5, kl_full=20)
    shares = []
    for own.epoch in (0, 5, 8, 20, 39):
        shares.append(own.kl_share)
    assert shares == [0.0, 0.0, 0.2, 1.0, 1.0]


@pytest.mark.parametrize("topology", [DENSE, STATIC])
def test_gradients_are_those_of_a_masked_dense_twin(topology: TopologyConfig) -> None:
    own = learner(topology)
    own.epoch = 2
    batch = own._batch(own._order()[:16])
    with torch.no_grad():
        for parameter in own.log_variances.values():
            parameter += torch.linspace(0.0, 6.0, parameter.numel())
    layers = [(to_dense(layer), torch.from_numpy(mask_of(layer.topology))) for layer in own.network]
    scales, x, kl = [], batch.x, torch.zeros(())
    draws = stream(0, "variational_dropout", "2", "0")
    for (layer, mask), parameter, function in zip(
        layers, own.log_variances.values(), own.network.functions, strict=True
    ):
        scale = torch.full(mask.shape, -10.0)
        scale[mask] = parameter.detach()
        scales.append(scale.requires_grad_())
        spread = (x**2 @ (scale.exp() * mask).T + 1e-8).sqrt()
        noise = torch.from_numpy(draws.standard_normal(spread.shape, dtype=np.float32))
        kl = kl + (divergence(log_alpha(layer.weight, scale)) * mask).sum()
        x = function(layer(x) + spread * noise)
    loss = torch.nn.functional.cross_entropy(x, batch.y) + 0.5 / len(own.only_task.train) * kl
    loss.backward()
    assert own._form_gradients(batch) == pytest.approx(loss.item(), rel=1e-5)
    for layer, parameter, (dense, mask), scale in zip(
        own.network, own.log_variances.values(), layers, scales, strict=True
    ):
        np.testing.assert_allclose(layer.values.grad, dense.weight.grad[mask], rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(layer.bias.grad, dense.bias.grad, rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(parameter.grad, scale.grad[mask], rtol=1e-3, atol=1e-6)


def test_everything_of_a_connection_goes_and_the_rest_stays() -> None:
    own = learner()
    list(islice(own.train(), 3))
    (name, layer), parameter = next(iter(own._layers.items())), own.log_variances["network.0"]
    with torch.no_grad():
        parameter[3:20] = 20.0
    kept = np.flatnonzero(own.log_alphas(name).detach() < 3.0)
    state = own.optimizer.state
    before = [parameter.detach().clone(), layer.values.detach().clone(), layer.topology.flat.copy()]
    before += [state[one][key].clone() for one in (parameter, layer.values) for key in ("exp_avg", "exp_avg_sq")]
    own._drop()
    after = [parameter.detach(), layer.values.detach(), layer.topology.flat]
    after += [state[one][key] for one in (parameter, layer.values) for key in ("exp_avg", "exp_avg_sq")]
    assert kept.size <= 72 - 17
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(new, old[kept])
    list(own.train())


def test_it_resumes_exactly_after_connections_have_gone() -> None:
    whole, first, second = (learner(learning_rate=0.05) for _ in range(3))
    list(whole.train())
    list(islice(first.train(), 21))
    assert sum(parameter.numel() for parameter in first.log_variances.values()) < 72 + 96 + 24
    second.load_state_dict(first.state_dict())
    list(second.train())
    assert_equal_trees(second.state_dict(), whole.state_dict())


def test_digits_end_sparse_and_are_known() -> None:
    config = dataclasses.replace(
        CONFIG,
        hidden=(40,),
        epochs=40,
        batch_size=50,
        learning_rate=0.01,
        regularizer="variational_dropout",
        kl_after=2,
        kl_full=10,
    )
    own = VariationalLearner(
        table_sequence(read_table("digits", Path("nowhere"), seed=0), validation_share=0.1, seed=0), config, seed=0
    )
    connections = [[layer.nnz for layer in own.network]]
    for step in own.train():
        if step.batch + 1 == step.batches:
            connections.append([layer.nnz for layer in own.network])
    assert connections[0] == connections[3] == [64 * 40, 40 * 10]
    assert (np.diff(connections, axis=0) <= 0).all()
    assert sum(connections[-1]) < 0.5 * sum(connections[0])
    assert own.best is not None
    assert own.best.connections <= sum(connections[-2])
    score = own.evaluate(own.only_task.test)
    assert score == own.evaluate(own.only_task.test)
    assert score.accuracy is not None
    assert score.accuracy > 0.9


@pytest.mark.parametrize(
    ("options", "topology", "what"),
    [
        ({}, TopologyConfig(method="set", density=0.5), "use --topology.method dense or static, not set"),
        ({"regularizer": "none", "kl_after": 5, "kl_full": 9}, DENSE, "kl_full 9 is about learner.regularizer"),
        ({"ensemble": 3}, DENSE, "learner.ensemble 3 .* leave one out"),
        ({"kl_full": 1}, DENSE, "kl_full 1 must be above learner.kl_after 1"),
        ({"epochs": 2}, DENSE, "epoch 2 of 2: raise learner.epochs"),
    ],
)
def test_without_effect_it_is_refused(options: Any, topology: TopologyConfig, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        learner(topology, **options)
