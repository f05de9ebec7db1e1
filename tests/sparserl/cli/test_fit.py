"""`sparserl fit`: what a command line resolves to, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sparserl.cli import main
from sparserl.cli.running import read
from sparserl.errors import ConfigError
from sparserl.experiment import resolve
from sparserl.experiment.presets import fit_presets

# What a command line resolves to.


def config_of(*words: str) -> Any:
    return read("fit", words).config


def test_short_names_are_those_of_the_topology() -> None:
    by_short = config_of("wine", "--method", "rigl", "--density", "0.3")
    assert by_short == config_of("wine", "--topology.method", "rigl", "--topology.density", "0.3")
    assert by_short == resolve("fit", {"data": "wine", "method": "rigl", "density": 0.3})
    assert (by_short.topology.method, by_short.topology.density) == ("rigl", 0.3)
    assert config_of("wine", "--epsilon", "20").topology.epsilon == (20.0,)


def test_a_short_name_over_a_file_replaces_what_the_file_says(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("data: iris\ndensity: 0.4\ntopology: {method: rigl}\n")
    words = ("--config", str(tmp_path / "config.yaml"))
    config = config_of(*words, "--epsilon", "3")
    assert (config.data, config.topology.method) == ("iris", "rigl")
    assert (config.topology.density, config.topology.epsilon) == (None, (3.0,))
    assert config_of(*words, "wine").data == "wine"


def test_one_thing_by_both_names_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"density is topology\.density by its short name; leave one of them out"):
        config_of("wine", "--density", "0.3", "--topology.density", "0.2")


def test_all_layers_take_part_unless_the_output_layer_is_said_to_be_dense() -> None:
    for method in ("set", "rigl", "ds_td3"):
        assert config_of("wine", "--method", method).topology.output_layer == "sparse"
    assert config_of("wine", "--method", "dense").topology.output_layer is None
    assert config_of("wine", "--topology.output-layer", "dense").topology.output_layer == "dense"


def test_the_preset_of_the_data_lies_beneath() -> None:
    assert read("fit", ["digits"]).preset == read("fit", []).preset == "digits"
    assert read("fit", ["wine"]).preset is None
    request = read("fit", ["--preset", "lenet300_100", "--density", "0.1"])
    assert (request.preset, request.config.data, request.config.topology.density) == ("lenet300_100", "mnist", 0.1)


@pytest.mark.parametrize("name", fit_presets())
def test_every_preset_resolves(name: str) -> None:
    config: Any = resolve("fit", {}, preset=name)
    assert config.name.startswith(config.data_name)


def test_lenet_has_the_published_sizes() -> None:
    config: Any = resolve("fit", {}, preset="lenet300_100")
    shapes = [(300, 784), (100, 300), (10, 100)]
    nnz = [round(density * a * b) for density, (a, b) in zip(config.topology.densities(shapes), shapes, strict=True)]
    assert sum(a * b for a, b in shapes) == 266_200
    assert sum(nnz) == pytest.approx(0.05 * 266_200, abs=2)


# Wrong input.


WRONG: dict[str, tuple[str, ...]] = {
    "digit": ("unknown data 'digit'", "'digits'"),
    "nothing.csv": ("no file or folder", "nothing.csv"),
    "--task class": ("'class'", "'classify'"),
    "--task reconstruct --ensemble 3": ("--learner.ensemble 3", "--task classify", "reconstruct"),
    "--ensemble 3 --learner.epochs 2": ("ensemble of 3", "2 epochs"),
    "--learner.importance-share 0.2": ("epoch 210 of 40", "learner.importance_after 200"),
    "--learner.regularizer variational_dropout": ("--topology.method dense", "not set"),
    "--task rbm --learner.regularizer variational_dropout": ("--task classify", "rbm"),
    "--scaling all": ("'all'", "all_features"),
    "--method set --topology.first-update 10000000": ("topology.first_update 10000000", "beyond the run of"),
    "--method rgl": ("unknown topology method 'rgl'", "'rigl'"),
    "--density 1.5": ("1.5", "(0, 1]"),
    "--test-share 1": ("--test-share", "(0, 1)"),
    "--validation-share 1": ("--validation-share", "[0, 1)"),
    "mnist": ("nowhere/mnist", "put it there", "--download"),
    "--validation-share 0 --learner.patience 3": ("--learner.patience 3", "--validation-share"),
    "--learner.nesterov --learner.optimizer sgd": ("learner.nesterov", "learner.momentum"),
    "--learner.learning-rate-factor 0.1 --learner.learning-rate-every 40": ("every 40", "40 epochs"),
    "--learner.class-weights balance": ("'balance'", "balanced"),
    "--learner.reset-optimizer": ("--learner.reset-optimizer",),
    "--topology.target shared": ("--topology.target", "target networks"),
    "--method dense --density 0.5": ("density 0.5 has no effect",),
    "--wandb.video-every-steps 3 --track --wandb.mode disabled": ("--wandb.video-every-steps", "agents"),
    "--preset lenet": ("unknown preset 'lenet'", "'lenet300_100'"),
    "iris wine": ("unexpected word", "wine"),
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_input_is_one_line(
    words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARSERL_DATA", str(tmp_path / "nowhere"))
    assert main(["fit", *words.split(), "--run-dir", str(tmp_path / "run"), "--no-progress"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1, printed.err
    assert all(part in printed.err for part in WRONG[words]), printed.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wish", [{"data": ["iris", "wine"]}, {"method": ["set", "rigl"]}, {"topology": {"method": {"set": 1}}}]
)
def test_what_should_be_one_name_is_named(wish: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"(data|topology\.method) must be str, got "):
        resolve("fit", wish)


TABLES = {
    "empty": (b"", "empty"),
    "single class": (b"a,b,label\n1,2,x\n3,4,x\n", "single class"),
    "not a number": (b"a,b,label\n1,nan,x\n3,4,y\n", "nan"),
    "text": (b"a,b,label\n1,red,x\n3,4,y\n", "red"),
    "ragged": (b"a,b,label\n1,2,x\n3,y\n", "ragged"),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_wrong_table_is_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "table.csv").write_bytes(TABLES[name][0])
    words = [str(tmp_path / "table.csv"), "--run-dir", str(tmp_path / "run"), "--no-progress"]
    assert main(["fit", *words]) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert "table.csv" in printed.err
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


def test_a_method_that_takes_neurons_away_leaves_the_output_layer_alone() -> None:
    config: Any = resolve("fit", {"data": "wine", "method": "srigl", "density": 0.3})
    assert config.topology.output_layer_is_dense
    config = resolve("fit", {"data": "wine", "method": "rigl", "density": 0.3})
    assert not config.topology.output_layer_is_dense
