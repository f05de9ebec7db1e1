"""What topology events mean, on dense matrices and masks: slow, obviously right, for tests only.

Nothing here calls `sparserl`'s own functions: topologies come in and go out as `SparseTopology`, a plain container.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sparserl.topology.structure import Constraint, SparseTopology, TopologyChange

Matrix = npt.NDArray[np.floating]
Mask = npt.NDArray[np.bool_]


def topology_of(mask: Mask) -> SparseTopology:
    """The connections at which a (n_out, n_in) mask is true."""
    return SparseTopology(mask.shape[0], mask.shape[1], np.flatnonzero(mask).astype(np.int64))


def mask_of(topology: SparseTopology) -> Mask:
    """(n_out, n_in), true where a connection exists."""
    mask = np.zeros((topology.n_out, topology.n_in), np.bool_)
    mask[topology.flat // topology.n_in, topology.flat % topology.n_in] = True
    return mask


def matrix_of(topology: SparseTopology, values: Matrix) -> Matrix:
    """(n_out, n_in) weights, 0 where no connection exists."""
    matrix = np.zeros((topology.n_out, topology.n_in), values.dtype)
    matrix[mask_of(topology)] = values  # both in row order
    return matrix


def allowed_by(constraint: Constraint) -> Mask:
    """(n_out, n_in), true where connections may grow."""
    neurons = np.outer(constraint.open_out, constraint.open_in)
    if constraint.blocks is None:
        return neurons
    blocks = np.zeros_like(neurons)
    for outputs, inputs in constraint.blocks:
        blocks[np.ix_(outputs, inputs)] = True
    return neurons & blocks


def assert_sound(topology: SparseTopology) -> None:
    """Positions are int64, in range, sorted and unique."""
    listed = topology.flat.tolist()
    assert topology.flat.dtype == np.int64
    assert all(0 <= position < topology.n_out * topology.n_in for position in listed)
    assert listed == sorted(set(listed))


def assert_sound_change(change: TopologyChange) -> None:
    """Both ends are sound, survivors keep their position, and what has no source was grown."""
    assert_sound(change.old)
    assert_sound(change.new)
    old, new, source = change.old.flat.tolist(), change.new.flat.tolist(), change.source.tolist()
    assert len(source) == len(new)
    survivors = [slot for slot in source if slot >= 0]
    assert len(set(survivors)) == len(survivors)
    assert [old[slot] for slot in survivors] == [p for p, slot in zip(new, source, strict=True) if slot >= 0]
    assert change.grown == source.count(-1)
    assert change.dropped == len(old) - len(survivors)


def set_drop(values: Sequence[float], fraction: float) -> list[int]:
    """Slots that SET's index rule drops, in plain Python (Mocanu et al. 2018, original code)."""
    ordered = sorted(values)
    n = len(ordered)
    smallest = min(abs(v) for v in ordered)
    from_left = next(i for i in range(n) if abs(ordered[i]) == smallest)
    from_right = next(i for i in range(n) if abs(ordered[n - 1 - i]) == smallest)
    past = n - from_right
    low = ordered[int((1 - fraction) * from_left)]
    high = ordered[int(min(n - 1, past + fraction * (n - past)))]
    return [slot for slot, v in enumerate(values) if not (v < low or v > high)]


def magnitude_drop(values: Sequence[float], fraction: float) -> list[int]:
    """Slots of the smallest |weight|, lower slot first."""
    ranked = sorted(range(len(values)), key=lambda slot: (abs(values[slot]), slot))
    return sorted(ranked[: int(fraction * len(values))])


def fisher_saliencies(topology: SparseTopology, values: Matrix, x: Matrix, dy: Matrix) -> list[float]:
    """`F w^2 / 2` of each connection, F the mean over samples of the squared gradient, one dense outer product each."""
    n_samples = x.shape[1]
    squares = sum(np.outer(n_samples * dy[:, b], x[:, b]).astype(np.float64) ** 2 for b in range(n_samples))
    weights = matrix_of(topology, values).astype(np.float64)
    saliencies: list[float] = (np.asarray(squares) / n_samples * weights**2 / 2)[mask_of(topology)].tolist()
    return saliencies


def drop_of(
    name: str,
    values: Sequence[float],
    importances: Sequence[float],
    fraction: float,
    saliencies: Sequence[float] = (),
) -> list[int]:
    """Slots that the drop criterion `name` takes where everything may go.

    No weight is below a threshold, and none has changed its sign.
    """
    if name in ("below_threshold", "sign_change"):
        return []
    if name == "signed_magnitude":
        return set_drop(values, fraction) if values and fraction > 0 else []
    scores = {"connection_importance": importances, "fisher": saliencies}
    return magnitude_drop(scores.get(name, values), fraction)


def _largest(score: Matrix, taken: Mask, count: int) -> list[int]:
    ranked = sorted(np.flatnonzero(~taken).tolist(), key=lambda position: (-score.ravel()[position], position))
    return sorted(ranked[:count])


def gradient_growth(gradient: Matrix, taken: Mask, count: int) -> list[int]:
    """Positions of the largest |gradient| that are not taken, lower position first, by sorting the dense matrix."""
    return _largest(np.abs(gradient), taken, count)


def cosines(targets: Matrix, sources: Matrix) -> Matrix:
    """(n_out, n_in) |cosine| of the rows of two matrices of samples (neurons, B), 0 where one is constant."""
    scores = np.zeros((len(targets), len(sources)))
    for output, target in enumerate(targets):
        for column, source in enumerate(sources):
            if len(set(target.tolist())) > 1 and len(set(source.tolist())) > 1:
                lengths = math.hypot(*target) * math.hypot(*source)
                scores[output, column] = abs(float(np.dot(target, source))) / lengths
    return scores


def cosine_growth(scores: Matrix, taken: Mask, count: int) -> list[int]:
    """Positions of the largest scores that are not taken."""
    return _largest(scores, taken, count)


def path_scores(mask: Mask) -> Matrix:
    """CH2-L3n of all positions, neuron by neuron."""
    reads = [set(np.flatnonzero(row).tolist()) for row in mask]
    feeds = [set(np.flatnonzero(column).tolist()) for column in mask.T]

    def worth(common: int, degree: int) -> float:
        return (1 + common) / (1 + max(0, degree - common - 1)) if common else 0.0

    scores = np.zeros(mask.shape)
    for output, column in np.ndindex(*mask.shape):
        by_outputs = (worth(len(reads[output] & reads[other]), len(reads[other])) for other in feeds[column])
        by_inputs = (worth(len(feeds[column] & feeds[other]), len(feeds[other])) for other in reads[output])
        scores[output, column] = sum(by_outputs) + sum(by_inputs)
    return scores


def importance_growth(outputs: Matrix, inputs: Matrix, taken: Mask, dropped: Mask, count: int) -> list[int]:
    """The same by products of importances, all >= 0; what was just dropped comes last."""
    return _largest(np.where(dropped, -1.0, np.outer(outputs, inputs)), taken, count)


def soft_update_and_trim(target: Matrix, online: Matrix, online_nnz: int, tau: float) -> Matrix:
    """DS-TD3's target rule: average all entries, then zero the smallest so that no more than `online_nnz` are left."""
    target = tau * online + (1 - tau) * target
    surplus = np.count_nonzero(target) - online_nnz
    if surplus > 0:
        present = np.flatnonzero(target)
        present = present[np.argsort(np.abs(target.ravel()[present]), kind="stable")]
        target.ravel()[present[:surplus]] = 0
    return target


def erk_densities(shapes: Sequence[tuple[int, int]], density: float) -> list[float]:
    """Solves sum of min(1, e r_l) N_l = budget for e by bisection; no clipping passes."""
    sizes = [n_out * n_in for n_out, n_in in shapes]
    raw = [(n_out + n_in) / (n_out * n_in) for n_out, n_in in shapes]
    budget = sum(size - math.floor(round((1 - density) * size, 6)) for size in sizes)
    low, high = 0.0, 1.0 / min(raw)
    for _ in range(200):
        middle = (low + high) / 2
        total = sum(min(1.0, middle * r) * size for r, size in zip(raw, sizes, strict=True))
        low, high = (middle, high) if total < budget else (low, middle)
    return [min(1.0, high * r) for r in raw]
