"""`python results/split_fashion_mnist/make_table.py RUNS`: writes runs.csv beside this file, and prints the table.

Rows that runs.csv has already stay, unless RUNS has the run anew.
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
from tables import finished, merged, print_row

NETWORKS = ("convolutions", "sparse", "narrow")
RUN = ("scenario", "method", "network", "seed")
KEPT = ("acc", "bwt", "connections", "steps", "wall_s")


def rows(runs: Path) -> Iterator[dict[str, Any]]:
    for run in finished(runs, "*/*/*/s*"):
        *names, seed = run.path.parts[-4:]
        about = dict(zip(RUN, [*names, seed.removeprefix("s")], strict=True))
        yield {**about, **{name: run.result[name] for name in KEPT}, "matrix": json.dumps(run.result["matrix"])}


def main(runs: Path) -> None:
    groups: dict[tuple[str, ...], list[dict[str, str]]] = defaultdict(list)
    for row in merged(Path(__file__).parent / "runs.csv", RUN, rows(runs), (*RUN, *KEPT, "matrix"), end="\n"):
        groups[tuple(row[name] for name in RUN[:3])].append(row)
    for group, own in sorted(groups.items(), key=lambda one: (*one[0][:2], NETWORKS.index(one[0][2]))):
        percents = (", ".join(f"{100 * float(row[key]):.1f}" for row in own) for key in ("acc", "bwt"))
        seconds = np.mean([float(row["wall_s"]) for row in own])
        print_row(*group, f"{int(own[0]['connections']):,}", *percents, f"{seconds:.0f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
