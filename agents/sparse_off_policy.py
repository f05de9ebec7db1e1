"""What every sparse off-policy agent shares: update loop, topology clock, targets, device rule, saving.

An agent that mixes this in writes only its losses and the order of its update.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from functools import partial
from itertools import chain
from typing import Any, Protocol

import numpy as np
import torch
from stable_baselines3.common.utils import get_parameters_by_name

from sparserl.agents.action_bounds import check_action_bounds
from sparserl.agents.collection import CollectionMixin
from sparserl.agents.networks.policies import goals, sparse_layers
from sparserl.agents.parts import AgentParts
from sparserl.agents.replay.batch import FloatArray, TransitionBatch, sample, transitions_at
from sparserl.agents.run_length import updates_of_learn
from sparserl.agents.saved_topology import SavedTopologyMixin
from sparserl.errors import ConfigError, TopologyError
from sparserl.kernels import require_cpu
from sparserl.kernels.deferred import computed
from sparserl.kernels.flops import counting
from sparserl.kernels.program import at_once, deferred, run_waiting
from sparserl.kernels.recording import Repeated, not_again, only_if, relies_on_items
from sparserl.layers.fused_adam import FusedAdam
from sparserl.layers.recycle import Recycler
from sparserl.metrics.connectivity import topology_metrics
from sparserl.topology.config import TopologyConfig
from sparserl.topology.evolver import TopologyEvolver
from sparserl.topology.moments import OptimizerMoments
from sparserl.topology.target import TargetNetwork

Number = Any
"""A float, or an array of one number."""
Loss = tuple[Number, FloatArray]
"""Value of a loss, and its derivative."""
UPDATE = (
    "_update",
    "_targets",
    "_update_critics",
    "_form_critic_gradients",
    "_form_actor_gradients",
    "_step",
    "_step_optimizer",
    "_sync_targets",
    "_update_temperature",
)
"""Methods that an update is made of; where all that an agent has are ours, their steps wait and run in one call."""
WAITS_TO = 1 << 18
"""Trained weights and biases up to which steps wait: beyond, calls cost little, and passes lend each other memory."""


class AroundStep(Protocol):
    """What stands around the optimizer steps of an agent: may change gradients, or put back what must not move."""

    def before_step(self, group: str) -> None:
        """After the gradients of the network `group` are formed, before its optimizer steps."""

    def after_step(self, group: str) -> None:
        """After the step, before a topology event."""


COUNTERS = frozenset(
    {
        "_last_obs",
        "_last_original_obs",
        "_last_episode_starts",
        "_num_timesteps_at_start",
        "start_time",
        "run_updates",
    }
)
"""Attributes of an agent that no update depends on, beside its `counters`, but for turns (`_is_turn`)."""


def _is_ours(method: Any) -> bool:
    """Whether a method is of an agent of this package, not of a subclass or put in its place."""
    return str(getattr(method, "__module__", "")).startswith("sparserl.agents.")


class SparseTopologyMixin(AgentParts, SavedTopologyMixin, CollectionMixin):
    """Gives an off-policy agent of Stable-Baselines3 networks whose topology evolves.

    The agent says what it is made of (`AgentParts`); with a dense policy class nothing evolves and the agent's update
    equals Stable-Baselines3's bit for bit.

    Where the schedule of a topology is a share of the run (pruning, a drop fraction that decays, an end of rewiring),
    the first call of `learn` fixes it, by the gradient updates that `total_timesteps` gives. Further calls, and those
    of a loaded agent, go on with that schedule; once it has ended the connections stay as they are. Code that calls
    `learn` in pieces says how long they are together with `bind_run_length`, or gives `first_update` and `last_update`.

    Args:
        policy: Policy class or alias; `"MlpPolicy"` is the sparse one.
        env: As in Stable-Baselines3.
        topology: A `TopologyConfig`, a mapping of its fields, or None for its defaults.
        device: `"auto"` and `"cpu"` both mean the CPU; anything else is refused.
        seed: Root seed, also of the topology streams; drawn anew if None.
        kwargs: As in Stable-Baselines3.

    Attributes:
        around_step: Called around every optimizer step of a trained network, if not None; not saved.

    Raises:
        KernelUnavailable: If another device is asked for.
        ConfigError: If a topology key or name is unknown.
        TopologyError: If a topology value is out of range; in `learn`, if pruning would end after the run, or its
            number of gradient updates is needed and not known beforehand; in `train` before either, if it is needed.
    """

    def __init__(
        self,
        policy: Any,
        env: Any,
        *args: Any,
        topology: TopologyConfig | Mapping[str, Any] | None = None,
        device: torch.device | str = "auto",
        seed: int | None = None,
        **kwargs: Any,
    ):
        # Of what is not given, the policy decides; checked here, before Stable-Baselines3 makes anything.
        self.topology: Any = topology if topology is None else TopologyConfig.coerce(topology)
        if "topology" in (kwargs.get("policy_kwargs") or {}):
            raise ConfigError("give topology to the agent itself: in policy_kwargs it is only half of it")
        self.around_step: AroundStep | None = None
        self.run_updates = 0  # that `bind_run_length` was told of
        super().__init__(  # SB3 puts device and seed last, so positional arguments never reach them
            policy, env, *args, device=require_cpu(device), seed=seed, **kwargs
        )

    def _setup_model(self) -> None:
        check_action_bounds(self.action_space)
        takes_topology = getattr(self.policy_class, "takes_topology", False)
        if self.topology is None and not takes_topology:
            self.topology = TopologyConfig(method="dense")
        self.topology = TopologyConfig.coerce(self.topology)
        if not takes_topology and self.topology != TopologyConfig(method="dense"):
            raise ConfigError(
                f"the policy {self.policy_class.__name__} is dense and takes no topology (method "
                f"{self.topology.method!r}); use {', '.join(self.policy_aliases)}, or leave topology out"
            )
        if takes_topology:
            seed = secrets.randbits(32) if self.seed is None else self.seed
            self.policy_kwargs = {"topology_seed": seed, **self.policy_kwargs, "topology": self.topology}
        super()._setup_model()
        self._follow_topology()

    def take_networks(self, states: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
        super().take_networks(states)
        self._follow_topology()

    def _follow_topology(self) -> None:
        """Makes what moves connections, and what moves with them, of the networks as they are."""
        groups = {name: sparse_layers(net, name) for name, net in self.networks.items()}
        self.evolver = TopologyEvolver(
            groups,
            self.topology.rule(),
            seed=self.policy_kwargs.get("topology_seed", 0),
            new_value=self.topology.part("new_value"),
            goals={layer: count for name, net in self.networks.items() for layer, count in goals(net, name).items()},
        )
        self.recycler = self._make_recycler()
        self._repeated: Repeated[tuple[TransitionBatch, dict[str, Number]]] = Repeated(
            besides=COUNTERS.union(self.counters)
        )
        for group, layers in groups.items():
            for name, layer in layers.items():
                follower = OptimizerMoments(self.optimizer_of(group), layer.values, self.topology.part("moments"))
                self.evolver.follow(name, follower)
                self.evolver.set_optimizer(name, partial(getattr, follower, "optimizer"))
        self.target_networks = {
            name: TargetNetwork(self.networks[name], target, self.topology.part("target"))
            for name, target in self.target_copies.items()
        }
        self._running_statistics = {
            name: list(
                zip(
                    *(get_parameters_by_name(net, ["running_"]) for net in (self.networks[name], target)),
                    strict=True,
                )
            )
            for name, target in self.target_copies.items()
        }
        for name, target in self.target_networks.items():
            for layer_name, target_layer in target.layers.items():
                self.evolver.follow(f"{name}.{layer_name}", target_layer.follow)

    def _make_recycler(self) -> Recycler | None:
        interval = self.topology.recycle_interval
        if interval is None:
            return None
        if not self.reads_vectors:
            raise ConfigError(
                "neurons are recycled in networks that read vectors of floats as they are: leave "
                f"topology.recycle_interval out, or make the observations {self.observation_space} such vectors"
            )
        networks = {name: (network, self.optimizer_of(name)) for name, network in self.networks.items()}
        seed = self.policy_kwargs.get("topology_seed", 0)
        threshold, by = self.topology.recycle_threshold, self.topology.recycle_by
        return Recycler(networks, interval=interval, threshold=threshold, seed=seed, by=by)

    def bind_run_length(self, total_timesteps: int) -> None:
        """Says how many env steps all calls of `learn` together will make, before the first of them.

        Args:
            total_timesteps: Of all environments together, counted as `learn` counts them.

        Raises:
            TopologyError: If pruning would end after the run, or the number of gradient updates is not known
                beforehand.
        """
        updates = updates_of_learn(self, total_timesteps)
        self._bind_topology(updates)
        self.run_updates = updates or 0

    def _setup_learn(
        self, total_timesteps: int, callback: Any = None, reset_num_timesteps: bool = True, *args: Any, **kwargs: Any
    ) -> tuple[int, Any]:
        updates = updates_of_learn(self, total_timesteps, reset_num_timesteps)
        try:
            self._bind_topology(None if updates is None else max(self.run_updates, self._n_updates + updates))
        except TopologyError as error:
            more = "if more calls of `learn` follow, first give the steps of all to `bind_run_length`"
            raise TopologyError(f"{error}; {more}") from None
        return super()._setup_learn(total_timesteps, callback, reset_num_timesteps, *args, **kwargs)

    def _bind_topology(self, total_updates: int | None) -> None:
        """Fixes what the length of the run decides, if there is anything."""
        if not self.evolver.layers or self.evolver.rule is None:
            return
        if total_updates is None:
            self._check_run_length("is not known beforehand with `train_freq` in episodes: set `gradient_steps=-1`")
        elif self.topology.open_ends:
            self.topology = self.topology.for_run(total_updates)
            rule = self.topology.rule()
            assert rule is not None
            self.evolver.replace_rule(rule)
        else:
            self.evolver.rule.fitting(total_updates)

    def _check_run_length(self, problem: str) -> None:
        """Raises TopologyError if the topology depends on the length of the run and does not know it."""
        ends = self.topology.open_ends if self.evolver.layers else ()
        if ends:
            method, names = self.topology.method, " and ".join(f"topology.{name}" for name in ends)
            raise TopologyError(
                f"topology method {method!r} needs the number of gradient updates of the run, which {problem}, or "
                f"give {names}"
            )

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        """Runs gradient updates; called by `learn`."""
        if self._n_updates == 0:  # what the first update could do with, the later ones can
            self._check_run_length("is not known before `learn`: call `bind_run_length`")
        self.policy.set_training_mode(True)
        self._update_learning_rate(self._optimizers())
        logged: dict[str, list[float]] = {}
        for _ in range(gradient_steps):
            self._n_updates += 1
            self.evolver.begin_update(self._n_updates)
            if any(map(self.evolver.is_due, self.trained)):
                self._repeated.forget()
                batch, numbers = self._sample_and_update(batch_size)
            else:
                update = partial(self._sample_and_update, batch_size)
                batch, numbers = self._repeated(update, vars(self), batch_size, *self._class_settings())
            for name, value in numbers.items():
                logged.setdefault(name, []).append(np.asarray(value).item())
            if self.recycler is not None and self.recycler.is_due(self._n_updates):
                self._recycle(self.recycler, batch)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        for name, values in logged.items():
            self.logger.record(f"train/{name}", sum(values) / len(values))

    def _sample_and_update(self, batch_size: int) -> tuple[TransitionBatch, dict[str, Number]]:
        assert self.replay_buffer is not None
        with counting(self.flops), deferred() if self._waits() else at_once():
            batch = sample(self.replay_buffer, batch_size, self._vec_normalize_env, self.gamma)
            return batch, self._update(batch)

    def _is_turn(self, period: int) -> bool:
        """Whether this update is one of every `period`-th; all that `_update` may ask of the count of updates."""
        is_turn = self._n_updates % period == 0
        only_if(lambda: (self._n_updates % period == 0) == is_turn)
        return is_turn

    def _waits(self) -> bool:
        """Whether steps of an update may wait for each other: a subclass that overrides a method expects numbers."""
        groups = chain.from_iterable(optimizer.param_groups for optimizer in self._optimizers())
        weights = sum(values.numel() for group in groups for values in group["params"])
        return weights <= WAITS_TO and all(_is_ours(getattr(self, name)) for name in UPDATE if hasattr(self, name))

    def _loss(self, name: str, *given: Any) -> Any:
        """Calls the method of a loss; one of a subclass gets NumPy arrays."""
        method = getattr(self, name)
        return method(*(given if _is_ours(method) else map(computed, given)))

    def _update(self, batch: TransitionBatch) -> dict[str, Number]:
        """One gradient update on a batch.

        Returns:
            What is logged under `train/`: losses by name; a loss that is not computed this time is left out.
        """
        raise NotImplementedError

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        """Those that follow the learning-rate schedule."""
        return [self.optimizer_of(name) for name in self.trained]

    def _class_settings(self) -> tuple[object, ...]:
        """What an update reads of the class, which may be patched."""
        return ()

    def transitions(self, rows: np.ndarray) -> TransitionBatch:
        """Copies of transitions of the replay buffer, of one environment and one step each, for `form_gradients`.

        Args:
            rows: (B,) where they lie in it.
        """
        assert self.replay_buffer is not None
        return transitions_at(self.replay_buffer, rows, self.gamma)

    def form_gradients(self, group: str, batch: TransitionBatch) -> None:
        """Forms the gradients of a trained network on a batch, in place of those that it has, and takes no step.

        Args:
            group: Name in `trained`.
            batch: Transitions; actions and targets may be drawn from torch's global generator.
        """
        raise NotImplementedError

    def _recycle(self, recycler: Recycler, batch: TransitionBatch) -> None:
        if recycler.score.needs_gradients:
            with counting(self.flops), at_once():
                for group in self.trained:
                    self.form_gradients(group, batch)
        inputs = self.read_by(batch.observations, batch.actions)
        recycler.recycle_if_due(self._n_updates, {name: torch.from_numpy(array) for name, array in inputs.items()})

    def _step(self, group: str) -> None:
        """One optimizer step of a group, then its topology event if one is due, or that event alone."""
        if not self.evolver.replaces_step(group):
            self._step_optimizer(group)
        if self.evolver.end_update(group):
            for key, value in topology_metrics(self.evolver).items():
                self.logger.record(key, value)

    def _step_optimizer(self, group: str) -> None:
        network = getattr(self, group)
        optimizer: torch.optim.Optimizer = network.optimizer
        relies_on_items(vars(network), ["optimizer"])
        if self.around_step is not None:
            with at_once():
                self.around_step.before_step(group)
        if not isinstance(optimizer, FusedAdam):  # which waits as other steps do
            not_again()
            run_waiting()
        optimizer.step()
        self.evolver.after_step(group)
        if self.around_step is not None:
            with at_once():
                self.around_step.after_step(group)

    def _sync_targets(self, tau: float) -> None:
        relies_on_items(self.target_networks, self.target_networks)
        for name, target in self.target_networks.items():
            target.sync(tau)
            for online, copy in self._running_statistics[name]:
                not_again()
                copy.copy_(online)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "target_networks", "_running_statistics", "around_step", "_repeated"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        modules, tensors = super()._get_torch_save_params()
        return [*modules, "evolver", *([] if self.recycler is None else ["recycler"])], tensors
