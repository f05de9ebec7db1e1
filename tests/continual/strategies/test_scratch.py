"""The single-task reference: everything begins anew, finished tasks are answered for good, and nothing else notices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.rl_learners import DENSE, REWIRING, answers, learn_tasks, make_learner, parameters_of
from support.trees import assert_equal_trees

from sparserl.agents import DSSAC, DSTD3
from sparserl.agents.agent_state import generator_state
from sparserl.continual.rl.learner import RLLearner
from sparserl.continual.strategies.anew import Scratch
from sparserl.continual.supervised.runner import TaskEnded, run_sequence
from sparserl.experiment.resolving import resolve


@pytest.mark.parametrize("topology", [DENSE, REWIRING], ids=["dense", "sparse"])
@pytest.mark.parametrize("algo", [DSSAC, DSTD3])
def test_a_later_task_begins_with_a_fresh_agent(algo: type[Any], topology: Any) -> None:
    learner = make_learner("scratch", algo=algo, topology=topology, steps=(20, 20, 20))
    first = parameters_of(learner.agent.policy)
    began = [first]
    for task in range(1, 3):
        learn_tasks(learner, 1)
        trained = parameters_of(learner.agent.policy)
        next(learner.train())
        now = parameters_of(learner.agent.policy)
        began.append(now)
        for name, value in now.items():
            if "weight" in name or "values" in name:
                assert value.shape != trained[name].shape or not torch.isclose(value, trained[name]).any(), name
                assert not torch.isclose(value, began[task - 1][name]).any(), name
        agent = learner.agent
        assert agent._n_updates == 0
        assert agent.evolver.update == 0
        assert agent.replay_buffer.size() == 1
        assert learner.emptied_at == 20 * task
        for optimizer in (agent.actor.optimizer, agent.critic.optimizer, getattr(agent, "ent_coef_optimizer", None)):
            assert optimizer is None or not optimizer.state
        if algo is DSSAC:
            assert agent.log_ent_coef.item() == 0.0
        # The targets are copies, as at the start of a run.
        assert_equal_trees(parameters_of(agent.critic_target), parameters_of(agent.critic))
        list(learner.train())


def test_a_fresh_agent_is_the_one_that_it_was_told_to_make() -> None:
    seeds: list[int] = []
    closed: list[bool] = []
    learner = make_learner("scratch", steps=(20, 20))
    make = learner.fresh_agent

    def noted(seed: int) -> Any:
        seeds.append(seed)
        fresh = make(seed)
        fresh.env.close = lambda: closed.append(True)
        return fresh

    learner.fresh_agent = noted
    learn_tasks(learner, 1)
    next(learner.train())
    assert len(seeds) == len(closed) == 1
    fresh = make(seeds[0])
    assert_equal_trees(dict(learner.agent.policy.state_dict()), dict(fresh.policy.state_dict()))
    own, others = (agent.evolver.state_dict() for agent in (learner.agent, fresh))
    assert_equal_trees(own["generators"], others["generators"])


def test_a_task_is_learned_with_a_clock_of_its_own() -> None:
    learner = make_learner("scratch", steps=(20, 20))
    for task in range(2):
        learner.agent.evolver.events.clear()
        list(learner.train())
        updates = [event.update for event in learner.agent.evolver.events if event.layer == "actor.pi.trunk.1"]
        assert [update for update in updates if update] == [3, 9], task
        assert learner.agent._n_updates == 10
        learner.finish_task()


@pytest.mark.parametrize("algo", [DSSAC, DSTD3])
def test_finished_tasks_are_answered_bit_for_bit(algo: type[Any]) -> None:
    learner = make_learner("scratch", algo=algo, weight_decay=0.1)
    learned: list[np.ndarray] = []
    for event in run_sequence(learner):
        for task, then in enumerate(learned):
            np.testing.assert_array_equal(answers(learner, task), then)
        if isinstance(event, TaskEnded):
            before = answers(learner, event.task)
            np.testing.assert_array_equal(before, learner_answer(learner, event.task))
            learned.append(before)
    assert len(learned) == 3
    size = sum(tensor.nbytes for tensor in learner.networks[0].of_task(0).state_dict().values())
    assert learner.strategy.memory() == {"actors": 3 * size}


def learner_answer(learner: RLLearner, task: int) -> np.ndarray:
    """Of the network that has just learned a task, not of its copy."""
    copies = learner.strategy
    assert isinstance(copies, Scratch)
    own, copies._learned = copies._learned, []
    answer = answers(learner, task)
    copies._learned = own
    return answer


def test_copies_survive_in_a_state() -> None:
    learner, other = make_learner("scratch"), make_learner("scratch", seed=3)
    learn_tasks(learner, 2)
    other.strategy.load_state_dict(learner.strategy.state_dict())
    for task in range(2):
        np.testing.assert_array_equal(answers(other, task), answers(learner, task))
    assert not np.array_equal(answers(other, 2), answers(learner, 2))


def test_what_training_draws_is_not_disturbed() -> None:
    # As much is drawn at a border as by a learner that goes on.
    generators = []
    for method in ("scratch", "finetune"):
        learner = make_learner(method, steps=(20, 20))
        learn_tasks(learner, 1)
        before = generator_state()
        next(learner.train())
        generators.append([before, generator_state()])
    assert_equal_trees(*generators)


def test_random_actions_of_each_task_are_those_of_a_run_of_its_own(tmp_path: Path) -> None:
    sequence = tmp_path / "sequence.yaml"
    sequence.write_text("tasks:\n" + "- {env: CartPole-v1, steps: 60}\n" * 3)
    agent = {"learning_starts": 20, "net_arch": [8], "batch_size": 4, "exploration_fraction": 0.5}
    wish = {"sequence": str(sequence), "method": "scratch", "algo": "ds_dqn", "agent": agent}
    config: Any = resolve("continual", wish)
    learner = config.make_learner(config.load_sequence())
    rates = []
    for _ in range(3):
        rates.append([learner.agent.exploration_rate for _ in learner.train()])
        assert learner.agent._n_calls == 60
        learner.finish_task()
    assert rates[0] == rates[1] == rates[2]
    falling = 1.0 - 0.95 * np.arange(1, 61) / 30.0
    assert rates[0] == pytest.approx(np.maximum(falling, 0.05))
