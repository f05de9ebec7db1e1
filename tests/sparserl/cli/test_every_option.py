"""Every option of `train`, `continual` and `fit` arrives, by flag, by file and from Python; or it is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.every_option import BATCHES
from support.given_options import by_file, flags, flat
from support.option_kinds import KINDS, Batch, BuiltLearner, in_folder
from support.refused_options import REFUSED

from sparserl import config as yaml_config
from sparserl.cli.running import RunCommand, read
from sparserl.config import nested
from sparserl.continual.learner import Kind
from sparserl.continual.strategies import GROUPS, MethodOptions
from sparserl.errors import SparserlError

pytestmark = pytest.mark.usefixtures("option_envs")

NOT_SET = {
    "device": "cpu is the only one",
    "agent.target_entropy": "refused beside a fixed temperature",
}


def in_python(config: Any, options: Mapping[str, Any]) -> Any:
    """The config with some values replaced, as tuples and paths where it has such."""
    changes: dict[str, Any] = {}
    hints = {one.name: str(one.type) for one in dataclasses.fields(config)}
    for key, value in nested(options).items():
        old = getattr(config, key)
        if isinstance(value, dict):
            changes[key] = in_python(old, value)
        elif isinstance(value, list):
            changes[key] = tuple(value)
        else:
            changes[key] = Path(value) if "Path" in hints[key] else value
    return dataclasses.replace(config, **changes)


@pytest.mark.parametrize("batch", BATCHES, ids=lambda batch: f"{batch.kind}: {batch.name}")
def test_it_arrives(batch: Batch, option_files: Path, tmp_path: Path) -> None:
    kind = KINDS[batch.kind]
    base = in_folder(kind.base, option_files)
    sets, needs = in_folder(batch.sets, option_files), in_folder(batch.needs, option_files)
    usual = by_file(batch.kind, base, tmp_path)
    before = flat(yaml_config.plain(usual))
    config = by_file(batch.kind, {**base, **needs, **sets}, tmp_path)
    plain = flat(yaml_config.plain(config))
    for option, value in sets.items():
        assert before[option] != value, f"{option} is {value} anyway"
        assert plain[option] == value, f"{option} of a file did not arrive"
    changed = {name for name in plain if plain[name] != before[name]}
    assert changed - {*sets, *needs, *batch.also} == set()

    words = flags({**{name: needs[name] for name in needs if name not in sets}, **sets}, before)
    by_flags = flat(yaml_config.plain(by_file(batch.kind, base, tmp_path, words)))
    assert {name: by_flags[name] for name in sets} == sets
    assert {name for name in by_flags if by_flags[name] != before[name]} - {*sets, *needs, *batch.also} == set()

    no_density = {"topology.density": None} if "topology.epsilon" in sets else {}  # it would win, as it says
    python = flat(yaml_config.plain(in_python(usual, {**needs, **no_density, **sets})))
    assert {name: python[name] for name in sets} == sets

    built = kind.built(config)
    for option, probe in batch.probes.items():
        assert probe(built) == sets[option], f"{option} is in the config and does not arrive"


@pytest.mark.parametrize("kind", KINDS)
def test_no_option_is_missing_from_the_table(kind: str, option_files: Path, tmp_path: Path) -> None:
    alike = [KINDS[kind].command, KINDS[kind].built]
    known = {
        option
        for batch in BATCHES
        if [KINDS[batch.kind].command, KINDS[batch.kind].built] == alike
        for option in batch.sets
    }
    known |= {option for options in REFUSED.values() for option in options[1]}
    there = set(flat(yaml_config.plain(by_file(kind, in_folder(KINDS[kind].base, option_files), tmp_path))))
    assert there - known - set(NOT_SET) - of_other_learners(kind) - {"algo", "method", "sequence"} == set()


def of_other_learners(kind: str) -> set[str]:
    """Options of continual methods that are refused where this kind learns."""
    own: Kind = "classifier" if KINDS[kind].built is BuiltLearner else "agent"
    groups = {name: getattr(MethodOptions(), name) for name in GROUPS}
    return {
        f"{name}.{one.name}"
        for name, options in groups.items()
        for one in dataclasses.fields(options)
        if one.name not in options.defaults.get(own, {})
    }


def test_options_beside_the_config_are_known() -> None:
    names = {one.name for one in dataclasses.fields(RunCommand)}
    assert names == {
        *("preset", "config", "resume", "from_step", "run_dir", "progress", "dry_run"),
        *("data_dir", "download"),
    }


@pytest.mark.parametrize(
    "words", [("train",), ("continual", "--sequence", "halfcheetah_forgetting"), ("continual", "--resume", "nowhere")]
)
def test_options_of_data_are_for_classifiers(words: tuple[str, ...]) -> None:
    command: Any = words[0]
    with pytest.raises(SparserlError, match="--download"):
        read(command, [*words[1:], "--download"])
    assert read("continual", ["--data-dir", "x", "--download"]).options.data_dir == Path("x")
