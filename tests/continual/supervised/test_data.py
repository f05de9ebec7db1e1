"""Where data is looked for, and what is right data."""

from __future__ import annotations

import gzip
import hashlib
import math
from pathlib import Path

import numpy as np
import pytest
from support.idx_files import idx_bytes, pictures, real_data_dir, write_mnist

from sparserl.continual.supervised import data as datasets
from sparserl.continual.supervised.data import DATASETS, IDX_FILES, default_data_dir, load
from sparserl.errors import ConfigError

TRAIN, TEST = [3, 0, 9], [1, 2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good tiny MNIST in `tmp_path / "mnist"`."""
    write_mnist(tmp_path / "mnist", TRAIN, TEST)
    return tmp_path / "mnist"


def test_four_packed_files(folder: Path) -> None:
    data = load("mnist", folder.parent)
    assert (data.name, data.n_classes, data.mean, data.std) == ("mnist", 10, 0.1307, 0.3081)
    assert data.scale * 255 == 1
    assert data.train.features.dtype == np.uint8
    assert data.train.labels.dtype == np.int64
    assert data.train.features.shape == (3, 784)
    np.testing.assert_array_equal(data.train.features[1, :3], [5, 6, 7])
    np.testing.assert_array_equal(data.train.features[1, 28:30], [33, 34])  # second row of the picture
    np.testing.assert_array_equal(data.train.labels, TRAIN)
    np.testing.assert_array_equal(data.test.features, pictures(2).reshape(2, 784))
    np.testing.assert_array_equal(data.test.labels, TEST)


def test_unpacked_files_and_a_mixture(folder: Path) -> None:
    packed = load("mnist", folder.parent)
    for name in IDX_FILES:
        path = folder / f"{name}.gz"
        (folder / name).write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
        mixed = load("mnist", folder.parent)
        np.testing.assert_array_equal(mixed.train.features, packed.train.features)
        np.testing.assert_array_equal(mixed.test.labels, packed.test.labels)
    assert sorted(path.name for path in folder.iterdir()) == sorted(IDX_FILES)


def test_argument_then_variable_then_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = {"argument": 1, "variable": 2, "xdg/sparserl": 3, "home/.cache/sparserl": 4}
    for place, label in labels.items():
        write_mnist(tmp_path / place / "mnist", [label], [0])
    monkeypatch.setenv("SPARSERL_DATA", str(tmp_path / "variable"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert load("mnist", tmp_path / "argument").train.labels == [1]
    assert load("mnist").train.labels == [2]
    monkeypatch.setenv("SPARSERL_DATA", "")
    assert load("mnist").train.labels == [3]
    monkeypatch.delenv("SPARSERL_DATA")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert load("mnist").train.labels == [4]
    assert default_data_dir() == tmp_path / "home/.cache/sparserl"


@pytest.mark.parametrize("name", IDX_FILES)
def test_a_missing_file_is_named_with_its_place_and_the_way_to_get_it(name: str, folder: Path) -> None:
    (folder / f"{name}.gz").unlink()
    with pytest.raises(ConfigError, match=rf"no {name}\.gz in {folder}: put it there, .* or let --download fetch it"):
        load("mnist", folder.parent)


def test_download_fetches_what_is_missing_and_nothing_else(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = []

    def fetch(url: str, path: Path, md5: str) -> None:
        fetched.append((url, md5))
        path.write_bytes(gzip.compress(idx_bytes(TEST)))

    monkeypatch.setattr(datasets, "fetch", fetch)
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(ConfigError, match="no t10k-labels"):
        load("mnist", folder.parent)
    assert fetched == []
    assert load("mnist", folder.parent, download=True).test.labels.tolist() == TEST
    load("mnist", folder.parent, download=True)
    load("digits", folder.parent, download=True)
    assert fetched == [
        ("https://ossci-datasets.s3.amazonaws.com/mnist/t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c")
    ]


BAD = {
    "exchanged": ("train-images-idx3-ubyte", TRAIN, "train-images-idx3-ubyte.gz has 1 dimensions instead of 3"),
    "not square": (
        "t10k-images-idx3-ubyte",
        np.zeros((2, 28, 27)),
        "t10k-images-idx3-ubyte.gz has pictures of 28 x 27 pixels instead of 28 x 28",
    ),
    "fewer labels": (
        "train-labels-idx1-ubyte",
        [0, 1],
        r"train-images-idx3-ubyte\.gz has 3 pictures, but .*train-labels-idx1-ubyte\.gz has 2 labels",
    ),
    "label 10": ("t10k-labels-idx1-ubyte", [10, 0], "t10k-labels-idx1-ubyte.gz has the label 10, outside 0..9"),
}


@pytest.mark.parametrize("case", BAD)
def test_wrong_data_is_named_with_its_file(case: str, folder: Path) -> None:
    name, array, problem = BAD[case]
    (folder / f"{name}.gz").write_bytes(gzip.compress(idx_bytes(array)))
    with pytest.raises(ConfigError, match=problem) as caught:
        load("mnist", folder.parent)
    assert "\n" not in str(caught.value)


def test_an_unknown_name() -> None:
    with pytest.raises(ConfigError, match=r"unknown data set 'minst'; did you mean 'mnist'\?"):
        load("minst")


def test_digits_need_no_file_and_have_a_fixed_split(tmp_path: Path) -> None:
    data = load("digits", tmp_path / "none")
    assert (data.name, data.n_classes) == ("digits", 10)
    assert (data.train.features.shape, data.test.features.shape) == ((1442, 64), (355, 64))
    assert {part.features.dtype for part in (data.train, data.test)} == {np.dtype(np.uint8)}
    assert {part.labels.dtype for part in (data.train, data.test)} == {np.dtype(np.int64)}
    # A fifth of each class: scikit-learn has 178 182 177 183 181 182 181 179 174 180 of them.
    np.testing.assert_array_equal(np.bincount(data.test.labels), [35, 36, 35, 36, 36, 36, 36, 35, 34, 36])
    np.testing.assert_array_equal(np.bincount(data.train.labels), [143, 146, 142, 147, 145, 146, 145, 144, 140, 144])
    np.testing.assert_array_equal(load("digits").train.features, data.train.features)
    assert data.train.features.max() * data.scale == 1


def test_every_digit_is_in_one_part() -> None:
    from sklearn.datasets import load_digits

    data = load("digits")
    pixels, labels = load_digits(return_X_y=True)
    train, test = (np.column_stack([part.labels, part.features]).tolist() for part in (data.train, data.test))
    whole = np.column_stack([labels, pixels]).astype(int).tolist()
    assert sorted(train + test) == sorted(whole)
    # The fifth zero is the first one held out.
    assert [row for row in whole if row[0] == 0][4] == next(row for row in test if row[0] == 0)


def test_mean_and_deviation_of_digits() -> None:
    data = load("digits")
    scaled = data.train.features * data.scale
    assert (round(scaled.mean(), 4), round(scaled.std(), 4)) == (data.mean, data.std)


def test_every_data_set_says_what_it_is() -> None:
    for spec in DATASETS.values():
        assert spec.n_classes in (10, 100)
        assert spec.image in ((1, 8, 8), (1, 28, 28), (3, 32, 32))
        assert spec.n_features == math.prod(spec.image)
        assert (spec.mean is None) == (spec.std is None)  # are measured
        assert spec.mean is None or spec.std is None or 0 < spec.mean < spec.std < 1


def test_the_real_mnist() -> None:
    data_dir = real_data_dir()
    data = load("mnist", data_dir)
    assert (data.train.features.shape, data.test.features.shape) == ((60_000, 784), (10_000, 784))
    assert data.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    # The published MD5 of the unpacked files; how they are packed differs from place to place.
    for array, shape, md5 in (
        (data.train.features, (60_000, 28, 28), "6bbc9ace898e44ae57da46a324031adb"),
        (data.train.labels, (60_000,), "a25bea736e30d166cdddb491f175f624"),
        (data.test.features, (10_000, 28, 28), "2646ac647ad5339dbf082846283269ea"),
        (data.test.labels, (10_000,), "27ae3e4e09519cfbb04c329615203637"),
    ):
        assert hashlib.md5(idx_bytes(array.reshape(shape))).hexdigest() == md5
    counts = sum(np.bincount(some.ravel(), minlength=256) for some in np.array_split(data.train.features, 60))
    shade = np.arange(256) * data.scale
    mean = np.average(shade, weights=counts)
    assert round(mean, 4) == data.mean
    assert round(np.sqrt(np.average((shade - mean) ** 2, weights=counts)), 4) == data.std
