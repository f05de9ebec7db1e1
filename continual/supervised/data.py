"""The labelled data that task sequences are made of.

Says where data is looked for, what is right data, and how it is standardised. Knows no tasks and scenarios, and
downloads nothing that was not asked for.

Source:
    LeCun et al. 1998 (MNIST); Xiao et al. 2017 (Fashion-MNIST); Alpaydin and Kaynak 1998 (digits); Krizhevsky 2009
    (CIFAR).
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock

from sparserl.continual.supervised.cifar import IMAGE as CIFAR_IMAGE
from sparserl.continual.supervised.cifar import cifar_10, cifar_100
from sparserl.continual.supervised.idx import read_idx
from sparserl.continual.supervised.tasks import ForEach, Part
from sparserl.errors import ConfigError, unknown_name
from sparserl.layers.sparse_cnn import ImageShape

CHUNK_BYTES = 1 << 16
SIDE = 28
"""Width and height of a picture of MNIST and Fashion-MNIST."""
IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@dataclass(frozen=True)
class Dataset:
    """A data set in memory; a learner sees `(features * scale - mean) / std`.

    Attributes:
        name: Name in `DATASETS`.
        n_classes: Class ids are 0..n_classes-1.
        image: Of a sample, whose features have this order.
        train: Training samples.
        test: Held-out samples.
        mean: Mean of the scaled training features; of pictures with colours (F,) that of the feature's channel.
        std: Standard deviation of the scaled training features, likewise.
        scale: Brings stored features to [0, 1].
    """

    name: str
    n_classes: int
    image: ImageShape
    train: Part
    test: Part
    mean: ForEach
    std: ForEach
    scale: float


Read = Callable[[Path, int, bool], tuple[Part, Part]]
"""(folder of the data set, number of classes, download) -> training and test samples."""


@dataclass(frozen=True)
class DatasetSpec:
    """What is known of a data set without reading it; the attributes are those of `Dataset`.

    Attributes:
        mean: None if it is measured, channel by channel.
        std: Likewise.
        read: Reads it.
    """

    n_classes: int
    image: ImageShape
    mean: float | None
    std: float | None
    scale: float
    read: Read

    @property
    def n_features(self) -> int:
        """Features of a sample."""
        return math.prod(self.image)


def load(name: str, data_dir: Path | None = None, download: bool = False) -> Dataset:
    """Reads a data set.

    Args:
        name: Name in `DATASETS`.
        data_dir: Folder that holds a folder for each data set; None for `default_data_dir()`.
        download: Fetches missing files first.

    Raises:
        ConfigError: If the name is unknown, or a file is missing, wrong, or cannot be downloaded.
    """
    if name not in DATASETS:
        raise ConfigError(unknown_name("data set", name, DATASETS))
    spec = DATASETS[name]
    folder = (default_data_dir() if data_dir is None else data_dir) / name
    train, test = spec.read(folder, spec.n_classes, download)
    mean, std = (spec.mean, spec.std) if spec.mean and spec.std else _by_channel(train, spec)
    return Dataset(name, spec.n_classes, spec.image, train, test, mean, std, spec.scale)


def _by_channel(part: Part, spec: DatasetSpec) -> tuple[ForEach, ForEach]:
    """(F,) mean and standard deviation of all scaled features of a channel; 1 where they deviate by 0."""
    channels, *sides = spec.image
    pixels = part.features.reshape(len(part.features), channels, -1)
    mean, std, values = np.empty(channels, np.float32), np.empty(channels, np.float32), np.arange(256) * spec.scale
    for channel in range(channels):
        counts = np.sum([np.bincount(row, minlength=256) for row in pixels[:, channel]], axis=0)
        mean[channel] = np.average(values, weights=counts)
        std[channel] = np.sqrt(np.average((values - mean[channel]) ** 2, weights=counts)) or 1.0
    return np.repeat(mean, math.prod(sides)), np.repeat(std, math.prod(sides))


def default_data_dir() -> Path:
    """`$SPARSERL_DATA`, else `sparserl` in the user's cache (`$XDG_CACHE_HOME`, else `~/.cache`)."""
    if given := os.environ.get("SPARSERL_DATA"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sparserl"


def bundled_digits(folder: Path, n_classes: int, download: bool) -> tuple[Part, Part]:
    """The 1,797 digits of 8 x 8 pixels that scikit-learn brings along; nothing is looked for in `folder`.

    Every fifth sample of a class is for testing: 355 in all. The split depends on no seed.
    """
    from sklearn.datasets import load_digits  # takes a second, and only this data set needs it

    pixels, labels = load_digits(return_X_y=True)
    held_out = np.zeros(labels.size, bool)
    for digit in range(n_classes):
        held_out[np.flatnonzero(labels == digit)[4::5]] = True
    features, labels = pixels.astype(np.uint8), labels.astype(np.int64)
    return Part(features[~held_out], labels[~held_out]), Part(features[held_out], labels[held_out])


def idx_files(address: str, md5: tuple[str, str, str, str]) -> Read:
    """A reader of the four files `IDX_FILES`, unpacked or with `.gz`, in the folder of the data set.

    Args:
        address: Where they can be had, packed; ends with a slash.
        md5: Checksums of the packed files.
    """

    def read(folder: Path, n_classes: int, download: bool) -> tuple[Part, Part]:
        train_images, train_labels, test_images, test_labels = (
            _located(folder, name, address, checksum, download) for name, checksum in zip(IDX_FILES, md5, strict=True)
        )
        return _checked(train_images, train_labels, n_classes), _checked(test_images, test_labels, n_classes)

    return read


def _located(folder: Path, name: str, address: str, md5: str, download: bool) -> Path:
    packed = folder / f"{name}.gz"
    if (path := find_idx(folder, name)) is not None:
        return path
    if not download:
        raise ConfigError(f"no {packed.name} in {folder}: put it there, packed or not, or let --download fetch it")
    fetch(f"{address}{packed.name}", packed, md5)
    return packed


def find_idx(folder: Path, name: str) -> Path | None:
    """One of `IDX_FILES` in a folder, unpacked or with `.gz`; None if it is not there."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.exists()), None)


def fetch(url: str, path: Path, md5: str) -> None:
    """Downloads a file that becomes `path` in one step once its checksum is right; a broken download leaves nothing.

    Of several processes that want a file of one folder one downloads it and the others wait.

    Args:
        url: Where the file is.
        path: Where it goes; its folder is made.
        md5: MD5 of the file in hexadecimal. It guards against damage, not against forgery.

    Raises:
        ConfigError: If the file cannot be had or written, or its checksum is wrong.
    """
    import pooch  # takes a tenth of a second, and only a download needs it

    downloader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), chunk_size=CHUNK_BYTES)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.parent / ".lock"):
            pooch.retrieve(url, f"md5:{md5}", path.name, path.parent, downloader=downloader)
            path.chmod(0o644)  # pooch leaves it to its owner alone, but data folders are shared
    except (OSError, ValueError) as error:
        if (response := getattr(error, "response", None)) is not None:
            response.close()  # pooch leaves it open
        cause: BaseException = error
        while cause.__context__ is not None:  # the outer ones repeat the address and wrap lines around it
            cause = cause.__context__
        raise ConfigError(f"cannot download {url}: {cause}") from None


def _checked(images_path: Path, labels_path: Path, n_classes: int) -> Part:
    part = read_pictures(images_path, labels_path, (SIDE, SIDE))
    if (outside := part.labels[part.labels >= n_classes]).size:
        raise ConfigError(f"{labels_path} has the label {outside[0]}, outside 0..{n_classes - 1}")
    return part


def read_pictures(images_path: Path, labels_path: Path, size: tuple[int, int] | None = None) -> Part:
    """The pictures of one IDX file as rows of pixels, with the labels of another.

    Args:
        images_path: File of (N, height, width).
        labels_path: File of (N,).
        size: Height and width that they must have; None for any.

    Raises:
        ConfigError: If a file is wrong, or they do not fit together.
    """
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    height, width = images.shape[1:]
    if size is not None and (height, width) != size:
        wanted = " x ".join(map(str, size))
        raise ConfigError(f"{images_path} has pictures of {height} x {width} pixels instead of {wanted}")
    if len(images) != len(labels):
        raise ConfigError(f"{images_path} has {len(images)} pictures, but {labels_path} has {len(labels)} labels")
    return Part(images.reshape(len(images), height * width), labels.astype(np.int64), (1, height, width))


DATASETS: dict[str, DatasetSpec] = {
    # Mean and standard deviation of the training part, as for the others.
    "digits": DatasetSpec(10, (1, 8, 8), mean=0.3051, std=0.3762, scale=1 / 16, read=bundled_digits),
    "mnist": DatasetSpec(
        10,
        (1, SIDE, SIDE),
        mean=0.1307,
        std=0.3081,
        scale=1 / 255,
        read=idx_files(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            (
                "f68b3c2dcbeaaa9fbdd348bbdeb94873",
                "d53e105ee54ea40749a09fcbcd1e9432",
                "9fb629c4189551a2d022fa330f9573f3",
                "ec29112dd5afa0611ce80d1b7f02629c",
            ),
        ),
    ),
    "fashion_mnist": DatasetSpec(
        10,
        (1, SIDE, SIDE),
        mean=0.2860,
        std=0.3530,
        scale=1 / 255,
        read=idx_files(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            (
                "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                "25c81989df183df01b3e8a0aad5dffbe",
                "bef4ecab320f06d8554ea6380940ec79",
                "bb300cfdad3c16e7a12a480ee83cd310",
            ),
        ),
    ),
    "cifar10": DatasetSpec(10, CIFAR_IMAGE, None, None, scale=1 / 255, read=cifar_10),
    "cifar100": DatasetSpec(100, CIFAR_IMAGE, None, None, scale=1 / 255, read=cifar_100),
}
