"""python results/frontier/make_table.py RUNS: runs.csv and frontier.png beside this file, and the tables of the README.

RUNS is what `run_all.sh` made. Rows that runs.csv has already stay, unless RUNS has the run anew.
"""

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

sys.path.append(str(Path(__file__).parents[1]))
from tables import finished, mean_and_deviation, merged, print_head, print_row

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
    "afaf": ("<", "AFAF"),
    "nispa": (">", "NISPA"),
}
LINEAR = ("nearest_mean", "nearest_mean_unit", "streaming_lda", "ridge")


def rows(folder):
    for run in finished(folder, "*/*/s*"):
        yield {
            **{name: run.result[name] for name in ("sequence", "seed", "acc", "bwt", "numbers_kept")},
            "name": run.path.parent.name,
            "cpu_s": round(run.result["cpu_s"], 1),
            "commit": run.commit,
        }


def style(name):
    for kind, (marker, label) in KINDS.items():
        if name.startswith(kind):
            return marker, label
    return ("D", "no hidden layer") if name in LINEAR else ("x", "dense 784-400-400-10")


def main(folder):
    found = merged(HERE / "runs.csv", HEAD[:3], rows(folder), HEAD)
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    for axis, (sequence, title) in zip(figure.subplots(1, 2), SEQUENCES.items(), strict=True):
        groups = defaultdict(list)
        for row in found:
            if row["sequence"] == sequence:
                groups[row["name"]].append(row)
        points = {
            name: (float(own[0]["numbers_kept"]), 100 * np.array([float(row["acc"]) for row in own]))
            for name, own in groups.items()
        }
        print(f"\n{title}")
        print_head("method", "n", "numbers kept", "ACC", "CPU s")
        for name, (kept, acc) in sorted(points.items(), key=lambda item: item[1][0]):
            seconds = np.mean([float(row["cpu_s"]) for row in groups[name]])
            print_row(f"`{name}`", acc.size, f"{kept:,.0f}", mean_and_deviation(acc), f"{seconds:.0f}")
        named = set()
        for name, (kept, acc) in points.items():
            marker, label = style(name)
            axis.plot(
                kept,
                acc.mean(),
                marker,
                color=f"C{[*'osD^*Pxv<>'].index(marker)}",
                label=None if label in named else label,
            )
            named.add(label)
        axis.set(xscale="log", title=f"{title}, class-incremental", xlabel="numbers kept", ylabel="ACC (%)")
        axis.grid(alpha=0.2)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize="small")
    figure.savefig(HERE / "frontier.png", dpi=100)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
