"""Dense SAC: Stable-Baselines3's bit for bit, but that the targets' interval counts over the whole run."""

from __future__ import annotations

from typing import Any

import stable_baselines3
import torch
from support.envs import FunctionEnv
from support.trees import assert_equal_trees

from sparserl.agents.dense import SAC


def make(kind: type[stable_baselines3.SAC] = SAC, **kwargs: Any) -> stable_baselines3.SAC:
    sizes: dict[str, Any] = {"learning_starts": 20, "batch_size": 16, "buffer_size": 500, "seed": 0, "device": "cpu"}
    return kind("MlpPolicy", FunctionEnv(), policy_kwargs={"net_arch": [8, 8]}, **sizes, **kwargs)


def test_with_an_interval_of_one_it_is_stable_baselines3s() -> None:
    first, second = make(stable_baselines3.SAC).learn(80), make().learn(80)
    assert_equal_trees(dict(first.policy.state_dict()), dict(second.policy.state_dict()))


def test_targets_are_copied_when_the_interval_is_over_and_stay_in_between() -> None:
    agent = make(tau=1.0, target_update_interval=10)
    targets = [parameter.detach().clone() for parameter in agent.critic_target.parameters()]
    agent.learn(29)  # nine updates
    assert agent._n_updates == 9
    for before, now in zip(targets, agent.critic_target.parameters(), strict=True):
        assert torch.equal(before, now)
    agent.learn(1, reset_num_timesteps=False)
    assert agent._n_updates == 10
    assert agent.tau == 1.0
    for online, target in zip(agent.critic.parameters(), agent.critic_target.parameters(), strict=True):
        assert torch.equal(online, target)
    agent.learn(1, reset_num_timesteps=False)
    assert not all(map(torch.equal, agent.critic.parameters(), agent.critic_target.parameters()))


def test_the_interval_counts_across_calls_of_several_updates() -> None:
    agent = make(tau=1.0, target_update_interval=7, gradient_steps=5).learn(23)  # 15 updates
    assert agent._n_updates == 15
    copy = {name: value.clone() for name, value in agent.critic_target.state_dict().items()}
    agent.train(5, 16)  # 16 to 20: none is a multiple of 7
    assert_equal_trees(copy, dict(agent.critic_target.state_dict()))
    agent.train(1, 16)
    assert_equal_trees(dict(agent.critic.state_dict()), dict(agent.critic_target.state_dict()))
