"""A policy as an ONNX model, for runtimes that know nothing of sparserl.

Weights of sparse layers are sparse initializers, so the file holds connections alone; runtimes have no sparse product,
and expand them when they load it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sparserl.errors import ConfigError
from sparserl.export.images import BRIGHTEST, PolicyImages
from sparserl.export.layers import PolicyLayer, PolicyNorm
from sparserl.export.policy import ExportedPolicy
from sparserl.extras import how_to_install

OPSET = 17
IR_VERSION = 9


def onnx_graph(policy: ExportedPolicy) -> Any:
    """An `onnx.ModelProto` with input `observation` (batch, n_in) and output `action` (batch, n_out), float32.

    Of discrete actions the output is (batch,) int64; images are (batch, *shape) uint8, as the environment gives them.

    Raises:
        ConfigError: If onnx is not installed.
    """
    try:
        import onnx
    except ModuleNotFoundError:
        raise ConfigError(f"onnx is not installed; {how_to_install('export')} brings it") from None
    from onnx import helper, numpy_helper

    parts = _Parts(helper, numpy_helper)
    given = "observation" if policy.images is None else parts.add_images(policy.images)
    levels = [given]
    for index, layer in enumerate(policy.layers):
        given = parts.add_layer(given, layer, str(index))
        if layer.added is not None:
            given = parts.add("Add", [given, levels[layer.added]], f"added{index}")
        if index < len(policy.layers) - 1 and layer.is_activated:
            given = parts.add("Tanh" if policy.activation == "tanh" else "Relu", [given], f"activated{index}")
        levels.append(given)
    nodes, dense = parts.nodes, parts.dense
    kind = onnx.TensorProto.FLOAT
    read = kind if policy.images is None else onnx.TensorProto.UINT8
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
        [helper.make_tensor_value_info("observation", read, ["batch", *policy.shape])],
        [action],
        initializer=dense,
        sparse_initializer=parts.sparse,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    helper.set_model_props(model, dict(policy.about))
    onnx.checker.check_model(model)
    return model


class _Parts:
    """Nodes and arrays of a graph, as they are added.

    Args:
        helper: Of onnx.
        numpy_helper: Likewise.
    """

    def __init__(self, helper: Any, numpy_helper: Any):
        self._helper, self._numpy_helper = helper, numpy_helper
        self.nodes: list[Any] = []
        self.dense: list[Any] = []
        self.sparse: list[Any] = []

    def add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """A node; gives the name of its output."""
        self.nodes.append(self._helper.make_node(kind, inputs, [output], **attributes))
        return output

    def array(self, array: np.ndarray, name: str) -> str:
        """An array that is held; gives its name."""
        self.dense.append(self._numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def weights(self, layer: PolicyLayer, name: str) -> str:
        """(n_in, n_out) weights of a layer, held without those that do not exist; gives their name."""
        if layer.row_ptr is None:
            return self.array(layer.values.reshape(layer.n_out, layer.n_in).T, name)
        self.sparse.append(_sparse(self._helper, self._numpy_helper, layer, name))
        return name

    def add_layer(self, given: str, layer: PolicyLayer, name: str) -> str:
        """A linear layer and what stands before it; gives the name of its sums."""
        if layer.norm is not None:
            given = self._add_norm(given, layer.norm, name)
        product = self.add("MatMul", [given, self.weights(layer, f"weights{name}")], f"product{name}")
        return self.add("Add", [product, self.array(layer.bias, f"bias{name}")], f"sum{name}")

    def _add_norm(self, given: str, norm: PolicyNorm, name: str) -> str:
        """What stands before a layer; gives the name of what it multiplies."""
        arrays = self.array(norm.scale, f"scale{name}"), self.array(norm.shift, f"shift{name}")
        if norm.epsilon is not None:
            return self.add("LayerNormalization", [given, *arrays], f"normed{name}", axis=-1, epsilon=norm.epsilon)
        scaled = self.add("Mul", [given, arrays[0]], f"scaled{name}")
        return self.add("Add", [scaled, arrays[1]], f"normed{name}")

    def add_images(self, images: PolicyImages) -> str:
        """What makes features of images; gives the name of them."""
        given = "observation"
        if images.channels_last:
            given = self.add("Transpose", [given], "channels_first", perm=[0, 3, 1, 2])
        given = self.add("Cast", [given], "brightness", to=self._helper.np_dtype_to_tensor_dtype(np.dtype(np.float32)))
        given = self.add("Div", [given, self.array(BRIGHTEST, "brightest")], "shares")
        for index, one in enumerate(images.convolutions):
            by_output = self.add("Transpose", [self.weights(one.kernel, f"kernel{index}")], f"kernel{index}_rows")
            channels = one.kernel.n_in // (one.taps[0] * one.taps[1])
            shape = self.array(np.array([one.kernel.n_out, channels, *one.taps], np.int64), f"kernel{index}_shape")
            kernel = self.add("Reshape", [by_output, shape], f"kernel{index}_patches")
            bias = self.array(one.kernel.bias, f"kernel{index}_bias")
            sums = self.add(
                "Conv", [given, kernel, bias], f"convolved{index}", kernel_shape=one.taps, strides=one.stride
            )
            given = self.add("Relu", [sums], f"convolved{index}_activated")
        sums = self.add_layer(self.add("Flatten", [given], "flat", axis=1), images.linear, "_features")
        return self.add("Relu", [sums], "features")


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
