"""Tasks of a user's tables: by classes, by a column, by transformations, or by tables of their own.

Decides which samples a task has, and which output units its classes get. Independent of files and learners.
"""

from __future__ import annotations

import math
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sparserl.continual.supervised.sequence_files import SequenceFile, TaskEntry
from sparserl.continual.supervised.sequences import CLASS_ORDERS, ClassOrder, classes_of_splits
from sparserl.continual.supervised.splits import Part, split_rows, standard
from sparserl.continual.supervised.tables import TEST_SHARE, Table
from sparserl.continual.supervised.tasks import Integers, Samples, Scenario, Task, TaskSequence
from sparserl.continual.supervised.transformations import Stored, order_of, transformed
from sparserl.errors import ConfigError, clipped, unknown_name
from sparserl.layers.sparse_cnn import ImageShape
from sparserl.seeding import stream

Tables = Mapping[str, Table]
"""By what they are called in a file."""


@dataclass(frozen=True, eq=False)
class _Half:
    """The training samples of a task, or those for testing, before they are standardised.

    Attributes:
        stored: Features of a whole table, or of these samples alone where they were transformed.
        rows: (n,) which of them.
        classes: (n,) class of each of the n, an index into the classes of all tables.
    """

    stored: Stored
    rows: Integers
    classes: Integers


@dataclass(frozen=True, eq=False)
class _Drawn:
    """A task before its classes have output units."""

    entry: TaskEntry
    name: str
    train: _Half
    test: _Half
    classes: tuple[int, ...]

    @property
    def halves(self) -> tuple[_Half, _Half]:
        """For training and for testing."""
        return self.train, self.test


def own_sequence(
    file: SequenceFile,
    tables: Tables,
    scenario: Scenario | None = None,
    *,
    seed: int,
    class_order: ClassOrder = "fixed",
) -> TaskSequence:
    """The tasks of a sequence file.

    Output units: in the class and task scenarios each class has one; if tasks have classes in common, as those by a
    column or by transformations do, each task has new ones. In the domain scenario tasks share them: those of the same
    class, or if tasks have no class in common, those of the same place in their tasks.

    Args:
        file: What it says.
        tables: Those that it names, read with its column.
        scenario: None for the usual one of the file.
        seed: Root seed, >= 0: splits, noise, permutations and orders of classes come from it.
        class_order: Of a number of tasks: that of the table, or drawn from the seed.

    Raises:
        ConfigError: If tables do not go together, a class or value is unknown, a class of the same samples is in two
            tasks, or a task has no samples.
    """
    scenario = file.usual_scenario if scenario is None else scenario
    if class_order != "fixed" and not isinstance(file.tasks, int):
        raise ConfigError(f"class order {class_order!r} is for a number of tasks; {file.name} names its tasks itself")
    names = _class_names(tables)
    _check_features(file, tables)
    halves = {data: _Split(data, table, names, file, seed) for data, table in tables.items()}
    entries = _entries(file, halves, names, class_order, seed)
    drawn = [_drawn(index, entry, halves, names, file, seed) for index, entry in enumerate(entries)]
    _check_apart(drawn, names, file.data)
    units = _units(drawn, scenario)
    n_features = next(iter(tables.values())).x.shape[1]
    image = _image(file, tables, n_features)
    orders = [order_of(one.entry.transform, index, n_features, seed) for index, one in enumerate(drawn)]
    mean, std = standard(_parts(drawn), file.scaling)

    def samples(half: _Half, of: Mapping[int, int], order: Integers | None) -> Samples:
        unit_of = np.full(len(names), -1)
        unit_of[list(of)] = list(of.values())
        return Samples(half.stored.x, half.rows, unit_of[half.classes], mean, std, half.stored.scale, order)

    tasks = tuple(
        Task(index, one.name, one.classes, tuple(of.values()), *(samples(half, of, order) for half in one.halves))
        for index, (one, of, order) in enumerate(zip(drawn, units, orders, strict=True))
    )
    record = {
        "dataset": ", ".join(table.name for table in tables.values()),
        "n_tasks": len(tasks),
        "class_order": list(dict.fromkeys(label for task in tasks for label in task.classes)),
        "class_names": names,
        "train_samples": [len(task.train) for task in tasks],
        "test_samples": [len(task.test) for task in tasks],
        "permutations": [None if order is None else f"{zlib.crc32(order.tobytes()):08x}" for order in orders],
    }
    n_outputs = 1 + max(unit for task in tasks for unit in task.outputs)
    feature_names = next(iter(tables.values())).feature_names
    return TaskSequence(file.name, scenario, tasks, n_features, n_outputs, record, feature_names, image)


def _class_names(tables: Tables) -> list[str]:
    """Labels of all tables, numbers in order."""
    return _in_order({name for table in tables.values() for name in table.classes})


def _in_order(names: Iterable[str]) -> list[str]:
    """Numbers by their values, unless some are none."""
    names = list(names)
    try:
        return sorted(names, key=float)
    except ValueError:
        return sorted(names)


def _check_features(file: SequenceFile, tables: Tables) -> None:
    """Raises ConfigError if tables have different features; says which tasks."""
    first = next(iter(tables))
    for data, table in tables.items():
        sizes = tables[first].x.shape[1], table.x.shape[1]
        if sizes[0] != sizes[1]:
            of = [entry.data or file.data for entry in file.entries]
            which = f"tasks {of.index(first)} and {of.index(data)}" if {first, data} <= set(of) else "tables"
            both = f"{sizes[0]} ({tables[first].name}) and {sizes[1]} ({table.name})"
            raise ConfigError(f"{which} differ in features: {both}; one network needs the same in all tasks")


class _Split:
    """A table with its samples split for training and testing, and their classes among those of all tables.

    Attributes:
        table: As it was read.
        data: What it is called in the file.
    """

    def __init__(self, data: str, table: Table, names: Sequence[str], file: SequenceFile, seed: int):
        assert table.y is not None
        self.data, self.table = data, table
        of_all = np.array([names.index(name) for name in table.classes])
        stored = Stored(table.x, table.scale)
        rows = np.arange(len(table.y))
        if table.x_test is None:
            share = TEST_SHARE if file.test_share is None else file.test_share
            train, test = self._rows_of_both(rows, share, seed)
            self.halves = {
                "training": (stored, train, of_all[table.y[train]], _at(table.groups, train)),
                "test": (stored, test, of_all[table.y[test]], _at(table.groups, test)),
            }
            return
        if file.test_share is not None:
            raise ConfigError(f"{table.name} has its own test samples; leave out test_share {file.test_share}")
        assert table.y_test is not None
        if table.groups is not None and table.groups_test is None:
            raise ConfigError(f"{table.name} has the column {file.column!r} in x, but not in x_test")
        own = np.arange(len(table.y_test))
        self.halves = {
            "training": (stored, rows, of_all[table.y], table.groups),
            "test": (Stored(table.x_test, table.scale), own, of_all[table.y_test], table.groups_test),
        }

    def _rows_of_both(self, rows: Integers, share: float, seed: int) -> tuple[Integers, Integers]:
        """Rows for training and for testing, each class of each value of the column alike."""
        table = self.table
        assert table.y is not None
        if table.groups is None:
            return split_rows(table.name, table.classes, table.y, rows, share, "test", seed)
        values, of_sample = np.unique(table.groups, return_inverse=True)
        pairs, kind = np.unique(of_sample * len(table.classes) + table.y, return_inverse=True)
        said = [f"{table.classes[pair % len(table.classes)]} ({values[pair // len(table.classes)]})" for pair in pairs]
        return split_rows(table.name, said, kind, rows, share, "test", seed)

    @property
    def values(self) -> list[str]:
        """Of its column, numbers in order."""
        return [] if self.table.groups is None else _in_order(np.unique(self.table.groups).tolist())


def _at(groups: npt.NDArray[np.str_] | None, rows: Integers) -> npt.NDArray[np.str_] | None:
    return None if groups is None else groups[rows]


def _entries(
    file: SequenceFile, halves: Mapping[str, _Split], names: Sequence[str], class_order: ClassOrder, seed: int
) -> Sequence[TaskEntry]:
    """The tasks, also where the file says how many, or by which column."""
    if file.entries:
        return file.entries
    if isinstance(file.tasks, int):
        order = CLASS_ORDERS[class_order](len(names), seed)
        return [TaskEntry(classes=tuple(names[one] for one in own)) for own in classes_of_splits(order, file.tasks)]
    assert file.data is not None
    return [TaskEntry(value=value) for value in halves[file.data].values]


def _drawn(
    index: int, entry: TaskEntry, halves: Mapping[str, _Split], names: Sequence[str], file: SequenceFile, seed: int
) -> _Drawn:
    data = entry.data or file.data
    assert data is not None
    split = halves[data]
    table = split.table
    for name in entry.classes:
        if name not in table.classes:
            raise ConfigError(f"task {index}: {unknown_name(f'class of {table.name}', name, table.classes)}")
    if entry.value is not None and entry.value not in split.values:
        said = unknown_name(f"value of column {file.column!r}", entry.value, split.values)
        raise ConfigError(f"task {index}: {said}")
    wanted = [names.index(name) for name in entry.classes]
    found = {part: _half(index, part, entry, split, wanted, file, seed) for part in split.halves}
    classes = tuple(wanted) or tuple(np.unique(found["training"].classes).tolist())
    name = entry.name or _called(entry, table, split.data == file.data)
    who = f"task {index} ({clipped(name)})"
    for part, half in found.items():
        missing = [names[one] for one in classes if one not in half.classes]
        if missing and (part == "training" or entry.classes or not half.rows.size):
            which = f"none of class {missing[0]!r}" if half.rows.size else "none at all"
            raise ConfigError(f"{who} has no {part} samples: {which} in {table.name}")
    extra = [names[one] for one in np.unique(found["test"].classes) if one not in classes]
    if extra:
        raise ConfigError(f"{who} has test samples of class {extra[0]!r}, but none to learn from")
    return _Drawn(entry, name, found["training"], found["test"], classes)


def _half(
    index: int, part: str, entry: TaskEntry, split: _Split, wanted: Sequence[int], file: SequenceFile, seed: int
) -> _Half:
    stored, rows, classes, groups = split.halves[part]
    keep = np.ones(len(rows), bool)
    if wanted:
        keep &= np.isin(classes, wanted)
    if entry.value is not None and groups is not None:
        keep &= groups == entry.value
    rows, classes = rows[keep], classes[keep]
    if not rows.size or not replace(entry.transform, permute=False).said:
        return _Half(stored, rows, classes)
    own = Stored(stored.x[rows], stored.scale)
    rng = stream(seed, "noise", str(index), part)
    try:
        changed = transformed(own, entry.transform, file.shape or split.table.image, rng)
    except ConfigError as error:
        raise ConfigError(f"task {index}: {error}") from None
    return _Half(changed, np.arange(len(rows)), classes)


def _image(file: SequenceFile, tables: Tables, n_features: int) -> ImageShape | None:
    """Channels, height and width of all samples; None where they are not known.

    Raises:
        ConfigError: If that is not as many features as there are.
    """
    shapes = {(1, *file.shape)[-3:]} if file.shape else {table.image for table in tables.values()}
    image = shapes.pop() if len(shapes) == 1 else None
    if image is not None and math.prod(image) != n_features:
        raise ConfigError(f"shape {list(file.shape)} is not that of {n_features} features")
    return image  # type: ignore[return-value]  # of three, as the file has checked


def _called(entry: TaskEntry, table: Table, shares_table: bool) -> str:
    said = [
        "" if shares_table else table.name,
        f"classes {' '.join(entry.classes)}" if entry.classes else "",
        entry.value or "",
        entry.transform.said,
    ]
    return clipped(", ".join(filter(None, said))) or table.name


def _check_apart(drawn: Sequence[_Drawn], names: Sequence[str], data: str | None) -> None:
    """Raises ConfigError if a class of the same samples is in two tasks; `data` is of those that name no table."""
    seen: dict[Any, list[tuple[int, str | None]]] = defaultdict(list)
    for index, one in enumerate(drawn):
        value = one.entry.value
        for label in one.classes:
            alike = seen[one.entry.data or data, one.entry.transform.done(index), label]
            for first, other in alike:
                if value == other or None in (value, other):
                    raise ConfigError(
                        f"class {names[label]!r} is in tasks {first} and {index}, with the same samples: leave it out "
                        "of one, or transform them"
                    )
            alike.append((index, value))


def _units(drawn: Sequence[_Drawn], scenario: Scenario) -> list[dict[int, int]]:
    """Class -> output unit, of each task."""
    counts: dict[int, int] = defaultdict(int)
    for one in drawn:
        for label in one.classes:
            counts[label] += 1
    are_apart = max(counts.values()) == 1
    of_all = {label: unit for unit, label in enumerate(sorted(counts))}
    if scenario == "domain" and are_apart and len(drawn) > 1:
        return [{label: place for place, label in enumerate(one.classes)} for one in drawn]
    if scenario == "domain" or are_apart:
        return [{label: of_all[label] for label in one.classes} for one in drawn]
    ends = np.cumsum([len(one.classes) for one in drawn])
    firsts = [int(end) - len(one.classes) for end, one in zip(ends, drawn, strict=True)]
    return [
        {label: first + place for place, label in enumerate(one.classes)}
        for first, one in zip(firsts, drawn, strict=True)
    ]


def _parts(drawn: Sequence[_Drawn]) -> list[Part]:
    """The training samples of all tasks; of those that share an array, each sample once."""
    rows: dict[int, list[Integers]] = defaultdict(list)
    stored: dict[int, Stored] = {}
    for one in drawn:
        array = one.train.stored
        stored[id(array.x)] = array
        rows[id(array.x)].append(one.train.rows)
    return [(array.x, np.unique(np.concatenate(rows[key])), array.scale) for key, array in stored.items()]
