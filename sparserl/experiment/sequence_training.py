"""An agent on a sequence of environments, trained: `sparserl continual` on environments."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparserl import config as yaml_config
from sparserl.agents.checkpoints import AgentCheckpoints
from sparserl.agents.table import accepted
from sparserl.continual.rl.evaluation import TaskEvaluator
from sparserl.continual.rl.recorder import RLSequenceRecorder
from sparserl.envs import RLSequence, SequenceEnv, check_spaces
from sparserl.experiment.env_state import env_state, restore_env
from sparserl.experiment.named_modules import name_modules, run_of
from sparserl.experiment.recorded_run import camera
from sparserl.experiment.rl_continual_config import RLContinualConfig
from sparserl.experiment.run_config import SEQUENCE, located_config, rl_continual_config, run_sequence, written_config
from sparserl.experiment.training import Source, Training
from sparserl.metrics.cost import params_dense, params_nonzero
from sparserl.recording.recorder import Intervals
from sparserl.recording.resources import ProcessCost
from sparserl.recording.run_folder import RunFolder


class SequenceTraining(Training[RLContinualConfig]):
    """An agent on a sequence of environments.

    Attributes:
        learner: The agent, with what fights its forgetting.
        sequence: The tasks.
    """

    command, job_type = "continual", "continual_rl"
    parts = ("checkpoints",)

    def __init__(self, config: RLContinualConfig, sequence: RLSequence):
        super().__init__(config)
        self.sequence = sequence
        self.learner = config.make_learner(sequence)
        self._env: Any = self.learner.agent.env.envs[0]  # a DummyVecEnv
        self._evaluator: TaskEvaluator | None = None

    @classmethod
    def begin(cls, config: RLContinualConfig, source: Source) -> SequenceTraining:
        sequence = config.load_sequence()
        if source.config is not None or config.from_file:
            file = source.config or Path(config.sequence)
            name_modules((task.env for task in sequence.tasks), run_of(file))
        check_spaces(sequence, config.wrappers, config.seed, **accepted(config.algo))
        return cls(config, sequence)

    @classmethod
    def config_of(cls, folder: RunFolder) -> RLContinualConfig:
        return located_config(rl_continual_config(folder), folder)

    @classmethod
    def reopen(cls, config: RLContinualConfig, folder: RunFolder, source: Source) -> SequenceTraining:
        return cls(config, run_sequence(folder))

    @property
    def about(self) -> list[str]:
        networks = list(self.learner.agent.networks.values())
        tasks = "; ".join(f"{task.name} ({task.steps:,} steps)" for task in self.sequence.tasks)
        return [
            f"{len(self.sequence)} tasks: {tasks}",
            f"{params_nonzero(networks):,} of {params_dense(networks):,} parameters",
        ]

    def create_folder(self, path: Path | None, command: str | None) -> RunFolder:
        folder = super().create_folder(path, command)
        self.config = located_config(rl_continual_config(folder), folder)  # evaluation reads the copies as well
        (folder.path / SEQUENCE).write_text(yaml_config.dump(self.sequence))
        return folder

    def record(self, folder: RunFolder, *, show_progress: bool) -> RLSequenceRecorder:
        config, tasks = self.config, self.sequence.tasks
        self._evaluator = TaskEvaluator(
            lambda task: config.make_task(tasks[task], len(tasks)),
            len(tasks),
            stochastic=config.eval.episodes,
            deterministic=config.eval.deterministic_episodes,
            seed=config.seed,
            max_steps=config.eval.max_steps,
        )
        self._recorder = RLSequenceRecorder(
            self.learner,
            folder,
            self._evaluator,
            AgentCheckpoints(self.learner.agent, folder),
            Intervals(config.eval.every_steps, config.log_every_steps, config.checkpoint_every_steps),
            identity=written_config(folder),
            env_state=lambda: env_state([self._env]),
            show_progress=show_progress,
            process=ProcessCost(energy=config.energy),
            camera=camera(
                config,
                folder,
                lambda task: config.make_task(tasks[task], len(tasks), render_mode="rgb_array"),
                evaluate_every_steps=config.eval.every_steps,
                seed=config.seed,
            ),
        )
        return self._recorder

    def restore_envs(self, state: Mapping[str, Any]) -> None:
        tasks: SequenceEnv = self._env.unwrapped

        def enter_task() -> None:
            last = len(self.sequence) - 1
            if self.learner.task > last:  # all are learned, and an evaluation is to be repeated
                tasks.enter(last, self.sequence.tasks[last].steps)
            else:
                tasks.enter(self.learner.task, self.learner.task_steps)

        restore_env(self.learner.agent, [self._env], state, enter_task, seed=self.config.seed)

    def learn(self, *, is_new: bool) -> None:
        self._recorder.learn()

    def close(self) -> None:
        if self._evaluator is not None:
            self._evaluator.close()

    @property
    def named(self) -> dict[str, Any]:
        settings = {name: getattr(self.config, name) for name in ("algo", "method", "seed")}
        return {"sequence": self.sequence.name, **settings}

    def draw(self, folder: RunFolder, out: Path) -> None:
        from sparserl.plots.sequences import plot_rl_run  # as in `AgentTraining`

        plot_rl_run(folder.path, out, self.config.title)

    def clean_up(self) -> None:
        self._recorder.checkpoints.forget_replay()
