"""Makes a torch model truly sparse in place, and rewires it while its own training loop runs.

Decides which layers take part and how their parameters, gradients and optimizer state are carried over. Independent of
about losses, data and agents; what is dropped and grown is decided in `sparserl.topology`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

import torch
from torch import nn

from sparserl.errors import ConfigError, TopologyError, unknown_name
from sparserl.layers.convert import from_dense
from sparserl.layers.one_shot import judged
from sparserl.layers.sparse_linear import SparseLinear, check_has_kernels
from sparserl.layers.sparse_training import SparseTraining, check_elementwise
from sparserl.topology.config import OWN_DENSITIES, TopologyConfig
from sparserl.topology.density import Shape
from sparserl.topology.moments import check_moments
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
)
"""Fields of a `TopologyConfig` that do not apply to a model in a training loop of the user's."""


def sparsify(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    density: float | Sequence[float] | None = None,
    method: str = "set",
    exclude: Sequence[str] = (),
    seed: int = 0,
    total_updates: int | None = None,
    loss: Callable[[], torch.Tensor] | None = None,
    **topology: Any,
) -> SparseTraining:
    """Replaces the `nn.Linear` layers of a model by truly sparse ones, in place.

    Each layer keeps a random subset of its connections with the weights they have, or all of them where the method
    prunes while the model trains; biases are the same parameters as before. In the optimizer the values take the place
    of the dense weight, in the same parameter group, and what it has gathered about the connections that stay (moments,
    step counts) stays with them. If an argument is refused, neither model nor optimizer has changed. torch's global
    generator is left as it is.

    Only modules whose class is exactly `nn.Linear` take part: a subclass may have a forward pass of its own. A module
    that reads `linear.weight` itself needs its layers in `exclude`, as `nn.TransformerEncoderLayer` on its fast path.
    A layer that is frozen (its weight requires no gradient) or whose density comes out as 1 stays an `nn.Linear`, too;
    the result's `report()` names every layer that stays dense, and why.

    Args:
        module: The model, on the CPU, float32 or float64.
        optimizer: Of any elementwise kind; holds the weight of every layer that takes part.
        density: Share of connections that exist, in (0, 1], at the end of pruning if there is any: one number, shared
            out among the layers that take part (by Erdos-Renyi, wide layers sparser, unless `allocation` says
            otherwise), or a number for each of them in the order of `named_modules`; 0.1 if neither it nor `epsilon` is
            given.
        method: Name in `sparserl.topology.methods.METHODS`. Most keep the last layer dense unless it is the only one.
        exclude: Names of layers that stay dense, or of modules all of whose layers do, as in `named_modules`.
        seed: Root seed of initial topology and growth.
        total_updates: Optimizer steps of the whole run: rewiring begins and ends at the method's shares of them. Not
            needed where the length is no matter (`set`, `anf`, `static`) or `first_update` and `last_update` are given.
        loss: Returns the loss of a batch, by which connections are judged where `initial_topology` (or `method`) is
            `snip` or `grasp`; called once. Layers keep the weights that they have.
        **topology: Further fields of `sparserl.topology.config.TopologyConfig`, as agents take them, e.g.
            `update_interval=200` or `pairs=2`; all but densities of actor and critic, the initial value (weights are
            kept) and recycling. Growth by activations sees what a layer gives, before whatever your model does to it.

    Returns:
        The object whose `step()` is to be called after each `optimizer.step()`.

    Raises:
        ConfigError: If a name or key is unknown, a number out of range, the method depends on the length of the run and
            that is not given, the model is itself an `nn.Linear` or has none to make sparse.
        TopologyError: If a rule or number of densities does not fit, pruning would end after the run, `pairs` does not
            divide the outputs of a layer that takes part, a weight is shared with another module or not in the
            optimizer, a layer has hooks, or the optimizer is not elementwise (Muon, LBFGS,
            Shampoo), keeps state that is not per connection, or cannot count the steps of each (moments `fresh`).
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
    config = _config(density, method, total_updates, topology)
    if loss is not None and not config.judged_by_batch:
        kind = config.part("initial_topology")
        raise ConfigError(f"loss has no effect: initial_topology {kind!r} judges by no batch; use 'snip' or 'grasp'")
    names, left_dense = _participants(module, [exclude] if isinstance(exclude, str) else exclude, config)
    linears = {name: linear for name in names if isinstance(linear := module.get_submodule(name), nn.Linear)}
    shapes = [(linear.out_features, linear.in_features) for linear in linears.values()]
    swaps: list[_Swap] = []
    goals: dict[str, int] = {}
    begins = list(zip(shapes, config.shared_out(shapes), config.shared_out_at_first(shapes), strict=True))
    by_scores = _by_scores(config, linears, begins, loss, seed)
    for (name, linear), begin in zip(linears.items(), begins, strict=True):
        if begin[1] == 1.0 and name not in by_scores:
            left_dense[name] = f"method {method!r} makes nothing sparse" if config.base.dense else "its density is 1"
            continue
        if not swaps:
            check_elementwise(optimizer)
            check_moments(config.part("moments"), optimizer)
        _check_replaceable(module, name, linear)
        slot = _slot_in(optimizer, name, linear.weight)
        goal = config.goal(*begin[:2])
        connections = by_scores[name] if by_scores else config.initial(*begin[:2], seed, name, begin[2])
        if goal is not None:
            goals[name] = goal
        swaps.append(_Swap(name, linear, connections, slot, _kept_state(optimizer, name, linear.weight, connections)))
    # Nothing has changed so far, and nothing below is refused.
    layers = {swap.name: swap.carry_out(module, optimizer) for swap in swaps}
    return SparseTraining(layers, optimizer, config, seed, goals, left_dense)


def _by_scores(
    config: TopologyConfig,
    linears: Mapping[str, nn.Linear],
    begins: Sequence[tuple[Shape, float, float | None]],
    loss: Callable[[], torch.Tensor] | None,
    seed: int,
) -> dict[str, SparseTopology]:
    """What layers keep by scores of their weights; empty where chance decides."""
    if config.part("initial_topology") not in ONE_SHOT:
        return {}
    takes_part = [begin[1] < 1.0 or config.compares_layers for begin in begins]
    taken = {name: linear for (name, linear), takes in zip(linears.items(), takes_part, strict=True) if takes}
    for name, linear in taken.items():
        check_has_kernels(linear.weight, f"layer {name!r} is")
    return judged(config, taken, list(compress(begins, takes_part)), loss, seed)


@dataclass(frozen=True)
class _Swap:
    """One layer's replacement, planned in full before the first one is made."""

    name: str
    linear: nn.Linear
    topology: SparseTopology
    slot: tuple[dict[str, Any], int]
    state: dict[str, Any]

    def carry_out(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> SparseLinear:
        weight = self.linear.weight
        layer = from_dense(self.linear, self.topology)
        layer.bias = self.linear.bias  # the same parameter object, as the optimizer and other modules share it
        if weight.grad is not None:
            layer.values.grad = _gather(weight.grad, self.topology)
        layer.train(self.linear.training)
        for name, child in list(module.named_modules(remove_duplicate=False)):
            if child is self.linear:
                module.set_submodule(name, layer)
        group, position = self.slot
        group["params"][position] = layer.values
        if optimizer.state.pop(weight, None) is not None:
            optimizer.state[layer.values] = self.state
        return layer


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
    if isinstance(density, Sequence):
        density = tuple(density)
    config = TopologyConfig(method=method, density=density, **fields)
    if total_updates is not None:
        return config.for_run(total_updates)
    if config.open_ends:
        wish = f"total_updates, the optimizer steps of the whole run, or {' and '.join(config.open_ends)}"
        raise ConfigError(f"method {method!r} depends on the length of the run: give {wish}")
    return config


def _participants(
    module: nn.Module, exclude: Sequence[str], config: TopologyConfig
) -> tuple[list[str], dict[str, str]]:
    """Names of the layers that the density is for, in the order of `named_modules`; and why the others are not."""
    if isinstance(module, nn.Linear):
        raise ConfigError("the model is itself an nn.Linear and cannot be replaced in place; put it in nn.Sequential")
    linears = {name: child for name, child in module.named_modules() if type(child) is nn.Linear}
    if not linears:
        raise ConfigError(f"{type(module).__name__} has no nn.Linear to make sparse")
    left = {name: reason for name, child in module.named_modules() if (reason := _other_kind(child))}
    for name in exclude:
        inside = [linear for linear in linears if linear == name or linear.startswith(f"{name}.")]
        if not inside:
            raise ConfigError(unknown_name("layer to exclude", name, linears))
        left.update(dict.fromkeys(inside, "excluded"))
    if all(name in left for name in linears):
        raise ConfigError("`exclude` leaves no nn.Linear to make sparse")
    left |= {name: "frozen" for name, child in linears.items() if name not in left and not child.weight.requires_grad}
    names = [name for name in linears if name not in left]
    if not names:
        raise ConfigError("every nn.Linear is frozen or excluded; set requires_grad_(True) on what is to become sparse")
    last = list(linears)[-1]
    if config.output_layer_is_dense and names[-1] == last and len(names) > 1:
        left[names.pop()] = f"the output layer, which method {config.method!r} leaves dense"
    return names, left


def _other_kind(module: nn.Module) -> str | None:
    """Why a module that has weights of its own is no layer to make sparse; None for nn.Linear and what has none."""
    weights = [p for p in module.parameters(recurse=False) if isinstance(p, nn.UninitializedParameter) or p.dim() > 1]
    kind = type(module)
    if kind is nn.Linear or not weights:
        return None
    return f"a {kind.__name__}, not an nn.Linear" + (" but a subclass" if isinstance(module, nn.Linear) else "")


def _check_replaceable(module: nn.Module, name: str, linear: nn.Linear) -> None:
    check_has_kernels(linear.weight, f"layer {name!r} is")
    owners = [m for m in module.modules() if any(p is linear.weight for p in m.parameters(recurse=False))]
    if len(owners) > 1:
        raise TopologyError(f"layer {name!r} shares its weight with another module; exclude it or untie them")
    if linear._forward_hooks or linear._forward_pre_hooks or linear._backward_hooks or linear._backward_pre_hooks:
        raise TopologyError(f"layer {name!r} has hooks, which a replacement would lose; exclude it or remove them")
    parent = module.get_submodule(name.rpartition(".")[0])
    if isinstance(parent, nn.TransformerEncoderLayer) and torch.backends.mha.get_fastpath_enabled():
        raise TopologyError(
            f"layer {name!r} is in a TransformerEncoderLayer, whose fast path reads its weight; exclude it, or call "
            "torch.backends.mha.set_fastpath_enabled(False) first"
        )


def _slot_in(optimizer: torch.optim.Optimizer, name: str, weight: torch.Tensor) -> tuple[dict[str, Any], int]:
    """Parameter group of a weight and its index there."""
    for group in optimizer.param_groups:
        for position, parameter in enumerate(group["params"]):
            if parameter is weight:
                return group, position
    raise TopologyError(f"the weight of layer {name!r} is not in the optimizer")


def _kept_state(
    optimizer: torch.optim.Optimizer, name: str, weight: torch.Tensor, topology: SparseTopology
) -> dict[str, Any]:
    """What the optimizer knows of the connections that stay; told apart by shape alone, as in `OptimizerMoments`."""
    kept = {}
    for key, state in optimizer.state.get(weight, {}).items():
        if not torch.is_tensor(state) or state.dim() == 0:
            kept[key] = state
        elif state.shape == weight.shape:
            kept[key] = _gather(state, topology)
        else:
            shape = tuple(state.shape)
            raise TopologyError(f"optimizer state {key!r} of layer {name!r}, shape {shape}, is not per connection")
    return kept


def _gather(dense: torch.Tensor, topology: SparseTopology) -> torch.Tensor:
    """(nnz,) the entries of a (n_out, n_in) tensor where a connection is."""
    return dense.detach().flatten()[torch.from_numpy(topology.flat)]
