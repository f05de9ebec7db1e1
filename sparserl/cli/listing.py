"""`sparserl list`: the names that other commands take."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sparserl.cli.arguments import wants_help
from sparserl.errors import ConfigError, unknown_name

Entries = dict[str, dict[str, str]]
"""Heading, empty if there is one part alone -> name -> summary."""


def _algos() -> Entries:
    from sparserl.agents.table import AGENTS

    return {"": {name: spec.summary for name, spec in AGENTS.items()}}


def _envs() -> Entries:
    from sparserl.envs import list_env_ids

    return {"": dict.fromkeys(list_env_ids(), "")}


def _sequences() -> Entries:
    from sparserl.continual.supervised.sequences import SEQUENCES
    from sparserl.envs import RL_SEQUENCES

    return {
        "of classification tasks": {name: spec.summary for name, spec in SEQUENCES.items()},
        "of environments": {name: spec.summary for name, spec in RL_SEQUENCES.items()},
        "of your own": {"FILE.yaml": "tasks of either kind, see docs/sequences.md and configs/sequences"},
    }


def _methods() -> Entries:
    from sparserl.continual.strategies import entry_points, methods_of
    from sparserl.topology.methods import METHODS

    return {
        "sparserl train --topology.method": {name: method.summary for name, method in METHODS.items()},
        "sparserl continual --method": {name: spec.summary for name, spec in methods_of("classifier").items()},
        "sparserl continual --method, on environments": {
            name: spec.summary for name, spec in methods_of("agent").items()
        },
        **({"of installed packages": packages} if (packages := entry_points()) else {}),
    }


def _presets() -> Entries:
    from sparserl.experiment.presets import continual_presets, fit_presets, presets, rl_continual_presets

    return {
        "sparserl train --preset": dict.fromkeys(presets(), ""),
        "sparserl continual --preset": dict.fromkeys(continual_presets(), ""),
        "sparserl continual --preset, on environments": dict.fromkeys(rl_continual_presets(), ""),
        "sparserl fit --preset": dict.fromkeys(fit_presets(), ""),
    }


LISTS: dict[str, Callable[[], Entries]] = {
    "algos": _algos,
    "envs": _envs,
    "sequences": _sequences,
    "methods": _methods,
    "presets": _presets,
}


def run(arguments: Sequence[str]) -> int:
    """Runs `sparserl list`; returns the exit status."""
    if not arguments or wants_help(arguments[:1]):
        print(f"usage: sparserl list {'|'.join(LISTS)}")
        return 0
    what, *rest = arguments
    if what not in LISTS:
        raise ConfigError(unknown_name("list", what, LISTS))
    if rest:
        raise ConfigError(f"unexpected word {rest[0]!r}")
    parts = LISTS[what]()
    width = max(len(name) for entries in parts.values() for name in entries)
    for heading, entries in parts.items():
        if heading:
            print(f"{heading}:")
        indent = "  " if heading else ""
        for name, summary in entries.items():
            print(f"{indent}{name:<{width}}  {summary}".rstrip())
    return 0
