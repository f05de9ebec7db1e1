"""Which pixels the networks of an agent use that see images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.preprocessing import maybe_transpose
from torch import nn

from sparserl.agents.networks.chains import chains_of, check_reads_vectors_or_images
from sparserl.agents.parts import AgentParts
from sparserl.experiment.visited import Visited
from sparserl.layers.convolution import kernel_of
from sparserl.layers.linear import linear
from sparserl.metrics.inputs import Floats, InputUse, input_attribution, input_degree, input_strength

MOST_IMAGES = 200
"""Of all that are visited, in which derivatives by pixels are taken."""
Outputs = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class _Answers:
    """A network that reads images, and other numbers behind them.

    Attributes:
        extractor: Makes features of images.
        chain: Reads them, and the other numbers.
        outputs: Makes of its outputs what is differentiated.
        image: Channels, height and width.
    """

    extractor: Any
    chain: nn.Module
    outputs: Outputs
    image: tuple[int, int, int]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        count = int(np.prod(self.image))
        features = self.extractor(x[:, :count].reshape(-1, *self.image))
        return self.outputs(self.chain(torch.cat([features, x[:, count:]], dim=1)))


def pixel_use(agent: AgentParts, samples: Visited, actions: Sequence[str], outputs: Outputs) -> list[InputUse]:
    """What the networks of an agent make of the pixels of images, the one that acts first.

    Derivatives are by shares of the brightest pixel; strength and connections are those of the first kernel, at all of
    its places.

    Args:
        agent: Its networks read images.
        samples: Images as the environment gives them, and what was done.
        actions: Names of the entries of an action.
        outputs: Makes of the outputs of the network that acts what is differentiated.

    Raises:
        ConfigError: If a network reads something else.
    """
    check_reads_vectors_or_images(agent, "looked into")
    space: Any = agent.observation_space
    images = np.stack([maybe_transpose(image, space) for image in samples[0]]) / np.float32(255)
    pixels = images.reshape(len(images), -1)
    names = [f"channel {channel}, row {row}, column {column}" for channel, row, column in np.ndindex(*space.shape)]
    uses = []
    for group, network in agent.networks.items():
        extractor: Any = network.features_extractor
        chains = [*chains_of(network).values()]
        reads_actions = linear(chains[0][0]).shape[1] > extractor.features_dim
        policy: Any = agent.policy
        x = np.concatenate([pixels, policy.scale_action(samples[1])], axis=1) if reads_actions else pixels
        made = outputs if network is agent.acting else _as_they_are
        answers = [_Answers(extractor, chain, made, space.shape) for chain in chains]
        attribution = np.mean([input_attribution(one, torch.from_numpy(np.float32(x))) for one in answers], axis=0)
        strength, degree = (
            _of_inputs(measure, extractor, chains, space.shape) for measure in (input_strength, input_degree)
        )
        inputs = [*names, *(actions if reads_actions else [])]
        uses.append(InputUse(group, inputs, attribution, strength, degree, space.shape))
    return uses


def _as_they_are(y: torch.Tensor) -> torch.Tensor:
    return y


def _of_inputs(
    measure: Callable[[nn.Module], Floats], extractor: Any, chains: Sequence[Any], image: tuple[int, int, int]
) -> Floats:
    """(n_in,) of pixels, summed over all patches that they are in, then of what layers read beside the features."""
    first = extractor.cnn[0]
    sides = zip(image[1:], first.kernel_size, first.stride, strict=True)
    places = int(np.prod([(side - taps) // step + 1 for side, taps, step in sides]))
    patches = torch.from_numpy(measure(kernel_of(first)))[None, :, None].expand(1, -1, places)
    whole = nn.functional.fold(patches, image[1:], first.kernel_size, stride=first.stride)
    beside = np.mean([measure(chain[0])[extractor.features_dim :] for chain in chains], axis=0)
    return np.concatenate([whole.numpy().ravel(), beside])
