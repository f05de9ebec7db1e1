"""Gradients that go against nothing that must not get worse (A-GEM)."""

from __future__ import annotations

from collections.abc import Sequence

import torch


@torch.no_grad()
def project(gradients: Sequence[torch.Tensor], references: Sequence[torch.Tensor]) -> None:
    """Takes out of the gradients, in place, what points against the references; each are one vector, cut into parts.

    Source:
        Chaudhry et al. 2019, "Efficient Lifelong Learning with A-GEM", eq. 11.
    """
    product = sum(float((grad * ref).sum()) for grad, ref in zip(gradients, references, strict=True))
    if product < 0.0:
        square = sum(float(ref.square().sum()) for ref in references)
        for grad, ref in zip(gradients, references, strict=True):
            grad.sub_(ref, alpha=product / square)
