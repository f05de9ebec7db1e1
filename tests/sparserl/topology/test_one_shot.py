"""Initial topologies by scores of dense weights: vectors of the papers, the choice among layers, weights in blocks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from sparserl.errors import ConfigError, NotFiniteScoreError, TopologyError
from sparserl.topology import block_scores
from sparserl.topology.config import TopologyConfig
from sparserl.topology.one_shot import ONE_SHOT, Block, StreamedWeights, chosen

W, G, HG = np.array([0.5, -1.0, 2.0]), np.array([-3.5, -7.0, 3.5]), np.array([-21.0, -42.0, 21.0])


def one_block(*rows: list[float]) -> Iterator[Block]:
    return iter([(0, np.array(rows))])


def test_the_vectors_of_the_papers() -> None:
    # catalogue.md 3: the loss (w.x - y)^2 / 2 at x (1, 2, -1), y 0.
    snip = ONE_SHOT["snip"].score(W, G)
    np.testing.assert_allclose(snip / snip.sum(), [1.75 / 15.75, 7 / 15.75, 7 / 15.75])
    assert ONE_SHOT["grasp"].score(W, G, HG).tolist() == [-10.5, 42.0, 42.0]  # there the negative, and the highest go
    assert ONE_SHOT["largest"].score(W).tolist() == [0.5, 1.0, 2.0]


def test_layers_are_compared_or_not() -> None:
    def scores() -> list[Iterator[Block]]:
        return [one_block([9.0, 8.0], [7.0, 1.0]), one_block([5.0, 6.0])]

    shapes = [(2, 2), (1, 2)]
    assert [flat.tolist() for flat in chosen(scores(), shapes, [2, 1], 1)] == [[0, 1], [1]]
    assert [flat.tolist() for flat in chosen(scores(), shapes, 4, 1)] == [[0, 1, 2], [1]]
    # None is left empty: its best comes for the worst of the others.
    assert [flat.tolist() for flat in chosen(scores(), shapes, 3, 1)] == [[0, 1], [1]]


def test_equal_scores_and_groups_of_outputs() -> None:
    assert [flat.tolist() for flat in chosen([one_block([1.0, 1.0, 1.0])], [(1, 3)], [2], 1)] == [[0, 1]]
    # Sums of two outputs: 4 3 | 2 6; two groups of two connections each.
    scores = one_block([1.0, 3.0], [3.0, 0.0], [1.0, 3.0], [1.0, 3.0])
    assert [flat.tolist() for flat in chosen([scores], [(4, 2)], [4], 2)] == [[0, 2, 5, 7]]


def test_fewer_connections_than_layers_are_refused() -> None:
    with pytest.raises(TopologyError, match=r"1 connections leave one of 2 layers empty: use density 0\.333"):
        chosen([one_block([1.0, 2.0]), one_block([1.0, 2.0, 3.0, 4.0])], [(1, 2), (1, 4)], 1, 1)


def test_a_score_that_is_no_number_is_refused() -> None:
    with pytest.raises(NotFiniteScoreError, match="score is NaN"):
        chosen([one_block([1.0, np.nan])], [(1, 2)], [1], 1)


@pytest.mark.parametrize("entries", [1, 10, 1 << 20])
def test_weights_do_not_depend_on_blocks(entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = StreamedWeights(6, 4, 0, "net.0")
    whole = np.concatenate([block for _, block in weights.blocks()])
    monkeypatch.setattr(block_scores, "ROW_BLOCK", entries)
    blocks = list(weights.blocks(2))
    assert all(first % 2 == 0 and block.size <= max(8, entries) for first, block in blocks)
    assert np.array_equal(np.concatenate([block for _, block in blocks]), whole)
    flat = np.array([0, 3, 9, 23])
    assert weights.at(flat).tolist() == whole.reshape(-1)[flat].tolist()
    assert weights.at(flat[:0]).size == 0
    assert whole.dtype == weights.biases().dtype == np.float32
    assert 0.4 < np.abs(whole).max() < 0.5  # within 1 / sqrt(4)


def test_weights_that_are_judged_are_kept() -> None:
    with pytest.raises(ConfigError, match=r"keeps the weights that it judges.*got sparse_fan_in"):
        TopologyConfig(method="static", initial_topology="largest", initial_value="sparse_fan_in")
    with pytest.raises(ConfigError, match=r"set topology\.density_schedule constant, or initial_topology largest"):
        TopologyConfig(method="gmp", initial_topology="snip")
    assert TopologyConfig(method="gmp", initial_topology="largest").judged_by_batch is False
    assert TopologyConfig(method="snip").judged_by_batch
