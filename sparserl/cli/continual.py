"""`sparserl continual`: learns a sequence of tasks, with a classifier or an agent, or goes on with a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from sparserl import config as yaml_config
from sparserl.cli.arguments import given_value
from sparserl.cli.running import carry_out_command
from sparserl.continual.supervised.sequences import SEQUENCES
from sparserl.envs import RL_SEQUENCES
from sparserl.errors import ConfigError, shown, unknown_name
from sparserl.experiment.continual_config import parse_continual
from sparserl.experiment.presets import continual_presets, rl_continual_presets
from sparserl.experiment.rl_continual_config import is_of_environments, parse_rl_continual
from sparserl.experiment.run_config import is_of_agents
from sparserl.recording.run_folder import RunFolder


def run(arguments: Sequence[str]) -> int:
    """Runs `sparserl continual`; returns the exit status."""
    if is_of_environments_line(arguments):
        return carry_out_command("continual", parse_rl_continual(arguments), arguments, _print_returns)
    return carry_out_command("continual", parse_continual(arguments), arguments, _print_accuracies)


def is_of_environments_line(arguments: Sequence[str]) -> bool:
    """Whether a command line is about a sequence that agents learn, and not classifiers."""
    resumed = given_value("resume", arguments)
    if resumed is not None:
        return (Path(resumed) / "config.yaml").exists() and is_of_agents(RunFolder(Path(resumed)))
    preset, file = given_value("preset", arguments), given_value("config", arguments)
    known_presets = {**continual_presets(), **rl_continual_presets()}
    data = yaml_config.load_yaml(known_presets[preset]) if preset in known_presets else {}
    data |= {} if file is None else yaml_config.load_yaml(Path(file))
    sequence = given_value("sequence", arguments) or data.get("sequence")
    if sequence is None:
        if given_value("algo", arguments) is not None or "algo" in data:
            raise ConfigError("'algo' is for sequences of environments: name one by --sequence")
        return False
    if not isinstance(sequence, str):
        raise ConfigError(f"sequence must be a name or a file, got {shown(sequence)}")
    known = (*SEQUENCES, *RL_SEQUENCES)
    if sequence not in known and not is_of_environments(sequence):
        raise ConfigError(unknown_name("sequence", sequence, known))
    return is_of_environments(sequence)


def _print_accuracies(result: dict[str, Any], folder: RunFolder) -> None:
    title = f"{result['method']} on {result['sequence']}, {result['scenario']}-incremental, seed {result['seed']}"
    table = Table(title=title, show_header=False)
    share = result["connections"] / result["connections_dense"]
    memory = sum(result["memory"].values())
    rows = {
        "ACC, mean accuracy at the end": _percent(result["acc"]),
        "BWT, change since a task was learned": _percent(result["bwt"]),
        "forgetting": _percent(result["forgetting_final"]),
        "connections": f"{result['connections']:,} of {result['connections_dense']:,} ({share:.1%})",
        "bytes of parameters, indices": f"{result['bytes_parameters']:,}, {result['bytes_indices']:,}",
        "bytes kept between tasks": f"{memory:,}" if memory else "",
        "gradient steps": f"{result['steps']:,}",
        "wall time": f"{result['wall_s']:.1f} s",
        "plot": str(folder.path / "plot.png"),
    }
    for name, value in rows.items():
        if value:
            table.add_row(name, value)
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
    title = f"{result['method']} on {result['sequence']}, {result['algo']}, seed {result['seed']}"
    table = Table(title=title, show_header=False)
    memory = sum(result["memory"].values())
    rows = {
        "mean return at the end": "" if result["acc"] is None else f"{result['acc']:.1f}",
        "change since a task was learned": "" if result["bwt"] is None else f"{result['bwt']:+.1f}",
        "mean success at the end": "" if successes is None else f"{sum(successes[-1]) / len(successes[-1]):.1%}",
        "parameters": f"{result['params_nonzero']:,} of {result['params_dense']:,}",
        "connections frozen, free": f"{result['connections_frozen']:,}, {result['connections_free']:,}",
        "bytes kept between tasks": f"{memory:,}" if memory else "",
        "wall time": f"{result['wall_s']:.0f} s ({result['steps_per_second']:.0f} steps/s)",
        "plot": str(folder.path / "plot.png"),
    }
    for name, value in rows.items():
        if value:
            table.add_row(name, value)
    console = Console()
    console.print(matrix)
    console.print(table)
    console.print("forward transfer and forgetting against runs of --method scratch: sparserl report")
