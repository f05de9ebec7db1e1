"""What is derived once from networks for passes on the CPU: the table of their layers, and memory for passes."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sparserl.kernels import tables
from sparserl.kernels.choice import gradient_panel, tile_vectors
from sparserl.kernels.deferred import Lease, Memo, take
from sparserl.kernels.emitter import LANES
from sparserl.kernels.layout import (
    ACTIVATION,
    ADDED,
    BIAS,
    BLOCKS,
    BOUNDS,
    BY_BATCH,
    BY_SAMPLE,
    COL,
    COLUMN_STARTS,
    COLUMNS,
    COUNTS,
    D_BIAS,
    D_SCALE,
    D_SHIFT,
    D_SLOT,
    D_VALUES,
    EPSILON,
    FEATURE_ROWS,
    FIELDS,
    GIVEN,
    IN_ORDER,
    LATEST,
    LEARNED_COL,
    LEARNED_ROW_PTR,
    N_IN,
    N_OUT,
    NORM,
    ORDERED,
    PANEL_ROWS,
    PANELS,
    ROW_PTR,
    RUNNING_MEAN,
    RUNNING_VAR,
    SCALE,
    SHIFT,
    SLOT,
    STATISTIC_ROWS,
    STORED,
    T_BLOCKS,
    T_COL,
    T_COLUMNS,
    T_COUNTS,
    T_PANELS,
    T_ROW_PTR,
    T_SLOT,
    VALUES,
)
from sparserl.kernels.memory import Memory
from sparserl.kernels.networks import ACTIVATIONS, NORMS, Networks
from sparserl.kernels.pattern_index import PatternIndex
from sparserl.kernels.slots import backward_slots, forward_slots

PARALLEL_FROM = 1 << 20
"""Multiply-adds below which waking threads costs more than it gains."""

KEPT_FRAMES = 8
"""Kinds of passes (batch size, threads, whether kept) whose memory is kept for the next one."""


class Frame:
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
        kept: Of each network, if kept, its levels with all tiles one after the other.
        tape: Of some tiles of the widest level for each worker, and of statistics.
        given: Of each network, if kept, gradients of what its wide layers give, likewise; see `Plan.in_panels`.
        levels: (networks, layers) addresses of the level that each layer reads, if kept; else (workers, layers).
        reads: As `levels`, of what each layer multiplies.
        statistics: As `levels`, of those of its norm.
        d_levels: (networks, layers) addresses in `given`, if kept.
        d_first: (networks,) likewise, for the gradient of the input where the first norm is of batches.
        scratch: (workers, slots) addresses of the tiles.
        last: (workers,) addresses for the output.
        nowhere: (workers,) of 0, for gradients that are not wanted.
    """

    def __init__(self, plan: Plan, batch: int, threads: int, keep: bool):
        self.tiles = tiles_of(batch, plan.tile_vectors, -(-threads // plan.count))
        self.workers = max(1, min(threads, plan.count * len(self.tiles)))
        self.batch, self.threads, self.keep = batch, threads, keep
        self.padded = int(self.tiles[:, 1].sum()) * LANES
        tile = plan.widest * int(self.tiles[:, 1].max(initial=0)) * LANES
        # Networks apart: each then fits where one of another ensemble was.
        networks = plan.count if keep else 0
        of_levels = plan.kept_neurons * self.padded
        self.kept = [Memory(of_levels + plan.features, plan.limits.dtype) for _ in range(networks)]
        given = plan.given_neurons + plan.given_first
        self.given = [Memory(given * self.padded, plan.limits.dtype) for _ in range(networks)]
        rows = STATISTIC_ROWS * int(self.tiles[:, 1].max(initial=0)) * LANES
        self.tape = Memory(self.workers * (plan.slots * tile + rows), plan.limits.dtype)
        self.nowhere = np.zeros(self.workers, np.int64)
        workers, start = np.arange(self.workers)[:, None], self.tape.array.ctypes.data
        self.scratch = start + (workers * plan.slots + np.arange(plan.slots)) * tile * plan.size
        if keep:
            starts, padded = (
                np.array([memory.array.ctypes.data for memory in self.kept])[:, None],
                self.padded * plan.size,
            )
            self.levels, self.reads = starts + plan.kept_before * padded, starts + plan.read_before * padded
            self.statistics = starts + plan.statistics_before * padded
            of_neurons = starts + (of_levels + plan.features_before) * plan.size
            self.statistics[:, plan.by_batch] = of_neurons[:, plan.by_batch]
            starts = np.array([memory.array.ctypes.data for memory in self.given])
            self.d_levels = starts[:, None] + plan.given_before * padded
            self.d_first = starts + plan.given_neurons * padded
            self.last = self.scratch[:, 0].copy()
        else:
            slots_of_levels, of_reads, last = plan.forward_slots
            self.levels, self.reads = (
                np.ascontiguousarray(self.scratch[:, slots]) for slots in (slots_of_levels, of_reads)
            )
            statistics = start + (self.workers * plan.slots * tile + workers * rows) * plan.size
            self.statistics = np.ascontiguousarray(np.broadcast_to(statistics, self.levels.shape))
            self.last = self.scratch[:, last].copy()
            self.d_first = np.zeros(plan.count, np.int64)

    def arguments(self, plan: Plan) -> list[int]:
        """Of a step, as far as they do not change."""
        return [
            plan.table.ctypes.data,
            plan.count,
            plan.depth,
            self.tiles.ctypes.data,
            len(self.tiles),
            self.levels.ctypes.data,
            self.scratch.ctypes.data,
            self.last.ctypes.data,
            plan.limits.ctypes.data,
            plan.size,
            self.batch,
            int(self.keep),
        ]

    @property
    def addresses(self) -> list[int]:
        """Arguments of a step: of tables of addresses, and the number of tiles of a worker."""
        of_tables = [self.reads.ctypes.data, self.statistics.ctypes.data]
        return [*of_tables, self.scratch.shape[1], self.d_first.ctypes.data]

    def layout(self) -> list[Any]:
        """Sizes, and addresses from the beginning of the memory on."""
        arrays = [memory.array for memory in [self.tape, *self.kept, *self.given]]
        start, *starts = (array.ctypes.data for array in arrays)
        kept, given = np.array(starts[: len(self.kept)])[:, None], np.array(starts[len(self.kept) :])[:, None]
        levels = [self.levels, self.reads, self.statistics]
        levels = [array - kept for array in levels] if self.keep else [array - start for array in levels]
        levels += [self.d_levels - given, self.d_first - given[:, 0]] if self.keep else []
        return [*(array.size for array in arrays), self.tiles, self.scratch - start, *levels, self.last - start]

    def level(self, plan: Plan, network: int, layer: int) -> torch.Tensor:
        """(neurons, B) the level that a layer read."""
        return self._kept_rows(network, int(plan.kept_before[layer]), plan.widths[layer])

    def read(self, plan: Plan, network: int, layer: int) -> torch.Tensor:
        """(neurons, B) what a layer multiplied."""
        return self._kept_rows(network, int(plan.read_before[layer]), plan.widths[layer])

    def _kept_rows(self, network: int, before: int, neurons: int) -> torch.Tensor:
        start, kept = before * self.padded, self.kept[network].array
        return self.from_tiles(torch.from_numpy(kept[start : start + neurons * self.padded]), neurons)

    @property
    def is_lent(self) -> bool:
        """Whether some of its memory is to be used by others between passes."""
        return any(memory.is_lent for memory in [self.tape, *self.kept, *self.given])

    def from_tiles(self, level: torch.Tensor, neurons: int) -> torch.Tensor:
        """(neurons, B) of a level that holds all tiles one after the other."""
        sizes = [int(vectors) * LANES * neurons for vectors in self.tiles[:, 1]]
        tiles = zip(torch.split(level, sizes), self.tiles[:, 1], strict=True)
        columns = [tile.view(neurons, -1) for tile, _ in tiles]
        return torch.cat([level.new_empty(neurons, 0), *columns], dim=1)[:, : self.batch]


class Sums:
    """Gradients, summed by each thread on its own.

    Args:
        workers: Threads.
        sizes: Of the values and biases of all layers.
        dtype: Element type.

    Attributes:
        addresses: (workers,) of each thread's.
        totals: Those of the first thread, a view for each of the sizes.
    """

    def __init__(self, workers: int, sizes: list[int], dtype: torch.dtype):
        memory = torch.empty(workers, sum(sizes), dtype=dtype)
        self.addresses = memory.data_ptr() + np.arange(workers) * memory[0].nbytes
        self.totals = torch.split(memory[0], sizes)


@lru_cache(maxsize=256)
def tiles_of(batch: int, most: int, shares: int) -> npt.NDArray[np.int64]:
    """(tiles, 2) first sample and width in vectors of each tile, at most `most`; as many for each of `shares`, if there
    are enough."""
    vectors = -(-batch // LANES)
    fewest = max(1, -(-vectors // most))
    count = min(vectors, -(-fewest // shares) * shares)
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
        self.tile_vectors = tile_vectors(self.widest)
        self.after, self.norms = networks.after, networks.norms
        self.forward_slots = forward_slots(self.after, [kind is not None for kind in self.norms])
        self.backward_slots = backward_slots(self.after)
        of_levels, of_reads, last = self.forward_slots
        self.slots = 1 + max(*of_levels, *of_reads, last, *self.backward_slots)
        self.limits = torch.tensor([0.0, -torch.inf, torch.nan], dtype=networks.dtype).numpy()
        rows = [
            (width, width if kind else 0, STATISTIC_ROWS if kind and NORMS[kind].by_sample else 0)
            for width, kind in zip(networks.widths, self.norms, strict=False)
        ]
        before = np.cumsum([0, *np.ravel(rows)])
        self.kept_neurons = int(before[-1])
        self.kept_before, self.read_before, self.statistics_before = (before[at:-1:3] for at in range(3))
        self.read_before = np.where([bool(kind) for kind in self.norms], self.read_before, self.kept_before)
        self.by_batch = networks.by_batch
        numbers = [FEATURE_ROWS * width for width in networks.widths[:-1]]
        before = np.cumsum([0, *(count if at in self.by_batch else 0 for at, count in enumerate(numbers))])
        self.features, self.features_before = int(before[-1]), before[:-1]
        # By widths alone, as a frame may serve networks with other connections.
        sides = zip(networks.widths[1:], networks.widths[:-1], strict=True)
        given = [
            n_out if at in self.by_batch or gradient_panel(n_out, n_in, n_out * n_in, self.size) else 0
            for at, (n_out, n_in) in enumerate(sides, 1)
        ]
        self.given_first = networks.widths[0] if 0 in self.by_batch else 0
        self.given_neurons, self.given_before = sum(given), np.cumsum([0, *given[:-1]])
        self.gradient_sizes: list[int] = []
        self._layers = [
            ((network, position), layer)
            for network, layers in enumerate(networks.networks)
            for position, layer in enumerate(layers)
        ]
        for _, layer in self._layers:
            self.gradient_sizes += layer.gradient_sizes
        self._epsilons = np.array(
            [0.0 if layer.norm is None else layer.norm.epsilon for _, layer in self._layers], self.limits.dtype
        )
        gathered = [
            layer.index.product.nnz
            for _, layer in self._layers
            if layer.index.blocks is not None or layer.index.used is not None
        ]
        self._ordered = torch.empty(sum(gathered), dtype=networks.dtype)
        self.table = np.zeros((self.count, self.depth, FIELDS), np.int64)
        self._describe(self.table)
        self._in_order: torch.Tensor | None = None
        self._transposed_from = self.depth
        self._sums: Sums | None = None
        self.passes = Memo()
        self._free: dict[tuple[int, int, bool], list[tuple[int | None, Frame]]] = networks.memory

    def _describe(self, table: npt.NDArray[np.int64]) -> None:
        """Fills in what every pass needs."""
        start, ordered = 0, self._ordered.data_ptr()
        for number, (position, layer) in enumerate(self._layers):
            row, product, after = table[position], layer.index.product, self.after[position[1]]
            row[N_IN], row[N_OUT] = layer.index.n_cols, layer.index.n_rows
            row[ROW_PTR], row[COL] = product.row_ptr.ctypes.data, product.col.ctypes.data
            row[LEARNED_ROW_PTR], row[LEARNED_COL] = layer.index.row_ptr.ctypes.data, layer.index.col.ctypes.data
            row[VALUES], row[BIAS] = layer.values.data_ptr(), layer.bias.data_ptr() if layer.bias is not None else 0
            row[STORED] = row[VALUES]
            places, start = np.cumsum([start, *layer.gradient_sizes[:-1]]), start + sum(layer.gradient_sizes)
            row[D_VALUES], row[D_BIAS] = places[:2]
            row[ACTIVATION] = ACTIVATIONS.index(after.activation)
            row[ADDED] = -1 if after.added is None else after.added
            row[D_SLOT] = self.backward_slots[position[1]]
            if layer.norm is not None:
                kind, batch = NORMS[layer.norm.kind], layer.norm.batch
                row[NORM] = BY_SAMPLE if kind.by_sample else GIVEN
                if batch is not None:
                    row[NORM] = BY_BATCH
                    addresses = [tensor.data_ptr() for tensor in batch.tensors]
                    row[[RUNNING_MEAN, RUNNING_VAR, BOUNDS, LATEST]] = addresses
                row[SCALE], row[SHIFT] = layer.norm.scale.data_ptr(), layer.norm.shift.data_ptr()
                row[EPSILON] = self._epsilons.ctypes.data + number * self.size
                row[D_SCALE], row[D_SHIFT] = places[2:]
            row[PANEL_ROWS] = gradient_panel(layer.index.n_rows, layer.index.n_cols, layer.index.nnz, self.size)
            if row[PANEL_ROWS]:
                row[COLUMN_STARTS] = layer.index.column_starts.ctypes.data
            blocks = layer.index.blocks
            if blocks is not None:
                row[[BLOCKS, PANELS, COUNTS, COLUMNS]] = _sizes_and_addresses(blocks)
                row[SLOT], row[ORDERED] = blocks.slot.ctypes.data, ordered
                ordered += layer.index.nnz * self.size
            elif layer.index.used is not None:
                row[SLOT], row[ORDERED] = layer.index.used.ctypes.data, ordered
                row[VALUES] = ordered
                ordered += product.nnz * self.size

    def _describe_transposed(self, table: npt.NDArray[np.int64], lowest: int, below: int) -> None:
        """Fills in what describes the transposed matrices of the layers from `lowest` on and below `below`."""
        assert self._in_order is not None
        sizes = [layer.index.product.nnz for _, layer in self._layers]
        addresses = self._in_order.data_ptr() + np.cumsum([0, *sizes[:-1]]) * self.size
        table[:, :, IN_ORDER] = addresses.reshape(self.count, self.depth)
        for (network, position), layer in self._layers:
            if lowest <= position < below:
                transposed, slots = layer.index.transposed
                row = table[network, position]
                row[T_ROW_PTR], row[T_COL] = transposed.row_ptr.ctypes.data, transposed.col.ctypes.data
                row[T_SLOT] = slots.ctypes.data
                blocks = layer.index.transposed_blocks
                if blocks is not None:
                    row[[T_BLOCKS, T_PANELS, T_COUNTS, T_COLUMNS]] = _sizes_and_addresses(blocks)
                    row[T_SLOT] = blocks.slot.ctypes.data

    def transpose_from(self, lowest: int) -> None:
        """Describes the transposed matrices of the layers from `lowest` on; their values are put in order by a pass."""
        if self._transposed_from <= lowest:
            return
        if self._in_order is None:
            self._in_order = torch.empty(self.nnz, dtype=self.dtype)
        self._describe_transposed(self.table, lowest, self._transposed_from)
        self._transposed_from = lowest

    def check(self, frame: Frame) -> None:
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

    @property
    def segments(self) -> list[tuple[int, int]]:
        """First layer and end of what steps go through at a time: a norm of batches waits for all tiles.

        Beside the first, each begins with a layer that has such a norm.
        """
        cuts = [0, *self.by_batch, self.depth]
        return list(pairwise(cuts))

    def sums(self, workers: int, reuse: bool) -> Sums:
        """Memory for sums of gradients; that of the last time that was to be used again, if `reuse`."""
        if not reuse:
            return Sums(workers, self.gradient_sizes, self.dtype)
        if self._sums is None or len(self._sums.addresses) != workers:
            self._sums = Sums(workers, self.gradient_sizes, self.dtype)
        return self._sums

    @property
    def gathers(self) -> bool:
        """Whether any layer's weights are read in another order than they are stored in, or not all of them."""
        return self._ordered.numel() > 0

    @property
    def kept(self) -> tuple[object, ...]:
        """Whatever the addresses in the table are of."""
        return self.table, self.limits, self._epsilons, self._layers, self._in_order, self._ordered

    def take(self, batch: int, keep: bool) -> Lease:
        """Memory for a pass, to be used until the returned object is gone; norms of batches need what is kept."""
        keep = keep or bool(self.by_batch)
        # By the present number of connections: a resumed run must not differ from one that had more or fewer before.
        threads = torch.get_num_threads() if self.nnz * batch >= PARALLEL_FROM else 1
        free = self._free.setdefault((batch, threads, keep), [])
        if len(self._free) > KEPT_FRAMES:
            del self._free[next(iter(self._free))]
        frame = take(free) or Frame(self, batch, threads, keep)
        return Lease(frame, [] if frame.is_lent else free)  # what is lent goes back with the last that refers to it


def _sizes_and_addresses(blocks: PatternIndex) -> list[int]:
    """Sizes and addresses of what kernels read of blocks."""
    return [blocks.blocks, blocks.panels, blocks.counts.ctypes.data, blocks.columns.ctypes.data]


def plan_of(networks: Networks) -> Plan:
    """The plan of these networks, made once."""
    plan: Plan | None = networks.prepared.get("cpu")
    if plan is None:
        plan = networks.prepared["cpu"] = Plan(networks)
    return plan
