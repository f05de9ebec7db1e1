"""Deep reinforcement learning and continual learning on truly sparse neural networks.

Names come from their modules when they are first used: torch takes seconds to import, and the command line answers
`--help`, a wrong word and Ctrl-C before that.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparserl.layers import SparseGRU, SparseLinear, SparseLSTM, SparseMLP
    from sparserl.layers.averaging import average
    from sparserl.layers.convert import dense_copy
    from sparserl.layers.sparsify import sparsify

__version__ = "0.2.0"

__all__ = [
    "SparseGRU",
    "SparseLSTM",
    "SparseLinear",
    "SparseMLP",
    "__version__",
    "average",
    "dense_copy",
    "sparsify",
]

_MODULES = {
    "SparseGRU": "sparserl.layers",
    "SparseLSTM": "sparserl.layers",
    "SparseLinear": "sparserl.layers",
    "SparseMLP": "sparserl.layers",
    "average": "sparserl.layers.averaging",
    "dense_copy": "sparserl.layers.convert",
    "sparsify": "sparserl.layers.sparsify",
}
"""Public name -> where it is defined. No module of the package may have one of these names: it would take its place."""


_PACKAGES = ("experiment",)
"""What is there after `import sparserl` alone, imported when it is first used."""


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, *_PACKAGES})
