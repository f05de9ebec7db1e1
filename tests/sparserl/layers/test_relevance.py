"""Relevance of neurons: worked by hand, by autograd of a gate, and recycling of those that hardly matter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from stable_baselines3.common.logger import Logger
from support.envs import FunctionEnv
from support.recycling import sparse
from torch import nn

from sparserl.agents import DSSAC, DSTD3
from sparserl.errors import ConfigError, TopologyError
from sparserl.layers import SparseMLP
from sparserl.layers.activity import hidden_relevance
from sparserl.layers.recycle import Recycler
from sparserl.topology.config import TopologyConfig


def test_the_vector_of_the_paper() -> None:
    # catalogue.md 4: activities .5 and 1, weights 2 and -1, output 0 where 1 is wanted, error |t - o|: 1 and -1.
    mlp = SparseMLP([sparse(2, 2, [0, 3], bias=False), sparse(1, 2, [0, 1], bias=False)])
    mlp[0].values.data, mlp[1].values.data = torch.tensor([0.5, 1.0]), torch.tensor([2.0, -1.0])
    output = mlp(torch.ones(1, 2))
    (1.0 - output).abs().sum().backward()
    assert output.item() == 0.0
    (relevance,) = hidden_relevance(mlp)
    assert relevance.tolist() == [1.0, -1.0]
    # Exactly the changes of the error: without the first the output is -1, without the second 1.


def test_it_is_the_derivative_by_a_gate() -> None:
    mlp = SparseMLP.random([5, 8, 6, 2], [0.6, 1.0, 0.5], seed=0, name="net", activation="tanh")
    x = torch.randn(9, 5, generator=torch.Generator().manual_seed(0))
    mlp(x).pow(2).mean().backward()
    for level, relevance in enumerate(hidden_relevance(mlp)):
        gate = torch.ones(mlp[level].bias.numel(), requires_grad=True)
        h = x
        for index, (layer, function) in enumerate(zip(mlp, mlp.functions, strict=True)):
            h = function(layer(h))
            h = h * gate if index == level else h
        (gradient,) = torch.autograd.grad(h.pow(2).mean(), gate)
        np.testing.assert_allclose(relevance, -gradient.numpy(), rtol=1e-4, atol=1e-7)


def test_neurons_that_hardly_matter_start_anew() -> None:
    mlp = SparseMLP([nn.Linear(2, 3), nn.Linear(3, 1)])
    mlp[0].bias.data = torch.tensor([1.0, 1.0, 1.0])
    mlp[0].weight.data.zero_()
    mlp[1].weight.data = torch.tensor([[1.0, 0.001, -1.0]])  # all are as active, and the second hardly matters
    optimizer = torch.optim.SGD(mlp.parameters(), 0.1)
    recycler = Recycler({"net": (mlp, optimizer)}, interval=1, threshold=0.1, seed=0, by="relevance")
    inputs = {"net": torch.ones(4, 2)}
    with pytest.raises(TopologyError, match="needs gradients of the weights"):
        recycler.recycle_if_due(1, inputs)
    mlp(inputs["net"]).sum().backward()
    assert recycler.recycle_if_due(1, inputs) == {"net.0": 1}
    assert mlp[1].weight.tolist() == [[1.0, 0.0, -1.0]]
    assert mlp[0].bias.tolist() == [1.0, 0.0, 1.0]
    with pytest.raises(TopologyError, match="did you mean 'relevance'"):
        Recycler({"net": (mlp, optimizer)}, interval=1, threshold=0.1, seed=0, by="relevanc")


@pytest.mark.parametrize("agent", [DSTD3, DSSAC])
def test_an_agent_forms_the_gradients_of_its_networks(agent: type[DSTD3 | DSSAC]) -> None:
    topology = {"method": "set", "recycle_interval": 3, "recycle_threshold": 0.3, "recycle_by": "relevance"}
    options = {"learning_starts": 1000, "batch_size": 16, "policy_kwargs": {"net_arch": [24, 24]}, "seed": 0}
    made = agent("MlpPolicy", FunctionEnv(), topology=topology, **options)
    made.set_logger(Logger(None, []))
    made.learn(40)
    made.train(2, 16)
    assert made.recycler is not None
    assert not any(made.recycler.recycled_total.values())
    made.train(4, 16)
    assert sum(made.recycler.recycled_total.values())


def test_a_score_that_recycles_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"recycle_by relevance recycles nothing: set topology\.recycle_interval"):
        TopologyConfig(recycle_by="relevance")
    with pytest.raises(ConfigError, match="did you mean 'dormant'"):
        TopologyConfig(recycle_by="dorman", recycle_interval=3)  # type: ignore[arg-type]
