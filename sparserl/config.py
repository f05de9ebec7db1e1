"""From YAML to frozen dataclasses and back: types, unknown keys, one `extends`.

The dataclass is the schema; this file knows none of them. Data only: nothing in a file is evaluated.
"""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from sparserl.errors import ConfigError, shown, unknown_name
from sparserl.text_files import read_yaml

C = TypeVar("C")
_POWER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")
PRESETS = Path(str(resources.files("sparserl") / "configs"))
"""Folder of the files that come with the suite."""


def load_yaml(path: Path) -> dict[str, Any]:
    """Reads a mapping, merged over the one file its `extends` names (relative to it).

    Raises:
        ConfigError: If a file cannot be read as `text_files.read_yaml` does, or the parent extends another file.
    """
    data = read_yaml(path)
    parent_name = data.pop("extends", None)
    if parent_name is None:
        return data
    if not isinstance(parent_name, str):
        raise ConfigError(f"{path}: `extends` must be the name of a file, got {shown(parent_name)}")
    parent = read_yaml(path.parent / f"{parent_name}.yaml")
    if "extends" in parent:
        raise ConfigError(f"{path}: `extends` goes one level deep, but {parent_name}.yaml extends another file")
    return merge(parent, data)


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `below`, mappings merged key by key."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def nested(options: Mapping[str, Any]) -> dict[str, Any]:
    """Values by dotted key as a config file has them.

    Example:
        >>> nested({"seed": 3, "agent.gamma": 0.9, "agent.tau": 0.1})
        {'seed': 3, 'agent': {'gamma': 0.9, 'tau': 0.1}}
    """
    data: dict[str, Any] = {}
    for key, value in options.items():
        for part in reversed(key.split(".")):
            value = {part: value}
        data = merge(data, value)
    return data


def build(schema: type[C], data: Mapping[str, Any], where: str = "") -> C:
    """Makes the dataclass from plain data; a number may be written as text, as YAML reads `1e-3`.

    Args:
        schema: A dataclass type; nested dataclasses take nested mappings.
        data: Keys are field names; missing ones keep their default.
        where: Dotted path of `data`, for messages.

    Raises:
        ConfigError: For an unknown key, with the closest field, a missing one, or a value of another type.
    """
    hints = typing.get_type_hints(schema)
    values = {}
    for key, value in data.items():
        if key not in hints:
            raise ConfigError(_unknown_key(key, where, list(hints)))
        values[key] = _coerce(hints[key], value, f"{where}{key}")
    for field in dataclasses.fields(schema):  # type: ignore[arg-type]  # a dataclass
        if field.name not in values and field.default is field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{where}{field.name} is missing")
    return schema(**values)


def check_keys(schema: type[Any], data: Mapping[str, Any], where: str = "") -> None:
    """Raises ConfigError if a key is no field, with the closest one and all valid ones.

    Args:
        schema: A dataclass of few fields.
        data: As `build` takes it.
        where: Dotted path of `data`, for messages.
    """
    names = [field.name for field in dataclasses.fields(schema)]
    for key in data:
        if key not in names:
            said = _unknown_key(key, where, names)
            valid = ", ".join(f"{where}{name}" for name in names)
            raise ConfigError(said if "; valid: " in said else f"{said} (valid: {valid})")


def _unknown_key(key: Any, where: str, names: Sequence[str]) -> str:
    """What is said of a key that is none of `names`: of a dotted one, as flags have it, how files write it."""
    group, _, own = str(key).partition(".")
    if own and group in names:
        return f"config key {where}{key} must be written as {where}{group}: {{{own}: ...}}"
    return unknown_name("config key", f"{where}{key}", [f"{where}{name}" for name in names])


def _free(value: Any) -> Any:
    """What no schema says the type of, with numbers that YAML reads as text, such as `1e-3`."""
    if isinstance(value, str) and _POWER.fullmatch(value) and math.isfinite(float(value)):
        return float(value)
    if isinstance(value, Mapping):
        return {name: _free(one) for name, one in value.items()}
    return [_free(one) for one in value] if isinstance(value, list) else value


def _coerce(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        for option in arguments:
            try:
                return _coerce(option, value, where)
            except ConfigError:
                continue
        choices = [
            name for option in arguments if typing.get_origin(option) is Literal for name in typing.get_args(option)
        ]
        if choices and isinstance(value, str):
            raise ConfigError(unknown_name(where, value, map(str, choices)))
    elif origin is Literal:
        if value in arguments:
            return value
        said = value if isinstance(value, str) else shown(value)
        raise ConfigError(unknown_name(where, said, map(str, arguments)))
    elif origin is dict and isinstance(value, Mapping):
        return {name: _free(one) for name, one in value.items()}
    elif origin is tuple and isinstance(value, list | tuple):
        return tuple(_coerce(arguments[0], item, where) for item in value)
    elif dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, hint):
        return value  # built before, because which schema it follows depends on another key
    elif dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, Mapping):
        return build(hint, value, f"{where}.")
    elif hint is type(None) and value is None:
        return None
    elif hint is bool and isinstance(value, bool):
        return value
    elif hint is Path and isinstance(value, str | Path):
        return Path(value)
    elif hint is str and isinstance(value, str):
        return value
    elif hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value  # not by way of float, which holds 53 bits
    elif hint in (int, float) and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):  # the latter of an integer that no float holds
            number = None
        if number is not None and hint is float:
            return number
        if number is not None and number.is_integer():
            return int(number)
    name = getattr(hint, "__name__", str(hint))
    raise ConfigError(f"{where} must be {name}, got {shown(value)}")


def plain(config: Any) -> Any:
    """A dataclass as nested plain data that YAML writes and `build` reads back."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {field.name: plain(getattr(config, field.name)) for field in dataclasses.fields(config)}
    if isinstance(config, tuple):
        return [plain(item) for item in config]
    return str(config) if isinstance(config, Path) else config


def dump(config: Any) -> str:
    """The resolved config as YAML, fields in order of declaration."""
    return yaml.safe_dump(plain(config), sort_keys=False)
