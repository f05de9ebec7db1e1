"""Actions drawn from a Gaussian and squashed by tanh, their log-probability, and the way back to the policy network."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
import torch
from stable_baselines3.sac.policies import LOG_STD_MAX, LOG_STD_MIN
from stable_baselines3.sac.policies import Actor as DenseActor
from torch import nn

from sparserl.agents.batch import FloatArray, Observations
from sparserl.agents.network_pass import as_tensors, evaluate, network_pass

EPSILON = np.float32(1e-6)
"""Keeps the logarithm finite where an action touches its bound; as in Stable-Baselines3."""
LOG_SQRT_2PI = np.float32(0.5 * math.log(2 * math.pi))


class SquashedGaussian:
    """Independent Gaussians behind a tanh.

    Args:
        parameters: (B, 2 A) means, then log standard deviations, which are clipped to [-20, 2].

    Source:
        Haarnoja et al. 2018a, appendix C.
    """

    def __init__(self, parameters: FloatArray):
        width = parameters.shape[1] // 2
        self._mean, self._raw_log_std = parameters[:, :width], parameters[:, width:]
        self._log_std = self._raw_log_std.clip(LOG_STD_MIN, LOG_STD_MAX)

    def mode(self) -> FloatArray:
        """(B, A) action of the mean."""
        return np.tanh(self._mean)

    def sample(self) -> tuple[FloatArray, FloatArray]:
        """(B, A) actions, drawn with torch's global generator, and their (B, 1) log-probability."""
        noise = torch.empty(self._mean.shape).normal_().numpy()
        self._spread = np.exp(self._log_std) * noise
        actions = self._actions = np.tanh(self._mean + self._spread)
        self._slope = 1 - actions * actions
        density = -0.5 * noise * noise - self._log_std - LOG_SQRT_2PI - np.log(self._slope + EPSILON)
        log_prob: FloatArray = density.sum(axis=1, keepdims=True)
        return actions, log_prob

    def pull_back(self, by_actions: FloatArray, by_log_prob: FloatArray) -> FloatArray:
        """(B, 2 A) derivative by the parameters of the latest sample, its noise held fixed.

        Args:
            by_actions: (B, A) derivative by the actions.
            by_log_prob: (B, 1) derivative by their log-probability.
        """
        # d log_prob / d action = 2 action / (1 - action^2 + epsilon), from the squashing alone: the Gaussian's own
        # density is that of the fixed noise, and depends on the standard deviation only.
        toward_actions = by_actions + by_log_prob * (2 * self._actions / (self._slope + EPSILON))
        toward_mean = toward_actions * self._slope
        toward_log_std = toward_mean * self._spread - by_log_prob
        toward_log_std[self._raw_log_std != self._log_std] = 0
        return np.concatenate([toward_mean, toward_log_std], axis=1)


class ActionPass(Protocol):
    """Actions that a stochastic policy draws for some observations."""

    actions: FloatArray
    """(B, A) in [-1, 1]."""
    log_prob: FloatArray
    """(B, 1)."""

    def pull_back(self, by_actions: FloatArray, by_log_prob: FloatArray) -> None:
        """Sets `grad` of the policy's parameters, given the derivatives by actions and log-probability."""


def action_pass(actor: nn.Module, observations: Observations) -> ActionPass:
    """Draws actions, with a way back.

    Args:
        actor: A `SparseSACActor`, or the SAC `Actor` of Stable-Baselines3.
        observations: As `Batch` has them.
    """
    kind = _DenseActionPass if isinstance(actor, DenseActor) else _SparseActionPass
    return kind(actor, observations)


def sample_actions(actor: nn.Module, observations: Observations) -> tuple[FloatArray, FloatArray]:
    """(B, A) actions and (B, 1) log-probabilities, with no way back."""
    if isinstance(actor, DenseActor):
        with torch.no_grad():
            actions, log_prob = actor.action_log_prob(as_tensors(observations))
        return actions.numpy(), log_prob.reshape(-1, 1).numpy()
    return SquashedGaussian(evaluate(actor, "distribution", observations)[0]).sample()


class _SparseActionPass:
    def __init__(self, actor: nn.Module, observations: Observations):
        self._pass = network_pass(actor, "distribution", observations)
        self._gaussian = SquashedGaussian(self._pass.outputs[0])
        self.actions, self.log_prob = self._gaussian.sample()

    def pull_back(self, by_actions: FloatArray, by_log_prob: FloatArray) -> None:
        """As `ActionPass`."""
        self._pass.pull_back(self._gaussian.pull_back(by_actions, by_log_prob)[None])


class _DenseActionPass:
    """Through Stable-Baselines3's own distribution and autograd, so that every bit is theirs."""

    def __init__(self, actor: Any, observations: Observations):
        self._actor = actor
        self._given = actor.action_log_prob(as_tensors(observations))
        self.actions, log_prob = (tensor.detach().numpy() for tensor in self._given)
        self.log_prob = log_prob.reshape(-1, 1)

    def pull_back(self, by_actions: FloatArray, by_log_prob: FloatArray) -> None:
        """As `ActionPass`."""
        self._actor.zero_grad()
        gradients = torch.from_numpy(by_actions), torch.from_numpy(by_log_prob).reshape(-1)
        torch.autograd.backward(self._given, gradients)
