"""`sparserl prune` and `sparserl train --from`: networks of a run, smaller or as they are, in a run of their own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import yaml
from support.cut_runs import cut_off
from support.envs import FunctionEnv
from support.runs import ALGOS, FAST, leave_undrawn, rows, same_run, train
from support.trees import assert_equal_trees

from sparserl.cli import main
from sparserl.experiment import open_run
from sparserl.layers.linear import linear_layers
from sparserl.topology.pruning import PRUNE


@pytest.fixture(scope="module", autouse=True)
def _tiny() -> Any:
    widths = {"Tiny-v0": 3, "Wide-v0": 4}
    for name, n_obs in widths.items():
        gym.register(name, entry_point=lambda n_obs=n_obs: FunctionEnv(n_obs=n_obs, horizon=17))
    with pytest.MonkeyPatch.context() as patch:
        leave_undrawn(patch)
        yield
    for name in widths:
        gym.registry.pop(name)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run of each algorithm; not to be changed."""
    folder = tmp_path_factory.mktemp("runs")
    for algo, flags in ALGOS.items():
        assert train(folder / algo, *FAST, *flags) == 0
    return {algo: folder / algo for algo in ALGOS}


def prune(run: Path, out: Path, *flags: str) -> int:
    return main(["prune", "--run", str(run), "--out", str(out), "--episodes", "2", *flags])


def go_on(run: Path, out: Path, *flags: str) -> int:
    return main(["train", "--from", str(run), "--run-dir", str(out), "--no-progress", *flags])


def refused(capsys: pytest.CaptureFixture[str], status: int) -> str:
    """The one line of a refusal."""
    assert status == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    return line


# --- prune ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algo", "by"), [("td3", "lamp"), ("sac", "fisher"), ("ds_td3", "global"), ("ds_sac", "fisher")]
)
def test_every_network_has_exactly_the_density(
    algo: str, by: str, runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prune(runs[algo], tmp_path / "p", "--density", "0.2", "--by", by, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    opened = open_run(tmp_path / "p")
    for network in opened.agent.networks.values():
        for name, chain in network.named_children():
            if name in ("mu", "pi", "qf0", "qf1"):
                layers = linear_layers(chain).values()
                assert all(layer.is_sparse for layer in layers)
                size = sum(np.prod(layer.shape) for layer in layers)
                assert sum(layer.weights.numel() for layer in layers) == round(0.2 * size)
    before = open_run(runs[algo])
    assert opened.step == before.step
    np.testing.assert_allclose(said["after"]["return_mean"], opened.result["return_last"])
    at = before.config.seed + 100
    np.testing.assert_allclose(said["before"]["return_mean"], before.evaluate(2, seed=at).return_mean)
    np.testing.assert_allclose(said["after"]["return_mean"], opened.evaluate(2, seed=at).return_mean)
    assert said["after"]["policy_bytes"] > 4 * said["after"]["policy_parameters"]  # the indices count
    config = yaml.safe_load((tmp_path / "p" / "config.yaml").read_text())
    assert config["origin"] == {"run": str(runs[algo]), "checkpoint": "last", "prune_by": by}
    assert (config["algo"], config["topology"]["density"]) == (f"ds_{algo.removeprefix('ds_')}", 0.2)


def test_every_rule_keeps_what_it_says(runs: dict[str, Path], tmp_path: Path) -> None:
    """By one rule connections are kept that another one drops; all keep the largest weight of each layer but fisher."""
    kept = {}
    for by in PRUNE:
        assert prune(runs["td3"], tmp_path / by, "--density", "0.3", "--by", by) == 0
        kept[by] = [layer.topology.flat.tolist() for layer in open_run(tmp_path / by).agent.actor.mu]
    assert len({str(one) for one in kept.values()}) == len(PRUNE)
    for index, layer in enumerate(linear_layers(open_run(runs["td3"]).agent.actor.mu).values()):
        largest = int(layer.weights.abs().argmax())
        assert all(largest in kept[by][index] for by in ("uniform", "global", "lamp"))


def test_other_commands_open_it(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "p"
    assert prune(runs["td3"], out, "--density", "0.3") == 0
    assert "before" in capsys.readouterr().out
    assert main(["eval", "--run", str(out), "--episodes", "1"]) == 0
    assert main(["export", "--run", str(out), "--out", str(tmp_path / "policy.safetensors")]) == 0
    assert main(["report", str(out), str(runs["td3"])]) == 0
    assert main(["plot", str(out), "--out", str(tmp_path / "x.png")]) == 0
    said = capsys.readouterr().out
    assert "pruned_lamp" in said
    assert main(["prune", "--run", str(out), "--density", "0.2", "--out", str(tmp_path / "q"), "--episodes", "1"]) == 0


def test_a_run_that_was_measured_after_events_is_pruned(tmp_path: Path) -> None:
    assert train(tmp_path / "run", *FAST, *ALGOS["ds_td3"], "--measure-learning", "events") == 0
    assert prune(tmp_path / "run", tmp_path / "p", "--density", "0.2") == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--density", "0.9"), "critic.qf0 has a density of 0.5"),
        (("--density", "0.001"), "which leaves 0 connections for 3 layers; the closest is 0.015"),
        (("--density", "0.3", "--by", "lampe"), "unknown pruning rule 'lampe'; did you mean 'lamp'?"),
        (("--density", "0"), "--density must be in (0, 1], got 0"),
        ((), "--density is missing"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(
    flags: tuple[str, ...], message: str, runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capsys, prune(runs["ds_td3"], tmp_path / "p", *flags))
    assert not (tmp_path / "p").exists()


def test_folders_that_do_not_serve_are_refused(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "there").mkdir()
    line = refused(capsys, prune(runs["td3"], tmp_path / "there", "--density", "0.3"))
    assert line.endswith("there exists; choose another --out")
    assert "no run folder at" in refused(capsys, prune(tmp_path / "none", tmp_path / "p", "--density", "0.3"))
    continual = tmp_path / "tasks"
    continual.mkdir()
    (continual / "config.yaml").write_text("{sequence: split_digits, method: naive}\n")
    line = refused(capsys, prune(continual, tmp_path / "p", "--density", "0.3"))
    assert "is no run of `sparserl train`" in line
    bare = tmp_path / "bare"
    shutil.copytree(runs["td3"], bare)
    shutil.rmtree(bare / "checkpoints")
    assert "has no full checkpoint yet" in refused(capsys, prune(bare, tmp_path / "p", "--density", "0.3"))
    best = ("--density", "0.3", "--checkpoint", "best")
    assert "no checkpoint at" in refused(capsys, prune(bare, tmp_path / "p", *best))
    line = refused(capsys, prune(bare, tmp_path / "p", "--density", "0.3", "--checkpoint", "last"))
    assert "has no full checkpoint yet" in line


# --- train --from -----------------------------------------------------------------------------------


@pytest.mark.parametrize("algo", list(ALGOS))
def test_a_run_begins_with_the_networks_of_another(algo: str, runs: dict[str, Path], tmp_path: Path) -> None:
    assert go_on(runs[algo], tmp_path / "b", "--seed", "5", "--origin.checkpoint", "last") == 0
    before, after = (rows(folder / "eval.csv") for folder in (runs[algo], tmp_path / "b"))
    assert after[0]["global_step"] == "0"
    earlier = open_run(runs[algo], "last")
    first = [float(row["return"]) for row in after if row["global_step"] == "0"]
    if not earlier.config.wrappers.permute:  # which begins each episode in another order
        np.testing.assert_allclose(np.mean(first), earlier.evaluate(len(first), seed=5 + 100).return_mean)
    assert before[0]["return"] != after[0]["return"]
    config = yaml.safe_load((tmp_path / "b" / "config.yaml").read_text())
    theirs = yaml.safe_load((runs[algo] / "config.yaml").read_text())
    differing = {key for key in config if config[key] != theirs[key]}
    assert differing == {"seed", "origin"}


def test_what_is_pruned_trains_on_by_another_method(runs: dict[str, Path], tmp_path: Path) -> None:
    assert prune(runs["td3"], tmp_path / "p", "--density", "0.4") == 0
    assert go_on(tmp_path / "p", tmp_path / "b", "--topology.method", "set", "--topology.update-interval", "20") == 0
    events = rows(tmp_path / "b" / "topology.csv")
    assert {row["kind"] for row in events} == {"initial", "rewire"}
    layers = dict(open_run(tmp_path / "p").agent.evolver.layers)
    assert {row["layer"]: int(row["nnz"]) for row in events if row["kind"] == "initial"} == {
        name: layer.topology.nnz for name, layer in layers.items()
    }


def test_a_run_that_was_killed_goes_on_without_its_origin(runs: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(runs["ds_sac"], tmp_path / "origin")
    assert go_on(tmp_path / "origin", tmp_path / "whole") == 0
    cut = tmp_path / "cut"
    cut_off("agent", cut, ["train", "--from", str(tmp_path / "origin"), "--run-dir", str(cut), "--no-progress"])
    shutil.rmtree(tmp_path / "origin")
    assert main(["train", "--resume", str(cut), "--from-step", "90", "--no-progress"]) == 0
    same_run(tmp_path / "whole", cut)


@pytest.mark.parametrize(
    ("algo", "flags", "message"),
    [
        ("td3", ("--algo", "ds_td3"), "ds_td3 begins with sparse networks, and"),
        ("td3", ("--algo", "sac"), "sac cannot begin with the networks of"),
        ("ds_td3", ("--algo", "td3"), "td3 cannot begin with the networks of"),
        ("ds_td3", ("--agent.net-arch", "9"), "agent.net_arch [9] does not fit the networks of"),
        ("ds_td3", ("--agent.n-critics", "3"), "agent.n_critics 3 does not fit the networks of"),
        ("ds_td3", ("--topology.density", "0.25"), "--topology.density 0.25 does not fit the networks of"),
        ("ds_td3", ("--topology.method", "rigl"), "theirs is --topology.output-layer dense"),
        ("ds_td3", ("--topology.method", "dense", "--topology.update-interval", "None"), "are sparse: use static"),
        ("ds_td3", ("--topology.method", "gmp", "--topology.output-layer", "dense"), "another that keeps their number"),
        ("ds_td3", ("--env", "Wide-v0"), "and the networks of"),
        ("ds_td3", ("--wrappers.normalize-observations", "running"), "leave --wrappers as they are"),
        ("ds_td3", ("--preset", "ds_td3/default"), "so no preset does: leave 'ds_td3/default' out"),
        (
            "ds_td3",
            ("--origin.prune-by", "lamp", "--topology.epsilon", "9", "9", "9"),
            "uniform shares out one density",
        ),
        ("ds_td3", ("--origin.prune-by", "lamp"), "needs one topology.density in (0, 1) for all networks, got None"),
    ],
)
def test_what_does_not_fit_is_refused(
    algo: str,
    flags: tuple[str, ...],
    message: str,
    runs: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert message in refused(capsys, go_on(runs[algo], tmp_path / "b", *flags))
    assert not (tmp_path / "b").exists()


def test_options_of_an_origin_need_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = train(tmp_path / "x", *FAST, "--origin.prune-by", "lamp")
    assert "origin.prune_by lamp has no effect: it needs origin.run, or --from DIR" in refused(capsys, status)
    assert "unknown option '--from'" in refused(capsys, main(["continual", "--from", str(tmp_path)]))


def test_pruned_at_once_is_pruned_and_then_trained(runs: dict[str, Path], tmp_path: Path) -> None:
    flags = ("--origin.prune-by", "uniform", "--topology.density", "0.3", "--topology.method", "set")
    assert go_on(runs["td3"], tmp_path / "one", *flags) == 0
    assert prune(runs["td3"], tmp_path / "p", "--density", "0.3", "--by", "uniform") == 0
    assert go_on(tmp_path / "p", tmp_path / "two", "--topology.method", "set", "--eval.episodes", "2") == 0
    one, two = (rows(tmp_path / name / "eval.csv") for name in ("one", "two"))
    assert_equal_trees(one, two)
