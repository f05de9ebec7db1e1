"""How target networks follow an online network whose topology evolves.

Two policies: `shared`, the target has the online topology at once, and `union_trim`, the target's topology lags behind
as in the DS-TD3 code. Either way a target stores one value per connection it has.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from sparserl.errors import TopologyError, unknown_name
from sparserl.topology.rewire import exchange
from sparserl.topology.structure import EvolvingLayer, FloatArray, SparseTopology, TopologyChange


def polyak(online: torch.Tensor, target: torch.Tensor, tau: float) -> None:
    """`target = tau online + (1 - tau) target` in place, with Stable-Baselines3's operations in its order."""
    target.mul_(1.0 - tau)
    torch.add(target, online, alpha=tau, out=target)


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
    def sync(self, tau: float) -> None:
        """Moves the target's weights towards the online layer's by `tau`."""


class SharedTarget(TargetLayer):
    """The target has the online layer's connections; grown ones start at the online layer's value.

    Source:
        RLx2 code (target multiplied by the online mask after each soft update).
    """

    def follow(self, change: TopologyChange, grown_values: float | FloatArray) -> None:
        """Applies the same change, so that equal slots stay equal connections."""
        self.target.apply_change(change, grown_values)

    def sync(self, tau: float) -> None:
        """Polyak averaging by slot."""
        polyak(self.online.values.data, self.target.values.data, tau)


class UnionTrimTarget(TargetLayer):
    """The target averages over the union of both topologies and keeps the largest weights, as many as online has.

    A dropped connection fades in the target; a new one counts there once `tau |w|` exceeds the smallest weight that
    stays. Between events the target lists the whole union, and a connection that is trimmed holds exactly 0: that
    costs as many slots more as an event drops, and saves rebuilding an index at every update. The next event removes
    connections that are trimmed and not online.

    Source:
        Sokar et al. 2022 (DS-TD3), "maintain sparsity", as in its code; ANF's code has the same rule.
    """

    def __init__(self, online: EvolvingLayer, target: EvolvingLayer):
        super().__init__(online, target)
        self._paired: tuple[SparseTopology, SparseTopology] | None = None

    def follow(self, change: TopologyChange, grown_values: float | FloatArray) -> None:
        """Lists the union anew: online's connections, and those of the target's that are not trimmed away."""
        del change, grown_values
        online, target = self.online.topology, self.target.topology
        trimmed = self.target.values.detach().numpy() == 0
        dropped = np.flatnonzero(trimmed & ~np.isin(target.flat, online.flat, assume_unique=True))
        missing = np.setdiff1d(online.flat, target.flat, assume_unique=True)
        self.target.apply_change(exchange(target, dropped, missing), 0.0)

    def _pair(self) -> None:
        """After a change of either topology, finds the target slot of each online slot."""
        online, target = self.online.topology, self.target.topology
        if self._paired is not None and self._paired[0] is online and self._paired[1] is target:
            return
        self._paired = online, target
        self._shared = np.searchsorted(target.flat, online.flat)
        self._target_only = np.delete(np.arange(target.nnz), self._shared)

    def sync(self, tau: float) -> None:
        """Averages, then trims the smallest |weight| beyond the number of connections that online has."""
        self._pair()
        surplus = self._target_only.size
        if surplus == 0:
            polyak(self.online.values.data, self.target.values.data, tau)
            return
        online, weights = self.online.values.detach().numpy(), self.target.values.detach().numpy()
        scale = weights.dtype.type
        weights *= scale(1.0 - tau)
        weights[self._shared] += scale(tau) * online
        # There are `surplus` connections in the target alone, so whatever goes is no larger than the largest of them.
        magnitude = np.abs(weights)
        pool = np.flatnonzero(magnitude <= magnitude[self._target_only].max())
        if pool.size > surplus:
            pool = pool[np.argpartition(magnitude[pool], surplus)[:surplus]]
        weights[pool] = 0.0


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
        self._dense = [
            (parameter, copy)
            for parameter, copy in zip(online.parameters(), target.parameters(), strict=True)
            if id(parameter) not in in_sparse
        ]

    def sync(self, tau: float) -> None:
        """Moves the whole target towards the online network by `tau`."""
        for parameter, copy in self._dense:
            polyak(parameter.data, copy.data, tau)
        for layer in self.layers.values():
            layer.sync(tau)

    def followers(self) -> Iterator[tuple[str, TargetLayer]]:
        """(name of the online layer in its network, its target)."""
        yield from self.layers.items()
