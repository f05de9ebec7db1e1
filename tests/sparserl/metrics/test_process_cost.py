"""CPU time and memory of a process: they grow with use, and go on where an earlier process of the run ended."""

from __future__ import annotations

import time

import numpy as np

from sparserl.metrics.process_cost import ProcessCost


def test_cpu_time_is_that_of_work_not_of_waiting() -> None:
    cost = ProcessCost()
    time.sleep(0.2)
    idle = cost.cpu_s
    assert idle < 0.15
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass
    assert cost.cpu_s >= idle + 0.2


def test_memory_is_counted_in_bytes_and_never_falls() -> None:
    cost = ProcessCost()
    before = cost.memory_peak_bytes
    assert before > 10_000_000  # an interpreter with NumPy
    block = np.ones(60_000_000, np.uint8)
    size = block.nbytes
    del block
    assert cost.memory_peak_bytes >= before
    assert cost.memory_peak_bytes >= size


def test_a_resumed_run_adds_up() -> None:
    cost = ProcessCost()
    cost.load({"cpu_s": 1000.0, "memory_peak_bytes": 2**50})
    assert 1000.0 <= cost.cpu_s < 1100.0
    assert cost.memory_peak_bytes == 2**50
    assert cost.summary()["memory_peak_bytes"] == 2**50
    assert set(cost.metrics()) == {"cost/cpu_s", "cost/memory_peak_bytes"}
