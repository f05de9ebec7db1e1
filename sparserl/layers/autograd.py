"""One autograd node for a whole chain of linear layers, with feature-major activations inside.

Decides what is saved for the backward pass and which gradients are formed. Refuses to know how products are computed
(`sparserl.kernels`) and which connections exist (`sparserl.topology`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn


@dataclass(frozen=True)
class Activation:
    """An elementwise non-linearity whose slope follows from its output.

    Attributes:
        apply_: Replaces pre-activations by activations, in place.
        chain_: Multiplies a gradient by the slope, in place, given the activations.
    """

    apply_: Callable[[torch.Tensor], Any]
    chain_: Callable[[torch.Tensor, torch.Tensor], Any]


def _relu_chain(gradient: torch.Tensor, activated: torch.Tensor) -> torch.Tensor:
    chained: torch.Tensor = torch.ops.aten.threshold_backward.grad_input(gradient, activated, 0, grad_input=gradient)
    return chained


ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(torch.relu_, _relu_chain),
    "tanh": Activation(torch.tanh_, lambda gradient, activated: gradient.mul_(1 - activated * activated)),
    "identity": Activation(lambda x: x, lambda gradient, activated: gradient),
}


class SparseProducts(Protocol):
    """The products of a sparse layer, feature-major and without autograd; `SparseLinear` has them."""

    n_out: int
    values: nn.Parameter
    bias: nn.Parameter | None
    capture: bool
    captured: list[tuple[torch.Tensor, torch.Tensor]]

    def product(self, values: torch.Tensor, bias: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
        """`W x + b`."""

    def product_transposed(self, values: torch.Tensor, dy: torch.Tensor) -> torch.Tensor:
        """`W^T dy`."""

    def value_gradient(self, x: torch.Tensor, dy: torch.Tensor) -> torch.Tensor:
        """(nnz,) gradient of the loss by each weight."""


ChainLayer = SparseProducts | nn.Linear


def chain(layers: Sequence[ChainLayer], activations: Sequence[str], x: torch.Tensor) -> torch.Tensor:
    """Applies linear layers with an activation after each, as one autograd node.

    Args:
        layers: `SparseLinear` or `nn.Linear`, in order.
        activations: A name of `ACTIVATIONS` for each layer.
        x: (B, n_in) input, B >= 1.

    Returns:
        (B, n_out) output.
    """
    parameters = [p for layer in layers for p in _parameters(layer)]
    y: torch.Tensor = _Chain.apply(x, layers, activations, *parameters)  # type: ignore[no-untyped-call]
    return y


def _parameters(layer: ChainLayer) -> tuple[torch.Tensor, torch.Tensor | None]:
    return (layer.weight if isinstance(layer, nn.Linear) else layer.values), layer.bias


class _Chain(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, layers: Sequence[ChainLayer], activations: Sequence[str], *parameters: torch.Tensor
    ) -> torch.Tensor:
        h = x.detach().t().contiguous()  # detached: it may be `x` itself, and what is captured must hold no graph
        saved = [h]
        for position, (layer, activation) in enumerate(zip(layers, activations, strict=True)):
            weight, bias = parameters[2 * position : 2 * position + 2]
            if isinstance(layer, nn.Linear):
                y = weight @ h if bias is None else torch.addmm(bias[:, None], weight, h)
            else:
                y = layer.product(weight, bias, h)
            ACTIVATIONS[activation].apply_(y)
            saved.append(y)
            h = y
        ctx.layers, ctx.activations = layers, activations
        ctx.save_for_backward(*saved, *parameters[::2])
        return h.t().clone()  # a view could not be modified in place, as `nn.ReLU(inplace=True)` does

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[Any, ...]:
        # `once_differentiable` would pass `create_graph=True` in silence where the incoming gradient is a constant.
        if torch.is_grad_enabled():
            raise RuntimeError("sparse layers have no second derivative: `create_graph=True` is not supported")
        (gradient,) = gradients
        depth = len(ctx.layers)
        saved, weights = ctx.saved_tensors[: depth + 1], ctx.saved_tensors[depth + 1 :]
        needs_x, _, _, *needs = ctx.needs_input_grad
        result: list[torch.Tensor | None] = [None] * len(needs)
        dy = gradient.t().clone(memory_format=torch.contiguous_format)
        for position in reversed(range(depth)):
            layer, weight = ctx.layers[position], weights[position]
            x, y = saved[position], saved[position + 1]
            ACTIVATIONS[ctx.activations[position]].chain_(dy, y)
            dense = isinstance(layer, nn.Linear)
            if not dense and layer.capture:
                layer.captured.append((x, dy))
            if needs[2 * position]:
                result[2 * position] = dy @ x.t() if dense else layer.value_gradient(x, dy)
            if needs[2 * position + 1]:
                result[2 * position + 1] = dy.sum(dim=1)
            if not needs_x and not any(needs[: 2 * position]):
                break
            dy = weight.t() @ dy if dense else layer.product_transposed(weight, dy)
        return (dy.t() if needs_x else None, None, None, *result)
