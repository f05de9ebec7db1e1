"""python results/frontier/make_table.py RUNS: runs.csv and frontier.png beside this file, and the tables of the README.

RUNS is what `run_all.sh` made. Rows that runs.csv has already stay, unless RUNS has the run anew.
"""

import csv
import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

HERE = Path(__file__).parent
HEAD = ("sequence", "name", "seed", "acc", "bwt", "numbers_kept", "cpu_s", "commit")
SEQUENCES = {"split_mnist": "split MNIST", "split_fashion_mnist": "split Fashion-MNIST"}
KINDS = {
    "class_pca": ("o", "components of each class"),
    "class_autoencoder": ("v", "sparse autoencoder of each class"),
    "random_features": ("s", "sparse random layer and ridge"),
    "fly_code": ("^", "fly code"),
    "spacenet": ("*", "SpaceNet"),
    "static_sparse": ("P", "SpaceNet without moves"),
}
LINEAR = ("nearest_mean", "nearest_mean_unit", "streaming_lda", "ridge")


def rows(folder):
    for path in sorted(folder.glob("*/*/s*/result.json")):
        result = json.loads(path.read_text())
        yield {
            "sequence": result["sequence"],
            "name": path.parent.parent.name,
            "seed": result["seed"],
            "acc": result["acc"],
            "bwt": result["bwt"],
            "numbers_kept": result["numbers_kept"],
            "cpu_s": round(result["cpu_s"], 1),
            "commit": json.loads((path.parent / "versions.json").read_text())["commit"][:7],
        }


def style(name):
    for kind, (marker, label) in KINDS.items():
        if name.startswith(kind):
            return marker, label
    return ("D", "no hidden layer") if name in LINEAR else ("x", "dense 784-400-400-10")


def main(folder):
    file = HERE / "runs.csv"
    known = list(csv.DictReader(file.open())) if file.exists() else []
    by_run = {(row["sequence"], row["name"], int(row["seed"])): row for row in [*known, *rows(folder)]}
    with file.open("w", newline="") as written:
        writer = csv.DictWriter(written, HEAD)
        writer.writeheader()
        writer.writerows(by_run[run] for run in sorted(by_run))
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    for axis, (sequence, title) in zip(figure.subplots(1, 2), SEQUENCES.items(), strict=True):
        groups = defaultdict(list)
        for (of, name, _), row in by_run.items():
            if of == sequence:
                groups[name].append(row)
        points = {
            name: (float(own[0]["numbers_kept"]), 100 * np.array([float(row["acc"]) for row in own]))
            for name, own in groups.items()
        }
        print(f"\n{title}\n| method | n | numbers kept | ACC | CPU s |\n|---|---|---|---|---|")
        for name, (kept, acc) in sorted(points.items(), key=lambda item: item[1][0]):
            spread = f" +- {acc.std(ddof=1):.2f}" if acc.size > 1 else ""
            seconds = np.mean([float(row["cpu_s"]) for row in groups[name]])
            print(f"| `{name}` | {acc.size} | {kept:,.0f} | {acc.mean():.2f}{spread} | {seconds:.0f} |")
        named = set()
        for name, (kept, acc) in points.items():
            marker, label = style(name)
            axis.plot(
                kept,
                acc.mean(),
                marker,
                color=f"C{[*'osD^*Pxv'].index(marker)}",
                label=None if label in named else label,
            )
            named.add(label)
        axis.set(xscale="log", title=f"{title}, class-incremental", xlabel="numbers kept", ylabel="ACC (%)")
        axis.grid(alpha=0.2)
        axis.legend(fontsize="small")
    figure.savefig(HERE / "frontier.png", dpi=100)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
