"""Tasks of a user's own tables: which samples they have, which output units, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sparserl.continual.supervised.own_tasks import own_sequence
from sparserl.continual.supervised.sequence_files import sequence_of
from sparserl.continual.supervised.sequences import build_sequence
from sparserl.continual.supervised.tables import Table, read_table
from sparserl.continual.supervised.tasks import Samples, TaskSequence
from sparserl.errors import ConfigError
from sparserl.seeding import stream

X = np.arange(12, dtype=np.float32).reshape(6, 2)
Y = np.array([0, 0, 1, 1, 2, 2])
NAMES = ("a", "b", "c")
WITH_TEST = Table("t", X, Y, NAMES, x_test=X + 100, y_test=Y)
PLACES = np.array(["p", "q"] * 3)


def made(
    tables: Table | dict[str, Table] = WITH_TEST, scenario: Any = None, seed: int = 0, **keys: Any
) -> TaskSequence:
    """The tasks of a file with these keys; its data is `t` if there is one table."""
    several = isinstance(tables, dict)
    file = sequence_of({"name": "own", "scaling": "none", **({} if several else {"data": "t"}), **keys})
    return own_sequence(file, tables if isinstance(tables, dict) else {"t": tables}, scenario, seed=seed)


def contents(samples: Samples) -> tuple[list[Any], list[int]]:
    x, y = samples.take(slice(None))
    return x.tolist(), y.tolist()


# --- by classes -------------------------------------------------------------------------------------


def test_tasks_by_classes() -> None:
    sequence = made(tasks=[{"classes": ["c"]}, {"name": "rest", "classes": ["a", "b"]}])
    assert (sequence.name, sequence.scenario, sequence.n_features, sequence.n_outputs) == ("own", "class", 2, 3)
    first, second = sequence.tasks
    assert [(task.index, task.name, task.classes, task.outputs) for task in (first, second)] == [
        (0, "classes c", (2,), (2,)),
        (1, "rest", (0, 1), (0, 1)),
    ]
    assert contents(first.train) == (X[4:].tolist(), [2, 2])
    assert contents(first.test) == ((X + 100)[4:].tolist(), [2, 2])
    assert contents(second.train) == (X[:4].tolist(), [0, 0, 1, 1])
    assert sequence.record["train_samples"] == [2, 4]
    assert sequence.record["class_names"] == ["a", "b", "c"]
    assert sequence.competing(0, after=1) == (0, 1, 2)


def test_classes_that_no_task_has_get_no_output() -> None:
    sequence = made(tasks=[{"classes": ["c"]}, {"classes": ["a"]}])
    assert (sequence.n_outputs, [task.outputs for task in sequence.tasks]) == (2, [(1,), (0,)])


def test_in_the_domain_scenario_tasks_of_other_classes_share_outputs_by_their_place() -> None:
    sequence = made(scenario="domain", tasks=[{"classes": ["b", "a"]}, {"classes": ["c"]}])
    assert [task.outputs for task in sequence.tasks] == [(0, 1), (0,)]
    assert contents(sequence.tasks[0].train)[1] == [1, 1, 0, 0]


@pytest.mark.parametrize("order", ["fixed", "random"])
def test_a_number_of_tasks_is_a_split_as_those_of_the_table_of_sequences(order: Any) -> None:
    file = sequence_of({"name": "split_digits", "data": "digits", "tasks": 5, "scaling": "all_features"})
    for scenario in ("class", "task", "domain"):
        own = own_sequence(file, {"digits": read_table("digits", seed=0)}, scenario, seed=3, class_order=order)
        known = build_sequence("split_digits", scenario, seed=3, class_order=order)
        assert [(task.name, task.classes, task.outputs) for task in own.tasks] == [
            (task.name, task.classes, task.outputs) for task in known.tasks
        ]
        for ours, theirs in zip(own.tasks, known.tasks, strict=True):
            for part in ("train", "test"):
                assert getattr(ours, part).rows.tolist() == getattr(theirs, part).rows.tolist()
                assert getattr(ours, part).labels.tolist() == getattr(theirs, part).labels.tolist()
        # Mean and standard deviation of all pixels; those of the table are rounded.
        assert own.tasks[0].train.mean == pytest.approx(known.tasks[0].train.mean, abs=1e-4)
        assert own.tasks[0].train.std == pytest.approx(known.tasks[0].train.std, abs=1e-4)


# --- by a column ------------------------------------------------------------------------------------


def test_each_value_of_a_column_is_a_task() -> None:
    table = Table("t", X, np.array([0, 1] * 3), ("a", "b"), x_test=X, y_test=np.array([0, 1] * 3))
    groups = np.array(["10", "10", "9", "9", "9", "9"])
    sequence = made(replace(table, groups=groups, groups_test=groups), column="day")
    assert (sequence.scenario, [task.name for task in sequence.tasks]) == ("domain", ["9", "10"])  # numbers in order
    assert contents(sequence.tasks[1].train) == (X[:2].tolist(), [0, 1])
    assert [task.outputs for task in sequence.tasks] == [(0, 1), (0, 1)]
    # Where the task is told or guessed, a class of another task is another class.
    again = made(replace(table, groups=groups, groups_test=groups), "task", column="day")
    assert ([task.outputs for task in again.tasks], again.n_outputs) == ([(0, 1), (2, 3)], 4)


def test_samples_are_split_alike_in_each_class_of_each_task() -> None:
    x = np.arange(80, dtype=np.float32).reshape(40, 2)
    y, groups = np.arange(40) % 2, np.where(np.arange(40) < 20, "p", "q")
    sequence = made(Table("t", x, y, ("a", "b"), groups=groups), column="place", test_share=0.2)
    for task in sequence.tasks:
        assert (len(task.train), len(task.test)) == (16, 4)
        assert np.bincount(task.test.labels).tolist() == [2, 2]
        assert not set(task.train.rows) & set(task.test.rows)


# --- by transformations -----------------------------------------------------------------------------


def test_permutations_are_those_of_permuted_mnist() -> None:
    sequence = made(seed=5, tasks=[{}, {"transform": {"permute": True}}, {"transform": {"permute": 1, "noise": 1}}])
    order = stream(5, "permutation", "1").permutation(2)
    assert [task.name for task in sequence.tasks] == ["t", "permuted", "noise 1, permutation 1"]
    assert sequence.tasks[0].train.order is None
    assert [sequence.tasks[task].train.order.tolist() for task in (1, 2)] == [order.tolist()] * 2  # type: ignore[union-attr]
    assert (sequence.scenario, sequence.tasks[1].outputs) == ("domain", (0, 1, 2))


def test_pictures_are_turned_counter_clockwise_and_mirrored() -> None:
    picture = np.array([[0, 1], [2, 3]], np.uint8)
    table = Table("t", picture.reshape(1, 4), np.array([0]), ("a",), x_test=picture.reshape(1, 4), y_test=np.array([0]))
    ways = [
        {"rotate": 90},
        {"flip": "left_right"},
        {"flip": "up_down"},
        {"invert": True},
        {"rotate": 180},
        {"rotate": -90},
    ]
    sequence = made(table, shape=[2, 2], tasks=[{"transform": way} for way in ways])
    assert [contents(task.train)[0][0] for task in sequence.tasks] == [
        [1, 3, 0, 2],
        [1, 0, 3, 2],
        [2, 3, 0, 1],
        [255, 254, 253, 252],
        [3, 2, 1, 0],
        [2, 0, 3, 1],
    ]
    assert [task.name for task in sequence.tasks][:2] == ["rotated 90", "flipped left_right"]


def test_other_angles_agree_with_quarters_where_they_meet() -> None:
    rows = read_table("digits", seed=0)
    few = Table("digits", rows.x[:40], np.arange(40) % 2, ("0", "1"), x_test=rows.x[:4], y_test=np.array([0, 1, 0, 1]))
    few = replace(few, image=rows.image)
    file = {"data": "digits", "tasks": [{"transform": {"rotate": angle}} for angle in (90, 89.999)]}
    sequence = own_sequence(sequence_of({"name": "x", **file}), {"digits": few}, seed=0)
    quarter, nearly = (task.train.features for task in sequence.tasks)
    assert nearly.dtype == np.uint8
    assert np.abs(quarter.astype(int) - nearly).max() <= 1
    assert quarter[0].tolist() == np.rot90(rows.x[0].reshape(8, 8)).ravel().tolist()


def test_noise_is_of_the_seed_and_of_the_task() -> None:
    def train(seed: int, task: int) -> np.ndarray:
        return (
            made(seed=seed, tasks=[{"transform": {"noise": 0.5}}, {"transform": {"noise": 2}}])
            .tasks[task]
            .train.features
        )

    assert np.array_equal(train(0, 0), train(0, 0))
    assert not np.array_equal(train(0, 0), train(1, 0))
    assert np.abs(train(0, 0) - X).std() < np.abs(train(0, 1) - X).std()


def test_features_are_scaled_by_the_training_samples_of_all_tasks_as_they_are_shown() -> None:
    sequence = made(scaling="each_feature", tasks=[{"classes": ["a"]}, {"classes": ["b"]}])
    mean, std = X[:4].mean(axis=0), X[:4].std(axis=0)
    np.testing.assert_allclose(sequence.tasks[1].train.take(slice(None))[0], (X[2:4] - mean) / std, rtol=1e-5)
    np.testing.assert_allclose(sequence.tasks[0].test.take(slice(None))[0], (X[:2] + 100 - mean) / std, rtol=1e-5)


# --- tables of their own ----------------------------------------------------------------------------


def test_tasks_with_tables_of_their_own() -> None:
    bytes_ = Table(
        "u", (X * 10).astype(np.uint8), Y % 2, ("b", "z"), x_test=X.astype(np.uint8), y_test=Y % 2, scale=0.1
    )
    sequence = made({"t": WITH_TEST, "u": bytes_}, tasks=[{"data": "t"}, {"data": "u"}], scaling="all_features")
    assert [task.classes for task in sequence.tasks] == [(0, 1, 2), (1, 3)]
    assert [task.outputs for task in sequence.tasks] == [(0, 1, 2), (1, 3)]  # b is b in both
    assert sequence.record["class_names"] == ["a", "b", "c", "z"]
    both = np.concatenate([X, X])
    np.testing.assert_allclose(sequence.tasks[1].train.take(slice(None))[0], (X - both.mean()) / both.std(), rtol=1e-5)


# --- bad input --------------------------------------------------------------------------------------


NO_TEST_OF_C = Table("t", X, Y, NAMES, x_test=X[:4], y_test=Y[:4])
WIDE = Table("wide", np.zeros((4, 3), np.float32), np.array([0, 1, 0, 1]), ("a", "b"))


@pytest.mark.parametrize(
    ("tables", "keys", "message"),
    [
        (
            WITH_TEST,
            {"tasks": [{"classes": ["a", "b"]}, {"classes": ["b", "c"]}]},
            "class 'b' is in tasks 0 and 1, with the same samples: leave it out of one, or transform them",
        ),
        (WITH_TEST, {"tasks": [{}, {}]}, "class 'a' is in tasks 0 and 1, with the same samples: "),
        (
            Table("t", X, Y, NAMES, x_test=X, y_test=Y, groups=PLACES, groups_test=PLACES),
            {"column": "place", "tasks": [{"value": "p"}, {"classes": ["b"]}]},
            "class 'b' is in tasks 0 and 1, with the same samples: ",
        ),
        (WITH_TEST, {"tasks": [{}, {"data": "t"}]}, "class 'a' is in tasks 0 and 1, with the same samples: "),
        (
            WITH_TEST,
            {"shape": [1, 2], "tasks": [{}, {"transform": {"rotate": 360}}]},
            "class 'a' is in tasks 0 and 1, with the same samples: ",
        ),
        (
            WITH_TEST,
            {"tasks": [{"transform": {"permute": True}}, {"transform": {"permute": 0}}]},
            "class 'a' is in tasks 0 and 1, with the same samples: ",
        ),
        (WITH_TEST, {"tasks": [{"transform": {"noise": 1e300}}]}, "task 0: noise 1e+300 is beyond what float32 holds"),
        (WITH_TEST, {"tasks": [{"classes": ["d"]}]}, "task 0: unknown class of t 'd'; valid: a, b, c"),
        (
            NO_TEST_OF_C,
            {"tasks": [{"classes": ["a"]}, {"name": "last", "classes": ["b", "c"]}]},
            "task 1 (last) has no test samples: none of class 'c' in t",
        ),
        (NO_TEST_OF_C, {"tasks": [{"classes": ["c"]}]}, "task 0 (classes c) has no test samples: none at all in t"),
        (WITH_TEST, {"tasks": 2}, "3 classes cannot be split into 2 tasks; valid: 1, 3"),
        (WITH_TEST, {"tasks": 3, "test_share": 0.5}, "t has its own test samples; leave out test_share 0.5"),
        (
            WITH_TEST,
            {"tasks": [{"transform": {"rotate": 90}}]},
            "task 0: rotated 90 is for pictures: say their `shape`",
        ),
        (
            WITH_TEST,
            {"shape": [2, 2], "tasks": [{"transform": {"flip": "up_down"}}]},
            "task 0: shape [2, 2] is not that of 2 features",
        ),
        (WITH_TEST, {"tasks": [{"transform": {"invert": True}}]}, "task 0: inverted is for bytes and data sets whose"),
        (
            {"t": WITH_TEST, "wide": WIDE},
            {"tasks": [{"data": "t"}, {"data": "wide"}]},
            "tasks 0 and 1 differ in features: 2 (t) and 3 (wide); one network needs the same in all tasks",
        ),
        (
            Table("t", X, Y, NAMES, groups=PLACES),
            {"column": "place", "tasks": [{"value": "r"}]},
            "class 'a (p)' of t has 1 of 6 samples: too few for a test share of 0.2",
        ),
        (
            Table("t", X, Y, NAMES, x_test=X, y_test=Y, groups=PLACES, groups_test=PLACES),
            {"column": "place", "tasks": [{"value": "r"}]},
            "task 0: unknown value of column 'place' 'r'; valid: p, q",
        ),
        (
            Table("t", X, Y, NAMES, x_test=X, y_test=Y, groups=PLACES),
            {"column": "place"},
            "t has the column 'place' in x, but not in x_test",
        ),
        (
            Table("t", X, Y, NAMES, x_test=X, y_test=Y, groups=PLACES, groups_test=np.array(["p"] * 6)),
            {"column": "place"},
            "task 1 (q) has no test samples: none at all in t",
        ),
    ],
)
def test_tasks_that_cannot_be(tables: Any, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        made(tables, **keys)
    assert str(refusal.value).startswith(message)
    assert "\n" not in str(refusal.value)


def test_an_order_of_classes_is_for_a_number_of_tasks() -> None:
    file = sequence_of({"name": "own", "data": "t", "tasks": [{"classes": ["a"]}]})
    with pytest.raises(ConfigError, match="class order 'random' is for a number of tasks; own names its"):
        own_sequence(file, {"t": WITH_TEST}, seed=0, class_order="random")


def test_pictures_are_known_by_their_table_or_by_the_file() -> None:
    digits = {"digits": read_table("digits", seed=0)}
    file = sequence_of({"name": "own", "data": "digits", "tasks": 5})
    assert own_sequence(file, digits, seed=0).image == (1, 8, 8)
    assert made(tasks=[{"classes": ["c"]}]).image is None
    assert made(tasks=[{"classes": ["c"]}], shape=[1, 2]).image == (1, 1, 2)
    assert made(tasks=[{"classes": ["c"]}], shape=[2, 1, 1]).image == (2, 1, 1)
    with pytest.raises(ConfigError, match=r"shape \[2, 2\] is not that of 2 features"):
        made(tasks=[{"classes": ["c"]}], shape=[2, 2])


def test_the_order_of_number_0_is_another_than_none() -> None:
    sequence = made(tasks=[{}, {"transform": {"permute": 0}}])
    assert [task.train.order is None for task in sequence.tasks] == [True, False]
