"""What a fused pass prepares holds addresses: everything that moves or replaces a tensor must be seen."""

from __future__ import annotations

import copy
import gc
import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from support.fused_ensembles import WIDTH, assert_equals_twin, backward, ensemble_of, parameters_of, sparse
from torch import nn

from sparserl.layers import SparseEnsemble, SparseMLP
from sparserl.topology.rewire import exchange


def new_topology(mlp: SparseMLP) -> None:
    layer = mlp[1]
    free = np.setdiff1d(np.arange(layer.n_in * layer.n_out), layer.topology.flat)
    layer.apply_change(exchange(layer.topology, np.arange(3, layer.nnz - 10), free[:21]), 0.3)


def rescale(mlp: SparseMLP) -> None:
    for parameter in mlp.parameters():
        parameter.data.mul_(1.5)


def set_data(parameter: nn.Parameter) -> None:
    parameter.data = torch.randn_like(parameter)


def load(mlp: SparseMLP, **options: bool) -> None:
    mlp.load_state_dict(
        SparseMLP([sparse(6, 15, 22, 9), sparse(15, 13, 77, 9), nn.Linear(13, 4)]).state_dict(), **options
    )


def saved_and_loaded(model: Any) -> Any:
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


def train(model: tuple[list[SparseMLP], SparseEnsemble | None]) -> None:
    """A step and a topology event."""
    networks, ensemble = model
    outputs = (
        [network(torch.ones(5, WIDTH)) for network in networks] if ensemble is None else ensemble(torch.ones(5, WIDTH))
    )
    for parameter, gradient in zip(parameters_of(networks), backward(outputs, networks), strict=True):
        parameter.data.sub_(0.1 * gradient)
    new_topology(networks[0])


# --- what is prepared holds addresses: everything that moves or replaces a tensor must be seen -------


EVENTS: dict[str, Callable[[SparseMLP], object]] = {
    "weights change in place": rescale,
    "values have other data": lambda mlp: set_data(mlp[0].values),
    "a bias has other data": lambda mlp: set_data(mlp[1].bias),
    "dense weights have other data": lambda mlp: set_data(mlp[2].weight),
    "values are another parameter": lambda mlp: setattr(mlp[0], "values", nn.Parameter(torch.randn(40))),
    "a bias is another parameter": lambda mlp: setattr(mlp[0], "bias", nn.Parameter(torch.randn(15))),
    "a bias is gone": lambda mlp: setattr(mlp[1], "bias", None),
    "a bias is gone from a dense layer": lambda mlp: setattr(mlp[2], "bias", None),
    "topology event": new_topology,
    "two topology events": lambda mlp: [new_topology(mlp), new_topology(mlp)],
    "state of another topology": load,
    "state of another topology is assigned": lambda mlp: load(mlp, assign=True),
    "double": lambda mlp: mlp.double(),
    "double and back": lambda mlp: mlp.double().float(),
    "parameters in one vector": lambda mlp: nn.utils.vector_to_parameters(
        torch.randn(sum(p.numel() for p in mlp.parameters())), mlp.parameters()
    ),
    "a layer is replaced": lambda mlp: mlp.__setitem__(1, sparse(15, 13, 61, 9)),
    "a layer is replaced by a dense one": lambda mlp: mlp.__setitem__(1, nn.Linear(15, 13)),
    "a dense layer is replaced": lambda mlp: mlp.__setitem__(2, nn.Linear(13, 4)),
    "a dense layer is replaced by a sparse one": lambda mlp: mlp.__setitem__(2, sparse(13, 4, 20, 9)),
}


@pytest.fixture(params=["network", "ensemble"])
def used(request: pytest.FixtureRequest) -> tuple[list[SparseMLP], SparseEnsemble | None]:
    """Networks that have passes behind them, one of them with memory still taken."""
    networks = [SparseMLP([sparse(6, 15, 40, n), sparse(15, 13, 50, n), nn.Linear(13, 4)]) for n in range(2)]
    ensemble = SparseEnsemble(networks) if request.param == "ensemble" else None
    assert_equals_twin(networks, ensemble)
    with torch.no_grad():
        (ensemble or networks[0])(torch.ones(19, WIDTH))
    return networks, ensemble


@pytest.mark.parametrize("event", EVENTS)
def test_next_pass_sees(event: str, used: tuple[list[SparseMLP], SparseEnsemble | None]) -> None:
    networks, ensemble = used
    for network in networks if event.startswith("double") else networks[:1]:
        EVENTS[event](network)
    gc.collect()
    overwritten = [torch.full((size,), torch.nan) for size in range(1, 200) for _ in range(3)]
    assert_equals_twin(networks, ensemble)
    del overwritten


COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "torch.save": saved_and_loaded,
}


@pytest.mark.parametrize("way", COPIES)
def test_copies_hold_no_addresses(way: str) -> None:
    """In another process they may be those of something else."""
    networks, ensemble = ensemble_of("sparse")
    backward(ensemble(torch.ones(5, WIDTH)), networks)
    layers: Any = ensemble.joined
    assert layers._networks is not None
    copied = COPIES[way](layers)
    assert copied._networks is None
    assert not copied._key


@pytest.mark.parametrize("trained", [0, 1], ids=["original", "copy"])
@pytest.mark.parametrize("way", COPIES)
def test_copies_are_independent(way: str, trained: int, used: tuple[list[SparseMLP], SparseEnsemble | None]) -> None:
    models = used, COPIES[way](used)
    before = copy.deepcopy(used[0][0].state_dict())
    x = torch.randn(19, WIDTH)
    with torch.no_grad():
        expected = [network(x) for network in used[0]]
    train(models[trained])
    other_networks, _ = models[1 - trained]
    with torch.no_grad():
        for y, network in zip(expected, other_networks, strict=True):
            assert torch.equal(y, network(x))
    for name, tensor in other_networks[0].state_dict().items():
        assert torch.equal(tensor, before[name])
    for networks, ensemble in models:
        assert_equals_twin(networks, ensemble)
    assert other_networks[0][1].nnz == 50
    assert models[trained][0][0][1].nnz == 34
