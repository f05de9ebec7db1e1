"""Hyper-parameters of the agents that learn from rollouts, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from torch import nn

from sparserl.agents.config import AgentConfig, RunSizes
from sparserl.agents.networks.on_policy import ADAM_EPS
from sparserl.errors import ConfigError
from sparserl.ranges import Count, NotNegative, Positive, PositiveShare, Range, Repeats

SMALLEST_ROLLOUT = 2
"""Env steps, of one environment, that agents take as a rollout; one that only acts never fills it."""
ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}


@dataclass(frozen=True)
class OnPolicyConfig(AgentConfig):
    """Hyper-parameters of agents that learn from what their present policy has just met, and then forget it.

    Raises:
        ConfigError: If a number is out of range.
    """

    of_networks: ClassVar[tuple[str, ...]] = ("net_arch", "activation")
    net_arch: tuple[Count, ...] = (64, 64)
    """Hidden widths of each network."""
    activation: Literal["tanh", "relu"] = "tanh"
    """Of hidden layers."""
    n_steps: Repeats = 2048
    """Env steps of a rollout, in each environment; a run ends with the first whole rollout that reaches its steps."""
    gae_lambda: PositiveShare = 0.95
    """Factor of generalised advantage estimation; 1 for returns without bootstrapping within a rollout."""
    ent_coef: NotNegative = 0.0
    """Weight of the policy's entropy in the loss."""
    vf_coef: NotNegative = 0.5
    """Weight of the value loss beside the policy's."""
    max_grad_norm: Positive = 0.5
    """Length to which the gradient of both networks together is cut."""
    normalize_advantage: bool = True
    """Whether advantages are brought to mean 0 and deviation 1 in each gradient update."""

    def arguments(self, action_shape: tuple[int, ...], *, seed: int, acts_only: bool) -> dict[str, Any]:
        del action_shape, seed
        own = ("gamma", "n_steps", "gae_lambda", "ent_coef", "vf_coef", "max_grad_norm")
        return {
            **{name: getattr(self, name) for name in (*own, "normalize_advantage")},
            **({"n_steps": SMALLEST_ROLLOUT} if acts_only else {}),
            "learning_rate": self.rate,
            "policy_kwargs": {
                "net_arch": list(self.net_arch),
                "activation_fn": ACTIVATIONS[self.activation],
                "optimizer_kwargs": {"eps": ADAM_EPS, "weight_decay": self.weight_decay},
            },
        }

    def memory(self, sizes: RunSizes) -> dict[str, float]:
        of_step = sizes.item_bytes * sizes.n_obs + 4.0 * (sizes.n_action + 6)
        return {"the rollout (--agent.n-steps)": self._held_steps(sizes) * of_step}

    def _held_steps(self, sizes: RunSizes) -> int:
        """Env steps that a rollout holds, all of them from the beginning of the run."""
        return SMALLEST_ROLLOUT if sizes.steps == 0 else self.n_steps * sizes.n_envs


def batches_advice(batch_size: int, steps: int) -> str | None:
    """What to do where a batch size does not divide the env steps of a rollout; None where it does.

    Example:
        >>> batches_advice(12, 16)
        'the closest that does is 8'
    """
    if steps % batch_size == 0:
        return None
    divisors = [number for number in range(2, steps + 1) if steps % number == 0]
    closest = min(divisors, key=lambda number: abs(number - batch_size), default=None)
    return "raise n_steps" if closest is None else f"the closest that does is {closest}"


@dataclass(frozen=True)
class PPOConfig(OnPolicyConfig):
    """Hyper-parameters of PPO; defaults are those of Stable-Baselines3.

    Raises:
        ConfigError: If a number is out of range.
    """

    batch_size: Annotated[int, Range("[2, 1e9]")] = 64
    """Env steps per gradient update; must divide those of a rollout."""
    n_epochs: Repeats = 10
    """Passes over a rollout."""
    clip_range: Positive = 0.2
    """How far the probability ratio of an action counts beyond 1 in either direction."""
    clip_range_vf: Positive | None = None
    """How far a value may move from that of the rollout, in units of the return; as far as it likes if None."""

    def rollout(self, n_envs: int) -> tuple[int, int]:
        steps = self.n_steps * n_envs
        return steps, self.n_epochs * -(-steps // self.batch_size)

    def check_envs(self, n_envs: int, *, has_noise_features: bool) -> None:
        del has_noise_features
        steps, advice = self.n_steps * n_envs, batches_advice(self.batch_size, self.n_steps * n_envs)
        if advice is not None:
            raise ConfigError(
                f"agent.batch_size {self.batch_size} does not divide the {steps} env steps of a rollout (agent.n_steps "
                f"{self.n_steps} in {n_envs} environment{'s' if n_envs > 1 else ''}): {advice}"
            )

    def arguments(self, action_shape: tuple[int, ...], **how: Any) -> dict[str, Any]:
        own = ("batch_size", "n_epochs", "clip_range", "clip_range_vf")
        arguments = super().arguments(action_shape, **how) | {name: getattr(self, name) for name in own}
        return arguments | ({"batch_size": SMALLEST_ROLLOUT} if how["acts_only"] else {})


@dataclass(frozen=True)
class RecurrentPPOConfig(PPOConfig):
    """Hyper-parameters of recurrent PPO; defaults are those of sb3-contrib.

    Raises:
        ConfigError: If a number is out of range.
    """

    n_steps: Repeats = 128
    """Env steps of a rollout, in each environment; a run ends with the first whole rollout that reaches its steps."""
    batch_size: Annotated[int, Range("[2, 1e9]")] = 128
    """Env steps per gradient update, in sequences as they were met; must divide those of a rollout."""
    of_networks: ClassVar[tuple[str, ...]] = (*PPOConfig.of_networks, "lstm_hidden", "lstm_layers")
    lstm_hidden: Count = 256
    """Neurons of each layer of an LSTM; actor and critic have one each, before the hidden layers of net_arch."""
    lstm_layers: Count = 1
    """Layers of each LSTM."""

    def arguments(self, action_shape: tuple[int, ...], **how: Any) -> dict[str, Any]:
        arguments = super().arguments(action_shape, **how)
        own = {"lstm_hidden_size": self.lstm_hidden, "n_lstm_layers": self.lstm_layers}
        return {**arguments, "policy_kwargs": {**arguments["policy_kwargs"], **own}}

    def memory(self, sizes: RunSizes) -> dict[str, float]:
        of_rollout = super().memory(sizes)
        of_step = 16.0 * self.lstm_hidden * self.lstm_layers  # hidden and cell, of actor and critic
        states = self._held_steps(sizes) * of_step
        return {name: size + states for name, size in of_rollout.items()}


OPTIMIZERS: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "rmsprop": (torch.optim.RMSprop, {"alpha": 0.99, "eps": 1e-5}),
    "rmsprop_tf": (RMSpropTFLike, {"alpha": 0.99, "eps": 1e-5}),
    "adam": (torch.optim.Adam, {"eps": ADAM_EPS}),
}
"""Optimizers of A2C, with what Stable-Baselines3 gives them."""


@dataclass(frozen=True)
class A2CConfig(OnPolicyConfig):
    """Hyper-parameters of A2C; defaults are those of Stable-Baselines3.

    Raises:
        ConfigError: If a number is out of range.
    """

    learning_rate: Positive = 7e-4
    """Of the optimizer, for both networks."""
    weight_decay: NotNegative = 0.0
    """Coupled L2 of the optimizer, on weights and biases."""
    n_steps: Repeats = 5
    """Env steps of a rollout, in each environment, with one gradient update after it."""
    gae_lambda: PositiveShare = 1.0
    """Factor of generalised advantage estimation; 1 for returns without bootstrapping within a rollout."""
    normalize_advantage: bool = False
    """Whether advantages are brought to mean 0 and deviation 1 in each gradient update."""
    optimizer: Literal["rmsprop", "rmsprop_tf", "adam"] = "rmsprop"
    """What moves the weights; rmsprop_tf adds its epsilon under the root and begins with squares of 1."""

    def rollout(self, n_envs: int) -> tuple[int, int]:
        return self.n_steps * n_envs, 1

    def check_envs(self, n_envs: int, *, has_noise_features: bool) -> None:
        del has_noise_features
        if self.normalize_advantage and self.n_steps * n_envs < 2:
            raise ConfigError("agent.normalize_advantage needs rollouts of at least 2 env steps, got agent.n_steps 1")

    def arguments(self, action_shape: tuple[int, ...], **how: Any) -> dict[str, Any]:
        kind, usual = OPTIMIZERS[self.optimizer]
        arguments = super().arguments(action_shape, **how)
        own = {"optimizer_class": kind, "optimizer_kwargs": {**usual, "weight_decay": self.weight_decay}}
        return {**arguments, "policy_kwargs": {**arguments["policy_kwargs"], **own}}
