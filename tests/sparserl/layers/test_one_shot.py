"""Networks that begin with the best of a dense one: a streamed pass against autograd of that one, and `sparsify`."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from support.classifiers import CONFIG
from support.tasks import blobs
from torch import nn

from sparserl import sparsify
from sparserl.agents import DSTD3
from sparserl.continual.strategies.strategy import Strategy
from sparserl.continual.supervised.learner import SupervisedLearner
from sparserl.continual.supervised.tasks import Batch
from sparserl.errors import ConfigError, TopologyError
from sparserl.kernels.flops import FlopCounter, counting
from sparserl.layers import SparseLinear, SparseMLP
from sparserl.layers.one_shot import JudgingBatch
from sparserl.seeding import stream
from sparserl.topology import block_scores
from sparserl.topology.config import TopologyConfig
from sparserl.topology.one_shot import ONE_SHOT, StreamedWeights

SIZES = (5, 8, 6, 3)
X = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 0, 1, 2, 0])
JUDGING = JudgingBatch(X, lambda outputs: nn.functional.cross_entropy(outputs, Y))


def dense(activation: type[nn.Module], **options: Any) -> nn.Sequential:
    """The dense network that a sparse one named `net` is the best of."""
    parts: list[nn.Module] = []
    for index, (n_in, n_out) in enumerate(pairwise(SIZES)):
        layer, weights = nn.Linear(n_in, n_out), StreamedWeights(n_out, n_in, 3, f"net.{index}")
        layer.weight.data = torch.from_numpy(np.concatenate([block for _, block in weights.blocks()]))
        layer.bias.data = torch.from_numpy(weights.biases())
        parts += [layer, activation(**options)]
    return nn.Sequential(*parts[:-1])


def scores_of(model: nn.Sequential, kind: str) -> list[torch.Tensor]:
    """Scores of all weights by autograd of the dense network."""
    weights = [layer.weight for layer in model if isinstance(layer, nn.Linear)]
    gradients = torch.autograd.grad(JUDGING.loss(model(X)), weights, create_graph=True)
    if kind == "snip":
        return [(weight * gradient).abs() for weight, gradient in zip(weights, gradients, strict=True)]
    squared = sum((gradient * gradient.detach()).sum() for gradient in gradients)
    return [weight * one for weight, one in zip(weights, torch.autograd.grad(squared, weights), strict=True)]  # type: ignore[arg-type]


def network(topology: TopologyConfig, activation: str = "relu", judging: JudgingBatch | None = JUDGING) -> SparseMLP:
    return SparseMLP.random(SIZES, topology=topology, seed=3, name="net", activation=activation, judging=judging)


@pytest.mark.parametrize("entries", [4, 1 << 20])
@pytest.mark.parametrize(("activation", "kind_of"), [(nn.ReLU, "relu"), (nn.Tanh, "tanh"), (nn.Sigmoid, "sigmoid")])
@pytest.mark.parametrize("method", ["snip", "grasp"])
def test_the_best_of_all_layers_begin(
    method: str, activation: type[nn.Module], kind_of: str, entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block_scores, "ROW_BLOCK", entries)
    model = dense(activation)
    scores = torch.cat([score.flatten() for score in scores_of(model, method)])
    count = round(0.3 * scores.numel() + 0.5)
    best = torch.zeros(scores.numel(), dtype=torch.bool)
    best[scores.argsort(descending=True)[:count]] = True
    expected = best.split([40, 48, 18])
    made = network(TopologyConfig(method=method, density=0.3), kind_of)
    for layer, mask, twin in zip(made, expected, (one for one in model if isinstance(one, nn.Linear)), strict=True):
        assert isinstance(layer, SparseLinear)
        assert layer.topology.flat.tolist() == mask.nonzero().flatten().tolist()
        assert torch.equal(layer.values, twin.weight.flatten()[mask])
        assert torch.equal(layer.bias, twin.bias)  # type: ignore[arg-type]


def test_layers_of_own_densities_keep_their_best() -> None:
    made = network(TopologyConfig(method="snip", density=(0.5, 0.25, 1.0)))
    for layer, score, count in zip(made, scores_of(dense(nn.ReLU), "snip")[:2], (20, 12), strict=False):
        assert layer.topology.flat.tolist() == score.flatten().argsort(descending=True)[:count].sort()[0].tolist()
    assert isinstance(made[2], nn.Linear)


def test_ratios_alone_are_kept() -> None:
    by_score = network(TopologyConfig(method="snip", density=0.3))
    at_random = network(
        TopologyConfig(method="static", output_layer="sparse", density=0.3, initial_topology="snip_ratios")
    )
    assert [layer.nnz for layer in at_random] == [layer.nnz for layer in by_score]
    assert at_random[0].topology.flat.tolist() != by_score[0].topology.flat.tolist()


def test_the_largest_weights_need_no_batch() -> None:
    made = network(TopologyConfig(method="static", density=(0.5, 0.5), initial_topology="largest"), judging=None)
    weight = dense(nn.ReLU)[0].weight.flatten()
    assert made[0].topology.flat.tolist() == weight.abs().argsort(descending=True)[:20].sort()[0].tolist()
    assert isinstance(made[2], nn.Linear)
    assert torch.equal(made[2].weight, dense(nn.ReLU)[4].weight)  # type: ignore[arg-type]
    with pytest.raises(TopologyError, match="there is none when these networks begin: take largest"):
        network(TopologyConfig(method="snip"), judging=None)


def test_nothing_is_chosen_where_all_is_dense() -> None:
    topology = TopologyConfig(method="static", density=(1.0, 1.0), initial_topology="largest")
    assert all(isinstance(layer, nn.Linear) for layer in network(topology, judging=None))
    model = dense(nn.ReLU)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparsify(model, optimizer, method="static", density=(1.0, 1.0), initial_topology="largest")
    assert isinstance(model[0], nn.Linear)


def test_outputs_that_share_inputs_are_judged_together() -> None:
    made = network(TopologyConfig(method="static", density=(0.5, 0.5), initial_topology="largest", pairs=2))
    sums = dense(nn.ReLU)[0].weight.abs().reshape(4, 2, 5).sum(dim=1).flatten()
    made[0].topology.check_valid()
    groups = made[0].topology.flat[made[0].topology.outputs % 2 == 0]
    assert (groups // 10 * 5 + groups % 5).tolist() == sums.argsort(descending=True)[:10].sort()[0].tolist()


def test_products_of_the_dense_network_are_counted() -> None:
    counter = FlopCounter()
    with counting(counter):
        network(TopologyConfig(method="snip", density=0.3))
    # Forward, backward to all but the first layer, gradients: 2 x 7 samples a weight each.
    assert counter.total == 14 * (106 + 66 + 106)


def test_sparsify_judges_the_weights_that_a_model_has() -> None:
    model = dense(nn.ReLU)
    scores = torch.cat([score.flatten() for score in scores_of(model, "grasp")])
    before = [layer.weight.detach().flatten().clone() for layer in model if isinstance(layer, nn.Linear)]
    best = torch.zeros(106, dtype=torch.bool)
    best[scores.argsort(descending=True)[:22]] = True
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparsify(model, optimizer, density=0.2, method="grasp", loss=lambda: JUDGING.loss(model(X)))
    for layer, mask, weight in zip(model[::2], best.split([40, 48, 18]), before, strict=True):
        assert layer.topology.flat.tolist() == mask.nonzero().flatten().tolist()
        assert torch.equal(layer.values, weight[mask])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "snip"}, "give loss, which returns it"),
        ({"method": "set", "loss": lambda: torch.ones(())}, "loss has no effect: initial_topology 'random'"),
    ],
)
def test_a_loss_that_is_missing_or_of_no_use_is_refused(options: dict[str, Any], message: str) -> None:
    model = dense(nn.ReLU)
    with pytest.raises((ConfigError, TopologyError), match=message):
        sparsify(model, torch.optim.SGD(model.parameters(), 0.1), **options)
    assert isinstance(model[0], nn.Linear)


def test_a_layer_without_a_part_in_the_loss_is_refused() -> None:
    model = dense(nn.ReLU)
    with pytest.raises(TopologyError, match="layer '2' has no part in the loss that is to judge it; exclude it"):
        sparsify(model, torch.optim.SGD(model.parameters(), 0.1), method="snip", loss=lambda: model[0](X).sum())


@pytest.mark.parametrize("method", ["snip", "grasp"])
def test_a_classifier_is_judged_by_its_first_batch(method: str) -> None:
    sequence, topology = blobs("class"), TopologyConfig(method=method, density=0.4)  # type: ignore[arg-type]
    learner = SupervisedLearner(sequence, Strategy(), CONFIG, topology, seed=0)
    order = stream(0, "batches", "0", "0").permutation(len(sequence.tasks[0].train))[:16]
    batch = Batch.of(0, sequence.tasks[0].train, order)
    judging = JudgingBatch(batch.x, lambda y: nn.functional.cross_entropy(y + learner.closed(batch), batch.y))
    sizes = [sequence.n_features, 7, sequence.n_outputs]
    expected = SparseMLP.random(sizes, topology=topology, seed=0, name="network", judging=judging)
    for layer, twin in zip(learner.network, expected, strict=True):
        assert layer.topology.flat.tolist() == twin.topology.flat.tolist()
        assert torch.equal(layer.values, twin.values)
    assert next(iter(learner.train())).loss > 0.0


def test_an_agent_has_no_batch_when_it_begins() -> None:
    with pytest.raises(TopologyError, match="an agent has none when its networks begin: use largest"):
        DSTD3("MlpPolicy", "Pendulum-v1", topology={"method": "snip"})
    agent = DSTD3("MlpPolicy", "Pendulum-v1", topology={"method": "rigl", "initial_topology": "largest"}, seed=0)
    values = agent.actor.mu[1].values.abs()
    assert values.min() > 0.5 * values.max()  # of 256 x 256 weights uniform around 0 the largest half


def test_every_row_is_known() -> None:
    for name in ONE_SHOT:
        assert TopologyConfig(method="static", initial_topology=name).part("initial_topology") == name  # type: ignore[arg-type]
