"""Networks of residual blocks: SimBa's numbers with masked dense weights, on any way that they are computed."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sparserl.errors import TopologyError
from sparserl.layers import SparseEnsemble, SparseLinear
from sparserl.layers.activity import hidden_activity
from sparserl.layers.fused import FusedLayers
from sparserl.layers.linear import linear
from sparserl.layers.norms import RunningNorm
from sparserl.layers.pruning import pruned
from sparserl.layers.residual import ResidualMLP, block_widths
from sparserl.topology.config import TopologyConfig


def network(density: float = 0.3, *, method: str = "set", width: int = 9, blocks: int = 2, **more: Any) -> ResidualMLP:
    topology = TopologyConfig(method=method, density=density, **more.pop("topology", {}))
    return ResidualMLP.blocks(5, width, blocks, 2, topology=topology, seed=0, name="critic.qf0", **more)


def moved(one: ResidualMLP) -> ResidualMLP:
    """With norms and biases that are not as they begin."""
    for parameter in one.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape)
    return one


class Dense(nn.Module):
    """SimBa's network, written down from its paper."""

    def __init__(self, of: ResidualMLP):
        super().__init__()
        layers = []
        for layer in of:
            view = linear(layer)
            weight = torch.zeros(view.shape)
            at = torch.from_numpy(view.flat(np.arange(view.weights.numel())))
            weight.view(-1)[at] = view.weights.detach().flatten()
            layers.append(nn.Linear(*reversed(view.shape)))
            layers[-1].weight.data, layers[-1].bias.data = weight, view.bias.detach().clone()  # type: ignore[union-attr]
        self.embedding, self.head, self.blocks = layers[0], layers[-1], nn.ModuleList(layers[1:-1])
        self.norms = nn.ModuleList(copy.deepcopy(norm) for norm in of.norms[1::2])  # type: ignore[misc]  # are there
        self.running = of.norms[0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.embedding(x if self.running is None else self.running(x))
        for block in range(len(self.norms) - 1):
            wide, narrow = self.blocks[2 * block], self.blocks[2 * block + 1]
            h = h + narrow(torch.relu(wide(self.norms[block](h))))
        out: torch.Tensor = self.head(self.norms[-1](h))
        return out


def observed() -> RunningNorm:
    running = RunningNorm(3, 2)
    running.observe(2.0 + 3.0 * np.random.default_rng(0).normal(size=(40, 3)))
    return running


@pytest.mark.parametrize("density", [0.1, 0.5, 1.0])
def test_it_computes_what_simba_does(density: float) -> None:
    own = moved(network(density, method="dense" if density == 1.0 else "set", running=observed()))
    twin, x = Dense(own), torch.randn(7, 5, requires_grad=True)
    y, dy = own(x), torch.randn(7, 2)
    (toward,) = torch.autograd.grad(y, x, dy, retain_graph=True)
    y.backward(dy)
    twin(x).backward(dy)  # which adds to x.grad, where `y.backward` was first
    torch.testing.assert_close(y, twin(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(x.grad, 2 * toward, rtol=1e-4, atol=1e-4)
    for norm, theirs in zip(own.norms[1::2], twin.norms, strict=True):
        for ours, other in zip(norm.parameters(), theirs.parameters(), strict=True):  # type: ignore[union-attr]
            torch.testing.assert_close(ours.grad, other.grad, rtol=1e-4, atol=1e-4)
    for layer, dense in zip(own, [twin.embedding, *twin.blocks, twin.head], strict=True):
        view = linear(layer)
        at = torch.from_numpy(view.flat(np.arange(view.weights.numel())))
        torch.testing.assert_close(view.weights.grad.flatten(), dense.weight.grad.view(-1)[at], rtol=1e-4, atol=1e-4)


def test_one_call_where_all_layers_join_and_layer_by_layer_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    own = moved(network(0.3))
    [(part, _)] = own.parts
    assert isinstance(part, FusedLayers)
    x = torch.randn(6, 5)
    whole = own(x)
    monkeypatch.setattr("sparserl.layers.sparse_mlp.joins", lambda layer: False)
    apart = copy.deepcopy(own)
    apart._cut = ([], [])
    assert len(apart.parts) == 6
    torch.testing.assert_close(apart(x), whole)
    *_, (_, _, last) = own.levels(x)
    torch.testing.assert_close(last, whole)


def test_networks_side_by_side_run_in_one_call() -> None:
    networks = [moved(network(0.3)) for _ in range(3)]
    ensemble, x = SparseEnsemble(networks), torch.randn(6, 5)
    assert ensemble.joined is not None
    for ours, one in zip(ensemble(x), networks, strict=True):
        assert torch.equal(ours, one(x))


def test_layers_and_widths() -> None:
    assert block_widths(5, 9, 2, 2) == [5, 9, 36, 9, 36, 9, 2]
    own = network(0.3)
    assert [linear(layer).shape for layer in own] == [(9, 5), (36, 9), (9, 36), (36, 9), (9, 36), (2, 9)]
    assert [type(norm) for norm in own.norms] == [type(None), nn.LayerNorm] * 3
    assert own.activations == ["identity", "relu", "identity", "relu", "identity", "identity"]
    names = {name for name, _ in own.named_parameters()}
    assert {"1.before.weight", "1.before.bias", "5.before.weight"} < names


def test_first_weights_are_those_of_simba() -> None:
    torch.manual_seed(0)
    own = network(0.2, width=64)
    assert all(not linear(layer).bias.any() for layer in own)  # type: ignore[union-attr]  # have some
    for layer in list(own)[1:-1]:
        assert isinstance(layer, SparseLinear)
        assert layer.values.std().item() == pytest.approx((2.0 / layer.n_in) ** 0.5, rel=0.1)
    head: Any = own[-1]
    torch.testing.assert_close(head.weight @ head.weight.T, torch.eye(2), rtol=0, atol=1e-5)
    given = network(0.2, width=64, topology={"initial_value": "sparse_xavier"})
    assert all(not linear(layer).bias.any() for layer in given)  # type: ignore[union-attr]  # as above
    assert given[1].values.abs().max() > 1.2 * own[1].values.abs().mean()


def test_pruned_networks_keep_their_norms() -> None:
    own = moved(network(0.5, running=observed()))
    fewer = pruned(own, 0.2, "lamp", name="critic.qf0")
    assert type(fewer) is ResidualMLP
    assert fewer.norms == own.norms
    assert sum(linear(layer).weights.numel() for layer in fewer) < sum(linear(layer).weights.numel() for layer in own)
    twin = Dense(fewer)
    x = torch.randn(4, 5)
    torch.testing.assert_close(fewer(x), twin(x), rtol=1e-4, atol=1e-5)
    assert [len(activity) for activity in hidden_activity(own, x)] == [9, 36, 9, 36, 9]


def test_a_copy_goes_its_own_way() -> None:
    own = moved(network(0.3, running=observed()))
    other, x = copy.deepcopy(own), torch.randn(4, 5)
    before = own(x).detach().clone()
    assert torch.equal(other(x), before)
    other.norms[0].observe(np.full((50, 3), 9.0))  # type: ignore[union-attr]  # is there
    assert torch.equal(own(x), before)
    assert not torch.equal(other(x), before)


def test_a_layer_without_connections_is_refused() -> None:
    with pytest.raises(TopologyError, match=r"leaves 5 layers of .* fewer than one each; the closest is 0.0038$"):
        network(topology={"allocation": "uniform"}, density=0.0005)


def test_other_forms_are_refused() -> None:
    with pytest.raises(TopologyError, match="even number of layers, at least 4, got 3"):
        ResidualMLP([nn.Linear(4, 4) for _ in range(3)])
    with pytest.raises(TopologyError, match="initial_topology largest is for networks without residual blocks"):
        network(topology={"initial_topology": "largest"})


# --- statistics of observations ---------------------------------------------------------------------


def test_statistics_are_those_of_all_that_was_observed() -> None:
    rows = np.random.default_rng(0).normal(3.0, 2.0, size=(500, 3))
    running = RunningNorm(3, 2)
    for start, end in ((0, 1), (1, 2), (2, 10), (10, 500)):
        running.observe(rows[start:end].astype(np.float32))
    np.testing.assert_allclose(running.mean, rows.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(running.var, rows.var(axis=0), rtol=1e-5)
    x = torch.from_numpy(np.concatenate([rows, np.ones((500, 2))], axis=1)).float()
    y = running(x)
    torch.testing.assert_close(y[:, :3].mean(dim=0), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(y[:, :3].std(dim=0, correction=0), torch.ones(3), rtol=0, atol=1e-4)
    assert torch.equal(y[:, 3:], x[:, 3:])
    assert torch.equal(running(x[:, :3]), y[:, :3])


def test_statistics_worked_by_hand() -> None:
    running = RunningNorm(1, epsilon=0.0)
    running.count.fill_(2.0)  # as if of -1 and 1
    running.observe(np.array([[3.0]]))
    # -1, 1, 3: mean 1, variance 8/3.
    assert running.mean.item() == pytest.approx(1.0)
    assert running.var.item() == pytest.approx(8 / 3)
    assert running(torch.tensor([[1.0]])).item() == pytest.approx(0.0, abs=1e-6)


def test_statistics_survive_and_do_not_fit_other_spaces() -> None:
    own, other = network(running=observed()), network(running=RunningNorm(3, 2))
    other.load_state_dict(own.state_dict())
    x = torch.randn(3, 5)
    assert torch.equal(own(x), other(x))
    with pytest.raises(RuntimeError, match=r"before.mean: copying a param with shape torch.Size\(\[3\]\)"):
        network(running=RunningNorm(4, 1)).load_state_dict(own.state_dict())
