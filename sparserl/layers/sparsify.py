"""Makes a torch model truly sparse in place, and rewires it while its own training loop runs.

Decides which layers take part and how their parameters, gradients and optimizer state are carried over. Independent of
losses, data and agents; which modules have a sparse form is decided in `sparserl.layers.replaceable`, what is dropped
and grown in `sparserl.topology`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any

import numpy as np
import torch
from torch import nn

from sparserl.errors import ConfigError, TopologyError, unknown_name
from sparserl.layers.dense_layers import Origin, Weight
from sparserl.layers.linear import linear
from sparserl.layers.one_shot import judged
from sparserl.layers.replaceable import FORMS, KINDS, joined, layers_of
from sparserl.layers.sparse_linear import SparseLinear, check_has_kernels
from sparserl.layers.sparse_training import SparseTraining, check_elementwise
from sparserl.topology.config import TopologyConfig
from sparserl.topology.config_options import OWN_DENSITIES
from sparserl.topology.density import Shape
from sparserl.topology.one_shot import ONE_SHOT
from sparserl.topology.structure import SparseTopology

NOT_HERE = (
    *OWN_DENSITIES,
    "initial_value",
    "recycle_interval",
    "recycle_threshold",
    "recycle_by",
    "replaces_step",
    "budget_scope",
    "target",
)
"""Fields of a `TopologyConfig` that do not apply to a model in a training loop of the user's."""


def sparsify(
    module: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    *,
    density: float | Sequence[float] | None = None,
    method: str = "set",
    exclude: Sequence[str] = (),
    seed: int = 0,
    total_updates: int | None = None,
    loss: Callable[[], torch.Tensor] | None = None,
    **topology: Any,
) -> SparseTraining:
    """Replaces the layers of a model by truly sparse ones, in place.

    `nn.Linear` becomes `SparseLinear`, and `nn.LSTM`, `nn.GRU`, `nn.Conv1d`, `nn.Conv2d` and `nn.MultiheadAttention`
    become modules that are called alike, whose matrices are `SparseLinear` layers (`lstm.hh_l0`, `conv.kernel`,
    `attention.q_proj`). Each layer keeps a random subset of its connections with the weights they have, or all of them
    where the method prunes while the model trains; biases are the same parameters as before. In the optimizer the
    values take the place of the dense weight, in the same parameter group, and what it has gathered about the
    connections that stay (moments, step counts) stays with them. If an argument is refused, neither model nor optimizer
    has changed. torch's global generator is left as it is.

    Only modules whose class is exactly one of these take part: a subclass may have a forward pass of its own. A module
    that reads `linear.weight` itself needs its layers in `exclude`. A layer that is frozen (its weight requires no
    gradient) or whose density comes out as 1 stays dense, too; the result prints as a table of all layers, with the
    reason where one is dense. Convolutions multiply unfolded patches: they pay where memory or few connections count,
    and are slower than torch's own at high densities.

    Args:
        module: The model, on the CPU, float32 or float64.
        optimizer: Of any elementwise kind; holds the weight of every layer that takes part. None where there is none
            yet: connections stay as they are until `follow(optimizer)` of what is returned, and `step()` refuses.
        density: Share of connections that exist, in (0, 1], at the end of pruning if there is any: one number, shared
            out among the layers that take part (by Erdos-Renyi, wide layers sparser, unless `allocation` says
            otherwise), or a number for each of them in the order of `named_modules`; 0.1 if neither it nor `epsilon` is
            given.
        method: Name in `sparserl.topology.methods.METHODS`. Some keep the last layer dense unless it is the only one;
            `output_layer` says otherwise.
        exclude: Names of layers that stay dense, or of modules all of whose layers do, as in `named_modules` or in the
            table.
        seed: Root seed of initial topology and growth.
        total_updates: Optimizer steps of the whole run: rewiring begins and ends at the method's shares of them. Not
            needed where the length is no matter (`set`, `anf`, `static`) or `first_update` and `last_update` are given.
        loss: Returns the loss of a batch, by which connections are judged where `initial_topology` (or `method`) is
            `snip` or `grasp`; called once. Layers keep the weights that they have.
        **topology: Further fields of `sparserl.topology.config.TopologyConfig`, as agents take them, e.g.
            `update_interval=200` or `pairs=2`; all but densities of actor and critic, the initial value (weights are
            kept), targets and recycling. Growth by activations sees what a layer gives, before whatever your model does
            to it.

    Returns:
        The object whose `step()` is to be called after each `optimizer.step()`.

    Raises:
        ConfigError: If a name or key is unknown, a number out of range, the method depends on the length of the run and
            that is not given, the model is itself a layer or has none to make sparse.
        TopologyError: If a rule or number of densities does not fit, pruning would end after the run, `pairs` does not
            divide the outputs of a layer that takes part, a weight is shared with another module or not in the
            optimizer, a module or a weight has hooks, a module an option that its sparse form lacks (groups of a
            convolution, two directions or projections of an LSTM, added biases of an attention), or the optimizer is
            not elementwise (Muon, LBFGS, Shampoo), keeps state that is not per connection, or cannot count the steps of
            each (moments `fresh`).
        KernelUnavailable: If a layer is on another device than the CPU or of another dtype than float32 and float64.

    Source:
        Mocanu et al. 2018 (SET), Evci et al. 2020 (RigL), ... as in `METHODS`; here an absent connection is not a
        masked one: it has no weight, gradient or moment.

    Example:
        >>> model = nn.Sequential(nn.Linear(20, 100), nn.ReLU(inplace=True), nn.Linear(100, 1))
        >>> optimizer = torch.optim.Adam(model.parameters())
        >>> evolver = sparsify(model, optimizer, density=0.1, method="set", update_interval=2)
        >>> model[0]
        SparseLinear(20 -> 100, nnz=200, density=0.1)
        >>> for _ in range(2):
        ...     optimizer.zero_grad()
        ...     model(torch.ones(8, 20)).square().mean().backward()
        ...     optimizer.step()
        ...     events = evolver.step()
        >>> [(event.update, event.layer, event.kind, event.nnz) for event in evolver.events]
        [(0, '0', 'initial', 200), (1, '0', 'rewire', 200)]
    """
    if seed < 0:
        raise ConfigError(f"seed must be >= 0, got {seed}")
    config = _config(density, method, total_updates, topology)
    if loss is not None and not config.judged_by_batch:
        kind = config.part("initial_topology")
        raise ConfigError(f"loss has no effect: initial_topology {kind!r} judges by no batch; use 'snip' or 'grasp'")
    weights, origins = _participants(module, [exclude] if isinstance(exclude, str) else exclude, config)
    shapes = [weight.shape for weight in weights.values()]
    goals: dict[str, int] = {}
    begins = list(zip(shapes, config.shared_out(shapes), config.shared_out_at_first(shapes), strict=True))
    by_scores = _by_scores(config, weights, begins, loss, seed)
    topologies: dict[str, SparseTopology] = {}
    used: dict[str, int | None] = {}
    for name, begin in zip(weights, begins, strict=True):
        if begin[1] == 1.0 and name not in by_scores:
            reason = f"method {method!r} makes nothing sparse" if config.base.dense else "its density is 1"
            origins[name] = replace(origins[name], dense=reason)
            continue
        check_has_kernels(weights[name].parameter, f"layer {name!r} is")
        topologies[name] = by_scores[name] if by_scores else config.initial(*begin[:2], seed, name, begin[2])
        used[name] = config.used(*begin[:2])
        goal = config.goal(*begin[:2])
        if goal is not None:
            goals[name] = goal
    if topologies and optimizer is not None:
        check_elementwise(optimizer)
        config.check_optimizer(optimizer)
    swaps = list(_swaps(module, optimizer, topologies))
    names = {} if optimizer is None else _names_in(optimizer)
    known = {parameter: name for name, parameter in module.named_parameters()}
    # Nothing has changed so far, and nothing below is refused.
    layers = {name: layer for swap in swaps for name, layer in swap.carry_out(module, optimizer).items()}
    if optimizer is not None and names:
        _rename(optimizer, names, known, {parameter: name for name, parameter in module.named_parameters()})
    for name, layer in layers.items():
        layer.begin_use(used[name])
    return SparseTraining(layers, optimizer, config, seed, goals, origins)


def _by_scores(
    config: TopologyConfig,
    weights: Mapping[str, Weight],
    begins: Sequence[tuple[Shape, float, float | None]],
    loss: Callable[[], torch.Tensor] | None,
    seed: int,
) -> dict[str, SparseTopology]:
    """What layers keep by scores of their weights; empty where chance decides."""
    if config.part("initial_topology") not in ONE_SHOT:
        return {}
    takes_part = [begin[1] < 1.0 or config.compares_layers for begin in begins]
    taken = {name: weight for (name, weight), takes in zip(weights.items(), takes_part, strict=True) if takes}
    for name, weight in taken.items():
        check_has_kernels(weight.parameter, f"layer {name!r} is")
    return judged(config, taken, list(compress(begins, takes_part)), loss, seed)


@dataclass(frozen=True)
class _Part:
    """What a matrix of a module becomes.

    Attributes:
        weight: It.
        topology: The connections it keeps; None where it stays dense.
        state: What the optimizer knows of these connections.
    """

    weight: Weight
    topology: SparseTopology | None
    state: dict[str, Any]

    def layer(self) -> nn.Module:
        """The layer that has them, and the gradient that they have."""
        weight, gradient = self.weight, self.weight.parameter.grad
        if self.topology is None:
            n_out, n_in = weight.shape
            dense = nn.Linear(n_in, n_out, bias=False, device="meta")
            dense.weight, dense.bias = weight.parameter, weight.bias  # type: ignore[assignment]  # None is a bias
            if weight.rows[1] > 1:
                part = weight.of(weight.parameter.detach()).clone()
                dense.weight = nn.Parameter(part, weight.parameter.requires_grad)
                dense.weight.grad = None if gradient is None else weight.of(gradient).clone()
            return dense
        values = _gather(weight.of(weight.parameter), self.topology)
        layer = SparseLinear.of(self.topology, values, weight.bias)
        if gradient is not None:
            layer.values.grad = _gather(weight.of(gradient), self.topology)
        return layer


@dataclass(frozen=True)
class _Swap:
    """One module's replacement, planned in full before the first one is made.

    Attributes:
        name: Its name in the model.
        module: It.
        parts: Its matrices by the name of the layer in what takes its place.
    """

    name: str
    module: nn.Module
    parts: Mapping[str, _Part]

    def carry_out(self, module: nn.Module, optimizer: torch.optim.Optimizer | None) -> dict[str, SparseLinear]:
        """The new sparse layers by their names in the model."""
        layers = {own: part.layer() for own, part in self.parts.items()}
        place = FORMS[type(self.module)].made(self.module, layers).train(self.module.training)
        for name, child in list(module.named_modules(remove_duplicate=False)):
            if child is self.module:
                module.set_submodule(name, place)
        takers: dict[nn.Parameter, list[tuple[nn.Parameter, _Part]]] = {}
        for own, layer in layers.items():
            taker = linear(layer).weights
            if taker is not self.parts[own].weight.parameter:
                takers.setdefault(self.parts[own].weight.parameter, []).append((taker, self.parts[own]))
        for parameter, taken in takers.items():
            if optimizer is None:
                break
            slot = _slot_in(optimizer, parameter)
            if slot is not None:
                slot[0]["params"][slot[1] : slot[1] + 1] = [taker for taker, _ in taken]
            if optimizer.state.pop(parameter, None) is not None:
                optimizer.state.update({taker: part.state for taker, part in taken})
        return {joined(self.name, own): layer for own, layer in layers.items() if isinstance(layer, SparseLinear)}


def _swaps(
    module: nn.Module, optimizer: torch.optim.Optimizer | None, topologies: Mapping[str, SparseTopology]
) -> Iterator[_Swap]:
    """A replacement for each module that has a matrix with a topology; refuses what cannot be replaced."""
    modules = {name: child for name, child in module.named_modules() if type(child) in FORMS}
    matrices = {name: FORMS[type(child)].weights(child) for name, child in modules.items()}
    replaced = {
        name: (modules[name], weights)
        for name, weights in matrices.items()
        if any(joined(name, own) in topologies for own in weights)
    }
    for name, (child, weights) in replaced.items():
        _check_replaceable(module, name, child, replaced)
        parts = {}
        for own, weight in weights.items():
            full = joined(name, own)
            topology = topologies.get(full)
            if topology is not None:
                _check_own(module, full, weight.parameter)
                if optimizer is not None and _slot_in(optimizer, weight.parameter) is None:
                    raise TopologyError(f"the weight of layer {full!r} is not in the optimizer")
            parts[own] = _Part(weight, topology, _kept_state(optimizer, full, weight, topology))
        yield _Swap(name, child, parts)


def _config(
    density: float | Sequence[float] | None, method: str, total_updates: int | None, fields: Mapping[str, Any]
) -> TopologyConfig:
    """What was asked for, bound to the length of the run where that is given."""
    known = [field.name for field in dataclasses.fields(TopologyConfig) if field.name not in NOT_HERE]
    for key in fields:
        if key not in known:
            raise ConfigError(unknown_name("argument of sparsify", key, known))
    if total_updates is not None and total_updates < 1:
        raise ConfigError(f"total_updates must be >= 1, got {total_updates}")
    if density is None and fields.get("epsilon") is None:
        density = 0.1
    numbers = {name: _plain(name, given) for name, given in {**fields, "density": density}.items()}
    config = TopologyConfig(method=method, **numbers)
    if total_updates is not None:
        return config.for_run(total_updates)
    if config.open_ends:
        wish = f"total_updates, the optimizer steps of the whole run, or {' and '.join(config.open_ends)}"
        raise ConfigError(f"method {method!r} depends on the length of the run: give {wish}")
    return config


def _plain(name: str, given: Any) -> Any:
    """A field of a `TopologyConfig` as plain Python: numbers of NumPy as well, and one epsilon for all layers."""
    if name in ("density", "epsilon") and isinstance(given, str):
        raise ConfigError(f"{name} must be a number or several, got {given!r}")
    if isinstance(given, np.generic):
        given = given.item()
    if isinstance(given, Sequence | np.ndarray) and not isinstance(given, str):
        return tuple(one.item() if isinstance(one, np.generic) else one for one in given)
    return (given,) if name == "epsilon" and given is not None else given


def _participants(
    module: nn.Module, exclude: Sequence[str], config: TopologyConfig
) -> tuple[dict[str, Weight], dict[str, Origin]]:
    """The matrices that the density is for, in the order of `named_modules`; and what all layers are, by name."""
    if type(module) in FORMS:
        kind = type(module).__name__
        raise ConfigError(f"the model is itself an nn.{kind} and cannot be replaced in place; put it in nn.Sequential")
    weights, origins = layers_of(module)
    if not weights:
        raise ConfigError(f"{type(module).__name__} has no layer to make sparse, which are {KINDS}")
    dense: dict[str, str] = {}
    for name in exclude:
        inside = [layer for layer in weights if layer == name or layer.startswith(f"{name}.")]
        if not inside:
            raise ConfigError(unknown_name("layer to exclude", name, weights))
        dense.update(dict.fromkeys(inside, "excluded"))
    if len(dense) == len(weights):
        raise ConfigError("`exclude` leaves no layer to make sparse")
    frozen = {name for name, weight in weights.items() if not weight.parameter.requires_grad}
    dense |= dict.fromkeys(sorted(frozen - dense.keys()), "frozen")
    names = [name for name in weights if name not in dense]
    if not names:
        raise ConfigError("every layer is frozen or excluded; set requires_grad_(True) on what is to become sparse")
    is_output = names[-1] == list(weights)[-1] and origins[names[-1]].kind == nn.Linear.__name__
    if config.output_layer_is_dense and is_output and len(names) > 1:
        dense[names.pop()] = f"the output layer, which method {config.method!r} leaves dense"
    origins |= {name: replace(origins[name], dense=reason) for name, reason in dense.items()}
    return {name: weights[name] for name in names}, origins


def _check_replaceable(module: nn.Module, name: str, child: nn.Module, replaced: Container[str]) -> None:
    """Refuses what a replacement of a module would lose; `replaced` are the names of all that are to be."""
    lacks = FORMS[type(child)].lacks(child)
    if lacks is not None:
        raise TopologyError(f"layer {name!r} {lacks}; exclude it")
    for one in child.modules():
        if one._forward_hooks or one._forward_pre_hooks or one._backward_hooks or one._backward_pre_hooks:
            raise TopologyError(f"layer {name!r} has hooks, which a replacement would lose; exclude it or remove them")
    if not torch.backends.mha.get_fastpath_enabled():
        return
    parent = name.rpartition(".")[0]
    is_read = isinstance(module.get_submodule(parent), nn.TransformerEncoderLayer) and isinstance(child, nn.Linear)
    if is_read and joined(parent, "self_attn") not in replaced:
        raise TopologyError(
            f"layer {name!r} is in a TransformerEncoderLayer, whose fast path reads its weight; exclude it, or call "
            "torch.backends.mha.set_fastpath_enabled(False) first"
        )
    for around, stack in module.named_modules():
        is_inside = name.startswith(f"{around}." if around else "")
        if is_inside and isinstance(stack, nn.TransformerEncoder) and stack.use_nested_tensor:
            raise TopologyError(
                f"layer {name!r} is in a TransformerEncoder whose fast path reads weights where sequences are padded; "
                "build it with enable_nested_tensor=False"
            )


def _check_own(module: nn.Module, name: str, weight: nn.Parameter) -> None:
    owners = [m for m in module.modules() if any(p is weight for p in m.parameters(recurse=False))]
    if len(owners) > 1:
        raise TopologyError(f"layer {name!r} shares its weight with another module; exclude it or untie them")
    if weight._backward_hooks or getattr(weight, "_post_accumulate_grad_hooks", None):
        raise TopologyError(
            f"the weight of layer {name!r} has hooks, which a replacement would lose; exclude it, or register them on "
            "its `values` afterwards"
        )


def _slot_in(optimizer: torch.optim.Optimizer, weight: torch.Tensor) -> tuple[dict[str, Any], int] | None:
    """Parameter group of a weight and its index there; None if it is not there."""
    for group in optimizer.param_groups:
        for position, parameter in enumerate(group["params"]):
            if parameter is weight:
                return group, position
    return None


def _names_in(optimizer: torch.optim.Optimizer) -> dict[torch.Tensor, str]:
    """What an optimizer calls its parameters; empty unless it was made of named ones."""
    groups = optimizer.param_groups
    return {
        parameter: name
        for group in groups
        for parameter, name in zip(group["params"], group.get("param_names", ()), strict=False)
    }


def _rename(
    optimizer: torch.optim.Optimizer,
    names: Mapping[torch.Tensor, str],
    before: Mapping[nn.Parameter, str],
    after: Mapping[nn.Parameter, str],
) -> None:
    """Gives the parameters of an optimizer the names that they have now.

    Args:
        optimizer: Made of named parameters.
        names: What it called them; the model may have been a part of a larger one.
        before: What the model called them.
        after: What the model calls them now.
    """
    in_both = (names[one].removesuffix(name) for one, name in before.items() if one in names)
    prefix = next(in_both, "")
    for group in optimizer.param_groups:
        if "param_names" in group:
            group["param_names"] = [prefix + after[one] if one in after else names[one] for one in group["params"]]


def _kept_state(
    optimizer: torch.optim.Optimizer | None, name: str, weight: Weight, topology: SparseTopology | None
) -> dict[str, Any]:
    """What the optimizer knows of the connections that stay; told apart by shape alone, as in `OptimizerMoments`."""
    kept: dict[str, Any] = {}
    if optimizer is None:
        return kept
    for key, state in optimizer.state.get(weight.parameter, {}).items():
        if not torch.is_tensor(state):
            kept[key] = state
        elif state.dim() == 0:
            kept[key] = state.clone()
        elif state.shape == weight.parameter.shape:
            part = weight.of(state)
            kept[key] = part.clone() if topology is None else _gather(part, topology)
        else:
            shape = tuple(state.shape)
            raise TopologyError(f"optimizer state {key!r} of layer {name!r}, shape {shape}, is not per connection")
    return kept


def _gather(dense: torch.Tensor, topology: SparseTopology) -> torch.Tensor:
    """(nnz,) the entries of a (n_out, n_in) tensor where a connection is."""
    return dense.detach().flatten()[torch.from_numpy(topology.flat)]
