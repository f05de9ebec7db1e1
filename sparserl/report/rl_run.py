"""A finished run of continual RL, read from its folder. What it says is in the files."""

from __future__ import annotations

import json
import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sparserl import config as yaml_config
from sparserl.errors import ConfigError
from sparserl.metrics.bootstrap import Floats
from sparserl.metrics.continual_rl import performance_curves
from sparserl.recording.run_folder import RunFolder
from sparserl.recording.run_logs import read_columns, read_rows
from sparserl.topology.methods import METHODS

POLICIES = {"stochastic": 1, "deterministic": 0}
"""Name -> column `stochastic` of eval.csv; the first makes the headline."""
DENSITY_KEYS = ("density", "actor_density", "critic_density", "epsilon")


@dataclass(frozen=True, order=True)
class RLTask:
    """What makes a task the same in two runs, wherever in the sequence it comes.

    Attributes:
        env: Id of its environment.
        modification: How that is modified, as JSON; with arguments that it is made with, and a length of episodes, if
            there are.
        steps: Env steps of training.
        repeat: How many equal tasks come before it in the sequence.
        name: What it is called.
    """

    env: str
    modification: str
    steps: int
    repeat: int
    name: str = field(compare=False)


@dataclass(frozen=True)
class Connections:
    """Connections at the end of a run, summed over layers.

    Attributes:
        owned: Owner, a task or `shared` -> its connections.
        frozen: Connections whose values are fixed.
        free: Connections that a further task may have.
        size: All that dense layers would have.
        density: Network, the first part of a layer's name -> share of its dense connections that belong to a task.
    """

    owned: dict[str, int]
    frozen: int
    free: int
    size: int
    density: dict[str, float]


@dataclass(frozen=True)
class RLRun:
    """A finished run.

    Attributes:
        path: Its folder.
        sequence: Name of the sequence.
        tasks: (T,) in the order of training.
        config: Its resolved config.
        evaluations: Columns of eval.csv, one value per episode.
        random: The same columns of random.csv, whose actions are uniformly random.
        connections: At the end.
        result: What `result.json` says.
    """

    path: Path
    sequence: str
    tasks: tuple[RLTask, ...]
    config: Mapping[str, Any]
    evaluations: Mapping[str, Floats]
    random: Mapping[str, Floats]
    connections: Connections
    result: Mapping[str, Any]

    @property
    def seed(self) -> int:
        """Of the run."""
        return int(self.config["seed"])

    @property
    def method(self) -> str:
        """Name of the continual method."""
        return str(self.config["method"])

    @property
    def algo(self) -> str:
        """Name of the agent."""
        return str(self.config["algo"])

    @property
    def topology(self) -> str:
        """Method of the topology and the densities asked for, in words; `Connections` has the real ones."""
        chosen = self.config["topology"]
        method = str(chosen["method"])
        if method in METHODS and METHODS[method].dense:
            return "dense"
        given = [f"{key} {chosen[key]}" for key in DENSITY_KEYS if chosen.get(key) is not None]
        return " ".join([method, *given])

    @property
    def steps(self) -> Floats:
        """(E,) env steps of the evaluations."""
        return np.unique(self.evaluations["global_step"])

    def performance(self, measure: str, policy: str) -> Floats:
        """(E, T) mean of a column of eval.csv over the episodes of a policy."""
        columns = self.evaluations
        rows = columns["stochastic"] == POLICIES[policy]
        steps, task, values = (columns[name][rows] for name in ("global_step", "task", measure))
        return performance_curves(self.steps, steps, task, values, len(self.tasks))

    @property
    def random_returns(self) -> Floats:
        """(T,) mean return of uniformly random actions."""
        of, zeros = self.random, np.zeros(len(self.random["task"]))
        means: Floats = performance_curves([0], zeros, of["task"], of["return"], len(self.tasks))[0]
        return means

    def learned_returns(self, task: int) -> Floats:
        """Returns of single episodes on a task, at the end of training on it, of the policy of the headline."""
        of, end = self.evaluations, sum(one.steps for one in self.tasks[: task + 1])
        policy = next(iter(POLICIES.values()))
        returns: Floats = of["return"][(of["global_step"] == end) & (of["task"] == task) & (of["stochastic"] == policy)]
        return returns

    @property
    def signals_success(self) -> bool:
        """Whether every task says in every episode whether it was solved."""
        return not np.isnan(self.evaluations["success"]).any()


def read_run(path: Path) -> RLRun:
    """Reads a finished run.

    Raises:
        ConfigError: If it is no run of continual RL, is not finished, or a file lacks something.
    """
    folder = RunFolder.open(path)
    config = yaml_config.load_yaml(path / "config.yaml")
    if "sequence" not in config:
        raise ConfigError(f"{path} is a run of `sparserl train`; a report is of continual RL")
    if not (path / "sequence.yaml").is_file():
        raise ConfigError(
            f"{path} is a run of supervised tasks, or has lost its sequence.yaml; a report is of continual RL"
        )
    if not (folder.is_done or (path / "result.json").is_file()):  # one kept as a record may have lost the empty file
        raise ConfigError(
            f"{path} is not finished; continue it with: sparserl continual --resume {shlex.quote(str(path))}"
        )
    sequence = yaml_config.load_yaml(path / "sequence.yaml")
    tasks = _tasks(sequence, path / "sequence.yaml")
    for key in ("method", "algo", "seed", "agent.net_arch", "topology.method"):
        _needed(config, key, path / "config.yaml")
    random = _episodes(path / "random.csv", len(tasks))
    return RLRun(
        path,
        str(_needed(sequence, "name", path / "sequence.yaml")),
        tasks,
        config,
        _episodes(path / "eval.csv", len(tasks)),
        random,
        _connections(path / "connections.csv"),
        _result(path / "result.json"),
    )


def _needed(data: Mapping[str, Any], key: str, path: Path) -> Any:
    """The value at a dotted key."""
    value: Any = data
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise ConfigError(f"{path} has no {key}")
        value = value[part]
    return value


def _tasks(sequence: Mapping[str, Any], path: Path) -> tuple[RLTask, ...]:
    tasks: list[RLTask] = []
    for item in _needed(sequence, "tasks", path):
        name, env, modification, steps = (_needed(item, key, path) for key in ("name", "env", "modification", "steps"))
        own = {key: item[key] for key in ("kwargs", "episode_steps") if item.get(key)}
        same = str(env), json.dumps({**modification, **own}, sort_keys=True), int(steps)
        repeat = sum((task.env, task.modification, task.steps) == same for task in tasks)
        tasks.append(RLTask(*same, repeat, str(name)))
    return tuple(tasks)


def _episodes(path: Path, n_tasks: int) -> dict[str, Floats]:
    columns = read_columns(path)
    for name in ("global_step", "task", "stochastic", "return", "success", "success_last"):
        _needed(columns, name, path)
    last = columns["task"].max()
    if not last < n_tasks:
        raise ConfigError(f"{path} has task {last:.0f}, but the sequence has {n_tasks} tasks")
    bad = ~np.isfinite(columns["return"])
    if bad.any():
        raise ConfigError(f"{path} has a return that is no finite number at step {columns['global_step'][bad][0]:.0f}")
    return columns


def _result(path: Path) -> dict[str, Any]:
    try:
        result: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None
    return result


def _connections(path: Path) -> Connections:
    rows = read_rows(path)
    at_end = [row for row in rows if row["after_task"] == rows[-1]["after_task"]]
    layers = list({row["layer"]: row for row in at_end}.values())  # each owner's row repeats what is said of the layer
    owned: dict[str, int] = defaultdict(int)
    for row in at_end:
        owned[row["owner"]] += int(row["connections"])
    return Connections(
        owned=dict(owned),
        frozen=_sum(layers, "frozen"),
        free=_sum(layers, "free"),
        size=_sum(layers, "size"),
        density={
            name: _sum(_of_network(at_end, name), "connections") / _sum(_of_network(layers, name), "size")
            for name in dict.fromkeys(row["layer"].split(".")[0] for row in layers)
        },
    )


def _of_network(rows: Sequence[Mapping[str, str]], name: str) -> list[Mapping[str, str]]:
    return [row for row in rows if row["layer"].startswith(f"{name}.")]


def _sum(rows: Sequence[Mapping[str, str]], column: str) -> int:
    return sum(int(row[column]) for row in rows)
