"""SpaceNet for agents: ownership that never overlaps, counts by hand, and old answers that stay bit for bit."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from support.rl_learners import OPTIONS, answers, learn_tasks, make_learner, parameters_of, tasks_of

from sparserl.agents import DSSAC, DSTD3
from sparserl.continual.rl.learner import RLLearner
from sparserl.continual.shared.sub_networks import FREE, SubNetworks
from sparserl.continual.shared.usage import ConnectionUsage
from sparserl.continual.strategies.spacenet import SpaceNet, SpaceNetOptions
from sparserl.continual.supervised.runner import TaskEnded, run_sequence
from sparserl.errors import ConfigError

N_TASKS = 3
CONNECTIONS = {"actor.pi": (10, 30), "critic.qf0": (16, 30), "critic.qf1": (16, 30)}
"""Of a task: 0.6 / 3 of 16 x 3 (actor) or 16 x 5 (critics), 0.35 / 3 of 16 x 16."""


def make(*, steps: int = 26, **changes: Any) -> RLLearner:
    own = {name: changes.pop(name) for name in list(changes) if name in vars(SpaceNetOptions())}
    options = replace(OPTIONS, spacenet=SpaceNetOptions(**{"rewire_interval": 4, **own}))
    return make_learner("spacenet", options=options, **{"steps": (steps,) * N_TASKS, **changes})


def owned(learner: RLLearner) -> dict[str, SubNetworks]:
    """Who owns what, by network."""
    assert isinstance(learner.strategy, SpaceNet)
    return {name: own for name, (own, _, _) in learner.strategy._shared_out.items()}


def connection_owners(learner: RLLearner, network: str) -> list[dict[int, int]]:
    """Position -> task, of each hidden layer."""
    own = owned(learner)[network]
    state = own.state_dict()
    return [
        dict(zip(layer.topology.flat.tolist(), owner.tolist(), strict=True))
        for layer, owner in zip(own.layers, state["owner"], strict=True)
    ]


# --- ownership ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("critics", [False, True])
@pytest.mark.parametrize("algo", [DSSAC, DSTD3])
def test_each_task_gets_its_connections_and_keeps_them(algo: type[Any], critics: bool) -> None:
    learner = make(algo=algo, critics=critics)
    actor = learner.networks[0].name
    assert set(owned(learner)) == {actor, *(["critic.qf0", "critic.qf1"] if critics else [])}
    wanted = {name: CONNECTIONS.get(name, CONNECTIONS["actor.pi"]) for name in owned(learner)}
    before: dict[str, list[dict[int, int]]] = {}
    for event in run_sequence(learner):
        if learner.steps == 0:
            continue
        # At every step: as many of each task as it was given, in places of its own, for good.
        for name, counts in wanted.items():
            now = connection_owners(learner, name)
            task = event.task
            for layer, count in zip(now, counts, strict=True):
                assert Counter(layer.values()) == dict.fromkeys(range(task + 1), count)
            for then, layer in zip(before.get(name, now), now, strict=True):
                assert all(layer[position] == owner for position, owner in then.items())
        if isinstance(event, TaskEnded):
            before = {name: connection_owners(learner, name) for name in wanted}
    uses = learner.strategy.usage(learner, learner.networks[0])
    assert uses[:2] == [
        ConnectionUsage(f"{actor}.trunk.0", (10,) * 3, 30, 48, 16, 4),  # two tasks reserve 2 of 16 neurons each
        ConnectionUsage(f"{actor}.trunk.1", (30,) * 3, 90, 256, 16, 4),
    ]
    assert uses[2].layer == f"{actor}.heads"
    in_critics = learner.strategy.usage(learner, learner.networks[1])
    assert in_critics[0].owned == ((16,) * 3 if critics else ())
    nbytes = sum(2 * (3 * sum(counts) + 32) for counts in wanted.values())
    assert learner.strategy.memory() == {"owners": nbytes}


def test_connections_move_while_a_task_is_learned_and_stay_afterwards() -> None:
    learner = make(steps=25, rewire_until=0.72)
    evolver = learner.agent.evolver
    for task in range(N_TASKS):
        evolver.events.clear()
        list(learner.train())
        # 25 steps, 15 updates, the 8th of which is at step 18, the last at which connections may move (0.72 * 25).
        moved = [event for event in evolver.events if event.layer == "actor.pi.trunk.1" and event.kind == "rewire"]
        assert [event.update - 15 * task for event in moved] == [4, 8]
        assert all(event.grown == event.dropped == 6 for event in moved)  # a fifth of 30
        learner.finish_task()


@pytest.mark.parametrize(
    ("options", "events"),
    [({"rewire_interval": 0}, 0), ({"rewire_until": 0.0}, 0), ({}, 3), ({"rewire_until": 1.0}, 4)],
)
def test_when_connections_move(options: dict[str, Any], events: int) -> None:
    learner = make(steps=28, **options)
    learner.agent.evolver.events.clear()
    list(learner.train())
    kinds = Counter(event.kind for event in learner.agent.evolver.events if event.layer == "actor.pi.trunk.0")
    assert kinds == Counter({"release": 1, "allocate": 1, "rewire": events})


@pytest.mark.parametrize("algo", [DSSAC, DSTD3])
def test_connections_of_critics_move_on_the_clock_of_their_own_steps(algo: type[Any]) -> None:
    # Actors of TD3 step half as often as its critics.
    learner = make(algo=algo, critics=True, steps=35, rewire_until=1.0)
    learner.agent.evolver.events.clear()
    list(learner.train())
    updates: dict[str, list[int]] = {}
    for event in learner.agent.evolver.events:
        if event.kind == "rewire":
            updates.setdefault(event.layer, []).append(event.update)
    every_four = [4, 8, 12, 16, 20, 24]
    assert updates[f"{learner.networks[0].name}.trunk.0"] == (every_four if algo is DSSAC else [8, 16, 24])
    for critic, layer in itertools.product(range(2), range(2)):
        assert updates[f"critic.qf{critic}.trunk.{layer}"] == every_four


def test_reserved_neurons_get_no_new_connections() -> None:
    learner = make(critics=True)
    reserved: dict[str, list[set[int]]] = {}
    before: dict[str, list[dict[int, int]]] = {}
    for event in run_sequence(learner):
        if isinstance(event, TaskEnded):
            reserved = {
                name: [set(np.flatnonzero(one != FREE).tolist()) for one in own.reserved_by]
                for name, own in owned(learner).items()
            }
            before = {name: connection_owners(learner, name) for name in reserved}
            count = 2 * min(event.task + 1, N_TASKS - 1)  # after the last task nobody needs them
            assert all(len(closed) == count for own in reserved.values() for closed in own)
            continue
        for name, closed in reserved.items():
            for place, layer in enumerate(connection_owners(learner, name)):
                n_in = owned(learner)[name].layers[place].n_in
                new = set(layer) - set(before[name][place])
                assert not {position // n_in for position in new} & closed[place]
                assert place == 0 or not {position % n_in for position in new} & closed[place - 1]


def test_nothing_that_belongs_to_earlier_tasks_moves() -> None:
    learner = make(critics=True, weight_decay=0.1, border={"optimizer": "kept"})
    stored: dict[tuple[str, int], dict[int, float]] = {}
    biases: dict[tuple[str, int], dict[int, float]] = {}
    for event in run_sequence(learner):
        if learner.steps == 0:
            continue
        for name, own in owned(learner).items():
            for place, layer in enumerate(own.layers):
                now = dict(zip(layer.topology.flat.tolist(), layer.values.tolist(), strict=True))
                assert all(now[position] == value for position, value in stored.get((name, place), {}).items())
                assert layer.bias is not None
                bias = layer.bias.tolist()
                assert all(bias[neuron] == value for neuron, value in biases.get((name, place), {}).items())
                nobodys = np.flatnonzero(own.bias_owner[place] == FREE)
                assert all(bias[neuron] == 0.0 for neuron in nobodys)
                if isinstance(event, TaskEnded):
                    stored[name, place] = now
                    owner = own.bias_owner[place]
                    biases[name, place] = {neuron: bias[neuron] for neuron in np.flatnonzero(owner != FREE).tolist()}
    assert all(biases.values())


def test_a_bias_belongs_to_the_first_task_with_a_connection_at_its_neuron() -> None:
    learner = make()
    for task in tasks_of(learner):
        own = owned(learner)["actor.pi"]
        for place, owner in enumerate(own.bias_owner):
            first = dict.fromkeys(range(16), N_TASKS)
            for layer_place, side in ((place, "outputs"), (place + 1, "inputs")):
                if layer_place < len(own.layers):
                    layer, tasks = own.layers[layer_place], own.state_dict()["owner"][layer_place]
                    for neuron, of in zip(getattr(layer.topology, side).tolist(), tasks.tolist(), strict=True):
                        first[neuron] = min(first[neuron], of)
            # A connection that has moved on leaves its neuron's bias behind, so an owner may be earlier than that.
            assert all(FREE < owner[neuron] <= of for neuron, of in first.items() if of < N_TASKS)
            assert owner.max() <= task


# --- critics ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("critics", [False, True])
def test_critics_are_shared_out_by_option(critics: bool) -> None:
    learner = make(critics=critics)
    before = [layer.topology.nnz for layer in learner.networks[1].shared.values()]
    assert before == ([16, 30] if critics else [40, 128])  # else as the topology says
    learn_tasks(learner, 1)
    then = parameters_of(learner.agent.critic)
    learn_tasks(learner, 1)
    after = [layer.topology.nnz for layer in learner.networks[1].shared.values()]
    assert after == ([32, 60] if critics else [40, 128])
    moved = not torch.equal(parameters_of(learner.agent.critic)["qf0.trunk.1.bias"], then["qf0.trunk.1.bias"])
    assert moved


def test_densities_are_the_parts_of_a_task() -> None:
    strategy = SpaceNet(SpaceNetOptions(capacity=0.3, input_capacity=0.9))
    assert strategy.densities("agent", 1, 3) == {"actor": pytest.approx((0.3,))}
    assert strategy.densities("agent", 3, 3) == {"actor": pytest.approx((0.3, 0.1, 0.1))}
    both = SpaceNet(SpaceNetOptions(capacity=0.3, input_capacity=0.9, critics=True))
    assert both.densities("agent", 2, 3) == {name: pytest.approx((0.3, 0.1)) for name in ("actor", "critic")}


# --- old answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("critics", [False, True])
@pytest.mark.parametrize("algo", [DSSAC, DSTD3])
@pytest.mark.parametrize("kept", ["optimizer", "buffer"])
def test_old_tasks_are_answered_bit_for_bit(kept: str, algo: type[Any], critics: bool) -> None:
    learner = make(algo=algo, critics=critics, weight_decay=0.1, border={kept: "kept"})
    learned: list[np.ndarray] = []
    rewired = 0
    for event in run_sequence(learner):
        for task, then in enumerate(learned):
            np.testing.assert_array_equal(answers(learner, task), then)
        if learned:
            rewired += sum(one.kind == "rewire" for one in learner.agent.evolver.events)
        learner.agent.evolver.events.clear()
        if isinstance(event, TaskEnded):
            learned.append(answers(learner, event.task))
    assert rewired > 4
    assert len(learned) == N_TASKS
    assert not any(np.allclose(learned[one], learned[other], atol=1e-3) for one, other in ((0, 1), (1, 2), (0, 2)))


def test_the_end_of_a_task_changes_nothing_in_its_answers() -> None:
    learner = make()
    list(learner.train())
    then = answers(learner, 0)
    assert learner.strategy.network_for_task(learner, 0) is learner.networks[0].of_task(0)
    learner.finish_task()
    np.testing.assert_allclose(answers(learner, 0), then, rtol=1e-5, atol=1e-6)
    view = learner.strategy.network_for_task(learner, 0)
    assert [layer.nnz for layer in list(view)[:-1]] == [10, 30]
    learn_tasks(learner, 1)
    assert [layer.nnz for layer in list(learner.strategy.network_for_task(learner, 1))[:-1]] == [20, 60]


# --- bad input ----------------------------------------------------------------------------------------


def refused(**changes: Any) -> str:
    with pytest.raises(ConfigError) as refusal:
        make(**changes)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def test_capacity_that_is_exhausted_names_the_options_and_the_numbers() -> None:
    # 5 of 16 neurons closed by each task: the third has 3 x 6 positions in the first layer for 0.99 / 3 of 48.
    said = refused(input_capacity=0.99, reserved=0.99, capacity=0.1)
    assert said == (
        "task 3 of 3 needs 16 connections in layer actor.pi.trunk.0, where 3 x 6 free neurons have room for 18, "
        "32 of it taken by earlier tasks: use more hidden neurons, or lower spacenet.reserved or spacenet.connections "
        "(for agents spacenet.capacity and spacenet.input-capacity)"
    )


def test_a_dense_layer_is_refused() -> None:
    # With one task a share may be all connections.
    with pytest.raises(ConfigError) as refusal:
        make_learner(
            "spacenet",
            options=replace(OPTIONS, spacenet=SpaceNetOptions(input_capacity=1.0, selected=1.0)),
            steps=(15,),
        )
    assert str(refusal.value) == (
        "spacenet shares connections out and layer actor.pi.trunk.0 is dense: "
        "lower spacenet.capacity and spacenet.input-capacity"
    )


def test_critics_that_start_anew_cannot_hold_connections() -> None:
    assert refused(critics=True, border={"critic": "reset"}) == (
        "spacenet.critics holds connections of earlier tasks where they are: use --border.critic kept"
    )
    make(border={"critic": "reset"})
