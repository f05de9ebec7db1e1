"""What sparse networks among some groups of runs are worth in parameters of the dense ones among them.

Decides which dense groups make a sweep of sizes. Independent of what quality is and where it comes from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sparserl.metrics.efficiency import dense_equivalent
from sparserl.report.cells import Record

HEAD = "dense\nequivalent"
FEWEST_SIZES = 2
"""Of a sweep."""
NOTE = (
    "dense equivalent (a definition of this suite): parameters of the smallest dense network of the same kind that "
    "reaches as much, between the sizes that were trained, and how many times those of this one that is"
)


@dataclass(frozen=True)
class Measured:
    """What a group of runs reached, and by how many parameters.

    Attributes:
        label: Of the group.
        family: What it has in common with the dense groups that it may be compared with.
        size: Connections and biases that exist, mean over seeds; None if unknown.
        is_dense: Whether all that could exist do; None if unknown.
        quality: Mean over seeds; more is better. NaN if unknown.
    """

    label: str
    family: str
    size: float | None
    is_dense: bool | None
    quality: float


def dense_equivalents(groups: Sequence[Measured]) -> list[Record]:
    """Of each group `parameters` of the dense network and `efficiency`, their share of its own; or why there are none.

    Of dense groups of one size the best counts.
    """
    return [_of(group, groups) for group in groups]


def _sweep(family: str, groups: Sequence[Measured]) -> dict[float, float]:
    """Quality of the best dense group of each size."""
    sweep: dict[float, float] = {}
    for one in groups:
        if one.family == family and one.is_dense and one.size is not None and not math.isnan(one.quality):
            sweep[one.size] = max(one.quality, sweep.get(one.size, -math.inf))
    return sweep


def _of(group: Measured, groups: Sequence[Measured]) -> Record:
    sweep = _sweep(group.family, groups)
    if group.is_dense:
        return _none("it is dense itself")
    if group.size is None or group.is_dense is None:
        return _none("its number of parameters is not known")
    if math.isnan(group.quality):
        return _none("what it reached is not known")
    if len(sweep) < FEWEST_SIZES:
        return _none(f"it needs dense runs of its kind in two sizes at least, here are {len(sweep) or 'none'}")
    if group.quality > max(sweep.values()):
        return _none("no dense network reaches as much")
    smallest = min(sweep)
    if group.quality <= sweep[smallest]:
        return _none(f"the smallest dense network, of {smallest:,.0f} parameters, reaches as much")
    parameters = dense_equivalent(list(sweep), list(sweep.values()), group.quality)
    return {"parameters": parameters, "efficiency": parameters / group.size, "reason": None}


def _none(why: str) -> Record:
    return {"parameters": None, "efficiency": None, "reason": why}


def is_shown(groups: Sequence[Measured]) -> bool:
    """Whether a table of these groups has a column for it: a sparse group, and dense ones of its family in sizes."""
    sparse = {group.family for group in groups if group.is_dense is False}
    return any(len(_sweep(family, groups)) >= FEWEST_SIZES for family in sparse)


def cell(record: Record) -> str:
    """As it stands in a table."""
    return "-" if record["reason"] else f"{record['parameters']:,.0f}\n({record['efficiency']:.2f} x)"


def notes(labels: Sequence[str], records: Sequence[Record]) -> list[str]:
    """What the column is, and why cells of sparse groups are empty, one line each."""
    reasons: dict[str, list[str]] = {}
    for label, record in zip(labels, records, strict=True):
        if record["reason"] and record["reason"] != "it is dense itself":
            reasons.setdefault(record["reason"], []).append(label)
    return [NOTE, *(f"no dense equivalent ({'; '.join(named)}): {why}" for why, named in reasons.items())]
