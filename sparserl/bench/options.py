"""What can be asked of each benchmark. Read before anything that takes seconds to import is imported.

So `sparserl bench` refuses what is wrong, and says what it measures, at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from sparserl.bench.compared import COMPARED, with_baselines
from sparserl.bench.threads import available_cpus, check_threads
from sparserl.errors import ConfigError, unknown_name
from sparserl.plots.style import FORMATS
from sparserl.ranges import (
    Count,
    CountOrZero,
    Number,
    Positive,
    PositiveShare,
    Repeats,
    Seconds,
    Seed,
    Workers,
    check_ranges,
)
from sparserl.recording.resources import STATUS
from sparserl.topology.group_sizes import check_pairs, nearest_multiple
from sparserl.written_files import check_folder, check_writable

Record = dict[str, Any]
"""What a benchmark found: numbers, texts, lists and dicts, ready for JSON."""
RETURN_SUMMARIES = {
    "td3": "Stable-Baselines3's TD3",
    "sac": "Stable-Baselines3's SAC",
    "sbx_td3": "SBX's TD3, compiled by JAX",
    "sbx_crossq": "SBX's CrossQ, likewise",
    "ds_td3": "ours, at each density",
    "ds_sac": "ours, at each density",
    "ds_crossq": "ours, at each density",
}
"""Contenders of `bench return`."""
EVALUATIONS = 3
"""Consecutive evaluations whose mean passes a return, or not."""
WHAT = ("update", "steps", "act", "event")
QUICK: dict[str, Any] = {
    "quick": True,
    "threads": (1,),
    "rounds": 5,
    "batches": (256,),
    "widths": (256,),
    "densities": (0.5, 0.1, 0.05),
    "only": ("ds_td3",),
    "what": ("update",),
}
"""`bench update --quick`: an answer within half a minute."""
CONNECTIONS_A_NEURON = 10
HIDDEN_LAYERS = 6
"""Of `bench scale`: two of actor and of each of two critics."""


@dataclass(frozen=True)
class Options:
    """Options of every benchmark.

    Raises:
        ConfigError: If a number is out of range, or what is to be written cannot be: before anything is measured.
    """

    json: Path | None = None
    """File for everything that was measured."""
    plot: Path | None = None
    """Picture to write; the ending decides the format."""
    progress: bool = True
    """Draw progress bars."""

    def __post_init__(self) -> None:
        check_ranges(self, "--")
        for path in (self.json, self.plot):
            check_writable(path)
        if self.plot is not None and self.plot.suffix.lower() not in FORMATS:
            endings = [ending.removeprefix(".") for ending in FORMATS]
            raise ConfigError(unknown_name("kind of picture", self.plot.suffix.removeprefix("."), endings))

    @property
    def most_threads(self) -> int:
        """The largest number of threads that is used."""
        raise NotImplementedError

    @property
    def title(self) -> str:
        """What is measured, in a line."""
        raise NotImplementedError

    def check_given(self, *names: str) -> None:
        """Raises ConfigError if a field that holds numbers has none."""
        for name in names:
            if not getattr(self, name):
                raise ConfigError(f"--{name} needs a number")

    def check_pairs(self, pairs: Sequence[int], widths: Sequence[int]) -> None:
        """Raises an error in one line if neurons cannot share their inputs in such groups."""
        self.check_given("pairs")
        for number in pairs:
            check_pairs(number, "--pairs")
            for width in widths:
                if width % number:
                    closest = nearest_multiple(width, number)
                    raise ConfigError(f"--widths {width} has no groups of --pairs {number}; the closest is {closest}")

    def check_once(self, *names: str) -> None:
        """Raises ConfigError if an option of several numbers has one twice."""
        for name in names:
            values = getattr(self, name)
            twice = next((value for value in values if values.count(value) > 1), None)
            if twice is not None:
                raise ConfigError(f"--{name} has {twice:g} twice")

    def check_names(self, kind: str, given: Sequence[str], valid: Sequence[str]) -> None:
        """Raises ConfigError if there is no name, or one that is not valid."""
        if not given:
            raise ConfigError(f"name at least one {kind}, of {', '.join(valid)}")
        for name in given:
            if name not in valid:
                raise ConfigError(unknown_name(kind, name, valid))


@dataclass(frozen=True)
class TimedOptions(Options):
    """Options of the benchmarks that take turns in one process."""

    threads: tuple[Workers, ...] = field(default_factory=lambda: tuple(range(1, min(2, len(available_cpus())) + 1)))
    """Numbers of CPU threads."""
    rounds: Repeats = 10
    """Measurements of each contender; medians and quartiles are over them."""
    seed: Seed = 0
    """Root seed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_given("threads")
        self.check_once("threads")
        for threads in self.threads:
            check_threads(threads)

    @property
    def most_threads(self) -> int:
        return max(self.threads)


@dataclass(frozen=True)
class UpdateOptions(TimedOptions):
    """Time gradient updates and env steps: ours against dense TD3 and SAC, masks, and SBX where it is installed.

    Contenders and numbers of threads take turns in one process; every ratio is between neighbours in time. SBX keeps
    all its threads on the CPUs that are left to it, so with fewer threads than CPUs it is somewhat slower than in a
    process that was started on these CPUs.
    """

    quick: bool = False
    """A first answer within half a minute: updates of ds_td3 and td3, 2 x 256, batch 256, one thread, 5 rounds. Options
    that are given as well hold."""
    env: str = "HalfCheetah-v5"
    """Gymnasium id."""
    batches: tuple[Count, ...] = (100, 256)
    """Transitions per gradient update."""
    widths: tuple[Count, ...] = (256, 1024)
    """Neurons of each of the two hidden layers."""
    densities: tuple[PositiveShare, ...] = (1.0, 0.5, 0.2, 0.1, 0.05, 0.01)
    """Densities of our agent."""
    pairs: tuple[Count, ...] = (1,)
    """Numbers of neurons that share their inputs in ours, of 1, 2, 4: each at each density below 1."""
    only: tuple[str, ...] = tuple(name for name, compared in COMPARED.items() if compared.usual)
    """Contenders, of ds_td3, ds_sac (ratios are to sac), td3 (measured where ratios need it), td3_fused, sac,
    masked, sbx_td3; by name alone, with their baselines: ds_redq, sac_10 (10 critics; ratios are to sac), ds_tqc,
    ds_crossq, ds_simba (--widths of their critics; actors are 2 x 256 and one block of 128, sac_256 is 2 x 256), simba
    (dense), sbx_crossq, sbx_simba, ds_ppo, ds_a2c, ds_recurrent_ppo and, with an --env of discrete actions, ds_dqn."""
    what: tuple[str, ...] = WHAT
    """What to measure, of update (gradient updates alone; where an agent learns from rollouts, those of one `train` on
    the same full rollout), steps (env steps with the updates that belong to them), act (`predict` on one observation),
    event (topology events of ds_td3)."""
    chunk_s: Seconds = 0.15
    """Seconds of one measurement; at least one call."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_given("batches", "widths", "densities")
        self.check_names("contender", self.only, tuple(COMPARED))
        self.check_names("measurement", self.what, WHAT)
        self.check_pairs(self.pairs, self.widths)
        if self.plot is not None and not {"update", "steps"} & set(self.what):
            raise ConfigError("--plot draws update or steps, and --what names neither")
        if self.what == ("event",) and "ds_td3" not in self.only:
            raise ConfigError(f"--what event is of ds_td3, and --only names {_listed(self.only)}; add ds_td3")
        if self.what == ("event",) and min(self.densities) == 1.0:
            raise ConfigError("--what event is of sparse layers, and --densities names none below 1")

    @property
    def title(self) -> str:
        agents = f"{_listed(with_baselines(self.only))} on {self.env}"
        sizes = f"two hidden layers of {_listed(self.widths)}, batch {_listed(self.batches)}"
        quick = "quick: " if self.quick else ""
        effort = f"{_listed(self.threads)} thread(s), {quick}{self.rounds} rounds"
        return f"{_listed(self.what)} of {agents}, densities {_listed(self.densities)} of ours, {sizes}, {effort}"


@dataclass(frozen=True)
class KernelOptions(TimedOptions):
    """Time the products of a square sparse layer against the best dense product of the same shape, in float32.

    FLOPs are 2 a connection (dense: a weight) and sample; the crossover is the density at which both take as long.
    """

    batches: tuple[Count, ...] = (100, 256)
    """Samples."""
    widths: tuple[Count, ...] = (256, 1024)
    """Inputs, and as many outputs."""
    densities: tuple[PositiveShare, ...] = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
    """Densities of the layer."""
    pairs: tuple[Count, ...] = (1,)
    """Numbers of neurons that share their inputs, of 1, 2, 4: each at each density."""
    chunk_s: Seconds = 0.02
    """Seconds of one measurement; at least one product."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_given("batches", "widths", "densities")
        self.check_pairs(self.pairs, self.widths)

    @property
    def title(self) -> str:
        sizes = f"layers of width {_listed(self.widths)}, batch {_listed(self.batches)}"
        effort = f"{_listed(self.threads)} thread(s), {self.rounds} rounds"
        return f"three products of {sizes}, densities {_listed(self.densities)}, {effort}"


@dataclass(frozen=True)
class ScaleOptions(TimedOptions):
    """Time and peak memory of a gradient update against the number of connections, 10 a hidden neuron.

    Networks have 17 observations and 6 actions, as HalfCheetah-v5; nothing is simulated.
    """

    nnz: tuple[Count, ...] = (100_000, 316_228, 1_000_000, 3_162_278, 10_000_000)
    """Connections of actor and critics together."""
    batch: Count = 100
    """Transitions per gradient update."""
    rounds: Repeats = 5
    """Pairs of windows of 4 updates, one with a topology event and one without."""

    def __post_init__(self) -> None:
        super().__post_init__()
        least = 10 * HIDDEN_LAYERS * CONNECTIONS_A_NEURON
        if not self.nnz or min(self.nnz) < least:
            raise ConfigError(f"--nnz needs numbers of at least {least}, got {list(self.nnz)}")
        if not STATUS.exists():
            raise ConfigError(f"bench scale reads memory from {STATUS}, which this platform does not have")

    @property
    def title(self) -> str:
        sizes = _listed(f"{nnz:,}" for nnz in self.nnz)
        return f"updates of {sizes} connections, batch {self.batch}, {_listed(self.threads)} thread(s)"


@dataclass(frozen=True)
class RunSettings:
    """What all runs of a folder of `bench return` have in common."""

    env: str = "HalfCheetah-v5"
    """Gymnasium id."""
    threads: Workers = field(default_factory=lambda: min(2, len(available_cpus())))
    """CPU threads of each run."""
    returns: tuple[Number, ...] = (3000.0, 5000.0, 7000.0)
    """Returns to pass by the mean of three consecutive evaluations; a run ends when it has passed the highest."""
    limit_s: Positive = 7200.0
    """Seconds of training after which a run ends that has not passed all of them."""
    max_steps: Count = 1_000_000
    """Env steps after which it ends; schedules of the topology are those of a run of that length."""
    eval_every: Count = 5_000
    """Env steps between evaluations."""
    episodes: Repeats = 3
    """Episodes of an evaluation: the same ones each time, without exploration, on environments of their own."""
    learning_starts: CountOrZero | None = None
    """Env steps with random actions before the first update of every contender; None: those of its own settings."""


@dataclass(frozen=True)
class ReturnOptions(RunSettings, Options):
    """Time until the mean of three consecutive evaluations passes a return, for each contender; one process a run.

    Seconds are those of training: importing, compiling and evaluating is apart. Each finished run is a file in the
    folder, so that the same command goes on where it was stopped; a run that was stopped halfway begins anew.
    """

    folder: Path = Path("runs/bench-return")
    """Folder of the finished runs, made if it is not there."""
    only: tuple[str, ...] = tuple(RETURN_SUMMARIES)
    """Contenders, of td3, sac, sbx_td3, sbx_crossq, ds_td3, ds_sac, ds_crossq."""
    densities: tuple[PositiveShare, ...] = (0.5, 0.1, 0.05)
    """Densities of ours."""
    pairs: tuple[Count, ...] = (1,)
    """Numbers of neurons that share their inputs in ours, of 1, 2, 4: each at each density below 1."""
    seeds: tuple[Seed, ...] = (0, 1, 2)
    """A run of each contender for each of them."""
    x: Literal["seconds", "cpu", "steps"] = "seconds"
    """What --plot draws over: seconds of training, those of cpu alone (other work on the machine counts less), or steps
    of the env."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_given("returns", "densities", "seeds")
        if self.x != "seconds" and self.plot is None:
            raise ConfigError(f"--x {self.x} has no effect without --plot")
        self.check_names("contender", self.only, tuple(RETURN_SUMMARIES))
        check_threads(self.threads)
        self.check_pairs(self.pairs, ())
        self.check_once("returns", "densities", "pairs", "seeds")
        object.__setattr__(self, "returns", tuple(sorted(self.returns)))
        if EVALUATIONS * self.eval_every > self.max_steps:
            raise ConfigError(
                f"--max-steps {self.max_steps} leaves no time for {EVALUATIONS} evaluations, one every --eval-every "
                f"{self.eval_every}"
            )
        check_folder(self.folder)

    @property
    def settings(self) -> RunSettings:
        """What its runs have in common."""
        return RunSettings(**{one.name: getattr(self, one.name) for one in fields(RunSettings)})

    @property
    def most_threads(self) -> int:
        return self.threads

    @property
    def title(self) -> str:
        goals = _listed(f"{goal:g}" for goal in self.returns)
        agents = f"{_listed(dict.fromkeys(self.only))}, densities {_listed(self.densities)} of ours"
        effort = f"{self.threads} thread(s), seeds {_listed(self.seeds)}"
        return f"seconds to a return of {goals} on {self.env}: {agents}, {effort}, at most {self.limit_s:g} s a run"


def _listed(values: Iterable[object]) -> str:
    """Values as they are said in a line.

    Example:
        >>> _listed((0.5, 0.1))
        '0.5, 0.1'
    """
    return ", ".join(map(str, values))
