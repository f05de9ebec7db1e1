"""`sparserl sweep`: a grid of configs times seeds, several runs at a time."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from rich.console import Console
from rich.table import Table

from sparserl.cli.arguments import parse
from sparserl.cli.options import Positional
from sparserl.cli.watching import counted, watched
from sparserl.errors import ConfigError
from sparserl.experiment.signals import INTERRUPTED
from sparserl.extras import how_to_install
from sparserl.ranges import Workers, check_ranges
from sparserl.sweep.file import load_jobs
from sparserl.sweep.pool import JobState, run_locally, states_of
from sparserl.sweep.slurm import array_script
from sparserl.written_files import check_folder, check_writable


@dataclass(frozen=True)
class SweepCommand:
    """Train every config of a grid with every seed; finished runs are skipped and broken ones resumed."""

    file: Annotated[Path, Positional()]
    """YAML file with command, base, grid and seeds; see configs/sweeps."""
    workers: Workers | None = None
    """Runs at a time, each a process with as many threads as its config says; if None, 1 here, and with ray as many as
    the cluster has room for."""
    out: Path = Path("runs")
    """Folder of the run folders."""
    backend: Literal["local", "ray"] = "local"
    """Processes of this machine, or tasks of a Ray cluster that is there (extra `ray`), where other nodes take over the
    runs of one that is lost."""
    address: str | None = None
    """HOST:PORT of the Ray cluster; $RAY_ADDRESS, or the one that this machine belongs to, if None."""
    shared_files: bool = True
    """Whether all nodes of the cluster see --out under the same name. Then a run whose node is lost goes on from its
    newest checkpoint, and Ctrl-C saves it. Otherwise it is trained in a temporary folder and sent here when it is
    finished: what was cut off begins anew, and of a failed run only the log is sent."""
    only: str | None = None
    """Id of one run: leave the others."""
    slurm: Path | None = None
    """Write an sbatch array script for the runs to this new file, and stop. It was never tried on a real Slurm."""
    dry_run: bool = False
    """List the runs and stop."""
    progress: bool = True
    """Show a table while runs go on."""

    def __post_init__(self) -> None:
        check_ranges(self, "--")
        if self.slurm is not None and self.workers is not None:
            raise ConfigError(
                f"--workers {self.workers} has no effect with --slurm: in its script, --array=0-9%{self.workers} lets "
                "so many run at a time"
            )
        if self.slurm is not None and self.dry_run:
            raise ConfigError("--dry-run lists the runs and writes no --slurm file; leave one out")


def run(arguments: Sequence[str]) -> int:
    """Runs `sparserl sweep`; returns the exit status: 0 all done, 1 some failed, 130 stopped."""
    command = parse(SweepCommand, arguments, command="sweep")
    train = BACKENDS[command.backend](command)
    states = _chosen(states_of(load_jobs(command.file), command.out), command)
    if command.dry_run:
        Console().print(_table(states))
        return 0
    if command.slurm is not None:
        check_writable(command.slurm)
        _write(command.slurm, array_script([state.job for state in states], command.file, command.out))
        print(f"wrote {command.slurm}, an array of {len(states)} runs; never tried on a real Slurm, so read it first")
        return 0
    check_folder(command.out)
    if not watched(partial(train, states), partial(_table, states), _Announcer(states), live=command.progress):
        return INTERRUPTED
    failed = [state for state in states if state.status == "failed"]
    for state in failed:
        print(f"sparserl: {state.path} failed: {state.error}; see {state.log}")
    return 1 if failed else 0


Backend = Callable[[Sequence[JobState], Callable[[], None]], None]
"""Trains what is not done, changes the states, and calls its second argument again and again."""


def _local(command: SweepCommand) -> Backend:
    for option, is_given in {
        "address": command.address is not None,
        "no-shared-files": not command.shared_files,
    }.items():
        if is_given:
            raise ConfigError(f"--{option} is for --backend ray")
    return partial(run_locally, workers=command.workers or 1)


def _ray(command: SweepCommand) -> Backend:
    if command.slurm is not None:
        raise ConfigError("--slurm is for --backend local: each task of the array trains its run itself")
    if importlib.util.find_spec("ray") is None:
        raise ConfigError(f"ray is not installed; {how_to_install('ray')} brings it")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from sparserl.sweep.ray import run_on_ray

    return partial(run_on_ray, address=command.address, shared_files=command.shared_files, workers=command.workers)


BACKENDS: dict[str, Callable[[SweepCommand], Backend]] = {"local": _local, "ray": _ray}
"""Where runs are trained -> what makes its `Backend` of the options, or refuses them."""


def _chosen(states: list[JobState], command: SweepCommand) -> list[JobState]:
    chosen = [state for state in states if command.only in (None, state.job.id)]
    if not chosen:
        raise ConfigError(f"no run of {command.file} has the id {command.only!r}; --dry-run lists them")
    return chosen


def _write(path: Path, text: str) -> None:
    try:
        with path.open("x") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from None


class _Announcer:
    """Prints a line whenever a run begins or ends."""

    def __init__(self, states: Sequence[JobState]):
        self._states = states
        self._known = {state.path: state.status for state in states}

    def __call__(self) -> None:
        for state in self._states:
            if self._known[state.path] != state.status:
                self._known[state.path] = state.status
                done = sum(other.status == "done" for other in self._states)
                print(f"{state.status:8} {state.path.name} ({done} of {len(self._states)} done)", flush=True)


def _table(states: Sequence[JobState], rows: int | None = None) -> Table:
    """All runs as they stand in the file, or `rows` of them: what goes on or went wrong first."""
    table = Table(title=counted(state.status for state in states), title_justify="left")
    if rows is not None:
        order = {"running": 0, "failed": 1, "waiting": 2, "done": 3}
        states = sorted(states, key=lambda state: order[state.status])[:rows]
    table.add_column("id", no_wrap=True, min_width=max((len(state.job.id) for state in states), default=0))
    table.add_column("settings")
    for column in ("seed", "step", "status"):
        table.add_column(column, justify="right")
    for state in states:
        job = state.job
        settings = ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in job.point.items())
        status = "done before" if state.was_done else state.status
        table.add_row(job.id, settings, str(job.seed), f"{state.step:,}", status)
    return table
