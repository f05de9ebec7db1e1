"""Samples split into parts of all classes alike, and what features are scaled by.

Source:
    Splits and scalers are scikit-learn's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from sparserl.continual.supervised.tasks import ForEach, Integers
from sparserl.errors import ConfigError, clipped
from sparserl.seeding import stream

Features = npt.NDArray[np.uint8] | npt.NDArray[np.float32]
Scaling = Literal["each_feature", "all_features", "range", "none"]
"""What features are scaled by: mean and standard deviation, or smallest and largest value."""
Part = tuple[Features, Integers, float]
"""(N, F) features as stored, which rows of them, and what brings them to [0, 1]."""
CHUNK_ENTRIES = 2**22


def sklearn_seed(seed: int, *names: str) -> int:
    """A seed for scikit-learn, of a stream of the root seed."""
    return int(stream(seed, "tables", *names).integers(2**32))


def split_rows(
    name: str, classes: Sequence[str], labels: Integers, rows: Integers, share: float, part: str, seed: int
) -> tuple[Integers, Integers]:
    """(rows that stay, `share` of them that do not), both ascending and with every class.

    Args:
        name: Of the data, for messages.
        classes: Names of the classes.
        labels: (N,) class of each sample, an index into them.
        rows: Which samples are split.
        share: That is held out, in (0, 1).
        part: What they are for, which names the stream too.
        seed: Root seed.

    Raises:
        ConfigError: If a class has too few samples.
    """
    from sklearn.model_selection import train_test_split

    counts = np.bincount(labels[rows], minlength=len(classes))
    try:
        kept, held = train_test_split(
            rows, test_size=share, stratify=labels[rows], random_state=sklearn_seed(seed, "split", part)
        )
        fits = all(np.bincount(labels[one], minlength=len(classes)).all() for one in (kept, held))
    except ValueError:  # more classes than samples in a part, or a class of one sample
        fits = False
    if not fits:
        rarest = int(counts.argmin())
        few = f"class {clipped(classes[rarest])!r} of {name} has {counts[rarest]} of {rows.size} samples"
        raise ConfigError(f"{few}: too few for a {part} share of {share}")
    return np.sort(kept), np.sort(held)


def standard(parts: Sequence[Part], scaling: Scaling) -> tuple[ForEach, ForEach]:
    """What is subtracted from scaled features, and what then divides them, by some samples.

    Args:
        parts: At least one with samples, all of as many features.
        scaling: By what.
    """
    if scaling == "none":
        return 0.0, 1.0
    chunks = _Chunks(parts)
    if scaling == "range":
        low, high = (edge([edge(chunk, axis=0) for chunk in chunks], axis=0) for edge in (np.min, np.max))
        low, high = (np.float32(chunks.scale) * one.astype(np.float32) for one in (low, high))
        return low, np.where(high > low, high - low, np.float32(np.inf))
    from sklearn.preprocessing import StandardScaler

    first = next(iter(chunks))[0]
    scaler, varies = StandardScaler(), np.zeros(first.size, bool)
    for chunk in chunks:
        scaler.partial_fit(chunk)
        varies |= (chunk != first).any(axis=0)
    mean, variance = scaler.mean_ * chunks.scale, np.where(varies, scaler.var_, 0.0) * chunks.scale**2
    if scaling == "each_feature":
        # Divided by infinity, a constant feature is 0 in all samples, also where it differs in other ones.
        std = np.where(varies, np.sqrt(variance), np.inf)
        return mean.astype(np.float32), std.astype(np.float32)
    if not varies.any():
        return float(mean.mean()), np.inf
    return float(mean.mean()), float(np.sqrt(variance.mean() + mean.var()))


class _Chunks:
    """Samples of all parts, as stored; scaled, where parts differ in their scale.

    Attributes:
        scale: What is left to scale by.
    """

    def __init__(self, parts: Sequence[Part]):
        scales = {scale for *_, scale in parts}
        self._parts, self._is_mixed = parts, len(scales) > 1
        self.scale = 1.0 if self._is_mixed else scales.pop()

    def __iter__(self) -> Iterator[npt.NDArray[np.uint8 | np.float32]]:
        for x, rows, scale in self._parts:
            for chunk in row_chunks(rows, x.shape[1]):
                yield x[chunk].astype(np.float32) * np.float32(scale) if self._is_mixed else x[chunk]


def row_chunks(rows: Integers, n_features: int) -> list[Integers]:
    """Rows in parts of which no copy takes much memory."""
    size = max(1, CHUNK_ENTRIES // n_features)
    return [rows[start : start + size] for start in range(0, rows.size, size)]
