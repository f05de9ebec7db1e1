"""A policy as a safetensors file: the arrays of `PolicyLayer`, everything else as metadata."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import safetensors.numpy

from sparserl.export.policy import ExportedPolicy


def save_tensors(policy: ExportedPolicy, path: Path) -> None:
    """Writes `layer<i>.values`, `.bias`, of sparse layers `.row_ptr` and `.col`, and bounds of actions, `low`, `high`.

    Where a norm stands before a layer, `layer<i>.scale` and `.shift`, and the metadata says of each such layer its
    epsilon, or `given` where features are not normalised first (`norms`); of each layer the level that is added to its
    outputs, or `none` (`added`); and after which layers the activation follows (`activated`). Where it reads images,
    `convolution<i>` and `features` come before, and the metadata says taps and strides.

    Args:
        policy: The policy.
        path: File to write.
    """
    arrays: dict[str, np.ndarray] = policy.ranges
    of_images = {} if policy.images is None else policy.images.layers
    for name, layer in {**of_images, **{f"layer{index}": one for index, one in enumerate(policy.layers)}}.items():
        parts = {"values": layer.values, "bias": layer.bias, "row_ptr": layer.row_ptr, "col": layer.col}
        parts |= {} if layer.norm is None else {"scale": layer.norm.scale, "shift": layer.norm.shift}
        arrays |= {f"{name}.{what}": array for what, array in parts.items() if array is not None}
    sizes = [str(policy.n_in), *(str(layer.n_out) for layer in policy.layers)]
    metadata = {
        **policy.about,
        **({} if policy.images is None else policy.images.about),
        **_around(policy),
        "activation": policy.activation,
        "ending": policy.ending,
        "sizes": " ".join(sizes),
        "format": "sparserl-policy 1",
    }
    safetensors.numpy.save_file(arrays, path, metadata)


def _around(policy: ExportedPolicy) -> dict[str, str]:
    """What stands around the products, where it is more than activations."""
    layers = list(enumerate(policy.layers))
    if all(layer.norm is None and layer.added is None and layer.is_activated for _, layer in layers[:-1]):
        return {}
    norms = {index: layer.norm.epsilon or "given" for index, layer in layers if layer.norm is not None}
    return {
        "norms": " ".join(f"{index}:{epsilon}" for index, epsilon in norms.items()),
        "added": " ".join("none" if layer.added is None else str(layer.added) for _, layer in layers),
        "activated": " ".join(str(index) for index, layer in layers[:-1] if layer.is_activated),
    }
