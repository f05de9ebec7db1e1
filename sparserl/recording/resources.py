"""What this process has used of the machine: CPU time, memory and energy, over all parts of a run that was resumed."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sparserl.recording.energy import EnergyMeter

STATUS = Path("/proc/self/status")
_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss


def resident_bytes(key: str) -> int:
    """Resident memory of this process as Linux tells it: `VmRSS` now, `VmHWM` at its highest."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1]) * 1024


def peak_bytes() -> int:
    """Largest resident memory of this process so far.

    `getrusage` where there is nothing else: on Linux, there, that of a new process begins with the largest of the
    process that started it.
    """
    if STATUS.exists():
        return resident_bytes("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT_BYTES


class ProcessCost:
    """Counts from when it is made; evaluation, logs and checkpoints of a run are part of it.

    Args:
        energy: Whether to estimate energy as well.

    Raises:
        ConfigError: If that is asked for and the `energy` extra is not installed.
    """

    def __init__(self, *, energy: bool = False) -> None:
        self._before: Mapping[str, Any] = {"cpu_s": 0.0, "memory_peak_bytes": 0, "energy_kwh": 0.0}
        self._meter = EnergyMeter() if energy else None
        self._cpu_s_at_start = time.process_time()

    @property
    def cpu_s(self) -> float:
        """Seconds of CPU time, user and system, all threads together."""
        return float(self._before["cpu_s"]) + time.process_time() - self._cpu_s_at_start

    @property
    def memory_peak_bytes(self) -> int:
        """Largest resident memory so far, with everything that the process held before."""
        return max(int(self._before["memory_peak_bytes"]), peak_bytes())

    def metrics(self) -> dict[str, float]:
        """All of it, by logged names."""
        return {f"cost/{name}": float(value) for name, value in self.summary().items()}

    def with_columns(self, logs: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
        """CSV logs of a run and their columns, with those in progress.csv that not every run has."""
        return {**logs, "progress": tuple(dict.fromkeys((*logs["progress"], *self.metrics())))}

    def summary(self) -> dict[str, Any]:
        """All of it, under the names of `result.json`; also what `load` takes. Energy only where it is estimated."""
        used: dict[str, Any] = {"cpu_s": self.cpu_s, "memory_peak_bytes": self.memory_peak_bytes}
        if self._meter is not None:
            used["energy_kwh"] = self._before["energy_kwh"] + self._meter.kwh
        return used

    def load(self, summary: Mapping[str, Any]) -> None:
        """Goes on from what an earlier process of the run had used."""
        self._before = {**self._before, **summary}
        self._cpu_s_at_start = time.process_time()
