"""Files that users write, read with care: plain files of bounded size, text in UTF-8, numbers and nesting in bounds.

Decides how much is read and what counts as plain data. Independent of what any of it means.
"""

from __future__ import annotations

import json
import re
import stat
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from sparserl.errors import ConfigError, clipped, shown

KIBIBYTE = 2**10
MOST_YAML_BYTES, MOST_JSON_BYTES = 128 * KIBIBYTE, 64 * KIBIBYTE**2
DEEPEST = 20
"""Levels of lists and mappings in YAML."""
MOST_VALUES = 20_000
"""Values in a YAML file; one that is named by an alias counts each time."""
LONGEST_KEY, LONGEST_TEXT, LONGEST_NUMBER = 200, 4_000, 40
"""Characters of a key, of a value, and of a number."""


def read_bytes(path: Path, most: int) -> bytes:
    """What a plain file holds.

    Raises:
        ConfigError: If it cannot be read, is no plain file (a device or pipe may never end), or is larger than `most`.
    """
    if "\0" in str(path):
        raise ConfigError(f"cannot read {shown(str(path))}: no file can be called that")
    try:
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # of a folder, opening says what is wrong
            raise ConfigError(f"cannot read {path}: it is no plain file")
        with path.open("rb") as file:
            raw = file.read(most + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    if len(raw) > most:
        raise ConfigError(f"{path} is too large: it has more than {most:,} bytes")
    return raw


def read_text(path: Path, most: int) -> str:
    """As `read_bytes`, as text in UTF-8.

    Raises:
        ConfigError: Also if it is not that.
    """
    try:
        return read_bytes(path, most).decode()
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not text in UTF-8") from None


def read_json(path: Path, most: int = MOST_JSON_BYTES) -> Any:
    """What a JSON file holds; NaN and infinity, which JSON does not have, are refused.

    Raises:
        ConfigError: If it cannot be read or is not JSON.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no number")

    try:
        return json.loads(read_text(path, most), parse_constant=refuse)
    except ConfigError:
        raise
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid JSON: {error}") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file; what aliases name is copied, so that nothing is shared.

    Raises:
        ConfigError: If it cannot be read, is not valid, is no mapping, holds a key twice or one that is no text, a date
            or another value that is not plain, or more of anything than the bounds above allow.
    """
    text = read_text(path, MOST_YAML_BYTES)
    try:
        data = _load(text)
    except _Refused as error:
        raise ConfigError(f"{path}: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold keys and values, got {type(data).__name__}")
    return data


def _load(text: str) -> Any:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        return None if node is None else _Plain(loader).value(node, 0)
    finally:
        loader.dispose()


class _Refused(yaml.MarkedYAMLError):
    """Something in a YAML file that is not read."""

    def __init__(self, problem: str, node: yaml.Node | None):
        super().__init__(problem=problem, problem_mark=None if node is None else node.start_mark)

    def __str__(self) -> str:
        mark = self.problem_mark
        return str(self.problem) if mark is None else f"{self.problem} (line {mark.line + 1})"


class _Loader(yaml.SafeLoader):
    """Up to nodes, not deeper than `DEEPEST`; `_Plain` makes values of them."""

    # Without dates, which are text here, and the keys `=` and `<<`, which mean something in YAML 1.1 alone.
    yaml_implicit_resolvers = {  # noqa: RUF012  # as PyYAML has it
        first: [(tag, pattern) for tag, pattern in rules if tag.rpartition(":")[2] in ("bool", "int", "float", "null")]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > DEEPEST + 1:
            raise _Refused(f"lists and mappings are nested more than {DEEPEST} deep", parent)
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Plain:
    """Values of nodes; counts them."""

    def __init__(self, loader: _Loader):
        self._loader, self._count = loader, 0

    def value(self, node: yaml.Node, depth: int) -> Any:
        """What a node stands for.

        Args:
            node: From the loader.
            depth: Lists and mappings around it.
        """
        self._count += 1
        if self._count > MOST_VALUES:
            raise _Refused(f"it holds more than {MOST_VALUES:,} values", node)
        if depth > DEEPEST:  # by way of an alias, of itself even
            raise _Refused(f"lists and mappings are nested more than {DEEPEST} deep", node)
        kind = str(node.tag).removeprefix("tag:yaml.org,2002:")
        if isinstance(node, yaml.MappingNode) and kind == "map":
            keys = [self._key(key) for key, _ in node.value]
            twice = next((key for key, times in Counter(keys).items() if times > 1), None)
            if twice is not None:
                raise _Refused(f"the key {shown(twice)} is there twice", node)
            return {key: self.value(of, depth + 1) for key, (_, of) in zip(keys, node.value, strict=True)}
        if isinstance(node, yaml.SequenceNode) and kind == "seq":
            return [self.value(item, depth + 1) for item in node.value]
        if isinstance(node, yaml.ScalarNode) and kind in ("null", "bool", "int", "float", "str"):
            return self._scalar(node, kind)
        raise _Refused(f"{clipped(kind)} is no plain value", node)

    def _key(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise _Refused("a key must be text, got a list or mapping", node)
        if node.tag != "tag:yaml.org,2002:str":
            raise _Refused(f"a key must be text; put {shown(node.value)} in quotes", node)
        if len(node.value) > LONGEST_KEY:
            raise _Refused(f"a key has more than {LONGEST_KEY} characters", node)
        key: str = self._scalar(node, "str")
        return key

    def _scalar(self, node: yaml.ScalarNode, kind: str) -> Any:
        text = str(node.value)
        if kind == "str":
            if len(text) > LONGEST_TEXT:
                raise _Refused(f"a text has more than {LONGEST_TEXT:,} characters", node)
            if re.search("[\ud800-\udfff\x00-\x08\x0b-\x1f\x7f]", text):
                raise _Refused(f"a text has characters that cannot be written, {shown(text)}", node)
            return text
        if kind in ("int", "float") and len(text) > LONGEST_NUMBER:
            raise _Refused(f"a number has more than {LONGEST_NUMBER} characters", node)
        try:
            return self._loader.construct_object(node)
        except (ValueError, LookupError, OverflowError):  # `!!int many`
            raise _Refused(f"{shown(text)} is no {kind}", node) from None
