"""A linear layer whose only parameters are the weights of connections that exist, and biases.

Decides how a topology is stored in a module and survives `state_dict`, `copy` and topology events.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import nn

from sparserl.errors import TopologyError
from sparserl.kernels import CsrIndex
from sparserl.layers.fused import FusedLayers
from sparserl.topology.rewire import remap
from sparserl.topology.structure import FloatArray, LayerView, SparseTopology, TopologyChange


class SparseLinear(nn.Module):
    """`y = W x + b` with `W` stored and multiplied as its connections alone.

    Weights start as in `nn.Linear`, uniform in +-1/sqrt(n_in) with the dense fan-in, as DS-TD3's code has it.

    Args:
        topology: The connections, `nnz` of them.
        bias: Whether each output has a bias.
        dtype: Of values and bias; the default dtype if None.

    Attributes:
        values: (nnz,) parameter, the weight of each slot. The object never changes; its length may, at a topology
            event.
        bias: (n_out,) parameter or None.
        row_ptr: (n_out + 1,) int64 buffer, first slot of each output.
        col: (nnz,) int32 buffer, input of each slot.
        capture: While true, backward passes that form the gradient of `values` append to `captured`.
        captured: (input (n_in, B), output gradient (n_out, B)) of captured passes.

    Raises:
        TopologyError: If the topology is not valid.
    """

    row_ptr: torch.Tensor
    col: torch.Tensor

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

    def _hold(self, topology: SparseTopology, values: nn.Parameter, bias: nn.Parameter | None) -> None:
        self.n_out, self.n_in = topology.n_out, topology.n_in
        self.values, self.bias = values, bias
        self.capture = False
        self.captured: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._fused = FusedLayers([[self]])
        self._adopt(topology)

    def _adopt(self, topology: SparseTopology) -> None:
        row_ptr = np.searchsorted(topology.flat, np.arange(self.n_out + 1, dtype=np.int64) * self.n_in)
        self.register_buffer("row_ptr", torch.from_numpy(row_ptr))
        self.register_buffer("col", torch.from_numpy(topology.inputs.astype(np.int32)))
        self._index: CsrIndex | None = None
        self._topology: SparseTopology | None = topology

    @property
    def index(self) -> CsrIndex:
        """The connections as the kernels read them; shares memory with the buffers."""
        if self._index is None:
            self._index = CsrIndex(self.n_out, self.n_in, self.row_ptr.numpy(), self.col.numpy().view(np.uint32))
        return self._index

    @property
    def topology(self) -> SparseTopology:
        """The present connections; the same object until they change."""
        if self._topology is None:
            index = self.index
            self._topology = SparseTopology(self.n_out, self.n_in, index.rows * self.n_in + index.col.astype(np.int64))
        return self._topology

    @property
    def nnz(self) -> int:
        """Number of connections."""
        return self.values.numel()

    @property
    def density(self) -> float:
        """Share of the dense layer's connections that exist."""
        return self.nnz / (self.n_out * self.n_in)

    def index_bytes(self) -> int:
        """Memory of the indices: buffers, and what has been derived from them so far."""
        size = self.row_ptr.nbytes + self.col.nbytes
        if self._topology is not None:
            size += self._topology.flat.nbytes
        return size + (0 if self._index is None else self._index.derived_bytes())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., n_in) to (..., n_out), as `nn.Linear`."""
        flat = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
        return self._fused(flat)[0].reshape(*x.shape[:-1], self.n_out)

    def view(self) -> LayerView:
        """The layer as a criterion sees it."""
        samples = tuple((x.numpy(), dy.numpy()) for x, dy in self.captured)
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

    def _replace_values(self, values: torch.Tensor) -> None:
        # A graph that somebody still holds (`loss` of the last batch) keeps the node that accumulates the gradient, and
        # with it the old length. torch makes a new one only when the dtype changes.
        self.values.data = torch.empty(0, dtype=torch.bfloat16)
        self.values.data = values
        self.values.grad = None

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        # The stored topology replaces ours, whatever its length.
        stored = {name: state_dict.get(prefix + name) for name in ("values", "row_ptr", "col")}
        values, row_ptr, col = stored.values()
        if values is not None and row_ptr is not None and col is not None:
            if row_ptr.numel() != self.n_out + 1 or int(row_ptr[-1]) != values.numel() or col.numel() != values.numel():
                raise TopologyError(f"the stored topology of {prefix[:-1]!r} does not fit {self.n_out} x {self.n_in}")
            self._replace_values(torch.empty_like(values, dtype=self.values.dtype))
            self.register_buffer("row_ptr", torch.empty_like(row_ptr))
            self.register_buffer("col", torch.empty_like(col))
            self._index = self._topology = None
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self.topology.check_valid()

    def __getstate__(self) -> dict[str, Any]:
        # Made anew where it is needed: a copied index would no longer share memory with the copied buffers.
        return {**vars(self), "_index": None}

    def extra_repr(self) -> str:
        """Shape, connections and density."""
        return f"{self.n_in} -> {self.n_out}, nnz={self.nnz}, density={self.density:.3g}"
