"""Where the time of a gradient update goes: `python results/bench/profile_update.py [density] [batch] [width]`.

Steps of compiled code are timed one by one while the agent trains, which costs about 5 us each and keeps them from
running in one call; the update itself is timed without that. What is left of it is Python around the one call.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict

import gymnasium as gym
import torch

from sparserl.agents import DSTD3
from sparserl.kernels import formulas, tiles, updates
from sparserl.kernels.deferred import Formula
from sparserl.kernels.program import Call, StepFunction

UPDATES = 1000


def step_names() -> dict[int, str]:
    """What a step is called, by the address of its code."""
    found = {}
    for module in (tiles, updates, formulas):
        for name, value in vars(module).items():
            function = value.function if isinstance(value, Formula) else value
            if isinstance(function, StepFunction):
                found |= dict.fromkeys(function.addresses.values(), name.removesuffix("_step"))
    return found


def main(density: float = 0.1, batch: int = 256, width: int = 256) -> None:
    torch.set_num_threads(1)
    agent = DSTD3(
        "MlpPolicy",
        gym.make("HalfCheetah-v5"),
        topology={"method": "ds_td3", "density": density},
        policy_kwargs={"net_arch": [width, width]},
        learning_starts=1000,
        buffer_size=5000,
        seed=0,
    )
    agent.learn(1100)
    agent.train(50, batch)
    start = time.thread_time()
    agent.train(UPDATES, batch)
    total = (time.thread_time() - start) / UPDATES
    spent: dict[str, float] = defaultdict(float)
    names, run = step_names(), Call.__call__

    def timed(call: Call) -> None:
        for step in call.steps:
            alone = Call(list(step.row), [step])
            start = time.thread_time()
            run(alone)
            spent[names[step.row[0]]] += time.thread_time() - start

    Call.__call__ = timed
    agent.train(UPDATES, batch)
    parts = {name: seconds / UPDATES for name, seconds in spent.items()}
    parts["everything else (Python around the call)"] = total - sum(parts.values())
    print(f"density {density}, batch {batch}, 2 x {width}, 1 thread: {1e6 * total:.0f} us an update (thread CPU time)")
    for label, seconds in sorted(parts.items(), key=lambda part: -part[1]):
        print(f"{1e6 * seconds:8.0f} us {seconds / total:6.1%}  {label}")


if __name__ == "__main__":
    main(*(kind(word) for kind, word in zip((float, int, int), sys.argv[1:], strict=False)))
