"""A policy as a safetensors file: the arrays of `PolicyLayer`, everything else as metadata."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import safetensors.numpy

from sparserl.export.policy import ExportedPolicy


def save_tensors(policy: ExportedPolicy, path: Path) -> None:
    """Writes `layer<i>.values`, `.bias`, of sparse layers `.row_ptr` and `.col`, and bounds of actions, `low`, `high`.

    Where it reads images, `convolution<i>` and `features` come before, and the metadata says taps and strides.

    Args:
        policy: The policy.
        path: File to write.
    """
    arrays: dict[str, np.ndarray] = policy.ranges
    of_images = {} if policy.images is None else policy.images.layers
    for name, layer in {**of_images, **{f"layer{index}": one for index, one in enumerate(policy.layers)}}.items():
        parts = {"values": layer.values, "bias": layer.bias, "row_ptr": layer.row_ptr, "col": layer.col}
        arrays |= {f"{name}.{what}": array for what, array in parts.items() if array is not None}
    sizes = [str(policy.n_in), *(str(layer.n_out) for layer in policy.layers)]
    metadata = {
        **policy.about,
        **({} if policy.images is None else policy.images.about),
        "activation": policy.activation,
        "ending": policy.ending,
        "sizes": " ".join(sizes),
        "format": "sparserl-policy 1",
    }
    safetensors.numpy.save_file(arrays, path, metadata)
