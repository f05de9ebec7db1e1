"""Reads the CSV logs of a run."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sparserl.errors import ConfigError

FloatArray = npt.NDArray[np.float64]
Curve = tuple[FloatArray, FloatArray]
"""x, increasing, and y."""
Columns = Mapping[str, FloatArray]
"""Numeric columns of a log, or of the rows that it has of one layer."""


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file, as text; cells that the last row lacks, because it is still being written, are empty.

    Raises:
        ConfigError: If the file is missing or has no rows.
    """
    rows = rows_so_far(path)
    if not rows:
        raise ConfigError(f"{path} has no rows yet")
    return rows


def rows_so_far(path: Path) -> list[dict[str, str]]:
    """As `read_rows`, of a file that may have none.

    Raises:
        ConfigError: If the file is missing.
    """
    if not path.is_file():
        raise ConfigError(f"{path} is missing")
    with path.open(newline="") as file:
        return list(csv.DictReader(file, restval=""))


def read_columns(path: Path) -> dict[str, FloatArray]:
    """Numeric columns of a CSV file; an empty or non-numeric cell is NaN.

    Raises:
        ConfigError: If the file is missing or has no rows.
    """
    return numeric_columns(read_rows(path))


def numeric_columns(rows: Sequence[Mapping[str, str]]) -> dict[str, FloatArray]:
    """Columns of some rows of a CSV file, at least one; an empty or non-numeric cell is NaN."""
    return {name: np.array([_number(row[name]) for row in rows]) for name in rows[0]}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def evaluation_curve(path: Path) -> Curve:
    """Env steps and mean return over the episodes of each evaluation of a run."""
    columns = read_columns(path / "eval.csv")
    steps = np.unique(columns["global_step"])
    means = [columns["return"][columns["global_step"] == step].mean() for step in steps]
    return steps, np.array(means)


def check_returns(steps: FloatArray, returns: FloatArray, file: Path | str) -> None:
    """Raises ConfigError if a return is not finite, with its env step and the file that it is in."""
    bad = ~np.isfinite(returns)
    if bad.any():
        raise ConfigError(f"{file} has a return that is no finite number at step {steps[bad][0]:.0f}")


def layer_columns(path: Path) -> dict[str, Columns]:
    """Columns of `topology.csv` by layer, in the order of the file.

    Raises:
        ConfigError: If the file is missing, or no layer is sparse.
    """
    file = path / "topology.csv"
    if file.is_file() and len(file.read_text().splitlines()) < 2:
        raise ConfigError(f"{path} has no topology events (a dense run has none)")
    return columns_by("layer", file)


def columns_by(name: str, path: Path) -> dict[str, Columns]:
    """Numeric columns of a CSV file, of the rows of each value of one column, in the order of the file.

    Raises:
        ConfigError: If the file is missing or has no rows.
    """
    rows: dict[str, list[dict[str, str]]] = {}
    for row in read_rows(path):
        rows.setdefault(row[name], []).append(row)
    return {value: numeric_columns(of_value) for value, of_value in rows.items()}
