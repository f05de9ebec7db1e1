"""Two checkouts against each other: `python results/bench/compare_checkouts.py OLD NEW [density] [batch] [width]`.

For a machine that others use too. A process for each checkout, which take turns of about 20 ms on one thread; each pair
of updates is timed on its own. The fastest of them are those that nobody disturbed, so beside the median of ratios of
neighbours it prints the ratio of low quantiles.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

ROUNDS = 60
WORKER = """
import sys, time
import gymnasium as gym, torch
from sparserl.agents import DSTD3
density, batch, width = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(1)
agent = DSTD3("MlpPolicy", gym.make("HalfCheetah-v5"), topology={"method": "ds_td3", "density": density},
              policy_kwargs={"net_arch": [width, width]}, learning_starts=1000, buffer_size=50000, seed=0)
agent.learn(1100, log_interval=None)
agent.train(30, batch)
print("ready", flush=True)
for line in sys.stdin:
    agent.train(2, batch)
    seconds = []
    for _ in range(int(line)):
        start = time.thread_time()
        agent.train(2, batch)
        seconds.append((time.thread_time() - start) / 2)
    print(*seconds, flush=True)
"""


def main(old: str, new: str, density: str = "0.1", batch: str = "256", width: str = "256") -> None:
    processes = []
    for checkout in (old, new):
        root = str(Path(checkout).resolve())
        environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", WORKER, density, batch, width]
        pipe = subprocess.PIPE
        processes.append(subprocess.Popen(command, cwd=root, env=environment, stdin=pipe, stdout=pipe, text=True))

    def turn(process: subprocess.Popen[str], pairs: int) -> list[float]:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{pairs}\n")
        process.stdin.flush()
        return [float(word) for word in process.stdout.readline().split()]

    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    pairs = max(2, round(0.01 / np.median(turn(processes[0], 6))))
    seconds = np.zeros((2, ROUNDS, pairs))
    for place in range(ROUNDS):
        for which in (0, 1) if place % 2 else (1, 0):
            seconds[which, place] = turn(processes[which], pairs)
    quantiles = (0, 0.02, 0.1, 0.5)
    before, after = (np.quantile(own, quantiles) for own in seconds)
    print(f"density {density}, batch {batch}, 2 x {width}, 1 thread, load {os.getloadavg()[0]:.1f}")
    for quantile, was, now in zip(quantiles, before, after, strict=True):
        print(f"quantile {quantile:4.0%}: {1e6 * was:8.0f} us -> {1e6 * now:8.0f} us, {was / now:.2f} times faster")
    neighbours = np.median(seconds[0], axis=1) / np.median(seconds[1], axis=1)
    q25, median, q75 = np.percentile(neighbours, [25, 50, 75])
    print(f"medians of neighbouring turns: {median:.2f} [{q25:.2f}, {q75:.2f}] times faster")
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
