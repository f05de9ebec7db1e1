"""The products that a sparse layer needs, and which backend computes them.

A backend is a module with `product` and `value_gradient` over feature-major activations (features, batch). There is
no silent choice: the active backend is `cpu` (Numba) until `use_backend` says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch

from sparserl.errors import KernelUnavailable, unknown_name
from sparserl.kernels import cpu, reference
from sparserl.kernels.index import CsrIndex

__all__ = ["BACKENDS", "Backend", "CsrIndex", "active_backend", "require_cpu", "use_backend"]


class Backend(Protocol):
    """The two products; both allocate O(nnz + batch) and nothing of size n_out x n_in."""

    def product(
        self, index: CsrIndex, values: torch.Tensor, bias: torch.Tensor | None, x: torch.Tensor
    ) -> torch.Tensor:
        """(n_rows, B): the sparse matrix times `x` (n_cols, B), plus `bias` (n_rows,) in every column."""

    def value_gradient(self, index: CsrIndex, x: torch.Tensor, dy: torch.Tensor) -> torch.Tensor:
        """(nnz,) inner products over the batch of row `out` of `dy` and row `in` of `x`."""


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
