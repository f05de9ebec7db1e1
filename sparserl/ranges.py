"""Ranges of numbers, declared beside the fields that they hold for: `gamma: PositiveShare = 0.99`.

Each dataclass that users fill calls `check_ranges` first; NaN is in no range, and infinity in none either.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import sys
import typing
from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any

from sparserl.errors import ConfigError, shown

MANY = 1e3
"""A range that goes further is said by the end that a number is beyond."""
MOST_ITEMS = 1000
"""Numbers in one field, for example layers of a network."""


class Range:
    """An interval, open or closed at each end.

    Args:
        text: As in mathematics, for example `"(0, 1]"`; ends may be `inf` or a power `a**b`.
    """

    def __init__(self, text: str):
        self.text = text
        self.low, self.high = (_number(end) for end in text[1:-1].split(","))
        self._low_is_in, self._high_is_in = text[0] == "[", text[-1] == "]"

    def __contains__(self, number: Any) -> bool:
        if abs(number) > sys.float_info.max:  # as infinity, an integer that no float holds
            return False
        above = self.low <= number if self._low_is_in else self.low < number
        below = number <= self.high if self._high_is_in else number < self.high
        return bool(above and below)

    def refusal(self, number: Any) -> str:
        """What a number that is not in it must be."""
        if number >= self.high and self.high >= MANY:
            end = self.text[1:-1].split(",")[1].strip()
            return "must be finite" if end == "inf" else f"must be {'at most' if self._high_is_in else 'below'} {end}"
        if self.high < MANY or math.isinf(self.low):
            return f"must be {'finite' if math.isinf(self.low) else f'in {self.text}'}"
        if self.low == 0.0:
            return "must not be negative" if self._low_is_in else "must be positive"
        return f"must be at least {self.low:g}"


def _number(end: str) -> float:
    base, _, exponent = end.partition("**")
    return float(float(base) ** float(exponent or 1))


Count = Annotated[int, Range("[1, 1e12]")]
CountOrZero = Annotated[int, Range("[0, 2**63)")]
Repeats = Annotated[int, Range("[1, 1e6]")]
"""Episodes, epochs, rounds: something of which each takes its time."""
RepeatsOrZero = Annotated[int, Range("[0, 1e6]")]
Workers = Annotated[int, Range("[1, 1024]")]
"""Threads or processes."""
Seed = Annotated[int, Range("[0, 2**32)")]
"""NumPy's global generator takes no more."""
Share = Annotated[float, Range("[0, 1]")]
PositiveShare = Annotated[float, Range("(0, 1]")]
InnerShare = Annotated[float, Range("(0, 1)")]
ShareBelowOne = Annotated[float, Range("[0, 1)")]
Number = Annotated[float, Range("(-inf, inf)")]
NotNegative = Annotated[float, Range("[0, inf)")]
Positive = Annotated[float, Range("(0, inf)")]
AtLeastOne = Annotated[float, Range("[1, inf)")]
Seconds = Annotated[float, Range("(0, 3600]")]


def check_ranges(config: Any, where: str, *, hyphens: bool = True) -> None:
    """Checks the numbers of a dataclass, those in tuples, and in tuples of these, too; None and names are no numbers.

    Args:
        config: The dataclass.
        where: What stands before the names of its fields in messages, for example `"learner."`.
        hyphens: Whether names are said as in flags; otherwise as in Python and in files.

    Raises:
        ConfigError: If one is out of range, or a tuple has more than `MOST_ITEMS`.
    """
    for name, allowed in ranges_of(config.__class__).items():
        value = getattr(config, name)
        items = list(_items(value))
        said = where + (name.replace("_", "-") if hyphens else name)
        if len(items) > MOST_ITEMS:
            raise ConfigError(f"{said} must have at most {MOST_ITEMS} numbers, got {len(items):,}")
        for item in items:
            if isinstance(item, numbers.Real) and not isinstance(item, bool) and item not in allowed:
                raise ConfigError(f"{said} {allowed.refusal(item)}, got {shown(value)}")


def check_wait(option: str, wait: int | None, length: int, unit: str) -> None:
    """Raises ConfigError if something is to happen for the first time after a run.

    Args:
        option: That says when, for example `"agent.policy_delay"`.
        wait: Its value; None if it never happens.
        length: Of the run.
        unit: Of both, for example `"gradient updates"`.
    """
    if wait is not None and wait > length:
        raise ConfigError(f"{option} {wait} lies beyond the run of {length:,} {unit}; give at most {length}")


def _items(value: Any) -> Iterator[Any]:
    if not isinstance(value, tuple | list):
        yield value
        return
    for one in value:
        yield from _items(one)


@cache
def ranges_of(schema: Any) -> dict[str, Range]:
    """Range of each field of a dataclass that has one."""
    hints = typing.get_type_hints(schema, include_extras=True)
    by_name = {field.name: _range_in(hints[field.name]) for field in dataclasses.fields(schema)}
    return {name: one for name, one in by_name.items() if one is not None}


def _range_in(hint: Any) -> Range | None:
    """The range in an annotation, be it optional, in a tuple, or beside a name."""
    for part in (*getattr(hint, "__metadata__", ()), *typing.get_args(hint)):
        range_ = part if isinstance(part, Range) else _range_in(part)
        if range_ is not None:
            return range_
    return None
