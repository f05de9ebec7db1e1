"""What sparse agents with an actor and several critics share: which critics judge, their loss and their update."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch

from sparserl.agents.networks.traced_forward import TracedForward, evaluate, traced_forward
from sparserl.agents.parts import ActorCriticParts
from sparserl.agents.replay.batch import FloatArray, Observations, TransitionBatch
from sparserl.agents.sparse_off_policy import Loss, Number, SparseTopologyMixin
from sparserl.errors import ConfigError, unknown_name
from sparserl.kernels.deferred import filled
from sparserl.kernels.formulas import disagreement, selected, squared_errors


class ActorQ(NamedTuple):
    """Which value of the critics an actor raises."""

    method: str
    """Of the critics, which gives their values."""
    of_mean: bool
    """Their mean, or the lowest."""


ACTOR_Q: dict[str, ActorQ] = {
    "first": ActorQ("q1_forward", of_mean=False),
    "min": ActorQ("forward", of_mean=False),
    "mean": ActorQ("forward", of_mean=True),
}
"""The first critic's (Fujimoto et al. 2018), the lowest (Haarnoja et al. 2018b), the mean (Chen et al. 2021)."""


class SparseActorCritic(ActorCriticParts, SparseTopologyMixin):
    """An agent that writes only its targets, its actor's loss and the order of its update.

    Args:
        args: As `SparseTopologyMixin`.
        critic_subset: Critics whose lowest value makes the targets, drawn anew at each update; None for all of them.
        actor_q: Name in `ACTOR_Q`; None for the agent's own.
        kwargs: As `SparseTopologyMixin`; `policy_kwargs` has `n_critics`.

    Raises:
        ConfigError: If there are fewer critics, or there is no such name.

    Source:
        Chen et al. 2021, Randomized Ensembled Double Q-Learning (REDQ): 10 critics, a subset of 2, the mean.
    """

    critic: Any
    critic_target: Any
    critic_loss_scale: ClassVar[float]
    """Weight of a critic's mean squared error in the critic loss."""
    usual_actor_q: ClassVar[str]

    def __init__(self, *args: Any, critic_subset: int | None = None, actor_q: str | None = None, **kwargs: Any):
        self.critic_subset, self.actor_q = critic_subset, actor_q or self.usual_actor_q
        super().__init__(*args, **kwargs)

    def _setup_model(self) -> None:
        if self.actor_q not in ACTOR_Q:
            raise ConfigError(unknown_name("actor_q", self.actor_q, ACTOR_Q))
        super()._setup_model()
        critics = len(self.critic.q_networks)
        if self.critic_subset is not None and not 1 <= self.critic_subset <= critics:
            raise ConfigError(f"critic_subset must be in [1, {critics}], the number of critics: {self.critic_subset}")

    def _class_settings(self) -> tuple[object, ...]:
        return (self.critic_loss_scale,)

    def _next_values(self, observations: Observations, actions: FloatArray) -> FloatArray:
        """(critics, B, 1) values of the target critics of this update, or of the subset drawn for it."""
        return self._of_subset(evaluate(self.critic_target, "forward", observations, actions))

    def _of_subset(self, q_values: FloatArray) -> FloatArray:
        """Of the (critics, B, 1) values those of the critics that make the targets of this update."""
        critics, subset = len(q_values), self.critic_subset
        if subset is None or subset == critics:
            return q_values

        def draw(memory: FloatArray) -> None:
            memory[:] = torch.randperm(critics)[: len(memory)].numpy()

        of_subset: FloatArray = selected(filled((subset,), draw), q_values)
        return of_subset

    def _judged(self, observations: Observations, actions: FloatArray) -> TracedForward:
        """What the critics that train the actor say of actions."""
        return traced_forward(self.critic, ACTOR_Q[self.actor_q].method, observations, actions)

    @property
    def _raises_mean(self) -> float:
        """The number of `policy_loss`."""
        return float(ACTOR_Q[self.actor_q].of_mean)

    def _critic_loss(self, q_values: FloatArray, targets: FloatArray) -> Loss:
        """Mean squared error of each critic, summed over critics; and its derivative by `q_values` (critics, B, 1)."""
        loss: Loss = squared_errors(q_values, targets, number=self.critic_loss_scale)
        return loss

    def _update_critics(self, batch: TransitionBatch, targets: FloatArray) -> dict[str, Number]:
        """One step of the critics; what is logged of it."""
        numbers = self._form_critic_gradients(batch, targets)
        self._step("critic")
        return numbers

    def _form_critic_gradients(self, batch: TransitionBatch, targets: FloatArray) -> dict[str, Number]:
        critics = traced_forward(self.critic, "forward", batch.observations, batch.actions)
        loss, gradient = self._loss("_critic_loss", critics.outputs, targets)
        numbers = {"critic_loss": loss}
        if len(critics.outputs) > 1:
            numbers["critic_disagreement"] = disagreement(critics.outputs)
        critics.backward(gradient)
        return numbers
