"""The process that trains a job; it works and ends as the command line does.

    python -P -m sparserl.sweep.worker begin FOLDER < CONFIG
    python -P -m sparserl.sweep.worker go_on FOLDER < CONFIG

CONFIG is the resolved config in JSON. A run that goes on has its own in its folder.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sparserl.experiment.program import exit_status, load


def main(words: Sequence[str]) -> int:
    """Trains the run that words and standard input name; returns the exit status."""
    how, folder = words
    return exit_status(lambda: _train(how, Path(folder), json.load(sys.stdin)))


def _train(how: str, path: Path, data: Mapping[str, Any]) -> int:
    load("sparserl.experiment.runs")
    from sparserl.experiment.run_config import build_config
    from sparserl.experiment.runs import begin, go_on, train
    from sparserl.experiment.training import Source

    if how == "go_on":
        go_on(path, begun=lambda step: print(f"resuming {path} at step {step}"))
        return 0
    # A sweep is a file, whose environments are named in the log before their modules are imported.
    training = begin(build_config(data), Source(config=path / "config.yaml"))
    train(training, path, begun=lambda folder: print("\n".join([*training.about, f"run folder {folder.path}"])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
