"""A policy as a safetensors file: the arrays of `PolicyLayer`, everything else as metadata."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import safetensors.numpy

from sparserl.export.policy import ExportedPolicy


def save_tensors(policy: ExportedPolicy, path: Path) -> None:
    """Writes `layer<i>.values`, `.bias`, of sparse layers `.row_ptr` and `.col`, and bounds of actions, `low`, `high`.

    Args:
        policy: The policy.
        path: File to write.
    """
    arrays: dict[str, np.ndarray] = policy.ranges
    for index, layer in enumerate(policy.layers):
        parts = {"values": layer.values, "bias": layer.bias, "row_ptr": layer.row_ptr, "col": layer.col}
        arrays |= {f"layer{index}.{name}": array for name, array in parts.items() if array is not None}
    sizes = [str(policy.n_in), *(str(layer.n_out) for layer in policy.layers)]
    metadata = {
        **policy.about,
        "activation": policy.activation,
        "ending": policy.ending,
        "sizes": " ".join(sizes),
        "format": "sparserl-policy 1",
    }
    safetensors.numpy.save_file(arrays, path, metadata)
