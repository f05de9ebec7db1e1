"""Gradients by values in panels of rows: what they give tile by tile, to the bit where one thread sums."""

from __future__ import annotations

import pytest
import torch
from oracle.network_twins import twin_of
from support.networks import backward, forward, whole_networks

from sparserl.kernels import BACKENDS, GradientRequest, Gradients, Networks, choice, layout, plan

CPU = BACKENDS["cpu"]
WIDTHS = (6, 35, 18, 20, 3)
DTYPES = {"float32": torch.float32, "float64": torch.float64}


def force_panels(monkeypatch: pytest.MonkeyPatch, rows: int, narrowest: int = 0) -> None:
    """Every layer with so many outputs at least goes in panels of `rows` rows; 0: none does."""
    monkeypatch.setattr(plan, "gradient_panel", lambda n_rows, n_cols, nnz, size: rows if n_rows >= narrowest else 0)


def passed(
    networks: Networks, batch: int, request: GradientRequest, seed: int = 1
) -> tuple[torch.Tensor, torch.Tensor, Gradients]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, networks.widths[0], generator=generator).to(networks.dtype)
    dy = torch.randn(len(networks.networks), batch, networks.widths[-1], generator=generator).to(networks.dtype)
    saved = forward(CPU, networks, x, keep=True)[1]
    return x, dy, backward(CPU, networks, saved, dy, request)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("batch", [1, 16, 17, 49, 100, 300])
@pytest.mark.parametrize(("rows", "narrowest"), [(1, 0), (7, 0), (1000, 0), (7, 19)])
def test_one_thread_sums_in_the_same_order(
    monkeypatch: pytest.MonkeyPatch, rows: int, narrowest: int, batch: int, dtype: torch.dtype
) -> None:
    request = GradientRequest(inputs=True, parameters=True, lowest=0, samples=((1, 2), (0, 3)))
    force_panels(monkeypatch, 0)
    x, dy, by_tile = passed(whole_networks(WIDTHS, 2, dtype), batch, request)
    force_panels(monkeypatch, rows, narrowest)
    networks = whole_networks(WIDTHS, 2, dtype)
    in_panels = passed(networks, batch, request)[2]
    assert any(parameter.any() for parameter in by_tile.parameters or ())
    for ours, theirs in zip(in_panels.parameters or (), by_tile.parameters or (), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(in_panels.x, by_tile.x)  # type: ignore[arg-type]  # both are wanted
    for ours, theirs in zip(in_panels.samples, by_tile.samples, strict=True):
        assert torch.equal(ours.dy, theirs.dy)
    twin = twin_of(networks, x, dy)
    for ours, theirs in zip(in_panels.parameters or (), twin.parameters, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n_in", [127, 128, 129, 300])
def test_long_rows_are_cut_into_panels_of_columns(monkeypatch: pytest.MonkeyPatch, n_in: int) -> None:
    force_panels(monkeypatch, 0)
    by_tile = passed(whole_networks((n_in, 11), 1, torch.float32), 49, GradientRequest())[2]
    force_panels(monkeypatch, 4)
    in_panels = passed(whole_networks((n_in, 11), 1, torch.float32), 49, GradientRequest())[2]
    for ours, theirs in zip(in_panels.parameters or (), by_tile.parameters or (), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("lowest", range(4))
@pytest.mark.parametrize("parameters", [True, False])
def test_only_what_is_wanted_is_formed(monkeypatch: pytest.MonkeyPatch, lowest: int, parameters: bool) -> None:
    request = GradientRequest(inputs=True, parameters=parameters, lowest=lowest, samples=(), reuse=True)
    force_panels(monkeypatch, 5)
    networks = whole_networks(WIDTHS, 2, torch.float64)
    passed(networks, 37, GradientRequest(), seed=2)  # leaves sums behind
    x, dy, found = passed(networks, 37, request)
    twin = twin_of(networks, x, dy)
    torch.testing.assert_close(found.x, twin.x)
    assert (found.parameters is not None) == parameters
    for place, (ours, theirs) in enumerate(zip(found.parameters or (), twin.parameters, strict=parameters)):
        torch.testing.assert_close(ours, theirs if place // 2 % 4 >= lowest else torch.zeros_like(theirs))


@pytest.mark.usefixtures("thread_counts")
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("threads", [2, 3])
def test_threads_share_panels(monkeypatch: pytest.MonkeyPatch, threads: int, count: int) -> None:
    monkeypatch.setattr(plan, "PARALLEL_FROM", 0)
    force_panels(monkeypatch, 4, 19)
    torch.set_num_threads(threads)
    networks = whole_networks(WIDTHS, count, torch.float64)
    x, dy, found = passed(networks, 100, GradientRequest())
    for ours, theirs in zip(found.parameters or (), twin_of(networks, x, dy).parameters, strict=True):
        torch.testing.assert_close(ours, theirs)
    for ours, theirs in zip(
        found.parameters or (), passed(networks, 100, GradientRequest())[2].parameters or (), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_networks_with_fewer_connections_share_a_frame_with_wide_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an event a layer may leave its panels; the memory of a pass stays, as it follows from widths."""
    monkeypatch.setattr(choice, "PANELS_FROM", ((4 * 300, 0.5),))
    dense, sparse = (whole_networks((20, 40, 40), 1, torch.float64, density=density) for density in (0.9, 0.1))
    assert [plan.plan_of(one).table[0, 1, layout.PANEL_ROWS] > 0 for one in (dense, sparse)] == [True, False]
    replaced = Networks(sparse.networks, dense)
    for networks in (dense, replaced):
        x, dy, found = passed(networks, 33, GradientRequest())
        for ours, theirs in zip(found.parameters or (), twin_of(networks, x, dy).parameters, strict=True):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("n_rows", "n_cols", "nnz", "size", "rows"),
    [
        (1024, 1024, 524_288, 4, 32),  # 2 MB: a panel has 64 KB
        (1024, 1024, 294_912, 4, 56),  # 9 x 128 KB, just enough
        (1024, 1024, 294_911, 4, 0),
        (256, 256, 65_536, 4, 64),
        (384, 384, 58_982, 4, 0),  # density just below .4
        (400, 400, 65_536, 4, 100),
        (1024, 1024, 147_456, 8, 0),  # enough bytes, too few connections
        (2048, 2048, 838_860, 4, 40),
        (2048, 2048, 419_430, 4, 0),  # density .1
        (2048, 4097, 8_000_000, 4, 0),
        (2, 4000, 8_000_000, 4, 1),
    ],
)
def test_the_rule(n_rows: int, n_cols: int, nnz: int, size: int, rows: int) -> None:
    assert choice.gradient_panel(n_rows, n_cols, nnz, size) == rows
