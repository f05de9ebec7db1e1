"""What defines a run of `sparserl fit`, and how presets, config files and flags make one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from sparserl import config as yaml_config
from sparserl.continual.strategies.strategy import Strategy
from sparserl.continual.supervised.connections import NOT_HERE, check_topology
from sparserl.continual.supervised.learner_config import FitLearnerConfig
from sparserl.continual.supervised.splits import Scaling
from sparserl.errors import ConfigError
from sparserl.experiment.config_layers import Choice, in_groups, over
from sparserl.experiment.presets import fit_presets, load_preset
from sparserl.experiment.recorded_run import RunConfig
from sparserl.ranges import Count, InnerShare, ShareBelowOne
from sparserl.recording.metrics_table import Kind
from sparserl.topology.config import TopologyConfig
from sparserl.topology.methods import METHODS

SHORT_NAMES = {name: f"topology.{name}" for name in ("method", "density", "epsilon")} | {"ensemble": "learner.ensemble"}
"""Options that may be said without their group."""
OF_TASKS = {"class_weights": "classify", "ensemble": "classify", "regularizer": "classify", "gibbs_steps": "rbm"}
"""Options of the learner that only one task has."""
ALL_LAYERS: dict[str, Any] = {"method": "set", "output_layer": "sparse"}
"""What the topology of a run says unless it is told otherwise."""


@dataclass(frozen=True)
class FitConfig(RunConfig):
    """A run of `sparserl fit`. Saved as `config.yaml`, which `--config` accepts.

    Raises:
        ConfigError: If a name is unknown, a value out of range, or an option has no effect.
    """

    kind: ClassVar[Kind] = "fit"
    data: str = "digits"
    """digits, mnist, fashion_mnist, cifar10, cifar100, breast_cancer, iris or wine; madelon:5000x500, generated; a file
    .npz, .mat, .csv; a folder of IDX files; or module:function, which returns arrays or a data set. What is no name is
    looked for here, and then in the data folder. Labels of a .csv are in the column label, class, y or target; to
    classify, else in the last one."""
    task: Literal["classify", "reconstruct", "rbm"] = "classify"
    """What is learned: the class of a sample; the sample itself, by an autoencoder (denoising with learner.noise), or
    its distribution, by a restricted Boltzmann machine with one layer of hidden units and features in [0, 1]: rbm
    --learner.hidden 200 --scaling range."""
    scaling: Scaling = "each_feature"
    """What features are scaled by: the mean and standard deviation of each feature, or of all together; their smallest
    and largest value, to [0, 1]; or nothing."""
    test_share: InnerShare | None = None
    """Share of the samples that are for testing, in (0, 1); a fifth, or the table's own test samples, if None."""
    validation_share: ShareBelowOne = 0.1
    """Share of the training samples that are held out to choose by, in [0, 1)."""
    learner: FitLearnerConfig = field(default_factory=FitLearnerConfig)
    """The network and how it is trained."""
    topology: TopologyConfig = field(default_factory=lambda: TopologyConfig(**ALL_LAYERS))
    """Connections of the network. Events are an epoch apart where no interval is given."""
    log_every_steps: Count = 100
    """Gradient steps between rows of progress.csv; there is one after each epoch as well."""
    checkpoint_every_steps: Count = 2_000
    """Gradient steps between checkpoints; there is one at the end as well."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.learner.patience is not None and not self.validation_share:
            raise ConfigError(
                f"--learner.patience {self.learner.patience} is about validation samples: set --validation-share, "
                "e.g. 0.1"
            )
        for name, task in OF_TASKS.items():
            default, given = getattr(FitLearnerConfig, name), getattr(self.learner, name)
            if self.task != task and given != default:
                raise ConfigError(f"--learner.{name.replace('_', '-')} {given} is for --task {task}, not {self.task}")
        check_topology(self.topology, Strategy())
        if self.wandb.video_every_steps is not None:
            raise ConfigError("--wandb.video-every-steps is for agents: there is nothing to film here")

    @property
    def data_name(self) -> str:
        """What the data is called: its name, or that of its file."""
        return re.sub(r"[^\w.-]+", "-", Path(self.data).name)

    @property
    def task_label(self) -> str:
        return self.data_name if self.task == "classify" else f"{self.data_name}, {self.task}"

    @property
    def labels(self) -> list[str]:
        ensemble = [f"ensemble{self.learner.ensemble}"] if self.learner.ensemble > 1 else []
        regularizer = [self.learner.regularizer] if self.learner.regularizer != "none" else []
        return [*self.topology.labels(""), *ensemble, *regularizer]

    @property
    def name(self) -> str:
        return "__".join([self.data_name, self.task, *self.labels])

    def resolved(self) -> FitConfig:
        here = {name: getattr(self.topology, name) for name in ("update_interval", *NOT_HERE)}
        return replace(self, topology=replace(self.topology.resolved(), **here))

    def plain(self) -> dict[str, Any]:
        """The resolved config as plain data, without the options of agents."""
        data = super().plain()
        data["topology"] = {name: value for name, value in data["topology"].items() if name not in NOT_HERE}
        return data


def choose(data: Mapping[str, Any], preset: str | None) -> Choice:
    """What the data decides: a preset of its name lies beneath; as `resolving.choose`."""
    of_preset = {} if preset is None else load_preset(preset, fit_presets())
    name = data.get("data") or of_preset.get("data") or FitConfig.data
    if preset is None and isinstance(name, str) and name in fit_presets():
        preset = name
        of_preset = load_preset(preset, fit_presets())

    def resolve(data: Mapping[str, Any]) -> FitConfig:
        return yaml_config.build(FitConfig, _with_all_layers(over(of_preset, in_groups(data, SHORT_NAMES))))

    return Choice(FitConfig, preset, resolve, short=SHORT_NAMES)


def _with_all_layers(data: Mapping[str, Any]) -> dict[str, Any]:
    """A config whose topology has a method, and all layers unless it says otherwise."""
    topology = data.get("topology", {})
    if not isinstance(topology, Mapping):
        return dict(data)  # which `build` refuses
    beneath = dict(ALL_LAYERS)
    method = topology.get("method")
    known = METHODS.get(method) if isinstance(method, str) else None
    # Neurons that lose all their inputs cannot be outputs.
    if known is not None and (known.dense or (known.rule is not None and known.rule.salient_share > 0.0)):
        del beneath["output_layer"]
    return {**data, "topology": {**beneath, **topology}}
