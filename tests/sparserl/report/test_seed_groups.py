"""Runs that differ in the seed alone are one group; what else differs is in its label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sparserl.errors import ConfigError
from sparserl.recording.settings import BOOKKEEPING
from sparserl.report.seed_groups import differing_keys, legend, seed_groups, short_keys
from sparserl.sweep.file import SPARING


@dataclass(frozen=True)
class Made:
    path: Path
    config: Mapping[str, Any]


def made(seed: int, algo: str = "td3", **config: Any) -> Made:
    return Made(Path(f"{algo}-s{seed}"), {"seed": seed, "algo": algo, **config})


def grouped(*runs: Made) -> dict[str, list[int]]:
    found = seed_groups(runs, lambda run: str(run.config["algo"]))
    return {label: [run.config["seed"] for run in members] for label, members in found.items()}


def test_seeds_of_one_method() -> None:
    runs = [made(seed, threads=seed, wandb={"tags": [seed]}, agent={"tau": 0.1}) for seed in (10, 2, 0)]
    assert grouped(*runs) == {"td3": [0, 2, 10]}


def test_what_differs_is_said_and_nothing_else() -> None:
    runs = [made(0, agent={"tau": tau, "gamma": 1}) for tau in (0.1, 0.2)]
    assert grouped(made(5, "sac", agent={"tau": 9}), *runs, made(1, agent={"tau": 0.1, "gamma": 1})) == {
        "sac": [5],
        "td3, tau 0.1": [0, 1],
        "td3, tau 0.2": [0],
    }


def test_keys_in_labels_are_as_short_as_tells_them_apart() -> None:
    keys = ["agent.gamma", "topology.density", "topology.actor.density", "method", "topology.method"]
    assert short_keys(keys) == {
        "agent.gamma": "gamma",
        "topology.density": "topology.density",
        "topology.actor.density": "actor.density",
        "method": "method",
        "topology.method": "topology.method",
    }
    runs = [made(0, agent={"tau": tau, "gamma": 1}) for tau in (0.1, 0.2)]
    short = short_keys(differing_keys(runs, lambda run: run.config["algo"]))
    assert short == {"agent.tau": "tau"}
    assert list(seed_groups(runs, lambda run: run.config["algo"], short)) == ["td3, tau 0.1", "td3, tau 0.2"]


def rewired(seed: int, method: str, density: float) -> Made:
    drop = {"set": 0.3, "rigl": 0.05, "static": 0.05}[method]
    topology = {"drop_fraction": drop, "grow": f"{method}'s", "density": density, "method": method}
    return made(seed, agent={"tau": 0.1}, topology=topology)


def algo(run: Made) -> str:
    return str(run.config["algo"])


def test_labels_say_no_more_than_tells_groups_apart_and_the_legend_says_the_rest() -> None:
    runs = [rewired(seed, method, 0.1) for method in ("set", "rigl") for seed in (0, 1)] + [rewired(0, "set", 0.2)]
    groups = seed_groups(runs, algo)
    one, other, wide = "td3, method set, density 0.1", "td3, method rigl, density 0.1", "td3, method set, density 0.2"
    assert list(groups) == [one, other, wide]
    assert legend(groups, algo) == [
        f"drop_fraction 0.3, grow set's: {one}; {wide}",
        f"drop_fraction 0.05, grow rigl's: {other}",
    ]
    assert list(seed_groups(runs[:4], algo)) == ["td3, method set", "td3, method rigl"]
    assert list(seed_groups([runs[0], runs[4]], algo)) == ["td3, density 0.1", "td3, density 0.2"]


def test_a_setting_that_follows_from_those_before_it_is_not_in_labels() -> None:
    # `rate` goes with `method`; only `zeta`, which comes after it, tells the first from the last.
    runs = [
        made(0, method=method, rate=rate, zeta=zeta) for method, rate, zeta in (("a", 1, 5), ("b", 2, 5), ("a", 1, 6))
    ]
    groups = seed_groups(runs, algo)
    assert list(groups) == ["td3, method a, zeta 5", "td3, method b, zeta 5", "td3, method a, zeta 6"]
    assert legend(groups, algo) == [
        "rate 1: td3, method a, zeta 5; td3, method a, zeta 6",
        "rate 2: td3, method b, zeta 5",
    ]


def test_a_legend_is_of_groups_of_one_name_and_empty_where_labels_say_all() -> None:
    groups = seed_groups([rewired(0, "set", 0.1), rewired(0, "set", 0.2), made(0, "sac", agent={"tau": 9})], algo)
    assert legend(groups, algo) == []


def test_seeds_that_begin_with_seeds_of_one_method() -> None:
    runs = [made(seed, origin={"run": f"/runs/{name}"}) for seed, name in enumerate(("h__td3__s0", "h__td3__s1__2"))]
    other = made(2, origin={"run": "/runs/h__sac__s2"})
    assert grouped(*runs, other) == {"td3, run h__td3": [0, 1], "td3, run h__sac": [2]}


def test_a_key_that_one_alone_has_differs() -> None:
    assert grouped(made(0), made(0, extra=1)) == {"td3, extra None": [0], "td3, extra 1": [0]}


def test_the_same_seed_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="td3-s3 and td3-s3 are both seed 3 of td3; leave one out"):
        grouped(made(3), made(1), made(3))


def test_what_sweeps_spare_tells_no_method_apart() -> None:
    assert {key for spared in SPARING.values() for key in spared} <= set(BOOKKEEPING)
