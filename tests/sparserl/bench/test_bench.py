"""`sparserl bench`: each kind from the command line to its record, table and picture, in miniature."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from support.benches import bench
from support.envs import FunctionEnv

from sparserl.bench import scale
from sparserl.bench.compared import COMPARED, with_baselines
from sparserl.bench.contenders import (
    EPOCHS,
    RECIPES,
    Entry,
    entries,
    give_replay,
    give_rollouts,
    make,
    random_replay,
    said_missing,
)
from sparserl.bench.crossover import crossover
from sparserl.bench.options import ScaleOptions, UpdateOptions
from sparserl.bench.scale import NoDynamics, measure_scale, replay_bytes
from sparserl.bench.timing import Timing
from sparserl.bench.update import _numbers, _units, _work
from sparserl.cli import main
from sparserl.cli.bench import BENCHMARKS
from sparserl.errors import ConfigError

NO_SBX = said_missing("sbx_td3")
SPREAD = {"median", "q25", "q75"}


@pytest.fixture
def no_sbx(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "sbx" else real(name, *rest))


@pytest.mark.usefixtures("no_sbx")
def test_update(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = "--env Pendulum-v1 --widths 16 --batches 8 --threads 1 --densities 1 0.5 --rounds 2 --chunk-s 0.001"
    found = bench("update", options, tmp_path)
    (configuration,) = found["configurations"]
    rows = {(row["contender"], row["density"]): row for row in configuration["rows"]}
    ours = [("ds_td3", 1.0), ("ds_td3", 0.5), ("ds_sac", 1.0), ("ds_sac", 0.5)]
    assert list(rows) == [*ours, ("td3", 1.0), ("td3_fused", 1.0), ("sac", 1.0), ("masked", 0.1)]
    for row in rows.values():
        assert row["threads"] == 1
        for what in ("update", "steps", "act"):
            assert set(row[what]["speed_up"]) == set(row[what]["speed_up_by_threads"]) == SPREAD
            assert SPREAD | {"unit", "per_round", "in_a_chunk", "warm_up_s"} <= set(row[what])
            assert len(row[what]["per_round"]) == 2
            assert row[what]["speed_up_by_threads"]["median"] == 1.0
    baseline, sparse = rows["td3", 1.0], rows["ds_td3", 0.5]
    assert baseline["update"]["speed_up"]["median"] == baseline["steps"]["speed_up"]["median"] == 1.0
    times = zip(baseline["update"]["per_round"], sparse["update"]["per_round"], strict=True)
    ratios = [base / own for base, own in times]
    assert sparse["update"]["speed_up"]["median"] == pytest.approx(sum(ratios) / 2)
    times = zip(rows["sac", 1.0]["update"]["per_round"], rows["ds_sac", 0.5]["update"]["per_round"], strict=True)
    assert rows["ds_sac", 0.5]["update"]["speed_up"]["median"] == pytest.approx(sum(b / own for b, own in times) / 2)
    rates = zip(baseline["steps"]["per_round"], sparse["steps"]["per_round"], strict=True)
    assert sparse["steps"]["speed_up"]["median"] == pytest.approx(sum(own / base for base, own in rates) / 2)
    assert [(row["method"], row["density"]) for row in configuration["events"]] == [("set", 0.5), ("ds_td3", 0.5)]
    assert all({"event_ms", "update_ms", "share"} <= set(row) for row in configuration["events"])
    assert (found["quick"], found["rounds"]) == (False, 2)
    for row, (name, baseline_name) in zip(
        configuration["crossovers"], (("ds_td3", "td3"), ("ds_sac", "sac")), strict=True
    ):
        medians = [rows[name, density]["update"]["speed_up"]["median"] for density in (1.0, 0.5)]
        at = {"contender": name, "baseline": baseline_name, "pairs": 1, "threads": 1}
        assert row == {**at, **crossover([1.0, 0.5], medians)}
    printed = capsys.readouterr().out
    assert found["notes"] == [NO_SBX]
    assert NO_SBX in printed.splitlines()
    for word in (*(name for name in COMPARED if COMPARED[name].usual), "topology events", "steps/s", "take as long"):
        assert word in printed


def test_many_critics_beside_two(tmp_path: Path) -> None:
    options = (
        "--env Pendulum-v1 --widths 8 --batches 8 --threads 1 --densities .5 --rounds 1 --chunk-s 1e-3 --what update"
    )
    (configuration,) = bench("update", f"{options} --only ds_redq sac_10", tmp_path)["configurations"]
    rows = {row["contender"]: row["update"]["per_round"][0] for row in configuration["rows"]}
    assert list(rows) == ["td3", "sac", "ds_redq", "sac_10"]
    for row in configuration["rows"][2:]:
        assert row["update"]["speed_up"]["median"] == pytest.approx(rows["sac"] / rows[row["contender"]])
    ours, theirs = (make(Entry(name, 0.5), FunctionEnv(), 8, 0) for name in ("ds_redq", "sac_10"))
    assert len(ours.critic.q_networks) == len(theirs.critic.q_networks) == 10
    assert (ours.critic_subset, ours.actor_q) == (2, "mean")


def test_discrete_actions_beside_dqn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = "--widths 8 --batches 8 --threads 1 --densities .5 --rounds 1 --chunk-s 1e-3 --only ds_dqn"
    found = bench("update", f"--env CartPole-v1 {options}", tmp_path)
    assert found["baseline"] == "dqn"
    (configuration,) = found["configurations"]
    rows = {row["contender"]: row for row in configuration["rows"]}
    assert list(rows) == ["ds_dqn", "dqn"]
    for what in ("update", "act"):
        times = [rows[name][what]["per_round"][0] for name in ("dqn", "ds_dqn")]
        assert rows["ds_dqn"][what]["speed_up"]["median"] == pytest.approx(times[0] / times[1])
    assert rows["ds_dqn"]["steps"]["speed_up"]["median"] > 0
    capsys.readouterr()
    for wrong in ("--env CartPole-v1 --only td3", "--env Pendulum-v1 --only ds_dqn"):
        assert main(["bench", "update", *wrong.split()]) == 2
        said = capsys.readouterr().err
        assert " is not for " in said
        assert said.count("\n") == 1


@pytest.mark.parametrize("name", ["ds_tqc", "ds_crossq", "ds_simba", "ds_ppo", "ds_a2c", "ds_recurrent_ppo"])
def test_other_agents_beside_their_dense_twins(name: str, tmp_path: Path) -> None:
    pytest.importorskip("sb3_contrib")
    twin = COMPARED[name].baseline
    options = f"--widths 8 --batches 16 --threads 1 --densities .5 --rounds 1 --chunk-s 1e-3 --only {name}"
    found = bench("update", f"--env Pendulum-v1 {options}", tmp_path)
    (configuration,) = found["configurations"]
    rows = {row["contender"]: row for row in configuration["rows"]}
    assert list(rows) == with_baselines([name])
    for what in ("update", "act"):
        times = [rows[one][what]["per_round"][0] for one in (twin, name)]
        assert rows[name][what]["speed_up"]["median"] == pytest.approx(times[0] / times[1])
    assert rows[name]["steps"]["speed_up"]["median"] > 0
    ours, theirs = (make(Entry(one, 0.5), FunctionEnv(), 8, 0, batch=16) for one in (name, twin))
    assert ours.batch_size == 16
    assert len(ours.evolver.layers) > 0
    for key in RECIPES[name].sizes(16):
        assert getattr(ours, key) == getattr(theirs, key)


@pytest.mark.parametrize("name", ["ds_ppo", "ds_a2c", "ds_recurrent_ppo"])
def test_who_learns_from_rollouts_gets_the_same_and_so_many_updates(name: str) -> None:
    pytest.importorskip("sb3_contrib")
    twin = COMPARED[name].baseline
    compared = [Entry(name, 0.5), Entry(twin, 1.0)]
    agents = {entry: make(entry, FunctionEnv(), 8, 0, batch=16) for entry in compared}
    give_rollouts(agents)
    ours, theirs = agents.values()
    assert ours.rollout_buffer is not theirs.rollout_buffer
    assert ours.rollout_buffer.full
    for what in ("observations", "actions", "returns", "log_probs"):
        assert np.array_equal(getattr(ours.rollout_buffer, what), getattr(theirs.rollout_buffer, what))
    batches = {"ds_ppo": 8, "ds_a2c": 1, "ds_recurrent_ppo": 1}[name]
    updates = 1 if name == "ds_a2c" else EPOCHS * batches
    assert len(ours.rollout_buffer.observations) == 16 * batches
    _work("update", compared[0], ours)(2)
    assert ours.updates == 2 * updates == 2 * _units("update", compared[0], ours)
    assert ours.num_timesteps == 0, "nothing was met"
    _work("steps", compared[0], ours)(2)
    assert ours.num_timesteps == 2 * 16 * batches == 2 * _units("steps", compared[0], ours)


def test_without_a_package_its_contenders_are_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    without = lambda name, *rest: None if name == "sb3_contrib" else real(name, *rest)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", without)
    there, missing = entries(["ds_ppo", "ds_tqc"], [0.5])
    assert there == [Entry("ds_ppo", 0.5), Entry("ppo", 1.0)]
    assert missing == ["ds_tqc: skipped, as its baseline tqc", said_missing("tqc")]
    assert "sb3-contrib" in said_missing("tqc")
    with pytest.raises(ConfigError, match="tqc: sb3_contrib is not installed"):
        entries(["ds_tqc"], [0.5])


@pytest.mark.parametrize(("name", "agent", "policy"), [("sbx_crossq", "CrossQ", 256), ("sbx_simba", "SAC", 128)])
def test_wide_critics_of_sbx_are_of_the_sizes_of_ours(
    name: str, agent: str, policy: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a module in place of SBX, which is not among the packages that tests need."""
    built = MagicMock()
    monkeypatch.setitem(sys.modules, "sbx", SimpleNamespace(**{agent: built}))
    make(Entry(name, 1.0), FunctionEnv(), 512, 0)
    (given,) = built.call_args_list
    ours = make(Entry(f"ds_{name.removeprefix('sbx_')}", 0.5), FunctionEnv(), 512, 0)
    assert given.args[0] == {"sbx_simba": "SimbaPolicy"}.get(name, "MlpPolicy")
    assert given.kwargs["policy_kwargs"]["net_arch"] == ours.policy_kwargs["net_arch"]
    assert given.kwargs["policy_kwargs"]["net_arch"]["qf"] == [512, 512]
    assert given.kwargs["policy_kwargs"]["net_arch"]["pi"][0] == policy
    assert {name: given.kwargs[name] for name in ("batch_size", "learning_rate")} == {
        name: getattr(ours, name) for name in ("batch_size", "learning_rate")
    }


def test_every_contender_is_made_somehow() -> None:
    assert RECIPES.keys() == COMPARED.keys()


@pytest.mark.usefixtures("no_sbx")
def test_only_what_was_asked_for_and_the_baseline(tmp_path: Path) -> None:
    options = (
        "--env Pendulum-v1 --widths 8 --batches 8 --threads 1 --only masked --what steps --rounds 1 --chunk-s 1e-3"
    )
    found = bench("update", options, tmp_path)
    (configuration,) = found["configurations"]
    assert [row["contender"] for row in configuration["rows"]] == ["td3", "masked"]
    assert all("steps" in row and "update" not in row for row in configuration["rows"])
    assert "events" not in configuration
    assert configuration["crossovers"] == [], "of updates, which were not asked for"
    assert found["notes"] == [], "sbx was not asked for"


def test_quick(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The small grid, except what is given as well; a line a round, and a mark wherever its numbers stand."""
    small = "--env Pendulum-v1 --widths 16 --batches 8 --chunk-s 0.001 --densities 0.5"
    found = bench("update", f"--quick --rounds 2 {small}", tmp_path)
    (configuration,) = found["configurations"]
    assert (configuration["width"], configuration["batch"]) == (16, 8)
    assert [(row["contender"], row["threads"]) for row in configuration["rows"]] == [("ds_td3", 1), ("td3", 1)]
    assert all("update" in row and "steps" not in row for row in configuration["rows"])
    assert (found["quick"], found["rounds"]) == (True, 2)
    (note,) = found["notes"]
    assert note.startswith("quick: 2 rounds")
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("measuring update of ds_td3, td3 on Pendulum-v1")
    assert "quick: 2 rounds" in printed[0]
    assert note in printed
    rounds = [line for line in printed if line.startswith("round ")]
    speed_up = configuration["rows"][0]["update"]["speed_up"]
    ratios = [float(line.split("dense: ")[1].split()[0]) for line in rounds]
    assert [line.split(",")[0] for line in rounds] == ["round 1 of 2", "round 2 of 2"]
    assert sum(ratios) / 2 == pytest.approx(speed_up["median"], abs=0.01), "the ratio of each round"
    assert any("batch 8, width 16 (quick: 2 rounds)" in line for line in printed)


@pytest.mark.usefixtures("no_sbx")
def test_updates_of_neurons_that_share_inputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = "--env Pendulum-v1 --widths 16 --batches 8 --threads 1 --densities 1 0.5 --pairs 1 4 --only ds_td3"
    found = bench("update", f"{options} --what update event --rounds 1 --chunk-s 0.001", tmp_path)
    (configuration,) = found["configurations"]
    rows = [(row["contender"], row["density"], row["pairs"]) for row in configuration["rows"]]
    assert rows == [("ds_td3", 1.0, 1), ("ds_td3", 0.5, 1), ("ds_td3", 0.5, 4), ("td3", 1.0, 1)]
    assert [(row["method"], row["pairs"]) for row in configuration["events"]] == [
        (method, pairs) for method in ("set", "ds_td3") for pairs in (1, 4)
    ]
    dense, *sparse = (row["update"]["speed_up"]["median"] for row in configuration["rows"][:3])
    for row, own, pairs in zip(configuration["crossovers"], sparse, (1, 4), strict=True):
        at = {"contender": "ds_td3", "baseline": "td3", "pairs": pairs, "threads": 1}
        assert row == {**at, **crossover([1.0, 0.5], [dense, own])}, "dense networks belong to both"
    assert capsys.readouterr().out.count(" pairs ") >= 3, "a column of each table"


def test_an_agent_gets_the_pairs_of_its_entry() -> None:
    agent = make(Entry("ds_td3", 0.5, 2), FunctionEnv(), 8, 0)
    layers = [layer for layer in agent.actor.modules() if hasattr(layer, "topology")]  # type: ignore[attr-defined]
    assert [layer.topology.pairs for layer in layers] == [2, 2]


def test_quick_is_a_smaller_grid_and_what_is_given_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[UpdateOptions] = []

    def measure(options: UpdateOptions) -> dict[str, Any]:
        asked.append(options)
        return {"configurations": []}

    monkeypatch.setitem(BENCHMARKS, "update", replace(BENCHMARKS["update"], measure=measure))
    for words in ("--quick", "--quick --widths 64 128 --threads 1", "--widths 64", "--quick --no-quick"):
        assert main(["bench", "update", *words.split()]) == 0
    quick, wide, whole, neither = asked
    assert (quick.widths, quick.batches, quick.densities) == ((256,), (256,), (0.5, 0.1, 0.05))
    assert (quick.only, quick.what, quick.threads) == (("ds_td3",), ("update",), (1,))
    assert quick.rounds < UpdateOptions().rounds
    assert wide == replace(quick, widths=(64, 128))
    assert whole == UpdateOptions(widths=(64,))
    assert neither == UpdateOptions()


@pytest.mark.parametrize("kind", ["update --quick", "kernels", "scale", "return"])
def test_what_is_measured_is_said_before_anything_heavy_is_imported(kind: str, tmp_path: Path) -> None:
    words = ["bench", *kind.split(), "--plot", str(tmp_path / "found.png")]
    script = f"""
import sys
from sparserl.cli import bench, main
bench.load = lambda name: sys.exit(repr(sorted({{"torch", "stable_baselines3", "numba"}} & sys.modules.keys())))
main({words!r})
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert found.stdout.startswith("measuring ")
    assert found.stderr.strip() == "[]"


def test_env_steps_go_on_from_chunk_to_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    env, resets = FunctionEnv(horizon=17), []
    reset: Callable[..., Any] = env.reset
    monkeypatch.setattr(env, "reset", lambda **given: (resets.append(1), reset(**given))[1])
    entry = Entry("td3", 1.0)
    agent = make(entry, env, 8, 0, batch=8)
    give_replay(agent, random_replay(FunctionEnv(), 0))
    steps = _work("steps", entry, agent)
    for _ in range(4):
        steps(5)
    assert agent.num_timesteps == agent._n_updates == 4 * 5 * 2, "a gradient update every step, from the first on"
    assert len(resets) == 1 + 40 // 17, "a reset at the start and after each episode, none between chunks"
    assert agent.batch_size == 8


def test_numbers_are_milliseconds_an_update_and_steps_a_second() -> None:
    timing = Timing(warm_up_s=3.0, units=20, seconds=(0.002, 0.004, 0.005))
    update, steps = _numbers("update", timing), _numbers("steps", timing)
    assert update["per_round"] == pytest.approx([2.0, 4.0, 5.0])
    assert update["median"] == pytest.approx(4.0)
    assert steps["per_round"] == pytest.approx([500.0, 250.0, 200.0])
    assert (update["in_a_chunk"], update["warm_up_s"]) == (20, 3.0)


def test_kernels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = "--widths 16 --batches 8 --threads 1 --densities 0.1 0.5 --rounds 2 --chunk-s 0.0001"
    found = bench("kernels", options, tmp_path)
    (configuration,) = found["configurations"]
    products = ("forward", "input gradient", "value gradient", "all three")
    assert [(row["product"], row["density"]) for row in configuration["rows"]] == [
        (product, density) for product in products for density in (None, 0.1, 0.5)
    ]
    rows = {(row["product"], row["density"]): row for row in configuration["rows"]}
    for (product, density), row in rows.items():
        flops = 2 * (16 * 16 if density is None else row["nnz"]) * 8 * (3 if product == "all three" else 1)
        rates = [flops / microseconds / 1e3 for microseconds in row["microseconds"]["per_round"]]
        assert row["gflop_s"]["median"] == pytest.approx(sum(rates) / 2)
        if density is not None:
            share = row["flop_rate_over_dense"]["median"] / row["speed_up"]["median"]
            assert share == pytest.approx(row["nnz"] / 256), "a FLOP rate counts connections, a time does not"
    for position in range(2):
        parts = sum(rows[product, 0.1]["microseconds"]["per_round"][position] for product in products[:3])
        assert rows["all three", 0.1]["microseconds"]["per_round"][position] == pytest.approx(parts)
    assert [row["product"] for row in configuration["crossovers"]] == list(products)
    assert all({"crossover", "text", "threads"} <= set(row) for row in configuration["crossovers"])
    assert "value gradient" in capsys.readouterr().out


def test_kernels_of_neurons_that_share_inputs(tmp_path: Path) -> None:
    options = "--widths 16 --batches 8 --threads 1 --densities 0.1 0.5 --pairs 1 2 --rounds 1 --chunk-s 0.0001"
    (configuration,) = bench("kernels", options, tmp_path)["configurations"]
    rows = [row for row in configuration["rows"] if row["product"] == "forward"]
    kinds = [(None, 1), (0.1, 1), (0.5, 1), (0.1, 2), (0.5, 2)]
    assert [(row["density"], row["pairs"]) for row in rows] == kinds
    assert [row["nnz"] for row in rows[1:]] == [26, 128, 26, 128], "of 25.6 connections, and the nearest even number"
    crossovers = [row for row in configuration["crossovers"] if row["product"] == "forward"]
    assert [row["pairs"] for row in crossovers] == [1, 2]
    for row in crossovers:
        own = [one for one in rows[1:] if one["pairs"] == row["pairs"]]
        wanted = crossover([one["density"] for one in own], [one["speed_up"]["median"] for one in own])
        assert {name: row[name] for name in wanted} == wanted


def test_scale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = bench("scale", "--nnz 6000 --batch 8 --threads 1 --rounds 1", tmp_path)
    (row,) = found["rows"]
    assert abs(row["nnz"] - 6000) <= 9
    assert row["hidden_neurons"] == 600
    assert 0 < row["bytes_before"] <= row["bytes_built"] <= row["bytes_built_peak"] <= row["bytes_peak"]
    assert row["bytes_peak_without_replay"] == row["bytes_peak"] - row["bytes_replay"]
    assert row["build_s"] > 0
    (timing,) = row["timings"]
    assert timing["threads"] == 1
    assert timing["update_ms"]["median"] > 0
    assert {"event_ms", "share", "warm_up_s"} <= set(timing)
    assert found["slopes"] == [], "one size has no slope"
    assert "600" in capsys.readouterr().out


class Pool:
    """Stands in for a pool of one process, in which the larger size dies."""

    def __init__(self, *given: object, **more: object) -> None: ...

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *given: object) -> None: ...

    def submit(self, measure: object, nnz: int, options: ScaleOptions) -> Future[dict[str, Any]]:
        future: Future[dict[str, Any]] = Future()
        if nnz == 3000:
            future.set_exception(BrokenProcessPool())
        else:
            timings = [{"threads": t, "update_ms": {"median": nnz / t**2}} for t in options.threads]
            future.set_result({"nnz": nnz, "timings": timings})
        return future


def test_a_size_that_dies_is_missing_and_said_and_the_rest_counts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scale, "ProcessPoolExecutor", Pool)
    found = measure_scale(ScaleOptions(nnz=(2000, 3000, 1000), threads=(1,), progress=False))
    assert [row["nnz"] for row in found["rows"]] == [1000, 2000]
    assert found["slopes"] == [{"threads": 1, "slope": pytest.approx(1.0)}]
    (note,) = found["notes"]
    assert note.startswith("3,000 connections: the process was killed")
    assert note in capsys.readouterr().out


def test_memory_of_a_replay_buffer() -> None:
    # A transition is two observations of 17 numbers, an action of 6, reward, done and timeout, 4 bytes each.
    assert replay_bytes(random_replay(NoDynamics(), 0)) == 200 * 4 * (2 * 17 + 6 + 3)
