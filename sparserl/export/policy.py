"""What a deterministic policy is, as plain arrays: its layers, and how their outputs become actions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sparserl.export.images import PolicyImages
from sparserl.export.layers import Floats, PolicyLayer


@dataclass(frozen=True, eq=False)
class ExportedPolicy:
    """A deterministic policy: layers with an activation between them, or what `PolicyLayer` says.

    Where it reads images, features are made of them first. At the end stand tanh and the range of actions, or that
    range alone, to which outputs are clipped; discrete actions are the place of the highest output, the first one.
    It reads observations as the agent saw them, behind the wrappers of its run.

    Attributes:
        layers: In order.
        activation: Name of the hidden activation, `relu` or `tanh`.
        low: (actions,) lowest action; None if actions are discrete.
        high: (actions,) highest action; likewise.
        about: What it is, e.g. algorithm, environment and step, as strings.
        clips: Whether outputs are clipped to the range of actions, instead of squashed and scaled to it.
        images: What makes features of images; None if it reads vectors.
    """

    layers: Sequence[PolicyLayer]
    activation: str
    low: Floats | None
    high: Floats | None
    about: dict[str, str] = field(default_factory=dict)
    clips: bool = False
    images: PolicyImages | None = None

    @property
    def n_in(self) -> int:
        """Features of an observation, or those that are made of an image."""
        return self.layers[0].n_in

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an observation."""
        return (self.n_in,) if self.images is None else self.images.shape

    @property
    def all_layers(self) -> list[PolicyLayer]:
        """Those that make features of images first."""
        return [*([] if self.images is None else self.images.layers.values()), *self.layers]

    @property
    def n_out(self) -> int:
        """Actuators, or actions to choose from."""
        return self.layers[-1].n_out

    @property
    def connections(self) -> int:
        """Weights that exist."""
        return sum(layer.values.size for layer in self.all_layers)

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

    def __call__(self, observation: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Observation of `shape` to (n_out,) action, or () number of it; what exports are compared with."""
        x = np.asarray(observation, np.float32) if self.images is None else self.images(observation)
        levels = [x]
        for index, layer in enumerate(self.layers):
            y = layer(levels[-1])
            y = y if layer.added is None else y + levels[layer.added]
            if index + 1 < len(self.layers) and layer.is_activated:
                y = np.maximum(y, 0) if self.activation == "relu" else np.tanh(y)
            levels.append(y)
        if self.low is None or self.high is None:
            return np.asarray(y.argmax())
        if self.clips:
            return np.clip(y, self.low, self.high)
        squashed = np.tanh(y)
        return np.asarray(self.low + np.float32(0.5) * (squashed + 1) * (self.high - self.low), np.float32)
