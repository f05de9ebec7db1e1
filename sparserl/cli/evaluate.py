"""`sparserl eval`: returns of a policy, on tasks with and without exploration noise; or accuracies and classes."""

from __future__ import annotations

import csv
import dataclasses
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from sparserl.agents.evaluation import Evaluation
from sparserl.cli.arguments import parse
from sparserl.cli.tables import titled_table
from sparserl.continual.rl.evaluation import Episode, warning_of
from sparserl.errors import ConfigError
from sparserl.experiment.opened_agent_run import TrainedAgent, TrainedSequence, open_trained
from sparserl.experiment.opened_fit_run import TrainedFit
from sparserl.experiment.opened_run import OpenedRun
from sparserl.experiment.policy_ensemble import PolicyEnsemble
from sparserl.experiment.run_config import kind_in
from sparserl.json_text import json_text
from sparserl.ranges import Count, CountOrZero, Repeats, Seed, check_ranges
from sparserl.recording.run_folder import BEST, RunFolder, WhichCheckpoint
from sparserl.written_files import check_writable, write_text

KINDS = {"stochastic": True, "deterministic": False}
"""How the policy of a continual run acts -> whether actions are drawn."""
OF_AGENTS = ("episodes", "task", "seed", "max_steps", "ensemble")
OF_FITS = ("data", "out")
"""Options that runs of agents, and of `sparserl fit`, alone have."""
MEASURES = {"return_mean": "return", "success": "success at\nany step", "success_last": "success at\nthe last"}
"""What is shown of each task -> heading."""


@dataclass(frozen=True)
class EvalCommand:
    """Evaluate the policy of a run; or, of a run of `sparserl fit`, its accuracies, and the classes of new samples."""

    run: tuple[Path, ...]
    """Run folder; several with --ensemble."""
    episodes: Repeats = 10
    """Number of episodes; on each task of a continual run so many with drawn actions and so many without."""
    checkpoint: WhichCheckpoint | None = None
    """Which policy: the last, or the best by evaluation, which continual runs have not; the last if None."""
    task: CountOrZero | None = None
    """Task of a continual run, from 0; all if None."""
    seed: Seed = 10_000
    """Episode i starts from a reset with seed + i; the default is away from the seeds of training. On tasks, root seed
    of the resets: that of the run repeats its evaluation."""
    max_steps: Count | None = None
    """Cut an episode off after this many env steps; None: as in the run (--eval.max-steps), or 10,000 where the
    environment has no time limit."""
    data: str | None = None
    """Of a run of `sparserl fit`: a table of samples, with labels or without, that get classes. As `sparserl fit` takes
    it; of a .csv, only a column named label, class, y or target is one of labels."""
    out: Path | None = None
    """CSV file to write them to: number of the sample, its class, and the probability of each class."""
    ensemble: bool = False
    """Policies act together: by the mean of their actions, or by what most of them choose where actions are discrete.
    Those of all runs that are given; of one run its best and its last."""
    json: bool = False
    """Print one line of JSON instead of a table."""

    def __post_init__(self) -> None:
        check_ranges(self, "--")
        if (self.data is None) != (self.out is None):
            raise ConfigError("--data and --out go together: a table of samples, and the file for their classes")
        if not self.ensemble and len(self.run) != 1:
            raise ConfigError(f"--run takes one folder, or several with --ensemble, got {len(self.run)}")


def run(arguments: Sequence[str]) -> int:
    """Runs `sparserl eval`; returns the exit status."""
    command = parse(EvalCommand, arguments, command="eval")
    path = command.run[0]
    folder = RunFolder.open(path)
    is_fit = kind_in(folder) == "fit"
    _refuse_options_of_others(command, is_fit=is_fit)
    if command.ensemble:
        return _of_ensemble(command)
    trained: OpenedRun[Any]
    if is_fit:
        trained = TrainedFit(folder, command.checkpoint)
        result, table = _predictions(trained, command) if command.data is not None else _accuracies(trained)
    else:
        trained = open_trained(path, command.checkpoint)
        tasks = trained.chosen(command.task)
        if isinstance(trained, TrainedAgent):
            result, table = _of_agent(trained, command)
        else:
            result, table = _of_sequence(trained, tasks, command)
        result = {"episodes": command.episodes, **result}
    if command.json:
        print(json_text({"run": str(path), "global_step": trained.step, **result}))
    else:
        Console().print(table)
        if command.checkpoint is None and (folder.checkpoints / BEST).exists():
            print("--checkpoint best takes the policy of the best evaluation")
    return 0


def _refuse_options_of_others(command: EvalCommand, *, is_fit: bool) -> None:
    """Raises ConfigError if an option is given that such a run has no use for."""
    for field in dataclasses.fields(command):
        if field.name in (OF_AGENTS if is_fit else OF_FITS) and getattr(command, field.name) != field.default:
            whose = "agents" if is_fit else "`sparserl fit`"
            raise ConfigError(f"--{field.name.replace('_', '-')} is for runs of {whose}, and {command.run[0]} is none")


def _accuracies(trained: TrainedFit) -> tuple[dict[str, Any], Table]:
    scores = trained.evaluate()
    table = titled_table(trained.title)
    for column in ("samples", "accuracy", "loss"):
        table.add_column(column, justify="left" if column == "samples" else "right")
    for part, score in scores.items():
        table.add_row(part, "-" if score.accuracy is None else f"{score.accuracy:.2%}", f"{score.loss:.4f}")
    return {"checkpoint": trained.which, "scores": {part: vars(score) for part, score in scores.items()}}, table


def _predictions(trained: TrainedFit, command: EvalCommand) -> tuple[dict[str, Any], Table]:
    """Writes the classes of the samples of a table."""
    assert command.data is not None
    assert command.out is not None
    check_writable(command.out)
    table = trained.read_table(command.data)
    probabilities = trained.probabilities(table.x)
    chosen = [trained.classes[unit] for unit in probabilities.argmax(axis=1)]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["sample", "class", *(f"p:{name}" for name in trained.classes)])
    rows = zip(chosen, probabilities.tolist(), strict=True)
    writer.writerows([number, name, *row] for number, (name, row) in enumerate(rows))
    write_text(command.out, file.getvalue())
    right = None
    if table.y is not None:
        right = float(np.mean([name == table.classes[label] for name, label in zip(chosen, table.y, strict=True)]))
    shown = titled_table(trained.title, show_header=False)
    shown.add_row("samples", f"{len(chosen):,}")
    if right is not None:
        shown.add_row("accuracy on their labels", f"{right:.2%}")
    shown.add_row("classes and probabilities", str(command.out))
    return {"checkpoint": trained.which, "samples": len(chosen), "accuracy": right, "out": str(command.out)}, shown


def _of_agent(trained: TrainedAgent, command: EvalCommand) -> tuple[dict[str, Any], Table]:
    result = trained.evaluate(command.episodes, seed=command.seed, max_steps=command.max_steps)
    _warn(result.warning)
    means = _means_of(result)
    table = titled_table(trained.title)
    for column in ("episode", "return", "length"):
        table.add_column(column, justify="right")
    for episode, (value, length) in enumerate(zip(result.returns, result.lengths, strict=True)):
        mark = " cut off" if result.cut_off[episode] else ""
        table.add_row(str(episode), f"{value:.1f}", f"{length}{mark}")
    table.add_section()
    table.add_row("mean", f"{means['return_mean']:.1f} +- {means['return_std']:.1f}", f"{means['ep_len_mean']:.0f}")
    return {"checkpoint": trained.which, **means, "cut_off": sum(result.cut_off)}, table


def _means_of(result: Evaluation) -> dict[str, float]:
    return {"return_mean": result.return_mean, "return_std": result.return_std, "ep_len_mean": result.length_mean}


def _of_ensemble(command: EvalCommand) -> int:
    """Each policy by itself, then all of them together, on the same episodes."""
    ensemble = PolicyEnsemble(_members(command))
    ensemble.members[0].chosen(command.task)
    bound = ensemble.longest if command.max_steps is None else command.max_steps
    how: dict[str, Any] = {"seed": command.seed, "max_steps": bound}
    table = titled_table(f"{len(ensemble.members)} policies in {ensemble.members[0].config.env}")
    for column in ("policy", "return", "length"):
        table.add_column(column, justify="left" if column == "policy" else "right")
    members = []
    for member in ensemble.members:
        result = member.evaluate(command.episodes, **how)
        _add_policy(table, f"{member.folder.path}, {member.which} (step {member.step:,})", result)
        at = {"run": str(member.folder.path), "checkpoint": member.which, "global_step": member.step}
        members.append({**at, **_means_of(result), "cut_off": sum(result.cut_off)})
    together = ensemble.evaluate(command.episodes, **how)
    table.add_section()
    _add_policy(table, "together", together)
    if command.json:
        means = {**_means_of(together), "cut_off": sum(together.cut_off)}
        print(json_text({"episodes": command.episodes, **means, "members": members}))
    else:
        Console().print(table)
    return 0


def _add_policy(table: Table, name: str, result: Evaluation) -> None:
    _warn(result.warning)
    table.add_row(name, f"{result.return_mean:.1f} +- {result.return_std:.1f}", f"{result.length_mean:.0f}")


def _members(command: EvalCommand) -> list[TrainedAgent]:
    """The policies of an ensemble.

    Raises:
        ConfigError: If a run has none, or one run has but one.
    """
    for path in command.run:
        kind = kind_in(RunFolder.open(path))
        if kind != "train":
            raise ConfigError(f"--ensemble joins agents of `sparserl train`, and {path} is a run of another kind")
    if len(command.run) > 1:
        twice = next((path for path in command.run if command.run.count(path) > 1), None)
        if twice is not None:
            raise ConfigError(f"--run names {twice} twice")
        return [TrainedAgent(RunFolder.open(path), command.checkpoint) for path in command.run]
    folder = RunFolder.open(command.run[0])
    if command.checkpoint is not None:
        raise ConfigError("--checkpoint leaves one policy of a run, and an ensemble has at least two: leave it out")
    both: list[TrainedAgent] = [TrainedAgent(folder, which) for which in get_args(WhichCheckpoint)]
    if both[0].step == both[1].step:
        raise ConfigError(f"the best policy of {folder.path} is its last one: an ensemble needs more --run folders")
    return both


def _warn(line: str | None) -> None:
    if line is not None:
        print(f"sparserl: {line.replace('--eval.max-steps', '--max-steps')}", file=sys.stderr)


def _of_sequence(trained: TrainedSequence, tasks: Sequence[int], command: EvalCommand) -> tuple[dict[str, Any], Table]:
    rows = []
    how: dict[str, Any] = {"seed": command.seed, "max_steps": command.max_steps}
    for task in tqdm(tasks, unit="task", disable=None, leave=False):
        [(name, all_of_task)] = trained.evaluate(command.episodes, tasks=[task], **how).items()
        _warn(warning_of(all_of_task))
        each = {kind: _means([one for one in all_of_task if one.stochastic == drawn]) for kind, drawn in KINDS.items()}
        rows.append({"task": task, "name": name, **each})
    table = titled_table(trained.title)
    table.add_column("task")
    known = [what for what in MEASURES if all(row[kind][what] is not None for row in rows for kind in KINDS)]
    columns = [(kind, what) for what in known for kind in KINDS]
    for kind, what in columns:
        table.add_column(f"{MEASURES[what]},\n{kind}", justify="right")
    for row in rows:
        table.add_row(f"{row['task']}: {row['name']}", *(_shown(row[kind], what) for kind, what in columns))
    table.add_section()
    means = [float(np.mean([row[kind][what] for row in rows])) for kind, what in columns]
    table.add_row("mean", *(_shown({what: mean}, what) for (_, what), mean in zip(columns, means, strict=True)))
    return {"checkpoint": trained.which, "tasks": rows}, table


def _means(episodes: Sequence[Episode]) -> dict[str, float | None]:
    returns = [episode.returned for episode in episodes]
    means: dict[str, float | None] = {
        "return_mean": float(np.mean(returns)),
        "return_std": float(np.std(returns)),
        "ep_len_mean": float(np.mean([episode.length for episode in episodes])),
    }
    means["cut_off"] = sum(episode.cut_off for episode in episodes)
    for what in ("success", "success_last"):
        flags = [getattr(episode, what) for episode in episodes]
        means[what] = None if None in flags else float(np.mean(flags))
    return means


def _shown(means: Mapping[str, float], what: str) -> str:
    if what != "return_mean":
        return f"{means[what]:.0%}"
    spread = f" +- {means['return_std']:.1f}" if "return_std" in means else ""
    return f"{means[what]:.1f}{spread}"
