"""`eval`, `enjoy`, `plot` and `list` on a short run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sparserl.agents.table import AGENTS
from sparserl.cli import enjoy
from sparserl.cli.main import COMMANDS, main
from sparserl.experiment import open_run, resolve
from sparserl.experiment.train_config import TrainConfig
from sparserl.topology.methods import METHODS

TINY = "--env Hopper-v5 --total-steps 120 --agent.learning-starts 40 --agent.net-arch 8 8 --no-progress"
EVALUATE = "--eval.every-steps 60 --eval.episodes 2 --checkpoint-every-steps 50"
SPARSE = "--topology.update-interval 20 --topology.density 0.5 --topology-snapshots 3"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", *TINY.split(), *EVALUATE.split(), *SPARSE.split(), "--run-dir", str(path)]) == 0
    return path


def test_eval_repeats_and_differs_by_seed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = []
    for seed in ("3", "3", "4"):
        assert main(["eval", "--run", str(run), "--episodes", "3", "--json", "--seed", seed]) == 0
        results.append(json.loads(capsys.readouterr().out))
    assert results[0] == results[1] != results[2]
    assert results[0]["episodes"] == 3


def test_eval_takes_the_best_or_the_last_policy(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = {}
    for which in ("best", "last"):
        assert main(["eval", "--run", str(run), "--episodes", "1", "--json", "--checkpoint", which]) == 0
        steps[which] = json.loads(capsys.readouterr().out)["global_step"]
    assert steps["last"] == 120  # where the run ended, not its newest full checkpoint
    assert steps["best"] in (0, 60, 120)


def test_eval_repeats_the_evaluation_of_training(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Training evaluates with its own seed + 100; the same policy must score the same again.
    rows = [line.split(",") for line in (run / "eval.csv").read_text().splitlines()[1:]]
    for which in ("best", "last"):
        words = ["--episodes", "2", "--json", "--seed", "100", "--checkpoint", which]
        assert main(["eval", "--run", str(run), *words]) == 0
        found = json.loads(capsys.readouterr().out)
        returns = [float(row[2]) for row in rows if int(row[0]) == found["global_step"]]
        assert found["return_mean"] == pytest.approx(sum(returns) / len(returns))


def test_every_command_takes_the_last_policy_and_says_so(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in ("eval --episodes 1", f"export --out {tmp_path}/p.safetensors", "inspect --episodes 1"):
        command, *options = words.split()
        assert main([command, "--run", str(run), *options]) == 0
        assert "last checkpoint (step 120)" in " ".join(capsys.readouterr().out.split())
    assert main(["eval", "--run", str(run), "--episodes", "1"]) == 0
    assert "--checkpoint best" in capsys.readouterr().out
    assert main(["eval", "--run", str(run), "--episodes", "1", "--checkpoint", "best"]) == 0
    assert "--checkpoint best" not in capsys.readouterr().out
    assert open_run(run).step == 120
    of_another = resolve("train", {"origin": {"run": str(run)}})
    assert isinstance(of_another, TrainConfig)
    assert of_another.origin.checkpoint == "last"


def test_eval_prints_a_table(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--run", str(run), "--episodes", "2"]) == 0
    printed = capsys.readouterr().out
    assert "return" in printed
    assert "+-" in printed


def test_plot_writes_pictures(run: Path, tmp_path: Path) -> None:
    curves, layer = tmp_path / "curves.png", tmp_path / "layer.png"
    assert main(["plot", str(run), "--out", str(curves)]) == 0
    assert main(["plot", str(run), "--layer", "critic.qf1.1", "--out", str(layer)]) == 0
    topology, moving = tmp_path / "topology.png", tmp_path / "layer.gif"
    assert main(["plot", str(run), "--topology", "--out", str(topology)]) == 0
    assert main(["plot", str(run), "--layer", "critic.qf1.1", "--out", str(moving)]) == 0
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (curves, layer, topology, run / "plot.png"))
    assert moving.read_bytes().startswith(b"GIF")


def test_enjoy_asks_for_frames_and_writes_them(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # No machine of the tests needs a graphics driver: rendering is replaced, encoding is real.
    frame = torch.zeros(16, 16, 3, dtype=torch.uint8).numpy()
    monkeypatch.setattr("gymnasium.envs.mujoco.MujocoEnv.render", lambda self: frame)
    monkeypatch.setattr("gymnasium.envs.mujoco.MujocoRenderer.__init__", lambda *_, **__: None)
    monkeypatch.setattr("gymnasium.envs.mujoco.MujocoRenderer.close", lambda self: None)
    video = tmp_path / "out.gif"
    assert main(["enjoy", "--run", str(run), "--video", str(video), "--max-steps", "5", "--episodes", "2"]) == 0
    assert video.read_bytes().startswith(b"GIF")
    assert capsys.readouterr().out.count("return") == 2
    assert enjoy.EnjoyCommand(run=run).video is None


@pytest.mark.parametrize(("what", "names"), [("algos", AGENTS), ("methods", METHODS), ("presets", ["ds_td3/Ant-v5"])])
def test_list(what: str, names: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", what]) == 0
    first_words = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert set(names) <= set(first_words)


def test_help_of_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    overview = capsys.readouterr().out
    assert all(name in overview for name in COMMANDS)
    for name in COMMANDS:
        try:
            status: object = main([name, "--help"])
        except SystemExit as stop:
            status = stop.code
        assert status in (0, None)
        assert f"sparserl {name}" in capsys.readouterr().out
    assert main(["--version"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("eval --run {run} --episodes 0", "--episodes must be at least 1, got 0"),
        ("eval --run {run} --checkpoint bset", "did you mean 'best'"),
        ("eval --run {run}x", "no run folder at"),
        ("eval --run {here}", "is not a run folder"),
        ("enjoy --run {run} --video out.avi", "must end in .mp4 or .gif, got out.avi"),
        ("enjoy --run {run} --video {here}/no/out.gif", "there is no folder"),
        ("plot {run} {run} --layer critic.qf0.0", "--layer draws one run, got 2"),
        ("plot {run} {run} --topology", "--topology draws one run, got 2"),
        ("plot {run} --topology --layer critic.qf0.0", "--topology and --layer ask for 2 pictures"),
        ("plot {run} --layer critic.qf9.0", "did you mean 'critic.qf"),
        ("plot {run} --lyer x", "unknown option '--lyer'; did you mean '--layer'?"),
        ("plot", "run folder"),
        ("list algoss", "unknown list 'algoss'; did you mean 'algos'?"),
        ("lst algos", "unknown command 'lst'; did you mean 'list'?"),
    ],
)
def test_bad_input_is_one_line(
    words: str, message: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words.format(run=run, here=tmp_path).split()) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
