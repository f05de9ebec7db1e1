"""NaN and infinities go where torch would send them, and nowhere else: not through connections that do not exist, not
into other samples, not through the samples that fill a batch up.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from oracle.network_twins import by_connection, twin_of
from support.networks import backward, forward, whole, whole_networks

from sparserl.kernels import BACKENDS, GradientRequest, Networks

NAN, INF = torch.nan, torch.inf
BATCHES = [1, 5, 16, 100]

# Samples count from the end as well, where the padding begins.
PLACES: dict[str, Callable[[Networks, torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "the first sample": lambda networks, x, dy: x[0],
    "the last sample": lambda networks, x, dy: x[-1],
    "one feature": lambda networks, x, dy: x[len(x) // 2, 2:3],
    "an output's gradient": lambda networks, x, dy: dy[0, -1, :1],
    **{f"layer {at}'s weights": lambda networks, x, dy, at=at: networks.networks[0][at].values[2:3] for at in range(3)},
    **{f"layer {at}'s biases": lambda networks, x, dy, at=at: networks.networks[0][at].bias[1:2] for at in range(3)},  # type: ignore[index]  # there is one
}


def assert_same(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


def positive(*shape: int, seed: int = 0) -> torch.Tensor:
    """Without zeros, so that an infinity stays one until it meets an absent connection or a closed ReLU."""
    return whole(*shape, among=(1, 2), dtype=torch.float32, seed=seed)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_not_finite_goes_where_torch_sends_it(backend: str, place: str, value: float, batch: int) -> None:
    networks = whole_networks((5, 9, 7, 3), 2, torch.float32, among=(-1, 1, 2))
    x, dy = positive(batch, 5), positive(2, batch, 3)
    PLACES[place](networks, x, dy).fill_(value)
    twin = twin_of(networks, x, dy, by_connection)
    places = tuple(twin.samples)
    y, saved = forward(BACKENDS[backend], networks, x, keep=True)
    gradients = backward(BACKENDS[backend], networks, saved, dy, GradientRequest(samples=places))
    assert gradients.x is not None
    assert gradients.parameters is not None
    assert_same(y, twin.y)
    assert_same(forward(BACKENDS[backend], networks, x, keep=False)[0], twin.y)
    assert_same(gradients.x, twin.x)
    for ours, theirs in zip(gradients.parameters, twin.parameters, strict=True):
        assert_same(ours, theirs)
    for place, sample in zip(places, gradients.samples, strict=True):
        assert_same(sample.x, twin.samples[place][0])
        assert_same(sample.dy, twin.samples[place][1])


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("backend", BACKENDS)
def test_other_samples_and_networks_stay_finite(backend: str, value: float) -> None:
    networks = whole_networks((5, 9, 7, 3), 2, torch.float32, density=1.0)
    x, dy = positive(100, 5), positive(2, 100, 3)
    x[40, 1] = value
    networks.networks[1][2].bias[0] = value  # type: ignore[index]  # there is one
    y, saved = forward(BACKENDS[backend], networks, x, keep=True)
    gradients = backward(BACKENDS[backend], networks, saved, dy, GradientRequest())
    assert gradients.x is not None
    others = torch.arange(100) != 40
    assert not y[0, 40].isfinite().all()
    assert y[0, others].isfinite().all()
    assert not y[1, :, 0].isfinite().any()
    assert y[1, others, 1:].isfinite().all()
    assert gradients.x[others].isfinite().all()


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("batch", BATCHES)
def test_memory_that_held_nan_leaves_no_trace(batch: int, keep: bool) -> None:
    networks, fresh = (whole_networks((5, 9, 7, 3), 2, torch.float32) for _ in range(2))
    kernels, x, dy = BACKENDS["cpu"], positive(batch, 5), positive(2, batch, 3)
    for _ in range(2):
        _, saved = forward(kernels, networks, torch.full_like(x, NAN), keep=keep)
        if keep:
            backward(kernels, networks, saved, torch.full_like(dy, NAN), GradientRequest())
    saved = None
    y, saved = forward(kernels, networks, x, keep=True)
    gradients = backward(kernels, networks, saved, dy, GradientRequest())
    y_fresh, saved_fresh = forward(kernels, fresh, x, keep=True)
    expected = backward(kernels, fresh, saved_fresh, dy, GradientRequest())
    assert torch.equal(forward(kernels, networks, x, keep=False)[0], y_fresh)
    assert torch.equal(y, y_fresh)
    assert torch.equal(gradients.x, expected.x)  # type: ignore[arg-type]  # both are wanted
    for ours, theirs in zip(gradients.parameters or (), expected.parameters or (), strict=True):
        assert torch.equal(ours, theirs)
