"""Collects finished runs: `python results/split_mnist/make_table.py RUNS` writes runs.csv and prints the tables.

`RUNS` holds one folder a scenario, in it one a method, in it one a seed, as `run_all.sh` makes them. Rows that runs.csv
has already stay, unless RUNS has the run anew.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parents[1]))
from tables import finished, mean_and_deviation, merged, print_head, print_row

COLUMNS = ("acc", "bwt", "forgetting_max", "learning_accuracy", "connections", "bytes_parameters", "steps", "wall_s")
RUN = ("scenario", "method", "seed")


def rows(runs: Path) -> Iterator[dict[str, Any]]:
    for run in finished(runs, "*/*/*"):
        matrix = [[None if value is None else round(value, 4) for value in row] for row in run.result["matrix"]]
        yield {
            "scenario": run.path.parts[-3],
            "method": run.path.parts[-2],
            **{column: run.result[column] for column in ("seed", *COLUMNS)},
            "bytes_memory": sum(run.result["memory"].values()),
            "matrix": json.dumps(matrix),
        }


def main(runs: Path) -> None:
    """Writes runs.csv beside this file and prints one table a scenario."""
    head = (*RUN, *COLUMNS, "bytes_memory", "matrix")
    found: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    for row in merged(Path(__file__).parent / "runs.csv", RUN, rows(runs), head):
        found[row["scenario"], row["method"]].append(row)
    for scenario in ("class", "task"):
        print(f"\n{scenario}")
        print_head("method", "n", "ACC", "BWT", "connections", "KB of weights", "KB kept between tasks", "s")
        methods = {name: own for (of, name), own in found.items() if of == scenario}
        for name, own in sorted(methods.items(), key=lambda item: -np.mean(_values(item[1], "acc"))):
            means = {key: np.mean(_values(own, key)) for key in ("connections", "bytes_parameters", "bytes_memory")}
            print_row(
                name,
                len(own),
                *(mean_and_deviation(_values(own, key, 100)) for key in ("acc", "bwt")),
                f"{means['connections']:,.0f}",
                *(f"{means[key] / 1e3:,.0f}" for key in ("bytes_parameters", "bytes_memory")),
                f"{np.mean(_values(own, 'wall_s')):.0f}",
            )
    pairs = {row["seed"]: float(row["acc"]) for row in found["class", "static_sparse"]}
    of_both = [row for row in found["class", "spacenet"] if row["seed"] in pairs]
    gains = [100 * (float(row["acc"]) - pairs[row["seed"]]) for row in of_both]
    if gains:
        print(f"\nspacenet - static_sparse: {mean_and_deviation(gains, 1)}, least {min(gains):.1f}")


def _values(rows: list[dict[str, str]], key: str, times: float = 1) -> list[float]:
    return [times * float(row[key]) for row in rows]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
