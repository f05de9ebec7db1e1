"""What tests of fused ensembles share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from oracle.masked_dense import MaskedMLP
from torch import nn

from sparserl.layers import SparseEnsemble, SparseLinear, SparseMLP
from sparserl.topology.rewire import random_topology

WIDTH = 6


def sparse(n_in: int, n_out: int, nnz: int, seed: int = 0, bias: bool = True) -> SparseLinear:
    return SparseLinear(random_topology(n_out, n_in, nnz, np.random.default_rng([n_in, n_out, seed])), bias)


NETWORKS: dict[str, Callable[[int], SparseMLP]] = {
    "sparse": lambda seed: SparseMLP([sparse(6, 15, 40, seed), sparse(15, 13, 50, seed), sparse(13, 4, 30, seed)]),
    "one layer": lambda seed: SparseMLP([sparse(6, 4, 13, seed)]),
    "dense ends": lambda seed: SparseMLP([nn.Linear(6, 15), sparse(15, 13, 50, seed), nn.Linear(13, 4)]),
    "no bias": lambda seed: SparseMLP([sparse(6, 15, 40, seed, bias=False), nn.Linear(15, 4, bias=False)]),
    "tanh at the end": lambda seed: SparseMLP([sparse(6, 15, 40, seed), sparse(15, 4, 30, seed)], "relu", "tanh"),
    "tanh inside": lambda seed: SparseMLP([sparse(6, 15, 40, seed), sparse(15, 4, 30, seed)], "tanh"),
    "sigmoid inside": lambda seed: SparseMLP([sparse(6, 15, 40, seed), sparse(15, 4, 30, seed)], "sigmoid"),
    "all dense": lambda seed: SparseMLP([nn.Linear(6, 15), nn.Linear(15, 4)]),
}


def ensemble_of(name: str, count: int = 3) -> tuple[list[SparseMLP], SparseEnsemble]:
    networks = [NETWORKS[name](seed) for seed in range(count)]
    return networks, SparseEnsemble(networks)


def parameters_of(networks: list[SparseMLP]) -> list[nn.Parameter]:
    return [parameter for network in networks for parameter in network.parameters()]


def backward(outputs: Any, networks: list[SparseMLP]) -> list[torch.Tensor]:
    """Gradients of all parameters, when each output is pulled towards another number."""
    loss = torch.stack([(y - number).square().sum() for number, y in enumerate(outputs)]).sum()
    return list(torch.autograd.grad(loss, parameters_of(networks), retain_graph=True))


def assert_equals_twin(networks: list[SparseMLP], ensemble: SparseEnsemble | None) -> None:
    """Outputs and gradients, through the ensemble or one network at a time."""
    dtype = parameters_of(networks)[0].dtype
    x, x_twin = (torch.linspace(-1, 1, 19 * WIDTH, dtype=dtype).reshape(19, WIDTH).requires_grad_() for _ in range(2))
    outputs = [network(x) for network in networks] if ensemble is None else ensemble(x)
    for output, network in zip(outputs, networks, strict=True):
        twin = MaskedMLP(network, network.activations)
        expected = twin(x_twin)
        torch.testing.assert_close(output, expected)
        network.zero_grad()
        output.square().sum().backward(retain_graph=True)
        expected.square().sum().backward()
        for position, layer in enumerate(network):
            values, weight = layer.weight if isinstance(layer, nn.Linear) else layer.values, twin.weights[position]
            ours = weight.grad if isinstance(layer, nn.Linear) else twin.gather(position, weight.grad)
            torch.testing.assert_close(values.grad, ours)
            if layer.bias is not None:
                torch.testing.assert_close(layer.bias.grad, twin.biases[position].grad)
    torch.testing.assert_close(x.grad, x_twin.grad)
