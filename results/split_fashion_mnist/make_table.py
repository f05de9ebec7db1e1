"""`python results/split_fashion_mnist/make_table.py RUNS`: writes runs.csv beside this file, and prints the table."""

from __future__ import annotations

import csv
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

NETWORKS = ("convolutions", "sparse", "narrow")


def main(runs: Path) -> None:
    rows: list[dict[str, Any]] = []
    for path in sorted(runs.glob("*/*/*/s*/result.json")):
        scenario, method, network, seed = path.parts[-5:-1]
        result = json.loads(path.read_text())
        about = {"scenario": scenario, "method": method, "network": network, "seed": seed.removeprefix("s")}
        kept = {name: result[name] for name in ("acc", "bwt", "connections", "steps", "wall_s")}
        rows.append({**about, **kept, "matrix": json.dumps(result["matrix"])})
    with (Path(__file__).parent / "runs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["scenario"], row["method"], row["network"]].append(row)
    for (scenario, method, network), own in sorted(
        groups.items(), key=lambda one: (*one[0][:2], NETWORKS.index(one[0][2]))
    ):
        accs = ", ".join(f"{100 * row['acc']:.1f}" for row in own)
        bwts = ", ".join(f"{100 * row['bwt']:.1f}" for row in own)
        seconds = np.mean([row["wall_s"] for row in own])
        print(f"| {scenario} | {method} | {network} | {own[0]['connections']:,} | {accs} | {bwts} | {seconds:.0f} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
