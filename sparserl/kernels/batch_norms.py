"""Norms of each neuron over all samples: steps that stand between those of layers, for all tiles must be there.

Neurons are dealt to shares, and each goes through the tiles in order, so results do not depend on the number of shares.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sparserl.kernels.activations import gate_tile, through_tanh_tile
from sparserl.kernels.compiled import compiled
from sparserl.kernels.emitter import LANES
from sparserl.kernels.layout import (
    ACTIVATION,
    ALONG,
    BATCH,
    BEGIN,
    BOUNDS,
    BY_ROOT,
    CENTER,
    D_FIRST,
    D_LEVELS,
    D_SCALE,
    D_SHIFT,
    DEPTH,
    EPSILON,
    FACTOR,
    FIELDS,
    INVERSE,
    LATEST,
    LEVELS,
    LOWEST,
    MEAN,
    N_IN,
    N_TILES,
    NETWORKS,
    PASS,
    RATIO,
    RELU,
    RUNNING_MEAN,
    RUNNING_VAR,
    SCALE,
    SIZE,
    STATISTICS,
    SUMS,
    TABLE,
    TANH,
    TILES,
    TOTAL,
)
from sparserl.kernels.networks import CONSTANT
from sparserl.kernels.program import step_function
from sparserl.kernels.vector import array_at, int64_array, read_int64, read_real, write_real

_ADDED_IN_ANY_ORDER: Any = {"reassoc"}
"""What lets sums along the samples of a neuron be vector code."""


@step_function()
def batch_step(share: int, shares: int, arguments: int, zero: Any) -> None:
    """Statistics of the level that layer `BEGIN` reads."""
    call = int64_array(arguments, (PASS,))
    table = int64_array(call[TABLE], (call[NETWORKS], call[DEPTH], FIELDS))
    tiles = int64_array(call[TILES], (call[N_TILES], 2))
    levels = int64_array(call[LEVELS], (call[NETWORKS], call[DEPTH]))
    statistics = int64_array(call[STATISTICS], (call[NETWORKS], call[DEPTH]))
    position = call[BEGIN]
    for network in range(call[NETWORKS]):
        layer = table[network, position]
        begin, end = layer[N_IN] * share // shares, layer[N_IN] * (share + 1) // shares
        level, rows = levels[network, position], statistics[network, position]
        _moments(layer, level, rows, begin, end, tiles, call[BATCH], zero, call[SIZE])
        _renormalise(layer, rows, begin, end, call[BATCH], zero, call[SIZE])


@compiled(fastmath=_ADDED_IN_ANY_ORDER)
def _total(x: Any, inside: int, zero: Any) -> Any:
    total = zero
    for column in range(inside):
        total += x[column]
    return total


@compiled(fastmath=_ADDED_IN_ANY_ORDER)
def _spread(x: Any, center: Any, inside: int, zero: Any) -> Any:
    total = zero
    for column in range(inside):
        total += (x[column] - center) * (x[column] - center)
    return total


@compiled(fastmath=_ADDED_IN_ANY_ORDER)
def _along(x: Any, center: Any, gradient: Any, inside: int, zero: Any) -> Any:
    total = zero
    for column in range(inside):
        total += (x[column] - center) * gradient[column]
    return total


@compiled()
def _moments(
    layer: Any, level: int, rows: int, begin: int, end: int, tiles: Any, batch: int, zero: Any, size: int
) -> None:
    """Mean and variance without bias of the neurons from `begin` on before `end`; the latter as `ALONG` for now."""
    n = layer[N_IN]
    mean, var = array_at(rows + MEAN * n * size, (n,), zero), array_at(rows + ALONG * n * size, (n,), zero)
    for neuron in range(begin, end):
        mean[neuron], var[neuron] = zero, zero
    for tile in range(len(tiles)):
        first, columns = tiles[tile, 0], tiles[tile, 1] * LANES
        inside = min(columns, batch - first)
        for neuron in range(begin, end):
            x = array_at(level + (n * first + neuron * columns) * size, (columns,), zero)
            mean[neuron] += _total(x, inside, zero)
    for neuron in range(begin, end):
        mean[neuron] /= type(zero)(batch)
    for tile in range(len(tiles)):
        first, columns = tiles[tile, 0], tiles[tile, 1] * LANES
        inside = min(columns, batch - first)
        for neuron in range(begin, end):
            x = array_at(level + (n * first + neuron * columns) * size, (columns,), zero)
            var[neuron] += _spread(x, mean[neuron], inside, zero)
    for neuron in range(begin, end):
        var[neuron] /= type(zero)(batch - 1)


@compiled(error_model="numpy")
def _renormalise(layer: Any, rows: int, begin: int, end: int, batch: int, zero: Any, size: int) -> None:
    """What the norm of each neuron is, given its moments; the formulas are those of `BatchRenorm`."""
    n, one, two = layer[N_IN], type(zero)(1), type(zero)(2)
    epsilon = read_real(layer[EPSILON], 0, zero)
    r_max, d_max = read_real(layer[BOUNDS], 0, zero), read_real(layer[BOUNDS], 1, zero)
    for neuron in range(begin, end):
        mean, var = read_real(rows, MEAN * n + neuron, zero), read_real(rows, ALONG * n + neuron, zero)
        write_real(layer[LATEST], neuron, mean, zero)
        write_real(layer[LATEST], n + neuron, var, zero)
        root, running = np.sqrt(var), np.sqrt(read_real(layer[RUNNING_VAR], neuron, zero) + epsilon)
        r = min(max(np.sqrt(var + epsilon) / running, one / r_max), r_max)
        d = min(max((mean - read_real(layer[RUNNING_MEAN], neuron, zero)) / running, -d_max), d_max)
        inverse = one / np.sqrt(var / (r * r) + epsilon)
        write_real(rows, INVERSE * n + neuron, inverse, zero)
        write_real(rows, FACTOR * n + neuron, inverse * read_real(layer[SCALE], neuron, zero), zero)
        write_real(rows, CENTER * n + neuron, mean - d * root / r, zero)
        varies = var > type(zero)(CONSTANT) * epsilon
        write_real(rows, BY_ROOT * n + neuron, -d / (two * r * root) if varies else zero, zero)
        write_real(rows, RATIO * n + neuron, r, zero)


@step_function()
def batch_gradient_step(share: int, shares: int, arguments: int, zero: Any) -> None:
    """Makes the gradient by the level that layer `BEGIN` reads of that by what it multiplies, in place.

    Gradients by scale and shift go to the sums of the first share, the only ones that they are part of.
    """
    call = int64_array(arguments, (PASS,))
    table = int64_array(call[TABLE], (call[NETWORKS], call[DEPTH], FIELDS))
    tiles = int64_array(call[TILES], (call[N_TILES], 2))
    of_levels = call[NETWORKS], call[DEPTH]
    levels, statistics = int64_array(call[LEVELS], of_levels), int64_array(call[STATISTICS], of_levels)
    d_levels, d_first = int64_array(call[D_LEVELS], of_levels), int64_array(call[D_FIRST], (call[NETWORKS],))
    position = call[BEGIN]
    gradients = read_int64(call[SUMS], 0) if position >= call[LOWEST] else 0
    for network in range(call[NETWORKS]):
        layer, rows = table[network, position], statistics[network, position]
        begin, end = layer[N_IN] * share // shares, layer[N_IN] * (share + 1) // shares
        level, dy, activation = levels[network, position], d_first[network], np.int64(0)
        if position > 0:
            dy, activation = d_levels[network, position - 1], table[network, position - 1, ACTIVATION]
        _gradient_sums(layer, level, dy, rows, begin, end, tiles, call[BATCH], gradients, zero, call[SIZE])
        _gradient(layer, level, dy, rows, begin, end, tiles, call[BATCH], activation, zero, call[SIZE])


@compiled()
def _gradient_sums(
    layer: Any,
    level: int,
    dy: int,
    rows: int,
    begin: int,
    end: int,
    tiles: Any,
    batch: int,
    gradients: int,
    zero: Any,
    size: int,
) -> None:
    """`TOTAL` and `ALONG` of some neurons, and the gradients by scale and shift unless `gradients` is 0."""
    n = layer[N_IN]
    total, along = array_at(rows + TOTAL * n * size, (n,), zero), array_at(rows + ALONG * n * size, (n,), zero)
    center = array_at(rows + CENTER * n * size, (n,), zero)
    for neuron in range(begin, end):
        total[neuron], along[neuron] = zero, zero
    for tile in range(len(tiles)):
        first, columns = tiles[tile, 0], tiles[tile, 1] * LANES
        inside = min(columns, batch - first)
        for neuron in range(begin, end):
            at = (n * first + neuron * columns) * size
            x, gradient = array_at(level + at, (columns,), zero), array_at(dy + at, (columns,), zero)
            total[neuron] += _total(gradient, inside, zero)
            along[neuron] += _along(x, center[neuron], gradient, inside, zero)
    if gradients != 0:
        for neuron in range(begin, end):
            by_scale = along[neuron] * read_real(rows, INVERSE * n + neuron, zero)
            write_real(gradients, layer[D_SCALE] + neuron, by_scale, zero)
            write_real(gradients, layer[D_SHIFT] + neuron, total[neuron], zero)


@compiled(error_model="numpy")
def _gradient(
    layer: Any,
    level: int,
    dy: int,
    rows: int,
    begin: int,
    end: int,
    tiles: Any,
    batch: int,
    activation: int,
    zero: Any,
    size: int,
) -> None:
    """The gradient by the level of some neurons, taken through the activation before it."""
    n, two = layer[N_IN], type(zero)(2)
    half, number, others = type(zero)(0.5), type(zero)(batch), type(zero)(batch - 1)
    for tile in range(len(tiles)):
        first, columns = tiles[tile, 0], tiles[tile, 1] * LANES
        inside = min(columns, batch - first)
        for neuron in range(begin, end):
            factor, inverse = read_real(rows, FACTOR * n + neuron, zero), read_real(rows, INVERSE * n + neuron, zero)
            r, mean = read_real(rows, RATIO * n + neuron, zero), read_real(rows, MEAN * n + neuron, zero)
            by_center = -factor * read_real(rows, TOTAL * n + neuron, zero)
            by_squared = -half * factor * inverse * inverse * read_real(rows, ALONG * n + neuron, zero) / (r * r)
            by_var = two * (by_center * read_real(rows, BY_ROOT * n + neuron, zero) + by_squared) / others
            by_mean = by_center / number
            at = (n * first + neuron * columns) * size
            x, gradient = array_at(level + at, (columns,), zero), array_at(dy + at, (columns,), zero)
            for column in range(inside):
                gradient[column] = factor * gradient[column] + by_mean + by_var * (x[column] - mean)
            if activation == RELU:
                gate_tile(level + at, 1, inside, dy + at, zero)
            if activation == TANH:
                through_tanh_tile(level + at, 1, inside, dy + at, zero)
