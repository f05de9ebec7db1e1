"""`Networks` refuses what does not fit: the kernels read memory unchecked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.networks import backward, forward, of_mask, random_mask

from sparserl.kernels import BACKENDS, GradientRequest, Linear, Networks

FIRST, SECOND = of_mask(random_mask(5, 4, 0.5)), of_mask(random_mask(3, 5, 0.5))


def layers() -> list[Linear]:
    return [Linear(index, torch.ones(index.nnz), torch.ones(index.n_rows)) for index in (FIRST, SECOND)]


def spoilt(**changes: object) -> Callable[[], list[list[Linear]]]:
    """Changes the second layer."""
    return lambda: [[layers()[0], replace(layers()[1], **changes)]]  # type: ignore[arg-type]


def spoilt_index(**changes: object) -> Callable[[], list[list[Linear]]]:
    return spoilt(index=replace(SECOND, **changes))  # type: ignore[arg-type]


ILL_FITTING: dict[str, Callable[[], list[list[Linear]]]] = {
    "too few values": spoilt(values=torch.ones(SECOND.nnz - 1)),
    "too many values": spoilt(values=torch.ones(SECOND.nnz + 1)),
    "values as a matrix": spoilt(values=torch.ones(SECOND.nnz, 1)),
    "values of another type": spoilt(values=torch.ones(SECOND.nnz, dtype=torch.float64)),
    "values with gaps": spoilt(values=torch.ones(SECOND.nnz, 2)[:, 0]),
    "values all in one place": spoilt(values=torch.ones(1).expand(SECOND.nnz)),
    "short bias": spoilt(bias=torch.ones(2)),
    "long bias": spoilt(bias=torch.ones(4)),
    "bias as a matrix": spoilt(bias=torch.ones(3, 1)),
    "bias of another type": spoilt(bias=torch.ones(3, dtype=torch.float64)),
    "bias with gaps": spoilt(bias=torch.ones(6)[::2]),
    "index of other outputs": spoilt_index(n_rows=4),
    "index of other inputs": spoilt_index(n_cols=6),
    "short row pointers": spoilt_index(row_ptr=SECOND.row_ptr[:-1]),
    "long row pointers": spoilt_index(row_ptr=np.append(SECOND.row_ptr, SECOND.nnz)),
    "row pointers past the end": spoilt_index(row_ptr=SECOND.row_ptr + np.array([0, 0, 0, 1])),
    "row pointers of another type": spoilt_index(row_ptr=SECOND.row_ptr.astype(np.int32)),
    "row pointers with gaps": spoilt_index(row_ptr=np.repeat(SECOND.row_ptr, 2)[::2]),
    "inputs of another type": spoilt_index(col=SECOND.col.astype(np.int64)),
    "inputs with gaps": spoilt_index(col=np.repeat(SECOND.col, 2)[::2]),
    "layers that do not fit each other": lambda: [layers()[::-1]],
    "networks of other depths": lambda: [layers(), layers()[:1]],
    "networks of other widths": lambda: [layers(), [Linear(FIRST, torch.ones(FIRST.nnz), None), *layers()[:1]]],
    "networks of other types": lambda: [layers(), [Linear(x.index, x.values.double(), None) for x in layers()]],
}


@pytest.mark.parametrize("name", ILL_FITTING)
def test_refuses(name: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Networks(ILL_FITTING[name]())


def test_describes_what_fits() -> None:
    networks = Networks([layers(), layers()])
    assert (networks.widths, networks.dtype) == ((4, 5, 3), torch.float32)
    assert networks.nnz == 2 * (FIRST.nnz + SECOND.nnz)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.ones(2, 3), r"takes 4 torch.float32 features, got 3 of torch.float32"),
        (torch.ones(2, 5), r"takes 4 torch.float32 features, got 5 of torch.float32"),
        (torch.ones(2, 4, dtype=torch.float64), r"got 4 of torch.float64"),
        (torch.ones(2, 4, dtype=torch.int32), r"got 4 of torch.int32"),
        (torch.ones(4), r"takes 4"),
        (torch.ones(2, 2, 4), r"takes 4"),
    ],
)
def test_input_that_does_not_fit_is_refused(backend: str, x: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        forward(BACKENDS[backend], Networks([layers()]), x, keep=False)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "dy",
    [torch.ones(2, 7, 3), torch.ones(1, 6, 3), torch.ones(1, 7, 2), torch.ones(7, 3), torch.ones(1, 7, 3).double()],
    ids=["networks", "batch", "width", "dimensions", "type"],
)
def test_gradient_that_does_not_fit_is_refused(backend: str, dy: torch.Tensor) -> None:
    networks = Networks([layers()])
    _, saved = forward(BACKENDS[backend], networks, torch.ones(7, 4), keep=True)
    with pytest.raises(ValueError, match="gradient"):
        backward(BACKENDS[backend], networks, saved, dy, GradientRequest())
