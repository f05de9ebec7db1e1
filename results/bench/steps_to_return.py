"""Env steps, and seconds at a measured speed, until recorded runs pass a return, whoever trained them.

    python results/bench/steps_to_return.py RECORD.json LABEL:CONTENDER:DENSITY:BATCH:RUN[,RUN...] ...

A return is passed where the mean of three consecutive evaluations does, as in `sparserl bench return`. Seconds are env
steps over the env steps a second of that contender in the record (`sparserl bench update --what steps`): an estimate of
training alone, by the machine of the record and not by that of the runs. Random steps at the beginning count as others.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from sparserl.bench.return_run import passed
from sparserl.recording.run_logs import evaluation_curve

RETURNS = (3000.0, 5000.0, 7000.0)


def steps_to(run: Path, goal: float) -> int | None:
    """Env step of the evaluation at which a run passes a return; None if it does not."""
    steps, returns = evaluation_curve(run)
    found = passed(returns.tolist(), goal)
    return None if found is None else int(steps[found])


def steps_a_second(record: Path, contender: str, density: float, batch: int) -> float:
    """Median of a contender at width 256 and one thread."""
    for configuration in json.loads(record.read_text(encoding="utf-8"))["configurations"]:
        for row in configuration["rows"]:
            if (configuration["batch"], row["contender"], row["density"]) == (batch, contender, density):
                return float(row["steps"]["median"])
    raise SystemExit(f"{record} has no {contender} of density {density} at batch {batch}")


def main(record: Path, wishes: list[str]) -> None:
    """Prints a table in Markdown."""
    print("| | seeds |", " | ".join(f"{goal:,.0f}" for goal in RETURNS), "|\n|---|---|---|---|---|")
    for wish in wishes:
        label, contender, density, batch, runs = wish.split(":")
        speed = steps_a_second(record, contender, float(density), int(batch))
        folders = [Path(run) for run in runs.split(",")]
        cells = []
        for goal in RETURNS:
            steps = [steps_to(run, goal) for run in folders]
            said = ", ".join("-" if one is None else f"{one // 1000}k" for one in steps)
            reached = sorted(one for one in steps if one is not None)
            middle = f": {reached[len(reached) // 2] / speed:,.0f} s" if len(reached) * 2 > len(steps) else ""
            cells.append(said + middle)
        print(f"| {label} | {len(folders)} |", " | ".join(cells), "|")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
