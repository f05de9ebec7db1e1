"""Whatever a user gets wrong on the command line: one line that names it, exit status 2, and no folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import pytest
from gymnasium import spaces
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from support.envs import FunctionEnv, SpacesOnly

from sparserl.cli import main

BOX = spaces.Box(-1.0, 1.0, (3,))
ENVS = {
    "Tiny-v0": lambda: FunctionEnv(),
    "DictObs-v0": lambda: SpacesOnly(spaces.Dict({"a": BOX, "b": spaces.Box(0, 255, (4, 4, 3))})),
    "DiscreteObs-v0": lambda: SpacesOnly(spaces.Discrete(4)),
    "ImageObs-v0": lambda: SpacesOnly(spaces.Box(0, 255, (4, 4, 3))),
    "Unbounded-v0": lambda: SpacesOnly(BOX, spaces.Box(-float("inf"), float("inf"), (2,))),
}


@pytest.fixture(autouse=True)
def envs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Registers the environments above; what is not refused fails at once instead of training for hours."""
    monkeypatch.setattr(OffPolicyAlgorithm, "learn", lambda *args, **kwargs: 1 / 0)
    for name, creator in ENVS.items():
        gym.register(name, entry_point=creator)
    yield
    for name in ENVS:
        gym.registry.pop(name)


def refusal(capsys: pytest.CaptureFixture[str], folder: Path, *words: str) -> str:
    """The one line that `sparserl` prints; checks everything else that every refusal has in common."""
    before = sorted(folder.rglob("*"))
    capsys.readouterr()
    assert main(list(words)) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1, printed.err
    assert printed.err.startswith("sparserl: ")
    assert printed.err.strip() == printed.err.rstrip("\n")
    assert "Traceback" not in printed.err
    assert printed.out == ""
    assert sorted(folder.rglob("*")) == before
    return printed.err.removeprefix("sparserl: ").rstrip("\n")


WRONG: dict[str, tuple[str, ...]] = {
    # flags -> what the line must contain: the bad value, and the closest good name where there is one
    "--env HalfCheeta-v5": ("'HalfCheeta-v5'", "'HalfCheetah-v5'"),
    "--env HalfCheetah": ("'HalfCheetah'", "'HalfCheetah-v5'"),
    "--env HalfCheetah-v3": ("'HalfCheetah-v3'", "'HalfCheetah-v5'"),
    "--env no_such_module:Thing-v0": ("no_such_module",),
    "--env CartPole-v1": ("CartPole-v1", "Discrete action space", "Box"),
    "--env FrozenLake-v1": ("FrozenLake-v1", "Discrete action space"),
    "--env DictObs-v0": ("DictObs-v0", "Dict observations", "'b'"),
    "--env DiscreteObs-v0": ("DiscreteObs-v0", "Discrete observation space"),
    "--env ImageObs-v0": ("ImageObs-v0", "(4, 4, 3)"),
    "--env Unbounded-v0": ("Unbounded-v0", "unbounded actions"),
    "--algo ds_td4": ("'ds_td4'", "'ds_td3'"),
    "--algo ddpg": ("'ddpg'", "ds_td3", "sac"),
    "--preset ds_td3/HalfCheeta-v5": ("'ds_td3/HalfCheeta-v5'", "'ds_td3/HalfCheetah-v5'"),
    "--total-stepz 5": ("'--total-stepz'", "'--total-steps'"),
    "--agent.gama 0.5": ("'--agent.gama'", "'--agent.gamma'"),
    "--topology.densty=0.5": ("'--topology.densty'", "'--topology.density'"),
    "surprise": ("'surprise'",),
    "--topology.density 0": ("density", "(0, 1]", "0"),
    "--topology.density 1.5": ("density", "(0, 1]", "1.5"),
    "--topology.density -1": ("density", "(0, 1]", "-1"),
    "--topology.density nan": ("density", "(0, 1]", "nan"),
    "--topology.density half": ("--topology.density", "half"),
    "--topology.density 0.5 0.5 0.5": ("2 layers", "got 3"),
    "--topology.epsilon -7 64": ("epsilon", "-7"),
    "--topology.epsilon 7 64 9": ("2 layers", "got 3"),
    "--topology.method sett": ("'sett'", "'set'"),
    "--topology.drop weight_magnitud": ("'weight_magnitud'", "'weight_magnitude'"),
    "--topology.grow gradients": ("'gradients'", "'gradient'"),
    "--topology.drop-fraction 1.0": ("drop_fraction", "1.0"),
    "--topology.update-interval 0": ("update_interval", "0"),
    "--topology.end-fraction 2": ("end_fraction", "2"),
    "--topology.decay cosin": ("decay", "cosin"),
    "--total-steps -5": ("--total-steps", "-5"),
    "--total-steps 0": ("--total-steps", "0"),
    "--total-steps many": ("--total-steps", "'many'"),
    "--eval.every-steps 0": ("--eval.every-steps", "0"),
    "--eval.episodes -1": ("--eval.episodes", "-1"),
    "--log-every-steps 0": ("--log-every-steps", "0"),
    "--checkpoint-every-steps 0": ("--checkpoint-every-steps", "0"),
    "--threads 0": ("--threads", "0"),
    "--seed -1": ("--seed", "-1"),
    "--seed 4294967296": ("--seed", "4294967296"),
    "--agent.learning-rate nan": ("agent.learning_rate", "nan"),
    "--agent.learning-rate 0": ("agent.learning_rate", "0"),
    "--agent.batch-size -1": ("agent.batch_size", "-1"),
    "--agent.gamma 1.5": ("agent.gamma", "1.5"),
    "--agent.net-arch 0": ("agent.net_arch", "0"),
    "--agent.learning-starts 1000": ("1000", "1000", "--agent.learning-starts"),
    "--topology.method dense --topology.density 0.1": ("--topology.density 0.1", "dense", "static"),
    "--topology.method dense --topology.epsilon 7 64": ("--topology.epsilon", "dense", "static"),
    "--algo td3 --topology.method set": ("td3 is dense and takes no topology", "'set'", "ds_td3"),
    "--algo sac --topology.density 0.1": ("sac is dense and takes no topology", "0.1", "ds_sac"),
    "--algo sac --agent.ent-coef warm": ("--agent.ent-coef", "warm"),
    "--algo ds_sac --agent.target-update-interval 0": ("agent.target_update_interval", "0"),
    "--algo td3 --preset sac/published": ("'sac/published'", "sac", "td3"),
    "--wrappers.noise-fraction 1": ("wrappers.noise-fraction", "[0, 1)", "1"),
    "--wrappers.noise-fraction -0.5": ("wrappers.noise-fraction", "[0, 1)", "-0.5"),
    "--wrappers.noise-std 2": ("wrappers.noise-std", "needs wrappers.noise-fraction"),
    "--wrappers.noise-fraction 0.5 --wrappers.noise-histograms nowhere.json": ("nowhere.json",),
    "--wrappers.sensor-dropout 1.5": ("wrappers.sensor-dropout", "1.5"),
    "--wrappers.hidden-features 17": ("no feature 17", "0 to 2"),
    "--wrappers.hide-velocities --wrappers.hidden-features 3": ("hidden-features", "hide-velocities"),
    "--wrappers.permute-every-steps 5": ("wrappers.permute-every-steps", "needs wrappers.permute"),
    "--wrappers.normalize-observations always": ("wrappers.normalize-observations", "always"),
    "--wrappers.normalize-observations frozen": ("normalize-observations frozen", "wrappers.normalization"),
    "--agent.replay redraw_noise": ("redraw_noise", "--wrappers.noise-fraction"),
    "--agent.n-steps 0": ("agent.n_steps", "0"),
    "--agent.dynamic-capacity --agent.forget-minimum 2000000": ("agent.forget_minimum", "2000000", "1000000"),
    "--agent.dynamic-capacity --agent.forget-threshold nan": ("agent.forget_threshold", "nan"),
    "--topology.method gmp --topology.begin-fraction 0.9": ("begin_fraction", "0.9"),
    "--topology.method gmp --topology.end-fraction 1.5": ("end_fraction", "1.5"),
    "--topology.method gmp --topology.last-update 2000000": ("last_update", "2000000"),
    "--topology.method gmp --topology.first-update 2000000": ("topology.first_update", "2000000", "500"),
    "--topology.method set --topology.gradient-batches 4": ("gradient_batches", "4"),
    "--topology.actor-density 1.5": ("density", "(0, 1]", "1.5"),
    "--topology.initial-value spare_fan_in": ("'spare_fan_in'", "'sparse_fan_in'"),
    "--topology.recycle-interval 0": ("recycle_interval", "0"),
    "--topology.recycle-threshold -1": ("recycle_threshold", "-1"),
    "--device cuda": ("'cuda'", "--device cpu"),
    "--device gpu": ("'gpu'", "'cpu'"),
    "--config nowhere.yaml": ("nowhere.yaml", "No such file"),
}


@pytest.mark.parametrize("flags", WRONG)
def test_a_wrong_flag(flags: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = ["train", "--run-dir", str(tmp_path / "run"), "--env", "Tiny-v0", "--total-steps", "1000"]
    line = refusal(capsys, tmp_path, *start, "--agent.learning-starts", "500", "--no-progress", *flags.split())
    for part in WRONG[flags]:
        assert part in line, line
    assert len(line) < 400
    assert "run.topology" not in line


@pytest.mark.parametrize("flags", ["--topology.density 0.5", "--topology.epsilon 7 64", "--topology.drop-fraction 0.1"])
def test_a_dense_agent_with_topology_flags(flags: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--algo", "td3", "--env", "Tiny-v0", "--run-dir", str(tmp_path / "run"), *flags.split()]
    line = refusal(capsys, tmp_path, *words)
    assert "dense" in line
    assert "takes no" in line
    assert flags.split()[0].removeprefix("--topology.").replace("-", "_") in line


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("agnt: {tau: 0.5}", ("'agnt'", "'agent'")),
        ("agent: {taw: 0.5}", ("'agent.taw'", "'agent.tau'")),
        ("topology: {densty: 0.5}", ("'topology.densty'", "'topology.density'")),
        ("topology: {method: sett}", ("'sett'", "'set'")),
        ("topology: {density: 3}", ("density", "3")),
        ("total_steps: soon", ("total_steps", "'soon'")),
        ("total_steps: -1", ("total-steps", "-1")),
        ("algo: ds_td4", ("'ds_td4'", "'ds_td3'")),
        ("device: tpu", ("'tpu'", "cpu")),
        ("agent: 3", ("agent", "3")),
        ("- a list", ("keys and values", "list")),
        ("a: [", ("not valid YAML",)),
    ],
)
def test_a_wrong_config_file(
    content: str, parts: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.yaml").write_text(content + "\n")
    words = ["train", "--config", str(tmp_path / "c.yaml"), "--run-dir", str(tmp_path / "run")]
    line = refusal(capsys, tmp_path, *words)
    for part in parts:
        assert part in line, line


def small(folder: Path) -> list[str]:
    return ["train", "--env", "Tiny-v0", "--agent.net-arch", "4", "4", "--run-dir", str(folder), "--no-progress"]


def test_a_run_folder_that_exists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("precious")
    line = refusal(capsys, tmp_path, *small(tmp_path / "run"))
    assert f"{tmp_path / 'run'} exists; choose another --run-dir, or continue it with --resume" in line


def test_a_place_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    line = refusal(capsys, tmp_path, *small(tmp_path / "file" / "run"))
    assert line == f"cannot create {tmp_path / 'file' / 'run'}: Not a directory"


def test_a_tracker_that_does_not_start_leaves_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    def refuse(**kwargs: object) -> None:
        raise wandb.errors.UsageError("No API key configured.")

    monkeypatch.setattr(wandb, "init", refuse)
    assert main([*small(tmp_path / "run"), "--track"]) == 2
    assert "No API key configured.); try --wandb.mode offline" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flag", ["--seed", "--eval.episodes=5", "--run-dir", "--device"])
def test_resume_takes_no_other_flag(flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    value = {"--seed": ["3"], "--run-dir": ["x"], "--device": ["cpu"]}.get(flag, [])
    line = refusal(capsys, tmp_path, "train", "--resume", str(tmp_path), flag, *value)
    assert "--resume continues the run as it was configured" in line
    assert flag.split("=")[0] in line


def test_resume_of_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no run folder at" in refusal(capsys, tmp_path, "train", "--resume", str(tmp_path / "none"))
    assert "is not a run folder" in refusal(capsys, tmp_path, "train", "--resume", str(tmp_path))


def test_an_unknown_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal(capsys, tmp_path, "trian") == "unknown command 'trian'; did you mean 'train'?"
