"""DS-CrossQ: its update beside sb3-contrib's CrossQ on the same weights, its networks, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from oracle import update_flops
from sb3_contrib import CrossQ
from stable_baselines3.common.logger import Logger
from stable_baselines3.sac.policies import SACPolicy
from support.envs import FunctionEnv

from sparserl.agents import DSCrossQ
from sparserl.agents.ds_crossq import CrossQConfig
from sparserl.agents.export_policy import exported_policy
from sparserl.agents.networks.traced_forward import evaluate
from sparserl.errors import ConfigError

SIZES: dict[str, Any] = {"learning_starts": 60, "batch_size": 16, "buffer_size": 200, "seed": 0}
SMALL = {"net_arch": {"pi": [12, 10], "qf": [20, 14]}}
SPARSE = {"method": "set", "density": 0.3}


def make(**options: Any) -> Any:
    given = {"topology": {"method": "dense"}, "policy_kwargs": SMALL, **SIZES, **options}
    return DSCrossQ("MlpPolicy", FunctionEnv(), **given)


def trained(updates: int = 7, **options: Any) -> Any:
    agent = make(**options)
    agent.set_logger(Logger(None, []))
    agent.learn(40)  # fills the buffer with random actions
    agent.train(updates, 16)
    return agent


def pairs(own: Any, twin: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Parameters and running statistics of ours, and of sb3-contrib's; of the last layer of its actor both halves."""
    heads = (twin.actor.mu, twin.actor.log_std)
    networks = [(own.actor.pi, [*twin.actor.latent_pi, heads])]
    networks += [(ours, [*theirs]) for ours, theirs in zip(own.critic.q_networks, twin.critic.q_networks, strict=True)]
    found = []
    for ours, modules in networks:
        norms = [module for module in modules if hasattr(module, "ra_mean")]
        layers = [module for module in modules if isinstance(module, torch.nn.Linear | tuple)]
        for layer, other, norm in zip(ours, layers, norms, strict=True):
            before = layer.before
            found += [(before.scale, norm.scale), (before.shift, norm.bias)]
            found += [(before.mean, norm.ra_mean), (before.var, norm.ra_var), (before.steps, norm.steps)]
            if isinstance(other, tuple):
                for part, head in zip((slice(0, 2), slice(2, 4)), other, strict=True):
                    found += [(layer.weight[part], head.weight), (layer.bias[part], head.bias)]
            else:
                found += [(layer.weight, other.weight), (layer.bias, other.bias)]
    return found


@pytest.mark.parametrize("warmup", [1000, 2], ids=["by the batch", "renormalised"])
def test_it_learns_as_sb3_contribs_on_the_same_weights(warmup: int) -> None:
    policy = {**SMALL, "renorm_warmup_steps": warmup, "batch_norm_momentum": 0.1}
    own = make(policy_kwargs=policy)
    twin = CrossQ("MlpPolicy", FunctionEnv(), device="cpu", policy_kwargs=policy, **SIZES)
    with torch.no_grad():
        for ours, theirs in pairs(own, twin):
            theirs.copy_(ours)
    logged: list[dict[str, float]] = []
    for agent in (own, twin):
        agent.set_random_seed(1)
        agent.set_logger(Logger(None, []))
        agent.learn(40)
        np.random.seed(2)
        torch.manual_seed(2)
        agent.train(10, 16)
        logged.append(agent.logger.name_to_value)
    for name in ("critic_loss", "actor_loss", "ent_coef", "ent_coef_loss"):
        assert logged[0][f"train/{name}"] == pytest.approx(logged[1][f"train/{name}"], rel=1e-4)
    for ours, theirs in pairs(own, twin):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert own.log_ent_coef.item() == pytest.approx(twin.log_ent_coef.item(), rel=1e-4)
    observations = np.random.default_rng(3).normal(size=(5, 3)).astype(np.float32)
    actions, expected = (agent.predict(observations, deterministic=True)[0] for agent in (own, twin))
    np.testing.assert_allclose(actions, expected, rtol=1e-4, atol=1e-5)


def test_actor_and_temperature_learn_at_every_third_update() -> None:
    agent = make()
    agent.set_logger(Logger(None, []))
    agent.learn(40)
    for update in range(1, 7):
        before = agent.actor.pi[0].weight.detach().clone(), agent.log_ent_coef.item()
        agent.train(1, 16)
        assert torch.equal(agent.actor.pi[0].weight, before[0]) == (agent.log_ent_coef.item() == before[1])
        assert (agent.log_ent_coef.item() != before[1]) == (update % 3 == 0)


@pytest.mark.parametrize("topology", [SPARSE, {"method": "dense"}], ids=["sparse", "dense"])
def test_in_use_folded_networks_give_what_normalised_ones_do(topology: dict[str, Any]) -> None:
    agent = trained(topology=topology)
    x, actions = torch.randn(9, 3), torch.randn(9, 2)
    values = torch.stack(agent.critic(x, actions)).detach().numpy()
    np.testing.assert_allclose(evaluate(agent.critic, "forward", x.numpy(), actions.numpy()), values, atol=1e-5)
    outputs = agent.actor.distribution(x).detach()
    np.testing.assert_allclose(evaluate(agent.actor, "distribution", x.numpy())[0], outputs.numpy(), atol=1e-5)
    policy, [expected] = exported_policy(agent, {}), agent.predict(x[:1].numpy(), deterministic=True)[0]
    np.testing.assert_allclose(policy(x[0].numpy()), expected, atol=1e-5)


def test_it_learns_the_same_without_kernels_for_batches() -> None:
    # Adam divides gradients that are rounding alone by their own size; not with such an epsilon.
    policy = {**SMALL, "optimizer_kwargs": {"eps": 1e-2}}
    ours, twin = (make(topology=SPARSE, policy_kwargs=policy) for _ in range(2))
    for network in twin.networks.values():
        network.ensembles = {name: one for name, one in network.ensembles.items() if "by_batch" not in name}
    for agent in (ours, twin):
        agent.set_random_seed(1)
        agent.set_logger(Logger(None, []))
        agent.learn(40)
        torch.manual_seed(2)
        agent.train(4, 16)
    for name in ("critic_loss", "actor_loss", "ent_coef_loss"):
        values = [agent.logger.name_to_value[f"train/{name}"] for agent in (ours, twin)]
        assert values[0] == pytest.approx(values[1], rel=1e-3)
    for one, other in zip(ours.policy.state_dict().values(), twin.policy.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_gradients_for_measurements_leave_the_running_statistics() -> None:
    agent = trained(topology=SPARSE)
    before = {name: tensor.clone() for name, tensor in agent.policy.state_dict().items()}
    for group in agent.trained:
        agent.form_gradients(group, agent.transitions(np.arange(8)))
        assert all(parameter.grad is not None for parameter in getattr(agent, group).parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in agent.policy.state_dict().items())


def test_every_product_and_norm_is_counted() -> None:
    agent = trained(6, topology={"method": "static", "density": 0.4})
    product = {name: update_flops.product(network) for name, network in agent.networks.items()}
    # Of a norm 7 operations an entry forward, 5 back, and 4 for scale and shift.
    norms = {
        name: 16 * sum(norm.scale.numel() for net in chains for norm in net.norms)
        for name, chains in {"actor": [agent.actor.pi], "critic": agent.critic.q_networks}.items()
    }
    # Each layer has all three products, the first too, whose norm learns; critics read both halves.
    of_critics = 16 * product["actor"] + 32 * (3 * product["critic"] + norms["critic"])
    of_actor = 16 * (3 * product["actor"] + norms["actor"]) + 16 * 2 * product["critic"]
    assert agent.flops.total == 6 * of_critics + 2 * of_actor


def test_there_are_no_target_networks() -> None:
    agent = make()
    assert not hasattr(agent.policy, "critic_target")
    assert (agent.target_copies, agent.target_networks) == ({}, {})


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a batch of one": ({"batch_size": 1}, "needs a batch of at least 2 samples, got a batch size of 1"),
    "targets": ({"tau": 0.5}, "tau 0.5 has no effect: CrossQ has no target networks; use DSSAC"),
    "another policy": ({"policy": SACPolicy, "policy_kwargs": {}}, "the policy SACPolicy normalises no batches"),
    "heads": ({"policy_kwargs": {"heads": object()}}, "one output layer for all tasks: use ds_sac"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_in_one_line(name: str) -> None:
    options, message = REFUSED[name]
    given = {"policy": "MlpPolicy", "policy_kwargs": SMALL, "topology": {"method": "dense"}, **SIZES, **options}
    with pytest.raises(ConfigError, match=message):
        DSCrossQ(given.pop("policy"), FunctionEnv(), **given)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 1}, "agent.batch_size must be at least 2, got 1"),
        ({"tau": 0.1}, "agent.tau 0.1 has no effect: it needs target networks, which ds_crossq has not"),
        ({"critic_arch": ()}, "agent.critic_arch needs at least one hidden width"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CrossQConfig(**options)
