"""Every method on neurons that share their inputs."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
from hypothesis import assume, given, settings
from oracle.dense_topology import (
    assert_sound_change,
    drop_of,
    fisher_saliencies,
    gradient_growth,
    importance_growth,
    mask_of,
)
from support.paired import PROFILE, RNG, assert_shares_inputs
from support.plans import go_together, plan_rewire

from sparserl.topology.criteria import DROP, GROW
from sparserl.topology.density import exact_nnz
from sparserl.topology.group_sizes import PAIRS
from sparserl.topology.rewire import RewireRule, random_topology
from sparserl.topology.structure import Importance, LayerView, SparseTopology


def folded_by_loops(topology: SparseTopology, per_connection: np.ndarray, signed: bool) -> list[float]:
    """Sum of magnitudes of each group in row order, with the sign of the sum if `signed`."""
    found = []
    matrix = np.zeros((topology.n_out, topology.n_in))
    matrix[mask_of(topology)] = per_connection
    for group, column in np.argwhere(mask_of(topology)[:: topology.pairs]).tolist():
        own = matrix[group * topology.pairs : (group + 1) * topology.pairs, column]
        magnitude = sum(abs(value) for value in own)
        found.append(-magnitude if signed and sum(own) < 0 else magnitude)
    return found


# --- invariants and the dense oracle ----------------------------------------------------------------


@PROFILE
@given(st.sampled_from(PAIRS), st.integers(1, 5), st.integers(1, 9), st.floats(0.01, 1.0), st.integers(0, 99))
def test_random_topologies_share_inputs(pairs: int, groups: int, n_in: int, density: float, seed: int) -> None:
    nnz = exact_nnz((groups * pairs, n_in), density, pairs)
    topology = random_topology(groups * pairs, n_in, nnz, RNG(seed), pairs)
    topology.check_valid()
    assert topology.nnz == nnz
    assert_shares_inputs(topology, pairs)


def test_groups_are_uniform() -> None:
    # 3 of 6 groups: each in half of the draws, 2000 of 4000 with a standard deviation of 32.
    counts = sum(mask_of(random_topology(4, 3, 6, RNG(seed), pairs=2)).astype(int) for seed in range(4000))
    assert np.abs(np.asarray(counts) - 2000).max() < 160


@settings(PROFILE, max_examples=300)
@given(
    st.sampled_from(sorted(DROP)),
    st.sampled_from(sorted(GROW)),
    st.sampled_from((2, 4)),
    st.integers(1, 4),
    st.integers(1, 7),
    st.floats(0.0, 0.9),
    st.booleans(),
    st.integers(0, 10**6),
)
def test_an_event_is_that_of_the_layer_of_groups(
    drop: str, grow: str, pairs: int, groups: int, n_in: int, fraction: float, keep_regrown: bool, seed: int
) -> None:
    assume(go_together(drop, grow))
    rng = RNG(seed)
    n_out = groups * pairs
    topology = random_topology(n_out, n_in, pairs * int(rng.integers(1, groups * n_in + 1)), rng, pairs)
    weights = rng.integers(-4, 5, topology.nnz).astype(np.float64)  # exact sums, and ties
    x, dy = rng.integers(-3, 4, (n_in, 3)).astype(np.float64), rng.integers(-3, 4, (n_out, 3)).astype(np.float64)
    importance = Importance(*(rng.integers(0, 5, size).astype(np.float64) for size in (topology.nnz, n_out, n_in)))
    view = LayerView(topology, weights, ((x, dy),), importance=importance, explored=topology.flat)
    change = plan_rewire(RewireRule(drop, grow, drop_fraction=fraction, keep_regrown=keep_regrown), view, 1, RNG(seed))
    assert_sound_change(change)
    assert_shares_inputs(change.new, pairs)
    assert change.new.nnz == topology.nnz

    mask = mask_of(topology)[::pairs]
    values = folded_by_loops(topology, weights, signed=True)
    # Of a group, squared gradients are summed, and so are weights.
    squares = fisher_saliencies(topology, np.ones(topology.nnz), x, dy)
    summed = zip(folded_by_loops(topology, np.array(squares), signed=False), values, strict=True)
    gone = drop_of(
        drop,
        values,
        folded_by_loops(topology, importance.connections, signed=False),
        fraction,
        [square * value**2 for square, value in summed],
    )
    dropped = np.zeros_like(mask)
    dropped.ravel()[np.flatnonzero(mask)[gone]] = True
    kept = mask & ~dropped
    of_groups = importance.outputs.reshape(groups, pairs).sum(axis=1)
    sums = np.abs(dy @ x.T).reshape(groups, pairs, n_in).sum(axis=1)
    expected = {
        "gradient": lambda: gradient_growth(sums, kept, len(gone)),
        **{
            grow: lambda late=late: importance_growth(of_groups, importance.inputs, kept, dropped & late, len(gone))
            for grow, late in (("neuron_importance", True), ("neuron_importance_any", False))
        },
    }
    new = mask_of(change.new)[::pairs]
    assert not (kept & ~new).any()
    if grow in expected:
        assert np.flatnonzero(new & ~kept).tolist() == expected[grow]()
