"""Made-up folders of finished continual RL runs: two tasks of 10 env steps, evaluated every 5."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

EVAL_COLUMNS = (
    *("global_step", "training_task", "task", "stochastic", "episode"),
    *("return", "length", "success", "success_last"),
)
STEPS = (0, 5, 10, 15, 20)
TRAINED = (-1, 0, 0, 1, 1)
LOW, HIGH = {"gravity": 0.5}, {"gravity": 1.5}


def write_rl_run(
    path: Path,
    curves: Sequence[Sequence[float]],
    *,
    method: str = "finetune",
    seed: int = 0,
    success: bool = False,
    deterministic: float = 0.0,
    random: Sequence[float] = (0.0, 0.0),
    modifications: Sequence[Mapping[str, Any]] = (LOW, HIGH),
    steps: Sequence[int] = (10, 10),
    topology: Mapping[str, Any] | None = None,
    **config: Any,
) -> Path:
    """Writes a finished run.

    Args:
        path: The folder.
        curves: (5, 2) performance on both tasks at each evaluation; two stochastic episodes have it as their mean.
        method: Continual method.
        seed: Of the run.
        success: Whether `curves` are success rates (0, 0.5 or 1) and returns are 7; else returns, and no success.
        deterministic: What the one deterministic episode has more; with success it has success if positive.
        random: Mean return of random actions on each task.
        modifications: Of the tasks.
        steps: Of the tasks.
        topology: Dense if None.
        config: Further keys of `config.yaml`.
    """
    path.mkdir()
    tasks = [
        {"index": index, "name": f"task {modification}", "env": "Hopper-v5", "modification": dict(modification)}
        | {"steps": steps[index]}
        for index, modification in enumerate(modifications)
    ]
    (path / "sequence.yaml").write_text(yaml.safe_dump({"name": "made_up", "tasks": tasks}))
    settings = {"sequence": "made_up", "method": method, "algo": "ds_sac", "seed": seed, "steps_per_task": 10}
    settings |= {"agent": {"net_arch": [8, 8]}, "topology": topology or {"method": "dense", "density": None}}
    (path / "config.yaml").write_text(yaml.safe_dump(settings | config))

    def episodes(value: float) -> list[dict[str, Any]]:
        """Two stochastic ones and a deterministic one."""
        if success:
            solved = [int(value > 0), int(value > 0.5), int(deterministic > 0)]
            return [{"return": 7.0, "success": one, "success_last": 0} for one in solved]
        values = [value - 3.0, value + 3.0, value + deterministic]
        return [{"return": one, "success": "", "success_last": ""} for one in values]

    def log(name: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
        with (path / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)

    rows = [
        {"global_step": step, "training_task": trained, "task": task, "length": 1}
        | {"stochastic": int(episode < 2), "episode": episode % 2, **outcome}
        for step, trained, values in zip(STEPS, TRAINED, curves, strict=True)
        for task, value in enumerate(values)
        for episode, outcome in enumerate(episodes(value))
    ]
    log("eval", EVAL_COLUMNS, rows)
    start = {"global_step": 0, "training_task": -1, "stochastic": 1, "length": 1, "success": "", "success_last": ""}
    rows = [
        {**start, "task": task, "episode": episode, "return": value + spread}
        for task, value in enumerate(random)
        for episode, spread in enumerate((-1.0, 1.0))
    ]
    log("random", EVAL_COLUMNS, rows)
    uses = [
        {"layer": "actor.pi.trunk.0", "frozen": 3, "free": 5, "size": 46, "neurons": 4, "reserved": 0},
        {"layer": "critic.qf0.trunk.1", "frozen": 1, "free": 2, "size": 32, "neurons": 4, "reserved": 0},
    ]
    rows = [
        {"after_task": after, "owner": owner, "connections": 10 * after + owner + 1, **use}
        for after in range(2)
        for use in uses
        for owner in range(after + 1)
    ]
    columns = ("after_task", "layer", "owner", "connections", "frozen", "free", "size", "neurons", "reserved")
    log("connections", columns, rows)
    (path / "result.json").write_text(json.dumps({"params_nonzero_per_task": [30, 60 + seed], "wall_s": 100.0 + seed}))
    (path / "DONE").touch()
    return path
