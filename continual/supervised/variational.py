"""Variational dropout: every connection has a weight and a variance, and goes where noise drowns the weight."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from sparserl.continual.supervised.connections import DENSE, evolver_of
from sparserl.continual.supervised.fit_learner import FitLearner
from sparserl.continual.supervised.learner_config import FitLearnerConfig
from sparserl.continual.supervised.objectives import CLASSIFY, Objective
from sparserl.continual.supervised.tasks import Batch, TaskSequence
from sparserl.errors import ConfigError
from sparserl.layers import SparseLinear, SparseMLP
from sparserl.layers.convert import from_dense
from sparserl.seeding import stream
from sparserl.topology.config import TopologyConfig
from sparserl.topology.rewire import exchange, remap
from sparserl.topology.structure import FloatArray, Slots, SparseTopology, TopologyChange

FIRST_LOG_VARIANCE = -10.0
"""Of every weight, of the code."""
LARGEST_LOG_ALPHA = 8.0
"""Log alpha is cut to +- this."""
THRESHOLD = 3.0
"""Log alpha from which a connection goes."""
TINY = 1e-8
"""Added to squared weights, and to variances whose root is taken."""


def log_alpha(weights: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """Log of variance over squared weight, in [-8, 8].

    Example:
        >>> round(log_alpha(torch.tensor(0.1), torch.tensor(-10.0)).item(), 2)
        -5.39
    """
    return (log_variance - torch.log(weights.square() + TINY)).clamp(-LARGEST_LOG_ALPHA, LARGEST_LOG_ALPHA)


def divergence(log_alpha: torch.Tensor) -> torch.Tensor:
    """KL divergence in nats of each weight's normal distribution from a log-uniform prior, up to a constant; >= 0.

    Source:
        Molchanov et al. 2017, equation 14.
    """
    k = 0.63576
    return k - k * torch.sigmoid(1.8732 + 1.48695 * log_alpha) + 0.5 * torch.log1p(torch.exp(-log_alpha))


def drowned(log_alpha: FloatArray) -> Slots:
    """Slots whose log alpha is at or above the threshold, sorted; the one of the smallest is never among them.

    Example:
        >>> drowned(np.array([3.0, -1.0, 5.0])).tolist(), drowned(np.array([4.0, 5.0])).tolist()
        ([0, 2], [1])
    """
    slots = np.flatnonzero(log_alpha >= THRESHOLD)
    return slots[slots != log_alpha.argmin()] if slots.size == log_alpha.size else slots


class VariationalLearner(FitLearner):
    """A multilayer perceptron that learns a normal distribution of each weight, and loses connections for good.

    A step draws outputs of layers, `N(x W, x^2 s^2)`, and its loss has the divergence of all weights, divided by the
    number of training samples; evaluation, and the network that is kept, use the means. Every epoch in which the
    divergence counts ends with the loss of the connections of log alpha >= 3.

    Args:
        sequence: The task.
        config: Network and training; `kl_after` and `kl_full` say how much the divergence counts.
        topology: Connections that the network begins with.
        objective: What is learned.
        seed: Root seed of weights, connections, batches and noise.

    Attributes:
        log_variances: (nnz,) parameter of each layer, by full name.

    Raises:
        ConfigError: If the topology moves connections by itself, or there are several tasks.

    Source:
        Molchanov et al. 2017, "Variational Dropout Sparsifies Deep Neural Networks", and its code.

    Known differences from that code: a connection that goes does not return, where it is left out of evaluation alone;
    the variance of an output is of log variances that are not cut; the learning rate follows the options of `learner`.
    """

    def __init__(
        self,
        sequence: TaskSequence,
        config: FitLearnerConfig,
        topology: TopologyConfig = DENSE,
        objective: Objective = CLASSIFY,
        *,
        seed: int,
    ):
        if topology.base.rule is not None:
            raise ConfigError(
                "learner.regularizer variational_dropout takes connections itself, as many as training says: use "
                f"--topology.method dense or static, not {topology.method}"
            )
        super().__init__(sequence, config, topology, objective, seed=seed)

    def new_network(self) -> SparseMLP:
        network = super().new_network()
        for index, layer in enumerate(network):
            if isinstance(layer, nn.Linear):
                n_out, n_in = layer.weight.shape
                network[index] = from_dense(layer, SparseTopology(n_out, n_in, np.arange(n_out * n_in)))
        return network

    def use(self, network: SparseMLP) -> None:
        super().use(network)
        group = self.groups["network"]
        (own,) = group.networks
        self.evolver = group.evolver = evolver_of(own, self.topology, self.seed)
        self.log_variances: dict[str, nn.Parameter] = {}
        self._variances: dict[str, SparseLinear] = {}
        for name, layer in self._layers.items():
            parameter = nn.Parameter(torch.full_like(layer.values, FIRST_LOG_VARIANCE))
            self.log_variances[name] = parameter
            self.evolver.follow(name, partial(self._carry_log_variances, parameter))
            for values in (layer.values, parameter):
                self.evolver.follow(name, partial(self._carry_moments, values))

    @property
    def _layers(self) -> dict[str, SparseLinear]:
        assert self.evolver is not None
        return self.evolver.layers  # type: ignore[return-value]  # all are sparse

    @staticmethod
    @torch.no_grad()
    def _carry_log_variances(parameter: nn.Parameter, change: TopologyChange, grown_values: float | FloatArray) -> None:
        del grown_values
        parameter.data = torch.from_numpy(remap(parameter.detach().numpy(), change, FIRST_LOG_VARIANCE))
        parameter.grad = None

    def new_optimizer(self) -> torch.optim.Optimizer:
        optimizer = super().new_optimizer()
        optimizer.add_param_group({"params": [*self.log_variances.values()], "weight_decay": 0.0})
        return optimizer

    @property
    def kl_share(self) -> float:
        """How much the divergence counts in the present epoch, in [0, 1]."""
        begin, full = self.config.kl_after, self.config.kl_full
        return min(1.0, max(0.0, (self.epoch - begin) / (full - begin)))

    def log_alphas(self, name: str) -> torch.Tensor:
        """(nnz,) log alpha of each connection of a layer, by its full name."""
        return log_alpha(self._layers[name].values, self.log_variances[name])

    @torch.no_grad()
    def _variance_layer(self, name: str) -> SparseLinear:
        """What multiplies squared inputs: the present connections of a layer with its variances, without biases."""
        layer, log_variance = self._layers[name], self.log_variances[name]
        twin = self._variances.get(name)
        if twin is None or twin.topology is not layer.topology:
            twin = self._variances[name] = SparseLinear.of(layer.topology, log_variance.exp(), None)
        twin.values.copy_(log_variance.exp())
        twin.values.grad = None
        return twin

    def _drawn(self, x: torch.Tensor) -> torch.Tensor:
        """(B, n_outputs) outputs of the present step, drawn layer by layer."""
        draws = stream(self.seed, "variational_dropout", str(self.epoch), str(self.batch))
        for (name, layer), function in zip(self._layers.items(), self.network.functions, strict=True):
            spread = (self._variance_layer(name)(x.square()) + TINY).sqrt()
            noise = torch.from_numpy(draws.standard_normal(spread.shape, dtype=np.float32))
            x = function(layer(x) + spread * noise)
        return x

    def cross_entropy(self, batch: Batch) -> torch.Tensor:
        return self.objective.loss(self._drawn(self._noisy(batch.x)), batch, self.class_weights)

    def _form_gradients(self, batch: Batch) -> float:
        self.optimizer.zero_grad(set_to_none=False)
        kl = torch.stack([divergence(self.log_alphas(name)).sum() for name in self._layers]).sum()
        loss = self.cross_entropy(batch) + self.kl_share / len(self.only_task.train) * kl
        loss.backward()  # type: ignore[no-untyped-call]
        for name, twin in self._variances.items():
            gradient = self.log_variances[name].grad
            assert gradient is not None
            assert twin.values.grad is not None
            gradient.addcmul_(twin.values.grad, twin.values.detach())  # d variance / d log variance
        return loss.item()

    def _end_epoch(self) -> None:
        if self.kl_share > 0.0:
            self._drop()
        super()._end_epoch()

    @torch.no_grad()
    def _drop(self) -> None:
        assert self.evolver is not None
        self.evolver.update = self.steps
        for name, layer in self._layers.items():
            slots = drowned(self.log_alphas(name).numpy())
            if slots.size:
                self.evolver.apply(name, exchange(layer.topology, slots, np.empty(0, np.int64)), "log_alpha")

    def state_dict(self) -> dict[str, Any]:
        assert self.evolver is not None
        own = {name: parameter.detach() for name, parameter in self.log_variances.items()}
        return {**super().state_dict(), "log_variances": own, "evolver": self.evolver.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, parameter in self.log_variances.items():
            parameter.data, parameter.grad = state["log_variances"][name].clone(), None
        super().load_state_dict(state)
        assert self.evolver is not None
        self.evolver.load_state_dict(state["evolver"])
