"""The layers of a wrapped environment, and where the features of its observations come from.

Knows no wrapper by its class: one that adds or moves features says so itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from sparserl.errors import ConfigError

FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]
IntArray: TypeAlias = npt.NDArray[np.int64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]


@runtime_checkable
class MovesFeatures(Protocol):
    """A wrapper that adds features or changes their order."""

    def carry(self, origins: IntArray) -> IntArray:
        """What `feature_origins` says of the wrapped environment, made true for the wrapper's observations."""


@runtime_checkable
class NamesFeatures(Protocol):
    """A wrapper whose features have names of their own."""

    def own_names(self) -> dict[int, str]:
        """Entry in `feature_origins` of each feature that it adds, above all others -> its name."""


@runtime_checkable
class DrawsNoise(Protocol):
    """A wrapper that adds features without meaning."""

    def draw_noise(self, rng: np.random.Generator, count: int) -> FloatArray:
        """Values of its noise features, shape (count, noise features): column k of the k-th in `feature_origins`."""


def layers(env: gym.Env[Any, Any]) -> Iterator[gym.Env[Any, Any]]:
    """The outermost wrapper first, the base environment last."""
    while isinstance(env, gym.Wrapper):
        yield env
        env = env.env
    yield env


def observation_box(env: gym.Env[Any, Any]) -> gym.spaces.Box:
    """The observation space of `env`.

    Raises:
        ConfigError: If observations are not vectors.
    """
    space = env.observation_space
    if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
        raise ConfigError(f"a wrapper of features needs vectors as observations (Box of one dimension), not {space}")
    return space


def chosen_indices(kind: str, indices: Sequence[int] | None, count: int) -> BoolArray:
    """Which of `count` things are chosen: bool, shape (count,).

    Args:
        kind: What they are, for messages.
        indices: The chosen ones; None chooses all.
        count: How many there are.

    Raises:
        ConfigError: If an index does not exist or comes twice.
    """
    if indices is None:
        return np.ones(count, np.bool_)
    chosen = np.zeros(count, np.bool_)
    for index in indices:
        if index not in range(count):
            raise ConfigError(f"there is no {kind} {index}; the environment has {count} (0 to {count - 1})")
        if chosen[index]:
            raise ConfigError(f"{kind} {index} is named twice")
        chosen[index] = True
    return chosen


def _of_vectors(env: gym.Env[Any, Any]) -> list[gym.Env[Any, Any]]:
    """The layers that observe vectors, the outermost first; the last is the base environment, or what flattens it."""
    seen = []
    for layer in layers(env):
        if not isinstance(layer.observation_space, gym.spaces.Box):
            break
        seen.append(layer)
    return seen or [env]


def base_features(env: gym.Env[Any, Any]) -> int:
    """Features of an observation before any wrapper."""
    return int(observation_box(_of_vectors(env)[-1]).shape[0])


def feature_origins(env: gym.Env[Any, Any]) -> IntArray:
    """Where each feature of an observation comes from, at this moment.

    Returns:
        int64, shape (features,): the feature's index in the base environment's observation, flattened if it is a Dict,
        and `base_features` more for each step that it is old; -1 - k for the k-th noise feature; of features that a
        wrapper names itself (`NamesFeatures`) numbers above all others.

    Raises:
        ConfigError: If a wrapper changes the number of features without saying how (`MovesFeatures`).
    """
    *wrappers, base = _of_vectors(env)
    origins = np.arange(observation_box(base).shape[0])
    for layer in reversed(wrappers):
        if isinstance(layer, MovesFeatures):
            origins = layer.carry(origins)
        count = observation_box(layer).shape[0]
        if count != origins.size:
            raise ConfigError(f"{type(layer).__name__} makes {count} features of {origins.size} without saying how")
    return origins


def relevant_features(env: gym.Env[Any, Any]) -> BoolArray:
    """Which features of an observation are not noise, at this moment: bool, shape (features,)."""
    return feature_origins(env) >= 0


def noise_source(env: gym.Env[Any, Any]) -> DrawsNoise:
    """The wrapper that draws the noise features, for a replay buffer that draws them anew.

    Raises:
        ConfigError: If no wrapper draws noise, or more than one does.
    """
    sources = [layer for layer in layers(env) if isinstance(layer, DrawsNoise)]
    if len(sources) != 1:
        raise ConfigError(f"noise features can be redrawn where one wrapper draws them, not {len(sources)}")
    return sources[0]
