"""Runs that differ in the seed alone, and what to call them, independent of what ran."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sparserl.errors import ConfigError
from sparserl.recording.settings import settings


class SeededRun(Protocol):
    """What a run must have to be one of a group."""

    @property
    def path(self) -> Path:
        """Its folder."""

    @property
    def config(self) -> Mapping[str, Any]:
        """Its resolved config, with a `seed`."""


R = TypeVar("R", bound=SeededRun)
Settings = Mapping[str, str]
"""Dotted key -> value as text."""

SAID_FIRST = ("topology.method", "method", "topology.density", "density", "agent.net_arch", "topology.pairs")
"""Settings that labels say before others, where they tell groups apart."""


def differing_keys(runs: Sequence[R], name: Callable[[R], str]) -> list[str]:
    """Dotted keys of `settings` in which runs of one name differ, those of the first name first."""
    return _differing_in([[of_run for _, of_run in members] for members in _by_name(runs, name).values()])


def _differing_in(named: Iterable[Sequence[Settings]]) -> list[str]:
    return list({key: None for members in named for key in _differing(members)})


def _differing(members: Sequence[Settings]) -> list[str]:
    keys = dict.fromkeys(key for one in members for key in one)
    return [key for key in keys if len({one.get(key) for one in members}) > 1]


def short_keys(keys: Sequence[str]) -> dict[str, str]:
    """Dotted key -> as few of its last parts as tell it from the others.

    Example:
        >>> short_keys(["agent.gamma", "method", "topology.method"])
        {'agent.gamma': 'gamma', 'method': 'method', 'topology.method': 'topology.method'}
    """

    def short(key: str) -> str:
        parts = key.split(".")
        endings = (".".join(parts[first:]) for first in reversed(range(len(parts))))
        others = [f".{other}" for other in keys if other != key]
        return next((one for one in endings if not any(other.endswith(f".{one}") for other in others)), key)

    return {key: short(key) for key in keys}


def seed_groups(
    runs: Sequence[R], name: Callable[[R], str], short: Mapping[str, str] | None = None
) -> dict[str, list[R]]:
    """Puts runs of equal settings together.

    Args:
        runs: Any number, in the order in which groups are to come.
        name: What a group is called; settings that differ between groups of one name are added to it.
        short: What these settings are called, by `short_keys`, of which all are said. If None, only as many are as tell
            the groups apart; `legend` has the others.

    Returns:
        Label -> runs by seed, at least one.

    Raises:
        ConfigError: If two runs are the same seed of the same.
    """
    groups: dict[str, list[R]] = defaultdict(list)
    named = _by_name(runs, name)
    of_names = {title: [of_run for _, of_run in members] for title, members in named.items()}
    called = short_keys(_differing_in(of_names.values())) if short is None else short
    for title, members in named.items():
        keys = _telling(of_names[title]) if short is None else _differing(of_names[title])
        for run, of_run in members:
            groups[", ".join([title, *_said(keys, of_run, called)])].append(run)
    for label, alike in groups.items():
        alike.sort(key=lambda run: int(run.config["seed"]))
        for run, following in pairwise(alike):
            if run.config["seed"] == following.config["seed"]:
                raise ConfigError(
                    f"{run.path} and {following.path} are both seed {run.config['seed']} of {label}; leave one out"
                )
    return dict(groups)


def legend(groups: Mapping[str, Sequence[R]], name: Callable[[R], str]) -> list[str]:
    """What differs between groups of one name and is not in their labels: a line for all that have it in common.

    Args:
        groups: Label -> runs, of `seed_groups` without `short`.
        name: As it was given there.

    Example:
        ['drop_fraction 0.3, grow random: ds_td3, method set, density 0.1; ds_td3, method set, density 0.2', ...]
    """
    named: dict[str, dict[str, Settings]] = defaultdict(dict)
    for label, runs in groups.items():
        named[name(runs[0])][label] = settings(runs[0].config)
    called = short_keys(_differing_in(list(of_labels.values()) for of_labels in named.values()))
    labels: dict[str, list[str]] = defaultdict(list)
    for of_labels in named.values():
        of_runs = list(of_labels.values())
        told = _telling(of_runs)
        unsaid = [key for key in _differing(of_runs) if key not in told]
        for label, of_run in of_labels.items() if unsaid else ():
            labels[", ".join(_said(unsaid, of_run, called))].append(label)
    return [f"{said}: {'; '.join(of)}" for said, of in labels.items()]


def _by_name(runs: Sequence[R], name: Callable[[R], str]) -> dict[str, list[tuple[R, Settings]]]:
    """Runs with their settings, by name."""
    named: dict[str, list[tuple[R, Settings]]] = defaultdict(list)
    for run in runs:
        named[name(run)].append((run, settings(run.config)))
    return named


def _said(keys: Sequence[str], of_run: Settings, called: Mapping[str, str]) -> list[str]:
    return [f"{called.get(key, key)} {of_run.get(key)}" for key in keys]


def _telling(members: Sequence[Settings]) -> list[str]:
    """As few keys as tell all that differ apart, each taken if it does so with those before it."""
    differing = _differing(members)
    ranked = sorted(differing, key=lambda key: SAID_FIRST.index(key) if key in SAID_FIRST else len(SAID_FIRST))
    kinds = len({tuple(one.get(key) for key in differing) for one in members})
    keys: list[str] = []
    apart = 1
    for key in ranked:
        if apart == kinds:
            break
        with_it = len({tuple(one.get(other) for other in [*keys, key]) for one in members})
        if with_it > apart:
            keys, apart = [*keys, key], with_it
    return keys
