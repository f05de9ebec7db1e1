"""What defines a training run, and how presets, config files and flags make one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import gymnasium as gym
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.type_aliases import GymEnv

from sparserl import config as yaml_config
from sparserl.agents.collection import LeanVecEnv
from sparserl.agents.config import AgentConfig
from sparserl.agents.critics_config import TD3Config
from sparserl.agents.learning_observer import When
from sparserl.agents.networks.images import CNN_POLICY
from sparserl.agents.parts import AgentParts
from sparserl.agents.run_length import updates_of_steps
from sparserl.agents.table import AGENTS, accepted, agent_spec, check_options, make_agent
from sparserl.envs import WrapperConfig, around_counted, make_env, share_statistics, wrap
from sparserl.errors import ConfigError, KernelUnavailable
from sparserl.experiment.config_layers import Choice, over
from sparserl.experiment.origin_config import OriginConfig, check_origin, config_beneath, origin_in
from sparserl.experiment.presets import load_preset, presets
from sparserl.experiment.recorded_run import RunConfig
from sparserl.ranges import Count, Range, Repeats, check_ranges, check_wait
from sparserl.recording.metrics_table import Kind
from sparserl.recording.settings import env_label
from sparserl.topology.config import TopologyConfig


@dataclass(frozen=True)
class EvalConfig:
    """Evaluation while training."""

    every_steps: Count = 5_000
    """Env steps between evaluations; one falls before the first step, one after the last."""
    episodes: Repeats = 10
    """Episodes per evaluation, without exploration noise, on environments of their own."""
    max_steps: Count | None = None
    """Env steps after which an evaluated episode is cut off, and marked so in eval.csv; None: 10,000 where the
    environment has no time limit, for else a policy that never falls would be evaluated for ever."""

    def __post_init__(self) -> None:
        check_ranges(self, "--eval.")


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """A training run. Saved as `config.yaml`, which `--config` accepts.

    Raises:
        ConfigError: If a value is out of range.
        KernelUnavailable: If a device is asked for that is not there.
    """

    kind: ClassVar[Kind] = "train"
    algo: str = "ds_td3"
    """Algorithm; see `sparserl list algos`."""
    env: str = "HalfCheetah-v5"
    """Gymnasium id; see `sparserl list envs`."""
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments of the environment, as NAME=VALUE ..., e.g. --env-kwargs ctrl_cost_weight=0.5."""
    total_steps: Count = 1_000_000
    """Env steps of the run, those of all its environments together; it ends with the first round of
    n_envs x agent.train_freq steps (ds_ppo, ds_a2c and their dense twins: x agent.n_steps) that reaches them."""
    n_envs: Annotated[int, Range("[1, 100]")] = 1
    """Environments that the agent learns in, stepped one after the other in this process. Evaluations have their own.
    Every count of env steps but agent.train_freq is of all of them together."""
    agent: AgentConfig = field(default_factory=TD3Config)
    """Hyper-parameters of the agent; which there are depends on the algorithm."""
    topology: TopologyConfig = field(default_factory=TopologyConfig)
    """Connections of its networks."""
    wrappers: WrapperConfig = field(default_factory=WrapperConfig)
    """What stands between the environment and the agent."""
    eval: EvalConfig = field(default_factory=EvalConfig)
    """Evaluation while training."""
    log_every_steps: Count = 1_000
    """Env steps between rows of progress.csv."""
    checkpoint_every_steps: Count = 20_000
    """Env steps between checkpoints."""
    measure_learning: When = "evaluations"
    """When features, gradients and weights of the networks are measured (learning.csv): at evaluations, after topology
    events, or never."""
    keep_replay: bool = True
    """Keep the replay buffer when the run is done, so that --resume DIR --total-steps N can extend it; where a longer
    run would have gone another way (a schedule that depends on its length) nothing is kept."""
    topology_snapshots: Count = 10
    """How often over the run the connections of every layer are saved for `sparserl plot`."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where networks run."""
    origin: OriginConfig = field(default_factory=OriginConfig)
    """Networks that have learned already, to begin with."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(self.algo, self.agent)
        self.agent.check_envs(self.n_envs, has_noise_features=self.wrappers.noise_fraction > 0.0)
        if self.n_envs > 1 and self.wrappers.permute_every_steps is not None:
            raise ConfigError(
                "--wrappers.permute-every-steps is for one environment, as others would change their order at other "
                f"times, got --n-envs {self.n_envs}"
            )
        if self.measure_learning == "events" and not self.has_events:
            what = f"topology method {self.topology.method!r}" if AGENTS[self.algo].sparse else f"algo {self.algo!r}"
            raise ConfigError(f"--measure-learning events: {what} has no topology events; use evaluations")
        if self.device != "cpu":
            raise KernelUnavailable(f"there are no kernels for device {self.device!r} yet; use --device cpu")

    @property
    def task_label(self) -> str:
        return env_label(self.env, self.env_kwargs)

    @property
    def labels(self) -> list[str]:
        of_topology = self.topology.labels(self.algo) if AGENTS[self.algo].sparse else []
        return [self.algo, *of_topology, *self.origin.labels, *self.wrappers.labels]

    @property
    def has_events(self) -> bool:
        """Whether connections change while it learns."""
        return AGENTS[self.algo].sparse and self.topology.rule() is not None

    @property
    def files(self) -> dict[str, Path]:
        return {f"wrappers.{name}": path for name, path in self.wrappers.files.items()}

    def with_files(self, files: Mapping[str, Path]) -> TrainConfig:
        return replace(self, wrappers=self.wrappers.with_files({key.split(".")[1]: files[key] for key in files}))

    def resolved(self) -> TrainConfig:
        return replace(self, topology=self.topology.resolved()) if AGENTS[self.algo].sparse else self

    @property
    def last_step(self) -> int:
        """Env step with which the run ends."""
        steps, _ = self.agent.rollout(self.n_envs)
        return -(-self.total_steps // steps) * steps

    @property
    def bound_to_length(self) -> str | None:
        """Why a longer run would have gone another way from its beginning, in words; None if it would not."""
        if AGENTS[self.algo].sparse and self.topology.open_ends:
            return f"topology method {self.topology.method!r} has a schedule over all of its updates"
        return next((f"agent.{name} is over all of its steps" for name in self.agent.schedules), None)

    @property
    def keeps_end(self) -> bool:
        """Whether all that a longer run goes on from is kept when the run is done."""
        return self.keep_replay and self.bound_to_length is None

    @property
    def total_updates(self) -> int:
        """Gradient updates of the run."""
        steps, updates = self.agent.rollout(self.n_envs)
        return updates_of_steps(
            0, self.total_steps, self.agent.random_steps, steps_per_rollout=steps, updates_per_rollout=updates
        )

    def make_env(self, *, render_mode: str | None = None, follow: gym.Env[Any, Any] | None = None) -> gym.Env[Any, Any]:
        """An environment of this run with its wrappers; `follow` as in `sparserl.envs.wrap`."""
        images = CNN_POLICY in agent_spec(self.algo).agent.policy_aliases
        env = make_env(self.env, render_mode=render_mode, kwargs=self.env_kwargs, images=images, **accepted(self.algo))
        return wrap(env, self.wrappers, self.seed, follow=follow)

    def make_envs(self) -> LeanVecEnv:
        """The environments that the agent of this run learns in, with running statistics in common."""
        envs = [self.make_env() for _ in range(self.n_envs)]
        share_statistics(envs)
        return LeanVecEnv([partial(around_counted, env, Monitor) for env in envs])

    def make_agent(self, env: GymEnv, *, acts_only: bool = False) -> AgentParts:
        """The agent of this run on `env`; one that only acts never learns, and needs no replay buffer."""
        topology = self.topology.for_run(self.total_updates)
        agent = make_agent(
            self.algo,
            self.agent,
            topology,
            env,
            seed=self.seed,
            device=self.device,
            acts_only=acts_only,
            total_steps=self.total_steps,
        )
        agent.set_logger(Logger(folder=None, output_formats=[]))
        return agent


def preset_for(algo: str, env: str) -> str | None:
    """The preset of an algorithm for an env, else its default, else None."""
    known = presets()
    return next((name for name in (f"{algo}/{env}", f"{algo}/default") if name in known), None)


def build_train_config(data: Mapping[str, Any]) -> TrainConfig:
    """A run from plain data, as a YAML file has it; `algo` decides what `agent` may hold.

    Raises:
        ConfigError: If a name, key or value is wrong.
    """
    schema = agent_spec(str(data.get("algo", TrainConfig.algo))).config
    agent = data.get("agent", {})
    if isinstance(agent, Mapping):
        agent = yaml_config.build(schema, agent, "agent.")
    return yaml_config.build(TrainConfig, {**data, "agent": agent})


def choose(data: Mapping[str, Any], preset: str | None) -> Choice:
    """What algorithm and environment decide; as `resolving.choose`."""
    if "sequence" in data:
        raise ConfigError("'sequence' is for `sparserl continual`; `sparserl train` takes no config of one")
    origin = origin_in(data)
    if origin.run is not None:
        return _choose_by_origin(data, preset, origin)
    of_preset = {} if preset is None else load_preset(preset, presets())
    algo, env = _named(data, of_preset)
    spec = agent_spec(algo)
    if preset is None:
        preset = preset_for(algo, env)
        of_preset = {} if preset is None else load_preset(preset, presets())
    elif of_preset.get("algo", algo) != algo:
        raise ConfigError(f"the preset {preset!r} is one of {of_preset['algo']}, not of {algo}")

    def resolve(data: Mapping[str, Any]) -> TrainConfig:
        return _resolved({**over(of_preset, data), "algo": algo, "env": env})

    return Choice(TrainConfig, preset, resolve, schemas={"agent": spec.config})


def _named(data: Mapping[str, Any], beneath: Mapping[str, Any]) -> tuple[str, str]:
    """Algorithm and environment."""
    algo, env = (str(data.get(name) or beneath.get(name) or getattr(TrainConfig, name)) for name in ("algo", "env"))
    return algo, env


def _choose_by_origin(data: Mapping[str, Any], preset: str | None, origin: OriginConfig) -> Choice:
    """Where the config of another run lies beneath, and its networks are what the run begins with."""
    if preset is not None:
        raise ConfigError(f"the config of {origin.run} lies beneath, so no preset does: leave {preset!r} out")
    beneath = config_beneath(origin)
    algo, env = _named(data, beneath)
    source = build_train_config(config_beneath(replace(origin, prune_by=None)) | {"origin": {}})
    if algo not in (
        source.algo,
        AGENTS[source.algo].sparse_twin,
    ):  # before options of other algorithms are refused one by one
        raise ConfigError(f"{algo} cannot begin with the networks of {origin.run}: they are of {source.algo}")

    def resolve(data: Mapping[str, Any]) -> TrainConfig:
        run = _resolved({**over(beneath, data), "algo": algo, "env": env})
        check_origin(run, source)
        return replace(run, origin=run.origin.absolute())

    return Choice(TrainConfig, None, resolve, schemas={"agent": agent_spec(algo).config})


def _resolved(data: Mapping[str, Any]) -> TrainConfig:
    run = build_train_config(data)
    if run.total_updates == 0:
        raise ConfigError(
            f"the run ends at step {run.last_step}, before learning starts at {run.agent.random_steps}; "
            "lower --agent.learning-starts or raise --total-steps"
        )
    run.agent.check_updates(run.total_updates)
    run.topology.check_waits(run.total_updates)
    check_wait("wrappers.permute-every-steps", run.wrappers.permute_every_steps, run.last_step, "env steps")
    return replace(run, wrappers=run.wrappers.absolute())
