"""What every sparse on-policy agent shares: topology events around the steps that Stable-Baselines3's `train` takes."""

from __future__ import annotations

from sparserl.agents.on_policy_parts import OnPolicyParts
from sparserl.agents.optimizer_steps import Step
from sparserl.agents.run_length import updates_of_steps
from sparserl.agents.sparse_agent import SparseAgentMixin
from sparserl.errors import ConfigError
from sparserl.layers.recycle import Recycler


class SparseOnPolicyMixin(SparseAgentMixin, OnPolicyParts):
    """As `SparseAgentMixin`, for an agent that learns from rollouts: its losses and `train` are Stable-Baselines3's.

    One optimizer step moves actor and critic, so both groups have their events after the same step; where an event
    takes the place of a step, that group alone does not move. Stable-Baselines3 clips the gradients of both together.

    Raises:
        ConfigError: If neurons are to be recycled by gradients.
    """

    unknown_length = "`target_kl`: leave it out"

    def _make_recycler(self) -> Recycler | None:
        recycler = super()._make_recycler()
        if recycler is not None and recycler.score.needs_gradients:
            raise ConfigError(
                f"topology.recycle_by {self.topology.recycle_by} needs losses that can be formed again, which an agent "
                "without a replay buffer has not: use dormant"
            )
        return recycler

    def _updates_of_learn(self, total_timesteps: int, reset_num_timesteps: bool) -> int | None:
        start = 0 if reset_num_timesteps else self.num_timesteps
        updates = self.updates_per_rollout
        if updates is None:
            return None
        steps = self.n_steps * self.n_envs
        return updates_of_steps(start, start + total_timesteps, 0, steps_per_rollout=steps, updates_per_rollout=updates)

    def train(self) -> None:
        if self.updates == 0:  # what the first update could do with, the later ones can
            self._check_run_length("is not known before `learn`: call `bind_run_length`")
        self.evolver.begin_update(self.updates + 1)
        super().train()

    def _step(self, step: Step) -> None:
        moved = [group for group in self.trained if not self.evolver.replaces_step(group)]
        if self.around_step is not None:
            for group in moved:
                self.around_step.before_step(group)
        still = [
            parameter
            for group in self.networks
            if group not in moved
            for parameter in self.networks[group].parameters()
        ]
        gradients = [parameter.grad for parameter in still]
        for parameter in still:
            parameter.grad = None  # so the optimizer leaves it as it is
        super()._step(step)
        for parameter, gradient in zip(still, gradients, strict=True):
            parameter.grad = gradient  # the event may ask for it
        for group in moved:
            self.evolver.after_step(group)
            if self.around_step is not None:
                self.around_step.after_step(group)
        for group in self.trained:
            self._end_update(group)
        if self.recycler is not None:
            self.recycler.recycle_if_due(self.updates, self._read(self.rollout_buffer))
        self.evolver.begin_update(self.updates + 1)
