"""What a deterministic policy is, as plain arrays: its layers, and how their outputs become actions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from torch import nn

from sparserl.layers.linear import linear

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.uint32]


@dataclass(frozen=True, eq=False)
class PolicyLayer:
    """One linear layer.

    Attributes:
        n_in: Inputs.
        n_out: Outputs.
        values: (nnz,) weights, row after row.
        bias: (n_out,)
        row_ptr: (n_out + 1,) first weight of each output; None where every connection exists.
        col: (nnz,) input of each weight; likewise.
    """

    n_in: int
    n_out: int
    values: Floats
    bias: Floats
    row_ptr: Indices | None
    col: Indices | None

    @classmethod
    def of(cls, layer: nn.Module, outputs: int | None = None) -> PolicyLayer:
        """From a trained layer.

        Args:
            layer: A linear layer, with biases.
            outputs: Only the first so many; all of them if None.

        Raises:
            ConfigError: If it is another module.
        """
        view = linear(layer).in_use
        assert view.bias is not None
        n_out, n_in = view.shape
        outputs = n_out if outputs is None else outputs
        bias = view.bias.detach().numpy()[:outputs].copy()
        weights = view.weights.detach().numpy().ravel()
        if view.index is None:
            return cls(n_in, outputs, weights[: outputs * n_in].copy(), bias, None, None)
        row_ptr = view.index.row_ptr[: outputs + 1].astype(np.uint32)
        end = int(row_ptr[-1])
        return cls(n_in, outputs, weights[:end].copy(), bias, row_ptr, view.index.col[:end].copy())

    def __call__(self, x: Floats) -> Floats:
        """(n_in,) to (n_out,), connection by connection."""
        if self.row_ptr is None or self.col is None:
            return self.values.reshape(self.n_out, self.n_in) @ x + self.bias
        products = np.append(self.values * x[self.col], np.float32(0))
        starts, counts = self.row_ptr[:-1].astype(np.int64), np.diff(self.row_ptr.astype(np.int64))
        sums = np.where(counts > 0, np.add.reduceat(products, starts), np.float32(0))
        return np.asarray(sums + self.bias, np.float32)


@dataclass(frozen=True, eq=False)
class ExportedPolicy:
    """A deterministic policy: layers with an activation between them.

    At the end stand tanh and the range of actions, or that range alone, to which outputs are clipped; discrete actions
    are the place of the highest output, the first one.
    It reads observations as the agent saw them, behind the wrappers of its run.

    Attributes:
        layers: In order.
        activation: Name of the hidden activation, `relu` or `tanh`.
        low: (actions,) lowest action; None if actions are discrete.
        high: (actions,) highest action; likewise.
        about: What it is, e.g. algorithm, environment and step, as strings.
        clips: Whether outputs are clipped to the range of actions, instead of squashed and scaled to it.
    """

    layers: Sequence[PolicyLayer]
    activation: str
    low: Floats | None
    high: Floats | None
    about: dict[str, str] = field(default_factory=dict)
    clips: bool = False

    @property
    def n_in(self) -> int:
        """Features of an observation."""
        return self.layers[0].n_in

    @property
    def n_out(self) -> int:
        """Actuators, or actions to choose from."""
        return self.layers[-1].n_out

    @property
    def connections(self) -> int:
        """Weights that exist."""
        return sum(layer.values.size for layer in self.layers)

    @property
    def ending(self) -> Literal["squashed", "clipped", "chosen"]:
        """How outputs become actions."""
        if not self.ranges:
            return "chosen"
        return "clipped" if self.clips else "squashed"

    @property
    def ranges(self) -> dict[str, Floats]:
        """`low` and `high`, if there are any."""
        return {} if self.low is None or self.high is None else {"low": self.low, "high": self.high}

    def __call__(self, observation: Floats) -> npt.NDArray[Any]:
        """(n_in,) observation to (n_out,) action, or () number of it; the definition that exports are compared with."""
        x = np.asarray(observation, np.float32)
        for layer in self.layers[:-1]:
            y = layer(x)
            x = np.maximum(y, 0) if self.activation == "relu" else np.tanh(y)
        y = self.layers[-1](x)
        if self.low is None or self.high is None:
            return np.asarray(y.argmax())
        if self.clips:
            return np.clip(y, self.low, self.high)
        squashed = np.tanh(y)
        return np.asarray(self.low + np.float32(0.5) * (squashed + 1) * (self.high - self.low), np.float32)
