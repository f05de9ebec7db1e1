"""Collecting transitions as Stable-Baselines3 does, to the bit, with less work around an env step.

Its loop, `collect_rollouts`, runs as it is; here stand only the parts that it calls and that copied more than needed.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.noise import ActionNoise, NormalActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sparserl.agents.replay.buffer import AdaptiveReplayBuffer, add_transition

_UNCHANGEABLE = frozenset({bool, int, float, str, type(None), np.bool_, np.int64, np.float32, np.float64})
"""Types of the values of an info of which no copy is needed."""
_ADDS = {
    ReplayBuffer: add_transition,
    NStepReplayBuffer: add_transition,
    AdaptiveReplayBuffer: AdaptiveReplayBuffer.add,
}
"""Replay buffer -> what adds to it and copies all that it is given."""


class LeanVecEnv(DummyVecEnv):
    """A `DummyVecEnv` that copies what it gives in a fraction of the time; environments are stepped as there."""

    def step_wait(self) -> Any:
        for index, (env, action) in enumerate(zip(self.envs, self.actions, strict=True)):
            obs, reward, terminated, truncated, info = env.step(action)
            done = terminated or truncated
            info["TimeLimit.truncated"] = truncated and not terminated
            if done:
                info["terminal_observation"] = obs
                obs, self.reset_infos[index] = env.reset()
            self.buf_rews[index], self.buf_dones[index], self.buf_infos[index] = reward, done, info
            self._save_obs(index, obs)
        infos = self.buf_infos
        copied = [info.copy() for info in infos] if all(map(_is_flat, infos)) else deepcopy(infos)
        return self._obs_from_buf(), self.buf_rews.copy(), self.buf_dones.copy(), copied

    def _obs_from_buf(self) -> Any:
        alone = self.buf_obs.get(None)  # type: ignore[call-overload]  # its key where the space has no parts
        return super()._obs_from_buf() if alone is None else alone.copy()


def _is_flat(info: dict[str, Any]) -> bool:
    """Whether a shallow copy of an info is a deep one."""
    if type(info) is not dict:
        return False
    return _UNCHANGEABLE.issuperset(map(type, info.values())) and _UNCHANGEABLE.issuperset(map(type, info))


class CollectionMixin(OffPolicyAlgorithm):
    """Gives an off-policy agent of Stable-Baselines3 cheaper env steps, with the same seams to override.

    Transitions, callbacks, logs and draws from the global generators are those of Stable-Baselines3. A `VecEnv` that
    the agent is given stays as it is.

    Attributes:
        explorer: Acts in place of uniformly random actions before learning starts, if not None: observations as the
            agent sees them -> actions in the environment's units; not saved.
    """

    explorer: Callable[[Any], np.ndarray] | None = None

    @staticmethod
    def _wrap_env(env: Any, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        wrapped = OffPolicyAlgorithm._wrap_env(env, verbose, monitor_wrapper)
        if not isinstance(env, VecEnv):  # so the DummyVecEnv was made a moment ago, and is not shared
            wrapped.unwrapped.__class__ = LeanVecEnv
        return wrapped

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        observe = getattr(self.policy, "observe", None)
        if observe is not None:
            observe(self._last_obs)
        if self.explorer is not None and self.num_timesteps < learning_starts:
            actions = self.explorer(self._last_obs)
            if not isinstance(self.action_space, spaces.Box):
                return actions, actions
            scaled = self.policy.scale_action(actions)
            return self.policy.unscale_action(scaled), scaled
        if type(action_noise) is NormalActionNoise:
            action_noise = _NormalDraw(action_noise)
        return super()._sample_action(learning_starts, action_noise, n_envs)

    def _store_transition(
        self,
        replay_buffer: ReplayBuffer,
        buffer_action: np.ndarray,
        new_obs: np.ndarray | dict[str, np.ndarray],
        reward: np.ndarray,
        dones: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        add = None if "add" in vars(replay_buffer) else _ADDS.get(type(replay_buffer))
        # Where an episode ends, the next observation is another one than `new_obs`.
        if add is None or self._vec_normalize_env is not None or True in dones.tolist():
            super()._store_transition(replay_buffer, buffer_action, new_obs, reward, dones, infos)
            return
        self._last_original_obs = self._last_obs
        add(replay_buffer, self._last_obs, new_obs, buffer_action, reward, dones, infos)  # type: ignore[arg-type]  # arrays
        self._last_obs = new_obs


class _NormalDraw(ActionNoise):
    """Draws what a `NormalActionNoise` draws, from the same generator, in a fraction of the time."""

    def __init__(self, noise: NormalActionNoise):
        self._noise = noise

    def __call__(self) -> np.ndarray:
        mean, std = self._noise._mu, self._noise._sigma
        plain = all(type(part) is np.ndarray and part.dtype == np.float64 and part.ndim == 1 for part in (mean, std))
        # With another mean the last bit could be that of a fused multiplication and addition.
        if not plain or mean.shape != std.shape or any(mean.tolist()) or not min(std.tolist(), default=0) >= 0:
            return self._noise()
        return (mean + std * np.random.standard_normal(std.shape)).astype(self._noise._dtype)
