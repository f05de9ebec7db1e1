"""One thread against several, and when threads are woken."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from support.networks import backward, forward, whole, whole_networks

from sparserl.kernels import GradientRequest, Gradients, Networks, cpu, plan, program
from sparserl.kernels.emitter import LANES
from sparserl.kernels.program import Call

WIDTHS = (11, 37, 18, 3)
DTYPES = {"float32": torch.float32, "float64": torch.float64}


pytestmark = pytest.mark.usefixtures("thread_counts")


def shares_of(calls: list[Call]) -> list[int]:
    return [call.shares for call in calls]


def random_pass(networks: Networks, batch: int) -> tuple[torch.Tensor, torch.Tensor, Gradients]:
    """Both outputs, with and without a way back, and gradients."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, networks.widths[0], generator=generator, dtype=networks.dtype)
    dy = torch.randn(len(networks.networks), batch, networks.widths[-1], generator=generator, dtype=networks.dtype)
    places = tuple((network, 1) for network in range(len(networks.networks)))
    y, saved = forward(cpu, networks, x, keep=True)
    return (
        y,
        forward(cpu, networks, x, keep=False)[0],
        backward(cpu, networks, saved, dy, GradientRequest(samples=places)),
    )


def networks_of(count: int, dtype: torch.dtype = torch.float32) -> Networks:
    networks = whole_networks(WIDTHS, count, dtype)
    for layers in networks.networks:
        for layer in layers:
            layer.values.mul_(0.1)  # rounds, so that the order of a sum shows
    return networks


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize(
    ("threads", "count", "batch", "workers"),
    [(2, 1, 17, 2), (2, 1, 100, 2), (2, 1, 256, 2), (2, 2, 5, 2), (2, 3, 100, 2), (3, 1, 256, 3), (4, 1, 33, 3)],
)
def test_threads_equal_one_thread(
    threads: int,
    count: int,
    batch: int,
    workers: int,
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
    calls: list[Call],
) -> None:
    monkeypatch.setattr(plan, "PARALLEL_FROM", 0)
    torch.set_num_threads(1)
    y, y_alone, one = random_pass(networks_of(count, dtype), batch)
    assert shares_of(calls) == [1, 1, 1]
    calls.clear()
    torch.set_num_threads(threads)
    y_threads, y_alone_threads, several = random_pass(networks_of(count, dtype), batch)
    again = random_pass(networks_of(count, dtype), batch)[2]
    assert shares_of(calls) == 6 * [workers]
    # What belongs to one sample does not depend on its neighbours. Sums over samples do, by rounding, but not on time.
    assert torch.equal(y, y_threads)
    assert torch.equal(y_alone, y_alone_threads)
    assert torch.equal(one.x, several.x)  # type: ignore[arg-type]  # both are wanted
    for ours, theirs in zip(one.samples, several.samples, strict=True):
        assert torch.equal(ours.x, theirs.x)
        assert torch.equal(ours.dy, theirs.dy)
    for alone, shared, repeated in zip(
        one.parameters or (), several.parameters or (), again.parameters or (), strict=True
    ):
        torch.testing.assert_close(shared, alone)
        assert torch.equal(shared, repeated)


@pytest.mark.parametrize(("threads", "batch", "shares"), [(1, 64, 1), (2, 16, 1), (2, 63, 1), (2, 64, 2)])
def test_threads_are_woken_for_large_products_that_can_be_shared(
    threads: int, batch: int, shares: int, monkeypatch: pytest.MonkeyPatch, calls: list[Call]
) -> None:
    networks = networks_of(1)
    monkeypatch.setattr(plan, "PARALLEL_FROM", networks.nnz * 64)
    torch.set_num_threads(threads)
    random_pass(networks, batch)
    assert shares_of(calls) == [shares] * 3


FIRST_PASS = """
import torch
from sparserl.kernels import plan
from sparserl.layers import SparseMLP
plan.PARALLEL_FROM = 0
torch.set_num_threads(3)
SparseMLP.random([4, 8, 2], [0.5, 1.0], seed=0, name="network")(torch.ones(300, 4)).sum().backward()
print(torch.get_num_threads())
"""


@pytest.mark.parametrize("cores", [2, 4])
def test_the_first_pass_on_several_threads_leaves_their_number(cores: int) -> None:
    """Numba begins its threads with it, as many as cores, and sets the number of OpenMP, which is torch's as well."""
    environment = {**os.environ, "NUMBA_NUM_THREADS": str(cores)}
    ran = subprocess.run([sys.executable, "-c", FIRST_PASS], capture_output=True, text=True, env=environment)
    assert ran.stdout == "3\n", ran.stderr


def test_small_products_wake_no_threads(calls: list[Call]) -> None:
    torch.set_num_threads(2)
    random_pass(networks_of(2), 256)
    assert set(shares_of(calls)) == {1}


def test_the_way_back_takes_as_many_threads_as_the_way_there(
    monkeypatch: pytest.MonkeyPatch, calls: list[Call]
) -> None:
    """Memory is laid out for them."""
    monkeypatch.setattr(plan, "PARALLEL_FROM", 0)
    networks, x = networks_of(2), whole(100, WIDTHS[0], among=(-1, 1), dtype=torch.float32)
    dy = torch.ones(2, 100, WIDTHS[-1])
    results = []
    for there, back in [(2, 1), (1, 2), (2, 2)]:
        torch.set_num_threads(there)
        _, saved = forward(cpu, networks, x, keep=True)
        torch.set_num_threads(back)
        results.append(backward(cpu, networks, saved, dy, GradientRequest()))
    assert shares_of(calls) == [2, 2, 1, 1, 2, 2]
    for gradients in results:
        for ours, theirs in zip(gradients.parameters or (), results[0].parameters or (), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_threads_need_one_machine_code_for_each_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes seconds to make."""
    monkeypatch.setattr(plan, "PARALLEL_FROM", 0)
    torch.set_num_threads(2)
    for dtype in DTYPES.values():
        random_pass(networks_of(2, dtype), 37)
    assert len(program._run_together.signatures) == len(DTYPES)


@pytest.mark.parametrize(
    ("batch", "shares", "tiles"), [(100, 1, 3), (100, 2, 4), (256, 2, 6), (256, 4, 8), (10, 2, 1), (0, 2, 0)]
)
def test_a_network_alone_has_as_many_tiles_for_each_thread(batch: int, shares: int, tiles: int) -> None:
    found = plan.tiles_of(batch, 3, shares)
    assert len(found) == tiles
    assert found[:, 1].sum() == -(-batch // LANES)
    assert found[:, 0].tolist() == (LANES * (found[:, 1].cumsum() - found[:, 1])).tolist()
    assert found[:, 1].max(initial=0) <= 3
