"""Continual learners: one learner, a sequence of tasks, and a strategy at the borders between them.

They share `sparserl.topology` with the agents and reimplement nothing of it: what a method keeps, freezes or closes, it
says as a constraint or an importance.

`run` learns tasks of arrays, a sequence of the table or one of a file; a method of one's own is a `Strategy`, with
`Options` if it has some. Names come from their modules when they are first used.
"""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = {
    "ContinualResult": "sparserl.experiment.continual_run",
    "LearnerConfig": "sparserl.continual.supervised.learner_config",
    "Options": "sparserl.continual.strategies.options",
    "SequenceFile": "sparserl.continual.supervised.sequence_files",
    "Strategy": "sparserl.continual.strategies.strategy",
    "Task": "sparserl.continual.supervised.tasks",
    "TaskSequence": "sparserl.continual.supervised.tasks",
    "build_sequence": "sparserl.continual.supervised.sequences",
    "load_sequence_file": "sparserl.continual.supervised.sequence_files",
    "run": "sparserl.experiment.continual_run",
}
"""Public name -> the module that defines it; `run` writes runs, as those of the command line, if it is asked to."""

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted(_MODULES)
