"""Actor and critic networks of Stable-Baselines3's shape on truly sparse layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BaseModel, BasePolicy
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.sac.policies import SACPolicy
from stable_baselines3.td3.policies import TD3Policy
from torch import nn

from sparserl.agents.batch import FloatArray
from sparserl.agents.network_pass import evaluate
from sparserl.agents.squashed_gaussian import SquashedGaussian
from sparserl.agents.task_heads import HeadEnsembles, TaskHeads
from sparserl.agents.topology_config import TopologyConfig
from sparserl.errors import ConfigError
from sparserl.layers import MultiHeadMLP, SparseEnsemble, SparseLinear, SparseMLP
from sparserl.optim import FusedAdam

SDE_KEYWORDS = ("use_sde", "log_std_init", "use_expln", "clip_mean")
"""What Stable-Baselines3 tells a SAC actor about state-dependent exploration."""
ACTIVATION_NAMES: dict[type[nn.Module], str] = {nn.ReLU: "relu", nn.Tanh: "tanh"}


def network(
    n_in: int,
    net_arch: list[int],
    n_out: int,
    *,
    name: str,
    topology: TopologyConfig,
    seed: int,
    activation_fn: type[nn.Module],
    output_activation: str = "identity",
    heads: TaskHeads | None = None,
) -> SparseMLP | MultiHeadMLP:
    """An MLP with the densities that `topology` gives its layers.

    Args:
        n_in: Inputs; with heads the features of an observation, its task id included.
        net_arch: Hidden widths.
        n_out: Outputs.
        name: Full name; what stands before the first dot says whether it is the `actor` or a `critic`.
        topology: Of the agent.
        seed: Root seed of the initial topology.
        activation_fn: Hidden activation.
        output_activation: Name of the last one.
        heads: For an output layer for each task.

    Raises:
        ConfigError: If the activation is neither ReLU nor Tanh.
    """
    if activation_fn not in ACTIVATION_NAMES:
        known = ", ".join(activation.__name__ for activation in ACTIVATION_NAMES)
        raise ConfigError(f"sparse networks know the activations {known}, got {activation_fn.__name__}")
    sizes = [n_in if heads is None else heads.features(n_in), *net_arch, n_out]
    shapes = list(zip(sizes[1:], sizes[:-1], strict=True))
    topology = topology.of(name.partition(".")[0])
    options: dict[str, Any] = {
        "start_dense": topology.start_dense,
        "initial_value": topology.part("initial_value"),
        "seed": seed,
        "name": name,
        "activation": ACTIVATION_NAMES[activation_fn],
        "output_activation": output_activation,
    }
    if heads is None:
        return SparseMLP.random(sizes, topology.densities(shapes), **options)
    return MultiHeadMLP.random(sizes, topology.densities(shapes), heads.n_tasks, **options)


class SparseActor(BasePolicy):
    """A network from observations to what actions are made of; `SparseTD3Actor` and `SparseSACActor` say what.

    Args:
        observation_space: Box.
        action_space: Box with finite bounds.
        net_arch: Hidden widths.
        features_extractor: Flattens observations.
        features_dim: Number of features it gives.
        activation_fn: Hidden activation, `nn.ReLU` or `nn.Tanh`.
        normalize_images: As in Stable-Baselines3.
        topology: Densities of the layers.
        topology_seed: Root seed of the initial topology.
        heads: For an output layer for each task; observations then end with a task id.
    """

    network_name: ClassVar[str]
    """Attribute that holds the network."""
    method: ClassVar[str]
    """Method that gives the network's output."""
    outputs_per_action: ClassVar[int]
    output_activation: ClassVar[str]

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        net_arch: list[int],
        features_extractor: BaseFeaturesExtractor,
        features_dim: int,
        activation_fn: type[nn.Module] = nn.ReLU,
        normalize_images: bool = True,
        *,
        topology: TopologyConfig,
        topology_seed: int,
        heads: TaskHeads | None = None,
    ):
        super().__init__(
            observation_space,
            action_space,
            features_extractor=features_extractor,
            normalize_images=normalize_images,
            squash_output=True,
        )
        self.heads = heads
        own = network(
            features_dim,
            net_arch,
            self.outputs_per_action * get_action_dim(action_space),
            name=f"actor.{self.network_name}",
            topology=topology,
            seed=topology_seed,
            activation_fn=activation_fn,
            output_activation=self.output_activation,
            heads=heads,
        )
        self.add_module(self.network_name, own)
        self.ensembles = _ensembles(self, heads, {self.method: [own]})

    @property
    def network(self) -> SparseMLP | MultiHeadMLP:
        """From features to what actions are made of."""
        own: SparseMLP | MultiHeadMLP = getattr(self, self.network_name)
        return own

    def outputs(self, obs: torch.Tensor) -> torch.Tensor:
        """(B, obs) to the (B, outputs) that actions are made of."""
        features = self.extract_features(obs, self.features_extractor)
        y: torch.Tensor = self.network(*([features] if self.heads is None else self.heads.split(features)))
        return y

    def act(self, observations: FloatArray, deterministic: bool) -> FloatArray:
        """(B, obs) to (B, action) in [-1, 1], without autograd."""
        return self.actions_of(evaluate(self, self.method, observations)[0], deterministic)

    def actions_of(self, outputs: FloatArray, deterministic: bool) -> FloatArray:
        """(B, outputs) of the network to (B, action) in [-1, 1]."""
        raise NotImplementedError


class SparseTD3Actor(SparseActor):
    """Deterministic policy `tanh(mu(obs))`; the sparse twin of Stable-Baselines3's TD3 `Actor`."""

    network_name, method, outputs_per_action, output_activation = "mu", "forward", 1, "tanh"
    mu: SparseMLP | MultiHeadMLP

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        """(B, obs) to (B, action) in [-1, 1]."""
        return self.outputs(obs)

    def actions_of(self, outputs: FloatArray, deterministic: bool) -> FloatArray:
        """They are the actions."""
        del deterministic
        return outputs

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> torch.Tensor:
        actions: torch.Tensor = self(observation)
        return actions


class SparseSACActor(SparseActor):
    """Gaussian policy squashed by tanh; the sparse twin of Stable-Baselines3's SAC `Actor`.

    One network gives mean and log standard deviation of each action, as if its two output layers were one.
    """

    network_name, method, outputs_per_action, output_activation = "pi", "distribution", 2, "identity"
    pi: SparseMLP | MultiHeadMLP

    def distribution(self, obs: torch.Tensor) -> torch.Tensor:
        """(B, obs) to (B, 2 action): means, then unclipped log standard deviations."""
        return self.outputs(obs)

    def actions_of(self, outputs: FloatArray, deterministic: bool) -> FloatArray:
        """From means and log standard deviations: the mode, or a draw from torch's global generator."""
        gaussian = SquashedGaussian(outputs)
        return gaussian.mode() if deterministic else gaussian.sample()[0]

    def forward(self, obs: torch.Tensor, deterministic: bool = False) -> torch.Tensor:
        """(B, obs) to (B, action) in [-1, 1]; recorded by no autograd."""
        return torch.from_numpy(self.actions_of(self.distribution(obs).detach().numpy(), deterministic))

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> torch.Tensor:
        actions: torch.Tensor = self(observation, deterministic)
        return actions


class SparseCritic(BaseModel):
    """`n_critics` action values `mlp(obs, action)`; the sparse twin of Stable-Baselines3's `ContinuousCritic`.

    Each critic has a topology of its own. Arguments as in `SparseActor`.
    """

    features_extractor: BaseFeaturesExtractor

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        net_arch: list[int],
        features_extractor: BaseFeaturesExtractor,
        features_dim: int,
        activation_fn: type[nn.Module] = nn.ReLU,
        normalize_images: bool = True,
        n_critics: int = 2,
        share_features_extractor: bool = False,
        *,
        topology: TopologyConfig,
        topology_seed: int,
        heads: TaskHeads | None = None,
    ):
        super().__init__(
            observation_space,
            action_space,
            features_extractor=features_extractor,
            normalize_images=normalize_images,
        )
        self.heads = heads
        action_dim = get_action_dim(action_space)
        if share_features_extractor:
            raise ConfigError("sparse policies do not share a features extractor between actor and critic")
        self.q_networks: list[SparseMLP | MultiHeadMLP] = []
        for critic in range(n_critics):
            q_network = network(
                features_dim + action_dim,
                net_arch,
                1,
                name=f"critic.qf{critic}",
                topology=topology,
                seed=topology_seed,
                activation_fn=activation_fn,
                heads=heads,
            )
            self.add_module(f"qf{critic}", q_network)
            self.q_networks.append(q_network)
        self._all = None if heads else SparseEnsemble(self.q_networks)  # type: ignore[arg-type]  # no heads, no MultiHeadMLP
        self.ensembles = _ensembles(self, heads, {"forward": self.q_networks, "q1_forward": self.q_networks[:1]})

    def _inputs(self, obs: torch.Tensor, actions: torch.Tensor) -> list[torch.Tensor]:
        features = self.extract_features(obs, self.features_extractor)
        split = [features] if self.heads is None else self.heads.split(features)
        return [torch.cat([split[0], actions], dim=1), *split[1:]]

    def forward(self, obs: torch.Tensor, actions: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(B, obs), (B, action) to a (B, 1) value of each critic."""
        inputs = self._inputs(obs, actions)
        if self._all is not None:
            return tuple(self._all(*inputs))
        return tuple(q_network(*inputs) for q_network in self.q_networks)

    def q1_forward(self, obs: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """(B, obs), (B, action) to the (B, 1) value of the first critic."""
        value: torch.Tensor = self.q_networks[0](*self._inputs(obs, actions))
        return value


def _ensembles(
    network: BaseModel, heads: TaskHeads | None, methods: Mapping[str, Sequence[SparseMLP | MultiHeadMLP]]
) -> dict[str, SparseEnsemble | HeadEnsembles]:
    """The networks behind each method, if they read observations as they are."""
    space = network.observation_space
    if type(network.features_extractor) is not FlattenExtractor or not isinstance(space, spaces.Box):
        return {}
    if len(space.shape) != 1 or space.dtype.kind != "f":
        return {}
    if heads is None:
        return {method: SparseEnsemble(networks) for method, networks in methods.items()}  # type: ignore[arg-type]  # as above
    return {method: _by_task(heads, networks) for method, networks in methods.items()}  # type: ignore[arg-type]  # have heads


def _by_task(heads: TaskHeads, networks: Sequence[MultiHeadMLP]) -> HeadEnsembles:
    by_task = [SparseEnsemble([own.by_task[task] for own in networks]) for task in range(heads.n_tasks)]
    return HeadEnsembles(heads, by_task, [parameter for own in networks for parameter in own.parameters()])


class SparsePolicyMixin(BasePolicy):
    """What the sparse policies share; mixed into a policy class of Stable-Baselines3, which builds actor and critics.

    Args:
        topology: Densities of the layers; `TopologyConfig()` if None.
        topology_seed: Root seed of the initial topologies.
        heads: For networks with an output layer for each task; observations then end with a task id.
        args: As in Stable-Baselines3.
        kwargs: As in Stable-Baselines3. `net_arch` defaults to two layers of 256, and Adam is `FusedAdam`.
    """

    takes_topology = True
    actor_class: ClassVar[type[SparseActor]]
    actor: Any
    critic: Any
    actor_kwargs: dict[str, Any]
    critic_kwargs: dict[str, Any]

    def __init__(
        self,
        *args: Any,
        topology: TopologyConfig | None = None,
        topology_seed: int = 0,
        heads: TaskHeads | None = None,
        **kwargs: Any,
    ):
        # Set before the base class runs, because it builds the networks.
        self.topology = topology or TopologyConfig()
        self.topology_seed = topology_seed
        self.heads = heads
        kwargs["net_arch"] = kwargs.get("net_arch") or [256, 256]
        if kwargs.get("optimizer_class", torch.optim.Adam) is torch.optim.Adam:
            kwargs["optimizer_class"] = FusedAdam
        super().__init__(*args, **kwargs)

    def make_actor(self, features_extractor: BaseFeaturesExtractor | None = None) -> Any:
        """A sparse actor; Stable-Baselines3 calls it for the policy and for its target, if it has one."""
        return self.actor_class(**self._sparse(self.actor_kwargs, features_extractor))

    def make_critic(self, features_extractor: BaseFeaturesExtractor | None = None) -> Any:
        """Sparse critics; Stable-Baselines3 calls it for the critics and for their targets."""
        return SparseCritic(**self._sparse(self.critic_kwargs, features_extractor))

    def set_training_mode(self, mode: bool) -> None:
        """As in Stable-Baselines3, without walking through modules to which the mode makes no difference."""
        if self.actor.ensembles and self.critic.ensembles:
            for module in (self, self.actor, self.critic):
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
        space, actions = self.observation_space, self.action_space
        plain = self.actor.ensembles and isinstance(observation, np.ndarray) and observation.shape[-1:] == space.shape
        if not plain or observation.ndim > 2 or not isinstance(actions, spaces.Box):  # type: ignore[union-attr]
            return super().predict(observation, state, episode_start, deterministic)
        self.set_training_mode(False)
        rows = np.asarray(observation, np.float32).reshape(-1, observation.shape[-1])  # type: ignore[union-attr]
        scaled = self.actor.act(rows, deterministic).reshape(-1, *actions.shape)
        taken = self.unscale_action(scaled)
        return (taken if observation.ndim == 2 else taken[0]), state  # type: ignore[union-attr]

    @property
    def _own_arguments(self) -> dict[str, Any]:
        return {"topology": self.topology, "topology_seed": self.topology_seed, "heads": self.heads}

    def _sparse(self, kwargs: dict[str, Any], features_extractor: BaseFeaturesExtractor | None) -> dict[str, Any]:
        return {**self._update_features_extractor(kwargs, features_extractor), **self._own_arguments}

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), **self._own_arguments}


class SparseTD3Policy(SparsePolicyMixin, TD3Policy):
    """Stable-Baselines3's `TD3Policy` with `SparseTD3Actor` and `SparseCritic`; `"MlpPolicy"` of `DSTD3`."""

    actor_class = SparseTD3Actor


class SparseSACPolicy(SparsePolicyMixin, SACPolicy):
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


def sparse_layers(module: nn.Module, prefix: str) -> dict[str, SparseLinear]:
    """Sparse layers of a network by full name, e.g. `critic.qf0.1`."""
    return {f"{prefix}.{name}": layer for name, layer in module.named_modules() if isinstance(layer, SparseLinear)}


def goals(module: nn.Module, prefix: str) -> dict[str, int]:
    """Connections that layers are to have at the end of a density schedule, by full name."""
    return {
        f"{prefix}.{name}.{layer}": count
        for name, mlp in module.named_modules()
        if isinstance(mlp, SparseMLP | MultiHeadMLP)
        for layer, count in mlp.goals.items()
    }
