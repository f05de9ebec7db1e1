"""Which of preset, file and flags decides how dense networks are, and what a run is called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.given_options import by_file
from support.option_kinds import KINDS, in_folder

from sparserl import config as yaml_config
from sparserl.cli.running import read
from sparserl.errors import SparserlError

pytestmark = pytest.mark.usefixtures("option_envs")

LAYERS: list[tuple[dict[str, Any], list[str], dict[str, Any]]] = [
    # file, flags -> what is left of how dense networks are; the preset beneath has density 0.5
    ({"topology.epsilon": [4, 50]}, [], {"epsilon": [4, 50]}),
    ({"topology.epsilon": [4, 50]}, ["--topology.density", "0.25"], {"density": 0.25}),
    ({"topology.density": 0.25}, ["--topology.epsilon", "4", "50"], {"epsilon": [4, 50]}),
    ({"topology.density": 0.25}, ["--topology.epsilon=4"], {"epsilon": [4]}),
    ({"topology.actor_density": 0.25}, ["--topology.density", "0.75"], {"density": 0.75}),
    ({"topology.density": 0.25}, ["--topology.actor-density", "0.75"], {"density": 0.25, "actor_density": 0.75}),
    (
        {"topology.epsilon": [4, 50]},
        ["--topology.critic-density", "0.75"],
        {"epsilon": [4, 50], "critic_density": 0.75},
    ),
    ({"topology.epsilon": [4, 50], "topology.density": 0.25}, [], {"density": 0.25}),  # as in Python
    ({"topology.epsilon": [4, 50]}, ["--topology.method", "static"], {"epsilon": [4, 50]}),
]


@pytest.mark.parametrize("kind", ["ds_td3", "tasks, ds_sac"])
@pytest.mark.parametrize(("file", "words", "left"), LAYERS)
def test_how_dense_networks_are_is_one_wish(
    kind: str, file: dict[str, Any], words: list[str], left: dict[str, Any], option_files: Path, tmp_path: Path
) -> None:
    config = by_file(kind, {**in_folder(KINDS[kind].base, option_files), **file}, tmp_path, words)
    names = ("density", "epsilon", "actor_density", "critic_density")
    assert {
        name: value for name in names if (value := yaml_config.plain(getattr(config.topology, name))) is not None
    } == left


def test_a_presets_densities_give_way_and_its_own_stay_with_another_method(tmp_path: Path) -> None:
    def topology(*words: str) -> Any:
        return read("train", words).config.topology

    assert topology("--preset", "ds_td3/rlx2", "--topology.density", "0.25").actor_density is None
    assert topology("--preset", "ds_td3/HalfCheetah-v5", "--topology.method", "static").epsilon == (7.0, 64.0)
    kept = topology("--preset", "ds_td3/rlx2", "--topology.method", "granet")
    assert (kept.actor_density, kept.critic_density, kept.update_interval) == (0.1, 0.15, 10_000)


def test_the_name_of_a_sequence_file_arrives(option_files: Path, tmp_path: Path) -> None:
    config = by_file("tasks, ds_sac", in_folder(KINDS["tasks, ds_sac"].base, option_files), tmp_path)
    assert config.name == "small tasks__ds_sac__finetune"
    assert config.title == "ds_sac finetune on small tasks, seed 0"
    unnamed = tmp_path / "unnamed.yaml"
    unnamed.write_text((option_files / "tiny.yaml").read_text().partition("\n")[2])
    base = {**KINDS["tasks, ds_sac"].base, "sequence": str(unnamed)}
    assert by_file("tasks, ds_sac", base, tmp_path).name == "unnamed__ds_sac__finetune"
    assert by_file("tasks, ds_sac", base, tmp_path, ["--sequence-name", "mine"]).name == "mine__ds_sac__finetune"
    unnamed.write_text("name: [a]\n" + unnamed.read_text())
    with pytest.raises(SparserlError, match=r"name must be text, got \['a'\]"):
        by_file("tasks, ds_sac", base, tmp_path)
