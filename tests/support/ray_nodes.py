"""Nodes of a Ray cluster on this machine, for a sweep whose runs stand before a gate."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from support.runs import ROOT

PATIENCE_S = 120
SWEEP: dict[str, Any] = {
    "base": {
        "env": "support.gated_env:Gated-v0",
        "total_steps": 200,
        "agent": {"net_arch": [12, 12], "batch_size": 16, "buffer_size": 5000, "learning_starts": 40},
        "eval": {"every_steps": 50, "episodes": 2},
        "checkpoint_every_steps": 30,
        "log_every_steps": 25,
        "topology": {"update_interval": 20},
    },
    "seeds": [3, 5],
}
SMALL = ("--node-ip-address=127.0.0.1", "--object-store-memory=80000000", "--include-log-monitor=false")
"""For a node that begins soon: the driver prints no logs of its tasks, so nobody has to collect them."""


def until(condition: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < end, f"waited too long until {what}"
        time.sleep(0.05)
    return found


class Node:
    """A node of a Ray cluster, as `ray start` makes it; its runs stand still before its gate."""

    def __init__(self, folder: Path, name: str, *words: str, is_open: bool = False):
        self.gate = folder / name
        self.gate.mkdir()
        if is_open:
            self.open()
        environment = {
            **os.environ,
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
            "GATE": str(self.gate),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",  # with Ray's 15, runs hardly move while other tests use the CPUs
            "RAY_health_check_initial_delay_ms": "500",
            "RAY_health_check_period_ms": "500",  # five of them and a node that does not answer is lost
        }
        command = (sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1")
        with (folder / f"{name}.log").open("w") as log:
            self.process = subprocess.Popen(
                [*command, *SMALL, *words], env=environment, stdout=log, stderr=subprocess.STDOUT
            )

    def open(self) -> None:
        (self.gate / "open").touch()

    def close(self) -> None:
        (self.gate / "open").unlink()

    def waiting(self) -> list[int]:
        """Processes that stand before the gate."""
        return [
            int(path.name) for path in self.gate.iterdir() if path.name.isdigit() and psutil.pid_exists(int(path.name))
        ]

    def lose(self) -> None:
        """As if its machine were switched off, as far as Ray can see."""
        for child in psutil.Process(self.process.pid).children(recursive=True):
            if child.name() == "raylet":
                child.kill()
        self.process.wait(PATIENCE_S)

    def stop(self) -> None:
        self.process.terminate()  # nothing, if it is over
        self.process.wait(PATIENCE_S)


class Cluster:
    """A head whose gate is open, and nodes that join it."""

    def __init__(self, folder: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.folder = folder
        port = self.address.rpartition(":")[2]
        words = ("--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder / 'ray'}")
        self.head = Node(folder, "head", *words, is_open=True)
        self.nodes = [self.head]
        until(self._answers, "the head of the cluster answers")

    def _answers(self) -> bool:
        assert self.head.process.poll() is None, (self.folder / "head.log").read_text()
        host, _, port = self.address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), 1.0).close()
        except OSError:
            return False
        return True

    def joined(self, name: str) -> Node:
        self.nodes.append(Node(self.folder, name, f"--address={self.address}"))
        return self.nodes[-1]


def runs(out: Path) -> list[str]:
    """Names of the run folders of a sweep."""
    return sorted(path.name for path in out.iterdir() if path.is_dir())
