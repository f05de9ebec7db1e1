"""Which tasks a data set is cut into, and which output units their classes get.

Decides order of classes, permutations and output units, from the seed alone. Independent of file formats, learners and
strategies.

Source:
    Split and permuted MNIST as in van de Ven et al. 2022, "Three types of incremental learning"; Hsu et al. 2018.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from sparserl.continual.supervised.data import DATASETS, Dataset, DatasetSpec, load
from sparserl.continual.supervised.tasks import Integers, Part, Samples, Scenario, Task, TaskSequence
from sparserl.errors import ConfigError, unknown_name
from sparserl.seeding import stream

ClassOrder = Literal["fixed", "random"]


@dataclass(frozen=True)
class TaskPlan:
    """A task before there is data; the attributes are those of `Task` and `Samples`."""

    name: str
    classes: tuple[int, ...]
    outputs: tuple[int, ...]
    order: Integers | None = None


Plan = Callable[[DatasetSpec, Scenario, int, ClassOrder, int], list[TaskPlan]]
"""(data set, scenario, number of tasks, order of classes, seed) -> the tasks."""


@dataclass(frozen=True)
class SequenceSpec:
    """A way to make tasks.

    Attributes:
        dataset: Name in `DATASETS`.
        plan: Says which tasks.
        scenario: Unless another is asked for.
        n_tasks: Unless another number is asked for.
        summary: One line.
    """

    dataset: str
    plan: Plan
    scenario: Scenario
    n_tasks: int
    summary: str


def build_sequence(
    name: str,
    scenario: Scenario | None = None,
    *,
    seed: int,
    data_dir: Path | None = None,
    download: bool = False,
    n_tasks: int | None = None,
    class_order: ClassOrder = "fixed",
) -> TaskSequence:
    """The tasks of a sequence; they share the arrays of the data set.

    Args:
        name: Name in `SEQUENCES`.
        scenario: None for the usual one of this sequence.
        seed: Seed of the run, >= 0; orders of classes and permutations come from it.
        data_dir: Folder that holds a folder for each data set; None for the default one.
        download: Fetches missing data first.
        n_tasks: None for the usual number.
        class_order: `"fixed"` is 0, 1, 2, ...; `"random"` is drawn from the seed.

    Raises:
        ConfigError: If a name or number is not valid, data is missing or wrong, or a class has no samples.
    """
    if name not in SEQUENCES:
        raise ConfigError(unknown_name("sequence", name, SEQUENCES))
    spec = SEQUENCES[name]
    scenario = spec.scenario if scenario is None else scenario
    if scenario not in get_args(Scenario):
        raise ConfigError(unknown_name("scenario", scenario, get_args(Scenario)))
    if class_order not in CLASS_ORDERS:
        raise ConfigError(unknown_name("class order", class_order, CLASS_ORDERS))
    n_tasks = spec.n_tasks if n_tasks is None else n_tasks
    plans = spec.plan(DATASETS[spec.dataset], scenario, n_tasks, class_order, seed)  # before data is read or fetched
    data = load(spec.dataset, data_dir, download)
    for what, part in (("training", data.train), ("test", data.test)):
        counts = np.bincount(part.labels, minlength=data.n_classes)
        if not counts.all():
            raise ConfigError(f"class {counts.argmin()} of {data.name} has no {what} samples")
    tasks = tuple(_task(index, plan, data) for index, plan in enumerate(plans))
    checksums = [None if plan.order is None else f"{zlib.crc32(plan.order.tobytes()):08x}" for plan in plans]
    record = {
        "dataset": spec.dataset,
        "n_tasks": n_tasks,
        "class_order": list(dict.fromkeys(label for task in tasks for label in task.classes)),
        "train_samples": [len(task.train) for task in tasks],
        "test_samples": [len(task.test) for task in tasks],
        "permutations": checksums,  # None: features as stored
    }
    n_outputs = 1 + max(unit for task in tasks for unit in task.outputs)
    return TaskSequence(name, scenario, tasks, data.train.features.shape[1], n_outputs, record, image=data.image)


def split(spec: DatasetSpec, scenario: Scenario, n_tasks: int, class_order: ClassOrder, seed: int) -> list[TaskPlan]:
    """Each task has classes of its own, equally many.

    A class keeps its id as its output unit; in the domain scenario its unit is its index within its task.

    Raises:
        ConfigError: If the number of tasks does not divide the number of classes.
    """
    plans = []
    for own in classes_of_splits(CLASS_ORDERS[class_order](spec.n_classes, seed), n_tasks):
        outputs = tuple(range(len(own))) if scenario == "domain" else own
        plans.append(TaskPlan(f"classes {' '.join(map(str, own))}", own, outputs))
    return plans


def classes_of_splits(classes: Sequence[int], n_tasks: int) -> list[tuple[int, ...]]:
    """Classes of each task, equally many, in order.

    Raises:
        ConfigError: If the number of tasks does not divide the number of classes.
    """
    count = len(classes)
    valid = [n for n in range(1, count + 1) if count % n == 0]
    if n_tasks not in valid:
        raise ConfigError(f"{count} classes cannot be split into {n_tasks} tasks; valid: {', '.join(map(str, valid))}")
    size = count // n_tasks
    return [tuple(classes[start : start + size]) for start in range(0, count, size)]


def permuted(spec: DatasetSpec, scenario: Scenario, n_tasks: int, class_order: ClassOrder, seed: int) -> list[TaskPlan]:
    """Each task has all classes, and its own order of the features; the first has them as stored.

    In the domain scenario all tasks share the output units; in the others each has new ones.

    Raises:
        ConfigError: If there is no task, or an order of classes is asked for.
    """
    if n_tasks < 1:
        raise ConfigError(f"the number of tasks must be at least 1, got {n_tasks}")
    if class_order != "fixed":
        raise ConfigError(f"every task has all classes, so class order {class_order!r} has no meaning; use 'fixed'")
    classes = tuple(range(spec.n_classes))
    plans = []
    for task in range(n_tasks):
        first = 0 if scenario == "domain" else task * spec.n_classes
        order = stream(seed, "permutation", str(task)).permutation(spec.n_features) if task else None
        plans.append(TaskPlan(f"permutation {task}", classes, tuple(first + label for label in classes), order))
    return plans


def _task(index: int, plan: TaskPlan, data: Dataset) -> Task:
    unit_of_class = np.full(data.n_classes, -1)
    unit_of_class[list(plan.classes)] = plan.outputs

    def samples(part: Part) -> Samples:
        units = unit_of_class[part.labels]
        rows = np.flatnonzero(units >= 0)
        return Samples(part.features, rows, units[rows], data.mean, data.std, data.scale, plan.order)

    return Task(index, plan.name, plan.classes, plan.outputs, samples(data.train), samples(data.test))


CLASS_ORDERS: dict[str, Callable[[int, int], list[int]]] = {
    "fixed": lambda n_classes, seed: list(range(n_classes)),
    "random": lambda n_classes, seed: stream(seed, "class_order").permutation(n_classes).tolist(),
}
"""(number of classes, seed) -> class ids in the order in which they are learned."""

SEQUENCES: dict[str, SequenceSpec] = {
    "split_digits": SequenceSpec(
        "digits", split, "class", 5, "digits of 8 x 8 pixels that scikit-learn brings along, 5 tasks of 2 classes"
    ),
    "split_mnist": SequenceSpec("mnist", split, "class", 5, "MNIST, 5 tasks of 2 classes"),
    "split_fashion_mnist": SequenceSpec("fashion_mnist", split, "class", 5, "Fashion-MNIST, 5 tasks of 2 classes"),
    "split_cifar10": SequenceSpec("cifar10", split, "class", 5, "CIFAR-10, 5 tasks of 2 classes"),
    "split_cifar100": SequenceSpec("cifar100", split, "class", 10, "CIFAR-100, 10 tasks of 10 classes"),
    "permuted_mnist": SequenceSpec("mnist", permuted, "domain", 10, "MNIST, 10 tasks with their own order of pixels"),
}
