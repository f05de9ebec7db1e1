"""Which tiles of a share hold what, where a pass keeps nothing: memory is used again as soon as nobody needs it."""

from __future__ import annotations

from collections.abc import Sequence

from sparserl.kernels.networks import After


def slots_of(lives: Sequence[tuple[int, int]]) -> list[int]:
    """The lowest place for each thing that is free as long as it lives.

    Args:
        lives: First and last moment of each, ordered by the first; both count.
    """
    places: list[int] = []
    for number, (begin, _) in enumerate(lives):
        taken = {places[before] for before in range(number) if lives[before][1] >= begin}
        places.append(next(place for place in range(len(lives)) if place not in taken))
    return places


def forward_slots(after: Sequence[After], normed: Sequence[bool]) -> tuple[list[int], list[int], int]:
    """Places of the level of each layer, of what it multiplies, and of the output.

    Args:
        after: What follows each layer.
        normed: Whether each layer has a norm.
    """
    depth = len(after)
    # Layer k makes what it multiplies at moment 2 k, and its sums at 2 k + 1.
    ends = [2 * layer + (0 if normed[layer] else 1) for layer in range(depth)]
    for layer, one in enumerate(after):
        if one.added is not None:
            ends[one.added] = max(ends[one.added], 2 * layer + 1)
    lives = {("level", layer): (2 * layer - 1, ends[layer]) for layer in range(depth)}
    lives |= {("read", layer): (2 * layer, 2 * layer + 1) for layer in range(depth) if normed[layer]}
    lives["last", depth] = (2 * depth - 1, 2 * depth)
    ordered = sorted(lives, key=lives.__getitem__)
    places = dict(zip(ordered, slots_of([lives[name] for name in ordered]), strict=True))
    levels = [places["level", layer] for layer in range(depth)]
    return levels, [places.get(("read", layer), levels[layer]) for layer in range(depth)], places["last", depth]


def backward_slots(after: Sequence[After]) -> list[int]:
    """Place of the gradient by the level of each layer; that by the output is in place 0.

    Args:
        after: What follows each layer.
    """
    depth = len(after)
    lives = []
    for level in range(depth, -1, -1):  # made when layer `level` is gone through, the output before that
        added = after[level - 1].added if level > 0 else None
        needed_by = level - 1 if added is None else min(level - 1, added)
        lives.append((depth - level, depth - max(needed_by, 0)))
    return slots_of(lives)[:0:-1]
