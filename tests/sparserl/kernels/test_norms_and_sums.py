"""Norms before products and levels that are added to sums, against torch's own layers with dense masked weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from oracle.network_twins import twin_of
from support.networks import backward, drawn_layer, forward, given, of_mask

from sparserl.kernels import BACKENDS, After, GradientRequest, Linear, Networks, Norm, plan
from sparserl.kernels.slots import backward_slots, forward_slots, slots_of

DTYPES = {"float32": torch.float32, "float64": torch.float64}
CLOSE = {torch.float32: {"rtol": 2e-4, "atol": 2e-4}, torch.float64: {"rtol": 1e-10, "atol": 1e-10}}
Form = tuple[tuple[int, ...], Sequence[After], Sequence[str | None]]
RELU, TANH = After("relu"), After("tanh")
FORMS: dict[str, Form] = {
    "simba, 2 blocks": (
        (7, 13, 52, 13, 52, 13, 3),
        [After("identity"), RELU, After("identity", 1), RELU, After("identity", 3), After("identity")],
        ["affine", "layer", None, "layer", None, "layer"],
    ),
    "a norm of the input, which is added too": (
        (5, 5, 9, 5, 3),
        [After("relu", 0), After("identity"), After("relu", 1), After("identity")],
        ["layer", None, None, None],
    ),
    "one level added twice": (
        (6, 11, 11, 11, 11),
        [RELU, After("relu", 1), After("identity", 1), After("identity", 1)],
        [None, "layer", "affine", None],
    ),
    "a norm of a single neuron": ((3, 1, 3), [After("identity"), After("identity")], [None, "layer"]),
    "one layer": ((4, 3), [After("identity")], ["layer"]),
    "tanh": ((7, 13, 40, 13, 3), [TANH, TANH, TANH, After("identity")], [None] * 4),
    "tanh among others": (
        (6, 11, 11, 11, 11, 11),
        [TANH, After("tanh", 1), RELU, After("tanh", 1), After("identity", 2)],
        [None, "layer", "affine", "layer", None],
    ),
    "wide": (
        (17, 130, 520, 130, 3),
        [After("identity"), RELU, After("identity", 1), After("identity")],
        [None, "layer", None, "layer"],
    ),
}


def networks_of(form: Form, dtype: torch.dtype, *, count: int = 2, density: float = 0.4, seed: int = 0) -> Networks:
    """With different random topologies."""
    widths, after, norms = form
    rng = np.random.default_rng([seed, count, *widths])
    pairs = list(pairwise(widths))
    chains = [
        [drawn_layer(rng, *pair, dtype, kind, density) for pair, kind in zip(pairs, norms, strict=True)]
        for _ in range(count)
    ]
    return Networks(chains, after=after)


def same(ours: torch.Tensor, theirs: torch.Tensor, scale: float = 1.0) -> None:
    close = CLOSE[theirs.dtype]
    torch.testing.assert_close(ours, theirs, rtol=close["rtol"], atol=scale * close["atol"])


@pytest.mark.parametrize("form", FORMS)
def test_there_is_something_to_compare(form: str) -> None:
    networks = networks_of(FORMS[form], torch.float64)
    twin = twin_of(networks, *given(networks, 31))
    spread = (twin.y.std(dim=1) > 0).any(dim=1)
    if form == "a norm of a single neuron":  # which is its shift, whatever it was
        assert not spread.any()
        return
    of_each = len(twin.parameters) // 2
    assert spread.all()
    assert all(twin.parameters[place].any() for place in (0, of_each))  # weights of the first layers


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("batch", [1, 2, 16, 31, 49, 100, 300])
@pytest.mark.parametrize("form", FORMS)
def test_equals_torch(form: str, batch: int, dtype: torch.dtype, backend: str) -> None:
    networks = networks_of(FORMS[form], dtype)
    depth = len(networks.widths) - 1
    x, dy = given(networks, batch)
    twin = twin_of(networks, x, dy)
    y, saved = forward(BACKENDS[backend], networks, x, keep=True)
    same(y, twin.y)
    same(forward(BACKENDS[backend], networks, x, keep=False)[0], twin.y)
    places = tuple((network, layer) for network in range(2) for layer in range(depth))
    for _ in range(2):  # what is saved stays valid
        gradients = backward(BACKENDS[backend], networks, saved, dy, GradientRequest(samples=places))
        assert gradients.x is not None
        same(gradients.x, twin.x, batch)
        for ours, theirs in zip(gradients.parameters or (), twin.parameters, strict=True):
            same(ours, theirs, 10 * batch)
        for sample in gradients.samples:
            read, by_sums = twin.samples[sample.network, sample.layer]
            same(sample.x, read, 10)
            same(sample.dy, by_sums, 10)


@pytest.mark.parametrize("form", FORMS)
def test_threads_and_backends_agree_on_what_a_layer_made(form: str, thread_counts: None) -> None:
    networks = networks_of(FORMS[form], torch.float64, count=1)
    layers = tuple((0, layer) for layer in range(len(networks.widths) - 1))
    x, dy = given(networks, 40)
    made = []
    for backend in BACKENDS.values():
        saved = forward(backend, networks, x, keep=True)[1]
        made.append(backward(backend, networks, saved, dy, GradientRequest(samples=layers)).samples)
    for ours, theirs in zip(*made, strict=True):
        assert (ours.a is None) == (theirs.a is None) == (ours.layer == layers[-1][1])
        if ours.a is not None and theirs.a is not None:
            same(ours.a, theirs.a, 10)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("batch", [33, 300])
def test_two_threads_sum_as_one_does_up_to_rounding(
    form: str, batch: int, monkeypatch: pytest.MonkeyPatch, thread_counts: None
) -> None:
    monkeypatch.setattr(plan, "PARALLEL_FROM", 1)
    networks = networks_of(FORMS[form], torch.float64, seed=3)
    x, dy = given(networks, batch)
    twin = twin_of(networks, x, dy)
    torch.set_num_threads(2)
    y, saved = forward(BACKENDS["cpu"], networks, x, keep=True)
    same(y, twin.y)
    same(forward(BACKENDS["cpu"], networks, x, keep=False)[0], twin.y)
    gradients = backward(BACKENDS["cpu"], networks, saved, dy, GradientRequest())
    same(gradients.x, twin.x, batch)  # type: ignore[arg-type]  # it is wanted
    for ours, theirs in zip(gradients.parameters or (), twin.parameters, strict=True):
        same(ours, theirs, 10 * batch)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("lowest", range(6))
def test_only_what_matters_is_formed(lowest: int, backend: str) -> None:
    networks = networks_of(FORMS["simba, 2 blocks"], torch.float64, count=1)
    x, dy = given(networks, 21)
    twin = twin_of(networks, x, dy)
    saved = forward(BACKENDS[backend], networks, x, keep=True)[1]
    gradients = backward(BACKENDS[backend], networks, saved, dy, GradientRequest(inputs=False, lowest=lowest))
    assert gradients.x is None
    of_layer = iter(zip(gradients.parameters or (), twin.parameters, strict=True))
    for position, layer in enumerate(networks.networks[0]):
        for _ in layer.tensors:
            ours, theirs = next(of_layer)
            same(ours, theirs if position >= lowest else torch.zeros_like(theirs), 100)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rows", [1, 1000])
def test_gradients_in_panels_are_the_same_to_the_bit(form: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for panel in (0, rows):
        monkeypatch.setattr(plan, "gradient_panel", lambda n_rows, n_cols, nnz, size, panel=panel: panel)
        networks = networks_of(FORMS[form], torch.float32)
        x, dy = given(networks, 70)
        saved = forward(BACKENDS["cpu"], networks, x, keep=True)[1]
        gradients = backward(BACKENDS["cpu"], networks, saved, dy, GradientRequest())
        results.append([gradients.x, *(gradients.parameters or ())])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*results, strict=True))  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_layer_norm_worked_by_hand(backend: str) -> None:
    # 1, 3 have mean 2 and variance 1: normalised -1, 1; scaled and shifted 2 * -1 + 10 = 8 and 3 * 1 + 20 = 23.
    norm = Norm("layer", torch.tensor([2.0, 3.0]), torch.tensor([10.0, 20.0]), epsilon=1e-12)
    index = of_mask(np.ones((1, 2), bool))
    networks = Networks([[Linear(index, torch.tensor([1.0, 10.0]), torch.tensor([0.5]), norm)]])
    y, saved = forward(BACKENDS[backend], networks, torch.tensor([[1.0, 3.0]]), keep=True)
    assert y.tolist() == [[[8.0 + 230.0 + 0.5]]]
    gradients = backward(BACKENDS[backend], networks, saved, torch.ones(1, 1, 1), GradientRequest())
    # By what the layer multiplies: 1, 10; times scale 2, 30. Two neurons leave no direction but mean and spread.
    assert [one.tolist() for one in gradients.parameters or ()] == [[8.0, 23.0], [1.0], [-1.0, 10.0], [1.0, 10.0]]
    torch.testing.assert_close(gradients.x, torch.zeros(1, 2), rtol=0, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_level_that_is_added_worked_by_hand(backend: str) -> None:
    # Level 1 is 2 x; level 2 is a ReLU of -3 times that plus level 1 itself: 4 for x = -1, 0 for x = 1.
    index = of_mask(np.ones((1, 1), bool))
    weights = [Linear(index, torch.tensor([value]), None) for value in (2.0, -3.0, 5.0)]
    networks = Networks([weights], after=[After("identity"), After("relu", 1), After("identity")])
    y, saved = forward(BACKENDS[backend], networks, torch.tensor([[-1.0], [1.0]]), keep=True)
    assert y.flatten().tolist() == [20.0, 0.0]
    gradients = backward(BACKENDS[backend], networks, saved, torch.ones(1, 2, 1), GradientRequest())
    assert gradients.x is not None
    assert gradients.x.flatten().tolist() == [5.0 * (-3.0 + 1.0) * 2.0, 0.0]
    # dy / dw1 = 5 * (-2) * x, dy / dw2 = 5 * level 1, dy / dw3 = level 2, of the first sample alone.
    assert [one.tolist() for one in gradients.parameters or () if one.numel()] == [[10.0], [-10.0], [4.0]]


def test_what_is_infinite_stays_in_its_sample() -> None:
    networks = networks_of(FORMS["simba, 2 blocks"], torch.float32, count=1)
    x, dy = given(networks, 19)
    expected, _ = forward(BACKENDS["cpu"], networks, x, keep=False)
    x[3, 0] = torch.inf
    y, saved = forward(BACKENDS["cpu"], networks, x, keep=True)
    others = np.arange(19) != 3
    assert torch.equal(y[:, others], expected[:, others])
    gradients = backward(BACKENDS["cpu"], networks, saved, dy, GradientRequest())
    assert torch.isfinite(gradients.x[others]).all()  # type: ignore[index]  # it is wanted


def test_operations_are_counted() -> None:
    networks = networks_of(FORMS["simba, 2 blocks"], torch.float32, count=2)
    nnz = networks.nnz
    # 8 for each entry of a layer norm: 3 levels of 13; 2 for each of the input; 2 levels of 13 are added.
    around = 8 * 3 * 13 + 2 * 7 + 2 * 13
    assert networks.forward_flops(10) == 10 * (2 * nnz + 2 * around)
    back = 12 * 3 * 13 + 7 + 2 * 13
    assert networks.backward_flops(10, GradientRequest(parameters=False)) == 10 * (2 * nnz + 2 * back)
    learned = 2 * nnz + 2 * 3 * 3 * 13
    assert networks.backward_flops(10, GradientRequest()) == 10 * (2 * nnz + 2 * back + learned)


@pytest.mark.parametrize(
    ("after", "message"),
    [
        ([RELU, RELU], "nothing at the end"),
        ([After("identity")], "2 layers"),
        ([After("relu", 1), After("identity")], "level 1 cannot be added"),
        ([After("relu", 0), After("identity")], "level 0 cannot be added"),
        ([RELU, After("identity", 2)], "level 2 cannot be added"),
        ([RELU, After("identity", -1)], "level -1 cannot be added"),
    ],
)
def test_refuses_what_cannot_follow(after: list[After], message: str) -> None:
    layers = networks_of(((4, 3, 3), [RELU, After("identity")], [None, None]), torch.float32, count=1).networks
    with pytest.raises(ValueError, match=message):
        Networks(layers, after=after)


@pytest.mark.parametrize(
    "norm",
    [
        Norm("layer", torch.ones(3), torch.ones(4)),
        Norm("layer", torch.ones(4), torch.ones(5)),
        Norm("layer", torch.ones(4), torch.ones(4).double()),
        Norm("layer", torch.ones(8)[::2], torch.ones(4)),
        Norm("layer", torch.ones(4), torch.ones(4), epsilon=0.0),
        Norm("bach", torch.ones(4), torch.ones(4)),
    ],
)
def test_refuses_norms_that_do_not_fit(norm: Norm) -> None:
    [[layer]] = networks_of(((4, 3), [After("identity")], ["layer"]), torch.float32, count=1).networks
    with pytest.raises(ValueError, match="does not fit"):
        Networks([[replace(layer, norm=norm)]])


def test_networks_side_by_side_have_the_same_norms() -> None:
    [[one], [other]] = networks_of(((4, 3), [After("identity")], ["layer"]), torch.float32).networks
    with pytest.raises(ValueError, match="same norms"):
        Networks([[one], [replace(other, norm=None)]])


def test_memory_is_shared_by_networks_of_one_form_alone() -> None:
    simba = FORMS["simba, 2 blocks"]
    first = networks_of(simba, torch.float32)
    assert Networks(first.networks, first, first.after).memory is first.memory
    plain = [[replace(layer, norm=None) for layer in layers] for layers in first.networks]
    assert Networks(plain, first, first.after).memory is not first.memory
    assert Networks(first.networks, first).memory is not first.memory


def test_slots_are_used_again_as_soon_as_nobody_needs_them() -> None:
    assert slots_of([(0, 1), (1, 2), (2, 3), (2, 2), (3, 3)]) == [0, 1, 0, 2, 1]
    after = FORMS["simba, 2 blocks"][1]
    levels, reads, last = forward_slots(after, [kind is not None for kind in FORMS["simba, 2 blocks"][2]])
    assert len({*levels, *reads, last}) == 3
    for layer in (1, 3):  # the level that is added is still there, beside what is multiplied and made
        assert len({levels[layer], levels[layer + 1], levels[layer + 2]}) == 3
    assert len({0, *backward_slots(after)}) == 3
