"""The way forward of one tile of the batch, and how tiles are dealt to threads: the Numba part of the CPU backend.

A tile is 16, 32 or 48 samples; it goes through all layers before the next one starts, so that its activations stay in
the cache. Inside a tile activations are feature-major and contiguous: one connection is one axpy (or one inner product)
over the samples of the tile. A tile that the batch does not fill is padded with columns that hold 0 at every level, so
that they add nothing to any sum, whatever is infinite elsewhere.

Networks and tiles are dealt to the shares of a step in turn (`sparserl.kernels.program`), each of which sums gradients
of its own. The first call for a dtype compiles (seconds) and stores the machine code (`sparserl.kernels.compiled`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sparserl.kernels.activations import tanh_tile
from sparserl.kernels.choice import BLOCK_ROWS
from sparserl.kernels.compiled import compiled
from sparserl.kernels.emitter import LANES
from sparserl.kernels.layout import (
    ACTIVATION,
    ADDED,
    BATCH,
    BEGIN,
    BIAS,
    BLOCKS,
    BY_BATCH,
    COL,
    COLUMNS,
    COUNTS,
    DEPTH,
    END,
    ENDS,
    FIELDS,
    FORWARD,
    GROUPS,
    IN_ORDER,
    KEPT,
    LAST,
    LEVELS,
    LIMITS,
    N_IN,
    N_OUT,
    N_SOURCES,
    N_TILES,
    NETWORKS,
    NORM,
    ORDER_FROM,
    ORDERED,
    OUTPUT,
    PANELS,
    PASS,
    READS,
    RELU,
    ROW_PTR,
    SIZE,
    SLOT,
    SOURCES,
    STATISTIC_ROWS,
    STATISTICS,
    STORED,
    T_SLOT,
    TABLE,
    TANH,
    TILES,
    VALUES,
    WAY,
)
from sparserl.kernels.norms import add_tile, norm_tile
from sparserl.kernels.patterns import block_tile
from sparserl.kernels.program import step_function
from sparserl.kernels.vector import int64_array, read_int64, read_real, read_uint32, row_tile, write_real

_row, _block = row_tile(gated=False), block_tile(BLOCK_ROWS, gated=False)


@compiled()
def tile_product(vectors: int, layer: Any, x: int, out: int, threshold: Any, zero: Any, size: int) -> None:
    """One tile of `W x + b`, no entry below `threshold`; `x` and `out` are addresses."""
    values, col, row_ptr, biases = layer[VALUES], layer[COL], layer[ROW_PTR], layer[BIAS]
    bias = zero
    blocks, panels, counts, columns, ordered = (
        layer[BLOCKS],
        layer[PANELS],
        layer[COUNTS],
        layer[COLUMNS],
        layer[ORDERED],
    )
    for panel in range(panels):
        is_first, is_last = np.int64(panel == 0), np.int64(panel == panels - 1)
        for block in range(blocks):
            row = block * BLOCK_ROWS
            biased = biases + row * size if biases != 0 else 0
            at = out + row * vectors * LANES * size
            columns, ordered = _block(vectors, counts, columns, ordered, is_first, is_last, biased, x, at, threshold)
            counts += GROUPS * 4
    stop = read_int64(row_ptr, blocks * BLOCK_ROWS)
    for row in range(blocks * BLOCK_ROWS, layer[N_OUT]):
        start, stop = stop, read_int64(row_ptr, row + 1)
        if biases != 0:
            bias = read_real(biases, row, zero)
        _row(vectors, values, col, start, stop, bias, x, out + row * vectors * LANES * size, threshold)


@compiled()
def read_tile(rows: int, width: int, first: int, inside: int, columns: int, out: int, zero: Any) -> None:
    """Transposes `inside` rows of (B, width) from `first` on into a tile; what lies past the end is padding."""
    for neuron in range(width):
        for column in range(inside):
            write_real(out, neuron * columns + column, read_real(rows, (first + column) * width + neuron, zero), zero)
        for column in range(inside, columns):
            write_real(out, neuron * columns + column, zero, zero)


@compiled()
def write_tile(
    tile: int, begin: int, neurons: int, columns: int, rows: int, first: int, inside: int, zero: Any
) -> None:
    """Transposes the neurons of a tile from `begin` on back into `inside` rows of (B, neurons) from `first` on."""
    for column in range(inside):
        for neuron in range(neurons):
            at = (begin + neuron) * columns + column
            write_real(rows, (first + column) * neurons + neuron, read_real(tile, at, zero), zero)


@compiled()
def clear_padding(tile: int, neurons: int, inside: int, columns: int, zero: Any) -> None:
    for neuron in range(neurons):
        for column in range(inside, columns):
            write_real(tile, neuron * columns + column, zero, zero)


@compiled()
def _forward_tile(
    table: Any,
    first: int,
    vectors: int,
    levels: Any,
    reads: Any,
    statistics: Any,
    last: int,
    network: int,
    call: Any,
    limits: Any,
) -> None:
    """Takes one tile through the layers of one network from `BEGIN` on before `END`.

    Args:
        table: (layers, FIELDS) of the network.
        first: First sample of the tile.
        vectors: Width of the tile.
        levels: (layers,) address of the level that each layer reads.
        reads: (layers,) address of what each layer multiplies.
        statistics: (layers,) address of the statistics of its norm.
        last: Address for a tile of the output.
        network: Index of the network.
        call: (PASS,) arguments of the step.
        limits: (0, -inf, NaN) of the element type.
    """
    columns, depth, zero, size, batch = vectors * LANES, table.shape[0], limits[0], call[SIZE], call[BATCH]
    offset, inside = call[KEPT] * first * size, min(columns, batch - first)
    into = levels[0] + table[0, N_IN] * offset
    for source in range(call[N_SOURCES] if call[ENDS] == 1 else 0):
        width = read_int64(call[SOURCES], 2 * source + 1)
        read_tile(read_int64(call[SOURCES], 2 * source), width, first, inside, columns, into, zero)
        into += width * columns * size
    for layer in range(call[BEGIN], call[END]):
        n_in, n_out, added = table[layer, N_IN], table[layer, N_OUT], table[layer, ADDED]
        read = reads[layer] + n_in * offset
        if table[layer, NORM] != 0:
            known = statistics[layer] + (0 if table[layer, NORM] == BY_BATCH else STATISTIC_ROWS * offset)
            norm_tile(table[layer], levels[layer] + n_in * offset, columns, read, known, zero, size)
            if inside < columns:
                clear_padding(read, n_in, inside, columns, zero)
        out = last if layer + 1 == depth else levels[layer + 1] + n_out * offset
        activation = table[layer, ACTIVATION]
        threshold = zero if activation == RELU and added < 0 else limits[1]
        tile_product(vectors, table[layer], read, out, threshold, zero, size)
        if added >= 0:
            add_tile(levels[added] + n_out * offset, n_out, columns, out, activation, zero, size)
        if activation == TANH:
            tanh_tile(out, n_out, columns, zero)
        if inside < columns:
            clear_padding(out, n_out, inside, columns, zero)
    if call[END] < depth:
        return
    n_out = table[depth - 1, N_OUT]
    write_tile(last, 0, n_out, columns, call[OUTPUT] + network * batch * n_out * size, first, inside, zero)


@compiled()
def forward_one(
    table: Any, levels: Any, reads: Any, statistics: Any, last: int, x: Any, y: Any, limits: Any, size: int
) -> None:
    """Takes a single sample through all networks: a tile of it would be mostly padding.

    Args:
        table: (networks, layers, FIELDS).
        levels: (layers,) addresses as in `_forward_tile`, of one share.
        reads: Likewise.
        statistics: Likewise.
        last: Likewise.
        x: (n_in,) input.
        y: (networks, n_out) output.
        limits: (0, -inf, NaN) of the element type.
        size: Bytes of an element.
    """
    zero, depth = limits[0], table.shape[1]
    for network in range(table.shape[0]):
        for neuron in range(x.size):
            write_real(levels[0], neuron, x[neuron], zero)
        for position in range(depth):
            layer = table[network, position]
            here, there = reads[position], last if position + 1 == depth else levels[position + 1]
            if layer[NORM] != 0:
                norm_tile(layer, levels[position], 1, here, statistics[position], zero, size)
            product_of_one(layer, here, there, zero)
            if layer[ADDED] >= 0:
                add_tile(levels[layer[ADDED]], layer[N_OUT], 1, there, 0, zero, size)
            if layer[ACTIVATION] == TANH:
                tanh_tile(there, layer[N_OUT], 1, zero)
            if layer[ACTIVATION] == RELU:
                for row in range(layer[N_OUT]):
                    total = read_real(there, row, zero)
                    write_real(there, row, zero if total < zero else total, zero)
        for row in range(y.shape[1]):
            y[network, row] = read_real(last, row, zero)


@compiled()
def product_of_one(layer: Any, here: int, there: int, zero: Any) -> None:
    """`W x + b` of a single sample; `here` is the address of `x`, `there` that for the result."""
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
        write_real(there, row, (a + b) + (c + d), zero)


@compiled()
def limits_of(call: Any, zero: Any) -> Any:
    """(0, -inf, NaN) of the element type."""
    return read_real(call[LIMITS], 0, zero), read_real(call[LIMITS], 1, zero), read_real(call[LIMITS], 2, zero)


@step_function()
def forward_step(share: int, shares: int, arguments: int, zero: Any) -> None:
    """Takes a batch through the layers of all networks from `BEGIN` on before `END`."""
    call = int64_array(arguments, (PASS,))
    table = int64_array(call[TABLE], (call[NETWORKS], call[DEPTH], FIELDS))
    tiles = int64_array(call[TILES], (call[N_TILES], 2))
    of_levels = (call[NETWORKS] if call[KEPT] == 1 else shares, call[DEPTH])
    levels, reads = int64_array(call[LEVELS], of_levels), int64_array(call[READS], of_levels)
    statistics = int64_array(call[STATISTICS], of_levels)
    for task in range(share, call[NETWORKS] * call[N_TILES], shares):
        network, tile = task // call[N_TILES], task % call[N_TILES]
        first, vectors = tiles[tile]
        at = network if call[KEPT] == 1 else share
        _forward_tile(
            table[network],
            first,
            vectors,
            levels[at],
            reads[at],
            statistics[at],
            read_int64(call[LAST], share),
            network,
            call,
            limits_of(call, zero),
        )


@step_function()
def order_step(share: int, shares: int, arguments: int, zero: Any) -> None:
    """Copies the values of each layer from `ORDER_FROM` on into the order of its transposed index."""
    call = int64_array(arguments, (PASS,))
    table = int64_array(call[TABLE], (call[NETWORKS], call[DEPTH], FIELDS))
    order_share(share, shares, table, call[ORDER_FROM], call[WAY], zero)


@compiled()
def order_share(worker: int, workers: int, table: Any, lowest: int, way: int, zero: Any) -> None:
    """Copies a thread's share of the values of each layer into the order in which a product reads them.

    Args:
        worker: Thread, of so many `workers`.
        workers: Threads.
        table: (networks, layers, FIELDS).
        lowest: First layer to copy.
        way: `FORWARD` (layers that go by row need no copy), or `BACKWARD` for the input gradient.
        zero: Of the element type.
    """
    for network in range(table.shape[0]):
        for position in range(lowest, table.shape[1]):
            layer = table[network, position]
            slots, ordered = (layer[SLOT], layer[ORDERED]) if way == FORWARD else (layer[T_SLOT], layer[IN_ORDER])
            if slots == 0:
                continue
            values, count = layer[STORED], read_int64(layer[ROW_PTR], layer[N_OUT])
            for entry in range(count * worker // workers, count * (worker + 1) // workers):
                write_real(ordered, entry, read_real(values, read_uint32(slots, entry), zero), zero)
