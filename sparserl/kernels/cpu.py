"""Whole networks in one Numba call, for the CPU.

The batch is cut into tiles of 16, 32 or 48 samples; a tile goes through all layers before the next one starts, so that
its activations stay in the cache. Inside a tile activations are feature-major and contiguous: one connection is one
axpy (or one inner product) over the samples of the tile. A tile that the batch does not fill is padded with columns
that hold 0 at every level, so that they add nothing to any sum, whatever is infinite elsewhere.

Networks and tiles are dealt to threads in turn. Each thread sums gradients of its own, and those sums are added in
order, so results depend on the number of threads and on nothing else, except that a single sample that needs no way
back takes a path of its own (`_forward_one`). The first call for a dtype compiles (seconds) and stores the machine code
beside this file or in Numba's cache folder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import torch

from sparserl.kernels.index import CsrIndex, transpose
from sparserl.kernels.networks import Gradients, Linear, Networks, Sample, Wanted
from sparserl.kernels.updates import adam, average, average_and_trim
from sparserl.kernels.vector import (
    LANES,
    gradient_tile,
    read_int64,
    read_real,
    read_uint32,
    row_tile,
    row_total,
    write_real,
)

PARALLEL_FROM = 1 << 20
"""Multiply-adds below which waking threads costs more than it gains."""
WIDE = 512
"""Neurons beyond which a tile of 48 samples no longer fits the caches nearest to a core, and 32 are taken."""

KEPT_FRAMES = 8
"""Batch sizes whose memory is kept for the next pass."""

N_IN, N_OUT, ROW_PTR, COL, VALUES, BIAS, T_ROW_PTR, T_COL, T_SLOT, IN_ORDER, D_VALUES, D_BIAS, SAMPLE = range(13)
"""Columns of the table that describes networks to the kernels: sizes and addresses (0: none) of each layer.

`IN_ORDER` holds the values in the order of the transposed index, `SAMPLE` gets the output's gradient. `D_VALUES` and
`D_BIAS` are places in a thread's array of gradients, counted in floats.
"""
FIELDS = 13

_row_1, _row_2, _row_3 = (row_tile(vectors, gated=False) for vectors in (1, 2, 3))
_gated_1, _gated_2, _gated_3 = (row_tile(vectors, gated=True) for vectors in (1, 2, 3))
_total_1, _total_2, _total_3 = (row_total(vectors) for vectors in (1, 2, 3))
_one_1, _one_2, _one_3 = (gradient_tile(1, vectors) for vectors in (1, 2, 3))
_four_1, _four_2, _four_3 = (gradient_tile(4, vectors) for vectors in (1, 2, 3))
_sixteen_1, _sixteen_2, _sixteen_3 = (gradient_tile(16, vectors) for vectors in (1, 2, 3))


@numba.njit(cache=True, nogil=True)
def tile_product(vectors: int, layer: Any, x: int, out: int, threshold: Any, zero: Any, size: int) -> None:
    """One tile of `W x + b`, no entry below `threshold`; `x` and `out` are addresses."""
    values, col, row_ptr, biases = layer[VALUES], layer[COL], layer[ROW_PTR], layer[BIAS]
    bias = zero
    stop = read_int64(row_ptr, 0)
    for row in range(layer[N_OUT]):
        start, stop = stop, read_int64(row_ptr, row + 1)
        if biases != 0:
            bias = read_real(biases, row, zero)
        to = out + row * vectors * LANES * size
        if vectors == 3:
            _row_3(values, col, start, stop, bias, x, to, threshold)
        elif vectors == 2:
            _row_2(values, col, start, stop, bias, x, to, threshold)
        else:
            _row_1(values, col, start, stop, bias, x, to, threshold)


@numba.njit(cache=True, nogil=True)
def tile_input_gradient(
    vectors: int, layer: Any, dy: int, out: int, gates: int, threshold: Any, zero: Any, size: int
) -> None:
    """One tile of `W^T dy`, 0 where the gate does not exceed `threshold`."""
    values, col, row_ptr = layer[IN_ORDER], layer[T_COL], layer[T_ROW_PTR]
    stop = read_int64(row_ptr, 0)
    for row in range(layer[N_IN]):
        start, stop = stop, read_int64(row_ptr, row + 1)
        offset = row * vectors * LANES * size
        if vectors == 3:
            _gated_3(values, col, start, stop, zero, dy, out + offset, threshold, gates + offset)
        elif vectors == 2:
            _gated_2(values, col, start, stop, zero, dy, out + offset, threshold, gates + offset)
        else:
            _gated_1(values, col, start, stop, zero, dy, out + offset, threshold, gates + offset)


@numba.njit(cache=True, nogil=True)
def tile_parameter_gradients(vectors: int, layer: Any, x: int, dy: int, gradients: int, zero: Any, size: int) -> None:
    """Adds what one tile contributes to the gradients by values and biases."""
    col, row_ptr = layer[COL], layer[ROW_PTR]
    out, biases = gradients + layer[D_VALUES] * size, gradients + layer[D_BIAS] * size
    slot = read_int64(row_ptr, 0)
    for row in range(layer[N_OUT]):
        stop = read_int64(row_ptr, row + 1)
        from_row = dy + row * vectors * LANES * size
        while slot + 16 <= stop:
            if vectors == 3:
                _sixteen_3(col, slot, x, from_row, out, zero)
            elif vectors == 2:
                _sixteen_2(col, slot, x, from_row, out, zero)
            else:
                _sixteen_1(col, slot, x, from_row, out, zero)
            slot += 16
        while slot + 4 <= stop:
            if vectors == 3:
                _four_3(col, slot, x, from_row, out, zero)
            elif vectors == 2:
                _four_2(col, slot, x, from_row, out, zero)
            else:
                _four_1(col, slot, x, from_row, out, zero)
            slot += 4
        while slot < stop:
            if vectors == 3:
                _one_3(col, slot, x, from_row, out, zero)
            elif vectors == 2:
                _one_2(col, slot, x, from_row, out, zero)
            else:
                _one_1(col, slot, x, from_row, out, zero)
            slot += 1
        if layer[BIAS] != 0:
            if vectors == 3:
                total = _total_3(from_row, zero)
            elif vectors == 2:
                total = _total_2(from_row, zero)
            else:
                total = _total_1(from_row, zero)
            write_real(biases, row, read_real(biases, row, zero) + total, zero)


@numba.njit(cache=True, nogil=True)
def _read_tile(rows: Any, first: int, columns: int, out: int, zero: Any) -> None:
    """Transposes `rows[first:first + columns]` into a tile; what lies past the end is padding."""
    inside = min(columns, rows.shape[0] - first)
    for neuron in range(rows.shape[1]):
        for column in range(inside):
            write_real(out, neuron * columns + column, rows[first + column, neuron], zero)
        for column in range(inside, columns):
            write_real(out, neuron * columns + column, zero, zero)


@numba.njit(cache=True, nogil=True)
def _write_tile(tile: int, first: int, columns: int, rows: Any, zero: Any) -> None:
    """Transposes a tile back into rows."""
    for column in range(min(columns, rows.shape[0] - first)):
        for neuron in range(rows.shape[1]):
            rows[first + column, neuron] = read_real(tile, neuron * columns + column, zero)


@numba.njit(cache=True, nogil=True)
def _clear_padding(tile: int, neurons: int, inside: int, columns: int, zero: Any) -> None:
    for neuron in range(neurons):
        for column in range(inside, columns):
            write_real(tile, neuron * columns + column, zero, zero)


@numba.njit(cache=True, nogil=True)
def _forward_tile(
    table: Any, first: int, vectors: int, levels: Any, kept: int, last: int, x: Any, y: Any, limits: Any, size: int
) -> None:
    """Takes one tile through one network.

    Args:
        table: (layers, FIELDS) of the network.
        first: First sample of the tile.
        vectors: Width of the tile.
        levels: (layers,) address of the activations that each layer reads.
        kept: 1 if a level holds all tiles one after the other, 0 if each replaces the one before.
        last: Address for a tile of the output.
        x: (B, n_in) input.
        y: (B, n_out) output.
        limits: (0, -inf, NaN) of the element type.
        size: Bytes of an element.
    """
    columns, depth, zero = vectors * LANES, table.shape[0], limits[0]
    place = kept * first * size
    _read_tile(x, first, columns, levels[0] + table[0, N_IN] * place, zero)
    for layer in range(depth):
        is_last = layer + 1 == depth
        out = last if is_last else levels[layer + 1] + table[layer, N_OUT] * place
        threshold = limits[1] if is_last else zero
        tile_product(vectors, table[layer], levels[layer] + table[layer, N_IN] * place, out, threshold, zero, size)
        if first + columns > x.shape[0]:
            _clear_padding(out, table[layer, N_OUT], x.shape[0] - first, columns, zero)
    _write_tile(last, first, columns, y, zero)


@numba.njit(cache=True, nogil=True)
def _forward_one(table: Any, scratch: Any, x: Any, y: Any, limits: Any) -> None:
    """Takes a single sample through all networks: a tile of it would be mostly padding.

    Args:
        table: (networks, layers, FIELDS).
        scratch: (2,) addresses, each for the widest level.
        x: (n_in,) input.
        y: (networks, n_out) output.
        limits: (0, -inf, NaN) of the element type.
    """
    zero, depth = limits[0], table.shape[1]
    for network in range(table.shape[0]):
        here, there = scratch[0], scratch[1]
        for neuron in range(x.size):
            write_real(here, neuron, x[neuron], zero)
        for position in range(depth):
            layer = table[network, position]
            values, col, row_ptr, biases = layer[VALUES], layer[COL], layer[ROW_PTR], layer[BIAS]
            slot = read_int64(row_ptr, 0)
            for row in range(layer[N_OUT]):
                stop = read_int64(row_ptr, row + 1)
                a = read_real(biases, row, zero) if biases != 0 else zero
                b, c, d = zero, zero, zero  # four sums, because each waits for its last addition
                while slot + 4 <= stop:
                    a += read_real(values, slot, zero) * read_real(here, read_uint32(col, slot), zero)
                    b += read_real(values, slot + 1, zero) * read_real(here, read_uint32(col, slot + 1), zero)
                    c += read_real(values, slot + 2, zero) * read_real(here, read_uint32(col, slot + 2), zero)
                    d += read_real(values, slot + 3, zero) * read_real(here, read_uint32(col, slot + 3), zero)
                    slot += 4
                while slot < stop:
                    a += read_real(values, slot, zero) * read_real(here, read_uint32(col, slot), zero)
                    slot += 1
                total = (a + b) + (c + d)
                if position + 1 == depth:
                    y[network, row] = total
                else:
                    write_real(there, row, zero if total < zero else total, zero)
            here, there = there, here


@numba.njit(cache=True, nogil=True)
def _backward_tile(
    table: Any,
    first: int,
    vectors: int,
    levels: Any,
    scratch: Any,
    lowest: int,
    gradients: int,
    dy: Any,
    dx: Any,
    limits: Any,
    size: int,
) -> None:
    """Takes the gradient of one tile back through one network.

    Args:
        table: (layers, FIELDS) of the network.
        first: First sample of the tile.
        vectors: Width of the tile.
        levels: (layers,) address of the activations that each layer read, all tiles one after the other.
        scratch: Two addresses, each for a tile of the widest level.
        lowest: First layer whose gradients matter.
        gradients: Address of the sums of gradients, 0 if none are wanted.
        dy: (B, n_out) gradient of the output.
        dx: (B, n_in) gradient of the input; no rows if it is not wanted.
        limits: (0, -inf, NaN) of the element type.
        size: Bytes of an element.
    """
    columns, depth, zero = vectors * LANES, table.shape[0], limits[0]
    here, there = scratch[0], scratch[1]
    _read_tile(dy, first, columns, here, zero)
    for layer in range(depth - 1, (0 if dx.shape[0] > 0 else lowest) - 1, -1):
        if table[layer, SAMPLE] != 0:
            for entry in range(table[layer, N_OUT] * columns):
                write_real(
                    table[layer, SAMPLE], table[layer, N_OUT] * first + entry, read_real(here, entry, zero), zero
                )
        x = levels[layer] + table[layer, N_IN] * first * size
        if gradients != 0 and layer >= lowest:
            tile_parameter_gradients(vectors, table[layer], x, here, gradients, zero, size)
        if layer > lowest or dx.shape[0] > 0:
            # The input of the network went through no ReLU: nothing is at or below NaN. Elsewhere padding stays 0.
            threshold = zero if layer > 0 else limits[2]
            tile_input_gradient(vectors, table[layer], here, there, x, threshold, zero, size)
            here, there = there, here
    if dx.shape[0] > 0:
        _write_tile(here, first, columns, dx, zero)


@numba.njit(cache=True, nogil=True)
def _forward_share(
    worker: int,
    workers: int,
    table: Any,
    tiles: Any,
    levels: Any,
    kept: int,
    last: Any,
    x: Any,
    y: Any,
    limits: Any,
    size: int,
) -> None:
    for task in range(worker, table.shape[0] * tiles.shape[0], workers):
        network, tile = task // tiles.shape[0], task % tiles.shape[0]
        first, vectors = tiles[tile]
        own = levels[network if kept == 1 else worker]
        _forward_tile(table[network], first, vectors, own, kept, last[worker], x, y[network], limits, size)


@numba.njit(cache=True, nogil=True)
def _backward_share(
    worker: int,
    workers: int,
    table: Any,
    tiles: Any,
    levels: Any,
    scratch: Any,
    lowest: int,
    gradients: Any,
    dy: Any,
    dx: Any,
    limits: Any,
    size: int,
) -> None:
    for task in range(worker, table.shape[0] * tiles.shape[0], workers):
        network, tile = task // tiles.shape[0], task % tiles.shape[0]
        first, vectors = tiles[tile]
        _backward_tile(
            table[network],
            first,
            vectors,
            levels[network],
            scratch[worker],
            lowest,
            gradients[worker],
            dy[network],
            dx[network],
            limits,
            size,
        )


@numba.njit(cache=True, nogil=True)
def _forward(workers: int, *task: Any) -> None:
    _forward_share(0, workers, *task)


@numba.njit(cache=True, nogil=True, parallel=True)
def _forward_threads(workers: int, *task: Any) -> None:
    for worker in numba.prange(workers):
        # `prange` counts in uint64, and a range over mixed signs would be one of float64.
        _forward_share(np.int64(worker), workers, *task)  # type: ignore[arg-type]


@numba.njit(cache=True, nogil=True)
def _backward(workers: int, *task: Any) -> None:
    _backward_share(0, workers, *task)


@numba.njit(cache=True, nogil=True, parallel=True)
def _backward_threads(workers: int, *task: Any) -> None:
    for worker in numba.prange(workers):
        _backward_share(np.int64(worker), workers, *task)  # type: ignore[arg-type]


@numba.njit(cache=True, nogil=True)
def _put_in_order(table: Any, lowest: int, zero: Any) -> None:
    """Copies the values of each layer into the order of its transposed index."""
    for network in range(table.shape[0]):
        for layer in range(lowest, table.shape[1]):
            values, slots, in_order = (
                table[network, layer, VALUES],
                table[network, layer, T_SLOT],
                table[network, layer, IN_ORDER],
            )
            for entry in range(read_int64(table[network, layer, T_ROW_PTR], table[network, layer, N_IN])):
                write_real(in_order, entry, read_real(values, read_uint32(slots, entry), zero), zero)


class _Frame:
    """Memory for passes of one batch size through one set of networks, and the addresses in it.

    Attributes:
        threads: Number of threads that torch had.
        tiles: (tiles, 2) first sample and width in vectors of each tile.
        workers: Threads that share the tiles.
        padded: Columns of all tiles together.
        memory: Of the kept levels, all tiles one after the other; of two tiles of the widest level for each worker.
        levels: (networks, layers) addresses of what each layer reads, if kept; else (workers, layers).
        scratch: (workers, 2) addresses of the tiles.
        last: (workers,) addresses for the output.
        nowhere: (workers,) of 0, for gradients that are not wanted.
    """

    def __init__(self, plan: Plan, batch: int, keep: bool):
        self.threads = torch.get_num_threads()
        threads = self.threads if plan.nnz * batch >= PARALLEL_FROM else 1
        self.tiles = tiles_of(batch, plan.widest, -(-threads // plan.count))
        self.workers = max(1, min(threads, plan.count * len(self.tiles)))
        self.batch = batch
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
        memory: (workers, values and biases of all layers).
        sizes: Of each of these.
    """

    def __init__(self, memory: torch.Tensor, sizes: list[int]):
        self.memory = memory
        self.addresses = memory.data_ptr() + np.arange(len(memory)) * (memory.shape[1] * memory.element_size())
        self._pieces = torch.split(memory[0], sizes)

    def total(self) -> Sequence[torch.Tensor]:
        """The sums over all threads, added in order."""
        for own in self.memory[1:]:
            self.memory[0] += own
        return self._pieces


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
        self.table = np.zeros((self.count, self.depth, FIELDS), np.int64)
        self.gradient_sizes: list[int] = []
        self._layers = [
            ((network, position), layer)
            for network, layers in enumerate(networks.networks)
            for position, layer in enumerate(layers)
        ]
        for position, layer in self._layers:
            row = self.table[position]
            row[N_IN], row[N_OUT] = layer.index.n_cols, layer.index.n_rows
            row[ROW_PTR], row[COL] = layer.index.row_ptr.ctypes.data, layer.index.col.ctypes.data
            row[VALUES], row[BIAS] = layer.values.data_ptr(), layer.bias.data_ptr() if layer.bias is not None else 0
            row[D_VALUES] = sum(self.gradient_sizes)
            row[D_BIAS] = row[D_VALUES] + layer.index.nnz
            self.gradient_sizes += [layer.index.nnz, 0 if layer.bias is None else layer.bias.numel()]
        self.in_order: torch.Tensor | None = None
        self._sums: _Sums | None = None
        self._free: dict[tuple[int, bool], list[_Frame]] = networks.memory

    def put_in_order(self, lowest: int) -> None:
        """Prepares the transposed matrices of the layers from `lowest` on, with the values of now."""
        if self.in_order is None:
            self.in_order = torch.empty(self.nnz, dtype=self.dtype)
            sizes = [layer.index.nnz for _, layer in self._layers]
            places = self.in_order.data_ptr() + np.cumsum([0, *sizes[:-1]]) * self.size
            self.table[:, :, IN_ORDER] = places.reshape(self.count, self.depth)
        if not self.table[:, lowest:, T_SLOT].all():
            for (network, position), layer in self._layers:
                if position >= lowest:
                    transposed, slots = layer.index.transposed
                    row = self.table[network, position]
                    row[T_ROW_PTR], row[T_COL] = transposed.row_ptr.ctypes.data, transposed.col.ctypes.data
                    row[T_SLOT] = slots.ctypes.data
        _put_in_order(self.table, lowest, self.limits[0])

    def sums(self, workers: int, reuse: bool) -> _Sums:
        """Sums of gradients at 0; those of the last time that were to be used again, if `reuse`."""
        if reuse and self._sums is not None and len(self._sums.memory) == workers:
            self._sums.memory.zero_()
            return self._sums
        fresh = _Sums(torch.zeros(workers, sum(self.gradient_sizes), dtype=self.dtype), self.gradient_sizes)
        if reuse:
            self._sums = fresh
        return fresh

    def take(self, batch: int, keep: bool) -> _Pass:
        """Memory for a pass, to be used until the returned object is gone."""
        free = self._free.setdefault((batch, keep), [])
        if len(self._free) > KEPT_FRAMES:
            del self._free[next(iter(self._free))]
        threads = torch.get_num_threads()
        while free and free[-1].threads != threads:
            free.pop()
        return _Pass(free.pop() if free else _Frame(self, batch, keep), free)


@dataclass
class _Pass:
    """A forward pass that may be followed by backward passes; gives its memory back at its end."""

    frame: _Frame
    free: list[_Frame]

    def __del__(self) -> None:
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
    y = torch.empty(plan.count, batch, networks.widths[-1], dtype=networks.dtype)
    rows = x.detach().contiguous().numpy()
    if batch == 1 and not keep:
        _forward_one(plan.table, frame.scratch[0], rows[0], y.numpy()[:, 0], plan.limits)
        return y, None
    launch(
        frame.workers,
        (_forward, _forward_threads),
        (
            plan.table,
            frame.tiles,
            frame.levels,
            int(keep),
            frame.last,
            rows,
            y.numpy(),
            plan.limits,
            plan.size,
        ),
    )
    return y, taken if keep else None


def backward(networks: Networks, saved: object, dy: torch.Tensor, wanted: Wanted) -> Gradients:
    """Gradients of every network. See `sparserl.kernels.Backend`."""
    assert isinstance(saved, _Pass)
    plan, frame = plan_of(networks), saved.frame
    networks.check_gradient(dy, frame.batch)
    plan.put_in_order(0 if wanted.inputs else wanted.lowest + 1)
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
        (_backward, _backward_threads),
        (
            table,
            frame.tiles,
            frame.levels,
            frame.scratch,
            wanted.lowest,
            frame.nowhere if sums is None else sums.addresses,
            dy.detach().contiguous().numpy(),
            dx,
            plan.limits,
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
    return Gradients(toward, None if sums is None else sums.total(), samples)


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
