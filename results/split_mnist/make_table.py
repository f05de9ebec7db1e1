"""Collects finished runs: `python results/split_mnist/make_table.py RUNS` writes runs.csv and prints the tables.

`RUNS` holds one folder a scenario, in it one a method, in it one a seed, as `run_all.sh` makes them.
"""

from __future__ import annotations

import csv
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

COLUMNS = ("acc", "bwt", "forgetting_max", "learning_accuracy", "connections", "bytes_parameters", "steps", "wall_s")
HERE = Path(__file__).parent


def main(runs: Path) -> None:
    """Writes runs.csv beside this file and prints one table a scenario."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    with (HERE / "runs.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("scenario", "method", "seed", *COLUMNS, "bytes_memory", "matrix"))
        for path in sorted(runs.glob("*/*/*/result.json")):
            result = json.loads(path.read_text())
            scenario, name = path.parts[-4], path.parts[-3]
            result["bytes_memory"] = sum(result["memory"].values())
            found[scenario, name].append(result)
            matrix = json.dumps([[None if v is None else round(v, 4) for v in row] for row in result["matrix"]])
            cells = [result[column] for column in COLUMNS]
            writer.writerow((scenario, name, result["seed"], *cells, result["bytes_memory"], matrix))
    for scenario in ("class", "task"):
        print(f"\n{scenario}\n| method | n | ACC | BWT | connections | KB of weights | KB kept between tasks | s |")
        print("|---|---|---|---|---|---|---|---|")
        methods = {name: results for (own, name), results in found.items() if own == scenario}
        for name, results in sorted(methods.items(), key=lambda item: -np.mean([r["acc"] for r in item[1]])):
            print(
                f"| {name} | {len(results)} | {_percent(results, 'acc')} | {_percent(results, 'bwt')} "
                f"| {_mean(results, 'connections'):,.0f} | {_mean(results, 'bytes_parameters') / 1e3:,.0f} "
                f"| {_mean(results, 'bytes_memory') / 1e3:,.0f} | {_mean(results, 'wall_s'):.0f} |"
            )
    pairs = {r["seed"]: r["acc"] for r in found["class", "static_sparse"]}
    gains = [100 * (r["acc"] - pairs[r["seed"]]) for r in found["class", "spacenet"] if r["seed"] in pairs]
    if gains:
        print(
            f"\nspacenet - static_sparse: {np.mean(gains):.1f} +- {np.std(gains, ddof=1):.1f}, least {min(gains):.1f}"
        )


def _mean(results: list[dict[str, Any]], key: str) -> float:
    return float(np.mean([result[key] for result in results]))


def _percent(results: list[dict[str, Any]], key: str) -> str:
    values = [100 * result[key] for result in results]
    return f"{np.mean(values):.2f} +- {np.std(values, ddof=1):.2f}" if len(values) > 1 else f"{values[0]:.2f}"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
