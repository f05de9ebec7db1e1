"""SpaceNet: each task gets a sparse sub-network among neurons that no earlier task has reserved.

Decides when connections move, and what answers. Who owns which connection and which neurons are open is
`sparserl.continual.shared.sub_networks`; what is dropped and grown is decided in `sparserl.topology`, by the rule that
is named here.

Source:
    Sokar, Mocanu and Pechenizkiy 2021, "SpaceNet: Make Free Space for Continual Learning", and its released code, which
    are about classifiers.

Known differences from the released code:
    - Truly sparse: a connection that no task owns has no weight. New weights are drawn from Xavier's distribution when
      they appear; the code takes them from one dense draw that it stores.
    - What a dropped connection had gathered of importance is forgotten; in the code it comes back with the connection.
    - Accuracy right after a task is measured with all archived classifier rows restored; the code's own number uses
      the rows of the present task alone.

For agents:
    - The task is known when it acts, so it is answered by its own connections and those of earlier tasks, and by biases
      that no later task moves. What it does then never changes.
    - Each task has an output layer of its own, which reads all neurons of the last hidden layer.
    - Connections move on a clock of optimizer steps, up to a share of a task's env steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

from sparserl.continual.learner import Group, Kind, Learner
from sparserl.continual.shared.capacity import check_capacity
from sparserl.continual.shared.row_archive import RowArchive
from sparserl.continual.shared.sub_networks import OF_ONE_TASK, NeuronImportance, SubNetworks
from sparserl.continual.shared.task_network import ClassifierNetwork, TaskNetwork
from sparserl.continual.shared.task_statistics import ComparedTasks
from sparserl.continual.shared.usage import ConnectionUsage
from sparserl.continual.strategies.options import Options
from sparserl.continual.strategies.strategy import Answer, Strategy, refuse_topology
from sparserl.errors import ConfigError
from sparserl.layers import SparseLinear, SparseMLP
from sparserl.layers.activity import features
from sparserl.layers.linear import linear
from sparserl.ranges import Count, CountOrZero, PositiveShare, Range, Share, ShareBelowOne
from sparserl.topology.config import TopologyConfig
from sparserl.topology.evolver import TopologyEvolver
from sparserl.topology.rewire import RewireRule

CountsOrShare = tuple[Annotated[int, Range("[0, 1e12]")], ...] | Annotated[float, Range("[0, 1e12]")] | None
SHARES = {"selected": Range("(0, 1]"), "reserved": Range("[0, 1]")}
"""Of what is counted for each layer of a classifier."""
ADVICE = (
    ", or lower spacenet.reserved or spacenet.connections (for agents spacenet.capacity and spacenet.input-capacity)"
)
"""Where a task has no room."""


@dataclass(frozen=True)
class SpaceNetOptions(Options):
    """Capacity of the tasks, and how connections move. Defaults of classifiers: the released split-MNIST script.

    Raises:
        ConfigError: If a value is out of range.
    """

    connections: tuple[Count, ...] | None = None
    """Classifiers: connections of a task in each layer, 10000 1640 80 by default."""
    capacity: PositiveShare | None = None
    """Agents: share of the connections of each hidden layer that all tasks take together, in equal parts, in (0, 1];
    0.35 by default."""
    input_capacity: PositiveShare | None = None
    """Agents: the same for the first layer, which is small and reads observations; 0.6 by default."""
    selected: CountsOrShare = None
    """Neurons of each hidden layer that a task may use, drawn among the free ones; more where its connections have no
    room. Classifiers: a number for each layer, 80 80 by default; agents: a share in (0, 1], 0.5 by default."""
    reserved: CountsOrShare = None
    """Neurons of each hidden layer that are closed to later tasks after a task: the most important ones. Classifiers: a
    number for each layer, 40 40 by default; agents: a share in [0, 1] that all tasks close together, in equal parts,
    0.4 by default."""
    critics: bool = False
    """Agents: whether critics are shared out in the same way; otherwise all tasks train all of their connections."""
    rewire: bool = True
    """Classifiers: whether connections move at the end of each epoch but the last."""
    rewire_interval: CountOrZero | None = None
    """Agents: optimizer steps of a network between events in which a task's connections move, 1000 by default; 0 for
    never."""
    rewire_until: Share | None = None
    """Agents: share of a task's env steps after which its connections stay, in [0, 1]; 0.8 by default."""
    drop_fraction: ShareBelowOne = 0.2
    """Share of a task's connections in a hidden layer that move at an event, in [0, 1)."""
    neuron_importance: NeuronImportance | None = None
    """Importance of a neuron: the sum of its connections' importances as it is (`final`, as in the paper; the default
    of agents), or that sum added up over all steps (`cumulative`, as released, where early steps count often; the
    default of classifiers)."""
    initial_value: Literal["xavier", "sparse_fan_in", "uniform"] | None = None
    """Weights of a task's first connections; by default xavier for classifiers, sparse_fan_in for agents."""
    answers: Literal["logits", "statistics"] = "logits"
    """Classifiers: what classes of different tasks are compared by: their outputs, or how far a sample is from their
    means in the last hidden layer of the task, which then never changes, by the covariance within classes."""
    rank: Count = 20
    """Classifiers: directions of that covariance that are kept, with one variance for all others."""

    group: ClassVar[str] = "spacenet"
    defaults: ClassVar[Mapping[Kind, Mapping[str, Any]]] = {
        "classifier": {
            "connections": (10_000, 1_640, 80),
            "selected": (80, 80),
            "reserved": (40, 40),
            "rewire": True,
            "drop_fraction": 0.2,
            "neuron_importance": "cumulative",
            "initial_value": "xavier",
            "answers": "logits",
            "rank": 20,
        },
        "agent": {
            "capacity": 0.35,
            "input_capacity": 0.6,
            "selected": 0.5,
            "reserved": 0.4,
            "critics": False,
            "rewire_interval": 1000,
            "rewire_until": 0.8,
            "drop_fraction": 0.2,
            "neuron_importance": "final",
            "initial_value": "sparse_fan_in",
        },
    }

    def __post_init__(self) -> None:
        if isinstance(self.selected, tuple) and min(self.selected, default=1) < 1:
            raise ConfigError(f"spacenet.selected must be at least 1, got {self.selected}")
        for name, share in SHARES.items():
            given = getattr(self, name)
            if isinstance(given, float) and given not in share:
                raise ConfigError(f"spacenet.{name} {share.refusal(given)}, got {given}")
        super().__post_init__()

    def of_kind(self, kind: Kind) -> Self:
        shares: dict[str, Any] = {}
        for name in SHARES if kind == "agent" else ():
            given = getattr(self, name)
            if isinstance(given, tuple) and len(given) == 1:
                shares[name] = float(given[0])  # a flag's 1 is read as a count
            elif isinstance(given, tuple):
                raise ConfigError(f"spacenet.{name} is one share for all layers where agents learn, got {given}")
        filled = super(SpaceNetOptions, dataclasses.replace(self, **shares)).of_kind(kind)
        if kind == "classifier":
            filled._check_counts()
        return filled

    def _check_counts(self) -> None:
        counts = [one if isinstance(one, tuple) else () for one in (self.connections, self.selected, self.reserved)]
        hidden = len(counts[0]) - 1
        if hidden < 1 or len(counts[1]) != hidden or len(counts[2]) != hidden:
            raise ConfigError(
                f"spacenet.connections needs one number a layer, spacenet.selected and spacenet.reserved one a hidden "
                f"layer, got {len(counts[0])}, {len(counts[1])} and {len(counts[2])}"
            )


@dataclass(frozen=True)
class _Capacity:
    """What a task gets of a network.

    Attributes:
        connections: In each layer.
        selected: Neurons that it may use, of each hidden layer.
        reserved: Neurons that it closes to later tasks, of each hidden layer.
    """

    connections: Sequence[int]
    selected: Sequence[int]
    reserved: Sequence[int]


class SpaceNet(Strategy):
    """SpaceNet on the network that answers, and on each critic by option; without rewiring it is Static-SparseNN."""

    of_one_task = OF_ONE_TASK
    options: SpaceNetOptions
    takes_convolutions = False

    # Before anything is trained.

    def densities(self, kind: Kind, hidden: int, n_tasks: int) -> Mapping[str, tuple[float, ...]]:
        """A task's part of each hidden layer of an agent; a classifier begins without connections."""
        options = self.options.of_kind(kind)
        if options.capacity is None or options.input_capacity is None:
            return {"network": (0.0,) * (hidden + 1)}
        capacities = options.input_capacity, *[options.capacity] * (hidden - 1)
        share = tuple(capacity / n_tasks for capacity in capacities)
        return {"actor": share, "critic": share} if options.critics else {"actor": share}

    def check_topology(self, kind: Kind, topology: TopologyConfig) -> None:
        """Refuses a classifier's topology, which is the method's own."""
        if kind == "classifier":
            refuse_topology(topology, "spacenet.connections")

    def connections(self, sizes: Sequence[int], n_tasks: int) -> int:
        return n_tasks * sum(self.options.connections or ())

    def attach(self, learner: Learner) -> None:
        """Takes the networks off the topology clock; they have no connections when the first task begins.

        Raises:
            ConfigError: If a layer is dense or its neurons share inputs, some task would find no room for its
                connections, or critics start anew.
        """
        super().attach(learner)
        self._by_task = learner.kind == "agent"
        if self._by_task:
            learner.require_heads()
        self._compared = ComparedTasks(self.options.rank) if self.options.answers == "statistics" else None
        border: Any = getattr(learner, "border", None)
        if self.options.critics and border.critic == "reset":
            raise ConfigError(
                "spacenet.critics holds connections of earlier tasks where they are: use --border.critic kept"
            )
        self._shared_out: dict[str, tuple[SubNetworks, _Capacity, Group]] = {}
        self._archive: RowArchive | None = None
        for group in list(learner.groups.values())[: None if self.options.critics else 1]:
            assert group.evolver is not None
            group.evolver.stop(group.name)
            for network in group.networks:
                self._share_out(learner, group, group.evolver, network)
        self._steps = dict.fromkeys(learner.groups, 0)

    def _share_out(self, learner: Learner, group: Group, evolver: TopologyEvolver, network: TaskNetwork) -> None:
        layers = network.shared
        _check_layers(layers)
        capacity = self._capacity(network, learner.n_tasks)
        extra: dict[str, Any] = {"owns_biases": True, "network": network.name}
        room: dict[str, Any] = {"name": f"{network.name}.trunk"}
        if isinstance(network, ClassifierNetwork):
            rows = network.task_outputs or ()
            extra = {"outputs": network.outputs_of, "owns_biases": self._compared is not None}
            self._archive = RowArchive.of(evolver, network)
            if self._archive is None and self._compared is not None:
                raise ConfigError(
                    "spacenet.answers statistics compares classes of different tasks, and domains share theirs: use "
                    "--spacenet.answers logits"
                )
            room = {"outputs": [len(outputs) for outputs in rows], "archived": self._archive is not None}
        sparse: list[SparseLinear] = list(layers.values())  # type: ignore[arg-type]  # as was checked
        hidden = [layer.n_out for layer in sparse[: len(capacity.selected)]]
        of_tasks = [capacity.connections] * learner.n_tasks
        check_capacity(of_tasks, sparse[0].n_in, hidden, capacity.reserved, **room, advice=ADVICE)
        for index, (selected, there) in enumerate(zip(capacity.selected, hidden, strict=True)):
            if selected > there:
                raise ConfigError(
                    f"spacenet.selected {selected} is more than the {there} neurons of hidden layer {index}"
                )
        shared_out = SubNetworks(
            evolver,
            list(layers),
            selected=capacity.selected,
            reserved=capacity.reserved,
            n_tasks=learner.n_tasks,
            seed=learner.seed,
            neuron_importance=self.options.neuron_importance or "final",
            advice=ADVICE,
            **extra,
        )
        self._shared_out[network.name] = shared_out, capacity, group

    def _capacity(self, network: TaskNetwork, n_tasks: int) -> _Capacity:
        opt, layers = self.options, network.shared.values()
        if opt.connections is not None and isinstance(opt.selected, tuple) and isinstance(opt.reserved, tuple):
            if len(layers) != len(opt.connections):
                raise ConfigError(
                    f"spacenet.connections is for {len(opt.selected)} hidden layer(s), "
                    f"learner.hidden has {len(layers) - 1}"
                )
            return _Capacity(opt.connections, opt.selected, opt.reserved)
        assert isinstance(opt.selected, float)
        assert isinstance(opt.reserved, float)
        sparse: list[SparseLinear] = list(layers)  # type: ignore[arg-type]  # as was checked
        return _Capacity(
            [layer.nnz for layer in sparse],
            [max(1, round(opt.selected * layer.n_out)) for layer in sparse],
            [int(opt.reserved * layer.n_out / n_tasks) for layer in sparse],
        )

    # Around a task.

    def begin_task(self, learner: Learner) -> None:
        """Puts the last task's classifier rows away, chooses neurons and allocates connections between them."""
        self._steps = dict.fromkeys(self._steps, 0)
        for shared, capacity, group in self._shared_out.values():
            shared.evolver.begin_update(learner.updates)
            if self._archive is not None:
                self._archive.put_away(learner.task - 1)
            if learner.task == 0 and (self._by_task or self._compared is not None):
                shared.release()  # a classifier comes without connections, but with biases
            shared.begin_task(learner.task, capacity.connections, self.options.initial_value or "xavier")
            shared.freeze(group.frozen)
            for network in group.networks if self._by_task else ():
                network.freeze_other_heads(group.frozen, learner.task)

    def before_step(self, learner: Learner, group: Group) -> None:
        """Remembers the weights, to see how far they move."""
        for shared in self._of(group):
            shared.before_step()

    def after_step(self, learner: Learner, group: Group) -> None:
        """Gathers importances, and moves an agent's connections when that is due."""
        for shared in self._of(group):
            shared.after_step()
        self._steps[group.name] += 1
        interval, until = self.options.rewire_interval, self.options.rewire_until
        if interval and until is not None and learner.is_within(until) and self._steps[group.name] % interval == 0:
            self._rewire(group)

    def end_epoch(self, learner: Learner) -> None:
        """Moves a classifier's connections of hidden layers towards important neurons."""
        if self.options.rewire:
            for _, _, group in self._shared_out.values():
                assert group.evolver is not None
                group.evolver.begin_update(learner.updates)
                self._rewire(group)

    def _rewire(self, group: Group) -> None:
        rule = RewireRule("connection_importance", "neuron_importance", drop_fraction=self.options.drop_fraction)
        for shared in self._of(group):
            for name in shared.names[: len(shared.reserved_by)]:  # those of hidden neurons
                shared.evolver.rewire(name, rule)
            shared.freeze(group.frozen)

    def _of(self, group: Group) -> list[SubNetworks]:
        return [shared for shared, _, other in self._shared_out.values() if other is group]

    def end_task(self, learner: Learner) -> None:
        """Reserves the most important free neurons of each hidden layer, and takes the statistics that answer."""
        for shared, _, _ in self._shared_out.values():
            shared.reserve()
        if self._compared is not None:
            self._take_statistics(learner, self._compared)

    def _take_statistics(self, learner: Any, compared: ComparedTasks) -> None:
        network = self._as_left(learner, learner.task)
        samples = learner.sequence.tasks[learner.task].train
        compared.add((features(network, x), y) for x, y in learner.parts_of(samples))

    def _as_left(self, learner: Learner, task: int) -> SparseMLP:
        """The network as a task left it; its hidden layers compute what they did then."""
        network = learner.networks[0]
        shared, _, _ = self._shared_out[network.name]
        return network.of_task(task).with_layers(shared.task_layers(task))

    # What it leaves behind.

    def network_for_task(self, learner: Learner, task: int) -> SparseMLP:
        """Of a classifier, the union of all tasks' connections, rows of earlier tasks restored; of an agent, the
        connections of `task` and of the tasks before it, and its head; for a task that has none yet, all."""
        network = learner.networks[0]
        shared, _, _ = self._shared_out[network.name]
        if self._by_task and task < learner.task:
            return network.with_hidden(task, shared.task_layers(task))
        return network.of_task(task) if self._archive is None else self._archive.answering(network.of_task(task))

    def answer_for_task(self, learner: Any, task: int) -> Answer:
        compared = self._compared
        if compared is None:
            return super().answer_for_task(learner, task)
        networks = [self._as_left(learner, earlier) for earlier in range(len(compared.tasks))]
        return lambda x: compared.scores([features(network, x) for network in networks], learner.n_outputs)

    def usage(self, learner: Learner, network: TaskNetwork) -> list[ConnectionUsage]:
        if network.name not in self._shared_out:
            return super().usage(learner, network)
        shared, _, _ = self._shared_out[network.name]
        usages = shared.usage(learner.task)
        if self._by_task:
            return [*usages, *network.head_usage(learner.task)]
        return usages if self._archive is None else [*usages[:-1], self._archive.with_rows(usages[-1])]

    def memory(self) -> dict[str, int]:
        """The owner of each connection and bias."""
        return {"owners": sum(shared.memory()["owners"] for shared, _, _ in self._shared_out.values())}

    def state_dict(self) -> dict[str, Any]:
        """Owners, importances, reservations, archived rows and clocks."""
        if self._by_task:
            by_name = {name: nets.state_dict() for name, (nets, _, _) in self._shared_out.items()}
            return {"steps": self._steps, **by_name}
        ((nets, _, _),) = self._shared_out.values()
        archive = [] if self._archive is None else self._archive.state()
        state = {**nets.state_dict(), "archive": archive, "evolver": nets.evolver.state_dict()}
        return state if self._compared is None else {**state, "statistics": self._compared.state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, (shared, _, _) in self._shared_out.items():
            shared.load_state_dict(state.get(name, state))
            shared.check_fits()
            if not self._by_task:
                shared.evolver.load_state_dict(state["evolver"])
        self._steps = dict(state.get("steps", self._steps))
        if self._archive is not None:
            self._archive.load_state(state["archive"])
        if self._compared is not None:
            self._compared.load_state(state["statistics"])


def _check_layers(layers: Mapping[str, Any]) -> None:
    """Raises ConfigError unless connections of all layers can be shared out one by one."""
    for name, layer in layers.items():
        if not linear(layer).is_sparse:
            raise ConfigError(
                f"spacenet shares connections out and layer {name} is dense: "
                "lower spacenet.capacity and spacenet.input-capacity"
            )
        if layer.topology.pairs > 1:
            raise ConfigError(
                f"spacenet gives neurons to tasks one by one, and those of layer {name} share their inputs: use "
                f"--topology.pairs 1, not {layer.topology.pairs}"
            )
