"""Environments: making one by its id, modifying it, putting wrappers around it, and saving the exact state of one.

Also which of them make a sequence of tasks. Knows Gymnasium and MuJoCo; knows no agent and nothing that learns.
"""

from __future__ import annotations

from sparserl.envs.feature_names import action_names, feature_names
from sparserl.envs.make import is_image, list_env_ids, make_env
from sparserl.envs.simulation_state import STATEFUL_WRAPPERS, EnvState, capture_state, restore_state
from sparserl.envs.tasks.modified_dynamics import Modification, PartFactors, modify
from sparserl.envs.tasks.published_sequences import RL_SEQUENCES, build_rl_sequence
from sparserl.envs.tasks.sequence_env import SequenceEnv
from sparserl.envs.tasks.sequences import RLSequence, TaskSpec, check_spaces, load_rl_sequence, make_task_env
from sparserl.envs.wrapper_stack import feature_origins, noise_source, relevant_features
from sparserl.envs.wrappers.feature_histograms import FeatureHistograms, collect_histograms
from sparserl.envs.wrappers.normalized_observations import ObservationStatistics, observation_statistics
from sparserl.envs.wrappers.task_id import AppendTaskId
from sparserl.envs.wrapping import (
    WRAPPERS,
    WrapperConfig,
    around_counted,
    followed_state,
    load_wrapper_state,
    share_statistics,
    wrap,
    wrapper_state,
)

__all__ = [
    "RL_SEQUENCES",
    "STATEFUL_WRAPPERS",
    "WRAPPERS",
    "AppendTaskId",
    "EnvState",
    "FeatureHistograms",
    "Modification",
    "ObservationStatistics",
    "PartFactors",
    "RLSequence",
    "SequenceEnv",
    "TaskSpec",
    "WrapperConfig",
    "action_names",
    "around_counted",
    "build_rl_sequence",
    "capture_state",
    "check_spaces",
    "collect_histograms",
    "feature_names",
    "feature_origins",
    "followed_state",
    "is_image",
    "list_env_ids",
    "load_rl_sequence",
    "load_wrapper_state",
    "make_env",
    "make_task_env",
    "modify",
    "noise_source",
    "observation_statistics",
    "relevant_features",
    "restore_state",
    "share_statistics",
    "wrap",
    "wrapper_state",
]
