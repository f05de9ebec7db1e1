"""Groups of trained runs compared: aggregates with intervals, improvement, profiles, sample efficiency, cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sparserl.metrics import statistics
from sparserl.metrics.bootstrap import RESAMPLES
from sparserl.report.cells import (
    PREFIX,
    UNKNOWN,
    Record,
    counted,
    estimate_cell,
    estimate_record,
    mean_cell,
    or_none,
    score_digits,
)
from sparserl.report.dense_equivalent import HEAD, cell, dense_equivalents, is_shown, notes
from sparserl.report.document import (
    Chart,
    Interval,
    IntervalChart,
    Line,
    LineChart,
    Point,
    ScatterChart,
    Section,
    Table,
)
from sparserl.report.trained import MEASURES, Comparison, Group, last_10_counts
from sparserl.seeding import stream

MEASURE_HEADS = {"final": "final return", "last_10": "mean of the last {}", "area": "area under the curve"}
"""Measure -> head of its row; in braces, of how many evaluations it is."""
AGGREGATE_HEADS = {"mean": "mean", "median": "median", "iqm": "IQM", "optimality_gap": "optimality\ngap"}
"""Aggregate -> head of its column."""
COSTS = {
    "density": ("density", ".3f"),
    "params_nonzero": ("non-zero\nparameters", ",.0f"),
    "flops_train": ("FLOPs of\ntraining", PREFIX),
    "wall_s": ("wall time (s)", ",.0f"),
    "cpu_s": ("CPU time (s)", ",.0f"),
    "memory_peak_bytes": ("peak memory\n(bytes)", PREFIX),
    "energy_kwh": ("energy (kWh)", ".3g"),
}
"""Key of result.json -> head of its column and how its mean is written."""
SIZES = {"params_nonzero": "non-zero parameters", "flops_train": "FLOPs of training"}
"""Key of result.json that return is drawn against -> axis."""
THRESHOLDS = 101
ENOUGH_RUNS = 5
"""On one environment. With fewer runs a percentile interval covers less than its level."""
PICTURED = "final"
"""The measure of profiles and pictures."""


# --- records ----------------------------------------------------------------------------------------


def comparison_record(comparison: Comparison) -> Record:
    """A comparison as plain data that JSON holds."""
    thresholds = _thresholds(comparison.groups)
    measured = [group.measured() for group in comparison.groups]
    equivalents = [{}] * len(measured) if comparison.normalised else dense_equivalents(measured)
    groups = [_group(comparison, group, thresholds) for group in comparison.groups]
    return {
        "title": comparison.title,
        "envs": list(comparison.envs),
        "normalised": comparison.normalised,
        "baseline": None if comparison.baseline is None else comparison.baseline.label,
        "groups": [
            {**group, **({"dense_equivalent": one} if one else {})}
            for group, one in zip(groups, equivalents, strict=True)
        ],
        "shows_dense_equivalent": not comparison.normalised and is_shown(measured),
        "notes": list(comparison.notes),
    }


def _thresholds(groups: Sequence[Group]) -> list[float]:
    """From a little below the lowest score to a little above the highest: a profile falls from 1 to 0."""
    scores = [score for group in groups for score in group.scores(PICTURED).ravel()]
    low, high = min(scores, default=0.0), max(scores, default=0.0)
    margin = 0.02 * (high - low) or 1.0
    return [float(one) for one in np.linspace(low - margin, high + margin, THRESHOLDS)]


def _group(comparison: Comparison, group: Group, thresholds: Sequence[float]) -> Record:
    def rng(*what: str) -> np.random.Generator:
        return stream(0, "report", comparison.title, group.label, *what)

    functions = statistics.OF_TASKS if comparison.normalised else statistics.OF_ONE_TASK
    against = None if comparison.baseline is group else comparison.baseline
    measures = {}
    for measure in MEASURES:
        scores = group.scores(measure)
        estimates = statistics.aggregates(scores, functions, rng(measure))
        improved = None
        if against is not None:
            theirs = against.scores(measure)
            improved = estimate_record(
                statistics.probability_of_improvement(scores, theirs, rng(measure, "improvement"))
            )
        measures[measure] = {
            **({"evaluations": last_10_counts(group.each)} if measure == "last_10" else {}),
            "scores": scores.tolist(),
            **{name: estimate_record(one) for name, one in estimates.items()},
            "probability_of_improvement": improved,
        }
    steps, curves = group.curves()
    efficiency = statistics.sample_efficiency(curves, rng("sample efficiency")) if len(steps) else None
    profile = statistics.performance_profile(group.scores(PICTURED), thresholds, rng("profile"))
    return {
        "label": group.label,
        "seeds": group.seeds,
        "runs": [[str(run.path) for run in of_seed] for of_seed in group.runs],
        "measures": measures,
        "profile": _band("threshold", thresholds, profile),
        "sample_efficiency": None if efficiency is None else _band("global_step", steps.tolist(), efficiency),
        "cost": {key: group.of_results(key) for key in COSTS},
    }


def _band(axis: str, points: Sequence[float], band: statistics.Band) -> Record:
    return {
        axis: list(points),
        **{part: [or_none(value) for value in getattr(band, part).tolist()] for part in ("value", "low", "high")},
    }


# --- sections ---------------------------------------------------------------------------------------


def comparison_section(record: Record) -> Section:
    """A comparison as tables, notes and charts."""
    title = f"{record['title']}: return, evaluated without exploration noise"
    if not record["groups"]:
        return Section(record["title"], notes=record["notes"])
    tables = [_scores_table(record)]
    if not record["normalised"]:
        tables.append(_cost_table(record))
    return Section(title, [*_what(record), *record["notes"]], tables, _charts(record))


def _what(record: Record) -> list[str]:
    """What the numbers are, and why some are missing."""
    of_median = "over environments of means over seeds" if record["normalised"] else "over seeds"
    notes = [
        f"intervals: {statistics.LEVEL_PERCENT} % bootstrap over seeds, each environment by itself, {RESAMPLES:,} "
        f"resamples; median: {of_median}; IQM: mean of the middle half of all runs; area: mean return over env "
        "steps; the last evaluations are those after step 0"
    ]
    labels = {group["label"]: len(group["seeds"]) for group in record["groups"]}
    alone = [label for label, seeds in labels.items() if seeds < 2]
    few = [label for label, seeds in labels.items() if 2 <= seeds < ENOUGH_RUNS]
    if _has_rivals(record):
        notes.append(f"P(better): probability that a run beats one of the baseline, {record['baseline']}; ties half")
    if alone:
        where = f" ({'; '.join(alone)})" if len(alone) < len(labels) else ""
        notes.append(f"no interval{where}: one run")
    if record["baseline"] in alone and len(alone) < len(labels):
        notes.append("no interval of P(better): one run of the baseline")
    if few and not record["normalised"]:
        notes.append(
            f"fewer than {ENOUGH_RUNS} runs ({'; '.join(few)}): a bootstrap of so few is narrower than it says"
        )
    return notes


def _has_rivals(record: Record) -> bool:
    """Whether there is something to compare with the baseline."""
    return record["baseline"] is not None and len(record["groups"]) > 1


def _scores_table(record: Record) -> Table:
    first = record["groups"][0]["measures"][PICTURED]
    aggregates = [name for name in AGGREGATE_HEADS if name in first]
    heads = [AGGREGATE_HEADS[name] for name in aggregates]
    with_baseline = _has_rivals(record)
    if with_baseline:
        heads.append("P(better)")
    digits = _digits(record)
    rows: list[list[str]] = []
    for group in record["groups"]:
        rows.append([_named(group), *[""] * len(heads)])
        for measure, head in MEASURE_HEADS.items():
            one = group["measures"][measure]
            cells = [estimate_cell(one[name], digits) for name in aggregates]
            if with_baseline:
                improved = one["probability_of_improvement"]
                cells.append(UNKNOWN if improved is None else estimate_cell(improved, 2))
            rows.append([f"  {head.format(_range(one.get('evaluations', ())))}", *cells])
        rows.append([])
    return Table("", ["group", *heads], rows[:-1])


def _range(counts: Sequence[int]) -> str:
    """Of the fewest to the most."""
    return " to ".join(str(count) for count in dict.fromkeys(counts))


def _named(group: Record) -> str:
    return f"{group['label']} ({counted(group['seeds'])})"


def _digits(record: Record) -> int:
    return score_digits(max(abs(group["measures"][PICTURED]["mean"]["value"]) for group in record["groups"]))


def _cost_table(record: Record) -> Table:
    groups = record["groups"]
    known = [key for key in COSTS if any(value is not None for group in groups for value in group["cost"][key])]
    rows = [[_named(group), *(mean_cell(group["cost"][key], COSTS[key][1]) for key in known)] for group in groups]
    columns = ["group", *(COSTS[key][0] for key in known)]
    if not record["shows_dense_equivalent"]:
        return Table("cost: means over seeds", columns, rows)
    equivalents = [group["dense_equivalent"] for group in groups]
    rows = [[*row, cell(one)] for row, one in zip(rows, equivalents, strict=True)]
    said = notes([group["label"] for group in groups], equivalents)
    return Table("cost: means over seeds", [*columns, HEAD], rows, "\n".join(said))


# --- charts -----------------------------------------------------------------------------------------


def _charts(record: Record) -> list[Chart]:
    groups = record["groups"]
    unit = "normalised return" if record["normalised"] else "return"
    efficiency = [
        _line(group["label"], group["sample_efficiency"], "global_step")
        for group in groups
        if group["sample_efficiency"] is not None
    ]
    profiles = [_line(group["label"], group["profile"], "threshold") for group in groups]
    charts = [
        Chart(
            "Sample efficiency",
            LineChart(efficiency, "env steps", f"IQM of {unit}"),
            "Interquartile mean over runs at each evaluation.",
        ),
        Chart(
            "Performance profile",
            LineChart(profiles, f"final {unit}, threshold", "share of runs above"),
            "Share of runs whose final return is above a threshold.",
        ),
        Chart("Final return", IntervalChart([_interval(group, "iqm") for group in groups], f"IQM of {unit}")),
    ]
    improved = [group for group in groups if group["measures"][PICTURED]["probability_of_improvement"]]
    if improved:
        charts.append(
            Chart(
                f"Probability of improvement over {record['baseline']}",
                IntervalChart(
                    [_interval(group, "probability_of_improvement") for group in improved],
                    "P(better), final return",
                    mark=0.5,
                ),
                "At 0.5 neither is better.",
            )
        )
    return charts if record["normalised"] else [*charts, *_against_sizes(groups)]


def _against_sizes(groups: Sequence[Record]) -> list[Chart]:
    charts = []
    for key, axis in SIZES.items():
        points = [
            Point(group["label"], float(np.mean(group["cost"][key])), *_parts(group["measures"][PICTURED]["iqm"]))
            for group in groups
            if None not in group["cost"][key]
        ]
        if points:
            chart = ScatterChart(points, axis, "IQM of final return", log_x=True)
            charts.append(Chart(f"Return against {axis}", chart))
    return charts


def _interval(group: Record, name: str) -> Interval:
    return Interval(group["label"], *_parts(group["measures"][PICTURED][name]))


def _parts(estimate: Record) -> tuple[Any, Any, Any]:
    return estimate["value"], estimate["low"], estimate["high"]


def _line(label: str, band: Record, axis: str) -> Line:
    known = None not in band["low"]
    return Line(label, band[axis], band["value"], band["low"] if known else None, band["high"] if known else None)
