"""Forward passes that torch watches: compiled, exported, traced, or averaged over processes.

The kernels are no torch operators, so nothing that records operators sees what they do; and what holds the parameters
does not know that connections change. Either it works around that here, or is refused in one line.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch.nn.parallel import DistributedDataParallel

from sparserl.errors import KernelUnavailable, TopologyError

_known: WeakKeyDictionary[DistributedDataParallel, dict[int, Any]] = WeakKeyDictionary()
"""For each wrapper the connections that layers had in its first pass, by their id; held, so that ids stay theirs."""


def is_watched() -> bool:
    """Whether this pass needs `watched`."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
        or DistributedDataParallel._active_ddp_module is not None
    )


def watched(layers: Sequence[Any], forward: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Runs a pass through sparse layers that something else watches.

    Args:
        layers: The sparse ones that take part.
        forward: The pass.
        x: Its input.

    Raises:
        KernelUnavailable: If the pass is recorded as torch operators, for `torch.export`, ONNX or TorchScript.
        TopologyError: If `DistributedDataParallel` would not average what the layers learn.
    """
    if torch.compiler.is_exporting() or torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
        raise KernelUnavailable(
            "sparse layers are no torch operators and cannot be exported or traced; export "
            "`sparserl.dense_copy(model)`, or an agent's policy by `sparserl export`"
        )
    if torch.compiler.is_compiling():
        return _outside_of_the_graph()(forward, x)
    _check_averaged(layers)
    return forward(x)


def _outside_of_the_graph() -> Callable[..., torch.Tensor]:
    """Runs a function as it is; made at the first need, because it takes torch a second to import its compiler."""
    global _outside
    if _outside is None:
        _outside = torch.compiler.disable(_run, reason="sparse kernels are no torch operators")  # type: ignore[no-untyped-call]
    return _outside


def _run(forward: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    return forward(x)


_outside: Callable[..., torch.Tensor] | None = None


def _check_averaged(layers: Sequence[Any]) -> None:
    """Gradients of weights that were replaced after the model was wrapped are never averaged."""
    wrapper = DistributedDataParallel._active_ddp_module
    if wrapper is None:
        return
    known = _known.setdefault(wrapper, {})
    for layer in layers:
        if known.setdefault(id(layer), layer.index) is not layer.index:
            raise TopologyError(
                "connections have changed since DistributedDataParallel took hold of the weights, which it would "
                "average no more; wrap the model anew after such an event: DistributedDataParallel(wrapper.module)"
            )
        if layer.capture and torch.distributed.get_world_size(wrapper.process_group) > 1:
            raise TopologyError(
                "growth by gradient or activations sees the batches of one process alone, so processes would grow "
                "other connections; "
                "use a method that grows at random, e.g. 'set', with DistributedDataParallel"
            )
