"""Benchmark records as pictures, from the record alone. Every curve is a median, its band the quartiles."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from sparserl.bench.compared import COMPARED, OURS
from sparserl.bench.options import Record
from sparserl.plots.style import COLOURS, line_styles

THREAD_STYLES = ("-", "--", "-.", ":")
PAIR_MARKERS = {1: "o", 2: "s", 4: "^"}
"""By the number of neurons that share their inputs."""


def update_figure(record: Record) -> Figure:
    """Speed-up over dense against density: of gradient updates, or of env steps where only those were timed.

    Crosses are where sparse and dense take as long.
    """
    quick = f" (quick: {record['rounds']} rounds)" if record.get("quick") else ""
    configurations = record["configurations"]
    figure, panels = _panels(len(configurations))
    for axis, configuration in zip(panels, configurations, strict=True):
        rows = configuration["rows"]
        what = "update" if "update" in rows[0] else "steps"
        threads = list(dict.fromkeys(row["threads"] for row in rows))
        names = list(dict.fromkeys(row["contender"] for row in rows if not _is_its_own_baseline(row["contender"])))
        colours = {name: number % len(COLOURS) for number, name in enumerate(names)}
        for number, style in zip(threads, cycle(THREAD_STYLES), strict=False):
            for name, colour in colours.items():
                of_name = [row for row in rows if (row["contender"], row["threads"]) == (name, number)]
                label = f"{name} against {COMPARED[name].baseline}, {_threads(number)}"
                for pairs in _pairs_of(of_name) if name in OURS else ():
                    of_pairs = [row for row in of_name if _pairs(row) == pairs or row["density"] == 1.0]
                    points = [(row["density"], row[what]["speed_up"]) for row in of_pairs]
                    _curve(axis, points, colour, style, label, pairs)
                for row in () if name in OURS else of_name:
                    level, paint = row[what]["speed_up"]["median"], COLOURS[colour]
                    axis.axhline(level, color=paint, linestyle=style, linewidth=1, label=label)
        densities = sorted({row["density"] for row in rows if row["contender"] in OURS})
        if densities:
            ideal = [1 / density for density in densities]
            axis.plot(densities, ideal, color="black", linestyle=":", linewidth=1, label="1 / density")
        axis.axhline(1.0, color="black", linewidth=0.8)
        _logarithmic(axis, densities)
        crossovers = configuration.get("crossovers", ())
        for name, colour in colours.items():
            _mark_crossovers(axis, [row for row in crossovers if row["contender"] == name], colour)
        axis.set_title(f"batch {configuration['batch']}, width {configuration['width']}{quick}", fontsize="medium")
        axis.set_xlabel("density")
        axis.set_ylabel(f"{'update' if what == 'update' else 'env step'}: times faster than dense")
    _legend(figure, panels)
    return figure


def _is_its_own_baseline(name: str) -> bool:
    return COMPARED[name].baseline == name


def kernel_figure(record: Record) -> Figure:
    """Speed-up over the best dense product against density, by product. Crosses are where the layer takes as long."""
    configurations = record["configurations"]
    figure, panels = _panels(len(configurations))
    for axis, configuration in zip(panels, configurations, strict=True):
        rows = [row for row in configuration["rows"] if row["density"] is not None]
        threads = list(dict.fromkeys(row["threads"] for row in rows))
        for position, product in enumerate(dict.fromkeys(row["product"] for row in rows)):
            for number, style in zip(threads, cycle(THREAD_STYLES), strict=False):
                drawn = [row for row in rows if row["product"] == product and row["threads"] == number]
                for pairs in _pairs_of(drawn):
                    points = [(row["density"], row["speed_up"]) for row in drawn if _pairs(row) == pairs]
                    _curve(axis, points, position, style, f"{product}, {_threads(number)}", pairs)
        densities = sorted({row["density"] for row in rows})
        axis.plot(densities, [1 / d for d in densities], color="black", linestyle=":", linewidth=1, label="1 / density")
        axis.axhline(1.0, color="black", linewidth=0.8)
        _logarithmic(axis, densities)
        products = list(dict.fromkeys(row["product"] for row in rows))
        of_layer = [row for row in configuration["crossovers"] if row["product"] == products[-1]]
        _mark_crossovers(axis, of_layer, len(products) - 1)
        axis.set_title(f"batch {configuration['batch']}, width {configuration['width']}", fontsize="medium")
        axis.set_xlabel("density")
        axis.set_ylabel("times faster than the best dense product")
    _legend(figure, panels)
    return figure


def scale_figure(record: Record) -> Figure:
    """Time of an update and of an event, and memory, against connections."""
    figure, (left, right) = _panels(2)
    rows = record["rows"]
    nnz = [row["nnz"] for row in rows]
    for position, number in enumerate([timing["threads"] for timing in rows[0]["timings"]] if rows else []):
        timings = [row["timings"][position] for row in rows]
        style = THREAD_STYLES[position % len(THREAD_STYLES)]
        slope = next((f", slope {s['slope']:.2f}" for s in record["slopes"] if s["threads"] == number), "")
        for colour, what in enumerate(("update", "event")):
            label = f"{what}, {_threads(number)}{slope if what == 'update' else ''}"
            _curve(
                left, list(zip(nnz, (timing[f"{what}_ms"] for timing in timings), strict=True)), colour, style, label
            )
    if rows:
        peak = [row["bytes_peak_without_replay"] / 1e6 for row in rows]
        before = [row["bytes_before"] / 1e6 for row in rows]
        grown = [whole - start for whole, start in zip(peak, before, strict=True)]
        for colour, (label, values) in enumerate(
            (("peak", peak), ("before the agent", before), ("peak - before", grown))
        ):
            right.plot(nnz, values, color=COLOURS[colour], marker="o", markersize=4, label=label)
    for axis, unit in ((left, "milliseconds"), (right, "MB resident, without replay buffer")):
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlabel("connections of actor and critics")
        axis.set_ylabel(unit)
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")
    return figure


SPENT = {
    "seconds": ("seconds", "seconds of training, without evaluations"),
    "cpu": ("cpu_seconds", "CPU seconds of training, without evaluations"),
    "steps": ("step", "env steps"),
}
"""`bench return --x` -> what is drawn over, and what its axis says."""


def return_figure(record: Record) -> Figure:
    """Mean of three consecutive evaluations against what `bench return --x` says; a line is a run."""
    column, label_of_x = SPENT[record["x"]]
    figure, (axis,) = _panels(1)
    runs = record["runs"]
    styles = line_styles(map(_contender, runs))
    for label, style in styles.items():
        for number, run in enumerate(run for run in runs if _contender(run) == label):
            known = [one for one in run["evaluations"] if one["mean_of_three"] is not None]
            x, y = [one[column] for one in known], [one["mean_of_three"] for one in known]
            axis.plot(x, y, **style.of_line(len(x)), linewidth=1.2, label=f"_{label}" if number else label)
    for goal in dict.fromkeys(row["return"] for row in record["summary"]):
        axis.axhline(goal, color="black", linestyle=":", linewidth=1)
    if column != "step":
        axis.set_xscale("log", subs=[])
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter("{x:g}" if column != "step" else "{x:,.0f}")
    axis.set_xlabel(label_of_x)
    axis.set_ylabel("return, mean of three evaluations")
    axis.grid(alpha=0.3)
    _legend(figure, [axis])
    return figure


def _contender(run: Record) -> str:
    """Its name, and how sparse it is if that is a choice."""
    if run["contender"] not in OURS:
        return str(run["contender"])
    return f"{run['contender']} {run['density']:g}" + (f", pairs {_pairs(run)}" if _pairs(run) > 1 else "")


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    columns = min(2, count)
    lines = -(-count // columns)
    figure = Figure(figsize=(5 * columns + 1, 4 * lines + 1), layout="constrained")
    axes: list[Axes] = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axis in axes[count:]:
        axis.remove()
    return figure, axes[:count]


def _curve(
    axis: Axes, points: Sequence[tuple[float, Record]], colour: int, style: str, label: str, pairs: int = 1
) -> None:
    """Medians and quartiles at some x."""
    x, spreads = zip(*sorted(points, key=lambda point: point[0]), strict=True)
    paint, name = COLOURS[colour], label + (f", pairs {pairs}" if pairs > 1 else "")
    marker = PAIR_MARKERS[pairs]
    axis.plot(x, [s["median"] for s in spreads], color=paint, linestyle=style, marker=marker, markersize=4, label=name)
    axis.fill_between(x, [s["q25"] for s in spreads], [s["q75"] for s in spreads], color=paint, alpha=0.15, linewidth=0)


def _pairs(row: Record) -> int:
    """Neurons that share their inputs; records from before that was an option do not say it."""
    return int(row.get("pairs", 1))


def _pairs_of(rows: Sequence[Record]) -> list[int]:
    """The numbers that there are, in order; a dense layer has none of its own if others are there."""
    sparse = {_pairs(row) for row in rows if row["density"] < 1.0}
    return sorted(sparse or {_pairs(row) for row in rows})


def _mark_crossovers(axis: Axes, crossovers: Sequence[Record], colour: int) -> None:
    """A cross on the line of equal times, with its density beneath, for each that lies among the measured ones."""
    crossed = [row for row in crossovers if row["crossover"] is not None]
    for line, row in enumerate(crossed):
        at, paint = (row["crossover"], 1.0), COLOURS[colour]
        pairs = f", pairs {_pairs(row)}" if _pairs(row) > 1 else ""
        said, beneath = f"{row['text']} ({_threads(row['threads'])}{pairs})", (-6, -12 - 10 * line)
        axis.plot(*at, color=paint, marker="X", markersize=7, linestyle="none")
        axis.annotate(said, at, beneath, textcoords="offset points", ha="right", fontsize="small", color=paint)


def _logarithmic(axis: Axes, densities: Sequence[float]) -> None:
    """Plain numbers on both axes, and the measured densities as ticks."""
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xticks(densities, [f"{density:g}" for density in densities])
    axis.set_xticks([], minor=True)
    low, high = axis.get_ylim()
    ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if low <= tick <= high]
    axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_yticks([], minor=True)
    axis.grid(alpha=0.3)


def _legend(figure: Figure, panels: Sequence[Axes]) -> None:
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2 if len(panels) == 1 else 3, fontsize="small")


def _threads(number: int) -> str:
    return f"{number} thread{'s' if number > 1 else ''}"
