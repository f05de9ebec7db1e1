"""`sparserl continual`: builds tasks, learner and run folder, learns the sequence, leaves a result; or continues."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.table import Table

from sparserl import config as yaml_config
from sparserl.cli import rl_continual
from sparserl.cli.arguments import given_value
from sparserl.continual.strategies import STRATEGIES, make_strategy
from sparserl.continual.supervised.data import default_data_dir
from sparserl.continual.supervised.learner import SupervisedLearner
from sparserl.continual.supervised.recorder import SequenceRecorder
from sparserl.continual.supervised.sequences import SEQUENCES, build_sequence
from sparserl.continual.supervised.tasks import TaskSequence
from sparserl.envs import RL_SEQUENCES
from sparserl.errors import ConfigError, shown, unknown_name
from sparserl.experiment.continual_config import ContinualCommand, ContinualConfig, parse_continual
from sparserl.experiment.presets import continual_presets, rl_continual_presets
from sparserl.experiment.recorded_run import (
    free_folder,
    hand_over,
    learn_or_say_how_to_resume,
    restoring,
    resumed,
    tidy,
    trackers,
)
from sparserl.experiment.rl_continual_config import is_of_environments
from sparserl.experiment.run_config import continual_config, is_of_agents
from sparserl.experiment.run_failure import finishing, getting_ready
from sparserl.kernels import prepare
from sparserl.layers import SparseLinear
from sparserl.machine_memory import DENSE_BYTES, SPARSE_BYTES, check_fits
from sparserl.metrics.cost import params_dense
from sparserl.plots.matrix import plot_sequence_run
from sparserl.recording.resources import ProcessCost
from sparserl.recording.run_folder import RunFolder
from sparserl.recording.run_lock import only_writer

DATA_DIR = "data_dir.txt"
"""File of a run folder that says where its data was; beside the config, because it does not define the run."""


def run(arguments: Sequence[str]) -> int:
    """Runs `sparserl continual`; returns the exit status."""
    if is_of_environments_line(arguments):
        return rl_continual.run(arguments)
    command, preset = parse_continual(arguments)
    if command.resume is not None:
        return _resume(command)
    config = command.run
    data_dir = (command.data_dir or default_data_dir()).absolute()
    learner = _learner(config, data_dir, download=command.download)
    if command.dry_run:
        print(yaml.safe_dump(config.plain(), sort_keys=False), end="")
        return 0
    folder = RunFolder.create(
        command.run_dir or free_folder(config),
        config_yaml=yaml.safe_dump(config.plain(), sort_keys=False),
        command=shlex.join(["sparserl", "continual", *arguments]),
        threads=config.threads,
        parts=["checkpoints"],
    )
    (folder.path / DATA_DIR).write_text(f"{data_dir}\n")
    tasks = learner.sequence.tasks
    print(f"{config.name} seed {config.seed}, {config.threads} thread(s), preset {preset}")
    print(f"{len(tasks)} tasks: {'; '.join(task.name for task in tasks)}")
    print(f"{params_dense([learner.network]):,} parameters if dense; run folder {folder.path}")
    with only_writer(folder.path):
        return _learn(learner, config, folder, show_progress=command.progress, state=None)


def is_of_environments_line(arguments: Sequence[str]) -> bool:
    """Whether a command line is about a sequence that agents learn, and not classifiers."""
    resumed = given_value("resume", arguments)
    if resumed is not None:
        return (Path(resumed) / "config.yaml").exists() and is_of_agents(RunFolder(Path(resumed)))
    preset, file = given_value("preset", arguments), given_value("config", arguments)
    known_presets = {**continual_presets(), **rl_continual_presets()}
    data = yaml_config.load_yaml(known_presets[preset]) if preset in known_presets else {}
    data |= {} if file is None else yaml_config.load_yaml(Path(file))
    sequence = given_value("sequence", arguments) or data.get("sequence")
    if sequence is None:
        if given_value("algo", arguments) is not None or "algo" in data:
            raise ConfigError("'algo' is for sequences of environments: name one by --sequence")
        return False
    if not isinstance(sequence, str):
        raise ConfigError(f"sequence must be a name or a file, got {shown(sequence)}")
    known = (*SEQUENCES, *RL_SEQUENCES)
    if sequence not in known and not is_of_environments(sequence):
        raise ConfigError(unknown_name("sequence", sequence, known))
    return is_of_environments(sequence)


def _network_bytes(config: ContinualConfig, sequence: TaskSequence) -> float:
    """What the network takes, estimated."""
    if STRATEGIES[config.method].options == "spacenet":  # which counts connections
        return SPARSE_BYTES * float(sum(config.spacenet.connections or ()) * len(sequence.tasks))
    widths = [sequence.n_features, *config.learner.hidden, sequence.n_outputs]
    return DENSE_BYTES * config.learner.density * sum(a * b for a, b in itertools.pairwise(widths))


def _learner(config: ContinualConfig, data_dir: Path, *, download: bool = False) -> SupervisedLearner:
    torch.set_num_threads(config.threads)
    sequence = build_sequence(
        config.sequence,
        config.scenario,  # type: ignore[arg-type]  # one of them, as the config has checked
        seed=config.seed,
        data_dir=data_dir,
        download=download,
        n_tasks=config.tasks,
        class_order=config.class_order,
    )
    check_fits({"the network (--learner.hidden)": _network_bytes(config, sequence)})
    strategy = make_strategy(config.method, "classifier", config)
    return SupervisedLearner(sequence, strategy, config.learner, seed=config.seed)


def _resume(command: ContinualCommand) -> int:
    assert command.resume is not None
    folder = RunFolder.open(command.resume)
    config = continual_config(folder)
    with resumed(folder, command.from_step) as state:
        learner = _learner(config, command.data_dir or Path((folder.path / DATA_DIR).read_text().rstrip("\n")))
        print(f"resuming {folder.path} at step {state['global_step']}")
        return _learn(learner, config, folder, show_progress=command.progress, state=state)


def _learn(
    learner: SupervisedLearner,
    config: ContinualConfig,
    folder: RunFolder,
    *,
    show_progress: bool,
    state: dict[str, Any] | None,
) -> int:
    with getting_ready(folder, "continual", is_new=state is None):
        if any(isinstance(layer, SparseLinear) for layer in learner.network):
            prepare(lambda message: print(message, flush=True))
        recorder = SequenceRecorder(
            learner,
            folder,
            identity=config.plain(),
            log_every_steps=config.log_every_steps,
            checkpoint_every_steps=config.checkpoint_every_steps,
            show_progress=show_progress,
            process=ProcessCost(energy=config.energy),
        )
        if state is not None:
            with restoring():
                recorder.restore(state)
            tidy(folder, state)
        recorder.trackers = trackers(
            config,
            folder,
            run_config=config.plain(),
            job_type="continual",
            resumed_at=None if state is None else state["global_step"],
        )
    status = learn_or_say_how_to_resume(recorder.learn, recorder, folder, command="continual")
    if status:
        return status
    with finishing(folder, "continual"):
        names = ("sequence", "scenario", "method", "seed")
        result = {**{name: getattr(config, name) for name in names}, **recorder.result()}
        folder.finish(result, lambda out: plot_sequence_run(folder.path, out, config.title))
        _print_result(config.title, result, folder)
        hand_over(recorder, config, result)
    return 0


def _print_result(title: str, result: dict[str, Any], folder: RunFolder) -> None:
    table = Table(title=title, show_header=False)
    share = result["connections"] / result["connections_dense"]
    memory = sum(result["memory"].values())
    rows = {
        "ACC, mean accuracy at the end": _percent(result["acc"]),
        "BWT, change since a task was learned": _percent(result["bwt"]),
        "forgetting": _percent(result["forgetting_final"]),
        "connections": f"{result['connections']:,} of {result['connections_dense']:,} ({share:.1%})",
        "bytes of parameters, indices": f"{result['bytes_parameters']:,}, {result['bytes_indices']:,}",
        "bytes kept between tasks": f"{memory:,}" if memory else "",
        "gradient steps": f"{result['steps']:,}",
        "wall time": f"{result['wall_s']:.1f} s",
        "plot": str(folder.path / "plot.png"),
    }
    for name, value in rows.items():
        if value:
            table.add_row(name, value)
    matrix = Table(title="accuracy")
    matrix.add_column("after task")
    for task in range(result["tasks"]):
        matrix.add_column(f"on {task}", justify="right")
    for task, row in enumerate(result["matrix"]):
        matrix.add_row(str(task), *(_percent(value) for value in row))
    console = Console()
    console.print(matrix)
    console.print(table)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
