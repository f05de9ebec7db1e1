"""`sparsify`: somebody's torch model becomes sparse in place and goes on training in its own loop."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.utils.prune
from oracle.masked_dense import dense_weight
from torch import nn

from sparserl.errors import ConfigError, KernelUnavailable, TopologyError
from sparserl.layers import SparseLinear
from sparserl.layers.sparsify import SparseTraining, sparsify
from sparserl.topology.config import TopologyConfig


def perceptron(n_in: int = 12, hidden: int = 40, n_out: int = 3, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(n_in, hidden, dtype=dtype),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, hidden, dtype=dtype),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, n_out, dtype=dtype),
    )


def problem(n_in: int = 12, n_out: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(64, n_in, generator=torch.Generator().manual_seed(1))
    return x, torch.sin(2 * x[:, :n_out]) + x[:, 1 : 1 + n_out]


def train(model: nn.Module, optimizer: torch.optim.Optimizer, evolver: SparseTraining | None, updates: int) -> float:
    x, y = problem()
    for _ in range(updates):
        optimizer.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        if evolver is not None:
            evolver.step()
    return loss.item()


def kinds(model: nn.Module) -> dict[str, str]:
    return {name: type(m).__name__ for name, m in model.named_modules() if isinstance(m, nn.Linear | SparseLinear)}


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
        *((method, {}) for method in ("set", "rigl", "ds_td3", "gmp", "granet")),
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


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.ModuleDict({"first": nn.Linear(12, 40), "second": nn.Linear(40, 40)})
        self.again = self.body["second"]
        self.heads = nn.ModuleList([nn.Linear(40, 3), nn.Linear(40, 3)])
        self.convolution = nn.Conv1d(1, 1, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.body["first"](x))
        x = torch.relu(self.again(torch.relu(self.body["second"](x))))
        return sum(head(x) for head in self.heads)  # type: ignore[return-value]


def test_excludes_layers_and_whole_modules() -> None:
    model = TwoHeads()
    layers = sparsify(model, torch.optim.Adam(model.parameters()), exclude=["body.first", "heads"]).layers
    assert list(layers) == ["body.second"]
    assert kinds(model) == {
        "body.first": "Linear", "body.second": "SparseLinear", "heads.0": "Linear", "heads.1": "Linear"
    }  # fmt: skip
    assert list(sparsify(model, torch.optim.Adam(model.parameters()), exclude="heads.0").layers) == ["body.first"]


def test_a_module_used_twice_is_replaced_in_both_places() -> None:
    model = TwoHeads()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    evolver = sparsify(model, optimizer, density=[0.3] * 4, method="rigl", update_interval=2, total_updates=100)
    assert model.again is model.body["second"]
    assert list(evolver.layers) == ["body.first", "body.second", "heads.0", "heads.1"]
    first = train(model, optimizer, evolver, 1)
    assert train(model, optimizer, evolver, 20) < first


def test_last_layer_is_sparse_if_it_is_the_only_one() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    sparsify(model, torch.optim.Adam(model.parameters()), density=0.5)
    assert model[1].nnz == 18


@pytest.mark.parametrize("options", [{"density": 1.0}, {"method": "dense"}])
def test_dense_changes_nothing(options: dict[str, Any]) -> None:
    model = perceptron()
    before = list(model.parameters())
    optimizer = torch.optim.Adam(model.parameters())
    evolver = sparsify(model, optimizer, **options)
    assert evolver.layers == {}
    assert all(a is b for a, b in zip(model.parameters(), before, strict=True))
    train(model, optimizer, evolver, 2)
    assert evolver.updates == 2
    assert evolver.events == []


def test_gradient_and_training_flag_are_kept() -> None:
    model = perceptron()
    model.eval()
    model(problem()[0]).sum().backward()
    gradient = model[2].weight.grad.clone()
    sparsify(model, torch.optim.SGD(model.parameters(), lr=0.1), density=0.3)
    assert torch.equal(model[2].values.grad, gradient[dense_weight(model[2])[1].bool()])
    assert not model[2].training


class Subclass(nn.Linear):
    pass


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 2))
    model[1].weight = model[0].weight
    return model


def hooked() -> nn.Module:
    model = perceptron()
    model[2].register_forward_hook(lambda *args: None)
    return model


def weight_normed() -> nn.Module:
    model = perceptron()
    with pytest.warns(FutureWarning):
        nn.utils.weight_norm(model[2])
    return model


def pruned() -> nn.Module:
    model = perceptron()
    torch.nn.utils.prune.l1_unstructured(model[2], "weight", amount=0.5)
    return model


def odd_state(optimizer: torch.optim.Optimizer) -> None:
    optimizer.state[optimizer.param_groups[0]["params"][2]] = {"row": torch.zeros(40, 1)}


def without_one_weight(optimizer: torch.optim.Optimizer) -> None:
    del optimizer.param_groups[0]["params"][2]


@pytest.mark.parametrize(
    ("model", "options", "error", "message"),
    [
        (perceptron, {"method": "sett"}, ConfigError, "unknown topology method 'sett'; did you mean 'set'"),
        (perceptron, {"actor_density": 0.5}, ConfigError, "unknown argument of sparsify 'actor_density'"),
        (perceptron, {"recycle_interval": 5}, ConfigError, "unknown argument of sparsify 'recycle_interval'"),
        (perceptron, {"drop": "connection_importance"}, ConfigError, "need a continual learner that measures it"),
        (perceptron, {"update_intervall": 5}, ConfigError, "'update_intervall'; did you mean 'update_interval'"),
        (perceptron, {"method": "static", "drop_fraction": 0.1}, ConfigError, "never rewires and takes no drop_f"),
        (perceptron, {"drop_fraction": 1.0}, ConfigError, r"drop_fraction must be in \[0, 1\), got 1.0"),
        (perceptron, {"grow": "gradien"}, ConfigError, "unknown grow criterion 'gradien'; did you mean 'gradient'"),
        (perceptron, {"method": "gmp", "total_updates": 9, "last_update": 10}, TopologyError, "9 updates, got .* 10"),
        (perceptron, {"method": "gmp", "first_update": 9, "last_update": 8}, TopologyError, "begins, 9, got 8"),
        (perceptron, {"method": "set", "gradient_batches": 2}, TopologyError, "growth 'random' looks at no gradient"),
        (perceptron, {"method": "gmp"}, ConfigError, "'gmp' depends .* total_updates, .* first_update and last_update"),
        (perceptron, {"method": "gmp", "last_update": 9}, ConfigError, "give total_updates, .* or first_update$"),
        (perceptron, {"method": "granet"}, ConfigError, "give total_updates, .* or last_update$"),
        (perceptron, {"method": "rigl"}, ConfigError, "'rigl' depends on the length of the run: give total_updates, "),
        (perceptron, {"method": "ds_td3"}, ConfigError, "'ds_td3' depends on the length of the run: give total_upd"),
        (perceptron, {"decay": "cosine"}, ConfigError, "'set' depends on the length of the run: give total_updates, "),
        (perceptron, {"total_updates": 0}, ConfigError, "total_updates must be >= 1, got 0"),
        (perceptron, {"exclude": ["44"]}, ConfigError, "unknown layer to exclude '44'; did you mean '4'"),
        (TwoHeads, {"exclude": ["bodi.first"]}, ConfigError, "'bodi.first'; did you mean 'body.first'"),
        (perceptron, {"exclude": ["1"]}, ConfigError, "unknown layer to exclude '1'; valid: 0, 2, 4"),
        (perceptron, {"exclude": ["0", "2", "4"]}, ConfigError, "leaves no nn.Linear"),
        (perceptron, {"pairs": 3}, TopologyError, "pairs must be 1, 2 or 4, got 3; the closest is 2"),
        (perceptron, {"pairs": 2, "exclude": "0", "density": [0.2, 0.2], "method": "gmp", "total_updates": 9},
         TopologyError, "layer 4 of width 3 .* use pairs 1"),
        (perceptron, {"density": 0.0}, ConfigError, r"density must be in \(0, 1\], got 0.0"),
        (perceptron, {"density": 1.5}, ConfigError, r"density must be in \(0, 1\], got 1.5"),
        (perceptron, {"density": float("nan")}, ConfigError, r"density must be in \(0, 1\], got nan"),
        (perceptron, {"density": [0.5, 2.0]}, ConfigError, r"density must be in \(0, 1\], got \(0.5, 2.0\)"),
        (perceptron, {"density": [0.5]}, TopologyError, "need as many densities, got 1"),
        (lambda: nn.Linear(3, 3), {}, ConfigError, "itself an nn.Linear"),
        (lambda: nn.Sequential(nn.Conv1d(1, 1, 3)), {}, ConfigError, "Sequential has no nn.Linear"),
        (lambda: nn.Sequential(Subclass(3, 3)), {}, ConfigError, "Sequential has no nn.Linear"),
        (tied, {}, TopologyError, "layer '0' shares its weight with another module"),
        (hooked, {}, TopologyError, "layer '2' has hooks"),
        (lambda: perceptron().to("meta"), {}, KernelUnavailable, "no kernels for device 'meta'"),
        (lambda: perceptron().bfloat16(), {}, KernelUnavailable, "layer '0' is torch.bfloat16"),
        (weight_normed, {}, TopologyError, "layer '2' has hooks"),
        (pruned, {}, TopologyError, "layer '2' has hooks"),
        (lambda: perceptron().requires_grad_(False), {}, ConfigError, "every nn.Linear is frozen or excluded"),
        (perceptron, {"spoil": without_one_weight}, TopologyError, "weight of layer '2' is not in the optimizer"),
        (perceptron, {"spoil": odd_state}, TopologyError, r"state 'row' of layer '2', shape \(40, 1\), is not"),
    ],
)  # fmt: skip
def test_refusals_change_nothing(
    model: Callable[[], nn.Module], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    module = model()
    optimizer = torch.optim.Adam(module.parameters())
    options = dict(options)
    options.pop("spoil", lambda optimizer: None)(optimizer)
    held, before = list(module.parameters()), kinds(module)
    groups = [list(group["params"]) for group in optimizer.param_groups]
    with pytest.raises(error, match=message) as caught:
        sparsify(module, optimizer, **options)
    assert "\n" not in str(caught.value)
    assert kinds(module) == before
    assert all(a is b for a, b in zip(module.parameters(), held, strict=True))
    for group, params in zip(optimizer.param_groups, groups, strict=True):
        assert all(a is b for a, b in zip(group["params"], params, strict=True))


def test_a_transformer_learns_and_answers_without_its_fast_path() -> None:
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(12, 2, 40, dropout=0.0, batch_first=True)
    optimizer = torch.optim.Adam(model.parameters())
    with pytest.raises(TopologyError, match=r"'linear1' .* fast path .*set_fastpath_enabled\(False\)"):
        sparsify(model, optimizer, density=0.5)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        evolver = sparsify(model, optimizer, density=0.5)
        x = torch.randn(2, 5, 12)
        trained = model(x)
        with torch.no_grad():
            torch.testing.assert_close(model.eval()(x), trained)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    assert list(evolver.layers) == ["linear1"]


def test_a_shared_weight_may_be_excluded() -> None:
    model = tied()
    optimizer = torch.optim.Adam(model.parameters())
    assert list(sparsify(model, optimizer, exclude=["0", "1"], density=0.5).layers) == ["2"]


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
