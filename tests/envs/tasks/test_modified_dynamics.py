"""`Modification`, `modify`: each factor arrives in the compiled model, nothing else does, and runs repeat."""

from __future__ import annotations

import math
from pathlib import Path

import gymnasium as gym
import mujoco
import numpy as np
import pytest
from gymnasium.envs.mujoco import MujocoEnv
from support.modified_models import ALL, CHEETAH, HOPPER, changed, made, model_of, numbers, tape

from sparserl.envs import Modification, PartFactors, make_env, modify
from sparserl.envs.tasks.modified_dynamics import ModifiedDynamics, broken_features
from sparserl.envs.wrapper_stack import layers
from sparserl.envs.wrappers.defects import BreakSensors, DisableActuators
from sparserl.envs.wrappers.inverted_actions import InvertActions
from sparserl.errors import ConfigError

pytestmark = pytest.mark.filterwarnings("error")


# -- What arrives in the model ---------------------------------------------------------------------


@pytest.mark.parametrize("env_id", [CHEETAH, "Ant-v5"])
def test_no_modification_is_the_plain_environment(env_id: str) -> None:
    env = make_env(env_id)
    assert modify(env, Modification()) is env
    neutral = ModifiedDynamics(make_env(env_id), parts=[PartFactors("torso")])
    assert isinstance(env.unwrapped, MujocoEnv)
    assert isinstance(neutral.unwrapped, MujocoEnv)
    assert changed(env.unwrapped.model, neutral.unwrapped.model) == set()
    assert tape(neutral) == tape(env)


def test_gravity_and_friction() -> None:
    plain, moon = model_of(CHEETAH), model_of(CHEETAH, Modification(gravity=0.15))
    assert changed(plain, moon) == {"opt.gravity"}
    np.testing.assert_allclose(moon.opt.gravity, [0.0, 0.0, -1.4715], rtol=1e-12)
    rain = model_of(CHEETAH, Modification(friction=0.4))
    assert changed(plain, rain) == {"geom_friction"}
    np.testing.assert_allclose(rain.geom_friction, [[0.16, 0.1, 0.1]] * 9, rtol=1e-12)


def test_the_friction_of_a_contact_gets_the_factor() -> None:
    """Hopper's floor has 1, its foot 2; the contact takes the larger one."""
    env = made(HOPPER, Modification(friction=0.25))
    env.reset(seed=0)
    assert isinstance(env.unwrapped, MujocoEnv)
    data = env.unwrapped.data
    while data.ncon == 0:
        env.step(np.zeros(3, np.float32))
    assert {float(contact.friction[0]) for contact in data.contact} == {0.5}


def test_mass_alone() -> None:
    plain, heavy = model_of(CHEETAH), model_of(CHEETAH, Modification(parts=(PartFactors("torso", mass=4.0),)))
    assert {"body_mass", "body_inertia", "body_subtreemass", "dof_invweight0"} <= changed(plain, heavy)
    assert not changed(plain, heavy) & {"geom_size", "geom_rbound", "body_ipos", "body_iquat", "opt.disableflags"}
    np.testing.assert_allclose(heavy.body_mass / np.maximum(plain.body_mass, 1e-9), [0, 4, 1, 1, 1, 1, 1, 1])
    np.testing.assert_allclose(heavy.body_inertia[1], 4.0 * plain.body_inertia[1])
    assert np.array_equal(heavy.body_inertia[2:], plain.body_inertia[2:])
    np.testing.assert_allclose(plain.body_subtreemass[0], 14.0)
    np.testing.assert_allclose(heavy.body_subtreemass[0], 14.0 + 3.0 * plain.body_mass[1])


def test_a_wider_part_worked_by_hand() -> None:
    """Hopper's torso: a capsule of density 1000, radius 0.05 and length 0.4, made twice as wide.

    Cylinder pi 0.1^2 0.4 = 0.0125664 m^3, caps 4/3 pi 0.1^3 = 0.0041888 m^3. Around the axis c r^2 / 2 + 2/5 s r^2;
    across it c (r^2 / 4 + l^2 / 12) + s (2/5 r^2 + l^2 / 4 + 3/8 l r).
    """
    model = model_of(HOPPER, Modification(parts=(PartFactors("torso", radius=2.0),)))
    plain = model_of(HOPPER)
    np.testing.assert_allclose(model.geom_size[1], [0.1, 0.2, 0.0], rtol=1e-12)
    np.testing.assert_allclose(model.body_mass[1], 12.56637 + 4.18879, rtol=1e-6)
    across = 12.56637 * (0.0025 + 0.16 / 12.0) + 4.18879 * (0.004 + 0.04 + 0.015)
    around = 12.56637 * 0.005 + 4.18879 * 0.004
    np.testing.assert_allclose(model.body_inertia[1], [across, across, around], rtol=1e-6)
    np.testing.assert_allclose(model.geom_rbound[1], 0.3, rtol=1e-12)
    assert np.array_equal(model.body_pos, plain.body_pos)
    assert np.array_equal(model.body_mass[2:], plain.body_mass[2:])


def test_a_given_mass_factor_beats_the_volume() -> None:
    plain = model_of(CHEETAH)
    huge = model_of(CHEETAH, Modification(parts=(PartFactors("bfoot", mass=1.5, radius=1.5),)))
    np.testing.assert_allclose(huge.body_mass[4], 1.5 * plain.body_mass[4])
    np.testing.assert_allclose(huge.geom_size[5], [0.069, 0.094, 0.0])
    volumes = (math.pi * r * r * 2.0 * 0.094 + 4.0 / 3.0 * math.pi * r**3 for r in (0.046, 0.069))
    small, large = volumes
    kept = model_of(CHEETAH, Modification(parts=(PartFactors("bfoot", radius=1.5),)))
    np.testing.assert_allclose(kept.body_mass[4] / plain.body_mass[4], large / small)
    np.testing.assert_allclose(kept.body_inertia[4] / kept.body_mass[4], huge.body_inertia[4] / huge.body_mass[4])


def test_a_geom_is_one_of_its_body_and_a_body_all_its_geoms() -> None:
    def widths(part: str) -> list[float]:
        model = model_of("Humanoid-v5", Modification(parts=(PartFactors(part, radius=2.0),)))
        return (model.geom_size[1:4, 0] / model_of("Humanoid-v5").geom_size[1:4, 0]).tolist()

    assert widths("torso") == [2.0, 2.0, 2.0]
    assert widths("head") == [1.0, 2.0, 1.0]
    cheetah = model_of(CHEETAH, Modification(parts=(PartFactors("torso", radius=2.0),)))  # both names exist: the geom
    np.testing.assert_allclose(cheetah.geom_size[1:3, 0], [0.092, 0.046])


@pytest.mark.parametrize(
    ("env_id", "part", "geoms", "radius", "length"),
    [
        (HOPPER, "foot", ["foot_geom"], 0.6, 1.4),
        ("Walker2d-v5", "thigh_geom", ["thigh_geom"], 1.3, 0.7),
        (CHEETAH, "torso", ["torso"], 4.0, 1.0),
        (CHEETAH, "fthigh", ["fthigh"], 0.7, 1.5),
        ("Ant-v5", "third_ankle_geom", ["third_ankle_geom"], 3.0, 1.0),
        ("Humanoid-v5", "torso", ["torso1", "head", "uwaist"], 1.2, 1.0),
    ],
)
def test_the_compiler_makes_the_same_of_an_edited_file(
    env_id: str, part: str, geoms: list[str], radius: float, length: float
) -> None:
    """Also the physics: 300 steps of random torques from the same start, with contacts."""
    base = made(env_id).unwrapped
    assert isinstance(base, MujocoEnv)
    spec = mujoco.MjSpec.from_file(base.fullpath)
    if spec.compiler.settotalmass > 0.0:  # the file keeps the total mass, a factor on one part does not
        spec.compiler.settotalmass = -1.0
        density = base.model.body_mass.sum() / spec.compile().body_mass.sum()
        for geom in spec.geoms:
            geom.density *= density
    for name in geoms:
        geom = next(geom for geom in spec.geoms if geom.name == name)
        geom.size = geom.size * [radius, length, 1.0]
    theirs = spec.compile()
    ours = model_of(env_id, Modification(parts=(PartFactors(part, radius=radius, length=length),)))

    # Frames that coincide and trees of boxes are precomputed there, and not used here.
    unused = {
        "body_sameframe",
        "geom_sameframe",
        "opt.disableflags",
        "bvh_aabb",
        "bvh_child",
        "bvh_nodeid",
        "bvh_depth",
    }
    expected, found = numbers(theirs), numbers(ours)
    for name in set(found) & set(expected) - unused:
        if not name.startswith("vis"):
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-6, atol=1e-9, err_msg=name)

    data = [mujoco.MjData(model) for model in (ours, theirs)]
    torques = np.random.default_rng(0).uniform(-1.0, 1.0, (300, ours.nu))
    touched = 0
    for torque in torques:
        for model, state in zip((ours, theirs), data, strict=True):
            state.ctrl[:] = torque
            mujoco.mj_step(model, state)
        touched += data[0].ncon
        data[1].qpos[:], data[1].qvel[:] = data[0].qpos, data[0].qvel  # contacts amplify what rounding leaves
        np.testing.assert_allclose(data[0].qacc, data[1].qacc, rtol=1e-5, atol=1e-5)
        data[1].qacc_warmstart[:] = data[0].qacc_warmstart
    assert touched > 0


def dumbbells(folder: Path, upright: bool, size: float, child: bool = True) -> MujocoEnv:
    """Two beside each other, balanced unless the first ball has another size: then frames of the model coincide.

    Upright ones have their centre of mass and axes where the body has its own, lying ones where the bar has.
    """
    turn = "1 0 0 0" if upright else "0.5 0.5 0.5 0.5"
    first, middle, second = (f"0 0 {place}" if upright else f"{0.25 + place} 0 0" for place in (-0.5, 0.0, 0.5))
    hanging = '<body pos="0 -0.5 0"><joint/><geom size="0.1"/></body>' if child else ""
    path = folder / f"{size}.xml"
    path.write_text(f"""
        <mujoco>
          <worldbody>
            <body>
              <freejoint/>
              <geom name="first" size="{size}" pos="{first}"/>
              <geom type="capsule" size="0.1 0.2" pos="{middle}" quat="{turn}"/>
              <geom size="0.1" pos="{second}"/>
              {hanging}
            </body>
            <body pos="0 0.6 0">
              <freejoint/>
              <geom size="0.1" pos="{first}"/>
              <geom size="0.1" pos="{second}"/>
            </body>
          </worldbody>
        </mujoco>
    """)
    return MujocoEnv(str(path), 1, gym.spaces.Box(-1.0, 1.0, (1,)))


@pytest.mark.parametrize("upright", [True, False])
def test_what_the_compiler_precomputed_is_not_used_for_another_shape(upright: bool, tmp_path: Path) -> None:
    """Stale frames would leave the centre of mass in the middle, stale trees of boxes would miss the contact."""
    ours, theirs = (dumbbells(tmp_path, upright, size) for size in (0.1, 0.51))
    frames = ours.model.body_sameframe[1], ours.model.geom_sameframe[1]
    assert frames == ((1, 1) if upright else (0, 2)), "no frames coincide, so nothing is tested"
    middle = ours.model.body_ipos[1].copy()
    modify(ours, Modification(parts=(PartFactors("first", radius=5.1),)))
    for env in (ours, theirs):
        mujoco.mj_forward(env.model, env.data)
    assert (ours.data.ncon, theirs.data.ncon) == (1, 1)
    assert np.abs(ours.data.xipos[1] - middle).max() > 0.2
    for name in ("xipos", "qM", "qacc", "geom_xpos"):
        np.testing.assert_allclose(getattr(ours.data, name), getattr(theirs.data, name), rtol=1e-6, atol=1e-9)


def test_a_body_that_moves_alone_keeps_its_shape(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^body part 'first' is of a body that moves alone; only its mass can be"):
        modify(dumbbells(tmp_path, True, 0.1, child=False), Modification(parts=(PartFactors("first", radius=5.1),)))


def test_what_is_broken_comes_as_wrappers() -> None:
    env = made(HOPPER, ALL)
    names = [type(layer) for layer in layers(env)][:4]
    assert names == [BreakSensors, InvertActions, DisableActuators, ModifiedDynamics]
    assert type(made(HOPPER, Modification(invert_actions=True))) is InvertActions


def test_broken_features_of_the_literature() -> None:
    """`numpy.random.seed(0); numpy.random.permutation([0] * zeros + [1] * ones)`, written down once."""
    assert broken_features(17, 0.5, seed=0) == [0, 1, 5, 6, 9, 12, 13, 14]
    assert broken_features(17, 0.5, seed=1) != broken_features(17, 0.5, seed=0)
    assert broken_features(11, 0.09, seed=0) == []
    seen = np.array([made(CHEETAH, Modification(broken_sensors=0.5)).reset(seed=seed)[0] for seed in range(3)])
    assert np.flatnonzero((seen == 0.0).all(axis=0)).tolist() == [0, 1, 5, 6, 9, 12, 13, 14]
