"""What a topology event costs, with everything that follows from it.

An event does work later as well: indices derived from the connections are made anew when they are needed next. So
windows of updates with one event alternate with windows without, and the difference is the event.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sparserl.bench.options import Record
from sparserl.bench.threads import limit_threads
from sparserl.bench.timing import Clock, spread

WINDOW = 4
"""Gradient updates in a window: an event of the critics is followed by that of the actor, and by use of both."""
SCHEDULE = {"first_update": 1, "update_interval": 2 * WINDOW}
"""Topology fields that put an event at the start of every other window."""


@dataclass(frozen=True)
class EventTiming:
    """Seconds of windows, one pair a round.

    Attributes:
        with_event: Seconds of windows in which every sparse layer rewired once.
        without: Seconds of the windows that followed them.
        warm_up_s: Seconds of one pair before the first round.
    """

    with_event: tuple[float, ...]
    without: tuple[float, ...]
    warm_up_s: float

    def summary(self, interval: int = 1000) -> Record:
        """Milliseconds of an update and of an event, and the event's share of training with one every `interval`."""
        updates = [1000 * seconds / WINDOW for seconds in self.without]
        events = [1000 * (event - plain) for event, plain in zip(self.with_event, self.without, strict=True)]
        update_ms, event_ms = spread(updates), spread(events)
        return {
            "warm_up_s": self.warm_up_s,
            "update_ms": {"per_round": updates, **update_ms},
            "event_ms": {"per_round": events, **event_ms},
            "share": event_ms["median"] / (interval * update_ms["median"] + event_ms["median"]),
        }


def time_events(
    agent: OffPolicyAlgorithm,
    batch_size: int,
    threads: Sequence[int],
    rounds: int,
    clock: Clock = time.perf_counter,
) -> dict[int, EventTiming]:
    """Times windows of updates with and without an event, for each number of threads in turns.

    Args:
        agent: One with a topology that has `SCHEDULE`, before its first update.
        batch_size: Transitions per update.
        threads: Numbers of threads.
        rounds: Pairs of windows that count for each; one more comes before.
        clock: Seconds.
    """
    pairs: dict[int, list[tuple[float, float]]] = {number: [] for number in threads}
    for _ in range(rounds + 1):
        for number in threads:
            with limit_threads(number):
                marks = [clock()]
                for _ in range(2):
                    agent.train(gradient_steps=WINDOW, batch_size=batch_size)
                    marks.append(clock())
            pairs[number].append((marks[1] - marks[0], marks[2] - marks[1]))
    return {
        number: EventTiming(
            with_event=tuple(event for event, _ in timed[1:]),
            without=tuple(plain for _, plain in timed[1:]),
            warm_up_s=sum(timed[0]),
        )
        for number, timed in pairs.items()
    }
