"""Policies of Stable-Baselines3's shape whose networks are truly sparse."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.torch_layers import (
    BaseFeaturesExtractor,
    CombinedExtractor,
    FlattenExtractor,
    get_actor_critic_arch,
)
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.dqn.policies import DQNPolicy
from stable_baselines3.sac.policies import SACPolicy
from stable_baselines3.td3.policies import TD3Policy
from torch import nn

from sparserl.agents.networks.heads import TaskHeads
from sparserl.agents.networks.networks import (
    SparseActor,
    SparseCritic,
    SparseQNetwork,
    SparseSACActor,
    SparseTD3Actor,
)
from sparserl.agents.networks.sparse_cnn import SparseNatureCNN, extractor_of
from sparserl.agents.vectors import is_vector
from sparserl.errors import ConfigError, TopologyError, unknown_name
from sparserl.layers import MultiHeadMLP, SparseLinear, SparseMLP
from sparserl.layers.fused_adam import FusedAdam
from sparserl.layers.norms import RunningNorm
from sparserl.layers.recurrent import SparseRecurrent
from sparserl.topology.config import TopologyConfig

SDE_KEYWORDS = ("use_sde", "log_std_init", "use_expln", "clip_mean")
"""What Stable-Baselines3 tells a SAC actor about state-dependent exploration."""


class SparsePolicyMixin(BasePolicy):
    """What the sparse policies share; mixed into a policy class of Stable-Baselines3, which asks for its networks.

    Args:
        topology: Densities of the layers; `TopologyConfig()` if None.
        topology_seed: Root seed of the initial topologies.
        heads: For networks with an output layer for each task; observations then end with a task id.
        network: Name in `usual_net_archs`. Of `"simba"` the entries of `net_arch` are the widths of residual blocks.
        args: As in Stable-Baselines3.
        kwargs: As in Stable-Baselines3. `net_arch` defaults to `usual_net_archs`, and Adam is `FusedAdam`.

    Attributes:
        running: Normalises observations by statistics of those that it acted on in training, in all networks; None
            where the network is not `"simba"`.

    Raises:
        ConfigError: If there is no such network, or it reads other than vectors of floats.
        TopologyError: If no network has a layer that the topology can make sparse, or connections are to be judged by a
            batch.
    """

    takes_topology = True
    extractor_class: ClassVar[type[BaseFeaturesExtractor]] = FlattenExtractor
    usual_net_archs: ClassVar[dict[str, Any]] = {"mlp": [256, 256]}
    """Kind of network -> `net_arch` where none is given."""
    trained: ClassVar[tuple[str, ...]]
    """Attributes that hold the networks that learn; the first one acts."""

    def __init__(
        self,
        *args: Any,
        topology: TopologyConfig | None = None,
        topology_seed: int = 0,
        heads: TaskHeads | None = None,
        network: str = "mlp",
        **kwargs: Any,
    ):
        # Set before the base class runs, because it builds the networks.
        self.topology = topology or TopologyConfig()
        self.topology_seed = topology_seed
        self.heads, self.network = heads, network
        if network not in self.usual_net_archs:
            raise ConfigError(unknown_name("network", network, self.usual_net_archs))
        if kwargs.get("net_arch") is None:
            kwargs["net_arch"] = copy.deepcopy(self.usual_net_archs[network])
        check_topology(self.topology, *self.hidden_widths(kwargs["net_arch"]))
        kwargs.setdefault("features_extractor_class", self.extractor_class)
        if kwargs.get("optimizer_class", torch.optim.Adam) is torch.optim.Adam:
            kwargs["optimizer_class"] = FusedAdam
        super().__init__(*args, **kwargs)

    @staticmethod
    def hidden_widths(net_arch: Any) -> Iterable[Sequence[int]]:
        """Those of each network, from what users give as `net_arch`."""
        return [net_arch]

    def set_training_mode(self, mode: bool) -> None:
        """As in Stable-Baselines3, without walking through modules to which the mode makes no difference."""
        # `Module.__getattr__` takes ten times as long, and this is called at each env step and update.
        networks: list[Any] = [self._modules[name] for name in self.trained]
        if all(network.ensembles for network in networks):
            for module in (self, *networks):
                vars(module)["training"] = mode  # `Module.__setattr__` first looks for a parameter of that name
        else:
            super().set_training_mode(mode)

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """As in Stable-Baselines3; an array of vectors goes to the kernels without a detour through tensors."""
        space, actions, acting = self.observation_space, self.action_space, self._acting
        plain = acting.ensembles and isinstance(observation, np.ndarray) and observation.shape[-1:] == space.shape
        if not plain or observation.ndim > 2 or not isinstance(actions, spaces.Box | spaces.Discrete):  # type: ignore[union-attr]
            return super().predict(observation, state, episode_start, deterministic)
        self.set_training_mode(False)
        rows = np.asarray(observation, np.float32).reshape(-1, observation.shape[-1])  # type: ignore[union-attr]
        taken = acting.act(rows, deterministic).reshape(-1, *(actions.shape or ()))
        if isinstance(actions, spaces.Box):
            taken = self.unscale_action(taken)
        return (taken if observation.ndim == 2 else taken.squeeze(axis=0)), state  # type: ignore[union-attr]

    @property
    def _acting(self) -> Any:
        return self._modules[self.trained[0]]

    @property
    def _own_arguments(self) -> dict[str, Any]:
        return {"topology": self.topology, "topology_seed": self.topology_seed, "heads": self.heads}

    @property
    def running(self) -> RunningNorm | None:
        """What normalises observations, made when the first network is."""
        if self.network == "mlp":
            return None
        made: RunningNorm | None = vars(self).get("_running")
        if made is None:
            space, actions = self.observation_space, self.action_space
            if self.features_extractor_class is not FlattenExtractor or not is_vector(space):
                raise ConfigError(f"network {self.network} reads vectors of floats, not {space}: use network mlp")
            # Not registered: it is part of each network.
            made = vars(self)["_running"] = RunningNorm(space.shape[0], get_action_dim(actions))  # type: ignore[index]
        return made

    def observe(self, observations: Any) -> None:
        """Lets (B, obs) observations of the environments enter statistics, if there are any; called before acting."""
        if self.network != "mlp":
            assert self.running is not None
            self.running.observe(observations)

    def _sparse(
        self, group: str, kwargs: dict[str, Any], features_extractor: BaseFeaturesExtractor | None
    ) -> dict[str, Any]:
        """Arguments of the network of a group, with a features extractor of its own if it is not given one."""
        if features_extractor is None and issubclass(self.features_extractor_class, SparseNatureCNN):
            if getattr(self, "share_features_extractor", False):
                raise ConfigError(
                    "share_features_extractor has no sparse form for images: leave it out, or give "
                    "features_extractor_class=NatureCNN"
                )
            features_extractor = extractor_of(self, group)
        own = {**self._own_arguments, "running": self.running}
        return {**self._update_features_extractor(kwargs, features_extractor), **own}

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), **self._own_arguments, "network": self.network}


class SparseActorCriticPolicy(SparsePolicyMixin):
    """With an actor and critics."""

    # SimBa's own sizes (Lee et al. 2024, and its code).
    usual_net_archs: ClassVar[dict[str, Any]] = {"mlp": [256, 256], "simba": {"pi": [128], "qf": [512, 512]}}

    trained = ("actor", "critic")
    actor_class: ClassVar[type[SparseActor]]
    actor_kwargs: dict[str, Any]
    critic_kwargs: dict[str, Any]

    @staticmethod
    def hidden_widths(net_arch: Any) -> Iterable[Sequence[int]]:
        return get_actor_critic_arch(net_arch)

    def make_actor(self, features_extractor: BaseFeaturesExtractor | None = None) -> Any:
        """A sparse actor; Stable-Baselines3 calls it for the policy and for its target, if it has one."""
        return self.actor_class(**self._sparse("actor", self.actor_kwargs, features_extractor))

    def make_critic(self, features_extractor: BaseFeaturesExtractor | None = None) -> Any:
        """Sparse critics; Stable-Baselines3 calls it for the critics and for their targets."""
        return SparseCritic(**self._sparse("critic", self.critic_kwargs, features_extractor))


class SparseQPolicy(SparsePolicyMixin, DQNPolicy):
    """Stable-Baselines3's `DQNPolicy` with `SparseQNetwork`; `"MlpPolicy"` of `DSDQN`."""

    trained = ("q_net",)
    # Behind a CNN too, where Stable-Baselines3 has an output layer alone.
    usual_net_archs: ClassVar[dict[str, Any]] = {"mlp": [64, 64], "simba": [128, 128]}

    @staticmethod
    def hidden_widths(net_arch: Any) -> Iterable[Sequence[int]]:
        if isinstance(net_arch, Mapping):
            raise ConfigError(f"net_arch is a list of hidden widths of the one network, got {net_arch}")
        return [net_arch]

    def make_q_net(self) -> Any:
        """A sparse network; Stable-Baselines3 calls it for the network and for its target."""
        return SparseQNetwork(**self._sparse("q_net", self.net_args, None))


class SparseQCnnPolicy(SparseQPolicy):
    """The same behind `SparseNatureCNN`; `"CnnPolicy"` of `DSDQN`."""

    extractor_class = SparseNatureCNN


class SparseQMultiInputPolicy(SparseQPolicy):
    """The same behind `CombinedExtractor`, for Dict observations; `"MultiInputPolicy"` of `DSDQN`."""

    extractor_class = CombinedExtractor


class SparseTD3Policy(SparseActorCriticPolicy, TD3Policy):
    """Stable-Baselines3's `TD3Policy` with `SparseTD3Actor` and `SparseCritic`; `"MlpPolicy"` of `DSTD3`."""

    actor_class = SparseTD3Actor


class SparseTD3CnnPolicy(SparseTD3Policy):
    """The same behind `SparseNatureCNN`; `"CnnPolicy"` of `DSTD3`."""

    extractor_class = SparseNatureCNN


class SparseTD3MultiInputPolicy(SparseTD3Policy):
    """The same behind `CombinedExtractor`, for Dict observations; `"MultiInputPolicy"` of `DSTD3`."""

    extractor_class = CombinedExtractor


class SparseSACPolicy(SparseActorCriticPolicy, SACPolicy):
    """Stable-Baselines3's `SACPolicy` with `SparseSACActor` and `SparseCritic`; `"MlpPolicy"` of `DSSAC`.

    Raises:
        ConfigError: If state-dependent exploration is asked for.
    """

    actor_class = SparseSACActor

    def _build(self, lr_schedule: Schedule) -> None:
        of_exploration = {name: self.actor_kwargs.pop(name) for name in SDE_KEYWORDS}
        if of_exploration["use_sde"]:
            raise ConfigError("sparse policies know no state-dependent exploration (use_sde)")
        super()._build(lr_schedule)
        self.actor_kwargs |= of_exploration  # the base class reads them when it saves


class SparseSACCnnPolicy(SparseSACPolicy):
    """The same behind `SparseNatureCNN`; `"CnnPolicy"` of `DSSAC`."""

    extractor_class = SparseNatureCNN


class SparseSACMultiInputPolicy(SparseSACPolicy):
    """The same behind `CombinedExtractor`, for Dict observations; `"MultiInputPolicy"` of `DSSAC`."""

    extractor_class = CombinedExtractor


class SparseTQCPolicy(SparseSACPolicy):
    """`SparseSACPolicy` whose critics give `n_quantiles` of the return; `"MlpPolicy"` of `DSTQC`.

    Raises:
        ConfigError: If there would be no quantile.
    """

    def __init__(self, *args: Any, n_quantiles: int = 25, **kwargs: Any):
        if n_quantiles < 1:
            raise ConfigError(f"n_quantiles must be at least 1, got {n_quantiles}")
        self.n_quantiles = n_quantiles
        super().__init__(*args, **kwargs)

    def make_critic(self, features_extractor: BaseFeaturesExtractor | None = None) -> Any:
        return SparseCritic(
            **self._sparse("critic", self.critic_kwargs, features_extractor), n_quantiles=self.n_quantiles
        )

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), "n_quantiles": self.n_quantiles}


class SparseTQCCnnPolicy(SparseTQCPolicy):
    """The same behind `SparseNatureCNN`; `"CnnPolicy"` of `DSTQC`."""

    extractor_class = SparseNatureCNN


class SparseTQCMultiInputPolicy(SparseTQCPolicy):
    """The same behind `CombinedExtractor`, for Dict observations; `"MultiInputPolicy"` of `DSTQC`."""

    extractor_class = CombinedExtractor


def check_topology(topology: TopologyConfig, *net_archs: Sequence[int]) -> None:
    """Raises TopologyError if the networks of a policy, of these hidden widths, cannot begin as a topology says."""
    if not topology.reaches(net_archs):
        raise TopologyError(
            f"a linear policy has output layers alone, which topology method {topology.method!r} keeps dense: give "
            "topology.output_layer 'sparse', or topology.method 'dense'"
        )
    if topology.judged_by_batch:
        raise TopologyError(
            f"topology.initial_topology {topology.part('initial_topology')} judges weights by a batch, and an agent "
            "has none when its networks begin: use largest"
        )


def sparse_layers(module: nn.Module, prefix: str) -> dict[str, SparseLinear]:
    """Sparse layers of a network by full name, e.g. `critic.qf0.1`."""
    return {f"{prefix}.{name}": layer for name, layer in module.named_modules() if isinstance(layer, SparseLinear)}


def goals(module: nn.Module, prefix: str) -> dict[str, int]:
    """Connections that layers are to have at the end of a density schedule, by full name."""
    return {
        f"{prefix}.{name}.{layer}": count
        for name, mlp in module.named_modules()
        if isinstance(mlp, SparseMLP | MultiHeadMLP | SparseNatureCNN | SparseRecurrent)
        for layer, count in mlp.goals.items()
    }
