"""What Stable-Baselines3's parts of an env step give, and what ours give: the same bits, calls and draws."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.noise import ActionNoise, NormalActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize
from support.envs import FunctionEnv

from sparserl.agents import DSSAC, DSTD3
from sparserl.agents.collection import LeanVecEnv
from sparserl.agents.replay.buffer import replay_options

LOCALS = (
    *("self", "env", "callback", "train_freq", "replay_buffer", "action_noise", "learning_starts", "log_interval"),
    *("num_collected_steps", "num_collected_episodes", "continue_training", "actions", "buffer_actions", "new_obs"),
    *("rewards", "dones", "infos"),
)
"""What callbacks see in Stable-Baselines3's loop, from its first step on."""
BUFFER = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts", "pos", "full")
COUNTERS = ("num_timesteps", "_n_updates", "_episode_num", "_current_progress_remaining", "_last_episode_starts")


class Episodes(FunctionEnv):
    """Episodes that end by a time limit or, every third one, by themselves; with a success, and an info that nests.

    With `reuse`, each step gives the same array and the same dict, changed.
    """

    def __init__(self, reuse: bool = False, spaces: Callable[[gym.Space[Any]], gym.Space[Any]] = lambda space: space):
        super().__init__(horizon=9)
        self.action_space = gym.spaces.Box(np.float32([-2.0, 0.5]), np.float32([3.0, 0.7]))
        self.observation_space = spaces(self.observation_space)
        self.reuse, self.count = reuse, 0
        self.given: dict[str, Any] = {"nested": {"steps": []}}

    def _observation(self, state: np.ndarray) -> Any:
        return {"own": state, "more": state[:1]} if isinstance(self.observation_space, gym.spaces.Dict) else state

    def reset(self, **kwargs: Any) -> Any:
        self.count += 1
        kept = self.state
        state, info = super().reset(**kwargs)
        if self.reuse:
            kept[:] = state
            self.state = kept
        return self._observation(self.state if self.reuse else state), info

    def step(self, action: np.ndarray) -> Any:
        before = self.state
        state, reward, _, truncated, _ = super().step(action)
        if self.reuse:
            before[:] = state
            self.state = before
        terminated = self.count % 3 == 0 and self.elapsed == 5
        info: dict[str, Any] = {"x": np.float64(state[0]), "elapsed": self.elapsed}
        if self.elapsed % 2:
            self.given["nested"]["steps"].append(self.elapsed)
            info = info | self.given
        if terminated or truncated:
            info["is_success"] = terminated
        if self.reuse:
            self.given |= info
            info = self.given
        return self._observation(self.state if self.reuse else state), reward, terminated, truncated, info


def frozen(value: Any) -> Any:
    """What a value is now, as something to compare; wall time left out."""
    if isinstance(value, np.ndarray | np.generic):
        return type(value).__name__, str(value.dtype), value.shape, value.tobytes()
    if isinstance(value, dict):
        return type(value).__name__, [(key, frozen(part)) for key, part in value.items() if key != "t"]
    if isinstance(value, list | tuple):
        return type(value).__name__, [frozen(part) for part in value]
    return value if isinstance(value, bool | int | float | str | type(None)) else type(value).__name__


class Watch(BaseCallback):
    """Notes each call, what it sees, and in the end what has become of that; stops the run at a step."""

    def __init__(self, stop_at: int | None = None):
        super().__init__()
        self.stop_at = stop_at
        self.calls: list[Any] = []
        self.kept: list[Any] = []

    def _note(self, name: str) -> None:
        agent: Any = self.model
        seen = {key: value for key, value in self.locals.items() if key not in ("self", "env", "callback")}
        about = [agent.num_timesteps, agent._last_obs, agent._last_original_obs, agent._episode_num]
        self.calls.append((name, sorted(self.locals), frozen(seen), frozen(about)))

    def _on_training_start(self) -> None:
        self._note("training start")

    def _on_rollout_start(self) -> None:
        self._note("rollout start")

    def _on_step(self) -> bool:
        assert set(LOCALS) <= set(self.locals)
        assert self.locals["env"] is self.model.env
        self._note("step")
        self.kept.append([self.locals[name] for name in ("new_obs", "rewards", "dones", "infos", "actions")])
        return self.num_timesteps != self.stop_at

    def _on_rollout_end(self) -> None:
        self._note("rollout end")

    def _on_training_end(self) -> None:
        self._note("training end")


class Kept(KVWriter):
    def __init__(self) -> None:
        self.logged: list[Any] = []

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, Any], step: int = 0) -> None:
        values = {key: value for key, value in key_values.items() if key not in ("time/fps", "time/time_elapsed")}
        self.logged.append((step, values))


@dataclass
class Case:
    """An agent and what it trains on."""

    kind: type[Any] = DSTD3
    env: Callable[[type[DummyVecEnv]], Any] = lambda _: Episodes()
    noise: Callable[[], ActionNoise | None] = lambda: NormalActionNoise(np.zeros(2), np.array([0.1, 0.4]))
    policy: str = "MlpPolicy"
    stop_at: int | None = None
    options: dict[str, Any] = field(default_factory=dict)


def many(kind: type[DummyVecEnv]) -> VecEnv:
    return kind([Episodes, Episodes])


def parts(space: gym.Space[Any]) -> gym.Space[Any]:
    return gym.spaces.Dict({"own": space, "more": gym.spaces.Box(-np.inf, np.inf, (1,), np.float64)})


CASES = {
    "noise": Case(),
    "no noise, four steps": Case(noise=lambda: None, options={"train_freq": (4, "step")}),
    "episodes": Case(options={"train_freq": (1, "episode"), "gradient_steps": 2}),
    "mean of noise": Case(noise=lambda: NormalActionNoise(np.array([0.1, 0.0]), np.array([0.1, 0.4]))),
    "float32 noise": Case(noise=lambda: NormalActionNoise(np.zeros(2, np.float32), np.full(2, 0.3, np.float32))),
    "float64 noise": Case(noise=lambda: NormalActionNoise(np.zeros(2), np.full(2, 0.3), np.float64)),  # type: ignore[arg-type]
    "correlated noise": Case(noise=lambda: OrnsteinUhlenbeckActionNoise(np.zeros(2), np.full(2, 0.3))),
    "stopped": Case(stop_at=33),
    "stopped in a rollout": Case(stop_at=34, options={"train_freq": (4, "step")}),
    "SAC": Case(DSSAC, noise=lambda: None),
    "SAC with noise, episodes": Case(DSSAC, options={"train_freq": (2, "episode")}),
    "n steps": Case(DSSAC, options={"n_steps": 3}),
    "adaptive buffer": Case(options=replay_options(gamma=0.99, n_steps=3, n_steps_delay=20)),
    "no time limits": Case(options={"replay_buffer_kwargs": {"handle_timeout_termination": False}}),
    "small buffer": Case(options={"buffer_size": 30}),
    "memory": Case(
        options={
            "optimize_memory_usage": True,
            "replay_buffer_kwargs": {"handle_timeout_termination": False},
        }
    ),
    "reused arrays": Case(env=lambda _: Episodes(reuse=True)),
    "two environments": Case(env=many),
    "normalized": Case(env=lambda kind: VecNormalize(kind([Episodes]))),
    "parts": Case(env=lambda _: Episodes(spaces=parts), policy="MultiInputPolicy"),
}


def learned(case: Case, monkeypatch: pytest.MonkeyPatch, *, theirs: bool) -> dict[str, Any]:
    """What there is after `learn`, with the parts of Stable-Baselines3 or ours."""
    body: dict[str, Any] = {}
    if theirs:
        body = {name: getattr(OffPolicyAlgorithm, name) for name in ("_sample_action", "_store_transition")}
        body["_wrap_env"] = staticmethod(OffPolicyAlgorithm._wrap_env)
    with monkeypatch.context() as patch:
        if theirs:
            patch.setattr("sparserl.agents.replay.buffer.add_transition", ReplayBuffer.add)
        kind = type("Agent", (case.kind,), body)
        agent: Any = kind(
            case.policy,
            case.env(DummyVecEnv if theirs else LeanVecEnv),
            topology={"method": "static", "density": 0.5},
            policy_kwargs={"net_arch": [8, 8]},
            **{"learning_starts": 10, "batch_size": 16, "buffer_size": 1000, "train_freq": 1} | case.options,
            action_noise=case.noise(),
            seed=3,
        )
        assert type(agent.env.unwrapped) is (DummyVecEnv if theirs else LeanVecEnv)
        writer, watch = Kept(), Watch(case.stop_at)
        agent.set_logger(Logger(None, [writer]))
        agent.learn(45, callback=watch, log_interval=1)
        agent.learn(10, callback=watch, log_interval=2, reset_num_timesteps=False)
    inner = agent.env.unwrapped
    return {
        "calls": watch.calls,
        "kept": frozen(watch.kept),
        "logged": writer.logged,
        "buffer": {name: frozen(getattr(agent.replay_buffer, name, None)) for name in BUFFER},
        "parameters": [frozen(tensor.numpy()) for tensor in agent.policy.state_dict().values()],
        "counters": [frozen(getattr(agent, name)) for name in COUNTERS],
        "episodes": frozen([list(agent.ep_info_buffer), list(agent.ep_success_buffer)]),
        "observations": frozen([agent._last_obs, agent._last_original_obs]),
        "env": frozen([inner.buf_rews, inner.buf_dones, list(inner.buf_infos), inner.reset_infos, inner.actions]),
        "generators": [torch.get_rng_state().tolist(), frozen(np.random.get_state()), random.getstate()],
        "wrapped": type(agent.env).__name__ if agent.env is not inner else None,
    }


@pytest.mark.parametrize("name", CASES)
def test_learn_equals_stable_baselines3s_to_the_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = (learned(CASES[name], monkeypatch, theirs=theirs) for theirs in (True, False))
    assert len(theirs["calls"]) > 40
    assert theirs["logged"]  # at the ends of episodes
    assert ours["calls"] == theirs["calls"]
    for what, value in theirs.items():
        assert ours[what] == value, what


def test_a_vec_env_that_is_given_stays_as_it_is() -> None:
    env = DummyVecEnv([Episodes])
    agent = DSTD3("MlpPolicy", env, policy_kwargs={"net_arch": [8]})
    assert agent.env is env
    assert type(env) is DummyVecEnv


def test_seams_that_a_subclass_overrides_are_called() -> None:
    called: list[str] = []

    class Own(DSTD3):
        def _sample_action(self, *args: Any, **kwargs: Any) -> Any:
            called.append("sample")
            return super()._sample_action(*args, **kwargs)

        def _store_transition(self, *args: Any, **kwargs: Any) -> None:
            called.append("store")
            super()._store_transition(*args, **kwargs)

    agent = Own("MlpPolicy", Episodes(), policy_kwargs={"net_arch": [8]}, learning_starts=2, gradient_steps=0)
    assert agent.replay_buffer is not None
    agent.replay_buffer.add = lambda *args, **kwargs: called.append("add")  # type: ignore[method-assign]
    agent.learn(3)
    assert called == ["sample", "store", "add"] * 3
