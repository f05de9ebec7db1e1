"""Topology snapshots of a run: which connections each sparse layer has at some moments, as safetensors files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

from sparserl.errors import CheckpointError
from sparserl.recording.run_folder import by_step, step_in, step_name
from sparserl.topology.structure import SparseTopology


def save_snapshot(folder: Path, step: int, layers: Mapping[str, SparseTopology]) -> None:
    """Writes the topologies of layers, by full name, as they are at a step; nothing if there is no layer.

    Args:
        folder: That of the snapshots of a run.
        step: Env or gradient step.
        layers: Topologies.
    """
    arrays = {}
    for name, topology in layers.items():
        arrays[name] = torch.from_numpy(topology.flat)
        arrays[f"{name}.shape"] = torch.tensor([topology.n_out, topology.n_in])
    if arrays:
        safetensors.torch.save_file(arrays, folder / f"{step_name(step)}.safetensors")


def snapshot_files(path: Path) -> list[Path]:
    """Topology snapshots of a run, oldest first; there may be none."""
    return by_step((path / "topology").glob("step-*.safetensors"))


def snapshot_step(file: Path) -> int:
    """Env step at which a snapshot was taken."""
    step = step_in(file)
    assert step is not None
    return step


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """The arrays of a snapshot; a CheckpointError names one that is not whole, as a run leaves that is killed."""
    try:
        with safe_open(file, "np") as tensors:
            yield tensors
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file} is damaged: {error}") from None


def snapshot_layers(file: Path) -> list[str]:
    """Full names of the layers of a snapshot."""
    with _opened(file) as tensors:
        return [name for name in tensors.keys() if not name.endswith(".shape")]  # noqa: SIM118  # not a mapping


def snapshot_topology(file: Path, layer: str) -> SparseTopology:
    """The topology of one of its layers."""
    with _opened(file) as tensors:
        n_out, n_in = tensors.get_tensor(f"{layer}.shape").tolist()
        return SparseTopology(n_out, n_in, tensors.get_tensor(layer))
