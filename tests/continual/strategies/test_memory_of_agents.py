"""agem and replay for agents: what is kept, what a step may not do, and what a batch is made of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from support.rl_learners import BATCH, DENSE, OPTIONS, REWIRING, batches_of_growth, learn_tasks, make_learner, tasks_of
from support.trees import assert_equal_trees

from sparserl.agents import DSSAC, DSTD3
from sparserl.agents import sparse_off_policy as agent_module
from sparserl.continual.learner import Group
from sparserl.continual.rl.learner import RLLearner
from sparserl.continual.strategies.memory import AGEM, AGEMOptions
from sparserl.errors import ConfigError
from sparserl.topology.config import TopologyConfig

COLUMNS = ("observations", "actions", "next_observations", "dones", "rewards")


def agem(transitions: int = 9, **changes: Any) -> RLLearner:
    options = replace(OPTIONS, agem=AGEMOptions(transitions_per_task=transitions, batch_size=6))
    return make_learner("agem", options=options, **changes)


def kept(learner: RLLearner) -> dict[str, np.ndarray]:
    own: dict[str, np.ndarray] = learner.strategy.state_dict()["kept"]
    return own


# --- agem: what is kept -------------------------------------------------------------------------------


@pytest.mark.parametrize("buffer", ["emptied", "kept"])
def test_transitions_of_each_task_are_kept_once(buffer: str) -> None:
    learner = agem(steps=(20, 15, 18), border={"buffer": buffer}, terminates=True)
    assert kept(learner) == {}
    assert learner.strategy.memory() == {"transitions": 0}
    stored = []
    for task in range(3):
        list(learner.train())
        rows = learner.latest(np.arange(learner.task_steps))
        batch = learner.agent.transitions(rows)
        stored.append(np.hstack([getattr(batch, name) for name in COLUMNS]))
        learner.finish_task()
        memory = kept(learner)
        assert set(memory) == set(COLUMNS)
        assert memory["observations"][:, 0].tolist() == [float(of) for of in range(task + 1) for _ in range(9)]
        own = np.hstack([memory[name] for name in COLUMNS])
        assert learner.strategy.memory() == {"transitions": own.nbytes}
        for of, rows_of_task in enumerate(np.split(own, task + 1)):
            places = [np.flatnonzero((stored[of] == row).all(axis=1)).tolist() for row in rows_of_task]
            assert all(len(place) == 1 for place in places)
            assert len({place for (place,) in places}) == 9  # without replacement
            assert sorted(places) != [[place] for place in range(9)]  # nor simply the newest or oldest
    assert memory["dones"].any()


def test_of_a_short_task_all_transitions_are_kept() -> None:
    learner = agem(transitions=100, steps=(20, 15))
    for _ in tasks_of(learner):
        pass
    observations = kept(learner)["observations"]
    assert np.bincount(observations[:, 0].astype(int)).tolist() == [20, 15]
    assert len(np.unique(observations, axis=0)) == 35


def test_of_a_buffer_that_is_smaller_than_a_task_what_it_holds() -> None:
    learner = agem(transitions=100, steps=(40, 15), buffer_size=25)
    learn_tasks(learner, 1)
    assert len(np.unique(kept(learner)["observations"], axis=0)) == 25


# --- agem: what a step may not do ---------------------------------------------------------------------


def flat(network: torch.nn.Module) -> np.ndarray:
    """The gradient as one vector, zeros where there is none."""
    parts = [torch.zeros_like(one) if one.grad is None else one.grad for one in network.parameters()]
    return torch.cat([part.flatten() for part in parts]).double().numpy().copy()


@pytest.mark.parametrize("heads", ["task", "shared"])
@pytest.mark.parametrize("topology", [DENSE, REWIRING], ids=["dense", "sparse"])
@pytest.mark.parametrize("algo", [DSSAC, DSTD3])
def test_the_gradient_is_projected_by_the_formula(
    algo: type[Any], topology: Any, heads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = agem(algo=algo, topology=topology, border={"heads": heads}, steps=(15, 30, 15))
    agent, strategy = learner.agent, learner.strategy
    seen: list[tuple[str, np.ndarray, np.ndarray, np.ndarray]] = []
    batches: list[Any] = []
    references: list[np.ndarray] = []
    form, before_step = agent.form_gradients, strategy.before_step

    def formed(group: str, batch: Any) -> None:
        form(group, batch)
        batches.append(batch)
        references.append(flat(getattr(agent, group)))

    def projected(own: RLLearner, group: Group) -> None:
        gradient = flat(group.module)
        before_step(own, group)
        if references:
            seen.append((group.name, gradient, references.pop(), flat(group.module)))

    agent.form_gradients = formed
    monkeypatch.setattr(strategy, "before_step", projected)
    learn_tasks(learner, 1)
    assert not batches
    kept(learner)["rewards"][:] = 5.0  # those of the task are negative, so its values sink where these must rise
    learn_tasks(learner, 1)
    steps = 20 if algo is DSSAC else 10  # actors of TD3 step half as often
    assert [group for group, *_ in seen].count("actor") == steps
    assert [group for group, *_ in seen].count("critic") == 20
    against = 0
    for _, gradient, reference, result in seen:
        product = gradient @ reference
        expected = gradient - min(0.0, product) / (reference @ reference) * reference
        np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-5 * np.abs(gradient).max())
        assert result @ reference > -1e-3 * np.linalg.norm(result) * np.linalg.norm(reference)
        against += product < 0
    assert 3 < against < len(seen) - 3
    memory = np.hstack([kept(learner)[name] for name in COLUMNS])[:9]
    drawn = [np.hstack([getattr(batch, name) for name in COLUMNS]) for batch in batches]
    assert all(batch.shape[0] == 6 for batch in drawn)
    assert all((memory == row).all(axis=1).any() for batch in drawn for row in batch)
    assert all((batch[:, 0] == 0).all() for batch in drawn)
    assert not np.array_equal(drawn[0], drawn[1])
    assert all(batch.discounts == np.float32(agent.gamma) for batch in batches)


def test_all_tasks_are_drawn_from() -> None:
    learner = agem(steps=(15, 15, 30))
    learn_tasks(learner, 2)
    drawn = []
    form = learner.agent.form_gradients

    def formed(group: str, batch: Any) -> None:
        drawn.append(batch.observations[:, 0])
        form(group, batch)

    learner.agent.form_gradients = formed
    list(learner.train())
    share = np.mean(np.concatenate(drawn))
    assert set(np.concatenate(drawn)) == {0.0, 1.0}
    assert 0.35 < share < 0.65


def test_a_memory_survives_in_a_state() -> None:
    learner, other = agem(), agem()
    learn_tasks(learner, 2)
    state = learner.strategy.state_dict()
    other.strategy.load_state_dict({**state, "kept": {name: torch.from_numpy(a) for name, a in state["kept"].items()}})
    assert_equal_trees(other.strategy.state_dict(), state)
    assert all(isinstance(array, np.ndarray) for array in kept(other).values())
    assert isinstance(other.strategy, AGEM)
    assert state["drawn"] == 40  # two steps an update


def test_growth_by_gradient_sees_the_task_alone() -> None:
    # The pass over the memory must not count among those that say where connections grow.
    topology = TopologyConfig(
        method="rigl", density=0.5, output_layer="dense", update_interval=3, first_update=3, last_update=50
    )
    learner = agem(topology=topology, steps=(15, 15))
    learn_tasks(learner, 1)
    assert batches_of_growth(learner) == {(BATCH,)}


# --- replay -------------------------------------------------------------------------------------------


def test_a_batch_is_larger_and_of_all_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = make_learner("replay", steps=(20, 20, 20))
    drawn, sample = [], agent_module.sample

    def sampled(*args: Any) -> Any:
        batch = sample(*args)
        drawn.append(np.array(batch.observations))  # a copy: the next update takes the same memory
        return batch

    monkeypatch.setattr(agent_module, "sample", sampled)
    for _ in tasks_of(learner):
        pass
    assert learner.agent.batch_size == 2 * BATCH
    assert {observations.shape[0] for observations in drawn} == {2 * BATCH}
    assert len(drawn) == 10 + 20 + 20  # with a buffer that is kept, updates go on
    last = np.concatenate([observations[:, 0] for observations in drawn[-10:]])
    assert (np.bincount(last.astype(int)) > 0.2 * len(last)).all()
    assert learner.agent.replay_buffer.size() == 60
    assert learner.strategy.memory() == {}


def test_a_buffer_that_is_emptied_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^replay trains on earlier tasks again: use --border.buffer kept$"):
        make_learner("replay", border={"buffer": "emptied"})


def test_a_buffer_that_is_too_small_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^replay keeps all 90 transitions, and agent.buffer-size is 89$"):
        make_learner("replay", buffer_size=89)
    make_learner("replay", buffer_size=90)


@pytest.mark.parametrize("algo", [DSSAC, DSTD3])
def test_a_head_that_takes_no_part_in_a_step_of_agem_is_not_moved(algo: type[Any]) -> None:
    """Neither by weight decay nor by moments; that of the task to come is read by nobody yet."""
    learner = agem(algo=algo, weight_decay=0.1, border={"optimizer": "kept"})
    learn_tasks(learner, 1)

    def heads_of_the_last_task() -> dict[str, torch.Tensor]:
        parameters = {
            f"{group} {name}": parameter.detach().clone()
            for group, network in learner.agent.networks.items()
            for name, parameter in network.named_parameters()
            if "heads.2." in name
        }
        assert len(parameters) > 2
        return parameters

    before = heads_of_the_last_task()
    list(learner.train())
    assert_equal_trees(heads_of_the_last_task(), before)
