"""Updates that are repeated from a recording are those that Python would find out anew, whatever is changed between."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from stable_baselines3.common.buffers import ReplayBuffer
from support.trees import assert_equal_trees
from torch import nn

from sparserl.agents import DSDQN, DSSAC, DSTD3
from sparserl.layers import fused_adam as optim

AGENTS = {"ds_td3": DSTD3, "ds_sac": DSSAC}
BATCH = 20
BETWEEN_EVENTS = 16
"""An update at which recordings are in use: the events before and after it, which forget them, are at 11 and 20."""

NOTHING: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def no_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    # A hook for all optimizers, as `sparsify` registers one, may do anything: then nothing is repeated.
    monkeypatch.setattr(optim, "_hooks_of_all", {})


def make(kind: str, more: dict[str, Any] = NOTHING, **given: Any) -> Any:
    topology = {"method": kind, "density": 0.4, "first_update": 8, "last_update": 60, "update_interval": 9}
    agent = AGENTS[kind](
        "MlpPolicy",
        "Pendulum-v1",
        topology=topology | more,
        policy_kwargs={"net_arch": [24, 24]},
        learning_starts=40,
        batch_size=BATCH,
        seed=0,
        **given,
    )
    agent.learn(45, log_interval=None)
    return agent


def learned(agent: Any) -> dict[str, Any]:
    optimizers = [getattr(agent, name).optimizer for name in agent.trained]
    return {
        "policy": dict(agent.policy.state_dict()),
        "optimizers": [optimizer.state_dict()["state"] for optimizer in optimizers],
        "temperature": getattr(agent, "log_ent_coef", None),
    }


def make_dqn(more: dict[str, Any] = NOTHING, **given: Any) -> Any:
    topology = {"method": "set", "density": 0.4, "first_update": 8, "last_update": 60, "update_interval": 9}
    agent = DSDQN(
        "MlpPolicy",
        "CartPole-v1",
        topology=topology | more,
        policy_kwargs={"net_arch": [24, 24]},
        learning_starts=40,
        train_freq=1,
        batch_size=BATCH,
        max_grad_norm=0.1,
        seed=0,
        **given,
    )
    return agent.learn(45, log_interval=None)


def put_new_data(network: nn.Module) -> None:
    for parameter in network.parameters():
        parameter.data = parameter.data * 0.5


def put_new_moments(optimizer: torch.optim.Optimizer) -> None:
    optimizer.load_state_dict(deepcopy(optimizer.state_dict()))
    for state in optimizer.state.values():
        state["exp_avg"].mul_(0.5)


def put_new_optimizer(network: Any) -> None:
    network.optimizer = optim.FusedAdam(network.parameters(), lr=1e-2)


def replace_layer(network: Any) -> None:
    network[-1] = nn.Linear(network[-1].in_features, network[-1].out_features)


def put_new_replay(agent: Any) -> None:
    old = agent.replay_buffer
    agent.replay_buffer = ReplayBuffer(100, agent.observation_space, agent.action_space, "cpu")
    for name in ("observations", "next_observations", "actions", "rewards", "dones", "timeouts"):
        getattr(agent.replay_buffer, name)[:40] = getattr(old, name)[:40][::-1]
    agent.replay_buffer.pos = 40


CHANGES: dict[str, Callable[[Any], object]] = {
    "nothing": lambda agent: None,
    "tau": lambda agent: setattr(agent, "tau", 0.5),
    "gamma": lambda agent: setattr(agent, "gamma", 0.5),
    "learning rate": lambda agent: setattr(agent, "lr_schedule", lambda left: 1e-2),
    "an optimizer's epsilon": lambda agent: agent.critic.optimizer.param_groups[0].update(eps=0.1),
    "a variant of Adam": lambda agent: agent.critic.optimizer.param_groups[0].update(maximize=True),
    "the loss's weight": lambda agent: setattr(agent, "critic_loss_scale", 3.0),
    "noise of the targets": lambda agent: setattr(agent, "target_policy_noise", 0.5),
    "critics of the targets": lambda agent: setattr(agent, "critic_subset", 1),
    "critics of the actor": lambda agent: setattr(agent, "actor_q", "mean"),
    "delay": lambda agent: setattr(agent, "policy_delay", 3),
    "interval of the targets": lambda agent: setattr(agent, "target_update_interval", 3),
    "entropy": lambda agent: setattr(agent, "target_entropy", -3.0),
    "a fixed temperature": lambda agent: vars(agent).update(
        log_ent_coef=None, ent_coef_optimizer=None, ent_coef_tensor=torch.tensor(0.7)
    ),
    "weights in place": lambda agent: [parameter.data.mul_(0.5) for parameter in agent.critic.parameters()],
    "memory of weights": lambda agent: put_new_data(agent.critic),
    "memory of a target's weights": lambda agent: put_new_data(agent.critic_target),
    "state of an optimizer": lambda agent: put_new_moments(agent.actor.optimizer),
    "an optimizer": lambda agent: put_new_optimizer(agent.critic),
    "another optimizer": lambda agent: setattr(
        agent.actor, "optimizer", torch.optim.SGD(agent.actor.parameters(), lr=1e-2)
    ),
    "more to train": lambda agent: agent.critic.optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))]}),
    "a hook": lambda agent: agent.critic.optimizer.register_step_post_hook(
        lambda optimizer, *given: [group["params"][0].data.mul_(0.9) for group in optimizer.param_groups]
    ),
    "gradients": lambda agent: agent.critic.optimizer.zero_grad(),
    "what is trained": lambda agent: next(agent.critic.parameters()).requires_grad_(False),
    "a layer": lambda agent: replace_layer(agent.critic.q_networks[0]),
    "the replay": put_new_replay,
    "batch": lambda agent: setattr(agent, "batch_size", 10),
    "rewards": lambda agent: agent.replay_buffer.rewards.__imul__(2),
    "connections": lambda agent: agent.evolver.rewire(next(iter(agent.evolver.layers))),
    "an event at every update": lambda agent: agent.evolver.replace_rule(
        deepcopy(agent.evolver.rule).__class__(**{**vars(agent.evolver.rule), "update_interval": 1})
    ),
    "threads": lambda agent: torch.set_num_threads(2),
}


@pytest.mark.usefixtures("thread_counts")
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", AGENTS)
def test_a_change_has_the_effect_that_it_has_without_recordings(kind: str, change: str) -> None:
    found = []
    for repeats in (True, False):
        torch.set_num_threads(1)
        agent = make(kind)
        for update in range(24):
            if update == BETWEEN_EVENTS:
                assert not repeats or len(agent._repeated._recordings) > 0
                CHANGES[change](agent)
            if not repeats:
                agent._repeated.forget()
            agent.train(1, agent.batch_size)
        found.append(learned(agent))
    assert_equal_trees(*found)


OF_DQN: dict[str, Callable[[Any], object]] = {
    "nothing": lambda agent: None,
    "bound": lambda agent: setattr(agent, "max_grad_norm", 0.01),
    "no bound": lambda agent: setattr(agent, "max_grad_norm", None),
    "who chooses": lambda agent: setattr(agent, "double_q", True),
    "loss": lambda agent: setattr(agent, "loss", "squared"),
    "an optimizer": lambda agent: setattr(agent.policy, "optimizer", optim.FusedAdam(agent.q_net.parameters(), lr=1)),
    "gradients": lambda agent: agent.policy.optimizer.zero_grad(),
    "a target": lambda agent: agent._sync_targets(0.5),
    "memory of weights": lambda agent: put_new_data(agent.q_net),
}


@pytest.mark.parametrize("change", OF_DQN)
def test_a_change_of_dqn_has_the_effect_that_it_has_without_recordings(change: str) -> None:
    found = []
    for repeats in (True, False):
        agent = make_dqn()
        for update in range(24):
            if update == BETWEEN_EVENTS:
                assert not repeats or len(agent._repeated._recordings) > 0
                OF_DQN[change](agent)
            if not repeats:
                agent._repeated.forget()
            agent.train(1, BATCH)
        found.append((dict(agent.policy.state_dict()), agent.policy.optimizer.state_dict()["state"]))
    assert_equal_trees(*found)


@pytest.mark.parametrize("kind", AGENTS)
def test_learning_repeats_updates(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make(kind)
    asked = []
    update = agent._sample_and_update
    monkeypatch.setattr(agent, "_sample_and_update", lambda size: asked.append(agent._n_updates) or update(size))
    agent.learn(40, reset_num_timesteps=False, log_interval=None)
    # An event at every ninth update (a delayed actor's is one later), and what is different after it.
    assert len(asked) < 30


@pytest.mark.parametrize("kind", AGENTS)
def test_pulls_at_weights_are_repeated(kind: str) -> None:
    found = []
    for repeats, pull in ((True, 0.5), (False, 0.5), (True, 0.0)):
        agent = make(kind, {"method": "deepr", "weight_l1": pull, "weight_noise": pull})
        for _ in range(24):
            if not repeats:
                agent._repeated.forget()
            agent.train(1, agent.batch_size)
        found.append(learned(agent))
    assert_equal_trees(found[0], found[1])
    with pytest.raises(AssertionError):
        assert_equal_trees(found[0], found[2])


def test_a_copy_of_an_agent_learns_apart() -> None:
    agent = make("ds_td3")
    agent.train(4, BATCH)
    before = deepcopy(agent.policy.state_dict())
    copied = deepcopy(agent)
    copied.train(4, BATCH)
    assert_equal_trees(dict(agent.policy.state_dict()), dict(before))
    assert not torch.equal(next(copied.critic.parameters()), next(agent.critic.parameters()))
