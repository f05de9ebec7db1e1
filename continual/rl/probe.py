"""Derivatives of what an actor or critic says of transitions, for the importance of its parameters."""

from __future__ import annotations

import torch

LOG_STD_RANGE = (-20.0, 2.0)
"""To which SAC clips log standard deviations."""
VARIANCE_FLOOR = 1e-6
FISHER_FLOOR = 1e-5
"""Constants of Continual World's code."""


def likelihood_cotangents(outputs: torch.Tensor, gaussian: bool) -> list[torch.Tensor]:
    """What squared gradients of the outputs are weighed by in their Fisher information, one output after the other.

    Args:
        outputs: (B, n_out) of the network.
        gaussian: Whether they are means and log standard deviations; otherwise means of unit variance.

    Returns:
        (B, n_out) each, zero but for one output.
    """
    scales = _gaussian_scales(outputs) if gaussian else torch.ones_like(outputs)
    by_head = []
    for output in range(scales.shape[1]):
        cotangents = torch.zeros_like(scales)
        cotangents[:, output] = scales[:, output]
        by_head.append(cotangents)
    return by_head


def norm_cotangents(outputs: torch.Tensor, gaussian: bool) -> torch.Tensor:
    """(B, n_out) derivative of the squared norm of the outputs; arguments as of `likelihood_cotangents`."""
    found = 2.0 * outputs
    return torch.where(_moves(outputs), found, 0.0) if gaussian else found


def _gaussian_scales(outputs: torch.Tensor) -> torch.Tensor:
    """(B, 2 A) square roots of what the Fisher information weighs the squared gradient of each output by.

    The information of a Gaussian is (d mean)^2 / variance + 2 (d std)^2 / variance, and d std = std d log std.
    """
    std = outputs[:, outputs.shape[1] // 2 :].clamp(*LOG_STD_RANGE).exp()
    root = (std.square() + VARIANCE_FLOOR).sqrt()
    return torch.where(_moves(outputs), torch.cat([1.0 / root, 2.0**0.5 * std / root], dim=1), 0.0)


def _moves(outputs: torch.Tensor) -> torch.Tensor:
    """(B, 2 A) whether the Gaussian changes with an output: not with log standard deviations that are clipped."""
    low, high = LOG_STD_RANGE
    moves = (outputs >= low) & (outputs <= high)
    moves[:, : outputs.shape[1] // 2] = True
    return moves
