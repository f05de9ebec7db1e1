"""A MuJoCo environment with other physics, other body parts or a broken robot: as plain data, and what applies it.

Decides what a factor means for the compiled model. Independent of sequences of tasks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium.envs.mujoco import MujocoEnv

from sparserl import config
from sparserl.envs.wrapper_stack import observation_box
from sparserl.envs.wrappers.defects import BreakSensors, DisableActuators
from sparserl.envs.wrappers.inverted_actions import InvertActions
from sparserl.errors import CheckpointError, ConfigError, unknown_name
from sparserl.ranges import CountOrZero, NotNegative, Positive, Seed, ShareBelowOne, check_ranges

_SHAPES_WITH_RADIUS = {"sphere", "capsule", "cylinder"}
_SHAPES_WITH_LENGTH = {"capsule", "cylinder"}


@dataclass(frozen=True)
class PartFactors:
    """Factors on one part of a robot.

    Raises:
        ConfigError: If a factor is not positive and finite, or the part has no name.
    """

    part: str = ""
    """Name of a geom or of a body in the model. Radius and length are those of the geom, or of all geoms of the body;
    mass is always that of a whole body, for a geom that of the body it belongs to."""
    mass: Positive | None = None
    """Factor on the mass of the body; None keeps its density, so that the mass follows the volume."""
    radius: Positive = 1.0
    """Factor on the radius of spheres, capsules and cylinders; the part stays where it is."""
    length: Positive = 1.0
    """Factor on the length of capsules (without their caps) and cylinders, around their centre; joints stay where they
    are."""

    def __post_init__(self) -> None:
        if not self.part:
            raise ConfigError("modification.parts: each needs `part`, the name of a body or geom")
        check_ranges(self, f"modification.parts: {self.part}.")


@dataclass(frozen=True)
class Modification:
    """What is different from the environment as Gymnasium makes it; the defaults change nothing.

    Raises:
        ConfigError: If a number is out of range, or a part is named twice.
    """

    gravity: NotNegative = 1.0
    """Factor on gravity, >= 0; also of tasks of classic control and Box2D that have one."""
    friction: Positive = 1.0
    """Factor on the sliding friction of every geom, > 0. A contact takes the larger friction of its two geoms, so a
    slippery floor alone would change nothing."""
    parts: tuple[PartFactors, ...] = ()
    """Factors on masses and sizes of single parts."""
    disabled_actuators: tuple[CountOrZero, ...] = ()
    """Actuators whose actions become 0."""
    invert_actions: bool = False
    """Mirror every action within its bounds."""
    broken_sensors: ShareBelowOne = 0.0
    """Share of the features that always read 0, in [0, 1); of n features `int(share * n)`."""
    broken_sensors_seed: Seed = 0
    """Seed of NumPy's legacy generator that says which; the same for every seed of a run."""

    def __post_init__(self) -> None:
        check_ranges(self, "modification.")
        names = [factors.part for factors in self.parts]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"modification.parts: {name!r} is named twice")


def modify(env: gym.Env[Any, Any], modification: Modification) -> gym.Env[Any, Any]:
    """Applies a modification; with the defaults, `env` itself comes back.

    Args:
        env: As `make_env` makes it, not shared: its compiled model is edited in place.
        modification: What to change. What has no factor in it stays bit for bit what it was.

    Raises:
        ConfigError: If the environment lacks a part, shape or actuator that is named, or is not one of MuJoCo.
    """
    dynamics = modification.gravity, modification.friction, modification.parts
    if dynamics != (1.0, 1.0, ()):
        env = ModifiedDynamics(env, *dynamics)
    if modification.disabled_actuators:
        env = DisableActuators(env, modification.disabled_actuators)
    if modification.invert_actions:
        env = InvertActions(env)
    if modification.broken_sensors > 0.0:
        share, seed = modification.broken_sensors, modification.broken_sensors_seed
        env = BreakSensors(env, broken_features(observation_box(env).shape[0], share, seed))
    return env


def broken_features(n_features: int, share: float, seed: int) -> list[int]:
    """Which features a defective module loses, in rising order.

    Args:
        n_features: Features there are.
        share: Share that is lost, in [0, 1).
        seed: Of NumPy's legacy generator, in [0, 2^32).

    Source:
        `defective_module` in the code of CSP (Gaya et al. 2023): a permutation of `int(share * n)` zeros, then ones.
    """
    zeros = int(share * n_features)
    mask = np.random.RandomState(seed).permutation([0] * zeros + [1] * (n_features - zeros))
    return np.flatnonzero(mask == 0).tolist()


class ModifiedDynamics(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Edits the compiled model of a MuJoCo environment, once, when it is made; resets leave it so.

    Of tasks of classic control and Box2D whose gravity is a number, gravity alone can be changed.

    The model is not part of a captured state, since the environment is made the same way before it is restored. The
    factors are, so that a state of other physics is refused.

    Inertia and centre of mass of a body with a new size are those of uniform density, as MuJoCo's compiler computes
    them.

    Args:
        env: A MuJoCo environment of Gymnasium, possibly wrapped, before its first reset.
        gravity: Factor on gravity, >= 0.
        friction: Factor on the sliding friction of every geom, > 0.
        parts: Factors on masses and sizes.

    Raises:
        ConfigError: If it is not a MuJoCo environment, but for gravity, has no such part, or the part's shape has no
            such measure.

    Source:
        Changes of gravity and size as in LPG-FTW (Mendez et al. 2020), of mass, radius and friction as in CSP (Gaya et
        al. 2023).
    """

    def __init__(
        self, env: gym.Env[Any, Any], gravity: float = 1.0, friction: float = 1.0, parts: Sequence[PartFactors] = ()
    ) -> None:
        self._factors = config.plain(Modification(gravity, friction, tuple(parts)))
        gym.utils.RecordConstructorArgs.__init__(self, gravity=gravity, friction=friction, parts=parts)
        super().__init__(env)
        if isinstance(getattr(env.unwrapped, "gravity", None), float | int) and (friction, tuple(parts)) == (1.0, ()):
            env.unwrapped.gravity *= gravity  # type: ignore[attr-defined]  # it is there
            return
        if not isinstance(env.unwrapped, MujocoEnv):
            raise ConfigError(f"other dynamics need a MuJoCo environment of Gymnasium, not {env.unwrapped}")
        model = env.unwrapped.model
        targets = [(_body_and_geoms(model, factors), factors) for factors in parts]  # refuses before anything is edited
        model.opt.gravity[2] *= gravity
        model.geom_friction[:, 0] *= friction
        for (body, geoms), factors in targets:
            _scale_part(model, body, geoms, factors)
        if targets:
            mujoco.mj_setConst(model, mujoco.MjData(model))

    def state_dict(self) -> dict[str, Any]:
        """The factors; nothing else here changes while it runs."""
        return {"factors": self._factors}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Changes nothing.

        Raises:
            CheckpointError: If the state is of other factors.
        """
        for name, ours in self._factors.items():
            theirs = state["factors"].get(name)
            if theirs != ours:
                raise CheckpointError(f"environment state belongs to dynamics of {name} {theirs}, not {ours}")


def _body_and_geoms(model: Any, factors: PartFactors) -> tuple[int, list[int]]:
    """The body that a part is or belongs to, and the part's geoms; checks that they have the measures to change."""
    geom = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_GEOM, factors.part)
    body = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, factors.part)
    if geom >= 0 and model.geom_bodyid[geom] > 0:
        body, geoms = int(model.geom_bodyid[geom]), [geom]
    elif body > 0:
        geoms = _geoms(model, body)
    else:
        raise ConfigError(unknown_name("body part", factors.part, _part_names(model)))
    measures = (("radius", factors.radius, _SHAPES_WITH_RADIUS), ("length", factors.length, _SHAPES_WITH_LENGTH))
    for measure, factor, shapes in measures:
        for geom in geoms if factor != 1.0 else ():
            shape = mujoco.mjtGeom(int(model.geom_type[geom])).name.removeprefix("mjGEOM_").lower()
            if shape not in shapes:
                raise ConfigError(f"body part {factors.part!r} has a {shape}, which has no {measure} to change")
    return body, geoms


def _part_names(model: Any) -> Iterable[str]:
    moving = [model.geom(index).name for index in range(model.ngeom) if model.geom_bodyid[index] > 0]
    return {name for name in [*moving, *(model.body(index).name for index in range(1, model.nbody))] if name}


def _geoms(model: Any, body: int) -> list[int]:
    first = int(model.body_geomadr[body])
    return list(range(first, first + int(model.body_geomnum[body])))


def _scale_part(model: Any, body: int, geoms: list[int], factors: PartFactors) -> None:
    mass = model.body_mass[body]
    if (factors.radius, factors.length) == (1.0, 1.0):
        factor = 1.0 if factors.mass is None else factors.mass
        model.body_mass[body] *= factor
        model.body_inertia[body] *= factor
        return
    before = _of_unit_density(model, body)
    uniform = before.body_inertia[1] * (mass / before.body_mass[1])
    if not np.allclose(model.body_inertia[body], uniform, rtol=1e-6, atol=0.0):
        raise ConfigError(f"body part {factors.part!r} is not of uniform density; only its mass can be changed")
    if model.body_simple[body] == 1:  # compiled for a diagonal mass matrix, which another shape may not have
        raise ConfigError(f"body part {factors.part!r} is of a body that moves alone; only its mass can be changed")
    model.geom_size[geoms, 0] *= factors.radius
    model.geom_size[geoms, 1] *= factors.length
    after = _of_unit_density(model, body)
    mass *= after.body_mass[1] / before.body_mass[1] if factors.mass is None else factors.mass
    model.body_mass[body] = mass
    model.body_inertia[body] = after.body_inertia[1] * (mass / after.body_mass[1])
    model.body_ipos[body], model.body_iquat[body] = after.body_ipos[1], after.body_iquat[1]
    model.geom_rbound[_geoms(model, body)] = after.geom_rbound
    model.geom_aabb[_geoms(model, body)] = after.geom_aabb
    # What the compiler precomputed from the old shape: which frames coincide, and trees of bounding boxes. Without
    # them MuJoCo computes the same the longer way.
    model.body_sameframe[body] = 0
    model.geom_sameframe[_geoms(model, body)] = 0
    model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_MIDPHASE)


def _of_unit_density(model: Any, body: int) -> Any:
    """A model of this body alone, number 1 in it, compiled with its geoms as they are now and density 1."""
    spec = mujoco.MjSpec()
    alone = spec.worldbody.add_body()
    for geom in _geoms(model, body):
        alone.add_geom(
            type=mujoco.mjtGeom(int(model.geom_type[geom])),
            size=model.geom_size[geom],
            pos=model.geom_pos[geom],
            quat=model.geom_quat[geom],
            density=1.0,
        )
    return spec.compile()
