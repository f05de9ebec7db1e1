"""How important features are to an autoencoder, gathered while it learns: by errors of reconstruction, and by weights.

Decides what a feature is worth and what that makes of connections; which of them move is decided in
`sparserl.topology`.

Source:
    Sokar et al. 2022 (WAST, "Where to pay attention in sparse training for feature selection"), section 3, and its
    code.

Known differences from that code: connections are dropped by the least importance whatever their sign, as the paper has
it, where the code takes a share of the positive and of the negative ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from sparserl.topology.evolver import TopologyEvolver
from sparserl.topology.structure import EvolvingLayer, FloatArray, Importance, LayerView, Positions

Floats = npt.NDArray[np.float64]


def gained_importance(x: FloatArray, reconstruction: FloatArray, strength: FloatArray, share: float) -> Floats:
    """(F,) what a batch adds to the importance of each feature: `share` mean |x - reconstruction| + the rest strength.

    Args:
        x: (B, F) samples without noise, B >= 1.
        reconstruction: (B, F) what became of them.
        strength: (F,) sum of |weights| of each feature's neuron.
        share: Of the error beside the strength, in [0, 1].

    Example:
        >>> x, reconstruction = np.array([[1.0, 0, 2], [3, 0, 0]]), np.array([[0.5, 0.2, 1], [2, 0.2, 1]])
        >>> gained_importance(x, reconstruction, np.array([0.4, 0.1, 0.5]), 0.9).round(3).tolist()
        [0.715, 0.19, 0.95]
    """
    error = np.abs(x - reconstruction).mean(axis=0, dtype=np.float64)
    return np.asarray(share * error + (1.0 - share) * strength, np.float64)


def of_connections(values: FloatArray, neurons: Positions, importance: Floats) -> Floats:
    """(nnz,) |weight| times the importance of the feature that a connection belongs to.

    Args:
        values: (nnz,) weights.
        neurons: (nnz,) the feature of each.
        importance: (F,) of features.
    """
    return np.abs(values) * importance[neurons]


class ReconstructionImportance:
    """Importances of the inputs and of the outputs of an autoencoder with one hidden layer; hidden neurons have 1.

    It feeds the criteria `connection_importance` and `neuron_importance` of both layers.

    Args:
        evolver: Moves the connections.
        first: Name in it of the layer that reads features.
        last: Name in it of the layer that reconstructs them.
        share: Of reconstruction errors beside strengths, in [0, 1].

    Attributes:
        inputs: (F,) of the neurons that read features, added up over all batches so far.
        outputs: (F,) of those that reconstruct them.
    """

    def __init__(self, evolver: TopologyEvolver, first: str, last: str, share: float):
        self._first, self._last, self.share = evolver.layers[first], evolver.layers[last], share
        self.inputs = np.zeros(self._first.topology.n_in)
        self.outputs = np.zeros(self._last.topology.n_out)
        evolver.set_constraint(first, self._of_first)
        evolver.set_constraint(last, self._of_last)

    def add(self, x: FloatArray, reconstruction: FloatArray) -> None:
        """Adds what a batch says; call it after the optimizer's step and before an event.

        Args:
            x: (B, F) samples without noise.
            reconstruction: (B, F) what became of them before the step.
        """
        at_inputs = _strength(self._first, self._first.topology.inputs, self.inputs.size)
        at_outputs = _strength(self._last, self._last.topology.outputs, self.outputs.size)
        self.inputs += gained_importance(x, reconstruction, at_inputs, self.share)
        self.outputs += gained_importance(x, reconstruction, at_outputs, self.share)

    def state_dict(self) -> dict[str, Any]:
        """The sums."""
        return {"inputs": self.inputs, "outputs": self.outputs}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from these sums."""
        self.inputs, self.outputs = (np.asarray(state[name]).copy() for name in ("inputs", "outputs"))

    def _of_first(self, view: LayerView) -> LayerView:
        connections = of_connections(view.values, view.topology.inputs, self.inputs)
        importance = Importance(connections, np.ones(view.topology.n_out), self.inputs)
        return dataclasses.replace(view, importance=importance)

    def _of_last(self, view: LayerView) -> LayerView:
        connections = of_connections(view.values, view.topology.outputs, self.outputs)
        importance = Importance(connections, self.outputs, np.ones(view.topology.n_in))
        return dataclasses.replace(view, importance=importance)


def _strength(layer: EvolvingLayer, neurons: Positions, count: int) -> Floats:
    """(count,) sum of |weights| of the connections of each neuron."""
    magnitudes = np.abs(layer.values.detach().numpy())
    return np.bincount(neurons, magnitudes, minlength=count).astype(np.float64)
