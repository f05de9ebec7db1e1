"""An update is one call of compiled code, and gives what the same steps give one after the other."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from support.calls import watch_calls
from support.trees import assert_equal_trees

from sparserl.agents import DSDQN, DSSAC, DSTD3, DSTQC
from sparserl.agents.networks.heads import TaskHeads
from sparserl.envs import AppendTaskId
from sparserl.kernels import deferred as deferred_arrays
from sparserl.kernels import plan
from sparserl.kernels.program import Call
from sparserl.layers import fused_adam as optim
from sparserl.layers.fused_adam import FusedAdam

AGENTS = {"ds_td3": DSTD3, "ds_sac": DSSAC, "ds_dqn": DSDQN}
METHODS = {"ds_dqn": "set"}
"""Of agents that have no method of their name."""
UPDATES = 30
OF_THE_TEMPERATURE = 2
"""Steps of the call in which SAC's temperature is learned: Adam and its clock."""


class SquareLoss:
    """A loss of a user, written in NumPy."""

    seen: list[type]

    def _q_loss(self, q_values: Any, targets: Any) -> Any:
        return self._critic_loss(q_values, targets)

    def _critic_loss(self, q_values: Any, targets: Any) -> Any:
        self.seen = [type(q_values), type(targets)]
        errors = q_values - targets
        return (errors**2).mean(axis=1).sum(), errors * np.float32(2 / len(targets))


def make(kind: str, *more: type, **topology: Any) -> Any:
    own = type("Own", (*more, AGENTS[kind]), {})
    method = {
        "method": METHODS.get(kind, kind),
        "density": 0.4,
        "first_update": 5,
        "last_update": 25,
        "update_interval": 10,
    }
    discrete = kind == "ds_dqn"
    return own(
        "MlpPolicy",
        "CartPole-v1" if discrete else "Pendulum-v1",
        topology=method | topology,
        policy_kwargs={"net_arch": [24, 24]},
        learning_starts=40,
        batch_size=20,
        seed=0,
        **({"train_freq": 1, "target_update_interval": 7, "max_grad_norm": 0.1, "double_q": True} if discrete else {}),
    )


def learned(agent: Any) -> dict[str, Any]:
    """Learns; returns all that it has learned, with the moments of its optimizers."""
    agent.learn(40 + UPDATES, log_interval=None)
    moments = {name: agent.optimizer_of(name).state_dict()["state"] for name in agent.trained}
    return {"policy": dict(agent.policy.state_dict()), "moments": moments, "events": len(agent.evolver.events)}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    # A hook for all optimizers, as `sparsify` registers one, has the steps before it computed.
    monkeypatch.setattr(optim, "_hooks_of_all", {})
    return watch_calls(monkeypatch)


@pytest.mark.parametrize("kind", AGENTS)
@pytest.mark.parametrize("method", ["own", "rigl"])
def test_waiting_changes_no_bit(kind: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    topology = {} if method == "own" else {"method": method}
    waiting = learned(make(kind, **topology))
    assert waiting["events"] > 3
    own = make(kind, **topology)
    monkeypatch.setattr(own, "_waits", lambda: False)
    assert_equal_trees(learned(own), waiting)


@pytest.mark.parametrize("heads", [None, TaskHeads(2)], ids=["one output layer", "heads"])
@pytest.mark.parametrize("topology", [{"method": "dense"}, {}], ids=["dense", "sparse"])
@pytest.mark.parametrize("algo", [DSSAC, DSTD3, DSTQC])
def test_noise_that_is_drawn_later_is_not_that_of_earlier_actions(
    algo: type[Any], topology: dict[str, Any], heads: TaskHeads | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Dense networks, and heads, have what waits run in the middle of an update.
    learned_by = []
    for waits in (True, False):
        monkeypatch.setattr(deferred_arrays, "_free", deferred_arrays._Free())  # as in a new process
        env = gym.make("Pendulum-v1")
        own = {"net_arch": [24, 24], "heads": heads}
        agent = algo(
            "MlpPolicy",
            AppendTaskId(env, 0, 2) if heads else env,
            topology=topology,
            policy_kwargs=own,
            learning_starts=10,
            batch_size=8,
            seed=0,
        )
        if not waits:
            monkeypatch.setattr(agent, "_waits", lambda: False)
        agent.learn(16)
        learned_by.append(dict(agent.policy.state_dict()))
    assert_equal_trees(*learned_by)


@pytest.mark.usefixtures("thread_counts")
@pytest.mark.parametrize("kind", AGENTS)
def test_threads_change_no_bit_between_runs(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "PARALLEL_FROM", 0)
    torch.set_num_threads(2)
    assert_equal_trees(learned(make(kind)), learned(make(kind)))


@pytest.mark.usefixtures("thread_counts")
def test_a_number_of_threads_holds_from_the_next_update_on(calls: list[Call], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "PARALLEL_FROM", 0)
    agent = make("ds_td3", first_update=20)
    agent.learn(44, log_interval=None)
    for threads in (1, 2, 1):
        torch.set_num_threads(threads)
        calls.clear()
        agent.train(1, 20)
        assert max(call.shares for call in calls) == threads


@pytest.mark.parametrize("kind", AGENTS)
def test_an_update_without_an_event_is_one_call(kind: str, calls: list[Call]) -> None:
    agent = make(kind, first_update=20)
    agent.learn(44, log_interval=None)
    calls.clear()
    agent.train(2, 20)
    of_networks = [call for call in calls if len(call.steps) > OF_THE_TEMPERATURE]
    assert len(of_networks) == 2  # one for each update
    assert min(len(call.steps) for call in of_networks) > 8
    assert len(calls) - len(of_networks) == (2 if kind == "ds_sac" else 0)


@pytest.mark.parametrize("kind", AGENTS)
def test_a_loss_of_a_subclass_gets_arrays_and_runs_in_between(kind: str, calls: list[Call]) -> None:
    agent = make(kind, SquareLoss, first_update=20)
    agent.learn(44, log_interval=None)
    calls.clear()
    agent.train(1, 20)
    assert agent.seen == [np.ndarray, np.ndarray]
    assert len([call for call in calls if len(call.steps) > OF_THE_TEMPERATURE]) == 2
    if kind == "ds_td3":  # the same loss, in another order of sums
        ours, theirs = learned(make(kind))["policy"], learned(make(kind, SquareLoss))["policy"]
        for name, tensor in ours.items():
            torch.testing.assert_close(theirs[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["_step", "_sync_targets"])
def test_a_method_in_the_place_of_ours_finds_all_computed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make("ds_td3", first_update=20)
    agent.learn(45, log_interval=None)
    before = agent.critic.q_networks[0][1].values.detach().clone()
    method = getattr(agent, name)

    def looked_at_in_between(*given: Any) -> None:
        method(*given)
        changed.append(not torch.equal(agent.critic.q_networks[0][1].values, before))

    changed: list[bool] = []
    monkeypatch.setattr(agent, name, looked_at_in_between)
    agent.train(1, 20)
    assert changed[0]


def test_another_optimizer_finds_gradients_computed() -> None:
    agent = make("ds_td3")
    for name in agent.trained:
        network = getattr(agent, name)
        assert isinstance(network.optimizer, FusedAdam)
        network.optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    before = agent.critic.q_networks[0][1].bias.detach().clone()
    agent.learn(44, log_interval=None)
    after = agent.critic.q_networks[0][1].bias
    assert torch.isfinite(after).all()
    assert not torch.equal(after, before)
