"""Which layers of a model `sparsify` replaces, and models that it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.utils.prune
from oracle.masked_dense import dense_weight
from support.torch_models import kinds, perceptron, problem, train
from torch import nn

from sparserl.errors import ConfigError, KernelUnavailable, TopologyError
from sparserl.layers.sparsify import sparsify


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.ModuleDict({"first": nn.Linear(12, 40), "second": nn.Linear(40, 40)})
        self.again = self.body["second"]
        self.heads = nn.ModuleList([nn.Linear(40, 3), nn.Linear(40, 3)])
        self.convolution = nn.ConvTranspose1d(1, 1, 3)

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


def watched() -> nn.Module:
    model = perceptron()
    model[2].weight.register_hook(lambda gradient: gradient.clamp(-1.0, 1.0))
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
        (perceptron, {"target": "union_trim"}, ConfigError, "unknown argument of sparsify 'target'"),
        (perceptron, {"seed": -1}, ConfigError, "seed must be >= 0, got -1"),
        (perceptron, {"density": "0.1"}, ConfigError, "density must be a number or several, got '0.1'"),
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
        (perceptron, {"exclude": ["0", "2", "4"]}, ConfigError, "leaves no layer to make sparse"),
        (perceptron, {"pairs": 3}, TopologyError, "pairs must be 1, 2 or 4, got 3; the closest is 2"),
        (perceptron, {"pairs": 2, "exclude": "0", "density": [0.2, 0.2], "method": "gmp", "total_updates": 9},
         TopologyError, "layer 4 of width 3 .* use pairs 1"),
        (perceptron, {"density": 0.0}, ConfigError, r"density must be in \(0, 1\], got 0.0"),
        (perceptron, {"density": 1.5}, ConfigError, r"density must be in \(0, 1\], got 1.5"),
        (perceptron, {"density": float("nan")}, ConfigError, r"density must be in \(0, 1\], got nan"),
        (perceptron, {"density": [0.5, 2.0]}, ConfigError, r"density must be in \(0, 1\], got \(0.5, 2.0\)"),
        (perceptron, {"density": [0.5]}, TopologyError, "need as many densities, got 1"),
        (lambda: nn.Linear(3, 3), {}, ConfigError, "itself an nn.Linear"),
        (lambda: nn.Sequential(nn.Conv3d(1, 1, 3)), {}, ConfigError, "no layer to make sparse, which are nn.L"),
        (lambda: nn.Sequential(Subclass(3, 3)), {}, ConfigError, "Sequential has no layer to make sparse"),
        (tied, {}, TopologyError, "layer '0' shares its weight with another module"),
        (hooked, {}, TopologyError, "layer '2' has hooks"),
        (lambda: perceptron().to("meta"), {}, KernelUnavailable, "no kernels for device 'meta'"),
        (lambda: perceptron().bfloat16(), {}, KernelUnavailable, "layer '0' is torch.bfloat16"),
        (watched, {}, TopologyError, "weight of layer '2' has hooks, .* register them on its `values` afterwards"),
        (weight_normed, {}, TopologyError, "layer '2' has hooks"),
        (pruned, {}, TopologyError, "layer '2' has hooks"),
        (lambda: perceptron().requires_grad_(False), {}, ConfigError, "every layer is frozen or excluded"),
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
        sparsify(model, optimizer, density=0.5, exclude="self_attn")
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        evolver = sparsify(model, optimizer, density=0.5, exclude="self_attn")
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
