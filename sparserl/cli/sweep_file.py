"""A sweep as a file: a config, a grid of values over it, and seeds; and the runs that these make."""

from __future__ import annotations

import hashlib
import itertools
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sparserl import config as yaml_config
from sparserl.cli.continual import is_of_environments_line
from sparserl.cli.continual_config import parse_continual
from sparserl.cli.rl_continual_config import parse_rl_continual
from sparserl.cli.train_config import parse_train
from sparserl.errors import ConfigError, SparserlError, unknown_name

KEYS = ("command", "base", "grid", "seeds")
ID_DIGITS = 10


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    Attributes:
        command: Sub-command that trains it.
        id: Hash of the resolved config: the same config has the same id, whatever file it came from.
        name: Run name without the seed.
        seed: Root seed.
        point: The values of the grid that it has, by dotted key.
        config: The resolved config as plain data.
    """

    command: str
    id: str
    name: str
    seed: int
    point: Mapping[str, Any]
    config: Mapping[str, Any]

    @property
    def folder(self) -> str:
        """Name of its run folder."""
        return f"{self.name.replace('/', '-')}__s{self.seed}__{self.id}"


def _train(words: Sequence[str]) -> tuple[Any, dict[str, Any]]:
    run = parse_train(words)[0].run
    return run, yaml_config.plain(run)


def _continual(words: Sequence[str]) -> tuple[Any, dict[str, Any]]:
    run: Any = parse_rl_continual(words)[0].run if is_of_environments_line(words) else parse_continual(words)[0].run
    return run, run.plain()


RESOLVE: dict[str, Callable[[Sequence[str]], tuple[Any, dict[str, Any]]]] = {"train": _train, "continual": _continual}
"""Sub-command -> its words to the resolved config, as an object and as plain data."""


def load_jobs(path: Path) -> list[Job]:
    """The runs of a sweep file, seeds innermost.

    Under `base` stands what a config file of the command holds, under `grid` lists of values by dotted key, under
    `seeds` a list or a number (3 means 0, 1, 2). Presets lie beneath, as for the command itself.

    Raises:
        ConfigError: If the file cannot be read, a key or value is wrong, there is no run, or two runs are the same.
    """
    data = yaml_config.load_yaml(path)
    for key in data:
        if key not in KEYS:
            raise ConfigError(f"{path}: {unknown_name('key of a sweep', str(key), KEYS)}")
    command = data.get("command", "train")
    if command not in RESOLVE:
        raise ConfigError(f"{path}: {unknown_name('command', str(command), RESOLVE)}")
    grid, seeds = _grid(path, data.get("grid", {})), _seeds(path, data.get("seeds", 1))
    base = data.get("base", {})
    if not isinstance(base, dict):
        raise ConfigError(f"{path}: base must hold keys and values, got {base!r}")
    if "seed" in base or "seed" in grid:
        raise ConfigError(f"{path}: seeds are listed under seeds, not under base or grid")
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    jobs = [_job(path, command, base, point, seed) for point in points for seed in seeds]
    if not jobs:
        raise ConfigError(f"{path} makes no run: a list of its grid, or of its seeds, is empty")
    first: dict[str, Job] = {}
    for job in jobs:
        if job.id in first:
            raise ConfigError(f"{path}: {_said(first[job.id])} and {_said(job)} are the same run, {job.id}")
        first[job.id] = job
    return jobs


def _grid(path: Path, grid: Any) -> dict[str, list[Any]]:
    if not isinstance(grid, dict):
        raise ConfigError(f"{path}: grid must hold lists by dotted key, got {grid!r}")
    for key, values in grid.items():
        if not isinstance(values, list):
            raise ConfigError(f"{path}: grid.{key} must be a list, got {values!r}")
    return grid


def _seeds(path: Path, seeds: Any) -> list[int]:
    if isinstance(seeds, int) and not isinstance(seeds, bool):
        seeds = list(range(seeds))
    if not isinstance(seeds, list) or not all(type(seed) is int for seed in seeds):
        raise ConfigError(f"{path}: seeds must be a number or a list of integers, got {seeds!r}")
    return seeds


def _job(path: Path, command: str, base: Mapping[str, Any], point: Mapping[str, Any], seed: int) -> Job:
    data = dict(base)
    for key, value in {**point, "seed": seed}.items():
        nested: Any = value
        for part in reversed(str(key).split(".")):
            nested = {part: nested}
        data = yaml_config.merge(data, nested)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "run.yaml"
        file.write_text(yaml.safe_dump(data))
        try:
            run, plain = RESOLVE[command](["--config", str(file)])
        except SparserlError as error:
            said = f"{_point_said(point)}, " if point else ""
            raise ConfigError(f"{path}, {said}seed {seed}: {str(error).replace(str(file), 'base')}") from None
    digest = hashlib.sha256(json.dumps([command, plain], sort_keys=True).encode()).hexdigest()
    return Job(command, digest[:ID_DIGITS], run.name, seed, dict(point), plain)


def _said(job: Job) -> str:
    return f"{_point_said(job.point)} seed {job.seed}".strip()


def _point_said(point: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in point.items())
