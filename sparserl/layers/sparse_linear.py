"""A linear layer whose only parameters are the weights of connections that exist, and biases.

Decides how a topology is stored in a module and survives `state_dict`, `copy` and topology events.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from sparserl.errors import KernelUnavailable, TopologyError
from sparserl.kernels import CsrIndex, require_cpu
from sparserl.layers.fused import FusedLayers
from sparserl.layers.linear import KINDS, LinearLayer
from sparserl.layers.relatives import Relatives
from sparserl.topology.criteria import largest
from sparserl.topology.moments import Entries
from sparserl.topology.rewire import remap
from sparserl.topology.structure import (
    Flags,
    FloatArray,
    LayerView,
    Positions,
    Slots,
    SparseTopology,
    TopologyChange,
)
from sparserl.topology.values import initial_values

USED = "used"
"""Key in a layer's state of the slots that products use, where these are not all."""


class SparseLinear(nn.Module):
    """`y = W x + b` with `W` stored and multiplied as its connections alone.

    Where the topology says so, products use some of the connections alone; the gradient of `values` is of all of them.

    Weights start as in `nn.Linear`, uniform in +-1/sqrt(n_in) with the dense fan-in, as DS-TD3's code has it.

    Args:
        topology: The connections, `nnz` of them.
        bias: Whether each output has a bias.
        dtype: Of values and bias; the default dtype if None.

    Attributes:
        values: (nnz,) parameter, the weight of each slot. The object never changes; its length may, at a topology
            event.
        bias: (n_out,) parameter or None.
        row_ptr: (n_out + 1,) int64, first slot of each output. In `state_dict` but no buffer, like `col`: what
            averages, casts or synchronises buffers leaves indices alone.
        col: (nnz,) int32, input of each slot.
        capture: While true, backward passes that form the gradient of `values` append to `activation_pairs`.
        captures_activations: Whether they keep activations beside the input in place of the gradient at the output.
        activation_pairs: (input (n_in, B), output gradient or activations (n_out, B)) of captured passes.
        fused: What runs it.
        trained: Whether a backward pass has formed the gradient of this object's weights, an event has changed its
            connections, or a target network keeps it in step with another layer.

    Raises:
        TopologyError: If the topology is not valid. Reading a copy (its output, its `topology`, its `state_dict`): if
            its weights were changed slot by slot after the layer it was copied from had been rewired.
        KernelUnavailable: If the weights are not float32 or float64, or not on the CPU.
    """

    row_ptr: torch.Tensor
    col: torch.Tensor
    connections: SparseTopology
    _index: CsrIndex | None

    def __init__(self, topology: SparseTopology, bias: bool = True, dtype: torch.dtype | None = None):
        super().__init__()
        topology.check_valid()
        bound = 1.0 / math.sqrt(topology.n_in)
        values = nn.Parameter(torch.empty(topology.nnz, dtype=dtype).uniform_(-bound, bound))
        biases = nn.Parameter(torch.empty(topology.n_out, dtype=dtype).uniform_(-bound, bound)) if bias else None
        self._hold(topology, values, biases)

    @classmethod
    def of(cls, topology: SparseTopology, values: torch.Tensor, bias: nn.Parameter | None) -> SparseLinear:
        """A layer with given weights; nothing is drawn at random.

        Args:
            topology: The connections, `nnz` of them.
            values: (nnz,) their weights; the layer keeps this memory.
            bias: (n_out,), the very parameter that the layer will have, or None.

        Raises:
            TopologyError: If the topology is not valid.
        """
        topology.check_valid()
        layer = cls.__new__(cls)
        nn.Module.__init__(layer)
        layer._hold(topology, nn.Parameter(values), bias)
        return layer

    def with_weights(self, values: torch.Tensor, bias: nn.Parameter | None) -> SparseLinear:
        """A layer of the same connections, of which both have the same index, with other weights; as `of`."""
        layer = SparseLinear.of(self.topology, values, bias)
        vars(layer)["_index"] = self.index
        return layer

    def _hold(self, topology: SparseTopology, values: nn.Parameter, bias: nn.Parameter | None) -> None:
        check_has_kernels(values)
        self.n_out, self.n_in = topology.n_out, topology.n_in
        self.values, self.bias = values, bias
        self.capture = self.captures_activations = False
        self.activation_pairs: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.fused = FusedLayers([[self]])
        self.trained = False
        self._relatives = Relatives()
        self._adopt(topology)
        self._relatives.add(self)

    def _adopt(self, topology: SparseTopology) -> None:
        vars(self)["connections"] = topology
        self._hold_index(*topology.rows)

    def _hold_index(self, row_ptr: npt.NDArray[np.int64], col: npt.NDArray[np.int32]) -> None:
        used = self.connections.used
        # The arrays own the memory, not the tensors: torch moves that of tensors when it sends them to other processes.
        # Past the setter of a module, which takes longer than all this.
        vars(self).update(
            row_ptr=torch.from_numpy(row_ptr),
            col=torch.from_numpy(col),
            _index=CsrIndex(
                self.n_out, self.n_in, row_ptr, col.view(np.uint32), None if used is None else used.view(np.uint32)
            ),
        )

    @property
    def index(self) -> CsrIndex:
        """The connections as the kernels read them; shares memory with `row_ptr` and `col`."""
        self._relatives.check(self)
        if self._index is None:
            self._hold_index(self.row_ptr.numpy().copy(), self.col.numpy().copy())
            assert self._index is not None
        return self._index

    @property
    def topology(self) -> SparseTopology:
        """The present connections; the same object until they change."""
        self._relatives.check(self)
        return self.connections

    @property
    def nnz(self) -> int:
        """Number of connections."""
        return self.values.numel()

    @property
    def density(self) -> float:
        """Share of the dense layer's connections that exist."""
        return self.nnz / (self.n_out * self.n_in)

    def index_bytes(self) -> int:
        """Memory of the indices, and of what has been derived from them so far."""
        used = self.connections.used
        size = self.row_ptr.nbytes + self.col.nbytes + (0 if used is None else used.nbytes)
        return size + (0 if self._index is None else self._index.derived_bytes())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., n_in) to (..., n_out), as `nn.Linear`."""
        flat = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
        return self.fused(flat)[0].reshape(*x.shape[:-1], self.n_out)

    def view(self) -> LayerView:
        """The layer as a criterion sees it."""
        samples = tuple((x.numpy(), dy.numpy()) for x, dy in self.activation_pairs)
        return LayerView(self.topology, self.values.detach().numpy(), samples)

    @torch.no_grad()
    def apply_change(self, change: TopologyChange, grown_values: float | FloatArray = 0.0) -> None:
        """Adopts `change.new`; survivors keep their weight bit for bit.

        Args:
            change: Planned on this layer's present topology.
            grown_values: Weight of grown connections: a number or (change.grown,).

        Raises:
            TopologyError: If the change was planned on a topology of another size.
        """
        if change.source.size and int(change.source.max()) >= self.nnz:
            raise TopologyError("the change was planned on another topology")
        self._replace_values(torch.from_numpy(remap(self.values.detach().numpy(), change, grown_values)))
        self._adopt(change.new)
        vars(self)["trained"] = True
        self._relatives.add(self)

    def begin_use(self, count: int | None) -> None:
        """Lets products use the `count` weights of largest magnitude alone, all if None; the others learn beside."""
        if count is not None:
            self.use(largest(self.values.detach().numpy(), count))

    def use(self, slots: Slots) -> None:
        """Lets products use the connections of some slots alone, sorted; the gradient of `values` is of all as before.

        The connections must not be in use by a pass whose gradients have not been formed.
        """
        self._adopt(self.connections.with_used(slots))

    def used_alone(self) -> SparseLinear:
        """A layer of the connections that products use alone, with the same biases; itself where these are all."""
        used = self.topology.used
        if used is None:
            return self
        values = self.values.detach()[torch.from_numpy(used.astype(np.int64))]
        return SparseLinear.of(self.topology.in_use, values, self.bias)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> SparseLinear:
        """What `to`, `half`, `double` and their like call, with what they do to a tensor.

        Raises:
            KernelUnavailable: If that leaves the CPU, or float32 and float64; layers that torch asked before this one
                have followed already.
        """
        like = fn(torch.empty(0, dtype=self.values.dtype))
        check_has_kernels(like, advice="; .float() takes back what has been converted")
        self._relatives.check(self)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self._relatives.apart:
            self._relatives.add(self)  # other numbers, but not by arithmetic
        return self

    def _replace_values(self, values: torch.Tensor) -> None:
        # A graph that is still referenced (by `loss` of the last batch) keeps the node that accumulates the gradient,
        # and with it the old length. torch makes a new one only when the dtype changes.
        self.values.data = torch.empty(0, dtype=torch.bfloat16)
        self.values.data = values
        self.values.grad = None
        # A pass that is still on its way forward and back is one of other connections: torch shall say so.
        torch.autograd.graph.increment_version(self.values)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        self._relatives.check(self)
        super()._save_to_state_dict(destination, prefix, keep_vars)
        # Copies: editing a state in place changes no index.
        destination |= {prefix + "row_ptr": self.row_ptr.clone(), prefix + "col": self.col.clone()}
        if self.connections.used is not None:
            destination[prefix + USED] = torch.from_numpy(self.connections.used.copy())

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        *args: Any,
    ) -> None:
        # The stored topology replaces ours, whatever its length.
        names = [prefix + name for name in ("values", "row_ptr", "col")]
        stored = [state_dict[name] for name in names if name in state_dict]
        used = state_dict.get(prefix + USED)
        if 0 < len(stored) < len(names):
            lacking = ", ".join(name for name in names if name not in state_dict)
            raise TopologyError(f"weights and connections of a layer load together, but the state has no {lacking}")
        if stored:
            assign = bool(local_metadata.get("assign_to_params_buffers"))
            self._load(*stored, used=used, name=prefix[:-1], assign=assign)
        rest = {name: value for name, value in state_dict.items() if name not in (*names, prefix + USED)}
        lacking_too: list[str] = [] if stored else names[1:]
        super()._load_from_state_dict(rest, prefix, local_metadata, strict, lacking_too, *args)
        missing_keys += [name for name in lacking_too if not (stored and name in names)]

    def _load(
        self,
        values: torch.Tensor,
        row_ptr: torch.Tensor,
        col: torch.Tensor,
        *,
        used: torch.Tensor | None,
        name: str,
        assign: bool,
    ) -> None:
        for index in (row_ptr, col, row_ptr if used is None else used):
            if index.is_floating_point():
                raise TopologyError(
                    f"indices of {name!r} are whole numbers and never averaged or cast, got {index.dtype}"
                )
        fits = row_ptr.shape == (self.n_out + 1,) and col.shape == values.shape == (int(row_ptr[-1]),)
        inputs = col.cpu().numpy().astype(np.int64)
        in_range = inputs.size == 0 or 0 <= inputs.min() <= inputs.max() < self.n_in
        if not (fits and in_range and row_ptr[0] == 0 and (row_ptr.diff() >= 0).all()):
            raise TopologyError(f"the stored topology of {name!r} does not fit {self.n_out} x {self.n_in}")
        outputs = np.repeat(np.arange(self.n_out), row_ptr.diff().cpu().numpy())
        topology = self.connections.with_positions(outputs * self.n_in + inputs)
        if used is not None:
            topology = topology.with_used(used.cpu().numpy())
        topology.check_valid()
        # The parameter stays the same object, also where torch would put another in its place (`assign=True`).
        values = values.detach()
        self._replace_values(values if assign else values.to(self.values).clone())
        self._adopt(topology)
        self._relatives.add(self, loaded=True)

    def __getstate__(self) -> dict[str, Any]:
        # Made anew where it is needed: a copied index would no longer share memory with the copied tensors.
        self._relatives.check(self)
        return {**vars(self), "_index": None, "trained": False}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        self._relatives.add(self)

    def extra_repr(self) -> str:
        """Shape, connections and density."""
        used = self.connections.used
        of_these = "" if used is None else f", in use={used.size}"
        return f"{self.n_in} -> {self.n_out}, nnz={self.nnz}, density={self.density:.3g}{of_these}"


def check_has_kernels(weights: torch.Tensor, whose: str = "got", advice: str = "") -> None:
    """Refuses weights that no kernel can compute with.

    Args:
        weights: The weights.
        whose: What stands before their element type in the message.
        advice: What stands after it.

    Raises:
        KernelUnavailable: If they are not float32 or float64, or not on the CPU.
    """
    require_cpu(weights.device)
    if weights.dtype not in (torch.float32, torch.float64):
        raise KernelUnavailable(f"sparserl computes with float32 or float64, {whose} {weights.dtype}{advice}")


class _Sparse(LinearLayer):
    @property
    def in_use(self) -> LinearLayer:
        alone = self.layer.used_alone()
        return self if alone is self.layer else _Sparse(alone)

    @property
    def weights(self) -> nn.Parameter:
        values: nn.Parameter = self.layer.values
        return values

    @property
    def shape(self) -> tuple[int, int]:
        return self.layer.n_out, self.layer.n_in

    @property
    def fan_in(self) -> Slots:
        counts: Slots = np.diff(self.layer.row_ptr.numpy())
        return counts

    @torch.no_grad()
    def redraw(self, initial_value: str = "dense_fan_in") -> None:
        super().redraw()
        if initial_value != "dense_fan_in":
            rng = np.random.default_rng(int(torch.randint(2**63 - 1, ())))
            self.weights.copy_(torch.from_numpy(initial_values(initial_value, self.layer.topology, rng)))

    def flat(self, slots: Slots) -> Positions:
        positions: Positions = self.layer.topology.flat[slots]
        return positions

    def into(self, outputs: Flags) -> Entries:
        return (torch.from_numpy(np.repeat(outputs, self.fan_in)),)

    def out_of(self, inputs: Flags) -> Entries:
        return (torch.from_numpy(inputs[self.layer.col.numpy()]),)

    @property
    def index(self) -> CsrIndex:
        index: CsrIndex = self.layer.index
        return index

    def index_bytes(self) -> int:
        size: int = self.layer.index_bytes()
        return size


KINDS[SparseLinear] = _Sparse
