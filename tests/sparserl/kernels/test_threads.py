"""One thread against several, and when threads are woken."""

from __future__ import annotations

import pytest
import torch
from support.networks import whole, whole_networks

from sparserl.kernels import Gradients, Networks, Wanted, cpu

WIDTHS = (11, 37, 18, 3)
DTYPES = {"float32": torch.float32, "float64": torch.float64}


pytestmark = pytest.mark.usefixtures("thread_counts")


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Kernels that were launched, with the number of workers."""
    found: list[tuple[str, int]] = []
    for name in ("forward_serial", "forward_threads", "backward_serial", "backward_threads"):

        def spy(workers: int, *task: object, name: str = name, kernel: object = getattr(cpu, name)) -> None:
            found.append((name, workers))
            kernel(workers, *task)  # type: ignore[operator]

        monkeypatch.setattr(cpu, name, spy)
    return found


def random_pass(networks: Networks, batch: int) -> tuple[torch.Tensor, torch.Tensor, Gradients]:
    """Both outputs, with and without a way back, and gradients."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, networks.widths[0], generator=generator, dtype=networks.dtype)
    dy = torch.randn(len(networks.networks), batch, networks.widths[-1], generator=generator, dtype=networks.dtype)
    places = tuple((network, 1) for network in range(len(networks.networks)))
    y, saved = cpu.forward(networks, x, keep=True)
    return y, cpu.forward(networks, x, keep=False)[0], cpu.backward(networks, saved, dy, Wanted(samples=places))


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
    launched: list[tuple[str, int]],
) -> None:
    monkeypatch.setattr(cpu, "PARALLEL_FROM", 0)
    torch.set_num_threads(1)
    y, y_alone, one = random_pass(networks_of(count, dtype), batch)
    assert launched == [("forward_serial", 1), ("forward_serial", 1), ("backward_serial", 1)]
    launched.clear()
    torch.set_num_threads(threads)
    y_threads, y_alone_threads, several = random_pass(networks_of(count, dtype), batch)
    again = random_pass(networks_of(count, dtype), batch)[2]
    assert launched == 2 * [
        ("forward_threads", workers),
        ("forward_threads", workers),
        ("backward_threads", workers),
    ]
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


@pytest.mark.parametrize(
    ("threads", "batch", "kernels"), [(1, 64, "serial"), (2, 16, "serial"), (2, 63, "serial"), (2, 64, "threads")]
)
def test_threads_are_woken_for_large_products_that_can_be_shared(
    threads: int, batch: int, kernels: str, monkeypatch: pytest.MonkeyPatch, launched: list[tuple[str, int]]
) -> None:
    networks = networks_of(1)
    monkeypatch.setattr(cpu, "PARALLEL_FROM", networks.nnz * 64)
    torch.set_num_threads(threads)
    random_pass(networks, batch)
    assert [name for name, _ in launched] == [f"forward_{kernels}", f"forward_{kernels}", f"backward_{kernels}"]


def test_small_products_wake_no_threads(launched: list[tuple[str, int]]) -> None:
    torch.set_num_threads(2)
    random_pass(networks_of(2), 256)
    assert {workers for _, workers in launched} == {1}


def test_the_way_back_takes_as_many_threads_as_the_way_there(
    monkeypatch: pytest.MonkeyPatch, launched: list[tuple[str, int]]
) -> None:
    """Memory is laid out for them."""
    monkeypatch.setattr(cpu, "PARALLEL_FROM", 0)
    networks, x = networks_of(2), whole(100, WIDTHS[0], among=(-1, 1), dtype=torch.float32)
    dy = torch.ones(2, 100, WIDTHS[-1])
    results = []
    for there, back in [(2, 1), (1, 2), (2, 2)]:
        torch.set_num_threads(there)
        _, saved = cpu.forward(networks, x, keep=True)
        torch.set_num_threads(back)
        results.append(cpu.backward(networks, saved, dy, Wanted()))
    assert [workers for _, workers in launched] == [2, 2, 1, 1, 2, 2]
    for gradients in results:
        for ours, theirs in zip(gradients.parameters or (), results[0].parameters or (), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_threads_need_one_machine_code_for_each_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes seconds to make."""
    monkeypatch.setattr(cpu, "PARALLEL_FROM", 0)
    torch.set_num_threads(2)
    for dtype in DTYPES.values():
        random_pass(networks_of(2, dtype), 37)
    for kernel in (cpu.forward_threads, cpu.backward_threads):
        assert len(kernel.signatures) == len(DTYPES)
