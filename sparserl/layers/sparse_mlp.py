"""A multilayer perceptron of sparse and dense layers that runs as one autograd node."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from sparserl.layers.autograd import ACTIVATIONS, chain
from sparserl.layers.sparse_linear import SparseLinear
from sparserl.seeding import stream
from sparserl.topology.density import exact_nnz
from sparserl.topology.rewire import random_topology


class SparseMLP(nn.ModuleList):
    """Linear layers, an activation after each but the last, and an output activation.

    Activations are transposed to (features, batch) once at the entry and back once at the exit. A list of its layers:
    `mlp[0]` is the first.

    Args:
        layers: `SparseLinear` or `nn.Linear`, in order.
        activation: Name of the hidden activation, in `ACTIVATIONS`.
        output_activation: Name of the last one.

    Raises:
        ValueError: If an activation has no such name.
    """

    def __init__(self, layers: Sequence[nn.Module], activation: str = "relu", output_activation: str = "identity"):
        super().__init__(layers)
        self.activations = [*[activation] * (len(layers) - 1), output_activation]
        for name in self.activations:
            if name not in ACTIVATIONS:
                raise ValueError(f"activation must be one of {sorted(ACTIVATIONS)}, got {name!r}")

    @classmethod
    def random(
        cls,
        sizes: Sequence[int],
        densities: Sequence[float],
        *,
        seed: int,
        name: str,
        activation: str = "relu",
        output_activation: str = "identity",
    ) -> SparseMLP:
        """A network with random topologies of exact size; a layer of density 1 is an ordinary `nn.Linear`.

        Args:
            sizes: Neurons of each layer, the input first.
            densities: Of each linear layer, in (0, 1].
            seed: Root seed of the topologies. Weights are drawn from torch's global generator, as `nn.Linear`'s are.
            name: Of the network, e.g. `"critic.qf0"`; layer l draws from the stream `(name.l)`.
            activation: Of hidden layers.
            output_activation: Of the last layer.
        """
        layers: list[nn.Module] = []
        for position, (n_in, n_out, density) in enumerate(zip(sizes[:-1], sizes[1:], densities, strict=True)):
            if density == 1.0:
                layers.append(nn.Linear(n_in, n_out))
                continue
            rng = stream(seed, "initial_topology", f"{name}.{position}")
            nnz = exact_nnz((n_out, n_in), density)
            layers.append(SparseLinear(random_topology(n_out, n_in, nnz, rng)))
        return cls(layers, activation, output_activation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, n_in) to (B, n_out)."""
        return chain(list(self), self.activations, x)  # type: ignore[arg-type]  # a ModuleList forgets its types
