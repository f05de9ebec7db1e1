"""Averaged SGD whose averages begin when a connection grows: SNT-ASGD of Selfish-RNN."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from support.layers import ints, sparse
from support.torch_models import perceptron, problem, train
from torch import nn

from sparserl import sparsify
from sparserl.errors import ConfigError
from sparserl.layers.averaged_sgd import AveragedSGD
from sparserl.layers.sparse_training import SparseTraining
from sparserl.topology.moments import MOMENTS, OptimizerMoments
from sparserl.topology.rewire import exchange


def stepped(parameter: nn.Parameter, optimizer: AveragedSGD, *gradient: float) -> list[float]:
    """Averages after a step."""
    parameter.grad = torch.tensor(gradient)
    optimizer.step()
    with optimizer.averaged():
        return parameter.tolist()


def test_the_vector_of_the_catalogue() -> None:
    """Weights 1, .8, .6, .4 from birth have averages 1, .8, .7, .6."""
    weight = nn.Parameter(torch.tensor([1.2]))
    optimizer = AveragedSGD([weight], lr=0.2)
    averages = [stepped(weight, optimizer, 1.0)[0] for _ in range(4)]
    assert averages == pytest.approx([1.0, 0.8, 0.7, 0.6])
    assert weight.item() == pytest.approx(0.4)
    optimizer.adopt()
    assert weight.item() == pytest.approx(0.6)


def test_without_events_it_is_torchs() -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (nn.Parameter(torch.ones(5, dtype=torch.float64)) for _ in range(2))
    optimizer = AveragedSGD([ours], lr=0.1, weight_decay=0.2)
    twin = torch.optim.ASGD([theirs], lr=0.1, lambd=0.0, t0=0.0, weight_decay=0.2)
    for _ in range(6):
        ours.grad = torch.randn(5, generator=generator, dtype=torch.float64)
        theirs.grad = ours.grad.clone()
        optimizer.step()
        twin.step()
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(optimizer.state[ours]["average"], twin.state[theirs]["ax"])


@pytest.mark.parametrize("moments", MOMENTS)
def test_what_grows_begins_anew_and_the_rest_goes_on(moments: str) -> None:
    layer = sparse(1, 4, [0, 1], [1.2, 1.2])
    optimizer = AveragedSGD([layer.values], lr=0.2)
    for _ in range(3):
        stepped(layer.values, optimizer, 1.0, 1.0)
    change = exchange(layer.topology, ints(0), ints(3))
    layer.apply_change(change, 5.0)
    OptimizerMoments(optimizer, layer.values, moments)(change, 5.0)
    with optimizer.averaged():
        assert layer.values.tolist() == pytest.approx([0.7, 5.0])  # it has made no step: it is its own average
    assert layer.values.tolist() == pytest.approx([0.6, 5.0])
    averages = [stepped(layer.values, optimizer, 1.0, 1.0) for _ in range(3)]
    assert averages[0] == pytest.approx([0.6, 4.8])
    assert averages[1] == pytest.approx([0.5, 4.6])
    assert averages[2] == pytest.approx([0.4, 4.5])  # the mean of .8, .6, .4, .2, 0; and of 4.6, 4.4
    assert optimizer.state[layer.values]["step"].tolist() == [6.0, 3.0]


def test_averaging_may_begin_later_and_a_closure_gives_its_loss() -> None:
    weight = nn.Parameter(torch.tensor([1.2]))
    optimizer = AveragedSGD([weight], lr=0.2, averaging=False)
    assert stepped(weight, optimizer, 1.0) == pytest.approx([1.0])
    assert not optimizer.state
    optimizer.param_groups[0]["averaging"] = True

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = weight.sum()
        value.backward()
        return value

    assert optimizer.step(loss).item() == pytest.approx(1.0)
    assert [stepped(weight, optimizer, 1.0)[0] for _ in range(2)] == pytest.approx([0.6, 0.5])


def test_a_model_of_the_users_resumes_exactly_and_computes_with_averages() -> None:
    def start() -> tuple[nn.Module, AveragedSGD, SparseTraining]:
        model = perceptron()
        optimizer = AveragedSGD(model.parameters(), lr=0.1)
        return model, optimizer, sparsify(model, optimizer, density=0.3, update_interval=4)

    def outputs(model: nn.Module, optimizer: AveragedSGD) -> Any:
        with optimizer.averaged(), torch.no_grad():
            return model(problem()[0])

    whole, first, second = start(), start(), start()
    train(*whole, 21)
    train(*first, 10)
    train(*second, 3)
    for part, state in zip(second, copy.deepcopy([part.state_dict() for part in first]), strict=True):
        part.load_state_dict(state)
    train(*second, 11)
    assert torch.equal(outputs(*whole[:2]), outputs(*second[:2]))
    assert not torch.equal(outputs(*whole[:2]), whole[0](problem()[0]))
    clocks = whole[1].state[whole[0].get_parameter("2.values")]["step"]
    assert set(clocks.tolist()) <= {21.0, 20.0, 16.0, 12.0, 8.0, 4.0, 0.0}  # events at 1, 5, ..., 21
    assert len(set(clocks.tolist())) > 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0.0}, "lr must be positive, got 0.0"),
        ({"lr": 0.1, "weight_decay": -1.0}, "weight_decay must not be negative, got -1.0"),
    ],
)
def test_refusals(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AveragedSGD([nn.Parameter(torch.ones(1))], **options)
