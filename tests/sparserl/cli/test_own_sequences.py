"""`sparserl continual` on a classification sequence of one's own: its run, its name everywhere, and bad input."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from matplotlib.figure import Figure
from support.runs import leave_undrawn

from sparserl.cli import main
from sparserl.config import load_yaml
from sparserl.continual.supervised.sequence_files import SequenceFile, TaskEntry, load_sequence_file
from sparserl.continual.supervised.transformations import Transformation
from sparserl.envs import Modification, PartFactors, RLSequence, TaskSpec
from sparserl.errors import ConfigError
from sparserl.experiment import open_run
from sparserl.experiment.sequence_kinds import is_of_environments
from sparserl.recording.run_logs import read_columns

ROOT = Path(__file__).parents[3]
SIZES = {"--learner.hidden": "8", "--learner.epochs": "2", "--learner.batch-size": "16"}
SMALL = ["--method", "naive", "--no-progress", *(word for pair in SIZES.items() for word in pair)]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Two blobs that two places see at different ends."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 120)
    x = rng.normal(size=(120, 3)) + 3 * y[:, None]
    lines = [
        f"{'pq'[i % 2]},{a:.3f},{b:.3f},{c:.3f},{['no', 'yes'][one]}"
        for i, ((a, b, c), one) in enumerate(zip(x, y, strict=True))
    ]
    (tmp_path / "places.csv").write_text("\n".join(["place,a,b,c,ill", *lines]) + "\n")
    path = tmp_path / "own.yaml"
    path.write_text("name: my own__tasks\ndata: places.csv\ncolumn: place\n")
    return path


def learn(own: Path, folder: Path, *words: str) -> int:
    return main(["continual", "--sequence", str(own), *SMALL, "--run-dir", str(folder), *words])


@pytest.mark.usefixtures("undrawn")
def test_a_run_keeps_its_tasks_and_repeats_itself(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert learn(own, tmp_path / "a") == 0
    config = load_yaml(tmp_path / "a" / "config.yaml")
    assert (config["sequence_name"], config["scenario"], config["tasks"]) == ("my own__tasks", "domain", None)
    copy = tmp_path / "a" / config["sequence"]
    assert load_sequence_file(copy).data == str(tmp_path / "places.csv")
    own.unlink()
    monkeypatch.chdir(tmp_path)  # the config of a run refers to the copy, wherever it is read from
    assert main(["continual", "--config", "a/config.yaml", "--no-progress", "--run-dir", "b"]) == 0
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in "ab"]
    assert results[0]["matrix"] == results[1]["matrix"]
    assert load_yaml(tmp_path / "b" / "config.yaml") == config
    copy.write_text(copy.read_text().replace("domain", "class"))
    assert open_run(tmp_path / "b").evaluate() == {"p": results[0]["matrix"][-1][0], "q": results[0]["matrix"][-1][1]}
    copy.write_text(copy.read_text() + "\n")
    assert main(["continual", "--config", "a/config.yaml", "--no-progress", "--run-dir", "c"]) == 2


@pytest.mark.usefixtures("undrawn")
def test_a_stopped_run_goes_on_exactly_without_its_file(own: Path, tmp_path: Path) -> None:
    words = ("--checkpoint-every-steps", "3", "--seed", "3")
    assert learn(own, tmp_path / "whole", *words) == 0
    assert learn(own, tmp_path / "cut", *words) == 0
    for name in ("DONE", "result.json"):
        (tmp_path / "cut" / name).unlink()
    own.unlink()
    (step, *_) = sorted((tmp_path / "cut" / "checkpoints").glob("step-*"))
    number = str(int(step.name.removeprefix("step-")))
    assert main(["continual", "--resume", str(tmp_path / "cut"), "--from-step", number, "--no-progress"]) == 0
    whole, cut = (read_columns(tmp_path / name / "eval.csv") for name in ("whole", "cut"))
    assert all(np.array_equal(whole[name], cut[name], equal_nan=True) for name in whole)


def test_the_name_is_honoured_everywhere(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["continual", "--sequence", str(own), *SMALL]
    with monkeypatch.context() as undrawn:
        leave_undrawn(undrawn)
        assert main([*words]) == main([*words, "--seed", "1"]) == main([*words, "--scenario", "task"]) == 0
    drawn: list[Figure] = []
    monkeypatch.setattr("sparserl.plots.matrix.write_figure", lambda figure, out: drawn.append(figure))
    own.unlink()
    names = sorted(path.name for path in Path("runs").iterdir())
    assert names == [
        f"my-own__tasks__{kind}__s{seed}"
        for kind, seed in (("domain__naive", 0), ("domain__naive", 1), ("task__naive", 0))
    ]
    result = json.loads((Path("runs") / names[0] / "result.json").read_text())
    assert result["sequence"] == "my own__tasks"
    capsys.readouterr()
    assert main(["report", "runs", "--json", "report.json"]) == 0
    assert "my own__tasks, domain-incremental: 2 tasks" in capsys.readouterr().out
    groups = [one["groups"] for one in json.loads(Path("report.json").read_text())["supervised"]["protocols"]]
    assert [[(group["label"], group["seeds"]) for group in of] for of in groups] == [
        [("naive", [0, 1])],
        [("naive", [0])],
    ]
    assert main(["plot", "runs"]) == 0
    assert [axis.get_title() for axis in drawn[0].axes] == [
        f"my own__tasks, {one}-incremental" for one in ("domain", "task")
    ]
    assert main(["plot", f"runs/{names[0]}"]) == 0
    assert drawn[-1].get_suptitle() == "naive on my own__tasks, domain-incremental, seed 0"
    assert main(["continual", "--config", f"runs/{names[0]}/config.yaml", "--sequence-name", "x", "--dry-run"]) == 0
    assert yaml.safe_load(capsys.readouterr().out.split("wrote")[-1].partition("\n")[2])["sequence_name"] == "x"


@pytest.mark.parametrize("name", ["digits.yaml", "digits_turned.yaml"])
def test_the_examples_are_what_they_say(name: str, tmp_path: Path) -> None:
    path = ROOT / "configs" / "sequences" / name
    assert not is_of_environments(str(path))
    command = path.read_text().splitlines()[0].removeprefix("# sparserl ").split()
    assert command[:2] == ["continual", "--sequence"]
    assert main([*command[:2], str(ROOT / command[2]), *command[3:], "--dry-run"]) == 0


def test_every_key_is_documented() -> None:
    text = (ROOT / "docs" / "sequences.md").read_text()
    of_classes, of_envs = text.split("## Environments")
    for schema, where in (
        *((one, of_classes) for one in (SequenceFile, TaskEntry, Transformation)),
        *((one, of_envs) for one in (RLSequence, TaskSpec, Modification, PartFactors)),
    ):
        for field in dataclasses.fields(schema):
            assert f"`{field.name}`" in where, (schema, field.name)
    assert "(sequences.md)" in (ROOT / "docs" / "continual.md").read_text()


@pytest.mark.parametrize("title", ["Classification", "Environments"])
def test_the_files_of_the_documentation_are_read(title: str, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "sequences.md").read_text().split(f"## {title}")[1]
    path = tmp_path / "doc.yaml"
    path.write_text(text.split("```yaml\n")[1].split("```")[0])
    words = ["--method", "naive"] if title == "Classification" else ["--method", "finetune"]
    assert main(["continual", "--sequence", str(path), *words, "--dry-run"]) == 0


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        ("data: iris\nclases: 3\n", "", "unknown config key 'clases'"),
        ("data: iris\ntasks: 3\n", "--tasks 2", "says itself what its tasks are; leave --tasks 2 out"),
        ("data: nowhere.csv\ntasks: 3\n", "", "no file or folder 'nowhere.csv'"),
        ("data: iris\ntasks: 2\n", "", "3 classes cannot be split into 2 tasks; valid: 1, 3"),
        ("data: iris\ntasks: [{classes: [setosa]}]\n", "--class-order random", "names its tasks itself"),
        ("data: iris\ntasks: [{classes: [setosa, rose]}]\n", "", "unknown class of iris 'rose'; valid: setosa"),
        ("tasks: [{data: iris}, {data: wine}]\n", "", "tasks 0 and 1 differ in features: 4 (iris) and 13 (wine)"),
        ("data: no_module:f\ntasks: 3\n", "", "cannot import module 'no_module'"),
        ("data: iris\ntasks: 3\n", "--algo ds_sac", "unknown option '--algo'"),
        ("", "", "must hold keys and values"),
    ],
)
def test_bad_input_is_one_line(
    text: str, words: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    assert learn(path, tmp_path / "run", *words.split()) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1 + ("no_module" in text)
    assert not (tmp_path / "run").exists()


def test_a_name_is_for_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["continual", "--sequence-name", "x", "--dry-run"]) == 2
    assert "--sequence-name x is for a sequence from a file; split_digits has its name" in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_a_function_of_ones_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_rows.py").write_text("import numpy as np\ndef f():\n    return np.eye(40), np.arange(40) % 4\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_rows", raising=False)
    path = tmp_path / "own.yaml"
    path.write_text("data: own_rows:f\ntasks: 2\ntest_share: 0.25\n")
    assert learn(path, tmp_path / "run") == 0
    said = f"sparserl: data 'own_rows:f' imports the module own_rows ({tmp_path / 'own_rows.py'})"
    assert said in capsys.readouterr().err
    (tmp_path / "own_rows.py").rename(tmp_path / "run" / "own_rows.py")
    monkeypatch.syspath_prepend(tmp_path / "run")
    monkeypatch.delitem(sys.modules, "own_rows")
    with pytest.raises(ConfigError, match=r"data 'own_rows:f' would import .*, which lies in the run folder"):
        open_run(tmp_path / "run")
