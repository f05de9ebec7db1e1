"""Norms of each neuron over all samples, against autograd with dense masked weights."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from oracle.network_twins import twin_of
from support.networks import backward, drawn_layer, forward, given

from sparserl.kernels import BACKENDS, After, BatchStatistics, GradientRequest, Linear, Networks, chain, plan

DTYPES = {"float32": torch.float32, "float64": torch.float64}
CLOSE = {torch.float32: 2e-4, torch.float64: 1e-9}
Form = tuple[tuple[int, ...], tuple[str | None, ...]] | tuple[tuple[int, ...], tuple[str | None, ...], str]
FORMS: dict[str, Form] = {
    "before each layer": ((7, 13, 11, 3), ("batch", "batch", "batch")),
    "before some layers": ((6, 9, 12, 10, 2), (None, "batch", None, "batch")),
    "beside other norms": ((5, 12, 9, 2), ("affine", "batch", "layer")),
    "one layer": ((4, 3), ("batch",)),
    "tanh": ((7, 13, 11, 9, 3), ("batch", "batch", None, "batch"), "tanh"),
    "wide": ((17, 130, 520, 3), ("batch", "batch", "batch")),
}
BOUNDS = {"by the batch": (1.0, 0.0), "renormalised": (3.0, 5.0), "at the bounds": (1.1, 0.1)}


def networks_of(
    form: Form, dtype: torch.dtype, *, bounds: tuple[float, float] = (3.0, 5.0), count: int = 2, density: float = 0.4
) -> Networks:
    """With different random topologies, and statistics of other batches."""
    widths, kinds, activation = form if len(form) == 3 else (*form, "relu")
    rng = np.random.default_rng([count, *widths])

    def layer(n_in: int, n_out: int, kind: str | None) -> Linear:
        made = drawn_layer(rng, n_in, n_out, dtype, kind, density)
        if activation == "tanh":
            made.values.mul_(0.3)  # where it saturates variances are of rounding
        if kind != "batch":
            return made
        mean, var = (torch.from_numpy(rng.normal(size=n_in)).to(dtype) for _ in range(2))
        latest = torch.full((2, n_in), torch.nan, dtype=dtype)
        limits = torch.tensor(bounds, dtype=dtype)
        return replace(made, norm=replace(made.norm, batch=BatchStatistics(mean, 0.5 + var.square(), limits, latest)))

    pairs = list(pairwise(widths))
    chains = [[layer(*pair, kind) for pair, kind in zip(pairs, kinds, strict=True)] for _ in range(count)]
    return Networks(chains, after=chain([activation] * (len(pairs) - 1)))


def same(ours: torch.Tensor, theirs: torch.Tensor, scale: float = 1.0) -> None:
    close = CLOSE[theirs.dtype]
    torch.testing.assert_close(ours, theirs, rtol=10 * close, atol=scale * close)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("batch", [2, 16, 31, 100, 300])
@pytest.mark.parametrize("form", FORMS)
def test_equals_torch(form: str, batch: int, dtype: torch.dtype, backend: str) -> None:
    # Of two samples variances are small by chance, and what is divided by them is large.
    tolerance = 1 if batch > 2 else 100
    networks = networks_of(FORMS[form], dtype)
    x, dy = given(networks, batch, mean=2.0)
    twin = twin_of(networks, x, dy)
    y, saved = forward(BACKENDS[backend], networks, x, keep=True)
    same(y, twin.y, tolerance)
    same(forward(BACKENDS[backend], networks, x, keep=False)[0], twin.y, tolerance)
    places = tuple((network, layer) for network in range(2) for layer in range(len(networks.widths) - 1))
    for _ in range(2):  # what is saved stays valid
        gradients = backward(BACKENDS[backend], networks, saved, dy, GradientRequest(samples=places))
        assert gradients.x is not None
        same(gradients.x, twin.x, tolerance * batch)
        for ours, theirs in zip(gradients.parameters or (), twin.parameters, strict=True):
            same(ours, theirs, 10 * tolerance * batch)
        for sample in gradients.samples:
            read, by_sums = twin.samples[sample.network, sample.layer]
            same(sample.x, read, 10 * tolerance)
            same(sample.dy, by_sums, 100 * tolerance)


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_bounds_of_what_a_batch_may_differ_by(name: str, backend: str) -> None:
    networks = networks_of(FORMS["before each layer"], torch.float64, bounds=BOUNDS[name])
    x, dy = given(networks, 50, mean=2.0)
    twin = twin_of(networks, x, dy)
    y, saved = forward(BACKENDS[backend], networks, x, keep=True)
    same(y, twin.y)
    gradients = backward(BACKENDS[backend], networks, saved, dy, GradientRequest())
    for ours, theirs in zip(gradients.parameters or (), twin.parameters, strict=True):
        same(ours, theirs, 100)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_pass_says_the_moments_of_its_batch_and_leaves_the_running_ones(backend: str) -> None:
    networks = networks_of(FORMS["before each layer"], torch.float64)
    x, _ = given(networks, 37, mean=2.0)
    for layers in networks.networks:
        norm = layers[0].norm
        assert norm is not None
        assert norm.batch is not None
        before = norm.batch.mean.clone(), norm.batch.var.clone()
        forward(BACKENDS[backend], networks, x, keep=True)
        same(norm.batch.latest, torch.stack([x.mean(dim=0), x.var(dim=0)]))
        assert torch.equal(norm.batch.mean, before[0])
        assert torch.equal(norm.batch.var, before[1])


@pytest.mark.parametrize("form", FORMS)
def test_the_number_of_threads_changes_no_bit_of_outputs_and_norms(
    form: str, monkeypatch: pytest.MonkeyPatch, thread_counts: None
) -> None:
    monkeypatch.setattr(plan, "PARALLEL_FROM", 1)
    networks = networks_of(FORMS[form], torch.float32)
    x, dy = given(networks, 300, mean=2.0)
    found = []
    for threads in (1, 2, 2):
        torch.set_num_threads(threads)
        y, saved = forward(BACKENDS["cpu"], networks, x, keep=True)
        gradients = backward(BACKENDS["cpu"], networks, saved, dy, GradientRequest())
        found.append([y, gradients.x, *(gradients.parameters or ())])
    assert all(map(torch.equal, found[1], found[2]))
    assert torch.equal(found[0][0], found[1][0])
    for ours, theirs in zip(found[0], found[1], strict=True):
        same(ours, theirs, 3000)  # type: ignore[arg-type]  # all are wanted


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("lowest", range(3))
def test_only_what_matters_is_formed(lowest: int, backend: str) -> None:
    networks = networks_of(FORMS["before each layer"], torch.float64, count=1)
    x, dy = given(networks, 21, mean=2.0)
    twin = twin_of(networks, x, dy)
    saved = forward(BACKENDS[backend], networks, x, keep=True)[1]
    gradients = backward(BACKENDS[backend], networks, saved, dy, GradientRequest(inputs=False, lowest=lowest))
    assert gradients.x is None
    for number, (ours, theirs) in enumerate(zip(gradients.parameters or (), twin.parameters, strict=True)):
        same(ours, theirs if number // 4 >= lowest else torch.zeros_like(theirs), 100)
    toward = backward(BACKENDS[backend], networks, saved, dy, GradientRequest(parameters=False, last=2))
    assert toward.x is not None
    same(toward.x, twin.x[:, -2:], 100)


@pytest.mark.parametrize("rows", [1, 1000])
def test_gradients_in_panels_are_the_same_to_the_bit(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for panel in (0, rows):
        monkeypatch.setattr(plan, "gradient_panel", lambda n_rows, n_cols, nnz, size, panel=panel: panel)
        networks = networks_of(FORMS["before some layers"], torch.float32)
        x, dy = given(networks, 70, mean=2.0)
        saved = forward(BACKENDS["cpu"], networks, x, keep=True)[1]
        gradients = backward(BACKENDS["cpu"], networks, saved, dy, GradientRequest())
        results.append([gradients.x, *(gradients.parameters or ())])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*results, strict=True))  # type: ignore[arg-type]


def test_what_does_not_fit_is_refused() -> None:
    [[layer]] = networks_of(FORMS["one layer"], torch.float32, count=1).networks
    assert layer.norm is not None
    assert layer.norm.batch is not None
    for norm in (
        replace(layer.norm, batch=None),
        replace(layer.norm, kind="layer"),
        replace(layer.norm, batch=replace(layer.norm.batch, mean=torch.zeros(5))),
        replace(layer.norm, batch=replace(layer.norm.batch, bounds=torch.ones(2).double())),
    ):
        with pytest.raises(ValueError, match="does not fit"):
            Networks([[replace(layer, norm=norm)]])
    form = networks_of(((4, 4), ("batch",)), torch.float32, count=1)
    with pytest.raises(ValueError, match="added to no sums"):
        Networks(form.networks, after=[After("identity", 0)])
    x, _ = given(form, 1, mean=2.0)
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        forward(BACKENDS["cpu"], form, x, keep=True)


def test_operations_are_counted() -> None:
    networks = networks_of(FORMS["before each layer"], torch.float32)
    levels = 2 * (7 + 13 + 11)
    assert networks.forward_flops(10) == 10 * (2 * networks.nnz + 7 * levels)
    assert networks.backward_flops(10, GradientRequest()) == 10 * (4 * networks.nnz + (5 + 4) * levels)
