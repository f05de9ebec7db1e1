"""clonex: what is kept, the divergence by hand, the gradient against the formula, and whom it refuses."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.noise import NormalActionNoise
from support.rl_learners import (
    BATCH,
    DENSE,
    OPTIONS,
    REWIRING,
    answers,
    batches_of_growth,
    learn_tasks,
    make_learner,
    tasks_of,
)
from support.trees import assert_equal_trees

from sparserl.agents import DSSAC, DSTD3, DSTQC
from sparserl.continual.learner import Group
from sparserl.continual.rl.learner import RLLearner
from sparserl.continual.strategies.clonex import ClonEx, ClonExOptions, gaussian_divergence
from sparserl.errors import ConfigError
from sparserl.topology.config import TopologyConfig


def clonex(states: int = 9, strength: float = 10.0, **changes: Any) -> RLLearner:
    options = replace(OPTIONS, clonex=ClonExOptions(states_per_task=states, batch_size=6, strength=strength))
    return make_learner("clonex", options=options, **changes)


def kept(learner: RLLearner) -> dict[str, np.ndarray]:
    own: dict[str, np.ndarray] = learner.strategy.state_dict()["kept"]
    return own


# --- the divergence -----------------------------------------------------------------------------------


def test_by_hand() -> None:
    # One action, standard deviations 1 and 2, means 0 and 1: log 2 + (1 + 1) / 8 - 1/2; and of equal ones 0.
    targets = torch.tensor([[0.0, 0.0], [3.0, -1.0]], dtype=torch.float64)
    outputs = torch.tensor([[1.0, math.log(2.0)], [3.0, -1.0]], dtype=torch.float64)
    divergence = gaussian_divergence(targets, outputs).item()
    assert divergence == pytest.approx((math.log(2.0) + 2.0 / 8.0 - 0.5) / 2, rel=1e-5)


def test_it_is_torchs_and_of_several_actions_the_sum() -> None:
    rng = np.random.default_rng(0)
    targets, outputs = (torch.from_numpy(rng.uniform(-1.5, 1.5, (5, 6))) for _ in range(2))
    first, second = (torch.distributions.Normal(one[:, :3], one[:, 3:].exp()) for one in (targets, outputs))
    expected = torch.distributions.kl_divergence(first, second).sum(dim=1).mean()
    assert gaussian_divergence(targets, outputs).item() == pytest.approx(expected.item(), rel=1e-4)


def test_a_standard_deviation_beyond_what_acts_counts_as_the_clipped_one_and_does_not_move() -> None:
    targets = torch.tensor([[0.0, 5.0]])
    outputs = torch.tensor([[0.0, 3.0]], requires_grad=True)
    divergence = gaussian_divergence(targets, outputs)
    divergence.backward()
    assert divergence.item() == pytest.approx(0.0, abs=1e-6)
    assert outputs.grad is not None
    assert outputs.grad[0, 1].item() == 0.0


# --- what is kept -------------------------------------------------------------------------------------


@pytest.mark.parametrize("buffer", ["emptied", "kept"])
def test_observations_of_each_task_are_kept_with_what_the_actor_says_of_them(buffer: str) -> None:
    learner = clonex(steps=(20, 15, 18), border={"buffer": buffer})
    assert kept(learner) == {}
    assert learner.strategy.memory() == {"observations and outputs": 0}
    before = np.empty((0, 4), np.float32)
    for task in range(3):
        list(learner.train())
        stored = learner.agent.transitions(learner.latest(np.arange(learner.task_steps))).observations
        learner.finish_task()
        observations, outputs = kept(learner)["observations"], kept(learner)["outputs"]
        assert observations[:, 0].tolist() == [float(of) for of in range(task + 1) for _ in range(9)]
        rows = [np.flatnonzero((stored == row).all(axis=1)).tolist() for row in observations[-9:]]
        assert len({row for (row,) in rows}) == 9  # without replacement
        np.testing.assert_array_equal(outputs[:-9], before)  # those of earlier tasks stay
        with torch.no_grad():
            features = torch.from_numpy(observations[-9:, :3].copy())
            said = learner.networks[0].of_task(task)(features).numpy()
        np.testing.assert_allclose(outputs[-9:], said, rtol=1e-5, atol=1e-6)
        before = outputs
        assert learner.strategy.memory() == {"observations and outputs": observations.nbytes + outputs.nbytes}
        assert learner.strategy.numbers_kept() == 9 * (task + 1) * (3 + 3 + 4)  # features, task id, outputs


# --- the gradient -------------------------------------------------------------------------------------


def gradients(group: Group) -> list[np.ndarray]:
    parameters = group.module.parameters()
    return [np.zeros(tuple(one.shape)) if one.grad is None else one.grad.double().numpy().copy() for one in parameters]


@pytest.mark.parametrize("topology", [DENSE, REWIRING], ids=["dense", "sparse"])
@pytest.mark.parametrize("algo", [DSSAC, DSTQC])
def test_a_step_of_the_actor_goes_down_the_divergence_as_well(
    algo: type[Any], topology: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = clonex(algo=algo, topology=topology, steps=(15, 15, 20))
    strategy, drawn = learner.strategy, []
    assert isinstance(strategy, ClonEx)
    learn_tasks(learner, 2)
    draw, before_step, compared = strategy.kept.draw, strategy.before_step, []

    def drawing(size: int) -> dict[str, np.ndarray]:
        drawn.append(draw(size))
        return drawn[-1]

    def checked(own: RLLearner, group: Group) -> None:
        before, count = gradients(group), len(drawn)
        before_step(own, group)
        added = [after - one for after, one in zip(gradients(group), before, strict=True)]
        if group.name != "actor":
            assert len(drawn) == count
            assert not any(one.any() for one in added)
            return
        observations, targets = drawn[-1]["observations"], torch.from_numpy(drawn[-1]["outputs"])
        tasks = observations[:, 0].astype(int)
        said = torch.stack(
            [
                group.networks[0].of_task(task)(torch.from_numpy(row[None, :3].copy()))[0]
                for task, row in zip(tasks, observations, strict=True)
            ]
        )
        loss = 10.0 * gaussian_divergence(targets, said)
        expected = torch.autograd.grad(loss, list(group.module.parameters()), allow_unused=True)
        for one, right in zip(added, expected, strict=True):
            wanted = np.zeros_like(one) if right is None else right.double().numpy()
            np.testing.assert_allclose(one, wanted, rtol=1e-3, atol=1e-4 * max(1.0, np.abs(wanted).max()))
        compared.append(tasks)

    monkeypatch.setattr(strategy.kept, "draw", drawing)
    monkeypatch.setattr(strategy, "before_step", checked)
    list(learner.train())
    assert len(compared) == 10
    assert all(len(tasks) == 6 for tasks in compared)
    assert set(np.concatenate(compared)) == {0, 1}


def test_growth_by_gradient_sees_the_task_alone() -> None:
    topology = TopologyConfig(
        method="rigl", density=0.5, output_layer="dense", update_interval=3, first_update=3, last_update=50
    )
    learner = clonex(topology=topology, steps=(15, 15))
    learn_tasks(learner, 1)
    assert batches_of_growth(learner) == {(BATCH,)}


def test_an_earlier_policy_stays_where_fine_tuning_loses_it() -> None:
    def moved(strength: float) -> float:
        """How far the first task's actions are from those after it, once the second is learned."""
        learner = clonex(states=100, strength=strength, steps=(40, 60), learning_rate=1e-2)
        learn_tasks(learner, 1)
        before = answers(learner, 0)
        learn_tasks(learner, 1)
        return float(np.abs(answers(learner, 0) - before).mean())

    assert moved(10.0) < 0.5 * moved(0.0)


# --- the rest -----------------------------------------------------------------------------------------


def test_a_memory_survives_in_a_state() -> None:
    learner, other = clonex(), clonex()
    learn_tasks(learner, 2)
    state = learner.strategy.state_dict()
    other.strategy.load_state_dict({**state, "kept": {name: torch.from_numpy(a) for name, a in state["kept"].items()}})
    assert_equal_trees(other.strategy.state_dict(), state)
    assert state["drawn"] == 20


def test_an_agent_without_a_distribution_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"^clonex clones the distribution of actions, and DSTD3 has none: use --algo"
    ):
        clonex(algo=DSTD3, action_noise=NormalActionNoise(np.zeros(2), np.full(2, 0.1)))


def test_tqc_learns_with_it() -> None:
    learner = clonex(algo=DSTQC, steps=(15, 15))
    assert list(tasks_of(learner)) == [0, 1]
