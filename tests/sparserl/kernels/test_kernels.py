"""Every kernel backend against dense products: single layers, whole networks, and passes that overlap."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from oracle.network_twins import TwinResult, twin_of
from support.networks import MASKS, backward, forward, of_mask, whole, whole_networks

from sparserl.errors import KernelUnavailable
from sparserl.kernels import (
    BACKENDS,
    GradientRequest,
    Gradients,
    Linear,
    Networks,
    active_backend,
    cpu,
    plan,
    reference,
    require_cpu,
    use_backend,
)

BATCHES = [0, 1, 2, 7, 15, 16, 17, 31, 32, 33, 47, 48, 49, 64, 100, 113, 256]
DTYPES = {"float32": torch.float32, "float64": torch.float64}
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-11}
SIGNED = (-2, -1, 0, 1, 2)

each_backend = pytest.mark.parametrize("backend", BACKENDS)
each_dtype = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)


def passes(networks: Networks, batch: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """An input, and a gradient of the output."""
    x = whole(batch, networks.widths[0], among=SIGNED, dtype=networks.dtype, seed=seed)
    shape = len(networks.networks), batch, networks.widths[-1]
    return x, whole(*shape, among=SIGNED, dtype=networks.dtype, seed=seed)


def assert_equal(gradients: Gradients, twin: TwinResult) -> None:
    assert gradients.x is not None
    assert gradients.parameters is not None
    assert torch.equal(gradients.x, twin.x)
    for ours, theirs in zip(gradients.parameters, twin.parameters, strict=True):
        assert torch.equal(ours, theirs)


@each_dtype
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("name", MASKS)
@each_backend
def test_one_layer_equals_the_dense_products(backend: str, name: str, with_bias: bool, dtype: torch.dtype) -> None:
    mask = MASKS[name]
    n_out, n_in = mask.shape
    close = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    values, bias = drawn(int(mask.sum())), drawn(n_out) if with_bias else None
    networks = Networks([[Linear(of_mask(mask), values, bias)]])
    weight, shift = np.zeros(mask.shape), np.zeros(n_out) if bias is None else bias.double().numpy()
    weight[mask] = values.double().numpy()
    for batch in BATCHES:
        x, dy = drawn(batch, n_in), drawn(1, batch, n_out)
        before = [None if tensor is None else tensor.clone() for tensor in (values, bias, x, dy)]
        y, saved = forward(BACKENDS[backend], networks, x, keep=True)
        gradients = backward(BACKENDS[backend], networks, saved, dy, GradientRequest())
        x64, dy64 = x.double().numpy(), dy[0].double().numpy()
        assert gradients.x is not None
        assert gradients.parameters is not None
        d_values, d_bias = gradients.parameters
        assert {t.dtype for t in (y, gradients.x, d_values, d_bias)} == {dtype}
        np.testing.assert_allclose(y.numpy(), (x64 @ weight.T + shift)[None], **close)
        np.testing.assert_allclose(gradients.x.numpy(), dy64 @ weight, **close)
        np.testing.assert_allclose(d_values.numpy(), (dy64.T @ x64)[mask], **close)
        np.testing.assert_allclose(d_bias.numpy(), dy64.sum(axis=0) if with_bias else np.zeros(0), **close)
        alone = forward(BACKENDS[backend], networks, x, keep=False)[0]
        np.testing.assert_allclose(alone.numpy(), (x64 @ weight.T + shift)[None], **close)
        assert batch == 1 or torch.equal(y, alone)
        for now, then in zip((values, bias, x, dy), before, strict=True):
            assert now is None or torch.equal(now, then)  # type: ignore[arg-type]  # neither is None


@each_dtype
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(
    "widths",
    [(9, 4), (5, 21, 3), (17, 19, 33, 2), (6, 35, 18, 20, 1), (3, 600, 4), (513, 7, 40, 2)],
    ids=lambda widths: "-".join(map(str, widths)),
)
@each_backend
def test_networks_equal_the_dense_twin(backend: str, widths: tuple[int, ...], count: int, dtype: torch.dtype) -> None:
    networks = whole_networks(widths, count, dtype, bias=count != 2)
    places = [(network, layer) for network in range(count) for layer in range(len(widths) - 1)]
    for batch in (0, 1, 5, 16, 17, 33, 49, 100):
        x, dy = passes(networks, batch)
        twin = twin_of(networks, x, dy)
        y, saved = forward(BACKENDS[backend], networks, x, keep=True)
        gradients = backward(BACKENDS[backend], networks, saved, dy, GradientRequest(samples=tuple(places)))
        assert torch.equal(y, twin.y)
        assert torch.equal(forward(BACKENDS[backend], networks, x, keep=False)[0], twin.y)
        assert_equal(gradients, twin)
        assert [(sample.network, sample.layer) for sample in gradients.samples] == places
        for sample in gradients.samples:
            assert torch.equal(sample.x, twin.samples[sample.network, sample.layer][0])
            assert torch.equal(sample.dy, twin.samples[sample.network, sample.layer][1])


def test_the_networks_of_these_tests_are_alive() -> None:
    """Whole weights keep results exact only if they stay small, and a dead network would agree with anything."""
    networks = whole_networks((6, 35, 18, 20, 1), 3, torch.float32)
    x, dy = passes(networks, 100)
    twin = twin_of(networks, x, dy)
    for tensor in (twin.y, twin.x, *twin.parameters, *(end for pair in twin.samples.values() for end in pair)):
        assert 0 < tensor.abs().max() < 2**22
        assert (tensor != 0).float().mean() > 0.1


@pytest.mark.parametrize("inputs", [True, False])
@pytest.mark.parametrize("parameters", [True, False])
@pytest.mark.parametrize("samples", [(), ((1, 3),), ((1, 2), (0, 3))], ids=["no samples", "one sample", "two samples"])
@pytest.mark.parametrize("lowest", range(4))
@each_backend
def test_what_is_wanted_is_returned(
    backend: str, lowest: int, samples: tuple[tuple[int, int], ...], parameters: bool, inputs: bool
) -> None:
    networks = whole_networks((6, 35, 18, 20, 3), 2, torch.float64)
    samples = tuple((network, layer) for network, layer in samples if layer >= lowest)
    x, dy = passes(networks, 37)
    twin = twin_of(networks, x, dy)
    _, saved = forward(BACKENDS[backend], networks, x, keep=True)
    gradients = backward(BACKENDS[backend], networks, saved, dy, GradientRequest(inputs, parameters, lowest, samples))
    assert (gradients.x is not None, gradients.parameters is not None) == (inputs, parameters)
    if gradients.x is not None:
        assert torch.equal(gradients.x, twin.x)
    for place, (ours, theirs) in enumerate(zip(gradients.parameters or (), twin.parameters, strict=bool(parameters))):
        assert torch.equal(ours, theirs if place // 2 % 4 >= lowest else torch.zeros_like(theirs))
    assert [(sample.network, sample.layer) for sample in gradients.samples] == list(samples)
    for sample in gradients.samples:
        assert torch.equal(sample.x, twin.samples[sample.network, sample.layer][0])
        assert torch.equal(sample.dy, twin.samples[sample.network, sample.layer][1])


@each_backend
def test_what_one_pass_prepared_is_enough_for_no_other(backend: str) -> None:
    """Transposed matrices are prepared for the layers that need them."""
    networks = whole_networks((6, 35, 18, 20, 3), 2, torch.float64)
    x, dy = passes(networks, 37)
    twin = twin_of(networks, x, dy)
    _, saved = forward(BACKENDS[backend], networks, x, keep=True)
    for lowest in (3, 1, 2, 0):
        gradients = backward(BACKENDS[backend], networks, saved, dy, GradientRequest(inputs=False, lowest=lowest))
        for place, (ours, theirs) in enumerate(zip(gradients.parameters or (), twin.parameters, strict=True)):
            assert place // 2 % 4 < lowest or torch.equal(ours, theirs)
    assert_equal(backward(BACKENDS[backend], networks, saved, dy, GradientRequest()), twin)


def _pass(networks: Networks, backend: str, batch: int, keep: bool, backwards: int = 0) -> object:
    x, dy = passes(networks, batch, seed=7)
    y, saved = forward(BACKENDS[backend], networks, x, keep=keep)
    gradients = [backward(BACKENDS[backend], networks, saved, dy, GradientRequest()) for _ in range(backwards)]
    return y, saved, gradients


BETWEEN: dict[str, Callable[[Networks, str], object]] = {
    "nothing": lambda networks, backend: None,
    "a pass without a way back": lambda networks, backend: _pass(networks, backend, 37, keep=False),
    "a kept pass": lambda networks, backend: _pass(networks, backend, 37, keep=True),
    "a kept pass that ends": lambda networks, backend: _pass(networks, backend, 37, keep=True) and None,
    "a pass of another batch": lambda networks, backend: _pass(networks, backend, 100, keep=True),
    "a pass there and back": lambda networks, backend: _pass(networks, backend, 37, keep=True, backwards=1),
    "many passes": lambda networks, backend: [
        _pass(networks, backend, 37, keep, backwards=2 * keep) for keep in (True, False, True, True)
    ],
}


@pytest.mark.parametrize("between", BETWEEN)
@each_backend
def test_what_a_pass_saved_and_returned_stays_valid(backend: str, between: str) -> None:
    networks = whole_networks((6, 35, 18, 3), 2, torch.float64)
    x, dy = passes(networks, 37)
    twin, changed_dy = twin_of(networks, x, dy), dy.flip(1)
    changed_twin, kernels, samples = twin_of(networks, x, changed_dy), BACKENDS[backend], ((0, 1),)
    y, saved = forward(kernels, networks, x.clone(), keep=True)
    others = [BETWEEN[between](networks, backend)]
    first = backward(kernels, networks, saved, dy, GradientRequest(samples=samples))
    others.append(BETWEEN[between](networks, backend))
    changed = backward(kernels, networks, saved, changed_dy, GradientRequest(samples=samples))
    saved = None  # from here on others may take its memory
    others.append(BETWEEN[between](networks, backend))
    assert torch.equal(y, twin.y)
    for gradients, expected in ((first, twin), (changed, changed_twin)):
        assert_equal(gradients, expected)
        assert torch.equal(gradients.samples[0].x, expected.samples[0, 1][0])
        assert torch.equal(gradients.samples[0].dy, expected.samples[0, 1][1])


@each_backend
def test_the_input_may_be_overwritten_before_the_way_back(backend: str) -> None:
    networks = whole_networks((6, 35, 3), 2, torch.float64)
    x, dy = passes(networks, 37)
    twin = twin_of(networks, x, dy)
    _, saved = forward(BACKENDS[backend], networks, x, keep=True)
    x.zero_()
    assert_equal(backward(BACKENDS[backend], networks, saved, dy, GradientRequest()), twin)


@each_backend
def test_values_are_read_when_they_are_needed(backend: str) -> None:
    """Optimizers change them in place."""
    networks = whole_networks((6, 35, 3), 2, torch.float64)
    x, dy = passes(networks, 37)
    for _ in range(2):
        y, saved = forward(BACKENDS[backend], networks, x, keep=True)
        twin = twin_of(networks, x, dy)
        assert torch.equal(y, twin.y)
        assert_equal(backward(BACKENDS[backend], networks, saved, dy, GradientRequest()), twin)
        for layers in networks.networks:
            for layer in layers:
                layer.values.mul_(-2.0)
                layer.bias.add_(1.0)  # type: ignore[union-attr]  # there is one


@each_backend
def test_tensors_of_any_layout_are_taken(backend: str) -> None:
    networks = whole_networks((6, 35, 3), 2, torch.float64)
    x, dy = passes(networks, 37)
    twin = twin_of(networks, x, dy)
    y, saved = forward(BACKENDS[backend], networks, x.t().contiguous().t().requires_grad_(), keep=True)
    assert torch.equal(y, twin.y)
    assert not y.requires_grad
    strided = dy.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    assert_equal(backward(BACKENDS[backend], networks, saved, strided, GradientRequest()), twin)
    ones = torch.ones(1, 1, 1, dtype=torch.float64).expand_as(dy)
    assert_equal(backward(BACKENDS[backend], networks, saved, ones, GradientRequest()), twin_of(networks, x, ones))


@each_backend
def test_a_layer_may_be_used_twice(backend: str) -> None:
    (layer,) = whole_networks((8, 8), 1, torch.float64).networks[0]
    networks = Networks([[layer, layer, layer]])
    x, dy = passes(networks, 37)
    y, saved = forward(BACKENDS[backend], networks, x, keep=True)
    twin = twin_of(networks, x, dy)
    assert torch.equal(y, twin.y)
    assert_equal(backward(BACKENDS[backend], networks, saved, dy, GradientRequest()), twin)


@each_backend
def test_gradients_take_the_memory_of_those_before_only_where_both_say_so(backend: str) -> None:
    networks, kernels = whole_networks((6, 35, 3), 2, torch.float64), BACKENDS[backend]
    x, dy = passes(networks, 37)
    _, saved = forward(kernels, networks, x, keep=True)
    kept = backward(kernels, networks, saved, dy, GradientRequest())
    for scale in (2, 3):
        gradients = backward(kernels, networks, saved, scale * dy, GradientRequest(reuse=True))
        other = backward(kernels, networks, saved, -dy, GradientRequest())
        assert_equal(gradients, twin_of(networks, x, scale * dy))
        assert_equal(other, twin_of(networks, x, -dy))
    assert_equal(kept, twin_of(networks, x, dy))


def test_memory_of_a_pass_that_ended_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made, frame = [], plan.Frame
    monkeypatch.setattr(plan, "Frame", lambda *arguments: made.append(arguments) or frame(*arguments))
    networks = whole_networks((6, 35, 3), 2, torch.float64)
    for _ in range(3):
        _pass(networks, "cpu", 37, keep=True, backwards=1)
        _pass(networks, "cpu", 37, keep=False)
        networks = Networks(networks.networks, networks)
    assert len(made) == 2  # with and without a way back
    held = [_pass(networks, "cpu", 37, keep=True) for _ in range(3)]
    assert len(made) == 4
    del held


@each_backend
def test_networks_that_replace_others_compute_on_their_own(backend: str) -> None:
    """They may use the memory of those before, whose passes may go on."""
    widths, kernels = (6, 35, 3), BACKENDS[backend]
    before = whole_networks(widths, 2, torch.float64)
    x, dy = passes(before, 37)
    _, early = forward(kernels, before, x, keep=True)
    for density in (0.2, 0.9):
        after = Networks(whole_networks(widths, 2, torch.float64, density=density).networks, before)
        _pass(before, backend, 37, keep=True, backwards=1)
        y, saved = forward(kernels, after, x, keep=True)
        _, late = forward(kernels, before, -x, keep=True)
        assert torch.equal(y, twin_of(after, x, dy).y)
        assert torch.equal(forward(kernels, after, x, keep=False)[0], y)
        assert_equal(backward(kernels, after, saved, dy, GradientRequest()), twin_of(after, x, dy))
        assert_equal(backward(kernels, before, late, dy, GradientRequest()), twin_of(before, -x, dy))
        assert_equal(backward(kernels, before, early, dy, GradientRequest()), twin_of(before, x, dy))


@pytest.mark.parametrize(
    ("widths", "count", "dtype", "shared"),
    [
        ((6, 35, 3), 2, torch.float32, True),
        ((6, 35, 3), 1, torch.float32, False),
        ((6, 35, 3), 3, torch.float32, False),
        ((6, 35, 3), 2, torch.float64, False),
        ((6, 34, 3), 2, torch.float32, False),
        ((6, 35, 3, 3), 2, torch.float32, False),
    ],
)
def test_memory_is_that_of_networks_of_the_same_sizes(
    widths: tuple[int, ...], count: int, dtype: torch.dtype, shared: bool
) -> None:
    before = whole_networks((6, 35, 3), 2, torch.float32)
    after = Networks(whole_networks(widths, count, dtype).networks, before)
    assert (after.memory is before.memory) == shared


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
