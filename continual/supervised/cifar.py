"""Reading CIFAR-10 and CIFAR-100, in their binary version.

Decides whether a file is what it should be. The version for Python is not read: its files are pickles, which are
programs, and the binary files hold the same.

Source:
    Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images", and the page of the data sets: a sample is
    its labels, a byte each (CIFAR-100 has the label of the group of classes first), and 3 x 32 x 32 bytes, channel by
    channel, row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sparserl.continual.supervised.tasks import Part
from sparserl.errors import ConfigError
from sparserl.text_files import read_bytes

IMAGE = 3, 32, 32
"""Channels, height and width."""
MOST_BYTES = 2**29
"""Of a file; all samples for training have 154 million."""
FILES_10 = tuple(f"data_batch_{number}.bin" for number in range(1, 6)), ("test_batch.bin",)
FILES_100 = ("train.bin",), ("test.bin",)
"""For training, and for testing."""


def cifar_10(folder: Path, n_classes: int, download: bool) -> tuple[Part, Part]:
    """Training and test samples of CIFAR-10.

    Args:
        folder: Has `FILES_10`, or is where their folder `cifar-10-batches-bin` is.
        n_classes: Labels are below this.
        download: Whether to say of a missing file that it is not fetched; none is.

    Raises:
        ConfigError: If a file is missing or wrong.
    """
    return _parts(folder, "CIFAR-10", "cifar-10-batches-bin", FILES_10, 1, n_classes, download)


def cifar_100(folder: Path, n_classes: int, download: bool) -> tuple[Part, Part]:
    """Training and test samples of CIFAR-100 with their fine labels; as `cifar_10`, of `FILES_100`."""
    return _parts(folder, "CIFAR-100", "cifar-100-binary", FILES_100, 2, n_classes, download)


def _parts(
    folder: Path,
    name: str,
    unpacked: str,
    files: tuple[Sequence[str], ...],
    labels: int,
    n_classes: int,
    download: bool,
) -> tuple[Part, Part]:
    places = folder, folder / unpacked

    def located(file: str) -> Path:
        for path in (place / file for place in places):
            if path.exists():
                return path
        fetched = "; --download does not fetch it" if download else ""
        raise ConfigError(
            f"no {file} in {folder} or its folder {unpacked}: put the files of the binary version of {name} there, "
            f"that for Python is not read{fetched}"
        )

    train, test = (_part([located(file) for file in of_part], labels, n_classes) for of_part in files)
    return train, test


def _part(paths: Sequence[Path], labels: int, n_classes: int) -> Part:
    samples = np.concatenate([_samples(path, labels, n_classes) for path in paths])
    return Part(samples[:, labels:], samples[:, labels - 1].astype(np.int64))


def _samples(path: Path, labels: int, n_classes: int) -> np.ndarray:
    """(N, labels + pixels) of a file."""
    size = labels + int(np.prod(IMAGE))
    raw = read_bytes(path, MOST_BYTES)
    if not raw or len(raw) % size:
        raise ConfigError(f"{path} is no file of CIFAR: it has {len(raw):,} bytes, and samples of {size:,} each")
    samples = np.frombuffer(raw, np.uint8).reshape(-1, size)
    if (wrong := np.flatnonzero(samples[:, labels - 1] >= n_classes)).size:
        label = samples[wrong[0], labels - 1]
        raise ConfigError(f"{path} has the label {label} in sample {wrong[0]}, outside 0..{n_classes - 1}")
    return samples
