"""DS-PPO and DS-A2C: Stable-Baselines3's update to the bit, on networks that are sparse and rewire around its steps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import stable_baselines3
import torch
from gymnasium import spaces
from oracle.masked_dense import dense_weight
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv
from support.envs import Choices, FunctionEnv
from support.trees import assert_equal_trees

from sparserl.agents import DSA2C, DSPPO
from sparserl.agents.dense import A2C, PPO
from sparserl.agents.observer import TopologyObserver
from sparserl.errors import ConfigError, TopologyError
from sparserl.layers.linear import linear_layers
from sparserl.metrics.cost import bytes_optimizer, layer_costs

SIZES: dict[Any, dict[str, Any]] = {
    DSPPO: {"n_steps": 16, "batch_size": 8, "n_epochs": 2},  # 4 updates after a rollout
    DSA2C: {"n_steps": 4},
}
ORIGINALS: dict[Any, Any] = {DSPPO: stable_baselines3.PPO, DSA2C: stable_baselines3.A2C}
STATIC = {"method": "static", "density": 0.3}
RIGL = {"method": "rigl", "density": 0.3, "first_update": 4, "update_interval": 100, "last_update": 1000}
both = pytest.mark.parametrize("kind", [DSPPO, DSA2C])


def make(kind: Any, policy: Any = "MlpPolicy", env: Any = None, **options: Any) -> Any:
    small = {} if policy is ActorCriticPolicy else {"topology": STATIC, "policy_kwargs": {"net_arch": [12, 10]}}
    return kind(policy, env or FunctionEnv(), **{"seed": 0, **SIZES[kind], **small, **options})


# --- the update is Stable-Baselines3's --------------------------------------------------------------


@both
@pytest.mark.parametrize("envs", [1, 3])
@pytest.mark.parametrize("actions", [None, spaces.Discrete(3)])
def test_with_a_dense_policy_it_is_stable_baselines3s_to_the_bit(kind: Any, envs: int, actions: Any) -> None:
    def env() -> Any:
        made = FunctionEnv()
        if actions is not None:
            made.action_space, step = actions, made.step
            made.step = lambda action: step(np.full(2, float(action) - 1.0))  # type: ignore[method-assign]
        return made

    def learned(agent: Any) -> Any:
        options = {} if agent is kind else {"device": "cpu"}
        return agent(ActorCriticPolicy, DummyVecEnv([env] * envs), seed=0, **SIZES[kind], **options).learn(120)

    ours, theirs = learned(kind), learned(ORIGINALS[kind])
    assert_equal_trees(dict(ours.policy.state_dict()), dict(theirs.policy.state_dict()))
    assert_equal_trees(ours.policy.optimizer.state_dict(), theirs.policy.optimizer.state_dict())
    assert (ours._n_updates, ours.topology.method) == (theirs._n_updates, "dense")


@pytest.mark.parametrize(("dense", "kind"), [(PPO, DSPPO), (A2C, DSA2C)])
def test_dense_twins_are_stable_baselines3s_to_the_bit(dense: Any, kind: Any) -> None:
    ours = dense("MlpPolicy", FunctionEnv(), seed=0, device="cpu", **SIZES[kind]).learn(100)
    theirs = ORIGINALS[kind]("MlpPolicy", FunctionEnv(), seed=0, device="cpu", **SIZES[kind]).learn(100)
    assert_equal_trees(dict(ours.policy.state_dict()), dict(theirs.policy.state_dict()))


@both
@pytest.mark.parametrize("actions", [None, spaces.Discrete(4)])
def test_it_learns_as_dense_networks_whose_other_weights_are_held_at_0(kind: Any, actions: Any) -> None:
    """Stable-Baselines3's own agent on the same weights, with every gradient of an absent one set to 0."""
    env = Choices(actions or spaces.Box(-1.0, 1.0, (2,)))
    own = make(kind, env=env, topology={**STATIC, "actor_density": 0.5, "output_layer": "sparse"})
    twin = ORIGINALS[kind]("MlpPolicy", env, seed=0, device="cpu", policy_kwargs={"net_arch": [12, 10]}, **SIZES[kind])
    theirs = twin.policy.mlp_extractor
    pairs = [
        pair
        for chain, hidden, output in (
            (own.policy.action_net, theirs.policy_net, twin.policy.action_net),
            (own.policy.value_net, theirs.value_net, twin.policy.value_net),
        )
        for pair in zip(chain, [*(part for part in hidden if isinstance(part, torch.nn.Linear)), output], strict=True)
    ]
    for sparse, dense in pairs:
        weight, mask = dense_weight(sparse)
        dense.weight.data, dense.bias.data = weight, sparse.bias.detach().clone()
        dense.weight.register_hook(lambda gradient, mask=mask: gradient * mask)
    for agent in (own, twin):
        agent.set_random_seed(3)
        env.observation_space.seed(3)
        agent.learn(64)
    for sparse, dense in pairs:
        torch.testing.assert_close(dense_weight(sparse)[0], dense.weight.detach(), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(sparse.bias, dense.bias, rtol=1e-4, atol=1e-6)


@both
@pytest.mark.parametrize("actions", [spaces.MultiDiscrete([3, 2]), spaces.MultiBinary(3), spaces.Discrete(2)])
def test_every_kind_of_actions_is_chosen_and_learned(kind: Any, actions: Any) -> None:
    agent = make(kind, env=Choices(actions)).learn(32)
    action, _ = agent.predict(np.zeros(3, np.float32))
    assert actions.contains(np.asarray(action))
    outputs = {"MultiDiscrete": 5, "MultiBinary": 3, "Discrete": 2}[type(actions).__name__]
    assert linear_layers(agent.actor)["pi.2"].shape[0] == outputs


# --- networks ---------------------------------------------------------------------------------------


@both
def test_networks_are_sparse_by_themselves_and_nothing_dense_is_held(kind: Any) -> None:
    topology = {"method": "static", "density": 0.1, "critic_density": 0.2, "allocation": "uniform"}
    agent = make(kind, topology=topology, policy_kwargs={"net_arch": [50, 40]}).learn(16)
    densities = {name: layer.density for name, layer in agent.evolver.layers.items()}
    assert densities == pytest.approx(
        {"actor.pi.0": 0.1, "actor.pi.1": 0.1, "critic.vf.0": 0.2, "critic.vf.1": 0.2}, abs=1e-3
    )
    tensors = [*agent.policy.state_dict().values()]
    tensors += [slot for state in agent.policy.optimizer.state.values() for slot in state.values()]
    assert max(tensor.numel() for tensor in tensors) < 50 * 40 / 4
    moments = bytes_optimizer(map(agent.optimizer_of, agent.trained))  # one optimizer, counted once
    assert moments < 2.1 * 4 * sum(parameter.numel() for parameter in agent.policy.parameters())


def test_first_weights_of_a_neuron_are_together_as_large_as_in_orthogonal_matrices() -> None:
    wide = {"net_arch": [300, 200]}
    topology = {"method": "static", "density": 0.3, "output_layer": "sparse", "allocation": "uniform"}
    agent = make(DSPPO, env=FunctionEnv(n_obs=60, n_action=40), topology=topology, policy_kwargs=wide)
    dense = stable_baselines3.PPO("MlpPolicy", FunctionEnv(n_obs=60, n_action=40), policy_kwargs=wide, device="cpu")
    theirs = [*dense.policy.mlp_extractor.policy_net, dense.policy.action_net]
    weights = [part.weight for part in theirs if isinstance(part, torch.nn.Linear)]
    for layer, weight in zip(agent.policy.action_net, weights, strict=True):
        matrix = torch.zeros(layer.n_out, layer.n_in)
        matrix[layer.topology.outputs, layer.topology.inputs] = layer.values.detach()
        assert matrix.norm(dim=1).mean().item() == pytest.approx(weight.norm(dim=1).mean().item(), rel=0.05)
        fan_in = (matrix != 0).sum(dim=1)
        few, many = fan_in < fan_in.float().mean(), fan_in > fan_in.float().mean()
        assert matrix[few].norm(dim=1).mean().item() == pytest.approx(matrix[many].norm(dim=1).mean().item(), rel=0.05)
        assert not layer.bias.any()
    assert agent.policy.value_net[-1].values.norm().item() == pytest.approx(1.0, rel=0.4)
    plain = make(DSPPO, topology=STATIC, policy_kwargs={"net_arch": [300, 200], "ortho_init": False})
    assert plain.policy.action_net[1].values.abs().max().item() == pytest.approx(1 / math.sqrt(300), rel=0.01)
    assert plain.policy.action_net[1].bias.any()


def test_first_weights_that_the_topology_asks_for_keep_their_scale() -> None:
    """But for the last layer of the actor, whose means begin near 0 all the same."""
    topology = {**STATIC, "output_layer": "sparse", "initial_value": "normal", "allocation": "uniform"}
    agent = make(DSPPO, env=FunctionEnv(n_action=40), topology=topology, policy_kwargs={"net_arch": [300, 200]})
    scales = [layer.values.std().item() for layer in agent.policy.action_net]
    assert scales == pytest.approx([0.05, 0.05, 0.0005], rel=0.1)


def test_dense_layers_are_orthogonal() -> None:
    agent = make(DSPPO, topology={"method": "dense"})
    for weight, gain in ((agent.policy.action_net[0].weight, math.sqrt(2)), (agent.policy.action_net[2].weight, 0.01)):
        small = weight if weight.shape[0] < weight.shape[1] else weight.T
        torch.testing.assert_close(small @ small.T, gain**2 * torch.eye(len(small)), rtol=1e-4, atol=1e-5)


# --- events -----------------------------------------------------------------------------------------


@both
def test_events_fall_after_the_optimizer_steps_that_are_due(kind: Any) -> None:
    topology = {"method": "set", "density": 0.3, "update_interval": 3, "first_update": 5, "last_update": 100}
    agent = make(kind, topology=topology).learn(64)
    assert agent.updates == agent.optimizer_steps == 16
    updates = [event.update for event in agent.evolver.events if event.kind == "rewire"]
    layers = len(agent.evolver.layers)
    assert updates == [update for update in (5, 8, 11, 14) for _ in range(layers)]
    moments = agent.policy.optimizer.state[agent.policy.action_net[1].values]
    assert all(slot.numel() in (1, agent.policy.action_net[1].nnz) for slot in moments.values())


@pytest.mark.parametrize("replaces_step", [True, False])
@pytest.mark.parametrize("kind", [DSPPO, DSA2C])
def test_an_event_may_ask_for_the_gradient_of_the_step_that_it_replaces(kind: Any, replaces_step: bool) -> None:
    topology = {"method": "mest_em", "density": 0.5, "gradient_weight": 0.5, "update_interval": 2}
    agent = make(kind, topology={**topology, "replaces_step": replaces_step}).learn(32)
    assert sum(event.dropped for event in agent.evolver.events) > 0


def test_an_event_in_place_of_a_step_moves_no_weight() -> None:
    """And the critic, whose rewiring has been stopped, makes its step."""
    agent = make(DSPPO, topology={**RIGL, "replaces_step": True, "weight_l1": 0.1})
    agent.evolver.stop("critic")
    steps: list[tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]] = []
    take = agent._step

    def watched(step: Any) -> None:
        before = {name: tensor.clone() for name, tensor in agent.policy.state_dict().items()}
        take(step)
        steps.append((before, dict(agent.policy.state_dict())))

    agent._step = watched
    agent.learn(16)
    [due] = [event.update for event in agent.evolver.events if event.layer == "actor.pi.1" and event.kind == "rewire"]
    assert due == 4
    for number, (before, after) in enumerate(steps, 1):
        moved = {
            name for name in after if name.endswith(("bias", "log_std")) and not torch.equal(before[name], after[name])
        }
        assert any("value_net" in name for name in moved)
        assert any("action_net" in name for name in moved) == ("log_std" in moved) == (number != due)
    before, after = steps[due - 1]
    name = "action_net.1.values"
    assert np.isin(after[name].numpy(), [*before[name].numpy(), 0.0]).all()  # survivors, and connections at 0


def test_growth_by_gradient_sees_the_minibatch_of_the_event_alone() -> None:
    agent = make(DSPPO, topology=RIGL)
    seen = []
    layer = agent.policy.action_net[1]
    view = type(layer).view

    def watched() -> Any:
        seen.append([x.shape[1] for x, _ in layer.activation_pairs])
        return view(layer)

    layer.view = watched
    agent.learn(16)
    assert seen == [[8]]


@both
def test_operations_of_updates_are_counted_by_the_formula(kind: Any) -> None:
    for topology in (STATIC, {"method": "dense"}):
        agent = make(kind, topology=topology).learn(48)
        samples = 48 * getattr(agent, "n_epochs", 1)
        networks = [[layer.weights for layer in layer_costs(network)] for network in agent.networks.values()]
        # Forward, gradients of weights, and of the inputs of all layers but the first.
        assert agent.flops.total == samples * 2 * sum(3 * sum(weights) - weights[0] for weights in networks)


@both
def test_neurons_are_recycled_by_their_activity_in_the_rollout(kind: Any) -> None:
    topology = {**STATIC, "recycle_interval": 4, "recycle_threshold": 0.9}
    agent = make(kind, topology=topology).learn(16)
    assert sum(agent.recycler.recycled_total.values()) > 0
    assert TopologyObserver(agent).metrics()["topology/actor.pi.0/recycled_total"] >= 0


def test_a_schedule_by_the_length_of_the_run_counts_gradient_updates() -> None:
    topology = {"method": "gmp", "density": 0.2, "update_interval": 1, "allocation": "uniform"}
    agent = make(DSPPO, topology=topology)
    agent.learn(10 * 16 - 7)  # ten rollouts, of 4 updates each
    assert (agent.topology.first_update, agent.topology.last_update) == (8, 32)
    assert max(layer.density for layer in agent.evolver.layers.values()) < 0.23


# --- refusals ---------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "state-dependent exploration": ({"use_sde": True}, "sparse policies know no state-dependent exploration"),
    "an optimizer of whole matrices": (
        {"policy_kwargs": {"optimizer_class": torch.optim.LBFGS, "optimizer_kwargs": {}}},
        "LBFGS does not move each weight by itself",
    ),
    "recycling by relevance": (
        {"topology": {**STATIC, "recycle_interval": 4, "recycle_by": "relevance"}},
        "topology.recycle_by relevance needs losses that can be formed again",
    ),
    "a linear policy": ({"policy_kwargs": {"net_arch": []}}, "a linear policy has output layers alone"),
    "a batch to judge by": ({"topology": {"method": "snip", "density": 0.5}}, "judges weights by a batch"),
    "a topology for a dense policy": (
        {"policy": ActorCriticPolicy, "topology": STATIC},
        "the policy ActorCriticPolicy is dense and takes no topology",
    ),
}


@both
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_in_one_line(kind: Any, name: str) -> None:
    options, message = REFUSED[name]
    with pytest.raises((ConfigError, TopologyError), match=message) as refusal:
        make(kind, **options)
    assert "\n" not in str(refusal.value)


def test_advantages_of_one_env_step_are_not_normalised() -> None:
    with pytest.raises(ConfigError, match=r"of 1 env steps leaves a batch of 1, whose advantage .*: raise n_steps, or"):
        make(DSA2C, n_steps=1, normalize_advantage=True)
    make(DSA2C, n_steps=1, env=DummyVecEnv([FunctionEnv] * 2), normalize_advantage=True).learn(4)
    with pytest.warns(UserWarning, match="truncated mini-batch of size 1"):  # which Stable-Baselines3 takes as they are
        agent = make(DSPPO, n_steps=17).learn(17)
    assert agent.updates == agent.updates_per_rollout == 2 * 3


class Halves(torch.optim.SGD):
    """Keeps a number for every other weight."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step(closure)
        for parameter in self.param_groups[0]["params"]:
            self.state[parameter]["halves"] = torch.zeros(parameter.numel() // 2)


@both
def test_an_optimizer_that_keeps_something_else_of_weights_is_refused_at_the_first_event(kind: Any) -> None:
    topology = {"method": "set", "density": 0.3, "first_update": 2, "update_interval": 2}
    agent = make(kind, topology=topology, policy_kwargs={"net_arch": [12, 10], "optimizer_class": Halves})
    message = r"^Halves keeps 'halves' of shape \(10,\), which is not per .* as Adam,"
    with pytest.raises(TopologyError, match=message) as refusal:
        agent.learn(32)
    assert "\n" not in str(refusal.value)


def test_a_number_of_updates_that_nobody_knows_is_refused_where_it_is_needed() -> None:
    agent = make(DSPPO, target_kl=0.01, topology={"method": "gmp", "density": 0.2})
    with pytest.raises(TopologyError, match=r"which is not known beforehand with `target_kl`: leave it out, or give"):
        agent.learn(32)
    ends = {"first_update": 2, "last_update": 6, "update_interval": 2}
    agent = make(DSPPO, target_kl=1e-9, topology={"method": "gmp", "density": 0.2, **ends}).learn(64)
    assert 0 < agent.updates < 16


def test_a_variance_that_is_not_defined_is_not_logged() -> None:
    agent = make(DSA2C, n_steps=1)
    agent.learn(8, log_interval=None)
    assert "train/value_loss" in agent.logger.name_to_value
    assert "train/explained_variance" not in agent.logger.name_to_value
