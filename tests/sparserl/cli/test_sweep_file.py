"""`sparserl sweep`: which runs a file makes, and which files and options are refused."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.sweep_files import SMALL, sweep_file

from sparserl.cli import main
from sparserl.errors import ConfigError
from sparserl.sweep.file import load_jobs
from sparserl.sweep.run_folders import run_folders

EXAMPLE = Path(__file__).resolve().parents[3] / "configs" / "sweeps" / "example.yaml"


def test_a_grid_times_seeds(tmp_path: Path) -> None:
    jobs = load_jobs(sweep_file(tmp_path))
    assert [(job.point, job.seed) for job in jobs] == [
        ({"topology.density": density}, seed) for density in (0.5, 0.2) for seed in (3, 5)
    ]
    assert [job.config["topology"]["density"] for job in jobs] == [0.5, 0.5, 0.2, 0.2]
    assert jobs[0].config["total_steps"] == 300
    assert jobs[0].name == "InvertedPendulum-v5__ds_td3__d0.5"
    assert jobs[0].folder == f"InvertedPendulum-v5__ds_td3__d0.5__s3__{jobs[0].id}"


def test_several_grids_one_after_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid = [{"algo": ["td3"]}, {"topology.method": ["set"], "topology.density": [0.5, 0.2]}]
    path = sweep_file(tmp_path, grid=grid, seeds=2)
    assert [(job.point, job.config["algo"]) for job in load_jobs(path)[::2]] == [
        ({"algo": "td3"}, "td3"),
        ({"topology.method": "set", "topology.density": 0.5}, "ds_td3"),
        ({"topology.method": "set", "topology.density": 0.2}, "ds_td3"),
    ]
    assert main(["sweep", str(path), "--dry-run"]) == 0
    assert "td3" in capsys.readouterr().out


def test_what_the_environment_says_to_wandb_makes_no_other_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def jobs(**wandb: str) -> list[Any]:
        return load_jobs(sweep_file(tmp_path, base={**SMALL["base"], **({"wandb": wandb} if wandb else {})}))

    for name in ("WANDB_MODE", "WANDB_DISABLED", "WANDB_PROJECT", "WANDB_ENTITY", "WANDB_TAGS"):
        monkeypatch.delenv(name, raising=False)
    plain, given = jobs(), jobs(project="own")
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    monkeypatch.setenv("WANDB_TAGS", "a,b")
    assert [job.id for job in jobs()] == [job.id for job in plain]
    assert jobs()[0].config["wandb"]["project"] == "theirs"
    assert [job.id for job in jobs(project="own")] == [job.id for job in given] != [job.id for job in plain]


def test_an_id_is_that_of_the_resolved_config(tmp_path: Path) -> None:
    jobs = load_jobs(sweep_file(tmp_path))
    # The same values said otherwise.
    base = {**SMALL["base"], "topology": {"density": 0.2}}
    again = load_jobs(sweep_file(tmp_path, base=base, grid={}, seeds=[5]))
    assert again[0].id == jobs[3].id
    assert len({job.id for job in jobs}) == 4
    longer = load_jobs(sweep_file(tmp_path, base={**SMALL["base"], "total_steps": 301}))
    assert not {job.id for job in longer} & {job.id for job in jobs}


def test_presets_lie_beneath(tmp_path: Path) -> None:
    jobs = load_jobs(EXAMPLE)
    assert len(jobs) == 18
    assert {job.seed for job in jobs} == {0, 1, 2}
    assert {job.config["agent"]["batch_size"] for job in jobs} == {100}  # of the presets


def test_a_point_lies_over_the_base_as_flags_do_over_a_file(tmp_path: Path) -> None:
    """How many connections there are is one wish, in several keys."""
    base = {"env": "Hopper-v5", "topology": {"density": 0.1, "actor_density": 0.2}}
    grid = [{"topology.epsilon": [[7, 7], [9, 9]]}, {"topology.density": [0.3]}, {"topology.critic_density": [0.4]}]
    jobs = load_jobs(sweep_file(tmp_path, base=base, grid=grid, seeds=1))
    keys = ("epsilon", "density", "actor_density", "critic_density")
    assert [tuple(job.config["topology"][key] for key in keys) for job in jobs] == [
        ([7, 7], None, None, None),
        ([9, 9], None, None, None),
        (None, 0.3, None, None),
        (None, 0.1, 0.2, 0.4),
    ]


def test_a_preset_may_be_named(tmp_path: Path) -> None:
    named = ["sac/published", "ds_sac/published"]
    grid = [{"preset": named}, {"preset": ["ds_sac/simba"], "topology.density": [0.1, 0.02]}]
    jobs = load_jobs(sweep_file(tmp_path, base={"env": "Hopper-v5"}, grid=grid, seeds=1))
    assert [job.config["algo"] for job in jobs] == ["sac", "ds_sac", "ds_sac", "ds_sac"]
    assert [job.config["agent"]["network"] for job in jobs] == ["mlp", "mlp", "simba", "simba"]
    assert all("preset" not in job.config for job in jobs)
    path = sweep_file(tmp_path, base={"env": "Hopper-v5", "preset": "ds_sac/published"}, grid={}, seeds=1)
    assert [job.id for job in load_jobs(path)] == [jobs[1].id]
    tasks = {"sequence": "split_mnist", "preset": "split_mnist_afaf"}
    (job,) = load_jobs(sweep_file(tmp_path, command="continual", base=tasks, grid={}, seeds=1))
    assert job.config["method"] == "afaf"


@pytest.mark.parametrize("sequence", ["split_digits", "hopper_gravity"])
def test_continual_runs_too(sequence: str, tmp_path: Path) -> None:
    path = sweep_file(tmp_path, command="continual", base={"sequence": sequence}, grid={"method": ["ewc", "packnet"]})
    scenario = {"scenario": "task"} if sequence == "split_digits" else {}
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "base": {"sequence": sequence, **scenario}}))
    jobs = load_jobs(path)
    assert [job.config["method"] for job in jobs] == ["ewc", "ewc", "packnet", "packnet"]
    assert {job.command for job in jobs} == {"continual"}


BAD = {
    "key": ({"gridd": {}}, "unknown key of a sweep 'gridd'; did you mean 'grid'"),
    "command": ({"command": "trian"}, "unknown command 'trian'; did you mean 'train'"),
    "empty list": ({"grid": {"env": []}}, "makes no run"),
    "no seeds": ({"seeds": 0}, "makes no run"),
    "no list": ({"grid": {"env": "Hopper-v5"}}, "grid.env must be a list, got 'Hopper-v5'"),
    "no grid": ({"grid": ["env"]}, "grid must hold keys and values, got 'env'"),
    "seed of one grid": ({"grid": [{}, {"seed": [1]}]}, "seeds are listed under seeds"),
    "no base": ({"base": 3}, "base must hold keys and values, got 3"),
    "seeds": ({"seeds": "many"}, "seeds must be a number or a list of integers, got 'many'"),
    "seed": ({"base": {"seed": 3}}, "seeds are listed under seeds"),
    "same run": ({"seeds": [1, 1]}, "topology.density 0.5 seed 1 and topology.density 0.5 seed 1 are the same run"),
    "grid key": ({"grid": {"topology.densty": [0.1]}}, "topology.densty 0.1, seed 3: "),
    "preset": ({"grid": {"preset": ["ds_td3/Hoper-v5"]}}, "preset ds_td3/Hoper-v5, seed 3: unknown preset"),
    "name of a preset": ({"base": {"preset": 3}}, "seed 3: preset must be a name, got 3"),
    "preset of another agent": ({"base": {"preset": "ds_sac/anf", "algo": "td3"}, "grid": {}}, "one of ds_sac, not of"),
    "value": ({"grid": {"topology.density": [1.5]}}, "topology.density 1.5, seed 3: "),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_one_line(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed, message = BAD[case]
    path = sweep_file(tmp_path, **changed)
    with pytest.raises(ConfigError) as caught:
        load_jobs(path)
    assert message in str(caught.value)
    assert main(["sweep", str(path), "--dry-run"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_bad_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", str(sweep_file(tmp_path)), "--workers", "0"]) == 2
    assert "--workers must be at least 1, got 0" in capsys.readouterr().err
    assert main(["sweep", str(tmp_path / "none.yaml")]) == 2
    assert "cannot read" in capsys.readouterr().err


OF_ANOTHER_BACKEND = {
    "--address is for --backend ray": ("--address", "127.0.0.1:6379"),
    "--no-shared-files is for --backend ray": ("--no-shared-files",),
    "--slurm is for --backend local": ("--backend", "ray", "--slurm", "new.sh"),
    "--workers 4 has no effect with --slurm": ("--slurm", "new.sh", "--workers", "4"),
    "--dry-run lists the runs and writes no --slurm file": ("--slurm", "new.sh", "--dry-run"),
    "no run of": ("--only", "abc"),
}


@pytest.mark.parametrize("message", OF_ANOTHER_BACKEND)
def test_an_option_that_has_no_effect_is_refused(
    message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs"
    assert main(["sweep", str(sweep_file(tmp_path)), "--out", str(out), *OF_ANOTHER_BACKEND[message]]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_ray_is_an_extra(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["sweep", str(sweep_file(tmp_path)), "--backend", "ray"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("sparserl: ray is not installed; ")
    assert said.endswith(" 'ray>=2.50' brings it\n")


def test_a_run_with_another_content_of_its_files_is_another_run(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    path = tmp_path / "sweep.yaml"
    base = {"sequence": str(own), "method": "naive", "learner": {"epochs": 1, "hidden": [4]}}
    path.write_text(yaml.safe_dump({"command": "continual", "base": base, "seeds": 1}))
    ids = []
    for text in ("data: iris\ntasks: 3\n", "data: iris\ntasks: 3\ntest_share: 0.5\n", "data: iris\ntasks: 3\n"):
        own.write_text(text)
        (job,) = load_jobs(path)
        ids.append(job.id)
        (folder,) = run_folders([job], tmp_path)
        assert folder == tmp_path / job.folder
    assert ids[0] == ids[2] != ids[1]
    older = tmp_path / job.folder.replace(job.id, "0123456789")
    older.mkdir()
    (older / "config.yaml").write_text(yaml.safe_dump(dict(job.recorded)))
    assert run_folders([job], tmp_path) == [older]
    own.write_text("data: iris\ntasks: 3\ntest_share: 0.5\n")
    assert run_folders(load_jobs(path), tmp_path) != [older]


def test_a_grid_of_densities_of_dense_networks_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = sweep_file(tmp_path, grid={"topology.method": ["set", "dense"], "topology.density": [0.5, 0.1]})
    assert main(["sweep", str(path), "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert "--topology.density 0.5 has no effect with --topology.method dense; use static, or leave it out" in error
    base = {**SMALL["base"], "topology": {"density": 0.1}}  # for other methods
    assert (
        main(["sweep", str(sweep_file(tmp_path, base=base, grid={"topology.method": ["set", "dense"]})), "--dry-run"])
        == 0
    )
