"""What makes features of images, of truly sparse layers."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, NatureCNN
from torch import nn

from sparserl.agents.networks.images import FEATURES, NATURE, image_shapes
from sparserl.errors import ConfigError, TopologyError
from sparserl.layers.convolution import SparseConv, kernel_of
from sparserl.layers.linear import linear
from sparserl.layers.sparse_cnn import check_begins_at_random
from sparserl.layers.sparse_mlp import begun
from sparserl.topology.config import TopologyConfig


class SparseNatureCNN(BaseFeaturesExtractor):
    """Stable-Baselines3's `NatureCNN` with convolutions and a linear layer whose connections alone exist.

    A kernel takes part as the matrix that multiplies a patch, and all four share the density among themselves. A layer
    of density 1 is torch's own, so that with the method `dense` this is that network. Weights, moments and operations
    follow the connections; time does not yet, because unfolding patches takes longer than multiplying by few
    connections (`SparseConv`): at images of 84 x 84, updates of TD3 at densities .5, .1 and .02 took .8, 1.2 and 1.9
    times those of dense ones.

    Args:
        observation_space: Images, channels first.
        features_dim: Number of features.
        normalized_image: Whether images are of floats in [0, 1] already, as in Stable-Baselines3.
        topology: Of the group that it belongs to, with one density.
        seed: Root seed of the initial topology.
        name: Full name, e.g. `actor.features_extractor`.

    Attributes:
        goals: Connections of its layers at the end of a density schedule, by name.

    Raises:
        ConfigError: If observations are no images.
        TopologyError: If densities or epsilons are given layer by layer, which are those of the layers behind it, or
            connections are to be judged by scores.

    Source:
        Mnih et al. 2015.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        features_dim: int = FEATURES,
        normalized_image: bool = False,
        *,
        topology: TopologyConfig,
        seed: int,
        name: str,
    ):
        super().__init__(observation_space, features_dim)
        if not is_image_space(observation_space, check_channels=False, normalized_image=normalized_image):
            raise ConfigError(f"CnnPolicy reads images, not {observation_space}; use MlpPolicy or MultiInputPolicy")
        _check_one_density(topology)
        *kernels, (_, n_flat) = image_shapes(observation_space).matrices
        shapes = [*kernels, (features_dim, n_flat)]
        names = [*(f"cnn.{2 * index}.kernel" for index in range(len(NATURE))), "linear.0"]
        densities, at_first = topology.shared_out(shapes), topology.shared_out_at_first(shapes)
        begins = list(zip(shapes, densities, at_first, strict=True))
        layers = [begun(topology, *begin, seed, f"{name}.{own}") for begin, own in zip(begins, names, strict=True)]
        modules: list[nn.Module] = []
        for convolution, kernel in zip(NATURE, layers, strict=False):
            modules += [_convolution(kernel, convolution.taps, convolution.stride), nn.ReLU()]
        self.cnn = nn.Sequential(*modules, nn.Flatten())
        self.linear = nn.Sequential(layers[-1], nn.ReLU())
        goals = {own: topology.goal(*begin[:2]) for own, begin in zip(names, begins, strict=True) if begin[1] < 1.0}
        self.goals = {own: goal for own, goal in goals.items() if goal is not None}

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """(B, channels, height, width) in [0, 1] to (B, features_dim)."""
        features: torch.Tensor = self.linear(self.cnn(observations))
        return features


def extractor_of(policy: Any, group: str) -> SparseNatureCNN:
    """What makes the features of a network of a sparse policy whose `features_extractor_class` is `SparseNatureCNN`."""
    extractor: SparseNatureCNN = policy.features_extractor_class(
        policy.observation_space,
        **policy.features_extractor_kwargs,
        topology=policy.topology.of(group),
        seed=policy.topology_seed,
        name=f"{group}.features_extractor",
    )
    return extractor


def layers_of_images(extractor: NatureCNN | SparseNatureCNN) -> dict[str, nn.Module]:
    """The linear layers of what makes features of images, by their names in the sparse one; kernels read patches."""
    kernels = {
        f"cnn.{place}.kernel": kernel_of(module)
        for place, module in enumerate(extractor.cnn)
        if isinstance(module, nn.Conv2d | SparseConv)
    }
    return {**kernels, "linear.0": extractor.linear[0]}


def _convolution(kernel: nn.Module, taps: int, stride: int) -> nn.Module:
    """The convolution of a kernel, torch's own if it is dense."""
    if not isinstance(kernel, nn.Linear):
        return SparseConv(kernel, (taps, taps), (stride, stride), ((0, 0), (0, 0)), (1, 1))
    n_out, n_in = linear(kernel).shape
    return nn.Conv2d(n_in // taps**2, n_out, taps, stride)


def _check_one_density(topology: TopologyConfig) -> None:
    check_begins_at_random(topology)
    for name in ("density", "epsilon"):
        given = getattr(topology, name)
        if isinstance(given, tuple):
            raise TopologyError(
                f"topology.{name} {list(given)} is layer by layer of networks that read vectors; with images give one "
                "number"
            )
