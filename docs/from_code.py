"""Parts of pages that are made from the code at build time, so that nothing stands twice.

`write(folder)` makes one Markdown file for each entry of `PARTS`; pages include them.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from sparserl.agents.table import AGENTS
from sparserl.cli.main import COMMANDS
from sparserl.cli.options import Option, head, options_of
from sparserl.continual.strategies import GROUPS, STRATEGIES
from sparserl.continual.strategies.strategy import Strategy
from sparserl.experiment.continual_config import ContinualConfig
from sparserl.experiment.fit_config import FitConfig
from sparserl.experiment.rl_continual_config import RLContinualConfig
from sparserl.experiment.train_config import TrainConfig
from sparserl.recording.metrics_table import glossary
from sparserl.topology import methods as topology_methods
from sparserl.topology.methods import METHODS, Method
from sparserl.topology.rewire import RewireRule

UNSAID = {"summary", "rule", "dense"}
"""Fields of a method that are said otherwise, or by its name."""
SAID = {"drop", "grow", "drop_fraction", "update_interval"}
"""Fields of a rule that every method says."""


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    heads = list(heads)
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *cells))


# Commands.


def commands() -> str:
    """What each command does."""
    return table(("command", "what"), ((f"`sparserl {name}`", what) for name, (_, what) in COMMANDS.items()))


# Keys of a config.


def keys() -> str:
    """Keys of the configs of all kinds of runs, those of an earlier kind left out."""
    kinds: dict[str, type[Any]] = {
        "train": TrainConfig,
        "continual, of a classifier": ContinualConfig,
        "continual, of an agent": RLContinualConfig,
        "fit": FitConfig,
    }
    said: dict[str, Option] = {}
    parts = []
    for kind, schema in kinds.items():
        options = options_of(schema)
        new = {key: option for key, option in options.items() if said.get(key) != option}
        said |= new
        parts.append(f"## `sparserl {kind.replace(',', '`,', 1) if ',' in kind else kind + '`'}\n\n{_groups(new)}")
        if schema is TrainConfig:
            parts.append(_of_agents(said))
    return "\n\n".join(parts)


def _groups(options: Mapping[str, Option]) -> str:
    """A table for each group of options, those without a group first."""
    groups: dict[str, list[Option]] = {}
    for option in options.values():
        groups.setdefault(option.key.rpartition(".")[0], []).append(option)
    return "\n\n".join((f"### `{name}.`\n\n" if name else "") + _options(groups[name]) for name in sorted(groups))


def _of_agents(said: Mapping[str, Option]) -> str:
    """Options of agents other than that of the schema, by the agent that has them."""
    parts = []
    for name, spec in AGENTS.items():
        options = options_of(spec.config, prefix="agent.")
        new = {key: option for key, option in options.items() if said.get(key) != option}
        if spec.sparse and new:
            parts.append(f"### `agent.`, of `{name}`\n\n{_options(new.values())}")
    return "Agents have these of their own, or with other defaults:\n\n" + "\n\n".join(parts)


def _options(options: Iterable[Option]) -> str:
    return table(("key", "takes", "default", "meaning"), map(_row, options))


def _row(option: Option) -> list[str]:
    takes = head(option).partition(" ")[2].replace("|", " or ")
    missing = option.default is dataclasses.MISSING
    usual = "" if missing or option.default is None else f"`{option.default}`"
    text = " ".join(option.text.split())
    return [f"`{option.key}`", takes if " or no" not in takes else "", usual, text]


# Methods.


def topologies() -> str:
    """Each topology method: its parts, its source, and what is known to differ."""
    notes = _comments(inspect.getsource(topology_methods))
    parts = []
    for name, method in METHODS.items():
        text = f"### `{name}`\n\n{_sentence(method.summary)}"
        text += f"\n\n{', '.join(_parts_of(method))}" if _parts_of(method) else ""
        parts.append(text + (f"\n\n{notes[name]}" if name in notes else ""))
    return "\n\n".join(parts)


def _comments(source: str) -> dict[str, str]:
    """Comment right above a row of a table of a module, by the name of the row."""
    found = re.findall(r'((?:^    # .*\n)+)^    "(\w+)":', source, re.MULTILINE)
    return {name: " ".join(line.strip("# ") for line in lines.splitlines()) for lines, name in found}


def _parts_of(method: Method) -> list[str]:
    """Parts of a method: those of its rule that every rule says, and what is not at its default."""
    said = (
        [(field, getattr(method.rule, field.name)) for field in dataclasses.fields(RewireRule)] if method.rule else []
    )
    said += [(field, getattr(method, field.name)) for field in dataclasses.fields(Method) if field.name not in UNSAID]
    return [f"`{field.name}` {value}" for field, value in said if field.name in SAID or value != field.default]


def strategies() -> str:
    """Each continual method: whom it serves, its source and differences, its options."""
    options = options_of(ContinualConfig)
    parts, said = [], dict[str, str]()
    for name, spec in STRATEGIES.items():
        serves = [who for who, kind in (("classifiers", "classifier"), ("agents", "agent")) if kind not in spec.refused]
        text = f"### `{name}`\n\n{_sentence(spec.summary)} For {' and '.join(serves)}."
        if spec.strategy is not Strategy:
            for doc in _docs(spec.strategy):
                text += f"\n\nMore under `{said[doc]}`." if doc in said else f"\n\n{markdown(doc)}"
                said.setdefault(doc, name)
        if spec.options in GROUPS:
            own = [option for option in options.values() if option.key.startswith(f"{spec.options}.")]
            text += f"\n\n{_options(own)}" if own else ""
        parts.append(text)
    return "\n\n".join(parts)


def _docs(strategy: type[Strategy]) -> list[str]:
    """Docstrings that are about a method alone: that of its class, and of its module if that says a source."""
    of_module = inspect.getdoc(inspect.getmodule(strategy)) or ""
    return [inspect.getdoc(strategy) or "", *([of_module] if "\nSource:" in of_module else [])]


def agents() -> str:
    """Each sparse agent: its source, and what is known to differ."""
    parts = []
    for name, spec in AGENTS.items():
        if spec.sparse:
            doc = inspect.getdoc(spec.agent) or ""
            parts.append(f"### `{name}`\n\n{_sentence(spec.summary)} Class `{spec.agent.__name__}`.\n\n{markdown(doc)}")
    return "\n\n".join(parts)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


LEFT_OUT = ("Args", "Attributes", "Raises", "Returns", "Example")
"""Sections of docstrings that the reference of the API has."""


def markdown(doc: str) -> str:
    """A docstring as Markdown: sections become bold words, those in `LEFT_OUT` are left out."""
    text = []
    for block in re.split(r"^(?=[A-Z][^\n]*:\n {4})", doc, flags=re.MULTILINE):
        title, _, body = block.partition("\n")
        if not block.startswith(("\n", " ")) and title.endswith(":") and body.startswith("    "):
            inside = re.match(r"(?:(?: {4}.*)?\n)*(?: {4}.*)?", body)
            assert inside is not None
            rest = body[inside.end() :].strip()
            if not title.startswith(LEFT_OUT):
                text.append(f"**{title.removesuffix(':')}.**\n\n{textwrap.dedent(inside.group()).strip()}")
            text += [rest] if rest else []
        else:
            text.append(block.strip())
    return "\n\n".join(filter(None, text))


# The Python interface.

PACKAGES = {
    "sparserl": "Sparse layers and models",
    "sparserl.experiment": "Runs",
    "sparserl.agents": "Agents",
    "sparserl.continual": "Continual learning",
    "sparserl.estimators": "For scikit-learn",
    "sparserl.envs": "Environments",
}
"""Whose public names are described."""
GIVEN_BACK = {
    "sparserl": ("sparserl.layers.sparse_training.SparseTraining",),
    "sparserl.experiment": ("sparserl.experiment.opened_agent_run.TrainedAgent",),
}
"""What functions of a package return, which nobody imports by name."""


def interface() -> str:
    """All public functions and classes, by package, for autodoc."""
    parts = []
    for package, title in PACKAGES.items():
        module = importlib.import_module(package)
        names = [f"{package}.{name}" for name in module.__all__ if callable(getattr(module, name))]
        directives = "\n".join(map(_directive, [*names, *GIVEN_BACK.get(package, ())]))
        parts.append(f"## {title}\n\nPackage `{package}`.\n\n```{{eval-rst}}\n{directives}\n```")
    return "\n\n".join(parts)


def _directive(name: str) -> str:
    """What describes an object; with the members of a class that is ours from top to bottom."""
    package, _, attribute = name.rpartition(".")
    found = getattr(importlib.import_module(package), attribute)
    if not inspect.isclass(found):
        return f".. autofunction:: {name}"
    ours = all(base.__module__.startswith("sparserl") or base is object for base in found.__mro__)
    return f".. autoclass:: {name}" + "\n   :members:" * (ours and not dataclasses.is_dataclass(found))


PARTS: dict[str, Callable[[], str]] = {
    "agents": agents,
    "commands": commands,
    "interface": interface,
    "keys": keys,
    "metrics": glossary,
    "strategies": strategies,
    "topologies": topologies,
}
"""Name of the file, without its ending -> its text."""


def write(folder: Path) -> None:
    """Writes all parts into a folder; a file that says the same already is left alone."""
    folder.mkdir(exist_ok=True)
    for name, made in PARTS.items():
        path, text = folder / f"{name}.md", f"{made()}\n"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
