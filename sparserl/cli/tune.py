"""`sparserl tune`: searches the values of a config that learn best, several runs at a time."""

from __future__ import annotations

import importlib.util
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.table import Table

from sparserl.cli.arguments import parse
from sparserl.cli.options import Positional
from sparserl.cli.watching import counted, watched
from sparserl.errors import ConfigError
from sparserl.experiment.signals import INTERRUPTED
from sparserl.extras import how_to_install
from sparserl.ranges import Repeats, Seed, Workers, check_ranges
from sparserl.sweep.pool import JobState
from sparserl.sweep.tune_file import TuneFile, load_tune_file
from sparserl.sweep.tune_search import Search
from sparserl.written_files import check_folder

if TYPE_CHECKING:  # Optuna is an extra
    from sparserl.sweep.tune_study import Study, Trial


@dataclass(frozen=True)
class TuneCommand:
    """Search values of a config by Optuna's TPE; the same command goes on with a search that was cut off.

    Several such commands on one machine may work on one search. A trial that failed stays failed.
    """

    file: Annotated[Path, Positional()]
    """YAML file with command, base, space, objective, direction and seeds; see configs/tune."""
    trials: Repeats = 20
    """Trials of the search in all, with those of earlier calls."""
    workers: Workers = 1
    """Runs at a time, each a process with as many threads as its config says."""
    out: Path | None = None
    """Folder of the search and its run folders; runs/<name of the file> if None."""
    seed: Seed = 0
    """Root seed of the values that are tried; with one worker they repeat. Runs have the seeds of the file."""
    progress: bool = True
    """Show a table while runs go on."""

    def __post_init__(self) -> None:
        check_ranges(self, "--")


def run(arguments: Sequence[str]) -> int:
    """Runs `sparserl tune`; returns the exit status: 0 all done, 1 some trials failed, 130 stopped."""
    command = parse(TuneCommand, arguments, command="tune")
    if importlib.util.find_spec("optuna") is None:
        raise ConfigError(f"optuna is not installed; {how_to_install('tune')} brings it")
    from sparserl.sweep.tune_study import open_study

    file = load_tune_file(command.file)
    out = command.out or Path("runs") / command.file.stem
    check_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    with open_study(file, out, command.seed) as study:
        search = Search(file, study, out, command.trials)

        def table(rows: int | None) -> Table:
            return _table(study.trials, file, search.runs, f"{command.trials} trials", rows)

        announce = _Announcer(study, file.objective)
        if not watched(partial(search.run, workers=command.workers), table, announce, live=command.progress):
            return INTERRUPTED
        for failure in search.failures:
            print(f"sparserl: {failure}")
        if study.best is not None:
            print(_how_to_train(study.best, file, out))
        return 1 if any(trial.status == "failed" for trial in study.trials) else 0


def _table(
    trials: Sequence[Trial], file: TuneFile, runs: Mapping[int, Sequence[JobState]], title: str, rows: int | None
) -> Table:
    """The trials, those that go on first, then the best; `rows` of them, or all if None."""
    counts = counted(trial.status for trial in trials)
    table = Table(title=f"{title}: {counts}", title_justify="left")
    for column in ("trial", *file.space):
        table.add_column(column, overflow="fold")
    for column in (file.objective, "status"):
        table.add_column(column, justify="right", overflow="fold")
    sign = -1 if file.direction == "maximize" else 1

    def index(trial: Trial) -> tuple[bool, bool, float]:
        return trial.number not in runs, trial.value is None, sign * (trial.value or 0.0)

    for trial in sorted(trials, key=index)[:rows]:
        going_on = runs.get(trial.number)
        status = trial.status if going_on is None else f"step {sum(state.step for state in going_on):,}"
        value = "" if trial.value is None else _shown(trial.value)
        table.add_row(str(trial.number), *(_shown(trial.point[key]) for key in file.space), value, status)
    return table


class _Announcer:
    """Prints a line whenever a trial begins or ends."""

    def __init__(self, study: Study, objective: str):
        self._study, self._objective = study, objective
        self._known = {trial.number: trial.status for trial in study.trials}

    def __call__(self) -> None:
        for trial in self._study.trials:
            if self._known.get(trial.number) != trial.status:
                self._known[trial.number] = trial.status
                value = "" if trial.value is None else f", {self._objective} {_shown(trial.value)}"
                point = ", ".join(f"{key} {_shown(one)}" for key, one in trial.point.items())
                print(f"{trial.status:6} trial {trial.number}: {point}{value}", flush=True)


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _how_to_train(best: Trial, file: TuneFile, out: Path) -> str:
    config = out / file.jobs(best.point)[0].folder / "config.yaml"
    command = f"sparserl {file.base.command} --config {shlex.quote(str(config))} --seed {max(file.base.seeds) + 1}"
    return f"best: trial {best.number}; train it with another seed: {command}"
