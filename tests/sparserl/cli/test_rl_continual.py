"""`sparserl continual` on environments: what a run leaves, that it repeats, and goes on where it was cut off.

Longer than other files, because all tests look at one run of each kind.
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import gymnasium as gym
import numpy as np
import pytest
import yaml
from safetensors import safe_open
from support.envs import FunctionEnv
from support.killed import Killed
from support.runs import fingerprint, last_state, leave_undrawn, logs, rows, same_run

from sparserl.cli import main
from sparserl.cli.evaluate import EvalCommand, _of_sequence
from sparserl.cli.running import read
from sparserl.continual.rl.evaluation import Episode
from sparserl.continual.rl.recorder import LOGS, RLSequenceRecorder
from sparserl.continual.strategies import STRATEGIES, methods_of
from sparserl.continual.supervised.runner import run_sequence
from sparserl.envs import RL_SEQUENCES
from sparserl.experiment.presets import rl_continual_presets
from sparserl.experiment.rl_continual_config import choose

STEPS = 45
TASKS = {
    "name": "tiny",
    "tasks": [
        {"env": "Tiny-v0", "steps": STEPS, "name": "plain"},
        {"env": "Tiny-v0", "steps": STEPS, "name": "mirrored", "modification": {"invert_actions": True}},
        {"env": "Tiny-v0", "steps": STEPS, "name": "plain"},
    ],
}
SHORT = (
    *("--agent.learning-starts", "15", "--agent.batch-size", "8", "--agent.buffer-size", "200", "--no-progress"),
    *("--agent.net-arch", "12", "12", "--eval.every-steps", "30", "--eval.episodes", "2", "--log-every-steps", "10"),
    *("--checkpoint-every-steps", "20", "--topology.density", "0.5", "--topology.update-interval", "10"),
)
REWIRED = ("--topology.method", "ds_sac")
OWN = {
    "spacenet": ("--spacenet.rewire-interval", "7"),
    "packnet": ("--packnet.retrain-updates", "9"),
    "l2": REWIRED,
    "ewc": ("--ewc.critics", "--ewc.samples", "20", *REWIRED),
    "online_ewc": ("--online-ewc.samples", "20", *REWIRED),
    "si": REWIRED,
    "mas": REWIRED,
    "agem": ("--agem.transitions-per-task", "20", *REWIRED),
}
CUT_OFF = ("finetune", "spacenet", "replay", "ewc", "scratch")
"""Methods that keep something else each; that each method goes on exactly is a contract of `test_strategies`."""
EVALUATIONS = 1 + 3 * 2  # before, in each task, at its end
EPISODES = 3
PROMISED = {
    *("sequence", "algo", "method", "seed", "tasks", "task_names", "returns", "successes", "baseline", "acc", "bwt"),
    *("forgetting_final", "params_nonzero_per_task", "params_dense", "connections_frozen", "connections_free"),
    *("memory", "steps", "wall_s"),
}


@pytest.fixture(scope="module", autouse=True)
def tiny() -> Iterator[None]:
    gym.register("Tiny-v0", entry_point=lambda: FunctionEnv(horizon=17))
    yield
    gym.registry.pop("Tiny-v0")


@pytest.fixture(scope="module")
def sequence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sequence") / "tiny.yaml"
    path.write_text(yaml.safe_dump(TASKS))
    return path


@pytest.fixture(scope="module")
def finished(sequence: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of every method that nothing stopped, of which that of finetune is drawn; not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    for method in methods_of("agent"):
        with pytest.MonkeyPatch.context() as patch:
            if method != "finetune":
                leave_undrawn(patch)
            assert learn(folder / method, sequence, method) == 0
    return {path.name: path for path in folder.iterdir()}


def words(folder: Path, sequence: Path, method: str, *flags: str) -> list[str]:
    run = ("--sequence", str(sequence), "--method", method, "--run-dir", str(folder))
    return ["continual", *run, *SHORT, *OWN.get(method, ()), *flags]


def learn(folder: Path, sequence: Path, method: str, *flags: str) -> int:
    return main(words(folder, sequence, method, *flags))


def cut_off(folder: Path, sequence: Path, method: str, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that dies in a gradient update."""
    from sparserl.agents import DSSAC

    original, count = DSSAC.train, [0]

    def train(self: Any, *args: Any, **kwargs: Any) -> None:
        count[0] += 1
        if count[0] == at:
            raise Killed
        original(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(DSSAC, "train", train)
        with pytest.raises(Killed):
            learn(folder, sequence, method)


# What a run leaves.


@pytest.mark.parametrize("method", methods_of("agent"))
def test_a_run_leaves_what_the_readme_says(finished: dict[str, Path], method: str) -> None:
    run = finished[method]
    result = json.loads((run / "result.json").read_text())
    assert set(result) >= PROMISED
    assert (result["method"], result["algo"], result["steps"]) == (method, "ds_sac", 3 * STEPS)
    assert result["task_names"] == ["plain", "mirrored", "plain"]
    assert np.shape(result["returns"]) == (3, 3)
    assert (run / "DONE").exists()
    assert (run / "plot.png").exists()
    assert method != "finetune" or (run / "plot.png").stat().st_size > 10_000
    assert list((run / "replay").iterdir()) == []
    assert {path.stem for path in run.glob("*.csv")} == set(LOGS)
    assert yaml.safe_load((run / "sequence.yaml").read_text())["tasks"][1]["steps"] == STEPS


def test_all_tasks_are_evaluated_before_during_and_after_each(finished: dict[str, Path]) -> None:
    found = rows(finished["finetune"] / "eval.csv")
    assert len(found) == EVALUATIONS * 3 * EPISODES
    when = list(dict.fromkeys((int(row["global_step"]), int(row["training_task"])) for row in found))
    # Every 30 steps, and once at a border.
    assert when == [(0, -1), (30, 0), (45, 0), (60, 1), (90, 1), (120, 2), (135, 2)]
    first = [row for row in found if (row["global_step"], row["task"]) == ("0", "1")]
    assert [(row["stochastic"], row["episode"], row["length"]) for row in first] == [
        *[("1", str(episode), "17") for episode in range(2)],
        ("0", "0", "17"),
    ]
    assert {row["success"] for row in found} == {""}
    random = rows(finished["finetune"] / "random.csv")
    assert [(row["task"], row["stochastic"]) for row in random] == [(task, "1") for task in "001122"]


def test_the_result_is_what_the_logs_say(finished: dict[str, Path]) -> None:
    run = finished["ewc"]
    result, found = json.loads((run / "result.json").read_text()), rows(run / "eval.csv")
    for after, border in enumerate((45, 90, 135)):
        for task in range(3):
            own = [
                float(row["return"])
                for row in found
                if (row["global_step"], row["task"], row["stochastic"]) == (str(border), str(task), "1")
            ]
            assert result["returns"][after][task] == pytest.approx(np.mean(own))
    assert result["acc"] == pytest.approx(np.mean(result["returns"][-1]))


@pytest.mark.parametrize("method", ["packnet", "spacenet", "scratch"])
def test_what_a_task_answers_does_not_change_once_it_is_learned(finished: dict[str, Path], method: str) -> None:
    """Also with exploration: evaluations draw the same numbers each time."""
    for row in rows(finished[method] / "eval.csv"):
        task = int(row["task"])
        if int(row["training_task"]) < task or (int(row["training_task"]) == task and int(row["global_step"]) % STEPS):
            continue
        key = (row["task"], row["stochastic"], row["episode"])
        reference = next(
            other
            for other in rows(finished[method] / "eval.csv")
            if int(other["global_step"]) == STEPS * (task + 1)
            and (other["task"], other["stochastic"], other["episode"]) == key
        )
        assert row["return"] == reference["return"], (method, row)


def test_connections_are_counted_by_owner(finished: dict[str, Path]) -> None:
    found = rows(finished["spacenet"] / "connections.csv")
    layers = list(dict.fromkeys(row["layer"] for row in found))
    assert layers[:3] == ["actor.pi.trunk.0", "actor.pi.trunk.1", "actor.pi.heads"]
    last = [row for row in found if (row["after_task"], row["layer"]) == ("2", "actor.pi.trunk.1")]
    assert [row["owner"] for row in last] == ["0", "1", "2"]
    counts = {int(row["connections"]) for row in last}
    assert len(counts) == 1  # the same for each task
    assert {int(row["frozen"]) for row in last} == {3 * counts.pop()}
    shared = {row["owner"] for row in found if row["layer"] == "critic.qf0.trunk.0"}
    assert shared == {"shared"}


@pytest.mark.usefixtures("undrawn")
def test_it_repeats_and_its_config_repeats_it(finished: dict[str, Path], tmp_path: Path) -> None:
    again = tmp_path / "again"
    run = finished["spacenet"]
    assert main(["continual", "--config", str(run / "config.yaml"), "--run-dir", str(again), "--no-progress"]) == 0
    same_run(run, again)


@pytest.mark.usefixtures("undrawn")
def test_another_seed_is_another_run(finished: dict[str, Path], sequence: Path, tmp_path: Path) -> None:
    assert learn(tmp_path / "other", sequence, "finetune", "--seed", "1") == 0
    assert logs(tmp_path / "other")["eval"] != logs(finished["finetune"])["eval"]


# Going on.


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("method", CUT_OFF)
def test_a_run_that_was_cut_off_ends_like_one_that_was_not(
    method: str, finished: dict[str, Path], sequence: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    cut_off(run, sequence, method, 50, monkeypatch)
    assert not (run / "DONE").exists()
    assert main(["continual", "--resume", str(run), "--no-progress"]) == 0
    same_run(finished[method], run)


def stopped_at(patch: pytest.MonkeyPatch, *updates: int) -> list[int]:
    """Runs are asked to stop after some updates, counted over all of them; gives how many there were."""
    from sparserl.agents import DSSAC

    original, count = DSSAC.train, [0]

    def train(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        count[0] += 1
        if count[0] in updates:
            os.kill(os.getpid(), signal.SIGTERM)

    patch.setattr(DSSAC, "train", train)
    return count


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("at", [29, 33, 39])
def test_so_does_one_that_was_stopped_anywhere(
    at: int, finished: dict[str, Path], sequence: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In PackNet's first task 30 updates train and 9 retrain."""
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        stopped_at(patch, at)
        assert learn(run, sequence, "packnet") == 130
    assert main(["continual", "--resume", str(run), "--no-progress"]) == 0
    same_run(finished["packnet"], run)


@pytest.mark.usefixtures("undrawn")
def test_what_is_learned_between_two_env_steps_is_saved_each_time(
    finished: dict[str, Path], sequence: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In PackNet's first task 30 updates train and 9 retrain."""
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        count = stopped_at(patch, 33, 36)
        assert learn(run, sequence, "packnet") == 130
        assert main(["continual", "--resume", str(run), "--no-progress"]) == 130
        assert last_state(run)["counters"]["_n_updates"] == 36
        assert main(["continual", "--resume", str(run), "--no-progress"]) == 0
    assert count[0] == last_state(finished["packnet"])["counters"]["_n_updates"]
    same_run(finished["packnet"], run)


@pytest.mark.usefixtures("undrawn")
def test_an_environment_without_a_state_goes_on_in_the_right_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Nobody has said which attributes of this wrapper are its state.
    gym.register("Stateless-v0", entry_point=lambda: gym.wrappers.TransformReward(FunctionEnv(horizon=17), abs))
    tasks = [{"env": "Stateless-v0", "steps": STEPS}] * 3
    sequence = tmp_path / "stateless.yaml"
    sequence.write_text(yaml.safe_dump({"tasks": tasks}))
    run = tmp_path / "run"
    cut_off(run, sequence, "finetune", 50, monkeypatch)
    assert main(["continual", "--resume", str(run), "--no-progress"]) == 0
    assert "cannot give its state" in capsys.readouterr().out
    assert rows(run / "eval.csv")[-1]["global_step"] == str(3 * STEPS)
    ended = tmp_path / "ended"
    with monkeypatch.context() as patch:  # all tasks are learned, and the run is not done
        patch.setattr(RLSequenceRecorder, "result", Mock(side_effect=Killed))
        with pytest.raises(Killed):
            learn(ended, sequence, "finetune")
    assert main(["continual", "--resume", str(ended), "--no-progress"]) == 0
    assert rows(ended / "eval.csv")[-1]["global_step"] == str(3 * STEPS)
    gym.registry.pop("Stateless-v0")


def test_a_finished_run_is_not_resumed(finished: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    before = fingerprint(finished["mas"])
    assert main(["continual", "--resume", str(finished["mas"])]) == 2
    assert "is finished" in capsys.readouterr().err
    assert fingerprint(finished["mas"]) == before


# Other commands.


def test_runs_are_drawn_and_reported(
    finished: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [str(finished[method]) for method in ("finetune", "packnet", "scratch")]
    assert main(["plot", runs[0], "--out", str(tmp_path / "one.png")]) == 0
    assert main(["plot", *runs, "--out", str(tmp_path / "all.png")]) == 0
    assert min(path.stat().st_size for path in tmp_path.glob("*.png")) > 10_000
    capsys.readouterr()
    assert main(["report", *runs, "--json", str(tmp_path / "report.json")]) == 0
    printed = capsys.readouterr().out
    assert all(method in printed for method in ("finetune", "packnet", "scratch"))
    assert json.loads((tmp_path / "report.json").read_text())


@pytest.mark.parametrize("method", methods_of("agent"))
def test_eval_repeats_the_last_evaluation_of_training(
    finished: dict[str, Path], method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", "--run", str(finished[method]), "--episodes", "2", "--seed", "0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["checkpoint"], found["global_step"]) == ("last", 3 * STEPS)
    assert [(own["task"], own["name"]) for own in found["tasks"]] == [(0, "plain"), (1, "mirrored"), (2, "plain")]
    result = json.loads((finished[method] / "result.json").read_text())
    assert [own["stochastic"]["return_mean"] for own in found["tasks"]] == pytest.approx(result["returns"][-1])
    for kind in ("stochastic", "deterministic"):
        assert {(own[kind]["ep_len_mean"], own[kind]["success"]) for own in found["tasks"]} == {(17.0, None)}


def test_eval_shows_success_where_every_episode_says_it() -> None:
    """In JSON it stays for the tasks that say it."""

    def trained(*signals: bool) -> Any:
        def evaluate(episodes: int, *, tasks: list[int], **_: Any) -> dict[str, list[Episode]]:
            flag = True if signals[tasks[0]] else None
            return {"a": [Episode(tasks[0], drawn, 0, 1.0, 9, flag, flag) for drawn in (True, False)]}

        return SimpleNamespace(title="", which="last", evaluate=evaluate)

    command = EvalCommand((Path("run"),))
    for signals, n_columns in (((True, True), 7), ((True, False), 3), ((False, True), 3)):
        found, table = _of_sequence(trained(*signals), [0, 1], command)
        assert len(table.columns) == n_columns
        assert [own["stochastic"]["success"] for own in found["tasks"]] == [1.0 if one else None for one in signals]


def test_eval_prints_the_tasks_that_are_asked_for(
    finished: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    tables = []
    for flags in ((), ("--task", "1")):
        assert main(["eval", "--run", str(finished["ewc"]), "--episodes", "1", *flags]) == 0
        tables.append(capsys.readouterr().out)
    both = ["1: mirrored" in table for table in tables]
    assert (both, ["0: plain" in table for table in tables]) == ([True, True], [True, False])


def exported(run: Path, out: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> dict[str, Any]:
    """What the exported file says of itself, its connections, and how far it is from the agent."""
    assert main(["export", "--run", str(run), "--out", str(out), *flags]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    difference = re.search(r"(\d\.\de[+-]\d\d) at most", printed)
    assert difference is not None
    with safe_open(out, framework="np") as file:
        connections = sum(file.get_tensor(name).size for name in file.keys() if name.endswith("values"))  # noqa: SIM118  # no dict
        return {**file.metadata(), "connections": connections, "difference": float(difference[1])}


@pytest.mark.parametrize("method", ["finetune", "packnet", "spacenet", "scratch"])
def test_the_policy_of_each_task_is_exported(
    finished: dict[str, Path], method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policies = [
        exported(finished[method], tmp_path / f"{task}.safetensors", capsys, "--task", str(task)) for task in range(3)
    ]
    assert [own["environment"] for own in policies] == ["Tiny-v0, plain", "Tiny-v0, mirrored", "Tiny-v0, plain"]
    assert max(own["difference"] for own in policies) < 1e-5
    counts = [own["connections"] for own in policies]
    if method in ("packnet", "spacenet"):  # earlier tasks do without the connections of later ones
        assert counts[0] < counts[1] < counts[2]


@pytest.mark.usefixtures("undrawn")
def test_an_exported_policy_that_reads_the_task_says_so(
    sequence: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert learn(tmp_path / "run", sequence, "finetune", "--border.task-id", "visible") == 0
    own = exported(tmp_path / "run", tmp_path / "policy.safetensors", capsys, "--task", "2")
    assert own["observations"] == "as they are, then a one-hot task id of 3"
    assert own["difference"] < 1e-5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("export --run {run}", "--task must say which: 0 (plain), 1 (mirrored), 2 (plain)"),
        ("eval --run {run} --task 3", "there is no --task 3; tasks are 0 (plain), 1 (mirrored), 2 (plain)"),
        ("enjoy --run {run} --checkpoint best", "has no best checkpoint; use --checkpoint last"),
        ("eval --run {classifier}", "is a run of a classifier, which has no policy"),
    ],
)
def test_what_a_sequence_has_no_policy_for_is_one_line(
    words: str, message: str, finished: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text("sequence: split_mnist\nmethod: ewc\n")
    assert main(words.format(run=finished["ewc"], classifier=tmp_path).split()) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_everything_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    for what, names in (("sequences", RL_SEQUENCES), ("methods", methods_of("agent"))):
        assert main(["list", what]) == 0
        printed = capsys.readouterr().out.split()
        assert set(names) <= set(printed)


# What a command line resolves to.


def test_presets_flags_and_method_add_up(tmp_path: Path) -> None:
    given = ("--sequence", "halfcheetah_forgetting", "--method", "replay", "--agent.batch-size", "7")
    request = read("continual", given)
    assert request.preset == "default"
    run = request.config
    assert (run.agent.batch_size, run.agent.learning_starts, run.steps_per_task) == (7, 5_000, 50_000)
    assert (run.border.buffer, run.border.optimizer, run.topology.method) == ("kept", "reset", "ds_sac")
    assert "packnet" not in run.plain()
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump({"border": {"buffer": "emptied"}, "agent": {"batch_size": 9}}))
    from_file = read("continual", (*given[:4], "--config", str(file))).config
    assert (from_file.agent.batch_size, from_file.border.buffer) == (9, "emptied")


@pytest.mark.parametrize(("method", "buffer"), [("finetune", "emptied"), ("finetune", "kept"), ("packnet", "emptied")])
def test_the_topology_knows_how_many_updates_the_run_has(tmp_path: Path, method: str, buffer: str) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TASKS))
    words = ("--sequence", str(tmp_path / "tiny.yaml"), "--method", method, *SHORT, *OWN.get(method, ()), *REWIRED)
    config = read("continual", (*words, "--border.buffer", buffer)).config
    learner = config.make_learner(config.load_sequence())
    for _ in run_sequence(learner):
        pass
    assert learner.agent.topology == config.topology.for_run(learner.agent._n_updates)


@pytest.mark.parametrize("method", methods_of("agent"))
def test_methods_that_hold_weights_keep_the_topology_unless_told_otherwise(method: str) -> None:
    held = STRATEGIES[method].defaults.get("topology") == {"method": "static"}
    assert held or method not in ("l2", "ewc", "mas", "agem")
    given = ("--sequence", "halfcheetah_forgetting", "--method", method)
    usual = read("continual", given).config
    assert usual.topology.method == ("static" if held else "ds_sac")
    assert read("continual", (*given, "--algo", "ds_td3")).config.topology.method == ("static" if held else "ds_td3")
    assert read("continual", (*given, *REWIRED)).config.topology.method == "ds_sac"


@pytest.mark.usefixtures("undrawn")
def test_ds_td3_has_its_own_hyperparameters(sequence: Path, tmp_path: Path) -> None:
    assert learn(tmp_path / "td3", sequence, "spacenet", "--algo", "ds_td3") == 0
    config = yaml.safe_load((tmp_path / "td3" / "config.yaml").read_text())
    assert config["agent"]["policy_delay"] == 2
    assert config["topology"]["method"] == "ds_td3"


@pytest.mark.parametrize("name", rl_continual_presets())
def test_every_preset_resolves(name: str) -> None:
    choice = choose({}, name)
    assert choice.preset == name
    config = choice.resolve({})
    if name != "default":
        assert read("continual", ("--preset", name)).config == config
        assert read("continual", ("--sequence", name)).config == config
