"""What agents count of their own products, against the formulas of an update."""

from __future__ import annotations

from typing import Any

import pytest
import stable_baselines3
import torch
from oracle import update_flops
from stable_baselines3.sac.policies import SACPolicy
from stable_baselines3.td3.policies import TD3Policy
from support.envs import ChoiceEnv, FunctionEnv
from support.networks import mlp
from support.trees import assert_equal_trees
from torch import nn

from sparserl.agents import DSSAC, DSTD3
from sparserl.agents.cost_meter import CostMeter
from sparserl.agents.critics_config import SACConfig, TD3Config
from sparserl.agents.dense import SAC, TD3
from sparserl.agents.table import AGENTS, make_agent
from sparserl.kernels.flops import FlopCounter, counting
from sparserl.layers import sparse_mlp
from sparserl.metrics import cost
from sparserl.topology.config import TopologyConfig

SIZES: dict[str, Any] = {"net_arch": (8, 8), "learning_starts": 10, "batch_size": 4, "buffer_size": 100}


def made(algo: str, topology: dict[str, Any] | None = None, **options: Any) -> Any:
    config = TD3Config if algo.endswith("td3") else SACConfig
    dense = {} if algo.startswith("ds_") else {"method": "dense"}
    return make_agent(algo, config(**SIZES, **options), TopologyConfig(**(topology or dense)), FunctionEnv(), seed=0)


def test_the_formulas_worked_by_hand() -> None:
    actor, critic = mlp(3, 4, 2), mlp(5, 4, 1)  # 12 + 8 and 20 + 4 weights
    targets = [actor, critic, critic]
    of_critics, of_actor = update_flops.update_flops(
        actor, [critic, critic], targets, [critic], 10, critic_gradients=True
    )
    # Targets: one forward pass each. Critics: forward, weight gradient, input gradient of all layers but the first.
    assert of_critics == 10 * 2 * ((20 + 24 + 24) + 2 * (24 + 24 + 4))
    # Actor: the same three. Through the first critic: forward, weight gradient, input gradient of every layer.
    assert of_actor == 10 * 2 * ((20 + 20 + 8) + (24 + 24 + 24))


@pytest.mark.parametrize("algo", ["td3", "sac", "ds_td3", "ds_sac"])
@pytest.mark.parametrize("rounds", [1, 3])
def test_every_update_is_counted_by_the_formula(algo: str, rounds: int) -> None:
    delay = {} if algo == "sac" else {"policy_delay": 3}
    topology = {"method": "static", "density": 0.4} if algo.startswith("ds_") else None
    agent = made(algo, topology, train_freq=rounds, gradient_steps=-1, **delay)
    of_critics, of_actor = update_flops.of_agent(agent)
    meter = CostMeter(agent)
    agent.learn(40)  # acting, also at random, counts nothing
    updates = agent._n_updates
    assert updates >= 30
    actors = updates // agent.policy_delay if delay else updates
    assert meter.flops_train == updates * of_critics + actors * of_actor


@pytest.mark.parametrize("algo", ["ds_td3", "ds_sac"])
@pytest.mark.parametrize("actor_q", ["first", "min", "mean"])
def test_every_critic_is_counted_whoever_judges(algo: str, actor_q: str) -> None:
    options = {"n_critics": 5, "critic_subset": 2, "actor_q": actor_q, "policy_delay": 2, "gradient_steps": 2}
    agent = made(algo, {"method": "static", "density": 0.4}, **options)
    of_critics, of_actor = update_flops.of_agent(agent)
    agent.learn(20)
    assert agent._n_updates == 20
    assert agent.flops.total == 20 * of_critics + 10 * of_actor


@pytest.mark.parametrize("algo", ["dqn", "ds_dqn"])
def test_every_update_of_dqn_is_counted_by_the_formula(algo: str) -> None:
    sparse = algo == "ds_dqn"
    topology = TopologyConfig(**({"method": "static", "density": 0.4} if sparse else {"method": "dense"}))
    config = AGENTS[algo].config(**SIZES, **({"double_q": True} if sparse else {}))
    agent: Any = make_agent(algo, config, topology, ChoiceEnv(), seed=0)
    agent.learn(30)
    of_target = (2 if sparse else 1) * update_flops.product(agent.q_net)  # the online network chooses for it
    assert agent.flops.total == 20 * 4 * (of_target + update_flops.trained(agent.q_net))


def test_a_dense_policy_in_a_sparse_agent_is_counted_too() -> None:
    for kind, policy, of_the_actor in ((DSTD3, TD3Policy, 2), (DSSAC, SACPolicy, 5)):
        agent: Any = kind(policy, FunctionEnv(), policy_kwargs={"net_arch": [8]}, learning_starts=10, batch_size=4)
        agent.learn(15)
        of_critics, of_actor = update_flops.of_agent(agent)
        assert agent.flops.total == 5 * of_critics + of_the_actor * of_actor


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_networks_that_run_in_several_calls_are_counted_too(
    activation: type[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sparse_mlp, "JOINED_UP_TO", 0)
    agent = DSTD3(
        "MlpPolicy",
        FunctionEnv(),
        topology={"method": "static", "density": 0.4},
        policy_kwargs={"net_arch": [8, 8], "activation_fn": activation},
        learning_starts=10,
        batch_size=4,
        seed=0,
    )
    of_critics, of_actor = update_flops.of_agent(agent)
    critics = list(agent.critic.q_networks)
    # Autograd goes on to the inputs, and forms weight gradients of the critic's sparse layers on its way.
    of_critics += 4 * 2 * sum(network[0].nnz for network in critics)
    of_actor += 4 * 2 * (agent.actor.mu[0].nnz + critics[0][0].nnz + critics[0][1].nnz)
    agent.learn(15)
    assert agent.flops.total == 5 * of_critics + 2 * of_actor


@pytest.mark.parametrize("batches", [1, 3])
def test_growth_by_gradient_counts_the_dense_gradient_of_each_batch(batches: int) -> None:
    agent = made(
        "ds_td3",
        {"method": "rigl", "density": 0.4, "update_interval": 7, "last_update": 20, "gradient_batches": batches},
        policy_delay=1,
    )
    of_critics, of_actor = update_flops.of_agent(agent)  # rewiring keeps sizes
    agent.learn(35)
    grown = [event for event in agent.evolver.events if event.kind == "rewire"]
    assert len(grown) >= 2 * len(agent.evolver.layers)
    of_events = sum(batches * 2 * 4 * event.size for event in grown)
    assert agent.flops.total == 25 * (of_critics + of_actor) + of_events


def test_measuring_activity_is_not_counted() -> None:
    agent = made("ds_td3", {"method": "static", "recycle_interval": 3, "recycle_threshold": 0.9}, policy_delay=1)
    agent.learn(20)
    assert sum(agent.recycler.recycled_total.values())
    assert agent.flops.total == 10 * sum(update_flops.of_agent(agent))


def test_sizes_are_those_of_each_update() -> None:
    agent = made("ds_td3", {"method": "gmp", "density": 0.2, "update_interval": 4, "last_update": 12}, policy_delay=1)
    agent.bind_run_length(30)
    agent.learn(11)
    seen = [agent.flops.total]
    for _ in range(12):
        expected = sum(update_flops.of_agent(agent))
        before = agent.flops.total
        agent.train(1, 4)
        seen.append(agent.flops.total - before)
        if agent.evolver.events[-1].update != agent._n_updates:  # else the actor's step came after the critics shrank
            assert seen[-1] == expected
    assert len(set(seen)) > 3


@pytest.mark.parametrize("ours", [TD3, SAC])
def test_counting_changes_no_bit_of_a_dense_agent(ours: Any) -> None:
    sizes: dict[str, Any] = {"learning_starts": 10, "batch_size": 4, "seed": 0, "policy_kwargs": {"net_arch": [8]}}
    weights = []
    for kind in (ours, getattr(stable_baselines3, ours.__name__)):
        weights.append(kind("MlpPolicy", FunctionEnv(), device="cpu", **sizes).learn(30).policy.state_dict())
    assert_equal_trees(*map(dict, weights))


def test_what_is_done_outside_of_a_scope_or_in_another_counts_nothing() -> None:
    agent = made("ds_td3", {"method": "static"})
    counter = FlopCounter()
    with counting(counter):
        agent.policy.predict(torch.zeros(3).numpy())
        with counting(None):
            agent.policy.predict(torch.zeros(3).numpy())
    agent.policy.predict(torch.zeros(3).numpy())
    assert counter.total == 2 * cost.connections([agent.actor])
