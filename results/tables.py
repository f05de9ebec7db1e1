"""What the scripts `make_table.py` beside this file share: finished runs, a runs.csv that grows, tables of Markdown.

A script that lies in a folder beside this file finds it by `sys.path.append(str(Path(__file__).parents[1]))`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

T_OF_THREE = 4.303
"""Student's t of a 95 % interval with two degrees of freedom."""


@dataclass(frozen=True)
class Finished:
    """A finished run: its folder and what its files say."""

    path: Path
    result: dict[str, Any]

    @property
    def config(self) -> dict[str, Any]:
        """As it was resolved."""
        config: dict[str, Any] = yaml.safe_load((self.path / "config.yaml").read_text())
        return config

    @property
    def commit(self) -> str:
        """That trained it, short."""
        return str(json.loads((self.path / "versions.json").read_text())["commit"][:7])


def finished(folder: Path, pattern: str) -> Iterator[Finished]:
    """The finished runs among the folders that match a pattern, in the order of their names."""
    for path in sorted(folder.glob(f"{pattern}/result.json")):
        yield Finished(path.parent, json.loads(path.read_text()))


def merged(
    file: Path, key: Sequence[str], rows: Iterable[dict[str, Any]], head: Sequence[str], end: str = "\r\n"
) -> list[dict[str, str]]:
    """Adds rows to a CSV file, each in place of one of the same run, and gives all of them as text.

    Args:
        file: What is in it stays but for that.
        key: Columns that tell runs apart; rows are in their order, numbers as numbers.
        rows: New ones.
        head: All columns.
        end: Of a line.
    """
    known = list(csv.DictReader(file.read_text().splitlines())) if file.exists() else []
    new = [{name: str(row[name]) for name in head} for row in rows]
    by_run = {tuple(row[name] for name in key): row for row in [*known, *new]}
    found = [by_run[run] for run in sorted(by_run, key=lambda run: [_ordered(part) for part in run])]
    with file.open("w", newline="") as written:
        writer = csv.DictWriter(written, head, lineterminator=end)
        writer.writeheader()
        writer.writerows(found)
    return found


def _ordered(text: str) -> tuple[float, str]:
    try:
        return float(text), ""
    except ValueError:
        return np.inf, text


def print_row(*cells: object) -> None:
    """A row of a table."""
    print(f"| {' | '.join(map(str, cells))} |")


def print_head(*cells: object) -> None:
    """The first row of a table, and the line beneath it."""
    print_row(*cells)
    print("|---" * len(cells) + "|")


def mean_and_deviation(values: Sequence[float], decimals: int = 2) -> str:
    """Mean and standard deviation over seeds, which one alone has not."""
    mean = f"{np.mean(values):.{decimals}f}"
    return f"{mean} +- {np.std(values, ddof=1):.{decimals}f}" if len(values) > 1 else mean


def half_interval(values: Sequence[float]) -> float:
    """Half the width of the 95 % interval of Student's t, of three seeds."""
    if len(values) != 3:
        raise ValueError(f"of three seeds, got {len(values)}")
    return float(T_OF_THREE * np.std(values, ddof=1) / 3**0.5)
