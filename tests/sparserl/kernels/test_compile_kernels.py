"""Compiling takes seconds once per machine, so it is announced, and only then."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from support.networks import backward, forward

from sparserl.kernels import compile_kernels, compiled, cpu, program
from sparserl.layers.fused_adam import FusedAdam


@pytest.mark.parametrize(("misses", "messages"), [({}, 0), ({("a signature",): 1}, 1)])
def test_says_so_only_if_nothing_was_stored(
    misses: dict[object, int], messages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "transpose", SimpleNamespace(stats=SimpleNamespace(cache_misses=misses)))
    said: list[str] = []
    compile_kernels(said.append)
    assert len(said) == messages
    assert all("compiling" in message for message in said)


def test_nothing_is_left_to_compile_for_a_network_on_one_thread() -> None:
    compile_kernels(print)
    kernels, before = (program._run_alone, cpu.forward_one), len(program_functions())
    signatures = [len(kernel.signatures) for kernel in kernels]
    layer = torch.nn.Linear(3, 2)
    networks = cpu.Networks(
        [[cpu.Linear(cpu.CsrIndex.full(2, 3), layer.weight.detach().flatten(), layer.bias.detach())]]
    )
    forward(cpu, networks, torch.ones(1, 3), keep=False)
    y, saved = forward(cpu, networks, torch.ones(40, 3), keep=True)
    backward(cpu, networks, saved, y, cpu.GradientRequest())
    FusedAdam([torch.nn.Parameter(torch.ones(3))]).step()
    assert len(program_functions()) == before
    assert [len(kernel.signatures) for kernel in kernels] == signatures


def program_functions() -> list[object]:
    """Steps that are compiled."""
    return compiled._CALLBACKS
