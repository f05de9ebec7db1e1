"""Which inputs the networks of a trained run use."""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch
from typing import Any

import gymnasium as gym
import torch

from sparserl.agents.networks.chains import reads_images
from sparserl.envs import action_names, feature_names
from sparserl.errors import ConfigError
from sparserl.experiment.opened_agent_run import EVAL_SEED, OpenedAgentRun, TrainedAgent
from sparserl.experiment.opened_fit_run import TrainedFit
from sparserl.experiment.opened_run import OpenedRun, TrainedClassifier
from sparserl.experiment.pixel_use import MOST_IMAGES, Outputs, pixel_use
from sparserl.experiment.visited import MOST_SAMPLES
from sparserl.metrics.inputs import InputUse, input_use


@singledispatch
def input_use_of_run(
    trained: OpenedRun[Any], task: int | None = None, *, episodes: int = 3, seed: int = EVAL_SEED
) -> list[InputUse]:
    """What the networks of a run make of their inputs.

    Of an actor the derivative is that of actions in [-1, 1], without exploration; of critics, which read actions as
    well, that of the value, all measures as means over them; of a network with a value of each action, that of these
    values; all in states of a few episodes. Of a classifier it is that of its outputs, on test samples.

    Args:
        trained: An opened run.
        task: Of a continual run; need not be said if there is but one.
        episodes: How many, of an agent.
        seed: Episode i starts from a reset with `seed + i`.

    Raises:
        ConfigError: If its networks are no chains of layers that read vectors, or there is no such task.
    """
    del task, episodes, seed
    raise ConfigError(f"a {type(trained).__name__} has no inputs to look at")


@input_use_of_run.register(OpenedAgentRun)
def _of_agent(
    trained: OpenedAgentRun[Any], task: int | None = None, *, episodes: int = 3, seed: int = EVAL_SEED
) -> list[InputUse]:
    task = trained.only(task)
    networks = trained.networks(task)
    env = trained.make_env(task)
    features = feature_names(env)
    env.close()
    actions, outputs = _names_and_outputs(trained, task)
    samples = trained.visited(task, episodes, seed=seed)
    read = trained.read_by(task, samples)
    observed = features[: read[trained.acting].shape[1]]
    uses = []
    for group, chains in networks.items():
        x = torch.from_numpy(read[group])
        acts = group == trained.acting
        names = observed if x.shape[1] == len(observed) else [*observed, *actions]
        uses.append(input_use(group, names, chains, x, outputs if acts else _as_they_are))
    return uses


@input_use_of_run.register(TrainedAgent)
def _of_trained_agent(
    trained: TrainedAgent, task: int | None = None, *, episodes: int = 3, seed: int = EVAL_SEED
) -> list[InputUse]:
    if not reads_images(trained.agent.acting):
        return _of_agent(trained, task, episodes=episodes, seed=seed)
    samples = trained.visited(trained.only(task), episodes, seed=seed, most=MOST_IMAGES)
    return pixel_use(trained.agent, samples, *_names_and_outputs(trained, 0))


def _names_and_outputs(trained: OpenedAgentRun[Any], task: int) -> tuple[list[str], Outputs]:
    """Names of the entries of an action, and what makes actions of the outputs of an actor."""
    env = trained.make_env(task)
    actions = action_names(env)
    is_continuous = isinstance(env.action_space, gym.spaces.Box)
    env.close()
    return actions, _actions(len(actions)) if is_continuous else _as_they_are


@input_use_of_run.register(TrainedClassifier)
@input_use_of_run.register(TrainedFit)
def _of_classifier(
    trained: TrainedClassifier | TrainedFit, task: int | None = None, *, episodes: int = 3, seed: int = EVAL_SEED
) -> list[InputUse]:
    del episodes, seed
    learner, tasks = trained.learner, trained.learner.sequence.tasks
    if task is not None and task not in range(len(tasks)):
        listing = ", ".join(f"{one.index} ({one.name})" for one in tasks)
        raise ConfigError(f"there is no --task {task}; tasks are {listing}")
    chosen = tasks if task is None else [tasks[task]]
    is_same_for_all = learner.sequence.scenario != "task" and learner.task > 0
    network = learner.answering(learner.task - 1 if task is None and is_same_for_all else task)
    each = MOST_SAMPLES // len(chosen)
    x = torch.cat([one.test.take(slice(0, each))[0] for one in chosen])
    names = learner.sequence.feature_names or [f"feature {index}" for index in range(x.shape[1])]
    with network.in_use():
        return [input_use("network", names, [network], x)]


def _as_they_are(y: torch.Tensor) -> torch.Tensor:
    return y


def _actions(count: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Actions in [-1, 1] of the outputs of an actor: of a Gaussian one the squashed means, which come first."""
    return lambda y: y if y.shape[1] == count else y[:, :count].tanh()
