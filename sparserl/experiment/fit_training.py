"""A network that learns one table: `sparserl fit`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sparserl.continual.named_objects import is_named_object
from sparserl.continual.supervised.connections import layer_shapes, patch_bytes
from sparserl.continual.supervised.fit_learner import FitLearner
from sparserl.continual.supervised.fit_recorder import FitRecorder
from sparserl.continual.supervised.fit_tasks import FIT_TASKS
from sparserl.continual.supervised.tables import read_table, table_sequence
from sparserl.experiment.classifier_training import BATCH, DataTraining, network_bytes
from sparserl.experiment.fit_config import FitConfig
from sparserl.experiment.named_modules import name_modules
from sparserl.experiment.run_config import fit_config
from sparserl.machine_memory import check_fits
from sparserl.metrics.cost import params_dense, params_nonzero
from sparserl.recording.run_folder import RunFolder


class FitTraining(DataTraining[FitConfig, FitLearner]):
    """A network that learns one table."""

    command = job_type = "fit"
    recorder = FitRecorder

    def _make_learner(self, data_dir: Path, *, download: bool) -> FitLearner:
        return make_fit_learner(self.config, data_dir, download=download)

    @classmethod
    def config_of(cls, folder: RunFolder) -> FitConfig:
        return fit_config(folder)

    @property
    def about(self) -> list[str]:
        sequence, task = self.learner.sequence, self.learner.only_task
        parts = {"training": task.train, "validation": task.validation, "test": task.test}
        counts = ", ".join(f"{len(samples):,} {part}" for part, samples in parts.items() if samples is not None)
        network = [self.learner.network]
        classes = f", {sequence.n_outputs} classes" if self.learner.objective.has_classes else ""
        return [
            f"{counts} samples of {sequence.n_features:,} features{classes}",
            f"{params_nonzero(network):,} of {params_dense(network):,} parameters, {self.learner.total_steps:,} steps",
        ]

    @property
    def named(self) -> dict[str, Any]:
        return {"data": self.config.data, "method": self.config.topology.method, "seed": self.config.seed}

    def draw(self, folder: RunFolder, out: Path) -> None:
        from sparserl.plots.fits import plot_fit  # as in `AgentTraining`

        plot_fit(folder.path, out, self.config.title)


def make_fit_learner(
    config: FitConfig, data_dir: Path, *, download: bool = False, folder: Path | None = None
) -> FitLearner:
    """What learns the table of a run, and has learned nothing.

    Args:
        config: Of the run.
        data_dir: The data folder.
        download: Whether missing data is fetched into it.
        folder: Of the run, if it has one.

    Raises:
        ConfigError: If the table is missing or wrong, or the machine has too little memory.
    """
    task = FIT_TASKS[config.task]
    labelled = task.objective.has_classes
    name_modules(filter(is_named_object, [config.data]), folder, what="data")
    table = read_table(config.data, data_dir, seed=config.seed, download=download, labelled=labelled)
    sequence = table_sequence(
        table,
        scaling=config.scaling,
        test_share=config.test_share,
        validation_share=config.validation_share,
        seed=config.seed,
    )
    outputs = [task.objective.outputs(sequence)] if task.has_output_layer else []
    shapes = layer_shapes(config.learner, sequence, outputs)
    network = {"the network (--learner.hidden)": network_bytes(config.topology, shapes)}
    check_fits({**network, BATCH: patch_bytes(config.learner, sequence)})
    make = task.learner_with(config.learner.regularizer)
    return make(sequence, config.learner, config.topology, task.objective, seed=config.seed)
