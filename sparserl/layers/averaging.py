"""Averages of the weights of a model whose connections change: exponential moving averages and target networks."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from sparserl.errors import ConfigError, TopologyError
from sparserl.layers.sparse_linear import check_has_kernels
from sparserl.topology.rewire import difference
from sparserl.topology.target import TargetNetwork


class AveragedModel(nn.Module):
    """A copy of a model that follows it slowly, connection by connection; from `average`.

    Sparse layers have the connections that the model had at the last `update`: one that stays keeps its average, one
    that is new begins with the model's weight, one that is gone is forgotten. All other parameters are averaged as they
    are, and buffers are the model's. What `state_dict` holds is the averaged model, as `module.*`.

    A copy by `copy.deepcopy` or `pickle` brings the model that it follows along, so that copying both together keeps
    them together.

    Args:
        model: The model that is trained.
        decay: As in `average`.

    Attributes:
        module: The averaged model; needs no gradient.
        decay: May be changed at any time.
    """

    def __init__(self, model: nn.Module, decay: float):
        super().__init__()
        _check(model, decay)
        self.decay = decay
        self.module = copy.deepcopy(model).requires_grad_(False)
        self._followed = (model, list(model.parameters()))  # in a tuple, so that it is no part of this module
        self._targets = TargetNetwork(model, self.module, "shared")

    @torch.no_grad()
    def update(self) -> None:
        """Moves the average towards the model as it is now; call after each optimizer step and its rewiring.

        Raises:
            TopologyError: If parameters of the model were replaced, as `sparsify` does.
        """
        model, parameters = self._followed
        now = list(model.parameters())
        if len(now) != len(parameters) or any(a is not b for a, b in zip(now, parameters, strict=True)):
            raise TopologyError(
                "the model has other parameters than when its average was made: average it after sparsify"
            )
        for pair in self._targets.layers.values():
            online, target = pair.online, pair.target
            if target.topology is not online.topology:
                change = difference(target.topology, online.topology)
                target.apply_change(change, online.values.detach().numpy()[change.source < 0])
        self._targets.sync(1.0 - self.decay)
        for buffer, own_buffer in zip(model.buffers(), self.module.buffers(), strict=True):
            own_buffer.copy_(buffer)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the model, with averaged weights."""
        return self.module(*args, **kwargs)


def average(model: nn.Module, decay: float = 0.999) -> AveragedModel:
    """An exponential moving average of a model's weights, or a target network, that follows rewiring.

    `torch.optim.swa_utils.AveragedModel` and `lerp_` go from slot to slot and would mix connections after a layer has
    been rewired, which is refused at the next use of the copy. What keeps clones of weights apart from any model (a
    dict of shadows) cannot be recognised: use this instead.

    Args:
        model: With or without sparse layers, on the CPU, float32 or float64.
        decay: What the average keeps at each `update`, in [0, 1): `average = decay average + (1 - decay) model`. For a
            target network 1 - tau.

    Returns:
        The average, to begin with equal to the model. Call its `update()` after each step; it is called like the model.

    Raises:
        ConfigError: If `decay` is out of range.
        KernelUnavailable: If a parameter is on another device or of another type.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 2))
        >>> _ = nn.init.zeros_(model[0].bias)
        >>> smooth = average(model, decay=0.75)
        >>> _ = nn.init.ones_(model[0].bias)
        >>> smooth.update()
        >>> smooth.module[0].bias.tolist()
        [0.25, 0.25]
    """
    return AveragedModel(model, decay)


def _check(model: nn.Module, decay: float) -> None:
    if not 0.0 <= decay < 1.0:
        raise ConfigError(f"decay must be in [0, 1), got {decay}")
    for name, parameter in model.named_parameters():
        check_has_kernels(parameter, f"parameter {name!r} is")
