"""Every kernel backend against dense products in float64, and one thread against two."""

from __future__ import annotations

from collections.abc import Iterator

import numba
import numpy as np
import pytest
import torch

from sparserl.errors import KernelUnavailable
from sparserl.kernels import BACKENDS, CsrIndex, active_backend, cpu, reference, require_cpu, use_backend

BATCHES = [1, 7, 8, 9, 100, 256]
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-11}


def of_mask(mask: np.ndarray) -> CsrIndex:
    row_ptr = np.concatenate([[0], mask.sum(axis=1).cumsum()]).astype(np.int64)
    return CsrIndex(*mask.shape, row_ptr, np.nonzero(mask)[1].astype(np.uint32))


def random_mask(n_out: int, n_in: int, density: float) -> np.ndarray:
    return np.random.default_rng(n_out * 1000 + n_in).random((n_out, n_in)) < density


def with_gaps() -> np.ndarray:
    mask = random_mask(19, 31, 0.5)
    mask[[0, 1, 7, 18]] = False
    mask[:, [0, 5, 29, 30]] = False
    return mask


MASKS = {
    "odd widths": random_mask(37, 23, 0.3),
    "wide": random_mask(5, 257, 0.2),
    "tall": random_mask(129, 3, 0.4),
    "0 to 20 connections a row": np.tri(21, 20, -1, dtype=bool),
    "0 to 20 connections a column": np.tri(21, 20, -1, dtype=bool).T.copy(),
    "empty rows and columns": with_gaps(),
    "one neuron a side": np.ones((1, 1), bool),
    "one output": random_mask(1, 41, 0.6),
    "one input": random_mask(41, 1, 0.6),
    "full": np.ones((13, 11), bool),
    "no connection": np.zeros((6, 4), bool),
    "one connection": np.eye(1, 35, 22, dtype=bool).reshape(5, 7),
}


@pytest.fixture(autouse=True)
def thread_counts() -> Iterator[None]:
    """Leaves the numbers of threads as they were."""
    before, before_numba = torch.get_num_threads(), numba.get_num_threads()
    yield
    torch.set_num_threads(before)
    numba.set_num_threads(before_numba)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_the_dense_products(backend: str, name: str, dtype: torch.dtype) -> None:
    mask = MASKS[name]
    index = of_mask(mask)
    transposed, slot = index.transposed
    n_out, n_in = mask.shape
    close = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    generator = torch.Generator().manual_seed(0)
    for batch in BATCHES:
        values, x, dy, bias = (
            torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
            for shape in ((int(mask.sum()),), (n_in, batch), (n_out, batch), (n_out,))
        )
        bias_before = bias.clone()
        weight = np.zeros(mask.shape)
        weight[mask] = values.double().numpy()
        x64, dy64 = x.double().numpy(), dy.double().numpy()
        y_expected, dx_expected = bias.double().numpy()[:, None] + weight @ x64, weight.T @ dy64
        out = BACKENDS[backend].product(index, values, bias, x)
        dx = BACKENDS[backend].product(transposed, values[torch.from_numpy(slot)], None, dy)
        assert torch.equal(bias, bias_before)
        gradient = BACKENDS[backend].value_gradient(index, x, dy)
        np.testing.assert_allclose(out.numpy(), y_expected, **close)
        np.testing.assert_allclose(dx.numpy(), dx_expected, **close)
        assert gradient.dtype == dtype
        np.testing.assert_allclose(gradient.numpy(), (dy64 @ x64.T)[mask], **close)


@pytest.mark.parametrize("name", MASKS)
def test_transposed_index_is_the_transposed_matrix(name: str) -> None:
    mask = MASKS[name]
    index, (transposed, slot) = of_mask(mask), of_mask(mask).transposed
    expected = of_mask(mask.T)
    assert (transposed.n_rows, transposed.n_cols) == mask.shape[::-1]
    np.testing.assert_array_equal(transposed.row_ptr, expected.row_ptr)
    np.testing.assert_array_equal(transposed.col, expected.col)
    assert transposed.col.dtype == np.uint32
    # Entry k of the transposed matrix at (row, col) is slot[k] at (col, row).
    np.testing.assert_array_equal(index.rows[slot], transposed.col)
    np.testing.assert_array_equal(index.col[slot], transposed.rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_two_threads_equal_one_bit_for_bit(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "PARALLEL_FROM", 0)
    for name, batch in [("odd widths", 9), ("0 to 20 connections a row", 100), ("empty rows and columns", 1)]:
        index = of_mask(MASKS[name])
        generator = torch.Generator().manual_seed(1)
        values = torch.randn(index.col.size, generator=generator, dtype=dtype)
        x = torch.randn(index.n_cols, batch, generator=generator, dtype=dtype)
        dy = torch.randn(index.n_rows, batch, generator=generator, dtype=dtype)
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            assert cpu._use_threads(index, batch) == (threads == 2)
            bias = torch.ones(index.n_rows, dtype=dtype)
            results.append((cpu.product(index, values, bias, x), cpu.value_gradient(index, x, dy)))
        assert torch.equal(results[0][0], results[1][0])
        assert torch.equal(results[0][1], results[1][1])


def test_small_products_wake_no_threads() -> None:
    torch.set_num_threads(2)
    assert not cpu._use_threads(of_mask(MASKS["full"]), 256)


def test_backend_is_chosen_and_given_back() -> None:
    assert active_backend() is cpu
    with use_backend("reference"):
        assert active_backend() is reference
        with use_backend("cpu"):
            assert active_backend() is cpu
        assert active_backend() is reference
    with pytest.raises(ZeroDivisionError), use_backend("reference"):
        raise ZeroDivisionError
    assert active_backend() is cpu


def test_unknown_backend_is_named() -> None:
    with pytest.raises(KernelUnavailable, match="unknown kernel backend 'referenc'; did you mean 'reference'"):
        use_backend("referenc").__enter__()


def test_only_the_cpu_has_kernels() -> None:
    assert require_cpu("auto") == require_cpu(torch.device("cpu")) == torch.device("cpu")
    with pytest.raises(KernelUnavailable, match="no kernels for device 'cuda' yet"):
        require_cpu("cuda")
