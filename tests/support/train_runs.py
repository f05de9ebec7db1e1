"""Made-up folders of runs of `sparserl train`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml


def write_train_run(
    path: Path,
    returns: Sequence[float],
    *,
    env: str = "Hopper-v5",
    algo: str = "ds_td3",
    seed: int = 0,
    done: bool = True,
    every: int = 10,
    result: Mapping[str, Any] | None = None,
    versions: Mapping[str, Any] | None = None,
    **config: Any,
) -> Path:
    """Writes a run.

    Args:
        path: The folder.
        returns: Mean return of each evaluation; its two episodes lie 1 beside it.
        env: Its id.
        algo: Algorithm.
        seed: Of the run.
        done: Whether it is finished.
        every: Env steps between evaluations; the first is before any.
        result: More of `result.json`.
        versions: Of `versions.json`; no such file if None.
        config: Further keys of `config.yaml`.
    """
    path.mkdir(parents=True)
    steps = [every * place for place in range(len(returns))]
    settings = {"algo": algo, "env": env, "seed": seed, "total_steps": 1000}
    (path / "config.yaml").write_text(yaml.safe_dump(settings | config))
    (path / "command.txt").write_text(f"sparserl train --seed {seed}\n")
    if versions is not None:
        (path / "versions.json").write_text(json.dumps(versions))
    episodes = [
        f"{step},{episode},{value + spread},1"
        for step, value in zip(steps, returns, strict=True)
        for episode, spread in enumerate((-1.0, 1.0))
    ]
    (path / "eval.csv").write_text("\n".join(["global_step,episode,return,length", *episodes]) + "\n")
    if done:
        found = {"density": 0.5, "params_nonzero": 100 + seed, "flops_train": 1e6, "wall_s": 10.0, **(result or {})}
        (path / "result.json").write_text(json.dumps(found))
        (path / "DONE").touch()
    return path
