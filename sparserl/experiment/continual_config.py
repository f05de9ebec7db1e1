"""What defines a continual run, and how presets, config files and flags make one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, get_args

from sparserl import config as yaml_config
from sparserl.continual.named_objects import is_named_object
from sparserl.continual.strategies import (
    GROUPS,
    OWN,
    MethodOptions,
    make_strategy,
    method_spec,
    options_type,
    own_options,
    users_of_groups,
    with_own,
)
from sparserl.continual.strategies.strategy import Strategy
from sparserl.continual.supervised.connections import DENSE, NOT_HERE, check_topology
from sparserl.continual.supervised.learner_config import LearnerConfig
from sparserl.continual.supervised.sequence_files import SequenceFile, load_sequence_file
from sparserl.continual.supervised.sequences import SEQUENCES, ClassOrder
from sparserl.continual.supervised.tasks import Scenario
from sparserl.errors import ConfigError, unknown_name
from sparserl.experiment.config_layers import OF_ALL, Choice, over
from sparserl.experiment.named_modules import name_modules
from sparserl.experiment.presets import continual_presets, load_preset
from sparserl.experiment.recorded_run import RunConfig
from sparserl.experiment.sequence_kinds import OfSequence, check_name, method_label, without_name
from sparserl.ranges import Count
from sparserl.recording.metrics_table import Kind
from sparserl.topology.config import TopologyConfig

OF_A_NETWORK = ("learner", "topology")
"""Groups of options of the network of a classifier, and of its training."""


@dataclass(frozen=True)
class ContinualConfig(RunConfig, MethodOptions, OfSequence):
    """A continual run. Saved as `config.yaml`, which `--config` accepts, without the options of other methods.

    Raises:
        ConfigError: If a name is unknown or a value out of range.
    """

    kind: ClassVar[Kind] = "continual"
    sequence: str = "split_digits"
    """Sequence of tasks, see `sparserl list sequences`; or a YAML file with one, see docs/sequences.md."""
    sequence_name: str | None = None
    """What a sequence from a file is called; what that says, or its own name, if None."""
    method: str = "spacenet"
    """Continual method; see `sparserl list methods`."""
    scenario: str | None = None
    """class: choose among all classes seen so far; task: the task is given; domain: tasks share the outputs. The usual
    one of the sequence if None."""
    tasks: Count | None = None
    """Number of tasks; the usual one of the sequence if None. A sequence from a file has its own."""
    class_order: ClassOrder = "fixed"
    """Order in which classes are learned: 0, 1, 2, ..., or drawn from the seed."""
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    """The network and how it is trained on a task."""
    topology: TopologyConfig = DENSE
    """Connections of the network: all, unless a method or a density is given; a density without a method is of `static`
    ones. Events are an epoch apart where no interval is given."""
    log_every_steps: Count = 50
    """Gradient steps between rows of progress.csv."""
    checkpoint_every_steps: Count = 500
    """Gradient steps between checkpoints; there is one after each task as well."""

    def __post_init__(self) -> None:
        method_spec(self.method, "classifier")
        self.resolve_options("classifier")
        if not self.from_file and self.sequence not in SEQUENCES:
            raise ConfigError(unknown_name("sequence", self.sequence, SEQUENCES))
        if self.scenario is not None and self.scenario not in get_args(Scenario):
            raise ConfigError(unknown_name("scenario", self.scenario, get_args(Scenario)))
        check_name(self.sequence, self.sequence_name)
        if self.from_file and self.tasks is not None:
            raise ConfigError(f"{self.sequence} says itself what its tasks are; leave --tasks {self.tasks} out")
        super().__post_init__()
        strategy = self.strategy()
        check_topology(self.topology, strategy)
        if self.learner.convolutions and not strategy.takes_convolutions:
            raise ConfigError(
                f"method {self.method} shares out neurons or connections that one layer gives and the next reads, "
                "which convolutions do not have: use --method packnet, or --learner.convolutions with nothing after it"
            )
        if self.wandb.video_every_steps is not None:
            raise ConfigError("--wandb.video-every-steps is for agents: there is nothing to film here")

    @property
    def files(self) -> dict[str, Path]:
        return {"sequence": Path(self.sequence)} if self.from_file else {}

    def with_files(self, files: Mapping[str, Path]) -> ContinualConfig:
        return replace(self, sequence=str(files.get("sequence", self.sequence)))

    def kept_file(self, option: str) -> tuple[str, bytes]:
        return self.files[option].name, yaml_config.dump(self.load_file()).encode()

    def load_file(self) -> SequenceFile:
        """What the file says that the sequence comes from.

        Raises:
            ConfigError: If it cannot be read or is wrong.
        """
        file = load_sequence_file(Path(self.sequence))
        return file if self.sequence_name is None else replace(file, name=self.sequence_name)

    @property
    def task_label(self) -> str:
        return f"{self.sequence_label}, {self.scenario}-incremental"

    @property
    def labels(self) -> list[str]:
        return [method_label(self.method), *self.topology.labels("dense")]

    @property
    def name(self) -> str:
        return "__".join([self.sequence_label, str(self.scenario), *self.labels])

    def strategy(self) -> Strategy:
        """The continual method."""
        return make_strategy(self.method, "classifier", self)

    def resolved(self) -> ContinualConfig:
        here = {name: getattr(self.topology, name) for name in ("update_interval", *NOT_HERE)}
        return replace(self, topology=replace(self.topology.resolved(), **here))

    def plain(self) -> dict[str, Any]:
        """The resolved config as plain data, without the options of other methods and of agents."""
        data = yaml_config.plain(self)
        absent = _absent_groups(self.method)
        common = {name: value for name, value in data.items() if name not in (*GROUPS, "topology", *absent)}
        counts_connections = self.strategy().densities("classifier", len(self.learner.hidden), self.tasks or 1)
        if not counts_connections and "topology" not in absent:
            common["topology"] = {name: value for name, value in data["topology"].items() if name not in NOT_HERE}
        return {**without_name(common), **own_options(self.method, self, "classifier")}


def continual_preset_for(sequence: str, method: str, scenario: str) -> str | None:
    """The preset of a method on a sequence in a scenario, else without the scenario, else of the sequence, else None.

    A method without one of its own takes that of the method whose options it shares.
    """
    known = continual_presets()
    names = [f"{sequence}_{kind}" for kind in (method, method_spec(method, "classifier").options)]
    candidates = [name for one in names for name in (f"{one}_{scenario}", one)]
    return next((name for name in [*candidates, sequence] if name in known), None)


def choose(data: Mapping[str, Any], preset: str | None) -> Choice:
    """What sequence, method and scenario decide; as `resolving.choose`."""
    of_preset = {} if preset is None else load_preset(preset, continual_presets())
    chosen = {name: data.get(name) or of_preset.get(name) for name in ("sequence", "method", "scenario")}
    chosen = {name: str(value) for name, value in chosen.items() if value is not None}
    name_modules(filter(is_named_object, [str(chosen.get("method"))]), None, what="method")
    named = ContinualConfig(**chosen)  # type: ignore[arg-type]  # refuses unknown names
    scenario = named.scenario or _usual_scenario(named)
    if preset is None:
        preset = continual_preset_for(named.sequence, named.method, scenario)
        of_preset = {} if preset is None else load_preset(preset, continual_presets())
    if scenario != "class":
        of_preset.get("learner", {}).pop("unseen_outputs", None)
    spec = method_spec(named.method, "classifier")
    absent = _absent_groups(named.method)
    of_preset = {name: value for name, value in of_preset.items() if name not in absent}
    groups = users_of_groups(named.method)
    names = {"sequence": named.sequence, "method": named.method, "scenario": scenario}

    def resolve(data: Mapping[str, Any]) -> ContinualConfig:
        _refuse_groups(named.method, absent, data)
        data = with_topology(over(of_preset, data))
        _refuse_closed_outputs(scenario, data)
        refuse_options_of_others(named.method, groups, data)
        if spec.options is not None:
            data = yaml_config.merge({spec.options: dict(spec.fixed)}, data)
        if not named.from_file:
            data = {"tasks": SEQUENCES[named.sequence].n_tasks, **data}
        elif data.get("sequence_name") is None:
            data = {**data, "sequence_name": named.load_file().name}
        run = yaml_config.build(ContinualConfig, {**with_own(data, named.method), **names})
        for name, value in spec.fixed.items():
            if getattr(getattr(run, str(spec.options)), name) != value:
                raise ConfigError(
                    f"method {named.method} has {spec.options}.{name} {value}; use --method {spec.options}"
                )
        return run

    unused = frozenset((*GROUPS, *absent)) - {spec.options or ""}
    return Choice(ContinualConfig, preset, resolve, schemas={OWN: options_type(named.method)}, unused=unused)


def _usual_scenario(named: ContinualConfig) -> Scenario:
    return named.load_file().usual_scenario if named.from_file else SEQUENCES[named.sequence].scenario


def _absent_groups(method: str) -> tuple[str, ...]:
    """Groups of options that a method does not have: those of a network, where it has none."""
    return () if method_spec(method, "classifier").strategy.has_network else OF_A_NETWORK


def _refuse_groups(method: str, absent: Sequence[str], data: Mapping[str, Any]) -> None:
    """Raises ConfigError if options of groups are given that a method does not have."""
    for group in absent:
        own = data.get(group)
        if isinstance(own, Mapping) and own:
            option = f"--{group}.{next(iter(own)).replace('_', '-')}"
            raise ConfigError(f"{option} is about a network, and method {method} has none; leave it out")


def with_topology(data: Mapping[str, Any]) -> dict[str, Any]:
    """A config whose topology has a method: static where it says how dense it is alone, else dense.

    What `learner.density` said before there was a topology is its density, the same in each hidden layer.

    Raises:
        ConfigError: If a config has both.
    """
    learner, topology = data.get("learner", {}), data.get("topology", {})
    if not isinstance(learner, Mapping) or not isinstance(topology, Mapping):
        return dict(data)  # which `build` refuses
    learner, topology = dict(learner), dict(topology)
    density = learner.pop("density", 1.0)
    is_sparse = any(topology.get(name) is not None for name in OF_ALL)
    if density != 1.0:
        if is_sparse:
            raise ConfigError(f"learner.density {density} is topology.density by its old name; leave it out")
        topology, is_sparse = {"density": density, "allocation": "uniform", **topology}, True
    return {**data, "learner": learner, "topology": {"method": "static" if is_sparse else "dense", **topology}}


def _refuse_closed_outputs(scenario: str, data: Mapping[str, Any]) -> None:
    learner = data.get("learner")
    if scenario != "class" and isinstance(learner, Mapping) and learner.get("unseen_outputs") == "closed":
        raise ConfigError(
            "--learner.unseen-outputs closed is for --scenario class: in others outputs of other tasks never compete"
        )


def refuse_options_of_others(method: str, groups: Mapping[str, str | None], data: Mapping[str, Any]) -> None:
    """Raises ConfigError if options of a method that is not used are given.

    Args:
        method: Is used.
        groups: Method -> group of options that it reads, None if it has none.
        data: A config.
    """
    for group in dict.fromkeys(group for group in groups.values() if group is not None and group != groups[method]):
        own = data.get(group)
        if isinstance(own, Mapping) and own:
            names = ", ".join(name for name, of in groups.items() if of == group)
            option = f"--{group}.{next(iter(own))}"
            raise ConfigError(f"{option} is an option of {names}; method {method} does not use it")
