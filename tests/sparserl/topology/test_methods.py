"""Each published method is the combination of parts that its source says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sparserl.topology.density import check_density
from sparserl.topology.methods import METHODS, window
from sparserl.topology.moments import MOMENTS
from sparserl.topology.rewire import RewireRule
from sparserl.topology.target import TARGET
from sparserl.topology.values import INITIAL_VALUE, NEW_VALUE


def rule_of(method: str) -> RewireRule:
    rule = METHODS[method].rule
    assert rule is not None
    return rule


def test_names() -> None:
    assert set(METHODS) >= {"dense", "static", "set", "rigl", "ds_td3", "anf", "gmp", "granet"}


@pytest.mark.parametrize("method", METHODS)
def test_every_part_of_every_method_exists(method: str) -> None:
    parts = METHODS[method]
    assert parts.target in TARGET
    assert parts.new_value in NEW_VALUE
    assert parts.initial_value in INITIAL_VALUE
    assert parts.moments in MOMENTS
    assert 0 < check_density(parts.end_fraction) <= 1
    assert parts.begin_fraction is None or 0 <= parts.begin_fraction < parts.end_fraction


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


def test_ds_ppo_is_the_papers_set_for_ppo() -> None:
    method, rule = METHODS["ds_ppo"], rule_of("ds_ppo")
    assert (rule.drop, rule.grow, rule.keep_regrown) == ("weight_magnitude", "random", False)
    assert [round(rule.fraction(update), 6) for update in (0, 60_000, 120_000)] == [0.3, 0.15, 0.0]
    assert (rule.first_update, rule.update_interval, rule.last_update) == (1, 250, 120_000)
    assert (method.output_layer_dense, method.initial_value) == (False, "sparse_xavier")
    # 489 rollouts of 2048 env steps, 10 passes over each in batches of 64.
    assert round(method.end_fraction * 489 * 10 * 2048 // 64) == 120_000


def test_anf_is_the_papers() -> None:
    # sparse-rl.md 3: every 1000 updates at update 2 modulo 1000, 5 % by magnitude, no end, targets as in DS-TD3.
    method, rule = METHODS["anf"], rule_of("anf")
    assert (rule.drop, rule.grow, rule.drop_fraction, rule.decay) == ("weight_magnitude", "random", 0.05, "constant")
    assert (rule.first_update, rule.update_interval, rule.last_update) == (2, 1000, None)
    assert rule.keep_regrown
    assert not rule.prunes
    assert (method.target, method.output_layer_dense, method.end_fraction) == ("union_trim", True, 1.0)


def test_gmp_is_that_of_the_state_of_sparse_training() -> None:
    # sparse-rl.md 2: cubic from 20 % to 80 % of a million updates, every 1000, all layers; nothing grows.
    method, rule = METHODS["gmp"], rule_of("gmp")
    assert (rule.drop, rule.density_schedule, rule.update_interval) == ("weight_magnitude", "cubic", 1000)
    assert rule.prunes
    assert [rule.fraction(update) for update in (200_000, 500_000, 800_000)] == [0.0, 0.0, 0.0]
    assert not method.output_layer_dense
    assert window(10**6, method.begin_fraction, method.end_fraction) == {
        "first_update": rule.first_update,
        "last_update": rule.last_update,
    }


def test_imp_is_global_magnitude_in_rounds() -> None:
    rule = rule_of("imp")
    assert rule == replace(rule_of("global_magnitude"), density_schedule="geometric")
    assert rule.prunes


def test_granet_prunes_while_it_grows_by_gradient() -> None:
    method, rule = METHODS["granet"], rule_of("granet")
    assert (rule.drop, rule.grow, rule.density_schedule) == ("weight_magnitude", "gradient", "cubic")
    assert [round(rule.fraction(update), 6) for update in (0, 500_000, 1_000_000)] == [0.5, 0.2525, 0.005]
    assert (method.end_fraction, rule.schedule_share, rule.budget) == (1.0, 110 / 160, "global_magnitude")
    assert rule.scheduled(687_501, 100, 1000) == 100  # pruned until epoch 110 of 160
    assert rule.keep_regrown
    assert METHODS["granet_sparse"] == replace(method, initial_density=0.5, summary=METHODS["granet_sparse"].summary)


@pytest.mark.parametrize(
    ("method", "grow", "interval"), [("set_itop", "random", 1500), ("rigl_itop", "gradient", 4000)]
)
def test_itop_is_rare_and_large(method: str, grow: str, interval: int) -> None:
    # catalogue.md 2.8, topology.md 1.5: magnitude, every 1500 or 4000, .5 annealed to .005 over the run.
    rule = rule_of(method)
    assert (rule.drop, rule.grow, rule.update_interval) == ("weight_magnitude", grow, interval)
    assert [round(rule.fraction(update), 6) for update in (0, 500_000, 1_000_000)] == [0.5, 0.2525, 0.005]
    assert (METHODS[method].end_fraction, METHODS[method].output_layer_dense) == (1.0, False)


def test_mest_is_its_code() -> None:
    # catalogue.md 2.5: EM&S a fifth, a tenth and nothing beyond the density; EM exchanges as much; lambda 0.
    soft, within = rule_of("mest"), rule_of("mest_em")
    for rule in (soft, within):
        assert (rule.drop, rule.grow, rule.gradient_weight) == ("magnitude_and_gradient", "random", 0.0)
    updates = (1, 561_000, 563_000, 748_000, 751_000)
    assert [soft.scheduled(update, 100, 120) for update in updates] == [120, 120, 110, 110, 100]
    assert [soft.fraction(update) for update in updates] == [0.0] * 5
    assert [within.fraction(update) for update in updates] == [0.2, 0.2, 0.1, 0.1, 0.0]
    assert METHODS["mest"].new_value == METHODS["mest_em"].new_value == "zero"


@pytest.mark.parametrize(
    ("updates", "begin", "end", "expected"),
    [
        (1000, None, 0.75, {"last_update": 750}),
        (1000, 0.2, 0.8, {"first_update": 200, "last_update": 800}),
        (1000, 0.0, 1.0, {"first_update": 1, "last_update": 1000}),  # counted from 1
        (2, 0.2, 0.8, {"first_update": 1, "last_update": 2}),
        (0, None, 0.5, {"last_update": 0}),
    ],
)
def test_window_of_a_run(updates: int, begin: float | None, end: float, expected: dict[str, int]) -> None:
    assert window(updates, begin, end) == expected


@pytest.mark.parametrize(
    ("method", "own", "open_ends"),
    [
        *[(method, {}, ()) for method in ("dense", "static", "set", "anf")],
        *[(method, {}, ("last_update",)) for method in ("rigl", "ds_td3", "ds_sac", "granet", "mest", "set_itop")],
        ("gmp", {}, ("first_update", "last_update")),
        ("gmp", {"first_update": 5}, ("last_update",)),
        ("gmp", {"first_update": 5, "last_update": 9}, ()),
        ("rigl", {"decay": "constant"}, ("last_update",)),  # its window ends within the run all the same
        ("ds_td3", {"last_update": None}, ()),  # no end is an answer
        ("set", {"decay": "cosine"}, ("last_update",)),
        ("set", {"density_schedule": "cubic"}, ("last_update",)),
        ("set", {"shrink_at_end": True}, ("last_update",)),
        ("set", {"decay": "cosine", "last_update": 9}, ()),
    ],
)
def test_what_only_the_length_of_a_run_decides(method: str, own: dict[str, Any], open_ends: tuple[str, ...]) -> None:
    assert METHODS[method].needs_run_length(own) == open_ends
