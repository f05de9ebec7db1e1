"""DS-DQN: equals Stable-Baselines3's DQN at the dense limit, rewires on its clock, behaves like any SB3 agent."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import DQN
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from stable_baselines3.dqn.policies import DQNPolicy
from support.envs import ChoiceEnv, FunctionEnv, SpacesOnly
from support.sb3_cases import MIXED, PIXELS, Extractor
from support.trees import assert_equal_trees

from sparserl.agents import DSDQN, dense
from sparserl.agents.networks.traced_forward import differentiated
from sparserl.agents.replay.batch import TransitionBatch
from sparserl.agents.replay.buffer import AdaptiveReplayBuffer, DynamicCapacity
from sparserl.errors import SparserlError

F32 = np.float32
SPARSE = {"method": "set", "density": 0.4, "update_interval": 10}


def make(env: Any = None, agent: Any = DSDQN, policy: Any = "MlpPolicy", **kwargs: Any) -> Any:
    """A small agent that starts to learn soon."""
    settings: dict[str, Any] = {
        "learning_starts": 30,
        "batch_size": 16,
        "buffer_size": 1000,
        "learning_rate": 1e-2,
        "train_freq": 1,
        "target_update_interval": 7,
        "seed": 0,
        "device": "cpu",
    }
    own = {"net_arch": [16, 16], **kwargs.pop("policy_kwargs", {})}
    return agent(policy, env or ChoiceEnv(), policy_kwargs=copy.deepcopy(own), **{**settings, **kwargs})


def weights(agent: Any) -> dict[str, Any]:
    return {"policy": dict(agent.policy.state_dict()), "moments": agent.policy.optimizer.state_dict()["state"]}


# --- at the dense limit -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"max_grad_norm": 0.05},  # every step is scaled
        {"train_freq": 3, "gradient_steps": 2, "tau": 0.3, "exploration_final_eps": 0.5, "gamma": 0.9},
        {"policy_kwargs": {"features_extractor_class": Extractor}},  # running statistics reach the target
        {"n_steps": 3, "policy_kwargs": {"optimizer_kwargs": {"weight_decay": 1e-2}}},
    ],
    ids=["clipped", "rounds", "running statistics", "three steps"],
)
def test_at_the_dense_limit_it_equals_sb3_bit_for_bit(options: dict[str, Any]) -> None:
    # The seed sets the global generators, so one agent learns before the other is built.
    reference, ours = (make(agent=kind, policy=DQNPolicy, **options).learn(230) for kind in (DQN, DSDQN))
    assert not ours.evolver.layers
    assert reference._n_updates == ours._n_updates >= 130
    assert_equal_trees(weights(reference), weights(ours))
    assert (reference.exploration_rate, reference._n_calls) == (ours.exploration_rate, ours._n_calls)


def test_several_environments_count_together_for_targets_as_in_sb3() -> None:
    found = []
    for kind in (DQN, DSDQN):
        env = VecNormalize(DummyVecEnv([ChoiceEnv] * 3))
        found.append(make(env, kind, DQNPolicy, target_update_interval=9).learn(240))
    assert found[0]._n_updates == found[1]._n_updates == 70
    assert_equal_trees(*map(weights, found))


def test_the_dense_method_equals_sb3_up_to_rounding() -> None:
    reference = make(agent=DQN, policy=DQNPolicy, max_grad_norm=0.05)
    ours = make(topology={"method": "dense"}, max_grad_norm=0.05)
    for a, b in zip(reference.policy.parameters(), ours.policy.parameters(), strict=True):
        b.data.copy_(a.data)
    for agent in (reference, ours):
        agent.set_random_seed(3)
        agent.learn(90)
    for a, b in zip(reference.policy.parameters(), ours.policy.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_the_dense_twin_is_stable_baselines3s() -> None:
    first, second = (make(agent=kind, policy="MlpPolicy").learn(60) for kind in (DQN, dense.DQN))
    assert_equal_trees(weights(first), weights(second))
    boundless = make(agent=dense.DQN, max_grad_norm=None)
    assert boundless.max_grad_norm == np.inf
    huge = make(agent=DQN, max_grad_norm=1e30).learn(60)
    boundless.set_random_seed(0)
    assert_equal_trees(weights(make(agent=dense.DQN, max_grad_norm=None).learn(60)), weights(huge))


# --- an update by hand ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "loss", "weight", "bias"),
    [
        # Targets 0.5 * 3 and 1, values 1 and 4, so errors -0.5 and 3: Huber's 0.125 and 2.5, slopes -0.5 and 1.
        ({}, 1.3125, [1.25, 1.0], [0.25, -0.5]),
        # Squares 0.25 and 9, slopes -1 and 6.
        ({"loss": "squared"}, 4.625, [1.5, -4.0], [0.5, -3.0]),
        # The online network prefers the second action, of which the target says 1: errors 0.5 and 3.
        ({"double_q": True}, 1.3125, [0.75, 1.0], [-0.25, -0.5]),
        # Gradients (-0.25, 1) and (-0.25, 0.5) have the norm sqrt(1.375).
        (
            {"max_grad_norm": 0.5},
            1.3125,
            [1 + 0.125 / 1.375**0.5, 2 - 0.5 / 1.375**0.5],
            [0.125 / 1.375**0.5, -0.25 / 1.375**0.5],
        ),
    ],
)
def test_an_update_worked_by_hand(options: dict[str, Any], loss: float, weight: list[float], bias: list[float]) -> None:
    env = SpacesOnly(spaces.Box(-9, 9, (1,)), spaces.Discrete(2))
    of_policy = {"net_arch": [], "optimizer_class": torch.optim.SGD}
    given = {"max_grad_norm": None, "learning_rate": 1.0, "gamma": 0.5, **options}
    agent = make(env, topology={"method": "dense"}, policy_kwargs=of_policy, **given)
    for network, numbers in ((agent.q_net, [1.0, 2.0]), (agent.q_net_target, [3.0, 1.0])):
        network.q[0].weight.data[:, 0] = torch.tensor(numbers)
        network.q[0].bias.data.zero_()
    columns = [[1, 2], [0, 1], [1, -1], [0, 1], [0, 1]]  # observations, actions, what follows, dones, rewards
    batch = TransitionBatch(*(F32(column)[:, None] for column in columns), F32([[0.5]]))  # type: ignore[call-arg]  # five
    assert np.asarray(agent._update(batch)["loss"]).item() == pytest.approx(loss)
    np.testing.assert_allclose(agent.q_net.q[0].weight.detach().numpy()[:, 0], weight, rtol=1e-5)
    np.testing.assert_allclose(agent.q_net.q[0].bias.detach().numpy(), bias, rtol=1e-5)
    assert agent.q_net_target.q[0].weight[0].item() == 3.0


def test_a_loss_may_be_written_in_torch() -> None:
    class Written(DSDQN):
        def _q_loss(self, q_values: np.ndarray, targets: np.ndarray) -> Any:
            goal = torch.from_numpy(targets)
            return differentiated(lambda q: torch.nn.functional.smooth_l1_loss(q[0], goal), q_values)

    agents = [make(agent=kind, topology=SPARSE).learn(60) for kind in (DSDQN, Written)]
    for ours, theirs in zip(*(agent.q_net.parameters() for agent in agents), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


# --- sparse -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["shared", "union_trim"])
def test_targets_follow_the_topology_and_are_copied_by_env_steps(target: str) -> None:
    agent = make(topology={**SPARSE, "target": target, "drop_fraction": 0.3}, target_update_interval=20)
    agent.learn(81)
    online, copied = agent.q_net.q[1], agent.q_net_target.q[1]
    assert len({event.update for event in agent.evolver.events if event.kind == "rewire"}) >= 4
    if target == "shared":
        assert np.array_equal(online.topology.flat, copied.topology.flat)
    else:
        assert np.isin(online.topology.flat, copied.topology.flat).all()
    agent.learn(15, reset_num_timesteps=False)  # steps 82 to 96
    before = agent.q_net_target.q[2].bias.detach().clone()
    agent.learn(3, reset_num_timesteps=False)
    assert torch.equal(agent.q_net_target.q[2].bias, before)  # step 99
    agent.learn(1, reset_num_timesteps=False)  # the copy of step 100 comes before the update of that step
    assert not torch.equal(agent.q_net_target.q[2].bias, before)
    assert not torch.equal(agent.q_net_target.q[2].bias, agent.q_net.q[2].bias)


def test_rates_are_logged_and_fall_along_a_line() -> None:
    agent = make(exploration_fraction=0.5, exploration_initial_eps=0.8, exploration_final_eps=0.4)
    agent.set_logger(Logger(None, []))
    seen = []
    step = agent._on_step
    agent._on_step = lambda: (step(), seen.append(agent.exploration_rate))
    agent.learn(40)
    np.testing.assert_allclose(seen, [0.8 - 0.4 * min(1, done / 20) for done in range(1, 41)], rtol=1e-6)
    assert agent.logger.name_to_value["rollout/exploration_rate"] == pytest.approx(0.4)
    assert agent.logger.name_to_value["topology/q_net.q.1/density"] == agent.q_net.q[1].density


def test_predict_is_that_of_stable_baselines3() -> None:
    agent = make(topology=SPARSE)
    observations = np.random.default_rng(0).normal(size=(40, 3)) * 10
    for given in (observations, observations[0], observations[:1], observations.astype(F32)):
        actions, state = agent.predict(given, deterministic=True)
        expected, _ = DQNPolicy.predict(agent.policy, given)
        assert state is None
        assert (actions.dtype, actions.shape) == (expected.dtype, expected.shape)
        np.testing.assert_array_equal(actions, expected)
    assert len(set(agent.predict(observations, deterministic=True)[0].tolist())) > 1
    agent.exploration_rate = 1.0
    drawn = {int(agent.predict(observations[0])[0]) for _ in range(30)}
    assert drawn == {0, 1, 2}


@pytest.mark.parametrize(
    ("policy", "space", "options"),
    [
        ("CnnPolicy", PIXELS, {"features_extractor_kwargs": {"features_dim": 8}}),
        ("MultiInputPolicy", MIXED, {}),
        ("MlpPolicy", spaces.Box(-1, 1, (3,)), {"features_extractor_class": Extractor}),
        ("MlpPolicy", spaces.Discrete(5), {"activation_fn": torch.nn.Tanh}),
    ],
    ids=["pixels", "dict", "own extractor", "codes"],
)
def test_behind_other_extractors_it_learns_and_comes_back(
    policy: str, space: Any, options: dict[str, Any], tmp_path: Path
) -> None:
    env = SpacesOnly(space, spaces.Discrete(3))
    agent = make(env, policy=policy, policy_kwargs=options, topology=SPARSE, buffer_size=50).learn(45)
    assert agent.evolver.layers
    assert all(torch.isfinite(parameter).all() for parameter in agent.policy.parameters())
    agent.save(tmp_path / "agent.zip")
    observations = agent.get_env().reset()
    expected = agent.predict(observations, deterministic=True)[0]
    loaded = DSDQN.load(tmp_path / "agent.zip", env=agent.get_env())
    assert np.array_equal(loaded.predict(observations, deterministic=True)[0], expected)
    loaded.learn(5, reset_num_timesteps=False)


# --- what is refused --------------------------------------------------------------------------------

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "loss": ({"loss": "hubber"}, "unknown loss 'hubber'; did you mean 'huber'"),
    "two architectures": ({"policy_kwargs": {"net_arch": {"qf": [8]}}}, "net_arch is a list of hidden widths"),
    "activation": ({"policy_kwargs": {"activation_fn": torch.nn.ELU}}, "know the activations ReLU, Tanh, got ELU"),
    "nothing sparse": ({"policy_kwargs": {"net_arch": []}, "topology": SPARSE}, "a linear policy has output layers"),
    "a topology of a dense policy": ({"policy": DQNPolicy, "topology": SPARSE}, "the policy DQNPolicy is dense"),
    "capacity": (
        {
            "replay_buffer_class": AdaptiveReplayBuffer,
            "replay_buffer_kwargs": {"capacity": DynamicCapacity()},
        },
        r"agent.dynamic_capacity compares actions that are vectors, not of Discrete\(3\)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_in_one_line(name: str) -> None:
    options, message = REFUSED[name]
    with pytest.raises(SparserlError, match=message) as refusal:
        make(**options)
    assert "\n" not in str(refusal.value)


def test_other_actions_are_refused() -> None:
    for env in (FunctionEnv(), SpacesOnly(spaces.Box(-1, 1, (3,)), spaces.MultiDiscrete([2, 3]))):
        with pytest.raises(AssertionError, match="Discrete"):
            make(env)
