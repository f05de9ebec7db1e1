"""SpaceNet: each task gets a sparse sub-network among neurons that no earlier task has reserved.

Decides who owns which connection, which neurons are open, and how important connections and neurons are. What is
dropped and grown is decided in `sparserl.topology`, by the rule that is named here.

Source:
    Sokar, Mocanu and Pechenizkiy 2021, "SpaceNet: Make Free Space for Continual Learning", and its released code.

Known differences from the released code:
    * Truly sparse: a connection that no task owns has no weight. New weights are drawn from Xavier's distribution when
      they appear; the code takes them from one dense draw that it stores.
    * What a dropped connection had gathered of importance is forgotten; in the code it comes back with the connection.
    * Accuracy right after a task is measured with all archived classifier rows restored; the code's own number uses
      the rows of the present task alone.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from sparserl.continual.strategy import LayerUse, Strategy
from sparserl.continual.supervised import LearnerConfig, SupervisedLearner
from sparserl.errors import ConfigError
from sparserl.layers import SparseLinear, SparseMLP
from sparserl.seeding import stream
from sparserl.topology.evolver import TopologyEvolver, optimizer_moments
from sparserl.topology.rewire import RewireRule, exchange, remap
from sparserl.topology.structure import (
    Constraint,
    FloatArray,
    Importance,
    LayerView,
    SparseTopology,
    TopologyChange,
)

FREE = -1
"""Task that has reserved a neuron, where none has."""
GROUP = "network"


@dataclass(frozen=True)
class SpaceNetOptions:
    """Capacity of a task, and how connections move. Defaults: the released split-MNIST script.

    Raises:
        ConfigError: If a value is out of range.
    """

    connections: tuple[int, ...] = (10_000, 1_640, 80)
    """Connections of a task in each layer."""
    selected: tuple[int, ...] = (80, 80)
    """Neurons of each hidden layer that a task may use, drawn among the free ones; more where its connections have no
    room."""
    reserved: tuple[int, ...] = (40, 40)
    """Neurons of each hidden layer that are closed to later tasks after a task: the most important ones."""
    rewire: bool = True
    """Whether connections move at the end of each epoch but the last."""
    drop_fraction: float = 0.2
    """Share of a task's connections in a hidden layer that move at such an event."""
    neuron_importance: Literal["cumulative", "final"] = "cumulative"
    """Importance of a neuron: the sum of its connections' importances as it is, or that sum added up over all steps (as
    released; early steps count often)."""
    initial_value: Literal["xavier", "sparse_fan_in", "uniform"] = "xavier"
    """Weights of a task's first connections."""

    def __post_init__(self) -> None:
        hidden = len(self.connections) - 1
        if hidden < 1 or len(self.selected) != hidden or len(self.reserved) != hidden:
            raise ConfigError(
                f"spacenet.connections needs one number a layer, spacenet.selected and spacenet.reserved one a hidden "
                f"layer, got {len(self.connections)}, {len(self.selected)} and {len(self.reserved)}"
            )
        for name in ("connections", "selected"):
            if min(getattr(self, name)) < 1:
                raise ConfigError(f"spacenet.{name} must be at least 1, got {getattr(self, name)}")
        if min(self.reserved) < 0:
            raise ConfigError(f"spacenet.reserved must not be negative, got {self.reserved}")
        if not 0.0 <= self.drop_fraction < 1.0:
            raise ConfigError(f"spacenet.drop-fraction must be in [0, 1), got {self.drop_fraction}")


@dataclass
class _Layer:
    """What is known of one layer beyond its weights.

    Attributes:
        owner: (nnz,) int16 task of each connection.
        importance: (nnz,) gathered over the steps of the present task.
        before: (nnz,) weights before the step that is being taken.
    """

    owner: np.ndarray
    importance: FloatArray
    before: FloatArray


class SpaceNet(Strategy):
    """SpaceNet; with `rewire` off it is the paper's Static-SparseNN."""

    options: SpaceNetOptions
    evolver: TopologyEvolver

    # Before anything is trained.

    def check(self, config: LearnerConfig) -> None:
        """Raises ConfigError, with the numbers, if the network does not fit the options or is too small."""
        own = self.options
        if len(config.hidden) != len(own.selected):
            raise ConfigError(
                f"spacenet.connections is for {len(own.selected)} hidden layer(s), "
                f"learner.hidden has {len(config.hidden)}"
            )
        if config.density != 1.0:
            raise ConfigError("SpaceNet counts connections (spacenet.connections), so leave learner.density at 1")
        for task in range(len(self.sequence)):
            free = [max(0, n - task * taken) for n, taken in zip(config.hidden, own.reserved, strict=True)]
            sides = [self.sequence.n_features, *free, len(self.sequence.tasks[task].outputs)]
            for layer, wanted in enumerate(own.connections):
                earlier = 0 if self._archives and layer == len(own.selected) else task * wanted
                cells = sides[layer] * sides[layer + 1]
                if cells - earlier < wanted:
                    raise ConfigError(
                        f"task {task + 1} of {len(self.sequence)} needs {wanted} connections in layer {layer}, where "
                        f"{sides[layer]} x {sides[layer + 1]} free neurons have room for {cells}, {earlier} of it "
                        "taken by earlier tasks: use more hidden neurons, or lower spacenet.reserved or "
                        "spacenet.connections"
                    )

    def make_network(self, sizes: Sequence[int], config: LearnerConfig) -> SparseMLP:
        """A network without any connection; biases are 0."""
        del config
        nothing = np.empty(0, np.int64)
        layers = [SparseLinear(SparseTopology(n_out, n_in, nothing)) for n_in, n_out in pairwise(sizes)]
        for layer in layers:
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
        self._layers = layers
        self._known = [_Layer(np.empty(0, np.int16), np.empty(0, np.float32), np.empty(0, np.float32)) for _ in layers]
        hidden = sizes[1:-1]
        self._reserved_by = [np.full(count, FREE) for count in hidden]
        self._selected = [np.zeros(count, bool) for count in hidden]
        # Of the neurons that feed each layer.
        self._cumulative = [np.zeros(count) for count in sizes[:-1]]
        self._archive: list[tuple[SparseTopology, FloatArray, int]] = []
        rule = RewireRule("connection_importance", "neuron_importance", drop_fraction=self.options.drop_fraction)
        self.evolver = TopologyEvolver({GROUP: dict(zip(self._names, layers, strict=True))}, rule, seed=self.seed)
        for place, name in enumerate(self._names):
            self.evolver.amend(name, functools.partial(self._amend, place))
            self.evolver.follow(name, functools.partial(self._follow, place))
        self._task = 0
        return SparseMLP(layers)

    @property
    def _names(self) -> list[str]:
        return [f"{GROUP}.{place}" for place in range(len(self._layers))]

    @property
    def _archives(self) -> bool:
        """Whether each task has classifier rows of its own, which leave the network while others are trained."""
        return self.sequence.scenario != "domain"

    # Around a task.

    def begin_task(self, learner: SupervisedLearner) -> None:
        """Puts the last task's classifier rows away, chooses neurons and allocates connections between them."""
        self._optimizer = learner.optimizer
        self._task = learner.task
        self.evolver.begin_update(learner.steps)
        if self._archives and self._layers[-1].nnz:
            self._archive_classifier()
        self._select()
        for known in self._known:
            known.importance[:] = 0.0
        for sums in self._cumulative:
            sums[:] = 0.0
        for name, count in zip(self._names, self.options.connections, strict=True):
            self.evolver.allocate(name, count, new_value=self.options.initial_value)
        self._freeze(learner)

    def before_step(self, learner: SupervisedLearner) -> None:
        """Remembers the weights, to see how far they move."""
        for layer, known in zip(self._layers, self._known, strict=True):
            known.before = layer.values.detach().numpy().copy()

    def after_step(self, learner: SupervisedLearner) -> None:
        """Adds |step| times |gradient| to each connection's importance (section 3.2 of the paper)."""
        for layer, known in zip(self._layers, self._known, strict=True):
            assert layer.values.grad is not None
            moved = np.abs(layer.values.detach().numpy() - known.before)
            known.importance += moved * np.abs(layer.values.grad.numpy())
        if self.options.neuron_importance == "cumulative":
            for place, sums in enumerate(self._cumulative):
                sums += self._summed(place)

    def end_epoch(self, learner: SupervisedLearner) -> None:
        """Moves connections of hidden layers towards important neurons, except after the last epoch."""
        if not self.options.rewire or learner.epoch == learner.config.epochs - 1:
            return
        self._optimizer = learner.optimizer
        self.evolver.begin_update(learner.steps)
        for name in self._names[:-1]:
            self.evolver.rewire(name)
        self._freeze(learner)

    def end_task(self, learner: SupervisedLearner) -> None:
        """Reserves the most important free neurons of each hidden layer; after the last task nobody needs them."""
        if learner.task == len(self.sequence) - 1:
            return
        for place, reserved_by in enumerate(self._reserved_by):
            free = np.flatnonzero(reserved_by == FREE)
            worth = self._neurons(place + 1)[free]
            reserved_by[free[np.argsort(-worth, kind="stable")[: self.options.reserved[place]]]] = learner.task

    # What it leaves behind.

    def answering(self, learner: SupervisedLearner, task: int) -> nn.Module:
        """The union of all tasks' connections, classifier rows of earlier tasks restored."""
        if not self._archive:
            return learner.network
        last = self._layers[-1]
        rows = [(topology.flat, values) for topology, values, _ in self._archive]
        rows.append((last.topology.flat, last.values.detach().numpy()))
        flat = np.concatenate([positions for positions, _ in rows])
        order = np.argsort(flat)
        values = torch.from_numpy(np.concatenate([own for _, own in rows])[order])
        classifier = SparseLinear.of(SparseTopology(last.n_out, last.n_in, flat[order]), values, last.bias)
        return SparseMLP([*self._layers[:-1], classifier])

    def uses(self, learner: SupervisedLearner) -> list[LayerUse]:
        """Connections and neurons by task."""
        tasks = len(self.sequence)
        found = []
        for place, (name, layer, known) in enumerate(zip(self._names, self._layers, self._known, strict=True)):
            owned = np.bincount(known.owner, minlength=tasks)
            reserved = 0
            if place < len(self._reserved_by):
                reserved = int(np.count_nonzero(self._reserved_by[place] != FREE))
            else:
                for topology, _, task in self._archive:
                    owned[task] += topology.nnz
            found.append(
                LayerUse(
                    layer=name,
                    owned=tuple(owned[: learner.task].tolist()),
                    frozen=int(owned[: learner.task].sum()),
                    size=layer.n_out * layer.n_in,
                    neurons=layer.n_out,
                    reserved=reserved,
                )
            )
        return found

    def memory(self) -> dict[str, int]:
        """The owner of each connection."""
        return {"owners": sum(known.owner.nbytes for known in self._known)}

    def state_dict(self) -> dict[str, Any]:
        """Owners, importances, reservations, archived rows and the topology clock."""
        return {
            "task": self._task,
            "owner": [known.owner for known in self._known],
            "importance": [known.importance for known in self._known],
            "cumulative": self._cumulative,
            "reserved_by": self._reserved_by,
            "selected": self._selected,
            "archive": [[topology.flat, values, task] for topology, values, task in self._archive],
            "evolver": self.evolver.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues where `state_dict` was taken; the network's own state is loaded before."""
        self._task = state["task"]
        for known, owner, importance in zip(self._known, state["owner"], state["importance"], strict=True):
            known.owner, known.importance = owner.numpy(), importance.numpy()
        self._cumulative = [sums.numpy() for sums in state["cumulative"]]
        self._reserved_by = [tasks.numpy() for tasks in state["reserved_by"]]
        self._selected = [chosen.numpy() for chosen in state["selected"]]
        last = self._layers[-1]
        self._archive = [
            (SparseTopology(last.n_out, last.n_in, flat.numpy()), values.numpy(), task)
            for flat, values, task in state["archive"]
        ]
        self.evolver.load_state_dict(state["evolver"])

    # Inside.

    def _select(self) -> None:
        """Draws the neurons that the task may use, and more while some layer has no room for its connections."""
        spare = []
        for place, reserved_by in enumerate(self._reserved_by):
            free = np.flatnonzero(reserved_by == FREE)
            rng = stream(self.seed, "select", str(self._task), str(place))
            chosen = rng.choice(free, min(self.options.selected[place], free.size), replace=False)
            self._selected[place] = np.isin(np.arange(reserved_by.size), chosen)
            spare.append(list(rng.permutation(np.setdiff1d(free, chosen))))
        while (full := self._full_layer()) is not None:
            # Of the hidden layers at its two ends, the one with more neurons left.
            ends = [place for place in (full - 1, full) if 0 <= place < len(spare)]
            place = max(ends, key=lambda end: len(spare[end]))
            self._selected[place][spare[place].pop()] = True

    def _full_layer(self) -> int | None:
        """A layer whose open neurons have too few free positions for the task's connections."""
        for place, (layer, wanted) in enumerate(zip(self._layers, self.options.connections, strict=True)):
            constraint = self._constraint(place)
            topology = layer.topology
            taken = np.count_nonzero(constraint.open_out[topology.outputs] & constraint.open_in[topology.inputs])
            if constraint.open_out.sum() * constraint.open_in.sum() - taken < wanted:
                return place
        return None

    def _amend(self, place: int, view: LayerView) -> LayerView:
        """What the present task may touch of a layer, and how important its parts are."""
        outputs = self._neurons(place + 1) if self._is_hidden(place) else np.zeros(view.topology.n_out)
        importance = Importance(self._known[place].importance, outputs, self._neurons(place))
        return dataclasses.replace(view, constraint=self._constraint(place), importance=importance)

    def _constraint(self, place: int) -> Constraint:
        layer = self._layers[place]
        units = list(self.sequence.tasks[self._task].outputs)
        return Constraint(
            frozen=self._known[place].owner < self._task,
            open_out=self._selected[place] if self._is_hidden(place) else np.isin(np.arange(layer.n_out), units),
            open_in=self._selected[place - 1] if place else np.ones(layer.n_in, bool),
        )

    def _is_hidden(self, place: int) -> bool:
        """Whether the outputs of layer `place` are hidden neurons."""
        return place < len(self._layers) - 1

    def _neurons(self, place: int) -> FloatArray:
        """Importance of the neurons that feed layer `place`; 0 for reserved ones, which get no connections."""
        cumulative = self.options.neuron_importance == "cumulative"
        return self._cumulative[place] if cumulative else self._summed(place)

    def _summed(self, place: int) -> FloatArray:
        """Summed importance of the connections of the neurons that feed layer `place`: outgoing ones of input neurons,
        incoming ones of the others."""
        layer = self._layers[max(0, place - 1)]
        topology = layer.topology
        neurons, count = (topology.outputs, layer.n_out) if place else (topology.inputs, layer.n_in)
        weights = self._known[max(0, place - 1)].importance.astype(np.float64)
        return np.asarray(np.bincount(neurons, weights=weights, minlength=count), np.float64)

    def _follow(self, place: int, change: TopologyChange, grown_values: float | FloatArray) -> None:
        known = self._known[place]
        known.owner = remap(known.owner, change, self._task)
        known.importance = remap(known.importance, change)
        optimizer_moments(self._optimizer, self._layers[place].values)(change, grown_values)

    def _archive_classifier(self) -> None:
        layer = self._layers[-1]
        everything = np.arange(layer.nnz)
        self._archive.append((layer.topology, layer.values.detach().numpy(), self._task - 1))
        change = exchange(layer.topology, everything, np.empty(0, np.int64))
        self.evolver.apply(self._names[-1], change, "archive")

    def _freeze(self, learner: SupervisedLearner) -> None:
        """Holds the connections of earlier tasks, and biases of reserved neurons and of other tasks' outputs."""
        for layer, known in zip(self._layers, self._known, strict=True):
            learner.frozen.freeze(layer.values, torch.from_numpy(np.flatnonzero(known.owner < self._task)))
        units = list(self.sequence.tasks[self._task].outputs)
        closed = [reserved_by != FREE for reserved_by in self._reserved_by]
        closed.append(~np.isin(np.arange(self._layers[-1].n_out), units))
        for layer, neurons in zip(self._layers, closed, strict=True):
            assert layer.bias is not None
            learner.frozen.freeze(layer.bias, torch.from_numpy(np.flatnonzero(neurons)))
