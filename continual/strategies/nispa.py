"""NISPA: units that answer most to a task become stable, and connections are rewired so that nothing changes them.

A task is trained in phases of `phase_epochs` epochs. After phase t the fewest units of a hidden layer that hold the
share p of its summed activation on the task's samples are candidates, p = (1 + cos(pi t / phases)) / 2. Connections
from plastic units to candidates, and to outputs of classes seen so far, are dropped; as many grow at random positions
that lead to plastic units, those without outputs first. When the accuracy after a phase has fallen by more than
`tolerance` below the best one, or p is 5 % or less, the network is again what it was before the last drop, with the
candidates of that time. They are then stable: what leads to them comes from stable units, and never changes again. All
other weights are drawn anew.

Source:
    Gurbuz and Dovrolis 2022, "NISPA: Neuro-Inspired Stability-Plasticity Adaptation for Continual Learning in Sparse
    Networks" (ICML), and its released code.

Known differences from the released code:
    - A task has a fixed number of epochs: where its phases end earlier, the rest train the network that was kept; where
      they do not, the last candidates are taken. There a task takes as many phases as it needs.
    - Accuracy is that on the task's training samples; there a tenth of them is held out. A phase ends with the network
      of its last epoch; there with that of the best one.
    - The connections of a layer are counted exactly; there each exists with the probability `density`.
    - A unit that gets an output again gets a connection of any weight; there of weight 0.
    - With the task given, outputs of other tasks do not compete; there their logits are 0.

Classifiers alone: phases end by accuracy, which an agent does not have. Tasks must have outputs of their own, since
those of a finished task read nothing that changes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch

from sparserl.continual.learner import Kind, Learner
from sparserl.continual.shared.owned import FREE
from sparserl.continual.shared.task_network import ClassifierNetwork, TaskNetwork
from sparserl.continual.shared.usage import ConnectionUsage
from sparserl.continual.strategies.options import Options
from sparserl.continual.strategies.strategy import BringsConnections
from sparserl.errors import CheckpointError, ConfigError
from sparserl.layers import SparseLinear
from sparserl.layers.linear import biases_of
from sparserl.ranges import PositiveShare, Range, Repeats, Share
from sparserl.seeding import stream
from sparserl.topology.free_positions import n_open, random_free
from sparserl.topology.rewire import difference, exchange
from sparserl.topology.structure import (
    NOTHING,
    Constraint,
    Flags,
    FloatArray,
    LayerView,
    Positions,
    Slots,
    SparseTopology,
)

LEAST = 0.05
"""Share of the activation at or below which no more units become plastic (code)."""
Growth = Literal["any", "from_stable", "from_plastic"]


@dataclass(frozen=True)
class NISPAOptions(Options):
    """Connections, and how a task's stable units are found. Defaults: the released script for MNIST.

    Raises:
        ConfigError: If a value is out of range.
    """

    density: PositiveShare = 0.1
    """Connections of each layer, as a share of all possible ones, in (0, 1]."""
    phase_epochs: Repeats = 5
    """Epochs between two drops; a task has at least two phases."""
    phases: Annotated[int, Range("[3, 1e6]")] = 30
    """Phases after which no activation would have to be held by candidates, at least 3: k of the cosine."""
    tolerance: Share = 0.005
    """Accuracy that a drop may cost, in [0, 1]."""
    growth: Growth = "any"
    """Where connections come from that grow: from any unit, or from stable or plastic ones as long as there is room."""

    group: ClassVar[str] = "nispa"
    defaults: ClassVar[Mapping[Kind, Mapping[str, Any]]] = {
        "classifier": {"density": 0.1, "phase_epochs": 5, "phases": 30, "tolerance": 0.005, "growth": "any"}
    }

    def share(self, phase: int) -> float:
        """Of a hidden layer's activation that candidates hold after a phase, counted from 1; in [0, 1].

        Example:
            >>> [round(NISPAOptions(phases=4).share(phase), 3) for phase in (1, 2, 3, 4)]
            [0.854, 0.5, 0.146, 0.0]
        """
        return 0.5 * (1.0 + math.cos(min(1.0, phase / self.phases) * math.pi))

    def connections_of(self, n_out: int, n_in: int) -> int:
        """Connections of a layer, at least one."""
        return max(1, round(self.density * n_out * n_in))


class NISPA(BringsConnections):
    """NISPA on a classifier; all connections answer for every task."""

    counted_by = "nispa.density"
    of_one_task = ("phase", "candidates", "kept_candidates", "kept")
    options: NISPAOptions

    # Before anything is trained.

    def connections(self, sizes: Sequence[int], n_tasks: int) -> int:
        return sum(self.options.connections_of(n_out, n_in) for n_in, n_out in pairwise(sizes))

    def attach(self, learner: Any) -> None:
        """Gives no connections yet.

        Raises:
            ConfigError: If tasks share outputs, or a task is too short for two phases.
        """
        super().attach(learner)
        (network,) = learner.networks
        assert isinstance(network, ClassifierNetwork)
        tasks = range(learner.n_tasks)
        if sum(int(network.outputs_of(task).sum()) for task in tasks) > network.sizes[-1]:
            raise ConfigError(
                "nispa never changes the outputs of a finished task, and here tasks share them: use --scenario task or "
                "class, not domain"
            )
        epochs, least = learner.config.epochs, 2 * self.options.phase_epochs
        if epochs < least:
            raise ConfigError(
                f"nispa.phase-epochs {self.options.phase_epochs} make fewer than two phases of {epochs} epochs: use at "
                f"least learner.epochs {least}, or fewer nispa.phase-epochs"
            )
        self._network, (self._group,) = network, learner.groups.values()
        assert self._group.evolver is not None
        self._evolver, self._seed = self._group.evolver, learner.seed
        self._layers: dict[str, SparseLinear] = dict(network.shared)  # type: ignore[arg-type]  # are sparse
        self._output_task = np.full(network.sizes[-1], FREE)
        for task in tasks:
            self._output_task[network.outputs_of(task)] = task
        # Of each hidden layer, the task for which each unit is stable.
        self._stable_by = [np.full(count, FREE, np.int16) for count in network.sizes[1:-1]]
        self._forget_phases()

    def _forget_phases(self) -> None:
        self._phase, self._best, self._over = 0, 0.0, False
        # Units that are stable or candidates, of each hidden layer: those that the network has been trained with, and
        # those of the network that is kept.
        self._candidates: list[Flags] = []
        self._kept_candidates: list[Flags] = []
        self._kept: list[tuple[Positions, FloatArray, FloatArray]] = []

    # Around a task.

    def begin_task(self, learner: Any) -> None:
        """Freezes all that leads to stable units."""
        self._forget_phases()
        self._evolver.begin_update(learner.updates)
        if learner.task == 0:
            for name, layer in self._layers.items():
                self._evolver.allocate(name, self.options.connections_of(layer.n_out, layer.n_in))
            self._draw_plastic(learner.task)
        self._freeze(learner.task)

    def _freeze(self, task: int) -> None:
        """Holds what leads to units that are stable for tasks before this one, where connections are now."""
        for index, layer in enumerate(self._layers.values()):
            stable = self._is_stable(index, task)
            self._group.frozen.freeze(layer.values, torch.from_numpy(np.flatnonzero(stable[layer.topology.outputs])))
            self._group.frozen.freeze(biases_of(layer), torch.from_numpy(np.flatnonzero(stable)))

    def end_epoch(self, learner: Any) -> None:
        """After the last epoch of a phase, goes back or drops and grows."""
        if (learner.epoch + 1) % self.options.phase_epochs == 0:
            self._end_phase(learner, is_last=False)

    def begin_consolidation(self, learner: Any) -> None:
        """After the last phase, goes back or keeps the network."""
        self._end_phase(learner, is_last=True)

    def _end_phase(self, learner: Any, *, is_last: bool) -> None:
        if self._over:
            return
        self._phase += 1
        self._evolver.begin_update(learner.updates)
        accuracy, share = learner.training_accuracy(), self.options.share(self._phase)
        if self._phase > 2 and (accuracy < self._best - self.options.tolerance or share <= LEAST):
            self._go_back()
            self._begin_phase(learner.task)
            return
        self._best = max(accuracy, self._best)
        self._kept_candidates = self._candidates
        if is_last:
            return
        self._kept = [
            (layer.topology.flat, _numbers(layer.values), _numbers(biases_of(layer))) for layer in self._layers.values()
        ]
        sums, _ = learner.activity()
        self._candidates = [
            (stable != FREE) | most_active(np.sum(of_classes, axis=0), share)
            for stable, of_classes in zip(self._stable_by, zip(*sums.values(), strict=True), strict=True)
        ]
        self._rewire(learner.task)
        self._begin_phase(learner.task)

    def _begin_phase(self, task: int) -> None:
        """With an optimizer that has seen nothing."""
        self._freeze(task)
        self._group.optimizer.state.clear()

    @torch.no_grad()
    def _go_back(self) -> None:
        """Makes the network what it was before the last drop."""
        for (name, layer), (flat, values, biases) in zip(self._layers.items(), self._kept, strict=True):
            change = difference(layer.topology, layer.topology.with_positions(flat))
            self._evolver.apply(name, change, "restore", 0.0)
            layer.values.copy_(torch.from_numpy(values))
            biases_of(layer).copy_(torch.from_numpy(biases))
        self._over, self._kept = True, []

    def _rewire(self, task: int) -> None:
        for index, (name, layer) in enumerate(self._layers.items()):
            to = self._candidates[index] if index < len(self._candidates) else self._is_stable(index, task + 1)
            source = self._candidates[index - 1] if index else np.ones(layer.n_in, bool)
            rng = stream(self._seed, "nispa", str(task), str(self._phase), name)
            dropped = leading_to_stable(layer.topology, to, source)
            grown = leading_to_plastic(layer.topology, dropped, to, source, self.options.growth, rng, revive=index > 0)
            left = np.delete(_numbers(layer.values), dropped)
            drawn = rng.normal(left.mean(), left.std(), grown.size) if left.size else np.zeros(grown.size)
            self._evolver.apply(name, exchange(layer.topology, dropped, grown), "rewire", drawn.astype(np.float32))

    def end_task(self, learner: Learner) -> None:
        """Makes the candidates of the network that was kept stable, and draws all other weights anew."""
        for stable_by, candidate in zip(self._stable_by, self._kept_candidates, strict=True):
            stable_by[candidate & (stable_by == FREE)] = learner.task
        self._forget_phases()
        self._draw_plastic(learner.task + 1)

    @torch.no_grad()
    def _draw_plastic(self, task: int) -> None:
        """Draws what leads to plastic units before `task` as He et al. 2015 do, by the dense fan-out; biases are 0."""
        for index, (name, layer) in enumerate(self._layers.items()):
            stable = self._is_stable(index, task)
            plastic = torch.from_numpy(~stable[layer.topology.outputs])
            drawn = stream(self._seed, "nispa", "weights", str(task), name).normal(size=layer.nnz)
            drawn *= math.sqrt(2.0 / layer.n_out)
            layer.values[plastic] = torch.from_numpy(drawn.astype(np.float32))[plastic]
            biases_of(layer)[torch.from_numpy(~stable)] = 0.0

    def _is_stable(self, index: int, task: int) -> Flags:
        """(n_out,) outputs of layer `index` that are stable for tasks before `task`."""
        by = self._stable_by[index] if index < len(self._stable_by) else self._output_task
        stable: Flags = (by != FREE) & (by < task)
        return stable

    # What it leaves behind.

    def usage(self, learner: Learner, network: TaskNetwork) -> list[ConnectionUsage]:
        """Connections belong to the task for which the unit that they lead to is stable; the others are shared."""
        usages = []
        for index, (name, layer) in enumerate(self._layers.items()):
            by = self._stable_by[index] if index < len(self._stable_by) else self._output_task
            stable = self._is_stable(index, learner.task)
            owner = by[layer.topology.outputs][stable[layer.topology.outputs]]
            owned = np.bincount(owner, minlength=learner.task)[: learner.task]
            usages.append(
                ConnectionUsage(
                    name,
                    tuple(owned.tolist()),
                    int(owned.sum()),
                    layer.n_out * layer.n_in,
                    layer.n_out,
                    int(stable.sum()) if index < len(self._stable_by) else 0,
                    shared=layer.nnz - int(owned.sum()),
                )
            )
        return usages

    def memory(self) -> dict[str, int]:
        """The task of each stable unit."""
        return {"owners": sum(stable.nbytes for stable in self._stable_by)}

    def state_dict(self) -> dict[str, Any]:
        """Stable units, where the phases of a task stand, the network that may come back, and the clock."""
        return {
            "stable_by": self._stable_by,
            "phase": [self._phase, self._best, self._over],
            "candidates": self._candidates,
            "kept_candidates": self._kept_candidates,
            "kept": [list(one) for one in self._kept],
            "evolver": self._evolver.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        stable = [np.asarray(one).copy() for one in state["stable_by"]]
        if [one.shape for one in stable] != [one.shape for one in self._stable_by]:
            raise CheckpointError("the checkpoint's stable units are not those of this network")
        self._stable_by = stable
        self._phase, self._best, self._over = state["phase"]
        self._candidates = [np.asarray(one) for one in state["candidates"]]
        self._kept_candidates = [np.asarray(one) for one in state["kept_candidates"]]
        self._kept = [tuple(np.asarray(part) for part in one) for one in state["kept"]]  # type: ignore[misc]  # three
        self._evolver.load_state_dict(state["evolver"])


def most_active(activity: FloatArray, share: float) -> Flags:
    """The fewest units that hold a share of a layer's activation, at least one; among equals the first.

    Args:
        activity: (n,) >= 0 of each.
        share: In [0, 1].

    Example:
        >>> most_active(np.array([1.0, 4.0, 2.0, 3.0]), 0.7).tolist()
        [False, True, False, True]
    """
    ranked = np.argsort(-activity, kind="stable")
    held = np.cumsum(activity[ranked])
    flags = np.zeros(activity.size, bool)
    flags[ranked[: 1 + np.searchsorted(held, share * held[-1])]] = True
    return flags


def leading_to_stable(topology: SparseTopology, stable_out: Flags, stable_in: Flags) -> Slots:
    """Slots of the connections from plastic units to stable ones, sorted."""
    return np.flatnonzero(stable_out[topology.outputs] & ~stable_in[topology.inputs])


def leading_to_plastic(
    topology: SparseTopology,
    dropped: Slots,
    stable_out: Flags,
    stable_in: Flags,
    growth: Growth,
    rng: np.random.Generator,
    *,
    revive: bool,
) -> Positions:
    """Positions that lead to plastic units, one for each connection that was dropped, as far as there is room; sorted.

    Args:
        topology: Before the drop.
        dropped: Slots that go; what they leave free may be taken again where it leads to a plastic unit.
        stable_out: (n_out,) units that are stable.
        stable_in: (n_in,) likewise.
        growth: Where connections come from first; from any unit when there is no more room.
        rng: Draws them.
        revive: Whether each plastic unit without a connection to the next layer gets one before anything else.
    """
    kept, n_in, count = np.delete(topology.flat, dropped), topology.n_in, dropped.size
    plastic, grown = np.flatnonzero(~stable_out), NOTHING
    if revive and plastic.size:
        silent = np.flatnonzero(~stable_in & (np.bincount(kept % n_in, minlength=n_in) == 0))[:count]
        grown = rng.choice(plastic, silent.size) * n_in + silent
    sources = {"any": np.ones(n_in, bool), "from_stable": stable_in, "from_plastic": ~stable_in}
    for open_in in (sources[growth], sources["any"]):
        taken = np.union1d(kept, grown)
        constraint = Constraint(np.zeros(topology.nnz, bool), ~stable_out, open_in)
        view = LayerView(topology, np.empty(0, np.float32), constraint=constraint)
        more = random_free(view, taken, min(count - grown.size, n_open(view, taken)), rng)
        grown = np.union1d(grown, more)
    return grown


def _numbers(parameter: torch.Tensor) -> FloatArray:
    copied: FloatArray = parameter.detach().numpy().copy()
    return copied
