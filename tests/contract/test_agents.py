"""What every agent of the table does, whatever its algorithm and topology."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from support.envs import FunctionEnv, env_for
from support.trees import assert_equal_trees

from sparserl.agents.agent_state import agent_state, generator_state, restore_generators
from sparserl.agents.config import AgentConfig, OffPolicyConfig
from sparserl.agents.critics_config import SACConfig, TD3Config
from sparserl.agents.dqn_config import DQNConfig
from sparserl.agents.ds_crossq import CrossQConfig
from sparserl.agents.ds_tqc import TQCConfig
from sparserl.agents.on_policy_config import A2CConfig, OnPolicyConfig, PPOConfig, RecurrentPPOConfig
from sparserl.agents.table import AGENTS, make_agent
from sparserl.errors import ConfigError
from sparserl.metrics.cost import layer_costs
from sparserl.topology.config import TopologyConfig
from sparserl.topology.methods import METHODS

OFF_POLICY = {"learning_starts": 20, "batch_size": 16, "buffer_size": 500}
SIZES: dict[type[AgentConfig], dict[str, Any]] = {
    TD3Config: OFF_POLICY,
    SACConfig: OFF_POLICY,
    TQCConfig: OFF_POLICY,
    CrossQConfig: {**OFF_POLICY, "critic_arch": (20, 12)},
    DQNConfig: OFF_POLICY,
    PPOConfig: {"n_steps": 25, "batch_size": 5, "n_epochs": 3},  # 15 updates after a rollout
    A2CConfig: {"n_steps": 2},
    RecurrentPPOConfig: {"n_steps": 25, "batch_size": 5, "n_epochs": 3, "lstm_hidden": 8},
}
UPDATES: dict[type[AgentConfig], int] = {
    **dict.fromkeys((TD3Config, SACConfig, TQCConfig, CrossQConfig, DQNConfig), 35),
    **{PPOConfig: 45, A2CConfig: 28, RecurrentPPOConfig: 45},
}
"""In 55 env steps, or to the end of the rollout there."""
FAST = {"update_interval": 5, "last_update": 25}
VARIANTS: dict[str, dict[str, Any]] = {
    "averaged gradients": {"method": "rigl", "gradient_batches": 3},
    "alike neurons": {"method": "ctre", "grow": "cosine", "gradient_batches": 2},
    "clocks of connections": {"method": "set", "moments": "fresh"},
    "unfired connections": {"method": "set", "grow": "random_unfired"},
    "recycled neurons": {"method": "set", "recycle_interval": 10, "recycle_threshold": 0.5},
    "recycled dense neurons": {"method": "dense", "recycle_interval": 10, "recycle_threshold": 0.5},
    "mixed densities": {"method": "set", "actor_density": 0.2, "critic_density": 0.6},
    "shared inputs": {"method": "ds_td3", "pairs": 2},
    "shared inputs, growth by gradient": {"method": "granet", "pairs": 4, "output_layer": "dense"},
    "connections that learn unused": {"method": "top_kast", "density": 0.2},
    "sparse initial values": {"method": "static", "initial_value": "sparse_fan_in"},
}
BY_A_BATCH = ("snip", "grasp")
"""Methods that agents refuse, as they have no batch when their networks begin."""
TOPOLOGIES = {**{method: {"method": method} for method in METHODS if method not in BY_A_BATCH}, **VARIANTS}
PLAIN = ("dense", "static", "set", "rigl", "gmp")
SOME = (*PLAIN, "recycled neurons")
FEWER = {
    "ds_sac": SOME,
    "ds_dqn": (*PLAIN, *VARIANTS),
    "ds_a2c": SOME,
    "ds_tqc": SOME,
    "ds_crossq": (*SOME, "mixed densities", "clocks of connections", "shared inputs", "top_kast"),
    "ds_recurrent_ppo": (*PLAIN, "top_kast"),
}
"""Of agents that share all but an optimizer, losses or norms with one that is tried in full."""
SIMBA: dict[str, Any] = {"network": "simba", "weight_decay": 0.01, "decoupled_weight_decay": True}
BLOCKS: dict[str, dict[str, Any]] = {
    **{key: {**SIMBA, "actor_width": 8, "critic_width": 12} for key in ("ds_td3", "ds_sac", "ds_tqc")},
    "ds_dqn": {**SIMBA, "q_width": 8},
}
"""Of the agents that have such networks."""
OF_BLOCKS = {f"{name} in blocks": name for name in ("dense", "static", "ds_sac", "rigl", "clocks of connections")}
"""Their cases."""
CASES = [
    pytest.param(algo, name, id=f"{algo}-{name}")
    for algo, spec in AGENTS.items()
    for name in (FEWER.get(algo, TOPOLOGIES) if spec.sparse else ["dense"])
    if "actor" in spec.agent.trained or name != "mixed densities"
]
CASES += [pytest.param(algo, name, id=f"{algo}-{name}") for algo in BLOCKS for name in OF_BLOCKS]


def make(algo: str, name: str, seed: int = 0) -> Any:
    topology = TOPOLOGIES[OF_BLOCKS.get(name, name)]
    rule = METHODS[topology["method"]].rule
    changes: dict[str, Any] = {} if rule is None else dict(FAST)
    if rule is not None and rule.first_update > 25:
        changes["first_update"] = 10
    kind = AGENTS[algo].config
    config = kind(**(BLOCKS[algo] if name in OF_BLOCKS else {"net_arch": (12, 12)}), **SIZES[kind])
    env = env_for(AGENTS[algo].agent)
    return make_agent(algo, config, TopologyConfig(**topology, **changes), env, seed=seed)


@pytest.mark.parametrize("algo", [algo for algo, spec in AGENTS.items() if spec.sparse])
def test_tensorboard_files_lie_under_the_name_of_the_agent(algo: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    agent = make(algo, "static")
    agent.tensorboard_log = str(tmp_path)
    agent.learn(1)
    agent.learn(1, tb_log_name="mine")
    assert {path.name for path in tmp_path.iterdir()} == {f"{type(agent).__name__}_1", "mine_1"}


def update(agent: Any, count: int, seed: int) -> None:
    """Gradient updates on random data."""
    rng = np.random.default_rng(seed)
    agent.set_logger(Logger(None, []))

    def array(*shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.normal(size=shape).astype(np.float32))

    def actions() -> torch.Tensor:
        if isinstance(agent.action_space, spaces.Discrete):
            return torch.from_numpy(rng.integers(agent.action_space.n, size=(16, 1)))
        return array(16, 2).clamp(-1, 1)

    if isinstance(agent, OnPolicyAlgorithm):
        for _ in range(count // agent.updates_per_rollout):
            rollout = agent.rollout_buffer
            rollout.reset()
            for _ in range(agent.n_steps):
                memory = {"lstm_states": agent._last_lstm_states} if agent.remembered else {}
                step = array(1, 3).numpy(), array(1, 2).numpy(), array(1).numpy(), np.zeros(1), array(1), array(1)
                rollout.add(*step, **memory)
            rollout.compute_returns_and_advantage(array(1), np.zeros(1))
            agent.train()
        return

    class Buffer:
        def sample(self, batch_size: int, env: Any = None) -> ReplayBufferSamples:
            return ReplayBufferSamples(array(16, 3), actions(), array(16, 3), torch.zeros(16, 1), array(16, 1))

    agent.replay_buffer = Buffer()
    agent.train(count, 16)
    agent.replay_buffer = None


def state(agent: Any) -> dict[str, Any]:
    """Parameters, moments, topology, clock and generators."""
    found = agent_state(agent)
    return {"modules": found["modules"], "tensors": found["tensors"]}


@pytest.mark.parametrize(("algo", "name"), CASES)
def test_it_learns_repeats_with_the_same_seed_and_comes_back_from_a_file(algo: str, name: str, tmp_path: Path) -> None:
    first, again = (make(algo, name).learn(55) for _ in range(2))
    assert first.updates == UPDATES[AGENTS[algo].config]
    assert_equal_trees(state(first), state(again))
    assert all(torch.isfinite(parameter).all() for parameter in first.policy.parameters())
    first.save(tmp_path / "agent.zip")
    loaded = AGENTS[algo].agent.load(tmp_path / "agent.zip")
    observations = np.random.default_rng(1).normal(size=(20, 3))
    expected, _ = first.predict(observations, deterministic=True)
    assert np.array_equal(loaded.predict(observations, deterministic=True)[0], expected)
    assert type(loaded) is type(first)
    assert_equal_trees(state(loaded), state(first))


@pytest.mark.parametrize(("algo", "name"), CASES)
def test_load_in_the_middle_of_the_schedule_goes_on_as_if_never_saved(algo: str, name: str, tmp_path: Path) -> None:
    agent = make(algo, name)
    update(agent, 15, seed=1)
    agent.save(tmp_path / "agent.zip")
    generators = copy.deepcopy(generator_state())
    update(agent, 15, seed=2)  # past the end of rewiring, so that the last events count too
    assert agent.updates == 30
    uninterrupted = copy.deepcopy(state(agent))

    torch.manual_seed(99)
    loaded = AGENTS[algo].agent.load(tmp_path / "agent.zip", env=env_for(AGENTS[algo].agent))
    assert loaded.updates == 15
    restore_generators(generators)  # Stable-Baselines3 leaves the global ones to the user
    update(loaded, 15, seed=2)
    assert_equal_trees(uninterrupted, state(loaded))


COMMON = {"learning_rate": 0.5, "gamma": 0.75}
OF_OFF_POLICY: dict[str, Any] = {"batch_size": 8, "learning_starts": 11, "tau": 0.125, "buffer_size": 10}
OF_ON_POLICY: dict[str, Any] = {
    "n_steps": 6,
    "gae_lambda": 0.5,
    "ent_coef": 0.25,
    "vf_coef": 2.0,
    "max_grad_norm": 0.75,
}
OWN: dict[type[AgentConfig], dict[str, Any]] = {
    TD3Config: {**OF_OFF_POLICY, "policy_delay": 3, "target_policy_noise": 0.125, "target_noise_clip": 0.25},
    SACConfig: {**OF_OFF_POLICY, "target_entropy": -3.0, "target_update_interval": 7},
    TQCConfig: {**OF_OFF_POLICY, "target_update_interval": 7, "n_critics": 3, "top_quantiles_to_drop_per_net": 1},
    CrossQConfig: {
        **{name: value for name, value in OF_OFF_POLICY.items() if name != "tau"},
        "critic_arch": (5,),
        "policy_delay": 2,
    },
    DQNConfig: {
        **OF_OFF_POLICY,
        "target_update_interval": 7,
        "exploration_initial_eps": 0.5,
        "exploration_final_eps": 0.25,
        "exploration_fraction": 0.75,
        "max_grad_norm": 2.0,
        "double_q": True,
        "loss": "squared",
    },
    PPOConfig: {**OF_ON_POLICY, "batch_size": 3, "n_epochs": 4, "clip_range": 0.125, "normalize_advantage": False},
    A2CConfig: {**OF_ON_POLICY, "normalize_advantage": True},
    RecurrentPPOConfig: {**OF_ON_POLICY, "batch_size": 3, "n_epochs": 4, "clip_range": 0.125},
}


@pytest.mark.parametrize("algo", AGENTS)
def test_it_is_built_from_its_config(algo: str) -> None:
    spec = AGENTS[algo]
    ours = () if spec.sparse else spec.config.ours_alone
    own = {**COMMON, **{name: value for name, value in OWN[spec.config].items() if name not in ours}}
    config = spec.config(**own, weight_decay=0.25, net_arch=(5,))
    topology = TopologyConfig(method="static" if spec.sparse else "dense")
    agent: Any = make_agent(algo, config, topology, env_for(spec.agent), seed=0)
    for name in agent.trained:
        group = agent.optimizer_of(name).param_groups[0]
        assert (group["lr"], group["weight_decay"]) == (0.5, 0.25)
    given = {name: getattr(agent, name) for name in own if name not in ("buffer_size", "n_critics", "critic_arch")}
    given |= {name: value(1.0) for name, value in given.items() if callable(value)}  # schedules
    assert {**own, **given} == own
    assert agent.replay_buffer is None or agent.replay_buffer.buffer_size == 10
    last = agent.trained[-1]
    expected = spec.agent.layer_shapes(config, 3, getattr(agent.action_space, "n", 2))[last]
    layers = layer_costs(agent.networks[last])
    assert [layer.biases for layer in layers] == [n_out for shapes in expected for n_out, _ in shapes]
    assert expected[0][-2][0] == 5


@pytest.mark.parametrize(
    ("algo", "twin"), [(algo, spec.sparse_twin) for algo, spec in AGENTS.items() if not spec.sparse]
)
def test_a_dense_agent_takes_no_topology(algo: str, twin: str) -> None:
    with pytest.raises(ConfigError, match=f"{algo} is dense and takes no topology .*; use {twin}$"):
        make_agent(algo, AGENTS[algo].config(), TopologyConfig(), FunctionEnv(), seed=0)


def test_an_agent_takes_its_own_config_only() -> None:
    with pytest.raises(ConfigError, match="sac takes a SACConfig, got a TD3Config"):
        make_agent("sac", TD3Config(), TopologyConfig(method="dense"), FunctionEnv(), seed=0)


def test_an_unknown_agent_gives_the_closest() -> None:
    with pytest.raises(ConfigError, match="unknown algorithm 'td4'; did you mean 'td3'"):
        make_agent("td4", TD3Config(), TopologyConfig(), FunctionEnv(), seed=0)


@pytest.mark.parametrize(
    ("schema", "field", "value"),
    [
        (OffPolicyConfig, "learning_rate", 0.0),
        (OffPolicyConfig, "learning_rate", float("nan")),
        (OffPolicyConfig, "batch_size", -1),
        (OffPolicyConfig, "weight_decay", -1.0),
        (OffPolicyConfig, "gamma", 1.5),
        (OffPolicyConfig, "tau", 0.0),
        (OffPolicyConfig, "net_arch", ()),
        (OffPolicyConfig, "net_arch", (8, 0)),
        (TD3Config, "policy_delay", 0),
        (TD3Config, "target_policy_noise", float("nan")),
        (SACConfig, "target_update_interval", 0),
        (SACConfig, "ent_coef", -0.5),
        (SACConfig, "ent_coef", float("nan")),
        (SACConfig, "target_entropy", float("inf")),
        (SACConfig, "batch_size", 0),
        (DQNConfig, "target_update_interval", 0),
        (DQNConfig, "exploration_fraction", 0.0),
        (DQNConfig, "exploration_initial_eps", 1.5),
        (DQNConfig, "exploration_final_eps", -0.25),
        (DQNConfig, "max_grad_norm", 0.0),
        (OnPolicyConfig, "gae_lambda", 0.0),
        (OnPolicyConfig, "n_steps", 0),
        (PPOConfig, "batch_size", 1),
        (PPOConfig, "clip_range_vf", -1.0),
        (A2CConfig, "max_grad_norm", 0.0),
    ],
)
def test_a_number_out_of_range_is_named(schema: type[AgentConfig], field: str, value: Any) -> None:
    shown = value if value != () else []
    with pytest.raises(ConfigError, match=f"agent.{field} .*") as refusal:
        schema(**{field: value})
    assert str(refusal.value).endswith(str(shown))
