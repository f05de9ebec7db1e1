"""Prints the tables of README.md: `python results/continual/make_table.py halfcheetah_forgetting`, in this folder.

Reads what `sparserl report halfcheetah_forgetting --json .../report.json` writes, and returns as
they are from the `result.json` of runs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

ORDER = ("scratch", "finetune", "finetune_static", "ewc_rewired", "ewc", "packnet", "spacenet", "replay")
"""Folders of runs, without the seed, as rows."""


def main(folder: Path) -> None:
    """Prints tables of metrics with intervals, of returns of each task once learned and at the end, and of sizes."""
    (section,) = json.loads((folder / "report.json").read_text())["sections"]
    found = {Path(group["runs"][0]).name.rpartition("-s")[0]: group for group in section["groups"]}
    groups = {name: found[name] for name in ORDER if name in found}
    for measure, digits in {"normalised_return": 2, "return": 0}.items():
        for policy in ("stochastic", "deterministic"):
            print()
            _print_row(f"{measure}, {policy}", "seeds", "performance", "IQM", "forgetting", "forward transfer")
            _print_row(*["---"] * 6)
            for name, group in groups.items():
                own = next(one for one in group["summaries"] if (one["policy"], one["measure"]) == (policy, measure))
                metrics = ("performance", "performance_iqm", "forgetting", "forward_transfer_difference")
                _print_row(name, len(group["seeds"]), *(_interval(own[metric], digits) for metric in metrics))
    print()
    tasks = [task["name"] for task in section["tasks"]]
    _print_row("stochastic", *tasks)
    _print_row(*["---"] * (len(tasks) + 1))
    for name, group in groups.items():
        per_task = next(one for one in group["summaries"] if one["measure"] == "return")["per_task"]
        both = zip(per_task["own"], per_task["performance"], strict=True)
        _print_row(name, *(f"{learned:.0f} to {at_the_end:.0f}" for learned, at_the_end in both))
    print()
    _print_row("size", "parameters", "frozen", "free", "wall s")
    _print_row(*["---"] * 5)
    for name, group in groups.items():
        results = [json.loads((folder / Path(run).name / "result.json").read_text()) for run in group["runs"]]
        keys = ("params_nonzero", "connections_frozen", "connections_free")
        counts = [np.mean([result[key] for result in results]) for key in keys]
        walls = " / ".join(f"{result['wall_s']:,.0f}" for result in results)
        _print_row(name, *(f"{count:,.0f}" for count in counts), walls)


def _print_row(*cells: object) -> None:
    print(f"| {' | '.join(map(str, cells))} |")


def _interval(value: dict[str, Any], digits: int) -> str:
    mean, *ends = (value[part] for part in ("value", "low", "high"))
    shown = "" if ends[0] is None else f" [{ends[0]:z.{digits}f}, {ends[1]:z.{digits}f}]"
    return f"{mean:z.{digits}f}{shown}"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
