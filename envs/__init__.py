"""Environments: making one by its id, putting wrappers around it, and saving the exact state of one.

Knows Gymnasium and MuJoCo; knows no agent and no task sequence.
"""

from __future__ import annotations

from sparserl.envs.feature_histograms import FeatureHistograms, collect_histograms
from sparserl.envs.layers import feature_origins, noise_source, relevant_features
from sparserl.envs.make import list_env_ids, make_env
from sparserl.envs.normalized_observations import ObservationStatistics, observation_statistics
from sparserl.envs.simulation_state import STATEFUL_WRAPPERS, EnvState, capture_state, restore_state
from sparserl.envs.wrapping import WRAPPERS, WrapperConfig, load_wrapper_state, wrap, wrapper_state

__all__ = [
    "STATEFUL_WRAPPERS",
    "WRAPPERS",
    "EnvState",
    "FeatureHistograms",
    "ObservationStatistics",
    "WrapperConfig",
    "capture_state",
    "collect_histograms",
    "feature_origins",
    "list_env_ids",
    "load_wrapper_state",
    "make_env",
    "noise_source",
    "observation_statistics",
    "relevant_features",
    "restore_state",
    "wrap",
    "wrapper_state",
]
