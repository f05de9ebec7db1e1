"""DS-A2C: A2C whose actor and critic are truly sparse and rewire while they learn."""

from __future__ import annotations

from typing import ClassVar

from stable_baselines3 import A2C
from stable_baselines3.common.policies import BasePolicy

from sparserl.agents.ds_ppo import DSPPO
from sparserl.agents.on_policy_parts import A2CParts
from sparserl.agents.sparse_on_policy import SparseOnPolicyMixin


class DSA2C(A2CParts, SparseOnPolicyMixin, A2C):
    """Sparse A2C on Stable-Baselines3's `A2C`; as `DSPPO`, with one gradient update over each rollout.

    RMSprop's squared gradients follow the connections as Adam's moments do. A grown connection begins with a square of
    0, also by `RMSpropTFLike`, which gives all first weights a 1.

    Args:
        policy: As `DSPPO`.
        env: As `DSPPO`.
        args: As `A2C`; state-dependent exploration is refused.
        kwargs: As `A2C`, and `topology`, `device` and `seed` as in `SparseAgentMixin`.

    Source:
        Mnih et al. 2016, Asynchronous Methods for Deep Reinforcement Learning; no study of it on sparse networks is
        known to us.

    Example:
        >>> from sparserl.agents import DSA2C
        >>> agent = DSA2C("MlpPolicy", "CartPole-v1", topology=dict(method="set", density=0.2), seed=0)
        >>> [round(layer.density, 2) for layer in agent.evolver.layers.values()]
        [0.15, 0.15]
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = DSPPO.policy_aliases
