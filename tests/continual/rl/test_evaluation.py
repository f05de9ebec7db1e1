"""Evaluation: the same episodes each time, by hand what they say, and no trace in the generators of training."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from support.rl_learners import MarkedEnv, learn_tasks, make_learner, whole_state
from support.trees import assert_equal_trees

from sparserl.agents.agent_state import generator_state
from sparserl.continual.rl.evaluation import COLUMNS, Episode, TaskEvaluator
from sparserl.continual.supervised.runner import run_sequence
from sparserl.envs import AppendTaskId

N_TASKS = 3


class ScriptedEnv(gym.Env[Any, Any]):
    """Rewards 1, 2, 3, ... for so many steps; success at some of them, by number."""

    def __init__(self, length: int, successes: tuple[int, ...] | None, *, truncates: bool = False) -> None:
        self.length, self.successes, self.truncates = length, successes, truncates
        self.observation_space = gym.spaces.Box(-1.0, 1.0, (1,))
        self.action_space = gym.spaces.Box(np.array([-3.0, 10.0]), np.array([-1.0, 20.0]), dtype=np.float64)
        self.taken, self.seeds, self.actions, self.closed = 0, [], [], False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.taken = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        assert self.taken < self.length, "goes on after its end"
        self.actions.append(np.asarray(action).tolist())
        self.taken += 1
        info = {} if self.successes is None else {"success": float(self.taken in self.successes)}
        over = self.taken == self.length
        return np.zeros(1, np.float32), self.taken, over and not self.truncates, over and self.truncates, info

    def close(self) -> None:
        self.closed = True


class Scripts:
    """Makes the scripted environments one after the other, and remembers them."""

    def __init__(self, *envs: ScriptedEnv) -> None:
        self.envs, self.tasks = envs, []

    def __call__(self, task: int) -> ScriptedEnv:
        self.tasks.append(task)
        return self.envs[len(self.tasks) - 1]


def constant(observations: np.ndarray, deterministic: bool) -> np.ndarray:
    """Says in its action which kind it is."""
    return np.tile([-2.0 if deterministic else -1.5, 15.0], (len(observations), 1))


def evaluator(make_env: Callable[[int], Any], stochastic: int = 2, deterministic: int = 1, seed: int = 0) -> Any:
    return TaskEvaluator(make_env, N_TASKS, stochastic=stochastic, deterministic=deterministic, seed=seed)


def marked(task: int) -> gym.Env[Any, Any]:
    return AppendTaskId(MarkedEnv(task), task, N_TASKS)


# --- by hand ------------------------------------------------------------------------------------------


def test_returns_lengths_and_success_by_hand() -> None:
    scripts = Scripts(
        ScriptedEnv(3, (2,)),  # 1 + 2 + 3; success on the way, not at the end
        ScriptedEnv(1, (1,)),
        ScriptedEnv(4, (), truncates=True),
    )
    own = evaluator(scripts)
    expected = [
        Episode(1, True, 0, 6.0, 3, True, False),
        Episode(1, True, 1, 1.0, 1, True, True),
        Episode(1, False, 0, 10.0, 4, False, False),
    ]
    assert own(constant, 1) == expected
    assert own(constant, 1) == expected
    assert scripts.tasks == [1, 1, 1]  # made once
    assert [env.actions for env in scripts.envs] == [[[-1.5, 15.0]] * 6, [[-1.5, 15.0]] * 2, [[-2.0, 15.0]] * 8]
    own.close()
    assert all(env.closed for env in scripts.envs)


def test_where_no_success_is_signalled_none_is_claimed() -> None:
    (episode,) = evaluator(Scripts(ScriptedEnv(2, None)), 1, 0)(constant, 0)
    assert (episode.success, episode.success_last) == (None, None)
    assert episode.row() == dict(zip(COLUMNS, (0, 1, 0, 3.0, 2, "", "", 0), strict=True))


def test_an_episode_as_a_row() -> None:
    row = Episode(2, False, 1, -4.5, 7, True, False).row()
    assert row == dict(zip(COLUMNS, (2, 0, 1, -4.5, 7, 1, 0, 0), strict=True))
    assert type(row["success"]) is int


@pytest.mark.parametrize(("stochastic", "deterministic"), [(3, 2), (0, 2), (2, 0)])
def test_as_many_of_each_kind_as_asked_for(stochastic: int, deterministic: int) -> None:
    own = evaluator(Scripts(*[ScriptedEnv(length, None) for length in range(1, 6)]), stochastic, deterministic)
    found = own(constant, 0)
    assert [(one.stochastic, one.episode) for one in found] == [
        *[(True, number) for number in range(stochastic)],
        *[(False, number) for number in range(deterministic)],
    ]
    assert [one.length for one in found] == list(range(1, stochastic + deterministic + 1))
    assert [one.stochastic for one in own.random(0)] == [True] * stochastic


# --- the same episodes --------------------------------------------------------------------------------


def test_resets_are_seeded_by_task_and_place() -> None:
    envs = {task: [ScriptedEnv(1, None) for _ in range(3)] for task in range(2)}
    left = {task: iter(own) for task, own in envs.items()}
    own = evaluator(lambda task: next(left[task]))
    for _ in range(2):
        for task in range(2):
            own(constant, task)
    own.random(0)
    seeds = [env.seeds for task in range(2) for env in envs[task]]
    assert all(len(set(one)) == 1 for one in seeds)
    assert len({one[0] for one in seeds}) == 6
    assert [len(one) for one in seeds] == [3, 3, 2, 2, 2, 2]  # the random policy has no deterministic episode


def test_the_random_policy_repeats_and_keeps_to_the_bounds() -> None:
    runs = []
    for seed in (0, 0, 1):
        scripts = Scripts(*[ScriptedEnv(20, None) for _ in range(3)])
        own = evaluator(scripts, seed=seed)
        own.random(0)
        own.random(0)
        first, second, unused = (np.array(env.actions) for env in scripts.envs)
        assert unused.size == 0
        np.testing.assert_array_equal(first[:20], first[20:])
        assert not np.array_equal(first, second)
        for env, actions in zip(scripts.envs, (first, second), strict=False):
            assert (actions >= env.action_space.low).all()
            assert (actions <= env.action_space.high).all()
            assert (np.ptp(actions, axis=0) > [1.0, 5.0]).all()
        runs.append(first)
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_a_policy_that_stays_has_the_same_episodes_and_another_seed_others() -> None:
    learner = make_learner()
    list(learner.train())
    found = []
    for seed in (0, 0, 5):
        own = evaluator(marked, seed=seed)
        for _ in range(2):
            torch.manual_seed(3)
            found.append(own(learner.policy(0), 0))
    assert found[0] == found[1] == found[2] == found[3]
    assert found[0] != found[4]
    returns = [one.returned for one in found[0]]
    assert len(set(returns)) == 3


def test_drawn_actions_differ_from_the_mode() -> None:
    # All three begin in the same state, so that only the draw tells them apart.
    class Same(MarkedEnv):
        def reset(self, **options: Any) -> Any:
            return super().reset(seed=1)

    learner = make_learner()
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        own = evaluator(lambda task: AppendTaskId(Same(task), task, N_TASKS), 2, 2)
        found.append([one.returned for one in own(learner.policy(0), 0)])
    (first, second, mode, again), (other, *_, other_mode) = found
    assert len({first, second, mode, other}) == 4
    assert mode == again == other_mode


# --- no trace -----------------------------------------------------------------------------------------


def test_nothing_is_drawn_from_global_generators_but_by_the_policy() -> None:
    own, learner = evaluator(marked, 2, 1), make_learner()
    before = generator_state()
    own.random(0)
    evaluator(marked, 0, 2)(learner.policy(1), 1)
    assert_equal_trees(generator_state(), before)
    own(learner.policy(0), 0)
    now = generator_state()
    assert_equal_trees({**now, "torch": 0}, {**before, "torch": 0})
    assert not torch.equal(now["torch"], before["torch"])


def test_an_evaluated_run_learns_what_an_unevaluated_one_learns() -> None:
    states = []
    for evaluates in (False, True):
        learner, own = (
            make_learner(steps=(20, 20)),
            TaskEvaluator(
                lambda task: AppendTaskId(MarkedEnv(task), task, 2), 2, stochastic=1, deterministic=1, seed=0
            ),
        )
        for place, _ in enumerate(run_sequence(learner)):
            if evaluates and place % 6 == 1:
                for task in range(2):
                    with learner.isolated_rng("evaluation", task):
                        own(learner.policy(task), task)
                        random.random()
        states.append(whole_state(learner))
    assert_equal_trees(states[0]["agent"]["modules"], states[1]["agent"]["modules"])
    assert_equal_trees(states[0]["agent"]["generators"], states[1]["agent"]["generators"])
    assert_equal_trees(states[0]["buffer"], states[1]["buffer"])


def test_old_tasks_are_answered_while_another_is_learned() -> None:
    learner = make_learner("packnet")
    learn_tasks(learner, 1)
    own = evaluator(marked)
    with learner.isolated_rng("evaluation", 0):
        before = own(learner.policy(0), 0)
    learn_tasks(learner, 2)
    with learner.isolated_rng("evaluation", 0):
        assert own(learner.policy(0), 0) == before
