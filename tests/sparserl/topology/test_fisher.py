"""Optimal Brain Damage: saliencies worked by hand and by autograd of single samples, and who has what at an event."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.layers import ints, random_layer

from sparserl.errors import NotFiniteScoreError, TopologyError
from sparserl.kernels.flops import FlopCounter, counting
from sparserl.topology import pruning
from sparserl.topology.budget import BUDGET
from sparserl.topology.criteria import DROP
from sparserl.topology.evolver import TopologyEvolver
from sparserl.topology.pruning import fisher_scores, squared_gradients
from sparserl.topology.rewire import RewireRule
from sparserl.topology.structure import LayerView, SparseTopology

CHOSEN = DROP["fisher"].choose


def view(
    values: list[float], x: list[list[float]], dy: list[list[float]], *more: tuple[np.ndarray, np.ndarray]
) -> LayerView:
    samples = ((np.array(x), np.array(dy)), *more)
    topology = SparseTopology(len(dy), len(x), np.arange(len(values)))
    return LayerView(topology, np.array(values), samples)


def test_the_vector_of_the_paper() -> None:
    # catalogue.md 4: h 2 and 2, weights 1 and 2: 1 and 4.
    one = view([1.0, 2.0], [[1.0], [1.0]], [[2.0**0.5]])
    np.testing.assert_allclose(fisher_scores(one.values, squared_gradients(one)), [1.0, 4.0])
    assert CHOSEN(one, 0.5).tolist() == [0]


def test_gradients_of_samples_are_squared_one_by_one() -> None:
    # The mean loss of two samples: gradients 2 and -2 of the first weight, 1 and 1 of the second, halved in the pass.
    one = view([1.0, 1.0], [[2.0, -2.0], [1.0, 1.0]], [[0.5, 0.5]])
    assert squared_gradients(one).tolist() == [4.0, 1.0]  # though those of the first cancel out
    assert CHOSEN(one, 0.5).tolist() == [1]
    assert CHOSEN(one, 0.0, 1).tolist() == [1]
    both = view([1.0, 1.0], [[2.0, -2.0], [1.0, 1.0]], [[0.5, 0.5]], (np.array([[0.0], [3.0]]), np.array([[1.0]])))
    assert squared_gradients(both).tolist() == [2.0, 5.0]  # the mean of 4 and 0, of 1 and 9


@pytest.mark.parametrize("at_a_time", [1, 7, 1 << 20])
def test_they_are_those_of_autograd(at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "AT_A_TIME", at_a_time)
    layer = random_layer(3)
    x = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    expected = torch.zeros(20)
    for sample in x:
        (gradient,) = torch.autograd.grad(layer(sample[None]).pow(3).sum(), layer.values)
        expected += gradient**2 / 5
    layer.capture = True
    layer(x).pow(3).sum(dim=1).mean().backward()
    np.testing.assert_allclose(squared_gradients(layer.view()), expected.numpy(), rtol=1e-4)


def test_what_was_not_kept_or_is_no_number_is_refused() -> None:
    with pytest.raises(TopologyError, match="need the batch of the update"):
        squared_gradients(LayerView(SparseTopology(1, 2, ints(0)), np.ones(1)))
    with pytest.raises(NotFiniteScoreError, match="gradient of a weight is NaN"):
        squared_gradients(view([1.0], [[np.inf]], [[1.0]]))
    for fields in ({"drop": "fisher"}, {"budget": "fisher"}):
        with pytest.raises(
            TopologyError, match="growth 'cosine' keeps activations where drop or budget need gradients"
        ):
            RewireRule(grow="cosine", **fields)


def test_layers_share_by_it() -> None:
    # Scores .5 F w^2: 2 and 8 of the first, .5 and .5 and 8 of the second.
    first = view([1.0, 2.0], [[2.0], [2.0]], [[1.0]])
    second = view([1.0, 1.0, 4.0], [[1.0], [1.0], [1.0]], [[1.0]])
    assert BUDGET["fisher"].excess([first, second], [2, 0]) == [0, 2]
    assert BUDGET["fisher"].excess([first, second], [3, 0]) == [1, 2]


def test_a_group_that_steps_too_late_is_pruned_by_its_last_batch() -> None:
    layer = random_layer(5)
    rule = RewireRule("fisher", "random", 0.0, density_schedule="linear", update_interval=1, last_update=2)
    evolver = TopologyEvolver({"net": {"net.0": layer}}, rule, seed=0, goals={"net.0": 8})
    evolver.begin_update(3)
    assert layer.capture
    layer(torch.randn(4, 7)).pow(2).mean().backward()
    saliency = fisher_scores(layer.values.detach().numpy(), squared_gradients(layer.view()))
    before, counter = layer.topology.flat, FlopCounter()
    with counting(counter):
        evolver.end_update("net")
    assert counter.total == 2 * 20 * 4  # a product for each connection and sample
    gone = np.setdiff1d(before, layer.topology.flat)
    assert gone.tolist() == np.sort(before[np.argsort(saliency, kind="stable")[: 20 - 8]]).tolist()
    evolver.begin_update(4)
    assert not layer.capture
