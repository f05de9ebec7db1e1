"""Ownership of weights: shares by hand, what may move, views that stay bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sparserl.continual.shared.frozen import FrozenEntries
from sparserl.continual.shared.usage import ConnectionUsage
from sparserl.continual.shared.weight_owners import FREE, WeightOwners
from sparserl.layers import SparseLinear, SparseMLP
from sparserl.layers.linear import Layer, linear
from sparserl.recording import checkpoint
from sparserl.topology.rewire import random_topology
from sparserl.topology.structure import SparseTopology

N_TASKS = 4


def trunk() -> dict[str, Layer]:
    """120 weights each: a sparse layer and a dense one."""
    torch.manual_seed(0)
    sparse = SparseLinear(random_topology(15, 16, 120, np.random.default_rng(0)))
    return {"actor.trunk.0": sparse, "actor.trunk.1": nn.Linear(15, 8)}


def heads() -> list[nn.Linear]:
    torch.manual_seed(1)
    return [nn.Linear(8, 2) for _ in range(N_TASKS)]


def train(layers: dict[str, Layer], head: nn.Linear, frozen: FrozenEntries, task: int, steps: int = 3) -> None:
    """Towards zero outputs, with an optimizer that has a momentum and decays weights."""
    network = SparseMLP([*layers.values(), head])
    optimizer = torch.optim.Adam(network.parameters(), 0.05, weight_decay=0.1)
    x = torch.from_numpy(np.random.default_rng(task).normal(size=(12, 16)).astype(np.float32))
    for _ in range(steps):
        optimizer.zero_grad()
        network(x).square().mean().backward()
        frozen.before_step()
        optimizer.step()
        frozen.after_step(optimizer)


def flat_weights(layers: dict[str, Layer]) -> list[np.ndarray]:
    return [linear(layer).weights.detach().numpy().ravel().copy() for layer in layers.values()]


# --- shares -------------------------------------------------------------------------------------------


def test_four_tasks_share_120_weights() -> None:
    # 30 of 120, 30 of 90, 30 of 60, all 30 of 30.
    layers = trunk()
    own = WeightOwners(layers)
    for task in range(N_TASKS):
        own.keep_largest(FrozenEntries(), task, N_TASKS - task)
        for owner, layer in zip(own.owner, layers.values(), strict=True):
            assert np.bincount(owner + 1, minlength=5).tolist() == [
                90 - 30 * task,
                *[30] * (task + 1),
                *[0] * (3 - task),
            ]
            weights = linear(layer).weights.detach().numpy().ravel()
            assert (weights[owner == FREE] == 0.0).all()
            assert (weights[owner == 0] != 0.0).all()
            for free in np.flatnonzero(owner == FREE):  # as the next task trains them
                weights[free] = np.random.default_rng([task, free]).normal()


def test_the_largest_are_kept_by_magnitude_and_among_equals_the_first() -> None:
    layer = nn.Linear(5, 1)
    layer.weight.data = torch.tensor([[1.0, -3.0, 2.0, -2.0, 0.5]])
    own, frozen = WeightOwners({"0": layer}), FrozenEntries()
    own.keep_largest(frozen, 0, 2)  # round(2.5) is 2
    assert own.owner[0].tolist() == [FREE, 0, 0, FREE, FREE]
    assert layer.weight.tolist() == [[0.0, -3.0, 2.0, 0.0, 0.0]]
    layer.weight.data = torch.tensor([[1.0, -3.0, 2.0, 1.0, -1.0]])
    own.keep_largest(frozen, 1, 2)  # round(1.5) is 2
    assert own.owner[0].tolist() == [1, 0, 0, 1, FREE]
    assert layer.weight.tolist() == [[1.0, -3.0, 2.0, 1.0, 0.0]]
    own.keep_largest(frozen, 2, 1)
    assert own.owner[0].tolist() == [1, 0, 0, 1, 2]


def test_of_many_equals_the_first_are_kept() -> None:
    layer = nn.Linear(200, 1)
    layer.weight.data = torch.tensor([[0.5, -0.5, 0.75, 0.25]]).repeat(1, 50)
    own = WeightOwners({"0": layer})
    own.keep_largest(FrozenEntries(), 0, 2)  # all 50 of 0.75, and half of those of 0.5
    assert np.flatnonzero(own.owner[0] == 0).tolist() == [
        at for at in range(200) if at % 4 == 2 or (at < 100 and at % 4 < 2)
    ]


def test_who_uses_what() -> None:
    own = WeightOwners(trunk())
    assert [use.owned for use in own.usage(0)] == [(), ()]
    assert own.memory() == {"owners": 2 * 240}
    own.keep_largest(FrozenEntries(), 0, 4)
    own.keep_largest(FrozenEntries(), 1, 3)
    assert own.usage(2) == [
        ConnectionUsage("actor.trunk.0", (30, 30), 60, 15 * 16, 15, 0),
        ConnectionUsage("actor.trunk.1", (30, 30), 60, 8 * 15, 8, 0),
    ]
    assert [use.owned for use in own.usage(1)] == [(30,), (30,)]


# --- what may move ------------------------------------------------------------------------------------


def test_training_moves_what_is_free_and_retraining_what_was_kept() -> None:
    layers, frozen = trunk(), FrozenEntries()
    own = WeightOwners(layers)
    for task, head in enumerate(heads()):
        for retrains in (False, True):
            if retrains:
                own.keep_largest(frozen, task, N_TASKS - task)
            else:
                own.freeze_owned(frozen, task)
            before, biases = flat_weights(layers), [layer.bias.detach().clone() for layer in layers.values()]
            train(layers, head, frozen, task)
            for now, then, owner in zip(flat_weights(layers), before, own.owner, strict=True):
                open_weights = owner == (task if retrains else FREE)
                assert np.array_equal(now[~open_weights], then[~open_weights])
                assert (now[open_weights] != then[open_weights]).any()
            for layer, bias in zip(layers.values(), biases, strict=True):
                assert torch.equal(layer.bias, bias) == (task > 0)


def test_views_of_earlier_tasks_stay_bit_for_bit() -> None:
    layers, frozen = trunk(), FrozenEntries()
    own = WeightOwners(layers)
    x = torch.linspace(-2.0, 2.0, 5 * 16).sin().view(5, 16)
    answers: list[torch.Tensor] = []
    all_heads = heads()
    for task, head in enumerate(all_heads):
        own.freeze_owned(frozen, task)
        train(layers, head, frozen, task)
        own.keep_largest(frozen, task, N_TASKS - task)
        train(layers, head, frozen, task)
        with torch.no_grad():
            answers.append(SparseMLP([*own.task_layers(task), head])(x))
            for earlier, answer in enumerate(answers):
                assert torch.equal(SparseMLP([*own.task_layers(earlier), all_heads[earlier]])(x), answer)
            torch.testing.assert_close(SparseMLP([*layers.values(), head])(x), answers[task])
    assert [view.nnz for view in own.task_layers(1)] == [60, 60]
    assert not torch.equal(answers[0], answers[1])


def test_a_view_has_weights_of_its_own() -> None:
    layers = trunk()
    own = WeightOwners(layers)
    own.keep_largest(FrozenEntries(), 0, 4)
    before = flat_weights(layers)
    with torch.no_grad():
        for view in own.task_layers(0):
            view.values.zero_()
    assert all(np.array_equal(now, then) for now, then in zip(flat_weights(layers), before, strict=True))


def test_before_anything_is_kept_a_view_is_empty() -> None:
    assert [view.nnz for view in WeightOwners(trunk()).task_layers(0)] == [0, 0]


# --- state --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("through_a_file", [False, True])
def test_owners_survive_in_a_state(through_a_file: bool, tmp_path: Path) -> None:
    own, restored = WeightOwners(trunk()), WeightOwners(trunk())
    own.keep_largest(FrozenEntries(), 0, 4)
    state = own.state_dict()
    if through_a_file:
        checkpoint.save(tmp_path / "state", state)
        state = checkpoint.load(tmp_path / "state")
    restored.load_state_dict(state)
    assert [view.topology.flat.tolist() for view in restored.task_layers(0)] == [
        view.topology.flat.tolist() for view in own.task_layers(0)
    ]
    own.keep_largest(FrozenEntries(), 1, 3)
    assert [view.nnz for view in restored.task_layers(1)] == [30, 30]
    assert all(owner.dtype == np.int16 for owner in restored.owner)


def test_a_sparse_layer_is_kept_by_its_slots() -> None:
    layer = SparseLinear(SparseTopology(2, 3, np.array([0, 2, 4])))
    layer.values.data = torch.tensor([1.0, -5.0, 3.0])
    own = WeightOwners({"0": layer})
    own.keep_largest(FrozenEntries(), 0, 3)
    (view,) = own.task_layers(0)
    assert (view.topology.flat.tolist(), view.values.tolist()) == ([2], [-5.0])
    assert view.bias is layer.bias
