"""What the features of an observation and the entries of an action are called, as far as an environment says it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from sparserl.envs.wrapper_stack import NamesFeatures, base_features, feature_origins, layers
from sparserl.errors import ConfigError

NOISE = "noise"
"""Beginning of the names of noise features."""
VELOCITIES = ("qvel", "cvel")
"""Parts of MuJoCo's observations that are velocities: of coordinates, of bodies."""
_LEGS = tuple(
    f"{part} {leg}"
    for leg in (1, 2)
    for part in ("hip angle", "hip velocity", "knee angle", "knee velocity", "ground contact")
)
KNOWN = {
    "CartPoleEnv": ("cart position", "cart velocity", "pole angle", "pole angular velocity"),
    "PendulumEnv": ("cosine", "sine", "angular velocity"),
    "AcrobotEnv": ("cosine 1", "sine 1", "cosine 2", "sine 2", "angular velocity 1", "angular velocity 2"),
    "MountainCarEnv": ("position", "velocity"),
    "Continuous_MountainCarEnv": ("position", "velocity"),
    "LunarLander": (
        "x",
        "y",
        "x velocity",
        "y velocity",
        "angle",
        "angular velocity",
        "leg contact 1",
        "leg contact 2",
    ),
    "BipedalWalker": (
        *("hull angle", "hull angular velocity", "x velocity", "y velocity"),
        *_LEGS,
        *(f"lidar {index}" for index in range(10)),
    ),
}
"""Class of an environment of Gymnasium without MuJoCo -> names of its features, as its documentation lists them."""


def feature_names(env: gym.Env[Any, Any]) -> list[str]:
    """Names of the features of an observation at this moment, wrappers and their order included.

    Of MuJoCo's environments that say what their observations are made of, by joint: `qpos rootz`, `qvel bthigh`; those
    of `KNOWN` by what they are; of Dict observations by their keys; else by position among the features of the base
    environment. Features of earlier steps say so; noise features are numbered by themselves, and so is a task's id.

    Raises:
        ConfigError: If observations are no vectors.
    """
    space = env.observation_space
    if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
        raise ConfigError(f"features of vectors have names, not those of {space}")
    try:
        origins = feature_origins(env).tolist()
    except ConfigError:  # a wrapper of somebody else makes other features of them
        return [f"feature {index}" for index in range(space.shape[0])]
    own: dict[int, str] = {}
    for layer in layers(env):
        own |= layer.own_names() if isinstance(layer, NamesFeatures) else {}
    known, count = _base_names(env.unwrapped), base_features(env)
    return [own.get(origin) or _name(origin, count, known) for origin in origins]


def is_velocity(name: str) -> bool:
    """Whether a name of `feature_names` is that of a velocity.

    Example:
        >>> [is_velocity(name) for name in ("qvel rootx", "pole angular velocity", "qpos rootz", "feature 3")]
        [True, True, False, False]
    """
    return name.split()[0] in VELOCITIES or "velocity" in name.split()


def action_names(env: gym.Env[Any, Any]) -> list[str]:
    """Names of the entries of an action: those of MuJoCo's actuators where they have some, else numbers."""
    count = int(np.prod(env.action_space.shape or (1,)))
    model: Any = getattr(env.unwrapped, "model", None)
    names = [model.actuator(index).name for index in range(model.nu)] if hasattr(model, "actuator") else []
    names = names if len(names) == count else [""] * count
    return [f"action {name or index}" for index, name in enumerate(names)]


def _name(origin: int, count: int, known: list[str]) -> str:
    """Of an entry of `feature_origins`, of an environment with `count` features."""
    if origin < 0:
        return f"{NOISE} {-1 - origin}"
    age, index = divmod(origin, count)
    name = known[index] if index < len(known) else f"feature {index}"
    return f"{name}, {age} step{'s' * (age > 1)} ago" if age else name


def _keys(space: gym.Space[Any], prefix: str = "") -> Iterator[str]:
    """Names of the entries of a Dict of vectors in the order in which Gymnasium flattens it."""
    if isinstance(space, gym.spaces.Dict):
        for key, part in space.items():
            yield from _keys(part, f"{prefix}.{key}" if prefix else key)
    else:
        count = gym.spaces.flatdim(space)
        yield from [prefix] if count == 1 else [f"{prefix} {index}" for index in range(count)]


def _base_names(base: Any) -> list[str]:
    """Of the features of a base environment; nothing where it does not say what they are, or says too much."""
    for kind in type(base).__mro__:
        if kind.__name__ in KNOWN and base.observation_space.shape == (len(KNOWN[kind.__name__]),):
            return list(KNOWN[kind.__name__])
    if isinstance(base.observation_space, gym.spaces.Dict):
        return list(_keys(base.observation_space))
    structure = getattr(base, "observation_structure", None)
    if not isinstance(structure, Mapping):
        return []
    coordinates = {"qpos": list(_coordinates(base.model, of_position=True)), "qvel": list(_coordinates(base.model))}
    names: list[str] = []
    for part, count in structure.items():
        if part.startswith("skipped_"):
            continue
        numbered = [str(index) for index in range(count)]
        # Coordinates that are left out are the first ones.
        own = coordinates.get(part, numbered)[int(structure.get(f"skipped_{part}", 0)) :]
        names += [f"{part} {name}" for name in (own if len(own) == count else numbered)]
    return names if base.observation_space.shape == (len(names),) else []


def _coordinates(model: Any, *, of_position: bool = False) -> Iterator[str]:
    """Joint by joint the names of a model's positions or velocities; a joint of several has them numbered."""
    total = model.nq if of_position else model.nv
    starts = [int(start) for start in (model.jnt_qposadr if of_position else model.jnt_dofadr)]
    for index, (start, end) in enumerate(zip(starts, [*starts[1:], total], strict=True)):
        name = model.joint(index).name or f"joint {index}"
        yield from [name] if end - start == 1 else [f"{name}.{axis}" for axis in range(end - start)]
