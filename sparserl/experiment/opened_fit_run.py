"""A run of `sparserl fit` that exists: its network, which says the classes of samples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from sparserl.continual.supervised.classifier_recorder import check_data
from sparserl.continual.supervised.objectives import Score
from sparserl.continual.supervised.tables import Table, read_table
from sparserl.continual.supervised.tasks import Samples
from sparserl.errors import ConfigError, unknown_name
from sparserl.experiment.classifier_training import data_dir_of
from sparserl.experiment.fit_config import FitConfig
from sparserl.experiment.fit_training import make_fit_learner
from sparserl.experiment.opened_run import OpenedRun
from sparserl.experiment.restored_agent import last_state
from sparserl.experiment.resuming import restoring
from sparserl.experiment.run_config import fit_config
from sparserl.metrics.ensemble import accuracy, negative_log_likelihood
from sparserl.recording import checkpoint
from sparserl.recording.run_folder import BEST, USUAL_CHECKPOINT, RunFolder, WhichCheckpoint


class TrainedFit(OpenedRun[FitConfig]):
    """A run of `sparserl fit`.

    Attributes:
        learner: The classifier, with its table; its network is that of the checkpoint. Where no checkpoint is asked
            for, the members of an ensemble answer together.
        classes: Names of the classes, by output unit.

    Raises:
        ConfigError: If the best checkpoint is asked for, and there were no validation samples to choose it by.
    """

    def __init__(self, folder: RunFolder, which: WhichCheckpoint | None = None):
        config = fit_config(folder)
        has_best = (folder.checkpoints / BEST).exists()
        if which == "best" and not has_best:
            raise ConfigError(
                f"{folder.path} has no best checkpoint, which validation samples choose; use --checkpoint last"
            )
        of_members = which is None and config.learner.ensemble > 1
        chosen: WhichCheckpoint = which or USUAL_CHECKPOINT
        state = checkpoint.load(folder.checkpoints / BEST) if chosen == "best" else last_state(folder)
        with restoring():
            super().__init__(folder, config, state, chosen)
        self.learner = make_fit_learner(config, data_dir_of(folder), folder=folder.path)
        check_data(state if "data" in state else last_state(folder), self.learner.sequence)  # older best ones have none
        with restoring():
            if chosen == "best":
                self.learner.network.load_state_dict(state["network"])
            else:
                self.learner.load_answering(state["learner"])
            if of_members and self.learner.ensemble is not None:
                self.learner.ensemble.load_state_dict(state["learner"]["ensemble"])
        self._data_dir = data_dir_of(folder)
        self.classes = tuple(self.learner.sequence.record["class_names"])

    def evaluate(self, episodes: int = 10) -> dict[str, Score]:
        """`train`, `validation` (where there is one) and `test` -> accuracy and loss on these samples, all of them."""
        del episodes
        task = self.learner.only_task
        parts = {"train": task.train, "validation": task.validation, "test": task.test}
        return {name: self._score(samples) for name, samples in parts.items() if samples is not None}

    def _score(self, samples: Samples) -> Score:
        if self.learner.ensemble is None or not self.learner.ensemble.members:
            return self.learner.evaluate(samples)
        together = self.learner.member_probabilities(samples).mean(dim=0).numpy()
        return Score(accuracy(together, samples.labels), negative_log_likelihood(together, samples.labels))

    def read_table(self, data: str) -> Table:
        """A table of samples that the network can read, with labels or without; `data` as `sparserl fit` takes it.

        Raises:
            ConfigError: If it cannot be read, or has another number of features.
        """
        table, wanted = read_table(data, self._data_dir, seed=self.config.seed, labelled=False), self._n_features
        if table.x.shape[1] != wanted:
            raise ConfigError(f"{data} has {table.x.shape[1]:,} features, and {self.folder.path} reads {wanted:,}")
        return table if table.feature_names is None else self._in_order(table)

    def _in_order(self, table: Table) -> Table:
        """A table whose features have names, in the order of those that were trained on, if these have names too.

        Raises:
            ConfigError: If a name is missing.
        """
        names = self.learner.sequence.feature_names
        if names is None or names == table.feature_names:
            return table
        column = {name: index for index, name in enumerate(table.feature_names or ())}
        missing = next((name for name in names if name not in column), None)
        if missing is not None:
            raise ConfigError(f"{table.name}: {unknown_name('column of a feature', missing, list(column))}")
        return replace(table, x=table.x[:, [column[name] for name in names]], feature_names=names)

    @property
    def _n_features(self) -> int:
        return self.learner.sequence.n_features

    @torch.no_grad()
    def probabilities(self, x: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """(N, classes) probability of each class, where the run has classes.

        Args:
            x: (N, F) features as the table has them; they are standardised as those of training.

        Raises:
            ConfigError: If they are no finite numbers, or not as many as the network reads.
        """
        if not self.learner.objective.has_classes:
            raise ConfigError(f"a run of --task {self.config.task} predicts no classes; --task classify does")
        task, n_features = self.learner.only_task, self._n_features
        features = np.asarray(x)
        if features.ndim != 2 or features.shape[1] != n_features:
            raise ConfigError(f"samples must have {n_features} features, as (N, {n_features}), got {features.shape}")
        if features.dtype.kind not in "buif" or not np.isfinite(features).all():
            raise ConfigError("features must be finite numbers")
        given, n = task.train, len(features)
        rows = np.arange(n)
        samples = Samples(features.astype(np.float32), rows, np.zeros_like(rows), given.mean, given.std, given.scale)
        together: npt.NDArray[np.float32] = self.learner.member_probabilities(samples).mean(dim=0).numpy()
        return together

    def predict(self, x: npt.ArrayLike) -> npt.NDArray[np.str_]:
        """(N,) name of the most probable class of each sample; arguments as of `probabilities`."""
        names: npt.NDArray[np.str_] = np.array(self.classes)[self.probabilities(x).argmax(axis=1)]
        return names
