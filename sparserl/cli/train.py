"""`sparserl train`: builds env, agent and run folder, trains, and leaves a result; or continues a run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from rich.console import Console
from rich.table import Table

from sparserl import config as yaml_config
from sparserl.agents.evaluation import Evaluator
from sparserl.agents.parts import AgentParts
from sparserl.agents.replay.buffer import AdaptiveReplayBuffer
from sparserl.agents.replay.forget_stale import ForgetStale
from sparserl.agents.run_recorder import Intervals, RunRecorder
from sparserl.agents.table import AGENTS
from sparserl.envs import (
    feature_origins,
    load_wrapper_state,
    noise_source,
    observation_statistics,
    relevant_features,
    wrapper_state,
)
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
from sparserl.experiment.run_config import located_config, run_config, written_config
from sparserl.experiment.run_failure import finishing, getting_ready
from sparserl.experiment.train_config import TrainCommand, TrainConfig, parse_train
from sparserl.kernels import prepare
from sparserl.metrics.cost import params_dense, params_nonzero
from sparserl.recording.resources import ProcessCost
from sparserl.recording.run_folder import RunFolder
from sparserl.recording.run_lock import only_writer

EVAL_SEED_OFFSET = 100
"""Evaluation environments are seeded this far from the run's seed, as in the DS-TD3 code."""

NORMALIZATION = "normalization.json"
"""In the folder of a run that normalises observations: its statistics at the end, for another run to use."""


def run(arguments: Sequence[str]) -> int:
    """Runs `sparserl train`; returns the exit status."""
    command, preset = parse_train(arguments)
    if command.resume is not None:
        return _resume(command)
    config = command.run
    if command.config is not None:
        name_modules([config.env], run_of(command.config))
    if command.dry_run:
        config.make_env().close()
        print(yaml_config.dump(config), end="")
        return 0
    torch.set_num_threads(config.threads)
    agent = config.make_agent(config.make_envs())
    wrappers, files = stored(config.wrappers)
    folder = RunFolder.create(
        command.run_dir or free_folder(config),
        config_yaml=yaml_config.dump(replace(config, wrappers=wrappers)),
        command=shlex.join(["sparserl", "train", *arguments]),
        threads=config.threads,
        files=files,
    )
    config = located_config(run_config(folder), folder)  # evaluation reads the copies as well
    print(f"{config.name} seed {config.seed} on {config.device}, {config.threads} thread(s), preset {preset}")
    networks = list(agent.networks.values())
    print(f"{params_nonzero(networks):,} of {params_dense(networks):,} parameters, topology {config.topology.method}")
    print(f"run folder {folder.path}")
    with only_writer(folder.path):
        return _train(agent, config, folder, show_progress=command.progress, state=None)


def _resume(command: TrainCommand) -> int:
    assert command.resume is not None
    folder = RunFolder.open(command.resume)
    config = located_config(run_config(folder), folder)
    name_modules([config.env], folder.path)
    with resumed(folder, command.from_step) as state:
        torch.set_num_threads(config.threads)
        agent = config.make_agent(config.make_envs())
        print(f"resuming {folder.path} at step {state['global_step']}")
        return _train(agent, config, folder, show_progress=command.progress, state=state)


def _train(
    agent: AgentParts,
    config: TrainConfig,
    folder: RunFolder,
    *,
    show_progress: bool,
    state: dict[str, Any] | None,
) -> int:
    assert agent.env is not None
    envs: Sequence[gym.Env[Any, Any]] = agent.env.envs  # type: ignore[attr-defined]  # a DummyVecEnv
    env = envs[0]  # whose wrappers evaluation follows
    evaluator = Evaluator(
        lambda: config.make_env(follow=env),
        config.eval.episodes,
        seed=config.seed + EVAL_SEED_OFFSET,
        max_steps=config.eval.max_steps,
    )
    with getting_ready(folder, "train", is_new=state is None):
        if AGENTS[config.algo].sparse:
            prepare(lambda message: print(message, flush=True))
        recorder = RunRecorder(
            agent,
            folder,
            evaluator,
            [],
            Intervals(
                evaluate=config.eval.every_steps,
                log=config.log_every_steps,
                checkpoint=config.checkpoint_every_steps,
                snapshot=max(1, config.total_steps // config.topology_snapshots),
            ),
            identity=written_config(folder),
            total_steps=config.last_step,
            env_state=lambda: env_state(envs),
            wrapper_state=lambda: wrapper_state(env),
            relevant_features=(lambda: relevant_features(env)) if config.wrappers.noise_fraction > 0.0 else None,
            show_progress=show_progress,
            process=ProcessCost(energy=config.energy),
            camera=camera(
                config,
                folder,
                lambda _: config.make_env(render_mode="rgb_array", follow=env),
                evaluate_every_steps=config.eval.every_steps,
                seed=config.seed + EVAL_SEED_OFFSET,
            ),
        )
        if isinstance(agent.replay_buffer, AdaptiveReplayBuffer) and config.agent.replay == "redraw_noise":
            agent.replay_buffer.redraw_from(lambda: feature_origins(env), noise_source(env).draw_noise)
        if state is not None:
            with restoring():
                recorder.restore(state)
                restore_env(agent, envs, state["env"], lambda: load_wrapper_state(env, state["wrappers"]))
            tidy(folder, state)
        recorder.trackers = trackers(
            config,
            folder,
            run_config=yaml_config.plain(run_config(folder)),
            job_type="train",
            resumed_at=None if state is None else state["global_step"],
        )

    def learn() -> None:
        agent.learn(
            config.total_steps - agent.num_timesteps,
            callback=[recorder, ForgetStale()] if config.agent.dynamic_capacity else recorder,
            log_interval=None,  # type: ignore[arg-type]  # SB3 takes None at run time: the recorder logs
            reset_num_timesteps=state is None,
        )

    try:
        status = learn_or_say_how_to_resume(learn, recorder, folder, command="train")
    finally:
        evaluator.close()
    if status:
        return status
    with finishing(folder, "train"):
        result = {"algo": config.algo, "env": config.env, "seed": config.seed, **recorder.result()}
        statistics = observation_statistics(env)
        if statistics is not None:
            statistics.save(folder.path / NORMALIZATION)
        recorder.save_final_policy()
        folder.finish(result, lambda out: _draw(folder, config.name, out))
        recorder.checkpoints.forget_replay()
        _print_result(result, folder)
        hand_over(recorder, config, result)
    return 0


def _draw(folder: RunFolder, label: str, out: Path) -> None:
    from sparserl.plots.curves import plot_runs  # matplotlib takes a while to load, and no step waits for it
    from sparserl.plots.style import Run

    plot_runs([Run(folder.path, label)], out)


def _print_result(result: dict[str, Any], folder: RunFolder) -> None:
    table = Table(title=f"{result['algo']} on {result['env']}, seed {result['seed']}", show_header=False)
    rows = {
        "steps": f"{result['steps']:,}",
        "return, last evaluation": f"{result['return_last']:.1f}",
        f"return, mean of last {result['return_last10_n']}": f"{result['return_last10']:.1f}",
        "parameters": f"{result['params_nonzero']:,} of {result['params_dense']:,} ({result['density']:.1%})",
        "training FLOPs": f"{result['flops_train']:.3g}",
        "topology events": str(result["topology_events"]),
        "explored connections": "" if result["explored_fraction"] is None else f"{result['explored_fraction']:.1%}",
        "wall time": f"{result['wall_s']:.0f} s ({result['steps_per_second']:.0f} steps/s)",
        "plot": str(folder.path / "plot.png"),
    }
    for name, value in rows.items():
        if value:
            table.add_row(name, value)
    Console().print(table)
