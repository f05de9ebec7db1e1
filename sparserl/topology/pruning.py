"""Which connections of several layers stay where one number of them is left: scores, and the choice among all layers.

Pure functions of weights. Who prunes, and when, is decided elsewhere: a density schedule (`budget`), or a command.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sparserl.errors import NotFiniteScoreError, TopologyError, unknown_name
from sparserl.topology.structure import FloatArray, LayerView, Slots


def lamp_scores(values: FloatArray) -> FloatArray:
    """Squares of weights, each over the sum of those of its layer that are not smaller.

    Of equal weights the one in the later slot has the higher score, so that scores are in (0, 1] and 1 once; all are 0
    where all weights are.

    Args:
        values: (nnz,) weights of one layer.

    Source:
        Lee et al. 2021 (LAMP), equation 4; ties as in its code, which sorts.

    Example:
        >>> lamp_scores(np.array([1.0, -2.0, 3.0])).round(4).tolist()
        [0.0714, 0.3077, 1.0]
    """
    squares = np.square(values, dtype=np.float64)
    order = np.argsort(squares, kind="stable")
    not_smaller = np.cumsum(squares[order][::-1])[::-1]
    scores = np.zeros(squares.size)
    scores[order] = np.divide(squares[order], not_smaller, out=np.zeros(squares.size), where=not_smaller != 0.0)
    return scores


def uniform_scores(values: FloatArray) -> FloatArray:
    """Ranks by |weight| as shares of the layer, in (0, 1): the best of all layers are as large a share of each.

    Of equal weights the one in the later slot ranks higher. What rounding leaves goes as by Webster's method.
    """
    scores = np.empty(values.size)
    scores[np.argsort(np.abs(values), kind="stable")] = (np.arange(values.size) + 0.5) / max(1, values.size)
    return scores


def fisher_scores(values: FloatArray, importance: FloatArray) -> FloatArray:
    """`F w^2 / 2`: by how much the loss grows without a weight, where F is the diagonal of its Hessian.

    Args:
        values: (nnz,) weights.
        importance: (nnz,) F, such as the mean squared gradient (the Fisher information's diagonal), >= 0.

    Source:
        LeCun et al. 1990 (Optimal Brain Damage), equation 5, with the diagonal of the Fisher information for that of
        the Hessian.

    Example:
        >>> fisher_scores(np.array([1.0, 2.0]), np.array([2.0, 2.0])).tolist()
        [1.0, 4.0]
    """
    scores: FloatArray = 0.5 * np.asarray(importance, np.float64) * np.square(values, dtype=np.float64)
    return scores


AT_A_TIME = 1 << 20
"""Products of a connection and a sample that are formed at a time."""


def squared_gradients(view: LayerView) -> FloatArray:
    """(nnz,) mean over samples of the squared gradient of each weight: the diagonal of the Fisher information.

    For a loss that is a mean over the samples of a batch; several batches count alike. The neurons of one output add
    theirs up. Time O(nnz B), memory O(nnz) beside a block.

    Raises:
        TopologyError: If inputs and output gradients of the update were not kept.
        NotFiniteScoreError: If one is NaN or infinite.
    """
    if not view.samples:
        raise TopologyError("scores by squared gradients need the batch of the update; call `begin_update` before it")
    outputs, inputs = view.topology.outputs, view.topology.inputs
    squares = np.zeros(view.topology.nnz)
    for x, dy in view.samples:
        n_samples = x.shape[1]
        of_inputs, of_outputs = np.square(x, dtype=np.float64), np.square(n_samples * dy, dtype=np.float64)
        of_outputs = of_outputs.reshape(view.topology.n_out, view.neurons, n_samples).sum(axis=1)
        step = max(1, AT_A_TIME // max(1, n_samples))
        for start in range(0, squares.size, step):
            some = slice(start, start + step)
            squares[some] += np.einsum("cb,cb->c", of_outputs[outputs[some]], of_inputs[inputs[some]]) / n_samples
    if not np.isfinite(squares).all():
        raise NotFiniteScoreError("the gradient of a weight is NaN or infinite, so no connection can be chosen by it")
    squares /= len(view.samples)
    return squares


@dataclass(frozen=True)
class PruneRule:
    """What decides which connections of several layers stay.

    Attributes:
        summary: One line for users.
        scores: (nnz,) weights of a layer, and where they are needed (nnz,) importances -> (nnz,) scores; the lowest of
            all layers go.
        needs_importance: Whether importances are needed.
    """

    summary: str
    scores: Callable[..., FloatArray]
    needs_importance: bool = False


PRUNE: dict[str, PruneRule] = {
    "uniform": PruneRule("the smallest |weights| of each layer, as large a share of each", uniform_scores),
    "global": PruneRule("the smallest |weights| of all layers", np.abs),
    "lamp": PruneRule("by squares of weights over those of the layer that are larger (Lee et al. 2021)", lamp_scores),
    "fisher": PruneRule("by F w^2 / 2 (Optimal Brain Damage, LeCun et al. 1990)", fisher_scores, needs_importance=True),
}


def lowest(scores: Sequence[FloatArray], count: int) -> list[Slots]:
    """The slots of lowest score of all layers together, sorted, by layer.

    The best of each layer stays, and what scores infinity; among equals the earlier layer and the lower slot goes.

    Args:
        scores: (nnz,) of each layer.
        count: How many go; fewer where so many may not.

    Raises:
        NotFiniteScoreError: If a score is NaN.
    """
    if any(np.isnan(of_layer).any() for of_layer in scores):
        raise NotFiniteScoreError("a score is NaN, so no connection can be pruned by it")
    order = [np.argsort(of_layer, kind="stable")[:-1] for of_layer in scores]
    order = [slots[np.isfinite(of_layer[slots])] for slots, of_layer in zip(order, scores, strict=True)]
    ascending = np.concatenate([of_layer[slots] for slots, of_layer in zip(order, scores, strict=True)])
    chosen = np.argsort(ascending, kind="stable")[: max(0, count)]
    layer = np.repeat(np.arange(len(scores)), [slots.size for slots in order])[chosen]
    slots = np.concatenate(order)[chosen]
    return [np.sort(slots[layer == index]) for index in range(len(scores))]


def kept_per_layer(
    layers: Sequence[FloatArray], total: int, by: str, importances: Sequence[FloatArray] | None = None
) -> list[Slots]:
    """The slots of each layer that stay, sorted, where `total` connections of all layers do.

    No layer is emptied: its best connection stays. Among equals the later layer and the higher slot stays.

    Args:
        layers: (nnz,) weights of each layer.
        total: Connections that stay, in [layers that have any, all].
        by: Name in `PRUNE`.
        importances: (nnz,) of each layer, where the rule needs them.

    Raises:
        TopologyError: If the rule is unknown, the total is out of range, or importances are missing.
        NotFiniteScoreError: If a weight or score is NaN.

    Example:
        >>> [slots.tolist() for slots in kept_per_layer([np.array([1, 2, 3]), np.array([0.1, 0.4])], 3, "lamp")]
        [[1, 2], [1]]
    """
    if by not in PRUNE:
        raise TopologyError(unknown_name("pruning rule", by, PRUNE))
    if any(np.isnan(values).any() for values in layers):
        raise NotFiniteScoreError("a weight is NaN, so no connection can be pruned by it")
    existing, least = sum(values.size for values in layers), sum(values.size > 0 for values in layers)
    if not least <= total <= existing:
        closest = least if total < least else existing
        raise TopologyError(
            f"{total} of {existing} connections cannot stay in {least} layers, none of which is emptied; the closest "
            f"is {closest}"
        )
    if not PRUNE[by].needs_importance:
        scores = [PRUNE[by].scores(values) for values in layers]
    elif importances is None:
        raise TopologyError(f"pruning by {by} needs the importance of every connection")
    else:
        scores = [PRUNE[by].scores(*of_layer) for of_layer in zip(layers, importances, strict=True)]
    gone = lowest(scores, existing - total)
    return [np.delete(np.arange(values.size), slots) for values, slots in zip(layers, gone, strict=True)]
