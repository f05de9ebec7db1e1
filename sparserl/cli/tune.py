"""`sparserl tune`: searches the values of a config that learn best, several runs at a time."""

from __future__ import annotations

import importlib.util
import itertools
import json
import math
import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table

from sparserl.cli.arguments import Positional, parse
from sparserl.errors import ConfigError, SparserlError, unknown_name
from sparserl.extras import how_to_install
from sparserl.ranges import Repeats, Seed, Workers, check_ranges
from sparserl.sweep.pool import POLL_S, SHOWN_AT_ONCE, JobState, noted_signals, states_of
from sparserl.sweep.process import JobProcess, TakenError
from sparserl.sweep.tune_file import TuneFile, load_tune_file
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
    console = Console()
    with open_study(file, out, command.seed) as study:
        search = Search(file, study, out, command.workers, command.trials)
        try:
            if command.progress and console.is_terminal:
                with Live(search.table(SHOWN_AT_ONCE), console=console, refresh_per_second=2) as live:
                    search.run(lambda: live.update(search.table(SHOWN_AT_ONCE)))
            else:
                search.run(_Announcer(study, file.objective))
        except KeyboardInterrupt:
            print("\nstopped; the same command goes on where it was")
            return 130
        console.print(search.table())
        for failure in search.failures:
            print(f"sparserl: {failure}")
        if study.best is not None:
            print(_how_to_train(study.best, file, out))
        return 1 if any(trial.status == "failed" for trial in study.trials) else 0


class Search:
    """Trains trials of a study until there are enough.

    Args:
        file: What is searched.
        study: Says what to try next.
        out: Folder of the run folders.
        workers: Processes at a time, >= 1.
        trials: Trials that the search has in all, >= 1.

    Attributes:
        failures: Why trials of this call failed.
    """

    def __init__(self, file: TuneFile, study: Study, out: Path, workers: int, trials: int):
        self.failures: list[str] = []
        self._file, self._study, self._out = file, study, out
        self._workers, self._limit = workers, trials
        self._open: dict[int, list[JobState]] = {}

    def run(self, watch: Callable[[], None]) -> None:
        """Trains; on Ctrl-C every run saves first.

        Args:
            watch: Called again and again while runs go on.

        Raises:
            ConfigError: If the objective is no key of a result.
            KeyboardInterrupt: After everything has been stopped.
        """
        running: list[JobState] = []
        waiting = self._waiting()
        with noted_signals() as raise_if_stopped:
            try:
                while True:
                    raise_if_stopped()
                    running = [state for state in running if state.status == "running"]
                    self._end_trials()
                    running += itertools.islice(waiting, self._workers - len(running))
                    if not running:
                        break
                    for state in running:
                        _go_on(state)
                    watch()
                    time.sleep(POLL_S)
                watch()
            finally:
                left = [state.process for state in running if state.process is not None]
                for process in left:
                    process.stop()
                for process in left:
                    process.wait()

    def table(self, rows: int | None = None) -> Table:
        """The trials, those that go on first, then the best; `rows` of them, or all if None."""
        trials = self._study.trials
        count = Counter(trial.status for trial in trials)
        title = ", ".join(f"{number} {status}" for status, number in count.items())
        table = Table(title=f"{self._limit} trials: {title}", title_justify="left")
        for column in ("trial", *self._file.space):
            table.add_column(column, overflow="fold")
        for column in (self._file.objective, "status"):
            table.add_column(column, justify="right", overflow="fold")
        sign = -1 if self._file.direction == "maximize" else 1

        def place(trial: Trial) -> tuple[bool, bool, float]:
            return trial.number not in self._open, trial.value is None, sign * (trial.value or 0.0)

        for trial in sorted(trials, key=place)[:rows]:
            value = "" if trial.value is None else _shown(trial.value)
            point = (_shown(trial.point[key]) for key in self._file.space)
            table.add_row(str(trial.number), *point, value, self._status(trial))
        return table

    def _status(self, trial: Trial) -> str:
        if trial.number not in self._open:
            return trial.status
        return f"step {sum(state.step for state in self._open[trial.number]):,}"

    def _waiting(self) -> Iterator[JobState]:
        """Runs to begin, as they are asked for; a trial is drawn when the runs of the one before have begun."""
        while True:
            self._end_trials()
            trial = self._study.claim(self._limit)
            if trial is None:
                return
            try:
                states = states_of(self._file.jobs(trial.point), self._out)
            except SparserlError as error:  # each value alone was tried before, but not together
                self._fail(trial.number, str(error))
                continue
            self._open[trial.number] = states
            for state in states:
                if state.status == "waiting" and not _failed(states):
                    state.status = "running"
                    yield state

    def _end_trials(self) -> None:
        """Tells the study of trials that have nothing to run any more."""
        for number, states in list(self._open.items()):
            kinds = {state.status for state in states}
            if "running" in kinds or ("waiting" in kinds and "failed" not in kinds):
                continue
            failed = _failed(states)
            values = [] if failed else [self._value(state.path) for state in states]
            del self._open[number]
            if failed:
                self._fail(number, f"{failed[0].error}; see {failed[0].log}")
            elif not all(math.isfinite(value) for value in values):
                self._fail(number, f"its {self._file.objective} is no number in one of its runs")
            else:
                self._study.tell(number, float(np.mean(values)))

    def _fail(self, number: int, reason: str) -> None:
        self.failures.append(f"trial {number} failed: {reason}")
        self._study.tell(number, None)

    def _value(self, path: Path) -> float:
        result = json.loads((path / "result.json").read_text())
        numbers = {key: value for key, value in result.items() if value is None or type(value) in (int, float)}
        if self._file.objective not in numbers:
            raise ConfigError(f"{path}/result.json: {unknown_name('objective', self._file.objective, numbers)}")
        value = numbers[self._file.objective]
        return math.nan if value is None else float(value)


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


def _go_on(state: JobState) -> None:
    """Begins a run that has been given a worker, or sees whether it has ended."""
    if state.process is not None:
        if state.process.has_ended():
            state.error = state.process.failure
            state.status = "failed" if state.error else "done"
        return
    try:
        state.process = JobProcess.start(state.job, state.path)
    except TakenError:
        return  # another trial has the same config, or the process of a killed search still trains it: wait for that
    if state.process is None:
        state.status, state.was_done = "done", True


def _failed(states: Sequence[JobState]) -> list[JobState]:
    return [state for state in states if state.status == "failed"]


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _how_to_train(best: Trial, file: TuneFile, out: Path) -> str:
    config = out / file.jobs(best.point)[0].folder / "config.yaml"
    command = f"sparserl {file.base.command} --config {shlex.quote(str(config))} --seed {max(file.base.seeds) + 1}"
    return f"best: trial {best.number}; train it with another seed: {command}"
