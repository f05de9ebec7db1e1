"""Benchmark records as tables, from the record alone."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table

from sparserl.bench.options import Record


def update_tables(record: Record) -> list[Table]:
    """One table a configuration, with actions and topology events beneath; then one of all crossovers."""
    tables = []
    quick = f" (quick: {record['rounds']} rounds)" if record.get("quick") else ""
    for configuration in record["configurations"]:
        rows = configuration["rows"]
        title = f"batch {configuration['batch']}, width {configuration['width']}{quick}"
        has = {what: what in rows[0] for what in ("update", "steps")}
        with_pairs = _with_pairs(rows)
        columns = ["contender", *_sparse_columns(with_pairs), "threads"]
        columns += ["ms/update", "x dense", "scaling"] if has["update"] else []
        columns += ["steps/s", "x dense"] if has["steps"] else []
        if any(has.values()):
            table = _table(title, columns)
            for row in rows:
                cells = [row["contender"], *_sparse_cells(row, with_pairs), str(row["threads"])]
                if has["update"]:
                    cells += [_spread(row["update"]), _times(row["update"]["speed_up"])]
                    cells += [_times(row["update"]["speed_up_by_threads"])]
                if has["steps"]:
                    cells += [f"{row['steps']['median']:.0f}", _times(row["steps"]["speed_up"])]
                table.add_row(*cells)
            tables.append(table)
        if "act" in rows[0]:
            tables.append(_actions(f"{title}: predict, one observation", rows))
        if configuration.get("events"):
            tables.append(_events(f"{title}: topology events, one in 1,000 updates", configuration["events"]))
    return [*tables, *_crossovers(record, "contender")]


def _actions(title: str, rows: list[Record]) -> Table:
    with_pairs = _with_pairs(rows)
    table = _table(title, ["contender", *_sparse_columns(with_pairs), "threads", "us/action", "x dense"])
    for row in rows:
        cells = [row["contender"], *_sparse_cells(row, with_pairs), str(row["threads"])]
        table.add_row(*cells, _spread(row["act"]), _times(row["act"]["speed_up"]))
    return table


def _events(title: str, events: list[Record]) -> Table:
    with_pairs = _with_pairs(events)
    table = _table(title, ["method", *_sparse_columns(with_pairs), "threads", "ms/event", "ms/update", "share"])
    for row in events:
        cells = [row["method"], *_sparse_cells(row, with_pairs), str(row["threads"])]
        table.add_row(*cells, _spread(row["event_ms"]), _spread(row["update_ms"]), f"{row['share']:.2%}")
    return table


def _with_pairs(rows: Sequence[Record]) -> bool:
    """Whether neurons share their inputs in any row."""
    return any(row.get("pairs", 1) > 1 for row in rows)


def _sparse_columns(with_pairs: bool) -> list[str]:
    return ["density", "pairs"] if with_pairs else ["density"]


def _sparse_cells(row: Record, with_pairs: bool) -> list[str]:
    """How sparse something is; `pairs` only in a table in which it differs."""
    density = "dense" if row["density"] is None else f"{row['density']:g}"
    return [density, str(row.get("pairs", 1))] if with_pairs else [density]


def kernel_tables(record: Record) -> list[Table]:
    """One table a configuration and product, and one of all crossovers."""
    tables = []
    for configuration in record["configurations"]:
        setting = f"batch {configuration['batch']}, width {configuration['width']}"
        for product in dict.fromkeys(row["product"] for row in configuration["rows"]):
            with_pairs = _with_pairs(configuration["rows"])
            columns = ["threads", *_sparse_columns(with_pairs), "microseconds", "GFLOP/s", "of dense", "x dense"]
            table = _table(f"{setting}: {product}", columns)
            for row in (row for row in configuration["rows"] if row["product"] == product):
                cells = [str(row["threads"]), *_sparse_cells(row, with_pairs), _spread(row["microseconds"])]
                cells += [f"{row['gflop_s']['median']:.1f}"]
                if row["density"] is not None:
                    cells += [f"{row['flop_rate_over_dense']['median']:.2f}", _times(row["speed_up"])]
                table.add_row(*cells)
            tables.append(table)
    return [*tables, *_crossovers(record, "product")]


def _crossovers(record: Record, of: str) -> list[Table]:
    """A table of the densities at which sparse and dense take as long, by the key `of`; none if there are none."""
    rows = [(at, row) for at in record["configurations"] for row in at.get("crossovers", ())]
    pairs = ["pairs"] if _with_pairs([row for _, row in rows]) else []
    table = _table("where sparse and dense take as long", ["batch", "width", of, *pairs, "threads", "density"])
    for at, row in rows:
        cells = [str(at["batch"]), str(at["width"]), row[of]]
        table.add_row(*cells, *(str(row[name]) for name in (*pairs, "threads")), row["text"])
    return [table] if rows else []


def scale_tables(record: Record) -> list[Table]:
    """Time and memory by size, and the slope of time over connections."""
    rows = record["rows"]
    before = f", {rows[0]['bytes_before'] / 1e6:.0f} MB of it before the agent" if rows else ""
    columns = ["connections", "neurons", "threads", "ms/update", "ms/event", "build s", "peak MB"]
    table = _table(f"peak without replay buffer{before}", columns)
    for row in rows:
        for timing in row["timings"]:
            cells = [f"{row['nnz']:,}", f"{row['hidden_neurons']:,}", str(timing["threads"])]
            cells += [_spread(timing["update_ms"]), _digits(timing["event_ms"]["median"])]
            cells += [f"{row['build_s']:.2f}", f"{row['bytes_peak_without_replay'] / 1e6:.0f}"]
            table.add_row(*cells)
    for row in record["slopes"]:
        table.add_row("slope", "", str(row["threads"]), f"{row['slope']:.2f}")
    return [table]


def return_tables(record: Record) -> list[Table]:
    """One table a return: median over runs, and in brackets the smallest and the largest."""
    tables = []
    for goal in dict.fromkeys(row["return"] for row in record["summary"]):
        with_pairs = _with_pairs(record["summary"])
        columns = ["contender", *_sparse_columns(with_pairs), "runs"]
        columns += ["seconds", "CPU seconds", "1,000 steps", "best of others"]
        table = _table(f"until the mean of three evaluations passes {goal:g}", columns)
        for row in (row for row in record["summary"] if row["return"] == goal):
            cells = [row["contender"], *_sparse_cells(row, with_pairs), f"{row['reached']}/{row['runs']}"]
            cells += [_extent(row["seconds"]), _extent(row["cpu_seconds"]), _extent(row["step"], unit=1000)]
            others = ["none" if best is None else f"{best:.0f}" for best in row["best_of_others"]]
            table.add_row(*cells, ", ".join(others))
        tables.append(table)
    return tables


def _extent(numbers: Record, unit: float = 1) -> str:
    """Median, smallest and largest, or what they all are; marked where they are only known to be larger."""
    said = {
        name: f"{'>' if name in numbers['above'] else ''}{_digits(numbers[name] / unit)}"
        for name in ("median", "min", "max")
    }
    if len(set(said.values())) == 1:
        return said["median"]
    return f"{said['median']} [{said['min']}, {said['max']}]"


def _table(title: str, columns: list[str]) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    for position, column in enumerate(columns):
        table.add_column(column, justify="right" if position else "left", no_wrap=True)
    return table


def _spread(numbers: Record) -> str:
    """Median and quartiles."""
    return f"{_digits(numbers['median'])} [{_digits(numbers['q25'])}, {_digits(numbers['q75'])}]"


def _digits(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _times(numbers: Record) -> str:
    return f"{numbers['median']:.2f}"
