"""Flags from a dataclass by tyro, with its error boxes turned into one line."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeVar

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from sparserl.errors import ConfigError, SparserlError, unknown_name

C = TypeVar("C")

WhichCheckpoint = Literal["best", "last"]

REGISTRY = ConstructorRegistry()
"""How flags are read, where tyro reads them otherwise."""


@REGISTRY.primitive_rule
def _whole_number(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[int] | None:
    """An integer may be written as 1e6, as config files may."""
    if info.type is not int:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=lambda words: _integer(words[0]),
        is_instance=lambda value: isinstance(value, int),
        str_from_instance=lambda value: [str(value)],
    )


def _integer(word: str) -> int:
    with contextlib.suppress(ValueError):
        return int(word)  # not by way of float, which holds 53 bits
    with contextlib.suppress(ValueError):
        if float(word).is_integer():
            return int(float(word))
    raise ValueError(f"{word!r} is no integer")


def parse(schema: type[C], arguments: Sequence[str], *, command: str, default: C | None = None) -> C:
    """Fills `schema` from flags.

    Args:
        schema: A dataclass; docstrings of fields are the help text.
        arguments: The flags.
        command: Sub-command, for the help text.
        default: What flags override; the schema's defaults if None.

    Raises:
        ConfigError: In one line, for an unknown flag (with the closest one) or a value that does not parse.
        SystemExit: With status 0 after `--help`.
    """
    prog = f"sparserl {command}"
    if "-h" in arguments or "--help" in arguments:
        return _cli(schema, ["--help"], prog, default)
    if default is not None and list(arguments[:-1]) == ["--config"]:
        # What a sweep says of each of its runs; tyro would take a tenth of a second for it.
        return dataclasses.replace(default, config=Path(arguments[1]))  # type: ignore[type-var]  # a dataclass
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            return _cli(schema, arguments, prog, default)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        refusal = _refusal(stop)
        if refusal is not None:
            raise refusal from None
    raise ConfigError(_one_line(printed.getvalue(), _flags(schema, prog, default)))


def _refusal(stop: BaseException) -> SparserlError | None:
    """Our own error that tyro put into a box, where long words are broken."""
    error: BaseException | None = stop
    while error is not None and not isinstance(error, SparserlError):
        error = error.__context__
    return error


def is_given(name: str, arguments: Sequence[str]) -> bool:
    """Whether the flag `--name` is among the words of a command line."""
    return any(word.split("=")[0] == f"--{name}" for word in arguments)


def given_value(name: str, arguments: Sequence[str]) -> str | None:
    """The word that follows the last `--name` of a command line, or stands behind its `=`; None if there is none."""
    for position, word in reversed(list(enumerate(arguments))):
        if word == f"--{name}" and position + 1 < len(arguments):
            return arguments[position + 1]
        if word.startswith(f"--{name}="):
            return word.split("=", 1)[1]
    return None


def _cli(schema: type[C], arguments: Sequence[str], prog: str, default: C | None) -> C:
    with REGISTRY:
        if default is None:
            return tyro.cli(schema, args=list(arguments), prog=prog)
        return tyro.cli(schema, args=list(arguments), prog=prog, default=default)


def _flags(schema: type[C], prog: str, default: C | None) -> list[str]:
    """Every flag that the help text shows."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        _cli(schema, ["--help"], prog, default)
    return sorted(set(re.findall(r"--[a-z][\w.-]*", printed.getvalue())))


def _one_line(box: str, flags: Sequence[str]) -> str:
    """The message inside one of tyro's boxes."""
    text = [re.sub(r"[\u2500-\u257f|]+|^[-\s]+$|\x1b\[[0-9;]*m", "", line).strip() for line in box.splitlines()]
    unknown = next((line for line in text if line.startswith("Unrecognized options: ")), None)
    if unknown is not None:
        words = unknown.removeprefix("Unrecognized options: ").replace(",", " ").split()
        bad = next((word for word in words if word.startswith("-")), words[0])
        return unknown_name("option", bad.split("=")[0], flags) if bad.startswith("-") else f"unexpected word {bad!r}"
    body = text[2:] if len(text) > 2 else text
    message: list[str] = []
    for line in body:
        if message and (not line or line.startswith("Argument helptext")):
            break
        if line:
            message.append(line)
    return re.sub(r"^Error parsing \w+(\.\w+)*: ", "", " ".join(message)) or "the options could not be read"
