"""Sizes of networks that read images, by hand and against Stable-Baselines3's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import NatureCNN

from sparserl.agents.networks.images import image_shapes, policy_for
from sparserl.errors import ConfigError


def images(*shape: int) -> spaces.Box:
    return spaces.Box(0, 255, shape, np.uint8)


def test_atari_by_hand() -> None:
    shapes = image_shapes(images(4, 84, 84))  # 20 x 20, 9 x 9 and 7 x 7 places
    assert shapes.matrices == [(32, 256), (64, 512), (64, 576), (512, 3136)]
    assert shapes.activations == 32 * 400 + 64 * 81 + 64 * 49 + 512
    assert shapes.patches == 256 * 400 + 512 * 81 + 576 * 49


@pytest.mark.parametrize("sides", [(36, 36), (50, 90), (84, 84)])
def test_sizes_are_those_of_the_network(sides: tuple[int, int]) -> None:
    network = NatureCNN(images(3, *sides))
    weights = [parameter for parameter in network.parameters() if parameter.dim() > 1]
    for shapes in (image_shapes(images(3, *sides)), image_shapes(images(*sides, 3))):
        assert shapes.matrices == [tuple(weight.flatten(1).shape) for weight in weights]
    given: list[int] = []
    for module in (*list(network.cnn)[:-1:2], network.linear[0]):
        module.register_forward_hook(lambda _, __, y: given.append(y.numel()))
    network(torch.zeros(1, 3, *sides))
    assert image_shapes(images(3, *sides)).activations == sum(given)


def test_which_policy_there_is() -> None:
    both = ("MlpPolicy", "CnnPolicy")
    assert policy_for(images(3, 36, 36), both) == "CnnPolicy"
    assert policy_for(spaces.Box(0, 1, (3,)), both) == "MlpPolicy"
    with pytest.raises(ConfigError, match=r"reads vectors, not images of shape \(3, 36, 36\)"):
        policy_for(images(3, 36, 36), both[:1])
    with pytest.raises(ConfigError, match="images must be at least 36 x 36, got 36 x 35"):
        policy_for(images(36, 35, 3), both)
