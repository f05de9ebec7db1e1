"""`bench scale`: time and memory of a DS-TD3 update as the number of connections grows, up to a million neurons.

Connections and hidden neurons are counted over the three trained networks (actor and two critics), which have two
hidden layers each. Each size has a process of its own, so that its peak of memory is its own.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from stable_baselines3.common.buffers import ReplayBuffer
from tqdm import tqdm

from sparserl.bench.contenders import Entry, give_replay, make, random_replay
from sparserl.bench.event import SCHEDULE, WINDOW, time_events
from sparserl.bench.options import CONNECTIONS_A_NEURON, HIDDEN_LAYERS, Record, ScaleOptions
from sparserl.metrics.cost import connections
from sparserl.recording.resources import resident_bytes

N_OBS, N_ACTION = 17, 6
"""As HalfCheetah-v5 has."""


class NoDynamics(gym.Env[npt.NDArray[np.float32], npt.NDArray[np.float32]]):
    """Random observations, reward 0, no end."""

    def __init__(self) -> None:
        self.observation_space = gym.spaces.Box(-1.0, 1.0, (N_OBS,), np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (N_ACTION,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        """A random observation."""
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(
        self, action: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Another one."""
        return self.observation_space.sample(), 0.0, False, False, {}


def measure_scale(options: ScaleOptions) -> Record:
    """Runs the benchmark; a size whose process dies is recorded as missing."""
    rows: list[Record] = []
    notes = []
    for nnz in tqdm(sorted(options.nnz), leave=False, disable=None if options.progress else True):
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            try:
                rows.append(pool.submit(measure_size, nnz, options).result())
            except BrokenProcessPool:
                notes.append(f"{nnz:,} connections: the process was killed, perhaps for want of memory; no numbers")
                tqdm.write(notes[-1])
    return {"notes": notes, "rows": rows, "slopes": _slopes(rows, options.threads)}


def _slopes(rows: list[Record], numbers_of_threads: Sequence[int]) -> list[Record]:
    if len(rows) < 2:
        return []
    nnz = [row["nnz"] for row in rows]
    updates = {
        threads: [row["timings"][position]["update_ms"]["median"] for row in rows]
        for position, threads in enumerate(numbers_of_threads)
    }
    return [{"threads": threads, "slope": slope(nnz, update_ms)} for threads, update_ms in updates.items()]


def slope(nnz: list[int], update_ms: list[float]) -> float:
    """Least-squares slope of log time over log connections: 1 where time is proportional to them.

    Example:
        >>> round(slope([10, 100, 1000], [5.0, 50.0, 500.0]), 6)
        1.0
    """
    return float(np.polyfit(np.log(nnz), np.log(update_ms), 1)[0])


def width_and_density(nnz: int) -> tuple[int, float]:
    """Hidden width, and density of the layers before the dense output layers, that give `nnz` connections in all."""
    width = round(nnz / (CONNECTIONS_A_NEURON * HIDDEN_LAYERS))
    outputs = width * (N_ACTION + 2)
    inputs = width * (N_OBS + 2 * (N_OBS + N_ACTION))
    return width, (nnz - outputs) / (inputs + 3 * width**2)


def measure_size(nnz: int, options: ScaleOptions) -> Record:
    """Measures one size in this process.

    What is in memory before the agent includes compiled kernels, because a tiny agent has run: the rest is the size's.
    """
    replay = random_replay(NoDynamics(), options.seed)
    tiny = make(Entry("ds_td3", 0.5), NoDynamics(), 16, options.seed, **SCHEDULE)
    give_replay(tiny, replay)
    time_events(tiny, options.batch, options.threads, rounds=1)
    width, density = width_and_density(nnz)
    before = resident_bytes("VmRSS")
    start = time.perf_counter()
    agent = make(Entry("ds_td3", density), NoDynamics(), width, options.seed, **SCHEDULE)
    build_s = time.perf_counter() - start
    give_replay(agent, replay)
    built, built_peak = resident_bytes("VmRSS"), resident_bytes("VmHWM")
    timings = time_events(agent, options.batch, options.threads, options.rounds)
    peak = resident_bytes("VmHWM")
    networks = list(agent.networks.values())
    return {
        "nnz": connections(networks),
        "hidden_neurons": HIDDEN_LAYERS * width,
        "width": width,
        "density": density,
        "build_s": build_s,
        "bytes_before": before,
        "bytes_built": built,
        "bytes_built_peak": built_peak,
        "bytes_peak": peak,
        "bytes_replay": replay_bytes(replay),
        "bytes_peak_without_replay": peak - replay_bytes(replay),
        "updates_a_window": WINDOW,
        "timings": [{"threads": threads, **timing.summary()} for threads, timing in timings.items()],
    }


def replay_bytes(replay: ReplayBuffer) -> int:
    """Memory of a replay buffer's arrays."""
    return sum(array.nbytes for array in vars(replay).values() if isinstance(array, np.ndarray))
