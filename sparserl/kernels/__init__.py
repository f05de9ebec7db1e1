"""What sparse networks compute, and which backend computes it.

A backend is a module with `forward` and `backward` over networks. There is no silent choice: the active backend is
`cpu` (Numba) until `use_backend` says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch

from sparserl.errors import KernelUnavailable, unknown_name
from sparserl.kernels import cpu, reference
from sparserl.kernels.cpu import compile_kernels
from sparserl.kernels.deferred import Array
from sparserl.kernels.index import CsrIndex
from sparserl.kernels.networks import (
    ActivationPair,
    After,
    BatchStatistics,
    GradientRequest,
    Gradients,
    Linear,
    Networks,
    Norm,
    chain,
)

__all__ = [
    "BACKENDS",
    "ActivationPair",
    "After",
    "Backend",
    "BatchStatistics",
    "CsrIndex",
    "GradientRequest",
    "Gradients",
    "Linear",
    "Networks",
    "Norm",
    "active_backend",
    "chain",
    "compile_kernels",
    "require_cpu",
    "use_backend",
]


class Backend(Protocol):
    """Chains of linear layers, and what stands around them; memory O(nnz + neurons * batch), never n_out x n_in."""

    def forward(self, networks: Networks, inputs: Sequence[Array], *, keep: bool) -> tuple[Array, object]:
        """The outputs of all networks.

        Args:
            networks: N of them.
            inputs: (B, width) parts that side by side are the input, widths[0] wide.
            keep: Whether a backward pass follows.

        Returns:
            (N, B, widths[-1]) outputs, and what `backward` needs if `keep`.

        Raises:
            ValueError: If they have another width or dtype than the networks.
        """

    def backward(self, networks: Networks, saved: object, dy: Array, request: GradientRequest) -> Gradients:
        """The gradients, given `dy` (N, B, widths[-1]) by the outputs; `saved` is from `forward` and stays valid."""


BACKENDS: dict[str, Backend] = {"cpu": cpu, "reference": reference}
_active = "cpu"


def active_backend() -> Backend:
    """The backend that computes now."""
    return BACKENDS[_active]


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Computes with another backend inside a `with` block.

    Raises:
        KernelUnavailable: If there is no such backend.
    """
    global _active
    if name not in BACKENDS:
        raise KernelUnavailable(unknown_name("kernel backend", name, BACKENDS))
    before, _active = _active, name
    try:
        yield
    finally:
        _active = before


def require_cpu(device: torch.device | str) -> torch.device:
    """`"cpu"` and `"auto"` both mean the CPU, where the sparse kernels run.

    Raises:
        KernelUnavailable: For any other device: there is no fallback in silence.
    """
    if str(device) not in ("cpu", "auto"):
        raise KernelUnavailable(f"sparse layers have no kernels for device {str(device)!r} yet; use 'cpu'")
    return torch.device("cpu")
