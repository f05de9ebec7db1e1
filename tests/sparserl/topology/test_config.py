"""What a user writes about topology becomes the right parts, and a wrong name or number is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from support.topology_configs import rule_of

from sparserl.errors import ConfigError, SparserlError
from sparserl.topology.config import TopologyConfig
from sparserl.topology.methods import METHODS
from sparserl.topology.rewire import RewireRule

# --- where a config comes from ----------------------------------------------------------------------


def test_the_default_is_ds_td3() -> None:
    assert TopologyConfig.coerce(None) == TopologyConfig() == TopologyConfig(method="ds_td3")
    assert TopologyConfig().rule() == METHODS["ds_td3"].rule


def test_coerce() -> None:
    given = TopologyConfig(method="set")
    assert TopologyConfig.coerce(given) is given
    assert TopologyConfig.coerce({}) == TopologyConfig()
    mapping = {"method": "rigl", "density": [0.1, 0.2, 1.0]}
    assert TopologyConfig.coerce(mapping) == TopologyConfig(method="rigl", density=(0.1, 0.2, 1.0))
    assert mapping["density"] == [0.1, 0.2, 1.0]  # not modified
    assert TopologyConfig.coerce({"epsilon": [7, 64]}).epsilon == (7, 64)


def test_coerce_of_its_own_fields_gives_it_back() -> None:
    config = TopologyConfig(method="rigl", epsilon=(3.0, 4.0, 5.0), update_interval=10, keep_regrown=False)
    assert TopologyConfig.coerce(dataclasses.asdict(config)) == config


@pytest.mark.parametrize(
    ("key", "closest"), [("densty", "density"), ("drop_fracton", "drop_fraction"), ("methods", "method")]
)
def test_an_unknown_key_gives_the_closest(key: str, closest: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown topology key '{key}'; did you mean '{closest}'"):
        TopologyConfig.coerce({key: 1})


# --- neurons that share inputs ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (3, "topology.pairs must be 1, 2 or 4, got 3; the closest is 2"),
        (8, "topology.pairs must be 1, 2 or 4, got 8; the closest is 4"),
        (0, "topology.pairs must be at least 1, got 0"),
    ],
)
def test_only_some_numbers_of_neurons_may_share_inputs(pairs: int, message: str) -> None:
    with pytest.raises(SparserlError, match=message):
        TopologyConfig(pairs=pairs)


def test_dense_layers_share_all_inputs_anyway() -> None:
    with pytest.raises(ConfigError, match="the topology method 'dense' is dense and takes no pairs, got 2"):
        TopologyConfig(method="dense", pairs=2)


def test_the_name_of_a_run_says_what_is_special_about_its_topology() -> None:
    assert TopologyConfig().labels("ds_td3") == []
    assert TopologyConfig(method="rigl", density=0.1, pairs=2).labels("ds_td3") == ["rigl", "d0.1", "pairs2"]
    assert TopologyConfig(method="dense", density=0.1).labels("ds_td3") == ["dense"]
    assert TopologyConfig(density=0.5, critic_density=0.25).labels("ds_td3") == ["d0.5", "critic0.25"]
    assert TopologyConfig(actor_density=0.1, critic_density=(0.1, 0.2)).labels("ds_td3") == ["actor0.1"]


# --- parts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_bare_method_is_its_preset(method: str) -> None:
    config = TopologyConfig(method=method)
    assert config.base is METHODS[method]
    assert config.rule() == METHODS[method].rule
    for part in ("target", "new_value", "initial_value", "moments", "begin_fraction", "end_fraction"):
        assert config.part(part) == getattr(METHODS[method], part)


OVERRIDES = {
    "drop": "magnitude_and_gradient",
    "grow": "gradient",
    "drop_fraction": 0.125,
    "decay": "cosine",
    "update_interval": 77,
    "first_update": 5,
    "last_update": 900,
    "shrink_at_end": False,
    "keep_regrown": True,
    "density_schedule": "cubic",
    "schedule_share": 0.5,
    "gradient_batches": 3,
    "gradient_weight": 0.25,
    "budget": "survivors",
    "drop_threshold": 0.5,
    "weight_l1": 0.25,
    "weight_noise": 0.125,
    "weight_l2": 0.25,
    "backward_factor": 1.5,
    "fan_in": "constant",
    "salient_share": 0.25,
    "replaces_step": True,
    "budget_scope": "all",
}
NOT_BESIDE = ("fan_in", "salient_share", "replaces_step", "backward_factor")
"""Refused beside some of the others."""


def test_overrides_cover_every_field_of_a_rule() -> None:
    assert set(OVERRIDES) == {field.name for field in dataclasses.fields(RewireRule)}


@pytest.mark.parametrize("name", OVERRIDES)
def test_a_field_replaces_that_part_of_the_rule_alone(name: str) -> None:
    # The others look at no such gradient.
    method = {
        "gradient_batches": "rigl",
        "gradient_weight": "mest",
        "fan_in": "rigl",
        "salient_share": "srigl",
        "budget_scope": "dsr",
        "schedule_share": "gmp",
    }.get(name, "ds_td3")
    base = METHODS[method].rule
    assert base is not None
    rule = rule_of(TopologyConfig(method=method, **{name: OVERRIDES[name]}))  # type: ignore[arg-type]
    assert dataclasses.asdict(rule) == {**dataclasses.asdict(base), name: OVERRIDES[name]}


def test_all_fields_together_replace_the_whole_rule() -> None:
    given: dict[str, Any] = {name: value for name, value in OVERRIDES.items() if name not in NOT_BESIDE}
    assert rule_of(TopologyConfig(method="set", **given)) == RewireRule(**given)


def test_a_falsy_override_is_an_override() -> None:
    rule = rule_of(TopologyConfig(drop_fraction=0.0, shrink_at_end=False, last_update=0))
    assert (rule.drop_fraction, rule.shrink_at_end, rule.last_update) == (0.0, False, 0)
    assert not rule_of(TopologyConfig(method="rigl", keep_regrown=False)).keep_regrown
    assert TopologyConfig(end_fraction=0.0).part("end_fraction") == 0.0


def test_parts_outside_the_rule() -> None:
    given = {"target": "shared", "new_value": "uniform", "moments": "mean", "initial_value": "sparse_xavier"}
    config = TopologyConfig(**given)  # type: ignore[arg-type]
    assert {part: config.part(part) for part in given} == given
    assert config.rule() == METHODS["ds_td3"].rule


@pytest.mark.parametrize("method", ["dense", "static"])
def test_methods_without_a_rule(method: str) -> None:
    config = TopologyConfig(method=method)
    assert config.rule() is None
    assert config.for_run(1000) is config


# --- the length of the run --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "updates", "last_update"),
    [
        ({"method": "ds_td3"}, 975_000, 925_000),
        ({"method": "ds_td3"}, 1_950_000, 1_850_000),
        ({"method": "ds_td3"}, 39, 37),
        ({"method": "rigl"}, 1_000_000, 750_000),
        ({"method": "rigl"}, 1000, 750),
        ({"method": "set"}, 5000, 5000),
        ({"method": "ds_td3", "end_fraction": 0.5}, 1000, 500),
        ({"method": "ds_td3", "end_fraction": 0.0}, 1000, 0),
        ({"method": "ds_td3", "last_update": 123}, 975_000, 123),
        ({"method": "ds_td3", "last_update": 0}, 975_000, 0),
        ({"method": "ds_td3"}, 0, 0),
        ({"method": "anf"}, 975_000, 975_000),
        ({"method": "gmp"}, 975_000, 780_000),
        ({"method": "granet"}, 1_000_000, 1_000_000),
    ],
)
def test_rewiring_ends_at_a_share_of_the_run(fields: dict[str, Any], updates: int, last_update: int) -> None:
    config = TopologyConfig(**fields).for_run(updates)
    assert rule_of(config).last_update == last_update
    assert config.for_run(10 * updates) is config  # fixed once


def test_a_cosine_of_a_run_ends_with_its_rewiring() -> None:
    rule = rule_of(TopologyConfig(method="rigl").for_run(2000))
    assert [round(rule.fraction(update), 6) for update in (0, 750, 1500)] == [0.5, 0.25, 0.0]


@pytest.mark.parametrize(
    ("fields", "updates", "expected"),
    [
        ({"method": "gmp"}, 1_000_000, (200_000, 800_000)),
        ({"method": "gmp"}, 190_000, (38_000, 152_000)),
        ({"method": "gmp"}, 1, (1, 1)),
        ({"method": "gmp", "begin_fraction": 0.0}, 1000, (1, 800)),
        ({"method": "gmp", "begin_fraction": 0.5, "end_fraction": 0.5}, 1000, (500, 500)),
        ({"method": "gmp", "first_update": 7}, 1000, (7, 800)),
        ({"method": "gmp", "last_update": 500}, 1000, (200, 500)),  # though the method's own beginning is later
        ({"method": "gmp", "first_update": 900, "last_update": 1000}, 1000, (900, 1000)),
        ({"method": "set", "density_schedule": "cubic"}, 1000, (1, 1000)),
        ({"method": "ds_td3", "begin_fraction": 0.1}, 1000, (100, 949)),
    ],
)
def test_a_window_is_that_of_the_run(fields: dict[str, Any], updates: int, expected: tuple[int, int]) -> None:
    config = TopologyConfig(**fields).for_run(updates)
    rule = rule_of(config)
    assert (rule.first_update, rule.last_update) == expected
    assert config.for_run(updates) is config


@pytest.mark.parametrize(
    ("fields", "updates", "message"),
    [
        ({"last_update": 1001}, 1000, "within the run's 1000 updates, got last_update 1001"),
        ({"first_update": 900}, 1000, "first_update where pruning begins, 900, got 800"),
        ({"last_update": 100}, 1000, "first_update where pruning begins, 200, got 100"),
        ({"first_update": 1000, "last_update": 3000}, 1000, "within the run's 1000 updates, got last_update 3000"),
        ({}, 0, "first_update where pruning begins, 1, got 0"),
    ],
)
def test_a_pruning_window_outside_the_run_is_refused(fields: dict[str, Any], updates: int, message: str) -> None:
    config = TopologyConfig(method="gmp", **fields)
    with pytest.raises(SparserlError, match=message) as refused:
        config.for_run(updates)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("method", "option"), [("set", "first_update"), ("gmp", "first_update"), ("static", "recycle_interval")]
)
def test_what_would_begin_after_the_run_is_refused(method: str, option: str) -> None:
    def of_run(wait: int) -> TopologyConfig:
        return TopologyConfig(method=method, **{option: wait}, end_fraction=1.0 if method == "gmp" else None)

    of_run(500).for_run(500)
    with pytest.raises(ConfigError, match=rf"topology\.{option} 501 lies beyond the run of 500 gradient updates"):
        of_run(501).for_run(500)


@pytest.mark.parametrize("method", ["rigl", "ds_td3", "dsr"])
def test_what_would_begin_after_the_end_of_rewiring_is_refused(method: str) -> None:
    last = rule_of(TopologyConfig(method=method).for_run(1000)).last_update
    assert last is not None
    assert last < 1000
    TopologyConfig(method=method, first_update=last).for_run(1000)
    said = rf"topology\.first_update {last + 1} is after the last update of rewiring, {last}: lower it, or raise"
    with pytest.raises(ConfigError, match=said):
        TopologyConfig(method=method, first_update=last + 1).for_run(1000)


def test_what_a_method_does_by_itself_fits_every_run() -> None:
    config = TopologyConfig(method="ds_td3").resolved()
    assert config.first_update == 2
    config.for_run(1)
