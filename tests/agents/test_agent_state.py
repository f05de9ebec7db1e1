"""The state of an agent survives the disk, and what it does not fit is refused."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.envs import FunctionEnv
from support.trees import assert_equal_trees, differences

from sparserl.agents.agent_state import agent_state, generator_state, restore_agent, restore_generators
from sparserl.agents.critics_config import TD3Config
from sparserl.agents.table import make_agent
from sparserl.errors import CheckpointError
from sparserl.recording import checkpoint
from sparserl.topology.config import TopologyConfig


def make(method: str = "ds_td3", seed: int = 0, **changes: Any) -> Any:
    config = TD3Config(**{"net_arch": (12, 12), "learning_starts": 20, "batch_size": 16, "buffer_size": 500} | changes)
    rule = {} if method in ("dense", "static") else {"update_interval": 7, "last_update": 60}
    algo = "td3" if method == "dense" else "ds_td3"
    return make_agent(algo, config, TopologyConfig(method=method, **rule), FunctionEnv(horizon=9), seed=seed)


@pytest.mark.parametrize("method", ["ds_td3", "rigl", "dense"])
def test_a_round_trip_through_the_disk_restores_everything(method: str, tmp_path: Path) -> None:
    agent = make(method).learn(60)
    state = agent_state(agent)
    checkpoint.save(tmp_path / "state", state)
    other = make(method, seed=5).learn(30)
    assert differences(agent_state(other), state)
    restore_agent(other, checkpoint.load(tmp_path / "state"))
    again = agent_state(other)
    assert_equal_trees(again, state)
    assert isinstance(other._last_obs, np.ndarray)
    assert other.ep_info_buffer.maxlen == agent.ep_info_buffer.maxlen
    assert len(again["episodes"]) == 6
    assert set(again["modules"]) >= {"policy", "actor.optimizer", "critic.optimizer"}
    assert ("evolver" in again["modules"]) == (method != "dense")


def test_the_state_is_a_copy_on_disk_and_not_a_view(tmp_path: Path) -> None:
    agent = make().learn(40)
    checkpoint.save(tmp_path / "state", agent_state(agent))
    before = checkpoint.load(tmp_path / "state")["modules"]["policy"]
    agent.train(5, 16)
    assert_equal_trees(before, checkpoint.load(tmp_path / "state")["modules"]["policy"])
    assert differences(before, dict(agent.policy.state_dict()))


def test_an_agent_before_its_first_episode_has_a_state(tmp_path: Path) -> None:
    agent = make()
    state = agent_state(agent)
    assert state["last_obs"] is None
    checkpoint.save(tmp_path / "state", state)
    restore_agent(agent, checkpoint.load(tmp_path / "state"))
    assert agent._last_obs is None


def draw() -> list[Any]:
    """Something from each global generator; an odd number of Gaussians, which NumPy and Python draw in pairs."""
    return [
        torch.rand(3),
        torch.empty(5).normal_(),
        np.random.normal(size=3),
        np.random.randint(0, 1000, 4),
        [random.random(), random.gauss(0, 1), random.randint(0, 10**9)],
    ]


def test_generators_go_on(tmp_path: Path) -> None:
    draw()
    checkpoint.save(tmp_path / "state", generator_state())
    expected = draw() + draw()
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    restore_generators(checkpoint.load(tmp_path / "state"))
    assert_equal_trees(draw() + draw(), expected)


@pytest.mark.parametrize(
    ("method", "changes", "what"),
    [
        ("ds_td3", {"net_arch": (10, 12)}, "'policy' does not fit this agent"),
        ("ds_td3", {"net_arch": (12,)}, "'policy' does not fit this agent"),
        ("dense", {}, "'policy' does not fit this agent"),
    ],
)
def test_the_state_of_other_networks_is_refused(method: str, changes: dict[str, Any], what: str) -> None:
    state = agent_state(make())
    with pytest.raises(CheckpointError, match=what) as refusal:
        restore_agent(make(method, **changes), state)
    assert "\n" not in str(refusal.value)


def test_the_state_of_another_algorithm_is_refused() -> None:
    state = agent_state(make("static"))
    del state["modules"]["evolver"]
    with pytest.raises(CheckpointError, match="holds no 'evolver'; it belongs to another algorithm"):
        restore_agent(make("static"), state)
