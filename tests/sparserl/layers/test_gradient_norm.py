"""Gradients scaled to a norm: by hand, as torch does it, and where tensors are replaced between."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from sparserl.kernels.program import deferred
from sparserl.layers.gradient_norm import GradientNorm


def parameters(*gradients: torch.Tensor | None) -> list[nn.Parameter]:
    made = []
    for gradient in gradients:
        parameter = nn.Parameter(torch.zeros(3) if gradient is None else torch.zeros_like(gradient))
        parameter.grad = None if gradient is None else gradient.clone()
        made.append(parameter)
    return made


def test_by_hand() -> None:
    found = parameters(torch.tensor([3.0, 0.0]), None, torch.tensor([[-4.0]]))
    norm = GradientNorm(found)
    norm.clip(5.1)  # the norm is 5
    assert found[0].grad.tolist() == [3.0, 0.0]  # type: ignore[union-attr]
    norm.clip(2.5)
    np.testing.assert_allclose(found[0].grad, [1.5, 0.0], rtol=1e-6)  # type: ignore[arg-type]
    np.testing.assert_allclose(found[2].grad, [[-2.0]], rtol=1e-6)  # type: ignore[arg-type]
    assert found[1].grad is None
    GradientNorm(parameters(None)).clip(1.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("most", [1e-3, 1.0, 50.0, float("inf")])
@pytest.mark.parametrize("special", [None, float("nan"), float("inf")])
def test_as_torch_does_it(most: float, dtype: torch.dtype, special: float | None) -> None:
    torch.manual_seed(0)
    gradients = [torch.randn(40, 7, dtype=dtype), torch.randn(9, dtype=dtype), torch.randn(1, dtype=dtype)]
    if special is not None:
        gradients[1][4] = special
    ours, theirs = parameters(*gradients), parameters(*gradients)
    GradientNorm(ours).clip(most)
    torch.nn.utils.clip_grad_norm_(theirs, most)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-6, atol=0, equal_nan=True)


def test_gradients_may_be_replaced_and_steps_may_wait() -> None:
    found = parameters(torch.tensor([3.0, 4.0]))
    norm = GradientNorm(found)
    with deferred():
        norm.clip(1.0)
    torch.testing.assert_close(found[0].grad, torch.tensor([0.6, 0.8]))
    found[0].grad = torch.tensor([0.0, 8.0])
    norm.clip(2.0)
    torch.testing.assert_close(found[0].grad, torch.tensor([0.0, 2.0]))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda whole: pickle.loads(pickle.dumps(whole))])
def test_a_copy_leaves_the_original_alone(copied: object) -> None:
    found = parameters(torch.tensor([3.0, 4.0]))
    norm = GradientNorm(found)
    norm.clip(10.0)
    twin = copied(norm)  # type: ignore[operator]
    twin._parameters[0].grad = torch.tensor([3.0, 4.0])
    twin.clip(1.0)
    torch.testing.assert_close(twin._parameters[0].grad, torch.tensor([0.6, 0.8]))
    assert found[0].grad.tolist() == [3.0, 4.0]  # type: ignore[union-attr]
