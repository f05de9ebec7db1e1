"""What an observer tells of an agent's topology, and that watching changes nothing."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from support.envs import FunctionEnv, drift
from support.trees import assert_equal_trees

from sparserl.agents.agent_state import agent_state, generator_state
from sparserl.agents.observer import TopologyObserver
from sparserl.agents.probe import SAMPLES, places_in
from sparserl.agents.replay.forget_stale import ForgetStale
from sparserl.agents.table import AGENTS, make_agent
from sparserl.layers.activity import dormant_fraction
from sparserl.metrics.connectivity import event_rows
from sparserl.seeding import stream
from sparserl.topology.config import TopologyConfig
from sparserl.topology.structure import Flags

SIZES: dict[str, Any] = {"net_arch": (12, 12), "learning_starts": 20, "batch_size": 16, "buffer_size": 500}


def make(algo: str = "ds_sac", options: dict[str, Any] = SIZES, **topology: Any) -> Any:
    config = TopologyConfig(**{"method": "set", "density": 0.4, "update_interval": 10, **topology})
    return make_agent(algo, AGENTS[algo].config(**options), config, FunctionEnv(), seed=0)


def half_relevant() -> Flags:
    return np.array([True, False, False])


def test_before_the_first_transition_nobody_is_dormant_or_awake() -> None:
    agent = make()
    rows = event_rows(agent.evolver, agent.evolver.take_events(), **TopologyObserver(agent, half_relevant).known())
    assert {row["kind"] for row in rows} == {"initial"}
    assert all("dormant" not in row for row in rows)
    assert {row["layer"] for row in rows if "degree_relevant" in row} == {"actor.pi.0", "critic.qf0.0", "critic.qf1.0"}


def test_dormant_neurons_are_counted_on_transitions_of_the_buffer() -> None:
    agent = make(recycle_threshold=0.6)
    agent.learn(50)
    agent.replay_buffer.observations[:] = agent.replay_buffer.observations[3]  # all draws are alike
    agent.replay_buffer.actions[:] = agent.replay_buffer.actions[3]
    observation, action = (
        torch.from_numpy(array[3]).float() for array in (agent.replay_buffer.observations, agent.replay_buffer.actions)
    )
    found = TopologyObserver(agent).metrics()
    expected = {}
    for name, mlp, x in (
        ("actor.pi", agent.actor.pi, observation),
        ("critic.qf0", agent.critic.qf0, torch.cat([observation, action], dim=1)),
        ("critic.qf1", agent.critic.qf1, torch.cat([observation, action], dim=1)),
    ):
        for level, fraction in enumerate(dormant_fraction(mlp, x, 0.6)):
            if f"{name}.{level}" in agent.evolver.layers:
                expected[f"topology/{name}.{level}/dormant"] = fraction
    assert {name: value for name, value in found.items() if name.endswith("/dormant")} == expected
    assert max(expected.values()) > 0.0
    assert len(expected) == 6


@pytest.mark.parametrize("algo", ["ds_td3", "ds_sac"])
def test_gradients_are_those_of_the_losses_on_transitions_of_the_buffer(algo: str) -> None:
    agent = make(algo)
    agent.learn(50)
    found = TopologyObserver(agent).metrics()
    names = set(agent.evolver.layers)
    for kind in ("gradient_norm", "gradient_snr"):
        assert {name.split("/")[1] for name in found if name.endswith(kind) and name.count("/") == 2} == names
    rows = stream(agent.policy_kwargs["topology_seed"], "dormant", str(agent._n_updates)).integers(50, size=SAMPLES)
    torch_state = torch.get_rng_state()
    for group in agent.trained:
        agent.form_gradients(group, agent.transitions(rows))
    torch.set_rng_state(torch_state)
    of_layers = [layer.values.grad.norm().item() for layer in agent.evolver.layers.values()]
    assert [found[f"topology/{name}/gradient_norm"] for name in agent.evolver.layers] == pytest.approx(of_layers)
    assert found["topology/gradient_flow"] == pytest.approx(np.mean(of_layers))
    assert 0.0 < found["topology/gradient_snr"] < 5.0


def test_watching_draws_from_no_generator_and_changes_nothing() -> None:
    agent = make(recycle_interval=15)
    agent.learn(60)
    state, generators = copy.deepcopy(agent_state(agent)), copy.deepcopy(generator_state())
    observer = TopologyObserver(agent, half_relevant)
    first, second = observer.metrics(), observer.metrics()
    assert first == second
    assert_equal_trees(generators, generator_state())
    assert_equal_trees(state, agent_state(agent))


class Watch(BaseCallback):
    """Looks wherever a recorder may: between a gradient update and the next env step."""

    def _on_training_start(self) -> None:
        self.observer, self.rows = TopologyObserver(self.model, half_relevant), []

    def _on_rollout_start(self) -> None:
        self.observer.metrics()
        evolver = self.model.evolver  # type: ignore[attr-defined]  # a sparse agent
        self.rows += event_rows(evolver, evolver.take_events(), **self.observer.known())

    def _on_step(self) -> bool:
        return True


def test_a_watched_agent_learns_what_an_unwatched_one_does() -> None:
    # Growth by gradient over three batches is the case in which layers note what passes through them between updates.
    learned, watch = [], Watch()
    for callback in (None, watch):
        agent = make(method="rigl", gradient_batches=3, update_interval=7, recycle_interval=15)
        agent.learn(70, callback=callback)
        learned.append({name: agent_state(agent)[name] for name in ("modules", "tensors", "generators")})
    assert_equal_trees(*learned)
    assert len([row for row in watch.rows if row["kind"] == "rewire" and "dormant" in row]) > 6


@pytest.mark.parametrize("buffer_size", [500, 64])
def test_forgotten_transitions_say_nothing(buffer_size: int) -> None:
    forget = {"dynamic_capacity": True, "forget_interval_steps": 20, "forget_threshold": 0.0, "forget_minimum": 30}
    agent = make("ds_td3", {**SIZES, **forget, "buffer_size": buffer_size})
    agent.learn(100, callback=ForgetStale())  # the last step forgets
    buffer = agent.replay_buffer
    assert buffer.forgotten > 0
    assert buffer.full == (buffer_size == 64)
    known = TopologyObserver(agent).metrics()
    newest = (buffer.pos - 1 - np.arange(buffer.size())) % buffer.buffer_size
    others = np.setdiff1d(np.arange(buffer.buffer_size), newest)
    for array in (buffer.observations, buffer.actions):
        array[others] = np.nan  # whoever looked at one would fail
    assert TopologyObserver(agent).metrics() == known


def test_recycled_neurons_are_among_the_metrics() -> None:
    agent = make(recycle_interval=10, recycle_threshold=0.5)
    agent.learn(60)
    found = TopologyObserver(agent).metrics()
    assert {name: count for name, count in found.items() if name.endswith("/recycled_total")} == {
        f"topology/{name}/recycled_total": count for name, count in agent.recycler.recycled_total.items()
    }
    assert sum(agent.recycler.recycled_total.values()) > 0


def test_a_dense_agent_has_no_topology() -> None:
    config = AGENTS["sac"].config(**SIZES)
    agent = make_agent("sac", config, TopologyConfig(method="dense"), FunctionEnv(), seed=0)
    assert TopologyObserver(agent).metrics() == {}


@pytest.mark.parametrize("algo", ["td3", "ds_td3"])
def test_where_observations_are_normalised_networks_are_watched_on_what_they_read(algo: str) -> None:
    env = VecNormalize(DummyVecEnv([lambda: FunctionEnv(lambda state, action: (50.0 + drift(state, action)[0], 0.0))]))
    agent: Any = make_agent(algo, AGENTS[algo].config(**SIZES), TopologyConfig(method="dense"), env, seed=0)
    agent.learn(60)
    probe = agent.probe()
    assert probe is not None
    rows = places_in(agent.replay_buffer, 0, agent._n_updates)
    expected = env.normalize_obs(agent.replay_buffer.observations[rows])
    np.testing.assert_allclose(probe.inputs["actor"].numpy(), expected, rtol=1e-5)
    assert np.abs(expected).max() < 10.0
