"""The table of continual methods for agents and their options. To add one, write its file and its line here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sparserl.continual.rl.strategies.memory import AGEM, AGEMOptions, Replay, ReplayOptions
from sparserl.continual.rl.strategies.packnet import PackNet, PackNetOptions
from sparserl.continual.rl.strategies.regularization import (
    EWC,
    L2,
    MAS,
    EWCOptions,
    L2Options,
    MASOptions,
)
from sparserl.continual.rl.strategies.scratch import Scratch
from sparserl.continual.rl.strategies.spacenet import SpaceNet, SpaceNetOptions
from sparserl.continual.rl.strategy import RLStrategy
from sparserl.errors import ConfigError, unknown_name


@dataclass(frozen=True)
class RLMethodOptions:
    """Options of all methods; a method reads its own group."""

    l2: L2Options = field(default_factory=L2Options)
    """l2."""
    ewc: EWCOptions = field(default_factory=EWCOptions)
    """ewc."""
    mas: MASOptions = field(default_factory=MASOptions)
    """mas."""
    agem: AGEMOptions = field(default_factory=AGEMOptions)
    """agem."""
    replay: ReplayOptions = field(default_factory=ReplayOptions)
    """replay."""
    packnet: PackNetOptions = field(default_factory=PackNetOptions)
    """packnet."""
    spacenet: SpaceNetOptions = field(default_factory=SpaceNetOptions)
    """spacenet."""


@dataclass(frozen=True)
class RLMethodSpec:
    """A continual method for agents.

    Attributes:
        summary: One line for `sparserl list methods`.
        strategy: Its class.
        options: Its group in `RLMethodOptions`; None if it has no options.
        defaults: Values of other groups of options that it starts from, by group.
    """

    summary: str
    strategy: type[RLStrategy]
    options: str | None = None
    defaults: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


# No penalty or projection holds a connection that is dropped: on halfcheetah_gravity, with the rewiring of ds_sac, ewc
# forgets as much as finetune (results/continual).
FIXED_TOPOLOGY = {"topology": {"method": "static"}}

RL_STRATEGIES: dict[str, RLMethodSpec] = {
    "finetune": RLMethodSpec("train on one task after the other", RLStrategy),
    "scratch": RLMethodSpec("a fresh agent per task: the reference of forward transfer", Scratch),
    "l2": RLMethodSpec("pull all weights back alike (Wolczyk et al. 2021)", L2, "l2", FIXED_TOPOLOGY),
    "ewc": RLMethodSpec("elastic weight consolidation (Kirkpatrick et al. 2017)", EWC, "ewc", FIXED_TOPOLOGY),
    "mas": RLMethodSpec("memory aware synapses (Aljundi et al. 2018)", MAS, "mas", FIXED_TOPOLOGY),
    "agem": RLMethodSpec(
        "project gradients against kept transitions (Chaudhry et al. 2019)", AGEM, "agem", FIXED_TOPOLOGY
    ),
    "replay": RLMethodSpec(
        "perfect memory: one buffer for all tasks", Replay, "replay", {"border": {"buffer": "kept"}}
    ),
    "packnet": RLMethodSpec(
        "prune and freeze an equal share of the actor per task (Mallya and Lazebnik 2018)", PackNet, "packnet"
    ),
    "spacenet": RLMethodSpec("sparse sub-networks between free neurons (Sokar et al. 2021)", SpaceNet, "spacenet"),
}


def make_rl_strategy(name: str, n_tasks: int, options: RLMethodOptions, *, seed: int) -> RLStrategy:
    """A method of the table.

    Args:
        name: In `RL_STRATEGIES`.
        n_tasks: Tasks of the sequence.
        options: Of all methods.
        seed: Root seed.

    Raises:
        ConfigError: If there is no such method, with the closest name.
    """
    if name not in RL_STRATEGIES:
        raise ConfigError(unknown_name("method", name, RL_STRATEGIES))
    spec = RL_STRATEGIES[name]
    own: Any = None if spec.options is None else getattr(options, spec.options)
    return spec.strategy(own, n_tasks=n_tasks, seed=seed)
