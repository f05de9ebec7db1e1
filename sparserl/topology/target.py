"""How target networks follow an online network whose topology evolves.

Two policies: `shared`, the target has the online topology at once, and `union_trim`, the target's topology lags behind
as in the DS-TD3 code. Either way a target stores one value per connection it has.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch import nn

from sparserl.errors import TopologyError, unknown_name
from sparserl.kernels import program, tables
from sparserl.kernels.positions import united
from sparserl.kernels.program import Step, make_step
from sparserl.kernels.recording import each_time, relies_on_items, relies_on_tensors
from sparserl.kernels.updates import average_and_trim_step, average_step
from sparserl.topology.pairs import whole_groups
from sparserl.topology.structure import EvolvingLayer, FloatArray, Slots, SparseTopology, TopologyChange, absent


@dataclass(frozen=True)
class Pairing:
    """How the slots of two topologies correspond, of which the target's contains the other.

    Attributes:
        online: Topology of the online layer.
        target: Topology of the target.
        target_only: Slots of connections that only the target has; as many weights are trimmed.
    """

    online: SparseTopology
    target: SparseTopology
    target_only: Slots


class TargetLayer(ABC):
    """One sparse layer of a target network and how it follows its online layer.

    Args:
        online: Sparse layer that is trained.
        target: Its copy, with the same topology at construction or as stored in a checkpoint.
    """

    def __init__(self, online: EvolvingLayer, target: EvolvingLayer):
        self.online, self.target = online, target

    @abstractmethod
    def follow(self, change: TopologyChange, grown_values: float | FloatArray) -> None:
        """Called after the online layer has adopted `change`."""

    @abstractmethod
    def pairing(self) -> Pairing | None:
        """How slots correspond; None if equal slots are equal connections. The same object until that changes."""

    def sync(self, tau: float) -> None:
        """Moves the target's weights towards the online layer's by `tau`."""
        PolyakUpdate([], [self]).run(tau)


class SharedTarget(TargetLayer):
    """The target has the online layer's connections; grown ones start at the online layer's value.

    Source:
        RLx2 code (target multiplied by the online mask after each soft update).
    """

    def follow(self, change: TopologyChange, grown_values: float | FloatArray) -> None:
        """Applies the same change, so that equal slots stay equal connections."""
        self.target.apply_change(change, grown_values)

    def pairing(self) -> None:
        """Equal slots are equal connections."""
        return None


class UnionTrimTarget(TargetLayer):
    """The target averages over the union of both topologies and keeps the largest weights, as many as online has.

    A dropped connection fades in the target; a new one counts there once `tau |w|` exceeds the smallest weight that
    stays. Between events the target lists the whole union, and a connection that is trimmed holds exactly 0: that
    costs as many slots more as an event drops, and saves rebuilding an index at every update. The next event removes
    connections that are trimmed and not online; where outputs share their inputs, those of a whole group.

    Source:
        Sokar et al. 2022 (DS-TD3), "maintain sparsity", as in its code; ANF's code has the same rule.
    """

    def __init__(self, online: EvolvingLayer, target: EvolvingLayer):
        if online.topology.used is not None:
            raise TopologyError(
                "target union_trim needs layers that use all of their connections: set topology.target shared, or "
                "topology.backward_factor 1"
            )
        super().__init__(online, target)
        self._paired: Pairing | None = None

    def follow(self, change: TopologyChange, grown_values: float | FloatArray) -> None:
        """Lists the union anew: online's connections, and those of the target's that are not trimmed away."""
        del change, grown_values
        target = self.target.topology
        trimmed = whole_groups(target, self.target.values.detach().numpy() == 0)
        flat, source = united(target.flat, trimmed, self.online.topology.flat)
        self.target.apply_change(TopologyChange(target, target.with_positions(flat), source), 0.0)

    def pairing(self) -> Pairing:
        """The slots that only the target has."""
        online, target = self.online.topology, self.target.topology
        if self._paired is None or self._paired.online is not online or self._paired.target is not target:
            self._paired = Pairing(online, target, np.flatnonzero(absent(target.flat, online.flat)))
        return self._paired


PARALLEL_FROM = 1 << 14
"""Weights below which one thread is enough."""
TARGET: dict[str, type[TargetLayer]] = {"shared": SharedTarget, "union_trim": UnionTrimTarget}


class TargetNetwork:
    """A target copy of a network: sparse layers follow by a policy, every other parameter by Polyak averaging.

    Args:
        online: Module that is trained.
        target: Its copy, of the same structure.
        policy: Name in `TARGET`.

    Raises:
        TopologyError: If the policy is unknown.
    """

    def __init__(self, online: nn.Module, target: nn.Module, policy: str):
        if policy not in TARGET:
            raise TopologyError(unknown_name("target policy", policy, TARGET))
        copies = dict(target.named_modules())
        self.layers = {
            name: TARGET[policy](layer, copies[name])
            for name, layer in online.named_modules()
            if isinstance(layer, EvolvingLayer)
        }
        in_sparse = {id(layer.online.values) for layer in self.layers.values()}
        dense = [
            (parameter, copy)
            for parameter, copy in zip(online.parameters(), target.parameters(), strict=True)
            if id(parameter) not in in_sparse
        ]
        self._averaging = PolyakUpdate(dense, list(self.layers.values()))
        self._take_charge()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._take_charge()

    def _take_charge(self) -> None:
        # A copy of a layer whose weights change in place is suspected of being averaged slot by slot; not these.
        for layer in self.layers.values():
            vars(layer.target)["trained"] = True

    def sync(self, tau: float) -> None:
        """Moves the whole target towards the online network by `tau`."""
        self._averaging.run(tau)

    def followers(self) -> Iterator[tuple[str, TargetLayer]]:
        """(name of the online layer in its network, its target)."""
        yield from self.layers.items()


class PolyakUpdate:
    """Polyak averaging of dense parameters and sparse layers in two calls, with the operations of torch.

    Args:
        dense: (online, target) parameters.
        layers: Sparse layers.
    """

    def __init__(self, dense: Sequence[tuple[torch.Tensor, torch.Tensor]], layers: Sequence[TargetLayer]):
        self._layers = layers
        self._pairs = [*dense, *((layer.online.values, layer.target.values) for layer in layers)]
        self._tensors = [tensor for pair in self._pairs for tensor in pair]
        self._key: list[object] = []
        self._kept: list[Pairing | None] = []
        self._tables: _Tables = {}
        self._numbers = np.zeros(1)
        self._steps: list[Step] = []

    def __getstate__(self) -> dict[str, Any]:
        # Tables hold addresses of the original's tensors.
        return {**vars(self), "_key": [], "_tables": {}, "_steps": []}

    def run(self, tau: float) -> None:
        """`target = tau online + (1 - tau) target`, and what the layers' policies do after it."""
        pairings = [layer.pairing() for layer in self._layers]
        # Whatever was replaced since the last time changes one of them.
        key: list[object] = [torch.get_num_threads(), *tables.key(self._tensors), *map(_dtype, self._tensors)]
        key += map(id, pairings)
        if key != self._key:
            self._key, self._kept = key, pairings  # kept, so that no other object takes the place of one
            self._tables, self._numbers = self._described(pairings), np.array([tau])
            self._steps = self._steps_of()
        if tables.CHECKED:
            kept, now = self._tables.values(), self._described(pairings).values()
            tables.check("target averaging", [*chain.from_iterable(kept)], [*chain.from_iterable(now)])
        relies_on_tensors(self._tensors)
        for layer in self._layers:  # pairings follow from these
            relies_on_items(vars(layer.online), ["connections"])
            relies_on_items(vars(layer.target), ["connections"])
        each_time(lambda: self._give(tau))
        for step in self._steps:
            program.add(step)

    def _give(self, tau: float) -> None:
        if self._numbers[0] != tau:
            program.run_waiting()
            self._numbers[0] = tau

    def _steps_of(self) -> list[Step]:
        steps = []
        for dtype, tables_of in self._tables.items():
            for function, table in zip((average_step, average_and_trim_step), tables_of, strict=True):
                if len(table):
                    arguments = [table.ctypes.data, len(table), self._numbers.ctypes.data]
                    threads = torch.get_num_threads() if table[:, 0].sum() >= PARALLEL_FROM else 1
                    kept = table, self._numbers, [tensor.data for tensor in self._tensors], self._kept
                    steps.append(make_step(function, arguments, dtype, kept, threads))
        return steps

    def _described(self, pairings: list[Pairing | None]) -> _Tables:
        """Rows for `average` and `average_and_trim`, by element type."""
        described = {}
        of_dense = [None] * (len(self._pairs) - len(self._layers))
        for dtype in dict.fromkeys(online.dtype for online, _ in self._pairs):
            plain, trimmed = [], []
            for (online, target), pairing in zip(self._pairs, [*of_dense, *pairings], strict=True):
                if online.dtype != dtype:
                    continue
                contiguous = online.is_contiguous() and target.is_contiguous()
                alike = online.stride() == target.stride() and _is_in_one_piece(online)
                if not (target.dtype == dtype and (contiguous or alike)):
                    raise TopologyError(f"a target of {target.dtype} cannot follow {dtype}, or is not contiguous")
                only = np.empty(0, np.int64) if pairing is None else pairing.target_only
                if online.numel() + only.size != target.numel():
                    raise TopologyError(
                        f"a target of {target.numel()} weights, {only.size} of them its own, cannot follow "
                        f"{online.numel()}: one network was loaded or rewired without the other"
                    )
                addresses = online.data_ptr(), target.data_ptr()
                if only.size == 0:
                    plain.append((online.numel(), *addresses))
                else:
                    trimmed.append((target.numel(), *addresses, only.size, only.ctypes.data))
            element = torch.empty(0, dtype=dtype).numpy().dtype
            described[element] = np.array(plain, np.int64).reshape(-1, 3), np.array(trimmed, np.int64).reshape(-1, 5)
        return described


def _is_in_one_piece(tensor: torch.Tensor) -> bool:
    """Whether its entries fill its memory without gaps, whatever the order of axes."""
    size = 1
    for stride, length in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if length > 1 and stride != size:
            return False
        size *= length
    return True


_Tables = dict[np.dtype[Any], tuple[np.ndarray, np.ndarray]]
_dtype = attrgetter("dtype")
