"""DS-TD3: equals Stable-Baselines3's TD3 at the dense limit, rewires on its clock, behaves like any SB3 agent."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import TD3
from stable_baselines3.common.callbacks import CheckpointCallback, EvalCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from stable_baselines3.td3.policies import TD3Policy
from support.envs import FunctionEnv, SpacesOnly
from support.trees import assert_equal_trees

from sparserl.agents import DSTD3, TopologyConfig, sparse_off_policy
from sparserl.agents.networks.traced_forward import differentiated
from sparserl.errors import ConfigError, KernelUnavailable
from sparserl.kernels.program import stretch
from sparserl.layers import SparseLinear

SOURCE = Path(__file__).resolve().parents[2] / "agents" / "ds_td3.py"
NETWORKS = ("actor", "critic", "actor_target", "critic_target")


def make(env: Any = None, agent: Callable[..., TD3] = DSTD3, policy: Any = "MlpPolicy", **kwargs: Any) -> Any:
    """A small agent that starts to learn soon."""
    env = env or FunctionEnv()
    settings: dict[str, Any] = {
        "learning_starts": 50,
        "batch_size": 16,
        "buffer_size": 1000,
        "action_noise": NormalActionNoise(np.zeros(2), np.full(2, 0.1)),
        "policy_kwargs": {"net_arch": [16, 16]},
        "seed": 0,
        "device": "cpu",
    }
    return agent("MlpPolicy" if policy is None else policy, env, **{**settings, **kwargs})


def weights(agent: TD3) -> dict[str, Any]:
    """All parameters and optimizer states."""
    found: dict[str, Any] = {name: dict(getattr(agent, name).state_dict()) for name in NETWORKS}
    for name in ("actor", "critic"):
        found[f"{name}.optimizer"] = getattr(agent, name).optimizer.state_dict()["state"]
    return found


def topologies(agent: DSTD3) -> dict[str, np.ndarray]:
    return {name: layer.topology.flat for name, layer in agent.evolver.layers.items()}


@pytest.mark.parametrize("vectorized", [False, True], ids=["one env", "two normalized envs"])
def test_at_the_dense_limit_it_equals_sb3_bit_for_bit(vectorized: bool) -> None:
    def env() -> Any:
        return VecNormalize(DummyVecEnv([FunctionEnv] * 2)) if vectorized else FunctionEnv()

    noise = {"action_noise": None} if vectorized else {}
    kwargs: dict[str, Any] = {"optimizer_kwargs": {"weight_decay": 2e-4}, "net_arch": [16, 16]}
    # The seed sets the global generators, so one agent learns before the other is built.
    reference = make(env(), TD3, TD3Policy, policy_kwargs=dict(kwargs), gradient_steps=2, **noise).learn(120)
    ours = make(env(), DSTD3, TD3Policy, policy_kwargs=dict(kwargs), gradient_steps=2, **noise).learn(120)
    assert not ours.evolver.layers
    assert reference._n_updates == ours._n_updates == (70 if vectorized else 140)
    assert_equal_trees(weights(reference), weights(ours))


def test_the_dense_method_equals_sb3_up_to_rounding() -> None:
    reference = make(agent=TD3, policy=TD3Policy)
    ours = make(
        topology={"method": "dense"}, policy_kwargs={"net_arch": [16, 16], "optimizer_kwargs": {"fused": False}}
    )
    for name in NETWORKS:
        for a, b in zip(getattr(reference, name).parameters(), getattr(ours, name).parameters(), strict=True):
            assert a.shape == b.shape
            b.data.copy_(a.data)
    for agent in (reference, ours):
        agent.set_random_seed(3)
        agent.learn(100)
    for a, b in zip(reference.policy.parameters(), ours.policy.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_the_agent_never_mentions_how_sparsity_is_stored() -> None:
    assert re.findall(r"nnz|indices|flat|\.T\b|\.t\(\)", SOURCE.read_text()) == []


def test_the_seed_decides_everything() -> None:
    first, again, other = (make(seed=seed, topology={"update_interval": 20}).learn(100) for seed in (7, 7, 8))
    assert_equal_trees(weights(first), weights(again))
    assert_equal_trees(topologies(first), topologies(again))
    assert_equal_trees(first.evolver.state_dict(), again.evolver.state_dict())
    for name, flat in topologies(other).items():
        assert not np.array_equal(flat, topologies(first)[name])


def test_each_network_has_its_own_topology() -> None:
    flat = topologies(make())
    assert not np.array_equal(flat["critic.qf0.1"], flat["critic.qf1.1"])
    assert not np.array_equal(flat["actor.mu.1"], flat["critic.qf0.1"])


def test_without_a_seed_a_new_topology_is_drawn() -> None:
    first, second = (topologies(make(seed=None)) for _ in range(2))
    assert any(not np.array_equal(first[name], second[name]) for name in first)


def test_actor_and_critics_rewire_on_the_clock() -> None:
    agent = make(topology={"update_interval": 10, "first_update": 3, "last_update": 25}, policy_delay=2)
    agent.evolver.events.clear()
    agent.learn(100)
    assert agent._n_updates == 50
    seen = {
        group: sorted({(event.update, event.kind) for event in agent.evolver.events if event.layer.startswith(group)})
        for group in ("actor", "critic")
    }
    # The actor steps at even updates only, so an event that is due at an odd one waits for the next step.
    assert seen["critic"] == [(3, "rewire"), (13, "rewire"), (23, "rewire"), (33, "shrink")]
    assert seen["actor"] == [(4, "rewire"), (14, "rewire"), (24, "rewire"), (34, "shrink")]
    sizes = {event.layer: event.nnz for event in agent.evolver.events if event.update < 30}
    for name, layer in agent.evolver.layers.items():
        assert layer.topology.nnz < sizes[name]  # the last event only drops


def test_half_cheetah_has_exactly_the_connections_of_the_papers_table() -> None:
    env = FunctionEnv(n_obs=17, n_action=6)
    agent = make(env, action_noise=None, policy_kwargs={"net_arch": [256, 256]}, topology={"epsilon": [7, 64]})
    sizes = {name: layer.topology.nnz for name, layer in agent.evolver.layers.items()}
    assert sizes == {
        "actor.mu.0": 1911,
        "actor.mu.1": 32768,
        "critic.qf0.0": 1953,
        "critic.qf0.1": 32768,
        "critic.qf1.0": 1953,
        "critic.qf1.1": 32768,
    }
    assert isinstance(agent.actor.mu[2], torch.nn.Linear)
    for name in ("actor", "critic"):
        assert_equal_trees(dict(getattr(agent, name).state_dict()), dict(getattr(agent, f"{name}_target").state_dict()))


@pytest.mark.parametrize("target", ["shared", "union_trim"])
def test_targets_follow_the_topology(target: str) -> None:
    agent = make(topology={"target": target, "update_interval": 10, "drop_fraction": 0.3}, gradient_steps=1)
    agent.learn(100)
    online, copy = agent.critic.qf0[1], agent.critic_target.qf0[1]
    assert isinstance(online, SparseLinear)
    live = int(np.count_nonzero(copy.values.detach()))
    if target == "shared":
        assert np.array_equal(online.topology.flat, copy.topology.flat)
    else:
        assert np.isin(online.topology.flat, copy.topology.flat).all()
        assert copy.nnz > online.nnz >= live
        lagging = copy.topology.flat[copy.values.detach().numpy() != 0]
        assert not np.isin(lagging, online.topology.flat).all()
    assert not any(parameter.requires_grad and parameter.grad is not None for parameter in copy.parameters())


@pytest.mark.parametrize("method", ["static", "set", "rigl", "dense", "ds_td3"])
def test_every_method_learns(method: str) -> None:
    topology: dict[str, Any] = {"method": method}
    if method in ("set", "rigl", "ds_td3"):
        topology |= {"update_interval": 50, "last_update": 100}
    agent = make(topology=topology, train_freq=2)
    before = topologies(agent)
    start = {name: parameter.detach().clone() for name, parameter in agent.critic.named_parameters()}
    agent.learn(300)
    assert agent._n_updates == 125
    moved = [name for name, parameter in agent.critic.named_parameters() if not torch.equal(parameter, start[name])]
    assert len(moved) == len(start)
    assert all(torch.isfinite(parameter).all() for parameter in agent.policy.parameters())
    after = topologies(agent)
    assert bool(after) == (method != "dense")
    for name, flat in after.items():
        assert np.array_equal(flat, before[name]) == (method == "static")


def test_moments_follow_the_connections() -> None:
    agent = make(topology={"update_interval": 10, "drop_fraction": 0.3})
    agent.learn(100)
    for group in ("actor", "critic"):
        optimizer = getattr(agent, group).optimizer
        for parameter in getattr(agent, group).parameters():
            assert optimizer.state[parameter]["exp_avg"].shape == parameter.shape


def test_sb3_callbacks_work(tmp_path: Path) -> None:
    agent = make()
    evaluation = EvalCallback(
        Monitor(FunctionEnv()), n_eval_episodes=2, eval_freq=60, best_model_save_path=str(tmp_path), verbose=0
    )
    agent.learn(130, callback=[evaluation, CheckpointCallback(60, str(tmp_path), name_prefix="model")])
    assert np.isfinite(evaluation.last_mean_reward)
    loaded = DSTD3.load(tmp_path / "model_120_steps.zip")
    assert loaded.num_timesteps == 120
    assert loaded._n_updates == 69  # saved before the update of step 120
    assert (tmp_path / "best_model.zip").is_file()


def test_topology_metrics_are_logged() -> None:
    agent = make()
    agent.set_logger(Logger(None, []))
    agent.learn(60)
    values = agent.logger.name_to_value
    assert values["topology/actor.mu.1/density"] == agent.actor.mu[1].density
    layers = agent.evolver.layers.values()  # allocation leaves the first layers dense, and those do not count
    expected = sum(layer.topology.nnz for layer in layers) / sum(layer.topology.size for layer in layers)
    assert values["topology/density"] == pytest.approx(expected)
    assert values["topology/critic.qf1.1/grown_total"] > 0


def test_predict_takes_one_observation_or_many_and_stays_in_bounds() -> None:
    agent = make()
    one, state = agent.predict(np.zeros(3), deterministic=True)
    many, _ = agent.predict(np.random.default_rng(0).normal(size=(5, 3)) * 100)
    assert one.shape == (2,)
    assert many.shape == (5, 2)
    assert state is None
    assert np.abs(many).max() <= 1.0


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps"])
def test_another_device_is_refused(device: str) -> None:
    with pytest.raises(KernelUnavailable, match=f"no kernels for device '{device}'"):
        make(device=device)


def test_auto_means_the_cpu() -> None:
    assert make(device="auto").device == torch.device("cpu")


def test_an_unknown_topology_key_gives_the_closest() -> None:
    with pytest.raises(ConfigError, match="unknown topology key 'densty'; did you mean 'density'"):
        make(topology={"densty": 0.5})
    with pytest.raises(ConfigError, match="unknown topology method 'ds_td4'; did you mean 'ds_td3'"):
        make(topology={"method": "ds_td4"})
    with pytest.raises(ConfigError, match=r"topology\.density must be in \(0, 1\], got 1\.5"):
        make(topology={"density": 1.5})


def test_a_topology_may_be_a_config_or_a_mapping() -> None:
    as_config, as_mapping = make(topology=TopologyConfig(density=0.2)), make(topology={"density": 0.2})
    assert_equal_trees(topologies(as_config), topologies(as_mapping))
    assert make().topology == TopologyConfig()


def test_other_spaces_are_refused() -> None:
    box = spaces.Box(-1.0, 1.0, (3,))
    with pytest.raises(AssertionError, match="Discrete"):
        make(SpacesOnly(box, spaces.Discrete(3)), action_noise=None)
    with pytest.raises(ValueError, match="MultiInputPolicy"):
        make(SpacesOnly(spaces.Dict({"a": box})))


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(ConfigError, match="ReLU, Tanh, got GELU"):
        make(policy_kwargs={"net_arch": [8], "activation_fn": torch.nn.GELU})


def test_a_failing_actor_update_leaves_the_critic_trainable(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make()
    agent.learn(60)

    def fail(q_values: Any) -> Any:
        raise RuntimeError("no loss today")

    monkeypatch.setattr(agent, "_actor_loss", fail)
    with pytest.raises(RuntimeError, match="no loss today"):
        agent.train(2, 16)
    assert all(parameter.requires_grad for parameter in agent.critic.parameters())


def test_training_mode_is_that_of_stable_baselines3_where_it_is_read() -> None:
    agent = make()
    for mode in (True, False):
        agent.policy.set_training_mode(mode)
        assert agent.policy.training == agent.actor.training == agent.critic.training == mode


@pytest.mark.parametrize("net_arch", [[16, 16], [16]], ids=str)
def test_predict_is_that_of_stable_baselines3(net_arch: list[int]) -> None:
    agent = make(policy_kwargs={"net_arch": net_arch})
    observations = agent.observation_space.sample()[None].repeat(5, axis=0)
    for given in (observations, observations[0], observations[:1], observations.astype(np.float64)):
        actions, state = agent.predict(given)
        expected, _ = TD3Policy.predict(agent.policy, given)
        assert actions.shape == expected.shape
        assert state is None
        np.testing.assert_allclose(actions, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="Unexpected observation shape"):
        agent.predict(np.zeros(agent.observation_space.shape[0] + 1, np.float32))


def test_derivatives_of_the_losses_are_those_of_autograd() -> None:
    agent = make()
    q_values, targets = torch.randn(2, 7, 1).numpy(), torch.randn(7, 1)

    def critic_loss(q: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.mse_loss(q[0], targets) + torch.nn.functional.mse_loss(q[1], targets)

    for (value, derivative), loss, given in (
        (agent._critic_loss(q_values, targets.numpy()), critic_loss, q_values),
        (agent._actor_loss(q_values[:1]), lambda q: -q.mean(), q_values[:1]),
    ):
        expected_value, expected = differentiated(loss, given)
        assert value == pytest.approx(expected_value, rel=1e-6)
        np.testing.assert_allclose(derivative, expected, rtol=1e-6)


def test_a_loss_may_be_written_in_torch() -> None:
    class Written(DSTD3):
        def _critic_loss(self, q_values: np.ndarray, targets: np.ndarray) -> Any:
            goal = torch.from_numpy(targets)
            return differentiated(lambda q: sum(torch.nn.functional.mse_loss(own, goal) for own in q), q_values)

    agents = [make(agent=kind).learn(60) for kind in (DSTD3, Written)]  # the seed of one holds until the next is made
    for ours, theirs in zip(*(agent.critic.parameters() for agent in agents), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_updates_of_wide_networks_run_at_once_and_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[bool] = []

    def seen(agent: DSTD3, batch: Any) -> Any:
        waited.append(stretch() is not None)
        return update(agent, batch)

    update = DSTD3._update
    seen.__module__ = update.__module__
    monkeypatch.setattr(DSTD3, "_update", seen)
    found = []
    agent = make()
    count = sum(values.numel() for name in ("actor", "critic") for values in getattr(agent, name).parameters())
    for limit in (count, count - 1):
        monkeypatch.setattr(sparse_off_policy, "WAITS_TO", limit)
        waited.clear()
        agent = make(topology={"update_interval": 3})
        agent.learn(70)
        assert set(waited) == {limit == count}
        found.append(weights(agent))
    assert_equal_trees(*found)
