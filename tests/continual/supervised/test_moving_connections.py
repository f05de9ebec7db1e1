"""A classifier whose connections move while it learns tasks: every topology method, beside every way not to forget."""

from __future__ import annotations

import copy
import dataclasses
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.tasks import N_FEATURES, blobs
from support.trees import assert_equal_trees
from torch import nn

from sparserl.continual.strategies import MethodOptions, make_strategy
from sparserl.continual.strategies.der import DEROptions
from sparserl.continual.strategies.icarl import ICaRLOptions
from sparserl.continual.strategies.memory import AGEMOptions, ReplayOptions
from sparserl.continual.strategies.penalty import EWC, EWCOptions, MASOptions, OnlineEWCOptions
from sparserl.continual.supervised.connections import bound
from sparserl.continual.supervised.learner import SupervisedLearner
from sparserl.continual.supervised.learner_config import LearnerConfig
from sparserl.continual.supervised.runner import TaskEnded, run_sequence
from sparserl.continual.supervised.task_learner import Step
from sparserl.errors import ConfigError, TopologyError
from sparserl.layers import SparseLinear, SparseMLP
from sparserl.recording import checkpoint
from sparserl.topology.config import TopologyConfig
from sparserl.topology.density import exact_nnz
from sparserl.topology.methods import METHODS
from sparserl.topology.rewire import exchange
from sparserl.topology.structure import SparseTopology

CONFIG = LearnerConfig(hidden=(24, 20), learning_rate=0.02, epochs=4, batch_size=16, reset_optimizer=False)
EPOCH, STEPS = 3, 36  # batches of 16, 16 and 8; three tasks of four epochs
OPTIONS = MethodOptions(
    ewc=EWCOptions(strength=1.0, fisher_samples=4),
    online_ewc=OnlineEWCOptions(strength=1.0, fisher_samples=4),
    mas=MASOptions(strength=0.01, samples=4),
    replay=ReplayOptions(samples=20),
    agem=AGEMOptions(samples_per_task=9, batch_size=12),
    der=DEROptions(samples=20, batch_size=12),
    icarl=ICaRLOptions(samples=20),
)
MOVING = [name for name, method in METHODS.items() if method.rule is not None]
NOT_MOVING = ("packnet", "spacenet", "static_sparse", "afaf", "wsn", "nispa")
STRATEGIES = ("naive", "joint", "l2", "ewc", "online_ewc", "si", "mas", "lwf", "replay", "agem", "der", "icarl")
CASES = [
    *((strategy, method, {}) for strategy, method in zip(cycle(("ewc", "replay")), METHODS, strict=False)),
    *((strategy, "rigl", {"gradient_batches": 2}) for strategy in STRATEGIES),
    *((strategy, "set", {"pairs": 2, "moments": "mean"}) for strategy in STRATEGIES),
]
IDS = [f"{strategy}-{method}-{'-'.join(more)}" for strategy, method, more in CASES]


def learner_of(strategy: str, topology: TopologyConfig, seed: int = 1, **changes: Any) -> SupervisedLearner:
    config = dataclasses.replace(CONFIG, **changes)
    return SupervisedLearner(blobs(), make_strategy(strategy, "classifier", OPTIONS), config, topology, seed=seed)


def connections(learner: SupervisedLearner) -> dict[str, int]:
    network = learner.networks[0]
    return {name: layer.nnz for name, layer in network.shared.items() if isinstance(layer, SparseLinear)}


@pytest.mark.parametrize(("strategy", "method", "more"), CASES, ids=IDS)
def test_it_learns_at_its_density_and_goes_on_as_if_never_interrupted(
    strategy: str, method: str, more: dict[str, Any], tmp_path: Path
) -> None:
    topology = TopologyConfig(method, density=0.3, **more)
    whole = learner_of(strategy, topology)
    began, events, states, matrix = connections(whole), [], [], []
    for event in run_sequence(whole):
        events.append(event)
        states.append(copy.deepcopy(whole.state_dict()))
        if isinstance(event, TaskEnded):
            matrix.append(whole.accuracies())
    assert matrix[0][0] > 0.7

    shapes = [(24, N_FEATURES), (20, 24), (6, 20)]
    densities = topology.densities(shapes)
    rule = METHODS[method].rule
    stored = 1.0 if rule is None else rule.backward_factor
    wished = {
        f"network.{place}": min(np.prod(shape), round(stored * exact_nnz(shape, density, topology.pairs)))
        for place, (shape, density) in enumerate(zip(shapes, densities, strict=True))
        if density < 1.0
    }
    own_first = METHODS[method].initial_density
    factor = {"cubic": np.inf, "geometric": np.inf, "surplus": 1.2}.get(
        "constant" if rule is None else rule.density_schedule, 1.0
    )
    if topology.compares_layers:
        assert sum(began.values()) == pytest.approx(sum(wished.values()), abs=len(wished))
        wished = began
    elif own_first is None:
        assert began == {name: round(min(np.prod(shapes[int(name[-1])]), factor * nnz)) for name, nnz in wished.items()}
    else:
        first = TopologyConfig(method, density=own_first, **more).densities(shapes)
        assert began == {name: exact_nnz(shapes[int(name[-1])], first[int(name[-1])]) for name in wished}
    if rule is not None and rule.shrink_at_end:
        assert all(wished[name] > nnz for name, nnz in connections(whole).items())
    elif rule is None or rule.budget == "own":
        assert connections(whole) == wished
    else:
        assert sum(connections(whole).values()) == sum(wished.values())
    moved = 0 if whole.evolver is None else sum(whole.evolver.dropped_total.values())
    assert (moved > 0) == (rule is not None)

    for label, stop in {"between": 1 + STEPS // 3 if strategy != "joint" else 13, "within": -9, "last": -2}.items():
        checkpoint.save(tmp_path / label, states[stop])
        resumed = learner_of(strategy, topology)
        resumed.load_state_dict(checkpoint.load(tmp_path / label))
        assert_equal_trees(resumed.state_dict(), states[stop])
        rest = [vars(event) for event in run_sequence(resumed)]
        assert_equal_trees(rest, [vars(event) for event in events[stop:][1:]])
        assert_equal_trees(resumed.state_dict(), states[-1])


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "rmsprop", "adagrad"])
def test_every_optimizer_keeps_what_it_knows_of_connections_that_stay(optimizer: str) -> None:
    momentum = 0.5 if optimizer in ("sgd", "rmsprop") else 0.0
    topology = TopologyConfig("set", density=0.3, update_interval=2)
    learner = learner_of("ewc", topology, optimizer=optimizer, momentum=momentum, weight_decay=0.01)
    list(run_sequence(learner))
    for layer in (learner.network[0], learner.network[1]):
        state = learner.optimizer.state[layer.values]
        assert all(one.shape in ((), layer.values.shape) for one in state.values() if torch.is_tensor(one))
    assert all(torch.isfinite(parameter).all() for parameter in learner.network.parameters())


# --- the clock ----------------------------------------------------------------------------------------


def test_events_are_an_epoch_apart_unless_an_interval_is_given() -> None:
    for topology, interval in ((TopologyConfig("set"), EPOCH), (TopologyConfig("set", update_interval=7), 7)):
        learner = learner_of("naive", topology)
        list(run_sequence(learner))
        assert learner.evolver is not None
        updates = {event.update for event in learner.evolver.events if event.kind == "rewire"}
        assert sorted(updates) == list(range(1, STEPS + 1, interval))


def test_rewiring_ends_at_a_share_of_the_whole_sequence() -> None:
    learner = learner_of("naive", TopologyConfig("rigl", density=0.3))
    assert learner.evolver is not None
    assert learner.evolver.rule is not None
    assert learner.evolver.rule.last_update == 27  # 75 % of 36


def test_the_clock_of_joint_is_that_of_each_task() -> None:
    learner = learner_of("joint", TopologyConfig("rigl", density=0.3))
    lasts, updates, initial = [], [], []
    for event in run_sequence(learner):
        assert learner.evolver is not None
        if isinstance(event, Step) and (event.epoch, event.batch) == (0, 0):
            lasts.append(learner.evolver.rule.last_update if learner.evolver.rule else None)
            initial.append({name: flat.tolist() for name, flat in learner.evolver.initial.items()})
        updates += [learner.began + one.update for one in learner.evolver.take_events() if one.grown]
    # 40, 80 and 120 samples: 3, 5 and 8 batches an epoch, of which there are four
    assert lasts == [9, 15, 24]
    assert initial[0] == initial[1] == initial[2]
    assert min(update for update in updates if update > 12) == 13
    assert min(update for update in updates if update > 32) == 33
    assert max(updates) <= 32 + 24


@pytest.mark.parametrize(("steps", "epochs", "interval"), [(36, 12, 3), (100, 30, 3), (5, 5, 1)])
def test_an_epoch_is_the_mean_one(steps: int, epochs: int, interval: int) -> None:
    assert bound(TopologyConfig("set"), steps, epochs).update_interval == interval


# --- what is kept of connections ----------------------------------------------------------------------


def test_a_dropped_connection_is_no_longer_held_and_a_grown_one_is_not_yet() -> None:
    strategy = EWC(EWCOptions(strength=10.0))
    learner = SupervisedLearner(blobs(), strategy, CONFIG, TopologyConfig("set", density=0.3), seed=0)
    layer = SparseLinear(SparseTopology(2, 2, np.array([0, 1, 3])))
    learner.use(SparseMLP([layer]))
    strategy.attach(learner)
    values = layer.values
    values.data = torch.tensor([1.0, 2.0, 3.0])
    terms = strategy.terms["network"]
    anchors = {"0.values": values.detach().clone(), "0.bias": torch.zeros(2)}
    terms.add({"0.values": torch.tensor([0.5, 4.0, 0.25]), "0.bias": torch.ones(2)}, anchors, None)
    assert learner.evolver is not None
    # From input 1 to output 0 a connection goes, from input 0 to output 1 one comes.
    learner.evolver.apply("network.0", exchange(layer.topology, np.array([1]), np.array([2])), "rewire", 7.0)
    assert values.tolist() == [1.0, 7.0, 3.0]
    assert terms.terms[0].importances["0.values"].tolist() == [0.5, 0.0, 0.25]
    assert terms.terms[0].anchors["0.values"].tolist() == [1.0, 0.0, 3.0]
    values.data = torch.tensor([2.0, 9.0, 1.0])
    values.grad, layer.bias.grad = torch.zeros(3), torch.zeros(2)
    strategy.before_step(learner, learner.groups["network"])
    # 2 * 10 * importance * (value - anchor)
    assert values.grad.tolist() == [10.0, 0.0, -10.0]


@pytest.mark.parametrize("strategy", ["agem", "naive"])
def test_connections_grow_by_gradients_of_the_task_and_not_of_the_memory(strategy: str) -> None:
    learner = learner_of(strategy, TopologyConfig("rigl", density=0.3))
    assert learner.evolver is not None
    seen: list[int] = []
    end_update = learner.evolver.end_update

    def looked_at(group: str) -> Any:
        assert learner.evolver is not None
        seen.extend(x.shape[1] for layer in learner.evolver.layers.values() for x, _ in layer.activation_pairs)
        return end_update(group)

    learner.evolver.end_update = looked_at  # type: ignore[method-assign]
    list(run_sequence(learner))
    assert seen
    assert set(seen) <= {16, 8}  # batches of the task; those of the memory have 12


# --- refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", NOT_MOVING)
def test_a_method_that_places_connections_itself_takes_no_topology_that_moves_them(strategy: str) -> None:
    for method in MOVING:
        with pytest.raises(ConfigError, match=f"--topology.method.* {method}") as refusal:
            learner_of(strategy, TopologyConfig(method))
        assert "\n" not in str(refusal.value)


def test_a_topology_without_room_to_move_or_time_to_prune_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--topology.method set moves connections, and all exist"):
        learner_of("naive", TopologyConfig("set", density=1.0))
    with pytest.raises(TopologyError, match="within the run's 36 updates, got last_update 40"):
        learner_of("naive", TopologyConfig("gmp", density=0.5, last_update=40))
    assert isinstance(learner_of("naive", TopologyConfig("static", density=1.0)).network[0], nn.Linear)
