"""Command lines: what was given as plain data, and the help text; which options there are is in `sparserl.cli.options`.

A dataclass is the schema, docstrings of its fields are the help. Nothing is filled in here, so that what was given can
lie over presets and files (`sparserl.experiment.resolve`); libraries that make flags of dataclasses return the filled
dataclass alone, and say what is wrong on the screen alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import io
import shutil
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar

from sparserl.cli.options import Option, head, options_of
from sparserl.config import build, nested
from sparserl.errors import ConfigError, shown, unknown_name

C = TypeVar("C")
HELP, HELP_ALL = ("-h", "--help"), "--help-all"
WIDEST_HELP, NARROWEST_FLAG, NARROWEST_TEXT = 120, 24, 34
"""Characters of a line of help, and of its columns of flags and of what they mean."""


def given(
    words: Sequence[str], options: Mapping[str, Option], elsewhere: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """What a command line says, by dotted key.

    Args:
        words: The command line.
        options: That there are.
        elsewhere: Flags of other programs -> what they are here.

    Raises:
        ConfigError: In one line, for an unknown flag (with the one to take) or a word that means nothing.
    """
    flags = {option.flag: option for option in options.values() if not option.is_positional}
    negatives = {option.negative: option for option in flags.values() if option.negative is not None}
    positional = next((option for option in options.values() if option.is_positional), None)
    given_values: dict[str, Any] = {}
    loose: list[str] = []
    for flag, values in _split(words):
        if flag in negatives:
            given_values[negatives[flag].key] = False
        elif flag in flags:
            option = flags[flag]
            most = _words_of(option, values, alone=positional is None)
            given_values[option.key] = True if option.negative and not most else option.value(values[:most])
            values = values[most:]
        elif flag in (elsewhere or {}):
            raise ConfigError(f"there is no {flag} here; it is {(elsewhere or {})[flag]}")
        elif flag:
            raise ConfigError(unknown_name("option", flag, [*flags, *negatives]))
        loose += values
    if positional is not None and loose:
        given_values[positional.key] = positional.value(loose if positional.takes_many else loose[:1])
        loose = [] if positional.takes_many else loose[1:]
    if loose:
        is_leading = positional is None and words[0] == loose[0]
        advice = "; a value follows its option, and --help lists these" if is_leading else ""
        raise ConfigError(f"unexpected word {shown(loose[0])}{advice}")
    return given_values


def _words_of(option: Option, values: Sequence[str], *, alone: bool) -> int:
    """How many of the words after its flag belong to an option; `alone` where nothing else would take them."""
    words = option.switch_words
    if words is None:
        return len(values) if option.takes_many else 1
    if not words or not values:
        return 0
    return int(alone or values[0] in words)


def last_value(name: str, words: Sequence[str]) -> str | None:
    """The word that the last `--name` of a command line gives it; None if there is none."""
    values = [texts[0] for flag, texts in _split(words) if flag == f"--{name}" and texts]
    return values[-1] if values else None


def parse(schema: type[C], arguments: Sequence[str], *, command: str, below: Mapping[str, Any] | None = None) -> C:
    """Fills `schema` from flags.

    Args:
        schema: A dataclass; docstrings of fields are the help text.
        arguments: The flags.
        command: Sub-command, for the help text.
        below: What holds unless it is given, in place of the schema's defaults.

    Raises:
        ConfigError: In one line, for an unknown flag (with the closest one) or a value that does not parse.
        SystemExit: With status 0 after `--help`.
    """
    options = options_of(schema)
    if wants_help(arguments):
        print_help(command, inspect.getdoc(schema) or "", options.values())
        raise SystemExit(0)
    values = given(arguments, options)
    for option in options.values():
        if option.is_positional and option.takes_many:
            values.setdefault(option.key, [])
        if option.default is dataclasses.MISSING and option.key not in values:
            raise ConfigError(f"{option.key.upper() if option.is_positional else option.flag} is missing")
    return build(schema, nested({**(below or {}), **values}))


def wants_help(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for help."""
    return any(word in (*HELP, HELP_ALL) for word in arguments)


_ASKED: ContextVar[list[Option] | None] = ContextVar("asked", default=None)


def asked_options(run: Callable[[Sequence[str]], object], words: Sequence[str]) -> list[Option]:
    """What a command takes after some words that ask for its help, of which nothing is printed."""
    found: list[Option] = []
    token = _ASKED.set(found)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
            run(words)
    finally:
        _ASKED.reset(token)
    return found


def print_help(command: str, about: str, options: Iterable[Option], end: str = "") -> None:
    """Prints what a command takes; options beyond the first group each below the name of theirs.

    Args:
        command: The sub-command.
        about: What it does.
        options: To be shown, with what holds unless they are given.
        end: Last line.
    """
    shown_options = list(options)
    if (asked := _ASKED.get()) is not None:
        asked.extend(shown_options)
        return
    width = min(WIDEST_HELP, shutil.get_terminal_size().columns)
    positional = "".join(f" {option.key.upper()}" for option in shown_options if option.is_positional)
    lines = [f"usage: sparserl {command}{positional} [options]", "", *_wrapped(about, width, ""), ""]
    widest = max(0, min(width - NARROWEST_TEXT, 5 + max(len(head(option)) for option in shown_options)))
    columns = range(widest, min(widest, NARROWEST_FLAG) - 1, -1)
    table: list[str] = min((_table(shown_options, column, width) for column in columns), key=len)
    lines += table
    print("\n".join([*lines, *(["", *_wrapped(end, width, "")] if end else [])]))


def _table(options: Sequence[Option], column: int, width: int) -> list[str]:
    """Lines of options, what they mean from a column on; below flags that reach it."""
    lines = []
    for option in options:
        left = f"  {head(option)}"
        text = _wrapped(f"{option.text} {_default(option)}".strip(), max(NARROWEST_TEXT, width - column), "")
        if len(left) > column - 2:
            lines.append(left)
            left = ""
        lines += [f"{left:<{column}}{text[0]}".rstrip(), *(" " * column + line for line in text[1:])]
    return lines


def _wrapped(text: str, width: int, indent: str) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), width, initial_indent=indent, subsequent_indent=indent) or [""]


def _default(option: Option) -> str:
    if option.default is dataclasses.MISSING:
        return "" if option.is_positional else "(required)"
    if option.default in (None, False, (), {}):
        return ""
    values = option.default if isinstance(option.default, list | tuple) else [option.default]
    return f"({' '.join(f'{value:.6g}' if isinstance(value, float) else str(value) for value in values)})"


def _split(words: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Flags, each with the words up to the next one; "" has those before the first."""
    parts: list[tuple[str, list[str]]] = [("", [])]
    for word in words:
        if word.startswith("--") and len(word) > 2:
            flag, is_set, value = word.partition("=")
            name = flag.replace("_", "-") if "_" in flag else flag
            parts.append((name, [value] if is_set else []))
        else:
            parts[-1][1].append(word)
    return parts
