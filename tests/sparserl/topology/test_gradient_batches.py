"""Growth by the gradient of several batches: when it looks, what it adds up, what does not count, and resuming."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracle.dense_topology import gradient_growth, mask_of, matrix_of
from support.layers import random_layer

from sparserl.errors import TopologyError
from sparserl.layers import SparseLinear
from sparserl.layers.fused import FusedLayers
from sparserl.recording import checkpoint
from sparserl.topology.evolver import TopologyEvolver
from sparserl.topology.rewire import RewireRule
from sparserl.topology.structure import SparseTopology

RNG = np.random.default_rng


def by_gradient(batches: int, **fields: Any) -> RewireRule:
    return RewireRule("weight_magnitude", "gradient", **{"drop_fraction": 0.5, **fields}, gradient_batches=batches)


def evolver_of(layer: SparseLinear, rule: RewireRule, seed: int = 0) -> TopologyEvolver:
    return TopologyEvolver({"net": {"net.0": layer}}, rule, seed=seed)


def batch(update: int, n_in: int = 7) -> torch.Tensor:
    return torch.randn(9, n_in, generator=torch.Generator().manual_seed(update))


def train(layer: SparseLinear, update: int) -> None:
    """A step of gradient descent on a batch that depends on the update alone."""
    layer.values.grad = None
    layer(batch(update)).pow(3).sum().backward()
    assert layer.values.grad is not None
    with torch.no_grad():
        layer.values -= 1e-3 * layer.values.grad


# --- when ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batches", "fields", "steps", "captured", "expected"),
    [
        (1, {"update_interval": 5}, bool, [1, 6, 11, 16], [1, 6, 11, 16]),
        (3, {"update_interval": 5}, bool, [1, 2, 3, 6, 7, 8, 11, 12, 13, 16, 17, 18], [3, 8, 13, 18]),
        (2, {"update_interval": 5, "first_update": 4}, bool, [4, 5, 9, 10, 14, 15, 19, 20], [5, 10, 15, 20]),
        (3, {"update_interval": 2}, bool, [1, 2, 3, 5, 6, 7, 9, 10, 11, 13, 14, 15, 17, 18, 19], [3, 7, 11, 15, 19]),
        # Steps at even updates: due at 1, taken at 2 and 4; then due at 6, 11 and 16.
        (
            2,
            {"update_interval": 5},
            lambda u: u % 2 == 0,
            [1, 2, 3, 4, 6, 7, 8, 11, 12, 13, 14, 16, 17, 18],
            [4, 8, 14, 18],
        ),
        # The window that opens at 11 would close at 13, when rewiring is over.
        (3, {"update_interval": 5, "last_update": 12}, bool, [1, 2, 3, 6, 7, 8, 11, 12], [3, 8]),
        (3, {"update_interval": 5, "last_update": 13}, bool, [1, 2, 3, 6, 7, 8, 11, 12, 13], [3, 8, 13]),
    ],
)
def test_when_it_looks_and_when_the_event_falls(
    batches: int, fields: dict[str, Any], steps: Callable[[int], bool], captured: list[int], expected: list[int]
) -> None:
    layer = random_layer(0)
    evolver = evolver_of(layer, by_gradient(batches, **fields))
    looked, at = [], []
    for update in range(1, 21):
        evolver.begin_update(update)
        if layer.capture:
            looked.append(update)
        layer(batch(update)).sum().backward()
        if steps(update) and evolver.end_update("net"):
            at.append(update)
            assert not layer.capture
            assert layer.activation_pairs == []
    assert at == expected
    assert looked == captured


def test_a_window_that_does_not_close_in_time_still_ends_the_pruning() -> None:
    layer = random_layer(0, nnz=42)
    rule = by_gradient(3, density_schedule="cubic", update_interval=5, last_update=11)
    evolver = TopologyEvolver({"net": {"net.0": layer}}, rule, seed=0, goals={"net.0": 10})
    for update in range(1, 20):
        evolver.begin_update(update)
        train(layer, update)
        evolver.end_update("net")
    # Due at 1, 6 and 11. 2/10 and 7/10 of the way 32 (1 - .8^3) = 15.6 and 32 (1 - .3^3) = 31.1 have gone.
    events = [(event.update, event.kind, event.nnz) for event in evolver.events[1:]]
    assert events == [(3, "rewire", 27), (8, "rewire", 11), (12, "prune", 10)]


def test_batches_are_held_only_while_they_are_gathered() -> None:
    layer = random_layer(0)
    evolver = evolver_of(layer, by_gradient(3, update_interval=5))
    held = []
    for update in range(1, 11):
        evolver.begin_update(update)
        train(layer, update)
        evolver.end_update("net")
        held.append(len(evolver.state_dict()["gathered"]["net.0"]))
    assert held == [1, 2, 0, 0, 0, 1, 2, 0, 0, 0]


# --- what it adds up ----------------------------------------------------------------------------------


def test_gradients_that_cancel_grow_nothing() -> None:
    # One output and four inputs, weights at 0 and 1, of which 0 is the smaller. Gradients of input 2: 5 and -5, of
    # input 3: 1 and 1. The last batch alone would take input 2.
    for batches, grown in ((1, 2), (2, 3)):
        layer = SparseLinear(SparseTopology(1, 4, np.array([0, 1])), bias=False)
        layer.values.data = torch.tensor([0.5, 1.0])
        evolver = evolver_of(layer, by_gradient(batches, update_interval=2, first_update=3 - batches))
        for update, x in ((1, [0.0, 0.0, 5.0, 1.0]), (2, [0.0, 0.0, -5.0, 1.0])):
            evolver.begin_update(update)
            layer(torch.tensor([x])).sum().backward()
            evolver.end_update("net")
        assert layer.topology.flat.tolist() == [1, grown]


@pytest.mark.parametrize("batches", [1, 2, 4])
def test_the_mean_of_dense_gradients_decides(batches: int) -> None:
    layer = random_layer(3)
    evolver = evolver_of(layer, by_gradient(batches, update_interval=100, keep_regrown=True))
    old, gradients = layer.topology, []
    for update in range(1, batches + 1):
        dense = torch.from_numpy(matrix_of(old, layer.values.detach().numpy())).requires_grad_()
        (batch(update) @ dense.T).pow(3).sum().backward()
        assert dense.grad is not None
        gradients.append(dense.grad.numpy())
        evolver.begin_update(update)
        train(layer, update)
        if update == batches:
            magnitude = np.abs(layer.values.detach().numpy())
        evolver.end_update("net")
    smallest = sorted(range(20), key=lambda slot: (magnitude[slot], slot))[:10]
    kept = mask_of(SparseTopology(6, 7, np.delete(old.flat, smallest)))
    expected = np.flatnonzero(kept).tolist() + gradient_growth(np.mean(gradients, axis=0), kept, 10)
    assert layer.topology.flat.tolist() == sorted(expected)
    if batches > 1:
        last_alone = np.flatnonzero(kept).tolist() + gradient_growth(gradients[-1], kept, 10)
        assert layer.topology.flat.tolist() != sorted(last_alone)


def events_of(spoil: Callable[[SparseLinear, int], None]) -> list[int]:
    """The topology after an event over three batches, with something else happening between them."""
    layer = random_layer(5)
    evolver = evolver_of(layer, by_gradient(3, update_interval=100))
    for update in range(1, 4):
        evolver.begin_update(update)
        spoil(layer, update)
        train(layer, update)
        spoil(layer, update)
        evolver.end_update("net")
    return layer.topology.flat.tolist()


def through_autograd(layer: SparseLinear, update: int) -> None:
    x = batch(update + 50).requires_grad_()
    torch.autograd.grad(-100 * layer(x).pow(2).sum(), x)


def through_a_pass(layer: SparseLinear, update: int) -> None:
    FusedLayers([[layer]]).run([batch(update + 50)]).backward_to_input(torch.full((1, 9, 6), 100.0 * update))


def trained(layer: SparseLinear, update: int) -> None:
    FusedLayers([[layer]]).run([batch(update + 50)]).backward(torch.full((1, 9, 6), 100.0 * update))


def test_passes_that_only_want_the_gradient_of_the_input_do_not_count() -> None:
    undisturbed = events_of(lambda layer, update: None)
    assert events_of(through_autograd) == undisturbed
    assert events_of(through_a_pass) == undisturbed
    assert events_of(trained) != undisturbed  # such a pass would have made a difference


def test_updates_at_which_the_group_does_not_step_do_not_count() -> None:
    def run(also_between: bool) -> list[int]:
        layer = random_layer(5)
        evolver = evolver_of(layer, by_gradient(2, update_interval=100))
        for update in range(1, 5):
            evolver.begin_update(update)
            if update % 2 == 0:
                train(layer, update)
                evolver.end_update("net")
            elif also_between:
                layer(1000 * batch(update)).sum().backward()
        assert evolver.events[-1].update == 4
        return layer.topology.flat.tolist()

    assert run(True) == run(False)


# --- resuming -----------------------------------------------------------------------------------------


def advance(layer: SparseLinear, evolver: TopologyEvolver, first: int, last: int) -> None:
    for update in range(first, last + 1):
        evolver.begin_update(update)
        train(layer, update)
        if update % 2 == 0:
            evolver.end_update("net")


@pytest.mark.parametrize("how", ["torch", "checkpoint"])
@pytest.mark.parametrize("stop", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 14])
def test_a_stored_window_goes_on_as_if_never_stopped(stop: int, how: str, tmp_path: Path) -> None:
    rule = by_gradient(3, update_interval=8, last_update=30)  # events at updates 6, 14, 22, 30

    layer = random_layer(0)
    evolver = evolver_of(layer, rule)
    advance(layer, evolver, 1, stop)
    state: dict[str, Any] = {"layer": dict(layer.state_dict()), "evolver": evolver.state_dict()}
    file = io.BytesIO()
    if how == "torch":
        torch.save(state, file)
    else:
        checkpoint.save(tmp_path / "stored", state)
    advance(layer, evolver, stop + 1, 32)
    assert [event.update for event in evolver.events[1:]] == [6, 14, 22, 30]

    file.seek(0)
    stored = torch.load(file, weights_only=True) if how == "torch" else checkpoint.load(tmp_path / "stored")
    resumed = random_layer(1)
    clock = evolver_of(resumed, rule, seed=9)
    resumed.load_state_dict(stored["layer"])
    clock.load_state_dict(stored["evolver"])
    advance(resumed, clock, stop + 1, 32)
    assert [event.update for event in clock.events] == [update for update in (6, 14, 22, 30) if update > stop]
    assert resumed.topology.flat.tolist() == layer.topology.flat.tolist()
    assert torch.equal(resumed.values, layer.values)


def test_what_is_stored_does_not_move_with_the_run() -> None:
    layer = random_layer(0)
    evolver = evolver_of(layer, by_gradient(3, update_interval=8))
    evolver.begin_update(1)
    train(layer, 1)
    evolver.end_update("net")
    state = evolver.state_dict()
    ((x, dy),) = state["gathered"]["net.0"]
    before = x.clone(), dy.clone()
    for update in (2, 3):
        evolver.begin_update(update)
        train(layer, update)
        evolver.end_update("net")
    assert len(state["gathered"]["net.0"]) == 1
    assert (state["batches"], evolver.state_dict()["batches"]) == ({"net": 1}, {"net": 0})
    assert torch.equal(x, before[0])
    assert torch.equal(dy, before[1])


# --- refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"grow": "gradient", "gradient_batches": 0}, "gradient_batches must be >= 1, got 0"),
        ({"grow": "random", "gradient_batches": 2}, "growth 'random' looks at no gradient"),
        ({"grow": "neuron_importance", "gradient_batches": 3}, "growth 'neuron_importance' looks at no gradient"),
    ],
)
def test_numbers_of_batches_that_make_no_sense_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        RewireRule(**fields)


def test_a_layer_that_no_batch_went_through_is_refused() -> None:
    evolver = evolver_of(random_layer(0), by_gradient(2))
    for update in (1, 2):
        evolver.begin_update(update)
        if update == 1:
            assert evolver.end_update("net") == []
    with pytest.raises(TopologyError, match="needs the update's activations"):
        evolver.end_update("net")
