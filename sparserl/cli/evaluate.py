"""`sparserl eval`: returns of a run's policy without exploration noise."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from sparserl.agents.evaluation import Evaluator
from sparserl.cli.arguments import WhichCheckpoint, parse
from sparserl.cli.run_config import load_policy, run_config
from sparserl.errors import ConfigError
from sparserl.records import RunFolder


@dataclass(frozen=True)
class EvalCommand:
    """Evaluate the policy of a run."""

    run: Path
    """Run folder."""
    episodes: int = 10
    """Number of episodes."""
    checkpoint: WhichCheckpoint = "best"
    """Which policy: the best by evaluation, or the last."""
    seed: int = 10_000
    """Episode i starts from a reset with seed + i; the default is away from the seeds of training."""
    json: bool = False
    """Print one line of JSON instead of a table."""


def run(arguments: Sequence[str]) -> int:
    """Runs `sparserl eval`; returns the exit status."""
    command = parse(EvalCommand, arguments, command="eval")
    if command.episodes < 1:
        raise ConfigError(f"--episodes must be at least 1, got {command.episodes}")
    folder = RunFolder.open(command.run)
    config = run_config(folder)
    env = config.make_env()
    agent, step = load_policy(folder, command.checkpoint, env)
    evaluator = Evaluator(lambda: config.make_env(follow=env), command.episodes, seed=command.seed)
    returns, lengths = evaluator(agent)
    evaluator.close()
    result = {
        "run": str(command.run),
        "checkpoint": command.checkpoint,
        "global_step": step,
        "episodes": command.episodes,
        "return_mean": float(np.mean(returns)),
        "return_std": float(np.std(returns)),
        "ep_len_mean": float(np.mean(lengths)),
    }
    if command.json:
        print(json.dumps(result))
        return 0
    table = Table(title=f"{config.name} seed {config.seed}, {command.checkpoint} checkpoint (step {step:,})")
    for column in ("episode", "return", "length"):
        table.add_column(column, justify="right")
    for episode, (value, length) in enumerate(zip(returns, lengths, strict=True)):
        table.add_row(str(episode), f"{value:.1f}", str(length))
    table.add_section()
    table.add_row("mean", f"{result['return_mean']:.1f} +- {result['return_std']:.1f}", f"{result['ep_len_mean']:.0f}")
    Console().print(table)
    return 0
