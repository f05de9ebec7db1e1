"""A sequence as one environment: its event tape, its borders, and how it goes on from a stored state."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from support.envs import SpacesOnly
from support.rl_learners import MarkedEnv, made_up_sequence
from support.trees import assert_equal_trees

from sparserl.envs import AppendTaskId, EnvState, SequenceEnv, capture_state, restore_state
from sparserl.envs.simulation_state import NotCapturable
from sparserl.envs.tasks.sequence_env import BORDER
from sparserl.errors import CheckpointError, ConfigError

ACTION = np.array([0.5, -0.5], np.float32)


class TapedEnv(MarkedEnv):
    """Writes down what is done to it."""

    def __init__(self, tape: list[str], task: int, **options: Any) -> None:
        super().__init__(task, **options)
        self.tape = tape

    def reset(self, **options: Any) -> Any:
        self.tape.append(f"reset {self.task}")
        return super().reset(**options)

    def step(self, action: Any) -> Any:
        self.tape.append(f"step {self.task}")
        return super().step(action)

    def close(self) -> None:
        self.tape.append(f"close {self.task}")


def make(steps: Sequence[int] = (5, 3, 4), *, seed: int = 0, **options: Any) -> SequenceEnv:
    return SequenceEnv(made_up_sequence(steps), lambda task: MarkedEnv(task.index, **options), seed=seed)


def run(env: gym.Env[Any, Any], steps: int, *, reset: bool = True) -> list[Any]:
    """What so many steps give, with a reset before the first and after each episode."""
    seen: list[Any] = [env.reset(seed=0)] if reset else []
    for _ in range(steps):
        seen.append(env.step(ACTION))
        if seen[-1][2] or seen[-1][3]:
            seen.append(env.reset())
    return seen


# --- what happens when --------------------------------------------------------------------------------


def test_the_event_tape() -> None:
    tape: list[str] = []
    env = SequenceEnv(made_up_sequence((5, 3, 4)), lambda task: TapedEnv(tape, task.index, horizon=4), seed=0)
    run(env, 12)
    assert tape == [
        *["reset 0", *["step 0"] * 4],  # the time limit
        *["reset 0", "step 0"],  # a border within an episode
        *["close 0", "reset 1", *["step 1"] * 3],
        *["close 1", "reset 2", *["step 2"] * 4],  # both at once
        "reset 2",  # as vectorised environments do at once
    ]
    env.close()
    assert tape[-1] == "close 2"


def test_steps_are_counted_by_task_and_not_by_episode() -> None:
    env = make((5, 3), horizon=100)
    env.reset(seed=0)
    found = []
    for _ in range(5):
        env.step(ACTION)
        env.reset()  # a reset in the middle costs nothing
        found.append((env.task, env.task_steps, env.steps_left))
    assert found == [(0, 1, 4), (0, 2, 3), (0, 3, 2), (0, 4, 1), (1, 0, 3)]


@pytest.mark.parametrize(
    ("horizon", "terminates", "flags"),
    [
        (100, False, (False, True)),  # nothing but the border
        (5, False, (False, True)),  # the time limit on that very step
        (5, True, (True, False)),  # the environment's own end
        (4, True, (False, True)),  # its end one step before
    ],
)
def test_a_border_is_a_truncation_unless_the_environment_ended(
    horizon: int, terminates: bool, flags: tuple[bool, bool]
) -> None:
    steps = [one for one in run(make((5, 3), horizon=horizon, terminates=terminates), 5) if len(one) == 5]
    assert [BORDER in info for *_, info in steps] == [False] * 4 + [True]
    assert steps[-1][4][BORDER] is True
    assert steps[-1][2:4] == flags
    assert [one[2] for one in steps[:3]] == [False] * 3


def test_the_last_observation_is_the_tasks_own_and_the_next_tasks_comes_with_the_reset() -> None:
    env = make((5, 3, 4), horizon=100)
    marks = [one[0][0] for one in run(env, 12)]
    #       reset 0 and its steps, reset 1 ...
    assert marks == [0] * 6 + [1] * 4 + [2] * 5 + [2]


def test_nobody_steps_beyond_a_budget() -> None:
    env = make((2, 1))
    env.reset(seed=0)
    env.step(ACTION)
    env.step(ACTION)
    with pytest.raises(RuntimeError, match="the 2 steps of task 0 are over: call reset, or stop after the last"):
        env.step(ACTION)
    assert env.task_steps == 2
    env.reset()
    env.step(ACTION)
    env.reset()
    assert (env.task, env.task_steps) == (1, 1)
    with pytest.raises(RuntimeError, match="the 1 steps of task 1 are over"):
        env.step(ACTION)


@pytest.mark.parametrize(
    ("what", "other"),
    [
        ("observation space", lambda: MarkedEnv(1, n_obs=4)),
        ("action space", lambda: SpacesOnly(MarkedEnv(0).observation_space, gym.spaces.Box(-1.0, 1.0, (3,)))),
    ],
)
def test_tasks_with_other_spaces_are_refused(what: str, other: Callable[[], gym.Env[Any, Any]]) -> None:
    env = SequenceEnv(made_up_sequence((1, 1)), lambda task: other() if task.index else MarkedEnv(0), seed=0)
    env.reset(seed=0)
    env.step(ACTION)
    with pytest.raises(ConfigError, match=f"^task 1 has another {what} than task 0$"):
        env.reset()


# --- seeds --------------------------------------------------------------------------------------------


def test_it_repeats_with_the_same_seeds() -> None:
    first, again, other = (run(make(seed=seed), 12) for seed in (3, 3, 4))
    assert_equal_trees(first, again)
    assert_equal_trees(first[:6], other[:6])  # the first reset has the agent's seed
    assert not np.array_equal(first[7][0], other[7][0])


def test_tasks_begin_differently_and_a_given_seed_counts() -> None:
    starts = {}
    for given in (None, 11):
        env = make((1, 1, 1), seed=0)
        starts[given] = []
        env.reset(seed=0)
        for _ in range(2):
            env.step(ACTION)
            starts[given].append(env.reset(seed=given)[0][1:])
    assert not np.array_equal(*starts[None])
    assert np.array_equal(*starts[11])


def test_its_spaces_draw_for_themselves() -> None:
    # The agent draws its random actions from them, through all tasks.
    env, alone = make((1, 1)), MarkedEnv(0).action_space
    env.action_space.seed(5)
    alone.seed(5)
    drawn = []
    env.reset(seed=0)
    for _ in range(2):
        drawn.append(env.action_space.sample())
        env.current.action_space.seed(5)
        env.step(ACTION)
        env.reset()
    np.testing.assert_array_equal(drawn, [alone.sample(), alone.sample()])


# --- state --------------------------------------------------------------------------------------------


def through_text(state: EnvState) -> EnvState:
    return EnvState(
        {name: array.copy() for name, array in state.tensors.items()}, json.loads(json.dumps(state.scalars))
    )


def wrapped(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """As an agent's environment is: something around the sequence that has a state of its own."""
    return gym.wrappers.TimeLimit(env, 1000)


def tasks_in_wrappers(seed: int = 0) -> SequenceEnv:
    return SequenceEnv(
        made_up_sequence((5, 6, 4)),
        lambda task: AppendTaskId(MarkedEnv(task.index, horizon=4), task.index, 3),
        seed=seed,
    )


@pytest.mark.parametrize("resets", [False, True], ids=["before the reset", "after the reset"])
@pytest.mark.parametrize("taken", range(1, 16))
def test_a_captured_state_goes_on_bit_for_bit(taken: int, resets: bool) -> None:
    # 4: the episode is over; 5, 11: a border; 7: in the middle of task 1; 15: the very end.
    env = wrapped(tasks_in_wrappers())
    env.action_space.seed(3)
    run(env, taken - 1)
    *_, terminated, truncated, _ = env.step(ACTION)
    over = terminated or truncated
    if over and resets:
        env.reset()
    state = capture_state(env)
    assert state is not None
    other = wrapped(tasks_in_wrappers())
    restore_state(other, through_text(state))
    for one in (env, other):
        if over and not resets:
            one.reset()
    np.testing.assert_array_equal(other.action_space.sample(), env.action_space.sample())
    assert_equal_trees(run(other, 15 - taken, reset=False), run(env, 15 - taken, reset=False))
    one, twin = capture_state(env), capture_state(other)
    assert one is not None
    assert twin is not None
    assert_equal_trees(vars(one), vars(twin))


def test_its_own_state_names_task_and_steps() -> None:
    env, other = tasks_in_wrappers(), tasks_in_wrappers()
    run(env, 7)
    state = env.state_dict()
    assert (state["task"], state["taken"]) == (1, 2)
    other.load_state_dict(state)
    assert (other.task, other.task_steps, other.steps_left) == (1, 2, 4)
    assert_equal_trees(run(other, 8, reset=False), run(env, 8, reset=False))


def test_a_state_is_not_changed_by_going_on() -> None:
    env, other = tasks_in_wrappers(), tasks_in_wrappers()
    run(env, 7)
    state = env.state_dict()
    rest = []
    for _ in range(2):
        other.load_state_dict(state)
        rest.append(run(other, 8, reset=False))
    assert_equal_trees(*rest)


def test_a_position_can_be_entered_without_a_state() -> None:
    env = make((5, 3, 4))
    env.enter(1, 2)
    assert env.reset(seed=0)[0][0] == 1
    assert env.step(ACTION)[4] == {BORDER: True}
    env.enter(1, 3)  # exactly at a border
    assert env.reset()[0][0] == 2


def test_the_state_of_a_longer_sequence_is_refused() -> None:
    env = make((1, 1, 1))
    run(env, 2)
    with pytest.raises(CheckpointError, match="the stored state is of task 2, of 2 here"):
        make((1, 1)).load_state_dict(env.state_dict())


def test_a_task_without_a_state_gives_none() -> None:
    space = gym.spaces.Box(-1.0, 1.0, (2,))
    env = SequenceEnv(made_up_sequence((3,)), lambda task: SpacesOnly(space), seed=0)
    env.reset(seed=0)
    with pytest.raises(NotCapturable, match="the state of task 0 cannot be captured"):
        env.state_dict()
    assert capture_state(env) is None
