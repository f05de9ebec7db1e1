"""python results/million/topology_distance.py DATA OUT: how far apart the topologies of two seeds are while they learn.

784-300-100-10 on MNIST, density .05, otherwise as configs/fit/lenet300_100.yaml: seeds 0 and 1 by SET and fixed, and
seed 1 by SET from the first connections and weights of seed 0. DATA holds mnist/; OUT.csv and OUT.png are written.
"""

import csv
import sys
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from sparserl.continual.supervised.fit_learner import FitLearner
from sparserl.continual.supervised.tables import read_table, table_sequence
from sparserl.experiment import resolve
from sparserl.metrics.topology_distance import topology_distance

EPOCHS = (0, 1, 2, 3, 5, 8, 12, 18, 25, 35, 50)


def learners(data, method, same_start):
    found = []
    for seed in (0, 1):
        config = resolve("fit", {"seed": seed, "topology": {"method": method}}, preset="lenet300_100")
        table = table_sequence(
            read_table("mnist", data, seed=seed),
            scaling=config.scaling,
            validation_share=config.validation_share,
            seed=seed,
        )
        found.append(FitLearner(table, config.learner, config.topology, seed=seed))
    if same_start:
        found[1].network.load_state_dict(found[0].network.state_dict())
    return found


def distance(pair):
    return topology_distance(*([layer.topology for layer in learner.network] for learner in pair))


def main(data, out):
    rows = []
    for name, method, same_start in (
        ("SET, two seeds", "set", False),
        ("SET, the same start", "set", True),
        ("static, two seeds", "static", False),
    ):
        pair = learners(data, method, same_start)
        steps = [learner.train() for learner in pair]
        for before, epoch in pairwise((0, *EPOCHS)):
            for training in steps:
                for step in training if epoch > before else ():
                    if step.epoch + 1 == epoch and step.batch + 1 == step.batches:
                        break
            found = distance(pair)
            rows.append([name, epoch, found.mean, found.mean_unaligned, *found.layers])
            print(*rows[-1], file=sys.stderr)
    with out.with_suffix(".csv").open("w", newline="") as file:
        csv.writer(file).writerows([["pair", "epoch", "nnstd", "unaligned", "layer0", "layer1", "layer2"], *rows])
    draw(rows, out.with_suffix(".png"))


def draw(rows, out):
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for name, marker in zip(dict.fromkeys(row[0] for row in rows), "os^", strict=True):
        own = np.array([row[1:4] for row in rows if row[0] == name], float)
        (line,) = axes.plot(own[:, 0], own[:, 1], marker=marker, label=f"{name}: neurons assigned (NNSTD)")
        axes.plot(own[:, 0], own[:, 2], "--", color=line.get_color(), label=f"{name}: neuron by neuron")
    axes.set(xlabel="epochs", ylabel="topology distance", ylim=(-0.02, 1.02))
    axes.legend(fontsize="small")
    figure.savefig(out, dpi=120)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
