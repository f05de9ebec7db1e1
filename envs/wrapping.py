"""Which wrappers a run puts around its environments: plain data, and the one place that applies them.

Decides their order. Independent of how an environment is made and what acts in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypeAlias, runtime_checkable

import gymnasium as gym

from sparserl.envs.simulation_state import HasState
from sparserl.envs.wrapper_stack import layers, observation_box
from sparserl.envs.wrappers.feature_histograms import FeatureHistograms
from sparserl.envs.wrappers.hidden_features import HideFeatures
from sparserl.envs.wrappers.inverted_actions import InvertActions
from sparserl.envs.wrappers.noise_features import AppendNoiseFeatures
from sparserl.envs.wrappers.normalized_observations import NormalizeObservations, ObservationStatistics
from sparserl.envs.wrappers.normalized_rewards import NormalizeRewards
from sparserl.envs.wrappers.permuted_features import PermuteFeatures
from sparserl.envs.wrappers.sensor_dropout import SensorDropout
from sparserl.envs.wrappers.stacked_frames import StackFrames
from sparserl.errors import CheckpointError, ConfigError
from sparserl.ranges import Count, CountOrZero, Positive, PositiveShare, Range, Share, ShareBelowOne, check_ranges

Arguments: TypeAlias = dict[str, Any]

FILES = ("noise_histograms", "normalization")
"""Options of `WrapperConfig` that are paths of files."""


@dataclass(frozen=True)
class WrapperConfig:
    """What stands between an environment and the agent; the defaults put nothing there.

    Raises:
        ConfigError: If a number is out of range, or an option is given that another one does not let work.
    """

    noise_fraction: ShareBelowOne = 0.0
    """Share of all input features that is noise, in [0, 1)."""
    noise_std: Positive = 1.0
    """Standard deviation of that noise."""
    noise_histograms: Path | None = None
    """File of feature histograms to draw the noise from; normal noise if None."""
    permute: bool = False
    """Put the features in a random order."""
    permute_every_steps: Count | None = None
    """A new order at the first end of an episode after each so many env steps; never if None."""
    normalize_observations: Literal["none", "running", "frozen"] = "none"
    """Subtract the mean of each feature and divide by its deviation: as they run along, or frozen ones."""
    normalization: Path | None = None
    """File of statistics that `running` starts from and `frozen` uses."""
    normalize_rewards: PositiveShare | None = None
    """Divide rewards by the deviation of returns that are discounted by this, in (0, 1], as they run along, and cut
    them to [-10, 10]; None leaves them. Returns that are shown are those of the environment in any case."""
    invert_actions: bool = False
    """Mirror every action within its bounds."""
    sensor_dropout: Share = 0.0
    """Probability that a feature reads 0, each step and feature on its own."""
    frame_stack: Annotated[int, Range("[1, 100]")] = 1
    """Latest observations of an episode that the agent sees side by side."""
    hide_velocities: bool = False
    """Take velocities out of observations, so that the agent must infer them from what came before."""
    hidden_features: tuple[CountOrZero, ...] = ()
    """Take the features of these indices out, counted as the environment has them; instead of hide_velocities."""

    def __post_init__(self) -> None:
        check_ranges(self, "wrappers.")
        noise, normal = self.noise_fraction > 0.0, self.noise_histograms is None
        normalizes, frozen = self.normalize_observations != "none", self.normalize_observations == "frozen"
        rules = [
            (self.noise_std != 1.0, noise, "noise-std", "needs wrappers.noise-fraction"),
            (not normal, noise, "noise-histograms", "needs wrappers.noise-fraction"),
            (not normal, self.noise_std == 1.0, "noise-histograms", "does not go with wrappers.noise-std"),
            (self.permute_every_steps is not None, self.permute, "permute-every-steps", "needs wrappers.permute"),
            (self.normalization is not None, normalizes, "normalization", "needs wrappers.normalize-observations"),
            (
                bool(self.hidden_features),
                not self.hide_velocities,
                "hidden-features",
                "does not go with wrappers.hide-velocities: name them, too",
            ),
            (frozen, self.normalization is not None, "normalize-observations frozen", "needs wrappers.normalization"),
        ]
        for given, works, name, problem in rules:
            if given and not works:
                raise ConfigError(f"wrappers.{name} {problem}")

    @property
    def labels(self) -> list[str]:
        """What is special, for the name of a run."""
        said = {
            f"noise{self.noise_fraction:g}": self.noise_fraction > 0.0,
            "permuted": self.permute,
            "normalized": self.normalize_observations != "none",
            "scaled": self.normalize_rewards is not None,
            "inverted": self.invert_actions,
            f"dropout{self.sensor_dropout:g}": self.sensor_dropout > 0.0,
            "positions": self.hide_velocities,
            f"hidden{'-'.join(map(str, self.hidden_features))}": bool(self.hidden_features),
            f"frames{self.frame_stack}": self.frame_stack > 1,
        }
        return [label for label, special in said.items() if special]

    @property
    def files(self) -> dict[str, Path]:
        """Name of each option that is a file and is given -> its path."""
        return {name: getattr(self, name) for name in FILES if getattr(self, name) is not None}

    def with_files(self, files: Mapping[str, Path]) -> WrapperConfig:
        """The same with other paths for some options of `files`."""
        return replace(self, **dict(files))  # type: ignore[arg-type]  # names of FILES, which are paths

    def absolute(self) -> WrapperConfig:
        """The same with the paths of files in full."""
        return self.with_files({name: path.absolute() for name, path in self.files.items()})


@dataclass(frozen=True)
class Wrapping:
    """One wrapper as `wrap` applies it.

    Attributes:
        wrapper: The class.
        arguments: (config, root seed) -> arguments after the environment; None where the config does not ask for it.
        off: Flags without which it is not asked for, of one that needs vectors as observations.
    """

    wrapper: type[gym.Wrapper[Any, Any, Any, Any]]
    arguments: Callable[[WrapperConfig, int], Arguments | None]
    off: str | None = None


def _invert_actions(config: WrapperConfig, seed: int) -> Arguments | None:
    return {} if config.invert_actions else None


def _hidden_features(config: WrapperConfig, seed: int) -> Arguments | None:
    asked = config.hide_velocities or bool(config.hidden_features)
    return {"features": config.hidden_features or None} if asked else None


def _sensor_dropout(config: WrapperConfig, seed: int) -> Arguments | None:
    return {"probability": config.sensor_dropout} if config.sensor_dropout > 0.0 else None


def _normalize_observations(config: WrapperConfig, seed: int) -> Arguments | None:
    if config.normalize_observations == "none":
        return None
    statistics = None if config.normalization is None else ObservationStatistics.load(config.normalization)
    return {"statistics": statistics, "update": config.normalize_observations == "running"}


def _stacked_frames(config: WrapperConfig, seed: int) -> Arguments | None:
    return {"frames": config.frame_stack} if config.frame_stack > 1 else None


def _noise_features(config: WrapperConfig, seed: int) -> Arguments | None:
    if config.noise_fraction == 0.0:
        return None
    histograms = None if config.noise_histograms is None else FeatureHistograms.load(config.noise_histograms)
    return {"fraction": config.noise_fraction, "std": config.noise_std, "histograms": histograms}


def _permuted_features(config: WrapperConfig, seed: int) -> Arguments | None:
    return {"every_steps": config.permute_every_steps, "seed": seed} if config.permute else None


def _normalize_rewards(config: WrapperConfig, seed: int) -> Arguments | None:
    return None if config.normalize_rewards is None else {"discount": config.normalize_rewards}


WRAPPERS = {
    "inverted_actions": Wrapping(InvertActions, _invert_actions),
    "hidden_features": Wrapping(
        HideFeatures, _hidden_features, "--wrappers.no-hide-velocities --wrappers.hidden-features []"
    ),
    "sensor_dropout": Wrapping(SensorDropout, _sensor_dropout, "--wrappers.sensor-dropout 0"),
    "normalized_observations": Wrapping(
        NormalizeObservations, _normalize_observations, "--wrappers.normalize-observations none"
    ),
    "stacked_frames": Wrapping(StackFrames, _stacked_frames, "--wrappers.frame-stack 1"),
    "noise_features": Wrapping(AppendNoiseFeatures, _noise_features, "--wrappers.noise-fraction 0"),
    "permuted_features": Wrapping(PermuteFeatures, _permuted_features, "--wrappers.no-permute"),
    "normalized_rewards": Wrapping(NormalizeRewards, _normalize_rewards),
}
"""All wrappers, in the order in which they are applied, from the environment outwards.

What has no sensor is hidden from everything else. Sensors fail in the robot, before anything is computed from them.
Noise keeps the scale that was asked for, so it comes after normalisation, which would give loud and quiet noise the
same scale; frames are stacked in between, so that a feature has one mean whatever its age, and noise is of this moment
alone. The permutation comes last of them, since it shall hide where the noise is. Rewards are scaled outside of
everything, where what counts returns can stand beneath.
"""


@runtime_checkable
class Follows(Protocol):
    """A wrapper that changes while an agent learns, in a way that the agent's policy depends on."""

    def follow(self, leader: Any) -> None:
        """Is from now on what `leader`, of the same class, is, and never changes it."""


def wrap(
    env: gym.Env[Any, Any], config: WrapperConfig, seed: int, *, follow: gym.Env[Any, Any] | None = None
) -> gym.Env[Any, Any]:
    """Puts the wrappers of a run around an environment.

    Args:
        env: As `make_env` makes it.
        config: What to apply; with the defaults, `env` itself comes back.
        seed: Root seed of the run, from which permutations come. Noise and dropout belong to the seed of a reset.
        follow: For an environment that evaluates: the training environment, of the same config. Its permutation and
            running statistics are used as they change, and not changed.

    Raises:
        ConfigError: If a file cannot be read, or what it holds does not fit the environment; or if wrappers need
            vectors as observations, and these are none: with the flags that switch those off.
    """
    asked = [one.off for one in WRAPPERS.values() if one.off and one.arguments(config, seed) is not None]
    if asked:
        try:
            observation_box(env)
        except ConfigError as error:
            raise ConfigError(f"{error}; give {' '.join(asked)}") from None
    for wrapping in WRAPPERS.values():
        arguments = wrapping.arguments(config, seed)
        if arguments is None:
            continue
        env = wrapping.wrapper(env, **arguments)
        if follow is not None and isinstance(env, Follows):
            env.follow(next(layer for layer in layers(follow) if type(layer) is wrapping.wrapper))
    return env


@runtime_checkable
class Shares(Protocol):
    """A wrapper with statistics that several environments can have in common."""

    def share(self, leader: Any) -> None:
        """Uses those of `leader`, of the same class, from now on."""


def share_statistics(envs: Sequence[gym.Env[Any, Any]]) -> None:
    """Lets environments of the same wrappers go by the statistics of the first, which what happens in all enters.

    Args:
        envs: At least one.
    """
    leading, *others = ([layer for layer in layers(env) if isinstance(layer, Shares)] for env in envs)
    for layers_of in others:
        for leader, layer in zip(leading, layers_of, strict=True):
            layer.share(leader)


def around_counted(env: gym.Env[Any, Any], counter: Callable[..., gym.Env[Any, Any]]) -> gym.Env[Any, Any]:
    """Puts a wrapper that counts returns where it sees the rewards of the environment.

    Args:
        env: From `wrap`.
        counter: Takes an environment.

    Returns:
        `counter(env)`; or where rewards are scaled, `env` with the counter beneath that.
    """
    if not isinstance(env, NormalizeRewards):
        return counter(env)
    env.env = counter(env.env)
    return env


def wrapper_state(env: gym.Env[Any, Any]) -> dict[str, Any]:
    """State of the wrappers that `wrap` put there, even where the environment beneath cannot give its own.

    Returns:
        Name in `WRAPPERS` -> the wrapper's `state_dict()`: arrays, numbers and dicts of them.
    """
    return {name: layer.state_dict() for name, layer in _stateful(env).items()}


def followed_state(env: gym.Env[Any, Any]) -> dict[str, Any]:
    """State, as in `wrapper_state`, of the wrappers on which the policy of an agent depends (`Follows`)."""
    return {name: layer.state_dict() for name, layer in _stateful(env).items() if isinstance(layer, Follows)}


def load_wrapper_state(env: gym.Env[Any, Any], state: Mapping[str, Any]) -> None:
    """Puts the wrappers into a state of `wrapper_state`; for example to evaluate the policy of a checkpoint.

    Raises:
        CheckpointError: If it belongs to other wrappers.
    """
    stateful = _stateful(env)
    if sorted(stateful) != sorted(state):
        raise CheckpointError(f"state of the wrappers {sorted(state)} does not fit {sorted(stateful)}")
    for name, layer in stateful.items():
        layer.load_state_dict(state[name])


def _stateful(env: gym.Env[Any, Any]) -> dict[str, HasState]:
    names = {wrapping.wrapper: name for name, wrapping in WRAPPERS.items()}
    return {
        names[type(layer)]: layer  # type: ignore[index]  # only wrappers are found
        for layer in layers(env)
        if type(layer) in names and isinstance(layer, HasState)
    }
