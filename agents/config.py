"""Hyper-parameters of the agents as plain data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Literal

from stable_baselines3.common.callbacks import BaseCallback

from sparserl.agents.replay.buffer import DynamicCapacity, check_n_steps, replay_options
from sparserl.agents.replay.forget_stale import ForgetStale
from sparserl.agents.run_length import rollout_size
from sparserl.errors import ConfigError
from sparserl.layers.residual import block_widths
from sparserl.ranges import (
    Count,
    CountOrZero,
    NotNegative,
    Positive,
    PositiveShare,
    Range,
    Repeats,
    check_ranges,
    check_wait,
)

OF_BATCHES = "batches (--agent.batch-size)"
"""What takes memory as batches grow."""


SCHEDULES: dict[str, Callable[[float], float]] = {
    "linear": lambda left: left,
    "cosine": lambda left: 0.5 * (1.0 - math.cos(math.pi * left)),
}
"""Schedule of a learning rate -> share of it, by the share of the run that is left."""


@dataclass(frozen=True)
class RateSchedule:
    """A learning rate that falls to 0 at the end of a run.

    Example:
        >>> [RateSchedule(0.4, "linear")(left) for left in (1.0, 0.5, -0.1)]
        [0.4, 0.2, 0.0]
    """

    rate: float
    kind: str

    def __call__(self, left: float) -> float:
        return self.rate * SCHEDULES[self.kind](max(0.0, left))  # the last rollout may go beyond the end


@dataclass(frozen=True)
class RunSizes:
    """What decides, beside the options of an agent, how much memory it takes.

    Attributes:
        n_obs: Features of an observation.
        item_bytes: Of each.
        n_action: Entries of an action.
        n_envs: Environments that it learns in.
        steps: Env steps that it learns from, 0 for an agent that only acts; None if not known.
    """

    n_obs: int
    item_bytes: int
    n_action: int
    n_envs: int
    steps: int | None


@dataclass(frozen=True)
class AgentConfig:
    """Hyper-parameters that every agent has, under Stable-Baselines3's names; and what a run asks of all of them.

    Raises:
        ConfigError: If a number is out of range.
    """

    ours_alone: ClassVar[tuple[str, ...]] = ()
    """Options that Stable-Baselines3's dense agents have not."""
    of_policy: ClassVar[tuple[str, ...]] = ()
    """Those of them that say what networks are, and are no arguments of the agent."""
    of_networks: ClassVar[tuple[str, ...]] = ("net_arch",)
    """Options that make other networks, which those of another run do not fit."""
    learning_rate: Positive = 3e-4
    """Of Adam, for all networks."""
    learning_rate_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate goes from that down to 0 at the end of the run: not at all, along a line, or along half a
    cosine. Also --lr-schedule."""
    weight_decay: NotNegative = 0.0
    """Coupled L2 of Adam, on weights and biases."""
    gamma: PositiveShare = 0.99
    """Discount."""
    net_arch: tuple[Count, ...] = (256, 256)
    """Hidden widths of each network."""

    def __post_init__(self) -> None:
        check_ranges(self, "agent.", hyphens=False)
        if not self.net_arch:
            raise ConfigError(f"agent.net_arch needs at least one hidden width >= 1, got {list(self.net_arch)}")

    def _check_has_effect(self, names: tuple[str, ...], works: bool, needed: str) -> None:
        """Raises ConfigError if one of some options is not at its default although nothing reads it."""
        usual = {field.name: field.default for field in fields(self)}
        for name in names:
            value = getattr(self, name)
            if not works and value != usual[name]:
                raise ConfigError(f"agent.{name} {value} has no effect: it needs {needed}")

    @property
    def random_steps(self) -> int:
        """Env steps before the first gradient update."""
        return 0

    @property
    def rate(self) -> float | RateSchedule:
        """The learning rate as Stable-Baselines3 takes it: a number, or a function of the share of the run to come."""
        if self.learning_rate_schedule == "constant":
            return self.learning_rate
        return RateSchedule(self.learning_rate, self.learning_rate_schedule)

    @property
    def schedules(self) -> tuple[str, ...]:
        """Options by which something changes that depends on the length of the run."""
        return () if self.learning_rate_schedule == "constant" else ("learning_rate_schedule",)

    def rollout(self, n_envs: int) -> tuple[int, int]:
        """Env steps of a rollout in `n_envs` environments together, and gradient updates after it."""
        raise NotImplementedError

    def check_envs(self, n_envs: int, *, has_noise_features: bool) -> None:
        """Raises ConfigError if an option does not work with the environments of a run.

        Args:
            n_envs: Environments that it learns in.
            has_noise_features: Whether observations have some.
        """

    def check_updates(self, updates: int) -> None:
        """Raises ConfigError if something would first happen after the gradient updates of a run."""
        check_wait("agent.policy_delay", getattr(self, "policy_delay", None), updates, "gradient updates")

    def check_tasks(self) -> None:
        """Raises ConfigError if an option does not work where tasks follow each other."""

    @property
    def own(self) -> dict[str, Any]:
        """Those of `ours_alone` that are not as Stable-Baselines3's agents have them."""
        usual = {field.name: field.default for field in fields(self)}
        given = {name: getattr(self, name) for name in self.ours_alone}
        return {name: value for name, value in given.items() if value != usual[name]}

    def check_dense(self, algo: str, twin: str) -> None:
        """Raises ConfigError if an option does not work with dense networks of Stable-Baselines3.

        Args:
            algo: Name of the dense agent.
            twin: Name of its sparse one.
        """
        for name, value in self.own.items():
            raise ConfigError(
                f"agent.{name} {value} is not for {algo}, which is Stable-Baselines3's: dense networks have it with "
                f"--algo {twin} --topology.method dense"
            )

    def arguments(self, action_shape: tuple[int, ...], *, seed: int, acts_only: bool) -> dict[str, Any]:
        """What the agent's constructor takes.

        Args:
            action_shape: Of the environment's actions.
            seed: Root seed.
            acts_only: Whether it will never learn from what it meets.
        """
        raise NotImplementedError

    def memory(self, sizes: RunSizes) -> dict[str, float]:
        """Bytes that an agent takes beside its networks, estimated; by what takes them and the option for it."""
        del sizes
        return {}

    def connect(self, agent: Any, feature_origins: Callable[[], Any], draw_noise: Callable[[], Any]) -> None:
        """Lets an agent read from the wrappers of its environment what an option needs.

        Args:
            agent: Built from this config.
            feature_origins: As in `AdaptiveReplayBuffer.redraw_from`.
            draw_noise: Gives what that takes; called where there are noise features.
        """

    def callbacks(self) -> list[BaseCallback]:
        """What `learn` calls for these options."""
        return []


@dataclass(frozen=True)
class OffPolicyConfig(AgentConfig):
    """Hyper-parameters of agents that learn from a replay buffer.

    Raises:
        ConfigError: If a number is out of range.
    """

    batch_size: Count = 256
    """Transitions per gradient update."""
    buffer_size: Count = 1_000_000
    """Transitions that the replay buffer holds."""
    learning_starts: CountOrZero = 25_000
    """Env steps with random actions before the first gradient update."""
    train_freq: Repeats = 1
    """Env steps, in each environment, between two rounds of gradient updates."""
    gradient_steps: Annotated[int, Range("[-1, 1e6]")] = 1
    """Gradient updates of a round; -1 for as many as transitions came since the last one."""
    tau: PositiveShare = 0.005
    """Polyak factor of the target networks; 1 copies them."""
    n_steps: Repeats = 1
    """Rewards that a target sums before it bootstraps (multi-step targets)."""
    n_steps_delay: CountOrZero = 0
    """The first gradient update whose targets do so; earlier ones take one step (RLx2: 300,000, then 3 steps)."""
    decoupled_weight_decay: bool = False
    """Take the weight decay as AdamW does: a share of weights and biases at each step, times the learning rate, past
    gradients and moments."""
    network: Literal["mlp", "simba"] = "mlp"
    """Kind of network: `net_arch` hidden layers, or residual blocks with layer normalisation that read normalised
    observations (SimBa)."""
    of_policy: ClassVar[tuple[str, ...]] = ("network",)
    of_networks: ClassVar[tuple[str, ...]] = ("net_arch", *of_policy)
    replay: Literal["stored", "redraw_noise"] = "stored"
    """Draw transitions as they were stored, or with fresh noise in the features that `wrappers.noise-fraction` appends
    (as in the ANF paper)."""
    dynamic_capacity: bool = False
    """Forget the oldest 10 % of the transitions when the policy has moved away from them (RLx2)."""
    forget_interval_steps: Count = 10_000
    """Env steps between two looks at that."""
    forget_threshold: NotNegative = 0.2
    """Half the mean squared difference of the actions, then and now, from which on transitions are forgotten."""
    forget_minimum: CountOrZero = 100_000
    """Transitions that are never forgotten (RLx2: 100,000 with TD3, 200,000 with SAC)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gradient_steps == 0:
            raise ConfigError("agent.gradient_steps must be at least 1, or -1 for one update per transition, got 0")
        check_n_steps(self.n_steps, self.n_steps_delay)
        self._check_has_effect(("decoupled_weight_decay",), self.weight_decay > 0, "agent.weight_decay above 0")
        self._check_has_effect(self.of_policy[1:], self.network == "simba", "agent.network simba")
        self._check_has_effect(("net_arch",), self.network == "mlp", "agent.network mlp; simba has widths and blocks")
        of_capacity = ("forget_interval_steps", "forget_threshold", "forget_minimum")
        self._check_has_effect(of_capacity, self.dynamic_capacity, "agent.dynamic_capacity")
        if self.capacity is not None and self.forget_minimum >= self.buffer_size:
            raise ConfigError(
                f"agent.forget_minimum {self.forget_minimum} must be below agent.buffer_size {self.buffer_size}, "
                "or nothing is ever forgotten"
            )

    def blocks(self, name: str) -> list[int]:
        """Widths of the residual blocks of a network whose options are `name`_width and `name`_blocks."""
        width, count = getattr(self, f"{name}_width"), getattr(self, f"{name}_blocks")
        return [width] * count

    def hidden(self, name: str) -> list[int]:
        """Hidden widths of a network; those of simba have options as in `blocks`."""
        if self.network == "mlp":
            return list(self.net_arch)
        widths = self.blocks(name)
        return block_widths(0, widths[0], len(widths), 0)[1:-1]

    def _blocks_arch(self) -> Any:
        """`net_arch` of a policy whose networks have residual blocks."""
        raise NotImplementedError

    def _kept_neurons(self) -> int:
        """Neurons of all passes of an update whose values are kept for the way back."""
        raise NotImplementedError

    @property
    def capacity(self) -> DynamicCapacity | None:
        """When transitions are forgotten; None for never."""
        if not self.dynamic_capacity:
            return None
        return DynamicCapacity(
            interval_steps=self.forget_interval_steps,
            threshold=self.forget_threshold,
            minimum=self.forget_minimum,
            compared=8 * self.batch_size,
        )

    @property
    def random_steps(self) -> int:
        return self.learning_starts

    def rollout(self, n_envs: int) -> tuple[int, int]:
        return rollout_size(self.train_freq, self.gradient_steps, n_envs)

    def check_envs(self, n_envs: int, *, has_noise_features: bool) -> None:
        redraws = self.replay == "redraw_noise"
        if redraws and not has_noise_features:
            raise ConfigError("--agent.replay redraw_noise needs noise features: set --wrappers.noise-fraction")
        if n_envs == 1:
            return
        held = self.buffer_size // n_envs * n_envs
        problem = None
        if redraws:
            problem = "--agent.replay redraw_noise is for one environment"
        elif held == 0:
            problem = f"--agent.buffer-size {self.buffer_size} holds no transition of each environment"
        elif self.dynamic_capacity and held <= self.forget_minimum:
            problem = (
                f"--agent.forget-minimum {self.forget_minimum} must be below the {held} transitions that a buffer of "
                f"--agent.buffer-size {self.buffer_size} holds of them"
            )
        if problem is not None:
            raise ConfigError(f"{problem}, got --n-envs {n_envs}")

    def check_tasks(self) -> None:
        changing = {
            "--agent.replay redraw_noise": self.replay == "redraw_noise",
            "--agent.dynamic-capacity": self.dynamic_capacity,
            "--agent.n-steps above 1": self.n_steps > 1,
            f"--agent.network {self.network}": self.network != "mlp",
        }
        for option, is_on in changing.items():
            if is_on:
                raise ConfigError(f"{option} is for `sparserl train`: it would change from task to task")
        if self.learning_rate_schedule != "constant":
            raise ConfigError("--agent.learning-rate-schedule is for `sparserl train`: tasks would learn ever less")
        for name in ("train_freq", "gradient_steps"):
            given = getattr(self, name)
            if given != 1:
                option = f"--agent.{name.replace('_', '-')} {given}"
                raise ConfigError(f"{option} is for `sparserl train`: tasks take one update per env step, leave it 1")

    def arguments(self, action_shape: tuple[int, ...], *, seed: int, acts_only: bool) -> dict[str, Any]:
        own = ("batch_size", "gamma", "tau", "learning_starts", "train_freq", "gradient_steps")
        of_replay = replay_options(
            gamma=self.gamma,
            n_steps=self.n_steps,
            n_steps_delay=self.n_steps_delay,
            capacity=self.capacity,
            redraw_seed=seed if self.replay == "redraw_noise" else None,
        )
        return {
            **{name: getattr(self, name) for name in own},
            "learning_rate": self.rate,
            **{name: value for name, value in self.own.items() if name not in self.of_policy},
            **({"buffer_size": 1} if acts_only else {"buffer_size": self.buffer_size, **of_replay}),
            "policy_kwargs": {
                **(
                    {"net_arch": list(self.net_arch)}
                    if self.network == "mlp"
                    else {"network": self.network, "net_arch": self._blocks_arch()}
                ),
                "optimizer_kwargs": {
                    "weight_decay": self.weight_decay,
                    **({"decoupled_weight_decay": True} if self.decoupled_weight_decay else {}),
                },
            },
        }

    def memory(self, sizes: RunSizes) -> dict[str, float]:
        transitions = self.buffer_size if sizes.steps is None else min(self.buffer_size, sizes.steps)
        of_replay = transitions * (2 * sizes.item_bytes * sizes.n_obs + 4 * sizes.n_action + 12)
        of_batches = 4.0 * self.batch_size * (2 * sizes.n_obs + self._kept_neurons())
        return {"the replay buffer (--agent.buffer-size)": of_replay, OF_BATCHES: of_batches}

    def connect(self, agent: Any, feature_origins: Callable[[], Any], draw_noise: Callable[[], Any]) -> None:
        if self.replay == "redraw_noise":
            agent.replay_buffer.redraw_from(feature_origins, draw_noise())

    def callbacks(self) -> list[BaseCallback]:
        return [ForgetStale()] if self.dynamic_capacity else []
