"""Data that a function of a user returns: arrays, or data sets of torch and Hugging Face.

Decides what such a function may return. Importing its module runs the code in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from sparserl.continual.named_objects import imported
from sparserl.continual.supervised.table_files import ARRAYS, LABEL_COLUMNS, FileContents, of_arrays
from sparserl.errors import ConfigError, clipped, one_line, shown, unknown_name

PARTS = ("train", "test")
"""Keys of a mapping of data sets."""


def call(data: str, column: str | None) -> FileContents:
    """What the function `module:function` returns.

    It takes no arguments and returns a mapping of arrays (`x`, `y`, and if wanted `x_test`, `y_test`), a tuple of two
    or four of them in this order, a data set, or a mapping of data sets `train` and `test`. A data set has a length and
    samples by index: pairs of features and label, as torch has them, or mappings, as those of Hugging Face, whose label
    is called `label`, `class`, `y` or `target`; all other values but the column are features. Features of any shape
    become one row.

    Args:
        data: `module:function`.
        column: That tells tasks apart: an array (of held-out samples `<column>_test`), or a key of samples.

    Raises:
        ConfigError: If it cannot be imported or fails, or returns something else.
    """
    function = imported(data, "data")
    try:
        found = function()
    except Exception as error:  # whatever its code does
        raise ConfigError(f"data {data!r} failed: {one_line(f'{type(error).__name__}: {error}')}") from error
    if isinstance(found, tuple) and len(found) in (2, 4):
        found = dict(zip(ARRAYS, found, strict=False))
    if isinstance(found, Mapping) and "x" in {str(name).lower() for name in found}:
        arrays = {str(name): _array(f"{name} of {data}", one) for name, one in found.items()}
        return of_arrays(data, {name: _rows(name, one) for name, one in arrays.items()}, column)
    if isinstance(found, Mapping) and "train" in found:
        unknown = next((name for name in found if name not in PARTS), None)
        if unknown is not None:
            raise ConfigError(f"{data}: {unknown_name('data set', str(unknown), PARTS)}")
        parts = [_samples(data, found[name], column) for name in PARTS if name in found]
    elif hasattr(found, "__len__") and hasattr(found, "__getitem__") and not isinstance(found, Mapping | str):
        parts = [_samples(data, found, column)]
    else:
        expected = "arrays x and y, a data set, or data sets train and test"
        raise ConfigError(f"data {data!r} must return {expected}, got {clipped(shown(found))}")
    (x, y, groups), (x_test, y_test, groups_test) = parts[0], parts[1] if len(parts) > 1 else (None, None, None)
    return FileContents(x, y, x_test, y_test, groups=groups, groups_test=groups_test)


Arrays = tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any] | None]


def _rows(name: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Features of a sample in one row, whatever their shape."""
    is_features = name.lower() in ("x", "x_test") and array.ndim > 2
    return array.reshape(len(array), -1) if is_features else array


def _array(what: str, found: Any) -> npt.NDArray[Any]:
    try:
        return np.asarray(found)
    except (TypeError, ValueError) as error:  # rows of different lengths, for one
        raise ConfigError(f"{what} is no array: {one_line(str(error))}") from None


def _label(what: str, found: Any) -> Any:
    label = _array(what, found)
    if label.size != 1:
        raise ConfigError(f"{what} must be one number or text, got an array of shape {label.shape}")
    return label.item()


def _samples(data: str, samples: Any, column: str | None) -> Arrays:
    """Features, labels, and values of the column of all samples of a data set."""
    rows: list[npt.NDArray[Any]] = []
    labels, groups = [], []
    for index in range(len(samples)):
        try:
            sample = samples[index]
        except Exception as error:  # whatever its code does
            problem = one_line(f"{type(error).__name__}: {error}")
            raise ConfigError(
                f"{data}: samples are taken by their numbers, and number {index} fails: {problem}"
            ) from error
        of_sample = f"of sample {index} of {data}"
        if isinstance(sample, Mapping):
            keys = [name for name in sample if name in LABEL_COLUMNS]
            if len(keys) != 1:
                names = ", ".join(map(str, sample))
                raise ConfigError(f"{data}: a sample needs one of {', '.join(LABEL_COLUMNS)}; it has {clipped(names)}")
            if column is not None:
                if column not in sample:
                    raise ConfigError(f"{data}: {unknown_name('column', column, map(str, sample))}")
                groups.append(sample[column])
            own = [
                np.ravel(_array(f"a feature {of_sample}", one))
                for name, one in sample.items()
                if name not in (*keys, column)
            ]
            row, label = own[0] if len(own) == 1 else np.concatenate(own), sample[keys[0]]
        elif isinstance(sample, tuple | list) and len(sample) == 2:
            row, label = np.ravel(_array(f"a feature {of_sample}", sample[0])), sample[1]
        else:
            raise ConfigError(f"{data}: a sample must be features and label, got {clipped(shown(sample))}")
        if rows and row.shape != rows[0].shape:
            raise ConfigError(f"{data}: sample {index} has {row.size} features, and sample 0 has {rows[0].size}")
        rows.append(row)
        labels.append(_label(f"the label {of_sample}", label))
    if not rows:
        raise ConfigError(f"{data} has no samples")
    return np.stack(rows), np.array(labels), np.array(groups) if groups else None
