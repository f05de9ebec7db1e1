"""What each option does to an agent at a border, and that nothing else is touched."""

from __future__ import annotations

import copy
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch
from support.rl_learners import DENSE, REWIRING, learn_tasks, make_learner, parameters_of
from support.trees import assert_equal_trees, differences
from torch import nn

from sparserl.agents import DSTD3
from sparserl.agents.agent_state import agent_state
from sparserl.continual.rl.borders import AT_A_BORDER, BorderConfig, cross_border, redraw
from sparserl.layers import SparseLinear, SparseMLP
from sparserl.topology.config import TopologyConfig

EVERYTHING_STAYS = {"buffer": "kept", "optimizer": "kept", "critic": "kept", "temperature": "kept"}


def trained_agent(**changes: Any) -> Any:
    """After the 20 steps and 10 updates of a task."""
    learner = make_learner(steps=(20, 20), **changes)
    learn_tasks(learner, 1)
    return learner.agent


def state_of(agent: Any) -> dict[str, Any]:
    buffer = agent.replay_buffer
    return copy.deepcopy({**agent_state(agent), "buffer": [buffer.pos, buffer.full, buffer.observations]})


def cross(agent: Any, **changes: str) -> None:
    cross_border(agent, BorderConfig(**{**EVERYTHING_STAYS, **changes}))


def test_the_defaults_are_those_of_continual_world() -> None:
    assert vars(BorderConfig()) == {
        "buffer": "emptied",
        "optimizer": "reset",
        "critic": "kept",
        "exploration": "random",
        "temperature": "reset",
        "heads": "task",
        "task_id": "hidden",
    }


def test_what_happens_is_an_option_and_its_value() -> None:
    values = {name: get_args(kind) for name, kind in get_type_hints(BorderConfig).items()}
    assert all(value in values[option] for option, value in AT_A_BORDER)


@pytest.mark.parametrize(
    ("heads", "task_id", "appended"),
    [("task", "hidden", True), ("task", "visible", True), ("shared", "visible", True), ("shared", "hidden", False)],
)
def test_an_id_is_appended_for_heads_or_to_be_read(heads: Any, task_id: Any, appended: bool) -> None:
    assert BorderConfig(heads=heads, task_id=task_id).appends_id is appended


# --- one option at a time -----------------------------------------------------------------------------


@pytest.mark.parametrize("algo", ["ds_sac", "ds_td3"])
def test_where_everything_stays_only_gradients_are_forgotten(algo: str) -> None:
    agent = trained_agent(**({} if algo == "ds_sac" else {"algo": DSTD3}))
    before = state_of(agent)
    assert any(parameter.grad is not None for parameter in agent.actor.parameters())
    cross(agent)
    assert_equal_trees(state_of(agent), before)
    for network in (agent.actor, agent.critic):
        assert all(parameter.grad is None for parameter in network.parameters())


def changed(agent: Any, **option: str) -> set[str]:
    """Parts of the agent's state that an option changes."""
    before = state_of(agent)
    cross(agent, **option)
    parts = (line.partition(": ")[0].split("/")[1:3] for line in differences(before, state_of(agent)))
    return {"/".join(part) if part[0] == "modules" else part[0] for part in parts}


def test_an_emptied_buffer() -> None:
    agent = trained_agent()
    assert agent.replay_buffer.size() == 20
    assert changed(agent, buffer="emptied") == {"buffer"}
    assert agent.replay_buffer.size() == 0


def test_a_full_buffer_is_emptied_too() -> None:
    agent = trained_agent(buffer_size=15)
    assert agent.replay_buffer.full
    cross(agent, buffer="emptied")
    assert agent.replay_buffer.size() == 0


OPTIMIZERS = {"actor.optimizer", "critic.optimizer"}


@pytest.mark.parametrize(
    ("algo", "optimizers"),
    [("ds_sac", {*OPTIMIZERS, "ent_coef_optimizer"}), ("ds_td3", OPTIMIZERS)],
)
def test_optimizers_start_anew(algo: str, optimizers: set[str]) -> None:
    agent = trained_agent(**({} if algo == "ds_sac" else {"algo": DSTD3}))
    assert changed(agent, optimizer="reset") == {f"modules/{name}" for name in optimizers}
    modules = agent_state(agent)["modules"]
    assert all(modules[name]["state"] == {} for name in optimizers)
    agent.train(2, 8)  # and go on from nothing
    steps = {float(own["step"]) for own in agent_state(agent)["modules"]["critic.optimizer"]["state"].values()}
    assert steps == {2.0}


@pytest.mark.parametrize(("ent_coef", "first"), [("auto", 1.0), ("auto_0.25", 0.25)])
def test_a_learned_temperature_starts_anew(ent_coef: str, first: float) -> None:
    agent = trained_agent(ent_coef=ent_coef)
    assert agent.log_ent_coef.exp().item() != pytest.approx(first, abs=1e-6)
    assert changed(agent, temperature="reset") == {"tensors", "modules/ent_coef_optimizer"}
    assert agent.log_ent_coef.item() == pytest.approx(np.log(first), abs=1e-7)
    assert agent.ent_coef_optimizer.param_groups[0]["params"][0] is agent.log_ent_coef
    cross(agent)
    assert agent.log_ent_coef.exp().item() == pytest.approx(first)


def test_a_temperature_that_is_fixed_or_missing_stays() -> None:
    assert changed(trained_agent(ent_coef=0.3), temperature="reset") == set()
    assert changed(trained_agent(algo=DSTD3), temperature="reset") == set()


def topologies(network: nn.Module) -> list[list[int]]:
    return [layer.topology.flat.tolist() for layer in network.modules() if isinstance(layer, SparseLinear)]


@pytest.mark.parametrize("target", ["shared", "union_trim"])
@pytest.mark.parametrize("method", ["ds_sac", "dense"])
def test_critics_are_drawn_anew_in_the_connections_that_exist(method: str, target: Any) -> None:
    topology = DENSE if method == "dense" else TopologyConfig(**{**vars(REWIRING), "target": target})
    agent = trained_agent(topology=topology)
    before, connections = parameters_of(agent.critic), topologies(agent.critic)
    assert changed(agent, critic="reset") == {"modules/policy", "modules/critic.optimizer", "generators"}
    for name, parameter in agent.critic.named_parameters():
        assert (parameter != before[name]).all(), name
    assert topologies(agent.critic) == connections
    # A target that lags behind in its topology would hold old values where it has connections of its own.
    x = torch.from_numpy(agent.replay_buffer.observations[:5, 0].astype(np.float32))
    actions = torch.from_numpy(agent.replay_buffer.actions[:5, 0])
    with torch.no_grad():
        for ours, theirs in zip(agent.critic(x, actions), agent.critic_target(x, actions), strict=True):
            torch.testing.assert_close(theirs, ours, rtol=1e-6, atol=1e-7)
    assert not agent.critic.optimizer.state


def test_a_reset_critic_leaves_the_targets_of_other_networks() -> None:
    agent = trained_agent(algo=DSTD3)
    actor, target = parameters_of(agent.actor), parameters_of(agent.actor_target)
    cross(agent, critic="reset")
    assert_equal_trees(parameters_of(agent.actor), actor)
    assert_equal_trees(parameters_of(agent.actor_target), target)


def test_redrawn_weights_are_those_of_a_linear_layer() -> None:
    network = SparseMLP.random([64, 400, 50], [0.1, 1.0], seed=0, name="x")
    sparse, dense = network
    assert isinstance(sparse, SparseLinear)
    assert isinstance(dense, nn.Linear)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(7.0)
    torch.manual_seed(0)
    redraw(network)
    for layer, bound in ((sparse, 1 / 8), (dense, 1 / 20)):  # 1 / sqrt(n_in), whatever the density
        for parameter in layer.parameters():
            values = parameter.detach()
            assert (values.abs() <= bound).all()
            assert values.min() < -0.6 * bound
            assert values.max() > 0.6 * bound
            assert values.unique().numel() > 0.9 * values.numel()


def test_critics_that_are_drawn_anew_begin_as_the_topology_says() -> None:
    topology = TopologyConfig(**{**vars(REWIRING), "initial_value": "wide_normal"})
    agent = trained_agent(topology=topology)
    cross(agent, critic="reset")
    for layer in agent.critic.modules():
        if isinstance(layer, SparseLinear):
            assert layer.values.std().item() == pytest.approx(0.1, rel=0.3)
            assert layer.n_in**-0.5 / 3**0.5 > 0.14  # that of `dense_fan_in`
            assert layer.values.unique().numel() == layer.nnz
