"""Policies of Stable-Baselines3's on-policy agents on truly sparse layers, and both of their networks one by one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from stable_baselines3.common.distributions import StateDependentNoiseDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import (
    BaseFeaturesExtractor,
    CombinedExtractor,
    FlattenExtractor,
    MlpExtractor,
)
from stable_baselines3.common.type_aliases import Schedule
from torch import nn

from sparserl.agents.networks.networks import network
from sparserl.agents.networks.policies import check_topology
from sparserl.agents.networks.sparse_cnn import SparseNatureCNN, extractor_of
from sparserl.errors import ConfigError
from sparserl.layers import SparseLinear, SparseMLP
from sparserl.layers.fused_adam import FusedAdam
from sparserl.layers.linear import linear
from sparserl.topology.config import TopologyConfig

HIDDEN_GAIN, ACTION_GAIN, VALUE_GAIN = math.sqrt(2), 0.01, 1.0
"""Scales of initial weights in Stable-Baselines3's `ActorCriticPolicy`: of hidden layers, of both output layers."""
ADAM_EPS = 1e-5
"""What Stable-Baselines3 gives Adam for on-policy agents."""


class OnPolicyNetwork(nn.Module):
    """The actor or the critic of an `ActorCriticPolicy`, whose layers are those of the policy itself.

    Args:
        policy: The policy.
        name: What the network is called within its group: `pi` or `vf`.
        layers: From features to outputs.
        extractor: What makes features of observations.
        owns_extractor: Whether that is a part of this network; one that both share is the actor's.
        memory: What stands between features and layers in a recurrent policy; None in others.
    """

    features_extractor: BaseFeaturesExtractor

    def __init__(
        self,
        policy: ActorCriticPolicy,
        name: str,
        layers: nn.Module,
        extractor: BaseFeaturesExtractor,
        *,
        owns_extractor: bool = True,
        memory: nn.Module | None = None,
    ):
        super().__init__()
        self.observation_space, self.normalize_images = policy.observation_space, policy.normalize_images
        self.name, self.memory = name, memory
        self.add_module(name, layers)
        if owns_extractor:
            self.features_extractor = extractor
        else:
            object.__setattr__(self, "features_extractor", extractor)

    @property
    def chain(self) -> nn.Module:
        """From features to outputs: a `SparseMLP`, or a `Sequential`."""
        layers = self._modules[self.name]
        assert layers is not None
        return layers


def actor_of(policy: Any) -> OnPolicyNetwork:
    """What chooses actions, with the standard deviations of a Gaussian policy as a parameter beside its layers."""
    layers = _whole(policy.mlp_extractor.policy_net, policy.action_net)
    memory = getattr(policy, "lstm_actor", None)
    actor = OnPolicyNetwork(policy, "pi", layers, policy.pi_features_extractor, memory=memory)
    if hasattr(policy, "log_std"):
        actor.log_std = policy.log_std
    return actor


def critic_of(policy: Any) -> OnPolicyNetwork:
    """What values observations."""
    layers = _whole(policy.mlp_extractor.value_net, policy.value_net)
    owns = not policy.share_features_extractor
    memory = getattr(policy, "lstm_critic", None)
    return OnPolicyNetwork(policy, "vf", layers, policy.vf_features_extractor, owns_extractor=owns, memory=memory)


def _whole(hidden: nn.Module, output: nn.Module) -> nn.Module:
    """Hidden and output layers as one chain; sparse networks are whole already."""
    return output if isinstance(output, SparseMLP) else nn.Sequential(*hidden.children(), output)


class SparsePPOPolicy(ActorCriticPolicy):
    """Stable-Baselines3's `ActorCriticPolicy` with a sparse actor and a sparse critic, each with a topology of its own.

    The weights of a neuron are together as large as those of that policy's orthogonal matrices, however few they are,
    unless `ortho_init` is False or the topology says how they begin (`topology.initial_value`), but independent of each
    other: a matrix that exists in part alone is never orthogonal. Dense layers begin as there. Output layers have the
    same small or usual scale in either case.

    Args:
        topology: Densities of the layers; `TopologyConfig()` if None.
        topology_seed: Root seed of the initial topologies.
        args: As in Stable-Baselines3.
        kwargs: As in Stable-Baselines3. `net_arch` defaults to two layers of 64 with any extractor, and Adam is
            `FusedAdam`.

    Raises:
        TopologyError: If neither network has a layer that the topology can make sparse, or connections are to be judged
            by a batch.
        ConfigError: If state-dependent exploration is asked for.
    """

    takes_topology = True
    extractor_class: ClassVar[type[BaseFeaturesExtractor]] = FlattenExtractor

    def __init__(self, *args: Any, topology: TopologyConfig | None = None, topology_seed: int = 0, **kwargs: Any):
        # Set before the base class runs, because it builds the networks.
        self.topology, self.topology_seed = topology or TopologyConfig(), topology_seed
        if kwargs.get("use_sde"):
            raise ConfigError("sparse policies know no state-dependent exploration (use_sde)")
        if kwargs.get("net_arch") is None:
            kwargs["net_arch"] = [64, 64]
        self._check_topology(*_widths(kwargs["net_arch"]))
        kwargs.setdefault("features_extractor_class", self.extractor_class)
        if kwargs.get("optimizer_class", torch.optim.Adam) is torch.optim.Adam:
            kwargs["optimizer_class"] = FusedAdam
            kwargs["optimizer_kwargs"] = {"eps": ADAM_EPS, **(kwargs.get("optimizer_kwargs") or {})}
        super().__init__(*args, **kwargs)

    def _check_topology(self, *net_archs: list[int]) -> None:
        check_topology(self.topology, *net_archs)

    @property
    def chain_width(self) -> int:
        """Features that the chains of actor and critic read."""
        return self.features_dim

    def make_features_extractor(self) -> BaseFeaturesExtractor:
        """As in Stable-Baselines3, which asks for the actor's first, and for the critic's unless both share it."""
        if not issubclass(self.features_extractor_class, SparseNatureCNN):
            return super().make_features_extractor()
        return extractor_of(self, "critic" if "features_extractor" in self._modules else "actor")

    def _build(self, lr_schedule: Schedule) -> None:
        assert not isinstance(self.action_dist, StateDependentNoiseDistribution)
        # Hidden layers belong to the networks, so that they are read and rewired as wholes.
        self.mlp_extractor = MlpExtractor(self.chain_width, [], self.activation_fn, self.device)
        head: Any = self.action_dist.proba_distribution_net(1)
        head, log_std = head if isinstance(head, tuple) else (head, None)
        if log_std is not None:
            self.log_std = nn.Parameter(torch.full_like(log_std, self.log_std_init))
        actor, critic = _widths(self.net_arch)
        self.action_net = self._network("actor.pi", actor, int(head.out_features), ACTION_GAIN)
        self.value_net = self._network("critic.vf", critic, 1, VALUE_GAIN)  # type: ignore[assignment]  # read alike
        if self.ortho_init:
            for extractor in {self.pi_features_extractor, self.vf_features_extractor}:
                for module in extractor.modules():
                    self._begin(module, HIDDEN_GAIN)
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]  # as there

    def _chain(self, name: str, hidden: list[int], n_out: int) -> SparseMLP:
        mlp = network(
            self.chain_width,
            hidden,
            n_out,
            name=name,
            topology=self.topology,
            seed=self.topology_seed,
            activation_fn=self.activation_fn,
        )
        assert isinstance(mlp, SparseMLP)
        return mlp

    def _network(self, name: str, hidden: list[int], n_out: int, output_gain: float) -> SparseMLP:
        mlp = self._chain(name, hidden, n_out)
        if self.ortho_init:
            *inner, last = mlp
            for layer in inner:
                self._begin(layer, HIDDEN_GAIN)
            self._begin(last, output_gain)
        return mlp

    def _begin(self, layer: nn.Module, gain: float) -> None:
        as_given = self.topology.part("initial_value") != "dense_fan_in"
        _begin(layer, gain, as_given=as_given, init_weights=self.init_weights)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        own = {"topology": self.topology, "topology_seed": self.topology_seed}
        return {**super()._get_constructor_parameters(), **own}


class SparsePPOCnnPolicy(SparsePPOPolicy):
    """The same behind `SparseNatureCNN`, which both networks share unless told otherwise; `"CnnPolicy"`."""

    extractor_class = SparseNatureCNN


class SparsePPOMultiInputPolicy(SparsePPOPolicy):
    """The same behind `CombinedExtractor`, for Dict observations; `"MultiInputPolicy"`."""

    extractor_class = CombinedExtractor


def _widths(net_arch: Any) -> tuple[list[int], list[int]]:
    """Hidden widths of actor and critic, which `net_arch` gives as Stable-Baselines3 takes them."""
    if isinstance(net_arch, dict):
        return list(net_arch.get("pi", [])), list(net_arch.get("vf", []))
    return list(net_arch), list(net_arch)


@torch.no_grad()
def _begin(layer: nn.Module, gain: float, *, as_given: bool, init_weights: Callable[[nn.Module, float], None]) -> None:
    """Gives a layer its first weights, in place; biases 0.

    Args:
        layer: Just made.
        gain: Scale of the weights.
        as_given: Whether the weights of a sparse layer have a scale that the topology asks for: it is kept in hidden
            layers and multiplied by the gain of output layers.
        init_weights: What Stable-Baselines3 does to a dense one.
    """
    if not isinstance(layer, SparseLinear):
        init_weights(layer, gain)
        return
    if as_given:
        layer.values.mul_(1.0 if gain == HIDDEN_GAIN else gain)
    else:  # they are uniform in +-1/sqrt(n_in); rows of an orthogonal matrix have this length
        length = gain * math.sqrt(layer.n_in / max(layer.n_in, layer.n_out))
        fan_in = linear(layer).fan_in
        of_each = torch.from_numpy(np.repeat(fan_in, fan_in))  # a connection's output has so many
        layer.values.mul_(length * torch.sqrt(3 * layer.n_in / of_each))
    if layer.bias is not None:
        layer.bias.zero_()
