"""What is measured of the networks of each agent, and that measuring changes nothing."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from support.envs import env_for
from support.trees import assert_equal_trees
from torch import nn

from sparserl.agents.agent_state import agent_state, generator_state
from sparserl.agents.learning_observer import MEASURES, OF_FEATURES, LearningObserver, of_features
from sparserl.agents.probe import gradients_on, places_in
from sparserl.agents.replay.batch import transitions_at
from sparserl.agents.table import AGENTS, make_agent
from sparserl.layers import SparseMLP
from sparserl.metrics.features import condition, stable_rank
from sparserl.topology.config import TopologyConfig

HIDDEN = (12, 10)
ROLLOUTS: dict[str, Any] = {"n_steps": 25, "batch_size": 5, "n_epochs": 2}
REPLAY: dict[str, Any] = {"learning_starts": 20, "batch_size": 16, "buffer_size": 500}
SIMBA: dict[str, Any] = {
    "network": "simba",
    **{"actor_width": 10, "actor_blocks": 1, "critic_width": 10, "critic_blocks": 1},
}


def learned(algo: str, steps: int = 50, **options: Any) -> Any:
    spec = AGENTS[algo]
    names = spec.config.__dataclass_fields__
    sizes = {name: value for name, value in {**REPLAY, **ROLLOUTS}.items() if name in names}
    if algo.endswith("a2c"):
        sizes["n_steps"] = 25
    topology = {"method": "rigl", "density": 0.4, "update_interval": 10, "gradient_batches": 3}
    agent = make_agent(
        algo,
        spec.config(
            **({} if "network" in options else {"net_arch": HIDDEN}),
            **({"lstm_hidden": 8} if "lstm_hidden" in names else {}),
            **sizes,
            **options,
        ),
        TopologyConfig(**topology) if spec.sparse else TopologyConfig(method="dense"),
        env_for(spec.agent),
        seed=0,
    )
    return agent.learn(steps)


@pytest.mark.parametrize(
    ("algo", "options"), [*((algo, {}) for algo in AGENTS), ("ds_sac", SIMBA)], ids=[*AGENTS, "simba"]
)
def test_every_agent_is_measured_and_stays_as_it_is(algo: str, options: dict[str, Any]) -> None:
    agent = learned(algo, **options)
    state, generators = copy.deepcopy(agent_state(agent)), copy.deepcopy(generator_state())
    gradients = [None if one.grad is None else one.grad.clone() for one in agent.policy.parameters()]
    observer = LearningObserver(agent)
    found = observer.measures()
    assert observer.measures() == found
    assert_equal_trees(generators, generator_state())
    assert_equal_trees(state, agent_state(agent))
    for parameter, gradient in zip(agent.policy.parameters(), gradients, strict=True):
        assert gradient is None if parameter.grad is None else torch.equal(parameter.grad, gradient)
    assert {name: set(of) for name, of in found.items()} == {key: set(MEASURES) for key in agent.trained}
    for of in found.values():
        assert 1.0 <= of["stable_rank"] <= min(HIDDEN)
        assert 1.0 <= of["condition"] <= 1 / (25 * 1.1e-7)
        assert 0.0 <= of["dormant"] < 1.0
        assert of["weight_norm"] > 0.0
        assert of["gradient_norm"] > 0.0


def test_features_of_residual_blocks_are_what_the_head_reads_behind_its_norm() -> None:
    agent = learned("ds_sac", **SIMBA)
    found, probe = LearningObserver(agent).measures(), agent.probe()
    *_, head = agent.actor.pi
    read: list[torch.Tensor] = []
    hook = head.before.register_forward_hook(lambda module, inputs, outputs: read.append(outputs))
    with torch.no_grad():
        list(agent.actor.pi.levels(probe.inputs["actor"]))
    hook.remove()
    assert found["actor"]["stable_rank"] == pytest.approx(stable_rank(read[-1].numpy()), rel=1e-5)


def hidden_of(sequential: nn.Module, x: torch.Tensor) -> list[np.ndarray]:
    """Activations of each hidden layer of a dense network of torch's."""
    found = []
    for module in list(sequential.children())[:-1]:
        x = module(x)
        if not isinstance(module, nn.Linear):
            found.append(x.detach().numpy())
    return found


def test_of_several_critics_the_mean_is_said() -> None:
    agent = learned("td3")
    found, probe = LearningObserver(agent).measures(), agent.probe()
    features = [hidden_of(critic, probe.inputs["critic"]) for critic in agent.critic.q_networks]
    for name, of in (("stable_rank", stable_rank), ("condition", condition)):
        assert found["critic"][name] == pytest.approx(np.mean([of(one[-1]) for one in features]), rel=1e-4)
    dormant = []
    for layers in features:
        active = [np.abs(layer).mean(axis=0) for layer in layers]
        dormant.append(np.concatenate([one / one.mean() <= 0.1 for one in active]).mean())
    assert found["critic"]["dormant"] == pytest.approx(np.mean(dormant))
    weights = torch.cat([one.detach().flatten() for one in agent.critic.parameters()])
    assert found["critic"]["weight_norm"] == pytest.approx(weights.norm().item(), rel=1e-6)


@pytest.mark.parametrize("algo", ["ds_sac", "ds_ppo"])
def test_gradients_are_those_of_all_weights_and_biases(algo: str) -> None:
    agent = learned(algo)
    found, probe = LearningObserver(agent).measures(), agent.probe()
    with gradients_on(probe, agent.networks, agent.evolver.layers):
        for group, network in agent.networks.items():
            # A standard deviation that is a parameter counts; what has no gradient does not.
            gradients = [one.grad.flatten() for one in network.parameters() if one.grad is not None]
            assert len(gradients) >= 4
            assert found[group]["gradient_norm"] == pytest.approx(torch.cat(gradients).norm().item(), rel=1e-5)


def test_gradients_of_dense_agents_are_those_of_their_losses() -> None:
    """Of TD3 both losses, written down again; of DQN Huber's."""
    agent = learned("td3", policy_delay=3)
    found = LearningObserver(agent).measures()
    rows = places_in(agent.replay_buffer, 0, agent._n_updates)[0]
    batch = transitions_at(agent.replay_buffer, rows, agent.gamma)
    observations, actions, following, dones, rewards = (
        torch.from_numpy(getattr(batch, name))
        for name in ("observations", "actions", "next_observations", "dones", "rewards")
    )
    with torch.no_grad(), torch.random.fork_rng():
        noise = torch.empty_like(actions).normal_(0, agent.target_policy_noise)
        noise = noise.clamp(-agent.target_noise_clip, agent.target_noise_clip)
        values = torch.cat(agent.critic_target(following, (agent.actor_target(following) + noise).clamp(-1, 1)), dim=1)
        targets = rewards + agent.gamma * (1 - dones) * values.min(dim=1, keepdim=True)[0]
    losses = {
        "critic": sum((value - targets).square().mean() for value in agent.critic(observations, actions)),
        "actor": -agent.critic.q1_forward(observations, agent.actor(observations)).mean(),
    }
    for group, loss in losses.items():
        gradients = torch.autograd.grad(loss, list(agent.networks[group].parameters()))
        norm = torch.cat([one.flatten() for one in gradients]).norm().item()
        assert found[group]["gradient_norm"] == pytest.approx(norm, rel=1e-5)

    agent = learned("dqn", max_grad_norm=1e-3)  # by which it is not clipped
    found = LearningObserver(agent).measures()
    rows = places_in(agent.replay_buffer, 0, agent._n_updates)[0]
    batch = transitions_at(agent.replay_buffer, rows, agent.gamma)
    best = agent.q_net_target(torch.from_numpy(batch.next_observations)).max(dim=1, keepdim=True)[0].detach()
    targets = torch.from_numpy(batch.rewards) + agent.gamma * (1 - torch.from_numpy(batch.dones)) * best
    taken = agent.q_net(torch.from_numpy(batch.observations)).gather(1, torch.from_numpy(batch.actions).long())
    gradients = torch.autograd.grad(nn.functional.smooth_l1_loss(taken, targets), list(agent.q_net.parameters()))
    norm = torch.cat([one.flatten() for one in gradients]).norm().item()
    assert found["q_net"]["gradient_norm"] == pytest.approx(norm, rel=1e-5)


def test_before_anything_was_met_weights_alone_are_known() -> None:
    agent = learned("ds_td3", 0)
    assert {name: set(of) for name, of in LearningObserver(agent).measures().items()} == {
        "actor": {"weight_norm"},
        "critic": {"weight_norm"},
    }


def linear(*rows: list[float]) -> nn.Linear:
    layer = nn.Linear(len(rows[0]), len(rows), bias=False)
    layer.weight = nn.Parameter(torch.tensor(rows))
    return layer


X = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])


def test_features_worked_by_hand() -> None:
    hidden = linear([1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0], [0.0, 0.0])
    network = SparseMLP([hidden, linear([1.0] * 5)])
    # Features are diagonal: 1, 1, 2, 2, and a neuron that is silent. The Gram matrix of what is centred is
    # diag(1, 1, 4, 4) - s s' / 4 with s = (1, 1, 2, 2): eigenvalues 1, 4, and 0 and 2.5 of [[0.5, -1], [-1, 2]].
    found = of_features([network], X)
    assert found["stable_rank"] == pytest.approx((1 + 1 + 4 + 4) / 4)
    assert found["condition"] == pytest.approx(2.0)
    assert found["dormant"] == 1 / 5
    assert set(found) == set(OF_FEATURES)


def test_what_is_not_defined_is_left_out() -> None:
    silent = SparseMLP([linear([0.0, 0.0], [0.0, 0.0]), linear([1.0, 1.0])])
    assert of_features([silent], X) == {"dormant": 1.0}
    assert of_features([SparseMLP([linear([1.0, 1.0])])], X) == {}  # no hidden layer
    busy = SparseMLP([linear([1.0, 0.0]), linear([1.0])])
    both = of_features([silent, busy], X)
    assert both["dormant"] == 0.5
    assert both["stable_rank"] == 1.0
    assert not any(math.isnan(value) for value in both.values())
