"""How much gradient flows through the connections that exist, and how far single samples agree on it.

Pure functions of gradients, and the names under which they are logged. Who forms the gradients is decided elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from sparserl.layers import SparseLinear
from sparserl.layers.fused import FusedLayers
from sparserl.topology.structure import FloatArray


def gradient_norm(gradients: Sequence[FloatArray], power: float = 2.0) -> float:
    """p-norm of the gradients of all layers together, of connections that exist.

    Args:
        gradients: (nnz,) of each layer.
        power: p, >= 1.

    Returns:
        NaN where there is no connection.

    Example:
        >>> round(gradient_norm([np.array([3.0, -4.0, 1.0]), np.array([0.6, 0.8])]), 3)
        5.196
    """
    # Layer by layer: all of them at once, in double precision, would be the largest array of a wide network.
    norms = [np.linalg.norm(gradient.astype(np.float64), power) for gradient in gradients if gradient.size]
    return float(np.linalg.norm(norms, power)) if norms else math.nan


def gradient_flow(gradients: Sequence[FloatArray], power: float = 2.0, *, per_connection: bool = False) -> float:
    """Effective gradient flow: mean over layers of the p-norm of the gradient of connections that exist.

    Args:
        gradients: (nnz,) of each layer; layers without connections do not count.
        power: p, >= 1.
        per_connection: Whether the norm of each layer is divided by its number of connections first, so that it is
            comparable between densities.

    Returns:
        NaN where no layer has a connection.

    Source:
        Tessera et al. 2021 (EGF). Its abstract names a norm by active weights that is the same for each layer; which of
        the two here it is could not be read, so both are given.

    Example:
        >>> layers = [np.array([3.0, -4.0, 1.0]), np.array([0.6, 0.8])]
        >>> round(gradient_flow(layers), 4), round(gradient_flow(layers, per_connection=True), 4)
        (3.0495, 1.0998)
    """
    layers = [gradient for gradient in gradients if gradient.size]
    norms = [gradient_norm([one], power) / (one.size if per_connection else 1) for one in layers]
    return float(np.mean(norms)) if norms else math.nan


def signal_to_noise(mean: FloatArray, mean_square: FloatArray) -> float:
    """Mean over weights of |mean| / (standard deviation + 1e-10) of the gradients of single samples.

    Args:
        mean: (nnz,) over samples of the gradient of each weight.
        mean_square: (nnz,) of its square.

    Returns:
        NaN where there is no weight. A single sample has no deviation, and then it is no measure of anything.

    Source:
        Graesser et al. 2022, code.

    Example:
        >>> round(signal_to_noise(np.array([2.0]), np.array([14 / 3])), 3)  # samples 1, 3 and 2
        2.449
    """
    if not mean.size:
        return math.nan
    deviation = np.sqrt(np.maximum(0.0, mean_square - np.square(mean, dtype=np.float64)))
    return float(np.mean(np.abs(mean) / (deviation + 1e-10)))


def _mean_square(layer: SparseLinear) -> FloatArray:
    """(nnz,) mean over the samples that a layer holds of the squared gradient of each weight.

    That of one sample is the product of its input and its gradient at the output, so the sum of squares is what the
    layer would have for a gradient with the squares of both.
    """
    x, dy = (torch.cat(side, dim=1).t() for side in zip(*layer.activation_pairs, strict=True))
    done = FusedLayers([[layer]]).run([x.square().contiguous()])
    needs = [True, layer.bias is not None]
    squares = done.gradients((len(dy) * dy).square().contiguous()[None], None, needs, [])[1][0]
    assert squares is not None
    mean: FloatArray = squares.numpy() / len(dy)
    return mean


def gradient_metrics(layers: Mapping[str, SparseLinear]) -> dict[str, float]:
    """Logged values of sparse layers whose weights have a gradient; others do not count.

    Args:
        layers: By full name; those that hold samples (`activation_pairs`) of the pass that formed their gradient, of a
            loss that is a mean over them, also tell how far these agree.

    Returns:
        `topology/<layer>/gradient_norm`, where samples are held `.../gradient_snr`, and of all layers together
        `topology/gradient_norm`, `topology/gradient_flow`, `topology/gradient_flow_per_connection` and
        `topology/gradient_snr` (the mean over their weights); absent where nothing is known, as after an event, until
        the next backward pass.
    """
    gradients = {name: layer.values.grad.numpy() for name, layer in layers.items() if layer.values.grad is not None}
    if not any(gradient.size for gradient in gradients.values()):
        return {}
    metrics = {f"topology/{name}/gradient_norm": gradient_norm([gradient]) for name, gradient in gradients.items()}
    held = {name: gradient for name, gradient in gradients.items() if layers[name].activation_pairs and gradient.size}
    ratios = {name: signal_to_noise(gradient, _mean_square(layers[name])) for name, gradient in held.items()}
    metrics |= {f"topology/{name}/gradient_snr": ratio for name, ratio in ratios.items()}
    of_all = list(gradients.values())
    metrics["topology/gradient_norm"] = gradient_norm(of_all)
    metrics["topology/gradient_flow"] = gradient_flow(of_all)
    metrics["topology/gradient_flow_per_connection"] = gradient_flow(of_all, per_connection=True)
    if held:
        sizes = [gradient.size for gradient in held.values()]
        metrics["topology/gradient_snr"] = float(np.average(list(ratios.values()), weights=sizes))
    return metrics
