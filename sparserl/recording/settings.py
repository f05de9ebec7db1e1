"""What runs have in common that differ in the seed alone.

Decides which keys of a config are of one run and not of its method. Independent of what ran.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sparserl.json_text import json_text

BOOKKEEPING = (
    *("seed", "threads", "energy", "tensorboard", "track", "wandb", "trackio"),
    *("log_every_steps", "checkpoint_every_steps", "topology_snapshots", "measure_learning", "keep_replay"),
)
"""Keys of a config in which seeds of one method may differ."""

_ORIGIN = "origin.run"
"""Key of the folder of a run with whose networks another begins; seeds of one method begin with seeds of one method."""
_SEED = re.compile(r"__s\d+(__\d+)?$")
_DIGITS = 6


def dotted(config: Mapping[str, Any]) -> dict[str, str]:
    """Dotted key -> value as text, of nested plain data."""

    def flat(node: Mapping[str, Any], where: str) -> Iterator[tuple[str, str]]:
        for key, value in node.items():
            if isinstance(value, Mapping):
                yield from flat(value, f"{where}{key}.")
            else:
                yield f"{where}{key}", str(value)

    return dict(flat(config, ""))


def settings(config: Mapping[str, Any]) -> dict[str, str]:
    """Dotted key -> value, of all that seeds of one method have in common; of the run that one begins with its name.

    Example:
        >>> settings({"seed": 3, "agent": {"gamma": 0.9}})
        {'agent.gamma': '0.9'}
    """
    said = dotted({key: value for key, value in config.items() if key not in BOOKKEEPING})
    if _ORIGIN in said:
        said[_ORIGIN] = _SEED.sub("", Path(said[_ORIGIN]).name)
    return said


def env_label(env: str, kwargs: Mapping[str, Any]) -> str:
    """What an environment is called with the arguments that it is made with.

    Example:
        >>> env_label("Hopper-v5", {"healthy_reward": 0.5})
        'Hopper-v5__healthy_reward=0.5'
    """
    return "__".join([env, *(f"{name}={value}" for name, value in sorted(kwargs.items()))])


def group_name(name: str, config: Mapping[str, Any]) -> str:
    """What runs that differ in the seed alone are called together, and no others.

    Args:
        name: Of the runs, without the seed.
        config: The resolved config of one.

    Example:
        >>> group_name("Hopper-v5__ds_td3", {"seed": 3, "agent": {"gamma": 0.9}})
        'Hopper-v5__ds_td3__0d66bb'
    """
    digest = hashlib.sha256(json_text(dict(sorted(settings(config).items()))).encode()).hexdigest()
    return f"{name}__{digest[:_DIGITS]}"
