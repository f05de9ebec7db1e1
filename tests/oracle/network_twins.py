"""What networks compute, in torch's own operations and with torch's own derivatives; for tests only.

`dense` multiplies (n_out, n_in) matrices. `by_connection` adds up one product per connection, so that what is infinite
or NaN meets no zero that stands for an absent connection.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from sparserl.kernels import CsrIndex, Networks, Norm

FUNCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "identity": torch.clone,
    "relu": torch.relu,
    "tanh": torch.tanh,
}
Product = Callable[[CsrIndex, torch.Tensor, torch.Tensor | None, torch.Tensor], torch.Tensor]


@dataclass
class TwinResult:
    """Outputs and gradients, named as those of a backend.

    Attributes:
        y: (N, B, n_out).
        x: (B, n_in) gradient of the input.
        parameters: Gradients by values, bias and, where there is a norm, its scale and shift, of each layer, network
            after network; empty where there is no bias or the norm is given.
        samples: (network, layer) to what is multiplied (n_in, B) and gradient of the sums (n_out, B).
    """

    y: torch.Tensor
    x: torch.Tensor
    parameters: list[torch.Tensor]
    samples: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]]


def dense(index: CsrIndex, values: torch.Tensor, bias: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
    """`W x + b` with a dense `W`."""
    at = torch.from_numpy(index.rows), torch.from_numpy(index.col.astype(np.int64))
    weight = values.new_zeros(index.n_rows, index.n_cols).index_put(at, values)
    return torch.nn.functional.linear(x, weight, bias)


def by_connection(index: CsrIndex, values: torch.Tensor, bias: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
    """`W x + b`, slot after slot."""
    outputs = []
    for row in range(index.n_rows):
        total = x.new_zeros(len(x)) if bias is None else bias[row].expand(len(x))
        for slot in range(index.row_ptr[row], index.row_ptr[row + 1]):
            total = total + values[slot] * x[:, int(index.col[slot])]
        outputs.append(total)
    return torch.stack(outputs, dim=1)


def by_batch(x: torch.Tensor, norm: Norm) -> torch.Tensor:
    """(B, n) normalised over B, without scale and shift; r and d have no derivative."""
    assert norm.batch is not None
    r_max, d_max = norm.batch.bounds.tolist()
    mean, var = x.mean(dim=0), x.var(dim=0)
    running = (norm.batch.var + norm.epsilon).sqrt()
    r = ((var.detach() + norm.epsilon).sqrt() / running).clamp(1 / r_max, r_max)
    d = ((mean.detach() - norm.batch.mean) / running).clamp(-d_max, d_max)
    varies = var.detach() > 1e-6 * norm.epsilon
    root = torch.where(varies, torch.where(varies, var, 1.0).sqrt(), 0.0)
    return (x - (mean - d * root / r)) / (var / r**2 + norm.epsilon).sqrt()


def twin_of(networks: Networks, x: torch.Tensor, dy: torch.Tensor, product: Product = dense) -> TwinResult:
    """Runs networks forward and, given the gradient `dy` (N, B, n_out) of the outputs, backward."""
    x = x.detach().clone().requires_grad_()
    leaves, outputs, ends = [], [], {}
    for network, layers in enumerate(networks.networks):
        h = x
        levels = [x]
        for position, (layer, after) in enumerate(zip(layers, networks.after, strict=True)):
            bias = torch.empty(0, dtype=x.dtype) if layer.bias is None else layer.bias.detach().clone()
            leaves += [layer.values.detach().clone().requires_grad_(), bias.requires_grad_()]
            values, h = leaves[-2], levels[-1]
            if layer.norm is not None:
                scale, shift = (t.detach().clone() for t in (layer.norm.scale, layer.norm.shift))
                if layer.norm.kind == "layer":
                    leaves += [scale.requires_grad_(), shift.requires_grad_()]
                    h = torch.nn.functional.layer_norm(h, (h.shape[1],), scale, shift, layer.norm.epsilon)
                elif layer.norm.batch is not None:
                    leaves += [scale.requires_grad_(), shift.requires_grad_()]
                    h = by_batch(h, layer.norm) * scale + shift
                else:
                    leaves += [torch.empty(0, dtype=x.dtype, requires_grad=True) for _ in range(2)]
                    h = h * scale + shift
            y = product(layer.index, values, None if layer.bias is None else bias, h)
            if after.added is not None:
                y = y + levels[after.added]
            ends[network, position] = h, y
            levels.append(FUNCTIONS[after.activation](y))
        outputs.append(levels[-1])
    y, reached = torch.stack(outputs), [end for _, end in ends.values()]
    gradients = torch.autograd.grad(y, [x, *leaves, *reached], dy, materialize_grads=True)
    by_leaf, by_output = gradients[1 : 1 + len(leaves)], gradients[1 + len(leaves) :]
    samples = {
        place: (h.detach().t(), gradient.t()) for (place, (h, _)), gradient in zip(ends.items(), by_output, strict=True)
    }
    return TwinResult(y.detach(), gradients[0], list(by_leaf), samples)
