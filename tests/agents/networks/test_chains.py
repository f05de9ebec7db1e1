"""Networks of agents as chains of layers, and agents that go on with networks of others."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from support.envs import ChoiceEnv, FunctionEnv
from torch import nn

from sparserl.agents import DSDQN, DSSAC, DSTD3
from sparserl.agents.dense import DQN, SAC, TD3
from sparserl.agents.networks.chains import chains_of, chains_of_agent
from sparserl.errors import CheckpointError, ConfigError
from sparserl.layers.pruning import pruned

SMALL: dict[str, Any] = {"policy_kwargs": {"net_arch": [7, 6]}, "buffer_size": 100, "learning_starts": 5, "seed": 0}
OBSERVATIONS = torch.from_numpy(np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32))
ACTIONS = torch.from_numpy(np.random.default_rng(1).uniform(-1, 1, (5, 2)).astype(np.float32))


def env() -> gym.Env[Any, Any]:
    return FunctionEnv(horizon=9)


def dense_or_sparse(kind: Any, **more: Any) -> Any:
    return kind("MlpPolicy", ChoiceEnv(horizon=9) if kind in (DQN, DSDQN) else env(), **copy.deepcopy(SMALL), **more)


@pytest.mark.parametrize("kind", [TD3, SAC, DSTD3, DSSAC])
def test_chains_compute_what_the_networks_do(kind: Any) -> None:
    agent = dense_or_sparse(kind)
    chains = chains_of_agent(agent)
    actor, *critics = chains
    assert actor == ("actor.mu" if kind in (TD3, DSTD3) else "actor.pi")
    assert critics == ["critic.qf0", "critic.qf1"]
    actions = chains[actor](OBSERVATIONS)[:, :2].tanh() if "pi" in actor else chains[actor](OBSERVATIONS)
    taken = agent.policy.scale_action(agent.predict(OBSERVATIONS.numpy(), deterministic=True)[0])
    np.testing.assert_allclose(actions.detach().numpy(), taken, atol=1e-6)
    for critic, values in zip(critics, agent.critic(OBSERVATIONS, ACTIONS), strict=True):
        torch.testing.assert_close(chains[critic](torch.cat([OBSERVATIONS, ACTIONS], dim=1)), values)


@pytest.mark.parametrize("kind", [DQN, DSDQN])
def test_the_chain_of_values_is_the_network(kind: Any) -> None:
    agent = dense_or_sparse(kind)
    chains = chains_of_agent(agent)
    torch.testing.assert_close(chains["q_net.q"](OBSERVATIONS), agent.q_net(OBSERVATIONS))
    assert list(chains) == ["q_net.q"]


def test_a_dense_gaussian_policy_is_one_chain_of_means_and_deviations() -> None:
    agent = dense_or_sparse(SAC)
    outputs = chains_of(agent.actor)["pi"](OBSERVATIONS)
    mean, log_std, _ = agent.actor.get_action_dist_params(OBSERVATIONS)
    torch.testing.assert_close(outputs, torch.cat([mean, log_std], dim=1))


def test_what_is_no_chain_is_refused() -> None:
    with pytest.raises(ConfigError, match="a ReLU is no chain of linear layers"):
        chains_of(nn.ReLU())


@pytest.mark.parametrize("kinds", [(TD3, DSTD3), (SAC, DSSAC), (DQN, DSDQN)])
def test_a_sparse_agent_goes_on_with_a_pruned_dense_one(kinds: tuple[Any, Any]) -> None:
    chains = chains_of_agent(dense_or_sparse(kinds[0]))
    topology = {"method": "set", "density": 0.4, "allocation": "uniform", "output_layer": "sparse"}
    agent = dense_or_sparse(kinds[1], topology=topology)
    states: dict[str, dict[str, torch.Tensor]] = {}
    smaller = {name: pruned(chain, 0.4, "lamp", name=name) for name, chain in chains.items()}
    for name, chain in smaller.items():
        group, _, own = name.partition(".")
        states.setdefault(group, {}).update(chain.state_dict(prefix=f"{own}."))
    agent.take_networks(states)
    for name, chain in chains_of_agent(agent).items():
        x = OBSERVATIONS if name.startswith(("actor", "q_net")) else torch.cat([OBSERVATIONS, ACTIONS], dim=1)
        assert torch.equal(chain(x), smaller[name](x))
    for group, target in agent.target_copies.items():
        for key, value in agent.networks[group].state_dict().items():
            assert torch.equal(target.state_dict()[key], value)
    for name, layer in agent.evolver.layers.items():
        assert np.array_equal(agent.evolver.initial[name], layer.topology.flat)
        assert agent.evolver.explored_fraction(name) == layer.topology.density
    agent.learn(60)  # events and targets follow the connections that there are
    assert agent._n_updates > 0


def test_networks_of_other_widths_are_refused() -> None:
    agent, other = dense_or_sparse(TD3), TD3("MlpPolicy", env(), policy_kwargs={"net_arch": [5]}, buffer_size=10)
    with pytest.raises(CheckpointError, match="the networks of 'actor' do not fit this agent: "):
        agent.take_networks({name: network.state_dict() for name, network in other.networks.items()})
    with pytest.raises(CheckpointError, match="the networks of 'critic' do not fit this agent: 'critic'"):
        agent.take_networks({"actor": agent.actor.state_dict()})
