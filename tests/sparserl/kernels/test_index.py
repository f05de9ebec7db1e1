"""`CsrIndex`: the transposed index and that of a dense layer."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from support.networks import MASKS, of_mask

from sparserl.kernels import CsrIndex
from sparserl.kernels.index import starts_in_panels


def same(a: CsrIndex, b: CsrIndex) -> bool:
    ours, theirs = (a.row_ptr, a.col), (b.row_ptr, b.col)
    equal = all(np.array_equal(x, y) and x.dtype == y.dtype for x, y in zip(ours, theirs, strict=True))
    return equal and (a.n_rows, a.n_cols) == (b.n_rows, b.n_cols)


@pytest.mark.parametrize("name", MASKS)
def test_transposed_index_is_the_transposed_matrix(name: str) -> None:
    index = of_mask(MASKS[name])
    transposed, slot = index.transposed
    assert same(transposed, of_mask(MASKS[name].T))
    assert slot.dtype == np.uint32
    # Entry k of the transposed matrix at (row, col) is slot[k] at (col, row).
    np.testing.assert_array_equal(index.rows[slot], transposed.col)
    np.testing.assert_array_equal(index.col[slot], transposed.rows)
    assert index.transposed[0] is transposed


@pytest.mark.parametrize("name", MASKS)
def test_transposing_twice_gives_the_index_back(name: str) -> None:
    index = of_mask(MASKS[name])
    transposed, slot = index.transposed
    back, slot_back = transposed.transposed
    assert same(back, index)
    np.testing.assert_array_equal(slot[slot_back], np.arange(index.nnz))


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("width", [1, 7, 128])
def test_rows_begin_in_each_panel_of_columns(name: str, width: int) -> None:
    mask = MASKS[name]
    index = of_mask(mask)
    bounds = [min(begin, index.n_cols) for begin in range(0, index.n_cols + width, width)]
    expected = [index.row_ptr[:-1] + mask[:, :bound].sum(axis=1) for bound in bounds]
    np.testing.assert_array_equal(starts_in_panels(index.row_ptr, index.col, index.n_cols, width), expected)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (5, 3)])
def test_full_lists_every_connection(shape: tuple[int, int]) -> None:
    index = CsrIndex.full(*shape)
    assert same(index, of_mask(np.ones(shape, bool)))
    assert index.nnz == shape[0] * shape[1]


def test_derived_bytes_are_those_of_the_transposed_index() -> None:
    index = of_mask(MASKS["odd widths"])
    assert index.derived_bytes() == 0
    index.transposed  # noqa: B018  # derives it
    assert index.derived_bytes() == 8 * (23 + 1) + 4 * index.nnz + 4 * index.nnz


@pytest.mark.parametrize("used", [None, np.arange(0, 9, 2, dtype=np.uint32)])
def test_an_index_goes_with_its_last_user(used: np.ndarray | None) -> None:
    """A cycle would keep the indices of all topologies of a run until the garbage collector looks at old objects."""
    whole = of_mask(MASKS["odd widths"])
    index = CsrIndex(whole.n_rows, whole.n_cols, whole.row_ptr, whole.col, used)
    alive = weakref.ref(index)
    index.product, index.transposed, index.blocks, index.transposed_blocks  # noqa: B018  # derives them
    gc.disable()
    try:
        del index
        assert alive() is None
    finally:
        gc.enable()


def test_what_does_not_fit_32_bits_is_refused() -> None:
    """Columns are uint32: the next one would be column 0."""
    row_ptr, col = np.array([0, 1]), np.zeros(1, np.uint32)
    assert CsrIndex(1, 2**32, row_ptr, col).nnz == 1
    for make in (lambda: CsrIndex(1, 2**32 + 1, row_ptr, col), lambda: CsrIndex.full(2, 2**31 + 1)):
        with pytest.raises(ValueError, match=r"at most 2\*\*32 rows, columns and entries"):
            make()
