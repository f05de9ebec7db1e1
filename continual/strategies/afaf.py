"""AFAF: a new task's sub-network reads neurons of earlier tasks that answer to its classes, and leads to free ones.

Decides which neurons are candidates, and how many connections go where. Who owns what, and which neurons are reserved,
is `sparserl.continual.shared.sub_networks`, shared with SpaceNet; what is dropped and grown is decided in
`sparserl.topology`, by the rule that is named here.

The first tasks get connections between free neurons. From task `reuse_from` on, training samples of a task pass
through the network before it is trained; in each hidden layer but the last, the neurons of highest mean activation
for a class are its candidates. Connections of the class may come from candidates, reserved ones among them, and from
some free neurons; they lead to such of these as are free. The last hidden layer has free neurons alone, so that what
tells classes apart is a task's own, and the first `reused_layers` layers get no connections.

Source:
    Sokar, Mocanu and Pechenizkiy 2022, "Avoiding Forgetting and Allowing Forward Transfer in Continual Learning via
    Sparse Networks" (ECML PKDD), and its released code, which is about convolutional networks on CIFAR.

Known differences from the released code:
    - Truly sparse: a connection that no task owns has no weight. New weights are drawn when they appear; the code takes
      them from one dense draw that it stores, and draws biases, which are 0 here.
    - What a dropped connection had gathered of importance is forgotten unless it grows again in the same event; in the
      code it comes back with the connection.
    - Where connections have no room between the neurons of a class, more free neurons are drawn; the code stops.
    - With the task given, outputs of other tasks do not compete; in the code their logits are 0, and may win.
    - Perceptrons: fractions are those of its fully connected layers. The layers that get no connections there are its
      three convolutions; here none by default.

It is for classifiers: candidates are neurons that answer to a class, of which an agent's actions have none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from sparserl.continual.learner import Group, Kind, Learner
from sparserl.continual.shared.capacity import check_capacity
from sparserl.continual.shared.owned import TaskPart
from sparserl.continual.shared.row_archive import RowArchive
from sparserl.continual.shared.sub_networks import OF_ONE_TASK, SubNetworks
from sparserl.continual.shared.task_network import ClassifierNetwork, TaskNetwork
from sparserl.continual.shared.usage import ConnectionUsage
from sparserl.continual.strategies.options import Options
from sparserl.continual.strategies.strategy import BringsConnections
from sparserl.errors import ConfigError, unknown_name
from sparserl.layers import SparseMLP
from sparserl.ranges import Count, CountOrZero, PositiveShare, Share, ShareBelowOne
from sparserl.seeding import stream
from sparserl.topology.rewire import RewireRule
from sparserl.topology.structure import Flags, FloatArray, Slots

Candidates = Literal["most", "random", "least"]
ADVICE = ", or lower afaf.fixed, afaf.fixed-last or afaf.density"
RULE = RewireRule("connection_importance", "neuron_importance_any", keep_regrown=True)


@dataclass(frozen=True)
class AFAFOptions(Options):
    """Capacity of the tasks, and what they reuse. Defaults are those of the released script for fully connected layers.

    Raises:
        ConfigError: If a value is out of range.
    """

    allocated: PositiveShare = 0.2
    """Share of a hidden layer's neurons that a task may use, in (0, 1]."""
    allocated_last: PositiveShare = 0.1
    """The same for the last hidden layer."""
    fixed: Share = 0.3
    """Of these, share that later tasks cannot change: the most important ones, in [0, 1]."""
    fixed_last: Share = 1.0
    """The same for the last hidden layer."""
    density: PositiveShare = 0.25
    """Connections of a task: share of those that its allocated neurons could have, in (0, 1]."""
    density_last: PositiveShare = 0.7
    """The same for the output layer."""
    candidates: Candidates = "most"
    """Neurons of earlier tasks that a class may read: those that answer to it most, random ones, or those that answer
    least and are not silent."""
    reused: Share = 0.3
    """How many these are in a hidden layer, as a share of the allocated neurons, in [0, 1]."""
    added: Share = 0.7
    """Free neurons beside them, likewise."""
    reuse_from: Count = 2
    """Tasks that are learned from free neurons alone, before later ones reuse any."""
    reused_layers: CountOrZero = 0
    """First layers that get no connections when neurons are reused; fewer than there are hidden layers."""
    drop_fraction: ShareBelowOne = 0.2
    """Share of a task's connections in a hidden layer that move at the end of each epoch but the last, in [0, 1)."""
    initial_value: Literal["uniform", "xavier", "sparse_fan_in"] = "uniform"
    """Weights of a task's first connections."""

    group: ClassVar[str] = "afaf"
    defaults: ClassVar[Mapping[Kind, Mapping[str, Any]]] = {
        "classifier": {
            "allocated": 0.2,
            "allocated_last": 0.1,
            "fixed": 0.3,
            "fixed_last": 1.0,
            "density": 0.25,
            "density_last": 0.7,
            "candidates": "most",
            "reused": 0.3,
            "added": 0.7,
            "reuse_from": 2,
            "reused_layers": 0,
            "drop_fraction": 0.2,
            "initial_value": "uniform",
        }
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.candidates not in get_args(Candidates):
            raise ConfigError(unknown_name("afaf.candidates", self.candidates, get_args(Candidates)))

    def allocated_of(self, hidden: Sequence[int]) -> list[int]:
        """Neurons of each hidden layer that a task may use, at least one."""
        *others, last = hidden
        return [*(max(1, int(self.allocated * count)) for count in others), max(1, int(self.allocated_last * last))]

    def fixed_of(self, hidden: Sequence[int]) -> list[int]:
        """Those of them that are reserved after a task."""
        *others, last = self.allocated_of(hidden)
        return [*(int(self.fixed * count) for count in others), int(self.fixed_last * last)]

    def connections_of(self, sizes: Sequence[int], outputs: int, *, reusing: bool) -> list[int]:
        """Connections of a task in each layer.

        Args:
            sizes: Neurons of each layer of the network, the input first.
            outputs: Of the task.
            reusing: Whether the first layers get none.
        """
        between = [*pairwise([sizes[0], *self.allocated_of(sizes[1:-1]), outputs])]
        densities = [self.density] * (len(between) - 1) + [self.density_last]
        counts = [int(density * a * b) for density, (a, b) in zip(densities, between, strict=True)]
        skipped = self.reused_layers if reusing else 0
        return [0] * skipped + counts[skipped:]


class AFAF(BringsConnections):
    """AFAF on a classifier; with the task given or not, the union of all sub-networks answers."""

    counted_by = "afaf.density"
    of_one_task = OF_ONE_TASK
    options: AFAFOptions

    # Before anything is trained.

    def connections(self, sizes: Sequence[int], n_tasks: int) -> int:
        """As many as if no layer were reused."""
        return sum(self.options.connections_of(sizes, sizes[-1], reusing=False)) * n_tasks

    def attach(self, learner: Learner) -> None:
        """Gives no connections yet.

        Raises:
            ConfigError: If all hidden layers would be reused, or some task might find no room for its connections.
        """
        super().attach(learner)
        (group,) = learner.groups.values()
        (network,) = group.networks
        assert isinstance(network, ClassifierNetwork)
        assert group.evolver is not None
        self._sizes, self._seed = network.sizes, learner.seed
        hidden, opt = self._sizes[1:-1], self.options
        if opt.reused_layers >= len(hidden):
            raise ConfigError(
                f"afaf.reused-layers {opt.reused_layers} must be below the number of hidden layers, {len(hidden)}: "
                f"use {len(hidden) - 1}, or more layers in learner.hidden"
            )
        self._outputs = [np.flatnonzero(network.outputs_of(task)) for task in range(learner.n_tasks)]
        self._archive = RowArchive.of(group.evolver, network)
        counts = [self._connections(task) for task in range(learner.n_tasks)]
        room: dict[str, Any] = {"outputs": [len(own) for own in self._outputs], "archived": self._archive is not None}
        check_capacity(counts, self._sizes[0], hidden, opt.fixed_of(hidden), advice=ADVICE, **room)
        self._shared = SubNetworks(
            group.evolver,
            list(network.shared),
            selected=opt.allocated_of(hidden),
            reserved=opt.fixed_of(hidden),
            n_tasks=learner.n_tasks,
            seed=learner.seed,
            neuron_importance="cumulative",
            outputs=network.outputs_of,
            outgoing=True,
            reserves_selected=True,
            advice=ADVICE,
        )

    def _connections(self, task: int) -> list[int]:
        """Of a task in each layer, the same number for each class where neurons are reused."""
        own, reusing = self._outputs[task], self._reuses(task)
        counts = self.options.connections_of(self._sizes, own.size, reusing=reusing)
        return [count // own.size * own.size for count in counts] if reusing else counts

    def _reuses(self, task: int) -> bool:
        return task >= self.options.reuse_from

    # Around a task.

    def begin_task(self, learner: Any) -> None:
        """Puts the last task's classifier rows away, chooses neurons and allocates connections between them."""
        shared, task = self._shared, learner.task
        shared.evolver.begin_update(learner.updates)
        # No hidden activation depends on the rows.
        sums, counts = learner.activity() if self._reuses(task) else ({}, {})
        activity = {unit: [one / counts[unit] for one in of_layers] for unit, of_layers in sums.items()}
        if self._archive is not None:
            self._archive.put_away(task - 1)
        if activity:
            shared.begin_task_in_parts(task, self._parts(task, activity), self.options.initial_value)
        else:
            shared.begin_task(task, self._connections(task), self.options.initial_value)
        shared.freeze(learner.frozen)

    def _parts(self, task: int, activity: Mapping[int, Sequence[FloatArray]]) -> list[TaskPart]:
        """A part for each class: its candidates, and free neurons that all classes of the task share."""
        opt, free = self.options, self._shared.free
        allocated = opt.allocated_of(self._sizes[1:-1])
        read = range(max(0, opt.reused_layers - 1), len(free) - 1)  # hidden layers that new connections come from
        units = self._outputs[task].tolist()
        candidates = {
            (unit, index): candidates_of(
                activity[unit][index], int(opt.reused * allocated[index]), opt.candidates, self._draw(task, index, unit)
            )
            for unit in units
            for index in read
        }
        shared = [np.zeros_like(flags) for flags in free]
        for index in read:  # beside the candidates of the first class, as in the released code
            others = free[index] & ~_flags(candidates[units[0], index], free[index].size)
            shared[index] = _some(others, int(opt.added * allocated[index]), self._draw(task, index))
        shared[-1] = _some(free[-1], allocated[-1], self._draw(task, len(free) - 1))
        counts = [count // len(units) for count in self._connections(task)]
        parts = []
        for unit in units:
            selected = [flags.copy() for flags in shared]
            for index in read:
                selected[index][candidates[unit, index]] = True
            parts.append(TaskPart(_flags(np.array([unit]), self._sizes[-1]), selected, counts))
        return parts

    def _draw(self, task: int, index: int, unit: int | None = None) -> np.random.Generator:
        return stream(self._seed, "afaf", str(task), str(index), str(unit))

    def before_step(self, learner: Learner, group: Group) -> None:
        """Remembers the weights, to see how far they move."""
        self._shared.before_step()

    def after_step(self, learner: Learner, group: Group) -> None:
        """Gathers importances."""
        self._shared.after_step()

    def end_epoch(self, learner: Any) -> None:
        """Moves connections of hidden layers, but for reused ones, towards important neurons."""
        evolver = self._shared.evolver
        evolver.begin_update(learner.updates)
        rule = replace(RULE, drop_fraction=self.options.drop_fraction)
        for name, count in zip(self._shared.names[:-1], self._connections(learner.task), strict=False):
            if count:
                evolver.rewire(name, rule)
        self._shared.freeze(learner.frozen)

    def end_task(self, learner: Learner) -> None:
        """Reserves the most important of the neurons that the task may use, in each hidden layer."""
        self._shared.reserve()

    # What it leaves behind.

    def network_for_task(self, learner: Learner, task: int) -> SparseMLP:
        """The union of all tasks' connections, rows of earlier tasks restored."""
        network = learner.networks[0].of_task(task)
        return network if self._archive is None else self._archive.answering(network)

    def usage(self, learner: Learner, network: TaskNetwork) -> list[ConnectionUsage]:
        usages = self._shared.usage(learner.task)
        return usages if self._archive is None else [*usages[:-1], self._archive.with_rows(usages[-1])]

    def memory(self) -> dict[str, int]:
        """The owner of each connection."""
        return self._shared.memory()

    def state_dict(self) -> dict[str, Any]:
        """Owners, importances, reservations, archived rows and the clock."""
        archive = [] if self._archive is None else self._archive.state()
        return {**self._shared.state_dict(), "archive": archive, "evolver": self._shared.evolver.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._shared.load_state_dict(state)
        self._shared.check_fits()
        self._shared.evolver.load_state_dict(state["evolver"])
        if self._archive is not None:
            self._archive.load_state(state["archive"])


def candidates_of(activity: FloatArray, count: int, kind: Candidates, rng: np.random.Generator) -> Slots:
    """Neurons of one hidden layer that a class may read, in the order in which they were chosen.

    Args:
        activity: (n,) mean activation of each for the class, >= 0.
        count: How many; fewer of `least` where fewer are not silent.
        kind: Which; among equals the first.
        rng: Of `random`.

    Example:
        >>> candidates_of(np.array([0.0, 0.9, 0.3, 0.0, 0.7, 0.1]), 2, "least", np.random.default_rng(0)).tolist()
        [5, 2]
    """
    if kind == "random":
        return rng.choice(activity.size, min(count, activity.size), replace=False)
    if kind == "most":
        return np.argsort(-activity, kind="stable")[:count]
    ranked = np.argsort(activity, kind="stable")
    return ranked[activity[ranked] > 0.0][:count]


def _some(among: Flags, count: int, rng: np.random.Generator) -> Flags:
    """Of neurons, as many as there are up to `count`, uniform."""
    neurons = np.flatnonzero(among)
    return _flags(rng.choice(neurons, min(count, neurons.size), replace=False), among.size)


def _flags(neurons: Slots, size: int) -> Flags:
    flags = np.zeros(size, bool)
    flags[neurons] = True
    return flags
