"""JSON that any program reads: no NaN, no infinity, and one place that writes it."""

import ast
import json
import math
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from sparserl.json_text import json_text
from sparserl.recording import checkpoint

SOURCES = Path(__file__).resolve().parents[2] / "sparserl"
# Files that make JSON for another end than a file of ours, or refuse what is not finite.
BY_THEMSELVES = {
    "sparserl/json_text.py": "it is the place",
    "sparserl/cli/options.py": "lists within a flag, read again at once",
    "sparserl/envs/array_file.py": "arrays of finite numbers alone: anything else is refused",
    "sparserl/recording/run_lock.py": "whoever holds a run, in place",
    "sparserl/sweep/file.py": "the id of a run is a hash of it",
    "sparserl/sweep/process.py": "what a process of ours reads at once, numbers as they are",
    "sparserl/sweep/tune_study.py": "keys of Optuna's journal",
    "sparserl/report/rl_run.py": "a key to compare tasks by",
}


def strictly(text: str) -> object:
    """Reads JSON as its standard has it."""

    def refused(name: str) -> None:
        raise ValueError(name)

    return json.loads(text, parse_constant=refused)


def test_what_is_not_finite_is_null_at_any_depth() -> None:
    data = {"a": math.nan, "b": [1.5, (math.inf, -math.inf)], "c": {"d": np.float64("nan")}, "e": [True, None, "NaN"]}
    assert strictly(json_text(data)) == {
        "a": None,
        "b": [1.5, [None, None]],
        "c": {"d": None},
        "e": [True, None, "NaN"],
    }


def test_a_checkpoint_holds_no_bare_nan_and_gives_it_back(tmp_path: Path) -> None:
    state = {
        "means": [math.nan, 1.0, math.inf, -math.inf, -0.0, 5e-324],
        "one": np.float32("nan"),
        "other": np.float64("-inf"),
        "nested": {"x": [{"y": math.nan}]},
    }
    checkpoint.save(tmp_path / "one", state)
    for name in ("state.json", "manifest.json"):
        strictly((tmp_path / "one" / name).read_text())
    found = checkpoint.load(tmp_path / "one")
    bits = [struct.pack("<d", value) for value in found["means"]]
    assert bits == [struct.pack("<d", value) for value in state["means"]]  # type: ignore[attr-defined]
    assert math.isnan(found["one"])
    assert found["other"] == -math.inf
    assert math.isnan(found["nested"]["x"][0]["y"])


def test_a_checkpoint_of_an_earlier_program_with_a_bare_nan_is_read(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "one", {"means": [0.5, 2.0]})
    file, manifest = tmp_path / "one" / "state.json", tmp_path / "one" / "manifest.json"
    before = checkpoint.sha256(file)
    file.write_text(file.read_text().replace("0.5", "NaN"))
    manifest.write_text(manifest.read_text().replace(before, checkpoint.sha256(file)))
    means = checkpoint.load(tmp_path / "one")["means"]
    assert math.isnan(means[0])
    assert means[1] == 2.0


def test_the_key_of_such_a_number_is_kept_for_it(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="keeps the key '__float__' for itself"):
        checkpoint.save(tmp_path / "one", {"a": {"__float__": "nan"}})


def test_no_other_file_writes_json() -> None:
    found = set()
    for folder, _, files in os.walk(SOURCES, followlinks=True):
        for path in (Path(folder, name) for name in files if name.endswith(".py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute) and ast.unparse(node) in ("json.dump", "json.dumps"):
                    found.add(path.relative_to(SOURCES.parent).as_posix())
    assert found == set(BY_THEMSELVES)
