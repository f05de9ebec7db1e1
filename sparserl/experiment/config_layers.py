"""One layer of a config over another: preset, config file, flags; and what a choice of names decides of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sparserl import config as yaml_config
from sparserl.agents.config import OffPolicyConfig
from sparserl.agents.critics_config import CriticsConfig
from sparserl.agents.dqn_config import DQNConfig
from sparserl.continual.supervised.learner_config import WITH_MOMENTUM
from sparserl.errors import ConfigError
from sparserl.experiment.recorded_run import RunConfig
from sparserl.topology.config import beside_method
from sparserl.topology.config_options import OWN_DENSITIES
from sparserl.topology.methods import METHODS

OF_ALL = ("density", "epsilon")
DENSITIES = (*OF_ALL, *OWN_DENSITIES)
SIZES = ("net_arch", *CriticsConfig.of_policy[1:], *DQNConfig.of_policy[1:])
"""Options of an agent that say how large its kind of network is."""


@dataclass(frozen=True)
class Choice:
    """What decides which options a run has.

    Attributes:
        schema: Of its config.
        preset: That the wishes lie over, if any.
        resolve: Makes the config of all that is wished.
        schemas: Schemas of groups of options that depend on the choice, by group.
        unused: Groups of options that nothing reads: those of other methods.
        short: Names of options that may be said without their group -> their dotted keys.
    """

    schema: type[RunConfig]
    preset: str | None
    resolve: Callable[[Mapping[str, Any]], RunConfig]
    schemas: Mapping[str, type[Any]] = field(default_factory=dict)
    unused: frozenset[str] = frozenset()
    short: Mapping[str, str] = field(default_factory=dict)


def over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `below`. Keys that say one wish together are replaced together.

    How many connections there are is one wish, in several keys of `topology`: a density or factors for all networks, in
    `above`, replace all that `below` says of it: the other one of the two, and densities of actor and critic alone. A
    density of one network replaces that alone. The method is another wish: densities and factors of `below` stay with a
    method that is given over it, but what `below` says as its own method does goes with that. Another kind of
    network replaces the sizes of that of `below`, an optimizer without momentum the momentum, which was meant for
    another one.
    """
    topology, learner, agent = (_mapping(above.get(name)) for name in ("topology", "learner", "agent"))
    agent_below = _mapping(below.get("agent"))
    if agent.get("network") not in (None, agent_below.get("network", OffPolicyConfig.network)):
        below = {**below, "agent": {name: value for name, value in agent_below.items() if name not in SIZES}}
    if topology.get("method") is not None:
        below = {**below, "topology": beside_method(_mapping(below.get("topology")))}
    merged = yaml_config.merge(below, above)
    given = {name for name in DENSITIES if topology.get(name) is not None}
    if given & set(OF_ALL):
        emptied = {name: None for name in DENSITIES if name not in given}
        merged = yaml_config.merge(merged, {"topology": emptied})
    if learner.get("optimizer", WITH_MOMENTUM[0]) not in WITH_MOMENTUM and "momentum" not in learner:
        merged = yaml_config.merge(merged, {"learner": {"momentum": 0.0}})
    return merged


def refuse_density_of_dense(topology: Mapping[str, Any]) -> None:
    """Raises ConfigError if flags, or a point of a sweep, say how dense networks are that are dense by their method.

    A preset or config file may say so, and keeps it for other methods.

    Args:
        topology: What they say of it, by field.
    """
    method = topology.get("method")
    if method not in METHODS or not METHODS[method].dense:
        return
    for name in DENSITIES:
        value = topology.get(name)
        if value is not None:
            option = f"--topology.{name.replace('_', '-')} {value}"
            raise ConfigError(f"{option} has no effect with --topology.method {method}; use static, or leave it out")


def in_groups(data: Mapping[str, Any], short: Mapping[str, str]) -> dict[str, Any]:
    """A config in which options that were said by a short name are in their group; arguments as in `Choice`.

    Raises:
        ConfigError: If one is said by both names.
    """
    grouped = {name: value for name, value in data.items() if name not in short}
    for name in short.keys() & data.keys():
        group, _, own = short[name].partition(".")
        if _mapping(grouped.get(group)).get(own) is not None:
            raise ConfigError(f"{name} is {short[name]} by its short name; leave one of them out")
        grouped = yaml_config.merge(grouped, yaml_config.nested({short[name]: data[name]}))
    return grouped


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
