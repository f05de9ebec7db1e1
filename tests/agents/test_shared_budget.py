"""DSR between actor and critics: the number of connections of all is constant, targets and optimizers follow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from stable_baselines3.common.logger import Logger
from support.envs import FunctionEnv
from support.trees import assert_equal_trees

from sparserl.agents import DSSAC, DSTD3
from sparserl.topology.target import UnionTrimTarget

TOPOLOGY: dict[str, Any] = {
    "method": "dsr",
    "density": 0.4,
    "update_interval": 3,
    "last_update": 30,
    "drop_threshold": 0.02,
    "budget_scope": "all",
}


def make(agent: Any, **topology: Any) -> Any:
    options = {"learning_starts": 1000, "batch_size": 16, "policy_kwargs": {"net_arch": [24, 24]}, "seed": 0}
    made = agent("MlpPolicy", FunctionEnv(), topology={**TOPOLOGY, **topology}, **options)
    made.set_logger(Logger(None, []))
    return made


def counts(agent: Any) -> dict[str, int]:
    return {group: sum(layer.nnz for layer in layers.values()) for group, layers in agent.evolver.groups.items()}


@pytest.mark.parametrize("agent", [DSTD3, DSSAC])
@pytest.mark.parametrize("target", ["shared", "union_trim"])
def test_connections_move_between_actor_and_critics(agent: Any, target: str) -> None:
    made = make(agent, target=target)
    made.learn(40)
    first = counts(made)
    for _ in range(12):
        before = {name: layer.topology for name, layer in made.evolver.layers.items()}
        made.train(1, 16)
        assert sum(counts(made).values()) == sum(first.values())
        changed = {
            name.partition(".")[0] for name, layer in made.evolver.layers.items() if layer.topology is not before[name]
        }
        assert changed in (set(), {"actor", "critic"})
        for group, layers in made.evolver.groups.items():
            state = made.optimizer_of(group).state
            assert all(state[layer.values]["exp_avg"].shape == layer.values.shape for layer in layers.values() if state)
        for name, network in made.target_networks.items():
            for target_layer in network.layers.values():
                union = isinstance(target_layer, UnionTrimTarget)
                assert (
                    (target_layer.target.topology.nnz >= target_layer.online.topology.nnz)
                    if union
                    else (target_layer.target.topology.flat.tolist() == target_layer.online.topology.flat.tolist())
                ), name
    assert counts(made) != first


def test_it_goes_on_from_a_stored_agent_while_the_critics_wait(tmp_path: Path) -> None:
    whole = make(DSTD3)
    whole.learn(40)
    whole.train(3, 16)  # critics are due since 1, 3; the actor steps at even updates
    whole.save(tmp_path / "agent")
    whole.save_replay_buffer(tmp_path / "buffer")
    resumed = DSTD3.load(tmp_path / "agent", env=FunctionEnv())
    resumed.load_replay_buffer(tmp_path / "buffer")
    resumed.set_logger(Logger(None, []))
    for agent in (whole, resumed):
        agent.set_random_seed(3)
        agent.train(9, 16)
    assert_equal_trees(dict(whole.policy.state_dict()), dict(resumed.policy.state_dict()))
    assert_equal_trees(whole.evolver.state_dict(), resumed.evolver.state_dict())
