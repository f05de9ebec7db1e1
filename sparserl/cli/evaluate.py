"""`sparserl eval`: returns of a policy without exploration noise; on the tasks of a continual run with it as well."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from sparserl.cli.arguments import parse
from sparserl.continual.rl.evaluation import Episode, warning_of
from sparserl.experiment.opened_agent_run import TrainedAgent, TrainedSequence, open_trained
from sparserl.json_text import json_text
from sparserl.ranges import Count, CountOrZero, Repeats, Seed, check_ranges
from sparserl.recording.run_folder import WhichCheckpoint

KINDS = {"stochastic": True, "deterministic": False}
"""How the policy of a continual run acts -> whether actions are drawn."""
MEASURES = {"return_mean": "return", "success": "success at\nany step", "success_last": "success at\nthe last"}
"""What is shown of each task -> heading."""


@dataclass(frozen=True)
class EvalCommand:
    """Evaluate the policy of a run."""

    run: Path
    """Run folder."""
    episodes: Repeats = 10
    """Number of episodes; on each task of a continual run so many with drawn actions and so many without."""
    checkpoint: WhichCheckpoint | None = None
    """Which policy: the best by evaluation, or the last; the best if None, and of a continual run the last."""
    task: CountOrZero | None = None
    """Task of a continual run, from 0; all if None."""
    seed: Seed = 10_000
    """Episode i starts from a reset with seed + i; the default is away from the seeds of training. On tasks, root seed
    of the resets: that of the run repeats its evaluation."""
    max_steps: Count | None = None
    """Cut an episode off after this many env steps; None: as in the run (--eval.max-steps), or 10,000 where the
    environment has no time limit."""
    json: bool = False
    """Print one line of JSON instead of a table."""

    def __post_init__(self) -> None:
        check_ranges(self, "--")


def run(arguments: Sequence[str]) -> int:
    """Runs `sparserl eval`; returns the exit status."""
    command = parse(EvalCommand, arguments, command="eval")
    trained = open_trained(command.run, command.checkpoint)
    tasks = trained.chosen(command.task)
    if isinstance(trained, TrainedAgent):
        result, table = _of_agent(trained, command)
    else:
        result, table = _of_sequence(trained, tasks, command)
    if command.json:
        print(json_text({"run": str(command.run), "global_step": trained.step, "episodes": command.episodes, **result}))
    else:
        Console().print(table)
    return 0


def _of_agent(trained: TrainedAgent, command: EvalCommand) -> tuple[dict[str, Any], Table]:
    result = trained.evaluate(command.episodes, seed=command.seed, max_steps=command.max_steps)
    _warn(result.warning)
    means = {"return_mean": result.return_mean, "return_std": result.return_std, "ep_len_mean": result.length_mean}
    table = Table(title=trained.title)
    for column in ("episode", "return", "length"):
        table.add_column(column, justify="right")
    for episode, (value, length) in enumerate(zip(result.returns, result.lengths, strict=True)):
        mark = " cut off" if result.cut_off[episode] else ""
        table.add_row(str(episode), f"{value:.1f}", f"{length}{mark}")
    table.add_section()
    table.add_row("mean", f"{means['return_mean']:.1f} +- {means['return_std']:.1f}", f"{means['ep_len_mean']:.0f}")
    return {"checkpoint": trained.which, **means, "cut_off": sum(result.cut_off)}, table


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
    table = Table(title=trained.title)
    table.add_column("task")
    columns = [(kind, what) for what in MEASURES if rows[0]["stochastic"][what] is not None for kind in KINDS]
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
