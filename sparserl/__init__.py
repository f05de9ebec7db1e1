"""Deep reinforcement learning and continual learning on truly sparse neural networks."""

from sparserl.averaging import average
from sparserl.layers import SparseLinear, SparseMLP
from sparserl.layers.convert import dense_copy
from sparserl.sparsify import sparsify

__version__ = "0.1.0"

__all__ = ["SparseLinear", "SparseMLP", "__version__", "average", "dense_copy", "sparsify"]
