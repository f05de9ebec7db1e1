"""Masks, and networks over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from sparserl.kernels import Backend, CsrIndex, GradientRequest, Gradients, Linear, Networks, Norm


def forward(kernels: Backend, networks: Networks, x: torch.Tensor, *, keep: bool) -> tuple[torch.Tensor, object]:
    """As the backend, with an input in one part and an output of torch."""
    y, saved = kernels.forward(networks, [x], keep=keep)
    return torch.from_numpy(y), saved


def backward(
    kernels: Backend, networks: Networks, saved: object, dy: torch.Tensor, request: GradientRequest
) -> Gradients:
    """As the backend, with a gradient of torch."""
    gradients = kernels.backward(networks, saved, dy, request)
    return replace(gradients, x=None if gradients.x is None else torch.from_numpy(gradients.x))


def of_mask(mask: np.ndarray) -> CsrIndex:
    row_ptr = np.concatenate([[0], mask.sum(axis=1).cumsum()]).astype(np.int64)
    return CsrIndex(*mask.shape, row_ptr, np.nonzero(mask)[1].astype(np.uint32))


def random_mask(n_out: int, n_in: int, density: float) -> np.ndarray:
    return np.random.default_rng(n_out * 1000 + n_in).random((n_out, n_in)) < density


def with_gaps() -> np.ndarray:
    mask = random_mask(19, 31, 0.5)
    mask[[0, 1, 7, 18]] = False
    mask[:, [0, 5, 29, 30]] = False
    return mask


MASKS = {
    "odd widths": random_mask(37, 23, 0.3),
    "wide": random_mask(5, 257, 0.2),
    "tall": random_mask(129, 3, 0.4),
    "0 to 40 connections a row": np.tri(41, 40, -1, dtype=bool),
    "0 to 40 connections a column": np.tri(41, 40, -1, dtype=bool).T.copy(),
    "empty rows and columns": with_gaps(),
    "one neuron a side": np.ones((1, 1), bool),
    "one output": random_mask(1, 41, 0.6),
    "one input": random_mask(41, 1, 0.6),
    "full": np.ones((13, 11), bool),
    "no connection": np.zeros((6, 4), bool),
    "one connection": np.eye(1, 35, 22, dtype=bool).reshape(5, 7),
}


def whole(*shape: int, among: Sequence[int], dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    """Small whole numbers: sums of their products are exact in any order, and can be compared bit for bit."""
    drawn = np.random.default_rng([seed, *shape]).choice(among, size=shape)
    return torch.from_numpy(drawn).to(dtype)


def whole_networks(
    widths: Sequence[int],
    count: int,
    dtype: torch.dtype,
    *,
    density: float = 0.4,
    bias: bool = True,
    among: Sequence[int] = (-1, 1),
) -> Networks:
    """Random topologies, different in each network, with whole weights and biases."""
    rng = np.random.default_rng([count, *widths])

    def layer(n_in: int, n_out: int, seed: int) -> Linear:
        index = of_mask(rng.random((n_out, n_in)) < density)
        values = whole(index.nnz, among=among, dtype=dtype, seed=seed)
        return Linear(index, values, whole(n_out, among=among, dtype=dtype, seed=seed + 1) if bias else None)

    return Networks(
        [[layer(*shape, seed=100 * n + 2 * at) for at, shape in enumerate(pairwise(widths))] for n in range(count)]
    )


def drawn_layer(
    rng: np.random.Generator, n_in: int, n_out: int, dtype: torch.dtype, kind: str | None, density: float = 0.4
) -> Linear:
    """Normal weights over random connections, none of some neurons, and a norm that is not the identity."""
    mask = rng.random((n_out, n_in)) < density
    mask[1 :: n_out // 2 + 1] = False
    mask[:, 2 :: n_in // 2 + 2] = False

    def drawn(size: int) -> torch.Tensor:
        return torch.from_numpy(rng.normal(size=size)).to(dtype)

    index = of_mask(mask)
    norm = None if kind is None else Norm(kind, 1 + 0.5 * drawn(n_in), drawn(n_in), 1e-3)
    return Linear(index, drawn(index.nnz), drawn(n_out), norm)


def given(networks: Networks, batch: int, *, seed: int = 1, mean: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Normal inputs, and a gradient of the outputs."""
    draws = torch.Generator().manual_seed(seed)
    x = mean + torch.randn(batch, networks.widths[0], generator=draws, dtype=networks.dtype)
    return x, torch.randn(len(networks.networks), batch, networks.widths[-1], generator=draws, dtype=networks.dtype)


def mlp(*sizes: int) -> nn.Sequential:
    """Dense layers alone."""
    return nn.Sequential(*(nn.Linear(n_in, n_out) for n_in, n_out in pairwise(sizes)))
