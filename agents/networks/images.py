"""Networks that read images: which there are, what they need, and how large they are before there is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first

from sparserl.errors import ConfigError
from sparserl.layers.convolution import Convolution, convolution_shapes

CNN_POLICY, MLP_POLICY = "CnnPolicy", "MlpPolicy"
"""Names of policies, as in Stable-Baselines3."""
FEATURES = 512
"""That `NatureCNN` makes of an image."""
NATURE = (Convolution(32, 8, 4), Convolution(64, 4, 2), Convolution(64, 3, 1))
"""Of Mnih et al. 2015, as Stable-Baselines3's `NatureCNN` has them; a linear layer to `FEATURES` follows."""


@dataclass(frozen=True)
class ImageShapes:
    """What the layers of `NATURE` are for an image.

    Attributes:
        matrices: (outputs, inputs) of each layer, a convolution as the product with a patch; the linear one last.
        activations: Numbers that they give for one image, together.
        patches: Numbers of the patches of an image that sparse kernels multiply, together.
    """

    matrices: Sequence[tuple[int, int]]
    activations: int
    patches: int


def policy_for(space: spaces.Space[Any], aliases: Sequence[str]) -> str:
    """The name of the policy for observations.

    Args:
        space: Of the observations.
        aliases: Names of policies that an agent knows.

    Raises:
        ConfigError: If they are images, and it has none for images or they are too small for one.
    """
    if not _are_images(space):
        return MLP_POLICY
    if CNN_POLICY not in aliases:
        raise ConfigError(f"this agent reads vectors, not images of shape {space.shape}")
    image_shapes(space)
    return CNN_POLICY


def image_shapes(space: spaces.Space[Any]) -> ImageShapes:
    """Sizes of the layers for images of a space, channels first or last.

    Raises:
        ConfigError: If a patch is larger than what it would be taken of.
    """
    assert isinstance(space, spaces.Box)
    first = is_image_space_channels_first(space)
    channels, height, width = space.shape if first else (space.shape[2], *space.shape[:2])
    if min(height, width) < _least():
        raise ConfigError(f"images must be at least {_least()} x {_least()}, got {height} x {width}")
    shapes = convolution_shapes((channels, height, width), NATURE)
    matrices = [*(one.matrix for one in shapes), (FEATURES, shapes[-1].features)]
    activations = sum(one.features for one in shapes)
    patches = sum(one.matrix[1] * one.n_places for one in shapes)
    return ImageShapes(matrices, activations + FEATURES, patches)


def _are_images(space: spaces.Space[Any]) -> bool:
    return isinstance(space, spaces.Box) and is_image_space(space)


def _least() -> int:
    """Side of the smallest image of which each convolution gives one place."""
    side = 1
    for convolution in reversed(NATURE):
        side = (side - 1) * convolution.stride + convolution.taps
    return side
