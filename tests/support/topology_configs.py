"""What tests of topology configs share."""

from __future__ import annotations

from sparserl.topology.config import TopologyConfig
from sparserl.topology.rewire import RewireRule


def rule_of(config: TopologyConfig) -> RewireRule:
    rule = config.rule()
    assert rule is not None
    return rule
