"""What the optimizer remembers of connections, carried through topology events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch

from sparserl.errors import TopologyError
from sparserl.topology.rewire import remap
from sparserl.topology.structure import FloatArray, TopologyChange

Entries: TypeAlias = tuple[slice | torch.Tensor, ...]
"""Some entries of a parameter: `parameter[entries]`."""


def _mean_of_survivors(state: np.ndarray, change: TopologyChange) -> float:
    survivors = state[change.source[change.source >= 0]]
    return float(survivors.mean()) if survivors.size else 0.0


@dataclass(frozen=True)
class Moments:
    """How the optimizer's state of a connection begins.

    Attributes:
        fill: (old nnz,) state, change -> that of grown connections; None for what the optimizer begins with.
        own_clocks: Whether each connection has its own count of steps, which begins with it: the bias of its moments is
            corrected as that of a new weight.
    """

    fill: Callable[[np.ndarray, TopologyChange], float] | None = None
    own_clocks: bool = False


MOMENTS: dict[str, Moments] = {
    "zero": Moments(),
    "mean": Moments(_mean_of_survivors),
    "fresh": Moments(own_clocks=True),
}
"""`zero` as in RigL; `mean` as Synapses means to; `fresh` as the averages of Selfish-RNN's SNT-ASGD begin
(`sparserl.layers.averaged_sgd`), for Adam."""
Beginning = Callable[[Mapping[str, Any], float | FloatArray], float | FloatArray]
BEGINNINGS: dict[tuple[str, str], Beginning] = {
    ("Rprop", "step_size"): lambda options, weights: float(options["lr"]),
    ("Adagrad", "sum"): lambda options, weights: float(options["initial_accumulator_value"]),
    ("ASGD", "ax"): lambda options, weights: weights,
    ("RMSpropTFLike", "square_avg"): lambda options, weights: 1.0,
}
"""Optimizer and key of its state -> where that begins, if not at 0, by its options and the weights of connections."""


CLOCK = "step"
"""Key of the steps of each connection among an optimizer's state; they begin at 0, whatever moments begin with."""


def check_moments(moments: str, optimizer: torch.optim.Optimizer) -> None:
    """Raises TopologyError if an optimizer cannot keep what the entry `moments` of `MOMENTS` asks for."""
    if MOMENTS[moments].own_clocks and not getattr(optimizer, "has_clocks_of_entries", False):
        kind = f"{type(optimizer).__module__}.{type(optimizer).__name__}"
        raise TopologyError(
            f"moments {moments!r} count the steps of each connection, which {kind} cannot: use "
            "sparserl.layers.fused_adam.FusedAdam (learner.optimizer adam), or moments 'zero'"
        )


@dataclass(frozen=True)
class OptimizerMoments:
    """A follower that carries the optimizer's state of one layer.

    State is told apart by shape alone, so any elementwise optimizer works: a tensor shaped like the weights is per
    connection, a tensor without dimensions is shared.

    Attributes:
        optimizer: Holds `values`.
        values: (nnz,) weights of the layer.
        moments: Name in `MOMENTS`.

    Raises:
        TopologyError: As `check_moments`.
    """

    optimizer: torch.optim.Optimizer
    values: torch.nn.Parameter
    moments: str = "zero"

    def __post_init__(self) -> None:
        check_moments(self.moments, self.optimizer)

    def __call__(self, change: TopologyChange, grown_values: float | FloatArray) -> None:
        """Moves the state of surviving connections to their new slots.

        Raises:
            TopologyError: If the optimizer keeps a tensor of any other shape.
        """
        rule, states = MOMENTS[self.moments], self.optimizer.state.get(self.values, {})
        if rule.own_clocks and CLOCK in states:
            states[CLOCK] = states[CLOCK].expand(change.old.nnz).clone()  # until now one for all, or their own
        for name, state in states.items():
            if not torch.is_tensor(state) or state.dim() == 0:
                continue
            if state.shape != (change.old.nnz,):
                kind, shape = type(self.optimizer).__name__, tuple(state.shape)
                raise TopologyError(
                    f"{kind} keeps {name!r} of shape {shape}, which is not per connection and cannot follow a topology "
                    "event: use an elementwise optimizer such as Adam, AdamW, RMSprop or SGD"
                )
            old = state.numpy()
            if rule.fill is None or name == CLOCK:
                new = remap(old, change, self._beginning(name, grown_values))
            else:
                new = remap(old, change, rule.fill(old, change))
            self.optimizer.state[self.values][name] = torch.from_numpy(new)

    def _beginning(self, key: str, weights: float | FloatArray) -> float | FloatArray:
        """Where the optimizer begins a state of connections of these weights."""
        for kind in type(self.optimizer).__mro__:
            begin = BEGINNINGS.get((kind.__name__, key))
            if begin is not None:
                return begin(self._options(), weights)
        return 0.0

    def _options(self) -> Mapping[str, Any]:
        """Those of the parameter group of the weights."""
        groups = self.optimizer.param_groups
        return next(group for group in groups if any(one is self.values for one in group["params"]))


def check_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Raises TopologyError if an optimizer will gather nothing that `momentum_of` reads."""
    kind = type(optimizer).__name__
    if isinstance(optimizer, torch.optim.Adamax) or not all(
        "betas" in group or group.get("momentum", 0.0) > 0.0 for group in optimizer.param_groups
    ):
        raise TopologyError(
            f"a budget by momentum needs an optimizer that gathers one, and this {kind} does not: use Adam (--agent."
            "optimizer adam, learner.optimizer adam), or SGD or RMSprop with momentum"
        )


def learning_rate_of(optimizer: torch.optim.Optimizer, values: torch.nn.Parameter) -> float:
    """The present learning rate of weights.

    Raises:
        TopologyError: If the optimizer does not move them, or has none.
    """
    for group in optimizer.param_groups:
        if any(parameter is values for parameter in group["params"]) and "lr" in group:
            return float(group["lr"])
    kind = type(optimizer).__name__
    raise TopologyError(f"a pull at weights needs an optimizer with a learning rate for them, and this {kind} has none")


def momentum_of(optimizer: torch.optim.Optimizer, values: torch.nn.Parameter) -> FloatArray:
    """(nnz,) what an optimizer has gathered of the gradients of weights: SGD's momentum, or Adam's next step at rate 1.

    Raises:
        TopologyError: If it keeps neither, or has not stepped yet.

    Source:
        Dettmers and Zettlemoyer 2019 (SNFS), code: the momentum buffer, or m / (sqrt(v) + 1e-8).
    """
    state = optimizer.state.get(values, {})
    if state.get("momentum_buffer") is not None:
        buffer: FloatArray = state["momentum_buffer"].numpy()
        return buffer
    if "exp_avg" in state and "exp_avg_sq" in state:
        step: FloatArray = (state["exp_avg"] / (state["exp_avg_sq"].sqrt() + 1e-8)).numpy()
        return step
    kind = type(optimizer).__name__
    raise TopologyError(f"a budget by momentum needs an optimizer that has gathered one, and this {kind} has not")
