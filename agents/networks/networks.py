"""Actor and critic networks of Stable-Baselines3's shape on truly sparse layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BaseModel, BasePolicy
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from sparserl.agents.networks.heads import HeadEnsembles, SharedTrunk, TaskHeads
from sparserl.agents.networks.squashed_gaussian import SquashedGaussian
from sparserl.agents.networks.traced_forward import Ensemble, evaluate
from sparserl.agents.replay.batch import FloatArray, Observations
from sparserl.agents.vectors import is_vector
from sparserl.errors import ConfigError
from sparserl.kernels.deferred import computed
from sparserl.layers import MultiHeadMLP, SparseEnsemble, SparseMLP
from sparserl.layers.batch_renorm import BatchNormOptions
from sparserl.layers.normalised_mlp import NormalisedMLP, ensemble_of
from sparserl.layers.norms import RunningNorm
from sparserl.layers.residual import ResidualMLP
from sparserl.topology.config import TopologyConfig

ACTIVATION_NAMES: dict[type[nn.Module], str] = {nn.ReLU: "relu", nn.Tanh: "tanh"}


def activation_name(activation_fn: type[nn.Module]) -> str:
    """What sparse networks call a hidden activation.

    Raises:
        ConfigError: If it is neither ReLU nor Tanh.
    """
    if activation_fn not in ACTIVATION_NAMES:
        known = ", ".join(activation.__name__ for activation in ACTIVATION_NAMES)
        raise ConfigError(f"sparse networks know the activations {known}, got {activation_fn.__name__}")
    return ACTIVATION_NAMES[activation_fn]


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
    norm: BatchNormOptions | None = None,
    running: RunningNorm | None = None,
) -> SparseMLP | MultiHeadMLP:
    """A network with the densities that `topology` gives its layers.

    Args:
        n_in: Inputs; with heads the features of an observation, its task id included.
        net_arch: Hidden widths; with residual blocks the width of each, which are the same.
        n_out: Outputs.
        name: Full name; what stands before the first dot is its group in the agent.
        topology: Of the agent.
        seed: Root seed of the initial topology.
        activation_fn: Hidden activation.
        output_activation: Name of the last one.
        heads: For an output layer for each task.
        norm: For a batch renormalisation before each layer; not with heads.
        running: Normalises observations for a network of residual blocks; None for a multilayer perceptron.

    Raises:
        ConfigError: If the activation is neither ReLU nor Tanh, or does not go with residual blocks, as neither heads
            nor other widths do.
        TopologyError: If the outputs of a sparse layer do not come in groups of `topology.pairs`.
    """
    sizes = [n_in if heads is None else heads.features(n_in), *net_arch, n_out]
    options: dict[str, Any] = {
        "topology": topology.of(name.partition(".")[0]),
        "seed": seed,
        "name": name,
        "activation": activation_name(activation_fn),
        "output_activation": output_activation,
    }
    if running is not None:
        if heads is not None:
            raise ConfigError("network simba has no output layer for each task: use network mlp")
        if not net_arch or len(set(net_arch)) > 1 or options.pop("activation") != "relu":
            raise ConfigError(f"network simba has blocks of one width, each with a ReLU, got {net_arch}")
        return ResidualMLP.blocks(n_in, net_arch[0], len(net_arch), n_out, running=running, **options)
    if heads is None:
        plain = SparseMLP.random(sizes, **options)
        return plain if norm is None else NormalisedMLP.of(plain, norm)
    return MultiHeadMLP.random(sizes, heads.n_tasks, **options)


class SparseActor(BasePolicy):
    """A network from observations to what actions are made of; its subclasses say what.

    Args:
        observation_space: Box.
        action_space: Of the kind that the subclass takes.
        net_arch: Hidden widths.
        features_extractor: Flattens observations.
        features_dim: Number of features it gives.
        activation_fn: Hidden activation, `nn.ReLU` or `nn.Tanh`.
        normalize_images: As in Stable-Baselines3.
        topology: Densities of the layers.
        topology_seed: Root seed of the initial topology.
        heads: For an output layer for each task; observations then end with a task id.
        norm: As of `network`.
        running: As of `network`.
    """

    group: ClassVar[str] = "actor"
    """Attribute of the agent that holds it."""
    network_name: ClassVar[str]
    """Attribute that holds the network."""
    method: ClassVar[str]
    """Method that gives the network's output."""
    outputs_per_action: ClassVar[int] = 1
    output_activation: ClassVar[str] = "identity"
    squashes: ClassVar[bool] = True
    """Whether actions are in [-1, 1] and become those of the environment by scaling."""

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: Any,
        net_arch: list[int],
        features_extractor: BaseFeaturesExtractor,
        features_dim: int,
        activation_fn: type[nn.Module] = nn.ReLU,
        normalize_images: bool = True,
        *,
        topology: TopologyConfig,
        topology_seed: int,
        heads: TaskHeads | None = None,
        norm: BatchNormOptions | None = None,
        running: RunningNorm | None = None,
    ):
        super().__init__(
            observation_space,
            action_space,
            features_extractor=features_extractor,
            normalize_images=normalize_images,
            squash_output=self.squashes,
        )
        self.heads = heads
        mlp = network(
            features_dim,
            net_arch,
            self.n_outputs(action_space),
            name=f"{self.group}.{self.network_name}",
            topology=topology,
            seed=topology_seed,
            activation_fn=activation_fn,
            output_activation=self.output_activation,
            heads=heads,
            norm=norm,
            running=running,
        )
        self.add_module(self.network_name, mlp)
        self.ensembles = plain_ensembles(self, {self.method: [mlp]}, heads)

    @classmethod
    def n_outputs(cls, action_space: Any) -> int:
        """Outputs of the network."""
        return cls.outputs_per_action * get_action_dim(action_space)

    @property
    def network(self) -> SparseMLP | MultiHeadMLP:
        """From features to what actions are made of."""
        mlp: SparseMLP | MultiHeadMLP = getattr(self, self.network_name)
        return mlp

    def outputs(self, obs: PyTorchObs) -> torch.Tensor:
        """(B, obs) to the (B, outputs) that actions are made of."""
        features = self.extract_features(obs, self.features_extractor)
        y: torch.Tensor = self.network(*([features] if self.heads is None else self.heads.split(features)))
        return y

    def act(self, observations: Observations, deterministic: bool) -> npt.NDArray[Any]:
        """(B, obs) to (B, action), without autograd: in [-1, 1], or of a discrete space."""
        return self.actions_of(evaluate(self, self.method, observations)[0], deterministic)

    def actions_of(self, outputs: FloatArray, deterministic: bool) -> npt.NDArray[Any]:
        """(B, outputs) of the network to what `act` gives."""
        raise NotImplementedError


class SparseTD3Actor(SparseActor):
    """Deterministic policy `tanh(mu(obs))`; the sparse twin of Stable-Baselines3's TD3 `Actor`."""

    network_name, method, output_activation = "mu", "forward", "tanh"
    mu: SparseMLP | MultiHeadMLP

    def forward(self, obs: PyTorchObs) -> torch.Tensor:
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

    network_name, method, outputs_per_action = "pi", "distribution", 2
    pi: SparseMLP | MultiHeadMLP

    def distribution(self, obs: PyTorchObs) -> torch.Tensor:
        """(B, obs) to (B, 2 action): means, then unclipped log standard deviations."""
        return self.outputs(obs)

    def actions_of(self, outputs: FloatArray, deterministic: bool) -> FloatArray:
        """From means and log standard deviations: the mode, or a draw from torch's global generator."""
        gaussian = SquashedGaussian(outputs)
        return gaussian.mode() if deterministic else gaussian.sample()[0]

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> torch.Tensor:
        """(B, obs) to (B, action) in [-1, 1]; recorded by no autograd."""
        return torch.from_numpy(self.actions_of(self.distribution(obs).detach().numpy(), deterministic))

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> torch.Tensor:
        actions: torch.Tensor = self(observation, deterministic)
        return actions


class SparseQNetwork(SparseActor):
    """A value of each action of a discrete space, the highest of which acts; the sparse twin of `QNetwork`."""

    group, network_name, method, squashes = "q_net", "q", "forward", False
    q: SparseMLP | MultiHeadMLP

    @classmethod
    def n_outputs(cls, action_space: Any) -> int:
        return int(action_space.n)

    def forward(self, obs: PyTorchObs) -> torch.Tensor:
        """(B, obs) to (B, actions)."""
        return self.outputs(obs)

    def actions_of(self, outputs: FloatArray, deterministic: bool) -> npt.NDArray[np.int64]:
        """The action of the highest value, the first of them; exploration is the agent's."""
        del deterministic
        best: npt.NDArray[np.int64] = computed(outputs).argmax(axis=1)
        return best

    def _predict(self, observation: PyTorchObs, deterministic: bool = True) -> torch.Tensor:
        actions: torch.Tensor = self(observation).argmax(dim=1)
        return actions


class SparseCritic(BaseModel):
    """`n_critics` action values `mlp(obs, action)`; the sparse twin of Stable-Baselines3's `ContinuousCritic`.

    Each critic has a topology of its own. Arguments as in `SparseActor` and `ContinuousCritic`; of a value there may be
    `n_quantiles`.

    Raises:
        ConfigError: If there would be no critic.
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
        running: RunningNorm | None = None,
        n_quantiles: int = 1,
        norm: BatchNormOptions | None = None,
    ):
        super().__init__(
            observation_space,
            action_space,
            features_extractor=features_extractor,
            normalize_images=normalize_images,
        )
        self.heads = heads
        action_dim = get_action_dim(action_space)
        if n_critics < 1:
            raise ConfigError(f"n_critics must be at least 1, got {n_critics}")
        self.share_features_extractor = share_features_extractor
        self.q_networks: list[SparseMLP | MultiHeadMLP] = []
        for critic in range(n_critics):
            q_network = network(
                features_dim + action_dim,
                net_arch,
                n_quantiles,
                name=f"critic.qf{critic}",
                topology=topology,
                seed=topology_seed,
                activation_fn=activation_fn,
                heads=heads,
                norm=norm,
                running=running,
            )
            self.add_module(f"qf{critic}", q_network)
            self.q_networks.append(q_network)
        self._all = None if heads else SparseEnsemble(self.q_networks)  # type: ignore[arg-type]  # no heads, no MultiHeadMLP
        self.ensembles = plain_ensembles(self, {"forward": self.q_networks, "q1_forward": self.q_networks[:1]}, heads)

    def _inputs(self, obs: PyTorchObs, actions: torch.Tensor) -> list[torch.Tensor]:
        # A shared extractor learns from the actor's loss alone, as in Stable-Baselines3.
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.share_features_extractor):
            features = self.extract_features(obs, self.features_extractor)
        split = [features] if self.heads is None else self.heads.split(features)
        return [torch.cat([split[0], actions], dim=1), *split[1:]]

    def forward(self, obs: PyTorchObs, actions: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(B, obs), (B, action) to the (B, 1) value of each critic, or its (B, n_quantiles)."""
        inputs = self._inputs(obs, actions)
        if self._all is not None:
            return tuple(self._all(*inputs))
        return tuple(q_network(*inputs) for q_network in self.q_networks)

    def q1_forward(self, obs: PyTorchObs, actions: torch.Tensor) -> torch.Tensor:
        """(B, obs), (B, action) to the (B, 1) value of the first critic."""
        value: torch.Tensor = self.q_networks[0](*self._inputs(obs, actions))
        return value


def plain_ensembles(
    network: BaseModel, methods: Mapping[str, Sequence[SparseMLP | MultiHeadMLP]], heads: TaskHeads | None = None
) -> dict[str, Ensemble]:
    """The networks behind each method, which then run in one call; none if they read something made of observations.

    Args:
        network: Holds them; what an agent asks for them is `network.ensembles`.
        methods: Name of a method -> the networks whose outputs it gives.
        heads: If they have an output layer for each task.
    """
    if type(network.features_extractor) is not FlattenExtractor or not is_vector(network.observation_space):
        return {}
    if heads is None:
        return {method: ensemble_of(networks) for method, networks in methods.items()}  # type: ignore[arg-type]  # as above
    return {method: _by_task(heads, networks) for method, networks in methods.items()}  # type: ignore[arg-type]  # have heads


def _by_task(heads: TaskHeads, networks: Sequence[MultiHeadMLP]) -> HeadEnsembles:
    by_task = [SparseEnsemble([one.by_task[task] for one in networks]) for task in range(heads.n_tasks)]
    parameters = [parameter for one in networks for parameter in one.parameters()]
    return HeadEnsembles(heads, by_task, SharedTrunk(networks), parameters)
