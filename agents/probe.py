"""What an agent has met, to look at its networks with: what they read, and the gradients of its losses there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from sparserl.layers import SparseLinear
from sparserl.seeding import stream

SAMPLES = 256
"""Env steps of a probe, at most."""
Places = npt.NDArray[np.int64]


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


def places_in(buffer: Any, seed: int, updates: int) -> tuple[Places, Places] | None:
    """(SAMPLES,) rows and environments of transitions of a replay buffer, drawn from a stream of their own.

    Args:
        buffer: The buffer, or None.
        seed: Root seed of the stream.
        updates: Gradient updates so far.

    Returns:
        None where it holds nothing.
    """
    size = 0 if buffer is None else buffer.size()
    if size == 0:
        return None
    draws = stream(seed, "dormant", str(updates)).integers(size * buffer.n_envs, size=SAMPLES)
    # Before the oldest row lie those that a buffer of dynamic capacity has forgotten.
    oldest = getattr(buffer, "forgotten", 0) + (buffer.pos if buffer.full else 0)
    return (oldest + draws // buffer.n_envs) % buffer.buffer_size, draws % buffer.n_envs


@contextmanager
def gradients_on(
    probe: Probe, networks: Mapping[str, nn.Module], layers: Mapping[str, SparseLinear], *, hold_samples: bool = False
) -> Iterator[None]:
    """Inside, networks have the gradients of their losses on a probe; gradients, captured samples, running statistics
    and torch's generator are put back.

    Args:
        probe: With `form_gradients`.
        networks: All that it forms gradients of.
        layers: Sparse layers of theirs.
        hold_samples: Whether these hold what passed through them, where samples of the probe are independent.
    """
    assert probe.form_gradients is not None
    captures = {name: (one.capture, one.captures_activations, one.activation_pairs) for name, one in layers.items()}
    parameters = [parameter for network in networks.values() for parameter in network.parameters()]
    kept = [(parameter.grad, _copy(parameter.grad)) for parameter in parameters]
    statistics = [(one, one.clone()) for net in networks.values() for one in net.buffers() if one.is_floating_point()]
    try:
        for layer in layers.values():
            layer.capture, layer.captures_activations = hold_samples and probe.independent, False
            layer.activation_pairs = []
        with torch.random.fork_rng(devices=[]):
            probe.form_gradients()
        yield
    finally:
        for name, captured in captures.items():
            layers[name].capture, layers[name].captures_activations, layers[name].activation_pairs = captured
        for parameter, (gradient, numbers) in zip(parameters, kept, strict=True):
            parameter.grad = gradient
            if gradient is not None:
                gradient.copy_(numbers)
        for buffer, numbers in statistics:
            buffer.copy_(numbers)


def _copy(gradient: torch.Tensor | None) -> Any:
    return None if gradient is None else gradient.clone()
