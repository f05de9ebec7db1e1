"""An agent in its environment, trained: `sparserl train`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import yaml

from sparserl.agents.evaluation import Evaluator
from sparserl.agents.run_recorder import RunRecorder
from sparserl.agents.table import AGENTS
from sparserl.envs import (
    feature_origins,
    load_wrapper_state,
    noise_source,
    observation_statistics,
    relevant_features,
    wrapper_state,
)
from sparserl.errors import ConfigError
from sparserl.experiment.env_state import env_state, restore_env
from sparserl.experiment.named_modules import name_modules, run_of
from sparserl.experiment.origin import Origin, check_spaces, open_origin
from sparserl.experiment.recorded_run import camera
from sparserl.experiment.resuming import restoring
from sparserl.experiment.run_config import located_config, run_config, written_config
from sparserl.experiment.train_config import TrainConfig
from sparserl.experiment.training import Source, Training
from sparserl.metrics.cost import params_dense, params_nonzero
from sparserl.recording.recorder import Intervals
from sparserl.recording.resources import ProcessCost
from sparserl.recording.run_folder import LENGTH, RunFolder

EVAL_SEED_OFFSET = 100
"""Evaluation environments are seeded this far from the run's seed, as in the DS-TD3 code."""

NORMALIZATION = "normalization.json"
"""In the folder of a run that normalises observations: its statistics at the end, for another run to use."""


class AgentTraining(Training[TrainConfig]):
    """An agent in one environment, or in several of a kind.

    Attributes:
        agent: The agent.
        envs: Its environments; evaluation follows the wrappers of the first.
    """

    command = job_type = "train"
    parts = ("checkpoints", "topology")
    recorder: ClassVar[type[RunRecorder]] = RunRecorder

    def __init__(self, config: TrainConfig):
        super().__init__(config)
        self.agent = config.make_agent(config.make_envs())
        assert self.agent.env is not None
        self.envs: Sequence[gym.Env[Any, Any]] = self.agent.env.envs  # type: ignore[attr-defined]  # a DummyVecEnv
        self._evaluator: Evaluator | None = None

    @classmethod
    def begin(cls, config: TrainConfig, source: Source) -> AgentTraining:
        if source.config is not None:
            name_modules([config.env], run_of(source.config))
        origin = open_origin(config)  # before the agent, whose seed then decides all that is drawn
        training = cls(config)
        if origin is not None:
            training.begin_with(origin)
        return training

    def begin_with(self, origin: Origin) -> None:
        """Takes over what another run has learned, before the first step.

        Raises:
            ConfigError: If it is of other spaces or wrappers.
            CheckpointError: If it does not fit.
        """
        check_spaces(self.config, origin, self.agent)
        known, own = sorted(origin.wrappers), sorted(wrapper_state(self.envs[0]))
        if known != own:
            raise ConfigError(
                f"the networks of {self.config.origin.run} learned behind the wrappers {known}, and here are {own}: "
                "leave --wrappers as they are"
            )
        with restoring():
            self.agent.take_networks(origin.networks)
            self._load_wrappers(origin.wrappers)

    def _load_wrappers(self, state: Mapping[str, Any]) -> None:
        """Puts the wrappers of all environments into the state of those of one."""
        for env in self.envs:
            load_wrapper_state(env, state)

    @classmethod
    def config_of(cls, folder: RunFolder) -> TrainConfig:
        return located_config(run_config(folder), folder)

    @classmethod
    def reopen(cls, config: TrainConfig, folder: RunFolder, source: Source) -> AgentTraining:
        name_modules([config.env], folder.path)
        return cls(config)

    @classmethod
    def longer(cls, config: TrainConfig, total_steps: int) -> TrainConfig:
        if total_steps <= config.total_steps:
            raise ConfigError(f"--total-steps {total_steps:,} must be above the {config.total_steps:,} of the run")
        longer = replace(config, total_steps=total_steps)
        _check_goes_on(longer, config.total_steps)
        return longer

    def check_length(self, state: Mapping[str, Any]) -> None:
        run = state.get("run")
        if isinstance(run, Mapping) and LENGTH in run:
            _check_goes_on(self.config, run[LENGTH])

    def extend(self, folder: RunFolder) -> None:
        written, total = written_config(folder), self.config.total_steps
        if written[LENGTH] != total:
            words = ["sparserl", self.command, "--resume", str(folder.path), "--total-steps", str(total)]
            folder.extend(yaml.safe_dump({**written, LENGTH: total}, sort_keys=False), shlex.join(words))

    def written(self, folder: RunFolder) -> dict[str, Any]:
        return {**super().written(folder), LENGTH: self.config.total_steps}

    @property
    def about(self) -> list[str]:
        networks = list(self.agent.networks.values())
        share = f"{params_nonzero(networks):,} of {params_dense(networks):,} parameters"
        origin = self.config.origin
        begun = (
            [] if origin.run is None else [f"begins with the networks of {origin.run}, {origin.checkpoint} checkpoint"]
        )
        end, wished = self.config.last_step, self.config.total_steps
        steps, _ = self.config.agent.rollout(self.config.n_envs)
        longer = [] if end == wished else [f"{end:,} env steps: {wished:,} are not whole rollouts of {steps:,}"]
        return [f"{share} on {self.config.device}, topology {self.config.topology.method}", *begun, *longer]

    @property
    def is_sparse(self) -> bool:
        return AGENTS[self.config.algo].sparse

    def create_folder(self, path: Path | None, command: str | None) -> RunFolder:
        folder = super().create_folder(path, command)
        self.config = located_config(run_config(folder), folder)  # evaluation reads the copies as well
        return folder

    def record(self, folder: RunFolder, *, show_progress: bool) -> RunRecorder:
        config, agent, envs, env = self.config, self.agent, self.envs, self.envs[0]
        self._evaluator = Evaluator(
            lambda: config.make_env(follow=env),
            config.eval.episodes,
            seed=config.seed + EVAL_SEED_OFFSET,
            max_steps=config.eval.max_steps,
        )
        self._recorder = self.recorder(
            agent,
            folder,
            self._evaluator,
            Intervals(
                evaluate=config.eval.every_steps,
                log=config.log_every_steps,
                checkpoint=config.checkpoint_every_steps,
                snapshot=max(1, config.total_steps // config.topology_snapshots),
            ),
            identity=self.written(folder),
            total_steps=config.last_step,
            env_state=lambda: env_state(envs),
            wrapper_state=lambda: wrapper_state(env),
            relevant_features=(lambda: relevant_features(env)) if config.wrappers.noise_fraction > 0.0 else None,
            learning=config.measure_learning,
            show_progress=show_progress,
            keeps_end=config.keeps_end,
            process=ProcessCost(energy=config.energy),
            camera=camera(
                config,
                folder,
                lambda _: config.make_env(render_mode="rgb_array", follow=env),
                evaluate_every_steps=config.eval.every_steps,
                seed=config.seed + EVAL_SEED_OFFSET,
            ),
        )
        config.agent.connect(agent, lambda: feature_origins(env), lambda: noise_source(env).draw_noise)
        return self._recorder

    def restore_envs(self, state: Mapping[str, Any]) -> None:
        begin = partial(self._load_wrappers, state["wrappers"])
        restore_env(self.agent, self.envs, state, begin, seed=self.config.seed)

    def learn(self, *, is_new: bool) -> None:
        callbacks = self.config.agent.callbacks()
        self.agent.learn(
            self.config.total_steps - self.agent.num_timesteps,
            callback=[self._recorder, *callbacks] if callbacks else self._recorder,
            log_interval=None,  # type: ignore[arg-type]  # SB3 takes None at run time: the recorder logs
            reset_num_timesteps=is_new,
        )

    def close(self) -> None:
        if self._evaluator is not None:
            self._evaluator.close()

    @property
    def named(self) -> dict[str, Any]:
        return {"algo": self.config.algo, "env": self.config.env, "seed": self.config.seed}

    def save_outcome(self, folder: RunFolder) -> None:
        statistics = observation_statistics(self.envs[0])
        if statistics is not None:
            statistics.save(folder.path / NORMALIZATION)
        self._recorder.save_final_policy()

    def draw(self, folder: RunFolder, out: Path) -> None:
        from sparserl.plots.curves import plot_runs  # matplotlib takes a while to load, and no step waits for it
        from sparserl.plots.style import Run

        plot_runs([Run(folder.path, " ".join(self.config.labels), task=self.config.task_label)], out)

    def clean_up(self) -> None:
        if not self.config.keeps_end:
            self._recorder.checkpoints.forget_replay()


def _check_goes_on(config: TrainConfig, before: Any) -> None:
    """Raises ConfigError if a run is not what one of `before` env steps would go on with."""
    reason, now = config.bound_to_length, config.total_steps
    if before != now and reason is not None:
        raise ConfigError(f"a run of {now:,} steps does not begin as this one of {before}: {reason}; start it anew")
