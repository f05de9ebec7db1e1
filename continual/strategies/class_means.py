"""Methods that answer with the nearest mean of a class: of samples as they are, or of sparse codes of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from sparserl.continual.learner import Kind
from sparserl.continual.shared.expansion import Expansion, drawn_inputs
from sparserl.continual.strategies.closed_form import (
    ClosedForm,
    Floats,
    Scores,
    Units,
    class_sums,
    means_of,
    of_unit_norm,
)
from sparserl.continual.strategies.options import Options
from sparserl.ranges import Count, PositiveShare


@dataclass(frozen=True)
class NearestMeanOptions(Options):
    """What is averaged."""

    unit_norm: bool = False
    """Whether samples are scaled to length 1 first."""

    group: ClassVar[str] = "nearest_mean"
    defaults: ClassVar[Mapping[Kind, Mapping[str, Any]]] = {"classifier": {"unit_norm": False}}


class NearestMean(ClosedForm):
    """Nearest class mean: the cheapest answer that knows all classes. Exact, whatever the order of samples."""

    options: NearestMeanOptions

    def _zeros(self, n_features: int, n_outputs: int, seed: int) -> dict[str, Any]:
        del seed
        return {"sums": np.zeros((n_outputs, n_features)), "counts": np.zeros(n_outputs, np.int64)}

    def _read(self, x: Floats) -> Floats:
        return of_unit_norm(x) if self.options.unit_norm else x

    def learn(self, x: Floats, y: Units) -> None:
        class_sums(self._read(x), y, self.arrays["sums"], self.arrays["counts"])

    def answer(self) -> Scores:
        means = means_of(self.arrays["sums"], self.arrays["counts"])
        half_squares = np.where(self.arrays["counts"] > 0, 0.5 * np.square(means).sum(axis=1), np.inf)
        return lambda x: self._read(x) @ means.T - half_squares  # ranks as distances do


@dataclass(frozen=True)
class FlyCodeOptions(Options):
    """The code.

    Raises:
        ConfigError: If a value is out of range.
    """

    units: Count = 2000
    """Neurons of the code."""
    inputs: Count = 20
    """Features that each of them adds up."""
    winners: PositiveShare = 0.05
    """Share of the neurons, those of largest activity and what equals the least of them, that are 1 in the code of a
    sample while all others are 0, in (0, 1]."""

    group: ClassVar[str] = "fly_code"
    defaults: ClassVar[Mapping[Kind, Mapping[str, Any]]] = {
        "classifier": {"units": 2000, "inputs": 20, "winners": 0.05}
    }


class FlyCode(NearestMean):
    """The nearest mean of binary sparse codes: random sums of few features, of which the largest win.

    Codes of a sample that is like another share winners, and classes share few, so their means hardly disturb each
    other. Exact, whatever the order of samples. Codes have length 1, and so have the means that they are compared with.

    Source:
        Shen et al. 2023 (FlyModel), after Dasgupta et al. 2017. There the mean of a class decays towards new codes, one
        sample at a time; here it is the mean of all.
    """

    options: FlyCodeOptions  # type: ignore[assignment]  # other options, and no other use of them

    def _zeros(self, n_features: int, n_outputs: int, seed: int) -> dict[str, Any]:
        own = self.options
        inputs = drawn_inputs(own.units, n_features, own.inputs, seed, own.group)
        self._expansion = Expansion(inputs, n_features)
        return {"inputs": inputs, **super()._zeros(own.units, n_outputs, seed)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._expansion = Expansion(self.arrays["inputs"], self._expansion.n_features)

    def _read(self, x: Floats) -> Floats:
        activity = self._expansion(x - x.mean(axis=1, keepdims=True))
        winners = max(1, round(self.options.winners * activity.shape[1]))
        least = np.partition(activity, -winners, axis=1)[:, -winners, np.newaxis]
        return of_unit_norm((activity >= least).astype(np.float64))

    def answer(self) -> Scores:
        means = of_unit_norm(self.arrays["sums"])
        return lambda x: self._read(x) @ means.T

    def bytes_of(self, n_features: int, n_outputs: int) -> float:
        return super().bytes_of(self.options.units, n_outputs) + 16.0 * self.options.units * self.options.inputs
