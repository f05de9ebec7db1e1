"""Tiny data sets in the format of CIFAR's binary version."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt


def pixels(label: int) -> npt.NDArray[np.uint8]:
    """(3, 32, 32) of a class: a bright square of 8 x 8 pixels, whose place and channel the class decides."""
    picture = np.full((3, 32, 32), 10 + label, np.uint8)
    row, column = divmod(label % 16, 4)
    picture[label % 3, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 250
    return picture


def cifar_bytes(labels: Sequence[int], coarse: bool = False) -> bytes:
    """A file with a picture for each label, which has that of a group of five classes before it if `coarse`."""
    groups = [bytes([label // 5]) if coarse else b"" for label in labels]
    return b"".join(
        group + bytes([label]) + pixels(label).tobytes() for group, label in zip(groups, labels, strict=True)
    )


def write_cifar_10(folder: Path, train: Sequence[int], test: Sequence[int]) -> None:
    """Five files for training with every fifth label each, and one for testing."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(5):
        (folder / f"data_batch_{number + 1}.bin").write_bytes(cifar_bytes(train[number::5]))
    (folder / "test_batch.bin").write_bytes(cifar_bytes(test))


def write_cifar_100(folder: Path, train: Sequence[int], test: Sequence[int]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, labels in (("train.bin", train), ("test.bin", test)):
        (folder / name).write_bytes(cifar_bytes(labels, coarse=True))
