"""Tiny data sets in the format of MNIST, and where the real one may lie."""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

ROOT = Path(__file__).resolve().parents[2]


def idx_bytes(array: npt.ArrayLike) -> bytes:
    array = np.asarray(array, np.uint8)
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def pictures(count: int) -> npt.NDArray[np.uint8]:
    """(count, 28, 28): pixel j of picture k is (5 k + j) % 256, so no two pictures and no two rows of pixels agree."""
    return ((5 * np.arange(count)[:, None] + np.arange(784)) % 256).astype(np.uint8).reshape(count, 28, 28)


def mnist_files(train: Sequence[int], test: Sequence[int]) -> dict[str, bytes]:
    """Packed files of a data set with these labels."""
    return {
        f"{name}.gz": gzip.compress(idx_bytes(array))
        for name, array in (
            ("train-images-idx3-ubyte", pictures(len(train))),
            ("train-labels-idx1-ubyte", train),
            ("t10k-images-idx3-ubyte", pictures(len(test))),
            ("t10k-labels-idx1-ubyte", test),
        )
    }


def write_mnist(folder: Path, train: Sequence[int], test: Sequence[int]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in mnist_files(train, test).items():
        (folder / name).write_bytes(content)


def real_data_dir() -> Path:
    """The data directory that holds MNIST; skips the test where there is none."""
    for folder in (os.environ.get("SPARSERL_DATA"), ROOT.parent / "shared" / "data"):
        if folder is not None and (Path(folder) / "mnist").is_dir():
            return Path(folder)
    pytest.skip("MNIST is neither in $SPARSERL_DATA nor in ../shared/data")
