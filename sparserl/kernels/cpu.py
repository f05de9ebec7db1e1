"""Whole networks in one Numba call, for the CPU: the tables and the memory that the kernels work on.

Each thread's sums of gradients are added in order, so results depend on the number of threads and on nothing else,
except that a single sample that needs no way back takes a path of its own (`tiles.forward_one`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import torch

from sparserl.kernels import tables
from sparserl.kernels.index import CsrIndex, transpose
from sparserl.kernels.networks import Gradients, Linear, Networks, Sample, Wanted
from sparserl.kernels.tiles import (
    BIAS,
    COL,
    D_BIAS,
    D_VALUES,
    FIELDS,
    IN_ORDER,
    N_IN,
    N_OUT,
    ROW_PTR,
    SAMPLE,
    T_COL,
    T_ROW_PTR,
    T_SLOT,
    VALUES,
    backward_serial,
    backward_threads,
    forward_one,
    forward_serial,
    forward_threads,
)
from sparserl.kernels.updates import adam, average, average_and_trim
from sparserl.kernels.vector import LANES

PARALLEL_FROM = 1 << 20
"""Multiply-adds below which waking threads costs more than it gains."""
WIDE = 512
"""Neurons beyond which a tile of 48 samples no longer fits the caches nearest to a core, and 32 are taken."""

KEPT_FRAMES = 8
"""Kinds of passes (batch size, threads, whether kept) whose memory is kept for the next one."""


class _Frame:
    """Memory for passes of one batch size through one set of networks, and the addresses in it.

    Made of nothing but its arguments and the widths of the networks, so that networks of the same widths can share it
    whatever connections they have.

    Args:
        plan: Of the networks.
        batch: Samples of a pass.
        threads: Threads that a pass may take.
        keep: Whether the levels are kept for a way back.

    Attributes:
        tiles: (tiles, 2) first sample and width in vectors of each tile.
        workers: Threads that share the tiles.
        padded: Columns of all tiles together.
        memory: Of the kept levels, all tiles one after the other; of two tiles of the widest level for each worker.
        levels: (networks, layers) addresses of what each layer reads, if kept; else (workers, layers).
        scratch: (workers, 2) addresses of the tiles.
        last: (workers,) addresses for the output.
        nowhere: (workers,) of 0, for gradients that are not wanted.
    """

    def __init__(self, plan: Plan, batch: int, threads: int, keep: bool):
        self.tiles = tiles_of(batch, plan.widest, -(-threads // plan.count))
        self.workers = max(1, min(threads, plan.count * len(self.tiles)))
        self.batch, self.threads, self.keep = batch, threads, keep
        self.padded = int(self.tiles[:, 1].sum()) * LANES
        kept = plan.kept_neurons * self.padded if keep else 0
        tile = plan.widest * int(self.tiles[:, 1].max(initial=0)) * LANES
        self.memory = _aligned(kept + 2 * self.workers * tile, plan.limits.dtype)
        self.nowhere = np.zeros(self.workers, np.int64)
        start = self.memory.ctypes.data
        self.scratch = start + (kept + np.arange(2 * self.workers) * tile).reshape(-1, 2) * plan.size
        if keep:
            self.levels = start + plan.kept_before * (self.padded * plan.size)
            self.last = self.scratch[:, 0].copy()
        else:
            self.levels = np.ascontiguousarray(self.scratch[:, np.arange(plan.depth) % 2])
            self.last = self.scratch[:, plan.depth % 2].copy()

    def layout(self) -> list[Any]:
        """Sizes, and addresses from the beginning of the memory on."""
        start = self.memory.ctypes.data
        return [self.memory.size, self.tiles, self.scratch - start, self.levels - start, self.last - start]

    def level(self, plan: Plan, network: int, layer: int) -> torch.Tensor:
        """(neurons, B) what a layer read."""
        start = int(plan.kept_before[network, layer]) * self.padded
        neurons = plan.widths[layer]
        return self.from_tiles(torch.from_numpy(self.memory[start : start + neurons * self.padded]), neurons)

    def from_tiles(self, level: torch.Tensor, neurons: int) -> torch.Tensor:
        """(neurons, B) of a level that holds all tiles one after the other."""
        sizes = [int(vectors) * LANES * neurons for vectors in self.tiles[:, 1]]
        tiles = zip(torch.split(level, sizes), self.tiles[:, 1], strict=True)
        columns = [tile.view(neurons, -1) for tile, _ in tiles]
        return torch.cat([level.new_empty(neurons, 0), *columns], dim=1)[:, : self.batch]


def _aligned(count: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Memory that begins with a cache line; NumPy's, which asks for huge pages where it is large."""
    line = 64
    size = count * np.dtype(dtype).itemsize
    memory = np.empty(size + line, np.uint8)
    start = -memory.ctypes.data % line
    return memory[start : start + size].view(dtype)


class _Sums:
    """Gradients, summed by each thread on its own.

    Args:
        workers: Threads.
        sizes: Of the values and biases of all layers.
        dtype: Element type.

    Attributes:
        count: Sums of a thread.
        addresses: (workers,) of each thread's.
        totals: Those of the first thread, a view for each of the sizes.
    """

    def __init__(self, workers: int, sizes: list[int], dtype: torch.dtype):
        self.count = sum(sizes)
        memory = torch.empty(workers, self.count, dtype=dtype)
        self.addresses = memory.data_ptr() + np.arange(workers) * (self.count * memory.element_size())
        self.totals = torch.split(memory[0], sizes)


@lru_cache(maxsize=256)
def tiles_of(batch: int, widest: int, shares: int) -> npt.NDArray[np.int64]:
    """(tiles, 2) first sample and width in vectors of each tile; `shares` tiles or more where that is possible."""
    vectors = -(-batch // LANES)
    count = min(vectors, max(shares, -(-vectors // (2 if widest > WIDE else 3))))
    ends = vectors * np.arange(1, count + 1) // max(count, 1)
    widths = np.diff(ends, prepend=0)
    return np.stack([(ends - widths) * LANES, widths], axis=1)


class Plan:
    """What is derived once from networks: their table, and memory for their passes.

    Fresh pages cost more than a product, so the memory of a pass is used again when nothing refers to the pass any
    more, also by the networks that replace these after a topology event.
    """

    def __init__(self, networks: Networks):
        # Not `networks` itself: a cycle would keep the memory of replaced networks until the garbage collector comes.
        self.widths, self.dtype, self.nnz = networks.widths, networks.dtype, networks.nnz
        self.count, self.depth = len(networks.networks), len(networks.widths) - 1
        self.size = networks.dtype.itemsize
        self.widest = max(networks.widths)
        self.limits = torch.tensor([0.0, -torch.inf, torch.nan], dtype=networks.dtype).numpy()
        before = np.cumsum([0, *networks.widths[:-1]])
        self.kept_neurons = self.count * int(before[-1])
        self.kept_before = np.arange(self.count)[:, None] * before[-1] + before[:-1]
        self.gradient_sizes: list[int] = []
        self._layers = [
            ((network, position), layer)
            for network, layers in enumerate(networks.networks)
            for position, layer in enumerate(layers)
        ]
        for _, layer in self._layers:
            self.gradient_sizes += [layer.index.nnz, 0 if layer.bias is None else layer.bias.numel()]
        self.table = np.zeros((self.count, self.depth, FIELDS), np.int64)
        self._describe(self.table)
        self._in_order: torch.Tensor | None = None
        self._transposed_from = self.depth
        self._sums: _Sums | None = None
        self._free: dict[tuple[int, int, bool], list[_Frame]] = networks.memory

    def _describe(self, table: npt.NDArray[np.int64]) -> None:
        """Fills in what every pass needs."""
        starts = np.cumsum([0, *self.gradient_sizes])
        for place, (position, layer) in enumerate(self._layers):
            row = table[position]
            row[N_IN], row[N_OUT] = layer.index.n_cols, layer.index.n_rows
            row[ROW_PTR], row[COL] = layer.index.row_ptr.ctypes.data, layer.index.col.ctypes.data
            row[VALUES], row[BIAS] = layer.values.data_ptr(), layer.bias.data_ptr() if layer.bias is not None else 0
            row[D_VALUES], row[D_BIAS] = starts[2 * place : 2 * place + 2]

    def _describe_transposed(self, table: npt.NDArray[np.int64], lowest: int, below: int) -> None:
        """Fills in what describes the transposed matrices of the layers from `lowest` on and below `below`."""
        assert self._in_order is not None
        sizes = [layer.index.nnz for _, layer in self._layers]
        places = self._in_order.data_ptr() + np.cumsum([0, *sizes[:-1]]) * self.size
        table[:, :, IN_ORDER] = places.reshape(self.count, self.depth)
        for (network, position), layer in self._layers:
            if lowest <= position < below:
                transposed, slots = layer.index.transposed
                row = table[network, position]
                row[T_ROW_PTR], row[T_COL] = transposed.row_ptr.ctypes.data, transposed.col.ctypes.data
                row[T_SLOT] = slots.ctypes.data

    def transpose_from(self, lowest: int) -> None:
        """Describes the transposed matrices of the layers from `lowest` on; their values are put in order by a pass."""
        if self._transposed_from <= lowest:
            return
        if self._in_order is None:
            self._in_order = torch.empty(self.nnz, dtype=self.dtype)
        self._describe_transposed(self.table, lowest, self._transposed_from)
        self._transposed_from = lowest

    def check(self, frame: _Frame) -> None:
        """Checks the table, and that the frame is one for these networks; see `tables.check`."""
        fresh = type(frame)(self, frame.batch, frame.threads, frame.keep)
        tables.check("networks", [self.table, *frame.layout()], [self._present(), *fresh.layout()])

    def _present(self) -> npt.NDArray[np.int64]:
        """The table as it would be made now."""
        table = np.zeros_like(self.table)
        self._describe(table)
        if self._in_order is not None:
            self._describe_transposed(table, self._transposed_from, self.depth)
        return table

    def sums(self, workers: int, reuse: bool) -> _Sums:
        """Memory for sums of gradients; that of the last time that was to be used again, if `reuse`."""
        if not reuse:
            return _Sums(workers, self.gradient_sizes, self.dtype)
        if self._sums is None or len(self._sums.addresses) != workers:
            self._sums = _Sums(workers, self.gradient_sizes, self.dtype)
        return self._sums

    def take(self, batch: int, keep: bool) -> _Pass:
        """Memory for a pass, to be used until the returned object is gone."""
        # By the present number of connections: a resumed run must not differ from one that had more or fewer before.
        threads = torch.get_num_threads() if self.nnz * batch >= PARALLEL_FROM else 1
        free = self._free.setdefault((batch, threads, keep), [])
        if len(self._free) > KEPT_FRAMES:
            del self._free[next(iter(self._free))]
        return _Pass(free.pop() if free else _Frame(self, batch, threads, keep), free)


@dataclass
class _Pass:
    """A forward pass that may be followed by backward passes; gives its memory back at its end."""

    frame: _Frame
    free: list[_Frame]

    def __del__(self) -> None:
        if "frame" in vars(self):  # a compiler of torch's makes one without calling `__init__`
            self.free.append(self.frame)


def plan_of(networks: Networks) -> Plan:
    """The plan of these networks, made once."""
    plan: Plan | None = networks.prepared.get("cpu")
    if plan is None:
        plan = networks.prepared["cpu"] = Plan(networks)
    return plan


def forward(networks: Networks, x: torch.Tensor, *, keep: bool) -> tuple[torch.Tensor, object]:
    """Output of every network, and what `backward` needs if `keep`. See `sparserl.kernels.Backend`.

    Uses as many threads as `torch.get_num_threads()` says.
    """
    networks.check_input(x)
    plan, batch = plan_of(networks), x.shape[0]
    taken = plan.take(batch, keep)
    frame = taken.frame
    if tables.CHECKED:
        plan.check(frame)
    y = np.empty((plan.count, batch, networks.widths[-1]), plan.limits.dtype)
    rows = np.ascontiguousarray(x.detach().numpy())
    if batch == 1 and not keep:
        forward_one(plan.table, frame.scratch[0], rows[0], y[:, 0], plan.limits)
        return torch.from_numpy(y), None
    launch(
        frame.workers,
        (forward_serial, forward_threads),
        (
            plan.table,
            frame.tiles,
            frame.levels,
            int(keep),
            frame.last,
            rows,
            y,
            plan.limits,
            plan.size,
        ),
    )
    return torch.from_numpy(y), taken if keep else None


def backward(networks: Networks, saved: object, dy: torch.Tensor, wanted: Wanted) -> Gradients:
    """Gradients of every network. See `sparserl.kernels.Backend`."""
    assert isinstance(saved, _Pass)
    plan, frame = plan_of(networks), saved.frame
    networks.check_gradient(dy, frame.batch)
    ordered = 0 if wanted.inputs else wanted.lowest + 1
    plan.transpose_from(ordered)
    if tables.CHECKED:
        plan.check(frame)
    dx = np.empty((plan.count, frame.batch if wanted.inputs else 0, networks.widths[0]), plan.limits.dtype)
    sums = plan.sums(frame.workers, wanted.reuse) if wanted.parameters else None
    table, tapes = plan.table, []
    if wanted.samples:
        table = table.copy()
        for network, layer in wanted.samples:
            tapes.append(torch.empty(networks.widths[layer + 1] * frame.padded, dtype=networks.dtype))
            table[network, layer, SAMPLE] = tapes[-1].data_ptr()
    launch(
        frame.workers,
        (backward_serial, backward_threads),
        (
            ordered,
            frame.nowhere if sums is None else sums.addresses,
            0 if sums is None else sums.count,
            table,
            plan.limits,
            frame.tiles,
            frame.levels,
            frame.scratch,
            wanted.lowest,
            np.ascontiguousarray(dy.detach().numpy()),
            dx,
            plan.size,
        ),
    )
    samples = [
        Sample(network, layer, frame.level(plan, network, layer), frame.from_tiles(tape, networks.widths[layer + 1]))
        for (network, layer), tape in zip(wanted.samples, tapes, strict=True)
    ]
    toward = None
    if wanted.inputs:
        toward = torch.from_numpy(dx[0] if plan.count == 1 else dx.sum(axis=0))
    return Gradients(toward, None if sums is None else sums.totals, samples)


def launch(workers: int, kernels: tuple[Any, Any], arguments: tuple[Any, ...]) -> None:
    """Calls the first kernel for one worker, the second for several, with their number before the arguments."""
    serial, threads = kernels
    if workers == 1:
        serial(1, *arguments)
    else:
        numba.set_num_threads(min(workers, int(numba.config.NUMBA_NUM_THREADS)))  # type: ignore[attr-defined]  # set at run time
        threads(workers, *arguments)


def prepare(say: Callable[[str], object], dtype: torch.dtype = torch.float32) -> None:
    """Compiles what training needs, or loads what was compiled before on this machine.

    Args:
        say: Told before it takes long.
        dtype: Element type.
    """
    # The quickest to compile comes first: if it was not stored, nothing was.
    index = CsrIndex.full(1, 1)
    _ = index.transposed
    if transpose.stats.cache_misses:
        say("compiling the kernels for this CPU, once: 10 to 20 s")
    one = torch.ones(1, dtype=dtype)
    networks = Networks([[Linear(index, one, one)]])
    for batch in (1, 2):
        _, saved = forward(networks, torch.ones(batch, 1, dtype=dtype), keep=batch > 1)
    backward(networks, saved, torch.ones(1, 2, 1, dtype=dtype), Wanted())
    numbers, rows = one.repeat(6).numpy(), np.zeros((0, 5), np.int64)
    adam(rows, numbers)
    average(np.ascontiguousarray(rows[:, :3]), numbers[:2])
    average_and_trim(rows, numbers[:2])
