"""Agents: Stable-Baselines3's interaction, our gradient updates on sparse networks."""

from sparserl.agents.ds_dqn import DSDQN
from sparserl.agents.ds_sac import DSSAC
from sparserl.agents.ds_td3 import DSTD3
from sparserl.topology.config import TopologyConfig

__all__ = ["DSDQN", "DSSAC", "DSTD3", "TopologyConfig"]
