"""An output layer for each task: the id chooses it, the trunk is shared, and nothing leaks to heads of other tasks."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch.nn import ReLU, Tanh

from sparserl.agents.networks.heads import TaskHeads
from sparserl.agents.networks.policies import SparseSACPolicy, SparseTD3Policy, goals
from sparserl.agents.networks.traced_forward import AutogradForward, TasksForward, evaluate, traced_forward
from sparserl.errors import ConfigError
from sparserl.kernels.flops import FlopCounter, counting
from sparserl.layers import SparseLinear
from sparserl.topology.config import TopologyConfig

FEATURES, TASKS = 5, 3
OBSERVATIONS = gym.spaces.Box(-1, 1, (FEATURES + TASKS,), np.float64)
ACTIONS = gym.spaces.Box(-1, 1, (2,), np.float32)
BATCHES = {"one task": [1, 1, 1, 1, 1, 1], "mixed": [0, 2, 2, 0, 2, 0]}
TOPOLOGIES = {
    "sparse": TopologyConfig(density=0.4),
    "sparse heads": TopologyConfig(density=0.4, output_layer="sparse"),
    "dense": TopologyConfig(method="dense"),
}
NETWORKS = [("actor", "forward"), ("critic", "forward"), ("critic", "q1_forward")]


def policy(kind: type[Any] = SparseTD3Policy, *, visible: bool = False, **options: Any) -> Any:
    torch.manual_seed(0)
    settings = {"topology": TopologyConfig(density=0.4), "net_arch": [17, 9], **options}
    return kind(OBSERVATIONS, ACTIONS, lambda _: 1e-3, heads=TaskHeads(TASKS, visible), **settings)


def observations(tasks: list[int]) -> np.ndarray:
    features = np.random.default_rng(0).normal(size=(len(tasks), FEATURES))
    return np.hstack([features, np.eye(TASKS)[tasks]]).astype(np.float32)


def inputs(network: str, tasks: list[int]) -> list[np.ndarray]:
    actions = np.random.default_rng(1).normal(size=(len(tasks), 2)).astype(np.float32)
    return [observations(tasks), actions][: 1 if network == "actor" else 2]


def test_an_observation_is_split_into_features_and_task() -> None:
    x = observations([2, 0])
    for visible, width in ((False, FEATURES), (True, FEATURES + TASKS)):
        heads = TaskHeads(TASKS, visible)
        features, tasks = heads.split(torch.from_numpy(x))
        assert tasks.tolist() == [2, 0]
        np.testing.assert_array_equal(features.numpy(), x[:, :width])
        as_arrays = heads.split_array(x)
        np.testing.assert_array_equal(as_arrays[0], features.numpy())
        assert as_arrays[1].tolist() == [2, 0]


@pytest.mark.parametrize("tasks", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize(
    ("kind", "activation"), [("sparse", ReLU), ("sparse heads", ReLU), ("dense", ReLU), ("sparse", Tanh)]
)
@pytest.mark.parametrize(("network", "method"), NETWORKS)
def test_agrees_with_autograd(network: str, method: str, kind: str, activation: Any, tasks: list[int]) -> None:
    dense = kind == "dense"
    options = {"net_arch": [17, 160, 160] if dense else [17, 9], "activation_fn": activation}
    module = getattr(policy(topology=TOPOLOGIES[kind], **options), network)
    arrays = inputs(network, tasks)
    tensors = [torch.from_numpy(array).requires_grad_() for array in arrays]
    given = getattr(module, method)(*tensors)
    expected = torch.stack([given] if torch.is_tensor(given) else list(given))
    gradient = np.random.default_rng(2).normal(size=expected.shape).astype(np.float32)
    expected.backward(torch.from_numpy(gradient))
    wanted = {name: parameter.grad for name, parameter in module.named_parameters()}
    module.zero_grad()

    close = {"rtol": 1e-4, "atol": 1e-6}
    passed = traced_forward(module, method, *arrays)
    assert type(passed) is (AutogradForward if dense else TasksForward)
    np.testing.assert_allclose(passed.outputs, expected.detach().numpy(), **close)
    np.testing.assert_allclose(evaluate(module, method, *arrays), expected.detach().numpy(), **close)
    if network == "critic":
        np.testing.assert_allclose(passed.input_gradient(gradient), tensors[-1].grad.numpy(), **close)
    for _ in range(2):  # what was there is replaced, never added to
        passed = traced_forward(module, method, *arrays)
        passed.backward(gradient)
    for name, parameter in module.named_parameters():
        if wanted[name] is None:
            assert parameter.grad is None, name
        else:
            torch.testing.assert_close(parameter.grad, wanted[name], **close)


@pytest.mark.parametrize("kind", ["sparse", "sparse heads"])
def test_a_batch_of_several_tasks_costs_what_its_tasks_do_alone(kind: str) -> None:
    critic = policy(topology=TOPOLOGIES[kind]).critic

    def cost(tasks: list[int]) -> int:
        counter = FlopCounter()
        with counting(counter):
            arrays = inputs("critic", tasks)
            passed = traced_forward(critic, "forward", *arrays)
            gradient = np.ones_like(passed.outputs)
            passed.backward(gradient)
            passed.input_gradient(gradient)
            evaluate(critic, "forward", *arrays)
        return counter.total

    assert cost([0, 2, 2, 0, 2, 0]) == cost([0] * 3) + cost([2] * 3)


def test_weights_that_are_replaced_are_read() -> None:
    critic = policy().critic
    arrays = inputs("critic", BATCHES["mixed"])
    evaluate(critic, "forward", *arrays)
    head = critic.qf0.heads[2]
    head.weight = torch.nn.Parameter(3.0 * head.weight.detach())
    expected = torch.stack(critic(*map(torch.from_numpy, arrays))).detach().numpy()
    np.testing.assert_allclose(evaluate(critic, "forward", *arrays), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dense", [False, True], ids=["sparse", "dense"])
def test_heads_of_other_tasks_have_no_gradient(dense: bool) -> None:
    actor = policy(topology=TopologyConfig(method="dense") if dense else TopologyConfig(density=0.4)).actor
    for tasks in ([0, 0], [2, 1]):  # what an earlier batch left is gone
        passed = traced_forward(actor, "forward", observations(tasks))
        passed.backward(np.ones_like(passed.outputs))
        found = [head.bias.grad is not None for head in actor.mu.heads]
        assert found == [task in tasks for task in range(TASKS)]


def test_the_trunk_reads_the_id_only_where_it_is_visible() -> None:
    for visible in (False, True):
        trunk = policy(visible=visible).critic.qf0.trunk
        assert trunk[0].n_in == FEATURES + 2 + (TASKS if visible else 0)


@pytest.mark.parametrize("kind", [SparseTD3Policy, SparseSACPolicy])
def test_predict_acts_by_the_head_of_the_task(kind: type[Any]) -> None:
    own = policy(kind)
    x = observations([0, 1, 2]).astype(np.float64)
    x[:, :FEATURES] = x[0, :FEATURES]  # the same features, another task
    actions, _ = own.predict(x, deterministic=True)
    assert np.unique(actions, axis=0).shape[0] == 3
    # Of one task alone, the head is part of the kernel call: sums have another order.
    np.testing.assert_allclose(own.predict(x[1], deterministic=True)[0], actions[1], rtol=1e-5)


def test_every_layer_has_one_name_and_each_head_a_topology_of_its_own() -> None:
    own = policy(topology=TopologyConfig(method="set", density=(0.4, 0.4, 0.4), output_layer="sparse"))
    names = [name for name, module in own.actor.named_modules() if isinstance(module, SparseLinear)]
    assert names == ["mu.trunk.0", "mu.trunk.1", "mu.heads.0", "mu.heads.1", "mu.heads.2"]
    heads = [head.topology.flat.tolist() for head in own.actor.mu.heads]
    assert heads[0] != heads[1] != heads[2]
    copied = policy(
        topology_seed=1, topology=TopologyConfig(method="set", density=(0.4, 0.4, 0.4), output_layer="sparse")
    )
    copied.load_state_dict(own.state_dict())
    x = observations([2]).astype(np.float64)
    np.testing.assert_array_equal(copied.predict(x)[0], own.predict(x)[0])


def test_layers_that_begin_dense_know_what_they_are_pruned_to() -> None:
    own = policy(topology=TopologyConfig(method="gmp", density=(0.4, 0.4, 0.4), first_update=1, last_update=9))
    found = goals(own.actor, "actor")
    assert list(found) == [f"actor.mu.{name}" for name in ("trunk.0", "trunk.1", "heads.0", "heads.1", "heads.2")]
    assert own.actor.mu.trunk[0].nnz == 17 * FEATURES > found["actor.mu.trunk.0"]


def test_no_heads_at_all_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1 head, got 0"):
        TaskHeads(0)
