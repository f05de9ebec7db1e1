"""The callback with which a replay buffer of dynamic capacity forgets."""

from __future__ import annotations

from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sparserl.agents.replay.buffer import AdaptiveReplayBuffer, FloatArray
from sparserl.errors import ConfigError


class ForgetStale(BaseCallback):
    """Lets a buffer of dynamic capacity forget: notes what the policy wants, and looks at every interval of env steps.

    For `learn` of any off-policy agent. It draws from no generator, so a run in which nothing is forgotten learns as
    one with a fixed capacity. Costs one more pass of the actor for each env step.

    Source:
        Tan et al. 2023 (RLx2): before warm-up ends the random action itself counts as what the policy wanted.
    """

    model: OffPolicyAlgorithm

    def _init_callback(self) -> None:
        if getattr(self.model.replay_buffer, "capacity", None) is None:
            raise ConfigError("ForgetStale needs a replay buffer of dynamic capacity")

    def _on_rollout_start(self) -> None:
        self._started_at = self.model.num_timesteps

    def _on_step(self) -> bool:
        # Stable-Baselines3 calls this between the env step and the storing of its transition.
        model = self.model
        random = model.num_timesteps - model.n_envs < self.locals["learning_starts"]
        assert model._last_obs is not None
        wanted = self.locals["buffer_actions"] if random else self._actions(model._last_obs)
        self._buffer.note_policy_actions(wanted.reshape(model.n_envs, -1))
        return True

    def _on_rollout_end(self) -> None:
        assert self._buffer.capacity is not None
        interval = self._buffer.capacity.interval_steps
        if self.model.num_timesteps // interval == self._started_at // interval:
            return
        distance = self._buffer.forget_stale(self._actions_on_stored)
        if distance is not None:
            self.logger.record("replay/policy_distance", distance)
        self.logger.record("replay/size", self._buffer.size() * self._buffer.n_envs)

    @property
    def _buffer(self) -> AdaptiveReplayBuffer:
        assert isinstance(self.model.replay_buffer, AdaptiveReplayBuffer)
        return self.model.replay_buffer

    def _actions(self, observations: Any) -> FloatArray:
        wanted = self.model.policy.scale_action(self.model.predict(observations, deterministic=True)[0])
        return wanted.reshape(len(wanted), -1)

    def _actions_on_stored(self, observations: np.ndarray) -> FloatArray:
        env = self.model.get_vec_normalize_env()
        return self._actions(observations if env is None else env.normalize_obs(observations))
