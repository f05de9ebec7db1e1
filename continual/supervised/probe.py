"""Derivatives of what a classifier says of training samples, for the importance of its parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from sparserl.continual.learner import Objective, Probe
from sparserl.continual.supervised.tasks import Batch
from sparserl.seeding import stream

if TYPE_CHECKING:
    from sparserl.continual.supervised.learner import SupervisedLearner

PROBED_AT_A_TIME = 250
"""Samples of a probe, at most."""
LABELS: dict[str, Callable[[torch.Tensor, torch.Tensor, np.random.Generator], torch.Tensor]] = {
    "true": lambda logits, y, rng: y,
    "predicted": lambda logits, y, rng: logits.argmax(dim=1),
    "sampled": lambda logits, y, rng: (logits + torch.from_numpy(rng.gumbel(size=logits.shape))).argmax(dim=1),
}
"""(logits (B, n_outputs), labels (B,), generator) -> labels (B,) whose log-probability is differentiated."""


@torch.no_grad()
def probes(learner: SupervisedLearner, objective: Objective, count: int, labels: str) -> Iterator[Probe]:
    """Training samples of the present task, drawn without replacement, the same ones whenever it is asked.

    Args:
        learner: Its network is differentiated.
        objective: What is differentiated; `outputs` are those that compete once the task is learned.
        count: Samples; all of them if the task has fewer.
        labels: In `LABELS`.
    """
    sequence, task = learner.sequence, learner.task
    samples = sequence.tasks[task].train
    indices = stream(learner.seed, "importance_samples", str(task)).permutation(len(samples))[:count]
    rng = stream(learner.seed, "fisher_labels", str(task))
    competes = torch.zeros(sequence.n_outputs)
    competes[list(sequence.competing(task, task))] = 1.0
    for start in range(0, indices.size, PROBED_AT_A_TIME):
        batch = Batch.of(task, samples, indices[start : start + PROBED_AT_A_TIME])
        if objective == "outputs":
            derivative = 2.0 * learner.network.outputs_in_use(batch.x) * competes
        else:
            logits = learner.network.outputs_in_use(batch.x) + learner.closed(batch)
            chosen = LABELS[labels](logits, batch.y, rng)
            derivative = logits.softmax(dim=1) - functional.one_hot(chosen, logits.shape[1])
        yield Probe(batch.x, [derivative], len(batch) / indices.size)
