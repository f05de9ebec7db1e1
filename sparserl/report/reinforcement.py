"""Continual runs of agents: performance, forgetting and forward transfer, with intervals over seeds."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from operator import itemgetter
from typing import Any

from sparserl.metrics.continual_rl import METRICS, RLSummary
from sparserl.report.cells import (
    Record,
    counted,
    estimate_cell,
    estimate_record,
    first_to_last_cell,
    listed,
    mean_cell,
    or_none,
    score_digits,
)
from sparserl.report.document import Chart, Interval, IntervalChart, Section, Table
from sparserl.report.folders import read_versions
from sparserl.report.mixed import ENV_PACKAGES, notes_on_mixtures
from sparserl.report.rl_run import POLICIES
from sparserl.report.runs import NORMALISED, RLComparison, RunGroup

OF_RATES = {
    "performance": "performance",
    "performance_iqm": "IQM",
    "forgetting": "forgetting",
    "forward_transfer": "forward transfer",
    "forward_transfer_difference": "AUC difference",
}
OF_RETURNS = {
    "performance": "performance",
    "performance_iqm": "IQM",
    "forgetting": "forgetting",
    "forward_transfer_difference": "forward transfer\n(AUC difference)",
}
COLUMNS = {"success": OF_RATES, NORMALISED: OF_RETURNS, "return": OF_RETURNS}
"""Headline measure -> metric -> head of its column. Of returns, which can exceed 1, transfer is the difference."""
MEASURES = {"success": "", "success_last": ", last step", NORMALISED: ", normalised", "return": ""}
"""Measure -> what is said of it beside the policy."""


# --- records ----------------------------------------------------------------------------------------


def rl_record(section: RLComparison, last: int, allow_mixed: bool) -> Record:
    """Groups and their reference as plain data that JSON holds.

    Args:
        section: What is compared.
        last: Evaluations that "at the end" averages.
        allow_mixed: Whether to compare different env versions all the same, and say so.

    Raises:
        ConfigError: If a run has fewer than `last` evaluations of a task in its own interval, or versions are mixed.
    """
    first, reference = section.first, section.reference
    runs = [(run.path, read_versions(run.path)) for group in section.groups for run in group.runs]
    mixed = notes_on_mixtures(runs, ENV_PACKAGES, allow_mixed)
    groups = [_group(section, group, last) for group in section.groups]
    return {
        "sequence": first.sequence,
        "algo": first.algo,
        "tasks": [asdict(task) | {"modification": json.loads(task.modification)} for task in section.tasks],
        "measure": section.measures[0],
        "reference": None if reference is None else {"label": reference.label, **_seeds(reference)},
        "groups": groups,
        "notes": [*_notes(section, groups), *section.settings, *mixed],
    }


def _seeds(group: RunGroup) -> Record:
    return {"seeds": group.seeds, "runs": [str(run.path) for run in group.runs]}


def _group(section: RLComparison, group: RunGroup, last: int) -> Record:
    return {
        "label": group.label,
        "method": group.first.method,
        "topology": group.first.topology,
        **_seeds(group),
        "wall_s": [run.result.get("wall_s") for run in group.runs],
        "params_nonzero_per_task": [run.result.get("params_nonzero_per_task") for run in group.runs],
        "connections": [asdict(run.connections) for run in group.runs],
        "summaries": [
            {"policy": policy, "measure": measure, **_summary(section.summary(group, measure, policy, last))}
            for measure in section.measures
            for policy in POLICIES
        ],
    }


def _summary(summary: RLSummary) -> Record:
    return {
        **{name: estimate_record(getattr(summary, name)) for name in METRICS},
        "per_task": {name: [or_none(value) for value in values.tolist()] for name, values in summary.per_task.items()},
        "undefined": summary.undefined,
    }


def _notes(section: RLComparison, groups: Sequence[Record]) -> list[str]:
    """What performance is, what it is compared with, and why a number or an interval is missing."""
    notes = [_what(section)]
    orders = {run.tasks for group in section.groups for run in group.runs}
    if len(orders) > 1:
        notes.append(
            "the order of the tasks depends on the seed: seeds are averaged over equal tasks, not equal positions"
        )
    rows = [(group["label"], _policy(one), one["undefined"]) for group in groups for one in group["summaries"]]
    missing: dict[tuple[str, str], list[str]] = defaultdict(list)
    for metric, head in COLUMNS[section.measures[0]].items():
        for name, what in ((metric, " ".join(head.split())), (f"{metric} interval", "interval")):
            for reason in dict.fromkeys(undefined[name] for *_, undefined in rows if name in undefined):
                of_reason = [row for row in rows if row[2].get(name) == reason]
                missing[reason, _where(of_reason, rows)].append(what)
    notes += [f"no {', '.join(dict.fromkeys(heads))}{where}: {reason}" for (reason, where), heads in missing.items()]
    return notes


def _where(rows_there: Sequence[tuple[Any, ...]], rows: Sequence[tuple[Any, ...]]) -> str:
    """Labels and policies of some rows of a table, where they are not those of all."""
    parts = []
    for column in (0, 1):
        names = dict.fromkeys(row[column] for row in rows_there)
        if len(names) < len({row[column] for row in rows}):
            parts.append("; ".join(names))
    return f" ({'; '.join(parts)})" if parts else ""


def _policy(summary: Record) -> str:
    return str(summary["policy"]) + MEASURES[summary["measure"]]


def _what(section: RLComparison) -> str:
    measured = {
        "success": "success rate, signalled at any step of an episode or at its last",
        NORMALISED: "mean return of an episode, and normalised",
        "return": "mean return of an episode",
    }[section.measures[0]]
    reference = section.reference
    if reference is None:
        return f"performance: {measured}; compared with nothing: {section.why_none}"
    density = ", ".join(f"{name} {share:.2f}" for name, share in reference.first.connections.density.items())
    against = f"{reference.label} (seeds {listed(reference.seeds)}; density of {density})"
    if section.measures[0] == NORMALISED:
        return f"performance: {measured}: 0 random actions, 1 {against} at the end of a task; AUCs against the same"
    return f"performance: {measured}, not normalised; AUCs against {against}"


# --- sections ---------------------------------------------------------------------------------------


def rl_sections(records: Sequence[Record]) -> list[Section]:
    """Records as tables, notes and charts; those of the same tasks and agent are one section."""
    return [_section(list(alike)) for _, alike in groupby(records, key=itemgetter("sequence", "algo", "tasks"))]


def _section(records: Sequence[Record]) -> Section:
    tables = [_metrics_table(record) for record in records]
    charts = [chart for record in records for chart in _charts(record)]
    first = records[0]
    return Section(f"{first['sequence']}, {first['algo']}", tables=[*tables, _cost_table(records)], charts=charts)


def _title(record: Record) -> str:
    length = " or ".join(f"{steps:,}" for steps in sorted({task["steps"] for task in record["tasks"]}))
    return f"{record['sequence']}, {record['algo']}: {len(record['tasks'])} tasks x {length} steps"


def _against(record: Record) -> str:
    return "" if record["reference"] is None else f", against {record['reference']['label']}"


def _metrics_table(record: Record) -> Table:
    heads = COLUMNS[record["measure"]]
    digits_of = _digits(record)
    rows: list[list[str]] = []
    for group in record["groups"]:
        rows.append([f"{group['label']} ({counted(group['seeds'])})", *[""] * len(heads)])
        for one in group["summaries"]:
            digits = digits_of[one["measure"]]
            rows.append([f"  {_policy(one)}", *(estimate_cell(one[metric], digits) for metric in heads)])
        rows.append([])
    title = _title(record) + _against(record)
    return Table(title, ["method", *heads.values()], rows[:-1], note="\n".join(record["notes"]))


def _digits(record: Record) -> dict[str, int]:
    """Measure -> decimals of its numbers, by the largest performance in it."""
    largest: dict[str, float] = defaultdict(float)
    for one in (one for group in record["groups"] for one in group["summaries"]):
        largest[one["measure"]] = max(largest[one["measure"]], abs(one["performance"]["value"] or 0.0))
    return {measure: score_digits(value) for measure, value in largest.items()}


def _cost_table(records: Sequence[Record]) -> Table:
    heads = ("density", "parameters after each task", "frozen", "free", "wall time (s)")
    groups = {group["label"]: group for record in records for group in record["groups"]}
    rows = [
        [
            f"{label} ({counted(group['seeds'])})",
            "\n".join(f"{name} {share:.2f}" for name, share in group["connections"][0]["density"].items()),
            first_to_last_cell(group["params_nonzero_per_task"]),
            *(mean_cell([one[name] for one in group["connections"]]) for name in ("frozen", "free")),
            mean_cell(group["wall_s"]),
        ]
        for label, group in groups.items()
    ]
    return Table("non-zero parameters, connections at the end, time: means over seeds", ["method", *heads], rows)


def _charts(record: Record) -> list[Chart]:
    """The headline summary of each group, one chart a metric."""
    charts = []
    for metric, head in COLUMNS[record["measure"]].items():
        known = [(group["label"], group["summaries"][0][metric]) for group in record["groups"]]
        rows = [
            Interval(label, one["value"], one["low"], one["high"]) for label, one in known if one["value"] is not None
        ]
        name = " ".join(head.split())
        if rows:
            policy = _policy(record["groups"][0]["summaries"][0])
            title = f"{name[0].upper()}{name[1:]}{_against(record)}"
            charts.append(Chart(title, IntervalChart(rows, name), f"{policy} policy"))
    return charts
