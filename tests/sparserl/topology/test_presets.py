"""Each published method is the combination of parts that its source says."""

from __future__ import annotations

import pytest

from sparserl.topology.density import check_density
from sparserl.topology.evolver import MOMENTS, NEW_VALUE
from sparserl.topology.presets import METHODS
from sparserl.topology.rewire import RewireRule
from sparserl.topology.target import TARGET


def rule_of(method: str) -> RewireRule:
    rule = METHODS[method].rule
    assert rule is not None
    return rule


def test_names() -> None:
    assert set(METHODS) >= {"dense", "static", "set", "rigl", "ds_td3"}


@pytest.mark.parametrize("method", METHODS)
def test_every_part_of_every_method_exists(method: str) -> None:
    parts = METHODS[method]
    assert parts.target in TARGET
    assert parts.new_value in NEW_VALUE
    assert parts.moments in MOMENTS
    assert 0 < check_density(parts.end_fraction) <= 1


@pytest.mark.parametrize("method", ["dense", "static"])
def test_dense_and_static_never_change(method: str) -> None:
    assert METHODS[method].rule is None
    assert METHODS[method].dense is (method == "dense")


def test_ds_td3_is_the_papers() -> None:
    method, rule = METHODS["ds_td3"], rule_of("ds_td3")
    assert (rule.drop, rule.grow) == ("signed_magnitude", "random")
    assert [rule.fraction(update) for update in (2, 500_000, 925_002)] == [0.05, 0.05, 0.05]
    assert (rule.first_update, rule.update_interval, rule.last_update) == (2, 1000, 925_000)
    assert rule.shrink_at_end
    assert not rule.keep_regrown
    assert (method.target, method.output_layer_dense, method.new_value, method.moments) == (
        "union_trim",
        True,
        "zero",
        "zero",
    )
    # A million steps of which 25,000 are random before the first update.
    assert round(method.end_fraction * 975_000) == 925_000


def test_set_is_per_sign_and_random_with_a_constant_fraction() -> None:
    rule = rule_of("set")
    assert (rule.drop, rule.grow, rule.keep_regrown) == ("signed_magnitude", "random", False)
    assert [rule.fraction(update) for update in (1, 10**6)] == [0.3, 0.3]
    assert rule.update_interval == 1000
    assert not rule.is_over(10**9)


def test_rigl_is_magnitude_and_gradient_with_a_cosine() -> None:
    rule = rule_of("rigl")
    assert (rule.drop, rule.grow, rule.keep_regrown) == ("weight_magnitude", "gradient", True)
    assert [round(rule.fraction(update), 6) for update in (0, 375_000, 750_000)] == [0.5, 0.25, 0.0]
    assert rule.update_interval == 1000
    assert not rule.shrink_at_end
    assert not METHODS["rigl"].output_layer_dense
    assert METHODS["rigl"].end_fraction * 10**6 == rule.last_update
