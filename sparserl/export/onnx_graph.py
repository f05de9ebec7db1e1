"""A policy as an ONNX model, for runtimes that know nothing of sparserl.

Weights of sparse layers are sparse initializers, so the file holds connections alone; runtimes have no sparse product,
and expand them when they load it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sparserl.errors import ConfigError
from sparserl.export.policy import ExportedPolicy, PolicyLayer
from sparserl.extras import how_to_install

OPSET = 17
IR_VERSION = 9


def onnx_graph(policy: ExportedPolicy) -> Any:
    """An `onnx.ModelProto` with input `observation` (batch, n_in) and output `action` (batch, n_out), float32.

    Of discrete actions the output is (batch,) int64.

    Raises:
        ConfigError: If onnx is not installed.
    """
    try:
        import onnx
    except ModuleNotFoundError:
        raise ConfigError(f"onnx is not installed; {how_to_install('export')} brings it") from None
    from onnx import helper, numpy_helper

    nodes, dense, sparse = [], [], []
    given = "observation"
    for index, layer in enumerate(policy.layers):
        last = index == len(policy.layers) - 1
        if layer.row_ptr is None:
            weights = layer.values.reshape(layer.n_out, layer.n_in).T
            dense.append(numpy_helper.from_array(np.ascontiguousarray(weights), f"weights{index}"))
        else:
            sparse.append(_sparse(helper, numpy_helper, layer, f"weights{index}"))
        dense.append(numpy_helper.from_array(layer.bias, f"bias{index}"))
        nodes += [
            helper.make_node("MatMul", [given, f"weights{index}"], [f"product{index}"]),
            helper.make_node("Add", [f"product{index}", f"bias{index}"], [f"sum{index}"]),
        ]
        given = f"sum{index}"
        if not last:
            activation = "Tanh" if policy.activation == "tanh" else "Relu"
            nodes.append(helper.make_node(activation, [given], [f"activated{index}"]))
            given = f"activated{index}"
    kind = onnx.TensorProto.FLOAT
    action = helper.make_tensor_value_info("action", kind, ["batch", policy.n_out])
    if policy.low is None or policy.high is None:
        nodes.append(helper.make_node("ArgMax", [given], ["action"], axis=1, keepdims=0))
        action = helper.make_tensor_value_info("action", onnx.TensorProto.INT64, ["batch"])
    elif policy.clips:
        dense += [numpy_helper.from_array(policy.low, "low"), numpy_helper.from_array(policy.high, "high")]
        nodes += [
            helper.make_node("Max", [given, "low"], ["above"]),
            helper.make_node("Min", ["above", "high"], ["action"]),
        ]
    else:
        half = np.float32(0.5) * (policy.high - policy.low)
        dense += [numpy_helper.from_array(half, "half_range"), numpy_helper.from_array(policy.low + half, "middle")]
        nodes += [
            helper.make_node("Tanh", [given], ["squashed"]),
            helper.make_node("Mul", ["squashed", "half_range"], ["scaled"]),
            helper.make_node("Add", ["scaled", "middle"], ["action"]),
        ]
    graph = helper.make_graph(
        nodes,
        "policy",
        [helper.make_tensor_value_info("observation", kind, ["batch", policy.n_in])],
        [action],
        initializer=dense,
        sparse_initializer=sparse,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    helper.set_model_props(model, dict(policy.about))
    onnx.checker.check_model(model)
    return model


def _sparse(helper: Any, numpy_helper: Any, layer: PolicyLayer, name: str) -> Any:
    """Weights (n_in, n_out) in ONNX's coordinate format: positions in the flattened matrix, ascending."""
    assert layer.row_ptr is not None
    assert layer.col is not None
    counts: np.ndarray = np.diff(layer.row_ptr.astype(np.int64))
    outputs = np.repeat(np.arange(layer.n_out), counts)
    positions = layer.col.astype(np.int64) * layer.n_out + outputs
    order = np.argsort(positions)
    return helper.make_sparse_tensor(
        numpy_helper.from_array(layer.values[order], name),
        numpy_helper.from_array(positions[order], f"{name}_positions"),
        [layer.n_in, layer.n_out],
    )
