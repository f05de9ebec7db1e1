"""DS-CrossQ: CrossQ whose actor and critics are truly sparse and rewire while they learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from stable_baselines3.common.policies import BasePolicy

from sparserl.agents.config import OF_BATCHES, AgentConfig, RunSizes
from sparserl.agents.critics_config import SACConfig
from sparserl.agents.ds_sac import DSSAC
from sparserl.agents.networks.crossq import SparseCrossQPolicy
from sparserl.agents.networks.squashed_gaussian import sample_actions, traced_actions
from sparserl.agents.networks.traced_forward import traced_forward
from sparserl.agents.replay.batch import FloatArray, TransitionBatch
from sparserl.agents.sparse_off_policy import Number
from sparserl.errors import ConfigError
from sparserl.kernels.deferred import computed
from sparserl.kernels.formulas import disagreement, soft_td_targets
from sparserl.layers.batch_renorm import check_batch
from sparserl.ranges import Count, CountOrZero, Positive, PositiveShare, Range, Repeats

OF_TARGETS = ("tau", "target_update_interval")


@dataclass(frozen=True)
class CrossQConfig(SACConfig):
    """Hyper-parameters of CrossQ; defaults are those of sb3-contrib.

    Raises:
        ConfigError: If a number is out of range, or one of target networks is given.
    """

    learning_rate: Positive = 1e-3
    """Of Adam, for all networks."""
    batch_size: Annotated[int, Range("[2, 1e12]")] = 256
    """Transitions per gradient update; one has no variance to normalise by."""
    learning_starts: CountOrZero = 100
    """Env steps with random actions before the first gradient update."""
    net_arch: tuple[Count, ...] = (256, 256)
    """Hidden widths of the actor."""
    of_networks: ClassVar[tuple[str, ...]] = (*SACConfig.of_networks, "critic_arch")
    critic_arch: tuple[Count, ...] = (1024, 1024)
    """Hidden widths of each critic (paper: 2048, 2048)."""
    policy_delay: Repeats = 3
    """Critic updates per update of actor and temperature."""
    batch_norm_momentum: PositiveShare = 0.01
    """Share of a batch's statistics in the running ones."""
    batch_norm_eps: Positive = 0.001
    """Added to variances."""
    renorm_warmup_steps: CountOrZero = 100_000
    """Batches that are normalised by their own statistics alone; later ones stay near the running ones."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.critic_arch:
            raise ConfigError("agent.critic_arch needs at least one hidden width >= 1, got []")
        self._check_has_effect(OF_TARGETS, False, "target networks, which ds_crossq has not: use ds_sac")
        self._check_has_effect(("network",), False, "networks without normalisation by batches: use ds_sac")

    def check_tasks(self) -> None:
        raise ConfigError(
            "ds_crossq is for `sparserl train`: statistics of its normalisation would be those of the last task; use "
            "ds_sac"
        )

    def arguments(self, action_shape: tuple[int, ...], **how: Any) -> dict[str, Any]:
        given = {
            name: value for name, value in super().arguments(action_shape, **how).items() if name not in OF_TARGETS
        }
        of_norms = ("batch_norm_momentum", "batch_norm_eps", "renorm_warmup_steps")
        policy = {name: getattr(self, name) for name in of_norms}
        policy["net_arch"] = {"pi": list(self.net_arch), "qf": list(self.critic_arch)}
        return {**given, "policy_kwargs": {**given["policy_kwargs"], **policy}}

    def memory(self, sizes: RunSizes) -> dict[str, float]:
        # Of both halves of the joint batch each critic keeps what its layers give and what that is normalised to, and
        # on the way back the gradients by both.
        of_critics = 4.0 * 2 * self.batch_size * 4 * self.n_critics * sum(self.critic_arch)
        given = super().memory(sizes)
        return {**given, OF_BATCHES: given[OF_BATCHES] + of_critics}


class DSCrossQ(DSSAC):
    """Sparse CrossQ: `DSSAC` without target networks, whose networks normalise batches before each layer.

    Critics read transitions and the actions that follow them as one batch, so that both are normalised alike; their own
    values of the latter, held fixed, make the targets. Actor and temperature learn at every third update. In the order
    of sb3-contrib's `CrossQ`, whose numbers it gives on the same weights and batches up to rounding. That library is
    not needed.

    Args:
        policy: `"MlpPolicy"`.
        env: As `DSSAC`.
        learning_rate: As `SAC`.
        args: Likewise.
        policy_delay: Critic updates per update of actor and temperature.
        kwargs: As `DSSAC` but for `tau` and `target_update_interval`. `policy_kwargs` as of `SparseCrossQPolicy`.

    Raises:
        ConfigError: If a batch would be a single transition, something of target networks is given, or there is no such
            policy.

    Source:
        Bhatt et al. 2024, CrossQ: Batch Normalization in Deep Reinforcement Learning for Greater Sample Efficiency and
        Simplicity. Widths, limits of the renormalisation and its warm-up as in sb3-contrib.

    Known differences from sb3-contrib:
        - The actor's mean and log standard deviation come from one output layer.
        - A feature that is constant in a batch has a finite derivative after the warm-up (`BatchRenorm`).

    Example:
        >>> from sparserl.agents import DSCrossQ
        >>> agent = DSCrossQ("MlpPolicy", "Pendulum-v1", topology=dict(method="ds_sac", density=0.1), seed=0)
        >>> agent.critic.qf0[1].n_in, round(agent.critic.qf0[1].density, 2)
        (1024, 0.1)
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"MlpPolicy": SparseCrossQPolicy}
    targets_of: ClassVar[tuple[str, ...]] = ()
    actor: Any

    def __init__(
        self, policy: Any, env: Any, learning_rate: Any = 1e-3, *args: Any, policy_delay: int = 3, **kwargs: Any
    ):
        for name in OF_TARGETS:
            if name in kwargs:
                raise ConfigError(f"{name} {kwargs[name]} has no effect: CrossQ has no target networks; use DSSAC")
        super().__init__(policy, env, learning_rate, *args, policy_delay=policy_delay, **kwargs)

    def _setup_model(self) -> None:
        if not issubclass(self.policy_class, SparseCrossQPolicy):
            raise ConfigError(f"the policy {self.policy_class.__name__} normalises no batches; use MlpPolicy")
        check_batch(self.batch_size)
        super()._setup_model()

    def _create_aliases(self) -> None:
        networks: Any = self.policy
        self.actor, self.critic = networks.actor, networks.critic
        self.critic_target = self.critic  # of which the base class reads statistics

    @classmethod
    def layer_widths(cls, config: AgentConfig, n_obs: int, n_action: int) -> dict[str, list[list[int]]]:
        assert isinstance(config, CrossQConfig)
        critic = [n_obs + n_action, *config.critic_arch, 1]
        return {**super().layer_widths(config, n_obs, n_action), "critic": [critic] * config.n_critics}

    def _waits(self) -> bool:
        return False  # statistics are of numbers that are there

    def _update(self, batch: TransitionBatch) -> dict[str, Number]:
        temperature = self._temperature()
        losses = {"ent_coef": temperature, **self._form_joint_gradients(batch, temperature)}
        self.critic.follow_batch()
        self._step("critic")
        if self._is_turn(self.policy_delay):
            policy = traced_actions(self.actor, batch.observations, "distribution_by_batch")
            self.actor.follow_batch()
            losses = {**self._update_temperature(policy.log_prob), **losses}
            losses["actor_loss"] = self._form_actor_gradients(batch, policy, temperature)
            self._step("actor")
        return losses

    def form_gradients(self, group: str, batch: TransitionBatch) -> None:
        temperature = self._temperature()
        if group == "critic":
            self._form_joint_gradients(batch, temperature)
        else:
            policy = traced_actions(self.actor, batch.observations, "distribution_by_batch")
            self._form_actor_gradients(batch, policy, temperature)

    def _form_joint_gradients(self, batch: TransitionBatch, temperature: FloatArray) -> dict[str, Number]:
        """Gradients of the critics on transitions and what follows them as one batch (Bhatt et al. 2024, section 4)."""
        next_actions, next_log_prob = sample_actions(self.actor, batch.next_observations)
        both = [
            np.concatenate([computed(now), computed(after)])
            for now, after in ((batch.observations, batch.next_observations), (batch.actions, next_actions))
        ]
        critics = traced_forward(self.critic, "by_batch", *both)
        q_values, next_q_values = np.split(computed(critics.outputs), 2, axis=1)
        given = batch.rewards, batch.dones, batch.discounts, self._of_subset(next_q_values), next_log_prob
        loss, gradient = self._loss("_critic_loss", q_values, soft_td_targets(*given, temperature))
        critics.backward(np.concatenate([computed(gradient), np.zeros_like(next_q_values)], axis=1))
        numbers = {"critic_loss": loss}
        return {**numbers, "critic_disagreement": disagreement(q_values)} if len(q_values) > 1 else numbers
