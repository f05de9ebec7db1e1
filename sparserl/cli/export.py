"""`sparserl export`: the policy of a run as a file for use elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console
from rich.table import Table

from sparserl.cli.arguments import parse
from sparserl.experiment.opened_agent_run import TrainedAgent, TrainedSequence, open_trained
from sparserl.export import ExportedPolicy, c_header, onnx_graph, save_tensors
from sparserl.ranges import CountOrZero, check_ranges
from sparserl.recording.run_folder import USUAL_CHECKPOINT, WhichCheckpoint
from sparserl.written_files import check_writable, replacing

COMPARED_STEPS = 200
"""Env steps on which the exported policy is compared with the agent."""


@dataclass(frozen=True)
class ExportCommand:
    """Export the deterministic policy of a run: its connections alone."""

    run: Path
    """Run folder."""
    format: Literal["safetensors", "onnx", "c"] = "safetensors"
    """Arrays; an ONNX model (extra `export`); or a C header with the policy as static arrays and a function."""
    out: Path | None = None
    """File to write; policy.safetensors, policy.onnx or policy.h in the present folder if None."""
    checkpoint: WhichCheckpoint = USUAL_CHECKPOINT
    """Which policy: the last, or the best by evaluation, which continual runs have not."""
    task: CountOrZero | None = None
    """Task of a continual run that the policy is for, from 0."""
    name: str = "policy"
    """Of the C function, and prefix of all that belongs to it."""

    def __post_init__(self) -> None:
        check_ranges(self, "--")


def _tensors(policy: ExportedPolicy, path: Path, name: str) -> dict[str, str]:
    del name
    save_tensors(policy, path)
    return {}


def _onnx(policy: ExportedPolicy, path: Path, name: str) -> dict[str, str]:
    del name
    path.write_bytes(onnx_graph(policy).SerializeToString())
    return {}


def _c(policy: ExportedPolicy, path: Path, name: str) -> dict[str, str]:
    header = c_header(policy, name)
    path.write_text(header.text)
    return {
        "function": header.function,
        "static data": f"{header.bytes_data:,} bytes",
    }


FORMATS: dict[str, tuple[str, Callable[[ExportedPolicy, Path, str], dict[str, str]]]] = {
    "safetensors": ("policy.safetensors", _tensors),
    "onnx": ("policy.onnx", _onnx),
    "c": ("policy.h", _c),
}
"""Format -> usual file name, and what writes it and says more of it."""


def run(arguments: Sequence[str]) -> int:
    """Runs `sparserl export`; returns the exit status."""
    command = parse(ExportCommand, arguments, command="export")
    usual, write = FORMATS[command.format]
    out = command.out or Path(usual)
    check_writable(out)
    trained = open_trained(command.run, command.checkpoint)
    task = trained.only(command.task)
    policy = trained.exported(task)
    with replacing(out) as path:
        more = write(policy, path, command.name)
    difference = _largest_difference(policy, trained, task)
    dense = sum(layer.n_in * layer.n_out for layer in policy.all_layers)
    table = Table(title=trained.title, show_header=False)
    rows = {
        **({"task": f"{task} ({trained.tasks[task]})"} if command.task is not None else {}),
        "file": f"{out}, {out.stat().st_size:,} bytes",
        **more,
        "layers": " - ".join([" x ".join(map(str, policy.shape)), *(str(layer.n_out) for layer in policy.all_layers)]),
        "connections": f"{policy.connections:,} of {dense:,} ({policy.connections / dense:.1%})",
        "observations": policy.about["observations"],
        "differs from the agent by": f"{difference:.1e} at most, {COMPARED_STEPS} steps",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    Console().print(table)
    return 0


def _largest_difference(policy: ExportedPolicy, trained: TrainedAgent | TrainedSequence, task: int) -> float:
    """Between what the exported arrays and the agent do on the way of the agent."""
    env, act = trained.make_env(task), trained.policy(task)
    observation, _ = env.reset(seed=trained.config.seed)
    largest = 0.0
    for _ in range(COMPARED_STEPS):
        action = act(observation[None], True)[0]
        exported = policy(observation[: policy.shape[0]])
        largest = max(largest, float(np.abs(exported - action).max()))
        observation, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            observation, _ = env.reset()
    env.close()
    return largest
