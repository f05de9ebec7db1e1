"""WAST on dense matrices and masks, in double precision, gradients by hand."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from oracle.dense_topology import importance_growth

Matrix = np.ndarray


@dataclass
class Twin:
    """An autoencoder with one layer of sigmoid units, trained by Nesterov's momentum.

    Attributes:
        parameters: Weights and biases of the first layer, then of the last.
        masks: Connections of both layers.
        error_share: Of errors in importances.
        importances: Of inputs and of outputs.
    """

    parameters: list[Matrix]
    masks: list[Matrix]
    error_share: float
    learning_rate: float = 0.1
    momentum: float = 0.9
    drop_fraction: float = 0.3
    importances: list[Matrix] = field(default_factory=list)
    moments: list[Matrix] = field(default_factory=list)

    def step(self, x: Matrix, noisy: Matrix) -> None:
        """A gradient step on a batch, then an event in both layers."""
        first, first_bias, last, last_bias = self.parameters
        hidden = 1 / (1 + np.exp(-(noisy @ first.T + first_bias)))
        reconstruction = hidden @ last.T + last_bias
        out = 2 * (reconstruction - x) / x.size
        into = (out @ last) * hidden * (1 - hidden)
        gradients = [into.T @ noisy * self.masks[0], into.sum(0), out.T @ hidden * self.masks[1], out.sum(0)]
        begins = not self.moments
        if begins:
            self.moments = [np.zeros_like(one) for one in self.parameters]
            self.importances = [np.zeros(x.shape[1]), np.zeros(x.shape[1])]
        for parameter, moment, gradient in zip(self.parameters, self.moments, gradients, strict=True):
            moment *= self.momentum
            moment += gradient
            parameter -= self.learning_rate * (gradient + self.momentum * moment)
        error = np.abs(x - reconstruction).mean(axis=0)
        for layer, axis in ((0, 0), (1, 1)):
            strength = np.abs(self.parameters[2 * layer]).sum(axis=axis)
            self.importances[layer] += self.error_share * error + (1 - self.error_share) * strength
        for layer in (0, 1):
            self._rewire(layer)

    def _rewire(self, layer: int) -> None:
        mask, weights = self.masks[layer], self.parameters[2 * layer]
        ones = np.ones(mask.shape[layer])
        outputs, inputs = (ones, self.importances[0]) if layer == 0 else (self.importances[1], ones)
        worth = np.abs(weights) * np.outer(outputs, inputs)
        slots = np.flatnonzero(mask)
        count = int(self.drop_fraction * slots.size)
        dropped = np.zeros(mask.shape, bool)
        dropped.ravel()[slots[np.argsort(worth.ravel()[slots], kind="stable")[:count]]] = True
        kept = mask & ~dropped
        grown = np.zeros(mask.shape, bool)
        grown.ravel()[importance_growth(outputs, inputs, kept, dropped, count)] = True
        self.masks[layer] = kept | grown
        for values in (weights, self.moments[2 * layer]):
            values[~kept] = 0.0
