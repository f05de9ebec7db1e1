"""Tasks and their output units."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.idx_files import pictures, real_data_dir, write_mnist

from sparserl.continual.supervised import sequences
from sparserl.continual.supervised.sequences import CLASS_ORDERS, SEQUENCES, build_sequence
from sparserl.continual.supervised.tasks import Samples, Scenario, TaskSequence
from sparserl.errors import ConfigError
from sparserl.seeding import stream

TRAIN = [7, 2, 1, 8, 2, 0, 3, 4, 9, 6, 5, 1]
TEST = [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 2]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_mnist(folder / "mnist", TRAIN, TEST)
    write_mnist(folder / "fashion_mnist", TRAIN, TEST)
    return folder


def contents(samples: Samples) -> tuple[list[int], list[int]]:
    return samples.rows.tolist(), samples.labels.tolist()


def test_a_split_by_classes(data_dir: Path) -> None:
    sequence = build_sequence("split_mnist", seed=0, data_dir=data_dir)
    assert (sequence.name, sequence.scenario, len(sequence)) == ("split_mnist", "class", 5)
    assert (sequence.n_features, sequence.n_outputs) == (784, 10)
    assert [task.index for task in sequence.tasks] == [0, 1, 2, 3, 4]
    task = sequence.tasks[1]
    assert (task.name, task.classes, task.outputs) == ("classes 2 3", (2, 3), (2, 3))
    assert contents(task.train) == ([1, 4, 6], [2, 2, 3])
    assert contents(task.test) == ([6, 7, 10], [3, 2, 2])
    assert (task.train.mean, task.train.std, task.train.scale) == (0.1307, 0.3081, 1 / 255)
    x, y = task.train.take(np.array([2]))
    np.testing.assert_allclose(x.numpy(), (pictures(7)[6].reshape(1, 784) / 255 - 0.1307) / 0.3081, rtol=1e-5)
    assert y.tolist() == [3]
    assert sequence.record == {
        "dataset": "mnist",
        "n_tasks": 5,
        "class_order": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
        "train_samples": [3, 3, 2, 2, 2],
        "test_samples": [2, 3, 2, 2, 2],
        "permutations": [None] * 5,
    }


def test_a_split_by_tasks_has_the_same_units(data_dir: Path) -> None:
    by_class = build_sequence("split_mnist", "class", seed=0, data_dir=data_dir)
    by_task = build_sequence("split_mnist", "task", seed=0, data_dir=data_dir)
    assert (by_task.scenario, by_task.n_outputs) == ("task", 10)
    assert [task.outputs for task in by_task.tasks] == [task.outputs for task in by_class.tasks]
    assert by_task.competing(1, after=4) == (2, 3)


def test_a_split_by_domain_shares_the_units_of_the_first_task(data_dir: Path) -> None:
    sequence = build_sequence("split_mnist", "domain", seed=0, data_dir=data_dir, n_tasks=2)
    assert sequence.n_outputs == 5
    first, second = sequence.tasks
    assert (second.name, second.classes, second.outputs) == ("classes 5 6 7 8 9", (5, 6, 7, 8, 9), (0, 1, 2, 3, 4))
    assert contents(first.train) == ([1, 2, 4, 5, 6, 7, 11], [2, 1, 2, 0, 3, 4, 1])
    assert contents(second.train) == ([0, 3, 8, 9, 10], [2, 3, 4, 1, 0])


def test_a_random_order_of_classes_comes_from_the_seed(data_dir: Path) -> None:
    order = stream(3, "class_order").permutation(10).tolist()
    sequence = build_sequence("split_mnist", "domain", seed=3, data_dir=data_dir, class_order="random")
    assert sequence.record["class_order"] == order
    assert [task.classes for task in sequence.tasks] == list(zip(order[::2], order[1::2], strict=True))
    task = sequence.tasks[0]
    assert task.train.labels.tolist() == [order.index(label) for label in TRAIN if label in order[:2]]
    by_class = build_sequence("split_mnist", "class", seed=3, data_dir=data_dir, class_order="random")
    assert by_class.tasks[0].outputs == tuple(order[:2])
    assert {CLASS_ORDERS["random"](10, seed)[0] for seed in range(30)} > {order[0]}


def test_permutations_share_their_outputs(data_dir: Path) -> None:
    sequence = build_sequence("permuted_mnist", seed=7, data_dir=data_dir)
    assert (sequence.scenario, len(sequence), sequence.n_features, sequence.n_outputs) == ("domain", 10, 784, 10)
    assert sequence.tasks[0].train.order is None
    for index, task in enumerate(sequence.tasks):
        assert (task.name, task.classes, task.outputs) == (
            f"permutation {index}",
            tuple(range(10)),
            tuple(range(10)),
        )
        assert contents(task.train) == (list(range(12)), TRAIN)
        assert contents(task.test) == (list(range(11)), TEST)
    order = stream(7, "permutation", "2").permutation(784)
    x, _ = sequence.tasks[2].test.take(slice(4, 5))
    np.testing.assert_allclose(x.numpy()[0], (pictures(5)[4].ravel()[order] / 255 - 0.1307) / 0.3081, rtol=1e-5)
    assert sequence.record["class_order"] == list(range(10))
    assert sequence.record["train_samples"] == [12] * 10
    first, *others = sequence.record["permutations"]
    assert first is None
    assert len(set(others)) == 9
    assert all(int(checksum, 16) < 2**32 and len(checksum) == 8 for checksum in others)


@pytest.mark.parametrize("scenario", ["class", "task"])
def test_permutations_with_new_units_for_each(scenario: Scenario, data_dir: Path) -> None:
    sequence = build_sequence("permuted_mnist", scenario, seed=7, data_dir=data_dir, n_tasks=3)
    assert sequence.n_outputs == 30
    assert [task.outputs for task in sequence.tasks] == [tuple(range(first, first + 10)) for first in (0, 10, 20)]
    assert sequence.tasks[2].test.labels.tolist() == [20 + label for label in TEST]


def test_a_permutation_does_not_depend_on_how_many_follow(data_dir: Path) -> None:
    def checksums(n_tasks: int, seed: int) -> Any:
        return build_sequence("permuted_mnist", seed=seed, data_dir=data_dir, n_tasks=n_tasks).record["permutations"]

    assert checksums(1, 0) == [None]
    assert checksums(4, 0)[:3] == checksums(3, 0)
    assert checksums(3, 0)[1:] != checksums(3, 1)[1:]


def test_the_default_sequence_needs_no_file(tmp_path: Path) -> None:
    sequence = build_sequence("split_digits", seed=0, data_dir=tmp_path)
    assert (sequence.scenario, sequence.n_features, sequence.n_outputs) == ("class", 64, 10)
    assert sequence.record["train_samples"] == [289, 289, 291, 289, 284]
    assert sequence.record["test_samples"] == [71, 71, 72, 71, 70]


def test_the_real_split_mnist() -> None:
    record = build_sequence("split_mnist", seed=0, data_dir=real_data_dir()).record
    assert record["train_samples"] == [12665, 12089, 11263, 12183, 11800]
    assert record["test_samples"] == [2115, 2042, 1874, 1986, 1983]


MNIST_LIKE = [name for name, spec in SEQUENCES.items() if spec.dataset.endswith("mnist")]


@settings(deadline=None, max_examples=60)
@given(
    name=st.sampled_from(MNIST_LIKE),
    scenario=st.sampled_from(get_args(Scenario)),
    n_tasks=st.sampled_from([1, 2, 5, 10]),
    seed=st.integers(0, 2**31),
    random=st.booleans(),
)
def test_every_sample_is_where_its_class_is(
    data_dir: Path, name: str, scenario: Scenario, n_tasks: int, seed: int, random: bool
) -> None:
    is_split = name.startswith("split")

    def build() -> TaskSequence:
        order: sequences.ClassOrder = "random" if random and is_split else "fixed"
        return build_sequence(name, scenario, seed=seed, data_dir=data_dir, n_tasks=n_tasks, class_order=order)

    sequence = build()
    assert len(sequence) == n_tasks
    for part, stored in (("train", TRAIN), ("test", TEST)):
        rows = np.concatenate([getattr(task, part).rows for task in sequence.tasks])
        assert sorted(rows) == sorted([*range(len(stored))] * (1 if is_split else n_tasks))
        for task in sequence.tasks:
            samples: Samples = getattr(task, part)
            assert samples.features is getattr(sequence.tasks[0], part).features  # no copies
            assert samples.rows.dtype == samples.labels.dtype == np.int64
            assert [task.classes[task.outputs.index(unit)] for unit in samples.labels] == [
                stored[row] for row in samples.rows
            ]
            if samples.order is not None:
                assert sorted(samples.order) == list(range(784))
    units = [unit for task in sequence.tasks for unit in task.outputs]
    assert set(units) == set(range(sequence.n_outputs))
    assert len(units) == sequence.n_outputs * (n_tasks if scenario == "domain" else 1)
    assert json.loads(json.dumps(sequence.record)) == sequence.record == build().record


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "name": ({"name": "split_minst"}, r"unknown sequence 'split_minst'; did you mean 'split_mnist'\?"),
    "scenario": ({"scenario": "tasks"}, r"unknown scenario 'tasks'; did you mean 'task'\?"),
    "order": ({"class_order": "rand"}, r"unknown class order 'rand'; did you mean 'random'\?"),
    "three tasks": ({"n_tasks": 3}, "10 classes cannot be split into 3 tasks; valid: 1, 2, 5, 10$"),
    "no task": ({"n_tasks": 0}, "10 classes cannot be split into 0 tasks; valid: 1, 2, 5, 10$"),
    "no permutation": ({"name": "permuted_mnist", "n_tasks": 0}, "number of tasks must be at least 1, got 0"),
    "order of all classes": (
        {"name": "permuted_mnist", "class_order": "random"},
        "every task has all classes, so class order 'random' has no meaning; use 'fixed'",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_values_are_named_before_data_is_looked_for(case: str, tmp_path: Path) -> None:
    arguments, problem = BAD[case]
    with pytest.raises(ConfigError, match=problem):
        build_sequence(**{"name": "split_mnist", "seed": 0, "data_dir": tmp_path, **arguments})


@pytest.mark.parametrize("name", MNIST_LIKE)
def test_a_class_without_samples_is_named(name: str, tmp_path: Path) -> None:
    folder = tmp_path / SEQUENCES[name].dataset
    write_mnist(folder, [label for label in TRAIN if label != 4], TEST)
    with pytest.raises(ConfigError, match=r"class 4 of .*mnist has no training samples"):
        build_sequence(name, seed=0, data_dir=tmp_path)
    write_mnist(folder, TRAIN, [label for label in TEST if label != 9])
    with pytest.raises(ConfigError, match=r"class 9 of .*mnist has no test samples"):
        build_sequence(name, seed=0, data_dir=tmp_path)


def test_download_is_passed_on(monkeypatch: pytest.MonkeyPatch, data_dir: Path) -> None:
    asked = []
    load = sequences.load

    def spy(name: str, data_dir: Path | None, download: bool) -> Any:
        asked.append(download)
        return load(name, data_dir)

    monkeypatch.setattr(sequences, "load", spy)
    build_sequence("split_mnist", seed=0, data_dir=data_dir)
    build_sequence("split_mnist", seed=0, data_dir=data_dir, download=True)
    assert asked == [False, True]


def test_every_sequence_has_a_line_of_its_own() -> None:
    summaries = [spec.summary for spec in SEQUENCES.values()]
    assert len(set(summaries)) == len(SEQUENCES)
    assert all(summary and "\n" not in summary for summary in summaries)
