"""DS-Recurrent-PPO: sb3-contrib's update on sparse LSTMs, what it remembers, and that memory is worth something."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from oracle.masked_recurrent import twin_of
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv
from support.envs import FunctionEnv
from support.trees import assert_equal_trees
from torch import nn

from sparserl.agents.agent_state import agent_state, generator_state, restore_agent
from sparserl.agents.ds_recurrent_ppo import DSRecurrentPPO
from sparserl.agents.networks.chains import chains_of_agent
from sparserl.agents.networks.recurrent import SparseRecurrentPolicy
from sparserl.agents.observer import TopologyObserver
from sparserl.agents.table import AGENTS, agent_spec
from sparserl.envs.wrappers.hidden_features import HideFeatures
from sparserl.errors import ConfigError
from sparserl.layers import SparseLSTM
from sparserl.layers.activity import dormant_fraction

SIZES: dict[str, Any] = {"n_steps": 16, "batch_size": 16, "n_epochs": 2, "seed": 0}
SMALL: dict[str, Any] = {"lstm_hidden_size": 8, "net_arch": [6]}


def make(policy: Any = "MlpPolicy", env: Any = None, **options: Any) -> Any:
    own: dict[str, Any] = {**SIZES, **options}
    if policy == "MlpPolicy":
        own = {"policy_kwargs": SMALL, "topology": {"method": "static", "density": 0.4}, **own}
    return DSRecurrentPPO(policy, env or FunctionEnv(), **own)


class Recall(gym.Env[Any, Any]):
    """Shows -1 or 1 at first and 0 for two steps; the action after that is right if it is the same, 0 for -1."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.sign, self.elapsed = int(self.np_random.integers(2)), 0
        return np.array([2.0 * self.sign - 1.0], np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.elapsed += 1
        over = self.elapsed == 3
        return np.zeros(1, np.float32), float(over and int(action) == self.sign), over, False, {}


def test_with_a_dense_policy_it_is_sb3_contribs_to_the_bit() -> None:
    envs = DummyVecEnv([FunctionEnv] * 2)
    ours = make("MlpLstmPolicy", envs, policy_kwargs=SMALL)
    assert isinstance(ours.policy, SparseRecurrentPolicy)
    dense: Any = RecurrentPPO.policy_aliases["MlpLstmPolicy"]
    ours = make(dense, DummyVecEnv([FunctionEnv] * 2), policy_kwargs=SMALL).learn(64)
    theirs = RecurrentPPO(dense, DummyVecEnv([FunctionEnv] * 2), device="cpu", policy_kwargs=SMALL, **SIZES).learn(64)
    assert_equal_trees(dict(ours.policy.state_dict()), dict(theirs.policy.state_dict()))
    # Two rollouts of 2 epochs of 2 batches, of 16 steps and more where sequences are padded; products of both networks.
    weights = 2 * (4 * 8 * 3 * 4 + 4 * 8 * 8 * 6 + 8 * 6 * 6) + 6 * (6 * 2 + 6)
    assert ours.flops.total >= 2 * 2 * 2 * 16 * weights
    assert ours.flops.total % weights == 0


def test_it_computes_what_torchs_lstm_does_with_masked_weights() -> None:
    policy = make().policy
    assert [type(layer).__name__ for layer in policy.lstm_actor.children()] == ["SparseLinear"] * 2
    x, starts = torch.randn(6, 3), torch.tensor([1.0, 0, 0, 0, 0, 0])
    states = tuple(torch.randn(1, 2, 8) for _ in range(2))
    for where in ([1.0, 0, 0, 1, 0, 0], [0.0] * 6, [0.0, 0, 1, 0, 0, 0]):
        starts = torch.tensor(where)
        outputs = [
            SparseRecurrentPolicy.__mro__[cls]._process_sequence(x, states, starts, lstm)  # type: ignore[attr-defined]
            for cls, lstm in ((0, policy.lstm_actor), (2, twin_of(policy.lstm_actor)))
        ]
        torch.testing.assert_close(outputs[0][0], outputs[1][0])
        torch.testing.assert_close(outputs[0][1], outputs[1][1])


def test_batches_whose_sequences_begin_with_an_episode_go_through_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, lengths = make().policy, []
    forward = SparseLSTM.forward

    def noted(self: SparseLSTM, x: torch.Tensor, state: Any = None) -> Any:
        lengths.append(len(x))
        return forward(self, x, state)

    monkeypatch.setattr(SparseLSTM, "forward", noted)
    states = tuple(torch.zeros(1, 2, 8) for _ in range(2))
    for where, expected in (([1.0, 0, 0, 1, 0, 0], [3]), ([1.0, 0, 1, 0, 0, 0], [1, 1, 1])):
        lengths.clear()
        policy._process_sequence(torch.randn(6, 3), states, torch.tensor(where), policy.lstm_actor)
        assert lengths == expected


def test_a_density_is_shared_out_among_lstm_and_layers() -> None:
    agent = make(topology={"method": "static", "density": [0.3, 0.5, 0.7]})
    found = {name: round(layer.density, 1) for name, layer in agent.evolver.layers.items()}
    assert found == {
        f"{group}.{name}": density
        for group, chain in (("actor", "pi"), ("critic", "vf"))
        for name, density in ((f"{chain}.0", 0.7), ("memory.ih_l0", 0.3), ("memory.hh_l0", 0.5))
    }
    pruned = make(topology={"method": "gmp", "density": 0.3, "first_update": 2, "last_update": 6, "update_interval": 2})
    pruned.learn(96)
    assert all(event.kind == "prune" for event in pruned.evolver.events if event.update)
    assert sum(layer.nnz for layer in pruned.evolver.layers.values()) == sum(pruned.evolver.goals.values())


def test_what_it_remembers_belongs_to_its_state() -> None:
    agent = make(env=DummyVecEnv([FunctionEnv] * 3)).learn(48)
    states = agent.lstm_states
    assert states.shape == (2, 2, 1, 3, 8)
    assert states.abs().sum() > 0
    other = make(env=DummyVecEnv([FunctionEnv] * 3))
    other.lstm_states = states
    assert torch.equal(other._last_lstm_states.vf[1], agent._last_lstm_states.vf[1])
    act = agent.for_an_episode()
    seen = np.ones((1, 3), np.float32)
    first, second = act(seen, True), act(seen, True)
    assert not np.array_equal(first, second)  # it remembers that it has seen this
    assert np.array_equal(agent.for_an_episode()(seen, True), first)


def test_it_learns_what_only_memory_can_know() -> None:
    agent = make(
        env=DummyVecEnv([lambda: Monitor(Recall())] * 8),
        topology={"method": "set", "density": 0.5, "update_interval": 20},
        n_steps=24,
        batch_size=192,
        n_epochs=10,
        learning_rate=1e-2,
        gamma=0.9,
        policy_kwargs={"lstm_hidden_size": 12, "net_arch": [8]},
    ).learn(3500)
    mean, _ = evaluate_policy(agent, DummyVecEnv([lambda: Monitor(Recall())] * 4), n_eval_episodes=60, warn=False)
    assert mean > 0.95  # 0.5 without
    assert len(agent.evolver.events) > 20


@pytest.mark.slow
def test_it_balances_a_pole_whose_velocity_it_does_not_see() -> None:
    agent = make(
        env=DummyVecEnv([lambda: Monitor(HideFeatures(gym.make("CartPole-v1")))] * 8),
        topology={"method": "set", "density": 0.3, "update_interval": 100},
        n_steps=32,
        batch_size=256,
        n_epochs=10,
        learning_rate=3e-3,
        gamma=0.98,
        gae_lambda=0.8,
        policy_kwargs={"lstm_hidden_size": 32, "net_arch": [32]},
    ).learn(12_800)
    assert np.mean([episode["r"] for episode in agent.ep_info_buffer]) > 32  # some 22 at first, of a hundred episodes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy_kwargs": {"shared_lstm": True}}, "sparse recurrent policies have shared_lstm False, got True"),
        ({"policy_kwargs": {"enable_critic_lstm": False}}, "have enable_critic_lstm True, got False"),
        ({"policy_kwargs": {"lstm_kwargs": {"dropout": 0.5}}}, "have lstm_kwargs None, got "),
        ({"policy_kwargs": {"activation_fn": nn.GELU}}, "sparse networks know the activations ReLU, Tanh, got GELU"),
        (
            {"topology": {"method": "set", "recycle_interval": 7}},
            "without memory: leave .*recycle_interval 7 out",
        ),
        ({"batch_size": 1}, "of 16 env steps leaves a batch of 1, .*: raise batch_size, or give normalize_advantage"),
        ({"n_steps": 17}, "of 17 env steps leaves a batch of 1, .*: the closest that does is 17, or give"),
        ({"n_steps": 1}, "of 1 env steps leaves a batch of 1, .*: raise n_steps, or give normalize_advantage"),
    ],
)
def test_refusals(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**options)


def test_a_batch_that_does_not_divide_a_rollout_is_warned_of_in_one_line() -> None:
    """sb3-contrib says nothing."""
    with pytest.warns(UserWarning, match="batch_size") as caught:
        agent = make(n_steps=24).learn(24)
    said = "batch_size 16 does not divide the 24 env steps of a rollout, so the last has 8: the closest that does is 12"
    assert [str(warning.message) for warning in caught] == [said]
    assert agent.updates == 2 * 2
    assert make(n_steps=17, batch_size=17).smallest_batch == 17


def test_no_batch_size_is_a_whole_rollout_as_in_sb3_contrib() -> None:
    dense: Any = RecurrentPPO.policy_aliases["MlpLstmPolicy"]
    options: dict[str, Any] = {**SIZES, "policy_kwargs": SMALL, "batch_size": None}
    ours = DSRecurrentPPO(dense, FunctionEnv(), **options).learn(32)
    theirs = RecurrentPPO(dense, FunctionEnv(), device="cpu", **options).learn(32)
    assert_equal_trees(dict(ours.policy.state_dict()), dict(theirs.policy.state_dict()))
    assert ours.updates == 2 * 2


def test_it_is_no_chain_of_layers() -> None:
    with pytest.raises(ConfigError, match="a policy that remembers is no single chain of layers"):
        chains_of_agent(make())


def test_without_sb3_contrib_the_command_that_brings_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(AGENTS, "ds_recurrent_ppo")
    with pytest.raises(ConfigError, match=r"ds_recurrent_ppo needs a package that is not installed; .*pip install "):
        agent_spec("ds_recurrent_ppo")


def outputs_of(lstm: Any, rollout: Any, part: str, rows: np.ndarray, ordered: np.ndarray) -> torch.Tensor:
    """(B, H) step by step; states are those that are kept wherever `ordered` does not go on, 0 where an episode begins.

    Args:
        lstm: Of the actor or the critic.
        rollout: That was learned from.
        part: `pi` or `vf`.
        rows: (B,) of it.
        ordered: (B,) positions among them.
    """
    kept = [getattr(rollout, f"{kind}_states_{part}")[rows] for kind in ("hidden", "cell")]
    observations = torch.from_numpy(rollout.observations[rows].astype(np.float32))
    starts, outputs, states = rollout.episode_starts[rows].flatten() > 0, [], ()
    for before, position in zip((-9, *ordered), ordered, strict=False):
        if position != before + 1:
            states = tuple(torch.from_numpy(array[position])[:, None] for array in kept)
        states = tuple(state * (not starts[position]) for state in states)
        output, states = lstm(observations[position][None, None], states)
        outputs.append(output[0, 0])
    return torch.stack(outputs)


def test_gradients_and_dormant_neurons_are_those_of_consecutive_steps_of_the_latest_rollout() -> None:
    own = {"policy_kwargs": SMALL, "topology": {"method": "static", "density": 0.4}}
    envs = DummyVecEnv([lambda: FunctionEnv(horizon=7)] * 2)
    agent: Any = DSRecurrentPPO("MlpPolicy", envs, n_steps=30, batch_size=30, n_epochs=1, seed=0, **own).learn(60)
    layers, rollout, met = agent.evolver.layers, agent.rollout_buffer, agent.latest_steps[:, :3].numpy()
    rows = next(rows for rows in np.arange(60).reshape(2, 30) if np.allclose(rollout.observations[rows], met))
    found = TopologyObserver(agent).metrics()

    np.random.seed(0)  # a batch begins somewhere in the rollout and goes on from its beginning
    ordered = np.roll(np.arange(30), -np.random.randint(30))
    chains = {"pi": agent.actor.chain, "vf": agent.critic.chain}
    memories = {"pi": agent.policy.lstm_actor, "vf": agent.policy.lstm_critic}
    mean, values = (chains[part](outputs_of(memories[part], rollout, part, rows, ordered)) for part in chains)
    actions, advantages, returns, old = (
        torch.from_numpy(getattr(rollout, name)[rows][ordered])
        for name in ("actions", "advantages", "returns", "log_probs")
    )
    log_prob = torch.distributions.Normal(mean, agent.policy.log_std.exp()).log_prob(actions).sum(1)
    advantages = ((advantages - advantages.mean()) / (advantages.std() + 1e-8)).flatten()
    ratio = (log_prob - old.flatten()).exp()
    loss = -torch.min(advantages * ratio, advantages * ratio.clamp(0.8, 1.2)).mean()
    loss = loss + 0.5 * (returns - values).square().mean()
    norms = [part.norm().item() for part in torch.autograd.grad(loss, [layer.values for layer in layers.values()])]
    assert [found[f"topology/{name}/gradient_norm"] for name in layers] == pytest.approx(norms, rel=1e-3)
    assert found["topology/gradient_flow"] == pytest.approx(np.mean(norms), rel=1e-3)
    assert "topology/gradient_snr" not in found, "steps of a sequence are no independent samples"

    for group, part in (("actor", "pi"), ("critic", "vf")):  # layers behind an LSTM read what it gives
        read = outputs_of(memories[part], rollout, part, rows, np.arange(30)).detach()
        for level, share in enumerate(dormant_fraction(chains[part], read, 0.1)):
            assert found[f"topology/{group}.{part}.{level}/dormant"] == pytest.approx(share)


def test_watching_changes_nothing() -> None:
    agent = make(env=DummyVecEnv([FunctionEnv] * 2)).learn(64)
    before, generators = copy.deepcopy(agent_state(agent)), copy.deepcopy(generator_state())
    found = TopologyObserver(agent).metrics()
    assert_equal_trees(before, agent_state(agent))
    assert_equal_trees(generators, generator_state())
    other = make(env=DummyVecEnv([FunctionEnv] * 2))
    restore_agent(other, agent_state(agent))
    assert TopologyObserver(other).metrics() == found
