"""DS-SAC: equals Stable-Baselines3's SAC at the dense limit, has the paper's sizes, rewires, copies targets."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from stable_baselines3.sac.policies import SACPolicy
from support.envs import FunctionEnv
from support.trees import assert_equal_trees

import sparserl.agents.dense
from sparserl.agents import DSSAC
from sparserl.agents.networks.traced_forward import differentiated
from sparserl.agents.replay import batch as agents_batch
from sparserl.errors import ConfigError, KernelUnavailable
from sparserl.metrics.cost import params_dense, params_nonzero

SOURCE = Path(__file__).resolve().parents[2] / "agents" / "ds_sac.py"
NETWORKS = ("actor", "critic", "critic_target")


def make(env: Any = None, agent: Callable[..., SAC] = DSSAC, policy: Any = "MlpPolicy", **kwargs: Any) -> Any:
    """A small agent that starts to learn soon."""
    settings: dict[str, Any] = {
        "learning_starts": 50,
        "batch_size": 16,
        "buffer_size": 1000,
        "policy_kwargs": {"net_arch": [16, 16]},
        "seed": 0,
        "device": "cpu",
    }
    return agent(policy, env or FunctionEnv(), **{**settings, **kwargs})


def weights(agent: SAC) -> dict[str, Any]:
    """All parameters, optimizer states and the temperature."""
    found: dict[str, Any] = {name: dict(getattr(agent, name).state_dict()) for name in NETWORKS}
    for name in ("actor", "critic"):
        found[f"{name}.optimizer"] = getattr(agent, name).optimizer.state_dict()["state"]
    if agent.ent_coef_optimizer is not None:
        assert agent.log_ent_coef is not None
        found["log_ent_coef"] = agent.log_ent_coef.detach()
        found["ent_coef_optimizer"] = agent.ent_coef_optimizer.state_dict()["state"]
    return found


@pytest.mark.parametrize("ent_coef", ["auto", 0.2], ids="temperature {}".format)
@pytest.mark.parametrize("vectorized", [False, True], ids=["one env", "two normalized envs"])
def test_at_the_dense_limit_it_equals_sb3_bit_for_bit(vectorized: bool, ent_coef: Any) -> None:
    def env() -> Any:
        return VecNormalize(DummyVecEnv([FunctionEnv] * 2)) if vectorized else FunctionEnv()

    kwargs: dict[str, Any] = {"optimizer_kwargs": {"weight_decay": 2e-4}, "net_arch": [16, 16]}
    options = {"gradient_steps": 2, "ent_coef": ent_coef}
    # The seed sets the global generators, so one agent learns before the other is built.
    reference = make(env(), SAC, SACPolicy, policy_kwargs=dict(kwargs), **options).learn(80)
    ours = make(env(), DSSAC, SACPolicy, policy_kwargs=dict(kwargs), **options).learn(80)
    assert not ours.evolver.layers
    assert reference._n_updates == ours._n_updates == (30 if vectorized else 60)
    assert_equal_trees(weights(reference), weights(ours))


def test_with_hard_targets_it_equals_dense_sac_bit_for_bit() -> None:
    options: dict[str, Any] = {"tau": 1.0, "target_update_interval": 13, "ent_coef": 0.2, "gradient_steps": 3}
    reference = make(None, sparserl.agents.dense.SAC, SACPolicy, **options).learn(90)
    ours = make(None, DSSAC, SACPolicy, **options).learn(90)
    assert ours._n_updates == 120
    assert_equal_trees(weights(reference), weights(ours))


def test_the_dense_method_equals_sb3_up_to_rounding() -> None:
    reference = make(agent=SAC, policy=SACPolicy)
    ours = make(topology={"method": "dense"})
    for name in ("critic", "critic_target"):
        getattr(ours, name).load_state_dict(
            dict(zip(getattr(ours, name).state_dict(), getattr(reference, name).state_dict().values(), strict=True))
        )
    of = dict(reference.actor.named_parameters())
    with torch.no_grad():
        for layer, (weight, bias) in enumerate(
            (
                (of["latent_pi.0.weight"], of["latent_pi.0.bias"]),
                (of["latent_pi.2.weight"], of["latent_pi.2.bias"]),
                (
                    torch.cat([of["mu.weight"], of["log_std.weight"]]),
                    torch.cat([of["mu.bias"], of["log_std.bias"]]),
                ),
            )
        ):
            ours.actor.pi[layer].weight.copy_(weight)
            ours.actor.pi[layer].bias.copy_(bias)
    for agent in (reference, ours):
        agent.set_random_seed(3)
        agent.learn(60)
    for a, b in zip(reference.critic.parameters(), ours.critic.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(of["mu.weight"], ours.actor.pi[2].weight[:2], rtol=1e-3, atol=1e-4)


def test_the_agent_never_mentions_how_sparsity_is_stored() -> None:
    assert re.findall(r"nnz|indices|flat|\.T\b|\.t\(\)", SOURCE.read_text()) == []


# Sparsity of the whole network (actor with two outputs an action, and two critics) in the reference's table; inputs
# of v3, for which the paper's factors are meant.
@pytest.mark.parametrize(
    ("n_obs", "n_action", "epsilon", "sparsity", "dense"),
    [
        (17, 6, (12, 80), 0.369, 217_870),
        (11, 3, (7, 20), 0.816, 210_184),
        (111, 8, (30, 64), 0.530, 292_114),
        (376, 17, (61, 64), 0.552, 504_868),
    ],
    ids=["HalfCheetah, Walker2d", "Hopper", "Ant", "Humanoid"],
)
def test_sizes_are_those_of_the_paper(
    n_obs: int, n_action: int, epsilon: tuple[int, int], sparsity: float, dense: int
) -> None:
    env = FunctionEnv(n_obs=n_obs, n_action=n_action)
    agent = make(env, policy_kwargs={"net_arch": [256, 256]}, topology={"epsilon": epsilon}, buffer_size=2)
    networks = [agent.actor, agent.critic]
    assert params_dense(networks) == dense
    biases = sum(p.numel() for n in networks for name, p in n.named_parameters() if name.endswith("bias"))
    assert 1 - (params_nonzero(networks) - biases) / (dense - biases) == pytest.approx(sparsity, abs=1e-3)


def test_actor_and_critics_rewire_at_the_same_updates() -> None:
    agent = make(topology={"update_interval": 10, "first_update": 3, "last_update": 25})
    agent.evolver.events.clear()
    agent.learn(100)
    for group in ("actor", "critic"):
        seen = {(event.update, event.kind) for event in agent.evolver.events if event.layer.startswith(group)}
        assert sorted(seen) == [(3, "rewire"), (13, "rewire"), (23, "rewire"), (33, "shrink")]


@pytest.mark.parametrize("target", ["shared", "union_trim"])
def test_a_hard_target_is_the_online_critic(target: str) -> None:
    topology = {"target": target, "update_interval": 10, "drop_fraction": 0.3}
    agent = make(tau=1.0, target_update_interval=20, topology=topology)
    before = [parameter.detach().clone() for parameter in agent.critic_target.q_networks[0][2].parameters()]
    agent.learn(69)  # 19 updates
    assert all(map(torch.equal, before, agent.critic_target.q_networks[0][2].parameters()))
    agent.learn(1, reset_num_timesteps=False)
    assert agent._n_updates == 20
    observations = torch.randn(5, 3)
    actions = torch.randn(5, 2)
    for online, copy in zip(
        agent.critic(observations, actions), agent.critic_target(observations, actions), strict=True
    ):
        torch.testing.assert_close(online, copy, rtol=1e-5, atol=1e-6)
    assert not hasattr(agent, "actor_target")


def test_a_learned_temperature_moves_towards_the_target_entropy() -> None:
    entropic = make(ent_coef="auto", target_entropy=20.0).learn(200)  # more than two bounded actions can have
    certain = make(ent_coef="auto", target_entropy=-20.0).learn(200)
    assert entropic.log_ent_coef.item() > 0.02
    assert certain.log_ent_coef.item() < -0.02


def test_exploration_is_random_and_evaluation_is_not() -> None:
    agent = make()
    observation = np.zeros(3)
    assert np.array_equal(*(agent.predict(observation, deterministic=True)[0] for _ in range(2)))
    assert not np.array_equal(*(agent.predict(observation)[0] for _ in range(2)))
    many = agent.predict(np.random.default_rng(0).normal(size=(50, 3)) * 100)[0]
    assert np.abs(many).max() <= 1.0


@pytest.mark.parametrize("net_arch", [[16, 16], [16]], ids=str)
def test_predict_is_that_of_stable_baselines3(net_arch: list[int]) -> None:
    agent = make(policy_kwargs={"net_arch": net_arch})
    observations = agent.observation_space.sample()[None].repeat(5, axis=0)
    for given in (observations, observations[0], observations[:1], observations.astype(np.float64)):
        for deterministic in (True, False):
            torch.manual_seed(0)
            actions, state = agent.predict(given, deterministic=deterministic)
            torch.manual_seed(0)
            expected, _ = SACPolicy.predict(agent.policy, given, deterministic=deterministic)
            assert actions.shape == expected.shape
            assert state is None
            np.testing.assert_allclose(actions, expected, rtol=1e-5, atol=1e-6)


def test_derivatives_of_the_actor_loss_are_those_of_autograd() -> None:
    agent = make()
    q_values, log_prob = torch.randn(2, 7, 1).numpy(), torch.randn(7, 1).numpy()
    value, by_q_values, by_log_prob = agent._actor_loss(q_values, log_prob, np.float32(0.3))
    expected, derivative = differentiated(lambda q: (0.3 * torch.from_numpy(log_prob) - q.amin(0)).mean(), q_values)
    assert value == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(by_q_values, derivative, rtol=1e-6)
    _, derivative = differentiated(lambda p: (0.3 * p - torch.from_numpy(q_values.min(axis=0))).mean(), log_prob)
    np.testing.assert_allclose(by_log_prob, derivative, rtol=1e-6)


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="no state-dependent exploration"):
        make(use_sde=True)
    with pytest.raises(ConfigError, match="no state-dependent exploration"):
        make(None, DSSAC, SACPolicy, use_sde=True)
    with pytest.raises(KernelUnavailable, match="no kernels for device 'cuda'"):
        make(device="cuda")


def test_what_stands_around_a_step_sees_gradients_before_and_weights_after(seen: list[Any]) -> None:
    """Gradients may be changed before a step; `form_gradients` forms them without one."""
    agent = make(learning_starts=1, topology={"method": "static", "density": 0.4})

    class Around:
        def before_step(self, group: str) -> None:
            seen.append((group, "before"))
            if group == "actor":
                for parameter in agent.actor.parameters():
                    parameter.grad.zero_()

        def after_step(self, group: str) -> None:
            seen.append((group, "after"))

    agent.around_step = Around()
    before = {name: value.clone() for name, value in agent.actor.state_dict().items()}
    agent.learn(3)
    assert seen == [(group, when) for group in ("critic", "actor") for when in ("before", "after")] * 2
    assert_equal_trees(dict(agent.actor.state_dict()), before)


@pytest.mark.parametrize("group", ["critic", "actor"])
def test_gradients_are_formed_as_in_an_update(group: str) -> None:
    formed: dict[str, list[Any]] = {}
    agent = make(learning_starts=60)
    agent.learn(60)
    batch = agents_batch.sample(agent.replay_buffer, 8, None, 0.99)

    class Around:
        def before_step(self, at: str) -> None:
            formed[at] = [parameter.grad.clone() for parameter in getattr(agent, at).parameters()]

        def after_step(self, at: str) -> None:
            pass

    weights_before = weights(agent)
    torch.manual_seed(1)
    agent.form_gradients(group, batch)
    assert_equal_trees(weights(agent), weights_before)
    alone = [parameter.grad.clone() for parameter in getattr(agent, group).parameters()]
    assert any(gradient.abs().sum() > 0 for gradient in alone)
    if group == "critic":  # an update draws the policy's actions first, then the targets
        torch.manual_seed(1)
        agent.around_step = Around()
        agent._update_critics(batch, agent._targets(batch, agent._temperature()))
        assert_equal_trees(alone, formed["critic"])


@pytest.mark.parametrize("size", [1, 7, 100, 256])
def test_the_temperature_is_differentiated_as_autograd_does_bit_for_bit(size: int) -> None:
    agent = make(ent_coef="auto_0.3")
    log_prob = np.random.default_rng(0).normal(size=(size, 1)).astype(np.float32)
    surplus = torch.from_numpy(log_prob + np.float32(agent.target_entropy))
    leaf = agent.log_ent_coef.detach().clone().requires_grad_()
    loss = -(leaf * surplus).mean()
    loss.backward()
    losses = agent._update_temperature(log_prob)
    assert torch.equal(agent.log_ent_coef.grad, leaf.grad)
    assert losses["ent_coef_loss"] == loss.item()


@pytest.fixture
def seen() -> list[Any]:
    return []
