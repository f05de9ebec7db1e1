"""CTRE: connections grow between neurons that fire alike."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from oracle.dense_topology import cosine_growth, cosines, mask_of
from oracle.masked_dense import MaskedMLP
from support.layers import ints, one_layer, random_layer
from support.plans import plan_rewire

from sparserl.errors import NotFiniteScoreError, TopologyError
from sparserl.kernels import use_backend
from sparserl.layers import SparseLinear, SparseMLP
from sparserl.layers.activations import READINGS
from sparserl.topology.criteria import GROW
from sparserl.topology.evolver import TopologyEvolver
from sparserl.topology.methods import METHODS
from sparserl.topology.rewire import RewireRule, random_topology
from sparserl.topology.structure import Constraint, LayerView, SparseTopology

RNG = np.random.default_rng
COSINE, OR_RANDOM = GROW["cosine"].choose, GROW["cosine_or_random"].choose
# catalogue.md 2.6: three samples each of three sources and two targets.
SOURCES = np.array([[1, 0, 1], [0, 1, 1], [2, 0, 0]], np.float64)
TARGETS = np.array([[1, 0, 1], [0, 2, 2]], np.float64)
EXISTING = SparseTopology(2, 3, ints(0, 5))
WEIGHTS = np.array([0.1, 0.9])
VIEW = LayerView(EXISTING, WEIGHTS, ((SOURCES, TARGETS),))


def test_the_reference_scores() -> None:
    expected = [[1.0, 0.5, 0.5**0.5], [0.5, 1.0, 0.0]]
    np.testing.assert_allclose(cosines(TARGETS, SOURCES), expected, atol=1e-12)
    ranking = [COSINE(VIEW, ints(5), count, RNG(0)).tolist() for count in (1, 2, 3, 5)]
    assert ranking == [[0], [0, 4], [0, 2, 4], [0, 1, 2, 3, 4]]


def test_what_was_just_dropped_may_return_by_cosine_and_gives_way_to_a_random_one_otherwise() -> None:
    pure = plan_rewire(RewireRule("weight_magnitude", "cosine", 0.5), VIEW, 1, RNG(0))
    assert pure.new.flat.tolist() == [0, 5]
    rule = RewireRule("weight_magnitude", "cosine_or_random", 0.5)
    seen = Counter(tuple(plan_rewire(rule, VIEW, 1, RNG(seed)).new.flat.tolist()) for seed in range(400))
    assert set(seen) == {(1, 5), (2, 5), (3, 5), (4, 5)}
    assert min(seen.values()) > 60  # a hundred each, with a standard deviation of 9


def test_what_is_chosen_is_not_drawn_again() -> None:
    # The best two are 0, just dropped, and 4; the other is drawn from 1, 2 and 3.
    for seed in range(20):
        grown = OR_RANDOM(VIEW, ints(5), 2, RNG(seed)).tolist()
        assert 4 in grown
        assert len(set(grown)) == 2
        assert not {0, 5} & set(grown)
    assert OR_RANDOM(VIEW, ints(5), 5, RNG(0)).tolist() == [0, 1, 2, 3, 4]  # too few others


@pytest.mark.parametrize("always", [0.0, 3.0])
def test_a_neuron_that_never_varies_has_nothing_in_common_with_any(always: float) -> None:
    sources = SOURCES.copy()
    sources[0] = always
    view = LayerView(EXISTING, WEIGHTS, ((sources, TARGETS),))
    assert COSINE(view, ints(5), 4, RNG(0)).tolist() == [0, 1, 2, 4]  # the 0 at 0 before the one at 3


def test_the_sign_of_a_cosine_is_no_matter() -> None:
    view = LayerView(EXISTING, WEIGHTS, ((SOURCES, -TARGETS),))
    assert COSINE(view, ints(5), 2, RNG(0)).tolist() == [0, 4]


@pytest.mark.parametrize("factor", [1e-30, 1e-38, 1e30])
def test_lengths_are_no_matter_even_where_their_squares_are_0_or_infinite(factor: float) -> None:
    sources, targets = (side.astype(np.float32) for side in (SOURCES, TARGETS))
    scaled = LayerView(EXISTING, WEIGHTS, ((sources * np.float32(factor), targets),))
    for count in (1, 2, 3, 5):
        assert COSINE(scaled, ints(5), count, RNG(0)).tolist() == COSINE(VIEW, ints(5), count, RNG(0)).tolist()


def test_batches_count_as_one() -> None:
    x, a = RNG(0).normal(size=(7, 12)), RNG(1).normal(size=(6, 12))
    topology = random_topology(6, 7, 9, RNG(2))
    whole = LayerView(topology, np.zeros(9), ((x, a),))
    parts = LayerView(topology, np.zeros(9), tuple((x[:, at : at + 4], a[:, at : at + 4]) for at in (0, 4, 8)))
    for count in (1, 5, 20):
        expected = cosine_growth(cosines(a, x), mask_of(topology), count)
        assert COSINE(whole, topology.flat, count, RNG(0)).tolist() == expected
        assert COSINE(parts, topology.flat, count, RNG(0)).tolist() == expected


def test_closed_neurons_receive_nothing() -> None:
    constraint = Constraint(np.zeros(2, bool), np.array([True, True]), np.array([True, False, True]))
    view = LayerView(EXISTING, WEIGHTS, ((SOURCES, TARGETS),), constraint)
    assert COSINE(view, ints(5), 3, RNG(0)).tolist() == [0, 2, 3]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_activations_that_are_not_finite_are_refused(value: float) -> None:
    view = LayerView(EXISTING, WEIGHTS, ((SOURCES, np.where(TARGETS == 2.0, value, TARGETS)),))
    with pytest.raises(NotFiniteScoreError, match="an activation is NaN or infinite"):
        COSINE(view, ints(5), 1, RNG(0))


# --- what is captured -------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize(("activation", "reading"), [("relu", "identity"), ("tanh", "softmax"), ("relu", "tanh")])
def test_captured_are_inputs_and_activations_after_the_non_linearity(
    backend: str, activation: str, reading: str
) -> None:
    torch.manual_seed(0)
    layers = [SparseLinear(random_topology(n_out, n_in, 40, RNG(n_in))) for n_in, n_out in ((17, 11), (11, 9), (9, 5))]
    mlp = SparseMLP(layers, activation, "tanh" if reading == "tanh" else "identity")
    if reading == "softmax":
        mlp.output_reading = reading
    for layer in layers:
        layer.capture = layer.captures_activations = True
    x = torch.randn(19, 17)
    with use_backend(backend):
        y = mlp(x)
        if reading != "tanh":  # which autograd needs as it is
            y.mul_(2.0)
        y.square().sum().backward()
    twin = MaskedMLP(mlp, mlp.activations)
    read = x
    for position, layer in enumerate(layers):
        after = read @ twin.weights[position].T + twin.biases[position]
        after = READINGS[activation if position < 2 else reading](after)
        ((source, target),) = layer.activation_pairs
        torch.testing.assert_close(source, read.T, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(target, after.detach().T, rtol=1e-5, atol=1e-6)
        read = after.detach()


def test_passes_that_began_before_the_update_are_refused() -> None:
    layer = random_layer(0)
    loss = layer(torch.randn(4, 7)).sum()
    evolver = one_layer(layer, RewireRule("weight_magnitude", "cosine", 0.3))
    evolver.begin_update(1)
    with pytest.raises(TopologyError, match="passes that begin after `begin_update`"):
        loss.backward()


def test_growth_by_cosine_without_a_backward_pass_is_refused() -> None:
    evolver = one_layer(random_layer(0), RewireRule("weight_magnitude", "cosine", 0.3))
    evolver.begin_update(1)
    with pytest.raises(TopologyError, match="growth by cosine needs the update's activations"):
        evolver.end_update("net")


def test_growth_follows_the_activations_of_the_dense_twin() -> None:
    torch.manual_seed(1)
    layers = [random_layer(seed) for seed in (4, 5)]
    layers[1] = random_layer(5, n_out=3, n_in=6, nnz=6)
    mlp = SparseMLP(layers)
    rule = RewireRule("weight_magnitude", "cosine", 0.5, gradient_batches=2, keep_regrown=True)
    named: dict[str, SparseLinear] = {f"net.{index}": layer for index, layer in enumerate(layers)}
    evolver = TopologyEvolver({"net": named}, rule, seed=0)
    twin = MaskedMLP(mlp, mlp.activations)
    xs = [torch.randn(9, 7), torch.randn(5, 7)]
    for update, x in enumerate(xs, 1):
        evolver.begin_update(update)
        mlp(x).pow(2).sum().backward()
        if update == 1:
            assert evolver.end_update("net") == []
    read = torch.cat(xs)
    hidden = torch.relu(read @ twin.weights[0].T)
    expected = []
    for layer, (source, target) in zip(layers, ((read, hidden), (hidden, hidden @ twin.weights[1].T)), strict=True):
        magnitude, old = layer.values.detach().abs().numpy(), layer.topology
        gone = sorted(range(old.nnz), key=lambda slot: (magnitude[slot], slot))[: old.nnz // 2]
        kept = mask_of(SparseTopology(old.n_out, old.n_in, np.delete(old.flat, gone)))
        scores = cosines(target.detach().numpy().T, source.detach().numpy().T)
        expected.append(sorted(np.flatnonzero(kept).tolist() + cosine_growth(scores, kept, len(gone))))
    evolver.end_update("net")
    assert [layer.topology.flat.tolist() for layer in layers] == expected


def test_ctre_is_its_parts() -> None:
    method = METHODS["ctre"]
    assert method.rule is not None
    assert (method.rule.drop, method.rule.grow) == ("weight_magnitude", "cosine_or_random")
    assert (method.rule.drop_fraction, method.rule.gradient_batches, method.rule.decay) == (0.2, 10, "constant")
    assert (method.new_value, method.output_layer_dense) == ("uniform", False)
