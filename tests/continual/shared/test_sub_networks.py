"""Sub-networks in layers that belong to somebody else: what a task owns, what it computed, and how much room is left.

How connections are chosen is tested by `test_spacenet.py`; here, hidden layers alone, as an agent has them, whose tasks
have output layers of their own.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.trees import assert_equal_trees
from torch import nn

from sparserl.continual.shared.frozen import FrozenEntries
from sparserl.continual.shared.sub_networks import FREE, SubNetworks, check_capacity
from sparserl.continual.shared.usage import ConnectionUsage
from sparserl.errors import ConfigError
from sparserl.layers import SparseLinear, SparseMLP
from sparserl.layers.fused_adam import state_from_tree, state_tree
from sparserl.recording import checkpoint
from sparserl.seeding import stream
from sparserl.topology.evolver import TopologyEvolver
from sparserl.topology.moments import OptimizerMoments
from sparserl.topology.rewire import RewireRule, random_topology

N_TASKS, N_IN, HIDDEN, CONNECTIONS, SELECTED, RESERVED = 3, 6, (14, 12), (20, 16), (7, 6), (3, 2)
NAMES = ["actor.pi.trunk.0", "actor.pi.trunk.1"]
OTHER = "critic.qf0.0"
X = torch.linspace(-2.0, 2.0, 9 * N_IN).sin().view(9, N_IN)


class Agent:
    """An actor with a head for each task, and a critic, which share an evolver; one optimizer for all tasks."""

    def __init__(self, *, hidden: Sequence[int] = HIDDEN, seed: int = 0, released: bool = True, **options: Any):
        torch.manual_seed(0)
        rng = np.random.default_rng(0)
        sides = [(N_IN, hidden[0]), (hidden[0], hidden[1])]
        self.trunk = [SparseLinear(random_topology(n_out, n_in, 15, rng)) for n_in, n_out in sides]
        self.heads = [nn.Linear(hidden[1], 2) for _ in range(N_TASKS)]
        self.critic = SparseLinear(random_topology(4, 5, 9, rng))
        groups = {"actor": dict(zip(NAMES, self.trunk, strict=True)), "critic": {OTHER: self.critic}}
        rule = RewireRule("connection_importance", "neuron_importance", drop_fraction=0.3)
        self.evolver = TopologyEvolver(groups, rule, seed=seed)
        self.modules = nn.ModuleList([*self.trunk, *self.heads])
        self.optimizer = torch.optim.Adam(self.modules.parameters(), 0.05, weight_decay=0.1)
        for name, layer in groups["actor"].items():
            self.evolver.follow(name, OptimizerMoments(self.optimizer, layer.values))
        own: dict[str, Any] = {"selected": SELECTED, "reserved": RESERVED, "n_tasks": N_TASKS, "owns_biases": True}
        self.owned = SubNetworks(self.evolver, NAMES, **{**own, "seed": seed, **options})
        self.frozen = FrozenEntries()
        self.updates = 0
        if released:
            self.owned.release()

    def begin(self, task: int, connections: Sequence[int] = CONNECTIONS) -> None:
        self.owned.begin_task(task, connections, "xavier")
        self.owned.freeze(self.frozen)

    def step(self) -> None:
        """Makes the output of the task's head small, for inputs of its own."""
        rng = np.random.default_rng([self.owned.task, self.updates])
        x = torch.from_numpy(rng.normal(size=(8, N_IN)).astype(np.float32))
        self.optimizer.zero_grad()
        loss = (self.network(self.owned.task)(x) - 1.0).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        self.owned.before_step()
        self.frozen.before_step()
        self.optimizer.step()
        self.frozen.after_step(self.optimizer)
        self.owned.after_step()
        self.updates += 1

    def rewire(self) -> None:
        self.evolver.begin_update(self.updates)
        for name in NAMES:
            self.evolver.rewire(name)
        self.owned.freeze(self.frozen)

    def learn(self, task: int) -> None:
        """Three times two steps, with a topology event between them."""
        self.begin(task)
        self.go_on()

    def go_on(self) -> None:
        for events_left in (2, 1, 0):
            self.step()
            self.step()
            if events_left:
                self.rewire()
        self.owned.reserve()

    def network(self, task: int) -> SparseMLP:
        return SparseMLP([*self.trunk, self.heads[task]])

    def view(self, task: int) -> SparseMLP:
        return SparseMLP([*self.owned.task_layers(task), self.heads[task]])

    def state(self) -> dict[str, Any]:
        return {
            "modules": dict(self.modules.state_dict()),
            "optimizer": state_tree(self.optimizer.state_dict()),
            "frozen": self.frozen.state_dict(self.modules),
            "owned": self.owned.state_dict(),
            "evolver": self.evolver.state_dict(),
            "updates": self.updates,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.modules.load_state_dict(state["modules"])
        self.optimizer.load_state_dict(state_from_tree(state["optimizer"]))
        self.frozen.load_state_dict(self.modules, state["frozen"])
        self.owned.load_state_dict(state["owned"])
        self.evolver.load_state_dict(state["evolver"])
        self.updates = state["updates"]


Kept = list[tuple[list[int], torch.Tensor, torch.Tensor]]


def kept(agent: Agent, task: int) -> Kept:
    """Positions, weights and biases of a task's layers."""
    found = []
    for view in agent.owned.task_layers(task):
        assert view.bias is not None
        found.append((view.topology.flat.tolist(), view.values.detach().clone(), view.bias.detach().clone()))
    return found


def assert_same(now: Kept, then: Kept) -> None:
    for own, other in zip(now, then, strict=True):
        assert own[0] == other[0]
        assert torch.equal(own[1], other[1])
        assert torch.equal(own[2], other[2])


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


# --- neurons ------------------------------------------------------------------------------------------


def test_the_last_hidden_layer_has_important_neurons_too(tmp_path: Path) -> None:
    agent = Agent()
    agent.begin(0)
    checkpoint.save(tmp_path / "state", agent.owned.state_dict())
    state = checkpoint.load(tmp_path / "state")
    assert [sums.numel() for sums in state["cumulative"]] == [N_IN, *HIDDEN]
    state["cumulative"][1][[13, 4, 9]] = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    state["cumulative"][2][[11]] = 1.0
    agent.owned.load_state_dict(state)
    agent.owned.reserve()
    assert [np.flatnonzero(one == 0).tolist() for one in agent.owned.reserved_by] == [[4, 9, 13], [0, 11]]


def test_reserved_neurons_get_no_connections_and_after_the_last_task_none_is_reserved() -> None:
    agent = Agent()
    for task in range(N_TASKS):
        closed = [np.flatnonzero(one != FREE) for one in agent.owned.reserved_by]
        agent.learn(task)
        for place, layer in enumerate(agent.trunk):
            mine = agent.owned.state_dict()["owner"][place] == task
            assert not np.isin(layer.topology.outputs[mine], closed[place]).any()
            if place:
                assert not np.isin(layer.topology.inputs[mine], closed[place - 1]).any()
    assert [np.count_nonzero(one != FREE) for one in agent.owned.reserved_by] == [2 * count for count in RESERVED]


def test_who_uses_what() -> None:
    agent = Agent()
    for task in range(N_TASKS):
        agent.learn(task)
        n, closed = task + 1, min(task + 1, N_TASKS - 1)
        assert agent.owned.usage(n) == [
            ConnectionUsage(NAMES[0], (20,) * n, 20 * n, N_IN * 14, 14, 3 * closed),
            ConnectionUsage(NAMES[1], (16,) * n, 16 * n, 14 * 12, 12, 2 * closed),
        ]
    assert agent.owned.memory() == {"owners": 2 * (3 * 36 + 14 + 12)}


# --- going on -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", ["first step", "after an event", "between tasks"])
def test_it_goes_on_as_if_never_interrupted(stop: str, tmp_path: Path) -> None:
    def until_stop(agent: Agent) -> None:
        agent.learn(0)
        if stop == "between tasks":
            return
        agent.begin(1)
        agent.step()
        if stop == "after an event":
            agent.rewire()

    def rest(agent: Agent) -> None:
        if stop == "between tasks":
            agent.begin(1)
        agent.go_on()
        agent.learn(2)

    whole, interrupted = Agent(), Agent()
    for agent in (whole, interrupted):
        until_stop(agent)
    checkpoint.save(tmp_path / "state", interrupted.state())
    resumed = Agent(released=False)
    resumed.restore(checkpoint.load(tmp_path / "state"))
    assert_equal_trees(resumed.state(), interrupted.state())
    for agent in (whole, resumed):
        rest(agent)
    assert_equal_trees(resumed.state(), whole.state())
    assert_same(kept(resumed, 0), kept(whole, 0))


def test_a_state_in_memory_does_not_change_what_is_restored_from_it() -> None:
    agent, other = Agent(), Agent()
    agent.learn(0)
    other.owned.load_state_dict(agent.owned.state_dict())
    before = copy.deepcopy(other.owned.state_dict())
    assert before["importance"][0].any()
    agent.learn(1)
    assert_equal_trees(other.owned.state_dict(), before)


# --- capacity -----------------------------------------------------------------------------------------

ADVICE = (
    "use more hidden neurons, or lower spacenet.reserved or spacenet.connections "
    "(for agents spacenet.capacity and spacenet.input-capacity)"
)


def test_where_no_neuron_is_left_the_numbers_are_said() -> None:
    # 6 x 14 positions for twice 50 connections.
    agent = Agent(reserved=(0, 0))
    agent.begin(0, (50, 10))
    message = (
        f"task 2 of 3 needs 50 connections in layer {NAMES[0]}, where 6 x 14 free neurons have room for 84, 50 of it "
        f"taken by earlier tasks: {ADVICE}"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        agent.begin(1, (50, 10))


def test_neurons_that_are_reserved_leave_less_room() -> None:
    # After one task 5 of 14 and 6 of 12 neurons are closed.
    agent = Agent(reserved=(5, 6))
    agent.begin(0, (10, 10))
    agent.owned.reserve()
    with pytest.raises(ConfigError, match=re.escape(f"layer {NAMES[1]}, where 9 x 6 free neurons have room for 54, ")):
        agent.begin(1, (10, 55))


def test_room_is_checked_before_anything_is_made() -> None:
    # 3 * 28 = 84 = 6 * 14, and 3 * 56 = 168 = 14 * 12.
    check_capacity(N_TASKS, N_IN, HIDDEN, (0, 0), (28, 56))
    message = (
        "task 3 of 3 needs 57 connections in layer 1, where 14 x 12 free neurons have room for 168, 114 of it taken by "
        f"earlier tasks: {ADVICE}"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        check_capacity(N_TASKS, N_IN, HIDDEN, (0, 0), (28, 57))


def test_the_network_is_named_where_there_are_several() -> None:
    # 14 - 2 * 3 and 12 - 2 * 2 neurons: 64 - 48 < 24.
    with pytest.raises(ConfigError, match=r"^task 3 of 3 needs 24 connections in layer critic.1, where 8 x 8 free "):
        check_capacity(N_TASKS, N_IN, HIDDEN, RESERVED, (10, 24), name="critic")
    check_capacity(N_TASKS, N_IN, HIDDEN, RESERVED, (16, 21), name="critic")
    agent = Agent(reserved=RESERVED)
    for task in range(N_TASKS):
        agent.begin(task, (16, 21))
        agent.owned.reserve()
    assert [layer.nnz for layer in agent.trunk] == [48, 63]
