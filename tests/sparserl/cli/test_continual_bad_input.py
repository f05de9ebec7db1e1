"""Whatever a user gets wrong in `sparserl continual`: one line that names it, exit status 2, and no folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.idx_files import write_mnist

from sparserl.cli import main
from sparserl.continual.supervised.learner import SupervisedLearner


@pytest.fixture(autouse=True)
def nothing_is_trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is not refused fails at the first step; no data of the machine's user is found."""
    monkeypatch.setattr(SupervisedLearner, "train", lambda self: 1 / 0)
    monkeypatch.setenv("SPARSERL_DATA", str(tmp_path / "nowhere"))


def refusal(capsys: pytest.CaptureFixture[str], folder: Path, *words: str) -> str:
    """The one line that `sparserl continual` prints; checks all that every refusal has in common."""
    before = sorted(folder.rglob("*"))
    capsys.readouterr()
    assert main(["continual", "--run-dir", str(folder / "run"), "--no-progress", *words]) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1, printed.err
    assert printed.err.startswith("sparserl: ")
    assert "Traceback" not in printed.err
    assert printed.out == ""
    assert sorted(folder.rglob("*")) == before
    assert len(printed.err) < 400
    return printed.err.removeprefix("sparserl: ").rstrip("\n")


WRONG: dict[str, tuple[str, ...]] = {
    # flags -> what the line must contain: the bad value, and the closest good name where there is one
    "--sequence split_mnst": ("unknown sequence 'split_mnst'", "'split_mnist'"),
    "--method spacent": ("unknown method 'spacent'", "'spacenet'"),
    "--method ppo": ("unknown method 'ppo'", "naive"),
    "--scenario clas": ("unknown scenario 'clas'", "'class'"),
    "--preset split_mnist_spacent": ("'split_mnist_spacent'", "'split_mnist_spacenet'"),
    "--preset ds_td3/HalfCheetah-v5": ("unknown preset",),
    "--method naive --topology.method set --topology.first-update 10000000": (
        "topology.first_update 10000000",
        "beyond the run of",
    ),
    "--class-order shuffled": ("'shuffled'", "random"),
    "--tasks 3": ("10 classes cannot be split into 3 tasks", "1, 2, 5, 10"),
    "--tasks 0": ("--tasks must be at least 1, got 0",),
    "--tasks many": ("--tasks", "'many'"),
    "--sequence permuted_mnist --tasks 0": ("at least 1, got 0",),
    "--sequence permuted_mnist --class-order random": ("class order 'random' has no meaning",),
    "--method ewc --replay.samples 5": ("--replay.samples", "replay", "ewc does not use it"),
    "--method naive --spacenet.connections 5": ("--spacenet.connections", "spacenet, static_sparse"),
    "--method packnet --no-spacenet.rewire": ("'--no-spacenet.rewire'",),
    "--method static_sparse --spacenet.rewire": ("static_sparse", "spacenet.rewire False", "--method spacenet"),
    "--method packnet": ("told the task", "--scenario task", "class"),
    "--method wsn": ("told the task", "--scenario task", "class"),
    "--method wsn --scenario task --wsn.pool 0": ("wsn.pool", "(0, 1]", "got 0"),
    "--method wsn --scenario task --topology.density 0.5": ("wsn.pool", "leave --topology.method static", "0.5"),
    "--method nispa --scenario domain": ("tasks share them", "--scenario task or class, not domain"),
    "--method nispa --learner.epochs 3": ("nispa.phase-epochs 2", "learner.epochs 4"),
    "--method nispa --nispa.growth stable": ("nispa.growth", "'stable'"),
    "--method afaf --afaf.reused-layers 2": ("afaf.reused-layers 2", "hidden layers, 2: use 1"),
    "--method afaf --afaf.allocated-last 0.5": ("task 3 of 5", "room for 0", "lower afaf.fixed"),
    "--method afaf --afaf.candidates mots": ("afaf.candidates", "'mots'"),
    "--seed -1": ("--seed", "-1"),
    "--threads 0": ("--threads", "0"),
    "--log-every-steps 0": ("--log-every-steps", "0"),
    "--checkpoint-every-steps 0": ("--checkpoint-every-steps", "0"),
    "--learner.epochs 0": ("learner.epochs", "0"),
    "--learner.hidden 0": ("learner.hidden", "0"),
    "--learner.learning-rate 0": ("learner.learning-rate", "0"),
    "--learner.density 2": ("topology.density", "2"),
    "--learner.density 0.5": ("spacenet.connections", "leave --topology.method static", "density 0.5"),
    "--topology.density 2": ("topology.density", "2"),
    "--topology.method sett": ("'sett'", "'set'"),
    "--method naive --topology.method set --topology.density 1": ("--topology.method set", "all exist"),
    "--method packnet --scenario task --topology.method rigl": ("--topology.method static, not rigl",),
    "--method naive --topology.recycle-interval 5": ("--topology.recycle-interval", "earlier tasks"),
    "--learner.optimizer adm": ("'adm'", "adam"),
    "--learner.epoch 3": ("'--learner.epoch'", "'--learner.epochs'"),
    "--spacenet.drop-fraction 1": ("spacenet.drop-fraction", "1.0"),
    "--spacenet.reserved 30 30": ("task 4 of 5", "room for", "needs"),
    "--spacenet.connections 500 120": ("got 2, 2 and 2",),
    "--spacenet.selected 20 101": ("spacenet.selected 101", "100 neurons of hidden layer 1"),
    "--method naive --topology.method dense --topology.density 0.2": ("--topology.density 0.2", "static"),
    "--learner.hidden 100": ("spacenet.connections is for 2 hidden layer(s), learner.hidden has 1",),
    "--config nowhere.yaml": ("nowhere.yaml", "No such file"),
    "--sequence split_mnist": ("no train-images-idx3-ubyte.gz in", "nowhere/mnist", "--download"),
    "--sequence split_mnist --data-dir no/such": ("no/such/mnist",),
    "surprise": ("'surprise'",),
    "--resume {here} --seed 3": ("--resume continues the run as it was configured and takes no --run-dir",),
}


@pytest.mark.parametrize("flags", WRONG)
def test_a_wrong_flag(flags: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(capsys, tmp_path, *flags.format(here=tmp_path).split())
    for part in WRONG[flags]:
        assert part in line, line
    assert "run." not in line


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("sequences: split_digits", ("'sequences'", "'sequence'")),
        ("learner: {epoch: 3}", ("'learner.epoch'", "'learner.epochs'")),
        ("learner: 3", ("learner", "3")),
        ("method: spacent", ("'spacent'", "'spacenet'")),
        ("method: [spacenet]", ("unknown method",)),
        ("method: naive\nspacenet: {rewire: false}", ("--spacenet.rewire", "naive does not use it")),
        ("method: static_sparse\nspacenet: {rewire: true}", ("static_sparse", "spacenet.rewire False")),
        ("spacenet: {connection: [1]}", ("'spacenet.connection'", "'spacenet.connections'")),
        ("tasks: soon", ("tasks", "'soon'")),
        ("algo: ds_td3", ("'algo'",)),
    ],
)
def test_a_wrong_config_file(
    content: str, parts: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.yaml").write_text(content + "\n")
    line = refusal(capsys, tmp_path, "--config", str(tmp_path / "c.yaml"))
    for part in parts:
        assert part in line, line


def test_data_that_is_not_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "data" / "mnist"
    words = ["--sequence", "split_mnist", "--method", "naive", "--data-dir", str(tmp_path / "data")]
    write_mnist(folder, train=[*range(9)], test=[*range(10)])
    assert refusal(capsys, tmp_path, *words) == "class 9 of mnist has no training samples"
    write_mnist(folder, train=[*range(10)], test=[*range(10)])
    file = folder / "train-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-20])
    assert str(file) in refusal(capsys, tmp_path, *words)
    file.unlink()
    (folder / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03 too short")
    assert str(folder / "train-images-idx3-ubyte") in refusal(capsys, tmp_path, *words)


def test_a_run_folder_that_exists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    line = refusal(capsys, tmp_path)
    assert f"{tmp_path / 'run'} exists; choose another --run-dir, or continue it with --resume" in line


def test_a_tracker_that_does_not_start_leaves_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    def refuse(**kwargs: object) -> None:
        assert kwargs["job_type"] == "continual"
        raise wandb.errors.UsageError("No API key configured.")

    monkeypatch.setattr(wandb, "init", refuse)
    assert main(["continual", "--run-dir", str(tmp_path / "run"), "--no-progress", "--track"]) == 2
    assert "No API key configured.); try --wandb.mode offline" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
