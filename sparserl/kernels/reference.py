"""The products in plain torch: slow, O(nnz * batch) memory, and the definition of what is right."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sparserl.kernels.deferred import Array, computed
from sparserl.kernels.index import CsrIndex
from sparserl.kernels.networks import (
    CONSTANT,
    NORMS,
    ActivationPair,
    BatchStatistics,
    GradientRequest,
    Gradients,
    Linear,
    Networks,
    Norm,
)

FUNCTIONS = {"identity": lambda x: x, "relu": torch.relu, "tanh": torch.tanh}
"""What follows a layer, by its name."""


def _rows_cols(index: CsrIndex) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(index.rows), torch.from_numpy(index.col.astype("int64"))


def _values(layer: Linear) -> torch.Tensor:
    """(k,) of the slots that products use."""
    used = layer.index.used
    return layer.values.detach() if used is None else layer.values.detach()[torch.from_numpy(used.astype("int64"))]


def product(layer: Linear, x: torch.Tensor) -> torch.Tensor:
    """(n_rows, B): the sparse matrix times `x` (n_cols, B), plus the bias in every column."""
    rows, cols = _rows_cols(layer.index.product)
    out = x.new_zeros(layer.index.n_rows, x.shape[1])
    if layer.bias is not None:
        out += layer.bias.detach()[:, None]
    return out.index_add_(0, rows, _values(layer)[:, None] * x[cols])


def input_gradient(layer: Linear, dy: torch.Tensor) -> torch.Tensor:
    """(n_cols, B): the transposed matrix times `dy` (n_rows, B)."""
    rows, cols = _rows_cols(layer.index.product)
    out = dy.new_zeros(layer.index.n_cols, dy.shape[1])
    return out.index_add_(0, cols, _values(layer)[:, None] * dy[rows])


def value_gradient(layer: Linear, x: torch.Tensor, dy: torch.Tensor) -> torch.Tensor:
    """(nnz,) inner products over the batch of row `out` of `dy` and row `in` of `x`."""
    rows, cols = _rows_cols(layer.index)
    return (dy[rows] * x[cols]).sum(dim=1)


def normalized(norm: Norm | None, level: torch.Tensor) -> torch.Tensor:
    """(n, B) what a product reads of a level (n, B)."""
    if norm is None:
        return level
    if norm.batch is not None:
        center, factor, _, _ = _of_batch(norm, norm.batch, level)
        return (norm.scale.detach() * factor)[:, None] * (level - center[:, None]) + norm.shift.detach()[:, None]
    return norm.scale.detach()[:, None] * _standardized(norm, level)[0] + norm.shift.detach()[:, None]


def _standardized(norm: Norm, level: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What scale and shift stand around, and the (B,) factor of the difference from the mean, if there is one."""
    if not NORMS[norm.kind].by_sample:
        return level, None
    factor = (level.var(dim=0, correction=0) + norm.epsilon).rsqrt()
    return (level - level.mean(dim=0)) * factor, factor


def _of_batch(
    norm: Norm, batch: BatchStatistics, level: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(n,) of each neuron: what is subtracted, the factor of that, and r and d; `batch` is told of the moments."""
    var, mean = torch.var_mean(level, dim=1)
    batch.latest[0], batch.latest[1] = mean, var
    running = (batch.var + norm.epsilon).sqrt()
    r_max, d_max = batch.bounds.tolist()
    r = ((var + norm.epsilon).sqrt() / running).clamp(1 / r_max, r_max)
    d = ((mean - batch.mean) / running).clamp(-d_max, d_max)
    return mean - d * var.sqrt() / r, (var / r**2 + norm.epsilon).rsqrt(), r, d


def _batch_gradients(
    norm: Norm, batch: BatchStatistics, level: torch.Tensor, dy: torch.Tensor
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """As `norm_gradients`, by the chain rule through mean and variance; r and d are constants."""
    center, factor, r, d = _of_batch(norm, batch, level)
    scale, (var, mean), number = norm.scale.detach(), torch.var_mean(level, dim=1), level.shape[1]
    by_shift, by_scale = dy.sum(dim=1), (dy * (level - center[:, None])).sum(dim=1) * factor
    by_center, by_squared = -scale * factor * by_shift, -0.5 * scale * factor**2 * by_scale
    by_root = torch.where(var > CONSTANT * norm.epsilon, -d / (2 * r * var.sqrt()), 0)
    by_var = (by_center * by_root + by_squared / r**2) * 2 / (number - 1)
    by_level = (scale * factor)[:, None] * dy + (by_center / number)[:, None]
    return by_level + by_var[:, None] * (level - mean[:, None]), [by_scale, by_shift]


def norm_gradients(norm: Norm, level: torch.Tensor, dy: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """(n, B) by the level, and by scale and shift (empty if these are given), for the gradient `dy` by the result."""
    if norm.batch is not None:
        return _batch_gradients(norm, norm.batch, level, dy)
    x, factor = _standardized(norm, level)
    learned = [(dy * x).sum(dim=1), dy.sum(dim=1)] if NORMS[norm.kind].learned_flops else [dy.new_zeros(0)] * 2
    by_x = norm.scale.detach()[:, None] * dy
    if factor is not None:
        by_x = factor * (by_x - by_x.mean(dim=0) - x * (by_x * x).mean(dim=0))
    return by_x, learned


def forward(networks: Networks, inputs: Sequence[Array], *, keep: bool) -> tuple[Array, object]:
    """Output of every network, and the levels before it. See `sparserl.kernels.Backend`."""
    del keep
    networks.check_inputs(inputs)
    x = torch.cat([torch.as_tensor(computed(part)) for part in inputs], dim=1)
    outputs, saved = [], []
    for layers in networks.networks:
        levels = [x.detach().t().clone()]
        for layer, after in zip(layers, networks.after, strict=True):
            y = product(layer, normalized(layer.norm, levels[-1]))
            if after.added is not None:
                y += levels[after.added]
            levels.append(FUNCTIONS[after.activation](y))
        outputs.append(levels.pop().t())
        saved.append(levels)
    return torch.stack(outputs).numpy(), saved


def backward(networks: Networks, saved: object, dy: Array, request: GradientRequest) -> Gradients:
    """Gradients of every network. See `sparserl.kernels.Backend`."""
    assert isinstance(saved, list)
    networks.check_gradient(dy, saved[0][0].shape[1])
    inputs, parameters, samples = [], [], {}
    dy = torch.as_tensor(computed(dy)).detach()
    for network, (layers, levels, gradient) in enumerate(zip(networks.networks, saved, dy, strict=True)):
        gradient = gradient.t()
        of_network: list[torch.Tensor] = []
        toward: dict[int, torch.Tensor] = {}  # what a level gets of sums that it is added to
        for position, (layer, level) in reversed(list(enumerate(zip(layers, levels, strict=True)))):
            added, x = networks.after[position].added, normalized(layer.norm, level)
            if added is not None:
                toward[added] = toward.get(added, 0) + gradient
            made = levels[position + 1] if position + 1 < len(levels) else None
            samples[network, position] = ActivationPair(network, position, x, gradient, made)
            bias = gradient.sum(dim=1) if layer.bias is not None else gradient.new_zeros(0)
            formed = [value_gradient(layer, x, gradient), bias]
            gradient = input_gradient(layer, gradient)
            if layer.norm is not None:
                gradient, learned = norm_gradients(layer.norm, level, gradient)
                formed += learned
            if position in toward:
                gradient = gradient + toward.pop(position)
            of_network = [*(formed if position >= request.lowest else map(torch.zeros_like, formed)), *of_network]
            activation = networks.after[position - 1].activation if position > 0 else "identity"
            if activation == "relu":
                gradient = torch.where(level <= 0, 0.0, gradient)
            elif activation == "tanh":
                gradient = gradient * (1 - level * level)
        inputs.append(gradient.t())
        parameters += of_network
    return Gradients(
        torch.stack(inputs).sum(dim=0)[:, -request.last :].numpy() if request.inputs else None,
        parameters if request.parameters else None,
        [samples[position] for position in request.samples],
    )
