"""DS-DQN: deep Q-learning whose network is truly sparse and rewires while it learns."""

from __future__ import annotations

from typing import Any, ClassVar

from stable_baselines3 import DQN
from stable_baselines3.common.policies import BasePolicy

from sparserl.agents.networks.policies import SparseQCnnPolicy, SparseQMultiInputPolicy, SparseQPolicy
from sparserl.agents.networks.traced_forward import evaluate, traced_forward
from sparserl.agents.parts import QNetworkParts
from sparserl.agents.replay.batch import FloatArray, TransitionBatch
from sparserl.agents.sparse_off_policy import Loss, Number, SparseTopologyMixin
from sparserl.errors import ConfigError, unknown_name
from sparserl.kernels.formulas import (
    best_td_targets,
    smooth_l1_errors,
    squared_errors,
    through_values_of,
    values_of,
)

LOSSES = {"huber": smooth_l1_errors, "squared": squared_errors}
"""Loss of the temporal-difference errors by name: the mean of Huber's with a bend at 1, or of squares."""


class DSDQN(QNetworkParts, SparseTopologyMixin, DQN):
    """Dynamic Sparse DQN on Stable-Baselines3's `DQN`: same constructor, `learn`, `predict`, `save`, `load`, callbacks.

    The update is DQN's, in Stable-Baselines3's order; topology events follow the optimizer steps. `topology` chooses
    any method of `sparserl.topology.methods`. With Stable-Baselines3's dense `DQNPolicy` passed as `policy`, parameters
    equal those of its `DQN` bit for bit. `target_update_interval` counts env steps, as there.

    Args:
        policy: `"MlpPolicy"`, `"CnnPolicy"` (images) or `"MultiInputPolicy"` (Dict observations) for a sparse network
            behind the features extractor of that name in Stable-Baselines3, or a policy class.
        env: Env, id or `VecEnv` with Discrete actions.
        args: As `DQN`.
        double_q: Let the online network choose the next action whose value the target network gives.
        loss: Name in `LOSSES`; Stable-Baselines3's is `"huber"`.
        kwargs: As `DQN`, where `max_grad_norm` may be None, and `topology`, `device` and `seed` as in
            `SparseTopologyMixin`.

    Raises:
        ConfigError: If the loss is unknown.

    Source:
        Graesser et al. 2022, The State of Sparse Training in Deep Reinforcement Learning, on DQN (Mnih et al. 2015);
        double Q-learning: van Hasselt et al. 2016.

    Known differences from the paper's code:
        - There, an event comes between the gradients and the optimizer step; here, after the step.
        - There, targets are copied after so many gradient updates; here, after so many env steps, before the update of
          that step. With one update per env step that is the same but for the phase.
        - There, initial connections are those of a mask over dense weights; here, weights are drawn for the
          connections alone (`topology.initial_value`).
        - Constructor defaults are Stable-Baselines3's; the paper's are in `configs/ds_dqn/`.

    To change a loss, override `_q_loss`; `sparserl.agents.networks.traced_forward.differentiated` takes one written in
    torch.

    Example:
        >>> from sparserl.agents import DSDQN
        >>> agent = DSDQN("MlpPolicy", "CartPole-v1", topology=dict(method="rigl", density=0.1), seed=0)
        >>> round(agent.q_net.q[1].density, 2)
        0.05
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": SparseQPolicy,
        "CnnPolicy": SparseQCnnPolicy,
        "MultiInputPolicy": SparseQMultiInputPolicy,
    }

    def __init__(self, policy: Any, env: Any, *args: Any, double_q: bool = False, loss: str = "huber", **kwargs: Any):
        if loss not in LOSSES:
            raise ConfigError(unknown_name("loss", loss, LOSSES))
        self.double_q, self.loss = double_q, loss
        super().__init__(policy, env, *args, **kwargs)

    def _on_step(self) -> None:
        # Between an env step and the update that follows, so all that waited has run.
        self._n_calls += 1
        if self._n_calls % max(self.target_update_interval // self.n_envs, 1) == 0:
            self._sync_targets(self.tau)
        self.exploration_rate = self.exploration_schedule(self._current_progress_remaining)
        self.logger.record("rollout/exploration_rate", self.exploration_rate)

    def _update(self, batch: TransitionBatch) -> dict[str, Number]:
        loss = self._form_gradients(batch)
        self._step("q_net")
        return {"loss": loss}

    def form_gradients(self, group: str, batch: TransitionBatch) -> None:
        del group
        self._form_gradients(batch)

    def _targets(self, batch: TransitionBatch) -> FloatArray:
        """(B, 1) Q-learning (Mnih et al. 2015, algorithm 1), or double Q-learning (van Hasselt et al. 2016, eq. 4)."""
        values = evaluate(self.q_net_target, "forward", batch.next_observations)
        choosing = evaluate(self.q_net, "forward", batch.next_observations) if self.double_q else values
        targets: FloatArray = best_td_targets(batch.rewards, batch.dones, batch.discounts, values, choosing)
        return targets

    def _q_loss(self, q_values: FloatArray, targets: FloatArray) -> Loss:
        """Mean error of the values of the actions taken, and its derivative by `q_values` (1, B, 1)."""
        loss: Loss = LOSSES[self.loss](q_values, targets, number=1.0)
        return loss

    def _form_gradients(self, batch: TransitionBatch) -> Number:
        targets = self._targets(batch)
        online = traced_forward(self.q_net, "forward", batch.observations)
        loss, by_taken = self._loss("_q_loss", values_of(online.outputs, batch.actions), targets)
        online.backward(through_values_of(by_taken, batch.actions, online.outputs))
        return loss
