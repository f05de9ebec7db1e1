"""Methods that keep samples of earlier tasks: replay trains on them again, agem keeps their loss from rising.

What a sample is and how it is kept, the learner knows: labelled samples of a classifier, transitions of an agent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from sparserl.continual.learner import Group, Kind, Learner, Memory, TaskMemory
from sparserl.continual.shared.projection import project
from sparserl.continual.strategies.options import Options
from sparserl.continual.strategies.strategy import Strategy
from sparserl.ranges import Count, Repeats


class WithMemory(Strategy):
    """A method that keeps samples of earlier tasks.

    Attributes:
        kept: The samples; None where the learner keeps them all itself.
    """

    kept: Memory | None = None

    def state_dict(self) -> dict[str, Any]:
        return {} if self.kept is None else self.kept.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if self.kept is not None:
            self.kept.load_state_dict(state)

    def numbers_kept(self) -> int:
        return 0 if self.kept is None else self.kept.numbers()

    def memory(self) -> dict[str, int]:
        return {} if self.kept is None else self.kept.sizes()


@dataclass(frozen=True)
class ReplayOptions(Options):
    """What is kept.

    Raises:
        ConfigError: If a value is out of range.
    """

    samples: Count | None = None
    """Classifiers: samples kept in all, equally many of each task so far, 4400 by default: the larger memory of Hsu et
    al. (the other has 1100), which costs as much as the anchor and importances of online EWC there."""
    batch_scale: Repeats | None = None
    """Agents: transitions per update, in units of agent.batch-size, since all tasks share a batch; 4 by default, as in
    Continual World."""

    group: ClassVar[str] = "replay"
    defaults: ClassVar[Mapping[Kind, Mapping[str, Any]]] = {
        "classifier": {"samples": 4400},
        "agent": {"batch_scale": 4},
    }


class Replay(WithMemory):
    """Training on earlier tasks again.

    Classifiers: naive rehearsal. Each batch is joined by one of equal size from the memory, with one cross-entropy over
    both. The memory is shared equally by the tasks so far; samples of a task are drawn at random, so its classes have
    the shares they have in the data.
    Agents: perfect memory. The replay buffer keeps the transitions of all tasks, and a batch is uniform over them;
    nothing is kept beside it.

    Source:
        Hsu et al. 2018, and its code. There the memory is repeated as often as it fits into the task and mixed with it,
        so that a batch of 128 has about 64 old samples and a task about twice as many steps.
        "Perfect memory" of Wolczyk et al. 2021.
    """

    options: ReplayOptions
    kept: TaskMemory | None = None

    def attach(self, learner: Learner) -> None:
        super().attach(learner)
        self.kept = learner.rehearse(self.options)

    def loss(self, learner: Any, batch: Any) -> torch.Tensor:
        """Cross-entropy of new and old samples."""
        if self.kept is not None and len(self.kept):
            batch = batch.joined([batch, learner.remember(self.kept, len(batch))])
        return super().loss(learner, batch)

    def end_task(self, learner: Learner) -> None:
        if self.kept is not None and self.options.samples is not None:
            self.kept.keep(self.options.samples // (learner.task + 1))


@dataclass(frozen=True)
class AGEMOptions(Options):
    """Size of the memory and of what is drawn from it.

    Raises:
        ConfigError: If a value is out of range.
    """

    samples_per_task: Count | None = None
    """Classifiers: samples kept of each task, 880 by default: on five tasks as many in all as replay keeps."""
    transitions_per_task: Count | None = None
    """Agents: transitions kept of each task, 10,000 by default, as in Continual World."""
    batch_size: Count | None = None
    """Samples of the memory whose loss must not rise, drawn anew each step. Classifiers: 256, two training batches;
    agents: 128, as in Continual World."""

    group: ClassVar[str] = "agem"
    defaults: ClassVar[Mapping[Kind, Mapping[str, Any]]] = {
        "classifier": {"samples_per_task": 880, "batch_size": 256},
        "agent": {"transitions_per_task": 10_000, "batch_size": 128},
    }


class AGEM(WithMemory):
    """Averaged gradient episodic memory: no step goes, to first order, against the mean loss on the memory.

    The rule is for plain SGD; other optimizers bend the projected gradient.

    Source:
        Chaudhry et al. 2019, "Efficient Lifelong Learning with A-GEM", eq. 11, over all parameters of a group jointly;
        Wolczyk et al. 2021 for what agents keep.

    Known differences from Continual World's code:
        - Actor and critics are projected each by itself, since one steps before the other's gradient is formed; there,
          jointly.
    """

    options: AGEMOptions
    kept: TaskMemory | None = None

    def attach(self, learner: Learner) -> None:
        super().attach(learner)
        self.kept = learner.new_memory()

    def before_step(self, learner: Learner, group: Group) -> None:
        assert self.kept is not None
        if not len(self.kept):
            return
        references = learner.gradients(group, learner.remember(self.kept, self.options.batch_size or 0))
        parameters = list(group.module.parameters())
        without = [parameter for parameter in parameters if parameter.grad is None]  # such as heads of other tasks
        for parameter in without:
            parameter.grad = torch.zeros_like(parameter)
        project([parameter.grad for parameter in parameters], references)  # type: ignore[misc]  # all have one now
        for parameter in without:
            if not parameter.grad.any():  # type: ignore[union-attr]  # given above
                parameter.grad = None  # or weight decay and moments would move it

    def end_task(self, learner: Learner) -> None:
        assert self.kept is not None
        self.kept.keep(self.options.samples_per_task or self.options.transitions_per_task or 0)
