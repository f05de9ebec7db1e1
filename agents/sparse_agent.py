"""What all sparse agents share: topology clock and what follows it, schedules by the length of a run, device, saving.

Independent of where an agent's data come from and of who writes its update.
"""

from __future__ import annotations

import inspect
import secrets
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Protocol

import torch

from sparserl.agents.action_bounds import check_action_bounds
from sparserl.agents.networks.policies import goals, sparse_layers
from sparserl.agents.parts import AgentParts
from sparserl.agents.saved_topology import SavedTopologyMixin
from sparserl.errors import ConfigError, TopologyError
from sparserl.kernels import require_cpu
from sparserl.layers.recycle import Recycler
from sparserl.layers.sparse_training import check_elementwise
from sparserl.metrics.connectivity import topology_metrics
from sparserl.topology.config import TopologyConfig
from sparserl.topology.evolver import TopologyEvolver
from sparserl.topology.moments import OptimizerMoments


class AroundStep(Protocol):
    """What stands around the optimizer steps of an agent: may change gradients, or put back what must not move."""

    def before_step(self, group: str) -> None:
        """After the gradients of the network `group` are formed, before its optimizer steps."""

    def after_step(self, group: str) -> None:
        """After the step, before a topology event."""


class SparseAgentMixin(AgentParts, SavedTopologyMixin):
    """Gives an agent of Stable-Baselines3 networks whose topology evolves.

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
        ConfigError: If a topology key or name is unknown, or actions have no bounds.
        TopologyError: If a topology value is out of range, or an optimizer is not elementwise; in `learn`, if pruning
            would end after the run, or its number of gradient updates is needed and not known beforehand; in `train`
            before either, if it is needed.
    """

    unknown_length: ClassVar[str]
    """With which arguments the number of gradient updates is not known beforehand, and what to do then."""

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
        try:
            super().__init__(  # SB3 puts device and seed last, so positional arguments never reach them
                policy, env, *args, device=require_cpu(device), seed=seed, **kwargs
            )
        except AssertionError:  # with which Stable-Baselines3 refuses actions without bounds
            self._check_actions()
            raise

    def _check_actions(self) -> None:
        check_action_bounds(self.action_space, scaled=self.scales_actions)

    def _setup_model(self) -> None:
        self._check_actions()
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
        super()._setup_model()  # type: ignore[safe-super]  # of the agent that it is mixed into
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
        if self.recycler is not None:
            self.recycler.began_anew = self.evolver.begun_anew
        for group, layers in groups.items():
            if layers:
                check_elementwise(self.optimizer_of(group))
                self.topology.check_optimizer(self.optimizer_of(group))
            for name, layer in layers.items():
                follower = OptimizerMoments(self.optimizer_of(group), layer.values, self.topology.part("moments"))
                self.evolver.follow(name, follower)
                self.evolver.set_optimizer(name, partial(getattr, follower, "optimizer"))

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
        updates = self._updates_of_learn(total_timesteps, True)
        self._bind_topology(updates)
        self.run_updates = updates or 0

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: Any = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        *args: Any,
        **kwargs: Any,
    ) -> tuple[int, Any]:
        updates = self._updates_of_learn(total_timesteps, reset_num_timesteps)
        try:
            self._bind_topology(None if updates is None else max(self.run_updates, self.updates + updates))
        except TopologyError as error:
            more = "if more calls of `learn` follow, first give the steps of all to `bind_run_length`"
            raise TopologyError(f"{error}; {more}") from None
        if tb_log_name == inspect.signature(self.learn).parameters["tb_log_name"].default:  # that of the dense agent
            tb_log_name = type(self).__name__
        return super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, *args, **kwargs)

    def _bind_topology(self, total_updates: int | None) -> None:
        """Fixes what the length of the run decides, if there is anything."""
        if not self.evolver.layers or self.evolver.rule is None:
            return
        if total_updates is None:
            self._check_run_length(f"is not known beforehand with {self.unknown_length}")
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

    def _updates_of_learn(self, total_timesteps: int, reset_num_timesteps: bool) -> int | None:
        """Gradient updates that `learn` would make; None where they are not known beforehand."""
        raise NotImplementedError

    def _end_update(self, group: str) -> None:
        """The topology event of a group if one is due, after its optimizer step or in place of it."""
        if self.evolver.end_update(group):
            for key, value in topology_metrics(self.evolver).items():
                self.logger.record(key, value)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "around_step"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        modules, tensors = super()._get_torch_save_params()
        return [*modules, "evolver", *([] if self.recycler is None else ["recycler"])], tensors
