"""python results/features/make_table.py OUT.csv: the tables of the README, from what run.py wrote."""

import csv
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1]))
from tables import half_interval, print_head, print_row

NAMES = ("all", "wast", "quickselection", "attribution", "variance", "random")


def main(path):
    groups = defaultdict(list)
    for row in csv.DictReader(Path(path).read_text().splitlines()):
        key = row["method"], row["scaling"], row["data"], int(row["features"])
        groups[key].append((100 * float(row["accuracy"]), row["hits"]))
    tables = list(dict.fromkeys(data for _, _, data, _ in groups))
    columns = [
        (data, count)
        for data in tables
        for count in (20, 50, 100)
        if ("variance", "all_features", data, count) in groups
    ]
    print_head("method, scaling", *(f"{data} {count}" for data, count in columns))
    for method in NAMES:
        for scaling in dict.fromkeys(scaling for name, scaling, _, _ in groups if name == method):
            cells = []
            for data, count in columns:
                wanted = count if method != "all" else None
                found = [
                    value
                    for (name, scale, of, many), value in groups.items()
                    if (name, scale, of) == (method, scaling, data) and wanted in (many, None)
                ]
                values = [accuracy for group in found for accuracy, _ in group]
                hits = [int(hit) for group in found for _, hit in group if hit and count == 20 and method != "all"]
                text = f"{np.mean(values):.1f}" if values else ""
                text += f" +- {half_interval(values):.1f}" if len(values) == 3 else ""
                cells.append(text + (f", {'/'.join(map(str, hits))} hits" if hits else ""))
            label = method if scaling == "-" else f"{method}, {scaling}"
            print_row(label, *cells)


if __name__ == "__main__":
    main(sys.argv[1])
