"""An agent on a sequence of tiny tasks whose observations say which task they are of, and a learner of both."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.logger import Logger
from support.envs import Array, FunctionEnv

from sparserl.agents import DSSAC
from sparserl.agents.agent_state import agent_state, restore_agent
from sparserl.agents.networks.heads import TaskHeads
from sparserl.continual.rl.borders import BorderConfig
from sparserl.continual.rl.learner import RLLearner
from sparserl.continual.strategies import STRATEGIES, MethodOptions, make_strategy
from sparserl.continual.strategies.clonex import ClonExOptions
from sparserl.continual.strategies.memory import AGEMOptions, ReplayOptions
from sparserl.continual.strategies.packnet import PackNetOptions
from sparserl.continual.strategies.penalty import EWCOptions, L2Options, MASOptions, OnlineEWCOptions, SIOptions
from sparserl.continual.strategies.spacenet import SpaceNetOptions
from sparserl.continual.supervised.runner import TaskEnded, run_sequence
from sparserl.envs import AppendTaskId, RLSequence, SequenceEnv, capture_state, restore_state
from sparserl.envs.tasks.modified_dynamics import Modification
from sparserl.envs.tasks.sequences import TaskSpec
from sparserl.topology.config import TopologyConfig

N_OBS, N_ACTION, LEARNING_STARTS, BATCH = 3, 2, 10, 8
OPTIONS = MethodOptions(
    l2=L2Options(strength=0.1),
    ewc=EWCOptions(strength=1.0, samples=12),
    online_ewc=OnlineEWCOptions(strength=1.0, gamma=0.5, samples=12),
    si=SIOptions(strength=1.0),
    mas=MASOptions(strength=0.1, samples=12),
    agem=AGEMOptions(transitions_per_task=9, batch_size=6),
    clonex=ClonExOptions(states_per_task=9, batch_size=6, strength=10.0),
    replay=ReplayOptions(batch_scale=2),
    packnet=PackNetOptions(retrain_updates=5),
    spacenet=SpaceNetOptions(rewire_interval=4),
)
REWIRING = TopologyConfig(method="ds_sac", density=(0.5, 0.5), update_interval=6, first_update=3, last_update=200)
DENSE = TopologyConfig(method="dense")


class MarkedEnv(FunctionEnv):
    """A task: its first feature is always the task's index, and it says which way actions push the others.

    Args:
        task: Index.
        horizon: Steps of an episode.
        terminates: Whether an episode ends by itself; otherwise it is truncated.
        n_obs: Features.
    """

    def __init__(self, task: int, *, horizon: int = 7, terminates: bool = False, n_obs: int = N_OBS) -> None:
        super().__init__(self._push, n_obs, N_ACTION, horizon)
        self.task, self.terminates = task, terminates

    def _push(self, state: Array, action: Array) -> tuple[Array, float]:
        moved = 0.8 * state + (-1.0) ** self.task * 0.4 * np.resize(action, state.shape)
        moved[0] = self.task
        return moved, -float(np.square(moved[1:] - 0.3).mean())

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        self.state[0] = self.task
        return self.state.copy(), {}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        observation, reward, _, over, info = super().step(action)
        return observation, reward, over and self.terminates, over and not self.terminates, info


def made_up_sequence(steps: Sequence[int]) -> RLSequence:
    tasks = [TaskSpec(f"number {index}", "made up", Modification(), own, index) for index, own in enumerate(steps)]
    return RLSequence("made_up", tuple(tasks))


def make_learner(
    method: str = "finetune",
    *,
    algo: type[Any] = DSSAC,
    steps: Sequence[int] = (30, 30, 30),
    border: Mapping[str, str] | None = None,
    options: MethodOptions = OPTIONS,
    topology: TopologyConfig = REWIRING,
    net_arch: Sequence[int] = (16, 16),
    weight_decay: float = 0.0,
    terminates: bool = False,
    seed: int = 0,
    **agent: Any,
) -> RLLearner:
    """A learner before its first step.

    Args:
        method: In `STRATEGIES`, one that serves agents.
        algo: `DSSAC` or `DSTD3`.
        steps: Of each task.
        border: Options of `BorderConfig`, over those of the method.
        options: Of all methods.
        topology: Of the agent, before the method gives it densities.
        net_arch: Hidden widths.
        weight_decay: Of Adam.
        terminates: Whether episodes end by themselves.
        seed: Root seed.
        agent: Further arguments of its constructor.
    """
    sequence, n_tasks = made_up_sequence(steps), len(steps)
    config = BorderConfig(**{**STRATEGIES[method].defaults.get("border", {}), **(border or {})})
    strategy = make_strategy(method, "agent", options)
    own: dict[str, Any] = {
        f"{name}_density": share for name, share in strategy.densities("agent", len(net_arch), n_tasks).items()
    }

    def task_env(task: TaskSpec) -> gym.Env[Any, Any]:
        env = MarkedEnv(task.index, terminates=terminates)
        return AppendTaskId(env, task.index, n_tasks) if config.appends_id else env

    def make_agent(env: gym.Env[Any, Any], seed: int, **more: Any) -> Any:
        heads = TaskHeads(n_tasks, config.task_id == "visible") if config.heads == "task" else None
        arguments = {
            "policy_kwargs": {
                "net_arch": list(net_arch),
                "heads": heads,
                "optimizer_kwargs": {"weight_decay": weight_decay},
            },
            "topology": replace(topology, **own),
            "learning_rate": 3e-3,
            "batch_size": BATCH,
            "learning_starts": LEARNING_STARTS,
            "buffer_size": 1000,
        }
        made = algo("MlpPolicy", env, seed=seed, **{**arguments, **agent, **more})
        made.set_logger(Logger(folder=None, output_formats=[]))
        return made

    return RLLearner(
        make_agent(SequenceEnv(sequence, task_env, seed=seed), seed),
        sequence.tasks,
        strategy,
        config,
        seed=seed,
        fresh_agent=lambda own_seed: make_agent(task_env(sequence.tasks[0]), own_seed, buffer_size=1),
    )


def tasks_of(learner: RLLearner) -> Iterator[int]:
    """Learns task after task, and gives each when it has ended."""
    for event in run_sequence(learner):
        if isinstance(event, TaskEnded):
            yield event.task


def learn_tasks(learner: RLLearner, count: int) -> None:
    """Learns so many tasks, each to its end."""
    for _ in range(count):
        list(learner.train())
        learner.finish_task()


def env_of(learner: RLLearner) -> gym.Env[Any, Any]:
    """The agent's environment in all of its wrappers."""
    own: gym.Env[Any, Any] = learner.agent.env.envs[0]
    return own


def answers(learner: RLLearner, task: int) -> np.ndarray:
    """Deterministic actions on some observations of a task, as they would be evaluated."""
    rng = np.random.default_rng([7, task])
    observations = rng.normal(size=(6, N_OBS))
    observations[:, 0] = task
    if learner.border.appends_id:
        observations = np.hstack([observations, np.eye(len(learner.sequence))[[task] * 6]])
    return learner.policy(task)(observations, True)


def parameters_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Copies, by name."""
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


# State.

BUFFER = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


def whole_state(learner: RLLearner) -> dict[str, Any]:
    """Of learner, agent, environment and replay buffer, as copies; without the wall time that episodes took."""
    buffer = learner.agent.replay_buffer
    env = capture_state(env_of(learner))
    assert env is not None
    state = {
        "learner": learner.state_dict(),
        "agent": agent_state(learner.agent),
        "env": env,
        "buffer": {name: getattr(buffer, name) for name in (*BUFFER, "pos", "full")},
    }
    return copy.deepcopy(state)


def restore(learner: RLLearner, state: Mapping[str, Any]) -> None:
    """Puts a learner that has done nothing where `whole_state` was taken, in the order of a resumed run."""
    for name, value in state["buffer"].items():
        setattr(learner.agent.replay_buffer, name, copy.deepcopy(value))
    restore_agent(learner.agent, copy.deepcopy(state["agent"]))
    learner.load_state_dict(copy.deepcopy(state["learner"]))
    restore_state(env_of(learner), state["env"])


def comparable(state: Mapping[str, Any]) -> dict[str, Any]:
    """What of `whole_state` must repeat: all but the wall time of episodes."""
    agent = {name: value for name, value in state["agent"].items() if name != "episodes"}
    agent["episodes"] = [(episode["r"], episode["l"]) for episode in state["agent"]["episodes"]]
    return {"learner": state["learner"], "agent": agent, "buffer": state["buffer"]}


def batches_of_growth(learner: Any) -> set[tuple[int, ...]]:
    """Trains the present task; samples in each batch that an event could see of a layer, by layer and event."""
    captured: list[list[int]] = []
    evolver, end_update = learner.agent.evolver, learner.agent.evolver.end_update

    def ended(group: str) -> Any:
        captured.extend(
            [x.shape[1] for x, _ in layer.activation_pairs] for layer in evolver.groups[group].values() if layer.capture
        )
        return end_update(group)

    evolver.end_update = ended
    list(learner.train())
    return {tuple(batches) for batches in captured}
