"""A fused pass, an autograd pass and torch agree on outputs and on every gradient."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.td3.policies import TD3Policy
from torch import nn

from sparserl.agents.networks.policies import SparseTD3Policy
from sparserl.agents.networks.traced_forward import AutogradForward, FusedForward, evaluate, traced_forward
from sparserl.topology.config import TopologyConfig

OBSERVATIONS, ACTIONS = gym.spaces.Box(-1, 1, (5,), np.float64), gym.spaces.Box(-1, 1, (3,), np.float32)
CASES = {
    "fused": (FusedForward, {}),
    "hidden tanh": (FusedForward, {"activation_fn": nn.Tanh}),
    "dense": (AutogradForward, {"topology": TopologyConfig(method="dense")}),
}


def policy(**options: object) -> SparseTD3Policy:
    torch.manual_seed(0)
    settings = {"topology": TopologyConfig(density=0.4), "net_arch": [17, 9], **options}
    return SparseTD3Policy(OBSERVATIONS, ACTIONS, lambda _: 1e-3, **settings)


def arrays(*widths: int, batch: int = 6) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=(batch, width)).astype(np.float32) for width in widths]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("network", "method", "widths"),
    [("actor", "forward", (5,)), ("critic", "forward", (5, 3)), ("critic", "q1_forward", (5, 3))],
)
def test_agrees_with_autograd(case: str, network: str, method: str, widths: tuple[int, ...]) -> None:
    kind, options = CASES[case]
    module = getattr(policy(**options), network)
    inputs = arrays(*widths)
    tensors = [torch.from_numpy(array).requires_grad_() for array in inputs]
    given = getattr(module, method)(*tensors)
    expected = torch.stack([given] if torch.is_tensor(given) else list(given))
    gradient = np.random.default_rng(1).normal(size=expected.shape).astype(np.float32)
    expected.backward(torch.from_numpy(gradient))
    wanted = {name: parameter.grad for name, parameter in module.named_parameters()}
    module.zero_grad()

    passed = traced_forward(module, method, *inputs)
    assert type(passed) is kind
    close = {"rtol": 1e-5, "atol": 1e-6}
    np.testing.assert_allclose(passed.outputs, expected.detach().numpy(), **close)
    np.testing.assert_allclose(evaluate(module, method, *inputs), expected.detach().numpy(), **close)
    if case == "fused" or len(widths) > 1:
        np.testing.assert_allclose(passed.input_gradient(gradient), tensors[-1].grad.numpy(), **close)
        assert all(parameter.grad is None for parameter in module.parameters())
    passed = traced_forward(module, method, *inputs)
    for _ in range(2):  # what was there is replaced, never added to
        if kind is AutogradForward:
            passed = traced_forward(module, method, *inputs)
        passed.backward(gradient)
    for name, parameter in module.named_parameters():
        if wanted[name] is None:  # the second critic of `q1_forward`
            assert parameter.grad is None
        else:
            torch.testing.assert_close(parameter.grad, wanted[name], rtol=1e-5, atol=1e-6)


def test_a_dense_policy_goes_through_autograd() -> None:
    dense = TD3Policy(OBSERVATIONS, ACTIONS, lambda _: 1e-3, net_arch=[8])
    assert type(traced_forward(dense.actor, "forward", *arrays(5))) is AutogradForward


def test_observations_that_need_more_than_a_look_are_not_fused() -> None:
    torch.manual_seed(0)
    one_hot = SparseTD3Policy(gym.spaces.Discrete(5), ACTIONS, lambda _: 1e-3, topology=TopologyConfig(density=0.5))
    assert one_hot.actor.ensembles == {}
