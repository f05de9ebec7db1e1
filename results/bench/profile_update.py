"""Where the time of a gradient update goes: `python results/bench/profile_update.py [density] [batch] [width]`.

Times calls in place while the agent trains, which costs about 2 us a call; a part that contains others is marked.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from typing import Any

import gymnasium as gym
import torch

from sparserl.agents import DSTD3, sparse_off_policy
from sparserl.kernels import cpu

UPDATES = 1000


def watch(owner: Any, name: str, label: str, spent: dict[str, list[float]]) -> None:
    """Replaces an attribute by one that notes how long each call takes."""
    inner = getattr(owner, name)

    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        result = inner(*args, **kwargs)
        spent[label].append(time.perf_counter() - start)
        return result

    setattr(owner, name, timed)


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
    spent: dict[str, list[float]] = defaultdict(list)
    watch(cpu, "forward_serial", "products, forward (kernel)", spent)
    watch(cpu, "backward_serial", "products, backward (kernel)", spent)
    watch(sparse_off_policy, "sample", "replay sample", spent)
    watch(agent, "_critic_loss", "critic loss and its derivative", spent)
    watch(agent, "_targets", "= TD targets: noise, target networks", spent)
    watch(agent.actor.optimizer, "step", "Adam, actor", spent)
    watch(agent.critic.optimizer, "step", "Adam, critics", spent)
    watch(agent, "_sync_targets", "target averaging and trimming", spent)
    watch(agent, "_update_actor", "= actor update", spent)
    watch(agent, "_update_critics", "= critic update", spent)
    agent.train(50, batch)
    spent.clear()
    start = time.perf_counter()
    agent.train(UPDATES, batch)
    total = (time.perf_counter() - start) / UPDATES
    parts = {label: sum(times) / UPDATES for label, times in spent.items()}
    parts["everything else (Python around the kernels)"] = total - sum(
        seconds for label, seconds in parts.items() if not label.startswith("=")
    )
    print(f"density {density}, batch {batch}, 2 x {width}, 1 thread: {1e6 * total:.0f} us an update")
    for label, seconds in sorted(parts.items(), key=lambda part: -part[1]):
        print(f"{1e6 * seconds:8.0f} us {seconds / total:6.1%}  {label}")


if __name__ == "__main__":
    main(*(kind(word) for kind, word in zip((float, int, int), sys.argv[1:], strict=False)))
