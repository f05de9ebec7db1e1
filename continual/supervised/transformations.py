"""What a task may do to the samples that it shares with others: pictures that are turned, noise, other orders.

Decides what each transformation does to features as they are stored. Independent of tasks and files.

Source:
    Permuted and rotated MNIST as in Goodfellow et al. 2013 and Lopez-Paz and Ranzato 2017; turning is SciPy's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from sparserl.continual.supervised.splits import Features
from sparserl.continual.supervised.tasks import Integers
from sparserl.errors import ConfigError
from sparserl.ranges import CountOrZero, NotNegative, Number, check_ranges
from sparserl.seeding import stream


@dataclass(frozen=True)
class Transformation:
    """What is done to the samples of a task, in the order of these fields; the defaults do nothing.

    Raises:
        ConfigError: If a number is out of range.
    """

    rotate: Number = 0.0
    """Turn pictures counter-clockwise by so many degrees; corners that come in are 0."""
    flip: Literal["left_right", "up_down"] | None = None
    """Mirror pictures."""
    invert: bool = False
    """Make what is bright dark: x becomes max - x. For bytes, and data sets whose range is known."""
    noise: NotNegative = 0.0
    """Standard deviation of Gaussian noise on each feature (scaled to [0, 1] where its range is known), drawn once for
    each sample from the seed of the run."""
    permute: bool | CountOrZero = False
    """Put features in a random order, drawn from the seed of the run: the one of that number, which other tasks may
    have too; true is the index of the task."""

    def __post_init__(self) -> None:
        check_ranges(self, "transform.", hyphens=False)

    @property
    def said(self) -> str:
        """What it does, in words; empty if nothing."""
        words = {
            f"rotated {self.rotate:g}": self.rotate % 360.0 != 0.0,
            f"flipped {self.flip}": self.flip is not None,
            "inverted": self.invert,
            f"noise {self.noise:g}": self.noise > 0.0,
            "permuted" if self.permute is True else f"permutation {self.permute}": self.permute is not False,
        }
        return ", ".join(word for word, is_done in words.items() if is_done)

    def done(self, task: int) -> tuple[Any, ...]:
        """What is the same for two tasks if they do the same, however it is written; `task` is the index of one."""
        number = None if self.permute is False else order_number(self, task)
        return self.rotate % 360.0, self.flip, self.invert, self.noise, number

    @property
    def is_of_pictures(self) -> bool:
        """Whether features must be pictures."""
        return self.rotate % 360.0 != 0.0 or self.flip is not None


@dataclass(frozen=True)
class Stored:
    """Samples as they are stored.

    Attributes:
        x: (N, F) features.
        scale: Brings them to [0, 1] where their range is known; 1 otherwise.
    """

    x: Features
    scale: float


def transformed(
    samples: Stored, how: Transformation, shape: tuple[int, ...] | None, rng: np.random.Generator
) -> Stored:
    """Samples after all but `permute`; the same object if nothing changes.

    Args:
        samples: Those of one task.
        how: What is done.
        shape: Of a picture: height and width, or channels, height and width; None if features are no pictures.
        rng: Draws noise.

    Raises:
        ConfigError: If features are no pictures and must be, their range is unknown and must be known, or noise is
            beyond float32.
    """
    if how.is_of_pictures:
        if shape is None:
            raise ConfigError(f"{how.said} is for pictures: say their `shape`, e.g. [28, 28]")
        if int(np.prod(shape)) != samples.x.shape[1]:
            raise ConfigError(f"shape {list(shape)} is not that of {samples.x.shape[1]} features")
    for is_wanted, change in (
        (how.is_of_pictures, lambda one: _turned(one, how, shape)),
        (how.invert, _inverted),
        (how.noise > 0.0, lambda one: _noisy(one, how.noise, rng)),
    ):
        if is_wanted:
            samples = change(samples)
    return samples


def order_of(how: Transformation, task: int, n_features: int, seed: int) -> Integers | None:
    """(F,) feature k is the stored feature `order[k]`; None as stored. The same draws as permuted MNIST.

    Args:
        how: What is done.
        task: Index of the task.
        n_features: F.
        seed: Root seed of the run.
    """
    if how.permute is False:
        return None
    return stream(seed, "permutation", str(order_number(how, task))).permutation(n_features)


def order_number(how: Transformation, task: int) -> int:
    """Number of the order that features are put in."""
    return task if how.permute is True else how.permute


def _turned(samples: Stored, how: Transformation, shape: Any) -> Stored:
    from scipy import ndimage  # only turned pictures need it

    pictures: Any = samples.x.reshape(len(samples.x), *shape)
    quarters, rest = divmod(how.rotate % 360.0, 90.0)
    if rest == 0.0 and (quarters % 2 == 0 or shape[-1] == shape[-2]):
        pictures = np.rot90(pictures, int(quarters), axes=(-2, -1))
    else:
        grey = pictures.astype(np.float32)
        found = ndimage.rotate(grey, how.rotate, axes=(-1, -2), reshape=False, order=1, mode="grid-constant")
        pictures = np.rint(found).astype(np.uint8) if samples.x.dtype == np.uint8 else found
    if how.flip is not None:
        pictures = np.flip(pictures, -1 if how.flip == "left_right" else -2)
    flat: Any = np.ascontiguousarray(pictures.reshape(samples.x.shape))
    return Stored(flat, samples.scale)


def _inverted(samples: Stored) -> Stored:
    if samples.scale == 1.0 and samples.x.dtype != np.uint8:
        raise ConfigError("inverted is for bytes and data sets whose range is known: the largest value is not")
    largest = 255 if samples.scale == 1.0 else round(1.0 / samples.scale)
    inverted: Any = (largest - samples.x).astype(samples.x.dtype)
    return Stored(inverted, samples.scale)


def _noisy(samples: Stored, std: float, rng: np.random.Generator) -> Stored:
    drawn = rng.standard_normal(samples.x.shape, dtype=np.float32)
    with np.errstate(over="ignore"):
        noisy = samples.x.astype(np.float32) * np.float32(samples.scale) + np.float32(std) * drawn
    if not np.isfinite(noisy).all():
        raise ConfigError(f"noise {std:g} is beyond what float32 holds")
    return Stored(noisy, 1.0)
