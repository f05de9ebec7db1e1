"""Methods that keep some samples of each task: replay trains on them again, agem keeps their loss from rising.

Decides which samples are kept and when they are drawn. Refuses to know how a task is trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sparserl.continual.shared.projection import project
from sparserl.continual.supervised.learner import SupervisedLearner
from sparserl.continual.supervised.strategy import Strategy
from sparserl.continual.supervised.tasks import Batch, Integers, Samples, TaskSequence
from sparserl.errors import ConfigError
from sparserl.ranges import Count, check_ranges
from sparserl.seeding import stream


class SampleMemory:
    """Training samples of earlier tasks, drawn at random when a task ends.

    A sample is kept as its place in the training data, which the sequence holds in any case; its size is that of a
    copy.

    Args:
        sequence: What the samples are of.
        seed: Root seed of what is kept and drawn.

    Attributes:
        places: (k,) int64 places in the training samples of each task so far, in random order.
    """

    def __init__(self, sequence: TaskSequence, seed: int):
        self._sequence, self._seed = sequence, seed
        self.places: list[Integers] = []

    def __len__(self) -> int:
        return sum(own.size for own in self.places)

    def keep(self, count: int) -> None:
        """Adds up to `count` samples of the next task, without replacement, and leaves as many of each earlier one."""
        task = len(self.places)
        drawn = stream(self._seed, "kept_samples", str(task)).permutation(len(self._sequence.tasks[task].train))
        self.places = [own[:count] for own in [*self.places, drawn]]

    def batch(self, size: int, step: int) -> Batch:
        """`size` samples, each drawn uniformly among all, with replacement; `step` says which draw it is."""
        chosen = np.sort(stream(self._seed, "memory_batch", str(step)).integers(len(self), size=size))
        ends = np.cumsum([own.size for own in self.places])
        parts = np.split(chosen, np.searchsorted(chosen, ends[:-1]))
        return Batch.joined(
            [
                Batch.of(task, self._sequence.tasks[task].train, own[part - (end - own.size)])
                for task, (own, part, end) in enumerate(zip(self.places, parts, ends, strict=True))
                if part.size
            ]
        )

    def state_dict(self) -> dict[str, Any]:
        """Which samples are kept."""
        return {"places": [torch.from_numpy(own) for own in self.places]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keeps these samples."""
        self.places = [own.numpy() for own in state["places"]]

    def size_bytes(self) -> int:
        """Bytes of the samples."""
        return sum(
            sample_bytes(task.train, own.size)
            for task, own in zip(self._sequence.tasks[: len(self.places)], self.places, strict=True)
        )


def sample_bytes(samples: Samples, count: int) -> int:
    """Bytes of `count` of the samples, as stored, with their labels and tasks as int64."""
    return count * int(samples.features.shape[1] * samples.features.itemsize + 8 + 8)


class _WithMemory(Strategy):
    def __init__(self, *arguments: Any, **named: Any):
        super().__init__(*arguments, **named)
        self.kept = SampleMemory(self.sequence, self.seed)

    def state_dict(self) -> dict[str, Any]:
        """The memory."""
        return self.kept.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes the memory."""
        self.kept.load_state_dict(state)

    def memory(self) -> dict[str, int]:
        """Bytes of the samples."""
        return {"samples": self.kept.size_bytes()}


@dataclass(frozen=True)
class ReplayOptions:
    """Size of the memory.

    Raises:
        ConfigError: If a value is out of range.
    """

    samples: Count = 4400
    """Samples kept in all, equally many of each task so far. Default: the larger memory of Hsu et al. (the other has
    1100), which costs as much as the anchor and importances of online EWC there."""

    def __post_init__(self) -> None:
        check_ranges(self, "replay.")


class Replay(_WithMemory):
    """Naive rehearsal: each batch is joined by one of equal size from the memory, with one cross-entropy over both.

    The memory is shared equally by the tasks so far; samples of a task are drawn at random, so its classes have the
    shares they have in the data.

    Source:
        Hsu et al. 2018, and its code. There the memory is repeated as often as it fits into the task and mixed with it,
        so that a batch of 128 has about 64 old samples and a task about twice as many steps.
    """

    options: ReplayOptions

    def check(self, config: Any) -> None:
        """Raises ConfigError if the memory is too small for a sample of each task."""
        if self.options.samples < len(self.sequence):
            raise ConfigError(
                f"replay.samples must be at least {len(self.sequence)}, one for each task, got {self.options.samples}"
            )

    def loss(self, learner: SupervisedLearner, batch: Batch) -> torch.Tensor:
        """Cross-entropy of new and old samples."""
        if len(self.kept):
            batch = Batch.joined([batch, self.kept.batch(len(batch), learner.steps)])
        return learner.cross_entropy(batch)

    def end_task(self, learner: SupervisedLearner) -> None:
        """Makes room for samples of the task and keeps them."""
        self.kept.keep(self.options.samples // (learner.task + 1))


@dataclass(frozen=True)
class AGEMOptions:
    """Size of the memory and of what is drawn from it.

    Raises:
        ConfigError: If a value is out of range.
    """

    samples_per_task: Count = 880
    """Samples kept of each task. Default: on five tasks as many in all as replay keeps."""
    batch_size: Count = 256
    """Samples of the memory whose loss must not rise, drawn anew each step. Default: two training batches."""

    def __post_init__(self) -> None:
        check_ranges(self, "agem.")


class AGEM(_WithMemory):
    """Averaged gradient episodic memory: no step goes, to first order, against the mean loss on the memory.

    Source:
        Chaudhry et al. 2019, "Efficient Lifelong Learning with A-GEM", eq. 11, over all parameters jointly. The rule is
        for plain SGD; other optimizers bend the projected gradient.
    """

    options: AGEMOptions

    def before_step(self, learner: SupervisedLearner) -> None:
        """Projects the gradient."""
        if not len(self.kept):
            return
        parameters = list(learner.network.parameters())
        remembered = self.kept.batch(self.options.batch_size, learner.steps)
        references = torch.autograd.grad(learner.cross_entropy(remembered), parameters)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        project(gradients, references)

    def end_task(self, learner: SupervisedLearner) -> None:
        """Keeps samples of the task."""
        del learner
        self.kept.keep(self.options.samples_per_task)
