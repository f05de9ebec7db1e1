"""What `sparserl continual` may be told about a classifier, and `sparserl fit`, and where it must arrive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from support.option_kinds import Batch, Probe, Value, hidden, in_plain, of_options
from support.run_options import RUN, TRACKED, of_trackio

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


LEARNER: dict[str, Value] = {
    "learner.hidden": [9, 8],
    "learner.optimizer": "sgd",
    "learner.learning_rate": 0.5,
    "learner.momentum": 0.25,
    "learner.weight_decay": 0.125,
    "learner.epochs": 3,
    "learner.batch_size": 7,
}


def first_function(built: Any) -> Any:
    """What follows the first hidden layer."""
    return built.learner.network.functions[0]


def classifier_batches() -> list[Batch]:
    learner = {**LEARNER, "learner.reset_optimizer": False, "learner.unseen_outputs": "closed"}

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
    learner = {**LEARNER, "learner.class_weights": "balanced", "learner.patience": 2}
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
