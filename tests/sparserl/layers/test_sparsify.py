"""`sparsify`: a torch model becomes sparse in place and goes on training in its own loop."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from oracle.masked_dense import dense_weight
from support.torch_models import kinds, perceptron, problem, train
from torch import nn

from sparserl.errors import TopologyError
from sparserl.layers.sparse_linear import SparseLinear
from sparserl.layers.sparsify import SparseTraining, sparsify
from sparserl.topology.config import TopologyConfig


@pytest.mark.parametrize(("method", "sparse"), [("set", "02"), ("rigl", "024"), ("static", "02"), ("ds_td3", "02")])
def test_learns_and_stays_sparse(method: str, sparse: str) -> None:
    model = perceptron()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    rewires = {} if method == "static" else {"update_interval": 20}
    evolver = sparsify(
        model, optimizer, density=0.2, method=method, total_updates=None if method == "static" else 150, **rewires
    )
    nnz = {name: layer.nnz for name, layer in evolver.layers.items()}
    assert "".join(evolver.layers) == sparse
    flat = model[2].topology.flat
    first = train(model, optimizer, evolver, 1)
    last = train(model, optimizer, evolver, 129)
    assert last < 0.3 * first
    assert {name: layer.nnz for name, layer in evolver.layers.items()} == nnz
    assert evolver.updates == 130
    updates = sorted({event.update for event in evolver.events})
    assert np.array_equal(model[2].topology.flat, flat) == (method == "static")
    start = {"static": None, "ds_td3": 2}.get(method, 1)
    end = 112 if method == "rigl" else 142  # the method's share of 150
    assert updates == ([0] if start is None else [0, *[u for u in range(start, 131, 20) if u <= end]])


def test_keeps_weights_and_biases_and_the_first_output() -> None:
    model = perceptron()
    dense, biases = copy.deepcopy(model), [model[0].bias, model[2].bias]
    sparsify(model, torch.optim.SGD(model.parameters(), lr=0.1), density=0.3)
    assert kinds(model) == {"0": "SparseLinear", "2": "SparseLinear", "4": "Linear"}
    assert [model[0].bias, model[2].bias] == biases
    assert model[0].bias is biases[0]
    with torch.no_grad():
        for position in (0, 2):
            weight, mask = dense_weight(model[position])
            assert torch.equal(weight, dense[position].weight * mask)
            dense[position].weight *= mask
    torch.testing.assert_close(model(problem()[0]), dense(problem()[0]))


def test_number_of_connections_is_the_budget() -> None:
    model = perceptron(n_in=40, hidden=100)
    layers = sparsify(model, torch.optim.SGD(model.parameters(), lr=0.1), density=0.1).layers
    assert abs(sum(layer.nnz for layer in layers.values()) - 0.1 * (40 * 100 + 100 * 100)) < 2
    assert layers["0"].density > layers["2"].density > 0  # Erdos-Renyi: the wider, the sparser
    model = perceptron(n_in=40, hidden=100)
    layers = sparsify(model, torch.optim.SGD(model.parameters(), lr=0.1), density=[0.25, 0.01]).layers
    assert [layer.nnz for layer in layers.values()] == [1000, 100]


def test_neurons_that_share_inputs_keep_the_weights_they_have() -> None:
    dense, model = perceptron(), perceptron()
    sparsify(model, torch.optim.Adam(model.parameters()), density=[0.1, 0.3], pairs=4)
    assert [model[0].nnz, model[2].nnz] == [48, 480]
    for place in (0, 2):
        weight, mask = dense_weight(model[place])
        rows = mask.reshape(10, 4, -1)
        assert torch.equal(rows, rows[:, :1].expand_as(rows))
        assert torch.equal(weight, dense[place].weight * mask)
    assert isinstance(model[4], nn.Linear)  # 3 neurons, and dense


def test_draws_depend_on_the_seed_alone_and_leave_torch_alone() -> None:
    topologies = []
    for seed in (0, 0, 1):
        model = perceptron()
        torch.manual_seed(5)
        layers = sparsify(model, torch.optim.SGD(model.parameters(), lr=0.1), density=0.3, seed=seed).layers
        drawn = torch.rand(1)
        torch.manual_seed(5)
        assert torch.equal(drawn, torch.rand(1))
        topologies.append(layers["2"].topology.flat)
    np.testing.assert_array_equal(topologies[0], topologies[1])
    assert not np.array_equal(topologies[0], topologies[2])


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adam": lambda p: torch.optim.Adam(p, lr=1e-3, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-3),
    "momentum": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-3, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-2),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_goes_on_where_it_was(name: str) -> None:
    """After dense training the next sparse step equals the masked dense one, for kept connections, moments and all."""
    model = perceptron(dtype=torch.float64)
    groups = [{"params": [model[4].weight]}, {"params": [p for p in model.parameters() if p is not model[4].weight]}]
    optimizer = OPTIMIZERS[name](groups)
    x, y = (t.double() for t in problem())
    for _ in range(3):
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
    dense = copy.deepcopy(model)
    dense_optimizer = OPTIMIZERS[name](
        [{"params": [dense[4].weight]}, {"params": [p for p in dense.parameters() if p is not dense[4].weight]}]
    )
    dense_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    count = len(optimizer.state)
    evolver = sparsify(model, optimizer, density=0.3)
    assert len(optimizer.state) == count
    assert [[id(p) for p in group["params"]] for group in optimizer.param_groups] == [
        [id(model[4].weight)],
        [id(p) for p in (model[0].values, model[0].bias, model[2].values, model[2].bias, model[4].bias)],
    ]
    kept = {}
    with torch.no_grad():
        for position in (0, 2):
            kept[position] = dense_weight(model[position])[1].bool()
            dense[position].weight *= kept[position]
    for each, its_optimizer in ((model, optimizer), (dense, dense_optimizer)):
        its_optimizer.zero_grad()
        (each(x) - y).square().mean().backward()
        its_optimizer.step()
    for position in (0, 2):
        torch.testing.assert_close(model[position].values, dense[position].weight[kept[position]])
        state, dense_state = optimizer.state[model[position].values], dense_optimizer.state[dense[position].weight]
        assert state.keys() == dense_state.keys()
        for key, value in dense_state.items():
            expected = value[kept[position]] if torch.is_tensor(value) and value.dim() else value
            torch.testing.assert_close(state[key], expected)
    assert [event.layer for event in evolver.step()] == ["0", "2"]  # the state follows events, whatever it is
    for position in (0, 2):
        for value in optimizer.state[model[position].values].values():
            assert not torch.is_tensor(value) or value.shape in ((), model[position].values.shape)


def test_rewiring_moves_the_moments() -> None:
    model = perceptron()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    evolver = sparsify(model, optimizer, density=0.2, update_interval=5, first_update=5)
    train(model, optimizer, evolver, 4)
    x, y = problem()
    optimizer.zero_grad()
    (model(x) - y).square().mean().backward()
    optimizer.step()
    layer, state = model[2], optimizer.state[model[2].values]
    before = dict(zip(layer.topology.flat.tolist(), state["exp_avg_sq"].tolist(), strict=True))
    values = layer.values
    events = evolver.step()
    assert [event.layer for event in events] == ["0", "2"]
    assert all(event.grown > 0 for event in events)
    assert layer.values is values
    after = dict(zip(layer.topology.flat.tolist(), state["exp_avg_sq"].tolist(), strict=True))
    new = after.keys() - before.keys()
    assert new
    assert {after[position] for position in new} == {0.0}
    survived = sum(after[position] == before[position] for position in after.keys() & before.keys())
    assert survived >= layer.nnz - events[1].grown


def test_growth_by_gradient_takes_the_largest_of_the_last_backward_pass() -> None:
    model = perceptron(dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    evolver = sparsify(
        model, optimizer, density=[0.2, 0.2, 0.5], method="rigl", update_interval=3, first_update=3, total_updates=100
    )
    x, y = (t.double() for t in problem())
    for update in (1, 2, 3):
        x = x + 0.5
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        assert bool(model[2].activation_pairs) == (update == 3)  # memory is held only where it is needed
        if update == 3:
            dense = nn.Sequential(*[copy.deepcopy(m) for m in model])
            dense[2] = nn.Linear(40, 40, dtype=torch.float64)
            with torch.no_grad():
                dense[2].weight.copy_(dense_weight(model[2])[0])
                dense[2].bias.copy_(model[2].bias)
            (dense(x) - y).square().mean().backward()
        optimizer.step()
        old = model[2].topology.flat
        evolver.step()
    new = model[2].topology.flat
    grown = np.setdiff1d(new, old)
    assert grown.size
    gradient = dense[2].weight.grad.abs().flatten().numpy()
    never = np.setdiff1d(np.arange(1600), np.union1d(old, new))
    assert gradient[grown].min() >= gradient[never].max()
    assert model[2].activation_pairs == []


def test_growth_by_gradient_needs_a_backward_pass() -> None:
    model = perceptron()
    evolver = sparsify(model, torch.optim.SGD(model.parameters(), lr=0.1), method="rigl", density=0.3, last_update=9)
    with pytest.raises(TopologyError, match="growth by gradient needs"):
        evolver.step()


@pytest.mark.parametrize(
    ("method", "more"),
    [
        *((method, {}) for method in ("set", "rigl", "ds_td3", "gmp", "granet", "deepr")),
        ("rigl", {"gradient_batches": 3}),
        ("ds_td3", {"pairs": 2}),
        ("set", {"pairs": 4}),
    ],
)
@pytest.mark.parametrize("stop", [7, 10])  # in the middle, and just before an event
def test_resumed_run_equals_the_uninterrupted_one(method: str, more: dict[str, int], stop: int) -> None:
    def start() -> tuple[nn.Module, torch.optim.Optimizer, SparseTraining]:
        model = perceptron()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        options = {"update_interval": 5, "first_update": 1, "total_updates": 30, **more}
        return model, optimizer, sparsify(model, optimizer, density=0.2, method=method, **options)

    whole = start()
    train(*whole, 26)
    first = start()
    train(*first, stop)
    stored = copy.deepcopy([part.state_dict() for part in first])
    second = start()
    train(*second, 2)  # whatever it did before must not matter
    for part, state in zip(reversed(second), reversed(stored), strict=True):
        part.load_state_dict(state)
    assert second[2].updates == stop
    train(*second, 26 - stop)
    for name, tensor in whole[0].state_dict().items():
        assert torch.equal(tensor, second[0].state_dict()[name]), name
    assert second[2].updates == 26
    late = [event for event in whole[2].events if event.update > stop]
    assert late
    assert second[2].events == late


def test_pruning_begins_with_the_model_as_it_is_and_ends_at_the_density() -> None:
    model = perceptron(hidden=60)
    dense = copy.deepcopy(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    evolver = sparsify(model, optimizer, density=0.2, method="gmp", total_updates=100, update_interval=10)
    # The output layer takes part, and Erdos-Renyi leaves it dense.
    assert kinds(model) == {"0": "SparseLinear", "2": "SparseLinear", "4": "Linear"}
    assert [layer.density for layer in evolver.layers.values()] == [1.0, 1.0]
    torch.testing.assert_close(model(problem()[0]), dense(problem()[0]))
    first = train(model, optimizer, evolver, 1)
    last = train(model, optimizer, evolver, 149)
    assert last < 0.3 * first
    assert abs(sum(layer.nnz for layer in evolver.layers.values()) + 3 * 60 - 0.2 * (12 + 60 + 3) * 60) < 2
    events = [event for event in evolver.events if event.layer == "2"]
    assert [event.update for event in events] == [0, *range(20, 81, 10)]
    assert {event.kind for event in events[1:]} == {"prune"}
    assert events[1].nnz == 3600  # 20 % of the run: pruning begins
    assert [event.nnz for event in events] == sorted((event.nnz for event in events), reverse=True)
    state = optimizer.state[model[2].values]
    assert state["exp_avg"].numel() == state["exp_avg_sq"].numel() == model[2].values.numel() == events[-1].nnz


def test_pruning_between_updates_that_are_given_needs_no_length() -> None:
    model = perceptron()
    optimizer = torch.optim.Adam(model.parameters())
    window = {"first_update": 2, "last_update": 6, "update_interval": 1}
    evolver = sparsify(model, optimizer, density=[0.25, 0.1, 0.5], method="gmp", **window)
    train(model, optimizer, evolver, 6)
    assert [layer.nnz for layer in evolver.layers.values()] == [120, 160, 60]


def test_state_of_another_model_is_refused() -> None:
    model, other = perceptron(), perceptron()
    state = sparsify(model, torch.optim.SGD(model.parameters(), lr=0.1), exclude=["2"]).state_dict()
    evolver = sparsify(other, torch.optim.SGD(other.parameters(), lr=0.1))
    with pytest.raises(TopologyError, match="other layers"):
        evolver.load_state_dict(state)


def test_it_takes_what_agents_take() -> None:
    """Allocation, factors, an output layer and new values, as in a `TopologyConfig`."""
    model = perceptron()
    uniform = sparsify(model, torch.optim.Adam(model.parameters()), density=0.2, allocation="uniform")
    assert [layer.density for layer in uniform.layers.values()] == pytest.approx([0.2, 0.2], abs=1e-3)
    model = perceptron()
    shapes = [tuple(layer.weight.shape) for layer in model if isinstance(layer, nn.Linear)]
    by_factor = sparsify(model, torch.optim.Adam(model.parameters()), epsilon=(3.0, 3.0), new_value="uniform")
    expected = TopologyConfig(method="set", epsilon=(3.0, 3.0)).densities(shapes)[:-1]
    assert [layer.density for layer in by_factor.layers.values()] == pytest.approx(expected, abs=1e-3)
    assert by_factor.evolver.new_value == "uniform"
    model = perceptron()
    whole = sparsify(model, torch.optim.Adam(model.parameters()), density=[0.5] * 3, output_layer="sparse")
    assert len(whole.layers) == len(shapes)


def test_a_model_without_an_optimizer_is_sparse_and_gets_one_later() -> None:
    both = []
    for is_late in (False, True):
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 2))
        optimizer = None if is_late else torch.optim.Adam(model.parameters())
        training = sparsify(model, optimizer, density=0.3, method="set", update_interval=2, seed=1)
        if optimizer is None:
            assert isinstance(model[0], SparseLinear)
            assert training.summary().endswith("sparsify was given no optimizer: connections stay as they are")
            with pytest.raises(TopologyError, match=r"given no optimizer: call follow\(optimizer\)"):
                training.step()
            optimizer = torch.optim.Adam(model.parameters())
            training.follow(optimizer)
            assert "no optimizer" not in training.summary()
        for _ in range(4):
            optimizer.zero_grad()
            model(torch.ones(5, 6)).square().sum().backward()
            optimizer.step()
            training.step()
        assert any(event.kind == "rewire" for event in training.events)
        both.append(model.state_dict())
    assert all(torch.equal(both[0][name], both[1][name]) for name in both[0])


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        ({"density": np.float32(0.25)}, {"density": 0.25}),
        ({"density": np.array([0.25, 0.5])}, {"density": [0.25, 0.5]}),
        ({"epsilon": 3}, {"epsilon": (3.0,)}),
        ({"epsilon": np.float64(3.0)}, {"epsilon": (3.0,)}),
    ],
)
def test_numbers_of_all_kinds_are_taken(given: dict[str, Any], plain: dict[str, Any]) -> None:
    counts = []
    for wish in (given, plain):
        model = perceptron()
        counts.append([layer.nnz for layer in sparsify(model, **wish).layers.values()])
    assert counts[0] == counts[1]


def test_an_optimizer_of_named_parameters_names_what_there_is_now() -> None:
    part = nn.Sequential(nn.Linear(12, 8), nn.MultiheadAttention(8, 2), nn.Linear(8, 2))
    model = nn.Sequential(nn.Linear(3, 12), part)
    optimizer = torch.optim.Adam(model.named_parameters())
    sparsify(part, optimizer, density=0.4)
    (group,) = optimizer.param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert group["param_names"] == [names[id(parameter)] for parameter in group["params"]]
    assert "1.1.q_proj.values" in group["param_names"]
