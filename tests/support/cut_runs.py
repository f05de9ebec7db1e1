"""Tiny runs of every kind that died when all was learned: with two full checkpoints, the replay, and no result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

import yaml
from support.killed import Killed
from support.runs import FAST, REWIRE, TINY

from sparserl.cli import main
from sparserl.recording.run_folder import RunFolder

CLASSIFIER = (
    *("continual", "--tasks", "2", "--learner.epochs", "1", "--learner.batch-size", "64", "--no-progress"),
    *("--checkpoint-every-steps", "3"),
)
AGENT_ON_TASKS = (
    *("continual", "--method", "spacenet", "--agent.learning-starts", "15", "--agent.batch-size", "8", "--no-progress"),
    *("--agent.buffer-size", "200", "--agent.net-arch", "12", "12", "--eval.every-steps", "20", "--eval.episodes", "1"),
    *("--log-every-steps", "10", "--checkpoint-every-steps", "20", "--topology.density", "0.5"),
)
FIT = (
    *("fit", "iris", "--learner.epochs", "2", "--learner.hidden", "8", "--learner.batch-size", "32", "--no-progress"),
    *("--checkpoint-every-steps", "3", "--density", "0.5"),
)
KINDS = {
    "agent": ("train", *TINY, *FAST, *REWIRE, "--eval.episodes", "1"),
    "classifier": CLASSIFIER,
    "agent on tasks": AGENT_ON_TASKS,
    "fit": FIT,
}
"""Kind of run -> its command line without `--run-dir`; `write_sequence` goes beside the folder of the last one."""


def write_sequence(path: Path) -> Path:
    """A file of two tasks in `Tiny-v0`."""
    mirrored = {"env": "Tiny-v0", "steps": 30, "name": "mirrored", "modification": {"invert_actions": True}}
    path.write_text(yaml.safe_dump({"name": "tiny", "tasks": [{"env": "Tiny-v0", "steps": 30}, mirrored]}))
    return path


def command(kind: str, path: Path) -> list[str]:
    """The command line that makes a run."""
    words = [*KINDS[kind], "--run-dir", str(path)]
    if kind == "agent on tasks":
        path.parent.mkdir(parents=True, exist_ok=True)
        words += ["--sequence", str(write_sequence(path.with_name("tiny.yaml")))]
    return words


def cut_off(kind: str, path: Path, words: Sequence[str] | None = None) -> Path:
    """Makes such a run, by its own command line or another one; `Tiny-v0` must be registered."""
    with patch.object(RunFolder, "finish", side_effect=Killed):
        try:
            main(words or command(kind, path))
        except Killed:
            return path
    raise AssertionError("the run was not cut off")


def resume(kind: str, path: Path, *flags: str) -> int:
    """`sparserl ... --resume`; returns the exit status."""
    return main([KINDS[kind][0], "--resume", str(path), "--no-progress", *flags])
