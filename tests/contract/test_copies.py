"""A copy of an agent, a model or a learner learns as the original would, and leaves the original alone."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import cloudpickle
import pytest
from support.envs import env_for
from support.rl_learners import comparable, learn_tasks, make_learner, whole_state
from support.tasks import blobs
from support.trees import assert_equal_trees

from sparserl.agents.agent_state import agent_state, generator_state, restore_generators
from sparserl.agents.config import OffPolicyConfig
from sparserl.agents.table import AGENTS, make_agent
from sparserl.continual.strategies import MethodOptions, make_strategy
from sparserl.continual.strategies.nispa import NISPAOptions
from sparserl.continual.strategies.spacenet import SpaceNetOptions
from sparserl.continual.supervised.learner import SupervisedLearner
from sparserl.continual.supervised.learner_config import LearnerConfig
from sparserl.topology.config import TopologyConfig

COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda whole: pickle.loads(pickle.dumps(whole)),
    "cloudpickle": lambda whole: cloudpickle.loads(cloudpickle.dumps(whole)),
}
SIZES: dict[str, Any] = {"net_arch": (12, 12), "learning_starts": 10, "batch_size": 16, "buffer_size": 200}
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "lagging targets": ("ds_td3", {"method": "ds_td3"}, {}),
    "shared targets": ("ds_sac", {"method": "set", "moments": "mean"}, {}),
    "growth by gradient": ("ds_td3", {"method": "rigl", "moments": "fresh"}, {}),
    "gathered batches": ("ds_sac", {"method": "rigl", "gradient_batches": 4}, {}),
    "pruning": ("ds_td3", {"method": "gmp", "first_update": 10}, {}),
    "shared inputs": ("ds_td3", {"method": "ds_td3", "pairs": 2}, {}),
    "recycled neurons": ("ds_td3", {"method": "set", "recycle_interval": 9, "recycle_threshold": 0.5}, {}),
    "returns of several steps": ("ds_sac", {"method": "ds_sac"}, {"n_steps": 3, "n_steps_delay": 10}),
    "dense TD3": ("td3", {"method": "dense"}, {}),
    "one network": ("ds_dqn", {"method": "rigl"}, {"double_q": True, "max_grad_norm": 0.1}),
    "dense SAC": ("sac", {"method": "dense"}, {}),
    "rollouts": ("ds_ppo", {"method": "rigl"}, {"n_steps": 5, "batch_size": 5, "n_epochs": 2}),
    "rollouts and RMSprop": ("ds_a2c", {"method": "set"}, {"n_steps": 3}),
}


def trained(name: str) -> Any:
    algo, topology, options = CASES[name]
    rewires = topology["method"] != "dense"
    config = TopologyConfig(density=0.4, **topology, **({"update_interval": 7, "last_update": 40} if rewires else {}))
    if not rewires:
        config = TopologyConfig(**topology)
    kind = AGENTS[algo].config
    sizes = SIZES if issubclass(kind, OffPolicyConfig) else {"net_arch": (12, 12)}
    agent: Any = make_agent(algo, kind(**sizes, **options), config, env_for(AGENTS[algo].agent), seed=0)
    if rewires:
        agent.bind_run_length(60)
    return agent.learn(35)


def go_on(agent: Any, steps: int = 25) -> dict[str, Any]:
    agent.learn(steps, reset_num_timesteps=False)
    return {name: part for name, part in agent_state(agent).items() if name != "episodes"}


@pytest.mark.parametrize("name", CASES)
def test_copied_agents_learn_as_the_original_and_leave_it_alone(name: str) -> None:
    agent = trained(name)
    before, generators = pickle.dumps(agent), generator_state()
    learned = []
    for copied in [make(agent) for make in COPIES.values()]:
        restore_generators(generators)
        of_copy = go_on(copied)
        assert pickle.dumps(agent) == before  # every array, tensor, counter and generator of the original
        learned.append((copied, pickle.dumps(copied), of_copy))
    restore_generators(generators)
    of_original = go_on(agent)
    for copied, after_copy, of_copy in learned:
        assert_equal_trees(of_copy, of_original)
        assert pickle.dumps(copied) == after_copy


def test_a_copied_evolver_brings_its_layers_and_moments_along() -> None:
    agent = trained("lagging targets")
    before = pickle.dumps(agent)
    evolver = copy.deepcopy(agent.evolver)
    (name, layer), *_ = evolver.layers.items()
    evolver.rewire(name)
    assert layer is not agent.evolver.layers[name]
    moments, target = evolver._followers[name]
    assert moments.values is layer.values
    assert {state.numel() for state in moments.optimizer.state[layer.values].values()} == {1, layer.nnz}
    assert target.__self__.online is layer
    assert pickle.dumps(agent) == before


@pytest.mark.parametrize(
    "name", ["spacenet", "afaf", "wsn", "nispa", "packnet", "ewc", "si", "replay", "lwf", "der", "icarl"]
)
def test_a_copied_classifier_learns_as_the_original_and_leaves_it_alone(name: str) -> None:
    sequence = blobs("task")
    spacenet = SpaceNetOptions(connections=(40, 30, 6), selected=(12, 10), reserved=(5, 4))
    strategy = make_strategy(name, "classifier", MethodOptions(spacenet=spacenet, nispa=NISPAOptions(phase_epochs=1)))
    config = LearnerConfig(hidden=(32, 24), optimizer="adam", epochs=2, batch_size=16)
    learner = SupervisedLearner(sequence, strategy, config, seed=0)
    list(learner.train())
    learner.finish_task()
    before = copy.deepcopy(learner.state_dict())
    copied = copy.deepcopy(learner)
    list(copied.train())
    assert_equal_trees(learner.state_dict(), before)
    of_copy = copy.deepcopy(copied.state_dict())
    list(learner.train())
    assert_equal_trees(learner.state_dict(), of_copy)
    assert_equal_trees(copied.state_dict(), of_copy)


@pytest.mark.parametrize("name", ["spacenet", "packnet", "ewc", "replay", "clonex"])
def test_a_copied_learner_of_tasks_learns_as_the_original_and_leaves_it_alone(name: str) -> None:
    learner = make_learner(name)
    learn_tasks(learner, 1)
    before, generators = whole_state(learner), generator_state()
    copied = copy.deepcopy(learner)
    learn_tasks(copied, 1)
    of_copy = whole_state(copied)
    restore_generators(generators)
    assert_equal_trees(comparable(whole_state(learner)), comparable(before))
    learn_tasks(learner, 1)
    assert_equal_trees(comparable(whole_state(learner)), comparable(of_copy))
    assert_equal_trees(comparable(whole_state(copied)), comparable(of_copy))
