"""What stands between layers: activations, winners and dropout, worked by hand and in networks."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from sparserl.layers import MultiHeadMLP, SparseMLP
from sparserl.layers.activations import ACTIVATIONS, Dropout, HiddenUnits, KWinners
from sparserl.layers.activity import hidden_activity
from sparserl.layers.convert import to_dense
from sparserl.topology.config import TopologyConfig

HALF = TopologyConfig(method="static", density=0.5, output_layer="sparse")
Z = torch.tensor([-2.0, -0.5, 0.0, 1.5])


def network(units: HiddenUnits | str, sizes: tuple[int, ...] = (6, 8, 10, 8, 3), seed: int = 0) -> SparseMLP:
    torch.manual_seed(seed)
    return SparseMLP.random(sizes, topology=HALF, seed=seed, name="network", activation=units)


def batch(rows: int = 5, features: int = 6, seed: int = 1) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(rows, features)).astype(np.float32))


@pytest.mark.parametrize(("number", "expected"), [(1, [1.2, 0.3, 0, 1.5]), (2, [-1.2, -0.3, 0, 1.5])])
def test_all_relu_alternates_its_slope(number: int, expected: list[float]) -> None:
    units = HiddenUnits("all_relu", slope=0.6)
    torch.testing.assert_close(ACTIVATIONS["all_relu"](units, number, 4)(Z), torch.tensor(expected))
    torch.testing.assert_close(ACTIVATIONS["all_relu"](units, number + 2, 4)(Z), torch.tensor(expected))


def winners(boost: float = 1.0) -> KWinners:
    """2 of 4, with the duty cycles (.9, .1, .5, .5)."""
    module = KWinners(4, 0.5, boost, 0.9)
    module.duty.copy_(torch.tensor([0.9, 0.1, 0.5, 0.5]))
    return module


X = torch.tensor([[0.9, 0.8, 0.1, 0.7], [0.2, 0.9, 0.8, 0.1]])


def test_winners_worked_by_hand() -> None:
    # By x exp(-duty): .366 .724 .061 .425 and .081 .814 .485 .061.
    module = winners()
    x = X.clone().requires_grad_()
    y = module(x)
    assert torch.equal(y, torch.tensor([[0, 0.8, 0, 0.7], [0, 0.9, 0.8, 0]]))
    torch.testing.assert_close(module.duty, torch.tensor([0.8982, 0.1018, 0.5, 0.5]))
    y.sum().backward()
    assert torch.equal(x.grad, torch.tensor([[0.0, 1, 0, 1], [0, 1, 1, 0]]))  # type: ignore[arg-type]


def test_without_boost_the_largest_win() -> None:
    assert torch.equal(winners(0.0)(X), torch.tensor([[0.9, 0.8, 0, 0], [0, 0.9, 0.8, 0]]))


def test_in_use_half_as_many_more_win_and_nothing_is_counted() -> None:
    module = winners().eval()
    assert torch.equal(module(X), torch.tensor([[0.9, 0.8, 0, 0.7], [0.2, 0.9, 0.8, 0]]))
    module.train()
    with torch.no_grad():
        module(X)
    assert module.duty.tolist() == winners().duty.tolist()


def test_a_large_batch_replaces_the_average_of_wins() -> None:
    module = winners(0.0)
    module(X.repeat(1000, 1))
    assert module.duty.tolist() == [0.5, 1.0, 0.5, 0.0]


def test_the_boost_falls_each_epoch() -> None:
    mlp = network(HiddenUnits("k_winners", boost=2.0, boost_decay=0.5))
    mlp.end_epoch()
    mlp.end_epoch()
    assert [float(layer.after.boost) for layer in list(mlp)[:-1]] == [0.5] * 3  # type: ignore[union-attr]


@pytest.mark.parametrize(("n", "share", "k", "in_use"), [(10, 0.25, 3, 4), (3, 0.01, 1, 1), (4, 0.9, 4, 4)])
def test_at_least_one_and_at_most_all_win(n: int, share: float, k: int, in_use: int) -> None:
    module = KWinners(n, share, 1.0, 0.9)
    assert (module.k, module.k_in_use) == (k, in_use)


def test_dropout_keeps_the_mean_and_is_off_in_use() -> None:
    module = Dropout(torch.relu, 0.25, seed=3)
    x = torch.cat([torch.ones(100, 400), -torch.ones(1, 400)]).requires_grad_()
    y = module(x)
    values = y.detach()
    assert set(values.unique().tolist()) == {0.0, float(torch.tensor(1.0) / 0.75)}
    assert abs(float(values[:100].mean()) - 1) < 0.02
    y.sum().backward()
    assert torch.equal(x.grad[:100], values[:100])  # type: ignore[index]
    assert not torch.equal(module(x).detach(), values)
    assert torch.equal(module.eval()(x), torch.relu(x))
    assert int(module.passes) == 2


def test_dropout_may_shrink_what_is_in_use_instead() -> None:
    module = Dropout(torch.relu, 0.25, seed=3, rescaled=False)
    x = torch.ones(100, 400)
    assert set(module(x).unique().tolist()) == {0.0, 1.0}
    assert torch.equal(module.eval()(x), 0.75 * x)


def test_a_network_goes_on_as_if_it_had_not_been_stored() -> None:
    units = HiddenUnits("k_winners", winners=0.3, dropout=0.5)
    mlp, x = network(units), batch()
    for _ in range(3):
        mlp(x)
    state = torch.random.get_rng_state()
    restored = network(units, seed=0)
    restored.load_state_dict(mlp.state_dict())
    for other in (restored, copy.deepcopy(mlp), pickle.loads(pickle.dumps(mlp))):
        assert list(other.state_dict()) == list(mlp.state_dict())
    same = copy.deepcopy(mlp)
    torch.random.set_rng_state(state)
    outputs = [mlp(x) for _ in range(4)]
    for y in outputs:
        assert torch.equal(restored(x), y)
        assert torch.equal(same(x), y)
    assert not torch.equal(outputs[0], outputs[1])
    assert torch.equal(torch.random.get_rng_state(), state)  # its draws are its own
    assert float(mlp.state_dict()["0.after.function.duty"].sum()) > 0


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_output_and_gradients_equal_those_of_torch(activation: str) -> None:
    units = HiddenUnits(activation, slope=0.4, winners=0.4, boost=0.0)
    mlp, x = network(units).double(), batch().double()
    dense = [to_dense(layer) for layer in mlp]  # type: ignore[arg-type]
    functions: dict[str, list[nn.Module]] = {
        "relu": [nn.ReLU()] * 3,
        "tanh": [nn.Tanh()] * 3,
        "sigmoid": [nn.Sigmoid()] * 3,
        "identity": [nn.Identity()] * 3,
        "all_relu": [nn.LeakyReLU(-0.4), nn.LeakyReLU(0.4), nn.LeakyReLU(-0.4)],
        "k_winners": [KWinners(layer.out_features, 0.4, 0.0, 1.0) for layer in dense[:-1]],
    }
    h = x
    for layer, function in zip(dense, [*functions[activation], nn.Identity()], strict=True):
        h = function(layer(h))
    y = mlp(x)
    torch.testing.assert_close(y, h)
    y.square().sum().backward()
    h.square().sum().backward()
    for layer, twin in zip(mlp, dense, strict=True):
        gradient = twin.weight.grad.flatten()[torch.from_numpy(layer.topology.flat)]  # type: ignore[union-attr, operator]
        torch.testing.assert_close(layer.values.grad, gradient)


def test_relu_alone_runs_in_one_call() -> None:
    assert [len(network(units).parts) for units in ("relu", "all_relu", HiddenUnits(dropout=0.1))] == [1, 4, 4]


def test_measuring_a_network_draws_and_counts_nothing() -> None:
    mlp = network(HiddenUnits("k_winners", dropout=0.5))
    before = copy.deepcopy(mlp.state_dict())
    first, second = (hidden_activity(mlp, batch()) for _ in range(2))
    assert all(np.array_equal(*pair) for pair in zip(first, second, strict=True))
    assert all(torch.equal(before[name], tensor) for name, tensor in mlp.state_dict().items())
    assert mlp.training


def test_other_layers_share_what_follows_them() -> None:
    mlp = network(HiddenUnits("k_winners", winners=0.3))
    other = mlp.with_layers([*copy.deepcopy(list(mlp)[:2]), *list(mlp)[2:]])
    assert other.functions is mlp.functions
    mlp(batch())
    assert torch.equal(other[0].after.duty, mlp[0].after.duty)  # type: ignore[union-attr]
    assert float(other[0].after.duty.sum()) > 0  # type: ignore[union-attr]


def test_heads_share_what_follows_the_trunk() -> None:
    torch.manual_seed(0)
    units = HiddenUnits("k_winners", winners=0.3)
    heads = MultiHeadMLP.random((6, 8, 3), 2, topology=HALF, seed=0, name="network", activation=units)
    heads(batch(), torch.tensor([0, 0, 0, 1, 1]))
    assert [name for name in heads.state_dict() if "duty" in name] == ["trunk.0.after.duty"]
    assert float(heads.trunk[0].after.duty.sum()) == pytest.approx(3 * 2 / 1000 * 0.998 + 2 * 2 / 1000)  # type: ignore[union-attr]


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"activation must be one of .*'all_relu'.*, got 'rellu'"):
        network("rellu")
