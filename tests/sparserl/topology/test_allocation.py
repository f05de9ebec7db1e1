"""Connections for a new task: worked by hand, uniform over the open block, and disjoint from every earlier task."""

from __future__ import annotations

import io
import itertools
import tracemalloc
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle.dense_topology import assert_sound_change
from support.layers import ints, one_layer, random_layer

from sparserl.errors import TopologyError
from sparserl.layers import SparseLinear
from sparserl.topology.event import TopologyEvent
from sparserl.topology.evolver import TopologyEvolver
from sparserl.topology.moments import OptimizerMoments
from sparserl.topology.plan import plan_allocation
from sparserl.topology.rewire import RewireRule, random_topology, remap
from sparserl.topology.structure import Constraint, FloatArray, Importance, LayerView, SparseTopology, TopologyChange

RNG = np.random.default_rng


def block(n_out: int, n_in: int, outputs: list[int], inputs: list[int], flat: list[int]) -> LayerView:
    """A layer whose connections are all frozen and of whose neurons only those named are open."""
    open_out, open_in = np.zeros(n_out, bool), np.zeros(n_in, bool)
    open_out[outputs], open_in[inputs] = True, True
    topology = SparseTopology(n_out, n_in, ints(*flat))
    constraint = Constraint(np.ones(topology.nnz, bool), open_out, open_in)
    return LayerView(topology, np.ones(topology.nnz, np.float32), constraint=constraint)


# --- the plan ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("view", "count", "flat", "source"),
    [
        (block(2, 4, [0, 1], [0, 2, 3], [1, 6]), 0, [1, 6], [0, 1]),
        (block(2, 4, [0, 1], [0, 2, 3], [1, 6]), 5, [0, 1, 2, 3, 4, 6, 7], [-1, 0, -1, -1, -1, 1, -1]),
        (block(2, 4, [1], [0, 2, 3], [1, 6]), 2, [1, 4, 6, 7], [0, -1, 1, -1]),
        (block(2, 4, [0], [1, 2], [1, 6]), 1, [1, 2, 6], [0, -1, 1]),
        (block(2, 4, [0, 1], [1], []), 2, [1, 5], [-1, -1]),
        (block(2, 4, [0], [1], [1, 6]), 0, [1, 6], [0, 1]),  # full
        (block(2, 4, [], [0, 1, 2, 3], [1, 6]), 0, [1, 6], [0, 1]),
        (block(2, 4, [0, 1], [], [1, 6]), 0, [1, 6], [0, 1]),
        (
            LayerView(SparseTopology(2, 4, ints(1, 3, 5, 6)), np.ones(4)),
            4,
            list(range(8)),
            [-1, 0, -1, 1, -1, 2, 3, -1],
        ),
    ],
)
def test_allocation_where_there_is_no_choice(view: LayerView, count: int, flat: list[int], source: list[int]) -> None:
    change = plan_allocation(view, count, RNG(0))
    assert_sound_change(change)
    assert (change.new.flat.tolist(), change.source.tolist()) == (flat, source)
    assert (change.grown, change.dropped) == (count, 0)
    assert change.old is view.topology


@pytest.mark.parametrize(
    ("view", "count", "free"),
    [
        (block(2, 4, [0, 1], [0, 2, 3], [1, 6]), 6, 5),
        (block(2, 4, [0], [1], [1, 6]), 1, 0),
        (block(2, 4, [], [0, 1, 2, 3], [1, 6]), 1, 0),
        (block(2, 4, [0, 1], [], []), 3, 0),
        (block(2, 4, [], [], []), 1, 0),
        (LayerView(SparseTopology(2, 4, ints(1, 3, 5)), np.ones(3)), 6, 5),
    ],
)
def test_more_connections_than_free_positions_are_refused(view: LayerView, count: int, free: int) -> None:
    with pytest.raises(TopologyError) as refused:
        plan_allocation(view, count, RNG(0))
    assert str(refused.value) == f"cannot choose {count} of {free} free positions"


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_allocation_is_uniform_over_sets(count: int) -> None:
    # 2 x 3 neurons are open, and one of their 6 positions is taken: 5, 10, 10 or 5 sets, by drawing or leaving out.
    view, rng = block(3, 4, [0, 2], [0, 1, 3], [1, 2, 4, 7]), RNG(7)
    free = [0, 3, 8, 9, 11]
    draws = 3000
    seen = Counter(
        tuple(change.new.flat[change.source < 0].tolist())
        for change in (plan_allocation(view, count, rng) for _ in range(draws))
    )
    sets = list(itertools.combinations(free, count))
    assert set(seen) <= set(sets)
    expected = draws / len(sets)
    chi_square = sum((seen[one] - expected) ** 2 / expected for one in sets)
    assert chi_square < 3 * len(sets) + 15  # mean len(sets) - 1; this is past the 1e-5 quantile


def test_allocation_never_enumerates() -> None:
    n = 2**17
    rng = RNG(0)
    everything = range(n)
    view = block(n, n, list(everything[1::2]), list(everything[::2]), random_topology(n, n, 1000, rng).flat.tolist())
    tracemalloc.start()
    change = plan_allocation(view, 500, rng)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_500_000  # 2**34 positions; 2**18 neurons, half of them listed
    assert_sound_change(change)
    grown = change.new.flat[change.source < 0]
    assert grown.size == 500
    assert (grown // n % 2 == 1).all()
    assert (grown % n % 2 == 0).all()
    assert grown.max() > 2**33


# --- the event --------------------------------------------------------------------------------------


def test_an_allocation_reports_itself() -> None:
    layer = SparseLinear(SparseTopology(2, 4, ints(0, 3, 5)), bias=False)
    layer.values.data = torch.tensor([1.0, 2.0, 3.0])
    evolver = one_layer(layer)
    evolver.begin_update(17)
    event = evolver.allocate("net.0", 4)
    assert event == TopologyEvent(17, "net.0", "allocate", nnz=7, size=8, grown=4, dropped=0, explored=7)
    assert evolver.events[1:] == [event]
    assert (evolver.grown_total, evolver.dropped_total) == ({"net.0": 4}, {"net.0": 0})
    assert evolver.explored_fraction("net.0") == 7 / 8
    weights = dict(zip(layer.topology.flat.tolist(), layer.values.tolist(), strict=True))
    assert len(weights) == 7
    assert weights == {p: {0: 1.0, 3: 2.0, 5: 3.0}.get(p, 0.0) for p in weights}
    nothing = evolver.allocate("net.0", 0)
    assert nothing == TopologyEvent(17, "net.0", "allocate", nnz=7, size=8, grown=0, dropped=0, explored=7)
    assert evolver.allocate("net.0", 1).nnz == 8
    assert evolver.grown_total == {"net.0": 5}


def test_positions_that_existed_before_are_explored_once() -> None:
    layer = SparseLinear(SparseTopology(1, 4, np.arange(4)), bias=False)
    layer.values.data = torch.tensor([4.0, 3.0, 2.0, 1.0])
    evolver = one_layer(layer, RewireRule(drop_fraction=0.5, last_update=0, shrink_at_end=True))
    evolver.begin_update(1)
    assert evolver.end_update("net")[0].nnz == 2
    assert evolver.allocate("net.0", 2).explored == 4


def test_followers_of_an_allocation() -> None:
    layer = random_layer(0)
    optimizer = torch.optim.Adam([layer.values], lr=0.1)
    layer.values.grad = torch.arange(1.0, 21.0)
    optimizer.step()
    before = layer.values.detach().clone().numpy()
    evolver = one_layer(layer)
    followed: list[tuple[TopologyChange, Any]] = []
    evolver.follow("net.0", OptimizerMoments(optimizer, layer.values))
    evolver.follow("net.0", lambda change, grown_values: followed.append((change, grown_values)))
    evolver.allocate("net.0", 5, "xavier")
    ((change, grown_values),) = followed
    assert change.new is layer.topology
    new, survivors = change.source < 0, change.source >= 0
    assert layer.values.detach().numpy()[new].tolist() == grown_values.tolist()
    assert layer.values.detach().numpy()[survivors].tobytes() == before.tobytes()
    moment = optimizer.state[layer.values]["exp_avg"].numpy()
    assert moment[new].tolist() == [0.0] * 5
    np.testing.assert_allclose(moment[survivors], 0.1 * np.arange(1.0, 21.0), rtol=1e-6)


def test_the_weights_of_an_allocation_may_differ_from_those_of_a_rewire() -> None:
    layer = random_layer(0, 40, 20, 100)
    evolver = one_layer(layer, RewireRule(drop_fraction=0.5), new_value="zero")
    filled: list[FloatArray] = []
    evolver.follow("net.0", lambda change, grown_values: filled.append(np.asarray(grown_values)))
    evolver.allocate("net.0", 200, "xavier")
    evolver.allocate("net.0", 200)
    evolver.rewire("net.0")
    bound = np.sqrt(6 / 60)
    assert 0.95 * bound < np.abs(filled[0]).max() <= bound * (1 + 1e-6)
    assert filled[1].tolist() == [0.0] * 200
    assert filled[2].tolist() == [0.0] * 250


def test_the_weights_of_an_allocation_are_those_of_the_evolver() -> None:
    layer = random_layer(0, 40, 25, 100)
    one_layer(layer, new_value="uniform").allocate("net.0", 300)
    grown = np.setdiff1d(layer.values.detach().numpy(), random_layer(0, 40, 25, 100).values.detach().numpy())
    assert grown.size == 300
    assert 0.19 < np.abs(grown).max() <= 0.2 * (1 + 1e-6)  # 1 / sqrt(25)


def test_a_refused_allocation_leaves_no_trace() -> None:
    layer, twin = random_layer(0), random_layer(0)
    evolver, other = one_layer(layer), one_layer(twin)
    with pytest.raises(TopologyError, match=r"^cannot choose 23 of 22 free positions$"):
        evolver.allocate("net.0", 23)
    assert [event.kind for event in evolver.events] == ["initial"]
    assert layer.topology.flat.tolist() == twin.topology.flat.tolist()
    assert evolver.allocate("net.0", 9, "xavier") == other.allocate("net.0", 9, "xavier")
    assert layer.topology.flat.tolist() == twin.topology.flat.tolist()
    assert layer.values.tolist() == twin.values.tolist()


def test_an_unknown_layer_or_weight_is_refused() -> None:
    layer = random_layer(0)
    evolver = one_layer(layer)
    with pytest.raises(KeyError):
        evolver.allocate("net.1", 1)
    with pytest.raises(TopologyError, match="unknown new value 'xavjer'; did you mean 'xavier'"):
        evolver.allocate("net.0", 1, "xavjer")
    assert layer.nnz == 20


@pytest.mark.parametrize("rewires", [True, False])
def test_each_layer_allocates_from_the_stream_of_its_name(rewires: bool) -> None:
    def allocated(names: list[str], seed: int) -> dict[str, list[Any]]:
        layers = {name: random_layer(5) for name in names}
        evolver = TopologyEvolver({"net": layers}, RewireRule("signed_magnitude", "random", 0.3), seed=seed)
        for _ in range(3):
            for name in names:
                evolver.allocate(name, 4, "xavier")
                if rewires:
                    evolver.rewire(name)
        return {name: [layer.topology.flat.tolist(), layer.values.tolist()] for name, layer in layers.items()}

    alone, together = allocated(["x"], 0), allocated(["first", "x", "y"], 0)
    assert together["x"] == alone["x"]
    assert together["y"] != together["x"] != together["first"]
    assert allocated(["x"], 0) == alone
    assert allocated(["x"], 1) != alone
    if not rewires:
        assert len(set(alone["x"][1])) == 20 + 3 * 4  # each allocation draws anew


# --- task after task --------------------------------------------------------------------------------


class Learner:
    """Two layers; each task gets connections among open neurons, rewires its own, and freezes them when it ends."""

    def __init__(self, seed: int, drop: str, grow: str, count: int):
        self.layers = {"net.0": random_layer(0, 6, 7, 0), "net.1": random_layer(1, 5, 6, 0)}
        rule = RewireRule(drop, grow, 0.4)
        self.evolver = TopologyEvolver({"net": self.layers}, rule, seed=seed, new_value="uniform")
        self.owner = {name: np.empty(0, np.int64) for name in self.layers}
        self.task, self.count = 0, count
        for name in self.layers:
            self.evolver.set_constraint(name, lambda view, name=name: self.constrained(name, view))
            self.evolver.follow(name, lambda change, grown, name=name: self.own(name, change))

    def own(self, name: str, change: TopologyChange) -> None:
        self.owner[name] = remap(self.owner[name], change, float(self.task))

    def constrained(self, name: str, view: LayerView) -> LayerView:
        topology = view.topology
        rng = RNG([self.task, topology.n_out])
        open_out, open_in = rng.random(topology.n_out) < 0.8, rng.random(topology.n_in) < 0.8
        connections = (topology.flat * 7919 % 101).astype(np.float64)
        importance = Importance(connections, rng.random(topology.n_out), rng.random(topology.n_in))
        constraint = Constraint(self.owner[name] != self.task, open_out, open_in)
        return LayerView(topology, view.values, view.samples, constraint, importance)

    def step(self, number: int) -> None:
        """Of five, the first allocates for the next task and the others train and rewire."""
        self.task, first = number // 5, number % 5 == 0
        self.evolver.begin_update(number + 1)
        for name, layer in self.layers.items():
            if first:
                self.evolver.allocate(name, self.count, "sparse_fan_in")
            else:
                noise = RNG(number).standard_normal(layer.nnz).astype(np.float32)
                layer.values.data += torch.from_numpy(noise * (self.owner[name] == self.task))
                self.evolver.rewire(name)

    def owned(self, name: str, task: int) -> dict[int, bytes]:
        """Bits of the weights of a task, by position."""
        layer, mine = self.layers[name], self.owner[name] == task
        values = layer.values.detach().numpy()[mine]
        return {int(p): value.tobytes() for p, value in zip(layer.topology.flat[mine], values, strict=True)}


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    drop=st.sampled_from(["weight_magnitude", "connection_importance"]),
    grow=st.sampled_from(["random", "neuron_importance"]),
    count=st.integers(0, 4),
)
def test_tasks_own_disjoint_connections_that_stay_as_they_were(seed: int, drop: str, grow: str, count: int) -> None:
    learner = Learner(seed, drop, grow, count)
    finished: list[dict[str, dict[int, bytes]]] = []
    for task in range(3):
        for number in range(5 * task, 5 * task + 5):
            learner.step(number)
            for name, layer in learner.layers.items():
                assert layer.nnz == (task + 1) * count
                assert len(learner.owned(name, task)) == count
        finished.append({name: learner.owned(name, task) for name in learner.layers})
        assert finished == [{name: learner.owned(name, t) for name in learner.layers} for t in range(task + 1)]
    for name, layer in learner.layers.items():
        positions = [p for task in finished for p in task[name]]
        assert sorted(positions) == sorted(set(positions)) == layer.topology.flat.tolist()


@pytest.mark.parametrize("stop", [1, 3, 5, 6, 9, 10, 14])
def test_a_stored_clock_goes_on_between_allocations(stop: int) -> None:
    whole = Learner(0, "weight_magnitude", "random", 4)
    for number in range(stop):
        whole.step(number)
    file = io.BytesIO()
    layers = {name: layer.state_dict() for name, layer in whole.layers.items()}
    torch.save({"layers": layers, "evolver": whole.evolver.state_dict()}, file)
    owner, seen = dict(whole.owner), len(whole.evolver.events)
    for number in range(stop, 15):
        whole.step(number)

    file.seek(0)
    stored = torch.load(file, weights_only=True)
    resumed = Learner(99, "weight_magnitude", "random", 4)  # another seed: the generators must come from the file
    for name, state in stored["layers"].items():
        resumed.layers[name].load_state_dict(state)
    resumed.evolver.load_state_dict(stored["evolver"])
    resumed.owner = owner
    for number in range(stop, 15):
        resumed.step(number)
    assert resumed.evolver.events == whole.evolver.events[seen:]
    assert len(resumed.evolver.events) == 2 * (15 - stop)
    assert resumed.evolver.grown_total == whole.evolver.grown_total
    for task in range(3):
        for name in whole.layers:
            assert resumed.owned(name, task) == whole.owned(name, task)
