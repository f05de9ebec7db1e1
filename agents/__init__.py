"""Agents: Stable-Baselines3's interaction, our gradient updates on sparse networks."""

from sparserl.agents.ds_a2c import DSA2C
from sparserl.agents.ds_crossq import DSCrossQ
from sparserl.agents.ds_dqn import DSDQN
from sparserl.agents.ds_ppo import DSPPO
from sparserl.agents.ds_sac import DSSAC
from sparserl.agents.ds_td3 import DSTD3
from sparserl.agents.ds_tqc import DSTQC
from sparserl.topology.config import TopologyConfig

__all__ = ["DSA2C", "DSDQN", "DSPPO", "DSSAC", "DSTD3", "DSTQC", "DSCrossQ", "TopologyConfig"]
