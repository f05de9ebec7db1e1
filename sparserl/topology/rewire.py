"""A change of connections as a value, per-connection data carried through it, and the rule of when and how many.

Pure functions, independent of who owns the data. What an event does to layers is planned in `plan`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from sparserl.errors import TopologyError
from sparserl.kernels.positions import exchanged, slots_among
from sparserl.topology.budget import BUDGET
from sparserl.topology.criteria import DROP, GROW
from sparserl.topology.free_positions import free_positions
from sparserl.topology.group_sizes import groups_in
from sparserl.topology.pairs import unfold_positions
from sparserl.topology.rule_checks import check_rule
from sparserl.topology.schedules import DECAY, DENSITY
from sparserl.topology.structure import (
    FloatArray,
    Positions,
    Slots,
    SparseTopology,
    TopologyChange,
)

T = TypeVar("T", bound=np.generic)


def random_topology(n_out: int, n_in: int, nnz: int, rng: np.random.Generator, pairs: int = 1) -> SparseTopology:
    """A topology of exactly `nnz` connections, uniform over all such; O(nnz log nnz).

    Args:
        n_out: Outputs, a multiple of `pairs`.
        n_in: Inputs.
        nnz: Connections, a multiple of `pairs`.
        rng: Draws them.
        pairs: Consecutive outputs that share their inputs.

    Raises:
        TopologyError: If `nnz` is more than the dense layer has, or no multiple of `pairs`.
    """
    groups = groups_in(nnz, pairs, "the number of connections")
    flat = free_positions(groups_in(n_out, pairs, "the number of outputs") * n_in, np.empty(0, np.int64), groups, rng)
    return SparseTopology(n_out, n_in, unfold_positions(flat, n_in, pairs), pairs)


def exchange(old: SparseTopology, dropped: Slots, grown: Positions) -> TopologyChange:
    """Replaces some connections of a layer by others and says where each slot came from.

    Pure: `old` is not modified. Cost and memory O(nnz + m), never O(n_out * n_in). Where products use some connections
    alone, they use those of them that survive, and none that is grown.

    Args:
        old: Topology with `nnz` connections.
        dropped: Slots to remove, int64, shape (k,), unique, in [0, nnz).
        grown: Positions to add, `out * n_in + in`, int64, shape (m,), sorted, unique, absent after the drop.
            `m == k` in a rewire; a shrink grows none.

    Returns:
        The change. `source` has shape (nnz - k + m,) and holds -1 for grown slots.

    Raises:
        TopologyError: If a grown connection is already present.

    Source:
        Drop-and-grow step of SET (Mocanu et al. 2018, Algorithm 1), on indices instead of masks.

    Example:
        >>> old = SparseTopology(n_out=2, n_in=4, flat=np.array([1, 3, 5, 6]))
        >>> change = exchange(old, dropped=np.array([1]), grown=np.array([0]))
        >>> change.source.tolist()
        [-1, 0, 2, 3]
    """
    kept = np.ones(old.nnz, bool)
    kept[dropped] = False
    flat, source, valid = exchanged(old.flat, kept, grown)
    if not valid:
        raise TopologyError("a grown connection is already present")
    new = old.with_positions(flat)
    if old.used is not None:
        is_used = np.zeros(old.nnz, bool)
        is_used[old.used] = True
        survivors = np.flatnonzero(source >= 0)
        new = new.with_used(survivors[is_used[source[survivors]]])
    return TopologyChange(old, new, source)


def difference(old: SparseTopology, new: SparseTopology) -> TopologyChange:
    """The change that leads from one topology of a layer to another, and to what it uses; O(n) in their connections.

    Example:
        >>> old = SparseTopology(n_out=2, n_in=4, flat=np.array([1, 3, 5]))
        >>> difference(old, SparseTopology(n_out=2, n_in=4, flat=np.array([0, 3, 5, 6]))).source.tolist()
        [-1, 1, 2, -1]
    """
    return TopologyChange(old, new, slots_among(new.flat, old.flat))


def remap(per_connection: np.ndarray, change: TopologyChange, fill: float | FloatArray = 0.0) -> np.ndarray:
    """Carries one value per connection through a change.

    Args:
        per_connection: (old nnz,) weights, moments, importances, ...
        change: The topology event.
        fill: What grown connections get: a number or an array of shape (change.grown,).

    Returns:
        (new nnz,) array of the same dtype; survivors keep their value bit for bit.

    Raises:
        TopologyError: If there is not one value per old connection.
    """
    if per_connection.shape != (change.old.nnz,):
        raise TopologyError(f"{change.old.nnz} connections need as many values, got {per_connection.shape}")
    moved = (
        per_connection.take(change.source, mode="clip")
        if per_connection.size
        else np.empty(change.source.size, per_connection.dtype)
    )
    moved[change.grown_slots] = fill
    return moved


@dataclass(frozen=True)
class RewireRule:
    """Which connections change, how many, and when.

    Attributes:
        drop: Name in `DROP`.
        grow: Name in `GROW`.
        drop_fraction: Share of a layer's live connections that is dropped at an event, in [0, 1).
        decay: Name in `sparserl.topology.schedules.DECAY`; multiplies `drop_fraction`.
        update_interval: Gradient updates between events, >= 1.
        first_update: Gradient update (counted from 1) after which the first event falls, >= 1.
        last_update: No rewiring after this gradient update; None for no end.
        shrink_at_end: Whether the first event after `last_update` drops once more without growing.
        keep_regrown: Whether a connection that is dropped and grown again in one event keeps its weight and moments
            (as in RigL, where "new" means absent before the event) or starts anew.
        density_schedule: Name in `schedules.DENSITY`; how the number of connections falls from the first to a layer's
            goal. The schedule reaches its end at the last event that is due by `last_update`; a group that does
            not step in time for that one is brought to its goal by an event that only drops, at its next step.
        schedule_share: Share of the updates from `first_update` to `last_update` after which the density schedule has
            reached its end, in (0, 1]; drop and growth go on.
        gradient_batches: Consecutive steps of a group over whose batches growth by gradient averages, or by activations
            compares, >= 1. The first is the one at which the event is due, and the event follows the last; beyond
            `last_update` there is none.
        gradient_weight: Of |gradient| beside |weight| where a criterion adds them, >= 0 (lambda of MEST).
        budget: Name in `BUDGET`: what layers of one group share.
        budget_scope: Name in `SCOPES`: whether all groups share it.
        drop_threshold: |weight| up to which connections go at the first event, where the drop has a threshold; > 0.
        weight_l1: Pull toward 0 at each step, in units of the learning rate, >= 0.
        weight_noise: Standard deviation of what is added to each weight at each step, in the same unit, >= 0.
        weight_l2: Pull toward 0 at each step in proportion to the weight, in the same unit, >= 0; for a connection that
            products do not use, divided by the density of those that they do.
        backward_factor: Connections that are stored and learn for each one that products use, >= 1; 1: all are used.
            Those in use are the largest at each event, and what drops and grows is among the others.
        fan_in: Name in `FAN_INS`.
        replaces_step: Whether an event takes the place of the optimizer step that it would follow.
        salient_share: Of the mean fan-in, what an output needs in salient connections to keep any; in [0, 1).

    Raises:
        TopologyError: If a field is out of range or a name unknown.
    """

    drop: str = "weight_magnitude"
    grow: str = "random"
    drop_fraction: float = 0.3
    decay: str = "constant"
    update_interval: int = 1000
    first_update: int = 1
    last_update: int | None = None
    shrink_at_end: bool = False
    keep_regrown: bool = False
    density_schedule: str = "constant"
    schedule_share: float = 1.0
    gradient_batches: int = 1
    gradient_weight: float = 0.0
    budget: str = "own"
    budget_scope: str = "group"
    drop_threshold: float = 1e-3
    weight_l1: float = 0.0
    weight_noise: float = 0.0
    weight_l2: float = 0.0
    backward_factor: float = 1.0
    fan_in: str = "free"
    salient_share: float = 0.0
    replaces_step: bool = False

    def __post_init__(self) -> None:
        check_rule(self)

    @property
    def leaves_some_unused(self) -> bool:
        """Whether products use some of the connections alone."""
        return self.backward_factor > 1.0

    @property
    def dense_products(self) -> int:
        """How often an event forms scores of a whole layer from a batch: for growth, and for what is salient."""
        by_samples = GROW[self.grow].needs_gradient or self.needs_activations
        return by_samples * (2 if self.salient_share else 1)

    @property
    def needs_samples(self) -> bool:
        """Whether a part needs the inputs of layers at the update that just ended, and what goes with them."""
        return GROW[self.grow].needs_gradient or self.needs_activations or self.chooses_by_samples > 0

    @property
    def chooses_by_samples(self) -> int:
        """In how many ways what goes depends on them."""
        return DROP[self.drop].needs_samples + BUDGET[self.budget].needs_samples

    @property
    def needs_activations(self) -> bool:
        """Whether activations of the outputs go with them, not gradients."""
        return GROW[self.grow].needs_activations

    @property
    def needs_own_gradient(self) -> bool:
        """Whether the drop needs the gradient of the weights at the last step."""
        return DROP[self.drop].needs_gradient and self.gradient_weight > 0.0

    @property
    def needs_threshold(self) -> bool:
        """Whether the drop has a threshold that follows from how many connections went."""
        return DROP[self.drop].needs_threshold

    @property
    def needs_signs(self) -> bool:
        """Whether the drop needs the signs that weights had after the last event."""
        return DROP[self.drop].needs_signs

    @property
    def pulls(self) -> bool:
        """Whether weights move at each step beside what the optimizer does."""
        return self.weight_l1 > 0.0 or self.weight_noise > 0.0 or self.weight_l2 > 0.0

    @property
    def needs_momentum(self) -> bool:
        """Whether the budget needs what the optimizer has gathered."""
        return BUDGET[self.budget].needs_momentum

    @property
    def needs_importance(self) -> bool:
        """Whether a criterion needs a learner that measures importances."""
        return DROP[self.drop].needs_importance or GROW[self.grow].needs_importance

    @property
    def needs_explored(self) -> bool:
        """Whether growth needs the positions that have ever been connected."""
        return GROW[self.grow].needs_explored

    @property
    def prunes(self) -> bool:
        """Whether layers begin with more connections than they are to have."""
        return self.density_schedule != "constant"

    def is_over(self, update: int) -> bool:
        """Whether rewiring has ended by gradient update `update`."""
        return self.last_update is not None and update > self.last_update

    def fitting(self, total_updates: int) -> RewireRule:
        """This rule, for a run of `total_updates` gradient updates.

        Raises:
            TopologyError: If pruning would end after the run.
        """
        if self.prunes and self.last_update is not None and self.last_update > total_updates:
            raise TopologyError(
                f"pruning must end within the run's {total_updates} updates, got last_update {self.last_update}"
            )
        return self

    def fraction(self, update: int) -> float:
        """Drop fraction at gradient update `update`; the final shrink uses that of `last_update`."""
        clock = update if self.last_update is None else min(update, self.last_update)
        return self.drop_fraction * DECAY[self.decay](clock, self.last_update)

    def next_threshold(self, threshold: float, update: int, dropped: int, existed: int) -> float:
        """|weight| up to which connections of a group go at the next event.

        Half of the last one if more than 1.1 of the wished number went, which is the drop fraction of those that
        existed, and twice that if fewer than .9 of it did.

        Args:
            threshold: Of the event.
            update: Gradient update of the event.
            dropped: Connections of the group that went.
            existed: Connections of the group before it.

        Source:
            Mostafa and Wang 2019 (DSR), code, where the number is given (600 in the net for MNIST).
        """
        wished = self.fraction(update) * existed
        if not self.needs_threshold or 0.9 * wished <= dropped <= 1.1 * wished:
            return threshold
        return threshold * (0.5 if dropped > wished else 2.0)

    def scheduled(self, update: int, goal: int, first: int) -> int:
        """Connections that the density schedule leaves a layer.

        Args:
            update: Gradient update of the event.
            goal: Connections at the end of the schedule.
            first: Connections that the layer began with.
        """
        end = self.last_update
        if end is not None:
            end = self.first_update + round(self.schedule_share * (end - self.first_update))
            end -= (end - self.first_update) % self.update_interval
        schedule = DENSITY[self.density_schedule]
        return schedule.left(schedule.reached(update, self.first_update, end), first, goal)

    def beyond(self, topology: SparseTopology, update: int, goal: int | None, first: int | None = None) -> int:
        """Connections of a layer beyond those that the density schedule leaves it; negative where it has fewer.

        Args:
            topology: The layer's.
            update: Gradient update of the event.
            goal: Connections at the end of the schedule; None if the layer keeps its number.
            first: Connections that the layer began with; all if None.
        """
        if goal is None:
            return 0
        return topology.nnz - self.scheduled(update, goal, topology.size if first is None else first)

    def on_trial(self, topology: SparseTopology, goal: int | None) -> int:
        """Connections of a layer that an event drops at least: those beyond the goal where they are on trial."""
        on_trial = DENSITY[self.density_schedule].on_trial and goal is not None
        return max(0, topology.nnz - goal) if on_trial else 0  # type: ignore[operator]  # a goal, as was asked
