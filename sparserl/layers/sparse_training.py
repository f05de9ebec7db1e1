"""The topology clock of a model that `sparsify` made sparse, inside a training loop of the user's.

Decides what follows the connections of its layers: every optimizer that moves their weights, through events and through
states that are loaded. Independent of how layers were chosen (`sparserl.sparsify`) and what events do
(`sparserl.topology`).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from functools import partial
from typing import Any
from weakref import WeakSet

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from sparserl.errors import TopologyError
from sparserl.layers.dense_layers import Origin
from sparserl.layers.sparse_linear import SparseLinear
from sparserl.topology.config import TopologyConfig
from sparserl.topology.event import TopologyEvent
from sparserl.topology.evolver import TopologyEvolver
from sparserl.topology.moments import OptimizerMoments
from sparserl.topology.rewire import difference
from sparserl.topology.structure import FloatArray, SparseTopology, TopologyChange

UNFOLLOWED = "sparsify was given no optimizer"
GROUP = "model"
STORED = "connections"
"""Key in an optimizer's `state_dict`: index of a layer's values among the parameters -> checksum of connections."""
WHOLE_MATRIX = ("muon", "shampoo", "soap", "lbfgs", "kfac", "sparseadam")
"""Words in the names of optimizers that treat a weight as a matrix or all weights as one vector."""


class SparseTraining:
    """The topology clock of one model and the optimizer of its weights; from `sparsify`.

    Call `step` after each step of the optimizer. To resume, build and sparsify the model with the same arguments, then
    load the state of model, optimizer and this, in any order; the run then goes on as if it had not stopped. If only
    the model's state is loaded (its best weights so far), the optimizer's state stays with the connections that both
    have. A layer that is frozen (`requires_grad_(False)`) is not rewired while it is.

    Printed, and in a notebook by its name alone, it is a table of which layers are sparse, and which are not and why.

    Args:
        layers: The sparse layers by their name in the model.
        optimizer: Holds their values; None where `follow` will be given one.
        topology: What happens and when.
        seed: Root seed; each layer draws from its own stream.
        goals: Connections of layers at the end of the rule's density schedule.
        origins: What each layer of the model was, the sparse ones and the others, by name.

    Attributes:
        layers: The sparse layers by their name in the model.
        origins: As above.
    """

    def __init__(
        self,
        layers: Mapping[str, SparseLinear],
        optimizer: torch.optim.Optimizer | None,
        topology: TopologyConfig,
        seed: int,
        goals: Mapping[str, int],
        origins: Mapping[str, Origin],
    ):
        self.layers, self.origins = dict(layers), dict(origins)
        new_value = topology.part("new_value")
        self.evolver = TopologyEvolver(
            {GROUP: self.layers}, topology.rule(), seed=seed, new_value=new_value, goals=goals
        )
        self._topology = topology
        self._followed: list[_Followed] = []
        self._stranger: str | None = None
        if self.layers and optimizer is not None:
            self.follow(optimizer)
        self.evolver.begin_update(1)
        _watch(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for followed in self._followed:
            followed.mark_states()
        _watch(self)

    @property
    def updates(self) -> int:
        """Optimizer steps counted so far."""
        return self.evolver.update - 1

    @property
    def events(self) -> list[TopologyEvent]:
        """Everything that happened to the layers, their initial topologies first."""
        return self.evolver.events

    def follow(self, optimizer: torch.optim.Optimizer) -> None:
        """Carries the state of an optimizer along: the only one, one that was made later, or that wraps the first.

        Args:
            optimizer: Of an elementwise kind; holds weights of sparse layers.

        Raises:
            TopologyError: If it holds none, is not elementwise, or keeps state that is not per connection.
        """
        if any(followed.optimizer is optimizer for followed in self._followed):
            return
        check_elementwise(optimizer)
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        layers = {name: layer for name, layer in self.layers.items() if id(layer.values) in held}
        if not layers:
            raise TopologyError(f"the {type(optimizer).__name__} to follow holds no weights of sparse layers")
        self._topology.check_optimizer(optimizer)
        followed = _Followed(optimizer, layers, self._topology.part("moments"))
        for name, state in followed.states.items():
            self.evolver.follow(name, state)
            self.evolver.set_optimizer(name, partial(getattr, followed, "optimizer"))
        self._followed.append(followed)
        self._stranger = None

    def step(self) -> list[TopologyEvent]:
        """Counts one optimizer step and rewires the layers if that is due.

        Where growth needs gradients, the passes that count are all backward passes since the last call that form
        gradients of the weights, or since as many calls as the rule has `gradient_batches`.

        Returns:
            The events of this step, mostly none.

        Raises:
            TopologyError: If an event needs gradients and a layer took part in no backward pass since the last call, if
                another optimizer than those followed has stepped the weights, or if the optimizer keeps state that is
                not per connection or was stored with other connections than the model has.
        """
        if self._stranger is not None:
            raise TopologyError(
                f"{self._stranger} moves the weights too, but only the optimizer given to sparsify is followed: "
                "call follow(optimizer) on what sparsify returned"
            )
        if self.layers and not self._followed:
            raise TopologyError(f"{UNFOLLOWED}: call follow(optimizer) on what sparsify returned, then step()")
        self._catch_up()
        self.evolver.after_step(GROUP)
        events = self.evolver.end_update(GROUP)
        self.evolver.begin_update(self.evolver.update + 1)
        return events

    @property
    def left_dense(self) -> dict[str, str]:
        """Name of each layer that is not sparse -> why."""
        return {name: origin.dense for name, origin in self.origins.items() if origin.dense is not None}

    def summary(self) -> str:
        """A table of the layers of the model: what each was, its shape and connections, or why it is not sparse."""
        rows = [("layer", "was", "shape", "connections")]
        for name, layer in self.layers.items():
            used = layer.topology.used
            in_use = "" if used is None else f", {used.size:,} in use"
            frozen = "" if layer.values.requires_grad else ", frozen"
            connections = f"{layer.nnz:,}, density {layer.density:.3g}{in_use}{frozen}"
            rows.append((name, self.origins[name].kind, _by(self.origins[name].shape), connections))
        for name, reason in self.left_dense.items():
            rows.append((name, self.origins[name].kind, _by(self.origins[name].shape), f"dense: {reason}"))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows)
        unfollowed = [f"{UNFOLLOWED}: connections stay as they are"] if self.layers and not self._followed else []
        return "\n".join([*(line.rstrip() for line in lines), *unfollowed])

    __repr__ = summary

    def state_dict(self) -> dict[str, Any]:
        """Clock, counters and generators: tensors, numbers and strings only."""
        return self.evolver.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues where `state_dict` was taken; `events` restarts empty.

        Raises:
            TopologyError: If the state belongs to a model with other sparse layers.
        """
        self.evolver.load_state_dict(state)
        self.evolver.begin_update(self.evolver.update)

    def _catch_up(self) -> None:
        """Does for loaded states what events do for themselves."""
        changed = {name for followed in self._followed for name in followed.catch_up()}
        for name in changed:
            self.evolver.adopt(name)

    def _before_step(self, optimizer: torch.optim.Optimizer) -> None:
        if any(followed.optimizer is optimizer for followed in self._followed):
            self._catch_up()
            return
        ids = {id(layer.values) for layer in self.layers.values()}
        if any(id(parameter) in ids for group in optimizer.param_groups for parameter in group["params"]):
            self._stranger = type(optimizer).__name__


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


class _Followed:
    """An optimizer, and its state of each layer.

    Args:
        optimizer: Holds weights of the layers.
        layers: By name.
        moments: Name in `MOMENTS`.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, layers: Mapping[str, SparseLinear], moments: str):
        self.optimizer = optimizer
        self.states = {name: _LayerState(optimizer, layer, moments) for name, layer in layers.items()}
        for name, state in self.states.items():
            state.check(name)
        self._seen = optimizer.state  # `load_state_dict` puts another object in its place
        self._stored: dict[str, int] = {}
        self.mark_states()

    def mark_states(self) -> None:
        """From now on a stored state of the optimizer says which connections it is of."""
        self.optimizer.register_state_dict_post_hook(self._add_checksums)
        self.optimizer.register_load_state_dict_pre_hook(self._note_checksums)

    def _add_checksums(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        indices = self._indices()
        checksums = {indices[name]: _checksum(layer.at) for name, layer in self.states.items()}
        state[STORED] = {**state.get(STORED, {}), **checksums}

    def _note_checksums(self, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
        stored = state.get(STORED, {})
        self._stored = {name: stored[index] for name, index in self._indices().items() if index in stored}

    def _indices(self) -> dict[str, str]:
        parameters = (parameter for group in self.optimizer.param_groups for parameter in group["params"])
        indices = {id(parameter): str(index) for index, parameter in enumerate(parameters)}
        return {name: indices[id(state.layer.values)] for name, state in self.states.items()}

    def catch_up(self) -> list[str]:
        """Brings each layer's state to the connections that the layer has now.

        Returns:
            Names of layers whose connections are others than at the last call or event.

        Raises:
            TopologyError: If a state was loaded that is of connections that the model does not have.
        """
        loaded = self.optimizer.state is not self._seen
        stored = self._stored if loaded else {}
        changed = []
        for name, state in self.states.items():
            now = state.layer.topology
            if now is state.at and not loaded:
                continue
            if loaded and stored.get(name, _checksum(now)) == _checksum(now):
                moves = None
            elif not loaded or stored[name] == _checksum(state.at):
                moves = difference(state.at, now)
            else:
                raise TopologyError(
                    f"the loaded state of {type(self.optimizer).__name__} is of other connections than layer {name!r} "
                    "has: load the model's state that was stored with it"
                )
            if now is not state.at:
                changed.append(name)
            state.bring_to(now, moves, name)
        self._seen, self._stored = self.optimizer.state, {}
        return changed


class _LayerState:
    """What an optimizer knows of one layer, and the connections that it is of.

    Args:
        optimizer: Holds the layer's values.
        layer: The layer.
        moments: Name in `MOMENTS`.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, layer: SparseLinear, moments: str):
        self.layer, self.at = layer, layer.topology
        self._carry = OptimizerMoments(optimizer, layer.values, moments)

    def __call__(self, change: TopologyChange, grown_values: float | FloatArray) -> None:
        self._carry(change, grown_values)
        self.at = change.new

    def bring_to(self, now: SparseTopology, moves: TopologyChange | None, name: str) -> None:
        """After a state was loaded: moves what the optimizer knows, or takes it as it is if `moves` is None."""
        if moves is not None and (moves.grown or moves.dropped):
            self._carry(moves, 0.0)
        self.at = now
        self.check(name)

    def check(self, name: str) -> None:
        """Raises TopologyError unless the optimizer's state is per connection, or one number for all."""
        for key, state in self._carry.optimizer.state.get(self.layer.values, {}).items():
            if torch.is_tensor(state) and state.shape not in ((), (self.at.nnz,)):
                shape = tuple(state.shape)
                raise TopologyError(
                    f"optimizer state {key!r} of layer {name!r}, shape {shape}, is not per connection ({self.at.nnz})"
                )


def _checksum(topology: SparseTopology) -> int:
    return zlib.crc32(topology.flat.tobytes())


def check_elementwise(optimizer: torch.optim.Optimizer) -> None:
    """Raises TopologyError if an optimizer is known not to move each weight by itself, or hides tensors."""
    kind = type(optimizer)
    names = [base.__name__.lower() for base in kind.__mro__]
    if any(word in name for name in names for word in WHOLE_MATRIX):
        raise TopologyError(
            f"{kind.__name__} does not move each weight by itself, so a sparse layer cannot train with it; "
            "use an elementwise optimizer such as Adam, AdamW, RMSprop or SGD"
        )
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for name, value in vars(optimizer).items():
        if name not in ("state", "param_groups", "defaults") and _has_tensors(value, held):
            raise TopologyError(
                f"{kind.__name__} keeps tensors outside its `state`, in {name!r}, which cannot follow the connections; "
                "for slow or averaged weights use sparserl.average"
            )


def _has_tensors(value: Any, but: set[int]) -> bool:
    """Whether a value is, or holds in lists and dicts, a tensor with entries that is not one of `but`."""
    if isinstance(value, torch.Tensor):
        return value.dim() > 0 and id(value) not in but
    if isinstance(value, Mapping):
        return any(_has_tensors(part, but) for part in value.values())
    return isinstance(value, list | tuple) and any(_has_tensors(part, but) for part in value)


_TRAININGS: WeakSet[SparseTraining] = WeakSet()
_HOOKS: list[Any] = []


def _watch(training: SparseTraining) -> None:
    """Lets a training see every optimizer step of the process: another optimizer may move its weights, too."""
    if training.layers:
        _TRAININGS.add(training)
        if not _HOOKS:
            _HOOKS.append(register_optimizer_step_pre_hook(_before_any_step))


def _before_any_step(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    for training in list(_TRAININGS):
        training._before_step(optimizer)
