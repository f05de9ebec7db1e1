"""What the rest of the library asks of an agent: its networks, their optimizers and targets, and what they read.

Code outside an agent does not depend on how many networks it has, what they are called, which actions it takes, or
whether it has a replay buffer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import nn

from sparserl.agents.config import AgentConfig
from sparserl.agents.critics_config import CriticsConfig
from sparserl.agents.dqn_config import DQNConfig
from sparserl.agents.probe import Places, Probe
from sparserl.agents.vectors import is_vector
from sparserl.errors import CheckpointError, SparserlError
from sparserl.kernels.deferred import computed
from sparserl.kernels.flops import FlopCounter
from sparserl.topology.density import Shape


class AgentParts(BaseAlgorithm):
    """An agent that says what it is made of.

    Attributes:
        flops: Operations of all products of its gradient updates; not saved.
    """

    trained: ClassVar[tuple[str, ...]]
    """Attributes that hold a trained network with an `optimizer`; each is a group of the evolver, and the density of
    its layers is `topology.<name>_density` where there is such an option."""
    targets_of: ClassVar[tuple[str, ...]] = ()
    """Those of them that have a target copy, `<name>_target`."""
    action_spaces: ClassVar[tuple[type[spaces.Space[Any]], ...]] = (spaces.Box,)
    """Kinds of actions that it can choose."""
    scales_actions: ClassVar[bool] = True
    """Whether its networks give actions in [-1, 1], which are scaled to their bounds; others are clipped to these."""
    counters: ClassVar[tuple[str, ...]] = (
        "num_timesteps",
        "_n_updates",
        "_episode_num",
        "_total_timesteps",
        "_current_progress_remaining",
    )
    """Attributes, numbers, that the rest of a run depends on."""
    remembered: ClassVar[tuple[str, ...]] = ()
    """Attributes, tensors, that its next action depends on beside observation and networks."""
    described_by: ClassVar[tuple[str, ...]] = ()
    """Attributes, tensors, that what is said of it between updates depends on beside those, its next action not."""
    evolver: Any = None
    """Clock of its topology; None for a dense agent."""
    replay_buffer: Any = None
    """What it learns from again; None for an agent that forgets."""
    batch_size: int

    def __init__(self, *args: Any, **kwargs: Any):
        self.flops = FlopCounter()
        super().__init__(*args, **kwargs)

    @classmethod
    def layer_widths(cls, config: AgentConfig, n_obs: int, n_action: int) -> dict[str, list[list[int]]]:
        """Widths of each network of each group, the input first, before there is an agent.

        Args:
            config: Hyper-parameters.
            n_obs: Features of an observation.
            n_action: Entries of an action, or actions to choose from.
        """
        raise NotImplementedError

    @classmethod
    def layer_shapes(cls, config: AgentConfig, n_obs: int, n_action: int) -> dict[str, list[list[Shape]]]:
        """(n_out, n_in) of the layers of each network of each group, the output layer last; arguments as above."""
        groups = cls.layer_widths(config, n_obs, n_action)
        return {
            group: [list(zip(widths[1:], widths[:-1], strict=True)) for widths in networks]
            for group, networks in groups.items()
        }

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Trained networks by group."""
        return {name: getattr(self, name) for name in self.trained}

    @property
    def target_copies(self) -> dict[str, nn.Module]:
        """Target networks, by the group that they follow."""
        return {name: getattr(self, f"{name}_target") for name in self.targets_of}

    @property
    def acting(self) -> nn.Module:
        """The network that chooses actions."""
        network: nn.Module = getattr(self, self.trained[0])
        return network

    def optimizer_of(self, group: str) -> torch.optim.Optimizer:
        """The optimizer of a group."""
        optimizer: torch.optim.Optimizer = getattr(self, group).optimizer
        return optimizer

    @property
    def updates(self) -> int:
        """Gradient updates so far."""
        return self._n_updates

    @property
    def updates_per_step(self) -> Mapping[str, int]:
        """Of each group the gradient updates between two steps of its optimizer."""
        return dict.fromkeys(self.trained, 1)

    @property
    def meets_vectors(self) -> bool:
        """Whether observations are vectors of floats."""
        return is_vector(self.observation_space)

    @property
    def reads_vectors(self) -> bool:
        """Whether its networks are sparse and read observations as they are: vectors of floats."""
        return all(getattr(network, "ensembles", None) for network in self.networks.values())

    def begin_schedules(self, steps: int) -> None:
        """Lets all that changes over a run, beside learning rate and topology, do so over the next env steps alone."""

    def take_networks(self, states: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
        """Goes on with other networks than those that were drawn, before the first update.

        Targets become copies of them. Optimizers know nothing of them, and a topology begins with their connections.

        Args:
            states: By group, the state of a network of the same structure.

        Raises:
            CheckpointError: If one is missing or does not fit.
        """
        for group, network in self.networks.items():
            try:
                network.load_state_dict(states[group])
            except (RuntimeError, KeyError, SparserlError) as error:
                # Of torch's lines the first says what was tried, and the second what was wrong.
                said = " ".join(line.strip() for line in str(error).splitlines()[:2]) or type(error).__name__
                raise CheckpointError(f"the networks of {group!r} do not fit this agent: {said}") from None
        for group, target in self.target_copies.items():
            target.load_state_dict(self.networks[group].state_dict())

    def read_by(self, observations: Any, actions: Any) -> dict[str, np.ndarray]:
        """What the networks of each group read of (B, width) observations and actions; arrays or waiting ones."""
        del actions
        return dict.fromkeys(self.trained, computed(observations))

    def _read_at(self, places: tuple[Places, Places]) -> dict[str, torch.Tensor]:
        """What the networks of each group read of transitions of the replay buffer, at rows of environments."""
        observations = self.replay_buffer.observations[places]
        if self._vec_normalize_env is not None:
            observations = self._vec_normalize_env.normalize_obs(observations)
        arrays = (observations, self.replay_buffer.actions[places])
        read = self.read_by(*(array.astype(np.float32).reshape(len(places[0]), -1) for array in arrays))
        return {group: torch.from_numpy(array) for group, array in read.items()}

    def _probe_of_replay(self, places: tuple[Places, Places], form_gradients: Callable[[Places], None]) -> Probe:
        """A probe of transitions of the replay buffer, with gradients where they are stored as networks read them, by
        one environment.

        Args:
            places: As of `_read_at`.
            form_gradients: Forms those of all trained networks on transitions at rows.
        """
        buffer: Any = self.replay_buffer
        alone = buffer.n_envs == 1 and self._vec_normalize_env is None
        return Probe(self._read_at(places), partial(form_gradients, places[0]) if alone else None)

    def probe(self) -> Probe | None:
        """Some env steps that it has met; None if there are none, or none whose observations networks read as vectors.

        Draws from no generator of the agent.
        """
        return None

    def for_an_episode(self) -> Callable[[Any, bool], np.ndarray]:
        """Its policy for one episode, from the beginning; or for as many side by side as observations come together.

        Returns:
            Takes (B, obs) observations, or one, and whether the mode is asked for; gives (B, action), or one.
        """
        state: Any = None

        def act(observations: Any, deterministic: bool) -> np.ndarray:
            nonlocal state
            actions, state = self.predict(observations, state, deterministic=deterministic)
            return actions

        return act

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "flops"]


class ActorCriticParts(AgentParts):
    """An actor, and critics that also read its actions."""

    trained = ("actor", "critic")

    @classmethod
    def layer_widths(cls, config: AgentConfig, n_obs: int, n_action: int) -> dict[str, list[list[int]]]:
        assert isinstance(config, CriticsConfig)
        critic = [n_obs + n_action, *config.hidden("critic"), 1]
        return {"actor": [[n_obs, *config.hidden("actor"), n_action]], "critic": [critic] * config.n_critics}

    def read_by(self, observations: Any, actions: Any) -> dict[str, np.ndarray]:
        return {"actor": computed(observations), "critic": np.concatenate([observations, actions], axis=1)}


class QNetworkParts(AgentParts):
    """One network that gives a value of each action, and a rate of random ones that falls in the run.

    Attributes:
        span_begin: Env step at which the part of the run begins in which it falls.
        span_steps: Env steps of that part; 0 for the whole run.
    """

    trained = ("q_net",)
    targets_of = ("q_net",)
    action_spaces = (spaces.Discrete,)
    counters = (*AgentParts.counters, "_n_calls", "exploration_rate", "span_begin", "span_steps")
    span_begin = span_steps = 0
    exploration_schedule: Callable[[float], float]

    @classmethod
    def layer_widths(cls, config: AgentConfig, n_obs: int, n_action: int) -> dict[str, list[list[int]]]:
        assert isinstance(config, DQNConfig)
        return {"q_net": [[n_obs, *config.hidden("q"), n_action]]}

    def begin_schedules(self, steps: int) -> None:
        self.span_begin, self.span_steps, self._n_calls = self.num_timesteps, steps, 0
        self._current_progress_remaining = 1.0
        self.exploration_rate = self.exploration_schedule(1.0)

    def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
        if self.span_steps:
            num_timesteps, total_timesteps = num_timesteps - self.span_begin, self.span_steps
        super()._update_current_progress_remaining(num_timesteps, total_timesteps)

    def optimizer_of(self, group: str) -> torch.optim.Optimizer:
        del group
        return self.policy.optimizer
