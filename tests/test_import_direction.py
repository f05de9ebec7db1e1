"""Imports run one way: reads the imports of every source file and compares them with the order below.

Imports inside functions and under `TYPE_CHECKING` count too; only `sparserl.cli` may load what it likes.
Nothing is imported to find out, so a broken module is judged like any other.
"""

import ast
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Folders at the top level that are packages *inside* sparserl. From a checkout the short name imports as
# well, and gives a second copy of every class.
SHORT_NAMES = ("agents", "configs", "continual", "envs")

BASE = frozenset({"errors", "seeding"})
TOPOLOGY = frozenset({"topology", "topology.pure"})
PASSES = frozenset({"kernels.positions"})  # over lists of numbers, for what knows no tensors
FILES = frozenset({"extras", "json_text", "machine_memory", "ranges", "text_files", "written_files"})
CORE = FILES | {"config", "configs", "export", "metrics", "recording"}
BELOW_CORE = BASE | TOPOLOGY | {"kernels", "layers"}
UP_TO_CORE = BELOW_CORE | CORE


@dataclass(frozen=True)
class Rule:
    """What one unit may import: units of sparserl (itself always) and other distributions."""

    own: frozenset[str] = frozenset()
    others: frozenset[str] | None = None  # None: any
    not_others: frozenset[str] = frozenset()


NUMPY = frozenset({"numpy"})
TORCH = frozenset({"numpy", "torch"})

RULES = {
    "errors": Rule(others=NUMPY),
    "seeding": Rule(own=BASE, others=NUMPY),
    # every module of topology except between_events, config and its parts, evolver, moments, target and __init__
    "topology.pure": Rule(own=BASE | PASSES, others=NUMPY | {"scipy"}),
    # the torch tier
    "topology": Rule(own=BASE | TOPOLOGY | {"kernels", "ranges"} | PASSES, others=TORCH),
    "kernels.positions": Rule(own=frozenset({"kernels"}), others=NUMPY),
    "kernels": Rule(own=frozenset({"errors"}) | PASSES, others=TORCH | {"numba", "llvmlite"}),
    "layers": Rule(own=BELOW_CORE, others=TORCH),
    # the rest of the core
    **{unit: Rule(own=UP_TO_CORE) for unit in CORE},
    "configs": Rule(others=frozenset()),  # data
    "sparserl": Rule(own=UP_TO_CORE),  # sparserl/__init__.py
    # what stands on the core, and not on each other
    "envs": Rule(own=UP_TO_CORE, not_others=frozenset({"stable_baselines3"})),
    "agents": Rule(own=UP_TO_CORE),
    "continual": Rule(own=UP_TO_CORE),
    # what draws what they did
    "plots": Rule(own=UP_TO_CORE),
    # what trains them within scikit-learn
    "estimators": Rule(own=UP_TO_CORE | {"continual"}),
    # what compares them
    "bench": Rule(own=UP_TO_CORE | {"agents", "envs", "plots"}),
    # what says what they reached
    "report": Rule(own=UP_TO_CORE | {"continual", "plots"}),
    # runs of them
    "experiment": Rule(own=UP_TO_CORE | {"envs", "agents", "continual", "plots"}),
    "sweep": Rule(own=UP_TO_CORE | {"experiment"}),
    # the composition root
    "cli": Rule(
        own=UP_TO_CORE | {"sparserl", "envs", "agents", "continual", "bench", "plots", "report", "experiment", "sweep"}
    ),
    "__main__": Rule(own=frozenset({"cli"}), others=frozenset()),
}

TORCH_PART_OF_TOPOLOGY = (
    "sparserl.topology",
    "sparserl.topology.between_events",
    "sparserl.topology.config",
    "sparserl.topology.config_checks",
    "sparserl.topology.config_options",
    "sparserl.topology.evolver",
    "sparserl.topology.moments",
    "sparserl.topology.target",
)


def unit_of(module: str) -> str:
    """Names the row of `RULES` that a module of sparserl belongs to."""
    parts = module.split(".")
    if len(parts) == 1:
        return parts[0]
    if parts[1] == "topology" and module not in TORCH_PART_OF_TOPOLOGY:
        return "topology.pure"
    if ".".join(parts[1:]) in PASSES:
        return "kernels.positions"
    return parts[1]


def own_modules() -> dict[str, Path]:
    """Maps every module of sparserl to its file, following the links to agents/ and its neighbours."""
    modules = {}
    for folder, subfolders, files in os.walk(ROOT / "sparserl", followlinks=True):
        subfolders[:] = [name for name in subfolders if name != "__pycache__"]
        for file in (Path(folder, name) for name in files if name.endswith(".py")):
            parts = file.relative_to(ROOT).with_suffix("").parts
            modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return modules


def imported(source: str, module: str, is_package: bool, modules: frozenset[str]) -> list[tuple[int, str]]:
    """Lists (line, absolute dotted name) of all imports, including `import_module("literal")`.

    `from a import b` is `a.b` when that is one of `modules`, or when `a` is `sparserl` itself.
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".") if is_package else module.split(".")[:-1]
                package = package[: len(package) - node.level + 1]
                base = ".".join([*package, base] if base else package)
            for alias in node.names:
                full = f"{base}.{alias.name}"
                found.append((node.lineno, full if full in modules or base == "sparserl" else base))
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = getattr(node.func, "attr", getattr(node.func, "id", None))
            if name in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                found.append((node.lineno, node.args[0].value))
    return found


def violations(source: str, module: str, is_package: bool, modules: frozenset[str]) -> list[str]:
    """Says, one line each, which imports of a module break a rule."""
    unit = unit_of(module)
    if unit not in RULES:
        return [f"`{module}` has no place in the import order: give it a row in RULES of {Path(__file__).name}"]
    rule = RULES[unit]
    problems = []
    for line, name in imported(source, module, is_package, modules):
        top = name.split(".")[0]
        if top == "sparserl":
            target = unit_of(name)
            if name == "sparserl.__version__" or target == unit:
                continue
            if target not in rule.own:
                known = target in RULES
                why = f"`{unit}` must not import `{target}`" if known else "import it where it is defined"
                problems.append(f"line {line}: imports `{name}`: {why}")
        elif top in SHORT_NAMES:
            problems.append(f"line {line}: imports `{name}`: write `sparserl.{name}`")
        elif top not in sys.stdlib_module_names and (
            top in rule.not_others or (rule.others is not None and top not in rule.others)
        ):
            problems.append(f"line {line}: imports `{name}`: not for `{unit}`")
    return problems


def test_every_source_file_keeps_the_order() -> None:
    modules = own_modules()
    problems = [
        f"{file.relative_to(ROOT)}: {problem}"
        for module, file in sorted(modules.items())
        for problem in violations(
            file.read_text(encoding="utf-8"), module, file.name == "__init__.py", frozenset(modules)
        )
    ]
    assert not problems, "\n" + "\n".join(problems)


def test_what_reads_runs_knows_no_pictures() -> None:
    modules = own_modules()
    drawing = {"sparserl.report.charts", "sparserl.report.page"}
    readers = {name: file for name, file in modules.items() if name.startswith("sparserl.report.")}
    assert drawing < readers.keys()
    found = {
        name
        for name, file in readers.items()
        for _, other in imported(file.read_text(encoding="utf-8"), name, False, frozenset(modules))
        if other.startswith("sparserl.plots")
    }
    assert found == drawing


def test_the_folders_behind_the_links_were_read() -> None:
    seen = {module.split(".")[1] for module in own_modules() if "." in module}
    assert seen >= set(SHORT_NAMES)


def test_nobody_imports_the_short_names() -> None:
    problems = []
    for folder, subfolders, files in os.walk(ROOT):  # links not followed: each file once
        subfolders[:] = [name for name in subfolders if not name.startswith(".") and name != "__pycache__"]
        if (Path(folder) / "pyvenv.cfg").exists():
            subfolders.clear()
            continue
        for file in (Path(folder, name) for name in files if name.endswith(".py")):
            package = ".".join(["sparserl", *file.relative_to(ROOT).parts[:-1]])  # only for relative imports
            for line, name in imported(file.read_text(encoding="utf-8"), package, True, frozenset()):
                if name.split(".")[0] in SHORT_NAMES:
                    problems.append(f"{file.relative_to(ROOT)}: line {line}: imports `{name}`: write `sparserl.{name}`")
    assert not problems, "\n" + "\n".join(problems)


# --- the checker itself: each of these lines must be refused, or a green test above means nothing -----

MODULES = frozenset(
    {
        "sparserl",
        "sparserl.agents",
        "sparserl.agents.ds_td3",
        "sparserl.bench.timing",
        "sparserl.cli",
        "sparserl.config",
        "sparserl.continual",
        "sparserl.envs",
        "sparserl.errors",
        "sparserl.kernels.cpu",
        "sparserl.layers.sparse_linear",
        "sparserl.metrics.cost",
        "sparserl.report.document",
        "sparserl.seeding",
        "sparserl.topology",
        "sparserl.topology.evolver",
        "sparserl.topology.rewire",
        "sparserl.topology.structure",
    }
)


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("sparserl.errors", "from sparserl.seeding import stream"),
        ("sparserl.topology.schedules", "import torch"),
        ("sparserl.topology.rewire", "import torch"),
        ("sparserl.topology.rewire", "from torch import nn"),
        ("sparserl.topology.rewire", "from sparserl.topology.evolver import TopologyEvolver"),
        ("sparserl.topology.rewire", "from .evolver import TopologyEvolver"),
        ("sparserl.topology.rewire", "from . import evolver"),
        ("sparserl.topology.rewire", "from .. import layers"),
        ("sparserl.topology.evolver", "from sparserl.layers.sparse_linear import SparseLinear"),
        ("sparserl.topology.criteria", "from sparserl.kernels import cpu"),
        ("sparserl.kernels.cpu", "from sparserl.topology.structure import SparseTopology"),
        ("sparserl.kernels.cpu", "import stable_baselines3"),
        ("sparserl.layers.sparse_linear", "from sparserl.metrics import cost"),
        ("sparserl.layers.sparse_linear", "import gymnasium"),
        ("sparserl.config", "from sparserl.agents import AGENTS"),
        ("sparserl.config", "def f():\n    import sparserl.agents.ds_td3"),
        ("sparserl.config", "import importlib\nimportlib.import_module('sparserl.agents')"),
        ("sparserl.config", "from sparserl import cli"),
        ("sparserl.config", "from sparserl import SparseLinear"),
        ("sparserl.envs.wrappers.noise_features", "from sparserl.agents import AGENTS"),
        ("sparserl.envs.wrappers.noise_features", "from stable_baselines3.common.monitor import Monitor"),
        ("sparserl.agents.ds_td3", "from sparserl.envs import make_env"),
        ("sparserl.agents.ds_td3", "if TYPE_CHECKING:\n    from sparserl.envs import make_env"),
        ("sparserl.agents.ds_td3", "import agents"),
        ("sparserl.agents.ds_td3", "from envs.noise_features import AppendNoiseFeatures"),
        ("sparserl.agents.ds_td3", "import sparserl.cli"),
        ("sparserl.agents.ds_td3", "from sparserl.bench.timing import measure"),
        ("sparserl.bench.update", "from sparserl.cli.arguments import parse"),
        ("sparserl.experiment.runs", "from sparserl.cli.arguments import parse"),
        ("sparserl.experiment.runs", "from sparserl.sweep.file import Job"),
        ("sparserl.sweep.file", "from sparserl.cli.arguments import parse"),
        ("sparserl.config", "from sparserl.bench.timing import measure"),
        ("sparserl.continual.supervised.runner", "from sparserl import agents"),
        ("sparserl", "from sparserl.envs import make_env"),
        ("sparserl.report.trained", "from sparserl.agents import AGENTS"),
        ("sparserl.continual.supervised.runner", "from sparserl.report.document import Document"),
        ("sparserl.cli.main", "import configs"),
        ("sparserl.leftovers", "import os"),
    ],
)
def test_refuses(module: str, line: str) -> None:
    assert violations(line, module, is_package=module == "sparserl", modules=MODULES)


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("sparserl.seeding", "import zlib\nimport numpy as np\nfrom sparserl.errors import ConfigError"),
        ("sparserl.topology.rewire", "from sparserl.topology.structure import SparseTopology"),
        ("sparserl.topology.rewire", "from .structure import SparseTopology"),
        ("sparserl.topology.evolver", "import torch\nfrom sparserl.topology.plan import plan_together"),
        (
            "sparserl.kernels.cpu",
            "import numba\nimport llvmlite\nfrom sparserl.errors import KernelUnavailable",
        ),
        ("sparserl.layers.sparse_linear", "from sparserl.kernels import cpu\nfrom sparserl import topology"),
        ("sparserl.config", "import yaml\nfrom sparserl import __version__\nfrom sparserl import errors"),
        ("sparserl.envs", "import gymnasium as gym\nfrom sparserl.seeding import stream"),
        ("sparserl.agents.ds_td3", "import torch\nfrom stable_baselines3 import TD3"),
        ("sparserl.agents.ds_td3", "from sparserl.topology.config import TopologyConfig"),
        ("sparserl.bench.update", "from sparserl.agents import DSTD3\nfrom sparserl.envs import make_env\nimport sbx"),
        ("sparserl.cli.main", "from sparserl import agents, bench, envs\nimport sparserl.continual"),
        ("sparserl.__main__", "import sys\nfrom sparserl.cli import main"),
    ],
)
def test_accepts(module: str, line: str) -> None:
    assert violations(line, module, is_package=module == "sparserl.envs", modules=MODULES) == []
