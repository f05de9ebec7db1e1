"""What a rule takes note of between its events: signs and thresholds, and what the optimizer of each layer can tell.

Also moves weights beside the optimizer's steps, where a rule pulls at them. Decides no event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sparserl.errors import TopologyError
from sparserl.seeding import stream
from sparserl.topology.history import History
from sparserl.topology.moments import Entries, learning_rate_of, momentum_of
from sparserl.topology.pairs import group_signs, of_groups
from sparserl.topology.rewire import RewireRule
from sparserl.topology.structure import EvolvingLayer, FloatArray, SparseTopology


class BetweenEvents:
    """What is kept for the events to come, and at every step.

    Args:
        groups: Group of each layer by the layer's full name.
        rule: What is kept depends on it; later rules must need the same.
        seed: Root seed; each layer's noise comes from its own stream.

    Attributes:
        optimizers: By layer, what gives the optimizer that moves its weights.
    """

    def __init__(self, groups: Mapping[str, str], rule: RewireRule | None, seed: int):
        self.optimizers: dict[str, Callable[[], torch.optim.Optimizer]] = {}
        self._group = dict(groups)
        adapting = rule.drop_threshold if rule is not None and rule.needs_threshold else None
        self._thresholds = {} if adapting is None else dict.fromkeys(groups.values(), adapting)
        noisy = rule is not None and rule.weight_noise > 0.0
        self._noise = {name: stream(seed, "weight_noise", name) for name in groups} if noisy else {}
        self._signs: dict[str, npt.NDArray[np.int8]] = {}
        self._told: set[str] = set()  # layers whose signs were loaded, and have seen no event since

    def note(self, name: str, layer: EvolvingLayer, rule: RewireRule | None) -> None:
        """Takes note of a layer as an event has left it."""
        self._told.discard(name)
        if rule is not None and rule.needs_signs:
            self._signs[name] = group_signs(layer.topology, layer.values.detach().numpy())

    def note_anew(self, name: str, layer: EvolvingLayer, entries: Entries) -> None:
        """Takes note of weights that something else than steps has set: their signs count from now on."""
        if name not in self._signs:
            return
        touched = torch.zeros(layer.topology.nnz, dtype=torch.bool)
        touched[entries] = True
        slots = of_groups(layer.topology, touched.numpy())
        self._signs[name][slots] = group_signs(layer.topology, layer.values.detach().numpy())[slots]

    def note_loaded(self, name: str, layer: EvolvingLayer, rule: RewireRule | None) -> None:
        """Takes note of a layer as a loaded state has left it; what was loaded here belongs to the same connections."""
        if not (name in self._told and self._signs[name].size == layer.topology.nnz):
            self.note(name, layer, rule)
        self._told.discard(name)

    def asked(self, name: str, layer: EvolvingLayer, rule: RewireRule, history: History) -> dict[str, Any]:
        """What a rule asks for beside the layer itself, by field of its view.

        Args:
            name: Of the layer.
            layer: It.
            rule: Of the event.
            history: What it has been.
        """
        threshold = self._thresholds.get(self._group[name], rule.drop_threshold)
        asked: dict[str, Any] = {"gradient_weight": rule.gradient_weight, "threshold": threshold}
        if rule.needs_explored:
            asked["explored"] = history.explored
        if rule.needs_own_gradient and layer.values.grad is not None:
            asked["gradient"] = layer.values.grad.numpy()
        if rule.needs_signs:
            asked["signs"] = self._signs.get(name)
        if rule.needs_momentum:
            asked["momentum"] = momentum_of(self._optimizer_of(name, "a budget by momentum"), layer.values)
        return asked

    def adapt(self, group: str, rule: RewireRule, update: int, dropped: int, existed: int) -> None:
        """Moves the threshold of a group after an event; arguments as of `RewireRule.next_threshold`."""
        if group in self._thresholds:
            self._thresholds[group] = rule.next_threshold(self._thresholds[group], update, dropped, existed)

    def pull(self, layers: Mapping[str, EvolvingLayer], rule: RewireRule) -> None:
        """Moves each weight w by the learning rate times (`weight_noise` N(0, 1) - `weight_l1` sign - `weight_l2` w).

        The sign is that after the last event where the rule asks for it and neurons share no inputs. Of a weight that
        products do not use the last term counts as many times as one over the density of those in use. Layers that are
        frozen stay.

        Raises:
            TopologyError: If the optimizer of a layer is not known, or has no learning rate.

        Source:
            Bellec et al. 2018 (DeepR), code; Jayakumar et al. 2020 (Top-KAST), the exploration loss, whose gradient the
            last term is; beside the step itself, whatever optimizer takes it.
        """
        for name, layer in layers.items():
            if not layer.values.requires_grad:
                continue
            values: FloatArray = layer.values.detach().numpy()
            rate = learning_rate_of(self._optimizer_of(name, "a pull at weights"), layer.values)
            own = self._signs.get(name) if layer.topology.pairs == 1 else None
            moved = -rate * rule.weight_l1 * (np.sign(values) if own is None else own)
            if rule.weight_l2:
                moved -= rate * rule.weight_l2 * values * _scale_of_l2(layer.topology)
            if name in self._noise:
                moved += rate * rule.weight_noise * self._noise[name].standard_normal(values.size)
            values += moved.astype(values.dtype)

    def _optimizer_of(self, layer: str, user: str) -> torch.optim.Optimizer:
        if layer not in self.optimizers:
            raise TopologyError(f"{user} needs the optimizer of layer {layer!r}: tell it by `set_optimizer`")
        return self.optimizers[layer]()

    def state_dict(self) -> dict[str, Any]:
        """What the rule needs alone: checkpoints of before there were such rules have none of it."""
        by_rule: dict[str, Any] = {
            "thresholds": dict(self._thresholds),
            "signs": {name: torch.from_numpy(signs) for name, signs in self._signs.items()},
            "noise": {name: rng.bit_generator.state for name, rng in self._noise.items()},
        }
        return {key: kept for key, kept in by_rule.items() if kept}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues where `state_dict` was taken, in whatever else the mapping holds."""
        self._thresholds = dict(state.get("thresholds", {}))
        self._signs = {name: signs.numpy() for name, signs in state.get("signs", {}).items()}
        self._told = set(self._signs)
        for name, generator_state in state.get("noise", {}).items():
            self._noise[name].bit_generator.state = generator_state


def _scale_of_l2(topology: SparseTopology) -> FloatArray | float:
    """(nnz,) of each weight: 1 where products use it, and elsewhere one over the density of those that they use."""
    used = topology.used
    if used is None or used.size == 0:
        return 1.0
    scale = np.full(topology.nnz, topology.size / used.size)
    scale[used] = 1.0
    return scale
