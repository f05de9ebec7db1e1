"""Spaces, policies and options of Stable-Baselines3: ours learn, save, load and act as TD3 and SAC, or say why not."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import A2C, PPO, SAC, TD3, HerReplayBuffer
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv
from stable_baselines3.sac.policies import MultiInputPolicy as SACMultiInputPolicy
from stable_baselines3.sac.policies import SACPolicy
from stable_baselines3.td3.policies import MultiInputPolicy as TD3MultiInputPolicy
from stable_baselines3.td3.policies import TD3Policy
from support.envs import FunctionEnv
from support.sb3_cases import (
    ACTIONS,
    MIXED,
    OBSERVATIONS,
    OPTIONS,
    PIXELS,
    POLICIES,
    AnySpaces,
    Extractor,
    box,
    two_environments,
)
from support.trees import assert_equal_trees

from sparserl.agents import DSA2C, DSPPO, DSSAC, DSTD3, dense
from sparserl.agents.export_policy import exported_policy
from sparserl.agents.replay.buffer import AdaptiveReplayBuffer, DynamicCapacity
from sparserl.agents.replay.forget_stale import ForgetStale
from sparserl.agents.table import AGENTS, make_agent
from sparserl.errors import CheckpointError, ConfigError, SparserlError
from sparserl.topology.config import TopologyConfig

SPARSE = {"method": "set", "density": 0.5, "update_interval": 5}
DENSE: dict[Any, Any] = {DSTD3: TD3, DSSAC: SAC}
both = pytest.mark.parametrize("kind", [DSTD3, DSSAC])


def make(kind: Any, env: Any = None, policy: Any = "MlpPolicy", **options: Any) -> Any:
    settings: dict[str, Any] = {"learning_starts": 10, "batch_size": 8, "buffer_size": 50, "seed": 0}
    own = {"net_arch": [8, 8], **options.pop("policy_kwargs", {})}
    if kind in DENSE and "topology" not in options and isinstance(policy, str):
        options["topology"] = SPARSE
    options = copy.deepcopy(options)
    return kind(policy, env or AnySpaces(box(3)), policy_kwargs=own, **{**settings, **options})


def check(agent: Any, reference: Any, tmp_path: Path, callback: Any = None) -> None:
    """Learns, acts in the reference's shapes, and comes back from a file as it was."""
    agent.learn(18, callback=callback)
    observations = agent.get_env().reset()
    first = {key: part[0] for key, part in observations.items()} if isinstance(observations, dict) else observations[0]
    for given in (observations, first):
        actions, theirs = (one.predict(given, deterministic=True)[0] for one in (agent, reference))
        assert type(actions) is type(theirs)
        assert (actions.shape, actions.dtype) == (theirs.shape, theirs.dtype)
    assert all(torch.isfinite(parameter).all() for parameter in agent.policy.parameters())
    many, _ = agent.predict(observations, deterministic=True)
    one, _ = agent.predict(first, deterministic=True)
    np.testing.assert_allclose(one, many[0], rtol=1e-5, atol=1e-6)
    agent.save(tmp_path / "agent.zip")
    loaded = type(agent).load(tmp_path / "agent.zip", env=agent.get_env())
    assert np.array_equal(loaded.predict(observations, deterministic=True)[0], many)
    if agent.replay_buffer_class is not HerReplayBuffer:  # which asks for a whole episode first
        loaded.learn(3, callback=callback, reset_num_timesteps=False)


def check_export(agent: Any) -> None:
    """A file of arrays acts as the agent, or is refused because the networks read something else."""
    space = agent.observation_space
    vectors = isinstance(space, spaces.Box) and (space.dtype != np.uint8 or "CnnPolicy" in type(agent.policy).__name__)
    if agent.policy.features_extractor_class is Extractor or not (vectors or len(space.shape or ()) == 1):
        with pytest.raises(ConfigError, match=r"^a policy that reads vectors or images can be exported, not "):
            exported_policy(agent, {})
        return
    if not isinstance(space, spaces.Box):
        return
    policy = exported_policy(agent, {})
    observation = np.stack([space.sample() for _ in range(3)])
    expected = agent.predict(observation, deterministic=True)[0].reshape(3, -1)
    for row, action in zip(observation.reshape(3, *policy.shape), expected, strict=True):
        np.testing.assert_allclose(policy(row), action, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "kind"), list(zip(OBSERVATIONS, cycle(DENSE), strict=False)))
def test_observations(kind: Any, name: str, tmp_path: Path) -> None:
    env = AnySpaces(OBSERVATIONS[name])
    agent = make(kind, env)
    check(agent, make(DENSE[kind], env), tmp_path)
    check_export(agent)


@both
@pytest.mark.parametrize("name", ACTIONS)
def test_actions(kind: Any, name: str, tmp_path: Path) -> None:
    env = AnySpaces(box(3), ACTIONS[name])
    agent = make(kind, env)
    check(agent, make(DENSE[kind], env), tmp_path)
    check_export(agent)


@both
@pytest.mark.parametrize("name", POLICIES)
def test_policies(kind: Any, name: str, tmp_path: Path) -> None:
    policy, space, options = POLICIES[name]
    agent = make(kind, AnySpaces(space), policy, policy_kwargs=options)
    check(agent, make(DENSE[kind], AnySpaces(space), policy, policy_kwargs=options), tmp_path)
    assert agent.evolver.layers
    check_export(agent)


@pytest.mark.filterwarnings("ignore:`n_steps=3` is ignored")  # Stable-Baselines3's own, of its own file
@pytest.mark.parametrize(("name", "kind"), list(zip(OPTIONS, cycle(DENSE), strict=False)))
def test_options(kind: Any, name: str, tmp_path: Path) -> None:
    check(make(kind, **OPTIONS[name]), make(DENSE[kind], **OPTIONS[name]), tmp_path)


@both
@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize(("policy", "space"), [("MlpPolicy", box(3)), ("MultiInputPolicy", spaces.Dict({"a": box(2)}))])
def test_several_environments(kind: Any, normalized: bool, policy: str, space: Any, tmp_path: Path) -> None:
    env = two_environments(space, normalized=normalized)
    check(make(kind, env, policy), make(DENSE[kind], env, policy), tmp_path)


@both
def test_hindsight(kind: Any, tmp_path: Path) -> None:
    options = {"replay_buffer_class": HerReplayBuffer, "replay_buffer_kwargs": {"n_sampled_goal": 2}}
    env = BitFlippingEnv(n_bits=3, continuous=True, max_steps=4)
    check(make(kind, env, "MultiInputPolicy", **options), make(DENSE[kind], env, "MultiInputPolicy"), tmp_path)


# --- numbers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "policy"),
    [(DSTD3, TD3Policy), (DSSAC, SACPolicy), (DSTD3, TD3MultiInputPolicy), (DSSAC, SACMultiInputPolicy)],
)
@pytest.mark.parametrize("shared", [False, True])
def test_with_its_dense_policies_every_bit_is_that_of_sb3(kind: Any, policy: Any, shared: bool) -> None:
    flat = policy in (TD3Policy, SACPolicy)
    own: dict[str, Any] = {"share_features_extractor": shared, "net_arch": [8]}
    if flat:  # running statistics reach the targets
        own["features_extractor_class"] = Extractor
    space = box(3) if flat else MIXED
    theirs, ours = (make(one, AnySpaces(space), policy, policy_kwargs=own).learn(30) for one in (DENSE[kind], kind))
    assert theirs._n_updates == ours._n_updates == 20
    assert_equal_trees(dict(theirs.policy.state_dict()), dict(ours.policy.state_dict()))


@both
@pytest.mark.parametrize("name", ["shared extractor", "own extractor", "shared dict", "dict", "pixels"])
def test_with_dense_layers_ours_equal_sb3_up_to_rounding(kind: Any, name: str) -> None:
    policy, space, options = POLICIES[name]
    theirs = make(DENSE[kind], AnySpaces(space), policy, policy_kwargs=options)
    ours = make(kind, AnySpaces(space), policy, policy_kwargs=options, topology={"method": "dense"})
    if kind is DSSAC:  # one output layer for means and deviations, where Stable-Baselines3 has two
        pairs = [(theirs.critic, ours.critic), (theirs.critic_target, ours.critic_target)]
        pairs.append((theirs.actor.features_extractor, ours.actor.features_extractor))
        hidden, means, deviations = [*theirs.actor.latent_pi][::2], theirs.actor.mu, theirs.actor.log_std
        for layer, copy_of in zip(ours.actor.pi, hidden, strict=False):
            layer.load_state_dict(copy_of.state_dict())
        last = ours.actor.pi[-1]
        last.weight.data.copy_(torch.cat([means.weight, deviations.weight]))
        last.bias.data.copy_(torch.cat([means.bias, deviations.bias]))
    else:
        pairs = [
            (getattr(theirs, one), getattr(ours, one)) for one in ("actor", "actor_target", "critic", "critic_target")
        ]
    for reference, own in pairs:
        for a, b in zip(reference.parameters(), own.parameters(), strict=True):
            b.data.copy_(a.data)
    for agent in (theirs, ours):
        agent.set_random_seed(3)
        agent.learn(20)
    for a, b in zip(theirs.critic.state_dict().values(), ours.critic.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-4)
    for a, b in zip(theirs.critic_target.state_dict().values(), ours.critic_target.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-4)


@both
def test_a_linear_policy_is_linear(kind: Any) -> None:
    agent = make(kind, policy_kwargs={"net_arch": []}, topology={**SPARSE, "output_layer": "sparse"}).learn(30)
    assert len(agent.actor.network) == len(agent.critic.q_networks[0]) == 1
    assert [layer.density for layer in agent.evolver.layers.values()] == pytest.approx([0.5] * 3, abs=0.1)
    assert len(make(kind, policy_kwargs={"net_arch": []}, topology={"method": "dense"}).learn(20).actor.network) == 1


# --- replay options ---------------------------------------------------------------------------------

CAPACITY = DynamicCapacity(interval_steps=5, threshold=0.0, minimum=10, compared=8)


def replay(**options: Any) -> dict[str, Any]:
    return {"replay_buffer_class": AdaptiveReplayBuffer, "replay_buffer_kwargs": options}


REPLAY_OPTIONS: list[dict[str, Any]] = [{"n_steps": 3, "n_steps_delay": 5}, {"capacity": CAPACITY}]


@pytest.mark.parametrize(("name", "options"), list(zip(OBSERVATIONS, cycle(REPLAY_OPTIONS), strict=False)))
def test_replay_options_take_observations(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    env = AnySpaces(OBSERVATIONS[name])
    callback: Any = ForgetStale if "capacity" in options else None
    agent = make(DSTD3, env, **replay(**options))
    check(agent, make(TD3, env), tmp_path, callback and callback())
    assert callback is None or agent.replay_buffer.forgotten > 0


@pytest.mark.parametrize("first", range(2, 10))
@pytest.mark.parametrize("kind", [DSSAC, DSTD3])
def test_targets_sum_rewards_from_the_update_that_is_said(kind: Any, first: int) -> None:
    """Whichever updates are repetitions of a recording."""
    agent = make(kind, FunctionEnv(), **replay(n_steps=3, n_steps_delay=first))
    updates, draw = [], agent.replay_buffer.sample

    def watched(*args: Any, **how: Any) -> Any:
        if agent.replay_buffer.steps_ahead > 1:
            updates.append(agent._n_updates)
        return draw(*args, **how)

    agent.replay_buffer.sample = watched
    agent.learn(agent.learning_starts + 14)
    assert updates == list(range(first, agent._n_updates + 1))
    assert len(updates) > 2


@pytest.mark.parametrize("name", ACTIONS)
def test_dynamic_capacity_takes_actions(name: str, tmp_path: Path) -> None:
    env = AnySpaces(box(3), ACTIONS[name])
    agent = make(DSSAC, env, **replay(capacity=CAPACITY))
    check(agent, make(SAC, env), tmp_path, ForgetStale())
    assert agent.replay_buffer.forgotten > 0


@pytest.mark.parametrize(
    "name", [name for name in OBSERVATIONS if name not in ("float64", "float16", "unbounded", "one")]
)
def test_noise_is_redrawn_in_vectors_of_floats(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^noise features are redrawn in vectors of floats, not in "):
        make(DSTD3, AnySpaces(OBSERVATIONS[name]), **replay(redraw_seed=0))


def test_replay_options_know_no_dict() -> None:
    with pytest.raises(ConfigError, match="holds no Dict observations; use DictReplayBuffer"):
        make(DSTD3, AnySpaces(MIXED), "MultiInputPolicy", **replay(n_steps=2))


# --- what is refused --------------------------------------------------------------------------------

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no critics": ({"policy_kwargs": {"n_critics": 0}}, "n_critics must be at least 1, got 0"),
    "activation": ({"policy_kwargs": {"activation_fn": torch.nn.ELU}}, "know the activations ReLU, Tanh, got ELU"),
    "nothing sparse": ({"policy_kwargs": {"net_arch": []}}, "a linear policy has output layers alone, .*'set' keeps"),
    "equal bounds": ({"env": AnySpaces(box(3), box(2, low=0, high=0))}, r"action 0 has the bounds \[0.0, 0.0\]"),
    "one point": (
        {"env": AnySpaces(box(3), spaces.Box(np.float32([-1, 0.5]), np.float32([1, 0.5])))},
        r"action 1 has the bounds \[0.5, 0.5\]",
    ),
    "too wide": ({"env": AnySpaces(box(3), box(2, low=-3e38, high=3e38))}, "a range that is positive and finite is"),
    "no bounds": (
        {"env": AnySpaces(box(3), box(2, low=-np.inf, high=np.inf))},
        r"action 0 has the bounds \[-inf, inf\], and finite ones are needed",
    ),
    "one bound": (
        {"env": AnySpaces(box(3), spaces.Box(np.float32([0, 0]), np.float32([1, np.inf])))},
        r"action 1 has the bounds \[0.0, inf\], and finite ones are needed",
    ),
    "no actions": ({"env": AnySpaces(box(3), box(0))}, r"needs at least one action, got actions of shape \(0,\)"),
    "two topologies": ({"policy_kwargs": {"topology": TopologyConfig()}}, "give topology to the agent itself"),
    "recycling pixels": (
        {"env": AnySpaces(PIXELS), "policy": "CnnPolicy", "topology": {**SPARSE, "recycle_interval": 5}},
        "neurons are recycled in networks that read vectors of floats",
    ),
}


@both
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_in_one_line(kind: Any, name: str) -> None:
    options, message = REFUSED[name]
    with pytest.raises(SparserlError, match=message) as refusal:
        make(kind, **options)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("algo", [name for name, spec in AGENTS.items() if spaces.Box in spec.agent.action_spaces])
def test_actions_without_bounds_or_without_a_range_to_scale_are_refused(algo: str) -> None:
    """As in Stable-Baselines3: no agent takes the first; the second makes NaN where actions are scaled."""
    spec = AGENTS[algo]
    topology = TopologyConfig(method="static" if spec.sparse else "dense")

    def made(low: float, high: float) -> Any:
        env = AnySpaces(box(3), box(1, low=low, high=high))
        return make_agent(algo, spec.config(), topology, env, seed=0, acts_only=True)

    for low, high in ((-np.inf, np.inf), (0, np.inf), (-np.inf, 1)):
        with pytest.raises(ConfigError, match=re.escape(f"action 0 has the bounds [{float(low)}, {float(high)}], and")):
            made(low, high)
    if spec.agent.scales_actions:
        with pytest.raises(ConfigError, match=r"action 0 has the bounds \[2.0, 2.0\], which cannot be scaled"):
            made(2, 2)
    else:
        assert made(2, 2).predict(np.zeros(3, np.float32))[0] == [2.0]


class Receives(AnySpaces):
    """Keeps what it is given."""

    def __init__(self, action_space: gym.Space[Any]) -> None:
        super().__init__(box(3), action_space)
        self.observation_space.seed(1)
        self.received: list[Any] = []

    def step(self, action: Any) -> Any:
        self.received.append(np.array(action))
        return super().step(action)


DENSE_POLICIES: dict[Any, tuple[Any, Any, dict[str, Any]]] = {
    DSTD3: (TD3, TD3Policy, {"learning_starts": 10, "action_noise": NormalActionNoise(np.zeros(2), np.full(2, 0.3))}),
    DSSAC: (SAC, SACPolicy, {"learning_starts": 10}),
    DSPPO: (PPO, ActorCriticPolicy, {"n_steps": 10, "batch_size": 5}),
    DSA2C: (A2C, ActorCriticPolicy, {"n_steps": 5}),
}


@pytest.mark.parametrize("name", ["asymmetric", "each its own"])
@pytest.mark.parametrize("kind", DENSE_POLICIES)
def test_any_bounds_are_treated_as_stable_baselines3_does_to_the_bit(kind: Any, name: str) -> None:
    """Scaled to [-1, 1] in a replay buffer, clipped after a Gaussian policy."""
    theirs_kind, policy, options = DENSE_POLICIES[kind]
    ours, theirs = (
        one(policy, Receives(ACTIONS[name]), seed=0, device="cpu", **copy.deepcopy(options)).learn(30)
        for one in (kind, theirs_kind)
    )
    received, expected = (agent.get_env().envs[0].unwrapped.received for agent in (ours, theirs))
    assert np.array_equal(received, expected)
    memories = [getattr(agent, "replay_buffer", None) or agent.rollout_buffer for agent in (ours, theirs)]
    assert np.array_equal(*(memory.actions for memory in memories))
    assert_equal_trees(dict(ours.policy.state_dict()), dict(theirs.policy.state_dict()))
    low, high = ACTIONS[name].low, ACTIONS[name].high  # type: ignore[attr-defined]
    if kind in DENSE:
        stored = memories[0].actions[:30, 0]
        assert np.abs(stored).max() <= 1.0
        np.testing.assert_allclose(low + (stored + 1) / 2 * (high - low), received, rtol=1e-4, atol=1e-4)
    else:
        stored = memories[0].actions.reshape(-1, 2)
        assert np.array_equal(np.clip(stored, low, high), received[-len(stored) :])


@pytest.mark.parametrize("kind", [DSTD3, DSSAC, DSPPO, DSA2C])
def test_sparse_policies_act_within_any_bounds(kind: Any) -> None:
    options = {name: value for name, value in DENSE_POLICIES[kind][2].items() if name != "action_noise"}
    env = Receives(ACTIONS["asymmetric"])
    agent = kind("MlpPolicy", env, topology=SPARSE, seed=0, **options).learn(30)
    assert len(env.received) == 30
    observations = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    actor = agent.actor if kind in DENSE else agent.policy
    outputs = actor._predict(torch.from_numpy(observations), deterministic=True).detach().numpy()
    expected = -2 + (outputs + 1) / 2 * 7 if kind in DENSE else np.clip(outputs, -2, 5)
    np.testing.assert_allclose(agent.predict(observations, deterministic=True)[0], expected, rtol=1e-4, atol=1e-5)


def test_state_dependent_exploration_is_refused() -> None:
    with pytest.raises(ConfigError, match="no state-dependent exploration"):
        make(DSSAC, use_sde=True)


@pytest.mark.parametrize(("kind", "policy"), [(DSTD3, TD3Policy), (DSSAC, SACPolicy)])
def test_a_dense_policy_takes_no_topology(kind: Any, policy: Any) -> None:
    for topology in (SPARSE, {}, TopologyConfig(method="gmp")):
        with pytest.raises(ConfigError, match=f"the policy {policy.__name__} is dense and takes no topology"):
            make(kind, policy=policy, topology=topology)
    assert make(kind, policy=policy, topology={"method": "dense"}).topology.method == "dense"
    assert make(kind, policy=policy).topology == TopologyConfig(method="dense")


def test_other_policies_cannot_be_exported() -> None:
    for kind, size in ((dense.TD3, 1), (dense.SAC, 1)):
        linear = make(kind, policy_kwargs={"net_arch": []})
        assert len(exported_policy(linear, {}).layers) == size
        with pytest.raises(ConfigError, match="unknown hidden activation 'ELU'"):
            exported_policy(make(kind, policy_kwargs={"activation_fn": torch.nn.ELU}), {})


# --- loading ----------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    make(DSTD3).learn(30).save(tmp_path / "agent.zip")
    return tmp_path / "agent.zip"


def test_the_saved_topology_may_be_given_to_load(saved: Path) -> None:
    assert DSTD3.load(saved, topology=SPARSE).topology.density == 0.5
    ends: Callable[..., Any] = lambda **more: make(DSTD3, topology={"method": "gmp", "density": 0.5, **more})  # noqa: E731
    ends().learn(30).save(saved)
    assert DSTD3.load(saved, topology={"method": "gmp", "density": 0.5}).topology.last_update == 16


@pytest.mark.parametrize(("name", "value"), [("density", 0.25), ("method", "rigl"), ("last_update", 7)])
def test_another_topology_is_refused_by_load(saved: Path, name: str, value: Any) -> None:
    other = {**SPARSE, name: value}
    message = re.escape(f"`load` cannot change to {value!r}; leave topology out")
    with pytest.raises(ConfigError, match=message):
        DSTD3.load(saved, topology=other)
    with pytest.raises(ConfigError, match=message):
        DSTD3.load(saved, custom_objects={"topology": TopologyConfig(**other)})


def test_load_takes_the_arguments_of_the_constructor(saved: Path) -> None:
    loaded = DSTD3.load(saved, policy_kwargs={"net_arch": [8, 8]}, learning_rate=0.5, tau=0.25)
    assert (loaded.learning_rate, loaded.tau) == (0.5, 0.25)
    assert DSTD3.load(saved, custom_objects={"learning_rate": 0.125}).learning_rate == 0.125
    with pytest.raises(ValueError, match="policy kwargs do not equal the stored"):
        DSTD3.load(saved, policy_kwargs={"net_arch": [9, 9]})
    with saved.open("rb") as file:
        assert DSTD3.load(file, policy_kwargs={"net_arch": [8, 8]}).topology.density == 0.5
    many = DSTD3.load(saved, env=DummyVecEnv([lambda: AnySpaces(box(3))] * 2))
    assert many.learn(30)._n_updates > 20


def test_a_file_of_td3_gives_its_dense_policy(tmp_path: Path) -> None:
    td3 = make(TD3).learn(20)
    td3.save(tmp_path / "td3.zip")
    loaded = DSTD3.load(tmp_path / "td3.zip", env=AnySpaces(box(3)))
    assert (loaded.topology.method, loaded.evolver.layers) == ("dense", {})
    assert_equal_trees(dict(loaded.policy.state_dict()), dict(td3.policy.state_dict()))
    loaded.learn(20)
    with pytest.raises(CheckpointError, match="parameters of a dense agent, and DSTD3 is sparse"):
        make(DSTD3).set_parameters(tmp_path / "td3.zip")
    with pytest.raises(ConfigError, match=r"saved with topology.method 'dense'"):
        DSTD3.load(tmp_path / "td3.zip", topology=SPARSE)


def test_parameters_come_with_their_connections(saved: Path) -> None:
    donor, agent = DSTD3.load(saved), make(DSTD3, topology={**SPARSE, "density": 0.25})
    agent.set_parameters(saved)
    assert_equal_trees(dict(agent.policy.state_dict()), dict(donor.policy.state_dict()))
    agent.set_parameters(donor.get_parameters())
    agent.learn(30)
    assert [layer.topology.nnz for layer in agent.evolver.layers.values()] == [
        layer.topology.nnz for layer in donor.evolver.layers.values()
    ]
