"""What sparse agents with an actor and several critics share: the critics' loss and their update."""

from __future__ import annotations

from typing import Any, ClassVar

from sparserl.agents.networks.traced_forward import traced_forward
from sparserl.agents.parts import ActorCriticParts
from sparserl.agents.replay.batch import FloatArray, TransitionBatch
from sparserl.agents.sparse_off_policy import Loss, Number, SparseTopologyMixin
from sparserl.kernels.formulas import squared_errors


class SparseActorCritic(ActorCriticParts, SparseTopologyMixin):
    """An agent that writes only its targets, its actor's loss and the order of its update."""

    critic: Any
    critic_loss_scale: ClassVar[float]
    """Weight of a critic's mean squared error in the critic loss."""

    def _class_settings(self) -> tuple[object, ...]:
        return (self.critic_loss_scale,)

    def _critic_loss(self, q_values: FloatArray, targets: FloatArray) -> Loss:
        """Mean squared error of each critic, summed over critics; and its derivative by `q_values` (critics, B, 1)."""
        loss: Loss = squared_errors(q_values, targets, number=self.critic_loss_scale)
        return loss

    def _update_critics(self, batch: TransitionBatch, targets: FloatArray) -> Number:
        loss = self._form_critic_gradients(batch, targets)
        self._step("critic")
        return loss

    def _form_critic_gradients(self, batch: TransitionBatch, targets: FloatArray) -> Number:
        critics = traced_forward(self.critic, "forward", batch.observations, batch.actions)
        loss, gradient = self._loss("_critic_loss", critics.outputs, targets)
        critics.backward(gradient)
        return loss
