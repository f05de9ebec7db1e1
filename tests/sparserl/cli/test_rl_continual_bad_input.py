"""Bad input of `sparserl continual` on environments: one line that names the value, status 2, and nothing is left."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from sparserl.cli import main
from sparserl.envs import make
from sparserl.envs.tasks.meta_world import register_tasks

CHEETAH = ("--sequence", "halfcheetah_forgetting")
CARTPOLE = str(Path(__file__).parents[3] / "configs" / "sequences" / "cartpole_small.yaml")
CASES = {
    "sequence": (("--sequence", "halfcheeta_forgetting"), "did you mean 'halfcheetah_forgetting'"),
    "no file": (("--sequence", "nowhere.yaml"), "cannot read nowhere.yaml"),
    "method": ((*CHEETAH, "--method", "packnett"), "did you mean 'packnet'"),
    "method of classifiers": (
        (*CHEETAH, "--method", "lwf"),
        "lwf teaches the probabilities of classes",
    ),
    "algorithm": ((*CHEETAH, "--algo", "ds_sacc"), "did you mean 'ds_sac'"),
    "dense algorithm": ((*CHEETAH, "--algo", "td3"), "td3 has no output layers for tasks; use ds_td3"),
    "too many tasks": ((*CHEETAH, "--tasks", "9"), "has 1 to 8 tasks, got 9"),
    "too short": (
        (*CHEETAH, "--steps-per-task", "3000"),
        "task 0 (hugefoot) ends after 3000 steps, before learning starts: agent.learning-starts is 5000",
    ),
    "no steps": ((*CHEETAH, "--steps-per-task", "0"), "--steps-per-task must be at least 1, got 0"),
    "another method's option": ((*CHEETAH, "--method", "ewc", "--packnet.retrain-updates=1"), "an option of packnet"),
    "negative strength": ((*CHEETAH, "--method", "l2", "--l2.strength", "-1"), "l2.strength must not be negative"),
    "border": ((*CHEETAH, "--border.buffer", "drop"), "unknown --border.buffer 'drop'"),
    "replay without a buffer": (
        (*CHEETAH, "--method", "replay", "--border.buffer", "emptied"),
        "use --border.buffer kept",
    ),
    "replay in a small buffer": (
        (*CHEETAH, "--method", "replay", "--agent.buffer-size", "1000"),
        "replay keeps all 200000 transitions, and agent.buffer-size is 1000",
    ),
    "capacity": ((*CHEETAH, "--method", "spacenet", "--spacenet.capacity", "0.9"), "task 3 of 4 needs 14746"),
    "no capacity": ((*CHEETAH, "--method", "spacenet", "--spacenet.capacity", "0"), "must be in (0, 1], got 0"),
    "updates of the actor": (
        (*CHEETAH, "--steps-per-task", "6000", "--agent.policy-delay", "4001"),
        "agent.policy_delay 4001 lies beyond the run of 4,000 gradient updates; give at most 4000",
    ),
    "rewiring": (
        (*CHEETAH, "--steps-per-task", "6000", "--topology.first-update", "4001"),
        "topology.first_update 4001 lies beyond the run of 4,000 gradient updates",
    ),
    "shared head": ((*CHEETAH, "--method", "packnet", "--border.heads", "shared"), "use --border.heads task"),
    "pruning": ((*CHEETAH, "--method", "packnet", "--topology.method", "gmp"), "which cannot be stopped"),
    "running statistics": (
        (*CHEETAH, "--wrappers.normalize-observations", "running"),
        "it would change from task to task",
    ),
    "several steps": ((*CHEETAH, "--agent.n-steps", "3"), "--agent.n-steps above 1 is for `sparserl train`"),
    "clones of actions": (
        (*CHEETAH, "--method", "clonex", "--algo", "ds_td3"),
        "distribution of actions, and DSTD3 has none: use --algo ds_sac or ds_tqc, or --method replay",
    ),
    "clones of values": (
        ("--sequence", CARTPOLE, "--method", "clonex", "--algo", "ds_dqn"),
        "and DSDQN has none",
    ),
    "exploration without heads": (
        (*CHEETAH, "--border.exploration", "best_return", "--border.heads", "shared"),
        "--border.heads is shared: use --border.heads task, or --border.exploration random",
    ),
    "scratch without exploration": (
        (*CHEETAH, "--method", "scratch", "--border.exploration", "policy"),
        "use --border.exploration random",
    ),
    "pulled and reset": (
        (*CHEETAH, "--method", "mas", "--mas.critics", "--border.critic", "reset"),
        "mas.critics pulls critics back to what they were: use --border.critic kept",
    ),
    "recycling": ((*CHEETAH, "--topology.recycle-interval", "100"), "neurons serve earlier tasks as well"),
    "pairs": ((*CHEETAH, "--topology.pairs", "2"), "neurons to tasks one by one, and those of layer actor.pi.trunk.0"),
    "rewired heads": (
        (*CHEETAH, "--method", "finetune", "--topology.method", "rigl", "--topology.density", "0.02"),
        "use --topology.output-layer dense",
    ),
    "scenario": ((*CHEETAH, "--scenario", "class"), "unknown option '--scenario'"),
    "preset": ((*CHEETAH, "--preset", "cw99"), "unknown preset 'cw99'"),
    "no episodes": ((*CHEETAH, "--eval.episodes", "0"), "--eval.episodes must be at least 1, got 0"),
    "episodes": ((*CHEETAH, "--eval.deterministic-episodes", "-1"), "must not be negative, got -1"),
    "seed": ((*CHEETAH, "--seed", "-1"), "--seed must not be negative, got -1"),
}
FILES = {
    "other actions": (
        [{"env": "HalfCheetah-v5", "steps": 9000}, {"env": "Hopper-v5", "steps": 9000}],
        (),
        "tasks 0 and 1 differ in actions: 6 (HalfCheetah-v5) and 3 (Hopper-v5)",
    ),
    "steps twice": (
        [{"env": "Hopper-v5", "steps": 9000}],
        ("--steps-per-task", "10"),
        "says itself what its tasks are; leave --steps-per-task 10 out",
    ),
    "key": ([{"env": "Hopper-v5", "step": 9000}], (), "did you mean 'steps'"),
    "environment": ([{"env": "Hoper-v5", "steps": 9000}], (), "the closest is 'Hopper-v5'"),
}


def refused(capsys: pytest.CaptureFixture[str], folder: Path, *flags: str) -> str:
    run = folder / "run"
    assert main(["continual", *flags, "--run-dir", str(run), "--no-progress"]) == 2
    assert not run.exists()
    error = capsys.readouterr().err
    assert error.startswith("sparserl: ")
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize("case", CASES)
def test_a_bad_word_is_named(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags, message = CASES[case]
    assert message in refused(capsys, tmp_path, *flags)


@pytest.mark.parametrize("case", FILES)
def test_so_is_a_bad_sequence(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks, flags, message = FILES[case]
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({"tasks": tasks}))
    assert message in refused(capsys, tmp_path, "--sequence", str(path), *flags)


def test_a_missing_extra_is_named_with_the_command_that_brings_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "metaworld", None)
    monkeypatch.setitem(make._EXTRAS, "Meta-World", register_tasks.__wrapped__)  # not what it remembers
    assert "pip install 'metaworld<4,>=3.1.1'" in refused(capsys, tmp_path, "--sequence", "cw10", "--tasks", "1")


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["continual", "--resume", str(tmp_path)]) == 2
    assert "config.yaml" in capsys.readouterr().err
