"""What a network computes after recycling; the clock of recycling and its streams."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from support.recycling import DTYPES, RNG, chain, networks, sparse
from torch import nn

from sparserl.errors import TopologyError
from sparserl.layers import SparseMLP
from sparserl.layers.fused_adam import FusedAdam
from sparserl.layers.recycle import Recycler, recycle


def silence(mlp: SparseMLP, *neurons: tuple[int, int]) -> None:
    for level, neuron in neurons:
        mlp[level].bias.data[neuron] = -100.0


class Critics(nn.Module):
    """Of the shape of an agent's critics, with their names."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        for name in ("qf0", "qf1"):
            network = SparseMLP.random([5, 16, 16, 1], [0.4, 1.0, 0.3], seed=0, name=f"critic.{name}")
            self.add_module(name, network)


class Learner:
    """A training loop with everything that a checkpoint holds."""

    def __init__(self) -> None:
        self.critics, self.actor = Critics(), SparseMLP.random([3, 12, 2], [0.5, 1.0], seed=0, name="actor.mu")
        networks = {"critic": self.critics, "actor": nn.ModuleDict({"mu": self.actor})}
        self.optimizers = {name: FusedAdam(module.parameters(), lr=0.01) for name, module in networks.items()}
        pairs = {name: (module, self.optimizers[name]) for name, module in networks.items()}
        self.recycler = Recycler(pairs, interval=3, threshold=0.5, seed=1)
        self.recycled: list[dict[str, int]] = []

    def advance(self, first: int, last: int) -> None:
        for update in range(first, last + 1):
            generator = torch.Generator().manual_seed(update)
            x = {"critic": torch.randn(30, 5, generator=generator), "actor": torch.randn(30, 3, generator=generator)}
            losses = [net(x["critic"]).sub(1).square().mean() for net in self.critics.children()]
            (sum(losses) + self.actor(x["actor"]).square().mean()).backward()
            for optimizer in self.optimizers.values():
                optimizer.step()
                optimizer.zero_grad()
            self.recycled.append(self.recycler.recycle_if_due(update, x))

    def parts(self) -> dict[str, Any]:
        optimizers = {f"optimizer of {name}": optimizer for name, optimizer in self.optimizers.items()}
        return {"critic": self.critics, "actor": self.actor, "recycler": self.recycler, **optimizers}

    def store(self) -> bytes:
        file = io.BytesIO()
        torch.save({name: part.state_dict() for name, part in self.parts().items()}, file)
        return file.getvalue()

    def load(self, stored: bytes) -> None:
        state = torch.load(io.BytesIO(stored), weights_only=True)
        for name, part in self.parts().items():
            if name == "recycler":
                part.load_state_dict(state[name], strict=True)  # as Stable-Baselines3 calls it
            else:
                part.load_state_dict(state[name])

    def weights(self) -> bytes:
        modules = (self.critics, self.actor)
        return b"".join(p.detach().numpy().tobytes() for module in modules for p in module.parameters())


# --- what the network computes ----------------------------------------------------------------------


@DTYPES
def test_recycling_silent_neurons_leaves_every_output_as_it_was(dtype: torch.dtype) -> None:
    mlp = chain(dtype)
    silence(mlp, (0, 3), (0, 4), (1, 0), (1, 7), (1, 29), (2, 5))
    x = torch.randn(64, 9, dtype=dtype)
    y = mlp(x).detach()
    before = [parameter.detach().clone() for parameter in mlp.parameters()]
    recycler = Recycler({"net": (mlp, torch.optim.Adam(mlp.parameters()))}, interval=1, threshold=0.0, seed=0)
    recycled = recycler.recycle_if_due(1, {"net": x})
    assert (recycled["net.0"] >= 2, recycled["net.1"] >= 3, recycled["net.2"] >= 1) == (True, True, True)
    torch.testing.assert_close(mlp(x).detach(), y, rtol=1e-5, atol=1e-6)
    assert any(not torch.equal(parameter, old) for parameter, old in zip(mlp.parameters(), before, strict=True))


def test_the_output_loses_what_the_neuron_contributed() -> None:
    mlp = chain(torch.float64)
    last = SparseMLP([*list(mlp)[:4]], output_activation="relu")
    x = torch.randn(64, 9, dtype=torch.float64)
    neuron = int(last(x).mean(0).argmax())
    contribution = last(x)[:, [neuron]] * mlp[4].weight[:, neuron]
    expected = (mlp(x) - contribution).detach()
    assert contribution.abs().max() > 1e-3
    recycle(mlp[3], mlp[4], np.arange(18) == neuron, torch.optim.Adam(mlp.parameters()), RNG(0))
    torch.testing.assert_close(mlp(x).detach(), expected)


def test_a_silent_network_is_recycled_as_a_whole_and_answers_again() -> None:
    mlp = networks(torch.float32, sparse(3, 4, [0, 2, 5, 6, 10, 11]), sparse(2, 3, [0, 1, 5]), nn.Linear(2, 1))
    silence(mlp, *[(0, neuron) for neuron in range(3)], *[(1, neuron) for neuron in range(2)])
    x = torch.randn(50, 4)
    recycler = Recycler({"net": (mlp, torch.optim.Adam(mlp.parameters()))}, interval=1, threshold=0.0, seed=0)
    assert recycler.recycle_if_due(1, {"net": x}) == {"net.0": 3, "net.1": 2}
    assert (mlp[0](x).relu().mean(0) > 0).all()
    assert mlp[1].values.tolist() == [0.0] * 3  # between recycled neurons


def test_neurons_without_connections_into_them_stay_as_they_are() -> None:
    # Nothing leads to neurons 0 and 2.
    mlp = networks(torch.float32, sparse(3, 4, [4, 6]), nn.Linear(3, 1))
    mlp[0].bias.data[:] = torch.tensor([-1.0, -100.0, 1e-6])
    weights = mlp[1].weight.detach().clone()
    recycler = Recycler({"net": (mlp, torch.optim.Adam(mlp.parameters()))}, interval=1, threshold=0.5, seed=0)
    x = torch.randn(50, 4)
    recycled = recycler.recycle_if_due(1, {"net": x})
    assert recycled == {"net.0": 1}
    assert mlp[0].bias.tolist() == pytest.approx([-1.0, 0.0, 1e-6])
    assert mlp[1].weight[0, 1] == 0
    assert torch.equal(mlp[1].weight[0, [0, 2]], weights[0, [0, 2]])


# --- the clock and its streams ----------------------------------------------------------------------


def test_clock_and_names() -> None:
    learner = Learner()
    learner.advance(1, 7)
    names = ["critic.qf0.0", "critic.qf0.1", "critic.qf1.0", "critic.qf1.1", "actor.mu.0"]
    assert [list(recycled) for recycled in learner.recycled] == [[], [], names, [], [], names, []]
    assert [learner.recycler.is_due(update) for update in range(1, 8)] == [bool(r) for r in learner.recycled]
    events = [recycled for recycled in learner.recycled if recycled]
    assert learner.recycler.recycled_total == {name: sum(event[name] for event in events) for name in names}
    assert min(learner.recycler.recycled_total.values()) > 0


def test_inputs_are_looked_at_only_when_due() -> None:
    recycler = Learner().recycler
    assert recycler.recycle_if_due(1, {}) == {}
    with pytest.raises(KeyError):
        recycler.recycle_if_due(3, {})


def test_stopped_and_resumed_equals_never_stopped() -> None:
    whole = Learner()
    whole.advance(1, 5)
    stored = whole.store()
    whole.advance(6, 12)
    resumed = Learner()
    resumed.advance(1, 6)  # a state of its own, to be replaced: two recyclings instead of one
    resumed.load(stored)
    resumed.advance(6, 12)
    assert resumed.weights() == whole.weights()
    assert resumed.recycler.recycled_total == whole.recycler.recycled_total
    assert resumed.recycled[6:] == whole.recycled[5:]
    assert sum(sum(recycled.values()) for recycled in resumed.recycled[6:]) > 0


def test_networks_alike_are_drawn_differently() -> None:
    critics = Critics()
    critics.qf1.load_state_dict(critics.qf0.state_dict())
    for network in critics.children():
        silence(network, (0, 1), (0, 2), (0, 3))
    recycler = Recycler(
        {"critic": (critics, torch.optim.Adam(critics.parameters()))}, interval=1, threshold=0.0, seed=0
    )
    recycled = recycler.recycle_if_due(1, {"critic": torch.randn(30, 5)})
    assert recycled["critic.qf0.0"] == recycled["critic.qf1.0"] >= 3
    assert not torch.equal(critics.qf0[0].values, critics.qf1[0].values)


def test_another_seed_draws_differently() -> None:
    drawn = []
    for seed in (0, 0, 1):
        critics = Critics()
        silence(critics.qf0, (0, 1), (0, 2))
        optimizer = torch.optim.Adam(critics.parameters())
        recycler = Recycler({"critic": (critics, optimizer)}, interval=1, threshold=0.0, seed=seed)
        recycler.recycle_if_due(1, {"critic": torch.ones(4, 5)})
        drawn.append(critics.qf0[0].values.detach())
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_a_state_of_other_layers_is_refused() -> None:
    recycler = Learner().recycler
    alone = Recycler({"critic": (Critics(), torch.optim.SGD(Critics().parameters()))}, interval=3, threshold=0, seed=1)
    with pytest.raises(TopologyError, match="the stored recycler belongs to a network with other layers"):
        recycler.load_state_dict(alone.state_dict())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"interval": 0}, "the recycling interval must be >= 1, got 0"),
        ({"threshold": -0.5}, r"the dormancy threshold must be in \[0, 1\), got -0.5"),
        ({"threshold": 1.0}, r"the dormancy threshold must be in \[0, 1\), got 1.0"),
    ],
)
def test_bad_numbers_are_refused(changed: dict[str, Any], message: str) -> None:
    critics = Critics()
    kwargs = {"interval": 3, "threshold": 0.1, "seed": 0, **changed}
    with pytest.raises(TopologyError, match=message):
        Recycler({"critic": (critics, torch.optim.Adam(critics.parameters()))}, **kwargs)


def test_a_dense_module_is_refused() -> None:
    dense = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    with pytest.raises(TopologyError, match="'actor' has no sparse network"):
        Recycler({"actor": (dense, torch.optim.Adam(dense.parameters()))}, interval=3, threshold=0.1, seed=0)


def test_activities_that_are_not_finite_stop_it() -> None:
    critics = Critics()
    recycler = Recycler(
        {"critic": (critics, torch.optim.Adam(critics.parameters()))}, interval=1, threshold=0.1, seed=0
    )
    with pytest.raises(TopologyError, match="an activity is NaN or infinite"):
        recycler.recycle_if_due(1, {"critic": torch.full((4, 5), torch.nan)})
