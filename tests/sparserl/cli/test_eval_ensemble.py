"""`sparserl eval --ensemble`: policies that act together, beside each by itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from support.envs import FunctionEnv
from support.runs import FAST, TINY, leave_undrawn, train

from sparserl.cli import main
from sparserl.experiment.opening import open_run
from sparserl.experiment.policy_ensemble import JOINED, PolicyEnsemble

SHORT = (*FAST, "--eval.episodes", "1")
FROZEN = (
    *("--wrappers.normalize-observations", "frozen"),
    *("--wrappers.normalization", "{folder}/statistics/normalization.json"),
)
RUNS: dict[str, tuple[str, ...]] = {
    "td3": ("--algo", "ds_td3"),
    "sac": ("--algo", "ds_sac", "--seed", "1"),
    "permuted": ("--wrappers.permute",),
    "permuted otherwise": ("--wrappers.permute", "--seed", "1"),
    "permuted alike": ("--wrappers.permute", "--agent.gamma", "0.5"),
    "statistics": ("--wrappers.normalize-observations", "running"),
    "frozen": FROZEN,
    "frozen alike": (*FROZEN, "--agent.gamma", "0.5"),
    "elsewhere": ("--env", "Other-v0"),
    "shorter": ("--env-kwargs", "horizon=9"),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    folder = tmp_path_factory.mktemp("runs")
    for name in ("Tiny-v0", "Other-v0"):
        gym.register(name, entry_point=FunctionEnv, kwargs={"horizon": 17})
    with pytest.MonkeyPatch.context() as patch:
        leave_undrawn(patch)
        for name, words in RUNS.items():
            assert train(folder / name, *TINY, *SHORT, *(word.format(folder=folder) for word in words)) == 0
        yield {name: folder / name for name in RUNS}
    for name in ("Tiny-v0", "Other-v0"):
        gym.registry.pop(name)


def evaluate(capsys: Any, *words: object) -> dict[str, Any]:
    assert main(["eval", *map(str, words), "--episodes", "2", "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_actions_are_joined_by_hand() -> None:
    boxes = np.float32([[[0.0, 1.0]], [[0.5, -1.0]], [[1.0, 0.5]]])  # three members, one observation
    assert JOINED[spaces.Box](boxes) == pytest.approx(np.float32([[0.5, 1 / 6]]))
    assert JOINED[spaces.Box](boxes).dtype == np.float32
    votes = np.array([[3, 1, 2], [0, 1, 0], [3, 0, 1]])  # of the last observation each is alone: the lowest
    assert JOINED[spaces.Discrete](votes).tolist() == [3, 1, 0]


def test_members_return_what_they_return_alone(runs: dict[str, Path], capsys: Any) -> None:
    found = evaluate(capsys, "--run", runs["td3"], runs["sac"], "--ensemble")
    for member, name in zip(found["members"], ("td3", "sac"), strict=True):
        alone = evaluate(capsys, "--run", runs[name])
        assert member["run"] == str(runs[name])
        assert {key: member[key] for key in ("global_step", "return_mean", "ep_len_mean")} == {
            key: alone[key] for key in ("global_step", "return_mean", "ep_len_mean")
        }
    of_members = sorted(member["return_mean"] for member in found["members"])
    assert found["return_mean"] not in of_members
    assert found == evaluate(capsys, "--run", runs["td3"], runs["sac"], "--ensemble")


def test_they_act_by_the_mean_of_their_actions(runs: dict[str, Path]) -> None:
    members: list[Any] = [open_run(runs[name]) for name in ("td3", "sac")]
    observations = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    actions, states = PolicyEnsemble(members).predict(observations, deterministic=True)
    alone = [member.agent.predict(observations, deterministic=True)[0] for member in members]
    np.testing.assert_allclose(actions, (alone[0] + alone[1]) / 2, rtol=1e-6)
    assert states == (None, None)
    assert np.array_equal(PolicyEnsemble([members[0]] * 2).predict(observations, states, None, True)[0], alone[0])


def test_one_run_gives_its_best_and_its_last_policy(runs: dict[str, Path], capsys: Any) -> None:
    words = ("--run", runs["td3"], "--ensemble")
    steps = [evaluate(capsys, *words[:2], "--checkpoint", which)["global_step"] for which in ("best", "last")]
    if steps[0] == steps[1]:
        assert main(["eval", *map(str, words)]) == 2
        assert "is its last one" in capsys.readouterr().err
    else:
        assert [member["global_step"] for member in evaluate(capsys, *words)["members"]] == steps


@pytest.mark.parametrize("name", ["permuted", "frozen"])
def test_runs_that_see_features_alike_go_together(name: str, runs: dict[str, Path], capsys: Any) -> None:
    """In one order, or by statistics from one file."""
    assert main(["eval", "--run", str(runs[name]), str(runs[f"{name} alike"]), "--ensemble"]) == 0
    printed = capsys.readouterr().out
    assert "together" in printed
    assert printed.count("+-") == 3


REFUSED = {
    "several runs": ("{td3} {sac}", "--run takes one folder, or several with --ensemble, got 2"),
    "another environment": ("{td3} {elsewhere} --ensemble", "learned in Tiny-v0 and Other-v0"),
    "other arguments": ("{td3} {shorter} --ensemble", "learned with the env_kwargs {} and {'horizon': 9}"),
    "other wrappers": ("{td3} {permuted} --ensemble", "the wrappers of"),
    "another order": (
        "{permuted} {permuted_otherwise} --ensemble",
        "features have an order or a scale of their own",
    ),
    "twice": ("{td3} {sac} {td3} --ensemble", "twice"),
    "one policy": ("{td3} --ensemble --checkpoint best", "--checkpoint leaves one policy of a run"),
    "no task": ("{td3} {sac} --ensemble --task 1", "there is no --task 1"),
    "no run": ("{td3} {td3}x --ensemble", "no run folder at"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_in_one_line(name: str, runs: dict[str, Path], capsys: Any) -> None:
    words, message = REFUSED[name]
    paths = {key.replace(" ", "_"): str(path) for key, path in runs.items()}
    arguments = [word.format(**paths) for word in words.split()]
    assert main(["eval", "--run", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
