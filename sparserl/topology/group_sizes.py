"""How many neurons may share their inputs, and numbers of connections that fit: nothing that takes time to import."""

from __future__ import annotations

from sparserl.errors import TopologyError

PAIRS = (1, 2, 4)
"""Neurons that may share their inputs."""


def check_pairs(pairs: int, name: str = "pairs") -> int:
    """Returns `pairs`, or raises TopologyError unless it is one of `PAIRS`; `name` is what a message calls it."""
    if pairs not in PAIRS or isinstance(pairs, bool):
        closest = min(PAIRS, key=lambda known: abs(known - pairs))
        raise TopologyError(f"{name} must be 1, 2 or 4, got {pairs}; the closest is {closest}")
    return pairs


def check_divides(pairs: int, layer: str, n_out: int) -> None:
    """Raises TopologyError unless the outputs of a layer come in groups of `pairs`.

    Args:
        pairs: Outputs that share their inputs.
        layer: What to call the layer.
        n_out: Its outputs.
    """
    if n_out % pairs:
        fits = max(fewer for fewer in PAIRS if n_out % fewer == 0)
        raise TopologyError(
            f"layer {layer} of width {n_out} does not come in groups of {pairs}: use pairs {fits}, or keep the layer "
            f"dense; the closest width would be {nearest_multiple(n_out, pairs)}"
        )


def nearest_multiple(count: int, pairs: int) -> int:
    """The multiple of `pairs` that is nearest to `count`, at least one; of two the larger.

    Example:
        >>> nearest_multiple(7, 2), nearest_multiple(9, 4), nearest_multiple(1, 4)
        (8, 8, 4)
    """
    return max(1, (count + pairs // 2) // pairs) * pairs


def groups_in(count: int, pairs: int, name: str) -> int:
    """Number of groups that `count` connections make; `name` is what a message calls the count.

    Raises:
        TopologyError: If it is no multiple of `pairs`.
    """
    if count % pairs:
        closest = nearest_multiple(count, pairs)
        raise TopologyError(f"{name} must be a multiple of {pairs}, got {count}; the closest is {closest}")
    return count // pairs
