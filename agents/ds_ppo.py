"""DS-PPO: PPO whose actor and critic are truly sparse and rewire while they learn."""

from __future__ import annotations

from typing import ClassVar

from stable_baselines3 import PPO
from stable_baselines3.common.policies import BasePolicy

from sparserl.agents.networks.on_policy import (
    SparsePPOCnnPolicy,
    SparsePPOMultiInputPolicy,
    SparsePPOPolicy,
)
from sparserl.agents.on_policy_parts import PPOParts
from sparserl.agents.sparse_on_policy import SparseOnPolicyMixin


class DSPPO(PPOParts, SparseOnPolicyMixin, PPO):
    """Sparse PPO on Stable-Baselines3's `PPO`: same constructor, `learn`, `predict`, `save`, `load`, callbacks.

    `train` is Stable-Baselines3's; topology events follow the optimizer steps. `topology` chooses any method of
    `sparserl.topology.methods`. With Stable-Baselines3's dense `ActorCriticPolicy` passed as `policy`, parameters equal
    those of its `PPO` bit for bit.

    Args:
        policy: `"MlpPolicy"`, `"CnnPolicy"` (images) or `"MultiInputPolicy"` (Dict observations) for sparse
            networks behind the features extractor of that name in Stable-Baselines3, or a policy class.
        env: Env, id or `VecEnv` with Box, Discrete, MultiDiscrete or MultiBinary actions.
        args: As `PPO`; state-dependent exploration is refused. With `target_kl` the number of gradient updates is not
            known beforehand, so the topology must say its `first_update` and `last_update`.
        kwargs: As `PPO`, and `topology`, `device` and `seed` as in `SparseAgentMixin`.

    Source:
        Graesser, Evci, Elsen and Castro 2022, The State of Sparse Training in Deep Reinforcement Learning (PPO).

    Known differences from the paper's code (TF-Agents):
        - The mean of a Gaussian policy is neither squashed nor scaled, its standard deviation begins at 1, and actions
          are clipped to their bounds, as Stable-Baselines3 has it.
        - A time limit is bootstrapped with the value of the last observation, likewise.
        - The weights of a neuron begin together as large as in Stable-Baselines3's orthogonal matrices (see
          `SparsePPOPolicy`); there, by Glorot's rule, with the sparse fan-in where that helps.
        - Observations and rewards are normalised where wrappers do that (`configs/ds_ppo/`); there, in the agent.

    Example:
        >>> from sparserl.agents import DSPPO
        >>> agent = DSPPO("MlpPolicy", "CartPole-v1", topology=dict(method="set", density=0.2), n_steps=64, seed=0)
        >>> [round(layer.density, 2) for layer in agent.evolver.layers.values()]
        [0.15, 0.15]
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": SparsePPOPolicy,
        "CnnPolicy": SparsePPOCnnPolicy,
        "MultiInputPolicy": SparsePPOMultiInputPolicy,
    }
