"""Reads the local file of an offline W&B run, without W&B's own reader and without a network."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK = 32 * 1024
HEADER = struct.Struct("<IHB")
PREAMBLE = 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def payloads(path: Path) -> Iterator[bytes]:
    """Messages of the log: LevelDB's framing, in which one that crosses a block boundary comes in pieces."""
    data = path.read_bytes()
    if not data:
        return
    assert data.startswith(b":W&B")
    at, pieces = PREAMBLE, b""
    while at + HEADER.size <= len(data):
        left_in_block = BLOCK - at % BLOCK
        if left_in_block < HEADER.size:
            at += left_in_block
            continue
        _, length, kind = HEADER.unpack_from(data, at)
        if kind == 0 and length == 0:
            return
        at += HEADER.size
        piece, at = data[at : at + length], at + length
        pieces = piece if kind in (FULL, FIRST) else pieces + piece
        if kind in (FULL, LAST):
            yield pieces


def records(path: Path) -> Iterator[Any]:
    """Records of the run."""
    from wandb.proto import wandb_internal_pb2

    for payload in payloads(path):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(payload)
        yield record


def offline_runs(folder: Path) -> list[Path]:
    """Local files of the finished offline runs below a run folder, oldest first.

    W&B writes the file in a process of its own, which may be behind; this waits for the record that ends it.
    """
    found = sorted(folder.glob("wandb/offline-run-*/run-*.wandb"), key=lambda path: path.stat().st_ctime_ns)
    deadline = time.monotonic() + 60
    for path in found:
        while not _has_ended(path):
            assert time.monotonic() < deadline, f"{path} has no end"
            time.sleep(0.05)
    return found


def _has_ended(path: Path) -> bool:
    """Whether the record that ends a run is there; one that is half written cannot be read yet."""
    from google.protobuf.message import DecodeError

    try:
        return any(record.WhichOneof("record_type") == "exit" for record in records(path))
    except DecodeError:
        return False


def history(path: Path) -> list[dict[str, Any]]:
    """What was logged, a dict for each call."""
    found = []
    for record in records(path):
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            found.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
    return found


def summary(path: Path) -> dict[str, Any]:
    """Values of the run's summary, as updated last."""
    values: dict[str, Any] = {}
    for record in records(path):
        if record.WhichOneof("record_type") == "summary":
            for item in record.summary.update:
                values[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
    return values


def config(path: Path) -> dict[str, Any]:
    """The run's config."""
    (run,) = (record.run for record in records(path) if record.WhichOneof("record_type") == "run")
    return {item.key: json.loads(item.value_json) for item in run.config.update}


def group(path: Path) -> str:
    """The run's group."""
    (run,) = (record.run for record in records(path) if record.WhichOneof("record_type") == "run")
    return str(run.run_group)


def artifacts(path: Path) -> list[Any]:
    """Artifacts of the run."""
    return [record.artifact for record in records(path) if record.WhichOneof("record_type") == "artifact"]


def metrics(path: Path) -> dict[str, str]:
    """Metric (or glob) -> its x axis."""
    found = [record.metric for record in records(path) if record.WhichOneof("record_type") == "metric"]
    return {metric.name or metric.glob_name: metric.step_metric for metric in found}
