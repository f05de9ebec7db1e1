"""`bench update`: time of a gradient update, an env step and an action, our agent beside dense and masked ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata

from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sparserl.bench.contenders import BASELINE, SUMMARIES, Entry, entries, give_replay, make, random_replay
from sparserl.bench.event import SCHEDULE, time_events
from sparserl.bench.options import Options, Record
from sparserl.bench.threads import CAN_BIND, limit_threads
from sparserl.bench.timing import Contender, Timing, measure, speed_up, spread
from sparserl.envs import make_env
from sparserl.errors import ConfigError, unknown_name
from sparserl.ranges import Count, PositiveShare, Seconds

STEPS_A_CALL = 2
"""Env steps in a repetition: one period of the delayed policy update."""
EVENT_METHODS = ("set", "ds_td3")
WHAT = ("update", "steps", "act", "event")
UNITS: dict[str, tuple[str, Callable[[float], float]]] = {
    "update": ("ms an update", lambda seconds: 1e3 * seconds),
    "steps": ("env steps a second", lambda seconds: 1 / seconds),
    "act": ("us an action", lambda seconds: 1e6 * seconds),
}


@dataclass(frozen=True)
class UpdateOptions(Options):
    """Time gradient updates and env steps: ours against dense TD3 and SAC, masks, and SBX where it is installed.

    Contenders and numbers of threads take turns in one process; every ratio is between neighbours in time. SBX keeps
    all its threads on the CPUs that are left to it, so with fewer threads than CPUs it is somewhat slower than in a
    process that was started on these CPUs.
    """

    env: str = "HalfCheetah-v5"
    """Gymnasium id."""
    batches: tuple[Count, ...] = (100, 256)
    """Transitions per gradient update."""
    widths: tuple[Count, ...] = (256, 1024)
    """Neurons of each of the two hidden layers."""
    densities: tuple[PositiveShare, ...] = (1.0, 0.5, 0.2, 0.1, 0.05, 0.01)
    """Densities of our agent."""
    only: tuple[str, ...] = tuple(SUMMARIES)
    """Contenders, of ds_td3, ds_sac (ratios are to sac), td3 (always measured: other ratios need it), td3_fused, sac,
    masked, sbx_td3."""
    what: tuple[str, ...] = WHAT
    """What to measure, of update (gradient updates alone), steps (env steps with an update each), act (`predict` on one
    observation), event (topology events of ours)."""
    chunk_s: Seconds = 0.15
    """Seconds of one measurement; at least one call."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_given("batches", "widths", "densities")
        for kind, given, valid in (("contender", self.only, SUMMARIES), ("measurement", self.what, WHAT)):
            if not given:
                raise ConfigError(f"name at least one {kind}, of {', '.join(valid)}")
            for name in given:
                if name not in valid:
                    raise ConfigError(unknown_name(kind, name, valid))
        if self.plot is not None and not {"update", "steps"} & set(self.what):
            raise ConfigError("--plot draws update or steps, and --what names neither")


def measure_update(options: UpdateOptions) -> Record:
    """Runs the benchmark.

    Raises:
        ConfigError: If the env is unknown or not for continuous control.
    """
    replay = random_replay(make_env(options.env), options.seed)
    compared, notes = entries(options.only, options.densities)
    if not CAN_BIND and any(entry.is_jax for entry in compared):
        notes.append("sbx_td3: this platform cannot bind threads to CPUs, so JAX used as many as it liked")
    for note in notes:
        print(note)
    configurations = [
        configuration for width in options.widths for configuration in _of_width(width, compared, replay, options)
    ]
    installed = {found.name: found.version for found in metadata.distributions() if found.name in ("sbx-rl", "jax")}
    return {"notes": notes, "installed": installed, "baseline": BASELINE, "configurations": configurations}


def _of_width(width: int, compared: Sequence[Entry], replay: ReplayBuffer, options: UpdateOptions) -> list[Record]:
    """One record for each batch size; the agents live no longer than this."""
    agents = {entry: make(entry, make_env(options.env), width, options.seed) for entry in compared}
    for agent in agents.values():
        give_replay(agent, replay)
    configurations = []
    for batch in options.batches:
        rows = {(entry, threads): _row(entry, threads) for entry in compared for threads in options.threads}
        for what in UNITS:
            if what in options.what:
                _measure(what, agents, batch, width, options, rows)
        configuration: Record = {"width": width, "batch": batch, "rows": list(rows.values())}
        if "event" in options.what and "ds_td3" in options.only:
            configuration["events"] = _events(batch, width, options, replay)
        configurations.append(configuration)
    return configurations


def _row(entry: Entry, threads: int) -> Record:
    return {"contender": entry.name, "density": entry.density, "threads": threads}


def _measure(
    what: str,
    agents: dict[Entry, OffPolicyAlgorithm],
    batch: int,
    width: int,
    options: UpdateOptions,
    rows: dict[tuple[Entry, int], Record],
) -> None:
    """Adds to each row what was measured, and its ratios."""
    contenders = {
        (entry, threads): Contender(
            _work(what, entry, agents[entry], batch),
            {"update": entry.updates_a_call, "steps": STEPS_A_CALL, "act": 1}[what],
            partial(limit_threads, threads, bind=entry.is_jax),
        )
        for entry, threads in rows
    }
    timings = measure(
        contenders,
        rounds=options.rounds,
        chunk_s=options.chunk_s,
        title=f"width {width}, batch {batch}, {what}",
        progress=options.progress,
    )
    fewest = min(options.threads)
    for (entry, threads), timing in timings.items():
        rows[entry, threads][what] = {
            **_numbers(what, timing),
            "speed_up": spread(speed_up(timing, timings[entry.baseline, threads])),
            "speed_up_by_threads": spread(speed_up(timing, timings[entry, fewest])),
        }


def _work(what: str, entry: Entry, agent: OffPolicyAlgorithm, batch: int) -> Callable[[int], None]:
    def update(n: int) -> None:
        for _ in range(n):
            agent.train(gradient_steps=entry.updates_a_call, batch_size=batch)

    def steps(n: int) -> None:
        agent.batch_size = batch
        agent.learn(STEPS_A_CALL * n, reset_num_timesteps=False, log_interval=None)  # type: ignore[arg-type]  # SB3 takes None at run time

    def act(n: int) -> None:
        for _ in range(n):
            agent.predict(observation)

    observation = agent.observation_space.sample()
    return {"update": update, "steps": steps, "act": act}[what]


def _numbers(what: str, timing: Timing) -> Record:
    """Of all rounds, in the unit of what was measured."""
    unit, convert = UNITS[what]
    per_round = [convert(seconds) for seconds in timing.seconds]
    effort = {"in_a_chunk": timing.units, "warm_up_s": timing.warm_up_s}
    return {"unit": unit, **spread(per_round), "per_round": per_round, **effort}


def _events(batch: int, width: int, options: UpdateOptions, replay: ReplayBuffer) -> list[Record]:
    rows = []
    rounds = max(1, options.rounds // 2)  # each has two windows, and an event takes long
    for method in EVENT_METHODS:
        for density in options.densities:
            if density == 1.0:
                continue
            entry = Entry("ds_td3", density)
            agent = make(entry, make_env(options.env), width, options.seed, method=method, **SCHEDULE)
            give_replay(agent, replay)
            for threads, timing in time_events(agent, batch, options.threads, rounds).items():
                rows.append({"method": method, "density": density, "threads": threads, **timing.summary()})
    return rows
