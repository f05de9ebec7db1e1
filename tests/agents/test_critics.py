"""More critics than two, a random subset of them for the targets, their mean for the actor (REDQ)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import stable_baselines3
import torch
from stable_baselines3.common.logger import Logger
from stable_baselines3.sac.policies import SACPolicy
from stable_baselines3.td3.policies import TD3Policy
from support.calls import watch_calls
from support.envs import FunctionEnv
from support.trees import assert_equal_trees

from sparserl.agents import DSSAC, DSTD3
from sparserl.agents.config import RunSizes
from sparserl.agents.critics_config import SACConfig, TD3Config
from sparserl.agents.export_policy import exported_policy
from sparserl.agents.networks.chains import chains_of_agent
from sparserl.agents.table import make_agent
from sparserl.errors import ConfigError
from sparserl.kernels.deferred import computed
from sparserl.layers import fused_adam
from sparserl.topology.config import TopologyConfig

SPARSE = {"method": "set", "density": 0.5, "update_interval": 7, "last_update": 40}
REDQ: dict[str, Any] = {"critic_subset": 2, "actor_q": "mean"}
DENSE: dict[Any, Any] = {DSTD3: (stable_baselines3.TD3, TD3Policy), DSSAC: (stable_baselines3.SAC, SACPolicy)}
both = pytest.mark.parametrize("kind", [DSTD3, DSSAC])


def make(kind: Any, critics: int = 4, policy: Any = "MlpPolicy", **options: Any) -> Any:
    if policy == "MlpPolicy":
        options.setdefault("topology", SPARSE)
    own = {"net_arch": [8, 8], "n_critics": critics}
    settings: dict[str, Any] = {"learning_starts": 10, "batch_size": 8, "buffer_size": 50, "seed": 0}
    agent = kind(policy, FunctionEnv(), policy_kwargs=own, device="cpu", **{**settings, **options})
    agent.set_logger(Logger(None, []))
    return agent


def learned(agent: Any) -> dict[str, torch.Tensor]:
    return dict(agent.policy.state_dict())


@both
def test_three_dense_critics_are_those_of_sb3_bit_for_bit(kind: Any) -> None:
    reference, policy = DENSE[kind]
    theirs, ours = make(reference, 3, policy).learn(40), make(kind, 3, policy).learn(40)
    assert_equal_trees(learned(theirs), learned(ours))


@both
def test_a_subset_of_all_draws_nothing(kind: Any) -> None:
    assert_equal_trees(learned(make(kind).learn(40)), learned(make(kind, critic_subset=4).learn(40)))


@both
def test_the_subset_is_drawn_from_the_generator_of_torch(kind: Any) -> None:
    agent = make(kind, critic_subset=2)
    observations, actions = np.float32([[0.1, 0.2, 0.3]]), np.float32([[0.5, -0.5]])
    with torch.no_grad():
        of_all = agent.critic_target(*map(torch.from_numpy, (observations, actions)))
    seen = set()
    for seed in range(30):
        torch.manual_seed(seed)
        chosen = torch.randperm(4)[:2].tolist()
        seen.add(frozenset(chosen))
        torch.manual_seed(seed)
        found = computed(agent._next_values(observations, actions))
        np.testing.assert_allclose(found[:, 0, 0], [of_all[critic].item() for critic in chosen], rtol=1e-5)
    assert len(seen) == 6  # of every pair


def redq_update(agent: Any, batch: Any, target_critics: list[int], alpha: torch.Tensor, with_actor: bool) -> None:
    """The update of REDQ on SAC by autograd, in Stable-Baselines3's order (Chen et al. 2021, algorithm 1)."""
    policy_draw = agent.actor.action_log_prob(batch.observations) if with_actor else None
    with torch.no_grad():
        following, log_prob = agent.actor.action_log_prob(batch.next_observations)
        values = torch.stack(agent.critic_target(batch.next_observations, following))
        torch.randperm(len(values))  # where the agent draws its subset
        soft = values[target_critics].min(dim=0).values - alpha * log_prob[:, None]
        targets = batch.rewards + (1 - batch.dones) * agent.gamma * soft
    loss = sum(0.5 * (values - targets).square().mean() for values in agent.critic(batch.observations, batch.actions))
    agent.critic.optimizer.zero_grad()
    loss.backward()
    agent.critic.optimizer.step()
    if policy_draw is not None:
        actions, log_prob = policy_draw
        mean = torch.stack(agent.critic(batch.observations, actions)).mean(dim=0)
        agent.actor.optimizer.zero_grad()
        (alpha * log_prob[:, None] - mean).mean().backward()
        agent.actor.optimizer.step()
    with torch.no_grad():
        for online, copied in zip(agent.critic.parameters(), agent.critic_target.parameters(), strict=True):
            copied.lerp_(online, agent.tau)


def test_an_update_is_that_of_redq(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = make(DSSAC, 4, SACPolicy, **REDQ, policy_delay=2, ent_coef=0.3).learn(11)
    theirs = copy.deepcopy(ours)
    generators = torch.get_rng_state(), np.random.get_state()
    ours.train(3, 8)
    torch.set_rng_state(generators[0])
    np.random.set_state(generators[1])
    drawn: list[list[int]] = []
    randperm = torch.randperm
    monkeypatch.setattr(torch, "randperm", lambda n: drawn[-1].extend(found := randperm(n).tolist()) or found)
    for update in (2, 3, 4):
        batch = theirs.replay_buffer.sample(8)
        # What the subset will be: the draws before it are the same whatever it is.
        state = torch.get_rng_state()
        drawn.append([])
        probe = copy.deepcopy(theirs)
        redq_update(probe, batch, [0, 1], torch.tensor(0.3), update % 2 == 0)
        torch.set_rng_state(state)
        redq_update(theirs, batch, drawn[-1][:2], torch.tensor(0.3), update % 2 == 0)
    assert len({tuple(order[:2]) for order in drawn}) > 1
    for name, tensor in learned(ours).items():
        torch.testing.assert_close(tensor, learned(theirs)[name], rtol=1e-4, atol=1e-6, msg=name)


REDUCED: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "first": lambda values: values[0],
    "min": lambda values: values.min(dim=0).values,
    "mean": lambda values: values.mean(dim=0),
}


@pytest.mark.parametrize("actor_q", REDUCED)
def test_the_actor_goes_by_the_critics_that_are_asked_for(actor_q: str) -> None:
    agent = make(DSTD3, actor_q=actor_q).learn(12)
    agent.critic.q_networks[0][-1].bias.data += 1  # so that others are the lowest
    batch = agent.transitions(np.arange(8))
    observations = torch.from_numpy(batch.observations)
    values = torch.stack(agent.critic(observations, agent.actor(observations)))
    assert (values.argmin(dim=0) > 0).all()
    loss = -REDUCED[actor_q](values).mean()
    expected = torch.autograd.grad(loss, list(agent.actor.parameters()))
    agent.form_gradients("actor", batch)
    for parameter, gradient in zip(agent.actor.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-7)


@both
def test_updates_of_many_critics_are_one_call(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_adam, "_hooks_of_all", {})
    agent = make(kind, 10, **REDQ, topology={"method": "static", "density": 0.5}).learn(14)
    calls = watch_calls(monkeypatch)
    agent.train(4, 8)
    assert len([call for call in calls if len(call.steps) > 2]) == 4
    waiting = learned(make(kind, 10, **REDQ).learn(40))
    at_once = make(kind, 10, **REDQ)
    monkeypatch.setattr(at_once, "_waits", lambda: False)
    assert_equal_trees(waiting, learned(at_once.learn(40)))


@both
def test_critics_are_apart_and_their_disagreement_is_logged(kind: Any) -> None:
    agent = make(kind, 5, **REDQ).learn(12)
    layers = [agent.evolver.layers[f"critic.qf{critic}.1"] for critic in range(5)]
    assert len({layer.col.numpy().tobytes() for layer in layers}) == 5
    batch = agent.transitions(np.arange(8))
    with torch.no_grad():
        values = agent.critic(*map(torch.from_numpy, (batch.observations, batch.actions)))
    expected = torch.stack(values).std(dim=0, correction=0).mean().item()
    found = agent._form_critic_gradients(batch, np.zeros((8, 1), np.float32))["critic_disagreement"]
    assert np.asarray(found).item() == pytest.approx(expected, rel=1e-5)
    agent.train(2, 8)
    assert agent.logger.name_to_value["train/critic_disagreement"] > 0
    assert list(chains_of_agent(agent))[1:] == [f"critic.qf{critic}" for critic in range(5)]
    assert exported_policy(agent, {}).layers


def test_the_actor_of_sac_waits() -> None:
    agent = make(DSSAC, **REDQ, policy_delay=3).learn(10)
    moved = []
    for _ in range(6):
        before = agent.actor.pi[0].values.detach().clone(), agent.log_ent_coef.item()
        agent.train(1, 8)
        moved.append(not torch.equal(before[0], agent.actor.pi[0].values))
        assert moved[-1] == (before[1] != agent.log_ent_coef.item())
    assert moved == [False, False, True] * 2
    assert agent.updates_per_step == {"actor": 3, "critic": 1}


REFUSED: dict[str, tuple[Any, str]] = {
    "subset": (lambda: make(DSTD3, critic_subset=5), r"critic_subset must be in \[1, 4\], the number of critics: 5"),
    "no subset": (lambda: make(DSSAC, critic_subset=0), r"critic_subset must be in \[1, 4\]"),
    "value": (lambda: make(DSSAC, actor_q="maen"), "unknown actor_q 'maen'.*mean"),
    "range": (lambda: SACConfig(n_critics=21), r"agent.n_critics must be in \[2, 20\], got 21"),
    "one": (lambda: TD3Config(n_critics=1), r"agent.n_critics must be in \[2, 20\], got 1"),
    "more than all": (lambda: SACConfig(critic_subset=3), "critic_subset must be at most agent.n_critics 2, got 3"),
    "dense": (
        lambda: make_agent("sac", SACConfig(policy_delay=20), TopologyConfig("dense"), FunctionEnv(), seed=0),
        "agent.policy_delay 20 is not for sac.*--algo ds_sac --topology.method dense",
    ),
    "dense mean": (
        lambda: make_agent("td3", TD3Config(actor_q="mean"), TopologyConfig("dense"), FunctionEnv(), seed=0),
        "agent.actor_q mean is not for td3.*--algo ds_td3 --topology.method dense",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_in_one_line(name: str) -> None:
    attempt, message = REFUSED[name]
    with pytest.raises(ConfigError, match=message) as refusal:
        attempt()
    assert "\n" not in str(refusal.value)


def test_memory_is_estimated_for_all_critics() -> None:
    two, ten = (DSSAC.layer_widths(SACConfig(n_critics=n, net_arch=(6, 5)), 3, 2) for n in (2, 10))
    assert two == {"actor": [[3, 6, 5, 2]], "critic": [[5, 6, 5, 1]] * 2}
    assert ten["critic"] == [[5, 6, 5, 1]] * 10
    sizes = [SACConfig(n_critics=n).memory(RunSizes(3, 4, 2, 1, 100))["batches (--agent.batch-size)"] for n in (2, 10)]
    assert sizes[1] - sizes[0] == 8 * 4 * 256 * 2 * 512
