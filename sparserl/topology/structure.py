"""Which connections a layer has, and a change of that, as frozen values.

Decides what a valid topology is. Independent of weights, layers, optimizers or agents.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable
from weakref import ref

import numpy as np
import numpy.typing as npt

from sparserl.errors import TopologyError
from sparserl.kernels.positions import positions_of, rows_of, slots_among

Positions = npt.NDArray[np.int64]
"""`out * n_in + in` of each connection."""
Slots = npt.NDArray[np.int64]
"""Places in a layer's array of values."""
RowPointers = npt.NDArray[np.int64]
Columns = npt.NDArray[np.int32]
UsedSlots = npt.NDArray[np.int32]
LARGEST = 2**31
"""Neurons a side of a layer at most, and one more than its connections: layers keep them as 32-bit numbers."""
NOTHING: Positions = np.empty(0, np.int64)
FloatArray = npt.NDArray[np.floating]
Flags = npt.NDArray[np.bool_]


def _none() -> None:
    return None


def absent(positions: Positions, among: Positions) -> Flags:
    """(k,) which of `positions` are not in `among`, both sorted and unique; O(k + n)."""
    flags: Flags = slots_among(positions, among) < 0
    return flags


class SparseTopology:
    """The connections of one layer; a value that never changes.

    A connection exists because its position is listed, never because its value is non-zero.

    Args:
        n_out: Number of output neurons, from 1 to `LARGEST`.
        n_in: Number of input neurons, likewise.
        flat: (nnz,) int64, strictly increasing positions `out * n_in + in`. The index into it is the
            connection's slot.
        pairs: Consecutive outputs that have the same inputs, a divisor of `n_out`; 1 if each has its own.
        used: (k,) int32 slots that products of the layer use, strictly increasing; all if None. The others are stored
            and learn (the backward set of Top-KAST without its forward set).

    Attributes:
        n_out: As given.
        n_in: As given.
        pairs: As given.
        used: As given.
    """

    def __init__(self, n_out: int, n_in: int, flat: Positions, pairs: int = 1, used: UsedSlots | None = None):
        self.n_out, self.n_in, self.pairs, self.used = n_out, n_in, pairs, used
        self._held: Positions | tuple[RowPointers, Columns] = flat
        self._formed: Callable[[], Positions | None] = _none

    def __reduce__(self) -> tuple[type[SparseTopology], tuple[int, int, Positions, int, UsedSlots | None]]:
        return SparseTopology, (self.n_out, self.n_in, self.flat, self.pairs, self.used)

    def __repr__(self) -> str:
        return f"SparseTopology(n_out={self.n_out}, n_in={self.n_in}, flat={self.flat!r}, pairs={self.pairs})"

    def with_positions(self, flat: Positions) -> SparseTopology:
        """A topology of the same neurons with other connections, all in use."""
        return SparseTopology(self.n_out, self.n_in, flat, self.pairs)

    def with_used(self, slots: Slots) -> SparseTopology:
        """The same connections, of which products use those at sorted `slots`."""
        other = copy.copy(self)
        other.used = slots.astype(np.int32)
        return other

    @property
    def in_use(self) -> SparseTopology:
        """The connections that products use, as a topology of their own; itself where these are all."""
        return self if self.used is None else self.with_positions(self.flat[self.used])

    @property
    def flat(self) -> Positions:
        """(nnz,) int64 positions; once rows and columns have been asked for, formed anew unless still referenced."""
        held = self._held
        if not isinstance(held, tuple):
            return held
        flat = self._formed()
        if flat is None:
            flat = positions_of(*held, self.n_in)
            self._formed = ref(flat)
        return flat

    @property
    def rows(self) -> tuple[RowPointers, Columns]:
        """(n_out + 1,) int64 first slot of each output, and (nnz,) int32 input of each slot.

        From now on they are what is kept: a third of the memory that both would take.

        Raises:
            TopologyError: If positions are not strictly increasing or one lies outside the layer.
        """
        held = self._held
        if isinstance(held, tuple):
            return held
        rows: tuple[RowPointers, Columns] = rows_of(held, self.n_out, self.n_in)
        if rows[0].size == 0:
            self.check_valid()
        self._held, self._formed = rows, ref(held)
        return rows

    @property
    def nnz(self) -> int:
        """Number of connections."""
        held = self._held
        return int(held[1].size if isinstance(held, tuple) else held.size)

    @property
    def size(self) -> int:
        """Number of connections of the dense layer, `n_out * n_in`."""
        return self.n_out * self.n_in

    @property
    def density(self) -> float:
        """`nnz / size`, in [0, 1]."""
        return self.nnz / self.size

    @property
    def outputs(self) -> Positions:
        """(nnz,) output neuron of each slot."""
        held = self._held
        return np.repeat(np.arange(self.n_out), np.diff(held[0])) if isinstance(held, tuple) else held // self.n_in

    @property
    def inputs(self) -> Positions:
        """(nnz,) input neuron of each slot."""
        held = self._held
        return held[1].astype(np.int64) if isinstance(held, tuple) else held % self.n_in

    def check_valid(self) -> None:
        """Raises TopologyError unless positions are int64, sorted, unique and in range, and sizes and pairs hold."""
        if self.n_out < 1 or self.n_in < 1:
            raise TopologyError(f"a layer needs at least one neuron a side, got {self.n_out} x {self.n_in}")
        if max(self.n_out, self.n_in) > LARGEST or self.nnz >= LARGEST:
            raise TopologyError(
                f"a layer has at most {LARGEST} neurons a side and {LARGEST - 1} connections, "
                f"got {self.n_out} x {self.n_in} with {self.nnz}"
            )
        flat = self.flat
        if flat.dtype != np.int64 or flat.ndim != 1:
            raise TopologyError(f"positions must be a 1-D int64 array, got {flat.ndim}-D {flat.dtype}")
        if self.nnz and (flat[0] < 0 or flat[-1] >= self.size):
            raise TopologyError(f"a position lies outside a layer of {self.n_out} x {self.n_in}")
        if np.any(np.diff(flat) <= 0):
            raise TopologyError("positions must be strictly increasing")
        if self.used is not None:
            self._check_used(self.used)
        if self.pairs != 1 and not self._shares_inputs():
            raise TopologyError(f"outputs in groups of {self.pairs} must have the same inputs, and these have not")

    def _check_used(self, used: UsedSlots) -> None:
        if used.dtype != np.int32 or used.ndim != 1 or np.any(np.diff(used) <= 0):
            raise TopologyError("slots in use must be a 1-D int32 array, strictly increasing")
        if used.size and (used[0] < 0 or used[-1] >= self.nnz):
            raise TopologyError(f"a slot in use is none of the {self.nnz} of the layer")
        if self.pairs != 1:
            raise TopologyError(f"where not all connections are in use pairs must be 1, got {self.pairs}")

    def _shares_inputs(self) -> bool:
        if self.pairs < 1 or self.n_out % self.pairs or self.nnz % self.pairs:
            return False
        index_in_group = self.outputs % self.pairs
        flat = self.flat
        of_first = flat - index_in_group * self.n_in
        first = flat[index_in_group == 0]
        return all(np.array_equal(of_first[index_in_group == other], first) for other in range(1, self.pairs))


@dataclass(frozen=True)
class TopologyChange:
    """A new topology and where each of its slots came from.

    Attributes:
        old: The topology before.
        new: The topology after.
        source: (new nnz,) int64, the old slot of each new slot, -1 where the connection was grown.
    """

    old: SparseTopology
    new: SparseTopology
    source: Slots

    @cached_property
    def grown_slots(self) -> Slots:
        """(grown,) new slots of connections that are new, sorted."""
        return np.flatnonzero(self.source < 0)

    @property
    def grown(self) -> int:
        """Number of connections that are new."""
        return self.grown_slots.size

    @property
    def dropped(self) -> int:
        """Number of old connections that are gone."""
        return self.old.nnz - (self.new.nnz - self.grown)

    def check_valid(self) -> None:
        """Raises TopologyError unless both ends are valid and survivors keep their positions."""
        self.old.check_valid()
        self.new.check_valid()
        survivors = self.source >= 0
        if self.source.shape != self.new.flat.shape:
            raise TopologyError("`source` needs one entry for each new slot")
        if np.any(np.diff(self.source[survivors]) <= 0):
            raise TopologyError("two new slots come from one old slot")
        if not np.array_equal(self.old.flat[self.source[survivors]], self.new.flat[survivors]):
            raise TopologyError("a surviving connection changed its position")


@dataclass(frozen=True)
class Constraint:
    """What an event may touch in one layer.

    Attributes:
        frozen: (nnz,) connections that are never dropped.
        open_out: (n_out,) outputs that may receive new connections.
        open_in: (n_in,) inputs that may send new connections.
        blocks: Sorted outputs and sorted inputs of each block within which connections may grow, no output in two of
            them; everywhere if None. Between open neurons alone in any case.

    Raises:
        TopologyError: If a block is not sorted or lies outside the layer, or an output is in two blocks.
    """

    frozen: Flags
    open_out: Flags
    open_in: Flags
    blocks: tuple[tuple[Positions, Positions], ...] | None = None

    def __post_init__(self) -> None:
        for index, block in enumerate(self.blocks or ()):
            for side, neurons, of_layer in zip(
                ("outputs", "inputs"), block, (self.open_out, self.open_in), strict=True
            ):
                if np.any(np.diff(neurons) <= 0):
                    raise TopologyError(f"{side} of block {index} must be strictly increasing, got {neurons.tolist()}")
                if neurons.size and (neurons[0] < 0 or neurons[-1] >= of_layer.size):
                    worst = neurons[0] if neurons[0] < 0 else neurons[-1]
                    raise TopologyError(f"{side} of block {index} must be in [0, {of_layer.size - 1}], got {worst}")
        listed = np.sort(np.concatenate([NOTHING, *(outputs for outputs, _ in self.blocks or ())]))
        if twice := listed[1:][np.diff(listed) == 0].tolist():
            raise TopologyError(f"output {twice[0]} is in two blocks: give one block all inputs that it may have")


@dataclass(frozen=True)
class Importance:
    """How much a learner would lose with a connection or a neuron; any unit, >= 0.

    Attributes:
        connections: (nnz,) of each slot.
        outputs: (n_out,) of each output neuron.
        inputs: (n_in,) of each input neuron.
    """

    connections: FloatArray
    outputs: FloatArray
    inputs: FloatArray


@dataclass(frozen=True)
class LayerView:
    """All that a drop or grow criterion may see of a layer.

    Attributes:
        topology: The present connections.
        values: (nnz,) their weights.
        samples: Pairs of layer input (n_in, B) and, as the grow rule asks, gradient or activations at the layer's
            output (n_out, B), both feature-major, of the update that just ended; empty unless it asks for either.
        constraint: What must stay as it is; None where everything may change.
        importance: As a learner measured it; None if it was not measured.
        explored: Sorted positions that have ever been connected, the present ones included; None unless the grow rule
            needs them.
        neurons: How many each output of `topology` stands for; gradients and activations in `samples` are of all of
            them, (n_out * neurons, B).
        gradient: (nnz,) of the weights, at the step that just ended; None unless the drop rule asks for it. Where
            `neurons` is not 1, the sum of its magnitudes.
        momentum: (nnz,) what the optimizer has gathered of the weights' gradients, likewise; None unless the budget
            asks for it.
        signs: (nnz,) of the weights after the last event, -1, 0 or 1; None unless the drop rule asks for them. Where
            `neurons` is not 1, of the sums.
        threshold: |weight| up to which connections go, where the drop rule has one.
        gradient_weight: Of |gradient| beside |weight|, by the rule of the event.
        fan_in: Connections that each output is to have after the event, (n_out,), or each m consecutive inputs of it,
            (n_out * n_in / m,); None where that is open.
    """

    topology: SparseTopology
    values: FloatArray
    samples: tuple[tuple[FloatArray, FloatArray], ...] = ()
    constraint: Constraint | None = None
    importance: Importance | None = None
    explored: Positions | None = None
    neurons: int = 1
    gradient: FloatArray | None = None
    gradient_weight: float = 0.0
    momentum: FloatArray | None = None
    threshold: float = 0.0
    signs: npt.NDArray[np.int8] | None = None
    fan_in: Positions | None = None

    @property
    def fan_in_rows(self) -> Slots:
        """(nnz,) to which entry of `fan_in` each slot belongs."""
        assert self.fan_in is not None
        return self.topology.flat // (self.topology.size // self.fan_in.size)

    @property
    def droppable(self) -> Slots:
        """Slots that may be dropped, sorted; where products use some connections alone, none of those."""
        used = self.topology.used
        if self.constraint is None and used is None:
            return np.arange(self.topology.nnz)
        stays = np.zeros(self.topology.nnz, bool) if self.constraint is None else self.constraint.frozen.copy()
        if used is not None:
            stays[used] = True
        return np.flatnonzero(~stays)


@runtime_checkable
class EvolvingLayer(Protocol):
    """What the evolver needs of a layer; `SparseLinear` is one."""

    values: Any
    """(nnz,) torch parameter; the object never changes, its length may."""

    capture: bool
    """While true, a backward pass that forms the gradient of `values` keeps (input, output gradient) for `view`."""

    captures_activations: bool
    """Whether it keeps activations of the outputs, after the non-linearity, in place of their gradient."""

    activation_pairs: list[Any]
    """What it kept."""

    @property
    def topology(self) -> SparseTopology:
        """The present connections."""

    def view(self) -> LayerView:
        """The layer as a criterion sees it."""

    def apply_change(self, change: TopologyChange, grown_values: float | FloatArray) -> None:
        """Adopts `change.new`; survivors keep their weight, grown connections get `grown_values`."""
