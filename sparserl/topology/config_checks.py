"""Whether the options of a topology go together: what a config refuses, in one line, before anything is made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparserl.errors import ConfigError, unknown_name
from sparserl.topology.config_options import OF_REWIRING, OWN_DENSITIES, PARTS, RECYCLE_BY, RULE_FIELDS
from sparserl.topology.density import OF_OUTPUT_LAYER, check_density
from sparserl.topology.fan_in import FAN_INS
from sparserl.topology.group_sizes import check_pairs
from sparserl.topology.methods import METHODS
from sparserl.topology.one_shot import ONE_SHOT
from sparserl.topology.rewire import RewireRule

if TYPE_CHECKING:
    from sparserl.topology.config import TopologyConfig


def check_options(config: TopologyConfig) -> None:
    """Raises ConfigError or TopologyError unless names are known and options go with the method and each other."""
    if config.method not in METHODS:
        raise ConfigError(unknown_name("topology method", config.method, METHODS))
    for name, (kind, table) in PARTS.items():
        value = getattr(config, name)
        if value is not None and value not in table:
            raise ConfigError(unknown_name(kind, str(value), table))
    if config.base.rule is None:
        unused = next((name for name in (*RULE_FIELDS, *OF_REWIRING) if getattr(config, name) is not None), None)
        if unused is not None:
            raise ConfigError(f"the topology method {config.method!r} never rewires and takes no {unused}")
    if config.recycle_by not in RECYCLE_BY:
        raise ConfigError(unknown_name("score of neurons", config.recycle_by, RECYCLE_BY))
    if config.recycle_by != "dormant" and config.recycle_interval is None:
        raise ConfigError(f"topology.recycle_by {config.recycle_by} recycles nothing: set topology.recycle_interval")
    _check_densities(config)
    _check_window(config)
    if check_pairs(config.pairs, "topology.pairs") > 1 and config.base.dense:
        raise ConfigError(f"the topology method {config.method!r} is dense and takes no pairs, got {config.pairs}")


def check_with_rule(config: TopologyConfig, rule: RewireRule | None) -> None:
    """Raises ConfigError unless a config goes with the rule that it has, None where it never rewires."""
    _check_one_shot(config, rule)
    if rule is None:
        return
    if rule.leaves_some_unused:
        _check_unused(config, rule.backward_factor)
    if FAN_INS[rule.fan_in] is not None and config.part("initial_topology") != rule.fan_in:
        raise ConfigError(
            f"topology.fan_in {rule.fan_in} is kept, not made: set topology.initial_topology {rule.fan_in}"
        )
    if rule.salient_share and not config.output_layer_is_dense:
        raise ConfigError(
            f"topology.salient_share {rule.salient_share:g} would leave outputs of a network without "
            "connections: set topology.output_layer dense, or salient_share 0"
        )


def _check_unused(config: TopologyConfig, backward_factor: float) -> None:
    said = f"topology.backward_factor {backward_factor:g} leaves connections unused: set topology."
    if config.pairs > 1:
        raise ConfigError(f"{said}pairs 1, not {config.pairs}")
    name = config.part("initial_topology")
    if name in ONE_SHOT and ONE_SHOT[name].together:
        raise ConfigError(f"{said}initial_topology largest, not {name}, which decides how many layers have")


def _check_one_shot(config: TopologyConfig, rule: RewireRule | None) -> None:
    name = config.part("initial_topology")
    if name not in ONE_SHOT:
        return
    if config.part("initial_value") != "dense_fan_in":
        raise ConfigError(
            f"topology.initial_topology {name} keeps the weights that it judges: leave topology.initial_value out, "
            f"got {config.part('initial_value')}"
        )
    if rule is not None and rule.prunes and ONE_SHOT[name].together:
        raise ConfigError(
            f"topology.initial_topology {name} decides how many connections layers have, and so does a density "
            "schedule: set topology.density_schedule constant, or initial_topology largest"
        )


def _check_densities(config: TopologyConfig) -> None:
    for name in ("density", *OWN_DENSITIES):
        given = getattr(config, name)
        if given is None:
            continue
        if config.base.dense and name in OWN_DENSITIES:
            raise ConfigError(f"the topology method {config.method!r} is dense and takes no {name}, got {given}")
        for density in given if isinstance(given, tuple) else (given,):
            check_density(density)

    one = [config.density if given is None else given for given in (getattr(config, name) for name in OWN_DENSITIES)]
    shared_out = [isinstance(given, int | float) or (given is None and config.epsilon is None) for given in one]
    if config.allocation != "erk" and not any(shared_out):
        raise ConfigError(
            f"topology.allocation {config.allocation} shares out one density among layers: leave it out beside "
            "epsilon, or a density for each layer"
        )
    if config.allocation in OF_OUTPUT_LAYER and config.output_layer_is_dense:
        raise ConfigError(
            f"topology.allocation {config.allocation} is about the output layer, which stays dense: set "
            "topology.output_layer sparse"
        )
    if (config.allocation == "erk_plus") != (config.output_density is not None):
        raise ConfigError("topology.allocation erk_plus and topology.output_density go together, give both or none")
    if config.initial_density is not None and config.part_of_rule("density_schedule") == "constant":
        raise ConfigError(
            f"topology.initial_density {config.initial_density:g} is where a density schedule begins: set "
            "topology.density_schedule"
        )


def _check_window(config: TopologyConfig) -> None:
    begin, end = config.part("begin_fraction"), config.part("end_fraction")
    by_fractions = begin is not None and config.first_update is None and config.last_update is None
    if by_fractions and end < begin:
        raise ConfigError(f"topology.end_fraction must not come before begin_fraction {begin}, got {end}")
