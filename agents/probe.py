"""What an agent has met, to look at its networks with: what they read, and the gradients of its losses there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

SAMPLES = 256
"""Env steps of a probe, at most."""


@dataclass(frozen=True)
class Probe:
    """Some env steps that an agent has met.

    Attributes:
        inputs: (B, width) of each trained group, what its networks read of them.
        form_gradients: Forms the gradients of all trained networks, in place of those that they have, and takes no
            step; None where that cannot be done on these steps.
        independent: Whether each of them passes through the networks without the others.
    """

    inputs: Mapping[str, torch.Tensor]
    form_gradients: Callable[[], None] | None
    independent: bool = True
