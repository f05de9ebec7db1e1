"""Attention of sparse projections against torch's with masked weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from oracle.masked_dense import dense_weight
from torch import nn

from sparserl import sparsify
from sparserl.errors import ConfigError
from sparserl.layers.attention import SparseAttention
from sparserl.layers.replaceable import FORMS


def pair(**options: Any) -> tuple[SparseAttention, nn.MultiheadAttention]:
    """A sparse attention, and torch's with the weights of that."""
    torch.manual_seed(0)
    dense = nn.MultiheadAttention(12, 3, dtype=torch.float64, **options)
    for bias in (dense.in_proj_bias, dense.out_proj.bias):
        if bias is not None:
            nn.init.normal_(bias)
    model = nn.Sequential(dense)
    training = sparsify(model, torch.optim.SGD(model.parameters(), lr=0.1), density=0.4, allocation="uniform")
    with torch.no_grad():
        for name, weight in FORMS[nn.MultiheadAttention].weights(dense).items():
            weight.of(weight.parameter).mul_(dense_weight(training.layers[f"0.{name}"])[1])
    ours: Any = model[0]
    return ours, dense


PADDING = torch.tensor([[False, False, True, True], [False, True, False, False]])
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "self": ({}, {}),
    "no weights": ({}, {"need_weights": False}),
    "weights of each head": ({"bias": False}, {"average_attn_weights": False}),
    "other widths": ({"kdim": 5, "vdim": 7}, {}),
    "batch first": ({"batch_first": True}, {"key_padding_mask": PADDING}),
    "padding as numbers": ({}, {"key_padding_mask": PADDING.double() * -3.0, "need_weights": False}),
    "mask": ({}, {"attn_mask": torch.ones(4, 4).triu(1).bool(), "key_padding_mask": PADDING}),
    "hint": ({}, {"attn_mask": torch.ones(4, 4).triu(1).bool(), "is_causal": True, "need_weights": False}),
    "mask of each head": ({}, {"attn_mask": torch.linspace(-2, 2, 6 * 16, dtype=torch.float64).view(6, 4, 4)}),
}


@pytest.mark.parametrize("case", CASES)
def test_computes_what_torch_does(case: str) -> None:
    options, asked = CASES[case]
    ours, dense = pair(**options)
    widths = [12, options.get("kdim", 12), options.get("vdim", 12)]
    shape = (2, 4) if options.get("batch_first") else (4, 2)
    inputs = [torch.randn(*shape, width, dtype=torch.float64) for width in widths]
    results = []
    for each in (ours, dense):
        own = [x.clone().requires_grad_() for x in inputs]
        y, weights = each(*own, **asked)
        (y * torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y)).sum().backward()
        results.append([y, *([] if weights is None else [weights]), *[x.grad for x in own]])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)
    for name, weight in FORMS[nn.MultiheadAttention].weights(dense).items():
        layer: Any = ours.get_submodule(name)
        gradient = weight.of(weight.parameter.grad)  # type: ignore[arg-type]  # it has one
        torch.testing.assert_close(layer.values.grad, gradient[dense_weight(layer)[1].bool()])


def test_one_sequence_needs_no_batch() -> None:
    ours, dense = pair()
    x, mask = torch.randn(4, 12, dtype=torch.float64), PADDING[0]
    for a, b in zip(ours(x, x, x, key_padding_mask=mask), dense(x, x, x, key_padding_mask=mask), strict=True):
        torch.testing.assert_close(a, b)


def test_dropout_is_of_weights_in_training_alone() -> None:
    ours, dense = pair(dropout=0.5)
    x = torch.randn(4, 2, 12, dtype=torch.float64)
    torch.testing.assert_close(ours.eval()(x, x, x)[0], dense.eval()(x, x, x)[0])
    assert not torch.allclose(ours.train()(x, x, x)[0], dense(x, x, x)[0])


def test_refusals() -> None:
    ours, _ = pair(kdim=5)
    x = torch.randn(4, 2, 12, dtype=torch.float64)
    with pytest.raises(ConfigError, match=r"k_proj takes 5 features, got \(4, 2, 12\)"):
        ours(x, x, x)
    with pytest.raises(ConfigError, match="is_causal is a hint about attn_mask: give that, too"):
        ours(x, x[..., :5], x, is_causal=True)
