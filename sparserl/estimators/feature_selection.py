"""What features are worth by the methods of the field: pure functions of samples, options and a seed.

A method is a row of `SELECTIONS`. None computes or stores anything for connections that do not exist.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from sparserl.continual.supervised.fit_learner import FitLearner
from sparserl.continual.supervised.learner_config import FitLearnerConfig
from sparserl.continual.supervised.objectives import RECONSTRUCT
from sparserl.continual.supervised.splits import Scaling
from sparserl.continual.supervised.tasks import TaskSequence
from sparserl.continual.supervised.wast import WASTLearner
from sparserl.estimators.network import passes
from sparserl.layers.linear import linear
from sparserl.metrics.inputs import Floats, input_attribution, input_strength
from sparserl.seeding import stream
from sparserl.topology.config import TopologyConfig
from sparserl.topology.structure import TopologyChange

ATTRIBUTED = 256
"""Samples, at most, over which attribution is averaged after each pass: each costs a backward pass for each class."""


@dataclass(frozen=True)
class Options:
    """What a selection may be told, with the values of its source where nothing is said.

    Attributes:
        hidden: Neurons of each hidden layer.
        epochs: Passes through the samples.
        density: Share of connections that exist; None as its source has them.
        error_share: Of reconstruction errors in what a feature is worth, beside the strength of its neuron; None where
            there is no such thing.
    """

    hidden: tuple[int, ...]
    epochs: int
    density: float | None = None
    error_share: float | None = None


@dataclass(frozen=True)
class Selection:
    """A method of feature selection.

    Attributes:
        importances: (samples, options, seed) -> (F,) what features are worth, the more the better.
        usual: Options of its source.
        scaling: Of features, as its source has it.
        needs_labels: Whether samples need labels.
    """

    importances: Callable[[TaskSequence, Options, int], Floats]
    usual: Options
    scaling: Scaling
    needs_labels: bool = False


def attribution(samples: TaskSequence, options: Options, seed: int) -> Floats:
    """Mean |d output / d feature|, summed over outputs and over the passes of a sparse classifier through the samples.

    Source:
        Atashgahi et al. 2024 (ECAI; SET-Attr): hidden layers of 1000 and 100, Adam at .001, SET with .3 after each
        pass.

    Known differences: no samples are held out, so no early end; a mean over at most 256 samples, others after each
    pass. The factor of connections, 20, is that of SET: the paper's is not known here.
    """
    topology = TopologyConfig("set", **_connections(options, 20.0))
    config = FitLearnerConfig(hidden=options.hidden, epochs=options.epochs)
    learner = FitLearner(samples, config, topology, seed=seed)
    train = learner.only_task.train
    total = np.zeros(samples.n_features)
    for _ in passes(learner):
        drawn = stream(seed, "attributed_samples", str(learner.epoch)).permutation(len(train))[:ATTRIBUTED]
        total += input_attribution(learner.network, train.take(np.sort(drawn))[0])
    return total


def quickselection(samples: TaskSequence, options: Options, seed: int) -> Floats:
    """Sum of the |weights| out of each feature in a sparse denoising autoencoder: of those that its last event left.

    Events follow each pass but the last, so that no training of the last one counts, as in the code.

    Source:
        Atashgahi et al. 2022 (QuickSelection), and its code: 1000 sigmoid units, connections of SET by factor 13, of
        which .2 move after each pass, half the squared error summed over features.

    Known differences: noise is drawn anew at each step, there once for all samples; outputs are linear for all data,
    there tanh for Madelon.
    """
    config = FitLearnerConfig(
        hidden=options.hidden,
        activation="sigmoid",
        dropout=0.2,
        rescaled_dropout=False,
        noise=0.2,
        optimizer="sgd",
        learning_rate=0.01,
        momentum=0.9,
        constant_decay=1e-5,
        epochs=options.epochs,
        batch_size=100,
    )
    steps = math.ceil(len(samples.tasks[0].train) / config.batch_size)
    events: dict[str, Any] = {
        "drop_fraction": 0.2,
        "first_update": steps,
        "update_interval": steps,
        "last_update": steps * options.epochs - 1,
        "new_value": "wide_normal",
    }
    method, rewiring = ("set", events) if options.epochs > 1 else ("static", {})
    topology = TopologyConfig(method, initial_value="wide_normal", **rewiring, **_connections(options, 13.0))
    half = samples.n_features / 2
    objective = replace(RECONSTRUCT, loss=lambda *batch: half * RECONSTRUCT.loss(*batch))
    learner = FitLearner(samples, config, topology, objective, seed=seed)
    left = _left_by_events(learner)
    for _ in passes(learner):
        pass
    return left[-1] if left else input_strength(learner.network[0])


def _left_by_events(learner: FitLearner) -> list[Floats]:
    """A list that each event adds the strengths of inputs to which it leaves; empty where none has."""
    left: list[Floats] = []
    evolver = learner.evolver
    first: Any = learner.network[0]
    if evolver is None:
        return left
    for name in [name for name, layer in evolver.layers.items() if layer is first]:
        evolver.follow(name, lambda change, _: left.append(surviving_strength(change, linear(first).weights)))
    return left


def surviving_strength(change: TopologyChange, values: torch.Tensor) -> Floats:
    """(n_in,) sum of the |weights| out of each input over the connections that an event left, without what it grew.

    Args:
        change: Of the event.
        values: (change.new.nnz,) weights after it.
    """
    kept = change.source >= 0
    magnitudes = values.detach().abs().double().numpy()
    return np.bincount(change.new.inputs[kept], magnitudes[kept], minlength=change.new.n_in).astype(np.float64)


def wast(samples: TaskSequence, options: Options, seed: int) -> Floats:
    """Errors of reconstruction and strengths of a feature, added up over the steps of a sparse denoising autoencoder.

    Its connections move to important features after every step.

    Source:
        Sokar et al. 2022 (WAST), and its code: 200 sigmoid units, a fifth of the connections; differences are said in
        `sparserl.continual.supervised.wast`.
    """
    config = FitLearnerConfig(
        hidden=options.hidden,
        activation="sigmoid",
        noise=0.2,
        optimizer="sgd",
        learning_rate=0.1,
        momentum=0.9,
        nesterov=True,
        epochs=options.epochs,
        batch_size=128,
    )
    assert options.density is not None
    assert options.error_share is not None
    learner = WASTLearner(samples, config, density=options.density, error_share=options.error_share, seed=seed)
    for _ in passes(learner):
        pass
    return learner.importance.inputs


def _connections(options: Options, epsilon: float) -> dict[str, Any]:
    """Fields of a topology of sparse layers: the density that is wished, or a factor."""
    how_many = {"epsilon": (epsilon,)} if options.density is None else {"density": options.density}
    return {"output_layer": "sparse", **how_many}


SELECTIONS: dict[str, Selection] = {
    "wast": Selection(wast, Options((200,), 10, density=0.2, error_share=0.9), "all_features"),
    "quickselection": Selection(quickselection, Options((1000,), 100), "each_feature"),
    "attribution": Selection(attribution, Options((1000, 100), 200), "each_feature", needs_labels=True),
}
