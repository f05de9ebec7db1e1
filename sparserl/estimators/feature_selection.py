"""What features are worth by the methods of the field: pure functions of samples, options and a seed.

A method is a row of `SELECTIONS`. None computes or stores anything for connections that do not exist.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sparserl.continual.supervised.fit_learner import FitLearner
from sparserl.continual.supervised.learner_config import FitLearnerConfig
from sparserl.continual.supervised.tables import Scaling
from sparserl.continual.supervised.tasks import TaskSequence
from sparserl.estimators.network import passes
from sparserl.metrics.inputs import Floats, input_attribution
from sparserl.seeding import stream
from sparserl.topology.config import TopologyConfig

ATTRIBUTED = 1000
"""Samples, at most, over which attribution is averaged after each pass."""


@dataclass(frozen=True)
class Options:
    """What a selection may be told, with the values of its source where nothing is said.

    Attributes:
        hidden: Neurons of each hidden layer.
        epochs: Passes through the samples.
        density: Share of connections that exist; None as its source has them.
    """

    hidden: tuple[int, ...]
    epochs: int
    density: float | None = None


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

    Known differences: no samples are held out, so no early end; a mean over at most 1000 samples, the same ones after
    each pass. The factor of connections, 20, is that of SET: the paper's is not known here.
    """
    density, epsilon = (options.density, None) if options.density is not None else (None, (20.0,))
    topology = TopologyConfig("set", density, epsilon=epsilon, output_layer="sparse")
    config = FitLearnerConfig(hidden=options.hidden, epochs=options.epochs)
    learner = FitLearner(samples, config, topology, seed=seed)
    train = learner.only_task.train
    drawn = stream(seed, "attributed_samples").permutation(len(train))[:ATTRIBUTED]
    x, _ = train.take(np.sort(drawn))
    total = np.zeros(samples.n_features)
    for _ in passes(learner):
        total += input_attribution(learner.network, x)
    return total


SELECTIONS: dict[str, Selection] = {
    "attribution": Selection(attribution, Options((1000, 100), 200), "each_feature", needs_labels=True),
}
