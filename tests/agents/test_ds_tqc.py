"""DS-TQC: its loss and targets worked by hand, and its update beside sb3-contrib's TQC on the same weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sb3_contrib import TQC
from stable_baselines3.common.logger import Logger
from stable_baselines3.sac.policies import SACPolicy
from support.envs import FunctionEnv

from sparserl.agents import DSTQC
from sparserl.agents.ds_tqc import TQCConfig
from sparserl.agents.networks import squashed_gaussian
from sparserl.agents.table import NOT_HERE, agent_spec
from sparserl.errors import ConfigError

SIZES: dict[str, Any] = {"learning_starts": 60, "batch_size": 16, "buffer_size": 200, "seed": 0}
SMALL = {"net_arch": [12, 10], "n_quantiles": 5}


def make(**options: Any) -> Any:
    given = {"topology": {"method": "dense"}, "policy_kwargs": SMALL, **SIZES, **options}
    return DSTQC("MlpPolicy", FunctionEnv(), **given)


def test_the_loss_worked_by_hand() -> None:
    # Levels .25 and .75. Errors 1 and -1 at the bend: half each, weighed .25 below and 1 - .75 above; then 3: 2.5 times
    # .25 and .75 * 0.5.
    quantiles = np.float32([[[0.0, 2.0]], [[-2.0, 0.0]]])
    loss, gradient = make()._critic_loss(quantiles, np.float32([[1.0]]))
    assert loss == pytest.approx((0.25 * 0.5 + 0.25 * 0.5 + 0.25 * 2.5 + 0.75 * 0.5) / 4)
    np.testing.assert_allclose(gradient, np.float32([[[-0.25, 0.25]], [[-0.25, -0.75]]]) / 4)


def test_targets_leave_out_the_highest_quantiles_of_all_critics(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make(top_quantiles_to_drop_per_net=1, policy_kwargs={**SMALL, "n_quantiles": 2})
    given = np.float32([[[1.0, 9.0]], [[4.0, 2.0]]])  # of both critics, so 4 and 9 are left out
    module = "sparserl.agents.ds_tqc"
    monkeypatch.setattr(f"{module}.evaluate", lambda *_: given)
    monkeypatch.setattr(f"{module}.sample_actions", lambda *_: (np.zeros((1, 2)), np.float32([[-3.0]])))

    class Batch:
        next_observations = None
        rewards, dones, discounts = (np.float32([[value]]) for value in (0.5, 0.0, 0.5))

    targets = agent._targets(Batch(), np.float32([0.1]))
    np.testing.assert_allclose(targets, [[0.5 + 0.5 * (1.0 + 0.3), 0.5 + 0.5 * (2.0 + 0.3)]], rtol=1e-6)


def test_the_actors_loss_worked_by_hand() -> None:
    quantiles = np.float32([[[1.0, 3.0], [0.0, 0.0]], [[2.0, 2.0], [4.0, 0.0]]])
    loss, by_quantiles, by_log_prob = make()._actor_loss(quantiles, np.float32([[1.0], [3.0]]), np.float32([0.5]))
    assert loss == pytest.approx(0.5 * 2.0 - 1.5)
    assert (by_quantiles == np.float32(-1 / 8)).all()
    assert (by_log_prob == np.float32(0.25)).all()


def test_it_learns_as_sb3_contribs_on_the_same_weights() -> None:
    own = make()
    twin = TQC("MlpPolicy", FunctionEnv(), device="cpu", policy_kwargs=SMALL, **SIZES)
    networks = [(own.actor.pi, [*twin.actor.latent_pi])]
    for ours, theirs in (
        *zip(own.critic.q_networks, twin.critic.q_networks, strict=True),
        *zip(own.critic_target.q_networks, twin.critic_target.q_networks, strict=True),
    ):
        networks.append((ours, [*theirs]))
    with torch.no_grad():
        for ours, theirs in networks:
            for layer, other in zip(ours, [part for part in theirs if isinstance(part, torch.nn.Linear)], strict=False):
                other.weight.copy_(layer.weight)
                other.bias.copy_(layer.bias)
        last = own.actor.pi[-1]
        for part, head in zip((slice(0, 2), slice(2, 4)), (twin.actor.mu, twin.actor.log_std), strict=True):
            head.weight.copy_(last.weight[part])
            head.bias.copy_(last.bias[part])
    for agent in (own, twin):
        agent.set_random_seed(1)
        agent.set_logger(Logger(None, []))
        agent.learn(40)  # fills the buffer with random actions
        np.random.seed(2)
        torch.manual_seed(2)
        agent.train(5, 16)
    for ours, theirs in networks:
        for layer, other in zip(ours, [part for part in theirs if isinstance(part, torch.nn.Linear)], strict=False):
            torch.testing.assert_close(layer.weight, other.weight, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(own.actor.pi[-1].weight[:2], twin.actor.mu.weight, rtol=1e-4, atol=1e-5)
    assert own.log_ent_coef.item() == pytest.approx(twin.log_ent_coef.item(), rel=1e-4)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a subset": ({"critic_subset": 1}, "quantiles of all critics are one mixture"),
    "another value": ({"actor_q": "min"}, "critic_subset and actor_q are for ds_sac"),
    "all left out": (
        {"top_quantiles_to_drop_per_net": 5},
        r"must be in \[0, 4\], below the 5 quantiles of a critic, got 5",
    ),
    "no quantiles": ({"policy_kwargs": {"n_quantiles": 0}}, "n_quantiles must be at least 1, got 0"),
    "another policy": ({"policy": SACPolicy, "policy_kwargs": {}}, "the policy SACPolicy gives no quantiles"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_in_one_line(name: str) -> None:
    options, message = REFUSED[name]
    policy = options.pop("policy", "MlpPolicy")
    with pytest.raises(ConfigError, match=message):
        DSTQC(policy, FunctionEnv(), **{"policy_kwargs": SMALL, "topology": {"method": "dense"}, **SIZES, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_quantiles": 2}, "agent.top_quantiles_to_drop_per_net must be below agent.n_quantiles 2, got 2"),
        ({"actor_q": "mean"}, "agent.actor_q mean has no effect: it needs ds_sac"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TQCConfig(**options)


@pytest.mark.parametrize("algo", NOT_HERE)
def test_agents_that_are_not_here_are_refused_with_the_reason(algo: str) -> None:
    with pytest.raises(ConfigError, match=f"there is no {algo}: .*"):
        agent_spec(algo)


def test_actions_are_drawn_as_in_soft_actor_critic() -> None:
    agent = make(topology={"method": "set", "density": 0.3})
    actions, log_prob = squashed_gaussian.sample_actions(agent.actor, np.zeros((4, 3), np.float32))
    assert (np.shape(actions), np.shape(log_prob)) == ((4, 2), (4, 1))
    assert agent.critic(torch.zeros(4, 3), torch.zeros(4, 2))[0].shape == (4, 5)
