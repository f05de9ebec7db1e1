"""Entries of parameters that no optimizer may move."""

from __future__ import annotations

import torch
from torch import nn

from sparserl.errors import CheckpointError


class FrozenEntries:
    """Holds entries of parameters where they are through any optimizer's step, weight decay and momentum included.

    Call `before_step` when the gradients are formed and `after_step` when the optimizer has stepped: gradients of
    frozen entries are zeroed, their values put back bit for bit, and their optimizer state is zero.
    """

    def __init__(self) -> None:
        self._entries: dict[nn.Parameter, torch.Tensor] = {}
        self._held: dict[nn.Parameter, torch.Tensor] = {}

    def freeze(self, parameter: nn.Parameter, entries: torch.Tensor) -> None:
        """Replaces what is frozen of `parameter`.

        Args:
            parameter: Of any shape.
            entries: (k,) int64 indices in the flattened parameter.
        """
        self._entries[parameter] = entries

    def state_dict(self, network: nn.Module) -> dict[str, torch.Tensor]:
        """What is frozen, by the parameter's name in `network`."""
        return {name: self._entries[tensor] for name, tensor in network.named_parameters() if tensor in self._entries}

    def load_state_dict(self, network: nn.Module, state: dict[str, torch.Tensor]) -> None:
        """Freezes what was frozen when `state_dict` was taken.

        Raises:
            CheckpointError: If it names indices that a parameter does not have.
        """
        parameters = dict(network.named_parameters())
        for name, entries in state.items():
            size = parameters[name].numel()
            if entries.dtype != torch.int64 or entries.ndim != 1 or not bool(((entries >= 0) & (entries < size)).all()):
                raise CheckpointError(f"what is frozen of {name!r} are no indices of it")
        self._entries = {parameters[name]: entries for name, entries in state.items()}

    @torch.no_grad()
    def before_step(self) -> None:
        """Zeroes gradients and remembers values."""
        for parameter, entries in self._entries.items():
            self._held[parameter] = parameter.view(-1).index_select(0, entries)  # half the time of `[entries]`
            if parameter.grad is not None:
                parameter.grad.view(-1).index_fill_(0, entries, 0.0)

    @torch.no_grad()
    def after_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Puts values back and zeroes state that is per entry."""
        for parameter, entries in self._entries.items():
            parameter.view(-1).index_copy_(0, entries, self._held.pop(parameter))
            for state in optimizer.state.get(parameter, {}).values():
                if torch.is_tensor(state) and state.shape == parameter.shape:
                    state.view(-1).index_fill_(0, entries, 0.0)
