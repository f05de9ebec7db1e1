"""What the documentation says is true: commands parse, examples run, every logged metric is in the glossary."""

from __future__ import annotations

import csv
import dataclasses
import doctest
import importlib
import pkgutil
import re
import shlex
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

import sparserl
from sparserl.cli.arguments import parse
from sparserl.cli.bench import BENCHMARKS
from sparserl.cli.dashboard import DashboardCommand
from sparserl.cli.enjoy import EnjoyCommand
from sparserl.cli.evaluate import EvalCommand
from sparserl.cli.export import ExportCommand
from sparserl.cli.inspect import InspectCommand
from sparserl.cli.listing import LISTS
from sparserl.cli.main import COMMANDS, main, usage
from sparserl.cli.plot import PlotCommand
from sparserl.cli.prune import PruneCommand
from sparserl.cli.report import ReportCommand
from sparserl.cli.running import read
from sparserl.cli.sweep import SweepCommand
from sparserl.cli.tune import TuneCommand
from sparserl.continual.rl import recorder as rl_recorder
from sparserl.continual.rl.borders import BorderConfig
from sparserl.continual.strategies import STRATEGIES
from sparserl.continual.supervised.fit_recorder import LOGS as FIT_LOGS
from sparserl.continual.supervised.recorder import LOGS
from sparserl.experiment.presets import presets
from sparserl.metrics.connectivity import TOPOLOGY_COLUMNS
from sparserl.recording.metrics_table import Kind, columns, glossary, names
from sparserl.topology.criteria import DROP, GROW
from sparserl.topology.methods import METHODS
from sparserl.topology.target import TARGET

README = (Path(__file__).parents[1] / "README.md").read_text()
SCHEMAS = {
    "tune": TuneCommand,
    "dashboard": DashboardCommand,
    "eval": EvalCommand,
    "enjoy": EnjoyCommand,
    "export": ExportCommand,
    "inspect": InspectCommand,
    "plot": PlotCommand,
    "prune": PruneCommand,
    "report": ReportCommand,
    "sweep": SweepCommand,
}


def blocks(language: str) -> list[str]:
    fenced = README.split("```")[1::2]
    return [block.split("\n", 1)[1] for block in fenced if block.split("\n", 1)[0] == language]


def readme_commands() -> list[str]:
    return [line for block in blocks("") for line in block.splitlines() if line.startswith("sparserl ")]


@pytest.mark.parametrize("line", readme_commands())
def test_readme_commands_parse(line: str) -> None:
    _, command, *arguments = shlex.split(line)
    assert command in COMMANDS
    if command == "list":
        assert arguments[0] in LISTS
    elif command in ("train", "continual", "fit"):
        for flag in {"--config", "--from"} & set(arguments):  # of a run that is not here
            del arguments[(at := arguments.index(flag)) : at + 2]
        read(command, arguments)  # type: ignore[arg-type]  # one of them
    elif command == "bench":
        parse(BENCHMARKS[arguments[0]].options, arguments[1:], command="bench")
    else:
        parse(SCHEMAS[command], arguments, command=command)


def test_readme_shows_every_command() -> None:
    shown = {shlex.split(line)[1] for line in readme_commands()}
    assert shown == set(COMMANDS)
    assert {shlex.split(line)[2] for line in readme_commands() if line.startswith("sparserl bench")} == set(BENCHMARKS)
    assert all(name in usage() for name in COMMANDS)


@pytest.mark.parametrize("block", blocks("python"))
def test_readme_examples_run(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(block.replace("10_000", "150"), {})


def test_readme_has_the_glossary() -> None:
    assert f"\n\n{glossary()}\n\n" in README


def promised(kind: Kind) -> set[str]:
    """What the glossary says that a kind of run logs; energy only where it is asked for."""
    return set(names(kind)) - {"global_step", "cost/energy_kwh"}


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Keys that a run with `--tensorboard` logs."""
    keys: set[str] = set()

    class Listener:
        def __init__(self, *_: object, **__: object) -> None: ...

        def log(self, step: int, metrics: dict[str, float]) -> None:
            keys.update(metrics)

        def close(self, summary: dict[str, object]) -> None: ...

    monkeypatch.setattr("sparserl.experiment.recorded_run.TensorBoardTracker", Listener)
    return keys


def header(path: Path) -> list[str]:
    with path.open() as file:
        return next(csv.reader(file))


@pytest.mark.usefixtures("undrawn")
def test_glossary_equals_what_a_run_logs(tmp_path: Path, logged: set[str]) -> None:
    options = "--env InvertedPendulum-v5 --total-steps 200 --agent.learning-starts 50 --agent.net-arch 16 16"
    more = "--eval.every-steps 100 --eval.episodes 1 --log-every-steps 100 --tensorboard --no-progress"
    noise = "--wrappers.noise-fraction 0.5 --topology.recycle-interval 20"
    forget = "--agent.dynamic-capacity --agent.forget-interval-steps 50 --agent.forget-minimum 100"
    small = "--env InvertedPendulum-v5 --total-steps 200 --agent.net-arch 16 16 --agent.n-steps 50"
    for algo, own, folder in (
        ("ds_td3", options, "run"),
        ("ds_sac", f"{options} {noise}", "noise"),
        ("sac", f"{options} {forget}", "sac"),
        ("ds_ppo", f"{small} --agent.batch-size 50 --agent.n-epochs 1", "ppo"),
        ("a2c", small, "a2c"),
    ):
        command = ["train", "--algo", algo, *own.split(), *more.split()]
        assert main([*command, "--run-dir", str(tmp_path / folder)]) == 0
    of_dqn = ["train", "--algo", "dqn", *options.replace("InvertedPendulum-v5", "CartPole-v1").split(), *more.split()]
    assert main([*of_dqn, "--run-dir", str(tmp_path / "dqn")]) == 0
    assert {re.sub(r"^topology/(actor|critic)\.[\w.]+/", "topology/<layer>/", key) for key in logged} == promised(
        "train"
    )
    assert header(tmp_path / "run" / "progress.csv") == list(columns("train"))
    assert header(tmp_path / "run" / "topology.csv") == list(TOPOLOGY_COLUMNS)


def of_layers(key: str) -> str:
    return re.sub(r"^topology/network\.\d+/", "topology/<layer>/", key)


@pytest.mark.usefixtures("undrawn")
def test_glossary_equals_what_a_continual_run_logs(tmp_path: Path, logged: set[str]) -> None:
    options = "--learner.epochs 1 --learner.batch-size 64 --tensorboard --no-progress"
    assert main(["continual", *options.split(), "--run-dir", str(tmp_path / "run")]) == 0
    assert {re.sub(r"/task\d+$", "/task<i>", of_layers(key)) for key in logged} == promised("continual")
    for name, own in LOGS.items():
        assert header(tmp_path / "run" / f"{name}.csv") == list(own)


@pytest.mark.usefixtures("undrawn")
def test_glossary_equals_what_a_fit_logs(tmp_path: Path, logged: set[str]) -> None:
    options = "fit iris --learner.epochs 1 --learner.hidden 8 --tensorboard --no-progress --topology.method static"
    assert main([*options.split(), "--run-dir", str(tmp_path / "run")]) == 0
    assert set(map(of_layers, logged)) == promised("fit")
    for name, own in FIT_LOGS.items():
        assert header(tmp_path / "run" / f"{name}.csv") == list(own)


@pytest.mark.usefixtures("undrawn")
def test_glossary_equals_what_a_continual_run_of_an_agent_logs(tmp_path: Path, logged: set[str]) -> None:
    options = (
        "--sequence hopper_gravity --tasks 2 --steps-per-task 200 --agent.learning-starts 50 --agent.net-arch 16 16"
    )
    more = "--eval.every-steps 100 --eval.episodes 1 --log-every-steps 100 --tensorboard --no-progress"
    command = ["continual", "--method", "finetune", *options.split(), *more.split()]
    assert main([*command, "--run-dir", str(tmp_path / "run")]) == 0
    found = {re.sub(r"/task\d+$", "/task<i>", key) for key in logged}
    # Success is logged where an environment signals it, and not every agent has these.
    of_others = {"rollout/exploration_rate", "train/loss"}
    assert found == promised("continual_rl") - of_others - {"cl/success_seen", "cl/success/task<i>"}
    for name, own in rl_recorder.LOGS.items():
        assert header(tmp_path / "run" / f"{name}.csv") == list(own)


@pytest.mark.parametrize("option", dataclasses.fields(BorderConfig), ids=lambda option: option.name)
def test_readme_names_every_option_at_a_border(option: dataclasses.Field[str]) -> None:
    row = next(line for line in README.splitlines() if line.startswith(f"| `--border.{option.name.replace('_', '-')}`"))
    assert all(f"`{value}`" in row for value in get_args(get_type_hints(BorderConfig)[option.name]))


@pytest.mark.parametrize("name", [*METHODS, *DROP, *GROW, *TARGET, *STRATEGIES])
def test_readme_names_every_choice(name: str) -> None:
    assert f"`{name}`" in README


@pytest.mark.parametrize("env", ["HalfCheetah-v5", "Walker2d-v5", "Hopper-v5", "Ant-v5", "Humanoid-v5"])
def test_a_preset_for_each_of_the_five_envs(env: str) -> None:
    assert {f"ds_td3/{env}", f"ds_sac/{env}", f"ds_sac/{env}-modern"} <= set(presets())


def modules() -> list[str]:
    found = pkgutil.walk_packages(sparserl.__path__, "sparserl.")
    return [module.name for module in found if module.name != "sparserl.__main__"]


@pytest.mark.parametrize("name", modules())
def test_doctests(name: str) -> None:
    module = importlib.import_module(name)
    assert doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0
