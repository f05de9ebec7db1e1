"""`sparsify` of recurrent layers, convolutions and attention: weights, optimizer state, training, refusals."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from oracle.masked_dense import dense_weight
from torch import nn

from sparserl.errors import ConfigError, TopologyError
from sparserl.layers import SparseLinear
from sparserl.layers.replaceable import FORMS, layers_of
from sparserl.layers.sparsify import SparseTraining, sparsify


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.memory = kind(12, 10, 2, batch_first=True)
        self.head = nn.Linear(10, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(self.memory(x)[0][:, -1])
        return y


class Attentive(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 2, batch_first=True)
        self.head = nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(self.attention(x, x, x, need_weights=False)[0].mean(dim=1))
        return y


class Seen(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.along = nn.Conv1d(12, 8, 3, padding=1)
        self.plane = nn.Conv2d(1, 6, 3, stride=2)
        self.head = nn.Linear(6 * 3 * 2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.along(x.transpose(1, 2)))
        y: torch.Tensor = self.head(torch.relu(self.plane(h.unsqueeze(1))).flatten(1))
        return y


MODELS: dict[str, Callable[[], nn.Module]] = {
    "lstm": lambda: Recurrent(nn.LSTM),
    "gru": lambda: Recurrent(nn.GRU),
    "attention": Attentive,
    "convolutions": Seen,
}
every_model = pytest.mark.parametrize("name", MODELS)


def built(name: str) -> nn.Module:
    torch.manual_seed(0)
    return MODELS[name]()


def trained(model: nn.Module, optimizer: torch.optim.Optimizer, training: SparseTraining | None, steps: int) -> float:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(32, 6, 12, generator=generator)
    y = x[:, -1, :3] - x[:, 2, 3:6]
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        if training is not None:
            training.step()
    return loss.item()


def held(optimizer: torch.optim.Optimizer) -> set[int]:
    return {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}


@every_model
def test_the_next_step_is_that_of_masked_weights(name: str) -> None:
    """After dense training: outputs, biases, moments, and what a step makes of them."""
    model = built(name)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    trained(model, optimizer, None, 3)
    dense = copy.deepcopy(model)
    twin = torch.optim.Adam(dense.parameters(), lr=1e-2)
    twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    training = sparsify(model, optimizer, density=0.4, method="static", allocation="uniform")
    weights, _ = layers_of(dense)
    assert list(training.layers) == [one for one in weights if one != "head"]
    masks = {one: dense_weight(layer)[1].bool() for one, layer in training.layers.items()}

    losses = []
    for step in range(3):
        if step:
            losses.append(trained(dense, twin, None, 1))
        with torch.no_grad():
            for one, mask in masks.items():
                weights[one].of(weights[one].parameter).mul_(mask)
    assert held(optimizer) == {id(parameter) for parameter in model.parameters()}
    assert [trained(model, optimizer, training, 1) for _ in losses] == pytest.approx(losses, rel=1e-5)
    for one, layer in training.layers.items():
        weight = weights[one]
        torch.testing.assert_close(layer.values, weight.of(weight.parameter)[masks[one]])
        state, moments = optimizer.state[layer.values], twin.state[weight.parameter]["exp_avg"]
        torch.testing.assert_close(state["exp_avg"], weight.of(moments)[masks[one]])
        assert state["step"] == 5


@every_model
def test_it_learns_while_connections_move_and_resumes_exactly(name: str) -> None:
    def start() -> tuple[nn.Module, torch.optim.Optimizer, SparseTraining]:
        model = built(name)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        options: dict[str, Any] = {"method": "rigl", "update_interval": 3, "total_updates": 60}
        return model, optimizer, sparsify(model, optimizer, density=0.4, **options)

    whole, first, second = start(), start(), start()
    before = {one: layer.topology for one, layer in whole[2].layers.items()}
    begin = trained(*whole, 1)
    assert trained(*whole, 29) < 0.7 * begin
    assert all(layer.topology is not before[one] for one, layer in whole[2].layers.items() if layer.density < 1.0)
    trained(*first, 10)
    trained(*second, 2)
    for part, state in zip(second, copy.deepcopy([part.state_dict() for part in first]), strict=True):
        part.load_state_dict(state)
    trained(*second, 20)
    for one, tensor in whole[0].state_dict().items():
        assert torch.equal(tensor, second[0].state_dict()[one]), one


def test_matrices_of_a_module_may_stay_dense_and_keep_their_parameters() -> None:
    model = built("lstm")
    kept = {one: parameter for one, parameter in model.named_parameters() if "hh" in one or "bias" in one}
    optimizer = torch.optim.Adam(model.parameters())
    training = sparsify(model, optimizer, density=0.3, exclude=["memory.hh_l0", "memory.hh_l1"])
    assert list(training.layers) == ["memory.ih_l0", "memory.ih_l1"]
    after = {id(parameter) for parameter in model.parameters()}
    assert {id(parameter) for parameter in kept.values()} <= after == held(optimizer)
    # A third of a packed weight has a parameter of its own, in the place of that one, with its share of the state.
    model = built("attention")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    trained(model, optimizer, None, 2)
    packed = model.attention.in_proj_weight  # type: ignore[union-attr]
    buffer = optimizer.state[packed]["momentum_buffer"].clone()
    sparsify(model, optimizer, density=0.3, exclude=["attention.k_proj"])
    k_proj: Any = model.attention.k_proj  # type: ignore[union-attr]
    assert isinstance(k_proj, nn.Linear)
    assert torch.equal(k_proj.weight, packed[12:24])
    assert torch.equal(k_proj.weight.grad, packed.grad[12:24])
    assert torch.equal(optimizer.state[k_proj.weight]["momentum_buffer"], buffer[12:24])
    places = [list(optimizer.param_groups[0]["params"][place].shape) for place in range(3)]
    assert places[1] == [12, 12]
    assert held(optimizer) == {id(parameter) for parameter in model.parameters()}


def test_the_best_connections_of_all_kinds_by_a_batch() -> None:
    model = built("attention")
    x = torch.randn(8, 6, 12, generator=torch.Generator().manual_seed(1))
    weights, _ = layers_of(model)
    model(x).square().mean().backward()
    scores = {}
    for name, weight in weights.items():
        gradient = weight.parameter.grad
        assert gradient is not None
        scores[name] = (weight.of(weight.parameter) * weight.of(gradient)).abs().flatten().detach().numpy()
    model.zero_grad()
    optimizer = torch.optim.Adam(model.parameters())
    loss: Any = lambda: model(x).square().mean()  # noqa: E731
    layers = sparsify(model, optimizer, density=0.25, method="snip", loss=loss, output_layer="sparse").layers
    kept = np.concatenate([scores[name][layer.topology.flat] for name, layer in layers.items()])
    everything = np.sort(np.concatenate(list(scores.values())))[::-1]
    assert kept.size == round(0.25 * everything.size)
    np.testing.assert_allclose(np.sort(kept)[::-1], everything[: kept.size], rtol=1e-4)


def test_a_whole_transformer_layer_answers_as_it_trained() -> None:
    """Torch's fast path would read weights that are not there any more: it is not taken."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(12, 2, 40, dropout=0.0, batch_first=True)
    model = nn.TransformerEncoder(layer, 2)
    with pytest.raises(TopologyError, match=r"TransformerEncoder .* padded; build it with enable_nested_tensor=False"):
        sparsify(model, torch.optim.Adam(model.parameters()), density=0.5)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    training = sparsify(model, torch.optim.Adam(model.parameters()), density=0.5)
    assert [name.removeprefix("layers.0.") for name in training.layers][:5] == [
        *(f"self_attn.{one}_proj" for one in ("q", "k", "v", "out")),
        "linear1",
    ]
    x, padding = torch.randn(2, 5, 12), torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    trained_on = model(x, src_key_padding_mask=padding)
    with torch.no_grad():
        answer = model.eval()(x, src_key_padding_mask=padding)
    torch.testing.assert_close(answer[0], trained_on[0])
    torch.testing.assert_close(answer[1, :3], trained_on[1, :3])


@pytest.mark.parametrize(
    ("layer", "error", "message"),
    [
        (nn.Conv2d(4, 4, 3, groups=2), TopologyError, "layer '1' has 2 groups, and a sparse one has 1; exclude it"),
        (nn.LSTM(3, 3, bidirectional=True), TopologyError, "'1' is bidirectional, and a sparse one goes forward alone"),
        (nn.LSTM(3, 3, proj_size=2), TopologyError, "'1' has proj_size 2, and a sparse one has none; exclude it"),
        (nn.MultiheadAttention(4, 2, add_bias_kv=True), TopologyError, "'1' has add_bias_kv, and a sparse one has not"),
        (nn.MultiheadAttention(4, 2, add_zero_attn=True), TopologyError, "'1' has add_zero_attn, and a sparse one"),
    ],
)
def test_options_that_have_no_sparse_form_are_refused(layer: nn.Module, error: type[Exception], message: str) -> None:
    model = nn.Sequential(nn.Linear(5, 5), layer, nn.Linear(5, 5))
    before = list(model.parameters())
    optimizer = torch.optim.Adam(model.parameters())
    with pytest.raises(error, match=message) as caught:
        sparsify(model, optimizer, density=0.5)
    assert "\n" not in str(caught.value)
    assert all(a is b for a, b in zip(model.parameters(), before, strict=True))
    training = sparsify(model, optimizer, density=0.5, exclude="1")
    assert list(training.layers) == ["0"]
    assert set(training.left_dense.values()) >= {"excluded"}


def test_the_model_itself_and_hooks_inside_are_refused() -> None:
    memory = nn.LSTM(3, 3)
    with pytest.raises(ConfigError, match=r"itself an nn\.LSTM and cannot be replaced in place; put it in"):
        sparsify(memory, torch.optim.Adam(memory.parameters()))
    model = built("attention")
    model.attention.out_proj.register_forward_hook(lambda *args: None)  # type: ignore[union-attr]
    with pytest.raises(TopologyError, match="layer 'attention' has hooks"):
        sparsify(model, torch.optim.Adam(model.parameters()))


def test_a_recurrent_layer_is_no_output_layer() -> None:
    model = nn.Sequential(nn.LSTM(5, 4))
    training = sparsify(model, torch.optim.Adam(model.parameters()), density=0.5, allocation="uniform")
    assert [layer.nnz for layer in training.layers.values()] == [40, 32]
    assert all(isinstance(model.get_submodule(name), SparseLinear) for name in training.layers)
    assert FORMS[nn.LSTM].lacks(nn.LSTM(2, 2)) is None
