"""Which connections are dropped and where new ones grow.

A drop rule returns slots, a grow rule returns positions; both see a `LayerView` and nothing else. To add one,
write a function and its line in `DROP` or `GROW`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sparserl.errors import NotFiniteScoreError, TopologyError
from sparserl.topology.block_scores import Score, cosine_score, gradient_score, highest
from sparserl.topology.free_positions import OpenPositions, distinct_integers, free_positions, random_free
from sparserl.topology.paths import by_paths, by_paths_soft
from sparserl.topology.pruning import fisher_scores, squared_gradients
from sparserl.topology.structure import NOTHING, FloatArray, Importance, LayerView, Positions, Slots, absent


class DropCriterion(Protocol):
    """Chooses slots to remove."""

    def __call__(self, view: LayerView, fraction: float, excess: int = 0) -> Slots:
        """Slots to remove, sorted; of the connections that are not frozen alone.

        Args:
            view: The layer.
            fraction: Drop fraction of the connections that are left without the excess, in [0, 1).
            excess: Connections that go for good, in [0, those not frozen]; the fraction comes on top.
        """


@dataclass(frozen=True)
class DropRule:
    """Which connections go.

    Attributes:
        choose: The criterion.
        needs_importance: Whether `view.importance` must be there.
        needs_gradient: Whether `view.gradient` must be there, unless its weight is 0.
        needs_signs: Whether `view.signs` must be there.
        needs_threshold: Whether `view.threshold` decides how many go, and follows from how many went.
        needs_samples: Whether `view.samples` must hold inputs and output gradients of the update.
    """

    choose: DropCriterion
    needs_importance: bool = False
    needs_gradient: bool = False
    needs_threshold: bool = False
    needs_signs: bool = False
    needs_samples: bool = False


def _lowest(score: FloatArray, droppable: Slots, fraction: float, excess: int) -> Slots:
    """The `excess + int(fraction * (droppable - excess))` slots of lowest score; among equals the lower slot first."""
    count = excess + int(fraction * (droppable.size - excess))
    if count == 0:
        return NOTHING
    score = score[droppable]
    highest = np.sort(score)[count - 1]  # a sort of values alone is vectorised, unlike one of indices
    below, equal = score < highest, score == highest
    if np.isnan(highest):  # they come last
        below, equal = ~np.isnan(score), np.isnan(score)
    equal[np.flatnonzero(equal)[count - np.count_nonzero(below) :]] = False
    lowest: Slots = droppable[below | equal]
    return lowest


def largest(values: FloatArray, count: int) -> Slots:
    """Sorted slots of the `count` weights of largest magnitude; among equals the higher slot first.

    Source:
        Jayakumar et al. 2020 (Top-KAST), the forward set.

    Example:
        >>> largest(np.array([0.9, -0.1, 0.5, 0.05, -0.7, 0.2, 0.01, -0.3]), 2).tolist()
        [0, 4]
    """
    slots = np.arange(values.size)
    return np.delete(slots, _lowest(np.abs(values), slots, 0.0, values.size - count))


def weight_magnitude(view: LayerView, fraction: float, excess: int = 0) -> Slots:
    """The connections of smallest |weight|.

    Source:
        Evci et al. 2020 (RigL), drop criterion; count truncated as in its code.
    """
    return _lowest(np.abs(view.values), view.droppable, fraction, excess)


def magnitude_and_gradient(view: LayerView, fraction: float, excess: int = 0) -> Slots:
    """The connections of smallest |weight| + `gradient_weight` |gradient|.

    Raises:
        TopologyError: If the gradient is asked for and was not kept, or holds NaN.

    Source:
        Yuan et al. 2021 (MEST), code; there every tie at the threshold goes, here the count is exact.
    """
    if view.gradient_weight == 0.0:
        return weight_magnitude(view, fraction, excess)
    if view.gradient is None:
        raise TopologyError("a drop by magnitude and gradient needs the gradients of the step: keep them until it ends")
    if np.isnan(view.gradient).any():
        raise NotFiniteScoreError("the gradient of a weight is NaN, so no connection can be chosen by it")
    score = np.abs(view.values) + view.gradient_weight * np.abs(view.gradient)
    return _lowest(score, view.droppable, fraction, excess)


def fisher(view: LayerView, fraction: float, excess: int = 0) -> Slots:
    """The connections of smallest `F w^2 / 2`, F the mean squared gradient over the samples of the update.

    Source:
        LeCun et al. 1990 (Optimal Brain Damage), equation 5; F in place of the second derivative.
    """
    droppable = view.droppable
    if excess + int(fraction * (droppable.size - excess)) == 0:
        return NOTHING
    return _lowest(fisher_scores(view.values, squared_gradients(view)), droppable, fraction, excess)


def below_threshold(view: LayerView, fraction: float, excess: int = 0) -> Slots:
    """The connections of |weight| below the threshold, and the excess at least; the largest of a layer stays.

    The fraction decides only whether any go: `RewireRule.next_threshold` moves the threshold so that about as many do.

    Source:
        Mostafa and Wang 2019 (DSR), code.
    """
    magnitude = np.abs(view.values)
    below = int(np.count_nonzero(magnitude[view.droppable] < view.threshold)) if fraction > 0.0 else 0
    below = max(0, min(below, view.topology.nnz - 1))
    return _lowest(magnitude, view.droppable, 0.0, max(excess, below))


def sign_change(view: LayerView, fraction: float, excess: int = 0) -> Slots:
    """The connections whose weight has another sign than after the last event, or none any more.

    An excess goes first, by magnitude, and is exact. The fraction decides only whether any go; none do where no signs
    are known.

    Source:
        Bellec et al. 2018 (DeepR), code: a parameter theta with weight s theta is gone at theta <= 0.
    """
    droppable = view.droppable
    surplus = _lowest(np.abs(view.values), droppable, 0.0, excess)
    if fraction <= 0.0 or view.signs is None:
        return surplus
    changed = (view.signs != 0) & (np.sign(view.values) != view.signs)
    return np.union1d(surplus, droppable[changed[droppable]])


def connection_importance(view: LayerView, fraction: float, excess: int = 0) -> Slots:
    """The connections of least importance to the learner.

    Source:
        Sokar et al. 2021 (SpaceNet), drop step; count truncated as in its code.
    """
    return _lowest(measured(view).connections, view.droppable, fraction, excess)


def signed_magnitude(view: LayerView, fraction: float, excess: int = 0) -> Slots:
    """About `fraction` of the positive weights nearest 0 and the same share of the negative ones.

    Thresholds are two entries of the sorted weights and survivors lie strictly beyond them, so the number dropped
    depends on the data (about one more per sign, all ties, and every weight that is exactly 0). An excess goes first,
    by magnitude whatever the sign, and is exact.

    Source:
        Mocanu et al. 2018 (SET), index rule of the original code; Sokar et al. 2022 (DS-TD3) code.
    """
    surplus, droppable = NOTHING, view.droppable
    if excess:
        surplus = _lowest(np.abs(view.values), droppable, 0.0, excess)
        droppable = droppable[absent(droppable, surplus)]
    values = view.values[droppable]
    n = values.size
    if n == 0 or fraction <= 0.0:
        return surplus
    ordered = np.sort(values)
    magnitude = np.abs(ordered)
    first = int(np.argmin(magnitude))
    past_last = n - int(np.argmin(magnitude[::-1]))
    low = ordered[int((1.0 - fraction) * first)]
    high = ordered[int(min(n - 1, past_last + fraction * (n - past_last)))]
    chosen = droppable[(values >= low) & (values <= high)]
    return np.union1d(surplus, chosen) if excess else chosen


def measured(view: LayerView) -> Importance:
    """The importances of a layer.

    Raises:
        TopologyError: If they were not measured, or one is not finite.
    """
    importance = view.importance
    if importance is None:
        raise TopologyError("a criterion by importance needs a learner that measures it, such as SpaceNet")
    if not all(np.isfinite(part).all() for part in (importance.connections, importance.outputs, importance.inputs)):
        raise NotFiniteScoreError("an importance is NaN or infinite, so no connection can be chosen by it")
    return importance


DROP: dict[str, DropRule] = {
    "weight_magnitude": DropRule(weight_magnitude),
    "signed_magnitude": DropRule(signed_magnitude),
    "magnitude_and_gradient": DropRule(magnitude_and_gradient, needs_gradient=True),
    "fisher": DropRule(fisher, needs_samples=True),
    "sign_change": DropRule(sign_change, needs_signs=True),
    "below_threshold": DropRule(below_threshold, needs_threshold=True),
    "connection_importance": DropRule(connection_importance, needs_importance=True),
}


@dataclass(frozen=True)
class GrowRule:
    """Where connections grow.

    Attributes:
        choose: (view, kept positions sorted, count, generator) -> `count` positions where the constraint lets
            connections grow that are not kept, sorted. A connection that the same event dropped is eligible.
        score: view -> what is high where connections grow; None if chance decides.
        needs_gradient: Whether `view.samples` must hold inputs and output gradients of the update.
        needs_activations: Whether they must hold its inputs and output activations.
        needs_importance: Whether `view.importance` must be there.
        needs_explored: Whether `view.explored` must be there.
    """

    choose: Callable[[LayerView, Positions, int, np.random.Generator], Positions]
    score: Callable[[LayerView], Score] | None = None
    needs_gradient: bool = False
    needs_activations: bool = False
    needs_importance: bool = False
    needs_explored: bool = False


def _random_other(view: LayerView, kept: Positions, count: int, rng: np.random.Generator) -> Positions:
    """Uniform over the positions that were not connected before the event; where those do not suffice, also others.

    Raises:
        TopologyError: If fewer than `count` are free.

    Source:
        Mostafa and Wang 2019 (DSR), code: what was just dropped does not return.
    """
    return _random_outside(view, view.topology.flat, kept, count, rng)


def _random_unfired(view: LayerView, kept: Positions, count: int, rng: np.random.Generator) -> Positions:
    """Uniform over the positions that were never connected; where those do not suffice, all of them and others.

    Time and memory O((explored + count) log + n_in + n_out).

    Raises:
        TopologyError: If fewer than `count` are free, or what was explored was not recorded.

    Source:
        Liu et al. 2021 (in-time over-parameterisation), `random_unfired` of its code; there in expectation, here exact.
    """
    if view.explored is None:
        raise TopologyError("growth among unfired positions needs the positions that were ever connected")
    return _random_outside(view, view.explored, kept, count, rng)


def _random_outside(
    view: LayerView, avoided: Positions, kept: Positions, count: int, rng: np.random.Generator
) -> Positions:
    """Uniform over the positions that are not avoided, which those kept are; all of them and others if too few."""
    room = OpenPositions.of(view)
    fired = room.inside(avoided)
    again = fired[absent(fired, room.inside(kept))]
    unfired = room.size - fired.size
    if count > unfired + again.size:
        raise TopologyError(f"cannot choose {count} of {unfired + again.size} free positions")
    first = min(count, unfired)
    fresh = free_positions(unfired + fired.size, fired, first, rng)
    return room.outside(np.union1d(fresh, again[distinct_integers(again.size, count - first, rng)]))


def _gradient(view: LayerView, kept: Positions, count: int, rng: np.random.Generator) -> Positions:
    """The largest |dense weight gradient| among free positions, summed over all samples before it is judged.

    Samples of several batches thus rank by their mean gradient; the neurons of one output add their magnitudes up. Time
    O(n_in n_out B), memory O(block + count).

    Source:
        Evci et al. 2020 (RigL), grow criterion; several batches as in Lasby et al. 2024 (SRigL), code.
    """
    del rng
    return highest(view, kept, count, gradient_score(view))


def _cosine(view: LayerView, kept: Positions, count: int, rng: np.random.Generator) -> Positions:
    """The largest |cosine| between the activations of both neurons over all samples, among free positions.

    A neuron that does the same in all samples has 0; the neurons of one output add theirs up. Time O(n_in n_out B),
    memory O(block + count + (n_in + n_out) B).

    Raises:
        TopologyError: If activations were not kept, or are not finite.

    Source:
        Atashgahi et al. 2022 (CTRE), the growth of CTRE_seq's first phase; there over the samples of an epoch, and a
        silent neuron alone has 0. Biases begin at 0 there, so that a neuron without inputs is silent; here it would be
        constant, and all of those would be connected to each other first.
    """
    del rng
    return highest(view, kept, count, cosine_score(view))


def _cosine_or_random(view: LayerView, kept: Positions, count: int, rng: np.random.Generator) -> Positions:
    """The same, where each connection that the event has just dropped gives way to a random one.

    That is uniform over positions neither kept, chosen nor just dropped; the latter come where those do not suffice.

    Raises:
        TopologyError: As `cosine`.

    Source:
        Atashgahi et al. 2022 (CTRE), CTRE_sim; its code may draw what was chosen already, so a connection is lost.
    """
    best = _cosine(view, kept, count, rng)
    chosen = best[absent(best, view.topology.flat)]
    avoided, taken = (np.union1d(among, chosen) for among in (view.topology.flat, kept))
    return np.union1d(chosen, _random_outside(view, avoided, taken, count - chosen.size, rng))


def _neuron_importance(view: LayerView, kept: Positions, count: int, rng: np.random.Generator) -> Positions:
    """The largest product of the importances of both neurons among free positions.

    A connection that the same event dropped comes last: it is grown again only where nothing else is free.

    Source:
        Sokar et al. 2021 (SpaceNet), grow step; a dropped connection is not eligible in its code.
    """
    del rng
    return highest(view, kept, count, _importance_score(view), last=view.topology.flat)


def _neuron_importance_any(view: LayerView, kept: Positions, count: int, rng: np.random.Generator) -> Positions:
    """The same, where a connection that the event dropped is as eligible as others.

    Source:
        Sokar et al. 2022 (AFAF), code.
    """
    del rng
    return highest(view, kept, count, _importance_score(view))


def _importance_score(view: LayerView) -> Score:
    importance = measured(view)
    of_outputs, of_inputs = importance.outputs.astype(np.float64), importance.inputs.astype(np.float64)
    return lambda outputs, inputs: np.outer(of_outputs[outputs], of_inputs[inputs])


GROW: dict[str, GrowRule] = {
    "random": GrowRule(random_free),
    "random_other": GrowRule(_random_other),
    "random_unfired": GrowRule(_random_unfired, needs_explored=True),
    "gradient": GrowRule(_gradient, gradient_score, needs_gradient=True),
    "cosine": GrowRule(_cosine, cosine_score, needs_activations=True),
    "cosine_or_random": GrowRule(_cosine_or_random, needs_activations=True),
    "paths": GrowRule(by_paths),
    "paths_soft": GrowRule(by_paths_soft),
    "neuron_importance": GrowRule(_neuron_importance, needs_importance=True),
    "neuron_importance_any": GrowRule(_neuron_importance_any, needs_importance=True),
}
