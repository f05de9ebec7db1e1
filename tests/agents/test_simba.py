"""Agents whose networks are residual blocks that read normalised observations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.envs import ChoiceEnv, FunctionEnv
from support.trees import assert_equal_trees, differences

from sparserl.agents import DSDQN, DSSAC, DSTD3
from sparserl.agents.agent_state import agent_state, restore_agent
from sparserl.agents.critics_config import SACConfig, TD3Config
from sparserl.agents.dqn_config import DQNConfig
from sparserl.agents.networks.heads import TaskHeads
from sparserl.agents.networks.traced_forward import traced_forward
from sparserl.agents.table import AGENTS, make_agent
from sparserl.errors import CheckpointError, ConfigError, TopologyError
from sparserl.kernels import use_backend
from sparserl.layers.residual import ResidualMLP
from sparserl.recording import checkpoint
from sparserl.topology.config import TopologyConfig

SIZES: dict[str, Any] = {"learning_starts": 20, "batch_size": 16, "buffer_size": 500}
SIZES |= {"network": "simba", "weight_decay": 0.01, "decoupled_weight_decay": True}
OF_VALUES: dict[str, Any] = {**SIZES, "q_width": 8}
SIZES |= {"actor_width": 8, "critic_width": 12}


def make(algo: str = "ds_sac", seed: int = 0, *, method: str = "rigl", **changes: Any) -> Any:
    moves = method not in ("static", "dense")
    rule: dict[str, Any] = {"update_interval": 7, "last_update": 60} if moves else {}
    topology = TopologyConfig(method=method, **({} if method == "dense" else {"density": 0.3}), **rule)
    sizes, env = (OF_VALUES, ChoiceEnv(horizon=9)) if algo == "ds_dqn" else (SIZES, FunctionEnv(horizon=9))
    return make_agent(algo, AGENTS[algo].config(**sizes | changes), topology, env, seed=seed)


@pytest.mark.parametrize("algo", ["ds_sac", "ds_td3", "ds_tqc"])
def test_actor_and_critics_have_their_sizes(algo: str) -> None:
    agent = make(algo)
    assert [len(one) for one in (agent.actor.network, agent.critic.qf0, agent.critic.qf1)] == [4, 6, 6]
    assert all(type(one) is ResidualMLP for one in (agent.actor.network, *agent.critic.q_networks))
    assert agent.actor.network[1].n_out == 32
    assert agent.critic.ensembles["forward"].joined is not None
    # One module normalises in all networks, of targets too.
    before = [network[0].before for network in (agent.actor.network, *agent.critic.q_networks, agent.critic_target.qf0)]
    assert all(one is agent.policy.running for one in before)


def test_values_of_actions_have_their_sizes() -> None:
    agent = make("ds_dqn")
    assert [type(one.q) for one in (agent.q_net, agent.q_net_target)] == [ResidualMLP] * 2
    assert (len(agent.q_net.q), agent.q_net.q[1].n_out) == (6, 32)
    assert agent.q_net.q[0].before is agent.q_net_target.q[0].before is agent.policy.running
    assert DSDQN.layer_widths(DQNConfig(**OF_VALUES), 3, 2) == {"q_net": [[3, 8, 32, 8, 32, 8, 2]]}


def test_widths_are_known_before_there_is_an_agent() -> None:
    config = SACConfig(**SIZES)
    widths = DSSAC.layer_widths(config, 3, 2)
    assert widths["actor"] == [[3, 8, 32, 8, 2]]
    assert widths["critic"] == [[5, 12, 48, 12, 48, 12, 1]] * 2


@pytest.mark.parametrize("algo", ["ds_sac", "ds_td3", "ds_dqn"])
def test_observations_that_it_acted_on_enter_the_statistics_and_no_others(algo: str) -> None:
    agent = make(algo)
    seen: list[np.ndarray] = []
    observe = agent.policy.observe
    agent.policy.observe = lambda observations: (seen.append(observations.copy()), observe(observations))
    agent.learn(45)
    rows = np.concatenate(seen)
    assert rows.shape == (45, 3)
    running = agent.policy.running
    np.testing.assert_allclose(running.mean, rows.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(running.var, rows.var(axis=0), rtol=1e-4)
    before = running.mean.clone()
    agent.predict(np.full(3, 100.0), deterministic=True)
    assert torch.equal(running.mean, before)


@pytest.mark.parametrize("method", ["rigl", "static"])
def test_kernels_form_the_gradients_of_the_reference(method: str) -> None:
    agent = make(method=method).learn(40)
    rows = np.arange(20)
    gradients = []
    for backend in ("cpu", "reference"):
        torch.manual_seed(3)
        with use_backend(backend):
            agent.form_gradients("critic", agent.transitions(rows))
            agent.form_gradients("actor", agent.transitions(rows))
        parameters = [*agent.actor.parameters(), *agent.critic.parameters()]
        gradients.append([one.grad.clone() for one in parameters])
    assert all(one.any() for one in gradients[0][:4])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_kernels_form_the_gradients_of_the_reference_for_values_of_actions() -> None:
    agent = make("ds_dqn").learn(40)
    gradients = []
    for backend in ("cpu", "reference"):
        with use_backend(backend):
            agent.form_gradients("q_net", agent.transitions(np.arange(20)))
        gradients.append([one.grad.clone() for one in agent.q_net.parameters()])
    assert all(one.any() for one in gradients[0])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_dense_networks_learn_as_torch_computes_them() -> None:
    agent = make(method="dense", critic_width=64).learn(40)  # a block of 64 x 256 is torch's
    assert agent.critic.ensembles["forward"].joined is None
    assert agent.updates == 20
    observations, actions = np.float32(np.random.default_rng(0).normal(size=(2, 5, 3)))
    by_torch = agent.critic(torch.from_numpy(observations), torch.from_numpy(actions[:, :2]))
    traced = traced_forward(agent.critic, "forward", observations, np.ascontiguousarray(actions[:, :2]))
    torch.testing.assert_close(torch.from_numpy(np.asarray(traced.outputs)), torch.stack(by_torch))


@pytest.mark.parametrize("algo", ["ds_sac", "ds_td3", "ds_dqn"])
def test_a_resumed_agent_equals_one_that_went_on(algo: str, tmp_path: Path) -> None:
    agent = make(algo).learn(40)
    checkpoint.save(tmp_path / "state", agent_state(agent))
    other = make(algo, seed=5).learn(25)
    assert differences(agent_state(other), agent_state(agent))
    restore_agent(other, checkpoint.load(tmp_path / "state"))
    assert_equal_trees(agent_state(other), agent_state(agent))
    observations = np.random.default_rng(0).normal(size=(4, 3))
    ours, theirs = (one.predict(observations, deterministic=True)[0] for one in (other, agent))
    assert np.array_equal(ours, theirs)
    assert torch.equal(other.policy.running.scale, agent.policy.running.scale)


def test_target_norms_follow() -> None:
    agent = make("ds_td3", tau=1.0, policy_delay=1).learn(40)
    for network, target in ((agent.critic, agent.critic_target), (agent.actor, agent.actor_target)):
        for one, copied in zip(network.parameters(), target.parameters(), strict=True):
            assert torch.equal(one, copied)
    assert agent.critic.qf0[1].before.weight.std() > 0


def test_weight_decay_is_past_the_gradients() -> None:
    agent = make(method="static", weight_decay=0.5, learning_rate=0.1)
    assert agent.critic.optimizer.param_groups[0]["decoupled_weight_decay"] is True
    values = agent.critic.qf0[1].values
    for parameter in agent.critic.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = values.detach().clone()
    agent.critic.optimizer.step()
    torch.testing.assert_close(values.detach(), 0.95 * before)


def test_statistics_of_another_space_are_refused(tmp_path: Path) -> None:
    state = agent_state(make().learn(30))
    for name in [one for one in state["modules"]["policy"] if one.endswith("before.mean")]:
        state["modules"]["policy"][name] = torch.zeros(4, dtype=torch.float64)
    with pytest.raises(CheckpointError, match="'policy' does not fit this agent"):
        restore_agent(make(), state)


def test_what_it_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no output layer for each task"):
        make_agent(
            "ds_sac", SACConfig(**SIZES), TopologyConfig(method="static"), FunctionEnv(), seed=0, heads=TaskHeads(1)
        )
    with pytest.raises(ConfigError, match="blocks of one width, each with a ReLU"):
        DSTD3("MlpPolicy", FunctionEnv(), policy_kwargs={"network": "simba", "net_arch": {"pi": [8], "qf": [8, 9]}})
    with pytest.raises(ConfigError, match="each with a ReLU"):
        DSTD3("MlpPolicy", FunctionEnv(), policy_kwargs={"network": "simba", "activation_fn": torch.nn.Tanh})
    with pytest.raises(ConfigError, match="unknown network 'simbaa'; did you mean 'simba'"):
        DSSAC("MlpPolicy", FunctionEnv(), policy_kwargs={"network": "simbaa"})
    with pytest.raises(ConfigError, match="network simba reads vectors of floats, not Discrete"):
        DSDQN("MlpPolicy", "FrozenLake-v1", policy_kwargs={"network": "simba"})
    topology = TopologyConfig(method="static", recycle_interval=10)
    with pytest.raises(TopologyError, match="residual blocks, whose neurons are not recycled"):
        make_agent("ds_sac", SACConfig(**SIZES), topology, FunctionEnv(), seed=0)
    with pytest.raises(ConfigError, match="simba has widths and blocks"):
        TD3Config(network="simba", net_arch=(8,))


def test_a_learned_temperature_begins_where_it_is_told() -> None:
    assert make(initial_ent_coef=0.01).log_ent_coef.exp().item() == pytest.approx(0.01)
