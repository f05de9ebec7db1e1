"""Averages of weights follow rewiring, or are refused where they would mix connections."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import sparserl
from sparserl.errors import ConfigError, KernelUnavailable, TopologyError
from sparserl.layers.convert import to_dense
from sparserl.layers.sparse_training import SparseTraining

DECAY = 0.9
X = torch.randn(32, 12, generator=torch.Generator().manual_seed(1))
Trio = tuple[nn.Sequential, torch.optim.Optimizer, SparseTraining]


def start(method: str = "set", **options: Any) -> Trio:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 40), nn.BatchNorm1d(40), nn.ReLU(), nn.Linear(40, 40), nn.Linear(40, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    options = {"density": 0.3, "total_updates": 60, **({} if method == "static" else {"update_interval": 5}), **options}
    return model, optimizer, sparserl.sparsify(model, optimizer, method=method, **options)


def train(trio: Trio, updates: int, then: Callable[[nn.Module], object] = lambda model: None) -> None:
    model, optimizer, training = trio
    for _ in range(updates):
        optimizer.zero_grad()
        (model(X) - torch.sin(X[:, :3])).square().mean().backward()
        optimizer.step()
        training.step()
        then(model)


def weights(model: nn.Module) -> list[torch.Tensor]:
    """Dense weight of every linear layer."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear | sparserl.SparseLinear)]
    return [(layer if isinstance(layer, nn.Linear) else to_dense(layer)).weight.detach().clone() for layer in layers]


@pytest.mark.parametrize("method", ["set", "gmp", "rigl", "static"])
def test_an_average_is_that_of_each_connection(method: str) -> None:
    """Beside it, dense weights that forget a connection when it goes and take a new one as it is."""
    trio = start(method)
    model = trio[0]
    average = sparserl.average(model, decay=DECAY)
    expected = weights(model)
    known = [
        layer.topology.flat if isinstance(layer, sparserl.SparseLinear) else None for layer in (model[0], model[3])
    ]

    def follow(model: nn.Module) -> None:
        average.update()
        for place, now in enumerate(weights(model)):
            before = expected[place]
            mean = DECAY * before + (1 - DECAY) * now
            if place < 2:
                flat = model[3 * place].topology.flat
                new = np.setdiff1d(flat, known[place])
                mean.view(-1)[new] = now.view(-1)[new]
                gone = np.setdiff1d(np.arange(now.numel()), flat)
                mean.view(-1)[gone] = 0.0
                known[place] = flat
            expected[place] = mean

    train(trio, 40, follow)
    events = len({event.update for event in trio[2].events})
    assert events == 1 if method == "static" else events > 4
    for found, dense in zip(weights(average.module), expected, strict=True):
        torch.testing.assert_close(found, dense)
    torch.testing.assert_close(average.module[1].running_mean, model[1].running_mean)
    assert [layer.nnz for layer in (average.module[0], average.module[3])] == [model[0].nnz, model[3].nnz]


def test_it_is_used_like_the_model_and_is_no_part_of_its_training() -> None:
    trio = start()
    average = sparserl.average(trio[0], decay=DECAY).eval()
    assert torch.equal(average(X), copy.deepcopy(trio[0]).eval()(X))
    assert not any(parameter.requires_grad for parameter in average.parameters())
    assert len(list(average.parameters())) == len(list(trio[0].parameters()))
    train(trio, 8, lambda model: average.update())
    alone = average(X)
    train(trio, 8)
    assert torch.equal(average(X), alone)  # it keeps its own connections until the next update
    assert all(name.startswith("module.") for name in average.state_dict())


def test_average_and_model_resume_in_any_order() -> None:
    whole = start()
    average = sparserl.average(whole[0], decay=DECAY)
    train(whole, 33, lambda model: average.update())
    first = start()
    of_first = sparserl.average(first[0], decay=DECAY)
    train(first, 14, lambda model: of_first.update())
    parts = [of_first, *first]
    stored = copy.deepcopy([part.state_dict() for part in parts])
    for order in ([0, 1, 2, 3], [3, 2, 1, 0]):
        second = start()
        of_second = sparserl.average(second[0], decay=DECAY)
        train(second, 3, lambda model, average=of_second: average.update())  # must not matter
        fresh = [of_second, *second]
        for place in order:
            fresh[place].load_state_dict(copy.deepcopy(stored[place]))
        train(second, 19, lambda model, average=of_second: average.update())
        for name, tensor in average.state_dict().items():
            assert torch.equal(tensor, of_second.state_dict()[name]), name


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda whole: pickle.loads(pickle.dumps(whole))])
def test_a_copy_follows_the_copied_model(copied: Callable[[Any], Any]) -> None:
    trio = start()
    average = sparserl.average(trio[0], decay=DECAY)
    train(trio, 12, lambda model: average.update())
    before = pickle.dumps((trio, average))
    twin, of_twin = copied((trio, average))
    train(twin, 12, lambda model: of_twin.update())
    assert pickle.dumps((trio, average)) == before
    train(trio, 12, lambda model: average.update())
    for name, tensor in average.state_dict().items():
        assert torch.equal(tensor, of_twin.state_dict()[name]), name


def test_going_back_to_earlier_weights_takes_the_average_along() -> None:
    trio = start()
    average = sparserl.average(trio[0], decay=DECAY)
    train(trio, 4, lambda model: average.update())
    best = copy.deepcopy(trio[0].state_dict())
    train(trio, 20, lambda model: average.update())
    before = average.module[3].topology.flat
    trio[0].load_state_dict(best)
    average.update()
    for own, online in zip((average.module[0], average.module[3]), (trio[0][0], trio[0][3]), strict=True):
        assert np.array_equal(own.topology.flat, online.topology.flat)
    back = ~np.isin(trio[0][3].topology.flat, before)
    assert back.any()
    torch.testing.assert_close(average.module[3].values[back], trio[0][3].values[back].detach())


def test_tensors_may_have_their_axes_in_another_order() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten()).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = sparserl.average(model, 0.75)
    before, weight = model[0].weight.detach().clone(), model[0].weight
    assert not weight.is_contiguous()
    with torch.no_grad():
        weight += torch.arange(weight.numel()).reshape(weight.shape)
    average.update()
    expected = 0.75 * before + 0.25 * weight.detach()
    torch.testing.assert_close(average.module[0].weight.detach(), expected)


def test_refusals() -> None:
    for decay in (-0.1, 1.0, float("nan")):
        with pytest.raises(ConfigError, match=rf"decay must be in \[0, 1\), got {decay}"):
            sparserl.average(nn.Linear(2, 2), decay=decay)
    with pytest.raises(KernelUnavailable, match=r"parameter 'weight' is torch\.bfloat16"):
        sparserl.average(nn.Linear(2, 2).bfloat16())
    model = nn.Sequential(nn.Linear(12, 40), nn.Linear(40, 2))
    average = sparserl.average(model)
    sparserl.sparsify(model, torch.optim.Adam(model.parameters()))
    with pytest.raises(TopologyError, match="average it after sparsify"):
        average.update()


# Averages by hand.


def lerp(copied: nn.Module, model: nn.Module) -> None:
    with torch.no_grad():
        for own, other in zip(copied.parameters(), model.parameters(), strict=True):
            own.lerp_(other, 0.1)


def through_data(copied: nn.Module, model: nn.Module) -> None:
    for own, other in zip(copied.parameters(), model.parameters(), strict=True):
        own.data.copy_(0.9 * own.data + 0.1 * other.data)


def hard(copied: nn.Module, model: nn.Module) -> None:
    with torch.no_grad():
        for own, other in zip(copied.parameters(), model.parameters(), strict=True):
            own.copy_(other)


def through_states(copied: nn.Module, model: nn.Module) -> None:
    """As timm's ModelEmaV2: everything in a state is averaged in place, indices too."""
    for own, other in zip(copied.state_dict().values(), model.state_dict().values(), strict=True):
        own.copy_(0.9 * own + 0.1 * other)


BY_HAND = {"lerp_": lerp, "through .data": through_data, "hard copy": hard, "through states": through_states}


@pytest.mark.parametrize("use", [lambda net: net(X), lambda net: net.state_dict(), lambda net: to_dense(net[3])])
@pytest.mark.parametrize("how", BY_HAND)
def test_an_average_by_hand_is_refused_after_a_rewiring(how: str, use: Callable[[nn.Module], object]) -> None:
    trio = start(first_update=5)
    target = copy.deepcopy(trio[0])
    train(trio, 4, lambda model: BY_HAND[how](target, model))
    use(target)  # so far slots are the same connections
    train(trio, 2)
    use(target)  # as it was before the rewiring, it is still whole
    BY_HAND[how](target, trio[0])
    with pytest.raises(TopologyError, match=r"changed slot by slot .* use sparserl.average") as caught:
        use(target)
    assert "\n" not in str(caught.value)
    train(trio, 8)  # the model itself is none the worse
    target.load_state_dict(trio[0].state_dict())
    use(target)


@pytest.mark.parametrize("use_buffers", [False, True])
@pytest.mark.parametrize("multi", [None, get_ema_multi_avg_fn(0.9)])
def test_torchs_average_is_right_without_rewiring_and_refused_with_it(multi: Any, use_buffers: bool) -> None:
    for method in ("static", "set"):
        trio = start(method)
        average = AveragedModel(trio[0], multi_avg_fn=multi, use_buffers=use_buffers)
        train(trio, 7, average.update_parameters)
        if method == "static":
            assert torch.isfinite(average(X)).all()
            assert np.array_equal(average.module[0].topology.flat, trio[0][0].topology.flat)
        else:
            with pytest.raises(TopologyError, match="changed slot by slot"):
                average(X)


def test_copies_that_train_themselves_or_are_kept_are_nobodys_business() -> None:
    trio = start()
    train(trio, 3)
    best, twin = copy.deepcopy(trio[0]), copy.deepcopy(trio)
    before = best.eval()(X)
    for _ in range(12):  # both rewire by turns
        train(trio, 1)
        train(twin, 1)
    assert torch.equal(best(X), before)
    optimizer = torch.optim.SGD(best.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        best(X).square().mean().backward()
        optimizer.step()
        train(trio, 1)
    assert best(X).square().mean() < before.square().mean()


def test_noise_on_fresh_copies_and_steps_without_gradients_are_nobodys_business() -> None:
    """Evolution strategies: a population is drawn around the model, which moves without a backward pass."""
    model, _, training = start(update_interval=1)
    first = copy.deepcopy(model)
    for _ in range(4):
        noisy = copy.deepcopy(model)
        with torch.no_grad():
            for net in (noisy, model):
                for parameter in net.parameters():
                    parameter.add_(0.01 * torch.randn_like(parameter))
        assert torch.isfinite(noisy(X)).all()
        assert torch.isfinite(model(X)).all()
        assert training.step()
    assert torch.isfinite(first(X)).all()


def test_a_kept_copy_may_become_double() -> None:
    trio = start()
    train(trio, 3)
    best = copy.deepcopy(trio[0])
    before = best(X)
    train(trio, 12)
    assert torch.allclose(best.double()(X.double()).float(), before)
    assert torch.equal(best.float()(X), before)
    with torch.no_grad():
        best[0].values.mul_(2.0)
    with pytest.raises(TopologyError, match="changed slot by slot"):
        best(X)


def test_noise_on_a_model_that_was_loaded_is_its_own_business() -> None:
    trio = start()
    train(trio, 12)
    loaded = start()[0]
    kept = copy.deepcopy(loaded)
    loaded.load_state_dict(trio[0].state_dict())
    with torch.no_grad():
        loaded[0].values.mul_(2.0)
    assert torch.isfinite(loaded(X)).all()
    assert torch.isfinite(kept(X)).all()


def test_float_and_double_leave_indices_alone() -> None:
    model = start()[0]
    for other in (model.double(), model.float()):
        assert (other[0].row_ptr.dtype, other[0].col.dtype) == (torch.int64, torch.int32)
    assert not any(buffer.dtype == torch.int32 for buffer in model.buffers())
