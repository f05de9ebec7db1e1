"""What optimizers gather of weights: where it begins for connections that grow, and who gathers a momentum."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from torch import nn

from sparserl import sparsify
from sparserl.errors import TopologyError
from sparserl.layers import SparseLinear

BEGINNINGS: dict[str, tuple[Any, str, Callable[[SparseLinear], Any]]] = {
    "rprop": (partial(torch.optim.Rprop, lr=0.02), "step_size", lambda layer: 0.02),
    "adagrad": (partial(torch.optim.Adagrad, initial_accumulator_value=0.7), "sum", lambda layer: 0.7),
    "asgd": (partial(torch.optim.ASGD, t0=0), "ax", lambda layer: layer.values.detach()),
    "rmsprop of tensorflow": (RMSpropTFLike, "square_avg", lambda layer: 1.0),
    "rmsprop": (torch.optim.RMSprop, "square_avg", lambda layer: 0.0),
}


@pytest.mark.parametrize("name", BEGINNINGS)
def test_what_grows_begins_as_the_optimizer_begins_a_weight(name: str) -> None:
    kind, key, expected = BEGINNINGS[name]
    model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = kind(model.parameters())
    training = sparsify(model, optimizer, density=0.3, update_interval=4, first_update=4, new_value="uniform")
    before = {name: layer.topology for name, layer in training.layers.items()}
    for _ in range(4):
        optimizer.zero_grad()
        model(torch.ones(3, 12)).square().sum().backward()
        optimizer.step()
        training.step()
    for name, layer in training.layers.items():
        grown = ~np.isin(layer.topology.flat, before[name].flat)
        assert grown.any()
        state = optimizer.state[layer.values][key][grown]
        begun = torch.as_tensor(expected(layer)).expand(layer.nnz)[grown]
        torch.testing.assert_close(state, begun.to(state.dtype))


GATHER: dict[str, tuple[Any, bool]] = {
    "adam": (torch.optim.Adam, True),
    "nadam": (torch.optim.NAdam, True),
    "sgd with momentum": (partial(torch.optim.SGD, lr=0.1, momentum=0.9), True),
    "rmsprop with momentum": (partial(torch.optim.RMSprop, momentum=0.9), True),
    "sgd": (partial(torch.optim.SGD, lr=0.1), False),
    "rmsprop": (torch.optim.RMSprop, False),
    "adagrad": (torch.optim.Adagrad, False),
    "adamax": (torch.optim.Adamax, False),
}


@pytest.mark.parametrize("name", GATHER)
def test_momentum_is_asked_for_before_training(name: str) -> None:
    kind, gathers = GATHER[name]
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2))
    before = [parameter.clone() for parameter in model.parameters()]
    options = {"method": "snfs", "density": 0.5, "first_update": 1, "update_interval": 2, "last_update": 9}
    if not gathers:
        with pytest.raises(TopologyError, match="needs an optimizer that gathers one"):
            sparsify(model, kind(model.parameters()), **options)
        assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))
        return
    optimizer = kind(model.parameters())
    evolver = sparsify(model, optimizer, **options)
    for _ in range(4):
        optimizer.zero_grad()
        model(torch.ones(3, 6)).square().sum().backward()
        optimizer.step()
        evolver.step()
    assert evolver.events
