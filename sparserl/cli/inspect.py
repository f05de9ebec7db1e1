"""`sparserl inspect`: which inputs the networks of a run use."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from sparserl.cli.arguments import parse
from sparserl.cli.tables import titled_table
from sparserl.envs.feature_names import NOISE
from sparserl.experiment.input_use import input_use_of_run
from sparserl.experiment.opening import open_run
from sparserl.json_text import json_text
from sparserl.metrics.inputs import MEASURES, InputUse
from sparserl.plots.style import FORMATS, check_ending
from sparserl.ranges import Count, CountOrZero, Repeats, Seed, check_ranges
from sparserl.recording.run_folder import WhichCheckpoint
from sparserl.written_files import check_writable

FORM = {"attribution": "{:.3g}", "strength": "{:.3g}", "degree": "{:.4g}"}
ABSENT = ""
"""Of an input that a network does not have."""


@dataclass(frozen=True)
class InspectCommand:
    """Which observations a trained agent uses, or which features a classifier: of each input the mean |derivative| of
    the outputs by it (attribution, in states of a few episodes without exploration, or on test samples), the sum of its
    |weights| in the first layer (strength), and its connections. An actor's outputs are actions in [-1, 1]; a critic
    also reads actions. The most used inputs come first. Of agents that see images the inputs are pixels."""

    run: Path
    """Run folder."""
    checkpoint: WhichCheckpoint | None = None
    """Which policy: the last, or the best by evaluation, which continual runs have not; the last if None."""
    task: CountOrZero | None = None
    """Task of a continual run, from 0."""
    episodes: Repeats = 3
    """Episodes of an agent whose states are taken."""
    seed: Seed = 10_000
    """Episode i starts from a reset with seed + i."""
    top: Count = 10
    """Inputs of each network that are shown."""
    out: Path | None = None
    """Also draw them as bars, or pixels as an image: .png, .svg or .pdf."""
    json: bool = False
    """Print one line of JSON with all inputs instead of tables."""

    def __post_init__(self) -> None:
        check_ranges(self, "--")


def run(arguments: Sequence[str]) -> int:
    """Runs `sparserl inspect`; returns the exit status."""
    command = parse(InspectCommand, arguments, command="inspect")
    if command.out is not None:
        check_ending(command.out, FORMATS)
        check_writable(command.out)
    opened = open_run(command.run, command.checkpoint)
    uses = input_use_of_run(opened, command.task, episodes=command.episodes, seed=command.seed)
    noise = [np.array([name.startswith(NOISE) for name in use.names]) for use in uses]
    if command.out is not None:
        from sparserl.plots.inputs import plot_inputs  # matplotlib takes a while to load

        plot_inputs(uses, command.out, opened.title, top=command.top, noise=[flags.tolist() for flags in noise])
    if command.json:
        networks = {use.network: _record(use, flags) for use, flags in zip(uses, noise, strict=True)}
        about = {"run": str(command.run), "checkpoint": opened.which, "global_step": opened.step}
        print(json_text({**about, "networks": networks}))
        return 0
    console = Console()
    for use, flags in zip(uses, noise, strict=True):
        console.print(_table(use, f"{opened.title}: {use.network}", command.top))
        console.print(*_notes(use, flags), sep="\n", highlight=False)
    if command.out is not None:
        print(f"wrote {command.out}")
    return 0


def _table(use: InputUse, title: str, top: int) -> Table:
    table = titled_table(title)
    table.add_column("input")
    for column in (*MEASURES, "share"):
        table.add_column(column, justify="right")
    for index in use.order[:top]:
        measures = [FORM[name].format(getattr(use, name)[index]) for name in MEASURES]
        share = use.share(np.arange(len(use.names)) == index)
        table.add_row(use.names[index], *measures, ABSENT if math.isnan(share) else f"{share:.1%}")
    return table


def _notes(use: InputUse, noise: np.ndarray) -> list[str]:
    count, unread = len(use.names), int(np.count_nonzero(use.degree == 0))
    notes = [f"{unread} of {count} inputs have no connection"] if unread else []
    if noise.any():
        held, all_of_them = use.share(noise), f"{noise.sum()} noise features, {noise.mean():.1%} of the inputs"
        notes.append(f"{all_of_them}, hold {held:.1%} of the attribution")
    if use.image is not None and use.attribution.any():
        of_channels = use.picture("attribution").sum(axis=(1, 2)) / use.attribution.sum()
        notes.append(f"attribution by channel: {', '.join(f'{share:.1%}' for share in of_channels)}")
    if not math.isnan(use.agreement):
        notes.append(f"rank correlation of attribution and strength: {use.agreement:.2f}")
    return notes


def _record(use: InputUse, noise: np.ndarray) -> dict[str, object]:
    """Most used first; what is undefined is null."""
    inputs = [
        {"name": use.names[index], "noise": bool(noise[index])}
        | {measure: float(getattr(use, measure)[index]) for measure in MEASURES}
        for index in use.order
    ]
    agreement = None if math.isnan(use.agreement) else use.agreement
    return {"rank_correlation": agreement, "inputs": inputs}
