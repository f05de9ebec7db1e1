"""`sparserl train`: trains an agent in an environment, or goes on with a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from sparserl.cli.running import carry_out_command
from sparserl.experiment.train_config import parse_train
from sparserl.recording.run_folder import RunFolder


def run(arguments: Sequence[str]) -> int:
    """Runs `sparserl train`; returns the exit status."""
    return carry_out_command("train", parse_train(arguments), arguments, _print_result)


def _print_result(result: dict[str, Any], folder: RunFolder) -> None:
    table = Table(title=f"{result['algo']} on {result['env']}, seed {result['seed']}", show_header=False)
    rows = {
        "steps": f"{result['steps']:,}",
        "return, last evaluation": f"{result['return_last']:.1f}",
        f"return, mean of last {result['return_last10_n']}": f"{result['return_last10']:.1f}",
        "parameters": f"{result['params_nonzero']:,} of {result['params_dense']:,} ({result['density']:.1%})",
        "training FLOPs": f"{result['flops_train']:.3g}",
        "topology events": str(result["topology_events"]),
        "explored connections": "" if result["explored_fraction"] is None else f"{result['explored_fraction']:.1%}",
        "wall time": f"{result['wall_s']:.0f} s ({result['steps_per_second']:.0f} steps/s)",
        "plot": str(folder.path / "plot.png"),
    }
    for name, value in rows.items():
        if value:
            table.add_row(name, value)
    Console().print(table)
