"""A squashed Gaussian agrees with Stable-Baselines3's in samples, log-probability and every derivative."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.distributions import SquashedDiagGaussianDistribution
from stable_baselines3.sac.policies import SACPolicy
from torch import nn

from sparserl.agents.networks.policies import SparseSACPolicy
from sparserl.agents.networks.squashed_gaussian import SquashedGaussian, sample_actions, traced_actions
from sparserl.topology.config import TopologyConfig

OBSERVATIONS, ACTIONS = gym.spaces.Box(-1, 1, (5,), np.float64), gym.spaces.Box(-1, 1, (3,), np.float32)


def parameters(spread: float = 1.0, rows: int = 50) -> np.ndarray:
    return (spread * np.random.default_rng(0).normal(size=(rows, 6))).astype(np.float32)


def reference(given: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    mean, log_std = given[:, :3], given[:, 3:].clamp(-20, 2)
    actions, log_prob = SquashedDiagGaussianDistribution(3).log_prob_from_params(mean, log_std)
    return actions, log_prob.reshape(-1, 1)


def test_worked_by_hand() -> None:
    gaussian = SquashedGaussian(np.float32([[0.5, -np.log(2.0)]]))
    assert gaussian.mode() == pytest.approx(np.tanh(0.5))
    torch.manual_seed(3)
    actions, log_prob = gaussian.sample()
    torch.manual_seed(3)
    noise = torch.randn(1, 1).item()
    assert actions == pytest.approx(np.tanh(0.5 + 0.5 * noise), rel=1e-6)
    density = np.exp(-0.5 * noise**2) / np.sqrt(2 * np.pi) / 0.5  # of the Gaussian, at its standard deviation of 1/2
    assert log_prob == pytest.approx(np.log(density / (1 - actions**2)), rel=1e-4)


@pytest.mark.parametrize("spread", [1.0, 3.0, 15.0], ids="parameters of {}".format)
def test_agrees_with_stable_baselines3(spread: float) -> None:
    given = torch.from_numpy(parameters(spread)).requires_grad_()
    torch.manual_seed(1)
    expected = reference(given)
    rng = np.random.default_rng(1)
    by_actions, by_log_prob = (rng.normal(size=tuple(part.shape)).astype(np.float32) for part in expected)
    torch.autograd.backward(expected, (torch.from_numpy(by_actions), torch.from_numpy(by_log_prob)))
    torch.manual_seed(1)
    gaussian = SquashedGaussian(given.detach().numpy())
    actions, log_prob = gaussian.sample()
    np.testing.assert_allclose(actions, expected[0].detach().numpy(), rtol=1e-5, atol=1e-6)
    derivative = gaussian.backward(by_actions, by_log_prob)
    assert given.grad is not None
    # Where an action touches its bound, 1 - action^2 has no digits left, in both.
    inside = np.abs(actions) < 0.99
    rows = inside.all(axis=1)
    assert rows.any() or spread > 3.0
    np.testing.assert_allclose(log_prob[rows], expected[1].detach().numpy()[rows], rtol=1e-4, atol=1e-4)
    for own, theirs in zip(np.split(derivative, 2, 1), given.grad.split(3, 1), strict=True):
        np.testing.assert_allclose(own[inside], theirs.numpy()[inside], rtol=5e-3, atol=1e-3)
    assert np.isfinite(derivative).all()


def test_a_clipped_standard_deviation_gets_no_gradient() -> None:
    gaussian = SquashedGaussian(np.float32([[0.0, 0.0, 0.0, 2.5, -21.0, 2.0]]))
    gaussian.sample()
    derivative = gaussian.backward(np.ones((1, 3), np.float32), np.ones((1, 1), np.float32))
    assert derivative[0, 3] == derivative[0, 4] == 0.0
    assert derivative[0, 5] != 0.0  # exactly at the bound, as torch's clamp


CASES: dict[str, dict[str, Any]] = {
    "fused": {"topology": TopologyConfig(density=0.4)},
    "hidden tanh": {"topology": TopologyConfig(density=0.4), "activation_fn": nn.Tanh},
    "dense": {"topology": TopologyConfig(method="dense")},
}


@pytest.mark.parametrize("case", CASES)
def test_a_pass_goes_back_to_the_parameters_of_the_policy(case: str) -> None:
    torch.manual_seed(0)
    actor = SparseSACPolicy(OBSERVATIONS, ACTIONS, lambda _: 1e-3, net_arch=[17, 9], **CASES[case]).actor
    observations = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    torch.manual_seed(2)
    expected = reference(actor.distribution(torch.from_numpy(observations)))
    rng = np.random.default_rng(1)
    by_actions, by_log_prob = (rng.normal(size=tuple(part.shape)).astype(np.float32) for part in expected)
    torch.autograd.backward(expected, (torch.from_numpy(by_actions), torch.from_numpy(by_log_prob)))
    wanted = {name: parameter.grad.clone() for name, parameter in actor.named_parameters()}
    actor.zero_grad()
    torch.manual_seed(2)
    taken = traced_actions(actor, observations)
    np.testing.assert_allclose(taken.actions, expected[0].detach().numpy(), rtol=1e-5, atol=1e-6)
    taken.backward(by_actions, by_log_prob)
    for name, parameter in actor.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name], rtol=1e-4, atol=1e-5)
    torch.manual_seed(2)
    actions, log_prob = sample_actions(actor, observations)
    np.testing.assert_array_equal(actions, taken.actions)
    np.testing.assert_array_equal(log_prob, taken.log_prob)


def test_the_dense_actor_keeps_its_own_arithmetic() -> None:
    torch.manual_seed(0)
    actor = SACPolicy(OBSERVATIONS, ACTIONS, lambda _: 1e-3, net_arch=[8]).actor
    observations = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    torch.manual_seed(2)
    actions, log_prob = actor.action_log_prob(torch.from_numpy(observations))
    (actions.sum() * 2 + log_prob.sum() * 3).backward()
    wanted = [parameter.grad.clone() for parameter in actor.parameters()]
    torch.manual_seed(2)
    taken = traced_actions(actor, observations)
    taken.backward(np.full((7, 3), 2, np.float32), np.full((7, 1), 3, np.float32))
    for parameter, gradient in zip(actor.parameters(), wanted, strict=True):
        assert torch.equal(parameter.grad, gradient)
    torch.manual_seed(2)
    assert np.array_equal(sample_actions(actor, observations)[0], actions.detach().numpy())
