"""Exploration by the best of earlier policies: who acts when, by hand and in a learner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.rl_learners import (
    N_OBS,
    comparable,
    env_of,
    learn_tasks,
    make_learner,
    restore,
    whole_state,
)
from support.trees import assert_equal_trees

from sparserl.agents import DSTD3
from sparserl.continual.rl.borders import BorderConfig
from sparserl.continual.rl.exploration import BestReturn
from sparserl.errors import ConfigError
from sparserl.recording import checkpoint

BEST = {"exploration": "best_return"}


class Policies:
    """Answers for task t with actions t."""

    n_tasks = 4

    def policy(self, task: int) -> Any:
        def act(observations: np.ndarray, deterministic: bool) -> np.ndarray:
            assert not deterministic
            assert observations.tolist() == [[5.0, *np.eye(4)[task]]]  # the id of the task that it answers for
            return np.full((1, 2), float(task))

        return act


def test_each_earlier_policy_acts_for_an_episode_and_then_the_best_on_average() -> None:
    explorer = BestReturn(Policies())  # type: ignore[arg-type]  # what it asks for
    explorer.begin(3)
    observations = np.array([[5.0, 0.0, 0.0, 0.0, 1.0]])
    acted = []
    # Episodes of two steps that return 1, 3 and 2; then policy 1 again: -3, which makes its mean 0, below that of 2.
    for rewards in ((0.5, 0.5), (3.0, 0.0), (0.0, 2.0), (-1.0, -2.0), (4.0, 4.0), (0.0, 0.0)):
        for step, reward in enumerate(rewards):
            acted.append(int(explorer(observations)[0, 0]))
            explorer.see(reward, step == 1)
    assert acted == [0, 0, 1, 1, 2, 2, 1, 1, 2, 2, 2, 2]
    assert explorer.returns == [[1.0], [3.0, -3.0], [2.0, 8.0, 0.0]]
    assert observations.tolist() == [[5.0, 0.0, 0.0, 0.0, 1.0]]
    explorer.begin(1)
    assert explorer.returns == [[]]


def test_steps_of_others_are_no_returns() -> None:
    explorer = BestReturn(Policies())  # type: ignore[arg-type]  # what it asks for
    explorer.begin(1)
    explorer.see(7.0, True)
    assert explorer.returns == [[]]


@pytest.mark.parametrize("algo", [None, DSTD3])
def test_earlier_policies_act_at_first_and_their_transitions_are_those_of_the_task(
    algo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = make_learner(steps=(20, 20, 25), border=BEST, **({} if algo is None else {"algo": algo}))
    asked: list[tuple[int, int]] = []
    policy = learner.policy

    def watched(task: int) -> Any:
        asked.append((learner.task, task))
        return policy(task)

    monkeypatch.setattr(learner, "policy", watched)
    learn_tasks(learner, 3)
    # Ten steps of each later task; episodes have 7.
    assert asked == [(1, 0)] * 10 + [(2, 0)] * 7 + [(2, 1)] * 3
    buffer = learner.agent.replay_buffer
    seen = buffer.observations[: buffer.pos, 0]
    assert (seen[:, 0] == 2.0).all()
    assert (seen[:, N_OBS:] == np.eye(3)[2]).all()
    actions = buffer.actions[: buffer.pos, 0]
    assert np.abs(actions).max() <= 1.0


def test_the_first_task_begins_with_random_actions() -> None:
    states = []
    for border in (BEST, {}):
        learner = make_learner(steps=(20, 20), border=border)
        list(learner.train())
        states.append(comparable(whole_state(learner)))
        states[-1]["learner"].pop("exploration", None)
    assert_equal_trees(*states)


def test_interrupted_it_goes_on_as_if_never_interrupted(tmp_path: Path) -> None:
    whole = make_learner(steps=(20, 20, 25), border=BEST)
    learn_tasks(whole, 2)
    steps = whole.train()
    for _ in range(9):  # within the second episode
        next(steps)
    state = whole_state(whole)
    assert [len(one) for one in state["learner"]["exploration"]["returns"]] == [1, 0]
    list(steps)
    last = comparable(whole_state(whole))
    stored = dict(state)
    checkpoint.save(tmp_path / "state", {name: stored.pop(name) for name in ("learner", "agent")})
    resumed = make_learner(steps=(20, 20, 25), border=BEST)
    restore(resumed, {**stored, **checkpoint.load(tmp_path / "state")})
    list(resumed.train())
    assert_equal_trees(comparable(whole_state(resumed)), last)
    assert env_of(resumed) is not env_of(whole)


def test_without_output_layers_of_earlier_tasks_it_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^--border.exploration best_return acts by output layers of earlier tasks"):
        BorderConfig(exploration="best_return", heads="shared")
    with pytest.raises(ConfigError, match=r"^scratch begins each task like a fresh agent"):
        make_learner("scratch", border=BEST)
