"""Neurons of sub-networks, how they go on after a restart, and their capacity."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from support.sub_networks import (
    HIDDEN,
    N_IN,
    N_TASKS,
    NAMES,
    RESERVED,
    Agent,
    assert_same,
    kept,
)
from support.trees import assert_equal_trees

from sparserl.continual.shared.capacity import check_capacity
from sparserl.continual.shared.sub_networks import FREE
from sparserl.continual.shared.usage import ConnectionUsage
from sparserl.errors import ConfigError
from sparserl.recording import checkpoint

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

ADVICE = "use more hidden neurons, or fewer tasks"


def test_where_no_neuron_is_left_the_numbers_are_said() -> None:
    # 6 x 14 positions for twice 50 connections.
    agent = Agent(reserved=(0, 0), advice=", or fewer tasks")
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
    check_capacity([(28, 56)] * N_TASKS, N_IN, HIDDEN, (0, 0))
    message = (
        "task 3 of 3 needs 57 connections in layer 1, where 14 x 12 free neurons have room for 168, 114 of it taken by "
        f"earlier tasks: {ADVICE}"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        check_capacity([(28, 57)] * N_TASKS, N_IN, HIDDEN, (0, 0), advice=", or fewer tasks")


def test_the_network_is_named_where_there_are_several() -> None:
    # 14 - 2 * 3 and 12 - 2 * 2 neurons: 64 - 48 < 24.
    with pytest.raises(ConfigError, match=r"^task 3 of 3 needs 24 connections in layer critic.1, where 8 x 8 free "):
        check_capacity([(10, 24)] * N_TASKS, N_IN, HIDDEN, RESERVED, name="critic")
    check_capacity([(16, 21)] * N_TASKS, N_IN, HIDDEN, RESERVED, name="critic")
    agent = Agent(reserved=RESERVED)
    for task in range(N_TASKS):
        agent.begin(task, (16, 21))
        agent.owned.reserve()
    assert [layer.nnz for layer in agent.trunk] == [48, 63]
