"""What a method costs: parameters, bytes, and floating-point operations. What is counted is said at each number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from sparserl.layers import SparseLinear


@dataclass(frozen=True)
class LayerCost:
    """Sizes of one linear layer.

    Attributes:
        weights: Weights that exist.
        weights_dense: Weights of the dense layer.
        biases: Biases.
    """

    weights: int
    weights_dense: int
    biases: int


def layer_costs(network: nn.Module) -> list[LayerCost]:
    """Sizes of every linear layer of a network, sparse or dense, in order."""
    costs = []
    for layer in network.modules():
        if isinstance(layer, SparseLinear):
            weights, dense = layer.nnz, layer.n_out * layer.n_in
        elif isinstance(layer, nn.Linear):
            weights = dense = layer.weight.numel()
        else:
            continue
        costs.append(LayerCost(weights, dense, 0 if layer.bias is None else layer.bias.numel()))
    return costs


def params_nonzero(networks: Iterable[nn.Module]) -> int:
    """Connections plus biases."""
    return sum(cost.weights + cost.biases for network in networks for cost in layer_costs(network))


def params_dense(networks: Iterable[nn.Module]) -> int:
    """Weights plus biases of the same architecture, dense."""
    return sum(cost.weights_dense + cost.biases for network in networks for cost in layer_costs(network))


def bytes_parameters(networks: Iterable[nn.Module]) -> int:
    """Memory of all parameters, measured from the tensors."""
    return sum(p.numel() * p.element_size() for network in networks for p in network.parameters())


def bytes_optimizer(optimizers: Iterable[torch.optim.Optimizer]) -> int:
    """Memory of all optimizer state, measured from the tensors; 0 before the first step."""
    return sum(
        tensor.numel() * tensor.element_size()
        for optimizer in optimizers
        for state in optimizer.state.values()
        for tensor in state.values()
        if torch.is_tensor(tensor)
    )


def bytes_indices(networks: Iterable[nn.Module]) -> int:
    """Memory of all indices of connections, those for the backward pass included, measured from the arrays."""
    return sum(
        layer.index_bytes() for network in networks for layer in network.modules() if isinstance(layer, SparseLinear)
    )


def _product(costs: Sequence[LayerCost]) -> int:
    """FLOPs of one product with every layer, for one sample: a multiplication and an addition per weight."""
    return sum(2 * cost.weights for cost in costs)


@dataclass(frozen=True)
class UpdateFlops:
    """FLOPs of the two kinds of gradient update of an actor-critic, for a whole batch."""

    critic: int
    policy: int


def _forward(networks: Iterable[nn.Module]) -> int:
    return sum(_product(layer_costs(network)) for network in networks)


def _trained(network: nn.Module) -> int:
    """A forward pass, and every gradient but that of the network's input."""
    layers = layer_costs(network)
    return 3 * _product(layers) - _product(layers[:1])


def td3_update_flops(
    actor: nn.Module,
    critics: Sequence[nn.Module],
    actor_target: nn.Module,
    critic_targets: Sequence[nn.Module],
    batch_size: int,
    *,
    critic_gradients_in_policy_update: bool,
) -> UpdateFlops:
    """Every product of one update: 2 FLOPs a weight and sample for each forward pass, input and weight gradient.

    Biases, activations, optimizer and target averaging are not counted: they are linear in parameters or neurons and
    not multiplied by the batch. The first layer needs no input gradient, except of the critic in the policy update.

    Args:
        actor: Trained actor.
        critics: Trained critics; the first one trains the actor.
        actor_target: Its target.
        critic_targets: Their targets.
        batch_size: Samples per update.
        critic_gradients_in_policy_update: Whether the policy update also forms the critic's weight gradients, which it
            does not use (Stable-Baselines3 does).

    Source:
        Counting rule of Sokar et al. 2022, extended by the passes it leaves out (targets, the actor's loss through the
        critic).
    """
    critic_step = _forward([actor_target, *critic_targets]) + sum(map(_trained, critics))
    through_critic = (3 if critic_gradients_in_policy_update else 2) * _forward(critics[:1])
    return UpdateFlops(batch_size * critic_step, batch_size * (_trained(actor) + through_critic))


def sac_update_flops(
    actor: nn.Module,
    critics: Sequence[nn.Module],
    critic_targets: Sequence[nn.Module],
    batch_size: int,
    *,
    critic_gradients_in_policy_update: bool,
) -> UpdateFlops:
    """As `td3_update_flops`: here the actor itself gives the next action, and all critics train it."""
    critic_step = _forward([actor, *critic_targets]) + sum(map(_trained, critics))
    through_critics = (3 if critic_gradients_in_policy_update else 2) * _forward(critics)
    return UpdateFlops(batch_size * critic_step, batch_size * (_trained(actor) + through_critics))


def flops_short(actor: nn.Module, critics: Sequence[nn.Module], batch_size: int, policy_delay: int) -> float:
    """FLOPs of one update by the paper's short rule, `6 batch (W_critics + W_actor / delay)`.

    Targets and the pass of the actor's loss through the critic are left out.

    Source:
        Sokar et al. 2022, Table 3; 1.07e14 for dense TD3 on HalfCheetah.
    """
    return 3.0 * batch_size * (_forward(critics) + _forward([actor]) / policy_delay)


def gradient_event_flops(layers: Iterable[SparseLinear], batch_size: int) -> int:
    """FLOPs of forming the dense weight gradient of each layer once, as growth by gradient does."""
    return sum(2 * layer.n_out * layer.n_in * batch_size for layer in layers)
