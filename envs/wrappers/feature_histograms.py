"""How the features of an environment are distributed, as histograms that noise can be drawn from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from sparserl.envs.array_file import read_arrays, write_arrays
from sparserl.envs.wrapper_stack import FloatArray
from sparserl.errors import ConfigError


@dataclass(frozen=True, eq=False)
class FeatureHistograms:
    """One histogram for each feature.

    Attributes:
        edges: Borders of the bins, float64, shape (features, bins + 1), not decreasing, finite.
        probabilities: Of the bins, float64, shape (features, bins); a row sums to 1.

    Raises:
        ConfigError: If shapes or values are not such.
    """

    edges: npt.NDArray[np.float64]
    probabilities: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        edges, probabilities = self.edges, self.probabilities
        if edges.ndim != 2 or probabilities.ndim != 2 or 0 in probabilities.shape:
            raise ConfigError(
                "histograms need edges of shape (features, bins + 1) and probabilities of shape (features, bins), "
                f"got {edges.shape} and {probabilities.shape}"
            )
        features, bins = probabilities.shape
        if edges.shape != (features, bins + 1):
            raise ConfigError(f"histograms with probabilities {probabilities.shape} cannot have edges {edges.shape}")
        if not np.isfinite(edges).all() or (np.diff(edges) < 0.0).any():
            raise ConfigError("edges of histograms must be finite and must not decrease")
        if not (probabilities >= 0.0).all() or not np.allclose(probabilities.sum(axis=1), 1.0, rtol=0.0, atol=1e-9):
            raise ConfigError("probabilities of histograms must not be negative, and each row must sum to 1")

    @classmethod
    def of(cls, observations: FloatArray, bins: int) -> FeatureHistograms:
        """Histograms between the smallest and the largest value of each feature; a constant stays a constant.

        Args:
            observations: Finite, shape (observations, features).
            bins: Of equal width, at least 1.
        """
        if observations.ndim != 2 or 0 in observations.shape or bins < 1:
            raise ConfigError(f"cannot make histograms of {bins} bins from observations {observations.shape}")
        if not np.isfinite(observations).all():
            raise ConfigError("observations must be finite to make histograms of them")
        columns = observations.T.astype(np.float64)
        edges = np.linspace(columns.min(axis=1), columns.max(axis=1), bins + 1, axis=1)
        counts = [np.histogram(column, row)[0] for column, row in zip(columns, edges, strict=True)]
        return cls(edges, np.array(counts) / len(observations))

    def save(self, path: Path) -> None:
        """Writes a JSON file."""
        write_arrays(path, {"edges": self.edges, "probabilities": self.probabilities})

    @classmethod
    def load(cls, path: Path) -> FeatureHistograms:
        """Reads a file of `save`, bit for bit; nothing in it is executed.

        Raises:
            ConfigError: If it cannot be read or holds anything else.
        """
        return cls(**read_arrays(path, ["edges", "probabilities"]))

    def draw(self, rng: np.random.Generator, count: int, features: int) -> npt.NDArray[np.float64]:
        """A bin by its probability and a value uniform within it, each feature on its own.

        Args:
            rng: Generator; one number is drawn for each value.
            count: Rows.
            features: Columns; column j follows histogram j modulo the number of histograms.

        Returns:
            Shape (count, features).
        """
        # The inverse of the cumulative distribution, of all histograms end to end: histogram k lies on [k, k + 1).
        # Where the cumulative stands still, at an empty bin or between two histograms, `interp` takes the last point.
        histograms = len(self.edges)
        cumulative = np.zeros(self.edges.shape)
        np.cumsum(self.probabilities, axis=1, out=cumulative[:, 1:])
        cumulative[:, 1:] /= cumulative[:, -1:].copy()
        first = np.arange(histograms)[:, None]
        chosen = np.arange(features) % histograms
        where = np.minimum(chosen + rng.random((count, features)), np.nextafter(chosen + 1.0, 0.0))
        values: npt.NDArray[np.float64] = np.interp(where, (first + cumulative).ravel(), self.edges.ravel())
        return values


def collect_histograms(env: gym.Env[Any, Any], steps: int, seed: int, bins: int = 50) -> FeatureHistograms:
    """Histograms of what an environment shows under random actions.

    Args:
        env: Gets reset, stepped and its action space seeded.
        steps: Env steps, at least 1; observations of resets count too.
        seed: Of the environment and the actions.
        bins: For each feature.

    Source:
        Grooten et al. 2023 (ANF), experiments with realistic noise.
    """
    if steps < 1:
        raise ConfigError(f"histograms need at least 1 step, got {steps}")
    env.action_space.seed(seed)
    observations = [env.reset(seed=seed)[0]]
    for _ in range(steps):
        observation, _, terminated, truncated, _ = env.step(env.action_space.sample())
        observations.append(observation)
        if terminated or truncated:
            observations.append(env.reset()[0])
    return FeatureHistograms.of(np.array(observations), bins)
