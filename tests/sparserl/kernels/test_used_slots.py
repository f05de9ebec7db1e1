"""Networks whose products use some of the connections alone: the others have a gradient and no other part."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from support.blocks import force_blocks
from support.networks import backward, forward, of_mask, random_mask

from sparserl.kernels import BACKENDS, CsrIndex, GradientRequest, Linear, Networks, plan

WIDTHS = (30, 64, 35, 5)


def used_index(mask: np.ndarray, seed: int, share: float = 0.5) -> CsrIndex:
    index = of_mask(mask)
    used = np.flatnonzero(np.random.default_rng(seed).random(index.nnz) < share).astype(np.uint32)
    return replace(index, used=used)


def networks_of(count: int, dtype: torch.dtype = torch.float32, share: float = 0.5) -> Networks:
    generator = torch.Generator().manual_seed(0)
    chains = []
    for network in range(count):
        layers = []
        for at, (n_in, n_out) in enumerate(pairwise(WIDTHS)):
            index = used_index(random_mask(n_out, n_in, 0.4), 10 * network + at, share)
            values = torch.randn(index.nnz, generator=generator, dtype=dtype)
            layers.append(Linear(index, values, torch.randn(n_out, generator=generator, dtype=dtype)))
        chains.append(layers)
    return Networks(chains)


def twin(layers: tuple[Linear, ...], x: torch.Tensor, dy: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Outputs, gradient of the input, and gradients by all values: dense matrices in which others than used are 0."""
    x, weights = x.clone().requires_grad_(), []
    h = x
    for at, layer in enumerate(layers):
        used = layer.index.used.astype(np.int64)  # type: ignore[union-attr]  # some are
        weight = torch.zeros(layer.index.n_rows, layer.index.n_cols, dtype=x.dtype)
        weight[layer.index.rows[used], layer.index.col[used].astype(np.int64)] = layer.values[torch.from_numpy(used)]
        weights.append(weight.requires_grad_())
        h = torch.nn.functional.linear(torch.relu(h) if at else h, weight, layer.bias)
    h.backward(dy)  # type: ignore[no-untyped-call]
    by_values = [
        weight.grad[layer.index.rows, layer.index.col.astype(np.int64)]  # type: ignore[index]  # it took part
        for weight, layer in zip(weights, layers, strict=True)
    ]
    return h.detach(), x.grad, *by_values  # type: ignore[return-value]  # likewise


@pytest.mark.parametrize("backend", BACKENDS)
def test_worked_by_hand(backend: str) -> None:
    # Positions (0, 1), (0, 2), (1, 0) of 2 x 3 with weights 2, 3, 5, of which the first and the last are used.
    row_ptr, col = np.array([0, 2, 3]), np.array([1, 2, 0], np.uint32)
    index = CsrIndex(2, 3, row_ptr, col, np.array([0, 2], np.uint32))
    networks = Networks([[Linear(index, torch.tensor([2.0, 3.0, 5.0]), None)]])
    y, saved = forward(BACKENDS[backend], networks, torch.tensor([[1.0, 10.0, 100.0]] * 2), keep=True)
    assert y[0].tolist() == [[20.0, 5.0]] * 2
    given = torch.tensor([[[1.0, 2.0], [0.0, 0.0]]])
    gradients = backward(BACKENDS[backend], networks, saved, given, GradientRequest())
    assert gradients.parameters is not None
    assert gradients.parameters[0].tolist() == [10.0, 100.0, 2.0]  # of the unused one, too
    assert gradients.x is not None
    assert gradients.x.tolist() == [[10.0, 2.0, 0.0], [0.0, 0.0, 0.0]]
    assert forward(BACKENDS[backend], networks, torch.tensor([[1.0, 10.0, 100.0]]), keep=False)[0].tolist() == [
        [[20.0, 5.0]]
    ]
    # Two samples: a product of two connections forward and toward the input, of three toward the weights.
    assert networks.forward_flops(2) == 8
    assert networks.backward_flops(2, GradientRequest()) == 8 + 12
    assert networks.backward_flops(2, GradientRequest(inputs=False)) == 12
    assert networks.backward_flops(2, GradientRequest(parameters=False)) == 8


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("batch", [1, 2, 50, 300])
@pytest.mark.parametrize("kernels", ["by row", "by block", "in panels"])
def test_equals_dense_matrices(monkeypatch: pytest.MonkeyPatch, kernels: str, batch: int, backend: str) -> None:
    if kernels == "by block":
        force_blocks(monkeypatch, 8)
    if kernels == "in panels":
        monkeypatch.setattr(plan, "gradient_panel", lambda n_rows, n_cols, nnz, size: 7)
    networks = networks_of(2, torch.float64)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, WIDTHS[0], generator=generator, dtype=torch.float64)
    dy = torch.randn(2, batch, WIDTHS[-1], generator=generator, dtype=torch.float64)
    alone = forward(BACKENDS[backend], networks, x, keep=False)[0]
    y, saved = forward(BACKENDS[backend], networks, x, keep=True)
    gradients = backward(BACKENDS[backend], networks, saved, dy, GradientRequest())
    assert gradients.parameters is not None
    of_inputs = []
    for network, layers in enumerate(networks.networks):
        expected, by_input, *by_values = twin(layers, x, dy[network])
        torch.testing.assert_close(y[network], expected)
        torch.testing.assert_close(alone[network], expected)
        of_inputs.append(by_input)
        for at, one in enumerate(by_values):
            torch.testing.assert_close(gradients.parameters[2 * (network * (len(WIDTHS) - 1) + at)], one)
    torch.testing.assert_close(gradients.x, sum(of_inputs))


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_none_and_all_may_be_used(share: float) -> None:
    networks = networks_of(1, torch.float64, share)
    x, dy = torch.randn(20, WIDTHS[0], dtype=torch.float64), torch.randn(1, 20, WIDTHS[-1], dtype=torch.float64)
    y, saved = forward(BACKENDS["cpu"], networks, x, keep=True)
    gradients = backward(BACKENDS["cpu"], networks, saved, dy, GradientRequest())
    expected, by_input, *by_values = twin(networks.networks[0], x, dy[0])
    torch.testing.assert_close(y[0], expected)
    torch.testing.assert_close(gradients.x, by_input)
    for at, one in enumerate(by_values):
        torch.testing.assert_close(gradients.parameters[2 * at], one)  # type: ignore[index]  # they are asked for


def test_weights_are_read_at_each_pass() -> None:
    networks = networks_of(1, torch.float64)
    x = torch.randn(20, WIDTHS[0], dtype=torch.float64)
    before = forward(BACKENDS["cpu"], networks, x, keep=True)[0]
    one = forward(BACKENDS["cpu"], networks, x[:1], keep=False)[0]
    for layer in networks.networks[0]:
        layer.values.mul_(2.0)
        assert layer.bias is not None
        layer.bias.mul_(0.0)
    for change, rows in ((before, x), (one, x[:1])):
        now = forward(BACKENDS["cpu"], networks, rows, keep=False)[0]
        torch.testing.assert_close(now[0], twin(networks.networks[0], rows, torch.zeros(len(rows), 5).double())[0])
        assert not torch.allclose(now, change)


def test_derived_memory_is_counted() -> None:
    index = used_index(random_mask(40, 30, 0.3), 0)
    assert index.used is not None
    assert index.derived_bytes() == index.used.nbytes
    _ = index.transposed
    k = index.used.size
    of_product, of_transposed = 8 * 41 + 4 * k, 8 * 31 + 4 * k + 4 * k
    assert index.derived_bytes() == 4 * k + of_product + of_transposed
