"""Checkpoints: what goes in comes out, what was touched is refused, nothing is executed, nothing is half there."""

from __future__ import annotations

import ast
import json
import math
import os
import shutil
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.killed import Killed
from support.trees import assert_equal_trees

from sparserl.errors import CheckpointError
from sparserl.recording import checkpoint

ROOT = Path(__file__).resolve().parents[3]


def state() -> dict[str, Any]:
    return {
        "big": 2**127 + 1,
        "negative": -(2**70),
        "nan": math.nan,
        "infinities": [math.inf, -math.inf],
        "tiny": 5e-324,
        "third": 1 / 3,
        "flag": True,
        "number": 1,
        "nothing": None,
        "text": 'ümläut\n"quote" __tensor__',
        "empty": [{}, [], ""],
        "nested": OrderedDict(a={"b": [1, {"c": torch.arange(3)}]}),
        "arrays": {
            "float": torch.tensor([math.nan, -0.0, math.inf]),
            "none": torch.empty(0),
            "shape of none": np.empty((0, 3), np.float64),
            "scalar": np.array(3.5),
            "scalar tensor": torch.tensor(7),
            "bool": np.array([True, False]),
            "bytes": torch.get_rng_state()[:16],
            "int64": np.array([2**62, -1]),
            "uint32": np.array([2**32 - 1], np.uint32),
            "transposed": np.arange(6.0).reshape(2, 3).T,
            "backwards": np.arange(4)[::-1],
            "strided": torch.arange(10)[::3],
            "half": torch.tensor([1.5], dtype=torch.bfloat16).float(),
        },
        "numpy": {"float": np.float64(0.1), "single": np.float32(0.1), "int": np.int64(3), "bool": np.bool_(True)},
        "tuple": (1, 2.0),
    }


def as_loaded() -> dict[str, Any]:
    """NumPy scalars become Python's."""
    expected = state()
    expected["numpy"] = {name: value.item() for name, value in expected["numpy"].items()}
    return expected


def saved(path: Path) -> Path:
    checkpoint.save(path, state())
    return path


def test_a_tree_comes_back_bit_for_bit(tmp_path: Path) -> None:
    loaded = checkpoint.load(saved(tmp_path / "one"))
    assert_equal_trees(loaded, as_loaded())
    assert loaded["flag"] is True
    assert type(loaded["number"]) is int
    assert loaded["tuple"] == [1, 2.0]
    assert math.copysign(1, loaded["arrays"]["float"][1]) == -1


def test_it_comes_back_again_and_again(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "two", checkpoint.load(saved(tmp_path / "one")))
    assert_equal_trees(checkpoint.load(tmp_path / "two"), as_loaded())


def test_a_tree_without_arrays_and_an_empty_one_are_fine(tmp_path: Path) -> None:
    for tree in ({}, {"a": 1}):
        checkpoint.save(tmp_path / "state", tree)
        assert checkpoint.load(tmp_path / "state") == tree


def test_arrays_that_share_memory_and_parameters_are_kept_apart(tmp_path: Path) -> None:
    base = torch.arange(4.0)
    tree = {"a": base, "b": base[1:], "c": torch.nn.Parameter(base), "d": base.view(2, 2)}
    checkpoint.save(tmp_path / "state", tree)
    assert_equal_trees(checkpoint.load(tmp_path / "state"), tree)


def test_what_stands_alone_is_written_without_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: dict[str, torch.Tensor] = {}
    monkeypatch.setattr("safetensors.torch.save_file", lambda tensors, path: (written.update(tensors), path.touch()))
    whole = torch.arange(6.0)
    state = {"a": whole, "b": whole, "c": whole[1:3], "d": torch.ones(2, 3).T, "e": np.arange(3), "f": torch.ones(3)}
    checkpoint.save(tmp_path / "saved", state)
    copied = {
        name.strip("/"): tensor.data_ptr() != _address(state[name.strip("/")]) for name, tensor in written.items()
    }
    assert copied == {"a": False, "b": True, "c": True, "d": True, "e": False, "f": False}


def _address(array: Any) -> int:
    address: int = array.ctypes.data if isinstance(array, np.ndarray) else array.data_ptr()
    return address


def test_keys_with_slashes_do_not_collide(tmp_path: Path) -> None:
    tree = {
        "a": {"b": torch.zeros(2)},
        "a/b": torch.ones(3),
        "": {"": torch.ones(1)},
        "x": [torch.ones(4)],
        "x/0": torch.ones(5),
    }
    checkpoint.save(tmp_path / "state", tree)
    assert_equal_trees(checkpoint.load(tmp_path / "state"), tree)


@pytest.mark.parametrize(
    "bad",
    [
        {"a": object()},
        {"a": {1, 2}},
        {"a": [b"bytes"]},
        {"a": {1: "a key that is no string"}},
        {"a": 1j},
        {"a": np.array(["text"])},
        {"a": np.array([None])},
        {"a": lambda: None},
        {"a": Path("p")},
        {"a": {"__tensor__": "looks like one of ours"}},
    ],
    ids=lambda bad: str(bad)[:20],
)
def test_anything_else_is_a_type_error_and_leaves_nothing(bad: dict[Any, Any], tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        checkpoint.save(tmp_path / "state", bad)
    assert list(tmp_path.iterdir()) == []


def test_a_type_error_says_where() -> None:
    with pytest.raises(TypeError, match="cannot hold set, at '/a/0/b'"):
        checkpoint.save(Path("never"), {"a": [{"b": set()}]})


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 4)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def edit_manifest(**changes: Any) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        manifest = json.loads((path / "manifest.json").read_text())
        (path / "manifest.json").write_text(json.dumps({**manifest, **changes}))

    return edit


def edit_json(path: Path) -> None:
    text = (path / "state.json").read_text()
    (path / "state.json").write_text(text.replace('"number": 1', '"number": 2'))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated tensors": (
        lambda path: truncate(path / "tensors.safetensors"),
        "tensors.safetensors was truncated or edited",
    ),
    "flipped bit": (lambda path: flip(path / "tensors.safetensors"), "tensors.safetensors was truncated or edited"),
    "edited JSON": (edit_json, "state.json was truncated or edited"),
    "truncated JSON": (lambda path: truncate(path / "state.json"), "state.json was truncated or edited"),
    "no tensors": (lambda path: (path / "tensors.safetensors").unlink(), "tensors.safetensors is missing"),
    "no state": (lambda path: (path / "state.json").unlink(), "state.json is missing"),
    "no manifest": (lambda path: (path / "manifest.json").unlink(), "no checkpoint at"),
    "truncated manifest": (lambda path: truncate(path / "manifest.json"), "manifest.json is damaged: it is not JSON"),
    "binary manifest": (lambda path: (path / "manifest.json").write_bytes(b"\xff\xfe\x00"), "manifest.json is damaged"),
    "manifest is a list": (lambda path: (path / "manifest.json").write_text("[]"), "is not a sparserl checkpoint"),
    "other program": (edit_manifest(format="other"), "is not a sparserl checkpoint"),
    "other version": (edit_manifest(version=2), "has checkpoint format version 2; this sparserl reads version 1"),
    "no version": (edit_manifest(version=None), "format version None"),
    "no file list": (edit_manifest(files={}), "was truncated or edited"),
    "file list of a wrong type": (edit_manifest(files=[1]), "was truncated or edited"),
    "gone": (shutil.rmtree, "no checkpoint at"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_is_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    damage, message = DAMAGE[kind]
    path = saved(tmp_path / "state")
    damage(path)
    with pytest.raises(CheckpointError) as refusal:
        checkpoint.load(path)
    assert message in str(refusal.value)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_foreign_folder_and_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "model.zip").write_text("")
    (tmp_path / "file").write_text("")
    for name in ("foreign", "file"):
        with pytest.raises(CheckpointError, match=f"no checkpoint at .*{name}"):
            checkpoint.load(tmp_path / name)


def test_tensors_that_are_not_safetensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"PK\x03\x04 not safetensors")
    with pytest.raises(CheckpointError, match=r"x\.safetensors is damaged"):
        checkpoint.read_tensors(path)


@pytest.mark.parametrize(
    "call", ["safetensors.torch.save_file", "json.dumps", "sparserl.recording.checkpoint.flush", "pathlib.Path.rename"]
)
def test_a_crash_before_the_rename_leaves_no_checkpoint(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*args: Any, **kwargs: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(call, die)
        with pytest.raises(Killed):
            checkpoint.save(tmp_path / "state", state())
    assert not (tmp_path / "state").exists()
    with pytest.raises(CheckpointError, match="no checkpoint"):
        checkpoint.load(tmp_path / "state")
    saved(tmp_path / "state")  # what the crash left is no obstacle
    assert_equal_trees(checkpoint.load(tmp_path / "state"), as_loaded())
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_a_crash_while_replacing_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path / "state")

    def die(*args: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "flush", die)
        with pytest.raises(Killed):
            checkpoint.save(tmp_path / "state", {"new": 1})
    assert_equal_trees(checkpoint.load(tmp_path / "state"), as_loaded())
    checkpoint.save(tmp_path / "state", {"new": 1})
    assert checkpoint.load(tmp_path / "state") == {"new": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_remove_leaves_nothing(tmp_path: Path) -> None:
    checkpoint.remove(saved(tmp_path / "state"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", ["sparserl/recording/checkpoint.py", "agents/agent_state.py", "agents/replay/log.py"])
def test_nothing_is_unpickled(file: str) -> None:
    forbidden = {
        "pickle",
        "cloudpickle",
        "dill",
        "joblib",
        "marshal",
        "shelve",
        "eval",
        "exec",
        "compile",
        "__import__",
    }
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [part for alias in node.names for part in alias.name.split(".")]
        elif isinstance(node, ast.ImportFrom):
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Name):
            names = [node.id]
        elif isinstance(node, ast.Attribute):
            text = ast.unparse(node)
            assert text not in ("torch.load", "np.load", "numpy.load", "torch.jit.load"), text
        assert not forbidden & set(names), names
        if isinstance(node, ast.keyword):
            assert node.arg != "allow_pickle"


def test_tidy_undoes_what_a_crash_left(tmp_path: Path) -> None:
    for name in ("best", "step-1"):
        checkpoint.save(tmp_path / name, {"name": name})
    (tmp_path / "best").rename(tmp_path / "best.old")  # killed between the two renames of a replacement
    (tmp_path / "best.tmp").mkdir()
    (tmp_path / "step-0.gone").mkdir()  # killed while it was deleted
    (tmp_path / "step-1.old").mkdir()  # killed after the new one had its name
    checkpoint.tidy(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "step-1"]
    assert checkpoint.load(tmp_path / "best") == {"name": "best"}
