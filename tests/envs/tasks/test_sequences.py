"""`RL_SEQUENCES`, `build_rl_sequence`, `load_rl_sequence`, `make_task_env`: which tasks, from where, in which order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.envs.mujoco import MujocoEnv
from support.sequences import PLAIN, build

from sparserl import config
from sparserl.envs import (
    RL_SEQUENCES,
    Modification,
    RLSequence,
    TaskSpec,
    WrapperConfig,
    check_spaces,
    load_rl_sequence,
    make_task_env,
)
from sparserl.errors import ConfigError


def model_of(task: TaskSpec) -> Any:
    base = make_task_env(task, PLAIN, 0).unwrapped
    assert isinstance(base, MujocoEnv)
    return base.model


def of_task(sequence: RLSequence, name: str) -> TaskSpec:
    return next(task for task in sequence.tasks if task.name == name)


# -- Every sequence --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RL_SEQUENCES)
def test_every_sequence_can_be_made(name: str) -> None:
    if name.startswith("cw"):
        pytest.importorskip("metaworld")
    sequence = build(name)
    assert len(sequence) == RL_SEQUENCES[name].n_tasks
    assert [task.index for task in sequence.tasks] == list(range(len(sequence)))
    assert {task.steps for task in sequence.tasks} == {100}
    assert sequence == build(name)
    check_spaces(sequence, WrapperConfig(noise_fraction=0.5, permute=True), 0)
    assert len(build(name, n_tasks=RL_SEQUENCES[name].most_tasks)) == RL_SEQUENCES[name].most_tasks


@pytest.mark.parametrize("name", RL_SEQUENCES)
def test_every_sequence_is_plain_data(name: str, tmp_path: Path) -> None:
    sequence = build(name)
    (tmp_path / "written.yaml").write_text(config.dump(sequence))
    assert load_rl_sequence(tmp_path / "written.yaml") == sequence
    assert config.build(RLSequence, json.loads(json.dumps(config.plain(sequence)))) == sequence


# -- LPG-FTW ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "factors", "most"),
    [
        ("halfcheetah_gravity", [1.193679527005118, 0.5617169925624954, 1.1666115972798587, 1.0592089368350068], 20),
        ("hopper_gravity", [0.5323672751778389, 1.0424096630692734, 1.302919609536056, 0.5551594034694504], 20),
        ("walker2d_gravity", [0.6565463646320874, 0.916869844563392, 0.566806893241296, 1.3654063919835084], 50),
    ],
)
def test_gravities_of_the_literature(name: str, factors: list[float], most: int) -> None:
    """The first draws of `numpy.random.seed(500)`, 600 and 700, written down once from `numpy.random.rand() + 0.5`."""
    legacy = np.random.RandomState({"halfcheetah": 500, "hopper": 600, "walker2d": 700}[name.split("_")[0]])
    assert [legacy.rand() + 0.5 for _ in factors] == factors
    sequence = build(name)
    assert sorted(task.modification.gravity for task in sequence.tasks) == sorted(factors)
    assert all(task.modification == Modification(gravity=task.modification.gravity) for task in sequence.tasks)
    everything = build(name, n_tasks=most)
    assert {task.modification.gravity for task in everything.tasks} > set(factors)
    task = sequence.tasks[0]
    np.testing.assert_allclose(model_of(task).opt.gravity, [0.0, 0.0, -9.81 * task.modification.gravity], rtol=1e-12)


def test_the_order_is_that_of_the_runs_of_the_literature() -> None:
    """Run i there permutes with the seed 50 + 10 i; two of these permutations are written down."""
    for seed, order in ((0, [2, 1, 3, 0]), (1, [2, 0, 3, 1])):
        names = ["gravity 1.1937", "gravity 0.5617", "gravity 1.1666", "gravity 1.0592"]
        assert [task.name for task in build("halfcheetah_gravity", seed).tasks] == [names[place] for place in order]
    orders = {tuple(task.name for task in build("halfcheetah_gravity", seed).tasks) for seed in range(20)}
    assert len(orders) > 5
    assert len({frozenset(order) for order in orders}) == 1, "which tasks there are does not depend on the seed"
    everything = [task.name for task in build("halfcheetah_gravity", 0, n_tasks=20).tasks]
    drawn = np.random.RandomState(500).uniform(0.5, 1.5, 20)
    first_run = [15, 8, 9, 18, 3, 19, 7, 2, 17, 10, 12, 5, 6, 4, 14, 1, 13, 11, 0, 16]
    assert everything == [f"gravity {drawn[place]:.4f}" for place in first_run]
    assert len(build("walker2d_gravity", seed=2**40)) == 4


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("halfcheetah_bodyparts", [1.1936, 0.5617, 1.1666, 1.0592], [0.5851, 0.8924, 0.997, 0.8321]),
        ("hopper_bodyparts", [0.5323, 1.0424, 1.3029, 0.5551], [0.8822, 0.7109, 1.3523, 0.6185]),
        ("walker2d_bodyparts", [0.6565, 0.9168, 0.5668, 1.3654], [0.8022, 1.2412, 0.9104, 0.8451]),
    ],
)
def test_body_parts_of_the_literature(name: str, first: list[float], second: list[float]) -> None:
    drawn = [[part.radius for part in task.modification.parts] for task in build(name).tasks]
    assert first in drawn
    assert second in drawn
    assert len(drawn) == 4


def test_body_parts_in_the_model() -> None:
    """Cheetah: the radius of all four, the length of the leg alone; no other part changes. Walker: the right side."""
    task = of_task(build("halfcheetah_bodyparts"), "sizes 1.1936 0.5617 1.1666 1.0592")
    plain = model_of(TaskSpec("", "HalfCheetah-v5", Modification(), 1, 0))
    factors = {"torso": (1.1936, 1.0), "fthigh": (0.5617,) * 2, "fshin": (1.1666,) * 2, "ffoot": (1.0592,) * 2}
    model = model_of(task)
    for geom in range(1, model.ngeom):
        expected = plain.geom_size[geom, :2] * factors.get(model.geom(geom).name, (1.0, 1.0))
        np.testing.assert_allclose(model.geom_size[geom, :2], expected, rtol=1e-12)
    lighter = model.body_mass < plain.body_mass
    assert [model.body(body).name for body in np.flatnonzero(lighter)] == ["fthigh"]
    assert [part.part for part in build("walker2d_bodyparts").tasks[0].modification.parts] == [
        "torso_geom",
        "thigh_geom",
        "leg_geom",
        "foot_geom",
    ]


# -- CSP -------------------------------------------------------------------------------------------

SCENARIOS = {
    "halfcheetah_forgetting": ["hugefoot", "moon", "carry_stuff", "rainfall"],
    "halfcheetah_transfer": ["carry_stuff_hugegravity", "moon", "defective_module", "hugefoot_rainfall"],
    "halfcheetah_distraction": ["normal", "inverted_actions"] * 2,
    "halfcheetah_composability": ["tinyfoot", "moon", "carry_stuff_hugegravity", "tinyfoot_moon"],
    "ant_forgetting": ["normal", "hugefoot", "rainfall", "moon"],
    "ant_transfer": [
        "disabled_first_diagonal",
        "disabled_second_diagonal",
        "disabled_forefeet",
        "disabled_backfeet",
    ],
    "ant_distraction": ["normal", "inverted_actions"] * 2,
    "ant_composability": ["disabled_hard1", "disabled_hard2", "disabled_forefeet", "disabled_backfeet"],
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenarios_in_their_order(name: str) -> None:
    assert [task.name for task in build(name, seed=7).tasks] == SCENARIOS[name]
    assert [task.name for task in build(name, n_tasks=8).tasks] == SCENARIOS[name] * 2, "the long scenario"
    assert [task.name for task in build(name, n_tasks=2).tasks] == SCENARIOS[name][:2]


# name -> gravity, friction of the foot, then per changed body: mass and radius (in m)
CHEETAHS = {
    "hugefoot": (-9.81, 0.4, {"bfoot": (1.5, 0.069), "ffoot": (1.5, 0.069)}),
    "tinyfoot": (-9.81, 0.4, {"bfoot": (0.5, 0.023), "ffoot": (0.5, 0.023)}),
    "moon": (-1.4715, 0.4, {}),
    "rainfall": (-9.81, 0.16, {}),
    "carry_stuff": (-9.81, 0.4, {"torso": (4.0, 0.184)}),
    "carry_stuff_hugegravity": (-14.715, 0.4, {"torso": (4.0, 0.184)}),
    "hugefoot_rainfall": (-9.81, 0.16, {"bfoot": (1.5, 0.069), "ffoot": (1.5, 0.069)}),
    "tinyfoot_moon": (-1.4715, 0.4, {"bfoot": (0.5, 0.023), "ffoot": (0.5, 0.023)}),
}


@pytest.mark.parametrize("name", CHEETAHS)
def test_published_multipliers_of_the_cheetah(name: str) -> None:
    gravity, friction, bodies = CHEETAHS[name]
    scenario = next(scenario for scenario, names in SCENARIOS.items() if name in names)
    model = model_of(of_task(build(scenario), name))
    plain = model_of(TaskSpec("", "HalfCheetah-v5", Modification(), 1, 0))
    np.testing.assert_allclose(model.opt.gravity[2], gravity, rtol=1e-12)
    np.testing.assert_allclose(model.geom_friction[:, 0], friction, rtol=1e-12)
    for body in range(1, model.nbody):
        mass, radius = bodies.get(model.body(body).name, (1.0, 0.046))
        np.testing.assert_allclose(model.body_mass[body], mass * plain.body_mass[body], rtol=1e-12)
        np.testing.assert_allclose(model.geom_size[model.body_geomadr[body], 0], radius, rtol=1e-12)
    np.testing.assert_allclose(model.geom("head").size[0], 0.046)
    np.testing.assert_allclose(model.geom_size[:, 1], plain.geom_size[:, 1])


def test_published_multipliers_of_the_ant() -> None:
    plain, *changed = (model_of(task) for task in build("ant_forgetting").tasks)
    huge, rain, moon = changed
    feet = [4, 7, 10, 13]  # each body has one geom of the same number
    np.testing.assert_allclose(huge.body_mass[feet], 3.0 * plain.body_mass[feet])
    np.testing.assert_allclose(huge.geom_size[feet, 0], 0.24)
    others = [body for body in range(plain.nbody) if body not in feet]
    assert np.array_equal(huge.body_mass[others], plain.body_mass[others])
    np.testing.assert_allclose(rain.geom_friction[:, 0], 0.375)
    np.testing.assert_allclose(moon.opt.gravity[2], -6.867)


@pytest.mark.parametrize(
    ("scenario", "name", "brax"),
    [
        ("ant_composability", "disabled_hard1", {2, 3, 4, 5, 6, 7}),
        ("ant_composability", "disabled_hard2", {0, 1, 4, 5, 6, 7}),
        ("ant_transfer", "disabled_forefeet", {0, 1, 2, 3}),
        ("ant_transfer", "disabled_backfeet", {4, 5, 6, 7}),
        ("ant_transfer", "disabled_first_diagonal", {0, 1, 4, 5}),
        ("ant_transfer", "disabled_second_diagonal", {2, 3, 6, 7}),
    ],
)
def test_the_same_legs_of_the_ant_are_disabled_as_in_brax(scenario: str, name: str, brax: set[int]) -> None:
    """There the actuators are hip_1, ankle_1, hip_2, ...; here the joint that each one drives says which it is."""
    joints = [f"{kind}_{leg}" for leg in (1, 2, 3, 4) for kind in ("hip", "ankle")]
    task = of_task(build(scenario), name)
    model = model_of(task)
    driven = {model.joint(model.actuator_trnid[index, 0]).name for index in task.modification.disabled_actuators}
    assert driven == {joints[index] for index in brax}


def test_inverted_actions_are_the_only_difference() -> None:
    normal, inverted = (make_task_env(task, PLAIN, 0) for task in build("halfcheetah_distraction").tasks[:2])
    action = np.linspace(-1.0, 1.0, 6, dtype=np.float32)
    for env in (normal, inverted):
        env.reset(seed=0)
    assert normal.step(action)[0].tolist() == inverted.step(-action)[0].tolist()


# -- Slippery Ant ----------------------------------------------------------------------------------


def test_frictions_of_the_slippery_ant() -> None:
    drawn = np.array(
        [[task.modification.friction for task in build("slippery_ant", seed, 50).tasks] for seed in range(20)]
    )
    assert drawn.min() >= 0.02
    assert drawn.max() <= 2.0
    np.testing.assert_allclose(np.log10(drawn).mean(), np.log10(0.2), atol=0.1)  # log-uniform
    np.testing.assert_allclose((drawn < 0.2).mean(), 0.5, atol=0.06)
    assert np.unique(drawn).size == drawn.size
    assert [task.modification.friction for task in build("slippery_ant", 3, 4).tasks] == drawn[3, :4].tolist()
    task = build("slippery_ant").tasks[0]
    np.testing.assert_allclose(model_of(task).geom_friction, [[task.modification.friction, 0.5, 0.5]] * 14)


# -- Continual World -------------------------------------------------------------------------------


def test_continual_world_in_its_order() -> None:
    names = ["hammer", "push-wall", "faucet-close", "push-back", "stick-pull", "handle-press-side"]
    names += ["push", "shelf-place", "window-close", "peg-unplug-side"]
    tasks = [TaskSpec(name, f"Meta-World/{name}-v3", Modification(), 100, i, 200) for i, name in enumerate(names)]
    assert list(build("cw10", seed=7).tasks) == tasks
    assert [task.name for task in build("cw20").tasks] == names * 2
    assert {task.episode_steps for task in build("cw20").tasks} == {200}
    assert build("cw10", n_tasks=3).tasks == tuple(tasks[:3])
    with pytest.raises(ConfigError, match=r"^sequence 'cw10' has 1 to 10 tasks, got 11$"):
        build("cw10", n_tasks=11)


def test_episodes_of_continual_world_are_truncated() -> None:
    pytest.importorskip("metaworld")
    env = make_task_env(build("cw10").tasks[7], PLAIN, 0, append_id_of=10)
    observation, _ = env.reset(seed=0)
    assert observation.shape == (39 + 10,)
    ends = [env.step(env.action_space.sample())[2:4] for _ in range(200)]
    assert ends == [(False, False)] * 199 + [(False, True)]
