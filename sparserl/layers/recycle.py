"""Recycling of dormant neurons within the connections that exist (ReDo).

Decides which weights, biases and optimizer state start anew. Never changes which connections exist, and independent of
about agents: they hand in networks, their optimizers and a batch of inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from sparserl.errors import TopologyError, unknown_name
from sparserl.layers.activity import NEURON_SCORES
from sparserl.layers.linear import linear
from sparserl.layers.sparse_mlp import SparseMLP
from sparserl.seeding import stream
from sparserl.topology.dormant import check_threshold, dormancy_scores, dormant
from sparserl.topology.moments import Entries
from sparserl.topology.structure import Flags


@torch.no_grad()
def recycle(
    incoming: nn.Module, outgoing: nn.Module, neurons: Flags, optimizer: torch.optim.Optimizer, rng: np.random.Generator
) -> None:
    """Lets some neurons between two consecutive layers start anew, in place; O(connections of both layers).

    Weights into a neuron are drawn as both kinds of layer draw their first ones (uniform in +-1/sqrt(n_in), also where
    the network began otherwise), its bias and the weights out of it become 0, and so does the optimizer's state of all
    of these. The output of the network loses what the neuron contributed and gains nothing. In a chain, go from the
    last pair of layers to the first: a weight between two recycled neurons is then 0, as in the original code.

    Args:
        incoming: The linear layer whose outputs the neurons are.
        outgoing: The layer that reads them.
        neurons: (n,) which of them start anew.
        optimizer: Holds the parameters of both layers. State is told apart by shape, as in
            `sparserl.topology.evolver.OptimizerMoments`; what has no dimensions, as the step count, stays.
        rng: Draws the weights, in the order of their slots.

    Raises:
        TopologyError: If the layers and `neurons` do not fit each other, or the optimizer keeps a tensor of another
            shape than its parameter.

    Source:
        Sokar et al. 2023 (ReDo), Algorithm 1, and its code (`labs/redo` of Dopamine), where the step count stays too.

    Known differences from that code:
        - Only connections that exist are drawn or set to 0.
        - Weights are drawn as these layers draw their initial ones; there, by Xavier's rule.
        - The bias starts without moments; there, it keeps them.
    """
    before, after = linear(incoming), linear(outgoing)
    (n_out, n_in), (_, n_read) = before.shape, after.shape
    if neurons.shape != (n_out,) or n_read != n_out:
        raise TopologyError(f"{neurons.size} neurons do not fit a layer of {n_out} outputs and one of {n_read} inputs")
    into = before.into(neurons)
    bound = 1.0 / math.sqrt(n_in)
    drawn = torch.from_numpy(rng.uniform(-bound, bound, before.weights[into].shape)).to(before.weights.dtype)
    _restart(optimizer, before.weights, into, drawn)
    if before.bias is not None:
        _restart(optimizer, before.bias, (torch.from_numpy(neurons),), 0.0)
    _restart(optimizer, after.weights, after.out_of(neurons), 0.0)


def _restart(
    optimizer: torch.optim.Optimizer, parameter: torch.Tensor, entries: Entries, start: float | torch.Tensor
) -> None:
    """Gives some entries of a parameter a new value and no history."""
    for name, state in optimizer.state.get(parameter, {}).items():
        if not torch.is_tensor(state) or state.dim() == 0:
            continue
        if state.shape != parameter.shape:
            raise TopologyError(f"optimizer state {name!r} of shape {tuple(state.shape)} is not per connection")
        state[entries] = 0.0  # in place: an optimizer may know its state by address
    parameter[entries] = start


class Recycler:
    """Recycles the dormant hidden neurons of some networks on a clock of gradient updates.

    Output layers are never recycled, nor are neurons into which no connection leads: nothing could wake them, and they
    do not count. Target networks are not touched, as in the original code; they follow by averaging.

    Args:
        networks: By name, a module that holds `SparseMLP`s (or is one) and the optimizer of their parameters.
        interval: Gradient updates between recyclings, >= 1.
        threshold: Score up to which a neuron is dormant, in [0, 1).
        seed: Root seed; each layer draws from its own stream.
        by: Name in `NEURON_SCORES`: what is next to nothing for neurons that start anew. By relevance, in either
            direction; Mozer and Smolensky 1989 remove those of lowest relevance instead.

    Attributes:
        score: What `by` names.
        began_anew: Called with the full name of a layer and the entries of its weights that were set, if not None.
        recycled_total: Neurons recycled so far, by full name of the layer that leads to them, e.g. `critic.qf0.0`.

    Raises:
        TopologyError: If a number is out of range, a module holds no `SparseMLP`, or one with residual blocks.
    """

    def __init__(
        self,
        networks: Mapping[str, tuple[nn.Module, torch.optim.Optimizer]],
        *,
        interval: int,
        threshold: float,
        seed: int,
        by: str = "dormant",
    ):
        if by not in NEURON_SCORES:
            raise TopologyError(unknown_name("score of neurons", by, NEURON_SCORES))
        self.score = NEURON_SCORES[by]
        if interval < 1:
            raise TopologyError(f"the recycling interval must be >= 1, got {interval}")
        check_threshold(threshold)
        self.interval, self.threshold = interval, threshold
        self.began_anew: Callable[[str, Entries], None] | None = None
        self._networks = [
            (group, name, mlp, optimizer)
            for group, (module, optimizer) in networks.items()
            for name, mlp in _networks_in(module, group).items()
        ]
        for _, name, mlp, _ in self._networks:
            if mlp.after is not None:
                raise TopologyError(
                    f"{name} has residual blocks, whose neurons are not recycled: leave topology.recycle_interval out"
                )
        names = [f"{name}.{level}" for _, name, mlp, _ in self._networks for level in range(len(mlp) - 1)]
        self.recycled_total = dict.fromkeys(names, 0)
        self._rng = {name: stream(seed, "recycle", name) for name in names}

    def is_due(self, update: int) -> bool:
        """Whether neurons are recycled after gradient update number `update`, counted from 1."""
        return update % self.interval == 0

    def recycle_if_due(self, update: int, inputs: Mapping[str, torch.Tensor]) -> dict[str, int]:
        """Call after the optimizer steps and topology events of an update.

        Args:
            update: Its number, counted from 1.
            inputs: (B, n_in) what the networks of each name read; looked at only when due.

        Returns:
            Neurons recycled, by full name of the layer that leads to them; empty when not due.

        Raises:
            TopologyError: If an activity is not finite, weights have no gradients where their score needs them, or as
                `recycle`.
        """
        if not self.is_due(update):
            return {}
        recycled = dict.fromkeys(self.recycled_total, 0)
        for group, name, mlp, optimizer in self._networks:
            measured = self.score.measure(mlp, inputs[group])
            for level in reversed(range(len(measured))):
                incoming, outgoing = mlp[level], mlp[level + 1]
                neurons = dormant(dormancy_scores(measured[level]), self.threshold) & (linear(incoming).fan_in > 0)
                full_name = f"{name}.{level}"
                recycle(incoming, outgoing, neurons, optimizer, self._rng[full_name])
                if self.began_anew is not None:
                    self.began_anew(full_name, linear(incoming).into(neurons))
                    self.began_anew(f"{name}.{level + 1}", linear(outgoing).out_of(neurons))
                recycled[full_name] = int(np.count_nonzero(neurons))
                self.recycled_total[full_name] += recycled[full_name]
        return recycled

    def state_dict(self) -> dict[str, Any]:
        """Counters and generators: numbers and strings only."""
        return {
            "recycled_total": dict(self.recycled_total),
            "generators": {name: rng.bit_generator.state for name, rng in self._rng.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Continues where `state_dict` was taken.

        Args:
            state: From `state_dict`.
            strict: Accepted because Stable-Baselines3 passes it; a state that does not fit is refused either way.

        Raises:
            TopologyError: If the state belongs to other layers.
        """
        del strict
        if set(state["generators"]) != set(self._rng):
            raise TopologyError("the stored recycler belongs to a network with other layers")
        self.recycled_total = dict(state["recycled_total"])
        for name, generator_state in state["generators"].items():
            self._rng[name].bit_generator.state = generator_state


def _networks_in(module: nn.Module, prefix: str) -> dict[str, SparseMLP]:
    """The networks of a module by full name, e.g. `critic.qf0`.

    Raises:
        TopologyError: If there is none.
    """
    networks = {
        f"{prefix}.{name}" if name else prefix: part
        for name, part in module.named_modules()
        if isinstance(part, SparseMLP)
    }
    if not networks:
        raise TopologyError(f"{prefix!r} has no sparse network whose neurons could be recycled")
    return networks
