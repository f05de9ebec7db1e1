"""What is computed with one tile of the batch, and how tiles are dealt to threads: the Numba part of the CPU backend.

A tile is 16, 32 or 48 samples; it goes through all layers before the next one starts, so that its activations stay in
the cache. Inside a tile activations are feature-major and contiguous: one connection is one axpy (or one inner product)
over the samples of the tile. A tile that the batch does not fill is padded with columns that hold 0 at every level, so
that they add nothing to any sum, whatever is infinite elsewhere.

Networks and tiles are dealt to threads in turn, each of which sums gradients of its own. The first call for a dtype
compiles (seconds) and stores the machine code (`sparserl.kernels.compiled`).
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from sparserl.kernels.compiled import compiled
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

N_IN, N_OUT, ROW_PTR, COL, VALUES, BIAS, T_ROW_PTR, T_COL, T_SLOT, IN_ORDER, D_VALUES, D_BIAS, SAMPLE = range(13)
"""Columns of the table that describes networks to the kernels: sizes and addresses (0: none) of each layer.

`IN_ORDER` holds the values in the order of the transposed index, `SAMPLE` gets the output's gradient. `D_VALUES` and
`D_BIAS` are places in a thread's array of gradients, counted in floats.
"""
FIELDS = 13

_row, _gated_row = row_tile(gated=False), row_tile(gated=True)
_sixteen, _eight, _four, _one = map(gradient_tile, (16, 8, 4, 1))


@compiled()
def tile_product(vectors: int, layer: Any, x: int, out: int, threshold: Any, zero: Any, size: int) -> None:
    """One tile of `W x + b`, no entry below `threshold`; `x` and `out` are addresses."""
    values, col, row_ptr, biases = layer[VALUES], layer[COL], layer[ROW_PTR], layer[BIAS]
    bias = zero
    stop = read_int64(row_ptr, 0)
    for row in range(layer[N_OUT]):
        start, stop = stop, read_int64(row_ptr, row + 1)
        if biases != 0:
            bias = read_real(biases, row, zero)
        _row(vectors, values, col, start, stop, bias, x, out + row * vectors * LANES * size, threshold)


@compiled()
def tile_input_gradient(
    vectors: int, layer: Any, dy: int, out: int, gates: int, threshold: Any, zero: Any, size: int
) -> None:
    """One tile of `W^T dy`, 0 where the gate does not exceed `threshold`."""
    values, col, row_ptr = layer[IN_ORDER], layer[T_COL], layer[T_ROW_PTR]
    stop = read_int64(row_ptr, 0)
    for row in range(layer[N_IN]):
        start, stop = stop, read_int64(row_ptr, row + 1)
        at = row * vectors * LANES * size
        _gated_row(vectors, values, col, start, stop, zero, dy, out + at, threshold, gates + at)


@compiled()
def tile_parameter_gradients(vectors: int, layer: Any, x: int, dy: int, gradients: int, zero: Any, size: int) -> None:
    """Adds what one tile contributes to the gradients by values and biases."""
    col, row_ptr = layer[COL], layer[ROW_PTR]
    out, biases = gradients + layer[D_VALUES] * size, gradients + layer[D_BIAS] * size
    slot = read_int64(row_ptr, 0)
    for row in range(layer[N_OUT]):
        stop = read_int64(row_ptr, row + 1)
        from_row = dy + row * vectors * LANES * size
        while slot + 16 <= stop:
            _sixteen(vectors, col, slot, x, from_row, out, zero)
            slot += 16
        if slot + 8 <= stop:
            _eight(vectors, col, slot, x, from_row, out, zero)
            slot += 8
        if slot + 4 <= stop:
            _four(vectors, col, slot, x, from_row, out, zero)
            slot += 4
        while slot < stop:
            _one(vectors, col, slot, x, from_row, out, zero)
            slot += 1
        if layer[BIAS] != 0:
            write_real(biases, row, read_real(biases, row, zero) + row_total(vectors, from_row, zero), zero)


@compiled()
def _read_tile(rows: Any, first: int, columns: int, out: int, zero: Any) -> None:
    """Transposes `rows[first:first + columns]` into a tile; what lies past the end is padding."""
    inside = min(columns, rows.shape[0] - first)
    for neuron in range(rows.shape[1]):
        for column in range(inside):
            write_real(out, neuron * columns + column, rows[first + column, neuron], zero)
        for column in range(inside, columns):
            write_real(out, neuron * columns + column, zero, zero)


@compiled()
def _write_tile(tile: int, first: int, columns: int, rows: Any, zero: Any) -> None:
    """Transposes a tile back into rows."""
    for column in range(min(columns, rows.shape[0] - first)):
        for neuron in range(rows.shape[1]):
            rows[first + column, neuron] = read_real(tile, neuron * columns + column, zero)


@compiled()
def _clear_padding(tile: int, neurons: int, inside: int, columns: int, zero: Any) -> None:
    for neuron in range(neurons):
        for column in range(inside, columns):
            write_real(tile, neuron * columns + column, zero, zero)


@compiled()
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


@compiled()
def forward_one(table: Any, scratch: Any, x: Any, y: Any, limits: Any) -> None:
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


@compiled()
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


@compiled()
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


@compiled()
def _backward_share(
    worker: int,
    workers: int,
    gradients: Any,
    count: int,
    table: Any,
    limits: Any,
    tiles: Any,
    levels: Any,
    scratch: Any,
    lowest: int,
    dy: Any,
    dx: Any,
    size: int,
) -> None:
    clear_sums(worker, gradients, count, limits[0])
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


@compiled()
def order_share(worker: int, workers: int, table: Any, lowest: int, zero: Any) -> None:
    """Copies a thread's share of the values of each layer into the order of its transposed index."""
    for network in range(table.shape[0]):
        for layer in range(lowest, table.shape[1]):
            values, slots, in_order = (
                table[network, layer, VALUES],
                table[network, layer, T_SLOT],
                table[network, layer, IN_ORDER],
            )
            count = read_int64(table[network, layer, T_ROW_PTR], table[network, layer, N_IN])
            for entry in range(count * worker // workers, count * (worker + 1) // workers):
                write_real(in_order, entry, read_real(values, read_uint32(slots, entry), zero), zero)


@compiled()
def clear_sums(worker: int, gradients: Any, count: int, zero: Any) -> None:
    """Sets a thread's own `count` sums to 0, if there are any."""
    if gradients[worker] != 0:
        for entry in range(count):
            write_real(gradients[worker], entry, zero, zero)


@compiled()
def total_share(worker: int, workers: int, gradients: Any, count: int, zero: Any) -> None:
    """Adds all threads' sums to those of the first, in order; a share of the entries."""
    if gradients[0] != 0:
        for other in range(1, workers):
            for entry in range(count * worker // workers, count * (worker + 1) // workers):
                total = read_real(gradients[0], entry, zero) + read_real(gradients[other], entry, zero)
                write_real(gradients[0], entry, total, zero)


@compiled()
def forward_serial(workers: int, *task: Any) -> None:
    _forward_share(0, workers, *task)


@compiled(parallel=True)
def forward_threads(workers: int, *task: Any) -> None:
    for worker in numba.prange(workers):
        # `prange` counts in uint64, and a range over mixed signs would be one of float64.
        _forward_share(np.int64(worker), workers, *task)


@compiled()
def backward_serial(
    workers: int, ordered: int, gradients: Any, count: int, table: Any, limits: Any, *task: Any
) -> None:
    order_share(0, workers, table, ordered, limits[0])
    _backward_share(0, workers, gradients, count, table, limits, *task)


@compiled(parallel=True)
def backward_threads(
    workers: int, ordered: int, gradients: Any, count: int, table: Any, limits: Any, *task: Any
) -> None:
    """Takes gradients back through all networks.

    Args:
        workers: Threads.
        ordered: First layer whose weights are needed in transposed order.
        gradients: (workers,) addresses of sums of gradients, whatever they hold; those of the first thread are the
            totals in the end. 0 if none are wanted.
        count: Sums of each thread.
        table: (networks, layers, FIELDS).
        limits: (0, -inf, NaN) of the element type.
        task: As `_backward_share` takes them.
    """
    for worker in numba.prange(workers):
        order_share(np.int64(worker), workers, table, ordered, limits[0])
    for worker in numba.prange(workers):
        _backward_share(np.int64(worker), workers, gradients, count, table, limits, *task)
    for worker in numba.prange(workers):
        total_share(np.int64(worker), workers, gradients, count, limits[0])
