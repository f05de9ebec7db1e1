"""Batch renormalisation: by hand, against autograd and sb3-contrib's; networks of it, folded and not."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from sb3_contrib.common.torch_layers import BatchRenorm1d

from sparserl.errors import ConfigError
from sparserl.layers import SparseMLP
from sparserl.layers.activity import hidden_activations
from sparserl.layers.batch_renorm import BatchNormOptions, BatchRenorm
from sparserl.layers.normalised_mlp import FoldedEnsemble, NormalisedMLP, ensemble_of
from sparserl.layers.pruning import pruned
from sparserl.topology.structure import SparseTopology, TopologyChange

NO_WARMUP = BatchNormOptions(momentum=0.25, eps=1e-3, warmup_steps=-1)
OPTIONS = {"warm-up": BatchNormOptions(0.25, 1e-3, 100), "afterwards": NO_WARMUP}


def test_one_feature_by_hand() -> None:
    norm = BatchRenorm(1, BatchNormOptions(momentum=0.5, eps=1.0, warmup_steps=0))
    with torch.no_grad():
        norm.scale.fill_(2.0)
        norm.shift.fill_(1.0)
    x = torch.tensor([[1.0], [3.0], [8.0]])  # mean 4, variance (9 + 1 + 16) / 2 = 13
    y = norm.by_batch(x)
    torch.testing.assert_close(y, 2 * (x - 4) / math.sqrt(14) + 1)
    assert (norm.mean.item(), norm.var.item(), int(norm.steps)) == (0.0, 1.0, 0), "a pass alone moves nothing"
    norm.follow_batch()
    norm.follow_batch()
    assert (norm.mean.item(), norm.var.item(), int(norm.steps)) == (2.0, 7.0, 1)
    torch.testing.assert_close(norm(x), 2 * (x - 2) / math.sqrt(8) + 1)
    # The warm-up is over: r = sqrt(14 / 8), d = (4 - 2) / sqrt(8).
    r, d = math.sqrt(14 / 8), 2 / math.sqrt(8)
    center, var = 4 - d * math.sqrt(13) / r, 13 / r**2
    torch.testing.assert_close(norm.by_batch(x), 2 * (x - center) / math.sqrt(var + 1) + 1)


def test_what_a_batch_differs_by_is_limited() -> None:
    norm = BatchRenorm(2, NO_WARMUP)
    norm.begin_batch()
    r, d = norm._correction(torch.tensor([100.0, -100.0]), torch.tensor([400.0, 0.0]))
    torch.testing.assert_close(r, torch.tensor([3.0, 1 / 3]))
    torch.testing.assert_close(d, torch.tensor([5.0, -5.0]))


@pytest.mark.parametrize("name", OPTIONS)
def test_it_gives_what_sb3_contribs_does(name: str) -> None:
    torch.manual_seed(0)
    options = OPTIONS[name]
    ours = BatchRenorm(5, options).double()
    twin = BatchRenorm1d(5, options.eps, options.momentum, warmup_steps=options.warmup_steps).double()
    with torch.no_grad():
        twin.ra_mean.copy_(ours.mean.uniform_(-2, 2))
        twin.ra_var.copy_(ours.var.uniform_(0.5, 3))
        twin.scale.copy_(ours.scale.uniform_(0.5, 2))
        twin.bias.copy_(ours.shift.uniform_(-1, 1))
    for _ in range(4):
        x = torch.randn(16, 5, dtype=torch.float64) * torch.tensor([1, 0.01, 30.0, 2, 5])
        x += torch.tensor([0, 3.0, -50, 1, 0.2])
        weights = torch.randn(16, 5, dtype=torch.float64)
        found = []
        for norm, run in ((ours, ours.by_batch), (twin, twin)):
            leaf = x.clone().requires_grad_()
            norm.zero_grad()
            y = run(leaf)
            y.backward(weights)
            found.append((y.detach(), leaf.grad))
        ours.follow_batch()
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other)
        torch.testing.assert_close(ours.scale.grad, twin.scale.grad)
        torch.testing.assert_close(ours.shift.grad, twin.bias.grad)
        torch.testing.assert_close(ours.mean, twin.ra_mean)
        torch.testing.assert_close(ours.var, twin.ra_var)


@pytest.mark.parametrize("name", OPTIONS)
def test_its_derivative_is_that_of_finite_differences(name: str) -> None:
    torch.manual_seed(1)
    norm = BatchRenorm(3, OPTIONS[name]).double()
    with torch.no_grad():
        norm.mean.uniform_(-1, 1)
    x, weights, step = torch.randn(6, 3, dtype=torch.float64) * 2, torch.randn(6, 3, dtype=torch.float64), 1e-6
    mean, var = x.mean(dim=0), x.var(dim=0)
    norm.begin_batch()
    held = norm._correction(mean, var)  # r and d are constants
    norm._correction = lambda *_: held  # type: ignore[method-assign]
    leaf = x.clone().requires_grad_()
    (norm.by_batch(leaf) * weights).sum().backward()
    assert leaf.grad is not None
    for entry in np.ndindex(6, 3):
        moved = [x.clone(), x.clone()]
        for other, by in zip(moved, (step, -step), strict=True):
            other[entry] += by
        low, high = ((norm.by_batch(other) * weights).sum().item() for other in moved)
        assert leaf.grad[entry].item() == pytest.approx((low - high) / (2 * step), abs=1e-5)


def test_a_feature_that_is_constant_has_a_derivative_after_the_warm_up() -> None:
    norm = BatchRenorm(1, NO_WARMUP)
    x = torch.full((4, 1), 3.0, requires_grad=True)
    norm.by_batch(x).backward(torch.ones(4, 1))
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_a_single_sample_has_no_statistics() -> None:
    with pytest.raises(ConfigError, match="a batch of at least 2 samples, got a batch size of 1"):
        BatchRenorm(3).by_batch(torch.zeros(1, 3))


def network(*densities: float, sizes: tuple[int, ...] = (7, 12, 9, 2)) -> NormalisedMLP:
    torch.manual_seed(3)
    plain = SparseMLP.random(sizes, densities, seed=0, name="net")
    made = NormalisedMLP.of(plain, NO_WARMUP)
    for norm in made.norms:
        with torch.no_grad():
            norm.mean.normal_()
            norm.var.uniform_(0.5, 3)
            norm.scale.uniform_(0.5, 2)
            norm.shift.normal_()
    return made


DENSITIES = {"sparse": (0.4, 0.3, 0.5), "mixed": (1.0, 0.3, 1.0), "dense": (1.0, 1.0, 1.0)}


@pytest.mark.parametrize("name", DENSITIES)
def test_folded_it_gives_the_same_and_follows_what_changes(name: str) -> None:
    net, x = network(*DENSITIES[name]), torch.randn(5, 7)
    for _ in range(2):
        torch.testing.assert_close(net.folded()(x), net(x), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(net.plain(x), net(x), rtol=1e-4, atol=1e-5)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.mul_(1.25)
            net.norms[1].mean.add_(1.0)
    assert net.folded() is net.folded()
    before = torch.get_rng_state()
    assert net.plain is not net.plain
    assert torch.equal(torch.get_rng_state(), before), "nothing is drawn"
    assert not any(isinstance(module, SparseMLP) for module in net.modules() if module is not net)


def test_after_a_topology_event_it_is_folded_anew() -> None:
    net, x = network(0.4, 0.3, 1.0), torch.randn(5, 7)
    ensemble = FoldedEnsemble([net])
    ensemble.refresh()
    assert ensemble.joined is not None
    layer = net[1]
    old = layer.topology
    new = SparseTopology(old.n_out, old.n_in, np.setdiff1d(np.arange(old.n_out * old.n_in), old.flat)[: layer.nnz])
    source = np.full(layer.nnz, -1)
    layer.apply_change(TopologyChange(old, new, source), np.arange(layer.nnz, dtype=np.float32))
    ensemble.refresh()
    torch.testing.assert_close(torch.stack(list(ensemble(x)))[0], net(x), rtol=1e-4, atol=1e-4)


def test_a_copy_has_a_folded_network_of_its_own() -> None:
    net = network(0.4, 0.3, 1.0)
    ensemble = ensemble_of([net])
    both = copy.deepcopy({"net": net, "ensemble": ensemble})
    with torch.no_grad():
        both["net"][0].values.zero_()
    both["ensemble"].refresh()
    ensemble.refresh()
    x = torch.randn(3, 7)
    torch.testing.assert_close(both["ensemble"](x)[0], both["net"](x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ensemble(x)[0], net(x), rtol=1e-4, atol=1e-5)


def test_activations_pruning_and_state_know_the_normalisation() -> None:
    net, x = network(0.4, 0.3, 1.0), torch.randn(5, 7)
    *_, last = hidden_activations(net, x)
    torch.testing.assert_close(net[2](net.norms[2](last)), net(x))
    smaller = pruned(net, 0.2, "global", name="net")
    assert isinstance(smaller, NormalisedMLP)
    assert [norm.mean.tolist() for norm in smaller.norms] == [norm.mean.tolist() for norm in net.norms]
    other = network(0.4, 0.3, 1.0)
    other.load_state_dict(net.state_dict())
    torch.testing.assert_close(other(x), net(x))
