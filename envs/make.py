"""Making one environment from its id, with errors that a user can act on.

Decides which environments the suite accepts: actions that the agent takes, one flat vector of observations.
Independent of agents, wrappers and seeds; every refusal is one line that names the bad value.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec, load_env_creator

from sparserl.envs.tasks import meta_world
from sparserl.errors import ConfigError, one_line, shown, unknown_name
from sparserl.extras import how_to_install

_EXTRAS: dict[str, Callable[[], None]] = {meta_world.NAMESPACE: meta_world.register_tasks}
"""Namespace of ids that we register -> what does it, at their first use; `ConfigError` where an extra is missing."""

# Of what Gymnasium brings outside MuJoCo, these have bounded continuous or discrete actions, and flat observations.
_OTHERS = {
    "Acrobot",
    "BipedalWalker",
    "BipedalWalkerHardcore",
    "CartPole",
    "LunarLander",
    "LunarLanderContinuous",
    "MountainCar",
    "MountainCarContinuous",
    "Pendulum",
}
# Gymnasium keeps ids registered that need mujoco-py (v2, v3) or MuJoCo 2 (Pusher-v4); making one raises.
_FIRST_USABLE_MUJOCO_VERSION = 4
_NEEDS_MUJOCO_2 = "Pusher-v4"


OF_MAKING = {
    "render_mode": "what draws it says that",
    "max_episode_steps": "episode_steps says that",
    "vectorization_mode": "it is made by itself",
    "disable_env_checker": "it is always checked",
}
"""Arguments of `gymnasium.make` that are not the environment's -> what to do instead."""


def make_env(
    env_id: str,
    *,
    render_mode: str | None = None,
    episode_steps: int | None = None,
    kwargs: Mapping[str, Any] | None = None,
    actions: tuple[type[gym.Space[Any]], ...] = (gym.spaces.Box,),
    advice: Callable[[gym.Space[Any]], str] = lambda actions: "",
    images: bool = False,
) -> gym.Env[Any, Any]:
    """Makes a Gymnasium environment and checks that an agent can use it.

    The id must be complete: `HalfCheetah` alone, which Gymnasium takes as the newest version with a warning,
    is refused, because a result is only comparable when its version is on record.

    Args:
        env_id: Registered id such as `HalfCheetah-v5`, `Meta-World/hammer-v3` where that extra is installed, or
            `module:id` to import `module` first.
        render_mode: `"human"`, `"rgb_array"` or another mode of the environment; None renders nothing.
        episode_steps: Steps after which an episode is truncated, >= 1; None for the environment's own limit.
        kwargs: Further arguments of the environment.
        actions: Kinds of action spaces that the agent takes.
        advice: Ends the refusal of another one.
        images: Whether it takes images as well as vectors.

    Returns:
        The environment as `gymnasium.make` wraps it: an action space of these kinds, finite bounds where it is a `Box`,
        and a one-dimensional `Box` observation space, or one of images (`is_image`). A Dict of vectors is flattened by
        Gymnasium's `FlattenObservation`, its keys in the order of the space.

    Raises:
        ConfigError: If the id is unknown or needs an older MuJoCo (the message names the closest id),
            if something that the environment needs is not installed, if it lacks the render mode, if a number is out
            of range, or if one of its spaces is of another kind.

    Example:
        >>> make_env("HalfCheetah-v5").action_space.shape
        (6,)
    """
    if episode_steps is not None and episode_steps < 1:
        raise ConfigError(f"an episode needs at least 1 step, got {episode_steps}")
    spec, own = _registered_spec(env_id), dict(kwargs or {})
    for name, instead in OF_MAKING.items():
        if name in own:
            raise ConfigError(f"environment {env_id!r}: {name} is no argument of its own; {instead}")
    try:
        _check_render_mode(spec, render_mode)
        rendering: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
        env: gym.Env[Any, Any] = gym.make(spec, max_episode_steps=episode_steps, **rendering, **own)
    except (ImportError, gym.error.Error) as error:
        if "box2d" in _entry_module(spec) and not _has_box2d():
            raise ConfigError(f"environment {env_id!r} needs Box2D; {how_to_install('box2d')} brings it") from None
        raise ConfigError(f"environment {env_id!r} cannot be made: {' '.join(str(error).split())}") from error
    except Exception as error:
        if not own:
            raise
        said = one_line(f"{type(error).__name__}: {error}")
        raise ConfigError(f"environment {env_id!r} cannot be made with {shown(own)}: {said}") from error
    if isinstance(env.observation_space, gym.spaces.Dict) and _no_vector(env.observation_space) is None:
        env = gym.wrappers.FlattenObservation(env)
    problem = _space_problem(env, actions, advice, images)
    if problem is not None:
        env.close()
        raise ConfigError(f"environment {env_id!r} {problem}")
    return env


def list_env_ids() -> list[str]:
    """The ids that a user can train on, the MuJoCo v5 environments first.

    Then the other such environments of Gymnasium, then its older MuJoCo versions, then those of the installed
    extras and whatever other packages have registered, which only `make_env` can judge. Nothing is made here; a Box2D
    environment is listed only where Box2D is installed.

    Returns:
        Registered ids; within each of the four groups in alphabetical order.
    """
    has_box2d = _has_box2d()
    groups: tuple[list[str], ...] = ([], [], [], [])
    for spec in _usable_specs():
        package = _entry_module(spec)
        builtin = spec.namespace is None and spec.name in _OTHERS
        if package.startswith("gymnasium.envs.mujoco"):
            groups[0 if spec.version == 5 else 2].append(spec.id)
        elif not package.startswith(("gymnasium.", "shimmy.")):
            groups[3].append(spec.id)
        elif builtin and (has_box2d or "box2d" not in package):
            groups[1].append(spec.id)
    return [env_id for group in groups for env_id in sorted(group)]


def _has_box2d() -> bool:
    return importlib.util.find_spec("Box2D") is not None


def _registered_spec(env_id: str) -> EnvSpec:
    module, _, name = env_id.rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:  # whatever its code does
            raise ConfigError(f"environment {env_id!r}: cannot import module {module!r} ({error})") from error
    namespace = name.rpartition("/")[0]
    if namespace in _EXTRAS:
        try:
            _EXTRAS[namespace]()
        except ConfigError as error:
            raise ConfigError(f"environment {name!r} cannot be made: {error}") from None
    spec = gym.registry.get(name)
    if spec is None or _is_of_several_tasks(spec):
        raise ConfigError(f"unknown environment {name!r}; the closest is {_closest_id(name)!r}")
    if _is_outdated(spec):
        raise ConfigError(f"environment {name!r} needs an older MuJoCo; the closest is {_closest_id(name)!r}")
    return spec


def _is_outdated(spec: EnvSpec) -> bool:
    raises = getattr(spec.entry_point, "__name__", "") == "_raise_mujoco_py_error"
    mujoco = _entry_module(spec).startswith("gymnasium.envs.mujoco")
    old = spec.version is not None and spec.version < _FIRST_USABLE_MUJOCO_VERSION
    return raises or (mujoco and (old or spec.id == _NEEDS_MUJOCO_2))


def _is_of_several_tasks(spec: EnvSpec) -> bool:
    """What an extra registers beside our ids of its tasks: vectors, and ids that need more arguments."""
    return spec.namespace in _EXTRAS and not _entry_module(spec).startswith("sparserl.")


def _usable_specs() -> list[EnvSpec]:
    for register in _EXTRAS.values():
        with suppress(ConfigError):  # not installed
            register()
    return [spec for spec in gym.registry.values() if not (_is_outdated(spec) or _is_of_several_tasks(spec))]


def _entry_module(spec: EnvSpec) -> str:
    if isinstance(spec.entry_point, str):
        return spec.entry_point.partition(":")[0]
    return str(getattr(spec.entry_point, "__module__", ""))


def _closest_id(env_id: str) -> str:
    """The newest version of the environment whose name, apart from version and case, is the most similar."""
    wanted = env_id.rpartition("-v")[0] or env_id
    matcher = difflib.SequenceMatcher(b=wanted.lower())

    def closeness(spec: EnvSpec) -> tuple[float, bool, int]:
        matcher.set_seq1(spec.id.rpartition("-v")[0].lower() or spec.id.lower())
        return matcher.ratio(), spec.version == 5, spec.version or 0

    return max(_usable_specs(), key=closeness).id


def _check_render_mode(spec: EnvSpec, render_mode: str | None) -> None:
    """Raises where Gymnasium would only warn and then render nothing."""
    creator = load_env_creator(spec.entry_point) if isinstance(spec.entry_point, str) else spec.entry_point
    metadata = getattr(creator, "metadata", None)
    if render_mode is None or not isinstance(metadata, dict):
        return
    native = [str(mode) for mode in metadata.get("render_modes", [])]
    wrapped = [f"{mode}_list" for mode in native] + (["human"] if "rgb_array" in native else [])
    if render_mode not in (valid := {*native, *wrapped}):
        raise ConfigError(f"environment {spec.id!r}: {unknown_name('render mode', render_mode, valid)}")


def _no_vector(space: gym.Space[Any], name: str = "") -> str | None:
    """The first part of a Dict that is no vector, number or choice, in words; None if there is none."""
    if isinstance(space, gym.spaces.Dict):
        found = (_no_vector(part, f"{name}.{key}" if name else key) for key, part in space.items())
        return next((problem for problem in found if problem is not None), None)
    if isinstance(space, gym.spaces.Discrete | gym.spaces.MultiDiscrete | gym.spaces.MultiBinary):
        return None
    if isinstance(space, gym.spaces.Box) and len(space.shape) < 2:
        return None
    return f"{name!r} of {space}"


def is_image(space: gym.Space[Any]) -> bool:
    """Whether observations are images: bytes of (height, width, channels), or channels first."""
    return isinstance(space, gym.spaces.Box) and len(space.shape) == 3 and space.dtype == np.uint8


def _space_problem(
    env: gym.Env[Any, Any],
    actions: tuple[type[gym.Space[Any]], ...],
    advice: Callable[[gym.Space[Any]], str],
    images: bool,
) -> str | None:
    action, obs = env.action_space, env.observation_space
    if not isinstance(action, actions):
        known = " or ".join("a continuous one (Box)" if kind is gym.spaces.Box else kind.__name__ for kind in actions)
        return f"has a {type(action).__name__} action space; {known} is needed{advice(action)}"
    if isinstance(action, gym.spaces.Box):
        low, high = action.low.min(), action.high.max()
        if not np.isfinite([low, high]).all():
            return f"has unbounded actions (low {low}, high {high}); finite bounds are needed"
    if isinstance(obs, gym.spaces.Dict):
        return f"has Dict observations with {_no_vector(obs)}; vectors are needed in all of its parts"
    if not isinstance(obs, gym.spaces.Box):
        return f"has a {type(obs).__name__} observation space; a vector is needed (Box of one dimension)"
    if images and is_image(obs):
        return None
    if images and len(obs.shape) == 3:
        return f"has observations of shape {obs.shape} and type {obs.dtype}; images are of uint8, from 0 to 255"
    if len(obs.shape) != 1:
        return f"has observations of shape {obs.shape}; a vector is needed (Box of one dimension)"
    return None
