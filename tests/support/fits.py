"""What tests of `sparserl fit` share."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from sparserl.cli import main
from sparserl.continual.supervised.fit_learner import FitLearner
from sparserl.continual.supervised.learner_config import FitLearnerConfig
from sparserl.continual.supervised.tables import Table, table_sequence
from sparserl.topology.config import TopologyConfig

CONFIG = FitLearnerConfig(hidden=(12, 8), epochs=3, batch_size=16, learning_rate=0.02)
SPARSE = TopologyConfig(method="set", density=0.4, output_layer="sparse", update_interval=5)


def table(n: int = 90, n_features: int = 6, seed: int = 0) -> Table:
    """Three blobs, of which the last has few samples."""
    rng = np.random.default_rng(seed)
    y = np.sort(np.minimum(np.arange(n) % 5 // 2, 2))
    x = 2.0 * np.eye(3, n_features)[y] + rng.standard_normal((n, n_features))
    return Table("blobs", x.astype(np.float32), y.astype(np.int64), ("a", "b", "c"))


def fit_learner(
    topology: TopologyConfig = SPARSE, *, validation_share: float = 0.2, seed: int = 0, **changes: Any
) -> FitLearner:
    sequence = table_sequence(table(), validation_share=validation_share, seed=seed)
    return FitLearner(sequence, dataclasses.replace(CONFIG, **changes), topology, seed=seed)


SHORT = ("--learner.epochs", "3", "--learner.batch-size", "64", "--learner.hidden", "30", "20", "--no-progress")
"""63 gradient steps on the embedded digits."""
OF_FINISHED = ("--method", "rigl", "--density", "0.3", "--learner.learning-rate", "0.01")


def fit(folder: Path, *flags: str) -> int:
    """`sparserl fit digits` with a small network; returns the exit status."""
    return main(["fit", "digits", *SHORT, "--checkpoint-every-steps", "10", "--run-dir", str(folder), *flags])


def result_of(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return result
