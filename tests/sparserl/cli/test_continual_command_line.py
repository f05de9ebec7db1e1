"""What a command line of `sparserl continual` resolves to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from sparserl.cli import main
from sparserl.cli.running import read
from sparserl.continual.strategies import make_strategy
from sparserl.continual.strategies.closed_form import ClosedForm
from sparserl.continual.supervised.closed_form_learner import ClosedFormLearner
from sparserl.continual.supervised.data import DATASETS
from sparserl.continual.supervised.learner import SupervisedLearner
from sparserl.continual.supervised.sequences import SEQUENCES
from sparserl.continual.supervised.tasks import TaskSequence
from sparserl.errors import ConfigError
from sparserl.experiment.continual_config import continual_preset_for
from sparserl.experiment.presets import continual_presets, presets

pytestmark = pytest.mark.usefixtures("undrawn")  # but that of `finished`


def resolved(*words: str) -> Any:
    return read("continual", words).config


# The command line.


def test_a_flag_wins_over_the_config_over_the_preset_over_the_default(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("learner: {epochs: 7, batch_size: 99}\nspacenet: {drop_fraction: 0.5}\n")
    preset, given = resolved(), resolved("--config", str(file), "--learner.epochs", "3")
    assert preset.spacenet.connections == (500, 120, 20)
    assert (preset.learner.learning_rate, preset.learner.momentum) == (0.05, 0.0)
    assert (given.learner.epochs, given.learner.batch_size, given.learner.hidden) == (3, 99, (100, 100))
    assert (given.spacenet.drop_fraction, given.spacenet.connections) == (0.5, (500, 120, 20))


def test_sequence_method_and_scenario_come_from_flag_then_config_then_preset(tmp_path: Path) -> None:
    def chosen(*words: str) -> tuple[str, str, str, int]:
        config = resolved(*words)
        return config.sequence, config.method, config.scenario, config.tasks

    file = tmp_path / "c.yaml"
    file.write_text("sequence: split_mnist\nmethod: naive\nscenario: task\n")
    assert chosen() == ("split_digits", "spacenet", "class", 5)
    assert chosen("--config", str(file)) == ("split_mnist", "naive", "task", 5)
    assert chosen("--config", str(file), "--method=ewc", "--scenario", "domain")[1:3] == ("ewc", "domain")
    assert chosen("--preset", "permuted_mnist_spacenet") == ("permuted_mnist", "spacenet", "domain", 10)
    assert chosen("--preset", "permuted_mnist", "--method", "si", "--tasks", "3")[1:] == ("si", "domain", 3)


def test_a_method_without_a_preset_takes_that_of_its_options_or_of_the_sequence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = ("s_spacenet", "s", "s_ewc_task", "s_ewc")
    monkeypatch.setattr("sparserl.experiment.continual_config.continual_presets", lambda: dict.fromkeys(known))
    expected = {
        ("static_sparse", "class"): "s_spacenet",
        ("naive", "class"): "s",
        ("ewc", "task"): "s_ewc_task",
        ("ewc", "class"): "s_ewc",
    }
    assert {case: continual_preset_for("s", *case) for case in expected} == expected
    assert continual_preset_for("t", "ewc", "task") is None


def test_static_sparse_is_spacenet_that_does_not_rewire() -> None:
    config = resolved("--method", "static_sparse")
    assert config.spacenet.rewire is False
    assert config.spacenet.connections == resolved().spacenet.connections
    assert read("continual", ["--method", "static_sparse"]).preset == "split_digits_spacenet"


def test_momentum_of_a_file_gives_way_to_an_optimizer_that_has_none(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("learner: {optimizer: sgd, momentum: 0.9}\n")
    words = ("--config", str(tmp_path / "mine.yaml"))
    assert resolved(*words).learner.momentum == 0.9
    assert resolved(*words, "--learner.optimizer", "rmsprop").learner.momentum == 0.9
    assert resolved(*words, "--learner.optimizer", "adam").learner.momentum == 0.0
    with pytest.raises(ConfigError, match=r"learner\.momentum 0\.5 has no effect on adam"):
        resolved(*words, "--learner.optimizer", "adam", "--learner.momentum", "0.5")


@pytest.mark.parametrize("name", continual_presets())
def test_every_preset_fits_its_sequence(name: str) -> None:
    of_sequence = ("--method", "naive") if name in SEQUENCES else ()  # for methods that have none of their own
    config = resolved("--preset", name, *of_sequence)
    sequence, method = config.sequence, config.method
    assert name.startswith(sequence)
    if name in {f"{sequence}_{method}", f"{sequence}_{method}_{config.scenario}"}:  # what these two ask for alone
        assert config == resolved("--sequence", sequence, "--method", method, "--scenario", config.scenario)
    spec = SEQUENCES[sequence]
    data = DATASETS[spec.dataset]
    plans = spec.plan(data, config.scenario, config.tasks, "fixed", 0)

    class Outline:  # as much of a task as there is without data
        train = range(1_000)

        def __init__(self, outputs: tuple[int, ...]):
            self.outputs = outputs

    tasks: Any = tuple(Outline(plan.outputs) for plan in plans)
    n_outputs = 1 + max(unit for plan in plans for unit in plan.outputs)
    outline = TaskSequence(sequence, config.scenario, tasks, data.n_features, n_outputs, {}, image=data.image)
    strategy = make_strategy(method, "classifier", config)
    if isinstance(strategy, ClosedForm):
        ClosedFormLearner(outline, strategy, seed=0)
    else:
        SupervisedLearner(outline, strategy, config.learner, seed=0)


def test_presets_of_train_and_continual_are_apart() -> None:
    assert not set(presets()) & set(continual_presets())
    assert not [name for name in presets() if name.startswith("continual/")]
    assert {config for config in SEQUENCES if config in continual_presets()} == set(SEQUENCES)


def test_dry_run_prints_the_config_and_makes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--method", "ewc", "--ewc.strength", "7", "--seed", "5"]
    assert main(["continual", "--dry-run", "--run-dir", str(tmp_path / "run"), *words]) == 0
    printed = capsys.readouterr().out
    config = yaml.safe_load(printed)
    assert (config["seed"], config["scenario"], config["tasks"], config["ewc"]["strength"]) == (5, "class", 5, 7.0)
    assert not {"spacenet", "replay", "packnet", "data_dir"} & set(config)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "c.yaml").write_text(printed)
    assert resolved("--config", str(tmp_path / "c.yaml")) == resolved(*words)
