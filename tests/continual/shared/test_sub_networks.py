"""Sub-networks in layers that belong to somebody else: what a task owns, what it computed, and how much room is left.

How connections are chosen is tested by `test_spacenet.py`; here, hidden layers alone, as an agent has them, whose tasks
have output layers of their own.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.sub_networks import (
    HIDDEN,
    N_IN,
    N_TASKS,
    NAMES,
    OTHER,
    SELECTED,
    Agent,
    Kept,
    assert_same,
    kept,
)

from sparserl.continual.shared.sub_networks import FREE
from sparserl.layers import SparseMLP
from sparserl.seeding import stream
from sparserl.topology.rewire import RewireRule

X = torch.linspace(-2.0, 2.0, 9 * N_IN).sin().view(9, N_IN)


def biases(agent: Agent) -> list[np.ndarray]:
    return [layer.bias.detach().numpy().copy() for layer in agent.trunk]  # type: ignore[union-attr]


# --- what an old task computed ------------------------------------------------------------------------


@torch.no_grad()
def answer(network: SparseMLP) -> torch.Tensor:
    answered: torch.Tensor = network(X)
    return answered


def test_what_a_task_computed_stays_bit_for_bit() -> None:
    agent = Agent()
    layers: list[Kept] = []
    answers: list[torch.Tensor] = []
    for task in range(N_TASKS):
        agent.begin(task)
        for at in range(6):
            agent.step()
            if at % 2:
                agent.rewire()
            for earlier in range(task):
                assert_same(kept(agent, earlier), layers[earlier])
                assert torch.equal(answer(agent.view(earlier)), answers[earlier])
        agent.owned.reserve()
        layers.append(kept(agent, task))
        answers.append(answer(agent.view(task)))
    assert [sum(len(positions) for positions, _, _ in one) for one in layers] == [36, 72, 108]
    for one, other in pairwise(layers):  # something has been learned, biases too
        assert all((new[2] != old[2]).any() for old, new in zip(one, other, strict=True))
    assert not torch.equal(answer(agent.network(0)), answers[0])  # but for the views, it would have been forgotten


def test_while_a_task_is_learned_its_view_is_the_network() -> None:
    agent = Agent()
    for task in range(N_TASKS):
        agent.begin(task)
        for _ in range(2):
            agent.step()
            assert torch.equal(answer(agent.view(task)), answer(agent.network(task)))
            agent.rewire()
            assert torch.equal(answer(agent.view(task)), answer(agent.network(task)))


def test_a_view_has_values_of_its_own() -> None:
    agent = Agent()
    agent.learn(0)
    before = kept(agent, 0)
    with torch.no_grad():
        for view in agent.owned.task_layers(0):
            for parameter in view.parameters():
                parameter.fill_(9.0)
    assert_same(kept(agent, 0), before)


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_whatever_happens_old_tasks_and_biases_of_others_stay(data: st.DataObject) -> None:
    agent = Agent(
        selected=data.draw(st.tuples(st.integers(1, 14), st.integers(1, 12)), "selected"),
        reserved=data.draw(st.tuples(st.integers(0, 4), st.integers(0, 4)), "reserved"),
        seed=data.draw(st.integers(0, 99), "seed"),
    )
    ended: list[Kept] = []
    first: list[dict[int, int]] = [{}, {}]
    """Of each hidden layer, neuron to the first task that had a connection there."""
    for task in range(N_TASKS):
        before = biases(agent)
        agent.begin(task, data.draw(st.tuples(st.integers(1, 16), st.integers(1, 10)), "connections"))
        for act in ("begin", *data.draw(st.lists(st.sampled_from(["step", "rewire"]), max_size=6), "acts")):
            if act != "begin":
                getattr(agent, act)()
            for place, layer in enumerate(agent.trunk):
                mine = agent.owned.state_dict()["owner"][place] == task
                for neuron in layer.topology.outputs[mine].tolist():
                    first[place].setdefault(neuron, task)
                for neuron in layer.topology.inputs[mine].tolist() if place else []:
                    first[place - 1].setdefault(neuron, task)
            for place, (now, then) in enumerate(zip(biases(agent), before, strict=True)):
                owner = [first[place].get(neuron, FREE) for neuron in range(now.size)]
                assert agent.owned.bias_owner[place].tolist() == owner
                assert not now[np.array(owner) == FREE].any()
                moved = np.flatnonzero(now != then)
                assert {owner[neuron] for neuron in moved} <= {task}
            for earlier, then_kept in enumerate(ended):
                assert_same(kept(agent, earlier), then_kept)
        agent.owned.reserve()
        ended.append(kept(agent, task))


# --- biases -------------------------------------------------------------------------------------------


def test_the_bias_of_a_neuron_belongs_to_its_first_task_and_moves_in_that_one_alone() -> None:
    agent = Agent()
    for task in range(N_TASKS):
        before, owners = biases(agent), [owner.copy() for owner in agent.owned.bias_owner]
        agent.learn(task)
        for now, then, old, new in zip(biases(agent), before, owners, agent.owned.bias_owner, strict=True):
            assert (new == task).any()
            assert np.array_equal(new[old != FREE], old[old != FREE])
            assert np.array_equal(now[new != task], then[new != task])
            assert not now[new == FREE].any()
            assert (now[new == task] != 0.0).any()


def test_a_connection_at_either_end_makes_a_bias_its_tasks() -> None:
    agent = Agent()
    agent.begin(0, (1, 1))
    first, second = agent.trunk[0].topology, agent.trunk[1].topology
    reached = {int(first.outputs[0]), int(second.inputs[0])}
    assert set(np.flatnonzero(agent.owned.bias_owner[0] == 0).tolist()) == reached
    assert np.flatnonzero(agent.owned.bias_owner[1] == 0).tolist() == second.outputs.tolist()


def test_biases_that_tasks_share_are_trained_until_their_neuron_is_reserved() -> None:
    agent = Agent(owns_biases=False)
    assert agent.owned.bias_owner == []
    assert "bias_owner" not in agent.owned.state_dict()
    assert all(one.all() for one in biases(agent))  # a release leaves them alone
    agent.learn(0)
    then = biases(agent)
    agent.learn(1)
    for place, (now, old) in enumerate(zip(biases(agent), then, strict=True)):
        closed = agent.owned.reserved_by[place] == 0
        assert np.array_equal(now[closed], old[closed])
        assert (now[~closed] != old[~closed]).all()
    for (_, _, viewed), now in zip(kept(agent, 0), biases(agent), strict=True):
        assert np.array_equal(viewed.numpy(), now)


# --- somebody else's layers ---------------------------------------------------------------------------


def test_a_release_takes_everything_away_that_layers_came_with_and_nothing_else() -> None:
    agent = Agent(released=False)
    assert [layer.nnz for layer in agent.trunk] == [15, 15]
    assert [view.nnz for view in agent.owned.task_layers(0)] == [0, 0]  # nobody's
    assert [use.owned for use in agent.owned.usage(1)] == [(0,), (0,)]
    critic, head = agent.critic.values.detach().clone(), agent.heads[0].weight.detach().clone()
    agent.evolver.begin_update(1)
    agent.owned.release()
    assert [layer.nnz for layer in agent.trunk] == [0, 0]
    assert not any(one.any() for one in biases(agent))
    found = [(event.update, event.layer, event.kind, event.dropped) for event in agent.evolver.events[3:]]
    assert found == [(1, name, "release", 15) for name in NAMES]
    assert torch.equal(agent.critic.values, critic)
    assert torch.equal(agent.heads[0].weight, head)


def test_other_layers_of_the_evolver_are_not_touched() -> None:
    agent = Agent()
    before = agent.critic.topology.flat.tolist()
    for task in range(N_TASKS):
        agent.learn(task)
    assert agent.critic.topology.flat.tolist() == before
    assert agent.evolver._constraints.keys() == set(NAMES)
    agent.evolver.rewire(OTHER, RewireRule(drop_fraction=0.3))  # no constraint, no importance
    assert agent.critic.nnz == 9


def test_networks_draw_from_streams_of_their_own() -> None:
    def drawn(**options: Any) -> list[np.ndarray]:
        agent = Agent(seed=3, **options)
        agent.begin(0, (1, 1))
        return [np.flatnonzero(chosen) for chosen in agent.owned.selected]

    def expected(*network: str) -> list[np.ndarray]:
        rngs = [stream(3, *network, "select", "0", str(place)) for place in range(2)]
        return [
            np.sort(rng.choice(n, count, replace=False)) for rng, n, count in zip(rngs, HIDDEN, SELECTED, strict=True)
        ]

    for network in ((), ("actor",), ("critic.qf0",)):
        found = drawn(network=network[0]) if network else drawn()
        for own, other in zip(found, expected(*network), strict=True):
            assert own.tolist() == other.tolist()
