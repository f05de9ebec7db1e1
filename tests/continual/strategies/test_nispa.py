"""NISPA: stable units and rewiring worked by hand, where a task's phases end, and what later tasks leave alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from support.layers import ints
from support.tasks import N_FEATURES, blobs

from sparserl.continual.shared.owned import FREE
from sparserl.continual.strategies.nispa import (
    NISPA,
    NISPAOptions,
    leading_to_plastic,
    leading_to_stable,
    most_active,
)
from sparserl.continual.supervised.learner import SupervisedLearner
from sparserl.continual.supervised.learner_config import LearnerConfig
from sparserl.continual.supervised.tasks import Scenario
from sparserl.errors import ConfigError
from sparserl.layers import SparseLinear
from sparserl.topology.structure import SparseTopology

N_TASKS, HIDDEN = 3, (32, 24)
CONFIG = LearnerConfig(HIDDEN, optimizer="sgd", learning_rate=0.2, epochs=5, batch_size=16)
OPTIONS = NISPAOptions(density=0.4, phase_epochs=1, phases=6, tolerance=0.1)
RNG = np.random.default_rng


def make(scenario: Scenario = "class", options: NISPAOptions = OPTIONS, **changes: Any) -> SupervisedLearner:
    config = dataclasses.replace(CONFIG, **changes)
    return SupervisedLearner(blobs(scenario, n_tasks=N_TASKS, n_train=40), NISPA(options), config, seed=0)


def layers(learner: SupervisedLearner) -> list[SparseLinear]:
    return list(learner.network)  # type: ignore[arg-type]  # are sparse


def finish(learner: SupervisedLearner) -> None:
    list(learner.train())
    learner.finish_task()


# --- worked by hand -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "units"),
    [
        (0.0, [1]),
        (0.4, [1]),
        (0.41, [1, 3]),
        (0.7, [1, 3]),
        (0.9, [1, 2, 3]),
        (0.95, [0, 1, 2, 3]),
        (1.0, [0, 1, 2, 3]),
    ],
)
def test_the_fewest_units_that_hold_a_share(share: float, units: list[int]) -> None:
    assert np.flatnonzero(most_active(np.array([1.0, 4.0, 2.0, 3.0, 0.0]), share)).tolist() == units


def test_silent_layers_and_equal_units() -> None:
    assert most_active(np.zeros(3), 0.9).tolist() == [True, False, False]
    assert most_active(np.ones(4), 0.5).tolist() == [True, True, False, False]


def test_the_share_falls_along_a_cosine() -> None:
    options = NISPAOptions(phases=30)
    # (1 + cos(pi t / 30)) / 2 in the released code; phase 26 is the first at or below .05.
    assert [round(options.share(t), 4) for t in (1, 10, 15, 20, 26, 30, 40)] == [0.9973, 0.75, 0.5, 0.25, 0.0432, 0, 0]


# A layer 3 x 4: output 0 and inputs 0 and 1 are stable.
TOPOLOGY = SparseTopology(3, 4, ints(0, 2, 3, 5, 8))
OUT, IN = np.array([True, False, False]), np.array([True, True, False, False])


def test_connections_from_plastic_units_to_stable_ones_go() -> None:
    assert leading_to_stable(TOPOLOGY, OUT, IN).tolist() == [1, 2]  # positions 2 and 3; 0 comes from a stable unit


def test_as_many_grow_that_lead_to_plastic_units() -> None:
    # Kept: 0, 5 and 8. Free: 4, 6 and 7 of output 1; 9, 10 and 11 of output 2.
    dropped, free = ints(1, 2), {4, 6, 7, 9, 10, 11}
    seen = set()
    for seed in range(60):
        grown = leading_to_plastic(TOPOLOGY, dropped, OUT, IN, "any", RNG(seed), revive=False).tolist()
        assert grown == sorted(set(grown))
        assert len(grown) == 2
        seen |= set(grown)
    assert seen == free
    for growth, allowed in (("from_stable", {4, 9}), ("from_plastic", {6, 7, 10, 11})):
        chosen = [leading_to_plastic(TOPOLOGY, dropped, OUT, IN, growth, RNG(s), revive=False) for s in range(40)]  # type: ignore[arg-type]
        assert {position for one in chosen for position in one.tolist()} == allowed


def test_units_without_outputs_come_first_and_what_has_no_room_is_lost() -> None:
    # Inputs 2 and 3 are plastic, and lead nowhere after the drop.
    for seed in range(20):
        grown = leading_to_plastic(TOPOLOGY, ints(1, 2), OUT, IN, "any", RNG(seed), revive=True)
        assert sorted(position % 4 for position in grown.tolist()) == [2, 3]
        assert all(position // 4 in (1, 2) for position in grown.tolist())
    # Stable sources have two free positions, 4 and 9; the third comes from elsewhere.
    full = SparseTopology(3, 4, ints(0, 1, 2, 3, 5, 8))
    grown = leading_to_plastic(full, ints(1, 2, 3), OUT, IN, "from_stable", RNG(0), revive=False).tolist()
    assert {4, 9} < set(grown)
    assert len(grown) == 3
    everything = np.ones(3, bool)
    assert leading_to_plastic(full, ints(1, 2), everything, IN, "any", RNG(0), revive=True).tolist() == []


# --- phases -------------------------------------------------------------------------------------------


def network(learner: SupervisedLearner) -> list[tuple[list[int], list[float], list[float]]]:
    return [(one.topology.flat.tolist(), one.values.tolist(), one.bias.tolist()) for one in layers(learner)]


def with_accuracies(learner: SupervisedLearner, *accuracies: float) -> None:
    waiting = list(accuracies)
    learner.training_accuracy = lambda: waiting.pop(0)  # type: ignore[method-assign]


def test_where_accuracy_falls_the_network_is_what_it_was_before_the_drop() -> None:
    learner = make()
    with_accuracies(learner, 0.9, 1.0, 0.85)
    strategy: Any = learner.strategy
    seen = []
    for step in learner.train():
        if step.batch == 2:  # the last of an epoch
            seen.append((network(learner), [one.copy() for one in strategy._candidates], strategy._phase))
    # Phase 2 ends with `kept`; the drop after it is undone after phase 3, and phases 4 and 5 move no connection.
    assert [phase for _, _, phase in seen] == [1, 2, 3, 3, 3]
    after_third, of_second = seen[2][0], seen[1][0]
    assert [one[0] for one in after_third] != [one[0] for one in of_second]
    assert [one[0] for one in seen[4][0]] == [one[0] for one in after_third]
    chosen = strategy._kept_candidates
    for own, of_first in zip(chosen, seen[0][1], strict=True):
        assert np.array_equal(own, of_first)
    learner.finish_task()
    for stable, own in zip(strategy.state_dict()["stable_by"], chosen, strict=True):
        assert np.array_equal(stable == 0, own)


def test_the_network_comes_back_bit_for_bit() -> None:
    learner = make()
    with_accuracies(learner, 0.9, 1.0, 0.85)
    strategy: Any = learner.strategy
    steps = learner.train()
    for _ in range(5):
        next(steps)
    kept_topology = [one.topology.flat.tolist() for one in layers(learner)]
    next(steps)  # phase 2 ends: the network is kept, then rewired
    kept = [tuple(part.tolist() for part in one) for one in strategy._kept]
    assert [one[0] for one in kept] == kept_topology
    for _ in range(3):
        next(steps)  # phase 3 ends, and accuracy has fallen
    assert network(learner) == kept
    assert strategy._over


def test_a_small_share_ends_the_phases_as_well() -> None:
    learner = make(options=dataclasses.replace(OPTIONS, phases=3))  # shares .75, .25 and 0
    with_accuracies(learner, 1.0, 1.0, 1.0)
    list(learner.train())
    assert learner.strategy.state_dict()["phase"] == [3, 1.0, True]


# --- what later tasks leave alone ---------------------------------------------------------------------


@pytest.mark.parametrize("scenario", ["class", "task"])
def test_what_leads_to_stable_units_stays_bit_for_bit_and_a_finished_task_answers_alike(scenario: Scenario) -> None:
    learner = make(scenario)
    x = torch.linspace(-2.0, 2.0, 9 * N_FEATURES).sin().view(9, N_FEATURES)
    answers: list[torch.Tensor] = []
    held: dict[tuple[int, int], float] = {}
    for task in range(N_TASKS):
        finish(learner)
        with torch.no_grad():
            now = learner.strategy.network_for_task(learner, 0)(x)
        for earlier, answer in enumerate(answers):
            # Products of a layer may add in another order when other connections of it move.
            torch.testing.assert_close(now[:, 2 * earlier : 2 * earlier + 2], answer, rtol=1e-5, atol=1e-5)
        answers.append(now[:, 2 * task : 2 * task + 2])
        stable = [np.ones(N_FEATURES, bool)]
        stable += [by != FREE for by in learner.strategy.state_dict()["stable_by"]]
        stable.append(np.arange(6) < 2 * (task + 1))
        for index, layer in enumerate(layers(learner)):
            assert leading_to_stable(layer.topology, stable[index + 1], stable[index]).size == 0
            to_stable = stable[index + 1][layer.topology.outputs]
            weights = zip(layer.topology.flat.tolist(), layer.values.tolist(), to_stable.tolist(), strict=True)
            own = {(index, position): weight for position, weight, is_stable in weights if is_stable}
            own |= {
                (index, -1 - unit): float(layer.bias.detach()[unit])
                for unit in np.flatnonzero(stable[index + 1]).tolist()
            }
            assert {at: weight for at, weight in held.items() if at[0] == index}.items() <= own.items()
            held |= own
            owned = np.count_nonzero(to_stable)
            use = learner.usage()[index]
            assert (sum(use.owned), use.used) == (owned, layer.nnz)
    assert any((by == 1).any() for by in learner.strategy.state_dict()["stable_by"])


def test_the_number_of_connections_stays_while_there_is_room() -> None:
    learner = make()
    counts = [round(0.4 * n_out * n_in) for n_out, n_in in ((32, N_FEATURES), (24, 32), (6, 24))]
    for _ in range(2):
        for _ in learner.train():
            assert [one.nnz for one in layers(learner)][:2] == counts[:2]
            assert layers(learner)[2].nnz <= counts[2]
        learner.finish_task()


def test_between_tasks_nothing_is_kept_but_the_tasks_of_units() -> None:
    learner = make()
    finish(learner)
    state = learner.strategy.state_dict()
    assert [state[name] for name in ("phase", "candidates", "kept_candidates", "kept")] == [[0, 0.0, False], [], [], []]
    assert learner.strategy.numbers_kept() == sum(HIDDEN)


# --- what is refused ----------------------------------------------------------------------------------


def test_tasks_that_are_too_short_are_refused() -> None:
    said = "nispa.phase-epochs 3 make fewer than two phases of 5 epochs: use at least learner.epochs 6, or fewer"
    with pytest.raises(ConfigError, match=said):
        make(options=dataclasses.replace(OPTIONS, phase_epochs=3))
