"""What a command line can say: options of dataclasses, and what the words after a flag mean as plain data.

Nothing here reads a whole command line or prints anything: that is `sparserl.cli.arguments`.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
import inspect
import json
import math
import textwrap
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from sparserl.errors import ConfigError, shown, unknown_name

Schemas = Mapping[str, type[Any]]
NAMES = {int: "INT", float: "FLOAT", str: "STR", Path: "PATH"}


@dataclass(frozen=True)
class Positional:
    """Marks, in `Annotated`, a field that is given without its name."""


@dataclass(frozen=True)
class Option:
    """Something that a command line can say.

    Attributes:
        key: Dotted, as in a config file.
        hint: Its type.
        text: What it means.
        default: What holds unless it is given; `dataclasses.MISSING` if it must be.
        is_positional: Whether it has no flag.
    """

    key: str
    hint: Any
    text: str
    default: Any
    is_positional: bool = False

    @property
    def flag(self) -> str:
        """As it is written."""
        return f"--{self.key.replace('_', '-')}"

    @property
    def switch_words(self) -> tuple[str, ...] | None:
        """What may follow the flag of a switch, which alone means True; None where it is no switch."""
        kinds = _kinds(self.hint)
        return self.words if bool in kinds and (self.words or len(kinds) == 1) else None

    @property
    def negative(self) -> str | None:
        """The flag that switches it off; None where it is not a switch."""
        if self.switch_words is None:
            return None
        group, _, name = self.flag.removeprefix("--").rpartition(".")
        return f"--{group}.no-{name}" if group else f"--no-{name}"

    @property
    def words(self) -> tuple[str, ...]:
        """Those that may follow it, where these are few."""
        return tuple(str(choice) for kind in _kinds(self.hint) if kind is not bool for choice in _choices(kind))

    @property
    def takes_many(self) -> bool:
        """Whether several words may follow it."""
        return any(_is_tuple(kind) or _is_mapping(kind) for kind in _kinds(self.hint))

    def value(self, words: Sequence[str]) -> Any:
        """What words after the flag mean, as a config file says it.

        Raises:
            ConfigError: If they mean nothing.
        """
        if not words and not any(map(_is_tuple, _kinds(self.hint))):
            raise ConfigError(f"{self.flag} needs a value")
        problem = ""
        for kind in _kinds(self.hint):
            try:
                if _is_tuple(kind):
                    return _list(kind, words)
                if _is_mapping(kind):
                    return dict(_named(word) for word in words)
                if len(words) == 1:
                    return _read(kind, words[0])
            except ValueError as error:
                problem = problem or str(error)
        choices = [choice for kind in _kinds(self.hint) for choice in _choices(kind)]
        if choices:
            raise ConfigError(unknown_name(self.flag, words[0], map(str, choices)))
        raise ConfigError(f"{self.flag}: {problem}")


def options_of(schema: type[Any], instead: Schemas | None = None, prefix: str = "") -> dict[str, Option]:
    """Every option of a schema by its dotted key, those of dataclasses in it among them.

    Args:
        schema: A dataclass.
        instead: Dataclasses in place of those that the schema names, by dotted key.
        prefix: Of all keys.
    """
    options: dict[str, Option] = {}
    hints, texts = _hints(schema), _texts(schema)  # type: ignore[arg-type]  # a class is hashable
    for field in dataclasses.fields(schema):
        key, (hint, marks) = f"{prefix}{field.name}", hints[field.name]
        hint = (instead or {}).get(key, hint)
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            options |= options_of(hint, instead, f"{key}.")
            continue
        factory = field.default_factory
        default = field.default if factory is dataclasses.MISSING else factory()
        options[key] = Option(key, hint, texts.get(field.name, ""), default, Positional() in marks)
    return options


def head(option: Option) -> str:
    """An option as a line of help begins: its flag, and what it takes."""
    if option.is_positional:
        return option.key.upper()
    if option.switch_words is not None:
        words = f" [{'|'.join(option.switch_words)}]" * bool(option.switch_words)
        return f"{option.flag}, {option.negative}" if option.default is True else f"{option.flag}{words}"
    names = [_kind_name(kind) for kind in _kinds(option.hint) if kind is not type(None)]
    return f"{option.flag} {'|'.join(dict.fromkeys(names))}"


def _kind_name(kind: Any) -> str:
    if _is_tuple(kind):
        item = _bare(typing.get_args(kind)[0])[0]
        return f"[{_kind_name(item)}]..." if _is_tuple(item) else f"{_kind_name(item)}..."
    if _is_mapping(kind):
        return "NAME=VALUE..."
    return "|".join(map(str, _choices(kind))) or NAMES.get(kind, str(kind))


def _kinds(hint: Any) -> list[Any]:
    """The types that a value may have, None last but before what takes every word."""
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    parts = [_bare(part)[0] for part in (typing.get_args(hint) if is_union else (hint,))]
    return sorted(parts, key=lambda kind: (kind in (str, Path), _is_tuple(kind)))


def _is_tuple(kind: Any) -> bool:
    return bool(typing.get_origin(kind) is tuple)


def _is_mapping(kind: Any) -> bool:
    return bool(typing.get_origin(kind) is dict)


def _named(word: str) -> tuple[str, Any]:
    """A word NAME=VALUE, with the value as a config file would have it; raises ValueError."""
    name, is_set, value = word.partition("=")
    if not (name.isidentifier() and is_set):
        raise ValueError(f"{shown(word)} is not NAME=VALUE")
    for kind in (int, float):
        with contextlib.suppress(ValueError, OverflowError):
            read = kind(value)
            if math.isfinite(read):
                return name, read
    with contextlib.suppress(yaml.YAMLError, RecursionError, ValueError, TypeError):
        plain = yaml.safe_load(value)
        json.dumps(plain, allow_nan=False)  # raises for what JSON does not have
        return name, plain
    raise ValueError(f"the value of {shown(word)} is no number, word or list")


def _choices(kind: Any) -> tuple[Any, ...]:
    if kind is bool:
        return True, False
    return typing.get_args(kind) if typing.get_origin(kind) is Literal else ()


def _list(kind: Any, words: Sequence[str]) -> list[Any]:
    """Words as the items of a tuple, or a single one in brackets as all of it; raises ValueError."""
    item = typing.get_args(kind)[0]
    try:
        return [_read(item, word) for word in words]
    except ValueError:
        if len(words) != 1 or not words[0].startswith("["):
            raise
        return [_read(item, word) for word in _in_brackets(words[0])]


def _in_brackets(word: str) -> list[str]:
    """The items of a word such as `[32, 3]`, as words; raises ValueError."""
    with contextlib.suppress(json.JSONDecodeError, RecursionError):
        if isinstance(found := json.loads(word), list):
            return [one if isinstance(one, str) else json.dumps(one) for one in found]
    raise ValueError(f"{shown(word)} is no list, such as [32, 3]")


def _read(kind: Any, word: str) -> Any:
    """A word as a type; raises ValueError."""
    kind, _ = _bare(kind)
    if _is_tuple(kind):
        return [_read(typing.get_args(kind)[0], one) for one in _in_brackets(word)]
    if kind is type(None):
        if word == "None":
            return None
        raise ValueError("")
    if kind is int:
        return _integer(word)
    if kind is float:
        with contextlib.suppress(ValueError):
            return float(word)
        raise ValueError(f"{shown(word)} is no number")
    for choice in _choices(kind):
        if word == str(choice):
            return choice
    if kind in (str, Path):
        return word
    raise ValueError("")


def _integer(word: str) -> int:
    """An integer may be written as 1e6, as config files may."""
    with contextlib.suppress(ValueError):
        return int(word)  # not by way of float, which holds 53 bits
    with contextlib.suppress(ValueError):
        if float(word).is_integer():
            return int(float(word))
    raise ValueError(f"{shown(word)} is no integer")


def _bare(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """A hint without what `Annotated` adds, and that."""
    if typing.get_origin(hint) is typing.Annotated:
        bare, *marks = typing.get_args(hint)
        return bare, tuple(marks)
    return hint, ()


@functools.cache
def _hints(schema: type[Any]) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    return {name: _bare(hint) for name, hint in typing.get_type_hints(schema, include_extras=True).items()}


@functools.cache
def _texts(schema: type[Any]) -> dict[str, str]:
    """The docstring below each field of a class and of those that it inherits from."""
    texts: dict[str, str] = {}
    for owner in reversed(schema.__mro__):
        if not dataclasses.is_dataclass(owner):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, below in zip(body.body, body.body[1:], strict=False):
            is_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and is_text:
                texts[field.target.id] = str(below.value.value)  # type: ignore[attr-defined]  # as `is_text` says
    return texts
