"""`sparserl train`: trains an agent in an environment, or goes on with a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from sparserl.cli.running import Help, carry_out_command, parameters_of, result_table
from sparserl.recording.run_folder import RunFolder

HELP = Help(
    "Train an agent in an environment, or go on with a run. Values come from the schema's defaults, then the preset of "
    "the algorithm and environment, then --config, then flags.",
    (
        *("algo", "env", "total_steps", "seed", "threads", "n_envs", "preset", "config", "run_dir", "resume"),
        *("progress", "dry_run", "track", "eval.every_steps", "eval.episodes", "checkpoint_every_steps"),
        *("agent.net_arch", "agent.learning_rate", "agent.batch_size", "agent.buffer_size", "agent.learning_starts"),
        *("agent.gamma", "agent.policy_delay", "agent.ent_coef", "topology.method", "topology.density"),
        *("topology.drop_fraction", "topology.update_interval", "topology.begin_fraction", "topology.end_fraction"),
        *("wrappers.noise_fraction", "wrappers.normalize_observations"),
    ),
    "Options are those of the algorithm: sparserl train --algo ds_sac --help.",
)


def run(arguments: Sequence[str]) -> int:
    """Runs `sparserl train`; returns the exit status."""
    return carry_out_command("train", arguments, HELP, _print_result)


def _print_result(result: dict[str, Any], folder: RunFolder) -> None:
    rows = {
        "steps": f"{result['steps']:,}",
        "return, last evaluation": f"{result['return_last']:.1f}",
        f"return, mean of last {result['return_last10_n']}": f"{result['return_last10']:.1f}",
        "parameters": parameters_of(result),
        "training FLOPs": f"{result['flops_train']:.3g}",
        "topology events": str(result["topology_events"]),
        "explored connections": "" if result["explored_fraction"] is None else f"{result['explored_fraction']:.1%}",
        "wall time": f"{result['wall_s']:.0f} s ({result['steps_per_second']:.0f} steps/s)",
        "plot": str(folder.path / "plot.png"),
    }
    Console().print(result_table(folder, rows))
