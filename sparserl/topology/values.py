"""What weight a connection starts with, whether it grows in an event or is there from the beginning.

Decides distributions alone. Independent of layers and optimizers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sparserl.errors import TopologyError, unknown_name
from sparserl.topology.structure import FloatArray, SparseTopology, TopologyChange

Value = Callable[[TopologyChange, np.random.Generator], FloatArray]


def _zero(change: TopologyChange, rng: np.random.Generator) -> FloatArray:
    """0, as in SET, RigL and the DS-TD3 paper."""
    del rng
    return np.zeros(change.grown, np.float32)


def _within(bound: float | FloatArray, change: TopologyChange, rng: np.random.Generator) -> FloatArray:
    return rng.uniform(-bound, bound, change.grown).astype(np.float32)


def _signed(size: float) -> Value:
    """One magnitude, of a random sign."""

    def values(change: TopologyChange, rng: np.random.Generator) -> FloatArray:
        return np.copysign(np.float32(size), _within(1.0, change, rng))

    return values


SIGNED: dict[str, Value] = {
    "tiny": _signed(1e-12),  # code of DeepR (Bellec et al. 2018)
    "adam_step": _signed(1e-3),  # the most that Adam moves a masked weight in DS-TD3's code before it grows
}
"""Values of one magnitude and a random sign."""


def _uniform(change: TopologyChange, rng: np.random.Generator) -> FloatArray:
    """Uniform in +-1/sqrt(n_in), the distribution of initial weights."""
    return _within(1.0 / np.sqrt(change.new.n_in), change, rng)


def _xavier(change: TopologyChange, rng: np.random.Generator) -> FloatArray:
    """Uniform in +-sqrt(6 / (n_in + n_out)) of the dense layer (Glorot and Bengio 2010), as in SpaceNet's code."""
    return _within(np.sqrt(6.0 / (change.new.n_in + change.new.n_out)), change, rng)


def _sparse_fan_in(change: TopologyChange, rng: np.random.Generator) -> FloatArray:
    """Uniform in +-sqrt(6 / connections of the output), which keeps the variance of a ReLU layer's signal.

    Source:
        He et al. 2015 with the fan-in that exists, as in Evci et al. 2022 ("Gradient flow in sparse neural networks").
    """
    outputs = change.new.outputs
    fan_in = np.bincount(outputs, minlength=change.new.n_out)
    return _within(np.sqrt(6.0 / fan_in[outputs[change.source < 0]]), change, rng)


def _sparse_xavier(change: TopologyChange, rng: np.random.Generator) -> FloatArray:
    """Uniform in +-sqrt(3 / mean of the output's and the input's connections), for each connection by itself.

    Source:
        Graesser et al. 2022, sparsity-aware initialisation.
    """
    outputs, inputs = change.new.outputs, change.new.inputs
    fan_in = np.bincount(outputs, minlength=change.new.n_out)
    fan_out = np.bincount(inputs, minlength=change.new.n_in)
    grown = change.source < 0
    # No mean is below 1, the floor in the source: the connection itself counts on both sides.
    mean = (fan_in[outputs[grown]] + fan_out[inputs[grown]]) / 2
    return _within(np.sqrt(3.0 / mean), change, rng)


def _normal(std: float) -> Value:
    """Normal of mean 0, whatever the layer."""

    def values(change: TopologyChange, rng: np.random.Generator) -> FloatArray:
        return (std * rng.standard_normal(change.grown)).astype(np.float32)

    return values


NORMAL: dict[str, Value] = {
    "normal": _normal(0.05),  # code of SET-RBM (Mocanu et al. 2018)
    "wide_normal": _normal(0.1),  # code of QuickSelection (Atashgahi et al. 2022)
}
"""Values of one distribution for all layers."""

NEW_VALUE: dict[str, Value] = {
    "zero": _zero,
    **SIGNED,
    "uniform": _uniform,
    "xavier": _xavier,
    "sparse_fan_in": _sparse_fan_in,
    "sparse_xavier": _sparse_xavier,
    **NORMAL,
}
"""(change, generator) -> weights of grown connections."""

INITIAL_VALUE: dict[str, Value | None] = {
    "dense_fan_in": None,
    "sparse_fan_in": _sparse_fan_in,
    "sparse_xavier": _sparse_xavier,
    **NORMAL,
}
"""The same for the connections that a layer begins with; None draws them as `torch.nn.Linear` does."""


def initial_values(name: str, topology: SparseTopology, rng: np.random.Generator) -> FloatArray | None:
    """(nnz,) float32 weights of a layer that begins with `topology`, or None where torch is to draw them.

    Args:
        name: Name in `INITIAL_VALUE`.
        topology: The connections, seen as grown on an empty layer.
        rng: Of the layer's initial values.

    Raises:
        TopologyError: If the name is unknown.
    """
    if name not in INITIAL_VALUE:
        raise TopologyError(unknown_name("initial value", name, INITIAL_VALUE))
    rule = INITIAL_VALUE[name]
    if rule is None:
        return None
    nothing = SparseTopology(topology.n_out, topology.n_in, np.empty(0, np.int64))
    return rule(TopologyChange(nothing, topology, np.full(topology.nnz, -1)), rng)
