"""The table of continual methods and their options. To add one, write its file and its line here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sparserl.continual.supervised.strategies.joint import Joint
from sparserl.continual.supervised.strategies.lwf import LwF, LwFOptions
from sparserl.continual.supervised.strategies.packnet import PackNet, PackNetOptions
from sparserl.continual.supervised.strategies.penalty import (
    EWC,
    L2,
    MAS,
    SI,
    EWCOptions,
    L2Options,
    MASOptions,
    OnlineEWC,
    OnlineEWCOptions,
    SIOptions,
)
from sparserl.continual.supervised.strategies.replay import AGEM, AGEMOptions, Replay, ReplayOptions
from sparserl.continual.supervised.strategies.spacenet import SpaceNet, SpaceNetOptions
from sparserl.continual.supervised.strategy import Strategy
from sparserl.continual.supervised.tasks import TaskSequence


@dataclass(frozen=True)
class MethodOptions:
    """Options of all methods; a method reads its own group."""

    l2: L2Options = field(default_factory=L2Options)
    """l2."""
    ewc: EWCOptions = field(default_factory=EWCOptions)
    """ewc."""
    online_ewc: OnlineEWCOptions = field(default_factory=OnlineEWCOptions)
    """online_ewc."""
    si: SIOptions = field(default_factory=SIOptions)
    """si."""
    mas: MASOptions = field(default_factory=MASOptions)
    """mas."""
    lwf: LwFOptions = field(default_factory=LwFOptions)
    """lwf."""
    replay: ReplayOptions = field(default_factory=ReplayOptions)
    """replay."""
    agem: AGEMOptions = field(default_factory=AGEMOptions)
    """agem."""
    packnet: PackNetOptions = field(default_factory=PackNetOptions)
    """packnet."""
    spacenet: SpaceNetOptions = field(default_factory=SpaceNetOptions)
    """spacenet, static_sparse."""


@dataclass(frozen=True)
class MethodSpec:
    """A continual method.

    Attributes:
        summary: One line for `sparserl list methods`.
        strategy: Its class.
        options: Its group in `MethodOptions`; None if it has no options.
        fixed: Options of that group that make the method what it is, by name.
    """

    summary: str
    strategy: type[Strategy]
    options: str | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)


STRATEGIES: dict[str, MethodSpec] = {
    "naive": MethodSpec("fine-tuning: train on one task after the other", Strategy),
    "joint": MethodSpec("a new network at each task, trained on all tasks so far", Joint),
    "l2": MethodSpec("pull all weights back alike (Hsu et al. 2018)", L2, "l2"),
    "ewc": MethodSpec("elastic weight consolidation (Kirkpatrick et al. 2017)", EWC, "ewc"),
    "online_ewc": MethodSpec("EWC with one anchor (Schwarz et al. 2018)", OnlineEWC, "online_ewc"),
    "si": MethodSpec("synaptic intelligence (Zenke et al. 2017)", SI, "si"),
    "mas": MethodSpec("memory aware synapses (Aljundi et al. 2018)", MAS, "mas"),
    "lwf": MethodSpec("learning without forgetting: the old network teaches (Li and Hoiem 2016)", LwF, "lwf"),
    "replay": MethodSpec("train on stored samples as well (Hsu et al. 2018)", Replay, "replay"),
    "agem": MethodSpec("project gradients against stored samples (Chaudhry et al. 2019)", AGEM, "agem"),
    "packnet": MethodSpec(
        "prune and freeze a share of the weights per task (Mallya and Lazebnik 2018)", PackNet, "packnet"
    ),
    "spacenet": MethodSpec("sparse sub-networks between free neurons (Sokar et al. 2021)", SpaceNet, "spacenet"),
    "static_sparse": MethodSpec(
        "SpaceNet whose connections stay where they are", SpaceNet, "spacenet", fixed={"rewire": False}
    ),
}


def make_strategy(name: str, sequence: TaskSequence, options: MethodOptions, *, seed: int) -> Strategy:
    """The strategy of a method of `STRATEGIES`."""
    spec = STRATEGIES[name]
    own = None if spec.options is None else dataclasses.replace(getattr(options, spec.options), **spec.fixed)
    return spec.strategy(sequence, own, seed=seed)
