"""What agents that learn from rollouts are made of, dense or sparse: two networks in one policy, with one optimizer."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager
from functools import partial
from math import inf
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from sparserl.agents.config import AgentConfig
from sparserl.agents.networks.on_policy import OnPolicyNetwork, actor_of, critic_of
from sparserl.agents.optimizer_steps import Step, double_of, instead_of_step, no_step
from sparserl.agents.parts import AgentParts
from sparserl.agents.probe import SAMPLES, Probe
from sparserl.errors import ConfigError
from sparserl.kernels.flops import counting, torch_products
from sparserl.seeding import stream


class OnPolicyParts(AgentParts, OnPolicyAlgorithm):
    """An actor and a critic that read observations, in a policy whose one optimizer moves both.

    Stable-Baselines3's `train` runs as it is; what is to happen around a step of that optimizer stands in
    `_around_step`.

    Attributes:
        actor: What chooses actions, as part of the policy.
        critic: What values observations, likewise.
        optimizer_steps: Gradient updates so far; Stable-Baselines3's `_n_updates` counts passes over rollouts.
        latest_steps: (B, width) env steps of the latest rollout, for its `probe`: a row of `parts_of_rollout` each.
    """

    trained = ("actor", "critic")
    action_spaces: ClassVar[tuple[type[spaces.Space[Any]], ...]] = (
        spaces.Box,
        spaces.Discrete,
        spaces.MultiDiscrete,
        spaces.MultiBinary,
    )
    scales_actions = False
    counters = (*AgentParts.counters, "optimizer_steps")
    described_by = ("latest_steps",)
    parts_of_rollout: ClassVar[tuple[str, ...]] = (
        "observations",
        "actions",
        "values",
        "log_probs",
        "advantages",
        "returns",
    )
    """Arrays of a rollout that the losses are made of."""
    actor: OnPolicyNetwork
    critic: OnPolicyNetwork
    latest_steps: torch.Tensor

    def __init__(self, *args: Any, **kwargs: Any):
        self.optimizer_steps = 0
        super().__init__(*args, **kwargs)

    def _setup_model(self) -> None:
        super()._setup_model()
        self.actor, self.critic = actor_of(self.policy), critic_of(self.policy)
        steps = self.n_steps * self.n_envs
        width = sum(getattr(self.rollout_buffer, name).size // steps for name in self.parts_of_rollout)
        self.latest_steps = torch.zeros(0, width if self.meets_vectors else 0)

    @classmethod
    def layer_widths(cls, config: AgentConfig, n_obs: int, n_action: int) -> dict[str, list[list[int]]]:
        return {"actor": [[n_obs, *config.net_arch, n_action]], "critic": [[n_obs, *config.net_arch, 1]]}

    @property
    def smallest_batch(self) -> int:
        """Env steps of the smallest batch that a rollout is learned in."""
        raise NotImplementedError

    def check_advantages(self, advice: str) -> None:
        """Raises ConfigError if advantages of a batch of one env step are to be normalised: they have no deviation.

        Args:
            advice: How to have larger batches.
        """
        agent: Any = self
        if agent.normalize_advantage and self.smallest_batch < 2:
            raise ConfigError(
                f"a rollout of {self.n_steps * self.n_envs} env steps leaves a batch of 1, whose advantage cannot be "
                f"normalised: {advice}, or give normalize_advantage=False"
            )

    def optimizer_of(self, group: str) -> torch.optim.Optimizer:
        del group
        return self.policy.optimizer

    @property
    def updates(self) -> int:
        return self.optimizer_steps

    @property
    def updates_per_rollout(self) -> int | None:
        """Gradient updates after each rollout; None where that is not known beforehand."""
        raise NotImplementedError

    @property
    def reads_vectors(self) -> bool:
        return self.meets_vectors

    def one_update(self, steps: int) -> dict[str, Any]:
        """Attributes with which `train` forms the gradients of one batch, all env steps of a rollout of so many."""
        return {"max_grad_norm": inf}

    def _form_gradients(self, rollout: RolloutBuffer) -> None:
        """Forms the gradients of the losses on a whole rollout, not clipped, and takes no step."""
        double = double_of(self, **self.one_update(rollout.buffer_size), rollout_buffer=rollout)
        mode, draws = self.policy.training, np.random.get_state()
        with instead_of_step(self.policy.optimizer, no_step):
            np.random.seed(0)  # a rollout is shuffled
            super(OnPolicyParts, double).train()
        np.random.set_state(draws)
        self.policy.set_training_mode(mode)
        self._forget_distribution()

    def _forget_distribution(self) -> None:
        """It holds the graph of the last pass, which nothing copies."""
        vars(self.policy.action_dist)["distribution"] = None

    def train(self) -> None:
        """Learns from the rollout; called by `learn`."""
        with counting(self.flops), self._dense_products(), instead_of_step(self.policy.optimizer, self._step):
            super().train()
        self._forget_distribution()
        self.logger.record("train/n_updates", self.optimizer_steps, exclude="tensorboard")
        if np.isnan(self.logger.name_to_value["train/explained_variance"]):  # of returns that are all equal
            del self.logger.name_to_value["train/explained_variance"]
        if self.meets_vectors:  # collecting begins with a rollout that is empty, before anyone looks
            seed = self.policy_kwargs.get("topology_seed", self.seed or 0)
            rows = self._sampled_rows(stream(seed, "dormant", str(self.updates)))
            arrays = (getattr(self.rollout_buffer, name)[rows] for name in self.parts_of_rollout)
            parts = [array.reshape(len(rows), -1).astype(np.float32) for array in arrays]
            self.latest_steps = torch.from_numpy(np.concatenate(parts, axis=1))

    def _sampled_rows(self, rng: np.random.Generator) -> np.ndarray:
        """(B,) some env steps of a rollout that has been learned from, environment by environment there."""
        steps = self.n_steps * self.n_envs
        return rng.permutation(steps)[:SAMPLES]

    def _latest_rollout(self) -> RolloutBuffer:
        """A full rollout of one environment, of the env steps that are kept of the latest."""
        rollout = copy.copy(self.rollout_buffer)
        self._resize(rollout, len(self.latest_steps))
        rollout.reset()
        rollout.full = True
        arrays = [getattr(rollout, name) for name in self.parts_of_rollout]
        widths = [array.size // rollout.buffer_size for array in arrays]
        for array, part in zip(arrays, torch.split(self.latest_steps, widths, dim=1), strict=True):
            array[:] = part.numpy().reshape(array.shape)
        return rollout

    def _resize(self, rollout: Any, steps: int) -> None:
        """Makes a rollout one of so many steps of one environment, as soon as it is reset."""
        rollout.buffer_size, rollout.n_envs = steps, 1

    def probe(self) -> Probe | None:
        if len(self.latest_steps) < 2:  # of a single advantage there is no deviation
            return None
        rollout = self._latest_rollout()
        return Probe(self._read(rollout), partial(self._form_gradients, rollout), self.reads_vectors)

    def _read(self, rollout: RolloutBuffer) -> dict[str, torch.Tensor]:
        """(N, width) what the layers of actor and critic read of the env steps of a rollout."""
        width = self.observation_space.shape[0]  # type: ignore[index]  # vectors
        observations = torch.from_numpy(rollout.observations).to(torch.float32).reshape(-1, width)
        return dict.fromkeys(self.trained, observations)

    def _dense_products(self) -> AbstractContextManager[None]:
        """Inside, the products of a rollout's updates that torch does are counted."""
        # What is repeated does the same products; a rollout that may be left early does not.
        return torch_products(self, self.updates_per_rollout or ("updates", self.optimizer_steps))

    def _step(self, step: Step) -> None:
        """One gradient update, its gradients being formed."""
        self.optimizer_steps += 1
        step()

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "actor", "critic", "latest_steps"]


class PPOParts(OnPolicyParts):
    """Of `PPO`: several passes over a rollout, in batches."""

    @property
    def smallest_batch(self) -> int:
        steps = self.n_steps * self.n_envs
        return steps % self.batch_size or min(steps, self.batch_size)

    @property
    def updates_per_rollout(self) -> int | None:
        agent: Any = self
        if agent.target_kl is not None:
            return None
        return int(agent.n_epochs * -(-self.n_steps * self.n_envs // agent.batch_size))

    def one_update(self, steps: int) -> dict[str, Any]:
        return {**super().one_update(steps), "batch_size": steps, "n_epochs": 1, "target_kl": None}


class A2CParts(OnPolicyParts):
    """Of `A2C`: one update over the whole rollout."""

    def _setup_model(self) -> None:
        self.check_advantages("raise n_steps")
        super()._setup_model()

    @property
    def smallest_batch(self) -> int:
        return self.batch_size

    @property
    def batch_size(self) -> int:  # type: ignore[override]  # a property here
        """Env steps of a rollout."""
        return self.n_steps * self.n_envs

    @property
    def updates_per_rollout(self) -> int:
        return 1
