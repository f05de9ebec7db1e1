"""`FusedAdam` is torch's Adam: same steps, same state, also after topology events and in every option."""

from __future__ import annotations

import copy
import sys
import weakref
from inspect import unwrap
from typing import Any

import pytest
import torch

from sparserl.kernels import program
from sparserl.kernels.program import Step
from sparserl.layers.fused_adam import FusedAdam

SHAPES = [(7, 5), (5,), (1003,), (1,), (0,)]


def parameters(dtype: torch.dtype, seed: int = 0) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in SHAPES]


def give_gradients(step: int, *groups: list[torch.nn.Parameter], without: tuple[int, ...] = ()) -> None:
    generator = torch.Generator().manual_seed(100 + step)
    for place, twins in enumerate(zip(*groups, strict=True)):
        gradient = torch.randn(twins[0].shape, generator=generator, dtype=twins[0].dtype)
        for parameter in twins:
            parameter.grad = None if place in without else gradient.clone()


def assert_close(ours: torch.optim.Optimizer, theirs: torch.optim.Optimizer, tolerance: float) -> None:
    a, b = ours.state_dict(), theirs.state_dict()
    assert a["state"].keys() == b["state"].keys()
    for group_a, group_b in zip(ours.param_groups, theirs.param_groups, strict=True):
        for p, q in zip(group_a["params"], group_b["params"], strict=True):
            torch.testing.assert_close(p, q, rtol=tolerance, atol=tolerance)
    for place, state in a["state"].items():
        assert state.keys() == b["state"][place].keys()
        for name, value in state.items():
            torch.testing.assert_close(value, b["state"][place][name], rtol=tolerance, atol=tolerance)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each step that our kernel took."""
    taken: list[int] = []

    def spy(*steps: Step) -> None:
        (_, (table, *_)) = steps[0].kept  # type: ignore[misc]  # what the optimizer keeps
        taken.append(len(table))
        add(*steps)

    add = program.add
    monkeypatch.setattr(program, "add", spy)
    return taken


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lr": 0.1, "betas": (0.5, 0.7), "eps": 1e-3, "weight_decay": 0.3},
        {"lr": 0.01, "weight_decay": 0.3, "decoupled_weight_decay": True},
    ],
    ids=str,
)
def test_takes_the_steps_of_torch(
    dtype: torch.dtype, tolerance: float, options: dict[str, Any], calls: list[int]
) -> None:
    a, b = parameters(dtype), parameters(dtype)
    ours, theirs = FusedAdam(a, **options), torch.optim.Adam(b, **options)
    for step in range(5):
        give_gradients(step, a, b)
        ours.step()
        theirs.step()
        assert_close(ours, theirs, tolerance)
    assert calls == [len(SHAPES)] * 5


@pytest.mark.parametrize("options", [{"amsgrad": True}, {"maximize": True}], ids=str)
def test_leaves_variants_to_torch(options: dict[str, Any], calls: list[int]) -> None:
    a, b = parameters(torch.float32), parameters(torch.float32)
    ours, theirs = FusedAdam(a, weight_decay=0.1, **options), torch.optim.Adam(b, weight_decay=0.1, **options)
    for step in range(3):
        give_gradients(step, a, b)
        ours.step()
        theirs.step()
    assert_close(ours, theirs, 1e-6)
    assert not calls


def test_parameters_without_a_gradient_wait(calls: list[int]) -> None:
    """Those whose clocks differ then step in calls of their own; a clock ticks once for all that share it."""
    a, b = parameters(torch.float32), parameters(torch.float32)
    ours, theirs = FusedAdam(a), torch.optim.Adam(b)
    for step, without in enumerate([(), (0, 2), (), (1,)]):
        give_gradients(step, a, b, without=without)
        ours.step()
        theirs.step()
        assert_close(ours, theirs, 1e-6)
    assert calls == [5, 3, 2, 3, 2, 2]


def test_goes_on_after_loading_either_way(calls: list[int]) -> None:
    a, b = parameters(torch.float32), parameters(torch.float32)
    ours, theirs = FusedAdam(a), torch.optim.Adam(b)
    give_gradients(0, a, b)
    ours.step()
    theirs.step()
    saved_ours, saved_theirs = copy.deepcopy(ours.state_dict()), copy.deepcopy(theirs.state_dict())
    ours, theirs = FusedAdam(a), torch.optim.Adam(b)
    ours.load_state_dict(saved_theirs)
    theirs.load_state_dict(saved_ours)
    for step in (1, 2):
        give_gradients(step, a, b)
        ours.step()
        theirs.step()
    assert_close(ours, theirs, 1e-6)
    assert calls == [5, 5, 5]


def test_sees_tensors_that_were_replaced() -> None:
    """As a topology event does it: another length of weights, gradient and moments."""
    a, b = [torch.nn.Parameter(torch.ones(4))], [torch.nn.Parameter(torch.ones(4))]
    ours, theirs = FusedAdam(a), torch.optim.Adam(b)
    for step, keep in enumerate([slice(None), slice(1, 3)]):
        for (parameter,), optimizer in ((a, ours), (b, theirs)):
            parameter.grad = None
            parameter.data = parameter.data[keep].clone()
            for name in ("exp_avg", "exp_avg_sq"):
                if parameter in optimizer.state:
                    optimizer.state[parameter][name] = optimizer.state[parameter][name][keep].clone()
        give_gradients(step, a, b)
        ours.step()
        theirs.step()
        assert_close(ours, theirs, 1e-6)


def test_gradients_that_autograd_made_anew_replace_those_before(calls: list[int]) -> None:
    a, b = parameters(torch.float32), parameters(torch.float32)
    ours, theirs = FusedAdam(a), torch.optim.Adam(b)
    described = []
    ours._describe = lambda: described.append(1) or FusedAdam._describe(ours)  # type: ignore[method-assign,func-returns-value]
    before = None
    for step in range(6):
        give_gradients(step, a, b)
        if step == 3:  # not in the order that the kernel reads
            a[0].grad = b[0].grad.t().contiguous().t()  # type: ignore[union-attr]  # was given
        gradient = weakref.ref(a[2].grad)  # type: ignore[arg-type]  # likewise
        ours.step()
        theirs.step()
        for one, other in zip(a, b, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
        assert before is None or before() is None, "a gradient of an earlier step is kept"
        before = gradient
    assert len(calls) == 5
    assert len(described) == 3, "at first, for the strange one, and after it"


def test_moments_of_another_length_are_refused() -> None:
    """Never by the kernel, which would write past their end."""
    (parameter,) = group = [torch.nn.Parameter(torch.ones(4))]
    optimizer = FusedAdam(group)
    parameter.grad = torch.ones(4)
    optimizer.step()
    optimizer.state[parameter]["exp_avg"] = torch.zeros(3)
    with pytest.raises(RuntimeError, match="size"):
        optimizer.step()


def test_hooks_and_closures_are_honoured(calls: list[int]) -> None:
    group = [torch.nn.Parameter(torch.ones(4))]
    optimizer = FusedAdam(group)
    group[0].grad = torch.ones(4)
    assert optimizer.step(lambda: 3.0) == 3.0
    heard = []
    optimizer.register_step_post_hook(lambda *_: heard.append(1))
    optimizer.step()
    assert heard == [1]
    assert not calls


def test_a_copy_steps_on_its_own(calls: list[int]) -> None:
    a = parameters(torch.float32)
    ours = FusedAdam(a)
    give_gradients(0, a, parameters(torch.float32))
    ours.step()
    before = [parameter.detach().clone() for parameter in a]
    copied = copy.deepcopy(ours)
    for group in copied.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.ones_like(parameter)
    copied.step()
    assert calls == [5, 5]
    for group in copied.param_groups:
        assert not any(torch.equal(new, old) for new, old in zip(group["params"], before, strict=True) if old.numel())
    assert all(torch.equal(parameter, old) for parameter, old in zip(a, before, strict=True))


def test_nothing_of_it_imports_what_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
        called_before = unwrap(getattr(torch.optim.Adam, name))
        monkeypatch.delattr(called_before, "__dynamo_disable", raising=False)
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)
    with pytest.raises(ImportError, match="_dynamo"):
        torch.optim.Adam([torch.ones(3, requires_grad=True)])
    weight = torch.ones(3, requires_grad=True)
    optimizer = FusedAdam([weight])
    optimizer.zero_grad()
    weight.grad = torch.ones(3)
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    assert (weight < 1).all()
