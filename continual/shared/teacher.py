"""The network of an earlier moment, which teaches the one that learns."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch

from sparserl.layers import SparseMLP


class Teacher:
    """A copy of a network that answers as the network did when it was taken, and learns nothing.

    Args:
        network: Is copied as it is now.

    Attributes:
        network: The copy.
    """

    def __init__(self, network: SparseMLP):
        self.network = copy.deepcopy(network).requires_grad_(False).eval()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(B, n_in) to (B, n_out)."""
        outputs: torch.Tensor = self.network(x)
        return outputs

    def take(self, network: SparseMLP) -> None:
        """Answers as a network of the same structure from now on."""
        self.network.load_state_dict(network.state_dict())

    def sizes(self) -> dict[str, int]:
        """Bytes of weights, biases, and where connections are."""
        return {"old network": sum(tensor.nbytes for tensor in self.network.state_dict().values())}

    def state_dict(self) -> dict[str, Any]:
        """Of the copy."""
        return dict(self.network.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on with this one."""
        self.network.load_state_dict(state)
