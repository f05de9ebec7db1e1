"""`sparserl continual` on a sequence of environments: builds agent, tasks and run folder, learns, leaves a result."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.table import Table

from sparserl import config as yaml_config
from sparserl.agents.checkpoints import AgentCheckpoints
from sparserl.continual.rl.evaluation import TaskEvaluator
from sparserl.continual.rl.learner import RLLearner
from sparserl.continual.rl.recorder import Intervals, RLSequenceRecorder
from sparserl.envs import SequenceEnv, check_spaces
from sparserl.experiment.env_state import env_state, restore_env
from sparserl.experiment.input_files import stored
from sparserl.experiment.named_modules import name_modules, run_of
from sparserl.experiment.recorded_run import (
    camera,
    free_folder,
    hand_over,
    learn_or_say_how_to_resume,
    restoring,
    resumed,
    tidy,
    trackers,
)
from sparserl.experiment.rl_continual_config import RLContinualCommand, RLContinualConfig, parse_rl_continual
from sparserl.experiment.run_config import SEQUENCE, located_config, rl_continual_config, run_sequence, written_config
from sparserl.experiment.run_failure import finishing, getting_ready
from sparserl.kernels import prepare
from sparserl.metrics.cost import params_dense, params_nonzero
from sparserl.plots.sequences import plot_rl_run
from sparserl.recording.resources import ProcessCost
from sparserl.recording.run_folder import RunFolder
from sparserl.recording.run_lock import only_writer


def run(arguments: Sequence[str]) -> int:
    """Runs `sparserl continual` on environments; returns the exit status."""
    command, preset = parse_rl_continual(arguments)
    if command.resume is not None:
        return _resume(command)
    config = command.run
    sequence = config.load_sequence()
    if command.config is not None or config.from_file:
        source = command.config or Path(config.sequence)
        name_modules((task.env for task in sequence.tasks), run_of(source))
    check_spaces(sequence, config.wrappers, config.seed)
    learner = config.make_learner(sequence)
    if command.dry_run:
        print(yaml.safe_dump(config.plain(), sort_keys=False), end="")
        return 0
    wrappers, files = stored(config.wrappers)
    folder = RunFolder.create(
        command.run_dir or free_folder(config),
        config_yaml=yaml.safe_dump(replace(config, wrappers=wrappers).plain(), sort_keys=False),
        command=shlex.join(["sparserl", "continual", *arguments]),
        threads=config.threads,
        parts=["checkpoints", "replay"],
        files=files,
    )
    config = located_config(rl_continual_config(folder), folder)  # evaluation reads the copies as well
    (folder.path / SEQUENCE).write_text(yaml_config.dump(sequence))
    networks = list(learner.agent.networks.values())
    print(f"{config.name} seed {config.seed}, {config.threads} thread(s), preset {preset}")
    print(f"{len(sequence)} tasks: {'; '.join(f'{task.name} ({task.steps:,} steps)' for task in sequence.tasks)}")
    print(f"{params_nonzero(networks):,} of {params_dense(networks):,} parameters; run folder {folder.path}")
    with only_writer(folder.path):
        return _learn(learner, config, folder, show_progress=command.progress, state=None)


def _resume(command: RLContinualCommand) -> int:
    assert command.resume is not None
    folder = RunFolder.open(command.resume)
    config = located_config(rl_continual_config(folder), folder)
    with resumed(folder, command.from_step) as state:
        learner = config.make_learner(run_sequence(folder))
        print(f"resuming {folder.path} at step {state['global_step']}")
        return _learn(learner, config, folder, show_progress=command.progress, state=state)


def _learn(
    learner: RLLearner,
    config: RLContinualConfig,
    folder: RunFolder,
    *,
    show_progress: bool,
    state: dict[str, Any] | None,
) -> int:
    torch.set_num_threads(config.threads)
    env: Any = learner.agent.env.envs[0]  # a DummyVecEnv
    tasks: SequenceEnv = env.unwrapped
    evaluator = TaskEvaluator(
        lambda task: config.make_task(tasks.sequence.tasks[task], len(tasks.sequence)),
        len(tasks.sequence),
        stochastic=config.eval.episodes,
        deterministic=config.eval.deterministic_episodes,
        seed=config.seed,
        max_steps=config.eval.max_steps,
    )
    with getting_ready(folder, "continual", is_new=state is None):
        prepare(lambda message: print(message, flush=True))
        recorder = RLSequenceRecorder(
            learner,
            folder,
            evaluator,
            AgentCheckpoints(learner.agent, folder),
            Intervals(config.eval.every_steps, config.log_every_steps, config.checkpoint_every_steps),
            identity=written_config(folder),
            env_state=lambda: env_state([env]),
            show_progress=show_progress,
            process=ProcessCost(energy=config.energy),
            camera=camera(
                config,
                folder,
                lambda task: config.make_task(tasks.sequence.tasks[task], len(tasks.sequence), render_mode="rgb_array"),
                evaluate_every_steps=config.eval.every_steps,
                seed=config.seed,
            ),
        )
        if state is not None:
            with restoring():
                recorder.restore(state)
                restore_env(learner.agent, [env], state["env"], lambda: tasks.enter(learner.task, learner.task_steps))
            tidy(folder, state)
        recorder.trackers = trackers(
            config,
            folder,
            run_config=rl_continual_config(folder).plain(),
            job_type="continual_rl",
            resumed_at=None if state is None else state["global_step"],
        )
    try:
        status = learn_or_say_how_to_resume(recorder.learn, recorder, folder, command="continual")
    finally:
        evaluator.close()
    if status:
        return status
    with finishing(folder, "continual"):
        names = ("algo", "method", "seed")
        own = {"sequence": tasks.sequence.name, **{name: getattr(config, name) for name in names}}
        result = {**own, **recorder.result()}
        folder.finish(result, lambda out: plot_rl_run(folder.path, out, config.title))
        recorder.checkpoints.forget_replay()
        _print_result(config.title, result, folder)
        hand_over(recorder, config, result)
    return 0


def _print_result(title: str, result: dict[str, Any], folder: RunFolder) -> None:
    successes = result["successes"]
    matrix = Table(title="return" if successes is None else "success rate")
    matrix.add_column("after task")
    for task, name in enumerate(result["task_names"]):
        matrix.add_column(f"on {task}: {name}", justify="right")
    for task, row in enumerate(result["returns"] if successes is None else successes):
        matrix.add_row(str(task), *(f"{value:.0f}" if successes is None else f"{value:.0%}" for value in row))
    table = Table(title=title, show_header=False)
    memory = sum(result["memory"].values())
    rows = {
        "mean return at the end": "" if result["acc"] is None else f"{result['acc']:.1f}",
        "change since a task was learned": "" if result["bwt"] is None else f"{result['bwt']:+.1f}",
        "mean success at the end": "" if successes is None else f"{sum(successes[-1]) / len(successes[-1]):.1%}",
        "parameters": f"{result['params_nonzero']:,} of {result['params_dense']:,}",
        "connections frozen, free": f"{result['connections_frozen']:,}, {result['connections_free']:,}",
        "bytes kept between tasks": f"{memory:,}" if memory else "",
        "wall time": f"{result['wall_s']:.0f} s ({result['steps_per_second']:.0f} steps/s)",
        "plot": str(folder.path / "plot.png"),
    }
    for name, value in rows.items():
        if value:
            table.add_row(name, value)
    console = Console()
    console.print(matrix)
    console.print(table)
    console.print("forward transfer and forgetting against runs of --method scratch: sparserl report")
