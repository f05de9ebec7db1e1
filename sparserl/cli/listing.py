"""`sparserl list`: the names that other commands take."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sparserl.errors import ConfigError, unknown_name


def _algos() -> dict[str, str]:
    from sparserl.agents.config import AGENTS

    return {name: spec.summary for name, spec in AGENTS.items()}


def _envs() -> dict[str, str]:
    from sparserl.envs import list_env_ids

    return dict.fromkeys(list_env_ids(), "")


def _methods() -> dict[str, str]:
    from sparserl.topology.presets import METHODS

    return {name: method.summary for name, method in METHODS.items()}


def _presets() -> dict[str, str]:
    from sparserl.cli.train_config import presets

    return dict.fromkeys(presets(), "")


LISTS: dict[str, Callable[[], dict[str, str]]] = {
    "algos": _algos,
    "envs": _envs,
    "methods": _methods,
    "presets": _presets,
}


def run(arguments: Sequence[str]) -> int:
    """Runs `sparserl list`; returns the exit status."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: sparserl list {'|'.join(LISTS)}")
        return 0
    what, *rest = arguments
    if what not in LISTS:
        raise ConfigError(unknown_name("list", what, LISTS))
    if rest:
        raise ConfigError(f"unexpected word {rest[0]!r}")
    entries = LISTS[what]()
    width = max(len(name) for name in entries)
    for name, summary in entries.items():
        print(f"{name:<{width}}  {summary}".rstrip())
    return 0
