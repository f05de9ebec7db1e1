"""Dense SAC, as Stable-Baselines3 has it but for one counter."""

from __future__ import annotations

import stable_baselines3


class SAC(stable_baselines3.SAC):
    """Stable-Baselines3's `SAC` with `target_update_interval` counted over the whole run.

    There it is counted within one call of `train`, so with one update per env step, as everybody trains, the target
    networks move at every update whatever the interval. With an interval of 1 the two are the same bit for bit.
    """

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """Runs gradient updates; called by `learn`."""
        if self.target_update_interval == 1:
            super().train(gradient_steps, batch_size)
            return
        tau = self.tau
        try:
            for _ in range(gradient_steps):
                due = (self._n_updates + 1) % self.target_update_interval == 0
                self.tau = tau if due else 0.0  # moves the targets by nothing
                super().train(1, batch_size)
        finally:
            self.tau = tau
