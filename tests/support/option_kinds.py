"""Options that are set at once, the commands that take them, and what a config builds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml

from sparserl.config import nested, plain
from sparserl.continual.supervised.data import default_data_dir
from sparserl.continual.supervised.fit_learner import FitLearner
from sparserl.continual.supervised.task_learner import TaskLearner
from sparserl.envs.wrapper_stack import layers
from sparserl.envs.wrappers.feature_histograms import FeatureHistograms
from sparserl.envs.wrappers.normalized_observations import ObservationStatistics
from sparserl.envs.wrapping import WRAPPERS
from sparserl.experiment.classifier_training import make_learner
from sparserl.experiment.continual_config import ContinualConfig
from sparserl.experiment.fit_config import FitConfig
from sparserl.experiment.fit_training import make_fit_learner
from sparserl.experiment.resolving import resolve
from sparserl.experiment.rl_continual_config import RLContinualConfig
from sparserl.experiment.train_config import TrainConfig

ON_POLICY = ("ds_ppo", "ppo", "ds_a2c", "a2c", "ds_recurrent_ppo")
"""Agents that learn from rollouts."""
Value = Any
Probe = Callable[[Any], Any]
"""What a config builds -> the value that must have arrived there."""


@dataclass(frozen=True)
class Batch:
    """Options that are set at once.

    Attributes:
        kind: In `KINDS`.
        name: What they are.
        sets: Option, as a dotted key of the config -> value.
        needs: Further options without which those have no effect.
        probes: Option -> where it must arrive beside the config; its value there is the same.
        also: Options that these change as well.
    """

    kind: str
    name: str
    sets: Mapping[str, Value]
    needs: Mapping[str, Value] = field(default_factory=dict)
    probes: Mapping[str, Probe] = field(default_factory=dict)
    also: tuple[str, ...] = ()


class Built:
    """What a config builds."""

    @property
    def evolver(self) -> Any:
        """What moves connections."""
        raise NotImplementedError

    def density(self, network: str) -> float:
        """Of all layers that take part, rounded: with sizes as small as these it is near what was asked for."""
        own = [layer for name, layer in self.evolver.layers.items() if name.startswith(network)]
        return round(sum(layer.topology.nnz for layer in own) / sum(layer.topology.size for layer in own), 1)


class BuiltAgent(Built):
    """What a config of a single agent builds."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config

    @cached_property
    def env(self) -> Any:
        return self.config.make_env()

    @cached_property
    def agent(self) -> Any:
        return self.config.make_agent(self.config.make_envs())

    @property
    def evolver(self) -> Any:
        return self.agent.evolver

    def wrapper(self, name: str) -> Any:
        return next(one for one in layers(self.env) if type(one) is WRAPPERS[name].wrapper)


class BuiltSequence(BuiltAgent):
    """What a config of an agent on a sequence of environments builds."""

    config: Any

    @cached_property
    def learner(self) -> Any:
        return self.config.make_learner(self.config.load_sequence())

    @cached_property
    def agent(self) -> Any:
        return self.learner.agent

    @cached_property
    def env(self) -> Any:
        return self.config.make_task(self.config.load_sequence().tasks[0], 2)


class BuiltLearner(Built):
    """What a config of a classifier builds."""

    def __init__(self, config: ContinualConfig) -> None:
        self.config = config

    @cached_property
    def learner(self) -> TaskLearner:
        return make_learner(self.config, default_data_dir())

    @property
    def evolver(self) -> Any:
        return self.learner.evolver


class BuiltFit(Built):
    """What a config of `sparserl fit` builds."""

    def __init__(self, config: FitConfig) -> None:
        self.config = config

    @cached_property
    def learner(self) -> FitLearner:
        return make_fit_learner(self.config, default_data_dir())

    @property
    def evolver(self) -> Any:
        return self.learner.evolver


@dataclass(frozen=True)
class Kind:
    """A command with what decides its schema.

    Attributes:
        command: Sub-command.
        base: Options of all its batches, as in a config file.
        built: Makes what a config builds.
    """

    command: Literal["train", "continual", "fit"]
    base: Mapping[str, Value]
    built: Callable[[Any], Any]


SMALL = {"agent.net_arch": [8, 8], "agent.buffer_size": 100, "agent.learning_starts": 20}


def _train(algo: str, sizes: Mapping[str, Value] = SMALL) -> Kind:
    return Kind("train", {"algo": algo, "env": "Tiny-v0", "total_steps": 400, **sizes}, BuiltAgent)


def _rl(algo: str) -> Kind:
    base = {"sequence": "FOLDER/tiny.yaml", "algo": algo, "method": "finetune", **SMALL}
    return Kind("continual", base, BuiltSequence)


KINDS: dict[str, Kind] = {
    **{algo: _train(algo) for algo in ("ds_td3", "ds_sac", "ds_tqc", "td3", "sac")},
    "ds_crossq": _train("ds_crossq", {**SMALL, "agent.critic_arch": [8, 8]}),
    **{algo: _train(algo, {"agent.net_arch": [8, 8]}) for algo in ON_POLICY},
    "ds_dqn": _train("ds_dqn", {**SMALL, "env": "Choices-v0"}),
    "classifier": Kind("continual", {"sequence": "split_digits", "method": "naive"}, BuiltLearner),
    "moving classifier": Kind(
        "continual", {"sequence": "split_digits", "method": "naive", "topology.method": "ds_td3"}, BuiltLearner
    ),
    "fit": Kind("fit", {"data": "wine"}, BuiltFit),
    "moving fit": Kind(
        "fit", {"data": "wine", "topology.method": "ds_td3", "topology.output_layer": "dense"}, BuiltFit
    ),
    **{f"tasks, {algo}": _rl(algo) for algo in ("ds_sac", "ds_td3")},
}
SCHEMAS = {
    BuiltAgent: TrainConfig,
    BuiltLearner: ContinualConfig,
    BuiltSequence: RLContinualConfig,
    BuiltFit: FitConfig,
}


def write_files(folder: Path) -> None:
    """Files that options name."""
    tasks = "".join(f"  - {{env: Tiny-v0, steps: 300, name: task {task}}}\n" for task in range(2))
    (folder / "tiny.yaml").write_text(f"name: small tasks\ntasks:\n{tasks}")
    FeatureHistograms.of(np.random.default_rng(0).normal(size=(20, 3)), 4).save(folder / "histograms.json")
    ObservationStatistics(np.zeros(3), np.ones(3), 5.0).save(folder / "statistics.json")
    (folder / "run").mkdir()
    earlier = plain(resolve("train", nested(KINDS["ds_td3"].base)))
    (folder / "run" / "config.yaml").write_text(yaml.safe_dump(earlier))


def in_folder(options: Mapping[str, Value], folder: Path) -> dict[str, Value]:
    """Options with the names of files in full."""
    return {
        name: value.replace("FOLDER", str(folder)) if isinstance(value, str) else value
        for name, value in options.items()
    }


# --- probes -----------------------------------------------------------------------------------------


def of_agent(name: str) -> Probe:
    return lambda built: getattr(built.agent, name)


def of_norm(name: str) -> Probe:
    return lambda built: getattr(built.agent.critic.qf0.norms[0].options, name)


def of_group(name: str) -> Probe:
    return lambda built: built.agent.optimizer_of(built.agent.trained[-1]).param_groups[0][name]


def of_rule(name: str) -> Probe:
    return lambda built: getattr(built.evolver.rule, name)


def of_wrapper(wrapper: str, what: Probe) -> Probe:
    return lambda built: what(built.wrapper(wrapper))


def of_options(name: str) -> Probe:
    """Of the continual method."""
    return lambda built: getattr(built.learner.strategy.options, name)


def in_plain(probe: Probe) -> Probe:
    """With tuples as lists, as files have them."""
    return lambda built: list(probe(built))


def of_capacity(name: str) -> Probe:
    return lambda built: getattr(built.agent.replay_buffer.capacity, name)


def hidden(module: Any) -> list[int]:
    return [layer.out_features if isinstance(layer, torch.nn.Linear) else layer.n_out for layer in [*module][:-1]]
