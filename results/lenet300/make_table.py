"""python results/lenet300/make_table.py RUNS: runs.csv beside this file, and the tables of the README.

Rows that runs.csv has already stay, unless RUNS has the run anew.
"""

import csv
import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import yaml

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
    for path in sorted(folder.glob("*/result.json")):
        result = json.loads(path.read_text())
        config = yaml.safe_load((path.parent / "config.yaml").read_text())
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
            "commit": json.loads((path.parent / "versions.json").read_text())["commit"][:7],
        }


def cell(values):
    """Mean, and half the width of the 95 % interval of Student's t; both of percent."""
    values = 100 * np.array(values)
    if values.size < 3:
        return f"{values.mean():.2f} (n {values.size})"
    return f"{values.mean():.2f} +- {4.303 * values.std(ddof=1) / 3**0.5:.2f}"


def main(folder):
    file = Path(__file__).parent / "runs.csv"
    before = [{name: NUMBERS.get(name, str)(row[name]) for name in HEAD} for row in csv.DictReader(file.open())]
    by_run = {tuple(row[name] for name in HEAD[:3]): row for row in [*before, *rows(folder)]}
    found = [by_run[run] for run in sorted(by_run)]
    with file.open("w", newline="") as written:
        writer = csv.DictWriter(written, HEAD)
        writer.writeheader()
        writer.writerows(found)
    groups = defaultdict(list)
    for row in found:
        groups[row["method"], row["density"]].append(row)
    print("| method | " + " | ".join(f"{density:g}" for density in DENSITIES) + " |")
    print("|---" * (1 + len(DENSITIES)) + "|")
    for method in dict.fromkeys(name for name, _ in groups):
        own = {density: group for (name, density), group in groups.items() if name == method}
        if method in ("dense", "variational_dropout"):
            continue
        cells = []
        for density in DENSITIES:
            text = cell([row["accuracy"] for row in own[density]]) if density in own else ""
            published = PUBLISHED.get(method, {}).get(density)
            cells.append(f"{text} ({published:.2f})" if text and published else text)
        print(f"| `{method}` | " + " | ".join(cells) + " |")
    if ("dense", 1.0) in groups:
        own = groups["dense", 1.0]
        print(f"\ndense 300-100: {cell([row['accuracy'] for row in own])} ({PUBLISHED['dense'][1.0]:.2f})")
    if ("variational_dropout", 0.0) in groups:
        own = groups["variational_dropout", 0.0]
        left = np.mean([row["connections"] for row in own])
        print(f"\nvariational_dropout: {cell([row['accuracy'] for row in own])}, {left:,.0f} connections left")
    print("\n| method | FLOPs of training at .05 | CPU s at .05 |\n|---|---|---|")
    for (method, density), group in groups.items():
        if density in (0.05, 1.0):
            flops, seconds = (np.mean([row[name] for row in group]) for name in ("flops_train", "cpu_s"))
            print(f"| `{method}` | {flops:.2e} | {seconds:.0f} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
