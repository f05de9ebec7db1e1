"""Sequences of classification tasks from YAML files: what may stand there, and how it is read.

Independent of the data itself, and of how tasks are made of it. docs/sequences.md says the same to users.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sparserl import config
from sparserl.continual.supervised.splits import Scaling
from sparserl.continual.supervised.tables import is_named
from sparserl.continual.supervised.tasks import Scenario
from sparserl.continual.supervised.transformations import Transformation
from sparserl.errors import ConfigError, shown
from sparserl.ranges import Count, InnerShare, check_ranges


@dataclass(frozen=True)
class TaskEntry:
    """A task as a file has it."""

    name: str | None = None
    """What it is called; by default its classes, its value of the column, its data, or its transformation."""
    data: str | None = None
    """Table of its own, in place of that of the sequence."""
    classes: tuple[str, ...] = ()
    """Labels of the samples that it has; all if not given."""
    value: str | None = None
    """Value of the column that its samples have; any if not given."""
    transform: Transformation = field(default_factory=Transformation)
    """What is done to its samples."""


@dataclass(frozen=True)
class SequenceFile:
    """A sequence of classification tasks as a file has it.

    Raises:
        ConfigError: If a value is out of range, or keys do not go together.
    """

    name: str
    """What the sequence is called; the file's own name if not given."""
    data: str | None = None
    """Table of samples, as `sparserl fit` takes it: a name, a file (beside the YAML file, here, or in the data folder),
    or `module:function`."""
    column: str | None = None
    """Column of that table that tells tasks apart, and is no feature; without `tasks`, each of its values is a task."""
    scenario: Scenario | None = None
    """Unless another is asked for; by default `class` if all tasks say their classes, else `domain`."""
    scaling: Scaling = "each_feature"
    """What features are scaled by, over the training samples of all tasks; see `sparserl fit --help`."""
    test_share: InnerShare | None = None
    """Share of the samples that are for testing; a fifth, or the table's own test samples, if not given."""
    shape: tuple[Count, ...] = ()
    """Of pictures: height and width, or channels, height and width. For transformations of pictures; known of MNIST,
    Fashion-MNIST and the digits."""
    tasks: Count | tuple[TaskEntry, ...] | None = None
    """A list of tasks, or a number: so many tasks, each with as many classes of its own."""

    def __post_init__(self) -> None:
        check_ranges(self, "", hyphens=False)
        if self.shape and len(self.shape) not in (2, 3):
            raise ConfigError(f"shape must be height and width, or channels, height and width, got {list(self.shape)}")
        if self.tasks is None and self.column is None:
            raise ConfigError("tasks is missing: a list of tasks, or a number; or a column whose values are tasks")
        if isinstance(self.tasks, int) and self.column is not None:
            raise ConfigError(f"tasks {self.tasks} splits classes, and column {self.column!r} samples; leave one out")
        if self.tasks == ():
            raise ConfigError(f"sequence {self.name!r} has no tasks")
        for index, task in enumerate(self.entries):
            if self.data is None and task.data is None:
                raise ConfigError(f"task {index} has no data, and the sequence has none: say `data` of one of them")
            if task.value is not None and self.column is None:
                raise ConfigError(f"task {index} has value {task.value!r} of a column: say which `column`")
        if self.data is None and not self.entries:
            raise ConfigError("data is missing: the table that tasks are made of")

    @property
    def entries(self) -> tuple[TaskEntry, ...]:
        """Its tasks, as far as they are in a list."""
        return self.tasks if isinstance(self.tasks, tuple) else ()

    @property
    def usual_scenario(self) -> Scenario:
        """Unless another is asked for."""
        if self.scenario is not None:
            return self.scenario
        says_classes = all(task.classes for task in self.entries) and self.tasks is not None
        return "class" if says_classes else "domain"

    @property
    def all_data(self) -> list[str]:
        """Tables that it reads, each once."""
        named = [self.data, *(task.data for task in self.entries)]
        return list(dict.fromkeys(one for one in named if one is not None))

    def located(self, folder: Path) -> SequenceFile:
        """The same with the full paths of tables that lie beside the file, or here."""

        def full(data: str | None) -> str | None:
            if data is None or "\0" in data or is_named(data):
                return data
            paths = (folder / Path(data).expanduser(), Path(data).expanduser())
            return next((str(path.resolve()) for path in paths if path.exists()), data)

        tasks = tuple(replace(task, data=full(task.data)) for task in self.entries)
        return replace(self, data=full(self.data), tasks=tasks or self.tasks)


def load_sequence_file(path: Path) -> SequenceFile:
    """A sequence of classification tasks from a YAML file.

    Keys are those of `SequenceFile`, `TaskEntry` and `Transformation`. What `sparserl.config.dump` writes of one is
    read as well.

    Raises:
        ConfigError: If the file cannot be read, or holds an unknown key (the valid ones are listed) or a bad value.
    """
    data = config.load_yaml(path)
    try:
        return sequence_of({"name": path.stem, **data}).located(path.parent)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def sequence_of(data: Mapping[str, Any]) -> SequenceFile:
    """A sequence of plain data, as a file has it, with a name.

    Raises:
        ConfigError: As `load_sequence_file`.
    """
    config.check_keys(SequenceFile, data)
    given = {key: value for key, value in data.items() if value is not None}
    if not isinstance(given.get("name"), str | int | float) or not str(given["name"]).strip():
        raise ConfigError(f"name must be text, got {shown(given.get('name'))}")
    given |= {key: str(given[key]) for key in ("name", "column") if key in given}
    tasks = given.get("tasks")
    if isinstance(tasks, list | tuple):
        given["tasks"] = tuple(_entry(index, item) for index, item in enumerate(tasks))
    elif tasks is not None and (isinstance(tasks, bool) or not isinstance(tasks, int)):
        raise ConfigError(f"tasks must be a list of tasks or a number of them, got {shown(tasks)}")
    return config.build(SequenceFile, given)


def _entry(index: int, item: Any) -> TaskEntry:
    try:
        if not isinstance(item, Mapping):
            raise ConfigError(f"must hold keys and values, got {shown(item)}")
        config.check_keys(TaskEntry, item)
        given = {key: value for key, value in item.items() if value is not None}
        for key in ("name", "value"):
            if key in given:
                given[key] = label_text(key, given[key])
        if "classes" in given:
            classes = given["classes"]
            if not isinstance(classes, Sequence) or isinstance(classes, str):
                raise ConfigError(f"classes must be a list of labels, got {shown(classes)}")
            given["classes"] = tuple(label_text("classes", one) for one in classes)
            if twice := next((one for one in given["classes"] if given["classes"].count(one) > 1), None):
                raise ConfigError(f"class {twice!r} is there twice")
        if isinstance(given.get("transform"), Mapping):
            config.check_keys(Transformation, given["transform"], "transform.")
        return config.build(TaskEntry, given)
    except ConfigError as error:
        raise ConfigError(f"task {index}: {error}") from None


def label_text(key: str, value: Any) -> str:
    """A label or a value of a column as text: whole numbers without a point.

    Raises:
        ConfigError: If it is neither text nor a number; YAML reads yes and no as true and false.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ConfigError(f"{key}: {shown(value)} is no label; put text that YAML reads as something else in quotes")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
