"""TD3 whose sparsity is imitated by masks, as most code for dynamic sparse training has it.

It exists only to be measured beside truly sparse networks; no agent uses it. It is the cheapest way that masks can
work, one multiplication a weight after each optimizer step, so that it is no straw man: forward and backward passes,
Adam and averaging of targets are those of the dense network.
"""

from __future__ import annotations

import torch
from stable_baselines3 import TD3
from torch import nn

from sparserl.seeding import stream


def hold_masks(agent: TD3, density: float, seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Gives each hidden layer of actor and critics a random mask that holds from now on, in the targets as well.

    Args:
        agent: A dense agent that has not been trained yet.
        density: Share of weights that each mask keeps, in (0, 1].
        seed: Root seed of the masks.

    Returns:
        (weight, mask) of each masked layer, both (n_out, n_in).
    """
    rng = stream(seed, "masked_dense")
    masked = []
    for network, target in ((agent.actor, agent.actor_target), (agent.critic, agent.critic_target)):
        chains = [agent.actor.mu] if network is agent.actor else agent.critic.q_networks
        layers = [[layer for layer in chain.modules() if isinstance(layer, nn.Linear)] for chain in chains]
        hidden = [layer.weight for chain in layers for layer in chain[:-1]]
        pairs = [(weight, torch.from_numpy(rng.random(weight.shape) < density).to(weight.dtype)) for weight in hidden]

        @torch.no_grad()
        def hold(*_: object, pairs: list[tuple[torch.Tensor, torch.Tensor]] = pairs) -> None:
            for weight, mask in pairs:
                weight.mul_(mask)

        hold()
        target.load_state_dict(network.state_dict())
        network.optimizer.register_step_post_hook(hold)
        masked += pairs
    return masked
