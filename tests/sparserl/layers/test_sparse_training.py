"""What happens to a sparsified model beside its plain training loop: copies, loaded weights, other optimizers."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable
from typing import Any

import cloudpickle
import pytest
import torch
from torch import nn

from sparserl.errors import TopologyError
from sparserl.layers import SparseLinear
from sparserl.layers.fused_adam import FusedAdam
from sparserl.layers.sparse_training import SparseTraining
from sparserl.layers.sparsify import sparsify

Trio = tuple[nn.Sequential, torch.optim.Optimizer, SparseTraining]
X = torch.randn(32, 12, generator=torch.Generator().manual_seed(1))
Y = torch.sin(X[:, :3])
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=1e-2),
    "fused adam": lambda parameters: FusedAdam(parameters, lr=1e-2),
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=1e-2, momentum=0.9),
    "adafactor": lambda parameters: torch.optim.Adafactor(parameters, lr=1e-2),
}


def perceptron() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 30), nn.ReLU(), nn.Linear(30, 30), nn.ReLU(), nn.Linear(30, 3))


def start(method: str = "set", optimizer: str = "adam", **options: Any) -> Trio:
    model = perceptron()
    own = OPTIMIZERS[optimizer](model.parameters())
    options = {"density": 0.3, "update_interval": 5, "total_updates": 60, **options}
    return model, own, sparsify(model, own, method=method, **options)


def gradients(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    (model(X) - Y).square().mean().backward()


def train(model: nn.Module, optimizer: torch.optim.Optimizer, training: SparseTraining, updates: int) -> None:
    for _ in range(updates):
        gradients(model, optimizer)
        optimizer.step()
        training.step()


def by_position(layer: SparseLinear, per_connection: torch.Tensor) -> dict[int, float]:
    return dict(zip(layer.topology.flat.tolist(), per_connection.tolist(), strict=True))


def moments(model: nn.Sequential, optimizer: torch.optim.Optimizer, at: int, key: str = "exp_avg") -> dict[int, float]:
    return by_position(model[at], optimizer.state[model[at].values][key])


# Copies.


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x)), lambda x: cloudpickle.loads(cloudpickle.dumps(x))],
    ids=["deepcopy", "pickle", "cloudpickle"],
)
@pytest.mark.parametrize(
    ("method", "optimizer", "options"),
    [
        ("set", "adam", {}),
        ("set", "fused adam", {}),
        ("rigl", "momentum", {"gradient_batches": 3}),
        ("gmp", "adam", {}),
    ],
)
def test_a_copy_trains_as_the_original_and_leaves_it_alone(
    method: str, optimizer: str, options: dict[str, Any], copied: Callable[[Trio], Trio]
) -> None:
    trio = start(method, optimizer, **options)
    train(*trio, 17)
    before = pickle.dumps(trio)
    twin = copied(trio)
    train(*twin, 20)
    assert pickle.dumps(trio) == before  # every tensor, counter and generator of the original
    of_copy = pickle.dumps(twin)
    train(*trio, 20)
    assert pickle.dumps(twin) == of_copy
    assert twin[2].events == trio[2].events
    for name, tensor in trio[0].state_dict().items():
        assert torch.equal(tensor, twin[0].state_dict()[name]), name
    for own, others in zip(trio[1].state.values(), twin[1].state.values(), strict=True):
        assert all(torch.equal(own[key], others[key]) for key in own)


def test_a_copied_training_brings_model_and_optimizer_along() -> None:
    model, optimizer, training = start()
    train(model, optimizer, training, 4)
    before = pickle.dumps((model, optimizer, training))
    alone = copy.deepcopy(training)
    for _ in range(3):
        alone.step()
    assert alone.events[-1].kind == "rewire"
    assert pickle.dumps((model, optimizer, training)) == before


# Weights that are loaded.


@pytest.mark.parametrize("optimizer", ["adam", "fused adam"])
@pytest.mark.parametrize("method", ["set", "rigl", "gmp"])
def test_moments_stay_with_their_connections_when_weights_alone_are_loaded(method: str, optimizer: str) -> None:
    model, own, training = start(method, optimizer)
    train(model, own, training, 14)
    best = copy.deepcopy(model.state_dict())
    train(model, own, training, 34)
    before = moments(model, own, 2)
    model.load_state_dict(best)
    gradients(model, own)
    gradient = by_position(model[2], model[2].values.grad)
    own.step()
    after = moments(model, own, 2)
    assert after.keys() == gradient.keys() != before.keys()
    # Adam: a tenth of the new gradient, nine tenths of what was known; of connections that were not there, nothing.
    for position, moment in after.items():
        assert moment == pytest.approx(0.9 * before.get(position, 0.0) + 0.1 * gradient[position], rel=1e-4, abs=1e-9)
    training.step()
    train(model, own, training, 12)


def test_loaded_connections_count_as_explored() -> None:
    model, optimizer, training = start()
    train(model, optimizer, training, 3)
    other = start(seed=1)[0]
    before = training.evolver.explored_fraction("2")
    model.load_state_dict(other.state_dict())
    train(model, optimizer, training, 1)
    assert training.evolver.explored_fraction("2") > 1.3 * before


def test_going_to_the_best_weights_and_back_changes_nothing() -> None:
    one, other = start(), start()
    train(*one, 14)
    train(*other, 14)
    best = copy.deepcopy(other[0].state_dict())
    train(*one, 10)
    train(*other, 10)
    now = copy.deepcopy(other[0].state_dict())
    other[0].load_state_dict(best)
    other[0].load_state_dict(now)
    train(*one, 10)
    train(*other, 10)
    for name, tensor in one[0].state_dict().items():
        assert torch.equal(tensor, other[0].state_dict()[name]), name


@pytest.mark.parametrize("method", ["gmp", "global_magnitude", "lamp", "obd", "granet"])
def test_weights_from_after_the_end_of_pruning_stay_where_they_are(method: str) -> None:
    model, optimizer, training = start(method)
    train(model, optimizer, training, 61)
    counts = [layer.nnz for layer in training.layers.values()]
    model.load_state_dict(copy.deepcopy(model.state_dict()))
    train(model, optimizer, training, 2)
    assert [layer.nnz for layer in training.layers.values()] == counts
    assert [event for event in training.events if event.update > 61] == []


def test_weights_from_before_the_end_of_pruning_are_pruned_again() -> None:
    model, optimizer, training = start("gmp")
    train(model, optimizer, training, 20)
    early = copy.deepcopy(model.state_dict())
    train(model, optimizer, training, 40)
    goals = [layer.nnz for layer in training.layers.values()]
    model.load_state_dict(early)
    assert [layer.nnz for layer in training.layers.values()] > goals
    train(model, optimizer, training, 1)
    train(model, optimizer, training, 1)
    assert [layer.nnz for layer in training.layers.values()] == goals


@pytest.mark.parametrize("method", ["set", "gmp"])
def test_optimizer_state_of_other_connections_is_refused(method: str) -> None:
    model, optimizer, training = start(method)
    train(model, optimizer, training, 14)
    old = copy.deepcopy(optimizer.state_dict())
    train(model, optimizer, training, 20)
    optimizer.load_state_dict(old)
    gradients(model, optimizer)
    with pytest.raises(TopologyError, match="state of Adam is of other connections than layer '0' has: load the") as e:
        optimizer.step()
    assert "\n" not in str(e.value)


def test_a_copied_optimizer_knows_connections_too() -> None:
    model, optimizer, training = copy.deepcopy(start())
    train(model, optimizer, training, 14)
    old = copy.deepcopy(optimizer.state_dict())
    train(model, optimizer, training, 20)
    optimizer.load_state_dict(old)
    with pytest.raises(TopologyError, match="of other connections"):
        training.step()


def test_optimizer_state_of_now_goes_along_with_loaded_weights() -> None:
    """The optimizer's state is stored and loaded back; then only the model goes back to its best weights."""
    model, optimizer, training = start()
    train(model, optimizer, training, 14)
    best = copy.deepcopy(model.state_dict())
    train(model, optimizer, training, 20)
    before = moments(model, optimizer, 2)
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    model.load_state_dict(best)
    training.step()
    after = moments(model, optimizer, 2)
    shared = before.keys() & after.keys()
    assert len(shared) > 50
    assert all(after[position] == before[position] for position in shared)


# Optimizers.


@pytest.mark.parametrize("owned", ["adam", "momentum"])
@pytest.mark.parametrize("later", ["adam", "momentum"])
def test_an_optimizer_made_later_is_refused_until_it_is_followed(owned: str, later: str) -> None:
    model, _, training = start(optimizer=owned)
    second = OPTIMIZERS[later](model.parameters())
    gradients(model, second)
    second.step()
    with pytest.raises(TopologyError, match=f"^{type(second).__name__} moves the weights too, but only .* call follow"):
        training.step()
    training.follow(second)
    key = "exp_avg" if later == "adam" else "momentum_buffer"
    train(model, second, training, 5)
    gradients(model, second)
    second.step()
    before = moments(model, second, 2, key)
    _, event = training.step()
    after = moments(model, second, 2, key)
    assert {after[position] for position in after.keys() - before.keys()} == {0.0}
    # What is dropped and grown again in one event starts anew, too.
    assert sum(after[position] == before[position] for position in after.keys() & before.keys()) >= (
        event.nnz - event.grown
    )


def test_optimizers_of_other_models_are_nobodys_business() -> None:
    model, optimizer, training = start()
    other = perceptron()
    another = torch.optim.Adam(other.parameters())
    gradients(other, another)
    another.step()
    train(model, optimizer, training, 1)
    with pytest.raises(TopologyError, match="the Adam to follow holds no weights of sparse layers"):
        training.follow(another)


@pytest.mark.parametrize("name", [*OPTIMIZERS])
def test_elementwise_optimizers_are_taken(name: str) -> None:
    trio = start(optimizer=name)
    train(*trio, 12)
    assert len({event.update for event in trio[2].events}) == 4


class Lookahead(torch.optim.SGD):
    """Slow weights in a list, as in most implementations."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters)
        self.slow_weights = [[p.detach().clone() for p in group["params"]] for group in self.param_groups]


class DistributedShampoo(torch.optim.SGD):
    pass


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda model: torch.optim.Muon([model[2].weight]), "^Muon does not move each weight .* Adam, AdamW, RMSprop"),
        (lambda model: torch.optim.LBFGS(model.parameters()), "^LBFGS does not move each weight by itself"),
        (lambda model: torch.optim.SparseAdam(model.parameters()), "^SparseAdam does not move each weight by itself"),
        (lambda model: DistributedShampoo(model.parameters()), "^DistributedShampoo does not move each weight"),
        (lambda model: Lookahead(model.parameters()), "^Lookahead keeps tensors outside .* 'slow_weights', .*average"),
    ],
)
def test_optimizers_that_cannot_work_are_refused(
    make: Callable[[nn.Sequential], torch.optim.Optimizer], message: str
) -> None:
    model = perceptron()
    with pytest.raises(TopologyError, match=message) as caught:
        sparsify(model, make(model), exclude=["0"])
    assert "\n" not in str(caught.value)
    assert type(model[2]) is nn.Linear


def test_factored_state_is_refused() -> None:
    model = perceptron()
    optimizer = torch.optim.Adafactor(model.parameters())
    gradients(model, optimizer)
    optimizer.step()
    with pytest.raises(TopologyError, match=r"state 'row_var' of layer '0', shape \(30, 1\), is not per connection"):
        sparsify(model, optimizer)


# Frozen layers.


def test_a_frozen_layer_stays_as_it_is() -> None:
    model = perceptron()
    model[0].weight.requires_grad_(False)
    weight = model[0].weight.clone()
    optimizer = torch.optim.Adam(filter(lambda parameter: parameter.requires_grad, model.parameters()))
    training = sparsify(model, optimizer, density=0.3, update_interval=1)
    train(model, optimizer, training, 5)
    assert list(training.layers) == ["2"]
    assert torch.equal(model[0].weight, weight)
    assert training.left_dense["0"] == "frozen"


@pytest.mark.parametrize("method", ["set", "rigl", "gmp"])
def test_a_layer_frozen_later_is_not_rewired_until_it_is_trained_again(method: str) -> None:
    model, optimizer, training = start(method)
    train(model, optimizer, training, 17)
    model[2].requires_grad_(False)
    frozen = by_position(model[2], model[2].values)
    train(model, optimizer, training, 10)
    assert by_position(model[2], model[2].values) == frozen
    assert training.summary().splitlines()[2].endswith("frozen")
    model[2].requires_grad_(True)
    train(model, optimizer, training, 20)
    events = [(event.layer, event.update) for event in training.events if event.update > 17]
    assert [update for layer, update in events if layer == "0"][:2] == [21, 26] if method != "gmp" else True
    late = [update for layer, update in events if layer == "2"]
    assert late
    assert min(late) > 27
    if method == "gmp":
        assert model[2].nnz == training.evolver.goals["2"] or training.evolver.update < 48


# The report.


class Subclass(nn.Linear):
    pass


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.ConvTranspose1d(1, 2, 3)
        self.norm = nn.LayerNorm(12)
        self.memory = nn.LSTM(12, 12)
        self.attention = nn.MultiheadAttention(12, 2)
        self.words = nn.Embedding(5, 12)
        self.own = Subclass(12, 12)
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(12, 12))
        self.body = nn.Sequential(nn.Linear(12, 40), nn.ReLU(), nn.Linear(40, 40), nn.Linear(40, 40), nn.Linear(40, 2))


def test_the_report_names_every_layer_and_why_it_is_dense() -> None:
    model = Mixed()
    model.body[2].requires_grad_(False)
    optimizer = torch.optim.Adam(model.parameters())
    training = sparsify(
        model, optimizer, density=0.25, allocation="uniform", exclude=["body.3", "attention", "memory.hh_l0"]
    )
    assert str(training) == repr(training) == training.summary()
    assert [re.split("  +", line) for line in training.summary().splitlines()] == [
        ["layer", "was", "shape", "connections"],
        ["memory.ih_l0", "LSTM", "48 x 12", "144, density 0.25"],
        ["body.0", "Linear", "40 x 12", "120, density 0.25"],
        ["convolution", "ConvTranspose1d", "1 x 2 x 3", "dense: no sparse form"],
        ["memory.hh_l0", "LSTM", "48 x 12", "dense: excluded"],
        *(
            [f"attention.{name}_proj", "MultiheadAttention", "12 x 12", "dense: excluded"]
            for name in ("q", "k", "v", "out")
        ),
        ["words", "Embedding", "5 x 12", "dense: no sparse form"],
        ["own", "Subclass", "12 x 12", "dense: a subclass of Linear may compute something else"],
        ["normed.parametrizations.weight", "ParametrizationList", "12 x 1", "dense: no sparse form"],
        ["body.2", "Linear", "40 x 40", "dense: frozen"],
        ["body.3", "Linear", "40 x 40", "dense: excluded"],
        ["body.4", "Linear", "2 x 40", "dense: the output layer, which method 'set' leaves dense"],
    ]
    model = perceptron()
    training = sparsify(model, torch.optim.Adam(model.parameters()), method="static", density=[0.5, 1.0])
    assert training.left_dense["2"] == "its density is 1"
    model = perceptron()
    training = sparsify(model, torch.optim.Adam(model.parameters()), method="dense")
    assert training.left_dense["0"] == "method 'dense' makes nothing sparse"


def test_a_layer_frozen_while_pruning_ends_is_pruned_when_it_is_trained_again() -> None:
    def at(training: SparseTraining) -> dict[str, bool]:
        return {name: layer.nnz == training.evolver.goals[name] for name, layer in training.layers.items()}

    model, optimizer, training = start("gmp", density=0.2, total_updates=20, update_interval=1)
    first, *others = training.layers
    train(model, optimizer, training, 8)
    training.layers[first].values.requires_grad_(False)
    train(model, optimizer, training, 17)
    assert at(training) == {first: False, **dict.fromkeys(others, True)}
    copied = copy.deepcopy([model.state_dict(), optimizer.state_dict(), training.state_dict()])
    for resumed in (False, True):
        if resumed:
            model, optimizer, training = start("gmp", density=0.2, total_updates=20, update_interval=1)
            for part, state in zip((model, optimizer, training), copied, strict=True):
                part.load_state_dict(state)
        training.layers[first].values.requires_grad_(True)
        train(model, optimizer, training, 3)
        assert at(training) == dict.fromkeys(training.layers, True)
        assert [event.kind for event in training.events if event.update > 25] == ["prune"]
    assert "passed_by" not in training.state_dict()


@pytest.mark.parametrize("method", ["set", "rigl", "top_kast"])
def test_an_event_between_a_pass_and_its_way_back_is_refused(method: str) -> None:
    model, optimizer, training = start(method, update_interval=1)
    gradients(model, optimizer)
    outputs = model(torch.ones(3, 12))
    training.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        outputs.sum().backward()
