"""What every option of `sparserl train` and `continual` may be set to, and where it must arrive.

An option that is in a config and in no batch of its kind fails a test; give it a value other than its default here.
Longer than other files: it is one table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from support.on_policy_options import on_policy_batches
from support.option_kinds import (
    ON_POLICY,
    Batch,
    Probe,
    Value,
    hidden,
    in_plain,
    of_agent,
    of_capacity,
    of_group,
    of_norm,
    of_options,
    of_rule,
    of_wrapper,
)

from sparserl.agents.table import agent_spec
from sparserl.layers.linear import linear

# --- batches ----------------------------------------------------------------------------------------

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


AGENT: dict[str, Value] = {
    "agent.learning_rate": 0.5,
    "agent.weight_decay": 0.25,
    "agent.batch_size": 9,
    "agent.buffer_size": 50,
    "agent.learning_starts": 30,
    "agent.gamma": 0.5,
    "agent.tau": 0.25,
    "agent.net_arch": [6, 5],
}
AGENT_PROBES = {
    "agent.learning_rate": of_group("lr"),
    "agent.weight_decay": of_group("weight_decay"),
    **{f"agent.{name}": of_agent(name) for name in ("batch_size", "buffer_size", "learning_starts", "gamma", "tau")},
}
OWN: dict[str, dict[str, Value]] = {
    "td3": {
        "agent.n_critics": 5,
        "agent.critic_subset": 3,
        "agent.actor_q": "mean",
        "agent.policy_delay": 3,
        "agent.target_policy_noise": 0.125,
        "agent.target_noise_clip": 0.25,
        "agent.action_noise_std": 0.375,
    },
    "sac": {
        "agent.n_critics": 4,
        "agent.critic_subset": 2,
        "agent.actor_q": "mean",
        "agent.policy_delay": 20,
        "agent.target_entropy": -3.0,
        "agent.initial_ent_coef": 0.5,
        "agent.target_update_interval": 7,
    },
}
OWN_PROBES: dict[str, Probe] = {
    **{
        name: of_agent(name.partition(".")[2])
        for options in OWN.values()
        for name in options
        if name not in ("agent.action_noise_std", "agent.n_critics", "agent.initial_ent_coef")
    },
    "agent.n_critics": lambda built: len(built.agent.critic.q_networks),
    "agent.initial_ent_coef": lambda built: round(float(built.agent.log_ent_coef.detach().exp()), 3),
    "agent.action_noise_std": lambda built: built.agent.action_noise._sigma[0],
}


def _blocks(network: Any) -> int:
    return (len(network) - 2) // 2


OF_BLOCKS: dict[str, tuple[dict[str, Value], dict[str, Probe]]] = {
    **dict.fromkeys(
        ("ds_td3", "ds_sac"),
        (
            {"agent.actor_width": 6, "agent.actor_blocks": 2, "agent.critic_width": 7, "agent.critic_blocks": 3},
            {
                "agent.actor_width": lambda built: linear(built.agent.acting.network[0]).shape[0],
                "agent.actor_blocks": lambda built: _blocks(built.agent.acting.network),
                "agent.critic_width": lambda built: linear(built.agent.critic.qf0[0]).shape[0],
                "agent.critic_blocks": lambda built: _blocks(built.agent.critic.qf0),
            },
        ),
    ),
    "ds_dqn": (
        {"agent.q_width": 6, "agent.q_blocks": 3},
        {
            "agent.q_width": lambda built: linear(built.agent.q_net.q[0]).shape[0],
            "agent.q_blocks": lambda built: _blocks(built.agent.q_net.q),
        },
    ),
}
"""Sizes of residual blocks and their probes, of kinds whose networks may have some."""


def residual_blocks(kind: str, arch: Value) -> Batch:
    """Another kind of network, and its sizes.

    Args:
        kind: Key of `OF_BLOCKS`.
        arch: `agent.net_arch` where it is not given.
    """
    sizes, probes = OF_BLOCKS[kind]
    return Batch(
        kind,
        "residual blocks",
        {"agent.network": "simba", **sizes},
        {"agent.net_arch": arch},
        {"agent.network": lambda built: built.agent.policy.network, **probes},
    )


def agent_batches(kind: str, algo: str, *, alone: bool) -> list[Batch]:
    """Hyper-parameters of an agent."""
    learned = {"agent.ent_coef": "auto"}
    ours = [] if kind not in OWN else [f"agent.{name}" for name in agent_spec(kind).config.ours_alone]
    own = {name: value for name, value in OWN[algo].items() if name not in ours}
    probes = {name: OWN_PROBES[name] for name in own}
    batches = [Batch(kind, "agent", {**AGENT, **own}, learned if algo == "sac" else {}, {**AGENT_PROBES, **probes})]
    if algo == "sac":
        batches.append(
            Batch(kind, "fixed temperature", {"agent.ent_coef": 0.125}, {}, {"agent.ent_coef": of_agent("ent_coef")})
        )
    batches.append(
        Batch(
            kind,
            "decoupled weight decay",
            {"agent.decoupled_weight_decay": True},
            {"agent.weight_decay": 0.25},
            {"agent.decoupled_weight_decay": of_group("decoupled_weight_decay")},
        )
    )
    if not alone:
        return batches
    updates: dict[str, Value] = {"agent.train_freq": 3, "agent.gradient_steps": -1}
    steps = {"agent.n_steps": 3, "agent.n_steps_delay": 5}
    forget = {
        "agent.dynamic_capacity": True,
        "agent.forget_interval_steps": 7,
        "agent.forget_threshold": 0.5,
        "agent.forget_minimum": 11,
    }
    return [
        *batches,
        Batch(
            kind,
            "rounds of updates",
            updates,
            {},
            {
                "agent.train_freq": lambda built: built.agent.train_freq.frequency,
                "agent.gradient_steps": of_agent("gradient_steps"),
            },
        ),
        Batch(
            kind,
            "steps",
            steps,
            {},
            {
                f"agent.{n}": (lambda built, n=n: getattr(built.agent.replay_buffer, n))
                for n in ("n_steps", "n_steps_delay")
            },
        ),  # type: ignore[misc]
        *([] if kind not in OF_BLOCKS else [residual_blocks(kind, [256, 256])]),
        Batch(
            kind,
            "capacity",
            forget,
            {},
            {
                "agent.dynamic_capacity": lambda built: built.agent.replay_buffer.capacity is not None,
                **{name: of_capacity(name.partition("forget_")[2]) for name in forget if "forget" in name},
            },
        ),
        Batch(
            kind,
            "fresh noise",
            {"agent.replay": "redraw_noise"},
            {"wrappers.noise_fraction": 0.5},
            {"agent.replay": lambda built: "redraw_noise" if built.agent.replay_buffer._generator else "stored"},
        ),
    ]


def _of_first(built: Any) -> list[Any]:
    """Layers of the network that answers that take part."""
    return [layer for name, layer in built.evolver.layers.items() if name.startswith(("actor", "network"))]


RULE = {
    "topology.drop": "weight_magnitude",
    "topology.grow": "random_unfired",
    "topology.drop_fraction": 0.4,
    "topology.decay": "cosine",
    "topology.update_interval": 17,
    "topology.first_update": 5,
    "topology.last_update": 99,
    "topology.shrink_at_end": False,
    "topology.keep_regrown": True,
}


def topology_batches(kind: str, *, of_tasks: bool = False) -> list[Batch]:
    """Connections of networks, those of agents or of a classifier."""
    dense_output = {"output_layer": "dense"} if of_tasks else {}
    is_classifier = kind in ("moving classifier", "moving fit")
    all_sparse: dict[str, Value] = {"border.heads": "shared"} if of_tasks else {}
    if is_classifier:
        all_sparse["topology.density"] = 0.2

    def alone(name: str, value: Value, probe: Probe, also: tuple[str, ...] = (), **needs: Value) -> Batch:
        option = f"topology.{name}"
        needed = {f"topology.{other}": given for other, given in needs.items()}
        return Batch(kind, option, {option: value}, needed, {option: probe}, also)

    of_agents = [
        Batch(kind, "topology.target", {"topology.target": "shared"}),
        alone("actor_density", 0.3, lambda built: built.density("actor")),
        alone("critic_density", 0.3, lambda built: built.density("critic")),
        alone("budget_scope", "all", of_rule("budget_scope"), budget="survivors"),
        alone("recycle_threshold", 0.375, lambda built: built.agent.topology.recycle_threshold),
    ]
    parts = {
        "topology.new_value": "uniform",
        "topology.moments": "mean",
        "topology.initial_value": "sparse_fan_in",
    }
    return [
        *([] if is_classifier else of_agents),
        Batch(kind, "rule", {**RULE, **parts}, {}, {name: of_rule(name.partition(".")[2]) for name in RULE}),
        alone(
            "method",
            "rigl",
            lambda built: "rigl" if built.evolver.rule.grow == "gradient" else "",
            **dense_output,
        ),
        alone("density", 0.3, lambda built: built.density(""), ("topology.epsilon",)),
        alone(
            "epsilon",
            [1.0, 2.0],
            lambda built: [round(layer.nnz / (layer.n_in + layer.n_out)) * 1.0 for layer in _of_first(built)],
            ("topology.density",),
        ),
        alone(
            "allocation",
            "uniform",
            lambda built: (
                "uniform" if len({round(layer.density, 1) for layer in built.evolver.layers.values()}) == 1 else "erk"
            ),
        ),
        Batch(
            kind,
            "topology.output_layer",
            {"topology.output_layer": "sparse"},
            all_sparse,
            {"topology.output_layer": lambda built: "sparse" if len(_of_first(built)) == 3 else "dense"},
        ),
        alone("density_schedule", "cubic", of_rule("density_schedule")),
        alone("schedule_share", 0.5, of_rule("schedule_share"), density_schedule="cubic"),
        alone(
            "initial_density",
            0.7,
            lambda built: round(min(one.density for one in _of_first(built)) / 0.7) * 0.7,
            density_schedule="cubic",
            density=0.5,
            allocation="uniform",
        ),
        alone("weight_l1", 0.5, of_rule("weight_l1")),
        alone("weight_noise", 0.5, of_rule("weight_noise")),
        alone("weight_l2", 0.5, of_rule("weight_l2")),
        alone("backward_factor", 1.5, of_rule("backward_factor"), **({} if is_classifier else {"target": "shared"})),
        alone("gradient_weight", 0.5, of_rule("gradient_weight"), drop="magnitude_and_gradient"),
        alone(
            "initial_topology",
            "constant_fan_in",
            lambda built: (
                "constant_fan_in"
                if all(np.ptp(np.bincount(one.topology.outputs, minlength=one.n_out)) <= 1 for one in _of_first(built))
                else "random"
            ),
        ),
        alone("budget", "survivors", of_rule("budget")),
        alone("fan_in", "constant", of_rule("fan_in"), grow="gradient", shrink_at_end=False),
        alone("salient_share", 0.5, of_rule("salient_share"), fan_in="constant", grow="gradient", shrink_at_end=False),
        alone("replaces_step", True, of_rule("replaces_step")),
        alone("drop_threshold", 0.5, of_rule("drop_threshold")),
        Batch(
            kind,
            "topology.output_density",
            {"topology.output_density": 0.6},
            {**all_sparse, "topology.allocation": "erk_plus", "topology.output_layer": "sparse"},
            {"topology.output_density": lambda built: round(_of_first(built)[-1].density, 1)},
        ),
        alone("gradient_batches", 3, of_rule("gradient_batches"), grow="gradient"),
        Batch(
            kind,
            "window",
            {"topology.begin_fraction": 0.25, "topology.end_fraction": 0.5},
            {},
            {
                "topology.begin_fraction": lambda built: (
                    built.evolver.rule.first_update / built.evolver.rule.last_update / 2
                ),
            },
        ),
        alone("pairs", 2, lambda built: min(one.topology.pairs for one in built.evolver.layers.values())),
    ]


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


METHOD_OPTIONS: dict[str, dict[str, Value]] = {
    "l2": {"strength": 3.0},
    "ewc": {"strength": 3.0, "fisher_samples": 30, "fisher_labels": "sampled"},
    "online_ewc": {"strength": 3.0, "gamma": 0.5, "fisher_samples": 30, "fisher_labels": "sampled"},
    "si": {"strength": 3.0, "damping": 0.5},
    "mas": {"strength": 3.0, "samples": 30},
    "lwf": {"alpha": 3.0, "temperature": 3.0},
    "replay": {"samples": 30},
    "agem": {"samples_per_task": 30, "batch_size": 5},
    "der": {"samples": 30, "alpha": 0.25, "beta": 0.75, "batch_size": 5},
    "icarl": {"samples": 30},
    "packnet": {"retrain_epochs": 1},
    "spacenet": {
        "connections": [90, 80, 40],
        "selected": [50, 40],
        "reserved": [10, 9],
        "rewire": False,
        "drop_fraction": 0.5,
        "neuron_importance": "final",
        "initial_value": "uniform",
        "answers": "statistics",
        "rank": 3,
    },
    "afaf": {
        "allocated": 0.25,
        "allocated_last": 0.15,
        "fixed": 0.35,
        "fixed_last": 0.5,
        "density": 0.2,
        "density_last": 0.6,
        "candidates": "least",
        "reused": 0.4,
        "added": 0.75,
        "reuse_from": 3,
        "reused_layers": 1,
        "drop_fraction": 0.5,
        "initial_value": "xavier",
    },
    "wsn": {"pool": 0.3, "capacity": 0.25},
    "nispa": {"density": 0.3, "phase_epochs": 2, "phases": 9, "tolerance": 0.25, "growth": "from_stable"},
    "nearest_mean": {"unit_norm": True},
    "class_pca": {"components": 3, "inputs": 20, "score": "likelihood"},
    "class_autoencoder": {
        "components": 3,
        "connections": 90,
        "passes": 9,
        "update_interval": 3,
        "drop_fraction": 0.5,
        "grow": "random",
        "initial_topology": "random",
    },
    "streaming_lda": {"shrinkage": 0.5},
    "ridge": {"penalty": 3.0},
    "random_features": {"units": 30, "inputs": 5, "penalty": 3.0},
    "fly_code": {"units": 30, "inputs": 5, "winners": 0.5},
}
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


def method_batches(
    kind: str, table: Mapping[str, Mapping[str, Value]], also: tuple[str, ...], **needs: Mapping[str, Value]
) -> list[Batch]:
    """Options of continual methods; needs by method."""
    return [
        Batch(
            kind,
            method,
            {f"{method}.{name}": value for name, value in options.items()},
            {"method": method, **needs.get(method, {})},
            {
                f"{method}.{name}": in_plain(of_options(name)) if isinstance(value, list) else of_options(name)
                for name, value in options.items()
            },
            also,
        )
        for method, options in table.items()
    ]


OF_A_PRESET = (
    *(f"learner.{name}" for name in ("hidden", "optimizer", "learning_rate", "reset_optimizer")),
    *(f"learner.{name}" for name in ("unseen_outputs", "epochs", "batch_size")),
    "log_every_steps",
    "checkpoint_every_steps",
)


def first_function(built: Any) -> Any:
    """What follows the first hidden layer."""
    return built.learner.network.functions[0]


def classifier_batches() -> list[Batch]:
    learner: dict[str, Value] = {
        "learner.hidden": [9, 8],
        "learner.optimizer": "sgd",
        "learner.learning_rate": 0.5,
        "learner.momentum": 0.25,
        "learner.weight_decay": 0.125,
        "learner.reset_optimizer": False,
        "learner.unseen_outputs": "closed",
        "learner.epochs": 3,
        "learner.batch_size": 7,
    }

    def of_learner(name: str) -> Probe:
        return lambda built: built.learner.new_optimizer().param_groups[0][name]

    schedule: dict[str, Value] = {
        "learner.learning_rate_factor": 0.5,
        "learner.learning_rate_every": 3,
        "learner.learning_rate_unit": "steps",
    }
    milestones: dict[str, Value] = {"learner.learning_rate_milestones": [2, 3]}
    k_winners: dict[str, Value] = {
        "learner.activation": "k_winners",
        "learner.winners": 0.25,
        "learner.boost": 2.0,
        "learner.boost_decay": 0.5,
    }
    all_relu: dict[str, Value] = {"learner.activation": "all_relu", "learner.slope": 0.25}
    dropout: dict[str, Value] = {"learner.dropout": 0.5, "learner.rescaled_dropout": False}
    all_relu |= dropout

    of_activation: dict[str, Probe] = {"learner.activation": lambda built: built.learner.network.activations[0]}
    of_k_winners: dict[str, Probe] = {
        **of_activation,
        "learner.winners": lambda built: round(first_function(built).k / hidden(built.learner.network)[0], 2),
        "learner.boost": lambda built: float(first_function(built).boost),
        "learner.boost_decay": lambda built: first_function(built).decay,
    }
    of_all_relu: dict[str, Probe] = {
        **of_activation,
        "learner.slope": lambda built: -first_function(built).function.negative_slope,
        "learner.dropout": lambda built: first_function(built).share,
        "learner.rescaled_dropout": lambda built: first_function(built).factor == 1.0,
    }
    convolutions: dict[str, Value] = {"learner.convolutions": [[6, 3, 2], [4, 2]], "learner.pooling": [1, 2]}
    of_convolutions: dict[str, Probe] = {
        "learner.convolutions": lambda built: [
            [one.channels, one.taps, *[one.stride][: one.stride - 1]] for one in built.learner.network.convolutions
        ],
        "learner.pooling": lambda built: [one.pooling for one in built.learner.network.convolutions],
    }
    nesterov: dict[str, Value] = {"learner.nesterov": True}
    momentum = {"learner.optimizer": "sgd", "learner.momentum": 0.5}
    probes: dict[str, Probe] = {
        "learner.hidden": lambda built: hidden(built.learner.network),
        "learner.learning_rate": of_learner("lr"),
        "learner.momentum": of_learner("momentum"),
        "learner.weight_decay": of_learner("weight_decay"),
        "learner.optimizer": lambda built: type(built.learner.new_optimizer()).__name__.lower(),
    }
    tasks = {"scenario": "domain", "tasks": 2, "class_order": "random"}
    return [
        Batch("classifier", "run", {**RUN, "log_every_steps": 7, "checkpoint_every_steps": 9}),
        Batch("classifier", "tracking", TRACKED),
        of_trackio("classifier"),
        Batch("classifier", "learner", learner, {}, probes),
        Batch("classifier", "schedule", schedule),
        Batch("classifier", "milestones", milestones, {"learner.learning_rate_factor": 0.5}),
        Batch("classifier", "nesterov", nesterov, momentum, {"learner.nesterov": of_learner("nesterov")}),
        Batch("classifier", "k winners", k_winners, {}, of_k_winners),
        Batch("classifier", "all relu", all_relu, {}, of_all_relu),
        Batch("classifier", "convolutions", convolutions, {}, of_convolutions),
        Batch("classifier", "decay", {"learner.constant_decay": 0.25}),
        Batch(
            "classifier",
            "tasks",
            tasks,
            {},
            {
                "scenario": lambda built: built.learner.sequence.scenario,
                "tasks": lambda built: len(built.learner.sequence),
            },
        ),
        Batch(
            "classifier",
            "method",
            {"method": "joint"},
            {},
            {"method": lambda built: type(built.learner.strategy).__name__.lower()},
        ),
        Batch("classifier", "sequence", {"sequence": "split_fashion_mnist"}, also=OF_A_PRESET),
        *method_batches(
            "classifier",
            METHOD_OPTIONS,
            OF_A_PRESET,
            packnet={"scenario": "task"},
            spacenet={"learner.hidden": [200, 150]},
            wsn={"scenario": "task"},
        ),
        Batch(
            "classifier",
            "sparse components",
            {"class_pca.connections": 30},
            {"method": "class_pca"},
            {"class_pca.connections": of_options("connections")},
            OF_A_PRESET,
        ),
    ]


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


ORIGIN = {"origin.run": "FOLDER/run", "origin.checkpoint": "best"}
"""The networks of a run that has the config of the kind."""
OF_PRUNED = tuple(f"topology.{name}" for name in ("method", "density", "epsilon", "allocation", "output_layer"))
OF_FIT: dict[str, Value] = {"topology.method": "rigl", "topology.output_layer": "dense"}
"""Options of the topology that `sparserl fit` has defaults of its own for."""


ALIKE = ("schedule", "milestones", "nesterov", "decay", "k winners", "all relu")
"""Batches of classifiers that `sparserl fit` has as well."""
OF_DIGITS = ("learner.hidden", "learner.epochs", "learner.batch_size", "topology.density")
"""What the preset of the digits says, of what `sparserl fit` may learn."""


def fit_batches() -> list[Batch]:
    """What `sparserl fit` has of its own; its learner and topology are those of a classifier."""
    alike = [batch for batch in classifier_batches() if batch.name in ALIKE]
    importance: dict[str, Value] = {
        "learner.importance_share": 0.25,
        "learner.importance_every": 5,
        "learner.importance_after": 7,
    }
    own = {"scaling": "all_features", "test_share": 0.25, "validation_share": 0.25}
    learner: dict[str, Value] = {
        "learner.hidden": [9, 8],
        "learner.optimizer": "sgd",
        "learner.learning_rate": 0.5,
        "learner.momentum": 0.25,
        "learner.weight_decay": 0.125,
        "learner.epochs": 3,
        "learner.batch_size": 7,
        "learner.class_weights": "balanced",
        "learner.patience": 2,
    }
    return [
        Batch("fit", "run", {**RUN, "log_every_steps": 7, "checkpoint_every_steps": 9}),
        Batch("fit", "tracking", TRACKED),
        of_trackio("fit"),
        Batch("fit", "table", own, {}, {"scaling": lambda built: built.learner.sequence.record["scaling"]}),
        Batch("fit", "topology", OF_FIT),
        Batch("fit", "data", {"data": "iris"}, {}, {"data": lambda built: built.learner.sequence.name}),
        Batch("fit", "learner", learner, {}, {"learner.hidden": lambda built: hidden(built.learner.network)}),
        Batch("fit", "noise", {"learner.noise": 0.5}),
        Batch("fit", "averages", {"learner.average_after": 2}, {"learner.optimizer": "asgd"}),
        Batch("fit", "task", {"task": "rbm", "learner.gibbs_steps": 3, "learner.hidden": [9], "scaling": "range"}),
        Batch("fit", "ensemble", {"learner.ensemble": 3, "learner.ensemble_explore": 2}, {"learner.epochs": 20}),
        Batch("fit", "importance pruning", importance, {"learner.epochs": 20}),
        Batch(
            "fit",
            "variational dropout",
            {"learner.regularizer": "variational_dropout", "learner.kl_after": 2, "learner.kl_full": 7},
            {"learner.epochs": 20, "topology.method": "static"},
        ),
        *(replace(batch, kind="fit") for batch in alike),
        *(
            replace(batch, kind="fit", needs={"data": "digits"}, also=OF_DIGITS)
            for batch in classifier_batches()
            if batch.name == "convolutions"
        ),
    ]


QUANTILES: dict[str, Value] = {"agent.n_quantiles": 7, "agent.top_quantiles_to_drop_per_net": 3}
OF_NORMS = {
    "agent.batch_norm_momentum": ("momentum", 0.25),
    "agent.batch_norm_eps": ("eps", 0.5),
    "agent.renorm_warmup_steps": ("warmup_steps", 9),
}
CROSSQ: dict[str, Value] = {
    "agent.critic_arch": [6, 5],
    "agent.policy_delay": 5,
    **{name: value for name, (_, value) in OF_NORMS.items()},
}
CROSSQ_PROBES: dict[str, Probe] = {
    "agent.critic_arch": lambda built: [layer.bias.numel() for layer in built.agent.critic.qf0][:-1],
    "agent.policy_delay": of_agent("policy_delay"),
    **{name: of_norm(attribute) for name, (attribute, _) in OF_NORMS.items()},
}
OF_VALUES: dict[str, Value] = {
    "agent.target_update_interval": 7,
    "agent.exploration_initial_eps": 0.75,
    "agent.exploration_final_eps": 0.25,
    "agent.exploration_fraction": 0.5,
    "agent.max_grad_norm": 2.5,
    "agent.double_q": True,
    "agent.loss": "huber",
}
BATCHES: list[Batch] = [
    *train_batches("ds_td3"),
    Batch("ds_td3", "origin", ORIGIN),
    Batch("ds_td3", "pruned", {"origin.prune_by": "lamp"}, {**ORIGIN, "topology.density": 0.3}, {}, OF_PRUNED),
    *(
        batch
        for algo in ("ds_sac", "td3", "sac")
        for batch in agent_batches(algo, algo.removeprefix("ds_"), alone=True)
    ),
    Batch("ds_tqc", "agent", QUANTILES, {}, {name: of_agent(name.partition(".")[2]) for name in list(QUANTILES)[1:]}),
    Batch("ds_crossq", "agent", CROSSQ, {}, CROSSQ_PROBES),
    Batch("ds_dqn", "agent", OF_VALUES, {}, {name: of_agent(name.partition(".")[2]) for name in OF_VALUES}),
    residual_blocks("ds_dqn", [64, 64]),
    *(batch for algo in ON_POLICY for batch in on_policy_batches(algo)),
    *classifier_batches(),
    *fit_batches(),
    *topology_batches("moving classifier"),
    *(batch for batch in topology_batches("moving fit") if batch.name not in OF_FIT),
    *(batch for algo in ("ds_sac", "ds_td3") for batch in tasks_batches(algo)),
]
