"""Options of `sparserl train`, `continual` and `fit` that would be dropped are refused, from a file and as flags."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.given_options import by_file, flags, flat
from support.option_kinds import KINDS, in_folder
from support.refused_options import BY_FLAGS, REFUSED, WHEN_BUILT

from sparserl import config as yaml_config
from sparserl.errors import SparserlError

pytestmark = pytest.mark.usefixtures("option_envs")


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_dropped_is_refused(name: str, option_files: Path, tmp_path: Path) -> None:
    kind, options, message = REFUSED[name]
    base = in_folder(KINDS[kind].base, option_files)
    usual = flat(yaml_config.plain(by_file(kind, base, tmp_path)))
    options = in_folder(options, option_files)
    with pytest.raises(SparserlError) as of_file:
        by_file(kind, {**base, **options}, tmp_path)
    with pytest.raises(SparserlError) as of_flags:
        by_file(kind, base, tmp_path, flags(options, usual))
    for refused in (of_file, of_flags):
        said = str(refused.value)
        assert message.replace("_", "-") in said.replace("_", "-")
        assert "\n" not in said


@pytest.mark.parametrize("name", BY_FLAGS)
def test_flags_without_effect_are_refused(name: str, option_files: Path, tmp_path: Path) -> None:
    kind, options, message = BY_FLAGS[name]
    base = in_folder(KINDS[kind].base, option_files)
    usual = flat(yaml_config.plain(by_file(kind, {**base, **options}, tmp_path)))
    with pytest.raises(SparserlError, match=message):
        by_file(kind, base, tmp_path, flags(options, usual))
    place = next(iter(options)).partition(".")[0]
    assert by_file(kind, base, tmp_path, ["--track", place, *flags(options, usual)]).tracked_at == place
    if place == "wandb":
        assert by_file(kind, base, tmp_path, ["--track", *flags(options, usual)]).tracked_at == place


@pytest.mark.parametrize("name", WHEN_BUILT)
def test_what_would_be_dropped_is_refused_before_the_run(name: str, option_files: Path, tmp_path: Path) -> None:
    kind, options, message = WHEN_BUILT[name]
    config = by_file(kind, {**in_folder(KINDS[kind].base, option_files), **options}, tmp_path)
    with pytest.raises(SparserlError, match=message):
        _ = KINDS[kind].built(config).evolver
