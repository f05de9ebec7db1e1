"""What defines a continual run of an agent, and how presets, config files and flags make one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
from stable_baselines3.common.logger import Logger

from sparserl import config as yaml_config
from sparserl.agents.config import OffPolicyConfig
from sparserl.agents.critics_config import SACConfig
from sparserl.agents.networks.heads import TaskHeads
from sparserl.agents.table import accepted, agent_spec, make_agent
from sparserl.continual.named_objects import is_named_object
from sparserl.continual.rl.borders import BorderConfig
from sparserl.continual.rl.learner import RLLearner
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
from sparserl.continual.supervised.sequences import SEQUENCES
from sparserl.envs import (
    RL_SEQUENCES,
    RLSequence,
    SequenceEnv,
    TaskSpec,
    WrapperConfig,
    build_rl_sequence,
    load_rl_sequence,
    make_task_env,
)
from sparserl.errors import ConfigError, shown, unknown_name
from sparserl.experiment.config_layers import Choice, over
from sparserl.experiment.continual_config import refuse_options_of_others
from sparserl.experiment.named_modules import name_modules
from sparserl.experiment.presets import continual_presets, load_preset, rl_continual_presets
from sparserl.experiment.recorded_run import RunConfig
from sparserl.experiment.sequence_kinds import (
    OfSequence,
    check_name,
    is_of_environments,
    is_sequence_file,
    method_label,
    without_name,
)
from sparserl.ranges import Count, Repeats, RepeatsOrZero, check_ranges
from sparserl.recording.metrics_table import Kind
from sparserl.topology.config import TopologyConfig
from sparserl.topology.config_options import DENSITY_SUFFIX, OWN_DENSITIES
from sparserl.topology.methods import METHODS

USUAL_PRESET = "default"
"""Preset of a sequence without one of its own."""
TASK_METHOD = "set"
"""Topology method of algorithms without one of their name: output layers, of tasks each its own, stay dense."""
STEPS_PER_TASK = 1_000_000
"""Unless a sequence or a flag says otherwise; Continual World's."""


@dataclass(frozen=True)
class RLEvalConfig:
    """Evaluation of all tasks, on environments of their own."""

    every_steps: Count = 20_000
    """Env steps between evaluations; there is one before the first step and one at the end of each task as well."""
    episodes: Repeats = 10
    """Episodes per task in which actions are drawn from the policy: what metrics are made of. DQN's is its mode."""
    deterministic_episodes: RepeatsOrZero = 1
    """Episodes per task with the mode of the policy."""
    max_steps: Count | None = None
    """Env steps after which an evaluated episode is cut off, and marked so in eval.csv; None: 10,000 where the
    environment has no time limit, for else a policy that never falls would be evaluated for ever."""

    def __post_init__(self) -> None:
        check_ranges(self, "--eval.")


@dataclass(frozen=True)
class RLContinualConfig(RunConfig, MethodOptions, OfSequence):
    """A continual run of an agent. Saved as `config.yaml`, which `--config` accepts, without options of other methods.

    Raises:
        ConfigError: If a name is unknown or a value out of range.
    """

    kind: ClassVar[Kind] = "continual_rl"
    sequence: str = "halfcheetah_forgetting"
    """Sequence of tasks, see `sparserl list sequences`; or a YAML file with one, see docs/sequences.md."""
    sequence_name: str | None = None
    """What a sequence from a file is called; what that says, or its own name, if None."""
    method: str = "spacenet"
    """Continual method; see `sparserl list methods`."""
    algo: str = "ds_sac"
    """Algorithm, one with sparse networks (of density 1 with --topology.method dense); see `sparserl list algos`."""
    tasks: Count | None = None
    """Number of tasks; the usual one of the sequence if None."""
    steps_per_task: Count | None = None
    """Env steps of each task; 1,000,000 if None. A sequence from a file has its own."""
    agent: OffPolicyConfig = field(default_factory=SACConfig)
    """Hyper-parameters of the agent; which there are depends on the algorithm. learning_starts counts in each task."""
    topology: TopologyConfig = field(default_factory=lambda: TopologyConfig(method="ds_sac"))
    """Connections of its networks."""
    wrappers: WrapperConfig = field(default_factory=WrapperConfig)
    """What stands between every task and the agent."""
    border: BorderConfig = field(default_factory=BorderConfig)
    """What happens when a task ends and the next one begins."""
    eval: RLEvalConfig = field(default_factory=RLEvalConfig)
    """Evaluation of all tasks."""
    log_every_steps: Count = 1_000
    """Env steps between rows of progress.csv."""
    checkpoint_every_steps: Count = 20_000
    """Env steps between checkpoints; there is one after each task as well."""

    def __post_init__(self) -> None:
        method_spec(self.method, "agent")
        self.resolve_options("agent")
        if not self.from_file and self.sequence not in RL_SEQUENCES:
            raise ConfigError(unknown_name("sequence", self.sequence, RL_SEQUENCES))
        check_name(self.sequence, self.sequence_name)
        if self.from_file:
            for name, given in (("steps-per-task", self.steps_per_task), ("tasks", self.tasks)):
                if given is not None:
                    raise ConfigError(f"{self.sequence} says itself what its tasks are; leave --{name} {given} out")
        twin = agent_spec(self.algo).sparse_twin
        if twin is not None:
            raise ConfigError(
                f"{self.algo} has no output layers for tasks; use {twin}, if need be with --topology.method dense"
            )
        super().__post_init__()
        _check_has_memory(self.algo)
        self._check_what_tasks_share()
        if self.border.temperature != "reset" and getattr(self.agent, "ent_coef", None) != "auto":
            raise ConfigError(
                f"--border.temperature {self.border.temperature} is for a temperature that is learned: use ds_sac with "
                "--agent.ent-coef auto"
            )

    def _check_what_tasks_share(self) -> None:
        self.agent.check_tasks()
        changing = {
            "--wrappers.normalize-observations running": self.wrappers.normalize_observations == "running",
            "--wrappers.normalize-rewards": self.wrappers.normalize_rewards is not None,
            "--wrappers.permute-every-steps": self.wrappers.permute_every_steps is not None,
        }
        for option, is_on in changing.items():
            if is_on:
                raise ConfigError(f"{option} is for `sparserl train`: it would change from task to task")
        if self.topology.recycle_interval is not None:
            raise ConfigError(
                "--topology.recycle-interval is for `sparserl train`: neurons serve earlier tasks as well"
            )

    @property
    def files(self) -> dict[str, Path]:
        of_wrappers = {f"wrappers.{name}": path for name, path in self.wrappers.files.items()}
        return of_wrappers | ({"sequence": Path(self.sequence)} if self.from_file else {})

    def with_files(self, files: Mapping[str, Path]) -> RLContinualConfig:
        of_wrappers = {key.split(".")[1]: path for key, path in files.items() if "." in key}
        sequence = str(files.get("sequence", self.sequence))
        return replace(self, sequence=sequence, wrappers=self.wrappers.with_files(of_wrappers))

    def kept_file(self, option: str) -> tuple[str, bytes]:
        if option != "sequence":
            return super().kept_file(option)
        return Path(self.sequence).name, yaml_config.dump(self.load_sequence()).encode()

    @property
    def task_label(self) -> str:
        return self.sequence_label

    @property
    def labels(self) -> list[str]:
        return [self.algo, method_label(self.method), *self.topology.labels(self.algo), *self.wrappers.labels]

    def resolved(self) -> RLContinualConfig:
        topology = self.topology.resolved()
        decided = self._densities_of_method(1)
        if decided:
            some_are_left = len(decided) < len(OWN_DENSITIES) and "density" not in decided
            of_others = topology.density if some_are_left else self.topology.density
            topology = replace(topology, density=of_others, output_layer="dense")
        if self.from_file:  # which says the rest, and may be gone
            return replace(self, topology=topology)
        tasks = self.load_sequence().tasks
        return replace(self, topology=topology, tasks=len(tasks), steps_per_task=tasks[0].steps)

    def plain(self) -> dict[str, Any]:
        """The config as plain data, without the options of other methods."""
        data = yaml_config.plain(self)
        own = own_options(self.method, self, "agent")
        kept = {name: own.get(name, value) for name, value in data.items() if name not in GROUPS or name in own}
        return without_name(kept)

    def load_sequence(self) -> RLSequence:
        """The tasks."""
        if self.from_file:
            sequence = load_rl_sequence(Path(self.sequence))
            return sequence if self.sequence_name is None else replace(sequence, name=self.sequence_name)
        steps = STEPS_PER_TASK if self.steps_per_task is None else self.steps_per_task
        return build_rl_sequence(self.sequence, seed=self.seed, steps=steps, n_tasks=self.tasks)

    def make_task(self, task: TaskSpec, n_tasks: int, *, render_mode: str | None = None) -> gym.Env[Any, Any]:
        """The environment of a task in the wrappers of the run, with a task id if the agent reads one."""
        appended = n_tasks if self.border.appends_id else None
        how = accepted(self.algo)
        return make_task_env(task, self.wrappers, self.seed, append_id_of=appended, render_mode=render_mode, **how)

    def strategy(self) -> Strategy:
        """The continual method."""
        return make_strategy(self.method, "agent", self)

    def make_agent(self, env: gym.Env[Any, Any], sequence: RLSequence, *, seed: int, acts_only: bool = False) -> Any:
        """An agent on `env` with the densities that the method wants.

        Args:
            env: Of the sequence, or of one of its tasks.
            sequence: What will be learned.
            seed: Root seed of the agent.
            acts_only: Whether it will never learn from what it meets.
        """
        n_tasks = len(sequence)
        own: dict[str, Any] = self._densities_of_method(n_tasks)
        if own:
            self._check_densities_are_free(list(own))
            own["output_layer"] = "dense"
        topology = replace(self.topology, **own)
        steps = [task.steps for task in sequence.tasks]
        strategy = self.strategy()
        if strategy.begins_anew:  # a fresh agent per task has its topology clock to itself
            updates = min(steps) - self.agent.learning_starts
        else:
            waits = n_tasks if self.border.buffer == "emptied" else 1
            consolidation = sum(strategy.consolidation(task, n_tasks) for task in range(n_tasks))
            updates = sum(steps) - waits * self.agent.learning_starts + consolidation
        heads = TaskHeads(n_tasks, self.border.task_id == "visible") if self.border.heads == "task" else None
        if updates > 0:  # else the learner says which task ends before learning starts
            self.agent.check_updates(updates)
        topology = topology.for_run(max(0, updates))
        agent = make_agent(
            self.algo,
            self.agent,
            topology,
            env,
            seed=seed,
            acts_only=acts_only,
            total_steps=sum(steps),
            heads=heads,
        )
        agent.set_logger(Logger(folder=None, output_formats=[]))
        return agent

    def _densities_of_method(self, n_tasks: int) -> dict[str, tuple[float, ...]]:
        """Densities that the method decides itself, by option of the topology."""
        densities = self.strategy().densities("agent", len(self.agent.net_arch), n_tasks)
        own = {f"{name}{DENSITY_SUFFIX}": share for name, share in densities.items()}
        if len(agent_spec(self.algo).agent.trained) > 1:
            return own
        return {"density": next(iter(own.values()))} if own else {}  # of the one that answers

    def _check_densities_are_free(self, taken: Sequence[str]) -> None:
        """Raises ConfigError if the user says how dense something is that the method decides itself."""
        all_are_taken = len(taken) == len(OWN_DENSITIES) or "density" in taken
        options = [*taken, *(("density", "epsilon") if all_are_taken else ())]
        given = [name for name in options if getattr(self.topology, name) is not None]
        if self.topology.output_layer == "sparse":
            given.append("output_layer")
        if given:
            option = f"--topology.{given[0].replace('_', '-')}"
            raise ConfigError(f"{self.method} decides itself how dense the networks of tasks are; leave {option} out")

    def make_learner(self, sequence: RLSequence) -> RLLearner:
        """What learns a sequence, with an agent that has learned nothing, in an environment that goes through it."""
        n_tasks = len(sequence)

        def fresh_agent(seed: int) -> Any:
            return self.make_agent(self.make_task(sequence.tasks[0], n_tasks), sequence, seed=seed, acts_only=True)

        env = SequenceEnv(sequence, lambda task: self.make_task(task, n_tasks), seed=self.seed)
        return RLLearner(
            self.make_agent(env, sequence, seed=self.seed),
            sequence.tasks,
            self.strategy(),
            self.border,
            seed=self.seed,
            fresh_agent=fresh_agent,
        )


def _check_has_memory(algo: str) -> None:
    """Raises ConfigError if an agent has no replay buffer.

    What an agent on a sequence does between tasks reads one: probes of a task (importances, distillation), memories of
    earlier tasks, replay, and all options of borders. Runs on sequences also resume after any env step, where an agent
    that learns from rollouts is whole after a rollout alone, and a border may lie within one.
    """
    if not issubclass(agent_spec(algo).config, OffPolicyConfig):
        raise ConfigError(f"{algo} has no replay buffer, which agents of sequences learn from; use ds_sac")


def build_rl_continual_config(data: Mapping[str, Any]) -> RLContinualConfig:
    """A run from plain data, as a YAML file has it; `algo` decides what `agent` may hold.

    Raises:
        ConfigError: If a name, key or value is wrong.
    """
    agent = data.get("agent", {})
    if isinstance(agent, Mapping):
        agent = yaml_config.build(agent_spec(str(data.get("algo", RLContinualConfig.algo))).config, agent, "agent.")
    data = with_own(data, str(data.get("method", RLContinualConfig.method)))
    return yaml_config.build(RLContinualConfig, {**data, "agent": agent})


def is_about_environments(data: Mapping[str, Any], preset: str | None) -> bool:
    """Whether a wish is for a sequence that agents learn, and not classifiers.

    Args:
        data: The wish.
        preset: That lies beneath it, if one is named.

    Raises:
        ConfigError: If there is no such sequence or preset.
    """
    of_preset = {} if preset is None else load_preset(preset, {**continual_presets(), **rl_continual_presets()})
    data = {**of_preset, **data}
    sequence = data.get("sequence")
    if sequence is None:
        if "algo" in data:
            raise ConfigError("'algo' is for sequences of environments: name one by --sequence")
        return False
    if not isinstance(sequence, str):
        raise ConfigError(f"sequence must be a name or a file, got {shown(sequence)}")
    known = (*SEQUENCES, *RL_SEQUENCES)
    if sequence not in known and not is_sequence_file(sequence):
        raise ConfigError(unknown_name("sequence", sequence, known))
    return is_of_environments(sequence)


def choose(data: Mapping[str, Any], preset: str | None) -> Choice:
    """What sequence, method and algorithm decide; as `resolving.choose`."""
    known = rl_continual_presets()
    of_preset = {} if preset is None else load_preset(preset, known)
    chosen = {
        name: str(data.get(name) or of_preset.get(name) or getattr(RLContinualConfig, name))
        for name in ("sequence", "method", "algo")
    }
    name_modules(filter(is_named_object, [chosen["method"]]), None, what="method")
    spec = method_spec(chosen["method"], "agent")
    _check_has_memory(chosen["algo"])  # before options that it has not are refused one by one
    if preset is None:
        names = (f"{chosen['sequence']}_{chosen['method']}", chosen["sequence"], USUAL_PRESET)
        preset = next(name for name in names if name in known)
        of_preset = load_preset(preset, known)
    if is_sequence_file(chosen["sequence"]):
        of_preset.pop("steps_per_task", None)
    unused = frozenset(GROUPS) - {spec.options or ""}
    # A preset is for all methods and may hold options of several; what a user writes is for his.
    of_preset = {name: value for name, value in of_preset.items() if name not in unused}
    of_preset = yaml_config.merge(spec.defaults, of_preset)
    agent = agent_spec(chosen["algo"])
    if agent.sparse:
        method = chosen["algo"] if chosen["algo"] in METHODS else TASK_METHOD
        of_preset = yaml_config.merge({"topology": {"method": method}}, of_preset)
    groups = users_of_groups(chosen["method"])

    def resolve(data: Mapping[str, Any]) -> RLContinualConfig:
        refuse_options_of_others(chosen["method"], groups, data)
        run = build_rl_continual_config({**over(of_preset, data), **chosen})
        if run.from_file:
            run = replace(run, sequence_name=run.load_sequence().name)
        return replace(run, wrappers=run.wrappers.absolute())

    schemas = {"agent": agent.config, OWN: options_type(chosen["method"])}
    return Choice(RLContinualConfig, preset, resolve, schemas=schemas, unused=unused)
