"""Pulls at weights beside the optimizer's steps: DeepR's L1 and noise, for every kind of learner."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from support.layers import one_layer, random_layer, sparse, weights
from support.tasks import blobs
from torch import nn

from sparserl import sparsify
from sparserl.continual.strategies import MethodOptions, make_strategy
from sparserl.continual.supervised.learner import SupervisedLearner
from sparserl.continual.supervised.learner_config import LearnerConfig
from sparserl.errors import ConfigError, TopologyError
from sparserl.layers import SparseLinear
from sparserl.topology.config import TopologyConfig
from sparserl.topology.evolver import TopologyEvolver
from sparserl.topology.methods import METHODS
from sparserl.topology.rewire import RewireRule

DEEPR: dict[str, Any] = {"drop": "sign_change", "grow": "random", "drop_fraction": 0.3, "update_interval": 1}


def with_optimizer(
    layer: SparseLinear, rule: RewireRule, lr: float = 0.1, **kwargs: Any
) -> tuple[TopologyEvolver, torch.optim.Optimizer]:
    evolver, optimizer = one_layer(layer, rule, **kwargs), torch.optim.SGD([layer.values], lr)
    evolver.set_optimizer("net.0", lambda: optimizer)
    return evolver, optimizer


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_reference_step(sign: float) -> None:
    # catalogue.md 2.1: theta (.5, .02, .3), s g (1, 1, -2), lr .1, L1 .1, no noise -> (.39, -.09, .49).
    layer = sparse(1, 6, [0, 1, 2], [0.5, sign * 0.02, 0.3])
    evolver, optimizer = with_optimizer(layer, RewireRule(**DEEPR, weight_l1=0.1), new_value="tiny")
    evolver.begin_update(1)
    layer.values.grad = torch.tensor([1.0, sign, -2.0])
    optimizer.step()
    evolver.after_step("net")
    np.testing.assert_allclose(layer.values.detach(), [0.39, -sign * 0.09, 0.49], rtol=1e-6)
    (event,) = evolver.end_update("net")
    assert (event.dropped, event.grown) == (1, 1)
    now = weights(layer)
    assert now[0] == pytest.approx(0.39)
    assert now[2] == pytest.approx(0.49)
    assert sorted(map(abs, now.values()))[0] == pytest.approx(1e-12)


def test_a_weight_on_its_way_out_is_pulled_further_until_the_event() -> None:
    """The sign that counts is the one after the last event; without one to remember, it is the present one."""
    for drop, expected in (("sign_change", -0.02), ("weight_magnitude", 0.0)):
        layer = sparse(1, 6, [0], [0.01])
        rule = RewireRule(drop, "random", 0.3, first_update=9, weight_l1=0.1)
        evolver, _ = with_optimizer(layer, rule)
        for update in (1, 2, 3):
            evolver.begin_update(update)
            evolver.after_step("net")
            evolver.end_update("net")
        assert layer.values.item() == pytest.approx(expected, abs=1e-7)


def test_noise_is_normal_and_of_each_layer() -> None:
    layers = {name: sparse(1, 4000, list(range(4000)), [0.0] * 4000) for name in ("net.0", "net.1")}
    evolver = TopologyEvolver({"net": layers}, RewireRule(first_update=9, weight_noise=0.5), seed=3)
    optimizer = torch.optim.SGD([layer.values for layer in layers.values()], 0.2)
    for name in layers:
        evolver.set_optimizer(name, lambda: optimizer)
    evolver.begin_update(1)
    evolver.after_step("net")
    first, second = (layer.values.detach().numpy() for layer in layers.values())
    # Standard deviation .1, of 4000: that of the mean is .0016, and of itself .0011.
    assert abs(first.mean()) < 0.008
    assert abs(first.std() - 0.1) < 0.006
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.08
    assert not np.array_equal(first, second)


def test_it_ends_with_rewiring_and_leaves_frozen_layers() -> None:
    rule = RewireRule("weight_magnitude", "random", 0.3, update_interval=2, last_update=4, weight_l1=0.1)
    layer = random_layer(0)
    evolver, _ = with_optimizer(layer, rule)
    layer.values.requires_grad_(False)
    still = layer.values.detach().clone()
    evolver.begin_update(1)
    evolver.after_step("net")
    assert torch.equal(layer.values, still)
    layer.values.requires_grad_()
    moved = []
    for update in range(1, 8):
        evolver.begin_update(update)
        before = layer.values.detach().clone()
        evolver.after_step("net")
        moved.append(not torch.equal(layer.values, before))
        evolver.end_update("net")
    assert moved == [True] * 4 + [False] * 3


def test_noise_goes_on_from_a_stored_state() -> None:
    def made() -> tuple[SparseLinear, TopologyEvolver]:
        layer = random_layer(1)
        return layer, with_optimizer(layer, RewireRule(**DEEPR, weight_l1=0.1, weight_noise=0.5))[0]

    def step(layer: SparseLinear, evolver: TopologyEvolver, update: int) -> None:
        evolver.begin_update(update)
        evolver.after_step("net")
        evolver.end_update("net")

    layer, evolver = made()
    for update in (1, 2, 3):
        step(layer, evolver, update)
    stored, of_layer = copy.deepcopy(evolver.state_dict()), copy.deepcopy(layer.state_dict())
    for update in (4, 5):
        step(layer, evolver, update)
    other, resumed = made()
    other.load_state_dict(of_layer)
    resumed.load_state_dict(stored)
    for update in (4, 5):
        step(other, resumed, update)
    assert weights(other) == weights(layer)


def test_without_an_optimizer_or_a_rate_it_is_refused() -> None:
    evolver = one_layer(random_layer(0), RewireRule(weight_l1=0.1))
    evolver.begin_update(1)
    with pytest.raises(TopologyError, match="a pull at weights needs the optimizer of layer"):
        evolver.after_step("net")
    evolver.set_optimizer("net.0", lambda: torch.optim.SGD([nn.Parameter(torch.ones(1))], 0.1))
    with pytest.raises(TopologyError, match="needs an optimizer with a learning rate for them, and this SGD has none"):
        evolver.after_step("net")


@pytest.mark.parametrize("name", ["weight_l1", "weight_noise"])
def test_ranges(name: str) -> None:
    with pytest.raises(TopologyError, match=f"{name} must not be negative or infinite, got -0.5"):
        RewireRule(**{name: -0.5})
    with pytest.raises(ConfigError, match=rf"topology.{name} must not be negative, got -0.5"):
        TopologyConfig("deepr", **{name: -0.5})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=f"never rewires and takes no {name}"):
        TopologyConfig("static", **{name: 0.5})  # type: ignore[arg-type]


def test_deepr_has_the_published_pulls() -> None:
    rule = METHODS["deepr"].rule
    assert rule is not None
    assert (rule.weight_l1, rule.weight_noise) == (1e-5, 1e-5)


# --- every kind of learner; agents are in the contracts ----------------------------------------------


def test_a_model_of_the_user_s_is_pulled_at() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 30), nn.ReLU(), nn.Linear(30, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.5)
    training = sparsify(model, optimizer, density=0.3, method="deepr", first_update=5, weight_l1=0.02, weight_noise=0.0)
    before = {name: layer.values.detach().clone() for name, layer in training.layers.items()}
    training.step()
    for name, layer in training.layers.items():
        np.testing.assert_allclose(layer.values.detach(), before[name] - 0.01 * before[name].sign(), rtol=1e-5)


def test_a_classifier_is_pulled_at() -> None:
    found = []
    for pull in (0.0, 0.5):
        topology = TopologyConfig("deepr", density=0.3, first_update=12, weight_l1=pull, weight_noise=0.0)
        config = LearnerConfig(hidden=(12,), optimizer="sgd", learning_rate=0.01)
        learner = SupervisedLearner(
            blobs(), make_strategy("naive", "classifier", MethodOptions()), config, topology, seed=0
        )
        layers = learner.evolver.layers if learner.evolver is not None else {}
        signs = {name: layer.values.detach().sign() for name, layer in layers.items()}
        next(learner.train())
        found.append({name: layer.values.detach().clone() for name, layer in layers.items()})
    for name, sign in signs.items():
        np.testing.assert_allclose(found[1][name], found[0][name] - 0.005 * sign, rtol=1e-4, atol=1e-7)
