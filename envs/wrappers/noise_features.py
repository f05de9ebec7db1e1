"""Observations with features that mean nothing, for methods that should learn to ignore them."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np

from sparserl.envs.wrapper_stack import BoolArray, FloatArray, IntArray, observation_box
from sparserl.envs.wrappers.feature_histograms import FeatureHistograms
from sparserl.envs.wrappers.random_observation import RandomObservation
from sparserl.errors import ConfigError


class AppendNoiseFeatures(RandomObservation, gym.utils.RecordConstructorArgs):
    """Appends noise features after the real ones, drawn at every reset and step.

    What is drawn is part of the observation, so a replay buffer stores it. Real features stay as they are, and so does
    their dtype where it is one of floats; whole numbers become float32, as noise is none.

    Args:
        env: With vectors as observations.
        fraction: Share of all features that is noise, in [0, 1).
        std: Standard deviation of the noise, which is normal with mean 0.
        histograms: Distributions to draw from instead, noise feature j from histogram j modulo their number.

    Raises:
        ConfigError: If a number is out of range, or both `std` and `histograms` are given.

    Source:
        Grooten et al. 2023 (ANF), extremely noisy environments. There the networks draw the noise anew at every use;
        a replay buffer that redraws does the same. The number of features is computed as in its code,
        `ceil(d / (1 - f))` in floating point: 17 real ones at 0.8 and 0.9 become 86 and 171, not 85 and 170.

    Example:
        >>> env = AppendNoiseFeatures(gym.make("HalfCheetah-v5"), fraction=0.9)
        >>> env.observation_space.shape, int(env.noise_features.sum())
        ((171,), 154)
    """

    stream_name = "noise_features"

    def __init__(
        self,
        env: gym.Env[Any, Any],
        fraction: float,
        std: float = 1.0,
        histograms: FeatureHistograms | None = None,
    ) -> None:
        check_noise_fraction(fraction)
        check_noise_std(std)
        if histograms is not None and std != 1.0:
            raise ConfigError(f"noise from histograms takes no noise std, got {std}")
        gym.utils.RecordConstructorArgs.__init__(self, fraction=fraction, std=std, histograms=histograms)
        super().__init__(env)
        space = observation_box(env)
        self._real = space.shape[0]
        self._noise = math.ceil(self._real / (1.0 - fraction)) - self._real
        self._std, self._histograms = std, histograms
        self._dtype = space.dtype if space.dtype.kind == "f" else np.dtype(np.float32)
        self.observation_space = gym.spaces.Box(
            np.append(space.low.astype(self._dtype), np.full(self._noise, -np.inf, self._dtype)),
            np.append(space.high.astype(self._dtype), np.full(self._noise, np.inf, self._dtype)),
            dtype=self._dtype,
        )

    @property
    def noise_features(self) -> BoolArray:
        """Which features of its observations are noise: bool, shape (features,)."""
        return np.arange(self._real + self._noise) >= self._real

    def draw_noise(self, rng: np.random.Generator, count: int) -> FloatArray:
        """Values for the noise features of `count` observations, float64, shape (count, noise features)."""
        if self._histograms is not None:
            return self._histograms.draw(rng, count, self._noise)
        return rng.normal(scale=self._std, size=(count, self._noise))

    def carry(self, origins: IntArray) -> IntArray:
        """See `MovesFeatures`."""
        return np.append(origins, -1 - np.arange(self._noise))

    def observation(self, observation: Any) -> Any:
        """The observation, then noise."""
        noise = self.draw_noise(self._generator, 1)[0]
        return np.append(observation, noise).astype(self._dtype)


def check_noise_fraction(fraction: float, name: str = "noise fraction") -> None:
    """Raises ConfigError unless it leaves a real feature."""
    if not 0.0 <= fraction < 1.0:  # NaN is not
        raise ConfigError(f"{name} must be in [0, 1), got {fraction}")


def check_noise_std(std: float, name: str = "noise std") -> None:
    """Raises ConfigError unless it is a scale."""
    if not 0.0 < std < math.inf:
        raise ConfigError(f"{name} must be positive and finite, got {std}")
