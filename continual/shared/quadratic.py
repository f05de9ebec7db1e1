"""Quadratic penalties that pull parameters back to the values they had: `strength * sum importance * (parameter -
anchor)^2`, over all parameters and terms.

Decides how terms add up and how they follow connections. Independent of how importances are found. Its gradient is
added to gradients, whatever formed them, so no loss that autograd records is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sparserl.topology.rewire import remap
from sparserl.topology.structure import TopologyChange

Tensors = dict[str, torch.Tensor]
"""By name of the parameter."""


@dataclass(frozen=True)
class Term:
    """Anchors of one quadratic term, and their weights.

    Attributes:
        importances: Non-negative, of the parameter's shape, or () for all its entries alike.
        anchors: Values of the parameters after a task.
    """

    importances: Tensors
    anchors: Tensors


class QuadraticTerms:
    """Terms of a penalty.

    Attributes:
        terms: One, or one for each task so far.
    """

    def __init__(self) -> None:
        self.terms: list[Term] = []

    def add(self, importances: Tensors, anchors: Tensors, retained: float | None) -> None:
        """Adds a term, or replaces the only one. A sum below 0 counts as 0: it would push away, without bound.

        Args:
            importances: To the task that ends, of the parameter's shape or ().
            anchors: Values of the parameters, which are kept, not copied.
            retained: Share of the older importances that is added to these, around the new anchors; None keeps every
                term.
        """
        older = self.terms
        if retained is not None:
            for term in older:
                importances = {name: new + retained * term.importances[name] for name, new in importances.items()}
            older = []
        self.terms = [*older, Term({name: new.clamp(min=0.0) for name, new in importances.items()}, dict(anchors))]

    @torch.no_grad()
    def add_penalty_grad(self, parameters: Iterable[tuple[str, nn.Parameter]], strength: float) -> None:
        """Adds the gradient of the penalty to the `grad` of each of these parameters, all of which have one."""
        for name, parameter in parameters:
            for term in self.terms:
                assert parameter.grad is not None
                parameter.grad.addcmul_(term.importances[name], parameter - term.anchors[name], value=2.0 * strength)

    def follow(self, name: str, change: TopologyChange) -> None:
        """Carries importances and anchors of a sparse layer's weights through a topology event.

        Grown connections have importance 0 and anchor 0; an importance that all entries share is theirs too.

        Args:
            name: Of the layer's `values`.
            change: What happened to the layer.
        """
        for term in self.terms:
            for kept in (term.importances, term.anchors):
                if kept[name].dim():
                    kept[name] = torch.from_numpy(remap(kept[name].numpy(), change))

    def state_dict(self) -> dict[str, Any]:
        """The terms."""
        return {"terms": [{name: dict(kept) for name, kept in vars(term).items()} for term in self.terms]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes the terms."""
        self.terms = [Term(dict(term["importances"]), dict(term["anchors"])) for term in state["terms"]]

    def memory(self) -> dict[str, int]:
        """Bytes of anchors and importances."""
        return {
            "anchors": sum(tensor.nbytes for term in self.terms for tensor in term.anchors.values()),
            "importances": sum(tensor.nbytes for term in self.terms for tensor in term.importances.values()),
        }


def copies(parameters: Iterable[tuple[str, nn.Parameter]]) -> Tensors:
    """The present values of parameters."""
    return {name: parameter.detach().clone() for name, parameter in parameters}
