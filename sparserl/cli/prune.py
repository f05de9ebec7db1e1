"""`sparserl prune`: a smaller policy from a trained agent, as a run that every other command opens."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from sparserl.agents.export_policy import acting_layers
from sparserl.agents.networks.chains import check_reads_vectors_or_images
from sparserl.cli.arguments import parse
from sparserl.cli.tables import titled_table
from sparserl.errors import ConfigError, unknown_name
from sparserl.experiment.agent_training import EVAL_SEED_OFFSET
from sparserl.experiment.opened_agent_run import TrainedAgent
from sparserl.experiment.pruning import PruneTraining, pruned_config
from sparserl.experiment.runs import train
from sparserl.experiment.training import Source
from sparserl.json_text import json_text
from sparserl.metrics.cost import params_nonzero
from sparserl.ranges import PositiveShare, Repeats, check_ranges
from sparserl.recording.run_folder import USUAL_CHECKPOINT, RunFolder, WhichCheckpoint
from sparserl.recording.run_logs import read_columns
from sparserl.topology.pruning import PRUNE

HEADS = {
    "return_mean": "return",
    "policy_parameters": "parameters of the policy",
    "policy_bytes": "bytes of the policy, indices included",
    "parameters": "parameters of all networks",
}
"""What is said before and after -> its row."""


@dataclass(frozen=True)
class PruneCommand:
    """Prune a trained agent, dense or sparse, to a density: actor and critics each, every layer of them. What is left
    is truly sparse, is evaluated beside what was there, and is a run folder of its own, for eval, enjoy, export, and
    `sparserl train --from`, which trains it on."""

    run: Path
    """Run folder of `sparserl train`."""
    density: PositiveShare
    """Share of connections that stay, of those of the dense networks; below the present one."""
    by: str = "lamp"
    """Which stay: uniform (the largest |weights| of each layer, as large a share of each), global (of all layers of a
    network), lamp (by squares of weights over those of the layer that are larger) or fisher (F w^2 / 2, F being the
    mean squared gradient of the policy or value in states of two episodes)."""
    out: Path | None = None
    """Folder of the pruned run, which must not exist; runs/<name>__s<seed> (or the next free number) if None."""
    episodes: Repeats = 10
    """Episodes in which both policies are evaluated, from the same resets."""
    checkpoint: WhichCheckpoint = USUAL_CHECKPOINT
    """Which policy: the last, or the best by evaluation."""
    json: bool = False
    """Print one line of JSON instead of a table."""

    def __post_init__(self) -> None:
        check_ranges(self, "--")
        if self.by not in PRUNE:
            raise ConfigError(unknown_name("pruning rule", self.by, PRUNE))


def run(arguments: Sequence[str]) -> int:
    """Runs `sparserl prune`; returns the exit status."""
    command = parse(PruneCommand, arguments, command="prune")
    if command.out is not None and command.out.exists():
        raise ConfigError(f"{command.out} exists; choose another --out")
    which = command.checkpoint
    config = pruned_config(command.run, command.density, command.by, checkpoint=which, episodes=command.episodes)
    source = TrainedAgent(RunFolder.open(command.run), which)
    check_reads_vectors_or_images(source.agent, "pruned")
    before = _said(source, source.evaluate(command.episodes, seed=config.seed + EVAL_SEED_OFFSET).returns)
    training = PruneTraining.begin(config, Source())
    with contextlib.redirect_stdout(sys.stderr):  # what is said meanwhile is not the answer
        folder = train(training, command.out, shlex.join(["sparserl", "prune", *arguments]))
    pruned = TrainedAgent(folder)
    after = _said(pruned, _evaluated(folder))
    if command.json:
        about = {"run": str(command.run), "out": str(folder.path), "density": command.density, "by": command.by}
        print(json_text({**about, "episodes": command.episodes, "before": before, "after": after}))
        return 0
    table = titled_table(f"{source.title}, pruned to {command.density:g} by {command.by}")
    for column in ("", "before", "after"):
        table.add_column(column, justify="right" if column else "left")
    for key, head in HEADS.items():
        table.add_row(head, *(_cell(said, key) for said in (before, after)))
    Console().print(table)
    print(f"run folder {folder.path}")
    return 0


def _said(trained: TrainedAgent, returns: Sequence[float]) -> dict[str, Any]:
    layers = acting_layers(trained.agent)
    arrays = [
        array for layer in layers for array in (layer.values, layer.bias, layer.row_ptr, layer.col) if array is not None
    ]
    return {
        "return_mean": float(np.mean(returns)),
        "return_std": float(np.std(returns)),
        "policy_parameters": sum(layer.values.size + layer.n_out for layer in layers),
        "policy_bytes": sum(array.nbytes for array in arrays),
        "parameters": params_nonzero(trained.agent.networks.values()),
    }


def _evaluated(folder: RunFolder) -> Sequence[float]:
    """Returns of the one evaluation of a pruned run."""
    returns: Sequence[float] = read_columns(folder.path / "eval.csv")["return"].tolist()
    return returns


def _cell(said: Mapping[str, Any], key: str) -> str:
    if key == "return_mean":
        return f"{said[key]:.1f} +- {said['return_std']:.1f}"
    return f"{said[key]:,}"
