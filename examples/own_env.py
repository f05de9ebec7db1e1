"""An environment of one's own: a cart that is pushed to where it should be.

    python examples/own_env.py [STEPS]

On the command line: sparserl train --env examples.own_env:Cart-v0 --algo ds_td3
"""

import sys

import gymnasium as gym
import numpy as np


class Cart(gym.Env):
    """One dimension: place, speed and goal are seen, a force is chosen, the distance is the cost."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float64)
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.goal = self.np_random.uniform(-1.0, 1.0, 2)
        self.speed = 0.0
        return self._seen(), {}

    def step(self, action):
        self.speed += 0.1 * float(action[0])
        self.place += 0.1 * self.speed
        return self._seen(), -abs(self.place - self.goal), False, False, {}

    def _seen(self):
        return np.array([self.place, self.speed, self.goal])


gym.register("Cart-v0", entry_point=Cart, max_episode_steps=100)

if __name__ == "__main__":
    from sparserl import experiment

    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    wish = {
        "env": "Cart-v0",
        "total_steps": steps,
        "topology": {"density": 0.1},
        "agent": {"learning_starts": min(1_000, steps // 5), "net_arch": [64, 64]},
        "eval": {"every_steps": max(1, steps // 5)},
    }
    run = experiment.run(experiment.resolve("train", wish), "runs/cart")
    print(f"return {run.evaluate(10).return_mean:.1f}, {run.result['params_nonzero']:,} parameters")
