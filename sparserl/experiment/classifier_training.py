"""Classifiers trained on data, and of them one on a sequence of tasks: `sparserl continual`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

from sparserl.continual.named_objects import is_named_object
from sparserl.continual.strategies.closed_form import ClosedForm
from sparserl.continual.supervised.classifier_recorder import ClassifierRecorder
from sparserl.continual.supervised.closed_form_learner import ClosedFormLearner
from sparserl.continual.supervised.connections import layer_shapes, patch_bytes
from sparserl.continual.supervised.data import default_data_dir
from sparserl.continual.supervised.learner import SupervisedLearner
from sparserl.continual.supervised.own_tasks import own_sequence
from sparserl.continual.supervised.recorder import SequenceRecorder
from sparserl.continual.supervised.sequences import build_sequence
from sparserl.continual.supervised.tables import read_table
from sparserl.continual.supervised.task_learner import TaskLearner
from sparserl.continual.supervised.tasks import TaskSequence
from sparserl.errors import ConfigError
from sparserl.experiment.continual_config import ContinualConfig
from sparserl.experiment.named_modules import name_modules, run_of
from sparserl.experiment.recorded_run import RunConfig
from sparserl.experiment.run_config import continual_config, located_config, written_config
from sparserl.experiment.training import Source, Training
from sparserl.machine_memory import DENSE_BYTES, SPARSE_BYTES, check_fits
from sparserl.recording.resources import ProcessCost
from sparserl.recording.run_folder import RunFolder
from sparserl.topology.config import TopologyConfig
from sparserl.topology.density import Shape

C = TypeVar("C", bound=RunConfig)
L = TypeVar("L", bound=TaskLearner)
DATA_DIR = "data_dir.txt"
"""File of a run folder that says where its data was; beside the config, because it does not define the run."""

BATCH = "patches of a batch (--learner.batch-size)"
"""What memory is taken for."""


class DataTraining(Training[C], Generic[C, L]):
    """A classifier that learns from data.

    Attributes:
        learner: The classifier.
        recorder: What records it.
    """

    parts = ("checkpoints",)
    recorder: ClassVar[Callable[..., ClassifierRecorder]]

    def __init__(self, config: C, data_dir: Path, *, download: bool = False):
        super().__init__(config)
        self._data_dir = data_dir
        self.learner = self._make_learner(data_dir, download=download)

    @abstractmethod
    def _make_learner(self, data_dir: Path, *, download: bool) -> L:
        """What learns, and has learned nothing."""

    @classmethod
    def begin(cls, config: C, source: Source) -> Self:
        return cls(config, (source.data_dir or default_data_dir()).absolute(), download=source.download)

    @classmethod
    def reopen(cls, config: C, folder: RunFolder, source: Source) -> Self:
        return cls(config, source.data_dir or data_dir_of(folder))

    @property
    def is_sparse(self) -> bool:
        return bool(self.learner.sparse_layers)

    def create_folder(self, path: Path | None, command: str | None) -> RunFolder:
        folder = super().create_folder(path, command)
        (folder.path / DATA_DIR).write_text(f"{self._data_dir}\n")
        return folder

    def record(self, folder: RunFolder, *, show_progress: bool) -> ClassifierRecorder:
        config: Any = self.config  # both kinds have these intervals
        self._recorder = self.recorder(
            self.learner,
            folder,
            identity=written_config(folder),
            log_every_steps=config.log_every_steps,
            checkpoint_every_steps=config.checkpoint_every_steps,
            show_progress=show_progress,
            process=ProcessCost(energy=self.config.energy),
        )
        return self._recorder

    def learn(self, *, is_new: bool) -> None:
        self._recorder.learn()


class ClassifierTraining(DataTraining[ContinualConfig, TaskLearner]):
    """A classifier on a sequence of tasks."""

    command = job_type = "continual"
    recorder = SequenceRecorder

    def _make_learner(self, data_dir: Path, *, download: bool) -> TaskLearner:
        return make_learner(self.config, data_dir, download=download)

    @classmethod
    def config_of(cls, folder: RunFolder) -> ContinualConfig:
        return located_config(continual_config(folder), folder)

    @property
    def about(self) -> list[str]:
        tasks = self.learner.sequence.tasks
        return [
            f"{len(tasks)} tasks: {'; '.join(task.name for task in tasks)}",
            self.learner.about,
        ]

    @property
    def named(self) -> dict[str, Any]:
        settings = {name: getattr(self.config, name) for name in ("scenario", "method", "seed")}
        return {"sequence": self.config.sequence_label, **settings}

    def draw(self, folder: RunFolder, out: Path) -> None:
        from sparserl.plots.matrix import plot_sequence_run  # as in `AgentTraining`

        plot_sequence_run(folder.path, out, self.config.title)


def data_dir_of(folder: RunFolder) -> Path:
    """Where the data of a run was when it began; the usual folder for one from another machine (`sparserl card`)."""
    said = folder.path / DATA_DIR
    return Path(said.read_text().rstrip("\n")) if said.exists() else default_data_dir()


def make_learner(config: ContinualConfig, data_dir: Path, *, download: bool = False) -> TaskLearner:
    """What learns the sequence of a run, and has learned nothing.

    Raises:
        ConfigError: If data is missing, or the machine has too little memory.
    """
    make = _sequence_of_file if config.from_file else _known_sequence
    return learner_of(config, make(config, data_dir, download))


def _known_sequence(config: ContinualConfig, data_dir: Path, download: bool) -> TaskSequence:
    return build_sequence(
        config.sequence,
        config.scenario,  # type: ignore[arg-type]  # one of them, as the config has checked
        seed=config.seed,
        data_dir=data_dir,
        download=download,
        n_tasks=config.tasks,
        class_order=config.class_order,
    )


def _sequence_of_file(config: ContinualConfig, data_dir: Path, download: bool) -> TaskSequence:
    file, path = config.load_file(), Path(config.sequence)
    name_modules(filter(is_named_object, file.all_data), run_of(path) or run_of(path.parent), what="data")
    try:
        tables = {
            data: read_table(data, data_dir, seed=config.seed, download=download, column=file.column)
            for data in file.all_data
        }
        scenario: Any = config.scenario
        return own_sequence(file, tables, scenario, seed=config.seed, class_order=config.class_order)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def learner_of(config: ContinualConfig, sequence: TaskSequence) -> TaskLearner:
    """What learns a sequence as a config says, and has learned nothing.

    Raises:
        ConfigError: If the machine has too little memory.
    """
    strategy = config.strategy()
    if isinstance(strategy, ClosedForm):
        check_fits({f"what {config.method} adds up": strategy.bytes_of(sequence.n_features, sequence.n_outputs)})
        return ClosedFormLearner(sequence, strategy, seed=config.seed)
    sizes = [sequence.n_features, *config.learner.hidden, sequence.n_outputs]
    counted = strategy.connections(sizes, len(sequence.tasks))
    if counted is None:
        needed = network_bytes(config.topology, layer_shapes(config.learner, sequence, [sequence.n_outputs]))
    else:
        needed = SPARSE_BYTES * float(counted)
    check_fits({"the network (--learner.hidden)": needed, BATCH: patch_bytes(config.learner, sequence)})
    return SupervisedLearner(sequence, strategy, config.learner, config.topology, seed=config.seed)


def network_bytes(topology: TopologyConfig, shapes: Sequence[Shape]) -> float:
    """What a network with its optimizer takes, estimated; `shapes` are (outputs, inputs) of its layers."""
    densities = topology.first_densities(shapes)
    return DENSE_BYTES * sum(density * a * b for density, (a, b) in zip(densities, shapes, strict=True))
