"""What this process has used of the machine: CPU time and memory, over all parts of a run that was resumed."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping
from typing import Any

_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss


class ProcessCost:
    """Counts from when it is made; evaluation, logs and checkpoints of a run are part of it."""

    def __init__(self) -> None:
        self._cpu_s_before, self._peak_before = 0.0, 0
        self._cpu_s_at_start = time.process_time()

    @property
    def cpu_s(self) -> float:
        """Seconds of CPU time, user and system, all threads together."""
        return self._cpu_s_before + time.process_time() - self._cpu_s_at_start

    @property
    def memory_peak_bytes(self) -> int:
        """Largest resident memory so far, with everything that the process held before."""
        return max(self._peak_before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT_BYTES)

    def metrics(self) -> dict[str, float]:
        """Both, by their logged names."""
        return {"cost/cpu_s": self.cpu_s, "cost/memory_peak_bytes": float(self.memory_peak_bytes)}

    def summary(self) -> dict[str, Any]:
        """Both, under the names of `result.json`; also what `load` takes."""
        return {"cpu_s": self.cpu_s, "memory_peak_bytes": self.memory_peak_bytes}

    def load(self, summary: Mapping[str, Any]) -> None:
        """Goes on from what an earlier process of the run had used."""
        self._cpu_s_before, self._peak_before = summary["cpu_s"], summary["memory_peak_bytes"]
        self._cpu_s_at_start = time.process_time()
