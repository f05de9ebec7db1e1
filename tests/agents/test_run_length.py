"""The schedule of a topology follows the length that `learn` is given, and is refused where none is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from stable_baselines3.common.vec_env import DummyVecEnv
from support.envs import FunctionEnv

from sparserl.agents import DSSAC, DSTD3
from sparserl.agents.run_length import updates_of_learn
from sparserl.errors import TopologyError


def make(agent: Any = DSTD3, envs: int = 1, **kwargs: Any) -> Any:
    settings: dict[str, Any] = {
        "learning_starts": 20,
        "batch_size": 8,
        "buffer_size": 500,
        "policy_kwargs": {"net_arch": [8, 8]},
        "topology": {"method": "gmp", "density": 0.25, "allocation": "uniform", "update_interval": 10},
        "seed": 0,
    }
    env = FunctionEnv() if envs == 1 else DummyVecEnv([FunctionEnv] * envs)
    return agent("MlpPolicy", env, **{**settings, **kwargs})


def densities(agent: Any) -> set[float]:
    return {round(layer.density, 2) for name, layer in agent.evolver.layers.items() if not name.endswith(".2")}


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, 100),
        ({"learning_starts": 0}, 30),
        ({"learning_starts": 100}, 60),
        ({"envs": 3}, 100),
        ({"train_freq": 7}, 100),
        ({"train_freq": 7, "gradient_steps": 3, "envs": 2}, 100),
        ({"train_freq": 3, "gradient_steps": -1, "envs": 2}, 100),
        ({"gradient_steps": 0}, 60),
        ({"train_freq": (1, "episode"), "gradient_steps": -1}, 60),  # episodes of 20 steps
    ],
)
def test_updates_are_counted_as_learn_makes_them(options: dict[str, Any], steps: int) -> None:
    agent = make(**options, topology={"method": "set"})
    expected = updates_of_learn(agent, steps)
    agent.learn(steps)
    assert agent._n_updates == expected
    more = updates_of_learn(agent, 31, False)
    agent.learn(31, reset_num_timesteps=False)
    if options.get("train_freq") == (1, "episode"):
        assert more == 31
        assert agent._n_updates - expected == 40  # to the end of the second episode
    else:
        assert agent._n_updates - expected == more
    before = agent._n_updates
    again = updates_of_learn(agent, 40)
    agent.learn(40)
    assert agent._n_updates - before == again


@pytest.mark.parametrize("agent", [DSTD3, DSSAC])
def test_learn_prunes_to_the_density_that_was_asked_for(agent: Any) -> None:
    trained = make(agent)
    assert densities(trained) == {1.0}
    trained.learn(220)
    rule = trained.evolver.rule
    assert (rule.first_update, rule.last_update) == (40, 160)  # 20 % and 80 % of 200 updates
    assert densities(trained) == {0.25}
    assert {event.update for event in trained.evolver.events if event.kind == "prune"} <= {*range(40, 163)}


def test_a_decay_reaches_zero_where_rewiring_ends() -> None:
    agent = make(topology={"method": "rigl", "density": 0.5}).learn(120)
    assert agent.evolver.rule.last_update == 75
    assert agent.evolver.rule.fraction(75) == pytest.approx(0.0)
    agent = make(topology={"method": "set", "decay": "cosine", "density": 0.5}).learn(70)
    assert (agent.evolver.rule.last_update, agent.evolver.rule.fraction(25)) == (50, pytest.approx(0.15))


def test_the_config_of_the_agent_says_what_was_fixed() -> None:
    agent = make(topology={"method": "ds_td3"}).learn(59)
    assert agent.topology.last_update == agent.evolver.rule.last_update == 37
    agent = make(topology={"method": "set"}).learn(59)
    assert agent.topology.last_update is None  # SET goes on for as long as the run does


def test_a_schedule_of_shares_and_one_of_numbers_learn_alike() -> None:
    shares = make().learn(220)
    topology = {**shares.topology.__dict__, "first_update": 40, "last_update": 160}
    numbers = make(topology=topology).learn(220)
    for ours, theirs in zip(shares.policy.parameters(), numbers.policy.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_learning_again_goes_on_with_the_schedule_that_there_is(tmp_path: Path) -> None:
    agent = make().learn(220)
    agent.save(tmp_path / "agent.zip")
    sizes = [layer.topology.nnz for layer in agent.evolver.layers.values()]
    loaded = DSTD3.load(tmp_path / "agent.zip", env=FunctionEnv())
    for one in (agent, loaded):
        one.learn(500, reset_num_timesteps=False)
        assert (one.evolver.rule.first_update, one.evolver.rule.last_update) == (40, 160)
        one.learn(50)
        assert [layer.topology.nnz for layer in one.evolver.layers.values()] == sizes
        assert all(event.update <= 170 for event in one.evolver.events)


def test_a_run_in_pieces_is_as_long_as_it_is_said_to_be() -> None:
    whole = make().learn(220)
    pieces = make()
    pieces.bind_run_length(220)
    for _ in range(4):
        pieces.learn(55, reset_num_timesteps=False)
    assert [layer.topology.nnz for layer in pieces.evolver.layers.values()] == [
        layer.topology.nnz for layer in whole.evolver.layers.values()
    ]
    assert pieces.evolver.events == whole.evolver.events


def test_a_schedule_longer_than_the_run_is_refused() -> None:
    agent = make(topology={"method": "gmp", "first_update": 10, "last_update": 201})
    with pytest.raises(TopologyError, match=r"within the run's 200 updates, got last_update 201; .* `bind_run_length`"):
        agent.learn(220)
    assert (agent.num_timesteps, agent._n_updates) == (0, 0)
    agent.learn(221)
    with pytest.raises(TopologyError, match="within the run's 80 updates, got last_update 201"):
        make(topology=agent.topology).bind_run_length(100)


@pytest.mark.parametrize("method", ["gmp", "granet", "rigl", "ds_td3"])
def test_updates_by_hand_need_the_length_of_the_run(method: str) -> None:
    agent = make(topology={"method": method})
    with pytest.raises(
        TopologyError, match=f"^topology method {method!r} needs .* call `bind_run_length`, or give top"
    ):
        agent.train(1, 8)
    agent.bind_run_length(200)
    agent.learn(30)
    agent.train(3, 8)
    assert agent._n_updates == 13


@pytest.mark.parametrize("topology", [{"method": "set"}, {"method": "anf"}, {"method": "static"}, {"method": "dense"}])
def test_methods_that_go_on_alike_need_no_length(topology: dict[str, Any]) -> None:
    agent = make(topology=topology, train_freq=(1, "episode"), gradient_steps=2).learn(60)
    agent.train(1, 8)
    assert agent._n_updates == 5  # two after each of two episodes that end after step 20, and one


def test_a_number_of_updates_that_episodes_decide_is_refused() -> None:
    agent = make(train_freq=(1, "episode"), gradient_steps=2)
    problem = "not known beforehand with `train_freq` in episodes: set `gradient_steps=-1`, or give topology.first_upd"
    with pytest.raises(TopologyError, match=problem):
        agent.learn(60)
    given = {"method": "gmp", "first_update": 1, "last_update": 4, "update_interval": 1, "density": 0.25}
    agent = make(train_freq=(1, "episode"), gradient_steps=2, topology=given).learn(60)
    assert agent._n_updates == 4
    agent = make(train_freq=(1, "episode"), gradient_steps=-1).learn(220)
    assert densities(agent) == {0.25}
