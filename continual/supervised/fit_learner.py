"""A network that learns one table, and says after each epoch how good it is.

What it chooses (the best epoch, the end of training) it chooses by validation samples; test samples choose nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch

from sparserl.continual.strategies.strategy import Strategy
from sparserl.continual.supervised.connections import DENSE
from sparserl.continual.supervised.ensemble import Best, Ensemble, Phases
from sparserl.continual.supervised.importance_pruning import ImportancePruning
from sparserl.continual.supervised.learner import SupervisedLearner
from sparserl.continual.supervised.learner_config import FitLearnerConfig
from sparserl.continual.supervised.objectives import CLASSIFY, Objective, Score
from sparserl.continual.supervised.tasks import Batch, Integers, Samples, Task, TaskSequence
from sparserl.errors import ConfigError
from sparserl.kernels.deferred import computed
from sparserl.kernels.flops import FlopCounter, counting, torch_products
from sparserl.layers import SparseMLP
from sparserl.layers.averaged_sgd import AveragedSGD
from sparserl.layers.fused_adam import state_from_tree
from sparserl.metrics.cost import connections
from sparserl.seeding import stream
from sparserl.topology.config import TopologyConfig

KEPT_BYTES = 2**28
"""Up to so many, training samples are kept as they are given to the network: to standardise them for each batch takes
as long as all products of a small network."""


class FitLearner(SupervisedLearner):
    """A multilayer perceptron that is trained on one task, for an objective.

    Args:
        sequence: The task.
        config: Network and training.
        topology: Connections of the network, and how they change.
        objective: What is learned.
        seed: Root seed of weights, connections, batches and noise.

    Attributes:
        flops: Operations of all products of its gradient steps.
        score: On validation samples after the last epoch that is over; None before, or if there are none.
        best: By validation samples, of the networks with the fewest connections; None before the first epoch is over,
            or if there are no such samples.
        stopped: Whether training ends before its epochs are over.
        ensemble: Its members; None where one network is all.

    Raises:
        ConfigError: If there are several tasks, or nothing to stop early by.
        TopologyError: If the topology does not fit the network, or pruning would end after the run.
    """

    config: FitLearnerConfig
    open_state = SupervisedLearner.open_state | {"best", "ensemble"}

    def __init__(
        self,
        sequence: TaskSequence,
        config: FitLearnerConfig,
        topology: TopologyConfig = DENSE,
        objective: Objective = CLASSIFY,
        *,
        seed: int,
    ):
        (task,) = sequence.tasks
        if config.patience is not None and task.validation is None:
            raise ConfigError(
                f"learner.patience {config.patience} is about validation samples: set a validation share, e.g. 0.1"
            )
        self.objective = objective
        self._standardised: tuple[torch.Tensor, torch.Tensor] | None = None
        super().__init__(sequence, Strategy(), config, topology, seed=seed)
        self._pruning = self._importance_pruning()
        self.ensemble = self._new_ensemble()
        self.flops = FlopCounter()
        self.score: Score | None = None
        self.best: Best | None = None
        self.stopped = False
        self.class_weights = None if config.class_weights == "none" else balanced_weights(task.train, task.outputs)
        self._standardised = task.train.take(slice(None)) if _bytes(task.train) <= KEPT_BYTES else None
        self._no_task = torch.zeros(0, dtype=torch.int64)
        self._counts_by_torch = self.network.has_products_by_torch

    def new_network(self) -> SparseMLP:
        network = super().new_network()
        if not self.objective.has_classes:
            network.output_reading = "identity"
        return network

    @property
    def n_outputs(self) -> int:
        return self.objective.outputs(self.sequence)

    @property
    def only_task(self) -> Task:
        """The one task."""
        return self.sequence.tasks[0]

    @property
    def is_trained(self) -> bool:
        return self.stopped or super().is_trained

    def cross_entropy(self, batch: Batch) -> torch.Tensor:
        return self.objective.loss(self.network(self._noisy(batch.x)), batch, self.class_weights)

    def _judging_loss(self, outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        return self.objective.loss(outputs, batch, None)

    def _noisy(self, x: torch.Tensor) -> torch.Tensor:
        """(B, F) inputs of the present step, with the noise of its own."""
        if not self.config.noise:
            return x
        draws = stream(self.seed, "noise", str(self.epoch), str(self.batch))
        return x + self.config.noise * torch.from_numpy(draws.standard_normal(x.shape, dtype=np.float32))

    def _importance_pruning(self) -> ImportancePruning | None:
        own, topology = self.config, self.topology
        if not own.importance_share:
            return None
        keeps = topology.base.rule is not None and topology.part_of_rule("density_schedule") == "constant"
        if not keeps or topology.pairs > 1:
            raise ConfigError(
                f"learner.importance_share {own.importance_share:g} takes connections that a topology method neither "
                f"refills nor counts: use --topology.method set, with pairs 1, not {topology.method}"
            )
        return ImportancePruning(own.importance_share, own.importance_every, own.importance_after)

    def _new_ensemble(self) -> Ensemble | None:
        own = self.config
        if own.ensemble == 1:
            return None
        if self.only_task.validation is None:
            raise ConfigError(
                f"learner.ensemble {own.ensemble} chooses members by validation samples: set a validation share"
            )
        explore = own.epochs // 3 if own.ensemble_explore is None else own.ensemble_explore
        rule = None if self.clock is None else self.clock.rule
        return Ensemble(Phases(own.epochs, explore, own.ensemble), rule, self.steps_of(0) // own.epochs)

    def _set_learning_rate(self, step: int) -> None:
        if self.ensemble is None:
            super()._set_learning_rate(step)
            return
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * self.ensemble.phases.factor(self.epoch)

    def _before_step(self, step: int) -> None:
        super()._before_step(step)
        if isinstance(self.optimizer, AveragedSGD):
            for group in self.optimizer.param_groups:
                group["averaging"] = self.epoch >= self.config.average_after

    def _answering(self) -> AbstractContextManager[None]:
        """Within it the network has the weights that it answers with."""
        return self.optimizer.averaged() if isinstance(self.optimizer, AveragedSGD) else nullcontext()

    def load_answering(self, state: Mapping[str, Any]) -> None:
        """Gives the network the weights that it answered with at a state of `state_dict`, and loads nothing else."""
        self.network.load_state_dict(state["network"])
        if isinstance(self.optimizer, AveragedSGD):
            self.optimizer.load_state_dict(state_from_tree(state["optimizer"]))
            self.optimizer.adopt()

    def _end_update(self, group: str) -> None:
        clock = self.clock
        large = None if clock is None or self.ensemble is None else self.ensemble.enlarged(clock, group)
        if clock is None or self.ensemble is None or large is None:
            super()._end_update(group)
            return
        usual, clock.rule = clock.rule, large
        try:
            if clock.end_update(group):
                self.ensemble.happened()
        finally:
            clock.rule = usual

    def _step(self, batch: Batch) -> float:
        ends_epoch = (self.batch + 1) * self.config.batch_size >= self._samples_of(self.task)
        if self._pruning is not None and self.evolver is not None and ends_epoch:
            self._pruning(self.evolver, self.epoch + 1, f"network.{len(self.network) - 1}")
        with counting(self.flops):
            if not self._counts_by_torch:
                return super()._step(batch)
            with torch_products(self.network, len(batch)):
                return super()._step(batch)

    def _form_gradients(self, batch: Batch) -> float:
        # By hand where the network runs in one call: autograd takes as long as all products of a small batch.
        fused = self.network.one_call
        if fused is None:
            return super()._form_gradients(batch)
        done = fused.run([self._noisy(batch.x)])
        weights = None if self.class_weights is None else self.class_weights.numpy()
        loss, gradient = self.objective.by_hand(computed(done.y)[0], batch, weights)
        done.backward(gradient[None])
        return loss

    def _batch(self, indices: Integers) -> Batch:
        if self._standardised is None:
            return super()._batch(indices)
        at = torch.from_numpy(indices)
        # All samples are of the one task, whose number nothing asks for.
        x, y = self._standardised
        return Batch(x.index_select(0, at), y.index_select(0, at), self._no_task, at)

    def _end_epoch(self) -> None:
        super()._end_epoch()
        validation = self.only_task.validation
        if validation is None:
            return
        self.score = self.evaluate(validation)
        epoch = self.epoch + 1
        present = Best(epoch, self.steps, connections([self.network]), self.score, network={})
        with self._answering():
            if present.is_better(self.best):
                self.best = present.of(self.network)
            if self.ensemble is not None and self.ensemble.takes(present):
                self.ensemble.take(present.of(self.network))
        if self.ensemble is not None:
            self.ensemble.end_epoch(epoch)
        patience = self.config.patience
        self.stopped = patience is not None and self.best is not None and epoch - self.best.epoch >= patience

    @torch.no_grad()
    def evaluate(self, samples: Samples) -> Score:
        """How good the present network is on some samples, at least one."""
        correct, loss = 0, 0.0
        with self._answering(), self.network.in_use():
            for x, y in self.parts_of(samples):
                batch, outputs = Batch(x, y, self._no_task, self._no_task), self.network(x)
                correct += self.objective.correct(outputs, batch)
                loss += self.objective.summed(outputs, batch)
        return self.objective.score(correct, loss, len(samples))

    @torch.no_grad()
    def member_probabilities(self, samples: Samples) -> torch.Tensor:
        """(M, N, C) probability of each class by each member of the ensemble so far, or by the present network."""
        networks = [self.network]
        if self.ensemble is not None and self.ensemble.members:
            networks = [self.new_network() for _ in self.ensemble.members]
            for network, member in zip(networks, self.ensemble.members, strict=True):
                network.load_state_dict(dict(member.network))
        probabilities = []
        for network in networks:
            with self._answering():
                outputs = [logits.softmax(dim=1) for logits, _ in self.outputs_on(network.outputs_in_use, samples)]
            probabilities.append(torch.cat([torch.empty(0, self.n_outputs), *outputs]))
        return torch.stack(probabilities)

    def state_dict(self) -> dict[str, Any]:
        score = self.score or Score(0.0, 0.0)
        return {
            **super().state_dict(),
            "flops": self.flops.total,
            "stopped": self.stopped,
            "score": [self.score is not None, score.accuracy, score.loss],
            "best": {} if self.best is None else self.best.tree(),
            **({} if self.ensemble is None else {"ensemble": self.ensemble.state_dict()}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.flops.total, self.stopped = state["flops"], state["stopped"]
        is_known, *numbers = state["score"]
        self.score = Score(*numbers) if is_known else None
        self.best = Best.of_tree(state["best"]) if state["best"] else None
        if self.ensemble is not None:
            self.ensemble.load_state_dict(state["ensemble"])


def _bytes(samples: Samples) -> int:
    """Of samples as a network takes them."""
    size: int = len(samples) * samples.features.shape[1] * torch.get_default_dtype().itemsize
    return size


def balanced_weights(samples: Samples, outputs: tuple[int, ...]) -> torch.Tensor:
    """(n_outputs,) weights of classes with which every class weighs the same in a sum over samples; their mean over
    samples is 1.

    Example:
        >>> import numpy as np
        >>> three = Samples(np.zeros((4, 1), np.float32), np.arange(4), np.array([0, 0, 0, 1]), 0.0, 1.0)
        >>> balanced_weights(three, (0, 1))
        tensor([0.6667, 2.0000])
    """
    counts = torch.bincount(torch.from_numpy(samples.labels), minlength=len(outputs))
    return len(samples) / (len(outputs) * counts.to(torch.get_default_dtype()))
