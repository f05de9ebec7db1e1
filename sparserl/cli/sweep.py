"""`sparserl sweep`: a grid of configs times seeds, several runs at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.live import Live
from rich.table import Table

from sparserl.cli.arguments import parse
from sparserl.cli.sweep_file import load_jobs
from sparserl.cli.sweep_pool import JobState, run_locally, states_of
from sparserl.errors import ConfigError

SHOWN_AT_ONCE = 20
"""Rows of the table while runs go on."""


@dataclass(frozen=True)
class SweepCommand:
    """Train every config of a grid with every seed; finished runs are skipped and broken ones resumed."""

    file: tyro.conf.Positional[Path]
    """YAML file with command, base, grid and seeds; see configs/sweeps."""
    workers: int = 1
    """Runs at a time, each a process with as many threads as its config says."""
    out: Path = Path("runs")
    """Folder of the run folders."""
    dry_run: bool = False
    """List the runs and stop."""
    progress: bool = True
    """Show a table while runs go on."""


def run(arguments: Sequence[str]) -> int:
    """Runs `sparserl sweep`; returns the exit status: 0 all done, 1 some failed, 130 stopped."""
    command = parse(SweepCommand, arguments, command="sweep")
    if command.workers < 1:
        raise ConfigError(f"--workers must be at least 1, got {command.workers}")
    states = states_of(load_jobs(command.file), command.out)
    console = Console()
    if command.dry_run:
        console.print(_table(states))
        return 0
    try:
        if command.progress and console.is_terminal:
            with Live(_table(states[:SHOWN_AT_ONCE]), console=console, refresh_per_second=2) as live:
                run_locally(states, command.workers, lambda: live.update(_table(_interesting(states))))
        else:
            run_locally(states, command.workers, _Announcer(states))
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on where it was")
        return 130
    console.print(_table(states))
    failed = [state for state in states if state.status == "failed"]
    for state in failed:
        print(f"sparserl: {state.path} failed: {state.error}; see {state.log}")
    return 1 if failed else 0


class _Announcer:
    """Prints a line whenever a run begins or ends."""

    def __init__(self, states: Sequence[JobState]):
        self._states = states
        self._known = {state.path: state.status for state in states}

    def __call__(self) -> None:
        for state in self._states:
            if self._known[state.path] != state.status:
                self._known[state.path] = state.status
                count = Counter(other.status for other in self._states)
                print(f"{state.status:8} {state.path.name} ({count['done']} of {len(self._states)} done)", flush=True)


def _interesting(states: Sequence[JobState]) -> list[JobState]:
    """What goes on or went wrong first, as many as are shown."""
    order = {"running": 0, "failed": 1, "waiting": 2, "done": 3}
    return sorted(states, key=lambda state: order[state.status])[:SHOWN_AT_ONCE]


def _table(states: Sequence[JobState]) -> Table:
    count = Counter(state.status for state in states)
    table = Table(title=", ".join(f"{number} {status}" for status, number in count.items()), title_justify="left")
    keys = list(dict.fromkeys(key for state in states for key in state.job.point))
    for column in ("id", *keys):
        table.add_column(column)
    for column in ("seed", "step", "status"):
        table.add_column(column, justify="right")
    for state in states:
        job = state.job
        status = "done before" if state.was_done else state.status
        table.add_row(job.id, *(str(job.point[key]) for key in keys), str(job.seed), f"{state.step:,}", status)
    return table
