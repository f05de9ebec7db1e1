"""Running `sparserl train`, in this process or in one of its own, and looking at what it leaves."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.trees import assert_equal_trees

from sparserl.cli import main
from sparserl.experiment.runs import TRAININGS
from sparserl.recording import checkpoint

ROOT = Path(__file__).resolve().parents[2]
TINY = ("--agent.net-arch", "12", "12", "--agent.batch-size", "16", "--agent.buffer-size", "5000", "--no-progress")
FAST = (
    *("--env", "Tiny-v0", "--agent.learning-starts", "40", "--total-steps", "130", "--eval.every-steps", "50"),
    *("--eval.episodes", "2", "--checkpoint-every-steps", "30", "--log-every-steps", "25", "--topology-snapshots", "3"),
)
REWIRE = ("--topology.update-interval", "20")
CHEETAH = (
    *("--env", "HalfCheetah-v5", "--agent.learning-starts", "60", "--total-steps", "240", "--eval.every-steps", "120"),
    *("--eval.episodes", "1", "--checkpoint-every-steps", "40", "--log-every-steps", "40", "--seed", "3"),
)
OF_THE_MACHINE = ("time/sps", "time/elapsed_s", "cost/cpu_s", "cost/memory_peak_bytes")
"""Columns of progress.csv that differ from run to run."""
WRAPPED = (
    *("--wrappers.noise-fraction", "0.5", "--wrappers.permute", "--wrappers.permute-every-steps", "25"),
    *("--wrappers.normalize-observations", "running", "--wrappers.sensor-dropout", "0.1"),
)
ALGOS = {
    "ds_td3": ("--algo", "ds_td3", *REWIRE),
    "td3": ("--algo", "td3"),
    "ds_sac": (
        *("--algo", "ds_sac", "--agent.ent-coef", "auto", *REWIRE, *WRAPPED),
        *("--topology.method", "rigl", "--topology.density", "0.4", "--topology.gradient-batches", "3"),
        *("--topology.recycle-interval", "15", "--agent.replay", "redraw_noise", "--agent.n-critics", "3"),
        *("--agent.critic-subset", "2", "--agent.actor-q", "mean", "--agent.policy-delay", "3"),
    ),
    "sac": (
        *("--algo", "sac", "--agent.target-update-interval", "7", "--agent.n-steps", "3"),
        *("--agent.n-steps-delay", "40", "--agent.dynamic-capacity", "--agent.forget-interval-steps", "20"),
        *("--agent.forget-threshold", "0.0", "--agent.forget-minimum", "30"),
    ),
}


def leave_undrawn(patch: pytest.MonkeyPatch) -> None:
    """Runs leave an empty file as their picture: a figure takes longer than a tiny run."""
    for training in TRAININGS.values():
        patch.setattr(training, "draw", lambda self, folder, out: out.touch())


def train(folder: Path, *flags: str) -> int:
    """Trains in this process; small networks unless the flags say otherwise."""
    return main(["train", *TINY, "--run-dir", str(folder), *flags])


def start(words: Sequence[str]) -> subprocess.Popen[str]:
    """`sparserl` in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "sparserl", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=ROOT,
    )


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def fingerprint(folder: Path) -> dict[str, str]:
    """Every file below a folder and its SHA-256."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def last_state(folder: Path) -> dict[str, Any]:
    """The newest full checkpoint, as `state_of` gives it."""
    return state_of(sorted(path for path in (folder / "checkpoints").glob("step-*") if path.suffix == "")[-1])


def state_of(path: Path) -> dict[str, Any]:
    """A checkpoint without wall-clock values and the names of replay files."""
    state = checkpoint.load(path)
    state.get("replay", {}).pop("parts", None)
    # Monitor's episode records hold the wall-clock time beside return and length.
    if "episodes" in state:
        state["episodes"] = [{"r": episode["r"], "l": episode["l"]} for episode in state["episodes"]]
    without_clock: dict[str, Any] = _without_clock(state)
    return without_clock


def _without_clock(node: Any) -> Any:
    if isinstance(node, dict):
        return {
            key: _without_clock(value)
            for key, value in node.items()
            if not key.endswith(("elapsed_s", "episode_times")) and key not in ("csv_bytes", "process")
        }
    if isinstance(node, list):
        return [_without_clock(value) for value in node]
    return node


def logs(folder: Path) -> dict[str, list[dict[str, str]]]:
    """The CSV logs, without wall-clock columns."""
    found = {path.stem: rows(path) for path in sorted(folder.glob("*.csv"))}
    for row in found["progress"]:
        for name in OF_THE_MACHINE:
            row.pop(name, None)
    return found


def same_run(left: Path, right: Path) -> None:
    """The two ended alike: networks, moments, topology, generators, env, and every row of the logs."""
    assert_equal_trees(last_state(left), last_state(right))
    assert_equal_trees(logs(left), logs(right))
    results = [json.loads((path / "result.json").read_text()) for path in (left, right)]
    for result in results:
        # The transposed order is derived when a backward pass needs it, which a run resumed at its end never does.
        for name in ("wall_s", "steps_per_second", "cpu_s", "memory_peak_bytes", "bytes_indices"):
            result.pop(name)
    assert results[0] == results[1]
    best = [
        checkpoint.load(path / "checkpoints" / "best")
        for path in (left, right)
        if (path / "checkpoints" / "best").exists()
    ]
    assert len(best) != 1
    assert_equal_trees(best[:1], best[1:])
