"""SGD with an average of each weight over the steps that it has existed for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from sparserl.errors import ConfigError


class AveragedSGD(torch.optim.Optimizer):
    """SGD without momentum; what a network computes with its averages is better than with its weights.

    Each weight has a clock of its own, its state `step` (of the weight's shape): its average is the weight itself for
    two steps, and then the mean of all since the second. A topology event starts clock and average of a grown
    connection anew, as it does with moments. Steps go on with the weights; `averaged` puts the averages in their place.

    Args:
        parameters: As of any optimizer of torch.
        lr: Learning rate, in (0, inf).
        weight_decay: L2, in [0, inf): this times the weight is added to its gradient.
        averaging: Whether steps are averaged: an entry of each parameter group, which may be set to True later.

    Raises:
        ConfigError: If a number is out of range.

    Source:
        Liu et al. 2021 (Selfish-RNN), SNT-ASGD and its code. There averaging begins when the validation loss is worse
        than the best one of more than five epochs ago; here the caller says when.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(1))
        >>> optimizer = AveragedSGD([weight], lr=0.2)
        >>> for _ in range(3):
        ...     weight.grad = torch.ones(1)
        ...     optimizer.step()
        >>> with optimizer.averaged():
        ...     round(weight.item(), 4)
        0.5
        >>> round(weight.item(), 4)
        0.4
    """

    has_clocks_of_entries = True
    """Each weight counts its steps, whatever `moments` says."""

    def __init__(self, parameters: Iterable[Any], lr: float, weight_decay: float = 0.0, averaging: bool = True):
        if not 0.0 < lr < float("inf"):
            raise ConfigError(f"lr must be positive, got {lr}")
        if not 0.0 <= weight_decay < float("inf"):
            raise ConfigError(f"weight_decay must not be negative, got {weight_decay}")
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "averaging": averaging})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step, as of any optimizer of torch."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                gradient = parameter.grad
                if group["weight_decay"]:
                    gradient = gradient.add(parameter, alpha=group["weight_decay"])
                parameter.add_(gradient, alpha=-group["lr"])
                if group["averaging"]:
                    self._average(parameter)
        return loss

    def _average(self, parameter: torch.Tensor) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros_like(parameter)
            state["average"] = parameter.clone()
        clock: torch.Tensor = state["step"].add_(1.0)
        state["average"].add_((parameter - state["average"]) / (clock - 1.0).clamp_(min=1.0))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Puts averages in the place of weights, and weights back; a weight that has made no step since it grew stays.

        Neither steps nor topology events may happen in between.
        """
        with torch.no_grad():
            weights = {parameter: parameter.clone() for parameter in self.state}
            self.adopt()
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, weight in weights.items():
                    parameter.copy_(weight)

    @torch.no_grad()
    def adopt(self) -> None:
        """Puts averages in the place of weights for good."""
        for parameter, state in self.state.items():
            parameter.copy_(torch.where(state["step"] > 0.0, state["average"], parameter))
