"""`sparserl inspect`: what it says is what the networks compute."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from support.cut_runs import command
from support.envs import FunctionEnv
from support.runs import ALGOS, FAST, leave_undrawn, train

from sparserl.cli import main
from sparserl.experiment import open_run
from sparserl.experiment.input_use import input_use_of_run
from sparserl.metrics.inputs import MEASURES, InputUse

WRAPPED = (*FAST, *ALGOS["ds_sac"])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """A run of each kind; not to be changed."""
    gym.register("Tiny-v0", entry_point=lambda: FunctionEnv(horizon=17))
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        leave_undrawn(patch)
        for algo in ("td3", "sac"):
            assert train(folder / algo, *FAST, *ALGOS[algo]) == 0
        assert train(folder / "wrapped", *WRAPPED) == 0
        for kind in ("classifier", "agent on tasks"):
            assert main(command(kind, folder / kind)) == 0
    yield {path.name: path for path in folder.iterdir()}
    gym.registry.pop("Tiny-v0")


def inspected(capsys: pytest.CaptureFixture[str], run: Path, *flags: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["inspect", "--run", str(run), "--episodes", "1", "--json", *flags]) == 0
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    return said


@pytest.mark.parametrize("algo", ["td3", "sac"])
def test_numbers_are_those_of_the_agent(algo: str, runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    networks = inspected(capsys, runs[algo])["networks"]
    opened: Any = open_run(runs[algo])
    agent = opened.agent
    observations, actions = (torch.from_numpy(one) for one in opened.visited(0, 1))
    assert len(observations) == 17
    x = observations.requires_grad_()
    mean = agent.actor(x) if algo == "td3" else agent.actor.mu(agent.actor.latent_pi(x)).tanh()
    gradients = [torch.autograd.grad(mean[:, k].sum(), x, retain_graph=True)[0].abs().mean(dim=0) for k in (0, 1)]
    expected = dict(zip((f"feature {index}" for index in range(3)), sum(gradients).tolist(), strict=True))  # type: ignore[union-attr]
    found = {one["name"]: one["attribution"] for one in networks["actor"]["inputs"]}
    assert found == pytest.approx(expected, rel=1e-4)
    values = agent.critic(x, actions)
    of_critics = sum(torch.autograd.grad(value.sum(), x, retain_graph=True)[0].abs().mean(dim=0) for value in values)
    critic = {one["name"]: one for one in networks["critic"]["inputs"]}
    assert set(critic) == {*expected, "action 0", "action 1"}
    np.testing.assert_allclose([critic[name]["attribution"] for name in expected], of_critics / 2, rtol=1e-4)  # type: ignore[operator]
    first = [network[0].weight.detach().abs().sum(dim=0) for network in agent.critic.q_networks]
    np.testing.assert_allclose([critic[name]["strength"] for name in expected], ((first[0] + first[1]) / 2)[:3])
    for network in networks.values():
        attributions = [one["attribution"] for one in network["inputs"]]
        assert attributions == sorted(attributions, reverse=True)


def test_noise_is_named_and_its_share_said(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    [actor, critic] = inspected(capsys, runs["wrapped"])["networks"].values()
    assert sum(one["noise"] for one in actor["inputs"]) == 3
    assert {one["name"] for one in critic["inputs"]} - {one["name"] for one in actor["inputs"]} == {
        "action 0",
        "action 1",
    }
    assert main(["inspect", "--run", str(runs["wrapped"]), "--episodes", "1", "--top", "2"]) == 0
    said = capsys.readouterr().out
    total = sum(one["attribution"] for one in actor["inputs"])
    held = sum(one["attribution"] for one in actor["inputs"] if one["noise"]) / total
    assert f"3 noise features, 50.0% of the inputs, hold {held:.1%} of the attribution" in said
    assert sum(line.startswith("│") for line in said.splitlines()) == 4
    assert all(len(line) <= 80 for line in said.splitlines())


def test_tasks_of_agents_and_classifiers(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    of_task = inspected(capsys, runs["agent on tasks"], "--task", "1")["networks"]
    assert {name: len(network["inputs"]) for name, network in of_task.items()} == {"actor": 3, "critic": 5}
    assert main(["inspect", "--run", str(runs["agent on tasks"])]) == 2
    assert "--task must say which" in capsys.readouterr().err
    [(name, classifier)] = inspected(capsys, runs["classifier"])["networks"].items()
    assert (name, len(classifier["inputs"])) == ("network", 64)
    assert inspected(capsys, runs["classifier"], "--task", "1")["networks"] != {name: classifier}
    assert main(["inspect", "--run", str(runs["classifier"]), "--task", "7"]) == 2
    assert "there is no --task 7; tasks are 0 (" in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_a_classifier_answers_for_all_tasks_as_for_each(tmp_path: Path) -> None:
    """Where nobody says the task; SpaceNet keeps rows of earlier tasks away from the network that it trains."""
    words = ["continual", "--sequence", "split_digits", "--tasks", "2", "--learner.epochs", "1", "--no-progress"]
    assert main([*words, "--method", "spacenet", "--run-dir", str(tmp_path / "run")]) == 0
    opened: Any = open_run(tmp_path / "run")
    (whole,), (first,), (second,) = (input_use_of_run(opened, task) for task in (None, 0, 1))
    counts = [len(task.test) for task in opened.learner.sequence.tasks]
    expected = np.average([first.attribution, second.attribution], axis=0, weights=counts)
    np.testing.assert_allclose(whole.attribution, expected, rtol=1e-4, atol=1e-6)


def test_it_repeats_and_changes_nothing(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert inspected(capsys, runs["wrapped"]) == inspected(capsys, runs["wrapped"])
    opened: Any = open_run(runs["td3"])
    before = {name: value.clone() for name, value in opened.agent.policy.state_dict().items()}
    input_use_of_run(opened, episodes=1)
    assert all(torch.equal(before[name], value) for name, value in opened.agent.policy.state_dict().items())
    assert all(parameter.grad is None for parameter in opened.agent.policy.parameters())


def test_a_picture_shows_the_most_used(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "inputs.svg"
    assert main(["inspect", "--run", str(runs["wrapped"]), "--episodes", "1", "--top", "2", "--out", str(out)]) == 0
    text = out.read_text()
    [actor, _] = inspected(capsys, runs["wrapped"])["networks"].values()
    shown = [one["name"] for one in actor["inputs"]]
    assert all(name in text for name in shown[:2])
    assert "actor: strength: sum of |weights|" in text
    assert main(["inspect", "--run", str(runs["wrapped"]), "--out", str(tmp_path / "inputs.txt")]) == 2
    assert "unknown ending '.txt'" in capsys.readouterr().err


def test_shares_and_order_worked_by_hand() -> None:
    use = InputUse("net", ["a", "b", "c"], np.array([1.0, 3.0, 1.0]), np.array([2.0, 5.0, 1.0]), np.ones(3))
    assert use.order.tolist() == [1, 0, 2]
    assert use.share(np.array([False, True, True])) == 0.8
    assert use.agreement == pytest.approx(np.sqrt(3) / 2)  # ranks (1.5, 3, 1.5) and (2, 3, 1)
    nothing = InputUse("net", ["a"], np.zeros(1), np.zeros(1), np.zeros(1))
    assert np.isnan([nothing.share(np.array([True])), nothing.agreement]).all()
    assert all(hasattr(use, measure) for measure in MEASURES)
