"""YAML to dataclasses and back: types, unknown keys, layers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from sparserl import config
from sparserl.errors import ConfigError


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1
    widths: tuple[int, ...] = (4, 4)


@dataclass(frozen=True)
class Schema:
    seed: int = 0
    name: str = "x"
    flag: bool = False
    share: float | tuple[float, ...] | None = None
    mode: Literal["fast", "slow"] = "fast"
    place: Path | None = None
    inner: Inner = field(default_factory=Inner)
    free: dict[str, Any] = field(default_factory=dict)


FREE = {"a": 1e-3, "b": [2e5, "e5", "1e999"], "c": {"d": -5.0}}


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def build(**data: Any) -> Schema:
    return config.build(Schema, data)


def test_missing_keys_keep_their_default() -> None:
    assert build() == Schema()
    assert build(inner={"rate": 2}).inner == Inner(rate=2.0)


@pytest.mark.parametrize(
    ("key", "given", "expected"),
    [
        ("seed", "1e6", 1_000_000),
        ("seed", 3.0, 3),
        ("seed", 2**60 + 1, 2**60 + 1),  # more than a float holds
        ("seed", -1, -1),
        ("share", "1e-3", 1e-3),
        ("share", 1, 1.0),
        ("share", [0.1, "2e-1"], (0.1, 0.2)),
        ("share", None, None),
        ("flag", True, True),
        ("mode", "slow", "slow"),
        ("place", "a/b", Path("a/b")),
        ("inner", {"widths": [1, 2, 3]}, Inner(widths=(1, 2, 3))),
        ("free", {"a": "1e-3", "b": ["2E5", "e5", "1e999"], "c": {"d": "-.5e1"}}, FREE),
    ],
)
def test_values_take_the_type_of_their_field(key: str, given: Any, expected: Any) -> None:
    value = getattr(build(**{key: given}), key)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"sead": 1}, "unknown config key 'sead'; did you mean 'seed'?"),
        ({"inner": {"ratee": 1}}, "unknown config key 'inner.ratee'; did you mean 'inner.rate'?"),
        ({"inner.rate": 1}, "config key inner.rate must be written as inner: {rate: ...}"),
        ({"innr.rate": 1}, "unknown config key 'innr.rate'; did you mean 'inner'?"),
        ({"seed": "many"}, "seed must be int, got 'many'"),
        ({"seed": 1.5}, "seed must be int, got 1.5"),
        ({"seed": True}, "seed must be int, got True"),
        ({"seed": float("inf")}, "seed must be int, got inf"),
        ({"name": 3}, "name must be str, got 3"),
        ({"flag": "yes"}, "flag must be bool, got 'yes'"),
        ({"flag": 1}, "flag must be bool, got 1"),
        ({"mode": "slw"}, "unknown mode 'slw'; did you mean 'slow'?"),
        ({"inner": 3}, "inner must be Inner, got 3"),
        ({"inner": {"widths": [1, "b"]}}, "inner.widths must be int, got 'b'"),
        ({"inner": {"widths": 3}}, "inner.widths must be tuple, got 3"),
        ({"share": "half"}, "share must be float | tuple[float, ...] | None, got 'half'"),
        ({"inner": {"rate": None}}, "inner.rate must be float, got None"),
    ],
)
def test_a_wrong_key_or_value_is_named_in_one_line(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        build(**data)
    assert str(refusal.value) == message


def test_a_missing_key_without_a_default_is_named() -> None:
    @dataclass(frozen=True)
    class Task:
        env: str
        steps: int = 1

    with pytest.raises(ConfigError, match=r"^tasks\.env is missing$"):
        config.build(Task, {"steps": 3}, "tasks.")


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    original = Schema(seed=2**40 + 1, share=(0.1, 1 / 3), place=Path("p"), inner=Inner(rate=1e-17, widths=()))
    path = write(tmp_path / "c.yaml", config.dump(original))
    assert config.build(Schema, config.load_yaml(path)) == original
    assert config.dump(original).startswith("seed:")


def test_merge_goes_key_by_key() -> None:
    below = {"a": 1, "b": {"c": 2, "d": [1, 2]}, "e": {"f": 1}}
    assert config.merge(below, {"b": {"d": [3]}, "e": None, "g": 4}) == {
        "a": 1,
        "b": {"c": 2, "d": [3]},
        "e": None,
        "g": 4,
    }
    assert below["b"] == {"c": 2, "d": [1, 2]}


def test_extends_is_relative_and_one_level_deep(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", "seed: 1\ninner: {rate: 0.5, widths: [9]}\n")
    child = write(tmp_path / "child.yaml", "extends: base\ninner: {rate: 0.25}\n")
    assert config.load_yaml(child) == {"seed": 1, "inner": {"rate": 0.25, "widths": [9]}}
    grandchild = write(tmp_path / "grandchild.yaml", "extends: child\n")
    with pytest.raises(ConfigError, match=r"one level deep, but child\.yaml extends another"):
        config.load_yaml(grandchild)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must hold keys and values, got NoneType"),
        (b"[1, 2]", "must hold keys and values, got list"),
        (b"a: [1", "is not valid YAML"),
        (b"a: !!python/object/apply:os.system ['true']", "is no plain value"),
        (b"\xff\xfe\x00\x81", "is not"),
        (b"extends: nowhere", "cannot read"),
    ],
)
def test_an_unusable_file_is_refused_in_one_line(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as refusal:
        config.load_yaml(path)
    assert "\n" not in str(refusal.value)
    assert str(tmp_path) in str(refusal.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.yaml", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError, match=f"cannot read .*{reason}"):
            config.load_yaml(path)
