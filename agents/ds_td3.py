"""DS-TD3: TD3 whose actor and critics are truly sparse and rewire while they learn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from stable_baselines3 import TD3
from stable_baselines3.common.policies import BasePolicy

from sparserl.agents.networks.normal import normal
from sparserl.agents.networks.policies import SparseTD3CnnPolicy, SparseTD3MultiInputPolicy, SparseTD3Policy
from sparserl.agents.networks.traced_forward import evaluate, traced_forward
from sparserl.agents.replay.batch import FloatArray, TransitionBatch
from sparserl.agents.sparse_actor_critic import SparseActorCritic
from sparserl.agents.sparse_off_policy import Loss, Number
from sparserl.kernels.formulas import policy_loss, smoothed, td_targets


class DSTD3(SparseActorCritic, TD3):
    """Dynamic Sparse TD3 on Stable-Baselines3's `TD3`: same constructor, `learn`, `predict`, `save`, `load`, callbacks.

    The update is TD3's, in Stable-Baselines3's order; topology events follow the optimizer steps. `topology` chooses
    any method of `sparserl.topology.methods`, so static sparse TD3, SET and RigL are this class too. With
    Stable-Baselines3's dense `TD3Policy` passed as `policy`, parameters equal those of its `TD3` bit for bit.

    Args:
        policy: `"MlpPolicy"`, `"CnnPolicy"` (images) or `"MultiInputPolicy"` (Dict observations) for sparse
            networks behind the features extractor of that name in Stable-Baselines3, or a policy class.
        env: Env, id or `VecEnv` with bounded Box actions.
        args: As `TD3`.
        kwargs: As `TD3`, `topology`, `device` and `seed` as in `SparseTopologyMixin`, and `critic_subset` and
            `actor_q` as in `SparseActorCritic`.

    Source:
        Sokar et al. 2022, Dynamic Sparse Training for Deep Reinforcement Learning, Algorithm 1.

    Known differences from the paper's code:
        - Connections that do not exist have no optimizer moments. There, every absent weight keeps moments from the
          dense gradient, so a grown one starts with a history; here it starts at 0 (`topology.moments`).
        - A grown weight starts at 0, as the paper says; there, one Adam step away from 0, because masks are applied
          after the optimizer.
        - Each layer has exactly its number of connections; there, a Bernoulli draw of that expectation.
        - A connection that is dropped and grown in one event starts anew; there, it keeps its weight
          (`topology.keep_regrown`).
        - A target layer's size is counted in connections; there, in non-zero weights, and the dense output layer is
          trimmed too when an online output weight is exactly 0.
        - Rewiring ends at the same share of the run (94.9 %) when `sparserl train` runs longer or shorter than a
          million steps; there, 50,000 updates before the end.
        - Constructor defaults are Stable-Baselines3's; the paper's (batch 100, weight decay 2e-4, 25,000 random
          steps) are in `configs/ds_td3/`.

    To change a loss, override `_critic_loss` or `_actor_loss`, which return a value and its derivative by the Q values;
    `sparserl.agents.networks.traced_forward.differentiated` takes one written in torch.

    Example:
        >>> from sparserl.agents import DSTD3
        >>> agent = DSTD3("MlpPolicy", "Pendulum-v1", topology=dict(method="ds_td3", density=0.5), seed=0)
        >>> round(agent.actor.mu[1].density, 2)
        0.49
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": SparseTD3Policy,
        "CnnPolicy": SparseTD3CnnPolicy,
        "MultiInputPolicy": SparseTD3MultiInputPolicy,
    }
    targets_of = ("actor", "critic")
    critic_loss_scale = 1.0
    usual_actor_q = "first"

    @property
    def updates_per_step(self) -> Mapping[str, int]:
        return {"actor": self.policy_delay, "critic": 1}

    def _update(self, batch: TransitionBatch) -> dict[str, Number]:
        losses = self._update_critics(batch, self._targets(batch))
        if self._is_turn(self.policy_delay):
            losses["actor_loss"] = self._form_actor_gradients(batch)
            self._step("actor")
            self._sync_targets(self.tau)
        return losses

    def form_gradients(self, group: str, batch: TransitionBatch) -> None:
        if group == "critic":
            self._form_critic_gradients(batch, self._targets(batch))
        else:
            self._form_actor_gradients(batch)

    def _targets(self, batch: TransitionBatch) -> FloatArray:
        """(B, 1) clipped double Q-learning with target policy smoothing (Fujimoto et al. 2018, equations 10 and 14)."""
        noise = normal(batch.actions.shape, self.target_policy_noise, self.target_noise_clip)
        next_actions = smoothed(evaluate(self.actor_target, "forward", batch.next_observations)[0], noise)
        next_q_values = self._next_values(batch.next_observations, next_actions)
        targets: FloatArray = td_targets(batch.rewards, batch.dones, batch.discounts, next_q_values)
        return targets

    def _actor_loss(self, q_values: FloatArray) -> Loss:
        """Deterministic policy gradient, to actions of higher value; and its derivative by `q_values` (critics, B, 1).

        They are the first critic's alone, if `actor_q` is `"first"`.
        """
        loss: Loss = policy_loss(q_values, number=self._raises_mean)
        return loss

    def _form_actor_gradients(self, batch: TransitionBatch) -> Number:
        actor = traced_forward(self.actor, "forward", batch.observations)
        critics = self._judged(batch.observations, actor.outputs[0])
        loss, gradient = self._loss("_actor_loss", critics.outputs)
        actor.backward(critics.input_gradient(gradient)[None])
        return loss
