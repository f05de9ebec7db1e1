"""Normalised networks in one kernel call, beside the same ones through autograd."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from sparserl.layers import SparseMLP
from sparserl.layers.batch_ensemble import BatchEnsemble
from sparserl.layers.batch_renorm import BatchNormOptions
from sparserl.layers.normalised_mlp import NormalisedMLP
from sparserl.topology.structure import SparseTopology, TopologyChange

SIZES = (7, 40, 33, 2)
DENSITIES = {"sparse": (0.4, 0.3, 0.5), "mixed": (1.0, 0.3, 1.0)}
WARMUPS = {"warm-up": 100, "afterwards": -1}


def networks(
    densities: tuple[float, ...] = DENSITIES["mixed"], warmup: int = -1, activation: str = "relu"
) -> list[NormalisedMLP]:
    torch.manual_seed(3)
    made = []
    for name in ("qf0", "qf1"):
        plain = SparseMLP.random(SIZES, densities, seed=0, name=name, activation=activation)
        made.append(NormalisedMLP.of(plain, BatchNormOptions(momentum=0.25, warmup_steps=warmup)))
    with torch.no_grad():
        for norm in (norm for network in made for norm in network.norms):
            norm.mean.normal_()
            norm.var.uniform_(0.5, 3)
            norm.scale.uniform_(0.5, 2)
            norm.shift.normal_()
    return made


def check_same(ensemble: BatchEnsemble, twins: list[NormalisedMLP], rows: int = 50) -> None:
    """Compares a pass, its gradients and what norms do afterwards with what autograd says."""
    x, weights = torch.randn(rows, SIZES[0]) * 2 + 1, torch.randn(2, rows, SIZES[-1])
    ensemble.refresh()
    assert ensemble.joined is not None
    run = ensemble.joined.run([x[:, :3].contiguous().numpy(), x[:, 3:].contiguous().numpy()])
    leaf = x.clone().requires_grad_()
    expected = torch.stack([twin.by_batch(leaf) for twin in twins])
    torch.testing.assert_close(torch.from_numpy(run.y), expected.detach(), rtol=1e-4, atol=1e-4)
    run.backward(weights.numpy())
    for twin in twins:
        twin.zero_grad()
    (expected * weights).sum().backward()
    for ours, theirs in zip(ensemble.networks, twins, strict=True):
        for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(
                one.grad, other.grad, rtol=1e-3, atol=1e-3, msg=lambda said, name=name: name + said
            )
        for network in (ours, theirs):
            network.follow_batch()
        for one, other in zip(ours.buffers(), theirs.buffers(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    toward = torch.from_numpy(run.backward_to_input(weights.numpy(), 4))
    torch.testing.assert_close(toward, leaf.grad[:, 3:], rtol=1e-3, atol=1e-3)  # type: ignore[index]  # is formed


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("warmup", WARMUPS.values(), ids=WARMUPS)
@pytest.mark.parametrize("name", DENSITIES)
def test_it_gives_what_autograd_does_and_follows_what_changes(name: str, warmup: int, activation: str) -> None:
    ours = networks(DENSITIES[name], warmup, activation)
    twins, ensemble = copy.deepcopy(ours), BatchEnsemble(ours)
    for _ in range(3):
        check_same(ensemble, twins)
        with torch.no_grad():
            for network in (*ours, *twins):
                for parameter in network.parameters():
                    parameter.mul_(1.1)


def test_after_a_topology_event_it_is_described_anew() -> None:
    ours = networks()
    ensemble = BatchEnsemble(ours)
    check_same(ensemble, copy.deepcopy(ours))
    layer: Any = ours[1][1]
    old = layer.topology
    new = SparseTopology(old.n_out, old.n_in, np.setdiff1d(np.arange(old.n_out * old.n_in), old.flat)[: layer.nnz])
    layer.apply_change(
        TopologyChange(old, new, np.full(layer.nnz, -1)), np.linspace(-1, 1, layer.nnz, dtype=np.float32)
    )
    check_same(ensemble, copy.deepcopy(ours))


def test_what_is_frozen_gets_no_gradient_and_a_copy_stands_alone() -> None:
    ours = networks()
    both = copy.deepcopy({"networks": ours, "ensemble": BatchEnsemble(ours)})
    both["networks"][0].norms[0].scale.requires_grad_(False)
    x = np.random.default_rng(0).normal(size=(9, 7)).astype(np.float32)
    both["ensemble"].refresh()
    both["ensemble"].joined.run([x]).backward(np.ones((2, 9, 2), np.float32))
    assert both["networks"][0].norms[0].scale.grad is None
    assert both["networks"][0].norms[0].shift.grad is not None
    assert all(parameter.grad is None for network in ours for parameter in network.parameters())


@pytest.mark.parametrize("activations", [False, True], ids=["gradients", "activations"])
def test_layers_see_what_growth_looks_at(activations: bool) -> None:
    ours = networks(DENSITIES["sparse"])
    twins = copy.deepcopy(ours)
    layers: list[Any] = [layer for network in (*ours, *twins) for layer in network]
    for layer in layers:
        layer.capture, layer.captures_activations = True, activations
    x, weights = torch.randn(20, 7), torch.randn(2, 20, 2)
    ensemble = BatchEnsemble(ours)
    ensemble.refresh()
    assert ensemble.joined is not None
    ensemble.joined.run([x.numpy()]).backward(weights.numpy())
    (torch.stack([twin.by_batch(x) for twin in twins]) * weights).sum().backward()
    for one, other in zip(layers[:6], layers[6:], strict=True):
        [(read, seen)], [(expected_read, expected)] = one.activation_pairs, other.activation_pairs
        torch.testing.assert_close(read, expected_read, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(seen, expected, rtol=1e-3, atol=1e-3)
        assert one.trained


def test_wide_dense_layers_and_other_activations_are_not_joined() -> None:
    plain = SparseMLP.random((5, 200, 150, 1), (0.5, 1.0, 1.0), seed=0, name="net")
    assert BatchEnsemble([NormalisedMLP.of(plain, BatchNormOptions())]).joined is None
    dense = SparseMLP.random(SIZES, (1.0, 1.0, 1.0), seed=0, name="net")
    assert BatchEnsemble([NormalisedMLP.of(dense, BatchNormOptions())]).joined is None
    sigmoid = SparseMLP.random(SIZES, (0.5, 0.5, 1.0), seed=0, name="net", activation="sigmoid")
    assert BatchEnsemble([NormalisedMLP.of(sigmoid, BatchNormOptions())]).joined is None
