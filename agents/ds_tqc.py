"""DS-TQC: truncated quantile critics that are truly sparse and rewire while they learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from stable_baselines3.common.policies import BasePolicy

from sparserl.agents.config import AgentConfig
from sparserl.agents.critics_config import SACConfig
from sparserl.agents.ds_sac import DSSAC
from sparserl.agents.networks.policies import SparseTQCCnnPolicy, SparseTQCMultiInputPolicy, SparseTQCPolicy
from sparserl.agents.networks.squashed_gaussian import sample_actions
from sparserl.agents.networks.traced_forward import differentiated, evaluate, traced_forward
from sparserl.agents.replay.batch import FloatArray, TransitionBatch
from sparserl.agents.sparse_off_policy import Loss, Number
from sparserl.errors import ConfigError
from sparserl.kernels.deferred import computed
from sparserl.ranges import CountOrZero, Range


@dataclass(frozen=True)
class TQCConfig(SACConfig):
    """Hyper-parameters of TQC; defaults are those of sb3-contrib.

    Raises:
        ConfigError: If a number is out of range, or critics are to be chosen.
    """

    of_networks: ClassVar[tuple[str, ...]] = (*SACConfig.of_networks, "n_quantiles")
    n_quantiles: Annotated[int, Range("[1, 200]")] = 25
    """Quantiles of the return that each critic gives."""
    top_quantiles_to_drop_per_net: CountOrZero = 2
    """Quantiles that targets leave out, for each critic: so many times the critics of the highest of all together."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_has_effect(
            ("critic_subset", "actor_q"), False, "ds_sac, for quantiles of all critics are one mixture"
        )
        if self.top_quantiles_to_drop_per_net >= self.n_quantiles:
            raise ConfigError(
                f"agent.top_quantiles_to_drop_per_net must be below agent.n_quantiles {self.n_quantiles}, got "
                f"{self.top_quantiles_to_drop_per_net}"
            )

    def arguments(self, action_shape: tuple[int, ...], **how: Any) -> dict[str, Any]:
        given = super().arguments(action_shape, **how)
        own = {"top_quantiles_to_drop_per_net": self.top_quantiles_to_drop_per_net}
        return {**given, **own, "policy_kwargs": {**given["policy_kwargs"], "n_quantiles": self.n_quantiles}}


class DSTQC(DSSAC):
    """Sparse TQC: `DSSAC` whose critics give quantiles of the return, the highest of which the targets leave out.

    Actor, temperature and targets are moved as in `DSSAC`, in the order of sb3-contrib's `TQC`, whose numbers it gives
    on the same weights and batches up to rounding. That library is not needed.

    Args:
        args: As `DSSAC`.
        top_quantiles_to_drop_per_net: Quantiles that the targets leave out, in [0, n_quantiles), for each critic: so
            many times the critics of the highest of all together.
        kwargs: As `DSSAC` but for `critic_subset` and `actor_q`: the actor raises the mean of all quantiles.
            `policy_kwargs` has `n_quantiles` (25) and `n_critics` (2).

    Raises:
        ConfigError: If so many are left out that none remains, or critics are to be chosen.

    Source:
        Kuznetsov et al. 2020, Controlling Overestimation Bias with Truncated Mixture of Continuous Distributional
        Quantile Critics. The loss is a mean over quantiles, as in sb3-contrib, where the paper sums.

    Example:
        >>> from sparserl.agents import DSTQC
        >>> agent = DSTQC("MlpPolicy", "Pendulum-v1", topology=dict(method="ds_sac", density=0.5), seed=0)
        >>> agent.critic.qf0[2].out_features
        25
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": SparseTQCPolicy,
        "CnnPolicy": SparseTQCCnnPolicy,
        "MultiInputPolicy": SparseTQCMultiInputPolicy,
    }
    usual_actor_q = "mean"

    def __init__(self, *args: Any, top_quantiles_to_drop_per_net: int = 2, **kwargs: Any):
        self.top_quantiles_to_drop_per_net = top_quantiles_to_drop_per_net
        super().__init__(*args, **kwargs)

    def _setup_model(self) -> None:
        if self.critic_subset is not None or self.actor_q != self.usual_actor_q:
            raise ConfigError("quantiles of all critics are one mixture: critic_subset and actor_q are for ds_sac")
        super()._setup_model()
        quantiles = getattr(self.policy, "n_quantiles", None)
        if quantiles is None:
            raise ConfigError(f"the policy {type(self.policy).__name__} gives no quantiles; use MlpPolicy")
        if not 0 <= self.top_quantiles_to_drop_per_net < quantiles:
            raise ConfigError(
                f"top_quantiles_to_drop_per_net must be in [0, {quantiles - 1}], below the {quantiles} quantiles of a "
                f"critic, got {self.top_quantiles_to_drop_per_net}"
            )

    @classmethod
    def layer_widths(cls, config: AgentConfig, n_obs: int, n_action: int) -> dict[str, list[list[int]]]:
        widths = super().layer_widths(config, n_obs, n_action)
        assert isinstance(config, TQCConfig)
        return {**widths, "critic": [[*critic[:-1], config.n_quantiles] for critic in widths["critic"]]}

    def _waits(self) -> bool:
        return False  # its losses are arithmetic on numbers that are there

    def _targets(self, batch: TransitionBatch, temperature: FloatArray) -> FloatArray:
        """(B, kept) quantiles of the targets: the lowest of all critics' , with an entropy bonus."""
        next_actions, next_log_prob = sample_actions(self.actor, batch.next_observations)
        quantiles = computed(evaluate(self.critic_target, "forward", batch.next_observations, next_actions))
        critics, rows, each = quantiles.shape
        kept = critics * (each - self.top_quantiles_to_drop_per_net)
        lowest = np.sort(quantiles.transpose(1, 0, 2).reshape(rows, -1), axis=1)[:, :kept]
        values = lowest - computed(temperature) * computed(next_log_prob)
        following = (1 - computed(batch.dones)) * computed(batch.discounts) * values
        targets: FloatArray = computed(batch.rewards) + following
        return targets

    def _critic_loss(self, q_values: FloatArray, targets: FloatArray) -> Loss:
        """Quantile Huber loss, mean over critics, quantiles and targets; and its derivative by `q_values`.

        Args:
            q_values: (critics, B, quantiles).
            targets: (B, kept).
        """
        toward = torch.from_numpy(np.ascontiguousarray(computed(targets), np.float32))[None, :, None, :]
        each = q_values.shape[-1]
        levels = ((torch.arange(each) + 0.5) / each)[:, None]

        def loss(quantiles: torch.Tensor) -> torch.Tensor:
            errors = toward - quantiles[..., None]
            sizes = errors.abs()
            huber = torch.where(sizes > 1, sizes - 0.5, 0.5 * errors.square())
            weights = (levels - (errors.detach() < 0).float()).abs()
            mean: torch.Tensor = (weights * huber).mean()
            return mean

        return differentiated(loss, computed(q_values))

    def _form_critic_gradients(self, batch: TransitionBatch, targets: FloatArray) -> dict[str, Number]:
        critics = traced_forward(self.critic, "forward", batch.observations, batch.actions)
        loss, gradient = self._loss("_critic_loss", critics.outputs, targets)
        critics.backward(gradient)
        return {"critic_loss": loss}

    def _actor_loss(
        self, q_values: FloatArray, log_prob: FloatArray, temperature: FloatArray
    ) -> tuple[Number, FloatArray, FloatArray]:
        """To actions of a higher mean of all quantiles, and higher entropy; shapes as in `DSSAC`."""
        quantiles, weight = computed(q_values), computed(temperature)
        critics, rows, each = quantiles.shape
        value = float((weight * computed(log_prob)).mean() - quantiles.mean())
        by_quantiles = np.full(quantiles.shape, -1 / (critics * rows * each), np.float32)
        by_log_prob = np.full((rows, 1), weight.item() / rows, np.float32)
        return value, by_quantiles, by_log_prob
