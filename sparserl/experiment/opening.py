"""Runs from Python: trained to their end, or opened again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sparserl.experiment.opened_agent_run import OF_AGENTS
from sparserl.experiment.opened_fit_run import TrainedFit
from sparserl.experiment.opened_run import OpenedRun, TrainedClassifier
from sparserl.experiment.recorded_run import RunConfig
from sparserl.experiment.run_config import kind_in
from sparserl.experiment.runs import begin, train
from sparserl.experiment.training import Source
from sparserl.recording.metrics_table import Kind
from sparserl.recording.run_folder import RunFolder, WhichCheckpoint

OPENED: dict[Kind, Callable[[RunFolder, WhichCheckpoint | None], OpenedRun[Any]]] = {
    **OF_AGENTS,
    "continual": TrainedClassifier,
    "fit": TrainedFit,
}
"""Kind of run -> what opens one."""


def open_run(path: str | Path, checkpoint: WhichCheckpoint | None = None) -> OpenedRun[Any]:
    """A run that exists, with what it has learned.

    Args:
        path: Run folder.
        checkpoint: The `last` one, or the `best` by evaluation; None is the last, of an ensemble
            of `fit` all its members.

    Returns:
        Of `sparserl train` a `TrainedAgent` with `.agent`, of `sparserl continual` a `TrainedSequence` or a
        `TrainedClassifier` with `.learner`, of `sparserl fit` a `TrainedFit` with `.predict(x)`; all have `.config`,
        `.result`, `.evaluate(episodes)` and `.resume()`.

    Raises:
        ConfigError: If there is no such run, or no best checkpoint.
        CheckpointError: If the checkpoint is missing or damaged.

    Example:
        >>> run = open_run("runs/HalfCheetah-v5__ds_td3__s0")  # doctest: +SKIP
        >>> run.evaluate(10).returns  # doctest: +SKIP
    """
    folder = RunFolder.open(Path(path))
    return OPENED[kind_in(folder)](folder, checkpoint)


def run(
    config: RunConfig,
    folder: str | Path | None = None,
    *,
    data_dir: str | Path | None = None,
    download: bool = False,
    progress: bool = False,
) -> OpenedRun[Any]:
    """Trains a run to its end, as the command line does.

    Sets torch's number of threads to that of the config. Ctrl-C saves and stops.

    Args:
        config: What `resolve` gives.
        folder: Run folder, which must not exist; runs/<name>__s<seed> (or the next free number) if None.
        data_dir: Folder that holds a folder for each data set, of a classifier; the usual one if None.
        download: Whether missing data is fetched into it.
        progress: Whether to draw a progress bar.

    Returns:
        The finished run, opened as by `open_run`.

    Raises:
        SparserlError: If the run is refused; then nothing is left behind.
        RunFailed: If it fails while it runs; the folder stays, and the message says how to go on.
        RunStopped: If it was stopped; `open_run(folder).resume()` goes on.

    Example:
        >>> finished = run(resolve("train", {"env": "Hopper-v5"}))  # doctest: +SKIP
        >>> finished.evaluate(10).return_mean  # doctest: +SKIP
    """
    training = begin(config, Source(data_dir=None if data_dir is None else Path(data_dir), download=download))
    return open_run(train(training, None if folder is None else Path(folder), show_progress=progress).path)
