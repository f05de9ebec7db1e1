"""Small named arrays in a JSON file: exact, readable, and nothing in it is executed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sparserl.errors import ConfigError
from sparserl.text_files import read_json

Array = npt.NDArray[np.float64]


def write_arrays(path: Path, arrays: Mapping[str, npt.ArrayLike]) -> None:
    """Writes arrays of finite numbers, in float64."""
    lists = {name: np.asarray(array, np.float64).tolist() for name, array in arrays.items()}
    path.write_text(json.dumps(lists, allow_nan=False) + "\n")


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, Array]:
    """Reads what `write_arrays` wrote, bit for bit.

    Raises:
        ConfigError: If the file is missing, is not JSON, or holds anything but arrays of these names.
    """
    data = read_json(path)
    problem = ConfigError(f"{path} must be JSON with arrays of numbers under {', '.join(names)}")
    if not isinstance(data, dict) or sorted(data) != sorted(names):
        raise problem
    try:
        arrays = {name: np.asarray(data[name]) for name in names}
    except ValueError:  # lists of different lengths
        raise problem from None
    if any(array.dtype.kind not in "iuf" for array in arrays.values()):  # texts, mappings, integers of any length
        raise problem
    return {name: array.astype(np.float64) for name, array in arrays.items()}
