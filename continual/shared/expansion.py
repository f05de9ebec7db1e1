"""Random layers that stay as they are: each neuron reads a few features, and no weight is ever trained."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from sparserl.errors import ConfigError
from sparserl.layers import SparseLinear
from sparserl.seeding import stream
from sparserl.topology.initial_topology import constant_fan_in
from sparserl.topology.structure import SparseTopology

Floats = npt.NDArray[np.float64]


class Expansion:
    """`x -> W x` with as many connections a neuron.

    Args:
        inputs: (H, k) int64 features that each neuron reads, sorted.
        n_features: Features there are.
        weights: (H, k) of them; 1 if None.
    """

    def __init__(self, inputs: npt.NDArray[np.int64], n_features: int, weights: Floats | None = None):
        self.inputs, self.n_features = inputs, n_features
        flat = np.arange(len(inputs))[:, np.newaxis] * n_features + inputs
        topology = SparseTopology(len(inputs), n_features, flat.ravel())
        self._layer = SparseLinear(topology, bias=False, dtype=torch.float64)
        given = np.ones(inputs.shape) if weights is None else weights
        with torch.no_grad():
            self._layer.values.copy_(torch.from_numpy(given.ravel()))

    @torch.no_grad()
    def __call__(self, x: Floats) -> Floats:
        """(B, H) of (B, F)."""
        y: Floats = self._layer(torch.from_numpy(np.ascontiguousarray(x))).numpy()
        return y


def drawn_inputs(units: int, n_features: int, inputs: int, seed: int, name: str) -> npt.NDArray[np.int64]:
    """(H, k) features that each neuron of `<name>.units` reads, drawn without replacement and sorted.

    Raises:
        ConfigError: If there are fewer features than that.
    """
    if inputs > n_features:
        said = f"{name.replace('_', '-')}.inputs {inputs}"
        raise ConfigError(f"--{said} is more than there are features: give at most {n_features}")
    flat = constant_fan_in(units, n_features, units * inputs, stream(seed, name, "inputs")).flat
    drawn: npt.NDArray[np.int64] = (flat % n_features).reshape(units, inputs)
    return drawn
