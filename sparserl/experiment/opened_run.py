"""A run that exists, with what it has learned: to be looked at, evaluated and gone on with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, Self, TypeVar

from sparserl.continual.supervised.classifier_recorder import check_data
from sparserl.errors import ConfigError
from sparserl.experiment.classifier_training import data_dir_of, make_learner
from sparserl.experiment.continual_config import ContinualConfig
from sparserl.experiment.recorded_run import RunConfig
from sparserl.experiment.restored_agent import last_state
from sparserl.experiment.resuming import restoring
from sparserl.experiment.run_config import continual_config, located_config
from sparserl.experiment.runs import go_on
from sparserl.recording.run_folder import RunFolder, WhichCheckpoint
from sparserl.text_files import read_json

C = TypeVar("C", bound=RunConfig)


class OpenedRun(ABC, Generic[C]):
    """A run, with what a checkpoint of it has learned.

    Args:
        folder: Of the run.
        config: Of the run.
        state: The checkpoint.
        which: Which one it is.

    Attributes:
        folder: As above.
        config: As above.
        which: As above.
        step: At which the checkpoint was taken: env steps of an agent, gradient steps of a classifier.
    """

    def __init__(self, folder: RunFolder, config: C, state: Mapping[str, Any], which: WhichCheckpoint):
        self.folder, self.config, self.which = folder, config, which
        self.step = int(state["global_step"])

    @property
    def title(self) -> str:
        """Which run and checkpoint, in words."""
        return f"{self.config.name} seed {self.config.seed}, {self.which} checkpoint (step {self.step:,})"

    @property
    def result(self) -> dict[str, Any] | None:
        """What `result.json` says; None if the run is not finished."""
        result: dict[str, Any] | None = read_json(self.folder.path / "result.json") if self.folder.is_done else None
        return result

    def resume(self, *, from_step: int | None = None, total_steps: int | None = None, progress: bool = False) -> Self:
        """Trains on to the end, from the newest checkpoint; this object stays as it is.

        Args:
            from_step: Step of another checkpoint to go on from; what is newer is set aside in the folder.
            total_steps: Of a run of `sparserl train`: a new end, beyond that of the config.
            progress: Whether to draw a progress bar.

        Returns:
            The finished run, opened.

        Raises:
            SparserlError: As `run`; also if the run is finished or has no checkpoint.
        """
        go_on(self.folder.path, from_step, total_steps=total_steps, show_progress=progress)
        kind: Any = type(self)
        opened: Self = kind(self.folder, self.which)
        return opened

    @abstractmethod
    def evaluate(self, episodes: int = 10) -> Any:
        """What was learned, measured; what it gives, and what else it takes, depends on the kind of run."""


class TrainedClassifier(OpenedRun[ContinualConfig]):
    """A run of `sparserl continual` with a classifier, which has no best checkpoint.

    Attributes:
        learner: The classifier, with its tasks.
    """

    def __init__(self, folder: RunFolder, which: WhichCheckpoint | None = None):
        which = last_of_continual(folder, which)
        config = located_config(continual_config(folder), folder)
        state = last_state(folder)
        with restoring():
            super().__init__(folder, config, state, which)
        self.learner = make_learner(config, data_dir_of(folder))
        check_data(state, self.learner.sequence)
        with restoring():
            self.learner.load_state_dict(state["learner"])

    def evaluate(self, episodes: int = 10) -> dict[str, float]:
        """Name of each task -> accuracy on its test samples, of which all are taken; NaN if it was not learned yet."""
        del episodes
        names = [task.name for task in self.learner.sequence.tasks]
        return dict(zip(names, self.learner.accuracies(), strict=True))


def last_of_continual(folder: RunFolder, which: WhichCheckpoint | None) -> WhichCheckpoint:
    """`last`, which is all that a continual run has.

    Raises:
        ConfigError: If the best checkpoint is asked for.
    """
    if which == "best":
        raise ConfigError(f"{folder.path} is a continual run, which has no best checkpoint; use --checkpoint last")
    return "last"
