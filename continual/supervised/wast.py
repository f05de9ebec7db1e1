"""An autoencoder whose connections go where features are important, after every step: WAST.

Source:
    Sokar et al. 2022, "Where to Pay Attention in Sparse Training for Feature Selection", and its code.

Known differences from that code:
    - The number of connections is exact, where each one is drawn by itself there.
    - A connection that grows begins with no momentum; there the momentum of what is absent goes on.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from sparserl.continual.learner import Group
from sparserl.continual.strategies.strategy import Strategy
from sparserl.continual.supervised.fit_learner import FitLearner
from sparserl.continual.supervised.learner_config import FitLearnerConfig
from sparserl.continual.supervised.objectives import RECONSTRUCT
from sparserl.continual.supervised.reconstruction_importance import ReconstructionImportance
from sparserl.continual.supervised.tasks import Batch, TaskSequence
from sparserl.errors import ConfigError
from sparserl.layers import SparseMLP
from sparserl.topology.config import TopologyConfig

DROP_FRACTION = 0.3
"""Of the code."""
CRITERIA: dict[str, Any] = {"drop": "connection_importance", "grow": "neuron_importance"}


class WASTLearner(FitLearner):
    """An autoencoder of one hidden layer whose two sparse layers are rewired after every step, by importance.

    Args:
        sequence: The samples.
        config: Network and training.
        density: Share of the connections of each layer that exist, in (0, 1).
        error_share: Of reconstruction errors in the importance of a feature, beside the strength of its neuron, in
            [0, 1].
        seed: Root seed of weights, connections, batches and noise.

    Attributes:
        importance: What features are worth so far.

    Raises:
        ConfigError: If there is not one hidden layer, or all connections exist.
    """

    importance: ReconstructionImportance

    def __init__(
        self, sequence: TaskSequence, config: FitLearnerConfig, *, density: float, error_share: float, seed: int
    ):
        if len(config.hidden) != 1:
            raise ConfigError(f"importance of features needs one hidden layer, e.g. 200, got {config.hidden}")
        # Criteria by importance are no wish that a topology may have: only this learner measures what they read.
        topology = TopologyConfig(
            "set",
            density,
            allocation="uniform",
            output_layer="sparse",
            drop_fraction=DROP_FRACTION,
            update_interval=1,
        )
        self._error_share = error_share
        objective = dataclasses.replace(RECONSTRUCT, loss=self._seen_loss)
        super().__init__(sequence, config, topology, objective, seed=seed)
        self.strategy = _Gathering()

    def _seen_loss(self, outputs: torch.Tensor, batch: Batch, weights: torch.Tensor | None) -> torch.Tensor:
        self._seen = batch.x.numpy(), outputs.detach().numpy()
        return RECONSTRUCT.loss(outputs, batch, weights)

    def use(self, network: SparseMLP) -> None:
        super().use(network)
        self._choose_by_importance()
        assert self.evolver is not None
        first, last = self.evolver.layers
        self.importance = ReconstructionImportance(self.evolver, first, last, self._error_share)

    def _choose_by_importance(self) -> None:
        assert self.evolver is not None
        assert self.evolver.rule is not None
        self.evolver.rule = dataclasses.replace(self.evolver.rule, **CRITERIA)

    def gather(self) -> None:
        """Adds what the batch of the present step says of features."""
        self.importance.add(*self._seen)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "importance": self.importance.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._choose_by_importance()
        self.importance.load_state_dict(state["importance"])


class _Gathering(Strategy):
    """Importances are gathered between the optimizer's step and the event."""

    def after_step(self, learner: Any, group: Group) -> None:
        learner.gather()
