"""Runs from Python: resolved, trained, stopped, gone on with, opened and evaluated, as by the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.runs import ALGOS, FAST, TINY, last_state, logs, same_run, train
from support.trees import assert_equal_trees

import sparserl
from sparserl.agents import DSSAC, DSTD3
from sparserl.agents.evaluation import Evaluator
from sparserl.cli import main
from sparserl.cli.running import read
from sparserl.errors import ConfigError, RunFailed, RunStopped, SparserlError
from sparserl.experiment import open_run, resolve, run

pytestmark = pytest.mark.usefixtures("tiny_env", "undrawn")

WISH: dict[str, Any] = {
    **{"env": "Tiny-v0", "total_steps": 130, "checkpoint_every_steps": 30, "log_every_steps": 25},
    **{"topology_snapshots": 3, "eval": {"every_steps": 50, "episodes": 2}, "topology": {"update_interval": 20}},
    "agent": {"net_arch": [12, 12], "batch_size": 16, "buffer_size": 5000, "learning_starts": 40},
}
DIGITS = {"sequence": "split_digits", "method": "ewc", "learner": {"hidden": [8], "epochs": 1}}


def test_a_wish_is_resolved_as_the_command_line_resolves_it() -> None:
    words = (*TINY, *FAST, *ALGOS["ds_td3"])
    assert resolve("train", WISH) == read("train", words).config
    preset = resolve("train", {"topology": {"density": 0.25}}, preset="ds_td3/rlx2")
    assert preset == read("train", ("--preset", "ds_td3/rlx2", "--topology.density", "0.25")).config
    assert resolve("continual", {}) == read("continual", ()).config
    tasks = {"sequence": "halfcheetah_forgetting", "method": "ewc", "seed": 3}
    assert resolve("continual", tasks) == read("continual", [f"--{key}={value}" for key, value in tasks.items()]).config


@pytest.mark.parametrize(
    ("kind", "wish", "message"),
    [
        ("train", {"agnt": {}}, "did you mean 'agent'"),
        ("train", {"agent": {"gama": 0.5}}, "did you mean 'agent.gamma'"),
        ("train", {"algo": "ds_td4"}, "did you mean 'ds_td3'"),
        ("train", {"total_steps": 10}, "before learning starts"),
        ("continual", {"sequence": "split_digit"}, "did you mean 'split_digits'"),
        ("continual", {"algo": "ds_sac"}, "name one by --sequence"),
        ("continual", {"method": "naive", "ewc": {"strength": 1}}, "is an option of ewc"),
    ],
)
def test_what_is_wrong_is_one_line(kind: Any, wish: dict[str, Any], message: str) -> None:
    with pytest.raises(SparserlError, match=message):
        resolve(kind, wish)


def test_a_run_from_python_is_that_of_the_command_line(tmp_path: Path) -> None:
    opened = run(resolve("train", WISH), tmp_path / "python")
    assert train(tmp_path / "words", *FAST, *ALGOS["ds_td3"]) == 0
    same_run(tmp_path / "python", tmp_path / "words")
    again = f"sparserl train --config {tmp_path / 'python'}/config.yaml\n"
    assert (tmp_path / "python" / "command.txt").read_text() == again
    assert opened.result is not None
    assert opened.result["steps"] == 130
    assert opened.config.agent.net_arch == (12, 12)


def test_a_run_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call, calls = Evaluator.__call__, []

    def interrupted(self: Evaluator, agent: Any) -> Any:
        calls.append(agent)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return call(self, agent)

    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "__call__", interrupted)
        with pytest.raises(RunStopped, match=f"continue with: sparserl train --resume {tmp_path}"):
            run(resolve("train", WISH), tmp_path / "stopped")
    cut = open_run(tmp_path / "stopped", "last")
    assert cut.result is None
    finished = cut.resume()
    assert (finished.step, finished.which) == (130, "last")
    run(resolve("train", WISH), tmp_path / "whole")
    assert_equal_trees(last_state(tmp_path / "whole"), last_state(tmp_path / "stopped"))
    assert_equal_trees(logs(tmp_path / "whole"), logs(tmp_path / "stopped"))
    with pytest.raises(ConfigError, match="is finished; there is nothing to resume"):
        finished.resume()


def test_a_run_that_fails_raises_and_keeps_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DSTD3, "learn", lambda *args, **options: 1 / 0)
    with pytest.raises(RunFailed, match="the run failed \\(ZeroDivisionError"):
        run(resolve("train", WISH), str(tmp_path / "run"))
    assert (tmp_path / "run" / "config.yaml").exists()


def test_a_run_that_is_refused_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exists; choose another"):
        run(resolve("train", WISH), tmp_path)
    config = resolve("train", {**WISH, "env": "Tiny-v1"})
    with pytest.raises(SparserlError, match="Tiny-v1"):
        run(config, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_an_agent_is_opened_and_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(resolve("train", WISH), tmp_path / "run")
    opened: Any = open_run(str(tmp_path / "run"))
    assert isinstance(opened.agent, DSTD3)
    found = opened.evaluate(3)
    assert (len(found.returns), len(found.lengths)) == (3, 3)
    capsys.readouterr()
    assert main(["eval", "--run", str(tmp_path / "run"), "--episodes", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["return_mean"] == found.return_mean
    for agent in (DSTD3, DSSAC):
        with pytest.raises(ConfigError, match=r"take sparserl.experiment.open_run\('.*run'\).agent"):
            agent.load(tmp_path / "run")


def test_a_classifier_is_opened_and_evaluated(tmp_path: Path) -> None:
    opened: Any = run(resolve("continual", DIGITS), tmp_path / "run")
    assert opened.result is not None
    assert list(opened.evaluate().values()) == opened.result["matrix"][-1]
    assert opened.learner.sequence.scenario == "class"
    with pytest.raises(ConfigError, match="no best checkpoint"):
        open_run(tmp_path / "run", "best")


def test_an_agent_on_tasks_is_opened_and_evaluated(tmp_path: Path) -> None:
    tasks = [{"env": "Tiny-v0", "steps": 60, "name": f"task {task}"} for task in range(2)]
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({"name": "tiny", "tasks": tasks}))
    wish = {
        **{"sequence": str(tmp_path / "tiny.yaml"), "method": "finetune", "agent": {**WISH["agent"], "batch_size": 8}},
        "eval": {"episodes": 2},
    }
    opened: Any = run(resolve("continual", wish), tmp_path / "run")
    found = opened.evaluate(2, tasks=[1], seed=0)
    assert [(name, len(episodes)) for name, episodes in found.items()] == [("task 1", 4)]
    assert opened.result is not None
    drawn = [episode.returned for episode in found["task 1"] if episode.stochastic]
    assert sum(drawn) / 2 == pytest.approx(opened.result["returns"][-1][1])


def test_it_is_there_after_import_sparserl_and_imports_no_command_line() -> None:
    assert sparserl.experiment.open_run is open_run
    assert "experiment" in dir(sparserl)
    program = (
        "import sys, sparserl\nassert 'torch' not in sys.modules\nsparserl.experiment.resolve('continual', {})\n"
        "print([name for name in sys.modules if name.startswith(('sparserl.cli', 'sparserl.sweep'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
