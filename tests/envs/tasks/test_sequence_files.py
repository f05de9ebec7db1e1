"""Environments of tasks, sequences from files, and bad input."""

from __future__ import annotations

from collections import Counter
from importlib import resources
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from support.sequences import PLAIN, build

from sparserl.config import dump
from sparserl.envs import (
    Modification,
    PartFactors,
    RLSequence,
    TaskSpec,
    WrapperConfig,
    build_rl_sequence,
    capture_state,
    check_spaces,
    feature_origins,
    load_rl_sequence,
    make_env,
    make_task_env,
    restore_state,
)
from sparserl.errors import ConfigError


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


# -- Environments ----------------------------------------------------------------------------------


def test_wrappers_of_the_run_and_the_task_id() -> None:
    task = build("halfcheetah_transfer").tasks[2]
    wrappers = WrapperConfig(noise_fraction=0.5, permute=True)
    env = make_task_env(task, wrappers, 3, append_id_of=4)
    assert env.observation_space.shape == (17 + 17 + 4,)
    observation, _ = env.reset(seed=0)
    assert observation[-4:].tolist() == [0.0, 0.0, 1.0, 0.0]
    origins = feature_origins(env)
    broken = [0, 1, 5, 6, 9, 12, 13, 14]
    assert np.flatnonzero(observation == 0.0).tolist() == sorted(
        [*np.flatnonzero(np.isin(origins, broken)), 34, 35, 37]
    )
    other = make_task_env(build("halfcheetah_transfer").tasks[1], wrappers, 3, append_id_of=4)
    assert feature_origins(other).tolist() == origins.tolist(), "one permutation for all tasks"
    assert env.observation_space == other.observation_space


def test_an_unmodified_task_is_the_plain_environment() -> None:
    env, plain = make_task_env(build("ant_distraction").tasks[0], PLAIN, 0), make_env("Ant-v5")
    assert type(env) is type(plain)
    action = np.full(8, 0.3, np.float32)
    answers = []
    for each in (env, plain):
        each.reset(seed=4)
        answers.append([each.step(action)[0].tolist() for _ in range(20)])
    assert answers[0] == answers[1]


def test_a_task_is_captured_and_restored_with_its_id() -> None:
    def fresh() -> gym.Env[Any, Any]:
        return make_task_env(build("halfcheetah_transfer").tasks[2], PLAIN, 0, append_id_of=4)

    env, other = fresh(), fresh()
    action = np.full(6, 0.3, np.float32)
    env.reset(seed=0)
    for _ in range(20):
        env.step(action)
    state = capture_state(env)
    assert state is not None
    restore_state(other, state)
    assert [env.step(action)[0].tolist() for _ in range(20)] == [other.step(action)[0].tolist() for _ in range(20)]


# -- Files and bad input ---------------------------------------------------------------------------


def test_a_sequence_of_a_user(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        tasks:
          - env: Hopper-v5
            steps: 2e3
            modification: {gravity: 0.5, parts: [{part: torso, mass: 2}]}
          - {env: Hopper-v5, steps: 500, name: plain, episode_steps: 50}
        """,
    )
    heavy = Modification(gravity=0.5, parts=(PartFactors("torso", mass=2.0),))
    assert load_rl_sequence(path) == RLSequence(
        "mine",
        (
            TaskSpec("Hopper-v5", "Hopper-v5", heavy, 2000, 0),
            TaskSpec("plain", "Hopper-v5", Modification(), 500, 1, 50),
        ),
    )


def test_arguments_of_environments(tmp_path: Path) -> None:
    other = "{env: Hopper-v5, steps: 9, kwargs: {healthy_reward: 5.0, reset_noise_scale: 0}}"
    text = f"tasks: [{{env: Hopper-v5, steps: 9}}, {other}]"
    path = write(tmp_path, text)
    sequence = load_rl_sequence(path)
    assert sequence.tasks[1].kwargs == {"healthy_reward": 5.0, "reset_noise_scale": 0}
    check_spaces(sequence, PLAIN, 0)
    rewards = []
    for task in sequence.tasks:
        env = make_task_env(task, PLAIN, 0)
        env.reset(seed=0)
        rewards.append(float(env.step(np.zeros(3, np.float32))[1]))
    assert 3.5 < rewards[1] - rewards[0] < 4.5  # 5 and 1, but for the noise of the reset
    path.write_text(dump(sequence))
    assert load_rl_sequence(path) == sequence
    for kwargs, message in (
        ({"no_such": 1}, "task 0: environment 'Hopper-v5' cannot be made with {'no_such': 1}: TypeError: "),
        ({"render_mode": "human"}, "task 0: environment 'Hopper-v5': render_mode is no argument of its own"),
        ({"xml_file": "nowhere.xml"}, "task 0: environment 'Hopper-v5' cannot be made"),
    ):
        task = TaskSpec("x", "Hopper-v5", Modification(), 1, 0, kwargs=kwargs)
        with pytest.raises(ConfigError) as caught:
            make_task_env(task, PLAIN, 0)
        assert str(caught.value).startswith(message)
        assert "\n" not in str(caught.value)


def test_the_sequence_that_comes_along() -> None:
    folder = resources.files("sparserl") / "configs" / "sequences"
    sequence = load_rl_sequence(Path(str(folder / "halfcheetah_gravity_small.yaml")))
    assert [task.modification.gravity for task in sequence.tasks] == [0.5, 0.75, 1.25, 1.5]
    assert Counter(task.env for task in sequence.tasks) == {"HalfCheetah-v5": 4}
    check_spaces(sequence, PLAIN, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: []", "unknown config key 'task'; did you mean 'tasks'? (valid: name, tasks)"),
        ("name: x", "tasks must be a list, got None"),
        ("tasks: {env: Hopper-v5}", "tasks must be a list, got {'env': 'Hopper-v5'}"),
        ("tasks: []", "sequence 'mine' has no tasks"),
        ("tasks: [Hopper-v5]", ", task 0: must hold keys and values, got 'Hopper-v5'"),
        ("tasks: [{env: a, steps: 1}, {steps: 1}]", ", task 1: env must be str, got None"),
        ("tasks: [{env: a}]", ", task 0: steps must be int, got None"),
        ("tasks: [{env: a, steps: 0}]", ", task 0: steps must be at least 1, got 0"),
        ("tasks: [{env: a, steps: 1.5}]", ", task 0: steps must be int, got 1.5"),
        ("tasks: [{env: a, steps: 1, episode_steps: 0}]", ", task 0: episode_steps must be at least 1, got 0"),
        (
            "tasks: [{env: a, step: 1}]",
            ", task 0: unknown config key 'step'; did you mean 'steps'? (valid: name, env, modification, steps, index, "
            "episode_steps, kwargs)",
        ),
        ("tasks: [{env: a, steps: 1, kwargs: 3}]", ", task 0: kwargs must be dict, got 3"),
        (
            "tasks: [{env: a, steps: 1, modification: {gravty: 2}}]",
            ", task 0: unknown config key 'modification.gravty'; did you mean 'modification.gravity'?",
        ),
        (
            "tasks: [{env: a, steps: 1, modification: {parts: [{part: x, weight: 2}]}}]",
            ", task 0: unknown config key 'modification.parts.weight'; did you mean 'modification.parts.length'?",
        ),
        (
            "tasks: [{env: a, steps: 1, modification: {friction: 0}}]",
            ", task 0: modification.friction must be positive, got 0.0",
        ),
        ("tasks: [{env: a, steps: 1, index: 4}]", "task 0 of sequence 'mine' has index 4"),
    ],
)
def test_bad_files(text: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_rl_sequence(path)
    assert str(caught.value) == f"{path}{message if message.startswith(',') else f': {message}'}"


def test_bad_arguments() -> None:
    for arguments, message in (
        (("halfcheeta_gravity", 0, None), "unknown sequence 'halfcheeta_gravity'; did you mean 'halfcheetah_gravity'?"),
        (("hopper_gravity", 0, 21), "sequence 'hopper_gravity' has 1 to 20 tasks, got 21"),
        (("ant_transfer", 0, 0), "sequence 'ant_transfer' has 1 to 8 tasks, got 0"),
        (("ant_transfer", -1, None), "seed must not be negative, got -1"),
    ):
        with pytest.raises(ConfigError) as caught:
            build(*arguments)
        assert str(caught.value) == message
    with pytest.raises(ConfigError, match=r"^steps must be at least 1, got 0$"):
        build_rl_sequence("ant_transfer", seed=0, steps=0)


def test_tasks_of_other_spaces() -> None:
    def sequence(*env_ids: str) -> RLSequence:
        return RLSequence("mixed", tuple(TaskSpec("x", env, Modification(), 1, i) for i, env in enumerate(env_ids)))

    for env_ids, message in (
        (
            ("HalfCheetah-v5", "Walker2d-v5", "Hopper-v5"),
            "tasks 0 and 2 differ in actions: 6 (HalfCheetah-v5) and 3 (Hopper-v5); "
            "one network needs the same in all tasks",
        ),
        (
            ("Hopper-v5", "Hopper-v5", "InvertedDoublePendulum-v5"),
            "tasks 0 and 2 differ in actions: 3 (Hopper-v5) and 1 (InvertedDoublePendulum-v5); "
            "one network needs the same in all tasks",
        ),
        (
            ("InvertedDoublePendulum-v5", "InvertedPendulum-v5"),
            "tasks 0 and 1 differ in actions: Box(-1.0, 1.0, (1,), float32) (InvertedDoublePendulum-v5) and "
            "Box(-3.0, 3.0, (1,), float32) (InvertedPendulum-v5); one network needs the same in all tasks",
        ),
        (
            ("Swimmer-v5", "Reacher-v5"),
            "tasks 0 and 1 differ in observations: 8 (Swimmer-v5) and 10 (Reacher-v5); "
            "one network needs the same in all tasks",
        ),
    ):
        with pytest.raises(ConfigError) as caught:
            check_spaces(sequence(*env_ids), PLAIN, 0)
        assert str(caught.value) == message
    with pytest.raises(ConfigError, match=r"^task 1: unknown environment 'Hoper-v5'; the closest is 'Hopper-v5'$"):
        check_spaces(sequence("Hopper-v5", "Hoper-v5"), PLAIN, 0)
    feet = TaskSpec("x", "Hopper-v5", Modification(parts=(PartFactors("feet"),)), 1, 0)
    with pytest.raises(ConfigError, match=r"^task 0: unknown body part 'feet'; did you mean 'foot'\?$"):
        check_spaces(RLSequence("x", (feet,)), PLAIN, 0)
