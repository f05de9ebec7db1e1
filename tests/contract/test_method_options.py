"""Options of continual methods: which learner has them, their defaults, and what is refused."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, get_args

import pytest

from sparserl.continual.learner import Kind
from sparserl.continual.strategies import GROUPS, STRATEGIES, MethodOptions
from sparserl.continual.strategies.afaf import AFAFOptions
from sparserl.continual.strategies.clonex import ClonExOptions
from sparserl.continual.strategies.der import DEROptions
from sparserl.continual.strategies.icarl import ICaRLOptions
from sparserl.continual.strategies.lwf import LwFOptions
from sparserl.continual.strategies.memory import AGEMOptions, ReplayOptions
from sparserl.continual.strategies.nispa import NISPAOptions
from sparserl.continual.strategies.options import Options
from sparserl.continual.strategies.packnet import PackNetOptions
from sparserl.continual.strategies.penalty import EWCOptions, L2Options, MASOptions, OnlineEWCOptions, SIOptions
from sparserl.continual.strategies.spacenet import SpaceNetOptions
from sparserl.continual.strategies.wsn import WSNOptions
from sparserl.errors import ConfigError

KINDS: tuple[Kind, ...] = get_args(Kind)


@pytest.mark.parametrize("group", GROUPS)
def test_every_option_of_a_method_has_a_default_for_each_learner_that_has_it(group: str) -> None:
    options: Options = getattr(MethodOptions(), group)
    assert options.group == group
    served = {
        kind for spec in STRATEGIES.values() if spec.options == group for kind in KINDS if kind not in spec.refused
    }
    assert set(options.defaults) == served
    names = {field.name for field in dataclasses.fields(options)}
    assert {name for kind in served for name in options.defaults[kind]} == names
    for kind in served:
        own = options.of_kind(kind)
        assert {name: getattr(own, name) for name in options.defaults[kind]} == options.defaults[kind]
        assert own.of_kind(kind) == own


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        (EWCOptions(samples=3), "classifier", "--ewc.samples is an option of agents, and here classifiers learn"),
        (
            EWCOptions(fisher_labels="true"),
            "agent",
            "--ewc.fisher-labels is an option of classifiers, and here agents learn",
        ),
        (L2Options(critics=True), "classifier", "--l2.critics is an option of agents, and here classifiers learn"),
        (
            SpaceNetOptions(rewire=False),
            "agent",
            "--spacenet.rewire is an option of classifiers, and here agents learn",
        ),
        (
            SpaceNetOptions(selected=(3, 4)),
            "agent",
            "spacenet.selected is one share for all layers where agents learn, got (3, 4)",
        ),
    ],
)
def test_an_option_of_the_other_learner_is_refused(options: Options, kind: Kind, said: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        options.of_kind(kind)
    assert str(refusal.value).startswith(said)
    assert f"{kind}s learn" in str(refusal.value)


def test_a_share_of_one_may_be_written_as_an_integer() -> None:
    assert SpaceNetOptions(selected=(1,)).of_kind("agent").selected == 1.0


@pytest.mark.parametrize(
    ("options", "changes", "said"),
    [
        (L2Options, {"strength": -1.0}, "l2.strength must not be negative, got -1.0"),
        (L2Options, {"strength": math.nan}, "l2.strength must not be negative, got nan"),
        (EWCOptions, {"strength": math.nan}, "ewc.strength must not be negative, got nan"),
        (EWCOptions, {"fisher_samples": 0}, "ewc.fisher-samples must be at least 1, got 0"),
        (EWCOptions, {"fisher_labels": "pred"}, "unknown ewc.fisher-labels 'pred'; did you mean 'predicted'?"),
        (OnlineEWCOptions, {"strength": -0.5}, "online-ewc.strength must not be negative, got -0.5"),
        (OnlineEWCOptions, {"gamma": 1.5}, "online-ewc.gamma must be in [0, 1], got 1.5"),
        (OnlineEWCOptions, {"fisher_samples": -3}, "online-ewc.fisher-samples must be at least 1, got -3"),
        (SIOptions, {"strength": -1.0}, "si.strength must not be negative, got -1.0"),
        (SIOptions, {"damping": 0.0}, "si.damping must be positive, got 0.0"),
        (MASOptions, {"strength": -1.0}, "mas.strength must not be negative, got -1.0"),
        (MASOptions, {"samples": 0}, "mas.samples must be at least 1, got 0"),
        (LwFOptions, {"alpha": -0.5}, "lwf.alpha must not be negative, got -0.5"),
        (LwFOptions, {"alpha": math.nan}, "lwf.alpha must not be negative, got nan"),
        (LwFOptions, {"temperature": 0.0}, "lwf.temperature must be positive, got 0.0"),
        (ReplayOptions, {"samples": 0}, "replay.samples must be at least 1, got 0"),
        (ReplayOptions, {"batch_scale": 0}, "replay.batch-scale must be at least 1, got 0"),
        (AGEMOptions, {"samples_per_task": 0}, "agem.samples-per-task must be at least 1, got 0"),
        (AGEMOptions, {"transitions_per_task": 0}, "agem.transitions-per-task must be at least 1, got 0"),
        (AGEMOptions, {"batch_size": -2}, "agem.batch-size must be at least 1, got -2"),
        (DEROptions, {"samples": 0}, "der.samples must be at least 1, got 0"),
        (DEROptions, {"alpha": -0.1}, "der.alpha must not be negative, got -0.1"),
        (DEROptions, {"beta": math.nan}, "der.beta must not be negative, got nan"),
        (DEROptions, {"batch_size": 0}, "der.batch-size must be at least 1, got 0"),
        (ICaRLOptions, {"samples": 0}, "icarl.samples must be at least 1, got 0"),
        (ClonExOptions, {"states_per_task": 0}, "clonex.states-per-task must be at least 1, got 0"),
        (ClonExOptions, {"batch_size": 0}, "clonex.batch-size must be at least 1, got 0"),
        (ClonExOptions, {"strength": -1.0}, "clonex.strength must not be negative, got -1.0"),
        (PackNetOptions, {"retrain_epochs": -1}, "packnet.retrain-epochs must not be negative, got -1"),
        (PackNetOptions, {"retrain_updates": -1}, "packnet.retrain-updates must not be negative, got -1"),
        (WSNOptions, {"pool": 0.0}, "wsn.pool must be in (0, 1], got 0.0"),
        (WSNOptions, {"capacity": 1.5}, "wsn.capacity must be in (0, 1], got 1.5"),
        (NISPAOptions, {"density": 0.0}, "nispa.density must be in (0, 1], got 0.0"),
        (NISPAOptions, {"phases": 2}, "nispa.phases must be at least 3, got 2"),
        (NISPAOptions, {"tolerance": -0.5}, "nispa.tolerance must be in [0, 1], got -0.5"),
        (AFAFOptions, {"allocated": 0.0}, "afaf.allocated must be in (0, 1], got 0.0"),
        (AFAFOptions, {"fixed_last": 1.5}, "afaf.fixed-last must be in [0, 1], got 1.5"),
        (AFAFOptions, {"reuse_from": 0}, "afaf.reuse-from must be at least 1, got 0"),
        (AFAFOptions, {"candidates": "mots"}, "unknown afaf.candidates 'mots'; did you mean 'most'?"),
        (SpaceNetOptions, {"capacity": 0.0}, "spacenet.capacity must be in (0, 1], got 0.0"),
        (SpaceNetOptions, {"input_capacity": 1.1}, "spacenet.input-capacity must be in (0, 1], got 1.1"),
        (SpaceNetOptions, {"selected": math.nan}, "spacenet.selected must be in (0, 1], got nan"),
        (SpaceNetOptions, {"reserved": -0.1}, "spacenet.reserved must be in [0, 1], got -0.1"),
        (SpaceNetOptions, {"rewire_until": 2.0}, "spacenet.rewire-until must be in [0, 1], got 2.0"),
        (SpaceNetOptions, {"drop_fraction": 1.0}, "spacenet.drop-fraction must be in [0, 1), got 1.0"),
        (SpaceNetOptions, {"drop_fraction": -0.1}, "spacenet.drop-fraction must be in [0, 1), got -0.1"),
        (SpaceNetOptions, {"drop_fraction": math.nan}, "spacenet.drop-fraction must be in [0, 1), got nan"),
        (SpaceNetOptions, {"rewire_interval": -1}, "spacenet.rewire-interval must not be negative, got -1"),
    ],
)
def test_an_option_out_of_range_is_named(options: type[Options], changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        options(**changes)
    assert str(refusal.value) == said
