"""Times updates of DS-SAC with an output layer for each task, on batches of one task and of several.

    PYTHONPATH=CHECKOUT python results/bench/several_tasks.py

Networks, batch and tasks are those of Continual World: 4 x 256, density .25, batch 128, ten tasks. Two checkouts are
compared by running it with each in turn.
"""

from __future__ import annotations

import time
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from sparserl.agents.networks.heads import TaskHeads
from sparserl.agents.replay.batch import TransitionBatch
from sparserl.agents.table import AGENTS, make_agent
from sparserl.kernels.program import deferred
from sparserl.topology.config import TopologyConfig

OBSERVED, ACTIONS, TASKS, BATCH = 39, 4, 10, 128
WARM_UP, ROUNDS = 10, 100


class Spaces(gym.Env[Any, Any]):
    """Nothing is met in it."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (OBSERVED + TASKS,), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (ACTIONS,), np.float32)


def batch(tasks: int, rng: np.random.Generator) -> TransitionBatch:
    """Random transitions of so many tasks."""
    ids = np.eye(TASKS)[rng.integers(tasks, size=BATCH)]
    before, after = (np.hstack([rng.normal(size=(BATCH, OBSERVED)), ids]).astype(np.float32) for _ in range(2))
    actions, rewards = rng.uniform(-1, 1, (BATCH, ACTIONS)), rng.normal(size=(BATCH, 1))
    others = (np.zeros((BATCH, 1)), rewards, np.full((1, 1), 0.99))
    return TransitionBatch(before, actions.astype(np.float32), after, *(one.astype(np.float32) for one in others))


def main() -> None:
    torch.set_num_threads(1)
    config = AGENTS["ds_sac"].config(net_arch=(256,) * 4, batch_size=BATCH, buffer_size=1000)
    topology = TopologyConfig(method="static", density=0.25)
    agent: Any = make_agent("ds_sac", config, topology, Spaces(), seed=0, heads=TaskHeads(TASKS))
    rng = np.random.default_rng(0)
    batches = {tasks: [batch(tasks, rng) for _ in range(WARM_UP + ROUNDS)] for tasks in (1, 2, TASKS)}
    spent: dict[int, list[float]] = {tasks: [] for tasks in batches}
    for number in range(WARM_UP + ROUNDS):
        for tasks, given in batches.items():
            agent._n_updates += 1
            agent.evolver.begin_update(agent._n_updates)
            start = time.perf_counter()
            with deferred():
                agent._update(given[number])
            spent[tasks].append(time.perf_counter() - start)
    for tasks, seconds in spent.items():
        low, middle, high = 1e3 * np.quantile(seconds[WARM_UP:], (0.25, 0.5, 0.75))
        print(f"{tasks:2} task(s): {middle:.2f} [{low:.2f}, {high:.2f}] ms an update")


if __name__ == "__main__":
    main()
