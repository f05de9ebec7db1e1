"""What the documentation says is true: commands parse, examples run, every logged metric is in the glossary."""

from __future__ import annotations

import csv
import dataclasses
import doctest
import html
import importlib
import pkgutil
import re
import shlex
import subprocess
import sys
import types
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

import sparserl
from sparserl.agents.learning_observer import LEARNING_COLUMNS
from sparserl.cli.arguments import parse
from sparserl.cli.bench import BENCHMARKS
from sparserl.cli.card import CardCommand
from sparserl.cli.completion import SHELLS
from sparserl.cli.dashboard import DashboardCommand
from sparserl.cli.doctor import DoctorCommand
from sparserl.cli.enjoy import EnjoyCommand
from sparserl.cli.evaluate import EvalCommand
from sparserl.cli.export import ExportCommand
from sparserl.cli.inspect import InspectCommand
from sparserl.cli.listing import LISTS
from sparserl.cli.main import COMMANDS, main, usage
from sparserl.cli.plot import PlotCommand
from sparserl.cli.prune import PruneCommand
from sparserl.cli.push import PushCommand
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
from sparserl.recording.metrics_table import Kind, columns, names
from sparserl.topology.criteria import DROP, GROW
from sparserl.topology.methods import METHODS
from sparserl.topology.target import TARGET

ROOT = Path(__file__).parents[1]
PAGES = {path: path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
COMMAND_PAGE = ROOT / "docs" / "commands.md"
SCHEMAS = {
    "tune": TuneCommand,
    "card": CardCommand,
    "push": PushCommand,
    "dashboard": DashboardCommand,
    "doctor": DoctorCommand,
    "eval": EvalCommand,
    "enjoy": EnjoyCommand,
    "export": ExportCommand,
    "inspect": InspectCommand,
    "plot": PlotCommand,
    "prune": PruneCommand,
    "report": ReportCommand,
    "sweep": SweepCommand,
}


def blocks(page: str, language: str) -> list[str]:
    """Fenced blocks of a page that are of a language; `""` is of those that name none."""
    fenced = re.findall(r"^```(.*)\n((?:.*\n)*?)```$", page, re.MULTILINE)
    return [block for name, block in fenced if name == language]


def commands(page: str) -> list[str]:
    return [line for block in blocks(page, "") for line in block.splitlines() if line.startswith("sparserl ")]


@pytest.mark.parametrize("line", sorted({line for page in PAGES.values() for line in commands(page)}))
def test_commands_parse(line: str) -> None:
    _, command, *arguments = shlex.split(line, comments=True)
    assert command in COMMANDS
    if command in ("list", "completion"):
        assert arguments[0] in (LISTS if command == "list" else SHELLS)
    elif command in ("train", "continual", "fit"):
        for flag in {"--config", "--from"} & set(arguments):  # of a run that is not here
            del arguments[(at := arguments.index(flag)) : at + 2]
        read(command, arguments)  # type: ignore[arg-type]  # one of them
    elif command == "bench":
        parse(BENCHMARKS[arguments[0]].options, arguments[1:], command="bench")
    else:
        parse(SCHEMAS[command], arguments, command=command)


def test_every_command_is_shown() -> None:
    lines = [shlex.split(line) for line in commands(PAGES[COMMAND_PAGE])]
    assert {command for _, command, *_ in lines} == set(COMMANDS)
    assert {words[0] for _, command, *words in lines if command == "bench"} == set(BENCHMARKS)
    assert all(name in usage() for name in COMMANDS)


@pytest.mark.parametrize("page", [path for path in PAGES if blocks(PAGES[path], "python")], ids=lambda path: path.stem)
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a page run one after the other, as a reader would, in a module whose classes can be named."""
    monkeypatch.chdir(tmp_path)
    read = types.ModuleType(f"page_{page.stem}")
    monkeypatch.setitem(sys.modules, read.__name__, read)
    for block in blocks(PAGES[page], "python"):
        exec(block.replace("10_000", "150"), vars(read))


def anchors(page: str) -> set[str]:
    """What links may end with: headings as code hosts and MyST turn them into names."""
    heads = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", page, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


LINKED = [*PAGES, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "results").glob("*/README.md"))]


@pytest.mark.parametrize("page", LINKED, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text)):
        if link.startswith(("https://", "http://")):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """As `make docs`; what is taken from the code is written again."""
    made = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "-q", "-c", "docs", ".", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (made.returncode, made.stderr) == (0, "")
    site = tmp_path / "site"
    assert all((site / path.relative_to(ROOT)).with_suffix(".html").exists() for path in PAGES)
    table = html.unescape((site / "docs" / "metrics.html").read_text())
    assert all(f">{name.replace('<layer>', '<net>.<layer>')}<" in table for name in names("train"))


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
    found = {re.sub(r"^topology/(actor|critic)\.[\w.]+/", "topology/<layer>/", key) for key in logged}
    found = {re.sub(r"^learning/(actor|critic|q_net)/", "learning/<net>/", key) for key in found}
    assert found == promised("train")
    assert header(tmp_path / "run" / "progress.csv") == list(columns("train"))
    assert header(tmp_path / "run" / "topology.csv") == list(TOPOLOGY_COLUMNS)
    assert header(tmp_path / "run" / "learning.csv") == list(LEARNING_COLUMNS)


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
def test_every_option_at_a_border_is_named(option: dataclasses.Field[str]) -> None:
    page = PAGES[ROOT / "docs" / "continual_rl.md"]
    row = next(line for line in page.splitlines() if line.startswith(f"| `--border.{option.name.replace('_', '-')}`"))
    assert all(f"`{value}`" in row for value in get_args(get_type_hints(BorderConfig)[option.name]))


@pytest.mark.parametrize("name", [*METHODS, *DROP, *GROW, *TARGET, *STRATEGIES])
def test_every_choice_is_named(name: str) -> None:
    assert any(f"`{name}`" in page for page in PAGES.values())


@pytest.mark.parametrize("env", ["HalfCheetah-v5", "Walker2d-v5", "Hopper-v5", "Ant-v5", "Humanoid-v5"])
def test_a_preset_for_each_of_the_five_envs(env: str) -> None:
    assert {f"ds_td3/{env}", f"ds_sac/{env}", f"ds_sac/{env}-published"} <= set(presets())


def modules() -> list[str]:
    found = pkgutil.walk_packages(sparserl.__path__, "sparserl.")
    return [module.name for module in found if module.name != "sparserl.__main__"]


@pytest.mark.parametrize("name", modules())
def test_doctests(name: str) -> None:
    module = importlib.import_module(name)
    assert doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0
