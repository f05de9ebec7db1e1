"""Runs as functions: `resolve` makes a config of settings, `run` trains it, `open_run` opens an existing run.

What defines a run, how it is made from presets, files and options, and how it is trained and resumed. Names come from
their modules when they are first used, which import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparserl.experiment.opening import open_run, run
    from sparserl.experiment.resolving import resolve

__all__ = ["open_run", "resolve", "run"]

_MODULES = {"open_run": "opening", "resolve": "resolving", "run": "opening"}
"""Public name -> the module here that defines it; none may be called like a name."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
