"""One layer of a config over another: preset, config file, flags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sparserl import config as yaml_config
from sparserl.cli.arguments import is_given

OWN_DENSITIES = ("actor_density", "critic_density")
OF_ALL = ("density", "epsilon")


def over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `below`. How many connections there are is one wish, in several keys of `topology`.

    A density or factors for all networks, in `above`, replace all that `below` says of it: the other one of the two,
    and densities of actor and critic alone. A density of one network replaces that alone. The method is another wish: a
    preset's densities and factors stay with a method that is given over it.
    """
    topology = above.get("topology")
    given = {name for name, value in topology.items() if value is not None} if isinstance(topology, Mapping) else set()
    merged = yaml_config.merge(below, above)
    if given & set(OF_ALL):
        emptied = {name: None for name in (*OF_ALL, *OWN_DENSITIES) if name not in given}
        merged = yaml_config.merge(merged, {"topology": emptied})
    return merged


def beneath_flags(data: Mapping[str, Any], arguments: Sequence[str]) -> dict[str, Any]:
    """What lies beneath the flags, without what flags that stand for the same wish replace; see `over`."""
    given = [name for name in (*OF_ALL, *OWN_DENSITIES) if is_given(f"topology.{name}", arguments)]
    if not set(given) & set(OF_ALL):
        return dict(data)
    return yaml_config.merge(data, {"topology": dict.fromkeys((*OF_ALL, *OWN_DENSITIES))})
