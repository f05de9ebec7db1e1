"""Actions drawn from a Gaussian and squashed by tanh, their log-probability, and the way back to the policy network."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from stable_baselines3.sac.policies import Actor as DenseActor
from torch import nn

from sparserl.agents.networks.normal import normal
from sparserl.agents.networks.traced_forward import as_tensors, evaluate, rows_of, traced_forward
from sparserl.agents.replay.batch import FloatArray, Observations
from sparserl.kernels.deferred import computed
from sparserl.kernels.flops import torch_products
from sparserl.kernels.formulas import squashed_gaussian, through_squashed_gaussian
from sparserl.kernels.program import run_waiting


class SquashedGaussian:
    """Independent Gaussians behind a tanh.

    Args:
        parameters: (B, 2 A) means, then log standard deviations, which are clipped to [-20, 2].

    Source:
        Haarnoja et al. 2018a, appendix C.
    """

    def __init__(self, parameters: FloatArray):
        self._parameters = parameters

    def mode(self) -> FloatArray:
        """(B, A) action of the mean."""
        mean = computed(self._parameters)[:, : self._parameters.shape[1] // 2]
        actions: FloatArray = np.tanh(mean)
        return actions

    def sample(self) -> tuple[FloatArray, FloatArray]:
        """(B, A) actions, drawn with torch's global generator, and their (B, 1) log-probability."""
        rows, columns = self._parameters.shape
        self._noise = normal((rows, columns // 2))
        self._actions, log_prob = squashed_gaussian(self._parameters, self._noise)
        return self._actions, log_prob

    def backward(self, by_actions: FloatArray, by_log_prob: FloatArray) -> FloatArray:
        """(B, 2 A) derivative by the parameters of the latest sample, its noise held fixed.

        Args:
            by_actions: (B, A) derivative by the actions.
            by_log_prob: (B, 1) derivative by their log-probability.
        """
        given = self._parameters, self._noise, self._actions, by_actions, by_log_prob
        by_parameters: FloatArray = through_squashed_gaussian(*given)
        return by_parameters


class TracedActions(Protocol):
    """Actions that a stochastic policy draws for some observations."""

    actions: FloatArray
    """(B, A) in [-1, 1]."""
    log_prob: FloatArray
    """(B, 1)."""

    def backward(self, by_actions: FloatArray, by_log_prob: FloatArray) -> None:
        """Sets `grad` of the policy's parameters, given the derivatives by actions and log-probability."""


def traced_actions(actor: nn.Module, observations: Observations, method: str = "distribution") -> TracedActions:
    """Draws actions, with a way back.

    Args:
        actor: A `SparseSACActor`, or the SAC `Actor` of Stable-Baselines3.
        observations: As `TransitionBatch` has them.
        method: Of a sparse actor, which gives means and log standard deviations.
    """
    if not isinstance(actor, DenseActor):
        return _SparseActions(actor, observations, method)
    run_waiting()
    return _DenseActions(actor, computed(observations))


def sample_actions(actor: nn.Module, observations: Observations) -> tuple[FloatArray, FloatArray]:
    """(B, A) actions and (B, 1) log-probabilities, with no way back."""
    if isinstance(actor, DenseActor):
        run_waiting()
        with torch.no_grad(), torch_products(actor, ("sample", rows_of(observations))):
            actions, log_prob = actor.action_log_prob(as_tensors(computed(observations)))
        return actions.numpy(), log_prob.reshape(-1, 1).numpy()
    return SquashedGaussian(evaluate(actor, "distribution", observations)[0]).sample()


class _SparseActions:
    def __init__(self, actor: nn.Module, observations: Observations, method: str):
        self._pass = traced_forward(actor, method, observations)
        self._gaussian = SquashedGaussian(self._pass.outputs[0])
        self.actions, self.log_prob = self._gaussian.sample()

    def backward(self, by_actions: FloatArray, by_log_prob: FloatArray) -> None:
        self._pass.backward(self._gaussian.backward(by_actions, by_log_prob)[None])


class _DenseActions:
    """Through Stable-Baselines3's own distribution and autograd, so that every bit is theirs."""

    def __init__(self, actor: Any, observations: Observations):
        self._actor, self._rows = actor, rows_of(observations)
        with torch_products(actor, ("draw", self._rows)):
            self._given = actor.action_log_prob(as_tensors(observations))
        self.actions, log_prob = (tensor.detach().numpy() for tensor in self._given)
        self.log_prob = log_prob.reshape(-1, 1)

    def backward(self, by_actions: FloatArray, by_log_prob: FloatArray) -> None:
        self._actor.zero_grad()
        toward_actions, toward_log_prob = (torch.from_numpy(np.asarray(given)) for given in (by_actions, by_log_prob))
        with torch_products(self._actor, ("back", self._rows)):
            torch.autograd.backward(self._given, (toward_actions, toward_log_prob.reshape(-1)))
