"""`sparserl plot`: learning curves and topology of runs, or the connections of a layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from sparserl.cli.arguments import parse
from sparserl.cli.run_config import run_config
from sparserl.errors import ConfigError
from sparserl.plots import Run, plot_connectivity, plot_runs
from sparserl.records import RunFolder


@dataclass(frozen=True)
class PlotCommand:
    """Draw return, density and explored fraction over env steps; runs that differ in the seed alone are averaged."""

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
    if command.layer is None:
        plot_runs([Run(folder.path, run_config(folder).name) for folder in folders], command.out)
    elif len(folders) > 1:
        raise ConfigError(f"--layer draws one run, got {len(folders)}")
    else:
        plot_connectivity(folders[0].path, command.layer, command.out)
    print(f"wrote {command.out}")
    return 0
