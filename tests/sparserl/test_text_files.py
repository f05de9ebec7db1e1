"""Files that users write: what is read of YAML and JSON, and that the rest is refused in one line, soon."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sparserl.errors import LONGEST_MESSAGE, ConfigError
from sparserl.text_files import read_json, read_yaml

LAUGHS = "a: &a [l, l, l, l, l, l, l, l, l]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{below}'] * 9)}]\n" for below, name in zip("abcdefgh", "bcdefghi", strict=True)
)
REFUSED = {
    "": "must hold keys and values, got NoneType",
    "[1, 2]": "must hold keys and values, got list",
    "a: [1": "is not valid YAML",
    "a: 1\n---\nb: 2": "is not valid YAML: expected a single document",
    "a: !!python/object/apply:os.system ['true']": "python/object/apply:os.system is no plain value",
    "a: !!set {x, y}": "set is no plain value",
    "a: !!int many": "'many' is no int",
    "a: !!bool many": "'many' is no bool",
    "a: !!float ''": "'' is no float",
    "a: " + "9" * 5000: "a number has more than 40 characters",
    "a: " + "1:" * 50 + "1": "a number has more than 40 characters",
    "a: " + "x" * 5000: "a text has more than 4,000 characters",
    "a" * 500 + ": 1": "a key has more than 200 characters",
    "seed: 1\nname: b\nseed: 2": "the key 'seed' is there twice",
    "1: a": "a key must be text; put '1' in quotes",
    "yes: a": "a key must be text; put 'yes' in quotes",
    "? [a, b]\n: c": "a key must be text, got a list or mapping",
    r'a: "\0"': "characters that cannot be written",
    r'a: "\uD800"': "characters that cannot be written",
    "a: " + "[" * 5000: "nested more than 20 deep",
    "a: " + "{b: " * 5000: "nested more than 20 deep",
    "".join(" " * level + "a:\n" for level in range(200)): "nested more than 20 deep",
    "- " * 5000: "nested more than 20 deep",
    "a: &a [*a]": "nested more than 20 deep",
    LAUGHS: "more than 20,000 values",
    "#" * 200_000: "is too large: it has more than 131,072 bytes",
}


def one_line(refusal: pytest.ExceptionInfo[ConfigError]) -> str:
    message = str(refusal.value)
    assert "\n" not in message
    assert len(message) <= LONGEST_MESSAGE
    return message


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[:20])
def test_yaml_beyond_bounds_is_refused_in_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as refusal:
        read_yaml(path)
    assert REFUSED[text] in one_line(refusal)
    assert "c.yaml" in str(refusal.value)


def test_plain_yaml_is_read(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("a: &a [1, 2.5, yes, null, x, 2024-01-01, =, 1e-3]\nb: {c: *a}\nd: *a\n'1': .nan\n")
    data = read_yaml(path)
    assert str(data.pop("1")) == "nan"
    values = [1, 2.5, True, None, "x", "2024-01-01", "=", "1e-3"]  # dates are text, and `1e-3` as YAML 1.1 has it
    assert data == {"a": values, "b": {"c": values}, "d": values}
    data["d"].append(3)
    assert data["a"] == data["b"]["c"] == values, "an alias is a copy"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[" * 100_000, "is not valid JSON: maximum recursion depth"),
        ("[NaN]", "is not valid JSON: NaN is no number"),
        ("[-Infinity]", "is not valid JSON: -Infinity is no number"),
        ("9" * 5000, "is not valid JSON"),
        ("{", "is not valid JSON"),
    ],
    ids=range(5),
)
def test_json_that_is_none_is_refused_in_one_line(text: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ConfigError) as refusal:
        read_json(path)
    assert problem in one_line(refusal)


def test_what_is_no_plain_file_is_refused_without_waiting(tmp_path: Path) -> None:
    pipe, missing, binary = tmp_path / "pipe", tmp_path / "none", tmp_path / "binary"
    os.mkfifo(pipe)
    binary.write_bytes(b"\xff\xfe\x00\x81")
    reasons = {
        pipe: "it is no plain file",
        Path("/dev/zero"): "it is no plain file",
        tmp_path: "Is a directory",
        missing: "No such file",
        Path("a\0b"): "no file can be called that",
        tmp_path / ("x" * 300): "File name too long",
        binary: "is not text in UTF-8",
    }
    for path, reason in reasons.items():
        with pytest.raises(ConfigError) as refusal:
            read_yaml(path)
        assert reason in one_line(refusal)
