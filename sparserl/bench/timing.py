"""Interleaved timing: contenders take turns, so that whatever else the machine does meets all of them alike.

Decides what a measurement is: warm-up apart, chunks of about equal length, ratios of neighbours in time, medians.
Independent of what is measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from tqdm import tqdm

K = TypeVar("K", bound=Hashable)
Clock = Callable[[], float]
"""Seconds since some moment."""


@dataclass(frozen=True)
class Contender:
    """Something to time.

    Attributes:
        run: Does the work as many times as it is told.
        units: Of work in each of them, say gradient updates; times are those of a unit.
        setting: Entered before each chunk and left after it, outside of the time; e.g. a number of threads.
    """

    run: Callable[[int], object]
    units: int = 1
    setting: Callable[[], AbstractContextManager[object]] = nullcontext


@dataclass(frozen=True)
class Timing:
    """What was measured of a contender.

    Attributes:
        warm_up_s: Seconds before the first round: compilation, first calls, finding the size of a chunk. In no other
            number.
        units: Of work in a chunk; there is one chunk a round.
        seconds: Of a unit, by round.
    """

    warm_up_s: float
    units: int
    seconds: tuple[float, ...]


def measure(
    contenders: Mapping[K, Contender],
    *,
    rounds: int,
    chunk_s: float,
    title: str = "",
    progress: bool = False,
    after_round: Callable[[Mapping[K, Timing]], object] | None = None,
    clock: Clock = time.perf_counter,
) -> dict[K, Timing]:
    """Times contenders in turns. Every round has a chunk of each, and starts one further on than the last.

    Args:
        contenders: By name, in the order of the first round.
        rounds: Chunks of each contender, >= 1.
        chunk_s: Seconds that a chunk should last; one repetition where that takes longer.
        title: What the progress bar says.
        progress: Draw the bar, where there is a terminal.
        after_round: Told after each round what was measured up to there.
        clock: Seconds.
    """
    names = list(contenders)
    seconds: dict[K, list[float]] = {name: [] for name in names}
    with tqdm(total=(rounds + 1) * len(names), desc=title, leave=False, disable=None if progress else True) as bar:
        warm = {}
        for name in names:
            warm[name] = _warm_up(contenders[name], chunk_s, clock)
            bar.update()
        for turn in range(rounds):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                contender, (repetitions, _) = contenders[name], warm[name]
                with contender.setting():
                    contender.run(1)  # fills caches and wakes threads
                    elapsed = _time(contender, repetitions, clock)
                seconds[name].append(elapsed / (repetitions * contender.units))
                bar.update()
            timings = {
                name: Timing(warm_up_s, repetitions * contenders[name].units, tuple(seconds[name]))
                for name, (repetitions, warm_up_s) in warm.items()
            }
            if after_round is not None:
                after_round(timings)
    return timings


def _warm_up(contender: Contender, chunk_s: float, clock: Clock) -> tuple[int, float]:
    """(repetitions that fill a chunk, seconds that it took to find out)."""
    begin = clock()
    with contender.setting():
        contender.run(1)
        repetitions = 1
        while (elapsed := _time(contender, repetitions, clock)) < chunk_s / 4:
            repetitions *= 2
    return max(1, round(repetitions * chunk_s / elapsed)), clock() - begin


def _time(contender: Contender, repetitions: int, clock: Clock) -> float:
    start = clock()
    contender.run(repetitions)
    return clock() - start


def speed_up(timing: Timing, baseline: Timing) -> list[float]:
    """How many times faster than the baseline, round by round."""
    return [base / ours for base, ours in zip(baseline.seconds, timing.seconds, strict=True)]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles, as a record keeps them.

    Example:
        >>> spread([1.0, 2.0, 4.0, 8.0, 16.0])
        {'median': 4.0, 'q25': 2.0, 'q75': 8.0}
    """
    q25, median, q75 = np.percentile(values, [25, 50, 75])
    return {"median": float(median), "q25": float(q25), "q75": float(q75)}
