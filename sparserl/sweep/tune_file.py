"""A search as a file: a config, values to try over it, seeds, and which number of the result is to be good.

Knows no Optuna: which values are tried when is said elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from sparserl.errors import ConfigError, shown, unknown_name
from sparserl.experiment.resolving import choose
from sparserl.sweep.file import Base, Job, check_number_of_runs

RANGE_KEYS = ("low", "high", "log")
Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True)
class Range:
    """Numbers to try, integers if both ends are.

    Attributes:
        low: Smallest of them.
        high: Largest of them.
        log: Whether they lie evenly in the logarithm.
    """

    low: float
    high: float
    log: bool


Values = Range | tuple[Any, ...]
"""What is tried for a key: a range, or choices."""


@dataclass(frozen=True)
class TuneFile:
    """What is searched.

    Attributes:
        base: Beneath all trials.
        space: Dotted key -> what is tried for it.
        objective: Key of `result.json`, averaged over seeds.
        direction: Whether it is to be large or small.
        data: All of that as the file has it, plain.
    """

    base: Base
    space: Mapping[str, Values]
    objective: str
    direction: Direction
    data: Mapping[str, Any]

    def jobs(self, point: Mapping[str, Any]) -> list[Job]:
        """The runs of a trial, one for each seed.

        Raises:
            ConfigError: If values do not go together.
        """
        return [self.base.job(point, seed) for seed in self.base.seeds]


def load_tune_file(path: Path) -> TuneFile:
    """Reads what is searched; `command`, `base` and `seeds` are those of a sweep.

    Under `space` stands for each dotted key a list of choices, or a mapping with `low`, `high` and `log`. Both ends of
    each range and every choice are tried on the config, so that only a combination can be wrong later.

    Raises:
        ConfigError: If the file cannot be read, or a key or value is wrong.
    """
    base, data = Base.read(path, "search", "space", ("objective", "direction"))
    space, seeds = data["space"], base.seeds
    if not space:
        raise ConfigError(f"{path} searches nothing: its space is empty")
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"{path}: seeds must be there and differ, got {shown(data['seeds'])}")
    direction = data.get("direction", "maximize")
    if direction not in get_args(Direction):
        raise ConfigError(f"{path}: {unknown_name('direction', str(direction), get_args(Direction))}")
    objective = data.get("objective", "return_last10")
    if not isinstance(objective, str):
        raise ConfigError(f"{path}: objective must be a key of result.json, got {shown(objective)}")
    stated = {
        "command": base.command,
        "base": base.config,
        "space": space,
        "objective": objective,
        "direction": direction,
        "seeds": list(seeds),
    }
    check_number_of_runs(path, sum(len(values) for values in space.values() if isinstance(values, list)))
    tried = {key: _tried(path, str(key), values) for key, values in space.items()}
    first = {key: values[0] for key, values in tried.items()}
    job = base.job(first, seeds[0])
    checked: dict[str, Values] = {}
    for key, values in space.items():
        jobs = [job, *(base.job({**first, key: value}, seeds[0]) for value in tried[key][1:])]
        checked[key] = tuple(values) if isinstance(values, list) else _range(path, key, values, jobs)
    return TuneFile(base, checked, objective, direction, stated)


def _tried(path: Path, key: str, values: Any) -> list[Any]:
    """The choices of a key, or both ends of its range."""
    if isinstance(values, list) and values:
        return values
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: space.{key} must be a list of choices, or hold low and high, got {shown(values)}")
    for name in values:
        if name not in RANGE_KEYS:
            raise ConfigError(f"{path}: space.{key}: {unknown_name('key of a range', str(name), RANGE_KEYS)}")
    for name in ("low", "high"):
        if name not in values:
            raise ConfigError(f"{path}: space.{key} has no {name}")
    return [values["low"], values["high"]]


def _at(path: Path, job: Job, key: str) -> Any:
    """The value that a config has under a dotted key."""
    value: Any = job.config
    for part in choose(job.command, job.config).short.get(key, key).split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise ConfigError(f"{path}: space.{key} has another name in a config; say that, or list its choices")
        value = value[part]
    return value


def _range(path: Path, key: str, values: Mapping[str, Any], jobs: Sequence[Job]) -> Range:
    """The range between ends as configs have them: `0` of a float is 0.0, and `1e-3` no text."""
    low, high = (_at(path, job, key) for job in jobs)
    log = values.get("log", False)
    if not (type(low) is type(high) and type(low) in (int, float)):
        raise ConfigError(f"{path}: space.{key} is not between numbers but from {low!r} to {high!r}; list its choices")
    if low > high:
        raise ConfigError(f"{path}: space.{key} must have low <= high, got {low} and {high}")
    if not isinstance(log, bool):
        raise ConfigError(f"{path}: space.{key}.log must be true or false, got {shown(log)}")
    if log and low <= 0:
        raise ConfigError(f"{path}: space.{key} has log, so low must be above 0, got {low}")
    return Range(low, high, log)
