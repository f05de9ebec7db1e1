"""What every continual method of the table does, whatever it fights forgetting with and whatever learns."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from stable_baselines3.common.noise import NormalActionNoise
from support.rl_learners import (
    DENSE,
    answers,
    comparable,
    make_learner,
    parameters_of,
    restore,
    tasks_of,
    whole_state,
)
from support.tasks import blobs, static
from support.trees import assert_equal_trees

from sparserl.agents import DSSAC, DSTD3
from sparserl.continual.learner import Kind
from sparserl.continual.rl.learner import RLLearner
from sparserl.continual.strategies import STRATEGIES, MethodOptions, make_strategy, methods_of
from sparserl.continual.strategies.afaf import AFAFOptions
from sparserl.continual.strategies.der import DEROptions
from sparserl.continual.strategies.icarl import ICaRLOptions
from sparserl.continual.strategies.memory import AGEMOptions, ReplayOptions
from sparserl.continual.strategies.nispa import NISPAOptions
from sparserl.continual.strategies.penalty import EWCOptions, L2Options, MASOptions, OnlineEWCOptions, SIOptions
from sparserl.continual.strategies.spacenet import SpaceNetOptions
from sparserl.continual.strategies.wsn import WSNOptions
from sparserl.continual.supervised.learner import SupervisedLearner
from sparserl.continual.supervised.learner_config import LearnerConfig
from sparserl.continual.supervised.runner import SequenceStarted, TaskEnded, run_sequence
from sparserl.continual.supervised.task_learner import Step
from sparserl.continual.supervised.tasks import Scenario
from sparserl.errors import ConfigError
from sparserl.recording import checkpoint

Event = SequenceStarted | Step | TaskEnded
SCENARIOS: tuple[Scenario, ...] = get_args(Scenario)
OPTIONS = MethodOptions(
    l2=L2Options(strength=0.1),
    ewc=EWCOptions(strength=1.0, fisher_samples=4),
    online_ewc=OnlineEWCOptions(strength=1.0, gamma=0.5, fisher_samples=4),
    si=SIOptions(strength=0.1),
    mas=MASOptions(strength=0.01, samples=4),
    replay=ReplayOptions(samples=20),
    agem=AGEMOptions(samples_per_task=9, batch_size=12),
    der=DEROptions(samples=20, beta=0.5, batch_size=12),
    icarl=ICaRLOptions(samples=20),
    spacenet=SpaceNetOptions(connections=(40, 30, 6), selected=(12, 10), reserved=(5, 4)),
    afaf=AFAFOptions(
        0.5, 0.4, fixed_last=0.5, density=0.6, density_last=0.4, reuse_from=1, reused_layers=1, initial_value="xavier"
    ),
    wsn=WSNOptions(pool=0.6),
    nispa=NISPAOptions(density=0.5, phase_epochs=1, phases=6, tolerance=0.2),
)
LEARNER = LearnerConfig(hidden=(32, 24), optimizer="sgd", learning_rate=0.2, momentum=0.5, epochs=4, batch_size=16)
BATCHES = math.ceil(40 / 16)
CLASSIFIERS = [name for name, spec in methods_of("classifier").items() if spec.strategy.has_network]
COUNTING = ("spacenet", "static_sparse", "afaf", "wsn", "nispa")
"""Those that count connections themselves."""
DENSITY = {name: 1.0 if name in COUNTING else 0.6 for name in CLASSIFIERS}
"""The others learn on a sparse hidden layer, so that what they keep for each connection is tried too."""
REFUSED = {
    *((name, scenario) for name in ("packnet", "wsn") for scenario in ("class", "domain")),
    ("nispa", "domain"),
    ("icarl", "domain"),
}
CASES = [(name, scenario) for name in CLASSIFIERS for scenario in SCENARIOS if (name, scenario) not in REFUSED]
INTERRUPTED = [case for place, case in enumerate(CASES) if place % 2 == 0 or case[1] == "task"]
"""Which outputs a scenario trains is no state: not every method is interrupted in each."""


def make_classifier(name: str, scenario: Scenario, *, seed: int = 0, **changes: Any) -> SupervisedLearner:
    sequence = blobs(scenario)
    config, topology = dataclasses.replace(LEARNER, **changes), static(DENSITY[name])
    return SupervisedLearner(sequence, make_strategy(name, "classifier", OPTIONS), config, topology, seed=seed)


def rows(learner: SupervisedLearner) -> np.ndarray:
    """The accuracy matrix of the rest of a run."""
    return np.array([learner.accuracies() for event in run_sequence(learner) if isinstance(event, TaskEnded)])


@pytest.mark.parametrize(("name", "scenario"), CASES)
def test_it_learns_three_tasks_and_repeats_with_the_same_seed(name: str, scenario: Scenario) -> None:
    learners, matrices = [], []
    for unrelated in (1, 2):
        torch.manual_seed(unrelated)
        np.random.seed(unrelated)
        learners.append(make_classifier(name, scenario))
        matrices.append(rows(learners[-1]))
    assert_equal_trees(learners[0].state_dict(), learners[1].state_dict())
    assert_equal_trees(*matrices)
    (matrix, _), learner = matrices, learners[0]
    assert matrix.shape == (3, 3)
    assert matrix[0, 0] > 0.85
    assert ((matrix >= 0) & (matrix <= 1))[np.tril_indices(3)].all()
    assert np.isnan(matrix[np.triu_indices(3, 1)]).all() == (scenario == "class")  # otherwise every output can be asked
    assert all(torch.isfinite(parameter).all() for parameter in learner.network.parameters())
    assert all(purpose and type(size) is int and size >= 0 for purpose, size in learner.strategy.memory().items())


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_another_seed_gives_another_network(name: str) -> None:
    one, other = (make_classifier(name, "task", seed=seed) for seed in (0, 1))
    for learner in (one, other):
        list(learner.train())
    pairs = zip(one.network[0].parameters(), other.network[0].parameters(), strict=True)
    assert not all(torch.equal(*pair) for pair in pairs)


@pytest.mark.parametrize(("name", "scenario"), INTERRUPTED)
def test_interrupted_it_goes_on_as_if_never_interrupted(name: str, scenario: Scenario, tmp_path: Path) -> None:
    adam = {"optimizer": "adam", "momentum": 0.0, "learning_rate": 0.02, "reset_optimizer": False, "epochs": 3}
    events, states = [], []
    whole = make_classifier(name, scenario, **adam)
    for event in run_sequence(whole):
        events.append(event)
        states.append(copy.deepcopy(whole.state_dict()))
    for label, stop in stops(events).items():
        checkpoint.save(tmp_path / label, states[stop])
        resumed = make_classifier(name, scenario, **adam)
        resumed.load_state_dict(checkpoint.load(tmp_path / label))
        assert_equal_trees(resumed.state_dict(), states[stop])
        rest = [vars(event) for event in run_sequence(resumed)]
        assert_equal_trees(rest, [vars(event) for event in events[stop + 1 :]])
        assert_equal_trees(resumed.state_dict(), states[-1])


@pytest.mark.parametrize(("name", "scenario"), CASES)
def test_what_is_not_counted_among_the_numbers_kept_is_not_needed(
    name: str, scenario: Scenario, tmp_path: Path
) -> None:
    """All of it is lost after the second task, and the third ends as if it were there."""
    whole = make_classifier(name, scenario)
    for event in run_sequence(whole):
        if isinstance(event, TaskEnded) and event.task == 1:
            checkpoint.save(tmp_path / "state", whole.state_dict())
    state, again = checkpoint.load(tmp_path / "state"), make_classifier(name, scenario)
    lost = (*again.strategy.of_one_task, "explored", "initial")
    again.load_state_dict({**state, "strategy": without(state["strategy"], lost), "frozen": {}})
    rows(again)
    assert_equal_trees(dict(again.network.state_dict()), dict(whole.network.state_dict()))
    assert_equal_trees(again.accuracies(), whole.accuracies())


def without(tree: Any, keys: Collection[str], is_lost: bool = False) -> Any:
    """A tree with numbers that mean nothing under some keys."""
    if isinstance(tree, Mapping):
        return {key: without(value, keys, is_lost or key in keys) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [without(value, keys, is_lost) for value in tree]
    if not is_lost or isinstance(tree, str):
        return tree
    if isinstance(tree, torch.Tensor):
        return torch.full_like(tree, math.nan if tree.is_floating_point() else 0)
    if isinstance(tree, np.ndarray):
        return np.full_like(tree, math.nan if tree.dtype.kind == "f" else 0)
    return type(tree)()


def stops(events: list[Event]) -> dict[str, int]:
    """Places in a run at which to interrupt it."""
    ended = [place for place, event in enumerate(events) if isinstance(event, TaskEnded)]
    return {
        "between tasks": ended[0],
        "within an epoch": ended[0] + BATCHES + 1,
        "last step of a task": ended[1] - 1,
    }


@pytest.mark.parametrize(("name", "scenario"), sorted(REFUSED))
def test_a_scenario_that_a_method_cannot_learn_is_refused(name: str, scenario: Scenario) -> None:
    with pytest.raises(ConfigError, match=f"--scenario task.*, not {scenario}") as refusal:
        make_classifier(name, scenario)
    assert "\n" not in str(refusal.value)


def test_naive_forgets_and_joint_does_not() -> None:
    naive, joint = (rows(make_classifier(name, "class")) for name in ("naive", "joint"))
    assert np.diagonal(naive).min() > 0.85
    assert naive[-1, :2].max() < 0.1
    assert joint[np.tril_indices(3)].min() > 0.85


STEPS = 16
NOISE = {"action_noise": NormalActionNoise(np.zeros(2), np.full(2, 0.1))}


# --- agents -------------------------------------------------------------------------------------------


def fresh(method: str, algo: type[Any], **changes: Any) -> RLLearner:
    more = NOISE if algo is DSTD3 else {}
    return make_learner(
        method, algo=algo, steps=(STEPS,) * 3, weight_decay=0.01, buffer_size=3 * STEPS, **more, **changes
    )


def place_of(learner: RLLearner, event: Any) -> str:
    """Where in a run an event is."""
    if isinstance(event, TaskEnded):
        return f"after task {event.task}"
    if isinstance(event, SequenceStarted):
        return "start"
    consolidated = learner.state_dict()["position"][-1]
    return f"{event.task}: {consolidated if event.consolidating else learner.task_steps}{'c' * event.consolidating}"


FEW = (f"0: {STEPS}", "1: 14")
"""Where to interrupt a run: before a task is finished, and within one when another is finished."""
PLACES = ("0: 3", *FEW, "after task 0", "1: 2c")
"""Early and between tasks too, and within PackNet's retraining."""
STATE_CASES: list[tuple[str, type[Any], dict[str, Any]]] = [
    *((method, DSSAC, {}) for method in methods_of("agent")),
    *((method, DSTD3, {}) for method in ("finetune", "ewc", "si", "packnet", "spacenet")),
    ("finetune", DSSAC, {"border": {"heads": "shared", "critic": "reset", "buffer": "kept", "exploration": "policy"}}),
    ("packnet", DSSAC, {"topology": DENSE, "border": {"optimizer": "kept", "temperature": "kept"}}),
    ("clonex", DSSAC, {"topology": DENSE, "border": {"buffer": "kept"}}),
]


@pytest.mark.parametrize(
    ("method", "algo", "changes"),
    STATE_CASES,
    ids=[f"{m}-{a.__name__}{'-other' if c else ''}" for m, a, c in STATE_CASES],
)
def test_an_agent_goes_on_as_if_never_interrupted(
    method: str, algo: type[Any], changes: dict[str, Any], tmp_path: Path
) -> None:
    whole = fresh(method, algo, **changes)
    chosen = PLACES if method in ("finetune", "packnet") else FEW
    places, events, states = [], [], {}
    for event in run_sequence(whole):
        events.append(event)
        places.append(place_of(whole, event))
        if places[-1] in chosen:
            states[places[-1]] = whole_state(whole)
    assert len(states) == len(chosen) - (method == "finetune")  # which retrains nothing
    last = comparable(whole_state(whole))
    for number, (place, state) in enumerate(states.items()):
        path, stored = tmp_path / str(number), dict(state)
        checkpoint.save(path, {name: stored.pop(name) for name in ("learner", "agent")})
        resumed = fresh(method, algo, **changes)
        restore(resumed, {**stored, **checkpoint.load(path)})
        assert_equal_trees(comparable(whole_state(resumed)), comparable(state))
        assert list(run_sequence(resumed)) == events[places.index(place) + 1 :]
        assert_equal_trees(comparable(whole_state(resumed)), last)
        for task in range(3):
            np.testing.assert_array_equal(answers(resumed, task), answers(whole, task))


@pytest.mark.parametrize("method", methods_of("agent"))
def test_an_agent_repeats_with_the_same_seed_and_not_with_another(method: str) -> None:
    states = []
    for seed, unrelated in ((0, 1), (0, 2), (1, 1)):
        learner = make_learner(method, steps=(15, 15), seed=seed)
        torch.manual_seed(unrelated)
        np.random.seed(unrelated)
        learner.agent.set_random_seed(seed)
        for _ in tasks_of(learner):
            pass
        states.append(comparable(whole_state(learner)))
        assert all(torch.isfinite(one).all() for one in parameters_of(learner.agent.policy).values())
        assert all(purpose and type(size) is int and size >= 0 for purpose, size in learner.strategy.memory().items())
    assert_equal_trees(states[0], states[1])
    critics = [state["agent"]["modules"]["policy"]["critic.qf0.trunk.0.bias"] for state in states]
    assert not torch.equal(critics[0], critics[2])


@pytest.mark.parametrize("method", ["l2", "ewc", "online_ewc", "si", "mas", "agem", "clonex", "scratch"])
def test_the_first_task_of_an_agent_is_learned_as_without_a_method(method: str) -> None:
    learned = []
    for name in (method, "finetune"):
        learner = make_learner(name, steps=(20, 20))
        list(learner.train())
        learned.append(dict(learner.agent.policy.state_dict()))
    assert_equal_trees(*learned)


@pytest.mark.parametrize("method", ["packnet", "spacenet"])
def test_one_output_layer_for_all_tasks_is_refused(method: str) -> None:
    with pytest.raises(ConfigError, match=r"^this method answers for each task by itself: use --border.heads task$"):
        make_learner(method, border={"heads": "shared"})


# --- the table ----------------------------------------------------------------------------------------

KINDS: tuple[Kind, ...] = get_args(Kind)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_method_serves_some_learner_and_says_what_to_use_for_others(name: str) -> None:
    spec = STRATEGIES[name]
    assert spec.summary
    assert len(spec.refused) < len(KINDS)
    for kind in KINDS:
        if kind not in spec.refused:
            assert type(make_strategy(name, kind, MethodOptions())) is spec.strategy
            continue
        with pytest.raises(ConfigError, match=f"^{name} .*: use .*--method ") as refusal:
            make_strategy(name, kind, MethodOptions())
        assert "\n" not in str(refusal.value)
        instead = str(refusal.value).rpartition("--method ")[2].split()[0].rstrip(",")
        assert instead in methods_of(kind)
