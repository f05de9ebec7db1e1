"""`bench update`: time of a gradient update, an env step and an action, our agent beside dense and masked ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from tqdm import tqdm

from sparserl.bench.compared import OURS
from sparserl.bench.contenders import (
    RECIPES,
    Entry,
    entries,
    env_for,
    give_replay,
    give_rollouts,
    installed,
    make,
    ours,
    random_replay,
)
from sparserl.bench.crossover import crossover
from sparserl.bench.event import SCHEDULE, time_events
from sparserl.bench.options import Record, UpdateOptions
from sparserl.bench.threads import CAN_BIND, limit_threads
from sparserl.bench.timing import Contender, Timing, measure, speed_up, spread
from sparserl.envs import make_env
from sparserl.kernels import compile_kernels

STEPS_A_CALL = 2
"""Env steps in a repetition where there are no rollouts: one period of the delayed policy update."""
EVENT_METHODS = ("set", "ds_td3")
UNITS: dict[str, tuple[str, Callable[[float], float]]] = {
    "update": ("ms an update", lambda seconds: 1e3 * seconds),
    "steps": ("env steps a second", lambda seconds: 1 / seconds),
    "act": ("us an action", lambda seconds: 1e6 * seconds),
}


def measure_update(options: UpdateOptions) -> Record:
    """Runs the benchmark.

    Raises:
        ConfigError: If the env is unknown or not for a contender.
    """
    replay = random_replay(env_for(options.only, options.env), options.seed)
    compared, notes = entries(options.only, options.densities, options.pairs)
    if not CAN_BIND and any(entry.is_jax for entry in compared):
        notes.append("sbx: this platform cannot bind threads to CPUs, so JAX used as many as it liked")
    if options.quick:
        notes.append(f"quick: {options.rounds} rounds; without --quick the grid is larger, and there are more rounds")
    for note in notes:
        print(note, flush=True)
    start = time.perf_counter()
    compile_kernels(lambda message: print(message, flush=True))
    compile_s = time.perf_counter() - start
    configurations = [
        configuration for width in options.widths for configuration in _of_width(width, compared, replay, options)
    ]
    return {
        "notes": notes,
        "quick": options.quick,
        "rounds": options.rounds,
        "compile_s": compile_s,
        "installed": installed(),
        "baseline": compared[0].baseline.baseline.name,
        "configurations": configurations,
    }


def _of_width(width: int, compared: Sequence[Entry], replay: ReplayBuffer, options: UpdateOptions) -> list[Record]:
    """One record for each batch size; its agents live no longer than that."""
    configurations = []
    for batch in options.batches:
        agents = {
            entry: make(entry, env_for((entry.name,), options.env), width, options.seed, batch) for entry in compared
        }
        for agent in agents.values():
            if isinstance(agent, OffPolicyAlgorithm):
                give_replay(agent, replay)
        give_rollouts(agents)
        rows = {(entry, threads): _row(entry, threads) for entry in compared for threads in options.threads}
        for what in UNITS:
            if what in options.what:
                _measure(what, agents, batch, width, options, rows)
        configuration: Record = {"width": width, "batch": batch, "rows": list(rows.values())}
        configuration["crossovers"] = _crossovers(configuration["rows"]) if "update" in options.what else []
        if "event" in options.what and "ds_td3" in options.only:
            configuration["events"] = _events(batch, width, options, replay)
        configurations.append(configuration)
    return configurations


def _row(entry: Entry, threads: int) -> Record:
    return {"contender": entry.name, "density": entry.density, "pairs": entry.pairs, "threads": threads}


def _crossovers(rows: Sequence[Record]) -> list[Record]:
    """At which density updates of ours take as long as those of their dense baseline, by agent, pairs and threads."""
    crossovers = []
    of_ours = [row for row in rows if row["contender"] in OURS]
    sparse = [row for row in of_ours if row["density"] < 1.0] or of_ours  # dense ones belong to each number of pairs
    for name, pairs, threads in dict.fromkeys((row["contender"], row["pairs"], row["threads"]) for row in sparse):
        group = [row for row in of_ours if (row["contender"], row["threads"]) == (name, threads)]
        group = [row for row in group if row["pairs"] == pairs or row["density"] == 1.0]
        medians = [row["update"]["speed_up"]["median"] for row in group]
        at = {"contender": name, "baseline": Entry(name, 1.0).baseline.name, "pairs": pairs, "threads": threads}
        crossovers.append({**at, **crossover([row["density"] for row in group], medians)})
    return crossovers


def _measure(
    what: str,
    agents: dict[Entry, BaseAlgorithm],
    batch: int,
    width: int,
    options: UpdateOptions,
    rows: dict[tuple[Entry, int], Record],
) -> None:
    """Adds to each row what was measured, and its ratios."""
    contenders = {
        (entry, threads): Contender(
            _work(what, entry, agents[entry]),
            _units(what, entry, agents[entry]),
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
        after_round=partial(_say_round, options.rounds) if options.quick else None,
    )
    fewest = min(options.threads)
    for (entry, threads), timing in timings.items():
        rows[entry, threads][what] = {
            **_numbers(what, timing),
            "speed_up": spread(speed_up(timing, timings[entry.baseline, threads])),
            "speed_up_by_threads": spread(speed_up(timing, timings[entry, fewest])),
        }


def _say_round(rounds: int, timings: Mapping[tuple[Entry, int], Timing]) -> None:
    """A line for each round of a quick benchmark: the ratios of this one."""
    number = max(len(timing.seconds) for timing in timings.values())
    ratios = []
    for (entry, threads), timing in timings.items():
        if entry != entry.baseline:
            ratio = speed_up(timing, timings[entry.baseline, threads])[-1]
            ratios.append(f"{ratio:.2f} ({entry.label})")
    tqdm.write(f"round {number} of {rounds}, times faster than dense: {', '.join(ratios)}")


def _units(what: str, entry: Entry, agent: BaseAlgorithm) -> int:
    """Units of work in a repetition of `_work`."""
    steps = getattr(agent, "n_steps", 0) if isinstance(agent, OnPolicyAlgorithm) else STEPS_A_CALL
    return {"update": RECIPES[entry.name].updates_a_call, "steps": steps, "act": 1}[what]


def _work(what: str, entry: Entry, agent: Any) -> Callable[[int], None]:
    def update(n: int) -> None:
        for _ in range(n):
            agent.train(**of_replay)

    def steps(n: int) -> None:
        agent.learn(_units("steps", entry, agent) * n, reset_num_timesteps=False, log_interval=None)

    def act(n: int) -> None:
        for _ in range(n):
            agent.predict(observation)

    of_replay = {}
    if isinstance(agent, OffPolicyAlgorithm):
        of_replay = {"gradient_steps": _units("update", entry, agent), "batch_size": agent.batch_size}
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
    sparse = [entry for entry in ours("ds_td3", options.densities, options.pairs) if entry.density < 1.0]
    for method in EVENT_METHODS:
        for entry in sparse:
            agent = make(entry, make_env(options.env), width, options.seed, method=method, **SCHEDULE)
            give_replay(agent, replay)
            at = {"method": method, "density": entry.density, "pairs": entry.pairs}
            for threads, timing in time_events(agent, batch, options.threads, rounds).items():
                rows.append({**at, "threads": threads, **timing.summary()})
    return rows
