"""`sparserl export`: the policy of a run as a file for use elsewhere, or its agent as Stable-Baselines3 saves one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console

from sparserl.agents.table import AGENTS
from sparserl.cli.arguments import parse
from sparserl.cli.tables import titled_table
from sparserl.errors import ConfigError
from sparserl.experiment.opened_agent_run import TrainedAgent, TrainedSequence, open_trained
from sparserl.export import ExportedPolicy, c_header, onnx_graph, save_tensors
from sparserl.ranges import CountOrZero, check_ranges
from sparserl.recording.run_folder import USUAL_CHECKPOINT, WhichCheckpoint
from sparserl.written_files import check_writable, replacing

COMPARED_STEPS = 200
"""Env steps on which the exported policy is compared with the agent."""


@dataclass(frozen=True)
class ExportCommand:
    """Export the deterministic policy of a run: its connections alone; or all of its agent."""

    run: Path
    """Run folder."""
    format: Literal["safetensors", "onnx", "c", "sb3"] = "safetensors"
    """Arrays; an ONNX model (extra `export`); a C header with the policy as static arrays and a function; or the agent,
    its networks and settings, as the zip of Stable-Baselines3, that `load` of its class reads and trains on."""
    out: Path | None = None
    """File to write; policy.safetensors, policy.onnx, policy.h or agent.zip in the present folder if None."""
    checkpoint: WhichCheckpoint = USUAL_CHECKPOINT
    """Which policy: the last, or the best by evaluation, which continual runs have not."""
    task: CountOrZero | None = None
    """Task of a continual run that the policy is for, from 0."""
    name: str = "policy"
    """Of the C function, and prefix of all that belongs to it."""

    def __post_init__(self) -> None:
        check_ranges(self, "--")


Trained = TrainedAgent | TrainedSequence
Act = Callable[[np.ndarray], np.ndarray]
"""Observation -> action."""


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
"""Format of a policy -> usual file name, and what writes it and says more of it."""
SB3, SB3_FILE = "sb3", "agent.zip"
"""Format of a whole agent, and its usual file name."""


def run(arguments: Sequence[str]) -> int:
    """Runs `sparserl export`; returns the exit status."""
    command = parse(ExportCommand, arguments, command="export")
    is_agent = command.format == SB3
    out = command.out or Path(SB3_FILE if is_agent else FORMATS[command.format][0])
    check_writable(out)
    trained = open_trained(command.run, command.checkpoint)
    task = trained.only(command.task)
    with replacing(out) as path:
        rows, act = _agent(trained, path) if is_agent else _policy(trained, task, command, path)
    difference = _largest_difference(act, trained, task)
    table = titled_table(trained.title, show_header=False)
    rows = {
        **({"task": f"{task} ({trained.tasks[task]})"} if command.task is not None else {}),
        "file": f"{out}, {out.stat().st_size:,} bytes",
        **rows,
        "differs from the agent by": f"{difference:.1e} at most, {COMPARED_STEPS} steps",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    Console().print(table)
    return 0


def _policy(trained: Trained, task: int, command: ExportCommand, path: Path) -> tuple[dict[str, str], Act]:
    """Writes the policy of a task; gives what is said of it, and what it does."""
    policy = trained.exported(task)
    more = FORMATS[command.format][1](policy, path, command.name)
    dense = sum(layer.n_in * layer.n_out for layer in policy.all_layers)
    rows = {
        **more,
        "layers": " - ".join([" x ".join(map(str, policy.shape)), *(str(layer.n_out) for layer in policy.all_layers)]),
        "connections": f"{policy.connections:,} of {dense:,} ({policy.connections / dense:.1%})",
        "observations": policy.about["observations"],
    }
    return rows, lambda observation: policy(observation[: policy.shape[0]])


def _agent(trained: Trained, path: Path) -> tuple[dict[str, str], Act]:
    """Writes an agent with the networks and settings of a run; gives what is said of it, and what it does.

    Raises:
        ConfigError: If it learned a sequence of tasks: its method is not part of such a file.
    """
    if not isinstance(trained, TrainedAgent):
        raise ConfigError(f"--format {SB3} is for runs of `sparserl train`: no such file holds a continual method")
    agent, kind = trained.to_train_on(), type(trained.agent)
    with closing(agent.env):  # type: ignore[type-var]  # it has one
        agent.save(path)
    loaded = kind.load(path, device="cpu")
    dense = AGENTS[trained.config.algo].sparse_twin is not None
    labels = trained.config.wrappers.labels
    rows = {
        "load": f"{'stable_baselines3' if dense else kind.__module__}.{kind.__name__}.load(file, env)",
        "without": "replay buffer, moments of optimizers, temperature, clock of the topology",
        "observations": f"behind the wrappers {', '.join(labels)}" if labels else "as they are",
    }
    policy = loaded.for_an_episode()
    return rows, lambda observation: policy(observation[None], True)[0]


def _largest_difference(act: Act, trained: Trained, task: int) -> float:
    """Between what the agent does on its way and what is written: the policy that the file is made of, or that file."""
    env, of_agent = trained.make_env(task), trained.policy(task)
    observation, _ = env.reset(seed=trained.config.seed)
    largest = 0.0
    for _ in range(COMPARED_STEPS):
        action = of_agent(observation[None], True)[0]
        largest = max(largest, float(np.abs(np.ravel(act(observation)) - np.ravel(action)).max()))
        observation, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            observation, _ = env.reset()
    env.close()
    return largest
