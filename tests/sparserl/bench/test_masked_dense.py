"""The masked contender: what is masked stays exactly zero, everything else learns."""

from __future__ import annotations

import torch
from stable_baselines3 import TD3
from support.envs import FunctionEnv

from sparserl.bench.contenders import Entry, give_replay, make, random_replay
from sparserl.bench.masked_dense import hold_masks


def test_masked_weights_are_zero_for_ever_and_only_they() -> None:
    agent = TD3("MlpPolicy", FunctionEnv(), learning_rate=1e-2, policy_kwargs={"net_arch": [16, 16]}, device="cpu")
    masked = hold_masks(agent, 0.25, seed=0)
    assert [tuple(weight.shape) for weight, _ in masked] == [(16, 3), (16, 16)] + 2 * [(16, 5), (16, 16)]
    share = sum(int(mask.sum()) for _, mask in masked) / sum(mask.numel() for _, mask in masked)
    assert abs(share - 0.25) < 0.05
    before = {name: parameter.clone() for name, parameter in agent.policy.named_parameters()}
    give_replay(agent, random_replay(FunctionEnv(), 0))
    agent.set_logger(make(Entry("td3", 1.0), FunctionEnv(), 8, 0).logger)
    agent.train(gradient_steps=40, batch_size=50)
    for weight, mask in masked:
        assert torch.equal(weight == 0, mask == 0)
    masks = {id(weight): mask for weight, mask in masked}
    targets = {**dict(agent.actor.named_parameters()), **dict(agent.critic.named_parameters())}
    for name, parameter in agent.policy.named_parameters():
        online = targets[name.split(".", 1)[1]]
        kept = masks.get(id(online), torch.ones_like(parameter)).bool()
        assert not (parameter[kept] == before[name][kept]).all(), f"{name} learned nothing"
        assert (parameter[~kept] == 0).all(), f"{name} left its mask"
