"""The way back of a tile, and gradients summed over tiles: tile by tile, or in panels of rows over all tiles."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparserl.kernels.activations import gate_tile, through_tanh_tile
from sparserl.kernels.choice import BLOCK_ROWS, PANEL_COLUMNS
from sparserl.kernels.compiled import compiled
from sparserl.kernels.emitter import LANES
from sparserl.kernels.layout import (
    ACTIVATION,
    ADDED,
    BATCH,
    BEGIN,
    BIAS,
    BY_BATCH,
    BY_SAMPLE,
    COLUMN_STARTS,
    D_BIAS,
    D_FIRST,
    D_INPUT,
    D_LEVELS,
    D_OUTPUT,
    D_SCALE,
    D_SHIFT,
    D_SLOT,
    D_VALUES,
    D_WIDTH,
    DEPTH,
    END,
    ENDS,
    FIELDS,
    GROUPS,
    IN_ORDER,
    LEARNED_COL,
    LEARNED_ROW_PTR,
    LEVELS,
    LOWEST,
    N_IN,
    N_OUT,
    N_SLOTS,
    N_TILES,
    NETWORKS,
    NORM,
    PANEL_ROWS,
    PASS,
    READS,
    RELU,
    SAMPLE,
    SCRATCH,
    SIZE,
    STATISTIC_ROWS,
    STATISTICS,
    SUMS,
    T_BLOCKS,
    T_COL,
    T_COLUMNS,
    T_COUNTS,
    T_PANELS,
    T_ROW_PTR,
    TABLE,
    TANH,
    TILES,
)
from sparserl.kernels.norms import add_tile, norm_gradient
from sparserl.kernels.patterns import block_tile
from sparserl.kernels.program import step_function
from sparserl.kernels.tiles import clear_padding, limits_of, read_tile, write_tile
from sparserl.kernels.vector import int64_array, read_int64, read_real, row_gradient, row_tile, row_total, write_real

_gated_row, _gated_block = row_tile(gated=True), block_tile(BLOCK_ROWS, gated=True)


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
def tile_parameter_gradients(vectors: int, layer: Any, x: int, dy: int, gradients: int, zero: Any, size: int) -> None:
    """Adds what one tile contributes to the gradients by values and biases."""
    col, row_ptr = layer[LEARNED_COL], layer[LEARNED_ROW_PTR]
    out, biases = gradients + layer[D_VALUES] * size, gradients + layer[D_BIAS] * size
    stop = read_int64(row_ptr, 0)
    for row in range(layer[N_OUT]):
        start, stop = stop, read_int64(row_ptr, row + 1)
        from_row = dy + row * vectors * LANES * size
        row_gradient(vectors, col, start, stop, x, from_row, out, zero)
        if layer[BIAS] != 0:
            write_real(biases, row, read_real(biases, row, zero) + row_total(vectors, from_row, zero), zero)


@compiled()
def _backward_tile(
    table: Any,
    first: int,
    vectors: int,
    levels: Any,
    reads: Any,
    statistics: Any,
    d_levels: Any,
    d_first: int,
    scratch: Any,
    gradients: int,
    network: int,
    call: Any,
    limits: Any,
) -> None:
    """Takes the gradient of one tile back through the layers of one network from `END` on to `BEGIN`.

    Args:
        table: (layers, FIELDS) of the network.
        first: First sample of the tile.
        vectors: Width of the tile.
        levels: (layers,) address of the level that each layer read, all tiles one after the other.
        reads: (layers,) address of what each layer multiplied, likewise.
        statistics: (layers,) address of the statistics of its norm, likewise.
        d_levels: (layers,) address for the gradient of what each layer gave, likewise.
        d_first: Address for that of the input, where the first norm is of batches.
        scratch: (slots,) addresses, each for a tile of the widest level.
        gradients: Address of the sums of gradients, 0 if none are wanted.
        network: Index of the network.
        call: (PASS,) arguments of the step.
        limits: (0, -inf, NaN) of the element type.
    """
    columns, depth, zero, size, batch = vectors * LANES, table.shape[0], limits[0], call[SIZE], call[BATCH]
    inside, lowest = min(columns, batch - first), call[LOWEST]
    to_input, n_out = call[D_INPUT] != 0, table[depth - 1, N_OUT]
    here = d_first + table[0, N_IN] * first * size
    if call[END] > 0:
        here = _gradient_address(table, call[END] - 1, d_levels, first, scratch, gradients, size)
    if call[END] == depth:
        read_tile(call[D_OUTPUT] + network * batch * n_out * size, n_out, first, inside, columns, here, zero)
    for layer in range(call[END] - 1, max(call[BEGIN], 0 if to_input else lowest) - 1, -1):
        n_in = table[layer, N_IN]
        if table[layer, SAMPLE] != 0:
            for entry in range(table[layer, N_OUT] * columns):
                write_real(
                    table[layer, SAMPLE], table[layer, N_OUT] * first + entry, read_real(here, entry, zero), zero
                )
        learns = gradients != 0 and layer >= lowest
        if learns and table[layer, PANEL_ROWS] == 0:
            x = reads[layer] + n_in * first * size
            tile_parameter_gradients(vectors, table[layer], x, here, gradients, zero, size)
        learns_norm = learns and (table[layer, NORM] == BY_SAMPLE or table[layer, NORM] == BY_BATCH)
        if layer > lowest or to_input or learns_norm:
            level = levels[layer] + n_in * first * size
            there = scratch[table[layer, D_SLOT]]
            if layer == 0 and table[layer, NORM] == BY_BATCH:
                there = d_first + n_in * first * size
            if layer > 0:
                there = _gradient_address(table, layer - 1, d_levels, first, scratch, gradients, size)
            activation = table[layer - 1, ACTIVATION] if layer > 0 else 0
            is_gated = activation == RELU
            is_plain = table[layer, NORM] == 0
            for adding in range(layer, depth):
                is_plain = is_plain and table[adding, ADDED] != layer
            # What went through no ReLU is not gated: nothing is at or below NaN.
            threshold = zero if is_gated and is_plain else limits[2]
            tile_input_gradient(vectors, table[layer], here, there, level, threshold, zero, size)
            if table[layer, NORM] == BY_BATCH:
                return  # all tiles must be there
            if table[layer, NORM] != 0:
                of_samples = statistics[layer] + STATISTIC_ROWS * first * size
                norm_gradient(table[layer], level, vectors, there, of_samples, gradients if learns else 0, zero, size)
            for adding in range(layer, depth):
                if table[adding, ADDED] == layer:
                    by_sums = _gradient_address(table, adding, d_levels, first, scratch, gradients, size)
                    add_tile(by_sums, n_in, columns, there, 0, zero, size)
            if is_gated and not is_plain:
                gate_tile(level, n_in, columns, there, zero)
            if activation == TANH:
                through_tanh_tile(level, n_in, columns, there, zero)
            if inside < columns and not is_gated:  # a gate leaves 0 where the level is padded
                clear_padding(there, n_in, inside, columns, zero)
            here = there
    if to_input and call[ENDS] == 1:
        width = call[D_WIDTH]
        out = call[D_INPUT] + network * batch * width * size
        write_tile(here, table[0, N_IN] - width, width, columns, out, first, inside, zero)


@compiled()
def _gradient_address(
    table: Any, layer: int, d_levels: Any, first: int, scratch: Any, gradients: int, size: int
) -> Any:
    """Address for the gradient of the sums of a layer for a tile: in `scratch`, or kept.

    That is for the panels of its rows, or for a norm of batches.
    """
    is_normalised = layer + 1 < table.shape[0] and table[layer + 1, NORM] == BY_BATCH
    if not is_normalised and (gradients == 0 or table[layer, PANEL_ROWS] == 0):
        return scratch[table[layer + 1, D_SLOT] if layer + 1 < table.shape[0] else 0]
    return d_levels[layer] + table[layer, N_OUT] * first * size


@step_function()
def backward_step(share: int, shares: int, arguments: int, zero: Any) -> None:
    """Takes gradients back through layers of all networks; each share sums those of parameters on its own."""
    call = int64_array(arguments, (PASS,))
    table = int64_array(call[TABLE], (call[NETWORKS], call[DEPTH], FIELDS))
    tiles = int64_array(call[TILES], (call[N_TILES], 2))
    of_levels = call[NETWORKS], call[DEPTH]
    levels, reads = int64_array(call[LEVELS], of_levels), int64_array(call[READS], of_levels)
    statistics, d_levels = int64_array(call[STATISTICS], of_levels), int64_array(call[D_LEVELS], of_levels)
    scratch = int64_array(call[SCRATCH], (shares, call[N_SLOTS]))
    d_first = int64_array(call[D_FIRST], (call[NETWORKS],))
    gradients = read_int64(call[SUMS], share)
    if call[END] == call[DEPTH]:
        clear_sums(gradients, table, call[LOWEST], zero)
    for task in range(share, call[NETWORKS] * call[N_TILES], shares):
        network, tile = task // call[N_TILES], task % call[N_TILES]
        first, vectors = tiles[tile]
        _backward_tile(
            table[network],
            first,
            vectors,
            levels[network],
            reads[network],
            statistics[network],
            d_levels[network],
            d_first[network],
            scratch[share],
            gradients,
            network,
            call,
            limits_of(call, zero),
        )


@step_function()
def panel_step(share: int, shares: int, arguments: int, zero: Any) -> None:
    """Gradients by values and biases of the layers that form them in panels of rows, over all tiles at once."""
    call = int64_array(arguments, (PASS,))
    table = int64_array(call[TABLE], (call[NETWORKS], call[DEPTH], FIELDS))
    tiles = int64_array(call[TILES], (call[N_TILES], 2))
    reads = int64_array(call[READS], (call[NETWORKS], call[DEPTH]))
    d_levels = int64_array(call[D_LEVELS], (call[NETWORKS], call[DEPTH]))
    gradients, before = read_int64(call[SUMS], 0), 0
    for network in range(call[NETWORKS]):
        for position in range(call[LOWEST], call[DEPTH]):
            layer, x, dy = table[network, position], reads[network, position], d_levels[network, position]
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
        x: Address of what it multiplied, all tiles one after the other.
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
def _panel_gradients(
    vectors: int, layer: Any, begin: int, end: int, x: int, dy: int, gradients: int, zero: Any, size: int
) -> None:
    """Adds what one tile contributes to the gradients by values and biases of the rows from `begin` on before `end`."""
    col, starts, n_out = layer[LEARNED_COL], layer[COLUMN_STARTS], layer[N_OUT]
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
def _clear_rows(layer: Any, begin: int, end: int, gradients: int, zero: Any) -> None:
    """Sets the sums of gradients by values and biases of some rows of a layer to 0."""
    row_ptr = layer[LEARNED_ROW_PTR]
    for entry in range(read_int64(row_ptr, begin), read_int64(row_ptr, end)):
        write_real(gradients, layer[D_VALUES] + entry, zero, zero)
    if layer[BIAS] != 0:
        for row in range(begin, end):
            write_real(gradients, layer[D_BIAS] + row, zero, zero)


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
            for neuron in range(layer[N_IN] if layer[NORM] == BY_SAMPLE or layer[NORM] == BY_BATCH else 0):
                write_real(gradients, layer[D_SCALE] + neuron, zero, zero)
                write_real(gradients, layer[D_SHIFT] + neuron, zero, zero)


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
            if layer[NORM] == BY_SAMPLE:
                _add_share(share, shares, gradients, layer[D_SCALE], layer[N_IN], zero)
                _add_share(share, shares, gradients, layer[D_SHIFT], layer[N_IN], zero)
            if layer[PANEL_ROWS] != 0:
                continue
            values, biases = read_int64(layer[LEARNED_ROW_PTR], layer[N_OUT]), layer[N_OUT] if layer[BIAS] != 0 else 0
            _add_share(share, shares, gradients, layer[D_VALUES], values, zero)
            _add_share(share, shares, gradients, layer[D_BIAS], biases, zero)


@compiled()
def _add_share(share: int, shares: int, gradients: Any, begin: int, count: int, zero: Any) -> None:
    """Adds a share of `count` sums from `begin` on of all shares to those of the first."""
    for other in range(1, shares):
        for entry in range(begin + count * share // shares, begin + count * (share + 1) // shares):
            total = read_real(gradients[0], entry, zero) + read_real(gradients[other], entry, zero)
            write_real(gradients[0], entry, total, zero)
