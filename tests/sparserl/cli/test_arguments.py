"""Flags: what words mean as plain data, and the one line that refuses those that mean nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from sparserl.agents.on_policy_config import PPOConfig
from sparserl.cli import running
from sparserl.cli.arguments import given, last_value, nested, parse
from sparserl.cli.options import Positional, options_of
from sparserl.errors import ConfigError
from sparserl.experiment.train_config import TrainConfig


@dataclass(frozen=True)
class Inner:
    """A group."""

    count: int = 3
    """How many."""
    is_shown: bool = True


@dataclass(frozen=True)
class Other:
    """Stands in for the group."""

    share: float = 0.5


@dataclass(frozen=True)
class Schema:
    """What a command takes."""

    name: str = "a"
    """What it is called."""
    steps: int = 10
    share: float = 0.5
    folder: Path = Path("here")
    quiet: bool = False
    progress_bar: bool = True
    switch: bool | None = None
    limit: int | None = None
    method: Literal["set", "rigl", "static"] = "set"
    level: Literal[1, 2] = 1
    text_or_number: str | int = "x"
    widths: tuple[int, ...] = (4, 4)
    selected: float | tuple[int, ...] | None = None
    pairs: tuple[tuple[int, ...], ...] = ()
    marked: Annotated[int, "a mark"] = 1
    inner: Inner = field(default_factory=Inner)


@dataclass(frozen=True)
class Files:
    """A command with words of its own."""

    paths: Annotated[tuple[Path, ...], Positional()]
    title: str = ""


@dataclass(frozen=True)
class OneFile:
    """A command with one word of its own."""

    path: Annotated[Path, Positional()]
    seed: int


def read(*words: str) -> dict[str, Any]:
    """What they say of `Schema`."""
    return given(words, options_of(Schema))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {}),
        (["--name", "b"], {"name": "b"}),
        (["--name=b"], {"name": "b"}),
        (["--name=b=c"], {"name": "b=c"}),
        (["--name="], {"name": ""}),
        (["--name", "-5"], {"name": "-5"}),
        (["--steps", "-5"], {"steps": -5}),
        (["--steps", "1e6"], {"steps": 1000000}),
        (["--steps", "9007199254740993"], {"steps": 2**53 + 1}),  # more than a float holds
        (["--share", "1e-3"], {"share": 0.001}),
        (["--share", "3"], {"share": 3.0}),
        (["--share", "inf"], {"share": math.inf}),
        (["--folder", "a/b"], {"folder": "a/b"}),
        (["--quiet"], {"quiet": True}),
        (["--no-quiet"], {"quiet": False}),
        (["--progress-bar"], {"progress_bar": True}),
        (["--progress_bar"], {"progress_bar": True}),
        (["--no-progress-bar"], {"progress_bar": False}),
        (["--switch", "True"], {"switch": True}),  # with None it is no switch
        (["--switch", "False"], {"switch": False}),
        (["--switch", "None"], {"switch": None}),
        (["--limit", "None"], {"limit": None}),
        (["--limit", "7"], {"limit": 7}),
        (["--method", "rigl"], {"method": "rigl"}),
        (["--level", "2"], {"level": 2}),
        (["--text-or-number", "7"], {"text_or_number": 7}),  # what takes every word comes last
        (["--text-or-number", "seven"], {"text_or_number": "seven"}),
        (["--widths", "1", "2", "3"], {"widths": [1, 2, 3]}),
        (["--widths=1"], {"widths": [1]}),
        (["--widths=1", "2"], {"widths": [1, 2]}),
        (["--widths"], {"widths": []}),
        (["--widths", "[1, 2]"], {"widths": [1, 2]}),
        (["--selected", "[4,8]"], {"selected": [4, 8]}),
        (["--pairs", "[[1,2],[3]]"], {"pairs": [[1, 2], [3]]}),
        (["--pairs", "[1,2]", "[3]"], {"pairs": [[1, 2], [3]]}),
        (["--pairs=[1e6, 2]"], {"pairs": [[1000000, 2]]}),
        (["--pairs"], {"pairs": []}),
        (["--selected", "0.5"], {"selected": 0.5}),
        (["--selected", "4"], {"selected": 4.0}),
        (["--selected", "4", "8"], {"selected": [4, 8]}),
        (["--selected", "None"], {"selected": None}),
        (["--marked", "2"], {"marked": 2}),
        (["--inner.count", "4"], {"inner.count": 4}),
        (["--inner.no-is-shown"], {"inner.is_shown": False}),
        (["--name", "b", "--steps", "2", "--quiet"], {"name": "b", "steps": 2, "quiet": True}),
        (["--steps", "2", "--steps", "3"], {"steps": 3}),  # the last one counts
        (["--widths", "1", "2", "--widths", "3"], {"widths": [3]}),
        (["--quiet", "--no-quiet"], {"quiet": False}),
    ],
)
def test_words(words: list[str], expected: dict[str, Any]) -> None:
    found = read(*words)
    assert found == expected
    assert [type(value) for value in found.values()] == [type(value) for value in expected.values()]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--pairs", "1", "2"], "--pairs: '1' is no list, such as [32, 3]"),
        (["--pairs", "[[1, x]]"], "--pairs: '[[1, x]]' is no list, such as [32, 3]"),
        (["--pairs", "[[1, 2.5]]"], "--pairs: '2.5' is no integer"),
        (["--step", "5"], "unknown option '--step'; did you mean '--steps'?"),
        (["--no-progres-bar"], "unknown option '--no-progres-bar'; did you mean '--no-progress-bar'?"),
        (["--inner.cuont", "5"], "unknown option '--inner.cuont'; did you mean '--inner.count'?"),
        (["--method", "riggl"], "unknown --method 'riggl'; did you mean 'rigl'?"),
        (["--level", "3"], "unknown --level '3'"),
        (["--switch", "yes"], "unknown --switch 'yes'"),
        (["--steps"], "--steps needs a value"),
        (["--steps", "--quiet"], "--steps needs a value"),
        (["--inner.count"], "--inner.count needs a value"),
        (["--steps", "many"], "--steps: 'many' is no integer"),
        (["--steps", "1.5"], "--steps: '1.5' is no integer"),
        (["--steps="], "--steps: '' is no integer"),
        (["--share", "half"], "--share: 'half' is no number"),
        (["--limit", "none"], "--limit: 'none' is no integer"),
        (["--widths", "1", "b"], "--widths: 'b' is no integer"),
        (["--steps", "5", "6"], "unexpected word '6'"),
        (["--quiet", "True"], "unexpected word 'True'"),
        (["--quiet=True"], "unexpected word 'True'"),
        (["--no-quiet=1"], "unexpected word '1'"),
        (["word", "--steps", "5"], "unexpected word 'word'; a value follows its option, and --help lists these"),
        (["--"], "unexpected word '--'"),
    ],
)
def test_refusals(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read(*words)
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


def test_options_of_a_schema() -> None:
    options = options_of(Schema)
    assert list(options)[-2:] == ["inner.count", "inner.is_shown"]  # a group is its fields
    assert (options["name"].text, options["inner.count"].text, options["steps"].text) == (
        "What it is called.",
        "How many.",
        "",
    )
    assert (options["widths"].default, options["inner.count"].default) == ((4, 4), 3)
    assert (options["progress_bar"].flag, options["progress_bar"].negative) == ("--progress-bar", "--no-progress-bar")
    assert options["switch"].negative is None
    assert [key for key, option in options.items() if option.takes_many] == ["widths", "selected", "pairs"]


def test_a_group_may_have_another_schema() -> None:
    options = options_of(Schema, {"inner": Other})
    assert "inner.count" not in options
    assert given(["--inner.share", "0.25"], options) == {"inner.share": 0.25}


def test_words_without_a_flag() -> None:
    options = options_of(Files)
    assert given(["a", "b", "--title", "t", "c"], options) == {"title": "t", "paths": ["a", "b", "c"]}
    assert given(["--title=t", "a"], options) == {"title": "t", "paths": ["a"]}
    assert parse(Files, [], command="show") == Files(())
    assert given(["a", "--seed", "1"], options_of(OneFile)) == {"path": "a", "seed": 1}
    with pytest.raises(ConfigError, match="unexpected word 'b'"):
        given(["a", "b", "--seed", "1"], options_of(OneFile))


@pytest.mark.parametrize(
    ("words", "message"), [([], "PATH is missing"), (["a"], "--seed is missing"), (["--path", "a"], "unknown option")]
)
def test_what_must_be_given(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(OneFile, words, command="show")


def test_parsed() -> None:
    words = ["--inner.count", "5", "--folder", "f", "--widths", "1", "2", "--selected", "1", "2"]
    parsed = parse(Schema, words, command="show", below={"steps": 7, "name": "below"})
    assert parsed == Schema(
        name="below", steps=7, folder=Path("f"), widths=(1, 2), selected=(1, 2), inner=Inner(count=5)
    )
    assert parse(Schema, ["--steps", "8"], command="show", below={"steps": 7}).steps == 8


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help_is_printed_and_nothing_else_is_read(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(Schema, ["--no-such-flag", word], command="show")
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith("usage: sparserl show [options]\n\nWhat a command takes.\n")
    for line in (
        "--name STR",
        "--limit INT",
        "--method set|rigl|static",
        "--widths INT...",
        "--progress-bar, --no-progress-bar",
    ):
        assert f"\n  {line}" in said
    assert "What it is called. (a)" in said


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: last_value("method", ["--method", "a", "--steps", "1", "--method=b"]), "b"),
        (lambda: last_value("method", ["--steps", "1"]), None),
        (lambda: last_value("method", ["--method"]), None),
        (lambda: nested({"a.b.c": 1, "a.d": 2, "e": 3}), {"a": {"b": {"c": 1}, "d": 2}, "e": 3}),
        (lambda: nested({}), {}),
    ],
)
def test_by_name(call: Callable[[], Any], expected: Any) -> None:
    assert call() == expected


@dataclass(frozen=True)
class Switched:
    """A switch that a word may follow."""

    track: bool | Literal["wandb", "trackio"] = False
    """Where to."""


@dataclass(frozen=True)
class SwitchedBefore(Switched):
    """The same before something without a flag."""

    data: Annotated[str, Positional()] = ""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--track"], True),
        (["--track", "trackio"], "trackio"),
        (["--track=wandb"], "wandb"),
        (["--track", "--no-track"], False),
        (["--no-track", "--track", "trackio"], "trackio"),
    ],
)
def test_a_word_may_follow_a_switch(words: list[str], expected: Any) -> None:
    assert given(words, options_of(Switched)) == {"track": expected}
    assert parse(Switched, words, command="x") == Switched(expected)


def test_the_word_after_a_switch_may_be_of_something_else() -> None:
    assert given(["--track", "iris"], options_of(SwitchedBefore)) == {"track": True, "data": "iris"}
    assert given(["--track", "trackio", "iris"], options_of(SwitchedBefore)) == {"track": "trackio", "data": "iris"}
    with pytest.raises(ConfigError, match="unknown --track 'tracio'; did you mean 'trackio'"):
        given(["--track", "tracio"], options_of(Switched))


def test_help_says_what_may_follow_a_switch(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(Switched, ["--help"], command="x")
    assert "--track [wandb|trackio]   Where to." in capsys.readouterr().out


@dataclass(frozen=True)
class _Named:
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Of something."""


def test_names_with_values_are_read_as_a_file_would_have_them(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--kwargs", "a=1", "b=1e-3", "c=true", "d=word", "e=[1,2]", "f=a=b", "g="]
    expected = {"a": 1, "b": 0.001, "c": True, "d": "word", "e": [1, 2], "f": "a=b", "g": None}
    assert parse(_Named, words, command="x").kwargs == expected
    assert parse(_Named, [], command="x").kwargs == {}
    for word, said in {
        "a:1": "'a:1' is not NAME=VALUE",
        "1=2": "is not NAME",
        "a=[": "the value of 'a=['",
        "a=2020-01-01": "the value",
        "a=[.nan]": "the value",
    }.items():
        with pytest.raises(ConfigError, match=re.escape(said)):
            parse(_Named, ["--kwargs", word], command="x")
    with pytest.raises(ConfigError, match="--kwargs needs a value"):
        parse(_Named, ["--kwargs"], command="x")
    with pytest.raises(SystemExit):
        parse(_Named, ["--help"], command="x")
    assert "--kwargs NAME=VALUE...   Of something.\n" in capsys.readouterr().out


def test_flags_of_other_programs_are_named_as_they_are_here() -> None:
    with pytest.raises(ConfigError, match=r"^there is no --vec-normalize here; it is --wrappers\.normalize-obs"):
        running.read("train", ["--algo", "td3", "--env", "Hopper-v5", "--vec-normalize"])
    schema = options_of(TrainConfig, {"agent": PPOConfig})
    there = {option.flag for option in (*schema.values(), *options_of(running.RunCommand).values())} | {"--from"}
    for flag, here in running.OF_OTHERS["train"].items():
        assert flag not in there
        assert set(re.findall(r"--[\w.-]+", here)) <= there, flag
