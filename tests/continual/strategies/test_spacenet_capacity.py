"""What SpaceNet has room for, and its options."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.spacenet_runs import (
    CONFIG,
    HIDDEN,
    LAYERS,
    N_TASKS,
    OPTIONS,
    SCENARIOS,
    layers_of,
    make,
    reserved,
    watched,
)
from support.tasks import N_FEATURES, blobs, static

from sparserl.continual.shared.sub_networks import FREE
from sparserl.continual.strategies.spacenet import SpaceNet, SpaceNetOptions
from sparserl.continual.supervised.learner import SupervisedLearner
from sparserl.continual.supervised.runner import run_sequence
from sparserl.continual.supervised.tasks import Scenario
from sparserl.errors import ConfigError

# --- capacity -----------------------------------------------------------------------------------------


def refusal(
    scenario: Scenario = "class", hidden: tuple[int, ...] = HIDDEN, density: float = 1.0, **options: Any
) -> str:
    sequence = blobs(scenario, n_tasks=N_TASKS)
    strategy = SpaceNet(dataclasses.replace(OPTIONS, **options))
    with pytest.raises(ConfigError) as refused:
        SupervisedLearner(sequence, strategy, dataclasses.replace(CONFIG, hidden=hidden), static(density), seed=0)
    return str(refused.value)


ADVICE = (
    " of it taken by earlier tasks: use more hidden neurons, or lower spacenet.reserved or spacenet.connections "
    "(for agents spacenet.capacity and spacenet.input-capacity)"
)
F = N_FEATURES


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"connections": (24 * F + 1, 16, 5)},
            f"task 1 of 3 needs {24 * F + 1} connections in layer 0, where {F} x 24 free neurons have room for "
            f"{24 * F}, 0",
        ),
        (
            {"connections": (25, 481, 5)},
            "task 1 of 3 needs 481 connections in layer 1, where 24 x 20 free neurons have room for 480, 0",
        ),
        (
            {"connections": (25, 16, 41)},
            "task 1 of 3 needs 41 connections in layer 2, where 20 x 2 free neurons have room for 40, 0",
        ),
        (  # 4 of 8 neurons are reserved by each of two tasks
            {"hidden": (8, 20), "connections": (10, 6, 5)},
            f"task 3 of 3 needs 10 connections in layer 0, where {F} x 0 free neurons have room for 0, 20",
        ),
        (  # 13 of 24 neurons: less than none is none
            {"reserved": (13, 3)},
            f"task 3 of 3 needs 25 connections in layer 0, where {F} x 0 free neurons have room for 0, 50",
        ),
        (  # 20 neurons, 12, 4: 64 - 2 * 22 < 22
            {"reserved": (4, 8), "connections": (25, 22, 5)},
            "task 3 of 3 needs 22 connections in layer 1, where 16 x 4 free neurons have room for 64, 44",
        ),
        (  # classifier rows of earlier tasks are away
            {"reserved": (4, 8), "connections": (25, 21, 9)},
            "task 3 of 3 needs 9 connections in layer 2, where 4 x 2 free neurons have room for 8, 0",
        ),
        (  # ... unless all domains share them: 8 - 2 * 3 < 3
            {"scenario": "domain", "reserved": (4, 8), "connections": (25, 21, 3)},
            "task 3 of 3 needs 3 connections in layer 2, where 4 x 2 free neurons have room for 8, 6",
        ),
    ],
)
def test_too_little_room_is_said_with_the_numbers(changes: dict[str, Any], message: str) -> None:
    assert refusal(**changes) == message + ADVICE


@pytest.mark.parametrize(
    ("scenario", "connections"), [("class", (42, 21, 8)), ("task", (42, 21, 8)), ("domain", (42, 21, 2))]
)
def test_room_for_the_last_task_is_room_enough(scenario: Scenario, connections: tuple[int, ...]) -> None:
    # 16 * 8 = 128 >= 3 * 42, 16 * 4 = 64 >= 3 * 21, 4 * 2 = 8 >= 8 or 3 * 2.
    learner = make(scenario, reserved=(4, 8), connections=connections)
    list(run_sequence(learner))
    answering = layers_of(learner.strategy.network_for_task(learner, 0))
    assert [layer.nnz for layer in answering] == [3 * count for count in connections]


def test_a_task_selects_more_neurons_where_its_connections_have_no_room() -> None:
    # 3 x 3 neurons have no room for 12 connections, 4 x 3 have: of equals the first layer gives way. The classifier
    # needs all 6 x 2. At last every connection exists.
    learner = make(config={"hidden": (6, 6)}, connections=(2 * F, 12, 12), selected=(3, 3), reserved=(0, 0))
    list(run_sequence(learner))
    first, *_, last = watched(learner).begun
    assert [len(chosen) for chosen in first.selected] == [4, 6]
    assert [len(chosen) for chosen in last.selected] == [6, 6]
    answering = layers_of(learner.strategy.network_for_task(learner, 0))
    assert [layer.density for layer in answering] == [1.0, 1.0, 1.0]


def test_the_layer_with_more_neurons_left_gives_way() -> None:
    # 8 of 10 and 2 of 6 neurons have no room for 20 connections, and 8 and 3 have: 2 are left there and 4 here.
    learner = make(config={"hidden": (10, 6)}, connections=(F, 20, 2), selected=(8, 2), reserved=(0, 0))
    next(learner.train())
    assert [len(chosen) for chosen in watched(learner).begun[0].selected] == [8, 3]


def test_connections_outside_of_the_selected_neurons_take_no_room() -> None:
    # 4 neurons have 4 F = 32 positions for 3 F = 24 connections; what the first task has elsewhere does not count.
    learner = make(config={"hidden": (200, 20)}, connections=(3 * F, 10, 5), selected=(4, 9))
    list(run_sequence(learner))
    first, second, third = (begun.selected[0] for begun in watched(learner).begun)
    assert not first & second
    assert not (first | second) & third
    assert len(first) == len(second) == len(third) == 4


def test_neurons_that_are_selected_for_want_of_room_were_free() -> None:
    learner = make(config={"hidden": (16, 14)}, connections=(20, 24, 8), selected=(4, 4), reserved=(3, 3))
    list(run_sequence(learner))
    for begun in watched(learner).begun:
        assert sum(map(len, begun.selected)) > 8
        for chosen, reserved_by in zip(begun.selected, begun.reserved_by, strict=True):
            assert (reserved_by[sorted(chosen)] == FREE).all()


def capacity(scenario: Scenario, hidden: Sequence[int], taken: Sequence[int]) -> list[int]:
    """Most connections of a task in each layer, with `taken` neurons reserved after each, wherever they are."""
    most = []
    for layer in LAYERS:
        shares = not (layer == 2 and scenario != "domain")
        rooms = []
        for task in range(N_TASKS):
            sides = [F, *(width - task * gone for width, gone in zip(hidden, taken, strict=True)), 2]
            rooms.append(sides[layer] * sides[layer + 1] // (task + 1 if shares else 1))
        most.append(min(rooms))
    return most


@settings(max_examples=20, deadline=None, derandomize=True, database=None)
@given(st.data(), st.sampled_from(SCENARIOS))
def test_what_has_room_is_learned_to_the_end(data: st.DataObject, scenario: Scenario) -> None:
    taken = data.draw(st.tuples(*[st.integers(0, 3)] * 2), "reserved")
    hidden = data.draw(st.tuples(*(st.integers(2 * gone + 2, 2 * gone + 8) for gone in taken)), "hidden")
    selected = data.draw(st.tuples(*(st.integers(1, width) for width in hidden)), "selected")
    most = capacity(scenario, hidden, taken)
    connections = data.draw(st.tuples(*(st.integers(max(1, most_of // 2), most_of) for most_of in most)), "connections")
    options: dict[str, Any] = {"selected": selected, "reserved": taken, "connections": connections}
    learner = make(scenario, config={"hidden": hidden, "epochs": 2, "batch_size": 40}, **options)
    list(run_sequence(learner))
    answering = layers_of(learner.strategy.network_for_task(learner, 0))
    assert [layer.nnz for layer in answering] == [3 * count for count in connections]
    one_more = [count + (place == np.argmin(most)) for place, count in enumerate(most)]
    assert "free neurons have room for" in refusal(scenario, hidden, **options | {"connections": tuple(one_more)})


@pytest.mark.parametrize(("hidden", "layers"), [((24,), 1), ((24, 20, 20), 3)])
def test_another_number_of_layers_is_refused(hidden: tuple[int, ...], layers: int) -> None:
    said = refusal(hidden=hidden)
    assert said == f"spacenet.connections is for 2 hidden layer(s), learner.hidden has {layers}"


def test_a_density_is_refused() -> None:
    said = refusal(density=0.5)
    assert said == (
        "the method counts connections itself (spacenet.connections) and says where they go: leave --topology.method "
        "static and its options (density 0.5) out, or use --method naive"
    )


@pytest.mark.parametrize("layers", [1, 3])
def test_networks_of_other_depths(layers: int) -> None:
    options: dict[str, Any] = {
        "connections": (*(20, 12, 8)[:layers], 5),
        "selected": (9,) * layers,
        "reserved": (2,) * layers,
    }
    learner = make(config={"hidden": (16,) * layers}, **options)
    list(run_sequence(learner))
    counts = options["connections"]
    assert [layer.nnz for layer in layers_of(learner.strategy.network_for_task(learner, 0))] == [
        3 * one for one in counts
    ]


# --- options ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"selected": (10,)}, "one a hidden layer, got 3, 1 and 2"),
        ({"reserved": (4, 3, 2)}, "one a hidden layer, got 3, 2 and 3"),
        ({"connections": (25, 16)}, "one a hidden layer, got 2, 2 and 2"),
        ({"connections": (25,), "selected": (), "reserved": ()}, "one a hidden layer, got 1, 0 and 0"),
        ({"connections": (25, 0, 5)}, "spacenet.connections must be at least 1, got (25, 0, 5)"),
        ({"selected": (10, 0)}, "spacenet.selected must be at least 1, got (10, 0)"),
        ({"reserved": (4, -1)}, "spacenet.reserved must not be negative, got (4, -1)"),
    ],
)
def test_an_option_out_of_range_is_refused_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        dataclasses.replace(OPTIONS, **changes).of_kind("classifier")
    assert str(refused.value).endswith(message)
    assert "\n" not in str(refused.value)


def test_the_ends_of_ranges_are_allowed() -> None:
    learner = make(drop_fraction=0.0, reserved=(0, 0))
    list(run_sequence(learner))
    assert reserved(learner) == [{}, {}]
    assert learner.strategy.state_dict()["evolver"]["dropped_total"] == {
        "network.0": 0,
        "network.1": 0,
        "network.2": 10,
    }


def test_the_defaults_are_those_of_the_released_script() -> None:
    own = SpaceNetOptions().of_kind("classifier")
    assert (own.connections, own.selected, own.reserved) == ((10_000, 1_640, 80), (80, 80), (40, 40))
    assert (own.drop_fraction, own.rewire, own.neuron_importance, own.initial_value) == (
        0.2,
        True,
        "cumulative",
        "xavier",
    )
    assert 5 * sum(own.connections or ()) == 58_600
