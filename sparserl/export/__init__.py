"""A trained policy for use elsewhere: its connections alone, as arrays, as an ONNX graph, or as C."""

from sparserl.export.c_header import c_header
from sparserl.export.images import PolicyConvolution, PolicyImages
from sparserl.export.layers import PolicyLayer
from sparserl.export.onnx_graph import onnx_graph
from sparserl.export.policy import ExportedPolicy
from sparserl.export.tensors import save_tensors

__all__ = [
    "ExportedPolicy",
    "PolicyConvolution",
    "PolicyImages",
    "PolicyLayer",
    "c_header",
    "onnx_graph",
    "save_tensors",
]
