"""The loss by hand, and its derivative against autograd's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from sparserl.continual.supervised.losses import cross_entropy


def test_it_is_as_worked_by_hand() -> None:
    logits = np.log([[3.0, 1.0], [1.0, 1.0]])
    loss, gradient = cross_entropy(logits, np.array([0, 1]))
    assert loss == pytest.approx((np.log(4 / 3) + np.log(2)) / 2)
    np.testing.assert_allclose(gradient, [[-1 / 8, 1 / 8], [1 / 4, -1 / 4]])


def test_a_weighted_mean_is_as_worked_by_hand() -> None:
    logits = np.log([[3.0, 1.0], [1.0, 1.0]])
    loss, gradient = cross_entropy(logits, np.array([0, 1]), np.array([1.0, 3.0]))
    assert loss == pytest.approx(np.log(4 / 3) / 4 + 3 * np.log(2) / 4)
    np.testing.assert_allclose(gradient, [[-1 / 16, 1 / 16], [3 / 8, -3 / 8]])


@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_as_torch_computes_it(weighted: bool) -> None:
    rng = np.random.default_rng(0)
    logits, labels = 50 * rng.standard_normal((20, 5)).astype(np.float32), rng.integers(5, size=20)
    weights = rng.random(5).astype(np.float32) if weighted else None
    loss, gradient = cross_entropy(logits, labels, weights)
    given = torch.tensor(logits, requires_grad=True)
    expected = functional.cross_entropy(
        given, torch.tensor(labels), weight=None if weights is None else torch.tensor(weights)
    )
    expected.backward()  # type: ignore[no-untyped-call]
    assert given.grad is not None
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    np.testing.assert_allclose(gradient, given.grad.numpy(), atol=1e-7)
    assert gradient.dtype == np.float32
