"""`sparserl plot`: learning curves and topology, accuracies of continual runs, or the connections of a layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from sparserl.cli.arguments import parse
from sparserl.cli.run_config import continual_config, is_continual, is_of_agents, rl_continual_config, run_config
from sparserl.continual.plots import plot_sequence_run, plot_sequence_runs
from sparserl.continual.reinforcement.plots import plot_rl_run, plot_rl_runs
from sparserl.errors import ConfigError
from sparserl.plots import Run, plot_runs
from sparserl.records import RunFolder
from sparserl.topology_plots import animate_connectivity, plot_connectivity, plot_topology


@dataclass(frozen=True)
class PlotCommand:
    """Draw return, density and explored fraction over env steps; or what the topology of one run did; or the accuracies
    and connections of a continual run; or the accuracies of several. Runs that differ in the seed alone are
    averaged."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders."""
    out: Path = Path("plot.png")
    """Picture to write; the ending decides the format."""
    topology: bool = False
    """Draw what the topology did instead, layer by layer: densities, overlap with the start, dormant and dead neurons,
    fan-in and fan-out; takes one run."""
    layer: str | None = None
    """Draw the connections of this layer over time instead, e.g. critic.qf0.1, animated if --out ends in .gif; takes
    one run."""


def run(arguments: Sequence[str]) -> int:
    """Runs `sparserl plot`; returns the exit status."""
    command = parse(PlotCommand, arguments, command="plot")
    if not command.runs:
        raise ConfigError("name at least one run folder")
    folders = [RunFolder.open(path) for path in command.runs]
    kinds = {is_continual(folder) for folder in folders}
    if len(kinds) > 1:
        raise ConfigError("runs of `sparserl train` and of `sparserl continual` do not go into one picture")
    if True in kinds:
        _plot_continual(folders, command)
    else:
        _plot_trained(folders, command)
    print(f"wrote {command.out}")
    return 0


def _plot_trained(folders: Sequence[RunFolder], command: PlotCommand) -> None:
    flag = _flag_of_one_run(command)
    if flag and len(folders) > 1:
        raise ConfigError(f"{flag} draws one run, got {len(folders)}")
    path, name = folders[0].path, run_config(folders[0]).name
    if command.topology:
        plot_topology(path, command.out, f"{name}, seed {run_config(folders[0]).seed}")
    elif command.layer is not None:
        draw = animate_connectivity if command.out.suffix.lower() == ".gif" else plot_connectivity
        draw(path, command.layer, command.out)
    else:
        plot_runs([Run(folder.path, run_config(folder).name) for folder in folders], command.out)


def _flag_of_one_run(command: PlotCommand) -> str | None:
    """The flag that asks for another picture than the usual one; None if there is none."""
    given = {"--topology": command.topology, "--layer": command.layer is not None}
    flags = [flag for flag, is_given in given.items() if is_given]
    if len(flags) > 1:
        raise ConfigError("--topology and --layer ask for two pictures; draw one after the other")
    return flags[0] if flags else None


def _plot_continual(folders: Sequence[RunFolder], command: PlotCommand) -> None:
    flag = _flag_of_one_run(command)
    if flag:
        raise ConfigError(f"{flag} draws a run of `sparserl train`; the picture of a continual run has all layers")
    if len({is_of_agents(folder) for folder in folders}) > 1:
        raise ConfigError("runs of classifiers and of agents do not go into one picture")
    if is_of_agents(folders[0]):
        _plot_agents(folders, command.out)
        return
    configs = [continual_config(folder) for folder in folders]
    if len(folders) == 1:
        plot_sequence_run(folders[0].path, command.out, configs[0].title)
        return
    protocols = {f"{config.sequence}, {config.scenario}-incremental" for config in configs}
    alike = len(protocols) == 1
    runs = [
        Run(folder.path, config.method if alike else config.name)
        for folder, config in zip(folders, configs, strict=True)
    ]
    plot_sequence_runs(runs, command.out, protocols.pop() if alike else "")


def _plot_agents(folders: Sequence[RunFolder], out: Path) -> None:
    configs = [rl_continual_config(folder) for folder in folders]
    if len(folders) == 1:
        plot_rl_run(folders[0].path, out, configs[0].title)
        return
    sequences = {config.sequence for config in configs}
    runs = [Run(folder.path, config.name) for folder, config in zip(folders, configs, strict=True)]
    plot_rl_runs(runs, out, ", ".join(sorted(sequences)))
