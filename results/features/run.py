"""python results/features/run.py DATA OUT.csv: features chosen by sparse networks, beside variance and chance.

DATA holds tables/*.npz and mnist/, as the README says. Rows that OUT.csv has already are not computed again.
"""

import csv
import sys
from pathlib import Path
from time import process_time

import numpy as np
from sklearn.feature_selection import SelectKBest
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from sparserl.continual.supervised.tables import read_table
from sparserl.estimators import SparseFeatureSelector

# 0-based columns of Madelon's 20 relevant features: those that correlate with others by more than .2.
MADELON = np.array([28, 48, 64, 105, 128, 153, 241, 281, 318, 336, 338, 378, 433, 442, 451, 453, 455, 472, 475, 493])
DATA = ("madelon", "coil20", "isolet", "prostate_ge", "pcmac", "mnist")
METHODS = ("wast", "quickselection", "attribution")
PICTURES = {"wast": {"error_share": 0.4}}  # as WAST's code has it for pictures
SCALINGS = ("each_feature", "all_features")
SEEDS = (0, 1, 2)
MOST = 5_000  # samples that the support vector machine is trained on, drawn at random where there are more
HEAD = ("data", "method", "scaling", "seed", "features", "accuracy", "hits", "seconds")


def variance(x, y=None):
    return x.var(axis=0), np.zeros(x.shape[1])


def chosen(data, method, scaling, seed, count, x, y):
    """Columns, the best first."""
    if method == "variance":
        scaled = StandardScaler().fit_transform(x) if scaling == "each_feature" else x
        return np.argsort(-SelectKBest(variance, k="all").fit(scaled).scores_, kind="stable")[:count]
    if method == "random":
        return np.random.default_rng(seed).permutation(x.shape[1])[:count]
    options = PICTURES.get(method, {}) if data in ("coil20", "mnist") else {}
    selector = SparseFeatureSelector(count, method=method, scaling=scaling, random_state=seed, **options)
    return np.argsort(-selector.fit(x, y).feature_importances_, kind="stable")[:count]


def accuracy(columns, train, test, y_train, y_test):
    scaler = StandardScaler().fit(train[:, columns])
    rows = np.random.default_rng(0).permutation(len(train))[:MOST]
    machine = SVC().fit(scaler.transform(train[rows][:, columns]), y_train[rows])
    return machine.score(scaler.transform(test[:, columns]), y_test)


def cases():
    for data in DATA:
        yield data, "all", "-", 0
        for scaling in SCALINGS:
            for seed in SEEDS:
                for method in METHODS:
                    yield data, method, scaling, seed
        yield data, "variance", "all_features", 0
        for seed in SEEDS:
            yield data, "random", "-", seed


def main(folder, out):
    done = set()
    if out.exists():
        done = {tuple(row[name] for name in HEAD[:4]) for row in csv.DictReader(out.open())}
    else:
        out.write_text(",".join(HEAD) + "\n")
    tables = {}
    for data, method, scaling, seed in cases():
        if (data, method, scaling, str(seed)) in done:
            continue
        if data not in tables:
            tables = {data: split(data, folder)}
        train, test, y_train, y_test = tables[data]
        counts = [20, 50, 100] if data == "madelon" else [50, 100]
        begun = process_time()
        order = np.arange(train.shape[1])
        if method != "all":
            order = chosen(data, method, scaling, seed, max(counts), train, y_train)
        seconds = process_time() - begun
        with out.open("a") as file:
            for count in counts if method != "all" else [train.shape[1]]:
                columns = order[:count]
                hits = int(np.isin(columns, MADELON).sum()) if data == "madelon" else ""
                row = accuracy(columns, train, test, y_train, y_test)
                print(data, method, scaling, seed, count, f"{row:.4f}", hits, f"{seconds:.0f} s", file=sys.stderr)
                file.write(f"{data},{method},{scaling},{seed},{count},{row:.4f},{hits},{seconds:.1f}\n")


def split(data, folder):
    """A table's own test samples, or a fifth."""
    table = read_table(data if data == "mnist" else f"tables/{data}.npz", folder, seed=0)
    x = table.x.astype(np.float32)
    if table.x_test is not None:
        return x, table.x_test.astype(np.float32), table.y, table.y_test
    return train_test_split(x, table.y, test_size=0.2, random_state=42)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
