"""The networks of an agent, dense or sparse, as chains of linear layers under the names that the sparse ones have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ContinuousCritic
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import FlattenExtractor, NatureCNN
from stable_baselines3.dqn.policies import QNetwork
from stable_baselines3.sac.policies import Actor as DenseSACActor
from stable_baselines3.td3.policies import Actor as DenseTD3Actor
from torch import nn
from torch.nn.utils import skip_init

from sparserl.agents.networks.networks import ACTIVATION_NAMES, SparseActor, SparseCritic, SparseQNetwork
from sparserl.agents.networks.on_policy import OnPolicyNetwork
from sparserl.agents.networks.sparse_cnn import SparseNatureCNN
from sparserl.agents.parts import AgentParts
from sparserl.errors import ConfigError, unknown_name
from sparserl.layers import SparseMLP

Chains = dict[str, SparseMLP]


def _sparse_actor(actor: Any) -> Chains:
    if not isinstance(actor.network, SparseMLP):
        raise ConfigError("a policy with an output layer for each task is no single chain of layers")
    return {actor.network_name: actor.network}


def _sparse_critic(critic: Any) -> Chains:
    return {f"qf{index}": network for index, network in enumerate(critic.q_networks)}


def _dense_td3_actor(actor: Any) -> Chains:
    return {"mu": _of_sequential([*actor.mu], "tanh")}


def _dense_sac_actor(actor: Any) -> Chains:
    return {"pi": _of_sequential([*actor.latent_pi, _side_by_side([actor.mu, actor.log_std])])}


def _dense_critic(critic: Any) -> Chains:
    return {f"qf{index}": _of_sequential([*network]) for index, network in enumerate(critic.q_networks)}


def _dense_q_network(network: Any) -> Chains:
    return {SparseQNetwork.network_name: _of_sequential([*network.q_net])}


def _of_sequential(modules: list[nn.Module], output_activation: str = "identity") -> SparseMLP:
    layers = [module for module in modules if isinstance(module, nn.Linear)]
    # TD3's last module is a tanh; without hidden layers there is no other, or none at all.
    activation = next((module for module in modules if not isinstance(module, nn.Linear)), nn.ReLU())
    if type(activation) not in ACTIVATION_NAMES:
        raise ConfigError(unknown_name("hidden activation", type(activation).__name__, ACTIVATION_NAMES.values()))
    return SparseMLP(layers, ACTIVATION_NAMES[type(activation)], output_activation)


@torch.no_grad()
def _side_by_side(layers: Sequence[nn.Linear]) -> nn.Linear:
    """One layer with the outputs of several that read the same; a copy, and no generator is drawn from."""
    n_out = sum(layer.out_features for layer in layers)
    joined: nn.Linear = skip_init(nn.Linear, layers[0].in_features, n_out)  # type: ignore[no-untyped-call]  # of torch
    joined.weight.copy_(torch.cat([layer.weight for layer in layers]))
    joined.bias.copy_(torch.cat([layer.bias for layer in layers]))
    return joined


def _on_policy(network: Any) -> Chains:
    if network.memory is not None:
        raise ConfigError("a policy that remembers is no single chain of layers")
    chain = network.chain
    return {network.name: chain if isinstance(chain, SparseMLP) else _of_sequential([*chain])}


CHAINS: dict[type[nn.Module], Callable[[Any], Chains]] = {
    SparseActor: _sparse_actor,
    SparseCritic: _sparse_critic,
    DenseTD3Actor: _dense_td3_actor,
    DenseSACActor: _dense_sac_actor,
    ContinuousCritic: _dense_critic,
    QNetwork: _dense_q_network,
    OnPolicyNetwork: _on_policy,
}
"""Kind of actor or critics -> its networks by name within it."""


def chains_of(network: nn.Module) -> Chains:
    """The networks of an actor or of critics, by their name in the sparse one of the kind.

    They share the weights of `network` but for a dense Gaussian policy, whose two output layers become one: a copy.

    Raises:
        ConfigError: If it is of no kind in `CHAINS`, or has an output layer for each task.
    """
    for kind, chains in CHAINS.items():
        if isinstance(network, kind):
            return chains(network)
    raise ConfigError(f"a {type(network).__name__} is no chain of linear layers")


def chains_of_agent(agent: AgentParts) -> Chains:
    """All trained networks of an agent by full name, e.g. `actor.mu`, `critic.qf0`; errors as in `chains_of`."""
    return {
        f"{group}.{name}": chain
        for group, network in agent.networks.items()
        for name, chain in chains_of(network).items()
    }


def check_reads_vectors(agent: AgentParts, what: str) -> None:
    """Raises ConfigError if networks of an agent read something made of observations.

    Args:
        agent: The agent.
        what: What cannot be done with them then, as in "looked into".
    """
    if not all(map(reads_observations_as_they_are, agent.networks.values())):
        raise ConfigError(f"networks that read vectors can be {what}, not those of {agent.observation_space}")


def check_reads_vectors_or_images(agent: AgentParts, what: str) -> None:
    """Raises ConfigError if networks of an agent read neither vectors nor images by convolutions that we know.

    Args:
        agent: The agent.
        what: What cannot be done with them then, as in "pruned".
    """
    if not all(reads_observations_as_they_are(one) or reads_images(one) for one in agent.networks.values()):
        raise ConfigError(f"networks that read vectors or images can be {what}, not those of {agent.observation_space}")


def reads_images(network: Any) -> bool:
    """Whether a network reads images, as shares of 255, through `NatureCNN` or `SparseNatureCNN`."""
    sees = network.normalize_images and is_image_space(network.observation_space)
    return bool(sees) and isinstance(network.features_extractor, NatureCNN | SparseNatureCNN)


def reads_observations_as_they_are(network: Any) -> bool:
    """Whether a network reads the entries of observations: of others it reads codes, of images shares of 255."""
    space = network.observation_space
    is_vector = isinstance(space, spaces.Box) and not (network.normalize_images and is_image_space(space))
    return is_vector and type(network.features_extractor) is FlattenExtractor
