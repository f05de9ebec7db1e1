"""FLOPs of the updates of TD3 and SAC by formula: what agents that count their products must arrive at.

2 FLOPs a weight and sample for each forward pass, input gradient and weight gradient. The first layer needs no input
gradient, except of the critics in the policy update, where dense agents of Stable-Baselines3 form weight gradients of
the critics too and use none of them. Counting rule of Sokar et al. 2022, extended by the passes it leaves out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from sparserl.metrics.cost import layer_costs


def product(network: nn.Module) -> int:
    """FLOPs of one product with every layer, for one sample."""
    return 2 * sum(layer.weights for layer in layer_costs(network))


def forward(networks: Iterable[nn.Module]) -> int:
    return sum(map(product, networks))


def trained(network: nn.Module) -> int:
    """A forward pass, and every gradient but that of the network's input."""
    return 3 * product(network) - 2 * layer_costs(network)[0].weights


def update_flops(
    actor: nn.Module,
    critics: Sequence[nn.Module],
    targets: Sequence[nn.Module],
    judges: Sequence[nn.Module],
    batch_size: int,
    *,
    critic_gradients: bool,
) -> tuple[int, int]:
    """FLOPs of an update of the critics, and of the actor.

    Args:
        actor: Trained actor.
        critics: Trained critics.
        targets: What makes the targets: one forward pass each.
        judges: Critics that train the actor.
        batch_size: Samples per update.
        critic_gradients: Whether the actor's update also forms the critics' weight gradients.
    """
    of_critics = forward(targets) + sum(map(trained, critics))
    of_actor = trained(actor) + (3 if critic_gradients else 2) * forward(judges)
    return batch_size * of_critics, batch_size * of_actor


def of_agent(agent: Any) -> tuple[int, int]:
    """FLOPs of the two kinds of update of a TD3 or SAC, dense or sparse, at the sizes it has."""
    critics, targets = list(agent.critic.q_networks), list(agent.critic_target.q_networks)
    is_td3 = hasattr(agent, "actor_target")
    judges = getattr(agent, "actor_q", "first" if is_td3 else "min")
    return update_flops(
        agent.actor,
        critics,
        [agent.actor_target if is_td3 else agent.actor, *targets],
        critics[:1] if judges == "first" else critics,
        agent.batch_size,
        critic_gradients=agent.evolver is None,
    )
