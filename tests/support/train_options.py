"""What `sparserl train` may be told of an agent with a replay buffer, and where it must arrive."""

from __future__ import annotations

from support.off_policy_options import agent_batches
from support.option_kinds import Batch, Probe, of_agent, of_wrapper
from support.run_options import RUN, TRACKED, of_trackio, wrapper_batches
from support.topology_options import topology_batches


def train_batches(algo: str) -> list[Batch]:
    every = {
        "total_steps": 500,
        "eval.every_steps": 123,
        "eval.episodes": 3,
        "eval.max_steps": 55,
        "log_every_steps": 77,
        "checkpoint_every_steps": 99,
        "topology_snapshots": 4,
        "measure_learning": "never",
        "env": "Other-v0",
    }
    batches = [
        Batch(algo, "run", {**RUN, **every}, {}, {"seed": of_agent("seed"), "env": lambda built: built.env.spec.id}),
        Batch(algo, "tracking", {**TRACKED, "wandb.video_every_steps": 1000}),
        of_trackio(algo),
        Batch(algo, "replay that is kept", {"keep_replay": False}),
        Batch(
            algo,
            "rate",
            {"agent.learning_rate_schedule": "linear"},
            {},
            {"agent.learning_rate_schedule": lambda built: built.agent.learning_rate.kind},
        ),
        Batch(algo, "environments", {"n_envs": 3}, {}, {"n_envs": of_agent("n_envs")}),
        *agent_batches(algo, algo.removeprefix("ds_"), alone=True),
        *wrapper_batches(algo, "running"),
        Batch(
            algo,
            "order",
            {"wrappers.permute_every_steps": 9},
            {"wrappers.permute": True},
            {"wrappers.permute_every_steps": of_wrapper("permuted_features", lambda one: one._every_steps)},
        ),
        Batch(
            algo,
            "velocities",
            {"wrappers.hide_velocities": True},
            {"env": "Pendulum-v1"},
            {"wrappers.hide_velocities": of_wrapper("hidden_features", lambda one: one.hidden == [2])},
        ),
    ]
    recycling = {"topology.recycle_interval": 50}
    interval: Probe = lambda built: built.agent.recycler.interval  # noqa: E731
    return [
        *batches,
        *topology_batches(algo),
        Batch(algo, "recycling", recycling, {}, {"topology.recycle_interval": interval}),
        Batch(
            algo,
            "relevance",
            {"topology.recycle_by": "relevance"},
            recycling,
            {"topology.recycle_by": lambda built: built.agent.topology.recycle_by},
        ),
    ]
