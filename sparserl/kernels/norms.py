"""What stands around the products of a tile: norms, and levels that are added to sums.

A tile holds all neurons of its samples, so the statistics of a sample are of one tile. Loops go along the samples of a
neuron, which are contiguous: they are compiled to vector code.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sparserl.kernels.compiled import compiled
from sparserl.kernels.emitter import LANES
from sparserl.kernels.layout import (
    BY_BATCH,
    BY_SAMPLE,
    CENTER,
    D_SCALE,
    D_SHIFT,
    EPSILON,
    FACTOR,
    N_IN,
    NORM,
    RELU,
    SCALE,
    SHIFT,
)
from sparserl.kernels.vector import array_at, read_real, row_total, write_real


@compiled(error_model="numpy")
def norm_tile(layer: Any, level: int, columns: int, out: int, statistics: int, zero: Any, size: int) -> None:
    """One tile of what a layer multiplies.

    Args:
        layer: (FIELDS,) of the layer, which has a norm.
        level: Address of the tile that it reads.
        columns: Samples of the tile.
        out: Address for the result.
        statistics: Address for two rows: mean of each sample, and the factor of the difference from it; of the
            statistics of neurons where the norm is of batches.
        zero: Of the element type.
        size: Bytes of an element.
    """
    neurons = layer[N_IN]
    if layer[NORM] == BY_BATCH:
        for neuron in range(neurons):
            scale, shift = read_real(statistics, FACTOR * neurons + neuron, zero), read_real(layer[SHIFT], neuron, zero)
            center = read_real(statistics, CENTER * neurons + neuron, zero)
            x, y = _row(level, neuron, columns, zero, size), _row(out, neuron, columns, zero, size)
            for column in range(columns):
                y[column] = (x[column] - center) * scale + shift
        return
    if layer[NORM] != BY_SAMPLE:
        for neuron in range(neurons):
            scale, shift = read_real(layer[SCALE], neuron, zero), read_real(layer[SHIFT], neuron, zero)
            x, y = _row(level, neuron, columns, zero, size), _row(out, neuron, columns, zero, size)
            for column in range(columns):
                y[column] = x[column] * scale + shift
        return
    mean, factor = _row(statistics, 0, columns, zero, size), _row(statistics, 1, columns, zero, size)
    for column in range(columns):
        mean[column], factor[column] = zero, zero
    share = type(zero)(1) / type(zero)(neurons)
    for neuron in range(neurons):
        x = _row(level, neuron, columns, zero, size)
        for column in range(columns):
            mean[column] += x[column]
    for column in range(columns):
        mean[column] *= share
    for neuron in range(neurons):
        x = _row(level, neuron, columns, zero, size)
        for column in range(columns):
            apart = x[column] - mean[column]
            factor[column] += apart * apart
    epsilon, one = read_real(layer[EPSILON], 0, zero), type(zero)(1)
    for column in range(columns):
        factor[column] = one / np.sqrt(factor[column] * share + epsilon)
    for neuron in range(neurons):
        scale, shift = read_real(layer[SCALE], neuron, zero), read_real(layer[SHIFT], neuron, zero)
        x, y = _row(level, neuron, columns, zero, size), _row(out, neuron, columns, zero, size)
        for column in range(columns):
            y[column] = (x[column] - mean[column]) * factor[column] * scale + shift


@compiled()
def norm_gradient(
    layer: Any, level: int, vectors: int, dy: int, statistics: int, gradients: int, zero: Any, size: int
) -> None:
    """Makes the gradient by a level of that by what a layer multiplies, in place; adds those by scale and shift.

    Args:
        layer: (FIELDS,) of the layer, which has a norm.
        level: Address of the tile that it reads.
        vectors: Width of the tile.
        dy: Address of the tile of the gradient.
        statistics: Address of those of `norm_tile`, and of three more rows.
        gradients: Address of a share's sums of gradients, 0 if none are wanted.
        zero: Of the element type.
        size: Bytes of an element.
    """
    neurons, columns = layer[N_IN], vectors * LANES
    if layer[NORM] != BY_SAMPLE:
        for neuron in range(neurons):
            scale, gradient = read_real(layer[SCALE], neuron, zero), _row(dy, neuron, columns, zero, size)
            for column in range(columns):
                gradient[column] *= scale
        return
    mean, factor = _row(statistics, 0, columns, zero, size), _row(statistics, 1, columns, zero, size)
    along, total = _row(statistics, 2, columns, zero, size), _row(statistics, 3, columns, zero, size)
    product = _row(statistics, 4, columns, zero, size)
    for column in range(columns):
        along[column], total[column] = zero, zero
    for neuron in range(neurons):
        scale = read_real(layer[SCALE], neuron, zero)
        x, gradient = _row(level, neuron, columns, zero, size), _row(dy, neuron, columns, zero, size)
        for column in range(columns):
            product[column] = gradient[column] * ((x[column] - mean[column]) * factor[column])
            along[column] += scale * product[column]
            total[column] += scale * gradient[column]
        if gradients != 0:
            by_scale = row_total(vectors, statistics + 4 * columns * size, zero)
            by_shift = row_total(vectors, dy + neuron * columns * size, zero)
            _add(gradients, layer[D_SCALE] + neuron, by_scale, zero)
            _add(gradients, layer[D_SHIFT] + neuron, by_shift, zero)
    share = type(zero)(1) / type(zero)(neurons)
    for column in range(columns):
        along[column] *= share
        total[column] *= share
    for neuron in range(neurons):
        scale = read_real(layer[SCALE], neuron, zero)
        x, gradient = _row(level, neuron, columns, zero, size), _row(dy, neuron, columns, zero, size)
        for column in range(columns):
            standard = (x[column] - mean[column]) * factor[column]
            rest = scale * gradient[column] - total[column] - standard * along[column]
            gradient[column] = factor[column] * rest


@compiled()
def add_tile(level: int, neurons: int, columns: int, out: int, activation: int, zero: Any, size: int) -> None:
    """Adds a level to a tile, then takes the ReLU if that is the activation; NaN passes."""
    for neuron in range(neurons):
        x, y = _row(level, neuron, columns, zero, size), _row(out, neuron, columns, zero, size)
        for column in range(columns):
            y[column] += x[column]
            if activation == RELU and y[column] < zero:
                y[column] = zero


@compiled()
def _row(tile: int, neuron: int, columns: int, zero: Any, size: int) -> Any:
    """(columns,) the samples of a neuron."""
    return array_at(tile + neuron * columns * size, (columns,), zero)


@compiled()
def _add(array: int, entry: int, more: Any, zero: Any) -> None:
    write_real(array, entry, read_real(array, entry, zero) + more, zero)
