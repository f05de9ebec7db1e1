"""Files of tasks of a user's own tables: how they are read and written, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.idx_files import write_mnist

from sparserl.config import dump
from sparserl.continual.supervised.own_tasks import own_sequence
from sparserl.continual.supervised.sequence_files import load_sequence_file
from sparserl.continual.supervised.tables import read_table
from sparserl.errors import ConfigError


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


def test_a_file_is_read_and_written(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", x=np.zeros((6, 2)), y=[0, 0, 1, 1, 2, 2])
    path = write(
        tmp_path,
        """
        name: 3
        data: t.npz
        test_share: 0.5
        tasks:
          - {classes: [0, 1.0], transform: {rotate: 1e1, permute: true}}
          - {name: two, classes: [2]}
        """,
    )
    file = load_sequence_file(path)
    assert (file.name, file.data, file.usual_scenario) == ("3", str(tmp_path / "t.npz"), "class")
    assert [entry.classes for entry in file.entries] == [("0", "1"), ("2",)]
    assert file.entries[0].transform.rotate == 10
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    assert load_sequence_file(write(copy, dump(file))) == file


@pytest.mark.parametrize("name", ["digits", "iris", "madelon:100x30"])
def test_what_is_a_name_is_no_file_beside(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "names.yaml"
    path.write_text(dump({"data": name, "tasks": [{"data": name}]}))
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    assert load_sequence_file(path).all_data == [name]


def test_a_folder_of_idx_files(tmp_path: Path) -> None:
    write_mnist(tmp_path / "idx", [0, 1, 2, 0, 1, 2], [0, 1, 2])
    path = write(tmp_path, "data: idx\ntasks: 3\n")
    file = load_sequence_file(path)
    sequence = own_sequence(file, {one: read_table(one, seed=0) for one in file.all_data}, seed=0)
    assert [len(task.train) for task in sequence.tasks] == [2, 2, 2]
    assert sequence.n_features == 784


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "dta: iris\ntasks: 3",
            "unknown config key 'dta'; did you mean 'data'? (valid: name, data, column, scenario, scaling, test_share, "
            "shape, tasks)",
        ),
        (
            "data: iris\ntasks: [{klass: [1]}]",
            "task 0: unknown config key 'klass'; did you mean 'classes'? (valid: name, "
            "data, classes, value, transform)",
        ),
        (
            "data: iris\ntasks: [{transform: {rotates: 3}}]",
            "task 0: unknown config key 'transform.rotates'; did you mean "
            "'transform.rotate'? (valid: transform.rotate, transform.flip, transform.invert, transform.noise, "
            "transform.permute)",
        ),
        ("data: iris", "tasks is missing: a list of tasks, or a number; or a column whose values are tasks"),
        ("tasks: 3", "data is missing: the table that tasks are made of"),
        ("tasks: [{}]", "task 0 has no data, and the sequence has none: say `data` of one of them"),
        ("data: iris\ntasks: []", "sequence 'mine' has no tasks"),
        ("data: iris\ntasks: many", "tasks must be a list of tasks or a number of them, got 'many'"),
        ("data: iris\ntasks: 0", "tasks must be at least 1, got 0"),
        ("data: iris\ntasks: [3]", "task 0: must hold keys and values, got 3"),
        ("data: iris\ntasks: [{classes: 3}]", "task 0: classes must be a list of labels, got 3"),
        (
            "data: iris\ntasks: [{classes: [yes]}]",
            "task 0: classes: True is no label; put text that YAML reads as something else in quotes",
        ),
        ("data: iris\ntasks: [{classes: [1, 1]}]", "task 0: class '1' is there twice"),
        ("data: iris\ntasks: [{value: x}]", "task 0 has value 'x' of a column: say which `column`"),
        ("data: iris\ntasks: [{transform: {noise: -1}}]", "task 0: transform.noise must not be negative, got -1.0"),
        (
            "data: iris\ntasks: [{transform: {flip: sideways}}]",
            "task 0: unknown transform.flip 'sideways'; valid: left_right, up_down",
        ),
        ("data: iris\ntasks: 3\nscenario: clas", "unknown scenario 'clas'; did you mean 'class'?"),
        ("data: iris\ntasks: 3\nscaling: all_feature", "unknown scaling 'all_feature'; did you mean 'all_features'?"),
        ("data: iris\ntasks: 3\ntest_share: 1", "test_share must be in (0, 1), got 1.0"),
        ("data: iris\ntasks: 3\nshape: [4]", "shape must be height and width, or channels, height and width, got [4]"),
        ("data: iris\ntasks: 3\ncolumn: x", "tasks 3 splits classes, and column 'x' samples; leave one out"),
        ("data: iris\ntasks: 3\nname: []", "name must be text, got []"),
    ],
)
def test_bad_files(text: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, text + "\n")
    with pytest.raises(ConfigError) as refusal:
        load_sequence_file(path)
    assert str(refusal.value).startswith(f"{path}: ")
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)
