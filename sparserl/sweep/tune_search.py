"""A search: trains the trials of a study, each of them a run for every seed, until there are enough."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sparserl.errors import ConfigError, SparserlError, unknown_name
from sparserl.sweep.pool import JobState, run_jobs, states_of
from sparserl.sweep.tune_file import TuneFile

if TYPE_CHECKING:  # Optuna is an extra
    from sparserl.sweep.tune_study import Study


class Search:
    """Trains trials of a study until there are enough.

    Args:
        file: What is searched.
        study: Says what to try next.
        out: Folder of the run folders.
        trials: Trials that the search has in all, >= 1.

    Attributes:
        failures: Why trials of this call failed.
        runs: Those of each trial that this call trains just now, by its number.
    """

    def __init__(self, file: TuneFile, study: Study, out: Path, trials: int):
        self.failures: list[str] = []
        self.runs: dict[int, list[JobState]] = {}
        self._file, self._study, self._out, self._limit = file, study, out, trials

    def run(self, watch: Callable[[], None], *, workers: int) -> None:
        """Trains; on Ctrl-C every run saves first.

        Args:
            watch: Called again and again while runs go on.
            workers: Processes at a time, >= 1.

        Raises:
            ConfigError: If the objective is no key of a result.
            KeyboardInterrupt: After everything has been stopped.
        """

        def seen() -> None:
            self._end_trials()
            watch()

        # A run waits for another trial with the same config, or for a process of a killed search that still trains it.
        run_jobs(self._waiting(), seen, workers=workers, waits_for_others=True)

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
            self.runs[trial.number] = states
            for state in states:
                if state.status == "waiting" and not _failed(states):
                    yield state

    def _end_trials(self) -> None:
        """Tells the study of trials that have nothing to run any more."""
        for number, states in list(self.runs.items()):
            kinds = {state.status for state in states}
            if "running" in kinds or ("waiting" in kinds and "failed" not in kinds):
                continue
            failed = _failed(states)
            values = [] if failed else [self._value(state.path) for state in states]
            del self.runs[number]
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


def _failed(states: Sequence[JobState]) -> list[JobState]:
    return [state for state in states if state.status == "failed"]
