"""Reading tables from files."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from scipy import io as matlab
from scipy import sparse
from support.idx_files import idx_bytes, pictures, write_mnist

from sparserl.continual.supervised import table_files
from sparserl.continual.supervised.table_files import read_csv, read_idx_folder, read_mat, read_npz
from sparserl.errors import ConfigError

X, Y = np.array([[1.0, 2.0], [3.0, 4.5], [-1.0, 0.0]]), np.array([2, 1, 2])


def written(folder: Path, text: str | bytes, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


CSV = {
    "numbers alone": ("1,2,a\n3,4.5,b\n-1,0,a\n", None),
    "header": ("height,width,what\n1,2,a\n3,4.5,b\n-1,0,a\n", ("height", "width")),
    "named column in front": ("Label,height,width\na,1,2\nb,3,4.5\na,-1,0\n", ("height", "width")),
    "numbered columns beside a named one": ("0,label,1\n1,a,2\n3,b,4.5\n-1,a,0\n", ("0", "1")),
    "semicolons, blank lines, quotes, a byte order mark": ('\ufeff"1";2;"a"\r\n\r\n3; 4.5 ;b\r\n-1;0;a', None),
    "tabs": ("1\t2\ta\n3\t4.5\tb\n-1\t0\ta", None),
}


@pytest.mark.parametrize("case", CSV)
def test_csv_worked_by_hand(case: str, tmp_path: Path) -> None:
    text, names = CSV[case]
    found = read_csv(written(tmp_path, text), labelled=True)
    assert found.x.tolist() == X.tolist()
    assert found.x.dtype == np.float32
    assert found.y is not None
    assert found.y.tolist() == ["a", "b", "a"]
    assert found.feature_names == names
    assert (found.x_test, found.scale) == (None, 1.0)


def test_without_labels_only_a_named_column_is_one(tmp_path: Path) -> None:
    found = read_csv(written(tmp_path, "1,2\n3,4.5\n-1,0\n"), labelled=False)
    assert (found.x.tolist(), found.y) == (X.tolist(), None)
    found = read_csv(written(tmp_path, "a,b,class\n1,2,u\n"), labelled=False)
    assert (found.x.tolist(), found.y.tolist()) == ([[1, 2]], ["u"])  # type: ignore[union-attr]


BAD_CSV = {
    "": "is empty",
    "\n\n": "is empty",
    "a,b,label\n": "has names of columns, but no samples",
    "label\n1\n": "has no column but that of the labels",
    "1,2,a\n3,4\n": "line 2 has 2 values instead of 3",
    "1,2,a\n\n3,4,5,b\n": "line 3 has 4 values instead of 3",
    "h,w,class\n1,red,a\n": "line 2: column 'w' is 'red', no number",
    "1,2,a\n3,red,b\n": "line 2: column '2' is 'red', no number",
    "1,2,a\n,4,b\n": "line 2: column '1' is missing",
    "1,2,a\n3,nan,b\n": "line 2: column '2' is 'nan', not finite",
    "1,2,a\n3,1e99,b\n": "line 2: column '2' is '1e99', not finite",
    "1,2,a\n3,4, \n": "line 2 has no label in column '3'",
    "y,x,target\n1,2,3\n": "has the columns 'y' and 'target'; only one can hold the labels",
    "1,2,a\n3," + "4" * 200_000 + ",b\n": "line 2 cannot be read: field larger than field limit",
}


@pytest.mark.parametrize("text", BAD_CSV)
def test_what_is_wrong_with_a_csv_is_said_with_its_line(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"t.csv {BAD_CSV[text]}") as caught:
        read_csv(written(tmp_path, text), labelled=True)
    assert "\n" not in str(caught.value)


def test_a_csv_that_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"t.csv is not text in UTF-8"):
        read_csv(written(tmp_path, b"1,\xff\n"), labelled=True)


def test_npz_with_and_without_test_samples(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", X=X, y=Y)
    found = read_npz(tmp_path / "t.npz", labelled=True)
    assert (found.x.tolist(), found.y.tolist(), found.x_test) == (X.tolist(), Y.tolist(), None)  # type: ignore[union-attr]
    np.savez_compressed(tmp_path / "t.npz", x=X, y=Y, x_test=X[:1], y_test=Y[:1])
    found = read_npz(tmp_path / "t.npz", labelled=True)
    assert (found.x_test.tolist(), found.y_test.tolist()) == ([[1, 2]], [2])  # type: ignore[union-attr]


def packed(**arrays: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name, raw in arrays.items():
            file.writestr(f"{name}.npy", raw)
    return content.getvalue()


def npy(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


BAD_NPZ = {
    "text": (b"x,y\n", "is no npz file that can be read: "),
    "empty": (b"", "is no npz file that can be read: "),
    "cut": (packed(x=npy(X))[:-9], "is no npz file that can be read: "),
    "one array": (npy(X), "is no npz file that can be read: it holds one array without a name"),
    "objects": (packed(x=npy(np.array([{}], object))), "x holds Python objects; save numbers"),
    "array cut": (packed(x=npy(X)[:-8]), "is no npz file that can be read: "),
    "no x": (packed(data=npy(X), labels=npy(Y)), "has no array x of features; it has data, labels"),
    "nothing": (packed(), "has no array x of features; it has nothing"),
    "misspelt": (packed(x=npy(X), y=npy(Y), x_tset=npy(X)), "unknown array 'x_tset'; did you mean 'x_test'"),
}


@pytest.mark.parametrize("case", BAD_NPZ)
def test_bad_npz_files_are_named(case: str, tmp_path: Path) -> None:
    content, problem = BAD_NPZ[case]
    with pytest.raises(ConfigError, match=f"t.npz:? {problem}"):
        read_npz(written(tmp_path, content, "t.npz"), labelled=True)


def test_mat_as_scikit_feature_writes_it(tmp_path: Path) -> None:
    for x in (X, sparse.csc_array(X)):
        matlab.savemat(tmp_path / "t.mat", {"X": x, "Y": Y[:, None].astype(np.uint8)}, do_compression=True)
        found = read_mat(tmp_path / "t.mat", labelled=True)
        assert (found.x.tolist(), found.y.ravel().tolist()) == (X.tolist(), Y.tolist())  # type: ignore[union-attr]


def test_bad_mat_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matlab.savemat(tmp_path / "t.mat", {"X": X, "Z": Y})
    with pytest.raises(ConfigError, match=r"t.mat: unknown array 'Z'"):
        read_mat(tmp_path / "t.mat", labelled=True)
    raw = (tmp_path / "t.mat").read_bytes()
    for content in (b"", raw[:-20], b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + raw[128:], b"x" * 500):
        with pytest.raises(ConfigError, match=r"t.mat is no MATLAB file up to version 7 that can be read: "):
            read_mat(written(tmp_path, content, "t.mat"), labelled=True)


@pytest.mark.parametrize("kind", ["npz", "mat"])
def test_what_is_too_large_unpacked_is_not_unpacked(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_files, "MOST_BYTES", 50_000)
    zeros = np.zeros((100, 100))
    if kind == "npz":
        np.savez_compressed(tmp_path / "t.npz", x=zeros)
    else:
        matlab.savemat(tmp_path / "t.mat", {"X": zeros}, do_compression=True)
    with pytest.raises(ConfigError, match="too large: unpacked, it has more than 50,000 bytes"):
        (read_npz if kind == "npz" else read_mat)(tmp_path / f"t.{kind}", True)


def test_a_folder_of_idx_files_has_pictures_of_any_size(tmp_path: Path) -> None:
    write_mnist(tmp_path, [3, 200, 3], [200])
    for name, images in (("train", np.arange(18).reshape(3, 2, 3)), ("t10k", np.ones((1, 2, 3)))):
        (tmp_path / f"{name}-images-idx3-ubyte").write_bytes(idx_bytes(images))
        (tmp_path / f"{name}-images-idx3-ubyte.gz").unlink()
    found = read_idx_folder(tmp_path, labelled=True)
    assert found.x.tolist() == np.arange(18).reshape(3, 6).tolist()
    assert (found.y.tolist(), found.y_test.tolist(), found.scale) == ([3, 200, 3], [200], 1 / 255)  # type: ignore[union-attr]
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(ConfigError, match=r"no t10k-labels-idx1-ubyte in .*, packed with .gz or not"):
        read_idx_folder(tmp_path, labelled=True)


def test_pictures_and_labels_must_be_as_many(tmp_path: Path) -> None:
    write_mnist(tmp_path, [3, 2], [2])
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx_bytes(pictures(1)))
    with pytest.raises(ConfigError, match=r"has 1 pictures, but .* has 2 labels"):
        read_idx_folder(tmp_path, labelled=True)
