"""What torch does to a model from outside: other types and devices, compilers, exporters, several processes."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import sparserl
from sparserl.errors import KernelUnavailable, TopologyError
from sparserl.layers import SparseLinear, SparseMLP
from sparserl.layers.sparsify import SparseTraining, sparsify
from sparserl.seeding import stream
from sparserl.topology.rewire import random_topology

Parts = tuple[nn.Module, torch.optim.Optimizer, SparseTraining]


def start(method: str = "set") -> Parts:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    return (
        model,
        optimizer,
        sparsify(model, optimizer, density=0.2, method=method, update_interval=2, first_update=1, total_updates=100),
    )


def learn(parts: Parts, model: Callable[[torch.Tensor], torch.Tensor], updates: int) -> None:
    x = torch.randn(16, 12, generator=torch.Generator().manual_seed(1))
    for _ in range(updates):
        parts[1].zero_grad()
        (model(x) - x[:, :3]).square().mean().backward()
        parts[1].step()
        parts[2].step()


def layer(n_out: int = 5, n_in: int = 7, dtype: torch.dtype | None = None) -> SparseLinear:
    return SparseLinear(random_topology(n_out, n_in, 11, stream(0, "test")), dtype=dtype)


# --- types and devices --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("convert", "message"),
    [
        (lambda model: model.half(), "float32 or float64, got torch.float16; .float"),
        (lambda model: model.bfloat16(), "float32 or float64, got torch.bfloat16"),
        (lambda model: model.to(torch.float16), "float32 or float64, got torch.float16"),
        (lambda model: model.type(torch.float16), "float32 or float64, got torch.float16"),
        (lambda model: model.type(torch.int64), "float32 or float64, got torch.int64"),
        (lambda model: model.to("meta"), "no kernels for device 'meta' yet; use 'cpu'"),
        (lambda model: model.to_empty(device="meta"), "no kernels for device 'meta' yet; use 'cpu'"),
    ],
)
def test_what_has_no_kernels_is_refused_and_changes_nothing(convert: Callable[[nn.Module], Any], message: str) -> None:
    model = SparseMLP([layer(), layer(3, 5)])
    before = model(torch.ones(2, 7))
    with pytest.raises(KernelUnavailable, match=message) as refusal:
        convert(model)
    assert "\n" not in str(refusal.value)
    assert torch.equal(model(torch.ones(2, 7)), before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_no_layer_is_made_of_another_type(dtype: torch.dtype) -> None:
    with pytest.raises(KernelUnavailable, match=f"float32 or float64, got {dtype}"):
        layer(dtype=dtype)


@pytest.mark.parametrize(
    "convert",
    [lambda model: model.double(), lambda model: model.type(torch.float64), lambda model: model.to(torch.float64)],
)
def test_double_precision_keeps_connections_and_goes_back(convert: Callable[[nn.Module], Any]) -> None:
    model, x = layer(), torch.rand(3, 7)
    before, columns = model(x), model.col.clone()
    before.sum().backward()
    convert(model)
    assert model.values.dtype == model.bias.dtype == model.values.grad.dtype == torch.float64
    assert (model.row_ptr.dtype, model.col.dtype) == (torch.int64, torch.int32)
    assert torch.equal(model.col, columns)
    torch.testing.assert_close(model(x.double()), before.double())
    assert torch.equal(model.float()(x), before)


def test_memory_that_is_shared_or_emptied_leaves_indices_whole() -> None:
    model, x = layer(), torch.rand(3, 7)
    before = model(x)
    topology = model.topology.flat.tolist()
    model.share_memory()
    assert model.values.is_shared()
    assert torch.equal(model(x), before)
    model.to_empty(device="cpu")
    assert model.topology.flat.tolist() == topology
    model.topology.check_valid()
    assert list(model.state_dict()) == list(layer().state_dict())


@pytest.mark.parametrize("copied", [False, True])
def test_a_layer_that_was_sent_to_another_process_still_computes(copied: bool) -> None:
    """Sending moves the memory of tensors that are sent and frees where they were."""
    model, x = layer(40, 50), torch.rand(3, 50)
    if copied:
        model = pickle.loads(pickle.dumps(model))
    before = model(x)
    index = model.index
    for tensor in (model.row_ptr, model.col):
        tensor.share_memory_()
    del tensor
    others = [np.full(count, 2**31 - 1, np.int32) for count in range(8, 60)]
    assert model.index is index
    assert index.col.tolist() == model.col.tolist()
    assert torch.equal(model(x), before)
    del others


# --- compilers and exporters --------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch's compiler hides its own, unless it is an error
def test_a_compiled_model_learns_the_same_in_silence(capfd: pytest.CaptureFixture[str]) -> None:
    plain, compiled = start(), start()
    learn(plain, plain[0], 5)
    learn(compiled, torch.compile(compiled[0], backend="eager"), 5)
    for ours, theirs in zip(compiled[0].parameters(), plain[0].parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert compiled[2].events == plain[2].events
    assert len(plain[2].events) > 2
    assert capfd.readouterr() == ("", "")


def test_a_sparse_model_is_not_exported_and_says_what_is() -> None:
    model, x = start()[0], torch.rand(2, 12)
    for export in (lambda: torch.export.export(model, (x,)), lambda: torch.export.export(model, (x,), strict=False)):
        with pytest.raises(KernelUnavailable, match=r"export `sparserl.dense_copy\(model\)`, or") as refusal:
            export()
        assert "\n" not in str(refusal.value)


@pytest.mark.filterwarnings("ignore:`torch.jit.trace` is deprecated", "ignore:`torch.jit.trace_method` is deprecated")
def test_a_sparse_model_is_not_traced() -> None:
    """The trace would hold the output of the example as a constant."""
    with pytest.raises(KernelUnavailable, match="cannot be exported or traced"):
        torch.jit.trace(start()[0], (torch.rand(2, 12),), check_trace=False)


def test_a_dense_copy_is_exported() -> None:
    parts, x = start(), torch.rand(2, 12)
    learn(parts, parts[0], 3)
    model = parts[0]
    copied = sparserl.dense_copy(model)
    assert [type(child) for child in copied.children()] == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
    exported = torch.export.export(copied, (x,)).module()
    torch.testing.assert_close(exported(x), model(x))
    copied[0].bias.data.fill_(9.0)
    assert not (model[0].bias == 9.0).any()
    assert isinstance(model[0], SparseLinear)


def test_dense_copies_of_layers_and_shared_layers() -> None:
    one = layer(7, 7)
    assert torch.equal(sparserl.dense_copy(one).weight != 0, sparserl.dense_copy(nn.Sequential(one))[0].weight != 0)
    twice = sparserl.dense_copy(nn.Sequential(one, nn.Sequential(one)))
    assert twice[0] is twice[1][0]
    mlp, x = SparseMLP([layer(), layer(3, 5)]), torch.rand(4, 7)
    torch.testing.assert_close(sparserl.dense_copy(mlp)(x), mlp(x))


# --- several processes --------------------------------------------------------------------------------


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_rewired_weights_that_nobody_averages_are_refused() -> None:
    parts = start()
    wrapped = DistributedDataParallel(parts[0])
    learn(parts, wrapped, 1)  # ends in an event
    with pytest.raises(TopologyError, match="connections have changed since DistributedDataParallel") as refusal:
        learn(parts, wrapped, 1)
    assert "\n" not in str(refusal.value)


@pytest.mark.usefixtures("one_process")
def test_a_model_that_is_wrapped_after_each_event_learns_as_one_that_is_not() -> None:
    plain, parts = start(), start()
    learn(plain, plain[0], 5)
    wrapped, events = DistributedDataParallel(parts[0]), 0
    for _ in range(5):
        learn(parts, wrapped, 1)
        if len(parts[2].events) > events:
            wrapped, events = DistributedDataParallel(wrapped.module), len(parts[2].events)
    for ours, theirs in zip(parts[0].parameters(), plain[0].parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.usefixtures("one_process")
def test_growth_by_gradient_is_refused_where_there_are_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = start("rigl")
    learn(parts, DistributedDataParallel(parts[0]), 1)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda group=None: 2)
    with pytest.raises(TopologyError, match="growth by gradient or activations sees the batches of one process alone"):
        learn(parts, DistributedDataParallel(parts[0]), 2)
