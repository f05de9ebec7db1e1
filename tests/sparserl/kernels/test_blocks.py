"""Products by blocks of rows against dense ones, whatever the choice would have been."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numba
import numpy as np
import pytest
import torch
from oracle.network_twins import by_connection, twin_of
from support.blocks import force_blocks, force_rows
from support.networks import MASKS, backward, forward, of_mask, random_mask, whole, whole_networks

from sparserl.kernels import BACKENDS, CsrIndex, GradientRequest, Linear, Networks, choice, emitter
from sparserl.kernels.emitter import LANES
from sparserl.kernels.layout import BLOCKS, COLUMNS, PANELS, T_BLOCKS
from sparserl.kernels.pattern_index import PatternIndex, pattern_index, shared_columns
from sparserl.kernels.patterns import block_tile, groups_of
from sparserl.kernels.plan import plan_of

BATCHES = [1, 2, 15, 16, 17, 31, 33, 48, 49, 65, 100, 300]
DTYPES = {"float32": torch.float32, "float64": torch.float64}
SIGNED = (-2, -1, 0, 1, 2)
CPU = BACKENDS["cpu"]
ROWS = (2, 4)

each_dtype = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
each_panel = pytest.mark.parametrize("panel", [1, 7, 1000])


def blocks_of(mask: np.ndarray, rows: int, panel: int) -> PatternIndex:
    index = of_mask(mask)
    return pattern_index(index.row_ptr, index.col, index.n_cols, rows, panel)


def test_the_blocks_of_two_rows_by_hand() -> None:
    """Columns of both rows; then of the first with one of the second; then what is left of one of them."""
    mask = np.array(
        [
            [1, 1, 0, 1, 0, 1],  # slots 0 to 3
            [0, 1, 1, 0, 0, 1],  # slots 4 to 6
            [0, 0, 1, 0, 1, 0],  # slots 7 and 8
            [0, 0, 0, 0, 0, 0],
            [1, 0, 0, 0, 0, 1],  # slots 9 and 10, in no block
        ],
        bool,
    )
    whole_rows, in_panels = blocks_of(mask, 2, 6), blocks_of(mask, 2, 3)
    assert whole_rows.counts.tolist() == [[[2, 1, 1, 0], [0, 0, 2, 0]]]
    assert whole_rows.columns.tolist() == [1, 5, 0, 2, 3, 2, 4]
    assert whole_rows.slot.tolist() == [1, 4, 3, 6, 0, 5, 2, 7, 8, 9, 10]
    assert in_panels.counts.tolist() == [[[1, 1, 0, 0], [0, 0, 1, 0]], [[1, 0, 1, 0], [0, 0, 1, 0]]]
    assert in_panels.columns.tolist() == [1, 0, 2, 2, 5, 3, 4]
    assert in_panels.slot.tolist() == [1, 4, 0, 5, 7, 3, 6, 2, 8, 9, 10]


def test_the_blocks_of_four_rows_by_hand() -> None:
    """Most rows first; of as many, the pattern whose number is smaller, where row r is bit r."""
    mask = np.array([[1, 1, 0, 1], [1, 0, 1, 1], [1, 0, 0, 1], [1, 0, 1, 0]], bool)
    blocks = blocks_of(mask, 4, 4)
    counts = dict(zip(groups_of(4), blocks.counts[0, 0].tolist(), strict=True))
    assert {group: count for group, count in counts.items() if count} == {
        (0b1111,): 1,
        (0b0111,): 1,
        (0b1010,): 1,
        (0b0001,): 1,
    }
    assert blocks.columns.tolist() == [0, 3, 2, 1]
    assert blocks.slot.tolist() == [0, 3, 6, 8, 2, 5, 7, 4, 9, 1]


@pytest.mark.parametrize("rows", ROWS)
@each_panel
@pytest.mark.parametrize("name", MASKS)
def test_every_connection_is_in_one_place(name: str, panel: int, rows: int) -> None:
    index, blocks = of_mask(MASKS[name]), blocks_of(MASKS[name], rows, panel)
    np.testing.assert_array_equal(np.sort(blocks.slot), np.arange(index.nnz))
    used = np.array([[pattern.bit_count() for pattern in (*group, 0)[:2]] for group in groups_of(rows)]).sum(axis=1)
    assert (blocks.counts * used).sum() == index.row_ptr[blocks.blocks * rows]
    assert index.n_rows - rows < blocks.blocks * rows <= index.n_rows


@each_dtype
@each_panel
@pytest.mark.parametrize("name", MASKS)
def test_one_layer_equals_the_dense_products(
    name: str, panel: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    force_blocks(monkeypatch, panel)
    mask = MASKS[name]
    n_out, n_in = mask.shape
    close = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 1e-11, "atol": 1e-11}
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    values, bias = drawn(int(mask.sum())), drawn(n_out) if panel != 7 else None
    networks = Networks([[Linear(of_mask(mask), values, bias)]])
    weight, shift = np.zeros(mask.shape), 0.0 if bias is None else bias.double().numpy()
    weight[mask] = values.double().numpy()
    for batch in BATCHES:
        x, dy = drawn(batch, n_in), drawn(1, batch, n_out)
        y, saved = forward(CPU, networks, x, keep=True)
        gradients = backward(CPU, networks, saved, dy, GradientRequest())
        assert gradients.x is not None
        assert gradients.parameters is not None
        x64, dy64 = x.double().numpy(), dy[0].double().numpy()
        np.testing.assert_allclose(y.numpy()[0], x64 @ weight.T + shift, **close)
        np.testing.assert_allclose(gradients.x.numpy(), dy64 @ weight, **close)
        np.testing.assert_allclose(gradients.parameters[0].numpy(), (dy64.T @ x64)[mask], **close)
    described = plan_of(networks).table[0, 0]
    assert described[BLOCKS] == n_out // choice.BLOCK_ROWS
    assert described[BLOCKS] == 0 or described[PANELS] == -(-n_in // panel)
    assert described[T_BLOCKS] == n_in // choice.BLOCK_ROWS


@each_dtype
@each_panel
@pytest.mark.parametrize("widths", [(5, 21, 3), (17, 19, 33, 2), (3, 600, 4), (513, 7, 40, 2)])
def test_networks_equal_the_dense_twin(
    widths: tuple[int, ...], panel: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    force_blocks(monkeypatch, panel)
    networks = whole_networks(widths, 2, dtype)
    for batch in (1, 17, 33, 100):
        x = whole(batch, widths[0], among=SIGNED, dtype=dtype)
        dy = whole(2, batch, widths[-1], among=SIGNED, dtype=dtype)
        twin = twin_of(networks, x, dy)
        y, saved = forward(CPU, networks, x, keep=True)
        gradients = backward(CPU, networks, saved, dy, GradientRequest())
        assert torch.equal(y, twin.y)
        assert torch.equal(forward(CPU, networks, x, keep=False)[0], twin.y)
        assert torch.equal(gradients.x, twin.x)  # type: ignore[arg-type]  # it is wanted
        for ours, theirs in zip(gradients.parameters or (), twin.parameters, strict=True):
            assert torch.equal(ours, theirs)
        for layers in networks.networks:
            for layer in layers:
                layer.values.neg_()  # as an optimizer does: nothing may be read from an old copy


@pytest.mark.usefixtures("thread_counts")
@pytest.mark.parametrize("threads", [1, 2])
def test_results_are_the_same_every_time(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    force_blocks(monkeypatch, 16)
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    networks = whole_networks((40, 300, 300, 3), 2, torch.float32)
    x, dy = torch.randn(100, 40), torch.randn(2, 100, 3)

    def results() -> list[torch.Tensor]:
        fresh = Networks(networks.networks)
        y, saved = forward(CPU, fresh, x, keep=True)
        gradients = backward(CPU, fresh, saved, dy, GradientRequest())
        return [y, gradients.x, *(gradients.parameters or ())]  # type: ignore[list-item]  # it is wanted

    for ours, theirs in zip(results(), results(), strict=True):
        assert torch.equal(ours, theirs)


PLACES: dict[str, Callable[[Networks, torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "the last sample": lambda networks, x, dy: x[-1],
    "one feature": lambda networks, x, dy: x[len(x) // 2, 2:3],
    "an output's gradient": lambda networks, x, dy: dy[0, -1, :1],
    "a weight": lambda networks, x, dy: networks.networks[0][1].values[2:3],
    "a bias": lambda networks, x, dy: networks.networks[0][0].bias[1:2],  # type: ignore[index]  # there is one
}


@pytest.mark.parametrize("batch", [5, 100])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("place", PLACES)
def test_what_is_not_finite_goes_where_torch_sends_it(
    place: str, value: float, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    force_blocks(monkeypatch, 3)
    networks = whole_networks((5, 9, 8, 3), 2, torch.float32, among=(-1, 1, 2))
    x = whole(batch, 5, among=(1, 2), dtype=torch.float32)
    dy = whole(2, batch, 3, among=(1, 2), dtype=torch.float32)
    PLACES[place](networks, x, dy).fill_(value)
    twin = twin_of(networks, x, dy, by_connection)
    y, saved = forward(CPU, networks, x, keep=True)
    gradients = backward(CPU, networks, saved, dy, GradientRequest())
    pairs = [(y, twin.y), (gradients.x, twin.x), *zip(gradients.parameters or (), twin.parameters, strict=True)]
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


def _whole_blocks(rows: int, gated: bool) -> Any:
    """A product with the kernel for blocks of so many rows, which may be that of another CPU."""
    block, groups = block_tile(rows, gated=gated), len(groups_of(rows))

    @numba.njit
    def plain(vectors: int, panels: int, blocks: int, at: Any, threshold: Any) -> None:
        counts, columns, values, biases, x, out, _ = at
        for panel in range(panels):
            for place in range(blocks):
                first, last, row = int(panel == 0), int(panel == panels - 1), place * rows
                size = threshold.itemsize
                columns, values = block(
                    vectors, counts, columns, values, first, last, biases + row * size, x,
                    out + row * vectors * LANES * size, threshold[0],
                )  # fmt: skip
                counts += groups * 4

    @numba.njit
    def with_gates(vectors: int, panels: int, blocks: int, at: Any, threshold: Any) -> None:
        counts, columns, values, _, x, out, gates = at
        for panel in range(panels):
            for place in range(blocks):
                first, last = int(panel == 0), int(panel == panels - 1)
                tile = place * rows * vectors * LANES * threshold.itemsize
                columns, values = block(
                    vectors, counts, columns, values, first, last, 0, x, out + tile, threshold[0], gates + tile
                )
                counts += groups * 4

    return with_gates if gated else plain


@each_dtype
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("rows", ROWS)
def test_blocks_of_any_cpu_equal_the_dense_product(
    rows: int, gated: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emitter, "WIDTHS", (1, 2, 3))
    kernel, real = _whole_blocks(rows, gated), torch.empty(0, dtype=dtype).numpy().dtype
    rng = np.random.default_rng(0)
    for name, mask in MASKS.items():
        index = of_mask(mask)
        n_out = mask.shape[0] // rows * rows
        weight = np.zeros(mask.shape)
        weight[mask] = rng.choice(SIGNED, index.nnz)
        bias = rng.choice(SIGNED, mask.shape[0]).astype(real)
        for panel in (4, 1000):
            blocks = blocks_of(mask, rows, panel)
            values = weight[mask][blocks.slot].astype(real)
            for vectors in emitter.WIDTHS:
                columns = vectors * LANES
                x = rng.choice(SIGNED, (mask.shape[1], columns)).astype(real)
                gates, out = rng.choice((-1, 0, 1), (2, n_out + 1, columns)).astype(real)
                behind = out[n_out].copy()
                arrays = blocks.counts, blocks.columns, values, bias, x, out, gates
                at = np.array([array.ctypes.data for array in arrays], np.int64)
                kernel(vectors, blocks.panels, blocks.blocks, at, np.zeros(1, real))
                product = weight[:n_out] @ x
                if gated:
                    expected = np.where(gates[:n_out] <= 0, 0, product)
                else:
                    expected = np.maximum(product + bias[:n_out, None], 0)
                np.testing.assert_array_equal(out[:n_out], expected, err_msg=name)
                np.testing.assert_array_equal(out[n_out], behind, err_msg=name)


def test_shared_columns_are_counted_by_connection() -> None:
    def share(mask: np.ndarray, rows: int) -> float:
        index = of_mask(mask)
        return float(shared_columns(index.row_ptr, index.col, rows))

    mask = np.array([[1, 1, 0, 1], [0, 1, 1, 1], [0, 0, 0, 0], [1, 0, 0, 0]], bool)
    assert share(mask, 2) == 4 / 7
    assert share(mask, 4) == 0.0
    assert share(np.ones((9, 5), bool), 4) == 1.0
    assert share(np.zeros((4, 5), bool), 2) == 0.0
    assert share(np.ones((1, 5), bool), 2) == 0.0


def test_the_choice_follows_density_and_shared_columns() -> None:
    def blocks(mask: np.ndarray) -> bool:
        return of_mask(mask).blocks is not None

    sparse = random_mask(64, 1024, 0.05)
    assert not blocks(sparse)
    assert blocks(np.repeat(sparse[::4], 4, axis=0))
    assert blocks(random_mask(64, 1024, 0.5))
    assert blocks(random_mask(64, 256, 0.1))
    assert not blocks(random_mask(64, 64, 0.05))
    assert CsrIndex.full(64, 256).blocks is not None
    assert CsrIndex.full(1, 256).blocks is None  # no block of rows


def test_slots_of_transposed_blocks_are_those_of_the_index() -> None:
    index = of_mask(random_mask(64, 48, 0.5))
    transposed, slot = _copy(index).transposed
    assert index.transposed_blocks is not None
    assert transposed.blocks is not None
    np.testing.assert_array_equal(index.transposed_blocks.slot, slot[transposed.blocks.slot])
    assert index.transposed_blocks.columns.tolist() == transposed.blocks.columns.tolist()


def test_the_check_of_tables_knows_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    force_blocks(monkeypatch, 8)
    networks = whole_networks((16, 16, 2), 1, torch.float32)
    x = torch.ones(3, 16)
    forward(CPU, networks, x, keep=False)
    plan_of(networks).table[0, 0, COLUMNS] += 4
    with pytest.raises(RuntimeError, match="the table of networks does not describe"):
        forward(CPU, networks, x, keep=False)


def _copy(index: CsrIndex) -> CsrIndex:
    """Without what was derived from it."""
    return CsrIndex(index.n_rows, index.n_cols, index.row_ptr, index.col)


def test_derived_bytes_are_those_of_all_that_was_derived(monkeypatch: pytest.MonkeyPatch) -> None:
    force_blocks(monkeypatch, 16)
    index = of_mask(random_mask(64, 48, 0.5))
    blocks = index.blocks
    assert blocks is not None
    found = blocks.counts.nbytes + blocks.columns.nbytes + blocks.slot.nbytes
    assert index.derived_bytes() == found
    transposed, blocks = index.transposed, index.transposed_blocks
    assert blocks is not None
    found += blocks.counts.nbytes + blocks.columns.nbytes + blocks.slot.nbytes
    found += transposed[0].row_ptr.nbytes + transposed[0].col.nbytes + transposed[1].nbytes
    assert index.derived_bytes() == found


def test_rows_and_blocks_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    networks = whole_networks((40, 64, 64, 3), 2, torch.float32)
    x, dy = whole(100, 40, among=SIGNED, dtype=torch.float32), torch.ones(2, 100, 3)
    results = []
    for force in (force_rows, lambda patch: force_blocks(patch, 16)):
        with monkeypatch.context() as patch:
            force(patch)
            fresh = Networks([[replace(layer, index=_copy(layer.index)) for layer in own] for own in networks.networks])
            y, saved = forward(CPU, fresh, x, keep=True)
            results.append((y, *(backward(CPU, fresh, saved, dy, GradientRequest()).parameters or ())))
            assert (plan_of(fresh).table[:, :, BLOCKS] > 0).any() == (len(results) == 2)
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours, theirs)
