"""What a search has tried and found, and what it tries next: Optuna over a journal in a file.

Several processes may share the file. Each locks the trials that it trains, and the locks end with the process:
a trial whose process is gone is taken over with its values, and its runs go on. Optuna itself knows only heartbeats for
that, in a database and after two minutes, and then draws the trial anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from sparserl.errors import ConfigError
from sparserl.seeding import stream
from sparserl.sweep.tune_file import Range, TuneFile, Values

JOURNAL, LOCK, TRIAL_LOCK = "study.journal", "study.lock", "trial-{}.lock"
"""Files of a search beside its runs; the last one exists while a trial has not ended."""
Status = Literal["done", "failed", "begun"]
STATUS: dict[TrialState, Status] = {TrialState.COMPLETE: "done", TrialState.FAIL: "failed", TrialState.RUNNING: "begun"}


@dataclass(frozen=True)
class Trial:
    """Values that are tried.

    Attributes:
        number: Likewise; a number whose values were never all drawn is left out.
        point: The values, by dotted key.
        status: `begun` also if its process is gone.
        value: The objective; None unless done.
    """

    number: int
    point: Mapping[str, Any]
    status: Status
    value: float | None


@contextmanager
def open_study(file: TuneFile, folder: Path, seed: int) -> Iterator[Study]:
    """The trials of a search in a folder, new or with what is there.

    Args:
        file: What is searched.
        folder: Where the journal is, or will be; must exist.
        seed: Root seed of what is drawn. Each trial has a stream of its own, so a search that was cut off draws what
            it would have drawn.

    Raises:
        ConfigError: If the folder holds another search, or its journal cannot be read.
    """
    study = Study(file, folder, seed)
    try:
        yield study
    finally:
        study.close()


def _without_torn_line(journal: Path) -> None:
    """Takes away the end of a journal that was cut within a line: Optuna writes one at a time, and reads no half."""
    content = journal.read_bytes() if journal.exists() else b""
    whole = content.rfind(b"\n") + 1
    if 0 < whole < len(content):  # without any line it is none of Optuna's
        os.truncate(journal, whole)


class Study:
    """The trials of a search; `open_study` makes one."""

    def __init__(self, file: TuneFile, folder: Path, seed: int):
        self._seed, self._folder = seed, folder
        self._distributions = {key: _distribution(values) for key, values in file.space.items()}
        self._alone = FileLock(folder / LOCK)  # while this process looks what there is and writes what follows from it
        self._mine: dict[int, FileLock] = {}
        optuna.logging.set_verbosity(optuna.logging.ERROR)  # it announces every study, and warns of trials that failed
        journal = (folder / JOURNAL).absolute()  # absolute, because Optuna's own lock is a link to it
        with self._alone:
            _without_torn_line(journal)
            try:
                self._study = optuna.create_study(
                    storage=JournalStorage(JournalFileBackend(str(journal))),
                    study_name="tune",
                    direction=file.direction,
                    load_if_exists=True,
                )
            except ValueError as error:
                raise ConfigError(f"{journal} is not a journal of Optuna: {error}") from None
            self._check_is_of({**file.data, "seed": seed})

    @property
    def trials(self) -> list[Trial]:
        """What has been tried, by all processes."""
        return [self._as_trial(trial) for trial in self._drawn()]

    @property
    def best(self) -> Trial | None:
        """The best trial that is done."""
        done = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return self._as_trial(self._study.best_trial) if done else None

    def claim(self, limit: int) -> Trial | None:
        """The next trial of this process: one whose process is gone, else a new one.

        Args:
            limit: Trials that the search has in all.

        Returns:
            The trial; None if all are tried, or are left to other processes.
        """
        with self._alone:
            for left in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if not self._is_drawn(left):  # the process that draws holds the lock of the journal, so it is gone
                    self._study.tell(left.number, state=TrialState.FAIL)
                elif left.number not in self._mine and self._take(left.number):
                    return self._as_trial(left)
            index = len(self._drawn())
            if index >= limit:
                return None
            seed = int(stream(self._seed, "tune", str(index)).integers(2**32))
            self._study.sampler = optuna.samplers.TPESampler(seed=seed)
            drawn = self._study.ask(self._distributions)
            self._take(drawn.number)
            return self._as_trial(self._study.get_trials(deepcopy=False)[drawn.number])

    def tell(self, number: int, value: float | None) -> None:
        """Ends a trial of this process; without a value it has failed."""
        with self._alone:
            self._study.tell(number, value, state=TrialState.FAIL if value is None else TrialState.COMPLETE)
            self._mine.pop(number).release()
            (self._folder / TRIAL_LOCK.format(number)).unlink(missing_ok=True)

    def close(self) -> None:
        """Leaves the trials of this process that have not ended to others."""
        for lock in self._mine.values():
            lock.release()

    def _check_is_of(self, data: Mapping[str, Any]) -> None:
        """Raises ConfigError if the journal says that the study is of other data; a new one is told whose it is."""
        stated = json.loads(json.dumps(data, default=str))
        of = self._study.user_attrs.get("of", stated)
        changed = [key for key in stated if stated[key] != of.get(key)]
        # No value has been taken yet: a misspelt objective can be mended in the file, and the runs stay.
        if changed == ["objective"] and self.best is None:
            changed = []
        if changed:
            raise ConfigError(
                f"{self._folder} holds a search with another {' and '.join(changed)}; choose another --out, "
                "or give the search as it was"
            )
        if self._study.user_attrs.get("of") != stated:
            self._study.set_user_attr("of", stated)

    def _drawn(self) -> list[FrozenTrial]:
        return [trial for trial in self._study.get_trials(deepcopy=False) if self._is_drawn(trial)]

    def _is_drawn(self, trial: FrozenTrial) -> bool:
        """Whether it has all its values; they enter the journal one by one."""
        return trial.params.keys() == self._distributions.keys()

    def _as_trial(self, trial: FrozenTrial) -> Trial:
        point = {key: _read(self._distributions[key], value) for key, value in trial.params.items()}
        return Trial(trial.number, point, STATUS[trial.state], trial.value)

    def _take(self, number: int) -> bool:
        """Whether a trial is now of this process, and not of another one that lives."""
        lock = FileLock(self._folder / TRIAL_LOCK.format(number))
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return False
        self._mine[number] = lock
        return True


def _distribution(values: Values) -> BaseDistribution:
    if not isinstance(values, Range):
        # As text, because the journal holds scalars alone and a choice may be a list, such as the widths of layers.
        return CategoricalDistribution([json.dumps(choice) for choice in values])
    if isinstance(values.low, int) and isinstance(values.high, int):
        return IntDistribution(values.low, values.high, log=values.log)
    return FloatDistribution(values.low, values.high, log=values.log)


def _read(distribution: BaseDistribution, value: Any) -> Any:
    return json.loads(value) if isinstance(distribution, CategoricalDistribution) else value
