"""What a run of any command may be told of its records and environments, and where it must arrive."""

from __future__ import annotations

from support.option_kinds import Batch, Probe, Value, of_wrapper

RUN = {"seed": 7, "threads": 2, "energy": True, "tensorboard": True}
TRACKED = {
    "track": True,
    "wandb.mode": "offline",
    "wandb.project": "other",
    "wandb.entity": "somebody",
    "wandb.tags": ["a", "b"],
    "wandb.checkpoints": True,
}


def of_trackio(kind: str) -> Batch:
    return Batch(kind, "trackio", {"trackio.project": "other"}, {"track": "trackio"})


WRAPPERS_SET: dict[str, Value] = {
    "wrappers.noise_fraction": 0.5,
    "wrappers.permute": True,
    "wrappers.invert_actions": True,
    "wrappers.sensor_dropout": 0.25,
    "wrappers.noise_std": 2.0,
    "wrappers.hidden_features": [0],
    "wrappers.normalize_rewards": 0.5,
    "wrappers.frame_stack": 3,
}
OF_ONE_TASK = ("wrappers.normalize_rewards",)
"""Options that tasks which follow each other refuse."""
WRAPPER_PROBES: dict[str, Probe] = {
    "wrappers.noise_fraction": of_wrapper("noise_features", lambda one: one._noise / (one._noise + one._real)),
    "wrappers.noise_std": of_wrapper("noise_features", lambda one: one._std),
    "wrappers.permute": of_wrapper("permuted_features", lambda one: True),
    "wrappers.invert_actions": of_wrapper("inverted_actions", lambda one: True),
    "wrappers.hidden_features": of_wrapper("hidden_features", lambda one: one.hidden),
    "wrappers.normalize_rewards": of_wrapper("normalized_rewards", lambda one: one.discount),
    "wrappers.frame_stack": of_wrapper("stacked_frames", lambda one: one.stack_size),
    "wrappers.sensor_dropout": of_wrapper("sensor_dropout", lambda one: one._probability.max()),
}


def wrapper_batches(kind: str, normalization: str) -> list[Batch]:
    """What stands between an environment and the agent."""
    files = {
        "wrappers.noise_histograms": "FOLDER/histograms.json",
        "wrappers.normalize_observations": normalization,
        "wrappers.normalization": "FOLDER/statistics.json",
    }
    not_here = OF_ONE_TASK if kind.startswith("tasks") else ()
    every = {name: value for name, value in WRAPPERS_SET.items() if name not in not_here}
    probes = {name: probe for name, probe in WRAPPER_PROBES.items() if name not in not_here}
    return [
        Batch(kind, "wrappers", every, {}, probes),
        Batch(
            kind,
            "files",
            files,
            {"wrappers.noise_fraction": 0.5},
            {
                "wrappers.normalize_observations": of_wrapper(
                    "normalized_observations", lambda one: "running" if one.update_running_mean else "frozen"
                ),
            },
        ),
    ]
