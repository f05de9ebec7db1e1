"""Tables that a function returns, and columns of all kinds of files."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from sparserl.continual.supervised.tables import read_table
from sparserl.errors import ConfigError

X = np.arange(12, dtype=np.float32).reshape(6, 2)
PLACES = np.array(["p", "q"] * 3)


def test_all_kinds_of_files_have_columns(tmp_path: Path) -> None:
    from scipy import io

    y = np.array([0, 1] * 3)
    np.savez(tmp_path / "t.npz", x=X, y=y, place=PLACES)
    io.savemat(tmp_path / "t.mat", {"X": X, "Y": y, "place": np.array([1, 2] * 3)})
    lines = [f"{place},{a},{label},{b}" for place, (a, b), label in zip(PLACES, X, y, strict=True)]
    (tmp_path / "t.csv").write_text("\n".join(["place,one,class,two", *lines]) + "\n")
    found = {kind: read_table(str(tmp_path / f"t.{kind}"), seed=0, column="place") for kind in ("npz", "mat", "csv")}
    for kind, table in found.items():
        assert table.x.tolist() == X.tolist()
        assert table.groups is not None
        assert table.groups.tolist() == (["1", "2"] * 3 if kind == "mat" else PLACES.tolist())
    assert found["csv"].feature_names == ("one", "two")
    with pytest.raises(ConfigError, match=r"t.csv: unknown column 'plce'; did you mean 'place'\?"):
        read_table(str(tmp_path / "t.csv"), seed=0, column="plce")
    with pytest.raises(ConfigError, match=r"t.npz: unknown array 'place'; valid: "):
        read_table(str(tmp_path / "t.npz"), seed=0)
    with pytest.raises(ConfigError, match=r"iris has no column 'place'; a file .npz, .mat, .csv or a function has"):
        read_table("iris", seed=0, column="place")


MODULE = """
import numpy as np, torch
X, Y = np.arange(12).reshape(6, 1, 2), [0, 1] * 3
def arrays(): return {"X": X, "y": Y, "place": list("pqpqpq")}
def pair(): return X, Y
def four(): return X, Y, X[:2], Y[:2]
def sets():
    train = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))
    return {"train": train, "test": [(X[0], 0), (X[1], 1)]}
def rows(): return [{"image": x, "label": "ab"[y], "place": y} for x, y in zip(X, Y)]
def three(): return 3
def fails(): return 1 / 0
def uneven(): return [(X[0], 0), ([1], 1)]
def unlabelled(): return [{"image": [1]}]
def other(): return {"train": rows(), "valid": rows()}
def none(): return []
def ragged(): return [[1, 2], [3]], [0, 1]
def one_hot(): return [(x, [y, 1 - y]) for x, y in zip(X, Y)]
def ragged_sample(): return [([[1, 2], [3]], 0)]
class ByName:
    def __len__(self): return 2
    def __getitem__(self, name): return {"label": [0, 1]}[name]
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_data.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_data", raising=False)
    return "own_data"


def test_a_function_returns_arrays_or_data_sets(module: str) -> None:
    flat = np.arange(12).reshape(6, 2).tolist()
    for name in ("pair", "four", "sets", "rows"):
        table = read_table(f"{module}:{name}", seed=0, column="place" if name == "rows" else None)
        assert table.x.tolist() == flat
        assert table.y.tolist() == [0, 1] * 3  # type: ignore[union-attr]
        assert (table.x_test is not None) == (name in ("four", "sets"))
    assert table.classes == ("a", "b")
    assert table.groups.tolist() == ["0", "1"] * 3  # type: ignore[union-attr]
    assert read_table(f"{module}:arrays", seed=0, column="place").groups.tolist() == PLACES.tolist()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("array", "unknown name in own_data 'array'; did you mean 'arrays'?"),
        ("three", "must return arrays x and y, a data set, or data sets train and test, got 3"),
        ("fails", "failed: ZeroDivisionError: division by zero"),
        ("uneven", "sample 1 has 1 features, and sample 0 has 2"),
        ("unlabelled", "a sample needs one of label, class, y, target; it has image"),
        ("other", "unknown data set 'valid'; valid: test, train"),
        ("none", "has no samples"),
        ("ragged", "x of own_data:ragged is no array: setting an array element with a sequence."),
        ("one_hot", "the label of sample 0 of own_data:one_hot must be one number or text, got an array of shape (2,)"),
        (
            "ragged_sample",
            "a feature of sample 0 of own_data:ragged_sample is no array: setting an array element with a sequence.",
        ),
        ("ByName", "samples are taken by their numbers, and number 0 fails: KeyError: 0"),
    ],
)
def test_a_function_that_returns_something_else(name: str, message: str, module: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        read_table(f"{module}:{name}", seed=0)
    assert message in str(refusal.value)
    with pytest.raises(ConfigError, match="cannot import module 'no_such_module'"):
        read_table("no_such_module:f", seed=0)
