"""Every option of `sparserl train` and `continual` arrives, by flag, by file and from Python; or it is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import yaml
from support.envs import ChoiceEnv, FunctionEnv
from support.every_option import BATCHES
from support.option_kinds import KINDS, Batch, BuiltLearner, in_folder, write_files

from sparserl import config as yaml_config
from sparserl.cli.running import POSITIONAL, RunCommand, read
from sparserl.config import nested
from sparserl.continual.learner import Kind
from sparserl.continual.strategies import GROUPS, MethodOptions
from sparserl.errors import SparserlError

NOT_SET = {
    "device": "cpu is the only one",
    "agent.target_entropy": "refused beside a fixed temperature",
}
IN_A_FILE_ONLY_ONE_WAY = ("algo",)


@pytest.fixture(autouse=True)
def tiny_envs() -> Any:
    ids = ("Tiny-v0", "Other-v0")
    for name in ids:
        gym.register(name, entry_point=lambda: FunctionEnv(horizon=17))
    gym.register("Choices-v0", entry_point=ChoiceEnv, kwargs={"horizon": 17})
    yield
    for name in (*ids, "Choices-v0"):
        gym.registry.pop(name)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    write_files(folder)
    return folder


def flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of plain data by dotted key."""
    leaves: dict[str, Any] = {}
    for key, value in data.items():
        leaves |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return leaves


def flags(options: Mapping[str, Any], usual: Mapping[str, Any]) -> list[str]:
    words: list[str] = []
    for key, value in options.items():
        group, _, name = key.rpartition(".")
        before = f"--{group}." if group else "--"
        if key in POSITIONAL.values():
            words.insert(0, value)
            continue
        option = f"{before}{name}".replace("_", "-")
        if isinstance(value, bool) and isinstance(usual[key], bool):
            words.append(option if value else f"{before}no-{name}".replace("_", "-"))
        else:
            words += [option, *map(str, value if isinstance(value, list) else [value])]
    return words


def by_file(kind: str, options: Mapping[str, Any], folder: Path, words: list[str] | None = None) -> Any:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(nested(options)))
    return read(KINDS[kind].command, ["--config", str(path), *(words or [])]).config


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
def test_it_arrives(batch: Batch, files: Path, tmp_path: Path) -> None:
    kind = KINDS[batch.kind]
    base = in_folder(kind.base, files)
    sets, needs = in_folder(batch.sets, files), in_folder(batch.needs, files)
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
def test_no_option_is_missing_from_the_table(kind: str, files: Path, tmp_path: Path) -> None:
    alike = [KINDS[kind].command, KINDS[kind].built]
    known = {
        option
        for batch in BATCHES
        if [KINDS[batch.kind].command, KINDS[batch.kind].built] == alike
        for option in batch.sets
    }
    known |= {option for options in REFUSED.values() for option in options[1]}
    there = set(flat(yaml_config.plain(by_file(kind, in_folder(KINDS[kind].base, files), tmp_path))))
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


USUAL = {"agent.net_arch": [256, 256]}
# What has no effect, or none together: kind, options, and what the line says.
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "budget of networks": (
        "moving classifier",
        {"topology.budget": "survivors", "topology.budget_scope": "all"},
        "agents: a classifier is one network",
    ),
    "name of a sequence": ("classifier", {"sequence_name": "x"}, "--sequence-name x is for a sequence from a file"),
    "device": ("ds_td3", {"device": "cuda"}, "no kernels for device 'cuda'"),
    "forget interval": ("ds_td3", {"agent.forget_interval_steps": 7}, "agent.forget_interval_steps 7 has no effect"),
    "forget threshold": ("sac", {"agent.forget_threshold": 0.5}, "it needs agent.dynamic_capacity"),
    "forget minimum": ("td3", {"agent.forget_minimum": 7}, "it needs agent.dynamic_capacity"),
    "delay of steps": ("ds_sac", {"agent.n_steps_delay": 7}, "needs agent.n_steps above 1"),
    "redrawn noise": ("ds_td3", {"agent.replay": "redraw_noise"}, "set --wrappers.noise-fraction"),
    "target entropy": ("ds_sac", {"agent.ent_coef": 0.5, "agent.target_entropy": -3.0}, "needs agent.ent_coef auto"),
    "first temperature": (
        "ds_sac",
        {"agent.ent_coef": 0.5, "agent.initial_ent_coef": 0.1},
        "needs agent.ent_coef auto",
    ),
    "decay that is none": ("ds_sac", {"agent.decoupled_weight_decay": True}, "needs agent.weight_decay above 0"),
    "dense blocks": ("sac", {"agent.network": "simba", **USUAL}, "--algo ds_sac --topology.method dense"),
    "blocks of batches": ("ds_crossq", {"agent.network": "simba", **USUAL}, "use ds_sac"),
    "hidden widths of blocks": ("ds_td3", {"agent.network": "simba", "agent.net_arch": [6]}, "simba has widths"),
    **{
        f"{name} of a perceptron": ("ds_td3", {f"agent.{name}": 7}, f"agent.{name} 7 has no effect")
        for name in ("actor_width", "actor_blocks", "critic_width", "critic_blocks")
    },
    "width of a perceptron": ("ds_dqn", {"agent.q_width": 7}, "agent.q_width 7 has no effect"),
    "critics of targets": ("sac", {"agent.critic_subset": 2}, "not for sac"),
    "critics of the actor": ("td3", {"agent.actor_q": "mean"}, "--algo ds_td3 --topology.method dense"),
    "delay of the actor": ("sac", {"agent.policy_delay": 2}, "--algo ds_sac --topology.method dense"),
    "more than all critics": ("ds_sac", {"agent.critic_subset": 3}, "at most agent.n_critics 2"),
    "noise clip": (
        "td3",
        {"agent.target_policy_noise": 0.0, "agent.target_noise_clip": 0.25},
        "needs agent.target_policy_noise above 0",
    ),
    "hidden twice": (
        "ds_td3",
        {"wrappers.hide_velocities": True, "wrappers.hidden_features": [1]},
        "hidden-features does not go with wrappers.hide-velocities",
    ),
    "noise std": ("ds_td3", {"wrappers.noise_std": 2.0}, "needs wrappers.noise-fraction"),
    "order": ("ds_td3", {"wrappers.permute_every_steps": 9}, "needs wrappers.permute"),
    "noise of several": (
        "sac",
        {"agent.replay": "redraw_noise", "wrappers.noise_fraction": 0.5, "n_envs": 3},
        "redraw_noise is for one environment, got --n-envs 3",
    ),
    "orders of several": (
        "td3",
        {"wrappers.permute": True, "wrappers.permute_every_steps": 9, "n_envs": 2},
        "--wrappers.permute-every-steps is for one environment",
    ),
    "buffer of several": ("ds_sac", {"agent.buffer_size": 4, "n_envs": 5}, "--agent.buffer-size 4 holds no transition"),
    "minimum of several": (
        "ds_td3",
        {"agent.dynamic_capacity": True, "agent.forget_minimum": 99, "n_envs": 3},
        "--agent.forget-minimum 99 must be below the 99 transitions",
    ),
    "rate of tasks": (
        "tasks, ds_sac",
        {"agent.learning_rate_schedule": "linear"},
        "--agent.learning-rate-schedule is for `sparserl train`",
    ),
    "statistics": ("ds_td3", {"wrappers.normalization": "FOLDER/statistics.json"}, "needs wrappers.normalize-observ"),
    "untracked films": ("ds_td3", {"wandb.video_every_steps": 5}, "--wandb.video-every-steps is for runs that are tra"),
    "films": ("classifier", {"track": True, "wandb.video_every_steps": 5}, "there is nothing to film here"),
    "allocation": ("ds_td3", {"topology.epsilon": [2, 2], "topology.allocation": "uniform"}, "shares out one density"),
    "static": ("ds_td3", {"topology.method": "static", "topology.new_value": "uniform"}, "never rewires and takes no"),
    "momentum": ("classifier", {"learner.momentum": 0.5}, "learner.momentum 0.5 has no effect on adam; it is for sgd"),
    **{
        f"{name} of classifiers": ("moving classifier", {f"topology.{name}": value}, message)
        for name, value, message in (
            ("actor_density", 0.5, "--topology.actor-density is for agents"),
            ("critic_density", 0.5, "--topology.critic-density is for agents"),
            ("target", "shared", "--topology.target is for agents"),
            ("recycle_interval", 5, "--topology.recycle-interval is for `sparserl train`"),
            ("recycle_threshold", 0.5, "--topology.recycle-threshold is for `sparserl train`"),
        )
    },
    "relevance of classifiers": (
        "moving classifier",
        {"topology.recycle_interval": 5, "topology.recycle_by": "relevance"},
        "--topology.recycle-interval is for `sparserl train`",
    ),
    "rewards of tasks": (
        "tasks, ds_sac",
        {"wrappers.normalize_rewards": 0.5},
        "--wrappers.normalize-rewards is for `sparserl train`",
    ),
    "network of a method without one": ("classifier", {"method": "ridge", "learner.epochs": 2}, "has none; leave it"),
    "moving packnet": (
        "moving classifier",
        {"method": "packnet"},
        "connections must stay where they are: use --topology.method static, not ds_td3",
    ),
    "moving spacenet": ("moving classifier", {"method": "spacenet"}, "leave --topology.method ds_td3"),
    "sparse spacenet": (
        "classifier",
        {"method": "static_sparse", "topology.density": 0.5},
        "leave --topology.method static",
    ),
    "old density": (
        "classifier",
        {"learner.density": 0.5, "topology.density": 0.5},
        "learner.density 0.5 is topology.density by its old name",
    ),
    "closed outputs": (
        "classifier",
        {"scenario": "task", "learner.unseen_outputs": "closed"},
        "closed is for --scenario class",
    ),
    "another method": ("classifier", {"ewc.strength": 3.0}, "--ewc.strength is an option of ewc; method naive"),
    "another rl method": ("tasks, ds_sac", {"agem.batch_size": 5}, "--agem.batch_size is an option of agem"),
    "steps of a file": ("tasks, ds_sac", {"steps_per_task": 5}, "says itself what its tasks are"),
    "tasks of a file": ("tasks, ds_sac", {"tasks": 5}, "says itself what its tasks are"),
    "temperature": ("tasks, ds_td3", {"border.temperature": "kept"}, "--border.temperature kept is for a temperature"),
    "fixed temperature": (
        "tasks, ds_sac",
        {"agent.ent_coef": 0.5, "border.temperature": "kept"},
        "--border.temperature kept is for a temperature",
    ),
    **{
        f"{name} of tasks": ("tasks, ds_sac", options, "is for `sparserl train`")
        for name, options in {
            "recycling": {"topology.recycle_interval": 5, "topology.recycle_by": "relevance"},
            "steps": {"agent.n_steps": 3},
            "blocks": {"agent.network": "simba", **USUAL},
            "capacity": {"agent.dynamic_capacity": True, "agent.forget_minimum": 5},
            "noise": {"agent.replay": "redraw_noise"},
            "rollouts": {"agent.train_freq": 2},
            "updates": {"agent.gradient_steps": -1},
            "running": {"wrappers.normalize_observations": "running"},
            "order": {"wrappers.permute": True, "wrappers.permute_every_steps": 9},
        }.items()
    },
}
# A file may hold these for several runs, of which some are tracked.
BY_FLAGS: dict[str, tuple[str, dict[str, Any], str]] = {
    "untracked mode": ("ds_td3", {"wandb.mode": "offline"}, "--wandb.mode is for runs that are tracked: add --track"),
    "untracked project": ("classifier", {"wandb.project": "x"}, "--wandb.project is for runs that are tracked"),
    "untracked entity": ("classifier", {"wandb.entity": "x"}, "--wandb.entity is for runs that are tracked"),
    "untracked at trackio": (
        "fit",
        {"trackio.project": "x"},
        "--trackio.project is for runs that are tracked: add --track t",
    ),
    "untracked tags": ("tasks, ds_sac", {"wandb.tags": ["x"]}, "--wandb.tags is for runs that are tracked"),
}
WHEN_BUILT: dict[str, tuple[str, dict[str, Any], str]] = {
    "nothing to move": (
        "moving classifier",
        {"topology.density": 1.0},
        "--topology.method ds_td3 moves connections, and all exist: lower --topology.density",
    ),
    "pruning to come": (
        "moving classifier",
        {"topology.method": "gmp", "topology.last_update": 4000},
        "within the run's 940 updates",
    ),
    "dense": ("td3", {"topology.method": "ds_td3"}, "td3 is dense and takes no topology"),
    "steps to come": (
        "ds_td3",
        {"topology.method": "gmp", "topology.last_update": 4000},
        "within the run's 380 updates",
    ),
    "density of tasks": (
        "tasks, ds_sac",
        {"method": "spacenet", "topology.actor_density": 0.5},
        "spacenet decides itse",
    ),
    "output of tasks": ("tasks, ds_sac", {"method": "spacenet", "topology.output_layer": "sparse"}, "spacenet decides"),
    "density of all": (
        "tasks, ds_sac",
        {"method": "spacenet", "spacenet.critics": True, "topology.density": 0.5},
        "leave --topology.density out",
    ),
    **{
        f"scratch, {option}": (
            "tasks, ds_sac",
            {"method": "scratch", f"border.{option}": value},
            f"scratch begins each task like a fresh agent: use --border.{option} ",
        )
        for option, value in {
            "buffer": "kept",
            "optimizer": "kept",
            "temperature": "kept",
            "exploration": "policy",
        }.items()
    },
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_dropped_is_refused(name: str, files: Path, tmp_path: Path) -> None:
    kind, options, message = REFUSED[name]
    base = in_folder(KINDS[kind].base, files)
    usual = flat(yaml_config.plain(by_file(kind, base, tmp_path)))
    options = in_folder(options, files)
    with pytest.raises(SparserlError) as of_file:
        by_file(kind, {**base, **options}, tmp_path)
    with pytest.raises(SparserlError) as of_flags:
        by_file(kind, base, tmp_path, flags(options, usual))
    for refused in (of_file, of_flags):
        said = str(refused.value)
        assert message.replace("_", "-") in said.replace("_", "-")
        assert "\n" not in said


@pytest.mark.parametrize("name", BY_FLAGS)
def test_flags_without_effect_are_refused(name: str, files: Path, tmp_path: Path) -> None:
    kind, options, message = BY_FLAGS[name]
    base = in_folder(KINDS[kind].base, files)
    usual = flat(yaml_config.plain(by_file(kind, {**base, **options}, tmp_path)))
    with pytest.raises(SparserlError, match=message):
        by_file(kind, base, tmp_path, flags(options, usual))
    place = next(iter(options)).partition(".")[0]
    assert by_file(kind, base, tmp_path, ["--track", place, *flags(options, usual)]).tracked_at == place
    if place == "wandb":
        assert by_file(kind, base, tmp_path, ["--track", *flags(options, usual)]).tracked_at == place


@pytest.mark.parametrize("name", WHEN_BUILT)
def test_what_would_be_dropped_is_refused_before_the_run(name: str, files: Path, tmp_path: Path) -> None:
    kind, options, message = WHEN_BUILT[name]
    config = by_file(kind, {**in_folder(KINDS[kind].base, files), **options}, tmp_path)
    with pytest.raises(SparserlError, match=message):
        _ = KINDS[kind].built(config).evolver


# --- layers -----------------------------------------------------------------------------------------

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
    kind: str, file: dict[str, Any], words: list[str], left: dict[str, Any], files: Path, tmp_path: Path
) -> None:
    config = by_file(kind, {**in_folder(KINDS[kind].base, files), **file}, tmp_path, words)
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


def test_the_name_of_a_sequence_file_arrives(files: Path, tmp_path: Path) -> None:
    config = by_file("tasks, ds_sac", in_folder(KINDS["tasks, ds_sac"].base, files), tmp_path)
    assert config.name == "small tasks__ds_sac__finetune"
    assert config.title == "ds_sac finetune on small tasks, seed 0"
    unnamed = tmp_path / "unnamed.yaml"
    unnamed.write_text((files / "tiny.yaml").read_text().partition("\n")[2])
    base = {**KINDS["tasks, ds_sac"].base, "sequence": str(unnamed)}
    assert by_file("tasks, ds_sac", base, tmp_path).name == "unnamed__ds_sac__finetune"
    assert by_file("tasks, ds_sac", base, tmp_path, ["--sequence-name", "mine"]).name == "mine__ds_sac__finetune"
    unnamed.write_text("name: [a]\n" + unnamed.read_text())
    with pytest.raises(SparserlError, match=r"name must be text, got \['a'\]"):
        by_file("tasks, ds_sac", base, tmp_path)
