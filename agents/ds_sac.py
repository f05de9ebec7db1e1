"""DS-SAC: SAC whose actor and critics are truly sparse and rewire while they learn."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, cast

import numpy as np
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.policies import BasePolicy

from sparserl.agents.networks.policies import SparseSACCnnPolicy, SparseSACMultiInputPolicy, SparseSACPolicy
from sparserl.agents.networks.squashed_gaussian import TracedActions, sample_actions, traced_actions
from sparserl.agents.replay.batch import FloatArray, TransitionBatch
from sparserl.agents.sparse_actor_critic import SparseActorCritic
from sparserl.agents.sparse_off_policy import Number
from sparserl.errors import ConfigError
from sparserl.kernels.deferred import computed, filled
from sparserl.kernels.formulas import soft_policy_loss, soft_td_targets
from sparserl.layers.fused_adam import FusedAdam


class DSSAC(SparseActorCritic, SAC):
    """Dynamic Sparse SAC on Stable-Baselines3's `SAC`: same constructor, `learn`, `predict`, `save`, `load`, callbacks.

    The update is SAC's, in Stable-Baselines3's order; topology events follow the optimizer steps. `topology` chooses
    any method of `sparserl.topology.methods`. With Stable-Baselines3's dense `SACPolicy` passed as `policy`, parameters
    equal those of its `SAC` bit for bit. `target_update_interval` counts gradient updates of the whole run; there, it
    counts within one call of `train`, and has no effect at one update per env step.

    Args:
        policy: `"MlpPolicy"`, `"CnnPolicy"` (images) or `"MultiInputPolicy"` (Dict observations) for sparse
            networks behind the features extractor of that name in Stable-Baselines3, or a policy class.
        env: Env, id or `VecEnv` with bounded Box actions.
        args: As `SAC`; state-dependent exploration is refused.
        policy_delay: Critic updates per update of actor and temperature.
        kwargs: As `SAC`, `topology`, `device` and `seed` as in `SparseTopologyMixin`, and `critic_subset` and
            `actor_q` as in `SparseActorCritic`; `policy_kwargs` may have `network` as in `SparsePolicyMixin`.

    Source:
        Sokar et al. 2022, Dynamic Sparse Training for Deep Reinforcement Learning, appendix (DS-SAC). The authors have
        published no code of it.

    Known differences from the paper:
        - Those of `DSTD3` in what happens to a connection that is grown; the paper's text says zero, as here.
        - Rewiring starts and ends as in the authors' DS-TD3 code; the paper does not say.
        - With hard targets (`tau=1`) a target has the online topology right after each copy.
        - The actor's mean and log standard deviation come from one output layer, so counts agree with the paper's.
        - Constructor and preset defaults are Stable-Baselines3's; the paper's (fixed temperature 0.2, hard targets
          every 1000 updates) are in `configs/ds_sac/<env>-published.yaml`.

    Example:
        >>> from sparserl.agents import DSSAC
        >>> agent = DSSAC("MlpPolicy", "Pendulum-v1", topology=dict(method="ds_sac", density=0.5), seed=0)
        >>> round(agent.actor.pi[1].density, 2)
        0.49
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": SparseSACPolicy,
        "CnnPolicy": SparseSACCnnPolicy,
        "MultiInputPolicy": SparseSACMultiInputPolicy,
    }
    targets_of: ClassVar[tuple[str, ...]] = ("critic",)
    critic_loss_scale = 0.5
    usual_actor_q = "min"

    def __init__(self, *args: Any, policy_delay: int = 1, **kwargs: Any):
        self.policy_delay = policy_delay
        super().__init__(*args, **kwargs)

    @property
    def updates_per_step(self) -> Mapping[str, int]:
        return {"actor": self.policy_delay, "critic": 1}

    def _setup_model(self) -> None:
        if self.use_sde:
            raise ConfigError("sparse agents know no state-dependent exploration (use_sde)")
        super()._setup_model()
        if self.ent_coef_optimizer is not None and isinstance(self.actor.optimizer, FusedAdam):
            # The same steps in a fifth of the time; with dense policies every bit is Stable-Baselines3's.
            self.ent_coef_optimizer = FusedAdam([cast(torch.Tensor, self.log_ent_coef)], lr=self.lr_schedule(1))

    def _update(self, batch: TransitionBatch) -> dict[str, Number]:
        # Drawn first, as in Stable-Baselines3.
        policy = traced_actions(self.actor, batch.observations) if self._is_turn(self.policy_delay) else None
        temperature = self._temperature()
        losses = self._update_critics(batch, self._targets(batch, temperature))
        if policy is not None:
            losses["actor_loss"] = self._form_actor_gradients(batch, policy, temperature)
            self._step("actor")
        if self._is_turn(self.target_update_interval):
            self._sync_targets(self.tau)
        # Last, because nothing of this update waits for it: all of it goes by the temperature before.
        return losses if policy is None else {**self._update_temperature(policy.log_prob), **losses}

    def form_gradients(self, group: str, batch: TransitionBatch) -> None:
        if group == "critic":
            self._form_critic_gradients(batch, self._targets(batch, self._temperature()))
        else:
            self._form_actor_gradients(batch, traced_actions(self.actor, batch.observations), self._temperature())

    def _temperature(self) -> FloatArray:
        """(1,) weight of the entropy, as it is now."""
        temperature: FloatArray = filled((1,), self._write_temperature)
        return temperature

    def _write_temperature(self, memory: FloatArray) -> None:
        learned = self.log_ent_coef
        memory[0] = self.ent_coef_tensor.item() if learned is None else learned.detach().exp().item()

    def _form_actor_gradients(self, batch: TransitionBatch, policy: TracedActions, temperature: FloatArray) -> Number:
        critics = self._judged(batch.observations, policy.actions)
        loss, by_q_values, by_log_prob = self._loss("_actor_loss", critics.outputs, policy.log_prob, temperature)
        policy.backward(critics.input_gradient(by_q_values), by_log_prob)
        return loss

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        of_networks = super()._optimizers()
        return of_networks if self.ent_coef_optimizer is None else [*of_networks, self.ent_coef_optimizer]

    def _targets(self, batch: TransitionBatch, temperature: FloatArray) -> FloatArray:
        """(B, 1) clipped double Q-learning with an entropy bonus (Haarnoja et al. 2018b, equation 3)."""
        next_actions, next_log_prob = sample_actions(self.actor, batch.next_observations)
        next_q_values = self._next_values(batch.next_observations, next_actions)
        given = batch.rewards, batch.dones, batch.discounts, next_q_values, next_log_prob
        targets: FloatArray = soft_td_targets(*given, temperature)
        return targets

    def _actor_loss(
        self, q_values: FloatArray, log_prob: FloatArray, temperature: FloatArray
    ) -> tuple[Number, FloatArray, FloatArray]:
        """To actions of higher value, the lowest of the critics' or as `actor_q` says, and higher entropy.

        Source:
            Haarnoja et al. 2018b, equation 7.

        Args:
            q_values: (critics, B, 1) of the actions; the first critic's alone, if `actor_q` is `"first"`.
            log_prob: (B, 1) of the actions.
            temperature: (1,) weight of the entropy.

        Returns:
            Value, derivative by `q_values`, derivative by `log_prob`.
        """
        loss: tuple[Number, FloatArray, FloatArray] = soft_policy_loss(
            q_values, log_prob, temperature, number=self._raises_mean
        )
        return loss

    def _update_temperature(self, log_prob: FloatArray) -> dict[str, Number]:
        """One step of the temperature, if it is learned (Haarnoja et al. 2018b, equation 18).

        Returns:
            `ent_coef`, before the step, and `ent_coef_loss`.
        """
        before = {"ent_coef": self._temperature()}
        if self.ent_coef_optimizer is None:
            return before
        return {**before, "ent_coef_loss": filled((1,), partial(self._step_temperature, log_prob))}

    def _step_temperature(self, log_prob: FloatArray, loss: FloatArray) -> None:
        """Writes the loss into `loss`."""
        assert self.ent_coef_optimizer is not None
        assert self.log_ent_coef is not None
        surplus = torch.from_numpy(computed(log_prob) + np.float32(self.target_entropy))
        loss[0] = -(self.log_ent_coef.detach() * surplus).mean()
        # What autograd makes of it, in its order of operations and in a fifth of the time.
        share = np.float32(-1) / np.float32(len(surplus))
        gradient = (surplus * float(share)).sum(dim=0)
        if self.log_ent_coef.grad is None:
            self.log_ent_coef.grad = gradient
        else:
            self.log_ent_coef.grad.copy_(gradient)
        self.ent_coef_optimizer.step()
