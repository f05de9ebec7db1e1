"""Actor, critics and policy of CrossQ on truly sparse layers: normalised over batches, and without target networks."""

from __future__ import annotations

from typing import Any

import torch
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule

from sparserl.agents.networks.networks import SparseCritic, SparseSACActor
from sparserl.agents.networks.policies import SparseSACPolicy
from sparserl.errors import ConfigError
from sparserl.layers.batch_ensemble import BatchEnsemble
from sparserl.layers.batch_renorm import BatchNormOptions
from sparserl.layers.fused_adam import FusedAdam
from sparserl.layers.normalised_mlp import NormalisedMLP

NET_ARCH = {"pi": [256, 256], "qf": [1024, 1024]}
"""Hidden widths in sb3-contrib; the paper's critics are 2048 wide."""
BETAS = (0.5, 0.999)
"""Of Adam, in CrossQ."""


class CrossQActor(SparseSACActor):
    """`SparseSACActor` with a batch renormalisation before each layer."""

    pi: NormalisedMLP

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if self.ensembles:
            self.ensembles["distribution_by_batch"] = BatchEnsemble([self.pi])

    def distribution_by_batch(self, obs: PyTorchObs) -> torch.Tensor:
        """(B, obs) to (B, 2 action), normalised by the statistics of this batch, B >= 2."""
        return self.pi.by_batch(self.extract_features(obs, self.features_extractor))

    def follow_batch(self) -> None:
        """Moves the running statistics toward those of the latest pass by a batch."""
        self.pi.follow_batch()


class CrossQCritic(SparseCritic):
    """`SparseCritic` with a batch renormalisation before each layer."""

    q_networks: list[NormalisedMLP]  # type: ignore[assignment]  # made with `norm`

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if self.ensembles:
            self.ensembles["by_batch"] = BatchEnsemble(self.q_networks)

    def by_batch(self, obs: PyTorchObs, actions: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(B, obs), (B, action) to the (B, 1) value of each critic by the statistics of this batch, B >= 2."""
        [inputs] = self._inputs(obs, actions)
        return tuple(q_network.by_batch(inputs) for q_network in self.q_networks)

    def follow_batch(self) -> None:
        """Moves the running statistics toward those of the latest pass by a batch."""
        for q_network in self.q_networks:
            q_network.follow_batch()


class SparseCrossQPolicy(SparseSACPolicy):
    """`SparseSACPolicy` with batch renormalisation and without target critics; `"MlpPolicy"` of `DSCrossQ`.

    Args:
        batch_norm_momentum: As in `BatchNormOptions`.
        batch_norm_eps: Likewise.
        renorm_warmup_steps: Likewise.
        kwargs: As `SparseSACPolicy`; `net_arch` defaults to `NET_ARCH`, the betas of Adam to `BETAS`.

    Raises:
        ConfigError: If there is to be an output layer for each task.
    """

    actor_class = CrossQActor

    def __init__(
        self,
        *args: Any,
        batch_norm_momentum: float = 0.01,
        batch_norm_eps: float = 0.001,
        renorm_warmup_steps: int = 100_000,
        **kwargs: Any,
    ):
        if kwargs.get("heads") is not None:
            raise ConfigError("networks that normalise batches have one output layer for all tasks: use ds_sac")
        self.norm = BatchNormOptions(batch_norm_momentum, batch_norm_eps, renorm_warmup_steps)
        if kwargs.get("net_arch") is None:
            kwargs["net_arch"] = NET_ARCH
        if kwargs.get("optimizer_class", FusedAdam) in (torch.optim.Adam, torch.optim.AdamW, FusedAdam):
            kwargs["optimizer_kwargs"] = {"betas": BETAS, **(kwargs.get("optimizer_kwargs") or {})}
        super().__init__(*args, **kwargs)

    def make_actor(self, features_extractor: BaseFeaturesExtractor | None = None) -> Any:
        return self.actor_class(**self._sparse("actor", self.actor_kwargs, features_extractor), norm=self.norm)

    def make_critic(self, features_extractor: BaseFeaturesExtractor | None = None) -> Any:
        return CrossQCritic(**self._sparse("critic", self.critic_kwargs, features_extractor), norm=self.norm)

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)
        del self.critic_target

    def _get_constructor_parameters(self) -> dict[str, Any]:
        numbers = {
            "batch_norm_momentum": self.norm.momentum,
            "batch_norm_eps": self.norm.eps,
            "renorm_warmup_steps": self.norm.warmup_steps,
        }
        return {**super()._get_constructor_parameters(), **numbers}
