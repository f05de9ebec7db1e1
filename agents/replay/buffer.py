"""The replay buffer with options: delayed multi-step returns, a capacity that follows the policy, fresh noise features.

Decides which stored transitions a batch may hold and what they look like when they are drawn. Independent of which
agent learns from them, and which environment they come from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from sparserl.agents.vectors import is_vector
from sparserl.errors import CheckpointError, ConfigError
from sparserl.seeding import stream

FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]
IntArray: TypeAlias = npt.NDArray[np.int64]
NoiseDraw: TypeAlias = Callable[[np.random.Generator, int], FloatArray]
NoiseSource: TypeAlias = tuple[Callable[[], IntArray], NoiseDraw]
"""Where noise features stand, and how they are drawn; see `AdaptiveReplayBuffer.redraw_from`."""


@dataclass(frozen=True)
class DynamicCapacity:
    """When old transitions are forgotten: if the policy would by now act differently.

    Attributes:
        interval_steps: Env steps between two looks.
        threshold: Distance between the policy then and now above which transitions are forgotten: half the mean squared
            difference of actions in [-1, 1], so at most 2.
        minimum: Transitions; with so many or fewer none is forgotten.
        compared: Transitions that are compared, the oldest ones. In the paper's code, 8 batches.
        fraction: Of all transitions, the share that one look forgets, the oldest ones.

    Raises:
        ConfigError: If a number is out of range.

    Source:
        Tan et al. 2023 (RLx2), dynamic-capacity buffer, as its code does it; defaults are those of its TD3. With its
        SAC the minimum is 200,000. The paper forgets until the distance is small, its code once per look.
    """

    interval_steps: int = 10_000
    threshold: float = 0.2
    minimum: int = 100_000
    compared: int = 2048
    fraction: float = 0.1

    def __post_init__(self) -> None:
        for name in ("interval_steps", "compared"):
            if getattr(self, name) < 1:
                raise ConfigError(f"agent.forget_{name} must be at least 1, got {getattr(self, name)}")
        for name in ("threshold", "minimum"):
            if not getattr(self, name) >= 0:  # NaN is not
                raise ConfigError(f"agent.forget_{name} must not be negative, got {getattr(self, name)}")
        if not 0.0 < self.fraction < 1.0:
            raise ConfigError(f"agent.forget_fraction must be in (0, 1), got {self.fraction}")


class AdaptiveReplayBuffer(NStepReplayBuffer):
    """A replay buffer whose options decide what of its content is drawn, and how it looks then.

    Each `sample` counts as one gradient update, so it serves every agent of Stable-Baselines3, dense ones too. With no
    option on, it draws what `ReplayBuffer` draws, from the same global generator.

    Args:
        args: As `ReplayBuffer`.
        n_steps: Rewards that a target sums, at least 1. Fewer are summed where an episode ends, by itself or by a time
            limit (where the bootstrap stays), and at the newest transition.
        n_steps_delay: The first gradient update that sums `n_steps` rewards; earlier ones take one step.
        gamma: Discount of one step.
        capacity: When transitions are forgotten; needs `ForgetStale` in `learn`. None keeps all.
        redraw_seed: Root seed of fresh noise; needs `redraw_from`. None gives noise features as they were observed.
        kwargs: As `ReplayBuffer`.

    Raises:
        ConfigError: If a number is out of range, observations are of a Dict space, actions are not vectors although
            `capacity` compares them, or noise is redrawn for several environments or in other observations than vectors
            of floats.

    Source:
        Tan et al. 2023 (RLx2), delayed multi-step targets and dynamic-capacity buffer; Grooten et al. 2023 (ANF),
        noise that is drawn anew at every use.

    Known differences:
        - RLx2 never starts a sum at the newest `n_steps - 1` transitions; here, as in Stable-Baselines3, it is shorter.
        - RLx2's SAC adds the entropy of each step of a sum; here, as in Stable-Baselines3, only that of the bootstrap.
        - In ANF's code each pass of each network draws noise of its own. Here a transition has one draw in its
          observation and another in its next observation, which all networks of that update see.
        - In ANF's code a new order of the features applies to old transitions as well. Here they stay as observed, and
          fresh noise goes where the noise stood then.
        - A reset that no `done` announces (`learn` called again) does not end a sum, as in Stable-Baselines3.
    """

    policy_actions: npt.NDArray[np.float32]
    """What the policy wanted, without exploration, in [-1, 1]: (rows, envs, width)."""
    noise_orders: IntArray
    """Which row of `noise_positions` a transition was observed under: (rows,)."""

    def __init__(
        self,
        *args: Any,
        n_steps: int = 1,
        n_steps_delay: int = 0,
        gamma: float = 0.99,
        capacity: DynamicCapacity | None = None,
        redraw_seed: int | None = None,
        **kwargs: Any,
    ):
        check_n_steps(n_steps, n_steps_delay)
        observations = kwargs["observation_space"] if "observation_space" in kwargs else args[1]
        _check_observations(observations, redraws=redraw_seed is not None)
        actions = kwargs["action_space"] if "action_space" in kwargs else args[2]
        if capacity is not None and not isinstance(actions, spaces.Box):
            raise ConfigError(
                f"agent.dynamic_capacity compares actions that are vectors, not of {actions}: leave it out, as only "
                "agents of continuous actions (ds_td3, ds_sac) can have it"
            )
        super().__init__(*args, n_steps=n_steps, gamma=gamma, **kwargs)
        self.n_steps_delay, self.capacity = n_steps_delay, capacity
        self.updates = 0  # batches drawn so far
        self.forgotten = 0  # rows, the oldest ones, that are still stored and no longer drawn
        self.own_arrays: tuple[str, ...] = ()
        if capacity is not None:
            self.own_arrays += ("policy_actions",)
            self.policy_actions = np.zeros((self.buffer_size, self.n_envs, self.action_dim), np.float32)
        self._noted: npt.NDArray[np.float32] | None = None
        self._noise: NoiseSource | None = None
        self._generator: np.random.Generator | None = None
        self.noise_positions: IntArray = np.empty((0, 0), np.int64)  # (orders, noise features): where each stood
        if redraw_seed is not None:
            if self.n_envs > 1:
                raise ConfigError(f"noise features are redrawn for one environment, not {self.n_envs}")
            self.own_arrays += ("noise_orders",)
            self.noise_orders = np.zeros(self.buffer_size, np.int64)
            self._generator = stream(redraw_seed, "agents", "replay", "redrawn_noise")

    # Which transitions there are.

    def size(self) -> int:
        """Rows that can be drawn, each of one transition per environment."""
        return super().size() - self.forgotten

    def reset(self) -> None:
        """Empties the buffer."""
        super().reset()
        self.forgotten = 0

    def add(
        self,
        obs: np.ndarray,
        next_obs: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        if self.capacity is not None:
            if self._noted is None:
                raise ConfigError("a replay buffer of dynamic capacity needs the callback ForgetStale in `learn`")
            self.policy_actions[self.pos], self._noted = self._noted, None
        # Environments are reset before their last transition is stored, and a reset may bring a new order.
        ended = bool(np.any(done))
        if self._generator is not None:
            if not ended:
                self._note_order()
            self.noise_orders[self.pos] = len(self.noise_positions) - 1
        if self.full:  # the oldest row is overwritten
            self.forgotten = max(0, self.forgotten - 1)
        add_transition(self, obs, next_obs, action, reward, done, infos)
        if self._generator is not None and ended:
            self._note_order()

    def note_policy_actions(self, actions: npt.NDArray[np.float32]) -> None:
        """Says what the policy wants, without exploration, at the transition that is added next.

        Args:
            actions: (envs, width) in [-1, 1].
        """
        self._noted = actions

    def forget_stale(self, actions_of: Callable[[np.ndarray], FloatArray]) -> float | None:
        """Forgets the oldest transitions if the policy would by now act differently on them.

        Args:
            actions_of: What the policy wants now: observations as they are stored, (count, ...) -> actions without
                exploration, (count, width) in [-1, 1].

        Returns:
            The distance between the policy then and now; None where there are too few transitions to forget any.
        """
        if self.capacity is None or self.size() * self.n_envs <= self.capacity.minimum:
            return None
        count = min(self.size(), -(-self.capacity.compared // self.n_envs))
        rows = (self._oldest + np.arange(count)) % self.buffer_size
        then = self.policy_actions[rows].reshape(-1, self.action_dim)
        shape = self.observation_space.shape
        assert shape is not None
        now = actions_of(self.observations[rows].reshape(len(then), *shape))
        distance = float(np.square(now - then).mean()) / 2
        if distance > self.capacity.threshold:
            self.forgotten += int(self.capacity.fraction * self.size())
        return distance

    @property
    def _oldest(self) -> int:
        """The oldest row that can be drawn."""
        return (self.forgotten + (self.pos if self.full else 0)) % self.buffer_size

    # What a batch looks like.

    @property
    def steps_ahead(self) -> int:
        """How many rewards the next batch sums, where the episode is long enough."""
        return self.n_steps if self.updates + 1 >= self.n_steps_delay else 1

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> ReplayBufferSamples:
        """Draws the batch of one gradient update."""
        if self._generator is not None and env is not None:
            raise ConfigError("noise features cannot be redrawn under VecNormalize; normalise in the environment")
        kind = ReplayBuffer if self.steps_ahead == 1 else NStepReplayBuffer
        rows = self.draw_rows(batch_size)
        drawn = kind._get_samples(self, rows, env)
        self.redraw_noise(rows, drawn.observations, drawn.next_observations)
        return drawn

    def draw_rows(self, count: int) -> IntArray:
        """Draws where the transitions of one gradient update lie, uniform over all that are not forgotten."""
        self.updates += 1
        rows: IntArray = np.random.randint(0, self.size(), size=count)
        return (rows + self._oldest) % self.buffer_size if self.forgotten else rows

    @property
    def redraws(self) -> bool:
        """Whether noise features of drawn transitions are overwritten."""
        return self._generator is not None

    def redraw_from(self, origins: Callable[[], IntArray], draw: NoiseDraw) -> None:
        """Says what the noise features are; needed once, before the first transition, if they are redrawn.

        Args:
            origins: Of the features of an observation, at the moment of the call, int64, shape (features,): -1 - k is
                the k-th noise feature, any other is a real one.
            draw: (generator, count) -> values of the noise features of `count` observations, (count, noise features),
                column k of the k-th.

        Raises:
            ConfigError: If there are no noise features, or `origins` is of another number of features.
        """
        if self._generator is None:
            raise ConfigError("this replay buffer redraws no noise; give it a redraw_seed")
        self._noise = origins, draw
        self._note_order()

    def redraw_noise(self, rows: IntArray, observations: torch.Tensor, next_observations: torch.Tensor) -> None:
        """Overwrites the noise features of drawn transitions, in place, if this buffer does so.

        Args:
            rows: (B,) where they lie.
            observations: (B, features).
            next_observations: Likewise; they get a draw of their own.
        """
        if self._generator is None:
            return
        _, draw = self._noise_source
        positions = torch.from_numpy(self.noise_positions[self.noise_orders[rows]]).to(observations.device)
        for target in (observations, next_observations):
            target.scatter_(1, positions, torch.from_numpy(draw(self._generator, len(rows))).to(target))

    @property
    def _noise_source(self) -> NoiseSource:
        if self._noise is None:
            raise ConfigError("a replay buffer that redraws noise must be told its source by `redraw_from`")
        return self._noise

    def _note_order(self) -> None:
        origins, _ = self._noise_source
        positions = _positions(origins(), self.obs_shape)
        if not len(self.noise_positions) or not np.array_equal(positions, self.noise_positions[-1]):
            self.noise_positions = np.vstack([*self.noise_positions, positions])

    # Its state, beside the transitions.

    def state_dict(self) -> dict[str, Any]:
        """What the next batches depend on beside the stored transitions and NumPy's global generator."""
        generator = None if self._generator is None else self._generator.bit_generator.state
        return {
            "updates": self.updates,
            "forgotten": self.forgotten,
            "generator": generator,
            "noise_places": self.noise_positions,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state of `state_dict`.

        Raises:
            CheckpointError: If only one of the two redraws noise.
        """
        if (state["generator"] is None) != (self._generator is None):
            raise CheckpointError("the checkpoint's replay buffer differs in whether it redraws noise features")
        self.updates, self.forgotten = int(state["updates"]), int(state["forgotten"])
        self.noise_positions = np.asarray(state["noise_places"], np.int64)
        if self._generator is not None:
            self._generator.bit_generator.state = state["generator"]

    def __getstate__(self) -> dict[str, Any]:
        # The source of noise is part of an environment; a copy of that would no longer change with the real one.
        return {**self.__dict__, "_noise": None}


def add_transition(
    buffer: ReplayBuffer,
    obs: np.ndarray,
    next_obs: np.ndarray,
    action: np.ndarray,
    reward: np.ndarray,
    done: np.ndarray,
    infos: list[dict[str, Any]],
) -> None:
    """As `ReplayBuffer.add`, which copies every array twice."""
    if buffer.optimize_memory_usage or isinstance(buffer.observation_space, spaces.Discrete):
        ReplayBuffer.add(buffer, obs, next_obs, action, reward, done, infos)
        return
    row = buffer.pos
    buffer.observations[row], buffer.next_observations[row] = obs, next_obs
    buffer.actions[row] = action.reshape(buffer.n_envs, buffer.action_dim)
    buffer.rewards[row], buffer.dones[row] = reward, done
    if buffer.handle_timeout_termination:
        buffer.timeouts[row] = [info.get("TimeLimit.truncated", False) for info in infos]
    buffer.pos = (row + 1) % buffer.buffer_size
    buffer.full |= buffer.pos == 0


def check_n_steps(n_steps: int, delay: int) -> None:
    """Raises ConfigError unless these are the steps of a return and the update where they begin."""
    if n_steps < 1:
        raise ConfigError(f"agent.n_steps must be at least 1, got {n_steps}")
    if delay < 0:
        raise ConfigError(f"agent.n_steps_delay must not be negative, got {delay}")
    if delay > 0 and n_steps == 1:
        raise ConfigError(f"agent.n_steps_delay {delay} needs agent.n_steps above 1")


def _check_observations(space: spaces.Space[Any], *, redraws: bool) -> None:
    if isinstance(space, spaces.Dict):
        raise ConfigError(
            "an AdaptiveReplayBuffer holds no Dict observations; use DictReplayBuffer, without its options"
        )
    if redraws and not is_vector(space):
        raise ConfigError(f"noise features are redrawn in vectors of floats, not in {space}")


def _positions(origins: IntArray, shape: tuple[int, ...]) -> IntArray:
    """Where the noise features stand in an observation, the k-th at entry k."""
    if origins.shape != shape:
        raise ConfigError(f"features of shape {origins.shape} do not fit observations of shape {shape}")
    noise = np.flatnonzero(origins < 0)
    if noise.size == 0:
        raise ConfigError("there are no noise features to redraw")
    return noise[np.argsort(-origins[noise])]


def replay_options(
    *,
    gamma: float,
    n_steps: int = 1,
    n_steps_delay: int = 0,
    capacity: DynamicCapacity | None = None,
    redraw_seed: int | None = None,
) -> dict[str, Any]:
    """Arguments of an off-policy agent's constructor: none for the plain buffer, the fastest.

    Args:
        gamma: As `AdaptiveReplayBuffer`, like the rest.
        n_steps: Likewise.
        n_steps_delay: Likewise.
        capacity: Likewise.
        redraw_seed: Likewise.

    Raises:
        ConfigError: If a number is out of range.
    """
    check_n_steps(n_steps, n_steps_delay)
    options = {"capacity": capacity, "redraw_seed": redraw_seed}
    if n_steps == 1 and set(options.values()) == {None}:
        return {}
    returns = {"n_steps": n_steps, "n_steps_delay": n_steps_delay, "gamma": gamma}
    return {"replay_buffer_class": AdaptiveReplayBuffer, "replay_buffer_kwargs": returns | options}
