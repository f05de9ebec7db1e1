"""CIFAR-10 and CIFAR-100 in their binary version: made files of the same format, and wrong ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.cifar_files import cifar_bytes, pixels, write_cifar_10, write_cifar_100

from sparserl.continual.supervised.data import load
from sparserl.continual.supervised.sequences import build_sequence
from sparserl.errors import ConfigError

TRAIN, TEST = [*range(10)] * 2, [*range(10)]


def test_six_files_of_cifar_10(tmp_path: Path) -> None:
    write_cifar_10(tmp_path / "cifar10", TRAIN, TEST)
    data = load("cifar10", tmp_path)
    assert (data.n_classes, data.image) == (10, (3, 32, 32))
    assert data.train.features.shape == (20, 3072)
    # The files one after the other: labels 0, 5, 0, 5 of the first, 1, 6, 1, 6 of the second.
    assert data.train.labels[:8].tolist() == [0, 5, 0, 5, 1, 6, 1, 6]
    np.testing.assert_array_equal(data.train.features[1].reshape(3, 32, 32), pixels(5))
    assert data.test.labels.tolist() == TEST
    assert data.train.labels.dtype == np.int64


def test_features_are_standardised_channel_by_channel(tmp_path: Path) -> None:
    write_cifar_10(tmp_path / "cifar10", TRAIN, TEST)
    data = load("cifar10", tmp_path)
    sequence = build_sequence("split_cifar10", seed=0, data_dir=tmp_path, n_tasks=1)
    x, _ = sequence.tasks[0].train.take(slice(None))
    channels = x.view(20, 3, -1).transpose(0, 1).reshape(3, -1)
    np.testing.assert_allclose(channels.mean(dim=1), 0.0, atol=1e-5)
    np.testing.assert_allclose(channels.std(dim=1), 1.0, atol=1e-4)
    assert isinstance(data.mean, np.ndarray)
    assert len(np.unique(data.mean)) == 3
    stored = data.train.features.reshape(20, 3, -1)[:, 0] / 255
    assert data.mean[0] == pytest.approx(stored.mean(), rel=1e-6)


def test_fine_labels_of_cifar_100_in_the_folder_of_the_archive(tmp_path: Path) -> None:
    labels = [*range(100)]
    write_cifar_100(tmp_path / "cifar100" / "cifar-100-binary", labels, labels[::-1])
    sequence = build_sequence("split_cifar100", seed=0, data_dir=tmp_path)
    assert (len(sequence), sequence.n_outputs, sequence.image) == (10, 100, (3, 32, 32))
    assert sequence.tasks[3].classes == tuple(range(30, 40))
    assert sequence.tasks[3].train.labels.tolist() == [*range(30, 40)]
    task = sequence.tasks[9].test
    assert task.labels.tolist() == [*range(99, 89, -1)]
    np.testing.assert_array_equal(task.features[task.rows[0]].reshape(3, 32, 32), pixels(99))


@pytest.mark.parametrize("download", [False, True])
def test_a_missing_file_is_named_with_its_place(tmp_path: Path, download: bool) -> None:
    write_cifar_10(tmp_path / "cifar10", TRAIN, TEST)
    (tmp_path / "cifar10" / "data_batch_3.bin").unlink()
    problem = (
        rf"^no data_batch_3\.bin in {tmp_path}/cifar10 or its folder cifar-10-batches-bin: put the files of the binary "
        "version of CIFAR-10 there, that for Python is not read"
    )
    with pytest.raises(ConfigError, match=problem + ("; --download does not fetch it$" if download else "$")):
        load("cifar10", tmp_path, download)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is no file of CIFAR: it has 0 bytes, and samples of 3,073 each"),
        (cifar_bytes([1, 2])[:-1], "it has 6,145 bytes, and samples of 3,073 each"),
        (cifar_bytes([3], coarse=True), "it has 3,074 bytes"),
        (cifar_bytes([3, 10]), r"test_batch.bin has the label 10 in sample 1, outside 0\.\.9"),
    ],
)
def test_a_wrong_file(tmp_path: Path, content: bytes, problem: str) -> None:
    write_cifar_10(tmp_path / "cifar10", TRAIN, TEST)
    (tmp_path / "cifar10" / "test_batch.bin").write_bytes(content)
    with pytest.raises(ConfigError, match=problem):
        load("cifar10", tmp_path)
