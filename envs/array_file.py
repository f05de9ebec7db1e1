"""Small named arrays in a JSON file: exact, readable, and nothing in it is executed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sparserl.errors import ConfigError

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
    try:
        data = json.loads(path.read_text())
        if not isinstance(data, dict) or sorted(data) != sorted(names):
            raise TypeError
        return {name: np.asarray(data[name], np.float64) for name in names}
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (TypeError, ValueError):  # of which JSON's and Unicode's errors are kinds
        raise ConfigError(f"{path} must be JSON with arrays of numbers under {', '.join(names)}") from None
