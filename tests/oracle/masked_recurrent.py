"""torch's own LSTM and GRU with the weights of a sparse one, zeros where no connection is; for tests only."""

from __future__ import annotations

import torch
from oracle.masked_dense import dense_weight
from torch import nn

from sparserl.layers.recurrent import SparseGRU, SparseLSTM, SparseRecurrent

TWINS: dict[type[SparseRecurrent], type[nn.RNNBase]] = {SparseLSTM: nn.LSTM, SparseGRU: nn.GRU}


def twin_of(network: SparseRecurrent) -> nn.RNNBase:
    """The dense twin; its weights, by name, are what `gathered` reads."""
    products = dict(network.named_children())
    first: nn.Module = products["hh_l0"]
    twin = TWINS[type(network)](
        network.input_size,
        network.hidden_size,
        network.num_layers,
        bias=first.bias is not None,
        batch_first=network.batch_first,
        dtype=next(network.parameters()).dtype,
    )
    with torch.no_grad():
        for name, product in products.items():
            getattr(twin, f"weight_{name}").copy_(dense_weight(product)[0])
            if product.bias is not None:
                getattr(twin, f"bias_{name}").copy_(product.bias)
    return twin


def gathered(network: SparseRecurrent, twin: nn.RNNBase) -> dict[str, torch.Tensor]:
    """Gradients of the twin where the sparse network has parameters, by the names that they have there."""
    found = {}
    for name, product in network.named_children():
        gradient, mask = getattr(twin, f"weight_{name}").grad, dense_weight(product)[1].bool()
        own = "weight" if isinstance(product, nn.Linear) else "values"
        found[f"{name}.{own}"] = gradient if own == "weight" else gradient[mask]
        if product.bias is not None:
            found[f"{name}.bias"] = getattr(twin, f"bias_{name}").grad
    return found
