"""Steps, borders and the end of a task by their tape; heads; and a state that goes on from anywhere."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.noise import NormalActionNoise
from support.rl_learners import (
    DENSE,
    LEARNING_STARTS,
    N_OBS,
    REWIRING,
    answers,
    learn_tasks,
    make_learner,
    parameters_of,
    tasks_of,
    whole_state,
)
from support.trees import assert_equal_trees

from sparserl.agents import DSSAC, DSTD3
from sparserl.agents.agent_state import generator_state
from sparserl.continual.rl.learner import Progress, RLLearner
from sparserl.continual.supervised.runner import SequenceStarted, TaskEnded, run_sequence
from sparserl.envs import SequenceEnv
from sparserl.errors import ConfigError
from sparserl.recording import checkpoint
from sparserl.topology.config import TopologyConfig

STEPS = 16
NOISE = {"action_noise": NormalActionNoise(np.zeros(2), np.full(2, 0.1))}

# --- what a step and a border are ---------------------------------------------------------------------


def test_events_count_steps_and_end_tasks() -> None:
    learner = make_learner(steps=(15, 12, 20))
    events = list(run_sequence(learner))
    expected: list[Any] = [SequenceStarted()]
    for task, steps in enumerate((15, 12, 20)):
        expected += [Progress(task, False)] * steps + [TaskEnded(task)]
    assert events == expected
    assert learner.steps == learner.total_steps == learner.agent._total_timesteps == 47
    assert (learner.task, learner.task_steps) == (3, 0)


@pytest.mark.parametrize("terminates", [False, True])
@pytest.mark.parametrize("algo", [DSSAC, DSTD3])
def test_the_buffer_holds_no_false_terminal_and_nothing_of_the_next_task(algo: type[Any], terminates: bool) -> None:
    learner = make_learner(algo=algo, steps=(15, 14, 20), border={"buffer": "kept"}, terminates=terminates)
    for _ in tasks_of(learner):
        pass
    buffer = learner.agent.replay_buffer
    assert buffer.size() == 49
    task_of = np.repeat([0, 1, 2], (15, 14, 20))
    for name in ("observations", "next_observations"):
        stored = getattr(buffer, name)[:49, 0]
        np.testing.assert_array_equal(stored[:, 0], task_of)  # the mark of the task itself
        np.testing.assert_array_equal(stored[:, N_OBS:], np.eye(3)[task_of])  # the id
    # Episodes of 7 steps begin anew with each task; the second one's border is the end of an episode as well.
    ends = {6, 13, 21, 28, 35, 42}
    assert set(np.flatnonzero(buffer.dones[:, 0])) == {*ends, 14, 48}  # and the two borders within one
    terminals = np.flatnonzero((buffer.dones * (1 - buffer.timeouts))[:, 0])
    assert set(terminals) == (ends if terminates else set())
    drawn = learner.agent.transitions(np.arange(49))
    assert set(np.flatnonzero(drawn.dones)) == set(terminals)
    # Within a task an episode's observations follow each other; across a border nothing does.
    follows = (buffer.observations[1:49, 0, :N_OBS] == buffer.next_observations[:48, 0, :N_OBS]).all(axis=1)
    assert set(np.flatnonzero(~follows)) == {*ends, 14}


@pytest.mark.parametrize(("option", "sizes"), [("emptied", [15, 12, 20]), ("kept", [15, 27, 47])])
def test_the_buffer_is_emptied_or_kept(option: str, sizes: list[int]) -> None:
    learner = make_learner(steps=(15, 12, 20), border={"buffer": option})
    found, emptied = [], []
    for _ in range(3):
        list(learner.train())
        found.append(learner.agent.replay_buffer.size())
        emptied.append(learner.emptied_at)
        learner.finish_task()
        assert learner.agent.replay_buffer.size() == found[-1]  # it is there when a task is evaluated
    assert found == sizes
    assert emptied == ([0, 15, 27] if option == "emptied" else [0, 0, 0])


def policy_steps(learner: RLLearner) -> list[int]:
    """Env steps, counted from 1, whose action the policy chose."""
    chosen, predict = [], learner.agent.predict

    def counted(*args: Any, **kwargs: Any) -> Any:
        chosen.append(learner.steps + 1)
        return predict(*args, **kwargs)

    learner.agent.predict = counted
    for _ in tasks_of(learner):
        pass
    return chosen


@pytest.mark.parametrize("buffer", ["emptied", "kept"])
@pytest.mark.parametrize("exploration", ["random", "policy"])
def test_each_task_or_the_first_begins_with_random_actions(exploration: str, buffer: str) -> None:
    learner = make_learner(steps=(15, 12, 20), border={"exploration": exploration, "buffer": buffer})
    assert LEARNING_STARTS == 10
    later = [*range(26, 28), *range(38, 48)] if exploration == "random" else range(16, 48)
    assert policy_steps(learner) == [*range(11, 16), *later]


@pytest.mark.parametrize("exploration", ["random", "policy"])
@pytest.mark.parametrize(
    ("buffer", "first_updates"), [("emptied", [11, 26, 38]), ("kept", [11, 16, 28])], ids=["emptied", "kept"]
)
def test_updates_wait_for_transitions_of_an_emptied_buffer(
    buffer: str, first_updates: list[int], exploration: str
) -> None:
    learner = make_learner(steps=(15, 12, 20), border={"exploration": exploration, "buffer": buffer})
    updates = {}  # after which env step how many
    for event in run_sequence(learner):
        if isinstance(event, Progress):
            updates[learner.steps] = learner.agent._n_updates
    made = [step for step in range(2, 48) if updates[step] > updates[step - 1]]
    ends = (15, 27, 47)
    assert made == [step for first, end in zip(first_updates, ends, strict=True) for step in range(first, end + 1)]
    assert updates[47] == len(made) == sum(end + 1 - first for first, end in zip(first_updates, ends, strict=True))


@pytest.mark.parametrize(("gradient_steps", "updates"), [(3, 3 * 10), (-1, 10)])
def test_updates_per_step_are_the_agents(gradient_steps: int, updates: int) -> None:
    learner = make_learner(steps=(20, 20), gradient_steps=gradient_steps)
    list(learner.train())
    assert learner.agent._n_updates == updates


def test_episodes_at_a_border_are_cut_and_the_next_one_is_a_reset_away() -> None:
    learner = make_learner(steps=(12, 12))
    learn_tasks(learner, 1)
    env = learner.agent.env.envs[0].unwrapped
    assert isinstance(env, SequenceEnv)
    assert (env.task, env.task_steps) == (1, 0)
    assert learner.agent._last_obs[0, 0] == 1
    assert [episode["l"] for episode in learner.agent.ep_info_buffer] == [7, 5]


# --- a task that is too short -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "border", "named"),
    [
        ((10, 20), {}, "task 0 (number 0) ends after 10 steps"),
        ((20, 10, 20), {}, "task 1 (number 1) ends after 10 steps"),
        ((20, 5), {"buffer": "kept"}, "task 1 (number 1) ends after 5 steps"),  # all of it random
        ((20, 5), {"exploration": "policy"}, "task 1 (number 1) ends after 5 steps"),  # waits for transitions
        ((5, 20), {"buffer": "kept", "exploration": "policy"}, "task 0 (number 0) ends after 5 steps"),
    ],
)
def test_a_task_that_ends_before_learning_starts_is_refused(
    steps: tuple[int, ...], border: dict[str, str], named: str
) -> None:
    with pytest.raises(ConfigError) as refusal:
        make_learner(steps=steps, border=border)
    assert str(refusal.value) == f"{named}, before learning starts: agent.learning-starts is 10"


def test_a_short_task_that_waits_for_nothing_is_learned() -> None:
    learner = make_learner(steps=(20, 5, 11), border={"buffer": "kept", "exploration": "policy"})
    found = [learner.agent._n_updates for _ in tasks_of(learner)]
    assert found == [10, 15, 26]


@pytest.mark.parametrize("method", ["rigl", "set", "gmp"])
def test_output_layers_that_would_be_rewired_while_others_learn_are_refused(method: str) -> None:
    topology = TopologyConfig(method=method, density=0.5, output_layer="sparse", first_update=1, last_update=60)
    with pytest.raises(ConfigError) as refusal:
        make_learner(topology=topology)
    assert str(refusal.value) == (
        f"topology method '{method}' would rewire output layers of tasks that are not being learned: "
        "use --topology.output-layer dense, or --border.heads shared"
    )
    for fits in ({"border": {"heads": "shared"}}, {"topology": replace(topology, output_layer="dense")}):
        make_learner(**{"topology": topology, **fits})
    learn_tasks(make_learner(topology=TopologyConfig(method="static", density=0.5, output_layer="sparse")), 2)


# --- borders within a run -----------------------------------------------------------------------------


def at_the_border(**border: str) -> tuple[RLLearner, dict[str, Any], dict[str, Any]]:
    """A learner one step into its second task, and its state before and after."""
    learner = make_learner(steps=(20, 20), border=border)
    learn_tasks(learner, 1)
    before = whole_state(learner)
    next(learner.train())
    return learner, before, whole_state(learner)


def test_options_are_carried_out_before_the_first_step_of_a_later_task() -> None:
    learner, before, after = at_the_border(critic="reset")
    modules, earlier = after["agent"]["modules"], before["agent"]["modules"]
    assert all(modules[name]["state"] == {} for name in ("actor.optimizer", "critic.optimizer", "ent_coef_optimizer"))
    assert all(earlier[name]["state"] for name in ("actor.optimizer", "critic.optimizer", "ent_coef_optimizer"))
    policy, then = modules["policy"], earlier["policy"]
    moved = {name.partition(".")[0] for name in policy if not torch.equal(policy[name], then[name])}
    assert moved == {"critic", "critic_target"}
    assert learner.agent.log_ent_coef.item() == 0.0
    assert learner.agent.replay_buffer.size() == 1


def test_nothing_happens_before_the_first_task() -> None:
    learner, alone = make_learner(border={"critic": "reset"}), make_learner()
    next(learner.train())
    assert_equal_trees(parameters_of(learner.agent.policy), parameters_of(alone.agent.policy))


def test_what_a_border_draws_is_not_drawn_from_the_generators_of_training() -> None:
    generators = []
    for critic in ("kept", "reset"):
        _, before, after = at_the_border(critic=critic)
        generators.append((before["agent"]["generators"], after["agent"]["generators"]))
    assert_equal_trees(*generators)


def test_what_a_border_draws_repeats_and_depends_on_the_task() -> None:
    drawn = []
    for _ in range(2):
        learner = make_learner(border={"critic": "reset"}, steps=(12, 12, 12), learning_rate=1e-30)
        for _ in range(2):
            learn_tasks(learner, 1)
            next(learner.train())
            drawn.append(learner.agent.critic.qf0.trunk[0].values.detach().clone())
            list(learner.train())
        torch.rand(5)
    assert torch.equal(drawn[0], drawn[2])
    assert torch.equal(drawn[1], drawn[3])
    assert not torch.isclose(drawn[0], drawn[1]).any()


@pytest.mark.parametrize("optimizer", ["reset", "kept"])
@pytest.mark.parametrize("topology", [DENSE, REWIRING], ids=["dense", "sparse"])
@pytest.mark.parametrize("algo", [DSSAC, DSTD3])
def test_heads_of_other_tasks_stay_bit_for_bit(algo: type[Any], topology: Any, optimizer: str) -> None:
    learner = make_learner(algo=algo, topology=topology, weight_decay=0.1, border={"optimizer": optimizer})
    before = heads_of(learner)
    for task in tasks_of(learner):
        now = heads_of(learner)
        for network, other in itertools.product(now, range(3)):
            same = [
                torch.equal(one, then) for one, then in zip(now[network][other], before[network][other], strict=True)
            ]
            assert same == [other != task] * 2, (network, other)
        before = now


def heads_of(learner: RLLearner) -> dict[str, list[list[torch.Tensor]]]:
    """Weights and biases of each head of each network."""
    return {
        network.name: [list(parameters_of(head).values()) for head in network.network.heads]
        for network in learner.networks
    }


@pytest.mark.parametrize(
    "border", [{"heads": "shared"}, {"heads": "shared", "task_id": "visible"}, {"task_id": "visible"}]
)
@pytest.mark.parametrize("algo", [DSSAC, DSTD3])
def test_other_heads_and_ids_learn_as_well(algo: type[Any], border: dict[str, str]) -> None:
    learner = make_learner(algo=algo, steps=(20, 20), border=border)
    for task in tasks_of(learner):
        before = answers(learner, 0)
        assert before.shape == (6, 2)
        assert (learner.agent.actor.heads is None) == (border.get("heads") == "shared")
        assert task == learner.task - 1
    assert np.isfinite(answers(learner, 1)).all()


# --- where transitions lie ----------------------------------------------------------------------------


def test_the_latest_transitions_by_hand() -> None:
    # 15 + 12 steps in a buffer of 20 rows: the newest transition is the 27th, in row 6.
    learner = make_learner(steps=(15, 15), border={"buffer": "kept"}, buffer_size=20)
    learn_tasks(learner, 1)
    for _ in itertools.islice(learner.train(), 12):
        pass
    assert learner.latest(np.arange(12)).tolist() == [6, 5, 4, 3, 2, 1, 0, 19, 18, 17, 16, 15]
    buffer = learner.agent.replay_buffer
    assert (buffer.observations[learner.latest(np.arange(12)), 0, 0] == 1).all()
    assert buffer.observations[14, 0, 0] == 0  # the one before


def test_of_a_task_longer_than_the_buffer_only_what_it_holds() -> None:
    learner = make_learner(steps=(33, 15), buffer_size=20)
    list(learner.train())
    rows = learner.latest(np.arange(33))
    assert rows[:14].tolist() == [12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 19]
    assert sorted(rows[:20]) == list(range(20))
    assert rows[20:].tolist() == rows[:13].tolist()


# --- draws beside training ----------------------------------------------------------------------------


def test_drawing_leaves_no_trace_and_repeats() -> None:
    learner = make_learner()
    before, drawn = generator_state(), []
    for what, task in (("a", 0), ("a", 0), ("b", 0), ("a", 1)):
        with learner.isolated_rng(what, task):
            drawn.append(torch.rand(3).tolist())
            np.random.rand()
            random.random()
        assert_equal_trees(generator_state(), before)
    assert drawn[0] == drawn[1]
    assert len({tuple(one) for one in drawn}) == 3
    with pytest.raises(RuntimeError, match="size"), learner.isolated_rng("a", 0):
        torch.rand(3) + torch.rand(2)
    assert_equal_trees(generator_state(), before)
    other = make_learner(seed=1)
    with other.isolated_rng("a", 0):
        assert torch.rand(3).tolist() != drawn[0]


@pytest.mark.parametrize("algo", [DSSAC, DSTD3])
def test_a_policy_is_what_the_agent_predicts(algo: type[Any]) -> None:
    learner = make_learner(algo=algo)
    learn_tasks(learner, 2)
    observations = learner.agent.replay_buffer.observations[:5, 0]  # of task 1
    predicted, _ = learner.agent.predict(observations, deterministic=True)
    np.testing.assert_allclose(learner.policy(1)(observations, True), predicted, rtol=1e-5, atol=1e-6)
    assert not np.allclose(learner.policy(0)(observations, True), predicted, rtol=1e-3)
    torch.manual_seed(0)
    predicted, _ = learner.agent.predict(observations, deterministic=False)
    torch.manual_seed(0)
    drawn = learner.policy(1)(observations, False)
    np.testing.assert_allclose(drawn, predicted, rtol=1e-5, atol=1e-6)
    assert (algo is DSTD3) == np.array_equal(learner.policy(1)(observations, False), drawn)  # has no noise of its own


def test_actions_are_in_the_units_of_the_environment() -> None:
    learner = make_learner()
    space = learner.agent.policy.action_space
    space.low[:], space.high[:] = -3.0, 5.0
    raw, _ = learner.agent.policy.predict(learner.agent.observation_space.sample()[None], deterministic=True)
    observations = np.random.default_rng(0).normal(size=(4, N_OBS + 3))
    scaled = learner.agent.actor.act(np.hstack([observations[:, :N_OBS], np.eye(3)[[0] * 4]]).astype(np.float32), True)
    np.testing.assert_allclose(learner.policy(0)(observations, True), 1.0 + 4.0 * scaled, rtol=1e-5)
    assert raw.shape == (1, 2)


# --- state --------------------------------------------------------------------------------------------


def test_a_state_holds_only_what_a_checkpoint_can(tmp_path: Path) -> None:
    learner = make_learner("packnet")
    learn_tasks(learner, 1)
    state = learner.state_dict()
    assert state["position"] == [1, 0, 0, False, None]
    assert set(state["frozen"]["actor"]) == {
        *(f"pi.trunk.{place}.{name}" for place in range(2) for name in ("values", "bias")),
        *(f"pi.heads.{task}.{name}" for task in range(3) for name in ("weight", "bias")),
    }
    assert state["frozen"]["critic"] == {}
    checkpoint.save(tmp_path / "state", state)
    assert_equal_trees(checkpoint.load(tmp_path / "state")["position"], [1, 0, 0, False, None])


def test_a_strategy_is_called_at_its_seams() -> None:
    learner = make_learner("packnet", steps=(12, 12))
    calls: list[str] = []

    def note(name: str) -> None:
        own = getattr(learner.strategy, name)

        def noted(*args: Any) -> Any:
            calls.append(f"{name} {args[1].name}" if name.endswith("step") else name)
            return own(*args)

        setattr(learner.strategy, name, noted)

    for name in ("begin_task", "begin_consolidation", "end_task", "before_step", "after_step"):
        note(name)
    for _ in tasks_of(learner):
        pass
    update = [f"{when}_step {group}" for group in ("critic", "actor") for when in ("before", "after")]
    assert calls == [
        *("begin_task", *update * 2, "begin_consolidation", *update * 5, "end_task"),
        *("begin_task", *update * 2, "begin_consolidation", "end_task"),
    ]
    assert Counter(calls)["end_task"] == 2
