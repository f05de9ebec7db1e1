"""`sparserl continual`: learns a sequence of tasks, with a classifier or an agent, or goes on with a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from sparserl.cli.options import options_of
from sparserl.cli.running import Help, carry_out_command, parameters_of, result_table
from sparserl.continual.strategies import OWN, MethodOptions
from sparserl.recording.run_folder import RunFolder

HELP = Help(
    "Learn a sequence of tasks, with a classifier or an agent, or go on with a run. Values come from the schema's "
    "defaults, then the preset of the sequence and method, then --config, then flags.",
    (
        *("sequence", "method", "scenario", "algo", "tasks", "steps_per_task", "class_order", "seed", "threads"),
        *("preset", "config", "run_dir", "resume", "data_dir", "download", "progress", "dry_run", "track"),
        *("learner.hidden", "learner.optimizer", "learner.learning_rate", "learner.momentum"),
        *("learner.epochs", "learner.batch_size", "eval.every_steps", "eval.episodes", "agent.net_arch"),
        *("agent.learning_rate", "agent.batch_size", "agent.buffer_size", "agent.learning_starts", "agent.gamma"),
        *("topology.method", "topology.density", "border.heads", "border.task_id", "border.buffer"),
        *options_of(MethodOptions),
        OWN,
    ),
    "Options are those of the sequence, method and algorithm: sparserl continual --sequence cw10 --method ewc --help.",
)


def run(arguments: Sequence[str]) -> int:
    """Runs `sparserl continual`; returns the exit status."""
    return carry_out_command("continual", arguments, HELP, _print_result)


def _print_result(result: dict[str, Any], folder: RunFolder) -> None:
    (_print_returns if "returns" in result else _print_accuracies)(result, folder)


def _print_accuracies(result: dict[str, Any], folder: RunFolder) -> None:
    connections = ""  # of a method without a network
    if result["connections_dense"]:
        share = result["connections"] / result["connections_dense"]
        connections = f"{result['connections']:,} of {result['connections_dense']:,} ({share:.1%})"
    memory = sum(result["memory"].values())
    rows = {
        "ACC, mean accuracy at the end": _percent(result["acc"]),
        "BWT, change since a task was learned": _percent(result["bwt"]),
        "forgetting": _percent(result["forgetting_final"]),
        "connections": connections,
        "numbers kept": f"{result['numbers_kept']:,}",
        "bytes of parameters, indices": f"{result['bytes_parameters']:,}, {result['bytes_indices']:,}",
        "bytes kept between tasks": f"{memory:,}" if memory else "",
        "steps": f"{result['steps']:,}",
        "wall time": f"{result['wall_s']:.1f} s",
        "plot": str(folder.path / "plot.png"),
    }
    table = result_table(folder, rows)
    matrix = Table(title="accuracy")
    matrix.add_column("after task")
    for task in range(result["tasks"]):
        matrix.add_column(f"on {task}", justify="right")
    for task, row in enumerate(result["matrix"]):
        matrix.add_row(str(task), *(_percent(value) for value in row))
    console = Console()
    console.print(matrix)
    console.print(table)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _print_returns(result: dict[str, Any], folder: RunFolder) -> None:
    successes = result["successes"]
    matrix = Table(title="return" if successes is None else "success rate")
    matrix.add_column("after task")
    for task, name in enumerate(result["task_names"]):
        matrix.add_column(f"on {task}: {name}", justify="right")
    for task, row in enumerate(result["returns"] if successes is None else successes):
        matrix.add_row(str(task), *(f"{value:.0f}" if successes is None else f"{value:.0%}" for value in row))
    memory = sum(result["memory"].values())
    rows = {
        "mean return at the end": "" if result["acc"] is None else f"{result['acc']:.1f}",
        "change since a task was learned": "" if result["bwt"] is None else f"{result['bwt']:+.1f}",
        "mean success at the end": "" if successes is None else f"{sum(successes[-1]) / len(successes[-1]):.1%}",
        "parameters": parameters_of(result),
        "connections frozen, free": f"{result['connections_frozen']:,}, {result['connections_free']:,}",
        "bytes kept between tasks": f"{memory:,}" if memory else "",
        "wall time": f"{result['wall_s']:.0f} s ({result['steps_per_second']:.0f} steps/s)",
        "plot": str(folder.path / "plot.png"),
    }
    table = result_table(folder, rows)
    console = Console()
    console.print(matrix)
    console.print(table)
    console.print("forward transfer and forgetting against runs of --method scratch: sparserl report")
