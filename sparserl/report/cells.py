"""Numbers of a report as JSON and as cells of its tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sparserl.metrics.bootstrap import Estimate

Record = dict[str, Any]
"""Plain data that JSON holds."""
UNKNOWN = "-"
PREFIX, PREFIXES = "prefix", ("", "k", "M", "G", "T", "P", "E")
"""Form of numbers that have one of these."""


def or_none(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else value


def estimate_record(estimate: Estimate) -> Record:
    """An estimate as plain data, None where undefined."""
    return {part: or_none(getattr(estimate, part)) for part in ("value", "low", "high")}


def estimate_cell(estimate: Record, digits: int) -> str:
    """A value and beneath it its interval, if there is one."""
    if estimate["value"] is None:
        return UNKNOWN
    value, low, high = (_number(estimate[part], digits) for part in ("value", "low", "high"))
    return value if estimate["low"] is None else f"{value}\n[{low}, {high}]"


def _number(value: float | None, digits: int) -> str:
    return UNKNOWN if value is None else f"{value:z,.{digits}f}"


def mean_cell(values: Sequence[float | None], form: str = ",.0f") -> str:
    """Mean over seeds, by a format or `PREFIX`; unknown if that of one seed is."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return UNKNOWN
    mean = float(np.mean(known))
    return with_prefix(mean) if form == PREFIX else f"{mean:{form}}"


def with_prefix(value: float) -> str:
    """Three digits with the prefix of thousands, not below 1.

    Example:
        >>> with_prefix(1.237e12), with_prefix(999_700.0), with_prefix(0.5)
        ('1.24T', '1M', '0.5')
    """
    rounded = float(f"{value:.3g}")
    power = 0
    while abs(rounded) >= 1000.0 and power + 1 < len(PREFIXES):
        rounded, power = rounded / 1000.0, power + 1
    return f"{rounded:.3g}{PREFIXES[power]}"


def score_digits(largest: float) -> int:
    """Decimals of a score: none of hundreds, two of what is near 1."""
    return 0 if abs(largest) >= 100 else 1 if abs(largest) >= 10 else 2


def first_to_last_cell(seeds: Sequence[Sequence[float] | None]) -> str:
    """Means over seeds of what is known after each task, after the first and after the last one."""
    known = [one for one in seeds if one]
    if len(known) < len(seeds):
        return UNKNOWN
    first, last = (mean_cell([one[index] for one in known]) for index in (0, -1))
    return first if first == last else f"{first} .. {last}"


def counted(seeds: Sequence[int]) -> str:
    """How many seeds there are, in words."""
    return f"{len(seeds)} seed" + "s" * (len(seeds) > 1)


def listed(seeds: Sequence[int]) -> str:
    """Which seeds there are."""
    return ", ".join(map(str, seeds))
