"""The products in plain torch: slow, O(nnz * batch) memory, and the definition of what is right."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sparserl.kernels.deferred import Array, computed
from sparserl.kernels.index import CsrIndex
from sparserl.kernels.networks import ActivationPair, GradientRequest, Gradients, Linear, Networks


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


def forward(networks: Networks, inputs: Sequence[Array], *, keep: bool) -> tuple[Array, object]:
    """Output of every network, and the inputs of its layers. See `sparserl.kernels.Backend`."""
    del keep
    networks.check_inputs(inputs)
    x = torch.cat([torch.as_tensor(computed(part)) for part in inputs], dim=1)
    outputs, saved = [], []
    for layers in networks.networks:
        levels = [x.detach().t().clone()]
        for position, layer in enumerate(layers):
            levels.append(product(layer, levels[-1] if position == 0 else torch.relu(levels[-1])))
        outputs.append(levels.pop().t())
        saved.append([levels[0], *map(torch.relu, levels[1:])])
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
        for position, (layer, x) in reversed(list(enumerate(zip(layers, levels, strict=True)))):
            read_next = levels[position + 1] if position + 1 < len(levels) else None
            samples[network, position] = ActivationPair(network, position, x, gradient, read_next)
            bias = gradient.sum(dim=1) if layer.bias is not None else gradient.new_zeros(0)
            formed = [value_gradient(layer, x, gradient), bias]
            of_network = [*(formed if position >= request.lowest else map(torch.zeros_like, formed)), *of_network]
            gradient = input_gradient(layer, gradient)
            if position > 0:
                gradient = torch.where(x <= 0, 0.0, gradient)
        inputs.append(gradient.t())
        parameters += of_network
    return Gradients(
        torch.stack(inputs).sum(dim=0)[:, -request.last :].numpy() if request.inputs else None,
        parameters if request.parameters else None,
        [samples[position] for position in request.samples],
    )
