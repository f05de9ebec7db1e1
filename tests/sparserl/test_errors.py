"""Messages: one line of bounded length, whatever they are about."""

from __future__ import annotations

import pytest

from sparserl.errors import LONGEST_MESSAGE, ConfigError, SparserlError, clipped, one_line, shown, unknown_name


def test_a_message_is_one_line_without_its_middle() -> None:
    assert str(ConfigError("a\n  b\tc")) == "a b c"
    assert str(ConfigError("short")) == "short"
    long = str(SparserlError("begin " + "x" * 100_000 + " end"))
    assert len(long) == LONGEST_MESSAGE
    assert (long[:6], long[-4:]) == ("begin ", " end")
    assert " ... " in long


def test_control_characters_are_escaped() -> None:
    assert one_line("a\x1b[31m\ud800") == r"a\x1b[31m\ud800"


def test_clipped() -> None:
    assert clipped("a" * 10, 10) == "a" * 10
    assert clipped("0123456789abcdef", 11) == "012 ... def"


@pytest.mark.parametrize("value", ["x" * 10**6, 10**9, list(range(10**6)), {"a": "y" * 10**6}, [[[[[[1]]]]]]], ids=type)
def test_a_shown_value_is_short(value: object) -> None:
    assert len(shown(value)) <= 80


def test_a_shown_value_is_its_repr() -> None:
    for value in ("a'b", 1.5, None, [1, "b"], float("nan")):
        assert shown(value) == repr(value)


def test_a_long_name_is_unknown_soon() -> None:
    """Comparing names takes time that grows with the square of their length."""
    line = unknown_name("preset", "HalfCheetah" * 20_000, ["ds_td3/HalfCheetah-v5", "sac/published"])
    assert len(line) < 200
