"""Saving and restoring the exact state of one environment, so that a killed run goes on bit for bit.

Decides what belongs to that state: MuJoCo's integration state *and* its derived quantities, every random
generator, the counters of known wrappers. Holds it as plain arrays and JSON values; independent of files,
agents and pickle.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium.envs.mujoco import MujocoEnv

from sparserl.envs.wrapper_stack import layers
from sparserl.errors import CheckpointError

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

_log = logging.getLogger(__name__)

STATEFUL_WRAPPERS: dict[str, tuple[str, ...]] = {
    "gymnasium.wrappers.common.OrderEnforcing": ("_has_reset",),
    "gymnasium.wrappers.common.PassiveEnvChecker": (
        "checked_reset",
        "checked_step",
        "checked_render",
        "checked_data_reuse",
    ),
    "gymnasium.wrappers.common.TimeLimit": ("_elapsed_steps",),
    "gymnasium.wrappers.transform_action.ClipAction": (),
    "gymnasium.wrappers.transform_action.RescaleAction": (),
    "gymnasium.wrappers.transform_observation.FlattenObservation": (),
    "sparserl.envs.BreakSensors": (),
    "sparserl.envs.DisableActuators": (),
    "sparserl.envs.HideFeatures": (),
    "sparserl.envs.InvertActions": (),
    "sparserl.envs.AppendTaskId": (),
    "stable_baselines3.common.monitor.Monitor": (
        "rewards",
        "needs_reset",
        "episode_returns",
        "episode_lengths",
        "episode_times",
        "total_steps",
        "current_reset_info",
    ),
}
"""Wrapper class -> attributes that change while it runs; an empty tuple says that none does.

Names instead of classes, so that Stable-Baselines3 is not imported here; our own without their module. Only the
exact class counts: a subclass may hold more. A wrapper with `state_dict()` and `load_state_dict()` needs no line.
"""

# Set by `reset_model` of Reacher and Pusher. No step reads them, but user code may.
_EPISODE_ATTRIBUTES = ("goal", "goal_pos", "cylinder_pos")
_BIT_GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")
_SIMPLE_SPACES = (gym.spaces.Box, gym.spaces.Discrete, gym.spaces.MultiDiscrete, gym.spaces.MultiBinary)
_FORMAT = 1


@dataclass(frozen=True)
class EnvState:
    """State of an environment as plain data, ready for safetensors and JSON.

    Attributes:
        tensors: Arrays by name, C-contiguous, each a copy of its own.
        scalars: JSON values by name. Integers may exceed 64 bits (the state of PCG64 has 128).
    """

    tensors: dict[str, Array]
    scalars: dict[str, Json]


@runtime_checkable
class HasState(Protocol):
    """A wrapper or environment that saves itself as names with arrays and JSON values."""

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs; values are arrays, or JSON values without tuples. They get copied."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over a state, whatever this object did before."""


class NotCapturable(Exception):
    """Why the exact state of this environment cannot be had."""


def capture_state(env: gym.Env[Any, Any]) -> EnvState | None:
    """The exact state of `env` and of the wrappers around it; `env` is not changed.

    Assumes that nothing edits the model while it runs (no domain randomisation); what `ModifiedDynamics` does when it
    is made, it does again where the state is restored. A Monitor's file, the viewer and MuJoCo's warning counters and
    timers are not part of the state.

    Args:
        env: A MuJoCo environment of Gymnasium, wrapped in classes of `STATEFUL_WRAPPERS` or in ones that have
            `state_dict`; or any base environment that has `state_dict`, as a task of Meta-World has. Not a `VecEnv`:
            pass its `envs` one by one.

    Returns:
        The state; None where some part of it cannot be had, with the reason in the log at level INFO.

    Example:
        >>> env = gym.make("Hopper-v5")
        >>> _ = env.reset(seed=0)
        >>> restore_state(gym.make("Hopper-v5"), capture_state(env))
    """
    stack = list(layers(env))
    tensors: dict[str, Array] = {}
    scalars: dict[str, Json] = {"format": _FORMAT, "layers": [_class_name(layer) for layer in stack]}
    try:
        for index, layer in enumerate(stack):
            for name, value in _capture_layer(layer).items():
                key = f"{index}.{type(layer).__name__}/{name}"
                if isinstance(value, np.ndarray):
                    tensors[key] = np.array(value, order="C", copy=True)
                else:
                    scalars[key] = _plain(value, key)
    except NotCapturable as reason:
        _log.info("the state of %s cannot be captured: %s", env, reason)
        return None
    return EnvState(tensors, scalars)


def restore_state(env: gym.Env[Any, Any], state: EnvState) -> None:
    """Puts `env` into a captured state: what follows equals, bit for bit, what followed the capture.

    Bit for bit on the same machine type with the same versions of MuJoCo, Gymnasium and NumPy.

    Args:
        env: Made and wrapped like the captured one; may be fresh or in the middle of an episode.
        state: From `capture_state`, also after a round trip through safetensors and JSON.

    Raises:
        CheckpointError: If the state belongs to another environment, other wrappers or another MuJoCo; `env`
            is then unchanged, unless it was `load_state_dict` of a wrapper that refused.
    """
    stack = list(layers(env))
    names: list[Json] = [_class_name(layer) for layer in stack]
    stored = state.scalars.get("layers")
    if isinstance(stored, list):
        stored = [_without_own_module(str(name)) for name in stored]
    if state.scalars.get("format") != _FORMAT:
        raise CheckpointError(f"environment state of format {state.scalars.get('format')!r}, not {_FORMAT}")
    if stored != names:
        raise CheckpointError(f"environment state belongs to {stored}, not to {names}")
    parts = [_part(state, f"{index}.{type(layer).__name__}/") for index, layer in enumerate(stack)]
    for layer, part in zip(stack, parts, strict=True):
        _check_fits(layer, part)
    for layer, part in zip(stack, parts, strict=True):
        _restore_layer(layer, part)


def _class_name(layer: gym.Env[Any, Any]) -> str:
    return _without_own_module(f"{type(layer).__module__}.{type(layer).__qualname__}")


def _without_own_module(name: str) -> str:
    """Full name of a class; of one of `sparserl.envs` without its module, so that a file may move."""
    return re.sub(r"^sparserl\.envs\.(?:[a-z_]\w*\.)*", "sparserl.envs.", name)


def _part(state: EnvState, prefix: str) -> dict[str, Any]:
    return {
        key.removeprefix(prefix): value
        for source in (state.tensors, state.scalars)
        for key, value in source.items()
        if key.startswith(prefix)
    }


def _capture_layer(layer: gym.Env[Any, Any]) -> dict[str, Any]:
    part = {f"attribute.{name}": getattr(layer, name) for name in _attributes(layer) if hasattr(layer, name)}
    if isinstance(layer, HasState):
        part |= {f"own.{name}": value for name, value in layer.state_dict().items()}
    if _class_name(layer) == "stable_baselines3.common.monitor.Monitor":
        part["elapsed_s"] = time.time() - layer.t_start  # type: ignore[attr-defined]
    if isinstance(layer, MujocoEnv):
        part |= _capture_mujoco(layer)
    if not isinstance(layer, gym.Wrapper):
        part["np_random"] = _generator_state(layer._np_random)
        part["np_random_seed"] = layer._np_random_seed
    for name, space in _own_spaces(layer):
        part[f"{name}.np_random"] = _generator_state(space._np_random)
    return part


def _check_fits(layer: gym.Env[Any, Any], part: Mapping[str, Any]) -> None:
    """Raises unless `part` holds what `_restore_layer` will ask for; a class judges its `own.` entries."""
    try:
        present = _capture_layer(layer)
    except NotCapturable as reason:
        raise CheckpointError(f"environment state cannot be restored: {reason}") from reason
    expected, found = (
        {
            name: (value.shape, value.dtype) if isinstance(value, np.ndarray) else "json"
            for name, value in values.items()
            if not name.startswith(("attribute.", "own."))
        }
        for values in (present, part)
    )
    wrong = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
    if wrong:
        what = ", ".join(wrong[:5])
        raise CheckpointError(f"environment state does not fit {_class_name(layer)} here: {what}")
    generators = (value for name, value in part.items() if name.endswith("np_random") and value is not None)
    for generator in generators:
        if generator["bit_generator"] not in _BIT_GENERATORS:
            raise CheckpointError(f"environment state has a generator {generator['bit_generator']!r}")


def _restore_layer(layer: gym.Env[Any, Any], part: Mapping[str, Any]) -> None:
    fresh: dict[str, Any] = {}
    for key, value in part.items():
        kind, _, name = key.partition(".")
        if kind == "attribute":
            setattr(layer, name, _fresh(value))
        elif kind == "own":
            fresh[name] = _fresh(value)
    if isinstance(layer, HasState):
        layer.load_state_dict(fresh)
    if "elapsed_s" in part:
        layer.t_start = time.time() - part["elapsed_s"]  # type: ignore[attr-defined]
    if isinstance(layer, gym.wrappers.PassiveEnvChecker):
        # It warns when two steps return the same object. What came before the capture is gone, so nothing can
        # share an object with it.
        layer._previous_data = (None, {})
    if isinstance(layer, MujocoEnv):
        _restore_mujoco(layer, part)
    if not isinstance(layer, gym.Wrapper):
        layer._np_random = _restored_generator(layer._np_random, part["np_random"])
        layer._np_random_seed = part["np_random_seed"]
    for name, space in _own_spaces(layer):
        generator = _restored_generator(space._np_random, part[f"{name}.np_random"])
        space._np_random = generator  # type: ignore[assignment]


def _attributes(layer: gym.Env[Any, Any]) -> tuple[str, ...]:
    """Which attributes to save; raises for a class that is not listed."""
    name = _class_name(layer)
    if isinstance(layer, HasState):
        return ()
    if isinstance(layer, gym.Wrapper):
        if name not in STATEFUL_WRAPPERS:
            raise NotCapturable(f"wrapper {name} is not in STATEFUL_WRAPPERS and has no state_dict()")
        return STATEFUL_WRAPPERS[name]
    if not isinstance(layer, MujocoEnv) or not name.startswith("gymnasium.envs.mujoco."):
        raise NotCapturable(f"{name} is not a MuJoCo environment of Gymnasium and has no state_dict()")
    return _EPISODE_ATTRIBUTES


def _own_spaces(layer: gym.Env[Any, Any]) -> Iterator[tuple[str, gym.Space[Any]]]:
    """Spaces of this layer, not those that a wrapper passes through; an agent's warm-up samples from them."""
    prefix = "_" if isinstance(layer, gym.Wrapper) else ""
    for name in ("action_space", "observation_space"):
        space = getattr(layer, prefix + name, None)
        if space is None:
            continue
        yield from _with_parts(layer, name, space)


def _with_parts(layer: gym.Env[Any, Any], name: str, space: gym.Space[Any]) -> Iterator[tuple[str, gym.Space[Any]]]:
    """A space, and those that a Dict is made of, each with a generator of its own."""
    if isinstance(space, gym.spaces.Dict):
        for key, part in space.items():
            yield from _with_parts(layer, f"{name}.{key}", part)
    elif not isinstance(space, _SIMPLE_SPACES):
        raise NotCapturable(f"{_class_name(layer)} has a composite space ({type(space).__name__})")
    yield name, space


# -- MuJoCo ----------------------------------------------------------------------------------------


def _capture_mujoco(env: MujocoEnv) -> dict[str, Any]:
    if env.model.nplugin:
        raise NotCapturable("the model has plugins, whose memory MuJoCo does not expose")
    kind = mujoco.mjtState.mjSTATE_INTEGRATION
    integration = np.empty(mujoco.mj_stateSize(env.model, kind))
    mujoco.mj_getState(env.model, env.data, integration, kind)
    derived = {f"derived.{name}": array for name, array in buffer_arrays(env.data).items()}
    return {"integration": integration} | derived


def _restore_mujoco(env: MujocoEnv, part: Mapping[str, Any]) -> None:
    mujoco.mj_setState(env.model, env.data, part["integration"], mujoco.mjtState.mjSTATE_INTEGRATION)
    for name, array in buffer_arrays(env.data).items():
        array[...] = part[f"derived.{name}"]


def buffer_arrays(data: Any) -> dict[str, Array]:
    """Views of the arrays in the fixed buffer of an `MjData`, by attribute name.

    After `mj_step` the derived quantities (`xpos`, `xipos`, `cinert`, ...) belong to the start of the last
    *sub*step, not to the current `qpos`; Ant and Humanoid read them before their next step, so no function of
    `qpos` brings them back. What lies in the arena instead (contacts, `efc_*`, islands) is dropped and
    rebuilt by every step; its attributes may be views of null or freed memory, of a fixed shape and deadly to
    touch. Hence the address decides, not the shape, and not a list of names, which differ between versions.
    """
    first = _address(data.qpos)  # `qpos` is the first field of the buffer
    arrays = {}
    for name in dir(data):
        array = None if name.startswith("_") else getattr(data, name)
        if isinstance(array, np.ndarray) and array.size and first <= _address(array) < first + data.nbuffer:
            arrays[name] = array
    return arrays


def _address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


# -- Generators and values -------------------------------------------------------------------------


def _generator_state(generator: np.random.Generator | None) -> Any:
    """State of the bit generator; None for a generator that does not exist yet."""
    if generator is None:
        return None
    state = generator.bit_generator.state
    if state["bit_generator"] not in _BIT_GENERATORS:
        raise NotCapturable(f"the bit generator {state['bit_generator']} is not one of NumPy's")
    return state


def _restored_generator(generator: np.random.Generator | None, state: Any) -> np.random.Generator | None:
    """The generator in that state: the same object where possible, since others may hold it."""
    if state is None:
        return None
    if generator is None or generator.bit_generator.state["bit_generator"] != state["bit_generator"]:
        generator = np.random.Generator(getattr(np.random, state["bit_generator"])())
    generator.bit_generator.state = state
    return generator


def _plain(value: Any, key: str) -> Json:
    """A copy made of JSON values alone; NumPy numbers become Python's, arrays inside dicts become lists."""
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, list):
        return [_plain(item, key) for item in value]
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return {name: _plain(item, key) for name, item in value.items()}
    raise NotCapturable(f"{key} holds a {type(value).__name__}, which is neither an array nor a JSON value")


def _fresh(value: Any) -> Any:
    """A copy, so that the environment does not write into the state it was restored from."""
    return value.copy() if isinstance(value, np.ndarray) else _plain(value, "")
