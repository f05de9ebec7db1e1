"""`bench return`: seconds until a policy passes a return, for each contender; one process a run, one file a result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sparserl.agents.action_bounds import check_action_bounds
from sparserl.bench.compared import OURS
from sparserl.bench.contenders import Entry, is_missing, ours, said_missing
from sparserl.bench.options import RETURN_SUMMARIES, Record, ReturnOptions
from sparserl.bench.return_run import Run, Task
from sparserl.bench.threads import CAN_BIND
from sparserl.config import plain
from sparserl.envs import make_env
from sparserl.errors import ConfigError, one_line
from sparserl.json_text import json_text
from sparserl.recording.run_lock import only_writer
from sparserl.text_files import read_json

SPENT = ("seconds", "cpu_seconds", "step")
"""What a summary says of reaching a return."""
AT_THE_END = {"seconds": "seconds", "cpu_seconds": "cpu_seconds", "step": "steps"}
"""The same of a whole run, by its name in the run's record."""


def measure_return(options: ReturnOptions) -> Record:
    """Runs what is not in the folder yet, one after another.

    Raises:
        ConfigError: If the env is unknown or not for continuous control, nothing that was asked for is installed, or
            the folder holds runs of other settings.
    """
    env = make_env(options.env)
    check_action_bounds(env.action_space)
    env.close()
    runs, notes = runs_of(options)
    for note in notes:
        print(note, flush=True)
    try:
        options.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot create {options.folder}: {error.strerror}") from None
    with only_writer(options.folder):
        records = {run: finished(options.folder, run) for run in runs}
        failed = []
        for number, run in enumerate(runs, start=1):
            title = f"run {number} of {len(runs)}, {run.title}"
            if records[run] is not None:
                print(f"{title}: is in {options.folder}", flush=True)
                continue
            print(title, flush=True)
            try:
                failure = train(run, options.folder, options.progress)
            except KeyboardInterrupt:
                done = sum(record is not None for record in records.values())
                raise KeyboardInterrupt(
                    f"interrupted; {done} of {len(runs)} runs are in {options.folder}, and the same command goes on"
                ) from None
            if failure:
                failed.append(f"{run.title}: {failure}")
                print(f"{failed[-1]}; no numbers", flush=True)
                continue
            record = records[run] = finished(options.folder, run)
            assert record is not None
            print(f"{title}: {outcome(record)}", flush=True)
    whole = [record for record in records.values() if record is not None]
    commits = {record["versions"]["commit"] for record in whole}
    if len(commits) > 1:
        notes.append(f"the runs are of {len(commits)} commits")
        print(notes[-1], flush=True)
    return {"notes": notes, "failed": failed, "x": options.x, "summary": summary(whole, options.returns), "runs": whole}


def runs_of(options: ReturnOptions) -> tuple[list[Run], list[str]]:
    """Every run, the first seed of all contenders first; and a line for each contender that cannot run here."""
    names = [name for name in RETURN_SUMMARIES if name in options.only]
    notes = [said_missing(name) for name in names if is_missing(name)]
    there = [name for name in names if not is_missing(name)]
    if not there:
        raise ConfigError(notes[0])
    if not CAN_BIND and any(name.startswith("sbx_") for name in there):
        notes.append("sbx: this platform cannot bind threads to CPUs, so JAX used as many as it liked")
    entries: list[Entry] = []
    for name in there:
        entries += ours(name, options.densities, options.pairs) if name in OURS else [Entry(name, 1.0)]
    return [Run(entry, seed, options.settings) for seed in options.seeds for entry in entries], notes


def finished(folder: Path, run: Run) -> Record | None:
    """The record of a run; None if it is not finished.

    Raises:
        ConfigError: If the file is of another run, or of one with other settings.
    """
    path = folder / run.file_name
    if not path.exists():
        return None
    record = read_json(path)
    if not isinstance(record, dict) or {name: record.get(name) for name in run.who} != run.who:
        raise ConfigError(f"{path} is no record of this run; remove it, or choose another --folder")
    wanted, settings = json.loads(json_text(plain(run.settings))), record.get("settings")
    for name, value in wanted.items():
        if not isinstance(settings, dict) or settings.get(name) != value:
            has = settings.get(name) if isinstance(settings, dict) else None
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(
                f"{path} is of a run with {flag} {_said(has)}, not {_said(value)}; choose another --folder"
            )
    return record


def _said(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def train(run: Run, folder: Path, say: bool) -> str:
    """Runs one run in a process of its own, which writes its record.

    Returns:
        Why there is none; empty if there is.
    """
    path = folder / run.file_name
    task = Task(run, path.absolute(), os.getpid(), time.time(), say)
    threads = str(run.settings.threads)
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "sparserl.bench.return_run", json_text(plain(task))],
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, "OMP_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads},
        start_new_session=True,  # Ctrl-C of a terminal reaches this process alone, which ends the other one
    )
    try:
        _, printed = process.communicate()
    finally:
        process.kill()
        process.wait()
    if process.returncode == 0 and path.exists():
        return ""
    if process.returncode < 0:
        return f"the process was killed by signal {-process.returncode}"
    lines = printed.strip().splitlines()
    return one_line(lines[-1]) if lines else f"exit status {process.returncode}"


def outcome(record: Record) -> str:
    """What became of a run, in a line."""
    parts = [
        f"{one['return']:g} after {one['seconds']:.0f} s"
        if one["seconds"] is not None
        else f"{one['return']:g} not in {record['seconds']:.0f} s and {record['steps']:,} steps"
        for one in record["reached"]
    ]
    best = record["best_mean_of_three"]
    return ", ".join(parts) + ("" if best is None else f" (best mean of three {best:.0f})")


def summary(records: Sequence[Record], returns: Sequence[float]) -> list[Record]:
    """Median, smallest and largest over the seeds of each contender, for each return.

    A run that did not get there counts as later than all that did, at no less than what it took in all.
    """
    rows = []
    for who in dict.fromkeys((record["contender"], record["density"], record["pairs"]) for record in records):
        group = [record for record in records if (record["contender"], record["density"], record["pairs"]) == who]
        for position, goal in enumerate(returns):
            reached = [record["reached"][position] for record in group]
            missed = [record for record, at in zip(group, reached, strict=True) if at["step"] is None]
            row: Record = {**dict(zip(("contender", "density", "pairs"), who, strict=True)), "return": goal}
            row |= {"runs": len(group), "reached": len(group) - len(missed)}
            row["best_of_others"] = [one["best_mean_of_three"] for one in missed]
            for what in SPENT:
                late = [record[AT_THE_END[what]] for record in missed]
                row[what] = extent([at[what] for at in reached if at[what] is not None], late)
            rows.append(row)
    return rows


def extent(reached: Sequence[float], missed: Sequence[float]) -> Mapping[str, Any]:
    """Median, smallest and largest of some numbers, of which others are only known to be larger.

    Args:
        reached: Numbers.
        missed: What the others are larger than; they count as larger than all of `reached`.

    Returns:
        `median`, `min`, `max`, and `above`: those of them that are larger than the number given.

    Example:
        >>> extent([3.0, 1.0], [5.0])
        {'median': 3.0, 'min': 1.0, 'max': 5.0, 'above': ['max']}
    """
    known = sorted(reached)
    values = known + [max([one, *known]) for one in sorted(missed)]
    middle = ((len(values) - 1) // 2, len(values) // 2)
    at = {"median": middle, "min": (0, 0), "max": (len(values) - 1, len(values) - 1)}
    halves: dict[str, Any] = {name: (values[low] + values[high]) / 2 for name, (low, high) in at.items()}
    return {**halves, "above": [name for name, (_, high) in at.items() if high >= len(known)]}
