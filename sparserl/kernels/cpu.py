"""Whole networks in one Numba call, for the CPU: the tables and the memory that the kernels work on.

Each thread's sums of gradients are added in order, so results depend on the number of threads and on nothing else,
except that a single sample that needs no way back takes a path of its own (`tiles.forward_one`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sparserl.kernels import positions, program, tables
from sparserl.kernels.batch_norms import batch_gradient_step, batch_step
from sparserl.kernels.choice import BLOCK_ROWS
from sparserl.kernels.deferred import Array, Deferred, Lease, Memo, address_of, contiguous
from sparserl.kernels.gradients import backward_step, panel_step, total_step
from sparserl.kernels.index import CsrIndex, transpose
from sparserl.kernels.layout import (
    BACKWARD,
    FORWARD,
    PANEL_ROWS,
    SAMPLE,
)
from sparserl.kernels.networks import ActivationPair, GradientRequest, Gradients, Linear, Networks
from sparserl.kernels.pattern_index import pattern_index, shared_columns
from sparserl.kernels.plan import Frame, Plan, plan_of
from sparserl.kernels.program import Step, StepFunction, make_step
from sparserl.kernels.tiles import forward_one, forward_step, order_share, order_step
from sparserl.kernels.updates import STEPS

Parts = tuple[StepFunction, int, int]
"""Code of a step, and the first layer and the end of those that it goes through, where it is about some alone."""


def forward(networks: Networks, inputs: Sequence[Array], *, keep: bool) -> tuple[Array, object]:
    """Output of every network, and what `backward` needs if `keep`. See `sparserl.kernels.Backend`.

    Uses as many threads as `torch.get_num_threads()` says.
    """
    plan = plan_of(networks)
    kind = keep, torch.get_num_threads()
    forward_pass: _Pass | None = plan.passes.find(inputs, kind)
    if forward_pass is None:
        networks.check_inputs(inputs)
        if len(inputs[0]) == 1 and not keep:
            return _forward_one(plan, inputs), None
        forward_pass = _Pass(plan, [contiguous(part) for part in inputs], keep)
        if not forward_pass.frame.is_lent:
            plan.passes.keep(forward_pass, inputs, kind)
    if tables.CHECKED:
        plan.check(forward_pass.frame)
    program.add(*forward_pass.steps)
    return forward_pass.outputs, forward_pass if keep else None


class _Pass:
    """A forward pass with certain inputs, that may be followed by backward passes.

    Args:
        plan: Of the networks.
        inputs: (B, width) parts of the input.
        keep: Whether a backward pass follows.

    Attributes:
        lease: Its memory, given back when the pass and all steps on it are gone.
        frame: The same.
        outputs: (networks, B, n_out).
        steps: What computes them.
        ways_back: Backward passes for gradients that wait.
    """

    def __init__(self, plan: Plan, inputs: Sequence[Array], keep: bool):
        self.lease = plan.take(len(inputs[0]), keep)
        self.frame: Frame = self.lease.item
        out = np.empty((plan.count, self.frame.batch, plan.widths[-1]), plan.limits.dtype)
        sources = np.array([(address_of(part), part.shape[1]) for part in inputs], np.int64)
        arguments = [*self.frame.arguments(plan), sources.ctypes.data, len(sources), out.ctypes.data, 0]
        arguments += [*[0] * 5, FORWARD, 0, *self.frame.addresses]
        kept = plan.kept, self.lease, sources, [getattr(part, "memory", part) for part in inputs], out
        functions: list[Parts] = [(order_step, 0, 0)] if plan.gathers else []
        for number, (begin, end) in enumerate(plan.segments):
            functions += [(batch_step, begin, end)] if number else []
            functions.append((forward_step, begin, end))
        self.steps = made_steps(functions, arguments, plan, kept, self.frame.workers)
        self.outputs: Array = out if program.stretch() is None else Deferred(out)
        self.ways_back = Memo()


def made_steps(
    functions: Sequence[Parts], arguments: Sequence[int], plan: Plan, kept: object, shares: int
) -> list[Step]:
    """Steps of a pass.

    Args:
        functions: Of each step, and the layers that it goes through.
        arguments: That they share.
        plan: Of the networks.
        kept: Owns the memory at the addresses.
        shares: Of each step.
    """
    steps = []
    for function, *layers in functions:
        whole = [*arguments, *layers, int(tuple(layers) == plan.segments[0])]
        steps.append(make_step(function, whole, plan.limits.dtype, kept, shares))
    return steps


def _forward_one(plan: Plan, inputs: Sequence[Array]) -> npt.NDArray[Any]:
    """(networks, 1, n_out) of a single sample."""
    program.run_waiting()
    lease = plan.take(1, False)
    y = np.empty((plan.count, 1, plan.widths[-1]), plan.limits.dtype)
    parts = [contiguous(part) for part in inputs]
    if plan.gathers:
        order_share(0, 1, plan.table, 0, FORWARD, plan.limits[0])
    row = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
    frame: Frame = lease.item
    at = frame.levels[0], frame.reads[0], frame.statistics[0], frame.last[0]
    forward_one(plan.table, *at, row[0], y[:, 0], plan.limits, plan.size)
    return y


def backward(networks: Networks, saved: object, dy: Array, request: GradientRequest) -> Gradients:
    """Gradients of every network. See `sparserl.kernels.Backend`."""
    assert isinstance(saved, _Pass)
    way_back: _Backward | None = saved.ways_back.find([dy], request)
    plan = plan_of(networks)
    if way_back is None:
        networks.check_gradient(dy, saved.frame.batch)
        first = networks.first_backward(request)
        plan.transpose_from(first)
        way_back = _Backward(plan, saved.lease, contiguous(dy), request, first)
        if not request.samples and (request.reuse or not request.parameters):
            saved.ways_back.keep(way_back, [dy], request)
    if tables.CHECKED:
        plan.check(saved.frame)
    program.add(*way_back.steps)
    if request.samples:
        program.run_waiting()
    return Gradients(way_back.toward, way_back.totals, way_back.samples(plan))


class _Backward:
    """A backward pass, bound to a frame.

    Args:
        plan: Of the networks.
        lease: Of the frame of the forward pass.
        dy: Gradient of the outputs.
        request: What is wanted.
        ordered: First layer whose gradient by what it multiplies is formed.

    Attributes:
        steps: In order.
        toward: (B, width) the gradient of the last of the input's features, or None.
        totals: Places for the gradients of parameters, or None.
    """

    def __init__(self, plan: Plan, lease: Lease, dy: Array, request: GradientRequest, ordered: int):
        frame: Frame = lease.item
        self._frame, self._request = frame, request
        sums = plan.sums(frame.workers, request.reuse) if request.parameters else None
        self.totals = None if sums is None else sums.totals
        width = (request.last or plan.widths[0]) if request.inputs else 0
        dx = np.empty((plan.count, frame.batch, width), plan.limits.dtype)
        self.toward: Array | None = None
        if width:
            self.toward = dx[0] if program.stretch() is None else Deferred(dx[0])
        table, self._tapes = plan.table, []
        if request.samples:
            table = table.copy()
            for network, layer in request.samples:
                self._tapes.append(torch.empty(plan.widths[layer + 1] * frame.padded, dtype=plan.dtype))
                table[network, layer, SAMPLE] = self._tapes[-1].data_ptr()
        addresses = frame.nowhere if sums is None else sums.addresses
        common = frame.arguments(plan)
        common[0] = table.ctypes.data
        arguments = [*common, 0, 0, 0, ordered, request.lowest, addresses.ctypes.data]
        arguments += [address_of(dy), dx.ctypes.data if width else 0, width, BACKWARD, frame.d_levels.ctypes.data]
        arguments += frame.addresses
        kept = plan.kept, lease, table, sums, getattr(dy, "memory", dy), dx, self._tapes
        functions: list[Parts] = [(order_step, 0, 0)] if ordered < plan.depth else []
        for number, (begin, end) in reversed(list(enumerate(plan.segments))):
            if width or end > request.lowest:
                functions.append((backward_step, begin, end))
            if number and begin >= ordered:
                functions.append((batch_gradient_step, begin, end))
        if sums is not None and (table[:, request.lowest :, PANEL_ROWS] > 0).any():
            functions.append((panel_step, 0, 0))
        if frame.workers > 1 or (width and plan.count > 1):
            functions.append((total_step, 0, 0))
        self.steps = made_steps(functions, arguments, plan, kept, frame.workers)

    def samples(self, plan: Plan) -> list[ActivationPair]:
        """What was seen at the layers that were asked for, once the steps have run."""
        frame = self._frame
        return [
            ActivationPair(
                network,
                layer,
                frame.read(plan, network, layer),
                frame.from_tiles(tape, plan.widths[layer + 1]),
                frame.level(plan, network, layer + 1) if layer + 1 < plan.depth else None,
            )
            for (network, layer), tape in zip(self._request.samples, self._tapes, strict=True)
        ]


def compile_kernels(say: Callable[[str], object], dtype: torch.dtype = torch.float32) -> None:
    """Compiles what training needs, or loads what was compiled before on this machine.

    Args:
        say: Told before it takes long.
        dtype: Element type.
    """
    # The quickest to compile comes first: if it was not stored, nothing was.
    index = CsrIndex.full(1, 1)
    _ = index.transposed
    if transpose.stats.cache_misses:
        say("compiling the kernels for this CPU, once: 10 to 20 s")
    pattern_index(index.row_ptr, index.col, 1, BLOCK_ROWS, 1)
    shared_columns(index.row_ptr, index.col, BLOCK_ROWS)
    _ = index.column_starts
    one = torch.ones(1, dtype=dtype)
    networks = Networks([[Linear(index, one, one)]])
    for batch in (1, 2):
        _, saved = forward(networks, [torch.ones(batch, 1, dtype=dtype)], keep=batch > 1)
    backward(networks, saved, np.ones((1, 2, 1), one.numpy().dtype), GradientRequest())
    for function in (*STEPS, total_step, batch_step, batch_gradient_step):
        function.address(one.numpy().dtype)
    positions.compile_kernels()
