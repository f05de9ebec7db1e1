"""Tables of samples, and the sequence of one task that is made of one.

Decides where a table comes from, what a good one is, how it is split and standardised. Independent of what learns it.

Source:
    Guyon 2003 (Madelon), by scikit-learn's `make_classification`; splits and scalers are scikit-learn's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from sparserl.continual.named_objects import is_named_object
from sparserl.continual.supervised import data_functions
from sparserl.continual.supervised.data import DATASETS, default_data_dir, load
from sparserl.continual.supervised.splits import Features, Scaling, row_chunks, sklearn_seed, split_rows, standard
from sparserl.continual.supervised.table_files import READERS, FileContents, read_idx_folder
from sparserl.continual.supervised.tasks import Integers, Samples, Task, TaskSequence
from sparserl.errors import ConfigError, shown, unknown_name
from sparserl.layers.sparse_cnn import ImageShape

BUNDLED = ("breast_cancer", "iris", "wine")
"""Tables that scikit-learn brings along, by the end of the name of their loader."""
MADELON = re.compile(r"madelon:(\d{1,12})x(\d{1,12})")
INFORMATIVE, REDUNDANT, CLUSTERS = 5, 15, 16
"""Of Madelon: features, linear combinations of them, and clusters of a class."""
MOST_ENTRIES = 2**29
"""Samples times features."""
TEST_SHARE = 0.2
"""Held out where a table has no test samples of its own."""


@dataclass(frozen=True, eq=False)
class Table:
    """Samples in memory.

    Attributes:
        name: What it was asked for by, or the name of its file.
        x: (N, F) features, finite.
        y: (N,) class of each sample, an index into `classes`; None if it has no labels.
        classes: Names of the classes, numbers in order; at least two, or none.
        x_test: (M, F) its own held-out samples, if it has some.
        y_test: (M,) their classes.
        feature_names: F names, if they have some.
        relevant: Columns that the class depends on, where that is known.
        scale: Brings features to [0, 1] where their range is known; 1 otherwise.
        groups: (N,) what a column that tells tasks apart says of each sample, as text, if it was asked for.
        groups_test: (M,) likewise of its own held-out samples.
        image: Channels, height and width of a sample that is a picture.
    """

    name: str
    x: Features
    y: Integers | None
    classes: tuple[str, ...] = ()
    x_test: Features | None = None
    y_test: Integers | None = None
    feature_names: tuple[str, ...] | None = None
    relevant: Integers | None = None
    scale: float = 1.0
    groups: npt.NDArray[np.str_] | None = None
    groups_test: npt.NDArray[np.str_] | None = None
    image: ImageShape | None = None


def read_table(
    data: str,
    data_dir: Path | None = None,
    *,
    seed: int,
    download: bool = False,
    labelled: bool = True,
    column: str | None = None,
) -> Table:
    """Reads or generates a table.

    Args:
        data: A name in `DATASETS` or `BUNDLED`; `madelon:<samples>x<features>`; a file `.npz`, `.mat`, `.csv` or a
            folder of IDX files, looked for here and then in the data folder; or `module:function`, whose code is run,
            as `data_functions.call` has it.
        data_dir: The data folder; None for `default_data_dir()`.
        seed: Root seed, >= 0, of what is generated.
        download: Fetches missing files of `DATASETS` first; nothing else is ever fetched.
        labelled: Whether labels are needed.
        column: Of a file or function, that tells tasks apart; it is no feature.

    Raises:
        ConfigError: If there is no such table, or it is empty, has values that are not finite numbers, no labels where
            they are needed, a single class, or no such column.
    """
    table = _read(data, data_dir, seed, download, labelled, column)
    if column is not None and table.groups is None:
        raise ConfigError(f"{table.name} has no column {shown(column)}; a file .npz, .mat, .csv or a function has")
    return table


def is_named(data: str) -> bool:
    """Whether data is a name, and so no file of that name."""
    return data in DATASETS or data in BUNDLED or data.partition(":")[0] == "madelon"


def _read(data: str, data_dir: Path | None, seed: int, download: bool, labelled: bool, column: str | None) -> Table:
    if data in DATASETS:
        found = load(data, data_dir, download)
        contents = FileContents(*_arrays(found.train), *_arrays(found.test), scale=found.scale, image=found.image)
        return table_of(data, contents, labelled)
    if data in BUNDLED:
        return _bundled(data)
    if data.partition(":")[0] == "madelon":
        return _madelon(data, seed)
    if is_named_object(data):
        return table_of(data, data_functions.call(data, column), labelled)
    path = _located(data, default_data_dir() if data_dir is None else data_dir)
    if path.is_dir():
        return table_of(path.name, read_idx_folder(path, labelled), labelled)
    if (reader := READERS.get(path.suffix.lower())) is None:
        raise ConfigError(f"{path} is no table that can be read: a name must end in {', '.join(READERS)}")
    return table_of(path.name, reader(path, labelled, column), labelled)


def _arrays(part: Any) -> tuple[npt.NDArray[np.uint8], Integers]:
    return part.features, part.labels


def _located(data: str, data_dir: Path) -> Path:
    """Where a file or folder is."""
    for path in (Path(data).expanduser(), data_dir / data, data_dir / Path(data).name):
        if "\0" not in data and path.exists():
            return path
    if "/" in data or Path(data).suffix.lower() in READERS:
        raise ConfigError(f"no file or folder {shown(data)}, neither here nor in {data_dir}")
    raise ConfigError(unknown_name("data", data, [*DATASETS, *BUNDLED, "madelon:2000x500"]))


def _bundled(name: str) -> Table:
    from sklearn import datasets  # takes a second

    found = getattr(datasets, f"load_{name}")()
    x, names = found.data.astype(np.float32), tuple(map(str, found.feature_names))
    return Table(name, x, found.target.astype(np.int64), tuple(map(str, found.target_names)), feature_names=names)


def _madelon(data: str, seed: int) -> Table:
    """Two classes of 16 clusters at corners of a cube of 5 dimensions; the 20 relevant features come first."""
    fit = MADELON.fullmatch(data)
    if fit is None:
        raise ConfigError(f"{shown(data)} must say samples and features, as in madelon:2000x500")
    samples, features = map(int, fit.groups())
    relevant = INFORMATIVE + REDUNDANT
    if samples < 2 * CLUSTERS or features < relevant:
        least = f"at least {2 * CLUSTERS} samples and {relevant} features"
        raise ConfigError(f"{data}: it must have {least}, as in madelon:{2 * CLUSTERS}x{relevant}")
    _check_entries(data, samples, features)
    from sklearn.datasets import make_classification

    x, y = make_classification(
        samples,
        features,
        n_informative=INFORMATIVE,
        n_redundant=REDUNDANT,
        n_clusters_per_class=CLUSTERS,
        flip_y=0.01,
        shuffle=False,
        random_state=sklearn_seed(seed, "madelon"),
    )
    return Table(data, x.astype(np.float32), y.astype(np.int64), ("0", "1"), relevant=np.arange(relevant))


def _check_entries(name: str, samples: int, features: int) -> None:
    if samples * features > MOST_ENTRIES:
        raise ConfigError(f"{name} is too large: {samples:,} x {features:,} is above {MOST_ENTRIES:,} values")


def table_of(name: str, found: FileContents, labelled: bool) -> Table:
    """A table of what a file holds, checked.

    Raises:
        ConfigError: As `read_table`.
    """
    x = _features(name, "x", found.x)
    x_test = None if found.x_test is None else _features(name, "x_test", found.x_test)
    if x_test is not None and x_test.shape[1] != x.shape[1]:
        raise ConfigError(f"{name} has {x.shape[1]} features in x, but {x_test.shape[1]} in x_test")
    if found.y is None and (labelled or found.y_test is not None):
        raise ConfigError(f"{name} has no labels: an array y is missing")
    if (found.x_test is None) != (found.y_test is None) and found.y is not None:
        have, lack = ("y_test", "x_test") if found.x_test is None else ("x_test", "y_test")
        raise ConfigError(f"{name} has an array {have}, but no {lack}")
    rest: dict[str, Any] = {"x_test": x_test, "feature_names": found.feature_names, "scale": found.scale}
    if found.groups is not None:
        rest["groups"] = as_text(_of_samples(name, "the column", found.groups, len(x)))
        if x_test is not None and found.groups_test is not None:
            rest["groups_test"] = as_text(_of_samples(name, "the column of x_test", found.groups_test, len(x_test)))
    rest["image"] = found.image
    if found.y is None:
        return Table(name, x, None, **rest)
    labels = _labels(name, "y", found.y, len(x))
    values, y = np.unique(labels, return_inverse=True)
    if values.size == 1:
        raise ConfigError(f"{name} has a single class, {shown(str(values[0]))}; there must be at least two")
    y_test = None
    if x_test is not None and found.y_test is not None:
        test_labels = _labels(name, "y_test", found.y_test, len(x_test))
        if (unknown := np.flatnonzero(~np.isin(test_labels, values))).size:
            raise ConfigError(f"{name} has the label {shown(str(test_labels[unknown[0]]))} in y_test, but not in y")
        y_test = np.searchsorted(values, test_labels).astype(np.int64)
    return Table(name, x, y.astype(np.int64), tuple(map(str, values)), y_test=y_test, **rest)


def _features(name: str, array: str, x: npt.NDArray[Any]) -> Features:
    """Features as they are kept: uint8 as they are, others as float32."""
    if x.ndim != 2:
        raise ConfigError(
            f"{array} of {name} must have a row for each sample and a column for each feature, got {x.ndim}-d"
        )
    if x.dtype.kind not in "buif":
        raise ConfigError(f"{array} of {name} must hold numbers, got {x.dtype}")
    if not x.size:
        raise ConfigError(f"{array} of {name} is empty: {x.shape[0]} samples of {x.shape[1]} features")
    _check_entries(name, *x.shape)
    if x.dtype == np.uint8:
        return x
    with np.errstate(over="ignore"):
        kept = x.astype(np.float32)
    for rows in row_chunks(np.arange(len(x)), x.shape[1]):
        if (bad := np.argwhere(~np.isfinite(kept[rows]))).size:
            row, column = int(rows[bad[0, 0]]), int(bad[0, 1])
            raise ConfigError(f"{array} of {name} is {x[row, column]} in row {row}, column {column}, counted from 0")
    return kept


def _labels(name: str, array: str, y: npt.NDArray[Any], samples: int) -> npt.NDArray[Any]:
    """Labels as integers, or as text where they are not numbers."""
    y = _of_samples(name, array, y, samples)
    if y.dtype.kind == "O" and all(isinstance(label, str | int | np.integer) for label in y):  # as pandas has text
        y = y.astype(np.str_)
    if y.dtype.kind == "U":
        try:
            y = y.astype(np.float64)
        except ValueError:
            return y
    if y.dtype.kind not in "buif":
        raise ConfigError(f"{array} of {name} must hold whole numbers or text, got {y.dtype}")
    if (bad := np.flatnonzero(~(np.isfinite(y) & (y == np.round(y)) & (np.abs(y) < 2.0**53)))).size:
        raise ConfigError(
            f"{array} of {name} is {y[bad[0]]} in row {bad[0]}, counted from 0; a label is a whole number"
        )
    return y.astype(np.int64)


def _of_samples(name: str, array: str, values: npt.NDArray[Any], samples: int) -> npt.NDArray[Any]:
    if values.shape not in ((samples,), (samples, 1), (1, samples)):
        needed = f"a {'label' if array.startswith('y') else 'value'} for each of {samples} samples"
        raise ConfigError(f"{array} of {name} must hold {needed}, got shape {values.shape}")
    return values.reshape(samples)


def as_text(values: npt.NDArray[Any]) -> npt.NDArray[np.str_]:
    """Values as text, whole numbers without a point, however they are stored.

    Example:
        >>> as_text(np.array([1.0, 2.5])).tolist(), as_text(np.array(["a", "2.0"])).tolist()
        (['1', '2.5'], ['a', '2.0'])
        >>> as_text(np.array(["1.0", "2"])).tolist()
        ['1', '2']
    """
    if values.dtype.kind in "UO":
        try:
            values = values.astype(np.float64)
        except (ValueError, TypeError):
            return values.astype(np.str_)
    if values.dtype.kind == "f":
        is_whole = np.isfinite(values) & (values == np.round(values)) & (np.abs(values) < 2.0**53)
        return np.array([str(int(one)) if whole else str(one) for one, whole in zip(values, is_whole, strict=True)])
    return values.astype(np.str_)


def table_sequence(
    table: Table,
    *,
    scaling: Scaling = "each_feature",
    test_share: float | None = None,
    validation_share: float = 0.0,
    seed: int,
) -> TaskSequence:
    """The sequence of one task that a table is: all its classes at once, split and standardised.

    Args:
        table: The table; without labels, all samples are of one class.
        scaling: By mean and standard deviation of the training samples, those of each feature or of all of them; to
            [0, 1] by the smallest and largest value of each; or not. A feature that is constant in the training samples
            is 0 everywhere, unless all share one deviation or nothing is scaled.
        test_share: Share of the samples in [0, 1) that are for testing, each class alike; None for a fifth, or for the
            table's own test samples.
        validation_share: Share in [0, 1) of the training samples that are held out to choose by.
        seed: Root seed of the splits, >= 0; both have streams of their own.

    Raises:
        ConfigError: If a name or share is not valid, a share is given beside the table's own test samples, or a class
            has too few samples for a split.
    """
    if scaling not in get_args(Scaling):
        raise ConfigError(unknown_name("scaling", scaling, get_args(Scaling)))
    if table.x_test is not None and test_share is not None:
        raise ConfigError(f"{table.name} has its own test samples; leave out the test share {test_share}")
    test_share = TEST_SHARE if test_share is None else test_share
    if not 0.0 <= test_share < 1.0:
        raise ConfigError(f"the test share must be in [0, 1), got {test_share}")
    if not 0.0 <= validation_share < 1.0:
        raise ConfigError(f"the validation share must be in [0, 1), got {validation_share}")
    labels = np.zeros(len(table.x), np.int64) if table.y is None else table.y
    names = table.classes or ("all",)
    train, test, validation = np.arange(len(labels)), np.empty(0, np.int64), None
    if table.x_test is None and test_share:
        train, test = split_rows(table.name, names, labels, train, test_share, "test", seed)
    if validation_share:
        train, validation = split_rows(table.name, names, labels, train, validation_share, "validation", seed)
    mean, std = standard([(table.x, train, table.scale)], scaling)

    def samples(x: Features, rows: Integers, of: Integers) -> Samples:
        return Samples(x, rows, of[rows], mean, std, table.scale)

    if table.x_test is None:
        held_out = samples(table.x, test, labels)
    else:
        own = np.zeros(len(table.x_test), np.int64) if table.y_test is None else table.y_test
        held_out = samples(table.x_test, np.arange(len(own)), own)
    units = tuple(range(len(names)))
    task = Task(
        0,
        table.name,
        units,
        units,
        samples(table.x, train, labels),
        held_out,
        None if validation is None else samples(table.x, validation, labels),
    )
    record = {
        "dataset": table.name,
        "n_tasks": 1,
        "class_order": list(units),
        "class_names": list(table.classes),
        "train_samples": [len(task.train)],
        "validation_samples": [0 if task.validation is None else len(task.validation)],
        "test_samples": [len(task.test)],
        "scaling": scaling,
        **({} if table.relevant is None else {"relevant_features": table.relevant.tolist()}),
    }
    about: dict[str, Any] = {"feature_names": table.feature_names, "image": table.image}
    return TaskSequence(table.name, "class", (task,), table.x.shape[1], len(names), record, **about)
