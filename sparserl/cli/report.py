"""`sparserl report`: performance, forgetting and forward transfer of continual RL runs, with intervals over seeds."""

from __future__ import annotations

import json
import math
import shlex
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table

from sparserl.cli.arguments import parse
from sparserl.continual.reinforcement.results import POLICIES, RunGroup, Section, read_run, sections
from sparserl.errors import ConfigError
from sparserl.metrics.bootstrap import LEVEL_PERCENT, RESAMPLES
from sparserl.metrics.continual_rl import METRICS, Estimate, RLSummary
from sparserl.records import write_atomically

Record = dict[str, Any]

COLUMNS = {
    "success": {
        "performance": "performance",
        "performance_iqm": "IQM",
        "forgetting": "forgetting",
        "forward_transfer": "forward transfer",
        "forward_transfer_difference": "AUC difference",
    },
    "return": {
        "performance": "performance",
        "performance_iqm": "IQM",
        "forgetting": "forgetting",
        "forward_transfer_difference": "forward transfer\n(AUC difference)",
    },
}
"""Headline measure -> metric -> head of its column. Of returns, which can exceed 1, transfer is the difference."""
MEASURES = {"success": "", "success_last": ", last step", "return": ""}
"""Measure -> what is said of it beside the policy."""
UNKNOWN = "-"
LABEL_WIDTH = 28


@dataclass(frozen=True)
class ReportCommand:
    """Compare continual RL runs: performance at the end, forgetting, and forward transfer against runs of --method
    scratch, with bootstrap intervals over seeds; returns are normalised by those runs. Runs that differ in the seed
    alone are one row."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of finished runs of continual RL."""
    last: int = 1
    """Evaluations, up to the end of a task or of the run, that "at the end" averages; Continual World takes 5."""
    json: Path | None = None
    """File to write everything to, values per task, run folders and seeds included."""


def run(arguments: Sequence[str]) -> int:
    """Runs `sparserl report`; returns the exit status."""
    command = parse(ReportCommand, arguments, command="report")
    if not command.runs:
        raise ConfigError("name at least one run folder")
    if command.last < 1:
        raise ConfigError(f"--last must be at least 1, got {command.last}")
    found = [_record(section, command.last) for section in sections([read_run(path) for path in command.runs])]
    console = Console(markup=False, highlight=False)  # labels may hold brackets
    for _, records in groupby(found, key=itemgetter("sequence", "algo", "tasks")):
        alike = list(records)
        for record in alike:
            _print(console, _metrics_table(record))
            for note in record["notes"]:
                console.print(note, soft_wrap=True)
            console.print()
        _print(console, _cost_table(alike))
    if command.json is not None:
        whole = {
            "command": shlex.join(["sparserl", "report", *arguments]),
            "last": command.last,
            "resamples": RESAMPLES,
            "level_percent": LEVEL_PERCENT,
            "sections": found,
        }
        try:
            write_atomically(command.json, json.dumps(whole, indent=1, allow_nan=False) + "\n")
        except OSError as error:
            raise ConfigError(f"cannot write {command.json}: {error.strerror}") from None
        print(f"wrote {command.json}")
    return 0


# --- records ----------------------------------------------------------------------------------------


def _record(section: Section, last: int) -> Record:
    """A section as plain data that JSON holds."""
    first, reference = section.first, section.reference
    groups = [_group(section, group, last) for group in section.groups]
    return {
        "sequence": first.sequence,
        "algo": first.algo,
        "tasks": [asdict(task) | {"modification": json.loads(task.modification)} for task in section.tasks],
        "measure": section.measures[0],
        "reference": None if reference is None else {"label": reference.label, **_seeds(reference)},
        "groups": groups,
        "notes": _notes(section, groups),
    }


def _seeds(group: RunGroup) -> Record:
    return {"seeds": group.seeds, "runs": [str(run.path) for run in group.runs]}


def _group(section: Section, group: RunGroup, last: int) -> Record:
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


def _summary(found: RLSummary) -> Record:
    estimates: dict[str, Estimate] = {name: getattr(found, name) for name in METRICS}
    return {
        **{name: {part: _or_none(value) for part, value in asdict(one).items()} for name, one in estimates.items()},
        "per_task": {name: [_or_none(value) for value in values.tolist()] for name, values in found.per_task.items()},
        "undefined": found.undefined,
    }


def _or_none(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else value


def _notes(section: Section, groups: Sequence[Record]) -> list[str]:
    """What performance is, what it is compared with, and why a number or an interval is missing."""
    notes = [_what(section)]
    orders = {run.tasks for group in section.groups for run in group.runs}
    if len(orders) > 1:
        notes.append(
            "the order of the tasks depends on the seed: seeds are averaged over equal tasks, not equal places"
        )
    rows = [(group["label"], _policy(one), one["undefined"]) for group in groups for one in group["summaries"]]
    missing: dict[tuple[str, str], list[str]] = defaultdict(list)
    for metric, head in COLUMNS[section.measures[0]].items():
        for name, what in ((metric, " ".join(head.split())), (f"{metric} interval", "interval")):
            for reason in dict.fromkeys(undefined[name] for *_, undefined in rows if name in undefined):
                found = [row for row in rows if row[2].get(name) == reason]
                missing[reason, _where(found, rows)].append(what)
    notes += [f"no {', '.join(dict.fromkeys(heads))}{where}: {reason}" for (reason, where), heads in missing.items()]
    return notes


def _where(found: Sequence[tuple[Any, ...]], rows: Sequence[tuple[Any, ...]]) -> str:
    """Labels and policies of some rows of a table, where they are not those of all."""
    parts = []
    for column in (0, 1):
        names = dict.fromkeys(row[column] for row in found)
        if len(names) < len({row[column] for row in rows}):
            parts.append("; ".join(names))
    return f" ({'; '.join(parts)})" if parts else ""


def _policy(summary: Record) -> str:
    return str(summary["policy"]) + MEASURES[summary["measure"]]


def _what(section: Section) -> str:
    measured = {
        "success": "success rate, signalled at any step of an episode or at its last",
        "return": "mean return of an episode",
    }[section.measures[0]]
    reference = section.reference
    if reference is None:
        return f"performance: {measured}; compared with nothing: {section.why_none}"
    density = ", ".join(f"{name} {share:.2f}" for name, share in reference.first.connections.density.items())
    against = f"{reference.label} (seeds {_listed(reference.seeds)}; density of {density})"
    if section.measures[0] == "return":
        return (
            f"performance: {measured}, 0 as random actions, 1 as {against} at the end of a task; AUCs against the same"
        )
    return f"performance: {measured}, not normalised; AUCs against {against}"


# --- tables -----------------------------------------------------------------------------------------


def _metrics_table(record: Record) -> Table:
    length = " or ".join(f"{steps:,}" for steps in sorted({task["steps"] for task in record["tasks"]}))
    title = f"{record['sequence']}, {record['algo']}: {len(record['tasks'])} tasks x {length} steps"
    if record["reference"] is not None:
        title += f", against {record['reference']['label']}"
    heads = COLUMNS[record["measure"]]
    table = _table(title, ["method", *heads.values()])
    digits = 1 if record["measure"] == "return" and record["reference"] is None else 2
    for group in record["groups"]:
        table.add_row(f"{group['label']} ({_counted(group['seeds'])})")
        for one in group["summaries"]:
            table.add_row(Padding(_policy(one), (0, 0, 0, 2)), *(_estimate(one[metric], digits) for metric in heads))
        table.add_section()
    return table


def _cost_table(records: Sequence[Record]) -> Table:
    heads = ("density", "parameters after each task", "frozen", "free", "wall time (s)")
    table = _table("non-zero parameters, connections at the end, time: means over seeds", ["method", *heads])
    groups = {group["label"]: group for record in records for group in record["groups"]}
    for label, group in groups.items():
        table.add_row(
            f"{label} ({_counted(group['seeds'])})",
            "\n".join(f"{name} {share:.2f}" for name, share in group["connections"][0]["density"].items()),
            _per_task(group["params_nonzero_per_task"]),
            *(_mean([one[name] for one in group["connections"]]) for name in ("frozen", "free")),
            _mean(group["wall_s"]),
        )
    return table


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
    name, *numbers = columns
    table.add_column(name, max_width=LABEL_WIDTH)
    for column in numbers:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _print(console: Console, table: Table) -> None:
    """In full, even where that is wider than the terminal: half a number is none."""
    unlimited = console.options.update(max_width=1000)
    console.width = max(console.width, Measurement.get(console, unlimited, table).maximum)
    console.print(table)


def _counted(seeds: Sequence[int]) -> str:
    return f"{len(seeds)} seed" + "s" * (len(seeds) > 1)


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


def _estimate(one: Record, digits: int) -> str:
    if one["value"] is None:
        return UNKNOWN
    value = f"{one['value']:z.{digits}f}"
    return value if one["low"] is None else f"{value}\n[{one['low']:z.{digits}f}, {one['high']:z.{digits}f}]"


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{np.mean(known):,.0f}" if len(known) == len(values) else UNKNOWN


def _per_task(seeds: Sequence[Sequence[float] | None]) -> str:
    """After the first and after the last task."""
    known = [one for one in seeds if one]
    if len(known) < len(seeds):
        return UNKNOWN
    first, last = (_mean([one[place] for one in known]) for place in (0, -1))
    return first if first == last else f"{first} .. {last}"
