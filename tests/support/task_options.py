"""What `sparserl continual` may be told about an agent, and where it must arrive."""

from __future__ import annotations

from support.classifier_options import method_batches
from support.off_policy_options import agent_batches
from support.option_kinds import Batch, Probe, Value, of_agent
from support.run_options import RUN, TRACKED, of_trackio, wrapper_batches
from support.topology_options import topology_batches

RL_METHOD_OPTIONS: dict[str, dict[str, Value]] = {
    "l2": {"strength": 3.0, "critics": True},
    "ewc": {"strength": 3.0, "critics": True, "samples": 30},
    "online_ewc": {"strength": 3.0, "critics": True, "gamma": 0.5, "samples": 30},
    "si": {"strength": 3.0, "critics": True, "damping": 0.5},
    "mas": {"strength": 3.0, "critics": True, "samples": 30},
    "agem": {"transitions_per_task": 30, "batch_size": 5},
    "clonex": {"states_per_task": 30, "batch_size": 5, "strength": 3.0},
    "replay": {"batch_scale": 2},
    "packnet": {"retrain_updates": 7},
    "spacenet": {
        "capacity": 0.5,
        "input_capacity": 0.75,
        "selected": 0.75,
        "reserved": 0.25,
        "critics": True,
        "rewire_interval": 5,
        "rewire_until": 0.5,
        "drop_fraction": 0.5,
        "neuron_importance": "cumulative",
        "initial_value": "uniform",
    },
}


def tasks_batches(algo: str) -> list[Batch]:
    kind = f"tasks, {algo}"
    border = {
        "border.buffer": "kept",
        "border.optimizer": "kept",
        "border.critic": "reset",
        "border.exploration": "policy",
        "border.heads": "shared",
        "border.task_id": "visible",
    }
    run = {
        "eval.every_steps": 123,
        "eval.episodes": 3,
        "eval.max_steps": 55,
        "eval.deterministic_episodes": 2,
        "log_every_steps": 77,
        "checkpoint_every_steps": 99,
    }

    def of_border(name: str) -> Probe:
        return lambda built: getattr(built.learner.border, name)

    batches = agent_batches(kind, algo.removeprefix("ds_"), alone=False)
    if algo == "ds_td3":
        return batches
    temperature = Batch(
        kind, "temperature", {"border.temperature": "kept"}, {}, {"border.temperature": of_border("temperature")}
    )
    return [
        *batches,
        temperature,
        Batch(kind, "run", {**RUN, **run}, {}, {"seed": of_agent("seed")}),
        Batch(kind, "tracking", {**TRACKED, "wandb.video_every_steps": 1000}),
        of_trackio(kind),
        Batch(kind, "border", border, {}, {name: of_border(name.partition(".")[2]) for name in border}),
        Batch(
            kind,
            "sequence",
            {"sequence": "halfcheetah_gravity", "sequence_name": None, "tasks": 3, "steps_per_task": 700},
        ),
        Batch(
            kind,
            "method",
            {"method": "scratch"},
            {},
            {"method": lambda built: type(built.learner.strategy).__name__.lower()},
        ),
        *wrapper_batches(kind, "frozen"),
        *topology_batches(kind, of_tasks=True),
        *method_batches(
            kind,
            RL_METHOD_OPTIONS,
            ("topology.method", "border.buffer", "border.exploration"),
            replay={"agent.buffer_size": 700},
        ),
    ]
