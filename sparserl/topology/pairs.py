"""Neurons that share their inputs: a layer seen as one in which a single output stands for each group of them.

Consecutive outputs of such a layer (`SparseTopology.pairs` of them: 0 and 1, 2 and 3, ...) have the same inputs and
each its own weights, so that an event drops and grows a group as a whole. Criteria and rules see the folded layer,
whose connections are groups; what they decide is unfolded again. Nothing here chooses anything.

Source:
    Shared fan-in, as in HASTE (2026): a kernel loads an input once for all neurons of a group.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sparserl.errors import TopologyError
from sparserl.topology.structure import (
    Constraint,
    Flags,
    FloatArray,
    Importance,
    LayerView,
    Positions,
    Slots,
    SparseTopology,
    TopologyChange,
)


def folded(view: LayerView) -> LayerView:
    """A layer of `n_out / pairs` outputs whose connections are the groups of this one; O(nnz).

    Where `pairs` is 1 it is the view itself. Weights of a group count as one of their summed magnitude and of the sign
    of their sum; importances are summed. A group is frozen if one of its connections is, and takes new inputs only if
    all of its neurons do.

    Raises:
        TopologyError: If a block of allowed positions has some neurons of a group alone.
    """
    topology = view.topology
    pairs = topology.pairs
    if pairs == 1:
        return view
    flat = _fold(topology.flat, topology)
    members = member_slots(flat, topology.n_in, pairs)
    weights = view.values[members]
    constraint, importance = view.constraint, view.importance
    if constraint is not None:
        frozen = np.asarray(constraint.frozen[members].any(axis=0))
        open_out = np.asarray(constraint.open_out.reshape(-1, pairs).all(axis=1))
        blocks = None if constraint.blocks is None else _folded_blocks(constraint.blocks, pairs)
        constraint = Constraint(frozen, open_out, constraint.open_in, blocks)
    if importance is not None:
        outputs = importance.outputs.reshape(-1, pairs).sum(axis=1)
        importance = Importance(importance.connections[members].sum(axis=0), outputs, importance.inputs)
    return LayerView(
        SparseTopology(topology.n_out // pairs, topology.n_in, flat),
        np.copysign(np.abs(weights).sum(axis=0), weights.sum(axis=0)),
        view.samples,
        constraint,
        importance,
        None if view.explored is None else _fold(view.explored, topology),
        neurons=pairs,
        gradient=None if view.gradient is None else np.abs(view.gradient[members]).sum(axis=0),
        gradient_weight=view.gradient_weight,
        momentum=None if view.momentum is None else np.abs(view.momentum[members]).sum(axis=0),
        threshold=view.threshold * pairs,
        signs=None if view.signs is None else view.signs[members[0]],
    )


def _folded_blocks(
    blocks: tuple[tuple[Positions, Positions], ...], pairs: int
) -> tuple[tuple[Positions, Positions], ...]:
    """The blocks with groups in place of outputs."""
    for outputs, _ in blocks:
        groups, members = np.unique(outputs // pairs, return_counts=True)
        if np.any(members < pairs):
            first = int(groups[members < pairs][0]) * pairs
            raise TopologyError(
                f"outputs {first} to {first + pairs - 1} share their inputs: give a block all of them or none"
            )
    return tuple((outputs[::pairs] // pairs, inputs) for outputs, inputs in blocks)


def unfolded(change: TopologyChange, old: SparseTopology) -> TopologyChange:
    """What a change that was planned on the folded layer does to the layer itself; O(nnz).

    Args:
        change: Planned on `folded` of a view of the layer.
        old: The layer's connections.
    """
    if old.pairs == 1:
        return change
    slots = member_slots(change.new.flat, old.n_in, old.pairs)
    of_old = member_slots(change.old.flat, old.n_in, old.pairs)
    of_groups = np.pad(of_old, ((0, 0), (0, 1)), constant_values=-1)[:, change.source]  # the last where it is -1
    new = old.with_positions(_placed(slots, _positions(change.new.flat, old.n_in, old.pairs)))
    return TopologyChange(old, new, _placed(slots, of_groups))


def unfold_positions(flat: Positions, n_in: int, pairs: int) -> Positions:
    """Sorted positions of the connections of groups, from sorted positions in the folded layer.

    Example:
        >>> unfold_positions(np.array([1, 4]), n_in=3, pairs=2).tolist()  # inputs 1 of group 0 and 1 of group 1
        [1, 4, 7, 10]
    """
    return flat if pairs == 1 else _placed(member_slots(flat, n_in, pairs), _positions(flat, n_in, pairs))


def member_slots(flat: Positions, n_in: int, pairs: int) -> Slots:
    """(pairs, groups) slots of the connections of each group, those of its first output first.

    Args:
        flat: Sorted positions of the groups in the folded layer.
        n_in: Inputs of the layer.
        pairs: Outputs that share them.

    Example:
        >>> member_slots(np.array([0, 2, 4]), n_in=3, pairs=2).tolist()  # outputs 0 and 1 have two inputs, 2 and 3 one
        [[0, 1, 4], [2, 3, 5]]
    """
    output = flat // n_in
    bounds = np.flatnonzero(np.diff(output, prepend=-1, append=-1))
    of_output: Slots = np.diff(bounds)
    before: Slots = np.repeat(bounds[:-1], of_output)
    inputs: Slots = np.repeat(of_output, of_output)
    slots: Slots = np.arange(flat.size) + before * (pairs - 1) + inputs * np.arange(pairs)[:, None]
    return slots


def group_signs(topology: SparseTopology, values: FloatArray) -> npt.NDArray[np.int8]:
    """(nnz,) sign of the sum of the weights of the group that each connection is of; where `pairs` is 1, its own."""
    if topology.pairs == 1:
        return np.sign(values).astype(np.int8)
    members = member_slots(_fold(topology.flat, topology), topology.n_in, topology.pairs)
    signs = np.empty(topology.nnz, np.int8)
    signs[members] = np.sign(values[members].sum(axis=0))
    return signs


def of_groups(topology: SparseTopology, flags: Flags) -> Flags:
    """(nnz,) which connections are of a group that has a flagged one."""
    return ~whole_groups(topology, ~flags)


def whole_groups(topology: SparseTopology, flags: Flags) -> Flags:
    """(nnz,) which connections are flagged together with all others of their group."""
    if topology.pairs == 1:
        return flags
    members = member_slots(_fold(topology.flat, topology), topology.n_in, topology.pairs)
    whole = np.empty(topology.nnz, bool)
    whole[members] = flags[members].all(axis=0)
    return whole


def _positions(flat: Positions, n_in: int, pairs: int) -> Positions:
    """(pairs, groups) positions of the connections of each group."""
    group = flat // n_in
    positions: Positions = flat + (group * (pairs - 1) + np.arange(pairs)[:, None]) * n_in
    return positions


def _placed(slots: Slots, of_members: Slots) -> Slots:
    """(nnz,) what is known of the connections of groups, by slot."""
    placed = np.empty(slots.size, np.int64)
    placed[slots] = of_members
    return placed


def _fold(flat: Positions, topology: SparseTopology) -> Positions:
    """Positions in the folded layer of groups of positions in the layer itself; sorted as they were."""
    row, column = np.divmod(flat, topology.n_in)
    first = row % topology.pairs == 0
    of_groups: Positions = row[first] // topology.pairs * topology.n_in + column[first]
    return of_groups
