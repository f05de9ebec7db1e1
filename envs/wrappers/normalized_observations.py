"""Observations with mean 0 and variance 1, by statistics that run along or are frozen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.wrappers.utils import RunningMeanStd

from sparserl.envs.array_file import read_arrays, write_arrays
from sparserl.envs.wrapper_stack import layers, observation_box
from sparserl.errors import CheckpointError, ConfigError


@dataclass(frozen=True, eq=False)
class ObservationStatistics:
    """Mean and variance of each feature.

    Attributes:
        mean: float64, shape (features,), finite.
        var: float64, shape (features,), finite, not negative.
        count: Observations behind them, > 0; what comes later weighs 1.

    Raises:
        ConfigError: If shapes or values are not such.
    """

    mean: npt.NDArray[np.float64]
    var: npt.NDArray[np.float64]
    count: float

    def __post_init__(self) -> None:
        if self.mean.ndim != 1 or self.mean.shape != self.var.shape:
            raise ConfigError(
                f"statistics need mean and var of one shape (n,), got {self.mean.shape}, {self.var.shape}"
            )
        if not np.isfinite([self.mean, self.var]).all() or (self.var < 0.0).any() or not 0.0 < self.count < np.inf:
            raise ConfigError("statistics must be finite, with variances that are not negative and a positive count")

    def save(self, path: Path) -> None:
        """Writes a JSON file."""
        write_arrays(path, {"mean": self.mean, "var": self.var, "count": self.count})

    @classmethod
    def load(cls, path: Path) -> ObservationStatistics:
        """Reads a file of `save`, bit for bit; nothing in it is executed.

        Raises:
            ConfigError: If it cannot be read or holds anything else.
        """
        arrays = read_arrays(path, ["mean", "var", "count"])
        if arrays["count"].ndim:
            raise ConfigError(f"{path}: count must be one number")
        return cls(arrays["mean"], arrays["var"], float(arrays["count"]))


class NormalizeObservations(gym.wrappers.NormalizeObservation[Any, Any, Any]):
    """Subtracts the mean of each feature and divides by its standard deviation.

    Gymnasium's wrapper, with statistics that can be given, saved and shared; they are float64, observations become
    float32. An observation enters the statistics before it is normalised.

    Args:
        env: With vectors as observations.
        statistics: To start from; if None, mean 0 and variance 1 with almost no weight.
        update: Whether observations enter the statistics; they are frozen otherwise.
        epsilon: Added to the variance.

    Raises:
        ConfigError: If the statistics are of another number of features.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        statistics: ObservationStatistics | None = None,
        update: bool = True,
        epsilon: float = 1e-8,
    ) -> None:
        # The first call counts: Gymnasium's constructor makes a second one.
        gym.utils.RecordConstructorArgs.__init__(self, statistics=statistics, update=update, epsilon=epsilon)
        shape = observation_box(env).shape
        super().__init__(env, epsilon)
        self.update_running_mean = update
        self.obs_rms = RunningMeanStd(shape=shape, dtype=np.float64)  # type: ignore[no-untyped-call]  # Gymnasium's
        if statistics is not None:
            if statistics.mean.shape != shape:
                raise ConfigError(f"statistics of {statistics.mean.size} features do not fit {shape[0]}")
            self._set(statistics)

    @property
    def statistics(self) -> ObservationStatistics:
        """The present statistics; later observations do not change what is returned."""
        return ObservationStatistics(self.obs_rms.mean.copy(), self.obs_rms.var.copy(), float(self.obs_rms.count))

    def follow(self, leader: NormalizeObservations) -> None:
        """Shares the statistics of `leader` from now on and never updates them; for one that only evaluates."""
        self.obs_rms = leader.obs_rms
        self.update_running_mean = False

    def share(self, leader: NormalizeObservations) -> None:
        """Uses the statistics of `leader` from now on, which observations of both enter."""
        self.obs_rms = leader.obs_rms

    def state_dict(self) -> dict[str, Any]:
        """The statistics."""
        now = self.statistics
        return {"mean": now.mean, "var": now.var, "count": now.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a state of `state_dict`, with all that follow.

        Raises:
            CheckpointError: If it belongs to another number of features.
        """
        mean, var = (np.asarray(state[name], np.float64) for name in ("mean", "var"))
        if mean.shape != self.observation_space.shape:
            raise CheckpointError(f"saved statistics of {mean.size} features do not fit {self.obs_rms.mean.size}")
        self._set(ObservationStatistics(mean, var, float(state["count"])))

    def _set(self, statistics: ObservationStatistics) -> None:
        self.obs_rms.mean, self.obs_rms.var = statistics.mean.copy(), statistics.var.copy()
        self.obs_rms.count = statistics.count


def observation_statistics(env: gym.Env[Any, Any]) -> ObservationStatistics | None:
    """The present statistics of the outermost normalisation of an environment; None if there is none."""
    statistics = (layer.statistics for layer in layers(env) if isinstance(layer, NormalizeObservations))
    return next(statistics, None)
