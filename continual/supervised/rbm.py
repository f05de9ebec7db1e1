"""A sparse restricted Boltzmann machine: hidden units that explain a table without labels."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from sparserl.continual.supervised.fit_learner import FitLearner
from sparserl.continual.supervised.learner_config import FitLearnerConfig
from sparserl.continual.supervised.losses import Reals
from sparserl.continual.supervised.objectives import RECONSTRUCT, Objective, Score
from sparserl.continual.supervised.tasks import Batch, Samples, TaskSequence
from sparserl.errors import ConfigError
from sparserl.kernels.deferred import computed
from sparserl.layers import SparseMLP
from sparserl.layers.fused import FusedLayers, FusedPass
from sparserl.seeding import stream
from sparserl.topology.config import TopologyConfig


class RBMLearner(FitLearner):
    """A Bernoulli restricted Boltzmann machine that learns by contrastive divergence.

    Its network is the one layer from visible to hidden units; the biases of the visible ones are a parameter of it.
    Visible units are probabilities, in the data and in the chain; hidden ones are drawn, by evaluation too and there
    always alike. The loss is the mean squared error of a feature between samples and the end of their chains, of one
    step in evaluation.

    Args:
        table: The samples, features in [0, 1].
        config: Hidden units and training; `gibbs_steps` is the length of the chain.
        topology: Connections, and how they change.
        objective: Reconstruction.
        seed: Root seed of weights, connections, batches and draws.

    Raises:
        ConfigError: If there is not one layer of hidden units, a feature of a training sample is outside [0, 1], or an
            option has no effect.

    Source:
        Hinton 2002 (contrastive divergence); Mocanu et al. 2018, section on SET-RBM, and its code.
    """

    def __init__(
        self,
        table: TaskSequence,
        config: FitLearnerConfig,
        topology: TopologyConfig,
        objective: Objective = RECONSTRUCT,
        *,
        seed: int,
    ):
        _check(config)
        if topology.judged_by_batch:
            raise ConfigError(f"topology {topology.method} judges connections by a loss, which an RBM does not have")
        check_in_unit_range(table.tasks[0].train)
        super().__init__(table, config, topology, objective, seed=seed)

    def new_network(self) -> SparseMLP:
        network = self._random_network([self.sequence.n_features, *self.config.hidden], "sigmoid")
        network.register_parameter("visible_bias", nn.Parameter(torch.zeros(self.sequence.n_features)))
        return network

    def use(self, network: SparseMLP) -> None:
        super().use(network)
        self._layer = FusedLayers([list(network)])  # type: ignore[arg-type]  # is linear

    def _hidden(self, v: Reals) -> tuple[Reals, FusedPass]:
        """(B, hidden) probabilities of hidden units given visible ones, and the pass that gave them."""
        done = self._layer.run([torch.from_numpy(v)])
        return _sigmoid(computed(done.y)[0]), done

    def _visible(self, h: Reals, done: FusedPass) -> Reals:
        """(B, visible) probabilities of visible units given hidden ones, by any pass of the present weights."""
        into = computed(done.backward_to_input(np.ascontiguousarray(h[None])))
        return _sigmoid(into + self._visible_bias.detach().numpy())

    @property
    def _visible_bias(self) -> nn.Parameter:
        return self.network.get_parameter("visible_bias")

    def _form_gradients(self, batch: Batch) -> float:
        draws = stream(self.seed, "gibbs", str(self.epoch), str(self.batch))
        v0 = batch.x.numpy()
        probable, first = self._hidden(v0)
        h0 = _drawn(probable, draws)
        v, h, done = v0, h0, first
        for _ in range(self.config.gibbs_steps):
            v = self._visible(h, done)
            probable, done = self._hidden(v)
            h = _drawn(probable, draws)
        self.set_gradients(v0, h0, first, v, h, done)
        return float(np.square(v0 - v).mean(dtype=np.float64))

    def set_gradients(self, v0: Reals, h0: Reals, first: FusedPass, v: Reals, h: Reals, last: FusedPass) -> None:
        """Sets the gradients of minus the divergence: <v h> - <v0 h0> for weights, and alike for both biases.

        Args:
            v0: (B, visible) samples.
            h0: (B, hidden) drawn from them.
            first: The pass that read `v0`.
            v: (B, visible) end of the chain.
            h: (B, hidden) drawn from it.
            last: The pass that read `v`.
        """
        (layer,) = self.network
        parameters = [parameter for name, parameter in layer.named_parameters() if not name.startswith("after")]
        needs, size = [True] * len(parameters), np.float32(len(v0))
        _, data = first.gradients(-h0[None] / size, None, needs, first.capturing())
        _, model = last.gradients(h[None] / size, None, needs, last.capturing())
        for parameter, one, other in zip(parameters, data, model, strict=True):
            assert one is not None
            assert other is not None
            parameter.grad = one + other
        self._visible_bias.grad = torch.from_numpy((v - v0).mean(axis=0))

    @torch.no_grad()
    def evaluate(self, samples: Samples) -> Score:
        loss, draws = 0.0, stream(self.seed, "gibbs", "evaluation")
        with self._answering():
            for x, _ in self.parts_of(samples):
                v0 = x.numpy()
                probable, done = self._hidden(v0)
                error = v0 - self._visible(_drawn(probable, draws), done)
                loss += float(np.square(error).sum(dtype=np.float64))
        return self.objective.score(0, loss / self.sequence.n_features, len(samples))


def _check(config: FitLearnerConfig) -> None:
    if len(config.hidden) != 1:
        raise ConfigError(
            "an RBM has one layer of hidden units, and features in [0, 1]: give --learner.hidden 200 --scaling range, "
            f"got hidden {' '.join(map(str, config.hidden))}"
        )
    for name in ("activation", "dropout", "noise", "convolutions"):
        default = getattr(FitLearnerConfig, name)
        if (given := getattr(config, name)) != default:
            raise ConfigError(f"learner.{name} {given} has no effect on an RBM; leave it {default}")


def check_in_unit_range(samples: Samples) -> None:
    """Raises ConfigError if a feature, as a network gets it, is outside [0, 1]."""
    for start in range(0, len(samples), 1000):
        x, _ = samples.take(slice(start, start + 1000))
        if (outside := x[(x < 0) | (x > 1)]).numel():
            said = f"an RBM needs features in [0, 1], and one is {float(outside[0]):g}"
            raise ConfigError(f"{said} (--scaling none is for tables that are so): give --scaling range")


def _sigmoid(x: Reals) -> Reals:
    return torch.sigmoid(torch.from_numpy(x)).numpy()


def _drawn(probable: Reals, draws: np.random.Generator) -> Reals:
    return (draws.random(probable.shape, dtype=np.float32) < probable).astype(probable.dtype)
