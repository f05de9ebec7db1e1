"""`support.gated_env:Gated-v0`: stands still in the middle of a run while the gate of its machine is closed.

The gate is the folder that `GATE` in the environment names; it is open if there is none, or `open` lies in it. Who
stands before it leaves a file named by the process.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
from support.envs import Array, FunctionEnv

STEPS_BEFORE_GATE = 120


class Gated(FunctionEnv):
    """The gate opens for a run that is asked to save and stop, too."""

    def __init__(self) -> None:
        super().__init__(horizon=17)
        self.steps = 0

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        if self.steps == STEPS_BEFORE_GATE and "GATE" in os.environ:
            wait(Path(os.environ["GATE"]))
        return super().step(action)


def wait(gate: Path) -> None:
    """Until the gate opens."""
    asked: list[int] = []
    before: Any = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda number, frame: (asked.append(number), before(number, frame)))
    while not (gate / "open").exists() and not asked:
        (gate / str(os.getpid())).touch()
        time.sleep(0.02)
    signal.signal(signal.SIGTERM, before)


gym.register("Gated-v0", entry_point=Gated)
