"""`sparserl plot`: learning curves and topology, accuracies of continual runs, or the connections of a layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from sparserl.cli.arguments import parse
from sparserl.cli.run_config import continual_config, is_continual, run_config
from sparserl.continual.plots import plot_sequence_run, plot_sequence_runs
from sparserl.errors import ConfigError
from sparserl.plots import Run, plot_connectivity, plot_runs
from sparserl.records import RunFolder


@dataclass(frozen=True)
class PlotCommand:
    """Draw return, density and explored fraction over env steps; or the accuracies and connections of a continual run;
    or the accuracies of several. Runs that differ in the seed alone are averaged."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders."""
    out: Path = Path("plot.png")
    """Picture to write; the ending decides the format."""
    layer: str | None = None
    """Draw the connections of this layer over time instead, e.g. critic.qf0.1; takes one run."""


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
    elif command.layer is None:
        plot_runs([Run(folder.path, run_config(folder).name) for folder in folders], command.out)
    elif len(folders) > 1:
        raise ConfigError(f"--layer draws one run, got {len(folders)}")
    else:
        plot_connectivity(folders[0].path, command.layer, command.out)
    print(f"wrote {command.out}")
    return 0


def _plot_continual(folders: Sequence[RunFolder], command: PlotCommand) -> None:
    if command.layer is not None:
        raise ConfigError("--layer draws a run of `sparserl train`; the picture of a continual run has all layers")
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
