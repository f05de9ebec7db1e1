"""A small dense model, and its training loop as users write it."""

from __future__ import annotations

import torch
from torch import nn

from sparserl.layers import SparseLinear
from sparserl.layers.sparsify import SparseTraining


def perceptron(n_in: int = 12, hidden: int = 40, n_out: int = 3, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(n_in, hidden, dtype=dtype),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, hidden, dtype=dtype),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, n_out, dtype=dtype),
    )


def problem(n_in: int = 12, n_out: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(64, n_in, generator=torch.Generator().manual_seed(1))
    return x, torch.sin(2 * x[:, :n_out]) + x[:, 1 : 1 + n_out]


def train(model: nn.Module, optimizer: torch.optim.Optimizer, evolver: SparseTraining | None, updates: int) -> float:
    x, y = problem()
    for _ in range(updates):
        optimizer.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        if evolver is not None:
            evolver.step()
    return loss.item()


def kinds(model: nn.Module) -> dict[str, str]:
    return {name: type(m).__name__ for name, m in model.named_modules() if isinstance(m, nn.Linear | SparseLinear)}
