"""How far a run is: its wall time over all parts of it, its steps a second, and a bar."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

from tqdm import tqdm


class RunProgress:
    """The clock of a run starts when this is made, and goes on where an earlier process of the run ended.

    Args:
        total_steps: Length of the run.
        show: Whether to draw the bar.
    """

    def __init__(self, total_steps: int, *, show: bool):
        self._said = False
        self._seconds_before = 0.0
        self._started = time.perf_counter()
        self._measured_at = (0, self._started)
        self._bar = tqdm(
            total=total_steps,
            unit="step",
            unit_scale=True,
            disable=not show,
            dynamic_ncols=True,
            bar_format="{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]",
        )

    @property
    def elapsed_s(self) -> float:
        """Wall time of the run, earlier parts of a resumed one included."""
        return self._seconds_before + time.perf_counter() - self._started

    def load(self, elapsed_s: float) -> None:
        """Goes on from the wall time of the earlier parts of the run."""
        self._seconds_before = elapsed_s

    def start(self, step: int) -> None:
        """Training begins, or goes on, at a step."""
        self._bar.update(step - self._bar.n)
        self._measured_at = (step, time.perf_counter())

    def show(self, step: int, said: Mapping[str, str] | None = None) -> None:
        """Moves the bar to a step, with something new to read beside it if there is."""
        if said is not None:
            self._bar.set_postfix(said, refresh=False)
        self._bar.update(step - self._bar.n)

    def say(self, line: str) -> None:
        """Writes a line of warning, above the bar."""
        tqdm.write(f"sparserl: {line}", file=sys.stderr)

    def say_once(self, line: str | None) -> None:
        """Writes a line of warning unless this process has written one in this way before; nothing for None."""
        if line is not None and not self._said:
            self._said = True
            self.say(line)

    def timing(self, step: int) -> dict[str, float]:
        """Steps a second since this was asked last, and wall time, by their logged names."""
        now = time.perf_counter()
        (before, then), self._measured_at = self._measured_at, (step, now)
        return {"time/sps": (step - before) / max(now - then, 1e-9), "time/elapsed_s": self.elapsed_s}

    def close(self) -> None:
        """Ends the bar."""
        self._bar.close()
