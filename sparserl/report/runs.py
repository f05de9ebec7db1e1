"""Finished runs of continual RL, read from their folders, put into groups and compared with runs from scratch.

Decides what counts as seeds of one method, and which runs from scratch a method may be compared with. Refuses to know
environments and agents: what it says is in the files.
"""

from __future__ import annotations

import json
import shlex
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sparserl import config as yaml_config
from sparserl.errors import ConfigError
from sparserl.metrics.bootstrap import Floats
from sparserl.metrics.continual_rl import Reference, RLSummary, Scores, performance_curves, scores, summary
from sparserl.recording.run_folder import RunFolder
from sparserl.recording.run_logs import check_returns, read_columns, read_rows
from sparserl.report.seed_groups import seed_groups
from sparserl.seeding import stream
from sparserl.topology.presets import METHODS

SCRATCH = "scratch"
"""The method of reference."""
POLICIES = {"stochastic": 1, "deterministic": 0}
"""Name -> column `stochastic` of eval.csv; the first makes the headline."""
NORMALISED = "normalised_return"
"""Returns with 0 at random actions and 1 at fresh networks; other measures are columns of eval.csv."""
DENSITY_KEYS = ("density", "actor_density", "critic_density", "epsilon")


@dataclass(frozen=True, order=True)
class RLTask:
    """What makes a task the same in two runs, wherever in the sequence it comes.

    Attributes:
        env: Id of its environment.
        modification: How that is modified, as JSON.
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
        density: Network, the first part of a layer's name -> share of its dense connections that belong to somebody.
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
        random_returns: (T,) mean return of uniformly random actions.
        connections: At the end.
        result: What `result.json` says.
    """

    path: Path
    sequence: str
    tasks: tuple[RLTask, ...]
    config: Mapping[str, Any]
    evaluations: Mapping[str, Floats]
    random_returns: Floats
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
    def signals_success(self) -> bool:
        """Whether every task says in every episode whether it was solved."""
        return not np.isnan(self.evaluations["success"]).any()


@dataclass(frozen=True)
class RunGroup:
    """Runs that differ in the seed alone.

    Attributes:
        label: What tells them from other groups on the same tasks with the same agent.
        runs: At least one, by seed.
    """

    label: str
    runs: tuple[RLRun, ...]

    @property
    def first(self) -> RLRun:
        """The run of the lowest seed; in all that is not of a seed, the others are like it."""
        return self.runs[0]

    @property
    def seeds(self) -> list[int]:
        """Of the runs."""
        return [run.seed for run in self.runs]

    def scores(self, tasks: Sequence[RLTask], measure: str, policy: str, last: int) -> Scores:
        """Performances of the seeds, (S, T), the tasks in the order given and not in that in which a seed met them.

        Raises:
            ConfigError: If a run has fewer than `last` evaluations of a task in its own interval.
        """
        found = [_scores(run, tasks, measure, policy, last) for run in self.runs]
        return Scores(*(np.stack([getattr(one, part) for one in found]) for part in ("end", "own", "auc")))


@dataclass(frozen=True)
class Section:
    """Groups on the same tasks with the same agent, and what they are compared with.

    Attributes:
        tasks: (T,) in the order in which the first run met them; families of tasks are ordered by the seed.
        groups: At least one; the reference is among them.
        reference: Runs from scratch, or None.
        why_none: Why there is no reference, in one line; empty if there is one.
    """

    tasks: tuple[RLTask, ...]
    groups: tuple[RunGroup, ...]
    reference: RunGroup | None
    why_none: str = ""

    @property
    def first(self) -> RLRun:
        """A run, for all that is the same in all of them."""
        return self.groups[0].first

    @property
    def measures(self) -> tuple[str, ...]:
        """What performance is, the headline first; success if every run signals it, else returns."""
        if all(run.signals_success for group in self.groups for run in group.runs):
            return ("success", "success_last")
        return ("return",) if self.reference is None else (NORMALISED, "return")

    def summary(self, group: RunGroup, measure: str, policy: str, last: int) -> RLSummary:
        """The metrics of one group. Resamples depend on what is summarised alone, so a report repeats exactly.

        Args:
            group: One of `groups`.
            measure: One of `measures`.
            policy: Name in `POLICIES`; that of the reference is the same.
            last: Evaluations that "at the end" averages.

        Raises:
            ConfigError: If a run has fewer than `last` evaluations of a task in its own interval.
        """
        column = "return" if measure == NORMALISED else measure
        reference = None
        if self.reference is not None:
            random = [run.random_returns[_places(run, self.tasks)] for run in self.reference.runs]
            reference = Reference(
                self.reference.scores(self.tasks, column, policy, last),
                np.stack(random) if measure == NORMALISED else None,
                rates=measure != "return",
            )
        run = group.first
        rng = stream(0, "report", run.sequence, run.algo, run.method, run.topology, measure, policy)
        return summary(group.scores(self.tasks, column, policy, last), reference, rng)


def sections(runs: Sequence[RLRun]) -> list[Section]:
    """Puts runs that may be compared together: one section for each reference, one for what has none.

    Raises:
        ConfigError: If two runs are the same seed of the same.
    """
    alike: dict[Any, list[RLRun]] = defaultdict(list)
    for run in runs:
        alike[run.sequence, run.algo, tuple(sorted(run.tasks))].append(run)
    scratch = [run for run in runs if run.method == SCRATCH]
    return [section for members in alike.values() for section in _sections(_groups(members), scratch)]


def _sections(groups: Sequence[RunGroup], scratch: Sequence[RLRun]) -> Iterator[Section]:
    tasks = min(groups, key=lambda group: group.first.seed).first.tasks
    compared: set[str] = set()
    for reference in groups:
        if reference.first.method == SCRATCH:
            comparable = [group for group in groups if difference(group.first, reference.first) is None]
            compared |= {group.label for group in comparable}
            yield Section(tasks, tuple(comparable), reference)
    others: dict[str, list[RunGroup]] = defaultdict(list)
    for group in groups:
        if group.label not in compared:
            others[_why_none(group.first, scratch)].append(group)
    for why_none, members in others.items():
        yield Section(tasks, tuple(members), None, why_none)


def _why_none(run: RLRun, scratch: Sequence[RLRun]) -> str:
    if not scratch:
        return f"no runs of --method {SCRATCH} given"
    nearest = max(scratch, key=lambda one: one.sequence == run.sequence)
    return f"{nearest.path} is no reference, {difference(run, nearest)}"


def _groups(runs: Sequence[RLRun]) -> list[RunGroup]:
    """Seeds of the same; what else differs between runs of a method goes into the label."""
    groups = seed_groups(runs, lambda run: f"{run.method}, {run.topology}")
    return [RunGroup(label, tuple(members)) for label, members in groups.items()]


_COMPARED: dict[str, Callable[[RLRun], Any]] = {
    "sequence": lambda run: run.sequence,
    "algo": lambda run: run.algo,
    "number of tasks": lambda run: len(run.tasks),
    "steps per task": lambda run: sorted({task.steps for task in run.tasks}),
    "agent.net_arch": lambda run: run.config["agent"]["net_arch"],
}


def difference(run: RLRun, reference: RLRun) -> str | None:
    """Why a run from scratch cannot be the reference of a run, in one line; None if it can.

    Tasks with their steps and modifications, agent and widths must be the same, and evaluations at the same env steps.
    The density may differ: against a dense reference and against one of the same density are two questions.
    """
    for name, of in _COMPARED.items():
        if of(run) != of(reference):
            return f"{name} {of(run)} and {of(reference)}"
    for task in run.tasks:
        if task not in reference.tasks:
            return f"task {task.name!r} of {task.env} is not one of its tasks, or modified otherwise"
    at_one_alone = np.setxor1d(run.steps, reference.steps)
    return f"one of them alone was evaluated at env step {at_one_alone[0]:.0f}" if at_one_alone.size else None


def _places(run: RLRun, tasks: Sequence[RLTask]) -> list[int]:
    """Where in the sequence of a run some tasks come."""
    return [run.tasks.index(task) for task in tasks]


def _scores(run: RLRun, tasks: Sequence[RLTask], measure: str, policy: str, last: int) -> Scores:
    try:
        own = scores(run.steps, run.performance(measure, policy), [task.steps for task in run.tasks], last=last)
    except ConfigError as error:
        raise ConfigError(f"{run.path}: {error}") from None
    places = _places(run, tasks)
    return own.map(lambda values: values[places])


# --- files ------------------------------------------------------------------------------------------


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
        performance_curves([0], np.zeros(len(random["task"])), random["task"], random["return"], len(tasks))[0],
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
        same = str(env), json.dumps(modification, sort_keys=True), int(steps)
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
    check_returns(columns["global_step"], columns["return"], path)
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
