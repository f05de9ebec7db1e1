"""Frozen entries stay where they are under every optimizer, and their neighbours do not notice."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from sparserl.continual.shared.frozen import FrozenEntries
from sparserl.continual.supervised.learner_config import OPTIMIZERS, LearnerConfig

SETTINGS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd", "weight_decay": 0.1},
    "sgd with momentum": {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.1},
    "adam": {"optimizer": "adam", "weight_decay": 0.1},
    "adagrad": {"optimizer": "adagrad", "weight_decay": 0.1},
    "rmsprop": {"optimizer": "rmsprop", "weight_decay": 0.1},
    "rmsprop with momentum": {"optimizer": "rmsprop", "momentum": 0.9, "weight_decay": 0.1},
}
MATRIX, VECTOR = torch.tensor([0, 2, 5]), torch.tensor([3])
"""What is frozen of a 2 x 3 and of a 4 parameter."""


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.arange(1.0, 7.0).reshape(2, 3))
        self.vector = nn.Parameter(torch.arange(1.0, 5.0))

    def draw_gradients(self, step: int) -> None:
        generator = torch.Generator().manual_seed(step)
        for parameter in self.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)


def optimizer_of(network: nn.Module, setting: str) -> torch.optim.Optimizer:
    return OPTIMIZERS[SETTINGS[setting]["optimizer"]](
        network.parameters(), LearnerConfig(learning_rate=0.1, **SETTINGS[setting])
    )


def per_entry(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> dict[str, torch.Tensor]:
    state = optimizer.state[parameter]
    return {name: one for name, one in state.items() if torch.is_tensor(one) and one.shape == parameter.shape}


@pytest.mark.parametrize("setting", SETTINGS)
def test_entries_are_frozen_in_the_middle_of_training(setting: str) -> None:
    network, free = Pair(), Pair()
    optimizer, unfrozen = optimizer_of(network, setting), optimizer_of(free, setting)
    frozen = FrozenEntries()
    held: dict[str, torch.Tensor] = {}
    for step in range(6):
        if step == 2:  # by now the optimizer has a history, which would move them on
            frozen.freeze(network.matrix, MATRIX)
            frozen.freeze(network.vector, VECTOR)
            held = {name: one.detach().clone() for name, one in network.named_parameters()}
        for one in (network, free):
            one.draw_gradients(step)
        frozen.before_step()
        optimizer.step()
        frozen.after_step(optimizer)
        unfrozen.step()
    for name, entries in (("matrix", MATRIX), ("vector", VECTOR)):
        own, twin = network.get_parameter(name), free.get_parameter(name)
        others = torch.ones(own.numel(), dtype=torch.bool)
        others[entries] = False
        assert torch.equal(own.view(-1)[entries], held[name].view(-1)[entries])
        assert torch.equal(own.view(-1)[others], twin.view(-1)[others])
        assert (own != held[name]).view(-1)[others].all()
        states, twin_states = per_entry(optimizer, own), per_entry(unfrozen, twin)
        assert states.keys() == twin_states.keys()
        assert bool(states) == (setting != "sgd")
        for kind, state in states.items():
            assert (state.view(-1)[entries] == 0).all(), kind
            assert torch.equal(state.view(-1)[others], twin_states[kind].view(-1)[others]), kind
            assert (state.view(-1)[others] != 0).all(), kind


def test_gradients_of_frozen_entries_are_zeroed_and_no_others() -> None:
    network, frozen = Pair(), FrozenEntries()
    network.draw_gradients(0)
    assert network.matrix.grad is not None
    drawn = network.matrix.grad.clone().view(-1)
    frozen.freeze(network.matrix, MATRIX)
    frozen.before_step()
    zeroed = network.matrix.grad.view(-1)
    assert (zeroed[MATRIX] == 0).all()
    assert torch.equal(zeroed[[1, 3, 4]], drawn[[1, 3, 4]])
    assert network.vector.grad is not None
    assert (network.vector.grad != 0).all()


def test_what_is_shared_by_all_entries_goes_on() -> None:
    # Adam's clock must not be taken for the state of an entry, not even where there is one entry alone.
    network = nn.Linear(1, 1)
    optimizer, frozen = optimizer_of(network, "adam"), FrozenEntries()
    frozen.freeze(network.bias, torch.tensor([0]))
    for _ in range(3):
        network(torch.ones(2, 1)).sum().backward()
        frozen.before_step()
        optimizer.step()
        frozen.after_step(optimizer)
    assert optimizer.state[network.bias]["step"].item() == 3
    assert optimizer.state[network.bias]["exp_avg"].item() == 0


def test_a_parameter_that_takes_no_part_in_a_step_is_left_alone() -> None:
    network, frozen = Pair(), FrozenEntries()
    optimizer = optimizer_of(network, "sgd with momentum")
    frozen.freeze(network.vector, VECTOR)
    network.matrix.grad = torch.ones(2, 3)
    frozen.before_step()
    optimizer.step()
    frozen.after_step(optimizer)
    assert network.vector.tolist() == [1, 2, 3, 4]
    assert network.vector.grad is None


def step_by_one(network: Pair, frozen: FrozenEntries) -> list[int]:
    """Places of the 2 x 3 parameter that a step moves."""
    before = network.matrix.detach().clone()
    network.matrix.grad = torch.ones(2, 3)
    optimizer = torch.optim.SGD(network.parameters(), 1.0)
    frozen.before_step()
    optimizer.step()
    frozen.after_step(optimizer)
    return torch.nonzero((network.matrix != before).view(-1)).view(-1).tolist()


def test_freezing_again_replaces_what_was_frozen() -> None:
    network, frozen = Pair(), FrozenEntries()
    assert step_by_one(network, frozen) == [0, 1, 2, 3, 4, 5]
    frozen.freeze(network.matrix, MATRIX)
    assert step_by_one(network, frozen) == [1, 3, 4]
    frozen.freeze(network.matrix, torch.tensor([1]))
    assert step_by_one(network, frozen) == [0, 2, 3, 4, 5]
    frozen.freeze(network.matrix, torch.empty(0, dtype=torch.int64))
    assert step_by_one(network, frozen) == [0, 1, 2, 3, 4, 5]


def test_what_is_frozen_survives_in_a_state() -> None:
    network, frozen = Pair(), FrozenEntries()
    frozen.freeze(network.matrix, MATRIX)
    frozen.freeze(nn.Parameter(torch.zeros(2)), torch.tensor([0]))  # of another network
    state = frozen.state_dict(network)
    assert {name: entries.tolist() for name, entries in state.items()} == {"matrix": [0, 2, 5]}
    other, restored = Pair(), FrozenEntries()
    restored.freeze(other.vector, VECTOR)
    restored.load_state_dict(other, state)
    assert step_by_one(other, restored) == [1, 3, 4]
    assert restored.state_dict(other).keys() == {"matrix"}  # not the vector
    assert FrozenEntries().state_dict(network) == {}
