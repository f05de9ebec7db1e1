"""The three products of one layer, one at a time, on activations that lie in tiles: what `bench kernels` times."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import torch

from sparserl.kernels import Linear, Networks
from sparserl.kernels.emitter import LANES
from sparserl.kernels.gradients import (
    add_up,
    clear_sums,
    layer_in_panels,
    tile_input_gradient,
    tile_parameter_gradients,
)
from sparserl.kernels.layout import BACKWARD, FORWARD, N_IN, N_OUT
from sparserl.kernels.plan import plan_of, tiles_of
from sparserl.kernels.tiles import order_share, tile_product
from sparserl.layers import SparseLinear


class TiledLayer:
    """A layer with random input and output gradient, padded to whole vectors.

    Args:
        layer: With biases, float32.
        batch: Samples.
    """

    def __init__(self, layer: SparseLinear, batch: int):
        assert layer.bias is not None
        self._layer = layer
        self._plan = plan_of(Networks([[Linear(layer.index, layer.values.detach(), layer.bias.detach())]]))
        padded = -(-batch // LANES) * LANES
        self._batch, self._x, self._dy = batch, torch.randn(layer.n_in * padded), torch.randn(layer.n_out * padded)
        self._y, self._dx = torch.empty_like(self._dy), torch.empty_like(self._x)
        self._nowhere = np.zeros(torch.get_num_threads(), np.int64)

    def forward(self) -> torch.Tensor:
        """`W x + b`, all tiles; weights are put in the order of blocks first, where the layer has any."""
        self._run(_forward, self._x, self._y, self._nowhere)
        return self._y

    def input_gradient(self) -> torch.Tensor:
        """`W^T dy` where `x` is positive, all tiles; weights are put in transposed order first."""
        self._plan.transpose_from(0)
        self._run(_input_gradient, self._dy, self._dx, self._nowhere)
        return self._dx

    def value_gradient(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Inner products of rows of `dy` and `x`, all tiles: (nnz,), and (n_out,) those of the biases."""
        sums = self._plan.sums(torch.get_num_threads(), reuse=True)
        self._run(_value_gradient, self._x, self._dy, sums.addresses)
        values, biases = sums.totals
        return values, biases

    def _run(self, kernels: tuple[Any, Any], a: torch.Tensor, b: torch.Tensor, sums: npt.NDArray[np.int64]) -> None:
        workers = torch.get_num_threads()
        tiles = tiles_of(self._batch, self._plan.tile_vectors, workers)
        at = np.array([a.data_ptr(), b.data_ptr(), self._x.data_ptr()], np.int64)
        serial, parallel = kernels
        numba.set_num_threads(workers)
        task = self._plan.table, tiles, at, self._plan.limits, sums
        (serial if workers == 1 else parallel)(workers, *task)


@numba.njit(nogil=True)
def _forward_share(worker: int, workers: int, table: Any, tiles: Any, at: Any, limits: Any, *_: Any) -> None:
    layer = table[0, 0]
    for tile in range(worker, len(tiles), workers):
        first, vectors = tiles[tile]
        x, y = at[0] + layer[N_IN] * first * 4, at[1] + layer[N_OUT] * first * 4
        tile_product(vectors, layer, x, y, limits[1], limits[0], 4)


@numba.njit(nogil=True)
def _order_forward_share(worker: int, workers: int, table: Any, tiles: Any, at: Any, limits: Any, *_: Any) -> None:
    order_share(worker, workers, table, 0, FORWARD, limits[0])


@numba.njit(nogil=True)
def _order_share(worker: int, workers: int, table: Any, tiles: Any, at: Any, limits: Any, *_: Any) -> None:
    order_share(worker, workers, table, 0, BACKWARD, limits[0])


@numba.njit(nogil=True)
def _input_gradient_share(worker: int, workers: int, table: Any, tiles: Any, at: Any, limits: Any, *_: Any) -> None:
    layer = table[0, 0]
    for tile in range(worker, len(tiles), workers):
        first, vectors = tiles[tile]
        dy, dx, x = at[0] + layer[N_OUT] * first * 4, at[1] + layer[N_IN] * first * 4, at[2] + layer[N_IN] * first * 4
        tile_input_gradient(vectors, layer, dy, dx, x, limits[0], limits[0], 4)


@numba.njit(nogil=True)
def _value_gradient_share(worker: int, workers: int, table: Any, tiles: Any, at: Any, limits: Any, sums: Any) -> None:
    layer = table[0, 0]
    if layer_in_panels(worker, workers, 0, layer, tiles, at[0], at[1], sums[0], limits[0], 4) > 0:
        return
    clear_sums(sums[worker], table, 0, limits[0])
    for tile in range(worker, len(tiles), workers):
        first, vectors = tiles[tile]
        x, dy = at[0] + layer[N_IN] * first * 4, at[1] + layer[N_OUT] * first * 4
        tile_parameter_gradients(vectors, layer, x, dy, sums[worker], limits[0], 4)


@numba.njit(nogil=True)
def _total_share(worker: int, workers: int, table: Any, tiles: Any, at: Any, limits: Any, sums: Any) -> None:
    add_up(worker, workers, sums, table, limits[0])


def _in_turn(*shares: Any) -> tuple[Any, Any]:
    """Kernels for one thread and for several, which wait for each other after each of one or two shares."""
    first, last = shares[0], shares[-1]
    two = len(shares) == 2

    @numba.njit(nogil=True)
    def serial(workers: int, *task: Any) -> None:
        first(0, workers, *task)
        if two:
            last(0, workers, *task)

    @numba.njit(nogil=True, parallel=True)
    def parallel(workers: int, *task: Any) -> None:
        for worker in numba.prange(workers):
            first(np.int64(worker), workers, *task)
        if two:
            for worker in numba.prange(workers):
                last(np.int64(worker), workers, *task)

    return serial, parallel


_forward = _in_turn(_order_forward_share, _forward_share)
_input_gradient = _in_turn(_order_share, _input_gradient_share)
_value_gradient = _in_turn(_value_gradient_share, _total_share)
