"""The replay buffer on disk: immutable files of transitions, each written once and named in the checkpoints.

A checkpoint adds only the transitions since the last one, so its cost does not grow with the buffer; and nothing that
an older checkpoint needs is overwritten when the buffer wraps. Transitions that the buffer has forgotten are not kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from stable_baselines3.common.buffers import ReplayBuffer

from sparserl.agents.replay.buffer import AdaptiveReplayBuffer
from sparserl.errors import CheckpointError
from sparserl.recording import checkpoint

ARRAYS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


class ReplayLog:
    """Writes and reads the transitions of one buffer.

    Args:
        folder: Where the files lie.
        buffer: The buffer; transition number n (from 0) lies at `n % buffer_size`.
    """

    def __init__(self, folder: Path, buffer: ReplayBuffer):
        if type(buffer) not in (ReplayBuffer, AdaptiveReplayBuffer):
            raise CheckpointError(f"cannot store a {type(buffer).__name__} exactly; use the plain ReplayBuffer")
        self.folder, self.buffer = folder, buffer
        self._adaptive = buffer if isinstance(buffer, AdaptiveReplayBuffer) else None
        self._arrays = ARRAYS if self._adaptive is None else (*ARRAYS, *self._adaptive.own_arrays)
        self.parts: list[dict[str, Any]] = []
        self._emptied_at = 0

    def append(self, added: int, emptied_at: int = 0) -> list[dict[str, Any]]:
        """Writes what came since the last call.

        Args:
            added: Transitions (per env) that the buffer has been given since it was last emptied.
            emptied_at: Env step at which it was; tells its files from earlier ones.

        Returns:
            The files that hold the present content, oldest first: name, first and past-the-last transition, SHA-256.

        Raises:
            CheckpointError: If `added` does not agree with the buffer's position.
        """
        if added % self.buffer.buffer_size != self.buffer.pos:
            raise CheckpointError(f"the buffer is at {self.buffer.pos}, which {added} transitions cannot give")
        if emptied_at != self._emptied_at:
            self.parts, self._emptied_at = [], emptied_at
        oldest = added - self.buffer.size()
        start = max(oldest, self.parts[-1]["stop"] if self.parts else 0)
        if start < added:
            where = np.arange(start, added) % self.buffer.buffer_size
            self.folder.mkdir(exist_ok=True)
            path = self.folder / f"{emptied_at:09d}-{start:09d}-{added:09d}.safetensors"
            arrays = {name: torch.from_numpy(getattr(self.buffer, name)[where]) for name in self._arrays}
            safetensors.torch.save_file(arrays, path)
            checkpoint.flush(path)
            part = {"name": path.name, "start": start, "stop": added, "sha256": checkpoint.sha256(path)}
            self.parts = [*self.parts, part]
        self.parts = [part for part in self.parts if part["stop"] > oldest]
        return self.parts

    def buffer_state(self) -> dict[str, Any] | None:
        """What a checkpoint holds of the buffer beside its transitions; the plain one has nothing else."""
        return None if self._adaptive is None else self._adaptive.state_dict()

    def restore(
        self,
        parts: Sequence[dict[str, Any]],
        added: int,
        buffer_state: Mapping[str, Any] | None = None,
        *,
        emptied_at: int = 0,
    ) -> None:
        """Fills the buffer from files of `append`, after checking each.

        Args:
            parts: As `append` gave them.
            added: Likewise.
            buffer_state: Taken with them.
            emptied_at: As `append` took it.

        Raises:
            CheckpointError: If a file is missing or was edited, or they belong to a buffer with other options.
        """
        if (buffer_state is None) != (self._adaptive is None):
            raise CheckpointError("the checkpoint's replay buffer has other options than this one")
        self._check_parts(parts, added)
        for part in parts:
            arrays = self._read(part)
            where = np.arange(part["start"], part["stop"]) % self.buffer.buffer_size
            for name, array in arrays.items():
                getattr(self.buffer, name)[where] = array.numpy()
        self.parts, self._emptied_at = list(parts), emptied_at
        self.buffer.pos = added % self.buffer.buffer_size
        self.buffer.full = added >= self.buffer.buffer_size
        if self._adaptive is not None and buffer_state is not None:
            self._adaptive.load_state_dict(buffer_state)

    def _check_parts(self, parts: Sequence[dict[str, Any]], added: int) -> None:
        """Raises CheckpointError unless files follow each other and hold all that the buffer has."""
        starts, ends = [part["start"] for part in parts], [part["stop"] for part in parts]
        # A buffer of dynamic capacity may have forgotten more than its size asks for.
        oldest = added - (min(added, self.buffer.buffer_size) if self._adaptive is None else 0)
        follows = starts[1:] == ends[:-1] and all(start < stop for start, stop in zip(starts, ends, strict=True))
        first, last = (starts[0], ends[-1]) if parts else (0, 0)
        if not follows or last != added or not 0 <= first <= oldest:
            raise CheckpointError("the checkpoint's replay files do not hold what its buffer held")

    def _read(self, part: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """The arrays of a file, which fit the buffer."""
        path = self.folder / part["name"]
        checkpoint.check_file(path, part["sha256"])
        arrays = checkpoint.read_tensors(path)
        for name in self._arrays:
            stored: np.ndarray = getattr(self.buffer, name)
            expected = (part["stop"] - part["start"], *stored.shape[1:])
            if name not in arrays or arrays[name].shape != expected or arrays[name].numpy().dtype != stored.dtype:
                raise CheckpointError(f"{path} holds no {name!r} of this run's replay buffer")
        return {name: arrays[name] for name in self._arrays}

    def remove_except(self, parts: Sequence[dict[str, Any]]) -> None:
        """Deletes files that no kept checkpoint names."""
        kept = {part["name"] for part in parts}
        for path in self.folder.glob("*.safetensors"):
            if path.name not in kept:
                path.unlink()
