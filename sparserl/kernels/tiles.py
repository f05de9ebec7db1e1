"""What is computed with one tile of the batch, and how tiles are dealt to threads: the Numba part of the CPU backend.

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

from sparserl.kernels.choice import BLOCK_ROWS, PANEL_COLUMNS
from sparserl.kernels.compiled import compiled
from sparserl.kernels.emitter import LANES
from sparserl.kernels.patterns import block_tile, groups_of
from sparserl.kernels.program import step_function
from sparserl.kernels.vector import (
    int64_array,
    read_int64,
    read_real,
    read_uint32,
    row_gradient,
    row_tile,
    row_total,
    write_real,
)

N_IN, N_OUT, ROW_PTR, COL, VALUES, BIAS, T_ROW_PTR, T_COL, T_SLOT, IN_ORDER, D_VALUES, D_BIAS, SAMPLE = range(13)
"""Columns of the table that describes networks to the kernels: sizes and addresses (0: none) of each layer.

`IN_ORDER` holds the values in the order of the transposed index, `SAMPLE` gets the output's gradient. `D_VALUES` and
`D_BIAS` are places in a thread's array of gradients, counted in floats.
"""
BLOCKS, PANELS, COUNTS, COLUMNS, SLOT, ORDERED, T_BLOCKS, T_PANELS, T_COUNTS, T_COLUMNS = range(13, 23)
"""For products that go by blocks of rows (see `PatternIndex`; 0 blocks: by row), and those of the transposed matrix.

`ORDERED` holds the values in the order of the blocks; `IN_ORDER` and `T_SLOT` have that of the transposed blocks then.
"""
PANEL_ROWS, COLUMN_STARTS = 23, 24
"""Rows whose gradients are formed together, over all tiles (0: those of all rows, tile by tile), and for these layers
the address of `CsrIndex.column_starts`."""
FIELDS = 25

FORWARD, BACKWARD = 0, 1
"""Which products' order of values `order_share` makes."""
GROUPS = len(groups_of(BLOCK_ROWS))

(
    TABLE,
    NETWORKS,
    DEPTH,
    TILES,
    N_TILES,
    LEVELS,
    SCRATCH,
    LAST,
    LIMITS,
    SIZE,
    BATCH,
    KEPT,
    SOURCES,
    N_SOURCES,
    OUTPUT,
    ORDER_FROM,
    LOWEST,
    SUMS,
    COUNT,
    D_OUTPUT,
    D_INPUT,
    D_WIDTH,
    WAY,
    D_LEVELS,
) = range(24)
"""Arguments of the steps of a pass: sizes and addresses.

`TABLE` (networks, depth, FIELDS), `TILES` (tiles, 2) first sample and width in vectors, `LEVELS` (networks or shares,
depth) address of what each layer reads, `SCRATCH` (shares, 2) addresses of a tile of the widest level, `LAST` (shares,)
addresses for a tile of the output, `LIMITS` (0, -inf, NaN) of the element type, `SIZE` bytes of an element, `BATCH`
samples, `KEPT` 1 if a level holds all tiles one after the other and 0 if each replaces the one before, `SOURCES`
(sources, 2) address of a (B, width) part of the input and its width, `OUTPUT` (networks, B, n_out), `ORDER_FROM` the
first layer whose weights are needed in another order, `LOWEST` the first whose gradients matter, `SUMS` (shares,)
addresses of sums of gradients or 0, `COUNT` sums of each share, `D_OUTPUT` the gradient of the output, `D_INPUT`
(networks, B, `D_WIDTH`) place for that of the last features of the input, or 0, `WAY` as in `order_share`, `D_LEVELS`
(networks, depth) address for the gradient of what each layer gives, all tiles one after the other, where the layer has
`PANEL_ROWS`.
"""
PASS = 24

_row, _gated_row = row_tile(gated=False), row_tile(gated=True)
_block, _gated_block = block_tile(BLOCK_ROWS, gated=False), block_tile(BLOCK_ROWS, gated=True)


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
def tile_input_gradient(
    vectors: int, layer: Any, dy: int, out: int, gates: int, threshold: Any, zero: Any, size: int
) -> None:
    """One tile of `W^T dy`, 0 where the gate does not exceed `threshold`."""
    values, col, row_ptr = layer[IN_ORDER], layer[T_COL], layer[T_ROW_PTR]
    blocks, panels, counts, columns, ordered = (
        layer[T_BLOCKS],
        layer[T_PANELS],
        layer[T_COUNTS],
        layer[T_COLUMNS],
        values,
    )
    for panel in range(panels):
        is_first, is_last = np.int64(panel == 0), np.int64(panel == panels - 1)
        for block in range(blocks):
            at = block * BLOCK_ROWS * vectors * LANES * size
            columns, ordered = _gated_block(
                vectors, counts, columns, ordered, is_first, is_last, 0, dy, out + at, threshold, gates + at
            )
            counts += GROUPS * 4
    # Rows that fill no block have the slots that they have without blocks.
    stop = read_int64(row_ptr, blocks * BLOCK_ROWS)
    for row in range(blocks * BLOCK_ROWS, layer[N_IN]):
        start, stop = stop, read_int64(row_ptr, row + 1)
        at = row * vectors * LANES * size
        _gated_row(vectors, values, col, start, stop, zero, dy, out + at, threshold, gates + at)


@compiled()
def _panel_gradients(
    vectors: int, layer: Any, begin: int, end: int, x: int, dy: int, gradients: int, zero: Any, size: int
) -> None:
    """Adds what one tile contributes to the gradients by values and biases of the rows from `begin` on before `end`."""
    col, starts, n_out = layer[COL], layer[COLUMN_STARTS], layer[N_OUT]
    out, biases = gradients + layer[D_VALUES] * size, gradients + layer[D_BIAS] * size
    for panel in range((layer[N_IN] + PANEL_COLUMNS - 1) // PANEL_COLUMNS):
        for row in range(begin, end):
            start, stop = read_int64(starts, panel * n_out + row), read_int64(starts, (panel + 1) * n_out + row)
            row_gradient(vectors, col, start, stop, x, dy + row * vectors * LANES * size, out, zero)
    if layer[BIAS] != 0:
        for row in range(begin, end):
            total = row_total(vectors, dy + row * vectors * LANES * size, zero)
            write_real(biases, row, read_real(biases, row, zero) + total, zero)


@compiled()
def tile_parameter_gradients(vectors: int, layer: Any, x: int, dy: int, gradients: int, zero: Any, size: int) -> None:
    """Adds what one tile contributes to the gradients by values and biases."""
    col, row_ptr = layer[COL], layer[ROW_PTR]
    out, biases = gradients + layer[D_VALUES] * size, gradients + layer[D_BIAS] * size
    stop = read_int64(row_ptr, 0)
    for row in range(layer[N_OUT]):
        start, stop = stop, read_int64(row_ptr, row + 1)
        from_row = dy + row * vectors * LANES * size
        row_gradient(vectors, col, start, stop, x, from_row, out, zero)
        if layer[BIAS] != 0:
            write_real(biases, row, read_real(biases, row, zero) + row_total(vectors, from_row, zero), zero)


@compiled()
def _read_tile(rows: int, width: int, first: int, inside: int, columns: int, out: int, zero: Any) -> None:
    """Transposes `inside` rows of (B, width) from `first` on into a tile; what lies past the end is padding."""
    for neuron in range(width):
        for column in range(inside):
            write_real(out, neuron * columns + column, read_real(rows, (first + column) * width + neuron, zero), zero)
        for column in range(inside, columns):
            write_real(out, neuron * columns + column, zero, zero)


@compiled()
def _write_tile(
    tile: int, begin: int, neurons: int, columns: int, rows: int, first: int, inside: int, zero: Any
) -> None:
    """Transposes the neurons of a tile from `begin` on back into `inside` rows of (B, neurons) from `first` on."""
    for column in range(inside):
        for neuron in range(neurons):
            at = (begin + neuron) * columns + column
            write_real(rows, (first + column) * neurons + neuron, read_real(tile, at, zero), zero)


@compiled()
def _clear_padding(tile: int, neurons: int, inside: int, columns: int, zero: Any) -> None:
    for neuron in range(neurons):
        for column in range(inside, columns):
            write_real(tile, neuron * columns + column, zero, zero)


@compiled()
def _forward_tile(
    table: Any, first: int, vectors: int, levels: Any, last: int, network: int, call: Any, limits: Any
) -> None:
    """Takes one tile through one network.

    Args:
        table: (layers, FIELDS) of the network.
        first: First sample of the tile.
        vectors: Width of the tile.
        levels: (layers,) address of the activations that each layer reads.
        last: Address for a tile of the output.
        network: Place of the network.
        call: (PASS,) arguments of the step.
        limits: (0, -inf, NaN) of the element type.
    """
    columns, depth, zero, size, batch = vectors * LANES, table.shape[0], limits[0], call[SIZE], call[BATCH]
    place, inside = call[KEPT] * first * size, min(columns, batch - first)
    into = levels[0] + table[0, N_IN] * place
    for source in range(call[N_SOURCES]):
        width = read_int64(call[SOURCES], 2 * source + 1)
        _read_tile(read_int64(call[SOURCES], 2 * source), width, first, inside, columns, into, zero)
        into += width * columns * size
    for layer in range(depth):
        is_last = layer + 1 == depth
        out = last if is_last else levels[layer + 1] + table[layer, N_OUT] * place
        threshold = limits[1] if is_last else zero
        tile_product(vectors, table[layer], levels[layer] + table[layer, N_IN] * place, out, threshold, zero, size)
        if inside < columns:
            _clear_padding(out, table[layer, N_OUT], inside, columns, zero)
    n_out = table[depth - 1, N_OUT]
    _write_tile(last, 0, n_out, columns, call[OUTPUT] + network * batch * n_out * size, first, inside, zero)


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
    d_levels: Any,
    scratch: Any,
    gradients: int,
    network: int,
    call: Any,
    limits: Any,
) -> None:
    """Takes the gradient of one tile back through one network.

    Args:
        table: (layers, FIELDS) of the network.
        first: First sample of the tile.
        vectors: Width of the tile.
        levels: (layers,) address of the activations that each layer read, all tiles one after the other.
        d_levels: (layers,) address for the gradient of what each layer gave, likewise.
        scratch: Two addresses, each for a tile of the widest level.
        gradients: Address of the sums of gradients, 0 if none are wanted.
        network: Place of the network.
        call: (PASS,) arguments of the step.
        limits: (0, -inf, NaN) of the element type.
    """
    columns, depth, zero, size, batch = vectors * LANES, table.shape[0], limits[0], call[SIZE], call[BATCH]
    inside, lowest = min(columns, batch - first), call[LOWEST]
    to_input, n_out = call[D_INPUT] != 0, table[depth - 1, N_OUT]
    here = _gradient_place(table[depth - 1], d_levels[depth - 1], first, scratch[0], gradients, size)
    _read_tile(call[D_OUTPUT] + network * batch * n_out * size, n_out, first, inside, columns, here, zero)
    for layer in range(depth - 1, (0 if to_input else lowest) - 1, -1):
        if table[layer, SAMPLE] != 0:
            for entry in range(table[layer, N_OUT] * columns):
                write_real(
                    table[layer, SAMPLE], table[layer, N_OUT] * first + entry, read_real(here, entry, zero), zero
                )
        x = levels[layer] + table[layer, N_IN] * first * size
        if gradients != 0 and layer >= lowest and table[layer, PANEL_ROWS] == 0:
            tile_parameter_gradients(vectors, table[layer], x, here, gradients, zero, size)
        if layer > lowest or to_input:
            # The input of the network went through no ReLU: nothing is at or below NaN. Elsewhere padding stays 0.
            threshold = zero if layer > 0 else limits[2]
            there = scratch[(depth - layer) % 2]
            if layer > 0:
                there = _gradient_place(table[layer - 1], d_levels[layer - 1], first, there, gradients, size)
            tile_input_gradient(vectors, table[layer], here, there, x, threshold, zero, size)
            here = there
    if to_input:
        width = call[D_WIDTH]
        out = call[D_INPUT] + network * batch * width * size
        _write_tile(here, table[0, N_IN] - width, width, columns, out, first, inside, zero)


@compiled()
def _gradient_place(layer: Any, level: int, first: int, scratch: int, gradients: int, size: int) -> Any:
    """Address for the gradient of what a layer gives for a tile: kept for the panels of its rows, or in `scratch`."""
    if gradients == 0 or layer[PANEL_ROWS] == 0:
        return scratch
    return level + layer[N_OUT] * first * size


@step_function()
def panel_step(share: int, shares: int, arguments: int, zero: Any) -> None:
    """Gradients by values and biases of the layers that form them in panels of rows, over all tiles at once."""
    call = int64_array(arguments, (PASS,))
    table = int64_array(call[TABLE], (call[NETWORKS], call[DEPTH], FIELDS))
    tiles = int64_array(call[TILES], (call[N_TILES], 2))
    levels = int64_array(call[LEVELS], (call[NETWORKS], call[DEPTH]))
    d_levels = int64_array(call[D_LEVELS], (call[NETWORKS], call[DEPTH]))
    gradients, before = read_int64(call[SUMS], 0), 0
    for network in range(call[NETWORKS]):
        for position in range(call[LOWEST], call[DEPTH]):
            layer, x, dy = table[network, position], levels[network, position], d_levels[network, position]
            before += layer_in_panels(share, shares, before, layer, tiles, x, dy, gradients, zero, call[SIZE])


@compiled()
def layer_in_panels(
    share: int,
    shares: int,
    before: int,
    layer: Any,
    tiles: Any,
    x: int,
    dy: int,
    gradients: int,
    zero: Any,
    size: int,
) -> Any:
    """A share of the gradients by values and biases of a layer in panels of rows; gives the number of panels.

    Args:
        share: Which share, of so many `shares`.
        shares: Shares.
        before: Panels of earlier layers, which have been dealt already.
        layer: (FIELDS,) of the layer; without `PANEL_ROWS` there is nothing to do.
        tiles: (tiles, 2) first sample and width in vectors.
        x: Address of what it read, all tiles one after the other.
        dy: Address of the gradient of what it gave, likewise.
        gradients: Address of the sums of gradients.
        zero: Of the element type.
        size: Bytes of an element.
    """
    rows = layer[PANEL_ROWS]
    if rows == 0:
        return 0
    panels = (layer[N_OUT] + rows - 1) // rows
    for panel in range(panels):
        if (before + panel) % shares != share:
            continue
        begin, end = panel * rows, min(layer[N_OUT], (panel + 1) * rows)
        _clear_rows(layer, begin, end, gradients, zero)
        for tile in range(len(tiles)):
            first, vectors = tiles[tile]
            _panel_gradients(
                vectors,
                layer,
                begin,
                end,
                x + layer[N_IN] * first * size,
                dy + layer[N_OUT] * first * size,
                gradients,
                zero,
                size,
            )
    return panels


@compiled()
def _clear_rows(layer: Any, begin: int, end: int, gradients: int, zero: Any) -> None:
    """Sets the sums of gradients by values and biases of some rows of a layer to 0."""
    row_ptr = layer[ROW_PTR]
    for entry in range(read_int64(row_ptr, begin), read_int64(row_ptr, end)):
        write_real(gradients, layer[D_VALUES] + entry, zero, zero)
    if layer[BIAS] != 0:
        for row in range(begin, end):
            write_real(gradients, layer[D_BIAS] + row, zero, zero)


@compiled()
def _limits(call: Any, zero: Any) -> Any:
    """(0, -inf, NaN) of the element type."""
    return read_real(call[LIMITS], 0, zero), read_real(call[LIMITS], 1, zero), read_real(call[LIMITS], 2, zero)


@step_function()
def forward_step(share: int, shares: int, arguments: int, zero: Any) -> None:
    """Takes a batch through all networks."""
    call = int64_array(arguments, (PASS,))
    table = int64_array(call[TABLE], (call[NETWORKS], call[DEPTH], FIELDS))
    tiles = int64_array(call[TILES], (call[N_TILES], 2))
    levels = int64_array(call[LEVELS], (call[NETWORKS] if call[KEPT] == 1 else shares, call[DEPTH]))
    for task in range(share, call[NETWORKS] * call[N_TILES], shares):
        network, tile = task // call[N_TILES], task % call[N_TILES]
        first, vectors = tiles[tile]
        own = levels[network if call[KEPT] == 1 else share]
        _forward_tile(
            table[network], first, vectors, own, read_int64(call[LAST], share), network, call, _limits(call, zero)
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
            values, count = layer[VALUES], read_int64(layer[ROW_PTR], layer[N_OUT])
            for entry in range(count * worker // workers, count * (worker + 1) // workers):
                write_real(ordered, entry, read_real(values, read_uint32(slots, entry), zero), zero)


@step_function()
def backward_step(share: int, shares: int, arguments: int, zero: Any) -> None:
    """Takes gradients back through all networks; each share sums those of parameters on its own."""
    call = int64_array(arguments, (PASS,))
    table = int64_array(call[TABLE], (call[NETWORKS], call[DEPTH], FIELDS))
    tiles = int64_array(call[TILES], (call[N_TILES], 2))
    levels = int64_array(call[LEVELS], (call[NETWORKS], call[DEPTH]))
    scratch = int64_array(call[SCRATCH], (shares, 2))
    d_levels = int64_array(call[D_LEVELS], (call[NETWORKS], call[DEPTH]))
    gradients = read_int64(call[SUMS], share)
    clear_sums(gradients, table, call[LOWEST], zero)
    for task in range(share, call[NETWORKS] * call[N_TILES], shares):
        network, tile = task // call[N_TILES], task % call[N_TILES]
        first, vectors = tiles[tile]
        _backward_tile(
            table[network],
            first,
            vectors,
            levels[network],
            d_levels[network],
            scratch[share],
            gradients,
            network,
            call,
            _limits(call, zero),
        )


@compiled()
def clear_sums(gradients: int, table: Any, lowest: int, zero: Any) -> None:
    """Sets a share's sums of gradients to 0, if there are any; not those that panels form from layer `lowest` on."""
    if gradients == 0:
        return
    for network in range(table.shape[0]):
        for position in range(table.shape[1]):
            layer = table[network, position]
            if position < lowest or layer[PANEL_ROWS] == 0:
                _clear_rows(layer, 0, layer[N_OUT], gradients, zero)


@step_function()
def total_step(share: int, shares: int, arguments: int, zero: Any) -> None:
    """Adds the sums of all shares to those of the first, in order, and so the networks' gradients of the input."""
    call = int64_array(arguments, (PASS,))
    table = int64_array(call[TABLE], (call[NETWORKS], call[DEPTH], FIELDS))
    add_up(share, shares, int64_array(call[SUMS], (shares,)), table, zero)
    if call[D_INPUT] != 0:
        count = call[BATCH] * call[D_WIDTH]
        for entry in range(count * share // shares, count * (share + 1) // shares):
            total = read_real(call[D_INPUT], entry, zero)
            for network in range(1, call[NETWORKS]):
                total += read_real(call[D_INPUT], network * count + entry, zero)
            write_real(call[D_INPUT], entry, total, zero)


@compiled()
def add_up(share: int, shares: int, gradients: Any, table: Any, zero: Any) -> None:
    """Adds all shares' sums to those of the first, in order; a share of the entries of each layer without panels."""
    if gradients[0] == 0:
        return
    for network in range(table.shape[0]):
        for position in range(table.shape[1]):
            layer = table[network, position]
            if layer[PANEL_ROWS] != 0:
                continue
            values, biases = read_int64(layer[ROW_PTR], layer[N_OUT]), layer[N_OUT] if layer[BIAS] != 0 else 0
            _add_share(share, shares, gradients, layer[D_VALUES], values, zero)
            _add_share(share, shares, gradients, layer[D_BIAS], biases, zero)


@compiled()
def _add_share(share: int, shares: int, gradients: Any, begin: int, count: int, zero: Any) -> None:
    """Adds a share of `count` sums from `begin` on of all shares to those of the first."""
    for other in range(1, shares):
        for entry in range(begin + count * share // shares, begin + count * (share + 1) // shares):
            total = read_real(gradients[0], entry, zero) + read_real(gradients[other], entry, zero)
            write_real(gradients[0], entry, total, zero)
