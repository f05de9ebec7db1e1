"""The three products of one layer, one at a time, on activations that lie in tiles: what `bench kernels` times."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch

from sparserl.kernels import Linear, Networks
from sparserl.kernels.cpu import launch, plan_of, tiles_of
from sparserl.kernels.tiles import N_IN, N_OUT, tile_input_gradient, tile_parameter_gradients, tile_product
from sparserl.kernels.vector import LANES
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

    def forward(self) -> torch.Tensor:
        """`W x + b`, all tiles."""
        self._run(_forward, self._x, self._y, self._x)
        return self._y

    def input_gradient(self) -> torch.Tensor:
        """`W^T dy` where `x` is positive, all tiles."""
        self._plan.put_in_order(0)
        self._run(_input_gradient, self._dy, self._dx, self._x)
        return self._dx

    def value_gradient(self) -> torch.Tensor:
        """Inner products of rows of `dy` and `x`, all tiles: (nnz + n_out,) with those of the biases."""
        sums = self._plan.sums(torch.get_num_threads(), reuse=True)
        self._run(_value_gradient, self._x, self._dy, sums.memory)
        sums.total()
        return sums.memory[0]

    def _run(self, kernels: tuple[Any, Any], a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> None:
        workers = torch.get_num_threads()
        tiles = tiles_of(self._batch, self._plan.widest, workers)
        addresses = np.array([a.data_ptr(), b.data_ptr(), c.data_ptr(), c.numel() // workers * 4], np.int64)
        launch(workers, kernels, (self._plan.table[0, 0], tiles, addresses, self._plan.limits))


@numba.njit(nogil=True)
def _forward_share(worker: int, workers: int, layer: Any, tiles: Any, at: Any, limits: Any) -> None:
    for tile in range(worker, len(tiles), workers):
        first, vectors = tiles[tile]
        x, y = at[0] + layer[N_IN] * first * 4, at[1] + layer[N_OUT] * first * 4
        tile_product(vectors, layer, x, y, limits[1], limits[0], 4)


@numba.njit(nogil=True)
def _input_gradient_share(worker: int, workers: int, layer: Any, tiles: Any, at: Any, limits: Any) -> None:
    for tile in range(worker, len(tiles), workers):
        first, vectors = tiles[tile]
        dy, dx, x = at[0] + layer[N_OUT] * first * 4, at[1] + layer[N_IN] * first * 4, at[2] + layer[N_IN] * first * 4
        tile_input_gradient(vectors, layer, dy, dx, x, limits[0], limits[0], 4)


@numba.njit(nogil=True)
def _value_gradient_share(worker: int, workers: int, layer: Any, tiles: Any, at: Any, limits: Any) -> None:
    for tile in range(worker, len(tiles), workers):
        first, vectors = tiles[tile]
        x, dy = at[0] + layer[N_IN] * first * 4, at[1] + layer[N_OUT] * first * 4
        tile_parameter_gradients(vectors, layer, x, dy, at[2] + worker * at[3], limits[0], 4)


def _serial_and_parallel(share: Any) -> tuple[Any, Any]:
    @numba.njit(nogil=True)
    def serial(workers: int, layer: Any, tiles: Any, at: Any, limits: Any) -> None:
        share(0, workers, layer, tiles, at, limits)

    @numba.njit(nogil=True, parallel=True)
    def parallel(workers: int, layer: Any, tiles: Any, at: Any, limits: Any) -> None:
        for worker in numba.prange(workers):
            share(worker, workers, layer, tiles, at, limits)

    return serial, parallel


_forward, _input_gradient, _value_gradient = map(
    _serial_and_parallel, (_forward_share, _input_gradient_share, _value_gradient_share)
)
