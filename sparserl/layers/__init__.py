"""Truly sparse layers: their only parameters are the weights of connections that exist, and biases."""

from sparserl.layers.multi_head import MultiHeadMLP
from sparserl.layers.recurrent import SparseGRU, SparseLSTM
from sparserl.layers.sparse_linear import SparseLinear
from sparserl.layers.sparse_mlp import SparseEnsemble, SparseMLP

__all__ = ["MultiHeadMLP", "SparseEnsemble", "SparseGRU", "SparseLSTM", "SparseLinear", "SparseMLP"]
