"""What an observer tells of agents that learn from rollouts, and that watching changes nothing."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv
from support.envs import ChoiceEnv, FunctionEnv, SpacesOnly
from support.trees import assert_equal_trees

from sparserl.agents import DSA2C, DSPPO
from sparserl.agents.agent_state import agent_state, generator_state, restore_agent
from sparserl.agents.observer import TopologyObserver
from sparserl.layers.activity import dormant_fraction

SIZES: dict[Any, dict[str, Any]] = {
    DSPPO: {"n_steps": 30, "batch_size": 10, "n_epochs": 2, "ent_coef": 0.1},
    DSA2C: {"n_steps": 6},
}
both = pytest.mark.parametrize("kind", [DSPPO, DSA2C])
OF_ALL = {f"topology/gradient_{name}" for name in ("norm", "flow", "flow_per_connection", "snr")}


def make(kind: Any, env: Any = None, **topology: Any) -> Any:
    rule = {"method": "set", "density": 0.4, "update_interval": 5, "first_update": 5, **topology}
    return kind(
        "MlpPolicy", env or FunctionEnv(), topology=rule, policy_kwargs={"net_arch": [12, 10]}, seed=0, **SIZES[kind]
    )


def losses(agent: Any) -> torch.Tensor:
    """(B,) of each env step that is kept, by the formulas of PPO and A2C; their mean is the loss."""
    observations, actions, _, old, advantages, returns = torch.split(agent.latest_steps, [3, 2, 1, 1, 1, 1], dim=1)
    values, log_prob, entropy = agent.policy.evaluate_actions(observations, actions)
    advantages, old = advantages.flatten(), old.flatten()
    if isinstance(agent, DSPPO):
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        ratio = (log_prob - old).exp()
        of_actor = -torch.min(advantages * ratio, advantages * ratio.clamp(0.8, 1.2))
    else:
        of_actor = -advantages * log_prob
    return of_actor - agent.ent_coef * entropy + 0.5 * (returns - values).flatten().square()


@both
def test_gradients_are_those_of_the_loss_on_the_latest_rollout(kind: Any) -> None:
    agent = make(kind).learn(60)
    assert len(agent.latest_steps) == agent.n_steps
    layers = agent.evolver.layers
    found = TopologyObserver(agent).metrics()
    values = [layer.values for layer in layers.values()]
    alone = [torch.autograd.grad(one, values, retain_graph=True) for one in losses(agent)]
    of_layers = [torch.stack([one[position] for one in alone]).numpy() for position in range(len(values))]
    means = [one.mean(axis=0) for one in of_layers]
    norms = [np.linalg.norm(mean) for mean in means]
    assert [found[f"topology/{name}/gradient_norm"] for name in layers] == pytest.approx(norms, rel=1e-4)
    assert found["topology/gradient_norm"] == pytest.approx(np.linalg.norm(norms), rel=1e-4)
    assert found["topology/gradient_flow"] == pytest.approx(np.mean(norms), rel=1e-4)
    assert np.linalg.norm(norms) > agent.max_grad_norm, "what is clipped in an update is not clipped here"
    for name, each, mean in zip(layers, of_layers, means, strict=True):
        expected = np.mean(np.abs(mean) / (each.std(axis=0) + 1e-10))
        assert found[f"topology/{name}/gradient_snr"] == pytest.approx(expected, rel=1e-2)
    assert found.keys() >= OF_ALL


@both
def test_dormant_neurons_are_counted_on_the_latest_rollout(kind: Any) -> None:
    agent = make(kind, recycle_threshold=0.6).learn(60)
    observations = agent.latest_steps[:, :3]
    expected = {
        f"topology/{name}.{level}/dormant": fraction
        for name, mlp in (("actor.pi", agent.actor.chain), ("critic.vf", agent.critic.chain))
        for level, fraction in enumerate(dormant_fraction(mlp, observations, 0.6))
    }
    found = TopologyObserver(agent).metrics()
    assert {name: value for name, value in found.items() if name.endswith("/dormant")} == expected
    assert len(expected) == 4
    assert max(expected.values()) > 0.0


@both
def test_of_a_long_rollout_256_env_steps_are_kept_and_of_several_environments(kind: Any) -> None:
    sizes = {DSPPO: {"n_steps": 150, "batch_size": 100, "n_epochs": 1}, DSA2C: {"n_steps": 150}}
    envs = DummyVecEnv([FunctionEnv, FunctionEnv])
    agent = kind("MlpPolicy", envs, topology={"method": "set", "density": 0.4}, seed=0, **sizes[kind])
    assert TopologyObserver(agent).metrics().keys().isdisjoint(OF_ALL), "nothing was met"
    agent.learn(300)
    met = {tuple(row) for row in agent.rollout_buffer.observations.astype(np.float32)}
    kept = {tuple(row) for row in agent.latest_steps[:, :3].numpy()}
    assert len(kept) == 256
    assert kept < met
    assert len(met) == 300
    assert TopologyObserver(agent).metrics().keys() >= OF_ALL


@pytest.mark.parametrize("env", [ChoiceEnv, FunctionEnv])
@both
def test_watching_draws_from_no_generator_and_changes_nothing(kind: Any, env: Any) -> None:
    agent = make(kind, env()).learn(60)
    before, logged = copy.deepcopy(agent_state(agent)), dict(agent.logger.name_to_value)
    generators, attributes = copy.deepcopy(generator_state()), dict(vars(agent))
    gradients = copy.deepcopy([parameter.grad for parameter in agent.policy.parameters()])
    mode, flops = agent.policy.training, agent.flops.total
    observer = TopologyObserver(agent)
    assert observer.metrics() == observer.metrics()
    assert_equal_trees(generators, generator_state())
    assert_equal_trees(before, agent_state(agent))
    assert dict(agent.logger.name_to_value) == logged
    assert all(vars(agent)[name] is value for name, value in attributes.items())
    assert vars(agent).keys() == attributes.keys()
    assert (agent.policy.training, agent.flops.total) == (mode, flops)
    assert_equal_trees(gradients, [parameter.grad for parameter in agent.policy.parameters()])
    copy.deepcopy(agent.policy)  # no graph is kept


class Watch(BaseCallback):
    """Looks where a recorder does: after the updates of a rollout, when the next is empty."""

    def _on_training_start(self) -> None:
        self.found: list[dict[str, float]] = []

    def _on_rollout_start(self) -> None:
        self.found.append(TopologyObserver(self.model).metrics())  # type: ignore[arg-type]  # an agent of ours

    def _on_step(self) -> bool:
        return True


@both
def test_a_watched_agent_learns_what_an_unwatched_one_does(kind: Any) -> None:
    learned, watch = [], Watch()
    for callback in (None, watch):
        agent = make(kind, method="rigl", gradient_batches=3, update_interval=7).learn(120, callback=callback)
        learned.append({name: agent_state(agent)[name] for name in ("modules", "tensors", "generators")})
    assert_equal_trees(*learned)
    assert [found.keys() >= OF_ALL for found in watch.found] == [False, *[True] * (len(watch.found) - 1)]
    assert len({found["topology/gradient_norm"] for found in watch.found[1:]}) == len(watch.found) - 1


@both
def test_what_is_said_comes_back_with_the_state(kind: Any) -> None:
    agent, other = make(kind).learn(60), make(kind)
    restore_agent(other, agent_state(agent))
    assert TopologyObserver(other).metrics() == TopologyObserver(agent).metrics()


@both
def test_images_are_not_kept(kind: Any) -> None:
    env = SpacesOnly(gym.spaces.Box(0, 255, (36, 36, 1), np.uint8))
    agent = kind("CnnPolicy", env, topology={"method": "set", "density": 0.4}, seed=0, **SIZES[kind]).learn(30)
    assert agent.latest_steps.numel() == 0
    assert TopologyObserver(agent).metrics().keys().isdisjoint(OF_ALL)
