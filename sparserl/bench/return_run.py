"""One run of `bench return`, in a process of its own: `python -m sparserl.bench.return_run TASK`, TASK a `Run` as JSON.

Decides what the time of a run is: that of its training, without importing, compiling and evaluating, which are in its
record by themselves.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from sparserl import config as yaml_config
from sparserl.agents.evaluation import Evaluator
from sparserl.bench.compared import OURS
from sparserl.bench.contenders import Entry, installed
from sparserl.bench.options import EVALUATIONS, Record, RunSettings
from sparserl.bench.return_agents import make_learner
from sparserl.bench.threads import limit_threads
from sparserl.envs import make_env
from sparserl.json_text import json_text
from sparserl.kernels import compile_kernels
from sparserl.recording.run_folder import versions
from sparserl.written_files import write_text

EVALUATION_SEED_OFFSET = 1_000_000
"""Between the seed of a run and that of its evaluations."""
WARM_UP = 20
"""Updates in which functions are compiled; their time is compared with that of as many that follow."""


@dataclass(frozen=True)
class Run:
    """A run of the benchmark.

    Attributes:
        entry: The contender: its name is a key of `RETURN_SUMMARIES`.
        seed: Root seed.
        settings: Of all runs.
    """

    entry: Entry
    seed: int
    settings: RunSettings

    @property
    def who(self) -> Record:
        """What tells its record from others of the same settings."""
        entry = self.entry
        return {"contender": entry.name, "density": entry.density, "pairs": entry.pairs, "seed": self.seed}

    @property
    def title(self) -> str:
        """Which it is, in words."""
        return f"{self.entry.label}, seed {self.seed}"

    @property
    def file_name(self) -> str:
        """Of its record."""
        return f"{self.entry.label.replace(', pairs ', '-p').replace(' ', '-d')}-s{self.seed}.json"


@dataclass(frozen=True)
class Task:
    """What the process of a run is told.

    Attributes:
        run: The run.
        path: File for its record.
        parent: Process that started it; the run ends with it.
        started_at: When, in seconds since the epoch.
        say: Print a line for each evaluation.
    """

    run: Run
    path: Path
    parent: int
    started_at: float
    say: bool


@dataclass(frozen=True)
class Spent:
    """Seconds of a run.

    Attributes:
        wall: By the clock on the wall.
        cpu: Of all threads together.
    """

    wall: float
    cpu: float

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.wall + other.wall, self.cpu + other.cpu)

    def __sub__(self, other: Spent) -> Spent:
        return Spent(self.wall - other.wall, self.cpu - other.cpu)


NOTHING = Spent(0.0, 0.0)


def now() -> Spent:
    """Of this process."""
    return Spent(time.perf_counter(), time.process_time())


def compiling(steps: Sequence[float], among: int | None = None, warm_up: int = WARM_UP) -> float:
    """What the first steps with an update took beyond what such steps usually take.

    Args:
        steps: Seconds of each, from the first one on.
        among: Of how many of them; all if None. Only the first `warm_up` may have compiled something.
        warm_up: The median of as many that follow is what is usual; while none follows, the quickest of all.

    Example:
        >>> compiling([5.0, 1.0, 2.0, 1.0], warm_up=2)
        3.0
    """
    first = steps[:warm_up][:among]
    if not first:
        return 0.0
    following = steps[warm_up : 2 * warm_up]
    usual = median(following) if following else min(steps)
    return max(0.0, sum(first) - len(first) * usual)


def passed(evaluations: Sequence[float], goal: float) -> int | None:
    """Which evaluation is the first that, with the two before it, has a mean above a return; None if none is.

    Example:
        >>> passed([0.0, 10.0, 20.0, 30.0], 15.0)
        3
    """
    for last in range(EVALUATIONS - 1, len(evaluations)):
        if mean_of_last(evaluations[: last + 1]) > goal:
            return last
    return None


def mean_of_last(evaluations: Sequence[float]) -> float:
    """Mean of the last three of at least three evaluations."""
    return sum(evaluations[-EVALUATIONS:]) / EVALUATIONS


class Stopwatch(BaseCallback):
    """Evaluates a policy while it learns, with the clock stopped, and ends the run when it is time.

    Args:
        settings: Of the run.
        evaluate: Returns of the episodes of an evaluation.
        say: Told of each.
        clock: What this process has spent so far.
        goes_on: Asked after each step whether the result is still awaited.

    Attributes:
        ended: Why: `returns`, `limit`, or `steps`; `abandoned` if it is not awaited.
    """

    def __init__(
        self,
        settings: RunSettings,
        evaluate: Callable[[BaseAlgorithm], Sequence[float]],
        say: Callable[[str], object] = lambda line: None,
        clock: Callable[[], Spent] = now,
        goes_on: Callable[[], bool] = lambda: True,
    ):
        super().__init__()
        self._settings, self._evaluate, self._say, self._clock, self._goes_on = settings, evaluate, say, clock, goes_on
        self.ended = "steps"
        self.evaluations: list[Record] = []
        self._spent_at: list[tuple[Spent, int]] = []  # at each evaluation, and the steps in `_laps` by then
        self._laps: list[Spent] = []  # of the first steps with an update
        self._updates = 0
        self._start = self._end = self._lap_start = self._paused = self._compiling = NOTHING

    def _on_training_start(self) -> None:
        self._start = self._lap_start = self._clock()

    def _on_training_end(self) -> None:
        self._end = self._clock() - self._start - self._paused

    def _compiled(self, laps: int) -> Spent:
        """What was spent on compiling in some first steps with an update, as far as is known."""
        walls, cpus = [lap.wall for lap in self._laps], [lap.cpu for lap in self._laps]
        return Spent(compiling(walls, laps), compiling(cpus, laps))

    def _on_step(self) -> bool:
        stopped_at = self._clock()
        if len(self._laps) < 2 * WARM_UP:
            self._add_lap(stopped_at)
        seconds = stopped_at.wall - self._start.wall - self._paused.wall - self._compiling.wall
        if self.num_timesteps % self._settings.eval_every == 0:
            self._look(stopped_at)
        if not self._goes_on():
            self.ended = "abandoned"
        elif self.ended == "steps" and seconds >= self._settings.limit_s and len(self._laps) in (0, 2 * WARM_UP):
            self.ended = "limit"  # once it is known what compiling took
        return self.ended == "steps"

    def _add_lap(self, now: Spent) -> None:
        updates: int = self.model._n_updates
        if updates > self._updates:
            self._laps.append(now - self._lap_start)
            self._compiling = self._compiled(len(self._laps))
        self._updates, self._lap_start = updates, now

    @property
    def _means(self) -> list[float]:
        return [evaluation["mean"] for evaluation in self.evaluations]

    def _look(self, stopped_at: Spent) -> None:
        """Evaluates; all of it is a pause."""
        spent = stopped_at - self._start - self._paused
        returns = [float(value) for value in self._evaluate(self.model)]
        self.evaluations.append({"step": self.num_timesteps, "returns": returns, "mean": sum(returns) / len(returns)})
        self._spent_at.append((spent, len(self._laps)))
        last = f", mean of three {mean_of_last(self._means):.1f}" if len(self._means) >= EVALUATIONS else ""
        seconds = (spent - self._compiling).wall
        self._say(f"{self.num_timesteps:>9,} steps {seconds:9.1f} s  return {self._means[-1]:.1f}{last}")
        if passed(self._means, self._settings.returns[-1]) is not None:
            self.ended = "returns"
        pause = self._clock() - stopped_at
        self._paused, self._lap_start = self._paused + pause, self._lap_start + pause

    def record(self) -> Record:
        """What was found, with the time of compiling taken out of all others."""
        means = self._means
        for at, (evaluation, (spent, laps)) in enumerate(zip(self.evaluations, self._spent_at, strict=True)):
            training = spent - self._compiled(laps)
            evaluation |= {"seconds": training.wall, "cpu_seconds": training.cpu}
            evaluation["mean_of_three"] = mean_of_last(means[: at + 1]) if at >= EVALUATIONS - 1 else None
        reached = []
        for goal in self._settings.returns:
            at_evaluation = passed(means, goal)
            if at_evaluation is None:
                reached.append({"return": goal, "step": None, "seconds": None, "cpu_seconds": None})
            else:
                at_goal = self.evaluations[at_evaluation]
                reached.append({"return": goal, **{name: at_goal[name] for name in ("step", "seconds", "cpu_seconds")}})
        in_all, best = (
            self._end - self._compiling,
            [one["mean_of_three"] for one in self.evaluations[EVALUATIONS - 1 :]],
        )
        return {
            "reached": reached,
            "best_mean_of_three": max(best, default=None),
            "ended": self.ended,
            "steps": self.num_timesteps,
            "updates": self.model._n_updates,
            "seconds": in_all.wall,
            "cpu_seconds": in_all.cpu,
            "compiling_in_first_updates_s": self._compiling.wall,
            "evaluation_s": self._paused.wall,
            "evaluations": self.evaluations,
        }


def learn(
    run: Run, say: Callable[[str], object] = lambda line: None, goes_on: Callable[[], bool] = lambda: True
) -> Record:
    """Trains and evaluates a contender in this process; the record of it."""
    settings = run.settings
    load = os.getloadavg()[0]
    with limit_threads(settings.threads, bind=run.entry.is_jax):
        start = now()
        if run.entry.name in OURS:
            compile_kernels(say)
        prepared = now()
        agent, parameters = make_learner(run.entry, make_env(settings.env), run.seed, settings)
        evaluator = Evaluator(lambda: make_env(settings.env), settings.episodes, seed=run.seed + EVALUATION_SEED_OFFSET)
        watch = Stopwatch(settings, lambda model: evaluator(model).returns, say, goes_on=goes_on)
        building_s = (now() - prepared).wall
        agent.learn(settings.max_steps, callback=watch, log_interval=None)  # type: ignore[arg-type]  # SB3 takes None at run time
        evaluator.close()
    return {
        **run.who,
        "settings": yaml_config.plain(settings),
        "hyper_parameters": parameters,
        **watch.record(),
        "compiling_before_s": (prepared - start).wall,
        "building_s": building_s,
        "versions": versions(settings.threads),
        "installed": installed(),
        "load_average_before": load,
    }


def main(words: Sequence[str]) -> int:
    """Runs a task; its record is written when it has come to its end."""
    task = yaml_config.build(Task, json.loads(words[0]))
    importing_s = time.time() - task.started_at

    def say(line: str) -> None:
        if task.say:
            print(f"{task.run.title}: {line}", flush=True)

    measured = learn(task.run, say, lambda: os.getppid() == task.parent)
    if measured["ended"] == "abandoned":
        return 1
    write_text(task.path, json_text({**measured, "importing_s": importing_s}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
