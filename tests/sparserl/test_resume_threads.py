"""A resumed run equals one that was not stopped, also where the number of connections crosses the threads' threshold.

How many threads share a pass follows from the connections of today: a run that had more or fewer before, and one that
begins today, add in the same order.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from support.envs import FunctionEnv
from support.killed import Killed
from support.networks import backward, forward, whole, whole_networks
from support.runs import FAST, same_run, train
from support.tasks import blobs
from support.trees import assert_equal_trees
from torch import nn

from sparserl.cli import main
from sparserl.continual.strategies import MethodOptions, make_strategy
from sparserl.continual.strategies.spacenet import SpaceNetOptions
from sparserl.continual.supervised.learner import SupervisedLearner
from sparserl.continual.supervised.learner_config import LearnerConfig
from sparserl.continual.supervised.runner import run_sequence
from sparserl.kernels import GradientRequest, Networks, cpu, plan
from sparserl.kernels.program import Call
from sparserl.layers.sparsify import SparseTraining, sparsify
from sparserl.recording import checkpoint

THREADS = [1, 2]


pytestmark = pytest.mark.usefixtures("thread_counts")


@pytest.mark.parametrize("densities", [(0.2, 0.9), (0.9, 0.2)], ids=["growing", "shrinking"])
def test_a_pass_depends_on_no_earlier_connections(
    densities: tuple[float, float], calls: list[Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = (whole_networks((11, 37, 18, 3), 2, torch.float32, density=density) for density in densities)
    for networks in (before, after):
        for layer in networks.tensors():
            layer.mul_(0.1)  # rounds, so that the order of a sum shows
    monkeypatch.setattr(plan, "PARALLEL_FROM", (before.nnz + after.nnz) // 2 * 128)
    torch.set_num_threads(2)
    x, dy = whole(128, 11, among=(-1, 1), dtype=torch.float32), torch.rand(2, 128, 3)
    results = []
    for networks in (before, Networks(after.networks, before), Networks(after.networks)):
        y, saved = forward(cpu, networks, x, keep=True)
        gradients = backward(cpu, networks, saved, dy, GradientRequest(reuse=True))
        results.append([y, forward(cpu, networks, x, keep=False)[0], *(gradients.parameters or ())])
    assert_equal_trees(results[1], results[2])
    assert [call.shares for call in calls] == ([1] * 3 + [2] * 6 if densities[0] < densities[1] else [2] * 3 + [1] * 6)


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("stop", [3, 15])
def test_a_model_that_is_pruned(threads: int, stop: int, calls: list[Call], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "PARALLEL_FROM", 1000 * 64)
    torch.set_num_threads(threads)
    x = torch.randn(64, 12, generator=torch.Generator().manual_seed(1))

    def start() -> tuple[nn.Module, torch.optim.Optimizer, SparseTraining]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(12, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 3))
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        return (
            model,
            optimizer,
            sparsify(model, optimizer, density=0.1, method="gmp", update_interval=2, total_updates=30),
        )

    def learn(parts: tuple[nn.Module, torch.optim.Optimizer, SparseTraining], updates: int) -> None:
        model, optimizer, evolver = parts
        for _ in range(updates):
            optimizer.zero_grad()
            (model(x) - torch.sin(2 * x[:, :3])).square().mean().backward()
            optimizer.step()
            evolver.step()

    uninterrupted = start()
    learn(uninterrupted, stop)
    stored = copy.deepcopy([part.state_dict() for part in uninterrupted])
    learn(uninterrupted, 28 - stop)
    of_the_middle_layer = [
        calls[4 * update + 1].shares for update in range(28)
    ]  # after the first, before the ways back
    assert (of_the_middle_layer[0], of_the_middle_layer[-1]) == (threads, 1)
    resumed = start()
    for part, state in zip(resumed, stored, strict=True):
        part.load_state_dict(state)
    learn(resumed, 28 - stop)
    assert_equal_trees(resumed[0].state_dict(), uninterrupted[0].state_dict())


@pytest.mark.parametrize("threads", THREADS)
def test_a_classifier_that_grows(
    threads: int, calls: list[Call], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SpaceNet: every task brings connections of its own."""
    monkeypatch.setattr(plan, "PARALLEL_FROM", 100 * 40)
    torch.set_num_threads(threads)
    sequence = blobs("task")
    options = MethodOptions(spacenet=SpaceNetOptions(connections=(40, 30, 6), selected=(12, 10), reserved=(5, 4)))
    config = LearnerConfig(
        hidden=(32, 24), optimizer="adam", learning_rate=0.02, epochs=3, batch_size=40, reset_optimizer=False
    )

    def start() -> SupervisedLearner:
        return SupervisedLearner(sequence, make_strategy("spacenet", "classifier", options), config, seed=0)

    uninterrupted, folders = start(), []
    for place, _ in enumerate(run_sequence(uninterrupted)):
        if place % 4 == 0:
            folders.append(tmp_path / str(place))
            checkpoint.save(folders[-1], uninterrupted.state_dict())
    assert {call.shares for call in calls} == {1, threads}
    for folder in folders:
        resumed = start()
        resumed.load_state_dict(checkpoint.load(folder))
        list(run_sequence(resumed))
        assert_equal_trees(resumed.state_dict(), uninterrupted.state_dict())


@pytest.mark.usefixtures("tiny_env", "undrawn")
def test_an_agent_that_is_pruned(tmp_path: Path, calls: list[Call], monkeypatch: pytest.MonkeyPatch) -> None:
    """On one thread: `test_resume.py`."""
    monkeypatch.setattr(plan, "PARALLEL_FROM", 300 * 144)  # the critics cross it before the checkpoint
    flags = (*FAST, "--algo", "ds_td3", "--threads", "2", "--agent.batch-size", "144")  # three tiles
    flags += ("--topology.method", "gmp", "--topology.density", "0.1", "--topology.update-interval", "5")
    assert train(tmp_path / "whole", *flags) == 0
    assert {call.shares for call in calls} == {1, 2}
    with monkeypatch.context() as patch:
        step, calls = FunctionEnv.step, [0]

        def dying(self: FunctionEnv, action: Any) -> Any:
            calls[0] += 1
            if calls[0] == 200:
                raise Killed
            return step(self, action)

        patch.setattr(FunctionEnv, "step", dying)
        with pytest.raises(Killed):
            train(tmp_path / "cut", *flags)
    assert main(["train", "--resume", str(tmp_path / "cut"), "--no-progress"]) == 0
    same_run(tmp_path / "whole", tmp_path / "cut")
