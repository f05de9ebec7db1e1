"""Copies of a layer, and weights of one that are no longer those of the connections it lists.

An average of weights or a target network by hand (`AveragedModel`, `lerp_`) goes from slot to slot. Once the layer that
is trained has been rewired, the slots of its copies are other connections, and such arithmetic mixes them in silence.
Nothing announces it: torch knows of no owner of a tensor. But it shows, in a copy that is not trained itself and whose
weights are others than when it stayed behind.
"""

from __future__ import annotations

import zlib
from typing import Protocol
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import nn

from sparserl.errors import TopologyError
from sparserl.topology.structure import SparseTopology


class Relative(Protocol):
    """What is needed of a layer; `SparseLinear` has it."""

    values: nn.Parameter
    connections: SparseTopology
    trained: bool
    """Whether this very object has been trained or rewired, or something that knows connections keeps its weights in
    step with another layer's."""


class Relatives:
    """A layer and its copies by `copy.deepcopy`, as long as they live.

    Attributes:
        apart: Whether some have had other connections than others.
    """

    def __init__(self) -> None:
        # Each with a checksum of its weights when it stayed behind: another got other connections, and it did not.
        self._members: WeakKeyDictionary[Relative, int | None] = WeakKeyDictionary()
        self.apart = False

    def __deepcopy__(self, memo: dict[int, object]) -> Relatives:
        return self

    def __reduce__(self) -> tuple[type[Relatives], tuple[()]]:
        return Relatives, ()  # pickled: for another process, or for another day

    def add(self, layer: Relative, *, loaded: bool = False) -> None:
        """Counts a layer among them, or again when it has got other connections, and weights that belong to them.

        Args:
            layer: It.
            loaded: Whether it got both from a stored state: then it did not stay behind another one.
        """
        others = [other for other in self._members if other is not layer]
        apart = [other for other in others if not np.array_equal(other.connections.flat, layer.connections.flat)]
        alone = not loaded and bool(apart) and len(apart) == len(others)
        self._members[layer] = _checksum(layer.values) if alone else None
        for other in apart:
            if self._members[other] is None:
                self._members[other] = _checksum(other.values)
        self.apart = self.apart or bool(apart)

    def check(self, layer: Relative) -> None:
        """Raises TopologyError if the weights of a copy were changed in place since it stayed behind."""
        if not self.apart:
            return
        stamp = self._members[layer]
        if stamp is None or layer.trained or stamp == _checksum(layer.values):
            return
        raise TopologyError(
            "weights of a copy were changed slot by slot after the layer it was copied from had been rewired, which "
            "mixes connections; for averages and targets use sparserl.average(model), to copy load_state_dict, and for "
            "a copy that goes its own way pickle.loads(pickle.dumps(model))"
        )


def _checksum(values: torch.Tensor) -> int:
    return zlib.crc32(values.detach().contiguous().view(torch.uint8).numpy().data) if values.numel() else 0
