"""PackNet for agents: shares by hand, what each phase may move, and old answers that stay bit for bit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from support.rl_learners import DENSE, OPTIONS, REWIRING, answers, learn_tasks, make_learner, parameters_of, tasks_of
from support.trees import assert_equal_trees

from sparserl.agents import DSSAC, DSTD3
from sparserl.continual.rl.learner import Progress, RLLearner
from sparserl.continual.shared.usage import ConnectionUsage
from sparserl.continual.shared.weight_owners import FREE
from sparserl.continual.strategies.packnet import PackNetOptions
from sparserl.continual.supervised.runner import TaskEnded, run_sequence
from sparserl.errors import ConfigError
from sparserl.layers.linear import linear

RETRAIN = 5


def make(retrain: int = RETRAIN, *, n_tasks: int = 3, steps: int = 15, **changes: Any) -> RLLearner:
    options = replace(OPTIONS, packnet=PackNetOptions(retrain_updates=retrain))
    return make_learner("packnet", options=options, **{"topology": DENSE, "steps": (steps,) * n_tasks, **changes})


def owners(learner: RLLearner) -> list[np.ndarray]:
    """Owner of each weight of each hidden layer of the actor."""
    return [owner.copy() for owner in learner.strategy.state_dict()["owner"]]


def weights(learner: RLLearner) -> list[np.ndarray]:
    """The weights themselves."""
    return [linear(layer).weights.detach().numpy().ravel().copy() for layer in learner.networks[0].shared.values()]


# --- shares -------------------------------------------------------------------------------------------


def test_four_tasks_share_120_weights() -> None:
    # 30 of 120, 30 of 90, 30 of 60, all 30 of 30; of the first layer's 36 weights 9 each.
    learner = make(n_tasks=4, net_arch=[12, 10])
    actor = learner.networks[0]
    for task in tasks_of(learner):
        first, second = owners(learner)
        assert (first.size, second.size) == (36, 120)
        assert np.bincount(first + 1, minlength=5).tolist() == [27 - 9 * task, *[9] * (task + 1), *[0] * (3 - task)]
        assert np.bincount(second + 1, minlength=5).tolist() == [90 - 30 * task, *[30] * (task + 1), *[0] * (3 - task)]
        count = task + 1
        assert learner.strategy.usage(learner, actor) == [
            ConnectionUsage("actor.pi.trunk.0", (9,) * count, 9 * count, 36, 12, 0),
            ConnectionUsage("actor.pi.trunk.1", (30,) * count, 30 * count, 120, 10, 0),
            ConnectionUsage("actor.pi.heads", (40,) * count, 40 * count, 160, 16, 0),
        ]
    assert learner.strategy.usage(learner, learner.networks[1]) == learner.networks[1].usage(4)
    assert learner.strategy.memory() == {"owners": 2 * (36 + 120)}


def test_the_largest_are_kept_and_the_others_are_zero_until_the_next_task() -> None:
    learner, plain = make(steps=20), None
    for event in run_sequence(learner):
        if learner.task_steps == 20 and plain is None:
            plain = weights(learner)
            continue
        for own, owner, trained in zip(weights(learner), owners(learner), plain or [], strict=bool(plain)):
            kept = np.argsort(-np.abs(trained), kind="stable")[: round(trained.size / 3)]
            assert set(np.flatnonzero(owner == 0)) == set(kept)
            assert (own[owner == FREE] == 0).all()
            assert (own[owner == 0] != 0).all()
        if isinstance(event, TaskEnded):
            break
    assert plain is not None


def test_in_a_sparse_network_a_share_is_of_the_connections() -> None:
    learner = make(topology=REWIRING, steps=25)
    before = [layer.topology.flat.copy() for layer in learner.networks[0].shared.values()]
    critics = [layer.topology.flat.copy() for layer in learner.networks[1].shared.values()]
    for _ in tasks_of(learner):
        pass
    assert [np.bincount(owner).tolist() for owner in owners(learner)] == [[8, 8, 8], [43, 42, 43]]
    after = [layer.topology.flat for layer in learner.networks[0].shared.values()]
    assert_equal_trees(after, before)  # the actor's connections stay where they are
    moved = [layer.topology.flat for layer in learner.networks[1].shared.values()]
    assert not any(np.array_equal(now, then) for now, then in zip(moved, critics, strict=True))


# --- what may move ------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["reset", "kept"])
@pytest.mark.parametrize("topology", [DENSE, REWIRING], ids=["dense", "sparse"])
@pytest.mark.parametrize("algo", [DSSAC, DSTD3])
def test_training_moves_what_is_free_and_retraining_the_tasks_own(
    algo: type[Any], topology: Any, optimizer: str
) -> None:
    learner = make(algo=algo, topology=topology, weight_decay=0.1, border={"optimizer": optimizer})
    actor = learner.networks[0]
    for task in range(3):
        phases = {}
        began, began_parameters = weights(learner), parameters_of(learner.agent.actor)
        training = learner.train()
        for _ in range(15):
            next(training)
        phases["training"] = (began, weights(learner), [owner == FREE for owner in owners(learner)])
        for place, event in enumerate(training):
            assert event.consolidating
            if place == 0:
                pruned = weights(learner)
        if task < 2:
            assert place == RETRAIN - 1
            # Against the pruned weights: the first retraining update has moved them already, nothing else.
            phases["retraining"] = (pruned, weights(learner), [owner == task for owner in owners(learner)])
        for name, (before, after, may_move) in phases.items():
            for old, new, free in zip(before, after, may_move, strict=True):
                assert np.array_equal(old[~free], new[~free]), name
            moved = [(old != new)[free].any() for old, new, free in zip(before, after, may_move, strict=True)]
            # What the last task is left are few weights of a layer, which may all belong to neurons that never fire.
            assert all(moved) or (task == 2 and (topology is REWIRING or any(moved))), name
        now = parameters_of(learner.agent.actor)
        for parameter, value in now.items():
            moved = not torch.equal(value, began_parameters[parameter])
            if "trunk" in parameter and parameter.endswith("bias"):
                assert moved == (task == 0), parameter  # biases are the first task's
            if "heads" in parameter:
                assert moved == (f"heads.{task}." in parameter), parameter
        learner.finish_task()
    assert actor.has_heads


def test_retraining_begins_with_an_optimizer_without_a_past() -> None:
    learner = make(border={"optimizer": "kept"})
    training = learner.train()
    for _ in range(15):
        next(training)
    assert {float(own["step"]) for own in learner.agent.actor.optimizer.state.values()} == {5.0}
    next(training)
    assert {float(own["step"]) for own in learner.agent.actor.optimizer.state.values()} == {1.0}
    assert {float(own["step"]) for own in learner.agent.critic.optimizer.state.values()} == {6.0}


@pytest.mark.parametrize("retrain", [0, 3])
def test_each_task_but_the_last_is_retrained(retrain: int) -> None:
    learner = make(retrain)
    updates = [event for event in run_sequence(learner) if isinstance(event, Progress) and event.consolidating]
    found = [sum(event.task == task for event in updates) for task in range(3)]
    assert found == [retrain, retrain, 0]
    assert learner.agent._n_updates == 3 * 5 + 2 * retrain
    assert learner.steps == 45
    assert all((owner != FREE).all() for owner in owners(learner))


# --- old answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("retrain", [0, RETRAIN])
@pytest.mark.parametrize("topology", [DENSE, REWIRING], ids=["dense", "sparse"])
@pytest.mark.parametrize("algo", [DSSAC, DSTD3])
@pytest.mark.parametrize("border", [{"critic": "reset"}, {"buffer": "kept"}], ids=["critic reset", "buffer kept"])
def test_old_tasks_are_answered_bit_for_bit(
    border: dict[str, str], algo: type[Any], topology: Any, retrain: int
) -> None:
    learner = make(retrain, algo=algo, topology=topology, weight_decay=0.1, steps=20, border=border)
    learned: list[np.ndarray] = []
    for event in run_sequence(learner):
        for task, then in enumerate(learned):  # at every step, not at the end alone
            np.testing.assert_array_equal(answers(learner, task), then)
        if isinstance(event, TaskEnded):
            learned.append(answers(learner, event.task))
    assert len(learned) == 3
    assert not any(np.allclose(learned[one], learned[other], atol=1e-3) for one, other in ((0, 1), (1, 2), (0, 2)))


def test_a_task_that_is_being_learned_is_answered_by_all_there_is() -> None:
    learner = make(0)
    list(learner.train())
    whole = learner.networks[0].of_task(0)
    assert learner.strategy.network_for_task(learner, 0) is whole
    assert learner.strategy.network_for_task(learner, 2) is learner.networks[0].of_task(2)
    then = answers(learner, 0)
    learner.finish_task()
    np.testing.assert_allclose(answers(learner, 0), then, rtol=1e-5, atol=1e-6)  # what was pruned is 0
    view = learner.strategy.network_for_task(learner, 0)
    assert [layer.nnz for layer in list(view)[:-1]] == [16, 85]
    assert view[-1] is whole[-1]


@pytest.mark.parametrize("task_id", ["hidden", "visible"])
def test_a_visible_id_changes_nothing_for_old_tasks(task_id: str) -> None:
    learner = make(border={"task_id": task_id})
    learn_tasks(learner, 1)
    then = answers(learner, 0)
    learn_tasks(learner, 2)
    np.testing.assert_array_equal(answers(learner, 0), then)


# --- bad input ----------------------------------------------------------------------------------------


def test_a_layer_with_fewer_weights_than_tasks_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^layer actor.pi.trunk.1 has 2 weights for 3 tasks$"):
        make(net_arch=[2, 1])


def test_retraining_is_as_long_as_in_continual_world() -> None:
    assert PackNetOptions().of_kind("agent").retrain_updates == 100_000
