"""A classifier that learns one task after another, a gradient step at a time.

Decides how its network is trained, and what a continual method may ask of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from sparserl.continual.learner import Group, Objective, Probe
from sparserl.continual.shared.frozen import FrozenEntries
from sparserl.continual.shared.task_network import ClassifierNetwork, TaskNetwork
from sparserl.continual.shared.usage import ConnectionUsage
from sparserl.continual.strategies.strategy import Answer, Strategy
from sparserl.continual.supervised.connections import (
    DENSE,
    bound,
    check_topology,
    evolver_of,
    random_network,
    without_connections,
)
from sparserl.continual.supervised.learner_config import OPTIMIZERS, FitLearnerConfig, LearnerConfig
from sparserl.continual.supervised.memory import SampleMemory
from sparserl.continual.supervised.probe import probes
from sparserl.continual.supervised.task_learner import TaskLearner, closed_outputs
from sparserl.continual.supervised.tasks import Batch, Samples, TaskSequence
from sparserl.errors import ConfigError
from sparserl.layers import SparseLinear, SparseMLP
from sparserl.layers.fused_adam import check_slots, state_from_tree, state_tree
from sparserl.layers.one_shot import JudgingBatch
from sparserl.metrics.cost import (
    bytes_indices,
    bytes_optimizer,
    bytes_parameters,
    connections,
    layer_costs,
    params_dense,
)
from sparserl.seeding import stream
from sparserl.topology.config import TopologyConfig
from sparserl.topology.evolver import TopologyEvolver
from sparserl.topology.moments import OptimizerMoments
from sparserl.topology.structure import FloatArray, TopologyChange


class SupervisedLearner(TaskLearner):
    """A multilayer perceptron, perhaps behind convolutions, that is trained on a sequence of tasks.

    Args:
        sequence: The tasks.
        strategy: The continual method.
        config: Network and training.
        topology: Connections of the network, and how they change.
        seed: Root seed of weights, connections and batches.

    Attributes:
        network: What is trained.
        groups: The network alone, as `network`.
        evolver: Moves its connections where the topology or the method does; None where they stay.
        optimizer: Of the present task.

    Raises:
        ConfigError: If the strategy cannot learn this sequence with this network.
        TopologyError: If the topology does not fit the network, or pruning would end after the run.
    """

    def __init__(
        self,
        sequence: TaskSequence,
        strategy: Strategy,
        config: LearnerConfig | FitLearnerConfig,
        topology: TopologyConfig = DENSE,
        *,
        seed: int,
    ):
        check_topology(topology, strategy)
        super().__init__(sequence, strategy, config.batch_size, seed=seed)
        self.config, self.topology = config, topology
        self._closed_at: tuple[int, torch.Tensor] = (-1, torch.empty(0))
        self.use(self.new_network())
        self.optimizer = self.new_optimizer()
        topology.check_optimizer(self.optimizer)
        for task in range(self.n_tasks):
            config.check_schedule_fits(self.epochs_of(task), self.steps_of(task))
        strategy.attach(self)

    def new_network(self) -> SparseMLP:
        """The network as it is before the first task."""
        network = self._random_network([self.sequence.n_features, *self.config.hidden, self.n_outputs])
        network.output_reading = "softmax"
        return network

    @property
    def n_outputs(self) -> int:
        """Outputs of the network."""
        return self.sequence.n_outputs

    def _random_network(self, sizes: list[int], output_activation: str = "identity") -> SparseMLP:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(stream(self.seed, "weights").integers(2**63)))
            if self._method_moves_connections():
                return without_connections(sizes, self.config.hidden_units, self.seed)
            options: dict[str, Any] = {"activation": self.config.hidden_units, "output_activation": output_activation}
            options |= {"topology": self.topology, "seed": self.seed, "name": "network"}
            return random_network(self.config, self.sequence, sizes, self._first_batch(), **options)

    def _first_batch(self) -> JudgingBatch | None:
        """The first batch of the present task, where connections are judged by one."""
        if not self.topology.judged_by_batch:
            return None
        batch = self._batch(self._order()[: self.config.batch_size])
        return JudgingBatch(batch.x, lambda outputs: self._judging_loss(outputs, batch))

    def _judging_loss(self, outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        return functional.cross_entropy(outputs + self.closed(batch), batch.y)

    def _method_moves_connections(self) -> bool:
        """Whether the method gives a network without connections some, and moves them."""
        return bool(self.strategy.densities(self.kind, len(self.config.hidden), self.n_tasks))

    def use(self, network: SparseMLP) -> None:
        """Makes a network the one that is trained, and its connections those that move from now on."""
        self.network = network
        outputs = [task.outputs for task in self.sequence.tasks]
        own = ClassifierNetwork(network, outputs, has_heads=self.sequence.scenario == "task")
        self.evolver = None
        if self._method_moves_connections() or self.topology.base.rule is not None:
            self.evolver = evolver_of(own, self._bound_topology(), self.seed)
            for name, layer in self.evolver.layers.items():
                self.evolver.follow(name, partial(self._carry_moments, layer.values))
                self.evolver.set_optimizer(name, partial(getattr, self, "optimizer"))
        self.groups = {own.group: Group(own.group, [own], network, partial(getattr, self, "optimizer"), self.evolver)}

    def _carry_moments(self, values: nn.Parameter, change: TopologyChange, grown_values: float | FloatArray) -> None:
        """The optimizer is another one for each task."""
        OptimizerMoments(self.optimizer, values, self.topology.part("moments"))(change, grown_values)

    def _bound_topology(self) -> TopologyConfig:
        """The topology for as long as the present network learns."""
        if self.topology.base.rule is None:
            return self.topology
        tasks = [self.task] if self.strategy.begins_anew else range(self.n_tasks)
        return bound(self.topology, sum(map(self.steps_of, tasks)), sum(map(self.epochs_of, tasks)))

    @property
    def clock(self) -> TopologyEvolver | None:
        """The evolver, where the rule of the topology moves connections."""
        return None if self.topology.base.rule is None else self.evolver

    @property
    def began(self) -> int:
        """Gradient steps before the present network, and the clock of its topology, began."""
        return sum(map(self.steps_of, range(self.task))) if self.strategy.begins_anew else 0

    def new_optimizer(self) -> torch.optim.Optimizer:
        """An optimizer of the network's parameters without any history."""
        return self.optimizer_of(self.network.parameters())

    def optimizer_of(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """One of any parameters, with the same options."""
        return OPTIMIZERS[self.config.optimizer](parameters, self.config)

    # Training.

    def _begin_task(self) -> None:
        self.strategy.begin_task(self)
        if self.config.reset_optimizer or self.task == 0:
            self.optimizer = self.new_optimizer()

    def _before_step(self, step: int) -> None:
        self._set_learning_rate(step)

    def _set_learning_rate(self, step: int) -> None:
        """Gives the optimizer the learning rate of a step of the present task."""
        if self.config.learning_rate_factor < 1.0:
            for group in self.optimizer.param_groups:
                group["lr"] = self.config.learning_rate_at(self.epoch, step)

    def epochs_of(self, task: int) -> int:
        return self.config.epochs + self.strategy.consolidation(task, self.n_tasks)

    def _end_epoch(self) -> None:
        self.network.end_epoch()
        if self.epoch < self.config.epochs - 1:
            self.strategy.end_epoch(self)
        elif self.epoch == self.config.epochs - 1:
            self.strategy.begin_consolidation(self)

    def _end_task(self) -> None:
        self.strategy.end_task(self)

    def _step(self, batch: Batch) -> float:
        if self.clock is not None:
            self.clock.begin_update(self.steps - self.began + 1)
        loss = self._form_gradients(batch)
        group = self.groups["network"]
        if self.clock is None or not self.clock.replaces_step(group.name):
            self._step_optimizer(group)
        self._end_update(group.name)
        return loss

    def _end_update(self, group: str) -> None:
        """Has the topology's event, if one is due."""
        if self.clock is not None:
            self.clock.end_update(group)

    def _step_optimizer(self, group: Group) -> None:
        self.strategy.before_step(self, group)
        group.frozen.before_step()
        self._decay()
        self.optimizer.step()
        if self.clock is not None:
            self.clock.after_step(group.name)
        group.frozen.after_step(self.optimizer)
        self.strategy.after_step(self, group)

    def _form_gradients(self, batch: Batch) -> float:
        """Sets the gradients of a batch, and gives its loss."""
        self.optimizer.zero_grad(set_to_none=False)
        loss = self.strategy.loss(self, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    @torch.no_grad()
    def _decay(self) -> None:
        """The constant decay of all parameters; what the optimizer adds to them is not shrunk.

        Source:
            Mocanu et al. 2018 (SET), code: `w + v - decay * w`, with `v` of the gradient at `w`.
        """
        if self.config.constant_decay:
            for parameter in self.network.parameters():
                parameter.mul_(1.0 - self.config.constant_decay)

    def cross_entropy(self, batch: Batch) -> torch.Tensor:
        """Mean cross-entropy of a batch, over the outputs that compete in training."""
        return functional.cross_entropy(self.logits(self.network, batch), batch.y)

    def logits(self, network: nn.Module, batch: Batch) -> torch.Tensor:
        """(B, n_outputs) logits, -inf where an output does not compete for the sample's task."""
        logits: torch.Tensor = network(batch.x) + self.closed(batch)
        return logits

    def closed(self, batch: Batch) -> torch.Tensor:
        """(B, n_outputs) 0, or -inf where an output does not compete for the sample's task."""
        seen = self.task if self.config.unseen_outputs == "closed" else len(self.sequence)
        if self._closed_at[0] != seen:
            competing = [self.sequence.competing(task, seen) for task in range(len(self.sequence))]
            self._closed_at = seen, closed_outputs(competing, self.sequence.n_outputs)
        return self._closed_at[1][batch.task]

    # What a method asks for; see `sparserl.continual.learner.Learner`.

    open_state = TaskLearner.open_state | {"frozen", "evolver"}
    fisher_floor = 0.0

    @property
    def networks(self) -> list[TaskNetwork]:
        return [network for group in self.groups.values() for network in group.networks]

    @property
    def frozen(self) -> FrozenEntries:
        """Entries of the network's parameters that no step moves."""
        return self.groups["network"].frozen

    @property
    def updates(self) -> int:
        """Gradient steps so far."""
        return self.steps

    def is_within(self, share: float) -> bool:
        """Whether no more than this share of the epochs of the present task is over."""
        return self.epoch <= share * self.config.epochs

    def require_heads(self) -> None:
        """Raises ConfigError unless the task is known when a class is asked for."""
        if self.sequence.scenario != "task":
            said = "this method must be told the task that it answers for: use --scenario task, not"
            raise ConfigError(f"{said} {self.sequence.scenario}")

    def begin_anew(self) -> None:
        """Puts weights and connections where they were before anything was learned, with a new optimizer and clock."""
        self.network.load_state_dict(self.new_network().state_dict())
        self.use(self.network)
        self.optimizer = self.new_optimizer()

    def probe(self, network: TaskNetwork, objective: Objective, count: int, labels: str | None) -> Iterator[Probe]:
        """Training samples of the present task, drawn without replacement."""
        del network  # the only one
        return probes(self, objective, count, labels or "true")

    def gradients(self, group: Group, batch: Batch) -> list[torch.Tensor]:
        """Gradients of the cross-entropy of a batch."""
        with group.uncaptured():
            return list(torch.autograd.grad(self.cross_entropy(batch), list(group.module.parameters())))

    def new_memory(self) -> SampleMemory:
        """One of training samples."""
        return SampleMemory(self.sequence, self.seed)

    def remember(self, memory: SampleMemory, count: int) -> Batch:
        """Samples, another draw at each step."""
        return memory.batch(count, self.steps)

    def rehearse(self, options: Any) -> SampleMemory:
        """Raises ConfigError if the memory is too small for a sample of each task."""
        if options.samples < self.n_tasks:
            least = f"replay.samples must be at least {self.n_tasks}, one for each task"
            raise ConfigError(f"{least}, got {options.samples}")
        return self.new_memory()

    # Evaluation, and what is recorded.

    def outputs_of_task(self, task: int, samples: Samples) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return self.outputs_on(self.strategy.answer_for_task(self, task), samples)

    def answering(self, task: int | None) -> SparseMLP:
        return self.network if task is None else self.strategy.network_for_task(self, task)

    @property
    def widest(self) -> int:
        return max(self.network.widest, *self.config.hidden)

    def usage(self) -> list[ConnectionUsage]:
        return [use for network in self.networks for use in self.strategy.usage(self, network)]

    @property
    def about(self) -> str:
        return f"{params_dense([self.network]):,} parameters if dense"

    @property
    def sparse_layers(self) -> dict[str, SparseLinear]:
        (network,) = self.networks
        return {name: layer for name, layer in network.shared.items() if isinstance(layer, SparseLinear)}

    def weights(self) -> Mapping[str, torch.Tensor]:
        return self.network.state_dict()

    @property
    def params_nonzero(self) -> int:
        return sum(one.used for one in self.usage()) + sum(cost.biases for cost in layer_costs(self.network))

    def size(self) -> dict[str, Any]:
        layers = self.usage()
        # What is kept of earlier tasks may be away from the network that is trained; what answers may be a part of it.
        for_last_task = self.answering(self.n_tasks - 1)
        network = max((self.network, for_last_task), key=lambda one: connections([one]))
        return {
            "params_dense": params_dense([self.network]),
            "connections": sum(one.used for one in layers),
            "connections_dense": sum(one.size for one in layers),
            "layers": {one.layer: one.record() for one in layers},
            "bytes_parameters": bytes_parameters([network]),
            "bytes_indices": bytes_indices([network]),
            "bytes_optimizer": bytes_optimizer([self.optimizer]),
        }

    def _kept(self) -> Mapping[str, Any]:
        state = self._trained_state()
        del state["frozen"]  # follows from what the strategy says of each connection
        if self.config.reset_optimizer:
            del state["optimizer"]
        return state

    def outputs_on(self, answer: Answer, samples: Samples) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """(B, n_outputs) answers and (B,) output units of the right classes, a part at a time.

        Called without gradients.
        """
        for x, y in self.parts_of(samples):
            yield answer(x), y

    # State.

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            **self._trained_state(),
            **({} if self.clock is None else {"evolver": self.clock.state_dict()}),
        }

    def _trained_state(self) -> dict[str, Any]:
        return {
            "network": dict(self.network.state_dict()),
            "optimizer": state_tree(self.optimizer.state_dict()),
            "frozen": self.frozen.state_dict(self.network),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer = self.new_optimizer()
        self.optimizer.load_state_dict(state_from_tree(state["optimizer"]))
        check_slots(self.optimizer)
        self._load_position(state)
        if self.clock is not None:
            self.clock.rule = self._bound_topology().rule()
            self.clock.load_state_dict(state["evolver"])
        self.frozen.load_state_dict(self.network, state["frozen"])
        super().load_state_dict(state)
