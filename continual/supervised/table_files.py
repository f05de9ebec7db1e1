"""Reading tables from files: `.npz`, `.mat`, `.csv`, and folders of IDX files.

Decides what a file of each kind must hold, and names what is wrong with one. Independent of how samples are split and
standardised.
"""

from __future__ import annotations

import csv
import io
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sparserl.continual.supervised.data import IDX_FILES, find_idx, read_pictures
from sparserl.errors import ConfigError, clipped, shown, unknown_name
from sparserl.layers.sparse_cnn import ImageShape
from sparserl.text_files import read_bytes, read_text

MOST_BYTES = 2**31
"""Of a file, and of what it holds unpacked."""
ARRAYS = ("x", "y", "x_test", "y_test")
LABEL_COLUMNS = ("label", "class", "y", "target")
"""Names of a CSV column that holds labels, in any case."""
DELIMITERS = ",;\t"


@dataclass(frozen=True, eq=False)
class FileContents:
    """What a file holds, as it stands there.

    Attributes:
        x: (N, F) features.
        y: (N,) or (N, 1) labels, numbers or text; None if there are none.
        x_test: (M, F) features of held-out samples, if the file has some.
        y_test: Their labels.
        feature_names: F names, if the file has some.
        scale: Brings the features to [0, 1] where their range is known.
        groups: (N,) or (N, 1) what the column that was asked for says of each sample.
        groups_test: Likewise of held-out samples.
        image: Channels, height and width of samples that are pictures.
    """

    x: npt.NDArray[Any]
    y: npt.NDArray[Any] | None
    x_test: npt.NDArray[Any] | None = None
    y_test: npt.NDArray[Any] | None = None
    feature_names: tuple[str, ...] | None = None
    scale: float = 1.0
    groups: npt.NDArray[Any] | None = None
    groups_test: npt.NDArray[Any] | None = None
    image: ImageShape | None = None


def read_npz(path: Path, labelled: bool, column: str | None = None) -> FileContents:
    """The arrays `x`, `y`, `x_test` and `y_test` of a file of NumPy; with a column, its array and `<column>_test` too.

    Raises:
        ConfigError: If it is no such file, or has no `x`, or an array of another name or of Python objects.
    """
    raw = read_bytes(path, MOST_BYTES)
    try:
        file = np.load(io.BytesIO(raw), allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile) or file.zip is None:
            raise ValueError("it holds one array without a name")
        with file:
            _check_size(path, sum(entry.file_size for entry in file.zip.infolist()))
            arrays = {name: _array_in(path, file, name) for name in file.files}
    except ConfigError:
        raise
    except (ValueError, OSError, EOFError, NotImplementedError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise ConfigError(f"{path} is no npz file that can be read: {error}") from None
    return of_arrays(path, arrays, column)


def _array_in(path: Path, file: np.lib.npyio.NpzFile, name: str) -> npt.NDArray[Any]:
    """An array of a file; raises ConfigError if it holds Python objects, which reading would have to run code for."""
    try:
        array: npt.NDArray[Any] = file[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        given = f"{path}: {name} holds Python objects"
        raise ConfigError(f"{given}; save numbers, e.g. {name}=np.array({name}, np.float32)") from None
    return array


def read_mat(path: Path, labelled: bool, column: str | None = None) -> FileContents:
    """The variables `X` and `Y` (any case) of a MATLAB file, as scikit-feature publishes its data; X may be sparse.

    A column is a variable as well, as in `read_npz`.

    Raises:
        ConfigError: If it is no such file, one of MATLAB 7.3 (HDF5), has no X, or another variable.
    """
    from scipy import io as matlab  # takes a quarter of a second, and only such a file needs it
    from scipy import sparse

    raw = read_bytes(path, MOST_BYTES)
    try:
        _check_size(path, sum(8 * math.prod(shape) for _, shape, _ in matlab.whosmat(io.BytesIO(raw))))
        variables = matlab.loadmat(io.BytesIO(raw))
    except ConfigError:
        raise
    except Exception as error:  # of a damaged file SciPy raises what its parser stumbles over
        raise ConfigError(f"{path} is no MATLAB file up to version 7 that can be read: {error}") from None
    named = {name: value for name, value in variables.items() if not name.startswith("__")}
    dense = {name: one.toarray() if sparse.issparse(one) else one for name, one in named.items()}
    return of_arrays(path, dense, column)


def _check_size(path: Path, unpacked: int) -> None:
    if unpacked > MOST_BYTES:
        raise ConfigError(f"{path} is too large: unpacked, it has more than {MOST_BYTES:,} bytes")


def of_arrays(where: object, arrays: Mapping[str, npt.NDArray[Any]], column: str | None = None) -> FileContents:
    """Arrays by name, in any case, as a table.

    Args:
        where: They are from.
        arrays: Those of `ARRAYS`, of which `x` must be there; with a column, its array and `<column>_test` too.
        column: That tells tasks apart, if there is one.

    Raises:
        ConfigError: If `x` is missing, or an array has another name.
    """
    by_name = {name.lower(): array for name, array in arrays.items()}
    own = () if column is None else (column.lower(), f"{column.lower()}_test")
    x, y, x_test, y_test = map(by_name.get, ARRAYS)
    if x is None:
        raise ConfigError(f"{where} has no array x of features; it has {clipped(', '.join(arrays)) or 'nothing'}")
    for name in arrays:
        if name.lower() not in (*ARRAYS, *own):
            raise ConfigError(f"{where}: {unknown_name('array', name, (*ARRAYS, *own))}")
    groups, groups_test = map(by_name.get, own) if own else (None, None)
    return FileContents(x, y, x_test, y_test, groups=groups, groups_test=groups_test)


def read_csv(path: Path, labelled: bool, column: str | None = None) -> FileContents:
    """A sample a line, values between commas, semicolons or tabs; the first line may name the columns.

    Labels stand in the column named `label`, `class`, `y` or `target`, else in the last one.

    Args:
        path: The file, text in UTF-8.
        labelled: Whether there must be labels; without, only a column of such a name is one of labels.
        column: That tells tasks apart, and is no feature; its values may be text.

    Raises:
        ConfigError: If a line has another number of values than the first, or a value that is missing or no number; the
            message names line and column. If there is no such column.
    """
    lines = _lines(path)
    first_line, first = next(lines, (0, []))
    if not first:
        raise ConfigError(f"{path} is empty")
    names = [name.strip() for name in first]
    marked = [column for column, name in enumerate(names) if name.lower() in LABEL_COLUMNS]
    has_header = bool(marked) or column is not None or not any(map(_is_number, first))
    if len(marked) > 1:
        both = " and ".join(repr(names[column]) for column in marked[:2])
        raise ConfigError(f"{path} has the columns {both}; only one can hold the labels")
    if column is not None and column not in names:
        raise ConfigError(f"{path}: {unknown_name('column', column, names)}")
    group_column = None if column is None else names.index(column)
    others = [index for index in range(len(first)) if index != group_column]
    label_column = marked[0] if marked else others[-1] if labelled and others else None
    kept = [index for index in others if index != label_column]
    if not kept:
        raise ConfigError(f"{path} has no column but that of the labels")
    shown_names = names if has_header else [str(index + 1) for index in range(len(first))]
    rows: list[npt.NDArray[np.float32]] = []
    labels: list[str] = []
    groups: list[str] = []
    for number, cells in lines if has_header else chain([(first_line, first)], lines):
        if len(cells) != len(first):
            raise ConfigError(f"{path} line {number} has {len(cells)} values instead of {len(first)}")
        rows.append(_numbers(path, number, cells, kept, shown_names))
        if label_column is not None:
            labels.append(cells[label_column].strip())
            if not labels[-1]:
                raise ConfigError(f"{path} line {number} has no label in column {shown_names[label_column]!r}")
        if group_column is not None:
            groups.append(cells[group_column].strip())
    if not rows:
        raise ConfigError(f"{path} has names of columns, but no samples")
    feature_names = tuple(names[index] for index in kept) if has_header else None
    y = None if label_column is None else np.array(labels)
    of_groups = None if group_column is None else np.array(groups)
    return FileContents(np.stack(rows), y, feature_names=feature_names, groups=of_groups)


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line number, values) of each line that is not blank."""
    text = read_text(path, MOST_BYTES).removeprefix("\ufeff")
    start = text[: text.find("\n")] if "\n" in text else text
    reader = csv.reader(io.StringIO(text), delimiter=max(DELIMITERS, key=start.count))
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, cells
    except csv.Error as error:
        raise ConfigError(f"{path} line {reader.line_num} cannot be read: {error}") from None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _numbers(
    path: Path, line: int, cells: Sequence[str], kept: Sequence[int], names: Sequence[str]
) -> npt.NDArray[np.float32]:
    """The features of a line."""
    values = [cells[column] for column in kept]
    try:
        with np.errstate(over="ignore"):
            row = np.array(values, np.float64).astype(np.float32)
    except ValueError:
        bad = next(index for index, value in enumerate(values) if not _is_number(value))
        said = f"is {shown(values[bad])}, no number" if values[bad].strip() else "is missing"
        if len(kept) == len(cells) and values[bad].strip():
            said += f"; a column of labels is named {', '.join(LABEL_COLUMNS[:-1])} or {LABEL_COLUMNS[-1]}"
        raise ConfigError(f"{path} line {line}: column {names[kept[bad]]!r} {said}") from None
    if (wrong := np.flatnonzero(~np.isfinite(row))).size:
        column = kept[wrong[0]]
        raise ConfigError(f"{path} line {line}: column {names[column]!r} is {shown(cells[column])}, not finite")
    return row


def read_idx_folder(folder: Path, labelled: bool) -> FileContents:
    """The pictures and labels of the four files that MNIST consists of, of any size and number of classes.

    Raises:
        ConfigError: If one is missing or wrong, or the pictures for testing have another size.
    """
    paths = [find_idx(folder, name) for name in IDX_FILES]
    for name, path in zip(IDX_FILES, paths, strict=True):
        if path is None:
            raise ConfigError(
                f"no {name} in {folder}, packed with .gz or not; such a folder has {', '.join(IDX_FILES)}"
            )
    train, test = (read_pictures(*pair) for pair in (paths[:2], paths[2:]))  # type: ignore[arg-type]  # none is None
    return FileContents(train.features, train.labels, test.features, test.labels, scale=1 / 255, image=train.image)


READERS: dict[str, Callable[[Path, bool, str | None], FileContents]] = {
    ".npz": read_npz,
    ".mat": read_mat,
    ".csv": read_csv,
}
"""(file, whether there must be labels, column that tells tasks apart) -> contents, by the end of a file's name."""
