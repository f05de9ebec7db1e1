"""`SparseNatureCNN` beside Stable-Baselines3's network with masks, its topologies, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import NatureCNN
from support.sb3_cases import AnySpaces
from torch import nn

from sparserl.agents import DSPPO, DSSAC, DSTD3
from sparserl.agents.networks.sparse_cnn import SparseNatureCNN
from sparserl.errors import SparserlError
from sparserl.layers import SparseLinear
from sparserl.topology.config import TopologyConfig

IMAGES = spaces.Box(0, 255, (3, 44, 36), np.uint8)
ACTIONS = spaces.Box(-1, 1, (2,))


def network(seed: int = 0, name: str = "actor.features_extractor", **topology: Any) -> SparseNatureCNN:
    config = TopologyConfig(**{"method": "set", "density": 0.1, **topology})
    return SparseNatureCNN(IMAGES, 16, topology=config, seed=seed, name=name)


def weighted(module: nn.Module) -> list[Any]:
    return [layer for layer in module.modules() if isinstance(layer, SparseLinear | nn.Linear | nn.Conv2d)]


def agent(kind: Any = DSTD3, **options: Any) -> Any:
    settings: dict[str, Any] = {"topology": {"method": "set", "density": 0.1}, "learning_starts": 10, "batch_size": 4}
    own = {"net_arch": [8], **options.pop("policy_kwargs", {})}
    return kind("CnnPolicy", AnySpaces(IMAGES), policy_kwargs=own, buffer_size=50, seed=0, **{**settings, **options})


def test_it_computes_what_masked_convolutions_compute() -> None:
    sparse, masked = network(), NatureCNN(IMAGES, 16)
    pairs = list(zip(weighted(sparse), weighted(masked), strict=True))
    for ours, theirs in pairs:
        dense = torch.zeros(ours.topology.n_out, ours.topology.n_in)
        dense.view(-1)[torch.from_numpy(ours.topology.flat)] = ours.values.detach()
        theirs.weight.data.copy_(dense.view_as(theirs.weight))
        theirs.bias.data.copy_(ours.bias.data)
    images = torch.rand(2, *IMAGES.shape)
    features, expected = sparse(images), masked(images)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)
    features.square().sum().backward()
    expected.square().sum().backward()
    for ours, theirs in pairs:
        gradient = theirs.weight.grad.flatten()[torch.from_numpy(ours.topology.flat)]
        torch.testing.assert_close(ours.values.grad, gradient, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(ours.bias.grad, theirs.bias.grad, rtol=1e-3, atol=1e-5)


def test_all_layers_share_the_density() -> None:
    layers = weighted(network())
    sizes = [(32, 192), (64, 512), (64, 576), (16, 128)]
    assert [(layer.topology.n_out, layer.topology.n_in) for layer in layers] == sizes
    assert sum(layer.nnz for layer in layers) == pytest.approx(0.1 * sum(out * n_in for out, n_in in sizes), abs=4)


def test_the_dense_method_gives_the_network_of_sb3() -> None:
    ours, theirs = network(method="dense", density=None), NatureCNN(IMAGES, 16)
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    ours.load_state_dict(theirs.state_dict())
    images = torch.rand(2, *IMAGES.shape)
    assert torch.equal(ours(images), theirs(images))


@pytest.mark.parametrize("method", ["set", "rigl", "ctre", "gmp", "top_kast"])
def test_its_layers_evolve_with_the_others(method: str) -> None:
    rules = {"method": method, "density": 0.1, "update_interval": 4}
    made = agent(DSSAC, topology=rules)
    made.learn(40)
    changed = {event.layer for event in made.evolver.events if event.kind != "initial"}
    for group in made.trained:
        assert {name for name in changed if name.startswith(f"{group}.features_extractor.")} == {
            f"{group}.features_extractor.{own}" for own in ("cnn.0.kernel", "cnn.2.kernel", "cnn.4.kernel", "linear.0")
        }
    assert all(torch.isfinite(parameter).all() for parameter in made.policy.parameters())


def test_actor_and_critics_read_images_by_topologies_of_their_own() -> None:
    made = agent(topology={"method": "set", "density": 0.1, "critic_density": 0.3})
    of_actor, of_critic = (weighted(made.networks[group].features_extractor) for group in made.trained)
    shares = [
        sum(layer.nnz for layer in layers) / sum(layer.topology.size for layer in layers)
        for layers in (of_actor, of_critic)
    ]
    assert shares == pytest.approx([0.1, 0.3], abs=0.01)
    alike = agent()
    of_actor, of_critic = (weighted(alike.networks[group].features_extractor) for group in alike.trained)
    assert not any(torch.equal(ours.col, theirs.col) for ours, theirs in zip(of_actor, of_critic, strict=True))


@pytest.mark.parametrize("shared", [True, False])
def test_on_policy_agents_too(shared: bool) -> None:
    own = {"net_arch": [8], "share_features_extractor": shared, "features_extractor_kwargs": {"features_dim": 16}}
    rules = {"method": "rigl", "density": 0.2, "update_interval": 3}
    made = DSPPO(
        "CnnPolicy", AnySpaces(IMAGES), n_steps=16, batch_size=8, n_epochs=3, policy_kwargs=own, topology=rules
    )
    names = ["pi_features_extractor", "vf_features_extractor"]
    first, second = (weighted(getattr(made.policy, name))[1].col for name in names)
    assert torch.equal(first, second) == shared
    made.learn(64)
    groups = {name.partition(".")[0] for name in made.evolver.layers if "features_extractor" in name}
    assert groups == ({"actor"} if shared else {"actor", "critic"})
    assert {event.layer for event in made.evolver.events if event.kind != "initial"} == set(made.evolver.layers)


REFUSED = {
    "densities": (lambda: agent(topology={"method": "set", "density": [0.2]}), r"topology.density \[0.2\] is layer by"),
    "epsilons": (
        lambda: agent(topology={"method": "set", "epsilon": [9.0]}),
        r"topology.epsilon \[9.0\] is layer by layer",
    ),
    "scores": (
        lambda: agent(topology={"method": "set", "initial_topology": "largest"}),
        "largest is for networks that",
    ),
    "shared": (
        lambda: agent(policy_kwargs={"share_features_extractor": True}),
        "share_features_extractor has no sparse",
    ),
    "vectors": (lambda: DSTD3("CnnPolicy", "Pendulum-v1"), "CnnPolicy reads images, not Box"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_in_one_line(name: str) -> None:
    attempt, message = REFUSED[name]
    with pytest.raises(SparserlError, match=message) as refusal:
        attempt()
    assert "\n" not in str(refusal.value)


def test_a_dense_extractor_may_be_shared() -> None:
    own = {"features_extractor_class": NatureCNN, "share_features_extractor": True}
    made = agent(policy_kwargs=own).learn(15)
    assert made.actor.features_extractor is made.critic.features_extractor
