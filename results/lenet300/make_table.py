"""python results/lenet300/make_table.py RUNS: runs.csv beside this file, and the tables of the README.

Rows that runs.csv has already stay, unless RUNS has the run anew.
"""

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1]))
from tables import finished, half_interval, merged, print_head, print_row

HEAD = ("method", "density", "seed", "accuracy", "accuracy_best", "connections", "flops_train", "cpu_s", "commit")
NUMBERS = {
    **dict.fromkeys(("density", "accuracy", "accuracy_best", "cpu_s"), float),
    **dict.fromkeys(("seed", "connections", "flops_train"), int),
}
PUBLISHED = {  # Dettmers and Zettlemoyer 2019, figures of their repository
    "dsr": {0.01: 97.54, 0.02: 98.14, 0.03: 98.20, 0.04: 98.23, 0.05: 98.32, 0.10: 98.44},
    "snfs": {0.01: 97.53, 0.02: 98.20, 0.03: 98.30, 0.04: 98.42, 0.05: 98.53, 0.10: 98.67},
    "set": {0.01: 95.80, 0.02: 97.74, 0.03: 98.06, 0.04: 98.10, 0.05: 98.14, 0.10: 98.39},
    "deepr": {0.01: 94.00, 0.02: 98.21, 0.03: 98.22, 0.04: 98.30, 0.05: 98.06, 0.10: 98.19},
    "dense": {1.0: 98.69},
}
DENSITIES = (0.01, 0.02, 0.03, 0.04, 0.05, 0.10)
NARROW = {3: 0.01, 6: 0.02, 10: 0.03, 13: 0.04, 16: 0.05, 32: 0.10}
"""Width of both hidden layers -> density that it is compared with."""


def rows(folder):
    for run in finished(folder, "*"):
        config, result = run.config, run.result
        method, density = result["method"], config["topology"]["density"]
        if config["learner"].get("regularizer") == "variational_dropout":
            method, density = "variational_dropout", 0.0  # training says how many are left
        elif method == "dense":
            first, density = config["learner"]["hidden"][0], 1.0
            if first in NARROW:
                method, density = "narrow dense", NARROW[first]
        yield {
            "method": method,
            "density": density,
            "seed": result["seed"],
            "accuracy": result["accuracy_test"],
            "accuracy_best": result["accuracy_test_best"],
            "connections": result["connections"],
            "flops_train": result["flops_train"],
            "cpu_s": round(result["cpu_s"], 1),
            "commit": run.commit,
        }


def cell(values):
    """Mean, and half the width of the 95 % interval; both of percent."""
    values = 100 * np.array(values)
    if values.size < 3:
        return f"{values.mean():.2f} (n {values.size})"
    return f"{values.mean():.2f} +- {half_interval(values):.2f}"


def main(folder):
    found = [
        {name: NUMBERS.get(name, str)(text) for name, text in row.items()}
        for row in merged(Path(__file__).parent / "runs.csv", HEAD[:3], rows(folder), HEAD)
    ]
    groups = defaultdict(list)
    for row in found:
        groups[row["method"], row["density"]].append(row)
    print_head("method", *(f"{density:g}" for density in DENSITIES))
    for method in dict.fromkeys(name for name, _ in groups):
        own = {density: group for (name, density), group in groups.items() if name == method}
        if method in ("dense", "variational_dropout"):
            continue
        cells = []
        for density in DENSITIES:
            text = cell([row["accuracy"] for row in own[density]]) if density in own else ""
            published = PUBLISHED.get(method, {}).get(density)
            cells.append(f"{text} ({published:.2f})" if text and published else text)
        print_row(f"`{method}`", *cells)
    if ("dense", 1.0) in groups:
        own = groups["dense", 1.0]
        print(f"\ndense 300-100: {cell([row['accuracy'] for row in own])} ({PUBLISHED['dense'][1.0]:.2f})")
    if ("variational_dropout", 0.0) in groups:
        own = groups["variational_dropout", 0.0]
        left = np.mean([row["connections"] for row in own])
        print(f"\nvariational_dropout: {cell([row['accuracy'] for row in own])}, {left:,.0f} connections left")
    print()
    print_head("method", "FLOPs of training at .05", "CPU s at .05")
    for (method, density), group in groups.items():
        if density in (0.05, 1.0):
            flops, seconds = (np.mean([row[name] for row in group]) for name in ("flops_train", "cpu_s"))
            print_row(f"`{method}`", f"{flops:.2e}", f"{seconds:.0f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
