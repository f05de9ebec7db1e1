"""SpaceNet: each task gets a sparse sub-network among neurons that no earlier task has reserved.

Decides when connections move, and what becomes of classifier rows. Who owns which connection and which neurons are open
is `sparserl.continual.shared.sub_networks`; what is dropped and grown is decided in `sparserl.topology`, by the rule
that is named here.

Source:
    Sokar, Mocanu and Pechenizkiy 2021, "SpaceNet: Make Free Space for Continual Learning", and its released code.

Known differences from the released code:
    * Truly sparse: a connection that no task owns has no weight. New weights are drawn from Xavier's distribution when
      they appear; the code takes them from one dense draw that it stores.
    * What a dropped connection had gathered of importance is forgotten; in the code it comes back with the connection.
    * Accuracy right after a task is measured with all archived classifier rows restored; the code's own number uses
      the rows of the present task alone.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from sparserl.continual.shared.sub_networks import NeuronImportance, SubNetworks, check_capacity, release
from sparserl.continual.supervised.learner import LearnerConfig, SupervisedLearner
from sparserl.continual.supervised.strategy import LayerUse, Strategy
from sparserl.errors import ConfigError
from sparserl.layers import SparseLinear, SparseMLP
from sparserl.ranges import Count, CountOrZero, ShareBelowOne, check_ranges
from sparserl.topology.evolver import OptimizerMoments, TopologyEvolver
from sparserl.topology.rewire import RewireRule
from sparserl.topology.structure import Flags, FloatArray, SparseTopology, TopologyChange

GROUP = "network"


@dataclass(frozen=True)
class SpaceNetOptions:
    """Capacity of a task, and how connections move. Defaults: the released split-MNIST script.

    Raises:
        ConfigError: If a value is out of range.
    """

    connections: tuple[Count, ...] = (10_000, 1_640, 80)
    """Connections of a task in each layer."""
    selected: tuple[Count, ...] = (80, 80)
    """Neurons of each hidden layer that a task may use, drawn among the free ones; more where its connections have no
    room."""
    reserved: tuple[CountOrZero, ...] = (40, 40)
    """Neurons of each hidden layer that are closed to later tasks after a task: the most important ones."""
    rewire: bool = True
    """Whether connections move at the end of each epoch but the last."""
    drop_fraction: ShareBelowOne = 0.2
    """Share of a task's connections in a hidden layer that move at such an event."""
    neuron_importance: NeuronImportance = "cumulative"
    """Importance of a neuron: the sum of its connections' importances as it is, or that sum added up over all steps (as
    released; early steps count often)."""
    initial_value: Literal["xavier", "sparse_fan_in", "uniform"] = "xavier"
    """Weights of a task's first connections."""

    def __post_init__(self) -> None:
        check_ranges(self, "spacenet.")
        hidden = len(self.connections) - 1
        if hidden < 1 or len(self.selected) != hidden or len(self.reserved) != hidden:
            raise ConfigError(
                f"spacenet.connections needs one number a layer, spacenet.selected and spacenet.reserved one a hidden "
                f"layer, got {len(self.connections)}, {len(self.selected)} and {len(self.reserved)}"
            )


class SpaceNet(Strategy):
    """SpaceNet; with `rewire` off it is the paper's Static-SparseNN."""

    options: SpaceNetOptions
    evolver: TopologyEvolver

    # Before anything is trained.

    def check(self, config: LearnerConfig) -> None:
        """Raises ConfigError, with the numbers, if the network does not fit the options or is too small."""
        own = self.options
        if len(config.hidden) != len(own.selected):
            raise ConfigError(
                f"spacenet.connections is for {len(own.selected)} hidden layer(s), "
                f"learner.hidden has {len(config.hidden)}"
            )
        if config.density != 1.0:
            raise ConfigError("SpaceNet counts connections (spacenet.connections), so leave learner.density at 1")
        check_capacity(
            len(self.sequence),
            self.sequence.n_features,
            config.hidden,
            own.reserved,
            own.connections,
            outputs=[len(task.outputs) for task in self.sequence.tasks],
            archived=self._archives,
        )

    def make_network(self, sizes: Sequence[int], config: LearnerConfig) -> SparseMLP:
        """A network without any connection; biases are 0."""
        del config
        own, nothing = self.options, np.empty(0, np.int64)
        layers = [SparseLinear(SparseTopology(n_out, n_in, nothing)) for n_in, n_out in pairwise(sizes)]
        for layer in layers:
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
        named = {f"{GROUP}.{place}": layer for place, layer in enumerate(layers)}
        rule = RewireRule("connection_importance", "neuron_importance", drop_fraction=own.drop_fraction)
        self.evolver = TopologyEvolver({GROUP: named}, rule, seed=self.seed)
        self._owned = SubNetworks(
            self.evolver,
            list(named),
            selected=own.selected,
            reserved=own.reserved,
            n_tasks=len(self.sequence),
            seed=self.seed,
            neuron_importance=own.neuron_importance,
            outputs=self._outputs,
        )
        for name, layer in named.items():
            self.evolver.follow(name, functools.partial(self._follow, layer))
        # Positions and weights of classifier rows that are away, and their task.
        self._archive: list[tuple[SparseTopology, FloatArray, int]] = []
        return SparseMLP(layers)

    @property
    def _archives(self) -> bool:
        """Whether each task has classifier rows of its own, which leave the network while others are trained."""
        return self.sequence.scenario != "domain"

    @property
    def _classifier(self) -> SparseLinear:
        return self._owned.layers[-1]

    def _outputs(self, task: int) -> Flags:
        """(n_outputs,) which outputs are the task's."""
        return np.isin(np.arange(self.sequence.n_outputs), self.sequence.tasks[task].outputs)

    # Around a task.

    def begin_task(self, learner: SupervisedLearner) -> None:
        """Puts the last task's classifier rows away, chooses neurons and allocates connections between them."""
        self._optimizer = learner.optimizer
        self.evolver.begin_update(learner.steps)
        if self._archives and self._classifier.nnz:
            rows = self._classifier.topology, self._classifier.values.detach().numpy(), learner.task - 1
            self._archive.append(rows)
            release(self.evolver, self._owned.names[-1], "archive")
        self._owned.begin_task(learner.task, self.options.connections, self.options.initial_value)
        self._owned.freeze(learner.frozen)

    def before_step(self, learner: SupervisedLearner) -> None:
        """Remembers the weights, to see how far they move."""
        self._owned.before_step()

    def after_step(self, learner: SupervisedLearner) -> None:
        """Measures how important each connection is."""
        self._owned.after_step()

    def end_epoch(self, learner: SupervisedLearner) -> None:
        """Moves connections of hidden layers towards important neurons, except after the last epoch."""
        if not self.options.rewire or learner.epoch == learner.config.epochs - 1:
            return
        self._optimizer = learner.optimizer
        self.evolver.begin_update(learner.steps)
        for name in self._owned.names[:-1]:
            self.evolver.rewire(name)
        self._owned.freeze(learner.frozen)

    def end_task(self, learner: SupervisedLearner) -> None:
        """Reserves the most important free neurons of each hidden layer."""
        self._owned.reserve()

    def _follow(self, layer: SparseLinear, change: TopologyChange, grown_values: float | FloatArray) -> None:
        """The optimizer is another one for each task."""
        OptimizerMoments(self._optimizer, layer.values)(change, grown_values)

    # What it leaves behind.

    def answering(self, learner: SupervisedLearner, task: int) -> nn.Module:
        """The union of all tasks' connections, classifier rows of earlier tasks restored."""
        if not self._archive:
            return learner.network
        last = self._classifier
        rows = [(topology.flat, values) for topology, values, _ in self._archive]
        rows.append((last.topology.flat, last.values.detach().numpy()))
        flat = np.concatenate([positions for positions, _ in rows])
        order = np.argsort(flat)
        values = torch.from_numpy(np.concatenate([own for _, own in rows])[order])
        classifier = SparseLinear.of(SparseTopology(last.n_out, last.n_in, flat[order]), values, last.bias)
        return SparseMLP([*self._owned.layers[:-1], classifier])

    def uses(self, learner: SupervisedLearner) -> list[LayerUse]:
        """Connections and neurons by task, archived classifier rows included."""
        *hidden, last = self._owned.uses(learner.task)
        away = {task: topology.nnz for topology, _, task in self._archive}
        owned = tuple(count + away.get(task, 0) for task, count in enumerate(last.owned))
        return [*hidden, dataclasses.replace(last, owned=owned, frozen=sum(owned))]

    def memory(self) -> dict[str, int]:
        """The owner of each connection."""
        return self._owned.memory()

    def state_dict(self) -> dict[str, Any]:
        """Owners, importances, reservations, archived rows and the topology clock."""
        return {
            **self._owned.state_dict(),
            "archive": [[topology.flat, values, task] for topology, values, task in self._archive],
            "evolver": self.evolver.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues where `state_dict` was taken; the network's own state is loaded before."""
        self._owned.load_state_dict(state)
        self._owned.check_fits()
        last = self._classifier
        self._archive = [
            (SparseTopology(last.n_out, last.n_in, flat.numpy()), values.numpy(), task)
            for flat, values, task in state["archive"]
        ]
        self.evolver.load_state_dict(state["evolver"])
