"""A sweep as a file: a config, a grid of values over it, and seeds; and the runs that these make."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from sparserl import config as yaml_config
from sparserl.errors import ConfigError, SparserlError, shown, unknown_name
from sparserl.experiment.config_layers import over, refuse_density_of_dense
from sparserl.experiment.input_files import stored
from sparserl.experiment.recorded_run import folder_name
from sparserl.experiment.resolving import Kind, resolve
from sparserl.recording.wandb_environment import without_environment

ID_DIGITS = 10
SPARING: Mapping[Kind, dict[str, Any]] = {"train": {"keep_replay": False}}
"""Command -> what holds for its runs in place of defaults: the replay buffers of all runs together may fill a disk."""
PRESET = "preset"
"""Key of a file, beside those of configs, for what lies beneath in place of the preset that fits a run."""
MOST_RUNS = 10_000
"""Of a sweep, and of a trial."""


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    Attributes:
        command: Sub-command that trains it.
        id: Hash of `recorded`: the same config has the same id, whatever file it came from.
        name: Run name without the seed.
        seed: Root seed.
        point: The values of the grid that it has, by dotted key.
        config: The resolved config as plain data.
        recorded: The same as its run folder says it, where files are named by their content.
    """

    command: Kind
    id: str
    name: str
    seed: int
    point: Mapping[str, Any]
    config: Mapping[str, Any]
    recorded: Mapping[str, Any]

    @property
    def folder(self) -> str:
        """Name of its run folder."""
        return f"{folder_name(self.name)}__s{self.seed}__{self.id}"


@dataclass(frozen=True)
class Base:
    """What the runs of a file have in common, whatever it varies.

    Attributes:
        path: The file.
        command: Sub-command that trains them; what `resolve` calls kind.
        config: What a config file of the command holds, and `PRESET` if it is given.
        seeds: Root seeds.
    """

    path: Path
    command: Kind
    config: Mapping[str, Any]
    seeds: Sequence[int]

    @classmethod
    def read(
        cls, path: Path, kind: str, varied: str, more: Sequence[str] = (), *, several: bool = False
    ) -> tuple[Base, dict[str, Any]]:
        """Reads `command`, `base` and `seeds` (a list or a number: 3 means 0, 1, 2), and checks which keys there are.

        Args:
            path: The file.
            kind: What it is, for messages.
            varied: Key of what it varies, by dotted key.
            more: Further keys that it may have.
            several: Whether it may vary things in several ways, one after another: a list of dicts.

        Returns:
            The base, and all that the file says, in which `varied` is a dict, or with `several` a list of dicts.

        Raises:
            ConfigError: If the file cannot be read, or a key or value is wrong.
        """
        data = {varied: {}, **yaml_config.load_yaml(path)}
        keys = ("command", "base", varied, *more, "seeds")
        for key in data:
            if key not in keys:
                raise ConfigError(f"{path}: {unknown_name(f'key of a {kind}', str(key), keys)}")
        command, base = data.get("command", "train"), data.get("base", {})
        kinds = get_args(Kind)
        if command not in kinds:
            raise ConfigError(f"{path}: {unknown_name('command', str(command), kinds)}")
        if several and not isinstance(data[varied], list):
            data[varied] = [data[varied]]
        parts = data[varied] if several else [data[varied]]
        for key, mapping in (("base", base), *((varied, part) for part in parts)):
            if not isinstance(mapping, dict):
                raise ConfigError(f"{path}: {key} must hold keys and values, got {shown(mapping)}")
        if any("seed" in mapping for mapping in (base, *parts)):
            raise ConfigError(f"{path}: seeds are listed under seeds, not under base or {varied}")
        seeds = data.get("seeds", 1)
        listed = list(range(min(seeds, MOST_RUNS + 1))) if type(seeds) is int else seeds
        if not isinstance(listed, list) or not all(type(seed) is int for seed in listed):
            raise ConfigError(f"{path}: seeds must be a number or a list of integers, got {shown(seeds)}")
        if len(listed) > MOST_RUNS:
            raise ConfigError(f"{path}: seeds must be at most {MOST_RUNS:,}, got {shown(seeds)}")
        return cls(path, command, base, listed), data

    def job(self, point: Mapping[str, Any], seed: int) -> Job:
        """The run of a seed with values over the base, by dotted key; one of them may be `PRESET`.

        Raises:
            ConfigError: If a key or value is wrong.
        """
        own = yaml_config.nested({str(key): value for key, value in {**point, "seed": seed}.items()})
        data = over({**SPARING.get(self.command, {}), **self.config}, own)
        preset = data.pop(PRESET, None)
        try:
            if preset is not None and not isinstance(preset, str):
                raise ConfigError(f"{PRESET} must be a name, got {shown(preset)}")
            run = resolve(self.command, data, preset=preset)
            of_point = yaml_config.nested(point).get("topology")
            if isinstance(of_point, Mapping):
                refuse_density_of_dense({**of_point, "method": data["topology"].get("method")})
            recorded = stored(run)[0].plain()
        except SparserlError as error:
            said = f"{_point_said(point)}, " if point else ""
            raise ConfigError(f"{self.path}, {said}seed {seed}: {error}") from None
        # Runs of a sweep are found again whatever the environment says to W&B.
        alike = recorded | {"wandb": without_environment(recorded["wandb"], data.get("wandb") or {})}
        digest = hashlib.sha256(json.dumps([self.command, alike], sort_keys=True).encode()).hexdigest()
        return Job(self.command, digest[:ID_DIGITS], run.name, seed, dict(point), run.plain(), recorded)


def check_number_of_runs(path: Path, runs: int) -> None:
    """Raises ConfigError if a file makes more than `MOST_RUNS`, which would take minutes to list."""
    if runs > MOST_RUNS:
        raise ConfigError(f"{path} makes {shown(runs)} runs, more than {MOST_RUNS:,}; make several files of it")


def load_jobs(path: Path) -> list[Job]:
    """The runs of a sweep file, seeds innermost.

    Under `base` stands what a config file of the command holds, under `grid` lists of values by dotted key (or a list
    of such grids, one after another), under `seeds` a list or a number (3 means 0, 1, 2). Presets lie beneath, as for
    the command itself; `preset` names one, in `base` or in a grid.

    Raises:
        ConfigError: If the file cannot be read, a key or value is wrong, there is no run, or two runs are the same.
    """
    base, data = Base.read(path, "sweep", "grid", several=True)
    grids = data["grid"]
    for grid in grids:
        for key, values in grid.items():
            if not isinstance(values, list):
                raise ConfigError(f"{path}: grid.{key} must be a list, got {shown(values)}")
    check_number_of_runs(path, sum(math.prod(map(len, grid.values())) for grid in grids) * len(base.seeds))
    points = [dict(zip(grid, values, strict=True)) for grid in grids for values in itertools.product(*grid.values())]
    jobs = [base.job(point, seed) for point in points for seed in base.seeds]
    if not jobs:
        raise ConfigError(f"{path} makes no run: a list of its grid, or of its seeds, is empty")
    first: dict[str, Job] = {}
    for job in jobs:
        if job.id in first:
            raise ConfigError(f"{path}: {_said(first[job.id])} and {_said(job)} are the same run, {job.id}")
        first[job.id] = job
    return jobs


def _said(job: Job) -> str:
    return f"{_point_said(job.point)} seed {job.seed}".strip()


def _point_said(point: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in point.items())
