"""CPU time and memory of a process: they grow with use, and go on where an earlier process of the run ended."""

from __future__ import annotations

import gc
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from sparserl.errors import ConfigError
from sparserl.recording.resources import ProcessCost


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


def test_columns_of_a_log_are_those_that_a_run_has() -> None:
    logs = {"eval": ("a",), "progress": ("global_step", "cost/cpu_s", "cost/memory_peak_bytes", "time/sps")}
    assert ProcessCost().with_columns(logs) == logs


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)


@pytest.mark.usefixtures("no_network")
def test_energy_grows_adds_up_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # where codecarbon would write
    threads = threading.active_count()
    cost = ProcessCost(energy=True)
    first = cost.summary()["energy_kwh"]
    until = time.perf_counter() + 0.3
    while time.perf_counter() < until:
        pass
    used = cost.summary()["energy_kwh"] - first
    assert 0.3 * 0.1 < used * 3.6e6 < 0.3 * 2000  # joules: between 0.1 and 2000 W
    cost.load({"cpu_s": 1.0, "memory_peak_bytes": 1, "energy_kwh": 5.0})
    assert 5.0 < cost.metrics()["cost/energy_kwh"] < 5.0 + 1e-3
    assert cost.with_columns({"progress": ("cost/cpu_s",)})["progress"][-1] == "cost/energy_kwh"
    del cost
    gc.collect()
    until = time.perf_counter() + 10.0  # codecarbon's thread ends when it next wakes
    while threading.active_count() > threads and time.perf_counter() < until:
        time.sleep(0.01)
    assert threading.active_count() <= threads  # nothing goes on measuring
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_without_codecarbon_the_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    with pytest.raises(ConfigError, match=r"^--energy needs codecarbon; .*pip install .*codecarbon>=3'$"):
        ProcessCost(energy=True)


def test_memory_is_not_that_of_the_process_that_started_it() -> None:
    """Linux lets `getrusage` of a new process begin with the peak of the one that started it."""
    block = np.ones(400_000_000, np.uint8)
    say = "from sparserl.recording.resources import ProcessCost; print(ProcessCost().memory_peak_bytes)"
    done = subprocess.run([sys.executable, "-c", say], capture_output=True, text=True, check=True)
    assert int(done.stdout) < block.nbytes
