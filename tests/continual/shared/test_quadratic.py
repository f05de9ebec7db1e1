"""Quadratic penalties: their gradient, how terms add up, and how they follow connections."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparserl.continual.shared.quadratic import QuadraticTerms, Term, copies
from sparserl.errors import TopologyError
from sparserl.layers import SparseMLP
from sparserl.topology.rewire import exchange
from sparserl.topology.structure import SparseTopology

Values = dict[str, torch.Tensor]


def terms_of(*terms: Term) -> QuadraticTerms:
    own = QuadraticTerms()
    own.terms = list(terms)
    return own


# --- the pull -----------------------------------------------------------------------------------------


def test_a_pull_by_hand() -> None:
    parameter = nn.Parameter(torch.tensor([3.0, 3.0, 0.5]))
    parameter.grad = torch.tensor([1.0, 1.0, 1.0])
    term = Term({"w": torch.tensor([0.5, 0.0, 2.0])}, {"w": torch.tensor([1.0, 1.0, 1.0])})
    terms_of(term).add_penalty_grad([("w", parameter)], strength=10.0)
    # 1 + 2 * 10 * importance * (parameter - anchor)
    assert parameter.grad.tolist() == [21.0, 1.0, -19.0]


@pytest.mark.parametrize("shape", [(), None])
def test_the_gradient_is_autograds_of_the_written_penalty(shape: tuple[int, ...] | None) -> None:
    torch.manual_seed(0)
    network = SparseMLP.random([5, 6, 3], [0.5, 1.0], seed=0, name="network").double()
    parameters = dict(network.named_parameters())

    def like(parameter: torch.Tensor) -> torch.Tensor:
        return torch.rand(parameter.shape if shape is None else shape, dtype=torch.float64)

    own = terms_of(
        *(
            Term(
                {name: like(parameter) for name, parameter in parameters.items()},
                {name: torch.rand_like(parameter) for name, parameter in parameters.items()},
            )
            for _ in range(2)
        )
    )
    penalty = torch.zeros((), dtype=torch.float64)
    for term in own.terms:
        for name, parameter in parameters.items():
            penalty = penalty + (7.0 * term.importances[name] * (parameter - term.anchors[name]) ** 2).sum()
    before = {name: torch.rand_like(parameter) for name, parameter in parameters.items()}
    expected = torch.autograd.grad(penalty, list(parameters.values()))
    for name, parameter in parameters.items():
        parameter.grad = before[name].clone()
    own.add_penalty_grad(network.named_parameters(), 7.0)
    for (name, parameter), gradient in zip(parameters.items(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, before[name] + gradient)


def test_only_parameters_that_are_given_are_pulled_and_without_a_term_none_is() -> None:
    trunk, head = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    trunk.grad = torch.zeros(2)
    QuadraticTerms().add_penalty_grad([("trunk", trunk), ("head", head)], 1.0)
    assert trunk.grad.tolist() == [0.0, 0.0]
    terms_of(Term({"trunk": torch.ones(())}, {"trunk": torch.zeros(2)})).add_penalty_grad([("trunk", trunk)], 1.0)
    assert trunk.grad.tolist() == [2.0, 2.0]
    assert head.grad is None


# --- how terms add up ---------------------------------------------------------------------------------


def as_lists(own: QuadraticTerms) -> list[tuple[list[float], list[float]]]:
    return [(term.importances["w"].tolist(), term.anchors["w"].tolist()) for term in own.terms]


@pytest.mark.parametrize(
    ("retained", "expected"),
    [
        (None, [([1.0, 0.0], [0.0, 0.0]), ([2.0, 3.0], [1.0, 1.0]), ([4.0, 0.0], [2.0, 2.0])]),
        (1.0, [([7.0, 2.0], [2.0, 2.0])]),
        (0.5, [([4.0 + 0.5 * (2.0 + 0.5), 0.5], [2.0, 2.0])]),
        (0.0, [([4.0, 0.0], [2.0, 2.0])]),
    ],
)
def test_three_tasks(retained: float | None, expected: list[tuple[list[float], list[float]]]) -> None:
    # Of the second parameter: -2 counts as 0, then 3, then -1 brings it down.
    own = QuadraticTerms()
    for task, found in enumerate([[1.0, -2.0], [2.0, 3.0], [4.0, -1.0]]):
        own.add({"w": torch.tensor(found)}, {"w": torch.full((2,), float(task))}, retained)
    assert as_lists(own) == expected


def test_importances_that_all_entries_share_add_up() -> None:
    own = QuadraticTerms()
    for task in range(3):
        own.add({"w": torch.ones(())}, {"w": torch.full((2,), float(task))}, 1.0)
    (term,) = own.terms
    assert term.importances["w"].shape == ()
    assert term.importances["w"].item() == 3.0
    assert own.memory() == {"anchors": 8, "importances": 4}


def test_copies_are_of_the_present_values() -> None:
    layer = nn.Linear(2, 1)
    kept = copies(layer.named_parameters())
    before = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight += 1.0
    assert torch.equal(kept["weight"], before)
    assert not kept["weight"].requires_grad


# --- how they follow connections ----------------------------------------------------------------------


def test_terms_follow_their_connections() -> None:
    def term(at: float) -> Term:
        values = torch.arange(4.0) + at
        return Term({"0.values": values, "0.bias": values}, {"0.values": -values, "0.bias": -values})

    own = terms_of(term(1.0), term(10.0))
    # 1, 3, 5, 6 loses 3 and gains 0: slots -1, 0, 2, 3.
    own.follow("0.values", exchange(SparseTopology(2, 4, np.array([1, 3, 5, 6])), np.array([1]), np.array([0])))
    for kept, at in zip(own.terms, (1.0, 10.0), strict=True):
        assert kept.importances["0.values"].tolist() == [0.0, at, at + 2, at + 3]
        assert kept.anchors["0.values"].tolist() == [0.0, -at, -at - 2, -at - 3]
        assert kept.importances["0.bias"].tolist() == [at, at + 1, at + 2, at + 3]


def test_an_importance_that_all_entries_share_is_that_of_grown_ones_too() -> None:
    own = terms_of(Term({"w": torch.tensor(2.0)}, {"w": torch.tensor([5.0, 6.0])}))
    own.follow("w", exchange(SparseTopology(1, 4, np.array([0, 3])), np.array([0]), np.array([1, 2])))
    (term,) = own.terms
    assert term.importances["w"].item() == 2.0
    assert term.anchors["w"].tolist() == [0.0, 0.0, 6.0]


def test_a_change_of_another_layer_is_refused() -> None:
    own = terms_of(Term({"w": torch.ones(3)}, {"w": torch.ones(3)}))
    with pytest.raises(TopologyError, match=r"^2 connections need as many values, got \(3,\)$"):
        own.follow("w", exchange(SparseTopology(1, 4, np.array([0, 3])), np.array([0]), np.array([1])))


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_after_any_events_each_connection_that_stayed_has_its_own(data: st.DataObject) -> None:
    size = 12
    flat = np.array(sorted(data.draw(st.sets(st.integers(0, size - 1)), "connections")), np.int64)
    own = terms_of(Term({"w": torch.from_numpy(flat + 1.0)}, {"w": torch.from_numpy(flat - 100.0)}))
    stayed = set(flat.tolist())
    topology = SparseTopology(3, 4, flat)
    for _ in range(3):
        keeps = data.draw(st.lists(st.booleans(), min_size=topology.nnz, max_size=topology.nnz), "keeps")
        dropped = np.flatnonzero(~np.array(keeps, bool))
        left = set(np.delete(topology.flat, dropped).tolist())
        free = sorted(set(range(size)) - left)
        grown = data.draw(st.sets(st.sampled_from(free)) if free else st.just(set()), "grown")
        change = exchange(topology, dropped, np.array(sorted(grown), np.int64))
        own.follow("w", change)
        topology, stayed = change.new, stayed & left
    (term,) = own.terms
    expected = [position + 1.0 if position in stayed else 0.0 for position in topology.flat.tolist()]
    assert term.importances["w"].tolist() == expected
    assert term.anchors["w"].tolist() == [one - 101.0 if one else 0.0 for one in expected]


# --- state --------------------------------------------------------------------------------------------


def test_terms_survive_in_a_state_that_later_events_do_not_change() -> None:
    own = terms_of(Term({"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, 4.0])}))
    state = own.state_dict()
    own.follow("w", exchange(SparseTopology(1, 4, np.array([0, 3])), np.array([0]), np.array([1])))
    assert as_lists(own) == [([0.0, 2.0], [0.0, 4.0])]
    restored = terms_of(Term({}, {}))
    restored.load_state_dict(state)
    assert as_lists(restored) == [([1.0, 2.0], [3.0, 4.0])]
    assert QuadraticTerms().state_dict() == {"terms": []}
    assert QuadraticTerms().memory() == {"anchors": 0, "importances": 0}
