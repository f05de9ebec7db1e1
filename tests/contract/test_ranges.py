"""Every number that a user can set has a range, and what is out of it is refused in one line, from Python and flags."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import math
import typing
from typing import Any

import pytest

from sparserl.bench.options import KernelOptions, ReturnOptions, ScaleOptions, UpdateOptions
from sparserl.cli.arguments import parse
from sparserl.cli.main import COMMANDS
from sparserl.config import build
from sparserl.envs import RLSequence
from sparserl.errors import LONGEST_MESSAGE, ConfigError, SparserlError
from sparserl.ranges import MOST_ITEMS, Range, check_ranges, ranges_of

TRIED = (math.nan, math.inf, -math.inf, -1, 0, 1e30, -(10**400), 10**400)
"""Also what no float holds."""
MORE = (
    *(
        "sparserl.agents.config",
        "sparserl.agents.critics_config",
        "sparserl.cli.running",
        "sparserl.experiment.continual_config",
    ),
    "sparserl.experiment.fit_config",
    *("sparserl.experiment.rl_continual_config", "sparserl.experiment.train_config"),
)
"""Modules with schemas that no other one names."""


def schemas() -> list[type[Any]]:
    """Every dataclass that commands fill, by itself or within another."""
    of_bench = (UpdateOptions, KernelOptions, ScaleOptions, ReturnOptions)
    found: dict[type[Any], None] = dict.fromkeys((RLSequence, *of_bench))
    for name in [module for module, _ in COMMANDS.values()] + list(MORE):
        for one in vars(importlib.import_module(name)).values():
            if isinstance(one, type) and dataclasses.is_dataclass(one) and one.__name__.endswith(("Command", "Config")):
                found[one] = None
    waiting = list(found)
    while waiting:
        for hint in typing.get_type_hints(waiting.pop()).values():
            for part in (hint, *typing.get_args(hint)):
                if isinstance(part, type) and dataclasses.is_dataclass(part) and part not in found:
                    found[part] = None
                    waiting.append(part)
    return [schema for schema in found if not inspect.isabstract(schema)]


def numeric_fields(schema: type[Any]) -> list[str]:
    """Fields that hold numbers, be they optional or in tuples."""

    def holds_numbers(hint: Any) -> bool:
        return hint in (int, float) or any(holds_numbers(part) for part in typing.get_args(hint))

    hints = typing.get_type_hints(schema)
    return [field.name for field in dataclasses.fields(schema) if holds_numbers(hints[field.name])]


SCHEMAS = schemas()
FIELDS = [(schema, name) for schema in SCHEMAS for name in numeric_fields(schema)]


def test_the_walk_finds_them() -> None:
    names = {schema.__name__ for schema in SCHEMAS}
    assert {"TrainConfig", "TD3Config", "SACConfig", "TopologyConfig", "WrapperConfig", "EvalConfig"} <= names
    assert {"ContinualConfig", "LearnerConfig", "SpaceNetOptions", "RLContinualConfig", "BorderConfig"} <= names
    assert {"WandbConfig", "SweepCommand", "TuneCommand", "EvalCommand", "EnjoyCommand", "TaskSpec"} <= names
    assert len(FIELDS) > 100


NEEDED: dict[str, dict[str, Any]] = {
    "TaskSpec": {"name": "a", "env": "b", "modification": {}, "steps": 1, "index": 0},
    "PartFactors": {"part": "leg"},
    **{command: {"run": "x"} for command in ("CardCommand", "EnjoyCommand", "ExportCommand", "InspectCommand")},
    "PushCommand": {"run": "x", "repo": "a/b"},
    "EvalCommand": {"run": ["x"]},
    "PruneCommand": {"run": "x", "density": 0.5},
    **{command: {"runs": ["x"]} for command in ("PlotCommand", "ReportCommand")},
    **{command: {"file": "x"} for command in ("SweepCommand", "TuneCommand")},
}
"""What else a schema must be given."""


def refusal(schema: type[Any], data: dict[str, Any]) -> str:
    """What a schema says of plain data; empty if it takes it."""
    try:
        build(schema, data)
    except SparserlError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("schema", "name"), FIELDS, ids=lambda part: getattr(part, "__name__", part))
def test_every_number_has_a_range_that_is_checked(schema: type[Any], name: str) -> None:
    """Through the schema, as a YAML file fills it."""
    assert name in ranges_of(schema), f"give {schema.__name__}.{name} a range, see sparserl/ranges.py"
    hint = typing.get_type_hints(schema)[name]
    is_tuple = any(typing.get_origin(part) is tuple for part in (hint, *typing.get_args(hint)))
    for value in TRIED:
        said = refusal(schema, {**NEEDED.get(schema.__name__, {}), name: [value] if is_tuple else value})
        assert len(said) <= LONGEST_MESSAGE
        if value not in ranges_of(schema)[name]:
            assert name in said.replace("-", "_"), f"{schema.__name__}.{name} of {value}: {said}"


@pytest.mark.parametrize("schema", [schema for schema in SCHEMAS if schema.__name__.endswith("Command")])
def test_flags_of_commands_are_checked(schema: type[Any]) -> None:
    needed = NEEDED.get(schema.__name__, {})
    words = ["x"] if {"file", "runs"} & needed.keys() else [f"--{name}={value}" for name, value in needed.items()]
    for name in numeric_fields(schema):
        flag = f"--{name.replace('_', '-')}"
        for value in ("nan", "inf", "-1", "1e30"):
            with pytest.raises(ConfigError, match=flag):
                parse(schema, [*words, f"{flag}={value}"], command="x")


def test_intervals() -> None:
    half_open = Range("(0, 1]")
    assert [number in half_open for number in (0, 1e-300, 1, 1.0000001, math.nan)] == [False, True, True, False, False]
    assert [number in Range("[0, 2**32)") for number in (-1, 0, 2**32 - 1, 2**32)] == [False, True, True, False]
    assert [number in Range("(-inf, inf)") for number in (math.inf, -1e308, 10**400)] == [False, True, False]


@pytest.mark.parametrize(
    ("text", "number", "said"),
    [
        ("(0, 1]", 0, "must be in (0, 1]"),
        ("[0, 2**32)", -1, "must not be negative"),
        ("[0, 2**32)", 2**32, "must be below 2**32"),
        ("[1, 1e12]", 0, "must be at least 1"),
        ("[1, 1e12]", 1e30, "must be at most 1e12"),
        ("(0, inf)", 0, "must be positive"),
        ("(0, inf)", math.nan, "must be positive"),
        ("(0, inf)", math.inf, "must be finite"),
        ("(-inf, inf)", math.nan, "must be finite"),
    ],
)
def test_a_range_says_the_end_that_a_number_is_beyond(text: str, number: float, said: str) -> None:
    assert number not in Range(text)
    assert Range(text).refusal(number) == said


def test_messages_name_the_field_the_range_and_the_value() -> None:
    @dataclasses.dataclass
    class Schema:
        hidden_widths: tuple[typing.Annotated[int, Range("[1, 1e12]")], ...] | None = None

    check_ranges(Schema(), "agent.")
    with pytest.raises(ConfigError, match=r"^agent\.hidden-widths must be at least 1, got \(3, 0\)$"):
        check_ranges(Schema((3, 0)), "agent.")
    with pytest.raises(ConfigError, match=r"^agent\.hidden_widths must be at most 1e12, got \(10000000000000,\)$"):
        check_ranges(Schema((10**13,)), "agent.", hyphens=False)
    with pytest.raises(ConfigError, match=f"at most {MOST_ITEMS} numbers, got 100,000"):
        check_ranges(Schema((1,) * 100_000), "agent.")


def test_defaults_are_in_range() -> None:
    for schema in SCHEMAS:
        assert refusal(schema, NEEDED.get(schema.__name__, {})) in ("", "name is missing", "runs is missing")
