"""Sparse sub-networks of tasks in layers that they share, between neurons that no earlier task has reserved (SpaceNet),
and from neurons that it has (AFAF).

Decides who owns which connection, which neurons are open, and how important connections and neurons are. What is
dropped and grown is decided in `sparserl.topology`. Independent of when connections move, and how a task is trained.

Source:
    Sokar, Mocanu and Pechenizkiy 2021, "SpaceNet: Make Free Space for Continual Learning", and its released code; the
    same authors 2022, "Avoiding Forgetting and Allowing Forward Transfer in Continual Learning via Sparse Networks"
    (AFAF), and its released code.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from sparserl.continual.shared.capacity import no_room
from sparserl.continual.shared.frozen import FrozenEntries
from sparserl.continual.shared.owned import FREE, OwnedConnections, TaskPart, release
from sparserl.continual.shared.usage import ConnectionUsage
from sparserl.errors import CheckpointError
from sparserl.layers import SparseLinear
from sparserl.layers.convert import check_all_used, connections_of
from sparserl.layers.linear import biases_of
from sparserl.seeding import stream
from sparserl.topology.evolver import TopologyEvolver
from sparserl.topology.rewire import remap
from sparserl.topology.structure import (
    Constraint,
    Flags,
    FloatArray,
    Importance,
    LayerView,
    TopologyChange,
)

NeuronImportance = Literal["cumulative", "final"]


OF_ONE_TASK = ("importance", "cumulative", "selected")
"""Keys of their state of what each task makes anew."""


class SubNetworks:
    """Who owns what in some layers of a network, one after the other; the evolver moves their connections.

    Around a task: `begin_task`, around every step `before_step` and `after_step`, at its end `reserve`. Call `freeze`
    after `begin_task` and after every topology event.

    Args:
        evolver: Holds the layers, and perhaps others. Its views of them get constraints and its events are followed
            here; the caller makes the state of the optimizer follow.
        names: Full names of the layers in it, from the input on: one for each hidden layer, and perhaps an output
            layer. What feeds the first is open to every task.
        selected: Neurons of each hidden layer that a task may use, drawn among the free ones; more where its
            connections have no room.
        reserved: Neurons of each hidden layer that are closed to later tasks after a task: the most important ones.
        n_tasks: Tasks that will be learned.
        seed: Root seed of what is drawn.
        network: Name of the network, if several draw from one seed.
        neuron_importance: Importance of a neuron: the sum of its connections' importances as it is (`final`), or that
            sum added up over all steps (`cumulative`, as released; early steps count often).
        outputs: Gives the (n_out,) open outputs of an output layer, by task; None if there is none.
        owns_biases: Whether the bias of a hidden neuron belongs to the first task that has a connection there, and is 0
            as long as none has; what a task computes then never changes afterwards. Otherwise all tasks share the
            biases of neurons that are not reserved.
        outgoing: Whether hidden neurons matter by their outgoing connections, as in AFAF, not by their incoming ones;
            needs an output layer.
        reserves_selected: Whether the most important of all neurons that a task may use are reserved, as in AFAF, not
            of all free ones; those that an earlier task has reserved are counted, and stay its.
        advice: What helps, beside more neurons, where a task has no room; a clause of a message.

    Attributes:
        layers: Of these names.
        task: That is being learned.
        reserved_by: Of each hidden layer, (n,) the task that has reserved each neuron or `FREE`.
        selected: Of each hidden layer, (n,) whether the present task may use the neuron.
        bias_owner: Of each hidden layer, (n,) int16 the task that each bias belongs to or `FREE`; empty unless
            `owns_biases`.
    """

    def __init__(
        self,
        evolver: TopologyEvolver,
        names: Sequence[str],
        *,
        selected: Sequence[int],
        reserved: Sequence[int],
        n_tasks: int,
        seed: int,
        network: str = "",
        neuron_importance: NeuronImportance = "cumulative",
        outputs: Callable[[int], Flags] | None = None,
        owns_biases: bool = False,
        outgoing: bool = False,
        reserves_selected: bool = False,
        advice: str = "",
    ):
        self.evolver, self.names, self.n_tasks = evolver, list(names), n_tasks
        self._outgoing, self._reserves_selected, self._advice = outgoing, reserves_selected, advice
        self.layers: list[SparseLinear] = [evolver.layers[name] for name in names]  # type: ignore[misc]
        for layer in self.layers:
            check_all_used(layer)
        self._select_count, self._reserve_count = tuple(selected), tuple(reserved)
        self._cumulates, self._outputs = neuron_importance == "cumulative", outputs
        self._draws = functools.partial(stream, seed, *([network] if network else []), "select")
        hidden = [layer.n_out for layer in self.layers[: len(selected)]]
        self._known = [OwnedConnections.unowned(layer.nnz) for layer in self.layers]
        # Of the neurons that feed each layer, and of the last hidden ones.
        self._cumulative = [np.zeros(count) for count in (self.layers[0].n_in, *hidden)]
        self.reserved_by = [np.full(count, FREE) for count in hidden]
        self.selected = [np.zeros(count, bool) for count in hidden]
        self.bias_owner = [np.full(count, FREE, np.int16) for count in hidden] if owns_biases else []
        self.task = 0
        self._part_outputs: Flags | None = None
        for index, name in enumerate(self.names):
            evolver.set_constraint(name, functools.partial(self._constrained, index))
            evolver.follow(name, functools.partial(self._follow, index))

    # Around a task.

    def release(self) -> None:
        """Takes away what layers come with, before the first task: their connections, and biases if tasks own them."""
        for name in self.names:
            release(self.evolver, name)
        for layer, owner in zip(self.layers, self.bias_owner, strict=False):
            biases_of(layer).data[torch.from_numpy(owner == FREE)] = 0.0

    def begin_task(self, task: int, connections: Sequence[int], initial_value: str) -> None:
        """Chooses neurons and allocates connections between them.

        Args:
            task: Begins; tasks begin in order.
            connections: Of the task in each layer.
            initial_value: Name in `sparserl.topology.values.NEW_VALUE`, weight of these connections.

        Raises:
            ConfigError: If the neurons that are left have no room for them.
        """
        self._begin_measuring(task)
        self._select(connections)
        self._allocate(connections, initial_value)

    def begin_task_in_parts(self, task: int, parts: Sequence[TaskPart], initial_value: str) -> None:
        """Allocates connections between given neurons, for one part of a task after the other.

        More free neurons are drawn where the connections of a part have no room. Topology events then move connections
        between the neurons of all parts.

        Args:
            task: As `begin_task` takes it.
            parts: At least one; their outputs are those of the task.
            initial_value: As `begin_task` takes it.

        Raises:
            ConfigError: If there is no room even between all free neurons.
        """
        self._begin_measuring(task)
        chosen = [np.zeros_like(flags) for flags in self.selected]
        for number, part in enumerate(parts):
            self._part_outputs, self.selected = part.outputs, [flags.copy() for flags in part.selected]
            spare = [
                list(self._draws(str(task), str(index), f"spare {number}").permutation(np.flatnonzero(free & ~taken)))
                for index, (free, taken) in enumerate(zip(self.free, self.selected, strict=True))
            ]
            self._make_room(part.connections, spare)
            self._allocate(part.connections, initial_value)
            chosen = [both | flags for both, flags in zip(chosen, self.selected, strict=True)]
        self._part_outputs, self.selected = None, chosen

    @property
    def free(self) -> list[Flags]:
        """Of each hidden layer, (n,) neurons that no task has reserved."""
        return [reserved_by == FREE for reserved_by in self.reserved_by]

    def before_step(self) -> None:
        """Remembers the weights, to see how far they move."""
        for layer, known in zip(self.layers, self._known, strict=True):
            known.before = layer.values.detach().numpy().copy()

    def after_step(self) -> None:
        """Adds |step| times |gradient| to each connection's importance (section 3.2 of the paper)."""
        for layer, known in zip(self.layers, self._known, strict=True):
            assert layer.values.grad is not None
            moved = np.abs(layer.values.detach().numpy() - known.before)
            known.importance += moved * np.abs(layer.values.grad.numpy())
        if self._cumulates:
            for index, sums in enumerate(self._cumulative):
                sums += self._summed(index)

    def reserve(self) -> None:
        """Reserves the most important neurons of each hidden layer; after the last task none are needed."""
        if self.task == self.n_tasks - 1:
            return
        among = self.selected if self._reserves_selected else self.free
        for index, (reserved_by, count) in enumerate(zip(self.reserved_by, self._reserve_count, strict=True)):
            neurons = np.flatnonzero(among[index])
            worth = self._neurons(index + 1)[neurons]
            best = neurons[np.argsort(-worth, kind="stable")[:count]]
            reserved_by[best[reserved_by[best] == FREE]] = self.task

    def freeze(self, frozen: FrozenEntries) -> None:
        """Holds, as connections are now, all that the present task must not move."""
        for index, (layer, known) in enumerate(zip(self.layers, self._known, strict=True)):
            frozen.freeze(layer.values, torch.from_numpy(np.flatnonzero(known.owner < self.task)))
            frozen.freeze(biases_of(layer), torch.from_numpy(np.flatnonzero(self._closed_biases(index))))

    # What it leaves behind.

    def task_layers(self, task: int) -> list[SparseLinear]:
        """The layers as `task` left them: its connections and those of the tasks before it, with copies of all values.

        Biases that belong to later tasks or to none are 0; if tasks do not own them, biases are as they are now.
        """
        layers = []
        for index, (layer, known) in enumerate(zip(self.layers, self._known, strict=True)):
            biases = biases_of(layer).detach().clone()
            if index < len(self.bias_owner):
                biases[torch.from_numpy(~_is_known(self.bias_owner[index], task))] = 0.0
            layers.append(connections_of(layer, _is_known(known.owner, task), nn.Parameter(biases)))
        return layers

    def usage(self, n_tasks: int) -> list[ConnectionUsage]:
        """Connections of the first `n_tasks` tasks, and neurons that are reserved."""
        usages = []
        for index, (name, layer, known) in enumerate(zip(self.names, self.layers, self._known, strict=True)):
            owned = np.bincount(known.owner[known.owner != FREE], minlength=n_tasks)[:n_tasks]
            reserved = np.count_nonzero(self.reserved_by[index] != FREE) if self._is_hidden(index) else 0
            size = layer.n_out * layer.n_in
            usages.append(
                ConnectionUsage(name, tuple(owned.tolist()), int(owned.sum()), size, layer.n_out, int(reserved))
            )
        return usages

    def memory(self) -> dict[str, int]:
        """Bytes of the owners of connections and biases."""
        return {"owners": sum(owner.nbytes for owner in [*(known.owner for known in self._known), *self.bias_owner])}

    def state_dict(self) -> dict[str, Any]:
        """Owners, importances and reservations; the evolver's state is its own."""
        state = {
            "task": self.task,
            "owner": [known.owner for known in self._known],
            "importance": [known.importance for known in self._known],
            "cumulative": self._cumulative,
            "reserved_by": self.reserved_by,
            "selected": self.selected,
        }
        return {**state, "bias_owner": self.bias_owner} if self.bias_owner else state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues where `state_dict` was taken; the layers' own state is loaded before."""
        self.task = state["task"]
        for known, owner, importance in zip(self._known, state["owner"], state["importance"], strict=True):
            known.owner, known.importance = np.asarray(owner), np.asarray(importance).copy()
        self._cumulative, self.reserved_by, self.selected, self.bias_owner = (
            [np.asarray(one).copy() for one in state.get(name, [])]
            for name in ("cumulative", "reserved_by", "selected", "bias_owner")
        )

    def check_fits(self) -> None:
        """Raises CheckpointError unless each connection of the layers has an owner and an importance."""
        for layer, known in zip(self.layers, self._known, strict=True):
            if not known.owner.shape == known.importance.shape == (layer.nnz,):
                raise CheckpointError("the checkpoint's owners of connections are not one for each")

    # Inside.

    def _begin_measuring(self, task: int) -> None:
        self.task = task
        for known in self._known:
            known.importance[:] = 0.0
        for sums in self._cumulative:
            sums[:] = 0.0

    def _allocate(self, connections: Sequence[int], initial_value: str) -> None:
        for name, count in zip(self.names, connections, strict=True):
            self.evolver.allocate(name, count, new_value=initial_value)

    def _select(self, connections: Sequence[int]) -> None:
        """Draws the neurons that the task may use, and more while some layer has no room for its connections."""
        spare = []
        for index, (reserved_by, count) in enumerate(zip(self.reserved_by, self._select_count, strict=True)):
            free = np.flatnonzero(reserved_by == FREE)
            rng = self._draws(str(self.task), str(index))
            chosen = rng.choice(free, min(count, free.size), replace=False)
            self.selected[index] = np.isin(np.arange(reserved_by.size), chosen)
            spare.append(list(rng.permutation(np.setdiff1d(free, chosen))))
        self._make_room(connections, spare)

    def _make_room(self, connections: Sequence[int], spare: Sequence[list[int]]) -> None:
        """Lets connections join `spare` neurons of hidden layers as well, the last ones first, where some have no room.

        Raises:
            ConfigError: If these do not suffice.
        """
        while (full := self._full_layer(connections)) is not None:
            # Of the hidden layers at its two ends, the one with more neurons left.
            ends = [index for index in (full - 1, full) if 0 <= index < len(spare)]
            index = max(ends, key=lambda end: len(spare[end]))
            if not spare[index]:
                raise no_room(
                    self.task, self.n_tasks, self.names[full], connections[full], *self._room(full), self._advice
                )
            self.selected[index][spare[index].pop()] = True

    def _full_layer(self, connections: Sequence[int]) -> int | None:
        """A layer whose open neurons have too few free positions for the task's connections."""
        for index, wanted in enumerate(connections):
            (sources, outputs), room_used = self._room(index)
            if sources * outputs - room_used < wanted:
                return index
        return None

    def _room(self, index: int) -> tuple[tuple[int, int], int]:
        """Open neurons on both sides of a layer, and connections between them."""
        constraint, topology = self._constraint(index), self.layers[index].topology
        room_used = np.count_nonzero(constraint.open_out[topology.outputs] & constraint.open_in[topology.inputs])
        return (int(constraint.open_in.sum()), int(constraint.open_out.sum())), int(room_used)

    def _constrained(self, index: int, view: LayerView) -> LayerView:
        """What the present task may touch of a layer, and how important its parts are."""
        outputs = self._neurons(index + 1) if self._is_hidden(index) else np.zeros(view.topology.n_out)
        importance = Importance(self._known[index].importance, outputs, self._neurons(index))
        return dataclasses.replace(view, constraint=self._constraint(index), importance=importance)

    def _constraint(self, index: int) -> Constraint:
        return Constraint(
            frozen=self._known[index].owner < self.task,
            open_out=self.selected[index] & self.free[index] if self._is_hidden(index) else self._open_outputs(),
            open_in=self.selected[index - 1] if index else np.ones(self.layers[0].n_in, bool),
        )

    def _is_hidden(self, index: int) -> bool:
        """Whether the outputs of layer `index` are hidden neurons."""
        return index < len(self.reserved_by)

    def _open_outputs(self) -> Flags:
        if self._part_outputs is not None:
            return self._part_outputs
        assert self._outputs is not None
        return self._outputs(self.task)

    def _closed_biases(self, index: int) -> Flags:
        """(n_out,) biases of a layer that the present task must not move."""
        if not self._is_hidden(index):
            return ~self._open_outputs()
        closed: Flags = self.bias_owner[index] != self.task if self.bias_owner else self.reserved_by[index] != FREE
        return closed

    def _neurons(self, index: int) -> FloatArray:
        """Importance of the neurons that feed layer `index`."""
        return self._cumulative[index] if self._cumulates else self._summed(index)

    def _summed(self, index: int) -> FloatArray:
        """Summed importance of the connections of the neurons that feed layer `index`: outgoing ones of input neurons,
        and of the others incoming ones, of which the present task has none at reserved ones, unless `outgoing`."""
        by_inputs = self._outgoing or index == 0
        place = index if by_inputs else index - 1
        layer, weights = self.layers[place], self._known[place].importance.astype(np.float64)
        topology = layer.topology
        neurons, count = (topology.inputs, layer.n_in) if by_inputs else (topology.outputs, layer.n_out)
        return np.asarray(np.bincount(neurons, weights=weights, minlength=count), np.float64)

    def _follow(self, index: int, change: TopologyChange, grown_values: float | FloatArray) -> None:
        del grown_values
        known = self._known[index]
        known.owner = remap(known.owner, change, self.task)
        known.importance = remap(known.importance, change)
        self._claim_biases(index, change)

    def _claim_biases(self, index: int, change: TopologyChange) -> None:
        """Gives the task the biases at both ends of its new connections that no task owns."""
        grown, n_in = change.new.flat[change.source < 0], change.new.n_in
        for hidden, neurons in ((index - 1, grown % n_in), (index, grown // n_in)):
            if 0 <= hidden < len(self.bias_owner):
                owner = self.bias_owner[hidden]
                owner[neurons[owner[neurons] == FREE]] = self.task


def _is_known(owner: np.ndarray, task: int) -> Flags:
    """What belongs to a task or to one before it."""
    known: Flags = (owner != FREE) & (owner <= task)
    return known
