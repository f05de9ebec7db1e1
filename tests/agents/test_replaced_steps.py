"""An event that takes the place of an optimizer step, of agents and classifiers, but not in a loop of the user's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from stable_baselines3.common.logger import Logger
from support.classifiers import CONFIG
from support.envs import FunctionEnv
from support.layers import weights
from support.tasks import blobs
from torch import nn

from sparserl import sparsify
from sparserl.agents import DSTD3
from sparserl.continual.strategies.strategy import Strategy
from sparserl.continual.supervised.learner import SupervisedLearner
from sparserl.errors import ConfigError
from sparserl.topology.config import TopologyConfig

RIGL: dict[str, Any] = {
    "method": "rigl",
    "density": 0.5,
    "update_interval": 4,
    "first_update": 3,
    "last_update": 12,
    "replaces_step": True,
}


def steps(optimizer: torch.optim.Optimizer) -> set[int]:
    return {int(state["step"]) for state in optimizer.state.values()}


@pytest.mark.parametrize("batches", [1, 2])
def test_groups_of_an_agent_skip_the_steps_of_their_events(batches: int) -> None:
    topology = {**RIGL, "gradient_batches": batches}
    agent = DSTD3("MlpPolicy", FunctionEnv(), topology=topology, learning_starts=1000, batch_size=16, seed=0)
    agent.set_logger(Logger(None, []))
    agent.learn(20)
    # Due at 3, 7 and 11, and the event follows the last of its batches; the actor steps at even updates.
    events = {"critic": [3, 7, 11], "actor": [4, 8, 12]} if batches == 1 else {"critic": [4, 8, 12], "actor": [6, 10]}
    for update in range(1, 15):
        before = {name: (layer.topology, layer.values.tolist()) for name, layer in agent.evolver.layers.items()}
        agent.train(1, 16)
        for group, times in events.items():
            layers = agent.evolver.groups[group]
            changed = [name for name, layer in layers.items() if layer.topology is not before[name][0]]
            assert bool(changed) == (update in times), (group, update)
            for name in changed:  # what stays has the weight it had
                old, now = before[name], weights(layers[name])
                was = dict(zip(old[0].flat.tolist(), old[1], strict=True))
                assert all(was[position] == now[position] for position in was.keys() & now.keys())
    assert steps(agent.critic.optimizer) == {14 - len(events["critic"])}
    assert steps(agent.actor.optimizer) == {7 - len(events["actor"])}


@pytest.mark.parametrize("replaces_step", [True, False])
def test_a_classifier_skips_them_too(replaces_step: bool) -> None:
    topology = TopologyConfig(**{**RIGL, "replaces_step": replaces_step})
    learner = SupervisedLearner(blobs("class"), Strategy(), CONFIG, topology, seed=0)
    training = learner.train()
    next(training), next(training)
    before = weights(learner.network[0])
    next(training)
    after = weights(learner.network[0])
    kept = before.keys() & after.keys()
    assert before.keys() != after.keys()
    assert all(before[position] == after[position] for position in kept) == replaces_step
    next(training)
    assert weights(learner.network[0]).items() != after.items()


def test_a_loop_of_the_user_s_steps_by_itself() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    with pytest.raises(ConfigError, match="unknown argument of sparsify 'replaces_step'"):
        sparsify(model, torch.optim.Adam(model.parameters()), replaces_step=True)
