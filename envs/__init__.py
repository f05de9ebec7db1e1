"""Environments: making one by its id, and saving the exact state of one.

Knows Gymnasium and MuJoCo; knows no agent and no task sequence.
"""

from __future__ import annotations

from sparserl.envs.make import list_env_ids, make_env
from sparserl.envs.simulation_state import STATEFUL_WRAPPERS, EnvState, capture_state, restore_state

__all__ = ["STATEFUL_WRAPPERS", "EnvState", "capture_state", "list_env_ids", "make_env", "restore_state"]
