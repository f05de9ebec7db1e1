"""Distances between the topologies of runs, as records and tables, and by the command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from support.cut_runs import command
from support.envs import FunctionEnv
from support.runs import ALGOS, FAST, leave_undrawn, train

from sparserl.cli import main
from sparserl.errors import ConfigError
from sparserl.experiment import open_run
from sparserl.metrics.topology_distance import topology_distance
from sparserl.report.topology_distance import distance_records, distance_sections
from sparserl.topology.structure import SparseTopology


def topology(n_out: int, n_in: int, *flat: int) -> SparseTopology:
    return SparseTopology(n_out, n_in, np.array(flat, np.int64))


# Two neurons whose inputs are {0, 1} and {2}; in the other order; and {0} and {2}.
ONE = [topology(2, 3, 0, 1, 5), topology(1, 2, 0)]
SWAPPED = [topology(2, 3, 2, 3, 4), topology(1, 2, 1)]
NEAR = [topology(2, 3, 0, 5), topology(1, 2, 0)]


def test_records_of_every_pair_worked_by_hand() -> None:
    runs = [(Path(name), {"net": layers}) for name, layers in (("a", ONE), ("b", SWAPPED), ("c", NEAR))]
    records = distance_records(runs)
    assert [record["runs"] for record in records] == [["a", "b"], ["a", "c"], ["b", "c"]]
    nets = [record["networks"]["net"] for record in records]
    assert [net["aligned"] for net in nets] == [[0.0, 0.0], [0.25, 0.0], [0.25, 0.0]]
    assert [net["unaligned"] for net in nets] == [[1.0, 1.0], [pytest.approx(1 / 3), 0.0], [1.0, 1.0]]
    assert nets[1]["mean"] == {"aligned": 0.125, "unaligned": pytest.approx(1 / 6)}
    *pairs, means = distance_sections(records)
    assert pairs[1].tables[0].rows == [
        ["net", "0.1250", "0.1667"],
        ["  layer 0", "0.2500", "0.3333"],
        ["  layer 1", "0.0000", "0.0000"],
    ]
    assert (means.title, means.tables[0].rows) == ("means over 3 pairs", [["net", "0.0833", "0.7222"]])
    assert [bool(section.notes) for section in pairs] == [True, False, False]


def test_what_has_no_distance_is_refused() -> None:
    one = (Path("a"), {"net": ONE})
    with pytest.raises(ConfigError, match="at least two, got 1"):
        distance_records([one])
    with pytest.raises(ConfigError, match="a and b have other networks: net and actor"):
        distance_records([one, (Path("b"), {"actor": ONE})])
    with pytest.raises(ConfigError, match=r"net of a and b: networks of equal widths .* got 3 - 2 - 1 and 3 - 2"):
        distance_records([one, (Path("b"), {"net": ONE[:1]})])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Runs of two seeds, one of tasks and two of classifiers; not to be changed."""
    gym.register("Tiny-v0", entry_point=lambda: FunctionEnv(horizon=17))
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        leave_undrawn(patch)
        for seed in ("0", "1"):
            assert train(folder / f"s{seed}", *FAST, *ALGOS["ds_td3"], "--seed", seed) == 0
        assert train(folder / "dense", *FAST, *ALGOS["td3"]) == 0
        blocks = {"--preset": "ds_sac/simba", "--agent.critic-width": "8", "--agent.actor-width": "6"}
        words = [word for pair in blocks.items() for word in pair]
        assert main(["train", "--algo", "ds_sac", *FAST, *words, "--run-dir", str(folder / "blocks")]) == 0
        assert main(command("agent on tasks", folder / "tasks")) == 0
        fit = ("fit", "iris", "--learner.epochs", "1", "--learner.hidden", "6", "--density", "0.5", "--no-progress")
        for seed in ("0", "1"):
            assert main([*fit, "--seed", seed, "--run-dir", str(folder / f"fit{seed}")]) == 0
    yield {path.name: path for path in folder.iterdir()}
    gym.registry.pop("Tiny-v0")


def distances(out: Path, *words: Any) -> list[dict[str, Any]]:
    assert main(["report", "--topology-distance", *map(str, words), "--json", str(out)]) == 0
    found: list[dict[str, Any]] = json.loads(out.read_text())["topology_distance"]
    return found


def test_of_agents(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [record] = distances(tmp_path / "x.json", runs["s0"], runs["s1"], "--checkpoint", "last")
    assert "NNSTD" in capsys.readouterr().out
    assert list(record["networks"]) == ["actor.mu", "critic.qf0", "critic.qf1"]
    chains = [list(open_run(runs[name], "last").agent.actor.mu) for name in ("s0", "s1")]
    hidden = topology_distance(*([layer.topology for layer in chain[:2]] for chain in chains))
    found = record["networks"]["actor.mu"]
    np.testing.assert_allclose(found["aligned"], [*hidden.layers, 0.0])  # the output layer is dense
    np.testing.assert_allclose(found["unaligned"], [*hidden.unaligned, 0.0])
    [itself] = distances(tmp_path / "x.json", runs["s0"], runs["s0"])
    assert all(network["mean"] == {"aligned": 0.0, "unaligned": 0.0} for network in itself["networks"].values())
    [dense] = distances(tmp_path / "x.json", runs["s0"], runs["dense"])
    density = open_run(runs["s0"]).agent.actor.mu[0].density
    np.testing.assert_allclose(dense["networks"]["actor.mu"]["unaligned"][0], 1.0 - density)


@pytest.mark.parametrize(("one", "other"), [("tasks", "tasks"), ("fit0", "fit1")])
def test_of_what_else_learns(one: str, other: str, runs: dict[str, Path], tmp_path: Path) -> None:
    [record] = distances(tmp_path / "x.json", runs[one], runs[other])
    for network in record["networks"].values():
        assert (network["mean"]["aligned"] == 0.0) == (one == other)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("s0",), "--topology-distance compares runs, at least two, got 1"),
        (("s0", "fit0"), "have other networks"),
        (("blocks", "blocks"), "actor.pi has residual blocks"),
        (("s0", "s1", "--baseline", "x"), "--baseline has no effect with --topology-distance"),
        (("s0", "tasks", "--checkpoint", "best"), "which has no best checkpoint"),
    ],
)
def test_refusals(
    words: tuple[str, ...], message: str, runs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "--topology-distance", *(str(runs.get(word, word)) for word in words)]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert message in line


def test_a_checkpoint_is_for_distances_alone(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(runs["s0"]), "--checkpoint", "last"]) == 2
    assert "--checkpoint last is for --topology-distance" in capsys.readouterr().err
