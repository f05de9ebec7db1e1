"""Prints the tables of README.md: `python results/continual/make_table.py halfcheetah_forgetting`, in this folder.

Reads what `sparserl report halfcheetah_forgetting --json .../report.json` writes, and sizes from the `result.json` of
runs. Policies as they explore; `report.json` has the deterministic ones as well.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1]))
from tables import print_head, print_row

ORDER = ("scratch", "finetune", "finetune_static", "ewc_rewired", "ewc", "packnet", "spacenet", "replay")
"""Folders of runs, without the seed, as rows."""


def main(folder: Path) -> None:
    """Prints tables of metrics with intervals, of returns of each task once learned and at the end, and of sizes."""
    (section,) = json.loads((folder / "report.json").read_text())["sections"]
    found = {Path(group["runs"][0]).name.rpartition("-s")[0]: group for group in section["groups"]}
    groups = {name: found[name] for name in ORDER if name in found}
    for measure, digits in {"return": 0, "normalised_return": 2}.items():
        print_head(measure.replace("_", " "), "seeds", "performance", "forgetting", "forward transfer")
        for name, group in groups.items():
            own = _stochastic(group, measure)
            metrics = ("performance", "forgetting", "forward_transfer_difference")
            print_row(name, len(group["seeds"]), *(_interval(own[metric], digits) for metric in metrics))
        print()
    tasks = [task["name"] for task in section["tasks"]]
    print_head("return, learned to end", *tasks)
    for name, group in groups.items():
        per_task = _stochastic(group, "return")["per_task"]
        both = zip(per_task["own"], per_task["performance"], strict=True)
        print_row(name, *(f"{learned:.0f} to {at_the_end:.0f}" for learned, at_the_end in both))
    print()
    print_head("size", "parameters after each task", "frozen", "free", "wall s")
    for name, group in groups.items():
        results = [json.loads((folder / Path(run).name / "result.json").read_text()) for run in group["runs"]]
        frozen, free = (np.mean([result[f"connections_{what}"] for result in results]) for what in ("frozen", "free"))
        walls = [result["wall_s"] for result in results]
        per_task = np.mean([result["params_nonzero_per_task"] for result in results], axis=0)
        print_row(name, _numbers(per_task), f"{frozen:,.0f}", f"{free:,.0f}", _numbers(walls))


def _stochastic(group: dict[str, Any], measure: str) -> dict[str, Any]:
    return next(one for one in group["summaries"] if (one["policy"], one["measure"]) == ("stochastic", measure))


def _numbers(values: Iterable[float]) -> str:
    return " / ".join(f"{value:,.0f}" for value in values)


def _interval(value: dict[str, Any], digits: int) -> str:
    mean, *ends = (value[part] for part in ("value", "low", "high"))
    shown = "" if ends[0] is None else f" [{ends[0]:z.{digits}f}, {ends[1]:z.{digits}f}]"
    return f"{mean:z.{digits}f}{shown}"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
