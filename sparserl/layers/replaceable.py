"""Which modules of torch have a sparse form, which matrices of theirs become sparse layers, and what then stands there.

Independent of which layers of a model take part, and of optimizers (`sparserl.layers.sparsify`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from sparserl.layers.attention import SparseAttention
from sparserl.layers.convolution import SparseConv
from sparserl.layers.dense_layers import Origin, Weight
from sparserl.layers.recurrent import SparseGRU, SparseLSTM, SparseRecurrent


@dataclass(frozen=True)
class Form:
    """The sparse form of a kind of module.

    Attributes:
        weights: Its matrices by the name of the layer, a child of what stands there later; "" is all of that.
        made: What stands there later, given a layer for each of them: a sparse one, or an `nn.Linear`.
        lacks: Why a module of this kind has no sparse form, or None.
    """

    weights: Callable[[Any], dict[str, Weight]]
    made: Callable[[Any, Mapping[str, nn.Module]], nn.Module]
    lacks: Callable[[Any], str | None] = lambda module: None


def _of_linear(module: Any) -> dict[str, Weight]:
    return {"": Weight(module.weight, module.bias)}


def _of_convolution(module: Any) -> dict[str, Weight]:
    return {"kernel": Weight(module.weight, module.bias)}


def _convolution_lacks(module: nn.Conv1d | nn.Conv2d) -> str | None:
    return f"has {module.groups} groups, and a sparse one has 1" if module.groups > 1 else None


def _of_recurrent(module: nn.RNNBase) -> dict[str, Weight]:
    names = [name for number in range(module.num_layers) for name in SparseRecurrent.names(number)]
    return {name: Weight(getattr(module, f"weight_{name}"), getattr(module, f"bias_{name}", None)) for name in names}


def _recurrent(kind: type[SparseRecurrent]) -> Callable[[nn.RNNBase, Mapping[str, nn.Module]], nn.Module]:
    def made(module: nn.RNNBase, layers: Mapping[str, nn.Module]) -> nn.Module:
        names = map(kind.names, range(module.num_layers))
        products = [(layers[of_input], layers[of_hidden]) for of_input, of_hidden in names]
        return kind(products, batch_first=module.batch_first, dropout=module.dropout)

    return made


def _recurrent_lacks(module: nn.RNNBase) -> str | None:
    if module.bidirectional:
        return "is bidirectional, and a sparse one goes forward alone"
    return f"has proj_size {module.proj_size}, and a sparse one has none" if module.proj_size else None


def _of_attention(module: Any) -> dict[str, Weight]:
    names = ("q_proj", "k_proj", "v_proj")
    if module._qkv_same_embed_dim:
        weights = {name: Weight(module.in_proj_weight, rows=(place, 3)) for place, name in enumerate(names)}
    else:
        weights = {name: Weight(getattr(module, f"{name}_weight")) for name in names}
    return {**weights, "out_proj": Weight(module.out_proj.weight, module.out_proj.bias)}


def _attention(module: nn.MultiheadAttention, layers: Mapping[str, nn.Module]) -> nn.Module:
    options: dict[str, Any] = {name: getattr(module, name) for name in ("num_heads", "dropout", "batch_first")}
    return SparseAttention(**{**layers, **options, "bias": module.in_proj_bias})


def _attention_lacks(module: nn.MultiheadAttention) -> str | None:
    added = "add_bias_kv" if module.bias_k is not None else "add_zero_attn" if module.add_zero_attn else None
    return None if added is None else f"has {added}, and a sparse one has not"


FORMS: dict[type[nn.Module], Form] = {
    nn.Linear: Form(_of_linear, lambda module, layers: layers[""]),
    nn.LSTM: Form(_of_recurrent, _recurrent(SparseLSTM), _recurrent_lacks),
    nn.GRU: Form(_of_recurrent, _recurrent(SparseGRU), _recurrent_lacks),
    nn.Conv1d: Form(_of_convolution, lambda module, layers: SparseConv.like(module, **layers), _convolution_lacks),
    nn.Conv2d: Form(_of_convolution, lambda module, layers: SparseConv.like(module, **layers), _convolution_lacks),
    nn.MultiheadAttention: Form(_of_attention, _attention, _attention_lacks),
}
"""Exact class of a module -> its sparse form. A subclass may have a forward pass of its own, and has none."""
KINDS = ", ".join(f"nn.{kind.__name__}" for kind in FORMS)
"""All of them, for messages."""


def joined(name: str, own: str) -> str:
    """Name in the model of a layer of a module."""
    return f"{name}.{own}" if own else name


def layers_of(module: nn.Module) -> tuple[dict[str, Weight], dict[str, Origin]]:
    """Matrices that can be sparse, and what all modules with weights are, by name."""
    weights: dict[str, Weight] = {}
    origins: dict[str, Origin] = {}
    whole: tuple[str, ...] = ()
    for name, child in module.named_modules():
        kind = type(child)
        if kind in FORMS:
            for own, weight in FORMS[kind].weights(child).items():
                weights[joined(name, own)] = weight
                origins[joined(name, own)] = Origin(kind.__name__, weight.shape)
            whole = (*whole, f"{name}.")
        elif not name.startswith(whole) and (shapes := _shapes_of_weights(child)):
            base = next((form.__name__ for form in FORMS if isinstance(child, form)), None)
            reason = "no sparse form" if base is None else f"a subclass of {base} may compute something else"
            origins[name] = Origin(kind.__name__, shapes[0], reason)
    return weights, origins


def _shapes_of_weights(module: nn.Module) -> list[tuple[int, ...]]:
    """Of the parameters that a module has itself and that are no biases; () where they are not known yet."""
    own = list(module.parameters(recurse=False))
    known = [one for one in own if not isinstance(one, nn.UninitializedParameter)]
    return [*(tuple(one.shape) for one in known if one.dim() > 1), *[()] * (len(own) - len(known))]
