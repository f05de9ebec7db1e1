"""The config that a run writes says every value that holds, and means the same run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from sparserl import config as yaml_config
from sparserl.experiment.presets import presets, rl_continual_presets
from sparserl.experiment.resolving import Kind, resolve
from sparserl.experiment.runs import begin
from sparserl.experiment.training import Source
from sparserl.topology.config import TopologyConfig, beside_method
from sparserl.topology.config_options import RULE_FIELDS
from sparserl.topology.density import Shape
from sparserl.topology.methods import METHODS

SHAPES: list[Shape] = [(256, 17), (256, 256), (6, 256)]
CHANGED: dict[str, dict[str, Any]] = {
    "nothing": {},
    "factors": {"epsilon": (7.0, 64.0)},
    "a group": {"actor_density": 0.2},
    "each group": {"actor_density": 0.2, "critic_density": 0.3},
    "output layer": {"output_layer": "dense"},
}
OF_RULES: dict[str, dict[str, Any]] = {
    "drop fraction": {"drop_fraction": 0.1},
    "updates": {"first_update": 5, "last_update": 700},
    "shares": {"begin_fraction": 0.1, "end_fraction": 0.5},
}
SPARSE = [name for name, method in METHODS.items() if not method.dense]
CASES = [
    pytest.param(method, changed, id=f"{method}, {name}")
    for method in SPARSE
    for name, changed in (CHANGED if METHODS[method].rule is None else CHANGED | OF_RULES).items()
]


@pytest.mark.parametrize(("method", "changed"), CASES)
def test_a_resolved_topology_means_the_same(method: str, changed: dict[str, Any]) -> None:
    epsilon = (7.0, 64.0, 5.0) if "epsilon" in changed and not METHODS[method].output_layer_dense else None
    config = TopologyConfig(method=method, **changed | ({} if epsilon is None else {"epsilon": epsilon}))
    resolved = config.resolved()
    assert resolved.resolved() == resolved
    assert resolved.rule() == config.rule()
    assert resolved.open_ends == config.open_ends
    for group in ("actor", "critic"):
        assert resolved.of(group).densities(SHAPES) == config.of(group).densities(SHAPES)
    for name in ("initial_value", "new_value", "moments", "target"):
        assert resolved.part(name) == config.part(name)
    for updates in (1_000, 30_000):
        assert resolved.for_run(updates).rule() == config.for_run(updates).rule()


RECYCLING = {"recycle_threshold": 0.1, "recycle_by": "dormant"}


def test_the_paper_s_numbers_can_be_read() -> None:
    resolved = TopologyConfig(method="ds_td3").resolved()
    said = {name: value for name, value in dataclasses.asdict(resolved).items() if value is not None}
    assert said == {
        "method": "ds_td3",
        "density": 0.5,
        "allocation": "erk",
        "output_layer": "dense",
        "drop": "signed_magnitude",
        "grow": "random",
        "drop_fraction": 0.05,
        "decay": "constant",
        "density_schedule": "constant",
        "schedule_share": 1.0,
        "gradient_batches": 1,
        "gradient_weight": 0.0,
        "budget": "own",
        "budget_scope": "group",
        "drop_threshold": 1e-3,
        "weight_l1": 0.0,
        "weight_noise": 0.0,
        "fan_in": "free",
        "weight_l2": 0.0,
        "backward_factor": 1.0,
        "salient_share": 0.0,
        "replaces_step": False,
        "update_interval": 1000,
        "first_update": 2,
        "end_fraction": 925_000 / 975_000,
        "shrink_at_end": True,
        "keep_regrown": False,
        "initial_topology": "random",
        "initial_value": "dense_fan_in",
        "new_value": "zero",
        "moments": "zero",
        "pairs": 1,
        "target": "union_trim",
        "recycle_threshold": 0.1,
        "recycle_by": "dormant",
    }


@pytest.mark.parametrize("method", METHODS)
def test_another_method_takes_the_place_of_what_the_first_said_itself(method: str) -> None:
    plain = yaml_config.plain(TopologyConfig(method=method, density=0.5).resolved())
    left = {name: value for name, value in beside_method(plain).items() if value is not None}
    assert left == {"method": method, "density": 0.5, "allocation": "erk", "pairs": 1} | RECYCLING


def test_what_was_wished_beside_a_method_stays_with_another_one() -> None:
    given = {"method": "ds_td3", "drop_fraction": 0.2, "update_interval": 1000, "target": "shared"}
    assert beside_method(given) == {"method": "ds_td3", "drop_fraction": 0.2, "target": "shared"}


KINDS: list[tuple[Kind, str]] = [
    *(("train", name) for name in presets()),
    *(("continual", name) for name in rl_continual_presets()),
]


@pytest.mark.parametrize(("kind", "preset"), KINDS)
def test_what_a_run_writes_says_all_and_gives_the_same_config(kind: Kind, preset: str) -> None:
    run: Any = resolve(kind, {} if kind == "train" else {"sequence": "halfcheetah_forgetting"}, preset=preset)
    config = run.resolved()
    again = resolve(kind, config.plain())
    assert again.resolved() == again == config
    if METHODS[config.topology.method].rule is not None:
        by_share = {"first_update": "begin_fraction", "last_update": "end_fraction"}
        for name in RULE_FIELDS:
            said = getattr(config.topology, name), getattr(config.topology, by_share.get(name, name))
            assert any(value is not None for value in said), name
    if kind == "continual":
        assert (config.tasks, config.steps_per_task) == (4, run.load_sequence().tasks[0].steps)


@pytest.mark.slow
def test_a_run_begins_with_its_resolved_config(tmp_path: Path) -> None:
    wish = {"env": "Pendulum-v1", "algo": "ds_td3", "total_steps": 300, "agent": {"learning_starts": 200}}
    config: Any = resolve("train", wish)
    assert config.topology.drop_fraction is None
    training = begin(config, Source())
    folder = training.create_folder(tmp_path / "run", None)
    written = yaml_config.load_yaml(folder.path / "config.yaml")
    assert written["topology"]["drop_fraction"] == 0.05
    assert training.config_of(folder) == training.config
