"""Tables: where they come from, what is refused, how they are split and standardised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.idx_files import real_data_dir, write_mnist

from sparserl.continual.supervised.classifier_recorder import checksum
from sparserl.continual.supervised.splits import Scaling
from sparserl.continual.supervised.tables import Table, read_table, table_sequence
from sparserl.continual.supervised.tasks import Samples
from sparserl.errors import ConfigError


def table(x: Any, y: Any = None, **rest: Any) -> Table:
    """A table of classes `a`, `b`, ...; by default the first half of the samples is of `a`, the other one of `b`."""
    x = np.asarray(x, np.float32)
    y = np.arange(len(x)) * 2 // len(x) if y is None else np.asarray(y)
    return Table("t", x, y, tuple("abcdefgh"[: y.max() + 1]), **rest)


def file(folder: Path, **arrays: Any) -> str:
    np.savez(folder / "t.npz", **arrays)
    return str(folder / "t.npz")


# Where tables come from.


@pytest.mark.parametrize(("name", "shape", "classes"), [("wine", (178, 13), 3), ("iris", (150, 4), 3)])
def test_tables_that_scikit_learn_brings_along(name: str, shape: tuple[int, int], classes: int) -> None:
    found = read_table(name, seed=0)
    assert (found.name, found.x.shape, found.x.dtype, len(found.classes)) == (name, shape, np.float32, classes)
    assert found.y is not None
    assert found.feature_names is not None
    assert len(found.feature_names) == shape[1]
    assert set(found.y) == set(range(classes))


def test_data_sets_of_sequences_are_tables_with_test_samples(tmp_path: Path) -> None:
    found = read_table("digits", seed=0)
    assert (found.x.shape, found.x_test.shape, found.x.dtype) == ((1442, 64), (355, 64), np.uint8)  # type: ignore[union-attr]
    assert (found.classes, found.scale) == (tuple("0123456789"), 1 / 16)
    with pytest.raises(ConfigError, match=r"no train-images-idx3-ubyte.gz in .*let --download fetch it"):
        read_table("mnist", tmp_path, seed=0)
    write_mnist(tmp_path / "mnist", list(range(10)), [1, 2])
    assert read_table("mnist", tmp_path, seed=0).x.shape == (10, 784)
    assert read_table("mnist", tmp_path, seed=0).classes == read_table(str(tmp_path / "mnist"), seed=0).classes


def test_the_generator_puts_what_is_relevant_first() -> None:
    found = read_table("madelon:400x60", seed=3)
    assert (found.x.shape, found.classes, found.relevant.tolist()) == ((400, 60), ("0", "1"), list(range(20)))  # type: ignore[union-attr]
    # The 15 redundant features are sums of the 5 informative ones, up to rounding; the others are not.
    relevant, noise = (part - part.mean(axis=0) for part in (found.x[:, :20], found.x[:, 20:]))
    assert np.linalg.matrix_rank(relevant, tol=1e-2) == 5
    assert np.linalg.matrix_rank(noise, tol=1e-2) == 40
    np.testing.assert_array_equal(found.x, read_table("madelon:400x60", seed=3).x)
    assert table_sequence(found, seed=0).record["relevant_features"] == list(range(20))
    assert (found.x != read_table("madelon:400x60", seed=4).x).any()


def test_a_relative_path_is_looked_for_here_and_then_in_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    file(tmp_path / "data", x=[[1], [2]], y=[0, 1])
    assert read_table("t.npz", tmp_path / "data", seed=0).x.tolist() == [[1], [2]]
    file(tmp_path / "here", x=[[3], [4]], y=[0, 1])
    assert read_table("t.npz", tmp_path / "data", seed=0).x.tolist() == [[3], [4]]


def test_a_real_table() -> None:
    folder = real_data_dir() / "tables"
    if not folder.is_dir():
        pytest.skip("there are no tables beside MNIST")
    found = read_table("madelon.npz", folder, seed=0)
    assert (found.x.shape, found.x_test.shape, found.classes) == ((2000, 500), (600, 500), ("0", "1"))  # type: ignore[union-attr]
    assert np.bincount(found.y).tolist() == [1000, 1000]  # type: ignore[arg-type]


UNKNOWN = {
    "wien": r"unknown data 'wien'; did you mean 'wine'\?",
    "madelom": r"unknown data 'madelom'; did you mean 'madelon",
    "madelon": "'madelon' must say samples and features, as in madelon:2000x500",
    "madelon:5x": "'madelon:5x' must say samples and features, as in madelon:2000x500",
    "madelon:31x500": "madelon:31x500: it must have at least 32 samples and 20 features, as in madelon:32x20",
    "madelon:99x19": "at least 32 samples and 20 features",
    "madelon:999999999x999999": "is too large: 999,999,999 x 999,999 is above",
    "none.csv": "no file or folder 'none.csv', neither here nor in /nowhere",
    "./none": "no file or folder './none', neither here nor in /nowhere",
}


@pytest.mark.parametrize("data", UNKNOWN)
def test_unknown_data_is_refused_with_the_closest(data: str) -> None:
    with pytest.raises(ConfigError, match=UNKNOWN[data]):
        read_table(data, Path("/nowhere"), seed=0)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("1,2\n")
    with pytest.raises(ConfigError, match=r"t.txt is no table that can be read: a name must end in .npz, .mat, .csv"):
        read_table(str(tmp_path / "t.txt"), seed=0)


# What a good table is.


@pytest.mark.parametrize(
    ("labels", "classes", "y"),
    [
        ([2, -1, 2], ("-1", "2"), [1, 0, 1]),
        ([[10.0], [9.0], [10.0]], ("9", "10"), [1, 0, 1]),
        (["10", "9", "9"], ("9", "10"), [1, 0, 0]),
        (["no", "maybe", "no"], ("maybe", "no"), [1, 0, 1]),
        ([True, False, True], ("0", "1"), [1, 0, 1]),
    ],
)
def test_classes_are_named_and_in_order(labels: Any, classes: tuple[str, ...], y: list[int], tmp_path: Path) -> None:
    found = read_table(file(tmp_path, x=np.eye(3), y=labels), seed=0)
    assert (found.classes, found.y.tolist()) == (classes, y)  # type: ignore[union-attr]
    assert (found.name, found.x.dtype) == ("t.npz", np.float32)


def test_test_labels_are_of_the_same_classes(tmp_path: Path) -> None:
    arrays = {"x": np.eye(3), "y": [5, 7, 9], "x_test": np.eye(3)[:2]}
    assert read_table(file(tmp_path, **arrays, y_test=[9, 5]), seed=0).y_test.tolist() == [2, 0]  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match=r"t.npz has the label '6' in y_test, but not in y"):
        read_table(file(tmp_path, **arrays, y_test=[9, 6]), seed=0)


X, NAN, INF = np.eye(3), np.diag([1.0, 1.0, np.nan]), np.diag([1.0, np.inf, 1.0])
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no samples": ({"x": X[:0], "y": []}, "x of t.npz is empty: 0 samples of 3 features"),
    "no features": ({"x": X[:, :0], "y": [0, 1, 0]}, "x of t.npz is empty: 3 samples of 0 features"),
    "one class": ({"x": X, "y": [4, 4, 4]}, "t.npz has a single class, '4'; there must be at least two"),
    "nan": ({"x": NAN, "y": [0, 1, 0]}, "x of t.npz is nan in row 2, column 2, counted from 0"),
    "inf": ({"x": INF, "y": [0, 1, 0]}, "x of t.npz is inf in row 1, column 1, counted from 0"),
    "too large for float32": ({"x": X * 1e99, "y": [0, 1, 0]}, r"x of t.npz is 1e\+99 in row 0, column 0"),
    "text": ({"x": [["a"], ["b"]], "y": [0, 1]}, "x of t.npz must hold numbers, got <U1"),
    "complex": ({"x": X * 1j, "y": [0, 1, 0]}, "x of t.npz must hold numbers, got complex128"),
    "pictures": (
        {"x": np.ones((2, 4, 4)), "y": [0, 1]},
        "a row for each sample and a column for each feature",
    ),
    "no labels": ({"x": X}, "t.npz has no labels: an array y is missing"),
    "too few labels": ({"x": X, "y": [0, 1]}, r"y of t.npz must hold a label for each of 3 samples, got shape \(2,\)"),
    "one-hot": ({"x": X, "y": np.eye(3)}, r"must hold a label for each of 3 samples, got shape \(3, 3\)"),
    "fractions": ({"x": X, "y": [0, 1.5, 0]}, "y of t.npz is 1.5 in row 1, counted from 0; a label is a whole number"),
    "missing label": ({"x": X, "y": [0, np.nan, 1]}, "y of t.npz is nan in row 1, counted from 0"),
    "dates": ({"x": X, "y": np.array(["2020"] * 3, "M8[D]")}, "y of t.npz must hold whole numbers or text"),
    "test without labels": ({"x": X, "y": [0, 1, 0], "x_test": X}, "has an array x_test, but no y_test"),
    "labels without test": ({"x": X, "y": [0, 1, 0], "y_test": [0]}, "has an array y_test, but no x_test"),
    "test of other width": (
        {"x": X, "y": [0, 1, 0], "x_test": X[:, :2], "y_test": [0, 1, 0]},
        "t.npz has 3 features in x, but 2 in x_test",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_tables_are_refused_in_one_line(case: str, tmp_path: Path) -> None:
    arrays, problem = BAD[case]
    with pytest.raises(ConfigError, match=problem) as caught:
        read_table(file(tmp_path, **arrays), seed=0)
    assert "\n" not in str(caught.value)


def test_labels_may_be_missing_where_none_are_needed(tmp_path: Path) -> None:
    found = read_table(file(tmp_path, x=np.eye(8), x_test=np.eye(8)), seed=0, labelled=False)
    assert (found.y, found.classes, found.y_test) == (None, (), None)
    sequence = table_sequence(found, validation_share=0.25, seed=0)
    task = sequence.tasks[0]
    assert [len(part) for part in task.parts] == [6, 8, 2]
    assert sequence.n_outputs == 1


# Split and scaling.


def members(samples: Samples) -> list[int]:
    return samples.rows.tolist()


def test_every_sample_is_in_one_part_and_each_part_has_each_class_alike() -> None:
    found = table(np.arange(60)[:, None], [0] * 30 + [1] * 20 + [2] * 10)
    sequence = table_sequence(found, test_share=0.2, validation_share=0.25, seed=5)
    assert (sequence.scenario, len(sequence), sequence.n_features, sequence.n_outputs) == ("class", 1, 1, 3)
    task = sequence.tasks[0]
    assert (task.classes, task.outputs, task.validation is None) == ((0, 1, 2), (0, 1, 2), False)
    assert sorted(row for part in task.parts for row in members(part)) == list(range(60))
    assert [np.bincount(part.labels).tolist() for part in task.parts] == [[18, 12, 6], [6, 4, 2], [6, 4, 2]]
    for part in task.parts:
        np.testing.assert_array_equal(part.labels, found.y[part.rows])  # type: ignore[index]
    assert sequence.record["train_samples"] == [36]
    assert sequence.record["validation_samples"] == sequence.record["test_samples"] == [12]
    assert sequence.record["class_names"] == ["a", "b", "c"]


def test_all_samples_may_be_for_training() -> None:
    task = table_sequence(table(np.arange(60)[:, None]), test_share=0.0, seed=0).tasks[0]
    assert [len(part) for part in task.parts] == [60, 0]
    assert members(task.train) == list(range(60))


def test_splits_come_from_the_seed_and_do_not_depend_on_each_other() -> None:
    found = table(np.arange(60)[:, None])
    one, same, other = (table_sequence(found, seed=seed).tasks[0] for seed in (1, 1, 2))
    assert members(one.test) == members(same.test) != members(other.test)
    assert one.validation is None
    assert members(table_sequence(found, validation_share=0.5, seed=1).tasks[0].test) == members(one.test)


def test_own_test_samples_are_all_and_only_for_testing() -> None:
    found = table(np.arange(20)[:, None], x_test=np.ones((4, 1), np.float32), y_test=np.array([0, 1, 1, 0]))
    task = table_sequence(found, validation_share=0.2, seed=0).tasks[0]
    assert [len(part) for part in task.parts] == [16, 4, 4]
    assert task.test.labels.tolist() == [0, 1, 1, 0]
    assert task.test.features is found.x_test
    with pytest.raises(ConfigError, match=r"t has its own test samples; leave out the test share 0.3"):
        table_sequence(found, test_share=0.3, seed=0)


# Training samples are rows 0 to 3, of which the columns have mean 1, 4, 7 and standard deviation 1, 2, 0.
STORED = np.array([[0, 2, 7], [2, 6, 7], [0, 6, 7], [2, 2, 7]], np.float32)
TEST = np.array([[5, 0, 9], [5, 0, 9]], np.float32)
OWN = table(STORED, [0, 1, 0, 1], x_test=TEST, y_test=np.array([0, 1]))


def standardised(scaling: Scaling) -> tuple[list[list[float]], list[float]]:
    task = table_sequence(OWN, scaling=scaling, seed=0).tasks[0]
    return task.train.take(slice(None))[0].tolist(), task.test.take(slice(0, 1))[0][0].tolist()


def test_each_feature_by_the_training_samples_and_constant_ones_are_zero() -> None:
    train, test = standardised("each_feature")
    assert train == [[-1, -1, 0], [1, 1, 0], [-1, 1, 0], [1, -1, 0]]
    assert test == [4, -2, 0]  # although the third one is not 7 here


def test_all_features_by_one_mean_and_deviation() -> None:
    train, test = standardised("all_features")
    mean, std = 4.0, np.sqrt((STORED - 4.0).reshape(-1) @ (STORED - 4.0).reshape(-1) / 12)
    np.testing.assert_allclose(train, (STORED - mean) / std, rtol=1e-6)
    np.testing.assert_allclose(test, (TEST[0] - mean) / std, rtol=1e-6)


def test_the_range_of_each_feature_becomes_the_unit_interval() -> None:
    train, test = standardised("range")
    assert train == [[0, 0, 0], [1, 1, 0], [0, 1, 0], [1, 0, 0]]
    assert test == [2.5, -0.5, 0]


def test_no_scaling_brings_pixels_to_their_range_alone() -> None:
    assert standardised("none") == (STORED.tolist(), TEST[0].tolist())
    digits = read_table("digits", seed=0)
    x, _ = table_sequence(digits, scaling="none", seed=0).tasks[0].train.take(slice(None))
    assert (x.min(), x.max()) == (0, 1)


def test_scaling_does_not_see_what_is_held_out() -> None:
    found = table(np.random.default_rng(0).normal(3, 2, (200, 5)))
    task = table_sequence(found, validation_share=0.5, seed=0).tasks[0]
    x, _ = task.train.take(slice(None))
    np.testing.assert_allclose(x.mean(dim=0), 0, atol=1e-5)
    np.testing.assert_allclose(x.numpy().std(axis=0), 1, atol=1e-5)
    assert task.validation is not None
    assert abs(task.validation.take(slice(None))[0].mean(dim=0)).max() > 1e-3


def test_pixels_are_standardised_by_their_scale_too() -> None:
    x, _ = table_sequence(read_table("digits", seed=0), seed=0).tasks[0].train.take(slice(None))
    varying = x.numpy().std(axis=0) > 0
    assert varying.sum() == 61  # of 64 pixels; three at the border are never black
    np.testing.assert_allclose(x.numpy()[:, varying].std(axis=0), 1, atol=1e-4)


def test_large_tables_are_scaled_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    found = table(np.random.default_rng(0).normal(3, 2, (50, 4)))
    whole = table_sequence(found, seed=0).tasks[0].train
    monkeypatch.setattr("sparserl.continual.supervised.splits.CHUNK_ENTRIES", 12)
    parts = table_sequence(found, seed=0).tasks[0].train
    np.testing.assert_allclose(whole.mean, parts.mean, rtol=1e-6)
    np.testing.assert_allclose(whole.std, parts.std, rtol=1e-6)


@pytest.mark.parametrize(
    ("labels", "shares", "problem"),
    [
        ([0] * 20 + [1], {}, "class 'b' of t has 1 of 21 samples: too few for a test share of 0.2"),
        ([0] * 98 + [1] * 2, {}, "class 'b' of t has 2 of 100 samples: too few for a test share of 0.2"),
        ([0, 0, 0, 1, 1, 1], {"test_share": 0.1}, "too few for a test share of 0.1"),
        ([0, 1] * 10, {"validation_share": 0.99}, "too few for a validation share of 0.99"),
        ([0, 1] * 10, {"test_share": 1.0}, r"the test share must be in \[0, 1\), got 1.0"),
        ([0, 1] * 10, {"validation_share": -0.1}, r"the validation share must be in \[0, 1\), got -0.1"),
        ([0, 1] * 10, {"scaling": "every_feature"}, "unknown scaling 'every_feature'; did you mean 'each_feature'"),
    ],
)
def test_what_cannot_be_split_is_refused(labels: list[int], shares: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        table_sequence(table(np.arange(len(labels))[:, None], labels), seed=0, **shares)


def test_the_checksum_of_a_run_sees_scaling_and_validation() -> None:
    found = table(np.random.default_rng(0).normal(size=(40, 3)))
    sums = {
        checksum(table_sequence(found, scaling=scaling, validation_share=share, seed=0))
        for scaling in ("each_feature", "all_features", "none")
        for share in (0.0, 0.1, 0.2)
    }
    assert len(sums) == 9
