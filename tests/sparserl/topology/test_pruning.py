"""Scores and the choice among layers: the vectors of the papers, ties, and invariants of every rule."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from sparserl.errors import NotFiniteScoreError, TopologyError
from sparserl.topology.budget import BUDGET
from sparserl.topology.pruning import PRUNE, fisher_scores, kept_per_layer, lamp_scores, lowest, uniform_scores
from sparserl.topology.structure import Constraint, LayerView, SparseTopology

PROFILE = settings(max_examples=150, deadline=None, derandomize=True, database=None)
A, B = np.array([1.0, 2.0, 3.0]), np.array([0.1, 0.1, 0.1, 0.4])


def kept(total: int, by: str, *layers: np.ndarray) -> list[list[int]]:
    return [slots.tolist() for slots in kept_per_layer(layers, total, by)]


def test_lamp_scores_of_the_paper() -> None:
    # 1/14, 4/13, 9/9; of the equal ones .01/.19, .01/.18, .01/.17: the code sorts.
    np.testing.assert_allclose(lamp_scores(A), [1 / 14, 4 / 13, 1.0])
    np.testing.assert_allclose(lamp_scores(B), [1 / 19, 1 / 18, 1 / 17, 1.0])
    np.testing.assert_allclose(lamp_scores(np.array([-3.0, 1.0, -2.0])), [1.0, 1 / 14, 4 / 13])
    assert lamp_scores(np.zeros(2)).tolist() == [0.0, 0.0]
    assert lamp_scores(np.array([1e-30, 1e-30], np.float32)).tolist() == [0.5, 1.0]  # squares are not lost


def test_obd_scores_of_the_vector() -> None:
    assert fisher_scores(np.array([1.0, 2.0]), np.array([2.0, 2.0])).tolist() == [1.0, 4.0]


def test_uniform_ranks() -> None:
    assert uniform_scores(np.array([3.0, -1.0])).tolist() == [0.75, 0.25]


@pytest.mark.parametrize(
    ("total", "by", "expected"),
    [
        (4, "lamp", [[0, 1, 2], [3]]),
        (3, "lamp", [[1, 2], [3]]),
        (4, "global", [[0, 1, 2], [3]]),
        (3, "global", [[1, 2], [3]]),  # by one threshold the second would be empty
        (2, "global", [[2], [3]]),
        (6, "lamp", [[0, 1, 2], [1, 2, 3]]),  # the lower slot of equals goes
        (4, "uniform", [[1, 2], [2, 3]]),
        (5, "uniform", [[1, 2], [1, 2, 3]]),  # ranks 1/8 and 1/6 go
        (7, "uniform", [[0, 1, 2], [0, 1, 2, 3]]),
    ],
)
def test_what_stays_is_worked_by_hand(total: int, by: str, expected: list[list[int]]) -> None:
    assert kept(total, by, A, B) == expected


@pytest.mark.parametrize(
    ("beyond", "expected"), [([3, 0], [0, 3]), ([2, 2], [1, 3]), ([-3, 6], [0, 3]), ([0, 0], [0, 0])]
)
def test_a_schedule_takes_by_lamp(beyond: list[int], expected: list[int]) -> None:
    views = [LayerView(SparseTopology(1, 9, np.arange(values.size)), values) for values in (A, B)]
    assert BUDGET["lamp"].excess(views, beyond) == expected
    frozen = Constraint(np.array([False, False, False, True]), np.ones(1, bool), np.ones(9, bool))
    views[1] = replace(views[1], constraint=frozen)
    assert BUDGET["lamp"].excess(views, [9, 9]) == [2, 3]  # frozen connections stay, the best stays


def test_importances_decide_by_fisher() -> None:
    # F w^2 / 2: (.5, 2, 4.5) x (9, 1, 1) and (.005, .005, .005, .08) x 100: 4.5 2 4.5, .5 .5 .5 8.
    importances = [np.array([9.0, 1.0, 1.0]), np.full(4, 100.0)]
    slots = kept_per_layer([A, B], 3, "fisher", importances)
    assert [of_layer.tolist() for of_layer in slots] == [[0, 2], [3]]
    with pytest.raises(TopologyError, match="pruning by fisher needs the importance"):
        kept_per_layer([A, B], 3, "fisher")


@pytest.mark.parametrize(("total", "closest"), [(1, 2), (0, 2), (8, 7), (-1, 2)])
def test_a_total_out_of_range_names_the_closest(total: int, closest: int) -> None:
    with pytest.raises(TopologyError, match=f"{total} of 7 connections .* the closest is {closest}$"):
        kept_per_layer([A, B], total, "lamp")


def test_an_unknown_rule_and_a_weight_that_is_no_number_are_refused() -> None:
    with pytest.raises(TopologyError, match=r"pruning rule .*'lmap'.*lamp"):
        kept_per_layer([A], 2, "lmap")
    for by in PRUNE:
        with pytest.raises(NotFiniteScoreError, match="weight is NaN"):
            kept_per_layer([np.array([1.0, np.nan])], 1, by)
    with pytest.raises(NotFiniteScoreError, match="score is NaN"):
        lowest([lamp_scores(np.array([1.0, np.nan]))], 1)


def test_infinite_scores_and_empty_layers_stay_as_they_are() -> None:
    scores = [np.array([np.inf, np.inf, 1.0]), np.empty(0), np.array([0.0])]
    assert [slots.tolist() for slots in lowest(scores, 9)] == [[2], [], []]
    assert kept(2, "global", A, np.empty(0)) == [[1, 2], []]


@PROFILE
@given(
    by=st.sampled_from(sorted(PRUNE)),
    layers=st.lists(st.lists(st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0, 3.0]), min_size=1, max_size=9), min_size=1),
    share=st.floats(0.0, 1.0),
)
def test_totals_are_exact_and_the_best_of_a_layer_stays(by: str, layers: list[list[float]], share: float) -> None:
    values = [np.array(of_layer) for of_layer in layers]
    size = sum(map(len, layers))
    total = len(layers) + round(share * (size - len(layers)))
    slots = kept_per_layer(values, total, by, [np.ones(len(of_layer)) for of_layer in layers])
    assert sum(of_layer.size for of_layer in slots) == total
    for own, of_layer in zip(values, slots, strict=True):
        gone = np.delete(np.arange(own.size), of_layer)
        assert of_layer.size
        assert not gone.size or np.abs(own[gone]).max() <= np.abs(own[of_layer]).min()
